//! The clocks: the only file of the library that reads them.

use std::fmt;
use std::ops::{Add, Sub};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// An instant of raw CLOCK_MONOTONIC, nanoseconds. Comparable between the daemon and its workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Mono(pub u64);

impl Mono {
    /// Time from `earlier` to `self`; zero if `earlier` is later.
    pub fn since(self, earlier: Mono) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// `self - span`, clamped to the clock's zero.
    pub fn back(self, span: Duration) -> Mono {
        Mono(self.0.saturating_sub(nanos(span)))
    }
}

impl Add<Duration> for Mono {
    type Output = Mono;
    fn add(self, span: Duration) -> Mono {
        Mono(self.0.saturating_add(nanos(span)))
    }
}

impl Sub<Mono> for Mono {
    type Output = Duration;
    fn sub(self, earlier: Mono) -> Duration {
        self.since(earlier)
    }
}

/// UTC, nanoseconds since 1970-01-01.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Wall(pub i64);

impl Wall {
    pub fn unix_seconds(self) -> u64 {
        u64::try_from(self.0.div_euclid(1_000_000_000)).unwrap_or(0)
    }

    pub fn unix_millis(self) -> u64 {
        u64::try_from(self.0.div_euclid(1_000_000)).unwrap_or(0)
    }
}

impl Add<Duration> for Wall {
    type Output = Wall;
    fn add(self, span: Duration) -> Wall {
        Wall(self.0.saturating_add(i64::try_from(span.as_nanos()).unwrap_or(i64::MAX)))
    }
}

/// RFC 3339 UTC with milliseconds, as EXT-X-PROGRAM-DATE-TIME wants it [HLS 4.4.4.6].
impl fmt::Display for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.div_euclid(1_000_000);
        let (days, in_day) = (millis.div_euclid(86_400_000), millis.rem_euclid(86_400_000));
        // Civil date from a day count (proleptic Gregorian, era of 400 years).
        let z = days + 719_468;
        let era = z.div_euclid(146_097);
        let day_of_era = z.rem_euclid(146_097);
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
        let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        let (hour, minute, second, ms) =
            (in_day / 3_600_000, in_day / 60_000 % 60, in_day / 1_000 % 60, in_day % 1_000);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
    }
}

/// Both clocks, read together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    pub mono: Mono,
    pub wall: Wall,
}

pub trait Clock: Send + Sync {
    fn now(&self) -> Now;
}

/// The box's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl SystemClock {
    pub fn mono() -> Mono {
        let t = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        Mono(u64::try_from(t.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(t.tv_nsec).unwrap_or(0))
    }

    pub fn wall() -> Wall {
        let t = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        Wall(t.tv_sec * 1_000_000_000 + t.tv_nsec)
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Now {
        Now { mono: Self::mono(), wall: Self::wall() }
    }
}

/// A clock that moves only when told to.
#[derive(Debug)]
pub struct SimClock {
    mono: AtomicU64,
    wall0: Wall,
}

impl SimClock {
    pub fn new(wall: Wall) -> Self {
        Self { mono: AtomicU64::new(1_000_000_000), wall0: wall }
    }

    pub fn advance(&self, span: Duration) {
        self.mono.fetch_add(nanos(span), Ordering::Relaxed);
    }
}

impl Clock for SimClock {
    fn now(&self) -> Now {
        let mono = self.mono.load(Ordering::Relaxed);
        let run = i64::try_from(mono - 1_000_000_000).unwrap_or(i64::MAX);
        Now { mono: Mono(mono), wall: Wall(self.wall0.0.saturating_add(run)) }
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_prints_rfc3339_with_milliseconds() {
        assert_eq!(Wall(0).to_string(), "1970-01-01T00:00:00.000Z");
        assert_eq!(Wall(951_827_696_789_000_000).to_string(), "2000-02-29T12:34:56.789Z");
        assert_eq!(Wall(1_795_219_199_999_999_999).to_string(), "2026-11-20T23:59:59.999Z");
    }

    #[test]
    fn mono_differences_never_underflow() {
        assert_eq!(Mono(5) - Mono(9), Duration::ZERO);
        assert_eq!(Mono(5).back(Duration::from_secs(1)), Mono(0));
    }
}
