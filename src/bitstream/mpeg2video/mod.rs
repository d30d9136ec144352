//! MPEG-2 video: start codes, sequence headers and their extensions, picture headers [MPEG2V 6.2].

pub mod picture;
pub mod sequence;
#[cfg(test)]
mod tests;

pub use picture::Picture;
pub use sequence::{Display, Extension, Sequence};

/// Start code values [MPEG2V table 6-1].
pub mod start {
    pub const PICTURE: u8 = 0x00;
    pub const SLICE_MIN: u8 = 0x01;
    pub const SLICE_MAX: u8 = 0xAF;
    pub const USER_DATA: u8 = 0xB2;
    pub const SEQUENCE: u8 = 0xB3;
    pub const EXTENSION: u8 = 0xB5;
    pub const SEQUENCE_END: u8 = 0xB7;
    pub const GROUP: u8 = 0xB8;
}

/// extension_start_code_identifier [MPEG2V table 6-2].
pub mod extension {
    pub const SEQUENCE: u8 = 1;
    pub const DISPLAY: u8 = 2;
    pub const PICTURE_CODING: u8 = 8;
}

/// Which extension the bytes behind an extension's start code (its value included) are.
pub fn extension_id(unit: &[u8]) -> Option<u8> {
    unit.get(1).map(|byte| byte >> 4)
}
