//! A bond with its sockets, one for each link: sends what it is given to a listener. No thread and no wait inside.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;

use super::bond::{Bond, BondEvent};
use super::group::Bonding;
use super::publish::{RECEIVE_BUFFER, SLOTS, TIMER_GRAIN, caller};
use super::socket::Socket;
use super::url::SrtUrl;
use crate::ingest::publish::{PAYLOAD, PublishStats};
use crate::sys::mmsg::RecvBatch;
use crate::time::Mono;

/// Where a link leads, and from which address of this machine it sets out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ends {
    pub(super) peer: SocketAddr,
    pub(super) local: Option<IpAddr>,
}

pub(super) struct Bonded {
    bond: Bond,
    links: Vec<Wire>,
    inbound: RecvBatch,
    dropped: u64,
    ran: Mono,
}

struct Wire {
    ends: Ends,
    /// Made anew for each call: the way there may be another one by then.
    socket: Option<Socket>,
}

impl Bonded {
    /// Calls with the first `run`.
    ///
    /// # Errors
    /// `InvalidInput` for an option that cannot work.
    pub(super) fn connect(now: Mono, url: &SrtUrl, bonding: Bonding, ends: &[Ends]) -> io::Result<Bonded> {
        let peers: Vec<SocketAddr> = ends.iter().map(|ends| ends.peer).collect();
        Ok(Bonded {
            bond: Bond::new(now, bonding, caller(url)?, &peers),
            links: ends.iter().map(|ends| Wire { ends: *ends, socket: None }).collect(),
            inbound: RecvBatch::with_slots(SLOTS),
            dropped: 0,
            ran: now,
        })
    }

    pub(super) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.links.iter().filter_map(|wire| wire.socket.as_ref()).map(Socket::fd)
    }

    /// When `run` wants to be called at the latest; `None` once closed.
    pub(super) fn deadline(&self) -> Option<Mono> {
        self.bond.deadline().map(|at| at.max(self.ran + TIMER_GRAIN))
    }

    /// Takes answers, does what is due, sends what may be sent. Never waits.
    pub(super) fn run(&mut self, now: Mono) {
        self.ran = now;
        while let Some(link) = self.bond.wants_call(now) {
            let Some(wire) = self.links.get_mut(link) else { break };
            wire.socket = Socket::connect_from(wire.ends.local, wire.ends.peer, RECEIVE_BUFFER).ok();
            match wire.socket {
                Some(_) => self.bond.call(now, link),
                None => self.bond.no_way(now, link),
            }
        }
        for (link, wire) in self.links.iter_mut().enumerate() {
            let Some(socket) = &mut wire.socket else { continue };
            while socket.recv(&mut self.inbound) {
                for (_, bytes) in self.inbound.drain() {
                    self.bond.datagram(now, link, bytes);
                }
            }
            if socket.refused > 0 {
                self.bond.unreachable(link);
            }
        }
        self.bond.tick(now);
        self.flush();
    }

    fn flush(&mut self) {
        for (link, wire) in self.links.iter_mut().enumerate() {
            if let (Some(socket), Some(outbox)) = (&mut wire.socket, self.bond.outbox(link)) {
                socket.send(outbox);
            }
        }
    }

    /// Hands media over, in payloads of whole transport-stream packets. What does not fit is dropped and counted.
    pub(super) fn send(&mut self, now: Mono, media: &[u8]) {
        let dropped = media.chunks(PAYLOAD).filter(|payload| !self.bond.send(now, payload)).count();
        self.dropped += dropped as u64;
        self.flush();
    }

    pub(super) fn poll(&mut self) -> Option<BondEvent> {
        self.bond.poll()
    }

    pub(super) fn is_connected(&self) -> bool {
        self.bond.is_connected()
    }

    pub(super) fn stats(&self) -> PublishStats {
        let stats = self.bond.stats();
        PublishStats { dropped: stats.dropped + self.dropped, ..stats }
    }

    /// Ends all links with a SHUTDOWN.
    pub(super) fn finish(&mut self, now: Mono) {
        self.bond.stop(now);
        self.flush();
    }
}
