//! ADTS frame headers [AAC 1.A.2.2].

use bytes::Bytes;

use super::{SAMPLE_RATES, asc};
use crate::media::track::{AudioConfig, Codec};

/// Bytes of a header without CRC: what must be there to parse one.
pub const HEADER_BYTES: usize = 7;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What may not change within a stream.
    pub fixed: Fixed,
    /// 7, or 9 with CRC.
    pub header_bytes: usize,
    /// Header and payload.
    pub frame_bytes: usize,
    /// Raw data blocks in this frame; Rung takes frames with one.
    pub blocks: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fixed {
    pub object_type: u8,
    pub rate_index: u8,
    pub channel_configuration: u8,
}

impl Header {
    /// The header at the start of `bytes`; `None`: too short or no ADTS header.
    pub fn parse(bytes: &[u8]) -> Option<Header> {
        let b: &[u8; HEADER_BYTES] = bytes.first_chunk()?;
        // syncword 0xFFF and layer 0; the MPEG version bit may be either.
        if b[0] != 0xFF || b[1] & 0xF6 != 0xF0 {
            return None;
        }
        let fixed = Fixed {
            object_type: (b[2] >> 6) + 1,
            rate_index: b[2] >> 2 & 15,
            channel_configuration: (b[2] & 1) << 2 | b[3] >> 6,
        };
        let header_bytes = if b[1] & 1 == 1 { 7 } else { 9 };
        let frame_bytes = usize::from(b[3] & 3) << 11 | usize::from(b[4]) << 3 | usize::from(b[5]) >> 5;
        let known_rate = usize::from(fixed.rate_index) < SAMPLE_RATES.len();
        (known_rate && frame_bytes > header_bytes).then_some(Header {
            fixed,
            header_bytes,
            frame_bytes,
            blocks: (b[6] & 3) + 1,
        })
    }

    /// A header for a raw frame of `payload` bytes; `None` above the 8,191 bytes that fit.
    pub fn write(fixed: Fixed, payload: usize) -> Option<[u8; HEADER_BYTES]> {
        let length = u16::try_from(payload + HEADER_BYTES).ok().filter(|l| *l < 1 << 13)?;
        let [high, low] = length.to_be_bytes();
        let channels = fixed.channel_configuration;
        Some([
            0xFF,
            0xF1,
            (fixed.object_type.max(1) - 1) << 6 | fixed.rate_index << 2 | channels >> 2,
            (channels & 3) << 6 | high >> 3,
            high << 5 | low >> 3,
            // Buffer fullness 0x7FF: variable rate.
            low << 5 | 0x1F,
            0xFC,
        ])
    }
}

impl Fixed {
    /// Hz.
    pub fn sample_rate(self) -> u32 {
        SAMPLE_RATES.get(usize::from(self.rate_index)).copied().unwrap_or(48_000)
    }

    /// Channel count; 0: a program config element inside the stream says.
    pub fn channels(self) -> u8 {
        if self.channel_configuration == 7 { 8 } else { self.channel_configuration }
    }

    pub fn config(self) -> AudioConfig {
        AudioConfig {
            codec: Codec::Aac,
            object_type: self.object_type,
            sample_rate: self.sample_rate(),
            channels: self.channels(),
            asc: Bytes::copy_from_slice(&asc::write(self.object_type, self.rate_index, self.channel_configuration)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_header_reads_back_for_every_length() {
        let fixed = Fixed { object_type: 2, rate_index: 3, channel_configuration: 2 };
        for payload in 1..8185 {
            let bytes = Header::write(fixed, payload).expect("below 8192");
            let header = Header::parse(&bytes).expect("own header");
            assert_eq!((header.fixed, header.frame_bytes, header.blocks), (fixed, payload + 7, 1));
        }
        assert_eq!(Header::write(fixed, 8185), None);
    }

    #[test]
    fn the_configuration_of_48_khz_stereo_is_11_90() {
        let fixed = Fixed { object_type: 2, rate_index: 3, channel_configuration: 2 };
        let config = fixed.config();
        assert_eq!(&config.asc[..], &[0x11, 0x90]);
        assert!(config.passes_through());
    }
}
