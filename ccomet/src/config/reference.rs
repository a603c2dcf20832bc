//! The reference of all settings, as Markdown.

use std::fmt::Write;

use super::table::{Row, Section, Settings};
use super::{Admin, Config, Front, History, Icomet, Limits, Log, Times};
use crate::auth::Auth;
use crate::hooks::Hooks;

/// All settings, in the order of the file.
pub(crate) static ROWS: [Section; 9] = [
    Front::SECTION,
    Admin::SECTION,
    Auth::SECTION,
    Limits::SECTION,
    History::SECTION,
    Times::SECTION,
    Icomet::SECTION,
    Log::SECTION,
    Hooks::SECTION,
];

const INTRODUCTION: &str = "\
# Settings

`ccomet config --reference` prints this page from the tables in the source. `ccomet config` prints the settings in
force, as TOML. The file itself has plain numbers: `message_bytes_max = 65536`. A setting whose name ends in `_s` is in
seconds, one in `_ms` in milliseconds. The error code is that of the answer where a setting refuses a request
([errors](../ccomet/API.md#errors)).

Outside of the tables, `loops` is the number of event loops, each with a thread; by default there is one for each core.
`[[rules]]` has what differs for channels of some names ([rules by name](../ccomet/API.md#rules-by-name)).
";

impl Config {
    /// Returns the reference of all settings, as Markdown: for each table of the file, the name, default, range, error
    /// code and meaning of its settings.
    pub fn reference() -> String {
        let mut page = INTRODUCTION.to_owned();
        for Section { name, meaning, rows } in &ROWS {
            let _ = write!(page, "\n## `[{name}]`\n{meaning}\n\n");
            page.push_str("| name | default | range | error code | meaning |\n| --- | --- | --- | --- | --- |\n");
            for row in *rows {
                let code = row.answers.map_or_else(String::new, |code| format!("`{code}`"));
                let (default, range) = shown(row);
                let _ = writeln!(page, "| `{}` | {default} | {range} | {code} | {} |", row.name, row.meaning);
            }
        }
        page
    }
}

/// Returns a default and a range for readers.
fn shown(row: &Row) -> (String, String) {
    if let Some(range) = row.range {
        return (row.default.replace('_', ","), range.replace('_', ","));
    }
    let default = if row.default == "none" { "none".to_owned() } else { format!("`{}`", row.default) };
    (default, values(row.kind).to_owned())
}

/// Returns what a setting that is no number may be.
fn values(kind: &str) -> &'static str {
    match kind {
        "bool" => "`true`, `false`",
        "SocketAddr" => "address and port",
        "String" | "Option<String>" | "Option<Secret>" => "text",
        "ForwardedBy" => "`X-Forwarded-For`, `Forwarded`",
        "IcometAuth" => "`none`, `token`",
        "WhenDown" => "`refuse`, `allow`",
        "Vec<Api>" => "list of `native`, `classic`, `icomet`",
        "Vec<IpNet>" => "list of networks",
        "Vec<Pattern>" => "list of names and patterns",
        "Vec<String>" | "Vec<Secret>" => "list of texts",
        "Vec<Key>" => "list of [keys](../ccomet/API.md#tokens)",
        "Option<Anonymous>" => "table of the lists `subscribe`, `publish`, `presence`",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use sealed_http::DecodeError;

    use super::*;

    #[test]
    fn every_section_is_in_the_table_with_the_defaults_that_hold() {
        let defaults: toml::Table = toml::from_str(&Config::default().to_toml()).expect("TOML");
        let names: BTreeSet<&str> = defaults.keys().map(String::as_str).collect();
        assert_eq!(ROWS.iter().map(|section| section.name).collect::<BTreeSet<_>>(), names);
        for section in &ROWS {
            for row in section.rows.iter().filter(|row| row.range.is_none()) {
                let value = defaults[section.name].get(row.name);
                let read = |text| toml::from_str::<toml::Table>(&format!("it = {text}")).expect("TOML").remove("it");
                let shown = if row.default == "none" { None } else { read(row.default) };
                assert_eq!(value, shown.as_ref(), "{}.{}", section.name, row.name);
            }
        }
    }

    #[test]
    fn every_setting_has_a_meaning_and_values() {
        for (section, row) in ROWS.iter().flat_map(|section| section.rows.iter().map(|row| (section.name, row))) {
            assert!(!row.meaning.is_empty() && !row.meaning.contains(['|', '\n']), "{section}.{}", row.name);
            assert!(!shown(row).1.is_empty(), "{section}.{} is a {}", row.name, row.kind);
        }
    }

    #[test]
    fn every_error_code_of_a_setting_exists() {
        let problems = include_str!("../wire/problem.rs");
        let http = [DecodeError::HeadTooLarge, DecodeError::TimedOut].map(DecodeError::code);
        for code in ROWS.iter().flat_map(|section| section.rows).filter_map(|row| row.answers) {
            assert!(http.contains(&code) || problems.contains(&format!("\"{code}\"")), "{code}");
        }
    }
}
