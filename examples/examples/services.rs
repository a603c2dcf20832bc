//! Several services on one loop: a counter with a protocol of its own; a reverse proxy, which is an
//! HTTP server and an HTTP client, and counts the requests for each path; and an admin port. The
//! services communicate by mailbox.
//!
//! Try it: `cargo run -p examples --example services -- 127.0.0.1:7777 127.0.0.1:8080` beside the
//! example `hello_http` at `127.0.0.1:8080`, then `curl 127.0.0.1:7777/tea` a few times. For all
//! counts, use `curl` with the second address that it prints and the path `/counts`. For one count,
//! send the line `/tea` to the third address with `nc`.

use std::collections::{BTreeMap, HashMap};

use sealed::{Address, Config, ConnectionId, Context, EventLoop, Input, Mailbox, Service};
use sealed_http::client::{Fetch, FetchId, Fetched, Upstream, UpstreamId};
use sealed_http::site::Task;
use sealed_http::{Handler, Http, Method, Problem, Request, Response, Server, Settings, Site};

/// Maximum number of bytes of a line that the counter reads.
const LINE_BYTES_MAX: usize = 1_000;

type Counts = BTreeMap<String, u64>;

/// A counter of words. Other services add to the counts; each line of a connection is a word, and
/// is answered with its count.
#[derive(Default)]
struct Counter {
    counts: Counts,
}

/// A request from another service.
enum Ask {
    Count(String),
    /// Passes the counts to a function.
    Show(Box<dyn FnOnce(&Counts) + Send>),
}

impl Service for Counter {
    type Connection = ();
    type Message = Ask;
    type Timer = ();

    fn received(&mut self, cx: &mut Context<Self>, id: ConnectionId, input: &mut Input<'_>) {
        while let Some(line) = input.take_until(b'\n') {
            let word = String::from_utf8_lossy(line);
            let count = self.counts.get(word.trim_end()).copied().unwrap_or(0);
            cx.write(id, format!("{count}\n").as_bytes());
        }
        if input.len() > LINE_BYTES_MAX {
            cx.abort(id);
        }
    }

    fn message(&mut self, _: &mut Context<Self>, ask: Ask) {
        match ask {
            Ask::Count(word) => *self.counts.entry(word).or_default() += 1,
            Ask::Show(show) => show(&self.counts),
        }
    }
}

/// A handler that passes requests on to another server.
struct Proxy {
    to: Address,
    upstream: Option<UpstreamId>,
    counter: Mailbox<Ask>,
    /// The clients that wait for the other server.
    waiting: HashMap<FetchId, ConnectionId>,
}

impl Handler for Proxy {
    type Connection = ();
    type Message = ();
    type Timer = ();

    fn started(&mut self, http: &mut Http<'_, Self>) {
        self.upstream = Some(http.add_upstream(Upstream::to(self.to.clone())));
    }

    fn request(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, request: &Request<'_>) {
        let target = match request.head.query() {
            Some(query) => format!("{}?{query}", request.head.path()),
            None => request.head.path().to_owned(),
        };
        let (Some(upstream), Ok(fetch)) = (self.upstream, Fetch::get(target)) else {
            return http.respond(id, &Problem::new(400).into());
        };
        // If the mailbox is full, only a count is lost.
        let _ = self.counter.post(Ask::Count(request.head.path().to_owned()));
        self.waiting.insert(http.fetch(upstream, &fetch), id);
    }

    fn fetched(&mut self, http: &mut Http<'_, Self>, fetch: FetchId, fetched: Fetched<'_>) {
        let Some(client) = self.waiting.remove(&fetch) else { return };
        let response = match fetched {
            Fetched::Whole(head, body) => Response::new(head.status()).body(body.to_vec()),
            Fetched::Failed(error) => Problem::new(502).detail(error.to_string()).into(),
            // These come only if the response is streamed.
            _ => return,
        };
        http.respond(client, &response);
    }
}

/// Returns the pages of the admin port. Their state is the counter's mailbox.
fn admin(counter: Mailbox<Ask>) -> Site<Mailbox<Ask>> {
    Site::new(counter)
        .hold(Method::Get, "/counts", |counter, http, id, _, _| {
            let site = http.mailbox();
            let show = move |counts: &Counts| {
                let lines: Vec<String> = counts.iter().map(|(word, count)| format!("{word} {count}\n")).collect();
                let text = lines.concat();
                let answer: Task<_> = Box::new(move |_, http| http.respond(id, &text.into()));
                // If this is refused, the loop is ending, and its connections with it.
                let _ = site.post(answer);
            };
            if counter.post(Ask::Show(Box::new(show))).is_err() {
                http.respond(id, &Problem::new(503).into());
            }
        })
        .hold(Method::Post, "/stop", |_, http, id, _, _| {
            http.respond(id, &"Stopping.\n".into());
            http.stop();
        })
}

/// Adds the proxy and the admin port to the counter's loop. Returns the addresses of the proxy, the
/// admin port and the counter.
fn assemble(event_loop: &mut EventLoop<Counter>, addresses: [Address; 3], to: Address) -> sealed::Result<[Address; 3]> {
    let [proxy_at, admin_at, counter_at] = addresses;
    let (config, counter) = (Config::default(), event_loop.mailbox());
    let proxy = Proxy { to, upstream: None, counter: counter.clone(), waiting: HashMap::new() };
    let cx = event_loop.add_service(config.clone(), Server::new(Settings::default(), proxy))?;
    let proxy_at = cx.listen(proxy_at)?.address;
    let cx = event_loop.add_service(config, Server::new(Settings::default(), admin(counter)))?;
    let admin_at = cx.listen(admin_at)?.address;
    Ok([proxy_at, admin_at, event_loop.listen(counter_at)?.address])
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let at: Address = arguments.next().unwrap_or_else(|| "127.0.0.1:7777".to_owned()).parse()?;
    let to: Address = arguments.next().unwrap_or_else(|| "127.0.0.1:8080".to_owned()).parse()?;
    let any_port: Address = "127.0.0.1:0".parse()?;
    let mut event_loop = EventLoop::new(Config::default(), Counter::default())?;
    let [proxy, admin, counter] = assemble(&mut event_loop, [at, any_port.clone(), any_port], to)?;
    println!("listening on {proxy}\nadmin at {admin}\ncounter at {counter}");
    event_loop.stop_on_signals()?;
    Ok(event_loop.run()?)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use sealed::sim::{self, Faults, Simulation};

    use super::*;

    fn at(port: u16) -> Address {
        Address::Inet(([10, 0, 0, 1], port).into())
    }

    /// Starts the three services, and a server behind them that answers with the path of the
    /// request.
    fn start(sim: &Simulation) {
        let site = Site::new(()).get("/{name}", |(), request, _| request.head.path().to_owned());
        let mut behind = sim.event_loop(Config::default(), Server::new(Settings::default(), site)).expect("a loop");
        behind.listen(at(8080)).expect("a port");
        sim.start(behind);
        let mut event_loop = sim.event_loop(Config::default(), Counter::default()).expect("a loop");
        assemble(&mut event_loop, [at(1), at(2), at(3)], at(8080)).expect("ports");
        sim.start(event_loop);
    }

    fn get(path: &str) -> String {
        format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n")
    }

    #[test]
    fn requests_to_the_proxy_are_counted_and_the_other_two_show_the_counts() {
        let sim = Simulation::new(1);
        start(&sim);
        let (mut client, mut admin, mut counter) = (sim.connect(at(1)), sim.connect(at(2)), sim.connect(at(3)));
        for path in ["/tea", "/tea", "/milk"] {
            client.send(get(path));
            client.expect(path);
        }
        counter.send("/tea\n/coffee\n");
        counter.expect("2\n0\n");
        admin.send(get("/counts"));
        admin.expect("/milk 1\n/tea 2\n");
        admin.send("POST /stop HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n");
        admin.expect("Stopping.\n");
        for peer in [&mut client, &mut admin, &mut counter] {
            peer.expect_end();
        }
    }

    #[test]
    fn each_answer_belongs_to_its_request_whatever_the_network_does() {
        let answers = AtomicU32::new(0);
        sim::check(0..200, |sim| {
            start(sim);
            sim.settle();
            sim.set_faults(Faults::any(&mut sim.random(1)));
            for path in ["/tea", "/milk", "/water"] {
                let mut client = sim.connect(at(1));
                client.send(get(path));
                sim.run_for(std::time::Duration::from_secs(40));
                let answer = String::from_utf8_lossy(&client.take()).into_owned();
                let is_whole = answer.ends_with(&format!("\r\n\r\n{path}"));
                assert!(is_whole || !answer.starts_with("HTTP/1.1 200") || client.is_over(), "{answer}");
                answers.fetch_add(u32::from(is_whole), Ordering::Relaxed);
            }
        });
        let answers = answers.into_inner();
        assert!(answers > 300, "{answers} whole answers");
    }
}
