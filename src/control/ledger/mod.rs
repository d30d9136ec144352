//! Purpose: the one way in which channels, sessions and events change: an input goes through the life-cycle machine inside
//! one write of the store; its effects follow the commit, in the order of the commits.
//! Time: `Wall` at each write, from the shell's clock; deadlines are absolute and kept in the records.
//! Invariants: what the store holds is what the machine said, events included, all of a step or none of it; nobody hears
//! of a change before it is on disk; facts of the data plane are taken in their order and repeated until the disk takes them.
//! When it fails: a request gets the store's sentence; facts wait, and the data plane goes on without waiting for them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use super::lifecycle::{self, ChannelWrite, Effect, Fact, Input, Others, Outcome, Publish, Refusal, Step};
use super::record::{
    ChannelConfig, ChannelId, ChannelRecord, Edge, Event, EventRecord, EventSeq, LogoFile, LogoImage, SessionRecord,
    StreamKey, Utc,
};
use super::state::{Db, Error, Need, Newest, PROFILES, Read, State, Table, Ulid, Write, hand_over, load};
use crate::media::channel::{ChannelName, PublisherId, SessionId};
use crate::media::grid::SourceProfile;
use crate::pipeline::channel::Legacy;
use crate::sys::random;
use crate::telemetry::names::{Metric, observe};
use crate::telemetry::report::{Level, Place, log};
use crate::time::{Clock, Mono, SystemClock, Wall};

pub const CHANNELS: Table<Ulid, ChannelRecord> = Table::json(Db::Channels, 1);
/// Names of channels that are not deleted.
pub const NAMES: Table<String, ChannelId> = Table::json(Db::ChannelNames, 1);
pub const SESSIONS: Table<Ulid, SessionRecord> = Table::json(Db::Sessions, 1);
pub const SESSIONS_BY_CHANNEL: Table<(Ulid, Newest), ()> = Table::json(Db::SessionsByChannel, 1);
pub const OPEN: Table<Ulid, SessionId> = Table::json(Db::Open, 1);
/// PNGs of the channels that have a logo.
pub const LOGOS: Table<Ulid, LogoFile> = Table::json(Db::Logos, 1);
pub const EVENTS: Table<EventSeq, Event> = Table::json(Db::Events, 1);

/// Events are kept this long.
pub const EVENTS_KEPT: Duration = Duration::from_secs(7 * 86_400);
/// Facts that may wait for the disk. A session makes a few in its life, and one a second that is folded into a batch.
const INBOX: usize = 1 << 16;
/// When media last flowed is written this often, for all sessions at once.
const BATCH: Duration = Duration::from_secs(1);
/// A write that failed is tried again after this.
const RETRY: Duration = Duration::from_millis(500);
/// Sessions that may have ended without a grid, before one that had one.
const SESSIONS_LOOKED_AT: usize = 16;
/// Segments that a session may have made since its last media was written down.
const MSN_MARGIN: u64 = 4;
/// No event is of a later time than this from now on, nanoseconds: a day.
const AHEAD_MAX: i64 = 86_400_000_000_000;
/// Old events are looked for this often, and removed so many at a time.
const SWEEP: Duration = Duration::from_secs(60);

/// Who does what was decided. Called in the order of commits by the thread that committed: it must not wait.
pub trait Plane: Send + Sync {
    fn carry_out(&self, channel: &ChannelName, effect: Effect);

    /// After a restart, once a channel is declared: what its sessions left.
    fn remember(&self, channel: &ChannelName, legacy: Legacy);

    /// A publisher that was let in gets no session after all.
    fn turn_away(&self, channel: &ChannelName, publisher: PublisherId);
}

/// Why an input changed nothing.
#[derive(Clone, Debug)]
pub enum Failure {
    Refused(Refusal),
    Store(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Store(error)
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Failure {
        Failure::Refused(refusal)
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Refused(refusal) => refusal.fmt(f),
            Failure::Store(error) => error.fmt(f),
        }
    }
}

/// What one step did to a channel, as it was written.
#[derive(Clone, Debug)]
pub struct Change {
    pub id: ChannelId,
    /// `None`: purged.
    pub channel: Option<ChannelRecord>,
    /// The open session.
    pub open: Option<SessionRecord>,
    pub outcome: Outcome,
    effects: Vec<Effect>,
    last_event: Option<EventSeq>,
}

/// The book of channels. Cheap to share; one per process.
pub struct Ledger {
    shared: Arc<Shared>,
    inbox: SyncSender<Inbound>,
    clerk: Option<JoinHandle<()>>,
}

struct Shared {
    state: Arc<State>,
    plane: Arc<dyn Plane>,
    /// When each channel wants its next tick.
    due: Mutex<BTreeMap<ChannelId, Wall>>,
    newest_event: watch::Sender<EventSeq>,
    /// Nothing is waited for any more: the next process finds out by itself.
    stopping: AtomicBool,
}

/// What the clerk is told.
enum Inbound {
    Publish(ChannelName, Publish, Mono),
    Fact(ChannelName, SessionId, Fact),
    /// A deadline may have come nearer.
    Look,
    Stop,
}

impl Ledger {
    /// # Errors
    /// The store failed, or the system has no thread left.
    pub fn open(state: Arc<State>, plane: Arc<dyn Plane>) -> Result<Ledger, Error> {
        let newest = state.control.read(|view| Ok::<_, Error>(view.last(&EVENTS)?.map_or(0, |(seq, _)| seq)))?;
        let (due, stopping) = (Mutex::default(), AtomicBool::new(false));
        let shared = Arc::new(Shared { state, plane, due, newest_event: watch::Sender::new(newest), stopping });
        let (inbox, arrivals) = sync_channel(INBOX);
        let clerk = Clerk { shared: Arc::clone(&shared), arrivals, heard: BTreeMap::new() };
        let thread = std::thread::Builder::new().name("ledger".into()).spawn(move || clerk.run());
        let clerk = thread.map_err(|e| Error::Lmdb(format!("cannot start the ledger's thread: {e}")))?;
        Ok(Ledger { shared, inbox, clerk: Some(clerk) })
    }

    /// Takes up where the last process left: every channel is declared, every session that may go on is resumed.
    /// Blocks until that is on disk.
    ///
    /// # Errors
    /// The store failed.
    pub fn recover(&self) -> Result<(), Error> {
        self.shared.recover()
    }

    pub fn state(&self) -> &Arc<State> {
        &self.shared.state
    }

    /// A publisher was admitted. Never waits.
    pub fn publish(&self, channel: ChannelName, publish: Publish) {
        self.hand_in(Inbound::Publish(channel, publish, SystemClock::mono()));
    }

    /// Something happened to a session. Never waits.
    pub fn fact(&self, channel: ChannelName, session: SessionId, fact: Fact) {
        self.hand_in(Inbound::Fact(channel, session, fact));
    }

    /// One transaction of any kind. `change` may run more than once and takes everything from the transaction; what it
    /// says about channels (`step`, `create`) is carried out after the commit.
    ///
    /// # Errors
    /// The refusal, or why nothing was written.
    pub async fn submit<T: Send + 'static, E: From<Error> + Send + 'static>(
        &self,
        need: Need,
        change: impl Fn(&mut Write<'_, '_>, Wall) -> Result<(Vec<Change>, T), E> + Send + 'static,
    ) -> Result<T, E> {
        self.submit_then(need, change, |_| {}).await
    }

    /// The same, and `then` hears what was committed, whether or not the caller still waits for it. It is called in the
    /// order of commits by the thread that committed: it must not wait.
    ///
    /// # Errors
    /// The refusal, or why nothing was written.
    pub async fn submit_then<T: Send + 'static, E: From<Error> + Send + 'static>(
        &self,
        need: Need,
        change: impl Fn(&mut Write<'_, '_>, Wall) -> Result<(Vec<Change>, T), E> + Send + 'static,
        then: impl FnOnce(&T) + Send + 'static,
    ) -> Result<T, E> {
        let (told, outcome) = oneshot::channel();
        let (shared, inbox) = (Arc::clone(&self.shared), self.inbox.clone());
        self.shared.state.control.write_then(
            need,
            move |txn| change(txn, SystemClock.now().wall),
            move |result: Result<(Vec<Change>, T), E>| {
                let result = result.map(|(changes, value)| {
                    shared.committed(changes);
                    then(&value);
                    value
                });
                // Full: the clerk is awake anyway.
                drop(inbox.try_send(Inbound::Look));
                // Before the caller hears of it and may close the store: its writer cannot be the one to do that.
                drop(shared);
                // A caller that went away does not want to know.
                drop(told.send(result));
            },
        );
        outcome.await.unwrap_or_else(|_| Err(Error::Closed.into()))
    }

    /// Changes with the newest event's number.
    pub fn newest_event(&self) -> watch::Receiver<EventSeq> {
        self.shared.newest_event.subscribe()
    }

    fn hand_in(&self, what: Inbound) {
        if let Err(TrySendError::Full(_)) = self.inbox.try_send(what) {
            let what = format!("{INBOX} facts wait for the disk: one was lost");
            log(Level::Error, "ledger_full", &Place::default(), what);
        }
    }
}

/// What was handed in is written before the ledger is gone.
impl Drop for Ledger {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        // The clerk takes from the inbox as long as it lives: there is room in the end.
        drop(self.inbox.send(Inbound::Stop));
        if let Some(clerk) = self.clerk.take() {
            // Its panic has been logged where it happened.
            drop(clerk.join());
        }
    }
}

// ── inside a transaction ────────────────────────────────────────────────────────────────────────────────────────────

/// Takes one input to a channel.
///
/// # Errors
/// The machine's refusal, or a damaged record.
pub fn step(txn: &mut Write<'_, '_>, id: ChannelId, input: &Input, now: Wall) -> Result<Change, Failure> {
    let channel = txn.get(&CHANNELS, &id.0)?.ok_or_else(no_such_channel)?;
    let open = open_session(&txn.view(), id)?;
    let step = lifecycle::step(&channel, open.as_ref(), input.clone(), now, &mut random::bits)?;
    Ok(write(txn, Some((&channel, open.as_ref())), step)?)
}

/// Makes a channel.
///
/// # Errors
/// Its name is taken, or the box is full.
pub fn create(txn: &mut Write<'_, '_>, config: ChannelConfig, key: StreamKey, now: Wall) -> Result<Change, Failure> {
    let count = usize::try_from(txn.view().count(Db::ChannelNames)?).unwrap_or(usize::MAX);
    let name_taken = txn.view().has(&NAMES, &config.name.as_str().to_owned())?;
    let step = lifecycle::create(config, key, Others { count, name_taken }, now, &mut random::bits)?;
    Ok(write(txn, None, step)?)
}

/// The channel that an id or a name means, unless it was deleted.
///
/// # Errors
/// The record is damaged.
pub fn find(view: &Read<'_>, id_or_name: &str) -> Result<Option<ChannelRecord>, Error> {
    let id = match id_or_name.parse::<ChannelId>() {
        Ok(id) => Some(id),
        Err(_) => view.get(&NAMES, &id_or_name.to_owned())?,
    };
    let Some(id) = id else { return Ok(None) };
    Ok(view.get(&CHANNELS, &id.0)?.filter(|channel| channel.deleted_at.is_none()))
}

/// A channel's open session.
///
/// # Errors
/// The record is damaged.
pub fn open_session(view: &Read<'_>, channel: ChannelId) -> Result<Option<SessionRecord>, Error> {
    let Some(session) = view.get(&OPEN, &channel.0)? else { return Ok(None) };
    view.get(&SESSIONS, &session.ulid())
}

/// What a channel's sessions left to the next one: no media sequence number comes again, whatever the wall clock says.
fn legacy(view: &Read<'_>, channel: ChannelId) -> Result<Legacy, Error> {
    let profile = view.get(&PROFILES, &channel.0)?;
    let newest = view.scan_prefix(&SESSIONS_BY_CHANNEL, &channel.0)?.take(SESSIONS_LOOKED_AT);
    let sessions = newest.filter_map(|row| row.ok().map(|((_, Newest(session)), ())| SessionId::new(session)));
    for session in sessions {
        let Some(kept) = load(view, &session)?.0 else { continue };
        let edge = view.get(&SESSIONS, &session.ulid())?.and_then(|record| record.edge).map_or(0, |edge| edge.n);
        let last = kept.anchors.last().map_or(0, |anchor| anchor.n0).max(edge);
        return Ok(Legacy { profile, last_msn: Some(kept.plan.grid.msn_of(last) + MSN_MARGIN) });
    }
    Ok(Legacy { profile, last_msn: None })
}

/// The PNG of a channel's logo.
///
/// # Errors
/// The row is damaged.
pub fn logo(view: &Read<'_>, channel: ChannelId) -> Result<Option<Vec<u8>>, Error> {
    Ok(view.get(&LOGOS, &channel.0)?.and_then(|file| file.png()))
}

/// Event number `seq` as it is told.
pub fn event((seq, event): (EventSeq, Event)) -> EventRecord {
    event.numbered(seq)
}

pub fn no_such_channel() -> Failure {
    Failure::Refused(Refusal {
        code: lifecycle::Code::NotFound,
        detail: "there is no such channel: list the channels to see their names".to_owned(),
        errors: Vec::new(),
    })
}

/// The whole of a step.
fn write(
    txn: &mut Write<'_, '_>,
    before: Option<(&ChannelRecord, Option<&SessionRecord>)>,
    step: Step,
) -> Result<Change, Error> {
    let (old, open) = before.unzip();
    let open = step.open_after(open.flatten()).cloned();
    let channel = match (&step.channel, old) {
        (ChannelWrite::Put(channel), _) => Some((**channel).clone()),
        (ChannelWrite::Keep, old) => old.cloned(),
        (ChannelWrite::Purge, _) => None,
    };
    let id = channel.as_ref().or(old).map(|channel| channel.id).expect("a step is about a channel");
    for session in &step.sessions {
        let key = session.id.ulid();
        txn.put(&SESSIONS, &key, session)?;
        txn.put(&SESSIONS_BY_CHANNEL, &(id.0, Newest(key)), &())?;
    }
    for effect in &step.effects {
        if let Effect::RollOver { from, to, seamless: true, .. } = effect {
            hand_over(txn, from, to)?;
        }
    }
    if !step.sessions.is_empty() {
        match &open {
            Some(session) => txn.put(&OPEN, &id.0, &session.id)?,
            None => drop(txn.delete(&OPEN, &id.0)?),
        }
    }
    match &step.channel {
        ChannelWrite::Keep => {}
        ChannelWrite::Purge => purge(txn, id)?,
        ChannelWrite::Put(record) => {
            txn.put(&CHANNELS, &id.0, record)?;
            if record.deleted_at.is_some() || pictured(old).is_some() && pictured(Some(record)).is_none() {
                txn.delete(&LOGOS, &id.0)?;
            }
            let name = record.config.name.as_str().to_owned();
            if record.deleted_at.is_none() {
                txn.put(&NAMES, &name, &id)?;
            } else if txn.get(&NAMES, &name)? == Some(id) {
                txn.delete(&NAMES, &name)?;
            }
        }
    }
    let mut last_event = None;
    for event in &step.events {
        last_event = Some(txn.append(&EVENTS, event)?);
    }
    Ok(Change { id, channel, open, outcome: step.outcome, effects: step.effects, last_event })
}

/// The picture of a channel's logo.
fn pictured(channel: Option<&ChannelRecord>) -> Option<&LogoImage> {
    channel?.config.policy.logo.as_ref()?.image.as_ref()
}

/// All that is kept of a channel whose tombstone has stood long enough.
fn purge(txn: &mut Write<'_, '_>, id: ChannelId) -> Result<(), Error> {
    let rows: Vec<Ulid> = {
        let view = txn.view();
        let keys = view.scan_prefix(&SESSIONS_BY_CHANNEL, &id.0)?;
        keys.filter_map(|row| row.ok().map(|((_, Newest(session)), ())| session)).collect()
    };
    for session in rows {
        txn.delete(&SESSIONS, &session)?;
        super::state::forget(txn, &SessionId::new(session))?;
    }
    txn.delete_prefix(&SESSIONS_BY_CHANNEL, &id.0)?;
    txn.delete(&PROFILES, &id.0)?;
    txn.delete(&LOGOS, &id.0)?;
    txn.delete(&CHANNELS, &id.0)?;
    Ok(())
}

// ── after the commit ────────────────────────────────────────────────────────────────────────────────────────────────

impl Shared {
    fn committed(&self, changes: Vec<Change>) {
        for change in changes {
            let next = change.channel.as_ref().and_then(|c| lifecycle::deadline(c, change.open.as_ref()));
            let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
            match next {
                Some(at) => drop(due.insert(change.id, at)),
                None => drop(due.remove(&change.id)),
            }
            drop(due);
            if let Some(channel) = &change.channel {
                for effect in change.effects {
                    self.plane.carry_out(&channel.config.name, effect);
                }
            }
            if let Some(seq) = change.last_event {
                self.newest_event.send_replace(seq);
            }
        }
    }

    /// Every channel, after a restart.
    fn recover(&self) -> Result<(), Error> {
        let ids = self.state.control.read(|view| {
            let rows = view.scan(&CHANNELS)?;
            let sound = rows.filter_map(|row| match row {
                Ok((id, _)) => Some(ChannelId(id)),
                Err(error) => {
                    log(Level::Error, "channel_damaged", &Place::default(), &error);
                    None
                }
            });
            Ok::<_, Error>(sound.collect::<Vec<_>>())
        })?;
        // Small groups: one damaged session costs its channel, not all.
        for id in ids {
            let recovered = self.state.control.write(Need::Essential, move |txn| {
                let Some(channel) = txn.get(&CHANNELS, &id.0)? else { return Ok(None) };
                let open = open_session(&txn.view(), id)?;
                let now = SystemClock.now().wall;
                let step = lifecycle::recover(&channel, open.as_ref(), now, &mut random::bits);
                let legacy = legacy(&txn.view(), id)?;
                Ok(Some((write(txn, Some((&channel, open.as_ref())), step)?, legacy)))
            });
            match recovered.wait() {
                Ok(None) => {}
                Ok(Some((change, legacy))) => self.recovered(change, legacy),
                Err(error @ (Error::Corrupt { .. } | Error::Bug(_))) => {
                    log(Level::Error, "channel_damaged", &Place::default(), &error)
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The channel is declared first, then what its sessions left, then the one that goes on.
    fn recovered(&self, mut change: Change, legacy: Legacy) {
        let later = change.effects.split_off(change.effects.len().min(1));
        let name = change.channel.as_ref().map(|channel| channel.config.name.clone());
        self.committed(vec![change]);
        let Some(name) = name else { return };
        self.plane.remember(&name, legacy);
        later.into_iter().for_each(|effect| self.plane.carry_out(&name, effect));
    }

    fn next_due(&self) -> Option<Wall> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner).values().min().copied()
    }

    fn take_due(&self, now: Wall) -> Vec<ChannelId> {
        let due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        due.iter().filter(|(_, at)| **at <= now).map(|(id, _)| *id).collect()
    }
}

// ── the clerk ───────────────────────────────────────────────────────────────────────────────────────────────────────

/// The thread that writes down facts and watches deadlines, one after the other.
struct Clerk {
    shared: Arc<Shared>,
    arrivals: Receiver<Inbound>,
    /// When media last flowed and the furthest frame, by session, not written yet.
    heard: BTreeMap<SessionId, (Option<Wall>, Option<Edge>)>,
}

impl Clerk {
    fn run(mut self) {
        let (mut batched, mut swept) = (SystemClock::mono(), SystemClock::mono());
        loop {
            match self.arrivals.recv_timeout(self.patience(batched)) {
                Ok(Inbound::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(Inbound::Publish(channel, publish, admitted)) => {
                    if self.enter(&channel, &Input::Publish(publish)) {
                        observe(Metric::SessionOpenSeconds, &[], (SystemClock::mono() - admitted).as_secs_f64());
                    } else {
                        self.shared.plane.turn_away(&channel, publish.publisher);
                    }
                }
                Ok(Inbound::Fact(_, session, Fact::Media(at))) => {
                    self.heard.entry(session).or_default().0 = Some(at);
                }
                Ok(Inbound::Fact(_, session, Fact::Edge { n, at })) => {
                    self.heard.entry(session).or_default().1 = Some(Edge { n, at: at.into() });
                }
                Ok(Inbound::Fact(channel, _, Fact::Learnt(profile))) => self.learn(&channel, profile),
                Ok(Inbound::Fact(channel, session, fact)) => {
                    self.enter(&channel, &Input::Fact(session, fact));
                }
                Ok(Inbound::Look) | Err(RecvTimeoutError::Timeout) => {}
            }
            for id in self.shared.take_due(SystemClock.now().wall) {
                self.write(move |txn, now| step(txn, id, &Input::Tick, now));
            }
            let now = SystemClock::mono();
            if now - batched >= BATCH {
                batched = now;
                self.write_heard();
            }
            if now - swept >= SWEEP {
                swept = now;
                self.sweep();
            }
        }
        self.write_heard();
    }

    /// Until the next deadline or batch.
    fn patience(&self, batched: Mono) -> Duration {
        let now = SystemClock.now();
        let batch = (batched + BATCH).since(now.mono);
        let due = self.shared.next_due().map(|at| Duration::from_nanos(u64::try_from(at.0 - now.wall.0).unwrap_or(0)));
        due.map_or(batch, |due| due.min(batch)).max(Duration::from_millis(1))
    }

    fn enter(&self, channel: &ChannelName, input: &Input) -> bool {
        let (name, input) = (channel.as_str().to_owned(), input.clone());
        self.write(move |txn, now| {
            let id = txn.get(&NAMES, &name)?.ok_or_else(no_such_channel)?;
            step(txn, id, &input, now)
        })
    }

    /// Repeats until the disk takes it: no fact is lost while the process lives. False: it was refused.
    fn write(
        &self,
        change: impl Fn(&mut Write<'_, '_>, Wall) -> Result<Change, Failure> + Send + Clone + 'static,
    ) -> bool {
        let mut told = false;
        loop {
            let change = change.clone();
            let shared = Arc::clone(&self.shared);
            let (done, outcome) = oneshot::channel();
            self.shared.state.control.write_then(
                Need::Essential,
                move |txn| change(txn, SystemClock.now().wall),
                move |result: Result<Change, Failure>| {
                    // The clerk waits for it.
                    drop(done.send(result.map(|change| shared.committed(vec![change]))));
                },
            );
            match outcome.blocking_recv() {
                Ok(Ok(())) => return true,
                // A channel that was deleted meanwhile, a publisher that came as its channel was stopped: the doors are
                // shut already, and the session's end is on its way.
                Ok(Err(Failure::Refused(refusal))) => {
                    log(Level::Info, "fact_refused", &Place::default(), refusal);
                    return false;
                }
                Ok(Err(Failure::Store(error))) if !error.may_pass() || self.shared.stopping.load(Ordering::Acquire) => {
                    log(Level::Error, "fact_not_written", &Place::default(), error);
                    return false;
                }
                Ok(Err(Failure::Store(error))) if !told => {
                    told = true;
                    log(Level::Error, "facts_wait_for_the_disk", &Place::default(), error);
                }
                Ok(Err(Failure::Store(_))) => {}
                Err(_) => return false,
            }
            // Woken early, it only tries early.
            std::thread::park_timeout(RETRY);
        }
    }

    /// Kept for the channel's later sessions. Lost, it is learnt again.
    fn learn(&self, channel: &ChannelName, profile: SourceProfile) {
        let name = channel.as_str().to_owned();
        let ticket = self.shared.state.control.write(Need::Essential, move |txn| match txn.get(&NAMES, &name)? {
            Some(id) => txn.put(&PROFILES, &id.0, &profile),
            None => Ok(()),
        });
        if let Err(error) = ticket.wait() {
            log(Level::Warn, "profile_not_kept", &Place::default(), error);
        }
    }

    /// When media last flowed, for all sessions in one write. Lost with the process, it is a second older at most.
    fn write_heard(&mut self) {
        if self.heard.is_empty() {
            return;
        }
        let heard = std::mem::take(&mut self.heard);
        let ticket = self.shared.state.control.write(Need::Essential, move |txn| {
            for (session, (at, edge)) in &heard {
                let Some(mut record) = txn.get(&SESSIONS, &session.ulid())?.filter(SessionRecord::is_open) else {
                    continue;
                };
                record.last_media_at = record.last_media_at.max(at.map(Utc::from));
                record.edge = record.edge.max(*edge);
                txn.put(&SESSIONS, &session.ulid(), &record)?;
            }
            Ok::<_, Error>(())
        });
        // The next second brings a newer one.
        drop(ticket.wait());
    }

    /// Events that are old enough.
    fn sweep(&self) {
        let ticket = self.shared.state.control.write(Need::Essential, |txn| {
            let now = SystemClock.now().wall;
            let first_kept = {
                let view = txn.view();
                let mut rows = view.scan(&EVENTS)?;
                // What a clock that was ahead wrote does not keep everything behind it.
                let young = |event: &Event| {
                    event.at + EVENTS_KEPT > now.into() && event.at.wall() <= Wall(now.0.saturating_add(AHEAD_MAX))
                };
                rows.find_map(|row| row.ok().filter(|(_, event)| young(event)).map(|(seq, _)| seq))
            };
            match first_kept {
                Some(seq) => txn.delete_before(&EVENTS, &seq),
                None => Ok(0),
            }
        });
        if let Err(error) = ticket.wait() {
            log(Level::Warn, "events_not_swept", &Place::default(), error);
        }
    }
}

#[cfg(test)]
mod tests;
