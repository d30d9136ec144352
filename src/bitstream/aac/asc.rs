//! AudioSpecificConfig of plain AAC [AAC 1.6.2.1].

use super::SAMPLE_RATES;
use crate::bitstream::bits::Bits;

/// Two bytes: object type, rate, channels; 1024-sample frames, no extension.
pub fn write(object_type: u8, rate_index: u8, channel_configuration: u8) -> [u8; 2] {
    [object_type << 3 | rate_index >> 1, rate_index << 7 | channel_configuration << 3]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AudioSpecificConfig {
    pub object_type: u8,
    pub sample_rate: u32,
    pub channel_configuration: u8,
}

impl AudioSpecificConfig {
    /// The first fields; `None`: too short or a reserved rate.
    pub fn parse(bytes: &[u8]) -> Option<AudioSpecificConfig> {
        // No emulation prevention here; 00 00 03 cannot occur in the fields read of a sane configuration.
        let mut bits = Bits::new(bytes);
        let mut object_type = bits.u8(5)?;
        if object_type == 31 {
            object_type = 32 + bits.u8(6)?;
        }
        let sample_rate = match bits.u(4)? {
            15 => bits.u(24)?,
            index => *SAMPLE_RATES.get(index as usize)?,
        };
        Some(AudioSpecificConfig { object_type, sample_rate, channel_configuration: bits.u8(4)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_configuration_reads_back() {
        for (object_type, rate, channels) in [(2, 3, 2), (2, 4, 1), (5, 6, 7), (1, 12, 6)] {
            let config = AudioSpecificConfig::parse(&write(object_type, rate, channels)).expect("own bytes");
            assert_eq!((config.object_type, config.channel_configuration), (object_type, channels));
            assert_eq!(config.sample_rate, SAMPLE_RATES[usize::from(rate)]);
        }
    }
}
