//! What a test's peers and a service's remarks promise.

mod common;

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::rc::Rc;

use common::{Node, SECOND, address};
use sealed::sim::{self, Faults, Peer, Simulation};
use sealed::{Config, ConnectionId, Context, EventLoop, Input, Mailbox, Service};

/// Starts a loop that sends back what it receives, and connects.
fn echo(sim: &Simulation) -> Peer {
    let at = address("10.0.0.1:80");
    Node::echo(sim, &at);
    sim.connect(at)
}

/// Decodes a frame: its length in two bytes, and its body.
fn frame(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (length, rest) = bytes.split_at_checked(2)?;
    let length = usize::from(u16::from_be_bytes(length.try_into().ok()?));
    Some((rest.get(..length)?.to_vec(), length + 2))
}

#[test]
fn peers_take_frames_and_exact_counts_however_the_bytes_arrive() {
    let faults =
        |_: &mut sim::Random| Faults { short_read: 0.7, short_write: 0.7, would_block: 0.3, ..Faults::default() };
    sim::Check::new(0..50).faults(faults).run(|sim| {
        let mut peer = echo(sim);
        let mut random = sim.random(0);
        let bodies: Vec<Vec<u8>> = (0..20).map(|n| vec![n; random.below(1_000)]).collect();
        for body in &bodies {
            peer.send((body.len() as u16).to_be_bytes());
            peer.send(body);
        }
        for body in &bodies {
            if random.chance(0.5) {
                assert_eq!(peer.decode(frame), *body);
            } else {
                assert_eq!(peer.take_exact(2), (body.len() as u16).to_be_bytes());
                assert_eq!(peer.take_exact(body.len()), *body);
            }
        }
        assert_eq!(peer.peek(), b"");
    });
}

#[test]
fn a_look_at_received_bytes_takes_none() {
    let sim = Simulation::new(1);
    let mut peer = echo(&sim);
    peer.send("hello");
    assert_eq!(peer.peek(), b"", "it does not wait");
    sim.settle();
    assert_eq!((peer.peek(), peer.peek()), (b"hello".to_vec(), b"hello".to_vec()));
    assert_eq!((peer.take_exact(0), peer.take_exact(4), peer.peek()), (vec![], b"hell".to_vec(), b"o".to_vec()));
    assert_eq!(peer.take(), b"o");
}

#[test]
fn a_frame_that_arrives_with_the_end_is_found_and_a_part_of_one_is_not() {
    let sim = Simulation::new(1);
    let mut peer = echo(&sim);
    peer.send(b"\x00\x03yes\x00\x02n");
    peer.finish();
    sim.settle();
    assert_eq!(peer.decode(frame), b"yes");
    let panic = panic::catch_unwind(AssertUnwindSafe(|| peer.decode(frame))).expect_err("it is cut off");
    let message = panic.downcast_ref::<String>().expect("a text");
    assert!(message.starts_with(r#"a frame was expected, and this came: "\0\u{2}n""#), "{message}");
    let panic = panic::catch_unwind(AssertUnwindSafe(|| peer.take_exact(4))).expect_err("it has ended");
    assert!(panic.downcast_ref::<String>().expect("a text").starts_with("4 bytes was expected"));
}

/// Remarks on what it receives, and counts the texts that it has built. On a simulated network it
/// takes a while to post to the other loop.
struct Speaker {
    sim: Option<Simulation>,
    other: Option<Mailbox<()>>,
    built: Rc<Cell<u32>>,
}

impl Service for Speaker {
    type Connection = ();
    type Message = ();
    type Timer = ();

    fn received(&mut self, cx: &mut Context<Self>, _: ConnectionId, input: &mut Input<'_>) {
        let count = input.take_all().len();
        cx.note(|| {
            self.built.set(self.built.get() + 1);
            format!("{count} bytes")
        });
        if let Some(other) = &self.other {
            other.post(()).expect("room");
        }
        if let Some(sim) = &self.sim {
            sim.spend(SECOND);
        }
        cx.note(|| "posted".to_owned());
    }

    fn message(&mut self, cx: &mut Context<Self>, (): ()) {
        cx.note(|| "it has come".to_owned());
        cx.stop();
    }
}

#[test]
fn remarks_of_services_are_in_the_trace_with_their_loop() {
    // The other loop runs in the middle of the call; the remark after that is not its own.
    sim::check(0..20, |sim| {
        sim.set_faults(Faults { interleave: 0.8, ..Faults::default() });
        let built = Rc::new(Cell::new(0));
        let service = |other| Speaker { sim: Some(sim.clone()), other, built: built.clone() };
        let listener = sim.event_loop(Config::default(), service(None)).expect("a loop");
        let mut event_loop = sim.event_loop(Config::default(), service(Some(listener.mailbox()))).expect("a loop");
        sim.start(listener);
        event_loop.parts().1.note(|| "before the start".to_owned());
        let address = event_loop.listen("10.0.0.1:80").expect("it is free").address;
        let id = sim.start(event_loop);
        let mut peer = sim.connect(address);
        peer.send("hello");
        sim.run_for(SECOND * 3);
        sim.with(id, |event_loop: &mut EventLoop<Speaker>| event_loop.parts().1.note(|| "after it".to_owned()));
        let trace = sim.trace();
        for remark in
            ["before the start", "loop 1: 5 bytes", "loop 1: posted", "loop 0: it has come", "loop 1: after it"]
        {
            assert_eq!(trace.matches(&format!("-- {remark}\n")).count(), 1, "{remark}");
        }
        assert_eq!(built.get(), 1);
    });
}

#[test]
fn on_real_sockets_no_remark_is_built() {
    let built = Rc::new(Cell::new(0));
    let mut event_loop =
        EventLoop::new(Config::default(), Speaker { sim: None, other: None, built: built.clone() }).expect("a loop");
    let mailbox = event_loop.mailbox();
    event_loop.parts().0.other = Some(mailbox);
    let sealed::Address::Inet(at) = event_loop.listen("127.0.0.1:0").expect("it is free").address else {
        panic!("a port")
    };
    let mut client = std::net::TcpStream::connect(at).expect("it listens");
    std::io::Write::write_all(&mut client, b"hello").expect("there is room");
    // The message that follows from the bytes stops the loop.
    drop(client);
    event_loop.run().expect("a good end");
    assert_eq!(built.get(), 0);
}
