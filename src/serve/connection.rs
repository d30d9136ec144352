//! One connection's standing: what it is doing, since when, and when it has to go.
//!
//! The stream wrapper and the request guard write plain atomics; a reaper reads them twice a second. So a connection
//! costs no timers, and every rule is one line of `Connection::verdict`.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Version;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

use crate::media::limits;
use crate::telemetry::{Counter, Label, Metric, count};
use crate::time::{Mono, SystemClock};

/// When a connection has to go.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// From accept to the end of the TLS handshake.
    pub handshake: Duration,
    /// From accept, or from the end of the TLS handshake, to the first whole request head.
    pub first_request: Duration,
    /// From the first byte of a later request head to its end (HTTP/1.1).
    pub head: Duration,
    /// Without any request.
    pub idle: Duration,
    /// The socket takes nothing.
    pub write_stall: Duration,
    /// One chunk of an answer (a part) on its way, or the first one not even begun: catches HTTP/2 streams that give no
    /// window while others flow.
    pub chunk: Duration,
    /// Requests given up before their answer that are forgotten each half second: what players do when they switch.
    pub given_up_each_look: usize,
}

impl Default for Patience {
    fn default() -> Self {
        Patience {
            handshake: Duration::from_secs(10),
            first_request: Duration::from_secs(10),
            head: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            write_stall: limits::WRITE_STALL,
            chunk: Duration::from_secs(30),
            given_up_each_look: 50,
        }
    }
}

/// What the reaper asks of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Order {
    Go = 0,
    /// Finish what is under way, take nothing new.
    Finish = 1,
    /// Drop the socket now.
    Drop = 2,
}

/// Bytes that a client may send beyond its last request's head: the API's largest body, and room. Frames that ask for
/// nothing (pings, settings, window updates) use it up.
const INPUT_MAX: usize = 2 << 20;
/// And so much more with each look of the reaper.
const INPUT_EACH_LOOK: usize = 16 << 10;
/// Requests that a client may give up before their answer is on its way, and `Patience::given_up_each_look` more with each
/// look.
const CUT_MAX: usize = 1_000;

#[derive(Debug)]
pub struct Connection {
    peer: SocketAddr,
    accepted: Mono,
    /// In a TLS handshake.
    shaking: AtomicBool,
    requests: AtomicU64,
    in_flight: AtomicUsize,
    /// HTTP/2: bytes between requests are frames, not a head.
    multiplexed: AtomicBool,
    /// Bytes taken since the last request's head, and requests given up; both fade.
    input: AtomicUsize,
    cut: AtomicUsize,
    /// Nanoseconds of `Mono`; 0 = not so.
    opened: AtomicU64,
    rests_since: AtomicU64,
    head_since: AtomicU64,
    blocked_since: AtomicU64,
    finishing_since: AtomicU64,
    /// Answers and chunks handed to the protocol and not yet written: since when.
    held: Mutex<Held>,
    order: AtomicU8,
    pub(super) ordered: Notify,
}

#[derive(Debug, Default)]
struct Held {
    next: u64,
    /// Few: a player has two or three.
    items: Vec<Item>,
    bytes: usize,
}

#[derive(Debug)]
struct Item {
    key: u64,
    since: Mono,
    bytes: usize,
}

impl Held {
    fn put(&mut self, bytes: usize) -> u64 {
        let key = self.next;
        self.next += 1;
        self.bytes += bytes;
        self.items.push(Item { key, since: SystemClock::mono(), bytes });
        key
    }

    fn set(&mut self, key: u64, bytes: usize) {
        if let Some(item) = self.items.iter_mut().find(|item| item.key == key) {
            self.bytes = self.bytes - item.bytes + bytes;
            (item.since, item.bytes) = (SystemClock::mono(), bytes);
        }
    }

    fn remove(&mut self, key: u64) {
        if let Some(at) = self.items.iter().position(|item| item.key == key) {
            self.bytes -= self.items.swap_remove(at).bytes;
        }
    }
}

impl Connection {
    pub(super) fn new(peer: SocketAddr, now: Mono) -> Connection {
        Connection {
            peer,
            accepted: now,
            shaking: AtomicBool::new(false),
            requests: AtomicU64::new(0),
            in_flight: AtomicUsize::new(0),
            multiplexed: AtomicBool::new(false),
            input: AtomicUsize::new(0),
            cut: AtomicUsize::new(0),
            opened: AtomicU64::new(now.0),
            rests_since: AtomicU64::new(now.0),
            head_since: AtomicU64::new(0),
            blocked_since: AtomicU64::new(0),
            finishing_since: AtomicU64::new(0),
            held: Mutex::default(),
            order: AtomicU8::new(Order::Go as u8),
            ordered: Notify::new(),
        }
    }

    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// A TLS handshake comes before the first request.
    pub(super) fn shakes(&self) {
        self.shaking.store(true, Ordering::Relaxed);
    }

    /// The handshake is done: the patience for a request begins.
    pub(super) fn shaken(&self) {
        let now = SystemClock::mono().0;
        self.opened.store(now, Ordering::Relaxed);
        self.rests_since.store(now, Ordering::Relaxed);
        self.head_since.store(0, Ordering::Relaxed);
        self.shaking.store(false, Ordering::Relaxed);
    }

    /// A request's head has arrived; it is under way until the guard goes.
    pub(super) fn begin(self: &Arc<Self>, version: Version) -> Serving {
        if version == Version::HTTP_2 {
            self.multiplexed.store(true, Ordering::Relaxed);
        }
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.rests_since.store(0, Ordering::Relaxed);
        self.head_since.store(0, Ordering::Relaxed);
        self.input.store(0, Ordering::Relaxed);
        Serving { connection: Arc::clone(self), since: SystemClock::mono(), rest: None, done: false }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of media that this connection keeps in memory.
    pub fn held_bytes(&self) -> usize {
        self.held().bytes
    }

    /// What has to happen to this connection, and why (a metric label).
    pub(super) fn verdict(&self, now: Mono, patience: &Patience) -> Option<(Order, &'static str)> {
        let longer = |cell: &AtomicU64, limit: Duration| {
            let since = cell.load(Ordering::Relaxed);
            since != 0 && now - Mono(since) > limit
        };
        if self.order() == Order::Drop {
            return None;
        }
        if self.shaking.load(Ordering::Relaxed) {
            return (now - self.accepted > patience.handshake).then_some((Order::Drop, "handshake"));
        }
        if longer(&self.blocked_since, patience.write_stall) {
            return Some((Order::Drop, "write_stall"));
        }
        if self.held().items.iter().any(|item| now - item.since > patience.chunk) {
            return Some((Order::Drop, "slow_reader"));
        }
        if longer(&self.finishing_since, patience.head) && self.in_flight.load(Ordering::Relaxed) == 0 {
            return Some((Order::Drop, "did_not_close"));
        }
        if self.in_flight.load(Ordering::Relaxed) > 0 {
            return None;
        }
        if self.requests.load(Ordering::Relaxed) == 0 {
            return longer(&self.opened, patience.first_request).then_some((Order::Drop, "no_request"));
        }
        if !self.multiplexed.load(Ordering::Relaxed) && longer(&self.head_since, patience.head) {
            return Some((Order::Drop, "slow_request"));
        }
        if self.order() == Order::Go && longer(&self.rests_since, patience.idle) {
            return Some((Order::Finish, "idle"));
        }
        None
    }

    pub(super) fn give(&self, order: Order) {
        if order == Order::Finish {
            self.finishing_since.store(SystemClock::mono().0, Ordering::Relaxed);
        }
        self.order.store(order as u8, Ordering::Relaxed);
        self.ordered.notify_one();
    }

    pub(super) fn order(&self) -> Order {
        match self.order.load(Ordering::Relaxed) {
            0 => Order::Go,
            1 => Order::Finish,
            _ => Order::Drop,
        }
    }

    /// Requests that were given up lately.
    #[cfg(test)]
    pub(super) fn cut_short(&self) -> usize {
        self.cut.load(Ordering::Relaxed)
    }

    /// What was taken and cut short fades: called by the reaper.
    pub(super) fn forgive(&self, patience: &Patience) {
        let less = |cell: &AtomicUsize, by: usize| {
            let now = cell.load(Ordering::Relaxed);
            if now > 0 {
                // A byte that is counted meanwhile may be lost: nobody lives by it.
                cell.store(now.saturating_sub(by), Ordering::Relaxed);
            }
        };
        less(&self.input, INPUT_EACH_LOOK);
        less(&self.cut, patience.given_up_each_look);
    }

    /// Ends the connection for what its client does.
    fn end(&self, reason: &'static str) {
        if self.order() != Order::Drop {
            count(Metric::HttpConnectionsClosed, &[Label::Reason(reason)], 1);
            self.give(Order::Drop);
        }
    }
}

/// A request under way.
#[derive(Debug)]
pub struct Serving {
    pub(super) connection: Arc<Connection>,
    pub(super) since: Mono,
    /// Key of what the protocol has still to fetch of the answer.
    rest: Option<u64>,
    done: bool,
}

impl Serving {
    /// The protocol should fetch `bytes` more of the answer from now on; 0 if nobody knows how many.
    pub(super) fn due(&mut self, bytes: usize) {
        let mut held = self.connection.held();
        match self.rest {
            Some(key) => held.set(key, bytes),
            None => self.rest = Some(held.put(bytes)),
        }
    }

    /// The answer itself has nothing to fetch now.
    pub(super) fn waits(&mut self) {
        if let Some(key) = self.rest.take() {
            self.connection.held().remove(key);
        }
    }

    /// The whole answer was fetched.
    pub(super) fn finish(&mut self) {
        self.done = true;
        self.waits();
    }

    /// `bytes`, which count as on their way until their last clone is dropped; `left`: so many are still to be fetched.
    pub(super) fn send(&mut self, bytes: Bytes, left: Option<usize>) -> Bytes {
        let mut held = self.connection.held();
        let key = held.put(bytes.len());
        match (self.rest, left) {
            (Some(rest), Some(0)) => {
                held.remove(rest);
                self.rest = None;
            }
            (Some(rest), Some(left)) => held.set(rest, left),
            _ => {}
        }
        drop(held);
        Bytes::from_owner(Chunk { bytes, connection: Arc::clone(&self.connection), key })
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.waits();
        let connection = &self.connection;
        if !self.done && connection.cut.fetch_add(1, Ordering::Relaxed) >= CUT_MAX {
            connection.end("resets");
        }
        if connection.in_flight.fetch_sub(1, Ordering::Relaxed) == 1 {
            connection.rests_since.store(SystemClock::mono().0, Ordering::Relaxed);
        }
    }
}

struct Chunk {
    bytes: Bytes,
    connection: Arc<Connection>,
    key: u64,
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        self.connection.held().remove(self.key);
    }
}

/// A stream that notes when it is blocked and when a request's head begins.
#[derive(Debug)]
pub(super) struct Watched<S> {
    stream: S,
    connection: Arc<Connection>,
    egress: Counter,
}

impl<S> Watched<S> {
    pub(super) fn new(stream: S, connection: Arc<Connection>, egress: Counter) -> Self {
        Watched { stream, connection, egress }
    }

    fn written(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        let blocked = &self.connection.blocked_since;
        match &result {
            Poll::Ready(Ok(n)) => {
                if blocked.load(Ordering::Relaxed) != 0 {
                    blocked.store(0, Ordering::Relaxed);
                }
                self.egress.add(*n as u64);
            }
            Poll::Pending if blocked.load(Ordering::Relaxed) == 0 => {
                blocked.store(SystemClock::mono().0, Ordering::Relaxed);
            }
            _ => {}
        }
        result
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(cx, buf);
        let c = &self.connection;
        let taken = buf.filled().len() - before;
        if taken > 0 && c.input.fetch_add(taken, Ordering::Relaxed) + taken > INPUT_MAX {
            c.end("input_flood");
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        if taken > 0 && c.in_flight.load(Ordering::Relaxed) == 0 && c.head_since.load(Ordering::Relaxed) == 0 {
            c.head_since.store(SystemClock::mono().0, Ordering::Relaxed);
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.written(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.written(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh() -> (Arc<Connection>, Mono, Patience) {
        let now = SystemClock::mono();
        (Arc::new(Connection::new(SocketAddr::from(([127, 0, 0, 1], 1)), now)), now, Patience::default())
    }

    fn after(start: Mono, seconds: u64) -> Mono {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn a_connection_without_a_request_is_dropped_after_its_patience() {
        let (connection, start, patience) = fresh();
        assert_eq!(connection.verdict(after(start, 9), &patience), None);
        assert_eq!(connection.verdict(after(start, 11), &patience), Some((Order::Drop, "no_request")));
    }

    #[test]
    fn a_blocked_request_is_never_idle_and_a_resting_connection_is() {
        let (connection, start, patience) = fresh();
        let serving = connection.begin(Version::HTTP_11);
        assert_eq!(connection.verdict(after(start, 600), &patience), None);
        drop(serving);
        assert_eq!(connection.verdict(after(start, 30), &patience), None);
        assert_eq!(connection.verdict(after(start, 90), &patience), Some((Order::Finish, "idle")));
        connection.give(Order::Finish);
        assert_eq!(connection.verdict(after(start, 90), &patience), Some((Order::Drop, "did_not_close")));
    }

    #[test]
    fn a_chunk_that_nobody_reads_ends_the_connection_and_others_do_not_hide_it() {
        let (connection, start, patience) = fresh();
        let mut serving = connection.begin(Version::HTTP_2);
        let stuck = serving.send(Bytes::from_static(&[0; 1000]), Some(0));
        for _ in 0..100 {
            drop(serving.send(Bytes::from_static(&[1; 10]), Some(0)));
        }
        assert_eq!(connection.held_bytes(), 1000);
        assert_eq!(connection.verdict(after(start, 29), &patience), None);
        assert_eq!(connection.verdict(after(start, 31), &patience), Some((Order::Drop, "slow_reader")));
        drop(stuck);
        assert_eq!(connection.held_bytes(), 0);
        assert_eq!(connection.verdict(after(start, 31), &patience), None);
        drop(serving);
    }

    #[test]
    fn an_answer_that_nobody_fetches_ends_the_connection_and_one_that_waits_for_its_maker_does_not() {
        let (connection, start, patience) = fresh();
        let mut serving = connection.begin(Version::HTTP_2);
        serving.due(5_000);
        assert_eq!(connection.held_bytes(), 5_000, "what waits is held");
        assert_eq!(connection.verdict(after(start, 31), &patience), Some((Order::Drop, "slow_reader")));
        serving.waits();
        assert_eq!((connection.held_bytes(), connection.verdict(after(start, 31), &patience)), (0, None));
        serving.due(3_000);
        let first = serving.send(Bytes::from_static(&[0; 1000]), Some(2_000));
        assert_eq!(connection.held_bytes(), 3_000);
        drop((first, serving));
        assert_eq!(connection.held_bytes(), 0);
    }

    #[test]
    fn a_handshake_has_its_own_patience_and_the_first_request_begins_anew_behind_it() {
        let (connection, start, patience) = fresh();
        connection.shakes();
        assert_eq!(connection.verdict(after(start, 9), &patience), None);
        assert_eq!(connection.verdict(after(start, 11), &patience), Some((Order::Drop, "handshake")));
        connection.shaken();
        assert_eq!(connection.verdict(after(start, 9), &patience), None);
        assert_eq!(connection.verdict(after(start, 12), &patience), Some((Order::Drop, "no_request")));
    }

    #[test]
    fn requests_that_are_cut_short_fade_and_too_many_at_once_end_the_connection() {
        let (connection, _, patience) = fresh();
        for _ in 0..20 {
            for _ in 0..patience.given_up_each_look {
                drop(connection.begin(Version::HTTP_2));
            }
            connection.forgive(&patience);
        }
        assert_eq!(connection.order(), Order::Go, "a player that switches all the time");
        for _ in 0..=CUT_MAX {
            let mut whole = connection.begin(Version::HTTP_2);
            whole.finish();
        }
        assert_eq!(connection.order(), Order::Go, "whole answers are none");
        for _ in 0..=CUT_MAX {
            drop(connection.begin(Version::HTTP_2));
        }
        assert_eq!(connection.order(), Order::Drop);
    }
}
