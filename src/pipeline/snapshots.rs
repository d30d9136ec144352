//! Who waits for a picture of a channel as it is now. Many who ask at once get one picture.

use std::collections::VecDeque;
use std::fmt;

use bytes::Bytes;

use crate::media::limits::{SNAPSHOT_PATIENCE, SNAPSHOTS_MAX};
use crate::time::Mono;

/// What comes of a request for a snapshot. Nothing, where the reply is dropped: it did not come in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Snapshot {
    /// A JPEG.
    Taken(Bytes),
    /// There is nothing to see; the sentence says why.
    NotLive(String),
}

/// Takes the answer, at most once.
pub struct Reply(Box<dyn FnOnce(Snapshot) + Send>);

impl Reply {
    pub fn new(take: impl FnOnce(Snapshot) + Send + 'static) -> Reply {
        Reply(Box::new(take))
    }

    pub fn give(self, snapshot: Snapshot) {
        (self.0)(snapshot);
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reply")
    }
}

/// Those who wait for a session's next snapshot.
#[derive(Debug, Default)]
pub(super) struct Snapshots(VecDeque<(Mono, Reply)>);

impl Snapshots {
    /// One more. True: it is the only one, and the picture must be asked for.
    pub(super) fn wait(&mut self, now: Mono, reply: Reply) -> bool {
        self.expire(now);
        // Full: it is dropped, as if it had waited in vain.
        if self.0.len() < SNAPSHOTS_MAX {
            self.0.push_back((now + SNAPSHOT_PATIENCE, reply));
        }
        self.0.len() == 1
    }

    pub(super) fn is_wanted(&mut self, now: Mono) -> bool {
        self.expire(now);
        !self.0.is_empty()
    }

    /// Here it is.
    pub(super) fn give(&mut self, jpeg: &Bytes) {
        self.0.drain(..).for_each(|(_, reply)| reply.give(Snapshot::Taken(jpeg.clone())));
    }

    /// Nobody is kept waiting longer than he waits.
    pub(super) fn expire(&mut self, now: Mono) {
        while self.0.pop_front_if(|(until, _)| now >= *until).is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, TryRecvError, channel};
    use std::time::Duration;

    fn reply() -> (Reply, Receiver<Snapshot>) {
        let (sender, receiver) = channel();
        (Reply::new(move |snapshot| drop(sender.send(snapshot))), receiver)
    }

    #[test]
    fn all_who_wait_get_the_one_picture_and_whoever_waited_in_vain_is_let_go() {
        let (mut waiting, start) = (Snapshots::default(), Mono(1));
        let ((a, got_a), (b, got_b)) = (reply(), reply());
        assert!(waiting.wait(start, a) && !waiting.wait(start, b), "asked for once");
        waiting.give(&Bytes::from_static(b"jpeg"));
        let taken = Ok(Snapshot::Taken(Bytes::from_static(b"jpeg")));
        assert_eq!((got_a.try_recv(), got_b.try_recv()), (taken.clone(), taken));
        let (c, got_c) = reply();
        assert!(waiting.wait(start, c), "and anew after that");
        assert!(waiting.is_wanted((start + SNAPSHOT_PATIENCE).back(Duration::from_millis(1))));
        assert!(!waiting.is_wanted(start + SNAPSHOT_PATIENCE));
        assert_eq!(got_c.try_recv(), Err(TryRecvError::Disconnected));
    }

    #[test]
    fn no_more_wait_than_there_is_room_for() {
        let mut waiting = Snapshots::default();
        let all: Vec<_> = (0..SNAPSHOTS_MAX + 5)
            .map(|_| {
                let (reply, got) = reply();
                waiting.wait(Mono(0), reply);
                got
            })
            .collect();
        let gone = all.iter().filter(|got| got.try_recv() == Err(TryRecvError::Disconnected)).count();
        assert_eq!((waiting.0.len(), gone), (SNAPSHOTS_MAX, 5));
    }
}
