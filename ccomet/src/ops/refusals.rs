//! The refusals, for the operator: their numbers, and one line a minute in the log for each kind.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use sealed::{ConnectionId, fault};

use crate::core::message::ChannelName;
use crate::core::problem::Problem;
use crate::core::time::UnixMillis;
use crate::ops::console::{Console, RecentRefusal};

/// The time between two lines about one kind of refusal.
const LINE_INTERVAL: Duration = Duration::from_secs(60);
/// The maximum number of kinds that are counted, which is more than there are codes.
const KINDS_MAX: usize = 96;
/// The maximum number of characters of a request's path in an example.
const PATH_CHARS_MAX: usize = 160;

/// Counts of refusals, shared by the loops of a server.
#[derive(Debug, Default)]
pub(crate) struct RefusalCounts {
    /// Allocated at the first refusal.
    kinds: OnceLock<Box<[Kind]>>,
}

/// One kind of refusal, with its code from the first refusal on.
#[derive(Debug, Default)]
struct Kind {
    code: OnceLock<&'static str>,
    /// The number since the start.
    total: AtomicU64,
    /// The number since the last line.
    count: AtomicU64,
    /// The time of the last line: a [`UnixMillis`], as a number.
    written: AtomicU64,
}

impl RefusalCounts {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    fn kind(&self, code: &'static str) -> Option<&Kind> {
        let kinds = self.kinds.get_or_init(|| (0..KINDS_MAX).map(|_| Kind::default()).collect());
        kinds.iter().find(|kind| *kind.code.get_or_init(|| code) == code)
    }

    /// Returns the number of refusals of each kind since the start.
    pub(crate) fn totals(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let kinds = self.kinds.get().into_iter().flatten();
        kinds.filter_map(|kind| Some((*kind.code.get()?, kind.total.load(Ordering::Relaxed))))
    }
}

impl Kind {
    /// Returns the number of refusals for the next line, if it is time for one: 0 if another loop
    /// has written it.
    fn take_due(&self, now: UnixMillis) -> Option<u64> {
        let written = self.written.load(Ordering::Relaxed);
        // Setting the calendar back must not silence the log.
        let since = now.checked_since(UnixMillis::from_millis(written));
        if since.is_some_and(|since| since < LINE_INTERVAL) {
            return None;
        }
        if self.count.load(Ordering::Relaxed) == 0 {
            return Some(0);
        }
        let turn = self.written.compare_exchange(written, now.as_millis(), Ordering::Relaxed, Ordering::Relaxed);
        Some(if turn.is_ok() { self.count.swap(0, Ordering::Relaxed) } else { 0 })
    }
}

/// The refusals of one loop: an example of each kind, until a line shows it.
#[derive(Debug)]
pub(crate) struct RefusalLog {
    counts: Arc<RefusalCounts>,
    console: Arc<Console>,
    examples: RefCell<Vec<Example>>,
    /// The first of each kind since the last second, and their numbers.
    recent: RefCell<Vec<(Example, u64)>>,
    request: RefCell<LastRequest>,
    /// The channel of the next refusal, if it is known.
    channel: RefCell<String>,
    /// The last client address that a proxy has named on each of its connections.
    clients: RefCell<HashMap<ConnectionId, IpAddr>>,
    accept_pauses: Cell<u64>,
}

/// The last request.
#[derive(Debug, Default)]
struct LastRequest {
    id: Option<ConnectionId>,
    /// The beginning of its path.
    path: String,
}

#[derive(Debug, Clone)]
struct Example {
    code: &'static str,
    reason: Cow<'static, str>,
    /// Whether the server or the client is at a limit.
    is_limit: bool,
    client: String,
    /// The path of the refused request, if it was a request.
    path: String,
    /// The channel of the refusal, if it was about a channel.
    channel: String,
}

impl Example {
    fn write(&self, count: u64) {
        let Self { code, is_limit, client, path, channel, .. } = self;
        let reason = &*self.reason;
        if *is_limit {
            tracing::warn!(code, count, client, path, channel, reason, "refused");
        } else {
            tracing::info!(code, count, client, path, channel, reason, "refused");
        }
    }
}

impl RefusalLog {
    pub(crate) fn new(counts: Arc<RefusalCounts>, console: Arc<Console>) -> Self {
        Self {
            counts,
            console,
            recent: RefCell::default(),
            examples: RefCell::default(),
            request: RefCell::default(),
            channel: RefCell::default(),
            clients: RefCell::default(),
            accept_pauses: Cell::new(0),
        }
    }

    /// Notes the current request, as the example of its refusal.
    pub(crate) fn begin(&self, id: ConnectionId, path: &str) {
        let mut request = self.request.borrow_mut();
        request.id = Some(id);
        request.path.clear();
        request.path.extend(path.chars().take(PATH_CHARS_MAX));
        self.channel.take();
    }

    /// Notes the channel of the following refusal.
    pub(crate) fn about(&self, channel: &ChannelName) {
        if !fault!("refusal-names-no-channel") {
            self.channel.replace(channel.as_str().to_owned());
        }
    }

    /// Notes the client's address on a connection of a proxy, if the proxy has named it.
    pub(crate) fn set_client(&self, id: ConnectionId, client: Option<IpAddr>) {
        let mut clients = self.clients.borrow_mut();
        _ = match client {
            Some(client) => clients.insert(id, client),
            None => clients.remove(&id),
        };
    }

    /// Returns the client's address on a connection of a proxy, if the proxy has named it.
    pub(crate) fn client(&self, id: ConnectionId) -> Option<IpAddr> {
        self.clients.borrow().get(&id).copied()
    }

    /// Removes a closed connection.
    pub(crate) fn closed(&self, id: ConnectionId) {
        let mut clients = self.clients.borrow_mut();
        clients.remove(&id);
        if clients.is_empty() && clients.capacity() > 64 {
            *clients = HashMap::new();
        }
    }

    /// Counts a refusal to a client. The first of its kind since the last line becomes the example.
    pub(crate) fn note(&self, id: ConnectionId, problem: Problem, client: impl FnOnce() -> String) {
        let is_limit = matches!(problem.status(), 429 | 500..);
        let request = self.request.borrow();
        let request = Some(&*request).filter(|request| request.id == Some(id));
        let channel = self.channel.take();
        let named = self.clients.borrow().get(&id).copied().filter(|_| !fault!("refusal-names-proxy"));
        self.count(problem.code(), 1, || Example {
            code: problem.code(),
            reason: problem.detail(),
            is_limit,
            client: named.map_or_else(client, |client| client.to_string()),
            path: request.map_or("", |request| &request.path).to_owned(),
            channel,
        });
    }

    /// Counts a client that is disconnected without an answer.
    pub(crate) fn note_silent(&self, code: &'static str, reason: &'static str, is_limit: bool, client: String) {
        let reason = Cow::Borrowed(reason);
        self.count(code, 1, || Example { code, reason, is_limit, client, path: String::new(), channel: String::new() });
    }

    /// Counts a refusal of which the log has no line.
    pub(crate) fn note_unlogged(&self, code: &'static str) {
        if let Some(kind) = self.counts.kind(code) {
            kind.total.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn count(&self, code: &'static str, count: u64, example: impl FnOnce() -> Example) {
        if let Some(kind) = self.counts.kind(code) {
            kind.total.fetch_add(count, Ordering::Relaxed);
            kind.count.fetch_add(count, Ordering::Relaxed);
        }
        let mut recent = self.recent.borrow_mut();
        if let Some((_, counted)) = recent.iter_mut().find(|(example, _)| example.code == code) {
            *counted += count;
            return;
        }
        let example = example();
        let mut examples = self.examples.borrow_mut();
        if examples.iter().all(|held| held.code != code) {
            examples.push(example.clone());
        }
        recent.push((example, count));
    }

    /// Counts pauses of accepting; `accept_pauses` is their total on this loop.
    pub(crate) fn note_pauses(&self, accept_pauses: u64) {
        let more = accept_pauses.saturating_sub(self.accept_pauses.replace(accept_pauses));
        if more > 0 {
            let reason =
                "No descriptors are left, or limits.connections_max is reached: new connections wait in the kernel.";
            let (code, reason) = ("accepting_paused", Cow::Borrowed(reason));
            self.count(code, more, || Example {
                code,
                reason,
                is_limit: true,
                client: String::new(),
                path: String::new(),
                channel: String::new(),
            });
        }
    }

    /// Writes the lines that are due, and shows the console what was refused. The loop calls it
    /// about once a second.
    pub(crate) fn write_due(&self, now: UnixMillis) {
        self.console.note_refusals(self.recent.borrow_mut().drain(..).map(|(example, count)| {
            let Example { code, reason, client, path, channel, .. } = example;
            // The log has the port of a direct client, too.
            let client = client.parse().map_or(client, |address: SocketAddr| address.ip().to_string());
            RecentRefusal { time: now, code, count, client, path, channel, reason: reason.into_owned() }
        }));
        self.examples.borrow_mut().retain(|example| {
            let Some(count) = self.counts.kind(example.code).map_or(Some(1), |kind| kind.take_due(now)) else {
                return true;
            };
            if count > 0 {
                example.write(count);
            }
            false
        });
    }
}

impl Drop for RefusalLog {
    /// Writes the lines for all refusals that were not logged yet.
    fn drop(&mut self) {
        for example in self.examples.take() {
            let count = self.counts.kind(example.code).map_or(1, |kind| kind.count.swap(0, Ordering::Relaxed));
            if count > 0 && !fault!("last-refusals-not-logged") {
                example.write(count);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_refusal_is_due_once_a_minute_over_all_loops() {
        let counts = RefusalCounts::new();
        let kind = |code| counts.kind(code).expect("there is room");
        let refuse = |code| kind(code).count.fetch_add(1, Ordering::Relaxed);
        let (day, at) = (86_400_000, UnixMillis::from_millis);
        refuse("too_many_requests");
        refuse("forbidden");
        assert_eq!(kind("too_many_requests").take_due(at(day)), Some(1), "the first at once");
        assert_eq!(kind("forbidden").take_due(at(day + 1)), Some(1), "and of each kind");
        for _ in 0..5 {
            refuse("too_many_requests");
        }
        assert_eq!(kind("too_many_requests").take_due(at(day + 59_999)), None);
        assert_eq!(kind("too_many_requests").take_due(at(day + 60_000)), Some(5));
        refuse("too_many_requests");
        assert_eq!(kind("too_many_requests").take_due(at(5)), Some(1), "though the calendar was set back");
    }

    #[test]
    fn an_example_is_kept_until_a_line_shows_it() {
        let console = Arc::new(Console::new(1));
        let (log, id) = (RefusalLog::new(RefusalCounts::new(), console), ConnectionId::default());
        log.begin(id, "/channels/news");
        let examples = || log.examples.borrow().len();
        log.note(id, Problem::Forbidden, || "192.0.2.1".to_owned());
        log.note(id, Problem::Forbidden, || unreachable!("there is an example"));
        assert_eq!(examples(), 1);
        assert_eq!(log.examples.borrow()[0].path, "/channels/news");
        log.write_due(UnixMillis::from_millis(86_400_000));
        assert_eq!(examples(), 0);
        log.note(id, Problem::Forbidden, || "192.0.2.1".to_owned());
        log.write_due(UnixMillis::from_millis(86_400_001));
        assert_eq!(examples(), 1, "not so soon");
    }
}
