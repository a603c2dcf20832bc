//! The subcommand `config`, and the reference of settings that it prints.

use std::process::Command;

fn printed(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_ccomet")).args(arguments).output().expect("it runs");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn the_committed_reference_matches_the_program() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/settings.md");
    let committed = std::fs::read_to_string(path).unwrap_or_default().replace("\r\n", "\n");
    let reference = printed(&["config", "--reference"]);
    let differs = reference.lines().zip(committed.lines().chain([""])).find(|(now, then)| now != then);
    assert!(
        reference == committed,
        "docs/settings.md is out of date; make it anew: \
         cargo run -q -p ccomet -- config --reference > docs/settings.md\nnow and before: {differs:#?}"
    );
}

#[test]
fn config_prints_the_same_settings_as_check_config() {
    let flags = ["--loops", "3", "--log", "debug"];
    let shown = printed(&[&["config"], &flags[..]].concat());
    assert_eq!(shown, printed(&[&["check-config"], &flags[..]].concat()));
    assert!(shown.contains("loops = 3") && shown.contains("level = \"debug\""), "{shown}");
}
