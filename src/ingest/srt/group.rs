//! Connection groups (bonding): several connections of one sender that carry one numbering of packets. What of it came
//! first, over whichever, is handed over; what comes again is dropped.
//!
//! Each member keeps its own order, acknowledgements, questions and line of playout, as if it were alone; the one that is
//! ahead says when something is due. In a group of type broadcast all carry everything; in main/backup most are silent, and
//! one that begins to send begins where the others' acknowledgements end, on the line of the one that was ahead last. The extension is libsrt's [SRT 3.2.1.4].

use std::sync::Arc;

use super::packet::{word, words};
use super::playout::Playout;
use super::seq::Seq;
use crate::ingest::door::{Held, Wanted};
use crate::ingest::stats::PublisherStats;

/// Numbers of groups have this bit, which those of sockets have not.
pub(super) const GROUP_BIT: u32 = 1 << 30;
/// Connections of a group at most.
pub(super) const MEMBERS_MAX: usize = 8;
const BROADCAST: u8 = 1;
const BACKUP: u8 = 2;

/// How the connections of a group share the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bonding {
    /// Each carries everything.
    Broadcast,
    /// One carries everything, the others stand by.
    Backup,
}

/// What a conclusion says of the group that its caller is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Membership {
    /// Of the side that says it.
    pub(super) group: u32,
    kind: u8,
    flags: u8,
    weight: u16,
}

impl Membership {
    /// `weight`: in a group of type main/backup the greater one carries.
    pub(super) fn new(group: u32, bonding: Bonding, weight: u16) -> Membership {
        let kind = match bonding {
            Bonding::Broadcast => BROADCAST,
            Bonding::Backup => BACKUP,
        };
        Membership { group, kind, flags: 0, weight }
    }

    pub(super) fn parse(body: &[u8]) -> Option<Membership> {
        let [kind, flags, high, low] = word(body, 4)?.to_be_bytes();
        Some(Membership { group: word(body, 0)?, kind, flags, weight: u16::from_be_bytes([high, low]) })
    }

    pub(super) fn write(self, out: &mut Vec<u8>) {
        let [high, low] = self.weight.to_be_bytes();
        words(out, [self.group, u32::from_be_bytes([self.kind, self.flags, high, low])]);
    }

    /// Of a type whose members all number alike.
    pub(super) fn is_known(self) -> bool {
        matches!(self.kind, BROADCAST | BACKUP)
    }

    /// The answer: the same, in our group of this number.
    pub(super) fn answered(self, group: u32) -> Membership {
        Membership { group, ..self }
    }
}

/// One publisher's connections.
#[derive(Debug)]
pub(super) struct Group {
    theirs: Membership,
    pub(super) ours: u32,
    pub(super) held: Arc<Held>,
    /// Our sockets, in the order in which they came; never none.
    pub(super) members: Vec<u32>,
    /// The packet that is handed over next.
    next: Seq,
    /// Before this one everything is here or given up, on one member or another.
    acknowledged: Option<Seq>,
    /// That of the member that was ahead last.
    pub(super) playout: Playout,
    /// Packets that no member brought in time, and those that a second one brought.
    dropped: u64,
    twice: u64,
    /// What members counted that are gone.
    pub(super) gone: PublisherStats,
}

impl Group {
    /// `first`: the number of the sender's first packet, as the first member told it.
    pub(super) fn new(theirs: Membership, ours: u32, held: Arc<Held>, first: Seq, playout: Playout) -> Group {
        Group {
            theirs,
            ours,
            held,
            members: Vec::new(),
            next: first,
            acknowledged: None,
            playout,
            dropped: 0,
            twice: 0,
            gone: PublisherStats::default(),
        }
    }

    /// Whether a caller that says so and wants this belongs to it.
    pub(super) fn is_of(&self, theirs: Membership, wanted: &Wanted) -> bool {
        (self.theirs.group, self.theirs.kind) == (theirs.group, theirs.kind)
            && self.held.channel.as_str() == wanted.channel
            && self.held.leg == wanted.leg
    }

    /// Whether the packet `seq`, which is due, was not handed over yet.
    pub(super) fn is_next(&mut self, seq: Seq) -> bool {
        let ahead = seq.since(self.next);
        if ahead < 0 {
            self.twice += 1;
            return false;
        }
        self.dropped += ahead as u64;
        self.next = seq.plus(1);
        true
    }

    /// A member's acknowledgement goes out.
    pub(super) fn acknowledges(&mut self, next: Seq) {
        if self.acknowledged.is_none_or(|before| next.since(before) > 0) {
            self.acknowledged = Some(next);
        }
    }

    pub(super) fn acknowledged(&self) -> Option<Seq> {
        self.acknowledged
    }

    /// What all members together came to.
    pub(super) fn total(&self, members: impl Iterator<Item = PublisherStats>) -> PublisherStats {
        let all = members.fold(self.gone.clone(), |sum, member| sum.with(member));
        PublisherStats { dropped: self.dropped, duplicates: all.duplicates + self.twice, ..all }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::SocketAddr;
    use std::time::Duration;

    use bytes::BytesMut;

    use super::super::handshake::{Extensions, Handshake, Kind, Options, flags};
    use super::super::listener::Listener;
    use super::super::packet::{Control, Data, Packet};
    use super::super::place::Place;
    use super::super::port::PortConfig;
    use super::*;
    use crate::ingest::admission::{Roster, RosterEntry};
    use crate::ingest::door::Door;
    use crate::ingest::event::{Closing, Event};
    use crate::ingest::source::PublisherId;
    use crate::media::channel::{ChannelName, Takeover};
    use crate::media::key::KeyDigest;
    use crate::time::Mono;

    const START: Mono = Mono(50_000_000_000);

    fn at(ms: u64) -> Mono {
        START + Duration::from_millis(ms)
    }

    fn first() -> Seq {
        Seq::new(0x7fff_ff00)
    }

    fn listener() -> Listener {
        let entry = || RosterEntry {
            key: KeyDigest::of("key"),
            takeover: Takeover::IfSilent,
            stopped: false,
            passphrase: None,
        };
        let names = ["one", "two"].map(|name| (ChannelName::new(name).unwrap(), entry()));
        Listener::new(PortConfig::default(), Door::new(Arc::new(Roster(names.into())), 20), Place::alone())
    }

    /// One connection by hand: where it comes from, what it sent, and what it was told.
    struct Link {
        peer: SocketAddr,
        socket: u32,
        sent: Vec<u32>,
    }

    fn membership(id: u32, kind: u8) -> Membership {
        Membership { group: GROUP_BIT | id, kind, flags: 0, weight: 7 }
    }

    fn datagram(listener: &mut Listener, now: Mono, peer: SocketAddr, write: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = Vec::new();
        write(&mut bytes);
        listener.datagram(now, peer, BytesMut::from(&bytes[..]));
    }

    /// What the listener says to `peer`; all else of the outbox is gone.
    fn said<T>(listener: &mut Listener, peer: SocketAddr, read: impl Fn(Control<'_>) -> Option<T>) -> Vec<T> {
        let mut all = Vec::new();
        for (_, head, _) in listener.outbox.iter().filter(|(to, ..)| *to == peer) {
            if let Some((Packet::Control(control), _)) = Packet::parse(head) {
                all.extend(read(control));
            }
        }
        listener.outbox.clear();
        all
    }

    /// A handshake; the listener's socket and group, or its refusal.
    fn call(
        listener: &mut Listener,
        now: Mono,
        port: u16,
        stream_id: &str,
        group: Option<Membership>,
    ) -> Result<(Link, Option<Membership>), u32> {
        let peer: SocketAddr = ([192, 0, 2, (port % 2) as u8 + 1], port).into();
        let hello = Handshake::induction(port.into(), first(), peer.ip());
        let mut body = Vec::new();
        hello.write(&mut body, false);
        datagram(listener, now, peer, |out| Control::Handshake(&body).write(out, 0, 0));
        let cookie = said(listener, peer, |control| match control {
            Control::Handshake(body) => Handshake::parse(body).map(|handshake| handshake.cookie),
            _ => None,
        })[0];
        let extensions = Extensions {
            options: Some(Options { version: 0x01_05_01, flags: flags::LIVE, receive_ms: 120, send_ms: 120 }),
            stream_id: stream_id.as_bytes().to_vec(),
            group,
            ..Extensions::default()
        };
        let new = Handshake::new(Kind::Conclusion, port.into(), cookie, first(), peer.ip());
        let conclusion = Handshake { extension: extensions.brought(), extensions, ..new };
        body.clear();
        conclusion.write(&mut body, false);
        datagram(listener, now, peer, |out| Control::Handshake(&body).write(out, 0, 0));
        let answers = said(listener, peer, |control| match control {
            Control::Handshake(body) => {
                Handshake::parse(body).map(|answer| (answer.kind, answer.socket, answer.extensions.group))
            }
            _ => None,
        });
        match answers[..] {
            [(Kind::Conclusion, socket, group)] => Ok((Link { peer, socket, sent: Vec::new() }, group)),
            [(Kind::Rejection(code), ..)] => Err(code - 1_000),
            // Who is denied hears of it later.
            [] => Err(0),
            ref other => panic!("{other:?}"),
        }
    }

    /// The publisher that came first.
    fn connected(listener: &mut Listener) -> PublisherId {
        match listener.poll() {
            Some(Event::Connected(connected)) => connected.publisher,
            other => panic!("{other:?}"),
        }
    }

    /// Packet `n`, made at `timestamp` µs of its sender's clock.
    fn send(listener: &mut Listener, now: Mono, link: &mut Link, n: u32, timestamp: u32) {
        link.sent.push(n);
        let data = Data { seq: first().plus(n), message: n + 1, timestamp, ..Data::default() };
        datagram(listener, now, link.peer, |out| {
            data.write(out, link.socket);
            out.extend(n.to_be_bytes());
        });
    }

    /// What happens by `now`: numbers of packets handed over, and ends.
    fn settle(listener: &mut Listener, now: Mono, got: &mut Vec<u32>) -> Vec<Closing> {
        listener.settle(now);
        let mut ends = Vec::new();
        while let Some(event) = listener.poll() {
            match event {
                Event::Data { payload, .. } => got.push(u32::from_be_bytes(payload[..].try_into().unwrap())),
                Event::Closed { reason, .. } => ends.push(reason),
                _ => {}
            }
        }
        ends
    }

    /// No question and no acknowledgement is about what this connection has not sent.
    fn check_answers(listener: &mut Listener, link: &Link) {
        let (low, high) = (link.sent.iter().min().copied(), link.sent.iter().max().copied());
        said(listener, link.peer, |control| match control {
            Control::Ack(ack) => {
                let next = ack.next.since(first());
                assert!(high.is_some_and(|high| next <= high as i32 + 1), "{next} acknowledged, {high:?} sent");
                Some(())
            }
            Control::Nak(losses) => {
                for (from, to) in losses {
                    let (from, to) = (from.since(first()), to.since(first()));
                    assert!(low.is_some_and(|low| from >= low as i32) && high.is_some_and(|high| to <= high as i32));
                }
                Some(())
            }
            _ => None,
        });
    }

    #[test]
    fn a_broadcast_over_two_links_of_which_each_loses_much_loses_what_both_lose() {
        let mut state = 1u64;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let mut listener = listener();
        let (mut one, group) = call(&mut listener, START, 5_000, "one/key", Some(membership(9, BROADCAST))).unwrap();
        let (mut two, beside) = call(&mut listener, at(900), 5_001, "one/key", Some(membership(9, BROADCAST))).unwrap();
        assert_eq!(group, beside, "one group of ours for one of theirs");
        assert!(group.unwrap().group & GROUP_BIT != 0 && group.unwrap().weight == 7);
        // A packet each 4 ms, after a second. The second link is 40 ms slower, and both disorder a little.
        let (mut under_way, mut lost) = (BTreeSet::new(), 0);
        for n in 0..4_750u32 {
            let sure = n == 0 || n == 4_749;
            let drops = [random(5) == 0 && !sure, random(5) == 0 && !sure];
            lost += u64::from(drops == [true, true]);
            for link in (0..2).filter(|link| !drops[*link]) {
                under_way.insert((u64::from(n) * 4 + 1_020 + link as u64 * 40 + random(6), link, n));
            }
        }
        let id = connected(&mut listener);
        let (mut got, mut next) = (Vec::new(), 1_000);
        for (ms, link, n) in under_way {
            while next < ms {
                let before = got.len();
                assert!(settle(&mut listener, at(next), &mut got).is_empty());
                // The faster link says when: 20 ms and the latency, or a packet or some later, where it lost them itself.
                assert!(got[before..].iter().all(|n| next <= u64::from(*n) * 4 + 1_170), "late at {next}");
                next += 1;
            }
            send(&mut listener, at(ms), if link == 0 { &mut one } else { &mut two }, n, n * 4_000 + 1_000_000);
            assert_eq!(listener.publishers(), 1);
            listener.outbox.clear();
        }
        assert!(settle(&mut listener, at(20_400), &mut got).is_empty());
        assert!(got.is_sorted_by(|a, b| a < b), "each once and in order");
        assert_eq!(got.len() as u64, 4_750 - lost);
        let stats = listener.stats(at(20_400), id).unwrap();
        assert_eq!(
            (stats.dropped, stats.links.len(), stats.received),
            (lost, 2, (one.sent.len() + two.sent.len()) as u64)
        );
        assert_eq!(stats.links.iter().map(|l| l.peer.expose().port()).collect::<Vec<_>>(), [5_000, 5_001]);
        assert!(lost > 50, "{lost}");
    }

    #[test]
    fn a_standby_link_takes_over_where_the_main_one_fell_silent_and_is_told_nothing_that_it_did_not_send() {
        let mut listener = listener();
        let (mut main, _) = call(&mut listener, START, 5_000, "one/key", Some(membership(9, BACKUP))).unwrap();
        let (mut standby, _) = call(&mut listener, at(2), 5_001, "one/key", Some(membership(9, BACKUP))).unwrap();
        let id = connected(&mut listener);
        let (mut got, mut ends) = (Vec::new(), Vec::new());
        for n in 0..5_125u32 {
            let now = at(u64::from(n) * 4);
            // The main link dies at 15 s; 92 ms later the other one sends what was not acknowledged, and goes on.
            match n {
                0..3_750 => send(&mut listener, now, &mut main, n, n * 3_984),
                3_773 => (3_746..=n).for_each(|n| send(&mut listener, now, &mut standby, n, n * 3_984)),
                3_774.. => send(&mut listener, now, &mut standby, n, n * 3_984),
                _ => {}
            }
            if n.is_multiple_of(250) && n < 3_750 {
                datagram(&mut listener, now, standby.peer, |out| Control::KeepAlive.write(out, 0, standby.socket));
            }
            let before = got.len();
            ends.extend(settle(&mut listener, now, &mut got));
            // Its clock runs slow by 0.4 %, which the line follows in 8 s; the other link goes on there.
            assert!(got[before..].iter().all(|made| n >= made + 18), "early at {n}");
            check_answers(&mut listener, if n.is_multiple_of(2) { &standby } else { &main });
        }
        let stats = listener.stats(at(20_500), id).unwrap();
        assert_eq!((stats.dropped, stats.lost, stats.links.len()), (0, 0, 1), "the main link was let go");
        assert!(ends.is_empty() && got.iter().copied().eq(0..got.len() as u32), "all of it, each once");
        datagram(&mut listener, at(20_500), standby.peer, |out| Control::Shutdown.write(out, 0, standby.socket));
        assert_eq!(settle(&mut listener, at(20_500), &mut got), [Closing::Finished]);
        assert_eq!((got.len(), listener.publishers()), (5_125, 0), "the last ones, too");
    }

    #[test]
    fn only_who_has_the_key_joins_a_group_and_only_for_its_leg() {
        let mut listener = listener();
        let (member, other) = (Some(membership(9, BROADCAST)), Some(membership(8, BROADCAST)));
        let mut port = 5_000;
        let mut calls = |listener: &mut Listener, stream_id: &str, group| {
            port += 1;
            call(listener, at(u64::from(port)), port, stream_id, group).map(|(_, group)| group.map(|group| group.group))
        };
        let one = calls(&mut listener, "one/key", member).unwrap();
        let two = calls(&mut listener, "two/key", member).unwrap();
        assert_ne!(one, two, "another channel is another publisher");
        let leg = calls(&mut listener, "one/key/b", member).unwrap();
        assert!(leg != one && leg != two);
        assert_eq!(calls(&mut listener, "one/wrong", member), Err(0));
        assert_eq!(calls(&mut listener, "one/key", None), Err(1_409), "alone it is a second publisher");
        assert_eq!(calls(&mut listener, "one/key", other), Err(1_409));
        assert_eq!(calls(&mut listener, "one/key", Some(membership(9, BACKUP))), Err(1_409));
        assert_eq!(calls(&mut listener, "one/key", Some(membership(9, 3))), Err(15), "balancing");
        assert_eq!(calls(&mut listener, "one/key", Some(Membership { group: 9, ..membership(9, 1) })), Err(4));
        for _ in 1..MEMBERS_MAX {
            assert_eq!(calls(&mut listener, "one/key", member), Ok(one));
        }
        assert_eq!(calls(&mut listener, "one/key", member), Err(15), "full");
        // The port closes, and each of the three publishers ends once.
        listener.shutdown(at(6_000));
        assert_eq!(settle(&mut listener, at(6_000), &mut Vec::new()), [Closing::Shutdown; 3]);
    }
}
