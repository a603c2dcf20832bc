//! The interface between an application and a loop: one object that receives all events of its
//! connections.

use std::any::Any;
use std::time::Duration;

use crate::address::Address;
use crate::context::Context;
use crate::datagram::DatagramError;
use crate::error::CloseReason;
use crate::id::{ConnectionId, DatagramId, ListenerId, SourceId, TimerId};
use crate::input::Input;
use crate::source::Ready;

/// The payload of a panic, as [`catch_unwind`](std::panic::catch_unwind) returns it.
pub type Panic = Box<dyn Any + Send>;

/// The application's code on one loop.
///
/// A loop has one service, or [several of different kinds](crate::EventLoop#several-services), not
/// one per connection. Data of a connection belongs in its
/// [`Connection`](Service::Connection) state, which is stored in the table of connections. The loop
/// makes every call on its own thread and never from within another call. Each call gets the
/// [`Context`], through which it may act on any connection.
///
/// Only [`received`](Service::received) has to be implemented; the default implementations of the
/// others suit a simple server.
#[allow(unused_variables)]
pub trait Service: Sized + 'static {
    /// State stored with each connection. An accepted connection starts with the default value;
    /// [`Context::connect`] and [`Context::adopt`] take one.
    type Connection: Default;
    /// The messages that other threads, and other services of the loop, post to this service
    /// through its [`Mailbox`](crate::Mailbox).
    type Message: Send + 'static;
    /// The value that a timer carries, so that [`expired`](Service::expired) can tell what the
    /// timer is for.
    type Timer;

    /// Runs once, in the first tick of the service and before all its other calls. This is the
    /// place to start timers and connections, and to [add](Context::add_service) other services.
    fn started(&mut self, cx: &mut Context<Self>) {}

    /// Handles a connection that a listener accepted. With TLS, this comes before the handshake; if
    /// the handshake fails, [`closed`](Service::closed) follows.
    fn accepted(&mut self, cx: &mut Context<Self>, id: ConnectionId, listener: ListenerId, peer: &Address) {}

    /// Handles a connection that was made with [`Context::connect`], after the TLS handshake if
    /// there is one. If a connection could not be made, the loop calls only
    /// [`closed`](Service::closed), with [`CloseReason::NotConnected`], or with another reason if
    /// this side ended it first.
    fn connected(&mut self, cx: &mut Context<Self>, id: ConnectionId) {}

    /// Handles the end of a TLS handshake that the service started on an existing connection, with
    /// `Context::start_tls_server` or `start_tls_client` of the feature `tls`. If the handshake
    /// fails, the loop calls [`closed`](Service::closed) instead.
    fn secured(&mut self, cx: &mut Context<Self>, id: ConnectionId) {}

    /// Handles received bytes. `input` holds all bytes that have been received and not taken yet.
    /// The service takes what it can use and leaves the rest, which the next call shows again with
    /// any newer bytes after it.
    ///
    /// If a service leaves [`Config::input_bytes_max`](crate::Config::input_bytes_max) bytes
    /// untaken, the loop reads no more until the service takes some of them, in a call that it
    /// requests with [`Context::resume`]. When the connection is closed, by this side or because
    /// both sides have ended, bytes that are still untaken are discarded; [`Context::input_len`]
    /// returns their number.
    fn received(&mut self, cx: &mut Context<Self>, id: ConnectionId, input: &mut Input<'_>);

    /// Handles the end of the peer's output: the peer sends no more bytes but may still read. Once
    /// this side has ended too ([`Context::half_close`]), the connection is closed. By default,
    /// [closes](Context::close) the connection after its queued output has been sent.
    ///
    /// Input that [`received`](Service::received) left untaken is still there: the end follows the
    /// last received byte, not the last taken one. A service that still needs this input, such as a
    /// proxy whose other side is not connected yet, must first take it, in a call that it requests
    /// with [`Context::resume`], and only then pass the end on. [`Context::input_len`] returns the
    /// number of untaken bytes. While a connection is [paused](Context::pause), the loop reports
    /// neither input nor its end.
    fn ended(&mut self, cx: &mut Context<Self>, id: ConnectionId) {
        cx.close(id);
    }

    /// Handles a drained output queue: the kernel has taken the queued output of the connection
    /// except for at most [`Config::output_low_bytes`](crate::Config::output_low_bytes), so the
    /// service can write more. It is called when the queue falls from above the low watermark to it
    /// or below, even if no write returned false. With TLS, up to 64 KiB of encrypted output may
    /// still be unsent. (The method has nothing to do with [`draining`](Service::draining).)
    fn drained(&mut self, cx: &mut Context<Self>, id: ConnectionId) {}

    /// Handles a deadline, set with [`Context::set_deadline`], that has passed. By default, aborts
    /// the connection ([`Context::time_out`]).
    fn timed_out(&mut self, cx: &mut Context<Self>, id: ConnectionId) {
        cx.time_out(id);
    }

    /// Handles the end of a connection. The loop calls this exactly once per connection, as the
    /// last call for it, unless a panic ends the loop or the loop is dropped. The id stays valid
    /// until the end of the tick. The state has been moved into `state`, so [`Context::state`]
    /// returns a default value, and nothing can be sent any more.
    fn closed(&mut self, cx: &mut Context<Self>, id: ConnectionId, state: Self::Connection, reason: CloseReason) {}

    /// Handles a datagram that a socket opened with [`Context::bind_datagram`] has received from
    /// `from`. `bytes` is the whole datagram, which may be empty. By default, ignores it.
    ///
    /// Nothing proves that a UDP datagram comes from the address that it names, so do not answer a
    /// short one with a much longer one. After [`Config::datagrams_per_tick`] datagrams of one
    /// socket, the rest follow in the next tick.
    ///
    /// [`Config::datagrams_per_tick`]: crate::Config::datagrams_per_tick
    fn datagram(&mut self, cx: &mut Context<Self>, socket: DatagramId, from: &Address, bytes: &[u8]) {}

    /// Handles a drained send queue: the kernel has taken all datagrams that waited in the queue of
    /// a socket, so the service can send more. By default, does nothing.
    fn datagrams_drained(&mut self, cx: &mut Context<Self>, socket: DatagramId) {}

    /// Handles a failure of a datagram socket: the peer of a connected socket does not exist, a
    /// queued datagram could not be sent, or a received one was too long. The socket stays open.
    /// By default, ignores the failure.
    fn datagram_failed(&mut self, cx: &mut Context<Self>, socket: DatagramId, error: DatagramError) {}

    /// Handles a message from the mailbox, or from [work](Context::offload) on another thread.
    fn message(&mut self, cx: &mut Context<Self>, message: Self::Message) {}

    /// Handles the expiry of a timer that was set with [`Context::set_timer`] or
    /// [`Context::set_interval`].
    fn expired(&mut self, cx: &mut Context<Self>, timer: TimerId, value: Self::Timer) {}

    /// Handles the readiness of a source: an object with a file descriptor that this service added
    /// with [`Context::add_source`]. The service itself reads from and writes to the object.
    ///
    /// Several events of one tick make one call. Readiness is reported on change: a service that
    /// leaves bytes unread gets no other call for them, unless it requests one with
    /// [`Context::ready_again`]. The documentation of [`Source`](crate::Source) describes the
    /// choices. Calls come after the input of connections has been read.
    fn ready(&mut self, cx: &mut Context<Self>, source: SourceId, ready: Ready) {}

    /// Handles a signal that was requested with
    /// [`EventLoop::deliver_signals`](crate::EventLoop::deliver_signals).
    fn signalled(&mut self, cx: &mut Context<Self>, signal: i32) {}

    /// Decides how far the damage of a panic extends, in a call of the service or in
    /// [work](Context::offload) on another thread. `id` is the connection that the panicking call
    /// or work was for; `None` if it was for no connection, such as a call for a message, a timer
    /// or a source.
    ///
    /// By default the panic ends the loop: the loop makes no further calls, and
    /// [`EventLoop::run`](crate::EventLoop::run) and [`turn`](crate::EventLoop::turn) return
    /// [`Error::Panicked`](crate::Error::Panicked), as does every later `turn`. Connections with
    /// unsent output are reset when the loop is dropped.
    ///
    /// A service that can vouch for its own state keeps the loop running by returning `Ok`: only
    /// the connection is reset, and the loop calls [`closed`](Service::closed) for it with
    /// [`CloseReason::Panicked`]. Effects that the call had before it panicked remain. This suits,
    /// for example, a parser from another crate that sees only the bytes of one peer.
    ///
    /// A panic in a future counts as one of a call, even while the future is dropped. A panic in
    /// the destructor of a message or of work that the loop discards is ignored. Other panics
    /// outside the calls of this trait do not reach this method: such a panic unwinds through
    /// `turn`, and every later `turn` returns the error. In a program that is compiled with `panic
    /// = "abort"`, a panic ends the process.
    ///
    /// # Errors
    ///
    /// Return the payload to end the loop, as the default implementation does.
    fn panicked(&mut self, cx: &mut Context<Self>, id: Option<ConnectionId>, payload: Panic) -> Result<(), Panic> {
        Err(payload)
    }

    /// Runs at the end of every tick, before output is flushed. This is the place to write in
    /// batches.
    fn turned(&mut self, cx: &mut Context<Self>) {}

    /// Handles the start of a shutdown: listeners are closed, and connections have the time `limit`
    /// to end. By default, closes every connection after its queued output has been sent. The loop
    /// stops as soon as the last connection is gone, except those of services that do not
    /// [delay it](crate::Config::delays_shutdown). A closed connection is gone when its peer has
    /// ended too, or after [`Config::linger`](crate::Config::linger), 5 s by default. Datagram
    /// sockets stay open until then but do not keep the loop from stopping.
    fn draining(&mut self, cx: &mut Context<Self>, limit: Duration) {
        cx.close_all();
    }
}
