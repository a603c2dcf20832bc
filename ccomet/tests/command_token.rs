//! The subcommand `token`, and how `check-config` shows keys.

use std::path::Path;
use std::process::{Command, Output};

mod common;

use common::{Client, Folder, Process};

const SECRET: &str = "a secret that is long enough for it";

fn ccomet(config: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ccomet")).arg("--config").arg(config).args(arguments).output().expect("it runs")
}

fn shared_key() -> String {
    format!("[auth]\naudience = \"us\"\nkeys = [{{ id = \"main\", algorithm = \"HS256\", secret = \"{SECRET}\" }}]\n")
}

#[test]
fn a_made_token_opens_its_channels_and_no_others() {
    let folder = Folder::new("made");
    let config = folder.write("ccomet.toml", shared_key());
    let made = ccomet(&config, &["token", "--key", "main", "--sub", "ann", "--publish", "chat.*", "--ttl", "600"]);
    assert!(made.status.success(), "{made:?}");
    let token = String::from_utf8(made.stdout).expect("text");
    let token = token.strip_suffix('\n').expect("one line");
    assert!(!token.contains(char::is_whitespace), "the token alone: {token}");

    let server = Process::start(&shared_key(), &[]);
    let mut client = Client::connect(server.front);
    for (channel, status) in [("chat.1", 200), ("news", 403)] {
        let authorization = format!("Authorization: Bearer {token}\r\nContent-Length: 0\r\n");
        client.ask("POST", &format!("/channels/{channel}"), &authorization);
        assert_eq!(client.reply().status, status, "{channel}");
    }
    let other = ccomet(&config, &["token", "--key", "other"]);
    assert!(!other.status.success() && other.stdout.is_empty(), "{other:?}");
}

#[test]
fn a_private_key_signs_what_the_public_one_verifies() {
    // A pair made by OpenSSL for this test alone.
    let (private, public) = (include_str!("keys/private.pem"), include_str!("keys/public.pem"));
    let folder = Folder::new("pair");
    let public = folder.write("public.pem", public);
    let private = folder.write("private.pem", private);
    let settings = format!("[auth]\nkeys = [{{ id = \"e\", algorithm = \"EdDSA\", public_key_file = {public:?} }}]\n");
    let config = folder.write("ccomet.toml", &settings);
    let private = private.to_str().expect("a path");
    let made = ccomet(&config, &["token", "--subscribe", "*", "--private-key", private]);
    assert!(made.status.success(), "{made:?}");
    let token = String::from_utf8(made.stdout).expect("text");

    let server = Process::start(&settings, &[]);
    let mut client = Client::connect(server.front);
    assert_eq!(client.get(&format!("/channels/news?wait=0&token={}", token.trim_end())).status, 200);
    assert_eq!(client.get("/channels/news?wait=0").status, 401);
    assert!(!ccomet(&config, &["token", "--subscribe", "*"]).status.success(), "there is nothing to sign with");
}

#[test]
fn secrets_are_never_shown() {
    let folder = Folder::new("shown");
    let config = folder.write("ccomet.toml", shared_key());
    let shown = ccomet(&config, &["check-config"]);
    let text = String::from_utf8(shown.stdout).expect("text");
    assert!(shown.status.success() && text.contains("id = \"main\"") && !text.contains(SECRET), "{text}");
    // An error that quotes the wrong line does not show the secret either.
    let bad = shared_key().replace("HS256", "HS257");
    let refused = ccomet(&folder.write("bad.toml", &bad), &["check-config"]);
    let text = String::from_utf8(refused.stderr).expect("text");
    assert!(!refused.status.success() && text.contains("HS257") && !text.contains(SECRET), "{text}");
}

#[test]
fn checking_a_token_reports_what_is_wrong_with_it() {
    let folder = Folder::new("checked");
    let config = folder.write("ccomet.toml", shared_key());
    let make = |arguments: &[&str]| {
        let made = ccomet(&config, &[&["token"], arguments].concat());
        String::from_utf8(made.stdout).expect("text").trim().to_owned()
    };
    let good = ccomet(&config, &["token", "--check", &make(&["--sub", "ann", "--publish", "chat.*"])]);
    let printed = String::from_utf8(good.stdout).expect("text");
    assert!(good.status.success() && printed.starts_with("accepted\n"), "{printed}");
    assert!(printed.contains("ann") && printed.contains("chat.*") && printed.contains("expires in"), "{printed}");
    for (token, why) in [(make(&["--aud", "them"]), "'aud'"), ("nonsense".to_owned(), "malformed")] {
        let refused = ccomet(&config, &["token", "--check", &token]);
        let printed = String::from_utf8(refused.stderr).expect("text");
        assert!(!refused.status.success() && printed.contains(why), "{printed}");
    }
}
