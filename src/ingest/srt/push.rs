//! `rung push`: a file published over SRT by one or many publishers from one thread, in real time.

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::publish::Publish;
use super::url::SrtUrl;
use crate::ingest::feeder::{Feed, Feeder, Knobs};
use crate::ingest::publish::{
    Progress, PublishEnd, PublishEvent, PublishStats, PushError, RETRY, STAGGER, StreamProgress, TICK,
};
use crate::time::{Mono, SystemClock};

/// The loop turns at most this often; more streams then share one turn.
const TURN: Duration = Duration::from_millis(2);
/// How long the last media may take to be acknowledged.
const DRAIN: Duration = Duration::from_secs(3);

#[derive(Clone, Debug)]
pub struct PushOptions {
    pub file: PathBuf,
    pub url: SrtUrl,
    /// Publishers; `{n}` in the stream id becomes 1, 2, …
    pub streams: u32,
    /// Again from the start, as one continuous stream.
    pub looping: bool,
    /// Come back when the connection ends or cannot be made; media of the meantime is lost, as an encoder's.
    pub reconnect: bool,
    pub knobs: Knobs,
    pub seed: u64,
}

/// Publishes until the file ends or `progress` breaks.
///
/// # Errors
/// The file, the address, or the first publisher that ended early (the others went on to their end).
pub fn push(
    options: &PushOptions,
    progress: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
) -> Result<Vec<StreamProgress>, PushError> {
    let peer = options.url.resolve().map_err(PushError::Address)?;
    let begin = SystemClock::mono();
    let mut lanes = Vec::new();
    for stream in 1..=options.streams.max(1) {
        lanes.push(Lane::open(options, stream, peer, begin + STAGGER * (stream - 1))?);
    }
    let mut tick = begin;
    loop {
        let now = SystemClock::mono();
        let mut stop = false;
        for lane in &mut lanes {
            stop |= lane.turn(now, progress)?.is_break();
        }
        if now >= tick {
            tick = now + TICK;
            let streams: Vec<_> = lanes.iter().map(Lane::progress).collect();
            stop |= progress(Progress::Tick { elapsed: now - begin, streams: &streams }).is_break();
        }
        if stop {
            lanes.iter_mut().for_each(|lane| lane.finish(now));
        }
        if lanes.iter().all(|lane| matches!(lane.state, State::Done)) {
            break;
        }
        wait(&lanes, now, tick);
    }
    let ended =
        lanes.iter().find_map(|lane| lane.end.filter(|end| *end != PublishEnd::Finished).map(|end| (lane, end)));
    match ended {
        Some((lane, end)) => Err(PushError::Ended { stream: lane.stream, end }),
        None => Ok(lanes.iter().map(Lane::progress).collect()),
    }
}

/// Until the next thing is due, at least a turn; or a packet came for a publisher that is not yet connected.
fn wait(lanes: &[Lane], now: Mono, tick: Mono) {
    let due = lanes.iter().filter_map(Lane::deadline).min().unwrap_or(tick).min(tick).max(now + TURN);
    let connecting = lanes.iter().filter_map(|lane| lane.publish.as_ref()).filter(|publish| !publish.is_connected());
    let mut fds: Vec<_> = connecting.map(|publish| PollFd::from_borrowed_fd(publish.fd(), PollFlags::IN)).collect();
    let span = due - now;
    let limit = Timespec { tv_sec: span.as_secs().cast_signed(), tv_nsec: span.subsec_nanos().into() };
    // A signal only makes the turn shorter.
    poll(&mut fds, Some(&limit)).ok();
}

/// One publisher and its reader of the file.
struct Lane {
    stream: u32,
    url: SrtUrl,
    peer: SocketAddr,
    path: PathBuf,
    reconnect: bool,
    feeder: Feeder,
    /// The feeder's next payload.
    due: Mono,
    publish: Option<Publish>,
    state: State,
    retry: Duration,
    latency: Duration,
    tries: u32,
    last: PublishStats,
    end: Option<PublishEnd>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// No connection; the next try is then.
    Waiting(Mono),
    Running,
    /// The file has ended; the connection ends when all is acknowledged and played out, or then.
    Draining {
        since: Mono,
    },
    Done,
}

impl Lane {
    fn open(options: &PushOptions, stream: u32, peer: SocketAddr, begin: Mono) -> Result<Lane, PushError> {
        let seed = options.seed.wrapping_add(stream.into());
        let feeder = Feeder::open(&options.file, options.looping, options.knobs, seed)
            .map_err(|source| PushError::File { path: options.file.clone(), source })?;
        Ok(Lane {
            stream,
            url: options.url.numbered(stream),
            peer,
            path: options.file.clone(),
            reconnect: options.reconnect,
            feeder,
            due: begin,
            publish: None,
            state: State::Waiting(begin),
            retry: RETRY.0,
            latency: options.url.latency,
            tries: 0,
            last: PublishStats::default(),
            end: None,
        })
    }

    fn turn(
        &mut self,
        now: Mono,
        progress: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, PushError> {
        let mut flow = ControlFlow::Continue(());
        if let State::Waiting(at) = self.state
            && at <= now
        {
            self.tries += 1;
            self.publish = Some(Publish::connect(now, &self.url, self.peer).map_err(PushError::Socket)?);
            self.state = State::Running;
        }
        while let Some(event) = self.publish.as_mut().and_then(|publish| {
            publish.run(now);
            publish.poll()
        }) {
            if progress(Progress::Event { stream: self.stream, event: &event }).is_break() {
                flow = ControlFlow::Break(());
            }
            self.happened(now, &event);
        }
        // A file starts with the first connection; from then on it runs like a live source.
        if self.publish.as_ref().is_some_and(Publish::is_connected) || self.feeder.stats().payloads > 0 {
            self.feed(now)?;
        }
        if let State::Draining { since } = self.state {
            let all = self.publish.as_ref().is_none_or(|publish| publish.stats().waiting == 0);
            if all && now - since >= self.latency || now - since >= self.latency + DRAIN {
                self.finish(now);
            }
        }
        Ok(flow)
    }

    fn happened(&mut self, now: Mono, event: &PublishEvent) {
        match event {
            PublishEvent::Connected { latency } => {
                self.retry = RETRY.0;
                self.latency = *latency;
            }
            PublishEvent::Closed(end) => {
                self.keep_stats();
                self.publish = None;
                let again = self.reconnect && end.worth_a_retry() && matches!(self.state, State::Running);
                if again {
                    self.state = State::Waiting(now + self.retry);
                    self.retry = (self.retry * 2).min(RETRY.1);
                } else if !matches!(self.state, State::Done) {
                    self.end = Some(*end);
                    self.state = State::Done;
                }
            }
        }
    }

    /// Everything that is due. Without a connection it is lost, as an encoder's would be.
    fn feed(&mut self, now: Mono) -> Result<(), PushError> {
        if matches!(self.state, State::Draining { .. } | State::Done) {
            return Ok(());
        }
        loop {
            let next = self.feeder.next(now);
            match next.map_err(|source| PushError::File { path: self.path.clone(), source })? {
                Feed::Payload(bytes) => {
                    if let Some(publish) = &mut self.publish {
                        publish.send(now, bytes);
                    }
                }
                Feed::Later(at) => {
                    self.due = at;
                    return Ok(());
                }
                Feed::End => {
                    self.state = State::Draining { since: now };
                    return Ok(());
                }
            }
        }
    }

    fn finish(&mut self, now: Mono) {
        if let Some(publish) = &mut self.publish {
            publish.finish(now);
        }
        self.keep_stats();
        self.publish = None;
        if !matches!(self.state, State::Done) {
            self.end = Some(PublishEnd::Finished);
            self.state = State::Done;
        }
    }

    fn keep_stats(&mut self) {
        if let Some(publish) = &self.publish {
            self.last = publish.stats();
        }
    }

    fn deadline(&self) -> Option<Mono> {
        let publish = self.publish.as_ref().and_then(Publish::deadline);
        let own = match self.state {
            State::Waiting(at) => Some(at),
            State::Running => Some(self.due),
            State::Draining { since } => Some(since + self.latency),
            State::Done => return None,
        };
        publish.into_iter().chain(own).min()
    }

    fn progress(&self) -> StreamProgress {
        StreamProgress {
            connected: self.publish.as_ref().is_some_and(Publish::is_connected),
            publish: self.publish.as_ref().map_or(self.last, Publish::stats),
            feed: self.feeder.stats(),
            tries: self.tries,
            end: self.end,
        }
    }
}
