//! Who may publish: the question the data plane asks, its answers, and addresses that asked too often.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use super::source::Leg;
use crate::media::channel::{ChannelName, Takeover};
use crate::media::key::{KeyDigest, Passphrase};
use crate::time::Mono;

/// Wrong keys and unknown channels that one address may try within `TRIES_WINDOW`.
const TRIES_MAX: u32 = 10;
const TRIES_WINDOW: Duration = Duration::from_secs(60);
/// Addresses remembered; the oldest is forgotten first.
const ADDRESSES_MAX: usize = 4_096;

/// Answers for a publisher; control implements it. Called on the threads of the ports: it must not wait.
pub trait Directory: Send + Sync {
    /// # Errors
    /// The refusal the caller is told. An unknown channel and a wrong key must both be `Refusal::Denied` and must
    /// take the same time: compare with `KeyDigest::none()` where there is no channel.
    fn admit(&self, channel: &str, key: &str, leg: Leg, from: IpAddr) -> Result<Admission, Refusal>;

    /// A source of the channel that this box calls by itself: it shows no key.
    ///
    /// # Errors
    /// Why it may not come in now.
    fn admit_source(&self, channel: &ChannelName, leg: Leg) -> Result<Admission, Refusal>;
}

/// A publisher is welcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    pub channel: ChannelName,
    pub takeover: Takeover,
    /// What an SRT caller must encrypt with; `None`: what its port says.
    pub passphrase: Option<Passphrase>,
    /// The least receive latency; `None`: the port's.
    pub latency: Option<Duration>,
}

/// Why a publisher is told no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Unknown channel or wrong key; nobody is told which.
    Denied,
    /// The channel takes publishers of other addresses.
    NotFromHere,
    /// The channel was stopped by its operator.
    Stopped,
    /// Another publisher is on air on this leg.
    Busy,
    /// Something this port does not do; the sentence says what.
    Unsupported(&'static str),
    /// This address tried too often.
    TooManyTries,
    /// A limit of the box; the sentence names the resource.
    NoCapacity(String),
}

impl Refusal {
    /// As libsrt numbers it (`SRT_REJX_…`).
    pub fn code(&self) -> u16 {
        match self {
            Refusal::Denied | Refusal::NotFromHere => 1401,
            Refusal::Stopped => 1403,
            Refusal::Busy => 1409,
            Refusal::Unsupported(_) => 1415,
            Refusal::TooManyTries => 1429,
            Refusal::NoCapacity(_) => 1503,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Denied => f.write_str("unknown channel or wrong publish key"),
            Refusal::NotFromHere => f.write_str("the channel takes no publisher of this address (publish_from)"),
            Refusal::Stopped => f.write_str("the channel is stopped"),
            Refusal::Busy => f.write_str("another publisher is on air on this leg"),
            Refusal::Unsupported(what) => f.write_str(what),
            Refusal::TooManyTries => f.write_str("too many failed tries from this address; wait a minute"),
            Refusal::NoCapacity(resource) => write!(f, "no capacity: {resource}"),
        }
    }
}

/// A fixed list of channels as a directory.
#[derive(Debug, Default)]
pub struct Roster(pub BTreeMap<ChannelName, RosterEntry>);

#[derive(Debug)]
pub struct RosterEntry {
    pub key: KeyDigest,
    pub takeover: Takeover,
    /// The operator stopped it.
    pub stopped: bool,
    pub passphrase: Option<Passphrase>,
}

impl Directory for Roster {
    fn admit(&self, channel: &str, key: &str, _: Leg, _: IpAddr) -> Result<Admission, Refusal> {
        let found = ChannelName::new(channel).ok().and_then(|name| self.0.get_key_value(&name));
        let digest = found.map_or(KeyDigest::none(), |(_, entry)| entry.key);
        let fits = digest.matches(key);
        let (name, entry) = found.filter(|_| fits).ok_or(Refusal::Denied)?;
        if entry.stopped {
            return Err(Refusal::Stopped);
        }
        let (takeover, passphrase) = (entry.takeover, entry.passphrase.clone());
        Ok(Admission { channel: name.clone(), takeover, passphrase, latency: None })
    }

    fn admit_source(&self, channel: &ChannelName, _leg: Leg) -> Result<Admission, Refusal> {
        let entry = self.0.get(channel).ok_or(Refusal::Denied)?;
        if entry.stopped {
            return Err(Refusal::Stopped);
        }
        Ok(Admission { channel: channel.clone(), takeover: entry.takeover, passphrase: None, latency: None })
    }
}

/// Addresses whose tries failed. An IPv6 address counts as its /64, which one customer has whole.
#[derive(Debug, Default)]
pub(super) struct Tries {
    by_address: BTreeMap<IpAddr, Entry>,
    /// Same keys, oldest entry first.
    order: VecDeque<IpAddr>,
}

#[derive(Debug)]
struct Entry {
    failed: u32,
    since: Mono,
    blocked_until: Mono,
}

impl Tries {
    pub(super) fn blocked(&self, now: Mono, address: IpAddr) -> bool {
        self.by_address.get(&prefix(address)).is_some_and(|entry| now < entry.blocked_until)
    }

    /// A wrong key or an unknown channel.
    pub(super) fn failed(&mut self, now: Mono, address: IpAddr) {
        let entry = self.entry(now, address);
        if now - entry.since >= TRIES_WINDOW {
            entry.failed = 0;
            entry.since = now;
        }
        entry.failed += 1;
        if entry.failed >= TRIES_MAX {
            entry.blocked_until = entry.blocked_until.max(entry.since + TRIES_WINDOW);
        }
    }

    /// Nobody from this address is let in for `span`.
    pub(super) fn block(&mut self, now: Mono, address: IpAddr, span: Duration) {
        let entry = self.entry(now, address);
        entry.blocked_until = entry.blocked_until.max(now + span);
    }

    fn entry(&mut self, now: Mono, address: IpAddr) -> &mut Entry {
        let key = prefix(address);
        if !self.by_address.contains_key(&key) {
            if self.order.len() >= ADDRESSES_MAX
                && let Some(oldest) = self.order.pop_front()
            {
                self.by_address.remove(&oldest);
            }
            self.order.push_back(key);
        }
        self.by_address.entry(key).or_insert(Entry { failed: 0, since: now, blocked_until: Mono(0) })
    }
}

/// What counts as one: an IPv4 address, an IPv6 network of 64 bits.
pub(super) fn prefix(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6((ip.to_bits() >> 64 << 64).into()),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roster() -> Roster {
        let entry = |stopped| RosterEntry {
            key: KeyDigest::of("secret"),
            takeover: Takeover::Newest,
            stopped,
            passphrase: None,
        };
        Roster(BTreeMap::from([
            (ChannelName::new("news").unwrap(), entry(false)),
            (ChannelName::new("off").unwrap(), entry(true)),
        ]))
    }

    #[test]
    fn a_wrong_key_and_an_unknown_channel_get_the_same_answer() {
        let (roster, from) = (roster(), IpAddr::from([192, 0, 2, 1]));
        assert_eq!(roster.admit("news", "secret", Leg::A, from).unwrap().channel.as_str(), "news");
        for (channel, key) in [("news", "wrong"), ("other", "secret"), ("", ""), ("NEWS", "secret"), ("off", "wrong")] {
            assert_eq!(roster.admit(channel, key, Leg::A, from), Err(Refusal::Denied), "{channel} {key}");
        }
        assert_eq!(roster.admit("off", "secret", Leg::A, from), Err(Refusal::Stopped));
    }

    #[test]
    fn an_address_is_blocked_after_ten_failures_and_free_again_after_a_minute() {
        let mut tries = Tries::default();
        let (bad, good) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let start = Mono(5_000_000_000);
        for n in 0..TRIES_MAX {
            assert!(!tries.blocked(start, bad), "try {n}");
            tries.failed(start, bad);
        }
        assert!(tries.blocked(start, bad) && !tries.blocked(start, good));
        assert!(tries.blocked(start, "::ffff:192.0.2.1".parse().unwrap()), "mapped is the same address");
        let later = start + TRIES_WINDOW;
        assert!(!tries.blocked(later, bad));
        tries.failed(later, bad);
        assert!(!tries.blocked(later, bad), "a new window counts anew");
    }

    #[test]
    fn an_ipv6_network_counts_as_one_and_the_table_is_bounded() {
        let mut tries = Tries::default();
        for n in 0..TRIES_MAX {
            tries.failed(Mono(1), format!("2001:db8::{n:x}").parse().unwrap());
        }
        assert!(tries.blocked(Mono(1), "2001:db8::ffff".parse().unwrap()));
        for n in 0..ADDRESSES_MAX as u32 * 2 {
            tries.failed(Mono(2), IpAddr::V4(n.into()));
        }
        assert_eq!((tries.by_address.len(), tries.order.len()), (ADDRESSES_MAX, ADDRESSES_MAX));
        assert!(!tries.blocked(Mono(2), "2001:db8::ffff".parse().unwrap()), "the oldest is forgotten first");
    }
}
