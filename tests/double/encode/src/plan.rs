//! Which pictures are IDR pictures, and when the header promises which output: pure counting.

use std::collections::VecDeque;

/// One session's counting. Pictures are counted in the order they were submitted.
#[derive(Debug)]
pub(crate) struct Plan {
    b_frames: u32,
    lookahead: usize,
    /// Pictures from one IDR picture to the next.
    gop: u32,
    /// Pictures since the last IDR picture, with it.
    since_idr: u32,
    /// Submitted, and not yet looked at because of the lookahead: whether it is an IDR picture.
    ahead: VecDeque<bool>,
    /// Pictures that wait for the reference behind them.
    run: u32,
    /// Outputs that are due.
    due: u64,
    submitted: u64,
}

/// What becomes of a picture that was submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Planned {
    pub(crate) idr: bool,
    /// The encoder wants more input before it gives an output.
    pub(crate) more: bool,
}

impl Plan {
    pub(crate) fn new(b_frames: u32, lookahead: u32, gop: u32) -> Plan {
        let ahead = VecDeque::new();
        Plan { b_frames, lookahead: lookahead as usize, gop, since_idr: 0, ahead, run: 0, due: 0, submitted: 0 }
    }

    pub(crate) fn submit(&mut self, force_idr: bool) -> Planned {
        let idr = force_idr || self.submitted == 0 || self.since_idr >= self.gop;
        self.since_idr = if idr { 1 } else { self.since_idr.saturating_add(1) };
        self.submitted += 1;
        self.ahead.push_back(idr);
        if self.ahead.len() <= self.lookahead {
            return Planned { idr, more: true };
        }
        let looked_at = self.ahead.pop_front().expect("one was put in");
        // Before an IDR picture a run ends: its last picture becomes a P picture.
        if !looked_at && self.run < self.b_frames {
            self.run += 1;
            return Planned { idr, more: true };
        }
        self.due += u64::from(self.run) + 1;
        self.run = 0;
        Planned { idr, more: false }
    }

    /// The end: everything comes out.
    pub(crate) fn flush(&mut self) {
        self.due = self.submitted;
        self.ahead.clear();
        self.run = 0;
    }

    /// How many outputs are due.
    pub(crate) fn due(&self) -> u64 {
        self.due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(plan: &mut Plan, forced: &[bool]) -> String {
        forced.iter().map(|&f| if plan.submit(f).more { '.' } else { '!' }).collect()
    }

    #[test]
    fn a_run_of_b_frames_waits_for_its_reference() {
        assert_eq!(answers(&mut Plan::new(2, 0, u32::MAX), &[false; 8]), "!..!..!.");
    }

    #[test]
    fn an_idr_picture_ends_a_run() {
        let mut plan = Plan::new(2, 0, u32::MAX);
        assert_eq!(answers(&mut plan, &[false, false, true, false]), "!.!.");
        assert_eq!(plan.due(), 3);
        plan.flush();
        assert_eq!(plan.due(), 4);
    }

    #[test]
    fn a_lookahead_costs_its_depth_once() {
        let mut plan = Plan::new(0, 3, u32::MAX);
        assert_eq!(answers(&mut plan, &[false; 6]), "...!!!");
        assert_eq!(plan.due(), 3);
        assert_eq!(answers(&mut Plan::new(1, 3, u32::MAX), &[false; 8]), "...!.!.!");
    }

    #[test]
    fn a_gop_begins_with_an_idr_picture_and_so_does_one_that_was_forced() {
        let mut plan = Plan::new(0, 0, 4);
        let idr: Vec<bool> = (0..9).map(|n| plan.submit(n == 2).idr).collect();
        assert_eq!(idr, [true, false, true, false, false, false, true, false, false]);
    }
}
