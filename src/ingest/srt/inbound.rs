//! Media that comes in over a connection: shown to the packet filter, if there is one, deciphered, put in order by the
//! `Receiver`, answered.

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::crypto::Keys;
use super::filter::Filter;
use super::link::Link;
use super::outbox::Outbox;
use super::packet::{Control, Data, HEADER, Key, RANGES_MAX, write_nak};
use super::playout::Playout;
use super::rebuild::{self, Found, Rebuilder};
use super::receiver::Receiver;
use super::seq::Seq;
use crate::time::Mono;

/// What waits longer is copied out of the datagrams' memory, which others need again.
const COPY_FROM: Duration = Duration::from_millis(500);
/// Copies lie in pieces of this size, bytes.
const PIECE: usize = 64 << 10;

pub(super) struct Inbound {
    pub(super) receiver: Receiver,
    keys: Option<Keys>,
    /// In clear on a keyed connection, under no known key, or keyed on an open one.
    pub(super) undecryptable: u64,
    /// Where packets are copied to.
    copies: Option<BytesMut>,
    filter: Option<Rebuilder>,
    found: Found,
    ranges: Vec<(Seq, Seq)>,
}

impl Inbound {
    /// `first`: the number of the first packet; `capacity`: packets that are held at most.
    pub(super) fn new(first: Seq, capacity: u32, playout: Playout, latency: Duration, keys: Option<Keys>) -> Inbound {
        Inbound {
            receiver: Receiver::new(first, capacity, playout),
            keys,
            undecryptable: 0,
            copies: (latency > COPY_FROM).then(BytesMut::new),
            filter: None,
            found: Found::default(),
            ranges: Vec::new(),
        }
    }

    /// The same with a packet filter, which counts from the packet `first` on.
    pub(super) fn filtered(mut self, filter: Option<Filter>, first: Seq) -> Inbound {
        self.receiver.when = filter.map(|filter| filter.questions).unwrap_or_default();
        self.filter = filter.map(|filter| Rebuilder::new(filter.layout, first));
        self
    }

    /// AES key length in bits, 0 in clear.
    pub(super) fn key_bits(&self) -> u16 {
        self.keys.as_ref().map_or(0, |keys| keys.length().bits())
    }

    /// A data packet, header and all.
    pub(super) fn packet(&mut self, now: Mono, data: &Data, mut packet: BytesMut) {
        let payload = packet.split_off(HEADER);
        let mut found = std::mem::take(&mut self.found);
        let of_filter = match &mut self.filter {
            Some(filter) if data.message == 0 => {
                filter.filter(data, &payload, &mut found);
                true
            }
            Some(filter) if !self.receiver.is_beyond(data.seq) => {
                filter.media(data, &payload, &mut found);
                false
            }
            _ => false,
        };
        if of_filter {
            self.receiver.arrived(now, payload.len());
        } else if let Some(payload) = self.opened(data, payload) {
            self.receiver.packet(now, data, payload);
        }
        for (data, payload) in found.packets.drain(..) {
            if let Some(payload) = self.opened(&data, payload) {
                self.receiver.take(now, &data, payload);
            }
        }
        found.hopeless.drain(..).for_each(|(first, last)| self.receiver.hopeless(now, first, last));
        self.found = found;
    }

    /// A payload as it was before its sender closed it, where it may wait; `None`: it cannot be opened.
    fn opened(&mut self, data: &Data, mut payload: BytesMut) -> Option<Bytes> {
        let clear = match (&self.keys, data.key) {
            (None, Key::Clear) => true,
            (Some(keys), key) => keys.apply(key, data.seq, &mut payload),
            (None, _) => false,
        };
        if !clear {
            self.undecryptable += 1;
            // It is no use to ask for it again.
            self.receiver.given_up(data.seq, data.seq);
            return None;
        }
        Some(match &mut self.copies {
            Some(copies) => copied(copies, &payload),
            None => payload.freeze(),
        })
    }

    /// What the packet filter did; nothing without one.
    pub(super) fn rebuilt(&self) -> rebuild::Counts {
        self.filter.as_ref().map(|filter| filter.counts).unwrap_or_default()
    }

    /// A control packet that concerns media coming in.
    pub(super) fn control(&mut self, now: Mono, control: &Control<'_>, link: &mut Link, out: &mut Outbox) {
        match *control {
            Control::AckAck(number) => self.receiver.confirmed(now, number),
            Control::DropRequest { first, last } => self.receiver.given_up(first, last),
            Control::KeyRequest(message) => answer_keys(now, self.keys.as_mut(), message, link, out),
            _ => {}
        }
    }

    /// Acknowledges and asks, as far as it is time.
    pub(super) fn answer(&mut self, now: Mono, link: &mut Link, out: &mut Outbox) {
        if let Some(ack) = self.receiver.ack(now) {
            link.send(now, Control::Ack(ack), out);
        }
        self.ranges.clear();
        self.receiver.questions(now, &mut self.ranges);
        let (timestamp, socket) = (link.timestamp(now), link.socket);
        for ranges in self.ranges.chunks(RANGES_MAX) {
            link.said(now);
            out.push(link.peer, |buffer| write_nak(buffer, timestamp, socket, ranges.iter().copied()));
        }
    }

    /// The next payload whose time has come.
    pub(super) fn poll(&mut self, now: Mono) -> Option<Bytes> {
        self.receiver.poll(now)
    }

    /// When `poll` or `answer` may have something.
    pub(super) fn deadline(&self) -> Option<Mono> {
        self.receiver.deadline().into_iter().chain(self.receiver.timer()).min()
    }
}

/// The peer announces keys.
pub(super) fn answer_keys(now: Mono, keys: Option<&mut Keys>, message: &[u8], link: &mut Link, out: &mut Outbox) {
    let answer = match keys.map(|keys| keys.refresh(message)) {
        None => &NO_SECRET[..],
        Some(Ok(())) => message,
        Some(Err(_)) => &BAD_SECRET[..],
    };
    link.send(now, Control::KeyResponse(answer), out);
}

/// States of a refused key exchange [SRT 3.2.2]: we have no passphrase; ours is another one.
const NO_SECRET: [u8; 4] = [0, 0, 0, 3];
const BAD_SECRET: [u8; 4] = [0, 0, 0, 4];

fn copied(copies: &mut BytesMut, payload: &[u8]) -> Bytes {
    if copies.capacity() - copies.len() < payload.len() {
        *copies = BytesMut::with_capacity(PIECE);
    }
    copies.extend_from_slice(payload);
    copies.split().freeze()
}
