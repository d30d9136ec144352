//! From the thread that speaks QUIC to the shard: a bounded queue of events, and a descriptor that becomes readable.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::ingest::{Event, PublisherId};
use crate::sys::wake::Bell;

/// Media that waits for the shard, of all publishers and of one: two seconds of 200 and of 50 Mb/s. More is lost and
/// counted; nobody waits for the shard.
const BYTES_MAX: usize = 48 << 20;
const PUBLISHER_BYTES_MAX: usize = 12 << 20;
/// Refusals that wait for it.
const REFUSALS_MAX: usize = 1_024;

pub(super) struct Handover {
    bell: Bell,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    events: VecDeque<Event>,
    bytes: usize,
    refusals: usize,
    /// Those that have media in the queue, or lost some of it.
    waiting: BTreeMap<PublisherId, Waiting>,
}

#[derive(Default)]
struct Waiting {
    bytes: usize,
    /// An `Overflow` is on its way, or was the last that the shard heard.
    overflowing: bool,
}

impl Handover {
    /// # Errors
    /// The system has no descriptor left.
    pub(super) fn new() -> io::Result<Handover> {
        Ok(Handover { bell: Bell::new()?, queue: Mutex::default() })
    }

    /// Readable while events wait.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.bell.fd()
    }

    /// Something other than media.
    pub(super) fn push(&self, event: Event) {
        let mut queue = self.queue();
        match &event {
            Event::Refused { .. } if queue.refusals >= REFUSALS_MAX => return,
            Event::Refused { .. } => queue.refusals += 1,
            _ => {}
        }
        self.add(&mut queue, event);
    }

    /// False: there was no room.
    pub(super) fn push_media(&self, publisher: PublisherId, payload: Bytes) -> bool {
        let mut queue = self.queue();
        let full = queue.bytes + payload.len() > BYTES_MAX;
        let waiting = queue.waiting.entry(publisher).or_default();
        if full || waiting.bytes + payload.len() > PUBLISHER_BYTES_MAX {
            if !std::mem::replace(&mut waiting.overflowing, true) {
                self.add(&mut queue, Event::Overflow { publisher });
            }
            return false;
        }
        waiting.overflowing = false;
        waiting.bytes += payload.len();
        queue.bytes += payload.len();
        self.add(&mut queue, Event::Data { publisher, payload });
        true
    }

    /// Everything that waits.
    pub(super) fn take(&self) -> VecDeque<Event> {
        let mut queue = self.queue();
        if queue.events.is_empty() {
            return VecDeque::new();
        }
        // It rang once, with the first event, under the same lock.
        self.bell.hear();
        std::mem::take(&mut *queue).events
    }

    fn add(&self, queue: &mut Queue, event: Event) {
        if queue.events.is_empty() {
            self.bell.ring();
        }
        queue.events.push_back(event);
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    fn readable(handover: &Handover) -> bool {
        let fd = handover.fd();
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&now)).unwrap() == 1
    }

    #[test]
    fn one_publisher_fills_its_own_share_and_is_told_of_it_once() {
        let handover = Handover::new().unwrap();
        assert!(!readable(&handover) && handover.take().is_empty());
        let (loud, quiet) = (PublisherId(1), PublisherId(2));
        let megabyte = Bytes::from(vec![0; 1 << 20]);
        let taken = (0..20).filter(|_| handover.push_media(loud, megabyte.clone())).count();
        assert_eq!(taken, PUBLISHER_BYTES_MAX >> 20);
        assert!(handover.push_media(quiet, megabyte.clone()), "the other one has its room");
        assert!(readable(&handover));
        let events = handover.take();
        let overflows = events.iter().filter(|e| matches!(e, Event::Overflow { publisher } if *publisher == loud));
        assert_eq!((events.len(), overflows.count()), (taken + 2, 1));
        assert!(!readable(&handover));
        assert!(handover.push_media(loud, megabyte) && readable(&handover), "and again when there is room");
    }

    #[test]
    fn all_together_are_bounded_too() {
        let handover = Handover::new().unwrap();
        let megabyte = Bytes::from(vec![0; 1 << 20]);
        let taken = (0..200).filter(|n| handover.push_media(PublisherId(n % 20), megabyte.clone())).count();
        assert_eq!(taken, BYTES_MAX >> 20);
        assert_eq!(handover.take().len(), taken + 20, "each lost something");
    }
}
