//! A session's renditions: made when the grid stands, fed by the timeline and the worker, kept in step with each other.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::captions::CaptionTrack;
use super::outputs::{AudioTrack, Breaks, LadderTrack};
use super::placement;
use super::stills::{Order, Owner, Picker};
use crate::bitstream::h264;
use crate::media::channel::{Channel, ChannelKind, ChannelName, Ladder, SessionId};
use crate::media::grid::{Ends, FrameRate, Grid, PdtLine, Place, Record};
use crate::media::logo::Logo;
use crate::media::picture::{PictureRule, Tile};
use crate::media::plan::{InitMark, Inits, Kept, Plan};
use crate::media::sample::{Sample, Stamps};
use crate::media::track::{AudioConfig, Pid, TrackConfig, VideoConfig};
use crate::package::fmp4::emsg::TimedTag;
use crate::package::fmp4::init::InitSection;
use crate::package::origin::SessionOutput;
use crate::package::pictures::{SheetVersion, Span};
use crate::package::segmenter::{PartPublished, Segmenter};
use crate::package::window::{Kind, RenditionOutput, Targets};
use crate::pixels::protocol::{
    self, Encoded, Open, OpenAudio, OpenVideo, Output, Picture, PictureKind, RenditionIndex, Sheet, VideoInit,
};
use crate::telemetry::names::{Label, Metric, count, gauge, observe};
use crate::time::{Mono, Now, Wall};
use crate::timeline::{Out, SourceSample};

mod captioning;
mod making;
#[cfg(test)]
mod tests;

use making::ladder_init;

/// The timescale of source renditions.
const SOURCE_TIMESCALE: u32 = 90_000;
/// Re-encoded audio: AAC-LC 48 kHz stereo.
const AUDIO_BITRATE: u64 = 128_000;
/// A source rendition waits no longer for ladder and audio: a worker may be gone, a track may be silent.
const SOURCE_WAIT: Duration = Duration::from_millis(1_000);
/// BANDWIDTH of a source rendition until it has been measured, bits per second.
const SOURCE_BANDWIDTH: u64 = 6_000_000;

/// How a session's lost worker is succeeded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RestartPlan {
    /// First frame to show.
    pub start: i64,
    /// Renditions that are ahead begin with an IDR here.
    pub idrs: Vec<i64>,
    /// First audio frame wanted, by re-encoded track.
    pub audio: Vec<i64>,
}

/// An audio track's way out.
enum Audio {
    Passed {
        pid: Pid,
        out: AudioTrack,
        config: AudioConfig,
    },
    /// Its rendition is made when the worker says what it encodes to.
    Encoded {
        pid: Pid,
        config: AudioConfig,
        name: String,
        kind: Kind,
        out: Option<AudioTrack>,
    },
    /// Without headers by now: not part of the session.
    Absent,
}

/// One session's renditions.
pub struct Stage {
    session: SessionId,
    grid: Grid,
    line: PdtLine,
    /// In force before it: pictures are a little behind.
    line_before: PdtLine,
    targets: Targets,
    output: Arc<SessionOutput>,
    video: Option<OpenVideo>,
    ladder: Vec<LadderTrack>,
    source: Option<Source>,
    audio: Vec<Audio>,
    captions: CaptionTrack,
    independent: bool,
    /// What another process left, and the first frame that this one makes.
    resumed: Option<Resumed>,
    /// Largest N that the source has shown.
    seen: i64,
    /// Part durations published so far, seconds, by rendition in `SessionOutput` order.
    published: Vec<f64>,
    last_part: Option<PartPublished>,
    records: VecDeque<Record>,
}

struct Resumed {
    kept: Kept,
    from: i64,
    now: Now,
    /// A rendition's init section is another one than before: media goes on behind a DISCONTINUITY.
    changed: bool,
}

/// The untouched source. Its samples wait until the same part of the ladder is published and its audio has come (it
/// cannot be played before that), so that no player sees one rendition's edge run ahead of the others'; never longer
/// than `SOURCE_WAIT`.
struct Source {
    pid: Pid,
    segmenter: Segmenter,
    waiting: VecDeque<(Mono, Waiting)>,
    /// The part that is not published yet.
    edge: (u64, u32),
    config: VideoConfig,
    /// Headers that hold from the next DISCONTINUITY on.
    next_config: Option<VideoConfig>,
    breaks: Breaks,
    /// Where nothing else decodes it.
    picker: Option<Picker>,
}

enum Waiting {
    Sample(Box<SourceSample>),
    /// A part that has nothing, and when it ends.
    Gap(Place, i64),
}

impl Waiting {
    fn place(&self) -> Place {
        match self {
            Waiting::Sample(sample) => sample.place,
            Waiting::Gap(place, _) => *place,
        }
    }
}

impl Stage {
    pub fn new(channel: &Channel, session: &SessionId, plan: &Plan, line: PdtLine) -> Stage {
        Stage::made(channel, session, plan, line, None)
    }

    /// Goes on with frame `from` where another process was; what that one made is listed as GAP.
    pub fn resumed(channel: &Channel, session: &SessionId, kept: Kept, from: i64, now: Now) -> Stage {
        let (plan, line) = (kept.plan.clone(), kept.line());
        let named = kept.inits.as_ref().map_or_else(|| session.clone(), |inits| inits.named.clone());
        let resumed = Resumed { kept, from, now, changed: false };
        Stage::made(channel, &named, &plan, line, Some(resumed))
    }

    fn made(channel: &Channel, session: &SessionId, plan: &Plan, line: PdtLine, resumed: Option<Resumed>) -> Stage {
        let grid = plan.grid;
        let source = plan.source.is_some();
        let targets = if source {
            Targets::source(channel.mode, grid.cadence, plan.target_duration, channel.hold_back_ms)
        } else {
            Targets::ladder(channel.mode, grid.cadence, channel.hold_back_ms)
        };
        let targets = targets.windowed(grid.cadence, channel.window_s);
        let from = resumed.as_ref().map_or(0, |resumed| resumed.from);
        let video = plan.video.as_ref().and_then(|(pid, config)| {
            let ladder = placement::ladder(channel, config, grid.cadence);
            let some = ladder != Ladder::default();
            some.then(|| placement::open_video(channel, *pid, config, grid.cadence, &ladder, from))
        });
        let mut stage = Stage {
            session: session.clone(),
            grid,
            line,
            line_before: line,
            targets,
            output: Arc::new(SessionOutput::new(session.clone(), channel.mode)),
            video,
            ladder: Vec::new(),
            source: None,
            audio: Vec::new(),
            captions: CaptionTrack::new(channel.captions.clone()),
            independent: plan.source.is_none_or(|plan| plan.independent),
            resumed,
            seen: from - 1,
            published: Vec::new(),
            last_part: None,
            records: VecDeque::new(),
        };
        if let Some(offset) = channel.start_offset_s {
            stage.output.set_start(targets.start(grid.cadence, offset));
        }
        if let (Some((pid, config)), true, true) = (&plan.video, source, channel.kind != ChannelKind::Transcode) {
            stage.add_source(*pid, config);
        }
        stage.output.set_audio_only(channel.audio_only);
        stage.audio = stage.plan_audio(&plan.audio);
        if stage.open().is_none() {
            stage.add_audio_outputs();
            stage.stands();
        }
        stage
    }

    /// What is to be committed.
    pub fn poll_record(&mut self) -> Option<Record> {
        self.records.pop_front()
    }

    /// What a worker must make of this session; `None` if nothing.
    pub fn open(&self) -> Option<Open> {
        let audio: Vec<OpenAudio> = self
            .audio
            .iter()
            .filter_map(|a| match a {
                Audio::Encoded { pid, config, out, .. } => Some(OpenAudio {
                    pid: *pid,
                    codec: config.codec,
                    config: config.clone(),
                    channels: if config.channels == 1 { 1 } else { 2 },
                    bitrate: AUDIO_BITRATE,
                    start: out.as_ref().map_or(self.first_sound(48_000), AudioTrack::edge),
                }),
                _ => None,
            })
            .collect();
        let needed = self.video.is_some() || !audio.is_empty();
        needed.then(|| Open { video: self.video.clone(), audio, unpaced: false })
    }

    /// The worker's encoders stand. The first time this makes the renditions; later it must change nothing, or every
    /// rendition that changed gets another init section behind a DISCONTINUITY.
    pub fn opened(&mut self, now: Mono, video: &[VideoInit], audio: &[AudioConfig]) {
        if self.ladder.is_empty() && self.output.renditions().iter().all(|r| r.name() == "source") {
            self.add_ladder(video);
            self.make_encoded_audio(audio);
            self.add_audio_outputs();
            return self.stands();
        }
        let Some(open) = &self.video else { return };
        let mut breaks = BTreeSet::new();
        for ((track, init), rendition) in self.ladder.iter_mut().zip(video).zip(&open.renditions) {
            let section = ladder_init(rendition, init, self.grid);
            if track.init() != &section {
                track.reinit(now, section);
                breaks.insert(self.grid.msn_of(track.edge()));
            }
        }
        if !breaks.is_empty() {
            self.records.extend(breaks.into_iter().map(|msn| Record::Break { msn }));
            self.mark_inits();
        }
    }

    /// All renditions are made.
    fn stands(&mut self) {
        if let Some(Resumed { from, now, changed: true, .. }) = &self.resumed {
            let (f, now) = (i64::from(self.grid.cadence.segment), now.mono);
            let n = (from + f - 1).div_euclid(f) * f;
            self.records.push_back(Record::Break { msn: self.grid.msn_of(n) });
            self.source.iter_mut().for_each(|source| source.segmenter.break_here());
            self.ladder.iter_mut().for_each(|track| track.break_at(now, n));
            for audio in &mut self.audio {
                if let Audio::Passed { out, .. } | Audio::Encoded { out: Some(out), .. } = audio {
                    out.break_at(now, n);
                }
            }
        }
        self.mark_inits();
    }

    /// URIs of init sections name the same bytes after a restart.
    fn mark_inits(&mut self) {
        let mut marks = Vec::new();
        self.segmenters(|segmenter| {
            let map = segmenter.output().newest_map().unwrap_or(0);
            marks.push(InitMark::of(segmenter.output().name(), map, &segmenter.init().bytes));
        });
        self.records.push_back(Record::Inits(Inits { named: self.session.clone(), marks }));
    }

    pub fn output(&self) -> Arc<SessionOutput> {
        Arc::clone(&self.output)
    }

    /// Its encoders' pictures bear another logo, or none.
    pub(super) fn set_logo(&mut self, logo: Option<&Logo>) {
        if let Some(video) = &mut self.video {
            video.logo = logo.cloned().map(Box::new);
        }
    }

    pub fn has_ladder(&self) -> bool {
        self.video.is_some()
    }

    /// What a worker is to fill so that frames below `to` are shown: `to` itself, for an audio-only worker its 48 kHz sample.
    /// `None`: no worker makes anything.
    pub fn fill_to(&self, to: i64) -> Option<i64> {
        let rate = self.grid.cadence.rate;
        let samples = || i128::from(to) * 48_000 * i128::from(rate.den) / i128::from(rate.num);
        match (&self.video, self.audio.iter().any(|a| matches!(a, Audio::Encoded { .. }))) {
            (Some(_), _) => Some(to),
            (None, true) => i64::try_from(samples()).ok(),
            (None, false) => None,
        }
    }

    /// Largest N that the source has shown, or that was filled.
    pub fn seen(&self) -> i64 {
        self.seen
    }

    /// The source has a picture for frame `n`, or it was filled.
    pub fn saw(&mut self, n: i64) {
        self.seen = self.seen.max(n);
    }

    pub fn date_line(&mut self, line: PdtLine) {
        self.line_before = if line.from_n > self.line.from_n { self.line } else { line };
        self.line = line;
        self.segmenters(|segmenter| segmenter.date_line(line));
    }

    /// The grid's.
    pub fn rate(&self) -> FrameRate {
        self.grid.cadence.rate
    }

    /// PROGRAM-DATE-TIME of a frame.
    pub fn date_of(&self, n: i64) -> Wall {
        let line = if n < self.line.from_n { self.line_before } else { self.line };
        line.at(&self.grid, n)
    }

    /// A part was published: dates that are told now are final.
    pub fn is_dated(&self) -> bool {
        self.last_part.is_some()
    }

    /// A timed tag, for every rendition that a player may hold on to: those with pictures, else those with sound.
    pub fn tag(&mut self, tag: &TimedTag) {
        let pictured = self.source.is_some() || self.video.is_some();
        self.segmenters(|segmenter| {
            let sound = matches!(segmenter.init().track, TrackConfig::Audio(_));
            if sound != pictured {
                segmenter.tag(tag.clone());
            }
        });
    }

    // ── from the timeline ───────────────────────────────────────────────────────────────────────────────────────

    /// Passed-through media, gaps and breaks.
    pub fn take(&mut self, now: Now, out: Out) {
        match out {
            Out::Source(sample) => {
                self.hear_source_captions(&sample);
                if let Some(source) = &mut self.source {
                    source.pick(&sample, self.grid);
                    source.waiting.push_back((now.mono, Waiting::Sample(Box::new(sample))));
                }
            }
            Out::Audio(frame) => {
                let stamps = Stamps { received: frame.unit.received, demuxed: now.mono, ..Stamps::default() };
                let placed = self.source.is_some();
                if let Some(Audio::Passed { out, .. }) = self.audio.get_mut(usize::from(frame.track)) {
                    if placed {
                        out.push_placed(now.mono, frame.m, (frame.place, frame.begins), frame.unit.data, stamps);
                    } else {
                        out.push(now.mono, frame.m, frame.unit.data, stamps);
                    }
                }
            }
            Out::Silence { track, m, place, begins } => {
                if let Some(Audio::Passed { out, .. }) = self.audio.get_mut(usize::from(track)) {
                    out.silent(now.mono, m, (place, begins));
                }
            }
            Out::Gap { track, place, start, duration } => match track {
                None => {
                    let ends = start + i64::from(duration);
                    self.source.iter_mut().for_each(|s| s.waiting.push_back((now.mono, Waiting::Gap(place, ends))));
                }
                Some(track) => {
                    let until = if place.ends == Ends::Segment { place.edge() } else { (place.msn, place.part + 1) };
                    let on_grid = self.source.is_none();
                    if let Some(Audio::Passed { out, .. }) = self.audio.get_mut(usize::from(track)) {
                        out.gap(now.mono, until, on_grid);
                    }
                }
            },
            Out::Discontinuity { msn } => self.jump_to(msn),
            Out::Config { pid, config } => self.config(pid, &config),
            _ => {}
        }
    }

    fn jump_to(&mut self, msn: u64) {
        if let Some(source) = &mut self.source {
            let init = source.next_config.take().map(|config| {
                source.config = config;
                InitSection::video(&source.config, SOURCE_TIMESCALE, 0)
            });
            source.breaks.plan_jump(msn, init);
        }
        self.ladder.iter_mut().for_each(|track| track.jump_to(msn));
        for audio in &mut self.audio {
            if let Audio::Passed { out, .. } | Audio::Encoded { out: Some(out), .. } = audio {
                out.jump_to(msn);
            }
        }
    }

    fn config(&mut self, of: Pid, config: &TrackConfig) {
        match config {
            TrackConfig::Video(video) => {
                if let Some(source) = self.source.as_mut().filter(|s| s.pid == of) {
                    source.next_config = Some(video.clone());
                }
            }
            TrackConfig::Audio(audio) => self.audio_config(of, audio),
        }
    }

    /// A passed-through track changed: the next segment that no rendition has begun starts behind a DISCONTINUITY.
    fn audio_config(&mut self, of: Pid, new: &AudioConfig) {
        let ladder = self.ladder.iter().map(LadderTrack::unbegun);
        let audio = self.audio.iter().filter_map(|audio| match audio {
            Audio::Passed { out, .. } | Audio::Encoded { out: Some(out), .. } => Some(out.unbegun()),
            _ => None,
        });
        let source = self.source.iter().map(Source::unbegun);
        let msn = ladder.chain(audio).chain(source).max().unwrap_or(self.grid.msn0);
        let mut changed = None;
        for (index, track) in self.audio.iter_mut().enumerate() {
            let Audio::Passed { pid, out, config } = track else { continue };
            if *pid != of {
                continue;
            }
            out.mute(!new.passes_through());
            if new.passes_through() && new != config {
                *config = new.clone();
                out.reconfigure(msn, new, InitSection::audio(new, AUDIO_BITRATE));
                changed = Some(index);
            }
        }
        if changed.is_none() {
            return;
        }
        self.records.push_back(Record::Break { msn });
        self.ladder.iter_mut().for_each(|track| track.break_from(msn));
        self.source.iter_mut().for_each(|source| source.breaks.plan(msn, None));
        for (index, audio) in self.audio.iter_mut().enumerate() {
            if let Audio::Passed { out, .. } | Audio::Encoded { out: Some(out), .. } = audio
                && Some(index) != changed
            {
                out.break_from(msn);
            }
        }
    }

    // ── from the worker ─────────────────────────────────────────────────────────────────────────────────────────

    pub fn encoded(&mut self, now: Mono, frame: &Encoded) {
        match frame.output {
            Output::Video(index) => {
                let captioned = self.captioned(index, frame);
                if let Some(track) = self.ladder.get_mut(usize::from(index)) {
                    track.push(now, captioned.as_ref().unwrap_or(frame));
                    track.unmark_shed();
                }
                self.follow(now);
            }
            Output::Audio(index) => {
                let encoded = self.audio.iter_mut().filter_map(|a| match a {
                    Audio::Encoded { out, .. } => out.as_mut(),
                    _ => None,
                });
                if let Some(track) = encoded.into_iter().nth(usize::from(index)) {
                    track.push(now, frame.at, frame.data.clone(), frame.stamps);
                }
            }
        }
    }

    /// A poster or a storyboard sheet. False: it cannot be what it says, and is not shown.
    pub fn picture(&mut self, now: Now, picture: Picture) -> bool {
        match picture.kind {
            PictureKind::Poster => self.output.pictures().set_poster(picture.jpeg, now.wall),
            PictureKind::Sheet(Sheet { number, places, tile }) => {
                let Some(place) = places.last() else { return false };
                let (rule, tile_at) = (PictureRule::of(self.grid.cadence.rate), Tile::at(number, *place));
                let (from, to) = (rule.first_frame(tile_at), rule.first_frame(Tile(tile_at.0 + 1)));
                let ms = |n: i64| self.grid.nanos_at(n) / 1_000_000;
                let line = if from < self.line.from_n { self.line_before } else { self.line };
                let span = Span { from_ms: ms(from), to_ms: ms(to), date: line.at(&self.grid, from) };
                let version = SheetVersion { number, places, tile, jpeg: picture.jpeg, span };
                let window = i64::from(self.grid.cadence.segment).saturating_mul(self.targets.window_segments as i64);
                self.output.pictures().set_sheet(version, ms(picture.at - window))
            }
            PictureKind::Snap => true,
        }
    }

    /// A picture that is wanted of a source that nobody else decodes.
    pub(super) fn still_order(&mut self) -> Option<Order> {
        let source = self.source.as_mut()?;
        let config = source.next_config.as_ref().unwrap_or(&source.config);
        source.picker.as_mut()?.poll(config)
    }

    /// Who its stills are of, if it has any.
    pub(super) fn still_owner(&self, channel: &ChannelName) -> Option<Owner> {
        self.source.as_ref()?.picker.as_ref()?;
        Some(Owner { channel: channel.clone(), session: self.session.clone() })
    }

    /// Someone wants a picture of now. False: nobody decodes this source, or it has shown none yet.
    pub(super) fn snap_source(&mut self) -> bool {
        self.source.as_mut().and_then(|source| source.picker.as_mut()).is_some_and(Picker::snap)
    }

    pub fn late(&mut self, rendition: RenditionIndex, resumes: i64) {
        if let Some(track) = self.ladder.get_mut(usize::from(rendition)) {
            track.late(resumes);
        }
    }

    pub fn shed(&mut self, rendition: RenditionIndex, at: i64) {
        if let Some(track) = self.ladder.get_mut(usize::from(rendition)) {
            track.shed(at);
        }
    }

    pub fn resume(&mut self, rendition: RenditionIndex, at: i64) {
        if let Some(track) = self.ladder.get_mut(usize::from(rendition)) {
            track.resume(at);
        }
    }

    /// Each rendition goes on with the first frame that can be made again (`LadderTrack::restart_start`).
    pub fn restart(&mut self) -> RestartPlan {
        let flowing = self.ladder.iter().filter(|t| t.is_flowing());
        let mut starts: Vec<i64> = flowing.map(LadderTrack::restart_start).collect();
        starts.sort_unstable();
        starts.dedup();
        // Before its renditions stand it begins where they will.
        let start = starts.first().copied().unwrap_or_else(|| self.resumed.as_ref().map_or(0, |resumed| resumed.from));
        self.ladder.iter_mut().for_each(LadderTrack::restart);
        let first = self.first_sound(48_000);
        let audio = self.audio.iter().filter_map(|a| match a {
            Audio::Encoded { out, .. } => Some(out.as_ref().map_or(first, AudioTrack::edge)),
            _ => None,
        });
        RestartPlan { start, audio: audio.collect(), idrs: starts.split_off(1.min(starts.len())) }
    }

    /// First frame that a successor would have to make again.
    pub fn needed_from(&self) -> i64 {
        self.ladder.iter().filter(|t| t.is_flowing()).map(LadderTrack::restart_start).min().unwrap_or(self.seen)
    }

    /// No worker for long: GAP up to a second behind the source, so that the numbers go on.
    pub fn give_up(&mut self, now: Mono) {
        let second = self.grid.cadence.rate.hz().ceil() as i64;
        let upto = self.seen - second;
        self.ladder.iter_mut().for_each(|track| track.give_up_to(now, upto));
        for audio in &mut self.audio {
            if let Audio::Encoded { out: Some(out), .. } = audio {
                out.give_up_to(now, upto);
            }
        }
    }

    // ── out ─────────────────────────────────────────────────────────────────────────────────────────────────────

    /// Source pictures whose ladder is published and whose audio has come, then audio whose picture is published.
    pub fn release(&mut self, now: Mono) {
        self.declare_captions();
        // A ladder that is being built has no edge yet: nothing is published before it.
        let ladder = self.video.is_some().then(|| self.ladder.last().map_or((0, 0), LadderTrack::part_edge));
        let audio = self.audio.iter().filter_map(|audio| match audio {
            Audio::Passed { out, .. } | Audio::Encoded { out: Some(out), .. } => Some(out.part_edge()),
            _ => None,
        });
        let beside = audio.chain(ladder).min();
        self.source.iter_mut().for_each(|source| source.release(now, beside));
        let edge = self.source.as_ref().map(|source| source.edge).or(ladder);
        for audio in &mut self.audio {
            if let Audio::Passed { out, .. } | Audio::Encoded { out: Some(out), .. } = audio {
                out.release(now, edge);
            }
        }
    }

    pub fn deadline(&self) -> Option<Mono> {
        let tracks = self.audio.iter().filter_map(|a| match a {
            Audio::Passed { out, .. } | Audio::Encoded { out: Some(out), .. } => out.deadline(),
            _ => None,
        });
        let source = self.source.as_ref().and_then(|s| s.waiting.front()).map(|(came, _)| *came + SOURCE_WAIT);
        tracks.chain(source).min()
    }

    /// Metrics of what was published since the last call. True if any media was.
    pub fn report(&mut self, now: Now, channel: &ChannelName) -> bool {
        let mut any = false;
        let mut index = 0;
        let (grid, line) = (self.grid, self.line);
        let mut totals = std::mem::take(&mut self.published);
        let mut last = self.last_part;
        self.segmenters(|segmenter| {
            let output = Arc::clone(segmenter.output());
            totals.resize(totals.len().max(index + 1), 0.0);
            while let Some(part) = segmenter.poll() {
                totals[index] += part.duration as f64 / f64::from(segmenter.timescale());
                if !part.gap {
                    any = true;
                    last = Some(part);
                    report_part(now, channel, &output, &part, &grid, line);
                }
            }
            index += 1;
        });
        self.published = totals;
        self.last_part = last;
        any
    }

    /// Every rendition has enough for a player to start.
    pub fn is_live(&self) -> bool {
        let enough = if self.targets.parts {
            f64::from(self.targets.part_hold_back_ms) / 1000.0
        } else {
            f64::from(self.grid.cadence.segment) / self.grid.cadence.rate.hz()
        };
        !self.published.is_empty()
            && self.published.len() == self.output.renditions().len()
            && self.published.iter().all(|seconds| *seconds + 0.05 >= enough)
    }

    pub fn last_msn(&self) -> u64 {
        let edge = self.output.renditions().iter().filter_map(|r| r.facts().last).map(|(msn, _)| msn).max();
        edge.unwrap_or(self.grid.msn0)
    }

    /// PDT of the newest frame minus the wall clock, seconds: never above zero.
    pub fn pdt_error(&self, now: Now) -> Option<f64> {
        (self.seen >= 0).then(|| (self.line.at(&self.grid, self.seen).0 - now.wall.0) as f64 / 1e9)
    }

    pub fn end(&mut self, now: Now) {
        let over = self.line.nanos_of(&self.grid, now.wall).saturating_add(999).saturating_mul(9) / 100_000;
        let now = now.mono;
        let edge = self.ladder.iter().map(LadderTrack::edge).max();
        if let Some(edge) = edge {
            self.ladder.iter_mut().for_each(|track| track.follow(now, edge));
        }
        self.ladder.iter_mut().for_each(|track| track.end(now));
        if let Some(source) = &mut self.source {
            source.release(now, None);
            source.segmenter.end(now);
        }
        for audio in &mut self.audio {
            if let Audio::Passed { out, .. } | Audio::Encoded { out: Some(out), .. } = audio {
                out.end(now, over);
            }
        }
        self.output.end();
    }

    pub fn rendition_name(&self, index: RenditionIndex) -> String {
        let open = self.video.as_ref().and_then(|v| v.renditions.get(usize::from(index)));
        open.map_or_else(|| index.to_string(), |r| r.name.clone())
    }

    /// One line for the log.
    pub fn describe(&self) -> String {
        let c = self.grid.cadence;
        let mut text = format!("grid {}/{} fps, F {} P {}", c.rate.num, c.rate.den, c.segment, c.part);
        if let Some(video) = &self.video {
            let source = &video.source;
            text.push_str(&format!("; source {}x{}", source.width, source.height));
            if let Some(part) = video.crop.part_of(source.width, source.height).filter(|_| !video.crop.is_nothing()) {
                text.push_str(&format!(", {}x{} of it shown", part.width, part.height));
            }
            text.push_str("; ladder");
            for r in &video.renditions {
                text.push_str(&format!(" {} ({}x{}, {} kb/s)", r.name, r.width, r.height, r.bitrate / 1000));
            }
        }
        if let Some(source) = &self.source {
            text.push_str(&format!("; source passed through {}x{}", source.config.width, source.config.height));
        }
        for audio in &self.audio {
            match audio {
                Audio::Passed { config, .. } => text.push_str(&format!("; audio passed, {} Hz", config.sample_rate)),
                Audio::Encoded { config, .. } => text.push_str(&format!("; audio {:?} re-encoded", config.codec)),
                Audio::Absent => text.push_str("; an audio track without headers is left out"),
            }
        }
        text
    }

    // ── helpers ─────────────────────────────────────────────────────────────────────────────────────────────────

    /// Shed and late renditions keep their numbers by GAP behind the lowest one's edge.
    fn follow(&mut self, now: Mono) {
        let lowest = self.video.as_ref().map_or(0, |video| protocol::lowest(&video.renditions));
        let Some(edge) = self.ladder.get(lowest).map(LadderTrack::edge) else { return };
        self.ladder.iter_mut().for_each(|track| track.follow(now, edge));
    }

    fn segmenters(&mut self, mut act: impl FnMut(&mut Segmenter)) {
        self.source.iter_mut().for_each(|source| act(&mut source.segmenter));
        self.ladder.iter_mut().for_each(|track| act(track.segmenter()));
        for audio in &mut self.audio {
            if let Audio::Passed { out, .. } | Audio::Encoded { out: Some(out), .. } = audio {
                act(out.segmenter());
            }
        }
    }
}

impl Source {
    /// Publishes what lies before part `beside` or has waited long enough; everything if there is nothing beside it.
    fn release(&mut self, now: Mono, beside: Option<(u64, u32)>) {
        while let Some((_, next)) = self.waiting.pop_front_if(|(came, next)| {
            let place = next.place();
            let due = beside.is_none_or(|edge| (place.msn, place.part) < edge);
            due || now - *came >= SOURCE_WAIT
        }) {
            let place = next.place();
            self.breaks.apply(now, place.msn, &mut self.segmenter);
            // Sound behind the last part of a segment is ahead: it comes with the next one.
            self.edge = if place.ends == Ends::Segment { (place.msn, place.part + 1) } else { place.edge() };
            match next {
                Waiting::Sample(sample) => self.publish(now, *sample),
                Waiting::Gap(place, ends) => self.gap(now, place, ends),
            }
        }
    }

    fn pick(&mut self, sample: &SourceSample, grid: Grid) {
        if let Some(picker) = self.picker.as_mut().filter(|_| sample.unit.random_access && !sample.unit.damaged) {
            picker.offer(grid.cadence.rate.frames(sample.dts + i64::from(sample.cto)), &sample.unit.data);
        }
    }

    fn publish(&mut self, now: Mono, sample: SourceSample) {
        let stamps = Stamps { received: sample.unit.received, ..Stamps::default() };
        let data = h264::to_length_prefixed(&sample.unit.data);
        let (dts, duration, cto, sync) = (sample.dts, sample.duration, sample.cto, sample.unit.random_access);
        self.segmenter.push(now, Sample { dts, duration, cto, sync, data, stamps }, sample.place);
    }

    /// First segment of which nothing has come.
    fn unbegun(&self) -> u64 {
        self.waiting.back().map_or(self.edge, |(_, next)| next.place().edge()).0 + 1
    }

    /// The part at `place` has nothing up to its end.
    fn gap(&mut self, now: Mono, place: Place, ends: i64) {
        self.segmenter.gap_to(now, (place.msn, place.part + 1), ends);
        if place.ends == Ends::Segment {
            self.segmenter.gap(now, (place.msn + 1, 0));
        }
    }
}

fn report_part(
    now: Now,
    channel: &ChannelName,
    output: &RenditionOutput,
    part: &PartPublished,
    grid: &Grid,
    line: PdtLine,
) {
    let label = Label::Channel(channel.as_str());
    count(Metric::PartsPublished, &[label, Label::Rendition(output.name())], 1);
    gauge(Metric::LastPartPublished, &[label], now.wall.0 as f64 / 1e9);
    if part.stamps.received > Mono(0) {
        let whole = (part.published - part.stamps.received).as_secs_f64();
        observe(Metric::PipelineLatency, &[label, Label::Stage("whole")], whole);
    }
    let end = grid.part_end(first_frame(grid, part));
    let late = (now.wall.0 - line.at(grid, end).0) as f64 / 1e9;
    observe(Metric::PartPublishLateness, &[label], late.max(0.0));
}

fn first_frame(grid: &Grid, part: &PartPublished) -> i64 {
    grid.first_frame(part.msn) + i64::from(part.part) * i64::from(grid.cadence.part)
}
