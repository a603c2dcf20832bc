//! Settings from several sources: a file, the environment and flags.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use sealed::fault;
use serde::Deserialize;
use toml::de::DeValue;

use super::document::{self, Written};
use super::form::{self, Form, full_name, nearest};
use super::rules::NUMBER;
use super::table::{Row, Section};
use super::{Config, ConfigError};

/// The source of the value of a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// The program: no other source has the setting.
    Default,
    /// The TOML file.
    File,
    /// An environment variable.
    Environment,
    /// A flag on the command line, such as `--front`.
    Flag(&'static str),
}

/// The start of the names of all variables.
const PREFIX: &str = "CCOMET_";

/// The variable that names the file.
const FILE_VARIABLE: &str = "CCOMET_CONFIG";

/// Starts of the names of variables that are not for the server, but for tests and benchmarks of
/// this project.
const OF_TESTS: [&str; 2] = ["CCOMET_TEST_", "CCOMET_BENCH_"];

/// The settings of a server, collected from a file, the environment and flags. A source that is
/// added later takes precedence.
///
/// ```
/// use ccomet::{Layers, Source};
///
/// let mut layers = Layers::new();
/// layers.read_environment([("CCOMET_LIMITS_MESSAGE_BYTES_MAX".into(), "128k".into())])?;
/// layers.set("--front", "front.listen", "127.0.0.1:80")?;
/// let config = layers.config()?;
/// assert_eq!(config.limits.message_bytes_max, 131_072);
/// assert_eq!(layers.source("front.listen"), Source::Flag("--front"));
/// # Ok::<(), ccomet::ConfigError>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Layers {
    file: Option<PathBuf>,
    table: toml::Table,
    /// The sources of the settings that have a source, by their full names.
    sources: BTreeMap<String, Source>,
    /// The settings as they were written, by the names of [`Document`](document::Document).
    written: BTreeMap<String, Written>,
}

impl Layers {
    /// Creates settings that are all at their defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the settings of a TOML file.
    ///
    /// # Errors
    /// If the file cannot be read, is longer than 4 MiB, or is not the TOML of a configuration.
    pub fn read_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let read = Config::read_document(path)?;
        self.file = Some(path.to_owned());
        self.written.extend(read.places);
        for (section, value) in read.table {
            match value {
                toml::Value::Table(table) => {
                    for (name, value) in table {
                        self.put(&section, &name, value, Source::File);
                    }
                }
                value => self.put("", &section, value, Source::File),
            }
        }
        Ok(())
    }

    /// Adds the settings of environment variables, such as `CCOMET_FRONT_LISTEN` for
    /// `front.listen`: all variables whose names begin with `CCOMET_`. The value of a list or table
    /// is TOML; any other value is a plain text. Empty variables are ignored, and so are
    /// `CCOMET_CONFIG`, variables that begin with `CCOMET_TEST_` or `CCOMET_BENCH_`, and those that
    /// Kubernetes and Docker set for a service with the name `ccomet`.
    ///
    /// # Errors
    /// If no setting has the name of a variable, or a value is not one of its setting.
    pub fn read_environment(
        &mut self,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<(), ConfigError> {
        for (name, value) in variables {
            let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX) && !is_foreign(name, &value)) else {
                continue;
            };
            let found = targets().find(|(section, row)| variable(section, row) == name);
            if found.is_none() && fault!("unknown-variable-ignored") {
                continue;
            }
            let (section, row) = found.ok_or_else(|| unknown_variable(name))?;
            if value.is_empty() {
                continue;
            }
            let text = value.to_str().ok_or_else(|| ConfigError::Value {
                from: name.to_owned(),
                message: "the value is not UTF-8".to_owned(),
            })?;
            self.add(section, row, text, Source::Environment)?;
        }
        Ok(())
    }

    /// Adds a setting of a flag, by its full name. The text is one of an environment variable.
    ///
    /// # Errors
    /// If the text is not a value of the setting, or there is no such setting.
    pub fn set(&mut self, flag: &'static str, setting: &str, text: &str) -> Result<(), ConfigError> {
        let (section, row) = targets().find(|(section, row)| full_name(section, row) == setting).ok_or_else(|| {
            ConfigError::Value { from: flag.to_owned(), message: format!("there is no setting {setting}") }
        })?;
        self.add(section, row, text, Source::Flag(flag))
    }

    /// Returns the configuration. [`Config::check`] checks its values.
    ///
    /// # Errors
    /// If the settings do not have the types of a configuration; the sources of the settings have
    /// been checked for that before.
    pub fn config(&self) -> Result<Config, ConfigError> {
        Config::deserialize(self.table.clone())
            .map_err(|error| ConfigError::Value { from: "settings".to_owned(), message: error.message().to_owned() })
    }

    /// Returns the configuration after [`Config::check`]. An error about the value of a setting names
    /// its source.
    ///
    /// # Errors
    /// As for [`config`](Self::config) and [`Config::check`].
    pub fn checked(&self) -> Result<Config, ConfigError> {
        let config = self.config()?;
        let Err(error) = config.check() else { return Ok(config) };
        let (place, message) = self.worded(&error);
        let setting = if place.starts_with("rules[") { "rules" } else { &place };
        let from = match (self.source(setting), self.written.get(&place).and_then(|written| written.line)) {
            (Source::Default, _) => return Err(error),
            (Source::File, Some(line)) => format!("{}: line {line}", self.shown_source(setting)),
            _ => self.shown_source(setting),
        };
        Err(ConfigError::Value { from, message })
    }

    /// Returns the place of the setting that an error is about, and the message. It has a number as
    /// it was written.
    fn worded(&self, error: &ConfigError) -> (String, String) {
        let number = |place: &str, value: &u64| {
            self.written.get(place).and_then(|written| written.number.clone()).unwrap_or_else(|| value.to_string())
        };
        let out_of_range = |place: &str, name: &str, range: &str, value: &u64| {
            format!("{name} = {} is out of range: allowed is {range}", number(place, value))
        };
        if let ConfigError::InRule { number, channels, fault } = error
            && let ConfigError::Range { name, range, value } = &**fault
        {
            let place = format!("rules[{number}].{}", name.trim_start_matches("rules."));
            let fault = out_of_range(&place, name, range, value);
            return (place, format!("rule {number}, channels = {channels:?}: {fault}"));
        }
        match error {
            ConfigError::Range { name, range, value } => ((*name).to_owned(), out_of_range(name, name, range, value)),
            error => {
                let mut message = error.to_string();
                let mut cause = std::error::Error::source(error);
                while let Some(source) = cause {
                    message = format!("{message}: {source}");
                    cause = source.source();
                }
                // The first settings that a message names are those that it is about.
                let of_word = |word: &str| {
                    let word = word.trim_end_matches([':', ',', ';']);
                    let table = word.rsplit_once('.').map(|(table, _)| table);
                    [Some(word), table]
                        .into_iter()
                        .flatten()
                        .find(|name| self.sources.contains_key(*name))
                        .map(str::to_owned)
                };
                (message.split(' ').find_map(of_word).unwrap_or_default(), message)
            }
        }
    }

    /// Returns the source of a setting, by its full name, such as `front.listen`.
    pub fn source(&self, setting: &str) -> Source {
        self.sources.get(setting).copied().unwrap_or(Source::Default)
    }

    /// Returns the file, if there is one.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Returns the source of a setting in words: the name of the file, the variable or the flag.
    pub fn shown_source(&self, setting: &str) -> String {
        match self.source(setting) {
            Source::Default => "default".to_owned(),
            Source::File => self.file.as_ref().map_or_else(|| "file".to_owned(), |file| file.display().to_string()),
            Source::Environment => targets()
                .find(|(section, row)| full_name(section, row) == setting)
                .map_or_else(String::new, |(section, row)| variable(section, row)),
            Source::Flag(flag) => flag.to_owned(),
        }
    }

    /// Adds a value in the form of an environment variable.
    fn add(&mut self, section: &Section, row: &Row, text: &str, source: Source) -> Result<(), ConfigError> {
        let from = match source {
            Source::Flag(flag) => flag.to_owned(),
            _ => variable(section, row),
        };
        let name = full_name(section, row);
        let value = in_toml(row, text)
            .map_err(|message| format!("{name} {message}"))
            .and_then(|value| {
                let heading = if section.name.is_empty() { String::new() } else { format!("[{}]\n", section.name) };
                document::read(&format!("{heading}{} = {value}\n", row.name))
                    .map_err(|fault| fault.of_setting(&name, row.is_secret()))
            })
            .map_err(|message| ConfigError::Value { from, message })?;
        let found = if section.name.is_empty() { Some(&value.table) } else { value.table[section.name].as_table() };
        if let Some(value) = found.and_then(|table| table.get(row.name)) {
            let number = matches!(row.form(), Form::Number(_)).then(|| text.to_owned());
            self.put(section.name, row.name, value.clone(), source);
            self.written.insert(name, Written { line: None, number });
        }
        Ok(())
    }

    fn put(&mut self, section: &str, name: &str, value: toml::Value, source: Source) {
        if section.is_empty() {
            self.table.insert(name.to_owned(), value);
            self.sources.insert(name.to_owned(), source);
            return;
        }
        let table = self.table.entry(section).or_insert_with(|| toml::Table::new().into());
        if let Some(table) = table.as_table_mut() {
            table.insert(name.to_owned(), value);
            self.sources.insert(format!("{section}.{name}"), source);
        }
    }
}

/// The list of rules, as a setting outside of the tables.
const RULES: Row = Row { name: "rules", kind: "Vec<Rule>", default: "[]", meaning: "Rules by name.", ..NUMBER };

/// Returns all settings that a variable can set.
fn targets() -> impl Iterator<Item = (&'static Section, &'static Row)> {
    form::all().chain(form::section("").map(|top| (top, const { &RULES })))
}

/// Returns the name of the variable of a setting.
fn variable(section: &Section, row: &Row) -> String {
    let name = full_name(section, row).replace('.', "_");
    format!("{PREFIX}{}", name.to_ascii_uppercase())
}

/// Returns whether a variable with our prefix is not for the server.
fn is_foreign(name: &str, value: &OsStr) -> bool {
    let is_numbered_port = || {
        name.match_indices("_PORT_").any(|(at, part)| name[at + part.len()..].starts_with(|c: char| c.is_ascii_digit()))
    };
    // Kubernetes and Docker describe each service to the others by such variables.
    let is_of_service = || {
        name.ends_with("_SERVICE_HOST")
            || name.contains("_SERVICE_PORT")
            || is_numbered_port()
            || name.ends_with("_PORT") && value.to_string_lossy().contains("://")
    };
    name == FILE_VARIABLE || OF_TESTS.iter().any(|start| name.starts_with(start)) || is_of_service()
}

fn unknown_variable(name: &str) -> ConfigError {
    // The names of flags, and of tables.
    let meant = [
        ("DATA", "STORE_PATH"),
        ("REDIS", "STORE_REDIS"),
        ("FRONT", "FRONT_LISTEN"),
        ("ADMIN", "ADMIN_LISTEN"),
        ("LOG", "LOG_LEVEL"),
    ];
    let plain = name.strip_prefix(PREFIX).unwrap_or(name);
    if let Some((_, meant)) = meant.iter().find(|(wrong, _)| *wrong == plain) {
        return ConfigError::UnknownVariable { name: name.to_owned(), similar: format!(". There is {PREFIX}{meant}") };
    }
    let is_of_other_table = |row: &Row| match row.name {
        // The address of a listener includes its port.
        "listen" => ["_LISTEN", "_PORT", "_ADDRESS", "_HOST"].iter().any(|end| name.ends_with(end)),
        of_row => name.ends_with(&format!("_{}", of_row.to_ascii_uppercase())),
    };
    let of_other_tables = targets().filter(|(_, row)| is_of_other_table(row));
    let names: Vec<String> = of_other_tables.map(|(section, row)| variable(section, row)).collect();
    let similar = if names.is_empty() {
        // The prefix, which all names have, makes none of them similar.
        let names: Vec<String> = targets().map(|(section, row)| variable(section, row)).collect();
        let found = nearest(plain, names.iter().filter_map(|name| name.strip_prefix(PREFIX)));
        let found: Vec<String> = found.into_iter().map(|name| format!("{PREFIX}{name}")).collect();
        if found.is_empty() { String::new() } else { format!(". Similar names: {}", found.join(", ")) }
    } else {
        format!(". There is {}", names.join(", "))
    };
    ConfigError::UnknownVariable { name: name.to_owned(), similar }
}

/// Returns the value of a variable as TOML.
fn in_toml(row: &Row, text: &str) -> Result<String, String> {
    let trimmed = text.trim();
    let parsed = DeValue::parse(trimmed);
    let value = parsed.as_ref().ok().map(toml::Spanned::get_ref);
    let is_toml = match row.form() {
        Form::Text => false,
        Form::Switch => value.is_some_and(DeValue::is_bool),
        Form::Number(_) => value.is_some_and(|value| value.is_integer() || value.is_float()),
        Form::List => value.is_some_and(DeValue::is_array),
        Form::Table => value.is_some_and(DeValue::is_table),
    };
    match row.form() {
        _ if is_toml => Ok(trimmed.to_owned()),
        Form::List => Err(format!("is not a list in TOML, such as {}", example_of_list(row))),
        Form::Table => Err(format!("is not a table in TOML, such as {}", row.example_of_table())),
        Form::Text | Form::Switch | Form::Number(_) => Ok(toml::Value::from(text).to_string()),
    }
}

fn example_of_list(row: &Row) -> &'static str {
    match row.kind {
        "Vec<Key>" => "[{ id = \"main\", algorithm = \"HS256\", secret_file = \"/run/secrets/ccomet\" }]",
        "Vec<Rule>" => "[{ channels = \"chat.*\", messages_max = 50 }]",
        "Vec<IpNet>" => "[\"127.0.0.1\", \"10.0.0.0/8\"]",
        _ => "[\"one\", \"two\"]",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::auth::Secret;

    fn environment(variables: &[(&str, &str)]) -> Result<Layers, ConfigError> {
        let mut layers = Layers::new();
        layers.read_environment(variables.iter().map(|(name, value)| (name.into(), value.into())))?;
        Ok(layers)
    }

    #[test]
    fn every_setting_has_a_variable_of_its_own() {
        let names: BTreeSet<String> = targets().map(|(section, row)| variable(section, row)).collect();
        assert_eq!(names.len(), targets().count());
        assert!(names.iter().all(|name| !is_foreign(name, OsStr::new("tcp://10.0.0.1"))));
        let defaults = toml::Table::try_from(Config::default()).expect("TOML");
        for (section, row) in targets() {
            let (name, setting) = (variable(section, row), full_name(section, row));
            let default = defaults.get(section.name).and_then(|section| section.get(row.name)).cloned();
            let text = match (row.form(), default) {
                (Form::Number(_), _) => row.bounds().0.max(1).to_string(),
                (_, Some(toml::Value::String(text))) => text,
                (_, Some(value)) => value.to_string(),
                (Form::List, None) => "[]".to_owned(),
                (Form::Table, None) => row.example_of_table().to_owned(),
                (_, None) => "a text".to_owned(),
            };
            if text.is_empty() {
                continue;
            }
            let layers = environment(&[(&name, &text)]).unwrap_or_else(|error| panic!("{name} = {text}: {error}"));
            layers.config().unwrap_or_else(|error| panic!("{name} = {text}: {error}"));
            assert_eq!(layers.source(&setting), Source::Environment, "{name}");
            assert_eq!(layers.shown_source(&setting), name);
        }
    }

    #[test]
    fn values_of_variables_are_plain_texts_and_toml() {
        let layers = environment(&[
            ("CCOMET_FRONT_DEMO", "false"),
            ("CCOMET_FRONT_LISTEN", "127.0.0.1:81"),
            ("CCOMET_LIMITS_MESSAGE_BYTES_MAX", "128k"),
            ("CCOMET_HISTORY_AGE_MAX_S", "7d"),
            ("CCOMET_FRONT_ORIGINS", "[\"https://a.example\"]"),
            ("CCOMET_AUTH_ANONYMOUS", "{ subscribe = [\"news.*\"] }"),
            ("CCOMET_HOOKS_SECRET", "\"quotes\" and = signs"),
            ("CCOMET_RULES", "[{ channels = \"chat.*\", bytes_max = \"1M\" }]"),
            ("CCOMET_LOOPS", "3"),
            ("CCOMET_STORE_PATH", ""),
            ("CCOMET_CONFIG", "/etc/ccomet.toml"),
            ("CCOMET_TEST_REQUIRE_ALL", "1"),
            ("CCOMET_PORT", "tcp://10.0.0.1:8100"),
            ("CCOMET_PORT_8100_TCP_ADDR", "10.0.0.1"),
            ("CCOMET_FRONT_SERVICE_HOST", "10.0.0.1"),
            ("PATH", "/bin"),
        ]);
        let config = layers.expect("good values").config().expect("a configuration");
        assert!(!config.front.demo && config.store.path.is_none());
        assert_eq!((config.limits.message_bytes_max, config.history.age_max_s), (131_072, 604_800));
        assert_eq!(config.front.origins, ["https://a.example"]);
        assert_eq!(config.auth.anonymous.map(|anonymous| anonymous.subscribe.len()), Some(1));
        assert_eq!(config.hooks.secret.as_ref().map(Secret::as_str), Some("\"quotes\" and = signs"));
        assert_eq!(config.rules[0].bytes_max, Some(1 << 20));
        assert_eq!(config.loops.map(std::num::NonZero::get), Some(3));
    }

    #[test]
    fn a_value_out_of_its_range_is_named_with_its_source() {
        let layers = environment(&[("CCOMET_LIMITS_CHANNELS_MAX", "0")]).expect("a number");
        let refused = layers.checked().expect_err("out of range").to_string();
        assert_eq!(
            refused,
            "CCOMET_LIMITS_CHANNELS_MAX: limits.channels_max = 0 is out of range: allowed is at least 1"
        );
        let mut layers = environment(&[("CCOMET_LOG_LEVEL", "info")]).expect("a level");
        layers.checked().expect("all is well");
        layers.set("--log", "log.level", "loud").expect("a text");
        let refused = layers.checked().expect_err("no level").to_string();
        assert!(refused.starts_with("--log: log.level = \"loud\" is not a level"), "{refused}");
    }

    #[test]
    fn a_refused_variable_is_named_with_its_setting() {
        for (name, value, parts) in [
            (
                "CCOMET_LIMITS_MESSAGE_BYTES_MAX",
                "64q",
                ["CCOMET_LIMITS_MESSAGE_BYTES_MAX: limits.message_bytes_max = \"64q\"", "64k"],
            ),
            ("CCOMET_LIMITS_CHANNELS_MAX", "many", ["limits.channels_max = \"many\"", "a whole number"]),
            ("CCOMET_FRONT_DEMO", "yes", ["front.demo = \"yes\"", "true or false"]),
            ("CCOMET_FRONT_ALLOW", "10.0.0.0/8", ["front.allow is not a list in TOML", "[\"127.0.0.1\""]),
            (
                "CCOMET_FRONT_ALLOW",
                "[\"10.0.0\"]",
                ["CCOMET_FRONT_ALLOW: front.allow: ", "neither an address nor a network"],
            ),
            ("CCOMET_STORE_SYNC", "always", ["CCOMET_STORE_SYNC: store.sync: ", "commit"]),
            ("CCOMET_RULES", "[{ channel = \"*\" }]", ["CCOMET_RULES: ", "[[rules]] has no setting channel"]),
            ("CCOMET_FRONT_LISTN", "x", ["CCOMET_FRONT_LISTN", "CCOMET_FRONT_LISTEN"]),
            ("CCOMET_DATA", "x", ["CCOMET_DATA", "There is CCOMET_STORE_PATH"]),
            ("CCOMET_FRONT", "x", ["CCOMET_FRONT", "There is CCOMET_FRONT_LISTEN"]),
            ("CCOMET_ADMIN", "x", ["CCOMET_ADMIN", "There is CCOMET_ADMIN_LISTEN"]),
            ("CCOMET_LOG", "x", ["CCOMET_LOG", "There is CCOMET_LOG_LEVEL"]),
            ("CCOMET_LISTEN", "x", ["CCOMET_LISTEN", "CCOMET_FRONT_LISTEN"]),
            ("CCOMET_PORT", "8200", ["CCOMET_PORT. There is CCOMET_FRONT_LISTEN, CCOMET_ADMIN_LISTEN", "correct"]),
        ] {
            let refused = environment(&[(name, value)]).expect_err(name).to_string();
            assert!(parts.iter().all(|part| refused.contains(part)), "{name}={value}: {refused}");
        }
        let refused = environment(&[("CCOMET_QUUX", "x")]).expect_err("far from all").to_string();
        assert!(!refused.contains("Similar") && !refused.contains("There is"), "{refused}");
        let refused = environment(&[("CCOMET_AUTH_KEYS", "sesame")]).expect_err("no list").to_string();
        assert!(!refused.contains("sesame"), "{refused}");
        let key = "[{ id = \"k\", algorithm = \"HS256\", secret = 123456 }]";
        let refused = environment(&[("CCOMET_AUTH_KEYS", key)]).expect_err("a number").to_string();
        assert!(!refused.contains("123456"), "{refused}");
    }
}
