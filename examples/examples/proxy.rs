//! A TCP proxy: outgoing connections, and backpressure passed on from each side to the other.
//!
//! Try it: `cargo run -p examples --example proxy -- 127.0.0.1:7777 localhost:8000`, then use port
//! 7777 as you would use port 8000. The name is looked up for each connection, and the loop does
//! not wait for it.

use std::time::Duration;

use sealed::{
    Address, CloseReason, Config, Connect, ConnectionId, Context, EventLoop, Input, ListenerId, Resolver,
    ResolverConfig, Service, TimerId, Workers,
};

/// The time for which a side may accept none of the output that is left after the other side has
/// gone.
const LINGER: Duration = Duration::from_secs(60);

pub(crate) struct Proxy {
    pub(crate) target: Connect,
}

impl Service for Proxy {
    /// The connection on the other side. The default identifies no connection.
    type Connection = ConnectionId;
    type Message = ();
    type Timer = ();

    fn accepted(&mut self, cx: &mut Context<Self>, id: ConnectionId, _: ListenerId, _: &Address) {
        match cx.connect(self.target.clone(), id) {
            Ok(other) => {
                cx.set_linger(id, LINGER);
                cx.set_linger(other, LINGER);
                if let Some(state) = cx.state_mut(id) {
                    *state = other;
                }
            }
            Err(_) => cx.abort(id),
        }
    }

    fn received(&mut self, cx: &mut Context<Self>, id: ConnectionId, input: &mut Input<'_>) {
        let Some(other) = cx.state(id).copied() else { return };
        // Output that is written before the connection is made waits for it.
        if !cx.write(other, input.take_all()) {
            cx.pause(id);
        }
    }

    fn drained(&mut self, cx: &mut Context<Self>, id: ConnectionId) {
        if let Some(other) = cx.state(id).copied() {
            cx.resume(other);
        }
    }

    fn ended(&mut self, cx: &mut Context<Self>, id: ConnectionId) {
        // The other direction may continue for a long time.
        if let Some(other) = cx.state(id).copied() {
            cx.half_close(other);
        }
    }

    fn draining(&mut self, cx: &mut Context<Self>, limit: Duration) {
        // Tunnels may come to their end. Closing one in the middle would look like the end of its
        // data.
        cx.set_timer(limit / 10 * 9, ());
    }

    fn expired(&mut self, cx: &mut Context<Self>, _: TimerId, (): ()) {
        for id in cx.connection_ids() {
            cx.reset(id);
        }
    }

    fn closed(&mut self, cx: &mut Context<Self>, _: ConnectionId, other: ConnectionId, reason: CloseReason) {
        match reason {
            CloseReason::Closed | CloseReason::Ended => cx.close(other),
            // The reset shows the other side that its data is incomplete.
            _ => cx.reset(other),
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:7777".to_owned());
    let target = arguments.next().unwrap_or_else(|| "localhost:8000".to_owned());
    let (host, port) = target.rsplit_once(':').ok_or("the target needs a port")?;
    let resolver = Resolver::new(&Workers::new(4, 1_000), ResolverConfig::default());
    let target = Connect::by_name(&resolver, host, port.parse()?);
    let mut event_loop = EventLoop::new(Config::default(), Proxy { target })?;
    println!("listening on {}", event_loop.listen(address)?.address);
    event_loop.stop_on_signals()?;
    Ok(event_loop.run()?)
}
