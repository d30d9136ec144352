//! One port under attack while two publishers are on air through it: nothing of theirs may be missing, and memory
//! stays bounded. `RUNG_LONG=1` runs the long form.
//!
//! Packets are written by hand from the draft [SRT 3], not by the code under test.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests may panic and report")]

#[path = "srt/harness.rs"]
#[expect(dead_code, reason = "shared with srt.rs")]
mod harness;
#[path = "support/ports.rs"]
mod ports;
#[path = "support/random.rs"]
mod random;

use std::net::{SocketAddr, UdpSocket};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use harness::*;
use ports::{KEY, pace, resident};
use random::Random;
use rung::time::SystemClock;

/// Growth of the process that a phase may cause: the receive buffers of two publishers and an attacker, with room.
const GROWTH_MAX: u64 = 48 << 20;

fn long_form() -> bool {
    std::env::var_os("RUNG_LONG").is_some()
}

/// A control packet [SRT 3.2].
fn control(kind: u16, subtype: u16, info: u32, destination: u32, body: &[u8]) -> Vec<u8> {
    let mut packet = (0x8000_0000 | u32::from(kind) << 16 | u32::from(subtype)).to_be_bytes().to_vec();
    for word in [info, 1_000, destination] {
        packet.extend_from_slice(&word.to_be_bytes());
    }
    packet.extend_from_slice(body);
    packet
}

/// A data packet [SRT 3.1].
fn data(sequence: u32, flags: u32, timestamp: u32, destination: u32, body: &[u8]) -> Vec<u8> {
    let mut packet = (sequence & 0x7fff_ffff).to_be_bytes().to_vec();
    for word in [flags, timestamp, destination] {
        packet.extend_from_slice(&word.to_be_bytes());
    }
    packet.extend_from_slice(body);
    packet
}

/// A handshake [SRT 3.2.1]: kind 1 is induction, `u32::MAX` conclusion.
struct Hello<'a> {
    version: u32,
    kind: u32,
    socket: u32,
    cookie: u32,
    window: u32,
    stream_id: &'a str,
}

impl Hello<'_> {
    fn packet(&self) -> Vec<u8> {
        self.packet_with("")
    }

    /// With a packet filter; without one if it is empty.
    fn packet_with(&self, filter: &str) -> Vec<u8> {
        let conclusion = self.kind == u32::MAX;
        let mut body = Vec::new();
        let fields = [self.version, if conclusion { 5 } else { 2 }, 1, 1_500, self.window, self.kind, self.socket];
        for word in fields.into_iter().chain([self.cookie]) {
            body.extend_from_slice(&word.to_be_bytes());
        }
        body.extend_from_slice(&[0; 16]);
        if conclusion {
            // HSREQ of version 1.5.1 with TSBPD, 120 ms; then stream id and filter in reversed words.
            for word in [0x0001_0003, 0x0001_0501, 0xbf, 120 << 16 | 120] {
                body.extend_from_slice(&u32::to_be_bytes(word));
            }
            let filter = Some((7, filter)).filter(|_| !filter.is_empty());
            for (kind, text) in [(5, self.stream_id)].into_iter().chain(filter) {
                let mut text = text.as_bytes().to_vec();
                text.resize(text.len().next_multiple_of(4), 0);
                body.extend_from_slice(&(kind << 16 | (text.len() / 4) as u32).to_be_bytes());
                text.chunks_mut(4).for_each(<[u8]>::reverse);
                body.extend_from_slice(&text);
            }
        }
        control(0, 0, 0, 0, &body)
    }
}

/// A socket of the attacker's. Sends in small bursts so that it attacks the port, not the kernel's queue.
struct Attacker {
    socket: UdpSocket,
    sent: u32,
}

impl Attacker {
    fn new(port: SocketAddr) -> Attacker {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(port).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        Attacker { socket, sent: 0 }
    }

    fn send(&mut self, packet: &[u8]) {
        self.socket.send(packet).unwrap();
        self.sent += 1;
        if self.sent.is_multiple_of(64) {
            pace(Duration::from_millis(1));
        }
    }

    /// The next handshake that comes back: its kind, socket and cookie.
    fn answer(&self) -> (u32, u32, u32) {
        let mut packet = [0; 1_500];
        loop {
            let length = self.socket.recv(&mut packet).expect("an answer within 5 s");
            let word = |at: usize| u32::from_be_bytes(packet[at..at + 4].try_into().unwrap());
            if length >= 64 && packet[..2] == [0x80, 0] {
                return (word(36), word(40), word(44));
            }
        }
    }

    fn cookie(&mut self, socket: u32) -> u32 {
        self.send(&Hello { version: 4, kind: 1, socket, cookie: 0, window: 8_192, stream_id: "" }.packet());
        self.answer().2
    }

    /// A whole handshake with the right key; the port's socket id of the connection.
    fn connect(&mut self, channel: &str, window: u32) -> u32 {
        self.connect_with(channel, window, "")
    }

    fn connect_with(&mut self, channel: &str, window: u32, filter: &str) -> u32 {
        let cookie = self.cookie(77);
        let stream_id = format!("{channel}/{KEY}");
        let hello = Hello { version: 5, kind: u32::MAX, socket: 77, cookie, window, stream_id: &stream_id };
        self.send(&hello.packet_with(filter));
        let (kind, socket, _) = self.answer();
        assert_eq!(kind, u32::MAX, "accepted");
        socket
    }
}

/// Memory is the process's, and so is the machine's time: one attack after another.
static ATTACK: Mutex<()> = Mutex::new(());

/// Runs `attack` while two publishers send, and judges. Their latency leaves the machine time to come round.
fn under_attack(name: &str, attack: impl FnOnce(&TestPort)) {
    let _alone = ATTACK.lock().unwrap_or_else(PoisonError::into_inner);
    let port = TestPort::open(None);
    let one = OwnCaller::start(port.url(&format!("streamid=c1/{KEY}&latency=1000")), 380);
    let mut two = Transmit::start(port.address, &format!("streamid=c2/{KEY}&latency=1000"), 380);
    port.wait("both on air", |seen| seen.tally("c1").filter(|t| t.next > 100).and(seen.tally("c2")).map(|_| ()));
    let (before, begin) = (resident(), SystemClock::mono());
    attack(&port);
    let took = SystemClock::mono() - begin;
    let (next_one, next_two) = port.look(|seen| (seen.tally("c1").unwrap().next, seen.tally("c2").unwrap().next));
    port.wait("both still on air", |seen| {
        let (one, two) = (seen.tally("c1")?, seen.tally("c2")?);
        (one.next > next_one + 200 && two.next > next_two + 200).then_some(())
    });
    let growth = resident().saturating_sub(before);
    let outcome = one.finish();
    two.finish();
    port.wait("the end of one", |seen| {
        let publisher = seen.on("c1")?.publisher;
        seen.closed.iter().find(|c| c.0 == publisher).map(|_| ())
    });
    port.look(|seen| {
        let (one, two) = (seen.tally("c1").unwrap(), seen.tally("c2").unwrap());
        println!(
            "{name}: {took:?}, payloads {} and {}, {:?}, growth {} kB",
            one.next,
            two.next,
            seen.counters,
            growth >> 10
        );
        assert_eq!((one.first, one.gaps, one.corrupt), (Some(0), 0, 0), "{name}: {:?}", seen.counters);
        assert_eq!((two.gaps, two.corrupt), (0, 0), "{name}: {:?}", seen.counters);
        assert_eq!(one.next, outcome.stats.sent, "{name}: the last payload came");
        assert!(growth < GROWTH_MAX, "{name}: grew by {} kB", growth >> 10);
    });
}

#[test]
fn hundred_thousand_random_datagrams_do_nothing_but_count() {
    let mut random = Random(1);
    under_attack("random datagrams", |port| {
        let mut attackers: Vec<_> = (0..8).map(|_| Attacker::new(port.address)).collect();
        for n in 0..if long_form() { 1_000_000 } else { 100_000 } {
            let length = random.below(1_500);
            let mut bytes = random.bytes(length);
            // Half of them look like control packets of some type.
            if n % 2 == 0 && length >= 16 {
                bytes[..2].copy_from_slice(&(0x8000 | random.below(10) as u16).to_be_bytes());
            }
            attackers[n % 8].send(&bytes);
        }
        port.wait("all of them counted", |seen| (seen.counters.datagrams > 100_000).then_some(()));
        port.look(|seen| {
            assert!(seen.counters.malformed > 1_000 && seen.counters.stray > 10_000, "{:?}", seen.counters);
            assert_eq!(seen.connected.len(), 2);
        });
    });
}

#[test]
fn half_valid_handshakes_open_nothing() {
    let mut random = Random(2);
    under_attack("half-valid handshakes", |port| {
        let mut attacker = Attacker::new(port.address);
        let cookie = attacker.cookie(5);
        for n in 0..if long_form() { 200_000u32 } else { 20_000 } {
            let hello = match n % 5 {
                0 => Hello { version: 4, kind: 1, socket: n, cookie: 0, window: n, stream_id: "" },
                // A cookie that is not ours.
                1 => Hello { version: 5, kind: u32::MAX, socket: n, cookie: n, window: 8_192, stream_id: "c3/x" },
                // Ours, and a version or kind that is nobody's.
                2 => {
                    Hello { version: random.next() as u32, kind: u32::MAX, socket: n, cookie, window: 0, stream_id: "" }
                }
                3 => Hello { version: 5, kind: random.next() as u32, socket: n, cookie, window: 1, stream_id: "c3/x" },
                // Whole, but with the wrong key.
                _ => Hello { version: 5, kind: u32::MAX, socket: n, cookie, window: 8_192, stream_id: "c3/wrong" },
            };
            let mut packet = hello.packet();
            if n % 7 == 0 {
                let length = random.below(packet.len());
                packet.truncate(length);
            } else if n % 3 == 0 {
                let at = 16 + random.below(packet.len() - 16);
                packet[at] = random.next() as u8;
            }
            attacker.send(&packet);
        }
        port.look(|seen| {
            assert_eq!(seen.connected.len(), 2, "nobody got in");
            assert!(seen.refused.iter().any(|r| r.1 == 1401) && seen.refused.iter().any(|r| r.1 == 1429));
        });
    });
}

#[test]
fn an_accepted_caller_can_harm_only_itself() {
    let mut random = Random(3);
    under_attack("abuse by an accepted caller", |port| {
        let mut attacker = Attacker::new(port.address);
        let socket = attacker.connect("c3", 8_192);
        for n in 0..if long_form() { 500_000u32 } else { 50_000 } {
            let size = random.below(1_400);
            let body = random.bytes(size);
            let packet = match n % 8 {
                // Anything but a SHUTDOWN, which would end the fun.
                0 => control([1, 2, 3, 4, 6, 7, 8][n as usize / 8 % 7], random.next() as u16, n, socket, &body),
                1 => control(random.below(0x7fff) as u16 | 0x10, 0, n, socket, &body),
                2 => data(random.next() as u32, random.next() as u32, random.next() as u32, socket, &body),
                3 => data(1 + n, 0xc000_0000 | n, n, socket, &body),
                4 => data(1 + n + random.below(9_000) as u32, 0xc000_0000, n, socket, &[0x47; 188]),
                // A reversed DROPREQ [SRT 3.2.9], then reversed and endless NAK ranges.
                5 => control(7, 0, n, socket, &[9u32.to_be_bytes(), 2u32.to_be_bytes()].concat()),
                6 => control(3, 0, 0, socket, &[0x8000_0009u32.to_be_bytes(), 2u32.to_be_bytes()].concat().repeat(60)),
                // Key material of every size.
                _ => control(0x7fff, 3 + (n / 8 % 2) as u16, 0, socket, &random.bytes(104 + n as usize / 8 % 1_297)),
            };
            attacker.send(&packet);
        }
        // The same to the other publishers' sockets, from an address that is not theirs.
        for _ in 0..5_000 {
            attacker.send(&control(5, 0, 0, random.next() as u32 & 0x3fff_ffff, &[]));
        }
    });
}

#[test]
fn sums_of_a_packet_filter_that_say_anything_harm_only_their_sender() {
    let mut random = Random(4);
    under_attack("abuse of the packet filter", |port| {
        let filters = ["fec,cols:10,rows:5", "fec,cols:255,rows:4,arq:never", "fec,cols:1024", "fec,cols:2,rows:-512"];
        let mut attackers: Vec<_> = (3..7).map(|_| Attacker::new(port.address)).collect();
        let connect =
            |(n, attacker): (usize, &mut Attacker)| attacker.connect_with(&format!("c{}", n + 3), 8_192, filters[n]);
        let sockets: Vec<u32> = attackers.iter_mut().enumerate().map(connect).collect();
        for n in 0..if long_form() { 500_000u32 } else { 60_000 } {
            let (who, at) = (n as usize % 4, 1 + n / 4);
            let size = random.below(1_400);
            let body = random.bytes(size);
            // The number of a sum's message is zero; its body begins with group, keys and length.
            let packet = match n / 4 % 8 {
                0..4 => data(at, 0xc000_0000 | at, n, sockets[who], &body),
                4 => data(at, 0xc000_0000, n, sockets[who], &[&[0xff, 0, 0xff, 0xff], &body[..]].concat()),
                5 => data(at, 0xc000_0000, n, sockets[who], &[&[(at % 12) as u8, 3], &body[..]].concat()),
                6 => data(at + random.below(9_000) as u32, 0xc000_0000, n, sockets[who], &body),
                _ => data(random.next() as u32, random.next() as u32, n, sockets[who], &body),
            };
            attackers[who].send(&packet);
        }
        port.look(|seen| assert_eq!(seen.connected.len(), 6));
    });
}

#[test]
fn one_reversed_drop_request_freezes_nobody() {
    under_attack("one reversed DROPREQ", |port| {
        let mut attacker = Attacker::new(port.address);
        let socket = attacker.connect("c3", 8_192);
        attacker.send(&data(1, 0xc000_0001, 1_000, socket, &[0x47; 188]));
        for (first, last) in [(0x7fff_ffffu32, 0u32), (100, 1), (1, 0x7fff_fffe)] {
            attacker.send(&control(7, 0, 1, socket, &[first.to_be_bytes(), last.to_be_bytes()].concat()));
        }
        let begin = port.look(|seen| seen.tally("c1").unwrap().next);
        port.wait("five more seconds of media", |seen| (seen.tally("c1")?.next > begin + 5 * 380).then_some(()));
    });
}

#[test]
fn huge_flow_windows_reserve_nothing() {
    under_attack("flow windows of 2^25", |port| {
        let mut attackers: Vec<_> = (3..8).map(|n| (n, Attacker::new(port.address))).collect();
        for (n, attacker) in &mut attackers {
            let socket = attacker.connect(&format!("c{n}"), 1 << 25);
            // A sequence number as far away as the window allows.
            attacker.send(&data(1, 0xc000_0001, 1_000, socket, &[0x47; 188]));
            attacker.send(&data(1 << 25, 0xc000_0002, 2_000, socket, &[0x47; 188]));
        }
        port.wait("all of them", |seen| (seen.connected.len() == 7).then_some(()));
    });
}
