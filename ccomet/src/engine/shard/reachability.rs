//! Times in which the store cannot be reached: changes wait, and followers know that they may miss
//! messages.

use super::Shard;
use super::changes::Stored;
use crate::engine::peer::{Parcel, ToLoop};
use crate::engine::{ChannelEvent, Refusal, Tick};

/// Whether the store can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reachability {
    Reachable,
    /// Changes wait until it can be reached again.
    CutOff,
    /// It has been unreachable for so long that changes are refused.
    GivenUp,
}

impl Shard {
    pub(super) fn is_cut_off(&self) -> bool {
        self.reachability != Reachability::Reachable
    }

    /// Handles the loss of the store.
    pub(super) fn cut_off(&mut self) {
        self.reachability = Reachability::CutOff;
        self.notify_all_followers(|| ChannelEvent::Interrupted);
    }

    /// Refuses all changes that wait for the store, which has been unreachable for long.
    pub(super) fn give_up(&mut self) {
        self.reachability = Reachability::GivenUp;
        let keys: Vec<usize> = self.channels.iter().map(|(key, _)| key).collect();
        for key in keys {
            while let Some(change) = self.take_waiting(key, |_| true) {
                self.refuse_change(&change, Refusal::Unavailable);
            }
        }
    }

    /// Handles the return of the store, when all changes in progress are settled.
    pub(super) fn back(&mut self, now: Tick) {
        self.reachability = Reachability::Reachable;
        if self.store.assigns_numbers() {
            // Other servers may have published in channels that are not in memory here.
            self.break_patterns(None);
        }
        self.notify_all_followers(|| ChannelEvent::Resumed);
        let waiting = self.sources().filter(|channel| channel.stored.as_deref().is_some_and(Stored::has_waiting));
        for name in waiting.map(|channel| channel.name.clone()).collect::<Vec<_>>() {
            self.continue_changes(now, &name);
        }
    }

    fn notify_all_followers(&mut self, event: impl Fn() -> ChannelEvent) {
        let mut notices = Vec::new();
        for channel in self.sources() {
            let message = || Parcel::Loop(ToLoop::Channel(channel.name.clone(), event()));
            notices.extend(channel.attached.iter().map(|follower| (follower.to, message())));
        }
        self.outbox.append(&mut notices);
    }
}
