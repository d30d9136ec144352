//! Channels as answers show them, and what requests may say about them.

use serde::Serialize;
use utoipa::ToSchema;

use crate::control::lifecycle::Outcome;
use crate::control::record::{
    Activation, ChannelConfig, ChannelId, ChannelRecord, ChannelState, KeyView, Legs, OnMaxDuration, PlaybackId,
    Preset, Slate, Utc,
};
use crate::media::channel::{BackendPolicy, ChannelKind, ChannelName, Ladder, Leg, SessionId, Takeover};
use crate::media::crop::Margins;
use crate::media::logo::LogoPlace;
use crate::media::modes::LatencyMode;

/// A configured live service.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Channel)]
pub(super) struct ChannelView {
    pub(super) id: ChannelId,
    #[serde(flatten)]
    pub(super) config: ChannelConfig,
    pub(super) playback_id: PlaybackId,
    /// Newest first: one, or two while a rotation lasts. Of each only its first characters.
    stream_keys: Vec<KeyView>,
    pub(super) state: ChannelState,
    /// A channel with manual activation was started and takes publishers.
    armed: bool,
    /// Grows with every change of configuration: the ETag.
    pub(super) revision: u64,
    created_at: Utc,
    /// Of the configuration.
    updated_at: Utc,
    /// The open session.
    pub(super) session: Option<SessionId>,
    playback: PlaybackView,
}

/// Where viewers find it: paths on this server.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Playback)]
struct PlaybackView {
    /// The multivariant playlist.
    playlist: String,
    /// The newest picture as a JPEG, a new one each 5 s while the channel is live.
    poster: String,
    /// WebVTT of the pictures that can be rewound to, while the channel is live.
    storyboard: String,
    /// The watch page.
    watch: String,
}

/// When the changes of a request are in force.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub(super) struct Applied {
    /// Fields that are in force already.
    #[schema(value_type = Vec<String>)]
    now: Vec<&'static str>,
    /// Fields that are in force from the next session on.
    #[schema(value_type = Vec<String>)]
    next_session: Vec<&'static str>,
}

/// A changed channel.
#[derive(Serialize, ToSchema)]
pub(super) struct ChangedChannel {
    #[serde(flatten)]
    pub(super) channel: ChannelView,
    pub(super) applied: Applied,
}

/// A channel and its new publish key, which is shown this once.
#[derive(Serialize, ToSchema)]
pub(super) struct ChannelWithKey {
    #[serde(flatten)]
    pub(super) channel: ChannelView,
    /// 26 characters of a-z and 0-9. Rung keeps its digest only.
    pub(super) stream_key: String,
    pub(super) inputs: Vec<InputView>,
}

/// How one leg is published to. `KEY` stands for a publish key.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Input)]
pub(super) struct InputView {
    /// `srt`: MPEG-TS with H.264 and AAC over SRT, the encoder calls.
    protocol: &'static str,
    leg: Leg,
    /// For OBS, ffmpeg and whatever takes a URL.
    url: String,
    /// The same with the long form of the stream id, for encoders that want it.
    url_long: String,
    /// For encoders that ask for the stream id by itself.
    stream_id: String,
    /// The port wants a passphrase: the operator of the box knows it.
    passphrase: bool,
    /// Latency that Rung asks for, milliseconds; more where the encoder asks for more.
    latency_ms: u32,
}

/// The inputs of a channel.
#[derive(Serialize, ToSchema)]
pub(super) struct Inputs {
    pub(super) inputs: Vec<InputView>,
}

/// The ladder of a channel.
#[derive(Serialize, ToSchema)]
pub(super) struct Renditions {
    /// Best first; `null`: the default ladder of the source's height.
    pub(super) ladder: Option<Ladder>,
    pub(super) applied: Applied,
}

/// A ladder for a channel.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewRenditions {
    /// Best first; `null`: the default ladder of the source's height.
    #[schema(required = true)]
    ladder: Option<Ladder>,
}

/// A rotation of the publish key.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Rotation {
    /// How long the key in force stays valid, seconds; 0: it is revoked at once.
    #[schema(maximum = 2_592_000, default = 86_400)]
    grace_s: Option<u32>,
}

macro_rules! channel_fields {
    ($(#[$doc:meta])* $name:ident { $($own:tt)* }) => {
        $(#[$doc])*
        #[derive(Serialize, ToSchema)]
        #[serde(deny_unknown_fields)]
        pub(super) struct $name {
            $($own)*
            kind: Option<ChannelKind>,
            mode: Option<LatencyMode>,
            /// Best first; `null`: the default ladder of the source's height.
            ladder: Option<Ladder>,
            /// PART-HOLD-BACK in milliseconds, `ultra` only; `null`: the mode's.
            #[schema(minimum = 1_200, maximum = 60_000)]
            hold_back_ms: Option<u32>,
            /// Of the software encoder; `null`: the mode's.
            preset: Option<Preset>,
            /// Where it may run: `gpu` never falls back to the CPU; `null`: as the box is configured.
            backend: Option<BackendPolicy>,
            slate: Option<Slate>,
            /// Cut off the source's picture, luma samples; edges that are not named stay as they are; `null`: nothing.
            crop: Option<Margins>,
            /// A session's longest life in seconds, 60 or more; 0: unlimited; `null`: 12 hours.
            #[schema(maximum = 2_592_000)]
            max_duration_s: Option<u32>,
            takeover: Option<Takeover>,
            activation: Option<Activation>,
            /// How long a session waits for its lost publisher, seconds; `null`: the mode's.
            #[schema(maximum = 1_800)]
            reconnect_window_s: Option<u32>,
            on_max_duration: Option<OnMaxDuration>,
            /// A publisher that says it has finished ends the session.
            end_on_eos: Option<bool>,
            legs: Option<Legs>,
            /// Where the logo lies; what is not named stays as it is; `null`: no logo, its picture goes, too.
            logo: Option<LogoPlace>,
        }
    };
}

channel_fields! {
    /// A new channel: its name, and what is not to be at its default.
    NewChannel {
        /// Part of every URL: it stays.
        name: ChannelName,
        /// Name or id of a template whose ladder is copied.
        from: Option<String>,
    }
}

channel_fields! {
    /// A JSON merge patch: what is not named stays, `null` is the default.
    ChannelPatch {
        /// It stays: only its own value is taken.
        #[schema(nullable = false)]
        name: Option<ChannelName>,
    }
}

impl ChannelView {
    pub(super) fn new(channel: &ChannelRecord, session: Option<SessionId>) -> ChannelView {
        let name = channel.config.name.as_str();
        ChannelView {
            id: channel.id,
            config: channel.config.clone(),
            playback_id: channel.playback_id,
            stream_keys: channel.stream_keys.iter().map(KeyView::from).collect(),
            state: channel.state,
            armed: channel.armed,
            revision: channel.revision,
            created_at: channel.created_at,
            updated_at: channel.updated_at,
            session,
            playback: PlaybackView {
                playlist: format!("/live/{name}/index.m3u8"),
                poster: format!("/live/{name}/poster.jpg"),
                storyboard: format!("/live/{name}/storyboard.vtt"),
                watch: format!("/watch/{name}"),
            },
        }
    }
}

impl From<Outcome> for Applied {
    fn from(outcome: Outcome) -> Applied {
        Applied { now: outcome.now, next_session: outcome.next_session }
    }
}

/// The inputs of a channel. `host`: the name that the caller reached this box by.
pub(super) fn inputs(config: &ChannelConfig, host: &str, srt_port: u16, passphrase: bool) -> Vec<InputView> {
    let name = config.name.as_str();
    let legs: &[Leg] = if config.policy.legs == Legs::Single { &[Leg::A] } else { &[Leg::A, Leg::B] };
    let of = |leg: &Leg| {
        let (short, long) = match leg {
            Leg::A => (String::new(), String::new()),
            Leg::B => ("/b".to_owned(), ",leg=b".to_owned()),
        };
        let stream_id = format!("{name}/KEY{short}");
        let long = format!("%23!::r={name},k=KEY,m=publish{long}");
        InputView {
            protocol: "srt",
            leg: *leg,
            url: format!("srt://{host}:{srt_port}?streamid={stream_id}"),
            url_long: format!("srt://{host}:{srt_port}?streamid={long}"),
            stream_id,
            passphrase,
            latency_ms: config.profile.mode.params().srt_latency_ms,
        }
    };
    legs.iter().map(of).collect()
}
