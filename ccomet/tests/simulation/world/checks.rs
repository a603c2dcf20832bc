//! The conditions that must hold of a world: at every moment, when all is calm, and at its end.

use std::collections::BTreeSet;
use std::time::Duration;

use ccomet::{Config, Holdings, Limits};
use sealed::sim::Faults;
use serde_json::Value;

use super::{LONG, PROMPT, World};
use crate::http::Answer;
use crate::members::{Member, ROOM};
use crate::meter;
use crate::oracle::{Spot, spots};
use crate::rulings;

impl World {
    pub(super) fn check_bounds(&self) {
        let Config { limits, history, .. } = &self.config;
        let loops = self.loops();
        let held = self.holdings();
        let share = |whole: usize| whole.div_ceil(loops) * loops;
        assert!(held.connections <= share(limits.connections_max), "{held:?}");
        assert!(held.subscribers <= share(limits.subscribers_max), "{held:?}");
        assert!(held.channels <= share(limits.channels_max), "{held:?}");
        // Messages published in a tick are kept until their readers have them, and so is the newest
        // message of each channel.
        let slack = (limits.message_bytes_max + 200)
            * (self.publishers.len() + self.visitors.len() + self.place.channels.len());
        assert!(held.history_bytes <= share(history.total_bytes_max) + slack, "{held:?}");
        assert_eq!(held.history_bytes, held.recounted_bytes, "{held:?}");
        assert!(
            held.encoded_bytes <= share(limits.encoded_bytes_max) + loops * (limits.message_bytes_max + 200) * 7,
            "{held:?}"
        );
        let units = self.server.as_ref().expect("a server").most_work();
        assert!(units <= meter::TICK_UNITS_MAX, "a tick of {units} units of work");
        let busiest = self.place.sim.busiest_tick();
        assert!(busiest < 5_000, "a tick of {busiest} calls to the network");
    }

    /// Asserts that published messages reach their readers well before a sweep or a heartbeat would
    /// wake a loop. Loops are still interrupted, but nothing is slow.
    pub(super) fn check_promptness(&mut self) {
        let Limits { connections_max, channels_max, .. } = self.config.limits;
        if connections_max < 100 || channels_max < 100 {
            return;
        }
        // After a gap, the reader of a pattern does not know its position in each channel.
        let is_short = self.is_short();
        self.place.sim.note("nothing is slow from here");
        self.place.sim.set_faults(Faults { interleave: 0.5, double_wake: 0.2, ..Faults::default() });
        // The way to Redis, to open a channel and to publish, is as long as that to the server.
        // A narrow network carries a window of messages in many round trips.
        let prompt = match self.site {
            Some(_) if self.place.is_narrow => 10 * PROMPT,
            Some(_) => 2 * PROMPT,
            None => PROMPT,
        };
        for round in 0..10 {
            let ask = |n: usize| {
                let channel = self.place.channels[n % self.place.channels.len()].clone();
                let payload = format!("{channel}-prompt-{round}-{n}");
                let mut http = self.place.visit();
                let head =
                    format!("POST /channels/{channel} HTTP/1.1\r\nHost: sim\r\nContent-Length: {}", payload.len());
                http.ask(format!("{head}\r\n\r\n{payload}"));
                (http, channel, payload)
            };
            let asked: Vec<_> = (0..8).map(ask).collect();
            self.place.sim.run_for(prompt);
            let mut accepted = Vec::new();
            for (mut http, channel, payload) in asked {
                let Some(Answer::Whole { status: 200, body }) = http.next() else {
                    panic!("a publisher is answered within {prompt:?}");
                };
                let reply: Value = serde_json::from_slice(&body).expect("JSON");
                let spot = spots(reply["position"].as_str().expect("a position"))[0];
                self.oracle.accepted(&channel, spot, &payload);
                accepted.push((channel, spot));
            }
            self.hear();
            for (channel, spot) in accepted {
                self.readers.iter().for_each(|reader| reader.check_has(&channel, spot));
                if !self.place.is_narrow {
                    self.sessions.iter().for_each(|session| session.check_has(&channel, spot));
                }
                if !is_short {
                    // The icomet API cannot report a message that is dropped before its reader gets
                    // it.
                    self.counters.iter().for_each(|counter| counter.check_has(&channel, spot));
                    self.gatherers.iter().for_each(|gatherer| gatherer.check_has(&channel, spot));
                }
            }
        }
        self.place.sim.set_faults(Faults::default());
        self.place.sim.settle();
        let held = self.holdings();
        assert!(held.names <= held.claims, "a name is held for a subscriber that waits under it: {held:?}");
    }

    /// Returns whether messages may be dropped before slow loops and readers get them.
    fn is_short(&self) -> bool {
        let history = &self.config.history;
        history.messages_max < 100 || history.bytes_max < 1 << 20 || history.total_bytes_max < 1 << 20
    }

    /// Asserts that every channel's history is correct on every loop, and that readers have all of
    /// it.
    pub(super) fn check_channels(&mut self) {
        let history = &self.config.history;
        let limited = history.bytes_max < 1_000_000
            || history.total_bytes_max < 10_000_000
            || history.age_max_s < 3_600
            || self.config.limits.channels_max < 100;
        // A client in the backlog of a full loop may have its turn at any moment: to publish
        // between two pages that are read, or to delete a message that was just published.
        let crowded = self.config.limits.connections_max < 100;
        let messages_max =
            Some(history.messages_max).filter(|_| !limited && !crowded && !self.scenery.restarts_numbers());
        let mut heads = Vec::new();
        for channel in self.place.channels.clone() {
            let mut agreed = None;
            for _ in 0..3 {
                let Some((head, items)) = self.read_history(&channel) else { continue };
                self.oracle.history(&channel, head, &items, messages_max);
                if crowded {
                    continue;
                }
                assert_eq!(*agreed.get_or_insert(head), head, "all loops agree on {channel}");
            }
            heads.extend(agreed.map(|head| (channel, head)));
        }
        self.hear();
        assert!(crowded || !self.admin.is_deleting(), "a deletion is answered");
        self.readers.iter().for_each(|reader| reader.check_head(&heads));
        self.sessions.iter().for_each(|session| session.check_head(&heads));
        // The icomet API cannot report a message that is dropped before its reader gets it.
        if self.config.history.age_max_s > 60 && !self.is_short() {
            self.counters.iter().for_each(|counter| counter.check_head(&heads));
        }
        if let Some(crowd) = &mut self.crowd {
            crowd.check(&self.place);
        }
        if !crowded {
            self.check_presence();
        }
    }

    /// Asserts that a channel has as many readers as its rule allows, on each loop: no more, and no
    /// fewer if some are refused.
    pub(super) fn check_readers(&mut self) {
        let Limits { connections_max, subscribers_max, channels_max, .. } = self.config.limits;
        let Some(ruling) = &self.scenery.ruling else { return };
        if connections_max.min(subscribers_max).min(channels_max) < 100 {
            return;
        }
        let (least, most) = (ruling.readers_max, ruling.readers_max * self.loops());
        let count = |target: &str| self.rebels.iter().filter(|rebel| rebel.reads() == Some(target)).count();
        for target in rulings::LIMITED {
            assert!(count(target) <= most, "{} readers of {target}, of {most}", count(target));
        }
        let ask = |_| {
            let mut http = self.place.visit();
            http.get(&format!("/channels/{}", rulings::FEW), "Accept: text/event-stream\r\n");
            http
        };
        let mut asked: Vec<_> = (0..most + 2).map(ask).collect();
        self.place.sim.run_for(LONG / 40);
        let (mut standing, mut refused) = (count(rulings::FEW), 0);
        for http in &mut asked {
            match http.next() {
                Some(Answer::Stream) => standing += 1,
                Some(Answer::Whole { status: 503, .. }) => refused += 1,
                other => panic!("a reader is answered: {other:?}"),
            }
        }
        assert!(standing <= most, "{standing} readers, of {most}");
        assert!(refused == 0 || standing >= least, "{refused} readers are refused beside {standing}, of {most}");
        drop(asked);
        self.place.sim.run_for(LONG / 40);
        self.hear();
    }

    /// Asserts that the server and every member of the room know the members of the room.
    fn check_presence(&mut self) {
        let mut http = self.place.visit_admin();
        http.get(&format!("/channels/{ROOM}/presence"), "");
        self.place.sim.run_for(LONG / 40);
        self.hear();
        let Some(Answer::Whole { status: 200, body }) = http.next() else { return };
        let who: Value = serde_json::from_slice(&body).expect("JSON");
        let members = who["members"].as_array().expect("members");
        let reported = members.iter().map(|member| member["id"].as_str().expect("a name").to_owned()).collect();
        let here: BTreeSet<String> = self.members.iter().filter_map(Member::here).map(str::to_owned).collect();
        assert_eq!(here, reported, "the server reports the members of the room");
        self.members.iter().for_each(|member| member.check_knows(&reported));
    }

    /// Reads a channel from the oldest message kept. Returns `None` if the server is at a limit.
    fn read_history(&mut self, channel: &str) -> Option<(Spot, Vec<(Spot, String)>)> {
        let mut http = self.place.visit();
        let mut after = "oldest".to_owned();
        let mut items = Vec::new();
        loop {
            http.get(&format!("/channels/{channel}?wait=0&after={after}"), "");
            let mut answer = None;
            self.place.sim.run_until(LONG, || {
                answer = http.next();
                answer.is_some()
            });
            if answer.is_none() && self.config.limits.connections_max < 100 {
                // The connection reached a loop that has the maximum number of connections.
                return None;
            }
            let (status, body) = match answer {
                Some(Answer::Whole { status, body }) => (status, body),
                other => panic!("a poll in a calm network is answered: {other:?}"),
            };
            if status == 503 {
                return None;
            }
            // Other clients process their events meanwhile, because some must answer within a time.
            // If a client may publish at any moment, the history read now is compared with what was
            // known before.
            if self.config.limits.connections_max >= 100 {
                self.hear();
            }
            let reply: Value = serde_json::from_slice(&body).expect("JSON");
            let position = reply["position"].as_str().expect("a position").to_owned();
            let batch = reply["items"].as_array().expect("items");
            for item in batch {
                if matches!(item["type"].as_str(), Some("gap" | "close")) && self.config.limits.connections_max < 100 {
                    // A client that had waited in the backlog of a full loop deleted the channel
                    // between two pages.
                    return None;
                }
                if item["type"] == "gap" && self.config.history.age_max_s < 60 {
                    // Messages grew too old between two pages, and those before them earlier still.
                    items.clear();
                    continue;
                }
                assert_eq!(item["type"], "message", "history is messages: {item}");
                let spot = spots(item["position"].as_str().expect("a position"))[0];
                items.push((spot, item["data"].as_str().expect("text").to_owned()));
            }
            if batch.is_empty() {
                return Some((spots(&position)[0], items));
            }
            after = position;
        }
    }

    pub(super) fn check_nothing_left(&self) {
        let times = &self.config.times;
        let longest = times.channel_linger_s + times.channel_idle_s + self.config.history.age_max_s;
        self.place.sim.run_for(Duration::from_secs(longest) + LONG * 2);
        let held = self.holdings();
        let loops = self.loops();
        assert!(held.timers <= loops, "{held:?}");
        let Holdings { timers, pooled_bytes, .. } = held;
        assert_eq!(held, Holdings { timers, pooled_bytes, ..Holdings::default() }, "nothing is left");
        let others = self.site.as_ref().map_or(0, |site| site.sockets(loops));
        assert_eq!(self.place.sim.descriptors(), 2 * loops + others, "the listeners alone, and Redis");
    }
}
