//! Compares the memory that a server takes with its own accounts, and the work of a tick with a
//! limit.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ccomet::{Holdings, Simulated};
use sealed::sim::Simulation;

/// The most bytes that a tick may take from the heap, with the ticks that interrupt it: all large
/// work is spread over ticks. A home may take about a KiB for each unit of its work, when messages
/// to many channels waited for a store that works again.
pub const TICK_BYTES_MAX: u64 = 8 << 20;

/// The most units of work of a tick, that is, channels and kept messages that it examines or
/// reaches: the limit of a home, and a last step.
pub const TICK_UNITS_MAX: usize = 10_000;

/// What an idle loop takes: its read buffer, and tables that do not shrink below a size.
const LOOP_BYTES: usize = 176 << 10;

/// What a connection takes beside what is counted in bytes: its state, and the incomplete request.
const CONNECTION_BYTES: usize = 8 << 10;
const SUBSCRIBER_BYTES: usize = 1 << 10;
const CHANNEL_BYTES: usize = 2 << 10;
const CHANNEL_PLACE_BYTES: usize = 200;
const ASKING_BYTES: usize = 8 << 10;
const PLACE_BYTES: usize = 100;
const SHARED_PLACE_BYTES: usize = 24;
const WAITING_CHANGE_BYTES: usize = 400;
const STORED_CHANNEL_BYTES: usize = 600;

/// What the simulated network may take meanwhile to close the clients' connections.
const NETWORK_BYTES: usize = 256 << 10;

/// Kills a server, and asserts that it frees no more than the account of its holdings, and no less
/// than the bytes that this account counts exactly. If subscribers may be slow, `queued_bytes_max`
/// may be queued for each.
pub fn kill(server: Simulated, loops: usize, queued_bytes_max: usize) {
    let held = server.holdings();
    let freed = -allocation_counter::measure(|| server.kill()).bytes_current;
    let most = allowance(&held, loops) + held.subscribers * queued_bytes_max;
    // The account of a message beside its payload is approximate.
    let counted = (held.message_bytes + held.encoded_bytes + held.pooled_bytes) / 4 * 3;
    let least = counted.saturating_sub(NETWORK_BYTES);
    let [least, most] = [least, most].map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
    assert!(freed <= most, "it took {freed} bytes, of {most} by its own accounts: {held:?}");
    assert!(least == 0 || freed >= least, "it took {freed} bytes, and counts {least} at least: {held:?}");
}

/// Shuts an idle server down, and asserts that it frees no more than a server without holdings may
/// take.
pub fn rest(held: &Holdings, loops: usize, stop: impl FnOnce()) {
    let freed = -allocation_counter::measure(stop).bytes_current;
    let most = i64::try_from(allowance(held, loops)).unwrap_or(i64::MAX);
    assert!(freed <= most, "at rest, it took {freed} bytes, of {most} by its own accounts: {held:?}");
}

/// Returns the bytes that a server with these holdings may take, over so many loops.
fn allowance(held: &Holdings, loops: usize) -> usize {
    loops * LOOP_BYTES
        + held.connections * CONNECTION_BYTES
        + (held.subscribers + held.claims + held.leases + held.names) * SUBSCRIBER_BYTES
        + (held.channels + held.attached_channels) * CHANNEL_BYTES
        + held.asking * ASKING_BYTES
        + held.copied_messages * PLACE_BYTES
        + held.shared_places * SHARED_PLACE_BYTES
        + (held.waiting_changes + held.opening) * WAITING_CHANGE_BYTES
        + held.stored_keys * PLACE_BYTES
        + held.message_bytes
        + held.stored_channels * STORED_CHANNEL_BYTES
        + held.stored_messages * PLACE_BYTES
        + held.stored_bytes
        + held.delivery_bytes
        + held.channel_places * CHANNEL_PLACE_BYTES
        + held.encoded_bytes
        + held.pooled_bytes
}

/// Whether the whole trace is kept, which at times takes more than a tick may.
pub static IS_TRACED: AtomicBool = AtomicBool::new(false);

/// What a tick, or a piece of work of a thread, may take from the heap.
#[derive(Clone, Copy)]
pub enum Limit {
    /// So many bytes in all.
    InAll(u64),
    /// So many bytes at a time. A thread that writes many changes to the index takes memory again
    /// and again.
    AtOnce(u64),
}

/// Lets time pass, and asserts that no tick takes too much.
pub fn run_for(sim: &Simulation, time: Duration) {
    run_until(sim, time, Limit::InAll(TICK_BYTES_MAX), || false);
}

/// Lets time pass, at most until `is_over`, and asserts that no tick, and no piece of work of a
/// thread, takes more than the limit.
pub fn run_until(sim: &Simulation, time: Duration, limit: Limit, is_over: impl Fn() -> bool) {
    let end = sim.now() + time;
    while sim.now() < end && !is_over() {
        let mut is_done = false;
        // A step is one tick, or one event in the network.
        let step = || {
            sim.run_until(end.saturating_sub(sim.now()), || std::mem::replace(&mut is_done, true));
        };
        let taken = allocation_counter::measure(step);
        let is_traced = IS_TRACED.load(Ordering::Relaxed);
        match limit {
            Limit::InAll(max) => {
                let taken = taken.bytes_total;
                assert!(taken <= max || is_traced, "a tick took {taken} bytes from the heap");
            }
            Limit::AtOnce(max) => {
                let taken = taken.bytes_max;
                assert!(taken <= max || is_traced, "a tick took {taken} bytes from the heap at a time");
            }
        }
    }
}
