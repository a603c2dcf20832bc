//! A process for each client: its pipes are sources of the loop, and a client that reads slowly
//! slows its process down. Works on Unix.
//!
//! Try it: `cargo run -p examples --example run_process -- 127.0.0.1:7777 sort`, then
//! `printf 'b\na\n' | nc -N 127.0.0.1 7777`. A connection is the standard input and output of its
//! process. If a client disconnects, its process ends.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use sealed::{
    Address, CloseReason, Config, ConnectionId, Context, EventLoop, Input, Interest, ListenerId, Ready, Service,
    Source, SourceId,
};

/// Number of bytes of output that are passed on at a time, so that clients take turns.
const CHUNK: usize = 16 * 1024;

struct Runner {
    /// The program and its arguments.
    command: Vec<String>,
    processes: HashMap<ConnectionId, Process>,
    /// The client of each source.
    clients: HashMap<SourceId, ConnectionId>,
}

/// A process. Its pipes are deregistered and closed when it is dropped.
struct Process {
    child: Child,
    output: Source<ChildStdout>,
    /// Whether reading waits until the client has taken more.
    is_held: bool,
    /// `None` once the client has ended its input, or the process has closed its own.
    input: Option<Source<ChildStdin>>,
    /// Whether the client sends no more.
    input_ends: bool,
    /// The ids of both pipes.
    sources: [SourceId; 2],
}

impl Runner {
    fn new(command: Vec<String>) -> Self {
        Self { command, processes: HashMap::new(), clients: HashMap::new() }
    }

    /// Starts a process, which takes the system about a millisecond.
    fn spawn(&self, cx: &mut Context<Self>) -> Result<Process, Box<dyn std::error::Error>> {
        let (program, arguments) = self.command.split_first().ok_or("no program is given")?;
        let mut command = Command::new(program);
        let mut child = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let pipes = child.stdin.take().zip(child.stdout.take()).ok_or("no pipes");
        let sources = pipes.map_err(Into::into).and_then(|(stdin, stdout)| sources(cx, stdin, stdout));
        match sources {
            Ok((input, output)) => {
                let sources = [input.id(), output.id()];
                Ok(Process { child, output, is_held: false, input: Some(input), input_ends: false, sources })
            }
            Err(error) => {
                end(&mut child);
                Err(error)
            }
        }
    }

    /// Passes some output of a process on to its client.
    fn pass_output(&mut self, cx: &mut Context<Self>, id: ConnectionId) {
        // While the client has enough, the process may write more, which is reported all the same.
        let Some(process) = self.processes.get_mut(&id).filter(|process| !process.is_held) else { return };
        let mut chunk = [0; CHUNK];
        match process.output.get_mut().read(&mut chunk) {
            Ok(count) if count > 0 => {
                process.is_held = !cx.write(id, &chunk[..count]);
                if !process.is_held {
                    cx.ready_again(process.output.id());
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            _ => {
                if let Some(failure) = end(&mut process.child) {
                    cx.write(id, format!("{failure}\n").as_bytes());
                }
                cx.close(id);
            }
        }
    }
}

fn sources(
    cx: &mut Context<Runner>,
    stdin: ChildStdin,
    stdout: ChildStdout,
) -> Result<(Source<ChildStdin>, Source<ChildStdout>), Box<dyn std::error::Error>> {
    let input = cx.add_source(stdin, Interest::WRITABLE)?;
    let output = cx.add_source(stdout, Interest::READABLE)?;
    input.set_nonblocking(true)?;
    output.set_nonblocking(true)?;
    Ok((input, output))
}

/// Ends a process that has not ended itself, and returns its status if that is a failure.
fn end(child: &mut Child) -> Option<String> {
    // A process that is exiting already keeps its status. No other waits, because it is killed.
    let _ = child.kill();
    match child.wait() {
        Ok(status) if status.success() => None,
        Ok(status) => Some(status.to_string()),
        Err(error) => Some(error.to_string()),
    }
}

impl Service for Runner {
    type Connection = ();
    type Message = ();
    type Timer = ();

    fn accepted(&mut self, cx: &mut Context<Self>, id: ConnectionId, _: ListenerId, _: &Address) {
        match self.spawn(cx) {
            Ok(process) => {
                self.clients.extend(process.sources.map(|source| (source, id)));
                self.processes.insert(id, process);
            }
            Err(error) => {
                cx.write(id, format!("{error}\n").as_bytes());
                cx.close(id);
            }
        }
    }

    fn received(&mut self, _: &mut Context<Self>, id: ConnectionId, input: &mut Input<'_>) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        while let Some(pipe) = &mut process.input
            && !input.is_empty()
        {
            match pipe.get_mut().write(input.bytes()) {
                Ok(count) => _ = input.take(count),
                // The rest stays with the loop until the pipe is reported as writable.
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // The process reads no more.
                Err(_) => process.input = None,
            }
        }
        input.take_all();
        if process.input_ends {
            process.input = None;
        }
    }

    fn ended(&mut self, cx: &mut Context<Self>, id: ConnectionId) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        process.input_ends = true;
        if cx.input_len(id) == 0 {
            // The process sees the end of its input.
            process.input = None;
        }
    }

    fn ready(&mut self, cx: &mut Context<Self>, source: SourceId, _: Ready) {
        let Some(id) = self.clients.get(&source).copied() else { return };
        match self.processes.get(&id) {
            Some(process) if process.output.id() == source => self.pass_output(cx, id),
            // The pipe takes input again.
            _ => cx.resume(id),
        }
    }

    fn drained(&mut self, cx: &mut Context<Self>, id: ConnectionId) {
        if let Some(process) = self.processes.get_mut(&id) {
            process.is_held = false;
            cx.ready_again(process.output.id());
        }
    }

    fn closed(&mut self, _: &mut Context<Self>, id: ConnectionId, (): (), _: CloseReason) {
        if let Some(mut process) = self.processes.remove(&id) {
            end(&mut process.child);
            process.sources.iter().for_each(|source| _ = self.clients.remove(source));
        }
    }
}

fn main() -> sealed::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:7777".to_owned());
    let command: Vec<String> = arguments.collect();
    let command = if command.is_empty() { vec!["cat".to_owned()] } else { command };
    let mut event_loop = EventLoop::new(Config::default(), Runner::new(command))?;
    println!("listening on {}", event_loop.listen(address)?.address);
    event_loop.stop_on_signals()?;
    event_loop.run()
}

#[cfg(test)]
mod tests {
    use std::net::{Shutdown, TcpStream};
    use std::thread;
    use std::time::Duration;

    use sealed::Stats;

    use super::*;

    /// Starts a server that runs this shell script for each client, and connects to it.
    fn start(script: &str) -> (EventLoop<Runner>, TcpStream) {
        let command = ["sh", "-c", script].map(str::to_owned).to_vec();
        let mut event_loop = EventLoop::new(Config::default(), Runner::new(command)).expect("a loop");
        let address = event_loop.listen("127.0.0.1:0").expect("a port").address;
        let client = TcpStream::connect(address.to_string()).expect("it listens");
        client.set_read_timeout(Some(Duration::from_secs(60))).expect("it can be set");
        (event_loop, client)
    }

    fn stats(event_loop: &mut EventLoop<Runner>) -> Stats {
        event_loop.parts().1.stats()
    }

    /// Runs the loop until the client and its process are gone.
    fn run_until_gone(event_loop: &mut EventLoop<Runner>) {
        while stats(event_loop).closed == 0 {
            event_loop.turn(None).expect("all is well");
        }
        assert!(event_loop.service().processes.is_empty() && event_loop.service().clients.is_empty());
    }

    fn read_all(mut client: TcpStream) -> String {
        let mut text = String::new();
        client.read_to_string(&mut text).expect("a whole answer");
        text
    }

    #[test]
    fn a_client_gets_the_output_of_its_process_and_how_it_failed() {
        let (mut event_loop, client) = start("echo tea; exit 3");
        let client = thread::spawn(move || read_all(client));
        run_until_gone(&mut event_loop);
        assert_eq!(client.join().expect("it reads"), "tea\nexit status: 3\n");
    }

    #[test]
    fn input_that_is_more_than_a_pipe_holds_arrives_whole_before_its_end() {
        let (mut event_loop, mut client) = start("sleep 0.1; cat; echo end");
        let text = "0123456789abcdef".repeat(1 << 18);
        let sent = text.clone();
        let client = thread::spawn(move || {
            let reader = client.try_clone().expect("a duplicate");
            let reader = thread::spawn(move || read_all(reader));
            client.write_all(sent.as_bytes()).expect("it takes all");
            client.shutdown(Shutdown::Write).expect("it ends");
            reader.join().expect("it reads")
        });
        run_until_gone(&mut event_loop);
        assert!(client.join().expect("it reads") == text + "end\n");
    }

    #[test]
    fn a_client_that_takes_nothing_stops_its_process_and_one_that_goes_ends_it() {
        let (mut event_loop, mut client) = start("exec yes");
        // The process writes without end, until the client has enough.
        let high = event_loop.parts().1.config().output_high_bytes;
        let queued = |event_loop: &mut EventLoop<Runner>| {
            let (runner, cx) = event_loop.parts();
            runner.processes.keys().map(|id| cx.queued(*id)).sum::<usize>()
        };
        while queued(&mut event_loop) < high {
            event_loop.turn(None).expect("all is well");
        }
        for _ in 0..100 {
            event_loop.turn(Some(Duration::from_millis(1))).expect("all is well");
        }
        assert!((1..=high + CHUNK).contains(&queued(&mut event_loop)), "no more is read");
        // The process goes on when the client reads.
        let more = 1 << 25;
        let reader = thread::spawn(move || client.read_exact(&mut vec![0; more]).map(|()| client));
        while stats(&mut event_loop).bytes_sent < more as u64 {
            event_loop.turn(None).expect("all is well");
        }
        drop(reader.join().expect("it ends").expect("it reads"));
        run_until_gone(&mut event_loop);
    }
}
