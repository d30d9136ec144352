//! Whole sessions: a multiplex of video and audio in, judged by what comes out.

use bytes::Bytes;

use super::*;
use crate::media::access_unit::AccessUnit;
use crate::media::channel::ChannelKind;
use crate::media::fault::FaultKind;
use crate::media::grid::{Cadence, Ends, FrameRate, Place, Record, SourceGop, SourceProfile};
use crate::media::modes::LatencyMode;
use crate::media::plan::{Cut, Plan, SourcePlan};
use crate::media::track::{AudioConfig, Codec, Colour, Program, Track, TrackConfig, VideoConfig};
use crate::time::{Dts, Mono, Now, Pts, Wall};

mod breaks;
mod codecs;
mod languages;
mod markers;
mod resume;

const VIDEO: u16 = 256;
const AUDIO: u16 = 257;
const WRAP: i64 = 1 << 33;
const RATES: [(u32, u32); 11] = [
    (12_500, 1_000),
    (15_000, 1_000),
    (20_000, 1_000),
    (24_000, 1_001),
    (24_000, 1_000),
    (25_000, 1_000),
    (30_000, 1_001),
    (30_000, 1_000),
    (50_000, 1_000),
    (60_000, 1_001),
    (60_000, 1_000),
];

/// A multiplex: units with the 90 kHz instant at which each arrives, in order of arrival.
#[derive(Clone, Debug, Default)]
struct Mux(Vec<(i64, AccessUnit)>);

fn unit(pid: u16, pts: i64, dts: i64, random_access: bool) -> AccessUnit {
    AccessUnit {
        pid,
        codec: if pid == VIDEO { Codec::H264 } else { Codec::Aac },
        pts: Pts(pts.rem_euclid(WRAP)),
        dts: Dts(dts.rem_euclid(WRAP)),
        random_access,
        damaged: false,
        received: Mono(0),
        data: Bytes::from_static(b"unit"),
    }
}

impl Mux {
    /// Video of frames `from..to` with B-frames: source time runs `pts0` ahead of arrival. `idr`: which frames are.
    fn video(&mut self, rate: FrameRate, pts0: i64, frames: std::ops::Range<i64>, idr: impl Fn(i64) -> bool) {
        let mut last_idr = frames.start;
        for k in frames {
            if idr(k) {
                last_idr = k;
            }
            // I P B B in decode order, cut short before an IDR: the next two frames tell.
            let i = k - last_idr;
            let shown = match (i - 1).rem_euclid(3) {
                _ if i == 0 => k,
                0 if (1..=2).all(|ahead| !idr(k + ahead)) => k + 2,
                0 => k,
                back if idr(k - back + 1) || (k - back + 1..=k - back + 2).any(&idr) => k,
                _ => k - 1,
            };
            let dts = rate.ticks(k);
            self.0.push((dts, unit(VIDEO, pts0 + rate.ticks(shown + 1), pts0 + dts, idr(k))));
        }
    }

    /// AAC frames `from..to` at `hz`, arriving 80 ms after the picture of their time; stamps `off` beside it.
    fn audio(&mut self, hz: i64, pts0: i64, off: i64, frames: std::ops::Range<i64>) {
        for m in frames {
            let time = m * 1_024 * 90_000 / hz;
            self.0.push((time + 7_200, unit(AUDIO, pts0 + time + off, pts0 + time + off, true)));
        }
    }

    fn run(&self, facts: Facts) -> Vec<Out> {
        self.run_named(facts, None)
    }

    /// The headers name a rate.
    fn run_named(&self, facts: Facts, named: Option<FrameRate>) -> Vec<Out> {
        let mut units = self.0.clone();
        units.sort_by_key(|(at, unit)| (*at, unit.pid));
        let mut timeline = Timeline::new(facts);
        open(&mut timeline, 48_000);
        if let TrackConfig::Video(config) = video_config() {
            timeline.config(0, VIDEO, &TrackConfig::Video(VideoConfig { rate: named, ..config }));
        }
        let (mut out, mut last) = (Vec::new(), now(0));
        for (at, mut unit) in units {
            last = now(at);
            while let Some(due) = timeline.deadline().filter(|due| *due <= last.mono) {
                timeline.handle_timeout(Now { mono: due, ..last });
                if timeline.deadline() == Some(due) {
                    break;
                }
            }
            unit.received = last.mono;
            timeline.push(last, 0, unit);
            out.extend(std::iter::from_fn(|| timeline.poll()));
        }
        timeline.finish(last);
        out.extend(std::iter::from_fn(|| timeline.poll()));
        out
    }
}

fn open(timeline: &mut Timeline, hz: u32) {
    timeline.leg_joined(0);
    let track = |pid, codec| Track::new(pid, codec);
    let tracks = vec![track(VIDEO, Codec::H264), track(AUDIO, Codec::Aac)];
    timeline.program(0, &Program { number: 1, pcr_pid: None, tracks });
    timeline.config(0, VIDEO, &video_config());
    let audio = AudioConfig { codec: Codec::Aac, object_type: 2, sample_rate: hz, channels: 2, asc: Bytes::new() };
    timeline.config(0, AUDIO, &TrackConfig::Audio(audio));
}

fn video_config() -> TrackConfig {
    TrackConfig::Video(VideoConfig {
        codec: Codec::H264,
        width: 640,
        height: 360,
        sar: (1, 1),
        rate: None,
        interlaced: false,
        colour: Colour::default(),
        profile: [77, 0, 30],
        bit_depth: 8,
        chroma_format: 1,
        reorder: None,
        sps: Bytes::new(),
        pps: vec![],
    })
}

fn now(ticks: i64) -> Now {
    let nanos = ticks * 100_000 / 9;
    Now { mono: Mono((nanos + 5_000_000_000).cast_unsigned()), wall: Wall(1_700_000_000_000_000_000 + nanos) }
}

fn facts(kind: ChannelKind, profile: Option<SourceProfile>) -> Facts {
    Facts { kind, mode: LatencyMode::Ultra, profile, last_msn: None, rules: Rules::default() }
}

fn rates() -> impl Iterator<Item = FrameRate> {
    RATES.into_iter().map(|(num, den)| FrameRate::new(num, den))
}

fn ready(out: &[Out]) -> &Plan {
    out.iter().find_map(|out| if let Out::Ready(ready) = out { Some(&**ready) } else { None }).expect("a grid")
}

/// One thing on a track: its place, start and duration in ticks, and whether it is a gap, or decodable alone.
#[derive(Clone, Copy, Debug)]
struct Item {
    place: Place,
    start: i64,
    duration: i64,
    gap: bool,
    sync: bool,
    /// A discontinuity came before it.
    broken: bool,
}

fn items(out: &[Out], track: Option<u16>) -> Vec<Item> {
    let hz = 48_000;
    let (mut items, mut broken) = (Vec::new(), false);
    for out in out {
        let item = match out {
            Out::Source(s) if track.is_none() => Item {
                place: s.place,
                start: s.dts,
                duration: i64::from(s.duration),
                gap: false,
                sync: s.unit.random_access,
                broken,
            },
            Out::Audio(a) if track == Some(a.track) => {
                let start = a.m * 1_024 * 90_000 / hz;
                Item { place: a.place, start, duration: 1_920, gap: false, sync: true, broken }
            }
            Out::Silence { track: t, m, place, .. } if track == Some(*t) => {
                let start = m * 1_024 * 90_000 / hz;
                Item { place: *place, start, duration: 1_920, gap: false, sync: true, broken }
            }
            Out::Gap { track: t, place, start, duration } if *t == track => {
                Item { place: *place, start: *start, duration: i64::from(*duration), gap: true, sync: false, broken }
            }
            Out::Discontinuity { .. } => {
                broken = true;
                continue;
            }
            _ => continue,
        };
        broken = false;
        items.push(item);
    }
    items
}

/// Numbers never skip; places end where they say; durations sum exactly; parts and segments keep their targets.
fn check_source(out: &[Out], what: &str) {
    let ready = ready(out);
    let (items, plan) = (items(out, None), ready.source.expect("a source plan"));
    let target = i64::from(ready.grid.cadence.part_target_ms()) * 90;
    assert_eq!((items[0].place.msn, items[0].place.part), (ready.grid.msn0, 0), "{what}");
    let (mut segment, mut part) = (0, 0);
    for pair in items.windows(2) {
        let (a, b) = (pair[0], pair[1]);
        assert!(a.duration > 0, "{what}: {a:?}");
        segment += a.duration;
        part += a.duration;
        let same = (b.place.msn, b.place.part) == (a.place.msn, a.place.part);
        let next_part = (b.place.msn, b.place.part) == (a.place.msn, a.place.part + 1);
        let next_segment = (b.place.msn, b.place.part) == (a.place.msn + 1, 0);
        let told = match a.place.ends {
            Ends::Nothing => same,
            // A part that nothing follows any more: the DISCONTINUITY ends its segment.
            Ends::Part => next_part || (b.broken && next_segment),
            Ends::Segment => next_segment,
        };
        assert!(told, "{what}: {a:?} then {b:?}");
        if !b.broken {
            assert_eq!(a.start + a.duration, b.start, "{what}: {a:?} then {b:?}");
        }
        if a.place.ends != Ends::Nothing {
            assert!(part <= target, "{what}: a part of {part} > {target} ends at {a:?}");
            assert!(part * 100 >= target * 85 || a.place.ends == Ends::Segment, "{what}: {part} of {target}, {a:?}");
            part = 0;
        }
        if b.broken {
            (segment, part) = (0, 0);
        }
        if a.place.ends == Ends::Segment {
            let seconds = (segment as f64 / 90_000.0).round();
            assert!(seconds <= f64::from(plan.target_duration), "{what}: {segment} ticks, {plan:?}");
            segment = 0;
        }
    }
}

/// Audio lies in the segment that is on air at its start, and every part is named in order.
fn check_audio(out: &[Out], what: &str) {
    let (source, audio) = (items(out, None), items(out, Some(0)));
    let mut begins: Vec<(u64, i64)> = Vec::new();
    for item in &source {
        if begins.last().is_none_or(|(msn, _)| *msn != item.place.msn) {
            begins.push((item.place.msn, item.start));
        }
    }
    for pair in audio.windows(2) {
        let (a, b) = (pair[0].place, pair[1].place);
        assert!((b.msn, b.part) >= (a.msn, a.part), "{what}: {pair:?}");
        // A gap's start is what the grid says, not what the source's cuts made of it.
        assert!(pair[0].gap || pair[1].gap || pair[1].start > pair[0].start, "{what}: {pair:?}");
        assert!(b.msn <= a.msn + 1 && (b.msn != a.msn || b.part <= a.part + 1), "{what}: {pair:?}");
        assert!(b.msn == a.msn || b.part == 0, "{what}: {pair:?}");
    }
    // Only the last part of a segment may be short.
    let target = i64::from(ready(out).grid.cadence.part_target_ms()) * 90;
    let mut part = 0;
    for pair in audio.windows(2) {
        let (a, b) = (pair[0].place, pair[1].place);
        part += pair[0].duration;
        if (a.msn, a.part) != (b.msn, b.part) {
            let whole = pair[0].gap || b.msn != a.msn || part * 100 >= target * 85;
            assert!(whole, "{what}: a part of {part} in {target} ends with {a:?}");
            part = 0;
        }
    }
    for item in audio.iter().filter(|item| !item.gap) {
        let i = begins.iter().rposition(|(_, at)| *at <= item.start).unwrap_or(0);
        assert_eq!(item.place.msn, begins[i].0, "{what}: {item:?}, {:?}", &begins[i..(i + 2).min(begins.len())]);
    }
}

/// A name, which frames are IDRs, and what the probe would call it.
type Gop = (&'static str, Box<dyn Fn(i64) -> bool>, SourceGop);

fn gops(rate: FrameRate) -> Vec<Gop> {
    let every = |seconds: f64| (rate.hz() * seconds).round() as i64;
    let mut kinds: Vec<Gop> = Vec::new();
    for (name, seconds) in [("0.96 s", 0.96), ("1 s", 1.0), ("2 s", 2.0), ("2.5 s", 2.5), ("5 s", 5.0)] {
        let g = every(seconds);
        kinds.push((name, Box::new(move |k| k % g == 0), SourceGop::Regular(g as u32)));
    }
    // Scene cuts: at most the table's F apart, 2 s.
    let max = i64::from(Cadence::for_rate(rate.hz(), LatencyMode::Ultra).segment);
    let scene = move |k: i64| k % max == 0 || (k / max % 3 == 1 && k % max == max * 3 / 5);
    kinds.push(("scene cuts", Box::new(scene), SourceGop::Irregular { max: max as u32 }));
    let far = every(9.0);
    kinds.push(("9 s", Box::new(move |k| k % far == 0), SourceGop::Unknown));
    kinds.push(("one IDR, open GOPs after it", Box::new(|k| k == 0), SourceGop::Unknown));
    kinds
}

#[test]
fn the_source_table_gives_f_and_target_duration() {
    let at = |hz: f64, mode| Cadence::for_rate(hz, mode);
    let g = |seconds: f64| SourceGop::Regular((25.0 * seconds).round() as u32);
    use LatencyMode::{Normal, Ultra};
    let max = SourceGop::Irregular { max: 50 };
    let rows = [
        (Ultra, g(0.96), Cut::Regular, 48, 2, true, true),
        (Ultra, g(1.0), Cut::Regular, 50, 2, true, true),
        (Ultra, g(1.48), Cut::Regular, 37, 1, true, true),
        (Ultra, g(2.0), Cut::Regular, 50, 2, true, true),
        (Ultra, g(2.48), Cut::Regular, 62, 2, true, true),
        (Ultra, SourceGop::Regular(63), Cut::Regular, 63, 3, true, false),
        (Ultra, g(5.0), Cut::Regular, 125, 5, true, false),
        (Ultra, g(6.0), Cut::Regular, 150, 6, true, false),
        (Ultra, g(6.04), Cut::Fallback, 50, 4, false, false),
        (Ultra, max, Cut::Irregular, 50, 4, true, false),
        (Ultra, SourceGop::Irregular { max: 51 }, Cut::Fallback, 50, 4, false, false),
        (Ultra, SourceGop::Unknown, Cut::Fallback, 50, 4, false, false),
        (Normal, g(0.96), Cut::Regular, 144, 6, true, true),
        (Normal, SourceGop::Regular(63), Cut::Regular, 126, 5, true, true),
        (Normal, g(5.0), Cut::Regular, 125, 5, true, true),
        (Normal, g(6.48), Cut::Regular, 162, 6, true, true),
        (Normal, max, Cut::Irregular, 150, 12, true, false),
        (Normal, SourceGop::Unknown, Cut::Fallback, 150, 12, false, false),
    ];
    for (mode, gop, cut, segment, target_duration, independent, fits_ladder) in rows {
        let want = SourcePlan { cut, segment, target_duration, independent, fits_ladder };
        assert_eq!(plan(gop, at(25.0, mode), mode), want, "{mode:?} {gop:?}");
    }
}

#[test]
fn source_cuts_keep_every_promise_at_every_rate_and_gop() {
    for rate in rates() {
        for (name, idr, gop) in gops(rate) {
            for stored in [false, true] {
                let what = format!("{rate:?}, GOP {name}, stored {stored}");
                let frames = (rate.hz() * 24.0) as i64;
                let mut mux = Mux::default();
                mux.video(rate, WRAP - 400_000, 0..frames, &idr);
                mux.audio(48_000, WRAP - 400_000 + rate.ticks(1), 500, 0..24 * 46);
                let out = mux.run(facts(
                    ChannelKind::Transmux,
                    stored.then_some(SourceProfile { rate, gop, captions: Default::default() }),
                ));
                check_source(&out, &what);
                check_audio(&out, &what);
                let plan = ready(&out).source.unwrap();
                let sums: i64 = items(&out, None).iter().map(|item| item.duration).sum();
                assert!((sums - rate.ticks(frames)).abs() <= 1, "{what}: durations sum to {sums}");
                if stored && plan.independent {
                    check_regular(&out, rate, plan, &what);
                }
            }
        }
    }
}

#[test]
fn a_stored_profile_gives_way_to_headers_that_name_another_rate() {
    let (old, new) = (FrameRate::new(25_000, 1_000), FrameRate::new(30_000, 1_001));
    let stored = SourceProfile { rate: old, gop: SourceGop::Regular(50), captions: Default::default() };
    for kind in [ChannelKind::Transcode, ChannelKind::Transmux] {
        let mut mux = Mux::default();
        mux.video(new, 900_000, 0..300, |k| k % 60 == 0);
        let out = mux.run_named(facts(kind, Some(stored)), Some(new));
        assert_eq!(ready(&out).grid.cadence.rate, new, "{kind:?}");
        assert_eq!(ready(&out).grid.cadence.segment, 60, "{kind:?}");
        let out = mux.run_named(facts(kind, Some(stored)), None);
        assert_eq!(ready(&out).grid.cadence.rate, old, "{kind:?}: nothing says otherwise in time");
    }
}

/// Segments begin with an IDR, where the plan says.
fn check_regular(out: &[Out], rate: FrameRate, plan: SourcePlan, what: &str) {
    let (grid, mut last) = (ready(out).grid, None);
    for item in items(out, None) {
        if last != Some(item.place.msn) {
            last = Some(item.place.msn);
            let (first, d) = (grid.first_frame(item.place.msn), rate.frames(item.start));
            assert!(item.sync, "{what}: {item:?}");
            let room = if plan.cut == Cut::Regular { 0 } else { i64::from(plan.segment) - 1 };
            assert!((first..=first + room).contains(&d), "{what}: {item:?} begins at {d}");
        }
    }
}

#[test]
fn composition_offsets_give_the_sources_own_presentation_times() {
    for rate in rates() {
        let mut mux = Mux::default();
        mux.video(rate, 77_777, 0..400, |k| k % 48 == 0);
        let gop = SourceGop::Regular(48);
        let out =
            mux.run(facts(ChannelKind::Transmux, Some(SourceProfile { rate, gop, captions: Default::default() })));
        let first = 77_777 + rate.ticks(1);
        let mut seen = 0;
        for out in &out {
            if let Out::Source(s) = out {
                assert_eq!(s.dts + i64::from(s.cto), s.unit.pts.0 - first, "{rate:?}: {s:?}");
                seen += 1;
            }
        }
        assert_eq!(seen, 400);
    }
}

#[test]
fn leading_pictures_of_an_open_gop_are_decoded_and_not_shown() {
    for kind in [ChannelKind::Transcode, ChannelKind::Transmux, ChannelKind::Hybrid] {
        let rate = FrameRate::new(25_000, 1_000);
        let mut mux = Mux::default();
        // Random access points every 48 units in decode order, each before two pictures that are shown before it.
        for k in 0..480 {
            let shown = if k % 3 == 0 { k + 2 } else { k - 1 };
            mux.0.push((rate.ticks(k), unit(VIDEO, 900 + rate.ticks(shown + 1), 900 + rate.ticks(k), k % 48 == 0)));
        }
        let out = mux.run(facts(kind, None));
        let videos: Vec<(i64, bool)> = out
            .iter()
            .filter_map(|out| if let Out::Video { n, prime, .. } = out { Some((*n, *prime)) } else { None })
            .collect();
        if kind != ChannelKind::Transmux {
            assert_eq!(videos.len(), 480);
            let mut shown: Vec<i64> = videos.iter().filter(|(_, prime)| !prime).map(|(n, _)| *n).collect();
            shown.sort_unstable();
            assert!(shown.iter().copied().eq(0..478), "{shown:?}");
        }
        if kind != ChannelKind::Transcode {
            check_source(&out, "open GOP");
            check_regular(&out, rate, ready(&out).source.unwrap(), "open GOP");
        }
    }
}

#[test]
fn new_headers_of_a_source_begin_a_segment_behind_a_discontinuity() {
    let rate = FrameRate::new(25_000, 1_000);
    let mut mux = Mux::default();
    mux.video(rate, 9, 0..400, |k| k % 50 == 0);
    let mut timeline = Timeline::new(facts(ChannelKind::Transmux, None));
    open(&mut timeline, 48_000);
    let mut out = Vec::new();
    for (k, (at, unit)) in mux.0.into_iter().enumerate() {
        if k == 200 {
            let TrackConfig::Video(mut config) = video_config() else { unreachable!() };
            config.width = 1_280;
            timeline.config(0, VIDEO, &TrackConfig::Video(config));
        }
        timeline.push(now(at), 0, AccessUnit { received: now(at).mono, ..unit });
        out.extend(std::iter::from_fn(|| timeline.poll()));
    }
    timeline.finish(now(0));
    out.extend(std::iter::from_fn(|| timeline.poll()));
    check_source(&out, "new headers");
    let position = |is: &dyn Fn(&Out) -> bool| out.iter().position(is).expect("comes");
    let broken = position(&|out| matches!(out, Out::Discontinuity { .. }));
    assert_eq!(position(&|out| matches!(out, Out::Config { .. })), broken + 1);
    assert_eq!(out[..broken].iter().filter(|out| matches!(out, Out::Source(_))).count(), 200);
    assert_eq!(out[broken..].iter().filter(|out| matches!(out, Out::Source(_))).count(), 200);
}

#[test]
fn the_second_leg_takes_over_on_the_same_numbers_at_a_random_access_point() {
    for kind in [ChannelKind::Transcode, ChannelKind::Transmux] {
        let rate = FrameRate::new(25_000, 1_000);
        let mut mux = Mux::default();
        mux.video(rate, 9, 0..600, |k| k % 50 == 0);
        let mut timeline = Timeline::new(facts(kind, None));
        let mut out = Vec::new();
        open(&mut timeline, 48_000);
        timeline.leg_joined(1);
        let tracks = vec![Track::new(VIDEO, Codec::H264)];
        timeline.program(1, &Program { number: 1, pcr_pid: None, tracks });
        timeline.config(1, VIDEO, &video_config());
        for (at, unit) in mux.0 {
            let unit = AccessUnit { received: now(at).mono, ..unit };
            // Leg a dies after 12 s without a word.
            if at < 12 * 90_000 + 9 {
                timeline.push(now(at), 0, unit.clone());
            }
            timeline.push(now(at), 1, unit);
            out.extend(std::iter::from_fn(|| timeline.poll()));
        }
        timeline.finish(now(0));
        out.extend(std::iter::from_fn(|| timeline.poll()));
        assert_eq!(timeline.on_air(), Some(1));
        let anchors = out.iter().filter(|out| matches!(out, Out::Record(Record::Anchor(_)))).count();
        assert_eq!(anchors, 1, "{kind:?}: the run goes on");
        for out in &out {
            if let Out::Video { n, unit, prime: false, .. } = out {
                assert_eq!(*n, rate.frames(unit.pts.0 - 9) - 1);
            }
        }
        if kind == ChannelKind::Transmux {
            check_source(&out, "take-over");
        }
    }
}

#[test]
fn what_another_leg_showed_is_doubled_and_what_was_filled_is_not() {
    let rate = FrameRate::new(25_000, 1_000);
    let mut mux = Mux::default();
    mux.video(rate, 9, 0..600, |k| k % 10 == 0);
    let mut timeline = Timeline::new(facts(ChannelKind::Transcode, None));
    open(&mut timeline, 48_000);
    timeline.leg_joined(1);
    timeline.program(1, &Program { number: 1, pcr_pid: None, tracks: vec![Track::new(VIDEO, Codec::H264)] });
    timeline.config(1, VIDEO, &video_config());
    // Leg b brings everything 1.4 s later than leg a, which dies after 12 s.
    let (second, dies) = (126_000, 12 * 90_000);
    let a = mux.0.iter().filter(|(at, _)| *at < dies).map(|(at, unit)| (*at, 0, unit.clone()));
    let mut units: Vec<_> = a.chain(mux.0.iter().map(|(at, unit)| (at + second, 1, unit.clone()))).collect();
    units.sort_by_key(|(at, ..)| *at);
    let mut out = Vec::new();
    for (at, leg, unit) in units {
        while let Some(due) = timeline.deadline().filter(|due| *due <= now(at).mono) {
            timeline.handle_timeout(Now { mono: due, ..now(at) });
            if timeline.deadline() == Some(due) {
                break;
            }
        }
        timeline.push(now(at), leg, AccessUnit { received: now(at).mono, ..unit });
        out.extend(std::iter::from_fn(|| timeline.poll()));
    }
    // Frames up to this one were shown by leg a.
    let last = dies / 3_600 - 1;
    let hidden: Vec<(i64, bool)> = out
        .iter()
        .filter_map(|out| match out {
            Out::Video { n, hidden: true, doubled, .. } => Some((*n, *doubled)),
            _ => None,
        })
        .collect();
    assert!(hidden.iter().any(|(n, _)| *n <= last) && hidden.iter().any(|(n, _)| *n > last), "{hidden:?}");
    assert!(hidden.iter().all(|(n, doubled)| *doubled == (*n <= last)), "{last}: {hidden:?}");
}

#[test]
fn holes_of_any_length_never_skip_a_number_or_stretch_a_part() {
    let mut seed = 1u64;
    for rate in rates() {
        for (name, idr, gop) in gops(rate) {
            let mut mux = Mux::default();
            mux.video(rate, 5_000, 0..(rate.hz() * 40.0) as i64, &idr);
            mux.audio(48_000, 5_000 + rate.ticks(1), 0, 0..40 * 46);
            let mut dark = 0;
            mux.0.retain(|(at, unit)| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                if *at > 300_000 && seed >> 33 < (1 << 31) / 60 && *at >= dark && unit.pid == VIDEO {
                    dark = at + i64::try_from(seed % 400_000).unwrap();
                }
                *at >= dark
            });
            let out =
                mux.run(facts(ChannelKind::Transmux, Some(SourceProfile { rate, gop, captions: Default::default() })));
            let what = format!("{rate:?}, GOP {name}");
            assert!(items(&out, None).iter().any(|item| item.gap), "{what}: no hole spans a part");
            check_source(&out, &what);
            check_audio(&out, &what);
        }
    }
}

#[test]
fn a_restarted_source_begins_a_new_segment_behind_a_discontinuity() {
    let rate = FrameRate::new(25_000, 1_000);
    let mut mux = Mux::default();
    mux.video(rate, 1_000, 0..290, |k| k % 50 == 0);
    mux.audio(48_000, 1_000 + 3_600, 0, 0..530);
    // The encoder starts again at the same PTS as before, half a second later.
    let mut again = Mux::default();
    again.video(rate, 1_000, 0..300, |k| k % 50 == 0);
    again.audio(48_000, 1_000 + 3_600, 0, 0..500);
    mux.0.extend(again.0.into_iter().map(|(at, unit)| (at + 303 * 3_600, unit)));
    let out = mux.run(facts(ChannelKind::Transmux, None));
    check_source(&out, "restart");
    check_audio(&out, "restart");
    let broken: Vec<u64> =
        out.iter().filter_map(|out| if let Out::Discontinuity { msn } = out { Some(*msn) } else { None }).collect();
    assert_eq!(broken, [ready(&out).grid.msn0 + 6]);
    let pdt = out.iter().filter(|out| matches!(out, Out::Record(Record::Pdt(_)))).count();
    let anchors = out.iter().filter(|out| matches!(out, Out::Record(Record::Anchor(_)))).count();
    assert_eq!((pdt, anchors), (2, 2));
    let after = items(&out, None).into_iter().find(|item| item.broken).expect("goes on");
    assert_eq!((after.place.msn, after.start, after.sync), (broken[0], 300 * 3_600, true));
    let audio_after = items(&out, Some(0)).into_iter().filter(|item| item.place.msn >= broken[0]).count();
    assert!(audio_after > 480, "{audio_after} audio frames after the restart");
}

#[test]
fn records_come_before_what_they_number() {
    for kind in [ChannelKind::Transcode, ChannelKind::Transmux, ChannelKind::Hybrid] {
        let mut mux = Mux::default();
        mux.video(FrameRate::new(25_000, 1_000), 9, 0..300, |k| k % 25 == 0);
        mux.audio(48_000, 9 + 3_600, 0, 0..500);
        let out = mux.run(facts(kind, None));
        let position = |is: &dyn Fn(&Out) -> bool| out.iter().position(is).expect("comes");
        let first_unit = position(&|out| {
            matches!(out, Out::Video { .. } | Out::Source(_) | Out::Audio(_) | Out::AudioToWorker { .. })
        });
        assert!(position(&|out| matches!(out, Out::Record(Record::Plan(_)))) == 0);
        assert!(position(&|out| matches!(out, Out::Record(Record::Anchor(_)))) < first_unit);
        assert!(position(&|out| matches!(out, Out::Record(Record::Pdt(_)))) < first_unit);
        assert!(
            position(&|out| matches!(out, Out::Record(Record::Audio(_))))
                < position(&|out| matches!(out, Out::Audio(_)))
        );
    }
}

#[test]
fn a_ladder_is_ready_within_half_a_second_of_the_first_idr() {
    for rate in rates() {
        let mut mux = Mux::default();
        mux.video(rate, 9, 0..30, |k| k == 0);
        let mut timeline = Timeline::new(facts(
            ChannelKind::Transcode,
            Some(SourceProfile { rate, gop: SourceGop::Unknown, captions: Default::default() }),
        ));
        open(&mut timeline, 48_000);
        let mut units = mux.0.into_iter();
        while timeline.on_air().is_none() {
            let (at, unit) = units.next().expect("ready before the units end");
            assert!(at <= 45_000, "{rate:?}: not ready after {at} ticks");
            timeline.push(now(at), 0, AccessUnit { received: now(at).mono, ..unit });
        }
    }
}

#[test]
fn hybrid_ladders_put_their_idrs_where_the_source_is_cut() {
    let rate = FrameRate::new(25_000, 1_000);
    let mut mux = Mux::default();
    mux.video(rate, 9, 0..500, |k| k % 24 == 0);
    let out = mux.run(facts(ChannelKind::Hybrid, None));
    let grid = ready(&out).grid;
    assert_eq!((grid.cadence.segment, grid.cadence.gop), (48, 48));
    let (mut last, mut cuts) = (None, 0);
    for item in items(&out, None) {
        if last != Some(item.place.msn) {
            last = Some(item.place.msn);
            let n = grid.first_frame(item.place.msn);
            let idr =
                out.iter().any(|out| matches!(out, Out::Video { n: at, unit, .. } if *at == n && unit.random_access));
            assert!(idr && item.sync, "{item:?}");
            cuts += 1;
        }
    }
    assert_eq!(cuts, 11);
}

#[test]
fn hybrid_is_refused_with_words_where_no_multiple_of_the_gop_fits() {
    let mut mux = Mux::default();
    mux.video(FrameRate::new(25_000, 1_000), 9, 0..200, |k| k % 125 == 0);
    let out = mux.run(facts(ChannelKind::Hybrid, None));
    assert!(matches!(&out[..], [Out::Refused(words)] if words.contains("GOP to 1 or 2 s")), "{out:?}");
}

/// (m, PTS) of the audio that came out, and the A/V offset of each in ticks against the first picture's PTS.
fn offsets(out: &[Out], hz: i64, pts_n0: i64) -> Vec<i64> {
    out.iter()
        .filter_map(|out| if let Out::Audio(a) = out { Some((a.m, a.unit.pts.0)) } else { None })
        .map(|(m, pts)| m * 1_024 * 90_000 / hz - (pts - pts_n0))
        .collect()
}

#[test]
fn passed_through_audio_keeps_one_offset_within_eleven_milliseconds() {
    let rate = FrameRate::new(30_000, 1_001);
    for off in [-1_500, -960, -13, 0, 444, 959, 961, 1_900] {
        let mut mux = Mux::default();
        mux.video(rate, 90_000, 0..600, |k| k % 60 == 0);
        mux.audio(48_000, 90_000 + rate.ticks(1), off, 0..900);
        let out = mux.run(facts(ChannelKind::Transcode, None));
        let offsets = offsets(&out, 48_000, 90_000 + rate.ticks(1));
        assert!(offsets.len() >= 898 && offsets.iter().all(|o| o.abs() <= 990), "{off}: {:?}", &offsets[..3]);
        assert!(offsets.iter().all(|o| (o - offsets[0]).abs() <= 1), "{off}: constant");
        let records = out.iter().filter(|out| matches!(out, Out::Record(Record::Audio(_)))).count();
        assert_eq!(records, 1, "{off}");
    }
}

#[test]
fn drift_beyond_ten_milliseconds_drops_or_repeats_one_frame_in_the_log() {
    for ppm in [-400i64, 400] {
        let rate = FrameRate::new(25_000, 1_000);
        let mut mux = Mux::default();
        mux.video(rate, 90_000, 0..25 * 300, |k| k % 50 == 0);
        mux.audio(48_000, 90_000 + 3_600, 0, 0..300 * 46);
        for (at, unit) in mux.0.iter_mut().filter(|(_, unit)| unit.pid == AUDIO) {
            let time = unit.pts.0 - 93_600;
            unit.pts = Pts(unit.pts.0 + time * ppm / 1_000_000);
            unit.dts = unit.pts.as_dts();
            *at = unit.pts.0 - 93_600 + 7_200;
        }
        let out = mux.run(facts(ChannelKind::Transcode, None));
        let ms: Vec<i64> =
            out.iter().filter_map(|out| if let Out::Audio(a) = out { Some(a.m) } else { None }).collect();
        assert!(ms.windows(2).all(|pair| pair[1] == pair[0] + 1), "{ppm}: every place once");
        // 294 s x 400 ppm = 118 ms: five frames of 21.3 ms, the first after half a one.
        let drifts = out.iter().filter(|out| matches!(out, Out::Fault(f) if f.kind == FaultKind::AudioDrift)).count();
        let records = out.iter().filter(|out| matches!(out, Out::Record(Record::Audio(_)))).count();
        assert!((5..=6).contains(&drifts) && records == drifts + 1, "{ppm}: {drifts} drifts, {records} records");
        let worst = offsets(&out, 48_000, 93_600).into_iter().map(i64::abs).max().unwrap();
        assert!(worst <= 1_920 + 180, "{ppm}: {worst}");
    }
}

/// Both tracks for 20 s; from 10 s on their stamps jump.
fn jumped(video: i64, audio: i64) -> Vec<Out> {
    let rate = FrameRate::new(25_000, 1_000);
    let mut mux = Mux::default();
    mux.video(rate, 900_000_000, 0..500, |k| k % 50 == 0);
    mux.audio(48_000, 900_000_000 + 3_600, 0, 0..930);
    for (at, unit) in &mut mux.0 {
        let (from, by) = if unit.pid == VIDEO { (900_000, video) } else { (907_200, audio) };
        if *at >= from {
            unit.pts = Pts((unit.pts.0 + by).rem_euclid(WRAP));
            unit.dts = Dts((unit.dts.0 + by).rem_euclid(WRAP));
        }
    }
    mux.run(facts(ChannelKind::Transcode, None))
}

#[test]
fn audio_follows_the_picture_through_jumps_and_survives_alone() {
    const HOUR: i64 = 3_600 * 90_000;
    let cases = [
        ("both +1 h", HOUR, HOUR),
        ("both -1 h", -HOUR, -HOUR),
        ("both -0.3 s", -27_000, -27_000),
        ("both +0.7 s", 63_000, 63_000),
        ("both +half a frame", 1_800, 1_800),
        ("video alone -1 h", -HOUR, 0),
        ("audio alone +1 h", 0, HOUR),
        ("audio alone -5 s", 0, -450_000),
        ("apart", HOUR, -HOUR),
    ];
    for (name, video, audio) in cases {
        let out = jumped(video, audio);
        let mut last = (i64::MIN, 0);
        // Place on the grid against true time (arrival): pictures and audio alike.
        let (mut av, mut count) = (Vec::new(), 0);
        for out in &out {
            match out {
                Out::Video { n, prime: false, unit, .. } => {
                    last = (n * 3_600 - i64::try_from(unit.received.0).unwrap() * 9 / 100_000, last.1);
                }
                Out::Audio(a) => {
                    let lag = a.m * 1_920 - i64::try_from(a.unit.received.0).unwrap() * 9 / 100_000 + 7_200;
                    av.push((a.unit.received.0, lag - last.0));
                    count += 1;
                }
                _ => {}
            }
        }
        assert!(count > 930 - 70, "{name}: {count} audio frames");
        // 2.5 s after the jump picture and sound belong together again: 40 ms, and the picture's reordering (3 frames).
        let settled: Vec<i64> = av.iter().filter(|(at, _)| *at > 17_500_000_000).map(|(_, off)| *off).collect();
        let before: Vec<i64> =
            av.iter().filter(|(at, _)| (8_000_000_000..14_000_000_000).contains(at)).map(|(_, off)| *off).collect();
        let mean = |of: &[i64]| of.iter().sum::<i64>() / i64::try_from(of.len()).unwrap();
        assert!((mean(&settled) - mean(&before)).abs() <= 3_600, "{name}: {} then {}", mean(&before), mean(&settled));
        let runs = out.iter().filter(|out| matches!(out, Out::Record(Record::Anchor(_)))).count();
        assert!(runs <= 2, "{name}: {runs} runs");
    }
}

#[test]
fn a_program_without_video_makes_its_grid_from_audio() {
    for kind in [ChannelKind::Transcode, ChannelKind::Transmux] {
        let mut timeline = Timeline::new(facts(kind, None));
        timeline.leg_joined(0);
        let tracks = vec![Track::new(AUDIO, Codec::Aac)];
        timeline.program(0, &Program { number: 1, pcr_pid: None, tracks });
        let config =
            AudioConfig { codec: Codec::Aac, object_type: 2, sample_rate: 44_100, channels: 2, asc: Bytes::new() };
        timeline.config(0, AUDIO, &TrackConfig::Audio(config));
        let mut mux = Mux::default();
        mux.audio(44_100, WRAP - 90_000, 0, 0..430);
        // Ten seconds on, the encoder starts again at the same PTS.
        let mut again = Mux::default();
        again.audio(44_100, WRAP - 90_000, 0, 0..430);
        mux.0.extend(again.0.into_iter().map(|(at, unit)| (at + 900_000 + 90_000, unit)));
        let mut out = Vec::new();
        for (at, unit) in mux.0 {
            timeline.push(now(at), 0, AccessUnit { received: now(at).mono, ..unit });
            out.extend(std::iter::from_fn(|| timeline.poll()));
        }
        let ready = ready(&out);
        assert_eq!((ready.grid.cadence.rate, &ready.video), (FrameRate::new(25_000, 1_000), &None));
        let frames: Vec<_> =
            out.iter().filter_map(|out| if let Out::Audio(a) = out { Some(a) } else { None }).collect();
        assert_eq!(frames[0].m, 0);
        assert!(frames.len() >= 858 && frames.windows(2).all(|pair| pair[1].m > pair[0].m), "{}", frames.len());
        assert!(frames.iter().all(|a| a.place == ready.grid.place_audio(a.m, 44_100)));
        // The second's pause is a hole of a second.
        let end = frames.last().unwrap().m * 1_024 * 1_000 / 44_100;
        assert!((end - 20_980).abs() < 60, "{end} ms");
    }
}

#[test]
fn a_program_whose_video_never_comes_goes_on_as_audio_alone() {
    let mut mux = Mux::default();
    mux.audio(48_000, 9, 0, 0..400);
    let out = mux.run(facts(ChannelKind::Transcode, None));
    assert!(ready(&out).video.is_none());
    assert!(out.iter().filter(|out| matches!(out, Out::Audio(_))).count() > 390);
}

#[test]
fn audio_that_is_encoded_anew_goes_to_the_worker_by_sample() {
    let mut timeline = Timeline::new(facts(ChannelKind::Transcode, None));
    open(&mut timeline, 96_000);
    let mut mux = Mux::default();
    mux.video(FrameRate::new(25_000, 1_000), 45_000, 0..100, |k| k % 50 == 0);
    mux.audio(48_000, 45_000 + 3_600, 9, 0..150);
    mux.0.sort_by_key(|(at, _)| *at);
    let mut samples = Vec::new();
    for (at, unit) in mux.0 {
        timeline.push(now(at), 0, AccessUnit { received: now(at).mono, ..unit });
        while let Some(out) = timeline.poll() {
            if let Out::AudioToWorker { track, at, .. } = out {
                assert_eq!(track, 0);
                samples.push(at);
            }
        }
    }
    assert!(samples.len() > 140);
    assert!(samples.iter().enumerate().all(|(i, at)| *at == i64::try_from(i).unwrap() * 1_024 + 5), "{samples:?}");
}

#[test]
fn hostile_stamps_neither_panic_nor_grow_anything() {
    for kind in [ChannelKind::Transcode, ChannelKind::Transmux, ChannelKind::Hybrid] {
        for seed in 1..40u64 {
            let mut timeline = Timeline::new(facts(kind, None));
            open(&mut timeline, 48_000);
            let (mut noise, mut at, mut outs) = (seed, 0i64, 0usize);
            for _ in 0..3_000 {
                noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let roll = i64::try_from(noise >> 20).unwrap();
                at += roll % 4_000;
                let calm = roll % 5 != 0;
                let dts = if calm { at } else { roll % WRAP };
                let pts = if roll % 7 == 0 { roll / 3 % WRAP } else { dts + roll % 3 * 3_600 };
                let unit = unit(if roll % 3 == 0 { AUDIO } else { VIDEO }, pts, dts, roll % 11 == 0);
                timeline.push(now(at), 0, AccessUnit { received: now(at).mono, ..unit });
                if roll % 501 == 0 {
                    timeline.leg_left(0);
                    open(&mut timeline, 44_100);
                }
                timeline.handle_timeout(now(at));
                outs += std::iter::from_fn(|| timeline.poll()).count();
            }
            timeline.finish(now(at));
            assert!(outs < 60_000, "{kind:?}, seed {seed}: {outs} outputs");
        }
    }
}
