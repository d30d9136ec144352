//! One broadcast: its publishers' bytes through demux and timeline to workers and segmenters, and its states.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use super::events::Scene;
use super::shard::Setup;
use super::stage::Stage;
use super::status::{InputState, PublisherStatus, RenditionStatus, SessionStatus, State, WorkerStatus};
use super::workers::{self, Workers};
use crate::demux::{self, Demuxer};
use crate::ingest::source::{Leg, PublisherId};
use crate::ingest::srt::Closing;
use crate::media::channel::{Channel, ChannelKind, SessionId};
use crate::media::fault::Fault;
use crate::media::grid::{MemoryLog, PdtLine, Record, SourceProfile, TimelineLog};
use crate::media::limits::{INPUT_LOST, NO_MEDIA, PEER_IDLE, PROBE};
use crate::media::sample::Stamps;
use crate::media::track::Program;
use crate::package::origin::SessionOutput;
use crate::package::window::Kind;
use crate::pixels::protocol::{Fill, Progress, Unit};
use crate::telemetry::report::Level;
use crate::time::{Mono, Now, Wall};
use crate::timeline::{Facts, Filling, Out, Rules, Timeline};

/// An ending session waits this long for its worker's last frames.
const DRAIN: Duration = Duration::from_secs(3);
/// No worker for this long: what it should have made becomes GAP.
const WORKER_GONE: Duration = Duration::from_secs(3);

/// Why a session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The publisher said that it is finished, and the channel takes its word for it.
    Eos,
    /// The source was lost and did not come back within the reconnect window.
    InputTimeout,
    NoMedia,
    InputInvalid,
    Failed,
    Shutdown,
}

impl Ending {
    pub fn name(self) -> &'static str {
        match self {
            Ending::Eos => "eos",
            Ending::InputTimeout => "input_timeout",
            Ending::NoMedia => "no_media",
            Ending::InputInvalid => "input_invalid",
            Ending::Failed => "failed",
            Ending::Shutdown => "shutdown",
        }
    }
}

/// What its channel must know of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The source is gone: hold, then slate, until it comes back, for `window` at most.
    InputLost { why: Lost, window: Duration },
    /// It is back, so long after its last byte.
    InputRestored { after: Duration },
    /// Final.
    Ended { why: Ending },
}

/// How a source is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// No publisher is connected any more.
    Closed,
    /// Publishers are connected and say nothing.
    Silent,
}

struct Input {
    leg: u8,
    demuxer: Demuxer,
}

/// A session from its first publisher to `ended`.
pub struct Session {
    id: SessionId,
    config: Arc<Channel>,
    scene: Scene,
    state: State,
    detail: Option<String>,
    started: Mono,
    first_media: Option<Mono>,
    last_media: Mono,
    /// When the last publisher came.
    joined: Mono,
    live_since: Option<Wall>,
    ending: Option<Mono>,
    why: Option<Ending>,
    /// The source is lost, and waited for until then.
    lost: Option<Mono>,
    events: VecDeque<Event>,
    inputs: BTreeMap<PublisherId, Input>,
    timeline: Timeline,
    program: Program,
    log: Box<dyn TimelineLog + Send>,
    line: Option<PdtLine>,
    workers: Workers,
    uses_worker: bool,
    respawns: u64,
    lost_at: Option<Mono>,
    told: Progress,
    stage: Option<Stage>,
    on_air: Option<Arc<SessionOutput>>,
    announced: bool,
    profile: Option<SourceProfile>,
    refusal: Option<Closing>,
}

impl Session {
    pub fn new(
        config: Arc<Channel>,
        setup: Arc<Setup>,
        profile: Option<SourceProfile>,
        last_msn: Option<u64>,
        now: Now,
    ) -> Session {
        let id = SessionId::new(ulid::Ulid::from_parts(now.wall.unix_millis(), entropy()));
        let scene = Scene { channel: config.name.clone(), session: Some(id.clone()) };
        let facts = Facts { kind: config.kind, mode: config.mode, profile, last_msn, rules: Rules::default() };
        let mut workers = Workers::new(setup.worker.clone(), now.mono);
        if config.kind != ChannelKind::Transmux {
            workers.warm(now.mono);
        }
        scene.state(None, State::Init, "publish", "");
        Session {
            id,
            config,
            scene,
            state: State::Init,
            detail: None,
            started: now.mono,
            first_media: None,
            last_media: now.mono,
            joined: now.mono,
            live_since: None,
            ending: None,
            why: None,
            lost: None,
            events: VecDeque::new(),
            inputs: BTreeMap::new(),
            timeline: Timeline::new(facts),
            program: Program::default(),
            log: Box::new(MemoryLog::default()),
            line: None,
            workers,
            uses_worker: false,
            respawns: 0,
            lost_at: None,
            told: Progress::default(),
            stage: None,
            on_air: None,
            announced: false,
            profile: None,
            refusal: None,
        }
    }

    pub fn id(&self) -> &SessionId {
        &self.id
    }

    pub fn join(&mut self, now: Now, publisher: PublisherId, leg: Leg) {
        self.joined = now.mono;
        // Whoever comes in the last moment may say something first.
        self.lost = self.lost.map(|until| until.max(now.mono + INPUT_LOST));
        let leg = u8::from(leg == Leg::B);
        self.timeline.leg_joined(leg);
        self.inputs.insert(publisher, Input { leg, demuxer: Demuxer::new() });
    }

    pub fn leave(&mut self, now: Now, publisher: PublisherId) {
        let Some(mut input) = self.inputs.remove(&publisher) else { return };
        input.demuxer.flush(now.mono);
        self.take_units(now, &mut input);
        self.timeline.leg_left(input.leg);
        self.place(now);
    }

    /// No publisher is left, and none takes over.
    pub fn abandoned(&mut self, now: Now) {
        self.input_lost(now, Lost::Closed);
    }

    /// What happened since the last call, oldest first.
    pub fn poll(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Bytes of a transport stream.
    pub fn data(&mut self, now: Now, publisher: PublisherId, payload: &[u8]) {
        let Some(mut input) = self.inputs.remove(&publisher) else { return };
        self.first_media.get_or_insert(now.mono);
        let after = now.mono - self.last_media;
        self.last_media = now.mono;
        if self.lost.take().is_some() {
            self.events.push_back(Event::InputRestored { after });
        }
        input.demuxer.push(now.mono, payload);
        self.take_units(now, &mut input);
        self.inputs.insert(publisher, input);
        self.place(now);
    }

    /// Everything that is not a datagram: worker messages and timers.
    pub fn run(&mut self, now: Now) {
        if self.timeline.deadline().is_some_and(|at| now.mono >= at) {
            self.timeline.handle_timeout(now);
            self.place(now);
        }
        self.workers.run(now.mono);
        while let Some(event) = self.workers.poll() {
            self.worker_event(now, event);
        }
        self.respawn_if_due(now);
        self.publish(now);
        self.time_out(now);
    }

    pub fn deadline(&self) -> Option<Mono> {
        let stage = self.stage.as_ref().and_then(Stage::deadline);
        let open = self.ending.is_none() && self.state != State::Ended;
        let input = open.then(|| match (self.lost, self.state) {
            (Some(until), _) => until,
            (None, State::Init) => self.first_media.map_or(self.started + NO_MEDIA, |at| at + PROBE),
            (None, _) => self.last_media + INPUT_LOST,
        });
        // Whoever is dismissed leaves in the same round.
        let idle = (open && !self.inputs.is_empty() && self.state != State::Init).then(|| self.idle_at());
        [self.timeline.deadline(), self.ending, stage, input, idle].into_iter().flatten().min()
    }

    pub fn fd(&self) -> Option<(BorrowedFd<'_>, bool)> {
        self.workers.fd()
    }

    /// Begins the end: what is in flight comes out, then ENDLIST.
    pub fn finish(&mut self, now: Now, why: Ending) {
        if self.ending.is_some() || self.state == State::Ended {
            return;
        }
        self.timeline.finish(now);
        self.place(now);
        self.why = Some(why);
        self.detail = Some(why.name().to_owned());
        self.ending = Some(now.mono + DRAIN);
        if self.uses_worker && self.workers.is_up() {
            self.workers.close();
        } else {
            self.end(now, why);
        }
    }

    pub fn is_ending(&self) -> bool {
        self.ending.is_some() || self.state == State::Ended
    }

    /// Ends at once, whatever is still in flight.
    pub fn cut_off(&mut self, now: Now) {
        if self.state != State::Ended {
            self.end(now, self.why.unwrap_or(Ending::InputTimeout));
        }
    }

    /// The output, once, when its renditions are complete.
    pub fn take_ready(&mut self) -> Option<Arc<SessionOutput>> {
        if self.announced {
            return None;
        }
        self.announced = self.on_air.is_some();
        self.on_air.clone()
    }

    /// The output if it was ever announced.
    pub fn output_on_air(&self) -> Option<Arc<SessionOutput>> {
        self.on_air.clone().filter(|_| self.announced)
    }

    /// What the session learnt about its source.
    pub fn profile(&mut self) -> Option<SourceProfile> {
        self.profile.take()
    }

    /// The publishers must go, and why.
    pub fn take_refusal(&mut self) -> Option<Closing> {
        self.refusal.take()
    }

    pub fn last_msn(&self) -> Option<u64> {
        self.stage.as_ref().map(Stage::last_msn)
    }

    pub fn housekeeping(&mut self, now: Now) {
        self.scene.progress(&self.told, &self.workers.progress());
        self.told = self.workers.progress();
        if let Some(error) = self.stage.as_ref().and_then(|s| s.pdt_error(now)) {
            self.scene.pdt_error(error);
        }
    }

    pub fn status(&self, publishers: Vec<PublisherStatus>) -> SessionStatus {
        let progress = self.workers.progress();
        let worker = self.uses_worker.then(|| WorkerStatus {
            up: self.workers.is_up(),
            respawns: self.respawns,
            cpu_us: progress.cpu_us,
            rss_bytes: progress.rss_bytes,
        });
        SessionStatus {
            id: self.id.to_string(),
            state: if self.is_ending() { State::Ended } else { self.state },
            live_since: self.live_since,
            input: if self.lost.is_some() { InputState::Reconnecting } else { InputState::Connected },
            detail: self.detail.clone(),
            renditions: self.on_air.as_deref().map(renditions).unwrap_or_default(),
            worker,
            publishers,
        }
    }

    // ── input ───────────────────────────────────────────────────────────────────────────────────────────────────

    fn take_units(&mut self, now: Now, input: &mut Input) {
        while let Some(event) = input.demuxer.poll() {
            match event {
                demux::Event::Program(program) => {
                    self.timeline.program(input.leg, &program);
                    if self.stage.is_none() {
                        self.program = program;
                    }
                }
                demux::Event::Config { pid, config } => self.timeline.config(input.leg, pid, &config),
                demux::Event::Unit(unit) => {
                    self.timeline.push(now, input.leg, unit);
                    self.place(now);
                }
                demux::Event::Fault(fault) => self.fault(&fault),
                demux::Event::Pcr { .. } | demux::Event::RecoveryPoint { .. } => {}
            }
        }
    }

    fn fault(&mut self, fault: &Fault) {
        self.scene.fault(fault);
    }

    /// What the timeline decided, in its order.
    fn place(&mut self, now: Now) {
        while let Some(out) = self.timeline.poll() {
            self.take_out(now, out);
        }
    }

    fn take_out(&mut self, now: Now, out: Out) {
        match out {
            Out::Record(record) => self.commit(now, record),
            Out::Ready(ready) => self.ready(now, &ready),
            Out::Refused(why) => self.refuse(now, &why),
            Out::Profile(profile) => self.profile = Some(profile),
            Out::Fault(fault) => self.fault(&fault),
            Out::Video { n, prime, hidden, unit } => {
                let Some(stage) = &mut self.stage else { return };
                stage.saw(n);
                if stage.has_ladder() {
                    let stamps = Stamps { received: unit.received, demuxed: now.mono, ..Stamps::default() };
                    let (random_access, damaged) = (unit.random_access, unit.damaged);
                    let data = unit.data;
                    let unit = Unit { pid: unit.pid, at: n, prime, hidden, random_access, damaged, stamps, data };
                    self.workers.video_unit(now.mono, unit);
                }
            }
            Out::Fill { to, with } => {
                let Some(stage) = &mut self.stage else { return };
                stage.saw(to - 1);
                let with = match with {
                    Filling::Hold => Fill::Hold,
                    Filling::Slate => Fill::Slate,
                    Filling::Nothing => Fill::Nothing,
                };
                if let Some(to) = stage.fill_to(to) {
                    self.workers.fill(now.mono, to, with);
                }
            }
            Out::AudioToWorker { at, unit, .. } => {
                let stamps = Stamps { received: unit.received, demuxed: now.mono, ..Stamps::default() };
                let (pid, damaged, data) = (unit.pid, unit.damaged, unit.data);
                let unit = Unit { pid, at, prime: false, hidden: false, random_access: true, damaged, stamps, data };
                self.workers.audio_unit(unit);
            }
            other => {
                if let Some(stage) = &mut self.stage {
                    stage.take(now, other, self.line);
                }
            }
        }
    }

    fn commit(&mut self, now: Now, record: Record) {
        if let Err(why) = self.log.commit(&self.id, record) {
            self.scene.note(Level::Error, "record_not_committed", &why);
            return self.finish(now, Ending::Failed);
        }
        if let Record::Pdt(line) = record {
            self.line = Some(line);
            if let Some(stage) = &mut self.stage {
                stage.date_line(line);
            }
        }
    }

    fn ready(&mut self, now: Now, ready: &crate::timeline::Ready) {
        let line = self.line.unwrap_or(PdtLine { from_n: 0, wall: now.wall, ppm: 0 });
        let stage = Stage::new(&self.config, &self.id, ready, &self.program, line);
        let open = stage.open();
        self.scene.note(Level::Info, "session_planned", stage.describe());
        if let Some(open) = open {
            self.uses_worker = true;
            self.workers.open(now.mono, open);
        } else {
            self.on_air = Some(stage.output());
        }
        self.stage = Some(stage);
        self.enter(State::Processing, "program_known", "");
    }

    fn refuse(&mut self, now: Now, why: &str) {
        self.scene.note(Level::Error, "input_invalid", why);
        self.detail = Some(why.to_owned());
        self.refusal = Some(Closing::InputInvalid);
        self.enter(State::Error, "input_invalid", why);
        self.end(now, Ending::InputInvalid);
    }

    // ── the worker ──────────────────────────────────────────────────────────────────────────────────────────────

    fn worker_event(&mut self, now: Now, event: workers::Event) {
        use workers::Event;
        match event {
            Event::Opened { video, audio } => {
                self.lost_at = None;
                let Some(stage) = &mut self.stage else { return };
                stage.opened(now.mono, &video, &audio);
                self.scene.worker_opened(self.respawns, stage.describe());
                if self.on_air.is_none() {
                    self.on_air = Some(stage.output());
                }
            }
            Event::Encoded(frame) => {
                if let Some(stage) = &mut self.stage {
                    stage.encoded(now.mono, &frame);
                }
            }
            Event::Late { rendition, resumes } => {
                if let Some(stage) = &mut self.stage {
                    self.scene.late(&stage.rendition_name(rendition), resumes);
                    stage.late(rendition, resumes);
                }
            }
            Event::Shed { rendition, at } => {
                if let Some(stage) = &mut self.stage {
                    self.scene.shed(&stage.rendition_name(rendition), at);
                    stage.shed(rendition, at);
                }
            }
            Event::Resumed { rendition, at } => {
                if let Some(stage) = &mut self.stage {
                    self.scene.resumed(&stage.rendition_name(rendition), at);
                    stage.resume(rendition, at);
                }
            }
            Event::Lost { why, detail } => {
                self.scene.worker_lost(why, &detail);
                self.lost_at.get_or_insert(now.mono);
                self.told = Progress::default();
            }
            Event::Fault { kind, at, detail } => self.scene.worker_fault(kind, at, &detail),
            Event::Overrun { at } => self.scene.overrun(at),
            Event::Progress(_) => {}
            Event::Closed => {
                if self.ending.is_some() {
                    self.publish(now);
                    self.end(now, self.why.unwrap_or(Ending::Failed));
                }
            }
        }
    }

    /// A successor goes on with the first part that is not published; without one for long, GAP keeps the numbers.
    fn respawn_if_due(&mut self, now: Now) {
        let Some(stage) = &mut self.stage else { return };
        if self.workers.retry_due(now.mono) && self.ending.is_none() {
            let plan = stage.restart();
            self.respawns += 1;
            self.workers.respawn(now.mono, &plan);
        }
        let gone = self.lost_at.is_some_and(|at| now.mono - at > WORKER_GONE);
        if gone {
            stage.give_up(now.mono);
        }
        if gone && self.state != State::Error && self.on_air.is_some() {
            self.enter(State::Error, "pipeline", "no worker can be started");
        }
    }

    // ── output ──────────────────────────────────────────────────────────────────────────────────────────────────

    fn publish(&mut self, now: Now) {
        let Some(stage) = &mut self.stage else { return };
        stage.release(now.mono);
        let recovered = stage.report(now, &self.config.name);
        self.workers.published(stage.needed_from());
        let waiting = self.state == State::Processing || (self.state == State::Error && recovered);
        if waiting && stage.is_live() {
            self.live_since.get_or_insert(now.wall);
            let after = now.mono - self.started;
            self.enter(State::Live, "playable", format!("{:.2} s after the publisher came", after.as_secs_f64()));
        }
    }

    fn time_out(&mut self, now: Now) {
        if self.ending.is_some_and(|at| now.mono >= at) {
            return self.end(now, self.why.unwrap_or(Ending::Failed));
        }
        if self.ending.is_some() || self.state == State::Ended {
            return;
        }
        if let Some(until) = self.lost {
            if now.mono >= until {
                let why = if self.state == State::Init { Ending::NoMedia } else { Ending::InputTimeout };
                self.dismiss(Closing::Silent);
                return self.finish(now, why);
            }
        } else if self.state != State::Init {
            if now.mono - self.last_media >= INPUT_LOST {
                self.input_lost(now, Lost::Silent);
            }
        } else {
            match self.first_media {
                None if now.mono - self.started >= NO_MEDIA => {
                    self.dismiss(Closing::Stopped);
                    self.finish(now, Ending::NoMedia);
                }
                Some(at) if now.mono - at >= PROBE => {
                    self.refuse(now, "no playable program within 10 s: send MPEG-TS with H.264 video or AAC audio");
                }
                _ => {}
            }
        }
        if now.mono >= self.idle_at() && self.state != State::Init && !self.inputs.is_empty() {
            self.dismiss(Closing::Silent);
        }
    }

    /// When publishers that go on saying nothing are gone.
    fn idle_at(&self) -> Mono {
        self.last_media.max(self.joined) + PEER_IDLE
    }

    /// How long a lost source is waited for. Before it was known to be one, as long as for its first byte.
    fn window(&self) -> Duration {
        let configured = self.config.reconnect_window;
        if self.state == State::Init && !configured.is_zero() { NO_MEDIA } else { configured }
    }

    fn input_lost(&mut self, now: Now, why: Lost) {
        if self.lost.is_some() || self.is_ending() {
            return;
        }
        self.lost = Some(now.mono + self.window());
        // What a half-known program showed says nothing about the next publisher's.
        if self.state == State::Init {
            self.first_media = None;
        }
        self.events.push_back(Event::InputLost { why, window: self.window() });
        self.time_out(now);
    }

    /// The publishers shall go.
    fn dismiss(&mut self, why: Closing) {
        if !self.inputs.is_empty() {
            self.refusal = Some(why);
        }
    }

    fn enter(&mut self, to: State, reason: &'static str, detail: impl std::fmt::Display) {
        if self.state != to {
            self.scene.state(Some(self.state), to, reason, detail);
            self.state = to;
        }
    }

    fn end(&mut self, now: Now, why: Ending) {
        if let Some(stage) = &mut self.stage {
            stage.end(now.mono);
            stage.report(now, &self.config.name);
        }
        self.ending = None;
        self.lost = None;
        self.why = Some(why);
        let detail = self.detail.clone().filter(|detail| detail != why.name());
        self.enter(State::Ended, why.name(), detail.unwrap_or_default());
        self.events.push_back(Event::Ended { why });
    }
}

/// The status of a session that is over and lingers.
pub fn ended_status(output: &SessionOutput) -> SessionStatus {
    SessionStatus {
        id: output.id.to_string(),
        state: State::Ended,
        live_since: None,
        input: InputState::Connected,
        detail: None,
        renditions: renditions(output),
        worker: None,
        publishers: Vec::new(),
    }
}

fn renditions(output: &SessionOutput) -> Vec<RenditionStatus> {
    let one = |r: &Arc<crate::package::window::RenditionOutput>| {
        let (width, height) = r.size().unwrap_or_default();
        let video = matches!(r.spec().kind, Kind::Video { .. });
        let (name, bitrate, shed) = (r.name().to_owned(), r.spec().bandwidth_cap, r.is_shed());
        video.then_some(RenditionStatus { name, width, height, bitrate, shed })
    };
    output.renditions().iter().filter_map(one).collect()
}

/// 80 random bits for a session's name.
fn entropy() -> u128 {
    let mut bytes = [0u8; 16];
    // getrandom does not fail once the system has booted; a repeated name would need the same millisecond too.
    drop(rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).map_err(std::io::Error::from));
    u128::from_ne_bytes(bytes)
}
