//! Networks whose clients may connect, and networks whose clients may not.

use std::net::IpAddr;

use ipnet::IpNet;

/// The network rules of a listener.
#[derive(Debug, Clone)]
pub(crate) struct NetworkRules {
    allow: Vec<IpNet>,
    deny: Vec<IpNet>,
}

impl NetworkRules {
    /// Creates the rules. If `allow` is empty, every address that is not denied is admitted.
    pub(crate) fn new(allow: &[IpNet], deny: &[IpNet]) -> Self {
        Self { allow: allow.to_vec(), deny: deny.to_vec() }
    }

    /// Returns whether there are no rules: any address may connect.
    pub(crate) fn is_empty(&self) -> bool {
        self.allow.is_empty() && self.deny.is_empty()
    }

    /// Returns whether a client may connect. `deny` overrides `allow`.
    pub(crate) fn admit(&self, address: IpAddr) -> bool {
        (self.allow.is_empty() || has(&self.allow, address)) && !has(&self.deny, address)
    }
}

/// Returns whether an address is in one of the networks. An IPv4 address that is written as IPv6
/// counts as IPv4.
pub(super) fn has(networks: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    networks.iter().any(|network| network.contains(&address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().expect("a network")).collect()
    }

    #[test]
    fn deny_overrides_allow() {
        let admits = |allow: &[&str], deny: &[&str], address: &str| {
            NetworkRules::new(&networks(allow), &networks(deny)).admit(address.parse().expect("an address"))
        };
        let some = ["10.0.0.0/8", "::1/128"];
        assert!(admits(&some, &[], "10.1.2.3") && admits(&some, &[], "::ffff:10.1.2.3") && admits(&some, &[], "::1"));
        assert!(!admits(&some, &[], "11.0.0.1") && !admits(&some, &[], "::2"));
        assert!(admits(&[], &[], "1.2.3.4"));
        assert!(!admits(&some, &["10.1.0.0/16"], "10.1.2.3") && admits(&some, &["10.1.0.0/16"], "10.2.2.3"));
        assert!(!admits(&["10.1.2.3/32"], &["10.0.0.0/8"], "::ffff:10.1.2.3"));
        assert!(!admits(&[], &["0.0.0.0/0"], "1.2.3.4") && admits(&[], &["0.0.0.0/0"], "2001:db8::1"));
    }
}
