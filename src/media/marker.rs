//! Markers: what a transport stream says is to happen when, beside pictures and sound.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::track::Pid;
use crate::mpegts::scte35::SpliceInfo;
use crate::time::{Mono, Pts};

/// A splice information section that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cue {
    pub pid: Pid,
    /// Its splice time, on the line of the units' PTS; `None`: at once, or none.
    pub pts: Option<Pts>,
    pub received: Mono,
    pub info: SpliceInfo,
    /// All of it, with its CRC.
    pub section: Bytes,
}

/// A timed ID3 tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag {
    pub pid: Pid,
    /// On the line of the units' PTS.
    pub pts: Pts,
    pub received: Mono,
    pub data: Bytes,
}

/// A cue and the frame that it falls on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacedCue {
    /// The splice is in front of this frame, which was not given out yet.
    pub n: i64,
    /// The first frame that was not.
    pub next: i64,
    /// The frame that its splice time names, wherever that is; `None`: at once. A cue that is sent again has the same.
    pub due: Option<i64>,
    pub cue: Cue,
}

/// What is kept of a cue that said something new, for a process that goes on with the session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptCue {
    /// Counts them.
    pub seq: u64,
    /// As in `PlacedCue`.
    pub n: i64,
    pub next: i64,
    pub due: Option<i64>,
    pub pid: Pid,
    /// The section, hex.
    pub section: String,
}

/// Cues that are kept of a session.
pub const CUES_KEPT: u64 = 128;

impl KeptCue {
    pub fn of(seq: u64, placed: &PlacedCue) -> KeptCue {
        let PlacedCue { n, next, due, ref cue } = *placed;
        KeptCue { seq, n, next, due, pid: cue.pid, section: format!("{:x}", cue.section) }
    }

    /// `None`: its section does not read.
    pub fn placed(&self) -> Option<PlacedCue> {
        let digit = |digit: u8| u8::try_from(char::from(digit).to_digit(16)?).ok();
        let (pairs, []) = self.section.as_bytes().as_chunks::<2>() else { return None };
        let bytes = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?));
        let section: Bytes = bytes.collect::<Option<Vec<u8>>>()?.into();
        let info = SpliceInfo::parse(&section).ok()?;
        let cue = Cue { pid: self.pid, pts: None, received: Mono(0), info, section };
        Some(PlacedCue { n: self.n, next: self.next, due: self.due, cue })
    }
}

/// Why a marker came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// Its time is over for longer than could still matter.
    Stale,
    /// Its time is further ahead than a marker is kept.
    Far,
    /// Source time jumped before it was reached: that time does not come any more.
    RunGone,
    /// More came at once than are taken.
    Flood,
    /// A command that splices nothing: schedules, bandwidth, private ones.
    NoSplice,
    /// It contradicts what playlists say of it already.
    Refused,
}

impl Dropped {
    /// The metric label.
    pub fn label(self) -> &'static str {
        match self {
            Dropped::Stale => "stale",
            Dropped::Far => "far",
            Dropped::RunGone => "run_gone",
            Dropped::Flood => "flood",
            Dropped::NoSplice => "no_splice",
            Dropped::Refused => "refused",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_cue_is_read_as_it_was_written_and_no_sign_is_a_digit() {
        let section =
            "fc302f000000000000fffff014054800008f7feffe7369c02efe0052ccf500000000000a0008435545490000013562dba30a";
        let kept = |section: &str| KeptCue { seq: 1, n: 7, next: 3, due: None, pid: 500, section: section.to_owned() };
        let placed = kept(section).placed().expect("an example of the standard");
        assert_eq!(KeptCue::of(1, &placed), kept(section));
        assert_eq!(kept(&section.to_uppercase()).placed(), Some(placed));
        for bad in [&section[1..], &section.replacen("0a", "+a", 1), "zz", "\u{e9}\u{e9}"] {
            assert_eq!(kept(bad).placed(), None, "{bad}");
        }
    }
}
