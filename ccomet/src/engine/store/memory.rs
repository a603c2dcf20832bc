use super::{ChannelPlace, NameRange, Opened, Outcome, PartRange, Store, StoreChange, Submitted};
use crate::core::message::ChannelName;
use crate::core::time::LoopTime;
use crate::core::window::HistoryLimits;
use crate::engine::Tick;

/// A store that keeps nothing in addition to the shard's memory, so that it keeps each change at
/// once.
#[derive(Debug)]
pub(crate) struct MemoryStore;

impl Store for MemoryStore {
    fn window_max(&self) -> Option<usize> {
        None
    }

    fn open(&mut self, _: Tick, _: &ChannelName, _: bool) -> Opened {
        Opened::Absent
    }

    fn unload(&mut self, _: &ChannelName) {
        debug_assert!(false, "nothing is kept elsewhere");
    }

    fn names(&mut self, _: Tick, _: u32, _: NameRange) {
        debug_assert!(false, "all channels are in memory");
    }

    fn submit(&mut self, _: Tick, _: ChannelPlace<'_>, _: StoreChange<'_>) -> Submitted {
        Submitted::Kept
    }

    fn trim(&mut self, _: Tick, _: &ChannelName, _: &HistoryLimits) -> Option<u64> {
        None
    }

    fn forget(&mut self, _: &ChannelName) {}

    fn read(&mut self, _: Tick, _: u32, _: ChannelPlace<'_>, _: PartRange) {
        debug_assert!(false, "all that is kept is in memory");
    }

    fn flush(&mut self, _: Tick) {}

    fn next_outcome(&mut self, _: Tick) -> Option<Outcome> {
        None
    }

    fn due(&self) -> Option<LoopTime> {
        None
    }
}
