//! What clients get while Redis is away, and after it has lost its data.

use std::time::{Duration, Instant};

use crate::common::wait_until;
use crate::pair::Pair;

pub(crate) fn a_redis_that_is_away_refuses_publications_and_keeps_subscribers() {
    let mut pair = Pair::start();
    let mut readers = [0, 1].map(|server| pair.servers[server].client().events("/channels/news", ""));
    pair.servers[0].client().publish("news", "before");
    for reader in &mut readers {
        assert_eq!(reader.next().message(), "before");
    }
    for way in ["a stop", "a kill"] {
        match way {
            "a stop" => pair.redis.signal("STOP"),
            _ => pair.redis.kill(),
        }
        for server in &pair.servers {
            let start = Instant::now();
            let reply = server.client().post("/channels/news", "refused");
            let waited = start.elapsed();
            assert_eq!(reply.status, 503, "{way}: {reply}");
            assert!(reply.header("retry-after").is_some_and(|text| text.parse::<u64>().is_ok()), "{way}: {reply}");
            // A Redis that keeps its connections is given up if it owes replies for five seconds.
            let waited_max = Duration::from_secs(if way == "a stop" { 10 } else { 5 });
            assert!(waited < waited_max, "{way}: the answer took {waited:?}");
            let health = server.admin().get("/health/ready");
            assert!(health.is(503, "store_unreachable"), "{way}: {health}");
            assert_eq!(server.admin().get("/health/live").status, 200, "{way}");
        }
        match way {
            "a stop" => pair.redis.signal("CONT"),
            _ => pair.redis.start_again(),
        }
        wait_until("it can be published again", || pair.servers[1].client().post("/channels/news", way).status == 200);
        pair.wait();
        for reader in &mut readers {
            // Redis may have taken what was refused, when it went on. A process that starts with the
            // data of another one may lack some of it, and readers get a gap.
            loop {
                let event = reader.next();
                if event.kind == "gap" {
                    assert_eq!(way, "a kill");
                } else if event.message() == way {
                    break;
                }
            }
        }
    }
}

pub(crate) fn an_empty_redis_gives_readers_a_gap() {
    let mut pair = Pair::start();
    let mut readers = [0, 1].map(|server| pair.servers[server].client().events("/channels/news", ""));
    let old = pair.servers[0].client().publish("news", "before");
    for reader in &mut readers {
        assert_eq!(reader.next().message(), "before");
    }
    pair.redis.kill();
    pair.redis.start_empty();
    let mut new = String::new();
    wait_until("it can be published", || {
        let reply = pair.servers[1].client().post("/channels/news", "after");
        new = if reply.status == 200 { reply.position() } else { String::new() };
        !new.is_empty()
    });
    for reader in &mut readers {
        assert_eq!(reader.next().kind, "gap");
        assert_eq!(reader.next().message(), "after");
    }
    assert!(new > old, "positions ascend: {old}, {new}");
    for server in &pair.servers {
        let resumed = server.client().get(&format!("/channels/news?after={old}&wait=0")).json();
        assert_eq!(resumed["items"][0]["type"], "gap", "{resumed}");
        assert_eq!(resumed["items"][1]["data"], "after", "{resumed}");
    }
}
