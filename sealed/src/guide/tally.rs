use std::collections::BTreeMap;
use std::time::Duration;

use sealed::{Address, Bytes, ConnectionId, Context, Input, ListenerId, Service, TimerId};

/// Bytes of the longest line.
const LINE_BYTES_MAX: usize = 200;
/// Number of names that can be voted for. Without a limit, clients could fill the memory.
const NAMES_MAX: usize = 1_000;
/// Time that a client may be silent.
const IDLE_MAX: Duration = Duration::from_secs(300);
/// Interval at which watchers are notified.
const EVERY: Duration = Duration::from_secs(1);

/// Counts votes, and sends the standings to watchers.
#[derive(Default)]
struct Tally {
    votes: BTreeMap<String, u64>,
    watchers: Vec<ConnectionId>,
    /// Whether votes have come since watchers were last notified.
    changed: bool,
}

impl Tally {
    fn standings(&self) -> String {
        let lines = self.votes.iter().map(|(name, votes)| format!("{name} {votes}\n"));
        lines.chain(["\n".to_owned()]).collect()
    }

    fn obey(&mut self, cx: &mut Context<Self>, id: ConnectionId, line: &[u8]) {
        let line = String::from_utf8_lossy(line.trim_ascii());
        match line.split_once(' ').unwrap_or((&line, "")) {
            ("vote", name) if !name.is_empty() => {
                if self.votes.len() >= NAMES_MAX && !self.votes.contains_key(name) {
                    cx.write(id, b"there are too many names\n");
                    return;
                }
                *self.votes.entry(name.to_owned()).or_default() += 1;
                self.changed = true;
                cx.write(id, b"counted\n");
            }
            ("watch", "") => {
                if !self.watchers.contains(&id) {
                    self.watchers.push(id);
                }
                cx.write(id, self.standings().as_bytes());
            }
            ("quit", "") => cx.close(id),
            _ => {
                cx.write(id, b"vote NAME, watch or quit\n");
            }
        }
    }
}

impl Service for Tally {
    /// Whether a watcher has missed standings.
    type Connection = bool;
    /// Votes counted elsewhere, for a name.
    type Message = (String, u64);
    type Timer = ();

    fn started(&mut self, cx: &mut Context<Self>) {
        cx.set_interval(EVERY, ());
    }

    fn accepted(&mut self, cx: &mut Context<Self>, id: ConnectionId, _: ListenerId, _: &Address) {
        cx.set_deadline(id, IDLE_MAX);
    }

    fn received(&mut self, cx: &mut Context<Self>, id: ConnectionId, input: &mut Input<'_>) {
        // `close` does not stop this `while`: what came after `quit` is still in `input`.
        while cx.is_open(id) {
            let line = input.take_until(b'\n');
            // The limit is for complete lines, too: a long one may arrive as a whole.
            if line.map_or(input.len(), <[u8]>::len) > LINE_BYTES_MAX {
                cx.write(id, b"that line is too long\n");
                return cx.close(id);
            }
            let Some(line) = line else { break };
            cx.set_deadline(id, IDLE_MAX);
            self.obey(cx, id, line);
        }
    }

    fn expired(&mut self, cx: &mut Context<Self>, _: TimerId, (): ()) {
        self.watchers.retain(|id| cx.is_open(*id));
        let changed = std::mem::take(&mut self.changed);
        let standings = Bytes::from(self.standings());
        for id in &self.watchers {
            // A watcher that has not received the last standings is skipped: it gets newer ones
            // later.
            let is_slow = cx.queued(*id) > 0;
            let Some(is_behind) = cx.state_mut(*id) else { continue };
            let is_due = changed || *is_behind;
            *is_behind = is_due && is_slow;
            if is_due && !is_slow {
                cx.write_bytes(*id, standings.clone());
            }
        }
    }

    fn message(&mut self, _: &mut Context<Self>, (name, votes): (String, u64)) {
        *self.votes.entry(name).or_default() += votes;
        self.changed = true;
    }
}
