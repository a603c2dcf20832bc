//! Tables of ratios: peers are measured in alternating rounds, so that all meet the same
//! conditions, and are compared by medians.

use std::fmt::Write as _;
use std::path::PathBuf;

/// Which figures are better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    /// Lower: they are times, in milliseconds.
    Less,
    /// Higher: they are rates.
    More,
}

/// A table with `sealed` first, and after each of the others the speed of `sealed` divided by its
/// speed.
#[derive(Debug)]
pub struct Table {
    name: &'static str,
    better: Better,
    peers: Vec<&'static str>,
    text: String,
    notes: String,
}

impl Table {
    /// Starts a table. The others are compared with the first of `peers`.
    pub fn new(name: &'static str, what: &str, better: Better, peers: &[&'static str]) -> Self {
        let mut text = format!("| {what} | {} |", peers[0]);
        for peer in &peers[1..] {
            let _ = write!(text, " {peer} | ratio |");
        }
        text += "\n| --- | ---: |";
        text += &" ---: | ---: |".repeat(peers.len() - 1);
        text.push('\n');
        Self { name, better, peers: peers.to_vec(), text, notes: String::new() }
    }

    /// Measures each peer [`in_turn`], and adds a row for each case: `measure` returns one figure
    /// for each.
    pub fn compare(&mut self, cases: &[&str], rounds: usize, measure: impl FnMut(usize) -> Option<Vec<f64>>) {
        let medians = in_turn(self.peers.len(), rounds, measure);
        for (row, case) in cases.iter().enumerate() {
            let medians: Vec<_> = medians.iter().map(|medians| medians.get(row).copied()).collect();
            self.row(case, &medians);
        }
    }

    /// Adds a row: a figure for each peer, or `None` for a peer that is not available.
    pub fn row(&mut self, case: &str, figures: &[Option<f64>]) {
        let ours = figures[0].unwrap_or(f64::NAN);
        let _ = write!(self.text, "| {case} | {} |", self.figure(ours));
        for theirs in &figures[1..] {
            let _ = match theirs {
                None => write!(self.text, " - | - |"),
                Some(theirs) => {
                    let ratio = if self.better == Better::More { ours / theirs } else { theirs / ours };
                    write!(self.text, " {} | {ratio:.2} |", self.figure(*theirs))
                }
            };
        }
        self.text.push('\n');
    }

    /// Adds a sentence that is printed below the table.
    pub fn note(&mut self, sentence: &str) {
        let _ = writeln!(self.notes, "- {sentence}");
    }

    fn figure(&self, figure: f64) -> String {
        if self.better == Better::More { format!("{figure:.0}") } else { format!("{figure:.2}") }
    }

    /// Prints the table, and writes it to `target/ratios-<name>.md`, except in a short run.
    pub fn finish(self) {
        let mut text = format!("{}\nA ratio above 1: `{}` is the faster of the two.\n", self.text, self.peers[0]);
        if !self.notes.is_empty() {
            let _ = write!(text, "\n{}", self.notes);
        }
        println!("\n{text}");
        if is_short() {
            return;
        }
        let path = target().join(format!("ratios-{}.md", self.name));
        if let Err(error) = std::fs::write(&path, text) {
            eprintln!("{}: {error}", path.display());
        }
    }
}

/// Measures each peer once per round, each time beginning with another peer, and returns the
/// medians for each. `measure` gets the number of the peer, and returns its figures, or `None` for
/// a peer that is not available.
pub fn in_turn(peers: usize, rounds: usize, mut measure: impl FnMut(usize) -> Option<Vec<f64>>) -> Vec<Vec<f64>> {
    let mut measured: Vec<Vec<Vec<f64>>> = vec![Vec::new(); peers];
    for round in 0..rounds {
        for turn in 0..peers {
            let peer = (round + turn) % peers;
            measured[peer].extend(measure(peer));
        }
    }
    measured.iter().map(|rounds| medians(rounds)).collect()
}

fn medians(rounds: &[Vec<f64>]) -> Vec<f64> {
    let figures = rounds.first().map_or(0, Vec::len);
    let median = |figure: usize| {
        let mut sorted: Vec<_> = rounds.iter().map(|round| round[figure]).collect();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    };
    (0..figures).map(median).collect()
}

/// Returns the folder of the build's results: this program is in `release/deps` below it.
pub fn target() -> PathBuf {
    let program = std::env::current_exe().expect("this program");
    program.ancestors().nth(3).expect("a directory of results").to_path_buf()
}

/// Returns whether everything is only to be tried once, with small counts, because no figures are
/// wanted.
pub fn is_short() -> bool {
    let given = |wanted: &str| std::env::args().any(|argument| argument == wanted);
    given("--test") || !given("--bench")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_medians_of_rounds_in_turn_and_ratios_of_speeds() {
        let mut asked = Vec::new();
        for (better, row) in [(Better::Less, "2.00 | 4.00 | 2.00"), (Better::More, "2 | 4 | 0.50")] {
            let mut table = Table::new("test", "figures", better, &["ours", "theirs", "missing"]);
            let mut figures = [[9.0, 2.0, 1.0].into_iter(), [4.0, 4.0, 4.0].into_iter()];
            table.compare(&["case"], 3, |peer| {
                asked.push(peer);
                Some(vec![figures.get_mut(peer)?.next()?])
            });
            assert_eq!(table.text.lines().last(), Some(&*format!("| case | {row} | - | - |")));
        }
        assert_eq!(asked[..9], [0, 1, 2, 1, 2, 0, 2, 0, 1]);
    }
}
