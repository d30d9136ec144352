//! A bond, several ways, and the port at their other end.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rung::ingest::srt::PortConfig;
use rung::ingest::srt::cores::{BondEvent, Bonded, Listening, rewritten};
use rung::ingest::{Closing, Door, Event, LinkNews, PublishEvent, PublisherId};
use rung::time::Mono;

use super::srt::{START, WAY, delays, ms, passphrase};
use super::srt_port::roster;
use crate::Target;
use crate::script::Script;
use crate::seeds;
use crate::wire::{self, kind, word};

pub(super) const TARGETS: &[Target] =
    &[Target::new("srt_bond", bond, seeds::srt_bonds).longest(1 << 10).memory(16 << 20, 1_024).rounds(60)];

/// What lies between one link's ends.
#[derive(Debug)]
struct Way {
    /// Of the link's newest call.
    from: SocketAddr,
    /// Nothing goes through.
    cut: bool,
    /// There is no socket for the next call.
    closed: bool,
    /// The link's socket, as the port names it.
    socket: u32,
    up: bool,
}

/// To the port or from it, by which link and which call of it, and what.
type UnderWay = (bool, usize, SocketAddr, Vec<u8>);

/// Two ends and their ways, which do with each datagram what the script says; behind its end, all is well.
struct World<'a> {
    script: Script<'a>,
    bond: Bonded,
    port: Listening,
    backup: bool,
    now: Mono,
    ways: Vec<Way>,
    calls: u16,
    /// By when it comes and in which order it went.
    under_way: BTreeMap<(Mono, u32), UnderWay>,
    went: u32,
    sent: u32,
    handed: Vec<u32>,
    /// Publishers that there were, and the one that there is.
    publishers: u32,
    on_air: Option<PublisherId>,
    opened: bool,
    over: bool,
}

impl<'a> World<'a> {
    fn new(mut script: Script<'a>) -> World<'a> {
        let (backup, count) = (script.flag(), 2 + script.below(3));
        let (latency, keyed) = (ms(script.one_of(&[60, 120, 600])), script.below(8) == 7);
        let stream_id = if keyed { "secret/key" } else { "newest/key" };
        let secret = keyed.then(|| (passphrase(), 16));
        let peers = vec!["192.0.2.9:9000".parse().expect("an address"); count];
        let way = |link| Way { from: address(link, 0), cut: false, closed: false, socket: 0, up: false };
        World {
            script,
            bond: Bonded::new(START, backup, &peers, stream_id, latency, secret),
            port: Listening::new(PortConfig::default(), Door::new(Arc::new(roster()), 8)),
            backup,
            now: START,
            ways: (0..count).map(way).collect(),
            calls: 0,
            under_way: BTreeMap::new(),
            went: 0,
            sent: 0,
            handed: Vec::new(),
            publishers: 0,
            on_air: None,
            opened: false,
            over: false,
        }
    }

    fn link(&mut self) -> usize {
        self.script.below(self.ways.len())
    }

    fn say(&mut self) {
        if self.bond.send(self.now, &self.sent.to_be_bytes()) {
            self.sent += 1;
        }
    }

    fn settle(&mut self) {
        while let Some(link) = self.bond.wants_call(self.now) {
            if self.ways[link].closed {
                self.bond.no_way(self.now, link);
                continue;
            }
            self.calls += 1;
            self.ways[link].from = address(link, self.calls);
            self.bond.call(self.now, link);
        }
        self.bond.tick(self.now);
        self.news();
        self.port.settle(self.now);
        self.events();
        self.carry();
        let stats = self.bond.stats();
        assert_eq!(stats.sent, u64::from(self.sent));
        assert_eq!(stats.sent, stats.acknowledged + stats.dropped + stats.waiting as u64, "{stats:?}");
        let due = self.bond.deadline();
        assert!(due.is_none() == self.over, "{due:?}");
        assert!(due.is_none_or(|due| due > self.now), "a deadline that has passed: {due:?} at {:?}", self.now);
    }

    /// What the bond tells: it opens once and ends once; links come and go.
    fn news(&mut self) {
        while let Some(event) = self.bond.poll() {
            assert!(!self.over, "told behind the end: {event:?}");
            match event {
                BondEvent::Whole(PublishEvent::Connected { .. }) => {
                    assert!(!std::mem::replace(&mut self.opened, true), "it opens once");
                }
                BondEvent::Whole(PublishEvent::Closed(_)) => self.over = true,
                BondEvent::Link(link, LinkNews::Up) => {
                    assert!(!std::mem::replace(&mut self.ways[link].up, true), "{link} comes up twice");
                }
                BondEvent::Link(link, LinkNews::Down { .. }) => self.ways[link].up = false,
                BondEvent::Link(link, LinkNews::Carries | LinkNews::StandsBy) => {
                    assert!(self.backup && self.ways[link].up, "{link} takes turns");
                }
            }
        }
        let up = self.ways.iter().filter(|way| way.up).count();
        assert!(self.over || (up > 0) == self.bond.is_connected() && self.bond.stats().links as usize == up);
    }

    fn events(&mut self) {
        while let Some(event) = self.port.poll() {
            match event {
                Event::Connected(connected) => {
                    self.publishers += 1;
                    self.on_air = Some(connected.publisher);
                }
                Event::Data { payload, .. } => self.handed.push(word(&payload, 0)),
                Event::Closed { publisher, .. } => {
                    self.on_air.take_if(|one| *one == publisher);
                }
                _ => {}
            }
        }
    }

    /// What both ends have to say goes on its way.
    fn carry(&mut self) {
        let mut out = Vec::new();
        for (link, way) in self.ways.iter().enumerate() {
            out.extend(self.bond.sent(link).into_iter().map(|datagram| (true, link, way.from, datagram)));
        }
        for (to, datagram) in self.port.sent() {
            let link = usize::from(to.port() % 8);
            if to == self.ways[link].from {
                self.ways[link].socket = word(&datagram, 3);
            }
            out.push((false, link, to, datagram));
        }
        for (forth, link, at, datagram) in out {
            assert_eq!(rewritten(&datagram).as_ref(), Some(&datagram), "a packet that reads as it was written");
            for delay in delays(self.script.byte()).into_iter().filter(|_| !self.ways[link].cut) {
                self.went += 1;
                self.under_way.insert((self.now + WAY + delay, self.went), (forth, link, at, datagram.clone()));
            }
        }
    }

    fn arrive(&mut self) {
        while let Some(next) = self.under_way.first_entry().filter(|next| next.key().0 <= self.now) {
            let (forth, link, at, datagram) = next.remove();
            match forth {
                true => self.port.datagram(self.now, at, &datagram),
                // The socket of an earlier call is closed.
                false if at == self.ways[link].from => self.bond.datagram(self.now, link, &datagram),
                false => {}
            }
        }
    }

    fn advance(&mut self, span: Duration) {
        let to = self.now + span;
        self.settle();
        for turn in 0.. {
            assert!(turn < 200_000, "time does not go on");
            let arrives = self.under_way.keys().next().map(|(at, _)| *at);
            let due = [arrives, self.bond.deadline(), self.port.deadline()].into_iter().flatten().min();
            let Some(due) = due.filter(|due| *due <= to) else { break };
            self.now = self.now.max(due);
            self.arrive();
            self.settle();
        }
        self.now = to;
        self.settle();
    }

    /// One thing that happens to links, or that somebody says who may not.
    fn trouble(&mut self, what: u8) {
        let link = self.link();
        match what % 8 {
            0 | 1 => self.ways[link].cut ^= true,
            2 => self.ways[link].closed ^= true,
            3 => self.bond.unreachable(link),
            4 => {
                let said = self.script.piece();
                self.bond.datagram(self.now, link, said);
            }
            5 => {
                let (from, said) = (self.ways[link].from, self.script.piece());
                self.port.datagram(self.now, from, said);
            }
            6 => {
                let all = [0, 1, kind::ACK, kind::NAK, 5, kind::ACK_ACK, kind::USER];
                let (what, info) = (self.script.one_of(&all), u32::from(self.script.byte()));
                let said = wire::control(what, 4, info, self.ways[link].socket, self.script.piece());
                self.bond.datagram(self.now, link, &said);
            }
            _ => {
                if let (15, Some(publisher)) = (self.script.byte(), self.on_air) {
                    self.port.close(self.now, publisher, Closing::Stopped);
                }
            }
        }
    }
}

/// Each call is from a port of its own, which tells the link.
fn address(link: usize, call: u16) -> SocketAddr {
    ([198, 51, 100, 1], 8_000 + call % 7_000 * 8 + link as u16).into()
}

/// What was sent is handed over, in order and once, or counted as dropped, whatever happens to links.
fn bond(input: &[u8]) {
    let mut world = World::new(Script::new(input));
    world.advance(ms(40));
    while !world.script.is_over() {
        match world.script.byte() {
            much @ 0..192 => {
                (0..much % 8).for_each(|_| world.say());
                world.advance(ms(u64::from(much / 8)));
            }
            what @ 192..240 => {
                world.trouble(what);
                world.settle();
            }
            long => world.advance(ms(u64::from(long - 239) * 120)),
        }
    }
    // All is well again: links that were called in vain are called, and what waits is given up or acknowledged.
    world.ways.iter_mut().for_each(|way| (way.cut, way.closed) = (false, false));
    world.advance(ms(16_000));
    let in_order = world.handed.windows(2).all(|two| two[0] < two[1]);
    assert!(in_order, "each once and in order: {:?}", world.handed);
    if !world.over {
        assert!(world.opened && world.ways.iter().any(|way| way.up), "a bond that has neither a link nor an end");
        for _ in 0..3 {
            world.say();
            world.advance(ms(20));
        }
        world.advance(ms(5_000));
        let publisher = world.on_air.expect("the port has its publisher");
        let stats = world.port.stats(world.now, publisher).expect("on air");
        assert_eq!(world.handed.last(), Some(&(world.sent - 1)), "the last one comes: {stats:?}");
        if world.publishers == 1 {
            let told = world.handed.len() as u64 + stats.dropped;
            assert_eq!(told, u64::from(world.sent), "{stats:?} {:?}", world.bond.stats());
        }
        assert_eq!(world.bond.stats().waiting, 0);
        world.bond.stop(world.now);
        world.advance(ms(100));
        assert!(world.over && world.on_air.is_none(), "a goodbye is understood");
    }
    world.advance(ms(6_000));
    assert!(world.port.publishers() == 0 && world.port.deadline().is_none(), "nothing is left");
    assert!(!world.bond.send(world.now, &[0; 4]) && world.under_way.is_empty());
}
