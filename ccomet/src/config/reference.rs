//! The reference of all settings, as Markdown.

use std::fmt::Write;

use super::auth::Auth;
use super::table::{Applied, Row, Section, Settings};
use super::webhooks::Hooks;
use super::{Admin, Config, Front, History, Icomet, Limits, Log, Storage, Times};
use crate::config::rules::{NUMBER, Rule};

/// The settings outside of the tables.
pub(crate) static TOP: Section = Section {
    name: "",
    meaning: "Settings outside of the tables.",
    rows: &[Row {
        name: "loops",
        kind: "Option<NonZeroUsize>",
        default: "none",
        range: Some("1 to 1_024"),
        applied: Applied::Restart,
        meaning: "Event loops, each with a thread. By default there is one for each core.",
        ..NUMBER
    }],
};

/// All sections of settings but the rules, in the order of the file.
pub(crate) static ROWS: [Section; 10] = [
    Front::SECTION,
    Admin::SECTION,
    Auth::SECTION,
    Limits::SECTION,
    History::SECTION,
    Storage::SECTION,
    Times::SECTION,
    Icomet::SECTION,
    Log::SECTION,
    Hooks::SECTION,
];

const INTRODUCTION: &str = r#"# Settings

The server reads its settings from a TOML file (`ccomet --config FILE`) when it starts; each setting has a default.
`ccomet config` prints the settings in force, as TOML, with `(secret)` in place of each secret; the server refuses a
file in which a secret is `(secret)`. `ccomet config --reference` prints this page.

A number in the file is in the unit of its setting: bytes, seconds (a name that ends in `_s`) or milliseconds (`_ms`),
as in `message_bytes_max = 65536`. A text has a number and its unit. The units of sizes are powers of 1,024: `B`, `k` or
`KiB` (1,024 bytes), `M` or `MiB` (1,048,576), `G` or `GiB` (1,073,741,824) and `T` or `TiB`, as in
`message_bytes_max = "64k"`; `kB` and `MB`, which also stand for powers of 1,000, are refused. The units of durations are
`ms`, `s`, `m` or `min`, `h` and `d`, as in `age_max_s = "7d"`. A count has no unit.

Each setting can also be set by an environment variable: `CCOMET_LIMITS_MESSAGE_BYTES_MAX` is
`limits.message_bytes_max` ([settings](../ccomet/OPERATING.md#settings)). If a setting makes the server refuse requests,
the column *error code* has the `code` of the answer ([errors](../ccomet/API.md#errors)).

A running server reads its settings anew at SIGHUP, and at `POST /reload` of the admin listener
([reload](../ccomet/OPERATING.md#reload)). The column *applied by* shows which changes take effect then (`reload`), and
which when the server is restarted (`restart`).

Outside of the tables, `loops` is the number of event loops (1 to 1,024), each with a thread; by default there is one
for each core. A restart applies a change of it. The *front* is the public listener, the *admin listener* the private
one, and the *back end* the site's own program.
"#;

impl Config {
    /// Returns the reference of all settings, as Markdown: for each table of the file, the name,
    /// default, range, error code and meaning of its settings.
    pub fn reference() -> String {
        let mut page = INTRODUCTION.to_owned();
        let tables = ROWS.iter().map(|section| (format!("[{}]", section.name), section));
        for (heading, Section { meaning, rows, .. }) in tables.chain([("[[rules]]".to_owned(), &Rule::SECTION)]) {
            let _ = write!(page, "\n## `{heading}`\n{meaning}\n\n");
            page.push_str("| name | default | range | error code | applied by | meaning |\n");
            page.push_str("| --- | --- | --- | --- | --- | --- |\n");
            for row in *rows {
                let code = row.answers.map_or_else(String::new, |code| format!("`{code}`"));
                let ((default, range), applied) = (shown(row), applied_by(row.applied));
                let _ =
                    writeln!(page, "| `{}` | {default} | {range} | {code} | {applied} | {} |", row.name, row.meaning);
            }
        }
        page
    }
}

/// Returns a default and a range in the form for readers.
fn shown(row: &Row) -> (String, String) {
    let default = match row.default {
        // A number, with `_` between its digits, or the name of a setting that provides the
        // default.
        number if number.starts_with(|first: char| first.is_ascii_digit()) => number.replace('_', ","),
        default if default == "none" || default.starts_with('`') => default.to_owned(),
        default => format!("`{default}`"),
    };
    if let Some(range) = row.range {
        return (default, range.replace('_', ","));
    }
    let range = match row.kind {
        // The default contains all values that exist.
        "Vec<Api>" => format!("list of {}", row.default.trim_matches(['[', ']']).replace('"', "`")),
        kind => values(kind).to_owned(),
    };
    (default, range)
}

/// Returns the event by which a change takes effect.
fn applied_by(applied: Applied) -> &'static str {
    match applied {
        Applied::Reload => "reload",
        Applied::ReloadIfLower => "reload, if lower",
        Applied::ReloadUnlessSwitched => "reload; restart to switch on or off",
        Applied::Restart => "restart",
    }
}

/// Returns the allowed values of a setting that is not a number.
pub(super) fn values(kind: &str) -> &'static str {
    match kind {
        "bool" => "`true`, `false`",
        "Address" => "address and port, or Unix socket",
        "String" | "Option<String>" | "Option<Secret>" => "text",
        "ForwardedBy" => "`X-Forwarded-For`, `Forwarded`",
        "IcometAuth" => "`none`, `token`",
        "WhenDown" => "`refuse`, `allow`",
        "Who" => "`anyone`, `token`, `admin`",
        "Option<PathBuf>" => "path",
        "Option<RedisUrl>" => "URL",
        "SyncMode" => "`commit`, `interval`, `never`",
        "Pattern" => "name or pattern",
        "Vec<IpNet>" => "list of networks",
        "Vec<Pattern>" => "list of names and patterns",
        "Vec<String>" | "Vec<Secret>" => "list of texts",
        "Vec<Key>" => "list of [keys](../ccomet/API.md#tokens)",
        "Option<Tls>" => "table of `cert` and `key`, the paths of two files in PEM",
        "Option<Anonymous>" => "table of the lists `subscribe`, `publish`, `presence`",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use sealed_http::codec::DecodeError;

    use super::*;
    use crate::core::problem::{Denial, Problem};

    #[test]
    fn every_section_is_in_the_table_with_the_actual_defaults() {
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
        let sections = ROWS.iter().chain([&Rule::SECTION]);
        for (section, row) in sections.flat_map(|section| section.rows.iter().map(|row| (section.name, row))) {
            assert!(!row.meaning.is_empty() && !row.meaning.contains(['|', '\n']), "{section}.{}", row.name);
            assert!(!shown(row).1.is_empty(), "{section}.{} is a {}", row.name, row.kind);
        }
    }

    #[test]
    fn the_listed_error_codes_of_settings_exist() {
        let rows = ROWS.iter().chain([&Rule::SECTION]).flat_map(|section| section.rows);
        let codes: BTreeSet<&str> = rows.filter_map(|row| row.answers).collect();
        let of_http = [DecodeError::HeadTooLarge, DecodeError::TimedOut].map(DecodeError::code);
        let own = [
            Problem::AdminKey,
            Problem::BodyLimit,
            Problem::BroadcastLimit,
            Problem::BroadcastTooWide,
            Problem::ChannelLimit,
            Problem::ClientLimit,
            Problem::Forbidden,
            Problem::Forgeable,
            Problem::HookTooLarge,
            Problem::HookUnavailable,
            Problem::HostUnknown,
            Problem::MessageTooLarge(1),
            Problem::NotAllowed(Denial::Rule),
            Problem::OriginForbidden,
            Problem::PatternForbidden,
            Problem::PatternLimit,
            Problem::SubscriberLimit,
            Problem::TokenNotYet,
            Problem::TooManyChannels,
            Problem::TooManyMessages,
            Problem::TooManyRequests(1),
            Problem::TooManySubscriptions,
            Problem::Unavailable,
        ];
        assert_eq!(codes, own.map(Problem::code).into_iter().chain(of_http).collect());
    }

    /// Returns the bounds of a range in the table. Without an upper bound in the table, the upper
    /// bound is the greatest number that the server can compute with.
    fn bounds(range: &str) -> (u64, u64) {
        let number = |text: &str| {
            let (digits, unit) = text.split_once(' ').unwrap_or((text, ""));
            let shift = match unit {
                "KiB" => 10,
                "MiB" => 20,
                "GiB" => 30,
                _ => 0,
            };
            digits.replace('_', "").parse::<u64>().expect("a number") << shift
        };
        match range.split_once(" to ") {
            Some((min, max)) => (number(min), number(max)),
            None if range.ends_with(" s") => (number(&range["at least ".len()..]), u64::MAX / 1_000),
            None => (number(&range["at least ".len()..]), u64::MAX),
        }
    }

    /// Returns the error for a file with that value alone.
    fn refusal(section: &Section, row: &Row, value: u64) -> Option<String> {
        let (heading, needed) = match section.name {
            "rules" => ("[[rules]]".to_owned(), "channels = \"*\""),
            name => (format!("[{name}]"), ""),
        };
        let text = format!("{heading}\n{needed}\n{} = {value}\n", row.name);
        let config: Config = toml::from_str(&text).expect("TOML");
        config.check().err().map(|error| error.to_string())
    }

    #[test]
    fn a_number_out_of_its_range_is_refused_in_every_row() {
        let sections = ROWS.iter().chain([&Rule::SECTION]);
        let mut count = 0;
        for (section, row) in sections.flat_map(|section| section.rows.iter().map(move |row| (section, row))) {
            let Some((min, max)) = row.range.map(bounds) else { continue };
            let start = format!("{}.{} = ", section.name, row.name);
            // TOML has no greater numbers.
            let above = (max < i64::MAX as u64).then(|| max + 1);
            for value in min.checked_sub(1).into_iter().chain(above) {
                let error = refusal(section, row, value).unwrap_or_else(|| panic!("{start}{value}"));
                let error = error.rsplit_once("\": ").map_or(error.as_str(), |(_, of_rule)| of_rule);
                let allowed = match row.range.unwrap_or_default() {
                    range if range.starts_with("at least") && value > max => format!("{min} to {max}"),
                    range => range.replace('_', ","),
                };
                let expected = format!("{start}{value} is out of range: allowed is {allowed}");
                assert_eq!(error, expected);
                count += 1;
            }
            let error = refusal(section, row, min).filter(|error| error.contains(&start));
            assert_eq!(error, None, "the least value is allowed");
        }
        assert!(count > 60, "of all rows, {count} values were tried");
    }
}
