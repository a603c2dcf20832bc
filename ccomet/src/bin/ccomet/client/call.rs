//! Requests of a program that does nothing else meanwhile.

use std::fmt;
use std::time::Duration;

use sealed::{Config, EventLoop};
use sealed_http::client::{Fetch, FetchError, FetchId, Fetched, Upstream, UpstreamId};
use sealed_http::{Handler, Http, Server, Settings};

use super::place::Place;

/// Sends one request after the other, on a kept connection.
pub(super) struct Caller {
    event_loop: EventLoop<Server<Waiter>>,
    upstream: UpstreamId,
    authority: String,
}

/// The answer to a request.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

/// Why there is no answer to a request.
#[derive(Debug)]
pub(super) struct Unanswered {
    message: String,
    /// `None` if the event loop has failed.
    why: Option<FetchError>,
}

impl Unanswered {
    /// Returns whether the request has not reached the server, because there was no connection.
    pub(super) fn is_unsent(&self) -> bool {
        // The requests here are never repeated by the client of the protocol, so this is certain.
        matches!(self.why, Some(FetchError::NotConnected(_) | FetchError::Unknown | FetchError::Busy))
    }

    /// Returns whether another attempt can succeed.
    pub(super) fn is_passing(&self) -> bool {
        matches!(self.why, Some(FetchError::NotConnected(_) | FetchError::Lost(_) | FetchError::TimedOut))
    }
}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Unanswered {}

#[derive(Debug, Default)]
struct Waiter(Option<Result<Answer, FetchError>>);

impl Handler for Waiter {
    type Connection = ();
    type Message = ();
    type Timer = ();

    fn fetched(&mut self, _: &mut Http<'_, Self>, _: FetchId, fetched: Fetched<'_>) {
        match fetched {
            Fetched::Whole(head, body) => self.0 = Some(Ok(Answer { status: head.status(), body: body.to_vec() })),
            Fetched::Failed(error) => self.0 = Some(Err(error)),
            // Only for streamed requests.
            _ => {}
        }
    }
}

impl Caller {
    /// Creates a client of a server. Its name is looked up at once.
    pub(super) fn new(place: &Place) -> Result<Self, Box<dyn std::error::Error>> {
        place.look_up()?;
        let mut event_loop = EventLoop::new(Config::default(), Server::new(Settings::default(), Waiter::default()))?;
        let (server, cx) = event_loop.parts();
        let upstream = Upstream::to((place.host.as_str(), place.port)).host(&place.authority());
        let upstream = server.parts(cx).1.add_upstream(upstream);
        Ok(Self { event_loop, upstream, authority: place.authority() })
    }

    /// Sends a request, and waits for its answer.
    pub(super) fn call(&mut self, fetch: &Fetch) -> Result<Answer, Unanswered> {
        // A connection that the server has closed meanwhile is noticed, and not used.
        let turned = self.event_loop.turn(Some(Duration::ZERO));
        turned.map_err(|error| Unanswered { message: error.to_string(), why: None })?;
        let (server, cx) = self.event_loop.parts();
        let (waiter, mut http) = server.parts(cx);
        waiter.0 = None;
        http.fetch(self.upstream, fetch);
        loop {
            let turned = self.event_loop.turn(None);
            let goes_on = turned.map_err(|error| Unanswered { message: error.to_string(), why: None })?;
            let (server, cx) = self.event_loop.parts();
            match server.parts(cx).0.0.take() {
                Some(Ok(answer)) => return Ok(answer),
                Some(Err(error)) => return Err(self.unanswered(error)),
                None if goes_on => {}
                None => return Err(self.unanswered(FetchError::Shutdown)),
            }
        }
    }

    fn unanswered(&self, error: FetchError) -> Unanswered {
        Unanswered { message: format!("{}: {error}", self.authority), why: Some(error) }
    }
}
