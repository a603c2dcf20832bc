//! A TOML document of settings: checks names and types by the table, and replaces sizes and
//! durations in words with numbers.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::Deserialize;
use toml::de::{DeArray, DeTable, DeValue, Deserializer};

use super::form::{self, Form, similar};
use super::table::{Row, Section};
use super::words::Unit;
use super::{Config, parse_message, without_quotes};

/// The settings of a document.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) config: Config,
    /// The same as a table, with numbers in place of words.
    pub(super) table: toml::Table,
    /// The places of the settings, by their full names; those of the first rule are `rules[1].…`.
    pub(super) places: BTreeMap<String, Written>,
}

/// A setting as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Written {
    /// The number of the line of a file, from 1.
    pub(super) line: Option<usize>,
    /// A number, as it was written.
    pub(super) number: Option<String>,
}

/// The settings that a document has.
#[derive(Debug, Default)]
struct Found {
    /// Each setting, and the bytes of its value.
    all: Vec<(Place, Range<usize>)>,
    /// The values that are to be replaced, each with its replacement in TOML.
    replaced: Vec<(Place, String)>,
}

impl Found {
    fn add(&mut self, place: Place, value: &toml::Spanned<DeValue<'_>>) -> Result<(), At> {
        let with = place.replacement(value.get_ref()).map_err(|message| (value.span().start, message))?;
        self.replaced.extend(with.map(|with| (place, with)));
        self.all.push((place, value.span()));
        Ok(())
    }
}

/// A fault of a document.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// The number of the line, from 1. `None` if the message has the place.
    line: Option<usize>,
    message: String,
    /// What is wrong, without the place, if `message` has more than that.
    plain: Option<String>,
}

impl Fault {
    /// Returns the message for the value of a setting that is not in a file. It does not quote a
    /// secret.
    pub(super) fn of_setting(self, setting: &str, is_secret: bool) -> String {
        match self.plain {
            Some(plain) if is_secret => format!("{setting}: {}", without_quotes(&plain)),
            Some(plain) => format!("{setting}: {plain}"),
            None => self.message,
        }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

/// The place of a value: the section, the number of the rule, and the name.
#[derive(Debug, Clone, Copy)]
struct Place {
    section: &'static Section,
    rule: Option<usize>,
    row: &'static Row,
}

/// A fault at a byte of a document.
type At = (usize, String);

/// Reads a document.
pub(super) fn read(text: &str) -> Result<Document, Fault> {
    let of_toml = |mut error: toml::de::Error| {
        error.set_input(Some(text));
        let plain = error.message().to_owned();
        Fault { line: None, message: parse_message(text, &error), plain: Some(plain) }
    };
    let line_of = |at: usize| Some(text.get(..at).unwrap_or(text).matches('\n').count() + 1);
    let original = DeTable::parse(text).map_err(|error| {
        let at = error.span().map(|span| span.start);
        match at.and_then(|at| Some((at, bare_word(text, at)?))) {
            Some((at, message)) => Fault { line: line_of(at), plain: Some(message.clone()), message },
            None => of_toml(error),
        }
    })?;
    let Found { all, replaced } =
        check(original.get_ref()).map_err(|(at, message)| Fault { line: line_of(at), message, plain: None })?;
    let mut table = DeTable::parse(text).map_err(of_toml)?;
    for (place, with) in &replaced {
        if let Some(value) = value_mut(table.get_mut(), *place) {
            *value = DeValue::parse(with).map_err(of_toml)?.into_inner();
        }
    }
    let of_value = |error: toml::de::Error| {
        let at = error.span().map_or(usize::MAX, |span| span.start);
        let Some((place, span)) = all.iter().find(|(_, span)| span.contains(&at)) else { return of_toml(error) };
        let plain = place.plain(error.message());
        Fault { line: line_of(span.start), message: format!("{}: {plain}", place.shown()), plain: Some(plain) }
    };
    let written = |(place, span): &(Place, Range<usize>)| {
        let number = text.get(span.clone()).filter(|_| matches!(place.row.form(), Form::Number(_))).map(shortened);
        (place.key(), Written { line: line_of(span.start), number })
    };
    Ok(Document {
        config: Config::deserialize(Deserializer::from(table.clone())).map_err(of_value)?,
        table: toml::Table::deserialize(Deserializer::from(table)).map_err(of_toml)?,
        places: all.iter().map(written).collect(),
    })
}

/// Returns what is wrong with a line at whose value the document ends to be TOML, if the value is
/// meant as a truth value.
fn bare_word(text: &str, at: usize) -> Option<String> {
    let start = text.get(..at)?.rfind('\n').map_or(0, |end| end + 1);
    let (name, value) = text.get(start..)?.lines().next()?.split_once('=')?;
    let value = value.split('#').next()?.trim();
    let is_meant = ["true", "false", "yes", "no", "on", "off"].iter().any(|word| value.eq_ignore_ascii_case(word));
    let heading = text.get(..start)?.lines().rev().find(|line| line.starts_with('['));
    let table = heading.and_then(|line| line.trim_start_matches('[').split(']').next());
    let name = table.map_or_else(|| name.trim().to_owned(), |table| format!("{table}.{}", name.trim()));
    is_meant.then(|| format!("{name} = {value}: allowed is true or false, in lower case and without quotes"))
}

/// Checks the names and types of all settings, and returns them.
fn check(document: &DeTable<'_>) -> Result<Found, At> {
    let mut found = Found::default();
    for (key, value) in document {
        let (name, at) = (key.get_ref().as_ref(), value.span().start);
        match (form::section(name), value.get_ref()) {
            _ if name == form::of_rules().name => {
                let rules = value.get_ref().as_array().ok_or_else(|| (at, not_rules()))?;
                check_rules(rules, &mut found)?;
            }
            (Some(section), DeValue::Table(table)) if !name.is_empty() => {
                check_section(section, None, table, &mut found)?;
            }
            (Some(section), _) => return Err((key.span().start, not_a_table(section))),
            (None, _) => {
                let top = form::section("").map_or(&[][..], |top| top.rows);
                let Some(row) = top.iter().find(|row| row.name == name) else {
                    return Err((key.span().start, unknown_outside(name, value.get_ref().is_table())));
                };
                let place = Place { section: form::section("").unwrap_or(form::of_rules()), rule: None, row };
                found.add(place, value)?;
            }
        }
    }
    Ok(found)
}

fn check_rules(rules: &DeArray<'_>, found: &mut Found) -> Result<(), At> {
    for (index, rule) in rules.iter().enumerate() {
        let table = rule.get_ref().as_table().ok_or_else(|| (rule.span().start, not_rules()))?;
        check_section(form::of_rules(), Some(index), table, found)?;
        if !table.contains_key("channels") {
            let missing = "has no channels: name those to which it applies, such as channels = \"chat.*\"";
            return Err((rule.span().start, format!("rule {} {missing}", index + 1)));
        }
    }
    Ok(())
}

fn check_section(
    section: &'static Section,
    rule: Option<usize>,
    table: &DeTable<'_>,
    found: &mut Found,
) -> Result<(), At> {
    for (key, value) in table {
        let name: &str = key.get_ref();
        let Some(row) = section.rows.iter().find(|row| row.name == name) else {
            return Err((key.span().start, unknown_in(section, name)));
        };
        let place = Place { section, rule, row };
        found.add(place, value)?;
    }
    Ok(())
}

/// Returns the value at a place.
fn value_mut<'t, 'i>(document: &'t mut DeTable<'i>, place: Place) -> Option<&'t mut DeValue<'i>> {
    if place.section.name.is_empty() {
        return Some(document.get_mut(place.row.name)?.get_mut());
    }
    let section = document.get_mut(place.section.name)?.get_mut();
    let section = match (place.rule, section) {
        (Some(index), DeValue::Array(rules)) => rules.get_mut(index)?.get_mut(),
        (_, section) => section,
    };
    let DeValue::Table(table) = section else { return None };
    Some(table.get_mut(place.row.name)?.get_mut())
}

impl Place {
    /// Returns the name, with the number of the rule.
    fn shown(&self) -> String {
        let name = form::full_name(self.section, self.row);
        self.rule.map_or_else(|| name.clone(), |index| format!("rule {}: {name}", index + 1))
    }

    /// Returns the name by which [`Document::places`] has the place.
    fn key(&self) -> String {
        match self.rule {
            Some(index) => format!("rules[{}].{}", index + 1, self.row.name),
            None => form::full_name(self.section, self.row),
        }
    }

    /// Returns what is wrong with the value, from the message of its type.
    fn plain(&self, message: &str) -> String {
        let message = if self.row.is_secret() { without_quotes(message) } else { message.to_owned() };
        let Some(found) = message.strip_suffix(", expected a sequence") else { return message };
        match found.strip_prefix("invalid type: string ") {
            Some(text) => format!("{text} is a text: allowed is a list of texts, such as [{text}]"),
            None => format!("{found}: allowed is a list of texts, such as [\"news\"]"),
        }
    }

    /// Checks the type of a value. Returns what is to replace it, if it is in words.
    fn replacement(&self, value: &DeValue<'_>) -> Result<Option<String>, String> {
        match (self.row.form(), value) {
            (Form::Number(_), DeValue::Integer(number))
                if self.row.kind.contains("NonZero") && number.as_str() == "0" =>
            {
                Err(self.refusal(value, "is too small", "a whole number of at least 1"))
            }
            (Form::Number(unit), DeValue::Integer(number)) => {
                let number = u64::from_str_radix(number.as_str(), number.radix());
                if number.is_ok_and(|number| number <= self.greatest()) {
                    return Ok(None);
                }
                Err(self.refusal(value, "is negative or too large", unit.allowed()))
            }
            (Form::Number(unit), DeValue::String(text)) if unit != Unit::Count => match unit.parse(text) {
                Ok(number) if number <= self.greatest() => Ok(Some(number.to_string())),
                Ok(_) => Err(self.refusal(value, "is too large", unit.allowed())),
                Err(why) => Err(self.refusal(value, &why, unit.allowed())),
            },
            (Form::Number(unit), _) => Err(self.wrong_type(value, unit.allowed())),
            // A port alone.
            (Form::Text, DeValue::Integer(number)) if self.row.kind == "Address" => {
                Ok(Some(format!("\"{}\"", number.as_str())))
            }
            (Form::Switch, DeValue::Boolean(_))
            | (Form::Text, DeValue::String(_))
            | (Form::List, DeValue::Array(_))
            | (Form::Table, DeValue::Table(_)) => Ok(None),
            (Form::Switch, _) => Err(self.wrong_type(value, "true or false, in lower case and without quotes")),
            (Form::Text, _) => Err(self.wrong_type(value, "a text in quotes")),
            (Form::List, _) if self.row.kind == "Vec<Key>" => {
                Err(self.wrong_type(value, "a list of tables, such as [{ id = \"main\", secret = \"…\" }]"))
            }
            (Form::List, DeValue::String(text)) if !self.row.is_secret() => {
                Err(self.wrong_type(value, &format!("a list of texts, such as [{:?}]", shortened(text))))
            }
            (Form::List, _) => Err(self.wrong_type(value, "a list of texts, such as [\"one\", \"two\"]")),
            (Form::Table, _) => {
                let allowed = format!("a table, such as {}", self.row.example_of_table());
                Err(self.wrong_type(value, &allowed))
            }
        }
    }

    /// Returns the greatest number of the type.
    fn greatest(&self) -> u64 {
        Row { range: None, default: "", ..*self.row }.bounds().1
    }

    fn wrong_type(&self, value: &DeValue<'_>, allowed: &str) -> String {
        let is = match value {
            DeValue::String(_) => "is a text",
            DeValue::Integer(_) | DeValue::Float(_) => "is a number",
            DeValue::Boolean(_) => "is a truth value",
            DeValue::Datetime(_) => "is a date",
            DeValue::Array(_) => "is a list",
            DeValue::Table(_) => "is a table",
        };
        self.refusal(value, is, allowed)
    }

    fn refusal(&self, value: &DeValue<'_>, why: &str, allowed: &str) -> String {
        let name = self.shown();
        let shown = match value {
            _ if self.row.is_secret() => String::new(),
            DeValue::String(text) => format!(" = {:?}", shortened(text)),
            DeValue::Integer(number) => format!(" = {}", shortened(&number.to_string())),
            DeValue::Float(number) => format!(" = {}", shortened(&number.to_string())),
            DeValue::Boolean(truth) => format!(" = {truth}"),
            _ => String::new(),
        };
        let range = match (self.row.form(), self.row.range) {
            (Form::Number(_), Some(range)) => format!("; the range is {}", range.replace('_', ",")),
            _ => String::new(),
        };
        format!("{name}{shown} {why}: allowed is {allowed}{range}")
    }
}

/// Returns the start of a text, for messages.
fn shortened(text: &str) -> String {
    const CHARS_MAX: usize = 60;
    if text.chars().count() <= CHARS_MAX {
        return text.to_owned();
    }
    text.chars().take(CHARS_MAX).chain(['…']).collect()
}

fn not_rules() -> String {
    "rules is a list of tables: each begins with the line [[rules]]".to_owned()
}

fn not_a_table(section: &Section) -> String {
    format!("{0} is a table of settings: it begins with the line [{0}]", section.name)
}

/// Returns the message for a name outside of the tables.
fn unknown_outside(name: &str, is_table: bool) -> String {
    let name = &*shortened(name);
    if is_table {
        let names = form::all().map(|(section, _)| section.name).chain([form::of_rules().name]);
        let similar = similar(name, names.filter(|name| !name.is_empty()));
        return format!("there is no table [{name}]{similar}. `ccomet config --reference` lists all tables");
    }
    let in_tables = form::all().filter(|(_, row)| row.name == name).map(|(section, _)| format!("[{}]", section.name));
    match in_tables.collect::<Vec<_>>().join(", ") {
        tables if tables.is_empty() => {
            let similar = similar(name, form::all().map(|(_, row)| row.name));
            format!("there is no setting {name}{similar}. `ccomet config --reference` lists all settings")
        }
        tables => format!("there is no setting {name} outside of the tables: it belongs to {tables}"),
    }
}

/// Returns the message for a name that a section does not have.
fn unknown_in(section: &Section, name: &str) -> String {
    let name = &*shortened(name);
    // The address of a listener includes its port.
    if section.rows.iter().any(|row| row.name == "listen")
        && ["port", "bind", "address", "addr", "host"].contains(&name)
    {
        let table = section.name;
        return format!(
            "[{table}] has no setting {name}. There is {table}.listen, such as listen = \"127.0.0.1:8100\""
        );
    }
    let here = similar(name, section.rows.iter().map(|row| row.name));
    let elsewhere = form::all().filter(|(other, row)| row.name == name && other.name != section.name);
    let elsewhere: Vec<String> = elsewhere.map(|(section, row)| form::full_name(section, row)).collect();
    let hint = if elsewhere.is_empty() { here } else { format!(". There is {}", elsewhere.join(", ")) };
    let heading =
        if section.name == form::of_rules().name { "[[rules]]".to_owned() } else { format!("[{}]", section.name) };
    format!("{heading} has no setting {name}{hint}. `ccomet config --reference` lists all settings")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations_in_words_are_numbers() {
        let document = read(
            "[limits]\nmessage_bytes_max = \"128k\"\n[times]\nheartbeat_s = \"2m\"\n[hooks]\ntimeout_ms = \"1s\"\n\
             [[rules]]\nchannels = \"a\"\n[[rules]]\nchannels = \"b\"\nbytes_max = \"3 MiB\"\nage_max_s = \"7d\"\n",
        )
        .expect("TOML");
        let config = &document.config;
        assert_eq!(
            (config.limits.message_bytes_max, config.times.heartbeat_s, config.hooks.timeout_ms),
            (131_072, 120, 1_000)
        );
        assert_eq!((config.rules[0].bytes_max, config.rules[1].bytes_max), (None, Some(3 << 20)));
        assert_eq!(config.rules[1].age_max_s, Some(604_800));
        assert_eq!(document.table["limits"]["message_bytes_max"].as_integer(), Some(131_072));
    }

    #[test]
    fn a_refusal_has_the_line_the_setting_the_value_and_what_is_allowed() {
        for (text, parts) in [
            (
                "[limits]\n\nmessage_bytes_max = \"64q\"",
                ["line 3: limits.message_bytes_max = \"64q\" has the unknown unit \"q\"", "1 B to 8 MiB", "\"64k\""],
            ),
            ("[limits]\nmessage_bytes_max = \"64kB\"", ["two sizes", "powers of 1,024", "64k"]),
            (
                "[limits]\nbody_bytes_max = \"99999999T\"",
                ["limits.body_bytes_max = \"99999999T\" is too large", "", ""],
            ),
            (
                "[limits]\nbody_bytes_max = -1",
                ["limits.body_bytes_max = -1 is negative or too large", "at least 1 B", ""],
            ),
            ("[limits]\npublishes_per_address_minute = 99999999999", ["too large", "1 to 60,000,000", ""]),
            (
                "[limits]\nchannels_max = \"100k\"",
                ["limits.channels_max = \"100k\" is a text", "without a unit", "at least 1"],
            ),
            ("[times]\nheartbeat_s = \"1500ms\"", ["is not a whole number of seconds", "\"15m\"", "86,400 s"]),
            ("[times]\nheartbeat_s = 1.5", ["times.heartbeat_s = 1.5 is a number", "a number of seconds", ""]),
            ("[front]\ndemo = \"yes\"", ["line 2: front.demo = \"yes\" is a text", "true or false", ""]),
            ("[front]\nallow = \"10.0.0.0/8\"", ["front.allow", "list of texts", "[\"10.0.0.0/8\"]"]),
            ("[front]\nhosts = 5\n", ["front.hosts = 5", "list of texts", ""]),
            ("[auth]\nanonymous = 5\n", ["auth.anonymous = 5", "a table", ""]),
            ("loops = \"two\"\n", ["loops = \"two\" is a text", "a whole number", "1 to 1,024"]),
            ("loops = 0\n", ["loops = 0", "a whole number of at least 1", ""]),
            ("[front]\ndemo = no\n", ["line 2: front.demo = no: allowed is true or false, in lower case", "", ""]),
            ("front.demo = True # yes\n[log]\n", ["line 1: front.demo = True: allowed is true or false", "", ""]),
            ("[front]\nport = 80\n", ["line 2: [front] has no setting port. There is front.listen", "", ""]),
            ("[admin]\nbind = \"\"\n", ["admin.listen", "", ""]),
            ("[front]\n\nlisten = \"localhost\"\n", ["line 3: front.listen: ", "the port is missing", ""]),
            ("[store]\nsync = \"always\"\n", ["line 2: store.sync: ", "commit", ""]),
            (
                "[auth]\nanonymous = { subscribe = \"news\" }",
                ["line 2: auth.anonymous: ", "\"news\" is a text: allowed is a list of texts, such as [\"news\"]", ""],
            ),
            (
                "[[rules]]\nchannels = \"a\"\n[[rules]]\nmessages_max = 5\n",
                ["line 3: rule 2 has no channels", "channels = \"chat.*\"", ""],
            ),
            (
                "[[rules]]\nchannels = \"a\"\nmessages_max = \"x\"\n",
                ["line 3: rule 1: rules.messages_max = \"x\"", "", ""],
            ),
            ("rules = 5\n", ["line 1: rules is a list of tables", "[[rules]]", ""]),
            ("front = 5\n", ["front is a table of settings", "[front]", ""]),
            (
                "[limits]\nmessage_byte_max = 5",
                ["line 2: [limits] has no setting message_byte_max", "Similar names: message_bytes_max", ""],
            ),
            ("[limits]\nheartbeat_s = 5", ["[limits] has no setting heartbeat_s", "There is times.heartbeat_s", ""]),
            ("[[rules]]\nchannel = \"*\"", ["line 2: [[rules]] has no setting channel", "channels", ""]),
            ("[limit]\nchannels_max = 5", ["there is no table [limit]", "Similar names: limits", ""]),
            ("listen = \"localhost:1\"", ["there is no setting listen outside of the tables", "[front], [admin]", ""]),
        ] {
            let refused = read(text).expect_err(text).to_string();
            assert!(parts.iter().all(|part| refused.contains(part)), "{text}: {refused}");
        }
    }

    #[test]
    fn a_refusal_does_not_show_a_secret() {
        for text in ["[hooks]\nsecret = 123456", "[admin]\nkeys = \"sesame, open\"", "[auth]\nkeys = \"sesame\""] {
            let refused = read(text).expect_err(text).to_string();
            assert!(!refused.contains("123456") && !refused.contains("sesame"), "{refused}");
        }
    }
}
