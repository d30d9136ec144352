//! One offset for audio and video: on which run an audio stamp lies.
//!
//! Audio keeps the run it is on while its own time continues. When it jumps it follows the picture of its leg, if its
//! stamps lie where that picture's run expects them; it waits at most `WAIT` for a picture that jumps after it. If none
//! does, the audio clock was split from the picture's, and goes on by its arrival.

use std::time::Duration;

use super::run::{Runs, expected, offset_of, smoothed};
use crate::time::Mono;
use crate::time::ticks::WRAP_33;
use crate::time::unwrap::nearest;

#[derive(Debug, Default)]
pub(super) struct AudioClock {
    map: Option<Map>,
    /// Arrival lateness of this track against its leg's picture, nanoseconds.
    lag: i64,
    /// When it was first seen on another run than the picture.
    parted: Option<Mono>,
}

#[derive(Clone, Copy, Debug)]
struct Map {
    run: u32,
    /// Session time `base` at raw PTS `pts0`.
    base: i64,
    pts0: u64,
    /// False where the track's clock was split from the picture's.
    native: bool,
    time: i64,
    offset: i64,
}

impl Map {
    fn time_of(&self, raw: u64, due: i64) -> i64 {
        let near = due.saturating_sub(self.base);
        self.base + nearest((raw.cast_signed() - self.pts0.cast_signed()).rem_euclid(WRAP_33), near)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Session time of the frame; `moved`: the map changed, a new audio anchor is due.
    At { run: u32, time: i64, moved: bool, split: bool },
    /// Wait for the picture, at most `WAIT`.
    Wait,
}

impl AudioClock {
    /// `frame`: nominal ticks of a frame, 0 if unknown.
    pub(super) fn judge(&mut self, runs: &Runs, leg: u8, raw: u64, frame: i64, at: Mono, may_wait: bool) -> Heard {
        let picture = runs.line(leg);
        let native = picture.and_then(|line| {
            let due = expected(line.offset.saturating_add(self.lag), at);
            let time = runs.run(line.run)?.time_of(raw, due);
            let within = if self.map.is_some() { NEAR } else { NEAR_FIRST };
            ((time - due).abs() <= within).then_some((line.run, time))
        });
        if let Some(map) = self.map {
            let due = expected(map.offset, at);
            let time = map.time_of(raw, due);
            let step = time - map.time;
            if step > 0 && (time - due).abs() <= STEP_MAX {
                let parted = picture.is_some_and(|line| line.run != map.run);
                self.parted = if parted { self.parted.or(Some(at)) } else { None };
                let regular = frame == 0 || (step - frame).abs() < frame / 2;
                let overdue = self.parted.is_some_and(|since| at.since(since) > INTERLEAVE);
                let newer = |run, time| runs.run(run).is_some_and(|run| run.same_clock && time >= run.base);
                return match native {
                    Some((run, time)) if parted && (!regular || overdue || newer(run, time)) => {
                        self.follow(runs, run, time, raw, at)
                    }
                    // The picture's clock jumped alone: from now on both go by arrival.
                    None if overdue => self.split(None, picture.map(|line| (line.run, line.offset)), raw, at),
                    _ => self.keep(runs, leg, map, time, at),
                };
            }
        }
        match (native, self.map) {
            (Some((run, time)), Some(map)) if map.run != run || time > map.time => {
                self.follow(runs, run, time, raw, at)
            }
            (Some((run, time)), None) => self.follow(runs, run, time, raw, at),
            _ if may_wait => Heard::Wait,
            (_, map) => self.split(map, picture.map(|line| (line.run, line.offset)), raw, at),
        }
    }

    fn keep(&mut self, runs: &Runs, leg: u8, mut map: Map, time: i64, at: Mono) -> Heard {
        map.offset = smoothed(map.offset, offset_of(at, time));
        map.time = time;
        self.map = Some(map);
        if let Some(line) = runs.line(leg).filter(|line| line.run == map.run && map.native) {
            self.lag = map.offset.saturating_sub(line.offset);
        }
        Heard::At { run: map.run, time, moved: false, split: false }
    }

    fn follow(&mut self, runs: &Runs, run: u32, time: i64, raw: u64, at: Mono) -> Heard {
        let moved = self.map.is_none_or(|map| map.run != run || !map.native);
        let (base, pts0) = runs.run(run).map_or((time, raw), |run| (run.base, run.anchor.pts0));
        self.map = Some(Map { run, base, pts0, native: true, time, offset: offset_of(at, time) });
        self.parted = None;
        Heard::At { run, time, moved, split: false }
    }

    /// The audio's clock jumped alone: it goes on where its arrival says.
    fn split(&mut self, map: Option<Map>, picture: Option<(u32, i64)>, raw: u64, at: Mono) -> Heard {
        let lag = self.lag;
        let known = picture.map(|(run, offset)| (run, offset.saturating_add(lag)));
        let Some((run, offset)) = map.map(|map| (map.run, map.offset)).or(known) else {
            return Heard::Wait;
        };
        let time = expected(offset, at);
        self.map = Some(Map { run, base: time, pts0: raw, native: false, time, offset });
        self.parted = None;
        Heard::At { run, time, moved: true, split: true }
    }
}

/// How long audio waits for the picture to jump too.
pub(super) const WAIT: Duration = Duration::from_millis(500);
/// Old audio still comes for so long after the picture jumped.
const INTERLEAVE: Duration = Duration::from_secs(1);
const STEP_MAX: i64 = 45_000;
const NEAR: i64 = 90_000;
/// A multiplex sends audio up to 2 s beside the picture; its first frame knows no better.
const NEAR_FIRST: i64 = 180_000;
