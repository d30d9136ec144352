//! What is told about channels: to pages, to health, to tests. Plain values, made once a second.

use crate::ingest::PublisherStats;
use crate::media::channel::{Channel, ChannelKind, ChannelName};
use crate::media::modes::LatencyMode;
use crate::pixels::protocol::Backend;
use crate::time::Wall;

/// A session's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// A publisher was accepted.
    Init,
    /// The program is known, the ladder is being built.
    Processing,
    /// Playable.
    Live,
    /// Nobody can produce it; it goes on by itself when somebody can.
    Error,
    /// Final.
    Ended,
}

impl State {
    pub const ALL: [State; 5] = [State::Init, State::Processing, State::Live, State::Error, State::Ended];

    pub fn name(self) -> &'static str {
        match self {
            State::Init => "init",
            State::Processing => "processing",
            State::Live => "live",
            State::Error => "error",
            State::Ended => "ended",
        }
    }
}

/// A sub-state of an open session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputState {
    Connected,
    /// The source is lost; hold and slate stand in for it until it comes back or the reconnect window is over.
    Reconnecting,
}

impl InputState {
    pub fn name(self) -> &'static str {
        match self {
            InputState::Connected => "connected",
            InputState::Reconnecting => "reconnecting",
        }
    }
}

#[derive(Clone, Debug)]
pub struct ChannelStatus {
    pub name: ChannelName,
    pub kind: ChannelKind,
    pub mode: LatencyMode,
    pub session: Option<SessionStatus>,
}

impl ChannelStatus {
    /// A channel without a session.
    pub fn idle(config: &Channel) -> ChannelStatus {
        ChannelStatus { name: config.name.clone(), kind: config.kind, mode: config.mode, session: None }
    }
}

#[derive(Clone, Debug)]
pub struct SessionStatus {
    pub id: String,
    pub state: State,
    /// When it went live.
    pub live_since: Option<Wall>,
    pub input: InputState,
    /// A sentence, if there is something to say.
    pub detail: Option<String>,
    pub renditions: Vec<RenditionStatus>,
    /// The poster's entity tag, if there is one.
    pub poster: Option<String>,
    pub worker: Option<WorkerStatus>,
    pub publishers: Vec<PublisherStatus>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenditionStatus {
    pub name: String,
    pub width: u32,
    pub height: u32,
    pub bitrate: u64,
    pub shed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerStatus {
    pub up: bool,
    pub respawns: u64,
    pub cpu_us: u64,
    pub rss_bytes: u64,
    /// Where it works; `None`: nowhere, or it makes only sound.
    pub backend: Option<(Backend, Option<u32>)>,
}

#[derive(Clone, Debug)]
pub struct PublisherStatus {
    pub leg: &'static str,
    pub stats: PublisherStats,
}
