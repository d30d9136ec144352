//! AAC headers: ADTS frames and the AudioSpecificConfig that says the same out of band.

pub mod adts;
pub mod asc;
pub mod silence;

/// Hz by sampling_frequency_index [AAC 1.6.3.4].
pub const SAMPLE_RATES: [u32; 13] =
    [96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350];

/// Samples of one frame per channel.
pub const FRAME_SAMPLES: u32 = 1024;
