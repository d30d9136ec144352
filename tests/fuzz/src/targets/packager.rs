//! Segments and windows: whatever encoders and legs do, the model player finds every promise kept; and places that make
//! no sense do no harm.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rung::media::grid::{Cadence, Ends, Grid, PdtLine, Place};
use rung::media::modes::LatencyMode;
use rung::media::sample::{Sample, Stamps};
use rung::media::track::VideoConfig;
use rung::package::dates::DateRange;
use rung::package::fmp4::emsg::TimedTag;
use rung::package::fmp4::init::InitSection;
use rung::package::fmp4::read;
use rung::package::origin::SessionOutput;
use rung::package::player::{Fetch, Player, parse};
use rung::package::segmenter::{Cut, Segmenter};
use rung::package::window::{
    Answer, Before, Directives, Kind, Media, RETAINED_BYTES_MAX, Refusal, RenditionOutput, RenditionSpec, Skip, Targets,
};
use rung::serve::directives;
use rung::serve::media::{Item, Target as Named};
use rung::time::{Mono, Now, Wall};

use crate::Target;
use crate::script::{Script, piece};
use crate::seeds;

#[path = "../../../support/made_up.rs"]
mod made_up;

use made_up::{MONO0, MSN0, WALL0};
pub(super) use made_up::{audio_config, session_id, video_config};

pub(super) const TARGETS: &[Target] = &[
    Target::new("packager", packager, seeds::packagers)
        .words(&[&[0, 50], &[1, 9], &[2, 20], &[3, 1], &[4], &[5, 1, 2], &[6], &[7]])
        .longest(160)
        .memory(48 << 20, 4_096)
        .rounds(40),
    Target::new("segmenter", segmenter, seeds::segmenters)
        .words(&[&[0, 0, 0, 0], &[1, 9, 0, 0], &[6], &[4, 1]])
        .longest(500)
        .memory(24 << 20, 8_192)
        .rounds(200),
];

/// Headers of their own for each `level`.
pub(super) fn levelled(level: u8) -> VideoConfig {
    VideoConfig { pps: vec![Bytes::from(vec![0x68, 0xeb, 0xe3, 0xcb, level])], ..video_config() }
}

fn spec(name: &str, kind: Kind, targets: Targets) -> RenditionSpec {
    RenditionSpec {
        session: session_id(),
        name: name.to_owned(),
        kind,
        targets,
        independent_segments: true,
        bandwidth_cap: 800_000,
        retained_bytes_max: RETAINED_BYTES_MAX,
        before: Before::default(),
    }
}

/// One length-prefixed NAL unit.
fn picture(sync: bool, n: i64) -> Bytes {
    let data = [&[0, 0, 0, 12, if sync { 0x65 } else { 0x41 }][..], &[n.to_le_bytes()[0]; 11]].concat();
    Bytes::from(data)
}

/// A ladder's rendition and its sound.
struct World {
    grid: Grid,
    now: Mono,
    session: Arc<SessionOutput>,
    video: Segmenter,
    audio: Segmenter,
    /// Next frame of each, and the frame up to which each is lost.
    next: [i64; 2],
    lost: [i64; 2],
    line: PdtLine,
    maps: u8,
    player: Player,
    waiting: Vec<(Fetch, Mono)>,
    ended: bool,
    /// What was answered, if it is written down.
    said: Option<Vec<u8>>,
}

const SOUND: u32 = 48_000;

fn packager(input: &[u8]) {
    let mut script = Script::new(input);
    let mode = script.one_of(&[LatencyMode::Ultra, LatencyMode::Ultra, LatencyMode::Low, LatencyMode::Normal]);
    let hz = script.one_of(&[25.0, 30_000.0 / 1_001.0, 50.0, 24.0]);
    let mut world = World::new(hz, mode);
    // Enough for a player to begin with.
    world.frames(i64::from(world.grid.cadence.segment) * 3 / 2);
    let mut budget = 700i64;
    while !script.is_over() && !world.ended && budget > 0 {
        budget -= 4;
        world.act(&mut script, &mut budget);
    }
    world.frames(i64::from(world.grid.cadence.segment) * 2);
    world.end();
    let report = world.player.report();
    assert!(
        report.broken == 0,
        "{} promises broken, the first: {:#?}",
        report.broken,
        &report.violations[..report.violations.len().min(4)]
    );
    assert!(report.playlists > 0 && report.ended, "{report:?}");
}

impl World {
    fn new(hz: f64, mode: LatencyMode) -> World {
        let cadence = Cadence::for_rate(hz, mode);
        let grid = Grid { cadence, msn0: MSN0 };
        let (targets, line) = (Targets::ladder(mode, cadence, None), PdtLine { from_n: 0, wall: Wall(WALL0), ppm: 0 });
        let session = Arc::new(SessionOutput::new(session_id(), mode));
        let make = |name: &str, kind, init: InitSection, cut| {
            let output = RenditionOutput::new(spec(name, kind, targets));
            session.add(output.clone());
            Segmenter::new(output, init, cut, grid, line)
        };
        let init = InitSection::video(&levelled(0), cadence.timescale(), 800_000);
        let video = make("360p", Kind::Video { rate: Some(cadence.rate) }, init, Cut::Frames);
        let kind = Kind::Audio { language: Some("eng".to_owned()), default: true, role: Default::default() };
        let audio = make("a-eng-1", kind, InitSection::audio(&audio_config(SOUND), 128_000), Cut::Audio);
        World {
            grid,
            now: Mono(MONO0),
            session,
            video,
            audio,
            next: [0; 2],
            lost: [0; 2],
            line,
            maps: 0,
            player: Player::new("/live/c/index.m3u8"),
            waiting: Vec::new(),
            ended: false,
            said: None,
        }
    }

    fn act(&mut self, script: &mut Script<'_>, budget: &mut i64) {
        let frame = self.next[0];
        match script.byte() % 10 {
            1 => {
                // Nobody makes these pictures, or sounds: what comes behind them goes on.
                let (which, frames) = (script.flag(), i64::from(script.byte() % 120));
                self.lose(usize::from(which), frame + frames);
            }
            2 => {
                // The same, and it is known at once.
                let frames = i64::from(script.byte() % 120);
                self.lose(0, frame + frames);
                self.lose(1, frame + frames);
            }
            3 => {
                // The line of dates bends a little, from a segment on that nobody has begun.
                let from_n = self.grid.segment_start(frame) + 2 * i64::from(self.grid.cadence.segment);
                let ppm = self.line.ppm + i32::from(script.byte().cast_signed()) * 8;
                let wall = self.line.at(&self.grid, from_n);
                self.line = PdtLine { from_n, wall, ppm: ppm.clamp(-2_000, 0) };
                self.video.date_line(self.line);
                self.audio.date_line(self.line);
            }
            4 => {
                // The encoder is gone, and with it the open part; another one begins at the next IDR.
                self.video.abandon();
                self.lose(0, frame + 1);
            }
            5 => {
                let (id, ahead) = (script.byte() % 16, i64::from(script.byte()));
                let start = self.line.at(&self.grid, frame + ahead + 1);
                let duration = script.flag().then(|| Duration::from_millis(u64::from(script.byte()) * 40));
                let range = DateRange { id: format!("cue-{id}"), start, duration, ..DateRange::default() };
                // What contradicts itself is refused with a sentence, and nothing has changed.
                drop(self.session.announce(range));
            }
            6 => {
                let time = self.grid.cadence.rate.ticks(frame) + i64::from(script.byte()) * 900;
                self.audio.tag(TimedTag { time, data: Bytes::from_static(b"ID3\x04\x00\x00\x00\x00\x00\x00") });
            }
            7 => self.renew(),
            8 => self.ask(script),
            9 if script.byte() == 0xFF => self.ended = true,
            _ => {
                let frames = i64::from(script.byte());
                *budget -= frames;
                self.frames(frames);
            }
        }
    }

    /// Nobody makes what lies before frame `to`; an encoder goes on with an IDR picture.
    fn lose(&mut self, which: usize, to: i64) {
        let gop = i64::from(self.grid.cadence.gop);
        let to = if which == 0 { (to + gop - 1).div_euclid(gop) * gop } else { to };
        self.lost[which] = self.lost[which].max(to);
    }

    /// Other headers: everything goes on in the next segment, at once.
    fn renew(&mut self) {
        let frame = self.next[0];
        if self.grid.segment_start(frame) == frame {
            return;
        }
        let n0 = self.grid.segment_start(frame) + i64::from(self.grid.cadence.segment);
        // A part that only one of them has begun is a gap of the other one.
        let here = self.grid.place_frame(frame - 1);
        for (segmenter, lost) in [(&mut self.video, self.lost[0]), (&mut self.audio, self.lost[1])] {
            if lost >= frame {
                segmenter.gap(self.now, (here.msn, here.part + 1));
            }
        }
        self.maps = self.maps.wrapping_add(1);
        let init = InitSection::video(&levelled(self.maps), self.grid.cadence.timescale(), 800_000);
        // Dates go on where the clock is.
        let wall = Wall(WALL0 + i64::try_from(self.now.0 - MONO0).expect("minutes"));
        self.line = PdtLine { from_n: n0, wall, ppm: self.line.ppm };
        self.video.date_line(self.line);
        self.audio.date_line(self.line);
        self.video.discontinuity(self.now, Some(init));
        self.audio.discontinuity(self.now, None);
        self.next = [n0, self.grid.audio_at_frame(n0, SOUND)];
        self.lost = [n0; 2];
    }

    /// So many pictures, the sound beside them, and the player.
    fn frames(&mut self, frames: i64) {
        for _ in 0..frames {
            let n = self.next[0];
            self.next[0] += 1;
            let span = self.grid.nanos_at(n + 1) - self.grid.nanos_at(n);
            self.now = Mono(self.now.0 + span.unsigned_abs());
            if n >= self.lost[0] {
                let (ticks, sync) = (self.grid.cadence.frame_ticks(), n % i64::from(self.grid.cadence.gop) == 0);
                let dts = n * i64::from(ticks);
                let sample =
                    Sample { dts, duration: ticks, cto: 0, sync, data: picture(sync, n), stamps: Stamps::default() };
                self.video.push(self.now, sample, self.grid.place_frame(n));
            } else {
                let place = self.grid.place_frame(n);
                self.video.gap(self.now, place.edge());
            }
            let until = self.grid.audio_at_frame(n + 1, SOUND);
            for m in self.next[1]..until {
                let place = self.grid.place_audio(m, SOUND);
                if self.grid.frame_at_audio(m, SOUND) >= self.lost[1] {
                    let data = Bytes::from_static(&[0x21, 0, 0, 0, 0, 0x1C]);
                    let sample =
                        Sample { dts: m * 1_024, duration: 1_024, cto: 0, sync: true, data, stamps: Stamps::default() };
                    self.audio.push(self.now, sample, place);
                } else {
                    self.audio.gap(self.now, place.edge());
                }
            }
            self.next[1] = self.next[1].max(until);
            self.look();
        }
    }

    fn end(&mut self) {
        self.video.end(self.now);
        self.audio.end(self.now);
        for _ in 0..200 {
            self.now = Mono(self.now.0 + 100_000_000);
            self.look();
            if self.player.report().ended && self.waiting.is_empty() {
                break;
            }
        }
        assert!(self.session.ended());
    }

    fn clock(&self) -> Now {
        Now { mono: self.now, wall: Wall(WALL0 + i64::try_from(self.now.0 - MONO0).expect("minutes")) }
    }

    /// The player asks for what is due and gets what is there.
    fn look(&mut self) {
        for _ in 0..64 {
            while let Some(fetch) = self.player.poll(self.clock()) {
                self.waiting.push((fetch, self.now));
            }
            let before = self.waiting.len();
            for (fetch, since) in std::mem::take(&mut self.waiting) {
                match answer(&self.session, self.now, &fetch.uri, since) {
                    Some((status, body)) => {
                        if let Some(said) = self.said.as_mut().filter(|_| status == 200) {
                            said.push(1);
                            piece(&body, said);
                        }
                        self.player.response(self.clock(), fetch.id, status, &body);
                    }
                    None => self.waiting.push((fetch, since)),
                }
            }
            if self.waiting.len() == before {
                return;
            }
        }
        panic!("a player that asks without end");
    }

    /// Requests that no player sends.
    fn ask(&self, script: &mut Script<'_>) {
        let output = if script.flag() { self.video.output() } else { self.audio.output() };
        let near = |script: &mut Script<'_>| (MSN0 + u64::from(script.byte())).wrapping_sub(u64::from(script.byte()));
        let (msn, part) = (near(script), u32::from(script.byte()));
        let skip = script.one_of(&[Skip::No, Skip::Yes, Skip::V2]);
        let wanted = Directives { msn: script.flag().then_some(msn), part: script.flag().then_some(part), skip };
        let since = self.now.back(Duration::from_millis(u64::from(script.byte()) * 50));
        for answer in [output.playlist(since, self.now, &wanted), output.iframes(since, self.now, &wanted)] {
            if let Answer::Now(playlist) = answer {
                let text = std::str::from_utf8(&playlist.plain).expect("a playlist is text");
                parse::media(text).expect("a playlist of our own");
            }
        }
        for answer in
            [output.part(since, self.now, msn, part), output.segment(since, self.now, msn), output.iframe(msn)]
        {
            if let Answer::Now(media) = answer {
                assert!(!read::fragments(&media.chunks.concat()).expect("media of our own").is_empty());
            }
        }
    }
}

/// As a server answers; `None`: not yet.
pub(super) fn answer(session: &SessionOutput, now: Mono, uri: &str, since: Mono) -> Option<(u16, Bytes)> {
    let path = uri.strip_prefix("/live/c/").expect("within the channel");
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    if path == "index.m3u8" {
        return Some(session.multivariant().map_or((404, Bytes::new()), |p| (200, p.plain.clone())));
    }
    let wanted = directives::parse(query).expect("a player's own");
    let output = |name: &str| session.rendition(name).expect("a rendition that is listed");
    if let Some(name) = path.strip_suffix(".iframes.m3u8") {
        return flat(output(name).iframes(since, now, &wanted), |p| p.plain.clone());
    }
    if let Some(name) = path.strip_suffix(".m3u8") {
        return flat(output(name).playlist(since, now, &wanted), |p| p.plain.clone());
    }
    let Named::Media { rendition, item, .. } = Named::parse(uri.strip_prefix("/live/")?)? else {
        panic!("{uri} names no media");
    };
    let output = output(rendition);
    let media = |m: &Media| Bytes::from(m.chunks.concat());
    match item {
        Item::Init(map) => Some(output.init(map).map_or((404, Bytes::new()), |b| (200, b))),
        Item::Iframe(msn) => flat(output.iframe(msn), media),
        Item::Segment(msn) => flat(output.segment(since, now, msn), media),
        Item::Part(msn, part) => flat(output.part(since, now, msn, part), media),
    }
}

fn flat<T>(answer: Answer<T>, body: impl Fn(&T) -> Bytes) -> Option<(u16, Bytes)> {
    match answer {
        Answer::Now(value) => Some((200, body(&value))),
        Answer::Until(_) => None,
        Answer::Refuse(Refusal::BadRequest(_)) => Some((400, Bytes::new())),
        Answer::Refuse(Refusal::NotFound(_)) => Some((404, Bytes::new())),
        Answer::Refuse(Refusal::NotYet(_)) => Some((503, Bytes::new())),
    }
}

/// Init sections of our own.
pub(crate) fn init_sections() -> Vec<Vec<u8>> {
    let video = InitSection::video(&levelled(0), 90_000, 800_000);
    vec![video.bytes.to_vec(), InitSection::audio(&audio_config(SOUND), 128_000).bytes.to_vec()]
}

/// What a server answers a player over so many frames, as the target `player` reads it.
pub(crate) fn recording(mode: LatencyMode, frames: i64) -> Vec<u8> {
    let mut world = World::new(25.0, mode);
    world.said = Some(vec![0]);
    world.frames(frames);
    world.said.take().unwrap_or_default()
}

/// Samples for any place, in any order: what can not be taken is counted, what is listed can be had and is what it says.
fn segmenter(input: &[u8]) {
    let mut script = Script::new(input);
    let mode = script.one_of(&[LatencyMode::Ultra, LatencyMode::Low, LatencyMode::Normal]);
    let cut = script.one_of(&[Cut::Frames, Cut::Audio, Cut::Source]);
    let cadence = Cadence::for_rate(25.0, mode);
    let grid = Grid { cadence, msn0: MSN0 };
    let line = PdtLine { from_n: 0, wall: Wall(WALL0), ppm: 0 };
    let (kind, init) = match cut {
        Cut::Audio => (
            Kind::Audio { language: None, default: true, role: Default::default() },
            InitSection::audio(&audio_config(SOUND), 128_000),
        ),
        _ => (
            Kind::Video { rate: None },
            InitSection::video(&levelled(0), if cut == Cut::Source { 90_000 } else { cadence.timescale() }, 800_000),
        ),
    };
    let output = RenditionOutput::new(spec("source", kind, Targets::ladder(mode, cadence, None)));
    let mut segmenter = Segmenter::new(output.clone(), init, cut, grid, line);
    let (mut now, mut at, mut pushed) = (Mono(MONO0), MSN0, 0u64);
    while !script.is_over() {
        now = Mono(now.0 + 10_000_000);
        match script.byte() % 12 {
            2 => segmenter.gap(now, (at + u64::from(script.byte() % 8), u32::from(script.byte() % 9))),
            3 => segmenter.break_here(),
            4 => segmenter.abandon(),
            5 => segmenter.cut_short(now),
            6 => {
                let init = script.flag().then(|| segmenter.init().clone());
                segmenter.discontinuity(now, init);
            }
            7 => segmenter.date_line(PdtLine { from_n: i64::from(script.u16()), wall: Wall(WALL0), ppm: 10 }),
            8 => segmenter.tag(TimedTag { time: i64::from(script.u32()), data: Bytes::from_static(b"ID3") }),
            9 if mode != LatencyMode::Ultra => segmenter.take_back((at, u32::from(script.byte() % 6))),
            10 if script.byte() == 0xFF => segmenter.end(now),
            _ => {
                let (ahead, part, flags) = (script.byte(), script.byte(), script.byte());
                at = (at + u64::from(ahead % 4)).saturating_sub(u64::from(ahead >> 6));
                if ahead == 0x3F {
                    at += u64::from(script.u16());
                }
                let place = Place {
                    msn: at,
                    part: u32::from(part % 8),
                    ends: [Ends::Nothing, Ends::Nothing, Ends::Part, Ends::Segment][usize::from(flags & 3)],
                };
                let nominal = grid.first_frame(place.msn) + i64::from(place.part * cadence.part);
                let timescale = i64::from(segmenter.timescale());
                let dts = nominal * timescale / 25 + i64::from(script.byte().cast_signed()) * timescale / 100;
                let sample = Sample {
                    dts,
                    duration: u32::from(script.byte()) * 40,
                    cto: i32::from(flags >> 4),
                    sync: flags & 4 != 0,
                    data: picture(flags & 4 != 0, dts),
                    stamps: Stamps::default(),
                };
                pushed += 1;
                segmenter.push(now, sample, place);
            }
        }
        while segmenter.poll().is_some() {}
    }
    let counts = segmenter.counts();
    assert!(counts.late + counts.over <= pushed, "{counts:?} of {pushed}");
    judge(&output, now);
}

/// Segments that a rendition may hold, however short they are.
const SEGMENTS_MAX: usize = 514;

/// Everything that is listed is there, and is what the playlist says.
fn judge(output: &RenditionOutput, now: Mono) {
    let facts = output.facts();
    assert!(facts.segments_held <= SEGMENTS_MAX, "{facts:?}");
    let Answer::Now(playlist) = output.playlist(now, now, &Directives::default()) else { return };
    let text = std::str::from_utf8(&playlist.plain).expect("a playlist is text");
    let list = parse::media(text).expect("a playlist of our own");
    if facts.segments_held > 2 * output.spec().targets.window_segments + 2 {
        // Only if fewer would not last three target durations [HLS 6.2.2].
        let fewer: u64 = list.segments.iter().skip(1).map(|segment| segment.duration()).sum();
        let targets = 3_000_000 * u64::from(output.spec().targets.target_duration);
        assert!(fewer < targets, "{fewer} of {targets} us: {facts:?}");
    }
    for segment in &list.segments {
        let whole = output.segment(now, now, segment.msn);
        if segment.whole.is_some() && !segment.gap {
            let Answer::Now(media) = whole else { panic!("segment {} is listed and cannot be had", segment.msn) };
            let bytes = media.chunks.concat();
            assert!(!read::fragments(&bytes).expect("media of our own").is_empty());
        }
        for (index, part) in segment.parts.iter().enumerate() {
            let index = u32::try_from(index).expect("few");
            let answer = output.part(now, now, segment.msn, index);
            assert_eq!(matches!(answer, Answer::Now(_)), !part.gap, "part {}.{index}", segment.msn);
        }
        assert!(segment.map.is_some() && segment.date_time.is_some());
    }
}
