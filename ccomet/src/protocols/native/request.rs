//! Requests to `/channels` and `/messages`: the native API.

use sealed::fault;
use sealed_http::site::{Query, decode_segment};
use sealed_http::websocket::{self, Accepted};
use sealed_http::{Method, RequestHead};

use super::ROW;
use crate::access::origin;
use crate::config::{Admin, Config, Front, Limits, Times, is_origin};
use crate::core::message::ChannelName;
use crate::core::pattern::Pattern;
use crate::core::position::{Spot, parse_position};
use crate::core::problem::Problem;
use crate::engine::{Edge, Listing, Range};
use crate::hub::{Delivery, Format, StartAt, SubscribeRequest};
use crate::protocols::call::{Call, Door, RefusedCall, ReplyTo};
use crate::protocols::format::framing::Framing;
use crate::protocols::format::jsonp::is_callback;
use crate::protocols::format::stream_format::{StreamFormat, Transport};
use crate::protocols::native::publication::{AddressedDraft, header_key, read_draft, read_messages, read_target};
use crate::protocols::route::{Ahead, Incoming, parse_number};

/// The subprotocol of WebSockets, for clients that ask for one.
const SUBPROTOCOL: &str = "ccomet";

/// The path at which several messages are published at once.
pub(super) const MESSAGES_PATH: &str = "/messages";

/// The path at which a WebSocket is opened without channels.
const SESSION_PATH: &str = "/channels";

const MESSAGES_METHODS: &str = "POST, OPTIONS";
const FRONT_METHODS: &str = "GET, HEAD, POST, OPTIONS";
const ADMIN_METHODS: &str = "GET, HEAD, POST, DELETE, OPTIONS";
const PART_METHODS: &str = "GET, OPTIONS";

/// The default number of messages or channels on a page.
const PAGE_DEFAULT: usize = 100;

/// Reads a request, if its path is one of this API's at that listener.
pub(super) fn read(incoming: &Incoming<'_>) -> Option<Result<Call, RefusedCall>> {
    let path = incoming.head.path();
    if let Some(names) = path.strip_prefix("/channels/") {
        return Some(Reader::new(incoming).read(names));
    }
    match path {
        SESSION_PATH if websocket::is_asked(incoming.head) => Some(Reader::new(incoming).open_session()),
        "/channels" if incoming.door == Door::Admin => Some(Reader::new(incoming).read_list()),
        MESSAGES_PATH => Some(read_publications(incoming)),
        _ => None,
    }
}

/// Reads the head of a request with a body, if the request publishes.
pub(super) fn read_ahead(incoming: &Incoming<'_>) -> Option<Result<Ahead, RefusedCall>> {
    if incoming.head.method() != Method::Post {
        return None;
    }
    if incoming.head.path() == MESSAGES_PATH {
        return Some(header_key(incoming.head).map(|_| Ahead::PublishSome).map_err(RefusedCall::from));
    }
    let names = incoming.head.path().strip_prefix("/channels/").filter(|names| !names.contains('/'))?;
    Some(Reader::new(incoming).publish(names).map(Ahead::Publish))
}

/// Reads a request that publishes several messages, or in several channels.
fn read_publications(incoming: &Incoming<'_>) -> Result<Call, RefusedCall> {
    match incoming.head.method() {
        Method::Post => {
            let key = header_key(incoming.head)?;
            let publications = read_messages(incoming.body, key.as_deref(), incoming.limits())?;
            Ok(Call::PublishAll { publications })
        }
        Method::Options => Ok(Call::Preflight { allow: MESSAGES_METHODS }),
        _ => Err(RefusedCall::method(MESSAGES_METHODS)),
    }
}

/// Reads requests to `/channels`.
struct Reader<'a> {
    door: Door,
    head: &'a RequestHead<'a>,
    body: &'a [u8],
    front: &'a Front,
    admin: &'a Admin,
    limits: &'a Limits,
    times: &'a Times,
}

impl<'a> Reader<'a> {
    fn new(incoming: &Incoming<'a>) -> Self {
        let Incoming { door, head, body, config } = *incoming;
        let Config { front, admin, limits, times, .. } = config;
        Self { door, head, body, front, admin, limits, times }
    }

    /// Reads a request for a path after `/channels/`.
    fn read(&self, names: &str) -> Result<Call, RefusedCall> {
        if let Some((name, part)) = names.split_once('/') {
            return self.read_part(name, part);
        }
        let allow = if self.door == Door::Admin { ADMIN_METHODS } else { FRONT_METHODS };
        match self.head.method() {
            Method::Post => self.publish(names),
            Method::Get => self.get(names),
            Method::Delete if self.door == Door::Admin => Ok(Call::Delete { channel: one_channel(names)? }),
            Method::Head => {
                let channels = channels(names, self.limits)?;
                Ok(Call::Probe { channels })
            }
            Method::Options => Ok(Call::Preflight { allow }),
            _ => Err(RefusedCall::method(allow)),
        }
    }

    /// Reads a request for a part of one channel.
    fn read_part(&self, name: &str, part: &str) -> Result<Call, RefusedCall> {
        let is_admin = self.door == Door::Admin;
        let is_there = matches!(part, "history" | "presence") || part == "info" && is_admin;
        if !is_there {
            return Err(Problem::UnknownPart.into());
        }
        let channel = one_channel(name)?;
        match (part, self.head.method()) {
            ("history", Method::Get) => {
                let range = self.range(Query::new(self.head.query()))?;
                Ok(Call::Read { channel, range })
            }
            ("history", Method::Delete) if is_admin => Ok(Call::Clear { channel }),
            ("history", method) => {
                let allow = if is_admin { "GET, DELETE, OPTIONS" } else { PART_METHODS };
                if method == Method::Options { Ok(Call::Preflight { allow }) } else { Err(RefusedCall::method(allow)) }
            }
            ("presence", Method::Get) => Ok(Call::Who { channel }),
            (_, Method::Get) => Ok(Call::Inspect { channel }),
            (_, Method::Options) => Ok(Call::Preflight { allow: PART_METHODS }),
            _ => Err(RefusedCall::method(PART_METHODS)),
        }
    }

    /// Returns the requested part of a channel's history: by default, the newest messages.
    fn range(&self, query: Query<'_>) -> Result<Range, Problem> {
        let get = |name: &'static str| query.get(name).map_err(|_| Problem::BadPosition(name));
        let edge = |name: &'static str, text: &str| {
            let spots = parse_position(text, 1);
            spots.map(|spots| Edge::At(spots[0])).map_err(|_| Problem::BadPosition(name))
        };
        let (edge, is_backward) = match (get("after")?.as_deref(), get("before")?.as_deref()) {
            (None, None | Some("latest")) => (Edge::End, true),
            (None, Some(before)) => (edge("before", before)?, true),
            (Some("oldest"), None) => (Edge::Begin, false),
            (Some(after), None) => (edge("after", after)?, false),
            (Some(_), Some(_)) => return Err(Problem::Excluded("after", "'before'")),
        };
        Ok(Range { edge, is_backward, limit: self.limit(query)?, bytes_max: self.limits.batch_bytes_max })
    }

    /// Returns the requested number of messages or channels.
    fn limit(&self, query: Query<'_>) -> Result<usize, Problem> {
        let Some(text) = query.get("limit").map_err(|_| Problem::BadParameter("limit"))? else {
            return Ok(PAGE_DEFAULT.min(self.limits.page_items_max));
        };
        let limit = parse_number(&text).filter(|limit| *limit > 0).ok_or(Problem::BadParameter("limit"))?;
        Ok(usize::try_from(limit).unwrap_or(usize::MAX).min(self.limits.page_items_max))
    }

    /// Reads a request to `/channels` itself.
    fn read_list(&self) -> Result<Call, RefusedCall> {
        match self.head.method() {
            Method::Get => self.listing().map(|listing| Call::List { listing }).map_err(RefusedCall::from),
            Method::Options => Ok(Call::Preflight { allow: PART_METHODS }),
            _ => Err(RefusedCall::method(PART_METHODS)),
        }
    }

    fn listing(&self) -> Result<Listing, Problem> {
        let query = Query::new(self.head.query());
        let get = |name: &'static str| query.get(name).map_err(|_| Problem::BadParameter(name));
        let pattern = get("pattern")?.map_or(Ok(Pattern::all()), |text| Pattern::new(&text));
        let pattern = pattern.map_err(|_| Problem::BadChannel)?;
        let after = get("after")?.unwrap_or_default().into();
        Ok(Listing { pattern, after, limit: self.limit(query)? })
    }

    /// Reads a request that publishes its body.
    fn publish(&self, names: &str) -> Result<Call, RefusedCall> {
        let mut channels = channels(names, self.limits)?;
        if self.body.len() > self.limits.message_bytes_max {
            return Err(Problem::MessageTooLarge(self.limits.message_bytes_max).into());
        }
        let draft = read_draft(self.body, self.head, Query::new(self.head.query()))?;
        if let [channel] = channels.as_mut_slice()
            && !channel.is_pattern()
        {
            let channel = channel.clone();
            let reply = ReplyTo::Native { channel: channel.clone(), callback: None };
            return Ok(Call::Publish { channel, draft, reply });
        }
        let publications = channels.into_iter().map(|channel| AddressedDraft { channel, draft: draft.clone() });
        Ok(Call::PublishAll { publications: publications.collect() })
    }

    fn get(&self, names: &str) -> Result<Call, RefusedCall> {
        let query = Query::new(self.head.query());
        let callback: Option<Box<str>> = match query.get("callback") {
            Ok(None) => None,
            Ok(Some(name)) if is_callback(&name) => Some(name.into()),
            _ => return Err(Problem::BadCallback.into()),
        };
        let refused = |problem| RefusedCall::Problem { problem, callback: callback.clone(), allow: "" };
        if let Some(text) = query.get("publish").map_err(|_| refused(Problem::BadParameter("publish")))? {
            // Without a callback, this is not a request of a script tag, but a GET that changes
            // something.
            if callback.is_none() {
                return Err(refused(Problem::BadParameter("callback")));
            }
            let channel = one_channel(names).map_err(refused)?;
            if text.len() > self.limits.message_bytes_max {
                return Err(refused(Problem::MessageTooLarge(self.limits.message_bytes_max)));
            }
            let draft = read_draft(text.as_bytes(), self.head, query).map_err(refused)?;
            let reply = ReplyTo::Native { channel: channel.clone(), callback };
            return Ok(Call::Publish { channel, draft, reply });
        }
        if websocket::is_asked(self.head) {
            return self.open_socket(names, query);
        }
        self.subscribe(names, query, callback.clone()).map_err(refused)
    }

    fn open_socket(&self, names: &str, query: Query<'_>) -> Result<Call, RefusedCall> {
        self.accept_socket(|| self.channels_and_starts(names, query, None))
    }

    /// Reads a request for a WebSocket without channels.
    fn open_session(&self) -> Result<Call, RefusedCall> {
        match self.head.method() {
            Method::Get => self.accept_socket(|| Ok(Vec::new())),
            _ => Err(RefusedCall::method(PART_METHODS)),
        }
    }

    fn accept_socket(
        &self,
        channels: impl FnOnce() -> Result<Vec<(ChannelName, StartAt)>, Problem>,
    ) -> Result<Call, RefusedCall> {
        let Accepted { response, origin, .. } = websocket::accept(self.head, &[SUBPROTOCOL])
            .map_err(|refusal| RefusedCall::Own { problem: None, response: refusal.into() })?;
        if origin.is_some_and(|origin| !self.may_open_socket(origin)) {
            return Err(Problem::OriginForbidden.into());
        }
        Ok(Call::Socket { subscription: SubscribeRequest::new(channels()?, Delivery::new(on_socket())), response })
    }

    /// Returns whether pages of an origin may open a WebSocket. Browsers leave this decision to the
    /// server. Pages of the server itself may do it at every listener.
    fn may_open_socket(&self, origin: &str) -> bool {
        origin::is_own(self.head, origin) || self.allows_origin(origin) || fault!("any-origin-opens-socket")
    }

    /// Returns whether pages of an origin may read the answers of this listener.
    fn allows_origin(&self, origin: &str) -> bool {
        match self.door {
            Door::Front => self.front.allows_origin(origin),
            Door::Admin if fault!("admin-frame-open-to-front-pages") => self.front.allows_origin(origin),
            Door::Admin => self.admin.allows_origin(origin),
        }
    }

    fn subscribe(&self, names: &str, query: Query<'_>, callback: Option<Box<str>>) -> Result<Call, Problem> {
        let transport = if callback.is_some() { None } else { self.transport(query)? };
        let listener = if transport == Some(Transport::Iframe) { self.listener(query)? } else { None };
        let wait_s = match query.get("wait").map_err(|_| Problem::BadParameter("wait"))? {
            None => self.times.poll_wait_s,
            // A wait beyond the limit is reduced, not refused: the reply is the same, only earlier.
            Some(text) => parse_number(&text).ok_or(Problem::BadParameter("wait"))?.min(self.times.poll_wait_max_s),
        };
        let last_id = if transport == Some(Transport::EventStream) { self.last_event_id(query)? } else { None };
        let channels = self.channels_and_starts(names, query, last_id.as_deref())?;
        let delivery = match transport {
            None => Delivery { target: callback, ..Delivery::new(Format::poll(ROW)) },
            Some(transport) => {
                let framing = if self.head.version_minor() == 0 { Framing::Plain } else { Framing::Chunked };
                let format = StreamFormat { transport, framing }.in_row(ROW);
                Delivery { target: listener, ..Delivery::new(format) }
            }
        };
        let subscription =
            SubscribeRequest { answer_at_once: wait_s == 0, ..SubscribeRequest::new(channels, delivery) };
        Ok(Call::Subscribe { subscription, wait_s })
    }

    /// Returns the id of the last event that a client of an event stream has received. It is in the
    /// header field or, from clients that cannot set header fields, in the query, under the names
    /// that polyfills and wrappers of `EventSource` use.
    fn last_event_id(&self, query: Query<'_>) -> Result<Option<String>, Problem> {
        if let Some(id) = self.head.header("last-event-id").filter(|id| !id.is_empty()) {
            return Ok(Some(String::from_utf8_lossy(id).into_owned()));
        }
        if fault!("last-id-in-query-ignored") {
            return Ok(None);
        }
        for name in ["lastEventId", "last_event_id", "Last-Event-ID"] {
            let id = query.get(name).map_err(|_| Problem::BadParameter(name))?;
            if let Some(id) = id.filter(|id| !id.is_empty()) {
                return Ok(Some(id.into_owned()));
            }
        }
        Ok(None)
    }

    /// Returns the channels, and the start in each. If the id of the last event is not a position
    /// in these channels, the position counts as unknown: a refusal would end an `EventSource`
    /// permanently.
    fn channels_and_starts(
        &self,
        names: &str,
        query: Query<'_>,
        last_id: Option<&str>,
    ) -> Result<Vec<(ChannelName, StartAt)>, Problem> {
        let channels = channels(names, self.limits)?;
        let with_presence = with_presence(query)?;
        let after = query.get("after").map_err(|_| Problem::BadPosition("after"))?;
        let last = query.get("last").map_err(|_| Problem::BadParameter("last"))?;
        let last = last.map(|count| parse_number(&count).ok_or(Problem::BadParameter("last"))).transpose();
        let Some(id) = last_id else {
            return Starts { after: after.as_deref(), last: last?, with_presence }.of(channels);
        };
        let mut channels = Starts { with_presence, ..Starts::default() }.of(channels)?;
        let starts = match starts_after(id, channels.len()) {
            Err(problem) if fault!("foreign-event-id-refused") => return Err(problem),
            starts => starts.unwrap_or_else(|_| vec![StartAt::After(Spot::UNKNOWN); channels.len()]),
        };
        channels.iter_mut().zip(starts).for_each(|((_, held), start)| *held = start);
        Ok(channels)
    }

    /// Returns the transport of the answer, or `None` for a single reply.
    fn transport(&self, query: Query<'_>) -> Result<Option<Transport>, Problem> {
        match query.get("transport").map_err(|_| Problem::BadParameter("transport"))?.as_deref() {
            Some("poll") => Ok(None),
            Some("sse") => Ok(Some(Transport::EventStream)),
            Some("lines") => Ok(Some(Transport::Lines)),
            Some("iframe") => Ok(Some(Transport::Iframe)),
            Some(_) => Err(Problem::BadParameter("transport")),
            None if accepts(self.head, b"text/event-stream") => Ok(Some(Transport::EventStream)),
            None if accepts(self.head, b"application/x-ndjson") => Ok(Some(Transport::Lines)),
            None => Ok(None),
        }
    }

    /// Returns the origin of the page that has the answer in a frame; it must be allowed to read
    /// replies. `None` is the server's own origin, whose scheme only the browser knows.
    fn listener(&self, query: Query<'_>) -> Result<Option<Box<str>>, Problem> {
        let origin = query.get("origin").map_err(|_| Problem::BadParameter("origin"))?.unwrap_or_default();
        if origin.is_empty() || is_origin(&origin) && origin::is_own(self.head, &origin) {
            return Ok(None);
        }
        let allowed = is_origin(&origin) && self.allows_origin(&origin);
        if allowed { Ok(Some(origin.into())) } else { Err(Problem::BadOrigin) }
    }
}

/// Returns the format of messages to the client of a WebSocket.
pub(super) fn on_socket() -> Format {
    StreamFormat { transport: Transport::Socket, framing: Framing::Message }.in_row(ROW)
}

/// The requested start of a subscription, and whether it includes joins and leaves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Starts<'a> {
    /// `latest`, `oldest`, or a position.
    pub(super) after: Option<&'a str>,
    /// The number of messages before the newest.
    pub(super) last: Option<u64>,
    pub(super) with_presence: Option<bool>,
}

impl Starts<'_> {
    /// Returns the channels of the subscription, sorted, and the start in each.
    pub(super) fn of(self, mut channels: Vec<ChannelName>) -> Result<Vec<(ChannelName, StartAt)>, Problem> {
        if self.with_presence == Some(true) {
            // A pattern has no members.
            if channels.iter().any(ChannelName::is_pattern) {
                return Err(Problem::Excluded("presence", "a pattern"));
            }
            let beside: Vec<_> = channels.iter().map(ChannelName::of_presence).collect();
            channels.extend(beside);
            channels.sort();
        }
        let starts = match (self.after, self.last) {
            (None, Some(count)) => vec![StartAt::Last(count); channels.len()],
            (Some(_), Some(_)) => return Err(Problem::Excluded("after", "'last'")),
            (None | Some("latest"), None) => vec![StartAt::Latest; channels.len()],
            (Some("oldest"), None) => vec![StartAt::Oldest; channels.len()],
            (Some(position), None) => starts_after(position, channels.len())?,
        };
        Ok(channels.into_iter().zip(starts).collect())
    }
}

/// Returns whether the subscription includes joins and leaves, if the query has that parameter.
fn with_presence(query: Query<'_>) -> Result<Option<bool>, Problem> {
    match query.get("presence").map_err(|_| Problem::BadParameter("presence"))?.as_deref() {
        None => Ok(None),
        Some("0") => Ok(Some(false)),
        Some("1") => Ok(Some(true)),
        Some(_) => Err(Problem::BadParameter("presence")),
    }
}

fn starts_after(position: &str, channels: usize) -> Result<Vec<StartAt>, Problem> {
    let spots = parse_position(position, channels).map_err(|_| Problem::BadPosition("after"))?;
    Ok(spots.into_iter().map(StartAt::After).collect())
}

/// Returns the channels of a path.
fn channels(names: &str, limits: &Limits) -> Result<Vec<ChannelName>, Problem> {
    // A name may contain an escaped '/', but the path has no further segments.
    let decoded = names.split(',').map(|name| if name.contains('/') { None } else { decode_segment(name).ok() });
    read_channels(decoded, limits)
}

/// Parses the names of channels and patterns. Returns them sorted, so that a position does not
/// depend on the order of the request.
pub(super) fn read_channels<N: AsRef<str>>(
    names: impl Iterator<Item = Option<N>>,
    limits: &Limits,
) -> Result<Vec<ChannelName>, Problem> {
    let mut channels = Vec::new();
    for name in names {
        if channels.len() == limits.channels_per_subscription_max {
            return Err(Problem::TooManyChannels);
        }
        let channel = name.and_then(|name| read_target(name.as_ref()).ok());
        channels.push(channel.ok_or(Problem::BadChannel)?);
    }
    channels.sort();
    let count = channels.len();
    channels.dedup();
    if channels.len() < count { Err(Problem::TooManyChannels) } else { Ok(channels) }
}

fn one_channel(names: &str) -> Result<ChannelName, Problem> {
    let name = if names.contains('/') { None } else { decode_segment(names).ok() };
    name.and_then(|name| ChannelName::new(&name).ok()).ok_or(Problem::BadChannel)
}

/// Returns whether `Accept` names a kind of stream. Weights are ignored: a client that names a kind
/// accepts it.
fn accepts(head: &RequestHead<'_>, wanted: &[u8]) -> bool {
    head.headers().filter(|(name, _)| name.eq_ignore_ascii_case("accept")).any(|(_, value)| {
        value.split(|byte| *byte == b',').any(|range| {
            let kind = range.split(|byte| *byte == b';').next().unwrap_or_default();
            kind.trim_ascii().eq_ignore_ascii_case(wanted)
        })
    })
}
