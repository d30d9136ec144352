//! The timeline's records on disk: what a session needs to continue with the same numbers after a restart.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::State;
use super::error::Error;
use super::store::Need;
use super::table::{Db, Table};
use super::txn::{Read, Write};
use crate::media::channel::SessionId;
use crate::media::grid::{Anchor, AudioAnchor, Commit, PdtLine, Record, SourceProfile, TimelineLog};
use crate::media::marker::{CUES_KEPT, KeptCue};
use crate::media::plan::{Inits, Kept, Plan};
use ulid::Ulid;

const PLANS: Table<Ulid, Plan> = Table::json(Db::Grid, 2);
const ANCHORS: Table<(Ulid, u32), Anchor> = Table::json(Db::Anchors, 1);
const AUDIO: Table<(Ulid, u16, u32), AudioAnchor> = Table::json(Db::Audio, 1);
const LINES: Table<(Ulid, i64), PdtLine> = Table::json(Db::Pdt, 1);
const BREAKS: Table<(Ulid, u64), ()> = Table::json(Db::Discont, 1);
const CUES: Table<(Ulid, u64), KeptCue> = Table::json(Db::Cues, 1);
const INITS: Table<Ulid, Inits> = Table::json(Db::Init, 1);
/// What channels learnt about their sources.
pub const PROFILES: Table<Ulid, SourceProfile> = Table::json(Db::Profile, 1);

/// Runs and lines that a session goes on with.
const KEPT: usize = 16;
/// Commits that a session may have waiting; it makes a handful per run. When full, a commit is refused.
const PENDING_MAX: usize = 64;

/// The durable log of one session. `wake` is called by the writer's thread when an outcome waits: it must only wake the
/// thread that polls.
pub struct LmdbLog {
    state: Arc<State>,
    wake: Arc<dyn Fn() + Send + Sync>,
    pending: usize,
    told: SyncSender<Outcome>,
    outcomes: Receiver<Outcome>,
}

type Outcome = (Record, Result<(), String>);

impl LmdbLog {
    pub fn new(state: Arc<State>, wake: Arc<dyn Fn() + Send + Sync>) -> LmdbLog {
        let (told, outcomes) = sync_channel(PENDING_MAX);
        LmdbLog { state, wake, pending: 0, told, outcomes }
    }
}

impl TimelineLog for LmdbLog {
    fn commit(&mut self, session: &SessionId, record: Record) -> Result<Commit, String> {
        if self.pending >= PENDING_MAX {
            return Err(format!("{PENDING_MAX} records of this session wait for the disk"));
        }
        let (session, told, wake) = (session.ulid(), self.told.clone(), self.wake.clone());
        let written = record.clone();
        let done = move |outcome: Result<(), Error>| {
            // The channel holds as many outcomes as may be pending; without its receiver the session is gone.
            drop(told.try_send((record, outcome.map_err(|e| e.to_string()))));
            wake();
        };
        self.pending += 1;
        self.state.control.write_then(Need::Essential, move |txn| put(txn, session, &written), done);
        Ok(Commit::Pending)
    }

    fn poll(&mut self) -> Option<Outcome> {
        let outcome = self.outcomes.try_recv().ok()?;
        self.pending -= 1;
        Some(outcome)
    }
}

fn put(txn: &mut Write<'_, '_>, session: Ulid, record: &Record) -> Result<(), Error> {
    match record {
        // It begins the log: what a session took over from the one before it ends with its own plan.
        Record::Plan(plan) => {
            forget(txn, &SessionId::new(session))?;
            txn.put(&PLANS, &session, plan)
        }
        Record::Anchor(anchor) => txn.put(&ANCHORS, &(session, anchor.run), anchor),
        Record::Audio(anchor) => txn.put(&AUDIO, &(session, anchor.track, anchor.run), anchor),
        Record::Pdt(line) => txn.put(&LINES, &(session, line.from_n), line),
        Record::Break { msn } => txn.put(&BREAKS, &(session, *msn), &()),
        Record::Inits(inits) => txn.put(&INITS, &session, inits),
        Record::Cue(cue) => {
            if let Some(old) = cue.seq.checked_sub(CUES_KEPT) {
                txn.delete(&CUES, &(session, old))?;
            }
            txn.put(&CUES, &(session, cue.seq), cue)
        }
    }
}

/// What is kept of a session; `None` before its grid stood. A damaged row is left out and returned beside it.
///
/// # Errors
/// The store failed.
pub fn load(view: &Read<'_>, session: &SessionId) -> Result<(Option<Kept>, Vec<Error>), Error> {
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    let key = session.ulid();
    let mut take = |row: Result<Record, Error>| match row {
        Ok(record) => good.push(record),
        Err(error) => bad.push(error),
    };
    view.scan_prefix(&PLANS, &key)?.for_each(|row| take(row.map(|(_, plan)| Record::Plan(Box::new(plan)))));
    view.scan_prefix(&ANCHORS, &key)?.for_each(|row| take(row.map(|(_, anchor)| Record::Anchor(anchor))));
    view.scan_prefix(&LINES, &key)?.for_each(|row| take(row.map(|(_, line)| Record::Pdt(line))));
    view.scan_prefix(&BREAKS, &key)?.for_each(|row| take(row.map(|((_, msn), ())| Record::Break { msn })));
    view.scan_prefix(&INITS, &key)?.for_each(|row| take(row.map(|(_, inits)| Record::Inits(inits))));
    view.scan_prefix(&CUES, &key)?.for_each(|row| take(row.map(|(_, cue)| Record::Cue(cue))));
    Ok((Kept::of(good), bad))
}

/// Session `to` goes on with what `from` committed, which keeps nothing.
///
/// # Errors
/// The store failed, or a record is damaged.
pub fn hand_over(txn: &mut Write<'_, '_>, from: &SessionId, to: &SessionId) -> Result<(), Error> {
    let (Some(kept), _) = load(&txn.view(), from)? else { return Ok(()) };
    let Kept { plan, anchors, lines, breaks, inits, cues } = kept;
    put(txn, to.ulid(), &Record::Plan(Box::new(plan)))?;
    // Only what is still looked at: a chain of sessions may go on for years.
    let (old_anchors, old_lines) = (anchors.len().saturating_sub(KEPT), lines.len().saturating_sub(KEPT));
    let anchors = anchors.into_iter().skip(old_anchors).map(Record::Anchor);
    let lines = lines.into_iter().skip(old_lines).map(Record::Pdt);
    let breaks = breaks.into_iter().map(|msn| Record::Break { msn });
    let cues = cues.into_iter().map(Record::Cue);
    anchors
        .chain(lines)
        .chain(breaks)
        .chain(inits.map(Record::Inits))
        .chain(cues)
        .try_for_each(|r| put(txn, to.ulid(), &r))?;
    forget(txn, from)
}

/// Removes all of it, once the session's recordings are gone too.
///
/// # Errors
/// The store failed.
pub fn forget(txn: &mut Write<'_, '_>, session: &SessionId) -> Result<(), Error> {
    let key = session.ulid();
    txn.delete_prefix(&PLANS, &key)?;
    txn.delete_prefix(&ANCHORS, &key)?;
    txn.delete_prefix(&AUDIO, &key)?;
    txn.delete_prefix(&LINES, &key)?;
    txn.delete_prefix(&BREAKS, &key)?;
    txn.delete_prefix(&INITS, &key)?;
    txn.delete_prefix(&CUES, &key)?;
    Ok(())
}
