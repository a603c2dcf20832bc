//! Polls that read messages which are kept on disk, but not in memory.

mod common;

use std::sync::atomic::{AtomicBool, Ordering};

use common::{Client, Folder, Process, SMALL_STORE, wait_until};

const CHANNELS: u64 = 10;
const MESSAGES: u64 = 1_000;
const READERS: u64 = 10;

/// Returns the number of pages that the store has read.
fn pages_read(server: &Process) -> u64 {
    let page = Client::connect(server.admin).get("/metrics");
    let text = String::from_utf8(page.body.clone()).expect("text");
    let value = text.lines().find_map(|line| line.strip_prefix("ccomet_store_pages_total "));
    value.and_then(|value| value.parse().ok()).expect("a number")
}

/// Reads all channels from the oldest message on, poll by poll, unless it is stopped. Returns the
/// texts of each channel.
fn read_all(server: &Process, is_stopped: &AtomicBool) -> Vec<Vec<String>> {
    let names: Vec<String> = (0..CHANNELS).map(|channel| format!("c{channel}")).collect();
    let (mut client, mut texts) = (Client::connect(server.front), vec![Vec::new(); names.len()]);
    let mut after = "oldest".to_owned();
    let is_left = |texts: &[Vec<String>]| texts.iter().map(Vec::len).sum::<usize>() < (CHANNELS * MESSAGES) as usize;
    while is_left(&texts) && !is_stopped.load(Ordering::Relaxed) {
        let reply = client.get(&format!("/channels/{}?wait=0&after={after}", names.join(",")));
        assert_eq!(reply.status, 200);
        let reply = reply.json();
        let items = reply["items"].as_array().expect("items");
        assert!(!items.is_empty(), "a poll with news is answered with some");
        for item in items {
            assert_eq!(item["type"], "message", "{item}");
            let place = names.iter().position(|name| item["channel"] == *name).expect("a channel");
            texts[place].push(item["data"].as_str().expect("text").to_owned());
        }
        reply["position"].as_str().expect("a position").clone_into(&mut after);
    }
    texts
}

#[test]
fn readers_of_several_channels_do_not_take_each_others_pages_away() {
    let folder = Folder::new("polls-of-older");
    let data = folder.join("data").to_string_lossy().into_owned();
    let mut server = Process::start(SMALL_STORE, &["--loops", "1", "--data", &data]);
    let mut publisher = Client::connect(server.front);
    for channel in 0..CHANNELS {
        let messages = |batch: u64| {
            let range = batch * 100..(batch + 1) * 100;
            let one = |number: u64| format!("{{\"channel\":\"c{channel}\",\"data\":\"{number}\"}}");
            format!("{{\"messages\":[{}]}}", range.map(one).collect::<Vec<_>>().join(","))
        };
        for batch in 0..MESSAGES / 100 {
            assert_eq!(publisher.post("/messages", messages(batch)).status, 200);
        }
    }
    server.restart();
    // A page has at least the rest of 128 messages. Each page that is read brings a reader forward,
    // also if no two readers ever share one.
    let pages_max = 2 * READERS * CHANNELS * (MESSAGES / 128 + 2);
    let expected: Vec<String> = (0..MESSAGES).map(|number| number.to_string()).collect();
    let is_stopped = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS).map(|_| scope.spawn(|| read_all(&server, &is_stopped))).collect();
        wait_until("all have read everything, or too many pages are read", || {
            let is_beyond = pages_read(&server) > pages_max;
            is_stopped.store(is_beyond, Ordering::Relaxed);
            is_beyond || readers.iter().all(std::thread::ScopedJoinHandle::is_finished)
        });
        let read = pages_read(&server);
        assert!(read <= pages_max, "{read} pages are read, of at most {pages_max}");
        for reader in readers {
            let texts = reader.join().expect("a reader");
            assert!(texts.iter().all(|texts| *texts == expected), "each message once, in order");
        }
    });
}
