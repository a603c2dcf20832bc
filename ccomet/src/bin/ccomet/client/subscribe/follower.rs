//! One subscription, over as many connections as it takes.

use std::io::{self, ErrorKind};
use std::time::Duration;

use sealed_http::client::{Fetch, FetchError, FetchId, Fetched, Upstream, UpstreamId};
use sealed_http::codec::ResponseHead;
use sealed_http::{Handler, Http};

use super::output::{Item, Output, Reply, words};
use crate::client::place::query;
use crate::client::{refusal, with_token};

/// Maximum number of bytes of a reply: a message of the greatest size that settings allow, with all
/// its characters escaped, and the other items of a batch.
const REPLY_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Maximum number of bytes of a refusal that are read.
const REFUSAL_BYTES_MAX: usize = 64 * 1024;
/// How long the server may be silent until it has announced its heartbeat.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// The first and the longest wait before the next attempt, without the server's own.
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// The longest wait that a server can name.
const PAUSE_MAX: Duration = Duration::from_secs(3_600);

/// What to follow, from where, and until when.
#[derive(Debug)]
pub(super) struct Start {
    /// The host and port.
    pub(super) server: String,
    /// What is printed if the name of the host is not known.
    pub(super) unknown_host: String,
    /// The path of the channels.
    pub(super) target: String,
    pub(super) after: Option<String>,
    pub(super) last: Option<u64>,
    pub(super) presence: bool,
    pub(super) token: Option<String>,
    /// The number of messages after which the command ends.
    pub(super) count: Option<u64>,
    /// There is one channel, without its members, so that the position of a message is that of the
    /// subscription.
    pub(super) is_single: bool,
}

/// Follows channels.
#[derive(Debug)]
pub(super) struct Follower {
    start: Start,
    output: Output,
    upstream: Option<UpstreamId>,
    fetch: Option<FetchId>,
    /// A part of a reply, or of a refusal.
    bytes: Vec<u8>,
    /// The status of the answer that is arriving, if it is a refusal.
    refused: Option<u16>,
    has_opened: bool,
    attempts: u32,
    retry: Option<Duration>,
    silence_max: Duration,
    is_over: bool,
    failure: Option<String>,
}

impl Follower {
    pub(super) fn new(start: Start, output: Output) -> Self {
        Self {
            start,
            output,
            upstream: None,
            fetch: None,
            bytes: Vec::new(),
            refused: None,
            has_opened: false,
            attempts: 0,
            retry: None,
            silence_max: SILENCE_MAX,
            is_over: false,
            failure: None,
        }
    }

    /// Returns the position from which another subscription would continue.
    pub(super) fn position(&self) -> Option<&str> {
        self.output.position()
    }

    /// Returns why the command has failed.
    pub(super) fn take_failure(&mut self) -> Option<String> {
        self.failure.take()
    }

    /// Connects for the first time.
    pub(super) fn begin(&mut self, http: &mut Http<'_, Self>, upstream: Upstream) {
        self.upstream = Some(http.add_upstream(upstream));
        self.connect(http);
    }

    fn connect(&mut self, http: &mut Http<'_, Self>) {
        let Some(upstream) = self.upstream else { return };
        self.bytes.clear();
        (self.refused, self.retry) = (None, None);
        match self.next_request() {
            Ok(fetch) => self.fetch = Some(http.fetch(upstream, &fetch)),
            Err(failure) => self.end(http, Some(failure)),
        }
    }

    fn next_request(&self) -> Result<Fetch, String> {
        let Start { target, after, last, presence, token, .. } = &self.start;
        let resumed = self.output.position().map(str::to_owned);
        let parameters = [
            ("transport", Some("lines".to_owned())),
            ("last", last.filter(|_| resumed.is_none()).map(|last| last.to_string())),
            ("after", resumed.or_else(|| after.clone())),
            ("presence", presence.then(|| "1".to_owned())),
        ];
        let target = format!("{target}{}", query(&parameters));
        let fetch = Fetch::get(target).map_err(|_| "the name of a channel is malformed".to_owned())?;
        with_token(fetch.streamed().limit(None).silence_max(self.silence_max), token.as_deref())
    }

    /// Ends the command.
    fn end(&mut self, http: &mut Http<'_, Self>, failure: Option<String>) {
        if !std::mem::replace(&mut self.is_over, true) {
            self.failure = failure;
            http.stop();
        }
    }

    fn answered(&mut self, http: &mut Http<'_, Self>, head: &ResponseHead<'_>) {
        let retry = head.header_str("Retry-After").and_then(|text| text.parse().ok());
        self.retry = retry.map(Duration::from_secs);
        if head.status() != 200 {
            self.refused = Some(head.status());
        } else if head.header_str("Content-Type").is_none_or(|kind| !kind.starts_with("application/x-ndjson")) {
            self.end(http, Some("the answer is not a stream of messages; is it a ccomet server?".to_owned()));
        } else {
            (self.has_opened, self.attempts) = (true, 0);
        }
    }

    fn received(&mut self, http: &mut Http<'_, Self>, data: &[u8]) {
        if self.refused.is_some() {
            let room = REFUSAL_BYTES_MAX.saturating_sub(self.bytes.len());
            return self.bytes.extend_from_slice(&data[..room.min(data.len())]);
        }
        for piece in data.split_inclusive(|byte| *byte == b'\n') {
            self.bytes.extend_from_slice(piece);
            if self.bytes.len() > REPLY_BYTES_MAX {
                return self.end(http, Some("a reply of the server is too long".to_owned()));
            }
            if piece.last() == Some(&b'\n') && !self.is_over {
                let line = std::mem::take(&mut self.bytes);
                if let Err(failure) = self.print(http, &line) {
                    return self.end(http, failure);
                }
                self.bytes = line;
                self.bytes.clear();
            }
        }
        if let Err(error) = self.output.flush() {
            self.end(http, output_failure(&error));
        }
    }

    /// Prints the items of a reply. Returns an error if the command is to end, with the reason if
    /// it is a failure.
    fn print(&mut self, http: &mut Http<'_, Self>, line: &[u8]) -> Result<(), Option<String>> {
        let malformed = |error| Some(format!("a reply of the server is malformed: {error}"));
        let reply: Reply<'_> = serde_json::from_slice(line).map_err(malformed)?;
        let count = reply.items.len();
        for (index, json) in reply.items.into_iter().enumerate() {
            let item: Item<'_> = serde_json::from_str(json.get()).map_err(malformed)?;
            self.output.print(&item, json.get()).map_err(|error| output_failure(&error))?;
            // The position of the reply is the one after its last item.
            if index + 1 == count && !reply.position.is_empty() {
                self.output.mark(reply.position.clone().into_owned());
            } else if let Some(position) =
                item.position.as_ref().filter(|_| self.start.is_single && item.kind == "message")
            {
                self.output.mark(position.clone().into_owned());
            }
            self.heed(http, &item)?;
        }
        if count == 0 && !reply.position.is_empty() {
            self.output.mark(reply.position.into_owned());
        }
        Ok(())
    }

    /// Handles an item that concerns the connection or the end of the command.
    fn heed(&mut self, http: &mut Http<'_, Self>, item: &Item<'_>) -> Result<(), Option<String>> {
        match &*item.kind {
            "hello" => {
                let heartbeat = Duration::from_millis(item.heartbeat_ms.unwrap_or_default());
                // The server may take twice the time of a heartbeat.
                self.silence_max = SILENCE_MAX.max(heartbeat * 3);
            }
            "message" => {
                if let Some(left) = &mut self.start.count {
                    *left = left.saturating_sub(1);
                    if *left == 0 {
                        self.output.flush().map_err(|error| output_failure(&error))?;
                        return Err(None);
                    }
                }
            }
            "close" if item.reason.is_some() => {
                let reason = words(item.reason.as_deref().unwrap_or_default());
                self.output.flush().map_err(|error| output_failure(&error))?;
                return Err(Some(format!("the server has ended the subscription: {reason}")));
            }
            "close" => self.end(http, None),
            "bye" => self.retry = item.retry_ms.map(Duration::from_millis),
            "token" => {
                eprintln!("ccomet: the token expires in {} s", item.expires_in_s.unwrap_or_default());
            }
            _ => {}
        }
        Ok(())
    }

    /// Reacts to the end of an answer: reconnects, or ends the command.
    fn ended(&mut self, http: &mut Http<'_, Self>, why: Option<FetchError>) {
        self.fetch = None;
        if self.is_over {
            return;
        }
        let reason = match (self.refused, why) {
            (Some(status), _) => {
                let reason = refusal(status, &self.bytes);
                if !matches!(status, 408 | 429 | 500..) {
                    return self.end(http, Some(reason));
                }
                reason
            }
            (None, Some(FetchError::NotConnected(ErrorKind::NotFound))) => self.start.unknown_host.clone(),
            (None, Some(error)) => format!("{}: {error}", self.start.server),
            (None, None) => format!("{}: the server has ended the stream", self.start.server),
        };
        if !self.has_opened && self.refused.is_none() {
            return self.end(http, Some(reason));
        }
        let backoff = (RETRY_MIN * 2_u32.saturating_pow(self.attempts.min(16))).min(RETRY_MAX);
        self.attempts += 1;
        // Clients that have lost the same server do not come back all at once.
        let backoff = backoff / 2 + backoff * (http.random() % 1_000) as u32 / 1_000;
        // A server may name any time.
        let delay = self.retry.map_or(backoff, |retry| retry.min(PAUSE_MAX));
        eprintln!("ccomet: {reason}; trying again in {:.1} s", delay.as_secs_f64());
        http.set_timer(delay, ());
    }
}

/// Returns the failure that an error of the standard output is. A reader such as `head` that has
/// seen enough is none.
fn output_failure(error: &io::Error) -> Option<String> {
    (error.kind() != ErrorKind::BrokenPipe).then(|| format!("cannot write to the standard output: {error}"))
}

impl Handler for Follower {
    type Connection = ();
    type Message = ();
    /// It is time to connect again.
    type Timer = ();

    fn fetched(&mut self, http: &mut Http<'_, Self>, _: FetchId, fetched: Fetched<'_>) {
        match fetched {
            Fetched::Head(head) => self.answered(http, &head),
            Fetched::Data(data) if !self.is_over => self.received(http, data),
            Fetched::End => self.ended(http, None),
            Fetched::Failed(error) => self.ended(http, Some(error)),
            _ => {}
        }
    }

    fn expired(&mut self, http: &mut Http<'_, Self>, _: sealed::TimerId, (): ()) {
        if !self.is_over {
            self.connect(http);
        }
    }

    fn draining(&mut self, http: &mut Http<'_, Self>, _: Duration) {
        self.is_over = true;
        if let Some(fetch) = self.fetch.take() {
            http.cancel_fetch(fetch);
        }
    }
}
