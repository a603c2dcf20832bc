//! Settings that are allowed, and probably are not what the operator means.

use ipnet::IpNet;

use super::{Admin, Config};
use crate::core::pattern::Pattern;

impl Admin {
    /// Logs warnings about access that the settings grant to pages.
    pub(crate) fn warn(&self) {
        if !self.keys.is_empty() {
            return;
        }
        if self.forgeable_gets {
            tracing::warn!(
                "admin.forgeable_gets is set: any page can make the browser of a user with access to the admin listener publish, \
                 sign and close channels there"
            );
        }
        if self.allows_any_origin() {
            tracing::warn!(
                "admin.origins is [\"*\"]: any page that a user with access to the admin listener opens may use it; name the \
                 origins of your own pages"
            );
        }
    }
}

impl Config {
    /// Returns a line for each setting that has no effect, or another one than its text suggests.
    pub fn warnings(&self) -> Vec<String> {
        let mut lines = self.of_rules();
        for (name, mode, listen) in [
            ("front", &self.front.socket_mode, &self.front.listen),
            ("admin", &self.admin.socket_mode, &self.admin.listen),
        ] {
            if !mode.is_empty() && listen.path().is_none() {
                lines.push(format!("{name}.socket_mode has no effect: {name}.listen is no Unix socket (unix:PATH)"));
            }
        }
        for (name, networks) in [
            ("front.allow", &self.front.allow),
            ("front.deny", &self.front.deny),
            ("front.trusted_proxies", &self.front.trusted_proxies),
            ("admin.allow", &self.admin.allow),
            ("admin.deny", &self.admin.deny),
        ] {
            lines.extend(networks.iter().filter_map(|network| of_network(name, *network)));
        }
        lines
    }

    fn of_rules(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let all = self.rules.iter().position(|rule| rule.channels == Pattern::all());
        for (index, rule) in self.rules.iter().enumerate() {
            let (number, channels) = (index + 1, rule.channels.as_str());
            if let Some(first) = all.filter(|first| *first < index) {
                lines.push(format!(
                    "rule {number}, channels = {channels:?}, has no effect: rule {} matches every channel, and the first \
                     rule that matches applies. Move it before that rule",
                    first + 1
                ));
            }
            let max = self.limits.message_bytes_max;
            if let Some(bytes) = rule.message_bytes_max.filter(|bytes| *bytes > max) {
                lines.push(format!(
                    "rule {number}, channels = {channels:?}: message_bytes_max = {bytes} has no effect beyond \
                     limits.message_bytes_max = {max}, which a rule does not raise"
                ));
            }
        }
        lines
    }
}

fn of_network(name: &str, network: IpNet) -> Option<String> {
    let meant = network.trunc();
    (meant != network).then(|| {
        format!("{name} has {network}, an address within a network, and means all of {meant}: write that, or the address alone")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_without_effect_are_warned_of() {
        for (text, parts) in [
            (
                "[[rules]]\nchannels = \"*\"\n[[rules]]\nchannels = \"news\"\n",
                ["rule 2, channels = \"news\"", "rule 1 matches every channel"],
            ),
            (
                "[[rules]]\nchannels = \"news\"\nmessage_bytes_max = 100000\n",
                ["rule 1, channels = \"news\"", "limits.message_bytes_max = 65536"],
            ),
            ("front.socket_mode = \"660\"", ["front.socket_mode has no effect", "unix:PATH"]),
            ("front.allow = [\"10.1.2.3/8\"]", ["front.allow has 10.1.2.3/8", "10.0.0.0/8"]),
        ] {
            let warnings = toml::from_str::<Config>(text).expect("TOML").warnings();
            assert_eq!(warnings.len(), 1, "{warnings:?}");
            assert!(parts.iter().all(|part| warnings[0].contains(part)), "{warnings:?}");
        }
        let fine = "front.listen = \"unix:/run/a\"\nfront.socket_mode = \"660\"\nfront.allow = [\"10.0.0.0/8\", \"10.1.2.3\"]\n\
                    [[rules]]\nchannels = \"news\"\nmessage_bytes_max = 100\n[[rules]]\nchannels = \"*\"\n";
        assert_eq!(toml::from_str::<Config>(fine).expect("TOML").warnings(), Vec::<String>::new());
    }
}
