//! Clients of the classic API: who waits under which name, and who signs in.

use std::collections::HashMap;
use std::sync::Arc;

use sealed::fault;

use super::Home;
use crate::broker::{Claim, Event, Now, Owner};
use crate::message::ChannelName;
use crate::time::{LoopTime, UnixMillis};

/// Sign-ins passed on with one delivery; more in one tick are noise.
const SIGNS_MAX: usize = 256;

/// Clients of the classic API in a channel.
#[derive(Debug, Default)]
pub(super) struct Classic {
    /// Who waits under which name, on which loop.
    pub(super) waiting: HashMap<Arc<str>, (usize, Claim)>,
    /// Who signed in since the last flush.
    pub(super) signs: Vec<Arc<str>>,
}

impl Home {
    pub(super) fn sign(&mut self, name: &ChannelName, who: Arc<str>) {
        if fault!("sign-in-makes-channel") {
            let now = Now { time: UnixMillis::default(), loop_time: LoopTime::default(), random: 0 };
            let _ = self.open(now, name.clone(), Owner::default());
        }
        // In a channel that is not there, nobody waits who could be told.
        let Some(key) = self.key_of(name) else { return };
        self.displace(key, &who);
        let channel = &mut self.channels[key];
        let classic = channel.classic.get_or_insert_default();
        if classic.signs.len() < SIGNS_MAX && !channel.attached.is_empty() {
            classic.signs.push(who);
            self.mark(key);
        }
    }

    pub(super) fn claim(&mut self, from: usize, name: &ChannelName, who: Arc<str>, claim: Claim) {
        let Some(key) = self.names.get(name).copied() else { return };
        self.displace(key, &who);
        self.channels[key].classic.get_or_insert_default().waiting.insert(who, (from, claim));
    }

    pub(super) fn release(&mut self, from: usize, name: &ChannelName, who: &Arc<str>, claim: Claim) {
        let Some(key) = self.names.get(name).copied() else { return };
        let Some(classic) = &mut self.channels[key].classic else { return };
        if classic.waiting.get(who) == Some(&(from, claim)) {
            classic.waiting.remove(who);
        }
    }

    /// Ends the wait of whoever waits under that name.
    pub(super) fn displace(&mut self, key: usize, who: &Arc<str>) {
        let channel = &mut self.channels[key];
        if let Some((to, claim)) = channel.classic.as_mut().and_then(|classic| classic.waiting.remove(who)) {
            self.say(to, Event::Displaced { claim });
        }
    }
}
