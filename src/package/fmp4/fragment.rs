//! Parts: one movie fragment and its media data, built once into contiguous memory [BMFF 8.8.4, 8.8.8, 8.8.12].

use bytes::Bytes;

use super::emsg::{self, TimedTag};
use super::{boxed, full, put32};
use crate::media::sample::Sample;
use crate::sys::pieces::Pieces;

/// Sample flags [BMFF 8.8.3.1]: depends on no other sample / depends on others and is no sync sample.
pub const SYNC: u32 = 0x0200_0000;
pub const NON_SYNC: u32 = 0x0101_0000;

/// mfhd's sequence_number as a function of the place: 26 bits of the segment, 6 of the part; never a counter, so two
/// boxes write the same. Increases along a track [BMFF 8.8.5] but for one wrap in 2^26 segments.
pub fn sequence_number(msn: u64, part: u32) -> u32 {
    u32::try_from(msn & 0x03ff_ffff).unwrap_or(0) << 6 | part & 0x3f
}

/// Parts of one piece of memory: what is left at its end is lost, and all of it is held as long as one of them is.
const PARTS_TOGETHER: usize = 4;
/// The largest piece, bytes.
const PIECE_MAX: usize = 16 << 20;

/// `moof` and `mdat` of `samples`, which are contiguous and not empty.
pub fn fragment(sequence: u32, samples: &[Sample]) -> Bytes {
    tagged(&mut Pieces::default(), sequence, samples, &[], 0)
}

/// The same in `memory`, with tags in front; each with its time in units of the track's `timescale`.
pub fn tagged(
    memory: &mut Pieces,
    sequence: u32,
    samples: &[Sample],
    tags: &[(i64, TimedTag)],
    timescale: u32,
) -> Bytes {
    let body: usize = samples.iter().map(|s| s.data.len()).sum();
    let before: usize = tags.iter().map(|(_, tag)| emsg::size(tag)).sum();
    let mut front = Vec::with_capacity(before + head_bytes(samples));
    tags.iter().for_each(|(time, tag)| emsg::write(&mut front, tag, *time, timescale));
    head(&mut front, sequence, samples);
    let size = front.len() + body;
    let out = memory.room(size, (size * PARTS_TOGETHER).next_power_of_two().min(PIECE_MAX));
    out.extend_from_slice(&front);
    samples.iter().for_each(|sample| out.extend_from_slice(&sample.data));
    out.split_to(size).freeze()
}

/// A fragment of one sample, whose data are not copied.
pub fn single(sequence: u32, sample: Sample) -> [Bytes; 2] {
    let one = std::slice::from_ref(&sample);
    let mut out = Vec::with_capacity(head_bytes(one));
    head(&mut out, sequence, one);
    [Bytes::from(out), sample.data]
}

/// Everything before the first sample.
fn head(out: &mut Vec<u8>, sequence: u32, samples: &[Sample]) {
    let (before, size) = (out.len(), head_bytes(samples));
    let body: usize = samples.iter().map(|s| s.data.len()).sum();
    moof(out, sequence, samples, Shape::of(samples), size);
    put32(out, u32::try_from(body + 8).expect("the segmenter bounds a part far below 4 GiB"));
    out.extend_from_slice(b"mdat");
    let wrote = out.len() - before;
    assert!(wrote == size, "the header's length is known before it is written: {wrote} not {size}");
}

fn head_bytes(samples: &[Sample]) -> usize {
    Shape::of(samples).head_bytes(samples.len())
}

/// What all samples share is said once in tfhd; the rest is a column of trun.
#[derive(Clone, Copy)]
struct Shape {
    duration: Option<u32>,
    flags: Option<u32>,
    offsets: bool,
}

impl Shape {
    fn of(samples: &[Sample]) -> Shape {
        let first = samples.first().expect("empty parts do not exist");
        Shape {
            duration: samples.iter().all(|s| s.duration == first.duration).then_some(first.duration),
            flags: samples.iter().all(|s| s.sync == first.sync).then_some(flags(first.sync)),
            offsets: samples.iter().any(|s| s.cto != 0),
        }
    }

    /// trun's flags: data offset and sizes always.
    fn columns(self) -> u32 {
        0x201
            | if self.duration.is_none() { 0x100 } else { 0 }
            | if self.flags.is_none() { 0x400 } else { 0 }
            | if self.offsets { 0x800 } else { 0 }
    }

    /// Bytes before the first sample: moof and mdat's header.
    fn head_bytes(self, samples: usize) -> usize {
        let row = 4 * (self.columns() & 0xf00).count_ones() as usize;
        let tfhd = 16 + 4 * (usize::from(self.duration.is_some()) + usize::from(self.flags.is_some()));
        8 + 16 + 8 + tfhd + 20 + (20 + row * samples) + 8
    }
}

fn moof(out: &mut Vec<u8>, sequence: u32, samples: &[Sample], shape: Shape, head: usize) {
    boxed(out, b"moof", |out| {
        full(out, b"mfhd", 0, 0, |out| put32(out, sequence));
        boxed(out, b"traf", |out| {
            // default-base-is-moof, and the defaults that this part has.
            let present = 0x02_0000
                | if shape.duration.is_some() { 0x08 } else { 0 }
                | if shape.flags.is_some() { 0x20 } else { 0 };
            full(out, b"tfhd", 0, present, |out| {
                put32(out, 1);
                for value in [shape.duration, shape.flags].into_iter().flatten() {
                    put32(out, value);
                }
            });
            full(out, b"tfdt", 1, 0, |out| {
                // A track's time starts at the session's origin: nothing decodes before it.
                let start = u64::try_from(samples[0].dts).unwrap_or(0);
                out.extend_from_slice(&start.to_be_bytes());
            });
            full(out, b"trun", 1, shape.columns(), |out| {
                put32(out, u32::try_from(samples.len()).unwrap_or(u32::MAX));
                put32(out, u32::try_from(head).unwrap_or(u32::MAX));
                for sample in samples {
                    row(out, sample, shape);
                }
            });
        });
    });
}

fn row(out: &mut Vec<u8>, sample: &Sample, shape: Shape) {
    if shape.duration.is_none() {
        put32(out, sample.duration);
    }
    put32(out, u32::try_from(sample.data.len()).unwrap_or(u32::MAX));
    if shape.flags.is_none() {
        put32(out, flags(sample.sync));
    }
    if shape.offsets {
        put32(out, sample.cto.cast_unsigned());
    }
}

fn flags(sync: bool) -> u32 {
    if sync { SYNC } else { NON_SYNC }
}
