//! A process dies, another one goes on by what was committed: the numbers of both are those of one that never died.

use std::collections::BTreeMap;

use super::*;
use crate::media::plan::Kept;

const SECOND: i64 = 90_000;

/// The clock of another boot.
fn clock(ticks: i64) -> Now {
    let now = now(ticks);
    Now { mono: Mono(now.mono.0 + 777_000_000_000), ..now }
}

struct Successor {
    timeline: Timeline,
    from: i64,
    out: Vec<Out>,
}

impl Successor {
    /// `before`: what the dead process put out, which lived until `died`.
    fn new(facts: Facts, before: &[Out], died: i64, at: i64) -> Successor {
        let records = before.iter().filter_map(|out| match out {
            Out::Record(record) => Some(record.clone()),
            _ => None,
        });
        let kept = Kept::of(records.collect()).expect("a plan and a line");
        let grid = kept.plan.grid;
        // Written down a second before.
        let edge = (grid.cadence.rate.frames(died - SECOND), now(died - SECOND).wall);
        let (timeline, from) = Timeline::resume(facts, &kept, Some(edge), clock(at));
        let (begin, step) = match kept.plan.source {
            None => (grid.part_start(from), grid.cadence.part),
            Some(_) => (grid.segment_start(from), grid.cadence.segment),
        };
        assert_eq!(from, begin, "what is listed is whole");
        let ahead = (kept.line().at(&grid, from).0 - clock(at).wall.0) as f64 / 1e9;
        let step = f64::from(step) / grid.cadence.rate.hz();
        assert!(ahead > 0.799 && ahead <= 0.801 + step, "it goes on {ahead} s from now");
        Successor { timeline, from, out: Vec::new() }
    }

    fn pass(&mut self, to: i64) {
        let end = clock(to);
        while let Some(due) = self.timeline.deadline().filter(|due| *due <= end.mono) {
            self.timeline.handle_timeout(Now { mono: due, ..end });
            self.out.extend(std::iter::from_fn(|| self.timeline.poll()));
            assert_ne!(self.timeline.deadline(), Some(due), "a deadline is stuck");
        }
    }

    /// Units of `mux` that arrive from `from` on reach it, on a new connection.
    fn feed(&mut self, mux: &Mux, from: i64) {
        self.pass(from);
        open(&mut self.timeline, 48_000);
        let mut units: Vec<_> = mux.0.iter().filter(|(at, _)| *at >= from).cloned().collect();
        units.sort_by_key(|(at, unit)| (*at, unit.pid));
        for (at, mut unit) in units {
            self.pass(at);
            unit.received = clock(at).mono;
            self.timeline.push(clock(at), 0, unit);
            self.out.extend(std::iter::from_fn(|| self.timeline.poll()));
        }
    }
}

/// N of every picture by its PTS.
fn shown(out: &[Out]) -> BTreeMap<i64, i64> {
    let one = |out: &Out| match out {
        Out::Video { n, prime: false, hidden: false, unit, .. } => Some((unit.pts.0, *n)),
        _ => None,
    };
    out.iter().filter_map(one).collect()
}

fn up_to(mux: &Mux, died: i64) -> Mux {
    Mux(mux.0.iter().filter(|(at, _)| *at < died).cloned().collect())
}

#[test]
fn pictures_of_a_source_that_went_on_keep_their_numbers() {
    for (index, rate) in rates().enumerate() {
        let index = i64::try_from(index).unwrap();
        let (died, back) = (7 * SECOND + index * 7_919, 9 * SECOND + index * 13_331);
        let mut mux = Mux::default();
        let gop = (rate.hz().round() as i64) * 2;
        mux.video(rate, WRAP - 8 * SECOND, 0..gop * 10, |k| k % gop == 0);
        mux.audio(48_000, WRAP - 8 * SECOND + 3_600, 0, 0..900);
        let facts = facts(ChannelKind::Transcode, None);
        let whole = shown(&mux.run(facts));
        let mut next = Successor::new(facts, &up_to(&mux, died).run(facts), died, back - SECOND);
        next.feed(&mux, back);
        let after = shown(&next.out);
        assert!(after.len() > 100, "{rate:?}: {} pictures", after.len());
        for (pts, n) in &after {
            assert_eq!(whole.get(pts), Some(n), "{rate:?}");
            assert!(*n >= next.from, "{rate:?}: {n} was another process's");
        }
        // Slate up to the first of them, and no frame left out.
        let first = after.values().min().unwrap();
        let filled = next.out.iter().filter_map(|out| match out {
            Out::Fill { to, with } => Some((*to, *with)),
            _ => None,
        });
        let filled: Vec<_> = filled.collect();
        assert!(filled.iter().all(|(_, with)| *with == Filling::Slate), "{rate:?}: nobody has a picture to hold");
        assert!(filled.last().is_none_or(|(to, _)| to <= first) && *first <= filled.last().map_or(next.from, |f| f.0));
        assert!(!next.out.iter().any(|out| matches!(out, Out::Discontinuity { .. })));
    }
}

#[test]
fn a_source_rendition_goes_on_in_the_same_run_behind_gaps() {
    let rate = FrameRate::new(25_000, 1_000);
    for died in [4, 7, 11].map(|s| s * SECOND + 1_234) {
        let mut mux = Mux::default();
        mux.video(rate, 500, 0..1_000, |k| k % 50 == 0);
        mux.audio(48_000, 500 + 3_600, 0, 0..1_900);
        let facts = facts(ChannelKind::Transmux, None);
        let places = |out: &[Out]| -> BTreeMap<i64, (Place, i64)> {
            let one = |out: &Out| match out {
                Out::Source(s) => Some((s.unit.pts.0, (s.place, s.dts))),
                _ => None,
            };
            out.iter().filter_map(one).collect()
        };
        let whole = places(&mux.run(facts));
        let mut next = Successor::new(facts, &up_to(&mux, died).run(facts), died, died + SECOND);
        next.feed(&mux, died + 5 * SECOND);
        let after = places(&next.out);
        assert!(after.len() > 300, "{}", after.len());
        let (first, last) = (*after.keys().next().unwrap(), *after.keys().last().unwrap());
        for (pts, at) in after.iter().filter(|(pts, _)| **pts != last) {
            // The sample before the hole was longer.
            assert_eq!(whole.get(pts).map(|at| at.1), Some(at.1), "same times, behind {first}");
            assert_eq!(whole.get(pts).map(|at| (at.0.msn, at.0.part)), Some((at.0.msn, at.0.part)));
        }
        assert!(!next.out.iter().any(|out| matches!(out, Out::Discontinuity { .. })));
        check_steps(&items(&next.out, None), "source");
        check_steps(&items(&next.out, Some(0)), "audio");
    }
}

/// Segments follow each other without one left out.
fn check_steps(items: &[Item], what: &str) {
    assert!(!items.is_empty(), "{what}");
    for pair in items.windows(2) {
        let (a, b) = (pair[0].place, pair[1].place);
        assert!(b.msn == a.msn || b.msn == a.msn + 1, "{what}: {b:?} after {a:?}");
    }
}

#[test]
fn a_source_that_begins_anew_gets_a_run_of_its_own_and_does_not_run_ahead() {
    for kind in [ChannelKind::Transcode, ChannelKind::Transmux] {
        for wait in [0, SECOND / 2, 3 * SECOND] {
            let rate = FrameRate::new(25_000, 1_000);
            let mut mux = Mux::default();
            mux.video(rate, 90, 0..250, |k| k % 50 == 0);
            mux.audio(48_000, 90 + 3_600, 0, 0..468);
            let facts = facts(kind, None);
            let died = 8 * SECOND;
            let before = up_to(&mux, died).run(facts);
            let mut next = Successor::new(facts, &before, died, died + SECOND);
            // The same file from its start.
            let back = died + SECOND + wait;
            next.feed(&Mux(mux.0.iter().map(|(at, unit)| (at + back, unit.clone())).collect()), back);
            let broken = next.out.iter().filter(|out| matches!(out, Out::Discontinuity { .. })).count();
            let breaks = next.out.iter().filter(|out| matches!(out, Out::Record(Record::Break { .. }))).count();
            assert_eq!((broken, breaks), if kind == ChannelKind::Transcode { (0, 0) } else { (1, 1) });
            let runs: Vec<u32> = next
                .out
                .iter()
                .filter_map(|out| match out {
                    Out::Record(Record::Anchor(anchor)) => Some(anchor.run),
                    _ => None,
                })
                .collect();
            assert_eq!(runs, [1], "one new run, with a number of its own");
            if kind == ChannelKind::Transcode {
                let after = shown(&next.out);
                let last = after.values().max().unwrap();
                // 10 s of it: N = 0 arrived at 0.
                let due = rate.frames(back + 10 * SECOND);
                assert!((due - last).abs() <= 25, "{kind:?}, {wait}: frame {last} where {due} is due");
            }
        }
    }
}

#[test]
fn a_wall_clock_that_went_back_brings_no_number_twice() {
    let rate = FrameRate::new(25_000, 1_000);
    let mut mux = Mux::default();
    mux.video(rate, 90, 0..500, |k| k % 50 == 0);
    let facts = facts(ChannelKind::Transcode, None);
    let before = mux.run(facts);
    let used = shown(&before).into_values().max().unwrap();
    let records = before.iter().filter_map(|out| match out {
        Out::Record(record) => Some(record.clone()),
        _ => None,
    });
    let kept = Kept::of(records.collect()).expect("a plan and a line");
    let hour_ago = Now { wall: Wall(now(20 * SECOND).wall.0 - 3_600_000_000_000), ..clock(20 * SECOND) };
    let (mut timeline, from) = Timeline::resume(facts, &kept, Some((used - 20, now(19 * SECOND).wall)), hour_ago);
    assert!(from > used, "{from} after {used}");
    let due = timeline.deadline().expect("the slate is due");
    assert!(due <= hour_ago.mono + std::time::Duration::from_secs(2), "not an hour later");
    timeline.handle_timeout(Now { mono: due, ..hour_ago });
    assert!(matches!(timeline.poll(), Some(Out::Fill { with: Filling::Slate, .. })));
}

#[test]
fn a_publisher_that_calls_its_tracks_otherwise_feeds_the_same_ones() {
    let rate = FrameRate::new(25_000, 1_000);
    let mut mux = Mux::default();
    mux.video(rate, 90, 0..500, |k| k % 50 == 0);
    mux.audio(48_000, 90 + 3_600, 0, 0..930);
    for kind in [ChannelKind::Transcode, ChannelKind::Transmux] {
        let facts = facts(kind, None);
        let died = 8 * SECOND;
        let mut next = Successor::new(facts, &up_to(&mux, died).run(facts), died, died + SECOND);
        next.pass(died + 3 * SECOND);
        // The same source, from another box: other PIDs, and sound at another rate.
        next.timeline.leg_joined(0);
        let track = |pid, codec| Track::new(pid, codec);
        let tracks = vec![track(700, Codec::H264), track(701, Codec::Aac)];
        next.timeline.program(0, &Program { number: 1, pcr_pid: None, tracks });
        next.timeline.config(0, 700, &video_config());
        let asc = Bytes::new();
        let audio = AudioConfig { codec: Codec::Aac, object_type: 2, sample_rate: 44_100, channels: 2, asc };
        next.timeline.config(0, 701, &TrackConfig::Audio(audio.clone()));
        let mut units: Vec<_> = mux.0.iter().filter(|(at, _)| *at >= died + 3 * SECOND).cloned().collect();
        units.sort_by_key(|(at, unit)| (*at, unit.pid));
        for (at, mut unit) in units {
            next.pass(at);
            (unit.received, unit.pid) = (clock(at).mono, if unit.pid == VIDEO { 700 } else { 701 });
            next.timeline.push(clock(at), 0, unit);
            next.out.extend(std::iter::from_fn(|| next.timeline.poll()));
        }
        let pids = next.out.iter().filter_map(|out| match out {
            Out::Video { unit, .. } => Some(unit.pid),
            Out::Source(sample) => Some(sample.unit.pid),
            Out::Audio(frame) => Some(frame.unit.pid),
            _ => None,
        });
        let pids: std::collections::BTreeSet<u16> = pids.collect();
        assert_eq!(pids, [VIDEO, AUDIO].into(), "{kind:?}");
        let changed = Out::Config { pid: AUDIO, config: TrackConfig::Audio(audio) };
        assert_eq!(next.out.iter().filter(|out| **out == changed).count(), 1, "{kind:?}: told once");
    }
}
