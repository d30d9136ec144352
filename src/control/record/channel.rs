//! A channel as it is kept: what its operator configured, and where it stands.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::time::Duration;
use utoipa::ToSchema;

use super::{ChannelId, PlaybackId, Utc};
use crate::media::captions::CaptionService;
use crate::media::channel::{BackendPolicy, Channel, ChannelKind, ChannelName, Ladder, Takeover};
use crate::media::crop::Margins;
use crate::media::key::{KeyDigest, Passphrase, hex};
use crate::media::limits::MAX_DURATION_S;
use crate::media::logo::{Logo, LogoPicture, LogoPlace};
use crate::media::modes::LatencyMode;
use crate::media::networks::Networks;
use crate::media::playback::{Access, PlaybackPolicy};
use crate::media::steering::Steering;
use crate::pipeline::ports::PullUrl;

/// One channel. Holds digests of keys and a passphrase: never sent to anybody as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelRecord {
    pub id: ChannelId,
    /// Its secrets are kept beside it, in `pull_address`: nowhere else are they written.
    #[serde(flatten, with = "kept")]
    pub config: ChannelConfig,
    pub playback_id: PlaybackId,
    /// Newest first: one, or two while a rotation lasts; none once deleted.
    pub stream_keys: Vec<StreamKey>,
    /// What SRT publishers must encrypt with; `None`: what the box wants of all.
    #[serde(default)]
    pub srt_passphrase: Option<Passphrase>,
    pub state: ChannelState,
    /// A channel with manual activation was started and takes publishers.
    pub armed: bool,
    /// Grows with every change of configuration: the ETag.
    pub revision: u64,
    /// How many events the channel has had: the last one's number.
    pub event_seq: u64,
    pub created_at: Utc,
    /// Of the configuration.
    pub updated_at: Utc,
    pub deleted_at: Option<Utc>,
}

impl ChannelRecord {
    /// A channel as it is made `at` that time: idle, nothing has happened to it.
    pub fn new(
        id: ChannelId,
        config: ChannelConfig,
        playback_id: PlaybackId,
        stream_keys: Vec<StreamKey>,
        at: Utc,
    ) -> ChannelRecord {
        ChannelRecord {
            id,
            config,
            playback_id,
            stream_keys,
            srt_passphrase: None,
            state: ChannelState::Idle,
            armed: false,
            revision: 1,
            event_seq: 0,
            created_at: at,
            updated_at: at,
            deleted_at: None,
        }
    }
}

/// A configuration with what it does not show.
mod kept {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{ChannelConfig, PullUrl};

    #[derive(Serialize)]
    struct Written<'a> {
        #[serde(flatten)]
        config: &'a ChannelConfig,
        pull_address: Option<&'a str>,
    }

    #[derive(Deserialize)]
    struct Read {
        #[serde(flatten)]
        config: ChannelConfig,
        #[serde(default)]
        pull_address: Option<PullUrl>,
    }

    pub(super) fn serialize<S: Serializer>(config: &ChannelConfig, serializer: S) -> Result<S::Ok, S::Error> {
        Written { config, pull_address: config.policy.pull.as_ref().map(PullUrl::expose) }.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ChannelConfig, D::Error> {
        let Read { mut config, pull_address } = Read::deserialize(deserializer)?;
        config.policy.pull = pull_address;
        Ok(config)
    }
}

/// All that an operator may write, in three kinds: fixed, in force now, in force from the next session on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChannelConfig {
    pub name: ChannelName,
    #[serde(flatten)]
    pub profile: Profile,
    #[serde(flatten)]
    pub policy: Policy,
}

/// What a session is made of: a change waits for the next one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Profile {
    pub kind: ChannelKind,
    pub mode: LatencyMode,
    /// `None`: the default ladder of the source's height.
    pub ladder: Option<Ladder>,
    /// PART-HOLD-BACK in milliseconds (`ultra` only); `None`: the mode's.
    pub hold_back_ms: Option<u32>,
    /// How far back viewers may go, seconds; `None`: the mode's window.
    pub window_s: Option<u32>,
    /// EXT-X-START, seconds from the end, below zero; `None`: none.
    pub start_offset_s: Option<i32>,
    /// `None`: the mode's.
    pub preset: Option<Preset>,
    /// Where it may run; `None`: as the box is configured.
    pub backend: Option<BackendPolicy>,
    pub slate: Slate,
    /// Cut off the source's picture before it is scaled: what is left is all that the renditions know of. `None`: nothing.
    pub crop: Option<Margins>,
    /// Closed captions that players are told of. `None`: those that the source's PMT describes, else those that were seen in
    /// its pictures. An empty list: none, and encoded pictures carry none.
    #[schema(max_items = 20)]
    pub captions: Option<Vec<CaptionService>>,
    /// The multivariant playlist has a variant of sound alone. Apple forbids one on tvOS.
    pub audio_only: bool,
    /// A session's longest life in seconds; 0: unlimited.
    pub max_duration_s: u32,
}

/// How the channel is run: a change is in force at once, in an open session too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Policy {
    pub takeover: Takeover,
    pub activation: Activation,
    /// How long a session waits for its lost publisher; `None`: the mode's. A window that runs keeps its end.
    pub reconnect_window_s: Option<u32>,
    pub on_max_duration: OnMaxDuration,
    /// A publisher that says it has finished ends the session.
    pub end_on_eos: bool,
    pub legs: Legs,
    /// Networks that publishers may come from; `None`: from anywhere.
    #[schema(value_type = Option<Vec<String>>)]
    pub publish_from: Option<Networks>,
    /// Where an SRT source listens that Rung calls, `srt://host:port`; secrets in it are not shown. `None`: publishers come
    /// by themselves.
    #[schema(value_type = Option<String>)]
    pub pull: Option<PullUrl>,
    /// Origins that players are steered to. `None`: they stay where they found the channel.
    pub steering: Option<Steering>,
    /// Who may watch. What viewers hold of signed addresses lasts until they expire.
    pub playback_policy: PlaybackPolicy,
    /// Over every rendition that is encoded. `None`: there is none.
    pub logo: Option<LogoSettings>,
}

/// A channel's logo: where it lies, and which picture it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
#[schema(as = Logo)]
pub struct LogoSettings {
    #[serde(flatten)]
    pub place: LogoPlace,
    /// The PNG that was put to `/v1/channels/{id}/logo`; `null`: none was, and nothing is shown.
    pub image: Option<LogoImage>,
}

/// What is known of a logo's PNG.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogoImage {
    /// Of the file, hexadecimal.
    pub sha256: String,
    pub width: u32,
    pub height: u32,
    /// Of the file.
    pub bytes: u32,
}

/// A logo's PNG as it is kept: in Base64, since rows are JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogoFile {
    png: String,
}

impl LogoFile {
    pub fn of(png: &[u8]) -> LogoFile {
        LogoFile { png: BASE64_STANDARD.encode(png) }
    }

    /// `None`: the row was written by somebody else.
    pub fn png(&self) -> Option<Vec<u8>> {
        BASE64_STANDARD.decode(&self.png).ok()
    }
}

impl LogoImage {
    /// Of a PNG whose pixels were read.
    pub fn of(png: &[u8], (width, height): (u32, u32)) -> LogoImage {
        let sha256 = hex(&Sha256::digest(png));
        LogoImage { sha256, width, height, bytes: u32::try_from(png.len()).unwrap_or(u32::MAX) }
    }
}

/// When a change of a field is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Applies {
    Now,
    NextSession,
    /// Written once, at creation.
    Fixed,
    /// Rung's own: nobody writes it.
    ByRung,
}

/// Every field of a channel, and when a change of it is in force. The one place that says so.
pub const FIELDS: &[(&str, Applies)] = &[
    ("id", Applies::ByRung),
    ("name", Applies::Fixed),
    ("kind", Applies::NextSession),
    ("mode", Applies::NextSession),
    ("ladder", Applies::NextSession),
    ("hold_back_ms", Applies::NextSession),
    ("window_s", Applies::NextSession),
    ("start_offset_s", Applies::NextSession),
    ("preset", Applies::NextSession),
    ("backend", Applies::NextSession),
    ("slate", Applies::NextSession),
    ("crop", Applies::NextSession),
    ("captions", Applies::NextSession),
    ("audio_only", Applies::NextSession),
    ("max_duration_s", Applies::NextSession),
    ("takeover", Applies::Now),
    ("activation", Applies::Now),
    ("reconnect_window_s", Applies::Now),
    ("on_max_duration", Applies::Now),
    ("end_on_eos", Applies::Now),
    ("legs", Applies::Now),
    ("publish_from", Applies::Now),
    ("pull", Applies::Now),
    ("steering", Applies::Now),
    ("playback_policy", Applies::Now),
    ("logo", Applies::Now),
    ("playback_id", Applies::ByRung),
    ("stream_keys", Applies::ByRung),
    ("srt_passphrase", Applies::ByRung),
    ("pull_address", Applies::ByRung),
    ("state", Applies::ByRung),
    ("armed", Applies::ByRung),
    ("revision", Applies::ByRung),
    ("event_seq", Applies::ByRung),
    ("created_at", Applies::ByRung),
    ("updated_at", Applies::ByRung),
    ("deleted_at", Applies::ByRung),
];

/// A publish key, of which only the digest is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamKey {
    pub digest: KeyDigest,
    /// Its first characters, to tell keys apart; empty where Rung was given the digest only.
    pub prefix: String,
    pub created_at: Utc,
    /// `None`: until it is rotated.
    pub expires_at: Option<Utc>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ChannelState {
    /// No open session.
    Idle,
    /// Exactly one open session.
    Active,
    /// Stopped by its operator: publishers are refused.
    Stop,
    /// Remembered for a while, shown nowhere.
    Deleted,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// The first accepted publisher activates the channel.
    #[default]
    Auto,
    /// Publishers are refused until the channel is started.
    Manual,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnMaxDuration {
    /// The session ends and its publishers are disconnected.
    #[default]
    End,
    /// Another session goes on with the same publishers.
    Rollover,
}

/// What is shown once the held picture has grown old.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Slate {
    #[default]
    #[schema(title = "SlateBlack")]
    Black,
    /// A PNG or JPEG file on this box.
    #[schema(title = "SlateFile")]
    File(String),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Legs {
    /// Leg a only.
    Single,
    /// Legs a and b: the second costs nothing until somebody publishes on it.
    #[default]
    Dual,
}

/// x264 presets that a live channel may use, fastest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    Ultrafast,
    Superfast,
    Veryfast,
    Faster,
    Fast,
    Medium,
}

impl Preset {
    pub fn name(self) -> &'static str {
        match self {
            Preset::Ultrafast => "ultrafast",
            Preset::Superfast => "superfast",
            Preset::Veryfast => "veryfast",
            Preset::Faster => "faster",
            Preset::Fast => "fast",
            Preset::Medium => "medium",
        }
    }
}

impl Default for Profile {
    fn default() -> Profile {
        Profile {
            kind: ChannelKind::default(),
            mode: LatencyMode::default(),
            ladder: None,
            hold_back_ms: None,
            window_s: None,
            start_offset_s: None,
            preset: None,
            backend: None,
            slate: Slate::default(),
            crop: None,
            captions: None,
            audio_only: true,
            max_duration_s: MAX_DURATION_S,
        }
    }
}

impl Profile {
    /// A session's longest life; `None`: unlimited.
    pub fn max_duration(&self) -> Option<Duration> {
        (self.max_duration_s > 0).then(|| Duration::from_secs(u64::from(self.max_duration_s)))
    }

    /// TARGETDURATION, cut lengths and init data of both come out alike, the source being the same.
    pub fn same_output(&self, other: &Profile) -> bool {
        let output = |p: &Profile| Profile { max_duration_s: 0, slate: Slate::default(), ..p.clone() };
        output(self) == output(other)
    }
}

impl Policy {
    /// How long a session made of `profile` waits for its publisher.
    pub fn reconnect_window(&self, profile: &Profile) -> Duration {
        let own = self.reconnect_window_s.map(|s| Duration::from_secs(u64::from(s)));
        own.unwrap_or(profile.mode.params().reconnect_window)
    }
}

impl ChannelConfig {
    /// Every field has its default.
    pub fn new(name: ChannelName) -> ChannelConfig {
        ChannelConfig { name, profile: Profile::default(), policy: Policy::default() }
    }

    /// The same channel, its session made of `profile`.
    #[must_use]
    pub fn with(&self, profile: Profile) -> ChannelConfig {
        ChannelConfig { profile, ..self.clone() }
    }

    /// What the data plane needs. `playback`: the channel's, which signed addresses name.
    pub fn to_channel(&self, playback: PlaybackId) -> Channel {
        Channel {
            name: self.name.clone(),
            kind: self.profile.kind,
            mode: self.profile.mode,
            ladder: self.profile.ladder.clone(),
            hold_back_ms: self.profile.hold_back_ms,
            window_s: self.profile.window_s,
            start_offset_s: self.profile.start_offset_s,
            steering: self.policy.steering.clone(),
            takeover: self.policy.takeover,
            slate: match &self.profile.slate {
                Slate::Black => crate::media::channel::Slate::Black,
                Slate::File(file) => crate::media::channel::Slate::File(file.into()),
            },
            preset: self.profile.preset.map(|p| p.name().to_owned()),
            backend: self.profile.backend,
            crop: self.profile.crop.unwrap_or_default(),
            captions: self.profile.captions.clone(),
            audio_only: self.profile.audio_only,
            logo: self.policy.logo.as_ref().and_then(|logo| {
                let picture = LogoPicture::Stored(logo.image.as_ref()?.sha256.clone());
                Some(Logo { place: logo.place, picture })
            }),
            access: match self.policy.playback_policy {
                PlaybackPolicy::Public => Access::Public,
                PlaybackPolicy::Signed => Access::Signed(playback.0),
            },
        }
    }
}

impl StreamKey {
    /// Of a key's text, of which the digest and the first four characters stay.
    pub fn of(key: &str, now: Utc) -> StreamKey {
        let prefix = key.chars().take(4).collect();
        StreamKey { digest: KeyDigest::of(key), prefix, created_at: now, expires_at: None }
    }

    pub fn is_valid(&self, now: Utc) -> bool {
        self.expires_at.is_none_or(|at| now < at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use ulid::Ulid;

    fn record() -> ChannelRecord {
        let (at, config) = (Utc::default(), ChannelConfig::new(ChannelName::new("news").unwrap()));
        let (id, playback_id) = (ChannelId(Ulid::from_parts(1, 1)), PlaybackId(Ulid::from_parts(1, 2)));
        ChannelRecord::new(id, config, playback_id, vec![StreamKey::of("abcdefghijklmnopqrstuvwx12", at)], at)
    }

    fn keys(value: &impl Serialize) -> Vec<String> {
        let Value::Object(map) = serde_json::to_value(value).unwrap() else { panic!("an object") };
        map.keys().cloned().collect()
    }

    #[test]
    fn the_table_of_fields_holds_every_field_once_and_agrees_with_their_grouping() {
        let mut named: Vec<String> = FIELDS.iter().map(|(name, _)| (*name).to_owned()).collect();
        named.sort();
        let mut written = keys(&record());
        written.sort();
        assert_eq!(named, written);
        let of = |applies| FIELDS.iter().filter(move |(_, a)| *a == applies).map(|(name, _)| *name);
        let sorted = |mut names: Vec<String>| {
            names.sort();
            names
        };
        let next = sorted(of(Applies::NextSession).map(str::to_owned).collect());
        assert_eq!(next, sorted(keys(&Profile::default())));
        let now = sorted(of(Applies::Now).map(str::to_owned).collect());
        assert_eq!(now, sorted(keys(&Policy::default())));
        assert_eq!(of(Applies::Fixed).collect::<Vec<_>>(), ["name"]);
    }

    #[test]
    fn the_address_of_a_source_is_kept_whole_and_shown_without_its_secrets() {
        let mut channel = record();
        let address = "srt://encoder.example.com:9000?streamid=planted&passphrase=planted secret";
        channel.config.policy.pull = Some(PullUrl::parse(address).unwrap());
        let json = serde_json::to_value(&channel).unwrap();
        assert_eq!(json["pull_address"], address);
        let again: ChannelRecord = serde_json::from_value(json).unwrap();
        assert_eq!((&again, again.config.policy.pull.as_ref().unwrap().expose()), (&channel, address));
        let shown = serde_json::to_string(&channel.config).unwrap();
        assert!(shown.contains("srt://encoder.example.com:9000") && !shown.contains("planted"), "{shown}");
        assert!(!format!("{channel:?}").contains("planted"));
        serde_json::from_str::<ChannelConfig>(&shown).expect("what events hold is read again");
    }

    #[test]
    fn a_record_of_another_version_is_read() {
        let mut json = serde_json::to_value(record()).unwrap();
        assert_eq!(serde_json::from_value::<ChannelRecord>(json.clone()).unwrap(), record());
        let map = json.as_object_mut().unwrap();
        map.insert("colour".into(), Value::from("blue"));
        for later in ["slate", "legs", "ladder", "max_duration_s", "deleted_at"] {
            map.remove(later);
        }
        assert_eq!(serde_json::from_value::<ChannelRecord>(json).unwrap(), record());
    }
}
