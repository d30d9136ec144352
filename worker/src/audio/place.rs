//! PCM on the session's sample grid: gaps become silence, overlaps are cut, a drift is corrected once. Pure.

/// A stretch of audio whose own count disagrees with its time stamps by no more than this is trusted, in samples (10 ms).
const TRUST: i64 = 480;

/// Collects samples by 48 kHz index and gives frames of a fixed size.
#[derive(Debug)]
pub(super) struct Placer {
    planes: Vec<Vec<f32>>,
    /// Index of the first sample held.
    first: i64,
    /// The last samples came from the source: the next ones follow them if their index agrees within `TRUST`.
    follows: bool,
}

/// What writing did, in samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Placed {
    pub silence: i64,
    pub cut: i64,
}

impl Placer {
    pub(super) fn new(channels: u8, first: i64) -> Placer {
        Placer { planes: vec![Vec::new(); usize::from(channels)], first, follows: false }
    }

    /// Index of the sample that comes next.
    pub(super) fn cursor(&self) -> i64 {
        self.first + signed(self.planes[0].len())
    }

    /// How many samples of silence `write` would put before samples at `at`.
    pub(super) fn gap(&self, at: i64) -> i64 {
        let ahead = at - self.cursor();
        if self.follows && ahead <= TRUST { 0 } else { ahead.max(0) }
    }

    /// Samples whose first has index `at` by its time stamp. The gap before them must have been filled down to less
    /// than one frame by the caller (`silence`), or be small.
    pub(super) fn write(&mut self, at: i64, pcm: &[Vec<f32>]) -> Placed {
        let count = signed(pcm[0].len());
        let ahead = at - self.cursor();
        let mut placed = Placed::default();
        if !(self.follows && ahead.abs() <= TRUST) {
            placed = Placed { silence: ahead.max(0), cut: (-ahead).clamp(0, count) };
        }
        self.silence(placed.silence);
        if placed.cut < count {
            let from = usize::try_from(placed.cut).unwrap_or(0);
            for (plane, new) in self.planes.iter_mut().zip(pcm) {
                plane.extend_from_slice(&new[from..]);
            }
            self.follows = true;
        }
        placed
    }

    /// So many samples of silence; what follows is placed by its index again.
    pub(super) fn silence(&mut self, samples: i64) {
        if samples > 0 {
            for plane in &mut self.planes {
                plane.resize(plane.len() + usize::try_from(samples).unwrap_or(0), 0.0);
            }
            self.follows = false;
        }
    }

    /// Takes one frame of `size` samples into `into` (one plane per channel); gives the index of its first sample.
    pub(super) fn take(&mut self, size: usize, mut into: impl FnMut(usize, &[f32])) -> Option<i64> {
        if self.planes[0].len() < size {
            return None;
        }
        for (channel, plane) in self.planes.iter_mut().enumerate() {
            into(channel, &plane[..size]);
            plane.drain(..size);
        }
        let at = self.first;
        self.first += signed(size);
        Some(at)
    }

    /// Everything held is forgotten; the next sample has this index.
    pub(super) fn restart(&mut self, first: i64) {
        *self = Placer::new(u8::try_from(self.planes.len()).unwrap_or(u8::MAX), first);
    }
}

fn signed(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp(from: i64, count: usize) -> Vec<Vec<f32>> {
        vec![(0..count).map(|i| (from + signed(i)) as f32).collect()]
    }

    fn all(placer: &mut Placer) -> Vec<f32> {
        let mut out = Vec::new();
        while placer.take(1, |_, s| out.extend_from_slice(s)).is_some() {}
        out
    }

    #[test]
    fn the_first_samples_are_placed_exactly() {
        let mut placer = Placer::new(1, 1000);
        assert_eq!(placer.write(900, &ramp(900, 50)), Placed { silence: 0, cut: 50 });
        assert_eq!(placer.write(950, &ramp(950, 100)), Placed { silence: 0, cut: 50 });
        assert_eq!(all(&mut placer), ramp(1000, 50)[0]);
        let mut placer = Placer::new(1, 0);
        assert_eq!(placer.write(3, &ramp(3, 2)), Placed { silence: 3, cut: 0 });
        assert_eq!(all(&mut placer), [0.0, 0.0, 0.0, 3.0, 4.0]);
    }

    #[test]
    fn jitter_below_ten_milliseconds_moves_nothing_and_more_is_corrected_once() {
        let mut placer = Placer::new(1, 0);
        placer.write(0, &ramp(0, 1024));
        for (i, jitter) in [400i64, -480, 480, -1].into_iter().enumerate() {
            let at = 1024 * (signed(i) + 1);
            assert_eq!(placer.write(at + jitter, &ramp(at, 1024)), Placed::default());
        }
        assert_eq!(placer.cursor(), 5 * 1024);
        assert_eq!(placer.write(5 * 1024 - 700, &ramp(0, 1024)), Placed { silence: 0, cut: 700 });
        assert_eq!(placer.write(placer.cursor() + 600, &ramp(0, 10)), Placed { silence: 600, cut: 0 });
    }

    #[test]
    fn what_follows_silence_is_placed_by_its_index() {
        let mut placer = Placer::new(1, 0);
        placer.write(0, &ramp(0, 100));
        placer.silence(1000);
        assert_eq!(placer.write(1000, &ramp(1000, 300)), Placed { silence: 0, cut: 100 });
        assert_eq!(placer.cursor(), 1300);
        assert_eq!(all(&mut placer)[1100], 1100.0);
    }
}
