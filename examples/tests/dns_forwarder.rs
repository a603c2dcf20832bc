//! The example `dns_forwarder`, on real sockets, driven by other people's clients: `dig` and
//! `dnsperf`. The upstream is a small server in the same process.

use std::fmt::Write as _;
use std::net::{SocketAddr, UdpSocket};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use sealed::{Config, EventLoop, Stopper};
use testing::programs::{Need, run};
use testing::{Folder, tests};

// The example has its own `main` and tests, which this program does not need.
#[allow(dead_code, unused_imports)]
#[path = "../examples/dns_forwarder.rs"]
mod dns_forwarder;

use dns_forwarder::Forwarder;

fn main() -> ExitCode {
    run(tests![
        needs [Need::Program("dig")];
        dig_gets_the_answers_of_the_upstream,
        dig_gets_an_answer_although_a_query_is_lost,
        dig_gets_a_failure_if_the_upstream_is_silent;
        needs [Need::Program("dnsperf")]; dnsperf_loses_no_query
    ])
}

/// Length of the header of a DNS message.
const HEADER_BYTES: usize = 12;
/// The second byte of the flags of an answer: recursion is available, and nothing is wrong, or the
/// name does not exist.
const IS_FOUND: u8 = 0x80;
const IS_UNKNOWN: u8 = 0x83;

/// An upstream on a thread of its own. It knows the address of each name, except of those that
/// begin with "no", and answers all queries but the first few.
struct Upstream {
    address: SocketAddr,
    /// The number of queries that have come.
    queries: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Upstream {
    fn start(lost: usize) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let address = socket.local_addr().expect("it is bound");
        let queries = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&queries);
        let thread = Some(thread::spawn(move || serve(&socket, &count, lost)));
        Self { address, queries, thread }
    }

    fn queries(&self) -> usize {
        self.queries.load(Ordering::Relaxed)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        // An empty datagram ends the thread.
        let sent = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.send_to(&[], self.address));
        if let (Ok(_), Some(thread)) = (sent, self.thread.take()) {
            let _ = thread.join();
        }
    }
}

fn serve(socket: &UdpSocket, count: &AtomicUsize, lost: usize) {
    let mut buffer = [0; 512];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).expect("a query");
        if length == 0 {
            return;
        }
        if count.fetch_add(1, Ordering::Relaxed) >= lost {
            socket.send_to(&answer(&buffer[..length]), from).expect("it is sent");
        }
    }
}

/// Returns the answer to a query of one name: the address 192.0.2.7, or that there is no such name.
fn answer(query: &[u8]) -> Vec<u8> {
    let mut end = HEADER_BYTES;
    while query[end] > 0 {
        end += 1 + usize::from(query[end]);
    }
    end += 5; // the last byte of the name, its type and its class
    let is_known = !query[HEADER_BYTES + 1..].starts_with(b"no");
    let mut answer = query[..2].to_vec();
    answer.extend([0x81, if is_known { IS_FOUND } else { IS_UNKNOWN }]);
    answer.extend([0, 1, 0, u8::from(is_known), 0, 0, 0, 0]);
    answer.extend(&query[HEADER_BYTES..end]);
    if is_known {
        // A pointer to the name; an address of the Internet; 60 s; four bytes.
        answer.extend([0xc0, HEADER_BYTES as u8, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 7]);
    }
    answer
}

/// A forwarder on a thread of its own.
struct Running {
    address: SocketAddr,
    stopper: Stopper,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    fn start(upstream: &Upstream) -> Self {
        let mut event_loop = EventLoop::new(Config::default(), Forwarder::default()).expect("a loop");
        let address = Forwarder::open(&mut event_loop, "127.0.0.1:0", &upstream.address.to_string());
        let address = address.expect("two sockets").inet().expect("one of UDP");
        let stopper = event_loop.stopper();
        let thread = Some(thread::spawn(move || event_loop.run().expect("a good end")));
        Self { address, stopper, thread }
    }

    /// Asks for the address of a name, once, and returns what `dig` prints. `dig` waits long enough
    /// for the forwarder to give up.
    fn dig(&self, name: &str) -> String {
        let mut command = Command::new("dig");
        command.args(["@127.0.0.1", "-p", &self.address.port().to_string(), "+tries=1", "+time=20", name]);
        output(&mut command)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stopper.stop();
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(ended.is_none_or(|ended| ended.is_ok()) || thread::panicking(), "the loop panicked");
    }
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[track_caller]
fn expect(text: &str, part: &str) {
    assert!(text.contains(part), "{part} is expected in:\n{text}");
}

fn dig_gets_the_answers_of_the_upstream() {
    let upstream = Upstream::start(0);
    let forwarder = Running::start(&upstream);
    let text = forwarder.dig("tea.test");
    expect(&text, "status: NOERROR");
    expect(&text, "192.0.2.7");
    expect(&forwarder.dig("no-tea.test"), "status: NXDOMAIN");
    assert_eq!(upstream.queries(), 2);
}

fn dig_gets_an_answer_although_a_query_is_lost() {
    let upstream = Upstream::start(1);
    let forwarder = Running::start(&upstream);
    expect(&forwarder.dig("tea.test"), "192.0.2.7");
    assert_eq!(upstream.queries(), 2, "the forwarder asks again");
}

fn dig_gets_a_failure_if_the_upstream_is_silent() {
    let upstream = Upstream::start(usize::MAX);
    let forwarder = Running::start(&upstream);
    expect(&forwarder.dig("tea.test"), "status: SERVFAIL");
    assert_eq!(upstream.queries(), 3);
}

fn dnsperf_loses_no_query() {
    const NAMES: usize = 1_000;
    const TIMES: usize = 20;
    let upstream = Upstream::start(0);
    let forwarder = Running::start(&upstream);
    let folder = Folder::new("dnsperf");
    let names = (0..NAMES).fold(String::new(), |mut names, number| {
        let prefix = if number % 10 == 0 { "no" } else { "tea" };
        let _ = writeln!(names, "{prefix}{number}.test A");
        names
    });
    let names = folder.write("names", names);
    let mut command = Command::new("dnsperf");
    command.args(["-s", "127.0.0.1", "-p", &forwarder.address.port().to_string(), "-n", &TIMES.to_string()]);
    // 20 clients, with 200 queries under way; each query may be asked three times.
    command.args(["-c", "20", "-q", "200", "-t", "20", "-d"]).arg(&names);
    let text = output(&mut command);
    let all = NAMES * TIMES;
    // Columns are aligned by spaces.
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    expect(&words, &format!("Queries completed: {all} (100.00%)"));
    expect(&words, "Queries lost: 0 (0.00%)");
    expect(&words, &format!("NOERROR {} (90.00%), NXDOMAIN {} (10.00%)", all / 10 * 9, all / 10));
    assert!(upstream.queries() >= all);
}
