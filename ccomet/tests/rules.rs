//! Rules by the names of channels.

mod common;

use ccomet::{Pattern, Rule, Who};
use common::{Client, Local, config};

fn rule(channels: &str, change: impl FnOnce(&mut Rule)) -> Rule {
    let mut rule = Rule::new(channels.parse().expect("a pattern"));
    change(&mut rule);
    rule
}

#[test]
fn a_rule_bounds_the_history_the_messages_and_the_subscribers_of_its_channels() {
    for loops in [1, 3] {
        let mut settings = config(loops);
        settings.rules = vec![
            rule("short.*", |rule| rule.messages_max = Some(2)),
            rule("small.*", |rule| rule.message_bytes_max = Some(5)),
            rule("few.*", |rule| rule.subscribers_max = Some(1)),
            rule("read.*", |rule| rule.publish = Who::Admin),
            rule("hidden.*", |rule| rule.subscribe = Who::Token),
        ];
        let server = Local::start(settings);
        let mut client = Client::connect(server.front);
        let mut admin = Client::connect(server.admin);
        for n in 0..4 {
            client.publish("short.a", n.to_string());
            client.publish("long", n.to_string());
        }
        assert_eq!(client.get("/channels/short.a?after=oldest").messages(), ["2", "3"]);
        assert_eq!(client.get("/channels/long?after=oldest").messages().len(), 4);

        assert_eq!(client.post("/channels/small.a", "12345").status, 200);
        let refused = client.post("/channels/small.a", "123456");
        assert!(refused.is(413, "more than the 5 bytes"), "{refused:?}");
        assert_eq!(client.post("/channels/long,small.a", "123456").status, 413);
        assert_eq!(admin.post("/channels/small.a", "123456").status, 413, "for every publisher");
        assert_eq!(admin.get("/push?cname=small.a&content=123456").status, 413, "and by whichever API");

        // The channel is on one loop, and a subscriber may be on another.
        let streams: Vec<_> = (0..=loops)
            .map(|_| {
                let mut stream = Client::connect(server.front);
                stream.ask("GET", "/channels/few.a", "Accept: text/event-stream\r\n");
                (stream.head().0, stream)
            })
            .collect();
        let statuses: Vec<u16> = streams.iter().map(|(status, _)| *status).collect();
        assert!(statuses.contains(&200) && statuses.contains(&503), "{statuses:?}");

        let refused = client.post("/channels/read.a", "x");
        assert_eq!((refused.status, &refused.json()["code"]), (403, &"not_allowed".into()));
        assert!(refused.text().contains("A rule for the channel"), "{refused:?}");
        assert_eq!(admin.post("/channels/read.a", "x").status, 200);
        assert_eq!(client.get("/channels/read.a?after=oldest").messages(), ["x"]);
        for target in ["/channels/hidden.a?wait=0", "/channels/long,hidden.a?wait=0", "/channels/hidden.a/history"] {
            assert_eq!(client.get(target).status, 403, "{target}");
        }
        assert_eq!(client.post("/channels/hidden.a", "x").status, 200);
    }
}

#[test]
fn a_pattern_cannot_evade_a_rule() {
    let mut settings = config(1);
    settings.front.patterns = true;
    settings.rules = vec![rule("hidden.*", |rule| rule.subscribe = Who::Admin)];
    let server = Local::start(settings);
    let mut client = Client::connect(server.front);
    for (pattern, status) in [("*", 403), ("hid*", 403), ("*.a", 403), ("news.*", 200)] {
        assert!(Pattern::new(pattern).is_ok());
        assert_eq!(client.get(&format!("/channels/{pattern}?wait=0")).status, status, "{pattern}");
    }
}
