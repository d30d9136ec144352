//! Packets that did not come, as ranges in their order, and when each was last asked for.

use std::collections::VecDeque;

use super::seq::Seq;
use crate::time::Mono;

/// Neighbours that are missing since the same moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Loss {
    pub(super) first: Seq,
    pub(super) last: Seq,
    /// When the gap was seen.
    pub(super) since: Mono,
    /// When the sender was last asked for it, and how often it was.
    pub(super) asked: Mono,
    pub(super) questions: u32,
    /// It is not to be asked for yet: a packet filter may bring it back.
    pub(super) held: bool,
}

/// Ranges do not touch each other's packets and lie in order.
#[derive(Debug, Default)]
pub(super) struct Losses(VecDeque<Loss>);

impl Losses {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn first(&self) -> Option<&Loss> {
        self.0.front()
    }

    pub(super) fn iter_mut(&mut self) -> impl DoubleEndedIterator<Item = &mut Loss> {
        self.0.iter_mut()
    }

    /// A gap behind all others.
    pub(super) fn push(&mut self, now: Mono, first: Seq, last: Seq, held: bool) {
        debug_assert!(self.0.back().is_none_or(|loss| first.since(loss.last) > 0), "gaps come in order");
        self.0.push_back(Loss { first, last, since: now, asked: now, questions: 0, held });
    }

    /// What of `first` to `last` is held may be asked for. Whether there was any.
    pub(super) fn release(&mut self, now: Mono, first: Seq, last: Seq) -> bool {
        let (mut at, mut any) = (self.0.partition_point(|loss| loss.last.since(first) < 0), false);
        while let Some(whole) = self.0.get(at).copied().filter(|loss| loss.first.since(last) <= 0) {
            if whole.held {
                any = true;
                let from = if first.since(whole.first) > 0 { first } else { whole.first };
                let to = if last.since(whole.last) < 0 { last } else { whole.last };
                self.0[at] = Loss { first: from, last: to, since: now, held: false, ..whole };
                if to != whole.last {
                    self.0.insert(at + 1, Loss { first: to.plus(1), ..whole });
                }
                if from != whole.first {
                    self.0.insert(at, Loss { last: from.minus(1), ..whole });
                    at += 1;
                }
            }
            at += 1;
        }
        any
    }

    /// Nothing before `seq` matters any more.
    pub(super) fn forget_before(&mut self, seq: Seq) {
        while let Some(loss) = self.0.front_mut().filter(|loss| loss.first.since(seq) < 0) {
            if loss.last.since(seq) >= 0 {
                loss.first = seq;
                return;
            }
            self.0.pop_front();
        }
    }

    /// Nothing from `first` to `last` is missing: it came, or it never will.
    pub(super) fn forget(&mut self, first: Seq, last: Seq) {
        let mut at = self.0.partition_point(|loss| loss.last.since(first) < 0);
        while let Some(loss) = self.0.get_mut(at).filter(|loss| loss.first.since(last) <= 0) {
            let whole = *loss;
            let (before, behind) = (whole.first.since(first) < 0, whole.last.since(last) > 0);
            match (before, behind) {
                (false, false) => {
                    self.0.remove(at);
                    continue;
                }
                (true, false) => loss.last = first.minus(1),
                (false, true) => loss.first = last.plus(1),
                (true, true) => {
                    loss.last = first.minus(1);
                    self.0.insert(at + 1, Loss { first: last.plus(1), ..whole });
                }
            }
            at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seq(number: u32) -> Seq {
        Seq::new(number.wrapping_add(0x7fff_fff0))
    }

    /// All packets that are missing, counted from the base of `seq`.
    fn missing(losses: &mut Losses) -> Vec<i32> {
        let ranges: Vec<Loss> = losses.iter_mut().map(|loss| *loss).collect();
        assert!(ranges.windows(2).all(|w| w[1].first.since(w[0].last) > 0), "{ranges:?}");
        ranges.iter().flat_map(|l| l.first.since(seq(0))..=l.last.since(seq(0))).collect()
    }

    #[test]
    fn ranges_shrink_split_and_vanish_over_the_wrap() {
        let mut losses = Losses::default();
        losses.push(Mono(1), seq(10), seq(20), false);
        losses.push(Mono(2), seq(30), seq(30), false);
        let mut found = |n: u32| {
            losses.forget(seq(n), seq(n));
            missing(&mut losses)
        };
        let (low, high) = ([11, 12, 13, 14], [16, 17, 18, 19]);
        assert_eq!(found(15), [&[10], &low[..], &high, &[20, 30]].concat());
        for neither in [15, 9, 25] {
            assert_eq!(found(neither), [&[10], &low[..], &high, &[20, 30]].concat());
        }
        assert_eq!(found(10), [&low[..], &high, &[20, 30]].concat());
        assert_eq!(found(20), [&low[..], &high, &[30]].concat());
        assert_eq!(found(30), [low, high].concat());
        let since: Vec<Mono> = losses.iter_mut().map(|loss| loss.since).collect();
        assert_eq!(since, [Mono(1), Mono(1)], "both halves are missing since then");
        losses.forget_before(seq(13));
        losses.forget(seq(17), seq(18));
        assert_eq!(missing(&mut losses), [13, 14, 16, 19]);
        losses.forget(seq(14), seq(40));
        assert_eq!((missing(&mut losses), losses.first().map(|loss| loss.first)), (vec![13], Some(seq(13))));
        losses.forget_before(seq(14));
        assert!(losses.is_empty());
    }

    #[test]
    fn any_order_of_events_agrees_with_a_plain_map() {
        let mut state = 1u64;
        let mut random = |below: u32| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 33) % u64::from(below)) as u32
        };
        for _ in 0..200 {
            // Of each missing packet, whether it is held.
            let (mut losses, mut map, mut end) = (Losses::default(), std::collections::BTreeMap::new(), 0);
            for _ in 0..60 {
                let (first, length) = (random(end + 2), random(8));
                let range = first as i32..=(first + length) as i32;
                match random(5) {
                    0 => {
                        let (from, held) = (end + 1 + random(3), random(2) == 0);
                        losses.push(Mono(0), seq(from), seq(from + length), held);
                        map.extend((from..=from + length).map(|n| (n as i32, held)));
                        end = from + length;
                    }
                    1 => {
                        losses.forget(seq(first), seq(first));
                        map.remove(&(first as i32));
                    }
                    2 => {
                        losses.forget(seq(first), seq(first + length));
                        map.retain(|n, _| !range.contains(n));
                    }
                    3 => {
                        let any = map.range(range.clone()).any(|(_, held)| *held);
                        assert_eq!(losses.release(Mono(1), seq(first), seq(first + length)), any);
                        map.range_mut(range).for_each(|(_, held)| *held = false);
                    }
                    _ => {
                        losses.forget_before(seq(first / 4));
                        map.retain(|n, _| *n >= (first / 4) as i32);
                    }
                }
                assert!(missing(&mut losses).iter().eq(map.keys()));
                let held = losses.iter_mut().flat_map(|l| vec![l.held; l.last.since(l.first) as usize + 1]);
                assert!(held.eq(map.values().copied()));
            }
        }
    }
}
