//! The protocol as tasks of tokio, for turmoil and madsim, which include this file: each has a
//! module `rt` with its own network and clock.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sim_compare::hand_over::HandOver;
use sim_compare::{Book, Bug, COMMIT, Job, Key, PORT, RETRY, Requests, SILENCE, Slots, WAIT_MAX};

use super::rt::io::{AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, split};
use super::rt::sync::Notify;
use super::rt::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use super::rt::time::{Instant, sleep, timeout};
use super::rt::{TcpListener, TcpStream, select, spawn};

struct Shared {
    slots: Mutex<Slots<UnboundedSender<String>>>,
    queue: HandOver<Job>,
    wake: Notify,
    started: Instant,
    bug: Bug,
}

/// Runs the server, until its host is killed.
pub(crate) async fn server(bug: Bug, book: Arc<Mutex<Book>>) -> io::Result<()> {
    let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
    let shared = Arc::new(Shared {
        slots: Mutex::new(Slots::new(bug)),
        queue: HandOver::new(bug),
        wake: Notify::new(),
        started: Instant::now(),
        bug,
    });
    // Not in a task of its own, in which turmoil would not notice a panic.
    select! {
        biased;
        () = store(&shared, &book) => Ok(()),
        result = accept(&listener, &shared) => result,
    }
}

async fn accept(listener: &TcpListener, shared: &Arc<Shared>) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        spawn(serve(stream, shared.clone()));
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let (read, write) = split(stream);
    let (sender, replies) = unbounded_channel();
    spawn(reply(write, replies, shared.bug));
    let key = shared.slots.lock().unwrap().insert(sender);
    let is_partial = matches!(shared.bug, Bug::PartialRead | Bug::PartialReadOfPieces);
    let _ = if is_partial { read_pieces(read, &shared, key).await } else { read_lines(read, &shared, key).await };
    shared.slots.lock().unwrap().remove(key);
}

async fn read_lines(read: impl AsyncReadExt + Unpin, shared: &Shared, key: Key) -> io::Result<()> {
    let mut lines = BufReader::new(read).lines();
    while let Some(line) = lines.next_line().await? {
        shared.request(&line, key);
    }
    Ok(())
}

/// Takes each read for a number of whole lines, which is a bug.
async fn read_pieces(mut read: impl AsyncReadExt + Unpin, shared: &Shared, key: Key) -> io::Result<()> {
    let mut buffer = [0; 1024];
    loop {
        let count = read.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        for line in String::from_utf8_lossy(&buffer[..count]).lines() {
            shared.request(line, key);
        }
    }
}

impl Shared {
    fn request(&self, line: &str, key: Key) {
        let Some(job) = Job::parse(line, key, self.started.elapsed()) else {
            return self.send(key, "malformed\n".to_owned());
        };
        if self.bug.ignores(key) {
            return;
        }
        if self.bug == Bug::AckEarly {
            self.send(key, job.answer());
        }
        if self.queue.push(job) {
            self.wake.notify_one();
        }
    }

    fn send(&self, key: Key, text: String) {
        if let Some(sender) = self.slots.lock().unwrap().find(key) {
            // The task that writes ends when the connection fails.
            let _ = sender.send(text);
        }
    }
}

async fn reply(mut write: impl AsyncWrite + Unpin, mut replies: UnboundedReceiver<String>, bug: Bug) {
    while let Some(mut text) = replies.recv().await {
        while let Ok(more) = replies.try_recv() {
            text += &more;
        }
        let written = match bug {
            Bug::ShortWrite => write.write(text.as_bytes()).await.map(|_count| ()),
            _ => write.write_all(text.as_bytes()).await,
        };
        if written.is_err() || write.flush().await.is_err() {
            return;
        }
    }
}

async fn store(shared: &Shared, book: &Mutex<Book>) {
    loop {
        shared.wake.notified().await;
        let batch = shared.queue.take();
        for job in &batch {
            let waited = shared.started.elapsed().saturating_sub(job.at);
            assert!(waited <= WAIT_MAX, "a request waited {waited:?} for the store");
        }
        sleep(COMMIT).await;
        for job in batch {
            book.lock().unwrap().apply(&job.name, job.seq);
            if shared.bug != Bug::AckEarly {
                shared.send(job.connection, job.answer());
            }
        }
        shared.queue.done();
    }
}

/// Runs a client, until it has all its answers.
pub(crate) async fn client(server: &str, name: &str, bug: Bug) {
    let mut requests = Requests::new(name);
    let mut limit = SILENCE;
    while !requests.are_done() {
        if let Ok(Ok(stream)) = timeout(SILENCE, TcpStream::connect((server, PORT))).await {
            // Any failure has the same consequence.
            let _ = exchange(stream, &mut requests, limit, bug).await;
        }
        if bug.forgets_timer() {
            limit = Duration::from_secs(1_000_000);
        }
        sleep(RETRY).await;
    }
}

async fn exchange(stream: TcpStream, requests: &mut Requests, limit: Duration, bug: Bug) -> io::Result<()> {
    let (read, mut write) = split(stream);
    let mut read = BufReader::new(read);
    while !requests.are_done() {
        let text = requests.to_send();
        let piece_bytes = if bug == Bug::PartialReadOfPieces { 7 } else { text.len() };
        for piece in text.as_bytes().chunks(piece_bytes) {
            write.write_all(piece).await?;
            write.flush().await?;
        }
        while requests.are_waiting() {
            let mut line = String::new();
            timeout(limit, read.read_line(&mut line)).await??;
            if !line.ends_with('\n') {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            requests.answered(&line);
        }
    }
    Ok(())
}
