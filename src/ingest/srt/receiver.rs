//! One direction of media coming in: packets into their order, questions for those that are missing, and each handed
//! over when its time has come [SRT 4.4, 4.5, 4.8]. No socket and no clock.
//!
//! What is missing a moment after the next packet's time is given up: the stream goes on.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use super::filter::Questions;
use super::losses::Losses;
use super::packet::{Ack, Data, Facts};
use super::playout::Playout;
use super::rtt::Rtt;
use super::seq::Seq;
use crate::time::Mono;

/// Between full acknowledgements [SRT 4.8.1].
const ACK_EVERY: Duration = Duration::from_millis(10);
/// Acknowledgements whose confirmation is waited for.
const ACKS_MAX: usize = 64;
/// A gap may be packets out of order for this long, if such were seen.
const REORDER_WAIT: Duration = Duration::from_millis(10);
/// Packets in order after which a little less disorder is expected.
const CALM: u32 = 1_000;
/// The most packets by which a late one may have been overtaken and still move the tolerance.
const TOLERANCE_MAX: u32 = 64;
/// What was asked for is waited for so much longer than the latency: datagrams lie in the socket for some milliseconds, a
/// question is that late and its answer again, and a hole is worse than a late packet.
const HESITATION: Duration = Duration::from_millis(10);
/// Before an answer would come just in time, were the path a little slower than usual: a question that late may be repeated.
const LAST_CHANCE: Duration = Duration::from_millis(5);
/// A repetition is asked for no more often than this, whatever the round trip.
const ASK_AGAIN_MIN: Duration = Duration::from_millis(10);

/// Counts since the connection began; libsrt's names are in `stats`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) received: u64,
    pub(super) bytes: u64,
    pub(super) retransmitted: u64,
    pub(super) lost: u64,
    pub(super) dropped: u64,
    pub(super) duplicates: u64,
    pub(super) belated: u64,
    /// For no slot of the buffer: too far ahead.
    pub(super) beyond: u64,
    pub(super) naks: u64,
    pub(super) acks: u64,
}

#[derive(Debug)]
enum Slot {
    Missing,
    /// Its sender will not send it again.
    GivenUp,
    Full {
        payload: Bytes,
        time: i64,
    },
}

impl Slot {
    /// Of the packet that is here.
    fn time(&self) -> Option<i64> {
        match self {
            Slot::Full { time, .. } => Some(*time),
            Slot::Missing | Slot::GivenUp => None,
        }
    }
}

#[derive(Debug)]
pub(super) struct Receiver {
    /// Slots from `next` on.
    ring: VecDeque<Slot>,
    next: Seq,
    capacity: u32,
    /// Where in the ring the first full slot is.
    first_full: Option<usize>,
    losses: Losses,
    /// What a packet filter wants of us; without one, `Always`.
    pub(super) when: Questions,
    pub(super) playout: Playout,
    pub(super) rtt: Rtt,
    acks: Acks,
    /// How many packets a late one may be overtaken by before it counts as lost.
    tolerance: u32,
    in_order: u32,
    ask_at: Option<Mono>,
    rate: Rate,
    pub(super) counts: Counts,
}

impl Receiver {
    /// `first`: the number of the sender's first packet; `capacity`: packets that are held at most.
    pub(super) fn new(first: Seq, capacity: u32, playout: Playout) -> Receiver {
        Receiver {
            ring: VecDeque::new(),
            next: first,
            capacity,
            first_full: None,
            losses: Losses::default(),
            when: Questions::default(),
            playout,
            rtt: Rtt::default(),
            acks: Acks::new(first),
            tolerance: 0,
            in_order: 0,
            ask_at: None,
            rate: Rate::default(),
            counts: Counts::default(),
        }
    }

    /// A packet came.
    pub(super) fn packet(&mut self, now: Mono, data: &Data, payload: Bytes) {
        self.counts.retransmitted += u64::from(data.retransmitted);
        self.arrived(now, payload.len());
        self.take(now, data, payload);
    }

    /// Counts what came over the link, if only for the packet filter.
    pub(super) fn arrived(&mut self, now: Mono, bytes: usize) {
        self.counts.received += 1;
        self.counts.bytes += bytes as u64;
        self.rate.count(now, bytes);
    }

    /// A packet that came, or was made again.
    pub(super) fn take(&mut self, now: Mono, data: &Data, payload: Bytes) {
        let Some(offset) = self.offset(data) else { return };
        let time = self.playout.time(now, data.timestamp, !data.retransmitted);
        let slot = Slot::Full { payload, time };
        if offset < self.ring.len() {
            match &mut self.ring[offset] {
                Slot::Full { .. } => {
                    self.counts.duplicates += 1;
                    return;
                }
                // The sender gave it up, and it came all the same.
                place @ Slot::GivenUp => *place = slot,
                place @ Slot::Missing => {
                    *place = slot;
                    self.found(data, offset);
                }
            }
        } else {
            self.append(now, data.seq, offset, slot);
        }
        self.first_full = Some(self.first_full.map_or(offset, |first| first.min(offset)));
    }

    /// There is no room for so late a number.
    pub(super) fn is_beyond(&self, seq: Seq) -> bool {
        self.first_full.is_some() && seq.after(self.next).is_some_and(|offset| offset >= self.capacity)
    }

    /// Where a packet belongs; `None`: nowhere any more, or not yet.
    fn offset(&mut self, data: &Data) -> Option<usize> {
        let Some(offset) = data.seq.after(self.next) else {
            self.counts.belated += 1;
            return None;
        };
        if offset < self.capacity {
            return Some(offset as usize);
        }
        self.counts.beyond += 1;
        if self.first_full.is_some() {
            return None;
        }
        // Nothing waits: the sender went on while we heard nothing of it.
        let unseen = u64::from(offset) - self.ring.len() as u64;
        self.counts.lost += unseen;
        self.counts.dropped += unseen + self.ring.len() as u64;
        self.ring.clear();
        self.losses = Losses::default();
        self.ask_at = None;
        self.next = data.seq;
        Some(0)
    }

    fn append(&mut self, now: Mono, seq: Seq, offset: usize, slot: Slot) {
        let gap = (offset - self.ring.len()) as u32;
        if gap > 0 {
            self.counts.lost += u64::from(gap);
            self.ring.resize_with(offset, || Slot::Missing);
            // What is never asked for is acknowledged like the rest: nobody waits for it.
            if self.when != Questions::Never {
                self.losses.push(now, seq.minus(gap), seq.minus(1), self.when == Questions::Hopeless);
                self.ask_by(if self.tolerance == 0 { now } else { now + REORDER_WAIT });
            }
        } else {
            self.in_order += 1;
            if self.in_order >= CALM {
                self.in_order = 0;
                self.tolerance = self.tolerance.saturating_sub(1);
            }
        }
        self.ring.push_back(slot);
    }

    /// Looks at what is missing then, if not before.
    fn ask_by(&mut self, at: Mono) {
        self.ask_at = Some(self.ask_at.map_or(at, |before| before.min(at)));
    }

    /// The packet filter will not bring back what is missing from `first` to `last`.
    pub(super) fn hopeless(&mut self, now: Mono, first: Seq, last: Seq) {
        if self.losses.release(now, first, last) {
            self.ask_by(now);
        }
    }

    /// A missing packet came.
    fn found(&mut self, data: &Data, offset: usize) {
        self.losses.forget(data.seq, data.seq);
        if !data.retransmitted {
            // The original: it was overtaken, not lost.
            self.counts.lost = self.counts.lost.saturating_sub(1);
            self.in_order = 0;
            let overtaken = (self.ring.len() - offset - 1) as u32;
            if overtaken <= TOLERANCE_MAX {
                self.tolerance = self.tolerance.max(overtaken);
            }
        }
        if self.losses.is_empty() {
            self.ask_at = None;
        }
    }

    /// The sender gave up everything from `first` to `last`.
    pub(super) fn given_up(&mut self, first: Seq, last: Seq) {
        let Some(end) = last.after(self.next) else { return };
        let end = end as usize + 1;
        if end > self.capacity as usize {
            return;
        }
        let start = first.after(self.next).unwrap_or(0) as usize;
        // What lies between the newest packet and these may still come: it is missing like any other.
        if end > self.ring.len() {
            if start > self.ring.len() {
                return;
            }
            self.ring.resize_with(end, || Slot::GivenUp);
        }
        for slot in self.ring.range_mut(start.min(end)..end) {
            if matches!(slot, Slot::Missing) {
                *slot = Slot::GivenUp;
            }
        }
        self.losses.forget(first, last);
    }

    /// The next payload whose time has come.
    pub(super) fn poll(&mut self, now: Mono) -> Option<Bytes> {
        if self.deadline()? > now {
            return None;
        }
        let full = self.first_full?;
        self.ring.drain(..full);
        self.counts.dropped += full as u64;
        let Some(Slot::Full { payload, .. }) = self.ring.pop_front() else { return None };
        self.next = self.next.plus(full as u32 + 1);
        self.losses.forget_before(self.next);
        self.first_full = self.ring.iter().position(|slot| matches!(slot, Slot::Full { .. }));
        Some(payload)
    }

    /// When the next payload is handed over.
    pub(super) fn deadline(&self) -> Option<Mono> {
        let due = self.playout.due(self.ring.get(self.first_full?)?.time()?);
        let head = self.head()?;
        let lacks = self.losses.first().is_some_and(|loss| loss.questions > 0 && head.since(loss.last) > 0);
        Some(if lacks { due + HESITATION } else { due })
    }

    /// The next payload's number.
    pub(super) fn head(&self) -> Option<Seq> {
        self.first_full.map(|at| self.next.plus(at as u32))
    }

    /// The packet `seq` is about to come after a silence, and other connections of the same sender have everything before
    /// `acknowledged`: that is not missing here, and the sender's clock is where they saw it.
    pub(super) fn resume(&mut self, seq: Seq, acknowledged: Seq, playout: &Playout) {
        let start = if seq.since(acknowledged) < 0 { seq } else { acknowledged };
        if self.ring.is_empty() && start.since(self.next) > 0 {
            self.next = start;
            self.playout.resume(playout);
        }
    }

    /// Before this one everything was acknowledged.
    pub(super) fn promised(&self) -> Seq {
        self.acks.next
    }

    /// When `ack` or `questions` may have something.
    pub(super) fn timer(&self) -> Option<Mono> {
        let news = self.acknowledged() != self.acks.next;
        let ack = if news { Some(self.acks.due) } else { self.acks.repeat_at(self.rtt.patience()) };
        ack.into_iter().chain(self.ask_at).min()
    }

    /// Everything before it is here, or was given up.
    fn acknowledged(&self) -> Seq {
        self.losses.first().map_or_else(|| self.next.plus(self.ring.len() as u32), |loss| loss.first)
    }

    /// A full acknowledgement, if one is due.
    pub(super) fn ack(&mut self, now: Mono) -> Option<Ack> {
        if now < self.acks.due {
            return None;
        }
        let next = self.acknowledged();
        if next == self.acks.next && self.acks.repeat_at(self.rtt.patience()).is_none_or(|at| at > now) {
            return None;
        }
        self.counts.acks += 1;
        let (packets, bytes) = self.rate.per_second();
        let facts = Facts {
            rtt_us: micros(self.rtt.smoothed()),
            rtt_variance_us: micros(self.rtt.variance()),
            // A sender stops at 2 and less.
            room: self.capacity.saturating_sub(self.ring.len() as u32).max(2),
            packets_per_second: packets,
            bytes_per_second: bytes,
        };
        Some(Ack { number: self.acks.send(now, next), next, facts: Some(facts) })
    }

    /// The sender has our acknowledgement `number`.
    pub(super) fn confirmed(&mut self, now: Mono, number: u32) {
        if let Some(sent) = self.acks.confirmed(number) {
            self.rtt.sample(now - sent);
            // How long to wait for an answer is known better.
            self.ask_at = self.ask_at.map(|at| at.min(now));
        }
    }

    /// Ranges to ask for now, into `ranges`. A gap is asked about at once, again after half a round trip, as a question
    /// may be lost (a sender that has just answered knows better than to answer twice), and again when the answer should
    /// have come; then just before it would be too late, and a last time when a round trip is left, as a sender may not
    /// answer twice within one. What could not come in time is not asked for. What a packet filter may bring back is asked
    /// for when it would be too late otherwise.
    pub(super) fn questions(&mut self, now: Mono, ranges: &mut Vec<(Seq, Seq)>) {
        if self.ask_at.is_none_or(|at| at > now) {
            return;
        }
        let wait = if self.tolerance == 0 { Duration::ZERO } else { REORDER_WAIT };
        let (rtt, variance) = self.rtt.measured().unwrap_or_default();
        let half = (self.rtt.smoothed() / 2).max(ASK_AGAIN_MIN);
        let rest = self.rtt.patience().saturating_sub(half).max(ASK_AGAIN_MIN);
        let newest = self.next.plus(self.ring.len() as u32);
        let (mut next, mut due, before) = (None, Mono(u64::MAX), ranges.len());
        for loss in self.losses.iter_mut().rev() {
            let behind = loss.last.plus(1).after(self.next).and_then(|at| self.ring.get(at as usize));
            due = match behind {
                Some(Slot::Full { time, .. }) => self.playout.due(*time),
                // Another loss, which was just looked at.
                Some(Slot::Missing) => due,
                _ => Mono(u64::MAX),
            };
            let limit = due + HESITATION;
            let (last_chance, too_late) = (limit.back(rtt + variance * 2 + LAST_CHANCE), limit.back(rtt + variance));
            let again = |asked: Mono, questions: u32| {
                let repeats = questions % 2 == 1;
                let at = asked + if repeats { half } else { rest };
                match asked {
                    _ if repeats && asked + LAST_CHANCE < last_chance => at.min(last_chance),
                    _ if asked + LAST_CHANCE / 2 <= too_late => at.min(too_late),
                    _ => at,
                }
            };
            let at = match loss.questions {
                0 if loss.held => last_chance,
                0 if newest.since(loss.last) > self.tolerance.cast_signed() + 1 => now,
                0 => loss.since + wait,
                questions => again(loss.asked, questions),
            };
            let mut at = at;
            if at <= now {
                (loss.asked, loss.questions) = (now, loss.questions + 1);
                if now + rtt.mul_f64(0.9) > limit {
                    continue;
                }
                ranges.push((loss.first, loss.last));
                at = again(now, loss.questions);
            }
            next = Some(next.map_or(at, |next: Mono| next.min(at)));
        }
        ranges[before..].reverse();
        self.counts.naks += u64::from(!ranges.is_empty());
        self.ask_at = next;
    }

    /// Packets that wait.
    pub(super) fn waiting(&self) -> u32 {
        self.ring.len() as u32
    }

    /// Packets and bytes of the last whole second.
    pub(super) fn per_second(&self) -> (u32, u32) {
        self.rate.per_second()
    }
}

/// Acknowledgements on their way.
#[derive(Debug)]
struct Acks {
    /// What the last one said.
    next: Seq,
    number: u32,
    due: Mono,
    sent: VecDeque<(u32, Mono)>,
    /// The newest one was confirmed.
    confirmed: bool,
}

impl Acks {
    fn new(next: Seq) -> Acks {
        Acks { next, number: 0, due: Mono(0), sent: VecDeque::with_capacity(ACKS_MAX), confirmed: true }
    }

    /// When the newest one is said again, as nobody has confirmed it.
    fn repeat_at(&self, patience: Duration) -> Option<Mono> {
        let (_, sent) = self.sent.back().filter(|_| !self.confirmed)?;
        Some(self.due.max(*sent + patience))
    }

    fn send(&mut self, now: Mono, next: Seq) -> u32 {
        // 0 is what light ones are called.
        self.number = self.number.checked_add(1).unwrap_or(1);
        if self.sent.len() == ACKS_MAX {
            self.sent.pop_front();
        }
        self.sent.push_back((self.number, now));
        self.next = next;
        self.confirmed = false;
        self.due = now + ACK_EVERY;
        self.number
    }

    /// When it was sent; `None`: it is not one of those that wait.
    fn confirmed(&mut self, number: u32) -> Option<Mono> {
        let at = self.sent.iter().position(|(sent, _)| *sent == number)?;
        let (_, sent) = self.sent.drain(..=at).next_back()?;
        self.confirmed |= number == self.number;
        Some(sent)
    }
}

/// Packets and bytes, second by second.
#[derive(Clone, Copy, Debug, Default)]
struct Rate {
    since: Mono,
    packets: u32,
    bytes: u32,
    last: (u32, u32),
}

impl Rate {
    fn count(&mut self, now: Mono, bytes: usize) {
        let span = now - self.since;
        if span >= Duration::from_secs(1) {
            // A second without a packet has no rate.
            self.last = if span < Duration::from_secs(2) { (self.packets, self.bytes) } else { (0, 0) };
            (self.since, self.packets, self.bytes) = (now, 0, 0);
        }
        self.packets += 1;
        self.bytes = self.bytes.saturating_add(bytes as u32);
    }

    fn per_second(&self) -> (u32, u32) {
        self.last
    }
}

fn micros(span: Duration) -> u32 {
    u32::try_from(span.as_micros()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATENCY: Duration = Duration::from_millis(120);
    const START: Mono = Mono(5_000_000_000);

    fn first() -> Seq {
        Seq::new(0x7fff_fffa)
    }

    fn receiver() -> Receiver {
        Receiver::new(first(), 1_000, Playout::new(START, 0, LATENCY))
    }

    fn at(ms: u64) -> Mono {
        START + Duration::from_millis(ms)
    }

    /// Packet `n` is sent at `n` milliseconds.
    fn packet(n: u32) -> Data {
        Data { seq: first().plus(n), message: n + 1, timestamp: n * 1_000, ..Data::default() }
    }

    fn body(n: u32) -> Bytes {
        Bytes::copy_from_slice(&n.to_be_bytes())
    }

    fn take(receiver: &mut Receiver, now: Mono) -> Vec<u32> {
        std::iter::from_fn(|| receiver.poll(now))
            .map(|payload| u32::from_be_bytes(payload[..].try_into().unwrap()))
            .collect()
    }

    fn asked(receiver: &mut Receiver, now: Mono) -> Vec<(u32, u32)> {
        let mut ranges = Vec::new();
        receiver.questions(now, &mut ranges);
        ranges.iter().map(|(a, b)| (a.after(first()).unwrap(), b.after(first()).unwrap())).collect()
    }

    #[test]
    fn packets_come_out_in_order_when_their_time_has_come() {
        let mut r = receiver();
        for n in [0, 1, 3, 2, 5, 4, 7, 8, 6, 9] {
            r.packet(at(10), &packet(n), body(n));
        }
        assert!(take(&mut r, at(119)).is_empty());
        assert_eq!(take(&mut r, at(124)), [0, 1, 2, 3, 4]);
        assert_eq!(r.deadline(), Some(at(125)));
        assert_eq!(take(&mut r, at(500)), [5, 6, 7, 8, 9]);
        assert_eq!((r.counts.dropped, r.counts.lost, r.waiting()), (0, 0, 0), "out of order is not lost");
    }

    #[test]
    fn what_is_missing_is_asked_for_at_once_again_after_a_round_trip_and_given_up_at_its_time() {
        let mut r = receiver();
        // 50 ms of round trip, without variance.
        for _ in 0..50 {
            r.rtt.sample(Duration::from_millis(50));
        }
        (0..20).filter(|n| !(5..8).contains(n)).for_each(|n| r.packet(at(20), &packet(n), body(n)));
        assert_eq!(asked(&mut r, at(20)), [(5, 7)]);
        assert_eq!(asked(&mut r, at(20)), []);
        r.ack(at(20)).unwrap();
        let number = r.acks.number;
        r.confirmed(at(70), number);
        assert_eq!(asked(&mut r, at(44)), []);
        assert_eq!(asked(&mut r, at(45)), [(5, 7)], "the question may be lost");
        assert_eq!(asked(&mut r, at(65)), [], "the answer may be on its way");
        r.packet(at(66), &Data { retransmitted: true, ..packet(6) }, body(6));
        assert_eq!(asked(&mut r, at(71)), [(5, 5), (7, 7)]);
        let later: Vec<_> =
            (72..100).flat_map(|ms| asked(&mut r, at(ms)).into_iter().map(move |of| (ms, of))).collect();
        // A little more than a round trip is left, then just one; behind that no answer would come in time.
        assert_eq!(later, [(81, (5, 5)), (83, (7, 7)), (86, (5, 5)), (88, (7, 7))]);
        assert_eq!(take(&mut r, at(135)), [0, 1, 2, 3, 4], "the answer may be late");
        assert_eq!(take(&mut r, at(136)), [6], "10 ms after its time");
        r.packet(at(137), &Data { retransmitted: true, ..packet(5) }, body(5));
        assert_eq!((r.counts.belated, take(&mut r, at(200))), (1, (8..20).collect::<Vec<_>>()));
        assert_eq!((r.counts.lost, r.counts.dropped, r.counts.retransmitted), (3, 2, 2));
        r.packet(at(201), &Data { retransmitted: true, ..packet(7) }, body(7));
        assert_eq!((r.counts.belated, take(&mut r, at(999))), (2, vec![]));
        assert!(r.losses.is_empty() && r.timer().is_none_or(|due| due > at(20)));
    }

    #[test]
    fn acknowledgements_name_the_first_hole_and_are_repeated_until_they_are_confirmed() {
        let mut r = receiver();
        let next = |r: &mut Receiver, ms| r.ack(at(ms)).map(|ack| ack.next.after(first()).unwrap());
        [0, 1, 2, 4].iter().for_each(|n| r.packet(at(1), &packet(*n), body(*n)));
        assert_eq!((next(&mut r, 1), next(&mut r, 5)), (Some(3), None));
        r.packet(at(6), &packet(3), body(3));
        assert_eq!((next(&mut r, 6), next(&mut r, 11)), (None, Some(5)));
        assert_eq!(r.timer(), Some(at(311)), "nothing to do before");
        assert_eq!(next(&mut r, 200), None, "it may be on its way");
        assert_eq!(next(&mut r, 312), Some(5), "300 ms: what an unknown path may take");
        let number = r.acks.number;
        r.confirmed(at(313), number);
        assert_eq!(next(&mut r, 2_000), None);
        r.confirmed(at(400), 77);
        assert_eq!(r.rtt.measured().map(|(rtt, _)| rtt), Some(Duration::from_millis(1)));
    }

    #[test]
    fn a_sender_that_gave_up_is_not_waited_for() {
        let mut r = receiver();
        (0..10).filter(|n| !(3..7).contains(n)).for_each(|n| r.packet(at(10), &packet(n), body(n)));
        r.given_up(first().plus(2), first().plus(4));
        assert_eq!(asked(&mut r, at(10)), [(5, 6)]);
        assert_eq!((r.counts.dropped, r.counts.lost), (0, 4), "some may come all the same");
        // What it had not even sent, and what we are long past.
        r.given_up(first().plus(10), first().plus(12));
        r.given_up(first().minus(9), first().minus(1));
        r.given_up(first().plus(999_999), first().plus(1_000_000));
        assert_eq!(take(&mut r, at(400)), [0, 1, 2, 7, 8, 9]);
        r.packet(at(410), &packet(13), body(13));
        assert_eq!(asked(&mut r, at(410)), []);
        assert_eq!(take(&mut r, at(600)), [13]);
        assert_eq!(r.counts.dropped, 4 + 3, "what it never sent is missing too");
    }

    #[test]
    fn a_sender_far_ahead_is_followed_when_nothing_waits() {
        let mut r = receiver();
        (0..3).for_each(|n| r.packet(at(n.into()), &packet(n), body(n)));
        r.packet(at(5), &packet(50_000), body(50_000));
        assert_eq!((r.counts.beyond, r.waiting()), (1, 3));
        assert_eq!(take(&mut r, at(300)), [0, 1, 2]);
        r.packet(at(50_000), &packet(50_000), body(50_000));
        assert_eq!(take(&mut r, at(50_200)), [50_000]);
        assert_eq!(r.counts.dropped, 49_997);
        assert_eq!(r.ack(at(50_200)).unwrap().next, first().plus(50_001));
    }

    #[test]
    fn disorder_that_was_seen_is_waited_for_before_a_gap_is_asked_about() {
        let mut r = receiver();
        for n in [0, 2, 1, 3] {
            r.packet(at(1), &packet(n), body(n));
        }
        assert_eq!((r.tolerance, asked(&mut r, at(1))), (1, vec![]), "none is missing any more");
        r.packet(at(2), &packet(5), body(5));
        assert_eq!(asked(&mut r, at(2)), [], "overtaken by one, as before");
        r.packet(at(3), &packet(6), body(6));
        assert_eq!(asked(&mut r, at(12)), [(4, 4)], "by two, or 10 ms");
    }

    #[test]
    fn any_packets_leave_a_ring_that_its_losses_describe() {
        let mut state = 7u64;
        let mut random = |below: u32| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 33) % u64::from(below)) as u32
        };
        for _ in 0..300 {
            let (mut r, mut last) = (receiver(), None);
            for step in 0..400u32 {
                let now = at(u64::from(step));
                match random(10) {
                    0 => {
                        let from = random(600);
                        r.given_up(first().plus(from), first().plus(from + random(300)));
                    }
                    1 => {
                        let got = take(&mut r, now);
                        assert!(last.iter().chain(&got).is_sorted(), "in order: {last:?} {got:?}");
                        last = got.last().copied().or(last);
                    }
                    2 => asked(&mut r, now).iter().for_each(|(a, b)| assert!(a <= b)),
                    _ => {
                        let n = (step + random(12)).saturating_sub(random(12))
                            + if random(50) == 0 { random(3_000) } else { 0 };
                        let data = Data {
                            retransmitted: random(5) == 0,
                            timestamp: random(3) * 1_000_000 + n * 1_000,
                            ..packet(n)
                        };
                        r.packet(now, &data, body(n));
                    }
                }
                let missing: Vec<Seq> = r
                    .ring
                    .iter()
                    .enumerate()
                    .filter(|(_, s)| matches!(s, Slot::Missing))
                    .map(|(i, _)| r.next.plus(i as u32))
                    .collect();
                let told: Vec<Seq> = r
                    .losses
                    .iter_mut()
                    .flat_map(|l| (0..=l.last.since(l.first)).map(|i| l.first.plus(i as u32)).collect::<Vec<_>>())
                    .collect();
                assert_eq!(missing, told);
                assert!(
                    r.waiting() <= 1_000 && r.first_full == r.ring.iter().position(|s| matches!(s, Slot::Full { .. }))
                );
            }
        }
    }
}
