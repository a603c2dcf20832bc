//! Lists of networks, in which a bare address is a network of one address.

use std::net::IpAddr;

use ipnet::IpNet;
use sealed::fault;
use serde::de::Error;
use serde::{Deserialize, Deserializer};

/// Reads a list of networks.
pub(super) fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<IpNet>, D::Error> {
    Vec::<String>::deserialize(from)?.iter().map(|text| parse(text).map_err(D::Error::custom)).collect()
}

fn parse(text: &str) -> Result<IpNet, String> {
    let address = || {
        let address = text.parse().ok().filter(|_| !fault!("bare-address-refused"));
        address.map(|address: IpAddr| IpNet::from(address.to_canonical()))
    };
    text.parse().ok().or_else(address).ok_or_else(|| {
        format!("{text:?} is neither an address nor a network: write 192.0.2.1, 192.0.2.0/24 or 2001:db8::/32")
    })
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    #[test]
    fn a_bare_address_is_a_network_of_one_address_in_every_list() {
        for (table, name) in
            [("front", "allow"), ("front", "deny"), ("front", "trusted_proxies"), ("admin", "allow"), ("admin", "deny")]
        {
            let read = |values: &str| toml::from_str::<Config>(&format!("[{table}]\n{name} = {values}\n"));
            let config = read(r#"["127.0.0.1", "2001:db8::1", "::ffff:192.0.2.1", "10.0.0.0/8"]"#).expect("addresses");
            let (front, admin) = (config.front, config.admin);
            let list = match (table, name) {
                ("front", "allow") => front.allow,
                ("front", "deny") => front.deny,
                ("front", _) => front.trusted_proxies,
                (_, "allow") => admin.allow,
                _ => admin.deny,
            };
            let list: Vec<String> = list.iter().map(ToString::to_string).collect();
            assert_eq!(list, ["127.0.0.1/32", "2001:db8::1/128", "192.0.2.1/32", "10.0.0.0/8"], "{table}.{name}");
            for wrong in ["localhost", "127.0.0", "127.0.0.1/33", "127.0.0.1:80", ""] {
                let error = read(&format!("[\"{wrong}\"]")).expect_err("no network").to_string();
                assert!(error.contains("neither an address nor a network"), "{table}.{name} = {wrong}: {error}");
            }
        }
    }

    #[test]
    fn a_printed_configuration_can_be_read_again() {
        let config: Config = toml::from_str("[front]\nallow = [\"127.0.0.1\"]").expect("TOML");
        let again: Config = toml::from_str(&config.to_toml()).expect("TOML");
        assert_eq!(again.front.allow, config.front.allow);
    }
}
