//! What the syntax of every codec gives the parser: where pictures end, and what their headers say.

use crate::abi::{Format, PicParams};

/// One codec's headers. A unit is a NAL unit or what stands between two start codes, without the start code.
pub(crate) trait Syntax: Send {
    /// Slices were taken, and this unit (or its first bytes) belongs to another picture.
    fn begins_next(&self, unit: &[u8]) -> bool;

    /// Reads a unit. True: it is slice data of the current picture.
    fn take(&mut self, unit: &[u8]) -> bool;

    /// Ends the current picture. `None`: its headers make no sense, or it can not be decoded.
    fn finish(&mut self) -> Option<Coded>;

    /// All parameter sets as they stand, with start codes.
    fn parameter_sets(&self) -> Vec<u8>;

    /// End of stream: what comes next is a stream of its own, its parameter sets may be those known.
    fn reset(&mut self);

    /// Units are what stands between start codes; else a unit is a whole packet.
    fn has_start_codes(&self) -> bool {
        true
    }
}

/// A picture (a frame or one field) as its headers describe it.
pub(crate) struct Coded {
    pub(crate) sequence: Sequence,
    /// Decoding may begin here.
    pub(crate) starts: bool,
    pub(crate) prior: Prior,
    pub(crate) poc: i64,
    pub(crate) field: Field,
    pub(crate) progressive: bool,
    pub(crate) top_first: bool,
    /// As CUVIDPARSERDISPINFO counts; -1 is not said here.
    pub(crate) repeat: i32,
    pub(crate) reference: bool,
    pub(crate) intra: bool,
    /// False: decoded, never shown.
    pub(crate) shown: bool,
    /// What stood before the slices and libavcodec wants to see, with start codes.
    pub(crate) side: Vec<u8>,
    pub(crate) fields: Box<dyn Fill>,
}

/// Writes what only this codec has into the picture parameters.
pub(crate) trait Fill: Send {
    fn fill(&self, out: &mut PicParams);
}

/// What a caller is told of, and how the parser orders pictures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sequence {
    pub(crate) format: Format,
    /// So many pictures may wait for one that is shown before them.
    pub(crate) reorder: usize,
    /// So many pictures are kept as references.
    pub(crate) references: usize,
}

/// What becomes of the pictures that wait when this one comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prior {
    Wait,
    Show,
    Discard,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    Frame,
    First { bottom: bool },
    Second { bottom: bool },
}

/// A display aspect ratio in lowest terms.
pub(crate) fn aspect(sar: (u32, u32), width: u32, height: u32) -> [i32; 2] {
    let (x, y) = if sar.0 == 0 || sar.1 == 0 { (1, 1) } else { sar };
    let (x, y) = (u64::from(x) * u64::from(width), u64::from(y) * u64::from(height));
    let [x, y] = lowest(x, y);
    [i32::try_from(x).unwrap_or(0), i32::try_from(y).unwrap_or(0)]
}

/// Pictures a second in lowest terms; 0/0 where either is 0 or too large.
pub(crate) fn rate(numerator: u64, denominator: u64) -> [u32; 2] {
    let [n, d] = lowest(numerator, denominator);
    match (u32::try_from(n), u32::try_from(d)) {
        (Ok(n), Ok(d)) if n > 0 && d > 0 => [n, d],
        _ => [0, 0],
    }
}

fn lowest(x: u64, y: u64) -> [u64; 2] {
    let (mut a, mut b) = (x, y);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    [x, y].map(|number| number.checked_div(a).unwrap_or(0))
}

/// [AVC Table E-1], [HEVC Table E-1]: sample aspect ratios by number.
pub(crate) fn sample_aspect(idc: u32) -> (u32, u32) {
    const TABLE: [(u32, u32); 17] = [
        (0, 0),
        (1, 1),
        (12, 11),
        (10, 11),
        (16, 11),
        (40, 33),
        (24, 11),
        (20, 11),
        (32, 11),
        (80, 33),
        (18, 11),
        (15, 11),
        (64, 33),
        (160, 99),
        (4, 3),
        (3, 2),
        (2, 1),
    ];
    TABLE.get(idc as usize).copied().unwrap_or((0, 0))
}

/// Appends a unit behind a start code, as an Annex B stream has it.
pub(crate) fn with_start_code(out: &mut Vec<u8>, unit: &[u8]) {
    out.extend_from_slice(&[0, 0, 1]);
    out.extend_from_slice(unit);
}
