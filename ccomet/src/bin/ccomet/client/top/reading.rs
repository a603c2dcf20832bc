//! One reading of a server: its metrics, its health, and its channels.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use sealed_http::client::Fetch;
use serde::Deserialize;

use crate::client::call::{Answer, Caller};
use crate::client::place::{Place, query};
use crate::client::{printable, refusal, with_token};

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(5);
/// The channels of a page of the list, and the pages of a reading.
const PAGE: usize = 1_000;
const PAGES_MAX: usize = 5;

/// Reads a server, over a kept connection.
pub(super) struct Reader {
    caller: Caller,
    place: Place,
    token: Option<String>,
}

/// What a server has reported at one time.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) at: Instant,
    /// The metrics, by name and labels as the page has them.
    values: BTreeMap<String, f64>,
    /// What is wrong with the server, by its own account.
    pub(super) problems: Vec<String>,
    pub(super) is_ready: bool,
    pub(super) channels: HashMap<String, Channel>,
    /// There are more channels than a reading has.
    pub(super) has_more: bool,
}

/// An entry of the list of channels.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Channel {
    #[serde(rename = "channel")]
    name: String,
    position: String,
    pub(super) subscribers: u64,
    pub(super) messages: u64,
    pub(super) bytes: u64,
}

#[derive(Debug, Deserialize)]
struct Page {
    channels: Vec<Channel>,
    next: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Health {
    ok: bool,
    problems: Vec<Problem>,
}

#[derive(Debug, Deserialize)]
struct Problem {
    code: String,
    reason: String,
}

impl Reader {
    pub(super) fn new(place: &Place, token: Option<String>) -> Result<Self, Box<dyn std::error::Error>> {
        Ok(Self { caller: Caller::new(place)?, place: place.clone(), token })
    }

    /// Reads the server once.
    pub(super) fn read(&mut self) -> Result<Reading, Box<dyn std::error::Error>> {
        let metrics = self.get("/metrics", &[200])?;
        let at = Instant::now();
        let values = parse(&String::from_utf8_lossy(&metrics.body));
        if !values.keys().any(|name| name.starts_with("ccomet_")) {
            return Err("the page /metrics has no metrics of ccomet; is it the admin listener?".into());
        }
        let health = self.get("/health/ready", &[200, 503])?;
        let health: Health = serde_json::from_slice(&health.body)?;
        let problems = health.problems.iter().map(|Problem { code, reason }| printable(&format!("{code}: {reason}")));
        let (problems, is_ready) = (problems.collect(), health.ok);
        let (mut channels, mut next) = (HashMap::new(), Some(String::new()));
        for _ in 0..PAGES_MAX {
            let Some(after) = next.take() else { break };
            let after = Some(after).filter(|after| !after.is_empty());
            let parameters = query(&[("limit", Some(PAGE.to_string())), ("after", after)]);
            let page: Page = serde_json::from_slice(&self.get(&format!("/channels{parameters}"), &[200])?.body)?;
            channels.extend(page.channels.into_iter().map(|channel| (channel.name.clone(), channel)));
            next = page.next;
        }
        Ok(Reading { at, values, problems, is_ready, channels, has_more: next.is_some() })
    }

    fn get(&mut self, target: &str, expected: &[u16]) -> Result<Answer, Box<dyn std::error::Error>> {
        let fetch = Fetch::get(self.place.target(target))?.limit(Some(LIMIT)).body_bytes_max(16 * 1024 * 1024);
        let answer = self.caller.call(&with_token(fetch, self.token.as_deref())?)?;
        if !expected.contains(&answer.status) {
            return Err(format!("{target}: {}", refusal(answer.status, &answer.body)).into());
        }
        Ok(answer)
    }
}

/// Parses a page in the text format of Prometheus.
fn parse(page: &str) -> BTreeMap<String, f64> {
    let samples = page.lines().filter(|line| !line.starts_with('#'));
    samples
        .filter_map(|line| line.rsplit_once(' '))
        .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
        .collect()
}

impl Reading {
    /// Returns a metric, named with its labels; `None` if the server has none.
    pub(super) fn get(&self, name: &str) -> Option<f64> {
        self.values.get(name).copied()
    }

    /// Returns the values of a metric with labels, by the text of the labels.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a str, f64)> + 'a {
        let with_labels = self.values.range(name.to_owned()..).take_while(move |(held, _)| held.starts_with(name));
        with_labels.filter_map(move |(held, value)| {
            Some((held.strip_prefix(name)?.strip_prefix('{')?.strip_suffix('}')?, *value))
        })
    }

    /// Returns the sum of a metric over the labels that have this text in them.
    pub(super) fn sum(&self, name: &str, label: &str) -> f64 {
        self.all(name).filter(|(labels, _)| labels.contains(label)).map(|(_, value)| value).sum()
    }

    /// Returns the upper bound of a percentile of a histogram since an earlier reading, in seconds;
    /// `None` if nothing has been recorded.
    pub(super) fn percentile(&self, before: &Self, name: &str, percentile: f64) -> Option<f64> {
        let bucket = format!("{name}_bucket");
        let mut buckets: Vec<(f64, f64)> = Vec::new();
        for (labels, count) in self.all(&bucket) {
            let bound = labels.strip_prefix("le=\"")?.strip_suffix('"')?;
            let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().ok()? };
            let earlier = before.get(&format!("{bucket}{{{labels}}}")).unwrap_or(0.0);
            buckets.push((bound, (count - earlier).max(0.0)));
        }
        buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
        let total = buckets.last().map_or(0.0, |(_, count)| *count);
        let wanted = total * percentile / 100.0;
        buckets.iter().find(|(_, count)| total > 0.0 && *count >= wanted).map(|(bound, _)| *bound)
    }
}

impl Channel {
    /// Returns how many messages have been published since an earlier reading; 0 if the numbers of
    /// the channel have begun anew.
    pub(super) fn published_since(&self, before: Option<&Self>) -> u64 {
        // The number is behind the epoch, to the base of 32.
        let spot = |channel: &Self| {
            let (epoch, number) = channel.position.split_once('-')?;
            Some((epoch.to_owned(), u64::from_str_radix(number, 32).ok()?))
        };
        match (spot(self), before.and_then(spot)) {
            (Some((epoch, now)), Some((same, before))) if epoch == same => now.saturating_sub(before),
            _ => 0,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Makes a reading of a page of metrics.
    pub(in crate::client::top) fn reading(page: &str) -> Reading {
        Reading {
            at: Instant::now(),
            values: parse(page),
            problems: Vec::new(),
            is_ready: true,
            channels: HashMap::new(),
            has_more: false,
        }
    }

    #[test]
    fn percentiles_are_those_of_the_interval() {
        let page = |counts: [u32; 3]| {
            let [one, two, all] = counts;
            format!(
                "# TYPE x_seconds histogram\nx_seconds_bucket{{le=\"0.001\"}} {one}\nx_seconds_bucket{{le=\"0.01\"}} {two}\n\
                 x_seconds_bucket{{le=\"+Inf\"}} {all}\nx_seconds_count {all}\n"
            )
        };
        let (before, now) = (reading(&page([100, 100, 100])), reading(&page([106, 109, 110])));
        assert_eq!(now.percentile(&before, "x_seconds", 50.0), Some(0.001));
        assert_eq!(now.percentile(&before, "x_seconds", 90.0), Some(0.01));
        assert_eq!(now.percentile(&before, "x_seconds", 99.0), Some(f64::INFINITY));
        assert_eq!(now.percentile(&now, "x_seconds", 50.0), None);
    }

    #[test]
    fn metrics_are_summed_by_labels() {
        let now = reading("a{x=\"1\",y=\"in\"} 2\na{x=\"2\",y=\"in\"} 3\nab{y=\"in\"} 9\na_b 7\n");
        assert_eq!((now.sum("a", "y=\"in\""), now.sum("a", "x=\"2\""), now.get("a_b")), (5.0, 3.0, Some(7.0)));
    }

    #[test]
    fn what_a_channel_has_published_is_read_from_its_positions() {
        let at = |position: &str| Channel {
            name: "c".to_owned(),
            position: position.to_owned(),
            subscribers: 0,
            messages: 0,
            bytes: 0,
        };
        assert_eq!(at("038h-000000010").published_since(Some(&at("038h-00000000v"))), 1);
        assert_eq!(at("038i-000000010").published_since(Some(&at("038h-00000000v"))), 0);
        assert_eq!(at("?").published_since(None), 0);
    }
}
