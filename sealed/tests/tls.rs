//! TLS between loops: the same services with and without it.

mod common;

use std::io::ErrorKind;
use std::sync::Arc;

use common::{Book, Call, Node, SECOND, address, rough};
use rcgen::{CertifiedKey, KeyPair};
use sealed::sim::{Link, Simulation};
use sealed::tls::{Acceptor, Connector, ServerName, rustls, server_config};
use sealed::{Address, CloseReason, Config, Connect, Listen, Rate, Rates};

/// Returns a self-signed certificate and its key.
fn certificate(name: &str) -> (String, String) {
    let CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
    (cert.pem(), KeyPair::serialize_pem(&signing_key))
}

struct Stage {
    sim: Simulation,
    server: Node,
    client: Node,
    acceptor: Acceptor,
    connector: Connector,
}

fn at() -> Address {
    address("10.0.0.1:443")
}

fn stage(seed: u64, config: Config) -> Stage {
    let (cert, key) = certificate("server.test");
    let acceptor = Acceptor::from_pem(cert.as_bytes(), key.as_bytes()).expect("it is good");
    let connector = Connector::trusting_pem(cert.as_bytes()).expect("it is good");
    let sim = Simulation::new(seed);
    let server = Node::start(&sim, config, Book { echoes: true, ends: true, ..Book::default() });
    server.act(|cx| cx.listen(Listen::on(at()).tls(acceptor.clone())).expect("it is free"));
    let client = Node::start(&sim, Config::default(), Book { ends: true, ..Book::default() });
    Stage { sim, server, client, acceptor, connector }
}

impl Stage {
    fn call(&self, connector: &Connector, name: &'static str) -> sealed::ConnectionId {
        let name = ServerName::try_from(name).expect("a name");
        self.client.act(|cx| cx.connect(Connect::to(at()).tls(connector.clone(), name), ()).expect("started"))
    }
}

#[test]
fn data_arrives_whatever_the_network_does() {
    for seed in 0..30 {
        let stage = stage(seed, Config::default());
        stage.sim.set_faults(rough());
        let id = stage.call(&stage.connector, "server.test");
        let text: Vec<u8> = (0..200_000_u32).map(|n| (n % 256 * (n % 251) % 253) as u8).collect();
        stage.client.act(|cx| cx.write(id, &text[..1_000]));
        let wrote = || stage.client.calls().contains(&Call::Connected(id));
        assert!(stage.sim.run_until(SECOND * 10, wrote), "seed {seed}");
        stage.client.act(|cx| {
            cx.write(id, &text[1_000..90_000]);
            cx.write_through(id, &[text[90_000..].to_vec().into()]);
            // The end is sent after the data.
            cx.half_close(id);
        });
        stage.sim.run_for(SECOND * 60);
        assert!(stage.client.received() == text, "seed {seed}");
        let (server, client) = (stage.server.calls(), stage.client.calls());
        assert!(matches!(server.last(), Some(Call::Closed(_, CloseReason::Ended))), "seed {seed}: {server:?}");
        assert!(client.contains(&Call::Ended(id)), "seed {seed}: {client:?}");
        let is_closed = |call: &&Call| matches!(call, Call::Closed(..));
        assert_eq!(client.iter().filter(is_closed).count(), 1, "seed {seed}: {client:?}");
        assert!(stage.server.is_empty() && stage.client.is_empty(), "seed {seed}");
    }
}

#[test]
fn a_server_with_a_wrong_name_or_issuer_is_refused() {
    let stage = stage(1, Config::default());
    let id = stage.call(&stage.connector, "other.test");
    stage.sim.run_for(SECOND);
    assert_eq!(stage.client.calls(), [Call::Closed(id, CloseReason::NotConnected(ErrorKind::InvalidData))]);
    let (stranger, _) = certificate("server.test");
    let id = stage.call(&Connector::trusting_pem(stranger.as_bytes()).expect("it is good"), "server.test");
    stage.sim.run_for(SECOND);
    assert_eq!(stage.client.calls(), [Call::Closed(id, CloseReason::NotConnected(ErrorKind::InvalidData))]);
    let server = stage.server.calls();
    assert!(server.iter().all(|call| !matches!(call, Call::Closed(_, CloseReason::Closed))), "{server:?}");
    assert!(stage.server.is_empty());
}

#[test]
fn a_certificate_can_be_replaced_while_the_server_runs() {
    let stage = stage(2, Config::default());
    let before = stage.call(&stage.connector, "server.test");
    stage.sim.run_for(SECOND);
    let (cert, key) = certificate("renewed.test");
    stage.acceptor.replace(server_config(cert.as_bytes(), key.as_bytes()).expect("it is good"));
    let renewed = Connector::trusting_pem(cert.as_bytes()).expect("it is good");
    let after = stage.call(&renewed, "renewed.test");
    stage.sim.run_for(SECOND);
    stage.client.act(|cx| {
        assert!(cx.write(before, b"old ") && cx.is_open(before));
        assert!(cx.is_open(after));
    });
    stage.sim.run_for(SECOND);
    assert_eq!(stage.client.received(), b"old ", "connections that are there keep theirs");
}

#[test]
fn server_name_and_protocol_are_negotiated() {
    let stage = stage(3, Config::default());
    let (cert, key) = certificate("server.test");
    let mut config = server_config(cert.as_bytes(), key.as_bytes()).expect("it is good");
    config.alpn_protocols = vec![b"chat/2".to_vec(), b"chat/1".to_vec()];
    stage.acceptor.replace(config);
    let mut roots = rustls::RootCertStore::empty();
    let der = rustls::pki_types::CertificateDer::from(pem_bytes(&cert));
    roots.add(der).expect("it is good");
    let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"chat/1".to_vec()];
    let id = stage.call(&Connector::new(Arc::new(config)), "server.test");
    assert_eq!(stage.client.act(|cx| cx.tls(id)), None);
    stage.sim.run_for(SECOND);
    let agreed = stage.client.act(|cx| cx.tls(id)).expect("it is agreed on");
    assert_eq!((agreed.protocol.as_deref(), agreed.server_name), (Some(&b"chat/1"[..]), None));
    let agreed = stage.server.act(|cx| cx.tls(cx.connection_ids()[0])).expect("it is agreed on");
    assert_eq!(agreed.protocol.as_deref(), Some(&b"chat/1"[..]));
    assert_eq!(agreed.server_name.as_deref(), Some("server.test"));
}

fn pem_bytes(pem: &str) -> Vec<u8> {
    use rustls::pki_types::pem::PemObject;
    rustls::pki_types::CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate").to_vec()
}

#[test]
fn a_peer_that_is_late_for_the_handshake_or_sends_no_tls_is_cut_off() {
    let config = Config { handshake_limit: SECOND * 3, ..Config::default() };
    let stage = stage(4, config);
    let mut silent = stage.sim.connect(at());
    let start = stage.sim.now();
    silent.expect_end();
    let took = stage.sim.now().saturating_sub(start);
    assert!(took >= SECOND * 3 && took < SECOND * 4, "{took:?}");
    let mut noisy = stage.sim.connect(at());
    noisy.send("GET / HTTP/1.1\r\nHost: server.test\r\n\r\n");
    noisy.expect_end();
    let calls = stage.server.calls();
    let reasons: Vec<_> =
        calls.iter().filter_map(|call| if let Call::Closed(_, why) = call { Some(*why) } else { None }).collect();
    assert_eq!(reasons, [CloseReason::TimedOut, CloseReason::Failed(ErrorKind::InvalidData)]);
    assert!(stage.server.is_empty());
    stage.sim.run_for(SECOND * 60);
    assert_eq!(stage.server.calls(), [], "no limit is left behind");
}

#[test]
fn an_end_without_a_close_notify_is_a_failure() {
    let stage = stage(5, Config::default());
    let id = stage.call(&stage.connector, "server.test");
    stage.sim.run_for(SECOND);
    stage.server.calls();
    // The process is gone, and its kernel ends the connection without an alert of TLS.
    stage.sim.kill(stage.server.id);
    stage.sim.run_for(SECOND);
    let calls = stage.client.calls();
    let end = Call::Closed(id, CloseReason::Failed(ErrorKind::UnexpectedEof));
    assert_eq!(calls, [Call::Connected(id), end]);
}

#[test]
fn connecting_to_a_server_without_tls_times_out() {
    let stage = stage(6, Config::default());
    let mute = stage.sim.listen(address("10.0.0.9:443")).expect("it is free");
    let name = ServerName::try_from("server.test").expect("a name");
    let connect = Connect::to(mute.address()).tls(stage.connector.clone(), name).limit(SECOND * 2);
    let id = stage.client.act(|cx| cx.connect(connect, ()).expect("started"));
    stage.sim.run_for(SECOND);
    let _other = mute.accept().expect("a call");
    stage.sim.run_for(SECOND * 2);
    assert_eq!(stage.client.calls(), [Call::Closed(id, CloseReason::NotConnected(ErrorKind::TimedOut))]);
}

#[test]
fn a_paused_connection_does_not_report_an_end_that_came_with_the_last_bytes() {
    let stage = stage(7, Config::default());
    let id = stage.call(&stage.connector, "server.test");
    stage.sim.run_for(SECOND);
    stage.client.calls();
    stage.client.act(|cx| cx.pause(id));
    // Its last bytes and its end are sent together, and wait together.
    stage.server.act(|cx| {
        let other = cx.connection_ids()[0];
        cx.write(other, b"last words");
        cx.close(other);
    });
    stage.sim.run_for(SECOND);
    assert_eq!((stage.client.calls(), stage.client.received()), (vec![], vec![]));
    stage.client.look(|book, cx| {
        book.pauses = true;
        cx.resume(id);
    });
    stage.sim.run_for(SECOND);
    assert_eq!(stage.client.received(), b"last words");
    assert_eq!(stage.client.calls(), [], "it has paused again");
    stage.client.act(|cx| cx.resume(id));
    stage.sim.run_for(SECOND);
    assert_eq!(stage.client.calls()[..1], [Call::Ended(id)]);
}

const SLOW: Rate = Rate { bytes_per_second: 10_000, burst_bytes: 1_000 };

#[test]
fn a_connection_outlives_the_limits_on_connecting() {
    let stage = stage(8, Config::default());
    let id = stage.call(&stage.connector, "server.test");
    stage.sim.run_for(SECOND * 60);
    stage.client.act(|cx| cx.write(id, b"still there?"));
    stage.sim.run_for(SECOND);
    assert_eq!(stage.client.received(), b"still there?");
}

#[test]
fn output_written_before_a_handshake_that_a_rate_slows_is_sent() {
    let stage = stage(9, Config::default());
    let id = stage.call(&stage.connector, "server.test");
    stage.client.act(|cx| {
        cx.set_rates(id, Rates { read: Some(Rate { burst_bytes: 10, ..SLOW }), write: None });
        cx.write(id, b"hello");
    });
    stage.sim.run_for(SECOND * 5);
    assert_eq!(stage.client.received(), b"hello", "and comes back");
}

#[test]
fn the_end_is_sent_behind_output_that_a_rate_delays() {
    let stage = stage(10, Config::default());
    let id = stage.call(&stage.connector, "server.test");
    stage.client.act(|cx| {
        cx.set_rates(id, Rates { read: None, write: Some(SLOW) });
        cx.write(id, &vec![7; 50_000]);
        cx.half_close(id);
    });
    stage.sim.run_for(SECOND * 20);
    assert_eq!(stage.client.received().len(), 50_000, "all of it arrives, and comes back");
    assert!(stage.client.is_empty() && stage.server.is_empty());
}

#[test]
fn output_that_waits_for_a_handshake_that_never_comes_ends_in_a_reset() {
    for is_queued in [true, false] {
        let stage = stage(12, Config::default());
        let mut peer = stage.sim.connect(at());
        stage.sim.settle();
        let id = stage.server.only();
        if is_queued {
            stage.server.act(|cx| cx.write(id, b"hello"));
        }
        stage.sim.run_for(SECOND * 11);
        assert_eq!(stage.server.calls().last(), Some(&Call::Closed(id, CloseReason::TimedOut)));
        assert!(peer.expect_end().is_empty());
        assert_eq!(peer.failure(), is_queued.then_some(ErrorKind::ConnectionReset));
    }
}

#[test]
fn a_peer_gets_the_alert_even_if_output_is_lost() {
    let stage = stage(13, Config::default());
    let mut peer = stage.sim.connect(at());
    stage.sim.settle();
    let id = stage.server.only();
    stage.server.act(|cx| cx.write(id, b"hello"));
    peer.send("GET / HTTP/1.1\r\n\r\n");
    let alert = peer.expect_end();
    assert_eq!((alert.first(), peer.failure()), (Some(&0x15), None), "{alert:?}");
    let calls = stage.server.calls();
    assert_eq!(calls.last(), Some(&Call::Closed(id, CloseReason::Failed(ErrorKind::InvalidData))));
}

#[test]
fn a_slow_peer_gets_all_output_of_a_closed_connection_even_if_the_rest_is_encrypted_already() {
    let stage = stage(14, Config::default());
    stage.sim.set_link(Link { bandwidth: Some(3_000), buffer_bytes: 4_000, ..Link::default() });
    let id = stage.call(&stage.connector, "server.test");
    assert!(stage.sim.run_until(SECOND * 10, || stage.client.calls().contains(&Call::Connected(id))));
    let of_server = stage.server.only();
    stage.server.act(|cx| {
        cx.write(of_server, &vec![7; 60_000]);
        cx.close(of_server);
    });
    stage.sim.run_for(SECOND * 60);
    assert_eq!(stage.client.received().len(), 60_000);
    assert_eq!(stage.server.calls().last(), Some(&Call::Closed(of_server, CloseReason::Closed)));
}
