//! Simulated workers: work takes simulated time, and is done at its end, all at once.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use super::handles::Handle;
use super::network::Net;
use super::trace::Entry;
use crate::net::{Clock, Waker};
use crate::workers::{Task, Ticket, WorkError};

/// Maximum time of a piece of work, unless a fault makes it longer.
const WORK_TIME_MAX: Duration = Duration::from_millis(1);

/// All workers of a simulation.
#[derive(Default)]
pub(in crate::sim) struct Crews(Vec<State>);

/// The state of one group of workers.
#[derive(Default)]
struct State {
    threads: usize,
    waiting_max: usize,
    waiting: BTreeMap<Ticket, Work>,
    running: BTreeMap<(Duration, Ticket), Work>,
    last_ticket: u64,
    is_finished: bool,
}

struct Work {
    task: Task,
    /// The poller of the loop that asked for the work, if it dies with the loop.
    asker: Option<u32>,
}

impl Crews {
    /// Returns when the next piece of work is done.
    pub(in crate::sim) fn next_time(&self) -> Option<Duration> {
        self.0.iter().filter_map(|crew| crew.running.keys().next()).map(|(at, _)| *at).min()
    }

    fn forget(&mut self, poller: u32) -> Vec<Task> {
        let mut forgotten = Vec::new();
        for crew in &mut self.0 {
            let asked = |work: &Work| work.asker == Some(poller);
            let waiting: Vec<_> = crew.waiting.iter().filter(|(_, work)| asked(work)).map(|(key, _)| *key).collect();
            let running: Vec<_> = crew.running.iter().filter(|(_, work)| asked(work)).map(|(key, _)| *key).collect();
            let works = waiting.iter().filter_map(|key| crew.waiting.remove(key));
            forgotten.extend(works.map(|work| work.task));
            forgotten.extend(running.iter().filter_map(|key| crew.running.remove(key)).map(|work| work.task));
        }
        forgotten
    }
}

impl Net {
    fn add_crew(&mut self, threads: usize, waiting_max: usize) -> usize {
        self.crews.0.push(State { threads, waiting_max, ..State::default() });
        self.crews.0.len() - 1
    }

    /// Removes the work that a loop asked for, and returns it to be dropped.
    pub(in crate::sim) fn forget_work(&mut self, poller: u32) -> Vec<Task> {
        let forgotten = self.crews.forget(poller);
        (0..self.crews.0.len()).for_each(|index| self.start_work(index));
        forgotten
    }

    /// Queues work. Refused work comes back: it may use the network when it is dropped.
    fn submit(&mut self, index: usize, work: Work) -> Result<Ticket, (WorkError, Work)> {
        let crew = &mut self.crews.0[index];
        if crew.is_finished {
            return Err((WorkError::Finished, work));
        }
        if crew.running.len() >= crew.threads && crew.waiting.len() >= crew.waiting_max {
            return Err((WorkError::Full, work));
        }
        crew.last_ticket += 1;
        let ticket = Ticket(crew.last_ticket);
        crew.waiting.insert(ticket, work);
        self.start_work(index);
        Ok(ticket)
    }

    /// Lets free threads start with work that waits.
    fn start_work(&mut self, index: usize) {
        while self.crews.0[index].running.len() < self.crews.0[index].threads {
            let slow = self.faults.slow_work;
            let Some((ticket, work)) = self.crews.0[index].waiting.pop_first() else { return };
            let slow = self.occurs_for("slow_work", index as u32, slow);
            let at = self.now + slow.unwrap_or_else(|| self.random.time(WORK_TIME_MAX));
            self.crews.0[index].running.insert((at, ticket), work);
            self.note(Entry::StartsWork { crew: index, ticket: ticket.0 });
        }
    }

    /// Returns a piece of work whose time has come, to be run.
    pub(in crate::sim) fn take_work(&mut self) -> Option<Task> {
        let next = |crew: &State| crew.running.keys().next().copied();
        let (index, (at, ticket)) = self
            .crews
            .0
            .iter()
            .enumerate()
            .filter_map(|(index, crew)| Some((index, next(crew)?)))
            .min_by_key(|(_, key)| *key)?;
        if at > self.now {
            return None;
        }
        let work = self.crews.0[index].running.remove(&(at, ticket))?;
        self.note(Entry::EndsWork { crew: index, ticket: ticket.0 });
        self.start_work(index);
        Some(work.task)
    }
}

/// The handle of simulated workers.
pub(crate) struct Crew {
    handle: Handle,
    index: usize,
}

impl Crew {
    pub(in crate::sim) fn new(handle: Handle, threads: usize, waiting_max: usize) -> Self {
        let index = handle.lock().add_crew(threads, waiting_max);
        Self { handle, index }
    }

    pub(crate) fn waiting(&self) -> usize {
        self.handle.lock().crews.0[self.index].waiting.len()
    }

    pub(crate) fn finish(&self) {
        self.handle.lock().crews.0[self.index].is_finished = true;
    }

    pub(crate) fn submit(&self, task: Task, asker: Option<&Waker>) -> Result<Ticket, WorkError> {
        let asker = match asker {
            Some(Waker::Simulated(waker)) => Some(waker.poller()),
            _ => None,
        };
        let submitted = self.handle.lock().submit(self.index, Work { task, asker });
        submitted.map_err(|(error, _)| error)
    }

    pub(crate) fn withdraw(&self, ticket: Ticket) -> Option<Task> {
        self.handle.lock().crews.0[self.index].waiting.remove(&ticket).map(|work| work.task)
    }

    pub(crate) fn clock(&self) -> Clock {
        Clock::Simulated(self.handle.clone())
    }

    /// Looks a host up, as the system's resolver would.
    pub(crate) fn look_up(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let mut net = self.handle.lock();
        let failed = net.faults.failed_lookup;
        if net.occurs("failed_lookup", self.index as u32, failed) {
            return Err(io::Error::new(io::ErrorKind::NotFound, "no name server answers"));
        }
        let found = net.names.get(&canonical_name(host)).cloned();
        found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name is unknown"))
    }
}

/// Returns the spelling under which a name of a host is kept.
pub(super) fn canonical_name(host: &str) -> String {
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}
