//! The timeline of a session: whatever its legs do, each frame is shown once, places go forward, records come first.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use rung::media::access_unit::AccessUnit;
use rung::media::channel::{Channel, ChannelKind, ChannelName};
use rung::media::fault::FaultKind;
use rung::media::grid::{FrameRate, PdtLine, Place, Record, SourceGop, SourceProfile};
use rung::media::marker::{Cue, Tag};
use rung::media::modes::LatencyMode;
use rung::media::track::{AudioRole, Codec, Program, Track, TrackConfig, VideoConfig};
use rung::mpegts::scte35::{Command, SpliceInfo, When};
use rung::package::fmp4::emsg::TimedTag;
use rung::package::player::{Fetch, Player};
use rung::pipeline::stage::Stage;
use rung::time::{Dts, Mono, Now, Pts, Wall};
use rung::timeline::{Facts, Filling, Out, Rules, Timeline};

use crate::Target;
use crate::script::Script;
use crate::seeds;
use crate::targets::packager::{answer, audio_config, session_id, video_config};

const WORDS: &[&[u8]] = &[&[7, 60], &[0, 0, 3], &[1, 0], &[3, 0xFF, 0x7F], &[6, 40], &[2, 0, 0xFF, 0xFF, 0xFF, 0x1F]];

pub(super) const TARGETS: &[Target] = &[
    Target::new("timeline", timeline, seeds::timelines).words(WORDS).longest(600).memory(24 << 20, 4_096).rounds(160),
    Target::new("session", session, seeds::sessions).words(WORDS).longest(120).memory(48 << 20, 4_096).rounds(40),
];

const IDR: &[u8] = &[0, 0, 0, 1, 0x65, 9, 9, 9];
const PICTURE: &[u8] = &[0, 0, 0, 1, 0x41, 9, 9, 9];
const VIDEO: u16 = 0x100;
const SOUND: [u16; 2] = [0x101, 0x102];
const WRAP: i64 = 1 << 33;
const RATES: [FrameRate; 6] = [
    FrameRate::new(25, 1),
    FrameRate::new(30_000, 1_001),
    FrameRate::new(50, 1),
    FrameRate::new(24, 1),
    FrameRate::new(10, 1),
    FrameRate::new(60, 1),
];

/// One encoder.
struct Leg {
    /// 90 kHz, of its next picture.
    clock: i64,
    rate: FrameRate,
    /// Of its pictures. The demuxer takes the codec of a track from the program, headers and units of it alike: they never
    /// disagree.
    codec: Codec,
    gop: i64,
    reorder: bool,
    /// Pictures since it began.
    pictures: i64,
    /// 90 kHz, of its next sounds, and how long one lasts.
    sounds: [i64; 2],
    sound: i64,
}

struct World {
    timeline: Timeline,
    now: Now,
    legs: [Leg; 2],
    watch: Watch,
    source: bool,
    /// What is made of it, and who watches.
    play: Option<Play>,
}

fn timeline(input: &[u8]) {
    let mut script = Script::new(input);
    let kind = script.one_of(&[ChannelKind::Transcode, ChannelKind::Transmux, ChannelKind::Hybrid]);
    run(kind, script, None);
}

/// A channel that passes its source on, up to the player.
fn session(input: &[u8]) {
    let mut script = Script::new(input);
    script.byte();
    run(ChannelKind::Transmux, script, Some(Play::default()));
}

fn run(kind: ChannelKind, mut script: Script<'_>, play: Option<Play>) {
    let mode = script.one_of(&[LatencyMode::Ultra, LatencyMode::Low, LatencyMode::Normal]);
    let flags = script.byte();
    let gop = i64::from(script.byte() % 120) + 1;
    let profile = (flags & 1 != 0).then(|| SourceProfile {
        rate: RATES[usize::from(flags >> 2) % RATES.len()],
        gop: SourceGop::Regular(u32::try_from(gop).unwrap_or(1)),
        captions: Default::default(),
    });
    let last_msn = (flags & 2 != 0).then_some(1_900_000_000);
    let (codec, reorder) = (Codec::H264, flags & 0x80 != 0);
    let leg = |rate| Leg { clock: 0, rate, codec, gop, reorder, pictures: 0, sounds: [0; 2], sound: 1_920 };
    let rate = RATES[usize::from(flags >> 4) % RATES.len()];
    let mut world = World {
        timeline: Timeline::new(Facts { kind, mode, profile, last_msn, rules: Rules::default() }),
        now: Now { mono: Mono(5_000_000_000), wall: Wall(1_800_000_000_000_000_000) },
        legs: [leg(rate), leg(rate)],
        watch: Watch::default(),
        source: kind != ChannelKind::Transcode,
        play,
    };
    if let Some(play) = &mut world.play {
        play.mode = mode;
    }
    while !script.is_over() {
        if !world.act(&mut script) {
            break;
        }
        world.drain();
    }
    world.timeline.finish(world.now);
    world.drain();
    if let Some(play) = &mut world.play {
        play.end(world.now);
    }
}

impl World {
    /// False: the session is over.
    fn act(&mut self, script: &mut Script<'_>) -> bool {
        let op = script.byte();
        let leg = usize::from(op >> 7);
        let number = op >> 7;
        match op & 15 {
            0 => self.join(number, script.byte(), script.byte()),
            1 => self.timeline.leg_left(number),
            2 => self.legs[leg].clock += i64::from(script.u32().cast_signed()) * 4,
            3 => self.wait(u64::from(script.u16()) * 1_000_000),
            4 => self.cue(number, script),
            5 => {
                let at = self.legs[leg].clock + i64::from(script.u16()) * 90 - 90_000;
                let pts = Pts(at.rem_euclid(WRAP));
                self.timeline.tag(number, Tag { pid: 0x1F1, pts, received: self.now.mono, data: b"ID3tag"[..].into() });
            }
            6 => self.timers(usize::from(script.byte())),
            8 => {
                let (a, b, flags) = (script.u32(), script.u32(), script.byte());
                let raw = |n: u32| (self.legs[leg].clock + i64::from(n.cast_signed()) / 64).rem_euclid(WRAP);
                self.unit(number, VIDEO, (raw(a), raw(b)), flags & 1 == 1);
            }
            9 => {
                let at = self.legs[leg].clock + i64::from(script.u32().cast_signed()) / 64;
                let pid = SOUND[usize::from(script.byte() & 1)];
                self.unit(number, pid, (at.rem_euclid(WRAP), at.rem_euclid(WRAP)), true);
            }
            10 => self.configure(number, script.byte()),
            11 => return script.byte() != 0xFF,
            12 => self.legs[leg].sounds[usize::from(script.byte() & 1)] += i64::from(script.u16()) * 16 - 100_000,
            _ => {
                let (pictures, flags) = (script.byte(), op >> 4 & 7);
                for _ in 0..pictures {
                    self.frame(number, flags);
                    self.drain();
                }
            }
        }
        true
    }

    fn pass(&mut self, nanos: u64) {
        self.now.mono = Mono(self.now.mono.0 + nanos);
        self.now.wall = Wall(self.now.wall.0 + nanos.cast_signed());
    }

    /// Time passes, and timers run when they are due.
    fn wait(&mut self, nanos: u64) {
        let until = self.now.mono.0 + nanos;
        for _ in 0..10_000 {
            let deadlines = [self.timeline.deadline(), self.play.as_ref().and_then(Play::deadline)];
            let Some(due) = deadlines.into_iter().flatten().min() else { break };
            // A timer that asks for no time at all gets a little.
            let due = due.0.max(self.now.mono.0 + 1_000_000);
            if due > until {
                break;
            }
            self.pass(due - self.now.mono.0);
            if self.timeline.deadline().is_some_and(|due| due <= self.now.mono) {
                self.timeline.handle_timeout(self.now);
            }
            self.drain();
        }
        self.pass(until.saturating_sub(self.now.mono.0));
        self.drain();
    }

    fn join(&mut self, leg: u8, tracks: u8, config: u8) {
        self.timeline.leg_left(leg);
        self.timeline.leg_joined(leg);
        let codec = [Codec::H264, Codec::H264, Codec::H265, Codec::Mpeg2Video][usize::from(tracks >> 2 & 3)];
        let mut all = Vec::new();
        if tracks & 0x80 == 0 {
            all.push(Track::new(VIDEO, codec));
        }
        for (pid, bit) in SOUND.into_iter().zip([1, 2]) {
            if tracks & bit != 0 {
                let language = (tracks & 0x40 != 0).then(|| "eng".to_owned());
                all.push(Track { language, role: AudioRole::Main, ..Track::new(pid, Codec::Aac) });
            }
        }
        self.timeline.program(leg, &Program { number: 1, pcr_pid: Some(VIDEO), tracks: all });
        let state = &mut self.legs[usize::from(leg)];
        (state.codec, state.pictures) = (codec, 0);
        state.sounds = [state.clock; 2];
        self.configure(leg, config);
    }

    fn configure(&mut self, leg: u8, config: u8) {
        let Leg { rate, codec, .. } = self.legs[usize::from(leg)];
        let video = VideoConfig {
            codec,
            rate: (config & 1 == 0).then_some(rate),
            interlaced: config & 2 != 0,
            reorder: None,
            pps: vec![Bytes::from(vec![0x68, 0xeb, 0xe3, 0xcb, config & 4])],
            ..video_config()
        };
        self.timeline.config(leg, VIDEO, &TrackConfig::Video(video));
        let sample_rate = [48_000, 44_100, 32_000, 22_050][usize::from(config >> 3 & 3)];
        // What headers say and what time stamps do need not be the same.
        if config & 0x80 == 0 {
            self.legs[usize::from(leg)].sound = 1_024 * 90_000 / i64::from(sample_rate);
        }
        for pid in SOUND.into_iter().take(if config & 0x20 != 0 { 1 } else { 2 }) {
            self.timeline.config(leg, pid, &TrackConfig::Audio(audio_config(sample_rate)));
        }
    }

    /// A picture and the sound beside it, in time.
    fn frame(&mut self, leg: u8, flags: u8) {
        let state = &mut self.legs[usize::from(leg)];
        let ticks = state.rate.ticks(state.pictures + 1) - state.rate.ticks(state.pictures);
        let (dts, at) = (state.clock, state.pictures % state.gop);
        let shift = if state.reorder { [1, 3, 0, 0][usize::try_from(at % 4).unwrap_or(0)] * ticks } else { 0 };
        let (sounds, sound) = (state.sounds, state.sound);
        state.clock += ticks;
        state.pictures += 1;
        self.wait(ticks.unsigned_abs() * 100_000 / 9);
        if flags & 1 == 0 {
            self.unit(leg, VIDEO, ((dts + shift).rem_euclid(WRAP), dts.rem_euclid(WRAP)), at == 0);
        }
        if flags & 2 == 0 {
            for (track, pid) in SOUND.into_iter().enumerate() {
                let mut at = sounds[track];
                // No more than what belongs beside it.
                for _ in 0..8 {
                    if at >= dts + ticks {
                        break;
                    }
                    self.unit(leg, pid, (at.rem_euclid(WRAP), at.rem_euclid(WRAP)), true);
                    at += sound;
                }
                self.legs[usize::from(leg)].sounds[track] = at.max(dts);
            }
        }
    }

    fn unit(&mut self, leg: u8, pid: u16, (pts, dts): (i64, i64), random_access: bool) {
        let unit = AccessUnit {
            pid,
            codec: if pid == VIDEO { self.legs[usize::from(leg)].codec } else { Codec::Aac },
            pts: Pts(pts),
            dts: Dts(dts),
            random_access,
            damaged: false,
            received: self.now.mono,
            data: Bytes::from_static(if pid != VIDEO {
                b"sound"
            } else if random_access {
                IDR
            } else {
                PICTURE
            }),
        };
        self.timeline.push(self.now, leg, unit);
    }

    fn cue(&mut self, leg: u8, script: &mut Script<'_>) {
        let raw = (self.legs[usize::from(leg)].clock + i64::from(script.u32().cast_signed()) / 16).rem_euclid(WRAP);
        let at = if script.flag() { When::Now } else { When::At(raw.cast_unsigned()) };
        let info = SpliceInfo { command: Command::TimeSignal(at), segmentations: Vec::new() };
        let section = Bytes::from(vec![script.byte() & 3]);
        self.timeline.cue(leg, Cue { pid: 0x1F0, pts: None, received: self.now.mono, info, section });
    }

    /// Lets so many timers run.
    fn timers(&mut self, most: usize) {
        for _ in 0..most {
            let Some(due) = self.timeline.deadline().filter(|due| due.0 <= self.now.mono.0 + 40_000_000) else {
                return;
            };
            if due > self.now.mono {
                self.pass(due.0 - self.now.mono.0);
            }
            self.timeline.handle_timeout(self.now);
            self.drain();
        }
    }

    fn drain(&mut self) {
        let mut outs = 0;
        while let Some(out) = self.timeline.poll() {
            outs += 1;
            assert!(outs < 70_000, "one call gives out without end");
            if let Some(play) = &mut self.play {
                play.take(self.now, &out);
            }
            self.watch.take(out, self.source);
        }
        if let Some(play) = &mut self.play {
            play.look(self.now);
        }
    }
}

/// The stage of a channel that passes its source on, and the model player before it.
struct Play {
    mode: LatencyMode,
    line: Option<PdtLine>,
    stage: Option<Stage>,
    player: Player,
    waiting: Vec<(Fetch, Mono)>,
    /// Segments that began where the source did not promise it, as the timeline said.
    odd_cuts: usize,
}

impl Default for Play {
    fn default() -> Play {
        let player = Player::new("/live/c/index.m3u8");
        Play { mode: LatencyMode::Ultra, line: None, stage: None, player, waiting: Vec::new(), odd_cuts: 0 }
    }
}

impl Play {
    fn channel(&self) -> Channel {
        Channel::new(ChannelName::new("c").expect("a name"), ChannelKind::Transmux, self.mode)
    }

    /// As a session does it.
    fn take(&mut self, now: Now, out: &Out) {
        match out {
            Out::Record(Record::Pdt(line)) => {
                self.line = Some(*line);
                self.stage.iter_mut().for_each(|stage| stage.date_line(*line));
            }
            Out::Ready(plan) => {
                let line = self.line.expect("the first line comes before the grid is told of");
                self.stage = Some(Stage::new(&self.channel(), &session_id(), plan, line));
            }
            Out::Record(_) => {}
            Out::Fault(fault) => self.odd_cuts += usize::from(fault.kind == FaultKind::Gop),
            out => {
                let Some(stage) = &mut self.stage else { return };
                match out {
                    Out::Video { n, .. } => stage.saw(*n),
                    Out::Fill { to, .. } => stage.saw(to - 1),
                    Out::Tag { time, data } => stage.tag(&TimedTag { time: *time, data: data.clone() }),
                    out => stage.take(now, out.clone()),
                }
                while stage.poll_record().is_some() {}
            }
        }
    }

    fn deadline(&self) -> Option<Mono> {
        self.stage.as_ref().and_then(Stage::deadline).into_iter().chain(self.player.deadline()).min()
    }

    fn look(&mut self, now: Now) {
        let Some(stage) = &mut self.stage else { return };
        stage.release(now.mono);
        let output = stage.output();
        for _ in 0..64 {
            while let Some(fetch) = self.player.poll(now) {
                self.waiting.push((fetch, now.mono));
            }
            let before = self.waiting.len();
            for (fetch, since) in std::mem::take(&mut self.waiting) {
                match answer(&output, now.mono, &fetch.uri, since) {
                    Some((status, body)) => self.player.response(now, fetch.id, status, &body),
                    None => self.waiting.push((fetch, since)),
                }
            }
            if self.waiting.len() == before {
                return;
            }
        }
        panic!("a player that asks without end");
    }

    fn end(&mut self, mut now: Now) {
        let Some(stage) = &mut self.stage else { return };
        stage.end(now);
        for _ in 0..100 {
            now = Now { mono: Mono(now.mono.0 + 100_000_000), wall: Wall(now.wall.0 + 100_000_000) };
            self.look(now);
        }
        let report = self.player.report();
        let excused = |what: &str| EXCUSED.iter().any(|part| what.contains(part));
        let broken: Vec<&String> = report.violations.iter().filter(|what| !excused(what)).collect();
        let unsynced: BTreeSet<&String> = report.violations.iter().filter(|what| what.contains(NO_SYNC)).collect();
        assert!(unsynced.len() <= self.odd_cuts, "{} were announced: {unsynced:?}", self.odd_cuts);
        assert!(
            broken.is_empty(),
            "{} promises broken, the first: {:#?}",
            broken.len(),
            &broken[..broken.len().min(4)]
        );
    }
}

/// What a source may do to a player all the same. Nothing comes of it while its pictures stay away and its sound does not: a
/// blocked request ends with 503 after three target durations, here some steps of the clock later. Where its key pictures are
/// not where it promised, a segment begins without one, and health says so. Those behind are open: docs/fuzzing.md.
const EXCUSED: &[&str] =
    &["status 503 for a playlist", ": answered late: ", NO_SYNC, "PROGRAM-DATE-TIME steps by", "ms in the future"];
const NO_SYNC: &str = "does not start with a sync sample";

/// What was given out.
#[derive(Default)]
struct Watch {
    ready: bool,
    refused: bool,
    shown: BTreeSet<i64>,
    filled: Option<i64>,
    run: Option<u32>,
    dated: Option<i64>,
    /// Of each passed-through track, and of the source: the first part that what was given out does not complete.
    edges: BTreeMap<Option<u16>, (u64, u32)>,
    /// Of each track: the next frame.
    sounds: BTreeMap<u16, i64>,
    decoded: Option<i64>,
    breaks: u64,
}

impl Watch {
    fn take(&mut self, out: Out, source: bool) {
        assert!(!self.refused || matches!(out, Out::Dropped(_)), "behind a refusal: {out:?}");
        match out {
            Out::Refused(why) => self.refused = !why.is_empty(),
            Out::Ready(plan) => {
                assert!(!std::mem::replace(&mut self.ready, true), "the grid stands once");
                assert_eq!(plan.source.is_some(), source && !plan.audio_only);
            }
            Out::Record(record) => self.record(&record),
            Out::Profile(_) | Out::Fault(_) | Out::Dropped(_) => {}
            other => {
                assert!(self.ready, "before the grid: {other:?}");
                self.media(other);
            }
        }
    }

    fn record(&mut self, record: &Record) {
        match record {
            Record::Anchor(anchor) => {
                assert!(self.run.is_none_or(|run| anchor.run > run), "{anchor:?} behind {:?}", self.run);
                self.run = Some(anchor.run);
            }
            Record::Pdt(line) => {
                assert!(self.dated.is_none_or(|from| line.from_n >= from), "{line:?} behind {:?}", self.dated);
                self.dated = Some(line.from_n);
            }
            Record::Break { msn } => {
                assert!(*msn > self.breaks, "segment {msn} breaks behind {}", self.breaks);
                self.breaks = *msn;
            }
            Record::Plan(_) | Record::Audio(_) | Record::Inits(_) | Record::Cue(_) => {}
        }
    }

    fn media(&mut self, out: Out) {
        match out {
            Out::Video { n, prime: false, hidden: false, .. } => {
                assert!(self.filled.is_none_or(|to| n >= to), "frame {n} was filled up to {:?}", self.filled);
                assert!(self.shown.insert(n), "frame {n} is shown twice");
            }
            Out::Fill { to, with } => {
                // A jump may go where the filler has come to already.
                let again = with == Filling::Nothing && self.filled == Some(to);
                assert!(
                    again || self.filled.is_none_or(|before| to > before),
                    "filled up to {to} behind {:?}",
                    self.filled
                );
                self.filled = Some(to);
            }
            Out::Audio(audio) => self.sound(audio.track, audio.m, audio.place),
            Out::Silence { track, m, place, .. } => self.sound(track, m, place),
            Out::Source(sample) => {
                assert!(sample.duration > 0 && self.decoded.is_none_or(|before| sample.dts > before), "{sample:?}");
                self.decoded = Some(sample.dts);
                self.place(None, sample.place);
            }
            Out::Gap { track, place, duration, .. } => {
                assert!(duration > 0);
                self.place(track, place);
            }
            Out::Discontinuity { msn } => {
                for (of, edge) in &mut self.edges {
                    assert!(edge.0 <= msn, "{of:?} is at {edge:?}, the break at {msn}");
                    *edge = (msn, 0);
                }
            }
            // Another rate is another grid.
            Out::Config { config: TrackConfig::Audio(_), .. } => self.sounds.clear(),
            Out::Cue(cue) => assert!(cue.n >= cue.next, "{cue:?}"),
            Out::Tag { time, .. } => assert!(time >= 0),
            _ => {}
        }
    }

    fn sound(&mut self, track: u16, m: i64, place: Place) {
        let next = self.sounds.entry(track).or_insert(0);
        assert!(m >= *next, "track {track}: frame {m}, {next} is next");
        *next = m + 1;
        self.place(Some(track), place);
    }

    /// Places go forward, and no segment of a source is passed over.
    fn place(&mut self, of: Option<u16>, place: Place) {
        let here = (place.msn, place.part);
        if let Some(edge) = self.edges.insert(of, place.edge()) {
            assert!(here >= edge, "{of:?}: {here:?} behind {edge:?}");
            assert!(place.msn <= edge.0 + 1, "{of:?}: {here:?} passes over segments from {edge:?}");
        }
    }
}
