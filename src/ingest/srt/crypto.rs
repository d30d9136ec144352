//! The port's passphrase.

use std::fmt;

use sapflow_srt::crypto::{CryptoConfig, KeySize};

/// 10 to 79 bytes [SRT 6.1.4]. With one, every caller must encrypt with AES-128 or AES-256; without one, none may.
#[derive(Clone)]
pub struct Passphrase {
    aes128: CryptoConfig,
    aes256: CryptoConfig,
}

impl Passphrase {
    /// # Errors
    /// A sentence with the rule.
    pub fn new(passphrase: &str) -> Result<Passphrase, String> {
        let config = |size| {
            CryptoConfig::new(passphrase.as_bytes().to_vec(), size)
                .map_err(|_| "an SRT passphrase has 10 to 79 bytes and no NUL".to_owned())
        };
        Ok(Passphrase { aes128: config(KeySize::Aes128)?, aes256: config(KeySize::Aes256)? })
    }

    /// For a key of `length` bytes.
    pub(super) fn config(&self, length: u8) -> CryptoConfig {
        if length == 32 { self.aes256.clone() } else { self.aes128.clone() }
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(***)")
    }
}
