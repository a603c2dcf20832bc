//! The form of a setting's value, from its row in the table.

use super::reference::{ROWS, TOP};
use super::rules::Rule;
use super::table::{Row, Section, Settings};
use super::words::Unit;

/// The greatest number that TOML has.
const NUMBER_MAX: u64 = i64::MAX as u64;

/// The form of a value in TOML.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Switch,
    Number(Unit),
    Text,
    List,
    Table,
}

impl Row {
    /// Returns the form of the values.
    pub(crate) fn form(&self) -> Form {
        let kind = self.kind.strip_prefix("Option<").and_then(|kind| kind.strip_suffix('>')).unwrap_or(self.kind);
        match kind {
            "bool" => Form::Switch,
            "u16" | "u32" | "u64" | "usize" | "NonZeroUsize" => Form::Number(self.unit()),
            "Anonymous" | "Tls" => Form::Table,
            list if list.starts_with("Vec<") => Form::List,
            _ => Form::Text,
        }
    }

    /// Returns an example of a table.
    pub(crate) fn example_of_table(&self) -> &'static str {
        if self.kind.contains("Tls") {
            "{ cert = \"/etc/ccomet/fullchain.pem\", key = \"/etc/ccomet/privkey.pem\" }"
        } else {
            "{ subscribe = [\"news.*\"], publish = [], presence = [] }"
        }
    }

    /// Returns the unit of a number, which its default or its range has.
    fn unit(&self) -> Unit {
        let in_unit = |unit: &str| {
            let ends = |text: &str| text.ends_with(unit);
            ends(self.default) || self.range.is_some_and(ends)
        };
        match () {
            () if [" B", " KiB", " MiB", " GiB"].iter().any(|unit| in_unit(unit)) => Unit::Bytes,
            () if in_unit(" ms") => Unit::Milliseconds,
            () if in_unit(" s") => Unit::Seconds,
            () => Unit::Count,
        }
    }

    /// Returns the least and the greatest number of the range.
    pub(crate) fn bounds(&self) -> (u64, u64) {
        let greatest = match self.kind {
            "u16" => u64::from(u16::MAX),
            "u32" => u64::from(u32::MAX),
            _ if self.unit() == Unit::Seconds => NUMBER_MAX / 1_000,
            _ => NUMBER_MAX,
        };
        let number = |text: &str| Unit::Bytes.parse(text.trim_end_matches([' ', 'm', 's'])).ok();
        let Some(range) = self.range else { return (0, greatest) };
        match range.split_once(" to ") {
            Some((min, max)) => (number(min).unwrap_or(0), number(max).unwrap_or(greatest)),
            None => (range.strip_prefix("at least ").and_then(number).unwrap_or(0), greatest),
        }
    }

    /// Returns whether the value contains a secret, which no message shows.
    pub(crate) fn is_secret(&self) -> bool {
        ["Secret", "Key", "RedisUrl"].iter().any(|kind| self.kind.contains(kind))
    }
}

/// Returns all settings outside of `[[rules]]`, with their sections, in the order of the file. The
/// section of a setting outside of the tables has an empty name.
pub(crate) fn all() -> impl Iterator<Item = (&'static Section, &'static Row)> {
    [&TOP].into_iter().chain(&ROWS).flat_map(|section| section.rows.iter().map(move |row| (section, row)))
}

/// Returns the name of a setting, with that of its section.
pub(crate) fn full_name(section: &Section, row: &Row) -> String {
    if section.name.is_empty() { row.name.to_owned() } else { format!("{}.{}", section.name, row.name) }
}

/// Returns the section with that name.
pub(crate) fn section(name: &str) -> Option<&'static Section> {
    [&TOP].into_iter().chain(&ROWS).find(|section| section.name == name)
}

/// Returns the section of rules.
pub(crate) fn of_rules() -> &'static Section {
    const { &Rule::SECTION }
}

/// Returns the names that resemble one, most similar first, as the end of a message; empty if there
/// are none.
pub(crate) fn similar<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    let names = nearest(name, names);
    if names.is_empty() { String::new() } else { format!(". Similar names: {}", names.join(", ")) }
}

/// The longest text that can be meant as a name.
const NAME_BYTES_MAX: usize = 100;

/// Returns at most three names that resemble one, most similar first.
pub(crate) fn nearest<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    // The comparison of a long text takes long, and no name resembles it.
    if name.len() > NAME_BYTES_MAX {
        return Vec::new();
    }
    let score = |other: &str| strsim::jaro_winkler(&name.to_lowercase(), &other.to_lowercase());
    let mut found: Vec<(f64, &str)> = names.into_iter().map(|other| (score(other), other)).collect();
    found.retain(|(score, _)| *score > 0.85);
    found.sort_by(|a, b| b.0.total_cmp(&a.0));
    found.dedup();
    found.into_iter().take(3).map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_of_a_number_agrees_with_its_name() {
        let rules = of_rules().rows.iter().map(|row| (of_rules(), row));
        for (section, row) in all().chain(rules) {
            let Form::Number(unit) = row.form() else { continue };
            let expected = match row.name {
                name if name.ends_with("_ms") => Unit::Milliseconds,
                name if name.ends_with("_s") => Unit::Seconds,
                name if name.contains("bytes") => Unit::Bytes,
                _ => Unit::Count,
            };
            assert_eq!(unit, expected, "{}", full_name(section, row));
        }
    }

    #[test]
    fn the_form_of_a_setting_is_that_of_its_default() {
        for (section, row) in all().filter(|(_, row)| row.range.is_none() && row.default != "none") {
            let value: toml::Value =
                toml::from_str::<toml::Table>(&format!("it = {}", row.default)).expect("TOML")["it"].clone();
            let form = match value {
                toml::Value::Boolean(_) => Form::Switch,
                toml::Value::Array(_) => Form::List,
                toml::Value::Table(_) => Form::Table,
                _ => Form::Text,
            };
            assert_eq!(row.form(), form, "{}", full_name(section, row));
        }
    }

    #[test]
    fn similar_names_are_named() {
        let names = ["message_bytes_max", "messages_max", "channels_max"];
        assert!(similar("message_byte_max", names).starts_with(". Similar names: message_bytes_max"));
        assert_eq!(similar("zzz", names), "");
    }
}
