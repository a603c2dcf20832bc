//! A handler that asks servers, and notes what comes of it.

use sealed::ConnectionId;
use sealed_http::client::{Fetch, FetchError, FetchId, Fetched, UpstreamId};
use sealed_http::{Handler, Http, Request, Response};

/// What was told of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    Whole(u16, String),
    Head(u16),
    Data(String),
    End,
    Drained,
    Failed(FetchError),
}

/// Notes what is told, and asks `next` as soon as an outcome is there.
#[derive(Default)]
pub struct Asker {
    pub told: Vec<(FetchId, Told)>,
    pub next: Vec<(UpstreamId, Fetch)>,
    /// It wants no more of an answer for each piece of it.
    pub pauses: bool,
}

impl Handler for Asker {
    type Connection = ();
    type Message = ();
    type Timer = ();

    fn request(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, _: &Request<'_>) {
        http.respond(id, &Response::new(404));
    }

    fn fetched(&mut self, http: &mut Http<'_, Self>, id: FetchId, fetched: Fetched<'_>) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if self.pauses && matches!(fetched, Fetched::Data(_)) {
            http.pause_fetch(id);
        }
        let told = match fetched {
            Fetched::Whole(head, body) => Told::Whole(head.status(), text(body)),
            Fetched::Head(head) => Told::Head(head.status()),
            Fetched::Data(data) => Told::Data(text(data)),
            Fetched::End => Told::End,
            Fetched::Drained => Told::Drained,
            Fetched::Failed(error) => Told::Failed(error),
        };
        if matches!(told, Told::Whole(..) | Told::End | Told::Failed(_))
            && let Some((upstream, fetch)) = self.next.pop()
        {
            http.fetch(upstream, &fetch);
        }
        self.told.push((id, told));
    }
}
