//! One connection's standing: what it is doing, since when, and when it has to go.
//!
//! The stream wrapper and the request guard write plain atomics; a reaper reads them twice a second. So a connection
//! costs no timers, and every rule is one line of `Connection::verdict`.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Version;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

use crate::media::limits;
use crate::telemetry::Counter;
use crate::time::{Mono, SystemClock};

/// When a connection has to go.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// From accept to the first whole request head.
    pub first_request: Duration,
    /// From the first byte of a later request head to its end (HTTP/1.1).
    pub head: Duration,
    /// Without any request.
    pub idle: Duration,
    /// The socket takes nothing.
    pub write_stall: Duration,
    /// One chunk of media (a part) on its way: catches HTTP/2 streams that give no window while others flow.
    pub chunk: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Patience {
            first_request: Duration::from_secs(10),
            head: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            write_stall: limits::WRITE_STALL,
            chunk: Duration::from_secs(30),
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

#[derive(Debug)]
pub struct Connection {
    peer: SocketAddr,
    opened: Mono,
    requests: AtomicU64,
    in_flight: AtomicUsize,
    /// HTTP/2: bytes between requests are frames, not a head.
    multiplexed: AtomicBool,
    /// Nanoseconds of `Mono`; 0 = not so.
    rests_since: AtomicU64,
    head_since: AtomicU64,
    blocked_since: AtomicU64,
    finishing_since: AtomicU64,
    /// Chunks handed to the protocol and not yet written: since when.
    held: Mutex<Held>,
    order: AtomicU8,
    pub(super) ordered: Notify,
}

#[derive(Debug, Default)]
struct Held {
    next: u64,
    chunks: BTreeMap<u64, (Mono, usize)>,
    bytes: usize,
}

impl Connection {
    pub(super) fn new(peer: SocketAddr, now: Mono) -> Connection {
        Connection {
            peer,
            opened: now,
            requests: AtomicU64::new(0),
            in_flight: AtomicUsize::new(0),
            multiplexed: AtomicBool::new(false),
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

    /// A request's head has arrived; it is under way until the guard goes.
    pub(super) fn begin(self: &Arc<Self>, version: Version) -> Serving {
        if version == Version::HTTP_2 {
            self.multiplexed.store(true, Ordering::Relaxed);
        }
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.rests_since.store(0, Ordering::Relaxed);
        self.head_since.store(0, Ordering::Relaxed);
        Serving { connection: Arc::clone(self), since: SystemClock::mono() }
    }

    /// The same bytes, counted as on their way until the last clone is dropped.
    pub(super) fn hold(self: &Arc<Self>, bytes: Bytes) -> Bytes {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let key = held.next;
        held.next += 1;
        held.bytes += bytes.len();
        held.chunks.insert(key, (SystemClock::mono(), bytes.len()));
        drop(held);
        Bytes::from_owner(Chunk { bytes, connection: Arc::clone(self), key })
    }

    /// Bytes of media that this connection keeps in memory.
    pub fn held_bytes(&self) -> usize {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).bytes
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
        if longer(&self.blocked_since, patience.write_stall) {
            return Some((Order::Drop, "write_stall"));
        }
        if self.oldest_chunk().is_some_and(|since| now - since > patience.chunk) {
            return Some((Order::Drop, "slow_reader"));
        }
        if longer(&self.finishing_since, patience.head) && self.in_flight.load(Ordering::Relaxed) == 0 {
            return Some((Order::Drop, "did_not_close"));
        }
        if self.in_flight.load(Ordering::Relaxed) > 0 {
            return None;
        }
        if self.requests.load(Ordering::Relaxed) == 0 {
            return (now - self.opened > patience.first_request).then_some((Order::Drop, "no_request"));
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

    fn oldest_chunk(&self) -> Option<Mono> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.chunks.first_key_value().map(|(_, (since, _))| *since)
    }
}

/// A request under way.
#[derive(Debug)]
pub struct Serving {
    pub(super) connection: Arc<Connection>,
    pub(super) since: Mono,
}

impl Drop for Serving {
    fn drop(&mut self) {
        if self.connection.in_flight.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.connection.rests_since.store(SystemClock::mono().0, Ordering::Relaxed);
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
        let mut held = self.connection.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, length)) = held.chunks.remove(&self.key) {
            held.bytes -= length;
        }
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
        if buf.filled().len() > before
            && c.in_flight.load(Ordering::Relaxed) == 0
            && c.head_since.load(Ordering::Relaxed) == 0
        {
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
        let serving = connection.begin(Version::HTTP_2);
        let stuck = connection.hold(Bytes::from_static(&[0; 1000]));
        for _ in 0..100 {
            drop(connection.hold(Bytes::from_static(&[1; 10])));
        }
        assert_eq!(connection.held_bytes(), 1000);
        assert_eq!(connection.verdict(after(start, 29), &patience), None);
        assert_eq!(connection.verdict(after(start, 31), &patience), Some((Order::Drop, "slow_reader")));
        drop(stuck);
        assert_eq!(connection.held_bytes(), 0);
        assert_eq!(connection.verdict(after(start, 31), &patience), None);
        drop(serving);
    }
}
