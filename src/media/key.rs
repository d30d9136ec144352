//! Publish keys: 26 characters of a-z and 0-9, of which only the SHA-256 is kept.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Two lower-case hexadecimal digits a byte.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256 of a publish key or a token: all that is kept of it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyDigest([u8; 32]);

impl KeyDigest {
    pub fn of(key: &str) -> KeyDigest {
        KeyDigest(Sha256::digest(key.as_bytes()).into())
    }

    /// From 64 hexadecimal digits (`key_sha256`).
    pub fn from_hex(hex: &str) -> Option<KeyDigest> {
        let mut digest = [0; 32];
        if hex.len() != 64 || !hex.is_ascii() {
            return None;
        }
        for (byte, digits) in digest.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        }
        Some(KeyDigest(digest))
    }

    /// 64 hexadecimal digits.
    pub fn to_hex(&self) -> String {
        hex(&self.0)
    }

    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// A digest that no key has: to spend the same time on a channel that does not exist.
    pub fn none() -> KeyDigest {
        KeyDigest([0; 32])
    }

    /// Every byte is looked at, whatever the first difference is.
    pub fn matches(&self, key: &str) -> bool {
        let given = KeyDigest::of(key);
        let different = self.0.iter().zip(given.0).fold(0u8, |bits, (a, b)| bits | (a ^ b));
        std::hint::black_box(different) == 0
    }
}

/// Prints nothing of the digest: it is enough to try keys against.
impl fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyDigest(***)")
    }
}

impl Serialize for KeyDigest {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.to_hex())
    }
}

impl<'de> Deserialize<'de> for KeyDigest {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let hex = String::deserialize(d)?;
        KeyDigest::from_hex(&hex).ok_or_else(|| serde::de::Error::custom("a digest is 64 hexadecimal digits"))
    }
}

/// What a publish key is made of.
pub const PUBLISH_KEY_LETTERS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";

/// 26 characters of a-z and 0-9.
pub fn is_publish_key(key: &str) -> bool {
    key.len() == 26 && key.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_reads_hex_and_never_prints() {
        let hex = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
        assert!(KeyDigest::from_hex(hex).unwrap().matches("secret"));
        assert!(!KeyDigest::from_hex(hex).unwrap().matches("Secret"));
        assert!(KeyDigest::from_hex(&hex[1..]).is_none() && KeyDigest::from_hex(&"zz".repeat(32)).is_none());
        assert_eq!(KeyDigest::of("secret").to_hex(), hex);
        assert_eq!(format!("{:?}", KeyDigest::of("secret")), "KeyDigest(***)");
        assert!(!KeyDigest::none().matches(""));
    }
}
