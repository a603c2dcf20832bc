//! What a server takes of memory, held against what it says that it holds; and what a tick takes, held against a number.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ccomet::{Holdings, Simulated};
use sealed::sim::Simulation;

/// The most bytes that a tick may take from the heap, ticks that interrupted it included: whatever is to be done, it is spread.
/// About a KiB for each unit of work that a home allows itself, when a store comes back for which messages to many channels waited.
pub const TICK_BYTES_MAX: u64 = 8 << 20;

/// The most units of work of a tick, that is, channels and kept messages that are looked at or reached: what a home allows itself, and
/// a last step.
pub const TICK_UNITS_MAX: usize = 10_000;

/// What a loop takes that has nothing to do: what it reads into, and tables that do not shrink below a size.
const LOOP_BYTES: usize = 176 << 10;

/// What each takes beside what is counted in bytes: its state, and what has come of a request.
const CONNECTION_BYTES: usize = 8 << 10;
const SUBSCRIBER_BYTES: usize = 1 << 10;
const CHANNEL_BYTES: usize = 2 << 10;
const CHANNEL_PLACE_BYTES: usize = 200;
const ASKING_BYTES: usize = 8 << 10;
const PLACE_BYTES: usize = 100;
const SHARED_PLACE_BYTES: usize = 24;
const WAITING_CHANGE_BYTES: usize = 400;
const STORED_CHANNEL_BYTES: usize = 600;

/// What the simulated network may take meanwhile to tell clients that their connections are over.
const NETWORK_BYTES: usize = 256 << 10;

/// Kills a server, and sees what it has given back: no more than it said that it holds, and no less than the bytes of
/// that which it counted as they are. Where subscribers may be slow, so much may be queued for each.
pub fn kill(server: Simulated, loops: usize, queued_bytes_max: usize) {
    let held = server.holdings();
    let freed = -allocation_counter::measure(|| server.kill()).bytes_current;
    let most = allowance(&held, loops) + held.subscribers * queued_bytes_max;
    // What a message takes beside its payload is a rough number.
    let counted = (held.message_bytes + held.encoded_bytes + held.pooled_bytes) / 4 * 3;
    let least = counted.saturating_sub(NETWORK_BYTES);
    let [least, most] = [least, most].map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
    assert!(freed <= most, "it took {freed} bytes, of {most} by its own accounts: {held:?}");
    assert!(least == 0 || freed >= least, "it took {freed} bytes, and counts {least} at least: {held:?}");
}

/// Lets a server go down that has nothing left to do, and sees that it gives back no more than one takes that holds
/// nothing.
pub fn rest(held: &Holdings, loops: usize, stop: impl FnOnce()) {
    let freed = -allocation_counter::measure(stop).bytes_current;
    let most = i64::try_from(allowance(held, loops)).unwrap_or(i64::MAX);
    assert!(freed <= most, "at rest, it took {freed} bytes, of {most} by its own accounts: {held:?}");
}

/// What a server may take that holds so much, over so many loops.
fn allowance(held: &Holdings, loops: usize) -> usize {
    loops * LOOP_BYTES
        + held.connections * CONNECTION_BYTES
        + (held.subscribers + held.claims + held.leases + held.names) * SUBSCRIBER_BYTES
        + (held.channels + held.attached_channels) * CHANNEL_BYTES
        + held.asking * ASKING_BYTES
        + held.copied_messages * PLACE_BYTES
        + held.shared_places * SHARED_PLACE_BYTES
        + held.waiting_changes * WAITING_CHANGE_BYTES
        + held.message_bytes
        + held.stored_channels * STORED_CHANNEL_BYTES
        + held.stored_messages * PLACE_BYTES
        + held.stored_bytes
        + held.delivery_bytes
        + held.channel_places * CHANNEL_PLACE_BYTES
        + held.encoded_bytes
        + held.pooled_bytes
}

/// The whole trace is kept, which takes more at times than a tick may.
pub static IS_TRACED: AtomicBool = AtomicBool::new(false);

/// Lets time pass, and sees that no tick takes too much.
pub fn run_for(sim: &Simulation, time: Duration) {
    let end = sim.now() + time;
    while sim.now() < end {
        let mut is_done = false;
        // One thing at a time happens: a tick, or something in the network.
        let step = || {
            sim.run_until(end.saturating_sub(sim.now()), || std::mem::replace(&mut is_done, true));
        };
        let taken = allocation_counter::measure(step).bytes_total;
        let is_traced = IS_TRACED.load(Ordering::Relaxed);
        assert!(taken <= TICK_BYTES_MAX || is_traced, "a tick took {taken} bytes from the heap");
    }
}
