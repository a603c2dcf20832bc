//! Ends of servers: restarts, in memory and on a disk, and the end of a run.

use std::time::Duration;

use ccomet::Simulated;
use sealed::sim::{Faults, Peer, SimDisk};

use super::{LONG, World, accounts_of};
use crate::backends::Suitor;
use crate::crowds::Crowd;
use crate::disks::Host;
use crate::icomet::Counter;
use crate::members::Member;
use crate::others::Gatherer;
use crate::proxies::Visitor;
use crate::readers::{Page, Reader};
use crate::redis::Site;
use crate::rulings::Rebel;
use crate::sessions::{self, Session};
use crate::tokens::Holder;
use crate::writers::{Broadcaster, Insider, Nuisance, Publisher};
use crate::{meter, scenery};

impl World {
    pub(super) fn restart(&mut self) {
        let server = self.server.take().expect("a server");
        if self.host.is_some() {
            self.end(server);
        } else {
            self.end_in_memory(server);
        }
        self.accounts = accounts_of(&self.config, &self.place.sim, &self.faults, &self.scenery);
        self.visitors.iter().for_each(|visitor| visitor.carry_over(&mut self.accounts));
        self.server = Some(match &mut self.host {
            Some(host) => host.start(&self.config),
            None => Simulated::start_over(&self.place.sim, self.config.clone(), self.scenery.store)
                .expect("its ports are free"),
        });
    }

    /// Ends a server whose messages are on a disk.
    pub(super) fn end(&mut self, server: Simulated) {
        let host = self.host.as_mut().expect("a disk");
        if !host.disk.is_dead() && host.random.chance(0.2) {
            self.place.sim.note("the server is asked to stop");
            self.stop(&server);
        }
        if let Some(host) = &mut self.host {
            host.end();
        }
        server.kill();
        self.hear();
    }

    /// Ends a server whose messages end with it.
    fn end_in_memory(&mut self, server: Simulated) {
        self.oracle.restarted();
        if self.random.chance(0.5) {
            self.place.sim.note("the server is killed");
            meter::kill(server, self.loops(), self.config.limits.batch_bytes_max + (16 << 10));
        } else {
            self.place.sim.note("the server is asked to stop");
            self.stop(&server);
        }
        self.hear();
        self.oracle.restarted();
    }

    /// Stops a server and asserts that it ends within its limit. If the process ends with its disk
    /// before that, the server is left as it is then.
    fn stop(&mut self, server: &Simulated) {
        // The limit is a time, so no clock may jump over it. A loop that stalls and is woken late
        // notices the stop late.
        self.place.sim.set_faults(Faults { jump: 0.0, ..self.faults.clone() });
        server.stop();
        let limit = Duration::from_secs(self.config.times.drain_s);
        let disk = self.host.as_ref().map(|host| host.disk.clone());
        let has_ended = || !server.is_running() || disk.as_ref().is_some_and(SimDisk::is_dead);
        self.place.sim.run_until(limit, has_ended);
        let turns = self.place.sim.turns();
        let ended = self.place.sim.run_until(Duration::from_secs(3), has_ended);
        let turns = self.place.sim.turns() - turns;
        assert!(turns < 1_000, "{turns} ticks of loops that have nothing left but to wait for one another");
        self.place.sim.set_faults(self.faults.clone());
        assert!(ended, "it goes down within its limit");
    }

    /// Ends all faults and new activity, and asserts that in the end all requests are answered.
    pub(super) fn calm_down(&mut self) {
        self.place.sim.note("calm from here");
        self.faults = Faults::default();
        self.place.sim.set_faults(self.faults.clone());
        if let (Some(server), Some(store)) = (&self.server, self.scenery.store) {
            server.set_store_faults(scenery::calm(store));
        }
        if self.host.as_mut().is_some_and(Host::calm_down) {
            self.restart();
        }
        self.site.iter_mut().for_each(Site::calm_down);
        self.place.cuts.set(0.0);
        self.readers.iter_mut().for_each(Reader::calm_down);
        self.gatherers.iter_mut().for_each(Gatherer::calm_down);
        self.members.iter_mut().for_each(Member::calm_down);
        self.sessions.iter_mut().for_each(Session::calm_down);
        self.crowd.iter_mut().for_each(Crowd::calm_down);
        if let Some(backend) = &mut self.backend {
            backend.calm_down();
        }
        for _ in 0..40 {
            self.pass(LONG / 40);
            self.hear();
        }
        // Some may still wait for admission, if a loop has the maximum number of connections.
        if self.config.limits.connections_max >= 100 {
            self.suitors.iter().for_each(Suitor::check_answered);
        }
        let sessions = self.sessions.iter().map(Session::live_count).sum::<usize>();
        let live = self.readers.iter().filter(|reader| reader.is_live()).count() + sessions;
        let mut held = self.holdings();
        for other in self.site.iter().flat_map(|site| &site.servers).map(Simulated::holdings) {
            held.connections += other.connections;
            held.subscribers += other.subscribers;
            held.attached_channels += other.attached_channels;
        }
        let added_max = self.sessions.len() * sessions::SUBSCRIPTIONS_MAX;
        let there = held.connections + added_max >= held.subscribers && held.attached_channels >= usize::from(live > 0);
        assert!(held.subscribers >= live && there, "{live} read streams: {held:?}");
        assert!(held.message_bytes <= held.history_bytes, "what is dropped is dropped by all loops: {held:?}");
        let idle = self.place.sim.turns();
        self.place.sim.run_for(Duration::from_secs(10));
        self.hear();
        let servers = self.place.others.len() + 1;
        let loops = (self.loops() * servers) as u64;
        let turns = self.place.sim.turns() - idle;
        // The limit allows for a sweep each second, a heartbeat for each reader at most as often,
        // and the end of some connections.
        let listeners =
            (self.readers.len() + self.visitors.len() + self.holders.len() + self.suitors.len() + self.rebels.len())
                as u64;
        // A connection to Redis is checked every few seconds, at both ends.
        let checks = if self.site.is_some() { 60 * loops } else { 0 };
        assert!(turns <= 10 * (loops + 4 * listeners) + 200 + checks, "{turns} ticks in ten idle seconds");
    }

    /// Disconnects all clients, some without closing their connections.
    pub(super) fn leave(&mut self) {
        let peers = (self.readers.drain(..).map(Reader::into_peer))
            .chain(self.pages.drain(..).map(Page::into_peer))
            .chain(self.gatherers.drain(..).map(Gatherer::into_peer))
            .chain(self.counters.drain(..).map(Counter::into_peer))
            .chain(self.members.drain(..).map(Member::into_peer))
            .chain(self.sessions.drain(..).map(Session::into_peer))
            .chain(self.publishers.drain(..).map(Publisher::into_peer))
            .chain(self.nuisances.drain(..).map(Nuisance::into_peer))
            .chain(self.visitors.drain(..).map(Visitor::into_peer))
            .chain(self.holders.drain(..).map(Holder::into_peer))
            .chain(self.suitors.drain(..).map(Suitor::into_peer))
            .chain(self.rebels.drain(..).map(Rebel::into_peer))
            .chain(self.broadcaster.take().map(Broadcaster::into_peer))
            .chain(self.crowd.take().into_iter().flat_map(Crowd::into_peers).map(Some))
            .chain(std::iter::once(std::mem::replace(&mut self.insider, Insider::new(Vec::new())).into_peer()))
            .chain(std::iter::once(std::mem::take(&mut self.admin).into_peer()));
        for mut peer in peers.flatten().collect::<Vec<Peer>>() {
            if self.random.chance(0.3) {
                peer.vanish();
            }
        }
        if let Some(backend) = &mut self.backend {
            backend.hang_up();
        }
        self.place.sim.run_for(LONG);
    }

    /// Ends the run with a server that has something to do.
    pub(super) fn kill(mut self) {
        let server = self.server.take().expect("a server");
        if let Some(site) = self.site.take() {
            site.end();
            server.kill();
        } else if let Some(host) = &self.host {
            // The account has no threads, and no index.
            host.disk.kill();
            server.kill();
        } else {
            meter::kill(server, self.loops(), 0);
        }
        assert_eq!(self.place.sim.descriptors(), 0);
    }

    pub(super) fn go_down(mut self) {
        if self.extra.chance(0.3) {
            return self.kill();
        }
        let server = self.server.take().expect("a server");
        let (held, loops) = (server.holdings(), self.loops());
        if let Some(site) = self.site.take() {
            self.stop(&server);
            site.end();
        } else if self.host.is_some() {
            self.stop(&server);
        } else {
            meter::rest(&held, loops, || self.stop(&server));
        }
        assert_eq!(self.place.sim.descriptors(), 0);
    }
}
