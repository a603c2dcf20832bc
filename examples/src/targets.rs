//! What the clients of a proxy may reach: the public internet, but not the network of the proxy.

use std::net::IpAddr;

/// Returns whether an address is on the public internet.
pub fn is_public(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        // Not this network (0/8), addresses of carriers (100.64/10), multicast and reserved ones.
        IpAddr::V4(ip) => match ip.octets() {
            [0 | 224..=255, ..] | [100, 64..=127, ..] => false,
            _ => !ip.is_private() && !ip.is_loopback() && !ip.is_link_local(),
        },
        // Global unicast (2000::/3), without 6to4, which contains IPv4 addresses.
        IpAddr::V6(ip) => matches!(ip.segments(), [0x2000..=0x2001 | 0x2003..=0x3fff, ..]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_addresses_are_known() {
        for (ip, wanted) in [
            ("9.9.9.9", true),
            ("2620:fe::9", true),
            ("0.1.2.3", false),
            ("127.1.2.3", false),
            ("10.0.0.1", false),
            ("100.127.0.1", false),
            ("100.128.0.1", true),
            ("169.254.169.254", false),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
            ("::", false),
            ("::1", false),
            ("::ffff:127.0.0.1", false),
            ("::ffff:9.9.9.9", true),
            ("64:ff9b::7f00:1", false),
            ("2002:7f00:1::", false),
            ("fd00::1", false),
            ("fe80::1", false),
            ("ff02::1", false),
        ] {
            assert_eq!(ip.parse().map(is_public), Ok(wanted), "{ip}");
        }
    }
}
