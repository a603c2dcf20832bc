//! The connection of a C library: libpq runs queries on PostgreSQL. Its descriptor is a source of
//! the loop, so no query blocks the loop. Works on Linux.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use libpq::{Connection, PQResult, Status, poll};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use sealed::{ConnectionId, Context, Input, Interest, Ready, Service, Source, SourceId, TimerId};

/// The rows of an answer, each with its columns; or why there are none.
pub type Rows = Result<Vec<Vec<Option<String>>>, String>;

/// The outcome of a query.
#[derive(Debug)]
pub struct Answer {
    /// What it returned.
    pub rows: Rows,
    /// The number of times that the timer of the loop expired while the query ran.
    pub beats: usize,
}

/// A service that runs queries one after another, and then stops the loop.
#[derive(Debug)]
pub struct Queries {
    /// A duplicate of the descriptor of the connection.
    socket: Option<Source<OwnedFd>>,
    connection: Connection,
    is_connected: bool,
    waiting: VecDeque<String>,
    /// What the running query has returned so far.
    rows: Rows,
    beats: usize,
    /// The answers so far. The last one is an error if the connection failed.
    pub answers: Vec<Answer>,
    /// Called ten times a second.
    pub on_beat: fn(),
}

impl Queries {
    /// Starts to connect. If the connection string has a host name, libpq resolves it here and
    /// blocks, so use `hostaddr`, or the folder of a Unix socket.
    ///
    /// # Errors
    ///
    /// Returns the error of libpq if the string is wrong or the attempt fails at once.
    pub fn connect(to: &str, queries: impl IntoIterator<Item = String>) -> io::Result<Self> {
        Ok(Self {
            socket: None,
            connection: Connection::start(to).map_err(io::Error::other)?,
            is_connected: false,
            waiting: queries.into_iter().collect(),
            rows: Ok(Vec::new()),
            beats: 0,
            answers: Vec::new(),
            on_beat: || {},
        })
    }

    /// Waits for the socket of the connection, which libpq may have replaced since the last call.
    fn watch(&mut self, cx: &mut Context<Self>, interest: Interest) -> io::Result<()> {
        // The old socket first: the new one can have its number.
        self.socket = None;
        let socket = duplicate(self.connection.socket().map_err(io::Error::other)?)?;
        self.socket = Some(cx.add_source(socket, interest).map_err(io::Error::other)?);
        Ok(())
    }

    fn go_on(&mut self, cx: &mut Context<Self>) -> io::Result<()> {
        if self.is_connected {
            self.connection.consume_input().map_err(io::Error::other)?;
            return self.take_results(cx);
        }
        match self.connection.poll() {
            poll::Status::Reading => self.watch(cx, Interest::READABLE),
            poll::Status::Writing | poll::Status::Active => self.watch(cx, Interest::WRITABLE),
            poll::Status::Failed => Err(io::Error::other(self.connection.error_message().unwrap_or("it failed"))),
            poll::Status::Ok => {
                self.is_connected = true;
                self.connection.set_non_blocking(true).map_err(io::Error::other)?;
                self.watch(cx, Interest::READABLE)?;
                self.send_next(cx)
            }
        }
    }

    fn send_next(&mut self, cx: &mut Context<Self>) -> io::Result<()> {
        self.beats = 0;
        self.rows = Ok(Vec::new());
        let Some(query) = self.waiting.pop_front() else {
            cx.stop();
            return Ok(());
        };
        self.connection.send_query(&query).map_err(io::Error::other)?;
        self.wait_for_more()
    }

    /// Takes the results that have arrived, none of which blocks.
    fn take_results(&mut self, cx: &mut Context<Self>) -> io::Result<()> {
        while !self.connection.is_busy() {
            let Some(result) = self.connection.result() else {
                let rows = std::mem::replace(&mut self.rows, Ok(Vec::new()));
                self.answers.push(Answer { rows, beats: self.beats });
                return self.send_next(cx);
            };
            self.rows = rows(&result);
        }
        self.wait_for_more()
    }

    /// Waits for input, and for room if part of the query is still to be sent. libpq does not read
    /// until the socket is empty, and only changes are reported; after `set_interest` the loop
    /// reports again what is left.
    fn wait_for_more(&mut self) -> io::Result<()> {
        // An error means that there is no room, or is returned again by the next read.
        let is_sent = self.connection.flush().is_ok();
        let interest = if is_sent { Interest::READABLE } else { Interest::BOTH };
        self.socket.as_mut().map_or(Ok(()), |socket| socket.set_interest(interest)).map_err(io::Error::other)
    }

    fn fail(&mut self, cx: &mut Context<Self>, error: &io::Error) {
        self.socket = None;
        self.answers.push(Answer { rows: Err(error.to_string()), beats: self.beats });
        cx.stop();
    }
}

impl Service for Queries {
    type Connection = ();
    type Message = ();
    type Timer = ();

    fn started(&mut self, cx: &mut Context<Self>) {
        cx.set_interval(Duration::from_millis(100), ());
        if let Err(error) = self.watch(cx, Interest::WRITABLE) {
            self.fail(cx, &error);
        }
    }

    fn received(&mut self, _: &mut Context<Self>, _: ConnectionId, _: &mut Input<'_>) {}

    fn ready(&mut self, cx: &mut Context<Self>, _: SourceId, _: Ready) {
        if let Err(error) = self.go_on(cx) {
            self.fail(cx, &error);
        }
    }

    fn expired(&mut self, _: &mut Context<Self>, _: TimerId, (): ()) {
        self.beats += 1;
        (self.on_beat)();
    }
}

fn rows(result: &PQResult) -> Rows {
    if !matches!(result.status(), Status::TuplesOk | Status::CommandOk | Status::EmptyQuery) {
        return Err(result.error_message().ok().flatten().unwrap_or_default());
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let row = |row| (0..result.nfields()).map(|column| result.value(row, column).map(text)).collect();
    Ok((0..result.ntuples()).map(row).collect())
}

/// Returns a duplicate of a descriptor of this process of which only the number is known, as C
/// libraries return it. A program that permits itself `unsafe` needs no duplicate: it implements
/// `AsFd` for a type around the connection, by `BorrowedFd::borrow_raw`.
fn duplicate(number: i32) -> io::Result<OwnedFd> {
    let this_process = pidfd_open(getpid(), PidfdFlags::empty())?;
    Ok(pidfd_getfd(this_process, number, PidfdGetfdFlags::empty())?)
}
