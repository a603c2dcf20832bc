//! Hosts of a simulation, partitions between them, and hosts that lose their power.

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

    /// Ends the partition of these two hosts, and no other. What was sent on streams meanwhile
    /// arrives, in order.
    pub fn heal(&self, one: impl Into<IpAddr>, other: impl Into<IpAddr>) {
        self.net(|net| net.heal(one.into(), other.into()));
    }

    /// Cuts the power of a host: it vanishes, and nothing on the network reports that. What is in
    /// transit from and to it is lost, its connections send and receive nothing more, and no
    /// attempt to connect to it is answered. A loop elsewhere learns of it after
    /// [`SocketOptions::silence_max`](crate::SocketOptions::silence_max), or by a time limit of its
    /// own. The loops of the host do not stop by themselves: [`kill`](Self::kill) them. A
    /// simulated disk has a power cut of its own.
    ///
    /// ```
    /// use std::net::IpAddr;
    /// use sealed::sim::Simulation;
    ///
    /// let sim = Simulation::new(1);
    /// let listener = sim.listen("10.0.0.1:80".parse::<sealed::Address>()?)?;
    /// let mut caller = sim.on_host([10, 0, 0, 2]).connect(listener.address());
    /// sim.settle();
    /// let mut called = listener.accept().ok_or("a connection")?;
    ///
    /// sim.power_off([10, 0, 0, 1]);
    /// called.send("unsent");
    /// caller.send("unheard");
    /// assert!(caller.is_silent_for(std::time::Duration::from_secs(10)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn power_off(&self, host: impl Into<IpAddr>) {
        self.net(|net| net.power_off(host.into()));
    }

    /// Gives a host its power back. Loops can be started there again. What arrives for a connection
    /// from before is answered with a reset, once the loop that had it is gone.
    pub fn power_on(&self, host: impl Into<IpAddr>) {
        self.net(|net| net.power_on(host.into()));
    }
}
