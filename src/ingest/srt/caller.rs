//! A publisher of ours: connects to a listener and sends what it is given. No thread and no wait inside.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use sapflow_srt::crypto::{CryptoConfig, KeySize};
use sapflow_srt::{Caller, CallerCloseReason, CallerConfig, CallerEvent, SendConfig, SendError};

use super::socket::{Epoch, Outgoing, Socket};
use super::url::SrtUrl;
use crate::sys::mmsg::{BATCH, RecvBatch};
use crate::time::Mono;

/// Seven transport-stream packets: the payload of every SRT peer.
pub const PAYLOAD: usize = 1_316;
/// Media that waits for an acknowledgement, at most.
const PACKETS_MAX: usize = 16_384;
const BYTES_MAX: usize = 24 << 20;
/// Media not acknowledged for this long ends the connection; the peer's idle time-out strikes earlier.
const AGE_MAX: Duration = Duration::from_secs(20);
/// Bytes per second at most: pacing is the feeder's, so this is only a limit on retransmission storms.
const BANDWIDTH: u64 = 250_000_000;
/// Timers closer than this are handled together.
const TIMER_GRAIN: Duration = Duration::from_millis(1);

/// What a `Publish` tells its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublishEvent {
    /// On air, with the latency that the listener settled on.
    Connected { latency: Duration },
    /// The end of it; make a new one to try again.
    Closed(PublishEnd),
}

/// Why a publish ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishEnd {
    /// `finish` was called.
    Finished,
    /// Refused: libsrt's code, 1400 and up an answer about channel and key.
    Refused(u16),
    /// Nothing answered; `unreachable`: the host said that nobody listens there.
    NoAnswer { unreachable: bool },
    /// The listener closed the connection.
    ClosedByPeer,
    /// Nothing came from the listener for 5 s.
    Silent,
    /// The listener stopped taking media.
    Stuck,
    /// Encryption could not be agreed on.
    Crypto,
    /// The listener wants something we do not do.
    Unsupported,
}

impl PublishEnd {
    /// Trying again may help.
    pub fn worth_a_retry(self) -> bool {
        !matches!(self, PublishEnd::Finished | PublishEnd::Crypto | PublishEnd::Unsupported)
            && !matches!(self, PublishEnd::Refused(code) if !matches!(code, 5 | 1403 | 1409 | 1429 | 1503))
    }
}

impl fmt::Display for PublishEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sentence = match self {
            PublishEnd::Finished => "finished",
            PublishEnd::Refused(1401) => "refused: unknown channel or wrong publish key (1401)",
            PublishEnd::Refused(1403) => "refused: the channel is stopped (1403)",
            PublishEnd::Refused(1409) => "refused: another publisher is on air (1409)",
            PublishEnd::Refused(1415) => "refused: something asked for is not supported (1415)",
            PublishEnd::Refused(1429) => "refused: too many tries from this address (1429)",
            PublishEnd::Refused(1503) => "refused: the box has no capacity left (1503)",
            PublishEnd::Refused(10) => "refused: wrong passphrase (10)",
            PublishEnd::Refused(11) => "refused: only one side has a passphrase (11)",
            PublishEnd::Refused(code) => return write!(f, "refused with code {code}"),
            PublishEnd::NoAnswer { unreachable: true } => "nobody listens for SRT on that port",
            PublishEnd::NoAnswer { unreachable: false } => "no answer from that address",
            PublishEnd::ClosedByPeer => "the listener closed the connection",
            PublishEnd::Silent => "nothing came from the listener for 5 s",
            PublishEnd::Stuck => "the listener stopped taking media",
            PublishEnd::Crypto => "the passphrases do not fit",
            PublishEnd::Unsupported => "the listener wants something that is not supported (a passphrase?)",
        };
        f.write_str(sentence)
    }
}

/// Counters of a publish.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PublishStats {
    /// Payloads put on the wire for the first time, and their bytes.
    pub sent: u64,
    pub sent_bytes: u64,
    pub retransmitted: u64,
    pub acknowledged: u64,
    /// Payloads not taken because too many wait, or the connection is not open.
    pub dropped: u64,
    /// Payloads that wait for an acknowledgement.
    pub waiting: usize,
    pub rtt: Duration,
}

/// One connection to a listener. Call `run` when `fd` is readable and at `deadline`, then `poll`.
pub struct Publish {
    socket: Socket,
    inbound: RecvBatch,
    outgoing: Vec<Outgoing>,
    caller: Caller,
    peer: SocketAddr,
    epoch: Epoch,
    dropped: u64,
    ran: Mono,
}

impl Publish {
    /// Opens a socket and begins the handshake with the first `run`.
    ///
    /// # Errors
    /// That of the socket; `InvalidInput` for an address or option that cannot work.
    pub fn connect(now: Mono, url: &SrtUrl, peer: SocketAddr) -> io::Result<Publish> {
        let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidInput, what);
        let size = if url.key_length == 32 { KeySize::Aes256 } else { KeySize::Aes128 };
        let crypto =
            url.passphrase.as_ref().map(|p| CryptoConfig::new(p.expose().clone().into_bytes(), size)).transpose();
        let config = CallerConfig {
            stream_id: url.stream_id.expose().clone(),
            latency: url.latency,
            crypto: crypto.map_err(|e| invalid(e.to_string()))?,
            send: SendConfig {
                max_packets: PACKETS_MAX,
                max_bytes: BYTES_MAX,
                max_age_us: u64::try_from(AGE_MAX.as_micros()).unwrap_or(u64::MAX),
                max_payload: PAYLOAD,
                bandwidth: BANDWIDTH,
                ..SendConfig::default()
            },
            ..CallerConfig::default()
        };
        let epoch = Epoch::now();
        let caller = Caller::new(config, peer, epoch.instant(now)).map_err(|e| invalid(e.to_string()))?;
        Ok(Publish {
            socket: Socket::connect(peer, 1 << 20)?,
            inbound: RecvBatch::default(),
            outgoing: Vec::with_capacity(BATCH),
            caller,
            peer,
            epoch,
            dropped: 0,
            ran: now,
        })
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.fd()
    }

    /// When `run` wants to be called at the latest; `None` once closed.
    pub fn deadline(&self) -> Option<Mono> {
        self.caller.poll_timeout().map(|at| self.epoch.mono(at).max(self.ran + TIMER_GRAIN))
    }

    /// Takes answers, does what is due, sends what may be sent. Never waits.
    pub fn run(&mut self, now: Mono) {
        self.ran = now;
        loop {
            let count = self.socket.recv(&mut self.inbound);
            for (_, bytes) in self.inbound.iter() {
                self.caller.handle_datagram(self.epoch.instant(now), self.peer, bytes);
            }
            if count < BATCH {
                break;
            }
        }
        self.caller.handle_timeout(self.epoch.instant(now));
        self.flush(now);
    }

    /// Hands media over, in payloads of whole transport-stream packets: as many bytes of `media` as are given, the
    /// last payload shorter. What does not fit is dropped and counted; the result says how many payloads were.
    pub fn send(&mut self, now: Mono, media: &[u8]) -> u64 {
        let mut dropped = 0;
        for payload in media.chunks(PAYLOAD) {
            match self.caller.try_enqueue(self.epoch.instant(now), payload.to_vec()) {
                Ok(()) | Err((SendError::Empty, _)) => {}
                Err(_) => dropped += 1,
            }
        }
        self.dropped += dropped;
        self.flush(now);
        dropped
    }

    pub fn poll(&mut self) -> Option<PublishEvent> {
        Some(match self.caller.poll_event()? {
            CallerEvent::Connected { latency, .. } => PublishEvent::Connected { latency },
            CallerEvent::Closed { reason } => PublishEvent::Closed(self.end(reason)),
        })
    }

    pub fn is_connected(&self) -> bool {
        self.caller.is_connected()
    }

    pub fn stats(&self) -> PublishStats {
        let send = self.caller.stats().send;
        PublishStats {
            sent: send.sent_packets - send.retransmitted_packets,
            sent_bytes: send.sent_bytes - send.retransmitted_bytes,
            retransmitted: send.retransmitted_packets,
            acknowledged: send.acknowledged_packets,
            dropped: self.dropped,
            waiting: send.buffered_packets,
            rtt: Duration::from_micros(send.rtt_us),
        }
    }

    /// Ends the connection with a SHUTDOWN. Media that waits for an acknowledgement is given up: see `stats().waiting`.
    pub fn finish(&mut self, now: Mono) {
        self.caller.stop(self.epoch.instant(now));
        self.flush(now);
    }

    fn flush(&mut self, now: Mono) {
        let mut at = self.epoch.instant(now);
        while let Some(datagram) = self.caller.poll_transmit(at) {
            self.outgoing.push(datagram);
            // The crate sends one packet per moment of its pacing: the moments of a batch are made up.
            at += PACING_STEP;
            if self.outgoing.len() == BATCH {
                self.socket.send(&mut self.outgoing);
            }
        }
        self.socket.send(&mut self.outgoing);
    }

    fn end(&self, reason: CallerCloseReason) -> PublishEnd {
        match reason {
            CallerCloseReason::Cancelled => PublishEnd::Finished,
            CallerCloseReason::ConnectTimeout | CallerCloseReason::HandshakeLimit => {
                PublishEnd::NoAnswer { unreachable: self.socket.refused > 0 }
            }
            CallerCloseReason::PeerIdle => PublishEnd::Silent,
            CallerCloseReason::Rejected(code) => {
                PublishEnd::Refused(u16::try_from(code.saturating_sub(1_000)).unwrap_or(u16::MAX))
            }
            CallerCloseReason::UnsupportedPeer => PublishEnd::Unsupported,
            CallerCloseReason::Crypto => PublishEnd::Crypto,
            CallerCloseReason::MediaExpired | CallerCloseReason::RetryLimit => PublishEnd::Stuck,
            CallerCloseReason::PeerClosed | CallerCloseReason::PeerError(_) => PublishEnd::ClosedByPeer,
        }
    }
}

/// The time of one full packet at `BANDWIDTH`.
const PACING_STEP: Duration = Duration::from_micros(6);

const _: () = assert!(6 * BANDWIDTH >= (PAYLOAD as u64 + 16) * 1_000_000, "a step is at least a packet's time");
