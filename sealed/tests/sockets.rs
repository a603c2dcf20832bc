//! Unix sockets, adopted sockets, options, signals and watches: features that only the operating
//! system has.
#![cfg(unix)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use sealed::{
    Address, CloseReason, Config, Connect, ConnectionId, Context, EventLoop, Input, Listen, ListenerId, Pool, Service,
    SocketOptions, Spread, Stopper,
};

const PATIENCE: Duration = Duration::from_secs(60);

/// Sends back what it receives, and reports accepted, connected and closed connections, and
/// signals.
struct Echo(Sender<String>);

impl Service for Echo {
    type Connection = ();
    type Message = ();
    type Timer = ();

    fn accepted(&mut self, _: &mut Context<Self>, _: ConnectionId, _: ListenerId, peer: &Address) {
        let _ = self.0.send(format!("accepted {peer}"));
    }

    fn connected(&mut self, cx: &mut Context<Self>, id: ConnectionId) {
        let _ = self.0.send(format!("connected {}", cx.peer_addr(id).expect("a peer")));
    }

    fn received(&mut self, cx: &mut Context<Self>, id: ConnectionId, input: &mut Input<'_>) {
        cx.write(id, input.take_all());
    }

    fn closed(&mut self, _: &mut Context<Self>, _: ConnectionId, (): (), reason: CloseReason) {
        let _ = self.0.send(format!("closed {reason:?}"));
    }

    fn signalled(&mut self, _: &mut Context<Self>, signal: i32) {
        let _ = self.0.send(format!("signal {signal}"));
    }
}

/// A loop on a thread of its own.
struct Running {
    events: Receiver<String>,
    stopper: Stopper,
    thread: Option<thread::JoinHandle<()>>,
}

impl Running {
    fn start(prepare: impl FnOnce(&mut EventLoop<Echo>)) -> Self {
        let (sender, events) = mpsc::channel();
        let mut event_loop = EventLoop::new(Config::default(), Echo(sender)).expect("a loop");
        prepare(&mut event_loop);
        let stopper = event_loop.stopper();
        let thread = Some(thread::spawn(move || event_loop.run().expect("a good end")));
        Self { events, stopper, thread }
    }

    fn next(&self) -> String {
        self.events.recv_timeout(PATIENCE).expect("something happens")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stopper.stop();
        if let Some(thread) = self.thread.take() {
            assert!(thread.join().is_ok() || thread::panicking());
        }
    }
}

/// A path that no other test has. The file is removed at the end.
struct Path(PathBuf);

impl Path {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("sealed-{}-{}.sock", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Self(std::env::temp_dir().join(name))
    }
}

impl Drop for Path {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn echoes(mut stream: impl Read + Write) {
    stream.write_all(b"hello").expect("sent");
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).expect("answered");
    assert_eq!(&answer, b"hello");
}

#[test]
fn a_unix_socket_is_served_and_connected_to() {
    let path = Path::new();
    let server = Running::start(|event_loop| {
        let bound = event_loop.listen(format!("unix:{}", path.0.display())).expect("it is free").address;
        assert_eq!(bound, Address::unix(&path.0));
    });
    echoes(UnixStream::connect(&path.0).expect("connected"));
    assert_eq!(server.next(), "accepted unix:");
    assert_eq!(server.next(), "closed Ended");
    let client = Running::start(|event_loop| {
        let (_, cx) = event_loop.parts();
        let id = cx.connect(Address::unix(&path.0), ()).expect("started");
        cx.write(id, b"hello");
    });
    assert_eq!(client.next(), format!("connected unix:{}", path.0.display()));
    assert_eq!(server.next(), "accepted unix:");
}

#[test]
fn the_path_of_a_dead_server_is_taken_over_and_a_path_in_use_is_not() {
    let path = Path::new();
    drop(UnixListener::bind(&path.0).expect("bound"));
    assert!(path.0.exists(), "it stays when the server is gone");
    let server = Running::start(|event_loop| {
        event_loop.listen(Address::unix(&path.0)).expect("it is taken over");
    });
    let (sender, _events) = mpsc::channel();
    let mut second = EventLoop::new(Config::default(), Echo(sender)).expect("a loop");
    let error = second.listen(Address::unix(&path.0)).expect_err("it is in use");
    assert!(error.to_string().contains("unix:"), "{error}");
    drop(server);
    let file = Path::new();
    std::fs::write(&file.0, "not a socket").expect("written");
    second.listen(Address::unix(&file.0)).expect_err("a file is not replaced");
    assert_eq!(std::fs::read(&file.0).expect("it is there"), b"not a socket");
}

#[test]
fn the_file_of_a_unix_socket_is_removed_with_its_loop_unless_it_was_replaced() {
    let path = Path::new();
    let server = Running::start(|event_loop| {
        event_loop.listen(Address::unix(&path.0)).expect("it is free");
    });
    assert!(path.0.exists());
    drop(server);
    assert!(!path.0.exists(), "removed");
    let server = Running::start(|event_loop| {
        event_loop.listen(Address::unix(&path.0)).expect("it is free");
    });
    std::fs::remove_file(&path.0).expect("it was there");
    let _successor = UnixListener::bind(&path.0).expect("bound");
    drop(server);
    assert!(path.0.exists(), "that of another server stays");
}

#[test]
fn errors_name_the_requested_addresses() {
    let (sender, _events) = mpsc::channel();
    let mut event_loop = EventLoop::new(Config::default(), Echo(sender)).expect("a loop");
    let (_, cx) = event_loop.parts();
    let error = cx.listen("127.0.0.1:eighty").expect_err("not a port").to_string();
    assert_eq!(error, "cannot listen on 127.0.0.1:eighty");
    let error = cx.connect("nowhere", ()).expect_err("no port").to_string();
    assert_eq!(error, "cannot connect to nowhere");
    let error = cx.connect(Connect::to_any(["nowhere", "unix:/nowhere.sock"]), ()).expect_err("no socket").to_string();
    assert_eq!(error, "cannot connect to nowhere, unix:/nowhere.sock");
    assert_eq!(cx.connections(), 0);
}

#[test]
fn sockets_made_elsewhere_are_adopted() {
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
    let at = tcp.local_addr().expect("an address");
    let dialled = TcpStream::connect(at).expect("connected");
    let (accepted, _) = tcp.accept().expect("accepted");
    let running = Running::start(|event_loop| {
        let (_, cx) = event_loop.parts();
        cx.adopt(ours, ()).expect("adopted");
        cx.adopt(accepted, ()).expect("adopted");
        let bound = cx.adopt_listener(tcp, Listen::on(at)).expect("adopted");
        assert_eq!(bound.address, Address::Inet(at));
        assert_eq!(cx.listen_addr(bound.listener), Some(Address::Inet(at)));
    });
    echoes(&theirs);
    echoes(&dialled);
    let late = TcpStream::connect(at).expect("connected");
    echoes(&late);
    assert_eq!(running.next(), format!("accepted {}", late.local_addr().expect("an address")));
    // A loop that shuts down waits for the other ends.
    drop((theirs, dialled, late));
}

#[test]
fn options_are_set_on_the_sockets_that_they_are_for() {
    let (sender, _events) = mpsc::channel();
    let options = SocketOptions { no_delay: false, send_buffer_bytes: Some(32 * 1024), ..SocketOptions::default() };
    let mut event_loop = EventLoop::new(Config::default(), Echo(sender)).expect("a loop");
    let (_, cx) = event_loop.parts();
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
    let kept = tcp.try_clone().expect("a clone");
    let at = tcp.local_addr().expect("an address");
    cx.adopt_listener(tcp, Listen::on(at).socket(options)).expect("adopted");
    let socket = socket2::SockRef::from(&kept);
    // Linux doubles the size, for its own use.
    assert!((32 * 1024..=64 * 1024).contains(&socket.send_buffer_size().expect("a size")));
    assert!(!socket.tcp_nodelay().expect("an option"));
    let (one, other) = (TcpStream::connect(at).expect("connected"), kept.accept().expect("accepted").0);
    let clone = other.try_clone().expect("a clone");
    cx.adopt(other, ()).expect("adopted");
    assert!(clone.nodelay().expect("an option"), "the loop's own options");
    drop(one);
}

#[test]
fn names_with_several_addresses_are_listened_on_and_connected_to() {
    let mut bound = None;
    let server = Running::start(|event_loop| {
        bound = event_loop.listen("localhost:0").expect("a port").address.inet();
    });
    let bound = bound.expect("TCP");
    let client = Running::start(|event_loop| {
        let (_, cx) = event_loop.parts();
        // Nothing listens on the first address.
        let nobody = TcpListener::bind("127.0.0.1:0").and_then(|held| held.local_addr()).expect("a port");
        cx.connect(Connect::to_any([nobody, bound]), ()).expect("started");
    });
    assert_eq!(client.next(), format!("connected {bound}"));
    assert!(server.next().starts_with("accepted "));
}

#[test]
fn signals_are_delivered_and_counts_are_readable_from_outside() {
    // SIGWINCH: it has no effect on a process that does not handle it.
    const WINDOW_CHANGED: i32 = 28;
    let mut watch = None;
    let running = Running::start(|event_loop| {
        event_loop.deliver_signals(&[WINDOW_CHANGED, WINDOW_CHANGED]).expect("caught");
        watch = Some(event_loop.watch());
        let at = event_loop.listen("127.0.0.1:0").expect("a port").address;
        let client = TcpStream::connect(at).expect("connected");
        thread::spawn(move || echoes(client));
    });
    assert!(running.next().starts_with("accepted "));
    assert_eq!(running.next(), "closed Ended");
    let sent = std::process::Command::new("kill").args(["-WINCH", &std::process::id().to_string()]).status();
    assert!(sent.expect("kill runs").success());
    assert_eq!(running.next(), format!("signal {WINDOW_CHANGED}"));
    let stats = watch.expect("it was taken").stats();
    assert_eq!((stats.accepted, stats.closed, stats.connections), (1, 1, 0));
    assert_eq!((stats.bytes_received, stats.bytes_sent), (5, 5));
    assert!(stats.ticks > 0 && stats.tick_lengths.count() > 0);
    assert!(stats.tick_lengths.quantile(1.0) >= stats.tick_lengths.quantile(0.5));
}

#[test]
fn a_pinned_pool_that_hands_connections_over_serves_on_every_loop() {
    let (sender, events) = mpsc::channel();
    let mut pool = Pool::new(Config::default(), 3.try_into().ok()).expect("a pool");
    pool.spread(Spread::LeastLoaded);
    pool.pin(true);
    let at = pool.listen(std::net::SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port").address;
    let (watches, stopper) = (pool.watches(), pool.stopper());
    let thread = thread::spawn(move || pool.run(move |_| Echo(sender.clone())));
    let clients: Vec<_> = (0..9).map(|_| TcpStream::connect(&at).expect("connected")).collect();
    for client in &clients {
        echoes(client);
        assert!(events.recv_timeout(PATIENCE).expect("an event").starts_with("accepted "));
    }
    assert!(watches.iter().all(|watch| watch.stats().connections == 3), "{watches:?}");
    drop(clients);
    stopper.stop();
    thread.join().expect("no panic").expect("a good end");
}
