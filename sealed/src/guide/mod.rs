//! Building a protocol from scratch: a server that counts votes, and its test.
//!
//! Clients connect and send lines. `vote NAME` counts a vote, `watch` shows the standings, now and
//! whenever they have changed, and `quit` ends the connection. The protocol is small but has what
//! every protocol has: input that arrives in pieces, state, time, output to many connections, a
//! client that reads slowly, and votes that come from another thread.
//!
//! # What a service is
//!
//! A loop runs on one thread and has a service: a plain struct, here with the votes and the ids
//! of the watching connections. The loop reports events of connections by calling the methods of
//! the [`Service`](crate::Service) trait; the service acts on connections through the
//! [`Context`](crate::Context) that is passed to every call. There is no object per connection, no
//! lock, and no shared state: `&mut self` is the whole server.
//!
//! A service names three types. `Connection` is the state stored with each connection, inline in
//! the loop's table: here nothing, in most protocols a phase or a name. `Message` is the type that
//! other threads may post. `Timer` is the value that a timer carries, which identifies its purpose.
//!
//! Here is the whole service; the following sections explain it piece by piece.
//!
//! ```
#![doc = include_str!("tally.rs")]
//! # fn main() {}
//! ```
//!
//! # Input
//!
//! TCP has no messages. [`received`](crate::Service::received) may be called with half a line, or
//! with ten lines: `input` holds all bytes that have been received and not taken yet. A service
//! takes what is complete and leaves the rest; the next call shows the rest again, with any newer
//! bytes after it. Here [`take_until`](crate::Input::take_until) returns a line, or `None` if the
//! end of the line has not arrived.
//!
//! Untaken input needs a limit, or one peer's endless line fills the memory. The loop has its own
//! limit, [`Config::input_bytes_max`](crate::Config::input_bytes_max), at which it stops reading. A
//! lower limit of the service's own, here `LINE_BYTES_MAX`, lets it send an error message. Such a
//! limit has to hold for complete lines as well as for the rest: many bytes can arrive in one call.
//!
//! [`close`](crate::Context::close) does not stop the `while` in `received`. The lines after a
//! `quit` are in `input` already, so the `while` checks [`is_open`](crate::Context::is_open).
//!
//! # Output
//!
//! [`write`](crate::Context::write) queues bytes, for any connection. The loop sends all queued
//! bytes of a connection at the end of the tick, usually in one system call.
//! [`write_bytes`](crate::Context::write_bytes) shares bytes that many connections get instead of
//! copying them.
//!
//! A client may read slowly. Output that its socket does not take stays queued, up to
//! [`Config::output_bytes_max`](crate::Config::output_bytes_max): a write beyond that resets the
//! connection. A service should write less. A service that streams data writes while `write`
//! returns true, and then waits for [`drained`](crate::Service::drained). The tally is simpler: it
//! skips a watcher that has not received the last standings until that watcher has caught up.
//!
//! # Time
//!
//! Each connection has one deadline, which is cheap to set. Here every line moves it, and a client
//! that sends nothing for five minutes is aborted by the default implementation of
//! [`timed_out`](crate::Service::timed_out), watchers included. Timers serve all other purposes.
//! The timer that notifies watchers is [periodic](crate::Context::set_interval) and does not drift.
//! The tally sets it in [`started`](crate::Service::started), which the loop calls before anything
//! else.
//!
//! Connections are identified by [`ConnectionId`](crate::ConnectionId)s. The list of watchers need
//! not be exact: the id of a connection that has ended finds nothing, even if its slot has been
//! reused, so cleaning the list up once a second is enough.
//!
//! # Other threads
//!
//! [`EventLoop::mailbox`](crate::EventLoop::mailbox) returns a [`Mailbox`](crate::Mailbox) to which
//! any thread may post. A mailbox has a limit too: a post to a full one returns the message. Work
//! that takes long belongs on another thread, which posts its result to the mailbox.
//!
//! # Running it
//!
//! ```no_run
//! # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/tally.rs"));
//! use sealed::{Config, EventLoop};
//!
//! fn main() -> sealed::Result<()> {
//!     let mut event_loop = EventLoop::new(Config::default(), Tally::default())?;
//!     println!("listening on {}", event_loop.listen("127.0.0.1:7777")?.address);
//!     event_loop.stop_on_signals()?;
//!     event_loop.run()
//! }
//! ```
//!
//! On a signal the server drains: the loop closes its listeners, and each connection after its
//! queued output has been sent.
//!
//! # Testing it
//!
//! A test on real sockets waits for real time, and the network of a developer's machine never
//! fails. On the simulated network (the feature `sim`) an hour costs nothing, and everything fails
//! that can fail: reads return one byte, writes would block, peers stop reading or vanish. The
//! service is exactly the same.
//!
#![cfg_attr(not(feature = "sim"), doc = "```ignore")]
#![cfg_attr(feature = "sim", doc = "```")]
//! # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/tally.rs"));
//! use sealed::sim::{self, Faults};
//! use sealed::{CloseReason, Config, EventLoop};
//!
//! # fn main() {
//! // All random choices of a run come from its seed: a seed that fails, fails again.
//! sim::check(0..50, |sim| {
//!     sim.set_faults(Faults {
//!         short_read: 0.5,
//!         short_write: 0.5,
//!         would_block: 0.3,
//!         delay_max: Duration::from_millis(20),
//!         ..Faults::default()
//!     });
//!     let mut event_loop = sim.event_loop(Config::default(), Tally::default()).expect("a loop");
//!     let address = event_loop.listen("10.0.0.1:7777").expect("it is free").address;
//!     let mailbox = event_loop.mailbox();
//!     let id = sim.start(event_loop);
//!
//!     let mut ann = sim.connect(&address);
//!     ann.send("watch\n");
//!     ann.expect("\n");
//!     let mut ben = sim.connect(&address);
//!     ben.send("vote tea\nvote coffee\nvo");
//!     ben.expect("counted\ncounted\n");
//!     ann.expect("coffee 1\ntea 1\n\n");
//!     ben.send("te tea\n");
//!     mailbox.post(("coffee".to_owned(), 40)).expect("there is room");
//!     ann.expect("coffee 41\ntea 2\n\n");
//!
//!     // Both clients stay silent: the server closes them in time, and only the timer is left.
//!     sim.run_for(IDLE_MAX + Duration::from_secs(60));
//!     assert!(ann.is_over() && ben.is_over());
//!     let left = sim.with(id, |event_loop: &mut EventLoop<Tally>| {
//!         let (_, cx) = event_loop.parts();
//!         (cx.connections(), cx.timers())
//!     });
//!     assert_eq!(left, Some((0, 1)));
//! });
//! # }
//! ```
//!
//! If an expectation is not met, the test prints the seed, the random faults to which the failure
//! was shrunk, the command that repeats the run, and the end of its trace, which has all events in
//! their order. The service can add remarks with [`Context::note`](crate::Context::note).
//!
//! The repository's `docs/simulation-compared.md` compares this with turmoil, madsim, loom and
//! shuttle.
//!
//! # Next steps
//!
//! [`coming_from`] translates from tokio, libevent and mio, and [`recipes`] answers questions that
//! come up in most servers.
//!
//! [`Pool`](crate::Pool) runs one service on each core; the services share nothing, and send each
//! other messages by mailbox. [`Context::connect`](crate::Context::connect) makes outgoing
//! connections, as a proxy needs them. [`Workers`](crate::Workers) do what would block the loop,
//! such as reading a file.
//! [`Context::bind_datagram`](crate::Context::bind_datagram) opens sockets for datagrams.
//! With the feature `tls`, a [`Listen`](crate::Listen) can use TLS, which needs no change in the
//! service. [`Watch`](crate::Watch) lets another thread read the counters of a loop.
//! [`EventLoop::add_service`](crate::EventLoop::add_service) runs other protocols on the same loop.
//! [`Context::add_source`](crate::Context::add_source) waits for any other file descriptor, such as
//! a pipe of a child process. The repository's `examples/` has programs for most of these;
//! `services` is the one with several protocols.

pub mod coming_from;
pub mod recipes;
