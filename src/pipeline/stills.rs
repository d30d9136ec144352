//! Pictures of channels whose source is passed through: one worker of all of them decodes a random access point now and
//! then. Nothing waits for it: while it is away, posters and tiles pause.
//!
//! A session has one order waiting at most, and the worker one at a time. A worker that dies over an order, or does not
//! answer it, is replaced; the session whose order that was is left alone for a while, so that one stream that harms a decoder
//! does not take the others' pictures away with it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::time::Duration;

use super::events;
use crate::media::channel::{ChannelName, SessionId};
use crate::media::picture::{Due, PictureRule};
use crate::media::track::VideoConfig;
use crate::pixels::client::Worker;
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
    program: PathBuf,
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
    pub(super) fn new(program: PathBuf) -> Stills {
        Stills {
            program,
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
                let mine = self.busy.take_if(|(owner, _)| self.known.get(&owner.session).is_none_or(|known| *known == of));
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
        match Worker::spawn(&self.program, now) {
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
