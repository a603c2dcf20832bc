//! A file of settings to begin with: all settings as comments, and fresh secrets.

use std::fmt::Write;

use super::Config;
use super::form::{self, Form, full_name};
use super::table::{Row, Section};
use super::words::Unit;

const WIDTH: usize = 96;

const INTRODUCTION: &str = "\
Settings of ccomet. A line '#name = value' is a setting at its default: to change the setting, remove the '#' and \
edit the value. 'ccomet check-config --config FILE' checks the file and prints what differs from the defaults.

A size is a number of bytes, or a text with a unit in powers of 1,024: B, k (KiB), M (MiB), G (GiB), T (TiB). A \
duration is a number in the unit of the name (_s, _ms), or a text with the unit ms, s, m, h or d.

The keys below are secret: only the user of the server should be able to read this file.";

impl Config {
    /// Returns the text of a file with all settings. They are at their defaults, as comments with
    /// their documentation; only the two secrets are set: that of a key for tokens, with the id
    /// `main`, and the key of the admin listener. They should be random, of 32 and 16 bytes or
    /// more.
    pub fn template(token_secret: &str, admin_key: &str) -> String {
        let mut text = String::new();
        comment(&mut text, INTRODUCTION);
        let mut heading = "";
        for (section, row) in form::all() {
            if section.name != heading {
                heading = section.name;
                text.push('\n');
                comment(&mut text, section.meaning);
                let _ = writeln!(text, "[{heading}]");
            }
            text.push('\n');
            describe(&mut text, row);
            match full_name(section, row).as_str() {
                "auth.keys" => {
                    comment(
                        &mut text,
                        "With this key, every client of the front needs a token: `ccomet token` makes one.",
                    );
                    let secret = toml::Value::from(token_secret);
                    let _ = writeln!(text, "keys = [{{ id = \"main\", algorithm = \"HS256\", secret = {secret} }}]");
                }
                "admin.keys" => {
                    let _ = writeln!(text, "keys = [{}]", toml::Value::from(admin_key));
                }
                _ => {
                    let _ = writeln!(text, "#{} = {}", row.name, shown(section, row));
                }
            }
        }
        rules(&mut text);
        text
    }
}

/// Writes the rules, with an example.
fn rules(text: &mut String) {
    let section = form::of_rules();
    text.push('\n');
    comment(text, section.meaning);
    text.push_str("#[[rules]]\n");
    for row in section.rows {
        text.push('\n');
        describe(text, row);
        let _ = writeln!(text, "#{} = {}", row.name, shown(section, row));
    }
}

/// Writes the documentation of a setting.
fn describe(text: &mut String, row: &Row) {
    let range = match row.range {
        Some(range) => format!(" Range: {}.", range.replace('_', ",")),
        None => String::new(),
    };
    let default = match row.default {
        "none" => " No default; the value is an example.".to_owned(),
        default if default.starts_with('`') => format!(" Default: {default}; the value is an example."),
        _ => String::new(),
    };
    comment(text, &format!("{}{range}{default}", row.meaning));
}

/// Returns the default of a setting, or an example, as TOML.
fn shown(section: &Section, row: &Row) -> String {
    let is_example = row.default == "none" || row.default.starts_with('`');
    match (full_name(section, row).as_str(), row.form()) {
        ("loops", _) => "4".to_owned(),
        ("store.path", _) => "\"/var/lib/ccomet\"".to_owned(),
        ("store.redis", _) => "\"redis://127.0.0.1\"".to_owned(),
        ("store.redis_ca", _) => "\"/etc/ccomet/redis-ca.pem\"".to_owned(),
        ("auth.jwks_file", _) => "\"/etc/ccomet/jwks.json\"".to_owned(),
        ("rules.channels", _) => "\"chat.*\"".to_owned(),
        (_, Form::Table) => row.example_of_table().to_owned(),
        ("rules.age_max_s", _) => "\"7 d\"".to_owned(),
        (_, Form::Number(Unit::Bytes)) if is_example => "\"64 KiB\"".to_owned(),
        (_, Form::Number(_)) if is_example => row.bounds().0.max(100).to_string(),
        (_, Form::Number(Unit::Count)) => row.default.replace('_', ""),
        (_, Form::Number(_)) => format!("{:?}", row.default.replace('_', "")),
        (_, Form::List) if is_example => "[]".to_owned(),
        (_, Form::Switch) if is_example => "false".to_owned(),
        (_, Form::Text) if is_example => "\"example\"".to_owned(),
        _ => row.default.to_owned(),
    }
}

/// Returns a text without the addresses of its links, which lead nowhere in a file.
fn without_links(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("](") {
        let Some(((start, name), (_, end))) = before.rsplit_once('[').zip(after.split_once(')')) else { break };
        plain.push_str(start);
        plain.push_str(name);
        rest = end;
    }
    plain + rest
}

/// Writes a text as comments, with lines that fit the width.
fn comment(text: &mut String, paragraphs: &str) {
    for paragraph in without_links(paragraphs).lines() {
        let mut line = "#".to_owned();
        for word in paragraph.split_whitespace() {
            if line.len() + 1 + word.len() > WIDTH {
                let _ = writeln!(text, "{line}");
                "#".clone_into(&mut line);
            }
            line.push(' ');
            line.push_str(word);
        }
        let _ = writeln!(text, "{line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::document;

    const SECRETS: [&str; 2] = ["a secret of more than thirty-two bytes", "sixteen-or-more-bytes"];

    fn template() -> String {
        Config::template(SECRETS[0], SECRETS[1])
    }

    #[test]
    fn a_template_sets_the_secrets_alone() {
        let config = document::read(&template()).expect("TOML").config;
        config.check().expect("a good configuration");
        assert_eq!((config.auth.keys.len(), config.admin.keys.len()), (1, 1));
        let mut plain = config;
        plain.auth.keys.clear();
        plain.admin.keys.clear();
        assert_eq!(plain.to_toml(), Config::default().to_toml());
        assert!(template().lines().all(|line| line.len() <= 2 * WIDTH), "lines fit");
        let words = template().split_whitespace().filter(|word| *word != "#").collect::<Vec<_>>().join(" ");
        assert!(!words.contains("](") && words.contains("(rules by name)"), "there are no links");
    }

    #[test]
    fn the_commented_settings_are_all_settings_at_their_defaults() {
        let is_setting = |line: &&str| !line.starts_with("# ") && *line != "#";
        let uncommented = |line: &str| line.strip_prefix('#').unwrap_or(line).to_owned() + "\n";
        let all: String = template().lines().filter(is_setting).map(uncommented).collect();
        let read = document::read(&all).expect(&all);
        let mut config = read.config.clone();
        // These files do not exist.
        (config.front.tls, config.admin.tls, config.auth.jwks_file) = (None, None, None);
        // It excludes a path.
        config.store.redis = None;
        config.check().expect(&all);
        let defaults = toml::Table::try_from(Config::default()).expect("TOML");
        for (section, row) in form::all() {
            let name = full_name(section, row);
            let table = if section.name.is_empty() { Some(&read.table) } else { read.table[section.name].as_table() };
            let value = table.and_then(|table| table.get(row.name)).unwrap_or_else(|| panic!("{name} is missing"));
            let default = defaults.get(section.name).and_then(|table| table.get(row.name));
            if let Some(default) = default.filter(|_| row.name != "keys") {
                assert_eq!(value, default, "{name}");
            }
        }
        assert_eq!(read.config.rules.len(), 1);
    }
}
