//! The address of a listener: an IP address or a name with a port, a port alone, or the path of a
//! Unix socket.

use std::fmt::Display;
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::path::Path;

use sealed::{Address, fault};
use serde::de::{Deserialize, Deserializer, Error};
use serde::ser::Serializer;

/// The longest path of a Unix socket on Linux; the system adds a byte.
const PATH_BYTES_MAX: usize = 107;

/// Parses the address of a listener: `127.0.0.1:8100`, `[::1]:8100`, `localhost:8100`, a port
/// (`8100` or `:8100`), which is one of 127.0.0.1, or `unix:/run/ccomet/front.sock`. Of the
/// addresses of a name, the first IPv4 address is used, or the first address if there is none.
///
/// # Errors
///
/// Returns a message if the text is none of these, or the name has no address. Resolving a name may
/// block.
///
/// ```
/// let address = ccomet::listen_address(":8100")?;
/// assert_eq!(address.to_string(), "127.0.0.1:8100");
/// # Ok::<(), String>(())
/// ```
pub fn listen_address(text: &str) -> Result<Address, String> {
    let wrong = |why: &dyn Display| {
        format!(
            "{text:?} is no address of a listener: {why}. Allowed are ADDRESS:PORT, NAME:PORT, PORT and unix:PATH, such \
             as 0.0.0.0:8100, localhost:8100, 8100 or unix:/run/ccomet/front.sock"
        )
    };
    if let Some(path) = text.strip_prefix("unix:") {
        return match Path::new(path) {
            path if path.as_os_str().len() > PATH_BYTES_MAX => Err(wrong(&format_args!(
                "the path of a Unix socket has at most {PATH_BYTES_MAX} bytes, and this one has {}",
                path.as_os_str().len()
            ))),
            path if path.is_absolute() => Ok(Address::unix(path)),
            _ => Err(wrong(&"the path of a Unix socket begins with /")),
        };
    }
    if text.starts_with('/') {
        return Err(wrong(&format_args!("for a Unix socket write unix:{text}")));
    }
    if let Some((scheme @ ("http" | "https" | "ws" | "wss"), _)) = text.split_once("://") {
        return Err(wrong(&format_args!("write the address without {scheme}://")));
    }
    if fault!("listener-name-refused") {
        return text.parse().map_err(|error| wrong(&error));
    }
    let port = text.strip_prefix(':').unwrap_or(text);
    if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) {
        let port: u16 = port.parse().map_err(|_| wrong(&"a port is at most 65535"))?;
        return Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into());
    }
    if !text.contains(':') {
        return Err(wrong(&"the port is missing"));
    }
    let found: Vec<SocketAddr> = text.to_socket_addrs().map_err(|error| wrong(&error))?.collect();
    let chosen = found.iter().find(|address| address.is_ipv4()).or(found.first());
    chosen.copied().map(Address::from).ok_or_else(|| wrong(&"the name has no address"))
}

/// Returns the permissions of the file of a Unix socket; `None` if the text has none.
pub(crate) fn socket_mode(text: &str) -> Option<u32> {
    let is_octal = (3..=4).contains(&text.len()) && text.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
    u32::from_str_radix(text, 8).ok().filter(|mode| is_octal && *mode <= 0o777)
}

/// Returns the address, if it is not one of this machine alone.
pub(crate) fn beyond_loopback(address: &Address) -> Option<SocketAddr> {
    address.inet().filter(|address| !address.ip().to_canonical().is_loopback())
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Address, D::Error> {
    listen_address(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

pub(super) fn serialize<S: Serializer>(address: &Address, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_address_is_an_address_or_a_name_with_a_port_or_a_path() {
        for (text, address) in [
            ("127.0.0.1:8100", Some("127.0.0.1:8100")),
            ("[::1]:8100", Some("[::1]:8100")),
            ("localhost:8100", Some("127.0.0.1:8100")),
            ("8100", Some("127.0.0.1:8100")),
            (":8100", Some("127.0.0.1:8100")),
            ("unix:/run/ccomet/front.sock", Some("unix:/run/ccomet/front.sock")),
            ("unix:front.sock", None),
            ("unix:", None),
            ("localhost", None),
            ("127.0.0.1", None),
            ("127.0.0.1:99999", None),
            ("99999", None),
            (":8100x", None),
            ("", None),
        ] {
            let read = listen_address(text);
            assert_eq!(read.clone().ok(), address.map(|address| address.parse().expect("an address")), "{read:?}");
            assert!(read.is_ok() || read.is_err_and(|message| message.contains("localhost:8100")), "{text}");
        }
    }

    #[test]
    fn a_slip_in_an_address_has_its_remedy() {
        let long = format!("unix:/{}", "a".repeat(107));
        for (text, remedy) in [
            ("/run/x.sock", "for a Unix socket write unix:/run/x.sock"),
            ("http://localhost:8100", "write the address without http://"),
            (&long, "at most 107 bytes, and this one has 108"),
        ] {
            let message = listen_address(text).expect_err(text);
            assert!(message.contains(remedy), "{message}");
        }
        listen_address(&long[..long.len() - 1]).expect("a path of 107 bytes");
    }

    #[test]
    fn the_mode_of_a_socket_is_octal() {
        for (text, mode) in [
            ("660", Some(0o660)),
            ("0600", Some(0o600)),
            ("777", Some(0o777)),
            ("888", None),
            ("1777", None),
            ("6", None),
            ("+66", None),
        ] {
            assert_eq!(socket_mode(text), mode, "{text}");
        }
    }
}
