//! One broadcast: its publishers' bytes through demux and timeline to workers and segmenters, and its states.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use super::channel::Legacy;
use super::cues::Cues;
use super::events::Scene;
use super::placer::Placer;
use super::shard::Setup;
use super::snapshots::{Reply, Snapshot, Snapshots};
use super::stage::Stage;
use super::status::{InputState, PublisherStatus, RenditionStatus, SessionStatus, State, WorkerStatus};
use super::stills::{Order, Owner};
use super::witness::{Fact, Wake};
use super::workers::{self, Workers};
use crate::demux::{self, Demuxer};
use crate::ingest::{Closing, Leg, PublisherId};
use crate::media::captions::CaptionService;
use crate::media::channel::{BackendPolicy, Channel, ChannelKind, SessionId};
use crate::media::fault::Fault;
use crate::media::grid::{Commit, PdtLine, Record, SourceProfile, TimelineLog};
use crate::media::limits::{INPUT_LOST, PEER_IDLE};
use crate::media::logo::Logo;
use crate::media::plan::{Kept, Plan};
use crate::media::sample::Stamps;
use crate::media::track::TrackConfig;
use crate::package::origin::SessionOutput;
use crate::package::window::Kind;
use crate::pixels::protocol::{Fill, Picture, PictureKind, Progress, Unit};
use crate::telemetry::report::Level;
use crate::time::{Mono, Now, Wall};
use crate::timeline::{Facts, Filling, Out, Rules, Timeline};

mod captioning;
mod dressing;
mod marking;
mod placing;

/// An ending session waits this long for its worker's last frames.
const DRAIN: Duration = Duration::from_secs(3);
/// The disk may take this long for a record; then live goes on without it.
const COMMIT_PATIENCE: Duration = Duration::from_secs(2);
/// No worker for this long: what it should have made becomes GAP.
const WORKER_GONE: Duration = Duration::from_secs(3);

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
    live_since: Option<Wall>,
    ending: Option<Mono>,
    /// Its reason, as control named it.
    why: Option<&'static str>,
    /// The source is lost and waited for.
    lost: bool,
    /// When media was last heard of, or a publisher came.
    heard: Mono,
    /// Media flowed since the last `Fact::Media`.
    flowed: bool,
    facts: VecDeque<Fact>,
    inputs: BTreeMap<PublisherId, Input>,
    timeline: Timeline,
    legacy: Legacy,
    log: Box<dyn TimelineLog + Send>,
    /// Records that are not durable yet: what the timeline decided behind them waits there.
    uncommitted: usize,
    /// Outcomes to come of records that were not waited for.
    overdue: usize,
    /// Since when.
    waits: Option<Mono>,
    line: Option<PdtLine>,
    /// The anchor of the newest run.
    newest: Option<Record>,
    workers: Workers,
    placer: Placer,
    uses_worker: bool,
    respawns: u64,
    lost_at: Option<Mono>,
    told: Progress,
    stage: Option<Stage>,
    on_air: Option<Arc<SessionOutput>>,
    announced: bool,
    profile: Option<SourceProfile>,
    /// What is kept of the source for the next session.
    learnt: Option<SourceProfile>,
    /// Its closed captions, as the PMT has them.
    described: Vec<CaptionService>,
    dismissal: Option<Closing>,
    snapshots: Snapshots,
    /// Its channel's, as it is by now.
    logo: Option<Logo>,
    /// The crop is not for this source: all of it is shown.
    uncropped: bool,
    /// Of its grid, once that stands.
    cues: Option<Cues>,
}

impl Session {
    pub fn new(id: SessionId, config: Arc<Channel>, setup: &Setup, wake: Wake, legacy: Legacy, now: Now) -> Session {
        let scene = Scene { channel: config.name.clone(), session: Some(id.clone()) };
        let mut workers = Workers::new(setup.hall.clone(), now.mono);
        let policy = config.backend.unwrap_or(setup.backend);
        // Where there are GPUs, the place is chosen when the source is known.
        if config.kind != ChannelKind::Transmux && (policy == BackendPolicy::Software || setup.devices.is_empty()) {
            workers.warm(now.mono);
        }
        let placer = Placer::new(Arc::clone(&setup.devices), config.name.clone(), id.clone(), policy, now.mono);
        scene.state(None, State::Init, "publish", "");
        let (timeline, logo) = (timeline(&config, legacy), config.logo.clone());
        Session {
            id,
            config,
            scene,
            state: State::Init,
            detail: None,
            started: now.mono,
            first_media: None,
            last_media: now.mono,
            live_since: None,
            ending: None,
            why: None,
            lost: false,
            heard: now.mono,
            flowed: false,
            facts: VecDeque::new(),
            inputs: BTreeMap::new(),
            timeline,
            legacy,
            log: setup.witness.log(wake),
            uncommitted: 0,
            overdue: 0,
            waits: None,
            line: None,
            newest: None,
            workers,
            placer,
            uses_worker: false,
            respawns: 0,
            lost_at: None,
            told: Progress::default(),
            stage: None,
            on_air: None,
            announced: false,
            profile: None,
            learnt: legacy.profile,
            described: Vec::new(),
            dismissal: None,
            snapshots: Snapshots::default(),
            logo,
            uncropped: false,
            cues: None,
        }
    }

    /// A session whose process is gone goes on by what is kept of it. Its publishers are waited for.
    pub fn resume(mut self, now: Now, kept: Kept, last_media: Option<Wall>, edge: Option<(i64, Wall)>) -> Session {
        let (timeline, from) = Timeline::resume(facts(&self.config, self.legacy), &kept, edge, now);
        self.timeline = timeline;
        self.line = Some(kept.line());
        self.newest = kept.anchors.last().copied().map(Record::Anchor);
        let away = last_media.map_or(0, |at| now.wall.0 - at.0);
        self.last_media = now.mono.back(Duration::from_nanos(u64::try_from(away).unwrap_or(0)));
        (self.first_media, self.lost) = (Some(self.last_media), true);
        let msn = kept.plan.grid.msn_of(from);
        self.set_stage(now, Stage::resumed(&self.config, &self.id, kept.clone(), from, now));
        self.restore_cues(&kept, from);
        self.enter(State::Processing, "resumed", format!("goes on with frame {from}, segment {msn}"));
        self.scene.input_lost(true);
        self
    }

    /// Under another name, which is told all that is true by now. What was said of the old one reached control, or is void.
    pub fn go_on_as(&mut self, now: Now, to: &SessionId) {
        self.scene.state(Some(self.state), self.state, "rolled_over", format!("goes on as {to}"));
        self.id = to.clone();
        self.scene.session = Some(to.clone());
        self.facts.clear();
        self.facts.extend([Fact::FirstMedia, Fact::Processing]);
        // What was written under the old name after the new one took the log over.
        for record in self.newest.clone().into_iter().chain(self.line.map(Record::Pdt)) {
            self.commit(now, record);
        }
        match self.state {
            State::Live => self.facts.push_back(Fact::Playable),
            State::Error => self.facts.push_back(Fact::PipelineFailed(self.detail.clone().unwrap_or_default())),
            _ => {}
        }
        if self.lost {
            self.facts.extend(self.last_media(now).map(|last_media| Fact::InputLost { last_media }));
        }
    }

    pub fn id(&self) -> &SessionId {
        &self.id
    }

    pub fn join(&mut self, now: Now, publisher: PublisherId, leg: Leg) {
        // It is not silent before it could say anything.
        self.heard = now.mono;
        if self.state == State::Error && self.stage.is_none() {
            // What came before it could not be used: it gets a look of its own.
            self.timeline = timeline(&self.config, self.legacy);
            (self.first_media, self.detail) = (None, None);
            self.enter(State::Init, "another_publisher", "");
        }
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
    pub fn abandoned(&mut self) {
        if self.inputs.is_empty() {
            self.lose_input();
        }
    }

    /// What happened since the last call, oldest first.
    pub fn poll(&mut self) -> Option<Fact> {
        self.facts.pop_front()
    }

    /// When media last flowed; `None`: it never did.
    pub fn last_media(&self, now: Now) -> Option<Wall> {
        let age = i64::try_from(now.mono.since(self.last_media).as_nanos()).unwrap_or(0);
        self.first_media.map(|_| Wall(now.wall.0 - age))
    }

    /// Bytes of a transport stream.
    pub fn data(&mut self, now: Now, publisher: PublisherId, payload: &[u8]) {
        let Some(mut input) = self.inputs.remove(&publisher) else { return };
        if self.first_media.is_none() {
            self.first_media = Some(now.mono);
            self.facts.push_back(Fact::FirstMedia);
        }
        if std::mem::take(&mut self.lost) {
            self.scene.input_restored(now.mono - self.last_media);
            self.facts.push_back(Fact::InputRestored);
        }
        (self.last_media, self.heard, self.flowed) = (now.mono, now.mono, true);
        input.demuxer.push(now.mono, payload);
        self.take_units(now, &mut input);
        self.inputs.insert(publisher, input);
        self.place(now);
    }

    /// Control saw that what comes cannot be used.
    pub fn reject(&mut self, why: &str) {
        if self.state == State::Init {
            self.detail = Some(why.to_owned());
            self.enter(State::Error, "input_invalid", why);
        }
    }

    /// Everything that is not a datagram: worker messages and timers.
    pub fn run(&mut self, now: Now) {
        while let Some((record, outcome)) = self.log.poll() {
            // What was not waited for any longer is still told of, in order.
            match self.overdue.checked_sub(1) {
                Some(left) => self.overdue = left,
                None => self.uncommitted = self.uncommitted.saturating_sub(1),
            }
            self.committed(&record, outcome);
            self.place(now);
        }
        self.bear_with_the_disk(now);
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
        let open = self.ending.is_none() && self.state != State::Ended && self.state != State::Init;
        let silence = (open && !self.lost).then(|| self.heard + INPUT_LOST);
        // Whoever is dismissed leaves in the same round.
        let idle = (open && !self.inputs.is_empty()).then(|| self.heard + PEER_IDLE);
        let disk = self.waits.map(|since| since + COMMIT_PATIENCE);
        [self.timeline.deadline(), self.ending, stage, silence, idle, disk].into_iter().flatten().min()
    }

    pub fn fd(&self) -> Option<(BorrowedFd<'_>, bool)> {
        self.workers.fd()
    }

    /// Begins the end: what is in flight comes out, then ENDLIST.
    pub fn finish(&mut self, now: Now, why: &'static str) {
        if self.ending.is_some() || self.state == State::Ended {
            return;
        }
        self.lost = false;
        self.timeline.finish(now);
        // The end does not wait for the disk: what is behind it would reach a worker that was told to close.
        self.wait_no_longer();
        self.place(now);
        self.why = Some(why);
        self.detail.get_or_insert_with(|| why.to_owned());
        self.ending = Some(now.mono + DRAIN);
        if self.uses_worker && self.workers.is_up() {
            self.workers.close(now.mono);
        } else {
            self.end(now, why);
        }
    }

    pub fn is_ending(&self) -> bool {
        self.ending.is_some() || self.state == State::Ended
    }

    pub fn is_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// Ends at once, whatever is still in flight.
    pub fn cut_off(&mut self, now: Now) {
        if self.state != State::Ended {
            self.end(now, self.why.unwrap_or("replaced"));
        }
    }

    /// The output, once, when its renditions are complete and the disk knows of them.
    pub fn take_ready(&mut self) -> Option<Arc<SessionOutput>> {
        if self.announced || self.uncommitted > 0 {
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
    pub fn take_dismissal(&mut self) -> Option<Closing> {
        self.dismissal.take()
    }

    /// A picture of now, as soon as the worker has made it.
    pub fn snapshot(&mut self, now: Mono, reply: Reply) {
        let ladder = self.stage.as_ref().is_some_and(Stage::has_ladder);
        let pictured = ladder || self.stage.as_mut().is_some_and(Stage::snap_source);
        let why = match self.state {
            _ if self.is_ending() => "its session has ended".to_owned(),
            State::Live if pictured => {
                if self.snapshots.wait(now, reply) && ladder {
                    self.workers.snap();
                }
                return;
            }
            State::Live => "its source has no picture that could be shown".to_owned(),
            state => format!("its session is in state {}", state.name()),
        };
        reply.give(Snapshot::NotLive(why));
    }

    /// A picture that is wanted of its passed-through source, and of whom.
    pub(super) fn still_order(&mut self) -> Option<(Owner, Order)> {
        let order = self.stage.as_mut().and_then(Stage::still_order).filter(|_| !self.is_ending())?;
        self.still_owner().map(|owner| (owner, order))
    }

    pub(super) fn still_owner(&self) -> Option<Owner> {
        self.stage.as_ref()?.still_owner(&self.config.name)
    }

    /// What came of such an order.
    pub(super) fn stills_made(&mut self, now: Now, owner: &Owner, pictures: Vec<Picture>) {
        if self.still_owner().as_ref() == Some(owner) && !self.is_ending() {
            pictures.into_iter().for_each(|picture| self.picture(now, picture));
        }
    }

    pub(super) fn stills_left_out(&self, pictures: u64) {
        self.scene.pictures_left_out(pictures);
    }

    pub fn last_msn(&self) -> Option<u64> {
        self.stage.as_ref().map(Stage::last_msn)
    }

    pub fn housekeeping(&mut self, now: Now) {
        self.snapshots.expire(now.mono);
        self.learn_captions();
        if std::mem::take(&mut self.flowed) {
            self.facts.extend(self.last_media(now).map(Fact::Media));
        }
        if let Some(stage) = self.stage.as_ref().filter(|_| !self.is_ending()) {
            self.facts.push_back(Fact::Edge { n: stage.seen(), at: now.wall });
        }
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
            backend: self.placer.place().map(|place| (place.backend, place.gpu)),
        });
        SessionStatus {
            id: self.id.to_string(),
            state: if self.is_ending() { State::Ended } else { self.state },
            live_since: self.live_since,
            input: if self.lost { InputState::Reconnecting } else { InputState::Connected },
            detail: self.detail.clone(),
            renditions: self.on_air.as_deref().map(renditions).unwrap_or_default(),
            poster: self.output_on_air().as_deref().and_then(poster),
            worker,
            publishers,
        }
    }

    // ── input ───────────────────────────────────────────────────────────────────────────────────────────────────

    fn take_units(&mut self, now: Now, input: &mut Input) {
        while let Some(event) = input.demuxer.poll() {
            match event {
                demux::Event::Program(program) => {
                    self.describe_captions(&program);
                    self.timeline.program(input.leg, &program);
                }
                demux::Event::Config { pid, config } => self.timeline.config(input.leg, pid, &config),
                demux::Event::Unit(unit) => {
                    self.timeline.push(now, input.leg, unit);
                    self.place(now);
                }
                demux::Event::Fault(fault) => self.fault(&fault),
                demux::Event::Cue(cue) => self.heard_cue(input.leg, cue),
                demux::Event::Tag(tag) => self.heard_tag(input.leg, tag),
                demux::Event::Pcr { .. } | demux::Event::RecoveryPoint { .. } => {}
            }
        }
    }

    fn fault(&mut self, fault: &Fault) {
        self.scene.fault(fault);
    }

    /// What the timeline decided, in its order.
    fn place(&mut self, now: Now) {
        while self.uncommitted == 0
            && let Some(out) = self.timeline.poll()
        {
            self.take_out(now, out);
        }
    }

    fn take_out(&mut self, now: Now, out: Out) {
        match out {
            Out::Record(record) => self.commit(now, record),
            Out::Ready(ready) => self.ready(now, &ready),
            Out::Refused(why) => self.refuse(&why),
            Out::Profile(profile) => self.learn(profile),
            Out::Fault(fault) => self.fault(&fault),
            Out::Video { n, prime, hidden, doubled, unit } => {
                self.force_up_to(n);
                let Some(stage) = &mut self.stage else { return };
                stage.saw(n);
                if stage.has_ladder() {
                    if !prime && !doubled {
                        stage.hear_captions(n, &unit);
                    }
                    let stamps = Stamps { received: unit.received, demuxed: now.mono, ..Stamps::default() };
                    let (random_access, damaged) = (unit.random_access, unit.damaged);
                    let data = unit.data;
                    let unit = Unit { pid: unit.pid, at: n, prime, hidden, random_access, damaged, stamps, data };
                    self.workers.video_unit(now.mono, unit);
                }
            }
            Out::Cue(placed) => self.cue(now, &placed),
            Out::Tag { time, data } => self.tag(time, data),
            Out::Dropped(why) => self.scene.markers_dropped(why, 1),
            Out::Jumped { n } => self.cues_jumped(n),
            Out::Fill { to, with } => {
                self.force_up_to(to - 1);
                let Some(stage) = &mut self.stage else { return };
                stage.saw(to - 1);
                let with = match with {
                    Filling::Hold => Fill::Hold,
                    Filling::Still => Fill::Still,
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
                if let Out::Config { config: TrackConfig::Video(source), .. } = &other {
                    self.look_at_source(source);
                }
                if let Some(stage) = &mut self.stage {
                    stage.take(now, other);
                }
                self.stage_records(now);
            }
        }
    }

    fn commit(&mut self, now: Now, record: Record) {
        if let Record::Anchor(_) = &record {
            self.newest = Some(record.clone());
        }
        match self.log.commit(&self.id, record.clone()) {
            Ok(Commit::Pending) => {
                self.uncommitted += 1;
                self.waits.get_or_insert(now.mono);
            }
            Ok(Commit::Done) => self.committed(&record, Ok(())),
            Err(why) => self.committed(&record, Err(why)),
        }
    }

    /// Live goes on without the disk: what is lost is that the same numbers could be found again after a crash.
    fn committed(&mut self, record: &Record, outcome: Result<(), String>) {
        if self.uncommitted == 0 {
            self.waits = None;
        }
        if let Err(why) = outcome {
            self.volatile(&why);
        }
        if let Record::Pdt(line) = record {
            self.line = Some(*line);
            if let Some(stage) = &mut self.stage {
                stage.date_line(*line);
            }
        }
    }

    fn volatile(&mut self, why: &str) {
        self.scene.note(Level::Error, "record_not_committed", why);
        self.facts.push_back(Fact::Health(BTreeSet::from(["not_durable".to_owned()])));
    }

    fn bear_with_the_disk(&mut self, now: Now) {
        if self.waits.is_some_and(|since| now.mono - since >= COMMIT_PATIENCE) {
            self.wait_no_longer();
            self.volatile("the disk did not answer in time");
            self.place(now);
        }
    }

    fn wait_no_longer(&mut self) {
        self.overdue += std::mem::take(&mut self.uncommitted);
        self.waits = None;
    }

    fn ready(&mut self, now: Now, plan: &Plan) {
        let line = self.line.unwrap_or(PdtLine { from_n: 0, wall: now.wall, ppm: 0 });
        self.set_stage(now, Stage::new(&self.config, &self.id, plan, line));
        self.enter(State::Processing, "program_known", "");
        self.facts.push_back(Fact::Processing);
    }

    fn set_stage(&mut self, now: Now, stage: Stage) {
        let mut stage = stage;
        self.cues = Some(Cues::new(stage.rate()));
        stage.set_logo(self.logo.as_ref());
        stage.remember_captions(self.learnt.map(|profile| profile.captions).unwrap_or_default());
        stage.describe_captions(&self.described);
        let open = stage.open();
        let source = open.as_ref().and_then(|open| open.video.as_ref()).map(|video| video.source.clone());
        self.scene.note(Level::Info, "session_planned", stage.describe());
        if let Some(open) = open {
            self.uses_worker = true;
            self.open_worker(now, open);
        } else {
            self.on_air = Some(stage.output());
        }
        self.stage = Some(stage);
        if let Some(source) = &source {
            self.look_at_source(source);
        }
        self.stage_records(now);
    }

    fn stage_records(&mut self, now: Now) {
        while let Some(record) = self.stage.as_mut().and_then(Stage::poll_record) {
            self.commit(now, record);
        }
    }

    fn refuse(&mut self, why: &str) {
        self.reject(why);
        self.facts.push_back(Fact::InputInvalid(why.to_owned()));
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
                self.stage_records(now);
                // Its predecessor was asked, perhaps, and did not answer.
                if self.snapshots.is_wanted(now.mono) {
                    self.workers.snap();
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
            Event::Lost { why, lost, detail } => {
                self.scene.worker_lost(why, &detail);
                self.replace(now, lost, &detail);
                self.lost_at.get_or_insert(now.mono);
                self.told = Progress::default();
            }
            Event::Fault { kind, at, detail } => self.scene.worker_fault(kind, at, &detail),
            Event::Overrun { at } => self.scene.overrun(at),
            Event::Progress(_) => {}
            Event::Picture(picture) => self.picture(now, picture),
            Event::Closed => {
                if self.ending.is_some() {
                    self.publish(now);
                    self.end(now, self.why.unwrap_or_default());
                }
            }
        }
    }

    fn picture(&mut self, now: Now, picture: Picture) {
        self.scene.picture(&picture.kind);
        if picture.kind == PictureKind::Snap {
            return self.snapshots.give(&picture.jpeg);
        }
        if let Some(stage) = &mut self.stage
            && !stage.picture(now, picture)
        {
            self.scene.note(Level::Warn, "picture_unusable", "the worker sent a picture that cannot be what it says");
        }
    }

    /// A successor goes on with the first part that is not published; without one for long, GAP keeps the numbers.
    fn respawn_if_due(&mut self, now: Now) {
        self.look_for_a_place(now);
        let Some(stage) = &mut self.stage else { return };
        let placed = self.placer.place().is_some() || !self.placer.is_asked();
        if placed && self.workers.retry_due(now.mono) && self.ending.is_none() {
            let plan = stage.restart();
            self.respawns += 1;
            self.workers.respawn(now.mono, &plan);
        }
        let gone = self.lost_at.is_some_and(|at| now.mono - at > WORKER_GONE);
        if gone {
            stage.give_up(now.mono);
        }
        if gone && self.state != State::Error {
            let nowhere = self.placer.is_asked() && self.placer.place().is_none();
            let why = self.detail.clone().filter(|_| nowhere);
            let what = why.unwrap_or_else(|| "no worker can be started".to_owned());
            self.enter(State::Error, "pipeline", &what);
            self.facts.push_back(Fact::PipelineFailed(what));
        }
    }

    // ── output ──────────────────────────────────────────────────────────────────────────────────────────────────

    fn publish(&mut self, now: Now) {
        let Some(stage) = &mut self.stage else { return };
        if stage.is_dated()
            && let Some(cues) = &mut self.cues
        {
            marking::tell(&self.scene, cues, stage);
        }
        stage.release(now.mono);
        let recovered = stage.report(now, &self.config.name);
        self.workers.published(stage.needed_from());
        // What is passed through goes on without a worker; that is no recovery.
        let worked = self.lost_at.is_none_or(|at| now.mono - at <= WORKER_GONE);
        let waiting = self.state == State::Processing || (self.state == State::Error && recovered && worked);
        if waiting && stage.is_live() {
            self.live_since.get_or_insert(now.wall);
            if self.state == State::Error {
                self.facts.push_back(Fact::Recovered);
            }
            self.facts.push_back(Fact::Playable);
            let after = now.mono - self.started;
            self.enter(State::Live, "playable", format!("{:.2} s after it began here", after.as_secs_f64()));
        }
    }

    fn time_out(&mut self, now: Now) {
        if self.ending.is_some_and(|at| now.mono >= at) {
            return self.end(now, self.why.unwrap_or_default());
        }
        if self.is_ending() || self.state == State::Init {
            return;
        }
        if now.mono - self.heard >= INPUT_LOST && !self.lost {
            self.lose_input();
            self.facts.extend(self.last_media(now).map(|last_media| Fact::InputLost { last_media }));
        }
        if now.mono - self.heard >= PEER_IDLE && !self.inputs.is_empty() {
            self.dismissal = Some(Closing::Silent);
        }
    }

    fn lose_input(&mut self) {
        if self.lost || self.is_ending() {
            return;
        }
        self.lost = true;
        // What a half-known program showed says nothing about the next publisher's.
        if self.state == State::Init {
            self.first_media = None;
        }
        self.scene.input_lost(self.inputs.is_empty());
    }

    fn enter(&mut self, to: State, reason: &'static str, detail: impl std::fmt::Display) {
        if self.state != to {
            self.scene.state(Some(self.state), to, reason, detail);
            self.state = to;
        }
    }

    fn end(&mut self, now: Now, why: &'static str) {
        self.forget_captions();
        if let Some(stage) = &mut self.stage {
            stage.end(now);
            stage.report(now, &self.config.name);
        }
        (self.ending, self.lost, self.why) = (None, false, Some(why));
        let detail = self.detail.clone().filter(|detail| detail != why);
        self.enter(State::Ended, why, detail.unwrap_or_default());
    }
}

fn timeline(config: &Channel, legacy: Legacy) -> Timeline {
    Timeline::new(facts(config, legacy))
}

fn facts(config: &Channel, legacy: Legacy) -> Facts {
    let Legacy { profile, last_msn } = legacy;
    Facts { kind: config.kind, mode: config.mode, profile, last_msn, rules: Rules::default() }
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
        poster: poster(output),
        worker: None,
        publishers: Vec::new(),
    }
}

fn poster(output: &SessionOutput) -> Option<String> {
    output.pictures().poster().map(|poster| poster.etag.clone())
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
