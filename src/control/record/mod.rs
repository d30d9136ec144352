//! What control remembers: channels, sessions, events. Plain values; JSON in the store and, less their secrets, in the API.
//! Readers take records of a newer Rung: unknown fields are passed over, missing ones have their default.

mod channel;
mod event;
mod id;
mod playback_key;
mod session;
mod utc;

pub use channel::{
    Activation, Applies, ChannelConfig, ChannelRecord, ChannelState, FIELDS, Legs, LogoFile, LogoImage, LogoSettings,
    OnMaxDuration, Policy, Preset, Profile, Slate, StreamKey,
};
pub use event::{Details, Event, EventRecord, EventSeq, KeyView, What};
pub use id::{ChannelId, EventId, PlaybackId, PlaybackKeyId, TokenId};
pub use playback_key::{Algorithm, PlaybackKey};
pub use session::{Edge, EndedReason, ErrorCause, Input, RunsOn, SessionError, SessionRecord, SessionState};
pub use utc::Utc;
