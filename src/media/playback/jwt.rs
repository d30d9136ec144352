//! Signed claims: JSON Web Tokens (RFC 7519) in the compact form, signed with HS256 or EdDSA (RFC 7518, RFC 8037).
//!
//! The header's `alg` must be the one that its key is for: a token chooses neither the algorithm nor the absence of one.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ed25519_dalek::{Signature, VerifyingKey};
use hmac::{Hmac, KeyInit, Mac};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::Sha256;
use std::net::IpAddr;
use ulid::Ulid;

use super::{Claims, Denied, Keyring, Material, Network, SigningKey, Viewer};
use crate::media::id;

/// Characters of the longest token that is looked at.
pub const LENGTH_MAX: usize = 4_096;
/// Clocks of who signs and who checks may differ by this, seconds; never in favour of an expired token.
const SKEW: u64 = 5;
/// Prefix of a key's id in `kid`.
pub const KEY_PREFIX: &str = "pk_";
/// Prefix of a playback id in `sub`.
pub const PLAYBACK_PREFIX: &str = "pb_";

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<serde_json::Value>,
}

/// What is read of a token's payload; other members are none of our business.
#[derive(Deserialize)]
struct Payload {
    sub: String,
    exp: f64,
    nbf: Option<f64>,
    sid: Option<String>,
    ip: Option<IpAddr>,
    max_res: Option<u16>,
    from: Option<serde_json::Value>,
    to: Option<serde_json::Value>,
}

/// Who has signed, and what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    pub key: Ulid,
    pub claims: Claims,
}

/// The claims of a token that came from `peer` for the channel `playback`; `now`: Unix seconds.
///
/// # Errors
/// Why it does not open this channel.
pub fn verify(keyring: &Keyring, token: &str, playback: Ulid, peer: IpAddr, now: u64) -> Result<Signed, Denied> {
    let malformed = Denied::Invalid("it is no JSON Web Token of three parts");
    if token.len() > LENGTH_MAX {
        return Err(Denied::Invalid("it is longer than 4096 characters"));
    }
    let (signed, signature) = token.rsplit_once('.').ok_or(malformed)?;
    let (header, payload) = signed.split_once('.').ok_or(malformed)?;
    let header: Header = json(header).ok_or(malformed)?;
    let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).map_err(|_| malformed)?;
    if header.crit.is_some() {
        return Err(Denied::Invalid("its header names critical extensions, and none is known here"));
    }
    let key = signer(keyring, &header, signed.as_bytes(), &signature)?;
    let payload: Payload = json(payload).ok_or(Denied::Invalid(
        "its claims need sub (playback id) and exp (Unix seconds); optional: nbf, sid, ip, max_res",
    ))?;
    // Nothing of an unsigned payload is believed, so the order of these is only about the words.
    let claims = claims(payload, playback, peer, now)?;
    Ok(Signed { key, claims })
}

/// An Ed25519 public key as operators have it: PEM (`BEGIN PUBLIC KEY`), or its 32 bytes in base64url (the `x` of a JWK).
///
/// # Errors
/// A sentence with the two forms.
pub fn public_key(text: &str) -> Result<VerifyingKey, String> {
    /// SubjectPublicKeyInfo of Ed25519 up to the key (RFC 8410).
    const SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
    let text = text.trim();
    let pem = text.strip_prefix("-----BEGIN PUBLIC KEY-----").and_then(|t| t.strip_suffix("-----END PUBLIC KEY-----"));
    let bytes = match pem {
        Some(body) => {
            let body: String = body.split_whitespace().collect();
            let der = base64::prelude::BASE64_STANDARD.decode(body).ok();
            der.and_then(|der| der.strip_prefix(&SPKI).map(<[u8]>::to_vec))
        }
        None => BASE64_URL_SAFE_NO_PAD.decode(text).ok(),
    };
    let key = bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok()).and_then(|b| VerifyingKey::from_bytes(&b).ok());
    // A key of small order would accept more than its owner signs.
    key.filter(|key| !key.is_weak()).ok_or_else(|| {
        "write an Ed25519 public key: the PEM of `openssl pkey -pubout`, or the \"x\" of its JWK (43 characters)"
            .to_owned()
    })
}

fn json<T: DeserializeOwned>(part: &str) -> Option<T> {
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

/// The key that has signed, by its `kid`, or without one any of its algorithm.
fn signer(keyring: &Keyring, header: &Header, signed: &[u8], signature: &[u8]) -> Result<Ulid, Denied> {
    let wanted = match &header.kid {
        Some(kid) => Some(id::parse(KEY_PREFIX, kid).map_err(|_| UNKNOWN_KEY)?),
        None => None,
    };
    let named: Vec<&SigningKey> = keyring.keys.iter().filter(|key| wanted.is_none_or(|id| key.id == id)).collect();
    if named.is_empty() {
        return Err(UNKNOWN_KEY);
    }
    let fits = |key: &&&SigningKey| match (&key.material, header.alg.as_str()) {
        (Material::Hs256(secret), "HS256") => hs256(secret, signed).verify_slice(signature).is_ok(),
        (Material::EdDsa(public), "EdDSA" | "Ed25519") => {
            Signature::from_slice(signature).is_ok_and(|s| public.verify_strict(signed, &s).is_ok())
        }
        _ => false,
    };
    let found = named.iter().find(fits).map(|key| key.id);
    found.ok_or(Denied::Invalid("no key of this server has signed it with its own algorithm (HS256 or EdDSA)"))
}

const UNKNOWN_KEY: Denied = Denied::Invalid("its kid names no key of this server");

fn hs256(secret: &[u8], text: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("a key of any length");
    mac.update(text);
    mac
}

fn claims(payload: Payload, playback: Ulid, peer: IpAddr, now: u64) -> Result<Claims, Denied> {
    let sub = id::parse(PLAYBACK_PREFIX, &payload.sub);
    let sub = sub.map_err(|_| Denied::Invalid("its sub is no playback id (pb_ and 26 characters)"))?;
    if sub != playback {
        return Err(Denied::Foreign);
    }
    if payload.from.is_some() || payload.to.is_some() {
        return Err(Denied::Invalid(
            "it limits the time that may be seen (from, to), which this server does not offer",
        ));
    }
    if !payload.exp.is_finite() || payload.exp <= now as f64 {
        return Err(Denied::Expired);
    }
    if payload.nbf.is_some_and(|nbf| nbf > (now + SKEW) as f64) {
        return Err(Denied::Early);
    }
    if payload.ip.is_some_and(|ip| Network::of(ip) != Network::of(peer)) {
        return Err(Denied::Address);
    }
    let viewer = payload.sid.as_deref().map(Viewer::new).transpose();
    let viewer = viewer.map_err(|_| Denied::Invalid("its sid has 1 to 32 of A-Z, a-z, 0-9, '_' and '-'"))?;
    Ok(Claims {
        playback,
        // Later than 2106 is 2106.
        expires: payload.exp.min(f64::from(u32::MAX)) as u32,
        viewer,
        height_max: payload.max_res,
        address: payload.ip.map(Network::of),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::Signer;

    const NOW: u64 = 1_800_000_000;
    const PLAYBACK: Ulid = Ulid::from_parts(3, 4);
    const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

    fn pair() -> ed25519_dalek::SigningKey {
        ed25519_dalek::SigningKey::from_bytes(&[5; 32])
    }

    fn keyring() -> Keyring {
        let hs = SigningKey { id: Ulid::from_parts(1, 1), material: Material::Hs256(SECRET.to_vec()) };
        let ed = Material::EdDsa(Box::new(pair().verifying_key()));
        Keyring { secret: [1; 32], keys: vec![hs, SigningKey { id: Ulid::from_parts(1, 2), material: ed }] }
    }

    fn encoded(text: &str) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(text)
    }

    fn hs_token(header: &str, payload: &str) -> String {
        let signed = format!("{}.{}", encoded(header), encoded(payload));
        let mac = hs256(SECRET, signed.as_bytes()).finalize().into_bytes();
        format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(mac))
    }

    fn check(token: &str) -> Result<Signed, Denied> {
        verify(&keyring(), token, PLAYBACK, "192.0.2.1".parse().unwrap(), NOW)
    }

    fn payload(more: &str) -> String {
        format!("{{\"sub\":\"pb_{PLAYBACK}\",\"exp\":{}{more}}}", NOW + 60)
    }

    #[test]
    fn claims_signed_by_either_kind_of_key_are_read() {
        let wanted = |key| {
            let expires = u32::try_from(NOW + 60).unwrap();
            let claims = Claims { playback: PLAYBACK, expires, viewer: None, height_max: None, address: None };
            Ok(Signed { key, claims })
        };
        let header = format!("{{\"alg\":\"HS256\",\"kid\":\"pk_{}\"}}", Ulid::from_parts(1, 1));
        assert_eq!(check(&hs_token(&header, &payload(""))), wanted(Ulid::from_parts(1, 1)));
        assert_eq!(check(&hs_token("{\"alg\":\"HS256\"}", &payload(",\"aud\":\"x\""))), wanted(Ulid::from_parts(1, 1)));
        let signed = format!("{}.{}", encoded("{\"alg\":\"EdDSA\"}"), encoded(&payload("")));
        let signature = BASE64_URL_SAFE_NO_PAD.encode(pair().sign(signed.as_bytes()).to_bytes());
        assert_eq!(check(&format!("{signed}.{signature}")), wanted(Ulid::from_parts(1, 2)));
    }

    #[test]
    fn no_token_chooses_how_it_is_checked() {
        let public = pair().verifying_key().to_bytes();
        let signed = format!("{}.{}", encoded("{\"alg\":\"HS256\"}"), encoded(&payload("")));
        // The public half of another key, used as if it were a shared secret.
        let mac = BASE64_URL_SAFE_NO_PAD.encode(hs256(&public, signed.as_bytes()).finalize().into_bytes());
        assert!(matches!(check(&format!("{signed}.{mac}")), Err(Denied::Invalid(_))));
        for header in ["{\"alg\":\"none\"}", "{\"alg\":\"HS512\"}", "{\"alg\":\"hs256\"}", "{}", "[]", "null"] {
            let unsigned = format!("{}.{}.", encoded(header), encoded(&payload("")));
            assert!(matches!(check(&unsigned), Err(Denied::Invalid(_))), "{header}");
            assert!(matches!(check(&hs_token(header, &payload(""))), Err(Denied::Invalid(_))), "{header}");
        }
        let critical = "{\"alg\":\"HS256\",\"crit\":[\"b64\"],\"b64\":false}";
        assert!(matches!(check(&hs_token(critical, &payload(""))), Err(Denied::Invalid(_))));
    }

    #[test]
    fn each_claim_is_held_to() {
        let token = |payload: &str| check(&hs_token("{\"alg\":\"HS256\"}", payload));
        let with = |more: &str| token(&payload(more));
        assert_eq!(with(",\"ip\":\"192.0.2.2\""), Err(Denied::Address));
        assert!(with(",\"ip\":\"192.0.2.1\"").is_ok_and(|s| s.claims.address.is_some()));
        assert_eq!(with(&format!(",\"nbf\":{}", NOW + 6)), Err(Denied::Early));
        assert!(with(&format!(",\"nbf\":{}", NOW + 5)).is_ok(), "clocks differ a little");
        assert!(with(",\"max_res\":720,\"sid\":\"a-1\"").is_ok_and(|s| s.claims.height_max == Some(720)));
        assert!(matches!(with(",\"sid\":\"a b\""), Err(Denied::Invalid(_))));
        assert!(matches!(with(",\"from\":1"), Err(Denied::Invalid(_))), "what is not kept to is not accepted");
        assert_eq!(token(&format!("{{\"sub\":\"pb_{PLAYBACK}\",\"exp\":{NOW}}}")), Err(Denied::Expired));
        assert!(
            matches!(token(&format!("{{\"sub\":\"pb_{PLAYBACK}\"}}")), Err(Denied::Invalid(_))),
            "exp is asked for"
        );
        let foreign = format!("{{\"sub\":\"pb_{}\",\"exp\":{}}}", Ulid::from_parts(3, 5), NOW + 60);
        assert_eq!(token(&foreign), Err(Denied::Foreign));
        let huge = format!("{{\"sub\":\"pb_{PLAYBACK}\",\"exp\":1e300}}");
        assert!(token(&huge).is_ok_and(|s| s.claims.expires == u32::MAX));
    }

    #[test]
    fn any_text_is_refused_without_a_panic() {
        let good = hs_token("{\"alg\":\"HS256\"}", &payload(""));
        for at in 0..good.len() {
            let mut bad = good.clone().into_bytes();
            bad[at] = if bad[at] == b'A' { b'B' } else { b'A' };
            let bad = String::from_utf8(bad).unwrap();
            // The last character of a Base64 text has bits that say nothing.
            assert!(check(&bad).is_err() || at == good.len() - 1, "{at}");
        }
        proptest::proptest!(|(text in ".{0,200}")| { proptest::prop_assert!(check(&text).is_err()); });
        proptest::proptest!(|(a in ".{0,80}", b in ".{0,80}")| { proptest::prop_assert!(check(&hs_token(&a, &b)).is_err()); });
    }

    #[test]
    fn public_keys_come_as_pem_or_as_a_jwk_coordinate() {
        let key = pair().verifying_key();
        let x = BASE64_URL_SAFE_NO_PAD.encode(key.to_bytes());
        assert_eq!(public_key(&x), Ok(key));
        let der =
            [&[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00][..], &key.to_bytes()].concat();
        let pem = base64::prelude::BASE64_STANDARD.encode(der);
        assert_eq!(public_key(&format!("-----BEGIN PUBLIC KEY-----\n{pem}\n-----END PUBLIC KEY-----\n")), Ok(key));
        let small = BASE64_URL_SAFE_NO_PAD.encode([0; 32]);
        for bad in ["", "abc", &x[1..], small.as_str(), "-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----"] {
            assert!(public_key(bad).is_err(), "{bad}");
        }
    }
}
