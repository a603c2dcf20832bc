//! WebSocket on real sockets: the cases of the Autobahn test suite, and an independent client.

mod websocket {
    pub(crate) mod echo;
}

use std::process::{Command, ExitCode, Stdio};
use std::thread;

use sealed::{Config, EventLoop};
use sealed_http::websocket::Limits;
use sealed_http::{Server, Settings};
use testing::programs::{Need, run};
use testing::tests;
use websocket::echo::Echo;

fn main() -> ExitCode {
    run(tests![
        needs [Need::PythonModule("autobahntestsuite")]; the_autobahn_suite_finds_no_fault;
        needs [Need::PythonModule("websockets")]; an_independent_client_can_use_the_server
    ])
}

/// Runs a script against a server of its own, and returns its output.
fn drive(script: &str) -> String {
    // The suite sends 16 MiB at once, and 65,536 fragments.
    let limits = Limits { message_bytes_max: 1 << 24, frame_bytes_max: 1 << 24, fragments_max: 1 << 16 };
    let config = Config { output_bytes_max: 1 << 26, ..Config::default() };
    let server = Server::new(Settings::default(), Echo::new(limits));
    let mut event_loop = EventLoop::new(config, server).expect("a loop");
    let address = event_loop.listen("127.0.0.1:0").expect("a port").address.to_string();
    let stopper = event_loop.stopper();
    let running = thread::spawn(move || event_loop.run().expect("a good end"));
    let (host, port) = address.rsplit_once(':').expect("a port");
    let path = format!("{}/tests/websocket/{script}", env!("CARGO_MANIFEST_DIR"));
    let output = Command::new("python3").args(["-W", "ignore", &path, host, port]).stdin(Stdio::null()).output();
    stopper.stop();
    assert!(running.join().is_ok());
    let output = output.expect("python3");
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{script}: {}\n{text}", output.status);
    text
}

fn the_autobahn_suite_finds_no_fault() {
    let output = drive("autobahn.py");
    let mut passed = 0;
    for line in output.lines() {
        // If the RFC leaves the right behaviour open, the suite only informs.
        let (count, what) = line.split_once(" cases: ").unwrap_or_else(|| panic!("{output}"));
        assert!(["OK OK", "INFORMATIONAL INFORMATIONAL"].contains(&what), "{output}");
        passed += count.parse::<u32>().expect("a count");
    }
    assert!(passed > 250, "hardly any case was run: {output}");
}

fn an_independent_client_can_use_the_server() {
    let output = drive("client.py");
    assert_eq!(output, "all is well\n");
}
