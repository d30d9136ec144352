//! Counters of a connection, after ETSI TR 101 290 5.2.1 (first priority) and 5.2.2 (second priority).

use serde::Serialize;
use std::time::Duration;

use crate::media::track::Pid;
use crate::mpegts::{NULL_PID, PIDS};
use crate::time::Mono;

/// A snapshot. Intervals are measured on arrival. 2.4 PCR_accuracy_error is not among them: it needs a constant rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    pub bytes: u64,
    pub packets: u64,
    pub null_packets: u64,
    /// Bytes outside any packet.
    pub skipped_bytes: u64,
    /// 1.1 TS_sync_loss.
    pub sync_losses: u64,
    /// 1.2 Sync_byte_error.
    pub sync_byte_errors: u64,
    /// 1.3 PAT_error: none for 0.5 s, another table on its PID, or scrambled.
    pub pat_errors: u64,
    /// 1.4 Continuity_count_error, over all PIDs.
    pub continuity_errors: u64,
    /// Packets sent twice, as the standard allows; left out.
    pub duplicate_packets: u64,
    /// 1.5 PMT_error: none of the chosen program for 0.5 s, or scrambled.
    pub pmt_errors: u64,
    /// 1.6 PID_error: a track of the chosen program without a packet for 5 s.
    pub pid_errors: u64,
    /// 2.1 Transport_error.
    pub transport_errors: u64,
    /// 2.2 CRC_error.
    pub crc_errors: u64,
    /// 2.3 PCR_error: more than 100 ms between two, or a jump without discontinuity_indicator.
    pub pcr_errors: u64,
    /// 2.5 PTS_error: more than 700 ms between two of a track.
    pub pts_errors: u64,
    /// 2.6 CAT_error: scrambled packets without a conditional access table.
    pub cat_errors: u64,
    pub scrambled_packets: u64,
    /// Headers of packets, PES and tables that do not hold.
    pub syntax_errors: u64,
    pub pes_packets: u64,
    pub units: u64,
    pub damaged_units: u64,
    /// Units left out because no parameter set was known yet.
    pub undecodable_units: u64,
    pub parameter_set_errors: u64,
    /// Sections on the PIDs of cues, and timed tags taken.
    pub cue_sections: u64,
    pub timed_tags: u64,
    /// Cues and tags dropped as they came.
    pub cue_errors: u64,
    /// Smoothed difference between arrival and PCR steps, microseconds.
    pub pcr_jitter_us: u64,
}

/// What a packet's continuity counter says against the last one of its PID [TS 2.4.3.3].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Continuity {
    Good,
    Duplicate,
    Gap { expected: u8, got: u8 },
}

/// Last counter per PID; with it, whether a duplicate was seen and what its payload's fingerprint is.
#[derive(Debug)]
pub(super) struct Counts {
    last: Box<[u8; PIDS]>,
    prints: Box<[u32; PIDS]>,
}

const UNSEEN: u8 = 0xFF;
const DUPLICATED: u8 = 0x10;

impl Default for Counts {
    fn default() -> Self {
        Counts { last: Box::new([UNSEEN; PIDS]), prints: Box::new([0; PIDS]) }
    }
}

impl Counts {
    /// One packet may be sent twice in a row, alike but for its PCR. `payload` is empty where the packet has none.
    pub(super) fn check(&mut self, pid: Pid, got: u8, payload: Option<&[u8]>, discontinuity: bool) -> Continuity {
        if pid == NULL_PID {
            return Continuity::Good;
        }
        let at = usize::from(pid) % PIDS;
        let last = self.last[at];
        let (before, duplicated) = (last & 15, last & DUPLICATED != 0);
        let Some(payload) = payload else {
            // No payload: the counter stands still.
            if last == UNSEEN || discontinuity || got == before {
                self.last[at] = if last == UNSEEN { UNSEEN } else { got };
                return Continuity::Good;
            }
            self.last[at] = got;
            return Continuity::Gap { expected: before, got };
        };
        let print = fingerprint(payload);
        let same = std::mem::replace(&mut self.prints[at], print) == print;
        self.last[at] = got;
        if last == UNSEEN || discontinuity || got == (before + 1) & 15 {
            return Continuity::Good;
        }
        if got == before && same && !duplicated {
            self.last[at] = got | DUPLICATED;
            return Continuity::Duplicate;
        }
        Continuity::Gap { expected: (before + 1) & 15, got }
    }
}

/// Tells payloads apart; not for adversaries: to be taken for a duplicate costs a packet what losing it would.
fn fingerprint(payload: &[u8]) -> u32 {
    let mut print = payload.len() as u64;
    let (words, rest) = payload.as_chunks::<8>();
    for word in words {
        print = (print.rotate_left(23) ^ u64::from_le_bytes(*word)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
    for byte in rest {
        print = (print.rotate_left(23) ^ u64::from(*byte)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
    (print >> 32) as u32
}

/// Counts how often something that must come within `limit` did not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watch {
    limit: Duration,
    since: Option<Mono>,
}

impl Watch {
    pub(super) fn new(limit: Duration) -> Watch {
        Watch { limit, since: None }
    }

    /// It came. True: it came late.
    pub(super) fn seen(&mut self, now: Mono) -> bool {
        let late = self.since.is_some_and(|since| now.since(since) > self.limit);
        self.since = Some(now);
        late
    }

    /// True once per limit without it. Starts to count at the first call.
    pub(super) fn overdue(&mut self, now: Mono) -> bool {
        let since = *self.since.get_or_insert(now);
        let late = now.since(since) > self.limit;
        if late {
            self.since = Some(now);
        }
        late
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_repetition_is_a_duplicate_the_next_is_a_gap() {
        let mut counts = Counts::default();
        let (a, b) = ([1u8; 184], [2u8; 184]);
        assert_eq!(counts.check(5, 3, Some(&a), false), Continuity::Good);
        assert_eq!(counts.check(5, 3, Some(&a), false), Continuity::Duplicate);
        assert_eq!(counts.check(5, 3, Some(&a), false), Continuity::Gap { expected: 4, got: 3 });
        assert_eq!(counts.check(5, 4, Some(&b), false), Continuity::Good);
        assert_eq!(counts.check(5, 4, Some(&a), false), Continuity::Gap { expected: 5, got: 4 });
        assert_eq!(counts.check(5, 9, Some(&a), true), Continuity::Good);
        assert_eq!(counts.check(5, 9, None, false), Continuity::Good);
        assert_eq!(counts.check(5, 10, Some(&a), false), Continuity::Good);
        assert_eq!(counts.check(5, 12, Some(&a), false), Continuity::Gap { expected: 11, got: 12 });
    }

    #[test]
    fn what_stays_away_is_counted_once_per_limit() {
        let mut watch = Watch::new(Duration::from_millis(500));
        let late = (0..60u64).filter(|n| watch.overdue(Mono(n * 100_000_000))).count();
        assert_eq!(late, 9);
    }
}
