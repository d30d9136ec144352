//! `rung-ts/1`: what is said, and segments that come as they like.

use std::collections::BTreeMap;
use std::time::Duration;

use rung::ingest::quic::cores::{Cutting, Ordering, Piping, behind_rtp};
use rung::ingest::quic::{Answer, Head, Hello, QuicUrl};
use rung::telemetry::Redacted;
use rung::time::Mono;

use crate::Target;
use crate::script::Script;
use crate::seeds;

pub(super) const TARGETS: &[Target] = &[
    Target::new("quic_message", message, seeds::quic_messages).longest(1_600).words(&[
        &[1, 0x24],
        &[0x40, 0x40],
        &[0x44, 0],
        &[0x44, 1],
        &[0xFF; 8],
        &[0x80, 0, 0, 0],
        b"news/b",
    ]),
    Target::new("quic_url", url, seeds::quic_urls).words(&[
        b"quic://",
        b"?pin=",
        b"&latency=",
        b"&max_bitrate=",
        b"[::1]",
        b":9443",
        b"/a",
        b"{n}",
        b"7.5M",
        b"%2F",
    ]),
    Target::new("quic_segments", segments, seeds::quic_segments).longest(2 << 10).memory(8 << 20, 2_048).rounds(400),
    Target::new("quic_pipe", pipe, seeds::pipes).block(PACKET).longest(8 << 10).memory(4 << 20, 512).rounds(300),
];

const PACKET: usize = 188;
const START: Mono = Mono(1_000_000_000_000);

/// What the longest message needs: two numbers and a body of 1,024 bytes.
const LONGEST: usize = 16 + 1_024;

/// What a beginning says, all of it says; and what was read is written and read again.
fn message(input: &[u8]) {
    let (hello, answer, head) = (Hello::parse(input), Answer::parse(input), Head::parse(input));
    assert!(input.len() < LONGEST || !matches!(hello, Ok(None)), "a hello that does not end");
    assert!(input.len() < LONGEST || !matches!(answer, Ok(None)), "an answer that does not end");
    assert!(head.is_some() || input.len() < 16, "any sixteen bytes begin with a head");
    for length in 0..input.len().min(LONGEST + 1) {
        let part = &input[..length];
        assert!(matches!(Hello::parse(part), Ok(None)) || Hello::parse(part) == hello, "{length} bytes");
        assert!(matches!(Answer::parse(part), Ok(None)) || Answer::parse(part) == answer, "{length} bytes");
        assert!(Head::parse(part).is_none() || Head::parse(part) == head, "{length} bytes");
    }
    if let Ok(Some(hello)) = hello {
        assert_eq!(Hello::parse(&hello.encode()), Ok(Some(hello.clone())));
        let other = Hello { key: Redacted::new(String::new()), ..hello.clone() };
        assert_eq!(format!("{hello:?}"), format!("{other:?}"), "a key is not shown");
    }
    if let Ok(Some(answer)) = answer {
        assert_eq!(Answer::parse(&answer.encode()), Ok(Some(answer)));
    }
    if let Some((head, length)) = head {
        let written = head.encode();
        assert!(length <= 16 && written.len() <= length);
        assert_eq!(Head::parse(&written), Some((head, written.len())));
    }
}

fn url(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let url = match QuicUrl::parse(text) {
        Ok(url) => url,
        Err(what) => return assert!(!what.is_empty()),
    };
    assert!(url.port > 0 && !url.host.is_empty() && !url.name.is_empty() && !url.key.expose().is_empty());
    assert!((1..=10_000).contains(&url.latency.as_millis()), "{:?}", url.latency);
    assert!(url.max_bitrate.is_none_or(|rate| (100_000..=1_000_000_000).contains(&rate)), "{:?}", url.max_bitrate);
    // What is shown is an address, and the same one; with channel and key it can be published to.
    let again = QuicUrl::parse(&format!("{url}/{}/{}", "channel", "key")).expect("what is shown is an address");
    assert_eq!((&again.host, again.port), (&url.host, url.port), "{url}");
    assert_eq!(url.numbered(7).key.expose(), &url.key.expose().replace("{n}", "7"));
}

/// The publisher's segments.
#[derive(Default)]
struct Publisher {
    cutting: Cutting,
    heads: Vec<Head>,
}

/// Packet number `packet` of a segment.
fn media(sequence: u64, packet: u32) -> [u8; PACKET] {
    let mut bytes = [0xFF; PACKET];
    bytes[0] = 0x47;
    bytes[1..9].copy_from_slice(&sequence.to_le_bytes());
    bytes[9..13].copy_from_slice(&packet.to_le_bytes());
    bytes
}

/// What the receiver was told, and what came of it.
struct Judge {
    side: Ordering,
    now: Mono,
    latency: Duration,
    held_max: usize,
    /// Bytes of each segment that went in, and that it may take more.
    given: BTreeMap<u64, (usize, bool)>,
    last: Option<(u64, u32)>,
}

impl Judge {
    fn settle(&mut self) {
        self.side.tick(self.now);
        while let Some(bytes) = self.side.poll() {
            let (packets, rest) = bytes.as_chunks::<PACKET>();
            assert!(!packets.is_empty() && rest.is_empty(), "whole packets");
            for packet in packets {
                let sequence = u64::from_le_bytes(packet[1..9].try_into().expect("eight"));
                let number = u32::from_le_bytes(packet[9..13].try_into().expect("four"));
                assert!(packet == &media(sequence, number), "a packet that nobody sent");
                assert!(self.last.is_none_or(|last| last < (sequence, number)), "{sequence} behind {:?}", self.last);
                let from_start = self.last.is_none_or(|last| last.0 < sequence);
                assert!(number == if from_start { 0 } else { self.last.map_or(0, |last| last.1 + 1) });
                let (bytes, _) = self.given[&sequence];
                assert!((number as usize + 1) * PACKET <= bytes);
                self.last = Some((sequence, number));
            }
        }
        for sequence in self.side.take_stopped() {
            let (_, open) = self.given.get_mut(&sequence).expect("it was open");
            assert!(std::mem::take(open), "{sequence} is stopped twice, or after its end");
        }
        let ((segments, held), [received, lost, dropped, ..]) = (self.side.waiting(), self.side.counts());
        assert!(held <= self.held_max && segments <= 256, "{segments} segments of {held} bytes");
        assert!(dropped <= lost && received == self.given.len() as u64, "{:?}", self.side.counts());
        let due = self.side.deadline();
        assert!(due.is_none_or(|due| due > self.now && due <= self.now + self.latency), "{due:?} at {:?}", self.now);
    }

    fn open(&mut self, head: Head) {
        let known = self.given.get(&head.sequence).copied();
        let before = self.side.counts();
        match self.side.open(self.now, head) {
            Ok(()) => {
                assert!(known.is_none(), "{} begins twice", head.sequence);
                assert!(self.last.is_none_or(|last| last.0 < head.sequence), "{} is over", head.sequence);
                self.given.insert(head.sequence, (0, true));
            }
            Err(Some(code)) => assert!(matches!(code, 1 | 2) && self.side.counts() != before, "counted"),
            Err(None) => assert!(self.last.is_none_or(|last| head.sequence > last.0)),
        }
        self.settle();
    }

    /// The next `packets` and a half of what is left, or the other half.
    fn data(&mut self, sequence: u64, bytes: usize) {
        let Some((had, true)) = self.given.get(&sequence).copied() else { return };
        let (from, to) = (had, had + bytes);
        let all: Vec<u8> = (from / PACKET..=to / PACKET).flat_map(|number| media(sequence, number as u32)).collect();
        let start = from / PACKET * PACKET;
        self.given.insert(sequence, (to, true));
        self.side.data(sequence, &all[from - start..to - start]);
        self.settle();
    }

    fn end(&mut self, sequence: u64, whole: bool) {
        if let Some((bytes, true)) = self.given.get(&sequence).copied() {
            self.given.insert(sequence, (bytes, false));
            self.side.end(sequence, whole);
        }
        self.settle();
    }
}

/// A publisher cuts, and the receiver is told in whatever order the script likes.
fn segments(input: &[u8]) {
    let mut script = Script::new(input);
    let (latency, held_max) =
        (Duration::from_millis(script.one_of(&[20, 200, 1_000])), PACKET * script.one_of(&[8, 100]));
    let (side, now, given) = (Ordering::new(latency, held_max), START, BTreeMap::new());
    let mut judge = Judge { side, now, latency, held_max, given, last: None };
    let mut publisher = Publisher::default();
    while !script.is_over() {
        let any = |script: &mut Script<'_>, publisher: &Publisher| {
            let back = script.below(8);
            publisher.heads.iter().rev().nth(back).copied()
        };
        match script.below(11) {
            0 | 1 => {
                let bytes = PACKET * (1 + script.below(40));
                if let Some(head) = publisher.cutting.media(judge.now, bytes) {
                    assert_eq!(head.sequence, publisher.heads.len() as u64);
                    assert!(publisher.heads.last().is_none_or(|last| last.timestamp_us <= head.timestamp_us));
                    publisher.heads.push(head);
                    assert!(!publisher.cutting.is_over(judge.now));
                }
            }
            2 | 3 => {
                if let Some(head) = any(&mut script, &publisher) {
                    judge.open(head);
                }
            }
            4 | 5 => {
                let bytes = script.below(1_000);
                if let Some(head) = any(&mut script, &publisher) {
                    judge.data(head.sequence, bytes);
                }
            }
            6 => {
                let whole = !script.flag();
                if let Some(head) = any(&mut script, &publisher) {
                    judge.end(head.sequence, whole);
                }
            }
            7 => judge.now = judge.now + Duration::from_millis(u64::from(script.byte())),
            8 => judge.now = judge.now + Duration::from_millis(u64::from(script.u16())),
            9 => {
                let sequence = publisher.heads.len() as u64 + u64::from(script.u16());
                judge.open(Head { sequence, timestamp_us: script.u64() >> 2 });
            }
            _ => {
                let length = publisher.cutting.late(judge.now);
                assert!(length.is_none_or(|length| (31..=125).contains(&length.as_millis())), "{length:?}");
                if script.flag() {
                    publisher.cutting.close();
                }
            }
        }
        judge.settle();
    }
    judge.side.flush();
    judge.settle();
    assert_eq!((judge.side.waiting(), judge.side.deadline()), ((0, 0), None), "all that was there is out");
}

/// A byte that says how it is cut, and a stream in pieces.
fn pipe(input: &[u8]) {
    let mut script = Script::new(input);
    let longest = [1, 7, 187, 188, 189, 1_000][script.below(6)];
    let stream = script.rest();
    let (mut piping, mut out) = (Piping::default(), 0);
    for piece in stream.chunks(longest) {
        let packets = piping.take(piece);
        assert!(packets.len().is_multiple_of(PACKET) && packets.chunks(PACKET).all(|packet| packet[0] == 0x47));
        out += packets.len();
    }
    assert!(out <= stream.len());
    // A stream without a fault comes whole, but for the last packet, which no other one follows.
    let whole = stream.as_chunks::<PACKET>().0;
    let clean = stream.len().is_multiple_of(PACKET) && whole.iter().all(|packet| packet[0] == 0x47);
    assert!(!clean || out + PACKET >= stream.len(), "{out} of {}", stream.len());
    let carried = behind_rtp(stream);
    assert!(carried.len() + 12 <= stream.len() || carried.is_empty());
}
