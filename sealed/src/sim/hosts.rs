//! Hosts of a simulation, and partitions between them.

use std::net::IpAddr;

use super::Simulation;

impl Simulation {
    /// Returns this simulation as seen from another host: the loops, pools and peers that are
    /// created with it connect from that address. Otherwise the host is 127.0.0.1. This concerns
    /// outgoing connections only: listeners and datagram sockets are on the host whose address they
    /// are bound to, whichever loop they belong to.
    ///
    /// ```
    /// use std::net::IpAddr;
    /// use sealed::sim::Simulation;
    ///
    /// let sim = Simulation::new(1);
    /// let (server, client) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
    /// let listener = sim.listen("10.0.0.1:80".parse::<sealed::Address>()?)?;
    /// let mut caller = sim.on_host(client).connect(listener.address());
    /// sim.settle();
    /// let mut called = listener.accept().ok_or("a connection")?;
    ///
    /// sim.partition(server, client);
    /// caller.send("hello");
    /// sim.settle();
    /// assert_eq!(called.take(), b"");
    /// sim.heal(server, client);
    /// called.expect("hello");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn on_host(&self, host: impl Into<IpAddr>) -> Self {
        Self { host: host.into(), ..self.clone() }
    }

    /// Cuts two hosts off from each other, until [`heal`](Self::heal). What is sent on streams
    /// waits, as do attempts to connect; datagrams are lost. If the partition lasts longer than
    /// [`SocketOptions::silence_max`](crate::SocketOptions::silence_max), the connections that
    /// loops have with this option fail. [`Peer`](super::Peer)s have no such limit: they learn that
    /// the loop's side is gone when the partition ends.
    pub fn partition(&self, one: impl Into<IpAddr>, other: impl Into<IpAddr>) {
        self.net(|net| net.partition(one.into(), other.into()));
    }

    /// Ends a partition. What was sent on streams meanwhile arrives, in order.
    pub fn heal(&self, one: impl Into<IpAddr>, other: impl Into<IpAddr>) {
        self.net(|net| net.heal(one.into(), other.into()));
    }
}
