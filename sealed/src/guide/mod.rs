//! A protocol from nothing: a server that counts votes, and its test.
//!
//! People connect and send lines. `vote NAME` is counted, `watch` shows how the votes stand, now and whenever that has
//! changed, `quit` ends. It is small, and has what every protocol has: input that comes in pieces, state, time, output to
//! many, somebody who reads slowly, and votes that come from another thread.
//!
//! # What a service is
//!
//! A loop runs on one thread and has one service: a plain struct, here with the votes and the names of the connections
//! that watch. What happens to connections is told to it by calls of the [`Service`](crate::Service) trait; what it does to them,
//! it does through the [`Context`](crate::Context) that comes with every call. There is no object for each connection, no lock, and
//! nothing to be shared: `&mut self` is the whole server.
//!
//! Three types have to be named. `Connection` is what is kept with each connection, inline in the loop's table: nothing,
//! here, and a phase or a name in most protocols. `Message` is what other threads may post. `Timer` is what a timer
//! carries, so that one knows what it was for.
//!
//! Here is all of it; what follows explains it, piece by piece.
//!
//! ```
#![doc = include_str!("tally.rs")]
//! # fn main() {}
//! ```
//!
//! # Input
//!
//! TCP knows no messages. [`received`](crate::Service::received) may be called with half a line, or with ten: `input` holds
//! all that came and was not taken yet. Take what is whole, and leave the rest; it is there again at the next call, with more behind
//! it. Here [`take_until`](crate::Input::take_until) gives a line, or nothing where its end has not come.
//!
//! What is left must have a limit, or one peer's endless line fills the memory. The loop has one of its own,
//! [`Config::input_bytes_max`](crate::Config::input_bytes_max), at which it stops reading; a protocol's own limit gives an
//! answer.
//!
//! # Output
//!
//! [`write`](crate::Context::write) queues bytes, for any connection. They are sent at the end of the tick, all that was
//! queued in one system call. [`write_bytes`](crate::Context::write_bytes) shares what many get instead of copying
//! it.
//!
//! A reader may be slow. What its socket does not take stays queued, and
//! [`Config::output_bytes_max`](crate::Config::output_bytes_max) is the end of it: the connection is closed. Better is to give less. A
//! stream goes on while `write` returns true and waits for [`drained`](crate::Service::drained) where it does not. The tally
//! is simpler: who has not taken the last standings is left out until he has.
//!
//! # Time
//!
//! Each connection has one deadline, which costs nothing to set: here it is moved with every line, and who says nothing for
//! five minutes is closed, by what [`timed_out`](crate::Service::timed_out) does if it is not written. Timers are for all
//! else. The one that tells watchers is [periodic](crate::Context::set_interval), and does not drift.
//!
//! Connections are named by [`ConnectionId`](crate::ConnectionId)s. The list of watchers need not be kept exactly: an id whose
//! connection has ended finds nothing, even when its place has been given to another, so that a sweep once a second is enough.
//!
//! # Other threads
//!
//! [`EventLoop::mailbox`](crate::EventLoop::mailbox) gives a [`Mailbox`](crate::Mailbox) that any thread may post to. It has
//! a limit too: a full one gives the message back. Work that takes long belongs to another thread, and its answer comes
//! by mailbox.
//!
//! # Running it
//!
//! ```no_run
//! # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/tally.rs"));
//! use sealed::{Config, EventLoop};
//!
//! fn main() -> sealed::Result<()> {
//!     let mut event_loop = EventLoop::new(Config::default(), Tally::default())?;
//!     println!("listening on {}", event_loop.listen("127.0.0.1:7777")?);
//!     event_loop.stop_on_signals()?;
//!     event_loop.run()
//! }
//! ```
//!
//! A signal lets it drain: listeners are closed, and connections are, after what is queued for them has been sent.
//!
//! # Testing it
//!
//! A test on real sockets waits for real time, and the network of a developer's machine never fails. On the simulated
//! network (the feature `sim`) an hour costs nothing, and everything fails that can: reads of one byte, writes that
//! would block, peers that stop reading or vanish. The service is the very same.
//!
#![cfg_attr(not(feature = "sim"), doc = "```ignore")]
#![cfg_attr(feature = "sim", doc = "```")]
//! # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/tally.rs"));
//! use sealed::sim::{Faults, Simulation};
//! use sealed::{CloseReason, Config, EventLoop};
//!
//! # fn main() -> sealed::Result<()> {
//! for seed in 0..50 {
//!     // Everything that happens by chance comes from the seed: one that fails, fails again.
//!     let sim = Simulation::new(seed);
//!     sim.set_faults(Faults {
//!         short_read: 0.5,
//!         short_write: 0.5,
//!         would_block: 0.3,
//!         delay_max: Duration::from_millis(20),
//!         ..Faults::default()
//!     });
//!     let mut event_loop = sim.event_loop(Config::default(), Tally::default())?;
//!     let address = event_loop.listen("10.0.0.1:7777")?;
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
//!     // Nobody says anything: both are closed in time, and nothing is left but the timer.
//!     sim.run_for(IDLE_MAX + Duration::from_secs(60));
//!     assert!(ann.is_over() && ben.is_over());
//!     let left = sim.with(id, |event_loop: &mut EventLoop<Tally>| {
//!         let (_, cx) = event_loop.parts();
//!         (cx.connections(), cx.timers())
//!     });
//!     assert_eq!(left, Some((0, 1)));
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Where an expectation is not met, the trace of everything that happened is printed with it.
//!
//! # From here
//!
//! [`Pool`](crate::Pool) runs the same service on every core. [`Context::connect`](crate::Context::connect) makes connections
//! of one's own, as a proxy does. With the feature `tls` a [`Listen`](crate::Listen) speaks TLS, and the service does not notice.
//! [`Watch`](crate::Watch) shows another thread what a loop does. The repository's `examples/` have a program for each.
