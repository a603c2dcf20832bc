//! Short answers to questions that come up in most servers.
//!
//! # An idle limit
//!
//! Set a deadline when a connection is made and again in each call that counts as activity;
//! [`Service::timed_out`](crate::Service::timed_out) aborts the connection by default. Moving a
//! deadline costs a few instructions, so it may be done for each input.
//!
//! [`Context::deadline`](crate::Context::deadline) shows how long a connection has been idle: the
//! limit minus the time that is left. So the last activity needs no field of its own.
//!
//! A peer that only takes output causes no call until its queue has drained. So store
//! [`Context::queued`](crate::Context::queued) whenever the deadline is set: if less is queued when
//! it passes, the peer is taking output.
//!
//! ```
//! use std::time::Duration;
//! use sealed::{Address, ConnectionId, Context, Input, ListenerId, Service};
//!
//! const IDLE_MAX: Duration = Duration::from_secs(60);
//!
//! struct App;
//!
//! fn set_idle_limit(cx: &mut Context<App>, id: ConnectionId) {
//!     cx.set_deadline(id, IDLE_MAX);
//!     let queued = cx.queued(id);
//!     if let Some(queued_before) = cx.state_mut(id) {
//!         *queued_before = queued;
//!     }
//! }
//!
//! impl Service for App {
//!     type Connection = usize;
//!     type Message = ();
//!     type Timer = ();
//!
//!     fn accepted(&mut self, cx: &mut Context<Self>, id: ConnectionId, _: ListenerId, _: &Address) {
//!         set_idle_limit(cx, id);
//!     }
//!
//!     fn received(&mut self, cx: &mut Context<Self>, id: ConnectionId, input: &mut Input<'_>) {
//!         cx.write(id, input.take_all());
//!         set_idle_limit(cx, id);
//!     }
//!
//!     // Records that the queue is empty. Otherwise the next timeout would take this for progress.
//!     fn drained(&mut self, cx: &mut Context<Self>, id: ConnectionId) {
//!         set_idle_limit(cx, id);
//!     }
//!
//!     fn timed_out(&mut self, cx: &mut Context<Self>, id: ConnectionId) {
//!         if cx.state(id).is_some_and(|queued_before| cx.queued(id) < *queued_before) {
//!             set_idle_limit(cx, id);
//!         } else {
//!             cx.time_out(id);
//!         }
//!     }
//! }
//! ```
//!
//! The kernel takes output faster than a slow peer reads it. While the kernel feeds such a peer
//! from its own buffers, which can take minutes, `queued` does not change, so the limit should be
//! long.
//!
//! # A tunnel
//!
//! A proxy has two connections with one fate; each has the id of the other as its state. What one
//! receives is written to the other, and if `write` returns false, the first is
//! [paused](crate::Context::pause) until [`drained`](crate::Service::drained) is called for the
//! other. The end of one side is passed on by [`half_close`](crate::Context::half_close), a failure
//! by [`reset`](crate::Context::reset). One deadline, that of the client's connection, is enough:
//! renew it on activity of either side, and compare the sum of both queues.
//!
//! By default a loop that shuts down closes its connections, which looks like the end of the data
//! to the peers of a tunnel. So override [`draining`](crate::Service::draining), let tunnels go on,
//! and reset those that are left shortly before the limit. The repository's examples `proxy` and
//! `socks5` do all of this. If strangers choose the target, set
//! [`ResolverConfig::allow`](crate::ResolverConfig::allow).
//!
//! # Reading and writing files
//!
//! No system reports when a file is ready, so files belong on [`Workers`](crate::Workers):
//!
//! ```
//! use sealed::{ConnectionId, Context, Input, Service, Workers};
//!
//! struct Files {
//!     workers: Workers,
//! }
//!
//! impl Service for Files {
//!     type Connection = ();
//!     type Message = (ConnectionId, std::io::Result<Vec<u8>>);
//!     type Timer = ();
//!
//!     fn received(&mut self, cx: &mut Context<Self>, id: ConnectionId, input: &mut Input<'_>) {
//!         input.take_all();
//!         // A large file should be read in pieces: request the next when the last has been sent.
//!         let work = cx.offload_for(id, &self.workers, move |_job| (id, std::fs::read("motd")));
//!         if work.is_err() {
//!             cx.abort(id);
//!         }
//!     }
//!
//!     fn message(&mut self, cx: &mut Context<Self>, (id, read): Self::Message) {
//!         match read {
//!             Ok(bytes) => _ = cx.write(id, &bytes),
//!             Err(_) => cx.abort(id),
//!         }
//!         cx.close(id);
//!     }
//! }
//! ```
//!
//! # The connection of a C library
//!
//! A library such as libpq, c-ares or libcurl has a non-blocking mode: it returns the number of its
//! descriptor, and what it waits for, and the program calls it when the descriptor is ready. Such a
//! descriptor is a [source](crate::Context::add_source) of the loop. The repository's
//! `examples/postgres` runs queries by libpq in this way:
//!
//! 1. `PQconnectStart` begins. As long as `PQconnectPoll` returns that it waits for reading or
//!    writing, add a source with that interest, and call it again in
//!    [`Service::ready`](crate::Service::ready). Drop the source before each new one, because libpq
//!    may have another socket by then, with the same number. A host name is resolved by blocking
//!    calls: pass addresses, from a [`Resolver`](crate::Resolver).
//! 2. `PQsetnonblocking`, `PQsendQuery` and `PQflush` send a query. As long as `PQflush` returns
//!    that something is left, the interest is [`Interest::BOTH`](crate::Interest::BOTH), and
//!    otherwise [`Interest::READABLE`](crate::Interest::READABLE).
//! 3. In `ready`, call `PQconsumeInput`, then `PQgetResult` until `PQisBusy` returns that it would
//!    block. Then call [`Source::set_interest`](crate::Source::set_interest), even if the interest
//!    is the same: libraries do not read until the descriptor is empty, and the loop reports only
//!    changes, and after `set_interest` what is ready.
//!
//! `add_source` takes an object that implements `AsFd`, so that a descriptor is not closed while
//! the loop waits for it. Most bindings return only a number. A program that permits `unsafe` wraps
//! the connection in a type whose `as_fd` calls `BorrowedFd::borrow_raw`. On Linux, another program
//! can add a duplicate, from `pidfd_getfd` of the crate `rustix`; the example does so. Drop the
//! duplicate with the connection, because the socket stays open as long as either exists.
//!
//! # Testing a foreign descriptor
//!
//! A simulation has no real descriptors. With the feature `sim`, a test gives the service a fake
//! object with a `sealed::sim::SimSource`, and sets its readiness; the loop treats both alike. The
//! documentation of `SimSource` has a pipe of this kind. For a library such as the one above, put
//! its calls behind a trait of your own, and let the fake return busy and results as the test
//! wants.
//!
//! # Connecting to a name
//!
//! [`Connect::by_name`](crate::Connect::by_name) resolves the name on other threads, and tries all
//! of its addresses. Use it for each attempt of a service that reconnects: the cache of the
//! [`Resolver`](crate::Resolver) makes that cheap, and a server that moves is found again.
//!
//! # An admin port
//!
//! [`EventLoop::add_service`](crate::EventLoop::add_service) runs another service on the same loop,
//! with listeners of its own. The example `services` has an admin port that speaks HTTP beside a
//! protocol of lines. An admin port on another loop reads the counters with
//! [`Watch`](crate::Watch).
//!
//! # Reloading
//!
//! [`EventLoop::deliver_signals`](crate::EventLoop::deliver_signals) delivers SIGHUP to
//! [`Service::signalled`](crate::Service::signalled). Read the new settings on
//! [`Workers`](crate::Workers), and apply them in `message`. Certificates are replaced by
//! `tls::Acceptor::replace`, while the connections that exist keep theirs; the example `tls_echo`
//! does so.
//!
//! To replace the program, open the listening sockets outside the loop, with the standard library.
//! Give a clone of each to [`Context::adopt_listener`](crate::Context::adopt_listener), pass the
//! originals on to the new process, and then stop the old one. It closes its listeners, and gives
//! its connections [`Config::drain_limit`](crate::Config::drain_limit) to end. Sockets that
//! [`Context::listen`](crate::Context::listen) opened cannot be passed on, and the file of a Unix
//! socket among them is removed as soon as the shutdown begins.
//!
//! # How exact timers are
//!
//! Timers and deadlines have a resolution of 1 ms. They are never early, except that a delay of
//! more than about 24 days is cut to that. They expire up to 2 ms late, plus the rest of the tick
//! that is running when they are due: a call that blocks for 20 ms makes all timers up to 20 ms
//! later. A periodic timer does not drift.
//!
//! # What a panic does
//!
//! By default, a panic in a call ends the loop with [`Error::Panicked`](crate::Error::Panicked),
//! because the state of the service may be wrong. A service that keeps data of each peer apart can
//! return `Ok` from [`Service::panicked`](crate::Service::panicked), and only the connection that
//! the call was for is reset. The same applies to panics in work on other threads. In a program
//! that is compiled with `panic = "abort"`, a panic ends the process.
//!
//! # Finding a call that blocks
//!
//! [`Stats::tick_lengths`](crate::Stats::tick_lengths) shows long ticks afterwards. While a loop is
//! stuck, [`Watch::running`](crate::Watch::running) shows in which step.
