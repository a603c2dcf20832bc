//! A service that records its datagrams, on the simulated network; tests act through its context.

use std::time::Duration;

use sealed::sim::{LoopId, Simulation};
use sealed::{
    Address, Config, ConnectionId, Context, Datagram, DatagramError, DatagramId, EventLoop, Input, Panic, Service,
};

pub(crate) type Hook = Box<dyn FnMut(&mut Context<Log>, DatagramId, &[u8])>;

/// Records datagrams and failures, and sends back what connections receive.
#[derive(Default)]
pub(crate) struct Log {
    pub(crate) echoes: bool,
    /// Keeps its connections when the loop drains.
    pub(crate) stays: bool,
    pub(crate) hook: Option<Hook>,
    pub(crate) received: Vec<(DatagramId, Address, Vec<u8>)>,
    pub(crate) failures: Vec<DatagramError>,
    /// Number of times that the queue of a socket has drained.
    pub(crate) drained: usize,
    /// Number of datagrams in this tick, and the highest of all ticks.
    pub(crate) in_tick: usize,
    pub(crate) in_tick_max: usize,
}

impl Service for Log {
    type Connection = ();
    type Message = ();
    type Timer = ();

    fn received(&mut self, cx: &mut Context<Self>, id: ConnectionId, input: &mut Input<'_>) {
        cx.write(id, input.take_all());
    }

    fn datagram(&mut self, cx: &mut Context<Self>, socket: DatagramId, from: &Address, bytes: &[u8]) {
        self.in_tick += 1;
        self.received.push((socket, from.clone(), bytes.to_vec()));
        if self.echoes {
            cx.send_to(socket, from, bytes).map(|_| ()).expect("it can be sent");
        }
        if let Some(hook) = &mut self.hook {
            hook(cx, socket, bytes);
        }
    }

    fn datagrams_drained(&mut self, _: &mut Context<Self>, _: DatagramId) {
        self.drained += 1;
    }

    fn datagram_failed(&mut self, _: &mut Context<Self>, _: DatagramId, error: DatagramError) {
        self.failures.push(error);
    }

    fn turned(&mut self, _: &mut Context<Self>) {
        self.in_tick_max = self.in_tick_max.max(self.in_tick);
        self.in_tick = 0;
    }

    fn draining(&mut self, cx: &mut Context<Self>, _: Duration) {
        if !self.stays {
            cx.close_all();
        }
    }

    fn panicked(&mut self, _: &mut Context<Self>, _: Option<ConnectionId>, _: Panic) -> Result<(), Panic> {
        Ok(())
    }
}

pub(crate) struct Node {
    pub(crate) sim: Simulation,
    pub(crate) id: LoopId,
}

impl Node {
    pub(crate) fn start(sim: &Simulation, config: Config, log: Log) -> Self {
        let event_loop = sim.event_loop(config, log).expect("a loop");
        Self { sim: sim.clone(), id: sim.start(event_loop) }
    }

    pub(crate) fn echo(sim: &Simulation) -> Self {
        Self::start(sim, Config::default(), Log { echoes: true, ..Log::default() })
    }

    pub(crate) fn look<R>(&self, look: impl FnOnce(&mut Log, &mut Context<Log>) -> R) -> R {
        let looked = self.sim.with(self.id, |event_loop: &mut EventLoop<Log>| {
            let (log, cx) = event_loop.parts();
            look(log, cx)
        });
        looked.expect("it runs")
    }

    pub(crate) fn act<R>(&self, act: impl FnOnce(&mut Context<Log>) -> R) -> R {
        self.look(|_, cx| act(cx))
    }

    pub(crate) fn bind(&self, datagram: impl Into<Datagram>) -> DatagramId {
        self.act(|cx| cx.bind_datagram(datagram)).expect("it can be opened")
    }

    pub(crate) fn received(&self) -> Vec<Vec<u8>> {
        self.look(|log, _| std::mem::take(&mut log.received)).into_iter().map(|(_, _, bytes)| bytes).collect()
    }

    pub(crate) fn failures(&self) -> Vec<DatagramError> {
        self.look(|log, _| std::mem::take(&mut log.failures))
    }
}

/// The address of the server in most tests.
pub(crate) const SERVER: &str = "10.0.0.1:53";
