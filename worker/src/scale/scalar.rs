//! The specification as plain loops; other forms use it for what is too narrow for a vector.

use super::filter::Filter;
use super::{Plane, Sample};

/// Row `y` of the target's height at the source's width, 64 times its value.
pub(super) fn vertical<S: Sample>(filter: &Filter, src: &Plane<'_, S>, y: usize, out: &mut [i16]) {
    let first = filter.first(y);
    for (x, out) in out.iter_mut().enumerate().take(src.width) {
        let mut sum = 1 << (S::SHIFT - 1);
        for (k, c) in filter.coefficients(y).iter().enumerate() {
            sum += i32::from(*c) * src.data[(first + k) * src.stride + x].value();
        }
        *out = i16::try_from(sum >> S::SHIFT).expect("bounded by the coefficients' sum");
    }
}

/// One row of the target, from sample `from` on.
pub(super) fn horizontal(filter: &Filter, between: &[i16], from: usize, out: &mut [u8]) {
    for (x, out) in out.iter_mut().enumerate().skip(from) {
        let samples = &between[filter.first(x)..][..filter.taps()];
        let sum: i32 = filter.coefficients(x).iter().zip(samples).map(|(c, v)| i32::from(*c) * i32::from(*v)).sum();
        *out = u8::try_from(((sum + (1 << 19)) >> 20).clamp(0, 255)).expect("clamped");
    }
}
