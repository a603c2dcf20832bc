//! TLS without the feature `tls`: types of which no value exists, so that the loop needs no
//! conditions, and its code for TLS compiles to nothing.
#![allow(dead_code, clippy::unused_self, clippy::needless_pass_by_value)] // as with the feature

use std::convert::Infallible;
use std::io;
use std::marker::PhantomData;

use crate::buffers::Outbox;
use crate::context::Context;
use crate::error::CloseReason;
use crate::event_loop::closing::Flushed;
use crate::event_loop::reading::News;
use crate::id::{ConnectionId, TimerId};
use crate::net::Stream;
use crate::service::Service;

#[derive(Debug, Clone)]
pub(crate) struct Acceptor(Infallible);

#[derive(Debug, Clone)]
pub(crate) struct Connector(Infallible);

#[derive(Debug, Clone)]
pub(crate) struct ServerName<'a>(Infallible, PhantomData<&'a ()>);

#[derive(Debug)]
pub(crate) struct Session {
    never: Infallible,
    pub(crate) limit: Option<TimerId>,
    pub(crate) sent: u64,
    pub(crate) is_late: bool,
    pub(crate) ahead: Outbox,
}

#[derive(Debug, Default)]
pub(crate) struct Deciphered {
    pub(crate) count: usize,
    pub(crate) news: News,
}

impl Acceptor {
    pub(crate) fn session(&self, _: TimerId) -> Result<Session, io::Error> {
        match self.0 {}
    }
}

impl Connector {
    pub(crate) fn session(&self, _: ServerName<'static>, _: Option<TimerId>) -> Result<Session, io::Error> {
        match self.0 {}
    }
}

impl Session {
    pub(crate) fn failure(&self, _: io::ErrorKind) -> CloseReason {
        match self.never {}
    }

    pub(crate) fn has_unsent(&self, _: bool) -> bool {
        match self.never {}
    }

    pub(crate) fn flush(&mut self, _: &mut Outbox, _: &mut Stream, _: usize, _: bool) -> io::Result<Flushed> {
        match self.never {}
    }
}

impl<S: Service> Context<S> {
    pub(crate) fn begin_tls(&mut self, _: ConnectionId, session: Session) {
        match session.never {}
    }

    pub(crate) fn decipher(&mut self, _: u32, _: usize, _: bool) -> Deciphered {
        Deciphered::default()
    }

    pub(crate) fn tls_ended(&mut self, _: u32) -> bool {
        false
    }
}
