//! `ccomet top`, at a server in a process of its own.

mod common;

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, ExitCode, Output, Stdio};

use common::{Process, wait_until};
use testing::process;
use testing::programs::{Need, run};

const PROGRAM: &str = env!("CARGO_BIN_EXE_ccomet");

fn main() -> ExitCode {
    run(testing::tests![
        needs [];
        one_reading_has_rates_and_the_busiest_channels_within_80_columns,
        a_refusal_has_the_words_of_the_server,
        a_server_that_goes_away_is_a_line_in_the_view;
        needs [Need::Program("script")];
        a_terminal_is_restored_after_q
    ])
}

fn command(admin: SocketAddr, arguments: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(["top", &format!("http://{admin}")]).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn once(admin: SocketAddr, arguments: &[&str]) -> Output {
    command(admin, &[&["--once"], arguments].concat()).output().expect("it runs")
}

fn one_reading_has_rates_and_the_busiest_channels_within_80_columns() {
    let server = Process::start("", &[]);
    let load = ["--subscribers", "6", "--channels", "2", "--publishers", "2", "--rate", "100", "--duration", "60"];
    let front = format!("http://{}", server.front);
    let _load = process::Process::start(Command::new(PROGRAM).args(["bench", &front]).args(load).stdout(Stdio::null()));
    let mut text = String::new();
    wait_until("messages are delivered", || {
        let output = once(server.admin, &[]);
        assert!(output.status.success(), "{output:?}");
        text = String::from_utf8(output.stdout).expect("UTF-8");
        let rate = text.lines().find(|line| line.starts_with("bench.0 ")).and_then(|row| row.split_whitespace().nth(2));
        let is_published = rate.and_then(|rate| rate.parse().ok()).is_some_and(|rate: f64| rate > 0.0);
        is_published && !text.contains("delivered 0 ")
    });
    let version = env!("CARGO_PKG_VERSION");
    assert!(text.starts_with(&format!("ccomet {version}  {}  up ", server.admin)), "{text}");
    for expected in ["ready", "(websocket 6 ", "subscribers   6  channels 2 ", "in memory", "refused/s     0"] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let row = text.lines().find(|line| line.starts_with("bench.0 ")).expect("a channel");
    let fields: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(fields[1], "3", "{row}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    assert!(!text.contains('\u{1b}'), "colours are for terminals: {text}");
}

fn a_refusal_has_the_words_of_the_server() {
    let mut server = Process::start("[admin]\nkeys = ['0123456789abcdef0123456789abcdef']\n", &[]);
    let refused = once(server.admin, &[]);
    let message = String::from_utf8(refused.stderr).expect("UTF-8");
    assert_eq!(refused.status.code(), Some(1), "{message}");
    assert!(message.contains("/metrics: ") && message.contains("(401 admin_key)"), "{message}");
    let allowed = once(server.admin, &["--token", "0123456789abcdef0123456789abcdef"]);
    assert!(allowed.status.success(), "{allowed:?}");
    let wrong = String::from_utf8(once(server.front, &[]).stderr).expect("UTF-8");
    assert!(wrong.contains("(404 not_found)"), "{wrong}");
    server.kill();
    let gone = String::from_utf8(once(server.admin, &[]).stderr).expect("UTF-8");
    assert!(gone.contains("cannot connect"), "{gone}");
}

fn a_server_that_goes_away_is_a_line_in_the_view() {
    let mut server = Process::start("", &[]);
    let mut top = process::Process::start(&mut command(server.admin, &[]));
    let mut lines = top.output().map(|line| line.expect("text"));
    assert!(lines.next().expect("a line").starts_with("ccomet "));
    server.kill();
    let gone = lines.find(|line| line.starts_with("no reading: ")).expect("a line");
    assert!(gone.contains(&server.admin.to_string()), "{gone}");
    // The previous reading is not printed again.
    assert_eq!(lines.next().expect("a line"), "");
    let next = lines.next().expect("a line");
    assert!(next.starts_with("no reading: "), "{next}");
    top.signal("TERM");
    assert!(top.wait().success());
}

fn a_terminal_is_restored_after_q() {
    let server = Process::start("", &[]);
    // The program `script` runs a command in a terminal.
    let line = format!("stty cols 80 rows 24; before=$(stty -g); {PROGRAM} top http://{} && ", server.admin);
    let line = line + "[ \"$(stty -g)\" = \"$before\" ] && echo restored";
    let mut command = Command::new("script");
    command.args(["-qfec", &line, "/dev/null"]).env("TERM", "xterm").env_remove("NO_COLOR");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut keys = child.stdin.take().expect("its input");
    let mut terminal = child.stdout.take().expect("its output");
    let mut shown = Vec::new();
    wait_until("the view is shown", || {
        let mut piece = [0; 4_096];
        let count = std::io::Read::read(&mut terminal, &mut piece).expect("output");
        shown.extend_from_slice(&piece[..count]);
        String::from_utf8_lossy(&shown).contains("CHANNEL")
    });
    keys.write_all(b"q").expect("a key");
    std::io::Read::read_to_end(&mut terminal, &mut shown).expect("the rest");
    assert!(child.wait().expect("its end").success());
    let shown = String::from_utf8_lossy(&shown);
    assert!(shown.contains("\u{1b}[?1049h") && shown.contains("\u{1b}[1mccomet "), "{shown:?}");
    assert!(shown.contains("\u{1b}[?1049l") && shown.trim_end().ends_with("restored"), "{shown:?}");
}
