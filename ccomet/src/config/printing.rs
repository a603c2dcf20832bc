//! The settings in force as text: all of them, or those that differ from their defaults.

use std::fmt::Write;

use toml::{Table, Value};

use super::form::{self, Form, full_name};
use super::layers::Layers;
use super::table::{Row, Section};
use super::{Config, ConfigError};

impl Config {
    /// Returns the configuration as TOML, including defaults, for display. Comments have sizes and
    /// durations in words, and a secret appears as `(secret)`, which [`read`](Self::read) refuses.
    pub fn to_toml(&self) -> String {
        let values = self.values();
        let mut text = String::new();
        let mut heading = "";
        for (section, row) in form::all() {
            if section.name != heading {
                heading = section.name;
                let _ = writeln!(text, "{}[{heading}]", if text.is_empty() { "" } else { "\n" });
            }
            if let Some(value) = get(&values, section, row) {
                let _ = writeln!(text, "{}", line(row, value));
            }
        }
        for rule in &self.rules {
            let rule = Table::try_from(rule).unwrap_or_default();
            text.push_str("\n[[rules]]\n");
            for row in form::of_rules().rows {
                if let Some(value) = rule.get(row.name) {
                    let _ = writeln!(text, "{}", line(row, value));
                }
            }
        }
        text
    }

    /// Returns all values as TOML, in which a secret is `(secret)`.
    fn values(&self) -> Table {
        Table::try_from(self).unwrap_or_default()
    }
}

/// Returns the value of a setting.
fn get<'t>(values: &'t Table, section: &Section, row: &Row) -> Option<&'t Value> {
    let table = if section.name.is_empty() { values } else { values.get(section.name)?.as_table()? };
    table.get(row.name)
}

/// Returns the line of a setting, with a number in words as a comment.
fn line(row: &Row, value: &Value) -> String {
    let words = match (row.form(), value) {
        (Form::Number(unit), Value::Integer(number)) => unit.in_words(u64::try_from(*number).unwrap_or(0)),
        _ => None,
    };
    let comment = words.map_or_else(String::new, |words| format!(" # {words}"));
    format!("{} = {value}{comment}", row.name)
}

impl Layers {
    /// Returns a report on the settings that differ from their defaults, each with its source,
    /// followed by the [warnings](Config::warnings). A secret appears as `(secret)`.
    ///
    /// # Errors
    /// As for [`config`](Self::config).
    pub fn report(&self) -> Result<String, ConfigError> {
        let config = self.config()?;
        let (values, defaults) = (config.values(), Config::default().values());
        let mut lines = Vec::new();
        for (section, row) in form::all() {
            let (value, default) = (get(&values, section, row), get(&defaults, section, row));
            let Some(value) = value.filter(|value| Some(*value) != default) else { continue };
            let name = full_name(section, row);
            let default = default.map_or_else(|| "none".to_owned(), ToString::to_string);
            let prefix = name.strip_suffix(row.name).unwrap_or_default();
            lines.push(format!("{prefix}{} ({}; default: {default})", line(row, value), self.shown_source(&name)));
        }
        if !config.rules.is_empty() {
            lines.push(format!("rules: {} ({})", config.rules.len(), self.shown_source("rules")));
        }
        let read = match self.file() {
            Some(file) => format!("ok: {}", file.display()),
            None => "ok: no file of settings is named (--config FILE)".to_owned(),
        };
        let count = match lines.len() {
            0 => "all settings have their defaults".to_owned(),
            1 => "1 setting differs from its default:".to_owned(),
            count => format!("{count} settings differ from their defaults:"),
        };
        let warnings = config.warnings().into_iter().map(|warning| format!("warning: {warning}"));
        Ok([read, count].into_iter().chain(lines).chain(warnings).fold(String::new(), |text, line| text + &line + "\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_also_in_words() {
        let shown = Config::default().to_toml();
        for line in ["message_bytes_max = 65536 # 64 KiB", "age_max_s = 86400 # 1 d", "timeout_ms = 2000 # 2 s"] {
            assert!(shown.lines().any(|shown| shown == line), "{line} in {shown}");
        }
        assert!(shown.lines().any(|line| line == "channels_max = 100000"), "{shown}");
    }

    #[test]
    fn all_values_of_a_configuration_are_shown() {
        let text = "loops = 2\n[auth]\naudience = \"us\"\nanonymous = { subscribe = [\"*\"], publish = [], presence = [] }\n\
                    keys = [{ id = \"a\", algorithm = \"EdDSA\", public_key = \"x\\ny\" }]\n[store]\npath = \"/tmp\"\n\
                    [[rules]]\nchannels = \"a\"\nage_max_s = 60\nsubscribe = \"token\"\n[[rules]]\nchannels = \"b\"\n";
        let config: Config = toml::from_str(text).expect("TOML");
        let again: Config = toml::from_str(&config.to_toml()).expect("TOML");
        assert_eq!(again.values(), config.values());
        assert_eq!(again.rules.len(), 2);
    }

    #[test]
    fn a_report_has_the_differences_and_their_sources() {
        let mut layers = Layers::new();
        assert_eq!(
            layers.report().expect("a report"),
            "ok: no file of settings is named (--config FILE)\nall settings have their defaults\n"
        );
        let variables =
            [("CCOMET_LIMITS_MESSAGE_BYTES_MAX", "128k"), ("CCOMET_HOOKS_SECRET", "sesame"), ("CCOMET_LOOPS", "2")];
        layers.read_environment(variables.map(|(name, value)| (name.into(), value.into()))).expect("good values");
        layers.set("--log", "log.level", "debug").expect("a level");
        layers.set("--front", "front.listen", "127.0.0.1:8100").expect("the default");
        let report = layers.report().expect("a report");
        for line in [
            "4 settings differ from their defaults:",
            "loops = 2 (CCOMET_LOOPS; default: none)",
            "limits.message_bytes_max = 131072 # 128 KiB (CCOMET_LIMITS_MESSAGE_BYTES_MAX; default: 65536)",
            "log.level = \"debug\" (--log; default: \"info\")",
            "hooks.secret = \"(secret)\" (CCOMET_HOOKS_SECRET; default: none)",
        ] {
            assert!(report.lines().any(|shown| shown == line), "{line} in {report}");
        }
    }
}
