//! The import of icomet's configuration as settings of this server.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use sealed::fault;

use crate::config::{Api, Config, IcometAuth};

/// A setting that could not be imported unchanged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The line of the file, from 1 on.
    pub line: usize,
    /// The difference, or the missing setting.
    pub text: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.text)
    }
}

/// The reason for which a text cannot be imported.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The text is not a configuration of icomet.
    #[error("this is not a configuration of icomet: it has neither 'front' nor 'admin'")]
    NotIcomet,
    /// A line that denies access cannot be read: without it, the server would be more open than
    /// before.
    #[error(
        "line {line}: '{text}' denies access and cannot be parsed. A line is 'deny: all' or 'deny: ' and the beginning of an address, in the section 'admin'"
    )]
    Deny {
        /// The line of the file, from 1 on.
        line: usize,
        /// The text of the line.
        text: String,
    },
}

/// A line with a setting: its number, the names of its sections and its own name, and its value.
struct Line<'a> {
    number: usize,
    path: String,
    value: &'a str,
}

/// Converts an `icomet.conf` into settings of this server, with warnings about settings without an
/// equivalent. Both listeners serve icomet's API alone, so that nothing becomes more open than
/// before.
///
/// # Errors
/// If the text is not such a file, or if a value in it is malformed.
///
/// # Example
/// ```
/// let (config, warnings) = ccomet::import_icomet("front:\n\tlisten: 127.0.0.1:8100\n\tpolling_timeout: 25\npidfile: ./pid\n")?;
/// assert_eq!((config.icomet.polling_timeout_s, config.front.demo), (25, false));
/// assert_eq!(warnings[0].line, 4);
/// # Ok::<(), ccomet::ImportError>(())
/// ```
pub fn import_icomet(text: &str) -> Result<(Config, Vec<Warning>), ImportError> {
    let mut import = Import::default();
    let lines = read_lines(text, &mut import.warnings)?;
    if !lines.iter().any(|line| line.path.starts_with("front") || line.path.starts_with("admin")) {
        return Err(ImportError::NotIcomet);
    }
    import.config.front.apis = vec![Api::Icomet];
    import.config.admin.apis = vec![Api::Icomet];
    import.config.front.demo = false;
    for line in &lines {
        import.take(line)?;
    }
    import.guard();
    Ok((import.config, import.warnings))
}

/// Splits the text into lines. Lines are indented by tabs, one for each section around them. A
/// section is a name with nothing after its `:`.
fn read_lines<'a>(text: &'a str, warnings: &mut Vec<Warning>) -> Result<Vec<Line<'a>>, ImportError> {
    let mut sections: Vec<&str> = Vec::new();
    let mut lines = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let content = line.trim();
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        let depth = line.bytes().take_while(|byte| *byte == b'\t').count();
        let Some((name, value)) = content.split_once([':', '=']) else {
            if content.split_whitespace().next() == Some("deny") {
                return Err(ImportError::Deny { line: index + 1, text: content.to_owned() });
            }
            warnings.push(Warning { line: index + 1, text: format!("'{content}' has no value, and is ignored") });
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
    Ok(lines)
}

#[derive(Default)]
struct Import {
    config: Config,
    warnings: Vec<Warning>,
    /// The lines of the addresses of both listeners.
    admin_line: usize,
    front_line: usize,
    /// Addresses that the admin listener admits and denies.
    allows_all: bool,
    denies_all: bool,
    has_rules: bool,
}

impl Import {
    fn warn(&mut self, line: usize, text: impl Into<String>) {
        self.warnings.push(Warning { line, text: text.into() });
    }

    fn take(&mut self, line: &Line<'_>) -> Result<(), ImportError> {
        match line.path.as_str() {
            "front" | "admin" | "logger" | "logger.rotate" => {}
            "front.listen" => {
                self.front_line = line.number;
                if let Some(address) = self.address(line) {
                    self.config.front.listen = address.into();
                }
            }
            "admin.listen" => {
                self.admin_line = line.number;
                if let Some(address) = self.address(line) {
                    self.config.admin.listen = address.into();
                }
            }
            "front.auth" => match line.value {
                "none" => self.config.icomet.auth = IcometAuth::None,
                "token" => self.config.icomet.auth = IcometAuth::Token,
                other => {
                    self.warn(
                        line.number,
                        format!("'{other}' is neither 'none' nor 'token'; the setting stays at 'none'"),
                    );
                }
            },
            "front.max_channels" => self.number(line, |config, n| config.limits.channels_max = n as usize),
            "front.max_subscribers_per_channel" => {
                self.number(line, |config, n| config.limits.subscribers_per_channel_max = n as usize);
                self.warn(
                    line.number,
                    "subscribers of a channel are counted on each loop separately: set `loops = 1` for an exact limit",
                );
            }
            "front.channel_buffer_size" => self.number(line, |config, n| config.history.messages_max = n as usize),
            "front.channel_timeout" => self.number(line, |config, n| config.icomet.channel_timeout_s = n),
            "front.polling_timeout" => self.number(line, |config, n| config.icomet.polling_timeout_s = n),
            "admin.allow" => self.allow(line),
            "admin.deny" => self.deny(line)?,
            path if path.rsplit('.').next() == Some("deny") => return Err(unreadable(line)),
            "logger.level" => match line.value {
                level @ ("trace" | "debug" | "info" | "warn" | "error") => level.clone_into(&mut self.config.log.level),
                "fatal" => "error".clone_into(&mut self.config.log.level),
                "none" => "off".clone_into(&mut self.config.log.level),
                other => self.warn(line.number, format!("'{other}' is not a level; it stays at 'info'")),
            },
            "logger.output" if line.value == "stderr" => {}
            "logger.output" => {
                self.warn(line.number, "the log goes to standard error, from which the service manager collects it");
            }
            "logger.rotate.size" => self.warn(line.number, "the service manager stores the log, and limits its size"),
            "pidfile" => self.warn(line.number, "there is no pid file: the service manager tracks the process"),
            path => self.warn(line.number, format!("'{path}' is unknown, and is ignored")),
        }
        Ok(())
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
        self.has_rules = true;
        if is_all(line) {
            self.allows_all = true;
            return;
        }
        let Some(prefix) = Prefix::read(line.value) else {
            let text = format!("'{}' is not the beginning of an address, and is ignored", line.value);
            return self.warn(line.number, text);
        };
        if let Some(network) = prefix.networks(false).first() {
            self.config.admin.allow.push(*network);
            if prefix.networks(true).len() > 1 {
                let text = line.value;
                self.warn(
                    line.number,
                    format!("'{text}' is imported as {network}; in icomet it also matches longer numbers with the same first digits"),
                );
            }
        }
    }

    fn deny(&mut self, line: &Line<'_>) -> Result<(), ImportError> {
        self.has_rules = true;
        if is_all(line) {
            self.denies_all = true;
            return Ok(());
        }
        if fault!("unreadable-denial-left-out") && Prefix::read(line.value).is_none() {
            return Ok(());
        }
        let prefix = Prefix::read(line.value).ok_or_else(|| unreadable(line))?;
        let networks = prefix.networks(!fault!("beginning-denied-as-number"));
        let allow = &self.config.admin.allow;
        if networks.iter().any(|denied| allow.iter().any(|allowed| denied.contains(allowed))) {
            self.warn(
                line.number,
                "these addresses are denied even if an 'allow' line names them: icomet would allow them",
            );
        }
        self.config.admin.deny.extend(networks);
        Ok(())
    }

    /// Adds the settings that this server requires explicitly for listeners beyond loopback.
    fn guard(&mut self) {
        if self.config.front.listen.ip().is_some_and(|ip| !ip.is_loopback()) {
            self.config.front.open = true;
            self.warn(
                self.front_line,
                "the front is open to every client that reaches it, as before: front.open = true",
            );
        }
        // The file may lack that section.
        let admin_line = self.admin_line.max(1);
        let is_open = self.allows_all && (!self.denies_all || fault!("allow-all-beats-deny-all"));
        if is_open {
            self.config.admin.allow.extend(everybody());
            self.warn(
                admin_line,
                "every client that reaches the admin listener may publish and close channels, as before",
            );
        } else if self.has_rules && self.config.admin.allow.is_empty() {
            self.config.admin.deny = everybody().collect();
            self.warn(
                admin_line,
                "no client is allowed at the admin listener, as before: name networks in admin.allow",
            );
        }
        let is_local = self.config.admin.listen.ip().is_none_or(|ip| ip.is_loopback());
        if !is_local && self.config.admin.allow.is_empty() {
            let own = ["127.0.0.0/8", "::1/128"];
            self.config.admin.allow = own.iter().filter_map(|text| text.parse().ok()).collect();
            if !self.has_rules {
                self.warn(
                    admin_line,
                    "only this machine is allowed at the admin listener: name other networks in admin.allow",
                );
            }
        }
        if !is_local {
            self.config.admin.forgeable_gets = true;
            self.warn(
                admin_line,
                "back ends may publish and sign by GET from other machines, as before, and so any page can make a browser there do \
                 the same: admin.forgeable_gets = true. Change them to POST, or set admin.keys, and remove this setting",
            );
            self.warn(
                admin_line,
                "back ends that call the admin listener by a name, not by an address, are refused: list the name in admin.hosts",
            );
        }
        if is_open && !is_local {
            self.config.admin.origins = vec!["*".to_owned()];
            self.warn(
                admin_line,
                "pages may publish and sign at the admin listener, as icomet's chat does, and so may the pages of any site: \
                 admin.origins = [\"*\"]. Name the origins of your own pages",
            );
        } else {
            self.warn(
                admin_line,
                "pages that publish or sign at the admin listener themselves, as icomet's chat does, are refused: list their origins in \
                 admin.origins, such as \"https://example.org\"",
            );
        }
    }
}

fn is_all(line: &Line<'_>) -> bool {
    matches!(line.value, "all" | "*")
}

fn unreadable(line: &Line<'_>) -> ImportError {
    let name = line.path.rsplit('.').next().unwrap_or_default();
    ImportError::Deny { line: line.number, text: format!("{name}: {}", line.value) }
}

/// The prefix of an address. icomet compares it as text; this server compares whole parts of
/// addresses.
enum Prefix {
    Address(IpAddr),
    /// Some of the four numbers, and whether the last of them is complete.
    Parts(Vec<u8>, bool),
}

impl Prefix {
    fn read(text: &str) -> Option<Self> {
        let parts = text.trim_end_matches('.');
        if let Ok(address) = parts.parse() {
            return Some(Self::Address(address));
        }
        let numbers: Option<Vec<u8>> = parts.split('.').map(|part| part.parse().ok()).collect();
        let numbers = numbers.filter(|numbers| (1..=3).contains(&numbers.len()))?;
        Some(Self::Parts(numbers, text.ends_with('.')))
    }

    /// Returns the networks that the prefix stands for. With `all`, they include those in which the
    /// last number only starts with the given digits.
    fn networks(&self, all: bool) -> Vec<IpNet> {
        let (numbers, is_whole) = match self {
            Self::Address(address) => return vec![IpNet::from(*address)],
            Self::Parts(numbers, is_whole) => (numbers, *is_whole),
        };
        let Some((last, before)) = numbers.split_last() else { return Vec::new() };
        let digits = last.to_string();
        let begins = |number: &u8| number == last || all && !is_whole && number.to_string().starts_with(&digits);
        // The number itself comes first: others that start with its digits are greater.
        (0..=u8::MAX).filter(begins).filter_map(|number| network(before, number)).collect()
    }
}

/// Returns the network of all addresses that start with these numbers.
fn network(before: &[u8], last: u8) -> Option<IpNet> {
    let mut octets = [0; 4];
    for (octet, number) in octets.iter_mut().zip(before.iter().chain([&last])) {
        *octet = *number;
    }
    IpNet::new(octets.into(), 8 * (before.len() as u8 + 1)).ok()
}

/// Returns the networks of all addresses.
fn everybody() -> impl Iterator<Item = IpNet> {
    ["0.0.0.0/0", "::/0"].into_iter().filter_map(|text| text.parse().ok())
}
