//! The machine: one step from input to records, events and effects.

use std::collections::BTreeMap;
use ulid::Ulid;

use super::door::Door;
use super::fact::{Fact, Publish};
use super::operate::Command;
use super::refusal::Refusal;
use super::timer::{self, Timer};
use crate::control::record::{
    ChannelRecord, ChannelState, EndedReason, ErrorCause, Event, EventId, Input as InputState, OnMaxDuration,
    SessionError, SessionRecord, SessionState, Utc, What,
};
use crate::media::channel::{Channel, ChannelName, Leg, PublisherId, SessionId};
use crate::pipeline::witness::NO_PROGRAM;
use crate::time::Wall;

/// What reaches a channel.
#[derive(Clone, Debug)]
pub enum Input {
    /// From its operator.
    Command(Command),
    /// A publisher was admitted.
    Publish(Publish),
    /// From the data plane, about a session. About one that is not open (any more) it changes nothing.
    Fact(SessionId, Fact),
    /// `deadline` has come.
    Tick,
}

/// Everything that one input changes: one transaction, then its effects in their order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Step {
    pub channel: ChannelWrite,
    /// To be written: at most those that ended and the one that is open now. The pointer to the channel's open session
    /// follows: it names the one that is open, or nothing once that one ended.
    pub sessions: Vec<SessionRecord>,
    /// In their order; the store numbers them. Without any, the write may wait for the next batch.
    pub events: Vec<Event>,
    pub effects: Vec<Effect>,
    /// Of an update: what is in force when.
    pub outcome: Outcome,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub enum ChannelWrite {
    #[default]
    Keep,
    Put(Box<ChannelRecord>),
    /// Its tombstone has stood long enough: it goes with all that is kept of it.
    Purge,
}

/// Fields that an update changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// In force.
    pub now: Vec<&'static str>,
    /// In force from the next session on.
    pub next_session: Vec<&'static str>,
}

/// What the data plane is to do, in their order. All but the first two are about one session and void once that
/// is gone.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// The channel is there and its next session is made so; `door` decides who may publish.
    Declare { channel: Box<Channel>, door: Box<Door> },
    /// The channel is gone.
    Withdraw(ChannelName),
    /// The publisher begins a session, made as was declared last.
    Begin { session: SessionId, leg: Leg, publisher: PublisherId },
    /// The publisher feeds the session, in place of whoever held its leg.
    Join { session: SessionId, leg: Leg, publisher: PublisherId },
    /// After a restart: the session goes on with its numbers, made as it was; its publisher is waited for.
    Resume { session: SessionId, channel: Box<Channel> },
    /// The session's publishers are sent away, the session stays.
    Dismiss { session: SessionId, why: Dismissal },
    /// The session's publishers are sent away, what is in flight comes out, then ENDLIST.
    End { session: SessionId, reason: EndedReason },
    /// At the next segment boundary `to` goes on with `from`'s publishers. `seamless`: made alike, so that viewers are
    /// not touched, unless the source itself changed meanwhile; else `from` gets its ENDLIST.
    RollOver { from: SessionId, to: SessionId, seamless: bool, publishers: BTreeMap<Leg, PublisherId> },
}

/// Why publishers are sent away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dismissal {
    /// Their media cannot be used; their addresses stay out for 10 s.
    InputInvalid,
}

/// One input. `random`: bits for new ids, other ones each time.
///
/// # Errors
/// Nothing has changed; the refusal says what to do instead. Facts are never refused.
pub fn step(
    channel: &ChannelRecord,
    open: Option<&SessionRecord>,
    input: Input,
    now: Wall,
    random: &mut dyn FnMut() -> u128,
) -> Result<Step, Refusal> {
    let mut work = Work::new(channel, open, now, random);
    work.run_due();
    match input {
        Input::Command(command) => work.command(command)?,
        Input::Publish(publish) => work.publish(publish)?,
        Input::Fact(session, fact) => work.fact(&session, fact),
        Input::Tick => {}
    }
    work.run_due();
    Ok(work.finish(Some((channel, open))))
}

/// The daemon was restarted and alone: what became of the channel meanwhile, and all that the data plane must know.
pub fn recover(
    channel: &ChannelRecord,
    open: Option<&SessionRecord>,
    now: Wall,
    random: &mut dyn FnMut() -> u128,
) -> Step {
    let mut work = Work::new(channel, open, now, random);
    work.lose_process();
    work.run_due();
    let mut step = work.finish(Some((channel, open)));
    // The data plane is as new as the process: it is told what there is, not what became of it.
    let there = step.channel_after(channel).filter(|c| c.state != ChannelState::Deleted);
    let resumed = there.zip(step.open_after(open)).map(|(channel, session)| Effect::Resume {
        session: session.id.clone(),
        channel: Box::new(channel.config.with(session.profile.clone()).to_channel(channel.playback_id)),
    });
    step.effects = there.map(declare).into_iter().chain(resumed).collect();
    step
}

/// A step in the making.
pub(super) struct Work<'a> {
    pub(super) now: Utc,
    random: &'a mut dyn FnMut() -> u128,
    pub(super) channel: ChannelRecord,
    pub(super) open: Option<SessionRecord>,
    pub(super) effects: Vec<Effect>,
    pub(super) outcome: Outcome,
    ended: Vec<SessionRecord>,
    events: Vec<Event>,
    purged: bool,
}

impl<'a> Work<'a> {
    pub(super) fn new(
        channel: &ChannelRecord,
        open: Option<&SessionRecord>,
        now: Wall,
        random: &'a mut dyn FnMut() -> u128,
    ) -> Work<'a> {
        assert!(
            open.is_some() == (channel.state == ChannelState::Active),
            "a channel is active exactly while it has an open session: {} is {:?}",
            channel.config.name,
            channel.state
        );
        Work {
            now: Utc::from(now),
            random,
            channel: channel.clone(),
            open: open.cloned(),
            effects: Vec::new(),
            outcome: Outcome::default(),
            ended: Vec::new(),
            events: Vec::new(),
            purged: false,
        }
    }

    pub(super) fn ulid(&mut self) -> Ulid {
        Ulid::from_parts(self.now.wall().unix_millis(), (self.random)())
    }

    pub(super) fn tell(&mut self, what: What) {
        self.channel.event_seq += 1;
        let about_session = what.name().starts_with("session.") || matches!(what, What::ChannelActive {});
        let id = EventId(self.ulid());
        self.events.push(Event {
            id,
            channel_seq: Some(self.channel.event_seq),
            at: self.now,
            channel: Some(self.channel.id),
            session: self.open.as_ref().filter(|_| about_session).map(|s| s.id.clone()),
            what,
        });
    }

    /// What is written, and effects: who may publish comes first, so that nobody slips in behind an end.
    pub(super) fn finish(mut self, before: Option<(&ChannelRecord, Option<&SessionRecord>)>) -> Step {
        let (channel, open) = before.unzip();
        if let Some(effect) = announcement(channel, &self.channel)
            && !self.purged
        {
            self.effects.insert(0, effect);
        }
        let mut sessions = self.ended;
        sessions.extend(self.open.filter(|session| open.flatten() != Some(session)));
        let channel = match channel {
            _ if self.purged => ChannelWrite::Purge,
            Some(before) if *before == self.channel => ChannelWrite::Keep,
            _ => ChannelWrite::Put(Box::new(self.channel)),
        };
        Step { channel, sessions, events: self.events, effects: self.effects, outcome: self.outcome }
    }

    // ── timers ──────────────────────────────────────────────────────────────────────────────────────────────────

    /// Everything that is due. Each timer ends a session, moves it on or begins a new one: there are few in a row.
    pub(super) fn run_due(&mut self) {
        while !self.purged
            && let Some((at, timer)) = timer::next(&self.channel, self.open.as_ref())
            && at <= self.now
        {
            match timer {
                Timer::NoMedia => self.end_and_idle(EndedReason::NoMedia, at),
                Timer::Probe => self.invalid(NO_PROGRAM),
                Timer::ErrorOver => self.end_and_idle(EndedReason::Error, at),
                Timer::WindowOver => self.end_and_idle(EndedReason::InputTimeout, at),
                Timer::MaxDuration => self.max_duration(at),
                Timer::Tombstone => self.purged = true,
            }
        }
    }

    fn max_duration(&mut self, at: Utc) {
        let on_air = |s: &SessionRecord| {
            matches!(s.state, SessionState::Processing | SessionState::Live)
                && s.input == InputState::Connected
                && !s.publishers.is_empty()
        };
        let rolls = self.channel.config.policy.on_max_duration == OnMaxDuration::Rollover;
        match self.open.clone() {
            Some(old) if rolls && on_air(&old) => self.roll_over(&old, at),
            _ => self.end_and_idle(EndedReason::MaxDuration, at),
        }
    }

    fn roll_over(&mut self, old: &SessionRecord, at: Utc) {
        let to = SessionId::new(self.ulid());
        let seamless = self.channel.config.profile.same_output(&old.profile);
        let publishers = old.publishers.clone();
        self.close(EndedReason::MaxDuration, at, Some(to.clone()));
        let leg = publishers.keys().next().copied().unwrap_or_default();
        self.open_session(to.clone(), leg, publishers.clone(), Some(old.id.clone()));
        self.effects.push(Effect::RollOver { from: old.id.clone(), to, seamless, publishers });
    }

    // ── transitions of a session ────────────────────────────────────────────────────────────────────────────────

    pub(super) fn open_session(
        &mut self,
        id: SessionId,
        leg: Leg,
        publishers: BTreeMap<Leg, PublisherId>,
        previous: Option<SessionId>,
    ) {
        assert!(self.open.is_none(), "a channel has one open session at most: {}", self.channel.config.name);
        let profile = self.channel.config.profile.clone();
        let deadline = profile.max_duration().map(|span| self.now + span);
        let what = What::SessionCreated { leg, profile: Box::new(profile.clone()), deadline, previous };
        self.open = Some(SessionRecord {
            id,
            channel: self.channel.id,
            state: SessionState::Init,
            input: InputState::Connected,
            health: Default::default(),
            runs_on: None,
            profile,
            created_at: self.now,
            processing_at: None,
            live_at: None,
            ended_at: None,
            ended_reason: None,
            error: None,
            deadline,
            probing_since: None,
            last_media_at: None,
            edge: None,
            input_lost_at: None,
            window_deadline: None,
            publishers,
        });
        self.tell(what);
    }

    /// The record of an end, without its effect. `at`: when it was over, which may be before now.
    fn close(&mut self, reason: EndedReason, at: Utc, next: Option<SessionId>) {
        if self.open.is_none() {
            return;
        }
        self.tell(What::SessionEnded { reason, ended_at: at, next });
        let Some(mut session) = self.open.take() else { return };
        session.state = SessionState::Ended;
        session.ended_at = Some(at);
        session.ended_reason = Some(reason);
        session.probing_since = None;
        session.window_deadline = None;
        session.publishers.clear();
        self.ended.push(session);
    }

    /// The session ends, if there is one; the caller says what becomes of the channel.
    pub(super) fn end(&mut self, reason: EndedReason, at: Utc) {
        let session = self.open.as_ref().map(|s| s.id.clone());
        self.close(reason, at, None);
        self.effects.extend(session.map(|session| Effect::End { session, reason }));
    }

    pub(super) fn end_and_idle(&mut self, reason: EndedReason, at: Utc) {
        self.end(reason, at);
        self.channel.state = ChannelState::Idle;
        self.tell(What::ChannelIdle {});
    }

    pub(super) fn fail(&mut self, cause: ErrorCause, detail: String) {
        let Some(session) = &mut self.open else { return };
        session.state = SessionState::Error;
        session.probing_since = None;
        session.error = Some(SessionError { cause, detail: detail.clone(), at: self.now });
        self.tell(What::SessionError { cause, detail });
    }

    /// The input cannot be used: its publishers are sent away, and what comes next gets another look. As a rule that
    /// is seen in `init`; a source that turns unusable on air is the same error.
    pub(super) fn invalid(&mut self, detail: &str) {
        let Some(session) = &self.open else { return };
        let (id, state) = (session.id.clone(), session.state);
        if state != SessionState::Error {
            self.fail(ErrorCause::InputInvalid, detail.to_owned());
        }
        self.effects.push(Effect::Dismiss { session: id, why: Dismissal::InputInvalid });
    }

    /// `lost_at`: since when the reconnect window runs.
    pub(super) fn lose_input(&mut self, lost_at: Utc) {
        let Some(session) = &mut self.open else { return };
        let window_deadline = lost_at + self.channel.config.policy.reconnect_window(&session.profile);
        session.input = InputState::Reconnecting;
        session.input_lost_at = Some(lost_at);
        session.window_deadline = Some(window_deadline);
        self.tell(What::SessionInputLost { lost_at, window_deadline });
    }

    pub(super) fn restore_input(&mut self) {
        let Some(session) = self.open.as_mut().filter(|s| s.input == InputState::Reconnecting) else { return };
        session.input = InputState::Connected;
        session.input_lost_at = None;
        session.window_deadline = None;
        self.tell(What::SessionInputRestored {});
    }

    // ── restart ─────────────────────────────────────────────────────────────────────────────────────────────────

    /// No publisher outlives the process. A session whose window is over ended when its last media came.
    fn lose_process(&mut self) {
        let Some(session) = &mut self.open else { return };
        session.publishers.clear();
        session.probing_since = None;
        // A clock that went back meanwhile does not lengthen the wait.
        let last_media = session.last_media_at.unwrap_or(session.created_at).min(self.now);
        if session.state == SessionState::Init {
            return;
        }
        let window = self.channel.config.policy.reconnect_window(&session.profile);
        let until = session.window_deadline.unwrap_or(last_media + window);
        if session.state != SessionState::Error && until <= self.now {
            return self.end_and_idle(EndedReason::InputTimeout, last_media);
        }
        if session.input == InputState::Connected {
            self.lose_input(last_media);
        }
    }
}

/// The data plane's view of a channel, where it changed.
fn announcement(before: Option<&ChannelRecord>, after: &ChannelRecord) -> Option<Effect> {
    let was_there = before.is_some_and(|b| b.state != ChannelState::Deleted);
    if after.state == ChannelState::Deleted {
        return was_there.then(|| Effect::Withdraw(after.config.name.clone()));
    }
    let same =
        before.is_some_and(|b| Door::of(b) == Door::of(after) && to_channel(b) == to_channel(after) && was_there);
    (!same).then(|| declare(after))
}

fn declare(channel: &ChannelRecord) -> Effect {
    Effect::Declare { channel: Box::new(to_channel(channel)), door: Box::new(Door::of(channel)) }
}

fn to_channel(channel: &ChannelRecord) -> Channel {
    channel.config.to_channel(channel.playback_id)
}

impl Step {
    /// The channel after this step; `None` once it is purged.
    pub fn channel_after<'a>(&'a self, before: &'a ChannelRecord) -> Option<&'a ChannelRecord> {
        match &self.channel {
            ChannelWrite::Keep => Some(before),
            ChannelWrite::Put(channel) => Some(channel),
            ChannelWrite::Purge => None,
        }
    }

    /// The open session after this step.
    pub fn open_after<'a>(&'a self, before: Option<&'a SessionRecord>) -> Option<&'a SessionRecord> {
        let written = self.sessions.iter().find(|s| s.is_open());
        written.or(before.filter(|b| self.sessions.iter().all(|s| s.id != b.id)))
    }
}
