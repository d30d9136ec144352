//! Where `rung push` publishes to over SRT: one address, or those of a bond's links.

use std::net::{IpAddr, ToSocketAddrs};

use super::bonded::Ends;
use super::group::{Bonding, MEMBERS_MAX};
use super::url::SrtUrl;

/// `srt://HOST:PORT?…`, or with `grouptype=broadcast` or `backup` `srt://HOST:PORT,HOST:PORT?…`. `adapter` says from which
/// addresses of this machine the links set out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushUrl {
    /// The first one; all but host and port is every link's.
    url: SrtUrl,
    bond: Option<BondUrl>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct BondUrl {
    bonding: Bonding,
    links: Vec<(String, u16, Option<IpAddr>)>,
}

/// The same with the addresses of its hosts.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) url: SrtUrl,
    pub(super) bonding: Option<Bonding>,
    /// Of each link; one without a bond.
    pub(super) ends: Vec<Ends>,
}

impl From<SrtUrl> for PushUrl {
    fn from(url: SrtUrl) -> PushUrl {
        PushUrl { url, bond: None }
    }
}

impl PushUrl {
    /// # Errors
    /// A sentence that says what is wrong and what would be right; it never repeats a key.
    pub fn parse(text: &str) -> Result<PushUrl, String> {
        let (head, query) = text.split_once('?').unwrap_or((text, ""));
        let (mut kind, mut adapters, mut rest) = (None, Vec::new(), Vec::new());
        for pair in query.split('&') {
            match pair.split_once('=') {
                Some(("grouptype", value)) => kind = Some(value),
                Some(("adapter", value)) => adapters = value.split(',').map(adapter).collect::<Result<_, _>>()?,
                _ => rest.push(pair),
            }
        }
        let (scheme, authority) = head.split_once("://").unwrap_or(("", head));
        let one = |host: &str| SrtUrl::parse(&format!("{scheme}://{host}?{}", rest.join("&")));
        let hosts = authority.trim_end_matches('/').split(',').map(one).collect::<Result<Vec<_>, _>>()?;
        let Some(url) = hosts.first().cloned() else { return Err("an SRT address needs a host".to_owned()) };
        let bonding = match kind {
            None if hosts.len() > 1 || !adapters.is_empty() => {
                return Err("several addresses, or adapter, want grouptype=broadcast or grouptype=backup".to_owned());
            }
            None => return Ok(url.into()),
            Some("broadcast") => Bonding::Broadcast,
            Some("backup") => Bonding::Backup,
            Some(_) => return Err("grouptype is broadcast or backup".to_owned()),
        };
        let count = hosts.len().max(adapters.len());
        let fits = |given: usize| given <= 1 || given == count;
        if !fits(hosts.len()) || !fits(adapters.len()) {
            return Err(
                "give one address or one for each adapter, and no adapter, one, or one for each address".to_owned()
            );
        }
        if !(2..=MEMBERS_MAX).contains(&count) {
            return Err(format!(
                "a bond has 2 to {MEMBERS_MAX} links: srt://HOST:PORT,HOST:PORT?grouptype=… or one \
                                address with adapter=IP,IP"
            ));
        }
        if !url.filter.is_empty() {
            return Err("packetfilter does not go with grouptype: the links of a bond repair each other".to_owned());
        }
        let link = |n: usize| {
            let host = hosts.get(n).unwrap_or(&url);
            (host.host.clone(), host.port, adapters.get(n).or(adapters.first()).copied())
        };
        let links = (0..count).map(link).collect();
        Ok(PushUrl { url, bond: Some(BondUrl { bonding, links }) })
    }

    /// Looks the hosts up; may wait for a name server.
    ///
    /// # Errors
    /// A sentence.
    pub(super) fn resolve(&self) -> Result<Target, String> {
        let url = self.url.clone();
        let Some(bond) = &self.bond else {
            let ends = vec![Ends { peer: url.resolve()?, local: None }];
            return Ok(Target { url, bonding: None, ends });
        };
        let find = |(host, port, local): &(String, u16, Option<IpAddr>)| {
            let found = (host.as_str(), *port).to_socket_addrs();
            let found = found.map_err(|e| format!("cannot find the host {host:?}: {e}"))?;
            let peer = found.into_iter().find(|at| local.is_none_or(|local| local.is_ipv4() == at.is_ipv4()));
            let why = || format!("the host {host:?} has no address that its adapter could reach");
            Ok(Ends { peer: peer.ok_or_else(why)?, local: *local })
        };
        let ends = bond.links.iter().map(find).collect::<Result<Vec<_>, String>>()?;
        Ok(Target { url, bonding: Some(bond.bonding), ends })
    }
}

fn adapter(text: &str) -> Result<IpAddr, String> {
    let ip = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    ip.parse()
        .map_err(|_| "adapter is a list of addresses of this machine: adapter=192.0.2.10,198.51.100.10".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(text: &str) -> (Option<Bonding>, Vec<String>) {
        let target = PushUrl::parse(text).unwrap().resolve().unwrap();
        let local = |ends: &Ends| ends.local.map_or_else(String::new, |ip| format!(" from {ip}"));
        (target.bonding, target.ends.iter().map(|ends| format!("{}{}", ends.peer, local(ends))).collect())
    }

    #[test]
    fn a_bond_is_several_addresses_or_one_from_several_adapters() {
        let all = |bonding, ends: &[&str]| (Some(bonding), ends.iter().map(|end| (*end).to_owned()).collect());
        for (text, want) in [
            ("srt://127.0.0.1:1?streamid=a/b", (None, vec!["127.0.0.1:1".to_owned()])),
            (
                "srt://127.0.0.1:1,[::1]:2?grouptype=broadcast&streamid=a/b",
                all(Bonding::Broadcast, &["127.0.0.1:1", "[::1]:2"]),
            ),
            (
                "srt://127.0.0.1:1/?grouptype=backup&adapter=127.0.0.2,127.0.0.3",
                all(Bonding::Backup, &["127.0.0.1:1 from 127.0.0.2", "127.0.0.1:1 from 127.0.0.3"]),
            ),
            (
                "srt://127.0.0.1:1,127.0.0.1:2?grouptype=backup&adapter=127.0.0.2,127.0.0.3",
                all(Bonding::Backup, &["127.0.0.1:1 from 127.0.0.2", "127.0.0.1:2 from 127.0.0.3"]),
            ),
            (
                "srt://127.0.0.1:1,127.0.0.1:2?grouptype=backup&adapter=127.0.0.2",
                all(Bonding::Backup, &["127.0.0.1:1 from 127.0.0.2", "127.0.0.1:2 from 127.0.0.2"]),
            ),
        ] {
            assert_eq!(ends(text), want, "{text}");
        }
        let url = PushUrl::parse("srt://h:1,i:2?grouptype=backup&streamid=#!::r=c{n},k=x&latency=300").unwrap().url;
        assert_eq!((url.stream_id.expose().as_str(), url.latency.as_millis()), ("#!::r=c{n},k=x", 300));
    }

    #[test]
    fn what_is_no_bond_is_a_sentence_without_secrets() {
        for (text, want) in [
            ("http://h:1", "begins with srt://"),
            ("srt://h:1,i?grouptype=backup", "needs a port"),
            ("srt://h:1,i:2", "want grouptype=broadcast or grouptype=backup"),
            ("srt://h:1?adapter=192.0.2.1", "want grouptype=broadcast or grouptype=backup"),
            ("srt://h:1,i:2?grouptype=balancing", "grouptype is broadcast or backup"),
            ("srt://h:1?grouptype=backup", "2 to 8 links"),
            ("srt://h:1,h:2,h:3,h:4,h:5,h:6,h:7,h:8,h:9?grouptype=backup", "2 to 8 links"),
            ("srt://h:1,i:2?grouptype=backup&adapter=192.0.2.1,192.0.2.2,192.0.2.3", "one for each adapter"),
            ("srt://h:1,i:2?grouptype=backup&adapter=eth0,eth1", "addresses of this machine"),
            ("srt://h:1,i:2?grouptype=backup&packetfilter=fec,cols:10", "packetfilter does not go with"),
            ("srt://h:1,i:2?grouptype=backup&latenzy=1", "unknown SRT option"),
        ] {
            let error =
                PushUrl::parse(&format!("{text}{}streamid=a/s3cr3t", if text.contains('?') { '&' } else { '?' }));
            let error = error.unwrap_err();
            assert!(error.contains(want) && !error.contains("s3cr3t"), "{text}: {error}");
        }
    }
}
