//! A number that two pictures share when all their samples are equal: what the members of a pair compare. The same
//! wherever the picture lies; `rung_frame_hash` of `kernels/hash.h` is its form in CUDA.
//!
//! # Specification
//!
//! A row of luma is cut in cells of four samples, a row of chroma in cells of two U and two V, interleaved; what lies
//! past the row's end is 0. A cell is the number c = its bytes, the first lowest; its place is
//! p = plane << 31 | row << 12 | index of the cell in its row (plane: 0 luma, 1 chroma). The hash is the sum, modulo 2^64,
//! of m(p << 32 | c) over all cells, and of m(2^63 | height << 14 | width), where m is the finaliser of SplitMix64
//! after its increment.

use super::Planes;

/// Of a planar picture in this process' memory.
///
/// # Panics
/// Planes shorter than their size and stride say.
pub fn frame_hash(picture: &Planes<'_>) -> u64 {
    let (width, height) = (picture.width, picture.height);
    let mut sum = 0_u64;
    for y in 0..height {
        let row = &picture.y[y * picture.stride_y..][..width];
        for (cell, samples) in row.chunks(4).enumerate() {
            let mut bytes = [0; 4];
            bytes[..samples.len()].copy_from_slice(samples);
            sum = sum.wrapping_add(mixed(place(0, y, cell), bytes));
        }
    }
    for y in 0..height.div_ceil(2) {
        let us = &picture.u[y * picture.stride_u..][..width.div_ceil(2)];
        let vs = &picture.v[y * picture.stride_v..][..width.div_ceil(2)];
        for (cell, (us, vs)) in us.chunks(2).zip(vs.chunks(2)).enumerate() {
            let second = |samples: &[u8]| samples.get(1).copied().unwrap_or(0);
            sum = sum.wrapping_add(mixed(place(1, y, cell), [us[0], vs[0], second(us), second(vs)]));
        }
    }
    finished(&[sum], width, height)
}

/// The hash, of the sums that the kernel made over a picture of this size.
pub fn finished(sums: &[u64], width: usize, height: usize) -> u64 {
    let size = 1 << 63 | (height as u64) << 14 | width as u64;
    sums.iter().fold(mix(size), |all, sum| all.wrapping_add(*sum))
}

fn place(plane: u64, row: usize, cell: usize) -> u64 {
    plane << 31 | (row as u64) << 12 | cell as u64
}

fn mixed(place: u64, bytes: [u8; 4]) -> u64 {
    mix(place << 32 | u64::from(u32::from_le_bytes(bytes)))
}

fn mix(n: u64) -> u64 {
    let n = n.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let n = (n ^ n >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let n = (n ^ n >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    n ^ n >> 31
}
