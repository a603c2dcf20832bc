//! The server on real sockets, driven by the tools that others use for servers: curl, and the load
//! generators `ab`, `wrk` and `h2load`; and by `slowhttptest`, which tries to block it.

use std::net::SocketAddr;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use sealed::{CloseReason, Config, ConnectionId, EventLoop, Stopper};
use sealed_http::{Handler, Http, Method, Request, Response, Server, Settings};
use testing::http::Client;
use testing::programs::{Need, run};
use testing::{Folder, tests};

fn main() -> ExitCode {
    run(tests![
        needs [Need::Program("curl")]; curl_is_served_in_all_its_modes;
        needs [Need::Program("ab"), Need::Program("h2load"), Need::Program("wrk")];
        load_generators_find_no_failed_request;
        needs [Need::Program("slowhttptest")];
        slow_attackers_are_cut_off, a_client_that_reads_slowly_is_cut_off_and_others_are_served_meanwhile
    ])
}

/// Bytes of an answer that no kernel buffers completely for a client that reads nothing.
const LARGE: usize = 12 * 1024 * 1024;

/// A handler that sends back the body that it gets, in chunks, or answers hello, or a long body at
/// `/large`.
struct Echo {
    /// The number of connections that this side has cut off.
    cut_off: Arc<AtomicUsize>,
}

impl Handler for Echo {
    type Connection = ();
    type Message = ();
    type Timer = ();

    fn request(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, request: &Request<'_>) {
        if request.head.path() == "/large" {
            return http.respond(id, &Response::new(200).body(vec![b'x'; LARGE]));
        }
        if request.head.method() != Method::Post {
            return http.respond(id, &Response::new(200).header("Content-Type", "text/plain").body("hello\n"));
        }
        http.start_stream(id, &Response::new(200));
        http.write(id, request.body);
        http.end_stream(id);
    }

    fn closed(&mut self, _: &mut Http<'_, Self>, _: ConnectionId, (): (), reason: CloseReason) {
        if reason == CloseReason::Aborted {
            self.cut_off.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A server on a thread of its own.
struct Running {
    address: SocketAddr,
    cut_off: Arc<AtomicUsize>,
    stopper: Stopper,
    thread: Option<thread::JoinHandle<()>>,
}

impl Running {
    fn start(settings: Settings) -> Self {
        let cut_off = Arc::default();
        let echo = Echo { cut_off: Arc::clone(&cut_off) };
        let mut event_loop = EventLoop::new(Config::default(), Server::new(settings, echo)).expect("a loop");
        let address = event_loop.listen("127.0.0.1:0").expect("a port").address.inet().expect("one of TCP");
        let stopper = event_loop.stopper();
        let thread = Some(thread::spawn(move || event_loop.run().expect("a good end")));
        Self { address, cut_off, stopper, thread }
    }

    fn url(&self, target: &str) -> String {
        format!("http://{}{target}", self.address)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stopper.stop();
        if let Some(thread) = self.thread.take() {
            assert!(thread.join().is_ok() || thread::panicking());
        }
    }
}

/// Runs a program, and returns what it prints on both outputs.
fn drive(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {}\n{text}", output.status);
    text
}

/// Returns the number behind a word in the output of a program.
fn number_behind(text: &str, word: &str) -> u64 {
    let rest = text.split(word).nth(1).unwrap_or_else(|| panic!("{word} in {text}")).trim_start();
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().unwrap_or_else(|_| panic!("a number behind {word} in {text}"))
}

fn curl_is_served_in_all_its_modes() {
    let server = Running::start(Settings::default());
    let body = "x".repeat(300_000);
    let folder = Folder::new("tools");
    let data = format!("@{}", folder.write("body", &body).display());
    let url = server.url("/");
    let curl = |arguments: &[&str]| drive("curl", &[&["-sS", "--max-time", "60"], arguments].concat());
    let plain = curl(&["-i", &url]);
    assert!(plain.starts_with("HTTP/1.1 200 OK\r\n") && plain.ends_with("\r\n\r\nhello\n"), "{plain}");
    let head = curl(&["-I", &url]);
    assert!(head.contains("Content-Length: 6\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    let old = curl(&["-0", "-i", &url]);
    assert!(old.contains("Connection: close\r\n"), "{old}");
    let twice = curl(&["-v", &url, &url]);
    assert!(twice.contains("Re-using existing connection"), "{twice}");
    for extra in ["X-Plain: 1", "Transfer-Encoding: chunked", "Expect: 100-continue"] {
        let sent = curl(&["-H", extra, "--data-binary", &data, &url]);
        assert!(sent == body, "{extra}: {} bytes", sent.len());
    }
    let asked = curl(&["-v", "-H", "Expect: 100-continue", "--data-binary", &data, &url]);
    assert!(asked.contains("< HTTP/1.1 100 Continue"), "it waits for that");
}

fn load_generators_find_no_failed_request() {
    let server = Running::start(Settings::default());
    let url = server.url("/");
    let output = drive("ab", &["-q", "-k", "-n", "5000", "-c", "20", &url]);
    assert_eq!(number_behind(&output, "Complete requests:"), 5_000, "{output}");
    assert_eq!(number_behind(&output, "Failed requests:"), 0, "{output}");
    assert_eq!(number_behind(&output, "Keep-Alive requests:"), 5_000, "{output}");
    let output = drive("h2load", &["--h1", "-n", "5000", "-c", "20", "-m", "16", &url]);
    assert!(output.contains("5000 succeeded, 0 failed, 0 errored, 0 timeout"), "{output}");
    let output = drive("wrk", &["-t", "1", "-c", "20", "-d", "1s", &url]);
    assert!(!output.contains("Socket errors") && !output.contains("Non-2xx"), "{output}");
    assert!(number_behind(&output, "Requests/sec:") > 0, "{output}");
}

fn slow_attackers_are_cut_off() {
    let limit = Duration::from_secs(1);
    let settings = Settings { request_timeout: limit, body_timeout: limit, idle_timeout: limit, ..Settings::default() };
    let server = Running::start(settings);
    let url = server.url("/");
    // A head that never ends; a body that never ends.
    for attack in ["-H", "-B"] {
        let connections = "50";
        let arguments =
            [attack, "-c", connections, "-r", connections, "-i", "1", "-l", "8", "-p", "3", "-x", "10", "-u", &url];
        let output = drive("slowhttptest", &arguments);
        let plain = strip_colours(&output);
        assert!(plain.contains("No open connections left"), "{attack}: {plain}");
        assert!(plain.contains("service available:   YES") && !plain.contains("service available:   NO"), "{plain}");
    }
}

fn a_client_that_reads_slowly_is_cut_off_and_others_are_served_meanwhile() {
    let settings = Settings { write_timeout: Duration::from_secs(1), ..Settings::default() };
    let server = Running::start(settings);
    let (url, connections) = (server.url("/large"), 50);
    let attack = thread::spawn(move || {
        let connections = &connections.to_string();
        let reading = ["-w", "8", "-y", "16", "-n", "1", "-z", "512", "-k", "1"];
        let arguments = ["-X", "-c", connections, "-r", connections, "-l", "20", "-p", "3", "-u", &url];
        drive("slowhttptest", &[&arguments[..], &reading].concat())
    });
    let mut answered = 0;
    while !attack.is_finished() {
        // The short answer, on a connection of its own.
        assert_eq!(Client::connect(server.address).get("/").text(), "hello\n");
        answered += 1;
    }
    let output = attack.join().expect("no panic");
    let plain = strip_colours(&output);
    assert!(plain.contains("No open connections left"), "{plain}");
    assert!(answered > 0, "it took no time");
    // The tool's own probes may be among them, because they read no more than the beginning.
    assert!(
        server.cut_off.load(Ordering::Relaxed) >= connections,
        "{}: {plain}",
        server.cut_off.load(Ordering::Relaxed)
    );
}

/// Removes the escapes that colour a terminal.
fn strip_colours(text: &str) -> String {
    let mut parts = text.split('\u{1b}');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |plain, part| plain + part.split_once('m').map_or("", |(_, rest)| rest))
}
