//! The calls of clients, in a form that all protocols share.

use std::sync::Arc;

use sealed_http::Response;

use super::icomet::request as icomet;
use super::native::publication::AddressedDraft;
use crate::core::message::{ChannelName, Draft};
use crate::core::problem::Problem;
use crate::engine::{Listing, Range};
use crate::hub::SubscribeRequest;

/// The listener to which a client has connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Door {
    #[default]
    Front,
    Admin,
}

/// A call of a client.
#[derive(Debug)]
pub(crate) enum Call {
    Publish {
        channel: ChannelName,
        draft: Draft,
        reply: ReplyTo,
    },
    /// Several messages, or one message in several channels.
    PublishAll {
        publications: Vec<AddressedDraft>,
    },
    Subscribe {
        subscription: SubscribeRequest,
        wait_s: u64,
    },
    /// A subscription on a WebSocket.
    Socket {
        subscription: SubscribeRequest,
        response: Response,
    },
    /// The sign-in of a client of version 1.0.
    Sign {
        channel: ChannelName,
        name: Arc<str>,
        callback: Box<str>,
    },
    Delete {
        channel: ChannelName,
    },
    /// Drops the kept messages of a channel.
    Clear {
        channel: ChannelName,
    },
    /// Reads a page of the kept messages of a channel.
    Read {
        channel: ChannelName,
        range: Range,
    },
    /// Reads the state of a channel.
    Inspect {
        channel: ChannelName,
    },
    /// Reads the members of a channel.
    Who {
        channel: ChannelName,
    },
    /// Reads a page of the list of channels.
    List {
        listing: Listing,
    },
    /// Reads a file: `/`, the demo, or the description of the API.
    File {
        path: String,
    },
    /// OPTIONS: the answer lists the methods, and the fields that pages of other origins may send.
    Preflight {
        allow: &'static str,
    },
    /// HEAD of channels: whether a GET of them would be answered.
    Probe {
        channels: Vec<ChannelName>,
    },
    /// Reloads the settings.
    Reload,
    /// A call of the API of icomet.
    Icomet(icomet::IcometCall),
}

/// The form of the answer to a client that waits for a reply of the engine.
#[derive(Debug)]
pub(crate) enum ReplyTo {
    Native {
        channel: ChannelName,
        callback: Option<Box<str>>,
    },
    V1 {
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
    List,
    Icomet(IcometReply),
    Socket {
        channel: ChannelName,
        reference: Option<i64>,
    },
    /// The parts of a request with several messages to which this reply refers, by their indices.
    Part {
        places: Vec<usize>,
    },
    /// No answer to a message for all channels: its publisher, a client of icomet's API, has got it
    /// already.
    Broadcast,
    /// No answer: the client has got it already.
    Nobody,
}

/// The form of the answer to a client of icomet's API.
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
    /// Messages, if the token is valid.
    Subscribe(Box<SubscribeRequest>),
}

/// The answer to a request that is not a valid call.
#[derive(Debug)]
pub(crate) enum RefusedCall {
    /// A problem, within the client's callback if it has one. `allow` lists the methods that the
    /// path has.
    Problem { problem: Problem, callback: Option<Box<str>>, allow: &'static str },
    /// An answer in the form of the protocol. The problem is for the log.
    Own { problem: Option<Problem>, response: Response },
}

impl RefusedCall {
    pub(crate) fn method(allow: &'static str) -> Self {
        Self::Problem { problem: Problem::MethodNotAllowed, callback: None, allow }
    }
}

impl From<Problem> for RefusedCall {
    fn from(problem: Problem) -> Self {
        Self::Problem { problem, callback: None, allow: "" }
    }
}
