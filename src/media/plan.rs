//! What a session was made of, decided once at its start: with the records of `grid` enough to go on after a restart.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::channel::SessionId;
use super::grid::{Anchor, Grid, PdtLine, Record, SourceGop};
use super::key::hex;
use super::marker::KeptCue;
use super::track::{AudioConfig, AudioRole, Pid, VideoConfig};
use crate::time::Wall;

/// How segments of a source rendition begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cut {
    /// At the IDR with d = k F.
    Regular,
    /// At the first IDR with d in [k F, (k+1) F).
    Irregular,
    /// The same, else at the last part boundary in there.
    Fallback,
}

/// What a source's GOP promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourcePlan {
    pub cut: Cut,
    /// F, frames.
    pub segment: u32,
    /// EXT-X-TARGETDURATION, seconds.
    pub target_duration: u32,
    /// EXT-X-INDEPENDENT-SEGMENTS may be said.
    pub independent: bool,
    /// A multiple of the GOP fits the mode's segment: what `hybrid` needs.
    pub fits_ladder: bool,
}

/// What encoders and renditions of a session are opened with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    pub grid: Grid,
    /// EXT-X-TARGETDURATION of every playlist, seconds.
    pub target_duration: u32,
    /// Of the source rendition; `None` for a ladder alone, and without video.
    pub source: Option<SourcePlan>,
    /// Every step of the source is a whole number of the grid's frames.
    pub exact: bool,
    /// The source's GOP as it was known then.
    pub gop: SourceGop,
    /// A session without video on a grid of 25: its first audio track makes N.
    pub audio_only: bool,
    pub video: Option<(Pid, VideoConfig)>,
    /// In track order: what `track` counts.
    pub audio: Vec<PlannedAudio>,
}

/// One audio track.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedAudio {
    pub pid: Pid,
    /// ISO 639-2, as the PMT names it.
    pub language: Option<String>,
    #[serde(default)]
    pub role: AudioRole,
    /// `None`: without headers when the grid was made, and not part of the session.
    pub config: Option<AudioConfig>,
}

/// A rendition's init section: its URI names these bytes as long as the session lasts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitMark {
    pub rendition: String,
    /// Number in its URI.
    pub map: u32,
    /// SHA-256 of its bytes, hex.
    pub digest: String,
}

impl InitMark {
    pub fn of(rendition: &str, map: u32, bytes: &[u8]) -> InitMark {
        InitMark { rendition: rendition.to_owned(), map, digest: hex(&Sha256::digest(bytes)) }
    }
}

/// The init sections of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inits {
    /// The session that media URIs name: of those that followed each other without a break the first.
    pub named: SessionId,
    pub marks: Vec<InitMark>,
}

/// What is known about a session whose process is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    pub plan: Plan,
    /// By run, oldest first.
    pub anchors: Vec<Anchor>,
    /// By first frame; at least one.
    pub lines: Vec<PdtLine>,
    /// Segments that begin behind a DISCONTINUITY, in order.
    pub breaks: Vec<u64>,
    /// `None`: nothing was on air yet.
    pub inits: Option<Inits>,
    /// In order; the last `CUES_KEPT` at least.
    pub cues: Vec<KeptCue>,
}

impl Kept {
    /// `None`: it had no grid yet, or its records are incomplete.
    pub fn of(records: Vec<Record>) -> Option<Kept> {
        let (mut plan, mut inits) = (None, None);
        let (mut anchors, mut lines, mut breaks) = (Vec::new(), Vec::new(), Vec::new());
        let mut cues = Vec::new();
        for record in records {
            match record {
                Record::Plan(found) => plan = Some(*found),
                Record::Anchor(anchor) => anchors.push(anchor),
                // Passed-through audio finds its place on the grid anew with its first frame.
                Record::Audio(_) => {}
                Record::Pdt(line) => lines.push(line),
                Record::Break { msn } => breaks.push(msn),
                Record::Inits(found) => inits = Some(found),
                Record::Cue(cue) => cues.push(cue),
            }
        }
        anchors.sort_by_key(|anchor| anchor.run);
        lines.sort_by_key(|line| line.from_n);
        cues.sort_by_key(|cue: &KeptCue| cue.seq);
        breaks.sort_unstable();
        breaks.dedup();
        let plan = plan.filter(|_| !lines.is_empty())?;
        Some(Kept { plan, anchors, lines, breaks, inits, cues })
    }

    /// PROGRAM-DATE-TIME of a frame, as it was.
    pub fn date_of(&self, n: i64) -> Wall {
        let line = self.lines.iter().rfind(|line| line.from_n <= n).or(self.lines.first());
        line.map_or(Wall(0), |line| line.at(&self.plan.grid, n))
    }

    /// The line in force at its end.
    pub fn line(&self) -> PdtLine {
        self.lines.last().copied().unwrap_or(PdtLine { from_n: 0, wall: Wall(0), ppm: 0 })
    }
}
