//! The table of all metrics. The table in OPERATING.md shows the same.

use super::Page;
use super::limits::limits;
use crate::core::health::HealthProblem;
use crate::core::tally::{BOUNDS_MS, Durations, GapCause, PublishApi};
use crate::ops::counters::{Count, CountedDurations, LISTENERS, LoopCounters, Transport, sum};

/// The type of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// A row of the table.
pub(super) struct Metric {
    /// The name; that of a counter ends in `_total`.
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) meaning: &'static str,
    /// Returns its values; none if the server does not have what it is about.
    pub(super) read: fn(&Page) -> Vec<Sample>,
}

/// One value of a metric.
pub(super) struct Sample {
    /// Names and values. Both are texts of the program, and never come from outside.
    pub(super) labels: Vec<(&'static str, &'static str)>,
    pub(super) value: Value,
}

pub(super) enum Value {
    Whole(u64),
    Real(f64),
    /// The upper bounds in seconds, with the number of durations in each bucket, and the sum of the
    /// durations in seconds.
    Histogram {
        buckets: Vec<(f64, u64)>,
        sum: f64,
    },
}

/// The greatest bounds of the event loop's histogram that `ccomet_tick_seconds` shows, in powers of
/// two of a microsecond: from 64 µs to 4 s.
const TICK_BOUNDS: [usize; 9] = [6, 8, 10, 12, 14, 16, 18, 20, 22];

pub(super) static METRICS: [Metric; 40] = [
    gauge("ccomet_build_info", "The version of the server; always 1", |_| {
        vec![labelled(&[("version", env!("CARGO_PKG_VERSION"))], 1)]
    }),
    gauge("ccomet_start_time_seconds", "The time at which the server started, in seconds since 1970", start_time),
    gauge("ccomet_loops", "Event loops", |page| one(page.stats.len() as u64)),
    gauge("ccomet_draining", "Whether the server is shutting down", |page| one(page.moment.is_draining.into())),
    gauge("ccomet_problem", "Whether the server has this problem, as its health reports it", problems),
    gauge(
        "ccomet_connections",
        "Open connections, by what clients use them for now; `http` is everything but a wait for messages",
        connections,
    ),
    counter("ccomet_connections_total", "Connections that were accepted", accepted),
    counter("ccomet_bytes_total", "Bytes of all connections, those to the back end included", bytes),
    gauge("ccomet_subscribers", "Subscriptions, each with any number of channels", |page| {
        total(page, |one| &one.subscribers)
    }),
    counter(
        "ccomet_subscribes_total",
        "Subscriptions that were accepted, by whether they resumed at a position; each poll is one",
        subscribes,
    ),
    gauge("ccomet_channels", "Channels in memory that accept messages", |page| total(page, |one| &one.channels)),
    gauge("ccomet_patterns", "Patterns that are followed", |page| total(page, |one| &one.patterns)),
    gauge("ccomet_members", "Members of channels, counted in each channel", |page| total(page, |one| &one.members)),
    counter("ccomet_publishes_total", "Messages that were published, or refused after they were read", publishes),
    counter("ccomet_deliveries_total", "Messages that were passed to subscribers, counted for each", |page| {
        total(page, |one| &one.deliveries)
    }),
    counter(
        "ccomet_gaps_total",
        "Gaps of subscribers: too slow while connected, too late to resume, the channel was numbered anew, or the store could not read",
        gaps,
    ),
    counter("ccomet_missed_total", "Messages in gaps, as far as their number is known", |page| {
        total(page, |one| &one.missed)
    }),
    counter("ccomet_refused_total", "Refusals of requests and connections, by error code", refusals),
    counter("ccomet_reloads_total", "Reloads of the settings", |page| {
        results(page, ["refused", "applied"], |one| &one.reloads)
    }),
    counter("ccomet_key_set_fetches_total", "Fetches of the key set at auth.jwks_url", |page| {
        results(page, ["failed", "fetched"], |one| &one.key_sets)
    }),
    gauge("ccomet_history_bytes", "Bytes of history in memory, as history.total_bytes_max counts them", |page| {
        total(page, |one| &one.history_bytes)
    }),
    counter(
        "ccomet_history_dropped_total",
        "Messages that were dropped: by the limits of their channel, or by history.total_bytes_max",
        dropped,
    ),
    gauge("ccomet_limit", "Limits of the whole server, by setting", |page| {
        limits(page).map(|limit| labelled(&[("name", limit.name)], limit.most)).collect()
    }),
    gauge("ccomet_limit_used", "What is used of a limit", |page| {
        limits(page).map(|limit| labelled(&[("name", limit.name)], limit.used)).collect()
    }),
    histogram(
        "ccomet_fanout_seconds",
        "Time from accepting a message until a loop has passed it to its subscribers, to the millisecond; messages of one channel that are passed on together count once",
        |page| durations(page, |one| &one.fan_out),
    ),
    histogram("ccomet_tick_seconds", "Time of the ticks of the event loops, without waiting", ticks),
    histogram(
        "ccomet_hook_seconds",
        "Time from a question to the back end until its answer, to the millisecond, with the wait for its turn",
        |page| durations(page, |one| &one.hook_answers),
    ),
    counter(
        "ccomet_hook_errors_total",
        "Questions and reports to the back end that failed, and questions that were given up",
        |page| total(page, |one| &one.hook_errors),
    ),
    gauge("ccomet_hook_queue", "Questions to the back end that are not answered yet", |page| {
        total(page, |one| &one.hook_queue)
    }),
    histogram(
        "ccomet_store_commit_seconds",
        "Time from handing publications of a loop to the disk until they are kept, to the millisecond",
        |page| of_store(page, |page| durations(page, |one| &one.store_commits)),
    ),
    counter("ccomet_store_pages_total", "Parts of histories that were read from the disk", |page| {
        of_store(page, |page| total(page, |one| &one.store_pages))
    }),
    counter("ccomet_store_written_bytes_total", "Bytes that were written to the message log", |page| {
        page.moment.store.map_or_else(Vec::new, |store| one(store.written_bytes))
    }),
    gauge("ccomet_store_waiting_bytes", "Bytes of publications that wait for the disk", |page| {
        page.moment.store.map_or_else(Vec::new, |store| one(store.waiting_bytes))
    }),
    gauge("ccomet_store_log_bytes", "Bytes of the message log, after the last checkpoint", |page| {
        log(page, |(_, bytes)| bytes)
    }),
    gauge("ccomet_store_segments", "Segments of the message log, after the last checkpoint", |page| {
        log(page, |(segments, _)| segments)
    }),
    counter("process_cpu_seconds_total", "Processor time of the process, on Linux", |page| {
        process(page, |process| Value::Real(process.cpu_s))
    }),
    gauge("process_resident_memory_bytes", "Memory of the process, on Linux", |page| {
        process(page, |process| Value::Whole(process.resident_bytes))
    }),
    gauge("process_threads", "Threads of the process, on Linux", |page| {
        process(page, |process| Value::Whole(process.threads))
    }),
    gauge("process_open_fds", "Open descriptors of the process, on Linux 6.2 and later", |page| {
        page.process.as_ref().and_then(|process| process.descriptors).map_or_else(Vec::new, one)
    }),
    gauge("process_max_fds", "Limit of the open descriptors, on Linux", |page| {
        page.process.as_ref().and_then(|process| process.descriptors_max).map_or_else(Vec::new, one)
    }),
];

const fn gauge(name: &'static str, meaning: &'static str, read: fn(&Page) -> Vec<Sample>) -> Metric {
    Metric { name, kind: Kind::Gauge, meaning, read }
}

const fn counter(name: &'static str, meaning: &'static str, read: fn(&Page) -> Vec<Sample>) -> Metric {
    Metric { name, kind: Kind::Counter, meaning, read }
}

const fn histogram(name: &'static str, meaning: &'static str, read: fn(&Page) -> Vec<Sample>) -> Metric {
    Metric { name, kind: Kind::Histogram, meaning, read }
}

fn labelled(labels: &[(&'static str, &'static str)], value: u64) -> Sample {
    Sample { labels: labels.to_vec(), value: Value::Whole(value) }
}

/// Returns a value without labels.
fn one(value: u64) -> Vec<Sample> {
    vec![labelled(&[], value)]
}

/// Returns the sum of a number over all loops.
fn total(page: &Page, of: impl Fn(&LoopCounters) -> &Count) -> Vec<Sample> {
    one(page.sum(of))
}

impl Page {
    pub(super) fn sum(&self, of: impl Fn(&LoopCounters) -> &Count) -> u64 {
        sum(&self.metrics.counters, of)
    }
}

/// Returns values of the store, if there is one that has any.
fn of_store(page: &Page, read: impl Fn(&Page) -> Vec<Sample>) -> Vec<Sample> {
    if page.moment.store.is_some() { read(page) } else { Vec::new() }
}

fn log(page: &Page, part: impl Fn((u64, u64)) -> u64) -> Vec<Sample> {
    page.moment.store.and_then(|store| store.log).map_or_else(Vec::new, |log| one(part(log)))
}

fn process(page: &Page, part: impl Fn(&super::Process) -> Value) -> Vec<Sample> {
    page.process.iter().map(|process| Sample { labels: Vec::new(), value: part(process) }).collect()
}

#[allow(clippy::cast_precision_loss)] // 53 bits of milliseconds are enough
fn seconds(millis: u64) -> f64 {
    millis as f64 / 1_000.0
}

fn start_time(page: &Page) -> Vec<Sample> {
    let started = page.metrics.started.get();
    let sample = |time: &crate::core::time::UnixMillis| Sample {
        labels: Vec::new(),
        value: Value::Real(seconds(time.as_millis())),
    };
    started.map(sample).into_iter().collect()
}

fn problems(page: &Page) -> Vec<Sample> {
    let problems = HealthProblem::ALL.into_iter().filter(|problem| *problem != HealthProblem::Draining);
    let is_there = |problem: HealthProblem| page.moment.problems.contains(&problem);
    problems.map(|problem| labelled(&[("code", problem.texts().0)], is_there(problem).into())).collect()
}

fn connections(page: &Page) -> Vec<Sample> {
    let mut samples = Vec::new();
    for (door, listener) in LISTENERS.into_iter().enumerate() {
        for (kind, transport) in Transport::OF_CONNECTIONS.into_iter().enumerate() {
            let open = page.sum(|one| &one.connections[door][kind]);
            samples.push(labelled(&[("listener", listener), ("transport", transport)], open));
        }
    }
    samples
}

fn accepted(page: &Page) -> Vec<Sample> {
    let of = |(door, listener)| labelled(&[("listener", listener)], page.sum(|one| &one.accepted[door]));
    LISTENERS.into_iter().enumerate().map(of).collect()
}

fn bytes(page: &Page) -> Vec<Sample> {
    let (received, sent) = page
        .stats
        .iter()
        .fold((0, 0), |(received, sent), stats| (received + stats.bytes_received, sent + stats.bytes_sent));
    vec![labelled(&[("direction", "in")], received), labelled(&[("direction", "out")], sent)]
}

fn subscribes(page: &Page) -> Vec<Sample> {
    let mut samples = Vec::new();
    // No subscription has the transport `http`.
    for (kind, transport) in Transport::ALL.into_iter().enumerate().skip(1) {
        for (resumed, text) in ["no", "yes"].into_iter().enumerate() {
            let count = page.sum(|one| &one.subscribes[kind][resumed]);
            samples.push(labelled(&[("transport", transport), ("resumed", text)], count));
        }
    }
    samples
}

fn publishes(page: &Page) -> Vec<Sample> {
    let mut samples = Vec::new();
    for (api, name) in PublishApi::NAMES.into_iter().enumerate() {
        for (accepted, result) in ["refused", "accepted"].into_iter().enumerate() {
            let count = page.sum(|one| &one.publishes[api][accepted]);
            samples.push(labelled(&[("api", name), ("result", result)], count));
        }
    }
    samples
}

fn gaps(page: &Page) -> Vec<Sample> {
    let of = |(cause, name)| labelled(&[("reason", name)], page.sum(|one| &one.gaps[cause]));
    GapCause::NAMES.into_iter().enumerate().map(of).collect()
}

fn refusals(page: &Page) -> Vec<Sample> {
    page.metrics.refusals.totals().map(|(code, count)| labelled(&[("code", code)], count)).collect()
}

/// Returns how often something has failed and succeeded.
fn results(page: &Page, names: [&'static str; 2], of: impl Fn(&LoopCounters) -> &[Count; 2]) -> Vec<Sample> {
    let sample = |(index, name)| labelled(&[("result", name)], page.sum(|one| &of(one)[index]));
    names.into_iter().enumerate().map(sample).collect()
}

fn dropped(page: &Page) -> Vec<Sample> {
    let (channel, all) = (page.sum(|one| &one.trimmed), page.sum(|one| &one.evicted));
    vec![labelled(&[("why", "channel_limits")], channel), labelled(&[("why", "total_bytes_max")], all)]
}

/// Returns the sum of a histogram over all loops.
fn durations(page: &Page, of: impl Fn(&LoopCounters) -> &CountedDurations) -> Vec<Sample> {
    let mut all = Durations::default();
    for one in page.metrics.counters.iter() {
        of(one).add_to(&mut all);
    }
    let bounds = BOUNDS_MS.into_iter().map(seconds).chain([f64::INFINITY]);
    let value = Value::Histogram { buckets: bounds.zip(all.counts).collect(), sum: seconds(all.sum_ms) };
    vec![Sample { labels: Vec::new(), value }]
}

fn ticks(page: &Page) -> Vec<Sample> {
    let mut counts = [0; TICK_BOUNDS.len() + 1];
    let mut sum = 0.0;
    for stats in &page.stats {
        for (bucket, (_, count)) in stats.tick_lengths.buckets().enumerate() {
            counts[TICK_BOUNDS.partition_point(|bound| *bound < bucket)] += count;
        }
        sum += stats.busy.as_secs_f64();
    }
    let bounds = TICK_BOUNDS.into_iter().map(|power| f64::from(1_u32 << power) / 1e6).chain([f64::INFINITY]);
    let value = Value::Histogram { buckets: bounds.zip(counts).collect(), sum };
    vec![Sample { labels: Vec::new(), value }]
}
