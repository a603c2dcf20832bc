//! A loop that sends requests to a host which the test plays.

use std::time::Duration;

use sealed::sim::{Peer, PeerListener};
use sealed::{Address, Config};
use sealed_http::Settings;
use sealed_http::client::{Fetch, FetchId, Upstream, UpstreamId};
use testing::sim::Served;

use super::asker::{Asker, Report};

pub const SECOND: Duration = Duration::from_secs(1);

/// A loop that sends requests, and a host that the test plays.
pub struct Stage {
    pub site: Served<Asker>,
    pub host: PeerListener,
}

impl Stage {
    pub fn new() -> Self {
        let site = Served::new(5, Config::default(), Settings::default(), Asker::default());
        let host = site.sim.listen("10.0.0.2:80".parse::<Address>().expect("an address")).expect("it is free");
        Self { site, host }
    }

    pub fn upstream(&self) -> UpstreamId {
        self.add(Upstream::to(self.host.address()))
    }

    pub fn add(&self, upstream: Upstream) -> UpstreamId {
        self.site.act(|_, http| http.add_upstream(upstream))
    }

    pub fn fetch(&self, upstream: UpstreamId, fetch: &Fetch) -> FetchId {
        self.site.act(|_, http| http.fetch(upstream, fetch))
    }

    /// Accepts the connection that the loop has made.
    pub fn accept(&self) -> Peer {
        let mut accepted = None;
        self.site.sim.run_until(SECOND, || {
            accepted = accepted.take().or_else(|| self.host.accept());
            accepted.is_some()
        });
        accepted.expect("the loop connects")
    }

    pub fn reports(&self) -> Vec<(FetchId, Report)> {
        self.site.sim.settle();
        self.site.act(|asker, _| std::mem::take(&mut asker.reports))
    }

    pub fn connections(&self) -> usize {
        self.site.act(|_, http| http.connections())
    }
}

pub fn get(target: &str) -> Fetch {
    Fetch::get(target).expect("a path")
}

pub fn whole(status: u16, body: &str) -> Report {
    Report::Whole(status, body.to_owned())
}

pub fn answer(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}
