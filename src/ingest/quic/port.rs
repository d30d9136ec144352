//! One UDP port and all its publishers, as a shard sees it: the work is done on a thread of its own.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::{Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use quinn::{Endpoint, EndpointConfig, IdleTimeout, TokioRuntime, TransportConfig, VarInt};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::handover::Handover;
use super::identity::{Identity, Pin};
use super::server::Server;
use super::tls;
use crate::ingest::udp::{self, BindError};
use crate::ingest::{Closing, Door, Event, PublisherId, PublisherStats};
use crate::media::limits::PEER_IDLE;
use crate::time::Mono;

/// How long media may wait when every publisher has at least `BATCHING_LATENCY`: one wake of the shard for many.
const BATCHING: Duration = Duration::from_millis(4);
const BATCHING_LATENCY: Duration = Duration::from_millis(120);
/// Until a publisher is let in, its connection may have so many bytes under way.
const ROOM_BEFORE: u32 = 16 << 10;
/// Bytes of one segment that may be under way.
const SEGMENT_ROOM: u32 = 4 << 20;
/// What is said to a publisher is short.
const SEND_ROOM: u64 = 64 << 10;
/// Least and largest room of a publisher: what may be under way, and what may wait behind a hole.
const ROOM: std::ops::RangeInclusive<u64> = 512 << 10..=16 << 20;
/// First packets that are kept until it is decided whether they are let in.
const INCOMING_MAX: usize = 256;
const INCOMING_BYTES: u64 = 16 << 10;

#[derive(Debug)]
pub struct PortConfig {
    pub address: SocketAddr,
    pub identity: Identity,
    /// Of the port; a publisher that asks for more gets more, up to ten seconds.
    pub latency: Duration,
    /// The fastest publisher expected, bits per second: sizes the receive windows.
    pub bitrate_max: u64,
    /// Bytes asked of the kernel.
    pub receive_buffer: usize,
}

impl PortConfig {
    pub fn new(identity: Identity) -> PortConfig {
        PortConfig {
            address: (Ipv6Addr::UNSPECIFIED, 9_443).into(),
            identity,
            latency: Duration::from_millis(120),
            bitrate_max: 50_000_000,
            receive_buffer: 16 << 20,
        }
    }

    /// Bytes for a publisher of `rate` bits per second: its latency, and a second more.
    pub(super) fn room(&self, rate: u64, latency: Duration) -> u32 {
        let millis = u64::try_from((latency + Duration::from_secs(1)).as_millis()).unwrap_or(u64::MAX);
        let bytes = (rate / 8).saturating_mul(millis) / 1_000;
        u32::try_from(bytes.clamp(*ROOM.start(), *ROOM.end())).unwrap_or(u32::MAX)
    }
}

/// Gives a port another certificate while it is open; afterwards nothing happens.
#[derive(Clone, Debug)]
pub struct Renewal(Arc<Mutex<Option<Endpoint>>>);

impl Renewal {
    /// For handshakes from now on; connections keep what they were opened with.
    ///
    /// # Errors
    /// The key does not fit the certificate; the one before it stays.
    pub fn renew(&self, identity: &Identity) -> Result<(), PortError> {
        let config = server_config(identity).map_err(PortError::Certificate)?;
        if let Some(endpoint) = &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            endpoint.set_server_config(Some(config));
        }
        Ok(())
    }

    /// The port closes: its socket is to be kept by nobody.
    fn end(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Handshakes at a port since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortCounters {
    /// Completed, whatever followed.
    pub done: u64,
    pub failed: u64,
    /// Not answered: too many at once, of all or of one address.
    pub limited: u64,
    /// Sent back for a token, because there were many.
    pub retried: u64,
    /// Closed without a hello, or after something else.
    pub no_hello: u64,
    /// Publishers told no.
    pub refused: u64,
}

/// Receives all publishers of one UDP port, or those of its shard. Call `run` when `fd` is readable (while `polls_fd`) and
/// at `deadline`; then take events with `poll` until there is none. Dropping the last one closes the port.
pub struct Port {
    desk: Arc<Desk>,
    handover: Arc<Handover>,
    /// Counters are told by one of several.
    is_first: bool,
    events: VecDeque<Event>,
    ran: Mono,
    busy: bool,
}

/// What the ports of all shards share: one socket, one thread.
struct Desk {
    server: Arc<Server>,
    renewal: Renewal,
    address: SocketAddr,
    pin: Pin,
    wanted_buffer: usize,
    receive_buffer: usize,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Port {
    /// # Errors
    /// A sentence for the operator.
    pub fn bind(door: Arc<Door>, config: PortConfig) -> Result<Port, PortError> {
        Ok(Port::among(door, config, 1)?.swap_remove(0))
    }

    /// One port for each of so many shards, at least one: each has the channels that are of its number
    /// ([`ChannelName::shard`](crate::media::channel::ChannelName::shard)).
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn among(door: Arc<Door>, config: PortConfig, of: usize) -> Result<Vec<Port>, PortError> {
        let handovers = (0..of.max(1)).map(|_| Handover::new().map(Arc::new)).collect::<io::Result<Vec<_>>>();
        let handovers = handovers.map_err(PortError::System)?;
        let desk = Arc::new(Desk::open(door, config, handovers.clone())?);
        let ports = handovers.into_iter().enumerate().map(|(number, handover)| Port {
            desk: Arc::clone(&desk),
            handover,
            is_first: number == 0,
            events: VecDeque::new(),
            ran: Mono(0),
            busy: false,
        });
        Ok(ports.collect())
    }

    pub fn local_addr(&self) -> SocketAddr {
        self.desk.address
    }

    /// Of the certificate that the port was opened with.
    pub fn pin(&self) -> Pin {
        self.desk.pin
    }

    pub fn renewal(&self) -> Renewal {
        self.desk.renewal.clone()
    }

    /// Readable while events wait.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.handover.fd()
    }

    /// When `run` wants to be called at the latest; `None`: not before something comes.
    pub fn deadline(&self) -> Option<Mono> {
        (!self.polls_fd()).then(|| self.ran + BATCHING)
    }

    /// Whether a readable `fd` must wake the shard. Not while media flows with latency to spare: then the deadline,
    /// 4 ms after the last `run`, collects what came meanwhile.
    pub fn polls_fd(&self) -> bool {
        !(self.busy && self.desk.server.latency_min() >= BATCHING_LATENCY)
    }

    /// Takes what came. Never waits.
    pub fn run(&mut self, now: Mono) {
        self.ran = now;
        let mut came = self.handover.take();
        self.busy = !came.is_empty();
        self.events.append(&mut came);
    }

    /// The next event, if any.
    pub fn poll(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Ends a publisher from this side: it is told why, the shard gets an `Event::Closed`. Nothing for an unknown one.
    pub fn close(&mut self, now: Mono, publisher: PublisherId, why: Closing) {
        self.desk.server.close(now, publisher, why);
    }

    /// `None` once it is closed: its last statistics came with `Event::Closed`.
    pub fn stats(&self, now: Mono, publisher: PublisherId) -> Option<PublisherStats> {
        self.desk.server.stats(now, publisher)
    }

    /// Of all shards, told by the first.
    pub fn counters(&self) -> PortCounters {
        if !self.is_first {
            return PortCounters::default();
        }
        let counters = &self.desk.server.counters;
        PortCounters {
            done: counters.done.load(Ordering::Relaxed),
            failed: counters.failed.load(Ordering::Relaxed),
            limited: counters.limited.load(Ordering::Relaxed),
            retried: counters.retried.load(Ordering::Relaxed),
            no_hello: counters.no_hello.load(Ordering::Relaxed),
            refused: counters.refused.load(Ordering::Relaxed),
        }
    }

    pub fn publishers(&self) -> usize {
        self.desk.server.publishers()
    }

    /// A sentence for log and doctor when the kernel grants less than was asked for.
    pub fn receive_buffer_warning(&self) -> Option<String> {
        udp::buffer_warning("QUIC", self.desk.receive_buffer, self.desk.wanted_buffer)
    }

    /// A planned stop: every publisher, of all shards, is told to come back; their `Closed` events follow.
    pub fn shutdown(&mut self, now: Mono) {
        self.desk.server.close_all(now, Closing::Shutdown);
    }
}

impl Desk {
    fn open(door: Arc<Door>, config: PortConfig, handovers: Vec<Arc<Handover>>) -> Result<Desk, PortError> {
        let socket = udp::bind(config.address).map_err(|source| BindError::new("QUIC", config.address, source))?;
        let socket: UdpSocket = socket.into();
        let receive_buffer = udp::tune(&socket, config.receive_buffer);
        let address = socket.local_addr().map_err(PortError::System)?;
        let (pin, wanted_buffer) = (config.identity.pin(), config.receive_buffer);
        let server_config = server_config(&config.identity).map_err(PortError::Certificate)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(PortError::System)?;
        let endpoint = {
            let _inside = runtime.enter();
            Endpoint::new(EndpointConfig::default(), Some(server_config), socket, Arc::new(TokioRuntime))
        };
        let endpoint = endpoint.map_err(PortError::System)?;
        let renewal = Renewal(Arc::new(Mutex::new(Some(endpoint.clone()))));
        let server = Arc::new(Server::new(door, config, handovers));
        let (stop, stopped) = watch::channel(false);
        let thread = start(runtime, Arc::clone(&server), endpoint, stopped).map_err(PortError::System)?;
        Ok(Desk { server, renewal, address, pin, wanted_buffer, receive_buffer, stop, thread: Some(thread) })
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.renewal.end();
        // Its thread is gone if nobody hears it.
        self.stop.send(true).ok();
        if let Some(thread) = self.thread.take() {
            // Its panic has been logged where it happened.
            drop(thread.join());
        }
    }
}

fn start(
    runtime: Runtime,
    server: Arc<Server>,
    endpoint: Endpoint,
    stopped: watch::Receiver<bool>,
) -> io::Result<JoinHandle<()>> {
    let work = move || runtime.block_on(server.run(endpoint, stopped));
    std::thread::Builder::new().name("quic".into()).spawn(work)
}

fn server_config(identity: &Identity) -> Result<quinn::ServerConfig, String> {
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(Some(idle()))
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        // Segments may come once the hello was answered.
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(SEGMENT_ROOM))
        .receive_window(VarInt::from_u32(ROOM_BEFORE))
        .send_window(SEND_ROOM)
        .datagram_receive_buffer_size(None);
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(tls::receiver(identity)?));
    config
        .transport_config(Arc::new(transport))
        .migration(true)
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size(INCOMING_BYTES)
        .incoming_buffer_size_total(INCOMING_BYTES * INCOMING_MAX as u64);
    Ok(config)
}

pub(super) fn idle() -> IdleTimeout {
    IdleTimeout::try_from(PEER_IDLE).expect("five seconds fit into a varint of milliseconds")
}

/// Why a port could not be opened; prints one sentence.
#[derive(Debug)]
pub enum PortError {
    Bind(BindError),
    Certificate(String),
    /// No descriptor, thread or memory.
    System(io::Error),
}

impl fmt::Display for PortError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PortError::Bind(error) if error.kind() == io::ErrorKind::AddrInUse => {
                write!(f, "{error}, or set quic.enabled = false")
            }
            PortError::Bind(error) => error.fmt(f),
            PortError::Certificate(what) => write!(f, "QUIC: {what}"),
            PortError::System(source) => write!(f, "QUIC port: {source}"),
        }
    }
}

impl std::error::Error for PortError {}

impl From<BindError> for PortError {
    fn from(error: BindError) -> PortError {
        PortError::Bind(error)
    }
}
