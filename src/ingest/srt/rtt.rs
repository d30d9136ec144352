//! The round trip, smoothed [SRT 4.10].

use std::time::Duration;

/// Round-trip time and its variance. Before the first sample it is a guess.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rtt {
    smoothed: Duration,
    variance: Duration,
    measured: bool,
}

/// No path is longer.
const SAMPLE_MAX: Duration = Duration::from_secs(5);

impl Default for Rtt {
    fn default() -> Rtt {
        Rtt { smoothed: Duration::from_millis(100), variance: Duration::from_millis(50), measured: false }
    }
}

impl Rtt {
    pub(super) fn sample(&mut self, sample: Duration) {
        let sample = sample.min(SAMPLE_MAX);
        if self.measured {
            self.variance = (self.variance * 3 + self.smoothed.abs_diff(sample)) / 4;
            self.smoothed = (self.smoothed * 7 + sample) / 8;
        } else {
            *self = Rtt { smoothed: sample, variance: sample / 2, measured: true };
        }
    }

    /// `None` before the first sample.
    pub(super) fn measured(&self) -> Option<(Duration, Duration)> {
        self.measured.then_some((self.smoothed, self.variance))
    }

    pub(super) fn smoothed(&self) -> Duration {
        self.smoothed
    }

    pub(super) fn variance(&self) -> Duration {
        self.variance
    }

    /// An answer that is not here after this long will not come.
    pub(super) fn patience(&self) -> Duration {
        self.smoothed + self.variance * 4
    }
}
