//! Ports side by side at one address, each driven by a thread of its own. The kernel hands a datagram to the port whose
//! place is in the number of the socket that it is for. Handshakes are for no socket yet: they come to the first port,
//! which passes on those of channels that run elsewhere.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, PoisonError};

use super::streamid;
use crate::media::channel::ChannelName;
use crate::sys::wake::Bell;

/// Bit of a socket's number from which on the place stands; below it is whether we called.
pub(super) const SHIFT: u32 = 1;
/// Handshakes that wait for a port; more are lost, as on any network.
const LETTERS_MAX: usize = 1_024;

/// One of several ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    number: usize,
    of: usize,
}

impl Place {
    pub(super) const ALONE: Place = Place { number: 0, of: 1 };

    pub(super) fn all(of: usize) -> impl Iterator<Item = Place> {
        (0..of).map(move |number| Place { number, of })
    }

    /// `socket`, with this place in it.
    pub(super) fn mark(self, socket: u32) -> u32 {
        let number = u32::try_from(self.number).unwrap_or(0);
        socket & !(mask(self.of) << SHIFT) | number << SHIFT
    }

    /// The place that has the channel of `stream_id`, unless it is this one. Whatever names no channel is answered here.
    pub(super) fn elsewhere(self, stream_id: &[u8]) -> Option<usize> {
        let wanted = streamid::parse(stream_id).ok()?;
        let home = ChannelName::new(&wanted.channel).ok()?.shard(self.of);
        (home != self.number).then_some(home)
    }

    pub(super) fn next(self) -> Option<usize> {
        Some(self.number + 1).filter(|next| *next < self.of)
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

    pub(super) fn place(&self) -> Place {
        self.place
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
                assert_eq!((marked >> SHIFT & mask(of)) as usize, place.number, "of {of}");
                assert_eq!(marked & 1, 1);
                assert_eq!(place.next(), (place.number + 1 < of).then_some(place.number + 1));
            }
        }
        assert_eq!((Place::ALONE.mark(7), Place::ALONE.elsewhere(b"news/key")), (7, None));
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
