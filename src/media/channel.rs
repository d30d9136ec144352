//! What an operator configures: channels, ladders, renditions. And what Rung names: sessions.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use utoipa::ToSchema;

use super::captions::CaptionService;
use super::crop::Margins;
use super::id;
use super::logo::Logo;
use super::modes::LatencyMode;
use super::playback::Access;
use super::steering::Steering;

/// `[a-z0-9][a-z0-9-]{0,62}`, unique on a box.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, ToSchema)]
#[schema(value_type = String, pattern = "^[a-z0-9][a-z0-9-]{0,62}$")]
pub struct ChannelName(Arc<str>);

impl ChannelName {
    /// # Errors
    /// A sentence with the grammar.
    pub fn new(name: &str) -> Result<ChannelName, String> {
        let ok = (1..=63).contains(&name.len())
            && !name.starts_with('-')
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if ok {
            Ok(ChannelName(name.into()))
        } else {
            Err(format!(
                "channel name {name:?}: write 1 to 63 of a-z, 0-9 and '-', not starting with '-' (for example \"news-1\")"
            ))
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Which of `of` shards it runs on, from 0: all its publishers meet there.
    pub fn shard(&self, of: usize) -> usize {
        let mut hasher = DefaultHasher::new();
        self.0.hash(&mut hasher);
        usize::try_from(hasher.finish() % of.max(1) as u64).unwrap_or(0)
    }
}

impl fmt::Display for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ChannelName {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        ChannelName::new(&String::deserialize(d)?).map_err(serde::de::Error::custom)
    }
}

/// One broadcast: `se_` + ULID; never reused.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ToSchema)]
#[schema(value_type = String)]
pub struct SessionId(Arc<str>);

impl SessionId {
    pub fn new(ulid: ulid::Ulid) -> SessionId {
        SessionId(format!("se_{ulid}").into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// # Panics
    /// Never: a session's name is made of one.
    pub fn ulid(&self) -> ulid::Ulid {
        id::parse("se_", &self.0).expect("a session's name holds a ULID")
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for SessionId {
    type Err = String;
    fn from_str(text: &str) -> Result<SessionId, String> {
        id::parse("se_", text).map(SessionId::new)
    }
}

impl Serialize for SessionId {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for SessionId {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Which of a channel's redundant inputs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Leg {
    #[default]
    A,
    B,
}

impl fmt::Display for Leg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Leg::A => "a",
            Leg::B => "b",
        })
    }
}

/// One accepted contribution connection; never used twice in a process, and void after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PublisherId(pub u64);

impl fmt::Display for PublisherId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pb{}", self.0)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ChannelKind {
    /// Decode once, encode a ladder.
    #[default]
    Transcode,
    /// The source untouched, repackaged.
    Transmux,
    /// The source as top rendition and a ladder below it.
    Hybrid,
}

/// Where a channel may run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum BackendPolicy {
    /// The GPU where it can, else the CPU; which of them is said wherever the channel is shown.
    #[default]
    Auto,
    /// Decoded, scaled and encoded on a GPU, or refused: never on the CPU.
    Gpu,
    /// Never on a GPU.
    Software,
}

impl BackendPolicy {
    pub fn name(self) -> &'static str {
        match self {
            BackendPolicy::Auto => "auto",
            BackendPolicy::Gpu => "gpu",
            BackendPolicy::Software => "software",
        }
    }
}

/// What a rendition is coded with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum VideoCodec {
    /// AVC: every player has it.
    #[default]
    H264,
    /// H.265: fewer bits for the same picture, for players that have it.
    Hevc,
}

impl VideoCodec {
    /// As configuration and API name it.
    pub fn name(self) -> &'static str {
        match self {
            VideoCodec::H264 => "h264",
            VideoCodec::Hevc => "hevc",
        }
    }
}

impl fmt::Display for VideoCodec {
    /// As people write it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            VideoCodec::H264 => "H.264",
            VideoCodec::Hevc => "HEVC",
        })
    }
}

/// One encode of a ladder, as configured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rendition {
    /// `1080p`, `720p`, …: also its playlist's name.
    #[schema(pattern = "^[a-z0-9][a-z0-9-]{0,62}$")]
    pub name: String,
    /// Luma rows; even. Columns follow from the source's display aspect.
    #[schema(minimum = 16, maximum = 4320, multiple_of = 2)]
    pub height: u32,
    /// Cap of the encoder, bits per second.
    #[schema(minimum = 50_000, maximum = 100_000_000)]
    pub bitrate: u64,
    /// `h264` unless said otherwise. A ladder may hold both: each player takes what it can decode.
    #[serde(default)]
    pub codec: VideoCodec,
}

/// Ordered outputs of a channel, best first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(min_items = 1, max_items = 8)]
pub struct Ladder(pub Vec<Rendition>);

impl Ladder {
    /// The default ladder of a source of `height` rows; `fast`: 50 frames/s or more (x 1.5).
    pub fn default_for(height: u32, fast: bool) -> Ladder {
        const TABLE: [(u32, u64); 4] = [(1080, 5_000_000), (720, 2_800_000), (480, 1_400_000), (360, 800_000)];
        let rows: Vec<(u32, u64)> = if height < 480 {
            vec![(height & !1, 800_000), ((height / 2).max(2) & !1, 400_000)]
        } else {
            TABLE.into_iter().filter(|(h, _)| *h <= height).collect()
        };
        Ladder(
            rows.into_iter()
                .map(|(height, bitrate)| Rendition {
                    name: format!("{height}p"),
                    height,
                    bitrate: if fast { bitrate * 3 / 2 } else { bitrate },
                    codec: VideoCodec::H264,
                })
                .collect(),
        )
    }

    /// Renditions no taller than the source: Rung never upscales. The lowest stays even if it must shrink to the source.
    #[must_use]
    pub fn never_upscaled(&self, source_height: u32) -> Ladder {
        let fits: Vec<Rendition> = self.0.iter().filter(|r| r.height <= source_height).cloned().collect();
        if fits.is_empty() {
            let bitrate = self.0.iter().map(|r| r.bitrate).min().unwrap_or(800_000);
            let height = source_height & !1;
            let codec = if self.is_hevc_alone() { VideoCodec::Hevc } else { VideoCodec::H264 };
            return Ladder(vec![Rendition { name: format!("{height}p"), height, bitrate, codec }]);
        }
        Ladder(fits)
    }

    /// Players without HEVC find nothing in it.
    pub fn is_hevc_alone(&self) -> bool {
        !self.0.is_empty() && self.0.iter().all(|r| r.codec == VideoCodec::Hevc)
    }
}

/// A configured channel, as the data plane sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channel {
    pub name: ChannelName,
    pub kind: ChannelKind,
    pub mode: LatencyMode,
    /// `None`: the default ladder of the source's height.
    pub ladder: Option<Ladder>,
    /// PART-HOLD-BACK in milliseconds (`ultra` only); `None`: the mode's.
    pub hold_back_ms: Option<u32>,
    /// How far back its viewers may go, seconds; `None`: the mode's window.
    pub window_s: Option<u32>,
    /// Where players begin, seconds from the end, below zero; `None`: as near to the end as the hold-back lets them.
    pub start_offset_s: Option<i32>,
    /// From where players fetch it; an open session follows. `None`: from where they found it.
    pub steering: Option<Steering>,
    pub takeover: Takeover,
    /// Shown while a source is away.
    pub slate: Slate,
    /// Preset of the software backend, a name that x264 and x265 share; `None`: `superfast`, for HEVC `ultrafast`.
    pub preset: Option<String>,
    /// `None`: as the box is configured.
    pub backend: Option<BackendPolicy>,
    /// Cut off the source before anything is made of it.
    pub crop: Margins,
    /// Closed captions that players are told of; `None`: those that the PMT describes, else those that were seen. Empty:
    /// there are none, and pictures that are encoded carry none.
    pub captions: Option<Vec<CaptionService>>,
    /// Players find a variant of sound alone beside the pictures.
    pub audio_only: bool,
    /// Over every rendition that is encoded. The one setting that an open session follows.
    pub logo: Option<Logo>,
    /// Who may watch. In force at once.
    pub access: Access,
}

impl Channel {
    /// One that asks for nothing else.
    pub fn new(name: ChannelName, kind: ChannelKind, mode: LatencyMode) -> Channel {
        Channel {
            name,
            kind,
            mode,
            ladder: None,
            hold_back_ms: None,
            window_s: None,
            start_offset_s: None,
            steering: None,
            takeover: Takeover::IfSilent,
            slate: Slate::Black,
            preset: None,
            backend: None,
            crop: Margins::default(),
            captions: None,
            audio_only: true,
            logo: None,
            access: Access::Public,
        }
    }
}

/// What stands in for a source that is away.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Slate {
    #[default]
    Black,
    /// A file that was not read yet: control reads it before the data plane sees it.
    File(PathBuf),
    /// A PNG or JPEG file's bytes.
    Image(Bytes),
}

impl fmt::Debug for Slate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Slate::Black => f.write_str("Black"),
            Slate::File(file) => write!(f, "File({})", file.display()),
            Slate::Image(bytes) => write!(f, "Image({} bytes)", bytes.len()),
        }
    }
}

/// What happens to a publisher that comes while another one holds the same leg.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Takeover {
    /// The old one gives way once it has been silent for 2 s.
    #[default]
    IfSilent,
    /// The newcomer always wins.
    Newest,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_grammar() {
        for good in ["a", "news-1", "0", &"x".repeat(63)] {
            assert!(ChannelName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "News", "a/b", "ä", "a b", &"x".repeat(64)] {
            assert!(ChannelName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_session_is_found_again_by_its_name() {
        let id = SessionId::new(ulid::Ulid::from_parts(1_700_000_000_000, 9));
        assert_eq!(id.as_str().parse(), Ok(id.clone()));
        assert_eq!(SessionId::new(id.ulid()), id);
        assert!("ch_01ARZ3NDEKTSV4RRFFQ69G5FAV".parse::<SessionId>().is_err());
    }

    #[test]
    fn the_default_ladder_never_upscales() {
        for height in 16..2200 {
            for r in Ladder::default_for(height, false).0 {
                assert!(r.height <= height && r.height % 2 == 0, "{height}: {r:?}");
            }
        }
    }

    #[test]
    fn a_source_below_every_rendition_gets_one_that_all_players_of_the_ladder_have() {
        let one = |name: &str, codec| Rendition { name: name.to_owned(), height: 720, bitrate: 900_000, codec };
        let shrunk = |ladder: &[Rendition]| Ladder(ladder.to_vec()).never_upscaled(361).0;
        let [h264, hevc] = [one("720p", VideoCodec::H264), one("720p-hevc", VideoCodec::Hevc)];
        let got = shrunk(&[hevc.clone(), h264]);
        assert_eq!((got.len(), got[0].codec, got[0].height), (1, VideoCodec::H264, 360));
        assert_eq!(shrunk(&[hevc])[0].codec, VideoCodec::Hevc, "nobody asked for H.264");
    }

    #[test]
    fn what_was_stored_without_a_codec_is_h264() {
        let old = r#"[{"name":"720p","height":720,"bitrate":2800000}]"#;
        let ladder: Ladder = serde_json::from_str(old).unwrap();
        assert_eq!(ladder.0[0].codec, VideoCodec::H264);
        let new = serde_json::to_string(&ladder).unwrap();
        assert_eq!(new, r#"[{"name":"720p","height":720,"bitrate":2800000,"codec":"h264"}]"#);
        assert_eq!(serde_json::from_str::<Ladder>(&new).unwrap(), ladder);
    }
}
