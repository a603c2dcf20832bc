//! WebSockets of a site, on the simulated network.

mod websocket {
    pub(crate) mod shared;
}

use std::time::Duration;

use sealed::sim::{Link, Peer};
use sealed::{Config, ConnectionId};
use sealed_http::site::{Message, WebSockets};
use sealed_http::websocket::{CloseCode, Limits, text_frame};
use sealed_http::{Settings, Site};
use testing::http::{Reply, request};
use testing::sim::Served;
use websocket::shared::*;

const SECOND: Duration = Duration::from_secs(1);
const ASKS: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

#[derive(Default)]
struct Chat {
    members: Vec<(String, ConnectionId)>,
    closed: usize,
}

/// Returns a room that passes texts on to all members, counts bytes, and closes on the text `bye`.
fn room() -> WebSockets<Chat> {
    WebSockets::new(|chat: &mut Chat, http, id, message| match message {
        Message::Text(text) if text == "bye" => http.close_websocket(id, CloseCode::NORMAL, "see you"),
        Message::Text(text) => {
            let frame = text_frame(&text);
            for (_, member) in &chat.members {
                http.send_frame(*member, &frame);
            }
        }
        Message::Binary(bytes) => {
            http.send_message(id, &Message::Binary(vec![bytes.len() as u8]));
        }
    })
    .on_open(|chat, _, id, _, params| chat.members.push((params["name"].to_owned(), id)))
    .on_close(|chat, _, id| {
        chat.closed += 1;
        chat.members.retain(|(_, member)| *member != id);
    })
    .allow_origin("https://chat.example")
}

fn run() -> Served<Site<Chat>> {
    let small = Limits { message_bytes_max: 100, ..Limits::default() };
    let site = Site::new(Chat::default())
        .get("/members", |chat, _, _| chat.members.len().to_string())
        .websocket("/rooms/{name}", room())
        .websocket("/small/{name}", room().limits(small).allow_origin("*"));
    Served::new(1, Config::default(), Settings::default(), site)
}

fn open(run: &Served<Site<Chat>>, target: &str, fields: &str) -> Peer {
    let mut peer = run.connect();
    peer.send(request("GET", target, &format!("{ASKS}{fields}"), ""));
    let head = String::from_utf8(peer.expect("\r\n\r\n")).expect("text");
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    peer
}

#[test]
fn messages_reach_all_members_until_they_leave() {
    let run = run();
    let (mut ann, mut ben) =
        (open(&run, "/rooms/ann", ""), open(&run, "/rooms/ben", "Origin: https://chat.example\r\n"));
    ann.send([frame(TEXT, "hel"), frame(FIN | CONTINUATION, "lo"), frame(FIN | BINARY, [0; 7])].concat());
    ann.expect(plain(FIN | TEXT, "hello"));
    ann.expect(plain(FIN | BINARY, [7]));
    ben.expect(plain(FIN | TEXT, "hello"));
    ann.send(frame(FIN | PING, "are you there"));
    ann.expect(plain(FIN | PONG, "are you there"));
    ben.send(frame(FIN | TEXT, "bye"));
    ben.expect(plain(FIN | CLOSE, [&1000_u16.to_be_bytes()[..], b"see you"].concat()));
    run.act(|site, _| assert_eq!(site.state().closed, 0, "the client has not answered"));
    ben.send(close(1000, ""));
    assert_eq!(ben.expect_end(), b"", "one close is enough");
    ben.finish();
    run.sim.settle();
    run.act(|site, http| {
        assert_eq!((site.state().closed, &site.state().members[0].0[..], site.state().members.len()), (1, "ann", 1));
        let id = site.state().members[0].1;
        assert!(!http.send_message(ConnectionId::default(), &Message::Text("nobody".to_owned())));
        http.close_websocket(id, CloseCode::NORMAL, "");
        assert!(!http.send_message(id, &Message::Text("too late".to_owned())));
    });
    ann.send(close(1001, "going"));
    ann.expect_end();
    ann.finish();
    run.sim.settle();
    run.act(|site, http| assert_eq!((site.state().closed, http.connections()), (2, 0)));
}

#[test]
fn what_is_no_websocket_is_refused_and_counts_as_none() {
    let run = run();
    for (target, fields, body, status) in [
        ("/rooms/ann", "", "", 426),
        ("/rooms/ann", &format!("{ASKS}Origin: https://elsewhere.example\r\n")[..], "", 403),
        ("/rooms/ann", &format!("{ASKS}Origin: null\r\n"), "", 403),
        ("/rooms/ann", ASKS, "a body", 400),
        ("/rooms", ASKS, "", 404),
        ("/members", ASKS, "", 200),
    ] {
        let mut client = run.connect();
        client.send(request("GET", target, fields, body));
        run.sim.settle();
        assert_eq!(Reply::decode("GET", &client.take()).status, status, "{target} {fields}");
    }
    run.act(|site, _| assert_eq!((site.state().closed, site.state().members.len()), (0, 0)));
    open(&run, "/small/ann", "Origin: https://elsewhere.example\r\n");
}

#[test]
fn a_message_beyond_the_limit_closes() {
    let run = run();
    let mut peer = open(&run, "/small/ann", "");
    peer.send(frame(FIN | TEXT, [b'x'; 101]));
    let end = peer.expect_end();
    peer.finish();
    run.sim.settle();
    assert_eq!(end.get(2..4), Some(&1009_u16.to_be_bytes()[..]), "{}", end.escape_ascii());
    run.act(|site, _| assert_eq!(site.state().closed, 1));
}

#[test]
fn a_silent_client_is_asked_and_then_given_up() {
    let run = run();
    let mut peer = open(&run, "/rooms/ann", "");
    run.sim.run_for(SECOND * 21);
    peer.expect(plain(FIN | PING, ""));
    peer.send(frame(FIN | PONG, ""));
    run.sim.run_for(SECOND * 21);
    peer.expect(plain(FIN | PING, ""));
    run.sim.run_for(SECOND * 21);
    assert!(peer.is_over());
    run.act(|site, http| assert_eq!((site.state().closed, http.connections()), (1, 0)));
}

#[test]
fn a_client_that_does_not_read_is_not_read_from() {
    let run = run();
    run.sim.set_link(Link { buffer_bytes: 16_384, ..Link::default() });
    let mut peer = open(&run, "/rooms/ann", "");
    peer.stall();
    let text = "x".repeat(60_000);
    for _ in 0..40 {
        peer.send(frame(FIN | TEXT, &text));
    }
    run.sim.run_for(SECOND * 5);
    let queued = run.act(|_, http| http.connection_ids().iter().map(|id| http.queued(*id)).sum::<usize>());
    assert!(queued < Config::default().output_high_bytes + 2 * text.len(), "{queued}");
    peer.unstall();
    for _ in 0..40 {
        peer.expect(plain(FIN | TEXT, &text));
    }
}

#[test]
fn a_shutdown_says_goodbye() {
    let run = run();
    let mut peer = open(&run, "/rooms/ann", "");
    run.stopper.stop();
    run.sim.settle();
    peer.expect(plain(FIN | CLOSE, 1001_u16.to_be_bytes()));
    peer.send(close(1001, ""));
    peer.expect_end();
}

#[test]
fn a_client_that_reads_slowly_is_not_given_up() {
    let run = run();
    run.sim.set_link(Link { bandwidth: Some(10_000), buffer_bytes: 16_384, ..Link::default() });
    let mut peer = open(&run, "/rooms/ann", "");
    let text = "x".repeat(900_000);
    run.act(|site, http| http.send_message(site.state().members[0].1, &Message::Text(text.clone())));
    run.sim.run_for(SECOND * 120);
    peer.expect(plain(FIN | TEXT, &text));
}

#[test]
fn a_client_that_reads_more_slowly_than_the_page_writes_is_not_given_up() {
    let run = run();
    run.sim.set_link(Link { bandwidth: Some(10_000), buffer_bytes: 16_384, ..Link::default() });
    let mut peer = open(&run, "/rooms/ann", "");
    let text = "x".repeat(30_000);
    for _ in 0..60 {
        run.act(|site, http| http.send_message(site.state().members[0].1, &Message::Text(text.clone())));
        run.sim.run_for(SECOND * 2);
    }
    assert_eq!(run.act(|site, _| site.state().members.len()), 1);
    peer.expect(plain(FIN | TEXT, &text));
}

#[test]
fn a_page_that_closes_a_client_and_pauses_it_waits_no_longer() {
    let run = run();
    let _peer = open(&run, "/rooms/ann", "");
    run.act(|site, http| {
        let id = site.state().members[0].1;
        http.close_websocket(id, CloseCode::NORMAL, "");
        http.pause(id);
    });
    run.sim.run_for(SECOND * 21);
    assert_eq!(run.act(|site, _| (site.state().members.len(), site.state().closed)), (0, 1));
}

#[test]
fn a_client_that_is_being_closed_is_not_heard_and_has_its_time_to_answer() {
    let run = run();
    let mut peer = open(&run, "/rooms/ann", "");
    run.sim.run_for(SECOND * 19);
    let id = run.act(|site, http| {
        let id = site.state().members[0].1;
        http.close_websocket(id, CloseCode::NORMAL, "");
        assert!(!http.send_frame(id, &text_frame("too late")));
        id
    });
    run.sim.run_for(SECOND * 19);
    assert!(run.act(|_, http| http.is_open(id)), "it has 20 s");
    // Whatever it says instead of an answer gives it no more time.
    peer.send(frame(FIN | TEXT, "hello"));
    run.sim.run_for(SECOND * 2);
    assert!(!run.act(|_, http| http.is_open(id)));
    peer.expect(plain(FIN | CLOSE, 1000_u16.to_be_bytes()));
    assert_eq!(peer.take(), b"");
}

#[test]
fn a_client_that_is_refused_when_it_opens_is_not_heard() {
    let site = Site::new(0).websocket(
        "/",
        WebSockets::new(|heard, _, _, _| *heard += 1)
            .on_open(|_, http, id, _, _| http.close_websocket(id, CloseCode::POLICY, "")),
    );
    let run = Served::new(1, Config::default(), Settings::default(), site);
    let mut peer = run.connect();
    peer.send([request("GET", "/", ASKS, "").into_bytes(), frame(FIN | TEXT, "early")].concat());
    peer.expect("\r\n\r\n");
    peer.expect(plain(FIN | CLOSE, 1008_u16.to_be_bytes()));
    peer.send(frame(FIN | TEXT, "later"));
    run.sim.settle();
    run.act(|site, _| assert_eq!(*site.state(), 0));
}

#[test]
fn a_page_that_pauses_a_client_stays_in_charge_of_it() {
    let site = Site::new(Vec::new()).websocket(
        "/",
        WebSockets::new(|heard: &mut Vec<Message>, http, id, message| {
            heard.push(message);
            http.pause(id);
            http.send_message(id, &Message::Text("busy".to_owned()));
        }),
    );
    let run = Served::new(1, Config::default(), Settings::default(), site);
    let mut peer = run.connect();
    peer.send(
        [request("GET", "/", ASKS, "").into_bytes(), frame(FIN | TEXT, "one"), frame(FIN | TEXT, "two")].concat(),
    );
    peer.expect("\r\n\r\n");
    run.sim.run_for(SECOND * 100);
    let id = run.act(|site, http| {
        assert_eq!(site.state().len(), 1);
        http.connection_ids()[0]
    });
    run.act(|_, http| http.resume(id));
    run.sim.settle();
    run.act(|site, _| assert_eq!(site.state().len(), 2));
}

#[test]
fn no_websocket_opens_during_a_shutdown() {
    let run = run();
    let mut client = run.connect();
    client.send(request("GET", "/members", "", ""));
    run.sim.settle();
    client.take();
    run.stopper.stop();
    run.sim.run_for(SECOND / 20);
    client.send(request("GET", "/rooms/ann", ASKS, ""));
    run.sim.settle();
    assert_eq!(Reply::decode("GET", &client.take()).status, 503);
}
