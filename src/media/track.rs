//! Elementary streams of a program: what they are and what a decoder must be told.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::captions::CaptionService;
use super::grid::FrameRate;

/// Packet id of the elementary stream: a track's name within its program.
pub type Pid = u16;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Codec {
    H264,
    H265,
    Mpeg2Video,
    /// AAC in ADTS.
    Aac,
    /// AAC in LATM/LOAS.
    AacLatm,
    MpegAudio,
    Ac3,
    Eac3,
    Opus,
    Scte35,
    Id3,
    /// A stream type nobody here decodes; the number of ISO/IEC 13818-1 table 2-34.
    Unknown(u8),
}

impl std::fmt::Display for Codec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Codec::H264 => f.write_str("H.264"),
            Codec::H265 => f.write_str("HEVC"),
            Codec::Mpeg2Video => f.write_str("MPEG-2 video"),
            other => write!(f, "{other:?}"),
        }
    }
}

impl Codec {
    pub fn is_video(self) -> bool {
        matches!(self, Codec::H264 | Codec::H265 | Codec::Mpeg2Video)
    }

    pub fn is_audio(self) -> bool {
        matches!(self, Codec::Aac | Codec::AacLatm | Codec::MpegAudio | Codec::Ac3 | Codec::Eac3 | Codec::Opus)
    }
}

/// One elementary stream as the PMT describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Track {
    pub pid: Pid,
    pub codec: Codec,
    /// ISO 639-2 code, lower case, where the PMT names one.
    pub language: Option<String>,
    pub role: AudioRole,
    /// Of video: the closed captions in it, where the PMT describes them.
    pub captions: Vec<CaptionService>,
}

impl Track {
    /// One of which the PMT says no more.
    pub fn new(pid: Pid, codec: Codec) -> Track {
        Track { pid, codec, language: None, role: AudioRole::Main, captions: Vec::new() }
    }
}

/// What an audio track is for: audio_type [TS 2.6.19].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum AudioRole {
    /// Nothing special, or effects without a language.
    #[default]
    Main,
    /// For the hearing impaired: speech stands out.
    ClearSpeech,
    /// A commentary for the visually impaired tells what is seen.
    Description,
}

/// A program as PAT and PMT describe it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    pub number: u16,
    pub pcr_pid: Option<Pid>,
    pub tracks: Vec<Track>,
}

/// What a track's own headers say; sent again when it changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrackConfig {
    Video(VideoConfig),
    Audio(AudioConfig),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VideoConfig {
    pub codec: Codec,
    /// Displayed luma columns and rows (after cropping).
    pub width: u32,
    pub height: u32,
    /// Sample aspect ratio; (1, 1) if the stream names none.
    pub sar: (u32, u32),
    /// Frames per second from the VUI timing, if present (frames, not fields).
    pub rate: Option<FrameRate>,
    /// H.264: fields or MBAFF allowed (frame_mbs_only_flag = 0). MPEG-2: progressive_sequence = 0. H.265: every picture is a
    /// field (field_seq_flag).
    pub interlaced: bool,
    pub colour: Colour,
    /// H.264: profile_idc, constraint flags, level_idc. H.265: general_profile_idc, general_tier_flag, general_level_idc.
    /// MPEG-2: profile_and_level_indication, 0, 0.
    pub profile: [u8; 3],
    pub bit_depth: u8,
    /// chroma_format_idc: 1 is 4:2:0.
    pub chroma_format: u8,
    /// Largest num_reorder_frames that the stream declares, if it does.
    pub reorder: Option<u8>,
    /// The SPS in force, a NAL unit without start code; empty for MPEG-2 video, whose headers come with its pictures.
    pub sps: Bytes,
    /// The sets beside it, likewise: every PPS seen so far in id order; for H.265 the VPS is the first.
    pub pps: Vec<Bytes>,
}

impl VideoConfig {
    /// All parameter sets, NAL units without start codes, in the order in which a decoder needs them: VPS, SPS, PPS.
    pub fn parameter_sets(&self) -> impl Iterator<Item = &Bytes> {
        let before = usize::from(self.codec == Codec::H265).min(self.pps.len());
        let (first, rest) = self.pps.split_at(before);
        first.iter().chain([&self.sps]).chain(rest).filter(|unit| !unit.is_empty())
    }
}

/// Colour description, values of ITU-T H.273; 2 = unspecified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Colour {
    pub primaries: u8,
    pub transfer: u8,
    pub matrix: u8,
    pub full_range: bool,
}

impl Default for Colour {
    fn default() -> Self {
        Colour { primaries: 2, transfer: 2, matrix: 2, full_range: false }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AudioConfig {
    pub codec: Codec,
    /// AAC: audio object type (2 = LC); 0 for other codecs.
    pub object_type: u8,
    pub sample_rate: u32,
    /// Channel count; 0 if the stream leaves it to a program config element.
    pub channels: u8,
    /// AAC: AudioSpecificConfig [ISO/IEC 14496-3 1.6.2.1]; empty for other codecs.
    pub asc: Bytes,
}

impl AudioConfig {
    /// AAC-LC, 1024-sample frames, at a rate that is passed through untouched.
    pub fn passes_through(&self) -> bool {
        self.codec == Codec::Aac
            && self.object_type == 2
            && matches!(self.sample_rate, 32_000 | 44_100 | 48_000)
            && (1..=8).contains(&self.channels)
    }
}
