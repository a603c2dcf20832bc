//! What a loop promises about its connections, on real sockets.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use sealed::{Address, CloseReason, Config, ConnectionId, Context, EventLoop, Input, ListenerId, Service, Stopper};

const PATIENCE: Duration = Duration::from_secs(60);

/// A call of a test's service.
#[derive(Debug, PartialEq, Eq)]
enum Call {
    Accepted(ConnectionId),
    Received(ConnectionId, Vec<u8>),
    Ended(ConnectionId),
    Drained(ConnectionId),
    Closed(ConnectionId, CloseReason),
    Answer(String),
}

/// What a test makes its service do.
type Order = Box<dyn FnOnce(&mut Context<Puppet>) -> Option<String> + Send>;

/// A service that does what the test orders, and reports its calls.
struct Puppet {
    calls: Sender<Call>,
    /// Returns how much of the input it takes. The rest is left.
    take: fn(usize) -> usize,
}

impl Puppet {
    fn report(&self, call: Call) {
        // A test that has ended no longer receives.
        let _ = self.calls.send(call);
    }
}

impl Service for Puppet {
    type Connection = u8;
    type Message = Order;
    type Timer = ();

    fn accepted(&mut self, _: &mut Context<Self>, id: ConnectionId, _: ListenerId, _: &Address) {
        self.report(Call::Accepted(id));
    }

    fn received(&mut self, _: &mut Context<Self>, id: ConnectionId, input: &mut Input<'_>) {
        self.report(Call::Received(id, input.bytes().to_vec()));
        input.take((self.take)(input.len()));
    }

    fn ended(&mut self, cx: &mut Context<Self>, id: ConnectionId) {
        self.report(Call::Ended(id));
        cx.close(id);
    }

    fn drained(&mut self, _: &mut Context<Self>, id: ConnectionId) {
        self.report(Call::Drained(id));
    }

    fn closed(&mut self, cx: &mut Context<Self>, id: ConnectionId, _: u8, reason: CloseReason) {
        // Nothing can be sent any more. The attempt does no harm.
        cx.write(id, b"too late");
        self.report(Call::Closed(id, reason));
    }

    fn message(&mut self, cx: &mut Context<Self>, order: Order) {
        if let Some(answer) = order(cx) {
            self.report(Call::Answer(answer));
        }
    }
}

struct Stage {
    address: Address,
    mailbox: sealed::Mailbox<Order>,
    calls: Receiver<Call>,
    stopper: Stopper,
    thread: Option<JoinHandle<sealed::Result<()>>>,
}

impl Stage {
    fn new(config: Config, take: fn(usize) -> usize) -> Self {
        let (sender, calls) = mpsc::channel();
        let (ready, waiting) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut event_loop = EventLoop::new(config, Puppet { calls: sender, take })?;
            let address = event_loop.listen("127.0.0.1:0")?.address;
            ready.send((address, event_loop.mailbox(), event_loop.stopper())).expect("the test waits");
            event_loop.run()
        });
        let (address, mailbox, stopper) = waiting.recv_timeout(PATIENCE).expect("the loop starts");
        Self { address, mailbox, calls, stopper, thread: Some(thread) }
    }

    fn connect(&self) -> (TcpStream, ConnectionId) {
        let stream = TcpStream::connect(&self.address).expect("connected");
        stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
        loop {
            if let Call::Accepted(id) = self.next() {
                return (stream, id);
            }
        }
    }

    fn next(&self) -> Call {
        self.calls.recv_timeout(PATIENCE).expect("something happens")
    }

    fn next_closed(&self) -> (ConnectionId, CloseReason) {
        loop {
            if let Call::Closed(id, reason) = self.next() {
                return (id, reason);
            }
        }
    }

    fn order(&self, order: impl FnOnce(&mut Context<Puppet>) + Send + 'static) {
        let order: Order = Box::new(move |cx| {
            order(cx);
            None
        });
        assert!(self.mailbox.post(order).is_ok());
    }

    fn ask(&self, question: impl FnOnce(&mut Context<Puppet>) -> String + Send + 'static) -> String {
        assert!(self.mailbox.post(Box::new(move |cx| Some(question(cx)))).is_ok());
        loop {
            if let Call::Answer(answer) = self.next() {
                return answer;
            }
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.stopper.stop();
        self.stopper.stop();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            if !std::thread::panicking() {
                ended.expect("no panic").expect("a good end");
            }
        }
    }
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n % 251) as u8).collect()
}

#[test]
fn output_that_a_slow_reader_cannot_take_arrives_later_in_order() {
    let stage = Stage::new(Config::default(), |length| length);
    let (mut stream, id) = stage.connect();
    // Copied and shared pieces in turn, small and large, far more than the kernel takes at once.
    let whole = pattern(12_000_000);
    let pieces = whole.clone();
    stage.order(move |cx| {
        let (mut at, mut size) = (0, 1);
        while at < pieces.len() {
            let end = pieces.len().min(at + size);
            match size % 3 {
                0 => cx.write(id, &pieces[at..end]),
                1 => cx.write_bytes(id, Bytes::copy_from_slice(&pieces[at..end])),
                _ => cx.write_through(id, &[Bytes::copy_from_slice(&pieces[at..end])]),
            };
            (at, size) = (end, (size * 7) % 50_021 + 1);
        }
        assert!(cx.queued(id) > 0, "the kernel cannot have taken all of it");
    });
    let mut read = vec![0; whole.len()];
    stream.read_exact(&mut read).expect("all of it");
    assert!(read == whole, "every byte, in order");
    assert_eq!(stage.next(), Call::Drained(id));
    assert_eq!(stage.ask(move |cx| cx.queued(id).to_string()), "0");
}

#[test]
fn a_stale_id_finds_nothing_after_its_slot_is_reused() {
    let stage = Stage::new(Config::default(), |length| length);
    let (stream, old) = stage.connect();
    drop(stream);
    assert_eq!(stage.next_closed(), (old, CloseReason::Ended), "by the service, after the peer");
    let (mut stream, new) = stage.connect();
    assert_ne!(old, new);
    let found = stage.ask(move |cx| {
        cx.write(old, b"for another");
        cx.close(old);
        cx.abort(old);
        cx.set_deadline(old, Duration::ZERO);
        cx.write(new, b"for you");
        format!("{:?} {:?}", cx.state(old), cx.state(new))
    });
    assert_eq!(found, "None Some(0)");
    let mut text = [0; 7];
    stream.read_exact(&mut text).expect("text");
    assert_eq!(&text, b"for you");
}

#[test]
fn limits_of_zero_count_as_one() {
    let config = Config {
        read_buffer_bytes: 0,
        read_bytes_per_tick: 0,
        accepts_per_tick: 0,
        messages_per_tick: 0,
        input_bytes_max: 0,
        ..Config::default()
    };
    let stage = Stage::new(config, |length| length);
    let (mut stream, id) = stage.connect();
    stream.write_all(b"hello").expect("sent");
    for byte in b"hello" {
        assert_eq!(stage.next(), Call::Received(id, vec![*byte]));
    }
    stage.order(move |cx| assert!(cx.write(id, b"!")));
    stream.read_exact(&mut [0]).expect("a message was delivered");
}

#[test]
fn closed_is_called_once_and_last_with_its_reason() {
    let config = Config { output_bytes_max: 1_000_000, ..Config::default() };
    let stage = Stage::new(config, |length| length);
    let (stream, peer_closes) = stage.connect();
    drop(stream);
    assert_eq!(stage.next_closed(), (peer_closes, CloseReason::Ended), "by the service, after the peer");

    let (mut stream, service_closes) = stage.connect();
    stage.order(move |cx| {
        cx.close(service_closes);
        cx.close(service_closes);
    });
    assert_eq!(stream.read(&mut [0]).expect("the end"), 0);
    drop(stream);
    assert_eq!(stage.next_closed(), (service_closes, CloseReason::Closed));

    let (_stream, aborted) = stage.connect();
    stage.order(move |cx| {
        cx.abort(aborted);
        cx.abort(aborted);
        cx.close(aborted);
    });
    assert_eq!(stage.next_closed(), (aborted, CloseReason::Aborted));

    let (_stream, late) = stage.connect();
    stage.order(move |cx| {
        cx.set_deadline(late, Duration::from_secs(3_600));
        cx.set_deadline(late, Duration::from_millis(5));
    });
    assert_eq!(stage.next_closed(), (late, CloseReason::TimedOut));

    let (_stream, full) = stage.connect();
    stage.order(move |cx| assert!(!cx.write(full, &vec![0; 1_000_001])));
    assert_eq!(stage.next_closed(), (full, CloseReason::OutputFull));

    let (stream, reset) = stage.connect();
    // Unread bytes make the kernel reset the connection.
    stage.order(move |cx| assert!(cx.write(reset, b"unread")));
    stream.peek(&mut [0]).expect("it has come");
    drop(stream);
    let (id, reason) = stage.next_closed();
    assert_eq!(id, reset);
    assert!(matches!(reason, CloseReason::Failed(_)), "{reason:?}");

    let (_stream, down) = stage.connect();
    stage.stopper.stop();
    stage.stopper.stop();
    let (id, reason) = stage.next_closed();
    assert_eq!(id, down);
    assert!(matches!(reason, CloseReason::Shutdown | CloseReason::Closed), "{reason:?}");
    assert!(stage.calls.recv_timeout(PATIENCE).is_err(), "nothing comes behind the last");
}

#[test]
fn a_refused_connection_is_closed_as_not_connected() {
    let stage = Stage::new(Config::default(), |length| length);
    let nobody = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("an address")
    };
    stage.order(move |cx| drop(cx.connect(nobody, 7)));
    let (_, reason) = stage.next_closed();
    assert_eq!(reason, CloseReason::NotConnected(std::io::ErrorKind::ConnectionRefused));
}

#[test]
fn closing_delivers_the_last_bytes_to_a_peer_that_still_sends() {
    let stage = Stage::new(Config::default(), |length| length);
    for _ in 0..20 {
        let (mut stream, id) = stage.connect();
        let mut sender = stream.try_clone().expect("a handle");
        let sending = std::thread::spawn(move || {
            // Until the other side hangs up.
            while sender.write_all(&[7; 10_000]).is_ok() {}
        });
        let last = pattern(300_000);
        let bytes = Bytes::from(last.clone());
        stage.order(move |cx| {
            cx.write_bytes(id, bytes);
            cx.close(id);
        });
        let mut read = Vec::new();
        stream.read_to_end(&mut read).expect("no reset before the end");
        assert!(read == last);
        stream.shutdown(Shutdown::Both).expect("hung up");
        sending.join().expect("the sender");
    }
}

#[test]
fn untaken_input_is_shown_again_with_new_input_behind_it() {
    let stage = Stage::new(Config::default(), |length| length / 4 * 4);
    let (mut stream, id) = stage.connect();
    let mut shown = |sent: &[u8], expected: &[u8]| {
        stream.write_all(sent).expect("sent");
        assert_eq!(stage.next(), Call::Received(id, expected.to_vec()));
    };
    shown(b"ab", b"ab");
    shown(b"c", b"abc");
    shown(b"defghi", b"abcdefghi");
    shown(b"j", b"ij");
    // `resume` shows it again although nothing new has come.
    stage.order(move |cx| cx.resume(id));
    assert_eq!(stage.next(), Call::Received(id, b"ij".to_vec()));
}

#[test]
fn a_half_closed_peer_can_still_be_answered() {
    let stage = Stage::new(Config::default(), |length| length);
    let (mut stream, id) = stage.connect();
    stream.write_all(b"question").expect("sent");
    stream.shutdown(Shutdown::Write).expect("half closed");
    assert_eq!(stage.next(), Call::Received(id, b"question".to_vec()));
    assert_eq!(stage.next(), Call::Ended(id));
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).expect("the end");
    assert_eq!(stage.next_closed().0, id);
}

#[test]
fn untaken_input_and_pausing_stop_the_reading() {
    let config = Config { input_bytes_max: 1_000, ..Config::default() };
    let stage = Stage::new(config, |_| 0);
    let (mut stream, id) = stage.connect();
    stream.write_all(&[1; 600]).expect("sent");
    assert_eq!(stage.next(), Call::Received(id, vec![1; 600]));
    stream.write_all(&[2; 600]).expect("sent");
    let Call::Received(_, bytes) = stage.next() else { panic!("input") };
    assert_eq!(bytes.len(), 1_000, "as much as there is room for");
    assert_eq!(stage.ask(move |cx| cx.stats().bytes_received.to_string()), "1000");

    let stage = Stage::new(Config::default(), |length| length);
    let (mut stream, id) = stage.connect();
    stage.ask(move |cx| {
        cx.pause(id);
        String::new()
    });
    stream.write_all(b"hello").expect("sent");
    // More than two ticks: the loop would have read it by now.
    for _ in 0..3 {
        assert_eq!(stage.ask(move |cx| cx.stats().bytes_received.to_string()), "0");
    }
    stage.order(move |cx| cx.resume(id));
    assert_eq!(stage.next(), Call::Received(id, b"hello".to_vec()));
}

#[test]
fn a_flood_on_one_connection_does_not_starve_another() {
    let stage = Stage::new(Config::default(), |length| length);
    let (mut flood, flooding) = stage.connect();
    let (mut stream, id) = stage.connect();
    let bytes = vec![9; 100_000];
    let sending = std::thread::spawn(move || while flood.write_all(&bytes).is_ok() {});
    for _ in 0..50 {
        stream.write_all(b"x").expect("sent");
        loop {
            if let Call::Received(from, bytes) = stage.next()
                && from == id
            {
                assert_eq!(bytes, b"x");
                break;
            }
        }
    }
    stage.order(move |cx| cx.abort(flooding));
    sending.join().expect("the flood");
}
