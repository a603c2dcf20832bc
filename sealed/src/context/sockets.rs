//! Creates connections: by listening, by connecting, and by taking over existing sockets.

use std::io;

use super::{Accepting, Context};
use crate::address::Address;
use crate::context::Due;
use crate::error::{Error, Result};
use crate::id::{ConnectionId, ListenerId};
use crate::mailbox::Worked;
use crate::net::{Listener, Stream};
use crate::service::Service;
use crate::slot::{Flags, NO_LISTENER};
use crate::socket::{Bound, Connect, Listen, ListeningSocket, Socket};
use crate::token::Registered;
use crate::workers::WorkError;

/// Listening, connecting, and sockets that were created elsewhere.
impl<S: Service> Context<S> {
    /// Listens on an address. With port 0 the system chooses a port. The listener stays open until
    /// the loop shuts down.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Listen`] if the address cannot be resolved, bound or listened on, if the
    /// loop is [shutting down](Self::is_draining), or if the service already has 65,535 listeners.
    pub fn listen(&mut self, listen: impl Into<Listen>) -> Result<Bound> {
        let listen = listen.into();
        let own = listen.socket.clone().filter(|_| !fault!("listener-options-ignored"));
        let options = own.unwrap_or_else(|| self.config.socket.clone());
        let backlog = listen.backlog.unwrap_or(self.config.backlog);
        let bound = listen.at.clone().find(|address| self.network.bind(&address, listen.reuse_port, backlog, &options));
        let added = bound.and_then(|listener| self.add_bound(listener, &listen));
        added.map_err(|source| Error::Listen { address: listen.at.name, source })
    }

    /// Listens on a socket that is already listening, such as one passed by socket activation.
    /// `how` holds the settings of the connections; its address serves only as the name of the
    /// socket in errors, and its backlog and `reuse_port` have no effect.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Listen`] if the socket cannot be taken over, or if the loop is [shutting
    /// down](Self::is_draining).
    pub fn adopt_listener(&mut self, socket: impl Into<ListeningSocket>, how: Listen) -> Result<Bound> {
        let options = how.socket.clone().unwrap_or_else(|| self.config.socket.clone());
        let adopted = self.network.adopt_listener(socket.into(), &options);
        let added = adopted.and_then(|listener| self.add_bound(listener, &how));
        added.map_err(|source| Error::Listen { address: how.at.name, source })
    }

    /// Returns the address of a listener. Returns `None` once the loop is shutting down, and on a
    /// loop of a pool for which another loop accepts; [`Pool::listeners`](crate::Pool::listeners)
    /// has the addresses of a pool.
    pub fn listen_addr(&self, listener: ListenerId) -> Option<Address> {
        self.listeners.get(listener.index())?.local_addr().ok()
    }

    /// Returns the number of connections of a listener.
    pub fn connections_of(&self, listener: ListenerId) -> usize {
        self.listeners.get(listener.index()).map_or(0, |held| held.connections)
    }

    /// Starts a connection, with its own state. The outcome is reported later, exactly once, by
    /// [`connected`](Service::connected) or [`closed`](Service::closed). Output that is written
    /// before is sent once the connection is made.
    ///
    /// ```
    /// use sealed::{Connect, ConnectionId, Context, Service};
    ///
    /// fn greet<S: Service<Connection = ()>>(cx: &mut Context<S>) -> sealed::Result<ConnectionId> {
    ///     let id = cx.connect(Connect::to(("127.0.0.1", 7777)), ())?;
    ///     cx.write(id, b"hello\n");
    ///     Ok(id)
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// Returns [`Error::Connect`] if a name that was passed as an address cannot be resolved, if no
    /// attempt could even be started, if the service has
    /// [`Config::connections_max`](crate::Config::connections_max) connections, or if the
    /// [drain limit](crate::Config::drain_limit) of the loop has passed. The service gets no call
    /// for the connection then.
    pub fn connect(&mut self, connect: impl Into<Connect>, state: S::Connection) -> Result<ConnectionId> {
        let mut connect = connect.into();
        let address = connect.to.name.clone();
        let known = match &connect.lookup {
            None => Some(connect.to.take()),
            Some(lookup) => lookup.known(),
        };
        let started = match known {
            Some(addresses) => addresses.and_then(|addresses| self.start_dial(addresses, connect, state)),
            None => self.start_lookup(connect, state),
        };
        started.map_err(|source| Error::Connect { address, source })
    }

    /// Checks that the service may have another connection.
    fn check_room(&self) -> io::Result<()> {
        if self.connections.len() >= self.config.connections_max {
            return Err(io::Error::other("the loop is at connections_max"));
        }
        // A service that reconnects would keep the loop from ending.
        if self.draining_until.is_some_and(|limit| limit <= self.now) && !fault!("connects-past-drain-limit") {
            return Err(io::Error::other("the drain limit of the loop has passed"));
        }
        Ok(())
    }

    fn start_dial(
        &mut self,
        addresses: Vec<Address>,
        connect: Connect,
        state: S::Connection,
    ) -> io::Result<ConnectionId> {
        self.begin_dial(addresses, connect, state, |cx, id| cx.dial_next(id.slot))
    }

    /// Starts the lookup of the name to connect to.
    fn start_lookup(&mut self, connect: Connect, state: S::Connection) -> io::Result<ConnectionId> {
        let lookup = connect.lookup.clone().ok_or(io::ErrorKind::InvalidInput)?;
        self.begin_dial(Vec::new(), connect, state, |cx, id| {
            let mailbox = cx.inlet.mailbox().clone();
            let waiter = Box::new(move |outcome| mailbox.send_result(Worked::Resolved(id, outcome)));
            lookup.resolver.look_up(&lookup.host, waiter).map_err(|error| match error {
                WorkError::Full => io::Error::new(io::ErrorKind::WouldBlock, error),
                error => io::Error::other(error),
            })
        })
    }

    /// Records a connection that is being made, and makes the first step.
    fn begin_dial(
        &mut self,
        addresses: Vec<Address>,
        connect: Connect,
        state: S::Connection,
        start: impl FnOnce(&mut Self, ConnectionId) -> io::Result<()>,
    ) -> io::Result<ConnectionId> {
        self.check_room()?;
        let limit = connect.limit;
        let id = self.insert(Stream::Unconnected, Flags::CONNECTING, state);
        self.dials.begin(id, addresses, connect);
        if let Err(error) = start(self, id) {
            self.dials.end(id.slot);
            self.connections.remove(id.slot);
            if !fault!("untried-stays-counted") {
                self.counters.connections.set(self.connections.len() as u64);
            }
            return Err(error);
        }
        let timer = self.set_due(limit, Due::Limit(id));
        if let Some(dial) = self.dials.find(id.slot) {
            dial.limit = Some(timer);
        }
        Ok(id)
    }

    /// Takes over a connected socket that was created elsewhere, with its own state: an end of a
    /// socket pair, for example, or a socket that another program passed on. The socket gets the
    /// options of [`Config::socket`](crate::Config::socket).
    ///
    /// ```
    /// use std::net::TcpStream;
    /// use sealed::{Context, ConnectionId, Service};
    ///
    /// fn take_over<S: Service<Connection = ()>>(cx: &mut Context<S>, stream: TcpStream) -> sealed::Result<ConnectionId> {
    ///     cx.adopt(stream, ())
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// Returns [`Error::Adopt`] if the socket cannot be registered or configured, if the service
    /// has [`Config::connections_max`](crate::Config::connections_max) connections, or if the
    /// [drain limit](crate::Config::drain_limit) of the loop has passed.
    pub fn adopt(&mut self, socket: impl Into<Socket>, state: S::Connection) -> Result<ConnectionId> {
        self.check_room().map_err(Error::Adopt)?;
        let adopted = self.network.adopt(socket.into(), &self.config.socket);
        adopted.and_then(|stream| self.insert_connected(stream, state)).map_err(Error::Adopt)
    }

    /// Starts an attempt with the next usable address, and sets the timer for the address after it.
    /// Returns an error if there is no usable address and no other attempt is in progress.
    pub(crate) fn dial_next(&mut self, slot: u32) -> io::Result<()> {
        loop {
            let Some(dial) = self.dials.find(slot) else { return Ok(()) };
            if let Some(timer) = dial.next.take() {
                self.timers.cancel(timer);
            }
            let Some(dial) = self.dials.find(slot) else { return Ok(()) };
            let Some(address) = dial.next_address() else {
                return if dial.is_under_way() { Ok(()) } else { Err(dial.failure.into()) };
            };
            let options = dial.connect.socket.as_ref().unwrap_or(&self.config.socket);
            let (id, stagger, has_more) = (dial.id, dial.connect.stagger, dial.has_more());
            let started = self.network.connect(&address, options);
            let attempt = Registered::Attempt(self.dials.next_attempt());
            let started = started.and_then(|mut stream| {
                self.registry.add_stream(&mut stream, attempt)?;
                Ok(stream)
            });
            match started {
                Ok(stream) => {
                    self.dials.add(slot, stream);
                    if has_more {
                        let timer = self.set_due(stagger, Due::Dial(id));
                        if let Some(dial) = self.dials.find(slot) {
                            dial.next = Some(timer);
                        }
                    }
                    return Ok(());
                }
                Err(error) => {
                    if let Some(dial) = self.dials.find(slot) {
                        dial.failure = error.kind();
                    }
                }
            }
        }
    }

    /// Gives up on a connection that has not been made.
    pub(crate) fn end_dial(&mut self, slot: u32) {
        let Some(dial) = self.dials.end(slot) else { return };
        for timer in dial.limit.into_iter().chain(dial.next) {
            self.timers.cancel(timer);
        }
    }

    fn add_bound(&mut self, listener: Listener, how: &Listen) -> io::Result<Bound> {
        let address = listener.local_addr()?;
        Ok(Bound { listener: self.add_listener(Some(listener), how)?, address })
    }

    /// Adds a listener, or, with `None`, its number only, if another loop accepts for this one.
    pub(crate) fn add_listener(&mut self, mut listener: Option<Listener>, listen: &Listen) -> io::Result<ListenerId> {
        let index = self.listeners.len();
        if index >= usize::from(NO_LISTENER) {
            return Err(io::Error::other("a service has at most 65,535 listeners"));
        }
        // A listener would go on after the drain limit.
        if self.is_draining() && !fault!("listens-while-draining") {
            return Err(io::Error::other("the loop is shutting down"));
        }
        if let Some(listener) = &mut listener {
            self.registry.add_listener(listener, index)?;
        }
        self.listeners.push(Accepting {
            ready: listener.is_some(),
            after: None,
            listener,
            connections: 0,
            connections_max: listen.connections_max,
            for_all: false,
            socket: listen.socket.clone().unwrap_or_else(|| self.config.socket.clone()),
            tls: listen.tls.clone(),
        });
        Ok(ListenerId(index as u32))
    }
}
