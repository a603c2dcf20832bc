//! Floods: a client that sends requests without end uses no more than its limit, and other clients
//! are served.

mod common;

use common::stage::{ANN, BOB, Stage, is_fine};
use common::{Client, Process, Reply, wait_until};
use testing::http::UPGRADE;

fn has_retry_after(answer: &Reply) -> bool {
    matches!(answer.status, 429 | 503) && answer.header("retry-after").is_some()
}

#[test]
fn a_flood_of_sign_ins_is_stopped_and_others_are_served() {
    const MAX: usize = 30;
    let stage = Stage::new(|config| config.limits.subscribes_per_address_minute = MAX as u32);
    let mut peer = stage.connect(ANN);
    let sign = |n: usize| format!("/sign?channel=c{n}&sname=s{n}&callback=f");
    let answers: Vec<Reply> = (0..10 * MAX).map(|n| stage.exchange(&mut peer, "GET", &sign(n), "", "")).collect();
    let fine = answers.iter().filter(|answer| is_fine(answer)).count();
    // The flood took long enough for a few more to be allowed.
    assert!((MAX..2 * MAX).contains(&fine), "{fine}");
    assert!(has_retry_after(&answers[10 * MAX - 1]), "{}", answers[10 * MAX - 1]);
    assert!(stage.server.holdings().channels <= fine);
    assert!(is_fine(&stage.exchange(&mut stage.connect(BOB), "GET", &sign(0), "", "")));
}

#[test]
fn a_flood_of_channels_stays_within_its_limit() {
    let server = Process::start("loops = 2\n[limits]\nchannels_max = 200\n", &[]);
    let mut reader = Client::connect(server.front).events("/channels/kept", "");
    let mut client = Client::connect(server.front);
    let mut flood = |from: usize, count: usize| {
        let mut refused = 0;
        for n in from..from + count {
            // Publishing, reading, and two calls of the classic API.
            let reply = match n % 4 {
                0 => client.post(&format!("/channels/c{n}"), "x"),
                1 => client.get(&format!("/channels/c{n}?wait=0")),
                2 => client.get(&format!("/publish?channel=c{n}&sname=a&msg=x&callback=f")),
                _ => client.get(&format!("/sign?channel=c{n}&sname=a&callback=f")),
            };
            assert!(matches!(reply.status, 200 | 503), "{reply:?}");
            assert_eq!(reply.status == 503, reply.header("retry-after").is_some(), "{reply:?}");
            refused += usize::from(reply.status == 503);
        }
        refused
    };
    let refused = flood(0, 2_000);
    assert!(refused > 1_000, "{refused}");
    let before_kib = server.rss_kib();
    // All but the sign-ins, which create no channels, and a few requests that took the places of
    // expired channels.
    let refused = flood(2_000, 10_000);
    assert!((7_250..=7_500).contains(&refused), "{refused}");
    let grown_kib = server.rss_kib().saturating_sub(before_kib);
    assert!(grown_kib < 1_024, "{grown_kib} KiB more");
    let reply = Client::connect(server.admin).get("/push?cname=one-more&content=x");
    assert!(reply.status == 429 && reply.header("retry-after").is_some(), "{reply:?}");
    let reply = Client::connect(server.admin).get("/sign?cname=one-more");
    assert!(reply.status == 429 && reply.header("retry-after").is_some(), "{reply:?}");
    Client::connect(server.front).publish("kept", "still served");
    assert_eq!(reader.next().message(), "still served");
}

#[test]
fn a_flood_of_subscribers_stays_within_its_limit() {
    let server = Process::start("loops = 1\n[limits]\nsubscribers_max = 50\n", &[]);
    let mut reader = Client::connect(server.front).events("/channels/kept", "");
    let held: Vec<_> = (1..50).map(|_| Client::connect(server.front).events("/channels/kept", "")).collect();
    let mut clients: Vec<Client> = (0..20).map(|_| Client::connect(server.front)).collect();
    let mut flood = || {
        for n in 0..2_000 {
            let client = &mut clients[n % 20];
            let accept = if n % 2 == 0 { "Accept: text/event-stream\r\n" } else { "" };
            client.ask("GET", &format!("/channels/c{}", n % 10), accept);
            let reply = client.reply();
            assert_eq!((reply.status, reply.json()["code"].as_str()), (503, Some("subscriber_limit")));
            assert!(reply.header("retry-after").is_some(), "{reply:?}");
        }
    };
    flood();
    let before_kib = server.rss_kib();
    (0..5).for_each(|_| flood());
    let grown_kib = server.rss_kib().saturating_sub(before_kib);
    assert!(grown_kib < 1_024, "{grown_kib} KiB more");
    // A WebSocket gets the error, too, and is closed.
    let mut socket = Client::connect(server.front);
    socket.ask("GET", "/channels/kept", UPGRADE);
    assert_eq!(socket.head().0, 101);
    let mut frame = [0; 2];
    socket.read_exact(&mut frame);
    assert_eq!(frame[0], 0x81, "an error, before the close");
    Client::connect(server.front).publish("kept", "still served");
    assert_eq!(reader.next().message(), "still served");
    drop(held);
    wait_until("the places are free again", || {
        Client::connect(server.front).get("/channels/kept?wait=0").status == 200
    });
}
