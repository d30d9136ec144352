//! 33-bit time stamps made continuous.

use super::ticks::WRAP_33;

/// Follows one 33-bit counter: each raw value becomes the unwrapped value nearest to the last one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unwrapper {
    last: Option<i64>,
}

impl Unwrapper {
    /// The first raw value becomes the one nearest to `line`: for a track beside others that are known already.
    pub fn starting_near(line: i64) -> Unwrapper {
        Unwrapper { last: Some(line) }
    }

    /// `raw` (33 bits) on the unwrapped line; the first value stands for itself.
    pub fn unwrap(&mut self, raw: u64) -> i64 {
        let raw = (raw & (WRAP_33.cast_unsigned() - 1)).cast_signed();
        let value = match self.last {
            None => raw,
            Some(last) => nearest(raw, last),
        };
        self.last = Some(value);
        value
    }

    /// As `unwrap`, without moving the line: for PTS beside a DTS that owns it.
    pub fn peek(&self, raw: u64) -> i64 {
        let raw = (raw & (WRAP_33.cast_unsigned() - 1)).cast_signed();
        self.last.map_or(raw, |last| nearest(raw, last))
    }
}

/// The value congruent to `raw` modulo 2^33 that lies nearest to `line`.
pub fn nearest(raw: i64, line: i64) -> i64 {
    let ahead = (raw - line).rem_euclid(WRAP_33);
    if ahead >= WRAP_33 / 2 { line + ahead - WRAP_33 } else { line + ahead }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unwrap_follows_the_line_over_wraps_and_back() {
        let mut line = Unwrapper::default();
        let start = WRAP_33 - 2;
        for step in [0i64, 1, 2, 3, 2, 5, 100_000, 99_000] {
            let value = start + step;
            assert_eq!(line.unwrap(value.rem_euclid(WRAP_33).cast_unsigned()), value);
        }
    }
}
