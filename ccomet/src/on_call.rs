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
    /// is a call of its own.
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
    /// Not there for what is said on a WebSocket.
    pub(crate) head: Option<&'a RequestHead<'a>>,
    /// A page of any site could have made its visitor's browser send this.
    pub(crate) may_be_forged: bool,
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
    /// more than once.
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
    /// is published on a WebSocket has none: the fields are there when the WebSocket is opened.
    ///
    /// `Cookie`, and an `Authorization` that is no bearer's, are left out where a page of another
    /// site could have made the browser send the request: they do not say there that the user wants
    /// it.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        let value = self.head?.header_str(name)?;
        let is_hidden = self.may_be_forged && is_ambient(name, value) && !fault!("judge-sees-forged-cookie");
        (!is_hidden).then_some(value)
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
