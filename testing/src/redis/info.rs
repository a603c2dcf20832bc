//! What a Redis says of itself.

use super::process::Process;
use super::resp::Value;

/// Sections with their fields. An empty value is that of the process.
const SECTIONS: [(&str, &[(&str, &str)]); 4] = [
    ("Server", &[("redis_version", "7.0.15"), ("redis_mode", "standalone"), ("run_id", "")]),
    ("Memory", &[("used_memory", "1000000"), ("maxmemory", "0"), ("maxmemory_policy", "noeviction")]),
    ("Replication", &[("role", "master"), ("connected_slaves", "0")]),
    ("Cluster", &[("cluster_enabled", "0")]),
];

fn field(process: &Process, name: &str) -> String {
    let known = SECTIONS.iter().flat_map(|(_, fields)| fields.iter()).find(|(known, _)| *known == name);
    let own = known.map_or("", |(_, value)| value);
    match process.settings.info.get(name) {
        Some(value) => value.clone(),
        None if name == "run_id" => process.run_id.clone(),
        None => own.to_owned(),
    }
}

/// Returns the text of `INFO`.
pub(super) fn info(process: &Process, wanted: &[Vec<u8>]) -> String {
    let is_wanted = |section: &str| {
        let names = ["all", "default", "everything"].into_iter().chain([section]);
        let is_one = |given: &Vec<u8>| names.clone().any(|name| given.eq_ignore_ascii_case(name.as_bytes()));
        wanted.is_empty() || wanted.iter().any(is_one)
    };
    let sections = SECTIONS.iter().filter(|(name, _)| is_wanted(name)).map(|(name, fields)| {
        let lines = fields.iter().map(|(name, _)| format!("{name}:{}\r\n", field(process, name)));
        format!("# {name}\r\n{}", lines.collect::<String>())
    });
    sections.collect::<Vec<_>>().join("\r\n")
}

/// Returns the reply to `CONFIG GET`.
pub(super) fn config(process: &Process, wanted: &[Vec<u8>]) -> Value {
    let known = [("maxmemory", "maxmemory"), ("maxmemory-policy", "maxmemory_policy"), ("appendonly", "appendonly")];
    let is_wanted = |name: &str| wanted.iter().any(|wanted| wanted.eq_ignore_ascii_case(name.as_bytes()));
    let found = known.into_iter().filter(|(name, _)| is_wanted(name));
    Value::Map(found.map(|(name, of_info)| (name.into(), field(process, of_info).as_str().into())).collect())
}

/// Returns the reply to `HELLO`.
pub(super) fn hello(process: &Process, client: u64) -> Value {
    let text = |name: &str| -> Value { field(process, name).as_str().into() };
    let id = i64::try_from(client).unwrap_or(0);
    Value::Map(vec![
        ("server".into(), "redis".into()),
        ("version".into(), text("redis_version")),
        ("proto".into(), i64::from(process.protocol(client)).into()),
        ("id".into(), id.into()),
        ("mode".into(), text("redis_mode")),
        ("role".into(), text("role")),
        ("modules".into(), Value::Array(Vec::new())),
    ])
}
