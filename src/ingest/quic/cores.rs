//! The cores of this room as whoever has no connection drives them. For the fuzz targets of `tests/fuzz`; nothing of the
//! product names it.

use std::time::Duration;

use bytes::Bytes;

use super::message::Head;
use super::reorder::{NotTaken, Reorder};
use super::segments::Segments;
use super::source::{Packets, rtp_payload};
use crate::time::Mono;

/// Where the publisher's segments begin.
pub struct Cutting(Segments);

impl Default for Cutting {
    fn default() -> Cutting {
        Cutting(Segments::new())
    }
}

impl Cutting {
    /// Media of so many bytes comes. `Some`: with it a segment begins.
    pub fn media(&mut self, now: Mono, bytes: usize) -> Option<Head> {
        self.0.media(now, bytes)
    }

    /// Nothing came for as long as a segment is.
    pub fn is_over(&self, now: Mono) -> bool {
        self.0.is_over(now)
    }

    /// The segment that is on ends.
    pub fn close(&mut self) {
        self.0.close();
    }

    /// A segment came too late. `Some`: they are shorter from now on, so long.
    pub fn late(&mut self, now: Mono) -> Option<Duration> {
        self.0.late(now)
    }
}

/// The receiver's segments, given out one behind the other.
pub struct Ordering(Reorder);

impl Ordering {
    /// `held_max`: bytes that may wait behind the segment that is on.
    pub fn new(latency: Duration, held_max: usize) -> Ordering {
        Ordering(Reorder::new(latency, held_max))
    }

    /// A segment's head came.
    ///
    /// # Errors
    /// The code that its stream is stopped with; `None`: the publisher is broken.
    pub fn open(&mut self, now: Mono, head: Head) -> Result<(), Option<u32>> {
        self.0.open(now, head).map_err(|why| match why {
            NotTaken::Repeated => Some(super::REPEATED),
            NotTaken::Belated => Some(super::LATE),
            NotTaken::Far => None,
        })
    }

    /// More of a segment.
    pub fn data(&mut self, sequence: u64, bytes: &[u8]) {
        self.0.data(sequence, std::iter::once(bytes));
    }

    /// A segment's stream has ended; `whole`: not by a reset.
    pub fn end(&mut self, sequence: u64, whole: bool) {
        self.0.end(sequence, whole);
    }

    /// Gives up what is due.
    pub fn tick(&mut self, now: Mono) {
        self.0.tick(now);
    }

    pub fn deadline(&self) -> Option<Mono> {
        self.0.deadline()
    }

    /// The next bytes, in order.
    pub fn poll(&mut self) -> Option<Bytes> {
        self.0.poll()
    }

    /// Segments that were given up while their streams were open.
    pub fn take_stopped(&mut self) -> Vec<u64> {
        self.0.take_stopped()
    }

    /// Nothing more comes.
    pub fn flush(&mut self) {
        self.0.flush();
    }

    /// Segments and bytes that wait behind the one that is on.
    pub fn waiting(&self) -> (usize, usize) {
        (self.0.waiting_segments(), self.0.held())
    }

    /// Segments that were received, lost, dropped, belated and repeated.
    pub fn counts(&self) -> [u64; 5] {
        let counts = self.0.counts();
        [counts.received, counts.lost, counts.dropped, counts.belated, counts.repeated]
    }
}

/// Whole packets out of a stream of bytes that may begin anywhere.
#[derive(Default)]
pub struct Piping(Packets);

impl Piping {
    /// The packets that are whole now.
    pub fn take(&mut self, piece: &[u8]) -> Bytes {
        self.0.take(piece)
    }
}

/// What an RTP packet carries.
pub fn behind_rtp(packet: &[u8]) -> &[u8] {
    rtp_payload(packet)
}
