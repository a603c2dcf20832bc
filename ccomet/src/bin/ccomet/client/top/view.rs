//! The lines of the view.

use std::time::Duration;

use super::reading::{Channel, Reading};
use crate::client::place::Place;
use crate::client::{printable, with_commas};

/// A line, and how it is shown on a terminal.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) text: String,
    pub(super) style: Style,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Head,
    Problem,
}

impl Line {
    fn plain(text: String) -> Self {
        Self { text, style: Style::Plain }
    }

    pub(super) fn problem(text: String) -> Self {
        Self { text, style: Style::Problem }
    }
}

/// Two readings of a server, of which the view shows the later, and the rates between them.
pub(super) struct View<'a> {
    pub(super) server: &'a Place,
    pub(super) before: &'a Reading,
    pub(super) now: &'a Reading,
    pub(super) channels_max: usize,
}

impl View<'_> {
    /// Returns the lines.
    pub(super) fn lines(&self) -> Vec<Line> {
        let mut lines = vec![self.head()];
        lines.extend(self.now.problems.iter().map(|problem| Line::problem(format!("problem       {problem}"))));
        let rows = [
            ("connections", self.connections()),
            ("subscribers", self.subscribers()),
            ("messages/s", self.messages()),
            ("bytes/s", self.bytes()),
            ("fan-out", self.percentiles("ccomet_fanout_seconds")),
            ("tick", self.percentiles("ccomet_tick_seconds")),
            ("process", self.process()),
            ("history", self.history()),
            ("store", self.store()),
            ("refused/s", self.refused()),
        ];
        lines.extend(rows.into_iter().map(|(name, text)| Line::plain(format!("{name:<13} {text}"))));
        lines.push(Line::plain(String::new()));
        lines.extend(self.channels());
        lines
    }

    fn head(&self) -> Line {
        let version = self.now.all("ccomet_build_info").next().and_then(|(labels, _)| labels.split('"').nth(1));
        let start = self.now.get("ccomet_start_time_seconds").unwrap_or_default();
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0.0, |since| since.as_secs_f64());
        let loops = self.now.get("ccomet_loops").unwrap_or_default();
        let state = if self.now.is_ready { "ready" } else { "NOT READY" };
        let text = format!(
            "ccomet {}  {}  up {}  loops {loops}  {state}",
            printable(version.unwrap_or("?")),
            self.server.authority(),
            span((now - start).max(0.0)),
        );
        Line { text, style: if self.now.is_ready { Style::Head } else { Style::Problem } }
    }

    /// Returns the rate of a counter, named with its labels.
    fn rate(&self, name: &str) -> f64 {
        self.per_second(self.now.get(name).unwrap_or_default() - self.before.get(name).unwrap_or_default())
    }

    /// Returns the rate of the counters with this label.
    fn rate_of(&self, name: &str, label: &str) -> f64 {
        self.per_second(self.now.sum(name, label) - self.before.sum(name, label))
    }

    fn per_second(&self, difference: f64) -> f64 {
        let time = self.now.at.saturating_duration_since(self.before.at).as_secs_f64();
        // A server that has started anew counts from 0.
        difference.max(0.0) / time.max(1e-3)
    }

    fn connections(&self) -> String {
        let of = |transport: &str| self.now.sum("ccomet_connections", &format!("transport=\"{transport}\""));
        format!(
            "{}  (websocket {}  stream {}  poll {}  http {})  {}/s new",
            count(self.now.sum("ccomet_connections", "")),
            count(of("websocket")),
            count(of("stream")),
            count(of("poll")),
            count(of("http")),
            count(self.rate_of("ccomet_connections_total", "")),
        )
    }

    fn subscribers(&self) -> String {
        let of = |name: &str| count(self.now.get(name).unwrap_or_default());
        let (subscribers, channels) = (of("ccomet_subscribers"), of("ccomet_channels"));
        format!(
            "{subscribers}  channels {channels}  patterns {}  members {}",
            of("ccomet_patterns"),
            of("ccomet_members")
        )
    }

    fn messages(&self) -> String {
        format!(
            "published {}  delivered {}  missed {}",
            count(self.rate_of("ccomet_publishes_total", "result=\"accepted\"")),
            count(self.rate("ccomet_deliveries_total")),
            count(self.rate("ccomet_missed_total")),
        )
    }

    fn bytes(&self) -> String {
        let of = |direction: &str| self.rate(&format!("ccomet_bytes_total{{direction=\"{direction}\"}}"));
        format!("in {}  out {}", size(of("in")), size(of("out")))
    }

    fn percentiles(&self, name: &str) -> String {
        let of = |percentile| match self.now.percentile(self.before, name, percentile) {
            Some(bound) if bound.is_finite() => format!("<= {} ms", bound * 1_000.0),
            Some(_) => "very long".to_owned(),
            None => "none".to_owned(),
        };
        format!("50 % {}  99 % {}  99.9 % {}", of(50.0), of(99.0), of(99.9))
    }

    fn process(&self) -> String {
        let of = |name: &str| self.now.get(name);
        let cpu = self.rate("process_cpu_seconds_total") * 100.0;
        let memory = of("process_resident_memory_bytes").map_or_else(|| "unknown".to_owned(), size);
        let files = of("process_open_fds").map_or_else(|| "unknown".to_owned(), count);
        let most = of("process_max_fds").map_or_else(|| "unknown".to_owned(), count);
        format!("processor {cpu:.0} %  memory {memory}  descriptors {files} of {most}")
    }

    fn history(&self) -> String {
        let used = self.now.get("ccomet_history_bytes").unwrap_or_default();
        let most = self.now.get("ccomet_limit{name=\"history.total_bytes_max\"}").unwrap_or_default();
        let dropped = self.rate_of("ccomet_history_dropped_total", "");
        format!("{} of {}  dropped {}/s", size(used), size(most), count(dropped))
    }

    fn store(&self) -> String {
        let Some(bytes) = self.now.get("ccomet_store_log_bytes") else {
            let is_on_disk = self.now.get("ccomet_store_pages_total").is_some();
            return if is_on_disk { "on disk, not measured yet" } else { "in memory" }.to_owned();
        };
        let segments = self.now.get("ccomet_store_segments").unwrap_or_default();
        let written = self.rate("ccomet_store_written_bytes_total");
        let commit = match self.now.percentile(self.before, "ccomet_store_commit_seconds", 99.0) {
            Some(bound) => format!("  commit 99 % <= {} ms", bound * 1_000.0),
            None => String::new(),
        };
        format!("{} in {} segments  written {}/s{commit}", size(bytes), count(segments), size(written))
    }

    /// Returns the rates of refusals, the greatest first.
    fn refused(&self) -> String {
        let name = "ccomet_refused_total";
        let mut codes: Vec<(f64, &str)> = self
            .now
            .all(name)
            .map(|(labels, value)| {
                let before = self.before.get(&format!("{name}{{{labels}}}")).unwrap_or_default();
                (self.per_second(value - before), labels.split('"').nth(1).unwrap_or(labels))
            })
            .filter(|(rate, _)| *rate > 0.0)
            .collect();
        codes.sort_by(|one, other| other.0.total_cmp(&one.0));
        if codes.is_empty() {
            return "0".to_owned();
        }
        let texts: Vec<String> =
            codes.iter().map(|(rate, code)| format!("{} {}", printable(code), count(*rate))).collect();
        texts.join("  ")
    }

    /// Returns the table of the busiest channels.
    fn channels(&self) -> Vec<Line> {
        let mut busiest: Vec<(f64, &String, &Channel)> = self
            .now
            .channels
            .iter()
            .map(|(name, channel)| {
                let published = channel.published_since(self.before.channels.get(name));
                (self.per_second(u32::try_from(published).map_or(f64::MAX, f64::from)), name, channel)
            })
            .collect();
        busiest.sort_by(|one, other| {
            other.0.total_cmp(&one.0).then(other.2.subscribers.cmp(&one.2.subscribers)).then(one.1.cmp(other.1))
        });
        let head = format!("{:<36} {:>11} {:>9} {:>9} {:>10}", "CHANNEL", "SUBSCRIBERS", "MESSAGES/S", "KEPT", "BYTES");
        let mut lines = vec![Line { text: head, style: Style::Head }];
        lines.extend(busiest.into_iter().take(self.channels_max).map(|(rate, name, channel)| {
            let name: String = printable(name).chars().take(36).collect();
            let Channel { subscribers, messages, bytes, .. } = channel;
            let bytes = size(u32::try_from(*bytes).map_or(f64::from(u32::MAX), f64::from));
            Line::plain(format!("{name:<36} {subscribers:>11} {:>10} {messages:>9} {bytes:>10}", count(rate)))
        }));
        if self.now.has_more {
            lines.push(Line::plain(format!("(of the first {} channels by name)", self.now.channels.len())));
        }
        lines
    }
}

/// Returns a number: whole from 10 on, and with its thousands set apart.
fn count(number: f64) -> String {
    let is_whole = number >= 10.0 || number.fract() == 0.0;
    if is_whole { with_commas(&format!("{number:.0}")) } else { format!("{number:.1}") }
}

/// Returns a number of bytes.
fn size(bytes: f64) -> String {
    let mut rest = bytes;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if rest < 1_024.0 {
            return if unit == "B" { format!("{rest:.0} B") } else { format!("{rest:.1} {unit}") };
        }
        rest /= 1_024.0;
    }
    format!("{rest:.1} TiB")
}

/// Returns a time for people.
fn span(seconds: f64) -> String {
    let minutes = Duration::from_secs_f64(seconds).as_secs() / 60;
    match (minutes / 1_440, minutes / 60 % 24, minutes % 60) {
        (0, 0, 0) => format!("{seconds:.0} s"),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::reading::tests::reading;
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!([count(0.0), count(0.25), count(9.0), count(1_234_567.8)], ["0", "0.2", "9", "1,234,568"]);
        assert_eq!([size(0.0), size(1_023.0), size(1_536.0), size(3e9)], ["0 B", "1023 B", "1.5 KiB", "2.8 GiB"]);
        assert_eq!([span(59.0), span(3_700.0), span(200_000.0)], ["59 s", "1 h 1 min", "2 d 7 h"]);
    }

    #[test]
    fn rates_are_those_between_two_readings_and_never_negative() {
        let page = |published, missed| {
            format!(
                "ccomet_publishes_total{{api=\"native\",result=\"accepted\"}} {published}\nccomet_missed_total {missed}\n"
            )
        };
        let (before, mut now) = (reading(&page(10, 50)), reading(&page(40, 5)));
        now.at = before.at + Duration::from_secs(2);
        let server = "http://localhost:8000".parse().expect("a URL");
        let view = View { server: &server, before: &before, now: &now, channels_max: 1 };
        assert_eq!(view.messages(), "published 15  delivered 0  missed 0");
    }
}
