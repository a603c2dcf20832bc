//! Tests with nginx: the client with nginx as origin, and client and server with nginx as proxy
//! between them.
#![cfg(unix)]

use std::net::SocketAddr;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use sealed::{Address, Config, ConnectionId, EventLoop, ListenerId};
use sealed_http::client::{Fetch, FetchId, Fetched, Upstream, UpstreamId};
use sealed_http::{Handler, Http, Request, Response, Server, Settings};
use testing::process::{Process, free_address};
use testing::programs::{Need, run};
use testing::{Folder, PATIENCE, tests};

fn main() -> ExitCode {
    run(tests![
        needs [Need::Program("nginx")];
        requests_to_nginx_share_a_connection,
        bodies_pass_a_proxy_complete_and_its_connections_are_kept
    ])
}

const BIG: usize = 300_000;

/// A process of its own, with one folder.
struct Nginx {
    _process: Process,
    folder: Folder,
    address: SocketAddr,
}

impl Nginx {
    fn start(app: &Address) -> Self {
        let address = free_address([127, 0, 0, 1]);
        let folder = Folder::new("nginx");
        folder.write("big", "b".repeat(BIG));
        let configuration = format!(
            "daemon off; worker_processes 1; pid {0}/pid; error_log {0}/log; events {{}}
             http {{
               access_log off; keepalive_requests 100000; proxy_temp_path {0}/p; client_body_temp_path {0}/c;
               fastcgi_temp_path {0}/f; uwsgi_temp_path {0}/u; scgi_temp_path {0}/s;
               upstream app {{ server {app}; keepalive 4; }}
               server {{
                 listen {address}; root {0}; add_header X-Connection $connection;
                 location /app/ {{
                   proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection '';
                   proxy_request_buffering off; client_max_body_size 10m;
                 }}
               }}
             }}",
            folder.display()
        );
        let file = folder.write("nginx.conf", configuration);
        let mut command = Command::new("nginx");
        command.arg("-e").arg(folder.join("log")).arg("-c").arg(file).arg("-p").arg(&*folder);
        // The workers of nginx end with it only if it ends by a signal.
        let mut process = Process::start(command.stderr(Stdio::null())).ended_by_signal();
        process.wait_for_listener(address, || std::fs::read_to_string(folder.join("log")).unwrap_or_default());
        Self { _process: process, folder, address }
    }
}

/// The outcome of a request: the status, the connection that nginx names, and the body.
type Answer = Result<(u16, String, Vec<u8>), String>;

/// A handler that sends back what it receives, in chunks, and records the outcomes of its own
/// requests.
#[derive(Default)]
struct Both {
    accepted: usize,
    answers: Vec<(FetchId, Answer)>,
}

impl Handler for Both {
    type Connection = ();
    type Message = ();
    type Timer = ();

    fn accepted(&mut self, _: &mut Http<'_, Self>, _: ConnectionId, _: ListenerId, _: &Address) {
        self.accepted += 1;
    }

    fn request(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, request: &Request<'_>) {
        http.start_stream(id, &Response::new(200));
        request.body.chunks(10_000).for_each(|piece| {
            http.write(id, piece);
        });
        http.end_stream(id);
    }

    fn fetched(&mut self, _: &mut Http<'_, Self>, id: FetchId, fetched: Fetched<'_>) {
        let answer = match fetched {
            Fetched::Whole(head, body) => {
                let connection = head.header_str("X-Connection").unwrap_or_default().to_owned();
                Ok((head.status(), connection, body.to_vec()))
            }
            Fetched::Failed(error) => Err(error.to_string()),
            Fetched::Head(_) | Fetched::Data(_) | Fetched::End | Fetched::Drained => return,
        };
        self.answers.push((id, answer));
    }
}

struct Stage {
    event_loop: EventLoop<Server<Both>>,
    nginx: Nginx,
    upstream: UpstreamId,
}

impl Stage {
    fn new() -> Self {
        let server = Server::new(Settings::default(), Both::default());
        let mut event_loop = EventLoop::new(Config::default(), server).expect("a loop");
        let app = event_loop.listen("127.0.0.1:0").expect("a port").address;
        let nginx = Nginx::start(&app);
        let (server, cx) = event_loop.parts();
        let upstream = server.parts(cx).1.add_upstream(Upstream::to(nginx.address));
        Self { event_loop, nginx, upstream }
    }

    fn start(&mut self, fetch: &Fetch) -> FetchId {
        let (server, cx) = self.event_loop.parts();
        server.parts(cx).1.fetch(self.upstream, fetch)
    }

    /// Turns the loop until the request has an outcome.
    fn outcome(&mut self, id: FetchId) -> Answer {
        let start = Instant::now();
        loop {
            let (server, cx) = self.event_loop.parts();
            let (both, _) = server.parts(cx);
            if let Some(at) = both.answers.iter().position(|(held, _)| *held == id) {
                return both.answers.remove(at).1;
            }
            assert!(start.elapsed() < PATIENCE, "an outcome");
            self.event_loop.turn(Some(Duration::from_secs(1))).expect("a tick");
        }
    }

    fn fetch(&mut self, fetch: &Fetch) -> Answer {
        let id = self.start(fetch);
        self.outcome(id)
    }
}

fn requests_to_nginx_share_a_connection() {
    let mut stage = Stage::new();
    let mut connections = Vec::new();
    for (method, target, status, length) in
        [("GET", "/big", 200, BIG), ("HEAD", "/big", 200, 0), ("GET", "/none", 404, 0), ("GET", "/big", 200, BIG)]
    {
        let fetch = Fetch::new(method, target).expect("a path");
        let (answered, connection, body) = stage.fetch(&fetch).expect("answered");
        assert_eq!(answered, status, "{method} {target}");
        if status == 200 {
            assert_eq!(body.len(), length, "{method} {target}");
            connections.push(connection);
        }
    }
    connections.dedup();
    assert_eq!(connections.len(), 1, "kept: {connections:?}");
    assert!(stage.nginx.folder.exists());
}

fn bodies_pass_a_proxy_complete_and_its_connections_are_kept() {
    let mut stage = Stage::new();
    let body: Vec<u8> = (0..BIG).map(|n| (n % 251) as u8).collect();
    for _ in 0..3 {
        let plain = Fetch::post("/app/echo").expect("a path").body(body.clone());
        assert_eq!(stage.fetch(&plain).expect("answered").2, body, "with a length");
        let id = stage.start(&Fetch::post("/app/echo").expect("a path").streamed_body());
        let (server, cx) = stage.event_loop.parts();
        let (_, mut http) = server.parts(cx);
        body.chunks(7_000).for_each(|piece| {
            http.write_body(id, piece);
        });
        http.end_body(id);
        assert_eq!(stage.outcome(id).expect("answered").2, body, "in chunks");
    }
    assert_eq!(stage.event_loop.service().handler().accepted, 1, "the proxy keeps its connection");
}
