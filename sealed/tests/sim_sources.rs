//! Sources on a simulated network: descriptors whose readiness the test sets.
#![cfg(unix)]

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sealed::sim::{self, Faults, SimSource, Simulation};
use sealed::{
    Config, ConnectionId, Context, Error, EventLoop, Input, Interest, Ready, Service, Source, SourceId, TimerId,
};

/// A service that keeps sources and records its calls.
#[derive(Default)]
struct Probe {
    sources: Vec<Source<SimSource>>,
    calls: Vec<(SourceId, Ready)>,
    expired: usize,
    /// Requests another call in each.
    is_greedy: bool,
}

impl Service for Probe {
    type Connection = ();
    type Message = ();
    type Timer = ();

    fn received(&mut self, _: &mut Context<Self>, _: ConnectionId, _: &mut Input<'_>) {}

    fn expired(&mut self, _: &mut Context<Self>, _: TimerId, (): ()) {
        self.expired += 1;
    }

    fn ready(&mut self, cx: &mut Context<Self>, source: SourceId, ready: Ready) {
        self.calls.push((source, ready));
        if self.is_greedy {
            cx.ready_again(source);
        }
    }
}

fn event_loop(sim: &Simulation) -> EventLoop<Probe> {
    sim.event_loop(Config::default(), Probe::default()).expect("a loop")
}

/// Adds a descriptor to the service's sources, and returns its id and the descriptor.
fn add(sim: &Simulation, event_loop: &mut EventLoop<Probe>, interest: Interest) -> (SourceId, SimSource) {
    let descriptor = sim.source().expect("a descriptor");
    let (probe, cx) = event_loop.parts();
    let source = cx.add_source(descriptor.clone(), interest).expect("it is added");
    let id = source.id();
    probe.sources.push(source);
    (id, descriptor)
}

/// Runs one tick, and returns the calls that it made.
fn turn(event_loop: &mut EventLoop<Probe>) -> Vec<(SourceId, Ready)> {
    assert!(event_loop.turn(Some(Duration::ZERO)).expect("all is well"));
    std::mem::take(&mut event_loop.parts().0.calls)
}

/// Runs one tick, and returns what it reported of the only source.
fn report(event_loop: &mut EventLoop<Probe>) -> Option<(bool, bool, bool, bool)> {
    let calls = turn(event_loop);
    assert!(calls.len() <= 1, "{calls:?}");
    calls.first().map(|(_, ready)| (ready.readable(), ready.writable(), ready.ended(), ready.failed()))
}

#[test]
fn each_change_is_reported_once_and_unread_input_is_not_repeated() {
    let sim = Simulation::new(1);
    let mut event_loop = event_loop(&sim);
    let (_, descriptor) = add(&sim, &mut event_loop, Interest::BOTH);
    assert_eq!(report(&mut event_loop), None, "it is ready for nothing");
    descriptor.set_readable(true);
    descriptor.set_readable(true);
    assert_eq!(report(&mut event_loop), Some((true, false, false, false)));
    assert_eq!(report(&mut event_loop), None, "nothing has changed");
    descriptor.set_readable(true);
    assert_eq!(report(&mut event_loop), Some((true, false, false, false)), "more has come");
    descriptor.set_readable(false);
    assert_eq!(report(&mut event_loop), None, "that it has been read is no news");
    descriptor.set_writable(true);
    assert_eq!(report(&mut event_loop), Some((false, true, false, false)));
    // A report is of the state in which the tick finds the descriptor.
    descriptor.set_readable(true);
    descriptor.set_readable(false);
    descriptor.set_writable(false);
    assert_eq!(report(&mut event_loop), None);
    descriptor.end();
    assert_eq!(report(&mut event_loop), Some((true, false, true, false)));
    descriptor.fail();
    assert_eq!(report(&mut event_loop), Some((true, true, true, true)));
}

#[test]
fn the_interest_decides_what_is_reported_and_a_change_reports_anew() {
    let sim = Simulation::new(1);
    let mut event_loop = event_loop(&sim);
    let (_, descriptor) = add(&sim, &mut event_loop, Interest::READABLE);
    assert_eq!(descriptor.interest(), Some(Interest::READABLE));
    descriptor.set_writable(true);
    assert_eq!(report(&mut event_loop), None, "the service is not interested");
    descriptor.set_readable(true);
    assert_eq!(report(&mut event_loop), Some((true, false, false, false)));
    for (interest, expected) in [
        (Interest::READABLE, (true, false, false, false)),
        (Interest::WRITABLE, (false, true, false, false)),
        (Interest::BOTH, (true, true, false, false)),
    ] {
        event_loop.parts().0.sources[0].set_interest(interest).expect("it is changed");
        assert_eq!(descriptor.interest(), Some(interest));
        assert_eq!(report(&mut event_loop), Some(expected));
    }
    event_loop.parts().0.sources[0].set_interest(Interest::WRITABLE).expect("it is changed");
    descriptor.set_writable(false);
    descriptor.end();
    assert_eq!(report(&mut event_loop), None, "the end is something to read");
    descriptor.fail();
    assert_eq!(report(&mut event_loop), Some((true, true, false, true)), "errors are always reported");
}

#[test]
fn a_descriptor_is_ready_before_it_is_added_and_is_added_once() {
    let sim = Simulation::new(1);
    let mut event_loop = event_loop(&sim);
    let descriptor = sim.source().expect("a descriptor");
    descriptor.set_readable(true);
    let (probe, cx) = event_loop.parts();
    let source = cx.add_source(Arc::new(descriptor.clone()), Interest::READABLE).expect("it is added");
    source.set_nonblocking(true).expect("a real descriptor stands for it");
    let refused = cx.add_source(descriptor.clone(), Interest::READABLE).expect_err("it is there already");
    let Error::Source(error) = refused else { panic!("{refused:?}") };
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    let other = Simulation::new(1);
    let refused = cx.add_source(other.source().expect("a descriptor"), Interest::READABLE);
    assert!(matches!(refused, Err(Error::Source(_))), "it belongs to another simulation");
    probe.calls.clear();
    assert_eq!(report(&mut event_loop), Some((true, false, false, false)));
    drop(source.into_inner());
    assert_eq!(descriptor.interest(), None);
    let (_, cx) = event_loop.parts();
    let _source = cx.add_source(descriptor, Interest::READABLE).expect("it is added again");
    assert_eq!(report(&mut event_loop), Some((true, false, false, false)));
}

#[test]
fn a_dropped_source_is_never_reported_and_not_to_the_next_one_in_its_slot() {
    let sim = Simulation::new(1);
    let mut event_loop = event_loop(&sim);
    let (_, before) = add(&sim, &mut event_loop, Interest::READABLE);
    before.set_readable(true);
    event_loop.parts().0.sources.clear();
    assert_eq!(before.interest(), None);
    let (id, descriptor) = add(&sim, &mut event_loop, Interest::READABLE);
    assert_eq!(turn(&mut event_loop), []);
    before.set_readable(true);
    assert_eq!(turn(&mut event_loop), []);
    descriptor.set_readable(true);
    let calls = turn(&mut event_loop);
    assert_eq!(calls.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [id]);
}

#[test]
fn an_object_with_a_new_descriptor_is_registered_anew() {
    let sim = Simulation::new(1);
    let mut event_loop = event_loop(&sim);
    let (_, before) = add(&sim, &mut event_loop, Interest::READABLE);
    let descriptor = sim.source().expect("a descriptor");
    let source = &mut event_loop.parts().0.sources[0];
    *source.get_mut() = descriptor.clone();
    source.set_interest(Interest::READABLE).expect("it is registered");
    drop(before);
    descriptor.set_readable(true);
    assert_eq!(report(&mut event_loop), Some((true, false, false, false)));
}

#[test]
fn sources_that_always_request_another_call_take_turns_and_let_timers_expire() {
    let sim = Simulation::new(1);
    let mut event_loop = event_loop(&sim);
    let descriptors = [(); 2].map(|()| add(&sim, &mut event_loop, Interest::READABLE).1);
    let (probe, cx) = event_loop.parts();
    probe.is_greedy = true;
    cx.set_timer(Duration::from_millis(10), ());
    for descriptor in &descriptors {
        descriptor.set_readable(true);
    }
    let id = sim.start(event_loop);
    sim.run_for(Duration::from_millis(20));
    let turns = sim.turns() as usize;
    sim.with(id, |event_loop: &mut EventLoop<Probe>| {
        let probe = event_loop.service();
        assert_eq!(probe.expired, 1);
        assert!(probe.calls.len() > turns && probe.calls.len() <= 2 * turns, "one call of each in a tick");
        assert!(probe.calls.chunks_exact(2).all(|pair| pair[0].0 != pair[1].0), "they take turns");
    });
}

#[test]
fn reports_are_late_if_that_fault_is_set() {
    let sim = Simulation::new(1);
    let delay_max = Duration::from_millis(100);
    sim.set_faults(Faults { late_ready: 1.0, delay_max, ..Faults::default() });
    let mut event_loop = event_loop(&sim);
    let (_, descriptor) = add(&sim, &mut event_loop, Interest::READABLE);
    descriptor.set_readable(true);
    assert_eq!(report(&mut event_loop), None);
    sim.settle();
    assert!(sim.now() > Duration::ZERO && sim.now() <= delay_max, "{:?}", sim.now());
    assert_eq!(report(&mut event_loop), Some((true, false, false, false)));
    // A report that is on its way does not reach a source that has been dropped meanwhile.
    descriptor.set_readable(true);
    event_loop.parts().0.sources.clear();
    sim.settle();
    assert_eq!(report(&mut event_loop), None);
}

#[test]
fn reports_are_spurious_if_that_fault_is_set() {
    let sim = Simulation::new(1);
    let delay_max = Duration::from_millis(100);
    sim.set_faults(Faults { spurious_ready: 1.0, delay_max, ..Faults::default() });
    let mut event_loop = event_loop(&sim);
    let (_, descriptor) = add(&sim, &mut event_loop, Interest::READABLE);
    sim.settle();
    assert_eq!(report(&mut event_loop), Some((true, false, false, false)), "nothing has come");
    assert_eq!(report(&mut event_loop), None, "a report is not repeated");
    descriptor.set_writable(true);
    sim.settle();
    assert_eq!(report(&mut event_loop), Some((true, false, false, false)), "only for what is of interest");
    assert!(sim.trace().contains("is reported as readable"), "{}", sim.trace());
}

/// An end of a pipe that exists only in the test. Its writer is the test.
#[derive(Clone)]
struct Pipe {
    source: SimSource,
    state: Arc<Mutex<PipeState>>,
}

#[derive(Default)]
struct PipeState {
    bytes: VecDeque<u8>,
    is_over: bool,
}

impl Pipe {
    fn write(&self, bytes: &[u8]) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).bytes.extend(bytes);
        self.source.set_readable(true);
    }

    fn finish(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).is_over = true;
        self.source.end();
    }
}

impl AsFd for Pipe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.source.as_fd()
    }
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.bytes.is_empty() && !state.is_over {
            self.source.set_readable(false);
            return Err(ErrorKind::WouldBlock.into());
        }
        state.bytes.read(buffer)
    }
}

/// A service that collects what it reads from anything, a few bytes at a time.
struct Collector<F: AsFd + Read> {
    output: Option<Source<F>>,
    bytes: Vec<u8>,
    is_over: bool,
    /// A mistake: the service does not ask for a call for what it has left unread.
    forgets: bool,
}

impl<F: AsFd + Read + 'static> Service for Collector<F> {
    type Connection = ();
    type Message = ();
    type Timer = ();

    fn received(&mut self, _: &mut Context<Self>, _: ConnectionId, _: &mut Input<'_>) {}

    fn ready(&mut self, cx: &mut Context<Self>, source: SourceId, _: Ready) {
        let Some(output) = &mut self.output else { return };
        let mut chunk = [0; 3];
        match output.get_mut().read(&mut chunk) {
            Ok(count) if count > 0 => {
                self.bytes.extend_from_slice(&chunk[..count]);
                if !self.forgets {
                    cx.ready_again(source);
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            outcome => {
                self.is_over = outcome.is_ok();
                self.output = None;
            }
        }
    }
}

/// Passes numbers through a pipe to a [`Collector`]. Returns the bytes, what came of them, and
/// whether their end did.
fn collect(sim: &Simulation, forgets: bool) -> (Vec<u8>, Vec<u8>, bool) {
    let pipe = Pipe { source: sim.source().expect("a descriptor"), state: Arc::default() };
    let collector = Collector { output: None, bytes: Vec::new(), is_over: false, forgets };
    let mut event_loop = sim.event_loop(Config::default(), collector).expect("a loop");
    let (collector, cx) = event_loop.parts();
    collector.output = Some(cx.add_source(pipe.clone(), Interest::READABLE).expect("it is added"));
    let id = sim.start(event_loop);
    let mut random = sim.random(1);
    let mut sent = Vec::new();
    for number in 0..50 {
        let piece = vec![number; random.below(10)];
        pipe.write(&piece);
        sent.extend(piece);
        sim.run_for(random.time(Duration::from_millis(1)));
    }
    pipe.finish();
    sim.settle();
    let look = |event_loop: &mut EventLoop<Collector<Pipe>>| {
        let collector = event_loop.service();
        (collector.bytes.clone(), collector.is_over)
    };
    let (bytes, is_over) = sim.with(id, look).expect("it runs");
    assert_eq!(is_over, pipe.source.interest().is_none());
    (sent, bytes, is_over)
}

#[test]
fn a_service_collects_all_that_comes_whatever_the_faults() {
    sim::check(0..300, |sim| {
        let (sent, bytes, is_over) = collect(sim, false);
        assert_eq!(bytes, sent);
        assert!(is_over);
    });
}

#[test]
fn a_service_that_forgets_what_it_left_unread_is_found_out() {
    let sim = Simulation::new(1);
    let (sent, bytes, is_over) = collect(&sim, true);
    assert!(bytes.len() < sent.len() && !is_over);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let digest = || {
        let sim = Simulation::new(7);
        sim.set_faults(Faults { late_ready: 0.5, spurious_ready: 0.5, ..Faults::default() });
        collect(&sim, false);
        sim.digest()
    };
    // A descriptor that is open meanwhile gets the number that the first run's had.
    let first = digest();
    let _file = std::fs::File::open("/dev/null").expect("it is there");
    assert_eq!(first, digest());
}
