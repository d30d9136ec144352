//! Passes: `/t/<pass>/` in front of a path.
//!
//! Base64url without padding of
//! `version 1 | flags | expires u32 | key u32 | [rows u16] | viewer 0..32 | MAC 16`, numbers big-endian. The MAC is the
//! first half of HMAC-SHA-256 with the box's secret over the playback id, the signing key's id, the address that the pass
//! is bound to, and everything before it. The playback id and the address are not in the pass: the request has them.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::net::IpAddr;
use ulid::Ulid;

use super::{Claims, Denied, Keyring, Network, Viewer};

const VERSION: u8 = 1;
/// Version, flags, expiry, key.
const HEAD: usize = 10;
const MAC: usize = 16;
const BOUND: u8 = 1;
const LIMITED: u8 = 2;
/// Characters of the longest pass.
pub const LENGTH_MAX: usize = (HEAD + 2 + 32 + MAC) * 4 / 3 + 1;

/// A pass for `claims`, which the key `key` has signed.
pub fn seal(keyring: &Keyring, key: Ulid, claims: &Claims) -> String {
    let mut pass = Vec::with_capacity(HEAD + 2 + 32 + MAC);
    let flags = u8::from(claims.address.is_some()) * BOUND + u8::from(claims.height_max.is_some()) * LIMITED;
    pass.extend_from_slice(&[VERSION, flags]);
    pass.extend_from_slice(&claims.expires.to_be_bytes());
    pass.extend_from_slice(&tag(key));
    if let Some(rows) = claims.height_max {
        pass.extend_from_slice(&rows.to_be_bytes());
    }
    pass.extend_from_slice(claims.viewer.as_ref().map_or(&[][..], |v| v.as_str().as_bytes()));
    let mac = mac(keyring, key, claims.playback, claims.address, &pass).finalize().into_bytes();
    pass.extend_from_slice(&mac[..MAC]);
    BASE64_URL_SAFE_NO_PAD.encode(pass)
}

/// The claims of a pass that came from `peer` for the channel `playback`; `now`: Unix seconds.
///
/// # Errors
/// Why it does not open this channel.
pub fn open(keyring: &Keyring, pass: &str, playback: Ulid, peer: IpAddr, now: u64) -> Result<Claims, Denied> {
    let malformed = Denied::Invalid("it is no pass of this server");
    if pass.len() > LENGTH_MAX {
        return Err(malformed);
    }
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(pass).map_err(|_| malformed)?;
    let (body, given) = bytes.split_last_chunk::<MAC>().ok_or(malformed)?;
    let (&[version, flags, e0, e1, e2, e3, k0, k1, k2, k3], mut rest) =
        body.split_first_chunk::<HEAD>().ok_or(malformed)?;
    if version != VERSION || flags & !(BOUND | LIMITED) != 0 {
        return Err(malformed);
    }
    let address = (flags & BOUND != 0).then(|| Network::of(peer));
    let good = |key: Ulid| mac(keyring, key, playback, address, body).verify_truncated_left(given).is_ok();
    let mut known = keyring.keys.iter().filter(|key| tag(key.id) == [k0, k1, k2, k3]).peekable();
    if known.peek().is_none() {
        return Err(Denied::Invalid("the key that it was made with is gone"));
    }
    if !known.any(|key| good(key.id)) {
        // Another channel's and another address's look alike from here: neither is in the pass.
        return Err(if address.is_some() { Denied::Address } else { Denied::Foreign });
    }
    let expires = u32::from_be_bytes([e0, e1, e2, e3]);
    if now >= u64::from(expires) {
        return Err(Denied::Expired);
    }
    let mut height_max = None;
    if flags & LIMITED != 0 {
        let (rows, viewer) = rest.split_first_chunk::<2>().ok_or(malformed)?;
        (height_max, rest) = (Some(u16::from_be_bytes(*rows)), viewer);
    }
    let viewer = match rest {
        [] => None,
        some => Some(std::str::from_utf8(some).ok().and_then(|v| Viewer::new(v).ok()).ok_or(malformed)?),
    };
    Ok(Claims { playback, expires, viewer, height_max, address })
}

fn mac(keyring: &Keyring, key: Ulid, playback: Ulid, address: Option<Network>, body: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(&keyring.secret).expect("a key of any length");
    mac.update(b"pass");
    mac.update(&playback.to_bytes());
    mac.update(&key.to_bytes());
    let address = address.as_ref().map_or(&[][..], Network::bytes);
    mac.update(&[u8::try_from(address.len()).expect("4 or 8")]);
    mac.update(address);
    mac.update(body);
    mac
}

/// The end of a key's id is random: enough to find it among a box's few.
fn tag(key: Ulid) -> [u8; 4] {
    *key.to_bytes().last_chunk().expect("16 bytes end with 4")
}

#[cfg(test)]
mod tests {
    use super::super::{Material, SigningKey};
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn keyring() -> Keyring {
        let key = |n: u128| SigningKey { id: Ulid::from_parts(1, n), material: Material::Hs256(b"secret".to_vec()) };
        Keyring { secret: [7; 32], keys: vec![key(1), key(2)] }
    }

    fn claims() -> Claims {
        let (playback, expires) = (Ulid::from_parts(2, 9), u32::try_from(NOW + 60).unwrap());
        Claims { playback, expires, viewer: None, height_max: None, address: None }
    }

    fn from(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn opened(pass: &str, playback: Ulid, peer: &str, now: u64) -> Result<Claims, Denied> {
        open(&keyring(), pass, playback, from(peer), now)
    }

    #[test]
    fn a_pass_opens_its_own_channel_until_it_expires() {
        let rich = Claims { viewer: Some(Viewer::new("seat-17_B").unwrap()), height_max: Some(720), ..claims() };
        for wanted in [claims(), rich] {
            let pass = seal(&keyring(), Ulid::from_parts(1, 2), &wanted);
            assert!(pass.len() <= LENGTH_MAX && pass.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)));
            assert_eq!(opened(&pass, wanted.playback, "192.0.2.1", NOW), Ok(wanted.clone()));
            assert_eq!(opened(&pass, wanted.playback, "192.0.2.1", NOW + 60), Err(Denied::Expired));
            assert_eq!(opened(&pass, Ulid::from_parts(2, 10), "192.0.2.1", NOW), Err(Denied::Foreign));
        }
    }

    #[test]
    fn a_bound_pass_is_good_in_its_network_only() {
        for (home, near, far) in
            [("192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::ffff:1", "2001:db8:0:1::1")]
        {
            let bound = Claims { address: Some(Network::of(from(home))), ..claims() };
            let pass = seal(&keyring(), Ulid::from_parts(1, 1), &bound);
            assert_eq!(opened(&pass, bound.playback, near, NOW), Ok(bound.clone()));
            assert_eq!(opened(&pass, bound.playback, far, NOW), Err(Denied::Address));
        }
    }

    #[test]
    fn a_key_that_is_gone_takes_its_passes_with_it_and_so_does_another_secret() {
        let pass = seal(&keyring(), Ulid::from_parts(1, 2), &claims());
        let mut other = keyring();
        other.keys.pop();
        let gone = open(&other, &pass, claims().playback, from("192.0.2.1"), NOW);
        assert_eq!(gone, Err(Denied::Invalid("the key that it was made with is gone")));
        let other = Keyring { secret: [8; 32], ..keyring() };
        assert_eq!(open(&other, &pass, claims().playback, from("192.0.2.1"), NOW), Err(Denied::Foreign));
    }

    #[test]
    fn every_flipped_bit_and_any_text_is_refused() {
        let rich = Claims { viewer: Some(Viewer::new("v").unwrap()), height_max: Some(720), ..claims() };
        let pass = seal(&keyring(), Ulid::from_parts(1, 2), &rich);
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(&pass).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(opened(&BASE64_URL_SAFE_NO_PAD.encode(bad), rich.playback, "192.0.2.1", NOW).is_err(), "bit {bit}");
        }
        proptest::proptest!(|(text in ".{0,120}")| {
            proptest::prop_assert!(opened(&text, rich.playback, "192.0.2.1", NOW).is_err());
        });
    }
}
