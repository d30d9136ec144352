//! Publish keys that Rung makes.

use crate::media::key::PUBLISH_KEY_LETTERS;

/// The key of 256 random bits: 26 letters hold 134 of them, each key as likely as the next to 2^-121.
pub fn publish_key(mut random: [u8; 32]) -> String {
    let letter = |_| {
        let mut rest = 0u32;
        for byte in &mut random {
            let value = rest << 8 | u32::from(*byte);
            // Below 256, because the rest is below 36.
            *byte = u8::try_from(value / 36).unwrap_or(u8::MAX);
            rest = value % 36;
        }
        char::from(PUBLISH_KEY_LETTERS[rest as usize])
    };
    (0..26).map(letter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::key::is_publish_key;
    use std::collections::BTreeSet;

    #[test]
    fn keys_have_the_form_of_keys_and_every_bit_counts() {
        let mut seen = BTreeSet::new();
        for bit in 0..=130 {
            let mut random = [0; 32];
            random[31 - bit / 8] ^= 1 << (bit % 8);
            let key = publish_key(random);
            assert!(is_publish_key(&key) && seen.insert(key));
        }
        assert_eq!(publish_key([0; 32]), "a".repeat(26));
    }
}
