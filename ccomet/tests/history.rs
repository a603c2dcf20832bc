//! What loops keep of channels, and for how long, on the simulated network: by the server's own accounts.

use std::time::Duration;

use ccomet::{Config, Simulated};
use sealed::sim::{Peer, Simulation};

struct Stage {
    sim: Simulation,
    server: Simulated,
}

impl Stage {
    fn new(config: Config) -> Self {
        let sim = Simulation::new(1);
        let server = Simulated::start(&sim, config).expect("it starts");
        sim.settle();
        Self { sim, server }
    }

    fn client(&self) -> Peer {
        self.sim.connect(self.server.front())
    }

    fn attached_channels(&self) -> usize {
        self.server.holdings().attached_channels
    }
}

fn config(loops: usize) -> Config {
    Config { loops: loops.try_into().ok(), ..Config::default() }
}

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: sim\r\n\r\n")
}

fn post(target: &str, body: &str) -> String {
    format!("POST {target} HTTP/1.1\r\nHost: sim\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn a_poll_that_is_answered_at_once_leaves_its_loop_attached_for_the_linger() {
    let linger = Duration::from_secs(Config::default().times.channel_linger_s);
    for (target, answer) in [
        ("/channels/news?after=oldest", "hello"),
        ("/channels/news?wait=0", "\"items\":[]"),
        ("/sub?cname=news&seq=99", "next_seq"),
    ] {
        let stage = Stage::new(config(1));
        let mut client = stage.client();
        client.send(post("/channels/news", "hello"));
        client.expect("position");
        client.send(get(target));
        client.expect(answer);
        stage.sim.run_for(linger / 2);
        assert_eq!(stage.attached_channels(), 1, "{target}");
        // The next poll begins the time anew.
        client.send(get(target));
        client.expect(answer);
        stage.sim.run_for(linger * 3 / 4);
        assert_eq!(stage.attached_channels(), 1, "{target}");
        stage.sim.run_for(linger);
        assert_eq!(stage.attached_channels(), 0, "{target}");
    }
}
