//! The timeline of one session: units of its legs in, records and placed units out, in the order in which they count.

use bytes::Bytes;
use std::collections::VecDeque;

use super::firewall::{Heard, WAIT};
use super::grid::RateProbe;
use super::markers::{Marker, Markers, Place as MarkerPlace};
use super::pdt::first_line;
use super::run::{LEGS_MAX, Rules};
use super::running::{Running, arrival_wall, fault};
use super::source::{SourceSample, plan};
use super::tracks::{self, LegAudio};
use crate::media::access_unit::AccessUnit;
use crate::media::captions::CaptionsSeen;
use crate::media::channel::ChannelKind;
use crate::media::fault::{Fault, FaultKind};
use crate::media::grid::{Cadence, FrameRate, Grid, PdtLine, Place, Record, SourceGop, SourceProfile};
use crate::media::limits;
use crate::media::marker::{Cue, Dropped, PlacedCue, Tag};
use crate::media::modes::LatencyMode;
use crate::media::plan::{Plan, PlannedAudio, SourcePlan};
use crate::media::track::{Codec, Pid, Program, TrackConfig, VideoConfig};
use crate::time::unwrap::nearest;
use crate::time::{Mono, Now, Wall};

/// What the session knows before its first byte.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    pub kind: ChannelKind,
    pub mode: LatencyMode,
    /// Learnt in an earlier session of the channel: binds, and saves the wait.
    pub profile: Option<SourceProfile>,
    /// The channel's last media sequence number.
    pub last_msn: Option<u64>,
    pub rules: Rules,
}

/// An audio frame of 1024 samples on the session's grid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AudioOut {
    pub track: u16,
    pub m: i64,
    /// A frame with a later place also ends what is open: a hole may hide the frame that would have.
    pub place: Place,
    /// When its part begins, 90 kHz from N = 0.
    pub begins: i64,
    pub unit: AccessUnit,
}

/// What is shown while the source is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filling {
    /// The last picture, and silence.
    Hold,
    /// The last picture alone: the sound goes on by itself.
    Still,
    Slate,
    /// Nothing: N jumps, a segment that no rendition has begun starts there.
    Nothing,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Out {
    /// To be committed before anything after it in this queue is used.
    Record(Record),
    /// The grid stands.
    Ready(Box<Plan>),
    /// The source cannot be served as configured; the sentence says what to change. Nothing follows.
    Refused(String),
    /// To be kept for the channel's next session.
    Profile(SourceProfile),
    /// Track headers changed after `Ready`; counts from the next unit on.
    Config {
        pid: Pid,
        config: TrackConfig,
    },
    /// For the worker. `prime`: decode only (before its run's first frame). `hidden`: N was shown before; `doubled`: by
    /// another leg's picture of it, which said all that this one does.
    Video {
        n: i64,
        prime: bool,
        hidden: bool,
        doubled: bool,
        unit: AccessUnit,
    },
    /// Passed through.
    Audio(AudioOut),
    /// To be re-encoded; `at`: 48 kHz sample from the origin (a little below 0 at the start: preroll).
    AudioToWorker {
        track: u16,
        at: i64,
        unit: AccessUnit,
    },
    Source(SourceSample),
    /// A cue: its frame is not given out yet.
    Cue(Box<PlacedCue>),
    /// A timed tag; `time`: 90 kHz from N = 0.
    Tag {
        time: i64,
        data: Bytes,
    },
    /// A marker came to nothing.
    Dropped(Dropped),
    /// Source time jumped in front of frame `n`: what was announced for it and later frames does not come.
    Jumped {
        n: i64,
    },
    /// The source is away: every N below `to` that was not shown yet is, without it. Audio that is encoded anew is silent
    /// up to the same instant.
    Fill {
        to: i64,
        with: Filling,
    },
    /// The same for one frame of a passed-through audio track.
    Silence {
        track: u16,
        m: i64,
        place: Place,
        begins: i64,
    },
    /// A part of the source (`track` `None`) or of a passed-through audio track that holds nothing; 90 kHz.
    Gap {
        track: Option<u16>,
        place: Place,
        start: i64,
        duration: u32,
    },
    /// Closes what is open in every rendition; segment `msn` begins another timeline.
    Discontinuity {
        msn: u64,
    },
    Fault(Fault),
}

#[derive(Debug, Default)]
pub(super) struct Leg {
    pub(super) video: Option<Pid>,
    audio: Vec<LegAudio>,
    pub(super) video_config: Option<VideoConfig>,
    /// Nothing can be decoded before the next random access point.
    wait: bool,
    /// Decoding began at a picture of this PTS, raw: those shown before it that follow it need what was not received.
    lead: Option<u64>,
}

enum Role {
    Video,
    Audio(usize),
    Other,
}

impl Leg {
    /// `plan` with this leg's tracks.
    fn plan(&self, plan: Plan) -> Plan {
        let one = |audio: &LegAudio| PlannedAudio {
            pid: audio.pid,
            language: audio.language.clone(),
            role: audio.role,
            config: audio.config.clone(),
        };
        Plan {
            video: self.video.filter(|_| !plan.audio_only).zip(self.video_config.clone()),
            audio: self.audio.iter().map(one).collect(),
            ..plan
        }
    }

    fn began_at(&mut self, unit: &AccessUnit) {
        self.lead = (unit.codec != Codec::H264).then_some(unit.pts.raw33());
    }

    /// Whether a unit is a leading picture of the random access point at which decoding began: it needs pictures that
    /// nobody has [HEVC 3.111]. Of H.264 there is none behind an IDR picture.
    fn leads(&mut self, unit: &AccessUnit) -> bool {
        if self.wait {
            self.began_at(unit);
            return false;
        }
        let Some(first) = self.lead else { return false };
        let before = nearest(unit.pts.raw33().cast_signed() - first.cast_signed(), 0) < 0;
        if !before {
            self.lead = None;
        }
        before
    }

    /// Its audio that is the session's track `index`.
    fn sound(&self, index: usize) -> Option<&LegAudio> {
        self.audio.iter().find(|audio| audio.track == Some(index))
    }

    fn role(&self, pid: Pid) -> Role {
        if self.video == Some(pid) {
            return Role::Video;
        }
        self.audio.iter().find(|audio| audio.pid == pid).and_then(|audio| audio.track).map_or(Role::Other, Role::Audio)
    }
}

/// Until the grid is known: everything that came, and what it shows.
#[derive(Debug, Default)]
struct Probe {
    units: VecDeque<(Now, u8, AccessUnit)>,
    bytes: usize,
    leg: Option<u8>,
    rate: RateProbe,
    /// Arrivals of the first unit and of the first random access point; stamps of the latter.
    since: Option<Mono>,
    start: Option<Mono>,
    random_access: u32,
    audio_only: bool,
    seen_video: bool,
}

/// One per session; sans-IO. After every call drain `poll`.
#[derive(Debug)]
pub struct Timeline {
    facts: Facts,
    legs: [Leg; LEGS_MAX],
    probe: Probe,
    markers: Markers,
    pub(super) running: Option<Box<Running>>,
    refused: bool,
    out: VecDeque<Out>,
    skipped: u64,
}

impl Timeline {
    pub fn new(facts: Facts) -> Timeline {
        Timeline {
            facts,
            legs: Default::default(),
            probe: Probe::default(),
            markers: Markers::default(),
            running: None,
            refused: false,
            out: VecDeque::new(),
            skipped: 0,
        }
    }

    pub fn poll(&mut self) -> Option<Out> {
        self.out.pop_front()
    }

    /// Units that had no place: before a random access point, of a leg not on air, of no track.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// The leg that the session is fed by.
    pub fn on_air(&self) -> Option<u8> {
        self.running.as_ref()?.on_air
    }

    /// N of the last unit of a leg's reference track; `None` while it fits no run.
    pub fn last_index(&self, leg: u8) -> Option<i64> {
        self.running.as_ref()?.runs.line(leg).map(|line| line.n)
    }

    /// A connection begins on `leg`; its demuxer starts anew.
    pub fn leg_joined(&mut self, leg: u8) {
        if let Some(state) = self.legs.get_mut(usize::from(leg)) {
            *state = Leg { wait: true, ..Leg::default() };
        }
        self.markers.forget(leg, &mut self.out);
        if let Some(running) = &mut self.running {
            running.runs.joined(leg);
            running.filler.joined();
        }
    }

    pub fn leg_left(&mut self, leg: u8) {
        if let Some(running) = &mut self.running
            && running.on_air == Some(leg)
        {
            running.on_air = None;
            running.tracks.iter_mut().for_each(|track| track.waiting.clear());
        }
    }

    pub fn program(&mut self, leg: u8, program: &Program) {
        let Some(state) = self.legs.get_mut(usize::from(leg)) else { return };
        state.video = program.tracks.iter().find(|t| t.codec.is_video()).map(|t| t.pid);
        let mut before = std::mem::take(&mut state.audio);
        let audio = program.tracks.iter().filter(|t| t.codec.is_audio()).take(limits::TRACKS_MAX);
        state.audio = audio.map(|track| LegAudio::of(track, &mut before)).collect();
        match &self.running {
            Some(running) => running.recognize(&mut state.audio, &mut self.out),
            None => tracks::number(&mut state.audio),
        }
    }

    pub fn config(&mut self, leg: u8, pid: Pid, config: &TrackConfig) {
        let Some(state) = self.legs.get_mut(usize::from(leg)) else { return };
        match config {
            TrackConfig::Video(video) if state.video == Some(pid) => state.video_config = Some(video.clone()),
            TrackConfig::Audio(audio) => {
                let Some(known) = state.audio.iter_mut().find(|audio| audio.pid == pid) else { return };
                known.config = Some(audio.clone());
                let Some(track) = known.track else { return };
                if let Some(running) = self.running.as_mut().filter(|running| running.on_air == Some(leg)) {
                    running.sound_headers(track, audio, &mut self.out);
                }
            }
            TrackConfig::Video(_) => {}
        }
    }

    /// A unit of `leg`, in the order of its demuxer.
    pub fn push(&mut self, now: Now, leg: u8, unit: AccessUnit) {
        if usize::from(leg) >= LEGS_MAX || self.refused {
            self.skipped += 1;
            return;
        }
        if self.running.is_some() {
            self.route(now, leg, unit);
        } else {
            self.collect(now, leg, unit);
            self.try_begin(now);
        }
    }

    /// A cue of `leg`, in the order of its demuxer.
    pub fn cue(&mut self, leg: u8, cue: Cue) {
        if !self.refused {
            self.markers.push(leg, Marker::Cue(cue), &mut self.out);
        }
    }

    /// A timed tag of `leg`.
    pub fn tag(&mut self, leg: u8, tag: Tag) {
        if !self.refused {
            self.markers.push(leg, Marker::Tag(tag), &mut self.out);
        }
    }

    fn settle(&mut self, leg: u8) {
        let Some(running) = &mut self.running else { return };
        let place = MarkerPlace { runs: &running.runs, on_air: running.on_air, next: running.shown.next() };
        self.markers.settle(leg, &place, &mut self.out);
        running.dated = self.markers.furthest();
    }

    /// When `handle_timeout` is due.
    pub fn deadline(&self) -> Option<Mono> {
        if let Some(running) = &self.running {
            let waiting = running.tracks.iter().filter_map(|track| track.waiting.front());
            let waiting = running.on_air.and_then(|_| waiting.map(|unit| unit.received + WAIT).min());
            return waiting.into_iter().chain(running.fill_due()).min();
        }
        if self.refused {
            return None;
        }
        match (self.probe.start, self.probe.since) {
            (Some(start), _) if self.gop_known() => Some(start + RATE_WAIT),
            (Some(start), _) => Some(start + GOP_WAIT),
            (None, Some(since)) if !self.probe.seen_video => Some(since + VIDEO_WAIT),
            (None, _) => None,
        }
    }

    pub fn handle_timeout(&mut self, now: Now) {
        if self.running.is_some() {
            self.drain_waiting(now);
            self.with_running(|running, out| running.fill_overdue(now.mono, out));
        } else if !self.refused {
            self.try_begin(now);
        }
    }

    /// End of the session: what was held back comes out.
    pub fn finish(&mut self, now: Now) {
        if self.running.is_none() && !self.refused {
            self.begin(now);
        }
        self.with_running(|running, out| {
            running.filler.stop();
            running.drain_undecided(out, true);
            running.cut(out, |cutter, pieces| cutter.finish(None, pieces));
        });
    }

    /// The rate, or an audio track's headers, cannot be told yet.
    fn rate_pending(&self) -> bool {
        let leg = self.probe.leg.map(|leg| &self.legs[usize::from(leg)]);
        let named = leg.and_then(|leg| leg.video_config.as_ref()?.rate);
        let configs = leg.is_none_or(|leg| leg.audio.iter().all(|audio| audio.config.is_some()));
        !(self.probe.rate.enough(self.stored().is_some(), named) && configs)
    }

    fn with_running(&mut self, act: impl FnOnce(&mut Running, &mut VecDeque<Out>)) {
        if let Some(running) = &mut self.running {
            act(running, &mut self.out);
        }
    }
}

// ── before the grid ─────────────────────────────────────────────────────────────────────────────────────────────────

impl Timeline {
    fn collect(&mut self, now: Now, leg: u8, unit: AccessUnit) {
        let state = &mut self.legs[usize::from(leg)];
        let role = state.role(unit.pid);
        let probe = &mut self.probe;
        if matches!(role, Role::Other) {
            self.skipped += 1;
            return;
        }
        probe.since.get_or_insert(now.mono);
        let first = *probe.leg.get_or_insert(leg) == leg;
        if matches!(role, Role::Video) && first {
            probe.seen_video = true;
            probe.rate.push(unit.dts.raw33());
            probe.random_access += u32::from(unit.random_access);
            if unit.random_access {
                probe.start.get_or_insert(now.mono);
            }
        }
        if state.video.is_none() && first {
            probe.audio_only = true;
            probe.start.get_or_insert(now.mono);
        }
        // Before the first picture that can be decoded only its time counts; audio may belong to what follows.
        if probe.start.is_none() && matches!(role, Role::Video) {
            self.skipped += 1;
            return;
        }
        probe.bytes += unit.data.len();
        probe.units.push_back((now, leg, unit));
        while probe.units.len() > PROBE_UNITS_MAX || probe.bytes > limits::PRIME_BYTES {
            let Some((.., unit)) = probe.units.pop_front() else { break };
            probe.bytes -= unit.data.len();
            self.skipped += 1;
        }
    }

    /// Begins as soon as the rate and, for a source rendition, the GOP are known, or were waited for.
    fn try_begin(&mut self, now: Now) {
        if self.probe.start.is_none()
            && !self.probe.seen_video
            && self.probe.since.is_some_and(|since| now.mono.since(since) >= VIDEO_WAIT)
        {
            self.probe.audio_only = true;
            self.probe.start = self.probe.since;
        }
        let Some(start) = self.probe.start else { return };
        let waited = now.mono.since(start);
        if self.probe.audio_only {
            let leg = self.probe.leg.map(|leg| &self.legs[usize::from(leg)]);
            let known = leg.is_some_and(|leg| leg.audio.iter().all(|audio| audio.config.is_some()));
            if known || waited >= RATE_WAIT {
                self.begin(now);
            }
            return;
        }
        if (waited >= RATE_WAIT || !self.rate_pending()) && (self.gop_known() || waited >= GOP_WAIT) {
            self.begin(now);
        }
    }

    /// The profile of earlier sessions, unless the headers name another rate: then it is another source.
    fn stored(&self) -> Option<SourceProfile> {
        let leg = self.probe.leg.map(|leg| &self.legs[usize::from(leg)]);
        let named = leg.and_then(|leg| leg.video_config.as_ref()?.rate);
        let same =
            |rate: FrameRate| named.is_none_or(|named| Cadence::for_rate(named.hz(), self.facts.mode).rate == rate);
        self.facts.profile.filter(|profile| same(profile.rate))
    }

    fn gop_known(&self) -> bool {
        let source = self.facts.kind != ChannelKind::Transcode && !self.probe.audio_only;
        !source || self.stored().is_some() || self.probe.random_access >= 2
    }

    fn begin(&mut self, now: Now) {
        let Some(leg) = self.probe.leg else { return };
        let state = &self.legs[usize::from(leg)];
        let audio_only = self.probe.audio_only;
        let stored = self.stored();
        let named = state.video_config.as_ref().and_then(|v| v.rate);
        let (rate, exact) = if audio_only {
            (AUDIO_GRID, false)
        } else {
            self.probe.rate.resolve(stored.map(|profile| profile.rate), named)
        };
        let mut cadence = Cadence::for_rate(rate.hz(), self.facts.mode);
        let passed = self.facts.kind != ChannelKind::Transcode && !audio_only;
        let gop = stored.map_or_else(|| self.first_gop(leg, rate), |profile| profile.gop);
        if let Some(why) = state.video_config.as_ref().filter(|_| !audio_only).and_then(|v| unfit(v, passed)) {
            self.refused = true;
            self.probe.units.clear();
            self.out.push_back(Out::Refused(why));
            return;
        }
        let source: Option<SourcePlan> = passed.then(|| plan(gop, cadence, self.facts.mode));
        if let Some(plan) = source {
            if self.facts.kind == ChannelKind::Hybrid && !plan.fits_ladder {
                self.refused = true;
                self.probe.units.clear();
                self.out.push_back(Out::Refused(refusal(gop, rate)));
                return;
            }
            cadence = Cadence { segment: plan.segment, gop: plan.segment, ..cadence };
        }
        let grid = Grid { cadence, msn0: now.wall.unix_seconds().max(self.facts.last_msn.map_or(0, |msn| msn + 1)) };
        let seen = self.arrivals(leg, audio_only);
        let line = first_line(0, seen.into_iter(), 0).unwrap_or(PdtLine { from_n: 0, wall: now.wall, ppm: 0 });
        let plan = state.plan(Plan {
            grid,
            target_duration: source.map_or(self.facts.mode.params().target_duration, |plan| plan.target_duration),
            source,
            exact,
            gop,
            audio_only,
            video: None,
            audio: Vec::new(),
        });
        self.out.push_back(Out::Record(Record::Plan(Box::new(plan.clone()))));
        self.out.push_back(Out::Record(Record::Pdt(line)));
        if stored.is_none() && !audio_only {
            self.out.push_back(Out::Profile(SourceProfile {
                rate: cadence.rate,
                gop,
                captions: CaptionsSeen::default(),
            }));
        }
        let running = Running::new(&plan, self.facts, line, now.mono);
        self.legs.iter_mut().for_each(|leg| running.recognize(&mut leg.audio, &mut self.out));
        self.running = Some(Box::new(running));
        self.out.push_back(Out::Ready(Box::new(plan)));
        for (now, leg, unit) in std::mem::take(&mut self.probe.units) {
            self.route(now, leg, unit);
        }
    }

    /// The GOP as far as the first two random access points tell it.
    fn first_gop(&self, leg: u8, rate: FrameRate) -> SourceGop {
        let mut starts = self.probe.units.iter().filter(|(_, from, unit)| {
            *from == leg && unit.random_access && self.legs[usize::from(leg)].video == Some(unit.pid)
        });
        let (Some((.., first)), Some((.., second))) = (starts.next(), starts.next()) else {
            return SourceGop::Unknown;
        };
        let gop = rate.frames(nearest(second.dts.raw33().cast_signed() - first.dts.raw33().cast_signed(), 0));
        u32::try_from(gop).ok().filter(|gop| *gop > 0).map_or(SourceGop::Unknown, SourceGop::Regular)
    }

    /// Arrival and time since the first, of the reference units that were collected.
    fn arrivals(&self, leg: u8, audio_only: bool) -> Vec<(Wall, i64)> {
        let state = &self.legs[usize::from(leg)];
        let reference = if audio_only { state.audio.first().map(|audio| audio.pid) } else { state.video };
        let (mut seen, mut last) = (Vec::new(), None);
        for (now, from, unit) in &self.probe.units {
            if *from != leg || Some(unit.pid) != reference {
                continue;
            }
            let raw = unit.dts.raw33().cast_signed();
            let (time, before) = last.unwrap_or((0, raw));
            let step = nearest(raw - before, 0);
            if !(0..=180_000).contains(&step) {
                break;
            }
            last = Some((time + step, raw));
            seen.push((arrival_wall(*now, unit), time + step));
        }
        seen
    }
}

/// Why this video cannot be served; `passed`: it is to be a rendition untouched.
fn unfit(video: &VideoConfig, passed: bool) -> Option<String> {
    if passed && video.codec != Codec::H264 {
        return Some(format!(
            "the source's video is {}, and a transmux or hybrid channel passes on H.264 only: set kind = \"transcode\", or the encoder to H.264",
            video.codec
        ));
    }
    let fields = video.codec == Codec::H265 && video.interlaced;
    fields.then(|| {
        "the source's video is HEVC of single fields, which are not put together: set the encoder to progressive HEVC, or to H.264".to_owned()
    })
}

fn refusal(gop: SourceGop, rate: FrameRate) -> String {
    let found = match gop {
        SourceGop::Regular(g) => format!("every {:.2} s", f64::from(g) / rate.hz()),
        SourceGop::Irregular { max } => format!("irregularly, up to {:.2} s apart", f64::from(max) / rate.hz()),
        SourceGop::Unknown => "more than 2.5 s apart".to_owned(),
    };
    format!(
        "a hybrid channel cuts its ladder where the source has key frames, and this source has them {found}: set the encoder's GOP to 1 or 2 s (scene cuts off), or set kind = \"transcode\""
    )
}

// ── on the grid ─────────────────────────────────────────────────────────────────────────────────────────────────────

impl Timeline {
    fn route(&mut self, now: Now, leg: u8, mut unit: AccessUnit) {
        let Some(running) = &mut self.running else { return };
        let state = &mut self.legs[usize::from(leg)];
        let audio_only = running.audio_only;
        match state.role(unit.pid) {
            Role::Video if !audio_only => {
                if state.wait && !unit.random_access {
                    self.skipped += 1;
                    return;
                }
                if running.is_foreign(&unit, &mut self.out) || state.leads(&unit) {
                    self.skipped += 1;
                    return;
                }
                state.wait = false;
                unit.pid = running.video_pid.unwrap_or(unit.pid);
                let before = running.on_air;
                running.take_over(leg, now.mono, unit.random_access);
                if running.on_air != before {
                    // What came before is another leg's.
                    state.began_at(&unit);
                }
                running.headers(leg, state, unit.random_access, &mut self.out);
                let random_access = unit.random_access;
                let before = running.runs.line(leg).map(|line| line.run);
                if !running.video(now, leg, unit, &mut self.out) {
                    self.skipped += 1;
                }
                let moved = running.runs.line(leg).map(|line| line.run) != before;
                if moved || random_access {
                    self.drain_waiting(now);
                }
                self.settle(leg);
            }
            Role::Audio(0) if audio_only => {
                state.wait = false;
                running.take_over(leg, now.mono, true);
                if let Some(config) = state.sound(0).and_then(|audio| audio.config.as_ref())
                    && running.on_air == Some(leg)
                {
                    running.sound_headers(0, config, &mut self.out);
                }
                unit.pid = running.tracks.first().map_or(unit.pid, |track| track.pid);
                if !running.audio_reference(now, leg, unit, &mut self.out) {
                    self.skipped += 1;
                }
                self.settle(leg);
            }
            Role::Audio(track) if running.on_air == Some(leg) || running.on_air.is_none() => {
                let Some(track) = running.tracks.get_mut(track) else { return };
                unit.pid = track.pid;
                if track.waiting.len() >= WAITING_MAX {
                    track.waiting.pop_front();
                    self.skipped += 1;
                }
                track.waiting.push_back(unit);
                self.drain_waiting(now);
            }
            _ => self.skipped += 1,
        }
    }

    /// Audio whose run is known now, or was waited for long enough.
    fn drain_waiting(&mut self, now: Now) {
        let Some(running) = &mut self.running else { return };
        let Some(leg) = running.on_air else { return };
        let state = &mut self.legs[usize::from(leg)];
        for index in 0..running.tracks.len() {
            let Some(audio) = state.audio.iter_mut().find(|audio| audio.track == Some(index)) else { continue };
            if let Some(config) = &audio.config
                && !running.tracks[index].waiting.is_empty()
            {
                running.sound_headers(index, config, &mut self.out);
            }
            while let Some(unit) = running.tracks[index].waiting.pop_front() {
                let may_wait = now.mono.since(unit.received) < WAIT;
                let frame = running.tracks[index].grid.frame();
                let heard = audio.clock.judge(&running.runs, leg, unit.pts.raw33(), frame, unit.received, may_wait);
                let Heard::At { run, time, moved, split } = heard else {
                    if may_wait {
                        running.tracks[index].waiting.push_front(unit);
                        break;
                    }
                    self.skipped += 1;
                    continue;
                };
                if split {
                    self.out.push_back(fault(
                        FaultKind::TimeJump,
                        &unit,
                        "audio time jumped alone: it goes on by arrival",
                    ));
                }
                running.audio(index, unit, (run, time, moved), &mut self.out);
            }
        }
        running.drain_undecided(&mut self.out, false);
    }
}

/// The grid of a session without video.
const AUDIO_GRID: FrameRate = FrameRate::new(25_000, 1_000);
/// The rate, and audio headers, are waited for so long after the first picture that can be decoded; the GOP longer; the
/// first picture of all, where audio flows, longest.
const RATE_WAIT: std::time::Duration = std::time::Duration::from_secs(1);
const GOP_WAIT: std::time::Duration = std::time::Duration::from_millis(2_500);
const VIDEO_WAIT: std::time::Duration = std::time::Duration::from_secs(3);
/// Units kept until the grid stands; the oldest go first.
const PROBE_UNITS_MAX: usize = 4_096;
/// Audio frames that wait for their run; the oldest go first.
const WAITING_MAX: usize = 64;
