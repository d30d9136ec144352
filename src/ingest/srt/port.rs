//! One UDP port and all its publishers, those that it calls among them, driven by the shard that owns it. Several shards
//! have one each, at the same address.

use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use super::listener::{Listener, PortCounters};
use super::lookup::{Found, Lookups};
use super::place::Mail;
use super::pull_url::PullUrl;
use super::socket::Socket;
use crate::ingest::udp::{self, BindError};
use crate::ingest::{Closing, Directory, Door, Event, PublisherId, PublisherStats};
use crate::media::channel::ChannelName;
use crate::media::key::Passphrase;
use crate::sys::mmsg::{BATCH, RecvBatch};
use crate::time::Mono;

/// Batches taken in one `run`; what is left waits until the shard has done the rest of its round.
const BATCHES_MAX: usize = 128;
/// How long datagrams may lie in the socket when every publisher has at least `BATCHING_LATENCY`: one wake for many.
const BATCHING: Duration = Duration::from_millis(4);
const BATCHING_LATENCY: Duration = Duration::from_millis(120);
/// Timers closer than this are handled together.
const TIMER_GRAIN: Duration = Duration::from_millis(1);
/// While a host is looked up, its answer is looked for this often.
const LOOKUP_GRAIN: Duration = Duration::from_millis(20);

#[derive(Clone, Debug)]
pub struct PortConfig {
    pub address: SocketAddr,
    /// Receive latency of channels without one of their own; a caller that asks for more gets more. At most 65.5 s [SRT 3.2.1.1].
    pub latency: Duration,
    /// Of channels that have none of their own: with one, their callers must encrypt; without, they may not.
    pub passphrase: Option<Passphrase>,
    /// Room for so many in the protocol; how many may be on air is the door's business.
    pub publishers_max: usize,
    /// The fastest publisher expected, bits per second: sizes the receive buffers.
    pub bitrate_max: u64,
    /// Bytes asked of the kernel.
    pub receive_buffer: usize,
    /// Every caller is for this channel, and its whole stream id is the key that it shows.
    pub only: Option<ChannelName>,
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
            only: None,
        }
    }
}

/// Receives all publishers of one UDP port. No thread and no wait inside: call `run` when `fd` is readable (while
/// `polls_fd`) and at `deadline`; then take events with `poll` until there is none.
pub struct Port {
    socket: Socket,
    inbound: RecvBatch,
    listener: Listener,
    mail: Mail,
    lookups: Lookups,
    ran: Mono,
    /// The last `run` found datagrams.
    busy: bool,
    /// The last `run` left datagrams in the socket.
    backlog: bool,
    wanted_buffer: usize,
}

impl Port {
    /// A port with a door of its own.
    ///
    /// # Errors
    /// `BindError`, a sentence for the operator.
    pub fn bind(config: PortConfig, directory: Arc<dyn Directory>) -> Result<Port, BindError> {
        let door = Door::new(directory, config.publishers_max);
        Port::behind(door, config)
    }

    /// A port at a door that others share.
    ///
    /// # Errors
    /// `BindError`, a sentence for the operator.
    pub fn behind(door: Arc<Door>, config: PortConfig) -> Result<Port, BindError> {
        Ok(Port::among(&door, &config, 1)?.swap_remove(0))
    }

    /// So many ports at one address, at least one. Each has the channels that are of its number
    /// ([`ChannelName::shard`]) and wants to be driven by itself, on a thread of its own if you like.
    ///
    /// # Errors
    /// `BindError`, a sentence for the operator.
    pub fn among(door: &Arc<Door>, config: &PortConfig, of: usize) -> Result<Vec<Port>, BindError> {
        let sockets = Socket::bind_all(config.address, config.receive_buffer, of.max(1))?;
        let mail = Mail::among(sockets.len()).map_err(|source| BindError::new("SRT", config.address, source))?;
        let ports = sockets.into_iter().zip(mail).map(|(socket, mail)| Port {
            socket,
            inbound: RecvBatch::default(),
            wanted_buffer: config.receive_buffer,
            listener: Listener::new(config.clone(), Arc::clone(door), mail.place().clone()),
            mail,
            lookups: Lookups::default(),
            ran: Mono(0),
            busy: false,
            backlog: false,
        });
        Ok(ports.collect())
    }

    pub fn door(&self) -> &Arc<Door> {
        self.listener.door()
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.fd()
    }

    /// Readable when another port has something for this one; wakes the shard always.
    pub fn mail_fd(&self) -> Option<BorrowedFd<'_>> {
        self.mail.fd()
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
        let lookup = self.lookups.is_busy().then(|| self.ran + LOOKUP_GRAIN);
        self.listener.deadline().map(|due| due.max(self.ran + grain)).into_iter().chain(lookup).min()
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
        for letter in self.mail.take() {
            self.listener.passed_on(now, letter);
        }
        for _ in 0..BATCHES_MAX {
            if !self.socket.recv(&mut self.inbound) {
                self.backlog = false;
                break;
            }
            self.busy = true;
            for (peer, bytes) in self.inbound.drain() {
                self.listener.datagram(now, peer, bytes);
            }
            if self.listener.outbox.len() >= BATCH {
                self.socket.send(&mut self.listener.outbox);
            }
            if self.inbound.emptied() {
                self.backlog = false;
                break;
            }
        }
        while let Some((to, letter)) = self.listener.poll_letter() {
            self.mail.send(to, letter);
        }
        self.listener.settle(now);
        self.look_up(now);
        self.socket.send(&mut self.listener.outbox);
    }

    /// The source that a channel has from now on: called until it answers, received from, called again. `None`: it has
    /// none. The same once more changes nothing.
    pub fn pull(&mut self, now: Mono, channel: &ChannelName, url: Option<PullUrl>) {
        self.listener.pull(now, channel, url);
        self.look_up(now);
        self.socket.send(&mut self.listener.outbox);
    }

    fn look_up(&mut self, now: Mono) {
        while let Some(wanted) = self.listener.poll_lookup() {
            self.lookups.begin(wanted);
        }
        while let Some(found) = self.lookups.poll() {
            let addresses = found.addresses.and_then(|all| self.reachable(all));
            self.listener.found(now, Found { addresses, ..found });
        }
    }

    /// Those of `addresses` that the socket's family reaches, as it wants them; at least one.
    fn reachable(&self, addresses: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, String> {
        let ours = self.local_addr().map_err(|e| e.to_string())?;
        let both = ours.is_ipv6() && ours.ip().is_unspecified();
        let fitting = addresses.into_iter().filter_map(|address| match address {
            SocketAddr::V4(four) if both => Some((four.ip().to_ipv6_mapped(), four.port()).into()),
            address => (address.is_ipv6() == ours.is_ipv6()).then_some(address),
        });
        let fitting: Vec<SocketAddr> = fitting.collect();
        let family = if ours.is_ipv6() { "IPv6" } else { "IPv4" };
        let why = || format!("it has no address of {family}, which is what srt.listen has");
        if fitting.is_empty() { Err(why()) } else { Ok(fitting) }
    }

    /// The next event, if any.
    pub fn poll(&mut self) -> Option<Event> {
        self.listener.poll()
    }

    /// Ends a publisher from this side: it gets a SHUTDOWN, the shard an `Event::Closed`. Nothing for an unknown one.
    pub fn close(&mut self, now: Mono, publisher: PublisherId, why: Closing) {
        self.listener.close(now, publisher, why);
        self.socket.send(&mut self.listener.outbox);
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
        udp::buffer_warning("SRT", self.socket.receive_buffer, self.wanted_buffer)
    }

    /// A planned stop: SHUTDOWN to every publisher; their `Closed` events follow.
    pub fn shutdown(&mut self, now: Mono) {
        self.listener.shutdown(now);
        self.socket.send(&mut self.listener.outbox);
    }

    fn batching(&self) -> bool {
        self.listener.publishers() > 0 && self.listener.latency_min() >= BATCHING_LATENCY
    }
}
