//! SRT's port as a whole, with callers of every kind; and our own caller, with listeners of every kind.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rung::ingest::srt::PortConfig;
use rung::ingest::srt::cores::{Calling, Listening, rewritten};
use rung::ingest::{Closing, Connected, Door, Event, PublishEvent, PublisherId, Roster, RosterEntry};
use rung::media::channel::{ChannelName, Takeover};
use rung::media::key::KeyDigest;
use rung::time::Mono;

use super::srt::{START, ms, passphrase};
use crate::Target;
use crate::script::Script;
use crate::seeds;
use crate::wire::{self, CONCLUSION, Hello, INDUCTION, RETRANSMITTED, USUAL, WHOLE, kind, word};

pub(super) const TARGETS: &[Target] = &[
    Target::new("srt_listener", listener, seeds::srt_callers)
        .words(&[b"\x09\x00\x00", b"\x09\x01\x01", b"\x05\xFF", b"\x02\x00"])
        .longest(1 << 10)
        .memory(8 << 20, 512)
        .rounds(250),
    Target::new("srt_caller", caller, seeds::srt_listeners).longest(1 << 10).rounds(300),
];

/// Publishers that the port of a script has room for.
const PUBLISHERS: usize = 3;

/// Channels of every kind; each key is `key`.
pub(super) fn roster() -> Roster {
    let key = KeyDigest::of("key");
    let entry = |takeover, stopped, passphrase| RosterEntry { key, takeover, stopped, passphrase };
    let channels = [
        ("newest", entry(Takeover::Newest, false, None)),
        ("silent", entry(Takeover::IfSilent, false, None)),
        ("stopped", entry(Takeover::Newest, true, None)),
        ("secret", entry(Takeover::Newest, false, Some(passphrase()))),
    ];
    Roster(channels.map(|(name, entry)| (ChannelName::new(name).expect("a good name"), entry)).into())
}

const STREAM_IDS: [&str; 9] = [
    "newest/key",
    "silent/key",
    "secret/key",
    "silent/key/b",
    "stopped/key",
    "newest/wrong",
    "nobody/key",
    "#!::r=newest,k=key,m=request",
    "#!::r=newest,k=key,m=publish,leg=b",
];

/// What an address has said and heard.
#[derive(Debug, Default)]
struct Address {
    said: usize,
    heard: usize,
    /// Cookies that it was given, the last one last.
    cookies: BTreeSet<u32>,
    cookie: u32,
    /// It has shown one of them.
    proven: bool,
    /// It was let in, once at least.
    connected: bool,
    /// The port's socket of its connection.
    socket: u32,
}

/// A port, its callers, and what must be true between them.
struct World {
    port: Listening,
    door: Arc<Door>,
    now: Mono,
    addresses: BTreeMap<SocketAddr, Address>,
    live: BTreeMap<PublisherId, Connected>,
    datagrams: u64,
}

const ADDRESSES: [&str; 4] = ["192.0.2.1:1000", "192.0.2.1:1001", "192.0.2.2:1000", "[2001:db8::1]:1000"];

impl World {
    fn new() -> World {
        let door = Door::new(Arc::new(roster()), PUBLISHERS);
        let config = PortConfig { bitrate_max: 1_000_000, publishers_max: PUBLISHERS, ..PortConfig::default() };
        let port = Listening::new(config, Arc::clone(&door));
        World { port, door, now: START, addresses: BTreeMap::new(), live: BTreeMap::new(), datagrams: 0 }
    }

    fn say(&mut self, from: SocketAddr, datagram: &[u8]) {
        let address = self.addresses.entry(from).or_default();
        address.said += datagram.len();
        // Where a handshake has its cookie.
        address.proven |= address.cookies.contains(&word(datagram, 11));
        self.datagrams += 1;
        self.port.datagram(self.now, from, datagram);
        self.hear(datagram.len());
    }

    /// What the port says. Whoever has not shown a cookie gets no more than it sent, in all and for each datagram.
    fn hear(&mut self, asked: usize) {
        let before: BTreeMap<SocketAddr, usize> = self.addresses.iter().map(|(at, one)| (*at, one.heard)).collect();
        for (to, datagram) in self.port.sent() {
            let address = self.addresses.get_mut(&to).expect("an answer to nobody");
            address.heard += datagram.len();
            read(address, &datagram);
        }
        self.events();
        for (at, address) in &self.addresses {
            let now = address.heard - before[at];
            assert!(address.proven || now <= asked, "{now} bytes for {asked}");
            assert!(address.connected || address.heard <= address.said, "{address:?}");
        }
        assert_eq!(self.port.publishers(), self.live.len());
        assert!(self.live.len() <= PUBLISHERS && self.door.publishers() == self.live.len());
        assert_eq!(self.port.counters().datagrams, self.datagrams);
    }

    fn events(&mut self) {
        while let Some(event) = self.port.poll() {
            match event {
                Event::Connected(connected) => {
                    let peer = *connected.peer.expose();
                    let address = self.addresses.get_mut(&peer).expect("somebody who said something");
                    assert!(address.proven, "let in without a cookie");
                    address.connected = true;
                    assert!(connected.channel.as_str() != "stopped" && connected.latency >= ms(120));
                    assert_eq!(connected.key_bits > 0, connected.channel.as_str() == "secret");
                    assert!(connected.replaced.is_none_or(|old| !self.live.contains_key(&old)), "closed before");
                    assert!(self.live.insert(connected.publisher, connected).is_none(), "a number of its own");
                }
                Event::Data { publisher, payload } => {
                    assert!(self.live.contains_key(&publisher) && !payload.is_empty());
                }
                Event::Closed { publisher, .. } => drop(self.live.remove(&publisher).expect("it was on air")),
                Event::Refused { code, why, .. } => {
                    assert!(matches!(code, 4..20 | 1_401..=1_503) && !why.is_empty(), "{code} {why}");
                }
                Event::Overflow { .. } => panic!("the events are taken"),
                Event::Pull(news) => panic!("no source is called: {news:?}"),
            }
        }
    }

    fn settle(&mut self) {
        self.port.settle(self.now);
        // Acknowledgements, questions and denials that waited.
        self.hear(64);
        assert!(self.port.deadline().is_none_or(|due| due > self.now), "a deadline that has passed");
    }

    /// Time goes on, from deadline to deadline as a port meets them.
    fn advance(&mut self, span: Duration) {
        let to = self.now + span;
        self.settle();
        while let Some(due) = self.port.deadline().filter(|due| *due <= to) {
            self.now = due.max(self.now + ms(1)).min(to);
            self.settle();
        }
        self.now = to;
        self.settle();
    }
}

/// What an address learns from an answer: cookies and sockets.
fn read(address: &mut Address, datagram: &[u8]) {
    assert!(rewritten(datagram).as_deref() == Some(datagram), "a packet that reads as it was written");
    if wire::control_kind(datagram) != Some(kind::HANDSHAKE) {
        assert!(address.connected || address.proven, "no connection, and it is told {datagram:?}");
        return;
    }
    let body = &datagram[16..];
    match word(body, 5) {
        INDUCTION => {
            address.cookie = word(body, 7);
            address.cookies.insert(address.cookie);
            assert_eq!((word(body, 0), word(body, 1)), (5, 0x4A17));
        }
        CONCLUSION => address.socket = word(body, 6),
        rejection => assert!((1_000..4_000).contains(&rejection), "{rejection}"),
    }
}

/// A conclusion as the script wants it: most of them good.
fn conclusion(script: &mut Script<'_>, cookie: u32) -> Vec<u8> {
    let (channel, odd, socket) = (script.below(STREAM_IDS.len()), script.byte(), 1 + u32::from(script.byte() & 3));
    let keys = seeds::key_message();
    let hello = Hello::conclusion(socket, cookie, STREAM_IDS[channel].as_bytes());
    let mut hello = Hello { first: 7, keys: if channel == 2 { &keys } else { &[] }, ..hello };
    match odd {
        0xF0 => hello.cookie ^= 1,
        0xF1 => hello.version = 4,
        0xF2 => hello.options = None,
        0xF3 => hello.options = Some([script.u32(), script.u32(), script.u32()]),
        0xF4 => hello.keys = if channel == 2 { &[] } else { &keys },
        0xF5 => hello.stream_id = script.piece(),
        0xF6 => hello.socket = script.u32(),
        0xF7 => hello.kind = script.u32(),
        0xF8 => hello.fields = script.u32(),
        0xF9 => hello.options = Some([USUAL[0], USUAL[1], 0xFFFF_FFFF]),
        0xFA => hello.first = script.u32(),
        _ => {}
    }
    hello.packet()
}

fn listener(input: &[u8]) {
    let (mut script, mut world) = (Script::new(input), World::new());
    while !script.is_over() {
        let action = script.byte();
        let from: SocketAddr = ADDRESSES[usize::from(action >> 4) % 4].parse().expect("an address");
        let (cookie, socket) = world.addresses.get(&from).map_or((0, 0), |one| (one.cookie, one.socket));
        match action & 15 {
            0 => world.say(from, &Hello::induction(u32::from(script.byte())).packet()),
            1 => world.say(from, &conclusion(&mut script, cookie)),
            2..5 => {
                let (n, flags) = (u32::from(script.byte()), script.byte());
                let info = WHOLE | (u32::from(flags & 1) * RETRANSMITTED) | u32::from(flags >> 1 & 3) << 27;
                let stamp = if flags & 0x80 == 0 { n * 1_000 } else { script.u32() };
                world.say(from, &wire::data(7 + n, info, stamp, socket, &[0x47; 40]));
            }
            5 => world.advance(ms(u64::from(script.byte()))),
            6 => world.advance(ms(u64::from(script.byte()) * 40)),
            7 => world.settle(),
            8 => {
                let (what, info) = (script.one_of(&[0, 1, 2, 3, 5, 6, 7, 8, kind::USER]), u32::from(script.byte()));
                world.say(from, &wire::control(what, 3, info, socket, script.piece()));
            }
            // A whole handshake.
            9 | 10 => {
                world.say(from, &Hello::induction(1).packet());
                let cookie = world.addresses[&from].cookie;
                world.say(from, &conclusion(&mut script, cookie));
            }
            11 => world.say(from, script.piece()),
            12 => {
                let one = world.live.keys().nth(script.below(PUBLISHERS)).copied();
                let why = script.one_of(&[Closing::Stopped, Closing::InputInvalid, Closing::Shutdown]);
                if let Some(publisher) = one {
                    world.port.close(world.now, publisher, why);
                }
                world.hear(64);
            }
            // Somebody else's connection.
            13 => {
                let theirs = world.addresses.values().map(|one| one.socket).find(|socket| *socket != 0).unwrap_or(1);
                world.say(from, &wire::control(script.one_of(&[1, 2, 5]), 0, 1, theirs, &[0; 4]));
            }
            14 => {
                world.port.shutdown(world.now);
                world.hear(64);
            }
            _ => world.say(from, &wire::control(5, 0, 0, socket, &[0; 4])),
        }
    }
    world.settle();
    // Who says nothing more is gone, and nothing is left of it.
    world.advance(Duration::from_secs(6));
    assert!(world.live.is_empty() && world.port.deadline().is_none(), "{:?}", world.live.len());
}

// ── our own caller ──────────────────────────────────────────────────────────────────────────────────────────────────

/// A caller and what it said.
struct Call {
    side: Calling,
    now: Mono,
    socket: u32,
    events: Vec<PublishEvent>,
    handshakes: usize,
    /// It has said its conclusion.
    concluded: bool,
}

impl Call {
    fn hear(&mut self) {
        let closed = self.is_closed();
        for (_, datagram) in self.side.sent() {
            assert!(!closed, "it is over: {datagram:?}");
            assert!(rewritten(&datagram).as_deref() == Some(&datagram[..]));
            let shakes = wire::control_kind(&datagram) == Some(kind::HANDSHAKE);
            self.handshakes += usize::from(shakes);
            if shakes {
                self.socket = word(&datagram, 10);
                self.concluded |= word(&datagram, 9) == CONCLUSION;
            }
            assert!(shakes || self.is_opened(), "before there is a connection");
        }
        self.events.extend(std::iter::from_fn(|| self.side.poll()));
        let opened = |event: &PublishEvent| matches!(event, PublishEvent::Connected { .. });
        assert!(self.events.iter().skip(1).all(|event| !opened(event)) && self.events.len() <= 2, "{:?}", self.events);
        assert!(self.events.len() < 2 || opened(&self.events[0]), "closed twice: {:?}", self.events);
        assert!(self.concluded || !self.events.iter().any(opened), "let in before it asked");
    }

    /// An event that was not taken yet may say so.
    fn is_opened(&mut self) -> bool {
        self.events.extend(std::iter::from_fn(|| self.side.poll()));
        matches!(self.events.first(), Some(PublishEvent::Connected { .. }))
    }

    fn is_closed(&self) -> bool {
        self.events.iter().any(|event| matches!(event, PublishEvent::Closed(_)))
    }

    fn give(&mut self, datagram: &[u8]) {
        self.side.datagram(self.now, datagram);
        self.side.tick(self.now);
        self.hear();
    }

    fn advance(&mut self, span: Duration) {
        let to = self.now + span;
        loop {
            self.side.tick(self.now);
            self.hear();
            let due = self.side.deadline();
            assert!(due.is_none_or(|due| due > self.now) && due.is_none() == self.is_closed(), "{due:?}");
            let Some(due) = due.filter(|due| *due <= to) else { break };
            self.now = due.max(self.now + ms(1)).min(to);
        }
        self.now = to;
        self.side.tick(self.now);
        self.hear();
    }
}

fn caller(input: &[u8]) {
    let mut script = Script::new(input);
    let peer: SocketAddr = "192.0.2.1:9000".parse().expect("an address");
    let secret = (script.below(16) == 15).then(|| (passphrase(), 16));
    let side = Calling::new(START, peer, "newest/key", ms(120), secret);
    let mut call = Call { side, now: START, socket: 0, events: Vec::new(), handshakes: 0, concluded: false };
    call.advance(Duration::ZERO);
    let socket = call.socket;
    let answer = |hello: Hello<'_>| wire::control(kind::HANDSHAKE, 0, 0, socket, &hello.body());
    while !script.is_over() {
        match script.below(12) {
            0 => call.give(&answer(Hello { version: 5, fields: 0x4A17, cookie: 99, ..Hello::induction(socket) })),
            1 => call.give(&answer(Hello { fields: 1, ..Hello::conclusion(77, 99, &[]) })),
            2 => {
                let fields = (script.u32(), script.u32());
                let options = script.flag().then_some([fields.0, fields.1, script.u32()]);
                let said = Hello { version: fields.0, fields: fields.1, options, ..Hello::conclusion(77, 99, &[]) };
                call.give(&answer(Hello { kind: script.one_of(&[0, INDUCTION, CONCLUSION, 1_004, 2_401]), ..said }));
            }
            3 | 4 => {
                let length = 1 + script.below(40);
                call.side.send(call.now, &vec![0x47; length]);
                call.hear();
            }
            5 => call.advance(ms(u64::from(script.byte()))),
            6 => call.advance(ms(u64::from(script.byte()) * 20)),
            7 | 8 => {
                let (what, info) = (script.one_of(&[0, 1, 2, 3, 5, 6, 7, kind::USER]), u32::from(script.byte()));
                call.give(&wire::control(what, 4, info, socket, script.piece()));
            }
            9 => call.give(script.piece()),
            10 => call.give(&wire::data(script.u32(), WHOLE, 0, socket, &[1; 8])),
            _ => {
                call.side.stop(call.now);
                // Its last word goes before it is over.
                call.hear();
            }
        }
    }
    call.advance(Duration::from_secs(6));
    assert!(call.is_closed() && !call.side.send(call.now, &[0x47]), "nobody is there any more");
    let seconds = (call.now - START).as_secs() as usize;
    assert!(call.handshakes <= 2 + 4 * seconds.min(6) + input.len(), "{} handshakes", call.handshakes);
}
