//! What made-up sessions are made of: when and under which numbers they begin, and headers of their tracks.

use bytes::Bytes;
use rung::media::channel::SessionId;
use rung::media::track::{AudioConfig, Codec, Colour, VideoConfig};

/// 2026-11-20T12:00:00Z.
pub(crate) const WALL0: i64 = 1_795_176_000_000_000_000;
/// The world starts here, so that nothing is at the clock's zero.
pub(crate) const MONO0: u64 = 1_000_000_000;
pub(crate) const MSN0: u64 = 1_795_176_000;

pub(crate) fn session_id() -> SessionId {
    SessionId::new(ulid::Ulid(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef))
}

pub(crate) fn video_config() -> VideoConfig {
    VideoConfig {
        codec: Codec::H264,
        width: 640,
        height: 360,
        sar: (1, 1),
        rate: None,
        interlaced: false,
        colour: Colour { primaries: 1, transfer: 1, matrix: 1, full_range: false },
        profile: [0x64, 0x00, 0x1e],
        bit_depth: 8,
        chroma_format: 1,
        reorder: Some(0),
        sps: Bytes::from_static(&[0x67, 0x64, 0x00, 0x1e, 0xac, 0xd9, 0x40, 0xa0]),
        pps: vec![Bytes::from_static(&[0x68, 0xeb, 0xe3, 0xcb])],
    }
}

pub(crate) fn audio_config(rate: u32) -> AudioConfig {
    let asc: &[u8] = if rate == 44_100 { &[0x12, 0x10] } else { &[0x11, 0x90] };
    AudioConfig { codec: Codec::Aac, object_type: 2, sample_rate: rate, channels: 2, asc: Bytes::copy_from_slice(asc) }
}
