//! One connection as both sides of it have it: where it leads, its clock, when something came and went.

use std::net::SocketAddr;
use std::time::Duration;

use super::outbox::Outbox;
use super::packet::Control;
use crate::media::limits::PEER_IDLE;
use crate::time::Mono;

/// With nothing else to say a side says that it is there this often [SRT 4.8.3].
const KEEP_ALIVE: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    pub(super) peer: SocketAddr,
    /// The peer's socket, which our packets name.
    pub(super) socket: u32,
    /// Where our time stamps are zero.
    pub(super) began: Mono,
    /// When anything came last.
    pub(super) heard: Mono,
    /// When anything went last.
    said: Mono,
}

impl Link {
    pub(super) fn new(now: Mono, peer: SocketAddr, socket: u32) -> Link {
        Link { peer, socket, began: now, heard: now, said: now }
    }

    /// Our time stamp: microseconds, which wrap.
    pub(super) fn timestamp(&self, now: Mono) -> u32 {
        ((now.0.saturating_sub(self.began.0)) / 1_000) as u32
    }

    pub(super) fn send(&mut self, now: Mono, control: Control<'_>, out: &mut Outbox) {
        let (timestamp, socket) = (self.timestamp(now), self.socket);
        self.said(now);
        out.push(self.peer, |buffer| control.write(buffer, timestamp, socket));
    }

    /// Something goes out.
    pub(super) fn said(&mut self, now: Mono) {
        self.said = now;
    }

    /// Says that we are here if nothing else did.
    pub(super) fn keep_alive(&mut self, now: Mono, out: &mut Outbox) {
        if now - self.said >= KEEP_ALIVE {
            self.send(now, Control::KeepAlive, out);
        }
    }

    /// Nothing came for as long as a peer may be silent.
    pub(super) fn is_silent(&self, now: Mono) -> bool {
        now - self.heard >= PEER_IDLE
    }

    /// When `keep_alive` or `is_silent` may change.
    pub(super) fn deadline(&self) -> Mono {
        (self.said + KEEP_ALIVE).min(self.heard + PEER_IDLE)
    }
}
