//! Channels as answers show them, and what requests may say about them.

use serde::Serialize;
use utoipa::ToSchema;

use super::{Options, QuicInput};
use crate::control::lifecycle::{Door, Outcome};
use crate::control::record::{
    Activation, ChannelConfig, ChannelId, ChannelRecord, ChannelState, KeyView, Legs, OnMaxDuration, PlaybackId,
    Preset, Slate, Utc,
};
use crate::media::captions::CaptionService;
use crate::media::channel::{BackendPolicy, ChannelKind, ChannelName, Ladder, Leg, SessionId, Takeover};
use crate::media::crop::Margins;
use crate::media::logo::LogoPlace;
use crate::media::modes::LatencyMode;
use crate::media::playback::PlaybackPolicy;
use crate::media::steering::Steering;
use crate::pipeline::ports::{PullState, PullStatus};

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
    /// SRT publishers encrypt with a passphrase of the channel's own.
    srt_passphrase: bool,
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

/// Where viewers find it: paths on this server. Of a signed channel they open nothing by themselves: ask
/// `/v1/channels/{id}/playback` for signed ones.
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

/// How one leg is published to, or where it is received from. `KEY` stands for a publish key.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Input)]
pub(super) struct InputView {
    /// `push`: the encoder calls. `pull`: Rung calls the source.
    direction: &'static str,
    /// `srt`: MPEG-TS over SRT, the encoder calls. `quic`: MPEG-TS over QUIC (`rung-ts/1`), from `rung push`.
    protocol: &'static str,
    leg: Leg,
    /// For OBS, ffmpeg and whatever takes a URL; of a source, its address without secrets.
    url: String,
    /// The same with the long form of the stream id, for encoders that want it; SRT only.
    url_long: String,
    /// For encoders that ask for the stream id by itself.
    stream_id: String,
    /// Whose passphrase a publisher must give; `null`: none.
    passphrase: Option<Whose>,
    /// Of QUIC: SHA-256 of the certificate that the publisher must find; null where an authority vouches for it.
    pin: Option<String>,
    /// Latency that Rung asks for, milliseconds; more where the encoder asks for more.
    latency_ms: u32,
    /// Of a source that Rung calls, null for others. `off`: the channel is stopped, or not started yet. `calling`: it is
    /// called, again and again. `standby`: another publisher is on air; the source is called once that is gone.
    /// `connected`: it answered and has sent no media yet. `on_air`: it feeds the channel.
    state: Option<&'static str>,
    /// Of a source that Rung calls: why there is no connection.
    error: Option<String>,
}

/// Whose passphrase it is.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = PassphraseOf)]
enum Whose {
    /// Of all channels of the box: its operator knows it.
    Box,
    /// The source's that is called: the one in its address.
    Source,
    /// The channel's own, which was put to `/v1/channels/{id}/srt-passphrase`.
    Channel,
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
            /// How far back viewers may go, seconds, six target durations or more; twice that is held in memory. `null`:
            /// the mode's window.
            #[schema(maximum = 21_600)]
            window_s: Option<u32>,
            /// Where players begin: seconds from the end, below zero, no nearer than the hold-back and no further than the
            /// window; `null`: as near to the end as they may.
            #[schema(minimum = -21_600, maximum = -6)]
            start_offset_s: Option<i32>,
            /// Of the software encoder; `null`: the mode's.
            preset: Option<Preset>,
            /// Where it may run: `gpu` never falls back to the CPU; `null`: as the box is configured.
            backend: Option<BackendPolicy>,
            slate: Option<Slate>,
            /// Cut off the source's picture, luma samples; edges that are not named stay as they are; `null`: nothing.
            crop: Option<Margins>,
            /// Closed captions that players are told of; `[]`: none; `null`: those that the source's PMT describes, else those
            /// that were seen in its pictures.
            #[schema(max_items = 20)]
            captions: Option<Vec<CaptionService>>,
            /// The multivariant playlist has a variant of sound alone; `null`: it has. Apple forbids one on tvOS.
            audio_only: Option<bool>,
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
            /// Networks that publishers may come from, such as `192.0.2.0/24`; `null`: from anywhere.
            #[schema(min_items = 1, max_items = 100)]
            publish_from: Option<Vec<String>>,
            /// Where an SRT source listens that Rung calls and receives leg a from: `srt://host:port`, with `streamid`,
            /// `passphrase`, `pbkeylen` (16, 24, 32) and `latency` (milliseconds) behind a `?`. Answers show stars in place of
            /// its secrets; what they show, written back, leaves it as it is. `null`: publishers come by themselves.
            #[schema(max_length = 2_048, example = "srt://encoder.example.com:9000?latency=200")]
            pull: Option<String>,
            /// Origins that players are steered to, in this order; `null`: they stay where they found the channel.
            steering: Option<Steering>,
            /// `signed`: only who has a signed address may watch, pictures included.
            playback_policy: Option<PlaybackPolicy>,
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
            srt_passphrase: channel.srt_passphrase.is_some(),
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

/// The inputs of a channel. `host`: the name that the caller reached this box by; `pull`: how far its source is.
pub(super) fn inputs(
    channel: &ChannelRecord,
    host: &str,
    options: &Options,
    pull: Option<PullStatus>,
) -> Vec<InputView> {
    let config = &channel.config;
    let passphrase = match &channel.srt_passphrase {
        Some(_) => Some(Whose::Channel),
        None => options.srt_passphrase.then_some(Whose::Box),
    };
    let legs: &[Leg] = if config.policy.legs == Legs::Single { &[Leg::A] } else { &[Leg::A, Leg::B] };
    let srt = legs.iter().map(|leg| InputView { passphrase, ..srt_input(config, host, *leg, options.srt_port) });
    let quic = options.quic.iter().flat_map(|quic| legs.iter().map(move |leg| quic_input(config, host, *leg, quic)));
    srt.chain(quic).chain(pull_input(channel, pull)).collect()
}

fn pull_input(channel: &ChannelRecord, status: Option<PullStatus>) -> Option<InputView> {
    let pull = channel.config.policy.pull.as_ref()?;
    let called = Door::of(channel).pull.is_some();
    let state = status.as_ref().map_or(PullState::Calling, |status| status.state).name();
    let asked = u32::try_from(pull.url().latency.as_millis()).unwrap_or(u32::MAX);
    Some(InputView {
        direction: "pull",
        protocol: "srt",
        leg: Leg::A,
        url: pull.to_string(),
        url_long: pull.to_string(),
        stream_id: String::new(),
        passphrase: pull.url().passphrase.is_some().then_some(Whose::Source),
        pin: None,
        latency_ms: asked.max(channel.config.profile.mode.params().srt_latency_ms),
        state: Some(if called { state } else { "off" }),
        error: status.filter(|_| called).and_then(|status| status.error),
    })
}

fn srt_input(config: &ChannelConfig, host: &str, leg: Leg, port: u16) -> InputView {
    let name = config.name.as_str();
    let (short, long) = match leg {
        Leg::A => ("", ""),
        Leg::B => ("/b", ",leg=b"),
    };
    let stream_id = format!("{name}/KEY{short}");
    let long = format!("%23!::r={name},k=KEY,m=publish{long}");
    InputView {
        direction: "push",
        protocol: "srt",
        leg,
        url: format!("srt://{host}:{port}?streamid={stream_id}"),
        url_long: format!("srt://{host}:{port}?streamid={long}"),
        stream_id,
        passphrase: None,
        pin: None,
        latency_ms: config.profile.mode.params().srt_latency_ms,
        state: None,
        error: None,
    }
}

fn quic_input(config: &ChannelConfig, host: &str, leg: Leg, quic: &QuicInput) -> InputView {
    let short = if leg == Leg::A { "" } else { "/b" };
    let stream_id = format!("{}/KEY{short}", config.name);
    let pin = quic.pin.as_ref().map_or_else(String::new, |pin| format!("?pin={pin}"));
    let url = format!("quic://{host}:{}/{stream_id}{pin}", quic.port);
    InputView {
        direction: "push",
        protocol: "quic",
        leg,
        url_long: url.clone(),
        url,
        stream_id,
        passphrase: None,
        pin: quic.pin.clone(),
        latency_ms: config.profile.mode.params().srt_latency_ms,
        state: None,
        error: None,
    }
}
