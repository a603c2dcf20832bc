//! icomet's configuration, read as settings of this server.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::config::{Api, Config, IcometAuth};

/// What could not be taken over as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The line of the file, from 1 on.
    pub line: usize,
    /// What is different, or missing.
    pub text: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.text)
    }
}

/// The text is not a configuration of icomet's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not a configuration of icomet's: it has neither 'front' nor 'admin'")]
pub struct NotIcomet;

/// A line of the file that says something: its number, the names of the sections it is in and its own, and its value.
struct Line<'a> {
    number: usize,
    path: String,
    value: &'a str,
}

/// What `icomet.conf` says, as settings of this server, and what has no equal here. Both listeners speak icomet's API alone, so that
/// nothing is open that was not before.
///
/// # Example
/// ```
/// let (config, warnings) = ccomet::import_icomet("front:\n\tlisten: 127.0.0.1:8100\n\tpolling_timeout: 25\npidfile: ./pid\n")?;
/// assert_eq!((config.icomet.polling_timeout_s, config.front.demo), (25, false));
/// assert_eq!(warnings[0].line, 4);
/// # Ok::<(), ccomet::NotIcomet>(())
/// ```
pub fn import_icomet(text: &str) -> Result<(Config, Vec<Warning>), NotIcomet> {
    let mut import = Import::default();
    let lines = read_lines(text, &mut import.warnings);
    if !lines.iter().any(|line| line.path.starts_with("front") || line.path.starts_with("admin")) {
        return Err(NotIcomet);
    }
    import.config.front.apis = vec![Api::Icomet];
    import.config.admin.apis = vec![Api::Icomet];
    import.config.front.demo = false;
    for line in &lines {
        import.take(line);
    }
    import.guard();
    Ok((import.config, import.warnings))
}

/// Lines are indented by tabs, one for each section around them. A section is a name with nothing behind its `:`.
fn read_lines<'a>(text: &'a str, warnings: &mut Vec<Warning>) -> Vec<Line<'a>> {
    let mut sections: Vec<&str> = Vec::new();
    let mut lines = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let content = line.trim();
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        let depth = line.bytes().take_while(|byte| *byte == b'\t').count();
        let Some((name, value)) = content.split_once([':', '=']) else {
            warnings.push(Warning { line: index + 1, text: format!("'{content}' has no value, and is left out") });
            continue;
        };
        if line[depth..].starts_with(' ') || depth > sections.len() {
            let text = format!("'{}' is not indented by as many tabs as there are sections around it", name.trim());
            warnings.push(Warning { line: index + 1, text });
        }
        sections.truncate(depth);
        sections.push(name.trim());
        lines.push(Line { number: index + 1, path: sections.join("."), value: value.trim() });
    }
    lines
}

#[derive(Default)]
struct Import {
    config: Config,
    warnings: Vec<Warning>,
    /// The line that lets everybody in at the admin listener, and that of its address.
    admin_is_open: bool,
    admin_line: usize,
    front_line: usize,
}

impl Import {
    fn warn(&mut self, line: usize, text: impl Into<String>) {
        self.warnings.push(Warning { line, text: text.into() });
    }

    fn take(&mut self, line: &Line<'_>) {
        match line.path.as_str() {
            "front" | "admin" | "logger" | "logger.rotate" => {}
            "front.listen" => {
                self.front_line = line.number;
                if let Some(address) = self.address(line) {
                    self.config.front.listen = address;
                }
            }
            "admin.listen" => {
                self.admin_line = line.number;
                if let Some(address) = self.address(line) {
                    self.config.admin.listen = address;
                }
            }
            "front.auth" => match line.value {
                "none" => self.config.icomet.auth = IcometAuth::None,
                "token" => self.config.icomet.auth = IcometAuth::Token,
                other => {
                    self.warn(line.number, format!("'{other}' is neither 'none' nor 'token'; it is left at 'none'"));
                }
            },
            "front.max_channels" => self.number(line, |config, n| config.limits.channels_max = n as usize),
            "front.max_subscribers_per_channel" => {
                self.number(line, |config, n| config.limits.subscribers_per_channel_max = n as usize);
                self.warn(
                    line.number,
                    "subscribers of a channel are counted on each loop by itself: set `loops = 1` for an exact limit",
                );
            }
            "front.channel_buffer_size" => self.number(line, |config, n| config.history.messages_max = n as usize),
            "front.channel_timeout" => self.number(line, |config, n| config.icomet.channel_timeout_s = n),
            "front.polling_timeout" => self.number(line, |config, n| config.icomet.polling_timeout_s = n),
            "admin.allow" => self.allow(line),
            "admin.deny" => self.deny(line),
            "logger.level" => match line.value {
                level @ ("trace" | "debug" | "info" | "warn" | "error") => level.clone_into(&mut self.config.log.level),
                "fatal" => "error".clone_into(&mut self.config.log.level),
                "none" => "off".clone_into(&mut self.config.log.level),
                other => self.warn(line.number, format!("'{other}' is no level; it is left at 'info'")),
            },
            "logger.output" if line.value == "stderr" => {}
            "logger.output" => {
                self.warn(line.number, "the log goes to standard error, where the service manager takes it");
            }
            "logger.rotate.size" => self.warn(line.number, "the service manager keeps the log, and limits it"),
            "pidfile" => self.warn(line.number, "there is no pid file: the service manager knows the process"),
            path => self.warn(line.number, format!("'{path}' is not known, and is left out")),
        }
    }

    fn address(&mut self, line: &Line<'_>) -> Option<SocketAddr> {
        let address = line.value.parse().ok();
        if address.is_none() {
            self.warn(line.number, format!("'{}' is not an address and a port; the default stays", line.value));
        }
        address
    }

    fn number(&mut self, line: &Line<'_>, set: impl FnOnce(&mut Config, u64)) {
        match line.value.parse() {
            Ok(number) if number > 0 => set(&mut self.config, number),
            _ => self.warn(line.number, format!("'{}' is not a number from 1 on; the default stays", line.value)),
        }
    }

    fn allow(&mut self, line: &Line<'_>) {
        if line.value == "all" {
            self.admin_is_open = true;
            return self.config.admin.allow.extend(everybody());
        }
        if let Some(network) = self.network(line) {
            self.config.admin.allow.push(network);
        }
    }

    fn deny(&mut self, line: &Line<'_>) {
        // Who is not allowed is denied where anybody is allowed by name.
        if line.value != "all"
            && let Some(network) = self.network(line)
        {
            self.config.admin.deny.push(network);
        }
    }

    /// icomet compares the beginning of an address as text; here whole parts of it are compared.
    fn network(&mut self, line: &Line<'_>) -> Option<IpNet> {
        let text = line.value.trim_end_matches('.');
        if let Ok(address) = text.parse::<IpAddr>() {
            return Some(IpNet::from(address));
        }
        let parts: Option<Vec<u8>> = text.split('.').map(|part| part.parse().ok()).collect();
        let Some(parts) = parts.filter(|parts| (1..=3).contains(&parts.len())) else {
            self.warn(line.number, format!("'{}' is not the beginning of an address, and is left out", line.value));
            return None;
        };
        let mut octets = [0; 4];
        octets[..parts.len()].copy_from_slice(&parts);
        let network = IpNet::new(octets.into(), 8 * parts.len() as u8).ok()?;
        if !line.value.ends_with('.') && parts.last().is_some_and(|last| *last < 26) {
            self.warn(
                line.number,
                format!("'{text}' is read as {network}; icomet takes it for the beginning of other numbers, too"),
            );
        }
        Some(network)
    }

    /// What has to be said in so many words here, of listeners beyond loopback.
    fn guard(&mut self) {
        if !self.config.front.listen.ip().is_loopback() {
            self.config.front.open = true;
            self.warn(self.front_line, "the front is open to everybody who reaches it, as it was: front.open = true");
        }
        if !self.config.admin.listen.ip().is_loopback() && self.config.admin.allow.is_empty() {
            self.config
                .admin
                .allow
                .extend(["127.0.0.0/8", "::1/128"].iter().filter_map(|text| text.parse::<IpNet>().ok()));
            self.warn(
                self.admin_line,
                "nobody is allowed at the admin listener but this machine: name others in admin.allow",
            );
        }
        if self.admin_is_open {
            self.warn(
                self.admin_line,
                "everybody who reaches the admin listener may publish and close channels, as it was",
            );
        }
    }
}

/// All addresses.
fn everybody() -> impl Iterator<Item = IpNet> {
    ["0.0.0.0/0", "::/0"].into_iter().filter_map(|text| text.parse().ok())
}
