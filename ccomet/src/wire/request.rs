//! What a client said: from a request to a [`Call`]. Pure: nothing is done here.

use std::sync::Arc;

use bytes::Bytes;
use sealed_http::websocket::{self, Accepted, Refusal};
use sealed_http::{Method, Query, Request, RequestHead, Response, decode_segment};

use super::callback::is_callback;
use super::framing::Framing;
use super::icomet::request as icomet;
use super::problem::Problem;
use super::publication::{Publication, header_key, read_draft, read_messages, read_target};
use super::voice::{Tongue, Transport, Voice};
use crate::config::{Config, Front, Limits, Times, is_origin};
use crate::hub::{Start, Style, Subscription};
use crate::message::{ChannelName, Draft};
use crate::position::parse_position;

/// The longest name of a classic client, in bytes.
const SNAME_BYTES_MAX: usize = 128;

/// What a WebSocket speaks here, for who wants it said.
const SUBPROTOCOL: &str = "ccomet";

/// Where several messages are published at once.
pub(crate) const MESSAGES_PATH: &str = "/messages";

/// Which listener a client came in by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Door {
    #[default]
    Front,
    Admin,
}

/// What a client wants.
#[derive(Debug)]
pub(crate) enum Call {
    Publish {
        channel: ChannelName,
        draft: Draft,
        reply: ReplyTo,
    },
    /// Several messages, or in several channels.
    PublishAll {
        publications: Vec<Publication>,
    },
    Subscribe {
        subscription: Subscription,
        wait_s: u64,
    },
    /// The same on a WebSocket.
    Socket {
        subscription: Subscription,
        response: Response,
    },
    /// A classic client signs in.
    Sign {
        channel: ChannelName,
        name: Arc<str>,
        callback: Box<str>,
    },
    Delete {
        channel: ChannelName,
    },
    /// Something else than channels: `/` and the demo.
    File {
        path: String,
    },
    /// A question by OPTIONS or HEAD, to which the answer is what may be done here.
    Preflight {
        allow: &'static str,
    },
    /// HEAD of a channel.
    Nothing,
    /// What a client of icomet's wants.
    Icomet(icomet::Call),
}

/// How a publisher is answered.
#[derive(Debug)]
pub(crate) enum ReplyTo {
    Native {
        channel: ChannelName,
        callback: Option<Box<str>>,
    },
    Classic {
        callback: Box<str>,
    },
    Delete,
    Icomet(IcometReply),
    Socket {
        channel: ChannelName,
        reference: Option<i64>,
    },
    /// One of several.
    Part(Part),
}

/// Which of several publications of one request an answer is about.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    /// Whoever keeps them finds them by these two.
    pub(crate) batch: u32,
    pub(crate) serial: u32,
    pub(crate) places: Vec<usize>,
}

/// How a client of icomet's is answered.
#[derive(Debug)]
pub(crate) enum IcometReply {
    Published {
        callback: Option<Box<str>>,
    },
    Ended {
        channel: ChannelName,
    },
    Signed {
        channel: ChannelName,
        expires_s: u32,
        callback: Option<Box<str>>,
    },
    Info {
        channel: ChannelName,
    },
    Check {
        channel: ChannelName,
    },
    /// With messages, if its token is right.
    Subscribe(Box<Subscription>),
}

/// Why a request is not a call, and how that is to be said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Native { problem: Problem, callback: Option<Box<str>>, allow: &'static str },
    Classic { callback: Option<Box<str>> },
    Icomet(icomet::Refused),
    Socket(Refusal),
}

impl Refused {
    fn native(problem: Problem) -> Self {
        Self::Native { problem, callback: None, allow: "" }
    }

    fn method(allow: &'static str) -> Self {
        Self::Native { problem: Problem::MethodNotAllowed, callback: None, allow }
    }
}

const FRONT_METHODS: &str = "GET, HEAD, POST, OPTIONS";
const ADMIN_METHODS: &str = "GET, HEAD, POST, DELETE, OPTIONS";
const MESSAGES_METHODS: &str = "POST, OPTIONS";
const READ_METHODS: &str = "GET, HEAD, OPTIONS";
const CLASSIC_METHODS: &str = "GET, OPTIONS";

/// Reads a request.
pub(crate) fn read(door: Door, request: &Request<'_>, config: &Config) -> Result<Call, Refused> {
    let (head, limits, times) = (&request.head, &config.limits, &config.times);
    let path = head.path();
    if let Some(read) = icomet::read(door, head, limits.message_bytes_max) {
        return read.map(Call::Icomet).map_err(Refused::Icomet);
    }
    if let Some(names) = path.strip_prefix("/channels/") {
        return Native { door, head, body: request.body, front: &config.front, limits, times }.read(names);
    }
    if path == MESSAGES_PATH {
        return match head.method() {
            Method::Post => {
                let key = header_key(head).map_err(Refused::native)?;
                let publications = read_messages(request.body, key.as_deref(), limits).map_err(Refused::native)?;
                Ok(Call::PublishAll { publications })
            }
            Method::Options => Ok(Call::Preflight { allow: MESSAGES_METHODS }),
            _ => Err(Refused::method(MESSAGES_METHODS)),
        };
    }
    if door == Door::Front && matches!(path, "/sign" | "/publish" | "/subscribe") {
        return match head.method() {
            Method::Get => read_classic(path, Query::new(head.query()), limits, times),
            Method::Options => Ok(Call::Preflight { allow: CLASSIC_METHODS }),
            _ => Err(Refused::method(CLASSIC_METHODS)),
        };
    }
    match head.method() {
        Method::Get | Method::Head => Ok(Call::File { path: path.to_owned() }),
        Method::Options => Ok(Call::Preflight { allow: READ_METHODS }),
        _ => Err(Refused::method(READ_METHODS)),
    }
}

/// A request to `/channels/…`.
struct Native<'a> {
    door: Door,
    head: &'a RequestHead<'a>,
    body: &'a [u8],
    front: &'a Front,
    limits: &'a Limits,
    times: &'a Times,
}

impl Native<'_> {
    fn read(&self, names: &str) -> Result<Call, Refused> {
        let allow = if self.door == Door::Admin { ADMIN_METHODS } else { FRONT_METHODS };
        match self.head.method() {
            Method::Post => self.publish(names),
            Method::Get => self.get(names),
            Method::Delete if self.door == Door::Admin => {
                Ok(Call::Delete { channel: one_channel(names).map_err(Refused::native)? })
            }
            Method::Head => channels(names, self.limits, true).map(|_| Call::Nothing).map_err(Refused::native),
            Method::Options => Ok(Call::Preflight { allow }),
            _ => Err(Refused::method(allow)),
        }
    }

    fn publish(&self, names: &str) -> Result<Call, Refused> {
        let mut channels = channels(names, self.limits, true).map_err(Refused::native)?;
        if self.body.len() > self.limits.message_bytes_max {
            return Err(Refused::native(Problem::MessageTooLarge));
        }
        let draft = read_draft(self.body, self.head, Query::new(self.head.query())).map_err(Refused::native)?;
        if let [channel] = channels.as_mut_slice()
            && !channel.is_pattern()
        {
            let channel = channel.clone();
            let reply = ReplyTo::Native { channel: channel.clone(), callback: None };
            return Ok(Call::Publish { channel, draft, reply });
        }
        let publications = channels.into_iter().map(|channel| Publication { channel, draft: draft.clone() });
        Ok(Call::PublishAll { publications: publications.collect() })
    }

    fn get(&self, names: &str) -> Result<Call, Refused> {
        let query = Query::new(self.head.query());
        let callback: Option<Box<str>> = match query.get("callback") {
            Ok(None) => None,
            Ok(Some(name)) if is_callback(&name) => Some(name.into()),
            _ => return Err(Refused::native(Problem::BadCallback)),
        };
        let refused = |problem| Refused::Native { problem, callback: callback.clone(), allow: "" };
        if let Some(text) = query.get("publish").map_err(|_| refused(Problem::BadParameter))? {
            // Without a callback it would be a GET that changes something, and no script tag's.
            if callback.is_none() {
                return Err(refused(Problem::BadParameter));
            }
            let channel = one_channel(names).map_err(refused)?;
            if text.len() > self.limits.message_bytes_max {
                return Err(refused(Problem::MessageTooLarge));
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

    fn open_socket(&self, names: &str, query: Query<'_>) -> Result<Call, Refused> {
        let Accepted { response, origin, .. } =
            websocket::accept(self.head, &[SUBPROTOCOL]).map_err(Refused::Socket)?;
        if origin.is_some_and(|origin| !self.may_open_socket(origin)) {
            return Err(Refused::native(Problem::OriginForbidden));
        }
        let channels = self.channels_and_starts(names, query, None).map_err(Refused::native)?;
        let voice = Voice { tongue: Tongue::Native, transport: Transport::Socket, framing: Framing::Message };
        let style = Style::Stream { voice, listener: Box::default() };
        Ok(Call::Socket { subscription: Subscription { channels, style, answer_at_once: false }, response })
    }

    /// Whether pages of an origin may: no browser asks a server that before, or heeds what it says after. Pages of the
    /// server itself may everywhere, those of others not with the admin listener.
    fn may_open_socket(&self, origin: &str) -> bool {
        let is_own = self
            .head
            .header_str("host")
            .is_some_and(|host| origin.split_once("://").is_some_and(|(_, held)| held.eq_ignore_ascii_case(host)));
        is_own || self.door == Door::Front && self.front.allows_origin(origin)
    }

    fn subscribe(&self, names: &str, query: Query<'_>, callback: Option<Box<str>>) -> Result<Call, Problem> {
        let transport = if callback.is_some() { None } else { self.transport(query)? };
        let listener = if transport == Some(Transport::Iframe) { self.listener(query)? } else { Box::default() };
        let wait_s = match query.get("wait").map_err(|_| Problem::BadParameter)? {
            None => self.times.poll_wait_s,
            // A longer wait than the server grants is cut, not refused: the reply is the same, only sooner.
            Some(text) => parse_number(&text).ok_or(Problem::BadParameter)?.min(self.times.poll_wait_max_s),
        };
        let last_id = if transport == Some(Transport::EventStream) { self.head.header("last-event-id") } else { None };
        let channels = self.channels_and_starts(names, query, last_id)?;
        let style = match transport {
            None => Style::Poll { callback },
            Some(transport) => {
                let framing = if self.head.version_minor() == 0 { Framing::Plain } else { Framing::Chunked };
                let voice = Voice { tongue: Tongue::Native, transport, framing };
                Style::Stream { voice, listener }
            }
        };
        let subscription = Subscription { channels, style, answer_at_once: wait_s == 0 };
        Ok(Call::Subscribe { subscription, wait_s })
    }
}

impl Native<'_> {
    /// The channels, and where to start in each.
    fn channels_and_starts(
        &self,
        names: &str,
        query: Query<'_>,
        last_id: Option<&[u8]>,
    ) -> Result<Vec<(ChannelName, Start)>, Problem> {
        let channels = channels(names, self.limits, true)?;
        let after = query.get("after").map_err(|_| Problem::BadPosition)?;
        let starts = match (last_id, after.as_deref()) {
            (Some(id), _) if !id.is_empty() => {
                let id = std::str::from_utf8(id).map_err(|_| Problem::BadPosition)?;
                starts_after(id, channels.len())?
            }
            (_, None | Some("latest")) => vec![Start::Latest; channels.len()],
            (_, Some("oldest")) => vec![Start::Oldest; channels.len()],
            (_, Some(position)) => starts_after(position, channels.len())?,
        };
        Ok(channels.into_iter().zip(starts).collect())
    }

    /// What is to carry the answer: a stream, or, where it is none, one reply.
    fn transport(&self, query: Query<'_>) -> Result<Option<Transport>, Problem> {
        match query.get("transport").map_err(|_| Problem::BadParameter)?.as_deref() {
            Some("poll") => Ok(None),
            Some("sse") => Ok(Some(Transport::EventStream)),
            Some("lines") => Ok(Some(Transport::Lines)),
            Some("iframe") => Ok(Some(Transport::Iframe)),
            Some(_) => Err(Problem::BadParameter),
            None if accepts(self.head, b"text/event-stream") => Ok(Some(Transport::EventStream)),
            None if accepts(self.head, b"application/x-ndjson") => Ok(Some(Transport::Lines)),
            None => Ok(None),
        }
    }

    /// The origin of the page that has this in a frame: one that may read replies. Empty: this server's own.
    fn listener(&self, query: Query<'_>) -> Result<Box<str>, Problem> {
        let origin = query.get("origin").map_err(|_| Problem::BadParameter)?.unwrap_or_default();
        let allowed = origin.is_empty() || is_origin(&origin) && self.front.allows_origin(&origin);
        if allowed { Ok(origin.into()) } else { Err(Problem::BadOrigin) }
    }
}

fn starts_after(position: &str, channels: usize) -> Result<Vec<Start>, Problem> {
    let spots = parse_position(position, channels).map_err(|_| Problem::BadPosition)?;
    Ok(spots.into_iter().map(Start::After).collect())
}

/// The channels of a path, sorted: so that a position means the same in whatever order they are asked for.
fn channels(names: &str, limits: &Limits, and_patterns: bool) -> Result<Vec<ChannelName>, Problem> {
    let mut channels = Vec::new();
    for name in names.split(',') {
        if channels.len() == limits.channels_per_subscription_max {
            return Err(Problem::TooManyChannels);
        }
        // A name may hold an escaped '/', but a path has no more segments.
        let decoded = if name.contains('/') { None } else { decode_segment(name).ok() };
        let name =
            decoded.and_then(|name| read_target(&name).ok().filter(|channel| and_patterns || !channel.is_pattern()));
        channels.push(name.ok_or(Problem::BadChannel)?);
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

/// Whether `Accept` names a kind of stream. Weights are not looked at: who names one wants it.
fn accepts(head: &RequestHead<'_>, wanted: &[u8]) -> bool {
    head.headers().filter(|(name, _)| name.eq_ignore_ascii_case("accept")).any(|(_, value)| {
        value.split(|byte| *byte == b',').any(|range| {
            let kind = range.split(|byte| *byte == b';').next().unwrap_or_default();
            kind.trim_ascii().eq_ignore_ascii_case(wanted)
        })
    })
}

fn parse_number(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

fn read_classic(path: &str, query: Query<'_>, limits: &Limits, times: &Times) -> Result<Call, Refused> {
    let callback: Box<str> = match query.get("callback") {
        Ok(Some(name)) if is_callback(&name) => name.into(),
        _ => return Err(Refused::Classic { callback: None }),
    };
    let call = read_classic_call(path, query, limits, times, callback.clone());
    call.ok_or(Refused::Classic { callback: Some(callback) })
}

fn read_classic_call(path: &str, query: Query<'_>, limits: &Limits, times: &Times, callback: Box<str>) -> Option<Call> {
    let get = |name: &str| query.get(name).ok().flatten();
    let channel = ChannelName::new(&get("channel")?).ok()?;
    let sname = get("sname").filter(|sname| !sname.is_empty() && sname.len() <= SNAME_BYTES_MAX)?;
    match path {
        "/sign" => Some(Call::Sign { channel, name: sname.into(), callback }),
        "/publish" => {
            let text = get("msg").filter(|text| text.len() <= limits.message_bytes_max)?;
            let payload = Bytes::copy_from_slice(text.as_bytes());
            let draft = Draft { payload, sender: Some(sname.into()), ..Draft::default() };
            Some(Call::Publish { channel, draft, reply: ReplyTo::Classic { callback } })
        }
        _ => {
            let start = Start::Number(parse_number(&get("seqid")?)?);
            let style = Style::Classic { callback, name: sname.into() };
            let subscription = Subscription { channels: vec![(channel, start)], style, answer_at_once: false };
            Some(Call::Subscribe { subscription, wait_s: times.classic_poll_s })
        }
    }
}
