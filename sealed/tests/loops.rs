//! What a loop promises about time, messages, descriptors and the order of its calls, and a pool of
//! loops.

use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use sealed::{
    Address, CloseReason, Config, ConnectionId, Context, EventLoop, Input, ListenerId, Place, Pool, PostError, Service,
    TimerId,
};

const PATIENCE: Duration = Duration::from_secs(60);

/// A service that records its calls.
#[derive(Default)]
struct Notes {
    calls: Vec<String>,
    timers: Vec<TimerId>,
    expired: Vec<(TimerId, Duration)>,
}

impl Service for Notes {
    type Connection = ();
    type Message = u32;
    type Timer = ();

    fn accepted(&mut self, cx: &mut Context<Self>, id: ConnectionId, _: ListenerId, _: &Address) {
        self.calls.push("accepted".into());
        cx.write(id, b"hello");
    }

    fn received(&mut self, _: &mut Context<Self>, _: ConnectionId, input: &mut Input<'_>) {
        self.calls.push("received".into());
        input.take_all();
    }

    fn drained(&mut self, _: &mut Context<Self>, _: ConnectionId) {
        self.calls.push("drained".into());
    }

    fn closed(&mut self, _: &mut Context<Self>, _: ConnectionId, (): (), _: CloseReason) {
        self.calls.push("closed".into());
    }

    fn message(&mut self, _: &mut Context<Self>, message: u32) {
        self.calls.push(format!("message {message}"));
    }

    fn expired(&mut self, cx: &mut Context<Self>, timer: TimerId, (): ()) {
        self.calls.push("expired".into());
        self.expired.push((timer, cx.now()));
    }

    fn turned(&mut self, _: &mut Context<Self>) {
        self.calls.push("turned".into());
    }
}

fn notes() -> EventLoop<Notes> {
    EventLoop::new(Config::default(), Notes::default()).expect("a loop")
}

#[test]
fn the_steps_of_a_tick_have_a_fixed_order() {
    let mut event_loop = notes();
    let address = event_loop.listen("127.0.0.1:0").expect("a port").address;
    let (_, cx) = event_loop.parts();
    cx.set_timer(Duration::ZERO, ());
    event_loop.mailbox().post(1).expect("room");
    let mut stream = TcpStream::connect(&address).expect("connected");
    std::io::Write::write_all(&mut stream, b"x").expect("sent");
    // All of it is there before the tick: the connection in the backlog, its byte, the message, the
    // timer.
    let due = Instant::now() + Duration::from_millis(2);
    while Instant::now() < due {
        std::hint::spin_loop();
    }
    event_loop.turn(Some(Duration::ZERO)).expect("a tick");
    let expected = ["accepted", "received", "message 1", "expired", "turned", "drained"];
    assert_eq!(event_loop.service().calls, expected);
}

#[test]
fn timers_fire_in_order_never_early_and_not_when_cancelled() {
    let mut event_loop = notes();
    let (service, cx) = event_loop.parts();
    let start = cx.now();
    let delays: Vec<u64> = (0..50).map(|n| (n * 37) % 101).collect();
    service.timers = delays.iter().map(|delay| cx.set_timer(Duration::from_millis(*delay), ())).collect();
    for timer in service.timers.iter().step_by(5) {
        cx.cancel_timer(*timer);
    }
    let limit = Instant::now() + PATIENCE;
    while event_loop.service().expired.len() < 40 && Instant::now() < limit {
        event_loop.turn(None).expect("a tick");
    }
    let Notes { timers, expired, .. } = event_loop.service();
    let delay = |timer: &TimerId| delays[timers.iter().position(|held| held == timer).expect("one of ours")];
    assert_eq!(expired.len(), 40);
    assert!(expired.iter().all(|(timer, at)| *at >= start + Duration::from_millis(delay(timer))), "never early");
    assert!(expired.is_sorted_by_key(|(timer, _)| delay(timer)), "in order");
}

#[test]
fn messages_keep_their_order_are_bounded_and_wake_the_loop_once() {
    let config = Config { mailbox_messages_max: 1_000, ..Config::default() };
    let mut event_loop = EventLoop::new(config, Notes::default()).expect("a loop");
    let mailbox = event_loop.mailbox();
    let posting = std::thread::spawn(move || {
        for n in 0..1_000 {
            mailbox.post(n).expect("room");
        }
        assert_eq!(mailbox.post(1_000), Err(PostError::Full(1_000)), "and it is handed back");
    });
    posting.join().expect("the thread");
    event_loop.turn(Some(PATIENCE)).expect("a tick");
    let calls = &event_loop.service().calls;
    let expected: Vec<String> = (0..1_000).map(|n| format!("message {n}")).chain(["turned".into()]).collect();
    assert_eq!(calls, &expected, "all in one tick");
    // A wake-up for each message would make the next tick return at once.
    let start = Instant::now();
    event_loop.turn(Some(Duration::from_millis(50))).expect("a tick");
    assert!(start.elapsed() >= Duration::from_millis(50), "no wake-up is left over");
    event_loop.mailbox().post(1).expect("there is room again");
}

#[test]
fn a_full_mailbox_reports_that_its_loop_has_ended_or_been_dropped() {
    let config = Config { mailbox_messages_max: 2, ..Config::default() };
    for (ends, posted) in [(false, 0), (false, 2), (true, 0), (true, 2)] {
        let mut event_loop = EventLoop::new(config.clone(), Notes::default()).expect("a loop");
        let mailbox = event_loop.mailbox();
        let fill = |count| (0..count).for_each(|n| mailbox.post(n).expect("room"));
        if ends {
            event_loop.stopper().stop();
            // The last tick takes a part of the messages. The rest is never taken.
            fill(posted);
            event_loop.run().expect("a good end");
            for _ in 0..5 {
                assert_eq!(mailbox.post(7), Err(PostError::Gone(7)), "{posted} were posted before");
            }
        }
        if !ends {
            fill(posted);
        }
        drop(event_loop);
        for _ in 0..5 {
            assert_eq!(mailbox.clone().post(7), Err(PostError::Gone(7)), "{posted} were posted before");
        }
    }
}

#[test]
fn accepting_without_free_descriptors_waits_and_does_not_spin() {
    if std::env::var_os("SEALED_TEST_FEW_DESCRIPTORS").is_some() {
        return with_few_descriptors();
    }
    // In a process of its own, because the limit is the process's.
    let script = "ulimit -n 40 && exec \"$0\" --exact accepting_without_free_descriptors_waits_and_does_not_spin";
    let program = std::env::current_exe().expect("this program");
    let output = Command::new("sh")
        .args(["-c", script])
        .arg(program)
        .env("SEALED_TEST_FEW_DESCRIPTORS", "1")
        .output()
        .expect("a shell");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

fn with_few_descriptors() {
    let mut event_loop = notes();
    let address = event_loop.listen("127.0.0.1:0").expect("a port").address;
    let mut streams = Vec::new();
    while let Ok(stream) = TcpStream::connect(&address) {
        streams.push(stream);
    }
    // Some descriptors are freed, so that the loop can accept a few of the waiting connections, but
    // not all.
    streams.truncate(streams.len() - 4);
    while event_loop.parts().1.stats().accept_pauses == 0 {
        event_loop.turn(Some(PATIENCE)).expect("a tick");
    }
    let start = Instant::now();
    let mut ticks = 0;
    while start.elapsed() < Duration::from_millis(500) {
        event_loop.turn(Some(Duration::from_millis(500))).expect("a tick");
        ticks += 1;
    }
    assert!(ticks < 50, "{ticks} ticks in half a second of waiting");
    // A connection that closes makes room for another.
    let accepted = event_loop.parts().1.stats().accepted;
    let half = streams.len() / 2;
    streams.truncate(half);
    let limit = Instant::now() + PATIENCE;
    while event_loop.parts().1.stats().accepted <= accepted {
        assert!(Instant::now() < limit, "accepting does not go on");
        event_loop.turn(Some(Duration::from_millis(10))).expect("a tick");
    }
}

#[test]
fn at_the_limit_of_connections_accepting_waits() {
    let config = Config { connections_max: 2, ..Config::default() };
    let mut event_loop = EventLoop::new(config, Notes::default()).expect("a loop");
    let address = event_loop.listen("127.0.0.1:0").expect("a port").address;
    let mut streams: Vec<_> = (0..3).map(|_| TcpStream::connect(&address).expect("the backlog has room")).collect();
    while event_loop.parts().1.stats().accept_pauses == 0 {
        event_loop.turn(Some(PATIENCE)).expect("a tick");
    }
    assert_eq!(event_loop.parts().1.connections(), 2);
    streams.remove(0);
    let limit = Instant::now() + PATIENCE;
    while event_loop.parts().1.stats().accepted < 3 {
        assert!(Instant::now() < limit, "accepting does not go on");
        event_loop.turn(Some(Duration::from_millis(10))).expect("a tick");
    }
    assert_eq!(event_loop.parts().1.connections(), 2);
}

/// Writes the number of its loop to each connection that it accepts, and panics if a message
/// arrives.
struct Greeter(usize);

impl Service for Greeter {
    type Connection = ();
    type Message = ();
    type Timer = ();

    fn accepted(&mut self, cx: &mut Context<Self>, id: ConnectionId, _: ListenerId, _: &Address) {
        cx.write(id, &[self.0 as u8]);
    }

    fn received(&mut self, _: &mut Context<Self>, _: ConnectionId, input: &mut Input<'_>) {
        input.take_all();
    }

    fn message(&mut self, _: &mut Context<Self>, (): ()) {
        panic!("a planned panic");
    }
}

fn pool(loops: usize) -> (Pool<()>, Address) {
    let mut pool = Pool::new(Config::default(), loops.try_into().ok()).expect("a pool");
    let address = pool.listen(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port").address;
    (pool, address)
}

#[test]
fn every_loop_of_a_pool_gets_connections_and_all_stop_together() {
    let (pool, address) = pool(3);
    let stopper = pool.stopper();
    let (done, ended) = mpsc::channel();
    std::thread::spawn(move || done.send(pool.run(|place: Place<()>| Greeter(place.index))));
    let mut seen = [false; 3];
    let mut streams = Vec::new();
    let limit = Instant::now() + PATIENCE;
    while seen.contains(&false) {
        assert!(Instant::now() < limit, "{seen:?}");
        let mut stream = TcpStream::connect(&address).expect("connected");
        let mut index = [0];
        std::io::Read::read_exact(&mut stream, &mut index).expect("a greeting");
        seen[usize::from(index[0])] = true;
        streams.push(stream);
    }
    stopper.stop();
    drop(streams);
    ended.recv_timeout(PATIENCE).expect("it ends").expect("a good end");
    assert!(TcpStream::connect(&address).is_err(), "nobody listens any more");
}

#[test]
fn a_loop_that_panics_ends_its_pool() {
    let (pool, _) = pool(3);
    let mailbox = pool.mailboxes()[1].clone();
    let (done, ended) = mpsc::channel();
    std::thread::spawn(move || done.send(pool.run(|place: Place<()>| Greeter(place.index))));
    mailbox.post(()).expect("room");
    let outcome = ended.recv_timeout(PATIENCE).expect("it ends");
    assert!(matches!(&outcome, Err(sealed::Error::Panicked(text)) if text == "a planned panic"), "{outcome:?}");
    assert_eq!(mailbox.post(()), Err(PostError::Gone(())));
}

#[test]
fn a_service_that_cannot_be_made_ends_its_pool() {
    for broken in 0..3 {
        let (pool, _) = pool(3);
        let outcome = pool.run(move |place: Place<()>| {
            assert_ne!(place.index, broken, "a planned panic");
            Greeter(place.index)
        });
        assert!(
            matches!(&outcome, Err(sealed::Error::Panicked(text)) if text.contains("a planned panic")),
            "{outcome:?}"
        );
    }
}

#[cfg(unix)]
#[test]
fn a_signal_that_cannot_be_caught_is_an_error() {
    const KILL: i32 = 9;
    let mut event_loop = notes();
    assert!(matches!(event_loop.deliver_signals(&[KILL]), Err(sealed::Error::Signal(_))));
}

#[test]
fn a_port_cannot_be_shared_with_another_pool() {
    let (_pool, address) = pool(2);
    let mut other = Pool::<()>::new(Config::default(), 2.try_into().ok()).expect("a pool");
    assert!(matches!(other.listen(address), Err(sealed::Error::Listen { .. })));
}
