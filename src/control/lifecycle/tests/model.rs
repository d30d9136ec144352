//! Random walks: many channels, random commands, facts, timers and clocks, and a crash at any commit, after which all that
//! was not committed is gone. After each commit the store must be in a state that the tables of states allow, and the
//! events alone must tell the same. The same walk over a store that commits a step in three parts must be caught.
//!
//! `RUNG_LONG=1`: 1.2 million steps.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

use super::fold::Fold;
use crate::control::lifecycle::{
    ChannelWrite, Command, Fact, Input, KEY_GRACE, Others, Publish, Step, create, deadline, read_new, recover, step,
};
use crate::control::record::{
    ChannelId, ChannelRecord, ChannelState, EndedReason, Input as InputState, SessionRecord, SessionState, StreamKey,
    Utc, What,
};
use crate::media::channel::{Leg, PublisherId, SessionId};
use crate::time::Wall;

#[path = "../../../../tests/support/random.rs"]
mod random;
use random::Random;

const CHANNELS: usize = 6;
const STEPS: usize = 1_000;
/// The shell is late by less.
const LATE: Duration = Duration::from_millis(40);

/// How a step reaches the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Commits {
    One,
    /// The planted bug: channel, session, events.
    Three,
}

/// What survives a crash.
#[derive(Default)]
struct Store {
    channels: BTreeMap<ChannelId, ChannelRecord>,
    sessions: BTreeMap<SessionId, SessionRecord>,
    /// Sessions kept of each channel.
    totals: BTreeMap<ChannelId, usize>,
    open: BTreeMap<ChannelId, SessionId>,
}

impl Store {
    fn open_session(&self, channel: ChannelId) -> Option<&SessionRecord> {
        self.open.get(&channel).and_then(|id| self.sessions.get(id))
    }

    fn put_channel(&mut self, id: ChannelId, write: &ChannelWrite) {
        match write {
            ChannelWrite::Keep => {}
            ChannelWrite::Put(channel) => drop(self.channels.insert(id, (**channel).clone())),
            ChannelWrite::Purge => {
                self.channels.remove(&id);
                self.sessions.retain(|_, s| s.channel != id);
            }
        }
    }

    fn put_sessions(&mut self, sessions: &[SessionRecord]) {
        for session in sessions {
            if session.is_open() {
                self.open.insert(session.channel, session.id.clone());
            } else if self.open.get(&session.channel) == Some(&session.id) {
                self.open.remove(&session.channel);
            }
            if self.sessions.insert(session.id.clone(), session.clone()).is_none() {
                *self.totals.entry(session.channel).or_default() += 1;
            }
        }
    }
}

struct World {
    commits: Commits,
    store: Store,
    fold: Fold,
    ends: BTreeMap<EndedReason, u64>,
    now: Wall,
    random: Random,
    crashes: u64,
}

/// Whether the daemon is still there.
type Outcome = Result<bool, String>;

fn walk(seed: u64, commits: Commits) -> Result<World, String> {
    let mut world = World {
        commits,
        store: Store::default(),
        fold: Fold::default(),
        ends: BTreeMap::new(),
        now: Wall(1_800_000_000_000_000_000),
        random: Random(seed),
        crashes: 0,
    };
    for at in 0..STEPS {
        let up = world.act().map_err(|e| format!("seed {seed}, step {at}: {e}"))?;
        if !up {
            world.restart().map_err(|e| format!("seed {seed}, step {at}, restarted: {e}"))?;
        }
    }
    world.leave_alone().map_err(|e| format!("seed {seed}, left alone: {e}"))?;
    Ok(world)
}

impl World {
    fn act(&mut self) -> Outcome {
        let ids: Vec<ChannelId> = self.store.channels.keys().copied().collect();
        let there = self.store.channels.values().filter(|c| c.state != ChannelState::Deleted).count();
        if ids.is_empty() || (there < CHANNELS && self.random.below(50) == 0) {
            return self.create();
        }
        let id = ids[self.random.below(ids.len())];
        match self.random.below(100) {
            0..12 => {
                let command = self.command(id);
                self.send(id, Input::Command(command))
            }
            12..35 => {
                let leg = if self.random.below(5) == 0 { Leg::B } else { Leg::A };
                let publisher = PublisherId(self.random.next() % 5);
                self.send(id, Input::Publish(Publish { leg, publisher }))
            }
            35..90 => {
                let Some(session) = self.session(id) else { return Ok(true) };
                let fact = self.fact(id);
                self.send(id, Input::Fact(session, fact))
            }
            _ => {
                let spans = [2_000, 4_000, 4_000, 8_000, 20_000, 70_000, 7_200_000, 3_000_000_000];
                let span = spans[self.random.below(spans.len())];
                let span = Duration::from_millis(self.random.next() % span);
                self.pass(span)
            }
        }
    }

    fn create(&mut self) -> Outcome {
        let name = format!("c{}", self.random.next());
        let body = self.body(json!({ "name": name }));
        let config = read_new(&body).map_err(|e| e.to_string())?;
        let key = StreamKey::of("abcdefghijklmnopqrstuvwx12", Utc::from(self.now));
        let others = Others { count: self.store.channels.len(), name_taken: false };
        let random = &mut self.random;
        let made = create(config, key, others, self.now, &mut || u128::from(random.next()));
        let made = made.map_err(|e| e.to_string())?;
        let ChannelWrite::Put(channel) = &made.channel else { return Err("not written".into()) };
        self.commit(channel.id, &made)
    }

    /// Some fields of a channel.
    fn body(&mut self, mut body: Value) -> Value {
        let choices = [
            ("mode", vec![json!("low"), json!("normal"), json!("ultra")]),
            ("activation", vec![json!("manual"), json!("auto"), json!("auto"), json!("auto")]),
            ("reconnect_window_s", vec![json!(0), json!(3), json!(1_800), Value::Null]),
            ("max_duration_s", vec![json!(0), json!(60), json!(600), Value::Null]),
            ("on_max_duration", vec![json!("rollover"), json!("end")]),
            ("end_on_eos", vec![json!(true), json!(false)]),
            ("legs", vec![json!("single"), json!("dual"), json!("dual")]),
        ];
        for (field, values) in choices {
            if self.random.below(3) == 0 {
                body[field] = values[self.random.below(values.len())].clone();
            }
        }
        body
    }

    fn command(&mut self, id: ChannelId) -> Command {
        match self.random.below(40) {
            0..12 => Command::Update { patch: self.body(json!({})), if_match: None },
            12..26 => Command::Start,
            26..31 => Command::Stop,
            31..33 => Command::Delete { force: self.random.below(2) == 0, if_match: None },
            33..36 => {
                let key = StreamKey::of("bbbbbbbbbbbbbbbbbbbbbbbbbb", Utc::from(self.now));
                Command::RotateKey { key, grace: KEY_GRACE }
            }
            _ => match self.session(id) {
                Some(session) => Command::EndSession(session),
                None => Command::Start,
            },
        }
    }

    /// The open session as a rule, sometimes any other.
    fn session(&mut self, id: ChannelId) -> Option<SessionId> {
        let open = self.store.open.get(&id).cloned();
        if self.random.below(20) > 0 {
            return open;
        }
        let n = self.random.below(self.store.sessions.len());
        self.store.sessions.keys().nth(n).cloned()
    }

    /// The next one of a session's life as a rule, sometimes any.
    fn fact(&mut self, id: ChannelId) -> Fact {
        let state = self.store.open_session(id).map(|s| s.state);
        let ahead = match state {
            Some(SessionState::Init) if self.random.below(2) == 0 => Fact::FirstMedia,
            Some(SessionState::Init) => Fact::Processing,
            Some(SessionState::Processing) => Fact::Playable,
            Some(SessionState::Error) => Fact::Recovered,
            _ => Fact::Media(self.now),
        };
        if self.random.below(3) == 0 {
            return ahead;
        }
        let publisher = PublisherId(self.random.next() % 5);
        match self.random.below(12) {
            0 => Fact::FirstMedia,
            1 | 2 => Fact::Media(self.now),
            3 => Fact::Processing,
            4 => Fact::Playable,
            5 => Fact::InputLost { last_media: Wall(self.now.0 - 2_000_000_000) },
            6 => Fact::InputRestored,
            7 | 8 => {
                let finished = self.random.below(3) == 0;
                Fact::PublisherClosed { publisher, finished, last_media: Some(self.now) }
            }
            9 if self.random.below(3) == 0 => Fact::InputInvalid("a codec that is refused".into()),
            10 => Fact::PipelineFailed("no worker".into()),
            _ => Fact::Recovered,
        }
    }

    fn send(&mut self, id: ChannelId, input: Input) -> Outcome {
        let Some(channel) = self.store.channels.get(&id) else { return Ok(true) };
        let open = self.store.open_session(id);
        let random = &mut self.random;
        match step(channel, open, input, self.now, &mut || u128::from(random.next())) {
            Ok(made) => self.commit(id, &made),
            Err(refusal) if refusal.detail.is_empty() => Err("a refusal without a sentence".into()),
            Err(_) => Ok(true),
        }
    }

    /// Time passes; the shell ticks whoever is due, a little late.
    fn pass(&mut self, span: Duration) -> Outcome {
        let until = self.now + span;
        for _ in 0..100_000 {
            let store = &self.store;
            let due = store.channels.values().filter_map(|c| Some((deadline(c, store.open_session(c.id))?, c.id)));
            let Some((at, id)) = due.min().filter(|(at, _)| *at <= until) else {
                self.now = self.now.max(until);
                return self.nothing_is_overdue().map(|()| true);
            };
            let late = Duration::from_nanos(self.random.next() % u64::try_from(LATE.as_nanos()).unwrap());
            self.now = self.now.max(at + late);
            if !self.send(id, Input::Tick)? {
                return Ok(false);
            }
        }
        Err("timers fire without end".into())
    }

    /// `false`: the daemon crashed at this commit.
    fn commit(&mut self, id: ChannelId, made: &Step) -> Outcome {
        let crash = self.random.below(40) == 0;
        let parts = match self.commits {
            _ if !crash => 3,
            Commits::One => 3 * self.random.below(2),
            Commits::Three => self.random.below(4),
        };
        for session in &made.sessions {
            if self.store.sessions.get(&session.id).is_some_and(|kept| !kept.is_open()) {
                return Err(format!("{} was ended and is written again", session.id));
            }
        }
        if parts > 0 {
            self.store.put_channel(id, &made.channel);
        }
        if parts > 1 {
            self.store.put_sessions(&made.sessions);
        }
        if parts > 2 {
            for event in made.events.clone() {
                if let What::SessionEnded { reason, .. } = &event.what {
                    *self.ends.entry(*reason).or_default() += 1;
                }
                let seq = self.fold.next_seq();
                self.fold.apply(&event.numbered(seq))?;
            }
        }
        let touched: Vec<&SessionRecord> =
            made.sessions.iter().filter_map(|s| self.store.sessions.get(&s.id)).collect();
        self.holds(id, touched.into_iter())?;
        Ok(!crash)
    }

    /// The invariants of one channel.
    fn holds<'a>(&'a self, id: ChannelId, sessions: impl Iterator<Item = &'a SessionRecord>) -> Result<(), String> {
        let Some(channel) = self.store.channels.get(&id) else { return Ok(()) };
        let open = self.store.open_session(id);
        let pointed = self.store.open.contains_key(&id);
        let active = channel.state == ChannelState::Active;
        if active != pointed || active != open.is_some_and(SessionRecord::is_open) {
            return Err(format!("{:?} with open session {open:?}", channel.state));
        }
        let total = self.store.totals.get(&id).copied().unwrap_or(0);
        self.fold.agrees(channel, sessions.chain(open), total)
    }

    /// The whole store, as a restart finds it.
    fn all_holds(&self) -> Result<(), String> {
        for id in self.store.channels.keys().copied() {
            let of_channel = || self.store.sessions.values().filter(|s| s.channel == id);
            let open = of_channel().filter(|s| s.is_open()).count();
            if open > 1 {
                return Err(format!("{open} open sessions"));
            }
            self.holds(id, of_channel())?;
        }
        for session in self.store.sessions.values() {
            let ended = !session.is_open();
            let over = session.ended_at.is_some() && session.ended_reason.is_some() && session.publishers.is_empty();
            if ended && !over || !ended && (session.ended_at.is_some() || session.ended_reason.is_some()) {
                return Err(format!("half ended: {session:?}"));
            }
        }
        Ok(())
    }

    fn restart(&mut self) -> Result<(), String> {
        // Crashes while recovering: with one commit in 40, ten in a row do not happen.
        for _ in 0..10 {
            self.crashes += 1;
            self.all_holds()?;
            if self.crashes % 8 == 1 {
                self.read_back()?;
            }
            let down = [100, 2_000, 20_000, 200_000, 300_000_000][self.random.below(5)];
            self.now = self.now + Duration::from_millis(self.random.next() % down);
            if self.recover_all()? {
                return self.nothing_is_overdue();
            }
        }
        Err("it crashes without end".into())
    }

    fn recover_all(&mut self) -> Outcome {
        let ids: Vec<ChannelId> = self.store.channels.keys().copied().collect();
        for id in ids {
            let random = &mut self.random;
            let channel = &self.store.channels[&id];
            let made = recover(channel, self.store.open_session(id), self.now, &mut || u128::from(random.next()));
            if !self.commit(id, &made)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Records come back from JSON as they were.
    fn read_back(&self) -> Result<(), String> {
        for channel in self.store.channels.values() {
            let json = serde_json::to_string(channel).map_err(|e| e.to_string())?;
            let read: ChannelRecord = serde_json::from_str(&json).map_err(|e| format!("{e} in {json}"))?;
            if read != *channel {
                return Err(format!("{read:?} was {channel:?}"));
            }
        }
        for session in self.store.sessions.values().rev().take(8) {
            let json = serde_json::to_string(session).map_err(|e| e.to_string())?;
            let read: SessionRecord = serde_json::from_str(&json).map_err(|e| format!("{e} in {json}"))?;
            if read != *session {
                return Err(format!("{read:?} was {session:?}"));
            }
        }
        Ok(())
    }

    /// What the tables say about time, in their own numbers: nothing is older than it may become.
    fn nothing_is_overdue(&self) -> Result<(), String> {
        let passed = |since: Utc, seconds: u64| self.now > since.wall() + Duration::from_secs(seconds) + LATE;
        for channel in self.store.channels.values() {
            if channel.deleted_at.is_some_and(|at| passed(at, 30 * 86_400)) {
                return Err(format!("a tombstone of {:?}", channel.deleted_at));
            }
            let Some(session) = self.store.open_session(channel.id) else { continue };
            let longest = u64::from(session.profile.max_duration_s);
            let reconnecting = session.input == InputState::Reconnecting;
            let overdue = match session.state {
                SessionState::Init => match session.probing_since {
                    Some(at) => passed(at, 10),
                    None => passed(session.created_at.max(session.last_media_at.unwrap_or_default()), 15),
                },
                SessionState::Error => session.error.as_ref().is_none_or(|e| passed(e.at, 60)),
                _ if reconnecting => session.window_deadline.is_none_or(|at| passed(at, 0)),
                _ => session.publishers.is_empty(),
            };
            let lost = session.input_lost_at.zip(session.window_deadline);
            let endless = lost.is_some_and(|(at, until)| until > at + Duration::from_secs(1_800));
            if overdue || endless || (longest > 0 && passed(session.created_at, longest)) {
                return Err(format!("at {}: overdue: {session:?}", self.now));
            }
        }
        Ok(())
    }

    /// Once nothing comes any more, everything that has a limit ends.
    fn leave_alone(&mut self) -> Result<(), String> {
        while !self.pass(Duration::from_secs(40 * 86_400))? {
            self.restart()?;
        }
        self.all_holds()?;
        let lasting = |s: &SessionRecord| {
            s.deadline.is_none()
                && s.input == InputState::Connected
                && matches!(s.state, SessionState::Processing | SessionState::Live)
        };
        match self.store.open.values().map(|id| &self.store.sessions[id]).find(|s| !lasting(s)) {
            Some(session) => Err(format!("never ended: {session:?}")),
            None => Ok(()),
        }
    }
}

#[test]
fn random_walks_with_crashes_keep_every_promise() {
    let seeds = if std::env::var_os("RUNG_LONG").is_some() { 1_200 } else { 200 };
    let (mut seen, mut ends, mut crashes) = (BTreeMap::new(), BTreeMap::new(), 0);
    for seed in 0..seeds {
        let world = walk(seed, Commits::One).unwrap_or_else(|e| panic!("{e}"));
        for (name, n) in world.fold.seen {
            *seen.entry(name).or_insert(0) += n;
        }
        for (reason, n) in world.ends {
            *ends.entry(reason).or_insert(0) += n;
        }
        crashes += world.crashes;
    }
    // A walk that reaches little proves little.
    let of_lifecycle = What::TYPES.iter().filter(|t| t.starts_with("channel.") || t.starts_with("session."));
    for name in of_lifecycle {
        assert!(seen.get(name).is_some_and(|n| *n > 100), "{name} was hardly ever reached: {seen:?}");
    }
    assert!(ends.len() == 7 && ends.values().all(|n| *n > 20), "{ends:?}");
    assert!(crashes > seeds, "{crashes}");
}

#[test]
fn a_step_in_three_commits_is_caught() {
    let caught = (0..60).filter(|seed| walk(*seed, Commits::Three).is_err()).count();
    assert!(caught > 30, "three commits a step went unnoticed in {} of 60 walks", 60 - caught);
}
