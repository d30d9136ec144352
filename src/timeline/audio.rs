//! Passed-through audio on the session's grid of 1024-sample frames: each frame on its nearest place, counted from its
//! anchor; a drift beyond 10 ms that changes the nearest place drops or repeats one frame.

use crate::media::grid::AudioAnchor;

#[derive(Debug)]
pub(super) struct AudioGrid {
    track: u16,
    rate: u32,
    anchor: Option<Anchored>,
    /// Smallest m that is still free.
    pub next: i64,
}

#[derive(Clone, Copy, Debug)]
struct Anchored {
    /// Session time of the anchor's frame, ticks, and its place.
    time0: i64,
    m0: i64,
    /// Place of the next frame if it follows at once.
    due: i64,
    /// Time against place since the anchor, ticks x rate, smoothed.
    drift: i64,
}

/// Where a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Set {
    /// To be committed first.
    pub record: Option<AudioAnchor>,
    /// `None`: dropped, its place is taken.
    pub m: Option<i64>,
    /// Also at m + 1.
    pub repeat: bool,
    /// The grid was re-aligned by one frame.
    pub drifted: bool,
}

impl AudioGrid {
    pub(super) fn new(track: u16, rate: u32) -> AudioGrid {
        AudioGrid { track, rate, anchor: None, next: 0 }
    }

    pub(super) fn rate(&self) -> u32 {
        self.rate
    }

    /// Nominal ticks of a frame.
    pub(super) fn frame(&self) -> i64 {
        FRAME / i64::from(self.rate.max(1))
    }

    /// Session time at which frame `m` starts, ticks.
    pub(super) fn time_of(&self, m: i64) -> i64 {
        m.saturating_mul(FRAME).div_euclid(i64::from(self.rate.max(1)))
    }

    /// The frame that lasts at session time `time`.
    pub(super) fn frame_at(&self, time: i64) -> i64 {
        self.scaled(time).div_euclid(FRAME)
    }

    /// Another sample rate: another grid, from where this one stands.
    pub(super) fn set_rate(&mut self, rate: u32) {
        if rate != self.rate && rate > 0 {
            let next = i128::from(self.next) * i128::from(rate) / i128::from(self.rate.max(1)) + 1;
            self.next = i64::try_from(next).unwrap_or(i64::MAX);
            self.rate = rate;
            self.anchor = None;
        }
    }

    /// Places the frame of session time `time` (ticks) and raw PTS `pts`; `moved`: another map than the frame before.
    pub(super) fn set(&mut self, run: u32, pts: u64, time: i64, moved: bool) -> Set {
        let Some(mut at) = self.anchor.filter(|_| !moved) else {
            return self.anchored(run, pts, time, rounded(self.scaled(time)), false);
        };
        let mut error = self.scaled(time - at.time0) - (at.due - at.m0) * FRAME;
        // A sudden half frame is a hole, or a frame too many; a slow one is drift.
        if (error - at.drift).abs() > FRAME / 2 {
            let frames = rounded(error - at.drift);
            at.due += frames;
            error -= frames * FRAME;
        }
        at.drift += (error - at.drift) / SMOOTHING;
        let off = self.scaled(at.time0) - at.m0 * FRAME + at.drift;
        let shift = rounded(off).clamp(-1, 1);
        if at.drift.abs() > self.scaled(DRIFT_MAX) && shift != 0 {
            let repeat = shift > 0 && at.due >= self.next;
            let mut set = self.anchored(run, pts, time, at.due + shift, true);
            if repeat {
                set.m = Some(at.due);
                set.repeat = true;
            }
            return set;
        }
        let m = at.due;
        at.due += 1;
        self.anchor = Some(at);
        Set { record: None, m: self.take(m), repeat: false, drifted: false }
    }

    /// The free places before `end` become silence: at most `SILENCE_MAX` of them, what lies before those is a hole.
    pub(super) fn silence_to(&mut self, end: i64) -> std::ops::Range<i64> {
        let from = self.next.max(end - SILENCE_MAX);
        self.next = self.next.max(end);
        from..end
    }

    fn anchored(&mut self, run: u32, pts: u64, time: i64, m0: i64, drifted: bool) -> Set {
        self.anchor = Some(Anchored { time0: time, m0, due: m0 + 1, drift: 0 });
        let record = AudioAnchor { track: self.track, run, rate: self.rate, pts0: pts, m0 };
        Set { record: Some(record), m: self.take(m0), repeat: false, drifted }
    }

    /// `m` if it is free and not before the session.
    fn take(&mut self, m: i64) -> Option<i64> {
        let free = m >= self.next;
        if free {
            self.next = m + 1;
        }
        free.then_some(m)
    }

    fn scaled(&self, ticks: i64) -> i64 {
        ticks.saturating_mul(i64::from(self.rate))
    }
}

fn rounded(scaled: i64) -> i64 {
    (scaled + FRAME / 2).div_euclid(FRAME)
}

/// 1024 samples, in ticks x samples per second.
const FRAME: i64 = 1_024 * 90_000;
const SMOOTHING: i64 = 16;
/// Frames that one step of the filler makes silent: more than a second's, and what audio lies behind the picture.
const SILENCE_MAX: i64 = 256;
/// 10 ms in ticks.
const DRIFT_MAX: i64 = 900;
