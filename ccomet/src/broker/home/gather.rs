//! A subscription to a pattern, such as `news.*`: a channel of its own, into which every home passes what is published in
//! its channels of that pattern.
//!
//! So a pattern has numbers, a history and an epoch as any channel has, and who reads one has one cursor and resumes
//! without gap or repeat, however many channels it stands for and whenever they were made. It is filled from the homes'
//! histories when the first subscriber comes, and goes when nobody has read it for as long as an idle channel is kept.

use std::sync::Arc;

use super::Home;
use crate::broker::{Command, Now, Refusal};
use crate::message::{ChannelName, Message};
use crate::pattern::Pattern;
use crate::position::Spot;

/// What the home of a pattern knows of it beside what it knows of any channel.
#[derive(Debug)]
pub(super) struct Gathering {
    /// Which of this home's it is.
    run: u64,
    /// Homes that have not told what they have yet.
    missing: usize,
    /// What those have told that have, each message with the time by which it is put in order.
    filled: Vec<(u64, Arc<Message>)>,
    /// What was published since.
    fed: Vec<Arc<Message>>,
    /// Loops that wait to be attached, and how often each has asked to be brought up to date since.
    attaching: Vec<(usize, u32)>,
}

/// A pattern that a home passes messages on to.
#[derive(Debug)]
pub(super) struct Followed {
    name: ChannelName,
    pattern: Pattern,
    /// The home of the pattern, and which it is there.
    to: usize,
    run: u64,
}

impl Gathering {
    /// Whether somebody waits for it to be whole.
    pub(super) fn is_awaited(&self) -> bool {
        !self.attaching.is_empty()
    }
}

impl Home {
    /// Begins to gather.
    pub(super) fn gather(&mut self, name: &ChannelName) -> Result<Box<Gathering>, Refusal> {
        if self.gatherings >= self.limits.patterns_max {
            return Err(Refusal::PatternLimit);
        }
        self.gatherings += 1;
        self.last_run += 1;
        let run = self.last_run;
        let homes = self.homes();
        for to in 0..homes {
            self.sent.push((to, Command::Follow { pattern: name.clone(), run }));
        }
        Ok(Box::new(Gathering { run, missing: homes, filled: Vec::new(), fed: Vec::new(), attaching: Vec::new() }))
    }

    /// Whether a loop that wants to be attached has to wait until all homes have told what they have.
    pub(super) fn defers_attaching(&mut self, key: usize, from: usize) -> bool {
        let Some(gathering) = self.gathering_mut(key).filter(|gathering| gathering.missing > 0) else { return false };
        if !gathering.attaching.iter().any(|(to, _)| *to == from) {
            gathering.attaching.push((from, 0));
        }
        true
    }

    /// Whether one that asks to be brought up to date waits to be attached.
    pub(super) fn defers_sync(&mut self, key: usize, from: usize) -> bool {
        let Some(gathering) = self.gathering_mut(key).filter(|gathering| gathering.missing > 0) else { return false };
        if let Some((_, syncs)) = gathering.attaching.iter_mut().find(|(to, _)| *to == from) {
            *syncs += 1;
        }
        true
    }

    /// One that waits to be attached does not want it any more.
    pub(super) fn stop_deferring(&mut self, key: usize, from: usize) {
        if let Some(gathering) = self.gathering_mut(key) {
            gathering.attaching.retain(|(to, _)| *to != from);
        }
    }

    /// Gathers no more.
    pub(super) fn disperse(&mut self, name: &ChannelName) {
        self.gatherings -= 1;
        for to in 0..self.homes() {
            self.sent.push((to, Command::Unfollow { pattern: name.clone() }));
        }
    }

    /// Tells the home of a pattern what there is here, and from now on what is published.
    pub(super) fn follow(&mut self, from: usize, name: ChannelName, run: u64) {
        let Some(pattern) = name.to_pattern() else { return };
        let mut entries: Vec<(u64, Arc<Message>)> = Vec::new();
        for channel in self.sources().filter(|channel| pattern.matches(channel.name.as_str())) {
            // Of one channel they stay in order, though the calendar was set back.
            let mut time_ms = 0;
            for (number, message) in channel.log.since(0) {
                time_ms = message.time_ms.max(time_ms);
                let spot = Spot { epoch: channel.epoch, next: number + 1 };
                entries.push((time_ms, gathered(message, &channel.name, spot)));
            }
        }
        entries.sort_by_key(|(time_ms, _)| *time_ms);
        // More than that is not kept there.
        let rules = &self.limits.rules;
        let kept_max = rules.bounds(rules.find(&name)).history.messages_max;
        entries.drain(..entries.len().saturating_sub(kept_max));
        self.sent.push((from, Command::Fill { pattern: name.clone(), run, entries }));
        self.followed.push(Followed { name, pattern, to: from, run });
    }

    pub(super) fn unfollow(&mut self, from: usize, name: &ChannelName) {
        self.followed.retain(|followed| followed.to != from || followed.name != *name);
    }

    /// Passes on a message that was just published.
    pub(super) fn pass_to_patterns(&mut self, name: &ChannelName, spot: Spot, message: &Arc<Message>) {
        for followed in self.followed.iter().filter(|followed| followed.pattern.matches(name.as_str())) {
            let message = gathered(message, name, spot);
            match self.sent.last_mut() {
                Some((to, Command::Feed { pattern, entries, .. }))
                    if *to == followed.to && *pattern == followed.name =>
                {
                    entries.push(message);
                }
                _ => {
                    let (pattern, run) = (followed.name.clone(), followed.run);
                    let feed = Command::Feed { pattern, run, entries: vec![message] };
                    self.sent.push((followed.to, feed));
                }
            }
        }
    }

    /// A channel's history is gone: what its patterns have kept of it goes too.
    pub(super) fn forget_in_patterns(&mut self, name: &ChannelName) {
        for followed in self.followed.iter().filter(|followed| followed.pattern.matches(name.as_str())) {
            self.sent.push((followed.to, Command::Forget { pattern: followed.name.clone() }));
        }
    }

    /// A home has told what it has. The last one of them lets those in who wait.
    pub(super) fn fill(&mut self, now: Now, name: &ChannelName, run: u64, entries: Vec<(u64, Arc<Message>)>) {
        let Some(key) = self.key_of(name) else { return };
        let Some(gathering) = self.gathering_mut(key).filter(|gathering| gathering.run == run) else { return };
        gathering.filled.extend(entries);
        gathering.missing -= 1;
        if gathering.missing > 0 {
            return;
        }
        let mut filled = std::mem::take(&mut gathering.filled);
        let (fed, attaching) = (std::mem::take(&mut gathering.fed), std::mem::take(&mut gathering.attaching));
        filled.sort_by_key(|(time_ms, _)| *time_ms);
        for message in filled.into_iter().map(|(_, message)| message).chain(fed) {
            self.append_derived(key, now, message);
        }
        for (to, syncs) in attaching {
            self.attach_to(key, to);
            for _ in 0..syncs {
                self.sync(to, name.clone());
            }
        }
        self.evict();
    }

    pub(super) fn feed(&mut self, now: Now, name: &ChannelName, run: u64, entries: Vec<Arc<Message>>) {
        let Some(key) = self.key_of(name) else { return };
        let Some(gathering) = self.gathering_mut(key).filter(|gathering| gathering.run == run) else { return };
        if gathering.missing > 0 {
            return gathering.fed.extend(entries);
        }
        for message in entries {
            self.append_derived(key, now, message);
        }
        self.evict();
    }

    pub(super) fn forget(&mut self, name: &ChannelName) {
        let Some(key) = self.key_of(name) else { return };
        if let Some(gathering) = self.gathering_mut(key)
            && gathering.missing > 0
        {
            // Who attaches gets what is left, as if it had always been so.
            gathering.filled.clear();
            return gathering.fed.clear();
        }
        self.drop_history(key);
    }
}

/// A message as the channel of a pattern has it: it says where it is from.
fn gathered(message: &Message, channel: &ChannelName, spot: Spot) -> Arc<Message> {
    let mut copy = message.clone();
    copy.extra_mut().origin = Some((channel.clone(), spot));
    Arc::new(copy)
}
