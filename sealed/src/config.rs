//! The limits of one service.

use std::time::Duration;

use crate::socket::SocketOptions;

/// Limits of one service of an event loop.
///
/// Multiply the limits of one connection by [`connections_max`](Self::connections_max) to see what
/// all connections together may use. There is no idle limit: a service sets deadlines.
///
/// Take the fields that you do not set from [`Default`], as in
/// `Config { backlog: 64, ..Config::default() }`: a minor version may add fields.
#[derive(Debug, Clone)]
pub struct Config {
    /// Maximum number of connections at a time. At the limit the loop stops accepting, and new
    /// connections wait in the kernel's backlog. Default 1,000,000.
    pub connections_max: usize,
    /// Maximum number of connections that the kernel holds for each listener until they are
    /// accepted (the backlog). Default 4,096.
    pub backlog: i32,
    /// Bytes of the buffer that the loop lends to the connection it is reading; 0 counts as 1.
    /// [`Context::share`](crate::Context::share) copies nothing if reads fill the buffer at least
    /// half, so a larger buffer can mean more copying. Default 64 KiB.
    pub read_buffer_bytes: usize,
    /// Maximum bytes read from one connection in one tick before other connections get their turn;
    /// 0 counts as 1. Default 256 KiB.
    pub read_bytes_per_tick: usize,
    /// Maximum number of datagrams received from one datagram socket in one tick before other
    /// sockets get their turn; 0 counts as 1. Default 256.
    pub datagrams_per_tick: usize,
    /// Maximum number of connections accepted from one listener in one tick; 0 counts as 1. Default
    /// 256.
    pub accepts_per_tick: usize,
    /// Maximum number of messages taken from the mailbox in one tick; 0 counts as 1. Default 4,096.
    pub messages_per_tick: usize,
    /// Maximum number of messages that wait in the mailbox; further posts are refused. Default
    /// 65,536.
    pub mailbox_messages_max: usize,
    /// Bytes that a service may leave untaken in the input of one connection; at this limit the
    /// loop stops reading from the connection. 0 counts as 1. Default 64 KiB.
    pub input_bytes_max: usize,
    /// Maximum bytes queued for one connection. A write that would exceed this limit resets the
    /// connection with [`CloseReason::OutputFull`](crate::CloseReason::OutputFull). Default 16 MiB.
    pub output_bytes_max: usize,
    /// High watermark of the output queue of one connection: with this many bytes queued or more,
    /// writes return false, and the service should wait for [`drained`](crate::Service::drained).
    /// Default 256 KiB.
    pub output_high_bytes: usize,
    /// Low watermark of the output queue of one connection: as soon as at most this many bytes are
    /// left, [`drained`](crate::Service::drained) is called. Values from the high watermark on
    /// count as one byte less than that. Default 0: all bytes have to be sent.
    pub output_low_bytes: usize,
    /// Maximum number of buffer sets kept for reuse. Default 256.
    pub pooled_buffers_max: usize,
    /// Capacity in bytes that a pooled buffer may keep. Default 16 KiB.
    pub pooled_buffer_bytes_max: usize,
    /// The linger time: after a connection is closed, how long its peer may go without taking
    /// queued output before it is reset with
    /// [`CloseReason::TimedOut`](crate::CloseReason::TimedOut), and then how long the peer has to
    /// end its side. [`Context::set_linger`](crate::Context::set_linger) overrides it for one
    /// connection. Default 5 s.
    pub linger: Duration,
    /// Options of all stream sockets that have no options of their own.
    pub socket: SocketOptions,
    /// Time limit for the TLS handshake of an accepted connection, and for one that is started on a
    /// connection that already exists; at this limit the connection ends with
    /// [`CloseReason::TimedOut`](crate::CloseReason::TimedOut). Default 10 s.
    pub handshake_limit: Duration,
    /// Time to wait before accepting again after the process ran out of file descriptors, unless
    /// this loop frees one earlier. Default 100 ms.
    pub accept_retry: Duration,
    /// Time limit for a shutdown. Connections left at this limit are aborted; those with unsent
    /// output are reset. Default 10 s.
    pub drain_limit: Duration,
    /// Whether a loop that is shutting down waits for the connections of this service to end. If
    /// not, they are open until those of all other services have ended, and are then dropped with
    /// the loop: this suits a connection that the other services work with, such as one to a
    /// database. Default true.
    pub delays_shutdown: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            connections_max: 1_000_000,
            backlog: 4096,
            read_buffer_bytes: 64 * 1024,
            read_bytes_per_tick: 256 * 1024,
            datagrams_per_tick: 256,
            accepts_per_tick: 256,
            messages_per_tick: 4096,
            mailbox_messages_max: 65_536,
            input_bytes_max: 64 * 1024,
            output_bytes_max: 16 * 1024 * 1024,
            output_high_bytes: 256 * 1024,
            output_low_bytes: 0,
            pooled_buffers_max: 256,
            pooled_buffer_bytes_max: 16 * 1024,
            linger: Duration::from_secs(5),
            socket: SocketOptions::default(),
            handshake_limit: Duration::from_secs(10),
            accept_retry: Duration::from_millis(100),
            drain_limit: Duration::from_secs(10),
            delays_shutdown: true,
        }
    }
}
