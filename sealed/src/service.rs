//! What an application is to a loop: one object, told of everything that happens to its connections.

use std::any::Any;
use std::time::Duration;

use crate::address::Address;
use crate::context::Context;
use crate::error::CloseReason;
use crate::id::{ConnectionId, ListenerId, TimerId};
use crate::input::Input;

/// What a panic was given, as [`catch_unwind`](std::panic::catch_unwind) has it.
pub type Panic = Box<dyn Any + Send>;

/// The application's code on one loop.
///
/// There is one service for each loop, not one for each connection; what belongs to a connection is its
/// [`Connection`](Service::Connection) state, which lies inline in the loop's slab. Every call comes on the loop's thread, none is made
/// from within another, and each is given the [`Context`], through which it may do anything to any connection.
///
/// Only [`received`](Service::received) has to be written; the others do what a simple server wants.
#[allow(unused_variables)]
pub trait Service: Sized + 'static {
    /// State kept with each connection. It starts as its default.
    type Connection: Default;
    /// What others may post to this loop through its [`Mailbox`](crate::Mailbox).
    type Message: Send + 'static;
    /// What a timer carries, so that [`expired`](Service::expired) knows what it was for.
    type Timer;

    /// A listener accepted a connection.
    fn accepted(&mut self, cx: &mut Context<Self>, id: ConnectionId, listener: ListenerId, peer: &Address) {}

    /// A connection made with [`Context::connect`] is there, TLS agreed on where it was asked for. One that could not be made is told by
    /// [`closed`](Service::closed) alone, with [`CloseReason::NotConnected`].
    fn connected(&mut self, cx: &mut Context<Self>, id: ConnectionId) {}

    /// Bytes came. `input` holds all that has come and was not taken yet: take what can be used and leave the rest,
    /// which is there again, with more behind it, at the next call. A service that leaves
    /// [`Config::input_bytes_max`](crate::Config::input_bytes_max) bytes untaken gets no more until it takes some, in
    /// a call that it asks for with [`Context::resume`]. What is left when the connection is closed, by this side or because
    /// both sides have ended, is thrown away; [`Context::input_len`] tells how much that would be.
    fn received(&mut self, cx: &mut Context<Self>, id: ConnectionId, input: &mut Input<'_>);

    /// The peer will send no more, though it may still read. Once this side has ended too
    /// ([`Context::half_close`]), the connection is closed. By default the connection is closed, after what
    /// is queued for it has been sent.
    ///
    /// Input that [`received`](Service::received) left untaken is still there: the end is told behind all that has come, not
    /// behind all that was taken. A service that still wants it, as a proxy does whose other side is not there yet, must take
    /// it first, in a call that it asks for with [`Context::resume`], and only then pass the end on.
    /// [`Context::input_len`] tells whether there is any. A connection that is [paused](Context::pause) is not told of
    /// its end, nor shown anything.
    fn ended(&mut self, cx: &mut Context<Self>, id: ConnectionId) {
        cx.finish(id, CloseReason::Ended);
    }

    /// What was queued for the connection is with the kernel, but for
    /// [`Config::output_low_bytes`](crate::Config::output_low_bytes) at most: more can be given.
    fn drained(&mut self, cx: &mut Context<Self>, id: ConnectionId) {}

    /// The deadline set with [`Context::set_deadline`] passed. By default the connection is aborted.
    fn timed_out(&mut self, cx: &mut Context<Self>, id: ConnectionId) {
        cx.abort_because(id, CloseReason::TimedOut);
    }

    /// The connection is gone. Called exactly once for each, and as the last call for it; the id still finds the
    /// slot until the tick's end, but nothing can be sent any more.
    fn closed(&mut self, cx: &mut Context<Self>, id: ConnectionId, state: Self::Connection, reason: CloseReason) {}

    /// A message from the mailbox.
    fn message(&mut self, cx: &mut Context<Self>, message: Self::Message) {}

    /// A timer set with [`Context::set_timer`] or [`Context::set_interval`] ran out.
    fn expired(&mut self, cx: &mut Context<Self>, timer: TimerId, value: Self::Timer) {}

    /// A signal came that was asked for with [`EventLoop::deliver_signals`](crate::EventLoop::deliver_signals).
    fn signalled(&mut self, cx: &mut Context<Self>, signal: i32) {}

    /// Decides what a panic costs. `id` is the connection that the call was for; `None` for a call for no connection, such as
    /// those for messages and timers.
    ///
    /// By default the panic ends the loop: nothing more is called, [`EventLoop::run`](crate::EventLoop::run) and
    /// [`turn`](crate::EventLoop::turn) return [`Error::Panicked`](crate::Error::Panicked), and so does each turn after that.
    /// Connections with output left are reset as the loop is dropped.
    ///
    /// A service that can be sure of its own state keeps the loop by returning `Ok`: only the connection is reset, and
    /// [`closed`](Service::closed) is called for it with [`CloseReason::Panicked`]. What the call had done before stays done.
    /// This suits a parser of another crate, for example, which sees only one peer's bytes.
    ///
    /// A panic outside the calls of this trait, such as one in a `Drop`, does not come here: it unwinds through `turn`, and
    /// each turn after it returns the error.
    fn panicked(&mut self, cx: &mut Context<Self>, id: Option<ConnectionId>, payload: Panic) -> Result<(), Panic> {
        Err(payload)
    }

    /// The end of a tick, before output is flushed: the place to write in batches. Called in every tick.
    fn turned(&mut self, cx: &mut Context<Self>) {}

    /// The loop is going down: listeners are closed, and connections have `limit` to end. By default all are closed
    /// after what is queued for them has been sent. The loop stops as soon as the last one is gone.
    fn draining(&mut self, cx: &mut Context<Self>, limit: Duration) {
        cx.close_all();
    }
}
