//! The WebSocket protocol, as an independent client sees it.

mod common;

use std::net::{SocketAddr, TcpStream};

use ccomet::Config;
use common::{Client, Local, config, wait_until};
use serde_json::Value;
use testing::http::connect;
use tungstenite::client::IntoClientRequest;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Error, Message, WebSocket, client};

/// A client of one WebSocket.
struct Socket(WebSocket<TcpStream>);

impl Socket {
    fn try_open(address: SocketAddr, target: &str, headers: &[(&'static str, &str)]) -> Result<Self, Box<Error>> {
        let mut request = format!("ws://{address}{target}").into_client_request().expect("a request");
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().expect("a value"));
        }
        match client(request, connect(address)) {
            Ok((socket, _)) => Ok(Self(socket)),
            Err(tungstenite::HandshakeError::Failure(error)) => Err(Box::new(error)),
            Err(error) => panic!("{error}"),
        }
    }

    /// Opens a WebSocket, and reads the hello.
    fn open(address: SocketAddr, target: &str) -> Self {
        let mut socket = Self::try_open(address, target, &[]).expect("it opens");
        assert_eq!(socket.item()["type"], "hello");
        socket
    }

    fn send(&mut self, text: &str) {
        self.0.send(Message::text(text)).expect("sent");
    }

    fn reply(&mut self) -> Value {
        loop {
            match self.0.read().expect("a message") {
                Message::Text(text) => return serde_json::from_str(&text).expect("JSON"),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Returns the single item of the next reply that has one.
    fn item(&mut self) -> Value {
        loop {
            let reply = self.reply();
            let items = reply["items"].as_array().expect("items");
            assert!(items.len() <= 1, "{reply}");
            if let [item] = items.as_slice() {
                return item.clone();
            }
        }
    }

    fn close_code(&mut self) -> CloseCode {
        loop {
            match self.0.read() {
                Ok(Message::Close(frame)) => return frame.expect("a code").code,
                Ok(_) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
}

#[test]
fn messages_are_pushed_and_published_on_one_socket() {
    let server = Local::start(config(3));
    let mut reader = Socket::open(server.front, "/channels/news");
    let mut writer = Socket::open(server.admin, "/channels/other");
    writer.send(r#"{"type":"publish","channel":"news","data":"hi","ref":5}"#);
    let answer = writer.item();
    assert_eq!((&answer["type"], &answer["ref"], &answer["channel"]), (&"published".into(), &5.into(), &"news".into()));
    let reply = reader.reply();
    assert_eq!(reply["items"][0]["data"], "hi");
    assert_eq!(reply["position"], answer["position"], "of one channel, an item's position is the reader's");
    writer.send(r#"{"type":"publish","channel":"news","data":null}"#);
    assert_eq!(writer.item()["type"], "published");
    assert_eq!(reader.item()["data"], "null", "any JSON is a message");
    reader.0.send(Message::binary(vec![0xff, 0])).expect("sent");
    let items = [reader.item(), reader.item()];
    assert!(items.iter().any(|item| item["type"] == "published"), "{items:?}");
    assert!(items.iter().any(|item| item["data_base64"] == "/wA="), "{items:?}");
}

#[test]
fn positions_resume_and_gaps_are_reported() {
    let mut config = config(2);
    config.history.messages_max = 2;
    let server = Local::start(config);
    let mut publisher = Client::connect(server.front);
    let first = publisher.publish("news", "0");
    for n in 1..=2 {
        publisher.publish("news", n.to_string());
    }
    let mut reader = Socket::open(server.front, &format!("/channels/news?after={first}"));
    assert_eq!([reader.item()["data"].clone(), reader.item()["data"].clone()], ["1", "2"]);
    for n in 3..=4 {
        publisher.publish("news", n.to_string());
    }
    let mut late = Socket::open(server.front, &format!("/channels/news?after={first}"));
    let gap = late.item();
    assert_eq!((&gap["type"], &gap["missed"]), (&"gap".into(), &2.into()));
    assert_eq!(late.item()["data"], "3");
}

#[test]
fn impossible_commands_are_answered_with_errors() {
    let mut config = config(1);
    config.limits.message_bytes_max = 10;
    let server = Local::start(config);
    let mut socket = Socket::open(server.front, "/channels/a,b");
    for (message, code, reference) in [
        ("{", "bad_command", Value::Null),
        (r#"{"type":"publish","channel":"a,b","data":"","ref":1}"#, "bad_channel", 1.into()),
        (r#"{"type":"publish","channel":"a","data":"12345678901","ref":2}"#, "message_too_large", 2.into()),
    ] {
        socket.send(message);
        let item = socket.item();
        assert_eq!(
            (&item["type"], &item["code"], &item["ref"]),
            (&"error".into(), &code.into(), &reference),
            "{message}"
        );
    }
    socket.0.send(Message::binary(vec![1])).expect("sent");
    assert_eq!(socket.item()["code"], "bad_command", "of which channel?");
    socket.0.send(Message::text("x".repeat(100_000))).expect("sent");
    assert_eq!(socket.close_code(), CloseCode::Size);
}

#[test]
fn closing_sends_a_reason() {
    let server = Local::start(config(2));
    let mut admin = Client::connect(server.admin);
    let mut reader = Socket::open(server.front, "/channels/news");
    admin.ask("DELETE", "/channels/news", "");
    assert_eq!(admin.reply().status, 204);
    assert_eq!(reader.item()["type"], "close");
    assert_eq!(reader.close_code(), CloseCode::Normal);
    let mut reader = Socket::open(server.front, "/channels/news");
    server.stopper.stop();
    assert_eq!(reader.item()["type"], "bye");
    assert_eq!(reader.close_code(), CloseCode::Away);
    drop(reader);
    server.join();
}

#[test]
fn limits_close_a_websocket_with_a_reason() {
    let mut config = config(1);
    config.limits.channels_max = 1;
    config.limits.subscribers_max = 2;
    let server = Local::start(config);
    let mut first = Socket::open(server.front, "/channels/a");
    let mut other = Socket::try_open(server.front, "/channels/b", &[]).expect("handed over");
    assert_eq!(other.item()["code"], "channel_limit");
    assert_eq!(other.close_code(), CloseCode::Again);
    drop(other);
    let _second = Socket::open(server.front, "/channels/a");
    let mut third = Socket::try_open(server.front, "/channels/a", &[]).expect("handed over");
    assert_eq!(third.item()["code"], "subscriber_limit");
    first.send(r#"{"type":"publish","channel":"a","data":"still here"}"#);
    let items = [first.item(), first.item()];
    assert!(items.iter().any(|item| item["data"] == "still here"), "{items:?}");
}

#[test]
fn pages_of_other_origins_must_be_listed() {
    let start = |origins: &[&str]| {
        let mut config: Config = config(1);
        config.front.origins = origins.iter().map(|origin| (*origin).to_owned()).collect();
        Local::start(config)
    };
    let status = |address, origin: &str| match Socket::try_open(address, "/channels/a", &[("origin", origin)]) {
        Ok(_) => 101,
        Err(error) => match *error {
            Error::Http(response) => response.status().as_u16(),
            other => panic!("{other}"),
        },
    };
    let server = start(&["https://a.example"]);
    assert_eq!(status(server.front, "https://a.example"), 101);
    assert_eq!(status(server.front, "https://b.example"), 403);
    assert_eq!(status(server.front, "null"), 403);
    assert_eq!(status(server.front, &format!("http://{}", server.front)), 101, "its own pages");
    assert_eq!(status(server.admin, "https://a.example"), 403, "no business with the admin listener");
    let open = start(&["*"]);
    assert_eq!(status(open.front, "https://b.example"), 101);
    assert_eq!(status(open.admin, "https://b.example"), 403);
}

#[test]
fn every_message_of_a_flood_on_one_websocket_is_answered_in_order() {
    let server = Local::start(config(3));
    let mut socket = Socket::open(server.front, "/channels/a");
    let count = 500;
    for n in 0..count {
        socket
            .0
            .write(Message::text(format!(r#"{{"type":"publish","channel":"b{n}","data":"x","ref":{n}}}"#)))
            .expect("room");
    }
    socket.0.flush().expect("sent");
    let mut answered: Vec<i64> = (0..count).map(|_| socket.item()["ref"].as_i64().expect("a reference")).collect();
    answered.sort_unstable();
    assert_eq!(answered, (0..count).collect::<Vec<_>>());
}

#[test]
fn a_closed_websocket_is_forgotten() {
    let server = Local::start(config(1));
    let mut admin = Client::connect(server.admin);
    let mut socket = Socket::open(server.front, "/channels/a");
    assert!(admin.get("/info?cname=a").text().contains("\"subscribers\": 1"));
    socket.0.close(None).expect("closing");
    while socket.0.read().is_ok() {}
    wait_until("it is gone", || admin.get("/info?cname=a").text().contains("\"subscribers\": 0"));
}

#[test]
fn binary_messages_are_published_though_presence_is_read_too() {
    let server = Local::start(config(2));
    let mut socket = Socket::open(server.front, "/channels/news?presence=1");
    socket.0.send(Message::binary(b"plain".to_vec())).expect("sent");
    let types = [socket.item(), socket.item()].map(|item| item["type"].clone());
    assert!(types.contains(&"message".into()) && types.contains(&"published".into()), "{types:?}");
}

#[test]
fn a_published_message_may_have_a_type_and_a_key() {
    let server = Local::start(config(1));
    let mut socket = Socket::open(server.front, "/channels/news");
    for reference in [1, 2] {
        socket.send(&format!(
            r#"{{"type":"publish","channel":"news","data":{{"n":1}},"event":"T","ttl":60,"key":"k","ref":{reference}}}"#
        ));
    }
    let mut items = [socket.item(), socket.item(), socket.item()];
    items.sort_by_key(|item| item["ref"].as_i64());
    let [message, first, again] = items;
    assert_eq!((&message["data"], &message["event"]), (&r#"{"n":1}"#.into(), &"T".into()));
    assert_eq!((&first["position"], &again["position"]), (&message["position"], &message["position"]));
}
