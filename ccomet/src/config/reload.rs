//! What changes if the settings of a running server are read anew.

use super::Config;
use super::table::{Changes, Settings};

impl Config {
    /// Returns the settings for a server that runs with `running`: these settings, but with the
    /// values of the running server where a change needs a restart. Also returns the names of the
    /// settings that differ.
    pub(crate) fn succeed(mut self, running: &Self) -> (Self, Changes) {
        let mut changes = Changes::default();
        if self.loops != running.loops {
            changes.note("loops", true);
            self.loops = running.loops;
        }
        self.front.succeed(&running.front, &mut changes);
        self.admin.succeed(&running.admin, &mut changes);
        self.auth.succeed(&running.auth, &mut changes);
        self.limits.succeed(&running.limits, &mut changes);
        self.history.succeed(&running.history, &mut changes);
        self.store.succeed(&running.store, &mut changes);
        self.times.succeed(&running.times, &mut changes);
        self.icomet.succeed(&running.icomet, &mut changes);
        self.log.succeed(&running.log, &mut changes);
        self.hooks.succeed(&running.hooks, &mut changes);
        if self.rules != running.rules {
            changes.note("rules", false);
        }
        (self, changes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::reference::ROWS;
    use crate::config::rules::Rule;
    use crate::config::table::Row;

    /// Returns a value of a setting that is not its default, as TOML.
    fn other_value(row: &Row) -> &'static str {
        match (row.kind, row.default) {
            ("bool", "true") => "false",
            ("bool", _) => "true",
            ("Address", _) => "\"127.0.0.1:1\"",
            ("String" | "Option<String>" | "Option<Secret>" | "Option<PathBuf>", _) => "\"debug\"",
            ("Option<RedisUrl>", _) => "\"redis://127.0.0.1\"",
            ("ForwardedBy", _) => "\"Forwarded\"",
            ("IcometAuth", _) => "\"token\"",
            ("WhenDown", _) => "\"allow\"",
            ("SyncMode", _) => "\"never\"",
            ("Vec<IpNet>", _) => "[\"192.0.2.0/24\"]",
            ("Vec<Key>", _) => "[{ id = \"k\", algorithm = \"HS256\", secret = \"s\" }]",
            ("Option<Tls>", _) => "{ cert = \"a.pem\", key = \"b.pem\" }",
            ("Option<Anonymous>", _) => "{ subscribe = [\"a\"] }",
            ("Vec<Api>", _) => "[\"icomet\"]",
            (kind, _) if kind.starts_with("Vec<") => "[\"a\"]",
            (_, "2") => "3",
            _ => "2",
        }
    }

    #[test]
    fn each_setting_is_applied_as_the_reference_says() {
        let reference = Config::reference();
        for section in &ROWS {
            let (_, lines) = reference.split_once(&format!("\n## `[{}]`\n", section.name)).expect("a table");
            for row in section.rows {
                let name = format!("{}.{}", section.name, row.name);
                let (text, running) = (format!("{name} = {}", other_value(row)), Config::default());
                let changed: Config = toml::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
                let (in_force, changes) = changed.clone().succeed(&running);
                let start = format!("| `{}` |", row.name);
                let line = lines.lines().find(|line| line.starts_with(&start)).expect("a row");
                let is_applied = line.contains("| reload |") || line.contains("| reload, if lower |");
                assert_ne!(is_applied, line.contains("| restart |") || line.contains("restart to switch"), "{line}");
                let (applied, needing) = if is_applied { (vec![name], vec![]) } else { (vec![], vec![name]) };
                assert_eq!(
                    (&changes.applied[..], &changes.needing_restart[..]),
                    (&as_str(&applied)[..], &as_str(&needing)[..])
                );
                let expected = if is_applied { changed } else { running };
                assert_eq!(in_force.to_toml(), expected.to_toml(), "{text}");
            }
        }
    }

    fn as_str(names: &[String]) -> Vec<&str> {
        names.iter().map(String::as_str).collect()
    }

    #[test]
    fn a_longer_heartbeat_needs_a_restart_and_a_shorter_one_does_not() {
        let with = |heartbeat_s| {
            let mut config = Config::default();
            config.times.heartbeat_s = heartbeat_s;
            config
        };
        let (in_force, changes) = with(20).succeed(&with(10));
        assert_eq!((in_force.times.heartbeat_s, &changes.needing_restart[..]), (10, &["times.heartbeat_s"][..]));
        let (in_force, changes) = with(10).succeed(&with(20));
        assert_eq!((in_force.times.heartbeat_s, &changes.applied[..]), (10, &["times.heartbeat_s"][..]));
    }

    #[test]
    fn loops_need_a_restart_and_rules_do_not() {
        let mut changed = Config { loops: 3.try_into().ok(), ..Config::default() };
        changed.rules.push(Rule::new("a".parse().expect("a name")));
        let (in_force, changes) = changed.succeed(&Config::default());
        assert_eq!((in_force.loops, in_force.rules.len()), (None, 1));
        assert_eq!(changes, Changes { applied: vec!["rules"], needing_restart: vec!["loops"] });
        assert_eq!(Config::default().succeed(&Config::default()).1, Changes::default());
    }
}
