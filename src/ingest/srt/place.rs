//! Ports side by side at one address, each driven by a thread of its own. The kernel hands a datagram to the port whose
//! place is in the number of the socket that it is for. Handshakes are for no socket yet: they come to the first port,
//! which passes on those of channels that run elsewhere.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::streamid;
use crate::media::channel::ChannelName;
use crate::sys::wake::Bell;

/// Bit of a socket's number from which on the place stands; below it is whether we called.
pub(super) const SHIFT: u32 = 1;
/// Handshakes that wait for a port; more are lost, as on any network.
const LETTERS_MAX: usize = 1_024;

/// One of several ports.
#[derive(Clone, Debug)]
pub(super) struct Place {
    number: usize,
    of: usize,
    /// Of all ports, which have one address: who calls it at the same time as we call, and our socket of that meeting. A peer
    /// does not name ours before it has heard of it, so that there is one meeting with it at a time.
    meetings: Arc<Mutex<HashMap<SocketAddr, u32>>>,
}

impl Place {
    pub(super) fn alone() -> Place {
        Place { number: 0, of: 1, meetings: Arc::default() }
    }

    pub(super) fn all(of: usize) -> impl Iterator<Item = Place> {
        let meetings = Arc::default();
        (0..of).map(move |number| Place { number, of, meetings: Arc::clone(&meetings) })
    }

    /// `socket`, with this place in it.
    pub(super) fn mark(&self, socket: u32) -> u32 {
        let number = u32::try_from(self.number).unwrap_or(0);
        socket & !(mask(self.of) << SHIFT) | number << SHIFT
    }

    /// The place that has the channel of `stream_id`, unless it is this one. Whatever names no channel is answered here.
    pub(super) fn elsewhere(&self, stream_id: &[u8]) -> Option<usize> {
        let wanted = streamid::parse(stream_id).ok()?;
        let home = ChannelName::new(&wanted.channel).ok()?.shard(self.of);
        (home != self.number).then_some(home)
    }

    /// The place of a socket, unless it is this one.
    pub(super) fn of_another(&self, socket: u32) -> Option<usize> {
        let home = (socket >> SHIFT & mask(self.of)) as usize;
        (home != self.number).then_some(home)
    }

    /// A meeting with `peer` begins; `false`: there is one already.
    pub(super) fn meet(&self, peer: SocketAddr, socket: u32) -> bool {
        let mut meetings = self.meetings();
        let free = !meetings.contains_key(&peer);
        if free {
            meetings.insert(peer, socket);
        }
        free
    }

    /// The socket of the meeting with `peer`, if there is one, on whichever port.
    pub(super) fn meeting(&self, peer: SocketAddr) -> Option<u32> {
        self.meetings().get(&peer).copied()
    }

    /// The meeting with `peer` is over, if this socket had one.
    pub(super) fn met(&self, peer: SocketAddr, socket: u32) {
        let mut meetings = self.meetings();
        if meetings.get(&peer) == Some(&socket) {
            meetings.remove(&peer);
        }
    }

    fn meetings(&self) -> MutexGuard<'_, HashMap<SocketAddr, u32>> {
        self.meetings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The bits that name one of so many places, beyond `SHIFT`.
pub(super) fn mask(of: usize) -> u32 {
    u32::try_from(of.next_power_of_two() - 1).unwrap_or(0)
}

/// A handshake that one port passes on to another.
#[derive(Debug)]
pub(super) struct Letter {
    pub(super) peer: SocketAddr,
    pub(super) timestamp: u32,
    pub(super) body: Vec<u8>,
    /// The peer has shown that the address is its own.
    pub(super) proven: bool,
}

/// Letters to each of the ports.
#[derive(Clone, Debug)]
pub(super) struct Mail {
    place: Place,
    boxes: Arc<[Mailbox]>,
}

#[derive(Debug)]
struct Mailbox {
    bell: Bell,
    letters: Mutex<VecDeque<Letter>>,
}

impl Mail {
    /// For each of so many ports.
    ///
    /// # Errors
    /// The system has no descriptor left.
    pub(super) fn among(of: usize) -> io::Result<Vec<Mail>> {
        let boxes = Place::all(of).map(|_| Ok(Mailbox { bell: Bell::new()?, letters: Mutex::default() }));
        let boxes: Arc<[Mailbox]> = boxes.collect::<io::Result<Vec<_>>>()?.into();
        Ok(Place::all(of).map(|place| Mail { place, boxes: Arc::clone(&boxes) }).collect())
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    pub(super) fn send(&self, to: usize, letter: Letter) {
        let Some(mailbox) = self.boxes.get(to) else { return };
        let mut letters = mailbox.letters.lock().unwrap_or_else(PoisonError::into_inner);
        if letters.len() < LETTERS_MAX {
            letters.push_back(letter);
            mailbox.bell.ring();
        }
    }

    /// What came for this port.
    pub(super) fn take(&self) -> VecDeque<Letter> {
        let Some(mailbox) = self.boxes.get(self.place.number).filter(|_| self.place.of > 1) else {
            return VecDeque::new();
        };
        let mut letters = mailbox.letters.lock().unwrap_or_else(PoisonError::into_inner);
        if !letters.is_empty() {
            mailbox.bell.hear();
        }
        std::mem::take(&mut *letters)
    }

    /// Readable while letters wait. `None`: nobody is there to send any.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.boxes.get(self.place.number).filter(|_| self.place.of > 1).map(|mailbox| mailbox.bell.fd())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_found_again_in_every_socket_of_it() {
        for of in [1, 2, 3, 8, 64] {
            for place in Place::all(of) {
                let marked = place.mark(0x3fff_ffff);
                assert_eq!((place.of_another(marked), marked & 1), (None, 1), "of {of}");
                let others = Place::all(of).filter(|other| other.of_another(marked) == Some(place.number));
                assert_eq!(others.count(), of - 1, "of {of}");
            }
        }
        assert_eq!((Place::alone().mark(7), Place::alone().elsewhere(b"news/key")), (7, None));
    }

    #[test]
    fn a_peer_is_met_by_one_place_at_a_time() {
        let places: Vec<Place> = Place::all(2).collect();
        let peer = "192.0.2.1:9000".parse().unwrap();
        assert!(places[1].meet(peer, 6) && !places[0].meet(peer, 4));
        assert_eq!((places[0].meeting(peer), places[1].meeting(peer)), (Some(6), Some(6)));
        places[0].met(peer, 4);
        assert_eq!(places[0].meeting(peer), Some(6), "it was another's");
        places[1].met(peer, 6);
        assert!(places[0].meeting(peer).is_none() && places[0].meet(peer, 4));
    }

    #[test]
    fn a_stream_id_is_for_one_place_and_what_is_none_is_answered_where_it_came() {
        let places: Vec<Place> = Place::all(3).collect();
        for n in 0..30 {
            let id = format!("news-{n}/key");
            let homes: Vec<_> = places.iter().map(|place| place.elsewhere(id.as_bytes())).collect();
            assert_eq!(homes.iter().filter(|home| home.is_none()).count(), 1, "{id}: {homes:?}");
        }
        assert!(places.iter().all(|place| place.elsewhere(b"").is_none() && place.elsewhere(b"NO/key").is_none()));
    }

    #[test]
    fn letters_reach_whom_they_are_for_and_are_bounded() {
        let mail = Mail::among(2).unwrap();
        let letter = || Letter { peer: "192.0.2.1:9".parse().unwrap(), timestamp: 1, body: vec![1], proven: true };
        for _ in 0..LETTERS_MAX + 9 {
            mail[0].send(1, letter());
        }
        assert!(mail[0].take().is_empty() && mail[1].fd().is_some());
        assert_eq!(mail[1].take().len(), LETTERS_MAX);
        assert!(mail[1].take().is_empty());
        assert!(Mail::among(1).unwrap()[0].fd().is_none());
    }
}
