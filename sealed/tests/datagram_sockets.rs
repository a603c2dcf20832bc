//! Datagram sockets of the operating system.

mod common;

use std::io::ErrorKind;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use common::datagrams::Log;
use sealed::{Address, Config, Datagram, DatagramError, DatagramId, EventLoop, Multicast, SendError, Sent};

const PATIENCE: Duration = Duration::from_secs(60);

/// A loop that the test turns.
struct Node(EventLoop<Log>);

impl Node {
    fn new(log: Log) -> Self {
        Self(EventLoop::new(Config::default(), log).expect("a loop"))
    }

    fn echo() -> Self {
        Self::new(Log { echoes: true, ..Log::default() })
    }

    fn bind(&mut self, datagram: impl Into<Datagram>) -> (DatagramId, Address) {
        let (_, cx) = self.0.parts();
        let socket = cx.bind_datagram(datagram).expect("it can be opened");
        (socket, cx.datagram_addr(socket).expect("an address"))
    }

    fn send(&mut self, socket: DatagramId, bytes: &[u8]) -> Result<Sent, SendError> {
        self.0.parts().1.send(socket, bytes)
    }

    fn send_to(&mut self, socket: DatagramId, to: &Address, bytes: &[u8]) -> Result<Sent, SendError> {
        self.0.parts().1.send_to(socket, to, bytes)
    }

    /// Turns the loop until the service satisfies the condition.
    fn turn_until(&mut self, condition: impl Fn(&Log) -> bool) {
        let start = Instant::now();
        while !condition(self.0.service()) {
            assert!(start.elapsed() < PATIENCE, "the condition holds in time");
            assert!(self.0.turn(Some(Duration::from_millis(100))).expect("a good tick"));
        }
    }

    fn turn_until_received(&mut self, count: usize) -> Vec<(DatagramId, Address, Vec<u8>)> {
        self.turn_until(|log| log.received.len() >= count);
        std::mem::take(&mut self.0.parts().0.received)
    }
}

fn udp(address: &str) -> (UdpSocket, Address) {
    let socket = UdpSocket::bind(address).expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let address = Address::Inet(socket.local_addr().expect("an address"));
    (socket, address)
}

fn receive(socket: &UdpSocket) -> (Vec<u8>, Address) {
    let mut buffer = vec![0; 65_536];
    let (count, from) = socket.recv_from(&mut buffer).expect("a datagram");
    buffer.truncate(count);
    (buffer, Address::Inet(from))
}

fn answers_over(ip: &str) {
    let mut node = Node::echo();
    let (_, server) = node.bind((ip, 0));
    let (client, _) = udp(&format!("{}:0", if ip.contains(':') { "[::1]" } else { ip }));
    for question in [&b"hello"[..], b"", &vec![7; 60_000]] {
        client.send_to(question, &server).expect("sent");
        node.turn_until_received(1);
        assert_eq!(receive(&client), (question.to_vec(), server.clone()));
    }
}

#[test]
fn datagrams_are_answered_over_ipv4() {
    answers_over("127.0.0.1");
}

#[test]
fn datagrams_are_answered_over_ipv6() {
    if UdpSocket::bind("[::1]:0").is_err() {
        return eprintln!("this machine has no IPv6");
    }
    answers_over("::1");
}

#[test]
fn more_datagrams_than_a_tick_may_receive_all_arrive() {
    let config = Config { datagrams_per_tick: 3, ..Config::default() };
    let mut node = Node(EventLoop::new(config, Log::default()).expect("a loop"));
    let (_, server) = node.bind("127.0.0.1:0");
    let (client, _) = udp("127.0.0.1:0");
    for number in 0..100 {
        client.send_to(&[number], &server).expect("sent");
    }
    let received = node.turn_until_received(100);
    assert_eq!(received.iter().map(|(_, _, bytes)| bytes[0]).collect::<Vec<_>>(), (0..100).collect::<Vec<_>>());
    assert_eq!(node.0.service().in_tick_max, 3);
}

#[test]
fn a_connected_socket_hears_that_its_peer_does_not_exist_and_goes_on() {
    let (peer, address) = udp("127.0.0.1:0");
    drop(peer);
    let mut node = Node::new(Log::default());
    let (socket, _) = node.bind(Datagram::to(&address));
    assert_eq!(node.send(socket, b"too early").expect("nobody knows yet"), Sent::Taken);
    // The loop has not heard of the failure: the next datagram must not pay for it.
    let peer = UdpSocket::bind(address).expect("still free");
    assert_eq!(node.send(socket, b"in time").expect("not its failure"), Sent::Taken);
    assert_eq!(receive(&peer).0, b"in time");
    node.turn_until(|log| !log.failures.is_empty());
    let failures = &node.0.service().failures;
    assert!(
        matches!(&failures[..], [DatagramError::Failed(error)] if error.kind() == ErrorKind::ConnectionRefused),
        "{failures:?}"
    );
}

#[test]
fn a_datagram_longer_than_udp_has_is_an_error() {
    let mut node = Node::new(Log::default());
    let (socket, _) = node.bind("127.0.0.1:0");
    let (client, to) = udp("127.0.0.1:0");
    assert!(matches!(node.send_to(socket, &to, &vec![7; 65_508]), Err(SendError::TooLong)));
    assert!(matches!(node.send_to(socket, &to, &vec![7; 65_507]), Ok(Sent::Taken)));
    assert_eq!(receive(&client).0.len(), 65_507);
    assert!(matches!(node.send_to(socket, &Address::unix("/nowhere"), b"x"), Err(SendError::Failed(_))));
}

#[test]
fn a_received_datagram_over_the_limit_is_reported() {
    let mut node = Node::new(Log::default());
    let (_, server) = node.bind(Datagram::on("127.0.0.1:0").received_bytes_max(10));
    let (client, address) = udp("127.0.0.1:0");
    client.send_to(&[7; 11], &server).expect("sent");
    client.send_to(&[7; 10], &server).expect("sent");
    assert_eq!(node.turn_until_received(1)[0].2, [7; 10]);
    let failures = &node.0.service().failures;
    assert!(matches!(&failures[..], [DatagramError::TooLong { from }] if *from == address), "{failures:?}");
}

#[test]
fn a_group_reaches_its_member() {
    let group = Ipv4Addr::new(239, 255, 42, 42);
    let loopback = Multicast::V4 { group, interface: Ipv4Addr::LOCALHOST };
    let mut node = Node::new(Log::default());
    let Ok(member) = node.0.parts().1.bind_datagram(Datagram::on("0.0.0.0:0").join(loopback)) else {
        return eprintln!("the loopback interface of this machine has no multicast");
    };
    let port = node.0.parts().1.datagram_addr(member).and_then(|address| address.inet()).expect("an address").port();
    let sender = Datagram::on("127.0.0.1:0").multicast_interface(loopback).multicast_ttl(0).multicast_loop(true);
    let (sender, from) = node.bind(sender);
    let to = Address::Inet((group, port).into());
    let Ok(Sent::Taken) = node.send_to(sender, &to, b"to all") else {
        return eprintln!("the loopback interface of this machine has no multicast");
    };
    assert_eq!(node.turn_until_received(1), [(member, from, b"to all".to_vec())]);
    node.0.parts().1.leave_multicast(member, loopback).expect("it is in it");
}

#[cfg(unix)]
mod unix {
    use std::os::unix::net::UnixDatagram;
    use std::path::PathBuf;

    use super::*;

    /// A folder that is removed at the end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("sealed-datagrams-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).expect("a folder");
            Self(path)
        }

        fn socket(&self, name: &str) -> Address {
            Address::unix(self.0.join(name))
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn path(address: &Address) -> PathBuf {
        address.path().expect("a path").to_owned()
    }

    #[test]
    fn unix_datagrams_are_answered() {
        let folder = Folder::new("answered");
        let (server, client) = (folder.socket("server"), folder.socket("client"));
        let mut node = Node::echo();
        let (socket, bound) = node.bind(&server);
        assert_eq!(bound, server);
        let peer = UnixDatagram::bind(path(&client)).expect("a socket");
        peer.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        peer.send_to(b"hello", path(&server)).expect("sent");
        assert_eq!(node.turn_until_received(1), [(socket, client, b"hello".to_vec())]);
        let mut buffer = [0; 100];
        assert_eq!(peer.recv(&mut buffer).expect("an answer"), 5);
        assert!(node.0.parts().1.close_datagram(socket));
        assert!(!path(&server).exists(), "the file goes with the socket");
    }

    #[test]
    fn the_file_of_a_dead_process_is_replaced_and_that_of_a_live_one_is_not() {
        let folder = Folder::new("stale");
        let server = folder.socket("server");
        drop(UnixDatagram::bind(path(&server)).expect("a socket"));
        assert!(path(&server).exists(), "left behind");
        let mut node = Node::new(Log::default());
        node.bind(&server);
        let error = node.0.parts().1.bind_datagram(&server).expect_err("in use");
        let source = std::error::Error::source(&error).expect("a source").to_string();
        assert!(source.contains("in use"), "{source}");
    }

    #[test]
    fn a_reader_that_is_slow_costs_an_unconnected_socket_its_datagrams_only() {
        let folder = Folder::new("slow");
        let (slow, fast) = (folder.socket("slow"), folder.socket("fast"));
        let _slow = UnixDatagram::bind(path(&slow)).expect("a socket");
        let peer = UnixDatagram::bind(path(&fast)).expect("a socket");
        peer.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut node = Node::new(Log::default());
        let (socket, _) = node.bind("unix:");
        let dropped = (0..100_000).any(|_| node.send_to(socket, &slow, b"x").expect("it exists") == Sent::Dropped);
        assert!(dropped, "the reader has a limit");
        assert_eq!(node.send_to(socket, &fast, b"hello").expect("it exists"), Sent::Taken);
        assert_eq!(peer.recv(&mut [0; 10]).expect("a datagram"), 5);
        assert_eq!(node.0.parts().1.stats().datagrams_dropped, 1);
        drop(peer);
        assert!(matches!(node.send_to(socket, &fast, b"hello"), Err(SendError::Failed(_))));
    }

    #[test]
    fn what_a_connected_socket_queues_is_sent_when_its_peer_has_room() {
        let folder = Folder::new("connected");
        let slow = folder.socket("slow");
        let peer = UnixDatagram::bind(path(&slow)).expect("a socket");
        peer.set_nonblocking(true).expect("an option");
        let mut node = Node::new(Log::default());
        let (socket, _) = node.bind(Datagram::to(&slow));
        let mut sent = 0_u32;
        let mut send = |node: &mut Node| {
            let outcome = node.send(socket, &sent.to_be_bytes()).expect("it exists");
            sent += u32::from(outcome != Sent::Dropped);
            outcome
        };
        while send(&mut node) == Sent::Taken {}
        assert_eq!(send(&mut node), Sent::Queued);
        let start = Instant::now();
        let (mut received, mut buffer) = (0, [0; 10]);
        while received < sent {
            assert!(start.elapsed() < PATIENCE, "{received} of {sent}");
            match peer.recv(&mut buffer) {
                Ok(4) => {
                    assert_eq!(buffer[..4], received.to_be_bytes());
                    received += 1;
                }
                other => {
                    assert_eq!(other.expect_err("nothing now").kind(), ErrorKind::WouldBlock);
                    // Only an event ends this wait before its time.
                    node.0.turn(Some(PATIENCE)).expect("a good tick");
                }
            }
        }
        assert_eq!(node.0.parts().1.queued_datagrams(socket), 0);
    }
}
