//! The client and the server of this crate, on one simulated network: with TLS, and in a storm of
//! faults.

mod common;

use std::time::Duration;

use common::asker::{Asker, Report};
use sealed::sim::{Faults, Random, Simulation};
use sealed::tls::{Acceptor, Connector, ServerName};
use sealed::{Config, ConnectionId, EventLoop, Listen};
use sealed_http::client::{Fetch, FetchError, Upstream};
use sealed_http::{Handler, Http, Request, Response, Server, Settings};

const SECOND: Duration = Duration::from_secs(1);

/// Answers with the target of the request, at once or a second later, in one of several forms.
struct Echo;

impl Handler for Echo {
    type Connection = ();
    type Message = ();
    type Timer = (ConnectionId, String);

    fn request(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, request: &Request<'_>) {
        let text = format!("{} {}", request.head.path(), String::from_utf8_lossy(request.body));
        match request.body.len() % 3 {
            0 => http.respond(id, &Response::new(200).body(text)),
            1 => {
                http.set_timer(SECOND, (id, text));
            }
            _ => {
                http.start_stream(id, &Response::new(200));
                text.as_bytes().chunks(3).for_each(|piece| {
                    http.write(id, piece);
                });
                http.end_stream(id);
            }
        }
    }

    fn expired(&mut self, http: &mut Http<'_, Self>, _: sealed::TimerId, (id, text): Self::Timer) {
        http.respond(id, &Response::new(200).body(text).closing());
    }
}

#[test]
fn requests_over_tls_are_answered_only_by_the_intended_server() {
    let sim = Simulation::new(9);
    let made = rcgen::generate_simple_self_signed(["api.test".to_owned()]).expect("a certificate");
    let certificate = made.cert.pem();
    let key = rcgen::KeyPair::serialize_pem(&made.signing_key);
    let acceptor = Acceptor::from_pem(certificate.as_bytes(), key.as_bytes()).expect("it is good");
    let connector = Connector::trusting_pem(certificate.as_bytes()).expect("it is good");
    let mut server = sim.event_loop(Config::default(), Server::new(Settings::default(), Echo)).expect("a loop");
    let address = server.listen(Listen::on("10.0.0.1:443").tls(acceptor)).expect("it is free").address;
    sim.start(server);
    let mut asker =
        sim.event_loop(Config::default(), Server::new(Settings::default(), Asker::default())).expect("a loop");
    let ids = ["api.test", "other.test"].map(|name| {
        let name = ServerName::try_from(name).expect("a name");
        let (server, cx) = asker.parts();
        let (_, mut http) = server.parts(cx);
        let upstream = http.add_upstream(Upstream::to(&address).host("api.test").tls(connector.clone(), name));
        http.fetch(upstream, &Fetch::get("/secret").expect("a path"))
    });
    let id = sim.start(asker);
    sim.run_for(SECOND * 5);
    let reports = sim.with(id, |event_loop: &mut EventLoop<Server<Asker>>| {
        let (server, cx) = event_loop.parts();
        std::mem::take(&mut server.parts(cx).0.reports)
    });
    let mut reports = reports.expect("it runs");
    reports.sort_by_key(|(held, _)| *held != ids[0]);
    assert_eq!(reports[0], (ids[0], Report::Whole(200, "/secret ".to_owned())));
    assert!(matches!(reports[1..], [(id, Report::Failed(FetchError::NotConnected(_)))] if id == ids[1]), "{reports:?}");
}

#[test]
fn in_a_storm_every_request_has_one_outcome_and_only_its_own_answer() {
    let (mut answered, mut failed) = (0, 0);
    for seed in 0..200 {
        let sim = Simulation::new(seed);
        let mut random = Random::new(seed);
        let mut server = sim.event_loop(Config::default(), Server::new(Settings::default(), Echo)).expect("a loop");
        let address = server.listen("10.0.0.1:80").expect("it is free").address;
        sim.start(server);
        let asker = Server::new(Settings::default(), Asker::default());
        let id = sim.start(sim.event_loop(Config::default(), asker).expect("a loop"));
        let act = |act: &mut dyn FnMut(&mut Asker, &mut Http<'_, Asker>)| {
            let acted = sim.with(id, |event_loop: &mut EventLoop<Server<Asker>>| {
                let (server, cx) = event_loop.parts();
                let (asker, mut http) = server.parts(cx);
                act(asker, &mut http);
            });
            acted.expect("it runs");
        };
        let mut upstream = None;
        act(&mut |_, http| upstream = Some(http.add_upstream(Upstream::to(&address).connections_max(3))));
        sim.set_faults(Faults::any(&mut random));
        let mut sent = Vec::new();
        for n in 0..40 {
            let body = "x".repeat(n % 50 * 37 % 113);
            let fetch = Fetch::new("PUT", format!("/{n}")).expect("a path").body(body.clone());
            act(&mut |_, http| sent.push((http.fetch(upstream.expect("added"), &fetch), format!("/{n} {body}"))));
            sim.run_for(random.time(Duration::from_millis(400)));
        }
        sim.run_for(SECOND * 120);
        let mut reports = Vec::new();
        act(&mut |asker, _| reports = std::mem::take(&mut asker.reports));
        assert_eq!(reports.len(), sent.len(), "seed {seed}");
        for (id, text) in sent {
            let outcomes: Vec<_> = reports.iter().filter(|(held, _)| *held == id).map(|(_, report)| report).collect();
            match outcomes[..] {
                [Report::Whole(200, body)] => {
                    assert_eq!(*body, text, "seed {seed}");
                    answered += 1;
                }
                [Report::Failed(_)] => failed += 1,
                _ => panic!("seed {seed}: {outcomes:?} for {text}"),
            }
        }
    }
    assert!(answered > failed && failed > 0, "{answered} were answered, and {failed} failed");
}
