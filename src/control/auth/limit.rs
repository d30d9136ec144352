//! How often somebody may ask: a bucket of tokens each.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::time::Mono;

/// `burst` at once, then `per_second` in the long run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limit {
    pub burst: f64,
    pub per_second: f64,
}

/// Buckets by caller. A caller that was not heard of for long enough to have a full bucket is forgotten; beyond
/// `CALLERS_MAX` the one heard of least recently is.
#[derive(Debug)]
pub struct Limits<K> {
    limit: Limit,
    buckets: BTreeMap<K, Bucket>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    left: f64,
    at: Mono,
}

/// Callers remembered.
const CALLERS_MAX: usize = 4_096;

impl<K: Ord + Clone> Limits<K> {
    pub fn new(limit: Limit) -> Limits<K> {
        Limits { limit, buckets: BTreeMap::new() }
    }

    /// Takes one.
    ///
    /// # Errors
    /// How long until there is one again.
    pub fn take(&mut self, now: Mono, caller: &K) -> Result<(), Duration> {
        let full = Bucket { left: self.limit.burst, at: now };
        if !self.buckets.contains_key(caller) {
            self.make_room(now);
        }
        let bucket = self.buckets.entry(caller.clone()).or_insert(full);
        bucket.left = refilled(self.limit, *bucket, now);
        bucket.at = now;
        if bucket.left >= 1.0 {
            bucket.left -= 1.0;
            return Ok(());
        }
        Err(Duration::from_secs_f64((1.0 - bucket.left) / self.limit.per_second))
    }

    /// Whether there is one to take, without taking it.
    pub fn would_pass(&self, now: Mono, caller: &K) -> bool {
        self.buckets.get(caller).is_none_or(|bucket| refilled(self.limit, *bucket, now) >= 1.0)
    }

    fn make_room(&mut self, now: Mono) {
        if self.buckets.len() < CALLERS_MAX {
            return;
        }
        let limit = self.limit;
        self.buckets.retain(|_, bucket| refilled(limit, *bucket, now) < limit.burst);
        if self.buckets.len() >= CALLERS_MAX
            && let Some(oldest) = self.buckets.iter().min_by_key(|(_, b)| b.at).map(|(k, _)| k.clone())
        {
            self.buckets.remove(&oldest);
        }
    }
}

fn refilled(limit: Limit, bucket: Bucket, now: Mono) -> f64 {
    (bucket.left + (now - bucket.at).as_secs_f64() * limit.per_second).min(limit.burst)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Limit = Limit { burst: 3.0, per_second: 2.0 };

    fn at(ms: u64) -> Mono {
        Mono(1_000_000_000) + Duration::from_millis(ms)
    }

    #[test]
    fn a_burst_passes_then_the_rate_holds_and_the_wait_is_told() {
        let mut limits = Limits::new(LIMIT);
        assert!((0..3).all(|_| limits.take(at(0), &"a").is_ok()));
        assert_eq!(limits.take(at(0), &"a"), Err(Duration::from_millis(500)));
        assert!(!limits.would_pass(at(100), &"a") && limits.would_pass(at(0), &"b"));
        assert!(limits.take(at(500), &"a").is_ok() && limits.take(at(500), &"a").is_err());
        let passed = (0..1_000).filter(|ms| limits.take(at(1_000 + ms * 10), &"a").is_ok()).count();
        assert!((20..=22).contains(&passed), "{passed} in ten seconds");
    }

    #[test]
    fn callers_are_bounded_and_the_busy_one_is_not_forgotten() {
        let mut limits = Limits::new(LIMIT);
        for n in 0..20_000u64 {
            assert!(limits.take(at(n), &n).is_ok());
            assert!(limits.buckets.len() <= CALLERS_MAX);
        }
        let mut limits = Limits::new(LIMIT);
        while limits.take(at(0), &u64::MAX).is_ok() {}
        for n in 0..CALLERS_MAX as u64 {
            assert!(limits.take(at(1), &n).is_ok());
            assert!(limits.take(at(2), &u64::MAX).is_err(), "{n}");
        }
    }
}
