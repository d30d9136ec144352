//! SRT's parsers, its two ends and what lies between them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rung::ingest::srt::cores::{Receiving, Sending, rewritten, rewritten_handshake};
use rung::media::key::Passphrase;
use rung::time::Mono;

use crate::Target;
use crate::script::Script;
use crate::seeds;
use crate::wire::{self, CONCLUSION, NUMBER, RETRANSMITTED, WHOLE, ahead, kind, word};

pub(super) const TARGETS: &[Target] = &[
    Target::new("srt_packet", packet, seeds::srt_packets).longest(1_600).words(&[
        &[0x80, 0, 0, 0],
        &[0x80, 2, 0, 0],
        &[0x80, 3, 0, 0],
        &[0x80, 7, 0, 0],
        &[0xFF, 0xFF, 0, 3],
        &[0x80, 0, 0, 5, 0, 0, 0, 9],
        &[0xC0, 0, 0, 1],
    ]),
    Target::new("srt_handshake", handshake, seeds::srt_handshakes).longest(1_600).words(&[
        &[0, 1, 0, 3],
        &[0, 3, 0, 14],
        &[0, 5, 0, 1],
        &[0, 6, 0, 1],
        &[0, 7, 0, 1],
        &[0, 8, 0, 2],
        &[0xFF, 0xFF, 0xFF, 0xFF],
    ]),
    Target::new("srt_keys", keys, seeds::srt_keys).longest(600).rounds(20),
    Target::new("srt_receiver", receiver, seeds::srt_receivers).longest(2 << 10).rounds(300),
    Target::new("srt_sender", sender, seeds::srt_senders).longest(2 << 10).memory(16 << 20, 1_024).rounds(300),
    Target::new("srt_link", link, seeds::srt_links).longest(1 << 10).rounds(150),
    Target::new("srt_filter", filter, seeds::srt_filters).longest(2 << 10).rounds(300),
    Target::new("srt_filter_link", filter_link, seeds::srt_filter_links).longest(1 << 10).rounds(100),
];

pub(super) const START: Mono = Mono(1_000_000_000_000);

pub(super) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn packet(input: &[u8]) {
    let Some(written) = rewritten(input) else { return };
    assert!((16..=1_472).contains(&input.len()));
    assert_eq!(rewritten(&written).as_deref(), Some(&written[..]), "a packet of our own");
    assert_eq!((word(&written, 2), word(&written, 3)), (word(input, 2), word(input, 3)));
    let (said, was) = (&written[16..], &input[16..]);
    let Some(kind) = wire::control_kind(input) else {
        // Only which part of a message it is, and whether its order matters, is the same for all of ours.
        assert_eq!(word(&written, 0), word(input, 0));
        assert_eq!(word(&written, 1), word(input, 1) & 0x1FFF_FFFF | WHOLE);
        assert_eq!(said, was);
        return;
    };
    assert_eq!(wire::control_kind(&written), Some(kind));
    match kind {
        kind::HANDSHAKE => assert_eq!(said, was),
        kind::USER => assert_eq!((word(&written, 0), said), (word(input, 0), was)),
        kind::ACK => {
            assert_eq!((word(&written, 1), word(said, 0)), (word(input, 1), word(was, 0) & NUMBER));
            // Round trip, its variance and the room, which make it a full one; the rate.
            let full = was.len() >= 16;
            assert_eq!(said.len(), if full { 28 } else { 4 });
            assert!(!full || (1..5).all(|at| word(said, at) == word(was, at)));
        }
        kind::NAK => {
            let (said, was) = (wire::ranges(said), wire::ranges(was));
            assert!(was.starts_with(&said) && said.len() >= was.len().min(182), "{said:?} of {was:?}");
        }
        kind::DROP_REQUEST => {
            let (first, last) = (word(was, 0) & NUMBER, word(was, 1) & NUMBER);
            assert!(ahead(last, first) >= 0 && said == wire::words(&[first, last]));
        }
        kind::ACK_ACK => assert_eq!((word(&written, 1), said), (word(input, 1), &[0; 4][..])),
        _ => assert_eq!(said, [0; 4]),
    }
}

fn handshake(input: &[u8]) {
    let Some(written) = rewritten_handshake(input) else { return };
    assert_eq!(rewritten_handshake(&written).as_deref(), Some(&written[..]), "a handshake of our own");
    assert!(written.len() <= input.len());
    let mut fixed = input[..48].to_vec();
    fixed[8] &= 0x7F;
    assert_eq!(written[..48], fixed);
    let concludes = word(input, 0) >= 5 && word(input, 5) == CONCLUSION;
    if !concludes {
        assert_eq!(written.len(), 48);
        return;
    }
    let (was, said) = (wire::extensions(input), wire::extensions(&written));
    // Of several the last one counts; a request and its response are the same.
    let last = |all: &[(u16, &[u8])], kinds: [u16; 2]| {
        all.iter().rev().find(|(kind, _)| kinds.contains(kind)).map(|(_, body)| body.to_vec())
    };
    assert_eq!(last(&said, [3, 4]), last(&was, [3, 4]));
    // What follows behind their fields is nobody's.
    for (kinds, length) in [([1, 2], 12), ([8, 8], 8)] {
        assert_eq!(last(&said, kinds), last(&was, kinds).map(|body| body[..length].to_vec()), "{kinds:?}");
    }
    for kind in [5, 6, 7] {
        let text = |all| {
            let mut text = wire::swapped(&last(all, [kind, kind]).unwrap_or_default());
            text.truncate(text.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1));
            text
        };
        assert_eq!(text(&said), text(&was), "{kind}");
    }
}

pub(super) fn passphrase() -> Passphrase {
    Passphrase::new(seeds::PASSPHRASE).expect("it is long enough")
}

/// A key message that nobody made; then one of ours, bent; then keys that are renewed on the way.
fn keys(input: &[u8]) {
    let mut script = Script::new(input);
    let (length, latency) = (script.one_of(&[16, 24, 32]), ms(120));
    let receiving = |message: &[u8]| Receiving::new(START, 5, 1_000, 0, latency, Some((&passphrase(), message)));
    let foreign = script.piece();
    let opened = receiving(foreign).is_ok();
    assert!(!opened || matches!(foreign.len(), 56 | 64 | 72 | 88 | 104), "{} bytes", foreign.len());
    let every = 2 + script.below(30) as u64;
    let mut sending = Sending::new(START, 5, latency, Some((passphrase(), length)), every);
    let (at, bits) = (script.below(sending.keys.len()), script.byte());
    if bits != 0 && at != 3 {
        let mut bent = sending.keys.clone();
        bent[at] ^= bits;
        // Whose key wraps them, what is carried and what is reserved say nothing to us; a passphrase meets half of the salt.
        assert_eq!(receiving(&bent).is_ok(), matches!(at, 4..8 | 10..14 | 16..24), "byte {at}");
    }
    let mut receiving = receiving(&sending.keys).expect("a message of our own");
    let (mut now, mut sent, mut lost) = (START, 0u32, false);
    while !script.is_over() && sent < 120 {
        now = now + ms(script.below(20) as u64);
        assert!(sending.send(now, &sent.to_be_bytes()));
        sent += 1;
        sending.tick(now);
        for mut datagram in sending.sent() {
            if datagram[..4] == [0xFF, 0xFF, 0, 3] {
                match script.below(6) {
                    1 => {
                        lost = true;
                        continue;
                    }
                    2 => {
                        let at = 16 + script.below(datagram.len() - 16);
                        datagram[at] ^= script.byte();
                        lost = true;
                    }
                    _ => {}
                }
            }
            receiving.datagram(now, &datagram);
        }
        receiving.answer(now);
        receiving.sent().iter().for_each(|answer| sending.datagram(now, answer));
    }
    let later = now + latency + ms(2_000);
    let got: Vec<u32> = std::iter::from_fn(|| receiving.poll(later)).map(|payload| word(&payload, 0)).collect();
    let stats = receiving.stats();
    if lost {
        assert!(got.len() as u64 + stats.undecryptable <= u64::from(sent));
    } else {
        assert_eq!((got, stats.undecryptable), ((0..sent).collect(), 0));
    }
}

// ── the receiving end ───────────────────────────────────────────────────────────────────────────────────────────────

/// What the receiving end did, held against what it was given.
struct Judge {
    side: Receiving,
    now: Mono,
    capacity: u32,
    /// Packet and number of each datagram that was given and not handed over.
    given: BTreeMap<u32, u32>,
    data: u64,
    handed: u64,
    last: Option<u32>,
    acknowledged: u32,
    acks: u32,
    /// Packets that the sender said it gave up: none of them need have been missed before.
    given_up: u64,
    /// Packets that were too far ahead, by the last acknowledgement.
    beyond: u64,
}

impl Judge {
    fn new(script: &mut Script<'_>) -> (Judge, u32, Duration) {
        let (first, stamp) = (script.u32() & NUMBER, script.u32());
        let (capacity, latency) = (script.one_of(&[64, 300, 1_000]), ms(script.one_of(&[20, 120, 700])));
        let side = Receiving::new(START, first, capacity, stamp, latency, None).expect("in clear");
        let (given, last, acknowledged) = (BTreeMap::new(), None, first);
        let (data, handed, acks, given_up, beyond) = (0, 0, 0, 0, 0);
        let now = START;
        (Judge { side, now, capacity, given, data, handed, last, acknowledged, acks, given_up, beyond }, stamp, latency)
    }

    fn data(&mut self, number: u32, info: u32, timestamp: u32) {
        let tag = self.data as u32;
        self.data += 1;
        self.given.insert(tag, number & NUMBER);
        self.side.datagram(self.now, &wire::data(number, info, timestamp, 2, &tag.to_be_bytes()));
    }

    /// Takes what is there and reads what is said.
    fn settle(&mut self) {
        while let Some(payload) = self.side.poll(self.now) {
            let number = self.given.remove(&word(&payload, 0)).expect("a payload that was given, once");
            let next = self.last.map_or(number, |last| last.wrapping_add(1) & NUMBER);
            assert!(ahead(number, next) >= 0, "{number} behind {:?}", self.last);
            (self.last, self.handed) = (Some(number), self.handed + 1);
        }
        self.side.answer(self.now);
        let said = self.side.sent();
        assert!(said.len() <= 2 + self.capacity as usize / 182, "{} datagrams", said.len());
        said.iter().for_each(|datagram| self.answer(datagram));
        let stats = self.side.stats();
        assert!(stats.buffered_packets <= Some(self.capacity), "{stats:?}");
        assert_eq!(stats.received, self.data);
        assert!(
            stats.dropped <= stats.lost + self.given_up && stats.duplicates + stats.belated <= self.data,
            "{stats:?}"
        );
    }

    fn answer(&mut self, datagram: &[u8]) {
        assert!(datagram.len() <= 1_472 && rewritten(datagram).as_deref() == Some(datagram));
        let body = &datagram[16..];
        match wire::control_kind(datagram) {
            Some(kind::ACK) => {
                self.acks += 1;
                assert_eq!(word(datagram, 1), self.acks);
                let next = word(body, 0);
                // Two jumps since the last one may lead further than half way around.
                let jumped = std::mem::replace(&mut self.beyond, self.side.beyond()) != self.side.beyond();
                assert!(jumped || ahead(next, self.acknowledged) >= 0, "{next} behind {}", self.acknowledged);
                self.acknowledged = next;
                assert!((2..=self.capacity).contains(&word(body, 3)), "room for {}", word(body, 3));
            }
            Some(kind::NAK) => {
                let ranges = wire::ranges(body);
                assert!(!ranges.is_empty());
                assert!(ranges.windows(2).all(|two| ahead(two[1].0, two[0].1) > 0), "{ranges:?}");
                let asked: u64 = ranges.iter().map(|(first, last)| ahead(*last, *first) as u64 + 1).sum();
                assert!(asked < u64::from(self.capacity), "{ranges:?}");
                // Behind a jump half the way around the last one is no longer the earlier one.
                let lately = |last| (-(1 << 24)..=0).contains(&ahead(ranges[0].0, last));
                assert!(!self.last.is_some_and(lately), "handed over and asked for");
            }
            Some(kind::USER) => assert_eq!(body, [0, 0, 0, 3], "there is no secret"),
            other => panic!("a receiver says no {other:?}"),
        }
    }

    /// Time goes on, from deadline to deadline; those within a millisecond are met together.
    fn advance(&mut self, span: Duration) {
        let to = self.now + span;
        self.settle();
        while let Some(due) = self.side.deadline().filter(|due| *due <= to) {
            assert!(due > self.now, "a deadline that has passed: {due:?} at {:?}", self.now);
            self.now = due.max(self.now + ms(1)).min(to);
            self.settle();
        }
        self.now = to;
        self.settle();
    }
}

fn receiver(input: &[u8]) {
    let mut script = Script::new(input);
    let (mut judge, mut stamp, latency) = Judge::new(&mut script);
    let mut number = judge.acknowledged;
    while !script.is_over() {
        match script.below(14) {
            // In order, a millisecond apart.
            0..4 => {
                for _ in 0..=script.below(8) {
                    judge.data(number, WHOLE, stamp);
                    (number, stamp) = (number.wrapping_add(1), stamp.wrapping_add(1_000));
                }
            }
            4 => number = number.wrapping_add(1 + u32::from(script.byte())),
            // Near: again, or what was left out.
            5 | 6 => {
                let (back, info) = (u32::from(script.byte()), script.one_of(&[WHOLE, WHOLE | RETRANSMITTED]));
                judge.data(number.wrapping_sub(back), info, stamp.wrapping_sub(back * 1_000));
            }
            7 => judge.data(script.u32(), WHOLE | u32::from(script.byte()) << 20 & RETRANSMITTED, stamp),
            8 => judge.data(number, WHOLE | u32::from(script.byte()) << 20 & RETRANSMITTED, script.u32()),
            9 => stamp = stamp.wrapping_add(script.u32()),
            10 => judge.advance(ms(u64::from(script.byte()))),
            11 => judge.advance(ms(u64::from(script.u16()))),
            12 => {
                let from = number.wrapping_sub(u32::from(script.byte())) & NUMBER;
                let more = u32::from(script.byte());
                judge.given_up += u64::from(more) + 1;
                let body = wire::words(&[from, from.wrapping_add(more) & NUMBER]);
                judge.side.datagram(judge.now, &wire::control(kind::DROP_REQUEST, 0, 0, 2, &body));
            }
            _ => {
                let (ours, info) = (script.one_of(&[kind::ACK_ACK, kind::NAK, kind::USER, 4]), script.below(80));
                let said = wire::control(ours, 3, info as u32, 2, script.piece());
                judge.side.datagram(judge.now, &said);
            }
        }
        judge.settle();
    }
    // Nothing waits for longer than the latency and the second by which a clock may be wrong.
    judge.advance(latency + ms(1_010));
    let stats = judge.side.stats();
    let told = judge.handed + stats.duplicates + stats.belated;
    assert!(told <= judge.data && judge.data - told <= judge.side.beyond(), "{} of {}: {stats:?}", told, judge.data);
}

// ── the receiving end of a packet filter ────────────────────────────────────────────────────────────────────────────

const FILTERS: [&str; 8] = [
    "fec,cols:4",
    "fec,cols:3,rows:3",
    "fec,cols:5,rows:2,layout:even,arq:never",
    "fec,cols:2,rows:-4,arq:always",
    "fec,cols:6,rows:-3,layout:even",
    "fec,cols:200,rows:5",
    "fec,cols:1024",
    "fec,cols:2,rows:512,arq:never",
];

/// Media, and packets of the filter that say anything: what they make is no more than they are.
fn filter(input: &[u8]) {
    let mut script = Script::new(input);
    let (filter, first, capacity) = (script.one_of(&FILTERS), script.u32() & NUMBER, script.one_of(&[64, 1_000]));
    let side = Receiving::new(START, first, capacity, 0, ms(120), None).expect("in clear");
    let (mut side, mut now, mut number, mut given, mut handed) =
        (side.filtered(filter, first), START, first, 0u64, 0u64);
    while !script.is_over() {
        let stamp = (now - START).as_micros() as u32;
        let (kind, near) = (script.below(8), number.wrapping_sub(script.below(40) as u32));
        match kind {
            0..4 => {
                for _ in 0..=script.below(12) {
                    side.datagram(now, &wire::data(number, WHOLE, stamp, 2, &[script.byte(); 20]));
                    (number, given) = (number.wrapping_add(1), given + 1);
                }
            }
            4 => number = number.wrapping_add(1 + script.below(9) as u32),
            5 => number = number.wrapping_add(script.u32() >> script.below(32)),
            // A group's sum, or whatever else it may be; its message has the number zero.
            6 => {
                let group = [script.one_of(&[255, 0, 1, 2, 3, 17]), script.byte() & 3];
                let said = [&group[..], &script.u16().to_be_bytes(), script.piece()].concat();
                let said = &said[..said.len().saturating_sub(script.below(4)).min(1_400)];
                side.datagram(now, &wire::data(near, WHOLE & !0x03FF_FFFF, script.u32(), 2, said));
                given += 1;
            }
            _ => now = now + ms(script.below(60) as u64),
        }
        handed += std::iter::from_fn(|| side.poll(now)).count() as u64;
        side.answer(now);
        let said = side.sent();
        assert!(said.iter().all(|datagram| rewritten(datagram).as_ref() == Some(datagram)));
        let stats = side.stats();
        assert_eq!(stats.received, given, "{stats:?}");
        assert!(stats.filter_supplied <= stats.filter_extra && stats.filter_extra <= given, "{stats:?}");
        assert!(handed <= given - stats.filter_extra + stats.filter_supplied, "{handed} of {stats:?}");
        assert!(side.deadline().is_none_or(|due| due > now), "a deadline that has passed");
    }
}

// ── the sending end ─────────────────────────────────────────────────────────────────────────────────────────────────

/// What the sending end said, held against what it was given.
struct Spoken {
    side: Sending,
    now: Mono,
    first: u32,
    /// When each payload was handed over, the first one's being 0.
    made: Vec<(Mono, u8)>,
    /// Payloads that went out.
    out: u32,
}

impl Spoken {
    /// Reads what goes out. Each packet goes once at most.
    fn settle(&mut self) {
        let mut once = BTreeSet::new();
        for datagram in self.side.sent() {
            assert!(rewritten(&datagram).as_deref() == Some(&datagram[..]) && word(&datagram, 3) == 1);
            match wire::control_kind(&datagram) {
                None => {
                    let index = word(&datagram, 0).wrapping_sub(self.first) & NUMBER;
                    let (made, byte) = self.made[index as usize];
                    let again = word(&datagram, 1) & RETRANSMITTED != 0;
                    assert!(again == (index < self.out) && index <= self.out, "{index} behind {}", self.out);
                    self.out = self.out.max(index + 1);
                    assert!(once.insert(index), "{index} twice at once");
                    assert_eq!(word(&datagram, 2), (made - START).as_micros() as u32);
                    assert!(datagram[16..].iter().all(|found| *found == byte));
                }
                Some(kind::DROP_REQUEST) => {
                    let (first, last) = (word(&datagram[16..], 0), word(&datagram[16..], 1));
                    let stats = self.side.stats();
                    let base = self.first.wrapping_add((stats.acknowledged + stats.dropped) as u32) & NUMBER;
                    assert!(ahead(last, first) >= 0 && ahead(last, base) < 0, "{first} to {last}, behind {base}");
                }
                Some(kind::ACK_ACK) => assert_ne!(word(&datagram, 1), 0),
                other => panic!("a sender says no {other:?}"),
            }
        }
        let stats = self.side.stats();
        assert_eq!(stats.sent, stats.acknowledged + stats.dropped + stats.waiting as u64, "{stats:?}");
        assert_eq!((stats.sent, u64::from(self.out)), (self.made.len() as u64, self.made.len() as u64));
    }

    fn given(&mut self, datagram: &[u8]) {
        self.side.datagram(self.now, datagram);
        self.settle();
    }

    fn tick(&mut self) {
        self.side.tick(self.now);
        self.settle();
        assert!(self.side.deadline().is_none_or(|due| due > self.now), "a deadline that has passed");
    }
}

fn sender(input: &[u8]) {
    let mut script = Script::new(input);
    let (first, latency) = (script.u32() & NUMBER, ms(script.one_of(&[20, 120, 2_000])));
    let side = Sending::new(START, first, latency, None, 0);
    let mut spoken = Spoken { side, now: START, first, made: Vec::new(), out: 0 };
    while !script.is_over() {
        let near = |script: &mut Script<'_>, out: u32| {
            first.wrapping_add(out).wrapping_sub(script.below(300) as u32).wrapping_add(20) & NUMBER
        };
        match script.below(9) {
            0..3 => {
                let (count, length) = (1 + script.below(16), 1 + script.below(40));
                for _ in 0..count {
                    let byte = spoken.made.len() as u8;
                    if spoken.side.send(spoken.now, &vec![byte; length]) {
                        spoken.made.push((spoken.now, byte));
                    }
                }
                spoken.settle();
            }
            3 => spoken.now = spoken.now + ms(u64::from(script.byte())),
            4 => spoken.now = spoken.now + ms(u64::from(script.u16())),
            5 => {
                let mut said = wire::words(&[near(&mut script, spoken.out)]);
                let number = u32::from(script.byte());
                if number != 0 {
                    said.extend(wire::words(&[script.u32(), script.u32(), 8_192, 0, 0, 0]));
                }
                spoken.given(&wire::control(kind::ACK, 0, number, 1, &said));
            }
            6 => {
                let mut said = Vec::new();
                for _ in 0..=script.below(40) {
                    let from = near(&mut script, spoken.out);
                    let to = from.wrapping_add(u32::from(script.byte())) & NUMBER;
                    said.extend(wire::words(&[from | 1 << 31, to]));
                }
                spoken.given(&wire::control(kind::NAK, 0, 0, 1, &said));
            }
            _ => {
                let (what, info) = (script.one_of(&[kind::ACK, kind::NAK, kind::USER, kind::ACK_ACK]), script.u32());
                spoken.given(&wire::control(what, 4, info, 1, script.piece()));
            }
        }
        spoken.tick();
    }
    spoken.now = spoken.now + latency + ms(1_000);
    spoken.tick();
    assert_eq!(
        (spoken.side.stats().waiting, spoken.side.deadline()),
        (0, None),
        "what nobody acknowledges is given up"
    );
}

// ── both ends ───────────────────────────────────────────────────────────────────────────────────────────────────────

/// Two ends and a link that does with each datagram what the script says; behind its end, all is well.
struct Link<'a> {
    script: Script<'a>,
    sending: Sending,
    receiving: Receiving,
    now: Mono,
    /// On the way: when it comes, in which order it went, whether to the receiver, and what.
    way: BTreeMap<(Mono, u32), (bool, Vec<u8>)>,
    went: u32,
    handed: Vec<u32>,
}

/// One way, without trouble.
pub(super) const WAY: Duration = Duration::from_millis(10);

/// How much later than usual a datagram comes, once for each time that it does.
pub(super) fn delays(fate: u8) -> Vec<Duration> {
    let more = u64::from(fate & 15);
    match fate >> 4 {
        0..9 => vec![Duration::ZERO],
        9..12 => vec![ms(more * 3)],
        12 => vec![Duration::ZERO, ms(more * 7)],
        13 => vec![ms(more * 150)],
        _ => vec![],
    }
}

impl Link<'_> {
    fn put(&mut self, delay: Duration, forth: bool, datagram: Vec<u8>) {
        self.went += 1;
        self.way.insert((self.now + WAY + delay, self.went), (forth, datagram));
    }

    /// What both ends have to say goes on its way.
    fn carry(&mut self) {
        let forth = self.sending.sent().into_iter().map(|datagram| (true, datagram));
        let back = self.receiving.sent().into_iter().map(|datagram| (false, datagram));
        for (forth, datagram) in forth.chain(back).collect::<Vec<_>>() {
            for delay in delays(self.script.byte()) {
                self.put(delay, forth, datagram.clone());
            }
        }
    }

    fn settle(&mut self) {
        self.sending.tick(self.now);
        self.handed.extend(std::iter::from_fn(|| self.receiving.poll(self.now)).map(|payload| word(&payload, 0)));
        self.receiving.answer(self.now);
        self.carry();
    }

    fn advance(&mut self, span: Duration) {
        let to = self.now + span;
        self.settle();
        for turn in 0.. {
            assert!(turn < 200_000, "time does not go on");
            let arrives = self.way.keys().next().map(|(at, _)| *at);
            let due = [arrives, self.sending.deadline(), self.receiving.deadline()].into_iter().flatten().min();
            let Some(due) = due.filter(|due| *due <= to) else { break };
            self.now = self.now.max(due);
            while let Some(next) = self.way.first_entry().filter(|next| next.key().0 <= self.now) {
                let (forth, datagram) = next.remove();
                if forth {
                    self.receiving.datagram(self.now, &datagram);
                } else {
                    self.sending.datagram(self.now, &datagram);
                }
            }
            self.settle();
        }
        self.now = to;
        self.settle();
    }
}

fn link(input: &[u8]) {
    carried(Script::new(input), "");
}

/// The same with a packet filter on both sides.
fn filter_link(input: &[u8]) {
    let mut script = Script::new(input);
    let filter = script.one_of(&FILTERS);
    carried(script, filter);
}

/// What was sent is handed over, in order and once, or counted as dropped.
fn carried(mut script: Script<'_>, filter: &str) {
    let (first, latency, keyed) = (script.u32(), ms(script.one_of(&[40, 120, 600])), script.below(8) == 7);
    let secret = keyed.then(|| (passphrase(), 16));
    let sending = Sending::new(START, first, latency, secret, 0).filtered(filter);
    let (message, secret) = (sending.keys.clone(), passphrase());
    let keys = keyed.then_some((&secret, &message[..]));
    let receiving = Receiving::new(START + WAY, first, 8_192, 0, latency, keys).expect("its own keys");
    let receiving = receiving.filtered(filter, first);
    let (way, handed) = (BTreeMap::new(), Vec::new());
    let mut link = Link { script, sending, receiving, now: START + WAY, way, went: 0, handed };
    let mut sent = 0u32;
    let mut say = |link: &mut Link<'_>| {
        assert!(link.sending.send(link.now, &sent.to_be_bytes()));
        sent += 1;
        link.carry();
        sent
    };
    while !link.script.is_over() {
        match link.script.byte() {
            much @ 0..200 => {
                for _ in 0..much % 8 {
                    say(&mut link);
                }
                link.advance(ms(u64::from(much / 8)));
            }
            long => link.advance(ms(u64::from(long - 199) * 40)),
        }
    }
    // The last ones arrive, and with them it is known what did not.
    link.advance(latency + ms(4_000));
    let last = (0..3).fold(0, |_, _| {
        let last = say(&mut link);
        link.advance(ms(20));
        last
    });
    link.advance(latency + ms(4_000));
    let (stats, told) = (link.receiving.stats(), link.sending.stats());
    assert!(link.handed.windows(2).all(|two| two[0] < two[1]), "out of order: {:?}", link.handed);
    assert!(link.handed.last() == Some(&(last - 1)), "{:?} of {last}", link.handed.last());
    assert_eq!(link.handed.len() as u64 + stats.dropped, u64::from(last), "{stats:?} {told:?}");
    assert_eq!((stats.undecryptable, told.waiting), (0, 0), "{stats:?} {told:?}");
}
