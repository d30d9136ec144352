//! The cores of this room as whoever has no socket drives them: datagrams in, datagrams out. For the fuzz targets of
//! `tests/fuzz`; nothing of the product names it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::bond::Bond;
pub use super::bond::BondEvent;
use super::call::{WINDOW, Wishes};
use super::caller::{Caller, CallerConfig};
use super::crypto::{KeyLength, Keys};
use super::filter::Filter;
use super::group::Bonding;
use super::handshake::Handshake;
use super::inbound::Inbound;
use super::link::Link;
use super::listener::{Listener, PortCounters};
use super::outbox::Outbox;
use super::packet::{Control, HEADER, Packet, timestamp, write_nak};
use super::place::Place;
use super::playout::Playout;
use super::port::PortConfig;
use super::sender::Sender;
use super::seq::Seq;
use super::stats;
use crate::ingest::publish::{PublishEvent, PublishStats};
use crate::ingest::{Closing, Door, Event, PublisherId, PublisherStats};
use crate::media::key::Passphrase;
use crate::time::Mono;

/// A datagram and where it goes.
pub type Sent = (SocketAddr, Vec<u8>);

/// The packet read and written again; `None`: it is none, or one that is not written.
pub fn rewritten(datagram: &[u8]) -> Option<Vec<u8>> {
    let (packet, socket) = Packet::parse(datagram)?;
    let (stamp, mut out) = (timestamp(datagram), Vec::new());
    match packet {
        Packet::Data(data) => {
            data.write(&mut out, socket);
            out.extend_from_slice(&datagram[HEADER..]);
        }
        Packet::Control(Control::Nak(losses)) => write_nak(&mut out, stamp, socket, losses),
        Packet::Control(Control::Other) => return None,
        Packet::Control(control) => control.write(&mut out, stamp, socket),
    }
    Some(out)
}

/// The body of a handshake read and written again, as a request; `None`: it is none.
pub fn rewritten_handshake(body: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    Handshake::parse(body)?.write(&mut out, false);
    Some(out)
}

/// A port without its socket.
pub struct Listening(Listener);

impl Listening {
    pub fn new(config: PortConfig, door: Arc<Door>) -> Listening {
        Listening(Listener::new(config, door, Place::alone()))
    }

    pub fn datagram(&mut self, now: Mono, peer: SocketAddr, datagram: &[u8]) {
        self.0.datagram(now, peer, BytesMut::from(datagram));
    }

    /// Does what is due; call it behind each batch of datagrams.
    pub fn settle(&mut self, now: Mono) {
        self.0.settle(now);
    }

    pub fn deadline(&self) -> Option<Mono> {
        self.0.deadline()
    }

    pub fn poll(&mut self) -> Option<Event> {
        self.0.poll()
    }

    /// What goes out, in order; it is taken.
    pub fn sent(&mut self) -> Vec<Sent> {
        drain(&mut self.0.outbox)
    }

    pub fn close(&mut self, now: Mono, publisher: PublisherId, why: Closing) {
        self.0.close(now, publisher, why);
    }

    pub fn shutdown(&mut self, now: Mono) {
        self.0.shutdown(now);
    }

    pub fn stats(&self, now: Mono, publisher: PublisherId) -> Option<PublisherStats> {
        self.0.stats(now, publisher)
    }

    pub fn counters(&self) -> PortCounters {
        self.0.counters()
    }

    pub fn publishers(&self) -> usize {
        self.0.publishers()
    }
}

/// A publisher of ours without its socket, from its first word on.
pub struct Calling(Caller);

impl Calling {
    /// `secret`: a passphrase and the length of its keys, bytes.
    pub fn new(
        now: Mono,
        peer: SocketAddr,
        stream_id: &str,
        latency: Duration,
        secret: Option<(Passphrase, usize)>,
    ) -> Calling {
        Calling(Caller::new(now, config(stream_id, latency, secret), peer))
    }

    pub fn datagram(&mut self, now: Mono, datagram: &[u8]) {
        self.0.datagram(now, BytesMut::from(datagram));
    }

    pub fn tick(&mut self, now: Mono) {
        self.0.tick(now);
    }

    pub fn deadline(&self) -> Option<Mono> {
        self.0.deadline()
    }

    pub fn poll(&mut self) -> Option<PublishEvent> {
        self.0.poll()
    }

    pub fn send(&mut self, now: Mono, payload: &[u8]) -> bool {
        self.0.send(now, payload)
    }

    pub fn stop(&mut self, now: Mono) {
        self.0.stop(now);
    }

    /// What goes out, in order; it is taken.
    pub fn sent(&mut self) -> Vec<Sent> {
        drain(&mut self.0.outbox)
    }
}

/// A publisher of ours that has several links, without their sockets.
pub struct Bonded(Bond);

impl Bonded {
    /// Links to `peers`, all of which carry, or with `backup` one at a time. `secret` as for [`Calling`].
    pub fn new(
        now: Mono,
        backup: bool,
        peers: &[SocketAddr],
        stream_id: &str,
        latency: Duration,
        secret: Option<(Passphrase, usize)>,
    ) -> Bonded {
        let bonding = if backup { Bonding::Backup } else { Bonding::Broadcast };
        Bonded(Bond::new(now, bonding, config(stream_id, latency, secret), peers))
    }

    /// A link that is to be called: `call` or `no_way` has to follow.
    pub fn wants_call(&self, now: Mono) -> Option<usize> {
        self.0.wants_call(now)
    }

    pub fn call(&mut self, now: Mono, link: usize) {
        self.0.call(now, link);
    }

    pub fn no_way(&mut self, now: Mono, link: usize) {
        self.0.no_way(now, link);
    }

    pub fn unreachable(&mut self, link: usize) {
        self.0.unreachable(link);
    }

    pub fn datagram(&mut self, now: Mono, link: usize, datagram: &[u8]) {
        self.0.datagram(now, link, BytesMut::from(datagram));
    }

    pub fn tick(&mut self, now: Mono) {
        self.0.tick(now);
    }

    pub fn deadline(&self) -> Option<Mono> {
        self.0.deadline()
    }

    pub fn poll(&mut self) -> Option<BondEvent> {
        self.0.poll()
    }

    pub fn send(&mut self, now: Mono, payload: &[u8]) -> bool {
        self.0.send(now, payload)
    }

    pub fn is_connected(&self) -> bool {
        self.0.is_connected()
    }

    pub fn stats(&self) -> PublishStats {
        self.0.stats()
    }

    pub fn stop(&mut self, now: Mono) {
        self.0.stop(now);
    }

    /// What goes out over a link, in order; it is taken.
    pub fn sent(&mut self, link: usize) -> Vec<Vec<u8>> {
        self.0.outbox(link).map(drain).unwrap_or_default().into_iter().map(|(_, datagram)| datagram).collect()
    }
}

/// The sending end of a connection that is open.
pub struct Sending {
    sender: Sender,
    link: Link,
    out: Outbox,
    /// What tells the receiver of the keys; empty in clear.
    pub keys: Vec<u8>,
}

impl Sending {
    /// `first`: the number of the first packet. `secret`: a passphrase and the length of its keys, bytes. `renew_after`:
    /// packets under one key.
    pub fn new(
        now: Mono,
        first: u32,
        latency: Duration,
        secret: Option<(Passphrase, usize)>,
        renew_after: u64,
    ) -> Sending {
        let keys = keyed(secret).map(|(passphrase, length)| Keys::make(&passphrase, length));
        let message = keys.as_ref().map_or_else(Vec::new, |keys| keys.message(&[super::packet::Key::Even]));
        Sending {
            sender: Sender::new(Seq::new(first), latency, keys, renew_after),
            link: Link::new(now, NOBODY, 1),
            out: Outbox::default(),
            keys: message,
        }
    }

    /// The same with a packet filter, such as `fec,cols:10,rows:5`; without one if it is none.
    pub fn filtered(mut self, filter: &str) -> Sending {
        self.sender = self.sender.filtered(Filter::parse(filter));
        self
    }

    pub fn send(&mut self, now: Mono, payload: &[u8]) -> bool {
        self.sender.send(now, payload, &mut self.link, &mut self.out)
    }

    pub fn datagram(&mut self, now: Mono, datagram: &[u8]) {
        if let Some((Packet::Control(control), _)) = Packet::parse(datagram) {
            self.sender.control(now, &control, &mut self.link, &mut self.out);
        }
    }

    pub fn tick(&mut self, now: Mono) {
        self.sender.tick(now, &mut self.link, &mut self.out);
    }

    pub fn deadline(&self) -> Option<Mono> {
        self.sender.deadline()
    }

    /// What goes out, in order; it is taken.
    pub fn sent(&mut self) -> Vec<Vec<u8>> {
        drain(&mut self.out).into_iter().map(|(_, datagram)| datagram).collect()
    }

    /// `dropped`: given up because nobody acknowledged them.
    pub fn stats(&self) -> PublishStats {
        let counts = self.sender.counts;
        PublishStats {
            sent: counts.sent,
            sent_bytes: counts.sent_bytes,
            retransmitted: counts.retransmitted,
            acknowledged: counts.acknowledged,
            dropped: counts.given_up,
            waiting: self.sender.waiting(),
            rtt: self.sender.rtt(),
            ..PublishStats::default()
        }
    }
}

/// The receiving end of a connection that is open.
pub struct Receiving {
    inbound: Inbound,
    link: Link,
    out: Outbox,
}

impl Receiving {
    /// `first`: the number of the first packet; `capacity`: packets that are held at most; `timestamp`: of the handshake
    /// that came at `now`. `keys`: a passphrase and the message that tells of the keys.
    ///
    /// # Errors
    /// The keys cannot be used.
    pub fn new(
        now: Mono,
        first: u32,
        capacity: u32,
        timestamp: u32,
        latency: Duration,
        keys: Option<(&Passphrase, &[u8])>,
    ) -> Result<Receiving, String> {
        let keys = keys.map(|(passphrase, message)| Keys::read(passphrase, message)).transpose();
        let keys = keys.map_err(|error| format!("{error:?}"))?;
        let playout = Playout::new(now, timestamp, latency);
        Ok(Receiving {
            inbound: Inbound::new(Seq::new(first), capacity, playout, latency, keys),
            link: Link::new(now, NOBODY, 2),
            out: Outbox::default(),
        })
    }

    /// The same with a packet filter, which counts from the packet `first` on; without one if it is none.
    pub fn filtered(mut self, filter: &str, first: u32) -> Receiving {
        self.inbound = self.inbound.filtered(Filter::parse(filter), Seq::new(first));
        self
    }

    pub fn datagram(&mut self, now: Mono, datagram: &[u8]) {
        match Packet::parse(datagram) {
            Some((Packet::Data(data), _)) => self.inbound.packet(now, &data, BytesMut::from(datagram)),
            Some((Packet::Control(control), _)) => {
                self.inbound.control(now, &control, &mut self.link, &mut self.out);
            }
            None => {}
        }
    }

    /// The next payload whose time has come.
    pub fn poll(&mut self, now: Mono) -> Option<Bytes> {
        self.inbound.poll(now)
    }

    /// Acknowledges and asks, as far as it is time; call it when `poll` gives nothing more.
    pub fn answer(&mut self, now: Mono) {
        self.inbound.answer(now, &mut self.link, &mut self.out);
    }

    pub fn deadline(&self) -> Option<Mono> {
        self.inbound.deadline()
    }

    /// What goes out, in order; it is taken.
    pub fn sent(&mut self) -> Vec<Vec<u8>> {
        drain(&mut self.out).into_iter().map(|(_, datagram)| datagram).collect()
    }

    pub fn stats(&self) -> PublisherStats {
        stats::of(&self.inbound)
    }

    /// Packets that were too far ahead for the buffer.
    pub fn beyond(&self) -> u64 {
        self.inbound.receiver.counts.beyond
    }
}

/// The other end of a connection that has no socket.
const NOBODY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9);

fn config(stream_id: &str, latency: Duration, secret: Option<(Passphrase, usize)>) -> CallerConfig {
    let (stream_id, secret) = (stream_id.to_owned(), keyed(secret));
    let wishes = Wishes { stream_id, latency, secret, filter: String::new(), window: WINDOW, joins: None };
    CallerConfig { wishes, renew_after: 0 }
}

fn keyed(secret: Option<(Passphrase, usize)>) -> Option<(Passphrase, KeyLength)> {
    secret.map(|(passphrase, bytes)| (passphrase, KeyLength::from_bytes(bytes).unwrap_or(KeyLength::Aes128)))
}

fn drain(out: &mut Outbox) -> Vec<Sent> {
    let sent = out.iter().map(|(to, head, body)| (to, [head, body].concat())).collect();
    out.clear();
    sent
}
