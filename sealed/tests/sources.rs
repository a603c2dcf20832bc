//! Sources: foreign descriptors whose readiness a loop reports. All descriptors are real; what is
//! written to a pipe or a socket pair can be read at once, so no test has to wait.
#![cfg(unix)]

use std::fs::File;
use std::io::{self, ErrorKind, PipeReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use sealed::sim::Simulation;
use sealed::{
    Config, ConnectionId, Context, Error, EventLoop, Input, Interest, Panic, Ready, Service, Source, SourceId,
};

/// A time that no test needs, unless a loop sleeps that should not.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a [`Probe`] does in `ready`, with its sources and its context.
type React = Box<dyn FnMut(&mut Vec<Source<UnixStream>>, &mut Context<Probe>, SourceId) + Send>;

/// A service that keeps sources and records its calls.
#[derive(Default)]
struct Probe {
    sources: Vec<Source<UnixStream>>,
    calls: Vec<(SourceId, Ready)>,
    react: Option<React>,
    keeps: bool,
    panics: Vec<Option<ConnectionId>>,
}

impl Service for Probe {
    type Connection = ();
    type Message = ();
    type Timer = ();

    fn received(&mut self, _: &mut Context<Self>, _: ConnectionId, _: &mut Input<'_>) {}

    fn ready(&mut self, cx: &mut Context<Self>, source: SourceId, ready: Ready) {
        self.calls.push((source, ready));
        if let Some(react) = &mut self.react {
            react(&mut self.sources, cx, source);
        }
    }

    fn panicked(&mut self, _: &mut Context<Self>, id: Option<ConnectionId>, payload: Panic) -> Result<(), Panic> {
        self.panics.push(id);
        if self.keeps { Ok(()) } else { Err(payload) }
    }
}

fn event_loop() -> EventLoop<Probe> {
    EventLoop::new(Config::default(), Probe::default()).expect("a loop")
}

/// Adds one end of a socket pair to the service's sources, and returns its id and the other end.
fn add(sources: &mut Vec<Source<UnixStream>>, cx: &mut Context<Probe>, interest: Interest) -> (SourceId, UnixStream) {
    let (near, far) = UnixStream::pair().expect("a pair");
    near.set_nonblocking(true).expect("it can be set");
    let source = cx.add_source(near, interest).expect("it is added");
    let id = source.id();
    sources.push(source);
    (id, far)
}

fn add_to(event_loop: &mut EventLoop<Probe>, interest: Interest) -> (SourceId, UnixStream) {
    let (probe, cx) = event_loop.parts();
    add(&mut probe.sources, cx, interest)
}

fn react(
    event_loop: &mut EventLoop<Probe>,
    react: impl FnMut(&mut Vec<Source<UnixStream>>, &mut Context<Probe>, SourceId) + Send + 'static,
) {
    event_loop.parts().0.react = Some(Box::new(react));
}

/// Runs one tick, and returns the calls that it made.
fn turn(event_loop: &mut EventLoop<Probe>) -> Vec<(SourceId, Ready)> {
    assert!(event_loop.turn(Some(Duration::ZERO)).expect("all is well"));
    std::mem::take(&mut event_loop.parts().0.calls)
}

fn called(calls: &[(SourceId, Ready)]) -> Vec<SourceId> {
    calls.iter().map(|(id, _)| *id).collect()
}

/// Reads one byte from a source, if there is one.
fn read_byte(sources: &[Source<UnixStream>], id: SourceId) -> Option<u8> {
    let source = sources.iter().find(|source| source.id() == id).expect("it is kept");
    let mut byte = [0];
    source.get().read(&mut byte).ok().map(|_| byte[0])
}

#[test]
fn each_change_is_reported_once_and_several_in_one_call() {
    let mut event_loop = event_loop();
    let (id, mut far) = add_to(&mut event_loop, Interest::READABLE);
    assert_eq!(turn(&mut event_loop), [], "there is nothing to read");
    far.write_all(b"a").expect("sent");
    let calls = turn(&mut event_loop);
    assert_eq!(called(&calls), [id]);
    let ready = calls[0].1;
    assert_eq!((ready.readable(), ready.writable(), ready.ended(), ready.failed()), (true, false, false, false));
    assert_eq!(turn(&mut event_loop), [], "nothing new has come");
    far.write_all(b"b").expect("sent");
    assert_eq!(called(&turn(&mut event_loop)), [id], "more has come");
    far.write_all(b"c").expect("sent");
    drop(far);
    let calls = turn(&mut event_loop);
    assert_eq!(called(&calls), [id]);
    assert!(calls[0].1.readable() && calls[0].1.ended());
    let mut rest = String::new();
    event_loop.parts().0.sources[0].get_mut().read_to_string(&mut rest).expect("it has ended");
    assert_eq!(rest, "abc");
}

#[test]
fn what_is_ready_before_it_is_added_is_reported() {
    let mut event_loop = event_loop();
    let (near, mut far) = UnixStream::pair().expect("a pair");
    far.write_all(b"a").expect("sent");
    let source = event_loop.parts().1.add_source(near, Interest::BOTH).expect("it is added");
    let calls = turn(&mut event_loop);
    assert_eq!(called(&calls), [source.id()]);
    assert!(calls[0].1.readable() && calls[0].1.writable() && !calls[0].1.ended());
}

#[test]
fn a_pipe_reports_its_end_to_the_reader_and_its_failure_to_the_writer() {
    let mut event_loop = event_loop();
    let (_, cx) = event_loop.parts();
    let (reader, writer) = io::pipe().expect("a pipe");
    let (other_reader, other_writer) = io::pipe().expect("a pipe");
    let mut reader = cx.add_source(reader, Interest::READABLE).expect("it is added");
    let mut other_writer = cx.add_source(other_writer, Interest::WRITABLE).expect("it is added");
    let calls = turn(&mut event_loop);
    assert_eq!(called(&calls), [other_writer.id()]);
    assert!(calls[0].1.writable() && !calls[0].1.readable());
    drop((writer, other_reader));
    let mut calls = turn(&mut event_loop);
    calls.sort_by_key(|(id, _)| *id);
    assert_eq!(called(&calls), [reader.id(), other_writer.id()]);
    assert!(calls[0].1.ended() && calls[0].1.readable(), "a read returns the end");
    assert!(calls[1].1.failed() && calls[1].1.writable(), "a write returns the error");
    assert_eq!(reader.get_mut().read(&mut [0]).expect("the end"), 0);
    let error = other_writer.get_mut().write(b"a").expect_err("there is no reader");
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
}

#[test]
fn a_pipe_of_the_standard_library_becomes_non_blocking() {
    let (reader, _writer) = io::pipe().expect("a pipe");
    let mut event_loop = event_loop();
    let mut reader: Source<PipeReader> =
        event_loop.parts().1.add_source(reader, Interest::READABLE).expect("it is added");
    reader.set_nonblocking(true).expect("it can be set");
    assert_eq!(reader.get_mut().read(&mut [0]).expect_err("it is empty").kind(), ErrorKind::WouldBlock);
}

#[test]
fn sources_that_leave_bytes_unread_take_turns_and_the_loop_does_not_sleep() {
    let mut event_loop = event_loop();
    let (one, mut far_one) = add_to(&mut event_loop, Interest::READABLE);
    let (other, mut far_other) = add_to(&mut event_loop, Interest::READABLE);
    react(&mut event_loop, |sources, cx, id| {
        if read_byte(sources, id).is_some() {
            cx.ready_again(id);
            cx.ready_again(id);
        }
    });
    far_one.write_all(b"aa").expect("sent");
    far_other.write_all(b"b").expect("sent");
    let start = Instant::now();
    let mut ticks = Vec::new();
    for _ in 0..3 {
        assert!(event_loop.turn(Some(PATIENCE)).expect("all is well"));
        let mut calls = std::mem::take(&mut event_loop.parts().0.calls);
        calls.sort_by_key(|(id, _)| *id);
        assert!(calls.iter().all(|(_, ready)| ready.readable()), "a requested call repeats the report");
        ticks.push(called(&calls));
    }
    assert_eq!(ticks, [vec![one, other], vec![one, other], vec![one]]);
    assert!(start.elapsed() < PATIENCE, "it slept");
    assert_eq!(turn(&mut event_loop), [], "no call is requested any more");
}

#[test]
fn a_call_can_be_requested_from_outside_and_only_for_a_source_that_exists() {
    let mut event_loop = event_loop();
    let (gone, _far) = add_to(&mut event_loop, Interest::READABLE);
    event_loop.parts().0.sources.clear();
    let (id, _far) = add_to(&mut event_loop, Interest::READABLE);
    let (_, cx) = event_loop.parts();
    cx.ready_again(gone);
    cx.ready_again(SourceId::default());
    assert_eq!(turn(&mut event_loop), []);
    event_loop.parts().1.ready_again(id);
    assert_eq!(turn(&mut event_loop), [(id, Ready::default())], "nothing was reported so far");
}

#[test]
fn the_interest_decides_what_is_reported_and_a_change_reports_anew() {
    let mut event_loop = event_loop();
    let (id, mut far) = add_to(&mut event_loop, Interest::READABLE);
    assert_eq!(turn(&mut event_loop), [], "it is writable, which is not of interest");
    let set = |event_loop: &mut EventLoop<Probe>, interest| {
        event_loop.parts().0.sources[0].set_interest(interest).expect("it is changed");
    };
    set(&mut event_loop, Interest::BOTH);
    let calls = turn(&mut event_loop);
    assert!(called(&calls) == [id] && calls[0].1.writable() && !calls[0].1.readable());
    far.write_all(b"ab").expect("sent");
    assert!(turn(&mut event_loop)[0].1.readable());
    set(&mut event_loop, Interest::READABLE);
    event_loop.parts().1.ready_again(id);
    let calls = turn(&mut event_loop);
    assert!(called(&calls) == [id] && calls[0].1.readable(), "it is still unread");
    assert!(!calls[0].1.writable(), "what was reported before is forgotten");
    // A descriptor that has to stay blocking is read once for each report.
    for byte in [b'a', b'b'] {
        set(&mut event_loop, Interest::READABLE);
        assert_eq!(called(&turn(&mut event_loop)), [id]);
        assert_eq!(read_byte(&event_loop.service().sources, id), Some(byte));
    }
    set(&mut event_loop, Interest::READABLE);
    assert_eq!(turn(&mut event_loop), []);
}

#[test]
fn a_source_that_is_dropped_in_a_call_is_closed_and_never_called_again() {
    let mut event_loop = event_loop();
    let mut far = [(); 3].map(|()| add_to(&mut event_loop, Interest::READABLE).1);
    for far in &mut far {
        far.write_all(b"a").expect("sent");
    }
    // The first call, for whichever source, drops all of them.
    react(&mut event_loop, |sources, cx, id| {
        sources.clear();
        cx.ready_again(id);
    });
    assert_eq!(turn(&mut event_loop).len(), 1);
    assert_eq!(turn(&mut event_loop), []);
    for far in &mut far {
        let outcome = far.read(&mut [0]);
        let is_closed = matches!(&outcome, Ok(0)) || outcome.is_err_and(|e| e.kind() == ErrorKind::ConnectionReset);
        assert!(is_closed, "the near end is closed");
    }
}

#[test]
fn an_event_of_a_source_never_reaches_the_next_one_in_its_slot() {
    let mut event_loop = event_loop();
    let mut far = [(); 2].map(|()| add_to(&mut event_loop, Interest::READABLE).1);
    for far in &mut far {
        far.write_all(b"a").expect("sent");
    }
    let (sender, added) = std::sync::mpsc::channel();
    let mut is_first = true;
    // Both have an event. The first call replaces both, and requests calls for the new ones.
    react(&mut event_loop, move |sources, cx, _| {
        if std::mem::replace(&mut is_first, false) {
            sources.clear();
            for _ in 0..2 {
                let (id, far) = add(sources, cx, Interest::READABLE);
                cx.ready_again(id);
                sender.send((id, far)).expect("the test receives it");
            }
        }
    });
    assert_eq!(turn(&mut event_loop).len(), 1, "the other one is gone");
    let added: Vec<(SourceId, UnixStream)> = added.try_iter().collect();
    let mut expected: Vec<SourceId> = added.iter().map(|(id, _)| *id).collect();
    let mut calls = turn(&mut event_loop);
    calls.sort_by_key(|(id, _)| *id);
    expected.sort();
    assert_eq!(calls, [(expected[0], Ready::default()), (expected[1], Ready::default())]);
}

#[test]
fn a_removed_descriptor_reports_nothing_though_a_duplicate_stays_open() {
    let mut event_loop = event_loop();
    let (_, mut far) = add_to(&mut event_loop, Interest::READABLE);
    let duplicate = event_loop.parts().0.sources[0].get().try_clone().expect("a duplicate");
    event_loop.parts().0.sources.clear();
    let (_, _quiet) = add_to(&mut event_loop, Interest::READABLE);
    far.write_all(b"a").expect("sent");
    assert_eq!(turn(&mut event_loop), []);
    drop(duplicate);
}

#[test]
fn an_object_that_is_taken_out_is_whole_and_can_be_added_again() {
    let mut event_loop = event_loop();
    let (id, mut far) = add_to(&mut event_loop, Interest::READABLE);
    let source = event_loop.parts().0.sources.remove(0);
    assert!(format!("{source:?}").contains(&format!("{id:?}")));
    let mut near = source.into_inner();
    far.write_all(b"a").expect("sent");
    assert_eq!(turn(&mut event_loop), []);
    near.read_exact(&mut [0]).expect("it is not closed");
    let shared = Arc::new(near);
    let (_, cx) = event_loop.parts();
    let source = cx.add_source(shared.clone(), Interest::READABLE).expect("it is added again");
    assert_ne!(source.id(), id);
    far.write_all(b"b").expect("sent");
    assert_eq!(called(&turn(&mut event_loop)), [source.id()]);
    drop(source);
    (&*shared).read_exact(&mut [0]).expect("the other reference keeps it open");
}

#[test]
fn an_object_with_a_new_descriptor_is_registered_anew() {
    let mut event_loop = event_loop();
    let (id, mut old_far) = add_to(&mut event_loop, Interest::READABLE);
    let (near, mut far) = UnixStream::pair().expect("a pair");
    let source = &mut event_loop.parts().0.sources[0];
    *source.get_mut() = near;
    source.set_interest(Interest::READABLE).expect("it is registered");
    old_far.write_all(b"a").expect_err("the old one is closed");
    far.write_all(b"a").expect("sent");
    assert_eq!(called(&turn(&mut event_loop)), [id]);
}

#[test]
fn each_service_gets_the_events_of_its_own_sources() {
    let mut event_loop = event_loop();
    event_loop.add_service(Config::default(), Probe::default()).expect("a service");
    let (of_first, mut far) = add_to(&mut event_loop, Interest::READABLE);
    let mut others = event_loop
        .parts_of::<Probe>()
        .map(|(probe, cx)| [(); 2].map(|()| add(&mut probe.sources, cx, Interest::READABLE)));
    let [_, (last, far_last)] = others.as_mut().expect("it is there");
    far_last.write_all(b"a").expect("sent");
    assert_eq!(turn(&mut event_loop), [], "it is not the first service's");
    let calls = |event_loop: &mut EventLoop<Probe>| {
        event_loop.parts_of::<Probe>().map(|(probe, _)| std::mem::take(&mut probe.calls)).expect("it is there")
    };
    assert_eq!(called(&calls(&mut event_loop)), [*last]);
    far.write_all(b"a").expect("sent");
    assert_eq!(called(&turn(&mut event_loop)), [of_first]);
    assert_eq!(calls(&mut event_loop), []);
}

#[test]
fn a_source_can_outlive_its_loop_and_be_dropped_on_another_thread() {
    let mut event_loop = event_loop();
    let (_, mut far) = add_to(&mut event_loop, Interest::READABLE);
    let (_, mut other_far) = add_to(&mut event_loop, Interest::READABLE);
    let (id, _third_far) = add_to(&mut event_loop, Interest::READABLE);
    let other = event_loop.parts().0.sources.remove(1);
    thread::spawn(move || drop(other)).join().expect("it is dropped");
    assert_eq!(other_far.read(&mut [0]).expect("the end"), 0);
    assert_eq!(turn(&mut event_loop), []);
    let mut sources = std::mem::take(&mut event_loop.parts().0.sources);
    drop(event_loop);
    assert_eq!(sources[1].id(), id);
    sources[1].set_interest(Interest::BOTH).expect("it has no effect");
    let mut near = sources.remove(0).into_inner();
    far.write_all(b"a").expect("sent");
    near.read_exact(&mut [0]).expect("it is whole");
}

#[test]
fn files_without_readiness_and_descriptors_that_are_there_already_are_refused() {
    let mut event_loop = event_loop();
    let file = File::open(std::env::current_exe().expect("a path")).expect("it can be read");
    let (near, _far) = UnixStream::pair().expect("a pair");
    let near = Arc::new(near);
    let (_, cx) = event_loop.parts();
    let kind = |refused: sealed::Result<Source<_>>| match refused.map(|_: Source<Arc<UnixStream>>| ()) {
        Err(Error::Source(error)) => error.kind(),
        other => panic!("{other:?}"),
    };
    if cfg!(target_os = "linux") {
        let refused = cx.add_source(file, Interest::READABLE).expect_err("it is a regular file");
        let Error::Source(error) = refused else { panic!("{refused:?}") };
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        assert!(error.to_string().contains("always ready"), "{error}");
        let added = cx.add_source(near.clone(), Interest::READABLE).expect("it is added");
        assert_eq!(kind(cx.add_source(near.clone(), Interest::READABLE)), ErrorKind::AlreadyExists);
        drop(added);
    }
    cx.add_source(near.clone(), Interest::READABLE).expect("no refused source is left");
    let mut simulated = Simulation::new(1).event_loop(Config::default(), Probe::default()).expect("a loop");
    assert_eq!(kind(simulated.parts().1.add_source(near, Interest::READABLE)), ErrorKind::Unsupported);
}

#[test]
fn a_panic_in_a_call_for_a_source_ends_the_loop_unless_the_service_keeps_it() {
    for keeps in [false, true] {
        let mut event_loop = event_loop();
        let (id, mut far) = add_to(&mut event_loop, Interest::READABLE);
        event_loop.parts().0.keeps = keeps;
        react(&mut event_loop, |_, _, _| panic!("in ready"));
        far.write_all(b"a").expect("sent");
        let outcome = event_loop.turn(Some(Duration::ZERO));
        assert_eq!(event_loop.service().panics, [None], "it is of no connection");
        if keeps {
            assert!(outcome.expect("it goes on"));
            event_loop.parts().0.react = None;
            event_loop.parts().1.ready_again(id);
            assert_eq!(turn(&mut event_loop).len(), 2);
        } else {
            assert!(matches!(outcome, Err(Error::Panicked(text)) if text == "in ready"));
        }
    }
}

#[test]
fn sources_wake_a_loop_that_waits_and_do_not_keep_it_from_ending() {
    let mut event_loop = event_loop();
    let (_, mut far) = add_to(&mut event_loop, Interest::READABLE);
    react(&mut event_loop, |sources, cx, id| match read_byte(sources, id) {
        Some(b'q') => cx.stop(),
        _ => cx.ready_again(id),
    });
    let writer = thread::spawn(move || {
        far.write_all(b"q").expect("sent");
        far
    });
    event_loop.run().expect("it ends");
    assert_eq!(event_loop.service().sources.len(), 1);
    drop(writer.join().expect("it has written"));
}

#[test]
fn sources_are_reported_while_a_loop_drains_and_do_not_hold_it_up() {
    let mut event_loop = event_loop();
    let (id, mut far) = add_to(&mut event_loop, Interest::READABLE);
    let (near, peer) = UnixStream::pair().expect("a pair");
    let (_, cx) = event_loop.parts();
    cx.adopt(near, ()).expect("it is adopted");
    cx.stop();
    assert_eq!(turn(&mut event_loop), [], "the connection waits for its peer's end");
    far.write_all(b"a").expect("sent");
    assert_eq!(called(&turn(&mut event_loop)), [id]);
    drop(peer);
    assert!(!event_loop.turn(Some(PATIENCE)).expect("all is well"), "only the source is left");
}

/// A directory of its own, removed at the end.
#[cfg(target_os = "linux")]
struct Directory(std::path::PathBuf);

#[cfg(target_os = "linux")]
impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn changes_of_a_directory_are_reported_through_inotify() {
    use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
    use rustix::io::Errno;

    let directory = Directory(std::env::temp_dir().join(format!("sealed-sources-{}", std::process::id())));
    std::fs::create_dir(&directory.0).expect("it is made");
    let watcher = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).expect("a watcher");
    inotify::add_watch(&watcher, &directory.0, WatchFlags::CREATE).expect("it is watched");
    let mut event_loop = event_loop();
    let source = event_loop.parts().1.add_source(watcher, Interest::READABLE).expect("it is added");
    assert_eq!(turn(&mut event_loop), []);
    for name in ["tea", "milk"] {
        std::fs::write(directory.0.join(name), "").expect("written");
    }
    assert_eq!(called(&turn(&mut event_loop)), [source.id()]);
    let mut buffer = [std::mem::MaybeUninit::uninit(); 1024];
    let mut changes = inotify::Reader::new(&source, &mut buffer);
    for name in [c"tea", c"milk"] {
        assert_eq!(changes.next().expect("a change").file_name(), Some(name));
    }
    assert_eq!(changes.next().err(), Some(Errno::WOULDBLOCK));
}
