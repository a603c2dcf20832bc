//! Datagrams and connections in one service: a receiver of metrics in the format of statsd. Clients
//! send lines such as `logins:1|c` in datagrams; each TCP connection gets the values so far.
//!
//! Try it: `cargo run -p examples --example statsd`, then `echo 'logins:1|c' | nc -u -w 0 127.0.0.1
//! 8125` a few times, and `nc 127.0.0.1 8125`.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use sealed::{Address, Config, ConnectionId, Context, DatagramId, EventLoop, Input, ListenerId, Result, Service};

/// Maximum number of metrics. Lines for further ones are refused.
const METRICS_MAX: usize = 10_000;
/// Maximum length of the name of a metric.
const NAME_BYTES_MAX: usize = 200;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Metric {
    /// The sum of all values.
    Counter(f64),
    /// The last value.
    Gauge(f64),
    /// The number of times, their sum, and the longest of them, in milliseconds.
    Timer(u64, f64, f64),
}

impl Metric {
    /// Adds a value. A metric that changes its type starts again.
    fn add(&mut self, value: Self) {
        *self = match (*self, value) {
            (Self::Counter(sum), Self::Counter(more)) => Self::Counter(sum + more),
            (Self::Timer(count, sum, max), Self::Timer(_, _, time)) => {
                Self::Timer(count + 1, sum + time, max.max(time))
            }
            _ => value,
        };
    }
}

#[derive(Default)]
struct Metrics {
    metrics: BTreeMap<String, Metric>,
    /// Number of lines that were not understood, or refused.
    refused: u64,
}

impl Metrics {
    /// Listens for connections and datagrams on the same address and port, and returns both.
    fn open(event_loop: &mut EventLoop<Self>, at: &str) -> Result<Address> {
        let address = event_loop.listen(at)?.address;
        event_loop.parts().1.bind_datagram(&address)?;
        Ok(address)
    }

    fn take_line(&mut self, line: &str) {
        let taken = parse(line).is_some_and(|(name, value)| {
            let has_room = self.metrics.len() < METRICS_MAX;
            match self.metrics.entry(name.to_owned()) {
                Entry::Occupied(mut held) => held.get_mut().add(value),
                Entry::Vacant(place) if has_room => {
                    place.insert(value);
                }
                Entry::Vacant(_) => return false,
            }
            true
        });
        self.refused += u64::from(!taken);
    }

    fn report(&self) -> String {
        let lines = self.metrics.iter().map(|(name, metric)| match metric {
            Metric::Counter(value) | Metric::Gauge(value) => format!("{name} {value}\n"),
            Metric::Timer(count, sum, max) => format!("{name} count {count} sum {sum} max {max}\n"),
        });
        lines.chain([format!("(refused) {}\n", self.refused)]).collect()
    }
}

/// Reads a line: a name, a value, a type and, for a counter, the part of the events that is sent.
fn parse(line: &str) -> Option<(&str, Metric)> {
    let (name, rest) = line.split_once(':')?;
    let mut parts = rest.split('|');
    let value: f64 = parts.next()?.parse().ok()?;
    let kind = parts.next()?;
    let rate: f64 = parts.next().map_or(Some(1.0), |rate| rate.strip_prefix('@')?.parse().ok())?;
    let is_good = !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.contains(char::is_control);
    if !(is_good && value.is_finite() && rate > 0.0 && rate <= 1.0) {
        return None;
    }
    match kind {
        "c" => Some((name, Metric::Counter(value / rate))),
        "g" => Some((name, Metric::Gauge(value))),
        "ms" => Some((name, Metric::Timer(1, value, value))),
        _ => None,
    }
}

impl Service for Metrics {
    type Connection = ();
    type Message = ();
    type Timer = ();

    fn datagram(&mut self, _: &mut Context<Self>, _: DatagramId, _: &Address, bytes: &[u8]) {
        // A datagram may contain several lines.
        for line in String::from_utf8_lossy(bytes).lines().filter(|line| !line.is_empty()) {
            self.take_line(line);
        }
    }

    fn accepted(&mut self, cx: &mut Context<Self>, id: ConnectionId, _: ListenerId, _: &Address) {
        cx.write(id, self.report().as_bytes());
        cx.close(id);
    }

    fn received(&mut self, _: &mut Context<Self>, _: ConnectionId, _: &mut Input<'_>) {}
}

fn main() -> Result<()> {
    let at = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8125".to_owned());
    let mut event_loop = EventLoop::new(Config::default(), Metrics::default())?;
    println!("listening on {}", Metrics::open(&mut event_loop, &at)?);
    event_loop.stop_on_signals()?;
    event_loop.run()
}

#[cfg(test)]
mod tests {
    use sealed::sim::{Faults, Simulation};

    use super::*;

    /// Returns what the service reports after these datagrams.
    fn report_of(sim: &Simulation, datagrams: impl IntoIterator<Item = impl AsRef<[u8]>>) -> String {
        let mut event_loop = sim.event_loop(Config::default(), Metrics::default()).expect("a loop");
        let address = Metrics::open(&mut event_loop, "10.0.0.1:8125").expect("a free port");
        sim.start(event_loop);
        let client = sim.datagram_peer("10.0.0.9:0").expect("a free port");
        for datagram in datagrams {
            client.send_to(&address, datagram);
            sim.settle();
        }
        String::from_utf8(sim.connect(&address).expect_end()).expect("text")
    }

    #[test]
    fn each_type_of_metric_adds_up() {
        let sent = ["a:1|c\nb:3|g\n", "a:1|c|@0.5", "b:5|g", "t:20|ms", "t:10|ms\na:-1|c"];
        let wanted = "a 2\nb 5\nt count 2 sum 30 max 20\n(refused) 0\n";
        assert_eq!(report_of(&Simulation::new(1), sent), wanted);
    }

    #[test]
    fn bad_lines_are_counted_and_good_ones_beside_them_are_taken() {
        let bad = ["", "x", "x:1", "x:|c", ":1|c", "x:1|?", "x:inf|g", "x:1|c|@0", "x:1|c|0.5", "\u{1b}x:1|c"];
        let sent = [bad.join("\n") + "\ngood:1|c"];
        assert_eq!(report_of(&Simulation::new(1), sent), "good 1\n(refused) 9\n");
        assert_eq!(report_of(&Simulation::new(1), [[0xff, 0xfe]]), "(refused) 1\n");
    }

    #[test]
    fn the_number_of_metrics_is_bounded() {
        let names = (0..METRICS_MAX + 5).map(|number| format!("m{number}:1|c\n"));
        let lines: Vec<String> = names.collect();
        let report = report_of(&Simulation::new(1), lines.chunks(1_000).map(<[String]>::concat));
        assert!(report.ends_with("(refused) 5\n"));
        assert_eq!(report.lines().count(), METRICS_MAX + 1);
    }

    #[test]
    fn a_lost_datagram_costs_what_it_counted() {
        let sim = Simulation::new(1);
        sim.set_faults(Faults { lose: 0.5, ..Faults::default() });
        let report = report_of(&sim, ["a:1|c"; 100]);
        let count: u32 = report.lines().next().and_then(|line| line.strip_prefix("a ")?.parse().ok()).expect("a count");
        assert!((20..80).contains(&count), "{count}");
    }
}
