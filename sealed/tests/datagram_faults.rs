//! Datagrams that the simulated network loses, duplicates, reorders, refuses or holds back.

mod common;

use std::cell::RefCell;
use std::io::ErrorKind;
use std::rc::Rc;

use common::datagrams::{Log, Node, SERVER};
use common::{SECOND, address, ms};
use sealed::sim::{Faults, Simulation};
use sealed::{
    Address, Config, ConnectionId, Context, Datagram, DatagramError, DatagramId, Input, Sent, Service, TimerId,
};

#[test]
fn unix_datagrams_are_answered_and_never_lost() {
    let sim = Simulation::new(1);
    sim.set_faults(Faults { lose: 1.0, duplicate: 1.0, reorder: 1.0, delay_max: ms(5), ..Faults::default() });
    let node = Node::echo(&sim);
    node.bind("unix:/run/log");
    let peer = sim.datagram_peer("unix:/run/peer").expect("free");
    for number in 0..20 {
        peer.send_to(Address::unix("/run/log"), [number]);
    }
    for number in 0..20 {
        assert_eq!(peer.expect(), (Address::unix("/run/log"), vec![number]));
    }
}

#[test]
fn a_peer_that_does_not_exist_fails_one_datagram_and_not_the_socket() {
    let sim = Simulation::new(1);
    let node = Node::start(&sim, Config::default(), Log::default());
    let socket = node.bind(Datagram::to("10.0.0.9:53"));
    let _ = node.act(|cx| cx.send(socket, b"too early")).expect("nobody knows yet");
    sim.settle();
    let failures = node.failures();
    assert!(
        matches!(&failures[..], [DatagramError::Failed(error)] if error.kind() == ErrorKind::ConnectionRefused),
        "{failures:?}"
    );
    let peer = sim.datagram_peer("10.0.0.9:53").expect("free");
    let _ = node.act(|cx| cx.send(socket, b"in time")).expect("sent");
    assert_eq!(peer.expect().1, b"in time");
}

#[test]
fn a_failure_of_an_earlier_datagram_is_not_blamed_on_the_next() {
    let sim = Simulation::new(1);
    let sent = Rc::new(RefCell::new(Vec::new()));
    let (inner, record) = (sim.clone(), sent.clone());
    let hook = move |cx: &mut Context<Log>, _: DatagramId, _: &[u8]| {
        let socket = cx.bind_datagram(Datagram::to("10.0.0.9:53")).expect("it can be opened");
        record.borrow_mut().push(cx.send(socket, b"to nobody").expect("nobody knows yet"));
        inner.spend(ms(10));
        record.borrow_mut().push(cx.send(socket, b"to nobody again").expect("not its failure"));
    };
    let node = Node::start(&sim, Config::default(), Log { hook: Some(Box::new(hook)), ..Log::default() });
    node.bind(SERVER);
    let peer = sim.datagram_peer("10.0.0.8:1").expect("free");
    peer.send_to(address(SERVER), "go");
    sim.settle();
    assert_eq!(*sent.borrow(), [Sent::Taken, Sent::Taken]);
    assert_eq!(node.failures().len(), 2, "each datagram failed once");
}

#[test]
fn each_fault_does_what_it_says() {
    let count = |faults: Faults| {
        let sim = Simulation::new(3);
        let node = Node::start(&sim, Config::default(), Log::default());
        node.bind(SERVER);
        sim.set_faults(Faults { delay_max: ms(100), ..faults });
        let peer = sim.datagram_peer("10.0.0.9:1").expect("free");
        (0..100).for_each(|number| peer.send_to(address(SERVER), [number]));
        sim.settle();
        node.received().concat()
    };
    let in_order: Vec<u8> = (0..100).collect();
    assert_eq!(count(Faults::default()), in_order, "without a fault all arrive in order");
    assert_eq!(count(Faults { lose: 1.0, ..Faults::default() }), []);
    let some_lost = count(Faults { lose: 0.5, ..Faults::default() });
    assert!(some_lost.is_sorted() && (20..80).contains(&some_lost.len()));
    let mut reordered = count(Faults { reorder: 0.5, ..Faults::default() });
    assert!(!reordered.is_sorted());
    reordered.sort_unstable();
    assert_eq!(reordered, in_order);
    let mut doubled = count(Faults { duplicate: 1.0, ..Faults::default() });
    assert_eq!(doubled.len(), 200);
    doubled.sort_unstable();
    doubled.dedup();
    assert_eq!(doubled, in_order);
    assert_eq!(count(Faults { would_block: 0.5, ..Faults::default() }), in_order);
}

#[test]
fn datagrams_keep_their_order_though_sending_blocks() {
    for seed in 0..100 {
        let sim = Simulation::new(seed);
        sim.set_faults(Faults { would_block: 0.5, delay_max: ms(5), ..Faults::default() });
        let node = Node::start(&sim, Config::default(), Log::default());
        let socket = node.bind(SERVER);
        let peer = sim.datagram_peer("10.0.0.9:1").expect("free");
        for number in 0..50 {
            let sent = node.act(|cx| cx.send_to(socket, &peer.address(), &[number]));
            assert!(matches!(sent, Ok(Sent::Taken | Sent::Queued)));
            if number % 7 == 0 {
                sim.run_for(ms(1));
            }
        }
        assert_eq!((0..50).map(|_| peer.expect().1[0]).collect::<Vec<_>>(), (0..50).collect::<Vec<_>>());
    }
}

#[test]
fn a_queued_datagram_that_fails_is_reported_and_the_next_is_sent() {
    let sim = Simulation::new(1);
    let node = Node::start(&sim, Config::default(), Log::default());
    let socket = node.bind("unix:/run/here");
    let gone = sim.datagram_peer("unix:/run/gone").expect("free");
    let there = sim.datagram_peer("unix:/run/there").expect("free");
    sim.set_faults(Faults { would_block: 1.0, delay_max: ms(5), ..Faults::default() });
    for to in [gone.address(), there.address()] {
        assert_eq!(node.act(|cx| cx.send_to(socket, &to, b"hello")).expect("it waits"), Sent::Queued);
    }
    drop(gone);
    sim.set_faults(Faults::default());
    assert_eq!(there.expect().1, b"hello");
    let failures = node.failures();
    let wanted = Some(Address::unix("/run/gone"));
    assert!(matches!(&failures[..], [DatagramError::Unsent { to, .. }] if *to == wanted), "{failures:?}");
}

/// Asks until it is answered: question after question, each again after a while.
#[derive(Default)]
struct Asker {
    socket: DatagramId,
    asked: u8,
    timer: Option<TimerId>,
    answered: Rc<RefCell<Vec<u8>>>,
}

const QUESTIONS: u8 = 20;

impl Asker {
    fn ask(&mut self, cx: &mut Context<Self>) {
        // It is asked again later, whatever becomes of this datagram.
        let _ = cx.send(self.socket, &[self.asked]);
        self.timer = Some(cx.set_timer(ms(200), ()));
    }
}

impl Service for Asker {
    type Connection = ();
    type Message = ();
    type Timer = ();

    fn started(&mut self, cx: &mut Context<Self>) {
        self.socket = cx.bind_datagram(Datagram::to(SERVER)).expect("it can be opened");
        self.ask(cx);
    }

    fn received(&mut self, _: &mut Context<Self>, _: ConnectionId, _: &mut Input<'_>) {}

    fn datagram(&mut self, cx: &mut Context<Self>, socket: DatagramId, from: &Address, bytes: &[u8]) {
        assert_eq!((socket, from), (self.socket, &address(SERVER)));
        // Late and repeated answers are of earlier questions.
        if bytes == [self.asked] {
            self.answered.borrow_mut().push(self.asked);
            self.asked += 1;
            if let Some(timer) = self.timer.take() {
                cx.cancel_timer(timer);
            }
            if self.asked < QUESTIONS {
                self.ask(cx);
            }
        }
    }

    fn expired(&mut self, cx: &mut Context<Self>, _: TimerId, (): ()) {
        self.ask(cx);
    }
}

/// Runs questions and answers under the faults of a seed, and returns a digest of the run.
fn questions(seed: u64) -> u64 {
    let sim = Simulation::new(seed);
    let mut random = sim.random(0);
    sim.set_faults(Faults { lose: 0.3, ..Faults::any(&mut random) });
    let node = Node::echo(&sim);
    node.bind(SERVER);
    let asker = Asker::default();
    let answered = asker.answered.clone();
    sim.start(sim.event_loop(Config::default(), asker).expect("a loop"));
    let done = sim.run_until(SECOND * 600, || answered.borrow().len() == usize::from(QUESTIONS));
    assert!(done, "seed {seed}: {:?}\n{}", answered.borrow(), sim.trace());
    assert_eq!(*answered.borrow(), (0..QUESTIONS).collect::<Vec<_>>());
    sim.digest()
}

#[test]
fn every_question_is_answered_in_the_end_under_all_faults() {
    for seed in 0..200 {
        questions(seed);
    }
}

#[test]
fn a_seed_determines_a_run_with_datagrams() {
    for seed in 0..10 {
        assert_eq!(questions(seed), questions(seed));
    }
}
