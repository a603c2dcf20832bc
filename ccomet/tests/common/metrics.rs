//! The page of metrics, as a scraper reads it.

use std::collections::{BTreeMap, BTreeSet};

use testing::http::Reply;

use super::stage::Stage;

/// Returns the rows of the table of metrics in OPERATING.md.
pub fn documented() -> Vec<&'static str> {
    let lines = include_str!("../../OPERATING.md").lines();
    lines.filter(|line| line.starts_with("| `ccomet_") || line.starts_with("| `process_")).collect()
}

/// A page of metrics.
pub struct Metrics {
    pub families: Vec<Family>,
    /// The values, by name and labels as the page has them.
    pub values: BTreeMap<String, f64>,
}

/// A metric on a page.
pub struct Family {
    pub name: String,
    pub kind: String,
    pub meaning: String,
    /// The names of the labels.
    pub labels: BTreeSet<String>,
}

impl Metrics {
    /// Reads a page. Panics if it is malformed.
    pub fn read(page: &str) -> Self {
        let (mut families, mut values) = (Vec::<Family>::new(), BTreeMap::new());
        for line in page.lines() {
            if let Some((name, meaning)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
                assert!(families.iter().all(|family| family.name != name), "{name} is there twice");
                let (name, meaning) = (name.to_owned(), meaning.to_owned());
                families.push(Family { name, kind: String::new(), meaning, labels: BTreeSet::new() });
                continue;
            }
            let family = families.last_mut().expect("a family");
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let kind = rest.strip_prefix(&format!("{} ", family.name)).expect("the name of its family");
                kind.clone_into(&mut family.kind);
                continue;
            }
            let (sample, value) = line.rsplit_once(' ').expect("a value");
            assert!(sample.starts_with(&family.name), "{line} in {}", family.name);
            if let Some((_, labels)) = sample.split_once('{') {
                let labels = labels.trim_end_matches('}').split(',');
                let names = labels.map(|label| label.split_once('=').expect("a label").0.to_owned());
                family.labels.extend(names.filter(|name| name != "le"));
            }
            let twice = values.insert(sample.to_owned(), value.parse().expect("a number"));
            assert!(twice.is_none(), "{sample} is there twice");
        }
        Self { families, values }
    }

    /// Returns the rows of a table of these metrics.
    pub fn rows(&self) -> Vec<String> {
        let row = |Family { name, kind, meaning, labels }: &Family| {
            let labels = labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
            format!("| `{name}` | {kind} | {labels} | {meaning} |")
        };
        self.families.iter().map(row).collect()
    }

    /// Returns the value of a metric, named with its labels.
    pub fn of(&self, name: &str) -> f64 {
        *self.values.get(name).unwrap_or_else(|| panic!("no {name} in {:#?}", self.values))
    }

    /// Returns the values other than 0 of a metric with labels, by the labels' values.
    pub fn all_of(&self, name: &str) -> BTreeMap<String, f64> {
        let prefix = format!("{name}{{");
        let samples = self.values.iter().filter(|(_, value)| **value != 0.0);
        let of_it = samples.filter_map(|(sample, value)| Some((sample.strip_prefix(&prefix)?, *value)));
        let texts = |labels: &str| labels.split('"').skip(1).step_by(2).collect::<Vec<_>>().join(" ");
        of_it.map(|(labels, value)| (texts(labels), value)).collect()
    }

    /// Returns the values that must not decrease: those of counters and histograms.
    pub fn counts(&self) -> BTreeMap<String, f64> {
        let counts = self.families.iter().filter(|family| family.kind != "gauge").map(|family| family.name.as_str());
        let counts: Vec<&str> = counts.collect();
        let is_count = |sample: &str| counts.iter().any(|name| sample.starts_with(name));
        self.values
            .iter()
            .filter(|(sample, _)| is_count(sample))
            .map(|(sample, value)| (sample.clone(), *value))
            .collect()
    }
}

impl Stage {
    /// Asks for the page of metrics.
    pub fn scrape(&self, method: &str, fields: &str) -> Reply {
        self.exchange(&mut self.admin(), method, "/metrics", fields, "")
    }

    /// Returns the metrics.
    pub fn metrics(&self) -> Metrics {
        let reply = self.scrape("GET", "");
        assert_eq!(reply.status, 200, "{reply}");
        Metrics::read(reply.text())
    }
}
