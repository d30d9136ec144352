//! The thread that speaks QUIC: who comes in, and the table of those who are on air.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use quinn::{Connection, Endpoint, Incoming, RecvStream, SendStream, VarInt};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use super::connection::Publishing;
use super::gate::{Entering, Gate};
use super::handover::Handover;
use super::message::{ALPN, Answer, BROKEN, HELLO_MAX, Hello, Wrong};
use super::port::PortConfig;
use super::reorder::Counts;
use super::tls::KEY_BITS;
use crate::ingest::admission::Refusal;
use crate::ingest::door::{DENIAL_DELAY, Door, Held, INVALID_INPUT_BLOCK, Pass};
use crate::ingest::{Closing, Connected, Event, Protocol, PublisherId, PublisherStats};
use crate::media::channel::ChannelName;
use crate::telemetry::Redacted;
use crate::time::{Mono, SystemClock};

/// From a connection's first packet to its whole hello.
const HELLO_PATIENCE: Duration = Duration::from_secs(4);
/// A refusal may take so long to reach who is refused.
const REFUSAL_PATIENCE: Duration = Duration::from_secs(1);
/// The longest latency that is granted.
const LATENCY_MAX: Duration = Duration::from_secs(10);
/// Segments of one publisher that may come side by side.
const STREAMS_MAX: u32 = 64;

/// What the thread and the shard's `Port` share.
pub(super) struct Server {
    pub(super) door: Arc<Door>,
    pub(super) config: PortConfig,
    /// To each shard.
    handovers: Vec<Arc<Handover>>,
    pub(super) counters: Counters,
    gate: Arc<Gate>,
    live: Mutex<BTreeMap<PublisherId, Live>>,
}

/// A publisher that is on air.
pub(super) struct Live {
    pub(super) order: mpsc::Sender<Closing>,
    pub(super) connection: Connection,
    pub(super) meter: Arc<Mutex<Meter>>,
    pub(super) held: Arc<Held>,
    latency: Duration,
}

/// What its connection counts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Meter {
    pub(super) counts: Counts,
    pub(super) overflowed: u64,
    pub(super) waiting_segments: u32,
    pub(super) held_bytes: u64,
    /// Of the last whole second.
    pub(super) bitrate: Option<u64>,
}

/// Of handshakes, since the port was opened.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) done: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) limited: AtomicU64,
    pub(super) retried: AtomicU64,
    pub(super) no_hello: AtomicU64,
    pub(super) refused: AtomicU64,
}

/// Who asks, once its hello is here.
struct Asking {
    connection: Connection,
    send: SendStream,
    recv: RecvStream,
    hello: Hello,
}

impl Server {
    pub(super) fn new(door: Arc<Door>, config: PortConfig, handovers: Vec<Arc<Handover>>) -> Server {
        Server { door, config, handovers, counters: Counters::default(), gate: Arc::default(), live: Mutex::default() }
    }

    /// To the shard that has the channel; the first has what is none.
    pub(super) fn handover(&self, channel: Option<&ChannelName>) -> &Arc<Handover> {
        &self.handovers[channel.map_or(0, |channel| channel.shard(self.handovers.len()))]
    }

    /// Until `stopped`.
    pub(super) async fn run(self: Arc<Server>, endpoint: Endpoint, mut stopped: watch::Receiver<bool>) {
        loop {
            let incoming = tokio::select! {
                incoming = endpoint.accept() => incoming,
                _ = stopped.changed() => break,
            };
            let Some(incoming) = incoming else { break };
            self.meet(incoming);
        }
        endpoint.close(VarInt::from_u32(super::message::close_code(Closing::Shutdown)), b"");
        // What was said last should get there; whoever is gone is not waited for.
        drop(timeout(REFUSAL_PATIENCE, endpoint.wait_idle()).await);
    }

    fn meet(self: &Arc<Server>, incoming: Incoming) {
        let address = incoming.remote_address().ip();
        let Some(entering) = self.gate.enter(address) else {
            Counters::add(&self.counters.limited);
            return incoming.ignore();
        };
        if self.gate.is_busy() && !incoming.remote_address_validated() && incoming.may_retry() {
            Counters::add(&self.counters.retried);
            // Nothing is kept of it: it comes again with a token.
            return drop(incoming.retry());
        }
        tokio::spawn(Arc::clone(self).attend(incoming, entering));
    }

    async fn attend(self: Arc<Server>, incoming: Incoming, entering: Entering) {
        let begin = SystemClock::mono();
        let connection = match incoming.accept().map(|connecting| timeout(HELLO_PATIENCE, connecting)) {
            Ok(connecting) => connecting.await,
            Err(_) => return Counters::add(&self.counters.failed),
        };
        let Ok(Ok(connection)) = connection else { return Counters::add(&self.counters.failed) };
        Counters::add(&self.counters.done);
        let left = HELLO_PATIENCE.saturating_sub(SystemClock::mono() - begin);
        let asking = match timeout(left, listen(&connection)).await {
            Ok(Ok((send, recv, hello))) => Ok(Asking { connection: connection.clone(), send, recv, hello }),
            Ok(Err(Some((send, Wrong::Version)))) => Err(send),
            _ => {
                Counters::add(&self.counters.no_hello);
                return connection.close(VarInt::from_u32(BROKEN), b"no hello");
            }
        };
        match asking {
            Ok(asking) => self.admit(asking, entering).await,
            Err(mut send) => {
                let refusal = Refusal::Unsupported("another version of rung-ts: this side speaks version 1");
                self.refuse(&connection, &mut send, None, &refusal).await;
            }
        }
    }

    async fn admit(self: Arc<Server>, mut asking: Asking, entering: Entering) {
        let now = SystemClock::mono();
        let peer = asking.connection.remote_address();
        let asked = self.door.ask(now, peer.ip(), asking.hello.wanted(), None);
        let entered = asked.and_then(|pass: Pass| {
            let (channel, latency) = (pass.admission.channel.clone(), pass.admission.latency);
            let held = self.door.enter(now, pass).map_err(|refusal| (Some(channel), refusal))?;
            Ok((held, latency.unwrap_or(self.config.latency)))
        });
        match entered {
            Ok((held, latency)) => {
                drop(entering);
                self.on_air(asking, peer, held, latency).await;
            }
            Err((channel, refusal)) => {
                if refusal == Refusal::Denied {
                    // The same time, whatever was wrong.
                    sleep(DENIAL_DELAY).await;
                }
                self.refuse(&asking.connection, &mut asking.send, channel, &refusal).await;
                drop(entering);
            }
        }
    }

    async fn refuse(
        &self,
        connection: &Connection,
        send: &mut SendStream,
        channel: Option<ChannelName>,
        refusal: &Refusal,
    ) {
        Counters::add(&self.counters.refused);
        self.handover(channel.as_ref()).push(Event::Refused {
            peer: Redacted::new(connection.remote_address()),
            channel,
            code: refusal.code(),
            why: refusal.to_string(),
        });
        let said = async {
            if say(send, &Answer::refusal(refusal)).await.is_ok() {
                // It has the answer, or it is gone.
                drop(send.stopped().await);
            }
        };
        drop(timeout(REFUSAL_PATIENCE, said).await);
        connection.close(VarInt::from_u32(refusal.code().into()), b"");
    }

    /// `latency`: the least of the channel.
    async fn on_air(self: Arc<Server>, asking: Asking, peer: SocketAddr, held: Held, latency: Duration) {
        let Asking { connection, mut send, recv, hello } = asking;
        let asked = Duration::from_millis(hello.latency_ms);
        let latency = asked.clamp(latency, LATENCY_MAX.max(latency));
        let rate = match hello.max_bitrate {
            0 => self.config.bitrate_max,
            rate => rate.min(self.config.bitrate_max),
        };
        let (order, orders) = mpsc::channel(1);
        let (meter, held) = (Arc::default(), Arc::new(held));
        self.begin(
            Live { order, connection: connection.clone(), meter: Arc::clone(&meter), held: Arc::clone(&held), latency },
            peer,
        );
        let room = self.config.room(rate, latency);
        connection.set_receive_window(VarInt::from_u32(room));
        connection.set_max_concurrent_uni_streams(VarInt::from_u32(STREAMS_MAX));
        let latency_ms = u64::try_from(latency.as_millis()).unwrap_or(u64::MAX);
        let answer = Answer { code: 0, latency_ms, reason: String::new() };
        let (publisher, handover) = (held.publisher, Arc::clone(self.handover(Some(&held.channel))));
        let why = match say(&mut send, &answer).await {
            Ok(()) => {
                let publishing = Publishing::new(handover, held, latency, room as usize, meter);
                publishing.run(&connection, recv, orders).await
            }
            Err(_) => Closing::Silent,
        };
        connection.close(VarInt::from_u32(super::message::close_code(why)), b"");
        self.end(publisher, why);
    }

    /// Tells the shard; whoever had the leg ends first, if it came over QUIC.
    fn begin(&self, live: Live, peer: SocketAddr) {
        let held = Arc::clone(&live.held);
        if let Some(old) = held.replaces {
            self.close(SystemClock::mono(), old, Closing::Replaced);
            self.end(old, Closing::Replaced);
        }
        let connected = Connected {
            publisher: held.publisher,
            protocol: Protocol::Quic,
            channel: held.channel.clone(),
            leg: held.leg,
            peer: Redacted::new(peer),
            latency: live.latency,
            peer_version: Some(version()),
            key_bits: KEY_BITS,
            replaced: held.replaces,
        };
        self.live().insert(held.publisher, live);
        self.handover(Some(&held.channel)).push(Event::Connected(connected));
    }

    /// Once for each that began.
    fn end(&self, publisher: PublisherId, why: Closing) {
        let Some(live) = self.live().remove(&publisher) else { return };
        let stats = live.stats(SystemClock::mono());
        self.handover(Some(&live.held.channel)).push(Event::Closed { publisher, reason: why, stats });
    }

    /// Asks its connection to end. Nothing for one that is gone.
    pub(super) fn close(&self, now: Mono, publisher: PublisherId, why: Closing) {
        let live = self.live();
        let Some(live) = live.get(&publisher) else { return };
        if why == Closing::InputInvalid {
            self.door.block(now, live.connection.remote_address().ip(), INVALID_INPUT_BLOCK);
        }
        // Full: it was asked before.
        live.order.try_send(why).ok();
    }

    pub(super) fn close_all(&self, now: Mono, why: Closing) {
        let all: Vec<PublisherId> = self.live().keys().copied().collect();
        all.into_iter().for_each(|publisher| self.close(now, publisher, why));
    }

    pub(super) fn stats(&self, now: Mono, publisher: PublisherId) -> Option<PublisherStats> {
        self.live().get(&publisher).map(|live| live.stats(now))
    }

    pub(super) fn publishers(&self) -> usize {
        self.live().len()
    }

    /// The least latency of all publishers; `Duration::MAX` without one.
    pub(super) fn latency_min(&self) -> Duration {
        self.live().values().map(|live| live.latency).min().unwrap_or(Duration::MAX)
    }

    fn live(&self) -> MutexGuard<'_, BTreeMap<PublisherId, Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Live {
    fn stats(&self, now: Mono) -> PublisherStats {
        let meter = *self.meter.lock().unwrap_or_else(PoisonError::into_inner);
        let Counts { received, bytes, lost, dropped, belated, repeated } = meter.counts;
        let buffered = meter.bitrate.filter(|rate| *rate > 0).map(|rate| meter.held_bytes * 8_000_000 / rate);
        PublisherStats {
            received,
            received_bytes: bytes,
            lost,
            dropped,
            belated,
            duplicates: repeated,
            overflowed: meter.overflowed,
            rtt: Some(self.connection.rtt()),
            latency: Some(self.latency),
            buffered_packets: Some(meter.waiting_segments),
            buffered: buffered.map(Duration::from_micros),
            bitrate: meter.bitrate,
            peer_version: Some(version()),
            key_bits: KEY_BITS,
            age: Some(now - self.held.heard()),
            ..PublisherStats::default()
        }
    }
}

impl Counters {
    pub(super) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

fn version() -> String {
    String::from_utf8_lossy(ALPN).into_owned()
}

/// The first stream's hello. `Err(Some)`: there is one to answer all the same.
async fn listen(connection: &Connection) -> Result<(SendStream, RecvStream, Hello), Option<(SendStream, Wrong)>> {
    let (send, mut recv) = connection.accept_bi().await.map_err(|_| None)?;
    let mut said = Vec::new();
    loop {
        match Hello::parse(&said) {
            Ok(Some(hello)) => return Ok((send, recv, hello)),
            Ok(None) => {}
            Err(wrong) => return Err(Some((send, wrong))),
        }
        let room = HELLO_MAX.saturating_sub(said.len());
        let chunk: Option<Bytes> = match recv.read_chunk(room, true).await {
            Ok(chunk) => chunk.map(|chunk| chunk.bytes),
            Err(_) => None,
        };
        let chunk = chunk.filter(|_| room > 0).ok_or(None)?;
        said.extend_from_slice(&chunk);
    }
}

/// Says it and ends the stream: nothing else is said on it.
async fn say(send: &mut SendStream, answer: &Answer) -> Result<(), quinn::WriteError> {
    send.write_all(&answer.encode()).await?;
    // It was not ended before.
    drop(send.finish());
    Ok(())
}
