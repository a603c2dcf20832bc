//! Publishers that use both servers.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use sealed::sim::Random;

use crate::line::Line;
use crate::record::Record;
use crate::torture::CHANNELS;

/// A publisher that picks a server for each message. Some messages have keys: these are sent to
/// both servers at once, until one has accepted it.
pub(crate) struct Publisher<'a> {
    name: String,
    record: &'a Record,
    fronts: [SocketAddr; 2],
    lines: [Option<Line>; 2],
    random: Random,
    number: u32,
    /// The era in which the last messages were sent.
    era: u32,
}

impl<'a> Publisher<'a> {
    pub(crate) fn new(index: usize, record: &'a Record, fronts: [SocketAddr; 2], seed: u64) -> Self {
        let random = Random::new(seed.wrapping_add(index as u64));
        Self { name: format!("p{index}"), record, fronts, lines: [None, None], random, number: 0, era: 0 }
    }

    /// Publishes until all is over.
    pub(crate) fn run(mut self) {
        while self.record.goes_on() {
            self.number += 1;
            let channel = self.random.below(CHANNELS);
            let longest = if self.random.chance(0.02) { 20_000 } else { 100 };
            let filler = "x".repeat(self.random.below(longest));
            let data = format!("{}-{}-{filler}", self.name, self.number);
            let is_accepted = if self.random.chance(0.25) {
                self.race(channel, &data)
            } else {
                let server = self.random.below(2);
                self.era = self.record.era.load(Ordering::SeqCst);
                let is_sent = self.send(server, channel, "", &data);
                is_sent && self.take(server, channel, &data, false)
            };
            let pause = if is_accepted { self.random.below(15) } else { 30 };
            thread::sleep(Duration::from_millis(pause as u64));
        }
    }

    fn race(&mut self, channel: usize, data: &str) -> bool {
        let key = format!("Idempotency-Key: {}-{}\r\n", self.name, self.number);
        while self.record.goes_on() {
            self.era = self.record.era.load(Ordering::SeqCst);
            let sent = [0, 1].map(|server| self.send(server, channel, &key, data));
            let accepted = [0, 1].map(|server| sent[server] && self.take(server, channel, data, true));
            if accepted != [false, false] {
                return true;
            }
            thread::sleep(Duration::from_millis(30));
        }
        false
    }

    fn send(&mut self, server: usize, channel: usize, fields: &str, data: &str) -> bool {
        if self.lines[server].is_none() {
            self.lines[server] = Line::connect(self.fronts[server]).ok();
        }
        let target = format!("/channels/c{channel}");
        let sent = self.lines[server].as_mut().map(|line| line.send("POST", &target, fields, data));
        let is_sent = matches!(sent, Some(Ok(())));
        if !is_sent {
            self.lines[server] = None;
        }
        is_sent
    }

    fn take(&mut self, server: usize, channel: usize, data: &str, has_key: bool) -> bool {
        let Some(line) = &mut self.lines[server] else { return false };
        match line.reply() {
            Ok(reply) => self.record.answered(channel, data, has_key, self.era, &reply),
            Err(error) => {
                if error.kind() == ErrorKind::TimedOut {
                    self.record.fault(format!("{}: no answer from server {server}", self.name));
                }
                self.lines[server] = None;
                false
            }
        }
    }
}
