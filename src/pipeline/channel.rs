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
