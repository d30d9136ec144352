//! Who may watch: a channel's policy, the keys that sign viewers in, their signed claims and the pass that a player
//! carries in its path.
//!
//! A viewer comes with claims, signed as a JSON Web Token by somebody who has a key ([`jwt`]). They are checked once, on the
//! multivariant playlist, and become a [`pass`]: a short token in front of every later path, which needs no look-up and
//! no second signature of the operator's. A key that is deleted takes its passes with it.

pub mod jwt;
pub mod pass;

use ed25519_dalek::VerifyingKey;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};
use ulid::Ulid;
use utoipa::ToSchema;

/// Who may watch a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum PlaybackPolicy {
    /// Everybody.
    #[default]
    Public,
    /// Who has a signed address.
    Signed,
}

/// What a request for a channel's media has to bring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    #[default]
    Public,
    /// Claims or a pass for this playback id.
    Signed(Ulid),
}

/// What a viewer may do, and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// The channel, by its playback id.
    pub playback: Ulid,
    /// Unix seconds; from then on it is void.
    pub expires: u32,
    /// Who watches, in the operator's own words: `[A-Za-z0-9_-]{1,32}`.
    pub viewer: Option<Viewer>,
    /// Renditions of more rows are not for this viewer.
    pub height_max: Option<u16>,
    /// The only address that may use it: IPv4 whole, IPv6 by its first 64 bits.
    pub address: Option<Network>,
}

/// An operator's name for a viewer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Viewer(String);

/// An address as claims and passes are bound to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    V4([u8; 4]),
    V6([u8; 8]),
}

/// Why a viewer is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// Neither claims nor a pass came.
    Missing,
    /// It cannot be read, or nobody who may has signed it.
    Invalid(&'static str),
    /// It is for another channel.
    Foreign,
    Expired,
    /// It is not valid yet.
    Early,
    /// It is bound to another address.
    Address,
}

/// What makes a signature good. `id` is the `kid` of the tokens that it signs.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningKey {
    pub id: Ulid,
    pub material: Material,
}

/// The part of a key that checks.
#[derive(Clone, PartialEq, Eq)]
pub enum Material {
    /// HMAC-SHA-256: the bytes of the secret's text.
    Hs256(Vec<u8>),
    /// Ed25519: the public half.
    EdDsa(Box<VerifyingKey>),
    /// Signs no claims: only passes are made with it.
    Own,
}

/// A box's keys: those that sign viewers in, and the secret of its own passes.
#[derive(Clone, PartialEq, Eq)]
pub struct Keyring {
    pub secret: [u8; 32],
    pub keys: Vec<SigningKey>,
}

/// The keyring of now, shared between who changes it and who checks by it.
#[derive(Clone, Debug)]
pub struct SharedKeyring(Arc<RwLock<Arc<Keyring>>>);

impl SharedKeyring {
    pub fn new(keyring: Keyring) -> SharedKeyring {
        SharedKeyring(Arc::new(RwLock::new(Arc::new(keyring))))
    }

    pub fn get(&self) -> Arc<Keyring> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn replace(&self, keyring: Keyring) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keyring);
    }
}

impl Viewer {
    /// # Errors
    /// A sentence with the grammar.
    pub fn new(text: &str) -> Result<Viewer, String> {
        let fine = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        if (1..=32).contains(&text.len()) && text.bytes().all(fine) {
            return Ok(Viewer(text.to_owned()));
        }
        Err("a viewer's name has 1 to 32 of A-Z, a-z, 0-9, '_' and '-'".to_owned())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Network {
    pub fn of(address: IpAddr) -> Network {
        match address.to_canonical() {
            IpAddr::V4(v4) => Network::V4(v4.octets()),
            IpAddr::V6(v6) => Network::V6(*v6.octets().first_chunk().expect("16 bytes begin with 8")),
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Network::V4(bytes) => bytes,
            Network::V6(bytes) => bytes,
        }
    }
}

impl Denied {
    /// One word, for metrics and programs.
    pub fn reason(&self) -> &'static str {
        match self {
            Denied::Missing => "missing",
            Denied::Invalid(_) => "invalid",
            Denied::Foreign => "foreign",
            Denied::Expired => "expired",
            Denied::Early => "early",
            Denied::Address => "address",
        }
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Denied::Missing => f.write_str(
                "This channel is played from a signed address only: ask whoever runs it for one, with ?t=<token> or /t/<token>/ \
                 in it.",
            ),
            Denied::Invalid(why) => write!(f, "The signature of this address is no good: {why}."),
            Denied::Foreign => f.write_str("This signature is for another channel."),
            Denied::Expired => f.write_str("This address has expired: ask for a new one."),
            Denied::Early => f.write_str("This address is not valid yet."),
            Denied::Address => f.write_str("This address was made for another network: ask for one of your own."),
        }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.id)
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring").field("keys", &self.keys).finish_non_exhaustive()
    }
}
