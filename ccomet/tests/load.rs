//! Load: ten thousand subscribers, stalled readers, clients that connect and leave. The server is a
//! process of its own, whose memory and descriptors the tests read from outside.

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::{Client, Process, wait_until};
use testing::http::{request, subscribe};

/// Without heartbeats, which would stand at other places in each stream. A reader that the test
/// stalls does not count as dead, however slow the machine is.
const QUIET: &str = "[times]\nheartbeat_s = 86400\nsilence_max_s = 86400\n";

/// Returns how many subscribers a process may have: its limit of open files without what else it
/// opens.
fn subscribers_wanted(wanted: usize) -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").expect("limits");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("a limit");
    let soft: usize = line.split_whitespace().nth(3).expect("a figure").parse().unwrap_or(usize::MAX);
    let possible = soft.saturating_sub(500);
    if possible < wanted {
        assert!(std::env::var_os("CCOMET_TEST_REQUIRE_ALL").is_none(), "`ulimit -n` allows {possible} of {wanted}");
        eprintln!("REDUCED to {possible} of {wanted} subscribers: `ulimit -n` allows no more");
    }
    possible.min(wanted)
}

/// Publishes over one connection, with many requests at a time.
fn publish_all(address: SocketAddr, channel: &str, messages: impl Iterator<Item = String>) {
    let mut client = Client::connect(address);
    let mut asked = 0;
    for message in messages {
        client.send(request("POST", &format!("/channels/{channel}"), "", &message));
        asked += 1;
        if asked == 50 {
            (0..asked).for_each(|_| assert_eq!(client.reply().status, 200));
            asked = 0;
        }
    }
    (0..asked).for_each(|_| assert_eq!(client.reply().status, 200));
}

#[test]
fn ten_thousand_subscribers_get_a_thousand_messages_each_once_and_in_order() {
    const MESSAGES: usize = 1_000;
    const ROUND: usize = 100;
    let count = subscribers_wanted(10_000);
    let server = Process::start(QUIET, &["--loops", "2"]);
    let mut reference = Client::connect(server.front).events("/channels/news", "");
    let mut streams: Vec<TcpStream> = (0..count).map(|_| subscribe(server.front, "news")).collect();
    let mut buffer = Vec::new();
    for round in 0..MESSAGES / ROUND {
        let numbers = round * ROUND..(round + 1) * ROUND;
        publish_all(server.front, "news", numbers.clone().map(|n| n.to_string()));
        // The test reads one stream event by event; the other streams must have the same bytes.
        let mut expected = Vec::new();
        for n in numbers {
            let event = reference.next();
            assert_eq!(event.message(), n.to_string());
            let text = format!("id: {}\ndata: {}\n\n", event.id, event.data);
            write!(expected, "{:x}\r\n{text}\r\n", text.len()).expect("memory");
        }
        buffer.resize(expected.len(), 0);
        for stream in &mut streams {
            stream.read_exact(&mut buffer).expect("all of the round");
            assert!(buffer == expected, "the same bytes for everyone");
        }
    }
    let more = |stream: &TcpStream| {
        stream.set_nonblocking(true).expect("no waiting");
        stream.peek(&mut [0]).is_ok()
    };
    assert!(!streams.iter().any(more), "nothing comes twice");
}

#[test]
fn stalled_readers_cost_no_memory_delay_no_client_and_get_the_gap() {
    const MESSAGES: usize = 200_000;
    const STALLED: usize = 500;
    // The memory for encoded messages varies with the rate of publishing; the limit keeps it small.
    let server = Process::start(&format!("{QUIET}[limits]\nencoded_bytes_max = 65536\n"), &["--loops", "2"]);
    let mut stalled: Vec<_> =
        (0..STALLED).map(|_| Client::connect(server.front).events("/channels/news", "")).collect();
    let mut reader = Client::connect(server.front).events("/channels/news", "");
    let read = Arc::new(AtomicUsize::new(0));
    let reading = {
        let read = read.clone();
        std::thread::spawn(move || {
            for n in 0..MESSAGES {
                let message = reader.next().message();
                assert!(message.starts_with(&format!("{n} ")), "{n}: {message}");
                read.store(n + 1, Ordering::Release);
            }
        })
    };
    let filler = "x".repeat(500);
    let mut figures = Vec::new();
    // In lots that the reader keeps up with: the reader must not fall behind the history itself.
    for lot in 0..MESSAGES / 250 {
        let numbers = lot * 250..(lot + 1) * 250;
        publish_all(server.front, "news", numbers.map(|n| format!("{n} {filler}")));
        wait_until("the reader has all of the lot", || read.load(Ordering::Acquire) >= (lot + 1) * 250);
        if lot % 100 == 99 {
            figures.push(server.rss_kib());
        }
    }
    reading.join().expect("the reader is delayed by nobody");
    // At the first figure, the kernel's buffers of every stalled connection are full.
    eprintln!("memory after each 25,000 messages, KiB: {figures:?}");
    let (first, last) = (figures[0], figures[figures.len() - 1]);
    assert!(last < first + 1_024, "memory grows: {figures:?}");

    // One reader goes on: it gets what the kernel held, then the gap, then the history to the last
    // message.
    let mut stream = stalled.pop().expect("one of them");
    let mut expected = 0;
    loop {
        let event = stream.next();
        let item = event.json();
        if event.kind == "gap" {
            expected += item["missed"].as_u64().expect("the server knows how many");
            assert_eq!(item["position"], event.id.as_str(), "where it goes on from");
        } else {
            let message = event.message();
            assert!(message.starts_with(&format!("{expected} ")), "{expected}: {message}");
            expected += 1;
        }
        if expected == MESSAGES as u64 {
            break;
        }
    }
}

#[test]
fn connecting_and_leaving_clients_leak_nothing() {
    let seconds = std::env::var("CCOMET_TEST_CHURN_S").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let stay = subscribers_wanted(15_000) / 3;
    let server = Process::start("", &["--loops", "2"]);
    let staying: Vec<TcpStream> = (0..stay).map(|n| subscribe(server.front, &format!("room{}", n % 100))).collect();
    let end = Instant::now() + Duration::from_secs(seconds);
    // Twice as many clients connect, poll or publish, and leave: all together at first, then one by
    // one.
    let churn = |together: bool| {
        let mut guests = Vec::new();
        for n in 0..2 * stay {
            let mut guest = TcpStream::connect(server.front).expect("connected");
            let request = match n % 3 {
                0 => "GET /channels/room1 HTTP/1.1\r\nHost: h\r\nAccept: text/event-stream\r\n\r\n",
                1 => "GET /channels/room2,room3 HTTP/1.1\r\nHost: h\r\n\r\n",
                _ => "GET /cha",
            };
            guest.write_all(request.as_bytes()).expect("sent");
            guests.push(guest);
            if n % 2 == 1 && !together {
                guests.swap_remove(n / 3 % guests.len());
            }
        }
    };
    let back = |wanted: usize| server.descriptors() <= wanted;
    let descriptors = server.descriptors();
    // A first round warms up: it allocates what is allocated once, and what the allocator keeps.
    churn(true);
    wait_until("descriptors are back", || back(descriptors));
    let before = server.rss_kib();
    loop {
        churn(false);
        if Instant::now() >= end {
            break;
        }
    }
    wait_until("descriptors are back", || back(descriptors));
    let after = server.rss_kib();
    eprintln!("memory with {stay} subscribers, before and after: {before} KiB, {after} KiB");
    assert!(after <= before + before / 10, "{before} KiB before, {after} KiB after");
    // All clients that stayed are still subscribed.
    let mut publisher = Client::connect(server.front);
    (0..100).for_each(|room| drop(publisher.publish(&format!("room{room}"), "hi")));
    for mut stream in staying {
        let mut seen = Vec::new();
        while !String::from_utf8_lossy(&seen).contains("\"hi\"}") {
            let mut bytes = [0; 512];
            let count = stream.read(&mut bytes).expect("a stream");
            assert!(count > 0);
            seen.extend_from_slice(&bytes[..count]);
        }
    }
}
