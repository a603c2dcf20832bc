//! The calls of clients, in whichever protocol they came.

use std::sync::Arc;

use sealed_http::Response;

use super::icomet::request as icomet;
use super::native::publication::Publication;
use crate::core::message::{ChannelName, Draft};
use crate::core::problem::Problem;
use crate::engine::{Listing, Range};
use crate::hub::Subscription;

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
    /// A client of version 1.0 signs in.
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
    /// The members of a channel.
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
    /// OPTIONS: the answer is which methods there are, and what pages of other origins may send.
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

/// How a client is answered that waits for a reply of the engine: to a publication, or to any other request.
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
    /// A request that publishes several messages: the places of those that this reply is about.
    Part {
        places: Vec<usize>,
    },
    /// The client has its answer already.
    Nobody,
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

/// Why a request is not a call, and how that is answered.
#[derive(Debug)]
pub(crate) enum Refused {
    /// As a problem, within the client's callback if it has one. `allow` lists the methods that
    /// there are.
    Problem { problem: Problem, callback: Option<Box<str>>, allow: &'static str },
    /// In the protocol's own words. The problem is for the log.
    Own { problem: Option<Problem>, response: Response },
}

impl Refused {
    pub(crate) fn method(allow: &'static str) -> Self {
        Self::Problem { problem: Problem::MethodNotAllowed, callback: None, allow }
    }
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self::Problem { problem, callback: None, allow: "" }
    }
}
