//! The embedder's say: whether a call of a client is carried out.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use sealed::fault;
use sealed_http::RequestHead;

use crate::access::{Access, Course};
use crate::core::message::{ChannelName, Draft};
use crate::webhooks::is_ambient;

/// What a client wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Action {
    /// Read channels as their messages come: a stream, a WebSocket, or one long poll, each of which
    /// is a call of its own. So is each subscription that a client adds to its WebSocket. A WebSocket
    /// may be opened without channels, and the client then names them as it goes on.
    Subscribe,
    /// Look something up that is there already: history, who is present, or, in the classic API, to
    /// sign in.
    Read,
    /// Publish messages: of a request all at once, on a WebSocket each.
    Publish,
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It goes on: to the hooks, if there are any, and is then carried out.
    Allow,
    /// Its client is answered 403, `hook_refused`.
    Refuse,
}

/// A call of a client of the public listener, for [`Server::on_call`](crate::Server::on_call).
pub struct CallInfo<'a> {
    pub(crate) access: &'a Access<'a>,
    pub(crate) member: Option<&'a str>,
    pub(crate) address: &'a dyn Fn() -> Option<IpAddr>,
    pub(crate) fields: Fields<'a>,
}

/// The header fields that come with a call.
#[derive(Clone, Copy)]
pub(crate) enum Fields<'a> {
    /// Those of its request.
    Of {
        head: &'a RequestHead<'a>,
        /// A page of any site could have made its visitor's browser send it.
        may_be_forged: bool,
    },
    /// Those of the request that opened the WebSocket on which the call was said.
    Kept(&'a KeptFields),
}

/// Header fields that outlast their request: a line for each, its name and its value with a colon between.
#[derive(Debug, Default)]
pub(crate) struct KeptFields(Box<str>);

impl KeptFields {
    /// Keeps the fields of a request that an embedder may see: of each name the first, and no more bytes than the head has.
    pub(crate) fn of(head: &RequestHead<'_>, may_be_forged: bool) -> Self {
        let fields = Fields::Of { head, may_be_forged };
        let mut lines = String::new();
        for (name, bytes) in head.headers() {
            if let Some(value) = fields.get(name).filter(|value| value.as_bytes() == bytes) {
                lines.extend([name, ":", value, "\n"]);
            }
        }
        Self(lines.into())
    }
}

impl<'a> Fields<'a> {
    fn get(self, name: &str) -> Option<&'a str> {
        match self {
            Self::Of { head, may_be_forged } => {
                let value = head.header_str(name)?;
                let is_hidden = may_be_forged && is_ambient(name, value) && !fault!("judge-sees-forged-cookie");
                (!is_hidden).then_some(value)
            }
            Self::Kept(KeptFields(lines)) => {
                let mut fields = lines.lines().filter_map(|line| line.split_once(':'));
                fields.find(|(held, _)| held.eq_ignore_ascii_case(name)).map(|(_, value)| value)
            }
        }
    }
}

/// A message that a client wants to publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Publication<'a> {
    /// The channel, or the pattern of channels.
    pub channel: &'a str,
    /// Any bytes.
    pub data: &'a [u8],
    /// What kind of message it is, if its publisher says so.
    pub event: Option<&'a str>,
}

impl<'a> CallInfo<'a> {
    /// Returns what the client wants to do.
    pub fn action(&self) -> Action {
        match self.access.course {
            _ if self.access.writes().next().is_some() => Action::Publish,
            Course::Messages | Course::Conversation => Action::Subscribe,
            Course::Answer => Action::Read,
        }
    }

    /// Returns the channels, or patterns of channels, that it is about, in no order. One may come
    /// more than once. A WebSocket that is opened without channels has none.
    pub fn channels(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let written = self.access.writes().map(|write| write.channel.as_str());
        self.access.reads().map(ChannelName::as_str).chain(written)
    }

    /// Returns what is published.
    pub fn publications(&self) -> impl Iterator<Item = Publication<'a>> + use<'a> {
        self.access.writes().filter_map(|write| {
            let Draft { payload, event, .. } = write.draft?;
            Some(Publication { channel: write.channel.as_str(), data: payload, event: event.as_deref() })
        })
    }

    /// Returns the subject of the client's token, if it has brought a token with one.
    pub fn member(&self) -> Option<&'a str> {
        self.member
    }

    /// Returns the client's address: what a trusted proxy says it is, or else where the connection
    /// comes from.
    pub fn address(&self) -> Option<IpAddr> {
        (self.address)()
    }

    /// Returns a field of the request's header, whatever the case of its name, if it is text. What
    /// a client says on its WebSocket has the fields of the request that opened the WebSocket.
    ///
    /// `Cookie`, and an `Authorization` that is no bearer's, are left out where a page of another
    /// site could have made the browser send the request: they do not say there that the user wants
    /// it.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        self.fields.get(name)
    }
}

impl fmt::Debug for CallInfo<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let channels: Vec<&str> = self.channels().collect();
        let mut debug = f.debug_struct("CallInfo");
        debug.field("action", &self.action()).field("channels", &channels).field("member", &self.member);
        debug.finish_non_exhaustive()
    }
}

/// The embedder's callback, which runs on the thread of the loop that has the call.
#[derive(Clone)]
pub(crate) struct Judge(pub(crate) Arc<dyn Fn(&CallInfo<'_>) -> Decision + Send + Sync>);

impl fmt::Debug for Judge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Judge(..)")
    }
}
