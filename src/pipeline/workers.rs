//! One channel's worker over its lives: opened, fed, watched, replaced. Non-blocking; what its owner must know comes
//! out of `poll`.

use std::collections::{BTreeSet, VecDeque};
use std::os::fd::BorrowedFd;
use std::time::Duration;

use super::governor::{Act, Governor};
use super::history::{Fed, History, push_fill};
use super::placement;
use super::pulse::Pulse;
use super::stage::RestartPlan;
use crate::media::channel::VideoCodec;
use crate::media::fault::FaultKind;
use crate::media::limits::{WORKER_QUEUE_BYTES, WORKER_QUEUE_SPAN, WORKER_SILENCE_GPU};
use crate::media::logo::Logo;
use crate::media::track::AudioConfig;
use crate::pixels::client::Worker;
use crate::pixels::hall::{Hall, Home};
use crate::pixels::protocol::{
    self, Backend, Encoded, Fill, FromWorker, Lost, Open, OpenRendition, Picture, Progress, RenditionIndex, ToWorker,
    Unit, VideoInit,
};
use crate::time::Mono;

/// The channel's number on its socket: it has one to itself.
const CH: u32 = 0;
/// Units that may be inside the worker, as time: more wait here, where commands can overtake them. Counted, not
/// measured by N: behind a hole in the source the next unit is far ahead of what was shown.
const AHEAD: Duration = Duration::from_millis(700);
/// Fewer than this never wait: a decoder may hold so many for reordering [AVC A.3.1].
const AHEAD_MIN: usize = 18;
/// A unit that gave no picture by then gives none.
const NO_PICTURE: Duration = Duration::from_secs(2);
/// A new worker has a backlog to catch up with: nothing is shed or skipped for lag meanwhile.
const GRACE: Duration = Duration::from_secs(3);
/// First wait before a failed worker is tried again; doubled up to `RETRY_MAX`.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// The best rendition of a software backend that stands in for a GPU has at most so many rows.
const MAKESHIFT_HEIGHT: u32 = 720;

/// What the owner must know.
#[derive(Debug)]
pub enum Event {
    Opened {
        video: Vec<VideoInit>,
        audio: Vec<AudioConfig>,
    },
    Encoded(Encoded),
    /// A rendition skips to its IDR at `resumes`.
    Late {
        rendition: RenditionIndex,
        resumes: i64,
    },
    /// The governor took a rendition off from frame `at` on.
    Shed {
        rendition: RenditionIndex,
        at: i64,
    },
    Resumed {
        rendition: RenditionIndex,
        at: i64,
    },
    /// The worker is gone; a successor is wanted (`respawn`).
    Lost {
        why: &'static str,
        /// How much with it.
        lost: Lost,
        detail: String,
    },
    Progress(Progress),
    /// A poster, a storyboard sheet, or what `snap` asked for.
    Picture(Picture),
    Fault {
        kind: FaultKind,
        at: Option<i64>,
        detail: String,
    },
    /// Units were skipped because the worker is too far behind.
    Overrun {
        at: i64,
    },
    /// Everything it had is out.
    Closed,
}

/// The worker slot of one session.
pub struct Workers {
    hall: Hall,
    home: Home,
    worker: Option<Worker>,
    open: Option<Open>,
    history: History,
    governor: Governor,
    grid_gop: i64,
    sent: i64,
    progress: Progress,
    pulse: Pulse,
    /// When the worker was told what to make: a warm one that waits for that may be silent.
    asked: Mono,
    overrun: bool,
    /// The random access point behind skipped units: earlier frames that follow it cannot be decoded.
    lead: Option<i64>,
    /// Frames that are to be IDRs beside those of the grid: a successor is told of those that it makes again.
    forced: BTreeSet<i64>,
    /// Video units, and fills between them, that wait until the worker has come closer.
    pending: VecDeque<Fed>,
    pending_bytes: usize,
    /// N of the units handed to the worker whose frames are not shown yet, and when they were handed.
    flight: Vec<(i64, Mono)>,
    grace: Mono,
    retry: Option<(Mono, Duration)>,
    encoder_delay: i64,
    rate_hz: f64,
    /// Renditions that the next worker makes no more (true) or again, and the stage must hear of.
    changes: Vec<(usize, bool)>,
    events: VecDeque<Event>,
}

impl Workers {
    pub fn new(hall: Hall, now: Mono) -> Workers {
        Workers {
            hall,
            home: Home::default(),
            worker: None,
            open: None,
            history: History::default(),
            governor: Governor::new(Vec::new(), 0, now),
            grid_gop: 1,
            sent: -1,
            progress: Progress::default(),
            pulse: Pulse::new(Home::default(), WORKER_SILENCE_GPU, now),
            asked: now,
            overrun: false,
            lead: None,
            forced: BTreeSet::new(),
            pending: VecDeque::new(),
            pending_bytes: 0,
            flight: Vec::new(),
            grace: now,
            retry: None,
            encoder_delay: 0,
            rate_hz: 25.0,
            changes: Vec::new(),
            events: VecDeque::new(),
        }
    }

    /// Where the next worker runs; the present one stays where it is.
    pub fn set_home(&mut self, home: Home) {
        self.home = home;
    }

    /// The next worker runs there, and works so. `preset`: its encoders', if one is configured. `least`: it makes only the
    /// lowest rendition and the best one of at most `MAKESHIFT_HEIGHT` rows, for a machine that stands in for a better one.
    pub fn set_place(&mut self, home: Home, backend: Backend, preset: Option<&str>, least: bool) {
        self.set_home(home);
        let Some(video) = self.open.as_mut().and_then(|open| open.video.as_mut()) else { return };
        video.backend = backend;
        for r in &mut video.renditions {
            preset.unwrap_or(placement::preset(backend, r.codec)).clone_into(&mut r.preset);
        }
        if !least {
            self.changes.extend(self.governor.free().into_iter().map(|i| (i, false)));
            return;
        }
        let best = makeshift(&video.renditions);
        let taken_off = (0..video.renditions.len()).filter(|i| Some(*i) != best);
        let governor = &mut self.governor;
        self.changes.extend(taken_off.filter(|i| governor.hold(*i)).map(|i| (i, true)));
    }

    /// Gives the present worker up for one at another place; the owner then calls `respawn`.
    pub fn leave(&mut self, now: Mono) {
        self.worker = None;
        self.retry = Some((now, Duration::ZERO));
    }

    /// Starts a process ahead of need, so that the first unit finds it warm.
    pub fn warm(&mut self, now: Mono) {
        if self.worker.is_none() {
            self.spawn(now);
        }
    }

    /// Tells a worker what to make.
    pub fn open(&mut self, now: Mono, open: Open) {
        self.prepare(now, open);
        self.begin(now);
    }

    /// The first worker, for what was prepared.
    pub fn begin(&mut self, now: Mono) {
        self.warm(now);
        self.send_open(now);
    }

    /// What is to be made, once there is a worker.
    pub fn prepare(&mut self, now: Mono, open: Open) {
        let video = open.video.as_ref();
        let renditions = video.map_or(&[][..], |v| &v.renditions);
        let costs = renditions.iter().map(|r| placement::cost(r.codec, r.width, r.height)).collect();
        self.governor = Governor::new(costs, protocol::lowest(renditions), now);
        self.grid_gop = video.map_or(1, |v| i64::from(v.cadence.gop));
        self.rate_hz = video.map_or(25.0, |v| v.cadence.rate.hz());
        let delay = |r: &OpenRendition| r.lookahead + r.bframes + 2;
        self.encoder_delay = video.map_or(0, |v| i64::from(v.renditions.iter().map(delay).max().unwrap_or(0)));
        self.open = Some(open);
    }

    /// A successor for a lost worker.
    pub fn respawn(&mut self, now: Mono, plan: &RestartPlan) {
        let Some(open) = self.open.as_mut() else { return };
        let start = plan.start;
        if let Some(video) = open.video.as_mut() {
            video.start = start;
        }
        for (audio, first) in open.audio.iter_mut().zip(&plan.audio) {
            audio.start = *first;
        }
        self.spawn(now);
        self.send_open(now);
        let shed: Vec<RenditionIndex> =
            (0..u8::MAX).take(self.renditions()).filter(|r| self.governor.is_shed(usize::from(*r))).collect();
        for rendition in shed {
            self.tell(&ToWorker::Shed { ch: CH, rendition, at: start });
        }
        for (rendition, off) in std::mem::take(&mut self.changes) {
            let rendition = RenditionIndex::try_from(rendition).unwrap_or(RenditionIndex::MAX);
            let event =
                if off { Event::Shed { rendition, at: start } } else { Event::Resumed { rendition, at: start } };
            self.events.push_back(event);
        }
        let forced: Vec<i64> = self.forced.range(start..).copied().collect();
        for at in plan.idrs.iter().chain(&forced) {
            self.tell(&ToWorker::Idr { ch: CH, at: *at });
        }
        let history: Vec<Fed> = self.history.replay(start).collect();
        for fed in history {
            self.hand(now, fed);
        }
    }

    pub fn video_unit(&mut self, now: Mono, unit: Unit) {
        self.history.push_video(&unit);
        self.sent = self.sent.max(unit.at);
        if self.worker.is_none() {
            return;
        }
        if self.overrun {
            if !unit.random_access {
                return;
            }
            self.overrun = false;
            self.lead = Some(unit.at);
        } else if self.lead.is_some_and(|first| unit.at < first) {
            // It leads a random access point whose predecessors were skipped.
            return;
        } else {
            self.lead = None;
        }
        self.pending_bytes += unit.data.len();
        self.pending.push_back(Fed::Unit(unit));
        self.hand_over(now);
        self.bound_queue(now);
    }

    /// The source is away: every frame below `to` that was not shown is shown without it, behind the units that came.
    pub fn fill(&mut self, now: Mono, to: i64, with: Fill) {
        self.history.push_fill(to, with);
        if self.renditions() > 0 {
            self.sent = self.sent.max(to - 1);
        }
        if self.worker.is_some() {
            push_fill(&mut self.pending, to, with);
            self.hand_over(now);
        }
    }

    fn hand(&mut self, now: Mono, fed: Fed) {
        if let Fed::Unit(unit) = &fed {
            self.flight.push((unit.at, now));
        }
        self.pulse.fed(now);
        self.tell(&match fed {
            Fed::Unit(unit) => ToWorker::Unit { ch: CH, unit },
            Fed::Fill { to, with } => ToWorker::Fill { ch: CH, to, with },
        });
    }

    /// Hands waiting units to the worker as far as it has come.
    fn hand_over(&mut self, now: Mono) {
        let ahead = ((AHEAD.as_secs_f64() * self.rate_hz).ceil() as usize).max(AHEAD_MIN);
        let held_back = now > self.grace;
        self.flight.retain(|(at, handed)| *at >= self.progress.next && now - *handed < NO_PICTURE);
        while !held_back || self.flight.len() < ahead {
            let Some(fed) = self.pending.pop_front() else { return };
            self.pending_bytes -= fed.unit().map_or(0, |unit| unit.data.len());
            self.hand(now, fed);
        }
    }

    /// Never more than half a second waits: what is older goes, up to a random access point.
    fn bound_queue(&mut self, now: Mono) {
        let mut units = self.pending.iter().filter_map(Fed::unit);
        let Some(first) = units.next() else { return };
        let last = units.next_back().unwrap_or(first);
        let (at, span) = (first.at, last.stamps.received - first.stamps.received);
        if span <= WORKER_QUEUE_SPAN && self.pending_bytes <= WORKER_QUEUE_BYTES || now <= self.grace {
            return;
        }
        self.events.push_back(Event::Overrun { at });
        match self.pending.iter().rposition(|fed| fed.unit().is_some_and(|unit| unit.random_access)) {
            Some(keep) => {
                drop(self.pending.drain(..keep));
                let first = self.pending.front().and_then(Fed::unit).map(|unit| unit.at);
                self.pending.retain(|fed| fed.unit().is_none_or(|unit| Some(unit.at) >= first));
                self.lead = first;
            }
            None => {
                self.pending.retain(|fed| fed.unit().is_none());
                self.overrun = true;
            }
        }
        self.pending_bytes = self.pending.iter().filter_map(Fed::unit).map(|unit| unit.data.len()).sum();
    }

    pub fn audio_unit(&mut self, unit: Unit) {
        self.history.push_audio(&unit);
        self.tell(&ToWorker::Unit { ch: CH, unit });
    }

    /// Frame `at` is to be an IDR of every rendition; none of its units was handed over yet.
    pub fn force(&mut self, at: i64) {
        if self.renditions() > 0 && self.forced.insert(at) {
            self.tell(&ToWorker::Idr { ch: CH, at });
        }
    }

    /// Another logo, or none, for the present worker and those that follow it.
    pub fn set_logo(&mut self, logo: Option<&Logo>) {
        let Some(video) = self.open.as_mut().and_then(|open| open.video.as_mut()) else { return };
        video.logo = logo.cloned().map(Box::new);
        let logo = video.logo.clone();
        self.tell(&ToWorker::Logo { ch: CH, logo });
    }

    /// A picture as it is now: it comes as an event, unless the worker is lost meanwhile.
    pub fn snap(&mut self) {
        self.tell(&ToWorker::Snap { ch: CH });
    }

    /// Frames before `frame` are published: a successor need not make them again.
    pub fn published(&mut self, frame: i64) {
        self.history.trim(frame);
        self.forced = self.forced.split_off(&frame);
    }

    /// End of media: `Closed` follows once everything is out.
    pub fn close(&mut self, now: Mono) {
        while let Some(fed) = self.pending.pop_front() {
            self.hand(now, fed);
        }
        if self.worker.is_none() {
            self.events.push_back(Event::Closed);
        }
        self.tell(&ToWorker::Close { ch: CH });
    }

    /// Moves messages, watches the clock.
    pub fn run(&mut self, now: Mono) {
        let Some(worker) = self.worker.as_mut() else { return };
        worker.run(now);
        while let Some(message) = self.worker.as_mut().and_then(Worker::poll) {
            self.take(now, message);
        }
        self.watch(now);
        while let Some(act) = self.governor.poll() {
            self.act(act);
        }
    }

    pub fn poll(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When a successor may be tried; the owner then calls `respawn`.
    pub fn retry_due(&self, now: Mono) -> bool {
        self.worker.is_none() && self.open.is_some() && self.retry.is_some_and(|(at, _)| now >= at)
    }

    pub fn fd(&self) -> Option<(BorrowedFd<'_>, bool)> {
        self.worker.as_ref().map(|w| (w.fd(), w.wants_write()))
    }

    pub fn is_up(&self) -> bool {
        self.worker.is_some()
    }

    pub fn is_shed(&self, rendition: usize) -> bool {
        self.governor.is_shed(rendition)
    }

    pub fn progress(&self) -> Progress {
        self.progress
    }

    fn renditions(&self) -> usize {
        self.open.as_ref().and_then(|o| o.video.as_ref()).map_or(0, |v| v.renditions.len())
    }

    fn spawn(&mut self, now: Mono) {
        self.progress = Progress::default();
        self.pulse = Pulse::new(self.home, self.hall.patience(), now);
        self.grace = now + GRACE;
        self.flight.clear();
        self.pending.clear();
        self.pending_bytes = 0;
        match self.hall.worker(self.home, now) {
            Ok(worker) => self.worker = Some(worker),
            Err(detail) => self.lose(now, "spawn", Lost::Channel, detail),
        }
    }

    fn send_open(&mut self, now: Mono) {
        let Some(open) = self.open.clone() else { return };
        self.grace = now + GRACE;
        self.asked = now;
        self.tell(&ToWorker::Open { ch: CH, open: Box::new(open) });
    }

    fn tell(&mut self, message: &ToWorker) {
        if let Some(worker) = self.worker.as_mut()
            && worker.send(message).is_err()
        {
            self.overrun = true;
        }
    }

    fn take(&mut self, now: Mono, message: FromWorker) {
        match message {
            FromWorker::Opened { renditions, audio, .. } => {
                self.retry = None;
                self.pulse.opened(now);
                self.events.push_back(Event::Opened { video: renditions, audio });
            }
            FromWorker::Encoded { frame, .. } => self.events.push_back(Event::Encoded(frame)),
            FromWorker::Progress { progress, .. } => {
                self.pulse.progress(now, &progress, self.encoder_delay);
                self.progress = progress;
                self.hand_over(now);
                if self.renditions() > 0 && progress.encoded > 0 && now > self.grace {
                    self.govern(now);
                }
                self.events.push_back(Event::Progress(progress));
            }
            FromWorker::Late { rendition, resumes, .. } => {
                self.governor.late(now, rendition);
                self.events.push_back(Event::Late { rendition, resumes });
            }
            FromWorker::Fault { kind, at, detail, .. } => self.events.push_back(Event::Fault { kind, at, detail }),
            FromWorker::Failed { what, lost, .. } => self.lose(now, "failed", lost, what),
            FromWorker::Closed { .. } => self.events.push_back(Event::Closed),
            FromWorker::Picture { picture, .. } => self.events.push_back(Event::Picture(picture)),
            FromWorker::Hello { .. }
            | FromWorker::Caps(_)
            | FromWorker::Gpus(_)
            | FromWorker::StillMade { .. }
            | FromWorker::Made { .. } => {}
        }
    }

    /// Lag: units that came and whose frames are not shown yet, beyond what decoder order accounts for.
    fn govern(&mut self, now: Mono) {
        let inside = self.flight.iter().filter(|(at, _)| *at >= self.progress.next).count();
        let waiting = self.pending.iter().filter(|fed| fed.unit().is_some()).count();
        let frames = (inside + waiting).saturating_sub(4);
        let lag = Duration::from_secs_f64(frames as f64 / self.rate_hz);
        self.governor.lag(now, lag);
    }

    fn act(&mut self, act: Act) {
        let next_grid = (self.sent.max(0) / self.grid_gop + 1) * self.grid_gop;
        match act {
            Act::Shed(rendition) => {
                // At once: every frame more makes it later.
                let at = self.progress.next + 1;
                self.tell(&ToWorker::Shed { ch: CH, rendition, at });
                self.events.push_back(Event::Shed { rendition, at });
            }
            Act::Resume(rendition) => {
                self.tell(&ToWorker::Resume { ch: CH, rendition, at: next_grid });
                self.events.push_back(Event::Resumed { rendition, at: next_grid });
            }
        }
    }

    fn watch(&mut self, now: Mono) {
        let Some(worker) = self.worker.as_ref() else { return };
        if let Some(end) = worker.end() {
            let detail = end.to_owned();
            // If only this socket closed, the others may go on: a process that is gone is found so by the hall.
            self.worker = None;
            return self.lose(now, "died", Lost::Process, detail);
        }
        if self.open.is_none() {
            return;
        }
        let silence = worker.silence(now).min(now - self.asked);
        if silence > worker.silence_max() {
            let detail = format!("worker {} said nothing for {:.1} s", worker.pid(), silence.as_secs_f64());
            return self.lose(now, "silent", Lost::Process, detail);
        }
        let behind = self.sent > self.progress.next + self.encoder_delay;
        if let Some(span) = self.pulse.stuck(now, behind).filter(|_| self.renditions() > 0) {
            let detail = format!("worker {} made nothing for {:.1} s", worker.pid(), span.as_secs_f64());
            self.lose(now, "stuck", Lost::Process, detail);
        }
    }

    fn lose(&mut self, now: Mono, why: &'static str, lost: Lost, detail: String) {
        if let Some(worker) = self.worker.take().filter(|_| lost != Lost::Channel) {
            worker.condemn(now, &detail);
        }
        // The first successor comes at once; one that fails before it has opened waits.
        let wait = self.retry.map_or(Duration::ZERO, |(_, wait)| (wait * 2).clamp(RETRY_MIN, RETRY_MAX));
        self.retry = Some((now + wait, wait));
        self.overrun = false;
        self.events.push_back(Event::Lost { why, lost, detail });
    }
}

/// The rendition that a machine which stands in for a better one makes beside the lowest: H.264 before HEVC, which costs
/// it more and serves fewer players.
fn makeshift(renditions: &[OpenRendition]) -> Option<usize> {
    let fits = |r: &OpenRendition| r.height <= MAKESHIFT_HEIGHT;
    let h264 = renditions.iter().position(|r| fits(r) && r.codec == VideoCodec::H264);
    h264.or_else(|| renditions.iter().position(fits))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pixels::hall;
    use std::os::unix::fs::PermissionsExt;

    fn condemned(hall: &Hall) -> bool {
        std::iter::from_fn(|| hall.poll()).any(|event| matches!(event, hall::Event::Condemned { .. }))
    }

    #[test]
    fn only_a_loss_that_says_so_costs_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("worker");
        std::fs::write(&program, "#!/bin/sh\nexec sleep 600\n").unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let now = Mono(1_000_000_000);
        let hall = Hall::new(program);
        let mut workers = Workers::new(hall.clone(), now);
        workers.set_home(Home::Gpu(0));
        let mut lose = |lost: Lost| {
            workers.warm(now);
            assert_eq!(hall.pids().len(), 1);
            workers.take(now, FromWorker::Failed { ch: CH, what: "the device is lost".into(), lost });
            let told = workers.poll();
            assert!(matches!(&told, Some(Event::Lost { why: "failed", detail, .. }) if detail == "the device is lost"));
            (hall.pids().len(), condemned(&hall))
        };
        assert_eq!(lose(Lost::Channel), (1, false));
        assert_eq!(lose(Lost::Process), (0, true));
    }
}
