//! Units kept for a worker's successor: what it must decode to go on at the first part that is not published yet.

use std::collections::VecDeque;

use crate::media::limits::{PRIME_BYTES, PRIME_SPAN};
use crate::pixels::protocol::Unit;

/// Audio of the last half second is enough to give an encoder its preroll.
const AUDIO_SPAN: std::time::Duration = std::time::Duration::from_millis(500);

/// One channel's recent units, in decode order.
#[derive(Debug, Default)]
pub struct History {
    video: VecDeque<Unit>,
    audio: VecDeque<Unit>,
    bytes: usize,
}

impl History {
    /// Keeps a video unit. Before the first random access point nothing is kept.
    pub fn push_video(&mut self, unit: &Unit) {
        if self.video.is_empty() && !unit.random_access {
            return;
        }
        self.bytes += unit.data.len();
        self.video.push_back(unit.clone());
        let received = |u: &Unit| u.stamps.received;
        while let (Some(first), Some(last)) = (self.video.front(), self.video.back()) {
            if self.bytes <= PRIME_BYTES && received(last) - received(first) <= PRIME_SPAN {
                break;
            }
            self.drop_first_gop();
        }
    }

    pub fn push_audio(&mut self, unit: &Unit) {
        let since = unit.stamps.received.back(AUDIO_SPAN);
        self.audio.push_back(unit.clone());
        while self.audio.front().is_some_and(|u| u.stamps.received < since) {
            self.audio.pop_front();
        }
    }

    /// Frames before `from` need not be made again: forgets whole GOPs that end before it.
    pub fn trim(&mut self, from: i64) {
        while self.second_gop().is_some_and(|at| self.video[at].at <= from) {
            self.drop_first_gop();
        }
    }

    /// What a successor that starts at frame `start` gets, in order: earlier frames are only decoded.
    pub fn replay(&self, start: i64) -> impl Iterator<Item = Unit> {
        let prime = move |u: &Unit| Unit { prime: u.at < start, ..u.clone() };
        self.video.iter().map(prime).chain(self.audio.iter().cloned())
    }

    /// Smallest frame index from which a successor could show pictures; `None` without a random access point.
    pub fn first_frame(&self) -> Option<i64> {
        self.video.front().map(|u| u.at)
    }

    fn second_gop(&self) -> Option<usize> {
        self.video.iter().skip(1).position(|u| u.random_access).map(|i| i + 1)
    }

    /// Without a second GOP everything goes: a decoder cannot start in the middle.
    fn drop_first_gop(&mut self) {
        let upto = self.second_gop().unwrap_or(self.video.len());
        for unit in self.video.drain(..upto) {
            self.bytes -= unit.data.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::sample::Stamps;
    use crate::time::Mono;
    use bytes::Bytes;
    use std::time::Duration;

    fn unit(at: i64, random_access: bool, size: usize) -> Unit {
        let received = Mono(1_000_000_000) + Duration::from_millis(40 * u64::try_from(at).unwrap());
        let stamps = Stamps { received, ..Stamps::default() };
        let data = Bytes::from(vec![0; size]);
        Unit { pid: 1, at, prime: false, hidden: false, random_access, damaged: false, stamps, data }
    }

    #[test]
    fn a_successor_gets_the_gop_that_holds_its_first_frame_and_everything_after() {
        let mut history = History::default();
        for n in 3..130 {
            history.push_video(&unit(n, n % 25 == 0, 100));
        }
        assert_eq!(history.first_frame(), Some(25), "nothing before the first random access point");
        history.trim(80);
        let replay: Vec<_> = history.replay(80).map(|u| (u.at, u.prime)).collect();
        assert_eq!(replay.first(), Some(&(75, true)));
        assert_eq!(replay.iter().find(|u| !u.1), Some(&(80, false)));
        assert_eq!(replay.last(), Some(&(129, false)));
    }

    #[test]
    fn memory_is_bounded_with_and_without_random_access_points() {
        let mut history = History::default();
        for n in 0..5_000 {
            history.push_video(&unit(n, n == 0 || (n > 2_000 && n % 50 == 0), 100_000));
            assert!(history.bytes <= PRIME_BYTES);
            assert!(history.bytes == history.video.iter().map(|u| u.data.len()).sum::<usize>());
        }
        assert!(history.first_frame().is_some());
    }
}
