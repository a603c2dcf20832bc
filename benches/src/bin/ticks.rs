//! Measures how late a server with a fixed rate sends its frames: a loop of sealed, and a runtime
//! of tokio on one thread, in turn, each with the same clients.
//!
//!     cargo run --release -p benches --bin ticks -- [CLIENTS] [SECONDS]
//!
//! Lateness is the time from when a frame was due until it has been passed to the kernel for the
//! last client. A frame is due at its time after the frame that was begun earliest.

use std::io::{self, Read};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant};

use sealed::{Address, Config, ConnectionId, Context, EventLoop, Input, ListenerId, Service, TimerId};

const PERIOD: Duration = Duration::from_nanos(1_000_000_000 / 60);
const FRAME: &[u8] = &[7; 200];
/// Clients that one thread of this program reads for.
const CLIENTS_PER_THREAD: usize = 500;

/// The times of all frames.
#[derive(Default)]
struct Rhythm {
    /// For each frame its number, and when it was begun and sent.
    frames: Vec<(u32, Instant, Instant)>,
}

impl Rhythm {
    /// Records that a frame has been sent. Returns the number of frames so far.
    fn sent(&mut self, begun: Instant) -> usize {
        let number = self.frames.last().map_or(0, |(number, before, _)| {
            // A server that is late may skip frames.
            let periods = ((begun - *before) + PERIOD / 2).as_nanos() / PERIOD.as_nanos();
            number + u32::try_from(periods).unwrap_or(u32::MAX).max(1)
        });
        self.frames.push((number, begun, Instant::now()));
        self.frames.len()
    }

    /// Returns how late each frame was, if the frame that was begun earliest was due at once.
    fn lateness(&self) -> Vec<Duration> {
        let Some((_, first, _)) = self.frames.first() else { return Vec::new() };
        let offset = |(number, begun, _): &(u32, Instant, Instant)| {
            (*begun - *first).as_secs_f64() - PERIOD.as_secs_f64() * f64::from(*number)
        };
        let earliest = self.frames.iter().map(offset).fold(f64::INFINITY, f64::min);
        let late = |frame: &(u32, Instant, Instant)| offset(frame) - earliest + (frame.2 - frame.1).as_secs_f64();
        self.frames.iter().map(|frame| Duration::from_secs_f64(late(frame))).collect()
    }
}

struct Game {
    clients: usize,
    frames: usize,
    rhythm: Rhythm,
    done: Sender<Vec<Duration>>,
}

impl Service for Game {
    type Connection = ();
    type Message = ();
    type Timer = ();

    fn accepted(&mut self, cx: &mut Context<Self>, _: ConnectionId, _: ListenerId, _: &Address) {
        if cx.connections() == self.clients {
            cx.set_interval(PERIOD, ());
        }
    }

    fn received(&mut self, _: &mut Context<Self>, _: ConnectionId, input: &mut Input<'_>) {
        input.take_all();
    }

    fn expired(&mut self, cx: &mut Context<Self>, _: TimerId, (): ()) {
        let begun = Instant::now();
        let frame = [bytes::Bytes::from_static(FRAME)];
        for id in cx.connection_ids() {
            cx.write_through(id, &frame);
        }
        if self.rhythm.sent(begun) == self.frames {
            // This fails only if the program is ending.
            let _ = self.done.send(self.rhythm.lateness());
            cx.stop();
        }
    }

    fn draining(&mut self, cx: &mut Context<Self>, _: Duration) {
        cx.close_all();
    }
}

fn run_sealed(clients: usize, frames: usize) -> io::Result<Vec<Duration>> {
    let (done, outcome) = mpsc::channel();
    let config = Config { connections_max: clients, ..Config::default() };
    let mut event_loop =
        EventLoop::new(config, Game { clients, frames, rhythm: Rhythm::default(), done }).map_err(io::Error::other)?;
    let address = event_loop.listen("127.0.0.1:0").map_err(io::Error::other)?.address;
    let address = address.inet().ok_or(io::ErrorKind::AddrNotAvailable)?;
    let readers = read_as_clients(address, clients);
    event_loop.run().map_err(io::Error::other)?;
    drop(event_loop);
    join(readers)?;
    outcome.recv().map_err(io::Error::other)
}

fn run_tokio(clients: usize, frames: usize) -> io::Result<Vec<Duration>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (lateness, readers) = runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let readers = read_as_clients(listener.local_addr()?, clients);
        let mut streams = Vec::new();
        while streams.len() < clients {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            streams.push(stream);
        }
        let mut rhythm = Rhythm::default();
        let mut interval = tokio::time::interval_at(tokio::time::Instant::now() + PERIOD, PERIOD);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            interval.tick().await;
            let begun = Instant::now();
            for stream in &streams {
                match stream.try_write(FRAME) {
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
            if rhythm.sent(begun) == frames {
                return io::Result::Ok((rhythm.lateness(), readers));
            }
        }
    })?;
    drop(runtime);
    join(readers)?;
    Ok(lateness)
}

/// Connects the clients, which read until the server ends.
fn read_as_clients(address: SocketAddr, clients: usize) -> Vec<thread::JoinHandle<io::Result<()>>> {
    let counts = (0..clients).step_by(CLIENTS_PER_THREAD).map(move |begun| (clients - begun).min(CLIENTS_PER_THREAD));
    let read = move |count| {
        let mut streams = (0..count).map(|_| TcpStream::connect(address)).collect::<io::Result<Vec<_>>>()?;
        let mut frame = [0; FRAME.len()];
        // Each client in turn gets one frame of each tick.
        while streams.iter_mut().all(|stream| stream.read_exact(&mut frame).is_ok()) {}
        Ok(())
    };
    counts.map(|count| thread::spawn(move || read(count))).collect()
}

fn join(readers: Vec<thread::JoinHandle<io::Result<()>>>) -> io::Result<()> {
    readers.into_iter().try_for_each(|reader| reader.join().map_err(|_| io::Error::other("a client panicked"))?)
}

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1).filter_map(|argument| argument.parse::<usize>().ok());
    let (clients, seconds) = (arguments.next().unwrap_or(1_000), arguments.next().unwrap_or(10));
    benches::limits::raise_open_files();
    println!("{clients} clients, 60 frames a second for {seconds} s; lateness of frames");
    println!("{:<8} {:>10} {:>10} {:>10} {:>10}", "", "median", "90 %", "99 %", "maximum");
    for _ in 0..2 {
        for (name, run) in [("sealed", run_sealed as fn(usize, usize) -> _), ("tokio", run_tokio)] {
            let mut lateness = run(clients, seconds * 60)?;
            lateness.sort_unstable();
            let at = |percent: usize| lateness[(lateness.len() * percent / 100).min(lateness.len() - 1)];
            let [median, ninety, ninety_nine, longest] = [50, 90, 99, 100].map(at).map(|time| format!("{time:.1?}"));
            println!("{name:<8} {median:>10} {ninety:>10} {ninety_nine:>10} {longest:>10}");
        }
    }
    Ok(())
}
