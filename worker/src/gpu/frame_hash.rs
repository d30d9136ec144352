//! The launch of `rung_frame_hash`; what the number means is said in `scale::hash`.

use super::ladder::{LadderError, Layout, OutputPlanes};
use crate::scale::{SIDE_MAX, hash};

/// Name of the kernel in `ladder::PTX`.
pub const KERNEL: &str = "rung_frame_hash";
pub const BLOCK: [u32; 3] = [128, 1, 1];
/// The numbers of 64 bit that a launch adds to; the caller sets them to 0 before it.
pub const SUMS: usize = 64;

/// The kernel's parameter, by value.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct HashArguments {
    luma: u64,
    chroma: u64,
    chroma_v: u64,
    sums: u64,
    pitch_luma: u32,
    pitch_chroma: u32,
    width: u32,
    height: u32,
}

const _: () = assert!(size_of::<HashArguments>() == 48, "as in kernels/hash.h");

impl HashArguments {
    /// Of an 8 bit picture in device memory, `width` x `height` luma samples; `sums` is the address of `SUMS` numbers.
    ///
    /// # Errors
    /// A side of 0 or above `SIDE_MAX`; an address or pitch that is no multiple of 4 (of 8, for `sums`); a pitch below a
    /// row. Rows are read to the next multiple of 4 bytes.
    pub fn new(
        planes: OutputPlanes,
        layout: Layout,
        (width, height): (usize, usize),
        sums: u64,
    ) -> Result<HashArguments, LadderError> {
        if ![width, height].iter().all(|side| (1..=SIDE_MAX).contains(side)) {
            return Err(LadderError::Side { what: "hash", width, height });
        }
        planes.check(layout, width.next_multiple_of(4))?;
        if !sums.is_multiple_of(8) {
            return Err(LadderError::Address { what: "hash sums", address: sums });
        }
        let side = |n: usize| u32::try_from(n).expect("at most SIDE_MAX");
        let OutputPlanes { luma, chroma, chroma_v, pitch_luma, pitch_chroma } = planes;
        let chroma_v = if layout == Layout::I420 { chroma_v } else { 0 };
        let (width, height) = (side(width), side(height));
        Ok(HashArguments { luma, chroma, chroma_v, sums, pitch_luma, pitch_chroma, width, height })
    }

    pub fn grid(&self) -> [u32; 3] {
        let across = self.width.div_ceil(4).div_ceil(BLOCK[0]);
        let groups = self.height.div_ceil(ROWS) + self.height.div_ceil(2).div_ceil(ROWS);
        [across * groups, 1, 1]
    }

    /// The hash, of the sums that the launch left: `scale::hash::frame_hash` of the same picture.
    pub fn finished(&self, sums: &[u64; SUMS]) -> u64 {
        hash::finished(sums, self.width as usize, self.height as usize)
    }
}

/// Rows of cells that a thread adds up.
const ROWS: u32 = 32;
