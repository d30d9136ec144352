//! Channels and sessions rebuilt from their events alone, and what must hold between two events. The model check of the life
//! cycle and the crash test of the daemon judge by it; the module above has `record` and `SessionId` in scope.

use std::collections::BTreeMap;

use super::SessionId;
use super::record::{
    ChannelConfig, ChannelId, ChannelRecord, ChannelState, EndedReason, Event, EventRecord, Input, KeyView, PlaybackId,
    Profile, SessionError, SessionRecord, SessionState, Utc, What,
};

/// What events tell of a channel.
#[derive(Clone, Debug, PartialEq)]
struct Channel {
    config: ChannelConfig,
    playback_id: PlaybackId,
    keys: Vec<KeyView>,
    state: ChannelState,
    armed: bool,
    revision: u64,
    event_seq: u64,
    created_at: Utc,
    updated_at: Utc,
    deleted_at: Option<Utc>,
}

/// What events tell of a session. Not in it: what is batched (last media, health) and what dies with the process
/// (publishers, probing).
#[derive(Clone, Debug, PartialEq)]
struct Session {
    channel: ChannelId,
    state: SessionState,
    input: Input,
    profile: Profile,
    created_at: Utc,
    processing_at: Option<Utc>,
    live_at: Option<Utc>,
    ended: Option<(Utc, EndedReason)>,
    error: Option<SessionError>,
    deadline: Option<Utc>,
    input_lost_at: Option<Utc>,
    window_deadline: Option<Utc>,
}

#[derive(Debug, Default)]
pub(crate) struct Fold {
    seq: u64,
    channels: BTreeMap<ChannelId, Channel>,
    sessions: BTreeMap<SessionId, Session>,
    /// Sessions of each channel.
    totals: BTreeMap<ChannelId, usize>,
    /// Events of each type.
    pub(crate) seen: BTreeMap<&'static str, u64>,
}

impl Fold {
    pub(crate) fn next_seq(&self) -> u64 {
        self.seq + 1
    }

    pub(crate) fn apply(&mut self, record: &EventRecord) -> Result<(), String> {
        let event = &record.event;
        let wrong = |what: String| Err(format!("event {} {}: {what}", record.seq, event.what.name()));
        if record.seq != self.seq + 1 {
            return wrong(format!("follows {}", self.seq));
        }
        self.seq = record.seq;
        *self.seen.entry(event.what.name()).or_default() += 1;
        let id = event.channel.ok_or("without a channel")?;
        let last = self.channels.get(&id).map_or(0, |c| c.event_seq);
        if event.channel_seq != Some(last + 1) {
            return wrong(format!("number {:?} of the channel follows {last}", event.channel_seq));
        }
        let told =
            if event.what.name().starts_with("session.") { self.session(id, event) } else { self.channel(id, event) };
        if let Some(channel) = self.channels.get_mut(&id) {
            channel.event_seq = last + 1;
        }
        told.or_else(wrong)
    }

    fn channel(&mut self, id: ChannelId, event: &Event) -> Result<(), String> {
        if let What::ChannelCreated { config, playback_id, stream_keys } = &event.what {
            let channel = Channel {
                config: (**config).clone(),
                playback_id: *playback_id,
                keys: stream_keys.clone(),
                state: ChannelState::Idle,
                armed: false,
                revision: 1,
                event_seq: 0,
                created_at: event.at,
                updated_at: event.at,
                deleted_at: None,
            };
            return if self.channels.insert(id, channel).is_none() { Ok(()) } else { Err("created twice".into()) };
        }
        let channel = self.channels.get_mut(&id).ok_or("of an unknown channel")?;
        let from = channel.state;
        channel.state = match &event.what {
            What::ChannelUpdated { config, stream_keys, armed, revision, .. } => {
                channel.config = (**config).clone();
                channel.keys.clone_from(stream_keys);
                (channel.armed, channel.revision, channel.updated_at) = (*armed, *revision, event.at);
                from
            }
            What::ChannelStarted { armed } => {
                channel.armed = *armed;
                if from == ChannelState::Stop { ChannelState::Idle } else { from }
            }
            What::ChannelActive {} if from == ChannelState::Idle => ChannelState::Active,
            What::ChannelIdle {} if from == ChannelState::Active => ChannelState::Idle,
            What::ChannelStopped {} if from != ChannelState::Stop => {
                channel.armed = false;
                ChannelState::Stop
            }
            What::ChannelDeleted {} if from != ChannelState::Deleted => {
                channel.keys.clear();
                channel.config.policy.pull = None;
                channel.armed = false;
                channel.deleted_at = Some(event.at);
                ChannelState::Deleted
            }
            _ => return Err(format!("in {from:?}")),
        };
        Ok(())
    }

    fn session(&mut self, channel: ChannelId, event: &Event) -> Result<(), String> {
        let id = event.session.clone().ok_or("without a session")?;
        if let What::SessionCreated { profile, deadline, .. } = &event.what {
            let session = Session {
                channel,
                state: SessionState::Init,
                input: Input::Connected,
                profile: (**profile).clone(),
                created_at: event.at,
                processing_at: None,
                live_at: None,
                ended: None,
                error: None,
                deadline: *deadline,
                input_lost_at: None,
                window_deadline: None,
            };
            *self.totals.entry(channel).or_default() += 1;
            return if self.sessions.insert(id, session).is_none() { Ok(()) } else { Err("created twice".into()) };
        }
        let session = self.sessions.get_mut(&id).ok_or("of an unknown session")?;
        let from = session.state;
        if from == SessionState::Ended || session.channel != channel {
            return Err(format!("in {from:?} of {}", session.channel));
        }
        match &event.what {
            What::SessionProcessing {} if from == SessionState::Init => {
                session.state = SessionState::Processing;
                session.processing_at.get_or_insert(event.at);
            }
            What::SessionRecovered {} if from == SessionState::Error => {
                session.state = SessionState::Processing;
                session.processing_at.get_or_insert(event.at);
            }
            What::SessionLive { live_at } if from == SessionState::Processing => {
                session.state = SessionState::Live;
                session.live_at = Some(*live_at);
            }
            What::SessionError { cause, detail } if from != SessionState::Error => {
                session.state = SessionState::Error;
                session.error = Some(SessionError { cause: *cause, detail: detail.clone(), at: event.at });
            }
            What::SessionInputLost { lost_at, window_deadline } if session.input == Input::Connected => {
                session.input = Input::Reconnecting;
                (session.input_lost_at, session.window_deadline) = (Some(*lost_at), Some(*window_deadline));
            }
            What::SessionInputRestored {} if session.input == Input::Reconnecting => {
                session.input = Input::Connected;
                (session.input_lost_at, session.window_deadline) = (None, None);
            }
            What::SessionEnded { reason, ended_at, .. } => {
                session.state = SessionState::Ended;
                session.ended = Some((*ended_at, *reason));
                session.window_deadline = None;
            }
            What::SessionLegUp { .. } | What::SessionPublisherReplaced { .. } => {}
            _ => return Err(format!("in {from:?}, input {:?}", session.input)),
        }
        Ok(())
    }

    /// The records say what their events say. `total`: sessions that are kept of the channel.
    pub(crate) fn agrees<'a>(
        &self,
        channel: &ChannelRecord,
        sessions: impl Iterator<Item = &'a SessionRecord>,
        total: usize,
    ) -> Result<(), String> {
        let told = self.channels.get(&channel.id).ok_or("a channel without events")?;
        let kept = of_channel(channel);
        if *told != kept {
            return Err(format!("channel: events say\n{told:?}\nthe record says\n{kept:?}"));
        }
        for session in sessions {
            let told = self.sessions.get(&session.id).ok_or("a session without events")?;
            let kept = of_session(session);
            if *told != kept {
                return Err(format!("{}: events say\n{told:?}\nthe record says\n{kept:?}", session.id));
            }
        }
        match self.totals.get(&channel.id).copied().unwrap_or(0) {
            told if told == total => Ok(()),
            told => Err(format!("{total} sessions are kept, events tell of {told}")),
        }
    }
}

fn of_channel(c: &ChannelRecord) -> Channel {
    Channel {
        config: c.config.clone(),
        playback_id: c.playback_id,
        keys: c.stream_keys.iter().map(KeyView::from).collect(),
        state: c.state,
        armed: c.armed,
        revision: c.revision,
        event_seq: c.event_seq,
        created_at: c.created_at,
        updated_at: c.updated_at,
        deleted_at: c.deleted_at,
    }
}

fn of_session(s: &SessionRecord) -> Session {
    Session {
        channel: s.channel,
        state: s.state,
        input: s.input,
        profile: s.profile.clone(),
        created_at: s.created_at,
        processing_at: s.processing_at,
        live_at: s.live_at,
        ended: s.ended_at.zip(s.ended_reason),
        error: s.error.clone(),
        deadline: s.deadline,
        input_lost_at: s.input_lost_at,
        window_deadline: s.window_deadline,
    }
}
