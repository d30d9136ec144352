//! All publishers of a port, without its socket: datagrams in, datagrams and events out.
//!
//! A connection is looked at when something came for it or its time has come, never because others have work.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::crypto::Keys;
use super::dialer::{Arrival, Dialer};
use super::greeting::{self, Greeting, Rejection};
use super::group::{GROUP_BIT, Group, MEMBERS_MAX, Membership};
use super::handshake::{Cookies, Handshake, Kind, MAGIC};
use super::inbound::Inbound;
use super::link::Link;
use super::lookup::{Found, Wanted};
use super::outbox::Outbox;
use super::packet::{self, Control, Packet};
use super::place::{Letter, Place};
use super::playout::Playout;
use super::port::PortConfig;
use super::pull_url::PullUrl;
use super::stats;
use super::streamid;
use crate::ingest::admission::Refusal;
use crate::ingest::door::{DENIAL_DELAY, DENIALS_MAX, Door, Held, INVALID_INPUT_BLOCK, Pass};
use crate::ingest::event::{Closing, Connected, Event, Protocol};
use crate::ingest::source::PublisherId;
use crate::ingest::stats::{LinkStats, PublisherStats};
use crate::media::channel::ChannelName;
use crate::sys::random;
use crate::telemetry::Redacted;
use crate::time::Mono;

/// Events that wait for the shard. It drains them after each `run`, which makes far fewer.
const EVENTS_MAX: usize = 32_768;
/// Handshake packets answered per second: a flood costs about 2 % of a core.
const HANDSHAKES_PER_SECOND: u32 = 5_000;
/// Conclusions of one address that are looked at per second, and addresses that are counted apart.
const CONCLUSIONS_PER_SECOND: u32 = 100;
const CONCLUDING_MAX: usize = 4_096;
/// The smallest and the largest receive buffer, packets.
const BUFFER_PACKETS: std::ops::RangeInclusive<u64> = 8_192..=131_072;
/// A packet may wait for up to this much beyond its latency.
const HOLD_BEYOND_LATENCY: Duration = Duration::from_secs(1);

/// Counters of a port since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortCounters {
    /// Datagrams taken from the socket.
    pub datagrams: u64,
    /// Not an SRT packet, or too long for one.
    pub malformed: u64,
    /// For no connection, or from another address than its.
    pub stray: u64,
    /// Handshakes that did not come from the address they claim.
    pub bad_cookie: u64,
    /// Handshakes ignored because there were too many in that second.
    pub rate_limited: u64,
    /// Callers told no.
    pub refused: u64,
    /// Datagrams that the kernel dropped because its receive buffer was full.
    pub kernel_drops: u64,
    /// Datagrams that the kernel did not take from us.
    pub send_drops: u64,
    /// Payloads dropped because nobody took the events.
    pub overflowed: u64,
}

/// A publisher's connection; one of them, if it is in a group.
struct Publisher {
    held: Arc<Held>,
    grouped: bool,
    link: Link,
    inbound: Inbound,
    latency: Duration,
    /// The caller's libsrt.
    version: u32,
    /// The body of our answer to its conclusion, for when it did not arrive; empty for a source that we called.
    answer: Vec<u8>,
    overflowed: u64,
    /// An `Overflow` is on its way.
    overflowing: bool,
    /// It is on the list of those that something came for.
    touched: bool,
    /// It said that it is gone.
    finished: bool,
    /// Its entry in the heap of timers; an earlier one is stale.
    due: Mono,
}

pub(super) struct Listener {
    config: PortConfig,
    cookies: Cookies,
    door: Arc<Door>,
    /// By our socket's number.
    publishers: HashMap<u32, Publisher>,
    by_caller: HashMap<(SocketAddr, u32), u32>,
    /// Of a group, the first.
    by_id: HashMap<PublisherId, u32>,
    groups: HashMap<PublisherId, Group>,
    /// Sources that we call; those on air are publishers.
    dialer: Dialer,
    timers: BinaryHeap<Reverse<(Mono, u32)>>,
    touched: Vec<u32>,
    /// Denied callers whose answer waits, soonest first: when, who, its socket and the answer's body.
    denials: VecDeque<(Mono, SocketAddr, u32, Vec<u8>)>,
    place: Place,
    /// Handshakes for other places.
    letters: VecDeque<(usize, Letter)>,
    pace: Pace,
    events: VecDeque<Event>,
    pub(super) outbox: Outbox,
    counters: PortCounters,
    /// The least latency of all publishers.
    latency_min: Duration,
}

impl Listener {
    pub(super) fn new(config: PortConfig, door: Arc<Door>, place: Place) -> Listener {
        Listener {
            dialer: Dialer::new(&config, place.clone()),
            config,
            cookies: Cookies::new(),
            door,
            publishers: HashMap::new(),
            by_caller: HashMap::new(),
            by_id: HashMap::new(),
            groups: HashMap::new(),
            timers: BinaryHeap::new(),
            touched: Vec::new(),
            denials: VecDeque::new(),
            place,
            letters: VecDeque::new(),
            pace: Pace::default(),
            events: VecDeque::new(),
            outbox: Outbox::default(),
            counters: PortCounters::default(),
            latency_min: Duration::MAX,
        }
    }

    /// One datagram. What it brings is handed over by `settle`.
    pub(super) fn datagram(&mut self, now: Mono, peer: SocketAddr, bytes: BytesMut) {
        self.counters.datagrams += 1;
        let Some((packet, socket)) = Packet::parse(&bytes) else {
            self.counters.malformed += 1;
            return;
        };
        if let Packet::Control(Control::Handshake(body)) = packet
            && !self.dialer.has(socket)
        {
            return self.handshake(now, peer, body, packet::timestamp(&bytes));
        }
        let Some(publisher) = self.publishers.get_mut(&socket).filter(|publisher| publisher.link.peer == peer) else {
            return self.of_source(now, peer, socket, bytes);
        };
        publisher.link.heard = now;
        if !publisher.touched {
            publisher.touched = true;
            self.touched.push(socket);
        }
        match packet {
            Packet::Data(data) => {
                publisher.held.hear(now);
                if publisher.grouped {
                    let group = self.groups.get(&publisher.held.publisher).filter(|_| data.message != 0);
                    if let Some((group, acknowledged)) = group.and_then(|group| Some((group, group.acknowledged()?))) {
                        publisher.inbound.receiver.resume(data.seq, acknowledged, &group.playout);
                    }
                }
                publisher.inbound.packet(now, &data, bytes);
            }
            Packet::Control(Control::Shutdown) => publisher.finished = true,
            Packet::Control(control) => {
                publisher.inbound.control(now, &control, &mut publisher.link, &mut self.outbox);
            }
        }
    }

    /// A datagram for no publisher: perhaps from a source that we call.
    fn of_source(&mut self, now: Mono, peer: SocketAddr, socket: u32, bytes: BytesMut) {
        let Some((packet, _)) = Packet::parse(&bytes).filter(|_| self.dialer.has(socket)) else {
            self.counters.stray += 1;
            return;
        };
        let arrival = self.dialer.packet(now, peer, socket, &packet, &self.door, &mut self.outbox);
        if let (Some(arrival), Packet::Data(data)) = (arrival, packet) {
            let playout = Playout::new(now, data.timestamp, arrival.latency);
            self.admit(now, socket, arrival, playout, None, Vec::new());
            if let Some(publisher) = self.publishers.get_mut(&socket) {
                publisher.inbound.packet(now, &data, bytes);
            }
        }
    }

    /// Hands over what is due, acknowledges, asks, and ends what is silent. Call after the last datagram of a batch.
    pub(super) fn settle(&mut self, now: Mono) {
        while self.denials.front().is_some_and(|(due, ..)| *due <= now) {
            if let Some((_, peer, socket, answer)) = self.denials.pop_front() {
                self.say(peer, socket, &answer);
                self.push_refused(peer, None, Refused::of(&Refusal::Denied));
            }
        }
        let mut touched = std::mem::take(&mut self.touched);
        while let Some(Reverse((due, socket))) = self.timers.peek().copied().filter(|Reverse((due, _))| *due <= now) {
            self.timers.pop();
            if let Some(publisher) = self.publishers.get_mut(&socket).filter(|p| p.due == due && !p.touched) {
                publisher.touched = true;
                touched.push(socket);
            }
        }
        for socket in touched.drain(..) {
            self.serve(now, socket);
        }
        self.touched = touched;
        self.dialer.run(now, &self.door, &mut self.outbox);
    }

    /// One connection's turn.
    fn serve(&mut self, now: Mono, socket: u32) {
        let Some(publisher) = self.publishers.get_mut(&socket) else { return };
        publisher.touched = false;
        if publisher.grouped {
            let id = publisher.held.publisher;
            self.merge(now, id);
        } else {
            // What a sender that said goodbye has sent is handed over at once.
            let until = if publisher.finished { Mono(u64::MAX) } else { now };
            while let Some(payload) = publisher.inbound.poll(until) {
                publisher.hand_over(payload, &mut self.events, &mut self.counters);
            }
            if let Some(why) = publisher.over(now) {
                return self.closed(now, socket, why);
            }
        }
        let Some(publisher) = self.publishers.get_mut(&socket) else { return };
        if publisher.over(now).is_none() {
            publisher.inbound.answer(now, &mut publisher.link, &mut self.outbox);
            publisher.link.keep_alive(now, &mut self.outbox);
        }
        if let Some(group) = self.groups.get_mut(&publisher.held.publisher).filter(|_| publisher.grouped) {
            group.acknowledges(publisher.inbound.receiver.promised());
        }
        let due = match publisher.over(now) {
            None => publisher.inbound.deadline().into_iter().chain([publisher.link.deadline()]).min(),
            // What the rest of its group may lack waits for its time.
            Some(_) => publisher.inbound.receiver.deadline(),
        };
        let due = due.unwrap_or(now).max(Mono(now.0 + 1));
        if publisher.due <= now || due < publisher.due {
            publisher.due = due;
            self.timers.push(Reverse((due, socket)));
        }
    }

    /// Hands over what is due of a group, by the number of its packets, and lets members go that are over.
    fn merge(&mut self, now: Mono, id: PublisherId) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let finished = group.members.iter().all(|m| self.publishers.get(m).is_none_or(|m| m.finished));
        let until = if finished { Mono(u64::MAX) } else { now };
        loop {
            let heads = group.members.iter().filter_map(|socket| {
                let receiver = &self.publishers.get(socket)?.inbound.receiver;
                Some((receiver.head()?, receiver.deadline()?, *socket))
            });
            // The lowest number, when any is due.
            let Some((seq, due, socket)) = heads.reduce(|a, b| {
                let (seq, socket) = if b.0.since(a.0) < 0 { (b.0, b.2) } else { (a.0, a.2) };
                (seq, a.1.min(b.1), socket)
            }) else {
                break;
            };
            let Some(member) = self.publishers.get_mut(&socket).filter(|_| due <= until) else { break };
            let Some(payload) = member.inbound.poll(Mono(u64::MAX)) else { break };
            if group.is_next(seq) {
                group.playout.resume(&member.inbound.receiver.playout);
                member.hand_over(payload, &mut self.events, &mut self.counters);
            }
        }
        let members = || group.members.iter().filter_map(|m| Some((*m, self.publishers.get(m)?)));
        let alone = members().all(|(_, member)| member.over(now).is_some());
        // The others may still lack what waits here.
        let gone = members().filter(|(_, member)| alone || member.inbound.receiver.head().is_none());
        let gone: Vec<_> = gone.filter_map(|(socket, member)| Some((socket, member.over(now)?))).collect();
        gone.into_iter().for_each(|(socket, why)| self.closed(now, socket, why));
    }

    pub(super) fn deadline(&self) -> Option<Mono> {
        let timer = self.timers.peek().map(|Reverse((due, _))| *due);
        let denial = self.denials.front().map(|(due, ..)| *due);
        timer.into_iter().chain(denial).chain(self.dialer.deadline()).min()
    }

    pub(super) fn poll(&mut self) -> Option<Event> {
        self.events.pop_front().or_else(|| self.dialer.poll().map(Event::Pull))
    }

    /// The source that a channel has from now on.
    pub(super) fn pull(&mut self, now: Mono, channel: &ChannelName, url: Option<PullUrl>) {
        if let Some(publisher) = self.dialer.set(now, channel, url, &mut self.outbox) {
            self.close(now, publisher, Closing::Stopped);
        }
        self.dialer.run(now, &self.door, &mut self.outbox);
    }

    /// A host that somebody has to look up; `found` wants to hear of it.
    pub(super) fn poll_lookup(&mut self) -> Option<Wanted> {
        self.dialer.poll_lookup()
    }

    /// A host was looked up: those of its addresses that the socket can reach.
    pub(super) fn found(&mut self, now: Mono, found: Found) {
        self.dialer.found(now, found, &self.door, &mut self.outbox);
        self.dialer.run(now, &self.door, &mut self.outbox);
    }

    pub(super) fn close(&mut self, now: Mono, id: PublisherId, why: Closing) {
        let Some(socket) = self.by_id.get(&id).copied() else { return };
        let all = self.groups.get(&id).map_or_else(|| vec![socket], |group| group.members.clone());
        for socket in all {
            let Some(publisher) = self.publishers.get_mut(&socket) else { continue };
            publisher.link.send(now, Control::Shutdown, &mut self.outbox);
            let (peer, called) = (publisher.link.peer.ip(), self.dialer.has(socket));
            self.closed(now, socket, why);
            // A source that we called waits by itself.
            if why == Closing::InputInvalid && !called {
                self.door.block(now, peer, INVALID_INPUT_BLOCK);
            }
        }
    }

    pub(super) fn shutdown(&mut self, now: Mono) {
        self.dialer.shutdown(now, &mut self.outbox);
        let mut all: Vec<PublisherId> = self.by_id.keys().copied().collect();
        all.sort_unstable();
        for id in all {
            self.close(now, id, Closing::Shutdown);
        }
    }

    pub(super) fn stats(&self, now: Mono, id: PublisherId) -> Option<PublisherStats> {
        let socket = self.by_id.get(&id)?;
        let Some(group) = self.groups.get(&id) else { return self.publishers.get(socket).map(|p| p.stats(now)) };
        Some(group.total(group.members.iter().filter_map(|m| self.publishers.get(m)).map(|m| m.stats(now))))
    }

    pub(super) fn counters(&self) -> PortCounters {
        self.counters
    }

    pub(super) fn door(&self) -> &Arc<Door> {
        &self.door
    }

    pub(super) fn publishers(&self) -> usize {
        self.by_id.len()
    }

    /// The least latency of all publishers; `Duration::MAX` without one.
    pub(super) fn latency_min(&self) -> Duration {
        self.latency_min
    }

    fn handshake(&mut self, now: Mono, peer: SocketAddr, body: &[u8], timestamp: u32) {
        if !self.pace.allows(now) {
            self.counters.rate_limited += 1;
            return;
        }
        let Some(handshake) = Handshake::parse(body) else {
            self.counters.malformed += 1;
            return;
        };
        let letter = |proven| Letter { peer, timestamp, body: body.to_vec(), proven };
        if let Some(socket) = self.meeting(peer, handshake.kind) {
            return self.meet(now, socket, letter(false));
        }
        match handshake.kind {
            Kind::Induction => {
                let cookie = self.cookies.bake(now, peer);
                let new = Handshake::new(Kind::Induction, handshake.socket, cookie, handshake.first, peer.ip());
                let answer = Handshake { extension: MAGIC, ..new };
                self.say_handshake(peer, handshake.socket, &answer);
            }
            Kind::Conclusion if self.cookies.fits(now, peer, handshake.cookie) => {
                match self.place.elsewhere(&handshake.extensions.stream_id) {
                    Some(home) => self.letters.push_back((home, letter(true))),
                    None => self.conclusion(now, peer, &handshake, timestamp),
                }
            }
            Kind::Conclusion => self.counters.bad_cookie += 1,
            _ => self.counters.stray += 1,
        }
    }

    /// The socket of the meeting that a handshake is for, here or on another port.
    fn meeting(&self, peer: SocketAddr, kind: Kind) -> Option<u32> {
        matches!(kind, Kind::WaveAHand | Kind::Conclusion).then(|| self.place.meeting(peer))?
    }

    /// The meeting goes on.
    fn meet(&mut self, now: Mono, socket: u32, letter: Letter) {
        if let Some(home) = self.place.of_another(socket) {
            return self.letters.push_back((home, letter));
        }
        let packet = Packet::Control(Control::Handshake(&letter.body));
        // No media, so that nobody arrives.
        let _nobody = self.dialer.packet(now, letter.peer, socket, &packet, &self.door, &mut self.outbox);
    }

    /// A handshake that another port has passed on.
    pub(super) fn passed_on(&mut self, now: Mono, letter: Letter) {
        let Some(handshake) = Handshake::parse(&letter.body) else { return };
        if letter.proven {
            return self.conclusion(now, letter.peer, &handshake, letter.timestamp);
        }
        match self.meeting(letter.peer, handshake.kind) {
            Some(socket) => self.meet(now, socket, letter),
            // It was over in the meantime.
            None => self.counters.stray += 1,
        }
    }

    /// A handshake for another port, and its place.
    pub(super) fn poll_letter(&mut self) -> Option<(usize, Letter)> {
        self.letters.pop_front()
    }

    /// A caller that has proved its address.
    fn conclusion(&mut self, now: Mono, peer: SocketAddr, handshake: &Handshake<'_>, timestamp: u32) {
        let caller = (peer, handshake.socket);
        if let Some(publisher) = self.by_caller.get(&caller).and_then(|socket| self.publishers.get(socket)) {
            let answer = publisher.answer.clone();
            return self.say(peer, handshake.socket, &answer);
        }
        if self.denials.iter().any(|(_, waits, socket, _)| (*waits, *socket) == caller) {
            return;
        }
        if !self.pace.allows_conclusion(peer.ip()) {
            self.counters.rate_limited += 1;
            return;
        }
        let greeting = match Greeting::read(handshake) {
            Ok(greeting) => greeting,
            Err(rejection) => return self.reject(peer, handshake, None, Refused::by_srt(rejection)),
        };
        let stream_id = &handshake.extensions.stream_id;
        let wanted = match &self.config.only {
            Some(channel) => Ok(streamid::whole(channel, stream_id)),
            None => streamid::parse(stream_id),
        };
        let beside = greeting.group.zip(wanted.as_ref().ok()).and_then(|(member, wanted)| {
            self.groups.iter().find(|(_, group)| group.is_of(member, wanted)).map(|(id, _)| *id)
        });
        let pass = match self.door.ask(now, peer.ip(), wanted, beside) {
            Ok(pass) => pass,
            Err((_, Refusal::Denied)) => return self.deny_later(now, peer, handshake),
            Err((channel, refusal)) => return self.reject(peer, handshake, channel, Refused::of(&refusal)),
        };
        let channel = pass.admission.channel.clone();
        let passphrase = pass.admission.passphrase.as_ref().or(self.config.passphrase.as_ref());
        let keys = match greeting.agree(passphrase) {
            Ok(keys) => keys,
            Err(rejection) => {
                if rejection == Rejection::WrongPassphrase {
                    self.door.failed(now, peer.ip());
                }
                return self.reject(peer, handshake, Some(channel), Refused::by_srt(rejection));
            }
        };
        self.welcome(now, Welcome { peer, handshake, timestamp, greeting, keys, pass, beside });
    }

    fn welcome(&mut self, now: Mono, welcome: Welcome<'_>) {
        let Welcome { peer, handshake, timestamp, mut greeting, keys, pass, beside } = welcome;
        let channel = pass.admission.channel.clone();
        let joins = beside.and_then(|id| self.seat_beside(id));
        let seat = joins.unwrap_or_else(|| self.seat(now, timestamp, &greeting, pass).map_err(|r| Refused::of(&r)));
        let Seat { held, group, latency, playout } = match seat {
            Ok(seat) => seat,
            Err(refused) => return self.reject(peer, handshake, Some(channel), refused),
        };
        let (socket, window) = (self.free_socket(), buffer_packets(self.config.bitrate_max, latency));
        let mut answer = Vec::new();
        let theirs = greeting.group;
        greeting.group = theirs.map(|theirs| theirs.answered(group));
        greeting.answer(handshake, socket, latency, window, peer.ip()).write(&mut answer, true);
        self.say(peer, handshake.socket, &answer);
        self.by_caller.insert((peer, handshake.socket), socket);
        let (link, first) = (Link::new(now, peer, handshake.socket), handshake.first);
        let arrival = Arrival { held, link, keys, first, filter: greeting.filter, latency, version: greeting.version };
        self.admit(now, socket, arrival, playout, theirs.map(|theirs| (theirs, group)), answer);
    }

    /// A connection of a publisher is there, behind `socket`, which is ours. `group`: what it says of the one that it is
    /// in, and that one's number on this side.
    fn admit(
        &mut self,
        now: Mono,
        socket: u32,
        arrival: Arrival,
        playout: Playout,
        group: Option<(Membership, u32)>,
        answer: Vec<u8>,
    ) {
        let Arrival { held, link, keys, first, filter, latency, version } = arrival;
        let window = buffer_packets(self.config.bitrate_max, latency);
        self.latency_min = self.latency_min.min(latency);
        let inbound = Inbound::new(first, window, playout, latency, keys).filtered(filter, first);
        if !self.by_id.contains_key(&held.publisher) {
            if let Some(old) = held.replaces {
                self.close(now, old, Closing::Replaced);
            }
            self.by_id.insert(held.publisher, socket);
            self.events.push_back(Event::Connected(Connected {
                publisher: held.publisher,
                protocol: Protocol::Srt,
                channel: held.channel.clone(),
                leg: held.leg,
                peer: Redacted::new(link.peer),
                latency,
                peer_version: stats::version(version),
                key_bits: inbound.key_bits(),
                replaced: held.replaces,
            }));
        }
        if let Some((theirs, ours)) = group {
            let new = || Group::new(theirs, ours, Arc::clone(&held), first, inbound.receiver.playout.clone());
            self.groups.entry(held.publisher).or_insert_with(new).members.push(socket);
        }
        let publisher = Publisher {
            held,
            grouped: group.is_some(),
            link,
            inbound,
            latency,
            version,
            answer,
            overflowed: 0,
            overflowing: false,
            touched: true,
            finished: false,
            due: Mono(0),
        };
        self.publishers.insert(socket, publisher);
        self.touched.push(socket);
    }

    /// A leg of its own.
    fn seat(&self, now: Mono, timestamp: u32, greeting: &Greeting<'_>, pass: Pass) -> Result<Seat, Refusal> {
        let latency = greeting.latency(pass.admission.latency.unwrap_or(self.config.latency));
        // A publisher at another port may have been quicker.
        let held = self.door.enter(now, pass)?;
        let group = random::bits() as u32 & greeting::SOCKET_MASK | GROUP_BIT;
        Ok(Seat { held: Arc::new(held), group, latency, playout: Playout::new(now, timestamp, latency) })
    }

    /// A place beside the connections that a publisher has, with their latency and their line. `None`: it has none.
    fn seat_beside(&self, id: PublisherId) -> Option<Result<Seat, Refused>> {
        let group = self.groups.get(&id)?;
        let first = self.publishers.get(group.members.first()?)?;
        if group.members.len() >= MEMBERS_MAX {
            return Some(Err(Refused::by_srt(Rejection::Group)));
        }
        let playout = first.inbound.receiver.playout.clone();
        Some(Ok(Seat { held: Arc::clone(&group.held), group: group.ours, latency: first.latency, playout }))
    }

    /// A number that no connection has; it cannot be guessed. It is even: calls of ours have odd ones.
    fn free_socket(&self) -> u32 {
        loop {
            let socket = self.place.mark(random::bits() as u32 & greeting::SOCKET_MASK & !1);
            if socket != 0 && !self.publishers.contains_key(&socket) {
                return socket;
            }
        }
    }

    fn closed(&mut self, now: Mono, socket: u32, reason: Closing) {
        let Some(publisher) = self.publishers.remove(&socket) else { return };
        let id = publisher.held.publisher;
        let mut stats = publisher.stats(now);
        self.by_caller.remove(&(publisher.link.peer, publisher.link.socket));
        self.dialer.closed(now, socket, reason);
        self.latency_min = self.publishers.values().map(|p| p.latency).min().unwrap_or(Duration::MAX);
        if let Some(group) = self.groups.get_mut(&id) {
            group.members.retain(|member| *member != socket);
            if let Some(first) = group.members.first() {
                // The others go on.
                self.by_id.insert(id, *first);
                group.gone = std::mem::take(&mut group.gone).with(stats.counted());
                return;
            }
            stats = group.total(std::iter::once(stats));
            self.groups.remove(&id);
        }
        self.by_id.remove(&id);
        self.events.push_back(Event::Closed { publisher: id, reason, stats });
    }

    /// The same answer at the same time, whatever was wrong.
    fn deny_later(&mut self, now: Mono, peer: SocketAddr, handshake: &Handshake<'_>) {
        if self.denials.len() >= DENIALS_MAX {
            return self.reject(peer, handshake, None, Refused::of(&Refusal::Denied));
        }
        let mut answer = Vec::new();
        greeting::rejection(handshake, Refusal::Denied.code(), peer.ip()).write(&mut answer, true);
        self.denials.push_back((now + DENIAL_DELAY, peer, handshake.socket, answer));
    }

    fn reject(&mut self, peer: SocketAddr, handshake: &Handshake<'_>, channel: Option<ChannelName>, refused: Refused) {
        self.say_handshake(peer, handshake.socket, &greeting::rejection(handshake, refused.code, peer.ip()));
        self.push_refused(peer, channel, refused);
    }

    fn push_refused(&mut self, peer: SocketAddr, channel: Option<ChannelName>, refused: Refused) {
        self.counters.refused += 1;
        if self.events.len() < EVENTS_MAX {
            let Refused { code, why } = refused;
            self.events.push_back(Event::Refused { peer: Redacted::new(peer), channel, code, why });
        }
    }

    fn say_handshake(&mut self, peer: SocketAddr, socket: u32, handshake: &Handshake<'_>) {
        let mut body = Vec::new();
        handshake.write(&mut body, true);
        self.say(peer, socket, &body);
    }

    fn say(&mut self, peer: SocketAddr, socket: u32, body: &[u8]) {
        self.outbox.push(peer, |buffer| Control::Handshake(body).write(buffer, 0, socket));
    }
}

/// A caller that may come in.
struct Welcome<'a> {
    peer: SocketAddr,
    handshake: &'a Handshake<'a>,
    timestamp: u32,
    greeting: Greeting<'a>,
    keys: Option<Keys>,
    pass: Pass,
    /// The publisher that it is another connection of.
    beside: Option<PublisherId>,
}

/// What it gets.
struct Seat {
    held: Arc<Held>,
    /// The number of its group on this side, if it is in one.
    group: u32,
    latency: Duration,
    playout: Playout,
}

impl Publisher {
    /// Why it ends, if it does.
    fn over(&self, now: Mono) -> Option<Closing> {
        if self.finished {
            return Some(Closing::Finished);
        }
        self.link.is_silent(now).then_some(Closing::Silent)
    }

    fn hand_over(&mut self, payload: Bytes, events: &mut VecDeque<Event>, counters: &mut PortCounters) {
        let publisher = self.held.publisher;
        if events.len() < EVENTS_MAX {
            self.overflowing = false;
            return events.push_back(Event::Data { publisher, payload });
        }
        self.overflowed += 1;
        counters.overflowed += 1;
        if !self.overflowing {
            self.overflowing = true;
            events.push_back(Event::Overflow { publisher });
        }
    }

    fn stats(&self, now: Mono) -> PublisherStats {
        let of = stats::of(&self.inbound);
        let link = LinkStats {
            peer: Redacted::new(self.link.peer),
            received: of.received,
            lost: of.lost,
            rtt: of.rtt,
            age: now - self.link.heard,
        };
        PublisherStats {
            links: if self.grouped { vec![link] } else { Vec::new() },
            overflowed: self.overflowed,
            latency: Some(self.latency),
            peer_version: stats::version(self.version),
            key_bits: self.inbound.key_bits(),
            age: Some(now - self.held.heard()),
            ..of
        }
    }
}

struct Refused {
    code: u16,
    why: String,
}

impl Refused {
    fn of(refusal: &Refusal) -> Refused {
        Refused { code: refusal.code(), why: refusal.to_string() }
    }

    fn by_srt(rejection: Rejection) -> Refused {
        Refused { code: rejection.code(), why: rejection.to_string() }
    }
}

/// How many handshakes this second has seen.
#[derive(Default)]
struct Pace {
    since: Mono,
    handshakes: u32,
    conclusions: HashMap<IpAddr, u32>,
}

impl Pace {
    fn allows(&mut self, now: Mono) -> bool {
        if now - self.since >= Duration::from_secs(1) {
            self.since = now;
            self.handshakes = 0;
            self.conclusions.clear();
        }
        self.handshakes += 1;
        self.handshakes <= HANDSHAKES_PER_SECOND
    }

    fn allows_conclusion(&mut self, address: IpAddr) -> bool {
        if self.conclusions.len() >= CONCLUDING_MAX && !self.conclusions.contains_key(&address) {
            return false;
        }
        let seen = self.conclusions.entry(address).or_insert(0);
        *seen += 1;
        *seen <= CONCLUSIONS_PER_SECOND
    }
}

/// Packets that hold `bitrate` for the latency and what may wait beyond it.
pub(super) fn buffer_packets(bitrate: u64, latency: Duration) -> u32 {
    let held = u64::try_from((latency + HOLD_BEYOND_LATENCY).as_millis()).unwrap_or(u64::MAX);
    let packets = (bitrate / 8 / 1_316).saturating_mul(held) / 1_000;
    u32::try_from(packets.clamp(*BUFFER_PACKETS.start(), *BUFFER_PACKETS.end())).unwrap_or(u32::MAX)
}
