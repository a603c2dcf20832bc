//! The limits of one loop.

use std::time::Duration;

use crate::socket::SocketOptions;

/// What one event loop may use. Every field has a default that is safe on the open internet.
#[derive(Debug, Clone)]
pub struct Config {
    /// Connections at a time. At the limit accepting pauses, and the kernel's backlog holds who comes. Default 1,000,000.
    pub connections_max: usize,
    /// Connections the kernel holds for each listener until they are accepted. Default 4,096.
    pub backlog: i32,
    /// Bytes of the buffer that is lent to whoever reads. Default 64 KiB.
    pub read_buffer_bytes: usize,
    /// Bytes read from one connection in one tick, before others have their turn. Default 256 KiB.
    pub read_bytes_per_tick: usize,
    /// Connections taken from one listener in one tick. Default 256.
    pub accepts_per_tick: usize,
    /// Messages taken from the mailbox in one tick. Default 4,096.
    pub messages_per_tick: usize,
    /// Messages that wait in the mailbox; a post beyond them is refused. Default 65,536.
    pub mailbox_messages_max: usize,
    /// Bytes a service may leave untaken in one connection's input; reading pauses there. Default 64 KiB.
    pub input_bytes_max: usize,
    /// Bytes queued for one connection. One that passes it is reset, with
    /// [`CloseReason::OutputFull`](crate::CloseReason::OutputFull). Default 16 MiB.
    pub output_bytes_max: usize,
    /// Bytes queued for one connection from which on writing returns false: it should wait for
    /// [`drained`](crate::Service::drained). Default 256 KiB.
    pub output_high_bytes: usize,
    /// Bytes queued for one connection down to which it has to be sent before
    /// [`drained`](crate::Service::drained) is called. Default 0: all of it.
    pub output_low_bytes: usize,
    /// Sets of buffers kept for reuse. Default 256.
    pub pooled_buffers_max: usize,
    /// Capacity that a pooled buffer may keep. Default 16 KiB.
    pub pooled_buffer_bytes_max: usize,
    /// How long the peer of a closed connection may take nothing of what is queued for it, before it is reset with
    /// [`CloseReason::TimedOut`](crate::CloseReason::TimedOut); and how long, when all has been sent, it may take to close its
    /// side. One connection may have [another](crate::Context::set_linger). Default 5 s.
    pub linger: Duration,
    /// Options of all stream sockets for which no others are given.
    pub socket: SocketOptions,
    /// How long a TLS handshake with who connected may take; it is aborted then. Default 10 s.
    pub handshake_limit: Duration,
    /// How long to wait before accepting again where descriptors ran out and none was freed here. Default 100 ms.
    pub accept_retry: Duration,
    /// How long a shutdown may take; what is left then is aborted, and reset where output is left. Default 10 s.
    pub drain_limit: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            connections_max: 1_000_000,
            backlog: 4096,
            read_buffer_bytes: 64 * 1024,
            read_bytes_per_tick: 256 * 1024,
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
        }
    }
}
