//! The members of channels, and their joins and leaves.
//!
//! A member is a subject of tokens that reads the channel, on any number of connections. Loops
//! report how many connections of a member they have. A member without connections leaves after a
//! grace period, so that a long poll that returns in time is neither a leave nor a join. Joins and
//! leaves are messages of the channel's presence channel, while that exists.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use sealed::fault;

use super::Shard;
use crate::core::message::{ChannelName, Draft, Movement};
use crate::core::owner::Owner;
use crate::core::position::Spot;
use crate::core::time::LoopTime;
use crate::engine::peer::{Parcel, ToLoop};
use crate::engine::{Member, Membership, Refusal, Tick};

/// The limits of the members of a channel, and the grace period of members without connections.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PresenceLimits {
    pub(crate) members_max: usize,
    pub(crate) grace: Duration,
    /// Set if the gateway gets an output for each join and leave.
    pub(crate) are_reported: bool,
}

/// The members of a channel.
#[derive(Debug, Default)]
pub(super) struct Presence {
    members: HashMap<Arc<str>, Connections>,
    /// Set if a member was left out because of the limit.
    is_incomplete: bool,
}

#[derive(Debug, Default)]
struct Connections {
    /// The loops, each with its number of connections.
    on_loops: Vec<(usize, u32)>,
    /// The time at which the member leaves, if it has no connection.
    gone: Option<LoopTime>,
}

impl Presence {
    /// Returns the number of members.
    pub(super) fn len(&self) -> usize {
        self.members.len()
    }
}

impl Connections {
    fn count(&self) -> u32 {
        self.on_loops.iter().map(|(_, count)| if fault!("connections-counted-half") { count / 2 } else { *count }).sum()
    }

    fn set(&mut self, from: usize, count: u32) {
        self.on_loops.retain(|(held, _)| *held != from);
        if count > 0 {
            self.on_loops.push((from, count));
        }
    }
}

/// The members without connections, in the order in which they leave.
pub(super) type Leaving = VecDeque<(LoopTime, ChannelName, Arc<str>)>;

impl Shard {
    /// Sets the number of connections that a member has in a channel on one loop.
    pub(super) fn present(&mut self, from: usize, now: Tick, name: &ChannelName, id: &Arc<str>, connections: u32) {
        let Some(key) = self.followed_by(from, name) else { return };
        let PresenceLimits { members_max, grace, .. } = self.limits.presence;
        let held = &mut self.channels[key].presence;
        let is_new = held.as_ref().is_none_or(|presence| !presence.members.contains_key(id));
        // The member joined and left within a tick and was never reported.
        if is_new && connections == 0 {
            if fault!("brief-member-holds-channel") {
                held.get_or_insert_default();
            }
            return;
        }
        let presence = held.get_or_insert_default();
        if is_new && presence.members.len() >= members_max {
            presence.is_incomplete = true;
            return;
        }
        self.members += usize::from(is_new);
        let member = presence.members.entry(id.clone()).or_default();
        member.set(from, connections);
        if member.count() > 0 {
            if !fault!("member-leaves-between-polls") {
                member.gone = None;
            }
        } else if member.gone.is_none() {
            let gone = now.loop_time.plus(grace);
            member.gone = Some(gone);
            self.leaving.push_back((gone, name.clone(), id.clone()));
        }
        if is_new {
            self.report_movement(now, name, id, Movement::Join);
        }
    }

    /// Removes members whose grace period is over.
    pub(super) fn sweep_presence(&mut self, now: Tick) {
        while self.leaving.front().is_some_and(|(gone, ..)| *gone <= now.loop_time) {
            let Some((gone, name, id)) = self.leaving.pop_front() else { return };
            let Some(key) = self.key_of(&name) else { continue };
            let presence = &mut self.channels[key].presence;
            let Some(all) = presence.as_deref_mut() else { continue };
            // The member may have returned and left again.
            if all.members.get(&id).is_none_or(|member| member.gone != Some(gone)) {
                continue;
            }
            if !fault!("left-member-stays") && all.members.remove(&id).is_some() {
                self.members -= 1;
            }
            if all.members.is_empty() {
                *presence = None;
            }
            self.report_movement(now, &name, &id, Movement::Leave);
        }
        if self.leaving.is_empty() {
            self.leaving.shrink_to_fit();
        }
    }

    /// Removes all connections of one loop from a channel.
    pub(super) fn all_gone(&mut self, from: usize, now: Tick, name: &ChannelName) {
        let Some(presence) = self.key_of(name).and_then(|key| self.channels[key].presence.as_ref()) else { return };
        let on_it = presence.members.iter().filter(|(_, member)| member.on_loops.iter().any(|(held, _)| *held == from));
        for id in on_it.map(|(id, _)| id.clone()).collect::<Vec<_>>() {
            self.present(from, now, name, &id, 0);
        }
    }

    /// Returns the members of a channel, and the position from which a reader of both channels
    /// misses no change.
    pub(super) fn who_is_in(&mut self, now: Tick, name: &ChannelName, owner: Owner) -> Result<Membership, Refusal> {
        // The presence channel has to exist, because changes are numbered in it from now on.
        let movements = self.open(now, ChannelName::of_presence(name), owner)?;
        let key = self.key_of(name);
        for key in key.into_iter().chain([movements]) {
            self.channels[key].note_use(now.loop_time);
        }
        let spot = |key: usize| Spot { epoch: self.channels[key].epoch, next: self.channels[key].log.next() };
        let movements = spot(movements);
        let Some(key) = key else {
            let first = Spot { epoch: self.epoch_of_absent(now, name), next: 0 };
            return Ok(Membership {
                position: [first, movements],
                subscribers: 0,
                members: Vec::new(),
                is_incomplete: false,
            });
        };
        let presence = self.channels[key].presence.as_deref();
        let members = presence.iter().flat_map(|presence| &presence.members);
        let mut members: Vec<Member> =
            members.map(|(id, member)| Member { id: id.clone(), connections: member.count() }).collect();
        members.sort_unstable_by(|one, other| one.id.cmp(&other.id));
        Ok(Membership {
            position: [spot(key), movements],
            subscribers: self.channels[key].subscribers(),
            members,
            is_incomplete: presence.is_some_and(|presence| presence.is_incomplete),
        })
    }

    fn report_movement(&mut self, now: Tick, name: &ChannelName, id: &Arc<str>, movement: Movement) {
        if self.limits.presence.are_reported {
            let moved = ToLoop::Presence { channel: name.clone(), id: id.clone(), movement };
            self.outbox.push((self.own, Parcel::Loop(moved)));
        }
        let Some(key) = self.key_of(&ChannelName::of_presence(name)) else { return };
        let mut message = Draft { payload: id.as_bytes().to_vec().into(), ..Draft::default() }.taken_at(now.time);
        message.extra_mut().movement = Some(movement);
        self.append_derived(key, now, Arc::new(message));
    }
}
