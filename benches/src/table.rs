//! Tables of ratios: peers are measured in rounds in turn, so that all meet the same weather, and compared by medians.

use std::fmt::Write as _;
use std::path::PathBuf;

/// Which figures are the better ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    /// They are times, in milliseconds.
    Less,
    /// They are rates.
    More,
}

/// A table that has `sealed` first, and after each of the others how fast `sealed` is for its speed.
#[derive(Debug)]
pub struct Table {
    name: &'static str,
    better: Better,
    peers: Vec<&'static str>,
    text: String,
}

impl Table {
    /// Starts a table. The first of `peers` is what the others are compared with.
    pub fn new(name: &'static str, what: &str, better: Better, peers: &[&'static str]) -> Self {
        let mut text = format!("| {what} | {} |", peers[0]);
        for peer in &peers[1..] {
            let _ = write!(text, " {peer} | ratio |");
        }
        text += "\n| --- | ---: |";
        text += &" ---: | ---: |".repeat(peers.len() - 1);
        text.push('\n');
        Self { name, better, peers: peers.to_vec(), text }
    }

    /// Measures each peer in turn, so many times, each time another one first, and adds a row for each case.
    /// `measure` is given the peer's number, and gives one figure for each case; `None` where there is no such peer.
    pub fn compare(&mut self, cases: &[&str], rounds: usize, mut measure: impl FnMut(usize) -> Option<Vec<f64>>) {
        let peers = self.peers.len();
        let mut figures = vec![vec![Vec::new(); cases.len()]; peers];
        for round in 0..rounds {
            for turn in 0..peers {
                let peer = (round + turn) % peers;
                for (list, figure) in figures[peer].iter_mut().zip(measure(peer).unwrap_or_default()) {
                    list.push(figure);
                }
            }
        }
        for (row, case) in cases.iter().enumerate() {
            let medians: Vec<_> = figures.iter().map(|lists| median(&lists[row])).collect();
            self.add(case, &medians);
        }
    }

    fn add(&mut self, case: &str, medians: &[Option<f64>]) {
        let ours = medians[0].unwrap_or(f64::NAN);
        let _ = write!(self.text, "| {case} | {} |", self.figure(ours));
        for theirs in &medians[1..] {
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

    fn figure(&self, figure: f64) -> String {
        if self.better == Better::More { format!("{figure:.0}") } else { format!("{figure:.2}") }
    }

    /// Prints the table, and writes it to `target/ratios-<name>.md`, unless all was only tried.
    pub fn finish(self) {
        let text = format!("{}\nA ratio above 1: `{}` is the faster of the two.\n", self.text, self.peers[0]);
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

fn median(figures: &[f64]) -> Option<f64> {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

/// Where the build's results are: this program is in `release/deps` below it.
pub fn target() -> PathBuf {
    let program = std::env::current_exe().expect("this program");
    program.ancestors().nth(3).expect("a directory of results").to_path_buf()
}

/// Whether everything is only to be tried once, with small counts: no figures are wanted.
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
