//! A handler that sends requests to servers, and records their outcomes.

use sealed::ConnectionId;
use sealed_http::client::{Fetch, FetchError, FetchId, Fetched, UpstreamId};
use sealed_http::{Handler, Http, Request, Response};

/// A report about a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    Whole(u16, String),
    Head(u16),
    Data(String),
    End,
    Drained,
    Failed(FetchError),
}

/// A handler that records reports, and sends the requests in `next`, one for each outcome.
#[derive(Default)]
pub struct Asker {
    pub reports: Vec<(FetchId, Report)>,
    pub next: Vec<(UpstreamId, Fetch)>,
    /// Whether it pauses the response at each piece of it.
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
        let report = match fetched {
            Fetched::Whole(head, body) => Report::Whole(head.status(), text(body)),
            Fetched::Head(head) => Report::Head(head.status()),
            Fetched::Data(data) => Report::Data(text(data)),
            Fetched::End => Report::End,
            Fetched::Drained => Report::Drained,
            Fetched::Failed(error) => Report::Failed(error),
        };
        if matches!(report, Report::Whole(..) | Report::End | Report::Failed(_))
            && let Some((upstream, fetch)) = self.next.pop()
        {
            http.fetch(upstream, &fetch);
        }
        self.reports.push((id, report));
    }
}
