//! `rung push`: a file published over SRT by one or many publishers from one thread, in real time.

use std::io;
use std::ops::ControlFlow;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::bond::BondEvent;
use super::bonded::Bonded;
use super::publish::Publish;
use super::push_url::{PushUrl, Target};
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
    pub url: PushUrl,
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
    let target = options.url.resolve().map_err(PushError::Address)?;
    let begin = SystemClock::mono();
    let mut lanes = Vec::new();
    for stream in 1..=options.streams.max(1) {
        lanes.push(Lane::open(options, stream, &target, begin + STAGGER * (stream - 1))?);
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
            lanes.iter_mut().for_each(|lane| lane.wind_up(now));
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
    let connecting = lanes.iter().filter_map(|lane| lane.line.as_ref()).filter(|line| !line.is_connected());
    let fds = connecting.flat_map(Line::fds);
    let mut fds: Vec<_> = fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
    let span = due - now;
    let limit = Timespec { tv_sec: span.as_secs().cast_signed(), tv_nsec: span.subsec_nanos().into() };
    // A signal only makes the turn shorter.
    poll(&mut fds, Some(&limit)).ok();
}

/// A connection, or several that are one publisher.
enum Line {
    One(Box<Publish>),
    Bond(Box<Bonded>),
}

impl Line {
    fn connect(now: Mono, target: &Target) -> io::Result<Line> {
        match (target.bonding, target.ends.as_slice()) {
            (None, [only, ..]) => Ok(Line::One(Box::new(Publish::connect(now, &target.url, only.peer)?))),
            (Some(bonding), ends) => Ok(Line::Bond(Box::new(Bonded::connect(now, &target.url, bonding, ends)?))),
            (None, []) => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    fn fds(&self) -> Vec<BorrowedFd<'_>> {
        match self {
            Line::One(publish) => vec![publish.fd()],
            Line::Bond(bonded) => bonded.fds().collect(),
        }
    }

    fn run(&mut self, now: Mono) {
        match self {
            Line::One(publish) => publish.run(now),
            Line::Bond(bonded) => bonded.run(now),
        }
    }

    fn poll(&mut self) -> Option<BondEvent> {
        match self {
            Line::One(publish) => publish.poll().map(BondEvent::Whole),
            Line::Bond(bonded) => bonded.poll(),
        }
    }

    fn send(&mut self, now: Mono, media: &[u8]) {
        match self {
            // What does not fit is counted.
            Line::One(publish) => {
                publish.send(now, media);
            }
            Line::Bond(bonded) => bonded.send(now, media),
        }
    }

    fn deadline(&self) -> Option<Mono> {
        match self {
            Line::One(publish) => publish.deadline(),
            Line::Bond(bonded) => bonded.deadline(),
        }
    }

    fn is_connected(&self) -> bool {
        match self {
            Line::One(publish) => publish.is_connected(),
            Line::Bond(bonded) => bonded.is_connected(),
        }
    }

    fn stats(&self) -> PublishStats {
        match self {
            Line::One(publish) => publish.stats(),
            Line::Bond(bonded) => bonded.stats(),
        }
    }

    fn finish(&mut self, now: Mono) {
        match self {
            Line::One(publish) => publish.finish(now),
            Line::Bond(bonded) => bonded.finish(now),
        }
    }
}

/// One publisher and its reader of the file.
struct Lane {
    stream: u32,
    target: Target,
    path: PathBuf,
    reconnect: bool,
    feeder: Feeder,
    /// The feeder's next payload.
    due: Mono,
    line: Option<Line>,
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
    /// The file has ended, or it was told to stop; the connection ends when all is acknowledged and played out.
    Draining {
        since: Mono,
    },
    Done,
}

impl Lane {
    fn open(options: &PushOptions, stream: u32, target: &Target, begin: Mono) -> Result<Lane, PushError> {
        let seed = options.seed.wrapping_add(stream.into());
        let feeder = Feeder::open(&options.file, options.looping, options.knobs, seed)
            .map_err(|source| PushError::File { path: options.file.clone(), source })?;
        Ok(Lane {
            stream,
            target: Target { url: target.url.numbered(stream), ..target.clone() },
            path: options.file.clone(),
            reconnect: options.reconnect,
            feeder,
            due: begin,
            line: None,
            state: State::Waiting(begin),
            retry: RETRY.0,
            latency: target.url.latency,
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
            self.line = Some(Line::connect(now, &self.target).map_err(PushError::Socket)?);
            self.state = State::Running;
        }
        while let Some(event) = self.line.as_mut().and_then(|line| {
            line.run(now);
            line.poll()
        }) {
            let stream = self.stream;
            let told = match &event {
                BondEvent::Whole(event) => progress(Progress::Event { stream, event }),
                BondEvent::Link(link, news) => progress(Progress::Link { stream, link: *link as u32 + 1, news }),
            };
            if told.is_break() {
                flow = ControlFlow::Break(());
            }
            if let BondEvent::Whole(event) = event {
                self.happened(now, &event);
            }
        }
        // A file starts with the first connection; from then on it runs like a live source.
        if self.line.as_ref().is_some_and(Line::is_connected) || self.feeder.stats().payloads > 0 {
            self.feed(now)?;
        }
        if let State::Draining { since } = self.state {
            let all = self.line.as_ref().is_none_or(|line| line.stats().waiting == 0);
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
                self.line = None;
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
                    if let Some(line) = &mut self.line {
                        line.send(now, bytes);
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

    /// Nothing more is sent; what was sent may still come and be played.
    fn wind_up(&mut self, now: Mono) {
        match self.state {
            State::Running if self.line.as_ref().is_some_and(Line::is_connected) => {
                self.state = State::Draining { since: now };
            }
            State::Draining { .. } | State::Done => {}
            State::Running | State::Waiting(_) => self.finish(now),
        }
    }

    fn finish(&mut self, now: Mono) {
        if let Some(line) = &mut self.line {
            line.finish(now);
        }
        self.keep_stats();
        self.line = None;
        if !matches!(self.state, State::Done) {
            self.end = Some(PublishEnd::Finished);
            self.state = State::Done;
        }
    }

    fn keep_stats(&mut self) {
        if let Some(line) = &self.line {
            self.last = line.stats();
        }
    }

    fn deadline(&self) -> Option<Mono> {
        let line = self.line.as_ref().and_then(Line::deadline);
        let own = match self.state {
            State::Waiting(at) => Some(at),
            State::Running => Some(self.due),
            State::Draining { since } => Some(since + self.latency),
            State::Done => return None,
        };
        line.into_iter().chain(own).min()
    }

    fn progress(&self) -> StreamProgress {
        StreamProgress {
            connected: self.line.as_ref().is_some_and(Line::is_connected),
            publish: self.line.as_ref().map_or(self.last, Line::stats),
            feed: self.feeder.stats(),
            tries: self.tries,
            end: self.end,
        }
    }
}
