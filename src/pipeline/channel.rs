//! One channel over its sessions: who publishes, which session is open, which one lingers.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use bytes::Bytes;

use super::events::Scene;
use super::session::Session;
use super::shard::Setup;
use super::snapshots::{Reply, Snapshot};
use super::status::{ChannelStatus, PublisherStatus, State};
use super::stills::{Order, Owner};
use super::witness::{Fact, NO_PROGRAM, Wake};
use crate::ingest::{Closing, Connected, Leg, PublisherId, PublisherStats};
use crate::media::channel::{Channel, ChannelName, SessionId};
use crate::media::grid::SourceProfile;
use crate::media::limits::LINGER;
use crate::media::plan::Kept;
use crate::package::origin::{ChannelOutput, SessionOutput};
use crate::pixels::protocol::Picture;
use crate::telemetry::names::{Label, Metric, gauge};
use crate::time::{Mono, Now, Wall};

struct Publisher {
    leg: Leg,
    stats: PublisherStats,
    /// What it sent before it had its session; `None`: it has.
    waiting: Option<Vec<Bytes>>,
    waiting_bytes: usize,
}

/// What a publisher may send while control writes down that it came: two seconds of 25 Mb/s. More is lost, and counted
/// by the demuxer as any loss is.
const WAITING_MAX: usize = 6 << 20;

/// What a channel's sessions leave to the next one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Legacy {
    /// What they learnt about the source.
    pub profile: Option<SourceProfile>,
    pub last_msn: Option<u64>,
}

/// A session that goes on after a restart.
#[derive(Debug)]
pub struct Resume {
    pub id: SessionId,
    /// As it was made.
    pub config: Channel,
    /// `None`: it had no grid yet.
    pub kept: Option<Kept>,
    pub last_media: Option<Wall>,
    /// The furthest frame that was given out and when, as far as was written down.
    pub edge: Option<(i64, Wall)>,
}

/// A channel that has a publisher, a session, or one that lingers.
pub struct ChannelRun {
    config: Arc<Channel>,
    setup: Arc<Setup>,
    output: Arc<ChannelOutput>,
    publishers: BTreeMap<PublisherId, Publisher>,
    session: Option<Session>,
    /// An ended session's playlists, and until when they stay.
    linger: Option<(Arc<SessionOutput>, Mono)>,
    legacy: Legacy,
    closes: VecDeque<(PublisherId, Closing)>,
}

impl ChannelRun {
    pub fn new(config: Arc<Channel>, legacy: Legacy, setup: Arc<Setup>) -> ChannelRun {
        let output = setup.origin.declare(&config.name);
        ChannelRun {
            config,
            setup,
            output,
            publishers: BTreeMap::new(),
            session: None,
            linger: None,
            legacy,
            closes: VecDeque::new(),
        }
    }

    pub fn name(&self) -> &ChannelName {
        &self.config.name
    }

    /// What earlier processes learnt.
    pub fn remember(&mut self, legacy: Legacy) {
        self.legacy = legacy;
    }

    /// Another configuration: it holds from the next session on, its logo at once.
    pub fn configure(&mut self, config: Arc<Channel>) {
        if let Some(session) = &mut self.session {
            session.set_logo(config.logo.as_ref());
        }
        self.config = config;
    }

    /// What is left when it is idle.
    pub fn legacy(&self) -> Option<Legacy> {
        let idle = self.session.is_none() && self.linger.is_none() && self.publishers.is_empty();
        idle.then_some(self.legacy)
    }

    /// A publisher waits for its session.
    pub fn connected(&mut self, connected: &Connected) {
        self.scene().connected(connected);
        let (leg, stats) = (connected.leg, PublisherStats::default());
        let publisher = Publisher { leg, stats, waiting: Some(Vec::new()), waiting_bytes: 0 };
        self.publishers.insert(connected.publisher, publisher);
        self.setup.witness.published(&self.config.name, leg, connected.publisher);
    }

    /// A session begins with a publisher.
    pub fn begin(&mut self, now: Now, id: SessionId, wake: Wake, publisher: PublisherId) {
        self.finish_now(now);
        self.session = Some(Session::new(id.clone(), Arc::clone(&self.config), &self.setup, wake, self.legacy, now));
        self.join(now, &id, publisher);
    }

    /// A session of a process that is gone goes on, with a publisher or, by what is `kept` of it, without one.
    pub fn resume(&mut self, now: Now, resume: Resume, wake: Wake) {
        let Resume { id, config, kept, last_media, edge } = resume;
        let was_on_air = kept.as_ref().is_some_and(|kept| kept.inits.is_some());
        let session = Session::new(id, Arc::new(config), &self.setup, wake, self.legacy, now);
        self.session = Some(match kept {
            Some(kept) => session.resume(now, kept, last_media, edge),
            None => session,
        });
        self.output.set_expected(was_on_air);
    }

    /// A publisher feeds the open session.
    pub fn join(&mut self, now: Now, id: &SessionId, publisher: PublisherId) {
        let Some(session) = self.session.as_mut().filter(|s| s.id() == id && !s.is_ending()) else {
            let fact = Fact::Gone("the session is not here any more".to_owned());
            self.closes.push_back((publisher, Closing::Shutdown));
            return self.setup.witness.saw(&self.config.name, id, fact);
        };
        let Some(here) = self.publishers.get_mut(&publisher) else {
            // It left before it had its session.
            let fact = Fact::PublisherClosed { publisher, finished: false, last_media: session.last_media(now) };
            return self.setup.witness.saw(&self.config.name, id, fact);
        };
        session.join(now, publisher, here.leg);
        for payload in here.waiting.take().unwrap_or_default() {
            session.data(now, publisher, &payload);
        }
    }

    pub fn closed(&mut self, now: Now, publisher: PublisherId, why: Closing, stats: &PublisherStats) {
        let Some(gone) = self.publishers.remove(&publisher) else { return };
        self.scene().statistics(gone.leg, &gone.stats, stats);
        self.scene().disconnected(gone.leg, why, stats);
        let Some(session) = self.session.as_mut().filter(|_| gone.waiting.is_none()) else { return };
        session.leave(now, publisher);
        // Whoever took its leg goes on with the session.
        if why == Closing::Replaced {
            return self.facts();
        }
        session.abandoned();
        let (id, finished, last_media) = (session.id().clone(), why == Closing::Finished, session.last_media(now));
        self.facts();
        let fact = Fact::PublisherClosed { publisher, finished, last_media };
        self.setup.witness.saw(&self.config.name, &id, fact);
    }

    pub fn data(&mut self, now: Now, publisher: PublisherId, payload: &Bytes) {
        let Some(here) = self.publishers.get_mut(&publisher) else { return };
        match (&mut here.waiting, &mut self.session) {
            (Some(waiting), _) if here.waiting_bytes + payload.len() <= WAITING_MAX => {
                here.waiting_bytes += payload.len();
                waiting.push(payload.clone());
            }
            (None, Some(session)) => session.data(now, publisher, payload),
            _ => {}
        }
    }

    /// Publishers of a session are sent away.
    pub fn dismiss(&mut self, id: &SessionId, why: Closing) {
        if let Some(session) = self.session.as_mut().filter(|s| s.id() == id) {
            session.reject(NO_PROGRAM);
            self.closes.extend(self.publishers.keys().map(|p| (*p, why)));
        }
    }

    /// The session ends, its publishers go.
    pub fn end(&mut self, now: Now, id: &SessionId, why: &'static str) {
        if let Some(session) = self.session.as_mut().filter(|s| s.id() == id) {
            self.closes.extend(self.publishers.keys().map(|p| (*p, Closing::Stopped)));
            session.finish(now, why);
        }
    }

    /// Session `from` goes on as `to`: same numbers, same media, viewers see nothing. False: it cannot. `publishers`: who
    /// feeds it, as the book has it; what it was told of them under the old name is void.
    pub fn go_on_as(&mut self, now: Now, from: &SessionId, to: &SessionId, publishers: &[PublisherId]) -> bool {
        let on_air = self.session.as_mut().filter(|s| s.id() == from && s.output_on_air().is_some() && !s.is_ending());
        let Some(session) = on_air else { return false };
        session.go_on_as(now, to);
        let last_media = session.last_media(now);
        self.facts();
        for publisher in publishers.iter().filter(|publisher| !self.publishers.contains_key(publisher)) {
            let fact = Fact::PublisherClosed { publisher: *publisher, finished: false, last_media };
            self.setup.witness.saw(&self.config.name, to, fact);
        }
        true
    }

    /// Another session takes over the publishers, behind the end of the one before.
    pub fn roll_over(&mut self, now: Now, from: &SessionId, to: &SessionId, wake: Wake) {
        if self.session.as_ref().is_none_or(|s| s.id() != from) {
            let fact = Fact::Gone("the session before it is not here any more".to_owned());
            return self.setup.witness.saw(&self.config.name, to, fact);
        }
        let publishers: Vec<PublisherId> = self.publishers.keys().copied().collect();
        for publisher in self.publishers.values_mut() {
            publisher.waiting.get_or_insert_default();
        }
        self.finish_now(now);
        self.session = Some(Session::new(to.clone(), Arc::clone(&self.config), &self.setup, wake, self.legacy, now));
        for publisher in publishers {
            self.join(now, to, publisher);
        }
    }

    /// A picture of now.
    pub fn snapshot(&mut self, now: Now, reply: Reply) {
        match &mut self.session {
            Some(session) => session.snapshot(now.mono, reply),
            None => reply.give(Snapshot::NotLive("it has no session".to_owned())),
        }
    }

    /// A picture that is wanted of a passed-through source.
    pub(super) fn still_order(&mut self) -> Option<(Owner, Order)> {
        self.session.as_mut().and_then(Session::still_order)
    }

    pub(super) fn still_owner(&self) -> Option<Owner> {
        self.session.as_ref().filter(|session| !session.is_ending()).and_then(Session::still_owner)
    }

    pub(super) fn stills_made(&mut self, now: Now, owner: &Owner, pictures: Vec<Picture>) {
        if let Some(session) = &mut self.session {
            session.stills_made(now, owner, pictures);
        }
    }

    pub(super) fn stills_left_out(&self, pictures: u64) {
        if let Some(session) = &self.session {
            session.stills_left_out(pictures);
        }
    }

    /// Tells control what happened.
    fn facts(&mut self) {
        if let Some(session) = &mut self.session {
            while let Some(fact) = session.poll() {
                self.setup.witness.saw(&self.config.name, session.id(), fact);
            }
        }
    }

    /// Worker messages, timers, the end of an ending session.
    pub fn run(&mut self, now: Now) {
        let Some(session) = &mut self.session else {
            self.end_linger(now.mono);
            return;
        };
        session.run(now);
        if let Some(output) = session.take_ready() {
            self.linger = None;
            self.output.set_session(Some(output));
            self.output.set_expected(false);
        }
        if let Some(profile) = session.profile() {
            self.legacy.profile = Some(profile);
        }
        if let Some(why) = session.take_dismissal() {
            self.closes.extend(self.publishers.keys().map(|p| (*p, why)));
        }
        let ended = session.is_ended();
        self.facts();
        if ended {
            self.finish_now(now);
        }
        self.end_linger(now.mono);
    }

    /// A publisher that the port should close, and why.
    pub fn poll_close(&mut self) -> Option<(PublisherId, Closing)> {
        self.closes.pop_front()
    }

    pub fn deadline(&self) -> Option<Mono> {
        let linger = self.linger.as_ref().map(|(_, until)| *until);
        let session = self.session.as_ref().and_then(Session::deadline);
        linger.into_iter().chain(session).min()
    }

    pub fn fd(&self) -> Option<(BorrowedFd<'_>, bool)> {
        self.session.as_ref().and_then(Session::fd)
    }

    /// Something is broken in the session: it ends here, the channel and all others go on.
    pub fn abandon(&mut self, now: Now, what: &str) {
        self.scene().panicked(what);
        self.output.set_expected(false);
        self.closes.extend(self.publishers.keys().map(|p| (*p, Closing::InputInvalid)));
        if let Some(session) = self.session.take() {
            self.setup.witness.saw(&self.config.name, session.id(), Fact::Gone(what.to_owned()));
        }
        if let Some(output) = self.output.session() {
            output.end();
            self.linger = Some((output, now.mono + LINGER));
        }
    }

    pub fn publishers(&self) -> Vec<(PublisherId, Leg)> {
        self.publishers.iter().map(|(id, p)| (*id, p.leg)).collect()
    }

    pub fn statistics(&mut self, leg: Leg, stats: PublisherStats) {
        let scene = self.scene();
        if let Some(publisher) = self.publishers.values_mut().find(|p| p.leg == leg) {
            scene.statistics(leg, &publisher.stats, &stats);
            publisher.stats = stats;
        }
    }

    /// Once a second.
    pub fn housekeeping(&mut self, now: Now) {
        let held = self.output.session().map_or(0, |s| s.bytes_held());
        gauge(Metric::WindowBytes, &[Label::Channel(self.name().as_str())], held as f64);
        if let Some(session) = &mut self.session {
            session.housekeeping(now);
        }
    }

    pub fn status(&self, _now: Now) -> ChannelStatus {
        let session = self.session.as_ref().map(|session| {
            let publishers = self.publishers.values();
            let one = |p: &Publisher| PublisherStatus {
                leg: if p.leg == Leg::A { "a" } else { "b" },
                stats: p.stats.clone(),
            };
            session.status(publishers.map(one).collect())
        });
        let lingering = self.linger.as_ref().map(|(output, _)| super::session::ended_status(output));
        ChannelStatus {
            name: self.name().clone(),
            kind: self.config.kind,
            mode: self.config.mode,
            // A session that is draining is neither on air nor lingering yet.
            session: session.clone().filter(|s| s.state != State::Ended).or(lingering).or(session),
        }
    }

    /// The session is over: its numbers are remembered, its playlists linger.
    fn finish_now(&mut self, now: Now) {
        let Some(mut session) = self.session.take() else { return };
        self.output.set_expected(false);
        session.cut_off(now);
        self.legacy.last_msn = session.last_msn().or(self.legacy.last_msn);
        if let Some(output) = session.output_on_air() {
            self.linger = Some((output, now.mono + LINGER));
        }
    }

    fn end_linger(&mut self, now: Mono) {
        if self.linger.as_ref().is_some_and(|(_, until)| now >= *until) {
            self.linger = None;
            self.output.set_session(None);
        }
    }

    fn scene(&self) -> Scene {
        Scene { channel: self.config.name.clone(), session: self.session.as_ref().map(|s| s.id().clone()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, SocketAddr};
    use std::sync::Mutex;
    use std::time::Duration;

    use crate::bitstream::aac::silence;
    use crate::media::channel::ChannelKind;
    use crate::media::grid::{Commit, Record, TimelineLog};
    use crate::media::modes::LatencyMode;
    use crate::mpegts::mux::Muxer;
    use crate::package::origin::Origin;
    use crate::package::window::{Answer, Directives};
    use crate::pipeline::status::InputState;
    use crate::pipeline::witness::Witness;
    use crate::pixels::hall::Hall;
    use crate::telemetry::redact::Redacted;
    use crate::time::Wall;

    /// What control is told, and would decide about.
    #[derive(Default)]
    struct Told(Mutex<Vec<Fact>>, Arc<Mutex<Vec<Record>>>);

    /// Keeps what is committed when its process is gone.
    struct Log(Arc<Mutex<Vec<Record>>>);

    impl TimelineLog for Log {
        fn commit(&mut self, _: &SessionId, record: Record) -> Result<Commit, String> {
            self.0.lock().unwrap().push(record);
            Ok(Commit::Done)
        }

        fn poll(&mut self) -> Option<(Record, Result<(), String>)> {
            None
        }
    }

    impl Witness for Told {
        fn published(&self, _: &ChannelName, _: Leg, _: PublisherId) {}

        fn saw(&self, _: &ChannelName, _: &SessionId, fact: Fact) {
            if !matches!(fact, Fact::Media(_)) {
                self.0.lock().unwrap().push(fact);
            }
        }

        fn log(&self, _: Wake) -> Box<dyn TimelineLog> {
            Box::new(Log(Arc::clone(&self.1)))
        }
    }

    /// A channel that passes sound through, on a clock that moves when told to.
    struct Scenery {
        channel: ChannelRun,
        told: Arc<Told>,
        session: SessionId,
        origin: Arc<Origin>,
        now: Now,
        publisher: Option<PublisherId>,
        muxer: Muxer,
        /// When the present publisher came, and its frames so far.
        began: Mono,
        frames: i64,
        closed: Vec<Closing>,
    }

    impl Scenery {
        fn new() -> Scenery {
            let (origin, told) = (Arc::new(Origin::default()), Arc::new(Told::default()));
            let witness = Arc::clone(&told) as Arc<dyn Witness>;
            let (hall, devices) = (Hall::new("none".into()), Arc::default());
            let backend = crate::media::channel::BackendPolicy::Software;
            let gpus = crate::pipeline::gpus::Gpus::default();
            let look_for_gpus: Arc<dyn Fn(Mono) + Send + Sync> = Arc::new(|_| ());
            let setup = Setup { origin: Arc::clone(&origin), hall, devices, gpus, look_for_gpus, backend, witness };
            let setup = Arc::new(setup);
            let config = Channel::new(ChannelName::new("c").unwrap(), ChannelKind::Transmux, LatencyMode::Ultra);
            let now = Now { mono: Mono(50_000_000_000), wall: Wall(1_700_000_000_000_000_000) };
            let channel = ChannelRun::new(Arc::new(config), Legacy::default(), setup);
            let muxer = Muxer::new(false, true);
            let session = SessionId::new(ulid::Ulid::from_parts(1, 1));
            let (began, closed) = (now.mono, Vec::new());
            Scenery { channel, told, session, origin, now, publisher: None, muxer, began, frames: 0, closed }
        }

        /// The first one begins a session, as control says.
        fn begin(&mut self, session: u128) {
            self.session = SessionId::new(ulid::Ulid::from_parts(1, session));
            let publisher = self.connected();
            self.channel.begin(self.now, self.session.clone(), Arc::new(|| {}), publisher);
        }

        fn rejoin(&mut self) {
            let publisher = self.connected();
            self.channel.join(self.now, &self.session, publisher);
        }

        fn facts(&self) -> Vec<Fact> {
            std::mem::take(&mut *self.told.0.lock().unwrap())
        }

        fn connected(&mut self) -> PublisherId {
            let publisher = PublisherId(self.publisher_count());
            self.publisher = Some(publisher);
            (self.muxer, self.began, self.frames) = (Muxer::new(false, true), self.now.mono, 0);
            let connected = Connected {
                protocol: crate::ingest::Protocol::Srt,
                publisher,
                channel: self.channel.name().clone(),
                leg: Leg::A,
                peer: Redacted::from(SocketAddr::from((Ipv4Addr::LOCALHOST, 1))),
                latency: Duration::from_millis(120),
                peer_version: None,
                key_bits: 0,
                replaced: None,
            };
            self.channel.connected(&connected);
            publisher
        }

        fn publisher_count(&self) -> u64 {
            self.now.mono.0
        }

        fn close(&mut self, why: Closing) {
            let publisher = self.publisher.take().expect("connected");
            self.channel.closed(self.now, publisher, why, &PublisherStats::default());
        }

        /// Time passes by the channel's own deadlines; a publisher that `sends` does so in real time.
        fn pass(&mut self, seconds: f64, sends: bool) {
            let end = self.now.mono + Duration::from_secs_f64(seconds);
            while self.now.mono < end {
                self.tick(Duration::from_millis(5));
                if sends {
                    self.send();
                }
                self.channel.run(self.now);
                while let Some((publisher, why)) = self.channel.poll_close() {
                    assert_eq!(Some(publisher), self.publisher);
                    self.closed.push(why);
                    self.close(why);
                }
                let due = self.channel.deadline();
                assert!(due.is_none_or(|due| due + Duration::from_millis(50) > self.now.mono), "a deadline is stuck");
            }
        }

        /// What the publisher's clock has come to, in a stream that always starts at the same PTS.
        fn send(&mut self) {
            let Some(publisher) = self.publisher else { return };
            let due = i64::try_from((self.now.mono - self.began).as_micros()).unwrap() * 48 / 1_000;
            let frame = silence::frame(2).expect("known");
            let size = u32::try_from(frame.len() + 7).unwrap();
            let mut adts = vec![0xff, 0xf1, 0x4c];
            adts.extend((2u32 << 30 | size << 13 | 0x7ff << 2).to_be_bytes());
            adts.extend(frame);
            let mut bytes = Vec::new();
            while self.frames * 1_024 <= due {
                self.muxer.audio(90_000 + self.frames * 1_920, &adts, &mut bytes);
                self.frames += 1;
            }
            if !bytes.is_empty() {
                self.channel.data(self.now, publisher, &bytes.into());
            }
        }

        fn status(&self) -> crate::pipeline::status::SessionStatus {
            self.channel.status(self.now).session.expect("a session, or one that lingers")
        }

        fn is(&self, state: State, input: InputState) -> bool {
            (self.status().state, self.status().input) == (state, input)
        }

        fn playlist(&self) -> String {
            let session = self.origin.channel("c").unwrap().session().expect("on air");
            let rendition = session.rendition("a-und-1").expect("sound");
            match rendition.playlist(self.now.mono, self.now.mono, &Directives::default()) {
                Answer::Now(text) => String::from_utf8(text.plain.to_vec()).unwrap(),
                other => panic!("{other:?}"),
            }
        }

        fn tick(&mut self, by: Duration) {
            let by = i64::try_from(by.as_nanos()).unwrap();
            self.now.mono = Mono(self.now.mono.0 + by.cast_unsigned());
            self.now.wall = Wall(self.now.wall.0 + by);
        }
    }

    #[test]
    fn a_publisher_that_comes_back_goes_on_with_its_session() {
        let mut scenery = Scenery::new();
        scenery.begin(1);
        scenery.pass(5.0, true);
        assert!(scenery.is(State::Live, InputState::Connected), "{:?}", scenery.status());
        assert_eq!(scenery.facts(), [Fact::FirstMedia, Fact::Processing, Fact::Playable]);
        for _ in 0..3 {
            scenery.close(Closing::Finished);
            assert!(scenery.is(State::Live, InputState::Reconnecting), "at once");
            scenery.pass(9.5, false);
            assert!(scenery.is(State::Live, InputState::Reconnecting));
            assert!(matches!(scenery.facts()[..], [Fact::PublisherClosed { finished: true, .. }]));
            scenery.rejoin();
            scenery.pass(3.0, true);
            assert!(scenery.is(State::Live, InputState::Connected));
            assert_eq!(scenery.facts(), [Fact::InputRestored]);
        }
        let text = scenery.playlist();
        assert!(!text.contains("GAP") && !text.contains("DISCONTINUITY\n") && !text.contains("ENDLIST"), "{text}");
        // 5 + 3 x 12.5 s of segments of two: nothing was left out, nothing came twice.
        let last = text.lines().rfind(|l| l.contains("/s")).and_then(|l| l.rsplit_once("/s")).unwrap().1;
        let last: u64 = last.trim_end_matches(".m4s").parse().unwrap();
        assert!((19..=20).contains(&(last - 1_700_000_000)), "{last}");
    }

    #[test]
    fn a_session_ends_when_it_is_told_to_and_the_next_one_has_other_numbers() {
        let mut scenery = Scenery::new();
        scenery.begin(1);
        scenery.pass(5.0, true);
        let (id, session) = (scenery.status().id, scenery.session.clone());
        scenery.channel.end(scenery.now, &SessionId::new(ulid::Ulid::from_parts(9, 9)), "user_stop");
        assert!(scenery.is(State::Live, InputState::Connected), "another session's end is not this one's");
        scenery.channel.end(scenery.now, &session, "user_stop");
        scenery.pass(0.1, true);
        assert!(scenery.is(State::Ended, InputState::Connected) && scenery.playlist().contains("ENDLIST"));
        assert_eq!(scenery.closed, [Closing::Stopped]);
        scenery.begin(2);
        scenery.pass(3.0, true);
        assert!(scenery.is(State::Live, InputState::Connected) && scenery.status().id != id);
    }

    #[test]
    fn a_session_goes_on_in_another_process_with_its_numbers() {
        let mut first = Scenery::new();
        first.begin(1);
        first.pass(20.0, true);
        let number = |text: &str| -> u64 {
            let last = text.lines().rfind(|l| l.contains("/s")).and_then(|l| l.rsplit_once("/s")).expect("a segment").1;
            last.trim_end_matches(".m4s").parse().expect("a number")
        };
        let last = number(&first.playlist());
        let mut next = Scenery::new();
        // Down for three seconds, and another clock.
        next.now.wall = Wall(first.now.wall.0 + 3_000_000_000);
        let records = first.told.1.lock().unwrap().clone();
        let resume = Resume {
            id: first.session.clone(),
            config: Channel::clone(&next.channel.config),
            kept: Kept::of(records),
            last_media: Some(first.now.wall),
            edge: Some((495, Wall(first.now.wall.0 - 500_000_000))),
        };
        next.session = first.session.clone();
        next.channel.resume(next.now, resume, Arc::new(|| {}));
        next.pass(5.0, false);
        let text = next.playlist();
        assert!(text.contains("#EXT-X-GAP") && !text.contains("DISCONTINUITY\n"), "{text}");
        assert!(
            next.is(State::Live, InputState::Reconnecting),
            "silence is what there is to hear: {:?}",
            next.status()
        );
        next.rejoin();
        next.pass(6.0, true);
        assert!(next.is(State::Live, InputState::Connected));
        assert_eq!(next.facts(), [Fact::Playable, Fact::InputRestored]);
        let text = next.playlist();
        // 14 seconds later by the wall.
        assert!((6..=8).contains(&(number(&text) - last)), "{last}, then {text}");
        assert!(!text.contains("DISCONTINUITY\n") && text.contains("init-0.mp4"), "{text}");
    }

    #[test]
    fn a_session_may_go_on_under_another_name_and_viewers_see_nothing() {
        let mut scenery = Scenery::new();
        scenery.begin(1);
        scenery.pass(5.0, true);
        let (old, new) = (scenery.session.clone(), SessionId::new(ulid::Ulid::from_parts(2, 2)));
        scenery.facts();
        let here = [scenery.publisher.expect("connected")];
        assert!(!scenery.channel.go_on_as(scenery.now, &new, &old, &here), "only the one on air");
        assert!(scenery.channel.go_on_as(scenery.now, &old, &new, &here));
        scenery.pass(4.0, true);
        assert_eq!(scenery.facts(), [Fact::FirstMedia, Fact::Processing, Fact::Playable], "all that is true of it");
        assert_eq!(scenery.status().id, new.to_string());
        let text = scenery.playlist();
        assert!(!text.contains("ENDLIST") && !text.contains("DISCONTINUITY\n") && !text.contains("GAP"), "{text}");
        assert!(text.contains(old.as_str()) && !text.contains(new.as_str()), "addresses stay: {text}");
        // What is lost then is lost for the new one.
        scenery.session = new;
        scenery.close(Closing::Finished);
        assert!(matches!(scenery.facts()[..], [Fact::PublisherClosed { .. }]));
        let newest = SessionId::new(ulid::Ulid::from_parts(3, 3));
        assert!(scenery.channel.go_on_as(scenery.now, &scenery.session.clone(), &newest, &here));
        let facts = scenery.facts();
        let gone = |fact: &Fact| matches!(fact, Fact::PublisherClosed { publisher, .. } if *publisher == here[0]);
        assert!(matches!(facts[..], [.., Fact::Playable, Fact::InputLost { .. }, _]) && gone(facts.last().unwrap()));
    }

    #[test]
    fn silence_is_a_loss_after_two_seconds_and_closes_the_publisher_after_five() {
        let mut scenery = Scenery::new();
        scenery.begin(1);
        scenery.pass(5.0, true);
        scenery.facts();
        scenery.pass(1.9, false);
        assert!(scenery.is(State::Live, InputState::Connected));
        scenery.pass(0.2, false);
        assert!(scenery.is(State::Live, InputState::Reconnecting));
        assert!(matches!(scenery.facts()[..], [Fact::InputLost { .. }]));
        scenery.pass(2.7, false);
        assert!(scenery.closed.is_empty());
        scenery.pass(0.3, false);
        assert_eq!(scenery.closed, [Closing::Silent]);
        // A newcomer has five seconds of its own.
        scenery.rejoin();
        scenery.pass(4.8, false);
        assert_eq!(scenery.closed, [Closing::Silent]);
        scenery.pass(0.3, false);
        assert_eq!(scenery.closed, [Closing::Silent, Closing::Silent]);
        assert!(scenery.is(State::Live, InputState::Reconnecting));
    }

    #[test]
    fn what_a_publisher_sends_before_it_has_its_session_is_not_lost() {
        let mut scenery = Scenery::new();
        let publisher = scenery.connected();
        scenery.pass(1.0, true);
        assert!(scenery.channel.status(scenery.now).session.is_none() && scenery.facts().is_empty());
        scenery.channel.begin(scenery.now, scenery.session.clone(), Arc::new(|| {}), publisher);
        scenery.pass(3.0, true);
        assert!(scenery.is(State::Live, InputState::Connected));
        let frames = usize::try_from(scenery.frames).unwrap();
        let durations = scenery
            .playlist()
            .lines()
            .filter_map(|l| l.strip_prefix("#EXTINF:")?.split(',').next()?.parse::<f64>().ok())
            .sum::<f64>();
        assert!(durations >= 2.0 && frames >= 180, "{durations} s of {frames} frames");
    }

    #[test]
    fn a_publisher_that_left_before_it_had_its_session_is_told_of() {
        let mut scenery = Scenery::new();
        let publisher = scenery.connected();
        scenery.close(Closing::Finished);
        assert!(scenery.facts().is_empty());
        scenery.channel.begin(scenery.now, scenery.session.clone(), Arc::new(|| {}), publisher);
        assert!(matches!(scenery.facts()[..], [Fact::PublisherClosed { publisher: p, .. }] if p == publisher));
    }

    #[test]
    fn a_takeover_is_no_loss() {
        let mut scenery = Scenery::new();
        scenery.begin(1);
        scenery.pass(4.0, true);
        scenery.facts();
        scenery.close(Closing::Replaced);
        assert!(scenery.is(State::Live, InputState::Connected));
        scenery.rejoin();
        scenery.pass(0.5, true);
        assert!(scenery.is(State::Live, InputState::Connected) && scenery.facts().is_empty());
        // A successor that never says a word is one.
        scenery.close(Closing::Replaced);
        scenery.rejoin();
        scenery.pass(2.1, false);
        assert!(scenery.is(State::Live, InputState::Reconnecting));
    }

    #[test]
    fn a_session_that_is_gone_is_said_to_be() {
        let mut scenery = Scenery::new();
        scenery.rejoin();
        assert!(matches!(scenery.facts()[..], [Fact::Gone(_)]));
    }
}
