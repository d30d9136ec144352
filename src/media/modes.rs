//! Latency modes: the one table of what each promises and how it is kept.

use serde::{Deserialize, Serialize};
use std::time::Duration;
use utoipa::ToSchema;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum LatencyMode {
    Normal,
    Low,
    #[default]
    Ultra,
}

impl LatencyMode {
    pub fn name(self) -> &'static str {
        match self {
            LatencyMode::Normal => "normal",
            LatencyMode::Low => "low",
            LatencyMode::Ultra => "ultra",
        }
    }

    pub fn params(self) -> &'static ModeParams {
        match self {
            LatencyMode::Normal => &NORMAL,
            LatencyMode::Low => &LOW,
            LatencyMode::Ultra => &ULTRA,
        }
    }
}

/// What a mode means for playlists, encoders and ingest. Times in the unit that the name says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ModeParams {
    /// EXT-X-TARGETDURATION of a ladder, seconds.
    pub target_duration: u32,
    /// Parts, blocking reload, preload hints, rendition reports.
    pub parts: bool,
    /// HOLD-BACK, milliseconds.
    pub hold_back_ms: u32,
    /// PART-HOLD-BACK, milliseconds (only where `parts`).
    pub part_hold_back_ms: u32,
    /// CAN-SKIP-UNTIL, seconds.
    pub can_skip_until: u32,
    /// Whole segments listed.
    pub window_segments: usize,
    /// The last so many segments list their parts.
    pub segments_with_parts: usize,
    pub bframes: u32,
    pub lookahead: u32,
    /// SRT latency asked by default, milliseconds.
    pub srt_latency_ms: u32,
    /// x264 VBV in milliseconds of the rendition's bit rate.
    pub vbv_ms: u32,
    /// max-age of a plain playlist, seconds; 0: no-cache.
    pub playlist_max_age: u32,
    pub reconnect_window: Duration,
}

const NORMAL: ModeParams = ModeParams {
    target_duration: 6,
    parts: false,
    hold_back_ms: 18_000,
    part_hold_back_ms: 0,
    can_skip_until: 36,
    window_segments: 10,
    segments_with_parts: 0,
    bframes: 3,
    lookahead: 20,
    srt_latency_ms: 1_000,
    vbv_ms: 1_000,
    playlist_max_age: 2,
    reconnect_window: Duration::from_secs(60),
};

const LOW: ModeParams = ModeParams {
    target_duration: 2,
    parts: false,
    hold_back_ms: 7_000,
    part_hold_back_ms: 0,
    can_skip_until: 12,
    window_segments: 15,
    segments_with_parts: 0,
    bframes: 3,
    lookahead: 10,
    srt_latency_ms: 500,
    vbv_ms: 1_000,
    playlist_max_age: 1,
    reconnect_window: Duration::from_secs(20),
};

const ULTRA: ModeParams = ModeParams {
    target_duration: 2,
    parts: true,
    hold_back_ms: 6_000,
    part_hold_back_ms: 2_000,
    can_skip_until: 12,
    window_segments: 15,
    segments_with_parts: 3,
    bframes: 0,
    lookahead: 5,
    srt_latency_ms: 120,
    vbv_ms: 500,
    playlist_max_age: 0,
    reconnect_window: Duration::from_secs(10),
};
