//! The specification in AVX2. The only file of `scale` with `unsafe`: loads and stores through pointers, and the calls
//! into functions compiled for AVX2, which only a `Kernel` makes.
#![expect(unsafe_code, reason = "vector loads and stores; house rule: the SIMD files of scale")]

use std::arch::x86_64::*;

use super::filter::Filter;
use super::{Plane, scalar};

/// Proof that this CPU runs AVX2.
#[derive(Clone, Copy)]
pub(super) struct Kernel(());

impl Kernel {
    pub(super) fn detect() -> Option<Kernel> {
        is_x86_feature_detected!("avx2").then_some(Kernel(()))
    }
}

/// Coefficients in the order the vectors want them.
pub(super) struct Tables {
    _kernel: Kernel,
    /// Per target row and pair of source rows: two coefficients, the first in the low half. An odd last row is paired
    /// with a zero.
    pairs: Vec<i32>,
    pairs_per_row: usize,
    /// Per eight target samples and eight taps: four vectors, the n-th with the taps of sample n, then those of n + 4.
    eights: Vec<i16>,
    /// Taps / 8, rounded up.
    chunks: usize,
    /// First source sample of each target sample, in whole sixteens.
    firsts: Vec<usize>,
    /// No load of the horizontal pass goes further: the largest of `firsts` plus eight times `chunks`.
    reach: usize,
}

impl Tables {
    pub(super) fn new(kernel: Kernel, vertical: &Filter, horizontal: &Filter) -> Tables {
        let pairs_per_row = vertical.taps().div_ceil(2);
        let mut pairs = Vec::with_capacity(vertical.outputs() * pairs_per_row);
        for y in 0..vertical.outputs() {
            for pair in vertical.coefficients(y).chunks(2) {
                let [a, b] = [pair[0], pair.get(1).copied().unwrap_or(0)].map(i16::to_le_bytes);
                pairs.push(i32::from_le_bytes([a[0], a[1], b[0], b[1]]));
            }
        }
        let chunks = horizontal.taps().div_ceil(8);
        let mut eights = Vec::with_capacity(horizontal.outputs() / 8 * chunks * 64);
        for group in 0..horizontal.outputs() / 8 {
            for chunk in 0..chunks {
                for sample in [0, 4, 1, 5, 2, 6, 3, 7] {
                    let row = horizontal.coefficients(group * 8 + sample);
                    eights.extend((0..8).map(|tap| row.get(chunk * 8 + tap).copied().unwrap_or(0)));
                }
            }
        }
        let firsts = horizontal.firsts()[..horizontal.outputs() / 16 * 16].to_vec();
        let reach = firsts.iter().max().map_or(0, |first| first + 8 * chunks);
        Tables { _kernel: kernel, pairs, pairs_per_row, eights, chunks, firsts, reach }
    }

    pub(super) fn vertical(&self, filter: &Filter, src: &Plane<'_, u8>, y: usize, out: &mut [i16]) {
        if src.width < BLOCK {
            return scalar::vertical(filter, src, y, out);
        }
        let pairs = &self.pairs[y * self.pairs_per_row..][..self.pairs_per_row];
        // SAFETY: `self` holds a `Kernel`, so AVX2 was detected.
        unsafe { vertical(pairs, filter.first(y), filter.taps(), src, out) }
    }

    pub(super) fn vertical_ten(&self, filter: &Filter, src: &Plane<'_, u16>, y: usize, out: &mut [i16]) {
        if src.width < BLOCK_TEN {
            return scalar::vertical(filter, src, y, out);
        }
        let pairs = &self.pairs[y * self.pairs_per_row..][..self.pairs_per_row];
        // SAFETY: `self` holds a `Kernel`, so AVX2 was detected.
        unsafe { vertical_ten(pairs, filter.first(y), filter.taps(), src, out) }
    }

    pub(super) fn horizontal(&self, filter: &Filter, between: &[i16], out: &mut [u8]) {
        // SAFETY: `self` holds a `Kernel`, so AVX2 was detected.
        unsafe { self.sixteens(between, out) };
        scalar::horizontal(filter, between, self.firsts.len(), out);
    }
}

/// Needs `src.width >= BLOCK`; the last block overlaps the one before it.
#[target_feature(enable = "avx2")]
fn vertical(pairs: &[i32], first: usize, taps: usize, src: &Plane<'_, u8>, out: &mut [i16]) {
    let (width, stride) = (src.width, src.stride);
    assert!(width >= BLOCK && out.len() >= width, "a row holds a block and fits the scratch");
    assert!(pairs.len() == taps.div_ceil(2), "the pairs are the filter's");
    assert!((first + taps - 1) * stride + width <= src.data.len(), "the rows of the filter lie in the plane");
    let mut x = 0;
    loop {
        let mut sums = [_mm256_set1_epi32(1 << 7); 4];
        let mut at = first * stride + x;
        let (even, odd) = (pairs.len() - taps % 2, taps % 2 == 1);
        for pair in &pairs[..even] {
            // SAFETY: at <= (first + taps - 2) * stride + width - BLOCK, asserted to leave a block (and a row).
            let a = unsafe { load_block(src.data, at) };
            // SAFETY: one row further, still one of the filter's.
            let b = unsafe { load_block(src.data, at + stride) };
            add_rows(&mut sums, a, b, _mm256_set1_epi32(*pair));
            at += 2 * stride;
        }
        if odd {
            // SAFETY: the filter's last row.
            let a = unsafe { load_block(src.data, at) };
            add_rows(&mut sums, a, _mm256_setzero_si256(), _mm256_set1_epi32(pairs[even]));
        }
        let [a, b, c, d] = sums.map(|sum| _mm256_srai_epi32(sum, 8));
        let (low, high) = (_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
        if let Some([near, far]) = out[x..x + BLOCK].as_chunks_mut::<16>().0.first_chunk_mut() {
            store_sixteen(near, _mm256_permute2x128_si256(low, high, 0x20));
            store_sixteen(far, _mm256_permute2x128_si256(low, high, 0x31));
        }
        if x + BLOCK == width {
            return;
        }
        x = (x + BLOCK).min(width - BLOCK);
    }
}

/// Adds two rows of 32 samples times their coefficients. Sums hold samples 0-3 16-19, 4-7 20-23, 8-11 24-27, 12-15 28-31:
/// the order that two packs within 128-bit lanes undo.
#[inline]
#[target_feature(enable = "avx2")]
fn add_rows(sums: &mut [__m256i; 4], a: __m256i, b: __m256i, pair: __m256i) {
    let zero = _mm256_setzero_si256();
    let (low, high) = (_mm256_unpacklo_epi8(a, b), _mm256_unpackhi_epi8(a, b));
    let samples = [
        _mm256_unpacklo_epi8(low, zero),
        _mm256_unpackhi_epi8(low, zero),
        _mm256_unpacklo_epi8(high, zero),
        _mm256_unpackhi_epi8(high, zero),
    ];
    for (sum, samples) in sums.iter_mut().zip(samples) {
        *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(samples, pair));
    }
}

/// Needs `src.width >= BLOCK_TEN`; the last block overlaps the one before it.
#[target_feature(enable = "avx2")]
fn vertical_ten(pairs: &[i32], first: usize, taps: usize, src: &Plane<'_, u16>, out: &mut [i16]) {
    let (width, stride) = (src.width, src.stride);
    assert!(width >= BLOCK_TEN && out.len() >= width, "a row holds a block and fits the scratch");
    assert!(pairs.len() == taps.div_ceil(2), "the pairs are the filter's");
    assert!((first + taps - 1) * stride + width <= src.data.len(), "the rows of the filter lie in the plane");
    let mut x = 0;
    loop {
        // Samples 0-3 8-11 and 4-7 12-15: the order that one pack within 128-bit lanes undoes.
        let mut sums = [_mm256_set1_epi32(1 << 9); 2];
        for (n, pair) in pairs.iter().enumerate() {
            let at = (first + 2 * n) * stride + x;
            // SAFETY: row 2n is one of the filter's: a block from `x` lies in it.
            let a = unsafe { load_ten(src.data, at) };
            let odd = 2 * n + 1 == taps;
            // SAFETY: so is the row after it, unless the taps end here.
            let b = if odd { _mm256_setzero_si256() } else { unsafe { load_ten(src.data, at + stride) } };
            let pair = _mm256_set1_epi32(*pair);
            for (sum, rows) in sums.iter_mut().zip([_mm256_unpacklo_epi16(a, b), _mm256_unpackhi_epi16(a, b)]) {
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(rows, pair));
            }
        }
        let [low, high] = sums.map(|sum| _mm256_srai_epi32(sum, 10));
        if let Some(out) = out[x..].first_chunk_mut() {
            store_sixteen(out, _mm256_packs_epi32(low, high));
        }
        if x + BLOCK_TEN == width {
            return;
        }
        x = (x + BLOCK_TEN).min(width - BLOCK_TEN);
    }
}

impl Tables {
    /// The horizontal pass for all whole sixteens of target samples.
    #[target_feature(enable = "avx2")]
    fn sixteens(&self, between: &[i16], out: &mut [u8]) {
        match self.chunks {
            1 => self.sixteens_of::<1>(between, out),
            2 => self.sixteens_of::<2>(between, out),
            _ => self.sixteens_of::<0>(between, out),
        }
    }

    /// For `CHUNKS` chunks of taps; 0: however many there are.
    #[target_feature(enable = "avx2")]
    fn sixteens_of<const CHUNKS: usize>(&self, between: &[i16], out: &mut [u8]) {
        let chunks = if CHUNKS == 0 { self.chunks } else { CHUNKS };
        assert!(chunks == self.chunks && between.len() >= self.reach, "every load lies in the row and its spare");
        let tables = self.eights.chunks_exact(chunks * 64);
        let mut words = [_mm256_setzero_si256(); 2];
        for (group, (firsts, table)) in self.firsts.as_chunks::<8>().0.iter().zip(tables).enumerate() {
            let mut sums = [_mm256_setzero_si256(); 4];
            for (chunk, table) in table.as_chunks::<64>().0.iter().enumerate() {
                let taps = table.as_chunks::<16>().0;
                for (n, sum) in sums.iter_mut().enumerate() {
                    // SAFETY: one of `firsts` and a chunk below `chunks`: eight values further is within `reach`.
                    let low = unsafe { load_eight(between, firsts[n] + 8 * chunk) };
                    // SAFETY: likewise.
                    let high = unsafe { load_eight(between, firsts[n + 4] + 8 * chunk) };
                    let samples = _mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1);
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(samples, load_sixteen(&taps[n])));
                }
            }
            // Pairs of lanes, twice: eight target samples in order.
            let [a, b, c, d] = sums;
            let sum = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
            words[group % 2] = _mm256_srai_epi32(_mm256_add_epi32(sum, _mm256_set1_epi32(1 << 19)), 20);
            if let (1, Some(out)) = (group % 2, out.as_chunks_mut::<16>().0.get_mut(group / 2)) {
                store_bytes(out, words);
            }
        }
    }
}

/// # Safety
/// `data` holds `BLOCK` bytes from `at` on.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn load_block(data: &[u8], at: usize) -> __m256i {
    debug_assert!(at + BLOCK <= data.len(), "the caller checked");
    // SAFETY: the caller says that `at` lies inside `data`.
    let from = unsafe { data.as_ptr().add(at) };
    // SAFETY: the caller says that 32 bytes follow; the load needs no alignment.
    unsafe { _mm256_loadu_si256(from.cast()) }
}

/// # Safety
/// `data` holds `BLOCK_TEN` samples from `at` on.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn load_ten(data: &[u16], at: usize) -> __m256i {
    debug_assert!(at + BLOCK_TEN <= data.len(), "the caller checked");
    // SAFETY: the caller says that `at` lies inside `data`.
    let from = unsafe { data.as_ptr().add(at) };
    // SAFETY: the caller says that 32 bytes follow; the load needs no alignment.
    let samples = unsafe { _mm256_loadu_si256(from.cast()) };
    _mm256_and_si256(samples, _mm256_set1_epi16(0x3FF))
}

/// # Safety
/// `data` holds eight values from `at` on.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn load_eight(data: &[i16], at: usize) -> __m128i {
    debug_assert!(at + 8 <= data.len(), "the caller checked");
    // SAFETY: the caller says that `at` lies inside `data`.
    let from = unsafe { data.as_ptr().add(at) };
    // SAFETY: the caller says that 16 bytes follow; the load needs no alignment.
    unsafe { _mm_loadu_si128(from.cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_sixteen(from: &[i16; 16]) -> __m256i {
    // SAFETY: `from` is 32 bytes; the load needs no alignment.
    unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
}

/// Two times eight words, clamped to bytes.
#[inline]
#[target_feature(enable = "avx2")]
fn store_bytes(to: &mut [u8; 16], [near, far]: [__m256i; 2]) {
    let words = _mm256_permute4x64_epi64(_mm256_packs_epi32(near, far), 0b11_01_10_00);
    let bytes = _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    // SAFETY: `to` is 16 bytes; the store needs no alignment.
    unsafe { _mm_storeu_si128(to.as_mut_ptr().cast(), bytes) };
}

#[inline]
#[target_feature(enable = "avx2")]
fn store_sixteen(to: &mut [i16; 16], values: __m256i) {
    // SAFETY: `to` is 32 bytes; the store needs no alignment.
    unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), values) };
}

/// Samples per step of the vertical pass.
const BLOCK: usize = 32;
/// The same for 10 bit samples.
const BLOCK_TEN: usize = 16;
