//! Whether a rendition encodes frame N, and what it does when it cannot keep up. Pure.

/// One rendition's state of shedding. It goes off at once when its queue is full, or at the frame the daemon names,
/// and on again only at an IDR of the grid.
#[derive(Debug)]
pub struct Gate {
    gop: i64,
    state: State,
    /// Frame from which the daemon wants it off.
    shed_at: Option<i64>,
    /// Frame from which the daemon wants it on again.
    resume_at: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    On,
    /// Its queue was full: until the grid IDR here.
    Late(i64),
    /// By the daemon, until it says otherwise.
    Off,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Encode,
    Skip,
    /// The first frame that is skipped: what the encoder holds must come out now.
    Stop,
    /// As `Stop`, because the queue was full; it goes on at `resumes`.
    Late {
        resumes: i64,
    },
}

impl Gate {
    pub fn new(gop: u32) -> Gate {
        Gate { gop: i64::from(gop.max(1)), state: State::On, shed_at: None, resume_at: None }
    }

    pub fn shed(&mut self, at: i64) {
        self.shed_at = Some(at);
        self.resume_at = None;
    }

    pub fn resume(&mut self, at: i64) {
        self.resume_at = Some(at);
    }

    /// Frames come in order, each once. `full`: the rendition's queue has no room.
    pub fn decide(&mut self, n: i64, full: bool) -> Verdict {
        let on_grid = n.rem_euclid(self.gop) == 0;
        if self.resume_at.is_some_and(|at| n >= at && on_grid) {
            self.resume_at = None;
            self.shed_at = None;
            if self.state == State::Off {
                self.state = State::On;
            }
        }
        let was_on = self.state == State::On;
        if self.shed_at.is_some_and(|at| n >= at) {
            self.shed_at = None;
            self.state = State::Off;
            return if was_on { Verdict::Stop } else { Verdict::Skip };
        }
        if matches!(self.state, State::Late(resumes) if n >= resumes && on_grid) {
            self.state = State::On;
        }
        match self.state {
            State::On if full => {
                let resumes = (n.div_euclid(self.gop) + 1) * self.gop;
                self.state = State::Late(resumes);
                Verdict::Late { resumes }
            }
            State::On => Verdict::Encode,
            State::Late(_) | State::Off => Verdict::Skip,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Verdict::{Encode, Late, Skip, Stop};

    #[test]
    fn a_full_queue_sheds_until_the_next_grid_idr() {
        let mut gate = Gate::new(10);
        assert_eq!(gate.decide(13, false), Encode);
        assert_eq!(gate.decide(14, true), Late { resumes: 20 });
        assert!((15..20).all(|n| gate.decide(n, false) == Skip));
        assert_eq!(gate.decide(20, true), Late { resumes: 30 });
        assert_eq!(gate.decide(30, false), Encode);
    }

    #[test]
    fn the_daemon_sheds_and_resumes_at_idrs() {
        let mut gate = Gate::new(10);
        gate.shed(20);
        assert_eq!(gate.decide(19, false), Encode);
        assert_eq!(gate.decide(20, false), Stop);
        gate.resume(33);
        assert!((21..40).all(|n| gate.decide(n, false) == Skip));
        assert_eq!(gate.decide(40, false), Encode);
    }

    #[test]
    fn a_shed_while_late_holds_until_the_daemon_resumes_it() {
        let mut gate = Gate::new(10);
        assert_eq!(gate.decide(1, true), Late { resumes: 10 });
        gate.shed(10);
        assert!((2..50).all(|n| gate.decide(n, false) == Skip));
        gate.resume(50);
        assert_eq!(gate.decide(50, false), Encode);
    }
}
