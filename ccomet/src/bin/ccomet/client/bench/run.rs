//! A run: the loops, and what they are to do one after the other.

use std::mem::take;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use sealed::{Connect, EventLoop, Mailbox};

use super::load::{Load, Order, REPORT, Report};
use super::marker::Markers;
use super::plan::Plan;
use super::progress::Progress;
use super::publisher::{HEAD_START, Publisher};
use super::report::{Results, Second, Step};
use super::subscriber::Subscriber;
use super::tally::{Tally, histogram};

/// How long the number of subscribers may stay the same before the rest are given up.
const CONNECTING_MAX: Duration = Duration::from_secs(10);
/// How long publishers may wait for their last answers.
const ANSWERS_MAX: Duration = Duration::from_secs(10);
/// Messages that have not come when nothing has come for this time are lost.
const QUIET: Duration = Duration::from_secs(1);
const QUIET_MAX: Duration = Duration::from_secs(30);
/// How long a step without publications is held before the memory of the server is read.
const HOLD: Duration = Duration::from_secs(2);

/// What a loop has at its end.
struct Ended {
    tally: Tally,
    subscribers: Vec<Subscriber>,
    publishers: Vec<Publisher>,
}

/// The loops of a run, and what they have reported.
pub(super) struct Run {
    plan: Arc<Plan>,
    epoch: Instant,
    mailboxes: Vec<Mailbox<Order>>,
    threads: Vec<JoinHandle<Result<Ended, String>>>,
    reports: Receiver<Report>,
    latest: Vec<Option<Report>>,
    /// What has been counted up to the last full second.
    last: Tally,
    last_at: Duration,
    seconds: Vec<Second>,
    interrupted: Arc<AtomicBool>,
    /// The number of times that the user has interrupted.
    interruptions: u32,
    progress: Progress,
    results: Results,
}

impl Run {
    /// Starts the loops.
    pub(super) fn start(plan: Arc<Plan>, address: SocketAddr, loops: usize) -> Result<Self, String> {
        let epoch = Instant::now();
        let (sender, reports) = channel();
        let (mut mailboxes, mut threads) = (Vec::new(), Vec::new());
        for index in 0..loops {
            let (ready, is_ready) = channel();
            let (plan, sender) = (plan.clone(), sender.clone());
            let publishers = (index..plan.publishers).step_by(loops).map(Publisher::new).collect();
            let load = new_load(plan, Connect::to(address), sender, epoch);
            threads.push(std::thread::spawn(move || drive(Load { index, publishers, ..load }, &ready)));
            match is_ready.recv() {
                Ok(mailbox) => mailboxes.push(mailbox),
                Err(_) => break,
            }
        }
        let run = Self {
            results: Results::new(plan.clone(), loops),
            plan,
            epoch,
            threads,
            reports,
            latest: mailboxes.iter().map(|_| None).collect(),
            mailboxes,
            last: Tally::new(),
            last_at: Duration::ZERO,
            seconds: Vec::new(),
            interrupted: interruption()?,
            interruptions: 0,
            progress: Progress::new(),
        };
        if run.mailboxes.len() < loops {
            return Err(run.join().err().unwrap_or_else(|| "a loop does not start".to_owned()));
        }
        Ok(run)
    }

    /// Conducts the run to its end.
    pub(super) fn conduct(mut self, pid: Option<u32>) -> Result<Results, String> {
        for step in self.plan.steps.clone() {
            let began = self.epoch.elapsed();
            self.order(|index, loops| Order::Grow(Plan::share(step, index, loops)));
            self.wait_for_subscribers(step);
            let took = self.epoch.elapsed().saturating_sub(began);
            if pid.is_some() || self.plan.steps.len() > 1 {
                self.wait(HOLD, |_| false);
            }
            let (virt_kib, res_kib) = pid.map_or((None, None), memory);
            self.results.steps.push(Step { wanted: step, connected: self.ready(), took, virt_kib, res_kib });
            if self.ends_early() {
                break;
            }
        }
        let has_readers = self.ready() > 0 || self.plan.steps == [0];
        if self.plan.rate > 0.0 && has_readers && !self.ends_early() {
            self.publish();
        }
        self.results.connected = self.ready();
        self.order(|_, _| Order::End);
        self.finish()
    }

    fn publish(&mut self) {
        let start = self.epoch.elapsed();
        self.catch_up();
        (self.seconds, self.last_at) = (Vec::new(), self.epoch.elapsed());
        let until = start + HEAD_START + self.plan.duration;
        self.order(|_, _| Order::Publish(until));
        self.wait(until.saturating_sub(start), |_| false);
        self.results.published_for = self.epoch.elapsed().saturating_sub(start + HEAD_START);
        if self.ends_early() {
            self.order(|_, _| Order::Hush);
        }
        let is_done = |run: &Self| run.latest.iter().flatten().all(|report| report.is_done);
        self.wait_anyway(ANSWERS_MAX, is_done);
        let mut last = (self.count().delivered, Instant::now());
        self.wait_anyway(QUIET_MAX, |run| {
            let delivered = run.count().delivered;
            if delivered != last.0 {
                last = (delivered, Instant::now());
            }
            last.1.elapsed() >= QUIET
        });
    }

    fn wait_for_subscribers(&mut self, wanted: usize) {
        let mut last = (0, Instant::now());
        self.wait(Duration::MAX, |run| {
            let ready = run.ready();
            if ready > last.0 {
                last = (ready, Instant::now());
            }
            ready >= wanted || last.1.elapsed() >= CONNECTING_MAX
        });
    }

    /// Reads reports for this time, until the condition holds, until the user interrupts, or until
    /// the server has refused.
    fn wait(&mut self, time: Duration, mut is_over: impl FnMut(&Self) -> bool) {
        self.wait_anyway(time, |run| is_over(run) || run.ends_early());
    }

    /// Does the same, but only the second interruption ends it.
    fn wait_anyway(&mut self, time: Duration, mut is_over: impl FnMut(&Self) -> bool) {
        let began = Instant::now();
        loop {
            match self.reports.recv_timeout(REPORT.min(time.saturating_sub(began.elapsed()))) {
                Ok(report) => self.take(report),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.interruptions += u32::from(self.interrupted.swap(false, Ordering::Relaxed));
            let is_cut_short = self.interruptions > 1 || self.results.refusal.is_some();
            if is_cut_short || is_over(self) || began.elapsed() >= time {
                return;
            }
        }
    }

    fn take(&mut self, report: Report) {
        self.results.latency.add(&report.tally.latency).unwrap_or_default();
        self.last.latency.add(&report.tally.latency).unwrap_or_default();
        let index = report.index;
        if let Some(refusal) = report.refusal.as_ref().filter(|_| self.results.refusal.is_none()) {
            self.results.refusal = Some(refusal.clone());
        }
        if let Some(latest) = self.latest.get_mut(index) {
            *latest = Some(report);
        }
        let elapsed = self.epoch.elapsed().saturating_sub(self.last_at);
        if elapsed >= Duration::from_secs(1) {
            self.catch_up();
            if let Some(second) = self.seconds.last() {
                self.progress.show(self.epoch.elapsed(), self.ready(), second);
            }
        }
    }

    /// Ends a second of the series.
    fn catch_up(&mut self) {
        let (now, count) = (self.epoch.elapsed(), self.count());
        let latency = std::mem::replace(&mut self.last.latency, histogram());
        let time = now.saturating_sub(self.last_at);
        self.seconds.push(Second::new(time, &self.last, &count, &latency));
        (self.last, self.last_at) = (count, now);
    }

    /// Returns what all loops have counted.
    fn count(&self) -> Tally {
        let mut all = Tally::new();
        self.latest.iter().flatten().for_each(|report| all.add(&report.tally));
        all
    }

    fn ready(&self) -> usize {
        self.latest.iter().flatten().map(|report| report.ready).sum()
    }

    fn ends_early(&self) -> bool {
        self.interruptions > 0 || self.results.refusal.is_some()
    }

    fn order(&self, order: impl Fn(usize, usize) -> Order) {
        for (index, mailbox) in self.mailboxes.iter().enumerate() {
            // A loop that has ended is noticed at the end.
            let _ = mailbox.post(order(index, self.mailboxes.len()));
        }
    }

    /// Waits for the loops to end, and counts what has not been delivered.
    fn finish(mut self) -> Result<Results, String> {
        self.progress.clear();
        let mut results = std::mem::replace(&mut self.results, Results::new(self.plan.clone(), 0));
        results.seconds = take(&mut self.seconds);
        let plan = self.plan.clone();
        let loads = self.join()?;
        let mut published = vec![0; plan.publishers];
        for publisher in loads.iter().flat_map(|load| &load.publishers) {
            if let Some(count) = published.get_mut(publisher.number) {
                *count = publisher.next;
            }
        }
        for load in &loads {
            results.tally.add(&load.tally);
            for subscriber in &load.subscribers {
                results.tally.missing += subscriber.behind(&published, plan.channels);
            }
        }
        Ok(results)
    }

    fn join(self) -> Result<Vec<Ended>, String> {
        drop(self.mailboxes);
        let ended =
            self.threads.into_iter().map(|thread| thread.join().map_err(|_| "a loop has panicked".to_owned())?);
        ended.collect()
    }
}

/// Makes the load of a loop, without its publishers.
fn new_load(plan: Arc<Plan>, connect: Connect, reports: Sender<Report>, epoch: Instant) -> Load {
    Load {
        markers: Markers::new(plan.run),
        plan,
        connect,
        epoch,
        index: 0,
        subscribers: Vec::new(),
        publishers: Vec::new(),
        due: std::collections::BinaryHeap::new(),
        tally: Tally::new(),
        latency: histogram(),
        to_dial: Vec::new(),
        dialling: 0,
        ready: 0,
        publishes_until: None,
        is_over: false,
        refusal: None,
        reports,
        frames: Vec::new(),
    }
}

/// Runs a loop to its end.
fn drive(load: Load, ready: &Sender<Mailbox<Order>>) -> Result<Ended, String> {
    let config = sealed::Config {
        input_bytes_max: 1024 * 1024,
        drain_limit: Duration::from_millis(100),
        ..sealed::Config::default()
    };
    let mut event_loop = EventLoop::new(config, load).map_err(|error| error.to_string())?;
    let _ = ready.send(event_loop.mailbox());
    event_loop.run().map_err(|error| error.to_string())?;
    let load = event_loop.parts().0;
    let (subscribers, publishers) = (take(&mut load.subscribers), take(&mut load.publishers));
    Ok(Ended { tally: load.tally.clone(), subscribers, publishers })
}

/// Returns a flag that Ctrl-C sets: the first ends the publishing, and the second all waiting.
fn interruption() -> Result<Arc<AtomicBool>, String> {
    let flag = Arc::new(AtomicBool::new(false));
    #[cfg(unix)]
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        let registered = signal_hook::flag::register(signal, flag.clone());
        registered.map_err(|error| format!("cannot handle signals: {error}"))?;
    }
    Ok(flag)
}

/// Returns the virtual and the resident memory of a process, in KiB, where `/proc` has them.
pub(super) fn memory(pid: u32) -> (Option<u64>, Option<u64>) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let of = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse().ok()
    };
    (of("VmSize:"), of("VmRSS:"))
}
