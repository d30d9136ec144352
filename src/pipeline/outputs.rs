//! One rendition's way from encoded frames to its segmenter: decode order, holes, late encoders, successors.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::bitstream::aac::silence;
use crate::media::grid::{Ends, Grid, Place};
use crate::media::sample::{Sample, Stamps};
use crate::media::track::AudioConfig;
use crate::package::fmp4::init::InitSection;
use crate::package::segmenter::{PartPublished, Segmenter};
use crate::pixels::protocol::Encoded;
use crate::time::Mono;

/// What the encoder of a rendition is doing, as far as its output tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    Running,
    /// A successor or a late encoder begins with an IDR at this frame or later; frames before it are dropped.
    Awaiting {
        idr: i64,
    },
    /// Off until told otherwise: parts become GAP as the ladder's edge passes them.
    Shed,
    /// As `Shed`, but an IDR at this frame ends it.
    Returning {
        idr: i64,
    },
}

/// One ladder rendition.
pub struct LadderTrack {
    segmenter: Segmenter,
    grid: Grid,
    /// Decode-order index of the next frame: all before it are published or in the open part.
    next: i64,
    flow: Flow,
    /// Shed from this frame on; frames before it still come.
    shed_from: Option<i64>,
    breaks: Breaks,
}

/// DISCONTINUITYs to come: what one rendition needs, all get before the same segment.
#[derive(Debug, Default)]
pub struct Breaks(VecDeque<Break>);

#[derive(Debug)]
struct Break {
    msn: u64,
    init: Option<InitSection>,
    /// N jumps there: the segment before it ends with what it has.
    jump: bool,
}

impl Breaks {
    /// Segment `msn` begins behind a DISCONTINUITY, with another init section if one is given.
    pub fn plan(&mut self, msn: u64, init: Option<InitSection>) {
        self.0.push_back(Break { msn, init, jump: false });
    }

    /// The same, where another run begins. Its line has the segmenter already, with all that was learnt of it since.
    pub fn plan_jump(&mut self, msn: u64, init: Option<InitSection>) {
        self.0.push_back(Break { msn, init, jump: true });
    }

    /// Nothing will ever come of the init sections that are planned; their segments begin behind a DISCONTINUITY all the
    /// same, as those beside them do.
    fn forget_inits(&mut self) {
        self.0.iter_mut().for_each(|due| due.init = None);
    }

    /// N jumps to segment `msn`.
    fn jumps_to(&self, msn: u64) -> bool {
        self.0.iter().any(|due| due.jump && due.msn == msn)
    }

    /// N jumps on the way from segment `from` to segment `to`.
    fn jump_between(&self, from: u64, to: u64) -> bool {
        self.0.iter().any(|due| due.jump && (from + 1..=to).contains(&due.msn))
    }

    /// The next sample lies in segment `msn`.
    pub fn apply(&mut self, now: Mono, msn: u64, segmenter: &mut Segmenter) {
        while let Some(due) = self.0.pop_front_if(|b| b.msn <= msn) {
            // Whichever was planned first: no time passes in front of a jump.
            if due.jump || self.jumps_to(due.msn) {
                segmenter.cut_short(now);
            }
            segmenter.gap(now, (due.msn, 0));
            segmenter.discontinuity(now, due.init);
        }
    }
}

impl LadderTrack {
    pub fn new(segmenter: Segmenter, grid: Grid, first: i64) -> LadderTrack {
        LadderTrack {
            segmenter,
            grid,
            next: first,
            flow: Flow::Awaiting { idr: first },
            shed_from: None,
            breaks: Breaks::default(),
        }
    }

    pub fn segmenter(&mut self) -> &mut Segmenter {
        &mut self.segmenter
    }

    pub fn poll(&mut self) -> Option<PartPublished> {
        self.segmenter.poll()
    }

    /// The init section that holds now.
    pub fn init(&self) -> &InitSection {
        self.segmenter.init()
    }

    /// First frame of the part that is not published yet.
    pub fn part_start(&self) -> i64 {
        self.grid.part_start(self.next)
    }

    /// First frame that a successor of its encoder makes again: that of the part which is not published yet. Where parts
    /// are not listed, that of the open GOP: their encoders reorder frames, and only a GOP can be cut off cleanly.
    pub fn restart_start(&self) -> i64 {
        if self.segmenter.output().spec().targets.parts { self.part_start() } else { self.grid.gop_start(self.next) }
    }

    /// Frames before this one are published or in the open part.
    pub fn edge(&self) -> i64 {
        self.next
    }

    /// The part that holds it: all parts before that one are published.
    pub fn part_edge(&self) -> (u64, u32) {
        let place = self.grid.place_frame(self.next);
        (place.msn, place.part)
    }

    pub fn is_flowing(&self) -> bool {
        matches!(self.flow, Flow::Running | Flow::Awaiting { .. })
    }

    /// An encoded frame, in decode order.
    pub fn push(&mut self, now: Mono, frame: &Encoded) {
        if self.shed_from.is_some_and(|from| frame.at >= from) {
            return self.shed_now();
        }
        match self.flow {
            Flow::Running => {}
            Flow::Shed => return,
            Flow::Awaiting { idr } | Flow::Returning { idr } => {
                if !frame.sync || frame.at < idr {
                    return;
                }
                self.flow = Flow::Running;
            }
        }
        if frame.sync && frame.at > self.next && !self.breaks.jumps_to(self.grid.msn_of(frame.at)) {
            // The encoder skipped: what lies between was made by nobody.
            self.segmenter.abandon();
            self.gap_to(now, frame.at);
        }
        let d = if frame.sync { frame.at } else { self.next };
        if d < self.next {
            return;
        }
        let den = i64::from(self.grid.cadence.frame_ticks());
        let sample = Sample {
            dts: d * den,
            duration: self.grid.cadence.frame_ticks(),
            cto: i32::try_from((frame.at - d) * den).unwrap_or(0),
            sync: frame.sync,
            data: frame.data.clone(),
            stamps: frame.stamps,
        };
        let place = self.grid.place_frame(d);
        self.breaks.apply(now, place.msn, &mut self.segmenter);
        self.segmenter.push(now, sample, place);
        self.next = d + 1;
    }

    /// Another run begins with segment `msn`, behind a DISCONTINUITY.
    pub fn jump_to(&mut self, msn: u64) {
        self.breaks.plan_jump(msn, None);
    }

    /// Segment `msn` begins behind a DISCONTINUITY.
    pub fn break_from(&mut self, msn: u64) {
        self.breaks.plan(msn, None);
    }

    /// First segment of which nothing has come.
    pub fn unbegun(&self) -> u64 {
        self.grid.msn_of(self.next + i64::from(self.grid.cadence.segment) - 1)
    }

    /// A worker with other parameter sets took over: another init section from the next segment on.
    pub fn reinit(&mut self, now: Mono, init: InitSection) {
        self.segmenter.discontinuity(now, Some(init));
        let next = self.grid.segment_start(self.next);
        if next < self.next {
            self.next = next + i64::from(self.grid.cadence.segment);
            self.flow = Flow::Awaiting { idr: self.next };
        }
    }

    /// Goes on with the segment that begins at frame `n`, behind a DISCONTINUITY.
    pub fn break_at(&mut self, now: Mono, n: i64) {
        self.gap_to(now, n);
        self.segmenter.break_here();
        self.flow = Flow::Awaiting { idr: n };
    }

    /// The encoder's queue was full; it goes on with an IDR at `resumes`. The part under way is lost.
    pub fn late(&mut self, resumes: i64) {
        if matches!(self.flow, Flow::Running | Flow::Awaiting { .. }) && self.shed_from.is_none() {
            self.segmenter.abandon();
            self.next = self.part_start();
            self.flow = Flow::Returning { idr: resumes };
        }
    }

    /// The governor takes it off from frame `from` on.
    pub fn shed(&mut self, from: i64) {
        match self.flow {
            Flow::Running | Flow::Awaiting { .. } => self.shed_from = Some(from),
            Flow::Returning { .. } => self.shed_now(),
            Flow::Shed => {}
        }
        self.segmenter.output().set_shed(true);
    }

    /// It comes back with an IDR at `idr`.
    pub fn resume(&mut self, idr: i64) {
        self.shed_from = None;
        self.flow = Flow::Returning { idr };
    }

    /// A successor of the worker will make it again from `restart_start` on. Shed renditions stay as they are.
    pub fn restart(&mut self) {
        let idr = self.restart_start();
        if self.is_flowing() {
            if self.segmenter.output().spec().targets.parts {
                self.segmenter.abandon();
            } else {
                let place = self.grid.place_frame(idr);
                self.segmenter.take_back((place.msn, place.part));
            }
            self.next = idr;
            self.flow = Flow::Awaiting { idr };
        } else if let Flow::Returning { idr: old } = self.flow {
            self.flow = Flow::Returning { idr: old.max(idr) };
        }
    }

    /// The ladder's edge has reached frame `edge`: what this rendition will never have becomes GAP up to there.
    pub fn follow(&mut self, now: Mono, edge: i64) {
        if let Some(from) = self.shed_from
            && edge >= self.grid.part_end(from)
        {
            self.shed_now();
        }
        let upto = match self.flow {
            Flow::Running | Flow::Awaiting { .. } => return,
            Flow::Shed => edge,
            Flow::Returning { idr } => edge.min(idr),
        };
        let upto = self.grid.part_start(upto);
        if upto > self.next {
            self.gap_to(now, upto);
        }
    }

    /// It produces again: back into the multivariant playlist.
    pub fn unmark_shed(&mut self) {
        if self.flow == Flow::Running && self.shed_from.is_none() && self.segmenter.output().is_shed() {
            self.segmenter.output().set_shed(false);
        }
    }

    /// Nobody produces anything: GAP up to the part that holds `frame`, the next IDR is awaited from there on.
    pub fn give_up_to(&mut self, now: Mono, frame: i64) {
        let upto = self.grid.part_start(frame);
        if upto > self.next {
            self.segmenter.abandon();
            self.gap_to(now, upto);
            if self.is_flowing() {
                self.flow = Flow::Awaiting { idr: upto };
            }
        }
    }

    pub fn end(&mut self, now: Mono) {
        self.segmenter.end(now);
    }

    fn shed_now(&mut self) {
        self.segmenter.abandon();
        self.next = self.part_start();
        self.shed_from = None;
        self.flow = Flow::Shed;
    }

    fn gap_to(&mut self, now: Mono, frame: i64) {
        let place = self.grid.place_frame(frame);
        self.segmenter.gap(now, (place.msn, place.part));
        self.next = frame;
    }
}

/// One audio rendition on the 1024-sample grid. Its frames wait until the picture beside them is published, so that
/// no player sees one playlist's edge run ahead of the other's; never longer than `AUDIO_WAIT`.
pub struct AudioTrack {
    segmenter: Segmenter,
    grid: Grid,
    rate: u32,
    /// A frame of silence, for holes in passed-through audio.
    silence: Option<Bytes>,
    waiting: VecDeque<AudioFrame>,
    next: i64,
    came: (u64, u32),
    /// The part of the last frame, and when it begins.
    open: Option<(Place, i64)>,
    former: Option<Former>,
    /// What comes cannot be passed through: silence stands for it.
    muted: bool,
    breaks: Breaks,
}

/// The configuration that holds up to segment `until`: silence stands there for frames that are of another one.
struct Former {
    until: u64,
    rate: u32,
    silence: Option<Bytes>,
    next: i64,
}

impl Former {
    /// First frame that starts at `time` or behind it, 90 kHz.
    fn frame_at(&self, time: i64) -> i64 {
        (time * i64::from(self.rate) + FRAME - 1).div_euclid(FRAME)
    }
}

struct AudioFrame {
    m: i64,
    /// When it starts, 90 kHz from N = 0.
    time: i64,
    place: Place,
    data: Bytes,
    stamps: Stamps,
    came: Mono,
}

/// A longer hole in passed-through audio becomes GAP, not silence: 10 s.
const SILENCE_FRAMES_MAX: i64 = 470;
/// 1024 samples, 90 kHz x samples per second.
const FRAME: i64 = 1_024 * 90_000;
/// Audio that waited this long for its picture is published without it.
const AUDIO_WAIT: std::time::Duration = std::time::Duration::from_millis(2_500);

impl AudioTrack {
    pub fn new(segmenter: Segmenter, grid: Grid, rate: u32, silence: Option<Bytes>) -> AudioTrack {
        AudioTrack {
            segmenter,
            grid,
            rate,
            silence,
            waiting: VecDeque::new(),
            next: 0,
            came: (0, 0),
            open: None,
            former: None,
            muted: false,
            breaks: Breaks::default(),
        }
    }

    /// Goes on with frame `m` in `part`.
    pub fn resume(&mut self, part: (u64, u32), m: i64) {
        (self.next, self.came) = (m, part);
    }

    /// Goes on with the segment that begins at frame `n`, behind a DISCONTINUITY.
    pub fn break_at(&mut self, now: Mono, n: i64) {
        let part = (self.grid.msn_of(n), 0);
        self.segmenter.gap(now, part);
        self.segmenter.break_here();
        self.resume(part, self.grid.audio_at_frame(n, self.rate));
    }

    pub fn segmenter(&mut self) -> &mut Segmenter {
        &mut self.segmenter
    }

    pub fn poll(&mut self) -> Option<PartPublished> {
        self.segmenter.poll()
    }

    /// Frame `m`, placed by the grid; silence where frames before it are missing. Frames before the session's first, and
    /// repeated ones, are dropped.
    pub fn push(&mut self, now: Mono, m: i64, data: Bytes, stamps: Stamps) {
        if let Some(silence) = self.silence.clone().filter(|_| m - self.next <= SILENCE_FRAMES_MAX) {
            for missing in self.next..m {
                self.push_on_grid(now, missing, silence.clone(), stamps);
            }
        }
        self.push_on_grid(now, m, data, stamps);
    }

    fn push_on_grid(&mut self, now: Mono, m: i64, data: Bytes, stamps: Stamps) {
        let first = self.grid.part_start(self.grid.frame_at_audio(m, self.rate));
        let begins = self.grid.cadence.rate.ticks(first);
        self.push_placed(now, m, (self.grid.place_audio(m, self.rate), begins), data, stamps);
    }

    /// Frame `m`, in a part that begins at 90 kHz `at.1`.
    pub fn push_placed(&mut self, now: Mono, m: i64, at: (Place, i64), data: Bytes, stamps: Stamps) {
        let (place, begins) = at;
        if m < self.next {
            return;
        }
        if let Some(until) = self.former.as_ref().map(|former| former.until) {
            let here = if place.msn < until { m * FRAME / i64::from(self.rate.max(1)) } else { begins };
            self.push_former(now, at, here, stamps);
            if place.msn < until {
                (self.next, self.came) = (m + 1, place.edge());
                return;
            }
            self.former = None;
        }
        self.open = Some(at);
        let data = match &self.silence {
            Some(silence) if self.muted => silence.clone(),
            None if self.muted => return,
            _ => data,
        };
        self.next = m + 1;
        self.came = place.edge();
        let time = m * FRAME / i64::from(self.rate.max(1));
        self.waiting.push_back(AudioFrame { m, time, place, data, stamps, came: now });
    }

    /// The source is away: frame `m` is silent; where no silence is known in this configuration its part becomes GAP.
    pub fn silent(&mut self, now: Mono, m: i64, at: (Place, i64)) {
        match self.silence.clone() {
            Some(silence) => self.push_placed(now, m, at, silence, Stamps::default()),
            None if m >= self.next => {
                self.next = m + 1;
                self.gap(now, at.0.edge(), false);
            }
            None => {}
        }
    }

    /// Nothing comes before part `until`. On the grid the next frame brings its silence with it; else it is GAP, behind
    /// what waits.
    pub fn gap(&mut self, now: Mono, until: (u64, u32), on_grid: bool) {
        if on_grid && self.silence.is_some() {
            return;
        }
        self.release(now, None);
        self.came = self.came.max(until);
        let last = if until.1 > 0 { until.0 } else { until.0.saturating_sub(1) };
        self.breaks.apply(now, last, &mut self.segmenter);
        self.segmenter.gap(now, until);
    }

    /// The part that has not come whole yet.
    pub fn part_edge(&self) -> (u64, u32) {
        self.came
    }

    /// First frame that did not come yet.
    pub fn edge(&self) -> i64 {
        self.next
    }

    /// Publishes what may be: `video_edge` is the part up to which the picture is published (`None`: no picture).
    pub fn release(&mut self, now: Mono, video_edge: Option<(u64, u32)>) {
        while let Some(frame) = self.waiting.front() {
            let due = video_edge.is_none_or(|edge| (frame.place.msn, frame.place.part) < edge);
            let patient = now - frame.came < AUDIO_WAIT;
            if !due && patient {
                return;
            }
            let Some(frame) = self.waiting.pop_front() else { return };
            self.publish(now, frame);
        }
    }

    /// What comes from now on can (not) be passed through.
    pub fn mute(&mut self, muted: bool) {
        self.muted = muted;
    }

    /// First segment of which nothing may have come.
    pub fn unbegun(&self) -> u64 {
        self.came.0 + 1
    }

    /// Segment `msn` begins behind a DISCONTINUITY.
    pub fn break_from(&mut self, msn: u64) {
        self.breaks.plan(msn, None);
    }

    /// Another configuration from segment `msn` on, of which nothing has come; silence up to there.
    pub fn reconfigure(&mut self, msn: u64, config: &AudioConfig, init: InitSection) {
        let silence = silence::frame(config.channels).map(Bytes::from_static);
        // The change before this one has its segment by now, or it never gets one.
        self.former.take_if(|former| former.until <= self.came.0);
        if self.former.is_some() {
            self.breaks.forget_inits();
        }
        let former = Former { until: msn, rate: self.rate, silence: self.silence.take(), next: self.next };
        self.next = self.next * i64::from(config.sample_rate) / i64::from(self.rate.max(1));
        (self.rate, self.silence) = (config.sample_rate, silence);
        self.former.get_or_insert(former).until = msn;
        self.breaks.plan(msn, Some(init));
    }

    /// Silence in the former configuration: what is left of the open part if this one is another, and of this one what
    /// starts before `here`. Each frame is in the part in which it starts.
    fn push_former(&mut self, now: Mono, at: (Place, i64), here: i64, stamps: Stamps) {
        let part = |place: Place| (place.msn, place.part);
        let open = self.open.replace(at).filter(|open| part(open.0) != part(at.0));
        let Some(former) = &self.former else { return };
        let here = (at.0, former.frame_at(at.1)..former.frame_at(here));
        // No part is longer than the grid's.
        let longest = self.grid.cadence.rate.ticks(i64::from(self.grid.cadence.part));
        let left = open.filter(|(before, _)| !self.breaks.jump_between(before.msn, at.0.msn));
        let left =
            left.map(|(place, begins)| (place, former.frame_at(begins)..former.frame_at(at.1.min(begins + longest))));
        for (place, frames) in left.into_iter().chain([here]) {
            self.silence_former(now, place, frames, stamps);
        }
    }

    fn silence_former(&mut self, now: Mono, place: Place, frames: std::ops::Range<i64>, stamps: Stamps) {
        let Some(former) = &mut self.former else { return };
        let Some(silence) = former.silence.clone() else { return };
        let place = Place { ends: Ends::Nothing, ..place };
        for m in former.next.max(frames.start)..frames.end {
            let time = m * FRAME / i64::from(former.rate.max(1));
            self.waiting.push_back(AudioFrame { m, time, place, data: silence.clone(), stamps, came: now });
        }
        former.next = former.next.max(frames.end);
    }

    /// Another run begins with segment `msn`, behind a DISCONTINUITY.
    pub fn jump_to(&mut self, msn: u64) {
        self.breaks.plan_jump(msn, None);
    }

    pub fn deadline(&self) -> Option<Mono> {
        self.waiting.front().map(|f| f.came + AUDIO_WAIT)
    }

    /// Nothing more comes for frames before video frame `n`: GAP.
    pub fn give_up_to(&mut self, now: Mono, n: i64) {
        if self.waiting.is_empty() {
            let upto = self.grid.part_start(n);
            let m = self.grid.audio_at_frame(upto, self.rate);
            if m > self.next {
                let place = self.grid.place_audio(m, self.rate);
                self.segmenter.gap(now, (place.msn, place.part));
                self.next = m;
            }
        }
    }

    /// Sound that is ahead of its time, `over` in 90 kHz, comes no more: no date lies in the future.
    pub fn end(&mut self, now: Mono, over: i64) {
        self.waiting.retain(|frame| frame.time <= over);
        self.release(now, None);
        self.segmenter.end(now);
    }

    fn publish(&mut self, now: Mono, frame: AudioFrame) {
        let sample =
            Sample { dts: frame.m * 1024, duration: 1024, cto: 0, sync: true, data: frame.data, stamps: frame.stamps };
        self.breaks.apply(now, frame.place.msn, &mut self.segmenter);
        self.segmenter.push(now, sample, frame.place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::channel::SessionId;
    use crate::media::grid::{Cadence, PdtLine};
    use crate::media::modes::LatencyMode;
    use crate::media::track::Codec;
    use crate::package::fmp4::read;
    use crate::package::segmenter::Cut;
    use crate::package::window::{
        Answer, Before, Directives, Kind, RETAINED_BYTES_MAX, RenditionOutput, RenditionSpec, Targets,
    };
    use crate::time::Wall;

    fn config(sample_rate: u32) -> AudioConfig {
        let asc = Bytes::from_static(&[0x11, 0x90]);
        AudioConfig { codec: Codec::Aac, object_type: 2, sample_rate, channels: 2, asc }
    }

    fn track(silent: bool) -> AudioTrack {
        AudioTrack { silence: silence::frame(2).map(Bytes::from_static).filter(|_| silent), ..track_at(25.0, 48_000) }
    }

    fn track_at(hz: f64, rate: u32) -> AudioTrack {
        let grid = Grid { cadence: Cadence::for_rate(hz, LatencyMode::Ultra), msn0: 100 };
        let line = PdtLine { from_n: 0, wall: Wall(0), ppm: 0 };
        let config = config(rate);
        let output = RenditionOutput::new(RenditionSpec {
            session: SessionId::new(ulid::Ulid::from_parts(1, 1)),
            name: "a-und-1".into(),
            kind: Kind::Audio { language: None, default: true, role: Default::default() },
            targets: Targets::ladder(LatencyMode::Ultra, grid.cadence, None),
            independent_segments: true,
            bandwidth_cap: 128_000,
            retained_bytes_max: RETAINED_BYTES_MAX,
            before: Before::default(),
        });
        let segmenter = Segmenter::new(output, InitSection::audio(&config, 128_000), Cut::Audio, grid, line);
        AudioTrack::new(segmenter, grid, rate, silence::frame(2).map(Bytes::from_static))
    }

    /// Frames 0 to 9 and from 60 on, with the timeline's word that whole parts between them are empty; the parts.
    fn with_a_hole(silent: bool) -> Vec<PartPublished> {
        let (mut track, now) = (track(silent), Mono(1_000_000_000));
        let frame = Bytes::from_static(&[1; 100]);
        for m in (0..10).chain(60..120) {
            if m == 60 {
                track.gap(now, (100, 3), true);
            }
            track.push(now, m, frame.clone(), Stamps::default());
        }
        track.release(now, None);
        std::iter::from_fn(|| track.poll()).collect()
    }

    #[test]
    fn a_hole_in_passed_audio_is_silence_and_no_gap() {
        let parts = with_a_hole(true);
        assert!(parts.iter().all(|part| !part.gap), "{parts:?}");
        let samples: usize = parts.iter().map(|part| part.samples).sum();
        assert!(parts.len() >= 5 && samples >= 94, "each frame of the grid is there: {parts:?}");
    }

    #[test]
    fn without_silence_a_gap_stands_behind_the_frames_that_wait() {
        let parts = with_a_hole(false);
        assert_eq!(parts[0].samples, 10, "what waited came before the hole: {parts:?}");
        assert!(parts[1..3].iter().all(|part| part.gap), "{parts:?}");
    }

    /// 48 kHz, then 44.1 kHz from the middle of a segment on.
    #[test]
    fn another_configuration_begins_with_a_segment_and_silence_leads_up_to_it() {
        let (mut track, now) = (track(true), Mono(1_000_000_000));
        let frame = Bytes::from_static(&[1; 100]);
        for m in 0..40 {
            track.push(now, m, frame.clone(), Stamps::default());
        }
        let msn = track.unbegun();
        assert_eq!(msn, 101);
        let config = config(44_100);
        let init = InitSection::audio(&config, 128_000);
        track.reconfigure(msn, &config, init.clone());
        // Frame 36 at 44.1 kHz stands where frame 40 at 48 kHz would.
        for m in 37..180 {
            track.push(now, m, frame.clone(), Stamps::default());
        }
        track.release(now, None);
        let parts: Vec<_> = std::iter::from_fn(|| track.poll()).collect();
        assert!(parts.iter().all(|part| !part.gap), "{parts:?}");
        let first: u64 = parts.iter().filter(|p| p.msn == 100).map(|p| p.duration).sum();
        assert!((93 * 1024..=94 * 1024).contains(&first), "the first segment is whole: {first}");
        assert_eq!(track.segmenter().init(), &init);
        let Answer::Now(text) = track.segmenter().output().playlist(now, now, &Directives::default()) else { panic!() };
        let text = String::from_utf8(text.plain.to_vec()).unwrap();
        let (before, after) = text.split_once("#EXT-X-DISCONTINUITY\n").expect("a DISCONTINUITY");
        assert!(before.contains("/s100.m4s") && !before.contains("101") && after.contains("init-1.mp4"), "{text}");
    }

    /// 48 kHz, then 44.1 kHz and back, the second time before the first change has its segment, the third long after.
    #[test]
    fn each_change_of_the_configuration_is_from_the_one_before_it() {
        let (mut track, now) = (track(true), Mono(1_000_000_000));
        let frame = Bytes::from_static(&[1; 100]);
        let (mut rate, mut seconds) = (48_000i64, 0);
        for change in [0i64, 44_100, 48_000, 0, 0, 44_100, 0, 0, 48_000, 0, 0] {
            if change > 0 {
                let (to, msn) = (config(u32::try_from(change).unwrap()), track.unbegun());
                track.reconfigure(msn, &to, InitSection::audio(&to, 128_000));
                rate = change;
            }
            // A second of it.
            for m in seconds * rate / 1_024 + 1..=(seconds + 1) * rate / 1_024 {
                track.push(now, m, frame.clone(), Stamps::default());
            }
            seconds += 1;
        }
        track.release(now, None);
        track.segmenter().end(now);
        let Answer::Now(text) = track.segmenter().output().playlist(now, now, &Directives::default()) else { panic!() };
        let text = String::from_utf8(text.plain.to_vec()).unwrap();
        let lasts: Vec<f64> =
            text.lines().filter_map(|line| line.strip_prefix("#EXTINF:")?.trim_end_matches(',').parse().ok()).collect();
        assert!(lasts.len() >= 5 && lasts[..lasts.len() - 1].iter().all(|s| (1.9..2.1).contains(s)), "{text}");
        let dates: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("#EXT-X-PROGRAM-DATE-TIME:")).collect();
        assert!(dates.is_sorted(), "{text}");
    }

    /// Each segment's fragments follow each other, and only its last one may be shorter than 85 % of PART-TARGET.
    fn assert_whole(track: &mut AudioTrack, rates: &[u64]) {
        let target = u64::from(track.segmenter().output().spec().targets.part_target_ms);
        let output = std::sync::Arc::clone(track.segmenter().output());
        for (msn, rate) in (100..).zip(rates) {
            let Answer::Now(media) = output.segment(Mono(0), Mono(0), msn) else { panic!("segment {msn}") };
            let fragments = read::fragments(&Bytes::from(media.chunks.concat())).unwrap();
            for (part, two) in fragments.windows(2).enumerate() {
                assert_eq!(two[0].end(), two[1].start, "behind part {msn}.{part}");
                let lasts = two[0].duration() * 100_000 / rate;
                assert!((target * 85..=target * 100).contains(&lasts), "part {msn}.{part} lasts {lasts} of {target}");
            }
        }
    }

    /// From every frame of a segment on, from one rate to the other.
    #[test]
    fn up_to_another_rate_every_part_is_whole() {
        for (before, after) in [(48_000u32, 44_100u32), (44_100, 48_000), (32_000, 48_000), (48_000, 32_000)] {
            for (hz, change) in [25.0, 29.97, 24.0].into_iter().flat_map(|hz| (1..94i64).map(move |at| (hz, at))) {
                let (mut track, now) = (track_at(hz, before), Mono(1_000_000_000));
                let frame = Bytes::from_static(&[1; 100]);
                let change = change * i64::from(before) / 48_000;
                (0..change).for_each(|m| track.push(now, m, frame.clone(), Stamps::default()));
                let to = config(after);
                track.reconfigure(102, &to, InitSection::audio(&to, 128_000));
                let first = change * i64::from(after) / i64::from(before) + 1;
                (first..400).for_each(|m| track.push(now, m, frame.clone(), Stamps::default()));
                track.release(now, None);
                track.segmenter().end(now);
                let [before, after] = [before, after].map(u64::from);
                assert_whole(&mut track, &[before, before, after]);
            }
        }
    }

    #[test]
    fn a_run_is_dated_by_what_was_learnt_of_it_before_it_is_published() {
        let (mut track, now) = (track(true), Mono(1_000_000_000));
        let (grid, frame) = (track.grid, Bytes::from_static(&[1; 100]));
        let line = |wall| PdtLine { from_n: 100, wall: Wall(wall), ppm: 0 };
        let push = |track: &mut AudioTrack, m| {
            track.push_placed(now, m, (grid.place_audio(m, 48_000), 0), frame.clone(), Stamps::default());
        };
        (0..40).for_each(|m| push(&mut track, m));
        track.segmenter().date_line(line(9_000_000_000));
        track.jump_to(102);
        // Its first frame was late.
        track.segmenter().date_line(line(8_600_000_000));
        let first = grid.audio_at_frame(100, 48_000);
        (first..first + 100).for_each(|m| push(&mut track, m));
        track.release(now, None);
        let Answer::Now(text) = track.segmenter().output().playlist(now, now, &Directives::default()) else { panic!() };
        let text = String::from_utf8(text.plain.to_vec()).unwrap();
        let (_, after) = text.split_once("#EXT-X-DISCONTINUITY\n").expect("a DISCONTINUITY");
        assert!(after.contains("PROGRAM-DATE-TIME:1970-01-01T00:00:08.61"), "{text}");
    }

    #[test]
    fn sound_that_is_ahead_of_its_time_does_not_come_at_the_end() {
        let (mut track, now) = (track(true), Mono(1_000_000_000));
        for m in 0..60 {
            track.push(now, m, Bytes::from_static(&[1; 100]), Stamps::default());
        }
        // Frame 46 starts at 0.981 s, frame 47 at 1.003 s.
        track.end(now, 90_000);
        let samples: usize = std::iter::from_fn(|| track.poll()).map(|part| part.samples).sum();
        assert_eq!(samples, 47);
    }

    #[test]
    fn what_cannot_be_passed_through_is_silence() {
        let (mut track, now) = (track(true), Mono(1_000_000_000));
        track.mute(true);
        for m in 0..94 {
            track.push(now, m, Bytes::from_static(&[1; 100]), Stamps::default());
        }
        track.release(now, None);
        let bytes: usize = std::iter::from_fn(|| track.poll()).map(|part| part.bytes).sum();
        assert!(bytes < 94 * 60, "{bytes}");
    }
}
