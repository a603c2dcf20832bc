//! The metrics of the server, summed over its loops, in the text format of Prometheus.
//!
//! - `table.rs`: the table of all metrics: name, type, meaning, and where the values come from.
//! - `limits.rs`: the limits of the server, with what is used of them.
//! - `process.rs`: what the operating system reports about the process.
//!
//! All label values are texts of the program, so their number is bounded.

mod limits;
mod process;
mod table;

use std::fmt;
use std::sync::{Arc, OnceLock};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::prometheus_text::{self, CONTENT_TYPE};
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use sealed::{Stats, Watch};

use self::process::Process;
use self::table::{Kind, METRICS, Sample, Value};
use crate::config::Config;
use crate::core::health::HealthProblem;
use crate::core::tally::StoreFigures;
use crate::core::time::UnixMillis;
use crate::ops::console::Console;
use crate::ops::counters::LoopCounters;
use crate::ops::refusals::RefusalCounts;

/// What the metrics of a server are made of. All loops share it.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) counters: Arc<[LoopCounters]>,
    /// The event loop's own counters, for each loop.
    pub(crate) watches: Vec<Watch>,
    pub(crate) refusals: Arc<RefusalCounts>,
    pub(crate) console: Arc<Console>,
    pub(crate) started: OnceLock<UnixMillis>,
    /// Set if the process is that of the server, and not of a simulation.
    pub(crate) has_process: bool,
}

/// What only the loop that answers can say.
#[derive(Debug)]
pub(crate) struct Moment {
    /// The settings in force.
    pub(crate) config: Arc<Config>,
    /// The problems of the server, other than that it is shutting down.
    pub(crate) problems: Vec<HealthProblem>,
    pub(crate) is_draining: bool,
    pub(crate) store: Option<StoreFigures>,
}

/// All that one page shows.
#[derive(Debug)]
struct Page {
    metrics: Arc<Metrics>,
    moment: Moment,
    stats: Vec<Stats>,
    process: Option<Process>,
}

impl Metrics {
    /// Returns the content type of [`page`](Self::page).
    pub(crate) const CONTENT_TYPE: &str = CONTENT_TYPE;

    /// Returns all metrics as text.
    pub(crate) fn page(self: &Arc<Self>, moment: Moment) -> String {
        let stats = self.watches.iter().map(Watch::stats).collect();
        let process = if self.has_process { Process::read() } else { None };
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Page { metrics: self.clone(), moment, stats, process }));
        let mut text = String::new();
        if let Err(error) = prometheus_text::encode(&mut text, &registry) {
            tracing::error!(%error, "cannot write the metrics");
        }
        text
    }
}

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for metric in &METRICS {
            let samples = (metric.read)(self);
            if samples.is_empty() {
                continue;
            }
            let (kind, suffix) = match metric.kind {
                Kind::Counter => (MetricType::Counter, "_total"),
                Kind::Gauge => (MetricType::Gauge, ""),
                Kind::Histogram => (MetricType::Histogram, ""),
            };
            // The encoder adds the suffix.
            let name = metric.name.strip_suffix(suffix).unwrap_or(metric.name);
            let mut family = encoder.encode_descriptor(name, metric.meaning, None, kind)?;
            for Sample { labels, value } in &samples {
                let labels = labels.as_slice();
                write_value(&mut family.encode_family(&labels)?, metric.kind, value)?;
            }
        }
        Ok(())
    }
}

fn write_value(out: &mut MetricEncoder<'_>, kind: Kind, value: &Value) -> fmt::Result {
    match (kind, value) {
        (Kind::Counter, Value::Whole(value)) => out.encode_counter::<NoLabelSet, u64, u64>(value, None),
        (Kind::Counter, Value::Real(value)) => out.encode_counter::<NoLabelSet, f64, f64>(value, None),
        (_, Value::Whole(value)) => out.encode_gauge(value),
        (_, Value::Real(value)) => out.encode_gauge(value),
        (_, Value::Histogram { buckets, sum }) => {
            let count = buckets.iter().map(|(_, count)| count).sum();
            out.encode_histogram::<NoLabelSet>(*sum, count, buckets, None)
        }
    }
}
