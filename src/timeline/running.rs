//! A session on its grid: one unit at a time to its run, its index, its segment.

use std::collections::VecDeque;

use super::audio::AudioGrid;
use super::filler::{Filler, Step};
use super::grid::GopProbe;
use super::pdt::{Pdt, first_line};
use super::run::{Placed, Runs, Shown, Stamp, Verdict};
use super::session::{AudioOut, Facts, Filling, Leg, Out};
use super::source::{Cutter, Index, Piece};
use super::tracks::{self, LegAudio};
use crate::media::access_unit::AccessUnit;
use crate::media::captions::CaptionsSeen;
use crate::media::channel::ChannelKind;
use crate::media::fault::{At, Fault, FaultKind};
use crate::media::grid::{Ends, Grid, PdtLine, Place, Record, SourceProfile};
use crate::media::plan::{Plan, PlannedAudio};
use crate::media::track::{AudioConfig, AudioRole, Codec, Pid, TrackConfig, VideoConfig};
use crate::time::{Mono, Now, Wall};

/// What becomes of an audio track.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Pass,
    Worker,
    /// No configuration when the grid was made: not part of the session.
    Unknown,
}

/// One frame of a passed-through track.
#[derive(Debug)]
pub(super) enum Frame {
    Unit(AccessUnit),
    /// Of the filler.
    Silence,
}

#[derive(Debug)]
pub(super) struct Track {
    pub(super) number: u16,
    /// Under which everything of it leaves, whatever a publisher that came later calls it.
    pub(super) pid: Pid,
    pub(super) language: Option<String>,
    pub(super) role: AudioRole,
    /// On air.
    pub(super) config: Option<AudioConfig>,
    pub(super) fate: Fate,
    pub(super) grid: AudioGrid,
    /// Frames whose run is not known yet.
    pub(super) waiting: VecDeque<AccessUnit>,
    /// Frames whose segment is not decided yet.
    pub(super) undecided: VecDeque<(i64, Frame)>,
    pub(super) last: Option<Place>,
    /// Session time of the picture beside which it was heard last; `None`: since the next one.
    heard: Option<i64>,
    /// It is not heard any more.
    gone: bool,
    /// Beside a source: the frame behind the last one that has its segment.
    laid: i64,
    /// The frame behind the last one that was given out.
    given: i64,
    /// How far it lies behind the pictures in the multiplex.
    lag: i64,
}

#[derive(Debug)]
pub(super) struct Running {
    pub(super) grid: Grid,
    pub(super) runs: Runs,
    pub(super) pdt: Pdt,
    pub(super) audio_only: bool,
    /// A worker makes a ladder of the video.
    pub(super) ladder: bool,
    pub(super) cutter: Option<Cutter>,
    pub(super) gop: GopProbe,
    pub(super) told: SourceProfile,
    pub(super) on_air: Option<u8>,
    pub(super) last_on_air: Mono,
    pub(super) shown: Shown,
    pub(super) filler: Filler,
    pub(super) tracks: Vec<Track>,
    /// New runs of late.
    pub(super) made: VecDeque<Mono>,
    /// A source rendition goes on at a random access point only; without one from this d on.
    pub(super) resume: Option<i64>,
    /// New headers for the source rendition, from the next random access point on.
    pub(super) reconfigure: Option<Out>,
    pub(super) video_config: Option<VideoConfig>,
    /// Of the session's video, and whether one of another codec was complained about.
    pub(super) codec: Option<Codec>,
    pub(super) foreign: bool,
    /// As `Track::pid`.
    pub(super) video_pid: Option<Pid>,
    pub(super) pieces: Vec<Piece>,
    /// The furthest frame whose date was told ahead of it.
    pub(super) dated: i64,
    /// Session time of the last picture.
    pictured: i64,
}

impl Track {
    pub(super) fn new(track: usize, audio: &PlannedAudio) -> Track {
        let config = audio.config.as_ref();
        let rate = config.map_or(48_000, |config| config.sample_rate.max(1));
        Track {
            grid: AudioGrid::new(u16::try_from(track).unwrap_or(u16::MAX), rate),
            number: u16::try_from(track).unwrap_or(u16::MAX),
            pid: audio.pid,
            language: audio.language.clone(),
            role: audio.role,
            config: audio.config.clone(),
            fate: match config {
                None => Fate::Unknown,
                Some(config) if config.passes_through() => Fate::Pass,
                Some(_) => Fate::Worker,
            },
            waiting: VecDeque::new(),
            undecided: VecDeque::new(),
            last: None,
            heard: None,
            gone: false,
            laid: 0,
            given: 0,
            lag: LAG_KEPT,
        }
    }
}

impl Running {
    pub(super) fn new(plan: &Plan, facts: Facts, line: PdtLine, now: Mono) -> Running {
        let (grid, rate) = (plan.grid, plan.grid.cadence.rate);
        let track = |(track, audio): (usize, &PlannedAudio)| Track::new(track, audio);
        Running {
            grid,
            runs: Runs::new(rate, plan.exact, facts.rules),
            pdt: Pdt::new(grid, line, now),
            audio_only: plan.audio_only,
            ladder: facts.kind != ChannelKind::Transmux,
            cutter: plan.source.map(|source| Cutter::new(source, grid.cadence, grid.msn0)),
            gop: GopProbe::default(),
            told: SourceProfile { rate, gop: plan.gop, captions: CaptionsSeen::default() },
            on_air: None,
            last_on_air: now,
            shown: Shown::default(),
            filler: Filler::new(rate),
            tracks: plan.audio.iter().enumerate().map(track).collect(),
            made: VecDeque::new(),
            resume: None,
            reconfigure: None,
            video_config: plan.video.as_ref().map(|(_, config)| config.clone()),
            codec: plan.video.as_ref().map(|(_, config)| config.codec),
            foreign: false,
            video_pid: plan.video.as_ref().map(|(pid, _)| *pid),
            pieces: Vec::new(),
            dated: 0,
            pictured: i64::MIN,
        }
    }

    /// Whether a picture is of another codec than the session's: its decoders and headers are made for one.
    pub(super) fn is_foreign(&mut self, unit: &AccessUnit, out: &mut VecDeque<Out>) -> bool {
        let Some(codec) = self.codec.filter(|codec| *codec != unit.codec) else { return false };
        if !std::mem::replace(&mut self.foreign, true) {
            let words =
                format!("{} within a session of {codec} is left out: end the session to change codecs", unit.codec);
            out.push_back(fault(FaultKind::UnsupportedCodec, unit, &words));
        }
        true
    }

    /// Which leg the session is fed by: the first; another one once it was silent for 0.5 s or left.
    pub(super) fn take_over(&mut self, leg: u8, now: Mono, random_access: bool) {
        let free = self.on_air.is_none_or(|air| air != leg && now.since(self.last_on_air) > ON_AIR_SILENCE);
        if free && random_access {
            self.on_air = Some(leg);
            self.resume = Some(i64::MAX);
        }
        if self.on_air == Some(leg) {
            self.last_on_air = now;
        }
    }

    /// Headers that differ from those on air: a source rendition must be cut for them.
    pub(super) fn headers(&mut self, leg: u8, state: &Leg, random_access: bool, out: &mut VecDeque<Out>) {
        if self.on_air != Some(leg) || !random_access || state.video_config == self.video_config {
            return;
        }
        self.video_config.clone_from(&state.video_config);
        let (Some(pid), Some(config)) = (self.video_pid.or(state.video), &state.video_config) else { return };
        let config = Out::Config { pid, config: TrackConfig::Video(config.clone()) };
        if self.cutter.is_some() {
            self.reconfigure = Some(config);
        } else {
            out.push_back(config);
        }
    }

    /// The same for audio track `index`, from its next unit on.
    pub(super) fn sound_headers(&mut self, index: usize, config: &AudioConfig, out: &mut VecDeque<Out>) {
        let Some(track) = self.tracks.get_mut(index) else { return };
        if track.config.as_ref() == Some(config) || track.config.is_none() {
            return;
        }
        if let Some(cutter) = self.cutter.as_ref().filter(|_| track.grid.rate() != config.sample_rate) {
            // What still waits was counted at the old rate.
            track.decide(&self.grid, cutter, out, false);
            track.undecided.clear();
            track.laid = 0;
        }
        track.config = Some(config.clone());
        if !track.reconfigured(config) {
            let detail = "audio that is passed through changed to what cannot be: silence until it changes back or a \
                          new session re-encodes it";
            let at = At { byte: 0, pid: Some(track.pid), pts: None };
            out.push_back(Out::Fault(Fault { kind: FaultKind::UnsupportedCodec, at, detail: detail.to_owned() }));
        }
        out.push_back(Out::Config { pid: track.pid, config: TrackConfig::Audio(config.clone()) });
    }

    /// False: the unit has no place.
    pub(super) fn video(&mut self, now: Now, leg: u8, unit: AccessUnit, out: &mut VecDeque<Out>) -> bool {
        let (stamp, sane) = Stamp::new(unit.pts.raw33(), unit.dts.raw33(), unit.random_access, unit.received);
        // Headers that wait begin a run of their own: the picture that brings them continues none.
        let verdict = if self.reconfigure.is_some() && self.on_air == Some(leg) {
            Verdict::Stray
        } else {
            self.runs.judge(leg, &stamp, self.on_air)
        };
        if self.on_air != Some(leg) {
            return false;
        }
        if !sane {
            out.push_back(fault(
                FaultKind::NoTimestamp,
                &unit,
                "PTS lies before DTS or 10 s behind it: DTS stands for it",
            ));
        }
        let placed = match verdict {
            Verdict::Continues(placed) => placed,
            Verdict::Fits(placed) => {
                self.gop.restart();
                placed
            }
            Verdict::Stray => match self.new_run(now, leg, &stamp, &unit, out) {
                Some(placed) => placed,
                None if self.cutter.is_none() => {
                    // Too many jumps: the decoder is kept fed, nothing is shown before the next random access point.
                    let n = self.shown.next();
                    out.push_back(Out::Video { n, prime: true, hidden: false, doubled: false, unit });
                    return true;
                }
                None => return false,
            },
        };
        self.watch(now, &placed, &unit, out);
        self.returned(now.mono, &placed, out);
        let taken = self.emit(leg, unit, &placed, out);
        self.miss_sound(placed.time, out);
        taken
    }

    fn new_run(
        &mut self,
        now: Now,
        leg: u8,
        stamp: &Stamp,
        unit: &AccessUnit,
        out: &mut VecDeque<Out>,
    ) -> Option<Placed> {
        while self.made.front().is_some_and(|at| now.mono.since(*at) > RUNS_SPAN) {
            self.made.pop_front();
        }
        let must_start = self.cutter.is_some() || self.made.len() >= RUNS_MANY;
        if must_start && !stamp.random_access {
            return None;
        }
        self.made.push_back(now.mono);
        self.listen_anew();
        let first = self.shown.max().is_none();
        let cut = self.cutter.as_ref().map(|_| i64::from(self.grid.cadence.segment));
        if !first {
            out.push_back(Out::Jumped { n: self.shown.next() });
        }
        let continues = self.reconfigure.is_some() && self.runs.steps(leg, stamp);
        let (anchor, placed) = self.runs.begin(leg, stamp, self.shown.next(), cut);
        if continues {
            self.runs.goes_on();
        }
        self.gop.restart();
        let mut ended = None;
        if self.cutter.is_some() && !first {
            self.close_audio(anchor.n0, out);
            ended = self.cut(out, |cutter, pieces| cutter.finish(Some(anchor.n0), pieces)).flatten();
        }
        out.push_back(Out::Record(Record::Anchor(anchor)));
        if !first {
            self.pdt.restart(now.mono);
            let was = format!("source time jumped: run {} begins at frame {}", anchor.run, anchor.n0);
            out.push_back(fault(FaultKind::TimeJump, unit, &was));
        }
        if cut.is_some() && !first {
            let seen =
                std::iter::once((arrival_wall(now, unit), placed.time - self.grid.cadence.rate.ticks(anchor.n0)));
            if let Some(line) = first_line(anchor.n0, seen, self.pdt.ppm()) {
                self.pdt = self.pdt.followed(line, ended, now.mono);
                out.push_back(Out::Record(Record::Pdt(self.pdt.line())));
            }
            self.filler.jumped(anchor.n0);
            self.shown.fill(anchor.n0);
            let msn = self.grid.msn_of(anchor.n0);
            out.push_back(Out::Record(Record::Break { msn }));
            out.push_back(Out::Fill { to: anchor.n0, with: Filling::Nothing });
            out.push_back(Out::Discontinuity { msn });
        }
        out.extend(self.reconfigure.take());
        Some(placed)
    }

    /// What a unit teaches about PDT and the source's GOP.
    fn watch(&mut self, now: Now, placed: &Placed, unit: &AccessUnit, out: &mut VecDeque<Out>) {
        let max_n = self.shown.max().unwrap_or(0).max(placed.n);
        if let Some(line) = self.pdt.observe(now.mono, arrival_wall(now, unit), placed.time, max_n, self.dated) {
            out.push_back(Out::Record(Record::Pdt(line)));
        }
        if unit.random_access && !self.audio_only {
            self.gop.push(placed.d);
            let gop = self.gop.gop();
            let telling = self.gop.seen() >= GOPS_TELLING && self.gop.seen().is_power_of_two();
            if telling && gop != self.told.gop {
                self.told.gop = gop;
                out.push_back(Out::Profile(self.told));
            }
        }
    }

    fn emit(&mut self, leg: u8, unit: AccessUnit, placed: &Placed, out: &mut VecDeque<Out>) -> bool {
        let (n, prime) = (placed.n, self.runs.prime(placed));
        let hidden = !prime && !self.shown.show(n);
        let doubled = hidden && !self.filler.showed(n) && !self.runs.repeats(leg);
        if hidden && self.resume.is_none() && !self.filler.has_filled(placed.n) {
            out.push_back(fault(FaultKind::Collision, &unit, &format!("frame {} has a picture already", placed.n)));
        }
        if self.cutter.is_none() {
            self.resume = None;
            out.push_back(Out::Video { n, prime, hidden, doubled, unit });
            return true;
        }
        // What was overtaken by its random access point is for decoders alone.
        let waits = self.resume.is_some_and(|until| (!unit.random_access && placed.d < until) || hidden);
        if prime || waits {
            if !prime {
                self.cut(out, |cutter, pieces| cutter.skip(placed.d, pieces));
                self.drain_undecided(out, false);
            }
            if self.ladder {
                out.push_back(Out::Video { n, prime, hidden, doubled, unit });
            }
            return self.ladder;
        }
        self.resume = None;
        let index = Index { d: placed.d, time: placed.time, shown_at: placed.shown_at };
        let snap = !self.runs.exact;
        if self.ladder {
            out.push_back(Out::Video { n, prime, hidden, doubled, unit: unit.clone() });
        }
        let Some(broken) = self.cutter.as_ref().map(|cutter| cutter.broken) else { return true };
        let at = At { byte: 0, pid: Some(unit.pid), pts: Some(unit.pts.0) };
        self.cut(out, |cutter, pieces| cutter.push(unit, index, snap, pieces));
        if self.cutter.as_ref().is_some_and(|cutter| cutter.broken > broken) {
            let detail = "a segment begins where the source's GOP did not promise it".to_owned();
            out.push_back(Out::Fault(Fault { kind: FaultKind::Gop, at, detail }));
        }
        self.drain_undecided(out, false);
        true
    }

    pub(super) fn cut<T>(
        &mut self,
        out: &mut VecDeque<Out>,
        act: impl FnOnce(&mut Cutter, &mut Vec<Piece>) -> T,
    ) -> Option<T> {
        let cutter = self.cutter.as_mut()?;
        let done = act(cutter, &mut self.pieces);
        out.extend(self.pieces.drain(..).map(|piece| match piece {
            Piece::Sample(sample) => Out::Source(sample),
            Piece::Gap { place, start, duration } => Out::Gap { track: None, place, start, duration },
        }));
        Some(done)
    }
}

// ── while the source is away ────────────────────────────────────────────────────────────────────────────────────────

impl Running {
    /// When `fill_overdue` is due.
    pub(super) fn fill_due(&self) -> Option<Mono> {
        self.filler.deadline(self.runs.pace()?)
    }

    /// Fills what has been waited for long enough; a bounded piece at a time.
    pub(super) fn fill_overdue(&mut self, now: Mono, out: &mut VecDeque<Out>) {
        if let Some(step) = self.runs.pace().and_then(|pace| self.filler.poll(now, pace)) {
            self.pdt.restart(now);
            self.fill(step, out);
        }
    }

    /// A unit of the reference track has its place.
    fn returned(&mut self, now: Mono, placed: &Placed, out: &mut VecDeque<Out>) {
        self.filler.heard(now);
        if self.cutter.is_none() && !self.audio_only {
            self.filler.pictured(now);
        }
        // What a run does not show leaves its first frame open.
        if !self.runs.prime(placed) {
            let step = self.filler.back(placed.time, placed.low.min(placed.n));
            step.into_iter().for_each(|step| self.fill(step, out));
        }
    }

    fn fill(&mut self, step: Step, out: &mut VecDeque<Out>) {
        if self.runs.rules.filled {
            self.shown.fill(step.to);
        }
        out.push_back(Out::Fill { to: step.to, with: step.with });
        self.listen_anew();
        self.cut(out, |cutter, pieces| cutter.fill(step.to, pieces));
        // A source rendition that lost a part's beginning goes on with the next random access point.
        if self.cutter.as_ref().is_some_and(Cutter::is_empty) {
            self.resume = Some(step.to + RESUME_SECONDS * self.grid.cadence.rate.hz().round() as i64);
        }
        for index in 0..self.tracks.len() {
            let track = &mut self.tracks[index];
            if track.fate == Fate::Pass && step.with != Filling::Still {
                let end = self.grid.audio_at_frame(step.to, track.grid.rate());
                let places = track.grid.silence_to(end);
                self.silence(index, places, out);
            }
        }
        self.drain_undecided(out, false);
    }

    fn silence(&mut self, index: usize, places: std::ops::Range<i64>, out: &mut VecDeque<Out>) {
        for m in places {
            self.lay(index, m, Frame::Silence, out);
            self.drain_undecided(out, false);
        }
    }
}

// ── audio ───────────────────────────────────────────────────────────────────────────────────────────────────────────

impl Running {
    /// A session without video: its first audio track makes N.
    pub(super) fn audio_reference(&mut self, now: Now, leg: u8, unit: AccessUnit, out: &mut VecDeque<Out>) -> bool {
        let (stamp, _) = Stamp::new(unit.pts.raw33(), unit.pts.raw33(), true, unit.received);
        let before = self.runs.line(leg).map(|line| line.run);
        let verdict = self.runs.judge(leg, &stamp, self.on_air);
        if self.on_air != Some(leg) {
            return false;
        }
        let placed = match verdict {
            Verdict::Continues(placed) | Verdict::Fits(placed) => placed,
            Verdict::Stray => match self.new_run(now, leg, &stamp, &unit, out) {
                Some(placed) => placed,
                None => return false,
            },
        };
        self.watch(now, &placed, &unit, out);
        self.returned(now.mono, &placed, out);
        self.shown.show(placed.n);
        self.audio(0, unit, (placed.run, placed.shown_at, before != Some(placed.run)), out);
        true
    }

    /// A frame whose session time is known: to its place on the grid, or to the worker.
    pub(super) fn audio(&mut self, index: usize, unit: AccessUnit, heard: (u32, i64, bool), out: &mut VecDeque<Out>) {
        let (run, time, moved) = heard;
        self.filler.heard(unit.received);
        let number = u16::try_from(index).unwrap_or(u16::MAX);
        let overtaken = self.cutter.is_some()
            && self
                .on_air
                .and_then(|leg| self.runs.line(leg))
                .is_some_and(|line| line.run != run && self.runs.run(line.run).is_some_and(|newer| time >= newer.base));
        // What still comes of a run that was cut off has no place behind the cut.
        if overtaken {
            return;
        }
        let track = &mut self.tracks[index];
        (track.heard, track.gone) = (None, false);
        track.lag = self.pictured.saturating_sub(time).clamp(LAG_KEPT, SOUND_GONE);
        match track.fate {
            Fate::Unknown => {}
            Fate::Worker if time >= -PREROLL => {
                // 48 samples a millisecond, 90 ticks: 8 to 15.
                out.push_back(Out::AudioToWorker { track: number, at: (time * 8 + 7).div_euclid(15), unit });
            }
            Fate::Worker => {}
            Fate::Pass => {
                let free = track.grid.next;
                let set = track.grid.set(run, unit.pts.raw33(), time, moved);
                if let Some(record) = set.record {
                    out.push_back(Out::Record(Record::Audio(record)));
                }
                if set.drifted {
                    let what = if set.repeat { "repeated" } else { "dropped" };
                    out.push_back(fault(
                        FaultKind::AudioDrift,
                        &unit,
                        &format!("audio drifted 10 ms: one frame {what}"),
                    ));
                }
                let Some(m) = set.m else { return };
                // Beside a source rendition nobody else knows how long a part is to be.
                if self.cutter.is_some() && m - free <= SILENCE_FRAMES_MAX && free > 0 {
                    self.silence(index, free..m, out);
                }
                if set.repeat {
                    self.lay(index, m, Frame::Unit(unit.clone()), out);
                }
                self.lay(index, m + i64::from(set.repeat), Frame::Unit(unit), out);
            }
        }
    }

    /// Which of the session's tracks a leg's are.
    pub(super) fn recognize(&self, audio: &mut [LegAudio], out: &mut VecDeque<Out>) {
        tracks::assign(&self.tracks, audio);
        for foreign in audio.iter().filter(|audio| audio.track.is_none()) {
            let language = foreign.language.as_deref().unwrap_or("no language");
            let detail = format!("audio in {language} that the session did not begin with: the next session has it");
            let at = At { byte: 0, pid: Some(foreign.pid), pts: None };
            out.push_back(Out::Fault(Fault { kind: FaultKind::AudioTrack, at, detail }));
        }
    }

    /// The picture jumped or stood still: nobody knows yet what is missing.
    fn listen_anew(&mut self) {
        self.tracks.iter_mut().for_each(|track| track.heard = None);
    }

    /// A picture of session time `time` came. A passed-through track that is not heard beside pictures any more is silent
    /// as far behind them as it was: players wait for every track they play.
    fn miss_sound(&mut self, time: i64, out: &mut VecDeque<Out>) {
        self.pictured = time;
        for index in 0..self.tracks.len() {
            let track = &mut self.tracks[index];
            let heard = *track.heard.get_or_insert(time);
            if track.fate != Fate::Pass || time - heard <= SOUND_GONE {
                continue;
            }
            if !std::mem::replace(&mut track.gone, true) {
                let at = At { byte: 0, pid: Some(track.pid), pts: None };
                let detail = "an audio track is not heard any more: it is silent until it is back".to_owned();
                out.push_back(Out::Fault(Fault { kind: FaultKind::AudioTrack, at, detail }));
            }
            let places = track.grid.silence_to(track.grid.frame_at(time - track.lag));
            self.silence(index, places, out);
        }
    }

    /// Frame `m` to its segment and part: at once on a ladder's grid, with the source's cut otherwise.
    fn lay(&mut self, index: usize, m: i64, frame: Frame, out: &mut VecDeque<Out>) {
        let track = &mut self.tracks[index];
        if self.cutter.is_none() {
            let place = self.grid.place_audio(m, track.grid.rate());
            track.put(&self.grid, None, m, place, frame, out);
            return;
        }
        if track.undecided.len() >= UNDECIDED_MAX
            && let Some((_, Frame::Unit(unit))) = track.undecided.pop_front()
        {
            out.push_back(fault(FaultKind::Overrun, &unit, "audio waited 2 s for the picture's cut"));
        }
        track.undecided.push_back((m, frame));
    }

    /// Audio whose segment is decided now; all of it if `force`d.
    pub(super) fn drain_undecided(&mut self, out: &mut VecDeque<Out>, force: bool) {
        let Some(cutter) = &self.cutter else { return };
        self.tracks.iter_mut().for_each(|track| track.decide(&self.grid, cutter, out, force));
    }

    /// Every audio track goes on in the segment that begins with frame `n0`, whatever is open. What was ahead of the picture
    /// and would reach into it is the former run's, and has no place.
    fn close_audio(&mut self, n0: i64, out: &mut VecDeque<Out>) {
        for track in &mut self.tracks {
            let first = self.grid.audio_at_frame(n0, track.grid.rate());
            track.undecided.retain(|(m, _)| *m < first);
            track.grid.next = track.grid.next.min(first);
        }
        self.drain_undecided(out, true);
        let msn = self.grid.msn_of(n0);
        for track in &mut self.tracks {
            track.undecided.clear();
            if track.fate == Fate::Pass {
                track.gaps(&self.grid, false, (msn, 0), out);
                track.last = Some(Place { msn: msn.saturating_sub(1), part: 0, ends: Ends::Segment });
            }
        }
    }
}

impl Track {
    /// Another configuration. False: the track was passed through, and this cannot be.
    pub(super) fn reconfigured(&mut self, config: &AudioConfig) -> bool {
        if self.fate != Fate::Pass {
            return true;
        }
        if config.passes_through() {
            if self.grid.rate() != config.sample_rate {
                self.given = 0;
            }
            self.grid.set_rate(config.sample_rate);
        }
        config.passes_through()
    }

    /// Beside a source: frames whose segment is decided now; all of them if `force`d.
    fn decide(&mut self, grid: &Grid, cutter: &Cutter, out: &mut VecDeque<Out>, force: bool) {
        while let Some((m, frame)) = self.undecided.pop_front() {
            let (time, next) = (self.grid.time_of(m), self.grid.time_of(m + 1));
            // Nothing makes a segment outlast TARGETDURATION.
            if time < cutter.begins() || force && next > cutter.ends() {
                continue;
            }
            let Some(place) = cutter.place_audio(time, next, force) else {
                self.undecided.push_front((m, frame));
                break;
            };
            self.lead_out(grid, cutter, m, place, out);
            self.lead_in(grid, cutter, m, place, out);
            self.put(grid, Some(cutter), m, place, frame, out);
            self.laid = m + 1;
        }
    }

    /// The same for one that loses its end.
    fn lead_out(&mut self, grid: &Grid, cutter: &Cutter, m: i64, place: Place, out: &mut VecDeque<Out>) {
        let part = |place: Place| (place.msn, place.part);
        let Some(open) = self.last.filter(|last| last.ends == Ends::Nothing && part(*last) != part(place)) else {
            return;
        };
        for m in (self.laid..m).take(PART_FRAMES_MAX) {
            let here = cutter.place_audio(self.grid.time_of(m), self.grid.time_of(m + 1), true);
            let Some(here) = here.filter(|here| part(*here) == part(open)) else { return };
            self.put(grid, Some(cutter), m, here, Frame::Silence, out);
        }
    }

    /// A part that loses its beginning to a hole would be shorter than parts may be: it begins with silence.
    fn lead_in(&mut self, grid: &Grid, cutter: &Cutter, m: i64, place: Place, out: &mut VecDeque<Out>) {
        let before = |m: i64| cutter.place_audio(self.grid.time_of(m), self.grid.time_of(m + 1), true);
        let within = |m: &i64| before(*m).is_some_and(|p| (p.msn, p.part) == (place.msn, place.part));
        let begins = |m: &i64| self.grid.time_of(*m) >= cutter.begins();
        let silent = (self.laid.max(0)..m).rev().take(PART_FRAMES_MAX).take_while(|m| begins(m) && within(m)).count();
        for m in m - i64::try_from(silent).unwrap_or(0)..m {
            if let Some(place) = cutter.place_audio(self.grid.time_of(m), self.grid.time_of(m + 1), true) {
                self.put(grid, Some(cutter), m, place, Frame::Silence, out);
            }
        }
    }

    /// `cutter`: beside a source.
    fn put(
        &mut self,
        grid: &Grid,
        cutter: Option<&Cutter>,
        m: i64,
        place: Place,
        frame: Frame,
        out: &mut VecDeque<Out>,
    ) {
        // Sound that was ahead of a jump may have taken the places behind it.
        if m < self.given {
            return;
        }
        self.given = m + 1;
        self.gaps(grid, cutter.is_none(), (place.msn, place.part), out);
        self.last = Some(place);
        let first = grid.first_frame(place.msn) + i64::from(place.part * grid.cadence.part);
        let begins = cutter.map_or_else(|| grid.cadence.rate.ticks(first), |cutter| cutter.part_at(place));
        out.push_back(match frame {
            Frame::Unit(unit) => Out::Audio(AudioOut { track: self.number, m, place, begins, unit }),
            Frame::Silence => Out::Silence { track: self.number, m, place, begins },
        });
    }

    /// The parts between the last frame's and `to`: nothing was in them. A source's segments are not told apart.
    fn gaps(&self, grid: &Grid, ladder: bool, to: (u64, u32), out: &mut VecDeque<Out>) {
        let cadence = grid.cadence;
        let parts = if ladder { cadence.segment.div_ceil(cadence.part) } else { 1 };
        let (mut msn, mut part) = match self.last {
            None => (grid.msn0, 0),
            Some(last) if last.ends == Ends::Segment || (last.msn < to.0 && last.part + 1 >= parts) => {
                (last.msn + 1, 0)
            }
            Some(last) => (last.msn, last.part + 1),
        };
        for _ in 0..GAPS_MAX {
            if (msn, part) >= to {
                break;
            }
            let first = grid.first_frame(msn) + i64::from(part * cadence.part);
            let whole = msn < to.0 && part + 1 >= parts;
            let frames = if whole && ladder { cadence.segment - part * cadence.part } else { cadence.part };
            let place = Place { msn, part, ends: if whole { Ends::Segment } else { Ends::Part } };
            let start = cadence.rate.ticks(first);
            let duration = u32::try_from(cadence.rate.ticks(first + i64::from(frames)) - start).unwrap_or(1);
            out.push_back(Out::Gap { track: Some(self.number), place, start, duration });
            (msn, part) = if whole { (msn + 1, 0) } else { (msn, part + 1) };
        }
    }
}

pub(super) fn arrival_wall(now: Now, unit: &AccessUnit) -> Wall {
    let age = i64::try_from(now.mono.since(unit.received).as_nanos()).unwrap_or(0);
    Wall(now.wall.0.saturating_sub(age))
}

pub(super) fn fault(kind: FaultKind, unit: &AccessUnit, detail: &str) -> Out {
    let at = At { byte: 0, pid: Some(unit.pid), pts: Some(unit.pts.0) };
    Out::Fault(Fault { kind, at, detail: detail.to_owned() })
}

/// A leg this silent gives way to another one.
const ON_AIR_SILENCE: std::time::Duration = std::time::Duration::from_millis(500);
/// After so many new runs within the span one begins at a random access point only.
const RUNS_MANY: usize = 16;
const RUNS_SPAN: std::time::Duration = std::time::Duration::from_secs(10);
/// A source without a random access point for so long behind an outage has none: it goes on as it is.
const RESUME_SECONDS: i64 = 10;
/// GOPs seen before the profile is corrected.
const GOPS_TELLING: u32 = 4;
/// A longer hole in passed-through audio, of which the filler knows nothing, is a gap: 1 s.
const SILENCE_FRAMES_MAX: i64 = 48;
/// Audio frames that wait for the picture's cut: 2 s.
const UNDECIDED_MAX: usize = 96;
/// A track that is not heard beside pictures for so long has stopped: 1 s. From then on silence keeps it as far behind them
/// as it was, at least 0.5 s.
const SOUND_GONE: i64 = 90_000;
const LAG_KEPT: i64 = 45_000;
/// Parts that one hole may list.
const GAPS_MAX: usize = 16_384;
/// Audio frames of the longest part, and more.
const PART_FRAMES_MAX: usize = 48;
/// Audio this long before N = 0 primes the encoder: 0.5 s.
const PREROLL: i64 = 45_000;
