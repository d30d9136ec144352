//! How long things took.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;

/// Durations from a microsecond to a minute, to three digits. Shared by all viewers.
#[derive(Debug)]
pub struct Durations(Mutex<hdrhistogram::Histogram<u64>>);

/// Milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    pub count: u64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

impl Default for Durations {
    fn default() -> Self {
        let histogram = hdrhistogram::Histogram::new_with_bounds(1, MINUTE_US, 3);
        Durations(Mutex::new(histogram.expect("these bounds are legal")))
    }
}

const MINUTE_US: u64 = 60_000_000;

impl Durations {
    /// Counts one; what took more than a minute counts as a minute.
    pub fn add(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(MINUTE_US).clamp(1, MINUTE_US);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).saturating_record(us);
    }

    #[must_use]
    pub fn spread(&self) -> Spread {
        let histogram = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = |share| histogram.value_at_quantile(share) as f64 / 1e3;
        Spread {
            count: histogram.len(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: histogram.max() as f64 / 1e3,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_what_was_added() {
        let durations = Durations::default();
        for ms in 1..=1_000 {
            durations.add(Duration::from_millis(ms));
        }
        durations.add(Duration::from_secs(3_600));
        let spread = durations.spread();
        assert_eq!(spread.count, 1_001);
        for (found, wanted) in [(spread.p50, 501.0), (spread.p90, 901.0), (spread.p99, 991.0), (spread.max, 60_000.0)] {
            assert!((found / wanted - 1.0).abs() < 0.01, "{spread:?}");
        }
    }
}
