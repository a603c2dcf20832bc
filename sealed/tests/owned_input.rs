//! Input that a service keeps after the call: what is shared, what is copied, and what it costs.

mod common;

use std::io::Write;
use std::net::TcpStream;
use std::sync::mpsc;

use allocation_counter::measure;
use bytes::Bytes;
use common::{Book, Node, address, rough};
use sealed::sim::{LoopId, Simulation};
use sealed::tls::{Acceptor, Connector, ServerName};
use sealed::{
    Address, Config, Connect, ConnectionId, Context, Datagram, DatagramId, EventLoop, Input, Listen, Service,
};

const BUFFER_BYTES: usize = 64 * 1024;

/// Keeps its input as parts of this many bytes, and the rest of an input.
#[derive(Default)]
struct Keeper {
    part_bytes: usize,
    kept: Vec<Bytes>,
    /// For each part, whether it was not copied.
    shared: Vec<bool>,
}

impl Keeper {
    fn keep(&mut self, cx: &Context<Self>, part: &[u8]) {
        let bytes = cx.share(part);
        assert!(bytes == part);
        self.shared.push(bytes.as_ptr() == part.as_ptr());
        self.kept.push(bytes);
    }
}

impl Service for Keeper {
    type Connection = ();
    type Message = ();
    type Timer = ();

    fn received(&mut self, cx: &mut Context<Self>, _: ConnectionId, input: &mut Input<'_>) {
        while !input.is_empty() {
            let part = input.take(self.part_bytes.min(input.len()));
            self.keep(cx, part);
        }
    }

    fn datagram(&mut self, cx: &mut Context<Self>, _: DatagramId, _: &Address, bytes: &[u8]) {
        self.keep(cx, bytes);
    }
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n % 251) as u8).collect()
}

fn start(sim: &Simulation, config: Config, part_bytes: usize) -> LoopId {
    let mut event_loop = sim.event_loop(config, Keeper { part_bytes, ..Keeper::default() }).expect("a loop");
    event_loop.listen(address("10.0.0.1:80")).expect("it is free");
    sim.start(event_loop)
}

fn look<R>(sim: &Simulation, node: LoopId, look: impl FnOnce(&mut Keeper, &mut Context<Keeper>) -> R) -> R {
    let looked = sim.with(node, |event_loop: &mut EventLoop<Keeper>| {
        let (keeper, cx) = event_loop.parts();
        look(keeper, cx)
    });
    looked.expect("it runs")
}

/// Sends `sent` in one piece to a service that keeps parts of `part_bytes`. Returns which of the
/// parts are shared.
fn shared(sent: &[u8], part_bytes: usize) -> Vec<bool> {
    let sim = Simulation::new(1);
    let node = start(&sim, Config::default(), part_bytes);
    let mut peer = sim.connect(address("10.0.0.1:80"));
    peer.send(sent);
    sim.settle();
    look(&sim, node, |keeper, _| {
        assert!(keeper.kept.concat() == sent);
        std::mem::take(&mut keeper.shared)
    })
}

#[test]
fn a_part_is_shared_from_half_the_read_buffer_on() {
    let half = BUFFER_BYTES / 2;
    assert_eq!(shared(&pattern(half), half), [true]);
    assert_eq!(shared(&pattern(half - 1), half), [false]);
    // Two halves share one buffer, and the little between two large parts is copied.
    assert_eq!(shared(&pattern(BUFFER_BYTES), half), [true, true]);
    assert_eq!(shared(&pattern(half + 100), half), [true, false]);
}

#[test]
fn input_that_was_left_before_is_copied() {
    struct Whole(usize, Vec<Bytes>);

    impl Service for Whole {
        type Connection = ();
        type Message = ();
        type Timer = ();

        fn received(&mut self, cx: &mut Context<Self>, _: ConnectionId, input: &mut Input<'_>) {
            if input.len() == self.0 {
                self.1.push(cx.share(input.take_all()));
            }
        }
    }

    let sim = Simulation::new(1);
    let mut event_loop = sim.event_loop(Config::default(), Whole(60_000, Vec::new())).expect("a loop");
    event_loop.listen(address("10.0.0.1:80")).expect("it is free");
    let node = sim.start(event_loop);
    let (sent, mut peer) = (pattern(60_000), sim.connect(address("10.0.0.1:80")));
    for _ in 0..3 {
        for piece in sent.chunks(20_000) {
            peer.send(piece);
            sim.settle();
        }
    }
    sim.with(node, |event_loop: &mut EventLoop<Whole>| {
        let kept = &event_loop.parts().0.1;
        assert!(kept.len() == 3 && kept.iter().all(|bytes| *bytes == sent));
    });
}

#[test]
fn kept_parts_stay_the_same_while_the_loop_reads_on() {
    sealed::sim::check(0..100, |sim| {
        sim.set_faults(rough());
        let mut random = sim.random(1);
        // Of two connections, so that the loop reads for another one in between.
        let config = Config {
            read_buffer_bytes: 2_000 + random.below(20_000),
            read_bytes_per_tick: 10_000 + random.below(60_000),
            ..Config::default()
        };
        let node = start(sim, config, 1 + random.below(30_000));
        let sent = pattern(140_000);
        let mut peers = [sim.connect(address("10.0.0.1:80")), sim.connect(address("10.0.0.1:80"))];
        for (number, piece) in sent.chunks(7_000).enumerate() {
            peers[number % 2].send(piece);
            sim.run_for(random.time(common::ms(5)));
            if random.below(3) == 0 {
                // Some are dropped, so that their buffers are used again.
                look(sim, node, |keeper, _| {
                    let half = keeper.kept.len() / 2;
                    keeper.kept.truncate(half);
                });
            }
        }
        sim.run_for(common::SECOND * 5);
        look(sim, node, |keeper, cx| {
            assert_eq!(cx.stats().bytes_received, sent.len() as u64);
            // The pattern has one successor for each byte, but where the pieces of one connection
            // meet.
            for bytes in &keeper.kept {
                let breaks = bytes.windows(2).filter(|two| u32::from(two[1]) != (u32::from(two[0]) + 1) % 251).count();
                assert!(breaks <= bytes.len() / 7_000 + 1, "{breaks} in {}", bytes.len());
            }
        });
    });
}

#[test]
fn decrypted_parts_stay_the_same_while_the_loop_reads_on() {
    let certified = rcgen::generate_simple_self_signed(["server.test".to_owned()]).expect("a certificate");
    let (cert, key) = (certified.cert.pem(), certified.signing_key.serialize_pem());
    let acceptor = Acceptor::from_pem(cert.as_bytes(), key.as_bytes()).expect("it is good");
    let connector = Connector::trusting_pem(cert.as_bytes()).expect("it is good");
    sealed::sim::check(0..20, |sim| {
        let at = address("10.0.0.1:443");
        let node = start(sim, Config::default(), usize::MAX);
        look(sim, node, |_, cx| _ = cx.listen(Listen::on(&at).tls(acceptor.clone())).expect("it is free"));
        let client = Node::start(sim, Config::default(), Book::default());
        let name = ServerName::try_from("server.test").expect("a name");
        let connect = Connect::to(&at).tls(connector.clone(), name);
        let id = client.act(|cx| cx.connect(connect, ()).expect("started"));
        let sent = pattern(400_000);
        client.act(|cx| cx.write(id, &sent));
        sim.run_for(common::SECOND * 10);
        look(sim, node, |keeper, _| {
            assert!(keeper.kept.concat() == sent);
            assert!(keeper.shared.contains(&true), "some reads fill the buffer");
        });
    });
}

#[test]
fn little_input_keeps_little_memory() {
    let sim = Simulation::new(1);
    let node = start(&sim, Config::default(), 100);
    let mut peer = sim.connect(address("10.0.0.1:80"));
    peer.send(pattern(10_000));
    sim.settle();
    let freed = -measure(|| look(&sim, node, |keeper, _| keeper.kept.clear())).bytes_current;
    assert!(freed <= 10_000 + 100 * 100, "{freed} bytes");
}

#[test]
fn buffers_that_are_free_again_are_reused() {
    let mut event_loop =
        EventLoop::new(Config::default(), Keeper { part_bytes: BUFFER_BYTES, ..Keeper::default() }).expect("a loop");
    let address = event_loop.listen("127.0.0.1:0").expect("an address").address;
    let mut client = TcpStream::connect(&address).expect("connected");
    let sent = pattern(BUFFER_BYTES);
    let mut pass = |event_loop: &mut EventLoop<Keeper>| {
        client.write_all(&sent).expect("sent");
        loop {
            event_loop.turn(None).expect("a tick");
            let keeper = event_loop.parts().0;
            if keeper.kept.iter().map(Bytes::len).sum::<usize>() == sent.len() {
                let mut at = 0;
                for bytes in &keeper.kept {
                    assert!(*bytes == sent[at..at + bytes.len()]);
                    at += bytes.len();
                }
                keeper.shared.clear();
                keeper.kept.clear();
                return;
            }
        }
    };
    for _ in 0..3 {
        pass(&mut event_loop);
    }
    // The kernel may pass the input on in small pieces, which are copied.
    let fewest = (0..20).map(|_| measure(|| pass(&mut event_loop)).bytes_total).min().expect("some");
    assert!(fewest < BUFFER_BYTES as u64 / 2, "{fewest} bytes are allocated for a buffer of input");
}

#[test]
fn parts_can_be_dropped_on_another_thread_while_the_loop_reads() {
    struct Sender(mpsc::Sender<Bytes>);

    impl Service for Sender {
        type Connection = ();
        type Message = ();
        type Timer = ();

        fn received(&mut self, cx: &mut Context<Self>, _: ConnectionId, input: &mut Input<'_>) {
            self.0.send(cx.share(input.take_all())).expect("the test receives");
        }

        fn ended(&mut self, cx: &mut Context<Self>, _: ConnectionId) {
            cx.stop();
        }
    }

    let (sender, parts) = mpsc::channel();
    let mut event_loop = EventLoop::new(Config::default(), Sender(sender)).expect("a loop");
    let address = event_loop.listen("127.0.0.1:0").expect("an address").address;
    let sent = pattern(20_000_000);
    let expected = sent.clone();
    let writing = std::thread::spawn(move || {
        TcpStream::connect(&address).and_then(|mut client| client.write_all(&sent)).expect("sent");
    });
    let running = std::thread::spawn(move || event_loop.run());
    let mut at = 0;
    for part in parts {
        assert!(part == expected[at..at + part.len()], "behind {at} bytes");
        at += part.len();
    }
    assert_eq!(at, expected.len());
    writing.join().expect("no panic");
    running.join().expect("no panic").expect("a good end");
}

#[test]
fn a_large_datagram_is_shared_too() {
    let sim = Simulation::new(1);
    let node = start(&sim, Config::default(), 1);
    let at = address("10.0.0.1:53");
    look(&sim, node, |_, cx| _ = cx.bind_datagram(Datagram::on(&at)).expect("it is free"));
    let client = sim.datagram_peer(address("10.0.0.2:1")).expect("it is free");
    for length in [40_000, 100, 50_000] {
        client.send_to(&at, pattern(length));
        sim.settle();
    }
    look(&sim, node, |keeper, _| {
        assert_eq!(keeper.kept.iter().map(Bytes::len).collect::<Vec<_>>(), [40_000, 100, 50_000]);
        assert_eq!(keeper.shared, [true, false, true]);
        assert!(keeper.kept.iter().all(|bytes| *bytes == pattern(bytes.len())));
    });
}

#[test]
fn bytes_that_are_not_input_are_copied() {
    let sim = Simulation::new(1);
    let node = start(&sim, Config::default(), 1);
    let text = pattern(100_000);
    look(&sim, node, |_, cx| {
        assert_eq!(cx.share(&text), text);
        assert_eq!(cx.share(b""), "");
    });
}
