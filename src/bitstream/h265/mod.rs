//! H.265: NAL unit types, parameter sets and slice segment headers, as far as access units and decoders need them.

pub mod pps;
pub mod profile;
pub mod sets;
pub mod slice;
pub mod sps;
#[cfg(test)]
mod tests;
pub mod vps;

pub use pps::Pps;
pub use sets::ParameterSets;
pub use slice::Slice;
pub use sps::Sps;
pub use vps::Vps;

/// Bytes of a NAL unit header [HEVC 7.3.1.2].
pub const HEADER_BYTES: usize = 2;

/// nal_unit_type [HEVC 7.4.2.2 table 7-1].
pub mod nal {
    /// Random access skipped leading pictures: they need what precedes the random access point they belong to.
    pub const RASL_N: u8 = 8;
    pub const RASL_R: u8 = 9;
    /// 16 to 23 are random access points (IRAP); 22 and 23 are reserved.
    pub const BLA_W_LP: u8 = 16;
    pub const BLA_N_LP: u8 = 18;
    pub const IDR_W_RADL: u8 = 19;
    pub const IDR_N_LP: u8 = 20;
    pub const CRA: u8 = 21;
    pub const IRAP_MAX: u8 = 23;
    /// Slice segments of some picture lie below this.
    pub const VCL_END: u8 = 32;
    pub const VPS: u8 = 32;
    pub const SPS: u8 = 33;
    pub const PPS: u8 = 34;
    pub const AUD: u8 = 35;
    pub const PREFIX_SEI: u8 = 39;
}

/// nal_unit_type and nuh_layer_id of a NAL unit without start code; `None` before its header is whole.
pub fn header(unit: &[u8]) -> Option<(u8, u8)> {
    let [first, second, ..] = *unit else { return None };
    Some((first >> 1 & 0x3F, (first & 1) << 5 | second >> 3))
}

/// A picture of this type is a random access point.
pub fn is_irap(nal_type: u8) -> bool {
    (nal::BLA_W_LP..=nal::IRAP_MAX).contains(&nal_type)
}

pub fn is_idr(nal_type: u8) -> bool {
    matches!(nal_type, nal::IDR_W_RADL | nal::IDR_N_LP)
}

/// Pictures of this type are left out where decoding began at the random access point that they follow [HEVC 3.111].
pub fn is_rasl(nal_type: u8) -> bool {
    matches!(nal_type, nal::RASL_N | nal::RASL_R)
}

/// Behind the last slice of a picture such a NAL unit begins the next access unit [HEVC 7.4.2.4.4].
pub fn begins_access_unit(nal_type: u8) -> bool {
    matches!(nal_type, nal::VPS..=nal::AUD | nal::PREFIX_SEI | 41..=44 | 48..=55)
}
