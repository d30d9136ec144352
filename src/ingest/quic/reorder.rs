//! Segments that come side by side, given out one behind the other. A core: it is told what time it is.
//!
//! Bytes of the segment that is on go out as they come. Those behind it wait; when the first of them is due (its first
//! packet's time, the latency behind the fastest arrivals) whatever is missing before it is given up: SRT's rule for
//! packets that come too late [SRT 4.6], for segments.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::message::Head;
use crate::time::Mono;

const PACKET: usize = 188;
/// A sequence further ahead than this is no loss but a broken publisher: at 250 ms it is over a minute.
const AHEAD_MAX: u64 = 256;
/// The clock of the publisher is compared with ours over one to two of these.
const CLOCK_SPAN: Duration = Duration::from_secs(5);

/// Why a segment is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotTaken {
    /// Another stream has its sequence.
    Repeated,
    /// It was given up, or is over.
    Belated,
    /// Too far ahead: the publisher is broken.
    Far,
}

/// Counters since the connection began, in segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) received: u64,
    /// Of media.
    pub(super) bytes: u64,
    /// Not whole when one behind them began, each once.
    pub(super) lost: u64,
    /// Given up, or reset by the publisher: damage in the picture.
    pub(super) dropped: u64,
    pub(super) belated: u64,
    pub(super) repeated: u64,
}

pub(super) struct Reorder {
    latency: Duration,
    held_max: usize,
    /// The segment that is on; all before it are over.
    next: u64,
    /// All before it that were not whole have been counted as lost.
    counted: u64,
    segments: BTreeMap<u64, Segment>,
    /// Bytes of segments behind the one that is on.
    held: usize,
    clock: Clock,
    out: VecDeque<Bytes>,
    /// Segments that were given up while their streams were open.
    stopped: Vec<u64>,
    counts: Counts,
}

struct Segment {
    /// Its first packet's.
    due: Mono,
    bytes: BytesMut,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Ended,
}

impl Reorder {
    /// `held_max`: bytes that may wait behind the segment that is on; more and it is given up at once.
    pub(super) fn new(latency: Duration, held_max: usize) -> Reorder {
        Reorder {
            latency,
            held_max,
            next: 0,
            counted: 0,
            segments: BTreeMap::new(),
            held: 0,
            clock: Clock::default(),
            out: VecDeque::new(),
            stopped: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// A segment's head came.
    pub(super) fn open(&mut self, now: Mono, head: Head) -> Result<(), NotTaken> {
        let Head { sequence, timestamp_us } = head;
        if sequence < self.next {
            self.counts.belated += 1;
            return Err(NotTaken::Belated);
        }
        if self.segments.contains_key(&sequence) {
            self.counts.repeated += 1;
            return Err(NotTaken::Repeated);
        }
        if sequence - self.next > AHEAD_MAX {
            return Err(NotTaken::Far);
        }
        self.count_missing_before(sequence);
        self.counts.received += 1;
        let due = self.clock.place(now, timestamp_us) + self.latency;
        self.segments.insert(sequence, Segment { due, bytes: BytesMut::new(), state: State::Open });
        Ok(())
    }

    /// More of it. Nothing for a segment that is over.
    pub(super) fn data<'a>(&mut self, sequence: u64, chunks: impl Iterator<Item = &'a [u8]>) {
        let Some(segment) = self.segments.get_mut(&sequence) else { return };
        let before = segment.bytes.len();
        chunks.for_each(|chunk| segment.bytes.extend_from_slice(chunk));
        let more = segment.bytes.len() - before;
        self.counts.bytes += more as u64;
        if sequence == self.next {
            give_out(segment, &mut self.out);
            return;
        }
        self.held += more;
        while self.held > self.held_max && self.skip() {}
    }

    /// Its stream has ended; `whole`: not by a reset.
    pub(super) fn end(&mut self, sequence: u64, whole: bool) {
        let Some(segment) = self.segments.get_mut(&sequence).filter(|segment| segment.state == State::Open) else {
            return;
        };
        segment.state = State::Ended;
        if !whole {
            self.drop_one(sequence);
        }
        self.advance();
    }

    /// Gives up what is due.
    pub(super) fn tick(&mut self, now: Mono) {
        while self.deadline().is_some_and(|due| due <= now) && self.skip() {}
    }

    /// When `tick` wants to be called.
    pub(super) fn deadline(&self) -> Option<Mono> {
        self.waiting().map(|(_, segment)| segment.due)
    }

    /// The next bytes, in order: whole packets.
    pub(super) fn poll(&mut self) -> Option<Bytes> {
        self.out.pop_front()
    }

    /// Segments that were given up while their streams were open: nobody reads these any more.
    pub(super) fn take_stopped(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.stopped)
    }

    /// Nothing more comes: what is here goes out, over every hole.
    pub(super) fn flush(&mut self) {
        while self.skip() {}
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    /// Segments that wait behind the one that is on.
    pub(super) fn waiting_segments(&self) -> usize {
        self.segments.range(self.next + 1..).count()
    }

    /// Bytes that wait there.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// The first segment behind the one that is on.
    fn waiting(&self) -> Option<(u64, &Segment)> {
        self.segments.range(self.next + 1..).next().map(|(sequence, segment)| (*sequence, segment))
    }

    /// Goes on with the first segment that waits. False: none does.
    fn skip(&mut self) -> bool {
        let Some((to, _)) = self.waiting() else { return false };
        for sequence in self.next..to {
            if self.segments.get(&sequence).is_some_and(|segment| segment.state == State::Open) {
                self.stopped.push(sequence);
            }
            self.segments.remove(&sequence);
            self.drop_one(sequence);
        }
        self.go_on_with(to);
        self.advance();
        true
    }

    /// Over segments that have ended.
    fn advance(&mut self) {
        while self.segments.get(&self.next).is_some_and(|segment| segment.state == State::Ended) {
            self.segments.remove(&self.next);
            self.go_on_with(self.next + 1);
        }
    }

    fn go_on_with(&mut self, sequence: u64) {
        self.next = sequence;
        if let Some(segment) = self.segments.get_mut(&sequence) {
            self.held -= segment.bytes.len();
            give_out(segment, &mut self.out);
        }
    }

    fn drop_one(&mut self, sequence: u64) {
        self.counts.dropped += 1;
        if sequence >= self.counted {
            self.counts.lost += 1;
        }
    }

    /// A segment behind others begins: those that are not whole are missing now, though they may still come.
    fn count_missing_before(&mut self, sequence: u64) {
        let from = self.counted.max(self.next);
        if sequence <= from {
            return;
        }
        let ended = self.segments.range(from..sequence).filter(|(_, segment)| segment.state == State::Ended).count();
        self.counts.lost += sequence - from - ended as u64;
        self.counted = sequence;
    }
}

/// Its whole packets.
fn give_out(segment: &mut Segment, out: &mut VecDeque<Bytes>) {
    let whole = segment.bytes.len() / PACKET * PACKET;
    if whole > 0 {
        out.push_back(segment.bytes.split_to(whole).freeze());
    }
}

/// The publisher's clock on ours: the least difference that was seen lately belongs to what was delayed least.
#[derive(Debug, Default)]
struct Clock {
    /// Of this span and of the one before, nanoseconds.
    least: Option<i128>,
    least_before: Option<i128>,
    since: Mono,
}

impl Clock {
    /// When something with this time would have been here without delay; never later than `now`.
    fn place(&mut self, now: Mono, timestamp_us: u64) -> Mono {
        let time = i128::from(timestamp_us) * 1_000;
        let difference = i128::from(now.0) - time;
        if self.least.is_none() || now - self.since >= CLOCK_SPAN {
            self.least_before = self.least;
            self.least = None;
            self.since = now;
        }
        let least = self.least.map_or(difference, |least| least.min(difference));
        self.least = Some(least);
        let base = self.least_before.map_or(least, |before| before.min(least));
        // Not in the future: `base` is at most this one's own difference.
        Mono(u64::try_from((time + base).max(0)).unwrap_or(now.0).min(now.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATENCY: Duration = Duration::from_millis(200);
    const MS: Duration = Duration::from_millis(1);
    const START: Mono = Mono(50_000_000_000);

    fn reorder() -> Reorder {
        Reorder::new(LATENCY, 1 << 20)
    }

    fn head(sequence: u64) -> Head {
        Head { sequence, timestamp_us: 7_000_000 + sequence * 250_000 }
    }

    /// When the segment's first packet is there without delay.
    fn at(sequence: u64) -> Mono {
        START + 250 * MS * sequence as u32
    }

    /// `packets` of a segment, from `first` on; each says which it is.
    fn media(sequence: u64, first: u8, packets: u8) -> Vec<u8> {
        (first..first + packets).flat_map(|n| [vec![0x47, sequence as u8, n], vec![0xff; 185]].concat()).collect()
    }

    fn add(reorder: &mut Reorder, sequence: u64, bytes: &[u8]) {
        reorder.data(sequence, bytes.chunks(100));
    }

    /// A whole segment of three packets, at its time.
    fn whole(reorder: &mut Reorder, now: Mono, sequence: u64) {
        reorder.open(now, head(sequence)).unwrap();
        add(reorder, sequence, &media(sequence, 0, 3));
        reorder.end(sequence, true);
    }

    /// What came out: (sequence, packet).
    fn out(reorder: &mut Reorder) -> Vec<(u8, u8)> {
        let all: Vec<u8> = std::iter::from_fn(|| reorder.poll()).flatten().collect();
        assert_eq!(all.len() % PACKET, 0, "whole packets");
        all.chunks(PACKET).map(|packet| (packet[1], packet[2])).collect()
    }

    #[test]
    fn what_is_on_goes_out_as_it_comes_and_what_is_behind_waits_for_it() {
        let mut reorder = reorder();
        reorder.open(at(0), head(0)).unwrap();
        add(&mut reorder, 0, &media(0, 0, 2)[..188 + 50]);
        assert_eq!(out(&mut reorder), [(0, 0)]);
        reorder.open(at(1), head(1)).unwrap();
        add(&mut reorder, 1, &media(1, 0, 3));
        reorder.end(1, true);
        assert_eq!((out(&mut reorder), reorder.held(), reorder.waiting_segments()), (vec![], 3 * PACKET, 1));
        add(&mut reorder, 0, &media(0, 0, 2)[188 + 50..]);
        assert_eq!(out(&mut reorder), [(0, 1)]);
        reorder.end(0, true);
        assert_eq!(out(&mut reorder), [(1, 0), (1, 1), (1, 2)]);
        let want = Counts { received: 2, bytes: 5 * 188, lost: 1, ..Counts::default() };
        assert_eq!((reorder.counts(), reorder.held(), reorder.deadline()), (want, 0, None));
    }

    #[test]
    fn a_segment_is_given_up_when_the_one_behind_it_is_due_and_not_before() {
        let mut reorder = reorder();
        whole(&mut reorder, at(0), 0);
        reorder.open(at(1), head(1)).unwrap();
        add(&mut reorder, 1, &media(1, 0, 1));
        // Segment 2 never came; 3 did, 40 ms late.
        reorder.open(at(3) + 40 * MS, head(3)).unwrap();
        add(&mut reorder, 3, &media(3, 0, 1));
        assert_eq!(reorder.deadline(), Some(at(3) + LATENCY), "its own delay does not count");
        reorder.tick((at(3) + LATENCY).back(MS));
        assert_eq!(out(&mut reorder), [(0, 0), (0, 1), (0, 2), (1, 0)]);
        reorder.tick(at(3) + LATENCY);
        assert_eq!((out(&mut reorder), reorder.take_stopped()), (vec![(3, 0)], vec![1]));
        assert_eq!(reorder.open(at(4), head(2)), Err(NotTaken::Belated));
        add(&mut reorder, 1, &media(1, 1, 1));
        add(&mut reorder, 3, &media(3, 1, 1));
        assert_eq!(out(&mut reorder), [(3, 1)], "what was given up stays so");
        let counts = reorder.counts();
        assert_eq!((counts.lost, counts.dropped, counts.belated), (2, 2, 1));
    }

    #[test]
    fn a_reset_ends_a_segment_at_once_and_counts_as_damage() {
        let mut reorder = reorder();
        reorder.open(at(0), head(0)).unwrap();
        add(&mut reorder, 0, &media(0, 0, 1));
        reorder.open(at(1), head(1)).unwrap();
        add(&mut reorder, 1, &media(1, 0, 1));
        reorder.end(0, false);
        assert_eq!(out(&mut reorder), [(0, 0), (1, 0)]);
        // One behind the others too: what it had is kept until it is its turn.
        reorder.open(at(2), head(2)).unwrap();
        add(&mut reorder, 2, &media(2, 0, 1)[..]);
        reorder.end(2, false);
        reorder.end(1, true);
        assert_eq!(out(&mut reorder), [(2, 0)]);
        let counts = reorder.counts();
        assert_eq!((counts.lost, counts.dropped), (3, 2), "0 and 1 were not whole when the next began");
        assert!(reorder.take_stopped().is_empty());
    }

    #[test]
    fn segments_that_come_in_any_order_go_out_in_theirs() {
        let mut reorder = reorder();
        for sequence in [2, 0, 3, 1] {
            whole(&mut reorder, at(3), sequence);
        }
        assert_eq!(out(&mut reorder).iter().map(|(s, _)| *s).collect::<Vec<_>>(), [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]);
        assert_eq!((reorder.counts().lost, reorder.counts().dropped), (2, 0), "0 and 1 were missing, and came");
        assert_eq!(reorder.open(at(4), head(4)), Ok(()));
        assert_eq!(reorder.open(at(4), head(4)), Err(NotTaken::Repeated));
        assert_eq!(reorder.counts().repeated, 1);
    }

    #[test]
    fn a_jump_of_the_sequence_is_a_hole_or_refused_and_costs_no_memory() {
        let mut reorder = reorder();
        whole(&mut reorder, at(0), 0);
        assert_eq!(reorder.open(at(1), head(1 + AHEAD_MAX + 1)), Err(NotTaken::Far));
        assert_eq!(reorder.open(at(1), Head { sequence: u64::MAX, timestamp_us: u64::MAX }), Err(NotTaken::Far));
        whole(&mut reorder, at(1), 100);
        assert_eq!(reorder.counts().lost, 99);
        reorder.tick(at(1) + LATENCY);
        assert_eq!((out(&mut reorder).len(), reorder.counts().dropped), (6, 99));
    }

    #[test]
    fn what_waits_is_bounded_by_giving_up_what_it_waits_for() {
        let mut reorder = Reorder::new(LATENCY, 10 * PACKET);
        reorder.open(at(0), head(0)).unwrap();
        reorder.open(at(0), head(1)).unwrap();
        reorder.open(at(0), head(3)).unwrap();
        add(&mut reorder, 3, &media(3, 0, 10));
        assert_eq!((reorder.held(), reorder.take_stopped()), (10 * PACKET, vec![]));
        add(&mut reorder, 3, &media(3, 10, 1));
        assert_eq!((reorder.held(), reorder.take_stopped()), (0, vec![0, 1]));
        assert_eq!(out(&mut reorder).len(), 11);
    }

    #[test]
    fn a_clock_that_drifts_or_lies_makes_nothing_wait_longer_than_the_latency() {
        let mut reorder = reorder();
        let mut now = START;
        // 2000 ppm slow for ten minutes: the segment due is always within the latency and a few milliseconds of it.
        for sequence in 0..2_400 {
            now = START + Duration::from_micros(250_500) * sequence as u32;
            whole(&mut reorder, now, sequence);
        }
        now = now + 501 * MS;
        reorder.open(now, head(2_401)).unwrap();
        let wait = reorder.deadline().unwrap() - now;
        assert!(wait <= LATENCY && wait >= LATENCY - 25 * MS, "{wait:?}");
        for timestamp_us in [0, u64::MAX, 1 << 61] {
            let mut reorder = super::Reorder::new(LATENCY, 1 << 20);
            whole(&mut reorder, START, 0);
            reorder.open(START, Head { sequence: 2, timestamp_us }).unwrap();
            assert!(reorder.deadline().unwrap() <= START + LATENCY);
        }
    }

    #[test]
    fn the_end_gives_out_what_is_there() {
        let mut reorder = reorder();
        for sequence in [1, 4] {
            whole(&mut reorder, at(4), sequence);
        }
        reorder.flush();
        assert_eq!(out(&mut reorder).iter().map(|(s, _)| *s).collect::<Vec<_>>(), [1, 1, 1, 4, 4, 4]);
        assert_eq!((reorder.counts().dropped, reorder.held()), (3, 0));
    }

    #[test]
    fn any_order_of_calls_keeps_the_books() {
        let mut state = 0x1234_5678_u32;
        let mut random = |limit: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) % limit
        };
        for _ in 0..200 {
            let mut reorder = Reorder::new(LATENCY, 40 * PACKET);
            let (mut now, mut last) = (START, None);
            for step in 0..400_u64 {
                let sequence = (step / 6 + u64::from(random(6))).saturating_sub(2);
                match random(6) {
                    0 | 1 => drop(reorder.open(now, head(sequence))),
                    2 | 3 => add(&mut reorder, sequence, &media(sequence, 0, random(9) as u8)),
                    4 => reorder.end(sequence, random(2) == 0),
                    _ => now = now + MS * random(200),
                }
                reorder.tick(now);
                for (segment, _) in out(&mut reorder) {
                    assert!(last.is_none_or(|last| last <= segment), "in order");
                    last = Some(segment);
                }
                let counts = reorder.counts();
                assert!(reorder.held() <= 40 * PACKET + 8 * PACKET && counts.lost >= counts.dropped, "{counts:?}");
            }
            reorder.flush();
            assert_eq!(reorder.held(), 0);
        }
    }
}
