//! A session as it is kept.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use utoipa::ToSchema;

use super::{ChannelId, Profile, Utc};
use crate::media::channel::{Leg, PublisherId, SessionId};

/// One broadcast. Once ended it never changes again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRecord {
    pub id: SessionId,
    pub channel: ChannelId,
    pub state: SessionState,
    pub input: Input,
    /// Why it is degraded; empty: it is well.
    #[serde(default)]
    pub health: BTreeSet<String>,
    /// Where its pictures are made; `None`: they are not made, or it is not known yet.
    #[serde(default)]
    pub runs_on: Option<RunsOn>,
    /// What it was made of.
    pub profile: Profile,
    pub created_at: Utc,
    pub processing_at: Option<Utc>,
    /// First time.
    pub live_at: Option<Utc>,
    pub ended_at: Option<Utc>,
    pub ended_reason: Option<EndedReason>,
    /// The last one; it stays for the record when the session recovers.
    pub error: Option<SessionError>,
    /// Of its maximum duration.
    pub deadline: Option<Utc>,
    /// In `init`: media flows and is being looked at since then.
    pub probing_since: Option<Utc>,
    /// Written in batches: up to a second old after a crash.
    pub last_media_at: Option<Utc>,
    /// The furthest frame that was given out, written with it: no number below comes again.
    #[serde(default)]
    pub edge: Option<Edge>,
    /// While the input is lost.
    pub input_lost_at: Option<Utc>,
    /// While the input is lost: how long it is waited for.
    pub window_deadline: Option<Utc>,
    /// Legs that are up and who feeds them.
    #[serde(default)]
    pub publishers: BTreeMap<Leg, PublisherId>,
}

/// Where a session's pictures are decoded, scaled and encoded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunsOn {
    /// `gpu`: all of it there. `gpu_decode`: decoded and scaled on the GPU, encoded on the CPU. `software`: the CPU.
    /// `none`: nowhere, for want of room or of a GPU that is well.
    pub backend: String,
    /// The GPU, as the driver counts.
    pub gpu: Option<u32>,
    /// Why there, a sentence.
    pub why: String,
    /// 0: its first choice; every step down adds.
    pub step: u8,
}

/// How far a session had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Edge {
    /// Frame index.
    pub n: i64,
    pub at: Utc,
}

impl SessionRecord {
    pub fn is_open(&self) -> bool {
        self.state != SessionState::Ended
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum SessionState {
    /// A publisher was accepted.
    Init,
    /// The program is known, the pipelines are up.
    Processing,
    /// Playable.
    Live,
    /// Nobody can produce it, or its input is unusable; it goes on by itself when that changes.
    Error,
    /// Final.
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = SessionInput)]
pub enum Input {
    Connected,
    /// The publisher is waited for.
    Reconnecting,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SessionError {
    pub cause: ErrorCause,
    /// A sentence for the operator.
    pub detail: String,
    pub at: Utc,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCause {
    /// No known program, or a codec that is refused.
    InputInvalid,
    /// All producers failed, here and at the peer.
    Pipeline,
}

/// Every end of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EndedReason {
    /// No media came.
    NoMedia,
    /// The lost publisher did not come back in time.
    InputTimeout,
    /// In `error` for too long.
    Error,
    MaxDuration,
    UserStop,
    Deleted,
    /// The encoder said it was the end.
    Eos,
}

impl EndedReason {
    /// As records, events and the log write it.
    pub fn name(self) -> &'static str {
        match self {
            EndedReason::NoMedia => "no_media",
            EndedReason::InputTimeout => "input_timeout",
            EndedReason::Error => "error",
            EndedReason::MaxDuration => "max_duration",
            EndedReason::UserStop => "user_stop",
            EndedReason::Deleted => "deleted",
            EndedReason::Eos => "eos",
        }
    }

    /// A session that never had media is no broadcast: it is not counted as one.
    pub fn is_broadcast(self) -> bool {
        self != EndedReason::NoMedia
    }
}
