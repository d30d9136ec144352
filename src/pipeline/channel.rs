//! One channel over its sessions: who publishes, which session is open, which one lingers.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use super::events::Scene;
use super::session::{Ending, Event, Session};
use super::shard::Setup;
use super::status::{ChannelStatus, PublisherStatus, State};
use crate::ingest::source::{Leg, PublisherId};
use crate::ingest::srt::{Closing, Connected, PublisherStats};
use crate::media::channel::{Channel, ChannelName};
use crate::media::grid::SourceProfile;
use crate::media::limits::LINGER;
use crate::package::origin::{ChannelOutput, SessionOutput};
use crate::telemetry::names::{Label, Metric, gauge};
use crate::time::{Mono, Now};

struct Publisher {
    leg: Leg,
    stats: PublisherStats,
}

/// A configured channel at run time.
pub struct ChannelRun {
    config: Arc<Channel>,
    setup: Arc<Setup>,
    output: Arc<ChannelOutput>,
    publishers: BTreeMap<PublisherId, Publisher>,
    session: Option<Session>,
    /// An ended session's playlists, and until when they stay.
    linger: Option<(Arc<SessionOutput>, Mono)>,
    /// What earlier sessions learnt about the source.
    profile: Option<SourceProfile>,
    last_msn: Option<u64>,
    closes: VecDeque<(PublisherId, Closing)>,
}

impl ChannelRun {
    pub fn new(config: Channel, setup: Arc<Setup>, _now: Now) -> ChannelRun {
        let output = setup.origin.declare(&config.name);
        ChannelRun {
            config: Arc::new(config),
            setup,
            output,
            publishers: BTreeMap::new(),
            session: None,
            linger: None,
            profile: None,
            last_msn: None,
            closes: VecDeque::new(),
        }
    }

    pub fn name(&self) -> &ChannelName {
        &self.config.name
    }

    /// The first publisher makes a session, a second leg joins it.
    pub fn connected(&mut self, now: Now, connected: &Connected) {
        self.scene().connected(connected);
        let publisher = Publisher { leg: connected.leg, stats: PublisherStats::default() };
        self.publishers.insert(connected.publisher, publisher);
        if self.session.as_ref().is_none_or(Session::is_ending) {
            self.finish_now(now);
            let config = Arc::clone(&self.config);
            let session = Session::new(config, Arc::clone(&self.setup), self.profile, self.last_msn, now);
            self.session = Some(session);
        }
        if let Some(session) = &mut self.session {
            session.join(now, connected.publisher, connected.leg);
        }
    }

    pub fn closed(&mut self, now: Now, publisher: PublisherId, why: Closing, stats: &PublisherStats) {
        let Some(gone) = self.publishers.remove(&publisher) else { return };
        self.scene().statistics(gone.leg, &gone.stats, stats);
        self.scene().disconnected(gone.leg, why, stats);
        let alone = self.publishers.is_empty();
        if let Some(session) = &mut self.session {
            session.leave(now, publisher);
            match why {
                _ if !alone => {}
                // Whoever took its leg connects next, and goes on with the session.
                Closing::Replaced => {}
                Closing::Shutdown => session.finish(now, Ending::Shutdown),
                Closing::Finished if self.config.end_on_eos => session.finish(now, Ending::Eos),
                _ => session.abandoned(now),
            }
        }
    }

    pub fn data(&mut self, now: Now, publisher: PublisherId, payload: &[u8]) {
        if let Some(session) = &mut self.session {
            session.data(now, publisher, payload);
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
        }
        if let Some(profile) = session.profile() {
            self.profile = Some(profile);
        }
        if let Some(why) = session.take_refusal() {
            self.closes.extend(self.publishers.keys().map(|p| (*p, why)));
        }
        let mut events = Vec::new();
        while let Some(event) = session.poll() {
            events.push(event);
        }
        for event in events {
            self.scene().session(event);
            if let Event::Ended { .. } = event {
                self.finish_now(now);
            }
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

    /// A planned stop of the daemon.
    pub fn shutdown(&mut self, now: Now) {
        if let Some(session) = &mut self.session {
            session.finish(now, Ending::Shutdown);
        }
    }

    pub fn is_draining(&self) -> bool {
        self.session.is_some()
    }

    /// Something is broken in the session: it ends here, the channel and all others go on.
    pub fn abandon(&mut self, now: Now, what: &str) {
        self.scene().panicked(what);
        self.closes.extend(self.publishers.keys().map(|p| (*p, Closing::InputInvalid)));
        self.session = None;
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
        session.cut_off(now);
        self.last_msn = session.last_msn().or(self.last_msn);
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
    use std::path::PathBuf;
    use std::time::Duration;

    use crate::bitstream::aac::silence;
    use crate::media::channel::{ChannelKind, Slate, Takeover};
    use crate::media::modes::LatencyMode;
    use crate::mpegts::mux::Muxer;
    use crate::package::origin::Origin;
    use crate::package::window::{Answer, Directives};
    use crate::pipeline::status::InputState;
    use crate::telemetry::redact::Redacted;
    use crate::time::Wall;

    /// A channel that passes sound through, on a clock that moves when told to.
    struct Scenery {
        channel: ChannelRun,
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
        fn new(window_s: u64, end_on_eos: bool) -> Scenery {
            let origin = Arc::new(Origin::default());
            let setup = Arc::new(Setup { origin: Arc::clone(&origin), worker: PathBuf::from("none") });
            let config = Channel {
                name: ChannelName::new("c").unwrap(),
                kind: ChannelKind::Transmux,
                mode: LatencyMode::Ultra,
                ladder: None,
                hold_back_ms: None,
                takeover: Takeover::IfSilent,
                reconnect_window: Duration::from_secs(window_s),
                end_on_eos,
                slate: Slate::Black,
                preset: None,
            };
            let now = Now { mono: Mono(50_000_000_000), wall: Wall(1_700_000_000_000_000_000) };
            let channel = ChannelRun::new(config, setup, now);
            let muxer = Muxer::new(false, true);
            Scenery { channel, origin, now, publisher: None, muxer, began: now.mono, frames: 0, closed: Vec::new() }
        }

        fn connect(&mut self) {
            let publisher = PublisherId::next();
            self.publisher = Some(publisher);
            (self.muxer, self.began, self.frames) = (Muxer::new(false, true), self.now.mono, 0);
            let connected = Connected {
                publisher,
                channel: self.channel.name().clone(),
                leg: Leg::A,
                peer: Redacted::from(SocketAddr::from((Ipv4Addr::LOCALHOST, 1))),
                latency: Duration::from_millis(120),
                peer_version: None,
                key_bits: 0,
                replaced: None,
            };
            self.channel.connected(self.now, &connected);
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
                self.channel.data(self.now, publisher, &bytes);
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
    fn a_publisher_that_comes_back_within_the_window_goes_on_with_its_session() {
        let mut scenery = Scenery::new(10, false);
        scenery.connect();
        scenery.pass(5.0, true);
        assert!(scenery.is(State::Live, InputState::Connected), "{:?}", scenery.status());
        let id = scenery.status().id;
        for _ in 0..3 {
            scenery.close(Closing::Finished);
            assert!(scenery.is(State::Live, InputState::Reconnecting), "at once");
            scenery.pass(9.5, false);
            assert!(scenery.is(State::Live, InputState::Reconnecting));
            scenery.connect();
            scenery.pass(3.0, true);
            assert!(scenery.is(State::Live, InputState::Connected));
        }
        assert_eq!(scenery.status().id, id);
        let text = scenery.playlist();
        assert!(!text.contains("GAP") && !text.contains("DISCONTINUITY\n") && !text.contains("ENDLIST"), "{text}");
        // 5 + 3 x 12.5 s of segments of two: nothing was left out, nothing came twice.
        let last = text.lines().rfind(|l| l.contains("/s")).and_then(|l| l.rsplit_once("/s")).unwrap().1;
        let last: u64 = last.trim_end_matches(".m4s").parse().unwrap();
        assert!((19..=20).contains(&(last - 1_700_000_000)), "{last}");
    }

    #[test]
    fn the_window_s_end_ends_the_session_and_the_next_publisher_makes_another() {
        let mut scenery = Scenery::new(10, false);
        scenery.connect();
        scenery.pass(5.0, true);
        let id = scenery.status().id;
        scenery.close(Closing::Finished);
        scenery.pass(9.9, false);
        assert!(!scenery.playlist().contains("ENDLIST"));
        scenery.pass(0.2, false);
        assert!(scenery.is(State::Ended, InputState::Connected) && scenery.playlist().contains("ENDLIST"));
        scenery.connect();
        scenery.pass(3.0, true);
        assert!(scenery.is(State::Live, InputState::Connected) && scenery.status().id != id);
    }

    #[test]
    fn silence_is_a_loss_after_two_seconds_and_closes_the_publisher_after_five() {
        let mut scenery = Scenery::new(10, false);
        scenery.connect();
        scenery.pass(5.0, true);
        scenery.pass(1.9, false);
        assert!(scenery.is(State::Live, InputState::Connected));
        scenery.pass(0.2, false);
        assert!(scenery.is(State::Live, InputState::Reconnecting));
        scenery.pass(2.7, false);
        assert!(scenery.closed.is_empty());
        scenery.pass(0.3, false);
        assert_eq!(scenery.closed, [Closing::Silent]);
        // A newcomer has five seconds of its own; the window began with the loss, not with the close.
        scenery.connect();
        scenery.pass(4.8, false);
        assert_eq!(scenery.closed, [Closing::Silent]);
        scenery.pass(2.0, false);
        assert_eq!(scenery.closed, [Closing::Silent, Closing::Silent]);
        assert!(scenery.is(State::Live, InputState::Reconnecting));
        scenery.pass(0.3, false);
        assert!(scenery.is(State::Ended, InputState::Connected));
    }

    #[test]
    fn a_clean_close_ends_at_once_where_the_channel_says_so_or_nothing_is_waited_for() {
        for (window, end_on_eos, why, ends) in [
            (10, true, Closing::Finished, true),
            (10, true, Closing::Silent, false),
            (10, false, Closing::Finished, false),
            (0, false, Closing::Finished, true),
            (0, false, Closing::Silent, true),
        ] {
            let mut scenery = Scenery::new(window, end_on_eos);
            scenery.connect();
            scenery.pass(4.0, true);
            scenery.close(why);
            scenery.pass(0.01, false);
            let what = format!("{window} s, {end_on_eos}, {why:?}");
            assert_eq!(scenery.is(State::Ended, InputState::Connected), ends, "{what}");
            assert_eq!(scenery.playlist().contains("ENDLIST"), ends, "{what}");
        }
    }

    #[test]
    fn a_takeover_is_no_loss() {
        let mut scenery = Scenery::new(10, true);
        scenery.connect();
        scenery.pass(4.0, true);
        scenery.close(Closing::Replaced);
        scenery.connect();
        scenery.pass(0.5, true);
        assert!(scenery.is(State::Live, InputState::Connected));
        // A successor that never says a word is one.
        scenery.close(Closing::Replaced);
        scenery.connect();
        scenery.pass(2.1, false);
        assert!(scenery.is(State::Live, InputState::Reconnecting));
    }

    #[test]
    fn a_session_without_media_ends_after_fifteen_seconds_connected_or_not() {
        for closes in [false, true] {
            let mut scenery = Scenery::new(10, false);
            scenery.connect();
            if closes {
                scenery.close(Closing::Finished);
            }
            scenery.pass(14.9, false);
            assert_eq!(scenery.status().state, State::Init, "{closes}");
            scenery.pass(0.2, false);
            assert!(scenery.channel.status(scenery.now).session.is_none(), "{closes}");
            assert_eq!(scenery.closed.len(), usize::from(!closes));
        }
    }
}
