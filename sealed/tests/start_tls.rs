//! TLS on a connection that already exists, in both roles.

mod common;

use std::io::ErrorKind;

use common::{SECOND, address, rough};
use rcgen::{CertifiedKey, KeyPair};
use sealed::sim::{Link, LoopId, Peer, Simulation};
use sealed::tls::{Acceptor, Connector, Error, ServerName};
use sealed::{CloseReason, Config, ConnectionId, Context, EventLoop, Input, ListenerId, Service};

/// A side of a small protocol: the client sends `STARTTLS`, the server answers `go`, and both start
/// TLS. Lines that come after it are echoed by the server.
struct Side {
    acceptor: Option<Acceptor>,
    connector: Option<(Connector, &'static str)>,
    /// Bytes that the server sends before `go`.
    preface: usize,
    /// What the client sends as soon as it has started TLS.
    greeting: Vec<u8>,
    id: ConnectionId,
    secured: u32,
    plain: Vec<u8>,
    secret: Vec<u8>,
    closed: Vec<CloseReason>,
}

impl Side {
    fn new() -> Self {
        Self {
            acceptor: None,
            connector: None,
            preface: 0,
            greeting: Vec::new(),
            id: ConnectionId::default(),
            secured: 0,
            plain: Vec::new(),
            secret: Vec::new(),
            closed: Vec::new(),
        }
    }
}

impl Service for Side {
    type Connection = ();
    type Message = ();
    type Timer = ();

    fn accepted(&mut self, _: &mut Context<Self>, id: ConnectionId, _: ListenerId, _: &sealed::Address) {
        self.id = id;
    }

    fn connected(&mut self, cx: &mut Context<Self>, id: ConnectionId) {
        cx.write(id, b"STARTTLS\n");
    }

    fn received(&mut self, cx: &mut Context<Self>, id: ConnectionId, input: &mut Input<'_>) {
        if cx.tls(id).is_some() {
            let bytes = input.take_all();
            self.secret.extend_from_slice(bytes);
            if self.acceptor.is_some() {
                cx.write(id, bytes);
            }
            return;
        }
        while let Some(line) = input.take_until(b'\n') {
            match line {
                b"STARTTLS\n" => {
                    cx.write(id, &vec![b'.'; self.preface]);
                    cx.write(id, b"\ngo\n");
                    let acceptor = self.acceptor.as_ref().expect("the server");
                    cx.start_tls_server(id, acceptor).expect("it is open");
                    assert!(matches!(cx.start_tls_server(id, acceptor), Err(Error::NotPossible)), "only once");
                    return;
                }
                b"go\n" => {
                    let (connector, name) = self.connector.as_ref().expect("the client");
                    let name = ServerName::try_from(*name).expect("a name");
                    cx.start_tls_client(id, connector, name).expect("it is open");
                    cx.write(id, &self.greeting);
                    return;
                }
                line => self.plain.extend_from_slice(line),
            }
        }
    }

    fn secured(&mut self, cx: &mut Context<Self>, id: ConnectionId) {
        assert!(cx.tls(id).is_some());
        self.secured += 1;
    }

    fn closed(&mut self, _: &mut Context<Self>, _: ConnectionId, (): (), reason: CloseReason) {
        self.closed.push(reason);
    }
}

struct Stage {
    sim: Simulation,
    server: LoopId,
    connector: Connector,
}

/// Starts a server at 10.0.0.1:25.
fn stage(seed: u64, preface: usize) -> Stage {
    let CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["mail.test".to_owned()]).expect("a certificate");
    let (cert, key) = (cert.pem(), KeyPair::serialize_pem(&signing_key));
    let acceptor = Acceptor::from_pem(cert.as_bytes(), key.as_bytes()).expect("it is good");
    let connector = Connector::trusting_pem(cert.as_bytes()).expect("it is good");
    let sim = Simulation::new(seed);
    let config = Config { handshake_limit: SECOND * 10, ..Config::default() };
    let service = Side { acceptor: Some(acceptor), preface, ..Side::new() };
    let mut event_loop = sim.event_loop(config, service).expect("a loop");
    event_loop.listen(address("10.0.0.1:25")).expect("it is free");
    Stage { server: sim.start(event_loop), sim, connector }
}

impl Stage {
    fn client(&self, name: &'static str, greeting: &[u8]) -> LoopId {
        let connector = Some((self.connector.clone(), name));
        let client = Side { connector, greeting: greeting.to_vec(), ..Side::new() };
        let config = Config { handshake_limit: SECOND * 10, ..Config::default() };
        let mut event_loop = self.sim.event_loop(config, client).expect("a loop");
        event_loop.parts().1.connect(address("10.0.0.1:25"), ()).expect("started");
        self.sim.start(event_loop)
    }

    fn with<R>(&self, id: LoopId, look: impl FnOnce(&mut Side, &mut Context<Side>) -> R) -> R {
        let looked = self.sim.with(id, |event_loop: &mut EventLoop<Side>| {
            let (side, cx) = event_loop.parts();
            look(side, cx)
        });
        looked.expect("it runs")
    }

    fn peer(&self) -> Peer {
        self.sim.connect(address("10.0.0.1:25"))
    }
}

#[test]
fn both_sides_switch_and_everything_arrives_whatever_the_network_does() {
    for seed in 0..40 {
        let stage = stage(seed, 50_000);
        stage.sim.set_link(Link { buffer_bytes: 8_192, ..Link::default() });
        stage.sim.set_faults(rough());
        let greeting: Vec<u8> = (0..100_000_u32).map(|n| (n % 251) as u8).collect();
        let client = stage.client("mail.test", &greeting);
        let echoed = || stage.with(client, |side, _| side.secret.len()) >= greeting.len();
        assert!(stage.sim.run_until(SECOND * 60, echoed), "seed {seed}\n{}", stage.sim.trace());
        stage.with(client, |side, _| {
            assert_eq!(side.secured, 1, "seed {seed}");
            assert_eq!(side.plain.len(), 50_001, "seed {seed}: what was queued before comes as plain text");
            assert!(side.secret == greeting, "seed {seed}");
        });
        stage.with(stage.server, |side, cx| {
            assert_eq!((side.secured, cx.timers()), (1, 0), "seed {seed}");
            assert!(cx.stats().bytes_sent >= 50_004 + 100_000, "seed {seed}: {:?}", cx.stats());
        });
    }
}

#[test]
fn what_is_queued_before_goes_out_as_plain_text() {
    let stage = stage(1, 0);
    let mut peer = stage.peer();
    peer.send("STARTTLS\n");
    peer.expect("\ngo\n");
}

#[test]
fn plain_text_behind_the_command_never_reaches_the_service() {
    let stage = stage(1, 0);
    let mut peer = stage.peer();
    peer.send("before\nSTARTTLS\nMAIL FROM:<attacker@example.org>\n");
    stage.sim.run_for(SECOND);
    stage.with(stage.server, |side, _| {
        assert_eq!(side.plain, b"before\n");
        assert_eq!(side.secret, b"");
        assert_eq!(side.closed, [CloseReason::Failed(ErrorKind::InvalidData)]);
    });
}

#[test]
fn a_handshake_that_does_not_come_ends_the_connection_in_time() {
    let stage = stage(1, 0);
    let mut peer = stage.peer();
    peer.send("STARTTLS\n");
    peer.expect("\ngo\n");
    stage.sim.run_for(SECOND * 9);
    stage.with(stage.server, |side, _| assert_eq!(side.closed, []));
    stage.sim.run_for(SECOND * 2);
    stage.with(stage.server, |side, _| assert_eq!(side.closed, [CloseReason::TimedOut]));
}

#[test]
fn a_certificate_for_another_name_fails_the_connection_on_both_sides() {
    let stage = stage(1, 0);
    let client = stage.client("other.test", b"secret");
    stage.sim.run_for(SECOND);
    stage.with(client, |side, _| {
        assert_eq!((side.secured, &side.closed[..]), (0, &[CloseReason::Failed(ErrorKind::InvalidData)][..]));
    });
    stage.with(stage.server, |side, _| {
        assert_eq!((side.secured, side.closed.len()), (0, 1), "{:?}", side.closed);
        assert_eq!(side.secret, b"");
    });
}

#[test]
fn tls_does_not_start_where_it_cannot() {
    let stage = stage(1, 0);
    let acceptor = stage.with(stage.server, |side, _| side.acceptor.clone()).expect("the server");
    let refused = |outcome: Result<(), Error>| assert!(matches!(outcome, Err(Error::NotPossible)), "{outcome:?}");
    let mut peer = stage.peer();
    stage.sim.settle();
    stage.with(stage.server, |side, cx| {
        refused(cx.start_tls_server(ConnectionId::default(), &acceptor));
        let making = cx.connect(address("10.0.0.9:25"), ()).expect("started");
        refused(cx.start_tls_server(making, &acceptor));
        cx.abort(making);
        cx.half_close(side.id);
        refused(cx.start_tls_server(side.id, &acceptor));
        assert_eq!(cx.timers(), 0, "no limit is left");
        cx.close(side.id);
        refused(cx.start_tls_server(side.id, &acceptor));
    });
    peer.expect_end();
}
