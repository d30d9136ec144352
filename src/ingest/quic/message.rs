//! What is said in `rung-ts/1`: hello, answer, a segment's head, and the codes; as bytes, without input or output.
//! docs/quic-ingest.md is the format's description.

use crate::ingest::admission::Refusal;
use crate::ingest::door::{Wanted, parse_leg};
use crate::ingest::{Closing, Leg};
use crate::telemetry::Redacted;

/// What both sides ask for in the TLS handshake.
pub const ALPN: &[u8] = b"rung-ts/1";
/// Of the hello.
const VERSION: u64 = 1;
/// Bytes of a hello's or an answer's body.
const BODY_MAX: u64 = 1_024;
/// The longest hello: two numbers and the body.
pub(super) const HELLO_MAX: usize = 16 + BODY_MAX as usize;
/// Bytes of the sentence in an answer.
const REASON_MAX: usize = 256;
/// The largest number that a varint holds [QUIC 16].
pub(super) const VARINT_MAX: u64 = (1 << 62) - 1;

/// The publisher resets a segment that would come too late; the receiver stops one that it has skipped.
pub const LATE: u32 = 1;
/// The receiver stops a segment whose sequence it has, or had.
pub const REPEATED: u32 = 2;
/// The connection ends because everything was said.
pub const FINISHED: u32 = 0;
/// The connection ends because the peer broke the rules.
pub const BROKEN: u32 = 1;

/// The code that a connection is closed with.
pub(super) fn close_code(why: Closing) -> u32 {
    match why {
        Closing::Finished => FINISHED,
        Closing::Broken => BROKEN,
        Closing::Stopped => 1403,
        Closing::Replaced => 1409,
        Closing::InputInvalid => 1415,
        // Come back: the box restarts, or heard nothing.
        Closing::Silent | Closing::Shutdown => 1503,
    }
}

/// What a publisher says first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// `<channel>`, or with a leg `<channel>/a`.
    pub name: String,
    pub key: Redacted<String>,
    /// Asked for; the receiver may grant more.
    pub latency_ms: u64,
    /// Bits per second that the publisher will not exceed for longer than a second; 0: it does not know.
    pub max_bitrate: u64,
}

/// What the receiver says to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// 0: welcome; else a refusal's code.
    pub code: u16,
    /// Granted.
    pub latency_ms: u64,
    /// For people; empty when welcome.
    pub reason: String,
}

/// What a segment's stream begins with; whole transport-stream packets follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// 0, 1, 2, …
    pub sequence: u64,
    /// When the first packet was there, microseconds on the publisher's clock from any zero.
    pub timestamp_us: u64,
}

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// Not even a message of a later version would look like that.
    Malformed,
    /// A hello of another version.
    Version,
}

impl Hello {
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        put_text(&mut body, self.name.as_bytes());
        put_text(&mut body, self.key.expose().as_bytes());
        put(&mut body, self.latency_ms);
        put(&mut body, self.max_bitrate);
        let mut bytes = Vec::with_capacity(body.len() + 4);
        put(&mut bytes, VERSION);
        put_text(&mut bytes, &body);
        bytes
    }

    /// `None`: there is more to come. What follows the known fields of the body is a later version's.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(bytes: &[u8]) -> Result<Option<Hello>, Wrong> {
        let mut rest = bytes;
        let Some(version) = take(&mut rest) else { return Ok(None) };
        let Some(mut body) = take_body(&mut rest)? else { return Ok(None) };
        if version != VERSION {
            return Err(Wrong::Version);
        }
        let (name, key) = (take_text(&mut body)?, take_text(&mut body)?);
        let (latency_ms, max_bitrate) = (take_whole(&mut body)?, take_whole(&mut body)?);
        Ok(Some(Hello { name, key: Redacted::new(key), latency_ms, max_bitrate }))
    }

    /// # Errors
    /// `Denied` for what names no channel or no key, as for a wrong one; `Unsupported` for a leg that there is none of.
    pub(super) fn wanted(&self) -> Result<Wanted, Refusal> {
        let (channel, leg) = match self.name.split_once('/') {
            Some((channel, leg)) => (channel, parse_leg(leg)?),
            None => (self.name.as_str(), Leg::A),
        };
        Wanted::new(channel, self.key.expose(), leg)
    }
}

impl Answer {
    pub(super) fn refusal(refusal: &Refusal) -> Answer {
        let mut reason = refusal.to_string();
        reason.truncate(reason.floor_char_boundary(REASON_MAX));
        Answer { code: refusal.code(), latency_ms: 0, reason }
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        put(&mut body, self.code.into());
        put(&mut body, self.latency_ms);
        put_text(&mut body, self.reason.as_bytes());
        let mut bytes = Vec::with_capacity(body.len() + 2);
        put_text(&mut bytes, &body);
        bytes
    }

    /// `None`: there is more to come.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(bytes: &[u8]) -> Result<Option<Answer>, Wrong> {
        let mut rest = bytes;
        let Some(mut body) = take_body(&mut rest)? else { return Ok(None) };
        let code = u16::try_from(take_whole(&mut body)?).map_err(|_| Wrong::Malformed)?;
        let latency_ms = take_whole(&mut body)?;
        Ok(Some(Answer { code, latency_ms, reason: take_text(&mut body)? }))
    }
}

impl Head {
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(16);
        put(&mut bytes, self.sequence);
        put(&mut bytes, self.timestamp_us);
        bytes
    }

    /// The head and its length; `None`: there is more to come. Any sixteen bytes begin with a head.
    pub fn parse(bytes: &[u8]) -> Option<(Head, usize)> {
        let mut rest = bytes;
        let head = Head { sequence: take(&mut rest)?, timestamp_us: take(&mut rest)? };
        Some((head, bytes.len() - rest.len()))
    }
}

/// In the fewest bytes [QUIC 16]. What does not fit becomes the largest that does.
fn put(out: &mut Vec<u8>, value: u64) {
    let value = value.min(VARINT_MAX);
    let (length, prefix) = match value {
        0..0x40 => (1, 0),
        0x40..0x4000 => (2, 1),
        0x4000..0x4000_0000 => (4, 2),
        _ => (8, 3),
    };
    let bytes = (value | prefix << (length * 8 - 2)).to_be_bytes();
    out.extend_from_slice(&bytes[8 - length as usize..]);
}

fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    put(out, text.len() as u64);
    out.extend_from_slice(text);
}

/// `None`: it is not all there.
fn take(rest: &mut &[u8]) -> Option<u64> {
    let first = *rest.first()?;
    let length = 1 << (first >> 6);
    let (bytes, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(bytes[1..].iter().fold(u64::from(first & 0x3f), |value, byte| value << 8 | u64::from(*byte)))
}

/// Of a body that is all there.
fn take_whole(body: &mut &[u8]) -> Result<u64, Wrong> {
    take(body).ok_or(Wrong::Malformed)
}

fn take_text(body: &mut &[u8]) -> Result<String, Wrong> {
    let length = usize::try_from(take_whole(body)?).map_err(|_| Wrong::Malformed)?;
    let (text, after) = body.split_at_checked(length).ok_or(Wrong::Malformed)?;
    *body = after;
    String::from_utf8(text.to_vec()).map_err(|_| Wrong::Malformed)
}

/// `None`: it is not all there. One that would be too long is refused before it comes.
fn take_body<'a>(rest: &mut &'a [u8]) -> Result<Option<&'a [u8]>, Wrong> {
    let Some(length) = take(rest) else { return Ok(None) };
    let length = usize::try_from(length).ok().filter(|_| length <= BODY_MAX).ok_or(Wrong::Malformed)?;
    Ok(rest.split_at_checked(length).map(|(body, after)| {
        *rest = after;
        body
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::key::hex;

    fn hello() -> Hello {
        Hello { name: "news/b".into(), key: Redacted::new("k3y".into()), latency_ms: 200, max_bitrate: 8_000_000 }
    }

    fn varint(value: u64) -> Vec<u8> {
        let mut out = Vec::new();
        put(&mut out, value);
        out
    }

    #[test]
    fn numbers_read_as_the_rfc_writes_them() {
        for (value, bytes) in [
            (37, "25"),
            (15_293, "7bbd"),
            (494_878_333, "9d7f3e7d"),
            (151_288_809_941_952_652, "c2197c5eff14e88c"),
            (VARINT_MAX, "ffffffffffffffff"),
        ] {
            assert_eq!(hex(&varint(value)), bytes);
            assert_eq!(take(&mut varint(value).as_slice()), Some(value));
        }
        assert_eq!(take(&mut [0x40, 0x25].as_slice()), Some(37), "longer than it must be is a number too");
        for value in [0, 63, 64, 16_383, 16_384, (1 << 30) - 1, 1 << 30] {
            assert_eq!(take(&mut varint(value).as_slice()), Some(value));
        }
    }

    #[test]
    fn every_message_comes_back_and_none_is_read_before_it_is_there() {
        let answer = Answer { code: 1409, latency_ms: 1_000, reason: "another publisher is on air".into() };
        let head = Head { sequence: 70_000, timestamp_us: 3_000_000_000 };
        let (a, b, c) = (hello().encode(), answer.encode(), head.encode());
        assert_eq!(Hello::parse(&a), Ok(Some(hello())));
        assert_eq!(Answer::parse(&b), Ok(Some(answer)));
        assert_eq!(Head::parse(&[&c[..], b"\x47media"].concat()), Some((head, c.len())));
        for n in 0..a.len() {
            assert_eq!(Hello::parse(&a[..n]), Ok(None), "{n} bytes");
        }
        for n in 0..b.len() {
            assert_eq!(Answer::parse(&b[..n]), Ok(None), "{n} bytes");
        }
        for n in 0..c.len() {
            assert_eq!(Head::parse(&c[..n]), None, "{n} bytes");
        }
    }

    #[test]
    fn a_hello_names_channel_and_leg_and_what_names_nothing_is_denied() {
        let wanted =
            |name: &str, key: &str| Hello { name: name.into(), key: Redacted::new(key.into()), ..hello() }.wanted();
        assert_eq!(wanted("news", "k").unwrap(), Wanted::new("news", "k", Leg::A).unwrap());
        assert_eq!(wanted("news/b", "k").unwrap(), Wanted::new("news", "k", Leg::B).unwrap());
        for (name, key) in [("", "k"), ("news", ""), ("/a", "k")] {
            assert_eq!(wanted(name, key), Err(Refusal::Denied), "{name:?}");
        }
        for name in ["news/c", "news/a/b", "news/"] {
            assert!(matches!(wanted(name, "k"), Err(Refusal::Unsupported(_))), "{name:?}");
        }
    }

    #[test]
    fn the_description_s_examples_are_what_is_said() {
        let text = include_str!("../../../docs/quic-ingest.md");
        let examples: Vec<String> = text
            .split("```hex\n")
            .skip(1)
            .filter_map(|rest| rest.split_once("```").map(|(hex, _)| hex.split_whitespace().collect()))
            .collect();
        let key = Redacted::new("abcdefghijklmnopqrstuvwx12".to_owned());
        let said = [
            Hello { key, ..hello() }.encode(),
            Answer { code: 0, latency_ms: 200, reason: String::new() }.encode(),
            Answer::refusal(&Refusal::Busy).encode(),
            Head { sequence: 3, timestamp_us: 750_000 }.encode(),
        ];
        assert_eq!(examples, said.map(|bytes| hex(&bytes)));
    }

    #[test]
    fn another_version_and_what_is_too_long_are_told_apart() {
        let mut later = hello().encode();
        later[0] = 2;
        assert_eq!(Hello::parse(&later), Err(Wrong::Version));
        let huge = [varint(VERSION), varint(BODY_MAX + 1)].concat();
        assert_eq!(Hello::parse(&huge), Err(Wrong::Malformed), "refused before it comes");
        assert_eq!(Hello::parse(&[varint(VERSION), varint(VARINT_MAX)].concat()), Err(Wrong::Malformed));
        let lying = [varint(VERSION), varint(3), varint(60), vec![b'a', b'b']].concat();
        assert_eq!(Hello::parse(&lying), Err(Wrong::Malformed), "a name longer than the body");
        // A later version of the same number may say more.
        let mut body = hello().encode()[2..].to_vec();
        body.extend_from_slice(b"more");
        let longer = [varint(VERSION), varint(body.len() as u64), body].concat();
        assert_eq!(Hello::parse(&longer), Ok(Some(hello())));
        assert_eq!(Answer::refusal(&Refusal::NoCapacity("ä".repeat(400))).reason.len(), 255, "cut between characters");
    }

    #[test]
    fn any_bytes_parse_without_panic_and_no_debug_shows_a_key() {
        let mut state = 0x9e37_79b9_u32;
        for _ in 0..20_000 {
            let mut bytes = hello().encode();
            for _ in 0..3 {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let at = (state >> 8) as usize % bytes.len();
                bytes[at] = (state >> 24) as u8;
            }
            drop((Hello::parse(&bytes), Answer::parse(&bytes), Head::parse(&bytes)));
        }
        assert!(!format!("{:?}", hello()).contains("k3y"));
    }
}
