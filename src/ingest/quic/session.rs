//! One connection of a publisher: hello and answer, then segments side by side, each given up when it is too late.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use quinn::{Connection, ConnectionError, Endpoint, RecvStream, SendStream, VarInt, WriteError};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

use super::controller::Rate;
use super::message::{Answer, FINISHED, Head, Hello, LATE};
use super::segments::Segments;
use super::url::QuicUrl;
use crate::ingest::publish::{PAYLOAD, PublishEnd, PublishStats};
use crate::time::{Mono, SystemClock};

/// For TLS and hello together; a receiver that is there answers in two round trips.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the end may take to be acknowledged.
const FAREWELL: Duration = Duration::from_secs(3);
/// Pieces of one segment that may wait for the connection: a quarter of a second in turns of 2 ms, with room.
const PIECES: usize = 1_024;
/// A source whose rate nobody gave is taken to need so much more than it was seen to.
const HEADROOM: f64 = 1.25;
/// And at least this, bits per second.
const RATE_MIN: u64 = 2_000_000;
/// Its rate is the highest of so many seconds.
const RATE_SECONDS: usize = 10;

pub(super) struct Session {
    connection: Connection,
    control: SendStream,
    /// What the receiver granted.
    pub(super) latency: Duration,
    segments: Segments,
    /// The segment that is on.
    on: Option<Writer>,
    writers: FuturesUnordered<std::pin::Pin<Box<dyn Future<Output = Written>>>>,
    stats: PublishStats,
    meter: Option<RateMeter>,
}

/// Where a segment's media goes; dropping it says that there is no more.
struct Writer {
    media: mpsc::Sender<Bytes>,
    _over: oneshot::Sender<()>,
}

/// What became of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    Whole,
    Late,
    /// With the connection.
    Lost,
}

/// What a session tells while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    Nothing,
    /// Segments were late: they are so long from now on.
    Shorter(Duration),
    Closed(PublishEnd),
}

impl Session {
    /// `rate`: what the connection's window is made of; followed here unless the address gives it.
    ///
    /// # Errors
    /// Why the publish ended before it began.
    pub(super) async fn connect(
        endpoint: &Endpoint,
        config: quinn::ClientConfig,
        url: &QuicUrl,
        peer: SocketAddr,
        rate: Rate,
    ) -> Result<Session, PublishEnd> {
        let no_answer = PublishEnd::NoAnswer { unreachable: false };
        let connecting = endpoint.connect_with(config, peer, &url.host).map_err(|_| PublishEnd::Unsupported)?;
        let asked = async {
            let connection = connecting.await.map_err(|error| end_of(&error))?;
            let (mut control, answers) = connection.open_bi().await.map_err(|error| end_of(&error))?;
            let hello = Hello {
                name: url.name.clone(),
                key: url.key.clone(),
                latency_ms: u64::try_from(url.latency.as_millis()).unwrap_or(u64::MAX),
                max_bitrate: url.max_bitrate.unwrap_or(0),
            };
            if control.write_all(&hello.encode()).await.is_err() {
                return Err(connection.close_reason().map_or(PublishEnd::ClosedByPeer, |error| end_of(&error)));
            }
            let answer = answer(&connection, answers).await?;
            Ok((connection, control, answer))
        };
        let (connection, control, answer) = timeout(PATIENCE, asked).await.unwrap_or(Err(no_answer))?;
        if answer.code != 0 {
            connection.close(VarInt::from_u32(FINISHED), b"");
            return Err(PublishEnd::Refused(answer.code));
        }
        let meter = url.max_bitrate.is_none().then(|| RateMeter::new(rate));
        Ok(Session {
            connection,
            control,
            latency: Duration::from_millis(answer.latency_ms),
            segments: Segments::new(),
            on: None,
            writers: FuturesUnordered::new(),
            stats: PublishStats::default(),
            meter,
        })
    }

    /// Hands media over: whole packets. Never waits; what a segment has no room for is counted and gone.
    pub(super) fn send(&mut self, now: Mono, media: Bytes) {
        let bytes = media.len();
        if let Some(head) = self.segments.media(now, bytes) {
            self.begin(head);
        }
        if let Some(meter) = &mut self.meter {
            meter.add(now, bytes as u64);
        }
        match self.on.as_ref().map(|writer| writer.media.try_send(media)) {
            Some(Ok(())) => {
                self.stats.sent += bytes.div_ceil(PAYLOAD) as u64;
                self.stats.sent_bytes += bytes as u64;
            }
            _ => self.stats.dropped += bytes.div_ceil(PAYLOAD) as u64,
        }
    }

    /// What happens next. May be dropped and called again.
    pub(super) async fn news(&mut self) -> News {
        let over = async {
            match &self.on {
                // A source that paused: its segment ends.
                Some(_) => sleep(Duration::from_millis(50)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            error = self.connection.closed() => News::Closed(end_of(&error)),
            Some(written) = self.writers.next(), if !self.writers.is_empty() => self.written(written),
            () = over => {
                if self.segments.is_over(SystemClock::mono()) {
                    self.end_segment();
                }
                News::Nothing
            }
        }
    }

    /// What was sent arrives or is given up; then the receiver is told that there is no more.
    pub(super) async fn finish(mut self) -> (PublishEnd, PublishStats) {
        self.end_segment();
        let last = async {
            while let Some(written) = self.writers.next().await {
                if written == Written::Late {
                    self.stats.late += 1;
                }
            }
            // Only a connection that is gone refuses it.
            drop(self.control.finish());
            self.connection.closed().await
        };
        let end = timeout(self.latency + FAREWELL, last).await;
        let stats = self.stats();
        match end {
            Ok(ConnectionError::ApplicationClosed(close)) if close.error_code == VarInt::from_u32(FINISHED) => {
                (PublishEnd::Finished, stats)
            }
            Ok(error) => (end_of(&error), stats),
            Err(_) => {
                self.connection.close(VarInt::from_u32(FINISHED), b"");
                (PublishEnd::Finished, stats)
            }
        }
    }

    pub(super) fn stats(&self) -> PublishStats {
        let path = self.connection.stats().path;
        PublishStats { retransmitted: path.lost_packets, waiting: self.writers.len(), rtt: path.rtt, ..self.stats }
    }

    fn begin(&mut self, head: Head) {
        let (media, pieces) = mpsc::channel(PIECES);
        let (over, ended) = oneshot::channel();
        // The one before is over with this.
        self.on = Some(Writer { media, _over: over });
        let write = write(self.connection.clone(), head, pieces, ended, self.latency);
        self.writers.push(Box::pin(write));
    }

    fn end_segment(&mut self) {
        self.on = None;
        self.segments.close();
    }

    fn written(&mut self, written: Written) -> News {
        match written {
            Written::Whole => {
                self.stats.acknowledged += 1;
                News::Nothing
            }
            Written::Late => {
                self.stats.late += 1;
                self.segments.late(SystemClock::mono()).map_or(News::Nothing, News::Shorter)
            }
            // The connection says why.
            Written::Lost => News::Nothing,
        }
    }
}

/// One segment, newest first, until it is acknowledged whole; or too late: its end and the latency are over.
async fn write(
    connection: Connection,
    head: Head,
    mut media: mpsc::Receiver<Bytes>,
    ended: oneshot::Receiver<()>,
    latency: Duration,
) -> Written {
    let mut stream: Option<SendStream> = None;
    let whole = async {
        let stream = stream.insert(connection.open_uni().await.map_err(WriteError::ConnectionLost)?);
        // Only a stream that is gone has no priority.
        drop(stream.set_priority(i32::try_from(head.sequence).unwrap_or(i32::MAX)));
        stream.write_all(&head.encode()).await?;
        while let Some(piece) = media.recv().await {
            stream.write_chunk(piece).await?;
        }
        // It was not ended before.
        drop(stream.finish());
        match stream.stopped().await {
            Ok(None) => Ok(()),
            Ok(Some(code)) => Err(WriteError::Stopped(code)),
            Err(_) => Err(WriteError::ClosedStream),
        }
    };
    let late = async {
        // Its sender says nothing: it is dropped when the segment is over.
        drop(ended.await);
        sleep(latency).await;
    };
    let written = tokio::select! {
        biased;
        done = whole => Some(done),
        () = late => None,
    };
    match written {
        Some(Ok(())) => Written::Whole,
        // The receiver went on without it.
        Some(Err(WriteError::Stopped(_))) => Written::Late,
        Some(Err(_)) => Written::Lost,
        None => {
            if let Some(mut stream) = stream {
                // It may have ended meanwhile.
                drop(stream.reset(VarInt::from_u32(LATE)));
            }
            Written::Late
        }
    }
}

async fn answer(connection: &Connection, mut from: RecvStream) -> Result<Answer, PublishEnd> {
    let mut said = Vec::new();
    loop {
        match Answer::parse(&said) {
            Ok(Some(answer)) => return Ok(answer),
            Ok(None) => {}
            Err(_) => return Err(PublishEnd::Unsupported),
        }
        match from.read_chunk(4_096, true).await {
            Ok(Some(chunk)) => said.extend_from_slice(&chunk.bytes),
            Ok(None) => return Err(PublishEnd::Unsupported),
            Err(_) => return Err(connection.close_reason().map_or(PublishEnd::ClosedByPeer, |error| end_of(&error))),
        }
    }
}

/// TLS alerts among QUIC's error codes [QUIC 20.1], and the one for a protocol that the receiver does not speak.
const ALERTS: std::ops::RangeInclusive<u64> = 0x100..=0x1ff;
const NO_PROTOCOL: u64 = 0x100 + 120;
const CONNECTION_REFUSED: u64 = 2;

fn end_of(error: &ConnectionError) -> PublishEnd {
    match error {
        ConnectionError::TransportError(error) => of_code(error.code.into()),
        ConnectionError::ConnectionClosed(close) => of_code(close.error_code.into()),
        ConnectionError::ApplicationClosed(close) => match u16::try_from(close.error_code.into_inner()) {
            Ok(code @ 1_400..) => PublishEnd::Refused(code),
            _ => PublishEnd::ClosedByPeer,
        },
        ConnectionError::TimedOut | ConnectionError::Reset => PublishEnd::Silent,
        ConnectionError::LocallyClosed => PublishEnd::Finished,
        ConnectionError::VersionMismatch | ConnectionError::CidsExhausted => PublishEnd::Unsupported,
    }
}

fn of_code(code: u64) -> PublishEnd {
    match code {
        NO_PROTOCOL => PublishEnd::Unsupported,
        code if ALERTS.contains(&code) => PublishEnd::Certificate,
        CONNECTION_REFUSED => PublishEnd::Refused(1503),
        _ => PublishEnd::ClosedByPeer,
    }
}

/// Bits per second that a source needs, for the connection's window.
struct RateMeter {
    rate: Rate,
    since: Option<Mono>,
    bytes: u64,
    /// Of the last seconds, the newest last.
    seconds: Vec<u64>,
}

impl RateMeter {
    fn new(rate: Rate) -> RateMeter {
        RateMeter { rate, since: None, bytes: 0, seconds: Vec::new() }
    }

    fn add(&mut self, now: Mono, bytes: u64) {
        self.bytes += bytes;
        let since = *self.since.get_or_insert(now);
        let span = now - since;
        if span < Duration::from_secs(1) {
            return;
        }
        let bits = (self.bytes as f64 * 8.0 / span.as_secs_f64() * HEADROOM) as u64;
        if self.seconds.len() == RATE_SECONDS {
            self.seconds.remove(0);
        }
        self.seconds.push(bits);
        (self.since, self.bytes) = (Some(now), 0);
        let most = self.seconds.iter().copied().max().unwrap_or(0);
        self.rate.set(most.max(RATE_MIN));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_follows_the_highest_second_of_the_last_ten() {
        let rate = Rate::new(8_000_000);
        let mut meter = RateMeter::new(rate.clone());
        let mut now = Mono(1_000_000_000);
        let mut feed = |bits_per_second: u64, seconds: u32| {
            for _ in 0..seconds * 10 {
                now = now + Duration::from_millis(100);
                meter.add(now, bits_per_second / 80);
            }
            rate.get()
        };
        assert_eq!(feed(20_000_000, 0), 8_000_000, "until it is known");
        let near = |got: u64, want: f64| (got as f64 / want - 1.0).abs() < 0.12;
        let (high, still, low, least) = (feed(20_000_000, 3), feed(4_000_000, 5), feed(4_000_000, 12), feed(0, 15));
        assert!(near(high, 25e6) && near(still, 25e6) && near(low, 5e6), "{high} {still} {low}");
        assert_eq!(least, RATE_MIN);
    }

    #[test]
    fn every_way_to_end_has_its_word() {
        assert_eq!(of_code(0x100 + 48), PublishEnd::Certificate);
        assert_eq!(of_code(NO_PROTOCOL), PublishEnd::Unsupported);
        assert_eq!(of_code(CONNECTION_REFUSED), PublishEnd::Refused(1503));
        assert_eq!(end_of(&ConnectionError::TimedOut), PublishEnd::Silent);
        assert!(PublishEnd::Silent.worth_a_retry() && !PublishEnd::Certificate.worth_a_retry());
    }
}
