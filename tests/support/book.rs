//! What must be true of a state folder whenever its process was killed, from one kill to the next.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rung::control::ledger::{CHANNELS, EVENTS, NAMES, OPEN, SESSIONS, SESSIONS_BY_CHANNEL};
use rung::control::record::{ChannelId, ChannelRecord, ChannelState, EventId, EventRecord, SessionRecord};
use rung::control::state::{Db, Error, Newest, Options, Read, Rows, State, Table, Ulid};
use rung::media::channel::SessionId;
use serde_json::Value;

use crate::fold::Fold;

const TOKENS: Table<Ulid, Value> = Table::json(Db::Tokens, 1);
const AUDIT: Table<u64, Value> = Table::json(Db::Audit, 1);

/// What a folder holds; of events and the audit only what is new since the last look.
pub(crate) struct Found {
    pub(crate) channels: BTreeMap<ChannelId, ChannelRecord>,
    pub(crate) names: BTreeMap<String, ChannelId>,
    pub(crate) sessions: BTreeMap<SessionId, SessionRecord>,
    by_channel: Vec<(ChannelId, SessionId)>,
    open: BTreeMap<ChannelId, SessionId>,
    pub(crate) events: Vec<EventRecord>,
    /// All of them.
    events_count: u64,
    audit: Vec<(u64, Value)>,
    /// Name to id.
    pub(crate) tokens: BTreeMap<String, String>,
}

/// All that was seen so far.
#[derive(Default)]
pub(crate) struct Book {
    fold: Fold,
    /// The last event's number.
    pub(crate) seq: u64,
    event_ids: BTreeSet<EventId>,
    /// Sessions that were seen ended, as they were then.
    ended: BTreeMap<SessionId, SessionRecord>,
    audit_seq: u64,
    /// Audit rows of each request.
    audited: BTreeMap<String, u64>,
}

/// Opens a folder that nobody holds.
pub(crate) fn open(folder: &Path) -> Result<State, String> {
    let state = State::open(&Options { ballast_bytes: 0, ..Options::new(folder) }).map_err(|e| e.to_string())?;
    match state.notes() {
        [] => Ok(state),
        notes => Err(notes.join("; ")),
    }
}

fn all<K: rung::control::state::Key, V>(rows: Rows<'_, K, V>) -> Result<Vec<(K, V)>, Error> {
    rows.collect()
}

impl Found {
    fn read(view: &Read<'_>, event: u64, audit: u64) -> Result<Found, Error> {
        let text = |row: &Value, member: &str| row[member].as_str().unwrap_or_default().to_owned();
        let sessions = all(view.scan(&SESSIONS)?)?.into_iter().map(|(id, row)| (SessionId::new(id), row));
        let keys = all(view.scan(&SESSIONS_BY_CHANNEL)?)?;
        let events = all(view.scan_from(&EVENTS, &event)?)?;
        Ok(Found {
            channels: all(view.scan(&CHANNELS)?)?.into_iter().map(|(id, row)| (ChannelId(id), row)).collect(),
            names: all(view.scan(&NAMES)?)?.into_iter().collect(),
            sessions: sessions.collect(),
            by_channel: keys.into_iter().map(|((of, Newest(id)), ())| (ChannelId(of), SessionId::new(id))).collect(),
            open: all(view.scan(&OPEN)?)?.into_iter().map(|(id, session)| (ChannelId(id), session)).collect(),
            events: events.into_iter().map(|(seq, event)| event.numbered(seq)).collect(),
            events_count: view.count(Db::Events)?,
            audit: all(view.scan_from(&AUDIT, &audit)?)?,
            tokens: all(view.scan(&TOKENS)?)?.iter().map(|(_, row)| (text(row, "name"), text(row, "id"))).collect(),
        })
    }
}

impl Book {
    /// Looks at a folder whose process is dead.
    pub(crate) fn check(&mut self, folder: &Path) -> Result<Found, String> {
        let state = open(folder)?;
        let (event, audit) = (self.seq + 1, self.audit_seq + 1);
        let found = state.control.read(|view| Found::read(view, event, audit)).map_err(|e| e.to_string())?;
        drop(state);
        self.hear(&found)?;
        self.events_agree(&found)?;
        self.invariants(&found)?;
        for (seq, row) in &found.audit {
            if *seq != self.audit_seq + 1 {
                return Err(format!("audit row {seq} follows {}", self.audit_seq));
            }
            self.audit_seq = *seq;
            *self.audited.entry(row["request_id"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
        }
        Ok(found)
    }

    /// A request that was answered has its row in the audit, once.
    pub(crate) fn was_done(&self, request_id: &str) -> Result<(), String> {
        match self.audited.get(request_id).copied().unwrap_or(0) {
            1 => Ok(()),
            0 => Err(format!("request {request_id} was acknowledged and is lost")),
            n => Err(format!("request {request_id} was done {n} times")),
        }
    }

    fn hear(&mut self, found: &Found) -> Result<(), String> {
        for event in &found.events {
            self.fold.apply(event)?;
            if !self.event_ids.insert(event.event.id) {
                return Err(format!("event {}: its id {} is there twice", event.seq, event.event.id));
            }
            self.seq = event.seq;
        }
        if found.events_count != self.seq {
            return Err(format!("{} events are there, the last one is number {}", found.events_count, self.seq));
        }
        Ok(())
    }

    /// States are what the events tell.
    fn events_agree(&self, found: &Found) -> Result<(), String> {
        let made = self.fold.seen.get("channel.created").copied().unwrap_or(0);
        if found.channels.len() as u64 != made {
            return Err(format!("{} channels, events tell of {made}", found.channels.len()));
        }
        let mut of_channel: BTreeMap<ChannelId, Vec<&SessionRecord>> = BTreeMap::new();
        for session in found.sessions.values() {
            of_channel.entry(session.channel).or_default().push(session);
        }
        for channel in found.channels.values() {
            let sessions = of_channel.remove(&channel.id).unwrap_or_default();
            self.fold.agrees(channel, sessions.iter().copied(), sessions.len())?;
        }
        match of_channel.keys().next() {
            None => Ok(()),
            Some(id) => Err(format!("sessions of {id}, which is no channel")),
        }
    }

    fn invariants(&mut self, found: &Found) -> Result<(), String> {
        for channel in found.channels.values() {
            let open: Vec<_> = found.sessions.values().filter(|s| s.channel == channel.id && s.is_open()).collect();
            let active = channel.state == ChannelState::Active;
            let pointed = found.open.get(&channel.id);
            let one = open.len() == usize::from(active) && pointed == open.first().map(|s| &s.id);
            let named = found.names.get(channel.config.name.as_str()) == Some(&channel.id);
            if !one {
                let name = &channel.config.name;
                return Err(format!("{name} is {:?} with {} open sessions, {pointed:?}", channel.state, open.len()));
            }
            if named == (channel.state == ChannelState::Deleted) {
                return Err(format!("{:?} channel {} and its name disagree", channel.state, channel.config.name));
            }
        }
        if let Some(id) = found.open.keys().chain(found.names.values()).find(|id| !found.channels.contains_key(id)) {
            return Err(format!("{id} has a name or a session and is no channel"));
        }
        let listed: BTreeSet<_> = found.by_channel.iter().cloned().collect();
        let kept: BTreeSet<_> = found.sessions.values().map(|s| (s.channel, s.id.clone())).collect();
        if listed != kept {
            return Err(format!("sessions and their list disagree at {:?}", listed.symmetric_difference(&kept).next()));
        }
        for session in found.sessions.values().filter(|s| !s.is_open()) {
            let over = session.ended_at.is_some() && session.ended_reason.is_some() && session.publishers.is_empty();
            let before = self.ended.entry(session.id.clone()).or_insert_with(|| session.clone());
            if !over || before != session {
                return Err(format!("an ended session changed:\n{before:?}\nis now\n{session:?}"));
            }
        }
        match self.ended.keys().find(|id| !found.sessions.contains_key(id)) {
            None => Ok(()),
            Some(id) => Err(format!("{id} had ended and is gone")),
        }
    }

    /// A line of what happened.
    pub(crate) fn tally(&self) -> String {
        let seen: Vec<String> = self.fold.seen.iter().map(|(name, count)| format!("{name} {count}")).collect();
        format!("{} events ({})", self.seq, seen.join(", "))
    }
}
