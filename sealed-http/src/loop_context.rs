//! What a handler has of the loop itself: of [`sealed::Context`], all that HTTP does not change, or changes a little.

use std::time::Duration;

use bytes::Bytes;
#[cfg(feature = "tls")]
use sealed::tls;
use sealed::{
    Address, Config, Connect, ConnectionId, GroupId, Listen, ListenerId, ListeningSocket, Rates, Socket, Stats,
    Stopper, TimerId, Watch,
};

use crate::connection::{Connection, Marks, Phase};
use crate::handler::Handler;
use crate::http::Http;
use crate::server::Due;

/// Timers and deadlines.
impl<H: Handler> Http<'_, H> {
    /// Lets a timer run out this long after now instead: [`sealed::Context::move_timer`].
    pub fn move_timer(&mut self, timer: TimerId, delay: Duration) -> bool {
        self.cx.move_timer(timer, delay)
    }

    /// Cancels a timer and hands its value back: [`sealed::Context::cancel_timer`].
    pub fn cancel_timer(&mut self, timer: TimerId) -> Option<H::Timer> {
        match self.cx.cancel_timer(timer)?.0 {
            Due::Handler(value) => Some(value),
            Due::Fetch(..) => None,
        }
    }

    /// Returns how many timers are set, the limits of [fetches](Self::fetch) among them.
    pub fn timers(&self) -> usize {
        self.cx.timers()
    }

    /// Takes the deadline of an exchange away, where [`set_deadline`](Self::set_deadline) could set one.
    pub fn clear_deadline(&mut self, id: ConnectionId) {
        if self.has_own_deadline(id) {
            self.cx.clear_deadline(id);
        }
    }

    /// Lets the handler have a message from itself: [`sealed::Context::defer`].
    pub fn defer(&mut self, message: H::Message) {
        self.cx.defer(message);
    }
}

/// Connections.
impl<H: Handler> Http<'_, H> {
    /// Returns whether the connection is there and not closed by this side.
    pub fn is_open(&self, id: ConnectionId) -> bool {
        self.cx.is_open(id)
    }

    /// Returns whether a connection is paused.
    pub fn is_paused(&self, id: ConnectionId) -> bool {
        self.cx.is_paused(id)
    }

    /// Returns whether a connection takes more, as [`write`](Self::write) would tell.
    pub fn has_room(&self, id: ConnectionId) -> bool {
        self.cx.has_room(id)
    }

    /// Returns how many bytes were received from a connection and not taken yet: [`sealed::Context::input_len`]. Pipelined
    /// requests are among them.
    pub fn input_len(&self, id: ConnectionId) -> usize {
        self.cx.input_len(id)
    }

    /// Queues shared bytes of a stream, or of another protocol, without copying them; otherwise as [`write`](Self::write).
    pub fn write_bytes(&mut self, id: ConnectionId, bytes: Bytes) -> bool {
        match self.cx.state(id) {
            Some(held) if held.phase == Phase::Raw => self.cx.write_bytes(id, bytes),
            Some(held) if held.phase == Phase::Streaming && held.marks.has(Marks::OLD) => {
                self.cx.write_bytes(id, bytes)
            }
            Some(held) if held.phase == Phase::Streaming && !bytes.is_empty() => {
                self.cx.write(id, format!("{:x}\r\n", bytes.len()).as_bytes());
                self.cx.write_bytes(id, bytes);
                self.cx.write(id, b"\r\n")
            }
            Some(held) if held.phase == Phase::Streaming => self.cx.has_room(id),
            _ => false,
        }
    }

    /// Closes a connection at once, and lets its peer see that it failed: [`sealed::Context::reset`].
    pub fn reset(&mut self, id: ConnectionId) {
        self.cx.reset(id);
    }

    /// Closes all connections, each after what is queued for it has been sent.
    pub fn close_all(&mut self) {
        self.cx.close_all();
    }

    /// Sets how long the peer of this connection may take nothing once it is closed: [`sealed::Context::set_linger`].
    pub fn set_linger(&mut self, id: ConnectionId, linger: Duration) {
        self.cx.set_linger(id, linger);
    }

    /// Returns where the other end of a connection is. Asks the system.
    pub fn peer_addr(&self, id: ConnectionId) -> Option<Address> {
        self.cx.peer_addr(id)
    }

    /// Returns where this end of a connection is. Asks the system.
    pub fn local_addr(&self, id: ConnectionId) -> Option<Address> {
        self.cx.local_addr(id)
    }

    /// Returns what TLS agreed on: `None` before that, and for a connection without TLS.
    #[cfg(feature = "tls")]
    pub fn tls(&self, id: ConnectionId) -> Option<tls::Agreed> {
        self.cx.tls(id)
    }

    /// Starts a connection that speaks another protocol than HTTP, as one that was [switched](Self::upgrade): the outcome is
    /// told by [`Handler::connected`] or [`Handler::closed`], and what comes by [`Handler::raw`]. Requests are sent with
    /// [`fetch`](Self::fetch).
    pub fn connect(&mut self, connect: impl Into<Connect>, state: H::Connection) -> sealed::Result<ConnectionId> {
        self.cx.connect(connect, Connection::raw(state))
    }

    /// Takes over a connection that was made elsewhere, as though it had been accepted: requests are awaited on it.
    pub fn adopt(&mut self, socket: impl Into<Socket>, state: H::Connection) -> sealed::Result<ConnectionId> {
        let id = self.cx.adopt(socket, Connection::with(state))?;
        self.cx.set_deadline(id, self.shared.settings.request_timeout);
        Ok(id)
    }
}

/// Listeners.
impl<H: Handler> Http<'_, H> {
    /// Listens on an address: [`sealed::Context::listen`].
    pub fn listen(&mut self, listen: impl Into<Listen>) -> sealed::Result<ListenerId> {
        self.cx.listen(listen)
    }

    /// Listens on a socket that listens already: [`sealed::Context::adopt_listener`].
    pub fn adopt_listener(&mut self, socket: impl Into<ListeningSocket>, how: Listen) -> sealed::Result<ListenerId> {
        self.cx.adopt_listener(socket, how)
    }

    /// Returns the address of a listener: `None` once the loop is going down.
    pub fn listen_addr(&self, listener: ListenerId) -> Option<Address> {
        self.cx.listen_addr(listener)
    }

    /// Returns the listener that accepted a connection: `None` for one that was made or adopted.
    pub fn listener(&self, id: ConnectionId) -> Option<ListenerId> {
        self.cx.listener(id)
    }

    /// Returns how many connections of a listener there are.
    pub fn connections_of(&self, listener: ListenerId) -> usize {
        self.cx.connections_of(listener)
    }
}

/// Rates.
impl<H: Handler> Http<'_, H> {
    /// Holds a connection to these rates: [`sealed::Context::set_rates`].
    pub fn set_rates(&mut self, id: ConnectionId, rates: Rates) {
        self.cx.set_rates(id, rates);
    }

    /// Makes a group whose connections share these rates: [`sealed::Context::add_group`].
    pub fn add_group(&mut self, rates: Rates) -> GroupId {
        self.cx.add_group(rates)
    }

    /// Frees a group: [`sealed::Context::remove_group`].
    pub fn remove_group(&mut self, group: GroupId) -> bool {
        self.cx.remove_group(group)
    }

    /// Returns how many connections a group has.
    pub fn members(&mut self, group: GroupId) -> usize {
        self.cx.members(group)
    }

    /// Holds a group to other rates.
    pub fn set_group_rates(&mut self, group: GroupId, rates: Rates) {
        self.cx.set_group_rates(group, rates);
    }

    /// Puts a connection into a group, or takes it out of the one it is in.
    pub fn set_group(&mut self, id: ConnectionId, group: Option<GroupId>) {
        self.cx.set_group(id, group);
    }
}

/// The loop.
impl<H: Handler> Http<'_, H> {
    /// Returns the loop's limits.
    pub fn config(&self) -> &Config {
        self.cx.config()
    }

    /// Returns what the loop has done so far.
    pub fn stats(&self) -> Stats {
        self.cx.stats()
    }

    /// Returns the loop's counts, to be read from any thread.
    pub fn watch(&self) -> Watch {
        self.cx.watch()
    }

    /// Returns what stops this loop, from any thread.
    pub fn stopper(&self) -> Stopper {
        self.cx.stopper()
    }
}
