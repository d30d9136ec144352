//! The SRT stream id: which channel, which key, which leg.
//!
//! Two forms: `#!::r=<channel>,k=<key>,m=publish[,leg=a|b]` and `<channel>/<key>[/a|b]`.

use crate::ingest::door::{Wanted, parse_leg};
use crate::ingest::{Leg, Refusal};
use crate::media::channel::ChannelName;
use crate::telemetry::Redacted;

/// What a caller's stream id asks for.
///
/// # Errors
/// `Denied` for what names no channel or no key, as for a wrong one; `Unsupported` for a mode or leg that this port does
/// not take.
pub fn parse(bytes: &[u8]) -> Result<Wanted, Refusal> {
    let text = std::str::from_utf8(bytes).map_err(|_| Refusal::Denied)?;
    match text.strip_prefix("#!::") {
        Some(pairs) => from_pairs(pairs),
        None => from_path(text),
    }
}

/// Of a caller that can only mean `channel`: all that it says is the key.
pub(super) fn whole(channel: &ChannelName, bytes: &[u8]) -> Wanted {
    let key = Redacted::new(String::from_utf8_lossy(bytes).into_owned());
    Wanted { channel: channel.as_str().to_owned(), key, leg: Leg::A }
}

fn from_pairs(pairs: &str) -> Result<Wanted, Refusal> {
    let (mut channel, mut key, mut mode, mut leg) = (None, None, None, Leg::A);
    for pair in pairs.split(',') {
        match pair.split_once('=') {
            Some(("r", value)) => channel = Some(value),
            Some(("k", value)) => key = Some(value),
            Some(("m", value)) => mode = Some(value),
            Some(("leg", value)) => leg = parse_leg(value)?,
            // Other keys of the access control syntax (h, s, t, u) and unknown ones say nothing to us.
            _ => {}
        }
    }
    match mode {
        Some("publish") => {}
        Some("bidirectional") => {
            return Err(Refusal::Unsupported("m=bidirectional: this port only takes m=publish"));
        }
        // Without m the access control syntax means a request.
        _ => return Err(Refusal::Unsupported("this port only takes publishers: write m=publish in the stream id")),
    }
    Wanted::new(channel.unwrap_or_default(), key.unwrap_or_default(), leg)
}

fn from_path(text: &str) -> Result<Wanted, Refusal> {
    let mut parts = text.split('/');
    let (channel, key) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let leg = parts.next().map_or(Ok(Leg::A), parse_leg)?;
    if parts.next().is_some() {
        return Err(Refusal::Denied);
    }
    Wanted::new(channel, key, leg)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good(text: &str) -> (String, String, Leg) {
        let id = parse(text.as_bytes()).unwrap();
        (id.channel, id.key.into_inner(), id.leg)
    }

    #[test]
    fn both_forms_name_channel_key_and_leg() {
        let want = |leg| ("news-1".to_owned(), "k3y".to_owned(), leg);
        assert_eq!(good("#!::r=news-1,k=k3y,m=publish"), want(Leg::A));
        assert_eq!(good("#!::m=publish,leg=b,k=k3y,r=news-1"), want(Leg::B));
        assert_eq!(good("#!::u=me,h=box,t=stream,,x,r=news-1,k=k3y,m=publish,leg=a"), want(Leg::A));
        assert_eq!(good("news-1/k3y"), want(Leg::A));
        assert_eq!(good("news-1/k3y/a"), want(Leg::A));
        assert_eq!(good("news-1/k3y/b"), want(Leg::B));
    }

    #[test]
    fn what_names_no_channel_or_key_is_denied_like_a_wrong_one() {
        for text in
            ["", "/", "news", "news/", "/key", "a/b/a/c", "#!::m=publish", "#!::r=x,m=publish", "#!::k=x,m=publish"]
        {
            assert_eq!(parse(text.as_bytes()), Err(Refusal::Denied), "{text:?}");
        }
        assert_eq!(parse(&[0xff, 0xfe]), Err(Refusal::Denied));
    }

    #[test]
    fn other_modes_and_legs_are_unsupported() {
        for text in [
            "#!::r=x,k=y,m=request",
            "#!::r=x,k=y",
            "#!::r=x,k=y,m=bidirectional",
            "#!::r=x,k=y,m=publish,leg=c",
            "x/y/c",
        ] {
            assert!(matches!(parse(text.as_bytes()), Err(Refusal::Unsupported(_))), "{text:?}");
        }
    }

    #[test]
    fn any_bytes_parse_without_panic_and_no_debug_shows_a_key() {
        let mut state = 0x9e37_79b9_u32;
        for _ in 0..20_000 {
            let mut bytes = b"#!::r=a,k=b,m=publish,leg=a".to_vec();
            for _ in 0..4 {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let at = (state >> 8) as usize % bytes.len();
                bytes[at] = (state >> 24) as u8;
            }
            drop(parse(&bytes));
        }
        assert!(!format!("{:?}", parse(b"x/topsecret").unwrap()).contains("topsecret"));
    }
}
