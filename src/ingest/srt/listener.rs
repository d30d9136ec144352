//! All publishers of a port, without its socket: datagrams in, datagrams and events out.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sapflow_srt::{CloseReason, ConnId, Listener as CrateListener, RejectCode, Stats};

use super::crypto::Passphrase;
use super::port::PortConfig;
use super::sniff::{self, Conclusion, FullAck};
use super::socket::{Epoch, Outgoing};
use super::stats::{PublisherStats, version};
use super::streamid::StreamId;
use crate::ingest::admission::{Admission, Directory, Refusal, Tries};
use crate::ingest::source::{Claim, Leg, PublisherId, Sources, next_publisher};
use crate::media::channel::ChannelName;
use crate::media::limits::PEER_IDLE;
use crate::telemetry::Redacted;
use crate::time::Mono;

/// Events that wait for the shard. It drains them after each `run`, which makes far fewer.
const EVENTS_MAX: usize = 32_768;
/// A denied caller hears of it after this long, whatever was wrong.
const DENIAL_DELAY: Duration = Duration::from_millis(100);
/// Denied callers that wait for their answer; more are told at once.
const DENIALS_MAX: usize = 256;
/// Handshake packets answered per second: a flood costs about 2 % of a core.
const HANDSHAKES_PER_SECOND: u32 = 5_000;
/// An address whose input was unusable stays out for this long, so that a retrying encoder makes no endless sessions.
const INVALID_INPUT_BLOCK: Duration = Duration::from_secs(10);
/// The crate's smallest and our largest receive buffer, packets.
const BUFFER_PACKETS: std::ops::RangeInclusive<u64> = 8_192..=131_072;
/// The crate holds a packet for up to this much beyond its latency.
const HOLD_BEYOND_LATENCY: Duration = Duration::from_secs(1);

/// What happened on a port.
#[derive(Debug)]
pub enum Event {
    Connected(Connected),
    /// The next payload of a publisher, in order; usually seven transport-stream packets.
    Data {
        publisher: PublisherId,
        payload: Bytes,
    },
    Closed {
        publisher: PublisherId,
        reason: Closing,
        stats: PublisherStats,
    },
    /// A caller was told no. `code` is libsrt's: 1400 and up ours, below 20 SRT's own.
    Refused {
        peer: Redacted<SocketAddr>,
        channel: Option<ChannelName>,
        code: u16,
        why: String,
    },
    /// Payloads of this publisher were dropped because nobody took the events; counted in its statistics.
    Overflow {
        publisher: PublisherId,
    },
}

/// A publisher is on air.
#[derive(Clone, Debug)]
pub struct Connected {
    pub publisher: PublisherId,
    pub channel: ChannelName,
    pub leg: Leg,
    pub peer: Redacted<SocketAddr>,
    /// Negotiated: the larger of the port's and the caller's.
    pub latency: Duration,
    /// The caller's libsrt version, `1.5.1`.
    pub peer_version: Option<String>,
    /// AES key length; 0 in clear.
    pub key_bits: u16,
    /// The publisher that gave way; its `Closed` came before.
    pub replaced: Option<PublisherId>,
}

/// Why a publisher is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closing {
    /// It said so (SRT SHUTDOWN).
    Finished,
    /// Nothing came from it for 5 s.
    Silent,
    /// Another publisher took its leg.
    Replaced,
    /// Its media cannot be used; its address stays out for 10 s.
    InputInvalid,
    /// The operator, or a limit of the session.
    Stopped,
    /// The port closes.
    Shutdown,
}

impl fmt::Display for Closing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Closing::Finished => "the publisher finished",
            Closing::Silent => "nothing came from the publisher for 5 s",
            Closing::Replaced => "another publisher took over",
            Closing::InputInvalid => "its media cannot be used",
            Closing::Stopped => "stopped on this side",
            Closing::Shutdown => "the port closes",
        })
    }
}

/// Counters of a port since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortCounters {
    /// Datagrams taken from the socket.
    pub datagrams: u64,
    /// Not an SRT packet, or longer than 1500 bytes.
    pub malformed: u64,
    /// For no connection, or from another address than its.
    pub stray: u64,
    /// Handshakes that did not come from the address they claim.
    pub bad_cookie: u64,
    /// Handshakes ignored because there were too many in that second.
    pub rate_limited: u64,
    /// Callers told no.
    pub refused: u64,
    /// Datagrams that the kernel dropped because its receive buffer was full.
    pub kernel_drops: u64,
    /// Datagrams that the kernel did not take from us.
    pub send_drops: u64,
    /// Payloads dropped because nobody took the events.
    pub overflowed: u64,
}

/// A publisher's connection.
struct Publisher {
    id: PublisherId,
    conn: ConnId,
    channel: ChannelName,
    leg: Leg,
    peer: SocketAddr,
    conclusion: Conclusion,
    latency: Duration,
    /// When its last data packet came; at first, when it connected.
    heard: Mono,
    ack: Option<FullAck>,
    overflowed: u64,
    /// An `Overflow` is on its way.
    overflowing: bool,
}

pub(super) struct Listener {
    config: PortConfig,
    buffer_packets: u32,
    srt: CrateListener,
    epoch: Epoch,
    directory: Arc<dyn Directory>,
    /// By the crate's connection id.
    publishers: HashMap<u32, Publisher>,
    by_caller: HashMap<(SocketAddr, u32), u32>,
    by_id: HashMap<PublisherId, u32>,
    sources: Sources,
    tries: Tries,
    /// Denied callers whose answer waits, soonest first.
    denials: VecDeque<(Mono, ConnId, SocketAddr)>,
    events: VecDeque<Event>,
    pub(super) outgoing: Vec<Outgoing>,
    counters: PortCounters,
    /// The least latency of all publishers.
    latency_min: Duration,
}

impl Listener {
    pub(super) fn new(config: PortConfig, directory: Arc<dyn Directory>) -> Listener {
        let epoch = Epoch::now();
        let buffer_packets = buffer_packets(config.bitrate_max, config.latency);
        let srt = sapflow_srt::Config {
            latency: config.latency,
            max_connections: config.publishers_max + DENIALS_MAX,
            handshakes_per_second: HANDSHAKES_PER_SECOND,
            buffer_packets: buffer_packets as usize,
            peer_idle: PEER_IDLE,
            // With no secret of the whole listener each caller may bring either key length, and none may bring none.
            require_encryption: config.passphrase.is_some(),
            ..sapflow_srt::Config::default()
        };
        Listener {
            srt: CrateListener::new(srt, epoch.origin()),
            config,
            buffer_packets,
            epoch,
            directory,
            publishers: HashMap::new(),
            by_caller: HashMap::new(),
            by_id: HashMap::new(),
            sources: Sources::default(),
            tries: Tries::default(),
            denials: VecDeque::new(),
            events: VecDeque::new(),
            outgoing: Vec::new(),
            counters: PortCounters::default(),
            latency_min: Duration::MAX,
        }
    }

    pub(super) fn datagram(&mut self, now: Mono, peer: SocketAddr, bytes: &[u8]) {
        self.counters.datagrams += 1;
        if sniff::is_handshake(bytes) {
            return self.handshake(now, peer, bytes);
        }
        if sniff::is_data(bytes)
            && let Some(publisher) = sniff::destination(bytes).and_then(|conn| self.publishers.get_mut(&conn))
            && publisher.peer == peer
        {
            publisher.heard = now;
        }
        self.srt.handle_datagram(self.epoch.instant(now), peer, bytes);
    }

    /// Timers, then everything that the crate has ready. Call after the last datagram of a batch.
    pub(super) fn settle(&mut self, now: Mono) {
        self.srt.handle_timeout(self.epoch.instant(now));
        while let Some((due, conn, peer)) = self.denials.front().copied()
            && due <= now
        {
            self.denials.pop_front();
            self.refuse(conn, peer, None, &Refusal::Denied);
        }
        self.take_transmits(None);
        self.take_events(now, None);
    }

    pub(super) fn deadline(&self) -> Option<Mono> {
        let srt = self.srt.poll_timeout().map(|at| self.epoch.mono(at));
        let denial = self.denials.front().map(|(due, ..)| *due);
        srt.into_iter().chain(denial).min()
    }

    pub(super) fn poll(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    pub(super) fn close(&mut self, now: Mono, id: PublisherId, why: Closing) {
        let Some(conn) = self.by_id.get(&id).copied() else { return };
        let stats = self.stats_of(now, conn);
        let peer = self.publishers.get(&conn).map(|p| p.peer.ip());
        self.srt.close(ConnId(conn), self.epoch.instant(now));
        self.take_transmits(None);
        self.closed(conn, why, stats);
        if let (Closing::InputInvalid, Some(address)) = (why, peer) {
            self.tries.block(now, address, INVALID_INPUT_BLOCK);
        }
    }

    pub(super) fn shutdown(&mut self, now: Mono) {
        let mut all: Vec<PublisherId> = self.by_id.keys().copied().collect();
        all.sort_unstable();
        for id in all {
            self.close(now, id, Closing::Shutdown);
        }
    }

    pub(super) fn stats(&self, now: Mono, id: PublisherId) -> Option<PublisherStats> {
        self.by_id.get(&id).map(|conn| self.stats_of(now, *conn))
    }

    pub(super) fn counters(&self) -> PortCounters {
        let srt = self.srt.stats();
        PortCounters {
            malformed: srt.malformed,
            stray: srt.stray,
            bad_cookie: srt.bad_cookie,
            rate_limited: srt.rate_limited,
            ..self.counters
        }
    }

    pub(super) fn publishers(&self) -> usize {
        self.publishers.len()
    }

    /// The least latency of all publishers; `Duration::MAX` without one.
    pub(super) fn latency_min(&self) -> Duration {
        self.latency_min
    }

    fn handshake(&mut self, now: Mono, peer: SocketAddr, bytes: &[u8]) {
        let conclusion = sniff::conclusion(bytes);
        self.take_transmits(None);
        self.srt.handle_datagram(self.epoch.instant(now), peer, bytes);
        self.take_transmits(conclusion);
        self.take_events(now, conclusion);
    }

    /// `conclusion`: the handshake that was just handled, if it was one; a rejection among the packets answers it.
    fn take_transmits(&mut self, conclusion: Option<Conclusion>) {
        while let Some((peer, mut bytes)) = self.srt.poll_transmit() {
            if let Some(ack) = sniff::full_ack(&bytes) {
                let caller = sniff::destination(&bytes).and_then(|socket| self.by_caller.get(&(peer, socket)));
                if let Some(publisher) = caller.and_then(|conn| self.publishers.get_mut(conn)) {
                    publisher.ack = Some(ack);
                }
            } else if let (Some(conclusion), Some(code)) = (conclusion, sniff::rejection(&bytes)) {
                self.crate_refused(peer, &mut bytes, code, conclusion);
            }
            self.outgoing.push((peer, bytes));
        }
    }

    /// The crate refused a caller before anybody was asked.
    fn crate_refused(&mut self, peer: SocketAddr, bytes: &mut [u8], code: u32, conclusion: Conclusion) {
        let mut why = Refused { code: u16::try_from(code - 1_000).unwrap_or(0), why: sentence(code) };
        if conclusion.key_length == 24 {
            // The crate calls it malformed; it is only not ours.
            let refusal =
                Refusal::Unsupported("AES-192 is not supported: set pbkeylen to 16 (AES-128) or 32 (AES-256)");
            sniff::set_rejection(bytes, wire_code(&refusal).0);
            why = Refused { code: refusal.code(), why: refusal.to_string() };
        }
        self.push_refused(peer, None, why);
    }

    fn take_events(&mut self, now: Mono, conclusion: Option<Conclusion>) {
        while let Some(event) = self.srt.poll_event() {
            match event {
                sapflow_srt::Event::Connect { id, peer, stream_id } => {
                    self.connect(now, id, peer, &stream_id, conclusion.unwrap_or_default());
                }
                sapflow_srt::Event::Data { id, payload } => self.data(id, payload),
                sapflow_srt::Event::Closed { id, reason, stats } => {
                    let why = if reason == Some(CloseReason::Shutdown) { Closing::Finished } else { Closing::Silent };
                    let stats = self.describe(now, id.0, &stats);
                    self.closed(id.0, why, stats);
                }
            }
        }
    }

    fn data(&mut self, conn: ConnId, payload: Vec<u8>) {
        let Some(publisher) = self.publishers.get_mut(&conn.0) else { return };
        if self.events.len() < EVENTS_MAX {
            publisher.overflowing = false;
            self.events.push_back(Event::Data { publisher: publisher.id, payload: Bytes::from(payload) });
            return;
        }
        publisher.overflowed += 1;
        self.counters.overflowed += 1;
        if !publisher.overflowing {
            publisher.overflowing = true;
            self.events.push_back(Event::Overflow { publisher: publisher.id });
        }
    }

    fn connect(&mut self, now: Mono, conn: ConnId, peer: SocketAddr, stream_id: &[u8], conclusion: Conclusion) {
        let request = match self.admit(now, peer.ip(), stream_id) {
            Ok(request) => request,
            Err((_, Refusal::Denied)) => {
                self.tries.failed(now, peer.ip());
                return self.deny_later(now, conn, peer);
            }
            Err((channel, refusal)) => return self.refuse(conn, peer, channel, &refusal),
        };
        let crypto = self.config.passphrase.as_ref().map(|p| Passphrase::config(p, conclusion.key_length));
        let channel = request.admission.channel;
        if !self.srt.accept_with_crypto(conn, self.epoch.instant(now), crypto) {
            self.take_transmits(None);
            self.tries.failed(now, peer.ip());
            let why = "the passphrase is not the one of this port".to_owned();
            return self.push_refused(peer, Some(channel), Refused { code: 10, why });
        }
        self.take_transmits(None);
        if let Some(old) = request.replaces {
            self.close(now, old, Closing::Replaced);
        }
        self.connected(now, conn, peer, conclusion, Accepted { channel, leg: request.leg, replaces: request.replaces });
    }

    fn admit(&self, now: Mono, address: IpAddr, stream_id: &[u8]) -> Result<Request, (Option<ChannelName>, Refusal)> {
        if self.tries.blocked(now, address) {
            return Err((None, Refusal::TooManyTries));
        }
        let wanted = StreamId::parse(stream_id).map_err(|refusal| (None, refusal))?;
        let admission = self.directory.admit(&wanted.channel, wanted.key.expose(), wanted.leg).map_err(|refusal| {
            let known = refusal != Refusal::Denied;
            (ChannelName::new(&wanted.channel).ok().filter(|_| known), refusal)
        })?;
        let heard = |id| self.by_id.get(&id).and_then(|conn| self.publishers.get(conn)).map_or(Mono(0), |p| p.heard);
        let replaces = match self.sources.claim(now, &admission.channel, wanted.leg, admission.takeover, heard) {
            Claim::Free if self.publishers.len() >= self.config.publishers_max => {
                let limit = format!("{} publishers are connected, which is the limit", self.config.publishers_max);
                return Err((Some(admission.channel), Refusal::NoCapacity(limit)));
            }
            Claim::Free => None,
            Claim::Replaces(old) => Some(old),
            Claim::Busy => return Err((Some(admission.channel), Refusal::Busy)),
        };
        Ok(Request { admission, leg: wanted.leg, replaces })
    }

    fn connected(&mut self, now: Mono, conn: ConnId, peer: SocketAddr, conclusion: Conclusion, accepted: Accepted) {
        let id = next_publisher();
        let latency = self.srt.latency(conn).unwrap_or(self.config.latency);
        let Accepted { channel, leg, replaces } = accepted;
        self.sources.hold(channel.clone(), leg, id);
        self.by_caller.insert((peer, conclusion.socket), conn.0);
        self.by_id.insert(id, conn.0);
        let publisher = Publisher {
            id,
            conn,
            channel: channel.clone(),
            leg,
            peer,
            conclusion,
            latency,
            heard: now,
            ack: None,
            overflowed: 0,
            overflowing: false,
        };
        self.publishers.insert(conn.0, publisher);
        self.latency_min = self.latency_min.min(latency);
        self.events.push_back(Event::Connected(Connected {
            publisher: id,
            channel,
            leg,
            peer: Redacted::new(peer),
            latency,
            peer_version: version(conclusion.version),
            key_bits: u16::from(conclusion.key_length) * 8,
            replaced: replaces,
        }));
    }

    fn closed(&mut self, conn: u32, reason: Closing, stats: PublisherStats) {
        let Some(publisher) = self.publishers.remove(&conn) else { return };
        self.by_caller.remove(&(publisher.peer, publisher.conclusion.socket));
        self.by_id.remove(&publisher.id);
        self.sources.release(&publisher.channel, publisher.leg, publisher.id);
        self.latency_min = self.publishers.values().map(|p| p.latency).min().unwrap_or(Duration::MAX);
        self.events.push_back(Event::Closed { publisher: publisher.id, reason, stats });
    }

    /// The same answer at the same time, whatever was wrong.
    fn deny_later(&mut self, now: Mono, conn: ConnId, peer: SocketAddr) {
        if self.denials.len() >= DENIALS_MAX {
            return self.refuse(conn, peer, None, &Refusal::Denied);
        }
        self.denials.push_back((now + DENIAL_DELAY, conn, peer));
    }

    fn refuse(&mut self, conn: ConnId, peer: SocketAddr, channel: Option<ChannelName>, refusal: &Refusal) {
        self.srt.reject(conn, wire_code(refusal));
        self.take_transmits(None);
        self.push_refused(peer, channel, Refused { code: refusal.code(), why: refusal.to_string() });
    }

    fn push_refused(&mut self, peer: SocketAddr, channel: Option<ChannelName>, refused: Refused) {
        self.counters.refused += 1;
        if self.events.len() < EVENTS_MAX {
            let Refused { code, why } = refused;
            self.events.push_back(Event::Refused { peer: Redacted::new(peer), channel, code, why });
        }
    }

    fn stats_of(&self, now: Mono, conn: u32) -> PublisherStats {
        let stats = self.srt.connection_stats(ConnId(conn)).unwrap_or_default();
        self.describe(now, conn, &stats)
    }

    fn describe(&self, now: Mono, conn: u32, stats: &Stats) -> PublisherStats {
        let mut all = PublisherStats::new(stats);
        let Some(publisher) = self.publishers.get(&conn) else { return all };
        debug_assert_eq!(publisher.conn, ConnId(conn), "the table's key is the connection's id");
        all.overflowed = publisher.overflowed;
        all.latency = Some(publisher.latency);
        all.peer_version = version(publisher.conclusion.version);
        all.key_bits = u16::from(publisher.conclusion.key_length) * 8;
        all.age = Some(now - publisher.heard);
        if let Some(ack) = &publisher.ack {
            all.add_ack(ack, self.buffer_packets);
        }
        all
    }
}

/// What a caller may have, before the crate accepted it.
struct Request {
    admission: Admission,
    leg: Leg,
    replaces: Option<PublisherId>,
}

struct Accepted {
    channel: ChannelName,
    leg: Leg,
    replaces: Option<PublisherId>,
}

struct Refused {
    code: u16,
    why: String,
}

/// Packets that hold `bitrate` for the latency and what the crate may hold beyond it.
fn buffer_packets(bitrate: u64, latency: Duration) -> u32 {
    let held = u64::try_from((latency + HOLD_BEYOND_LATENCY).as_millis()).unwrap_or(u64::MAX);
    let packets = (bitrate / 8 / 1_316).saturating_mul(held) / 1_000;
    u32::try_from(packets.clamp(*BUFFER_PACKETS.start(), *BUFFER_PACKETS.end())).unwrap_or(u32::MAX)
}

/// libsrt adds 1000 to its reasons on the wire.
fn wire_code(refusal: &Refusal) -> RejectCode {
    RejectCode(u32::from(refusal.code()) + 1_000)
}

/// What the crate's own refusals mean for the caller's operator.
fn sentence(code: u32) -> String {
    match RejectCode(code) {
        RejectCode::ROGUE => "the handshake is malformed or not that of a live sender",
        RejectCode::BACKLOG => "too many connections wait for an answer",
        RejectCode::VERSION => "handshake version 4 (libsrt before 1.3) is not supported",
        RejectCode::BADSECRET => "the passphrase is not the one of this port",
        RejectCode::UNSECURE => "either this port wants a passphrase and the caller has none, or the other way round",
        RejectCode::MESSAGE_API => "stream mode is not supported: use the live transmission type",
        RejectCode::CONGESTION => "only the congestion control \"live\" is supported",
        RejectCode::FILTER => "packet filters (FEC) are not supported",
        RejectCode::GROUP => "connection groups (bonding) are not supported",
        _ => return format!("refused by the SRT layer with code {code}"),
    }
    .to_owned()
}
