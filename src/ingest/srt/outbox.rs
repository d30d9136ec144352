//! Datagrams that wait for the socket: written into one buffer, media beside it.

use std::net::SocketAddr;
use std::ops::Range;

use bytes::Bytes;

/// Filled by the protocol, sent and emptied by the socket; its memory stays.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    heads: Vec<u8>,
    datagrams: Vec<(SocketAddr, Range<usize>, Bytes)>,
}

impl Outbox {
    /// One datagram that `write` appends.
    pub(super) fn push(&mut self, to: SocketAddr, write: impl FnOnce(&mut Vec<u8>)) {
        self.push_with(to, Bytes::new(), write);
    }

    /// The same with media behind it, which is not copied.
    pub(super) fn push_with(&mut self, to: SocketAddr, body: Bytes, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.heads.len();
        write(&mut self.heads);
        self.datagrams.push((to, start..self.heads.len(), body));
    }

    pub(super) fn len(&self) -> usize {
        self.datagrams.len()
    }

    /// Each datagram's receiver and its two parts, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (SocketAddr, &[u8], &[u8])> {
        self.datagrams.iter().map(|(to, head, body)| (*to, &self.heads[head.clone()], &body[..]))
    }

    pub(super) fn clear(&mut self) {
        self.heads.clear();
        self.datagrams.clear();
    }
}
