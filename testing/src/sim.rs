//! Requests on a simulated network, and servers there that answer them.

use std::marker::PhantomData;

use sealed::sim::{LoopId, Peer, Simulation};
use sealed::{Address, Config, EventLoop, Stopper};
use sealed_http::{Handler, Http, Server, Settings};

use crate::http::{Reply, request};

/// Sends a request, as [`request`] makes it, on a peer. Lets the simulation settle, and returns the
/// answer as far as it has arrived. Panics if no answer has begun.
pub fn ask(sim: &Simulation, peer: &mut Peer, method: &str, target: &str, fields: &str, body: &str) -> Reply {
    peer.send(request(method, target, fields, body));
    sim.settle();
    Reply::decode(method, &peer.take())
}

/// A handler that is served by a loop on a simulated network of its own.
#[derive(Debug)]
pub struct Served<H> {
    /// The network.
    pub sim: Simulation,
    /// The address of the loop.
    pub address: Address,
    /// The stopper of the loop.
    pub stopper: Stopper,
    /// The loop.
    pub id: LoopId,
    handler: PhantomData<fn() -> H>,
}

impl<H: Handler> Served<H> {
    /// Serves a handler on a network with this seed.
    pub fn new(seed: u64, config: Config, settings: Settings, handler: H) -> Self {
        Self::on(&Simulation::new(seed), config, settings, handler)
    }

    /// Serves a handler on this network.
    pub fn on(sim: &Simulation, config: Config, settings: Settings, handler: H) -> Self {
        let sim = sim.clone();
        let mut event_loop = sim.event_loop(config, Server::new(settings, handler)).expect("a loop");
        let address = event_loop.listen("10.0.0.1:80").expect("an address").address;
        let stopper = event_loop.stopper();
        let id = sim.start(event_loop);
        Self { sim, address, stopper, id, handler: PhantomData }
    }

    /// Connects a client.
    pub fn connect(&self) -> Peer {
        self.sim.connect(&self.address)
    }

    /// Calls `act` with the handler and its context between two ticks. Panics if the loop has
    /// ended.
    pub fn act<R>(&self, act: impl FnOnce(&mut H, &mut Http<'_, H>) -> R) -> R {
        let acted = self.sim.with(self.id, |event_loop: &mut EventLoop<Server<H>>| {
            let (server, cx) = event_loop.parts();
            let (handler, mut http) = server.parts(cx);
            act(handler, &mut http)
        });
        acted.expect("it runs")
    }
}
