//! Publish keys: 26 characters of a-z and 0-9, of which only the SHA-256 is kept; and passphrases, which are kept whole.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

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
        if hex.len() != 64 || !hex.bytes().all(|digit| digit.is_ascii_hexdigit()) {
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

/// What SRT encrypts with, 10 to 79 bytes [SRT 6.1.4]. Keys are derived from it with every caller's own salt, so it cannot be
/// kept as a digest; it is never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Passphrase(Zeroizing<String>);

impl Passphrase {
    /// # Errors
    /// A sentence with the rule.
    pub fn new(passphrase: &str) -> Result<Passphrase, String> {
        let fits = (10..=79).contains(&passphrase.len()) && !passphrase.contains('\0');
        fits.then(|| Passphrase(Zeroizing::new(passphrase.to_owned())))
            .ok_or_else(|| format!("has {} bytes: an SRT passphrase has 10 to 79, and no NUL", passphrase.len()))
    }

    pub fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl TryFrom<String> for Passphrase {
    type Error = String;

    fn try_from(text: String) -> Result<Passphrase, String> {
        Passphrase::new(&text)
    }
}

impl From<Passphrase> for String {
    fn from(passphrase: Passphrase) -> String {
        (*passphrase.0).clone()
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(***)")
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
        assert!(KeyDigest::from_hex(&"+f".repeat(32)).is_none(), "a sign is no digit");
        assert_eq!(KeyDigest::of("secret").to_hex(), hex);
        assert_eq!(format!("{:?}", KeyDigest::of("secret")), "KeyDigest(***)");
        assert!(!KeyDigest::none().matches(""));
    }

    #[test]
    fn a_passphrase_is_kept_whole_within_its_bounds_and_never_prints() {
        for (length, fits) in [(9, false), (10, true), (79, true), (80, false)] {
            assert_eq!(Passphrase::new(&"x".repeat(length)).is_ok(), fits, "{length}");
        }
        assert!(Passphrase::new("ten bytes\0and a NUL").is_err());
        let kept: Passphrase = serde_json::from_str("\"a long passphrase\"").unwrap();
        assert_eq!((kept.bytes(), format!("{kept:?}").as_str()), (&b"a long passphrase"[..], "Passphrase(***)"));
        assert_eq!(serde_json::to_string(&kept).unwrap(), "\"a long passphrase\"");
        assert!(serde_json::from_str::<Passphrase>("\"short\"").is_err());
    }
}
