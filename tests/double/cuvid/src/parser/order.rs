//! Pictures between decoding and display: which surface each gets, when its turn comes, which time stamp it bears.

use std::collections::VecDeque;

use super::syntax::{Coded, Field, Sequence};

/// Time stamps that wait for their picture; more are forgotten, the oldest first.
const STAMPS_MAX: usize = 16;

/// So many pictures are watched for time stamps that do not rise in display order.
const CHECKED: u32 = 16;

/// A picture that was given a surface and was not shown yet.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) index: usize,
    pub(crate) poc: i64,
    /// A frame, or both fields of one, or one field that will stay alone.
    pub(crate) complete: bool,
    pub(crate) unpaired: bool,
    /// It was not decoded, and is not shown.
    pub(crate) skipped: bool,
    pub(crate) progressive: bool,
    pub(crate) top_first: bool,
    pub(crate) repeat: i32,
    fields: i64,
    stamp: Option<i64>,
    discontinuity: bool,
}

#[derive(Default)]
pub(crate) struct Order {
    surfaces: usize,
    last: usize,
    waiting: Vec<Entry>,
    /// Surfaces of pictures that may be referred to, oldest first.
    references: VecDeque<usize>,
    stamps: VecDeque<Stamp>,
    clock: Clock,
}

struct Stamp {
    at: u64,
    value: i64,
    discontinuity: bool,
}

/// What time stamps are made from where none was given.
struct Clock {
    /// Of a frame, in ticks.
    duration: i64,
    expected: i64,
    /// None was shown yet.
    first: bool,
    /// Still to be watched.
    check: u32,
    /// Decoding times were given for presentation times.
    sort: bool,
}

impl Default for Clock {
    fn default() -> Clock {
        Clock { duration: 0, expected: 0, first: true, check: CHECKED, sort: false }
    }
}

impl Order {
    /// As many surfaces as the caller answered, and the duration of a frame in ticks of `clock` Hz.
    pub(crate) fn begin(&mut self, surfaces: usize, sequence: &Sequence, clock: u64) {
        self.surfaces = surfaces;
        self.last = surfaces.saturating_sub(1);
        self.references.clear();
        let [numerator, denominator] = sequence.format.frame_rate.map(u64::from);
        let ticks = (denominator * clock).checked_div(numerator).unwrap_or(0);
        if ticks > 0 {
            self.clock.duration = i64::try_from(ticks).unwrap_or(i64::MAX / 64);
        } else if self.clock.duration == 0 {
            self.clock.duration = i64::try_from(clock / 30).unwrap_or(0);
        }
    }

    /// End of stream: time begins anew.
    pub(crate) fn reset(&mut self) {
        *self = Order { surfaces: self.surfaces, last: self.last, ..Order::default() };
    }

    /// A packet that begins at byte `at` of the stream has this time stamp.
    pub(crate) fn stamp(&mut self, at: u64, value: i64, discontinuity: bool) {
        if self.stamps.len() == STAMPS_MAX {
            self.stamps.pop_front();
        }
        self.stamps.push_back(Stamp { at, value, discontinuity });
    }

    /// A surface for the next frame: each in turn, but none that is waited for or referred to. `waits`: of pictures that
    /// have left here and still wait to be shown.
    pub(crate) fn allocate(&mut self, waits: &dyn Fn(usize) -> bool) -> Option<usize> {
        let awaited = |index| waits(index) || self.waiting.iter().any(|entry| entry.index == index);
        let turn = (1..=self.surfaces).map(|step| (self.last + step) % self.surfaces);
        let free = turn.filter(|index| !awaited(*index)).find(|index| !self.references.contains(index));
        // More pictures are thought to be referred to than the stream may use: the oldest is not.
        let free = free.or_else(|| self.references.iter().copied().find(|index| !awaited(*index)))?;
        self.references.retain(|index| *index != free);
        self.last = free;
        Some(free)
    }

    /// A picture goes to be decoded. `at`: where its first slice began in the stream.
    pub(crate) fn insert(&mut self, index: usize, coded: &Coded, at: u64) {
        if let (Field::Second { .. }, Some(first)) = (coded.field, self.incomplete()) {
            first.complete = true;
            first.fields = 2 + i64::from(coded.repeat);
            first.poc = first.poc.min(coded.poc);
            let missing = first.stamp.is_none();
            if missing && let Some((value, discontinuity)) = self.claim(at) {
                let first = self.waiting.iter_mut().rev().find(|entry| entry.index == index);
                if let Some(first) = first {
                    (first.stamp, first.discontinuity) = (Some(value), discontinuity);
                }
            }
        } else {
            let stamp = self.claim(at);
            let alone = matches!(coded.field, Field::First { .. });
            self.waiting.push(Entry {
                index,
                poc: coded.poc,
                complete: !alone,
                unpaired: false,
                skipped: !coded.shown,
                progressive: coded.progressive,
                top_first: coded.top_first,
                repeat: coded.repeat,
                fields: if alone { 1 } else { 2 + i64::from(coded.repeat) },
                stamp: stamp.map(|(value, _)| value),
                discontinuity: stamp.is_some_and(|(_, discontinuity)| discontinuity),
            });
        }
        if coded.reference && !self.references.contains(&index) {
            self.references.push_back(index);
            while self.references.len() > coded.sequence.references {
                self.references.pop_front();
            }
        }
    }

    /// The caller did not decode what was just inserted.
    pub(crate) fn skip_last(&mut self) {
        if let Some(last) = self.waiting.last_mut() {
            last.skipped = true;
        }
    }

    /// The surface of the field that waits for its second.
    pub(crate) fn half(&mut self) -> Option<usize> {
        self.incomplete().map(|entry| entry.index)
    }

    /// Another frame begins: a single field stays alone.
    pub(crate) fn close_half(&mut self) {
        if let Some(entry) = self.incomplete() {
            (entry.complete, entry.unpaired) = (true, true);
        }
    }

    /// Forgets what waits, and what was referred to.
    pub(crate) fn discard(&mut self) {
        self.waiting.clear();
        self.references.clear();
    }

    pub(crate) fn forget_references(&mut self) {
        self.references.clear();
    }

    /// The next picture whose turn it is while at most `depth` may wait, and its time stamp.
    pub(crate) fn next_due(&mut self, depth: usize) -> Option<(Entry, i64)> {
        if self.waiting.len() <= depth {
            return None;
        }
        let (at, least) = self.waiting.iter().enumerate().min_by_key(|(_, entry)| entry.poc)?;
        if !least.complete {
            return None;
        }
        // It is timed among those that wait.
        let time = self.time(at);
        let entry = self.waiting.remove(at);
        self.clock.expected = time.saturating_add(self.clock.duration.saturating_mul(entry.fields) / 2);
        self.clock.first = false;
        Some((entry, time))
    }

    fn incomplete(&mut self) -> Option<&mut Entry> {
        self.waiting.last_mut().filter(|entry| !entry.complete)
    }

    /// The newest time stamp of a packet that began no later than this picture. Three bytes of grace: a packet may begin
    /// within a start code.
    fn claim(&mut self, at: u64) -> Option<(i64, bool)> {
        let mut claimed = None;
        while let Some(stamp) = self.stamps.front().filter(|stamp| stamp.at <= at + 3) {
            claimed = Some((stamp.value, stamp.discontinuity));
            self.stamps.pop_front();
        }
        claimed
    }

    fn time(&mut self, at: usize) -> i64 {
        let duration = self.clock.duration;
        let Some(mut time) = self.waiting[at].stamp else {
            let entry = &self.waiting[at];
            // Before the first stamp that was given: counted back from it, two counts of order a frame.
            let known = self.waiting.iter().find_map(|other| other.stamp.map(|stamp| (stamp, other.poc)));
            return match known {
                Some((stamp, poc)) if self.clock.first => {
                    let fields = (poc - entry.poc).max(entry.fields);
                    stamp.saturating_sub(fields.saturating_mul(duration) / 2)
                }
                _ => self.clock.expected,
            };
        };
        let watched = self.clock.check > 0 && !self.waiting[at].discontinuity;
        if self.clock.sort || watched {
            let stamped = self.waiting.iter().enumerate().filter_map(|(i, entry)| entry.stamp.map(|stamp| (stamp, i)));
            if let Some((earliest, from)) = stamped.min().filter(|(earliest, _)| *earliest < time) {
                self.clock.sort |= self.clock.check > 0;
                self.waiting[from].stamp = Some(time);
                time = earliest;
            }
            self.clock.check = self.clock.check.saturating_sub(1);
        }
        time
    }
}
