//! Whether a full encoder queue means overload, or only a burst. Pure.

use std::collections::VecDeque;
use std::time::Duration;

/// A frame younger than this since its arrival is in time: whoever has no room for it is waited for.
const PATIENCE: Duration = Duration::from_millis(400);
/// So many frames show whether a backlog grows or melts.
const WINDOW: usize = 25;

/// Follows how old frames are when they are shown. Units come in bursts (a session's first second, a jittery network):
/// shedding then would lose a rendition that has all the speed it needs.
#[derive(Debug, Default)]
pub(super) struct Lateness {
    ages: VecDeque<Duration>,
    overloaded: bool,
}

impl Lateness {
    /// The age of a frame with an arrival of its own, in order.
    pub(super) fn shown(&mut self, age: Duration) {
        let then = if self.ages.len() < WINDOW { None } else { self.ages.pop_front() };
        self.ages.push_back(age);
        let melts = then.is_none_or(|then| age < then);
        self.overloaded = age > PATIENCE && !melts;
    }

    /// Frames are late, and not getting less so.
    pub(super) fn is_overloaded(&self) -> bool {
        self.overloaded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ages of frames that arrive every 40 ms from a backlog of `start` on and take `each` ms.
    fn run(start: u64, each: u64, frames: u64) -> Vec<bool> {
        let mut lateness = Lateness::default();
        (0..frames)
            .map(|n| {
                lateness.shown(Duration::from_millis((start + n * each).saturating_sub(n * 40)));
                lateness.is_overloaded()
            })
            .collect()
    }

    #[test]
    fn a_backlog_that_melts_is_no_overload() {
        assert!(run(2_500, 30, 200).iter().all(|late| !late));
        assert!(run(390, 40, 200).iter().all(|late| !late));
    }

    #[test]
    fn a_backlog_that_grows_or_stays_is_overload_once_it_is_old_enough() {
        let slow = run(0, 44, 200);
        assert_eq!(slow.iter().position(|late| *late), Some(101));
        assert!(slow[101..].iter().all(|late| *late));
        assert_eq!(run(2_500, 40, 200).iter().position(|late| *late), Some(25));
    }
}
