//! Where the publisher's segments begin, and how long they are. A core: it is told what time it is.

use std::time::Duration;

use super::message::Head;
use crate::time::Mono;

/// The longest and the shortest: a lost one costs that much of the picture.
const LONGEST: Duration = Duration::from_millis(250);
const SHORTEST: Duration = Duration::from_micros(31_250);
/// A segment is over with so many bytes, whatever its length.
const BYTES_MAX: usize = 2 << 20;
/// One halving a second at most: what is late together has one cause.
const HALVED_FOR: Duration = Duration::from_secs(1);
/// So long without a late one, and they become longer again.
const CALM: Duration = Duration::from_secs(10);

pub(super) struct Segments {
    next: u64,
    zero: Option<Mono>,
    /// When the one that is on began, and its bytes.
    on: Option<(Mono, usize)>,
    length: Duration,
    /// When it was last changed, or one was last late.
    changed: Option<Mono>,
    disturbed: Option<Mono>,
}

impl Segments {
    pub(super) fn new() -> Segments {
        Segments { next: 0, zero: None, on: None, length: LONGEST, changed: None, disturbed: None }
    }

    /// Media of so many bytes comes. `Some`: with it a segment begins.
    pub(super) fn media(&mut self, now: Mono, bytes: usize) -> Option<Head> {
        if let Some((began, had)) = &mut self.on
            && now - *began < self.length
            && *had + bytes <= BYTES_MAX
        {
            *had += bytes;
            return None;
        }
        self.lengthen(now);
        let zero = *self.zero.get_or_insert(now);
        let sequence = self.next;
        self.next += 1;
        self.on = Some((now, bytes));
        let timestamp_us = u64::try_from((now - zero).as_micros()).unwrap_or(u64::MAX);
        Some(Head { sequence, timestamp_us })
    }

    /// Nothing came for as long as a segment is: the one that is on ends, so that it is not taken for late.
    pub(super) fn is_over(&self, now: Mono) -> bool {
        self.on.is_some_and(|(began, _)| now - began >= self.length)
    }

    /// It ends.
    pub(super) fn close(&mut self) {
        self.on = None;
    }

    /// A segment came too late. `Some`: they are shorter from now on, so long.
    pub(super) fn late(&mut self, now: Mono) -> Option<Duration> {
        self.disturbed = Some(now);
        let lately = self.changed.is_some_and(|at| now - at < HALVED_FOR);
        if lately || self.length <= SHORTEST {
            return None;
        }
        self.changed = Some(now);
        self.length /= 2;
        Some(self.length)
    }

    fn lengthen(&mut self, now: Mono) {
        let calm = self.disturbed.is_some_and(|at| now - at >= CALM);
        if calm && self.length < LONGEST {
            self.length *= 2;
            self.disturbed = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Mono = Mono(9_000_000_000);
    const MS: Duration = Duration::from_millis(1);

    /// Begin and sequence of the segments of media that comes every 10 ms until `end`.
    fn cut(segments: &mut Segments, from: Mono, span: Duration) -> Vec<u128> {
        let mut cuts = Vec::new();
        let mut now = from;
        while now - from < span {
            if let Some(head) = segments.media(now, 1_316) {
                assert_eq!(u128::from(head.timestamp_us), (now - START).as_micros());
                cuts.push((now - from).as_millis());
            }
            now = now + 10 * MS;
        }
        cuts
    }

    #[test]
    fn a_segment_is_a_quarter_of_a_second_or_two_megabytes() {
        let mut segments = Segments::new();
        assert_eq!(cut(&mut segments, START, 1_000 * MS), [0, 250, 500, 750]);
        assert!(!segments.is_over(START + 999 * MS) && segments.is_over(START + 1_000 * MS));
        assert_eq!(segments.media(START + 999 * MS, BYTES_MAX - 25 * 1_316), None);
        let head = segments.media(START + 999 * MS, 188).unwrap();
        assert_eq!((head.sequence, head.timestamp_us), (4, 999_000));
        segments.close();
        assert!(!segments.is_over(START + 9_999 * MS));
        assert_eq!(segments.media(START + 999 * MS, 188).unwrap().sequence, 5);
    }

    #[test]
    fn late_segments_make_the_next_ones_shorter_and_calm_makes_them_longer() {
        let mut segments = Segments::new();
        cut(&mut segments, START, 100 * MS);
        let mut told = Vec::new();
        for ms in (0..6_000).step_by(100) {
            told.extend(segments.late(START + ms * MS).map(|length| (ms, length.as_micros())));
        }
        assert_eq!(told, [(0, 125_000), (1_000, 62_500), (2_000, 31_250)], "once a second, and not below the shortest");
        let from = START + 6_000 * MS;
        let short = cut(&mut segments, from, 9_000 * MS);
        assert_eq!(&short[..3], [0, 40, 80]);
        let later = cut(&mut segments, from + 9_000 * MS, 30_000 * MS);
        let lengths: Vec<u128> = later.windows(2).map(|two| two[1] - two[0]).collect();
        assert!(lengths.is_sorted() && lengths.last() == Some(&250) && lengths[0] == 40, "{lengths:?}");
    }
}
