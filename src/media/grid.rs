//! Grid, anchors, audio anchors, PDT lines: the small replicated record from which every number a player sees follows.
//!
//! A frame's index N is a function of source time and these records; segment, part, tfdt and PROGRAM-DATE-TIME are
//! functions of N. Nothing here counts.

use serde::{Deserialize, Serialize};

use super::captions::CaptionsSeen;
use super::marker::KeptCue;
use super::modes::LatencyMode;
use super::plan::{Inits, Plan};
use crate::time::Wall;

/// Frames per second as a fraction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FrameRate {
    pub num: u32,
    pub den: u32,
}

impl FrameRate {
    pub const fn new(num: u32, den: u32) -> FrameRate {
        FrameRate { num, den }
    }

    pub fn hz(self) -> f64 {
        f64::from(self.num) / f64::from(self.den)
    }

    /// 90 kHz ticks as whole frames, nearest (a half goes up). Exact.
    pub fn frames(self, ticks: i64) -> i64 {
        let (a, b) = (i128::from(ticks) * i128::from(self.num), 90_000 * i128::from(self.den));
        i64::try_from((2 * a + b).div_euclid(2 * b)).unwrap_or(i64::MAX)
    }

    /// Where frame `n` lies, 90 kHz ticks from frame 0, nearest.
    pub fn ticks(self, n: i64) -> i64 {
        let (a, b) = (i128::from(n) * 90_000 * i128::from(self.den), i128::from(self.num));
        i64::try_from((2 * a + b).div_euclid(2 * b)).unwrap_or(i64::MAX)
    }

    /// How far `ticks` lie from a whole number of frames, in frames: -0.5 to 0.5.
    pub fn phase(self, ticks: i64) -> f64 {
        let off =
            i128::from(ticks) * i128::from(self.num) - i128::from(self.frames(ticks)) * 90_000 * i128::from(self.den);
        off as f64 / (90_000.0 * f64::from(self.den))
    }
}

/// A rate and its cut lengths: `segment` = F, `gop` = G, `part` = P frames; P | G | F.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Cadence {
    pub rate: FrameRate,
    pub segment: u32,
    pub gop: u32,
    pub part: u32,
}

/// (rate, G, P, F in `normal`); F = G in `ultra` and `low`.
const CADENCES: [(FrameRate, u32, u32, u32); 11] = [
    (FrameRate::new(12_500, 1_000), 25, 5, 75),
    (FrameRate::new(15_000, 1_000), 30, 5, 90),
    (FrameRate::new(20_000, 1_000), 40, 8, 120),
    (FrameRate::new(24_000, 1_001), 48, 8, 144),
    (FrameRate::new(24_000, 1_000), 48, 8, 144),
    (FrameRate::new(25_000, 1_000), 50, 10, 150),
    (FrameRate::new(30_000, 1_001), 60, 10, 180),
    (FrameRate::new(30_000, 1_000), 60, 10, 180),
    (FrameRate::new(50_000, 1_000), 100, 20, 300),
    (FrameRate::new(60_000, 1_001), 120, 20, 360),
    (FrameRate::new(60_000, 1_000), 120, 20, 360),
];

impl Cadence {
    /// The row of the table for a measured rate: the same one within 0.05 %, else the next higher; above 60 the 60 row.
    pub fn for_rate(hz: f64, mode: LatencyMode) -> Cadence {
        let rows = &CADENCES;
        let close = rows.iter().find(|(rate, ..)| (rate.hz() - hz).abs() <= rate.hz() * 0.0005);
        let (rate, gop, part, normal) =
            *close.or_else(|| rows.iter().find(|(rate, ..)| rate.hz() >= hz)).unwrap_or(&rows[10]);
        let segment = if mode == LatencyMode::Normal { normal } else { gop };
        Cadence { rate, segment, gop, part }
    }

    /// The timescale of ladder video, units per second.
    pub fn timescale(self) -> u32 {
        self.rate.num
    }

    /// Duration of one frame in that timescale.
    pub fn frame_ticks(self) -> u32 {
        self.rate.den
    }

    /// EXT-X-PART-INF PART-TARGET, milliseconds: 360 where a video part lasts 1/3 s, 420 where it lasts 0.4 s.
    pub fn part_target_ms(self) -> u32 {
        if f64::from(self.part) / self.rate.hz() > 0.35 { 420 } else { 360 }
    }
}

/// One per session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grid {
    pub cadence: Cadence,
    /// Media sequence number of the segment that holds N = 0.
    pub msn0: u64,
}

/// Where a sample goes: segment, part, and whether it completes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    pub msn: u64,
    pub part: u32,
    pub ends: Ends,
}

impl Place {
    /// The first part that this sample, and all before it, do not complete.
    pub fn edge(self) -> (u64, u32) {
        match self.ends {
            Ends::Segment => (self.msn + 1, 0),
            Ends::Part => (self.msn, self.part + 1),
            Ends::Nothing => (self.msn, self.part),
        }
    }
}

/// What a sample completes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ends {
    Nothing,
    Part,
    Segment,
}

impl Grid {
    /// The place of ladder frame `n` (decode-order index; closed GOPs make both orders cut alike). `n >= 0`.
    pub fn place_frame(&self, n: i64) -> Place {
        self.place(n, n + 1)
    }

    /// The place of audio frame `m` (1024 samples each at `rate`, same origin): the part in which it *starts*.
    pub fn place_audio(&self, m: i64, rate: u32) -> Place {
        self.place(self.frame_at_audio(m, rate), self.frame_at_audio(m + 1, rate))
    }

    /// The place of what starts in frame `here`, when the next of its track starts in frame `next`.
    fn place(&self, here: i64, next: i64) -> Place {
        let (f, start) = (i64::from(self.cadence.segment), self.part_start(here));
        let ends = if here.div_euclid(f) != next.div_euclid(f) {
            Ends::Segment
        } else if start != self.part_start(next) {
            Ends::Part
        } else {
            Ends::Nothing
        };
        let part = here.rem_euclid(f) / i64::from(self.cadence.part);
        Place { msn: self.msn_of(here), part: u32::try_from(part).unwrap_or(0), ends }
    }

    /// First frame of the part that holds frame `n`. Only a segment's last part may be shorter than P.
    pub fn part_start(&self, n: i64) -> i64 {
        let (f, p) = (i64::from(self.cadence.segment), i64::from(self.cadence.part));
        n.div_euclid(f) * f + n.rem_euclid(f) / p * p
    }

    /// First frame of the part behind the one that holds frame `n`.
    pub fn part_end(&self, n: i64) -> i64 {
        let f = i64::from(self.cadence.segment);
        (self.part_start(n) + i64::from(self.cadence.part)).min((n.div_euclid(f) + 1) * f)
    }

    /// First frame of the GOP that holds frame `n`.
    pub fn gop_start(&self, n: i64) -> i64 {
        let g = i64::from(self.cadence.gop);
        n.div_euclid(g) * g
    }

    /// First frame of the segment that holds frame `n`.
    pub fn segment_start(&self, n: i64) -> i64 {
        let f = i64::from(self.cadence.segment);
        n.div_euclid(f) * f
    }

    /// The video frame interval in which audio frame `m` starts.
    pub fn frame_at_audio(&self, m: i64, rate: u32) -> i64 {
        let c = self.cadence.rate;
        let n = i128::from(m) * 1024 * i128::from(c.num);
        i64::try_from(n.div_euclid(i128::from(rate) * i128::from(c.den))).unwrap_or(i64::MAX)
    }

    /// First audio frame that starts at or after frame `n`.
    pub fn audio_at_frame(&self, n: i64, rate: u32) -> i64 {
        let c = self.cadence.rate;
        let samples = i128::from(n) * i128::from(rate) * i128::from(c.den);
        let per = 1024 * i128::from(c.num);
        i64::try_from((samples + per - 1).div_euclid(per)).unwrap_or(i64::MAX)
    }

    pub fn msn_of(&self, n: i64) -> u64 {
        self.msn0.saturating_add_signed(n.div_euclid(i64::from(self.cadence.segment)))
    }

    /// First frame of segment `msn`.
    pub fn first_frame(&self, msn: u64) -> i64 {
        let k = i64::try_from(i128::from(msn) - i128::from(self.msn0)).unwrap_or(i64::MAX);
        k.saturating_mul(i64::from(self.cadence.segment))
    }

    /// The frame that is shown `nanos` after N = 0.
    pub fn frame_at_nanos(&self, nanos: i64) -> i64 {
        let c = self.cadence.rate;
        let frame = (i128::from(nanos) * i128::from(c.num)).div_euclid(i128::from(c.den) * 1_000_000_000);
        i64::try_from(frame).unwrap_or(i64::MAX)
    }

    /// Time of frame `n` since N = 0, nanoseconds.
    pub fn nanos_at(&self, n: i64) -> i64 {
        let c = self.cadence.rate;
        i64::try_from(i128::from(n) * i128::from(c.den) * 1_000_000_000 / i128::from(c.num)).unwrap_or(i64::MAX)
    }
}

/// How far apart a source's random access points are, frames of its grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SourceGop {
    /// Always the same distance.
    Regular(u32),
    /// Scene cuts: never further apart than `max`.
    Irregular { max: u32 },
    /// None seen, or too far apart to cut at.
    Unknown,
}

/// What a channel learnt about its source; kept for its next session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceProfile {
    pub rate: FrameRate,
    pub gop: SourceGop,
    /// Closed captions that were seen.
    #[serde(default)]
    pub captions: CaptionsSeen,
}

/// One per run: the map from source time to N, for all legs of one mux.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    pub run: u32,
    pub term: u64,
    /// Raw 33-bit PTS of frame `n0`.
    pub pts0: u64,
    /// Raw 33-bit DTS of a random access point shown at `pts0`: decode index d = n0 + round((dts - dts0) * rate).
    pub dts0: u64,
    pub n0: i64,
}

/// The same for a passed-through audio track, on its 1024-sample grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AudioAnchor {
    pub track: u16,
    pub run: u32,
    pub rate: u32,
    pub pts0: u64,
    pub m0: i64,
}

/// A line: PDT(N) = wall + (N - from_n) * den/num * (1 + ppm/1e6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PdtLine {
    pub from_n: i64,
    pub wall: Wall,
    pub ppm: i32,
}

impl PdtLine {
    /// PROGRAM-DATE-TIME of the instant `nanos` after N = 0 of the grid.
    pub fn at_nanos(&self, grid: &Grid, nanos: i64) -> Wall {
        let span = i128::from(nanos) - i128::from(grid.nanos_at(self.from_n));
        let drifted = span + span * i128::from(self.ppm) / 1_000_000;
        Wall(self.wall.0.saturating_add(i64::try_from(drifted).unwrap_or(0)))
    }

    pub fn at(&self, grid: &Grid, n: i64) -> Wall {
        self.at_nanos(grid, grid.nanos_at(n))
    }

    /// The instant of the session, nanoseconds after N = 0, whose PROGRAM-DATE-TIME is `wall`.
    pub fn nanos_of(&self, grid: &Grid, wall: Wall) -> i64 {
        let since = i128::from(wall.0) - i128::from(self.wall.0);
        let span = since * 1_000_000 / (1_000_000 + i128::from(self.ppm)).max(1);
        i64::try_from(i128::from(grid.nanos_at(self.from_n)) + span).unwrap_or(i64::MAX)
    }
}

/// What is committed before the first part that uses it is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// The grid, and everything else that was decided with it.
    Plan(Box<Plan>),
    Anchor(Anchor),
    Audio(AudioAnchor),
    Pdt(PdtLine),
    /// Segment `msn` begins behind a DISCONTINUITY.
    Break {
        msn: u64,
    },
    /// The init sections of all renditions; it replaces the one before.
    Inits(Inits),
    /// A cue that said something new.
    Cue(KeptCue),
}

/// What became of a record that was handed to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commit {
    /// It is durable (and replicated, in a pair).
    Done,
    /// [`TimelineLog::poll`] will tell.
    Pending,
}

/// The log the records live in. Nothing that uses a record may be published before the record is durable.
pub trait TimelineLog: Send {
    /// Never blocks.
    ///
    /// # Errors
    /// Why the record could not be made durable.
    fn commit(&mut self, session: &super::channel::SessionId, record: Record) -> Result<Commit, String>;

    /// A pending commit's record and outcome, as soon as it is known.
    fn poll(&mut self) -> Option<(Record, Result<(), String>)>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cadence_divides_and_its_parts_keep_the_target() {
        for mode in [LatencyMode::Ultra, LatencyMode::Low, LatencyMode::Normal] {
            for (rate, ..) in CADENCES {
                let c = Cadence::for_rate(rate.hz(), mode);
                assert_eq!(c.rate, rate);
                assert!(c.gop.is_multiple_of(c.part) && c.segment.is_multiple_of(c.gop), "{c:?}");
                let part = f64::from(c.part) / c.rate.hz() * 1000.0;
                let target = f64::from(c.part_target_ms());
                assert!(part <= target && part >= 0.85 * target, "{c:?}: {part} of {target}");
            }
        }
    }

    #[test]
    fn audio_parts_hold_no_more_than_the_target_and_are_never_empty() {
        for (rate, ..) in CADENCES {
            let grid = Grid { cadence: Cadence::for_rate(rate.hz(), LatencyMode::Ultra), msn0: 7 };
            for hz in [32_000u32, 44_100, 48_000] {
                let mut frames = 0u32;
                for m in 0..20_000 {
                    frames += 1;
                    let place = grid.place_audio(m, hz);
                    let next = grid.place_audio(m + 1, hz);
                    let closes = place.ends != Ends::Nothing;
                    assert_eq!(closes, (place.msn, place.part) != (next.msn, next.part), "{m}");
                    if closes {
                        let ms = f64::from(frames) * 1024.0 / f64::from(hz) * 1000.0;
                        let target = f64::from(grid.cadence.part_target_ms());
                        assert!(ms <= target, "{rate:?} {hz}: {ms}");
                        assert!(ms >= 0.85 * target || place.ends == Ends::Segment, "{rate:?} {hz}: {ms}");
                        frames = 0;
                    }
                }
            }
        }
    }

    #[test]
    fn parts_of_a_segment_that_is_no_multiple_of_them_end_with_it() {
        let cadence = Cadence { rate: FrameRate::new(25_000, 1_000), segment: 48, gop: 48, part: 10 };
        let grid = Grid { cadence, msn0: 100 };
        let place = |n| grid.place_frame(n);
        assert_eq!(place(47), Place { msn: 100, part: 4, ends: Ends::Segment });
        assert_eq!(place(48), Place { msn: 101, part: 0, ends: Ends::Nothing });
        assert_eq!((grid.part_start(47), grid.part_end(47), grid.part_start(48), grid.part_end(48)), (40, 48, 48, 58));
    }

    #[test]
    fn audio_at_frame_inverts_frame_at_audio() {
        let grid = Grid { cadence: Cadence::for_rate(29.97, LatencyMode::Ultra), msn0: 0 };
        for n in 0..5_000 {
            let m = grid.audio_at_frame(n, 48_000);
            assert!(grid.frame_at_audio(m, 48_000) >= n && grid.frame_at_audio(m - 1, 48_000) < n);
        }
    }
}
