//! One publisher on air: its segments are read side by side and handed on in order, until it ends.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use quinn::{Connection, ConnectionError, ReadError, RecvStream, VarInt};
use tokio::sync::{Notify, mpsc};
use tokio::time::sleep;

use super::handover::Handover;
use super::message::{Head, LATE, REPEATED};
use super::reorder::{NotTaken, Reorder};
use super::server::Meter;
use crate::ingest::Closing;
use crate::ingest::door::Held;
use crate::time::{Mono, SystemClock};

/// Pieces of a segment that are taken at once.
const CHUNKS: usize = 16;
/// How much longer than its latency a publisher may take to end, once it said that it does.
const GRACE: Duration = Duration::from_secs(1);
/// The longest a timer is set for; then it is looked at again.
const FAR: Duration = Duration::from_secs(3_600);

pub(super) struct Publishing {
    handover: Arc<Handover>,
    held: Arc<Held>,
    latency: Duration,
    reorder: Reorder,
    /// Streams that are read and whose sequence is known.
    open: BTreeMap<u64, Arc<Notify>>,
    meter: Arc<Mutex<Meter>>,
    overflowed: u64,
    /// Bytes since a second began.
    second: (Mono, u64),
    bitrate: Option<u64>,
}

/// A segment's stream between two reads.
struct Stream {
    recv: RecvStream,
    stop: Arc<Notify>,
    /// Its first bytes, until they are a head.
    head: Vec<u8>,
    sequence: Option<u64>,
    chunks: [Bytes; CHUNKS],
}

enum Got {
    /// So many chunks.
    Media(usize),
    End,
    Reset,
    /// It was given up here.
    Stopped,
    /// With the connection.
    Lost,
}

impl Publishing {
    pub(super) fn new(
        handover: Arc<Handover>,
        held: Arc<Held>,
        latency: Duration,
        room: usize,
        meter: Arc<Mutex<Meter>>,
    ) -> Publishing {
        Publishing {
            handover,
            held,
            latency,
            reorder: Reorder::new(latency, room),
            open: BTreeMap::new(),
            meter,
            overflowed: 0,
            second: (SystemClock::mono(), 0),
            bitrate: None,
        }
    }

    /// Until it ends. What it sent before goes to the shard first.
    pub(super) async fn run(
        mut self,
        connection: &Connection,
        control: RecvStream,
        mut orders: mpsc::Receiver<Closing>,
    ) -> Closing {
        let mut reading = FuturesUnordered::new();
        let mut control = pin!(finished(control));
        // Once it ends by itself: why, and until when the rest is waited for.
        let (mut ending, mut lost) = (None::<(Closing, Mono)>, false);
        let why = loop {
            let now = SystemClock::mono();
            self.reorder.tick(now);
            self.pass_on(now);
            match ending {
                Some((why, _)) if reading.is_empty() => break why,
                Some((why, until)) if until <= now => break why,
                _ => {}
            }
            let due = self.reorder.deadline().into_iter().chain(ending.map(|(_, until)| until)).min();
            let timer = sleep(due.map_or(FAR, |due| due - now));
            tokio::select! {
                biased;
                Some(why) = orders.recv() => break why,
                stream = connection.accept_uni(), if !lost => match stream {
                    Ok(recv) => reading.push(read(Stream::new(recv))),
                    Err(error) => {
                        // What came before is read to its end.
                        (lost, ending) = (true, ending.or(Some((ended_by(&error), now + self.latency + GRACE))));
                    }
                },
                Some((stream, got)) = reading.next(), if !reading.is_empty() => match self.take(stream, got) {
                    Ok(Some(stream)) => reading.push(read(stream)),
                    Ok(None) => {}
                    Err(why) => break why,
                },
                // After the streams: what came before the end is taken before it.
                () = &mut control, if ending.is_none() => {
                    ending = Some((Closing::Finished, now + self.latency + GRACE));
                }
                () = timer => {}
            }
        };
        self.reorder.flush();
        self.pass_on(SystemClock::mono());
        why
    }

    /// What a stream brought; `Some`: there may be more.
    fn take(&mut self, mut stream: Stream, got: Got) -> Result<Option<Stream>, Closing> {
        match got {
            Got::Media(count) => {
                let now = SystemClock::mono();
                self.held.hear(now);
                let chunks = std::mem::take(&mut stream.chunks);
                let chunks = &chunks[..count];
                if let Some(sequence) = stream.sequence {
                    self.media(sequence, chunks.iter().map(Bytes::as_ref));
                    return Ok(Some(stream));
                }
                chunks.iter().for_each(|chunk| stream.head.extend_from_slice(chunk));
                self.begin(now, stream)
            }
            Got::End | Got::Reset | Got::Lost => {
                if let Some(sequence) = stream.sequence {
                    self.open.remove(&sequence);
                    self.reorder.end(sequence, matches!(got, Got::End));
                }
                Ok(None)
            }
            Got::Stopped => Ok(None),
        }
    }

    /// Its head, if it is there by now.
    fn begin(&mut self, now: Mono, mut stream: Stream) -> Result<Option<Stream>, Closing> {
        let Some((head, length)) = Head::parse(&stream.head) else { return Ok(Some(stream)) };
        match self.reorder.open(now, head) {
            Ok(()) => {
                stream.sequence = Some(head.sequence);
                self.open.insert(head.sequence, Arc::clone(&stream.stop));
                let first = std::mem::take(&mut stream.head);
                self.media(head.sequence, std::iter::once(&first[length..]));
                Ok(Some(stream))
            }
            Err(NotTaken::Far) => Err(Closing::Broken),
            Err(why) => {
                let code = if why == NotTaken::Repeated { REPEATED } else { LATE };
                // It may have ended by itself.
                drop(stream.recv.stop(VarInt::from_u32(code)));
                Ok(None)
            }
        }
    }

    fn media<'a>(&mut self, sequence: u64, chunks: impl Iterator<Item = &'a [u8]>) {
        let before = self.reorder.counts().bytes;
        self.reorder.data(sequence, chunks);
        self.second.1 += self.reorder.counts().bytes - before;
    }

    /// To the shard, and into the statistics.
    fn pass_on(&mut self, now: Mono) {
        for sequence in self.reorder.take_stopped() {
            if let Some(stop) = self.open.remove(&sequence) {
                stop.notify_one();
            }
        }
        while let Some(payload) = self.reorder.poll() {
            if !self.handover.push_media(self.held.publisher, payload) {
                self.overflowed += 1;
            }
        }
        let (since, bytes) = self.second;
        let span = now - since;
        if span >= Duration::from_secs(1) {
            let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
            self.bitrate = Some(bytes.saturating_mul(8_000_000) / micros);
            self.second = (now, 0);
        }
        *self.meter.lock().unwrap_or_else(PoisonError::into_inner) = Meter {
            counts: self.reorder.counts(),
            overflowed: self.overflowed,
            waiting_segments: u32::try_from(self.reorder.waiting_segments()).unwrap_or(u32::MAX),
            held_bytes: self.reorder.held() as u64,
            bitrate: self.bitrate,
        };
    }
}

impl Stream {
    fn new(recv: RecvStream) -> Stream {
        Stream { recv, stop: Arc::default(), head: Vec::new(), sequence: None, chunks: Default::default() }
    }
}

/// What comes next on a stream.
async fn read(mut stream: Stream) -> (Stream, Got) {
    let got = tokio::select! {
        biased;
        () = stream.stop.notified() => {
            // It may have ended by itself.
            drop(stream.recv.stop(VarInt::from_u32(LATE)));
            Got::Stopped
        }
        read = stream.recv.read_chunks(&mut stream.chunks) => match read {
            Ok(Some(count)) => Got::Media(count),
            Ok(None) => Got::End,
            Err(ReadError::Reset(_)) => Got::Reset,
            Err(_) => Got::Lost,
        },
    };
    (stream, got)
}

/// Until the publisher ends its side of the control stream. What it says there is a later version's.
async fn finished(mut control: RecvStream) {
    loop {
        match control.read_chunk(usize::MAX, true).await {
            Ok(Some(_)) => {}
            Ok(None) => return,
            // A reset, or the connection's end, which is seen elsewhere: no word of the publisher's.
            Err(_) => std::future::pending().await,
        }
    }
}

fn ended_by(error: &ConnectionError) -> Closing {
    match error {
        ConnectionError::ApplicationClosed(close) if close.error_code == VarInt::from_u32(0) => Closing::Finished,
        ConnectionError::ApplicationClosed(_) | ConnectionError::TimedOut | ConnectionError::Reset => Closing::Silent,
        _ => Closing::Broken,
    }
}
