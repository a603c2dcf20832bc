//! The JSON Schema of a file of settings, with which editors complete and check it.

use serde_json::{Map, Value, json};

use super::Config;
use super::form::{self, Form};
use super::reference::values;
use super::table::{Row, Section};
use super::words::Unit;

impl Config {
    /// Returns the JSON Schema (draft 2020-12) of a file of settings, for editors: the names,
    /// types, ranges, defaults and documentation of all settings.
    pub fn schema() -> String {
        let defaults = serde_json::to_value(Self::default()).unwrap_or_default();
        let mut root = Map::new();
        for (section, row) in form::all() {
            if section.name.is_empty() {
                root.insert(row.name.to_owned(), property(row, None));
            } else if !root.contains_key(section.name) {
                root.insert(section.name.to_owned(), table(section, defaults.get(section.name)));
            }
        }
        let mut rule = table(form::of_rules(), None);
        rule["required"] = json!(["channels"]);
        let about = form::of_rules().meaning;
        root.insert(
            form::of_rules().name.to_owned(),
            json!({ "type": "array", "maxItems": 1_000, "description": about, "items": rule }),
        );
        let schema = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": "Settings of ccomet",
            "type": "object",
            "additionalProperties": false,
            "properties": root,
        });
        format!("{schema:#}\n")
    }
}

/// Returns the schema of a table.
fn table(section: &Section, defaults: Option<&Value>) -> Value {
    let rows = section.rows.iter();
    let of = |row: &Row| property(row, defaults.and_then(|defaults| defaults.get(row.name)));
    let properties: Map<String, Value> = rows.map(|row| (row.name.to_owned(), of(row))).collect();
    json!({
        "type": "object",
        "description": section.meaning,
        "additionalProperties": false,
        "properties": properties,
    })
}

/// Returns the schema of a setting.
fn property(row: &Row, default: Option<&Value>) -> Value {
    let mut schema = match row.form() {
        Form::Switch => json!({ "type": "boolean" }),
        Form::Number(unit) => number(row, unit),
        Form::Text if row.kind == "Address" => json!({ "type": ["string", "integer"] }),
        Form::Text => text(values(row.kind)),
        Form::List if row.kind == "Vec<Key>" => json!({ "type": "array", "items": { "type": "object" } }),
        Form::List if row.kind == "Vec<Api>" => {
            json!({ "type": "array", "items": { "enum": default }, "uniqueItems": true })
        }
        Form::List => json!({ "type": "array", "items": { "type": "string" } }),
        Form::Table => json!({ "type": "object" }),
    };
    schema["description"] = row.meaning.into();
    if let Some(default) = default {
        schema["default"] = default.clone();
    }
    schema
}

fn number(row: &Row, unit: Unit) -> Value {
    let (min, max) = row.bounds();
    let mut number = json!({ "type": "integer", "minimum": min });
    // An upper bound of the type alone is of no use to a reader.
    if row.range.is_some_and(|range| range.contains(" to ")) {
        number["maximum"] = max.into();
    }
    let pattern = match unit {
        Unit::Count => return number,
        Unit::Bytes => "^ *[0-9][0-9_]* *([bB]|[kKmMgGtT]([iI][bB])?)? *$",
        Unit::Seconds | Unit::Milliseconds => "^ *[0-9][0-9_]* *(ms|s|m|min|h|d)? *$",
    };
    json!({ "anyOf": [number, { "type": "string", "pattern": pattern }] })
}

/// Returns the schema of a text, from the description of its values in the reference: `a`, `b` are
/// all values that exist.
fn text(values: &str) -> Value {
    let quoted = |value: &str| value.strip_prefix('`')?.strip_suffix('`').map(str::to_owned);
    match values.split(", ").map(quoted).collect::<Option<Vec<String>>>() {
        Some(values) => json!({ "enum": values }),
        None => json!({ "type": "string" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_has_every_setting_with_its_default() {
        let schema: Value = serde_json::from_str(&Config::schema()).expect("JSON");
        let defaults = serde_json::to_value(Config::default()).expect("JSON");
        for (section, row) in form::all().chain(form::of_rules().rows.iter().map(|row| (form::of_rules(), row))) {
            let root = &schema["properties"];
            let property = match section.name {
                "" => &root[row.name],
                "rules" => &root["rules"]["items"]["properties"][row.name],
                name => &root[name]["properties"][row.name],
            };
            assert!(property["description"].is_string(), "{}.{}", section.name, row.name);
            let default = defaults.get(section.name).and_then(|table| table.get(row.name));
            assert_eq!(property.get("default"), default, "{}.{}", section.name, row.name);
        }
        let of = |path: &str| schema.pointer(&path.replace('.', "/properties/")).cloned().expect(path);
        assert_eq!(of(".store.sync")["enum"], json!(["commit", "interval", "never"]));
        assert_eq!(of(".hooks.timeout_ms")["anyOf"][0], json!({ "type": "integer", "minimum": 1, "maximum": 60_000 }));
        assert_eq!(of(".limits.message_bytes_max")["anyOf"][1]["type"], "string");
        assert_eq!(of(".front.apis")["items"]["enum"], json!(["native", "classic", "icomet"]));
    }
}
