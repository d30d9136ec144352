//! Pictures of channels whose source is passed through: one worker of all of them decodes a random access point now and
//! then. Nothing waits for it: while it is away, posters and tiles pause.
//!
//! A session has one order waiting at most, and the worker one at a time. A worker that dies over an order, or does not
//! answer it, is replaced; the session whose order that was is left alone for a while, so that one stream that harms a decoder
//! does not take the others' pictures away with it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::fd::BorrowedFd;
use std::time::Duration;

use super::events;
use crate::media::channel::{ChannelName, SessionId};
use crate::media::picture::{Due, PictureRule};
use crate::media::track::VideoConfig;
use crate::pixels::client::Worker;
use crate::pixels::hall::{Hall, Home};
use crate::pixels::protocol::{FromWorker, Picture, Still, ToWorker};
use crate::time::Mono;

/// The one job of this worker.
const CH: u32 = 0;
/// An order is answered within this, a new worker's start included, or its worker hangs.
const PATIENCE: Duration = Duration::from_secs(3);
/// First wait before a lost worker is replaced; doubled up to `RETRY_MAX`, forgotten with the first answer.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// A session whose order cost a worker gives no more for so long.
const PENANCE: Duration = Duration::from_secs(60);

/// A picture that a session wants of one unit of its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    pub at: i64,
    pub due: Due,
    pub snap: bool,
    pub rule: PictureRule,
    pub source: VideoConfig,
    pub data: bytes::Bytes,
}

/// The session that an order is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    pub channel: ChannelName,
    pub session: SessionId,
}

/// The worker, and who waits for it.
pub(super) struct Stills {
    hall: Hall,
    worker: Option<Worker>,
    /// In turn, one of a session.
    waiting: VecDeque<(Owner, Order)>,
    /// Given to the worker, and when.
    busy: Option<(Owner, Mono)>,
    retry: Option<(Mono, Duration)>,
    /// Numbers of sessions within the worker.
    known: BTreeMap<SessionId, u32>,
    next: u32,
    penance: BTreeMap<SessionId, Mono>,
    made: VecDeque<(Owner, Vec<Picture>)>,
}

impl Stills {
    pub(super) fn new(hall: Hall) -> Stills {
        Stills {
            hall,
            worker: None,
            waiting: VecDeque::new(),
            busy: None,
            retry: None,
            known: BTreeMap::new(),
            next: 0,
            penance: BTreeMap::new(),
            made: VecDeque::new(),
        }
    }

    /// Takes an order. One of the same session that still waits gives way to it, but for a snapshot that was asked for.
    /// The number of posters and tiles that are left out for it.
    pub(super) fn order(&mut self, now: Mono, owner: Owner, order: Order) -> u64 {
        if self.penance.get(&owner.session).is_some_and(|until| now < *until) {
            return count(order.due);
        }
        let left_out = match self.waiting.iter_mut().find(|(other, _)| other.session == owner.session) {
            Some((_, before)) => {
                let left_out = count(before.due);
                *before = Order { snap: order.snap || before.snap, ..order };
                left_out
            }
            None => {
                self.waiting.push_back((owner, order));
                0
            }
        };
        self.advance(now);
        left_out
    }

    /// Moves messages, watches the clock.
    pub(super) fn run(&mut self, now: Mono) {
        if let Some(worker) = &mut self.worker {
            worker.run(now);
            while let Some(message) = self.worker.as_mut().and_then(Worker::poll) {
                self.take(now, message);
            }
        }
        self.watch(now);
        self.advance(now);
    }

    /// What came of an order.
    pub(super) fn poll(&mut self) -> Option<(Owner, Vec<Picture>)> {
        self.made.pop_front()
    }

    /// Only these sessions go on; without any the worker ends.
    pub(super) fn keep(&mut self, now: Mono, open: &BTreeSet<SessionId>) {
        self.penance.retain(|session, until| now < *until && open.contains(session));
        self.waiting.retain(|(owner, _)| open.contains(&owner.session));
        let gone: Vec<u32> = self.known.iter().filter(|(id, _)| !open.contains(id)).map(|(_, of)| *of).collect();
        self.known.retain(|session, _| open.contains(session));
        for of in gone {
            self.tell(&ToWorker::Forget { ch: CH, of });
        }
        if open.is_empty() && self.busy.is_none() {
            (self.worker, self.retry) = (None, None);
        }
    }

    pub(super) fn fd(&self) -> Option<(BorrowedFd<'_>, bool)> {
        self.worker.as_ref().map(|worker| (worker.fd(), worker.wants_write()))
    }

    fn take(&mut self, now: Mono, message: FromWorker) {
        match message {
            FromWorker::StillMade { of, pictures, .. } => {
                let mine =
                    self.busy.take_if(|(owner, _)| self.known.get(&owner.session).is_none_or(|known| *known == of));
                if let Some((owner, _)) = mine {
                    self.retry = None;
                    self.made.push_back((owner, pictures));
                }
            }
            FromWorker::Failed { what, .. } => self.lose(now, "failed", &what),
            _ => {}
        }
    }

    fn watch(&mut self, now: Mono) {
        let Some(worker) = &self.worker else { return };
        if let Some(end) = worker.end().map(str::to_owned) {
            self.lose(now, "died", &end);
        } else if self.busy.as_ref().is_some_and(|(_, since)| now - *since > PATIENCE) {
            let what = format!("worker {} made no picture within {PATIENCE:?}", worker.pid());
            self.lose(now, "stuck", &what);
        }
    }

    /// The next order to the worker, if it has none; without orders no worker is started.
    fn advance(&mut self, now: Mono) {
        if self.busy.is_some() || self.waiting.is_empty() {
            return;
        }
        if self.worker.is_none() && !self.start(now) {
            return;
        }
        let Some((owner, order)) = self.waiting.pop_front() else { return };
        let next = &mut self.next;
        let of = *self.known.entry(owner.session.clone()).or_insert_with(|| {
            *next = next.wrapping_add(1);
            *next
        });
        let Order { at, due, snap, rule, source, data } = order;
        let still = Box::new(Still { of, at, due, snap, rule, source, data });
        self.busy = Some((owner, now));
        self.tell(&ToWorker::Still { ch: CH, still });
    }

    fn start(&mut self, now: Mono) -> bool {
        if self.retry.is_some_and(|(at, _)| now < at) {
            return false;
        }
        match self.hall.worker(Home::Own, now) {
            Ok(worker) => {
                self.worker = Some(worker);
                self.tell(&ToWorker::Stills { ch: CH });
            }
            Err(what) => self.lose(now, "spawn", &what),
        }
        self.worker.is_some()
    }

    /// With one order under way the queue never fills; one that does shows as an order without an answer.
    fn tell(&mut self, message: &ToWorker) {
        if let Some(worker) = &mut self.worker {
            let _full = worker.send(message);
        }
    }

    fn lose(&mut self, now: Mono, why: &'static str, what: &str) {
        self.worker = None;
        let wait = self.retry.map_or(RETRY_MIN, |(_, wait)| (wait * 2).min(RETRY_MAX));
        self.retry = Some((now + wait, wait));
        // Its successor knows nobody, and no number is given twice.
        self.known.clear();
        if let Some((owner, _)) = self.busy.take() {
            self.waiting.retain(|(other, _)| other.session != owner.session);
            self.penance.insert(owner.session, now + PENANCE);
        }
        events::stills_lost(why, what, wait);
    }
}

fn count(due: Due) -> u64 {
    u64::from(due.poster) + u64::from(due.tile)
}

/// Which random access points of a source become pictures.
#[derive(Debug)]
pub(super) struct Picker {
    rule: PictureRule,
    before: Option<i64>,
    newest: Option<(i64, bytes::Bytes)>,
    /// Frame, what it is due for, and whether someone asked for it.
    wanted: Option<(i64, Due, bool)>,
}

impl Picker {
    pub(super) fn new(rule: PictureRule) -> Picker {
        Picker { rule, before: None, newest: None, wanted: None }
    }

    /// A random access point of the source, in order.
    pub(super) fn offer(&mut self, at: i64, data: &bytes::Bytes) {
        let due = self.rule.due(self.before.replace(at).unwrap_or(at - 1), at);
        self.newest = Some((at, data.clone()));
        if due != Due::default() {
            self.wanted = Some((at, due, false));
        }
    }

    /// Of the newest one. False: there is none yet.
    pub(super) fn snap(&mut self) -> bool {
        let Some((at, _)) = self.newest else { return false };
        self.wanted.get_or_insert((at, Due::default(), true)).2 = true;
        true
    }

    pub(super) fn poll(&mut self, source: &VideoConfig) -> Option<Order> {
        let (at, due, snap) = self.wanted.take()?;
        let (_, data) = self.newest.clone()?;
        Some(Order { at, due, snap, rule: self.rule, source: source.clone(), data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::track::{Codec, Colour};
    use crate::time::SystemClock;
    use bytes::Bytes;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    const POSTER: Due = Due { poster: true, tile: false };
    const BOTH: Due = Due { poster: true, tile: true };
    const RULE: PictureRule = PictureRule { poster: 125, tile: 250 };

    fn config() -> VideoConfig {
        VideoConfig {
            codec: Codec::H264,
            width: 64,
            height: 36,
            sar: (1, 1),
            rate: None,
            interlaced: false,
            colour: Colour::default(),
            profile: [100, 0, 40],
            bit_depth: 8,
            chroma_format: 1,
            reorder: None,
            sps: Bytes::new(),
            pps: Vec::new(),
        }
    }

    fn order(at: i64, due: Due, snap: bool) -> Order {
        Order { at, due, snap, rule: RULE, source: config(), data: Bytes::from_static(b"unit") }
    }

    fn owner(n: u128) -> Owner {
        Owner { channel: ChannelName::new("x").unwrap(), session: SessionId::new(ulid::Ulid(n)) }
    }

    /// A program that is no worker: `does` is a line of shell.
    fn program(folder: &Path, does: &str) -> Hall {
        let file = folder.join("worker");
        std::fs::write(&file, format!("#!/bin/sh\n{does}\n")).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o700)).unwrap();
        Hall::new(file)
    }

    /// Runs at one instant until the worker's end has been seen.
    fn until_lost(stills: &mut Stills, now: Mono) {
        let start = SystemClock::mono();
        while stills.worker.is_some() {
            assert!(SystemClock::mono() - start < Duration::from_secs(20), "the worker's end was not seen");
            stills.run(now);
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_worker_that_dies_is_replaced_ever_later_and_whoever_cost_it_stands_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut stills = Stills::new(program(folder.path(), "exit 1"));
        let mut now = Mono(1);
        let mut wait = RETRY_MIN;
        for n in 0..8 {
            assert_eq!(stills.order(now, owner(n), order(0, BOTH, false)), 0);
            assert!(stills.worker.is_some(), "it is started for an order");
            until_lost(&mut stills, now);
            assert_eq!(stills.order(now, owner(n), order(125, POSTER, false)), 1, "it stands back");
            assert_eq!(stills.order(now, owner(99), order(0, BOTH, false)), 0);
            let before = now;
            now = now + wait;
            stills.run(Mono(now.0 - 1));
            assert!(stills.worker.is_none(), "not before {wait:?} after {before:?}");
            stills.waiting.clear();
            wait = (wait * 2).min(RETRY_MAX);
        }
        assert_eq!(stills.order(now, owner(0), order(250, BOTH, false)), 0, "its minute is over");
    }

    #[test]
    fn a_worker_that_hangs_is_replaced_and_the_others_orders_wait_for_its_successor() {
        let folder = tempfile::tempdir().unwrap();
        let mut stills = Stills::new(program(folder.path(), "exec sleep 600"));
        let start = Mono(1);
        stills.order(start, owner(1), order(0, BOTH, false));
        assert_eq!(stills.order(start, owner(2), order(0, BOTH, false)), 0);
        // What waits gives way to what is newer, and whoever asked for a snapshot gets it of that.
        assert_eq!(stills.order(start, owner(2), order(125, POSTER, true)), 2);
        assert_eq!(stills.order(start, owner(2), order(250, BOTH, false)), 1);
        stills.run(start + PATIENCE);
        let first = stills.worker.as_ref().map(Worker::pid);
        assert!(first.is_some());
        stills.run(start + PATIENCE + Duration::from_millis(1));
        assert!(stills.worker.is_none() && stills.penance.contains_key(&owner(1).session));
        assert_eq!(stills.waiting, [(owner(2), order(250, BOTH, true))]);
        stills.run(start + PATIENCE + RETRY_MIN + Duration::from_millis(1));
        assert!(stills.worker.is_some() && stills.worker.as_ref().map(Worker::pid) != first);
        assert_eq!(stills.busy.as_ref().map(|(owner, _)| owner.clone()), Some(owner(2)));
        assert!(stills.poll().is_none());
        // Nobody is on air any more: what is under way may end, then the worker does.
        stills.keep(start, &BTreeSet::new());
        assert!(stills.worker.is_some());
        stills.busy = None;
        stills.keep(start, &BTreeSet::new());
        assert!(stills.worker.is_none() && stills.known.is_empty());
    }

    #[test]
    fn without_a_program_pictures_are_left_out_and_nothing_else_happens() {
        let mut stills = Stills::new(Hall::new("/no/such/rung-worker".into()));
        assert_eq!(stills.order(Mono(1), owner(1), order(0, BOTH, false)), 0);
        assert_eq!(stills.order(Mono(2), owner(1), order(125, POSTER, false)), 2);
        stills.run(Mono(3));
        assert!(stills.worker.is_none() && stills.waiting.len() == 1);
    }

    #[test]
    fn a_source_s_random_access_points_become_pictures_as_frames_do() {
        let mut picker = Picker::new(RULE);
        let unit = |n: i64| Bytes::from(n.to_string());
        assert!(!picker.snap(), "nothing was there yet");
        let mut got = Vec::new();
        for at in (0..600).step_by(50) {
            picker.offer(at, &unit(at));
            got.extend(picker.poll(&config()).map(|order| (order.at, order.due.tile, order.data == unit(at))));
        }
        assert_eq!(
            got,
            [(0, true, true), (150, false, true), (250, true, true), (400, false, true), (500, true, true)]
        );
        assert!(picker.snap());
        let snap = picker.poll(&config()).unwrap();
        assert_eq!((snap.at, snap.due, snap.snap, snap.data), (550, Due::default(), true, unit(550)));
        assert!(picker.poll(&config()).is_none());
    }
}
