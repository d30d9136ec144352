//! What the pages are told: `/status.json`.

use serde::Serialize;

/// Where the status comes from; called per request, must not block.
pub trait StatusSource: Send + Sync {
    /// Of all channels, or of the one that is named, if there is one.
    fn status(&self, channel: Option<&str>) -> Status;
}

impl<F: Fn(Option<&str>) -> Status + Send + Sync> StatusSource for F {
    fn status(&self, channel: Option<&str>) -> Status {
        self(channel)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Status {
    pub version: String,
    /// Unix time of the server, milliseconds: pages measure latency by it.
    pub now_ms: u64,
    pub channels: Vec<ChannelStatus>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ChannelStatus {
    pub name: String,
    /// `idle`, `init`, `processing`, `live`, `reconnecting`, `ended` or `error`.
    pub state: String,
    /// The latency mode's name.
    pub mode: String,
    pub session: Option<String>,
    /// Unix milliseconds at which the session went live.
    pub since_ms: Option<u64>,
    /// A sentence for the viewer, if there is something to say (the cause of an error).
    pub detail: Option<String>,
    /// Only who has a signed address may watch it.
    pub signed: bool,
    /// Address of the newest picture; another one with each picture. Of a signed channel none is told.
    pub poster: Option<String>,
    pub renditions: Vec<RenditionStatus>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RenditionStatus {
    pub name: String,
    pub width: u32,
    pub height: u32,
    /// Bits per second.
    pub bitrate: u64,
    /// `live` or `shed`.
    pub state: String,
}
