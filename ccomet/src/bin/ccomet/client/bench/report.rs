//! The results of a run, as text and as JSON.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::plan::Plan;
use super::tally::{Tally, histogram};
use super::{grouped, millis, rounded};
use crate::client::Outcome;

/// The percentiles that are printed.
pub(super) const PERCENTILES: [(&str, f64); 5] =
    [("50", 50.0), ("90", 90.0), ("99", 99.0), ("99.9", 99.9), ("max", 100.0)];

/// The results of a run.
#[derive(Debug)]
pub(super) struct Results {
    plan: Arc<Plan>,
    loops: usize,
    pub(super) tally: Tally,
    pub(super) latency: Histogram<u64>,
    pub(super) connected: usize,
    /// Why the run has ended early: the words of the server.
    pub(super) refusal: Option<String>,
    pub(super) published_for: Duration,
    pub(super) steps: Vec<Step>,
    pub(super) seconds: Vec<Second>,
}

/// A number of subscribers that was reached.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) wanted: usize,
    pub(super) connected: usize,
    pub(super) took: Duration,
    pub(super) virt_kib: Option<u64>,
    pub(super) res_kib: Option<u64>,
}

/// What happened in about a second: rates for each second, and latencies in microseconds for
/// [`PERCENTILES`], if a message was delivered.
#[derive(Debug)]
pub(super) struct Second {
    time: Duration,
    pub(super) published: f64,
    pub(super) delivered: f64,
    pub(super) latency_us: Option<[u64; 5]>,
}

impl Second {
    pub(super) fn new(time: Duration, before: &Tally, after: &Tally, latency: &Histogram<u64>) -> Self {
        Self {
            time,
            published: rate(after.published.saturating_sub(before.published), time),
            delivered: rate(after.delivered.saturating_sub(before.delivered), time),
            latency_us: percentiles(latency),
        }
    }
}

fn percentiles(latency: &Histogram<u64>) -> Option<[u64; 5]> {
    (!latency.is_empty()).then(|| PERCENTILES.map(|(_, percentile)| latency.value_at_percentile(percentile)))
}

#[allow(clippy::cast_precision_loss)] // for people
fn rate(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64().max(1e-9)
}

impl Results {
    pub(super) fn new(plan: Arc<Plan>, loops: usize) -> Self {
        Self {
            plan,
            loops,
            tally: Tally::new(),
            latency: histogram(),
            connected: 0,
            refusal: None,
            published_for: Duration::ZERO,
            steps: Vec::new(),
            seconds: Vec::new(),
        }
    }

    /// Returns the number of subscribers that were wanted.
    fn wanted(&self) -> usize {
        self.steps.last().map_or(0, |step| step.wanted)
    }

    /// Returns a line that describes the run.
    pub(super) fn title(&self) -> String {
        let Plan { transport, rate, size, .. } = &*self.plan;
        let (subscribers, transport) = (grouped(self.connected as u64), transport.name());
        format!("{subscribers} subscribers ({transport}), {rate} messages/s of {size} bytes")
    }

    /// Returns the table.
    pub(super) fn text(&self) -> String {
        let Tally { published, refused, uncertain, delivered, bytes, .. } = self.tally;
        let time = self.published_for;
        let mut rows = vec![
            (
                "server",
                format!(
                    "{}, {}, loops of this client: {}",
                    self.plan.place.authority(),
                    self.plan.transport.name(),
                    self.loops
                ),
            ),
            (
                "subscribers",
                format!("{} of {} connected at the end", grouped(self.connected as u64), grouped(self.wanted() as u64)),
            ),
            (
                "connections",
                format!(
                    "{} made, {} lost, {} attempts failed",
                    grouped(self.tally.connects),
                    grouped(self.tally.lost_connections),
                    grouped(self.tally.failed_connects)
                ),
            ),
        ];
        if published + refused + uncertain > 0 {
            let unsure =
                if uncertain > 0 { format!(", {} without an answer", grouped(uncertain)) } else { String::new() };
            rows.push((
                "published",
                format!(
                    "{} in {:.1} s, {:.1}/s of {:.1}/s; {} refused{unsure}",
                    grouped(published),
                    time.as_secs_f64(),
                    rate(published, time),
                    self.plan.rate,
                    grouped(refused)
                ),
            ));
            rows.push((
                "delivered",
                format!(
                    "{}, {}/s, {:.1} MB/s",
                    grouped(delivered),
                    rounded(rate(delivered, time)),
                    rate(bytes, time) / 1e6
                ),
            ));
            rows.push(("lost", grouped(self.tally.missing)));
            rows.push(("duplicates", grouped(self.tally.duplicates)));
            rows.push(("out of order", grouped(self.tally.out_of_order)));
            rows.extend(self.latency_rows());
        }
        let mut text = String::new();
        for (name, value) in rows {
            let _ = writeln!(text, "{name:<13} {value}");
        }
        self.write_steps(&mut text);
        for (error, count) in &self.tally.errors {
            let _ = writeln!(text, "{} times: {error}", grouped(*count));
        }
        if self.wanted() > self.connected && self.tally.errors.keys().any(|text| text.contains("address not available"))
        {
            text.push_str("This machine has no more local ports for the server: see net.ipv4.ip_local_port_range.\n");
        }
        text
    }

    fn latency_rows(&self) -> Vec<(&'static str, String)> {
        let Some(latencies) = percentiles(&self.latency) else { return vec![("latency", "none".to_owned())] };
        let rows = PERCENTILES.iter().zip(latencies).enumerate().map(|(index, ((name, _), us))| {
            let unit = if *name == "max" { "" } else { " %" };
            let title = if index == 0 { "latency" } else { "" };
            (title, format!("{:<7} {:>10}", format!("{name}{unit}"), millis(us)))
        });
        rows.collect()
    }

    fn write_steps(&self, text: &mut String) {
        if self.steps.len() < 2 && self.steps.iter().all(|step| step.res_kib.is_none()) {
            return;
        }
        let _ = writeln!(text, "\n| subscribers | connected | in | VIRT | RES |\n| ---: | ---: | ---: | ---: | ---: |");
        let mib =
            |kib: Option<u64>| kib.map_or_else(|| "unknown".to_owned(), |kib| format!("{} MiB", grouped(kib / 1_024)));
        for Step { wanted, connected, took, virt_kib, res_kib } in &self.steps {
            let (wanted, connected) = (grouped(*wanted as u64), grouped(*connected as u64));
            let (took, virt, res) = (took.as_secs_f64(), mib(*virt_kib), mib(*res_kib));
            let _ = writeln!(text, "| {wanted} | {connected} | {took:.1} s | {virt} | {res} |");
        }
    }

    /// Returns all results for programs. Latencies are in microseconds, times in seconds.
    pub(super) fn json(&self) -> Value {
        let latency = |us: Option<[u64; 5]>| {
            let Some(us) = us else { return Value::Null };
            let pairs = PERCENTILES.iter().zip(us).map(|((name, _), us)| ((*name).to_owned(), json!(us)));
            Value::Object(pairs.collect())
        };
        let Tally { published, refused, uncertain, delivered, bytes, missing, duplicates, out_of_order, .. } =
            self.tally;
        let Tally { connects, lost_connections, failed_connects, .. } = self.tally;
        json!({
            "server": self.plan.place.authority(), "transport": self.plan.transport.name(),
            "subscribers": self.wanted(), "connected": self.connected, "publishers": self.plan.publishers,
            "channels": self.plan.channels, "size": self.plan.size, "rate": self.plan.rate,
            "loops": self.loops, "seconds": self.published_for.as_secs_f64(),
            "connections": { "made": connects, "lost": lost_connections, "failed": failed_connects },
            "published": published, "refused": refused, "without_answer": uncertain,
            "delivered": delivered, "bytes": bytes,
            "lost": missing, "duplicates": duplicates, "out_of_order": out_of_order,
            "latency_us": latency(percentiles(&self.latency)),
            "errors": self.tally.errors,
            "steps": self.steps.iter().map(|step| json!({
                "subscribers": step.wanted, "connected": step.connected, "seconds": step.took.as_secs_f64(),
                "virt_kib": step.virt_kib, "res_kib": step.res_kib,
            })).collect::<Vec<_>>(),
            "series": self.seconds.iter().map(|second| json!({
                "seconds": second.time.as_secs_f64(), "published_per_s": second.published,
                "delivered_per_s": second.delivered, "latency_us": latency(second.latency_us),
            })).collect::<Vec<_>>(),
        })
    }

    /// Returns the times of the series since its start, in seconds, each with its latencies in
    /// milliseconds.
    pub(super) fn series(&self) -> Vec<(f64, [f64; 5])> {
        let mut at = 0.0;
        let points = self.seconds.iter().filter_map(|second| {
            at += second.time.as_secs_f64();
            let ms = second.latency_us?.map(|us| Duration::from_micros(us).as_secs_f64() * 1_000.0);
            Some((at, ms))
        });
        points.collect()
    }

    /// Fails if there was nothing to measure.
    pub(super) fn check(&self) -> Outcome {
        if let Some(refusal) = &self.refusal {
            return Err(refusal.as_str().into());
        }
        let has_published = !self.published_for.is_zero();
        let failure = if self.wanted() > 0 && self.connected == 0 {
            if self.steps.iter().any(|step| step.connected > 0) {
                "no subscriber is connected any more"
            } else {
                "no subscriber has subscribed"
            }
        } else if has_published && self.tally.published == 0 {
            "the server has accepted no message"
        } else if has_published && self.tally.delivered == 0 && self.wanted() > 0 {
            "no message was delivered"
        } else {
            return Ok(());
        };
        Err(failure.into())
    }
}
