//! API tokens.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use super::Scope;
use crate::control::record::{ChannelId, TokenId, Utc};
use crate::media::key::{KeyDigest, hex};
use crate::media::networks::Networks;

/// A token's text, once: `rk_` and 256 random bits in 64 hexadecimal digits. Debug prints nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// A token as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    pub id: TokenId,
    pub name: String,
    /// First characters of the text, to tell tokens apart.
    pub prefix: String,
    /// Of the text: 256 random bits need no slow hash.
    pub hash: KeyDigest,
    pub scopes: BTreeSet<Scope>,
    /// Only these channels; `None`: all, and what is about no channel.
    #[serde(default)]
    pub channels: Option<BTreeSet<ChannelId>>,
    /// Only from these networks; `None`: from anywhere.
    #[serde(default)]
    pub networks: Option<Networks>,
    pub created_at: Utc,
    #[serde(default)]
    pub expires_at: Option<Utc>,
    /// Written in batches: up to a minute old.
    #[serde(default)]
    pub last_used_at: Option<Utc>,
}

/// Why a token does not open this door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    Expired,
    /// Its networks do not hold the caller's address.
    Network,
    Scope(Scope),
    Channel,
}

const PREFIX: &str = "rk_";
const DIGITS: usize = 64;
/// Characters of the text that are kept for display: the prefix and 32 bits.
const SHOWN: usize = PREFIX.len() + 8;

impl Secret {
    /// Of 256 random bits.
    pub fn of(random: [u8; 32]) -> Secret {
        Secret(format!("{PREFIX}{}", hex(&random)))
    }

    /// What a client sent; `None` where it cannot be a token.
    pub fn parse(text: &str) -> Option<Secret> {
        let digits = text.strip_prefix(PREFIX)?;
        let fits = digits.len() == DIGITS && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        fits.then(|| Secret(text.to_owned()))
    }

    pub fn hash(&self) -> KeyDigest {
        KeyDigest::of(&self.0)
    }

    /// Enough to tell tokens apart, not to use one.
    pub fn prefix(&self) -> String {
        self.0[..SHOWN].to_owned()
    }

    /// The text itself: for its owner's eyes, once.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

impl TokenRecord {
    /// Whether it may be used at all, from `peer`, for `scope`.
    ///
    /// # Errors
    /// What it lacks.
    pub fn permits(&self, now: Utc, peer: IpAddr, scope: Scope) -> Result<(), Denied> {
        if self.expires_at.is_some_and(|at| now >= at) {
            return Err(Denied::Expired);
        }
        if self.networks.as_ref().is_some_and(|networks| !networks.hold(peer)) {
            return Err(Denied::Network);
        }
        if !self.scopes.iter().any(|has| has.covers(scope)) {
            return Err(Denied::Scope(scope));
        }
        Ok(())
    }

    /// Whether it may touch a channel, or what is about none.
    pub fn reaches(&self, channel: Option<ChannelId>) -> bool {
        match (&self.channels, channel) {
            (None, _) => true,
            (Some(own), Some(channel)) => own.contains(&channel),
            (Some(_), None) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Wall;
    use std::time::Duration;
    use ulid::Ulid;

    fn record() -> TokenRecord {
        let secret = Secret::of([7; 32]);
        TokenRecord {
            id: TokenId(Ulid::from_parts(1, 1)),
            name: "automation".into(),
            prefix: secret.prefix(),
            hash: secret.hash(),
            scopes: [Scope::ChannelsWrite].into(),
            channels: None,
            networks: None,
            created_at: Utc::default(),
            expires_at: None,
            last_used_at: None,
        }
    }

    fn at(seconds: u64) -> Utc {
        Utc::from(Wall(0) + Duration::from_secs(seconds))
    }

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 1, 2, 3));

    #[test]
    fn a_secret_is_read_back_hashed_and_never_printed() {
        let secret = Secret::of([0xab; 32]);
        assert_eq!(Secret::parse(secret.reveal()), Some(secret.clone()));
        for bad in ["", "rk_", &secret.reveal()[1..], &secret.reveal().to_uppercase(), &format!("{}0", secret.reveal())]
        {
            assert_eq!(Secret::parse(bad), None, "{bad}");
        }
        assert_eq!(secret.prefix(), "rk_abababab");
        assert!(!format!("{secret:?} {:?}", record()).contains("abab"));
        assert_ne!(secret.hash(), Secret::of([0xac; 32]).hash());
    }

    #[test]
    fn a_record_keeps_its_hash_through_json() {
        let json = serde_json::to_string(&record()).unwrap();
        assert_eq!(serde_json::from_str::<TokenRecord>(&json).unwrap(), record());
        assert!(serde_json::from_str::<KeyDigest>("\"12\"").is_err());
    }

    #[test]
    fn expiry_network_and_scope_are_asked_in_this_order() {
        let mut token = record();
        assert_eq!(token.permits(at(5), HERE, Scope::ChannelsRead), Ok(()));
        assert_eq!(token.permits(at(5), HERE, Scope::TokensAdmin), Err(Denied::Scope(Scope::TokensAdmin)));
        token.networks = Some(Networks::parse(["10.1.0.0/16"]).unwrap());
        let mapped: IpAddr = "::ffff:10.1.2.3".parse().unwrap();
        assert_eq!(token.permits(at(5), mapped, Scope::ChannelsWrite), Ok(()));
        token.networks = Some(Networks::parse(["10.2.0.0/16"]).unwrap());
        assert_eq!(token.permits(at(5), HERE, Scope::ChannelsWrite), Err(Denied::Network));
        token.expires_at = Some(at(5));
        assert_eq!(token.permits(at(5), HERE, Scope::ChannelsWrite), Err(Denied::Expired));
    }

    #[test]
    fn a_token_for_some_channels_reaches_nothing_else() {
        let (one, two) = (ChannelId(Ulid::from_parts(1, 1)), ChannelId(Ulid::from_parts(1, 2)));
        let mut token = record();
        assert!(token.reaches(Some(one)) && token.reaches(None));
        token.channels = Some([one].into());
        assert!(token.reaches(Some(one)) && !token.reaches(Some(two)) && !token.reaches(None));
    }
}
