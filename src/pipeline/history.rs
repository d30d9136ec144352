//! Units kept for a worker's successor: what it must decode to go on at the first part that is not published yet.

use std::collections::VecDeque;

use crate::media::limits::{PRIME_BYTES, PRIME_SPAN};
use crate::pixels::protocol::{Fill, Unit};

/// Audio of the last half second is enough to give an encoder its preroll.
const AUDIO_SPAN: std::time::Duration = std::time::Duration::from_millis(500);

/// More fills than a source that comes and goes makes while parts are being published.
const FILLS_MAX: usize = 64;

/// What a worker is given beside its commands.
#[derive(Clone, Debug, PartialEq)]
pub enum Fed {
    Unit(Unit),
    Fill { to: i64, with: Fill },
}

impl Fed {
    pub fn unit(&self) -> Option<&Unit> {
        match self {
            Fed::Unit(unit) => Some(unit),
            Fed::Fill { .. } => None,
        }
    }

    fn is_random_access(&self) -> bool {
        self.unit().is_some_and(|u| u.random_access)
    }
}

/// Queues a fill: one that goes on as the last item did only moves its end.
pub fn push_fill(queue: &mut VecDeque<Fed>, to: i64, with: Fill) {
    match queue.back_mut() {
        Some(Fed::Fill { to: end, with: same }) if *same == with => *end = to.max(*end),
        _ => queue.push_back(Fed::Fill { to, with }),
    }
}

/// One channel's recent units, in decode order, and where fills came between them.
#[derive(Debug, Default)]
pub struct History {
    video: VecDeque<Fed>,
    audio: VecDeque<Unit>,
    bytes: usize,
}

impl History {
    /// Keeps a video unit. Before the first random access point none is kept.
    pub fn push_video(&mut self, unit: &Unit) {
        if !unit.random_access && self.units().next().is_none() {
            return;
        }
        self.bytes += unit.data.len();
        self.video.push_back(Fed::Unit(unit.clone()));
        loop {
            let (first, last) = (self.units().next(), self.units().next_back());
            let (Some(first), Some(last)) = (first, last) else { break };
            if self.bytes <= PRIME_BYTES && last.stamps.received - first.stamps.received <= PRIME_SPAN {
                break;
            }
            self.drop_first_gop(i64::MIN);
        }
    }

    /// Keeps a fill behind the units that came before it.
    pub fn push_fill(&mut self, to: i64, with: Fill) {
        push_fill(&mut self.video, to, with);
        let fills = || self.video.iter().enumerate().filter(|(_, fed)| fed.unit().is_none());
        if fills().count() > FILLS_MAX
            && let Some((oldest, _)) = fills().next()
        {
            self.video.remove(oldest);
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
        while self.second_gop().is_some_and(|at| self.video[at].unit().is_some_and(|u| u.at <= from)) {
            self.drop_first_gop(from);
        }
        while self.video.pop_front_if(|fed| matches!(fed, Fed::Fill { to, .. } if *to <= from)).is_some() {}
    }

    /// What a successor that starts at frame `start` gets, in order: earlier frames are only decoded.
    pub fn replay(&self, start: i64) -> impl Iterator<Item = Fed> {
        let prime = move |fed: &Fed| match fed {
            Fed::Unit(u) => Fed::Unit(Unit { prime: u.prime || u.at < start, ..u.clone() }),
            fill @ Fed::Fill { .. } => fill.clone(),
        };
        self.video.iter().map(prime).chain(self.audio.iter().cloned().map(Fed::Unit))
    }

    /// Smallest frame index from which a successor could show pictures; `None` without a random access point.
    pub fn first_frame(&self) -> Option<i64> {
        self.units().next().map(|u| u.at)
    }

    fn units(&self) -> impl DoubleEndedIterator<Item = &Unit> {
        self.video.iter().filter_map(Fed::unit)
    }

    fn second_gop(&self) -> Option<usize> {
        let mut starts = self.video.iter().enumerate().filter(|(_, fed)| fed.is_random_access());
        starts.nth(1).map(|(i, _)| i)
    }

    /// Without a second GOP all units go: a decoder cannot start in the middle. Fills that reach beyond `from` stay: they
    /// need no picture.
    fn drop_first_gop(&mut self, from: i64) {
        let upto = self.second_gop().unwrap_or(self.video.len());
        let rest = self.video.split_off(upto);
        let kept = self.video.iter().filter(|fed| matches!(fed, Fed::Fill { to, .. } if *to > from)).cloned();
        let mut kept: VecDeque<Fed> = kept.collect();
        self.bytes -= self.units().map(|u| u.data.len()).sum::<usize>();
        kept.extend(rest);
        self.video = kept;
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
        let replay: Vec<_> = history.replay(80).filter_map(|fed| fed.unit().map(|u| (u.at, u.prime))).collect();
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
            assert!(history.bytes == history.units().map(|u| u.data.len()).sum::<usize>());
        }
        assert!(history.first_frame().is_some());
    }

    #[test]
    fn fills_keep_their_place_among_units_outlast_them_and_are_bounded() {
        let mut history = History::default();
        for n in 0..30 {
            history.push_video(&unit(n, n % 25 == 0, 100));
        }
        for to in 31..60 {
            history.push_fill(to, if to <= 50 { Fill::Hold } else { Fill::Slate });
        }
        history.push_video(&unit(60, true, 100));
        let order = |history: &History, start| {
            let name = |fed| match fed {
                Fed::Unit(u) => u.at.to_string(),
                Fed::Fill { to, with } => format!("{with:?}{to}"),
            };
            history.replay(start).map(name).collect::<Vec<_>>().join(" ")
        };
        history.trim(28);
        assert_eq!(order(&history, 28), "25 26 27 28 29 Hold50 Slate59 60");
        // A minute later the old units are too old for a decoder, and the unpublished slate needs none.
        history.push_video(&unit(1_000, true, 100));
        assert_eq!(order(&history, 40), "Hold50 Slate59 1000");
        history.trim(55);
        assert_eq!(order(&history, 55), "Slate59 1000");
        history.trim(59);
        assert_eq!(order(&history, 59), "1000");
        for to in 0..10_000 {
            history.push_fill(2_000 + to, if to % 2 == 0 { Fill::Hold } else { Fill::Slate });
        }
        assert_eq!(history.video.len(), FILLS_MAX + 1);
    }
}
