//! Handshakes, version 5 [SRT 3.2.1, 4.3]: their bodies, their extensions and the cookie that proves an address.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::group::Membership;
use super::packet::{word, words};
use super::seq::Seq;
use crate::time::Mono;

/// The fixed part of a handshake's body, bytes.
const FIXED: usize = 48;
/// Stream ids, congestion controls and filters are at most this long [SRT 3.2.1.3].
pub(super) const TEXT_MAX: usize = 512;
/// The extension field of an induction's answer: version 5 is spoken here.
pub(super) const MAGIC: u16 = 0x4a17;
/// The extension field of a first induction: datagrams.
const DATAGRAM: u16 = 2;
/// Our libsrt version: the first whose behaviour towards key refreshes and retransmissions is this one.
pub(super) const VERSION: u32 = 0x01_05_00;

/// Which extensions a conclusion brings.
pub(super) mod brings {
    pub(in super::super) const OPTIONS: u16 = 1;
    pub(in super::super) const KEYS: u16 = 2;
    pub(in super::super) const CONFIG: u16 = 4;
}

/// Flags of the options [SRT 3.2.1.1.1].
pub(super) mod flags {
    pub(in super::super) const TIMED_SEND: u32 = 1;
    pub(in super::super) const TIMED_RECEIVE: u32 = 2;
    pub(in super::super) const CRYPT: u32 = 4;
    pub(in super::super) const DROP_LATE: u32 = 8;
    pub(in super::super) const PERIODIC_NAK: u32 = 0x10;
    pub(in super::super) const RETRANSMITTED: u32 = 0x20;
    pub(in super::super) const STREAM: u32 = 0x40;
    pub(in super::super) const FILTER: u32 = 0x80;
    /// What both sides of a live connection of ours say.
    pub(in super::super) const LIVE: u32 =
        TIMED_SEND | TIMED_RECEIVE | CRYPT | DROP_LATE | PERIODIC_NAK | RETRANSMITTED | FILTER;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    WaveAHand,
    Induction,
    Conclusion,
    Agreement,
    /// libsrt's reason, 1000 and up.
    Rejection(u32),
}

impl Kind {
    fn from_wire(value: u32) -> Option<Kind> {
        Some(match value {
            0 => Kind::WaveAHand,
            1 => Kind::Induction,
            0xffff_ffff => Kind::Conclusion,
            0xffff_fffe => Kind::Agreement,
            1_000..0x8000_0000 => Kind::Rejection(value),
            _ => return None,
        })
    }

    fn to_wire(self) -> u32 {
        match self {
            Kind::WaveAHand => 0,
            Kind::Induction => 1,
            Kind::Conclusion => 0xffff_ffff,
            Kind::Agreement => 0xffff_fffe,
            Kind::Rejection(code) => code,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Handshake<'a> {
    /// 4 or 5.
    pub(super) version: u32,
    /// Key length wanted, bytes / 8; 0: no wish.
    pub(super) encryption: u16,
    /// `MAGIC`, `DATAGRAM` or what the conclusion `brings`.
    pub(super) extension: u16,
    pub(super) first: Seq,
    pub(super) mtu: u32,
    pub(super) flow_window: u32,
    pub(super) kind: Kind,
    pub(super) socket: u32,
    pub(super) cookie: u32,
    pub(super) address: IpAddr,
    pub(super) extensions: Extensions<'a>,
}

/// Extensions of a conclusion that mean something to us.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Extensions<'a> {
    pub(super) options: Option<Options>,
    /// Wrapped keys, or four bytes that say why there are none: see `crypto`.
    pub(super) keys: Option<&'a [u8]>,
    pub(super) stream_id: Vec<u8>,
    pub(super) congestion: Vec<u8>,
    pub(super) filter: Vec<u8>,
    pub(super) group: Option<Membership>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    /// major << 16 | minor << 8 | patch.
    pub(super) version: u32,
    pub(super) flags: u32,
    /// Latency in milliseconds, as receiver and as sender.
    pub(super) receive_ms: u16,
    pub(super) send_ms: u16,
}

mod extension {
    pub(super) const OPTIONS_REQUEST: u16 = 1;
    pub(super) const OPTIONS_RESPONSE: u16 = 2;
    pub(super) const KEYS_REQUEST: u16 = 3;
    pub(super) const KEYS_RESPONSE: u16 = 4;
    pub(super) const STREAM_ID: u16 = 5;
    pub(super) const CONGESTION: u16 = 6;
    pub(super) const FILTER: u16 = 7;
    pub(super) const GROUP: u16 = 8;
}

impl<'a> Handshake<'a> {
    /// One of version 5 without extensions.
    pub(super) fn new(kind: Kind, socket: u32, cookie: u32, first: Seq, address: IpAddr) -> Handshake<'a> {
        Handshake {
            version: 5,
            encryption: 0,
            extension: 0,
            first,
            mtu: 1_500,
            flow_window: 8_192,
            kind,
            socket,
            cookie,
            address,
            extensions: Extensions::default(),
        }
    }

    /// A caller's first word, which every version understands [SRT 4.3.1.1].
    pub(super) fn induction(socket: u32, first: Seq, address: IpAddr) -> Handshake<'a> {
        let new = Handshake::new(Kind::Induction, socket, 0, first, address);
        Handshake { version: 4, extension: DATAGRAM, ..new }
    }

    /// `None`: not the body of a handshake.
    pub(super) fn parse(body: &'a [u8]) -> Option<Handshake<'a>> {
        let at = |index: usize| word(body, index * 4);
        let (version, fields) = (at(0)?, at(1)?);
        let mut handshake = Handshake {
            version,
            encryption: (fields >> 16) as u16,
            extension: fields as u16,
            first: Seq::new(at(2)?),
            mtu: at(3)?,
            flow_window: at(4)?,
            kind: Kind::from_wire(at(5)?)?,
            socket: at(6)?,
            cookie: at(7)?,
            address: address(body.get(32..FIXED)?),
            extensions: Extensions::default(),
        };
        if handshake.version >= 5 && handshake.kind == Kind::Conclusion {
            handshake.extensions = Extensions::parse(body.get(FIXED..)?)?;
        }
        Some(handshake)
    }

    /// Appends the body; `answer`: its extensions are responses.
    pub(super) fn write(&self, out: &mut Vec<u8>, answer: bool) {
        let fields = u32::from(self.encryption) << 16 | u32::from(self.extension);
        words(out, [self.version, fields, self.first.number(), self.mtu, self.flow_window]);
        words(out, [self.kind.to_wire(), self.socket, self.cookie]);
        match self.address {
            // Addresses go out in words of the box's own byte order.
            IpAddr::V4(ip) => words(out, [ip.to_bits().swap_bytes(), 0, 0, 0]),
            IpAddr::V6(ip) => ip.octets().chunks_exact(4).for_each(|four| out.extend(four.iter().rev())),
        }
        self.extensions.write(out, answer);
    }
}

fn address(bytes: &[u8]) -> IpAddr {
    let mut octets = [0; 16];
    for (to, from) in octets.chunks_exact_mut(4).zip(bytes.chunks_exact(4)) {
        to.iter_mut().zip(from.iter().rev()).for_each(|(to, from)| *to = *from);
    }
    if octets[4..].iter().all(|byte| *byte == 0) {
        IpAddr::from([octets[0], octets[1], octets[2], octets[3]])
    } else {
        IpAddr::from(octets)
    }
}

impl<'a> Extensions<'a> {
    fn parse(mut rest: &'a [u8]) -> Option<Extensions<'a>> {
        let mut found = Extensions::default();
        while !rest.is_empty() {
            let head = word(rest, 0)?;
            let length = (head & 0xffff) as usize * 4;
            let body = rest.get(4..4 + length)?;
            rest = &rest[4 + length..];
            match (head >> 16) as u16 {
                extension::OPTIONS_REQUEST | extension::OPTIONS_RESPONSE => {
                    let delays = word(body, 8)?;
                    found.options = Some(Options {
                        version: word(body, 0)?,
                        flags: word(body, 4)?,
                        receive_ms: (delays >> 16) as u16,
                        send_ms: delays as u16,
                    });
                }
                extension::KEYS_REQUEST | extension::KEYS_RESPONSE => found.keys = Some(body),
                extension::STREAM_ID => found.stream_id = text(body)?,
                extension::CONGESTION => found.congestion = text(body)?,
                extension::FILTER => found.filter = text(body)?,
                extension::GROUP => found.group = Some(Membership::parse(body)?),
                _ => {}
            }
        }
        Some(found)
    }

    /// What a conclusion with these says that it brings.
    pub(super) fn brought(&self) -> u16 {
        let config = !self.stream_id.is_empty()
            || !self.congestion.is_empty()
            || !self.filter.is_empty()
            || self.group.is_some();
        let bits =
            [(self.options.is_some(), brings::OPTIONS), (self.keys.is_some(), brings::KEYS), (config, brings::CONFIG)];
        bits.iter().filter(|(there, _)| *there).fold(0, |all, (_, bit)| all | bit)
    }

    fn write(&self, out: &mut Vec<u8>, answer: bool) {
        let kind = |request: u16| u32::from(request + u16::from(answer)) << 16;
        if let Some(options) = self.options {
            let delays = u32::from(options.receive_ms) << 16 | u32::from(options.send_ms);
            words(out, [kind(extension::OPTIONS_REQUEST) | 3, options.version, options.flags, delays]);
        }
        if let Some(keys) = self.keys {
            words(out, [kind(extension::KEYS_REQUEST) | (keys.len() / 4) as u32]);
            out.extend_from_slice(keys);
        }
        for (kind, text) in [
            (extension::STREAM_ID, &self.stream_id),
            (extension::CONGESTION, &self.congestion),
            (extension::FILTER, &self.filter),
        ] {
            if !text.is_empty() {
                write_text(out, kind, text);
            }
        }
        if let Some(group) = self.group {
            words(out, [u32::from(extension::GROUP) << 16 | 2]);
            group.write(out);
        }
    }
}

/// Text travels in words of the other byte order, zeros behind it. `None`: too long.
fn text(body: &[u8]) -> Option<Vec<u8>> {
    if body.len() > TEXT_MAX {
        return None;
    }
    let mut text: Vec<u8> = body.chunks_exact(4).flat_map(|four| four.iter().rev()).copied().collect();
    text.truncate(text.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
    Some(text)
}

fn write_text(out: &mut Vec<u8>, kind: u16, text: &[u8]) {
    words(out, [u32::from(kind) << 16 | text.len().div_ceil(4) as u32]);
    for four in text.chunks(4) {
        let mut padded = [0; 4];
        padded[..four.len()].copy_from_slice(four);
        out.extend(padded.iter().rev());
    }
}

/// Proves that a caller receives what is sent to its address, without a memory of it [SRT 4.3.1.1].
pub(super) struct Cookies(RandomState);

/// A cookie is good for this long, at least, and twice as long at most.
const COOKIE_SPAN: Duration = Duration::from_secs(60);

impl Cookies {
    pub(super) fn new() -> Cookies {
        Cookies(RandomState::new())
    }

    pub(super) fn bake(&self, now: Mono, peer: SocketAddr) -> u32 {
        self.of(peer, now.0 / nanos(COOKIE_SPAN))
    }

    pub(super) fn fits(&self, now: Mono, peer: SocketAddr, cookie: u32) -> bool {
        let span = now.0 / nanos(COOKIE_SPAN);
        cookie == self.of(peer, span) || cookie == self.of(peer, span.wrapping_sub(1))
    }

    fn of(&self, peer: SocketAddr, span: u64) -> u32 {
        let hash = self.0.hash_one((peer, span));
        ((hash >> 32) ^ hash) as u32
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conclusion() -> Handshake<'static> {
        let extensions = Extensions {
            options: Some(Options { version: VERSION, flags: flags::LIVE, receive_ms: 120, send_ms: 40 }),
            keys: Some(&[7; 48]),
            stream_id: b"#!::r=news,k=secret,m=publish".to_vec(),
            congestion: b"live".to_vec(),
            filter: b"fec,cols:10".to_vec(),
            group: Membership::parse(&[0x40, 0, 0, 9, 2, 0, 1, 44]),
        };
        let new = Handshake::new(Kind::Conclusion, 77, 99, Seq::new(5), "192.0.2.9".parse().unwrap());
        Handshake { extension: extensions.brought(), extensions, ..new }
    }

    fn body(handshake: &Handshake<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        handshake.write(&mut out, false);
        out
    }

    #[test]
    fn a_conclusion_reads_as_it_was_written() {
        let said = conclusion();
        assert_eq!(said.extension, 7);
        assert_eq!(Handshake::parse(&body(&said)), Some(said.clone()));
        let v6 = Handshake { address: "2001:db8::1".parse().unwrap(), ..said };
        assert_eq!(Handshake::parse(&body(&v6)), Some(v6));
    }

    #[test]
    fn a_stream_id_travels_in_words_of_the_other_byte_order() {
        let out = body(&conclusion());
        let at = out.windows(4).position(|w| w == b"::!#").expect("reversed");
        assert_eq!(&out[at - 4..at], [0, 5, 0, 8]);
    }

    #[test]
    fn what_is_cut_off_or_too_long_is_no_handshake() {
        let out = body(&conclusion());
        for length in (0..out.len()).filter(|n| *n < FIXED || !cut_between_extensions(&out, *n)) {
            assert_eq!(Handshake::parse(&out[..length]), None, "{length} bytes");
        }
        let long = Handshake {
            extensions: Extensions { stream_id: vec![b'x'; TEXT_MAX + 1], ..Extensions::default() },
            ..conclusion()
        };
        assert_eq!(Handshake::parse(&body(&long)), None);
    }

    fn cut_between_extensions(out: &[u8], length: usize) -> bool {
        let mut at = FIXED;
        while at < length {
            at += 4 + (word(out, at).unwrap() & 0xffff) as usize * 4;
        }
        at == length
    }

    #[test]
    fn a_cookie_is_for_one_address_and_for_a_minute_or_two() {
        let (cookies, now) = (Cookies::new(), Mono(1_000_000_000_000));
        let (peer, other) = ("192.0.2.1:5".parse().unwrap(), "192.0.2.1:6".parse().unwrap());
        let cookie = cookies.bake(now, peer);
        assert!(cookies.fits(now, peer, cookie) && cookies.fits(now + COOKIE_SPAN, peer, cookie));
        assert!(!cookies.fits(now, other, cookie) && !cookies.fits(now + 2 * COOKIE_SPAN, peer, cookie));
    }
}
