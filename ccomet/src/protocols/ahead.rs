//! What the head of a request says of it, before its body has come.

use sealed_http::{Method, Request, RequestHead};

use super::call::{Call, Door, MESSAGES_PATH, Refused, look, read};
use super::native::request::Native;
use crate::config::{Api, Config};
use crate::protocols::icomet::request as icomet;
use crate::protocols::native::publication::header_key;

/// What a request with a body is going to be.
#[derive(Debug)]
pub(crate) enum Ahead {
    /// This call, whose messages are still empty.
    Publish(Call),
    /// One that publishes to channels which its body names.
    PublishSome,
    /// A file, by its path.
    File(String),
    /// Anything else, which has little use for a body.
    Other,
}

/// Reads the head of a request that has a body. What is wrong with it already is refused.
pub(crate) fn read_ahead(door: Door, head: &RequestHead<'_>, config: &Config) -> Result<Ahead, Refused> {
    look(door, head, config)?;
    let (limits, times) = (&config.limits, &config.times);
    let apis = if door == Door::Front { &config.front.apis } else { &config.admin.apis };
    if apis.contains(&Api::Icomet) && icomet::read(door, head, &[], limits.message_bytes_max).is_some() {
        return Ok(Ahead::Other);
    }
    if head.method() == Method::Post && apis.contains(&Api::Native) {
        if head.path() == MESSAGES_PATH {
            header_key(head).map_err(Refused::native)?;
            return Ok(Ahead::PublishSome);
        }
        if let Some(names) = head.path().strip_prefix("/channels/").filter(|names| !names.contains('/')) {
            let native = Native { door, head, body: &[], front: &config.front, admin: &config.admin, limits, times };
            return native.publish(names).map(Ahead::Publish);
        }
    }
    // Nobody else reads a body, so that there is no need to wait for it.
    Ok(match read(door, &Request { head: head.clone(), body: &[] }, config)? {
        Call::File { path } => Ahead::File(path),
        _ => Ahead::Other,
    })
}
