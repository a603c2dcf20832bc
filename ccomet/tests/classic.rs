//! The classic API, byte for byte, as the client of 2014 uses it.

mod common;

use common::{Client, Local, Reply, config, the_one_that_stays, wait_until};

const LOOPS: [usize; 2] = [1, 4];

fn script(reply: &Reply) -> &str {
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.header("content-type"), Some("text/javascript; charset=utf-8"));
    reply.text()
}

fn publish(client: &mut Client, channel: &str, sname: &str, msg: &str) {
    let reply = client.get(&format!("/publish?channel={channel}&sname={sname}&msg={msg}&callback=cb&time=1"));
    assert_eq!(script(&reply), r#"cb('[{"type" : "publish"}]')"#);
}

fn subscribe(client: &mut Client, sname: &str, seqid: u64) {
    client.ask("GET", &format!("/subscribe?callback=ns.cb_1&seqid={seqid}&sname={sname}&channel=abc&_=9"), "");
}

#[test]
fn history_comes_at_once_and_in_one_array() {
    for loops in LOOPS {
        let server = Local::start(config(loops));
        let mut client = Client::connect(server.front);
        publish(&mut client, "abc", "ann", "hello");
        publish(&mut client, "abc", "bob", "world");
        subscribe(&mut client, "cid", 0);
        assert_eq!(
            script(&client.reply()),
            r#"ns.cb_1('[{"type":"MSG","msg":"hello","sname":"ann","seqid":"0","channel":"abc"},{"type":"MSG","msg":"world","sname":"bob","seqid":"1","channel":"abc"}]')"#
        );
        subscribe(&mut client, "cid", 1);
        assert_eq!(
            script(&client.reply()),
            r#"ns.cb_1('[{"type":"MSG","msg":"world","sname":"bob","seqid":"1","channel":"abc"}]')"#
        );
    }
}

#[test]
fn a_poll_at_the_head_waits() {
    for loops in LOOPS {
        let server = Local::start(config(loops));
        let mut publisher = Client::connect(server.front);
        publish(&mut publisher, "abc", "ann", "0");
        let mut at_head = Client::connect(server.front);
        subscribe(&mut at_head, "bob", 1);
        assert!(at_head.is_silent());
        publish(&mut publisher, "abc", "ann", "1");
        assert_eq!(
            script(&at_head.reply()),
            r#"ns.cb_1('[{"type":"MSG","msg":"1","sname":"ann","seqid":"1","channel":"abc"}]')"#
        );
    }
}

#[test]
fn a_poll_before_the_history_starts_at_the_oldest_kept_message() {
    let mut settings = config(2);
    settings.history.messages_max = 2;
    let server = Local::start(settings);
    let mut client = Client::connect(server.front);
    for n in 0..5 {
        publish(&mut client, "abc", "ann", &n.to_string());
    }
    subscribe(&mut client, "bob", 0);
    let reply = client.reply();
    assert!(script(&reply).starts_with(r#"ns.cb_1('[{"type":"MSG","msg":"3","#), "{reply:?}");
}

#[test]
fn signing_in_reaches_waiting_clients_takes_no_number_and_is_not_kept() {
    for loops in LOOPS {
        let server = Local::start(config(loops));
        let mut publisher = Client::connect(server.front);
        publish(&mut publisher, "abc", "ann", "0");
        let mut bob = Client::connect(server.front);
        subscribe(&mut bob, "bob", 1);
        let mut ann = Client::connect(server.front);
        // The sign-in is not kept: Bob gets it only with a waiting poll.
        wait_until("Bob hears of it", || {
            let reply = ann.get("/sign?channel=abc&sname=ann&callback=cb");
            assert_eq!(script(&reply), r#"cb('[{"type" : "sign in"}]')"#);
            !bob.is_silent()
        });
        assert_eq!(
            script(&bob.reply()),
            r#"ns.cb_1('[{"type":"SIGN","msg":"SIGN","sname":"ann","seqid":"1","channel":"abc"}]')"#
        );
        // Bob does not count the sign-in, and polls with the same number again.
        publish(&mut publisher, "abc", "ann", "1");
        loop {
            subscribe(&mut bob, "bob", 1);
            let reply = bob.reply();
            // Ann may have signed in again before Bob's answer came.
            if !script(&reply).contains("SIGN") {
                assert!(script(&reply).contains(r#""msg":"1","sname":"ann","seqid":"1""#), "{reply:?}");
                break;
            }
        }
    }
}

#[test]
fn signing_in_ends_a_wait_of_the_same_name() {
    for loops in LOOPS {
        let server = Local::start(config(loops));
        let mut waiting = Client::connect(server.front);
        subscribe(&mut waiting, "ann", 0);
        wait_until("the wait ends", || {
            let reply = Client::connect(server.front).get("/sign?channel=abc&sname=ann&callback=cb");
            assert_eq!(reply.status, 200);
            !waiting.is_silent()
        });
        let reply = waiting.reply();
        assert_eq!((reply.status, reply.text()), (200, ""), "closed without a body");
        assert!(waiting.is_closed());
    }
}

#[test]
fn of_two_polls_of_one_name_one_is_ended() {
    for loops in LOOPS {
        let server = Local::start(config(loops));
        let mut stays = Client::connect(server.front);
        subscribe(&mut stays, "ann", 0);
        // Many times, so that both polls come to the same loop and to different ones.
        for _ in 0..20 {
            let mut newer = Client::connect(server.front);
            subscribe(&mut newer, "ann", 0);
            stays = the_one_that_stays(stays, newer);
        }
        // The same name in another channel belongs to another client.
        let mut other = Client::connect(server.front);
        other.ask("GET", "/subscribe?channel=other&sname=ann&seqid=0&callback=cb", "");
        assert!(other.is_silent());
        publish(&mut Client::connect(server.front), "abc", "bob", "hi");
        assert!(script(&stays.reply()).contains("\"hi\""));
        assert!(other.is_silent());
    }
}

#[test]
fn text_of_any_kind_survives_both_escapes() {
    let server = Local::start(config(2));
    let mut client = Client::connect(server.front);
    let text = "'\"\\ </script>\r\n\u{2028}\u{2029}\0 😀 中文 %";
    let encoded = text.bytes().fold(String::new(), |encoded, byte| format!("{encoded}%{byte:02x}"));
    publish(&mut client, "abc", &encoded, &encoded);
    subscribe(&mut client, "bob", 0);
    let reply = client.reply();
    let literal = script(&reply).strip_prefix("ns.cb_1('").and_then(|rest| rest.strip_suffix("')")).expect("a call");
    for forbidden in ["</", "\n", "\r", "\u{2028}", "\u{2029}"] {
        assert!(!literal.contains(forbidden), "{literal}");
    }
    // Decodes the literal as a script engine does: an escape is a backslash and the character
    // itself.
    let (mut json, mut chars) = (String::new(), literal.chars());
    while let Some(c) = chars.next() {
        assert_ne!(c, '\'', "the literal would end here: {literal}");
        json.push(if c == '\\' { chars.next().expect("a character") } else { c });
    }
    let items: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((&items[0]["msg"], &items[0]["sname"]), (&text.into(), &text.into()));
}

#[test]
fn native_and_classic_clients_share_channels() {
    let server = Local::start(config(2));
    let mut client = Client::connect(server.front);
    publish(&mut client, "abc", "ann", "old");
    let item = client.get("/channels/abc?after=oldest").json()["items"][0].clone();
    assert_eq!((&item["data"], &item["sender"]), (&"old".into(), &"ann".into()));
    client.publish("abc", "new");
    subscribe(&mut client, "bob", 1);
    assert!(script(&client.reply()).contains(r#""msg":"new","sname":"","seqid":"1""#));
}

#[test]
fn missing_and_malformed_parameters_are_reported_in_the_envelope() {
    let server = Local::start(config(1));
    let mut client = Client::connect(server.front);
    let long = "x".repeat(200);
    for query in [
        "/subscribe?callback=cb",
        "/subscribe?callback=cb&channel=a&sname=b",
        "/subscribe?callback=cb&channel=a&sname=b&seqid=",
        "/subscribe?callback=cb&channel=a&sname=b&seqid=-1",
        "/subscribe?callback=cb&channel=a&sname=b&seqid=1x",
        "/subscribe?callback=cb&channel=a&sname=b&seqid=99999999999999999999999",
        "/subscribe?callback=cb&channel=&sname=b&seqid=1",
        "/publish?callback=cb&channel=a&sname=b",
        "/publish?callback=cb&channel=a&msg=b",
        "/publish?callback=cb&channel=a&sname=b&msg=%ff",
        "/publish?callback=cb&channel=a&sname=b&msg=%zz",
        "/publish?callback=cb&channel=%ff&sname=b&msg=b",
        "/publish?callback=cb&channel=a,b&sname=b&msg=b",
        &format!("/publish?callback=cb&channel={long}&sname=b&msg=b"),
        &format!("/publish?callback=cb&channel=a&sname={long}&msg=b"),
        "/sign?callback=cb&channel=a",
        "/sign?callback=cb&sname=a",
    ] {
        let reply = client.get(query);
        assert_eq!(script(&reply), r#"cb('[{"type" : "400", "reason" : "error params"}]')"#, "{query}");
    }
    for callback in ["", "&callback=", "&callback=alert(1)", "&callback=a%3Cb", "&callback=%ff", "&callback=a%0d%0ab"] {
        let reply = client.get(&format!("/publish?channel=a&sname=b&msg=c{callback}"));
        assert_eq!(
            (reply.status, reply.text()),
            (400, r#"[{"type" : "400", "reason" : "error params"}]"#),
            "{callback}"
        );
        assert_eq!(reply.header("content-type"), Some("application/json; charset=utf-8"));
    }
    assert_eq!(client.post("/publish?channel=a&sname=b&msg=c&callback=cb", "").status, 405);
    assert_eq!(client.get("/nothing").status, 404);
    // All this happened on one connection, which still works.
    publish(&mut client, "abc", "ann", "hi");
}
