//! From a decoded picture to what a caller maps: cropped, deinterlaced, semi-planar.

use crate::abi::{ADAPTIVE, WEAVE};
use crate::av::Frame;

/// Rows of a mapped surface are a multiple of so many bytes long, as those of cuMemAllocPitch.
const PITCH: usize = 512;

/// Samples that differ by no more than this (of 255) between pictures are taken to be at rest.
const REST: i32 = 6;

/// The mapped surface: rows of luma, then rows of chroma pairs. Chroma begins at `pitch` times the height, rounded up to
/// an even number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) width: usize,
    pub(crate) height: usize,
    /// Two bytes a sample, the value in the high bits.
    pub(crate) wide: bool,
}

impl Layout {
    pub(crate) fn pitch(self) -> usize {
        (self.width.next_multiple_of(2) * self.sample()).next_multiple_of(PITCH)
    }

    pub(crate) fn bytes(self) -> usize {
        self.pitch() * self.height.next_multiple_of(2) * 3 / 2
    }

    fn sample(self) -> usize {
        if self.wide { 2 } else { 1 }
    }
}

/// What is made of a picture that has fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Deinterlace {
    /// cudaVideoDeinterlaceMode.
    pub(crate) mode: u32,
    pub(crate) progressive: bool,
    pub(crate) top_first: bool,
    pub(crate) second: bool,
    pub(crate) unpaired: bool,
}

impl Deinterlace {
    /// Rows of this parity are made of the others; `None`: the picture as it is.
    fn missing(self) -> Option<usize> {
        if self.progressive || self.mode == WEAVE {
            return None;
        }
        // The first field's rows stay for the first output, the second field's for the second.
        let keeps_top = self.top_first != (self.second && !self.unpaired);
        Some(usize::from(keeps_top))
    }

    fn adaptive(self) -> bool {
        self.mode == ADAPTIVE && !self.unpaired
    }
}

/// `frame`'s part that begins at column `left` and row `top`, as `layout` wants it. `before`: the frame shown before it.
/// Rows beyond the frame repeat its last one.
pub(crate) fn render(
    frame: &Frame,
    before: Option<&Frame>,
    [left, top]: [usize; 2],
    layout: Layout,
    how: Deinterlace,
) -> Vec<u8> {
    let mut out = vec![0; layout.bytes()];
    let pitch = layout.pitch();
    let depth = frame.samples().map_or(8, |samples| samples.depth);
    let missing = how.missing();
    let before = before.filter(|before| before.size() == frame.size() && before.samples() == frame.samples());
    let (luma, chroma) = out.split_at_mut(pitch * layout.height.next_multiple_of(2));
    for (row, to) in luma.chunks_exact_mut(pitch).take(layout.height).enumerate() {
        let samples = line(frame, before.filter(|_| how.adaptive()), 0, top + row, missing, depth);
        put(to, &samples[left.min(samples.len())..], layout, depth, 0, 1);
    }
    for (row, to) in chroma.chunks_exact_mut(pitch).take(layout.height.div_ceil(2)).enumerate() {
        for plane in [1, 2] {
            let samples = line(frame, before.filter(|_| how.adaptive()), plane, top / 2 + row, missing, depth);
            put(to, &samples[(left / 2).min(samples.len())..], layout, depth, plane - 1, 2);
        }
    }
    out
}

/// What is mapped where nothing was ever decoded.
pub(crate) fn black(layout: Layout) -> Vec<u8> {
    let mut out = vec![0; layout.bytes()];
    let (luma, chroma) = out.split_at_mut(layout.pitch() * layout.height.next_multiple_of(2));
    let sample = layout.sample();
    // The high byte comes last.
    luma.iter_mut().skip(sample - 1).step_by(sample).for_each(|byte| *byte = 16);
    chroma.iter_mut().skip(sample - 1).step_by(sample).for_each(|byte| *byte = 128);
    out
}

/// Writes samples from slot `first` on, `step` slots apart.
fn put(to: &mut [u8], samples: &[u16], layout: Layout, depth: u32, first: usize, step: usize) {
    let count = layout.width.div_ceil(step);
    let slots = to.chunks_exact_mut(layout.sample()).skip(first).step_by(step);
    for (slot, sample) in slots.zip(samples.iter().take(count)) {
        match slot {
            [byte] => *byte = *sample as u8,
            slot => slot.copy_from_slice(&(sample << (16 - depth)).to_le_bytes()),
        }
    }
}

/// One row of a plane. Where rows of its parity are missing: the mean of the rows above and below, or in a place that is
/// at rest (the rows around and the row itself are as they were in the picture before) the row of the other field.
fn line(
    frame: &Frame,
    before: Option<&Frame>,
    plane: usize,
    row: usize,
    missing: Option<usize>,
    depth: u32,
) -> Vec<u16> {
    if missing != Some(row % 2) {
        return samples(frame, plane, row, depth);
    }
    // A neighbour of the other parity: beyond an edge the one on the other side.
    let rows = rows(frame, plane);
    let below = if row + 1 < rows { row + 1 } else { row.saturating_sub(1) };
    let above = row.checked_sub(1).unwrap_or(below);
    let (up, down) = (samples(frame, plane, above, depth), samples(frame, plane, below, depth));
    let mean = up.iter().zip(&down).map(|(up, down)| (up + down).div_ceil(2));
    let Some(before) = before else { return mean.collect() };
    let woven = samples(frame, plane, row, depth);
    let rest = REST << (depth - 8);
    let old = [above, row, below].map(|row| samples(before, plane, row, depth));
    let still = |at: usize| {
        let now = [up[at], woven[at], down[at]];
        (0..3).all(|i| (i32::from(now[i]) - i32::from(old[i][at])).abs() <= rest)
    };
    mean.enumerate().map(|(at, mean)| if still(at) { woven[at] } else { mean }).collect()
}

fn rows(frame: &Frame, plane: usize) -> usize {
    frame.size()[1].div_ceil(if plane == 0 { 1 } else { 2 })
}

fn samples(frame: &Frame, plane: usize, row: usize, depth: u32) -> Vec<u16> {
    let width = frame.size()[0].div_ceil(if plane == 0 { 1 } else { 2 });
    let row = row.min(rows(frame, plane).saturating_sub(1));
    if depth == 8 {
        return frame.row(plane, row, width).iter().map(|byte| u16::from(*byte)).collect();
    }
    let bytes = frame.row(plane, row, 2 * width);
    bytes.chunks_exact(2).map(|two| u16::from_le_bytes([two[0], two[1]])).collect()
}
