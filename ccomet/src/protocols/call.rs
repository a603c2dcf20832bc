//! What a client said: from a request to a [`Call`]. Pure: nothing is done here.

use std::sync::Arc;

use bytes::Bytes;
use sealed::fault;
use sealed_http::websocket::Refusal;
use sealed_http::{Method, Query, Request, RequestHead, Response};

use super::format::jsonp::is_callback;
use super::icomet::request as icomet;
use super::native::publication::{Publication, header_key, read_messages};
use super::native::request::Native;
use crate::broker::{Listed, Listing, Range};
use crate::config::{Api, Config, Limits, Times};
use crate::hub::{Delivery, Format, Start, Subscription};
use crate::message::{ChannelName, Draft};
use crate::wire::page;
use crate::wire::problem::Problem;

pub(crate) use super::ahead::{Ahead, read_ahead};

/// The longest name of a classic client, in bytes.
const SNAME_BYTES_MAX: usize = 128;

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
    /// To drop what a channel has kept.
    Clear {
        channel: ChannelName,
    },
    /// A page of what a channel has kept.
    Read {
        channel: ChannelName,
        range: Range,
    },
    /// What is known of a channel.
    Inspect {
        channel: ChannelName,
    },
    /// Who is in a channel.
    Who {
        channel: ChannelName,
    },
    /// A page of the list of channels.
    List {
        listing: Listing,
    },
    /// Something else than channels: `/`, the demo, the description of the API.
    File {
        path: String,
    },
    /// A question by OPTIONS or HEAD, to which the answer is what may be done here.
    Preflight {
        allow: &'static str,
    },
    /// HEAD of channels: whether a GET of them would be answered.
    Probe {
        channels: Vec<ChannelName>,
    },
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
    History {
        channel: ChannelName,
    },
    Info {
        channel: ChannelName,
    },
    Who {
        channel: ChannelName,
        with_members: bool,
    },
    List {
        channels: Vec<Listed>,
        limit: usize,
    },
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
    pub(crate) fn native(problem: Problem) -> Self {
        Self::Native { problem, callback: None, allow: "" }
    }

    pub(crate) fn method(allow: &'static str) -> Self {
        Self::Native { problem: Problem::MethodNotAllowed, callback: None, allow }
    }
}

const MESSAGES_METHODS: &str = "POST, OPTIONS";
/// The methods of a file.
pub(crate) const READ_METHODS: &str = "GET, HEAD, OPTIONS";
const CLASSIC_METHODS: &str = "GET, OPTIONS";

/// Looks at what every request has to have, and may not have.
pub(crate) fn look(door: Door, head: &RequestHead<'_>, config: &Config) -> Result<(), Refused> {
    page::look(door, head, config).map_err(Refused::native)?;
    // Readers would be given what is packed, and know nothing of it.
    let is_packed = |(name, value): (&str, &[u8])| {
        name.eq_ignore_ascii_case("content-encoding") && !value.trim_ascii().eq_ignore_ascii_case(b"identity")
    };
    if head.method() == Method::Post && head.headers().any(is_packed) && !fault!("packed-body-published") {
        return Err(Refused::native(Problem::UnsupportedEncoding));
    }
    Ok(())
}

/// Reads a request.
pub(crate) fn read(door: Door, request: &Request<'_>, config: &Config) -> Result<Call, Refused> {
    let (head, limits, times) = (&request.head, &config.limits, &config.times);
    let path = head.path();
    look(door, head, config)?;
    let apis = if door == Door::Front { &config.front.apis } else { &config.admin.apis };
    let speaks = |api| apis.contains(&api);
    if speaks(Api::Icomet)
        && let Some(read) = icomet::read(door, head, request.body, limits.message_bytes_max)
    {
        return read.map(Call::Icomet).map_err(Refused::Icomet);
    }
    let native = Native { door, head, body: request.body, front: &config.front, admin: &config.admin, limits, times };
    if let Some(names) = path.strip_prefix("/channels/").filter(|_| speaks(Api::Native)) {
        return native.read(names);
    }
    if door == Door::Admin && path == "/channels" && speaks(Api::Native) {
        return native.read_list();
    }
    if path == MESSAGES_PATH && speaks(Api::Native) {
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
    if door == Door::Front && speaks(Api::Classic) && matches!(path, "/sign" | "/publish" | "/subscribe") {
        return match head.method() {
            Method::Get => read_classic(path, Query::new(head.query()), limits, times),
            Method::Options => Ok(Call::Preflight { allow: CLASSIC_METHODS }),
            _ => Err(Refused::method(CLASSIC_METHODS)),
        };
    }
    match head.method() {
        Method::Options => Ok(Call::Preflight { allow: READ_METHODS }),
        // Whether there is anything at the path decides before the method does.
        _ => Ok(Call::File { path: path.to_owned() }),
    }
}

pub(crate) fn parse_number(text: &str) -> Option<u64> {
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
            let delivery = Delivery {
                target: Some(callback),
                name: Some(sname.into()),
                ..Delivery::new(Format::poll(super::v1::ROW))
            };
            let subscription = Subscription::new(vec![(channel, start)], delivery);
            Some(Call::Subscribe { subscription, wait_s: times.classic_poll_s })
        }
    }
}
