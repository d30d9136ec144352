//! The sending side of a connection group (bonding): links to one listener that carry one numbering of packets. No
//! socket and no clock.
//!
//! What no link has acknowledged is kept: a link that comes up, or takes over, begins with it. In a bond of type backup
//! the link with the greatest weight carries; when its answers are overdue, the next one carries as well, until one of
//! the two has proven itself. A link that is gone is called again while another one is there.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::call::Joins;
use super::caller::{Caller, CallerConfig};
use super::greeting::{Rejection, SOCKET_MASK};
use super::group::{Bonding, GROUP_BIT, Membership};
use super::outbox::Outbox;
use super::packet::MESSAGE;
use super::sender::{BYTES_MAX, GIVE_UP_BEYOND, PACKETS_MAX};
use super::seq::Seq;
use crate::ingest::publish::{LinkNews, PublishEnd, PublishEvent, PublishStats, RETRY};
use crate::sys::random;
use crate::time::Mono;

/// Answers of a link that carries media come each 10 ms: they are overdue after this long, or after a round trip and
/// so much, whichever is longer.
const OVERDUE_MIN: Duration = Duration::from_millis(60);
const OVERDUE_GRACE: Duration = Duration::from_millis(30);
/// A link that stands by says that it is there each second: not heard for so long, it is the last to be chosen.
const FRESH: Duration = Duration::from_millis(1_500);
/// A link that took over has to carry for so long before the one that it took over from stands by.
const PROVEN: Duration = Duration::from_secs(1);

/// What a bond tells its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BondEvent {
    /// Of the bond as a whole: connected with the first link, closed with the last.
    Whole(PublishEvent),
    Link(usize, LinkNews),
}

pub(super) struct Bond {
    bonding: Bonding,
    config: CallerConfig,
    /// Our number of the group, and the listener's once a link has been welcomed.
    ours: u32,
    theirs: Option<u32>,
    began: Mono,
    first: Seq,
    members: Vec<Member>,
    /// Packets that were numbered.
    numbered: u64,
    /// The last ones of those: nobody has acknowledged them.
    kept: VecDeque<Kept>,
    bytes: usize,
    /// The longest that a link settled on; nothing before the first.
    latency: Option<Duration>,
    /// Why it is no use to call a link again: the first that was told.
    refusal: Option<PublishEnd>,
    closed: bool,
    ticked: Mono,
    counts: PublishStats,
    events: VecDeque<BondEvent>,
}

struct Kept {
    payload: Bytes,
    made: Mono,
}

struct Member {
    peer: SocketAddr,
    /// The greater one carries.
    weight: u16,
    place: Place,
    /// It carries media, since then.
    carries: Option<Mono>,
    /// The wait after its next failure.
    retry: Duration,
    failed: bool,
    /// The host of this call said that nobody listens there.
    unreachable: bool,
}

enum Place {
    /// It is called then.
    Resting(Mono),
    /// Called, or connected.
    There(Box<Caller>),
    /// It is no use to call it again.
    Out,
}

impl Bond {
    /// Links to `peers`, of which the first is the one that carries where one does. `config` is without a group.
    pub(super) fn new(now: Mono, bonding: Bonding, config: CallerConfig, peers: &[SocketAddr]) -> Bond {
        let weights = (1..=u16::try_from(peers.len()).unwrap_or(u16::MAX)).rev();
        let member = |(peer, weight): (&SocketAddr, u16)| Member {
            peer: *peer,
            weight,
            place: Place::Resting(now),
            carries: None,
            retry: RETRY.0,
            failed: false,
            unreachable: false,
        };
        Bond {
            bonding,
            config,
            ours: random::bits() as u32 & SOCKET_MASK | GROUP_BIT,
            theirs: None,
            began: now,
            first: Seq::new(random::bits() as u32),
            members: peers.iter().zip(weights).map(member).collect(),
            numbered: 0,
            kept: VecDeque::new(),
            bytes: 0,
            latency: None,
            refusal: None,
            closed: false,
            ticked: now,
            counts: PublishStats::default(),
            events: VecDeque::new(),
        }
    }

    /// A link that is to be called: `call` or `no_way` has to follow.
    pub(super) fn wants_call(&self, now: Mono) -> Option<usize> {
        let due = |member: &Member| matches!(member.place, Place::Resting(at) if at <= now);
        self.members.iter().position(due).filter(|_| !self.closed)
    }

    pub(super) fn call(&mut self, now: Mono, link: usize) {
        let (first, began) = (self.number(self.numbered).0, self.began);
        let Some(member) = self.members.get_mut(link) else { return };
        let membership = Membership::new(self.ours, self.bonding, member.weight);
        let mut config = self.config.clone();
        config.wishes.joins = Some(Joins { membership, first, began });
        member.unreachable = false;
        member.place = Place::There(Box::new(Caller::new(now, config, member.peer)));
    }

    /// There is no socket for it now.
    pub(super) fn no_way(&mut self, now: Mono, link: usize) {
        self.ended(now, link, PublishEnd::NoWay);
    }

    /// The host at the other end said that nobody listens.
    pub(super) fn unreachable(&mut self, link: usize) {
        if let Some(member) = self.members.get_mut(link) {
            member.unreachable = true;
        }
    }

    pub(super) fn datagram(&mut self, now: Mono, link: usize, bytes: BytesMut) {
        if let Some(caller) = self.members.get_mut(link).and_then(Member::caller_mut) {
            caller.datagram(now, bytes);
        }
    }

    /// What goes out over the link.
    pub(super) fn outbox(&mut self, link: usize) -> Option<&mut Outbox> {
        Some(&mut self.members.get_mut(link)?.caller_mut()?.outbox)
    }

    /// Does what is due. Call after the datagrams of a batch.
    pub(super) fn tick(&mut self, now: Mono) {
        self.ticked = now;
        for link in 0..self.members.len() {
            if let Some(caller) = self.members[link].caller_mut().filter(|_| !self.closed) {
                caller.tick(now);
            }
            while let Some(event) = self.members[link].caller_mut().and_then(Caller::poll) {
                match event {
                    PublishEvent::Connected { latency } => self.opened(now, link, latency),
                    PublishEvent::Closed(end) => self.ended(now, link, end),
                }
            }
        }
        self.acknowledged();
        let patience = self.latency.unwrap_or_default() + GIVE_UP_BEYOND;
        let late = self.kept.iter().take_while(|kept| now - kept.made >= patience).count();
        self.forget(late);
        self.counts.dropped += late as u64;
        if self.bonding == Bonding::Backup {
            self.choose(now);
        }
    }

    fn opened(&mut self, now: Mono, link: usize, latency: Duration) {
        let Some(caller) = self.members[link].caller_mut() else { return };
        let theirs = caller.group();
        if self.theirs.is_some() && self.theirs != theirs {
            // Another publisher at the other end: its packets would not come together.
            caller.stop(now);
            return self.ended(now, link, PublishEnd::Refused(Rejection::Group.code()));
        }
        self.theirs = theirs;
        self.members[link].retry = RETRY.0;
        self.events.push_back(BondEvent::Link(link, LinkNews::Up));
        if self.latency.is_none() {
            self.events.push_back(BondEvent::Whole(PublishEvent::Connected { latency }));
        }
        self.latency = self.latency.max(Some(latency));
        if self.bonding == Bonding::Broadcast {
            self.carry(now, link);
        }
    }

    fn ended(&mut self, now: Mono, link: usize, end: PublishEnd) {
        let Some(member) = self.members.get_mut(link).filter(|_| !self.closed) else { return };
        let end = match end {
            PublishEnd::NoAnswer { .. } => PublishEnd::NoAnswer { unreachable: member.unreachable },
            end => end,
        };
        self.counts.retransmitted += member.retransmitted();
        (member.carries, member.failed) = (None, true);
        member.place = if end.worth_a_retry() { Place::Resting(now + member.retry) } else { Place::Out };
        member.retry = (member.retry * 2).min(RETRY.1);
        // Before the first connection all links have their try; after the last one there is nothing to go on with.
        let over = match self.latency {
            Some(_) => !self.is_connected(),
            None => self.members.iter().all(|member| member.failed),
        };
        if !end.worth_a_retry() {
            self.refusal.get_or_insert(end);
        }
        let again = end.worth_a_retry() && !over;
        self.events.push_back(BondEvent::Link(link, LinkNews::Down { end, again }));
        if over {
            // Of links that all failed one may only have been too many.
            let end = self.refusal.filter(|_| self.latency.is_none()).unwrap_or(end);
            self.close(now, end);
        }
    }

    fn close(&mut self, now: Mono, end: PublishEnd) {
        self.closed = true;
        self.members.iter_mut().filter_map(Member::caller_mut).for_each(|caller| caller.stop(now));
        self.events.push_back(BondEvent::Whole(PublishEvent::Closed(end)));
    }

    /// The link carries from now on, beginning with what nobody has acknowledged.
    fn carry(&mut self, now: Mono, link: usize) {
        let from = self.numbered - self.kept.len() as u64;
        let numbers: Vec<(Seq, u32)> = (from..self.numbered).map(|n| self.number(n)).collect();
        let member = &mut self.members[link];
        member.carries = Some(now);
        let Some(caller) = member.caller_mut() else { return };
        for (kept, number) in self.kept.iter().zip(numbers) {
            caller.send_numbered(now, kept.made, number, &kept.payload);
        }
        self.counts.retransmitted += self.kept.len() as u64;
        if self.bonding == Bonding::Backup {
            self.events.push_back(BondEvent::Link(link, LinkNews::Carries));
        }
    }

    /// Which link carries, where one does.
    fn choose(&mut self, now: Mono) {
        let open = || self.members.iter().enumerate().filter(|(_, member)| member.is_open());
        let Some((best, _)) = open().max_by_key(|(_, member)| member.rank(now)) else { return };
        if self.members[best].carries.is_none() {
            return self.carry(now, best);
        }
        let proven = self.members[best].carries.is_some_and(|since| now - since >= PROVEN);
        if !proven || self.members[best].is_overdue(now) {
            return;
        }
        for link in (0..self.members.len()).filter(|link| *link != best) {
            let member = &mut self.members[link];
            if member.carries.take().is_some()
                && let Some(caller) = member.caller_mut()
            {
                caller.stand_by(now);
                self.events.push_back(BondEvent::Link(link, LinkNews::StandsBy));
            }
        }
    }

    /// What any link has acknowledged is kept no longer.
    fn acknowledged(&mut self) {
        let base = self.number(self.numbered - self.kept.len() as u64).0;
        let known = self.members.iter().filter_map(|member| member.caller()?.sender()?.acknowledged_to());
        let ahead = known.filter_map(|next| next.after(base)).map(|count| count as usize);
        let count = ahead.filter(|count| *count <= self.kept.len()).max().unwrap_or(0);
        self.forget(count);
        self.counts.acknowledged += count as u64;
    }

    fn forget(&mut self, count: usize) {
        self.bytes -= self.kept.drain(..count).map(|kept| kept.payload.len()).sum::<usize>();
    }

    /// Number and message of the packet that was numbered as the `n`th, from 0.
    fn number(&self, n: u64) -> (Seq, u32) {
        (self.first.plus(n as u32), (n % u64::from(MESSAGE)) as u32 + 1)
    }

    /// Sends one payload; `false`: it was not taken.
    pub(super) fn send(&mut self, now: Mono, payload: &[u8]) -> bool {
        let full = self.kept.len() >= PACKETS_MAX || self.bytes + payload.len() > BYTES_MAX;
        if full || !self.is_connected() {
            return false;
        }
        let number = self.number(self.numbered);
        self.numbered += 1;
        self.counts.sent += 1;
        self.counts.sent_bytes += payload.len() as u64;
        self.bytes += payload.len();
        self.kept.push_back(Kept { payload: Bytes::copy_from_slice(payload), made: now });
        for member in self.members.iter_mut().filter(|member| member.carries.is_some()) {
            if let Some(caller) = member.caller_mut() {
                // A link that has no room for it goes on behind it.
                caller.send_numbered(now, now, number, payload);
            }
        }
        true
    }

    /// When `tick` or `wants_call` wants to be asked; `None` once closed.
    pub(super) fn deadline(&self) -> Option<Mono> {
        if self.closed {
            return None;
        }
        let own = |member: &Member| match &member.place {
            Place::Resting(at) => Some(*at),
            Place::There(caller) => caller.deadline(),
            Place::Out => None,
        };
        let kept = self.kept.front().map(|kept| kept.made + self.latency.unwrap_or_default() + GIVE_UP_BEYOND);
        let turns = self.members.iter().filter(|member| member.carries.is_some() && self.bonding == Bonding::Backup);
        let turns = turns.flat_map(|member| [member.overdue_at(), member.carries.map(|since| since + PROVEN)]);
        let turns = turns.flatten().filter(|at| *at > self.ticked);
        self.members.iter().filter_map(own).chain(kept).chain(turns).min()
    }

    pub(super) fn poll(&mut self) -> Option<BondEvent> {
        self.events.pop_front()
    }

    /// One link is, at least.
    pub(super) fn is_connected(&self) -> bool {
        self.members.iter().any(Member::is_open)
    }

    /// Ends all links from this side.
    pub(super) fn stop(&mut self, now: Mono) {
        if !self.closed {
            self.close(now, PublishEnd::Finished);
        }
    }

    pub(super) fn stats(&self) -> PublishStats {
        let carrying = self.members.iter().filter(|member| member.carries.is_some());
        let rtt = carrying.filter_map(|member| member.caller()?.sender()).map(|sender| sender.rtt()).next();
        PublishStats {
            retransmitted: self.counts.retransmitted + self.members.iter().map(Member::retransmitted).sum::<u64>(),
            waiting: self.kept.len(),
            rtt: rtt.unwrap_or_default(),
            links: self.members.iter().filter(|member| member.is_open()).count() as u32,
            ..self.counts
        }
    }
}

impl Member {
    fn caller(&self) -> Option<&Caller> {
        match &self.place {
            Place::There(caller) => Some(caller),
            Place::Resting(_) | Place::Out => None,
        }
    }

    fn caller_mut(&mut self) -> Option<&mut Caller> {
        match &mut self.place {
            Place::There(caller) => Some(caller),
            Place::Resting(_) | Place::Out => None,
        }
    }

    fn is_open(&self) -> bool {
        self.caller().is_some_and(Caller::is_connected)
    }

    /// Who has the greatest carries: answers that come, then a sign of life, then the weight.
    fn rank(&self, now: Mono) -> (bool, bool, u16) {
        let fresh = self.caller().is_some_and(|caller| now - caller.heard() < FRESH);
        (!self.is_overdue(now), fresh, self.weight)
    }

    fn is_overdue(&self, now: Mono) -> bool {
        self.overdue_at().is_some_and(|at| at <= now)
    }

    /// When it must have answered what it carries.
    fn overdue_at(&self) -> Option<Mono> {
        let caller = self.caller()?;
        let sender = caller.sender()?;
        let span = OVERDUE_MIN.max(sender.patience() + OVERDUE_GRACE);
        sender.waits_since().map(|since| since.max(caller.heard()) + span)
    }

    fn retransmitted(&self) -> u64 {
        self.caller().and_then(Caller::sender).map_or(0, |sender| sender.counts.retransmitted)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::IpAddr;
    use std::sync::Arc;

    use super::super::call::{WINDOW, Wishes};
    use super::super::crypto::KeyLength;
    use super::super::listener::Listener;
    use super::super::place::Place;
    use super::super::port::PortConfig;
    use super::*;
    use crate::ingest::admission::{Roster, RosterEntry};
    use crate::ingest::door::Door;
    use crate::ingest::event::{Closing, Event};
    use crate::ingest::source::PublisherId;
    use crate::ingest::stats::PublisherStats;
    use crate::media::channel::{ChannelName, Takeover};
    use crate::media::key::{KeyDigest, Passphrase};

    const START: Mono = Mono(50_000_000_000);
    const DELAY: Duration = Duration::from_millis(10);
    const PASS: &str = "a long passphrase";

    /// Who sent it, on which link, whether to the listener, and what.
    type UnderWay = (SocketAddr, usize, bool, Vec<u8>);

    /// A bond and a listener, 10 ms apart on every link; a payload each 4 ms, which holds its number.
    struct World {
        now: Mono,
        listener: Listener,
        bond: Bond,
        /// Of each link: from where it calls, and whether nothing passes.
        links: Vec<(SocketAddr, bool)>,
        ports: u16,
        /// Due, and in the order in which they went: the link, towards the listener, the datagram.
        under_way: BTreeMap<(Mono, u64), UnderWay>,
        went: u64,
        media: bool,
        sent: u32,
        got: Vec<u32>,
        id: Option<PublisherId>,
        news: Vec<BondEvent>,
        ends: Vec<Closing>,
    }

    fn entry() -> RosterEntry {
        RosterEntry { key: KeyDigest::of("key"), takeover: Takeover::IfSilent, stopped: false, passphrase: None }
    }

    impl World {
        fn new(bonding: Bonding, links: usize, stream_id: &str, passphrase: Option<&str>) -> World {
            let passphrase = passphrase.map(|text| Passphrase::new(text).unwrap());
            let door = Door::new(Arc::new(Roster([(ChannelName::new("one").unwrap(), entry())].into())), 20);
            let wishes = Wishes {
                stream_id: stream_id.to_owned(),
                latency: Duration::from_millis(200),
                secret: passphrase.clone().map(|passphrase| (passphrase, KeyLength::Aes256)),
                filter: String::new(),
                window: WINDOW,
                joins: None,
            };
            let peers = vec!["192.0.2.9:9000".parse().unwrap(); links];
            World {
                now: START,
                listener: Listener::new(PortConfig { passphrase, ..PortConfig::default() }, door, Place::alone()),
                bond: Bond::new(START, bonding, CallerConfig { wishes, renew_after: 500 }, &peers),
                links: vec![("198.51.100.1:1".parse().unwrap(), false); links],
                ports: 1_000,
                under_way: BTreeMap::new(),
                went: 0,
                media: true,
                sent: 0,
                got: Vec::new(),
                id: None,
                news: Vec::new(),
                ends: Vec::new(),
            }
        }

        fn run(&mut self, ms: u32) {
            for _ in 0..ms {
                self.now = self.now + Duration::from_millis(1);
                self.step();
            }
        }

        fn step(&mut self) {
            let now = self.now;
            while let Some(link) = self.bond.wants_call(now) {
                self.ports += 1;
                self.links[link].0 = ([198, 51, 100, link as u8 + 1], self.ports).into();
                self.bond.call(now, link);
            }
            while let Some(due) = self.under_way.first_entry().filter(|due| due.key().0 <= now) {
                let (from, link, up, bytes) = due.remove();
                let bytes = BytesMut::from(&bytes[..]);
                match (self.links[link].1, up) {
                    (true, _) => {}
                    (false, true) => self.listener.datagram(now, from, bytes),
                    (false, false) if self.links[link].0 == from => self.bond.datagram(now, link, bytes),
                    (false, false) => {}
                }
            }
            self.bond.tick(now);
            self.listener.settle(now);
            self.news.extend(std::iter::from_fn(|| self.bond.poll()));
            if self.media && self.bond.is_connected() && (now.0 / 1_000_000).is_multiple_of(4) {
                assert!(self.bond.send(now, &self.sent.to_be_bytes()));
                self.sent += 1;
            }
            while let Some(event) = self.listener.poll() {
                match event {
                    Event::Connected(connected) => self.id = Some(connected.publisher),
                    Event::Data { payload, .. } => self.got.push(u32::from_be_bytes(payload[..].try_into().unwrap())),
                    Event::Closed { reason, .. } => self.ends.push(reason),
                    _ => {}
                }
            }
            self.carry_off();
        }

        fn carry_off(&mut self) {
            let mut out = Vec::new();
            for link in 0..self.links.len() {
                let Some(outbox) = self.bond.outbox(link) else { continue };
                out.extend(
                    outbox.iter().map(|(_, head, body)| (self.links[link].0, link, true, [head, body].concat())),
                );
                outbox.clear();
            }
            for (to, head, body) in self.listener.outbox.iter() {
                let IpAddr::V4(ip) = to.ip() else { panic!("{to}") };
                let link = usize::from(ip.octets()[3]) - 1;
                out.push((to, link, false, [head, body].concat()));
            }
            self.listener.outbox.clear();
            for datagram in out.into_iter().filter(|(_, link, ..)| !self.links[*link].1) {
                self.went += 1;
                self.under_way.insert((self.now + DELAY, self.went), datagram);
            }
        }

        fn stats(&self) -> PublisherStats {
            self.listener.stats(self.now, self.id.expect("connected")).expect("on air")
        }

        /// What was told of the links since the last look.
        fn link_news(&mut self) -> Vec<(usize, LinkNews)> {
            let links = std::mem::take(&mut self.news).into_iter().filter_map(|event| match event {
                BondEvent::Link(link, news) => Some((link, news)),
                BondEvent::Whole(_) => None,
            });
            links.collect()
        }

        /// Media ends, is played out, and the bond says goodbye.
        fn finish(&mut self) {
            self.media = false;
            self.run(300);
            assert_eq!(self.bond.stats().waiting, 0, "all of it was acknowledged");
            self.bond.stop(self.now);
            self.carry_off();
            self.run(20);
            assert_eq!((self.ends.as_slice(), self.listener.publishers()), (&[Closing::Finished][..], 0));
            assert_eq!(self.news.last(), Some(&BondEvent::Whole(PublishEvent::Closed(PublishEnd::Finished))));
        }

        fn assert_all_came(&self) {
            assert!(
                self.got.iter().copied().eq(0..self.sent),
                "{} of {}, each once and in order",
                self.got.len(),
                self.sent
            );
        }
    }

    const DOWN: LinkNews = LinkNews::Down { end: PublishEnd::Silent, again: true };

    #[test]
    fn a_broadcast_loses_nothing_to_a_link_that_is_cut_which_is_called_until_it_is_back() {
        let mut world = World::new(Bonding::Broadcast, 2, "one/key", Some(PASS));
        world.run(2_000);
        let stats = world.stats();
        assert_eq!((world.listener.publishers(), stats.links.len(), stats.key_bits), (1, 2, 256));
        assert!(stats.links.iter().all(|link| link.received > 400), "each carries all: {stats:?}");
        world.links[0].1 = true;
        world.run(6_000);
        assert_eq!(world.link_news(), [(0, LinkNews::Up), (1, LinkNews::Up), (0, DOWN)]);
        assert_eq!((world.stats().links.len(), world.bond.stats().links), (1, 1));
        world.run(10_000);
        world.links[0].1 = false;
        world.run(8_000);
        let told = world.link_news();
        assert_eq!(told.last(), Some(&(0, LinkNews::Up)), "{told:?}");
        assert_eq!((world.listener.publishers(), world.stats().links.len(), world.stats().dropped), (1, 2, 0));
        // And the other way round.
        world.links[1].1 = true;
        world.run(3_000);
        world.links[1].1 = false;
        world.finish();
        world.assert_all_came();
        let stats = world.bond.stats();
        assert_eq!((stats.sent, stats.dropped), (u64::from(world.sent), 0));
        assert_eq!(stats.acknowledged, stats.sent, "each counts once");
    }

    #[test]
    fn a_standby_link_takes_over_with_what_was_not_acknowledged_and_gives_back_what_it_took() {
        let mut world = World::new(Bonding::Backup, 3, "one/key", None);
        world.run(4_000);
        let stats = world.stats();
        let received: Vec<u64> = stats.links.iter().map(|link| link.received).collect();
        assert!(
            received[0] > 950 && received[1..] == [0, 0],
            "the others say that they are there and no more: {received:?}"
        );
        let up = |link| (link, LinkNews::Up);
        assert_eq!(world.link_news(), [up(0), up(1), up(2), (0, LinkNews::Carries)]);
        world.links[0].1 = true;
        world.run(200);
        assert_eq!(world.link_news(), [(1, LinkNews::Carries)], "the next by weight");
        world.run(1_500);
        assert_eq!(world.link_news(), [(0, LinkNews::StandsBy)]);
        world.run(4_000);
        assert_eq!(world.link_news(), [(0, DOWN)]);
        world.links[0].1 = false;
        world.run(8_000);
        let told = world.link_news();
        assert_eq!(told[told.len() - 3..], [up(0), (0, LinkNews::Carries), (1, LinkNews::StandsBy)], "{told:?}");
        // A link that carries and its stand-in at once.
        (world.links[0].1, world.links[1].1) = (true, true);
        world.run(600);
        let told = world.link_news();
        assert!(told.starts_with(&[(1, LinkNews::Carries), (2, LinkNews::Carries)]), "{told:?}");
        world.links.iter_mut().for_each(|link| link.1 = false);
        world.finish();
        world.assert_all_came();
        assert_eq!(world.bond.stats().dropped, 0);
    }

    #[test]
    fn what_no_link_could_bring_is_counted_on_both_sides() {
        for bonding in [Bonding::Broadcast, Bonding::Backup] {
            let mut world = World::new(bonding, 2, "one/key", None);
            world.run(2_000);
            world.links.iter_mut().for_each(|link| link.1 = true);
            world.run(3_000);
            world.links.iter_mut().for_each(|link| link.1 = false);
            world.run(3_000);
            let (stats, ours) = (world.stats(), world.bond.stats());
            world.finish();
            assert!(world.got.is_sorted_by(|a, b| a < b), "each once and in order");
            assert_eq!(world.got.len() as u64 + stats.dropped, u64::from(world.sent), "{stats:?}");
            // What went just before the cut may have come, and its acknowledgement not.
            assert!(ours.dropped > 300 && ours.dropped <= stats.dropped + 10, "{ours:?} {stats:?}");
        }
    }

    #[test]
    fn a_bond_ends_with_its_last_link_and_never_begins_where_it_may_not() {
        let refused = PublishEnd::Refused(1401);
        let mut world = World::new(Bonding::Broadcast, 2, "one/wrong", None);
        world.run(8_000);
        let closed = |end| BondEvent::Whole(PublishEvent::Closed(end));
        let down = |link| BondEvent::Link(link, LinkNews::Down { end: refused, again: false });
        assert_eq!(world.news, [down(0), down(1), closed(refused)]);
        assert_eq!((world.bond.deadline(), world.ports), (None, 1_002), "nobody is called again");
        let mut world = World::new(Bonding::Broadcast, 2, "one/key", None);
        world.run(1_000);
        world.listener.close(world.now, world.id.unwrap(), Closing::Stopped);
        world.carry_off();
        world.run(1_000);
        assert_eq!(world.news.last(), Some(&closed(PublishEnd::ClosedByPeer)));
        assert!(!world.bond.send(world.now, b"more"));
    }
}
