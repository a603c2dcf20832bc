//! A site on the simulated network: what its pages return, now and later, and the answers to
//! requests without a page.

use std::time::Duration;

use sealed::{Config, EventLoop};
use sealed_http::server::Exchange;
use sealed_http::site::StaticFile;
use sealed_http::{Method, Problem, Request, Response, Server, Settings, Site};
use testing::http::request;
use testing::sim::Served;

const SECOND: Duration = Duration::from_secs(1);

/// The state of the site: notes by name.
#[derive(Debug, Default)]
struct Notes(Vec<(String, String)>);

fn add(notes: &mut Notes, request: &Request<'_>) -> Result<Response, Problem> {
    let form = request.form()?;
    let name = form.get("name")?.ok_or_else(|| Problem::new(422).code("no_name"))?.into_owned();
    let text = form.get("text")?.unwrap_or_default().into_owned();
    let location = format!("/notes/{}", notes.0.len());
    notes.0.push((name, text));
    Ok(Response::new(303).with(&[("Location", location)]))
}

fn site() -> Site<Notes> {
    Site::new(Notes::default())
        .get("/", |_, _, _| "home")
        .get("/notes/{number}", |notes, _, params| {
            let note = params["number"].parse().ok().and_then(|number: usize| notes.0.get(number));
            note.map(|(name, text)| format!("{name}: {text}")).ok_or(Problem::new(404).code("no_note"))
        })
        .post("/notes", |notes, request, _| add(notes, request))
        .delete("/notes", |notes, _, _| {
            notes.0.clear();
            Response::new(204)
        })
        .put("/echo/{rest...}", |_, request, params| {
            format!("{} {}", &params["rest"], String::from_utf8_lossy(request.body))
        })
        .hold(Method::Get, "/later/{what}", |_, http, id, _, params| {
            let what = params["what"].to_owned();
            let answer = move |notes: &Notes| format!("{what}, {} notes", notes.0.len());
            http.set_timer(SECOND, Box::new(move |notes, http| http.respond(id, &answer(notes).into())));
        })
        .hold(Method::Get, "/stream", |_, http, id, _, _| {
            http.start_stream(id, &Response::new(200));
            http.write(id, b"piece");
            http.end_stream(id);
        })
        .hold(Method::Get, "/sized/{length}", |_, http, id, _, params| {
            http.start_sized_stream(id, &Response::new(200), params["length"].parse().expect("a length"));
            http.write(id, b"one");
            http.write_bytes(id, "two".into());
            http.end_stream(id);
        })
        .file("/style.css", StaticFile::new("style.css", b"b {}"))
}

fn run() -> Served<Site<Notes>> {
    Served::new(1, Config::default(), Settings::default(), site())
}

/// Sends a request that is the last on its connection, and returns the whole answer.
fn ask(run: &Served<Site<Notes>>, line: &str, fields: &str, body: &str) -> String {
    let mut client = run.connect();
    let (method, target) = line.split_once(' ').expect("a method");
    client.send(request(method, target, &format!("Connection: close\r\n{fields}"), body));
    String::from_utf8(client.expect_end()).expect("text")
}

#[test]
fn pages_answer_requests() {
    let run = run();
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    for (line, fields, body, status, wanted) in [
        ("GET /", "", "", 200, "\r\n\r\nhome"),
        ("HEAD /", "", "", 200, "Content-Length: 4\r\n\r\n"),
        ("GET /notes/0", "", "", 404, "\"no_note\""),
        ("POST /notes", form, "name=ann&text=hello+you", 303, "Location: /notes/0\r\n"),
        ("GET /notes/0", "", "", 200, "\r\n\r\nann: hello you"),
        ("GET /notes/%30", "", "", 200, "\r\n\r\nann: hello you"),
        ("GET /notes/%zz", "", "", 400, "\"bad_encoding\""),
        ("POST /notes", form, "text=hello", 422, "\"no_name\""),
        ("POST /notes", form, "name=%zz", 400, "\"bad_encoding\""),
        ("POST /notes", "", "name=ann", 415, "\"not_a_form\""),
        ("GET /notes", "", "", 405, "Allow: POST, DELETE, OPTIONS\r\n"),
        ("OPTIONS /notes", "", "", 204, "Allow: POST, DELETE, OPTIONS\r\n"),
        ("PUT /echo/a/b", "", "body", 200, "\r\n\r\na/b body"),
        ("GET /stream", "", "", 200, "5\r\npiece\r\n0\r\n\r\n"),
        ("GET /sized/6", "", "", 200, "Content-Length: 6\r\n"),
        ("GET /sized/6", "", "", 200, "\r\n\r\nonetwo"),
        ("HEAD /sized/6", "", "", 200, "Content-Length: 6\r\n"),
        ("GET /sized/0", "", "", 200, "Content-Length: 0\r\n"),
        ("GET /later/this", "", "", 200, "\r\n\r\nthis, 1 notes"),
        ("DELETE /notes", "", "", 204, "\r\n\r\n"),
        ("GET /later/that", "", "", 200, "\r\n\r\nthat, 0 notes"),
        ("GET /style.css", "", "", 200, "\r\n\r\nb {}"),
        ("GET /style.css", "If-None-Match: *\r\n", "", 304, "ETag: "),
        ("GET /none", "", "", 404, "\"not_found\""),
    ] {
        let answer = ask(&run, line, fields, body);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{line}: {answer}");
        assert!(answer.contains(wanted), "{line}: {answer}");
        assert!(!line.starts_with("HEAD") || answer.ends_with("\r\n\r\n"), "{line}: {answer}");
    }
}

#[test]
fn a_body_is_never_longer_than_announced_nor_seems_complete_if_it_is_shorter() {
    let run = run();
    for (length, wanted) in [("0", "\r\n\r\n"), ("2", "\r\n\r\non"), ("4", "\r\n\r\nonet"), ("6", "onetwo")] {
        assert!(ask(&run, &format!("GET /sized/{length}"), "", "").ends_with(wanted), "{length}");
        let mut old = run.connect();
        old.send(format!("GET /sized/{length} HTTP/1.0\r\n\r\n"));
        assert!(old.expect_end().ends_with(wanted.as_bytes()), "{length}");
    }
    let mut client = run.connect();
    client.send(request("GET", "/sized/7", "", ""));
    run.sim.settle();
    assert!(client.failure().is_some(), "{}", client.take().escape_ascii());
    assert_eq!(run.act(|_, http| http.connections()), 0);
}

#[test]
fn other_threads_may_post_tasks() {
    let run = run();
    let mailbox = run.sim.with(run.id, |event_loop: &mut EventLoop<Server<Site<Notes>>>| event_loop.mailbox());
    let post = mailbox
        .expect("it runs")
        .post(Box::new(|notes: &mut Notes, _: &mut _| notes.0.push(("ben".into(), "hi".into()))));
    assert!(post.is_ok());
    run.sim.settle();
    assert!(ask(&run, "GET /notes/0", "", "").ends_with("ben: hi"));
}

#[test]
fn malformed_requests_are_refused_with_a_problem() {
    let run = run();
    let mut client = run.connect();
    client.send("GET / HTTP/1.1\r\n\r\n");
    let answer = String::from_utf8(client.expect_end()).expect("text");
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("\"code\":\"bad_host\""), "{answer}");
}

#[test]
fn each_exchange_is_logged_once() {
    let site = Site::new(Vec::<Exchange>::new())
        .get("/page", |_, _, _| "hello")
        .hold(Method::Get, "/stream", |_, http, id, _, _| {
            http.start_stream(id, &Response::new(200));
            http.write(id, b"piece");
            http.write_bytes(id, "more".into());
            http.end_stream(id);
        })
        .hold(Method::Get, "/sized", |_, http, id, _, _| {
            http.start_sized_stream(id, &Response::new(200), 5);
            http.write(id, b"pieces");
            http.end_stream(id);
        })
        .hold(Method::Get, "/cut", |_, http, id, _, _| {
            http.start_stream(id, &Response::new(206));
            http.write(id, b"piece");
            http.set_timer(SECOND, Box::new(move |_, http| http.abort(id)));
        })
        .hold(Method::Get, "/late", |_, http, id, _, _| {
            http.abort(id);
            http.respond(id, &Response::new(200).body("hello"));
        })
        .get("/huge", |_, _, _| Response::new(200).body(vec![0; 20_000_000]))
        .hold(Method::Get, "/silent", |_, http, id, _, _| http.abort(id))
        .post("/form", |_, request, _| request.body.len().to_string())
        .log(|log, _, _, exchange| log.push(exchange.clone()));
    let run = Served::new(1, Config::default(), Settings::default(), site);
    let ask = |method: &str, target: &str, body: &str| {
        let mut client = run.connect();
        client.send(request(method, target, "", body));
        run.sim.run_for(SECOND * 2);
        client.finish();
        run.sim.settle();
        run.act(|site, _| std::mem::take(site.state_mut()))
    };
    for (method, target, body, status, body_bytes, is_complete) in [
        ("GET", "/page?a=b", "", Some(200), 5, true),
        ("HEAD", "/page", "", Some(200), 0, true),
        ("GET", "/stream", "", Some(200), 9, true),
        ("GET", "/sized", "", Some(200), 5, true),
        ("GET", "/cut", "", Some(206), 5, false),
        ("GET", "/silent", "", None, 0, false),
        ("GET", "/late", "", None, 0, false),
        ("GET", "/huge", "", Some(200), 20_000_000, false),
        ("POST", "/form", "four", Some(200), 1, true),
    ] {
        let log = ask(method, target, body);
        let [exchange] = &log[..] else { panic!("{target}: {log:?}") };
        assert_eq!((&exchange.method[..], exchange.status), (method, status), "{target}");
        assert_eq!((exchange.body_bytes, exchange.is_complete), (body_bytes, is_complete), "{target}");
        let path = exchange.query.as_ref().map_or(exchange.path.clone(), |query| format!("{}?{query}", exchange.path));
        assert_eq!(path, target);
        assert_eq!(exchange.time >= SECOND, target == "/cut", "{:?}", exchange.time);
    }
    let mut client = run.connect();
    client.send("GET /a HTTP/1.1\r\n\r\n");
    client.expect_end();
    let log = run.act(|site, _| std::mem::take(site.state_mut()));
    assert_eq!(
        log.iter().map(|exchange| (&exchange.method[..], exchange.status)).collect::<Vec<_>>(),
        [("", Some(400))]
    );
}

#[test]
fn a_panic_in_a_page_costs_only_its_connection_if_the_site_survives_panics() {
    for survives in [false, true] {
        let site = Site::new(()).get("/", |(), _, _| "home").get("/{number}", |(), _, params| {
            let number: u32 = params["number"].parse().expect("a planned panic of a page");
            number.to_string()
        });
        let site = if survives { site.survive_panics() } else { site };
        let sim = sealed::sim::Simulation::new(1);
        let server = Server::new(Settings::default(), site);
        let mut event_loop = sim.event_loop(Config::default(), server).expect("a loop");
        let address = event_loop.listen("10.0.0.1:80").expect("it is free").address;
        let mut client = sim.connect(&address);
        client.send(request("GET", "/x", "", ""));
        let turns = std::iter::repeat_with(|| {
            sim.run_for(SECOND / 100);
            event_loop.turn(Some(Duration::ZERO))
        });
        let failed = turns.take(10).any(|turn| turn.is_err());
        assert_eq!((failed, client.failure().is_some()), (!survives, survives));
    }
}
