//! One UDP port and all its publishers, driven by the shard that owns it.

use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use super::crypto::Passphrase;
use super::listener::{Closing, Event, Listener, PortCounters};
use super::socket::{BindError, Socket};
use super::stats::PublisherStats;
use crate::ingest::{Directory, PublisherId};
use crate::sys::mmsg::{BATCH, RecvBatch};
use crate::time::Mono;

/// Batches taken in one `run`; what is left waits until the shard has done the rest of its round.
const BATCHES_MAX: usize = 128;
/// How long datagrams may lie in the socket when every publisher has at least `BATCHING_LATENCY`: one wake for many.
const BATCHING: Duration = Duration::from_millis(4);
const BATCHING_LATENCY: Duration = Duration::from_millis(120);
/// Timers closer than this are handled together.
const TIMER_GRAIN: Duration = Duration::from_millis(1);

#[derive(Clone, Debug)]
pub struct PortConfig {
    pub address: SocketAddr,
    /// Receive latency of the port; a caller that asks for more gets more. At most 65.5 s [SRT 3.2.1.1].
    pub latency: Duration,
    /// With one, every caller must encrypt; without, none may.
    pub passphrase: Option<Passphrase>,
    pub publishers_max: usize,
    /// The fastest publisher expected, bits per second: sizes the receive buffers.
    pub bitrate_max: u64,
    /// Bytes asked of the kernel.
    pub receive_buffer: usize,
}

impl Default for PortConfig {
    fn default() -> PortConfig {
        PortConfig {
            address: (Ipv6Addr::UNSPECIFIED, 9_000).into(),
            latency: Duration::from_millis(120),
            passphrase: None,
            publishers_max: 300,
            bitrate_max: 50_000_000,
            receive_buffer: 16 << 20,
        }
    }
}

/// Receives all publishers of one UDP port. No thread and no wait inside: call `run` when `fd` is readable (while
/// `polls_fd`) and at `deadline`; then take events with `poll` until there is none.
pub struct Port {
    socket: Socket,
    inbound: RecvBatch,
    listener: Listener,
    ran: Mono,
    /// The last `run` found datagrams.
    busy: bool,
    /// The last `run` left datagrams in the socket.
    backlog: bool,
    wanted_buffer: usize,
}

impl Port {
    /// # Errors
    /// `BindError`, a sentence for the operator.
    pub fn bind(config: PortConfig, directory: Arc<dyn Directory>) -> Result<Port, BindError> {
        let socket = Socket::bind(config.address, config.receive_buffer)?;
        Ok(Port {
            socket,
            inbound: RecvBatch::default(),
            wanted_buffer: config.receive_buffer,
            listener: Listener::new(config, directory),
            ran: Mono(0),
            busy: false,
            backlog: false,
        })
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.fd()
    }

    /// # Errors
    /// That of `getsockname`.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// When `run` wants to be called at the latest; `None`: not before a datagram comes.
    pub fn deadline(&self, now: Mono) -> Option<Mono> {
        if self.backlog {
            return Some(now);
        }
        if !self.polls_fd() {
            return Some(self.ran + BATCHING);
        }
        let grain = if self.batching() { BATCHING } else { TIMER_GRAIN };
        self.listener.deadline().map(|due| due.max(self.ran + grain))
    }

    /// Whether a readable `fd` must wake the shard. Not while media flows with latency to spare: then the deadline,
    /// 4 ms after the last `run`, collects what came meanwhile. (Polling all the same only costs CPU time.)
    pub fn polls_fd(&self) -> bool {
        !(self.busy && self.batching())
    }

    /// Takes the datagrams that came, does what is due, sends what is to be sent. Never waits.
    pub fn run(&mut self, now: Mono) {
        self.ran = now;
        self.busy = false;
        self.backlog = true;
        for _ in 0..BATCHES_MAX {
            let count = self.socket.recv(&mut self.inbound);
            for (peer, bytes) in self.inbound.iter() {
                self.listener.datagram(now, peer, bytes);
            }
            self.busy |= count > 0;
            if !self.listener.outgoing.is_empty() {
                self.socket.send(&mut self.listener.outgoing);
            }
            if count < BATCH {
                self.backlog = false;
                break;
            }
        }
        self.listener.settle(now);
        self.socket.send(&mut self.listener.outgoing);
    }

    /// The next event, if any.
    pub fn poll(&mut self) -> Option<Event> {
        self.listener.poll()
    }

    /// Ends a publisher from this side: it gets a SHUTDOWN, the shard an `Event::Closed`. Nothing for an unknown one.
    pub fn close(&mut self, now: Mono, publisher: PublisherId, why: Closing) {
        self.listener.close(now, publisher, why);
        self.socket.send(&mut self.listener.outgoing);
    }

    /// `None` once it is closed: its last statistics came with `Event::Closed`.
    pub fn stats(&self, now: Mono, publisher: PublisherId) -> Option<PublisherStats> {
        self.listener.stats(now, publisher)
    }

    pub fn counters(&self) -> PortCounters {
        PortCounters {
            kernel_drops: u64::from(self.inbound.kernel_drops()),
            send_drops: self.socket.send_drops,
            ..self.listener.counters()
        }
    }

    pub fn publishers(&self) -> usize {
        self.listener.publishers()
    }

    /// Bytes of the kernel's receive buffer, as granted.
    pub fn receive_buffer(&self) -> usize {
        self.socket.receive_buffer
    }

    /// A sentence for log and doctor when the kernel grants less than was asked for.
    pub fn receive_buffer_warning(&self) -> Option<String> {
        let (granted, wanted) = (self.socket.receive_buffer, self.wanted_buffer);
        (granted < wanted).then(|| {
            format!(
                "the kernel grants a receive buffer of {} kB instead of {} kB: bursts may be lost; \
                 give CAP_NET_ADMIN or set net.core.rmem_max={wanted}",
                granted >> 10,
                wanted >> 10
            )
        })
    }

    /// A planned stop: SHUTDOWN to every publisher; their `Closed` events follow.
    pub fn shutdown(&mut self, now: Mono) {
        self.listener.shutdown(now);
        self.socket.send(&mut self.listener.outgoing);
    }

    fn batching(&self) -> bool {
        self.listener.publishers() > 0 && self.listener.latency_min() >= BATCHING_LATENCY
    }
}
