//! Which channels loops keep, and for how long, on the simulated network, by the server's own
//! accounts.

mod common;

use std::time::Duration;

use ccomet::Config;
use common::stage::{LOOPBACK, Stage};
use testing::http::request;

impl Stage {
    fn attached_channels(&self) -> usize {
        self.server.holdings().attached_channels
    }
}

#[test]
fn a_loop_stays_attached_for_the_linger_after_a_poll() {
    let linger = Duration::from_secs(Config::default().times.channel_linger_s);
    for (target, answer) in [
        ("/channels/news?after=oldest", "hello"),
        ("/channels/news?wait=0", "\"items\":[]"),
        ("/sub?cname=news&seq=99", "next_seq"),
    ] {
        let stage = Stage::new(|_| {});
        let mut client = stage.connect(LOOPBACK);
        client.send(request("POST", "/channels/news", "", "hello"));
        client.expect("position");
        client.send(request("GET", target, "", ""));
        client.expect(answer);
        stage.sim.run_for(linger / 2);
        assert_eq!(stage.attached_channels(), 1, "{target}");
        // The next poll restarts the time.
        client.send(request("GET", target, "", ""));
        client.expect(answer);
        stage.sim.run_for(linger * 3 / 4);
        assert_eq!(stage.attached_channels(), 1, "{target}");
        stage.sim.run_for(linger);
        assert_eq!(stage.attached_channels(), 0, "{target}");
    }
}
