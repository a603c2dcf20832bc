//! The subcommands `config`, `check-config` and `gen-config`, and the sources of settings.

use std::path::Path;
use std::process::{Command, Output};

mod common;

use common::Folder;

fn ccomet(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ccomet"));
    command.args(arguments).envs(environment.iter().copied()).output().expect("it runs")
}

fn printed(arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let output = ccomet(arguments, environment);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

fn refused(arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let output = ccomet(arguments, environment);
    assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
    String::from_utf8(output.stderr).expect("text")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path")
}

#[test]
fn the_committed_reference_matches_the_program() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/settings.md");
    let committed = std::fs::read_to_string(path).unwrap_or_default().replace("\r\n", "\n");
    let reference = printed(&["config", "--reference"], &[]);
    let differs = reference.lines().zip(committed.lines().chain([""])).find(|(now, then)| now != then);
    assert!(
        reference == committed,
        "docs/settings.md is out of date; make it anew: \
         cargo run -q -p ccomet -- config --reference > docs/settings.md\nnow and before: {differs:#?}"
    );
}

#[test]
fn config_prints_all_settings_in_force() {
    let shown = printed(&["config", "--loops", "3", "--log", "debug"], &[]);
    assert!(shown.contains("loops = 3") && shown.contains("level = \"debug\""), "{shown}");
    assert!(shown.contains("message_bytes_max = 65536 # 64 KiB"), "{shown}");
}

#[test]
fn a_flag_precedes_the_environment_which_precedes_the_file() {
    let folder = Folder::new("sources");
    let file = folder.write("ccomet.toml", "[log]\nlevel = \"error\"\n[limits]\nmessage_bytes_max = \"128k\"\n");
    let (flags, environment) = (["--config", text(&file)], [("CCOMET_LOG_LEVEL", "warn")]);
    let level = |arguments: &[&str], environment: &[(&str, &str)]| {
        let shown = printed(&[&["config"], arguments].concat(), environment);
        shown.lines().find_map(|line| line.strip_prefix("level = ")).expect("the level").to_owned()
    };
    assert_eq!(level(&[], &[]), "\"info\"");
    assert_eq!(level(&flags, &[]), "\"error\"");
    assert_eq!(level(&flags, &environment), "\"warn\"");
    assert_eq!(level(&[&flags[..], &["--log", "debug"]].concat(), &environment), "\"debug\"");
    assert_eq!(level(&[], &[("CCOMET_CONFIG", text(&file))]), "\"error\"");
}

#[test]
fn check_config_names_the_file_and_what_differs_from_the_defaults() {
    let folder = Folder::new("differences");
    let file = folder.write("ccomet.toml", "[limits]\nmessage_bytes_max = \"128k\"\n[log]\nlevel = \"info\"\n");
    let report = printed(&["check-config", "-c", text(&file), "--log", "debug"], &[("CCOMET_FRONT_DEMO", "false")]);
    let expected = format!(
        "ok: {0}\n3 settings differ from their defaults:\n\
         front.demo = false (CCOMET_FRONT_DEMO; default: true)\n\
         limits.message_bytes_max = 131072 # 128 KiB ({0}; default: 65536)\n\
         log.level = \"debug\" (--log; default: \"info\")\n",
        file.display()
    );
    assert_eq!(report, expected);
    assert!(printed(&["check-config"], &[]).contains("all settings have their defaults"));
}

#[test]
fn a_refused_setting_is_named_with_its_place() {
    let folder = Folder::new("refused");
    let file = folder.write("ccomet.toml", "[limits]\nmessage_bytes_max = \"64q\"\n");
    let message = refused(&["check-config", "--config", text(&file)], &[]);
    assert!(message.contains("ccomet.toml: line 2: limits.message_bytes_max = \"64q\""), "{message}");
    let message = refused(&["check-config"], &[("CCOMET_LIMITS_MESSAGES_MAX", "5")]);
    assert!(
        message.contains("CCOMET_LIMITS_MESSAGES_MAX") && message.contains("CCOMET_HISTORY_MESSAGES_MAX"),
        "{message}"
    );
    let message = refused(&["token", "--sub", "ann"], &[]);
    assert!(message.contains("auth.keys") && message.contains("gen-config"), "{message}");
    let message = refused(&["check-config", "--loops", "100000"], &[]);
    assert!(message.contains("--loops: loops = 100000 is out of range: allowed is 1 to 1,024"), "{message}");
    let message = refused(&["check-config", "--loops", "two"], &[]);
    assert!(message.contains("--loops: loops = \"two\""), "{message}");
    for number in ["0", "-1"] {
        let message = refused(&["check-config", "--loops", number], &[]);
        assert!(message.contains(&format!("--loops: loops = {number}")) && message.contains("1 to 1,024"), "{message}");
    }
}

#[test]
fn an_error_of_a_value_has_the_file_the_line_the_setting_and_what_is_allowed() {
    let folder = Folder::new("errors");
    for (settings, line, expected) in [
        (
            "limits.message_bytes_max = \"9M\"",
            1,
            "limits.message_bytes_max = \"9M\" is out of range: allowed is 1 B to 8 MiB",
        ),
        (
            "\n[times]\npoll_wait_s = 90",
            3,
            "times.poll_wait_s = 90 is out of range: allowed is at most times.poll_wait_max_s (60 s); raise that too",
        ),
        ("[front]\norigins = [\"a\"]", 2, "front.origins has \"a\""),
        ("[front]\nhosts = [\"a:1\"]", 2, "front.hosts has \"a:1\""),
        ("[front]\nheaders = [\"a b\"]", 2, "front.headers has \"a b\""),
        ("[log]\nlevel = \"loud\"", 2, "log.level = \"loud\" is not a level"),
        ("[front]\nsocket_mode = \"rw\"", 2, "front.socket_mode = \"rw\" is not a file mode"),
        ("[admin]\nkeys = [\"short\"]", 2, "admin.keys has a key that is shorter"),
        ("[hooks]\nsubscribe = true", 2, "hooks.subscribe = true needs the URL of the back end"),
        (
            "[auth]\nkeys = [{ id = \"k\", secret = \"short\", algorithm = \"HS256\" }]",
            2,
            "auth.keys: the secret of key \"k\"",
        ),
        (
            "[auth]\nkeys = [{ id = \"k\", algorithm = \"HS256\" }]",
            2,
            "auth.keys: key \"k\" needs secret or secret_file",
        ),
        (
            "[auth]\nkeys = [{ id = \"k\", algorithm = \"HS256\", secret_file = \"/nothing\" }]",
            2,
            "auth.keys: key \"k\": cannot read /nothing: ",
        ),
        ("[auth]\njwks_file = \"/nothing\"", 2, "auth.jwks_file: /nothing: cannot be read: "),
        ("[front]\ntls = { cert = \"/nothing\", key = \"/nothing\" }", 2, "front.tls.cert: cannot read /nothing: "),
        (
            "[[rules]]\nchannels = \"a\"\n[[rules]]\nchannels = \"news.*\"\nmessage_bytes_max = \"9M\"",
            5,
            "rule 2, channels = \"news.*\": rules.message_bytes_max = \"9M\" is out of range: allowed is 1 B to 8 MiB",
        ),
        (
            "[front]\nlisten = \"/run/x.sock\"",
            2,
            "front.listen: \"/run/x.sock\" is no address of a listener: for a Unix socket write unix:/run/x.sock",
        ),
        ("[front]\nlisten = \"0.0.0.0:80\"", 2, "front.listen = 0.0.0.0:80 is reachable"),
    ] {
        let file = folder.write("ccomet.toml", settings);
        let message = refused(&["check-config", "--config", text(&file)], &[]);
        let start = format!("ccomet: {}: line {line}: {expected}", file.display());
        assert!(message.starts_with(&start), "{message} for {start}");
    }
}

#[test]
fn the_secrets_of_a_url_are_never_shown() {
    let folder = Folder::new("urls");
    for (name, scheme) in [("hooks.url", "http"), ("auth.jwks_url", "http")] {
        let file = folder.write("user.toml", format!("{name} = \"{scheme}://ann:sesame@backend/?k=sesame\"\n"));
        let message = refused(&["check-config", "--config", text(&file)], &[]);
        assert!(message.contains(name) && message.contains("(secret)@backend/?k=(secret)"), "{message}");
        assert!(!message.contains("sesame"), "{message}");
        let file = folder.write("query.toml", format!("{name} = \"{scheme}://backend/?apikey=sesame\"\n"));
        for command in ["config", "check-config"] {
            let shown = printed(&[command, "--config", text(&file)], &[]);
            assert!(shown.contains("/?apikey=(secret)") && !shown.contains("sesame"), "{shown}");
        }
        let file = folder.write("torn.toml", format!("{name} = \"{scheme}://ann:sesame@backend/\n"));
        let message = refused(&["check-config", "--config", text(&file)], &[]);
        assert!(message.contains("line 1") && !message.contains("sesame"), "{message}");
    }
}

#[test]
fn the_schema_is_json_and_names_settings() {
    let schema: serde_json::Value = serde_json::from_str(&printed(&["config", "--schema"], &[])).expect("JSON");
    assert_eq!(schema["properties"]["log"]["properties"]["level"]["default"], "info");
}

#[test]
fn completions_and_manual_pages_name_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let script = printed(&["completions", shell], &[]);
        assert!(script.contains("check-config") && script.contains("open-front"), "{shell}");
    }
    let page = printed(&["man"], &[]);
    assert!(page.contains(".TH ccomet 1") && page.contains("gen\\-config"), "{page}");
    let page = printed(&["man", "token"], &[]);
    assert!(page.contains(".TH ccomet-token 1") && page.contains("subscribe"), "{page}");
    for arguments in [&["man", "sub"][..], &["man", "store", "check"], &["man", "store check"]] {
        let page = printed(arguments, &[]);
        let title = format!(".TH ccomet-{} 1", arguments[1..].join("-").replace(' ', "-"));
        let footer = concat!("\"\" \"ccomet ", env!("CARGO_PKG_VERSION"), "\" \"Commands of ccomet\"");
        assert!(page.contains(&format!("{title} {footer}\n")), "{page}");
    }
    let page = printed(&["man"], &[]);
    assert!(page.contains(".SH EXAMPLES\n.nf\n") && !page.contains("EXTRA"), "{page}");
    assert!(refused(&["man", "nothing"], &[]).contains("no command nothing"));
    assert!(refused(&["man", "store", "nothing"], &[]).contains("ccomet store --help"));
}

#[test]
fn a_command_of_other_servers_gets_a_tip() {
    let help = printed(&["--help"], &[]);
    assert!(
        help.lines().take(3).any(|line| line.contains("Without a command, this program starts the server")),
        "{help}"
    );
    for command in ["serve", "start", "run"] {
        let message = refused(&[command], &[]);
        assert!(message.contains("tip: the program without a command starts the server"), "{message}");
    }
}

#[test]
fn check_config_warns_of_settings_without_effect() {
    let folder = Folder::new("warned");
    let file = folder.write("ccomet.toml", "front.socket_mode = \"660\"\nfront.allow = [\"10.1.2.3/8\"]\n");
    let report = printed(&["check-config", "-c", text(&file)], &[]);
    let warnings = report.lines().filter(|line| line.starts_with("warning: front.")).count();
    assert_eq!(warnings, 2, "{report}");
}

#[test]
fn a_file_of_settings_is_written_once_and_for_its_user_alone() {
    let folder = Folder::new("written");
    let path = folder.join("ccomet.toml");
    assert_eq!(printed(&["gen-config", "--output", text(&path)], &[]), "");
    assert!(printed(&["check-config", "-c", text(&path)], &[]).starts_with("ok: "));
    let before = std::fs::read(&path).expect("a file");
    #[cfg(unix)]
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&path.metadata().expect("a file").permissions()) & 0o777, 0o600);
    assert!(refused(&["gen-config", "--output", text(&path)], &[]).contains("is not overwritten"));
    assert_eq!(std::fs::read(&path).expect("a file"), before);
}

#[test]
fn a_generated_file_is_accepted_and_has_secrets_of_its_own() {
    let folder = Folder::new("generated");
    let [one, other] = [(); 2].map(|()| printed(&["gen-config"], &[]));
    assert_ne!(one, other, "the secrets are fresh");
    let file = folder.write("ccomet.toml", &one);
    let report = printed(&["check-config", "--config", text(&file)], &[]);
    assert!(report.starts_with("ok: ") && report.contains("\n2 settings differ"), "{report}");
    assert!(report.contains("admin.keys") && report.contains("auth.keys"), "{report}");
    let secret = one.lines().find_map(|line| line.strip_prefix("keys = [\"")).expect("a key");
    assert!(!report.contains(secret.trim_end_matches("\"]")), "{report}");
    let token = printed(&["--config", text(&file), "token", "--sub", "ann", "--publish", "chat", "--ttl", "15m"], &[]);
    let checked = printed(&["--config", text(&file), "token", "--check", token.trim()], &[]);
    assert!(checked.contains("expires in 900 s") || checked.contains("expires in 899 s"), "{checked}");
}
