//! What people and programs write as text: addresses, names, playlists, tokens, dates.

use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;
use std::sync::OnceLock;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use rung::control::auth::Secret;
use rung::control::record::{ChannelId, EventId, PlaybackId, TokenId, Utc};
use rung::ingest::srt::{self, SrtUrl};
use rung::media::channel::ChannelName;
use rung::media::key::{KeyDigest, is_publish_key};
use rung::media::playback::{Claims, Denied, Keyring, Material, Network, SigningKey, Viewer, jwt, pass};
use rung::package::player::parse;
use rung::time::Wall;
use sha2::Sha256;
use ulid::Ulid;

use crate::Target;
use crate::script::Script;
use crate::seeds;
use crate::targets::hex;

pub(super) const TARGETS: &[Target] = &[
    Target::new("stream_id", stream_id, seeds::stream_ids).words(&[
        b"#!::",
        b",r=",
        b",k=",
        b",m=publish",
        b",leg=b",
        b"/a",
    ]),
    Target::new("srt_url", srt_url, seeds::srt_urls).words(&[
        b"srt://",
        b"streamid=",
        b"&passphrase=",
        b"&latency=",
        b"&pbkeylen=",
        b"%23",
        b"[::1]",
        b":9000",
        b"{n}",
        b"%C3%A4",
    ]),
    Target::new("playlist", playlist, seeds::playlists)
        .words(&[
            b"#EXTM3U\n",
            b"#EXTINF:2.0,\n",
            b"#EXT-X-PART:DURATION=0.33,URI=\"p\"\n",
            b"#EXT-X-MAP:URI=\"i\"\n",
            b"#EXT-X-SKIP:SKIPPED-SEGMENTS=3\n",
            b"#EXT-X-DATERANGE:ID=\"x\",START-DATE=\"2026-01-01T00:00:00Z\"\n",
            b"#EXT-X-PROGRAM-DATE-TIME:2026-01-01T00:00:00.000Z\n",
            b"#EXT-X-MEDIA-SEQUENCE:",
            b"#EXT-X-ENDLIST\n",
            b"#EXT-X-MEDIA:TYPE=AUDIO,URI=\"a.m3u8\"\n",
            b"\"",
            b"=",
            b",",
            b"9999999999999999999",
        ])
        .memory(4 << 20, 512),
    Target::new("names", names, seeds::names).words(&[
        b"ch_",
        b"pb_",
        b"ev_",
        b"tk_",
        b"rk_",
        b"2026-05-01T18:30:00Z",
        b"+01:00",
    ]),
    Target::new("jwt", token, seeds::tokens)
        .words(&[
            b"\"alg\":\"HS256\"",
            b"\"alg\":\"none\"",
            b"\"exp\":",
            b"\"sub\":\"pb_",
            b"\"ip\":\"",
            b"\"max_res\":",
            b"1e400",
        ])
        .rounds(250),
    Target::new("pass", viewer_pass, seeds::passes),
    Target::new("public_key", public_key, seeds::public_keys).words(&[
        b"-----BEGIN PUBLIC KEY-----",
        b"-----END PUBLIC KEY-----",
        b"MCowBQYDK2VwAyEA",
    ]),
];

fn stream_id(input: &[u8]) {
    let Ok(id) = srt::stream_id(input) else { return };
    assert!(!id.channel.is_empty() && !id.key.expose().is_empty());
    assert!(id.channel.len() + id.key.expose().len() <= input.len());
    // Nothing that is written somewhere shows the key.
    let shown = format!("{id:?}");
    assert!(
        id.key.expose().len() < 6 || !shown.contains(id.key.expose()) || id.channel.contains(id.key.expose()),
        "{shown}"
    );
    // Either form says the same, where the other one can say it at all.
    let plain = |text: &str| !text.contains(['/', ',', '=']) && !text.starts_with("#!::");
    if plain(&id.channel) && plain(id.key.expose()) {
        let leg = id.leg.to_string();
        let path = format!("{}/{}/{leg}", id.channel, id.key.expose());
        let pairs = format!("#!::r={},m=publish,k={},leg={leg}", id.channel, id.key.expose());
        assert_eq!(srt::stream_id(path.as_bytes()).as_ref(), Ok(&id), "{path}");
        assert_eq!(srt::stream_id(pairs.as_bytes()).as_ref(), Ok(&id), "{pairs}");
    }
}

fn srt_url(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let url = match SrtUrl::parse(text) {
        Ok(url) => url,
        Err(what) => {
            assert!(!what.is_empty());
            return;
        }
    };
    assert!(url.port > 0 && !url.host.is_empty() && matches!(url.key_length, 16 | 24 | 32));
    assert!(url.stream_id.expose().len() <= 512);
    assert!(url.passphrase.as_ref().is_none_or(|p| (10..=79).contains(&p.expose().len())));
    assert!((1..=65_535).contains(&url.latency.as_millis()));
    // What is shown is an address, and the same one.
    let again = SrtUrl::parse(&url.to_string()).expect("what is shown is an address");
    assert_eq!((&again.host, again.port), (&url.host, url.port), "{url}");
    let numbered = url.numbered(7);
    assert_eq!(numbered.stream_id.expose(), &url.stream_id.expose().replace("{n}", "7"));
}

fn playlist(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(list) = parse::media(text) {
        let lines = text.lines().count();
        assert!(list.segments.len() <= lines && list.dates.len() <= lines && list.reports.len() <= lines);
        let first = list.msn.saturating_add(list.skipped);
        for (segment, number) in list.segments.iter().zip(0..) {
            assert_eq!(segment.msn, first.saturating_add(number));
            assert!(segment.parts.len() <= lines);
        }
        // Only the last one may be open.
        let whole = list.segments.iter().rev().skip(1).all(|segment| segment.whole.is_some());
        assert!(whole, "an open segment that others follow");
        assert!(list.dates.iter().all(|(id, said)| said.get("ID") == Some(id)));
    }
    let uris = parse::multivariant(text);
    assert!(uris.iter().all(|uri| text.contains(uri.as_str())));
    let mut sorted = uris.clone();
    sorted.sort();
    sorted.dedup();
    assert_eq!(sorted.len(), uris.len(), "each once");
    parse::iframes(text);
    for line in text.lines() {
        if let Some((at, nanos)) = parse::date_time(line).and_then(|at| Some((at, at.checked_mul(1_000_000)?))) {
            let shown = Wall(nanos);
            assert_eq!(parse::date_time(&shown.to_string()), Some(at), "{line:?} is shown as {shown}");
        }
    }
}

fn names(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    for text in text.lines() {
        if let Ok(name) = ChannelName::new(text) {
            assert!(name.as_str() == text && (1..=63).contains(&text.len()));
        }
        same::<ChannelId>(text);
        same::<PlaybackId>(text);
        same::<EventId>(text);
        same::<TokenId>(text);
        if let Ok(utc) = text.parse::<Utc>() {
            assert_eq!(utc.to_string().parse::<Utc>(), Ok(utc), "{text:?} is shown as {utc}");
        }
        if let Some(digest) = KeyDigest::from_hex(text) {
            assert_eq!(digest.to_hex(), text.to_ascii_lowercase());
            assert_eq!(hex(digest.bytes()), digest.to_hex());
        }
        if let Some(secret) = Secret::parse(text) {
            assert_eq!(secret.reveal(), text);
            assert!(text.starts_with(&secret.prefix()) && !format!("{secret:?}").contains(text));
        }
        assert!(!is_publish_key(text) || text.len() == 26);
        if let Ok(viewer) = Viewer::new(text) {
            assert!(viewer.as_str() == text && (1..=32).contains(&text.len()));
        }
    }
}

/// One text for one id.
fn same<T: FromStr + ToString>(text: &str) {
    if let Ok(id) = text.parse::<T>() {
        assert_eq!(
            id.to_string(),
            text.to_string().to_ascii_uppercase().replacen(&text[..3].to_ascii_uppercase(), &text[..3], 1)
        );
    }
}

const NOW: u64 = 1_800_000_000;
const PLAYBACK: Ulid = Ulid(0x0192_0000_0000_0000_0000_0000_0000_0007);
const KEY: Ulid = Ulid(0x0192_0000_0000_0000_0000_0000_1234_5678);
const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 9));
const SECRET: &[u8] = b"a secret that signs viewers in";

fn keyring() -> &'static Keyring {
    static KEYRING: OnceLock<Keyring> = OnceLock::new();
    KEYRING.get_or_init(|| {
        let public = ed25519_dalek::SigningKey::from_bytes(&[7; 32]).verifying_key();
        Keyring {
            secret: [9; 32],
            keys: vec![
                SigningKey { id: KEY, material: Material::Hs256(SECRET.to_vec()) },
                SigningKey { id: Ulid(5), material: Material::EdDsa(Box::new(public)) },
                SigningKey { id: Ulid(6), material: Material::Own },
            ],
        }
    })
}

/// `header.payload` signed with HS256.
pub(crate) fn signed_token(header: &[u8], payload: &[u8]) -> String {
    let text = format!("{}.{}", BASE64_URL_SAFE_NO_PAD.encode(header), BASE64_URL_SAFE_NO_PAD.encode(payload));
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET).expect("a key of any length");
    mac.update(text.as_bytes());
    format!("{text}.{}", BASE64_URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}

/// The input as a token, which nobody signed; and as header and payload of one that was signed.
fn token(input: &[u8]) {
    if let Ok(text) = std::str::from_utf8(input) {
        let refused = jwt::verify(keyring(), text, PLAYBACK, PEER, NOW);
        // Only who has the secret makes one that is good: of that one everything behind the dots is known here.
        if let Ok(found) = refused {
            let parts: Vec<&str> = text.split('.').collect();
            let decode = |part: &str| BASE64_URL_SAFE_NO_PAD.decode(part).expect("what was verified is Base64");
            assert_eq!(parts.len(), 3);
            assert_eq!(text, signed_token(&decode(parts[0]), &decode(parts[1])), "{found:?}");
        }
    }
    let mut script = Script::new(input);
    let (header, payload) = (script.piece(), script.rest());
    let text = signed_token(header, payload);
    match jwt::verify(keyring(), &text, PLAYBACK, PEER, NOW) {
        Ok(found) => {
            assert_eq!((found.key, found.claims.playback), (KEY, PLAYBACK));
            assert!(u64::from(found.claims.expires) > NOW, "{found:?}");
            assert!(found.claims.address.is_none_or(|network| network == Network::of(PEER)));
            let claims: serde_json::Value = serde_json::from_slice(payload).expect("what was read is JSON");
            assert_eq!(claims["sub"].as_str(), Some(&*format!("pb_{PLAYBACK}")));
            let pass = pass::seal(keyring(), found.key, &found.claims);
            assert_eq!(pass::open(keyring(), &pass, PLAYBACK, PEER, NOW), Ok(found.claims));
        }
        Err(why) => assert_ne!(why, Denied::Missing),
    }
    // One bit of its signature, and it is nobody's.
    if text.len() <= jwt::LENGTH_MAX {
        let mut bent = text.into_bytes();
        let at = bent.len() - 2 - usize::from(script.byte()) % 40;
        bent[at] = if bent[at] == b'A' { b'B' } else { b'A' };
        let bent = String::from_utf8(bent).expect("letters");
        assert!(jwt::verify(keyring(), &bent, PLAYBACK, PEER, NOW).is_err(), "{bent}");
    }
}

/// Claims as the script says, sealed and opened; and the input as a pass.
fn viewer_pass(input: &[u8]) {
    let mut script = Script::new(input);
    let flags = script.byte();
    let viewer = std::str::from_utf8(script.piece()).ok().and_then(|text| Viewer::new(text).ok());
    let claims = Claims {
        playback: PLAYBACK,
        expires: script.u32(),
        viewer,
        height_max: (flags & 1 != 0).then_some(script.u16()),
        address: (flags & 2 != 0).then(|| Network::of(PEER)),
    };
    let sealed = pass::seal(keyring(), KEY, &claims);
    assert!(sealed.len() <= pass::LENGTH_MAX);
    let opened = pass::open(keyring(), &sealed, PLAYBACK, PEER, NOW);
    if u64::from(claims.expires) > NOW {
        assert_eq!(opened.as_ref(), Ok(&claims));
    } else {
        assert_eq!(opened, Err(Denied::Expired));
    }
    let elsewhere = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10));
    assert!(pass::open(keyring(), &sealed, Ulid(1), PEER, NOW).is_err(), "another channel's");
    assert_eq!(pass::open(keyring(), &sealed, PLAYBACK, elsewhere, NOW).is_ok(), opened.is_ok() && flags & 2 == 0);
    // A pass has one form.
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(claims) = pass::open(keyring(), text, PLAYBACK, PEER, NOW) {
        let same = |key: &SigningKey| pass::seal(keyring(), key.id, &claims) == text;
        assert!(keyring().keys.iter().any(same), "{text}");
    }
}

/// A pass that is good.
pub(crate) fn sealed_pass() -> String {
    let claims = Claims { playback: PLAYBACK, expires: 1_900_000_000, viewer: None, height_max: None, address: None };
    pass::seal(keyring(), KEY, &claims)
}

fn public_key(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(key) = jwt::public_key(text) {
        assert!(!key.is_weak());
        assert_eq!(jwt::public_key(&BASE64_URL_SAFE_NO_PAD.encode(key.to_bytes())), Ok(key));
    }
}
