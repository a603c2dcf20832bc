//! The names under which clients wait, one client for each name, and announcements to the present
//! readers of a channel.

use std::collections::HashMap;
use std::sync::Arc;

use sealed::fault;

use super::Shard;
use crate::core::message::ChannelName;
use crate::core::owner::Owner;
use crate::core::time::{LoopTime, UnixMillis};
use crate::engine::peer::{Parcel, ToLoop};
use crate::engine::{Claim, Tick};

/// The maximum number of announcements in one delivery. Further announcements in one tick are
/// dropped.
const ANNOUNCEMENTS_MAX: usize = 256;

/// The names of a channel.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// The client that waits under each name, and its loop.
    pub(super) waiting: HashMap<Arc<str>, (usize, Claim)>,
    /// The names that were announced since the last flush.
    pub(super) announcements: Vec<Arc<str>>,
}

impl Shard {
    pub(super) fn announce(&mut self, name: &ChannelName, who: Arc<str>) {
        if fault!("sign-in-makes-channel") {
            let now = Tick { time: UnixMillis::default(), loop_time: LoopTime::default(), random: 0 };
            let _ = self.open(now, name.clone(), Owner::default());
        }
        // A channel that does not exist has no client that waits.
        let Some(key) = self.key_of(name) else { return };
        self.displace(key, &who);
        let channel = &mut self.channels[key];
        let waits = channel.waits.get_or_insert_default();
        if waits.announcements.len() < ANNOUNCEMENTS_MAX && !channel.attached.is_empty() {
            waits.announcements.push(who);
            self.mark(key);
        }
    }

    pub(super) fn acquire_name(&mut self, from: usize, name: &ChannelName, who: Arc<str>, claim: Claim) {
        let Some(key) = self.followed_by(from, name) else { return };
        self.displace(key, &who);
        self.channels[key].waits.get_or_insert_default().waiting.insert(who, (from, claim));
    }

    pub(super) fn release_name(&mut self, from: usize, name: &ChannelName, who: &Arc<str>, claim: Claim) {
        let Some(key) = self.names.get(name).copied() else { return };
        let Some(waits) = &mut self.channels[key].waits else { return };
        if waits.waiting.get(who) == Some(&(from, claim)) {
            waits.waiting.remove(who);
        }
    }

    /// Ends the wait of the client that waits under a name.
    pub(super) fn displace(&mut self, key: usize, who: &Arc<str>) {
        let channel = &mut self.channels[key];
        if let Some((to, claim)) = channel.waits.as_mut().and_then(|waits| waits.waiting.remove(who)) {
            self.outbox.push((to, Parcel::Loop(ToLoop::NameTaken(claim))));
        }
    }
}
