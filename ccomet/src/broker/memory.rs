//! The broker in memory: each channel has its home on one of the process's loops, and the loops write to each other.

use std::collections::VecDeque;

use sealed::fault;

use super::{Broker, Command, Event, Home, HomeLimits, Now};
use crate::message::ChannelName;

/// What one loop sends another, gathered over a tick.
#[derive(Debug)]
pub(crate) struct Mail {
    from: usize,
    parcels: Vec<Parcel>,
}

#[derive(Debug)]
enum Parcel {
    Command(Command),
    Event(Event),
}

/// One loop's part of the broker: the home of some channels, and the way to the homes of the others.
#[derive(Debug)]
pub(crate) struct MemoryBroker {
    index: usize,
    home: Home,
    events: VecDeque<Event>,
    /// What is to go to each loop.
    outgoing: Vec<Vec<Parcel>>,
    /// Deliveries from each loop that were worked off and not acknowledged yet.
    to_acknowledge: Vec<u32>,
}

impl MemoryBroker {
    pub(crate) fn new(index: usize, loops: usize, limits: HomeLimits) -> Self {
        Self {
            index,
            home: Home::new(limits, index, loops),
            events: VecDeque::new(),
            outgoing: (0..loops).map(|_| Vec::new()).collect(),
            to_acknowledge: vec![0; loops],
        }
    }

    #[cfg(feature = "sim")]
    pub(crate) fn add_to(&self, all: &mut crate::simulated::Holdings, seen: &mut crate::simulated::Seen) {
        self.home.add_to(all, seen);
    }

    #[cfg(feature = "sim")]
    pub(crate) fn most_work(&self) -> usize {
        self.home.most_work()
    }

    /// How many channels have their home here.
    pub(crate) fn channels(&self) -> usize {
        self.home.channels()
    }

    /// Takes what another loop sent.
    pub(crate) fn receive(&mut self, now: Now, mail: Mail) {
        for parcel in mail.parcels {
            match parcel {
                Parcel::Command(command) => self.at_home(mail.from, now, command),
                Parcel::Event(event) => {
                    if matches!(event, Event::Appended { .. } | Event::Truncated { .. }) {
                        self.to_acknowledge[mail.from] += 1;
                    }
                    if fault!("loops-out-of-order") {
                        self.events.push_front(event);
                    } else {
                        self.events.push_back(event);
                    }
                }
            }
        }
    }

    /// The mail for another loop, if there is any.
    pub(crate) fn take_mail(&mut self, to: usize) -> Option<Mail> {
        let outgoing = &mut self.outgoing[to];
        if outgoing.is_empty() {
            return None;
        }
        Some(Mail { from: self.index, parcels: std::mem::take(outgoing) })
    }

    /// Puts back mail that could not be posted; it goes before what came since.
    pub(crate) fn return_mail(&mut self, to: usize, mut mail: Mail) {
        mail.parcels.append(&mut self.outgoing[to]);
        self.outgoing[to] = mail.parcels;
    }

    fn at_home(&mut self, from: usize, now: Now, command: Command) {
        self.home.command(from, now, command);
        self.pass_on(now);
    }

    fn pass_on(&mut self, now: Now) {
        loop {
            for (to, event) in self.home.said.drain(..) {
                if to == self.index {
                    self.events.push_back(event);
                } else {
                    self.outgoing[to].push(Parcel::Event(event));
                }
            }
            let sent = std::mem::take(&mut self.home.sent);
            if sent.is_empty() {
                break;
            }
            for (to, command) in sent {
                if to == self.index {
                    self.home.command(self.index, now, command);
                } else {
                    self.outgoing[to].push(Parcel::Command(command));
                }
            }
        }
    }

    /// The home of what a command is about; `None` for one to all of them.
    fn home_of(&self, command: &Command) -> Option<usize> {
        let channel: &ChannelName = match command {
            Command::Publish { channel, .. }
            | Command::Sign { channel, .. }
            | Command::Attach { channel, .. }
            | Command::Sync { channel }
            | Command::Detach { channel }
            | Command::Claim { channel, .. }
            | Command::Release { channel, .. }
            | Command::Delete { channel, .. }
            | Command::Clear { channel, .. }
            | Command::SignFor { channel, .. }
            | Command::Admit { channel, .. }
            | Command::Read { channel, .. }
            | Command::Inspect { channel, .. }
            | Command::Count { channel, .. }
            | Command::Present { channel, .. }
            | Command::Who { channel, .. }
            | Command::Fill { pattern: channel, .. }
            | Command::Feed { pattern: channel, .. }
            | Command::Forget { pattern: channel } => channel,
            Command::Acknowledge { .. } => return Some(self.index),
            Command::Broadcast { .. }
            | Command::List { .. }
            | Command::Watch { .. }
            | Command::Follow { .. }
            | Command::Unfollow { .. } => {
                return None;
            }
        };
        Some(channel.home(self.outgoing.len()))
    }
}

impl Broker for MemoryBroker {
    fn command(&mut self, now: Now, command: Command) {
        match self.home_of(&command) {
            Some(home) if home == self.index => self.at_home(self.index, now, command),
            Some(home) => self.outgoing[home].push(Parcel::Command(command)),
            None => {
                for (to, outgoing) in self.outgoing.iter_mut().enumerate() {
                    if to != self.index {
                        outgoing.push(Parcel::Command(command.clone()));
                    }
                }
                self.at_home(self.index, now, command);
            }
        }
    }

    fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn flush(&mut self, now: Now) {
        self.home.work(now);
        self.pass_on(now);
        self.home.flush();
        self.pass_on(now);
        for (to, count) in self.to_acknowledge.iter_mut().enumerate() {
            if *count > 0 {
                self.outgoing[to].push(Parcel::Command(Command::Acknowledge { count: std::mem::take(count) }));
            }
        }
    }

    fn has_work(&self) -> bool {
        self.home.has_work()
    }

    fn sweep(&mut self, now: Now) {
        self.home.sweep(now);
        self.pass_on(now);
    }
}
