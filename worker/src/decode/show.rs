//! Which picture is shown at which N: each N from the start on exactly once, in order. Pure.

/// Holes longer than this are not filled with held pictures: the daemon fills time, the worker only bridges losses.
const HOLE_FRAMES_MAX: i64 = 1_200;

/// The next N to show, and the picture to hold until then.
#[derive(Debug)]
pub(super) struct Show<P> {
    next: i64,
    /// N below this were shown by a fill, or lie before the start: a picture for them is late by right.
    filled: i64,
    held: Option<P>,
}

/// What became of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Placed {
    Shown,
    /// Shown, after this many N without a picture of their own.
    AfterHole(i64),
    /// Its N was shown before: by a fill, before the start, or it is history.
    Hidden,
    /// Another picture has its N.
    Collision,
}

impl<P: Clone> Show<P> {
    pub(super) fn new(start: i64) -> Show<P> {
        Show { next: start, filled: start, held: None }
    }

    pub(super) fn next(&self) -> i64 {
        self.next
    }

    /// A picture out of the decoder, in presentation order. `shown` gets (N, picture, repeated).
    pub(super) fn picture(&mut self, n: i64, quiet: bool, picture: P, shown: &mut impl FnMut(i64, &P, bool)) -> Placed {
        if quiet || n < self.next {
            let by_right = quiet || n < self.filled;
            if by_right {
                self.held = Some(picture);
            }
            return if by_right { Placed::Hidden } else { Placed::Collision };
        }
        let hole = n - self.next;
        if hole <= HOLE_FRAMES_MAX {
            // Before the first picture there is nothing to hold: the N before it show what comes.
            let held = self.held.take().unwrap_or_else(|| picture.clone());
            for missing in self.next..n {
                shown(missing, &held, true);
            }
        }
        shown(n, &picture, false);
        self.next = n + 1;
        self.held = Some(picture);
        if hole > 0 { Placed::AfterHole(hole) } else { Placed::Shown }
    }

    /// Shows every N below `to`: `slate`, or without one the held picture (`black` where there is none).
    pub(super) fn fill(
        &mut self,
        to: i64,
        slate: bool,
        black: impl FnOnce() -> P,
        shown: &mut impl FnMut(i64, &P, bool),
    ) {
        if to <= self.next {
            return;
        }
        let with = match &self.held {
            Some(held) if !slate => held.clone(),
            _ => black(),
        };
        for n in self.next..to {
            shown(n, &with, true);
        }
        self.next = to;
        self.filled = to;
    }

    /// No N below `to` is shown any more.
    pub(super) fn jump(&mut self, to: i64) {
        self.next = self.next.max(to);
        self.filled = self.filled.max(to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn play(show: &mut Show<char>, n: i64, quiet: bool, p: char) -> (Placed, String) {
        let mut out = String::new();
        let placed = show.picture(n, quiet, p, &mut |n, p, _| out += &format!("{n}{p} "));
        (placed, out)
    }

    #[test]
    fn a_hole_repeats_the_last_picture_and_a_collision_shows_the_first() {
        let mut show = Show::new(10);
        assert_eq!(play(&mut show, 10, false, 'a'), (Placed::Shown, "10a ".into()));
        assert_eq!(play(&mut show, 13, false, 'b'), (Placed::AfterHole(2), "11a 12a 13b ".into()));
        assert_eq!(play(&mut show, 13, false, 'c'), (Placed::Collision, String::new()));
        assert_eq!(play(&mut show, 15, false, 'd'), (Placed::AfterHole(1), "14b 15d ".into()));
    }

    #[test]
    fn history_is_held_but_not_shown() {
        let mut show = Show::new(5);
        assert_eq!(play(&mut show, 3, true, 'a'), (Placed::Hidden, String::new()));
        assert_eq!(play(&mut show, 4, false, 'b'), (Placed::Hidden, String::new()));
        assert_eq!(play(&mut show, 6, false, 'c'), (Placed::AfterHole(1), "5b 6c ".into()));
    }

    #[test]
    fn a_fill_shows_held_then_slate_and_late_pictures_are_hidden() {
        let mut show = Show::new(0);
        let mut out = String::new();
        show.fill(1, false, || '#', &mut |n, p, _| out += &format!("{n}{p} "));
        assert_eq!(play(&mut show, 1, false, 'a').1, "1a ");
        show.fill(3, false, || '#', &mut |n, p, _| out += &format!("{n}{p} "));
        show.fill(4, true, || '#', &mut |n, p, _| out += &format!("{n}{p} "));
        show.fill(2, true, || '#', &mut |n, p, _| out += &format!("{n}{p} "));
        assert_eq!(out, "0# 2a 3# ");
        assert_eq!(play(&mut show, 3, false, 'b'), (Placed::Hidden, String::new()));
        assert_eq!(play(&mut show, 5, false, 'c'), (Placed::AfterHole(1), "4b 5c ".into()));
    }

    #[test]
    fn a_jump_shows_nothing_and_holds_the_picture() {
        let mut show = Show::new(0);
        assert_eq!(play(&mut show, 0, false, 'a').1, "0a ");
        show.jump(50);
        assert_eq!(play(&mut show, 20, false, 'b'), (Placed::Hidden, String::new()));
        assert_eq!(play(&mut show, 51, false, 'c'), (Placed::AfterHole(1), "50b 51c ".into()));
    }

    #[test]
    fn every_frame_from_the_start_is_shown_exactly_once_whatever_comes() {
        let mut seed = 7u64;
        let mut random = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        for _ in 0..200 {
            let (mut show, mut seen) = (Show::new(100), Vec::new());
            let mut at = 90i64;
            for _ in 0..200 {
                at += random(4).cast_signed() - 1;
                match random(8) {
                    0 => show.fill(at, random(2) == 0, || 'x', &mut |n, _, _| seen.push(n)),
                    _ => {
                        show.picture(at, random(10) == 0, 'p', &mut |n, _, _| seen.push(n));
                    }
                }
            }
            assert!(seen.iter().copied().eq(100..show.next()));
        }
    }
}
