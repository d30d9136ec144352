//! Faults: what was wrong with the input. Not errors: the parser goes on.

use serde::{Deserialize, Serialize};
use std::fmt;

use super::track::Pid;

/// The kind labels a counter; the text goes to the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    pub kind: FaultKind,
    pub at: At,
    /// What was expected and what was found.
    pub detail: String,
}

/// A place that `rung inspect ts` shows too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct At {
    /// Bytes since the connection's first.
    pub byte: u64,
    pub pid: Option<Pid>,
    /// Unwrapped 90 kHz PTS.
    pub pts: Option<i64>,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $label:literal,)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum FaultKind { $($(#[$doc])* $name,)* }
        impl FaultKind {
            pub const ALL: &[FaultKind] = &[$(FaultKind::$name,)*];
            /// The metric label.
            pub fn label(self) -> &'static str {
                match self { $(FaultKind::$name => $label,)* }
            }
        }
    };
}

kinds! {
    /// No sync byte where one must be; bytes were skipped.
    SyncLost = "sync_lost",
    /// transport_error_indicator was set.
    TransportError = "transport_error",
    /// Continuity counter jumped.
    Continuity = "continuity",
    /// A section's CRC is wrong.
    SectionCrc = "section_crc",
    /// PAT, PMT or PES syntax.
    Syntax = "syntax",
    /// A PES packet or access unit above its cap.
    Oversize = "oversize",
    /// transport_scrambling_control is not zero.
    Scrambled = "scrambled",
    /// PCR jumped without discontinuity_indicator.
    PcrJump = "pcr_jump",
    /// PTS or DTS missing where one is needed.
    NoTimestamp = "no_timestamp",
    /// A stream type nobody here takes.
    UnsupportedCodec = "unsupported_codec",
    /// A parameter set or header that does not parse.
    ParameterSet = "parameter_set",
    /// Source time jumped: a new run was made.
    TimeJump = "time_jump",
    /// Two units on one frame index: the first is shown.
    Collision = "collision",
    /// No unit for a frame index: the picture before is held.
    Hole = "hole",
    /// A queue was full and units were skipped to the next random access point.
    Overrun = "overrun",
    /// The decoder reported damage.
    Decode = "decode",
    /// A source rendition had no key frame where its GOP promised one; it was cut elsewhere.
    Gop = "gop",
    /// The audio grid was re-aligned by one frame.
    AudioDrift = "audio_drift",
    /// A cue or a timed tag that does not hold.
    Cue = "cue",
    /// An audio track went silent, or one came that the session does not have.
    AudioTrack = "audio_track",
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} (byte {}", self.kind.label(), self.detail, self.at.byte)?;
        if let Some(pid) = self.at.pid {
            write!(f, ", pid {pid:#06x}")?;
        }
        if let Some(pts) = self.at.pts {
            write!(f, ", pts {}", crate::time::Pts(pts))?;
        }
        f.write_str(")")
    }
}
