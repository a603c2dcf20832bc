//! The example with a real server.

use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use postgres::{Answer, Queries};
use sealed::{Config, EventLoop};
use testing::process::Process;
use testing::programs::{Need, run};
use testing::{Folder, tests, wait_until};

fn main() -> ExitCode {
    run(tests![
        needs [Need::Other("the server of PostgreSQL is not installed", || programs().is_some())];
        queries_are_answered_in_order, a_query_that_takes_long_does_not_block_the_loop,
        more_than_the_socket_holds_is_sent_and_received, a_connection_that_is_lost_is_reported;
        needs []; a_server_that_is_not_there_is_reported
    ])
}

/// Returns the folder of PostgreSQL's programs, of which Debian has only some in `PATH`.
fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = versions.map(|version| version.path().join("bin")).chain(std::env::split_paths(&path));
    folders.into_iter().find(|folder| folder.join("initdb").exists())
}

/// A server with an empty database, in a folder of its own. It listens on a Unix socket there.
struct Server {
    process: Option<Process>,
    folder: Folder,
}

impl Server {
    fn start() -> Self {
        let folder = Folder::new("postgres");
        let data = folder.join("data");
        // The server refuses to run as root.
        let is_root = text(Command::new("id").arg("-u")) == "0";
        if is_root {
            let id = |option| text(Command::new("id").args([option, "postgres"])).parse().expect("a number");
            chown(&*folder, Some(id("-u")), Some(id("-g"))).expect("it is ours");
        }
        let command = |name: &str| {
            let program = programs().expect("it is installed").join(name);
            let mut command = Command::new(if is_root { Path::new("setpriv") } else { &program });
            if is_root {
                command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]).arg(&program);
            }
            command.current_dir(&*folder).stdout(Stdio::null());
            command
        };
        let made = command("initdb").args(["-U", "postgres", "-A", "trust", "--no-sync", "-D"]).arg(&data).status();
        assert!(made.expect("initdb runs").success(), "there is no database");
        let mut server = command("postgres");
        server.arg("-D").arg(&data).arg("-k").arg(&*folder).args(["-c", "listen_addresses=", "-c", "fsync=off"]);
        let process = Process::start(server.stderr(Stdio::null())).ended_by_signal();
        wait_until("the server accepts connections", || {
            command("pg_isready").arg("-h").arg(&*folder).status().is_ok_and(|status| status.success())
        });
        Self { process: Some(process), folder }
    }

    /// Runs queries on a loop, and returns their answers.
    fn run<const N: usize>(&self, queries: [&str; N]) -> Vec<Answer> {
        let to = format!("host={} user=postgres dbname=postgres", self.folder.display());
        let queries = Queries::connect(&to, queries.map(str::to_owned)).expect("it begins");
        let mut event_loop = EventLoop::new(Config::default(), queries).expect("a loop");
        event_loop.run().expect("a good end");
        std::mem::take(&mut event_loop.parts().0.answers)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Before its folder is removed.
        self.process = None;
    }
}

/// Returns what a command prints, without the end of the line.
fn text(command: &mut Command) -> String {
    let output = command.output().expect("it runs");
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

/// Returns the only column of an answer's only row.
fn cell(answer: &Answer) -> &str {
    match answer.rows.as_deref() {
        Ok([row]) => row[0].as_deref().expect("it is not null"),
        other => panic!("{other:?}"),
    }
}

fn queries_are_answered_in_order() {
    let answers = Server::start().run([
        "CREATE TABLE teas (name text, minutes int)",
        "INSERT INTO teas VALUES ('green', 2), ('rooibos', NULL)",
        "SELECT name, minutes FROM teas ORDER BY name",
        "SELEC nothing",
        "SELECT count(*) FROM teas",
    ]);
    assert_eq!(answers.len(), 5);
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(answers[0].rows, Ok(vec![]));
    assert_eq!(answers[2].rows, Ok(vec![vec![some("green"), some("2")], vec![some("rooibos"), None]]));
    let error = answers[3].rows.as_ref().expect_err("it is no query");
    assert!(error.contains("syntax error"), "{error}");
    assert_eq!(cell(&answers[4]), "2");
}

fn a_query_that_takes_long_does_not_block_the_loop() {
    let answers = Server::start().run(["SELECT pg_sleep(2)", "SELECT 1"]);
    // The timer expires ten times a second.
    assert!(answers[0].beats >= 5, "{answers:?}");
    assert_eq!(cell(&answers[1]), "1");
}

fn more_than_the_socket_holds_is_sent_and_received() {
    const BYTES: usize = 8 * 1024 * 1024;
    let long = format!("SELECT length('{}')", "x".repeat(BYTES));
    let answers = Server::start().run([&long, &format!("SELECT repeat('y', {BYTES})")]);
    assert_eq!(cell(&answers[0]), BYTES.to_string());
    let received = cell(&answers[1]);
    assert!(received.len() == BYTES && received.bytes().all(|byte| byte == b'y'));
}

fn a_connection_that_is_lost_is_reported() {
    let answers = Server::start().run(["SELECT 1", "SELECT pg_terminate_backend(pg_backend_pid())", "SELECT 2"]);
    assert_eq!(cell(&answers[0]), "1");
    let error = answers.last().expect("an answer").rows.as_ref().expect_err("it is lost");
    assert!(error.contains("terminat") || error.contains("closed"), "{error}");
    assert!(answers[1..].iter().all(|answer| answer.rows.is_err()), "{answers:?}");
}

fn a_server_that_is_not_there_is_reported() {
    // Nothing is there to wait for, so libpq finds out at once.
    let error = Queries::connect("host=/nowhere user=postgres", []).expect_err("there is no server");
    assert!(error.to_string().contains("/nowhere"), "{error}");
}
