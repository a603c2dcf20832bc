//! Presence in channels, by the tokens of clients. On the simulated network, where silence takes no
//! time.

mod common;

use std::time::Duration;

use ccomet::{Claims, Config};
use common::stage::{ANN, LOOPBACK, Stage, bearer, key, patterns};
use sealed::sim::Peer;
use serde_json::Value;
use testing::http::{UPGRADE, request};

const SECOND: Duration = Duration::from_secs(1);

impl Stage {
    fn of(loops: usize, change: impl FnOnce(&mut Config)) -> Self {
        Self::with(1, loops, |config| {
            config.auth.keys = vec![key("main")];
            change(config);
        })
    }

    /// Returns a token for the room, with or without permission to see its members.
    fn token(&self, sub: &str, sees: bool) -> String {
        let presence = patterns(if sees { &["room"] } else { &[] });
        let publish = Vec::new();
        self.sign(&Claims { sub: Some(sub.to_owned()), presence, publish, ..self.claims_for("room", 3_600) })
    }

    fn ask(&self, token: &str, target: &str, headers: &str) -> Peer {
        self.begin(LOOPBACK, "GET", target, &(bearer(token) + headers))
    }

    /// Opens a stream of the room for a member.
    fn join(&self, sub: &str) -> Peer {
        let mut peer = self.ask(&self.token(sub, false), "/channels/room?transport=lines", "");
        peer.expect("hello");
        peer
    }

    /// Returns the names of the members, as a client with permission sees them, with their numbers
    /// of connections.
    fn members(&self) -> Vec<(String, u64)> {
        let presence = self.presence();
        let member = |member: &Value| {
            (member["id"].as_str().expect("a name").to_owned(), member["connections"].as_u64().expect("a number"))
        };
        presence["members"].as_array().expect("members").iter().map(member).collect()
    }

    fn presence(&self) -> Value {
        self.body(&mut self.ask(&self.token("watcher", true), "/channels/room/presence", ""))
    }

    /// Opens a stream of joins and leaves from now on.
    fn watch(&self) -> Watch {
        let position = self.presence()["position"].as_str().expect("a position").to_owned();
        let target = format!("/channels/room?presence=1&transport=lines&after={position}");
        let mut peer = self.ask(&self.token("watcher", true), &target, "");
        peer.expect("hello");
        Watch { peer, text: String::new() }
    }

    fn body(&self, peer: &mut Peer) -> Value {
        let reply = self.reply(peer);
        assert_eq!(reply.status, 200, "{reply}");
        reply.json()
    }

    fn wait(&self, seconds: u32) {
        self.sim.run_for(SECOND * seconds);
    }
}

/// A stream of joins and leaves.
struct Watch {
    peer: Peer,
    text: String,
}

impl Watch {
    /// Returns the events since the last call, without the watcher's own join.
    fn events(&mut self) -> Vec<String> {
        self.text.push_str(&String::from_utf8(self.peer.take()).expect("text"));
        let (whole, rest) = self.text.rsplit_once('\n').unwrap_or(("", &self.text));
        let items: Vec<Value> = whole
            .lines()
            .filter(|line| line.starts_with('{'))
            .flat_map(|line| {
                serde_json::from_str::<Value>(line).expect("JSON")["items"].as_array().expect("items").clone()
            })
            .collect();
        self.text = rest.to_owned();
        let is_other = |item: &&Value| item["id"] != "watcher" && item["type"] != "hello";
        let events = |item: &Value| {
            if item["type"] == "message" {
                return format!("message {}", item["data"].as_str().expect("text"));
            }
            assert_eq!((&item["channel"], &item["of"]), (&"room".into(), &"presence".into()), "{item}");
            format!("{} {}", item["type"].as_str().expect("a type"), item["id"].as_str().expect("a name"))
        };
        items.iter().filter(is_other).map(events).collect()
    }
}

#[test]
fn joins_and_leaves_are_sent_to_clients_that_request_them() {
    for loops in [1, 3] {
        let stage = Stage::of(loops, |_| {});
        let mut ann = stage.join("ann");
        let mut watch = stage.watch();
        assert!(stage.members().contains(&("ann".to_owned(), 1)), "{:?}", stage.members());
        let mut bob = stage.join("bob");
        stage.wait(1);
        assert_eq!(watch.events(), ["join bob"]);
        let again = stage.join("bob");
        stage.wait(1);
        assert!(stage.members().contains(&("bob".to_owned(), 2)), "{:?}", stage.members());
        stage.exchange(&mut stage.admin(), "POST", "/channels/room", "", "hi");
        ann.finish();
        bob.finish();
        stage.wait(8);
        assert_eq!(watch.events(), ["message hi", "leave ann"], "a member with another connection has not left");
        again.reset();
        stage.wait(8);
        assert_eq!(watch.events(), ["leave bob"]);
        assert_eq!(stage.members(), [("watcher".to_owned(), 1)]);
        assert_eq!(stage.presence()["subscribers"], 1);
    }
}

#[test]
fn a_polling_client_is_present_between_its_polls() {
    for loops in [1, 3] {
        let stage = Stage::of(loops, |_| {});
        let mut watch = stage.watch();
        let token = stage.token("ann", false);
        for round in 0..6 {
            let mut poll = stage.ask(&token, "/channels/room?wait=2", "");
            stage.wait(2);
            poll.expect("\"items\":[]");
            poll.finish();
            // Ann takes some time, but polls again.
            stage.wait(round % 4 + 1);
        }
        assert_eq!(watch.events(), ["join ann"]);
        stage.wait(8);
        assert_eq!(watch.events(), ["leave ann"]);
    }
}

#[test]
fn a_vanished_client_leaves_within_seconds() {
    let stage = Stage::of(3, |config| {
        config.times.heartbeat_s = 2;
        config.times.silence_max_s = 4;
    });
    let mut watch = stage.watch();
    let mut stream = stage.join("stream");
    let mut socket = stage.ask(&stage.token("socket", false), "/channels/room", UPGRADE);
    socket.expect("hello");
    let mut poll = stage.ask(&stage.token("poll", false), "/channels/room?wait=5", "");
    stage.wait(1);
    let mut events = watch.events();
    events.sort();
    assert_eq!(events, ["join poll", "join socket", "join stream"]);
    for peer in [&mut stream, &mut socket, &mut poll] {
        peer.vanish();
    }
    // The longest of the wait of a poll, three heartbeats, and one heartbeat with the time for its
    // acknowledgement; then the grace.
    stage.wait(8 + 6);
    let mut events = watch.events();
    events.sort();
    assert_eq!(events, ["leave poll", "leave socket", "leave stream"]);
}

#[test]
fn a_client_without_permission_gets_the_number_of_subscribers() {
    let stage = Stage::of(1, |_| {});
    let _ann = stage.join("ann");
    let token = stage.token("bob", false);
    let mut peer = stage.ask(&token, "/channels/room/presence", "");
    stage.wait(1);
    let presence = stage.body(&mut peer);
    assert_eq!((&presence["subscribers"], presence.get("members")), (&1.into(), None));
    for target in ["/channels/room?presence=1", "/channels/other/presence"] {
        let mut peer = stage.ask(&token, target, "");
        peer.expect("HTTP/1.1 403 ");
    }
    let mut bad = stage.ask(&token, "/channels/room%2Cpresence", "");
    bad.expect("bad_channel");
}

#[test]
fn presence_resumes_like_messages() {
    let stage = Stage::of(3, |_| {});
    let before = stage.presence()["position"].as_str().expect("a position").to_owned();
    let ann = stage.join("ann");
    stage.wait(1);
    ann.reset();
    stage.wait(8);
    let token = stage.token("watcher", true);
    let mut late = stage.ask(&token, &format!("/channels/room?presence=1&after={before}&wait=0"), "");
    stage.wait(1);
    let items = stage.body(&mut late)["items"].clone();
    let seen: Vec<&Value> = items.as_array().expect("items").iter().filter(|item| item["id"] == "ann").collect();
    assert_eq!((seen.len(), &seen[0]["type"], &seen[1]["type"]), (2, &"join".into(), &"leave".into()));
}

#[test]
fn members_are_limited_and_end_with_their_channel() {
    let stage = Stage::of(1, |config| config.limits.members_per_channel_max = 2);
    let mut watch = stage.watch();
    let _streams = ["ann", "bob", "eve"].map(|sub| stage.join(sub));
    stage.wait(1);
    let presence = stage.presence();
    assert_eq!((&presence["incomplete"], &presence["subscribers"]), (&true.into(), &4.into()));
    assert_eq!(stage.members().len(), 2);
    stage.delete("room");
    watch.peer.expect("\"type\":\"close\"");
    stage.wait(8);
    assert_eq!(stage.members(), [], "and nobody is left behind");
    // A client that knew the members gets a gap.
    let before = presence["position"].as_str().expect("a position");
    let target = format!("/channels/room?presence=1&after={before}&wait=0");
    let mut late = stage.ask(&stage.token("watcher", true), &target, "");
    stage.wait(1);
    let items = stage.body(&mut late)["items"].clone();
    let gaps: Vec<&Value> = items.as_array().expect("items").iter().map(|item| &item["of"]).collect();
    assert!(gaps.contains(&&"presence".into()) && items[0]["type"] == "gap", "{items}");
}

#[test]
fn nothing_is_kept_of_members_that_left() {
    let stage = Stage::of(3, |config| {
        config.times.channel_idle_s = 60;
        config.history.age_max_s = 60;
    });
    drop((stage.watch(), ["ann", "bob", "eve"].map(|sub| stage.join(sub))));
    stage.wait(400);
    let held = stage.server.holdings();
    assert_eq!((held.channels, held.attached_channels, held.subscribers), (0, 0, 0), "{held:?}");
}

#[test]
fn a_cookie_of_a_page_of_another_site_makes_no_client_present() {
    let stage = Stage::of(1, |_| {});
    let ask = |fields: &str| {
        let cookie = format!("Cookie: ccomet_token={}\r\n", stage.token("ann", false));
        let peer = stage.begin(LOOPBACK, "GET", "/channels/room?wait=5", &(cookie + fields));
        stage.sim.run_for(SECOND);
        peer
    };
    let picture = ask("Sec-Fetch-Site: cross-site\r\nSec-Fetch-Dest: image\r\n");
    let unnamed = ask("");
    assert_eq!(stage.members(), []);
    drop((picture, unnamed));
    let _page = ask("Sec-Fetch-Site: same-origin\r\n");
    assert_eq!(stage.members(), [("ann".to_owned(), 1)]);
}

#[test]
fn a_calendar_set_back_keeps_no_client_present() {
    let stage = Stage::of(1, |_| {});
    let mut watch = stage.watch();
    let (ann, bob) = (stage.join("ann"), stage.join("bob"));
    stage.wait(1);
    drop(ann);
    stage.wait(1);
    let hour = SECOND * 3_600;
    stage.sim.set_unix_time(stage.sim.unix_time().saturating_sub(hour));
    drop(bob);
    stage.wait(8);
    assert_eq!(watch.events(), ["join ann", "join bob", "leave ann", "leave bob"]);
}

#[test]
fn a_client_that_may_make_no_channel_hides_no_member() {
    for seed in 1..=8 {
        let stage = Stage::with(seed, 2, |config| {
            config.auth.keys = vec![key("main")];
            config.limits.channels_per_client_max = 2;
        });
        let token = |sub: &str| bearer(&stage.sign(&Claims { sub: Some(sub.into()), ..stage.claims_for("*", 3_600) }));
        let ann = token("ann");
        for n in 0..40 {
            stage.exchange(&mut stage.connect(ANN), "POST", &format!("/channels/a{n}"), &ann, "");
        }
        for n in 0..60 {
            let target = format!("/channels/b{n}?transport=lines");
            let _ann: Vec<_> = (0..6).map(|_| stage.begin(ANN, "GET", &target, &ann)).collect();
            let bob = format!("bob{n}");
            let mut peer = stage.begin(&format!("198.51.100.{n}"), "GET", &target, &token(&bob));
            assert!(stage.received(&mut peer).contains("hello"));
            let target = format!("/channels/b{n}/presence");
            let who = stage.exchange(&mut stage.admin(), "GET", &target, "", "").json();
            let mut members = who["members"].as_array().expect("members").iter();
            assert!(members.any(|member| member["id"] == *bob), "seed {seed}, b{n}: {who}");
        }
    }
}

#[test]
fn a_member_that_comes_as_the_channel_is_deleted_is_not_in_the_next_of_its_name() {
    let stage = Stage::of(2, |_| {});
    let subs: Vec<String> = (0..8).map(|n| format!("ann{n}")).collect();
    let tokens: Vec<_> = subs.iter().map(|sub| bearer(&stage.token(sub, false))).collect();
    for round in 0..100 {
        // Both loops follow the channel.
        let mut readers: Vec<_> = (0..4).map(|_| stage.join("bob")).collect();
        let mut admins = [stage.admin(), stage.admin()];
        stage.sim.settle();
        let come = |token: &String| stage.begin(LOOPBACK, "GET", "/channels/room?transport=lines", token);
        let mut peers: Vec<_> = tokens[..4].iter().map(come).collect();
        admins[0].send(request("DELETE", "/channels/room", "", ""));
        admins[1].send(request("POST", "/channels/room", "", "").repeat(4));
        peers.extend(tokens[4..].iter().map(come));
        stage.sim.settle();
        let members: Vec<_> = stage.members().into_iter().map(|(id, _)| id).collect();
        // Those that came before the channel was deleted have ended with it.
        let mut stays = |peer: &mut Peer| !stage.received(peer).contains("\"close\"");
        assert!(!readers.iter_mut().any(&mut stays));
        let staying = subs.iter().zip(&mut peers).filter_map(|(sub, peer)| stays(peer).then(|| sub.clone()));
        assert_eq!(members, staying.collect::<Vec<_>>(), "round {round}");
        drop((readers, peers));
        stage.wait(10);
    }
}
