//! TLS on a connection that already exists, in both roles.

mod common;

use std::io::ErrorKind;

use common::{SECOND, address, rough};
use rcgen::{CertifiedKey, KeyPair};
use sealed::sim::{Link, LoopId, Peer, Simulation};
use sealed::tls::{Acceptor, Connector, Error, ServerName};
use sealed::{CloseReason, Config, ConnectionId, Context, EventLoop, Input, ListenerId, Rate, Rates, Service};

/// A side of a small protocol: the client sends `STARTTLS`, the server answers `go`, and both start
/// TLS. Lines that come after it are echoed by the server.
struct Side {
    acceptor: Option<Acceptor>,
    connector: Option<(Connector, &'static str)>,
    /// Bytes that the server sends before `go`.
    preface: usize,
    /// What the client sends as soon as it has started TLS.
    greeting: Vec<u8>,
    ways: Ways,
    id: ConnectionId,
    secured: u32,
    plain: Vec<u8>,
    secret: Vec<u8>,
    closed: Vec<CloseReason>,
}

const RATE: Rate = Rate { bytes_per_second: 10_000, burst_bytes: 10_000 };

/// Differences from the usual protocol.
#[derive(Default, Clone, Copy)]
struct Ways {
    /// The client starts TLS right after its command, and the server says nothing before it does;
    /// it is paused until the test resumes it.
    eager: bool,
    /// The server pauses the connection once it is secured.
    pauses: bool,
    /// The server closes the connection as soon as it has started TLS, with this answer.
    last_answer: Option<&'static [u8]>,
    /// The limit of what the server writes.
    rate: Option<Rate>,
}

impl Side {
    fn new() -> Self {
        Self {
            acceptor: None,
            connector: None,
            preface: 0,
            greeting: Vec::new(),
            ways: Ways::default(),
            id: ConnectionId::default(),
            secured: 0,
            plain: Vec::new(),
            secret: Vec::new(),
            closed: Vec::new(),
        }
    }

    fn start_as_client(&self, cx: &mut Context<Self>) {
        let (connector, name) = self.connector.as_ref().expect("the client");
        let name = ServerName::try_from(*name).expect("a name");
        cx.start_tls_client(self.id, connector, name).expect("it is open");
        cx.write(self.id, &self.greeting);
    }
}

impl Service for Side {
    type Connection = ();
    type Message = ();
    type Timer = ();

    fn accepted(&mut self, cx: &mut Context<Self>, id: ConnectionId, _: ListenerId, _: &sealed::Address) {
        self.id = id;
        if self.ways.eager {
            cx.pause(id);
        }
        if let Some(rate) = self.ways.rate {
            cx.set_rates(id, Rates { read: None, write: Some(rate) });
        }
    }

    fn connected(&mut self, cx: &mut Context<Self>, id: ConnectionId) {
        self.id = id;
        cx.write(id, b"STARTTLS\n");
        if self.ways.eager {
            self.start_as_client(cx);
        }
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
                    if !self.ways.eager {
                        cx.write(id, b"\ngo\n");
                    }
                    let acceptor = self.acceptor.as_ref().expect("the server");
                    cx.start_tls_server(id, acceptor).expect("it is open");
                    assert!(matches!(cx.start_tls_server(id, acceptor), Err(Error::NotPossible)), "only once");
                    if let Some(answer) = self.ways.last_answer {
                        cx.write(id, answer);
                        cx.close(id);
                    }
                    return;
                }
                b"go\n" => return self.start_as_client(cx),
                line => self.plain.extend_from_slice(line),
            }
        }
    }

    fn secured(&mut self, cx: &mut Context<Self>, id: ConnectionId) {
        assert!(cx.tls(id).is_some());
        self.secured += 1;
        if self.ways.pauses && self.acceptor.is_some() {
            cx.pause(id);
        }
    }

    fn closed(&mut self, _: &mut Context<Self>, _: ConnectionId, (): (), reason: CloseReason) {
        self.closed.push(reason);
    }
}

struct Stage {
    sim: Simulation,
    server: LoopId,
    connector: Connector,
    ways: Ways,
}

/// Starts a server at 10.0.0.1:25.
fn stage(seed: u64, preface: usize) -> Stage {
    stage_with(seed, preface, Ways::default())
}

fn stage_with(seed: u64, preface: usize, ways: Ways) -> Stage {
    let CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["mail.test".to_owned()]).expect("a certificate");
    let (cert, key) = (cert.pem(), KeyPair::serialize_pem(&signing_key));
    let acceptor = Acceptor::from_pem(cert.as_bytes(), key.as_bytes()).expect("it is good");
    let connector = Connector::trusting_pem(cert.as_bytes()).expect("it is good");
    let sim = Simulation::new(seed);
    let config = Config { handshake_limit: SECOND * 10, ..Config::default() };
    let service = Side { acceptor: Some(acceptor), preface, ways, ..Side::new() };
    let mut event_loop = sim.event_loop(config, service).expect("a loop");
    event_loop.listen(address("10.0.0.1:25")).expect("it is free");
    Stage { server: sim.start(event_loop), sim, connector, ways }
}

impl Stage {
    fn client(&self, name: &'static str, greeting: &[u8]) -> LoopId {
        let connector = Some((self.connector.clone(), name));
        let client = Side { connector, greeting: greeting.to_vec(), ways: self.ways, ..Side::new() };
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

#[test]
fn a_failed_handshake_puts_nothing_into_plain_output_that_is_under_way() {
    // The rate holds the output back while the socket has room.
    let stage = stage_with(1, 50_000, Ways { rate: Some(RATE), ..Ways::default() });
    let mut peer = stage.peer();
    peer.send("STARTTLS\nMAIL FROM:<attacker@example.org>\n");
    stage.sim.run_for(SECOND);
    stage.with(stage.server, |side, _| assert_eq!(side.closed, [CloseReason::Failed(ErrorKind::InvalidData)]));
    let received = peer.take();
    assert!(received.len() < 50_000);
    assert!(received.iter().all(|byte| *byte == b'.'), "{:?}", received.iter().find(|byte| **byte != b'.'));
    assert!(peer.failure().is_some(), "the end of the output is missing, and the peer sees it");
}

#[test]
fn plain_output_keeps_to_the_rate_and_to_what_follows_it() {
    let stage = stage_with(1, 50_000, Ways { rate: Some(RATE), ..Ways::default() });
    let greeting = vec![b'g'; 20_000];
    let client = stage.client("mail.test", &greeting);
    for second in 1..4 {
        stage.sim.run_for(SECOND);
        let plain = stage.with(client, |side, cx| side.plain.len() as u64 + cx.stats().bytes_received);
        assert!(plain <= 10_000 * (second + 1) + 2_000, "{plain} bytes after {second} s");
    }
    let echoed = || stage.with(client, |side, _| side.secret.len()) >= greeting.len();
    assert!(stage.sim.run_until(SECOND * 10, echoed), "it goes on\n{}", stage.sim.trace());
}

#[test]
fn a_connection_that_is_paused_when_it_is_secured_shows_its_input_later() {
    for seed in 0..40 {
        let stage = stage_with(seed, 0, Ways { pauses: true, ..Ways::default() });
        stage.sim.set_faults(rough());
        let client = stage.client("mail.test", b"good morning");
        stage.sim.run_for(SECOND);
        stage.with(stage.server, |side, cx| {
            assert_eq!((side.secured, &side.secret[..]), (1, &b""[..]), "seed {seed}");
            cx.resume(side.id);
        });
        stage.sim.run_for(SECOND);
        stage.with(stage.server, |side, _| assert_eq!(side.secret, b"good morning", "seed {seed}"));
        stage.with(client, |side, _| assert_eq!(side.secret, b"good morning", "seed {seed}"));
    }
}

#[test]
fn a_handshake_right_behind_the_command_is_completed_even_if_the_service_closes() {
    let stage = stage_with(1, 0, Ways { eager: true, last_answer: Some(b"goodbye"), ..Ways::default() });
    let client = stage.client("mail.test", b"");
    stage.sim.run_for(SECOND);
    // All of it has arrived now, and is read at once.
    stage.with(stage.server, |side, cx| cx.resume(side.id));
    stage.sim.run_for(SECOND);
    stage.with(client, |side, _| {
        assert_eq!((side.secured, &side.secret[..]), (1, &b"goodbye"[..]));
        assert_eq!(side.closed, [CloseReason::Ended]);
    });
    stage.with(stage.server, |side, _| assert_eq!(side.closed, [CloseReason::Closed]));
}
