//! A quiet tone that never stops, and a loud beep that begins with every second.

use std::f32::consts::TAU;

/// Fills `out` with mono samples from number `from_sample` on (sample 0 = media time 0; full scale = 1): `hz` at
/// -26 dBFS throughout, and 1 kHz at -6 dBFS for the first 40 ms of every second, from and to a zero crossing.
///
/// # Panics
/// A sample rate of 0.
pub fn tone(hz: u32, sample_rate: u32, from_sample: i64, out: &mut [f32]) {
    assert!(sample_rate > 0, "samples have a rate");
    let rate = i64::from(sample_rate);
    // Every whole number of hertz has a whole number of periods in a second, so the second says it all.
    let wave = |hz: u32, n: i64| ((i64::from(hz) * n % rate) as f32 / rate as f32 * TAU).sin();
    let beep_samples = rate * BEEP_MS as i64 / 1000;
    for (n, sample) in (from_sample..).zip(out) {
        let in_second = n.rem_euclid(rate);
        *sample = TONE_LEVEL * wave(hz, in_second);
        if in_second < beep_samples {
            *sample += BEEP_LEVEL * wave(BEEP_HZ, in_second);
        }
    }
}

/// Length of beep and flash, milliseconds.
pub(super) const BEEP_MS: u64 = 40;
const BEEP_HZ: u32 = 1000;
const BEEP_LEVEL: f32 = 0.5;
const TONE_LEVEL: f32 = 0.05;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beep_of_40_ms_begins_with_every_second_and_only_there() {
        for rate in [48_000, 44_100] {
            let mut out = vec![0.0; rate as usize * 2];
            tone(440, rate, -i64::from(rate), &mut out);
            let loud = |from: usize, to: usize| out[from..to].iter().any(|s| s.abs() > 0.1);
            let (second, ms) = (rate as usize, rate as usize / 1000);
            for start in [0, second] {
                assert!(loud(start, start + ms) && loud(start + 39 * ms, start + 40 * ms));
                assert!(!loud(start + 40 * ms + ms / 2, start + second), "quiet after the beep");
            }
        }
    }

    #[test]
    fn blocks_join_without_a_seam() {
        let (mut whole, mut parts) = (vec![0.0; 4096], vec![0.0; 4096]);
        tone(440, 48_000, 46_000, &mut whole);
        for (n, part) in parts.chunks_mut(1024).enumerate() {
            tone(440, 48_000, 46_000 + 1024 * i64::try_from(n).unwrap(), part);
        }
        assert_eq!(whole, parts);
        let step = whole.windows(2).map(|w| (w[1] - w[0]).abs()).fold(0.0, f32::max);
        assert!(step < 0.08, "no click: {step}");
    }
}
