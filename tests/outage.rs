//! Sources that go and come back, on a clock that moves when told to: timeline, renditions and packager as they are, a
//! worker that shows each frame once and encodes nothing, and the model player, which must be satisfied throughout.

#[expect(dead_code, reason = "other tests use the rest")]
#[path = "package/world.rs"]
mod world;

use bytes::Bytes;
use rung::media::access_unit::AccessUnit;
use rung::media::channel::{Channel, ChannelKind, ChannelName, Ladder, Rendition, VideoCodec};
use rung::media::grid::{FrameRate, Record, SourceGop, SourceProfile};
use rung::media::modes::LatencyMode;
use rung::media::sample::Stamps;
use rung::media::track::{Codec, Program, Track, TrackConfig};
use rung::package::player::{Player, Report};
use rung::pipeline::stage::Stage;
use rung::pixels::protocol::{Encoded, Output, VideoInit};
use rung::time::{Dts, Mono, Now, Pts, Wall};
use rung::timeline::{Facts, Filling, Out, Rules, Timeline};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use world::{WALL0, World, at, audio_config, keep, nal, session_id, video_config};

const VIDEO: u16 = 256;
const AUDIO: u16 = 257;
const RATE: FrameRate = FrameRate::new(25_000, 1_000);
const GOP: i64 = 50;
/// Of the encoders' lookahead.
const ENCODER_DELAY: Duration = Duration::from_millis(200);
const STEP_MS: u64 = 5;
const WRAP: i64 = 1 << 33;

/// When the source is away, and what its clock does meanwhile.
#[derive(Clone, Copy, Debug)]
struct Outage {
    from_ms: u64,
    to_ms: u64,
    /// Its PTS start again where they started first; else they went on.
    restarts: bool,
    /// It comes on a new connection.
    reconnects: bool,
}

/// What a viewer saw at an N.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Live,
    Held,
    Hold,
    Slate,
    /// N jumped.
    Nothing,
}

/// Shows each N once, as a worker does: holes are held, what was filled stays filled.
#[derive(Default)]
struct Pictures {
    next: i64,
    seen: BTreeMap<i64, Seen>,
    hidden: usize,
    inside: VecDeque<(Mono, i64)>,
}

impl Pictures {
    fn show(&mut self, now: Mono, upto: i64, seen: Seen) {
        for n in self.next..upto {
            assert!(self.seen.insert(n, seen).is_none(), "frame {n} is shown twice");
            self.inside.push_back((now + ENCODER_DELAY, n));
        }
        self.next = self.next.max(upto);
    }

    fn jump(&mut self, to: i64) {
        self.seen.extend((self.next..to).map(|n| (n, Seen::Nothing)));
        self.next = self.next.max(to);
    }
}

struct Run {
    kind: ChannelKind,
    mode: LatencyMode,
    timeline: Timeline,
    stage: Option<Stage>,
    pictures: Pictures,
    world: World,
    player: Option<Player>,
    program: Program,
    line: Option<rung::media::grid::PdtLine>,
    pdt_lines: usize,
    runs: usize,
    silent: usize,
    discontinuities: Vec<u64>,
}

fn channel(kind: ChannelKind, mode: LatencyMode) -> Channel {
    let codec = VideoCodec::H264;
    let rendition = |name: &str, height| Rendition { name: name.to_owned(), height, bitrate: 400_000, codec };
    Channel {
        ladder: (kind != ChannelKind::Transmux).then(|| Ladder(vec![rendition("240p", 240), rendition("180p", 180)])),
        ..Channel::new(ChannelName::new("c").unwrap(), kind, mode)
    }
}

impl Run {
    fn new(kind: ChannelKind) -> Run {
        Run::in_mode(kind, LatencyMode::Ultra)
    }

    fn in_mode(kind: ChannelKind, mode: LatencyMode) -> Run {
        let profile =
            Some(SourceProfile { rate: RATE, gop: SourceGop::Regular(GOP as u32), captions: Default::default() });
        let facts = Facts { kind, mode, profile, last_msn: None, rules: Rules::default() };
        let track = |pid, codec| Track::new(pid, codec);
        let tracks = vec![track(VIDEO, Codec::H264), track(AUDIO, Codec::Aac)];
        let mut run = Run {
            kind,
            mode,
            timeline: Timeline::new(facts),
            stage: None,
            pictures: Pictures::default(),
            world: World::new(25.0, mode),
            player: None,
            program: Program { number: 1, pcr_pid: None, tracks },
            line: None,
            pdt_lines: 0,
            runs: 0,
            silent: 0,
            discontinuities: Vec::new(),
        };
        run.join();
        run
    }

    fn join(&mut self) {
        self.timeline.leg_left(0);
        self.timeline.leg_joined(0);
        self.timeline.program(0, &self.program);
        self.timeline.config(0, VIDEO, &TrackConfig::Video(video_config()));
        self.timeline.config(0, AUDIO, &TrackConfig::Audio(audio_config(48_000)));
    }

    fn unit(&mut self, now: Now, pid: u16, time: i64, pts0: i64, random_access: bool) {
        let pts = (pts0 + time).rem_euclid(WRAP);
        let header = if random_access { 0x65 } else { 0x41 };
        let data = if pid == VIDEO { Bytes::from(vec![0, 0, 0, 1, header, 1, 2, 3]) } else { Bytes::from(vec![7; 90]) };
        let codec = if pid == VIDEO { Codec::H264 } else { Codec::Aac };
        let (pts, dts, received) = (Pts(pts), Dts(pts), now.mono);
        let unit = AccessUnit { pid, codec, pts, dts, random_access, damaged: false, received, data };
        self.timeline.push(now, 0, unit);
    }

    fn drain(&mut self, now: Now) {
        while let Some(out) = self.timeline.poll() {
            match out {
                Out::Record(Record::Pdt(line)) => {
                    self.pdt_lines += 1;
                    self.line = Some(line);
                    self.stage.iter_mut().for_each(|stage| stage.date_line(line));
                }
                Out::Record(Record::Anchor(_)) => self.runs += 1,
                Out::Ready(ready) => {
                    let line = self.line.expect("before");
                    let mut stage = Stage::new(&channel(self.kind, self.mode), &session_id(), &ready, line);
                    if self.kind != ChannelKind::Transmux {
                        let config = video_config();
                        let init = VideoInit { vps: None, sps: config.sps.clone(), pps: config.pps[0].clone() };
                        stage.opened(now.mono, &[init.clone(), init], &[]);
                    }
                    self.world.session = stage.output();
                    self.stage = Some(stage);
                }
                Out::Video { n, prime, hidden, .. } => {
                    if hidden {
                        self.pictures.hidden += 1;
                    } else if !prime {
                        self.pictures.show(now.mono, n, Seen::Held);
                        self.pictures.show(now.mono, n + 1, Seen::Live);
                    }
                    self.stage.as_mut().expect("ready").saw(n);
                }
                Out::Fill { to, with: Filling::Nothing } => self.pictures.jump(to),
                Out::Fill { to, with } => {
                    let seen = if with == Filling::Hold { Seen::Hold } else { Seen::Slate };
                    self.pictures.show(now.mono, to, seen);
                    self.stage.as_mut().expect("ready").saw(to - 1);
                }
                Out::Refused(why) => panic!("{why}"),
                other => {
                    self.silent += usize::from(matches!(other, Out::Silence { .. }));
                    if let Out::Discontinuity { msn } = other {
                        self.discontinuities.push(msn);
                    }
                    self.stage.iter_mut().for_each(|stage| stage.take(now, other.clone()));
                }
            }
        }
    }

    fn encode(&mut self, now: Mono) {
        let Some(stage) = &mut self.stage else { return };
        while let Some((_, n)) = self.pictures.inside.pop_front_if(|(due, _)| *due <= now) {
            for index in 0..2 {
                let sync = n % GOP == 0;
                let data = nal(if sync { 0x65 } else { 0x41 }, n, 60 + usize::from(index));
                let output = Output::Video(index);
                stage.encoded(now, &Encoded { output, at: n, sync, stamps: Stamps::default(), data });
            }
        }
        stage.release(now);
    }

    /// Runs the source and the player until `ms`. Its PTS wrap in the middle of everything.
    fn run(mut self, outages: &[Outage], ms: u64) -> Watched {
        let pts0 = WRAP - 10 * 90_000;
        let (mut video, mut audio) = (0i64, 0i64);
        // Instant, and its time on the source's clock, at which the present stretch began.
        let (mut began, mut source0) = (0u64, 0i64);
        let mut away = outages.iter().peekable();
        for step in (0..=ms).step_by(STEP_MS as usize) {
            let run = i64::try_from(step).unwrap() * 1_000_000;
            let now = Now { mono: at(step), wall: Wall(WALL0 + run) };
            if let Some(outage) = away.next_if(|outage| step >= outage.to_ms) {
                let frame = |ms: u64| i64::try_from(ms).unwrap() * 25 / 1_000;
                if outage.restarts {
                    (began, source0) = (step, 0);
                } else {
                    // Its encoder ran on: a viewer of it would see the next IDR.
                    let next = frame(step - began) + source0;
                    video = next;
                    audio = next * 48_000 / 25 / 1_024;
                }
                if outage.restarts {
                    (video, audio) = (0, 0);
                }
                if outage.reconnects {
                    self.join();
                }
            }
            if away.peek().is_none_or(|outage| step < outage.from_ms) {
                let clock = i64::try_from(step - began).unwrap() * 90 + source0 * 3_600;
                while video * 3_600 <= clock {
                    self.unit(now, VIDEO, video * 3_600, pts0, video % GOP == 0);
                    video += 1;
                }
                while audio * 1_920 <= clock {
                    self.unit(now, AUDIO, audio * 1_920, pts0, true);
                    audio += 1;
                }
            } else if away.peek().is_some_and(|o| o.reconnects && step >= o.from_ms && step < o.from_ms + STEP_MS) {
                self.timeline.leg_left(0);
            }
            self.drain(now);
            for _ in 0..100 {
                let Some(_) = self.timeline.deadline().filter(|due| *due <= now.mono) else { break };
                self.timeline.handle_timeout(now);
                self.drain(now);
            }
            self.encode(now.mono);
            if self.stage.is_some() {
                let player = self.player.get_or_insert_with(|| Player::new("/live/c/index.m3u8"));
                self.world.now = now.mono;
                self.world.watch_with(player, step, &mut keep);
            }
        }
        let report = self.player.as_ref().expect("on air").report();
        Watched { report, run: self, ms }
    }
}

struct Watched {
    report: Report,
    run: Run,
    ms: u64,
}

impl Watched {
    #[track_caller]
    fn satisfied(&self, what: &str) {
        assert_eq!(self.report.broken, 0, "{what}: {:#?}", self.report.violations);
        assert!(self.report.late.is_empty(), "{what}: {:#?}", self.report.late);
        let whole = i64::try_from(self.ms).unwrap() * 25 / 1_000;
        if self.run.kind != ChannelKind::Transmux {
            let seen = &self.run.pictures.seen;
            assert!(seen.keys().copied().eq(0..self.run.pictures.next), "{what}: each frame once");
            // At the end the source is live: N is where the clock is, but for a new run's jump to a segment.
            let jumps = if self.run.kind == ChannelKind::Hybrid { 4 * GOP * self.discontinuities() } else { 0 };
            let off = self.run.pictures.next - whole;
            assert!((-25..=25 + jumps).contains(&off), "{what}: N is {off} frames beside the clock");
        }
        let edge = self.playlists().map(|text| segments(&text)).collect::<Vec<_>>();
        let apart = edge.iter().map(|s| s.1).max().unwrap() - edge.iter().map(|s| s.1).min().unwrap();
        assert!(apart <= 1, "{what}: renditions end {apart} segments apart");
    }

    fn discontinuities(&self) -> i64 {
        self.run.discontinuities.len() as i64
    }

    fn count(&self, seen: Seen) -> usize {
        self.run.pictures.seen.values().filter(|s| **s == seen).count()
    }

    fn playlists(&self) -> impl Iterator<Item = String> {
        self.run.world.session.renditions().iter().map(|r| self.text(r.name())).collect::<Vec<_>>().into_iter()
    }

    fn text(&self, rendition: &str) -> String {
        let (_, body) = self.run.world.answer(&format!("/live/c/{rendition}.m3u8"), self.run.world.now).expect("now");
        String::from_utf8(body.to_vec()).unwrap()
    }
}

/// First and last whole segment of a playlist; all between are there.
fn segments(text: &str) -> (u64, u64) {
    let first: u64 = text.lines().find_map(|l| l.strip_prefix("#EXT-X-MEDIA-SEQUENCE:")?.parse().ok()).unwrap();
    let count = text.lines().filter(|l| l.starts_with("#EXTINF")).count() as u64;
    (first, first + count - 1)
}

fn outage(from_ms: u64, away_ms: u64, restarts: bool, reconnects: bool) -> Outage {
    Outage { from_ms, to_ms: from_ms + away_ms, restarts, reconnects }
}

/// Outages of every length at different places of a segment; the source's clock runs on, or starts again.
fn cases() -> impl Iterator<Item = Outage> {
    [400u64, 700, 1_000, 1_620, 2_480, 5_000, 9_340, 30_000].into_iter().enumerate().flat_map(|(i, away)| {
        let from = 12_040 + 370 * i as u64;
        [(false, false), (false, true), (true, true), (true, false)].map(|(restarts, reconnects)| {
            let to = from + away;
            // A clock that ran on comes back with an IDR where its GOP has one.
            let to = if restarts || !reconnects { to } else { to.div_ceil(2_000) * 2_000 };
            outage(from, to - from, restarts, reconnects)
        })
    })
}

#[test]
fn a_ladder_is_whole_through_every_outage() {
    for outage in cases() {
        let what = format!("{outage:?}");
        let seen = Run::new(ChannelKind::Transcode).run(&[outage], outage.to_ms + 12_000);
        seen.satisfied(&what);
        assert_eq!((seen.report.gaps, seen.report.discontinuities), (0, 0), "{what}");
        assert_eq!(seen.run.runs, if outage.restarts { 2 } else { 1 }, "{what}");
        assert_eq!(seen.run.pdt_lines, 1, "{what}: PDT goes on");
        let away = usize::try_from((outage.to_ms - outage.from_ms) / 40).unwrap();
        let (hold, slate) = (seen.count(Seen::Hold), seen.count(Seen::Slate));
        match away {
            0..12 => assert_eq!((hold, slate), (0, 0), "{what}: it was only late"),
            12..38 => assert!((hold, slate) <= (38, 0) && hold + seen.count(Seen::Held) + 2 >= away, "{what}: {hold}"),
            _ => assert!(hold == 25 && (slate + 25).abs_diff(away) <= 2, "{what}: {hold} held, {slate} slate"),
        }
    }
}

#[test]
fn the_untouched_source_shows_gaps_and_goes_on_at_an_idr() {
    for outage in cases() {
        let what = format!("{outage:?}");
        let seen = Run::new(ChannelKind::Transmux).run(&[outage], outage.to_ms + 12_000);
        seen.satisfied(&what);
        let away = outage.to_ms - outage.from_ms;
        let broken = i64::from(outage.restarts);
        assert_eq!((seen.run.runs as i64, seen.discontinuities()), (1 + broken, broken), "{what}");
        assert!(away < 1_300 || seen.report.gaps > 0, "{what}: {:?}", seen.report);
        // Sound is silence, not a gap, while the source is away.
        assert!(
            away < 1_000 || seen.run.silent as u64 + 30 >= (away - 500) * 48 / 1_024,
            "{what}: {}",
            seen.run.silent
        );
        let places = seen.playlists().map(|text| text.split("#EXT-X-DISCONTINUITY\n").nth(1).map(first_segment));
        let places: Vec<_> = places.collect();
        assert!(places.windows(2).all(|w| w[0] == w[1]), "{what}: all break before one segment: {places:?}");
    }
}

/// Number of the first segment named in a playlist's text.
fn first_segment(text: &str) -> String {
    text.lines().find(|l| l.contains("/s") && !l.starts_with('#')).unwrap_or("").rsplit('/').next().unwrap().to_owned()
}

#[test]
fn below_a_source_that_is_away_the_ladder_goes_on() {
    for outage in cases() {
        let what = format!("{outage:?}");
        let seen = Run::new(ChannelKind::Hybrid).run(&[outage], outage.to_ms + 12_000);
        seen.satisfied(&what);
        let away = outage.to_ms - outage.from_ms;
        assert!(away < 1_300 || seen.text("source").contains("GAP") || away > 20_000, "{what}");
        for name in ["180p", "a-und-1"] {
            assert!(!seen.text(name).contains("GAP"), "{what}: {name}");
        }
        assert_eq!(seen.discontinuities(), i64::from(outage.restarts), "{what}");
    }
}

#[test]
fn a_source_that_comes_and_goes_all_the_time_stays_in_order() {
    for kind in [ChannelKind::Transcode, ChannelKind::Transmux, ChannelKind::Hybrid] {
        for seed in 0..6u64 {
            let mut dice = seed * 0x9e37_79b9 + 7;
            let mut roll = |below: u64| {
                dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (dice >> 33) % below
            };
            let mut at = 10_000;
            let outages: Vec<Outage> = (0..8)
                .map(|_| {
                    let away = [300 + roll(500), 600 + roll(1_500), 2_000 + roll(6_000)][roll(3) as usize];
                    let restarts = roll(2) == 0;
                    // A short loss of units within a connection may take an IDR with it: not what this is about.
                    let outage = outage(at, away, restarts, roll(2) == 0 || (away < 1_500 && !restarts));
                    at = outage.to_ms + 400 + roll(6_000);
                    outage
                })
                .collect();
            let seen = Run::new(kind).run(&outages, at + 12_000);
            seen.satisfied(&format!("{kind:?}, seed {seed}: {outages:?}"));
        }
    }
}

#[test]
fn modes_without_parts_keep_their_promises_too() {
    for mode in [LatencyMode::Low, LatencyMode::Normal] {
        for kind in [ChannelKind::Transcode, ChannelKind::Transmux, ChannelKind::Hybrid] {
            for (away, restarts) in [(1_000, true), (9_340, false), (9_340, true), (30_000, true)] {
                let outage = outage(20_040, away, restarts, true);
                let seen = Run::in_mode(kind, mode).run(&[outage], outage.to_ms + 30_000);
                seen.satisfied(&format!("{mode:?} {kind:?} {outage:?}"));
            }
        }
    }
}
