//! The example `proxy`, between a client that stalls and a server that has sent everything and
//! closed.

#[allow(dead_code)] // its `main`
#[path = "../../examples/examples/proxy.rs"]
mod example;

use std::io::ErrorKind;
use std::time::Duration;

use sealed::sim::{Link, Simulation};
use sealed::{Address, Config, Connect};

const SECOND: Duration = Duration::from_secs(1);
const SENT: usize = 200_000;

/// Returns how many bytes of [`SENT`] a client receives that ends its side and stalls for this
/// time, and the failure that it sees.
fn stall_for(time: Duration) -> (usize, Option<ErrorKind>) {
    let sim = Simulation::new(5);
    let at = |text: &str| text.parse::<Address>().expect("an address");
    let target = sim.listen(at("10.0.0.2:80")).expect("it is free");
    let proxy = example::Proxy { target: Connect::to(target.address()) };
    let mut event_loop = sim.event_loop(Config::default(), proxy).expect("a loop");
    event_loop.listen("10.0.0.1:80").expect("it is free");
    sim.start(event_loop);
    sim.set_link(Link { buffer_bytes: 65_536, ..Link::default() });
    let mut client = sim.connect(at("10.0.0.1:80"));
    client.send("question");
    client.finish();
    sim.settle();
    client.stall();
    let mut server = target.accept().expect("the proxy calls");
    server.expect("question");
    server.send(vec![7; SENT]);
    server.finish();
    sim.run_for(time);
    client.unstall();
    let got = client.expect_end().len();
    (got, client.failure())
}

#[test]
fn a_client_that_stalls_gets_everything_or_sees_a_failure() {
    for seconds in [0, 4, 6, 30] {
        assert_eq!(stall_for(SECOND * seconds), (SENT, None), "after {seconds} s");
    }
    let (got, failure) = stall_for(SECOND * 120);
    assert!(got < SENT);
    assert_eq!(failure, Some(ErrorKind::ConnectionReset));
}
