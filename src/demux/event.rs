//! What the demuxer says, and the queue it says it through.

use std::collections::VecDeque;

use super::health::Counters;
use crate::media::access_unit::AccessUnit;
use crate::media::fault::{At, Fault, FaultKind};
use crate::media::marker::{Cue, Tag};
use crate::media::track::{Pid, Program, TrackConfig};
use crate::time::{Mono, Pts};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The program that is played, when it is chosen and whenever its tables change.
    Program(Program),
    /// Before the first unit that uses it, and on every change. No unit comes before its track's first one.
    Config {
        pid: Pid,
        config: TrackConfig,
    },
    /// The video unit that follows starts an open GOP or a gradual refresh: pictures are right from `frames` frames
    /// on [AVC D.2.8]. Its `random_access` stays false: leading pictures of an open GOP need what came before.
    RecoveryPoint {
        pid: Pid,
        pts: Pts,
        frames: u16,
    },
    Unit(AccessUnit),
    Cue(Cue),
    Tag(Tag),
    /// The program clock: 27 MHz, unwrapped, on the line of the units' PTS (x 300).
    Pcr {
        pid: Pid,
        pcr: i64,
        received: Mono,
        discontinuity: bool,
    },
    Fault(Fault),
}

/// Events of the pushes since the last poll. A push adds a few per packet at most, so who polls after each push bounds
/// the queue by what was pushed.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    pub(super) events: VecDeque<Event>,
    pub(super) counters: Counters,
    /// Arrival and offset of the packet in hand.
    pub(super) now: Mono,
    pub(super) byte: u64,
    /// The connection's time line, 90 kHz: where a track's first time stamp is unwrapped to.
    pub(super) line: Option<i64>,
}

impl Outbox {
    pub(super) fn fault(&mut self, kind: FaultKind, pid: Option<Pid>, pts: Option<i64>, detail: impl Into<String>) {
        match kind {
            FaultKind::Syntax => self.counters.syntax_errors += 1,
            FaultKind::ParameterSet => self.counters.parameter_set_errors += 1,
            _ => {}
        }
        let at = At { byte: self.byte, pid, pts };
        self.events.push_back(Event::Fault(Fault { kind, at, detail: detail.into() }));
    }

    pub(super) fn unit(&mut self, unit: AccessUnit) {
        self.counters.units += 1;
        self.counters.damaged_units += u64::from(unit.damaged);
        self.events.push_back(Event::Unit(unit));
    }
}
