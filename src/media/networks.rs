//! Addresses that something is allowed from: networks, or single addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// More than this in one list are refused.
pub const NETWORKS_MAX: usize = 100;

/// A list of networks; its text is a list of `10.0.0.0/8` or `2001:db8::1`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Networks(Vec<IpNet>);

impl Networks {
    /// # Errors
    /// Where in the list, as the end of a JSON pointer (`/3`, or nothing for the list itself); and what is wrong.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Networks, (String, String)> {
        let mut networks = Vec::new();
        for (i, text) in texts.into_iter().enumerate() {
            if i == NETWORKS_MAX {
                return Err((
                    String::new(),
                    format!("more than {NETWORKS_MAX} networks: write {NETWORKS_MAX} at most"),
                ));
            }
            let alone = || text.parse::<IpAddr>().map(IpNet::from);
            let network = text.parse().or_else(|_| alone());
            networks.push(network.map_err(|_| {
                (format!("/{i}"), format!("{text:?} is no network: write \"192.0.2.0/24\" or \"2001:db8::1\""))
            })?);
        }
        Ok(Networks(networks))
    }

    /// This box.
    pub fn loopback() -> Networks {
        Networks(vec![
            IpNet::new_assert(Ipv4Addr::new(127, 0, 0, 0).into(), 8),
            IpNet::new_assert(Ipv6Addr::LOCALHOST.into(), 128),
        ])
    }

    pub fn none() -> Networks {
        Networks(Vec::new())
    }

    /// A dual-stack socket shows IPv4 peers as mapped addresses: they count as what they are.
    pub fn hold(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'de> Deserialize<'de> for Networks {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let texts = Vec::<String>::deserialize(d)?;
        Networks::parse(texts.iter().map(String::as_str)).map_err(|(_, what)| serde::de::Error::custom(what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_and_single_addresses_hold_what_is_in_them() {
        let networks = Networks::parse(["10.0.0.0/8", "192.0.2.7", "2001:db8::/32"]).unwrap();
        for (address, held) in [
            ("10.9.8.7", true),
            ("::ffff:10.9.8.7", true),
            ("11.0.0.1", false),
            ("192.0.2.7", true),
            ("192.0.2.8", false),
            ("2001:db8:1::1", true),
            ("2001:db9::1", false),
        ] {
            assert_eq!(networks.hold(address.parse().unwrap()), held, "{address}");
        }
        let json = serde_json::to_string(&networks).unwrap();
        assert_eq!(json, r#"["10.0.0.0/8","192.0.2.7/32","2001:db8::/32"]"#);
        assert_eq!(serde_json::from_str::<Networks>(&json).unwrap(), networks);
        assert!(Networks::loopback().hold("::1".parse().unwrap()) && !Networks::none().hold([127, 0, 0, 1].into()));
    }

    #[test]
    fn what_is_no_network_is_told_with_its_place() {
        let (place, what) = Networks::parse(["10.0.0.0/8", "10.0.0.0/33"]).unwrap_err();
        assert!(place == "/1" && what.contains("10.0.0.0/33") && what.contains("write"), "{what}");
        let (place, what) = Networks::parse(["10.0.0.1"; NETWORKS_MAX + 1]).unwrap_err();
        assert!(place.is_empty() && what.contains("100 at most"), "{what}");
    }
}
