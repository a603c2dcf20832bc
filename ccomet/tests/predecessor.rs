//! Inputs that broke the server of 2014, one test each.

mod common;

use common::{Client, Local, Process, config, the_one_that_stays, wait_until};

fn subscribe(client: &mut Client, sname: &str) {
    client.ask("GET", &format!("/subscribe?channel=abc&sname={sname}&seqid=0&callback=cb"), "");
}

#[test]
fn two_polls_of_one_name_and_then_a_message() {
    let server = Local::start(config(2));
    let mut first = Client::connect(server.front);
    subscribe(&mut first, "ann");
    let mut second = Client::connect(server.front);
    subscribe(&mut second, "ann");
    // Their loops decide which of the two polls came first; that one is ended.
    let stays = the_one_that_stays(first, second);
    Client::connect(server.front).publish("abc", "hi");
    assert!({ stays }.reply().text().contains("hi"));
}

#[test]
fn a_poll_that_timed_out_and_then_a_message() {
    let mut settings = config(2);
    settings.times.classic_poll_s = 1;
    let server = Local::start(settings);
    let mut late = Client::connect(server.front);
    subscribe(&mut late, "ann");
    let reply = late.reply();
    assert_eq!((reply.status, reply.text()), (200, ""));
    assert!(late.is_closed());
    let mut client = Client::connect(server.front);
    client.publish("abc", "hi");
    subscribe(&mut client, "ann");
    assert!(client.reply().text().contains("hi"));
}

#[test]
fn a_request_in_two_pieces() {
    let server = Local::start(config(1));
    let request = b"POST /channels/a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello";
    for at in 1..request.len() {
        let mut client = Client::connect(server.front);
        client.send(&request[..at]);
        // An answered request in between ensures that the first piece arrives before the second is
        // sent.
        assert_eq!(Client::connect(server.front).get("/channels/b?wait=0").status, 200);
        client.send(&request[at..]);
        assert_eq!(client.reply().status, 200, "split at {at}");
    }
}

#[test]
fn exactly_1024_bytes() {
    let server = Local::start(config(1));
    for length in [1_023, 1_024, 1_025, 4_096, 8_192] {
        let mut client = Client::connect(server.front);
        let (start, end) = ("GET /channels/a?wait=0 HTTP/1.1\r\nHost: h\r\nX: ", "\r\n\r\n");
        let filler = "x".repeat(length - start.len() - end.len());
        client.send(format!("{start}{filler}{end}"));
        assert_eq!(client.reply().status, 200, "{length} bytes");
    }
}

#[test]
fn a_client_that_leaves_right_after_its_request() {
    let server = Process::start("", &["--loops", "2"]);
    // A first client before counting, for descriptors that are opened once.
    drop(Client::connect(server.front).events("/channels/abc", ""));
    let settled = |count: usize| move |server: &Process| server.descriptors() <= count;
    let mut before = server.descriptors();
    wait_until("the first one's descriptor is closed", || {
        let now = server.descriptors();
        std::mem::replace(&mut before, now) == now && now > 0
    });
    for n in 0..200 {
        let mut client = Client::connect(server.front);
        match n % 4 {
            0 => subscribe(&mut client, &format!("n{n}")),
            1 => client.ask("GET", "/channels/abc", "Accept: text/event-stream\r\n"),
            2 => client.ask("GET", "/channels/abc", ""),
            _ => client.send("GET /chan"),
        }
    }
    let is_settled = settled(before);
    wait_until("their descriptors are closed", || is_settled(&server));
    Client::connect(server.front).publish("abc", "hi");
}

#[test]
fn a_hundred_connections_at_once() {
    let server = Local::start(config(2));
    let mut clients: Vec<Client> = (0..100).map(|_| Client::connect(server.front)).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        subscribe(client, &format!("n{n}"));
    }
    wait_until("all wait", || clients.iter_mut().all(Client::is_silent));
    Client::connect(server.front).publish("abc", "hi");
    for client in &mut clients {
        assert!(client.reply().text().contains("hi"));
    }
}

#[test]
fn the_headers_of_a_current_browser_and_a_post() {
    let server = Local::start(config(1));
    let mut client = Client::connect(server.front);
    client.ask(
        "GET",
        "/chat.html",
        "Connection: keep-alive\r\nsec-ch-ua: \"Chromium\";v=\"156\", \"Not/A)Brand\";v=\"24\"\r\nsec-ch-ua-mobile: ?0\r\n\
         sec-ch-ua-platform: \"Linux\"\r\nUpgrade-Insecure-Requests: 1\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\n\
         Accept: text/html,application/xhtml+xml,image/avif,*/*;q=0.8\r\nSec-Fetch-Site: none\r\nSec-Fetch-Mode: navigate\r\n\
         Accept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-GB,en;q=0.9,zh;q=0.8\r\nCookie: a=b; c=\"d\"\r\n",
    );
    let reply = client.reply();
    assert!(reply.status == 200 && reply.text().contains("<!doctype html>"), "{}", reply.head);
    assert_eq!(client.post("/channels/abc", "x").status, 200, "on the same connection");
}
