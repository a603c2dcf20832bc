//! The address of a listener: an IP address, or a name that the system resolves.

use std::net::{SocketAddr, ToSocketAddrs};

use sealed::fault;
use serde::de::{Deserialize, Deserializer, Error};

/// Parses an address and port, such as `127.0.0.1:8100`, `[::1]:8100` or `localhost:8100`. Of the
/// addresses of a name, the first IPv4 address is used, or the first address if there is none.
///
/// # Errors
///
/// Returns a message if the text has no port or the name has no address. Resolving a name may
/// block.
pub fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let wrong = |why: &dyn std::fmt::Display| format!("'{text}' is not ADDRESS:PORT or NAME:PORT: {why}");
    if fault!("listener-name-refused") {
        return text.parse().map_err(|error| wrong(&error));
    }
    let found: Vec<SocketAddr> = text.to_socket_addrs().map_err(|error| wrong(&error))?.collect();
    let chosen = found.iter().find(|address| address.is_ipv4()).or(found.first());
    chosen.copied().ok_or_else(|| wrong(&"the name has no address"))
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    listen_address(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_address_is_an_address_or_a_name_with_a_port() {
        for (text, address) in [
            ("127.0.0.1:8100", Some("127.0.0.1:8100")),
            ("[::1]:8100", Some("[::1]:8100")),
            ("localhost:8100", Some("127.0.0.1:8100")),
            ("localhost", None),
            ("127.0.0.1", None),
            ("127.0.0.1:99999", None),
            (":8100x", None),
        ] {
            let read = listen_address(text);
            assert_eq!(read.clone().ok(), address.map(|address| address.parse().expect("an address")), "{read:?}");
        }
    }
}
