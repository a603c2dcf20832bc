//! The embedder's decision whether a call of a client is executed.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use sealed::fault;
use sealed_http::RequestHead;

use crate::access::{Access, Course};
use crate::core::message::{ChannelName, Draft};
use crate::webhooks::is_ambient;

/// The action of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Action {
    /// Reads channels as messages are published: by a stream, a WebSocket, or a long poll, each of
    /// which is a call of its own. Each subscription that a client adds to its WebSocket is a call,
    /// too. A WebSocket may be opened without channels; the client then names them in later
    /// commands.
    Subscribe,
    /// Reads something that exists already: history, or present members. A sign-in of the classic
    /// API also counts as reading.
    Read,
    /// Publishes messages: all messages of a request in one call, on a WebSocket each message in a
    /// call of its own.
    Publish,
}

/// The decision about a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The call continues: the hooks are asked, if there are any, and then it is executed.
    Allow,
    /// The client is answered 403, `hook_refused`.
    Refuse,
}

/// A call of a client of the public listener, for [`Server::on_call`](crate::Server::on_call).
pub struct CallInfo<'a> {
    pub(crate) access: &'a Access<'a>,
    pub(crate) member: Option<&'a str>,
    pub(crate) address: &'a dyn Fn() -> Option<IpAddr>,
    pub(crate) fields: Fields<'a>,
}

/// The header fields of a call.
#[derive(Clone, Copy)]
pub(crate) enum Fields<'a> {
    /// The fields of its own request.
    Of {
        head: &'a RequestHead<'a>,
        /// Whether a page of any site could have made its visitor's browser send it.
        may_be_forged: bool,
    },
    /// The fields of the request that opened the WebSocket of the call.
    Kept(&'a KeptFields),
}

/// Header fields that are kept longer than their request, one per line: name, colon and value.
#[derive(Debug, Default)]
pub(crate) struct KeptFields(Box<str>);

impl KeptFields {
    /// Keeps the fields of a request that an embedder may see: the first of each name, and at most
    /// as many bytes as the head has.
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
    /// The data: any bytes.
    pub data: &'a [u8],
    /// The kind of the message, if its publisher has set one.
    pub event: Option<&'a str>,
}

impl<'a> CallInfo<'a> {
    /// Returns the action of the client.
    pub fn action(&self) -> Action {
        match self.access.course {
            _ if self.access.writes().next().is_some() => Action::Publish,
            Course::Messages | Course::Conversation => Action::Subscribe,
            Course::Answer => Action::Read,
        }
    }

    /// Returns the channels, or patterns of channels, of the call, in no particular order. A
    /// channel may occur more than once. A WebSocket that is opened without channels has none.
    pub fn channels(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let written = self.access.writes().map(|write| write.channel.as_str());
        self.access.reads().map(ChannelName::as_str).chain(written)
    }

    /// Returns the messages that the call publishes.
    pub fn publications(&self) -> impl Iterator<Item = Publication<'a>> + use<'a> {
        self.access.writes().filter_map(|write| {
            let Draft { payload, event, .. } = write.draft?;
            Some(Publication { channel: write.channel.as_str(), data: payload, event: event.as_deref() })
        })
    }

    /// Returns the subject of the client's token, if it has one.
    pub fn member(&self) -> Option<&'a str> {
        self.member
    }

    /// Returns the client's address: the one that a trusted proxy names, or else that of the
    /// connection.
    pub fn address(&self) -> Option<IpAddr> {
        (self.address)()
    }

    /// Returns a field of the request's header, whatever the case of its name, if it is text. A
    /// command on a WebSocket has the fields of the request that opened the WebSocket.
    ///
    /// `Cookie`, and an `Authorization` without a bearer token, are left out if a page of another
    /// site could have made the browser send the request: in that case they do not prove the intent
    /// of the user.
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

/// The embedder's callback, which runs on the thread of the loop that handles the call.
#[derive(Clone)]
pub(crate) struct Judge(pub(crate) Arc<dyn Fn(&CallInfo<'_>) -> Decision + Send + Sync>);

impl fmt::Debug for Judge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Judge(..)")
    }
}
