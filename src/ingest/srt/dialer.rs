//! Sources that a port calls: channels that receive from an SRT listener. Each is called again and again until it answers,
//! and becomes a publisher with its first media: a source that has nothing to send makes no session and holds no leg. One of
//! a meeting calls us as well.
//!
//! A source is called while its channel's leg is free. Who publishes with the channel's key takes the leg from it as from
//! any publisher; it never takes the leg from a publisher that is heard.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::call::{Agreed, CONNECT_MAX, Call, Saying, Wishes, random_socket};
use super::crypto::{KeyLength, Keys};
use super::filter::Filter;
use super::handshake::Handshake;
use super::inbound::answer_keys;
use super::link::Link;
use super::listener::buffer_packets;
use super::lookup::{Found, Wanted};
use super::meeting::{Meeting, Met};
use super::outbox::Outbox;
use super::packet::{Control, Packet};
use super::place::Place;
use super::port::PortConfig;
use super::pull_url::PullUrl;
use super::seq::Seq;
use crate::ingest::admission::Refusal;
use crate::ingest::door::{Door, Held, INVALID_INPUT_BLOCK};
use crate::ingest::event::{Closing, PullNews, PullState, PullStatus};
use crate::ingest::publish::PublishEnd;
use crate::ingest::source::PublisherId;
use crate::media::channel::ChannelName;
use crate::media::key::Passphrase;
use crate::sys::random;
use crate::time::Mono;

/// Between two calls that came to nothing: doubled each time up to the second, less or more by a fifth.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
/// Before the first call of a source that was on air and fell silent.
const AFTER_LOSS: Duration = Duration::from_millis(250);
/// Between two looks at a leg that another publisher has.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// An address of several that has not answered by then makes way for the next.
const NEXT_ADDRESS: Duration = Duration::from_secs(2);

/// All sources of a port.
pub(super) struct Dialer {
    /// The port's, for channels without one of their own.
    latency: Duration,
    bitrate_max: u64,
    place: Place,
    pulls: BTreeMap<ChannelName, Pull>,
    /// Our sockets of calls and connections, on air or not.
    sockets: HashMap<u32, ChannelName>,
    timers: BinaryHeap<Reverse<(Mono, ChannelName)>>,
    lookups: VecDeque<Wanted>,
    tickets: u64,
    news: VecDeque<PullNews>,
}

struct Pull {
    url: PullUrl,
    state: State,
    /// Calls in a row that brought no media.
    failures: u32,
    /// Its entry in the heap of timers; an earlier one is stale.
    due: Mono,
    told: PullStatus,
}

enum State {
    /// Until `due`.
    Resting,
    LookingUp {
        ticket: u64,
    },
    Calling {
        approach: Approach,
        link: Link,
        /// Addresses that are called after this one.
        others: Vec<SocketAddr>,
    },
    /// Connected, and no media yet.
    Quiet(Box<Quiet>),
    OnAir {
        socket: u32,
        publisher: PublisherId,
    },
}

/// How a source is reached.
enum Approach {
    Call(Box<Call>),
    Meeting(Box<Meeting>),
}

struct Quiet {
    socket: u32,
    link: Link,
    /// What is said to a peer of a meeting that does not know yet that it is over; empty after a call.
    answer: Vec<u8>,
    keys: Option<Keys>,
    first: Seq,
    filter: Option<Filter>,
    latency: Duration,
    version: u32,
}

/// A source that sends media: all that a publisher is made of.
pub(super) struct Arrival {
    pub(super) held: Arc<Held>,
    pub(super) link: Link,
    pub(super) keys: Option<Keys>,
    pub(super) first: Seq,
    pub(super) filter: Option<Filter>,
    pub(super) latency: Duration,
    /// The source's libsrt.
    pub(super) version: u32,
}

/// What came of a call, or of a connection.
struct Failure {
    /// For the metrics.
    outcome: &'static str,
    why: String,
    wait: Wait,
}

enum Wait {
    /// Longer each time.
    Doubling,
    So(Duration),
}

impl Dialer {
    pub(super) fn new(config: &PortConfig, place: Place) -> Dialer {
        Dialer {
            latency: config.latency,
            bitrate_max: config.bitrate_max,
            place,
            pulls: BTreeMap::new(),
            sockets: HashMap::new(),
            timers: BinaryHeap::new(),
            lookups: VecDeque::new(),
            tickets: 0,
            news: VecDeque::new(),
        }
    }

    /// The channel's source from now on; the same once more changes nothing. Whoever is named by the result was on air from
    /// the one before and has to be closed.
    pub(super) fn set(
        &mut self,
        now: Mono,
        channel: &ChannelName,
        url: Option<PullUrl>,
        out: &mut Outbox,
    ) -> Option<PublisherId> {
        if self.pulls.get(channel).map(|pull| &pull.url) == url.as_ref() {
            return None;
        }
        let before = self.pulls.remove(channel).and_then(|pull| self.leave(now, pull.state, out));
        self.news.retain(|news| news.channel != *channel);
        if let Some(url) = url {
            let told = PullStatus { state: PullState::Calling, error: None };
            self.pulls.insert(channel.clone(), Pull { url, state: State::Resting, failures: 0, due: now, told });
            self.timers.push(Reverse((now, channel.clone())));
            self.tell(channel, PullState::Calling, None, None);
        }
        before
    }

    /// Ends what `state` is. Whoever is on air is named.
    fn leave(&mut self, now: Mono, state: State, out: &mut Outbox) -> Option<PublisherId> {
        match state {
            State::Resting | State::LookingUp { .. } => None,
            State::Calling { approach, link, .. } => {
                self.forget(&approach, &link);
                None
            }
            State::Quiet(mut quiet) => {
                quiet.link.send(now, Control::Shutdown, out);
                self.sockets.remove(&quiet.socket);
                None
            }
            State::OnAir { socket, publisher } => {
                self.sockets.remove(&socket);
                Some(publisher)
            }
        }
    }

    /// The call or the meeting is over.
    fn forget(&mut self, approach: &Approach, link: &Link) {
        self.sockets.remove(&approach.socket());
        self.place.met(link.peer, approach.socket());
    }

    /// Nobody is called any more. Publishers on air are the listener's.
    pub(super) fn shutdown(&mut self, now: Mono, out: &mut Outbox) {
        for (_, pull) in std::mem::take(&mut self.pulls) {
            self.leave(now, pull.state, out);
        }
    }

    /// One of ours, so that no other connection may have the number.
    pub(super) fn has(&self, socket: u32) -> bool {
        self.sockets.contains_key(&socket)
    }

    /// Does what is due.
    pub(super) fn run(&mut self, now: Mono, door: &Arc<Door>, out: &mut Outbox) {
        while self.timers.peek().is_some_and(|Reverse((due, _))| *due <= now) {
            let Some(Reverse((due, channel))) = self.timers.pop() else { return };
            if self.pulls.get(&channel).is_some_and(|pull| pull.due == due) {
                self.turn(now, &channel, door, out);
            }
        }
    }

    fn turn(&mut self, now: Mono, channel: &ChannelName, door: &Arc<Door>, out: &mut Outbox) {
        let Some(pull) = self.pulls.get_mut(channel) else { return };
        match &mut pull.state {
            State::Resting => self.begin(now, channel, door),
            State::LookingUp { .. } | State::OnAir { .. } => {}
            State::Calling { approach, link, .. } => match approach.saying().tick(now, link, out) {
                Ok(()) => {
                    let due = approach.saying().deadline();
                    self.wake(channel, due);
                }
                Err(_) => self.unanswered(now, channel, door),
            },
            State::Quiet(quiet) if quiet.link.is_silent(now) => {
                self.failed(now, channel, Failure::lost(SILENT), out);
            }
            State::Quiet(quiet) => {
                quiet.link.keep_alive(now, out);
                let due = quiet.link.deadline().max(Mono(now.0 + 1));
                self.wake(channel, due);
            }
        }
    }

    /// Calls the source if it may come in.
    fn begin(&mut self, now: Mono, channel: &ChannelName, door: &Arc<Door>) {
        if let Err(refusal) = door.ask_source(now, channel) {
            return self.refused(now, channel, &refusal);
        }
        let Some(pull) = self.pulls.get_mut(channel) else { return };
        self.tickets += 1;
        pull.state = State::LookingUp { ticket: self.tickets };
        let (host, port) = (pull.url.url().host.clone(), pull.url.url().port);
        self.lookups.push_back(Wanted { channel: channel.clone(), ticket: self.tickets, host, port });
    }

    /// A host that somebody has to look up; `found` wants to hear of it.
    pub(super) fn poll_lookup(&mut self) -> Option<Wanted> {
        self.lookups.pop_front()
    }

    /// Addresses are those that the port can reach.
    pub(super) fn found(&mut self, now: Mono, found: Found, door: &Arc<Door>, out: &mut Outbox) {
        let Found { channel, ticket, addresses } = found;
        let waits = |pull: &&Pull| matches!(pull.state, State::LookingUp { ticket: latest } if latest == ticket);
        if self.pulls.get(&channel).filter(waits).is_none() {
            return;
        }
        match addresses {
            Ok(addresses) => self.call(now, &channel, addresses, door),
            Err(why) => {
                let why = format!("the host of the address cannot be found: {why}");
                self.failed(now, &channel, Failure { outcome: "no_host", why, wait: Wait::Doubling }, out);
            }
        }
    }

    /// Calls the first of `addresses`, the others after it.
    fn call(&mut self, now: Mono, channel: &ChannelName, addresses: Vec<SocketAddr>, door: &Arc<Door>) {
        let pass = match door.ask_source(now, channel) {
            Ok(pass) => pass,
            Err(refusal) => return self.refused(now, channel, &refusal),
        };
        let mut others = addresses.into_iter();
        let Some(peer) = others.next() else {
            return self.rest(now, channel, Failure::of(PublishEnd::NoAnswer { unreachable: true }, false));
        };
        let Some(pull) = self.pulls.get_mut(channel) else { return };
        let url = pull.url.url();
        let length = KeyLength::from_bytes(url.key_length.into()).unwrap_or(KeyLength::Aes128);
        let secret = url.passphrase.as_ref().and_then(|text| Passphrase::new(text.expose()).ok());
        let latency = url.latency.max(pass.admission.latency.unwrap_or(self.latency));
        let wishes = Wishes {
            stream_id: url.stream_id.expose().clone(),
            latency,
            secret: secret.map(|passphrase| (passphrase, length)),
            filter: url.filter.clone(),
            window: buffer_packets(self.bitrate_max, latency),
            joins: None,
        };
        let others: Vec<SocketAddr> = others.collect();
        let patience = if others.is_empty() { CONNECT_MAX } else { NEXT_ADDRESS };
        let (link, meets) = (Link::new(now, peer, 0), pull.url.is_rendezvous());
        let socket = loop {
            let socket = self.place.mark(random_socket());
            if !self.sockets.contains_key(&socket) {
                break socket;
            }
        };
        if meets && !self.place.meet(peer, socket) {
            let why = "another channel meets the source of that address".to_owned();
            return self.rest(now, channel, Failure { outcome: "held_back", why, wait: Wait::Doubling });
        }
        let approach = match meets {
            true => Approach::Meeting(Box::new(Meeting::new(now, wishes, socket, &link))),
            false => Approach::Call(Box::new(Call::new(now, wishes, socket, patience, &link))),
        };
        self.sockets.insert(socket, channel.clone());
        pull.state = State::Calling { approach, link, others };
        self.wake(channel, now);
    }

    /// The next address, if there is one.
    fn unanswered(&mut self, now: Mono, channel: &ChannelName, door: &Arc<Door>) {
        let Some(pull) = self.pulls.get_mut(channel) else { return };
        let State::Calling { approach, link, others } = std::mem::replace(&mut pull.state, State::Resting) else {
            return;
        };
        self.forget(&approach, &link);
        if others.is_empty() {
            self.rest(now, channel, Failure::of(PublishEnd::NoAnswer { unreachable: false }, false));
        } else {
            self.call(now, channel, others, door);
        }
    }

    /// A packet for one of ours that is not on air. With its first media a source becomes a publisher; that packet is the
    /// publisher's.
    pub(super) fn packet(
        &mut self,
        now: Mono,
        peer: SocketAddr,
        socket: u32,
        packet: &Packet<'_>,
        door: &Arc<Door>,
        out: &mut Outbox,
    ) -> Option<Arrival> {
        let channel = self.sockets.get(&socket)?.clone();
        let pull = self.pulls.get_mut(&channel)?;
        match (&mut pull.state, packet) {
            (State::Calling { approach, link, .. }, Packet::Control(Control::Handshake(body))) if link.peer == peer => {
                let handshake = Handshake::parse(body)?;
                match approach.heard(now, &handshake, link, out) {
                    None => {
                        let due = approach.saying().deadline();
                        self.wake(&channel, due);
                    }
                    Some(Ok((agreed, answer))) => self.agreed(now, &channel, agreed, answer),
                    Some(Err(end)) => {
                        let keyed = approach.wishes().secret.is_some();
                        self.failed(now, &channel, Failure::of(end, keyed), out);
                    }
                }
            }
            (State::Calling { approach: Approach::Meeting(_), link, .. }, Packet::Control(Control::Shutdown))
                if link.peer == peer =>
            {
                let why = "the source broke the meeting off: do both sides have the same passphrase?".to_owned();
                self.failed(now, &channel, Failure { outcome: "refused", why, wait: Wait::Doubling }, out);
            }
            (State::Quiet(quiet), packet) if quiet.link.peer == peer => {
                quiet.link.heard = now;
                match packet {
                    Packet::Data(_) => return self.arrive(now, &channel, door, out),
                    Packet::Control(Control::Shutdown) => self.failed(now, &channel, Failure::lost(FINISHED), out),
                    Packet::Control(Control::KeyRequest(message)) => {
                        answer_keys(now, quiet.keys.as_mut(), message, &mut quiet.link, out);
                    }
                    Packet::Control(Control::Handshake(_)) if !quiet.answer.is_empty() => {
                        quiet.link.send(now, Control::Handshake(&quiet.answer), out);
                    }
                    Packet::Control(_) => {}
                }
            }
            _ => {}
        }
        None
    }

    fn agreed(&mut self, now: Mono, channel: &ChannelName, agreed: Agreed, answer: Vec<u8>) {
        let Some(pull) = self.pulls.get_mut(channel) else { return };
        let State::Calling { approach, mut link, .. } = std::mem::replace(&mut pull.state, State::Resting) else {
            return;
        };
        let (socket, latency) = (approach.socket(), approach.wishes().latency);
        self.place.met(link.peer, socket);
        let latency = latency.max(Duration::from_millis(agreed.options.send_ms.into()));
        (link.socket, link.heard) = (agreed.socket, now);
        let due = link.deadline();
        let (keys, first, filter, version) = (agreed.keys, agreed.peer_first, agreed.filter, agreed.options.version);
        pull.state = State::Quiet(Box::new(Quiet { socket, link, answer, keys, first, filter, latency, version }));
        self.wake(channel, due);
        self.tell(channel, PullState::Connected, None, Some("connected"));
    }

    fn arrive(&mut self, now: Mono, channel: &ChannelName, door: &Arc<Door>, out: &mut Outbox) -> Option<Arrival> {
        let entered = door.ask_source(now, channel).and_then(|pass| door.enter(now, pass));
        let pull = self.pulls.get_mut(channel)?;
        let state = std::mem::replace(&mut pull.state, State::Resting);
        let held = match entered {
            Ok(held) => Arc::new(held),
            Err(refusal) => {
                self.leave(now, state, out);
                self.refused(now, channel, &refusal);
                return None;
            }
        };
        let State::Quiet(quiet) = state else { return None };
        let Quiet { socket, link, keys, first, filter, latency, version, .. } = *quiet;
        pull.state = State::OnAir { socket, publisher: held.publisher };
        pull.failures = 0;
        self.tell(channel, PullState::OnAir, None, Some("on_air"));
        Some(Arrival { held, link, keys, first, filter, latency, version })
    }

    /// The publisher behind `socket` is gone.
    pub(super) fn closed(&mut self, now: Mono, socket: u32, reason: Closing) {
        let Some(channel) = self.sockets.remove(&socket) else { return };
        let Some(pull) = self.pulls.get_mut(&channel) else { return };
        pull.state = State::Resting;
        let (why, wait) = match reason {
            Closing::Replaced => return self.refused(now, &channel, &Refusal::Busy),
            Closing::Silent => (SILENT.to_owned(), Wait::So(AFTER_LOSS)),
            Closing::Finished => (FINISHED.to_owned(), Wait::Doubling),
            Closing::InputInvalid => (reason.to_string(), Wait::So(INVALID_INPUT_BLOCK)),
            Closing::Broken | Closing::Stopped | Closing::Shutdown => (reason.to_string(), Wait::Doubling),
        };
        self.rest(now, &channel, Failure { outcome: "lost", why, wait });
    }

    // ── what comes of it ────────────────────────────────────────────────────────────────────────────────────────────

    /// The box does not want it now.
    fn refused(&mut self, now: Mono, channel: &ChannelName, refusal: &Refusal) {
        if *refusal != Refusal::Busy {
            let why = refusal.to_string();
            return self.rest(now, channel, Failure { outcome: "held_back", why, wait: Wait::Doubling });
        }
        if let Some(pull) = self.pulls.get_mut(channel) {
            pull.state = State::Resting;
        }
        self.wake(channel, now + LOOK_AGAIN);
        self.tell(channel, PullState::Standby, Some(refusal.to_string()), None);
    }

    /// The call or the connection is over.
    fn failed(&mut self, now: Mono, channel: &ChannelName, failure: Failure, out: &mut Outbox) {
        let Some(pull) = self.pulls.get_mut(channel) else { return };
        let state = std::mem::replace(&mut pull.state, State::Resting);
        self.leave(now, state, out);
        self.rest(now, channel, failure);
    }

    fn rest(&mut self, now: Mono, channel: &ChannelName, failure: Failure) {
        let Some(pull) = self.pulls.get_mut(channel) else { return };
        pull.state = State::Resting;
        let wait = match failure.wait {
            Wait::So(span) => span,
            Wait::Doubling => {
                pull.failures = pull.failures.saturating_add(1);
                retry(pull.failures)
            }
        };
        self.wake(channel, now + wait);
        self.tell(channel, PullState::Calling, Some(failure.why), Some(failure.outcome));
    }

    fn wake(&mut self, channel: &ChannelName, due: Mono) {
        if let Some(pull) = self.pulls.get_mut(channel) {
            pull.due = due;
            self.timers.push(Reverse((due, channel.clone())));
        }
    }

    fn tell(&mut self, channel: &ChannelName, state: PullState, error: Option<String>, outcome: Option<&'static str>) {
        let Some(pull) = self.pulls.get_mut(channel) else { return };
        let status = PullStatus { state, error };
        // Of a source that is called for the first time nobody knows yet.
        let changed = status != pull.told || (outcome.is_none() && status.error.is_none());
        pull.told = status.clone();
        self.news.push_back(PullNews { channel: channel.clone(), status, changed, outcome });
    }

    pub(super) fn poll(&mut self) -> Option<PullNews> {
        self.news.pop_front()
    }

    /// When `run` wants to be called at the latest.
    pub(super) fn deadline(&self) -> Option<Mono> {
        self.timers.peek().map(|Reverse((due, _))| *due)
    }
}

impl Approach {
    fn socket(&self) -> u32 {
        match self {
            Approach::Call(call) => call.socket,
            Approach::Meeting(meeting) => meeting.socket,
        }
    }

    fn wishes(&self) -> &Wishes {
        match self {
            Approach::Call(call) => &call.wishes,
            Approach::Meeting(meeting) => &meeting.wishes,
        }
    }

    fn saying(&mut self) -> &mut Saying {
        match self {
            Approach::Call(call) => &mut call.saying,
            Approach::Meeting(meeting) => &mut meeting.saying,
        }
    }

    /// What both sides agreed on, and what is said to a peer that does not know it yet.
    fn heard(
        &mut self,
        now: Mono,
        handshake: &Handshake<'_>,
        link: &mut Link,
        out: &mut Outbox,
    ) -> Option<Result<(Agreed, Vec<u8>), PublishEnd>> {
        Some(match self {
            Approach::Call(call) => call.answered(now, handshake, link)?.map(|agreed| (agreed, Vec::new())),
            Approach::Meeting(meeting) => {
                meeting.heard(now, handshake, link, out)?.map(|Met { agreed, answer }| (agreed, answer))
            }
        })
    }
}

const SILENT: &str = "nothing came from the source for 5 s";
const FINISHED: &str = "the source ended the connection";

impl Failure {
    fn lost(why: &str) -> Failure {
        Failure { outcome: "lost", why: why.to_owned(), wait: Wait::Doubling }
    }

    /// `keyed`: the address has a passphrase.
    fn of(end: PublishEnd, keyed: bool) -> Failure {
        let (outcome, why) = match end {
            PublishEnd::NoAnswer { .. } => ("no_answer", "nobody answers at the address"),
            PublishEnd::Refused(10) => ("passphrase", "the source has another passphrase (10)"),
            PublishEnd::Crypto => ("passphrase", "the source has another passphrase"),
            PublishEnd::Refused(11) if keyed => {
                ("passphrase", "the source has no passphrase, the address has one (11)")
            }
            PublishEnd::Refused(11) => ("passphrase", "the source wants a passphrase: add passphrase=… (11)"),
            PublishEnd::Refused(5) => ("refused", "the source has no room for another receiver (5)"),
            PublishEnd::Refused(12) => ("refused", "the source is not in live mode (12)"),
            PublishEnd::Refused(14) => ("refused", "the packet filters of both sides do not fit (14)"),
            PublishEnd::Refused(1401 | 1403 | 1404) => ("refused", "the source does not take the stream id"),
            PublishEnd::Refused(1409) => ("refused", "somebody else receives from the source (1409)"),
            PublishEnd::Unsupported => ("unsupported", "what answers speaks no SRT of libsrt 1.3 or newer"),
            PublishEnd::Refused(code) => {
                let why = format!("the source refuses with code {code}");
                return Failure { outcome: "refused", why, wait: Wait::Doubling };
            }
            other => return Failure::lost(&other.to_string()),
        };
        Failure { outcome, why: why.to_owned(), wait: Wait::Doubling }
    }
}

/// How long to wait after so many calls that came to nothing.
fn retry(failures: u32) -> Duration {
    let doubled = RETRY.0.saturating_mul(1 << failures.saturating_sub(1).min(8)).min(RETRY.1);
    // Sources of a box that was restarted are not called in step for ever.
    doubled * (80 + (random::bits() % 41) as u32) / 100
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::super::listener::Listener;
    use super::*;
    use crate::ingest::admission::{Roster, RosterEntry};
    use crate::media::channel::Takeover;
    use crate::media::key::KeyDigest;

    const START: Mono = Mono(10_000_000_000);

    fn door() -> Arc<Door> {
        let entry =
            RosterEntry { key: KeyDigest::of("key"), takeover: Takeover::Newest, stopped: false, passphrase: None };
        Door::new(Arc::new(Roster(BTreeMap::from([(news(), entry)]))), 9)
    }

    fn news() -> ChannelName {
        ChannelName::new("news").unwrap()
    }

    /// A dialer whose source is at two addresses where nobody answers.
    struct Silence {
        dialer: Dialer,
        door: Arc<Door>,
        out: Outbox,
        now: Mono,
        /// When each datagram went out, and to which of them.
        sent: Vec<(Duration, u16)>,
    }

    impl Silence {
        fn new() -> Silence {
            let mut dialer = Dialer::new(&PortConfig::default(), Place::alone());
            let mut out = Outbox::default();
            let url = PullUrl::parse("srt://camera:9000").unwrap();
            assert_eq!(dialer.set(START, &news(), Some(url), &mut out), None);
            Silence { dialer, door: door(), out, now: START, sent: Vec::new() }
        }

        fn run(&mut self, until: Duration) {
            let addresses: Vec<SocketAddr> = ["192.0.2.1:1", "192.0.2.1:2"].map(|a| a.parse().unwrap()).to_vec();
            while self.now - START < until {
                self.dialer.run(self.now, &self.door, &mut self.out);
                while let Some(Wanted { channel, ticket, host, port }) = self.dialer.poll_lookup() {
                    assert_eq!((host.as_str(), port), ("camera", 9_000));
                    let found = Found { channel, ticket, addresses: Ok(addresses.clone()) };
                    self.dialer.found(self.now, found, &self.door, &mut self.out);
                }
                self.sent.extend(self.out.iter().map(|(to, ..)| (self.now - START, to.port())));
                self.out.clear();
                let due = self.dialer.deadline().expect("it is called again");
                self.now = due.max(Mono(self.now.0 + 1));
            }
        }
    }

    #[test]
    fn a_source_that_does_not_answer_is_called_at_each_address_and_ever_less_often() {
        let mut silence = Silence::new();
        silence.run(Duration::from_secs(120));
        assert_eq!(silence.sent[..8].iter().filter(|(_, to)| *to == 1).count(), 8, "2 s, each 250 ms");
        let calls: Vec<Duration> =
            silence.sent.windows(2).filter(|w| w[0].1 == 2 && w[1].1 == 1).map(|w| w[1].0).collect();
        let gaps: Vec<f64> = calls.windows(2).map(|w| (w[1] - w[0]).as_secs_f64() - 7.0).collect();
        assert!((5..=9).contains(&gaps.len()), "{gaps:?}");
        for (gap, want) in gaps.iter().zip([2.0, 4.0, 8.0, 10.0, 10.0, 10.0, 10.0, 10.0]) {
            assert!((want * 0.79..=want * 1.21).contains(gap), "{gaps:?}");
        }
        let news: Vec<PullNews> = std::iter::from_fn(|| silence.dialer.poll()).collect();
        assert!(news.iter().filter(|news| news.outcome == Some("no_answer")).count() >= 5, "each is counted");
        assert_eq!(news.iter().filter(|news| news.changed).count(), 2, "once called, once told: {news:?}");
        assert!(silence.dialer.timers.len() < 50, "{} timers", silence.dialer.timers.len());
    }

    #[test]
    fn a_connection_without_media_lasts_and_ends_with_a_goodbye_on_either_side() {
        let place = |text: &str| text.parse::<SocketAddr>().unwrap();
        let (ours, theirs) = (place("192.0.2.1:1"), place("192.0.2.2:2"));
        let mut peer = Listener::new(PortConfig::default(), door(), Place::alone());
        let mut dialer = Dialer::new(&PortConfig::default(), Place::alone());
        let (door, mut out) = (door(), Outbox::default());
        let url = PullUrl::parse("srt://192.0.2.2:2?streamid=news/key").unwrap();
        dialer.set(START, &news(), Some(url), &mut out);
        let taken = |out: &mut Outbox| {
            let all: Vec<BytesMut> = out.iter().map(|(_, head, body)| [head, body].concat()[..].into()).collect();
            out.clear();
            all
        };
        // Both sides in turns each 100 ms; the path takes no time.
        let (mut now, mut last) = (START, None);
        while now < START + Duration::from_secs(20) {
            dialer.run(now, &door, &mut out);
            while let Some(Wanted { channel, ticket, .. }) = dialer.poll_lookup() {
                let found = Found { channel, ticket, addresses: Ok(vec![theirs]) };
                dialer.found(now, found, &door, &mut out);
            }
            taken(&mut out).into_iter().for_each(|datagram| peer.datagram(now, ours, datagram));
            peer.settle(now);
            for datagram in taken(&mut peer.outbox) {
                let (packet, socket) = Packet::parse(&datagram).unwrap();
                assert!(dialer.packet(now, theirs, socket, &packet, &door, &mut out).is_none(), "no media");
            }
            last = dialer.poll().map(|news| news.status).or(last);
            now = now + Duration::from_millis(100);
        }
        let connected = PullStatus { state: PullState::Connected, error: None };
        assert_eq!((last, peer.publishers(), door.publishers()), (Some(connected), 1, 0), "it holds no leg of ours");
        dialer.set(now, &news(), None, &mut out);
        taken(&mut out).into_iter().for_each(|datagram| peer.datagram(now, ours, datagram));
        peer.settle(now);
        assert_eq!((peer.publishers(), dialer.sockets.len()), (0, 0), "it was told goodbye");
    }

    #[test]
    fn a_source_that_is_gone_or_new_is_not_mixed_up_with_the_one_before() {
        let mut silence = Silence::new();
        silence.dialer.run(START, &silence.door, &mut silence.out);
        let old = silence.dialer.poll_lookup().unwrap();
        let other = PullUrl::parse("srt://other:9000").unwrap();
        silence.dialer.set(START, &news(), Some(other.clone()), &mut silence.out);
        silence.dialer.run(START, &silence.door, &mut silence.out);
        assert_eq!(silence.dialer.poll_lookup().unwrap().host, "other");
        let found = Found { channel: news(), ticket: old.ticket, addresses: Ok(vec!["192.0.2.9:9".parse().unwrap()]) };
        silence.dialer.found(START, found, &silence.door, &mut silence.out);
        assert_eq!((silence.out.len(), silence.dialer.sockets.len()), (0, 0), "the old one's address is not called");
        silence.dialer.set(START, &news(), Some(other), &mut silence.out);
        assert!(silence.dialer.poll_lookup().is_none(), "the same once more changes nothing");
        silence.dialer.set(START, &news(), None, &mut silence.out);
        silence.dialer.run(START + Duration::from_secs(60), &silence.door, &mut silence.out);
        assert!(silence.dialer.poll().is_none() && silence.dialer.poll_lookup().is_none());
        assert_eq!(silence.dialer.deadline(), None);
    }

    #[test]
    fn two_channels_do_not_meet_one_source_whichever_port_they_run_on() {
        let peer: SocketAddr = "192.0.2.2:2".parse().unwrap();
        let (door, mut out) = (door(), Outbox::default());
        let mut dialers: Vec<Dialer> = Place::all(2).map(|place| Dialer::new(&PortConfig::default(), place)).collect();
        for dialer in &mut dialers {
            let url = PullUrl::parse("srt://192.0.2.2:2?mode=rendezvous").unwrap();
            dialer.set(START, &news(), Some(url), &mut out);
            dialer.run(START, &door, &mut out);
            let ticket = dialer.poll_lookup().unwrap().ticket;
            dialer.found(START, Found { channel: news(), ticket, addresses: Ok(vec![peer]) }, &door, &mut out);
        }
        let mut told = |at: usize| std::iter::from_fn(|| dialers[at].poll()).last().and_then(|news| news.status.error);
        assert_eq!((told(0), told(1)), (None, Some("another channel meets the source of that address".into())));
        let (first, second) = (&dialers[0], &dialers[1]);
        let socket = first.place.meeting(peer).unwrap();
        assert_eq!((first.place.of_another(socket), second.place.of_another(socket)), (None, Some(0)));
        dialers[0].set(START, &news(), None, &mut out);
        assert_eq!(dialers[1].place.meeting(peer), None, "the source is free again");
    }
}
