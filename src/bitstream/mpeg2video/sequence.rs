//! Sequence headers, sequence extensions, sequence display extensions [MPEG2V 6.2.2.1, 6.2.2.3, 6.2.2.4].

use crate::bitstream::bits::Bits;
use crate::bitstream::vui;
use crate::media::grid::FrameRate;
use crate::media::track::{Codec, Colour, VideoConfig};
use bytes::Bytes;

/// What a sequence header says on its own; an extension adds to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// Low 12 bits of the size.
    pub width: u32,
    pub height: u32,
    /// aspect_ratio_information.
    pub aspect: u8,
    /// frame_rate_code.
    pub rate: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extension {
    /// profile_and_level_indication.
    pub profile: u8,
    pub progressive: bool,
    /// chroma_format: 1 is 4:2:0.
    pub chroma_format: u8,
    /// High bits of the size.
    pub width: u32,
    pub height: u32,
    pub low_delay: bool,
    /// frame_rate_extension_n + 1 and frame_rate_extension_d + 1.
    pub rate: (u32, u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Display {
    pub colour: Colour,
    pub width: u32,
    pub height: u32,
}

impl Sequence {
    /// From what follows 00 00 01, its first byte B3.
    ///
    /// # Errors
    /// What does not hold.
    pub fn parse(unit: &[u8]) -> Result<Sequence, &'static str> {
        let mut r = Bits::plain(unit.get(1..).unwrap_or_default());
        let read = |r: &mut Bits<'_>| {
            let (width, height) = (r.u(12)?, r.u(12)?);
            let (aspect, rate) = (r.u8(4)?, r.u8(4)?);
            r.u(18)?; // bit_rate_value
            let marked = r.flag()?;
            let sound = marked && aspect > 0 && RATES.get(usize::from(rate)).is_some_and(|rate| rate.0 > 0);
            sound.then_some(Sequence { width, height, aspect, rate })
        };
        read(&mut r).ok_or("the sequence header ends early or a value is out of range")
    }
}

impl Extension {
    /// From what follows 00 00 01, its first byte B5, identifier 1.
    ///
    /// # Errors
    /// What does not hold.
    pub fn parse(unit: &[u8]) -> Result<Extension, &'static str> {
        let mut r = Bits::plain(unit.get(1..).unwrap_or_default());
        let read = |r: &mut Bits<'_>| {
            r.u(4)?; // extension_start_code_identifier
            let (profile, progressive, chroma_format) = (r.u8(8)?, r.flag()?, r.u8(2)?);
            let (width, height) = (r.u(2)? << 12, r.u(2)? << 12);
            r.u(12)?; // bit_rate_extension
            let marked = r.flag()?;
            r.u(8)?; // vbv_buffer_size_extension
            let low_delay = r.flag()?;
            let rate = (r.u(2)? + 1, r.u(5)? + 1);
            let sound = marked && chroma_format > 0;
            sound.then_some(Extension { profile, progressive, chroma_format, width, height, low_delay, rate })
        };
        read(&mut r).ok_or("the sequence extension ends early or a value is out of range")
    }
}

impl Display {
    /// From what follows 00 00 01, its first byte B5, identifier 2.
    ///
    /// # Errors
    /// What does not hold.
    pub fn parse(unit: &[u8]) -> Result<Display, &'static str> {
        let mut r = Bits::plain(unit.get(1..).unwrap_or_default());
        let read = |r: &mut Bits<'_>| {
            r.u(4 + 3)?; // extension_start_code_identifier, video_format
            let mut colour = Colour::default();
            if r.flag()? {
                (colour.primaries, colour.transfer, colour.matrix) = (r.u8(8)?, r.u8(8)?, r.u8(8)?);
            }
            let width = r.u(14)?;
            let marked = r.flag()?;
            let height = r.u(14)?;
            marked.then_some(Display { colour, width, height })
        };
        read(&mut r).ok_or("the sequence display extension ends early or a marker bit is wrong")
    }
}

/// [MPEG2V table 6-4]; 0: forbidden.
const RATES: [(u32, u32); 9] =
    [(0, 1), (24_000, 1_001), (24, 1), (25, 1), (30_000, 1_001), (30, 1), (50, 1), (60_000, 1_001), (60, 1)];

/// Frames per second.
pub fn rate(sequence: &Sequence, extension: &Extension) -> Option<FrameRate> {
    let (num, den) = RATES.get(usize::from(sequence.rate)).copied()?;
    vui::frame_rate(num * extension.rate.0, den * extension.rate.1)
}

/// The configuration of a sequence. `None`: it has no size.
pub fn config(sequence: &Sequence, extension: &Extension, display: Option<&Display>) -> Option<VideoConfig> {
    let (width, height) = (extension.width | sequence.width, extension.height | sequence.height);
    if width == 0 || height == 0 {
        return None;
    }
    Some(VideoConfig {
        codec: Codec::Mpeg2Video,
        width,
        height,
        sar: sample_aspect(sequence.aspect, (width, height), display),
        rate: rate(sequence, extension),
        interlaced: !extension.progressive,
        colour: display.map_or_else(Colour::default, |display| display.colour),
        profile: [extension.profile, 0, 0],
        bit_depth: 8,
        chroma_format: extension.chroma_format,
        reorder: Some(u8::from(!extension.low_delay)),
        sps: Bytes::new(),
        pps: Vec::new(),
    })
}

/// From aspect_ratio_information [MPEG2V 6.3.3]. The clause lays the aspect over the display size; many encoders mean the
/// coded one: the display size counts where the whole picture then is 4:3 or 16:9.
fn sample_aspect(aspect: u8, (width, height): (u32, u32), display: Option<&Display>) -> (u32, u32) {
    let (a, b) = match aspect {
        2 => (4, 3),
        3 => (16, 9),
        4 => (221, 100),
        _ => return (1, 1),
    };
    let shown = display.map(|display| reduced(a * display.height, b * display.width));
    let whole = |sar: &(u32, u32)| (u64::from(sar.0) * u64::from(width), u64::from(sar.1) * u64::from(height));
    let common = |sar: &(u32, u32)| [(4, 3), (16, 9)].iter().any(|(x, y)| whole(sar).0 * y == whole(sar).1 * x);
    shown.filter(|sar| sar.0 > 0 && sar.1 > 0).filter(common).unwrap_or_else(|| reduced(a * height, b * width))
}

fn reduced(n: u32, d: u32) -> (u32, u32) {
    let (mut a, mut b) = (n, d);
    while b > 0 {
        (a, b) = (b, a % b);
    }
    (n / a.max(1), d / a.max(1))
}
