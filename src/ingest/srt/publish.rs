//! A publisher of ours with its socket: sends what it is given to a listener. No thread and no wait inside.

use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use super::call::{WINDOW, Wishes};
use super::caller::{Caller, CallerConfig};
use super::crypto::KeyLength;
use super::socket::Socket;
use super::url::SrtUrl;
use crate::ingest::publish::{PAYLOAD, PublishEnd, PublishEvent, PublishStats};
use crate::media::key::Passphrase;
use crate::sys::mmsg::RecvBatch;
use crate::time::Mono;

/// Timers closer than this are handled together.
pub(super) const TIMER_GRAIN: Duration = Duration::from_millis(1);
/// Answers that are read at once; a listener sends few.
pub(super) const SLOTS: usize = 16;
/// Bytes asked of the kernel for them.
pub(super) const RECEIVE_BUFFER: usize = 1 << 20;

/// One connection to a listener. Call `run` when `fd` is readable and at `deadline`, then `poll`.
pub struct Publish {
    socket: Socket,
    inbound: RecvBatch,
    caller: Caller,
    dropped: u64,
    ran: Mono,
}

impl Publish {
    /// Opens a socket and begins the handshake with the first `run`.
    ///
    /// # Errors
    /// That of the socket; `InvalidInput` for an address or option that cannot work.
    pub fn connect(now: Mono, url: &SrtUrl, peer: SocketAddr) -> io::Result<Publish> {
        Ok(Publish {
            socket: Socket::connect(peer, RECEIVE_BUFFER)?,
            inbound: RecvBatch::with_slots(SLOTS),
            caller: Caller::new(now, caller(url)?, peer),
            dropped: 0,
            ran: now,
        })
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.fd()
    }

    /// When `run` wants to be called at the latest; `None` once closed.
    pub fn deadline(&self) -> Option<Mono> {
        self.caller.deadline().map(|at| at.max(self.ran + TIMER_GRAIN))
    }

    /// Takes answers, does what is due, sends what may be sent. Never waits.
    pub fn run(&mut self, now: Mono) {
        self.ran = now;
        while self.socket.recv(&mut self.inbound) {
            for (_, bytes) in self.inbound.drain() {
                self.caller.datagram(now, bytes);
            }
        }
        self.caller.tick(now);
        self.socket.send(&mut self.caller.outbox);
    }

    /// Hands media over, in payloads of whole transport-stream packets: as many bytes of `media` as are given, the
    /// last payload shorter. What does not fit is dropped and counted; the result says how many payloads were.
    pub fn send(&mut self, now: Mono, media: &[u8]) -> u64 {
        let dropped = media.chunks(PAYLOAD).filter(|payload| !self.caller.send(now, payload)).count() as u64;
        self.dropped += dropped;
        self.socket.send(&mut self.caller.outbox);
        dropped
    }

    pub fn poll(&mut self) -> Option<PublishEvent> {
        Some(match self.caller.poll()? {
            PublishEvent::Closed(PublishEnd::NoAnswer { .. }) => {
                PublishEvent::Closed(PublishEnd::NoAnswer { unreachable: self.socket.refused > 0 })
            }
            event => event,
        })
    }

    pub fn is_connected(&self) -> bool {
        self.caller.is_connected()
    }

    pub fn stats(&self) -> PublishStats {
        let Some(sender) = self.caller.sender() else {
            return PublishStats { dropped: self.dropped, ..PublishStats::default() };
        };
        PublishStats {
            sent: sender.counts.sent,
            sent_bytes: sender.counts.sent_bytes,
            retransmitted: sender.counts.retransmitted,
            acknowledged: sender.counts.acknowledged,
            dropped: self.dropped + sender.counts.given_up,
            waiting: sender.waiting(),
            late: 0,
            rtt: sender.rtt(),
            links: 0,
        }
    }

    /// Ends the connection with a SHUTDOWN. Media that waits for an acknowledgement is given up: see `stats().waiting`.
    pub fn finish(&mut self, now: Mono) {
        self.caller.stop(now);
        self.socket.send(&mut self.caller.outbox);
    }
}

/// How a publisher calls that address.
///
/// # Errors
/// `InvalidInput` for a passphrase that cannot be one.
pub(super) fn caller(url: &SrtUrl) -> io::Result<CallerConfig> {
    let length = KeyLength::from_bytes(url.key_length.into()).unwrap_or(KeyLength::Aes128);
    let passphrase = url.passphrase.as_ref().map(|passphrase| Passphrase::new(passphrase.expose())).transpose();
    let passphrase = passphrase.map_err(|what| io::Error::new(io::ErrorKind::InvalidInput, what))?;
    let wishes = Wishes {
        stream_id: url.stream_id.expose().clone(),
        latency: url.latency,
        secret: passphrase.map(|passphrase| (passphrase, length)),
        filter: url.filter.clone(),
        window: WINDOW,
        joins: None,
    };
    Ok(CallerConfig { wishes, renew_after: url.key_refresh })
}
