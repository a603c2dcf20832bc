//! Heap allocations of the common path: decoding makes none; an exchange on a kept connection makes
//! only those of its response.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use allocation_counter::measure;
use sealed::{Config, ConnectionId, EventLoop};
use sealed_http::codec::{Asked, DecodeError, Event, Limits, RequestDecoder, ResponseDecoder, ResponseEvent};
use sealed_http::{Handler, Http, Request, Response, Server, Settings};

const REQUEST: &[u8] = b"POST /channels/news?after=latest HTTP/1.1\r\nHost: comet.example\r\nUser-Agent: test\r\n\
    Accept: */*\r\nContent-Length: 5\r\n\r\nhello";
const CHUNKED: &[u8] = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";

/// Decodes a request to its end.
fn decode(mut input: &[u8]) -> Result<usize, DecodeError> {
    let (mut decoder, mut body) = (RequestDecoder::new(), 0);
    loop {
        let (used, event) = decoder.decode(input, &Limits::default())?;
        input = &input[used..];
        match event {
            Event::Data(data) => body += data.len(),
            Event::End => return Ok(body),
            _ => {}
        }
    }
}

/// Decodes a response to its end.
fn decode_response(mut input: &[u8]) -> Result<usize, DecodeError> {
    let (mut decoder, mut body) = (ResponseDecoder::new(), 0);
    loop {
        let (used, event) = decoder.decode(input, Asked::Other, &Limits::default())?;
        input = &input[used..];
        match event {
            ResponseEvent::Data(data) => body += data.len(),
            ResponseEvent::End => return Ok(body),
            _ => {}
        }
    }
}

#[test]
fn the_counter_counts() {
    assert_eq!(measure(|| drop(std::hint::black_box(vec![1_u8; 10]))).count_total, 1);
}

#[test]
fn decoding_allocates_nothing() {
    for request in [REQUEST, CHUNKED] {
        let info = measure(|| assert_eq!(decode(request).expect("a request"), 5));
        assert_eq!(info.count_total, 0, "{}", String::from_utf8_lossy(request));
    }
    for rest in ["Content-Length: 5\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"] {
        let response = format!("HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n{rest}");
        let info = measure(|| assert_eq!(decode_response(response.as_bytes()).expect("a response"), 5));
        assert_eq!(info.count_total, 0, "{response}");
    }
}

struct Hello;

impl Handler for Hello {
    type Connection = ();
    type Message = ();
    type Timer = ();

    fn request(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, request: &Request<'_>) {
        assert_eq!(request.body, b"hello");
        http.respond(id, &Response::new(200).header("Content-Type", "text/plain").body("hi"));
    }
}

#[test]
fn an_exchange_allocates_only_the_fields_of_its_response() {
    let mut event_loop = EventLoop::new(Config::default(), Server::new(Settings::default(), Hello)).expect("a loop");
    let address = event_loop.listen("127.0.0.1:0").expect("an address").address.inet().expect("one of TCP");
    let mut client = TcpStream::connect(address).expect("connected");
    client.set_nonblocking(true).expect("a setting");
    let mut exchange = || {
        client.write_all(REQUEST).expect("sent");
        let mut answer = [0; 1_024];
        loop {
            event_loop.turn(Some(Duration::from_millis(10))).expect("a tick");
            if let Ok(length) = client.read(&mut answer) {
                return assert!(answer[..length].ends_with(b"\r\n\r\nhi"));
            }
        }
    };
    // The first exchanges allocate buffers and render the date.
    for _ in 0..3 {
        exchange();
    }
    let fewest = (0..20).map(|_| measure(&mut exchange).count_total).min().expect("some");
    assert_eq!(fewest, 1, "the list of the response's header fields, and nothing of the server's");
}
