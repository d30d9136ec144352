//! What to shed when a machine cannot carry its ladder, and when to take it back. Sans-IO: facts in, acts out.
//!
//! The worker itself skips a rendition whose queue is full until the next grid IDR and says so (`late`). Twice within
//! ten seconds, and the rendition stays out until this governor resumes it. A ladder that lags as a whole loses its
//! costliest rendition: HEVC costs a CPU several times what H.264 does, so it goes before an H.264 rendition of its size.
//! The lowest rendition is never shed. Resuming is a trial: it fails, the next one waits longer.

use std::collections::VecDeque;
use std::time::Duration;

use crate::pixels::protocol::RenditionIndex;
use crate::time::Mono;

const LATE_WINDOW: Duration = Duration::from_secs(10);
const LATE_TIMES: usize = 2;
/// The ladder as a whole is behind its source by more than this: the costliest rendition goes.
const LAG_MAX: Duration = Duration::from_millis(600);
/// Between two sheds for lag: the first one must have time to help.
const SETTLE: Duration = Duration::from_secs(2);
/// Calm for this long before a trial; doubled with each failed trial.
const CALM_MIN: Duration = Duration::from_secs(8);
const CALM_MAX: Duration = Duration::from_secs(300);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Shed(RenditionIndex),
    Resume(RenditionIndex),
}

#[derive(Debug)]
struct Rendition {
    /// What a frame of it costs; only compared.
    cost: f64,
    late: VecDeque<Mono>,
    shed: bool,
    /// Shed by decision, not for lateness: no trial brings it back.
    held: bool,
    resumed: Option<Mono>,
    calm_needed: Duration,
}

/// One channel's governor. Renditions are indexed as in the ladder.
#[derive(Debug)]
pub struct Governor {
    renditions: Vec<Rendition>,
    /// The rendition that is never shed.
    lowest: usize,
    troubled: Mono,
    last_shed: Option<Mono>,
    acts: VecDeque<Act>,
}

impl Governor {
    /// `costs`: of a frame of each rendition, in any unit.
    pub fn new(costs: Vec<f64>, lowest: usize, now: Mono) -> Governor {
        let one = |cost| Rendition {
            cost,
            late: VecDeque::new(),
            shed: false,
            held: false,
            resumed: None,
            calm_needed: CALM_MIN,
        };
        Governor {
            renditions: costs.into_iter().map(one).collect(),
            lowest,
            troubled: now,
            last_shed: None,
            acts: VecDeque::new(),
        }
    }

    /// The worker skipped part of `rendition` because its queue was full.
    pub fn late(&mut self, now: Mono, rendition: RenditionIndex) {
        self.troubled = now;
        let Some(r) = self.renditions.get_mut(usize::from(rendition)) else { return };
        r.late.push_back(now);
        while r.late.front().is_some_and(|at| now - *at > LATE_WINDOW) {
            r.late.pop_front();
        }
        if r.late.len() >= LATE_TIMES {
            self.shed(now, usize::from(rendition));
        }
    }

    /// How far the ladder's lowest rendition is behind what was sent to the worker, beyond the encoder's own delay.
    pub fn lag(&mut self, now: Mono, lag: Duration) {
        if lag > LAG_MAX {
            self.troubled = now;
            let settled = self.last_shed.is_none_or(|at| now - at > SETTLE);
            if let (true, Some(costliest)) = (settled, self.costliest()) {
                self.shed(now, costliest);
            }
        } else if lag > LAG_MAX / 2 {
            self.troubled = now;
        }
        self.try_resume(now);
    }

    /// Takes a rendition off until `free`. False: it was off already.
    pub fn hold(&mut self, rendition: usize) -> bool {
        let lowest = rendition == self.lowest;
        let Some(r) = self.renditions.get_mut(rendition).filter(|r| !r.held && !lowest) else { return false };
        r.held = true;
        !std::mem::replace(&mut r.shed, true)
    }

    /// Renditions that `hold` took off may run again: which.
    pub fn free(&mut self) -> Vec<usize> {
        let mut freed = Vec::new();
        for (i, r) in self.renditions.iter_mut().enumerate().filter(|(_, r)| r.held) {
            (r.held, r.shed) = (false, false);
            freed.push(i);
        }
        freed
    }

    /// What to tell the worker.
    pub fn poll(&mut self) -> Option<Act> {
        self.acts.pop_front()
    }

    pub fn is_shed(&self, rendition: usize) -> bool {
        self.renditions.get(rendition).is_some_and(|r| r.shed)
    }

    fn shed(&mut self, now: Mono, index: usize) {
        let r = &mut self.renditions[index];
        if index == self.lowest || r.shed {
            return;
        }
        r.shed = true;
        r.late.clear();
        let failed_trial = r.resumed.is_some_and(|at| now - at < 2 * LATE_WINDOW);
        r.calm_needed = if failed_trial { (r.calm_needed * 2).min(CALM_MAX) } else { CALM_MIN };
        self.last_shed = Some(now);
        self.acts.push_back(Act::Shed(u8::try_from(index).unwrap_or(u8::MAX)));
    }

    /// The one that runs and costs most, of several the first; never the lowest.
    fn costliest(&self) -> Option<usize> {
        let running = self.renditions.iter().enumerate().filter(|(i, r)| !r.shed && *i != self.lowest);
        running.max_by(|a, b| a.1.cost.total_cmp(&b.1.cost).then(b.0.cmp(&a.0))).map(|(i, _)| i)
    }

    /// The cheapest shed rendition comes back first, one per calm.
    fn try_resume(&mut self, now: Mono) {
        let shed = self.renditions.iter().enumerate().filter(|(_, r)| r.shed && !r.held);
        let Some((index, _)) = shed.min_by(|a, b| a.1.cost.total_cmp(&b.1.cost).then(b.0.cmp(&a.0))) else { return };
        let calm = now - self.troubled;
        let r = &mut self.renditions[index];
        if calm < r.calm_needed {
            return;
        }
        r.shed = false;
        r.resumed = Some(now);
        self.troubled = now;
        self.acts.push_back(Act::Resume(u8::try_from(index).unwrap_or(u8::MAX)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: f64) -> Mono {
        Mono(1_000_000_000) + Duration::from_secs_f64(seconds)
    }

    fn ladder(renditions: u8, now: Mono) -> Governor {
        Governor::new((1..=renditions).rev().map(f64::from).collect(), usize::from(renditions) - 1, now)
    }

    fn acts(g: &mut Governor) -> Vec<Act> {
        std::iter::from_fn(|| g.poll()).collect()
    }

    #[test]
    fn one_late_gop_is_forgiven_two_within_ten_seconds_are_not() {
        let mut g = ladder(3, at(0.0));
        g.late(at(1.0), 0);
        g.late(at(12.0), 0);
        assert_eq!(acts(&mut g), []);
        g.late(at(14.0), 0);
        assert_eq!(acts(&mut g), [Act::Shed(0)]);
    }

    #[test]
    fn lag_sheds_from_the_top_one_at_a_time_and_never_the_lowest() {
        let mut g = ladder(3, at(0.0));
        let mut all = Vec::new();
        for tenth in 0..200 {
            g.lag(at(f64::from(tenth) / 10.0), Duration::from_secs(1));
            all.extend(acts(&mut g));
        }
        assert_eq!(all, [Act::Shed(0), Act::Shed(1)]);
        g.late(at(30.0), 2);
        g.late(at(30.1), 2);
        assert_eq!(acts(&mut g), [], "the lowest stays");
    }

    #[test]
    fn renditions_come_back_when_it_is_calm_and_failed_trials_wait_longer() {
        let mut g = ladder(2, at(0.0));
        g.late(at(1.0), 0);
        g.late(at(2.0), 0);
        assert_eq!(acts(&mut g), [Act::Shed(0)]);
        let mut back = Vec::new();
        let (mut t, mut shed) = (2.0, true);
        while back.len() < 3 {
            t += 0.2;
            g.lag(at(t), Duration::ZERO);
            for act in acts(&mut g) {
                match act {
                    Act::Resume(0) => {
                        back.push(t);
                        shed = false;
                    }
                    Act::Shed(0) => shed = true,
                    other => panic!("{other:?}"),
                }
            }
            if !shed {
                g.late(at(t + 0.05), 0);
                g.late(at(t + 0.1), 0);
            }
            assert!(t < 200.0, "it must come back");
        }
        let waits: Vec<f64> = back.windows(2).map(|w| w[1] - w[0]).collect();
        assert!((7.9..9.0).contains(&(back[0] - 2.0)), "{back:?}");
        assert!(waits[0] > 15.0 && waits[1] > 31.0, "{waits:?}");
    }

    #[test]
    fn of_a_mixed_ladder_what_costs_most_goes_first_and_the_lowest_of_h264_stays() {
        // 720p, 720p in HEVC, 360p, 360p in HEVC.
        let mut g = Governor::new(vec![4.0, 20.0, 1.0, 5.0], 2, at(0.0));
        let mut all = Vec::new();
        for tenth in 0..200 {
            g.lag(at(f64::from(tenth) / 10.0), Duration::from_secs(1));
            all.extend(acts(&mut g));
        }
        assert_eq!(all, [Act::Shed(1), Act::Shed(3), Act::Shed(0)]);
        g.late(at(20.0), 2);
        g.late(at(20.1), 2);
        assert!(!g.hold(2) && acts(&mut g).is_empty(), "360p stays, although it is not the last");
        for tenth in 201..900 {
            g.lag(at(f64::from(tenth) / 10.0), Duration::ZERO);
        }
        assert_eq!(acts(&mut g), [Act::Resume(0), Act::Resume(3), Act::Resume(1)]);
    }
}
