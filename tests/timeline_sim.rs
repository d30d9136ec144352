//! Replayed simulation of run choice: one source, two legs, everything that happens to them, from a seed.
//!
//! Each picture carries its true identity and the wall time at which it was taken. The checker proves that no index has
//! two pictures and no picture two indices, on both legs, that N stays near the wall, and that what the filler shows while
//! the source is away is shown once and in time. The same checker must catch bugs planted through `Rules`. Short by default; `RUNG_LONG=1`: 1,000 seeds of 10,000 frames.

use bytes::Bytes;
use rung::media::access_unit::AccessUnit;
use rung::media::channel::ChannelKind;
use rung::media::grid::{FrameRate, Grid, PdtLine, Record};
use rung::media::modes::LatencyMode;
use rung::media::track::{Codec, Colour, Program, Track, TrackConfig, VideoConfig};
use rung::time::{Dts, Mono, Now, Pts, Wall};
use rung::timeline::{Facts, Out, Rules, Timeline};
use std::collections::BTreeMap;

const SECOND: i64 = 1_000_000_000;
const WRAP: i64 = 1 << 33;
const PID: u16 = 256;
/// Rate of the table: (numerator, denominator).
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

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In `[from, to)`.
    fn range(&mut self, from: i64, to: i64) -> i64 {
        from + i64::try_from(self.roll() >> 1).expect("fits") % (to - from).max(1)
    }

    fn one_in(&mut self, n: i64) -> bool {
        self.range(0, n) == 0
    }
}

/// What happens to the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mishap {
    /// The encoder is down for a while and starts at a random PTS, or at the same PTS as always.
    RestartAnywhere {
        down: i64,
    },
    RestartFixed {
        down: i64,
    },
    /// Its file begins again: PTS too, without a pause.
    Loop,
    /// PTS jumps, pictures do not.
    Jump {
        ticks: i64,
    },
    /// All connections are cut for a while, the encoder's clock runs on.
    Reconnect {
        down: i64,
    },
}

#[derive(Debug, Default)]
struct Report {
    frames: u64,
    placed: u64,
    runs: u64,
    mishaps: u64,
    fixed: u64,
    /// One index, two pictures; one picture, two indices.
    doubled: u64,
    split: u64,
    /// Frames filled and pictures hidden behind them; frames that were filled and show a picture too, or that went back.
    filled: u64,
    hidden: u64,
    refilled: u64,
    /// Largest distance of PROGRAM-DATE-TIME to the clock where a frame is filled, milliseconds.
    pdt_ms: i64,
    /// Seeds whose first seconds did not show the source's rate: pictures of another one share indices by right.
    misread: u64,
    /// Largest |N - wall|, milliseconds; the second where a jump of the source was taken for time.
    off_wall_ms: i64,
    off_wall_jumped_ms: i64,
    /// The same where links stand still: a stall is taken for up to a second of a later clock.
    off_wall_stalled_ms: i64,
    /// Seeds with anything wrong, to be run again.
    bad: Vec<u64>,
}

impl Report {
    fn good(&self) -> bool {
        (self.doubled, self.split, self.refilled) == (0, 0, 0)
            && self.pdt_ms <= 3_000
            && self.off_wall_ms <= 1_000
            && self.off_wall_jumped_ms <= 2_100
            && self.off_wall_stalled_ms <= 2_400
    }
}

#[derive(Clone, Debug)]
struct Picture {
    id: u64,
    /// Wall time at which it was taken, in display order, and at which it left the encoder; ns.
    taken: i64,
    sent: i64,
    pts: i64,
    dts: i64,
    idr: bool,
    /// First of a new connection on all legs.
    joined: bool,
    /// Jumps so far.
    jumps: u32,
}

struct Options {
    rate: FrameRate,
    frames: i64,
    millis: bool,
    bframes: bool,
    gop: i64,
    ppm: i64,
    start_pts: i64,
    fixed_pts: i64,
    only_small_jumps: bool,
    two_legs: bool,
    headers: bool,
    /// Outages last up to half a minute.
    long_outages: bool,
}

fn options(dice: &mut Dice, frames: i64, one_leg: bool, long_outages: bool) -> Options {
    let (num, den) = RATES[usize::try_from(dice.range(0, 11)).expect("fits")];
    let rate = FrameRate::new(num, den);
    // Half of the sources wrap within a minute.
    let start_pts = if dice.one_in(2) { WRAP - dice.range(0, 60 * 90_000) } else { dice.range(0, WRAP) };
    let millis = dice.one_in(4);
    Options {
        rate,
        frames,
        millis,
        bframes: dice.one_in(2),
        gop: (rate.hz() * [0.96, 1.0, 2.0, 2.5, 5.0][usize::try_from(dice.range(0, 5)).expect("fits")]).round() as i64,
        ppm: dice.range(-100, 101),
        start_pts,
        fixed_pts: dice.range(0, 10 * 90_000),
        only_small_jumps: dice.one_in(4),
        two_legs: !one_leg && !dice.one_in(4),
        // Whole milliseconds do not tell 29.97 from 30: then the headers must.
        headers: millis || dice.one_in(2),
        long_outages,
    }
}

/// The pictures of one source in decode order, and what happened to it.
fn source(dice: &mut Dice, o: &Options, report: &mut Report) -> Vec<Picture> {
    let mut pictures = Vec::new();
    let (mut begun, mut base, mut pts0, mut index) = (0i64, 0i64, o.start_pts, 0i64);
    let mut until = dice.range(12, 30) * SECOND;
    let (mut joined, mut jumps, mut id) = (true, 0, 0u64);
    while i64::try_from(pictures.len()).expect("fits") < o.frames {
        let at = base + wall(o, index - begun);
        if at > until {
            let mishap = mishap(dice, o);
            report.mishaps += 1;
            // Pictures that were still to come keep their identities.
            id += 10;
            until = at + dice.range(12, 30) * SECOND;
            match mishap {
                Mishap::RestartAnywhere { down } | Mishap::RestartFixed { down } => {
                    base = at + down;
                    begun = index;
                    let fixed = matches!(mishap, Mishap::RestartFixed { .. });
                    report.fixed += u64::from(fixed);
                    pts0 = if fixed { o.fixed_pts } else { dice.range(0, WRAP) };
                    joined = !dice.one_in(3);
                }
                Mishap::Loop => {
                    base = at;
                    begun = index;
                    pts0 = o.fixed_pts;
                }
                Mishap::Jump { ticks } => {
                    pts0 += ticks;
                    jumps += 1;
                }
                Mishap::Reconnect { down } => {
                    // What it encodes meanwhile is lost.
                    let from = base + wall(o, index - begun) + down;
                    while base + wall(o, index - begun) < from {
                        index += 1;
                        id += 1;
                    }
                    joined = true;
                }
            }
            continue;
        }
        let mut picture = picture(o, index - begun, id, base, pts0);
        (picture.joined, picture.jumps) = (joined, jumps);
        pictures.push(picture);
        joined = false;
        index += 1;
        id += 1;
    }
    pictures
}

/// The `k`-th picture in decode order of an encoder that started at wall time `base` and PTS `pts0`.
fn picture(o: &Options, k: i64, id: u64, base: i64, pts0: i64) -> Picture {
    let (shown, reorder) = if o.bframes { displayed(k, o.gop) } else { (k, 0) };
    let stamp = |n: i64| {
        let ticks = pts0 + o.rate.ticks(n);
        if o.millis { (ticks + 45).div_euclid(90) * 90 } else { ticks }
    };
    Picture {
        id: id.saturating_add_signed(shown - k),
        taken: base + wall(o, shown),
        sent: base + wall(o, k + reorder),
        pts: stamp(shown + reorder),
        dts: stamp(k),
        idr: k % o.gop == 0,
        joined: false,
        jumps: 0,
    }
}

/// Wall time that `n` frames take by the source's clock, which runs `ppm` fast; ns.
fn wall(o: &Options, n: i64) -> i64 {
    let ns = n * i64::from(o.rate.den) * SECOND / i64::from(o.rate.num);
    ns - ns / 1_000_000 * o.ppm
}

/// Display index of the `k`-th picture in decode order, closed GOPs of I P B B, and frames of delay.
fn displayed(k: i64, gop: i64) -> (i64, i64) {
    let (start, i) = (k.div_euclid(gop) * gop, k.rem_euclid(gop));
    if i == 0 {
        return (k, 1);
    }
    let group = (i - 1) / 3 * 3;
    let size = 3.min(gop - 1 - group);
    let shown = if i - 1 == group { group + size } else { i - 1 };
    (start + shown, 1)
}

fn mishap(dice: &mut Dice, o: &Options) -> Mishap {
    let down = if dice.one_in(3) { dice.range(20, 200) } else { dice.range(200, 8_000) } * 1_000_000;
    let down = if o.long_outages { dice.range(400, 30_000) * 1_000_000 } else { down };
    match dice.range(0, if o.long_outages { 4 } else { 6 }) {
        0 => Mishap::RestartAnywhere { down },
        1 => Mishap::RestartFixed { down },
        2 => Mishap::Loop,
        3 => Mishap::Reconnect { down },
        _ => {
            let size = match dice.range(0, 3) {
                _ if o.only_small_jumps => dice.range(0, 45_000),
                0 => dice.range(45_000, 180_000),
                1 => dice.range(180_000, 30 * 90_000),
                _ => dice.range(30 * 90_000, 3_600 * 90_000),
            };
            // Some land half a frame beside the grid.
            let frame = o.rate.ticks(1);
            let size = if dice.one_in(2) { size / frame * frame + frame / 2 } else { size };
            // What one leg sees as a jump of less than a second, loss hides on the other: no rule can tell.
            let size = if o.two_legs { size.max(100_000) } else { size };
            Mishap::Jump { ticks: if dice.one_in(2) { size } else { -size } }
        }
    }
}

/// What one leg delivers, and when: (arrival, picture or `None` for the loss of the connection).
fn leg(dice: &mut Dice, pictures: &[Picture], late: bool, stalls: bool) -> Vec<(i64, usize, bool)> {
    let delay = dice.range(20, 400) * 1_000_000;
    let jitter = dice.range(1, 60) * 1_000_000;
    let join = if late { dice.range(1, 40) * SECOND } else { 0 };
    let (mut out, mut last, mut dark, mut fresh) = (Vec::new(), 0, join, true);
    for (i, picture) in pictures.iter().enumerate() {
        if dice.one_in(2_000) {
            dark = picture.sent + dice.range(500, 8_000) * 1_000_000;
            fresh |= dice.one_in(2);
        } else if dice.one_in(500) {
            dark = dark.max(picture.sent + dice.range(10, 400) * 1_000_000);
        }
        fresh |= picture.joined;
        if picture.sent < dark {
            continue;
        }
        // The link stands still, then everything comes at once.
        if stalls && dice.one_in(1_000) {
            last = last.max(picture.sent + delay + dice.range(300, 1_000) * 1_000_000);
        }
        last = (picture.sent + delay + dice.range(0, jitter)).max(last + 1_000);
        out.push((last, i, std::mem::take(&mut fresh)));
    }
    out
}

fn unit(picture: &Picture, received: Mono) -> AccessUnit {
    AccessUnit {
        pid: PID,
        codec: Codec::H264,
        pts: Pts(picture.pts.rem_euclid(WRAP)),
        dts: Dts(picture.dts.rem_euclid(WRAP)),
        random_access: picture.idr,
        damaged: false,
        received,
        data: Bytes::copy_from_slice(&picture.id.to_le_bytes()),
    }
}

fn headers(rate: Option<FrameRate>) -> TrackConfig {
    TrackConfig::Video(VideoConfig {
        codec: Codec::H264,
        width: 640,
        height: 360,
        sar: (1, 1),
        rate,
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

#[derive(Default)]
struct Checker {
    picture_at: BTreeMap<i64, u64>,
    index_of: BTreeMap<u64, i64>,
    /// Every N below was filled, and shows no picture from then on.
    filled: i64,
    line: Option<PdtLine>,
    grid: Option<Grid>,
    /// When the first picture was taken; jumps and runs up to the newest picture.
    origin: Option<i64>,
    jumped: bool,
    jumps: u32,
    runs: u64,
}

impl Checker {
    fn check(&mut self, n: i64, id: u64, report: &mut Report) {
        report.placed += 1;
        if *self.picture_at.entry(n).or_insert(id) != id {
            report.doubled += 1;
        }
        if *self.index_of.entry(id).or_insert(n) != n {
            report.split += 1;
        }
    }

    fn fill(&mut self, now: Now, to: i64, report: &mut Report) {
        report.refilled += u64::from(to <= self.filled);
        report.filled += u64::try_from(to - self.filled).unwrap_or(0);
        self.filled = self.filled.max(to);
        if let (Some(grid), Some(line)) = (&self.grid, self.line) {
            let off = (now.wall.0 - line.at(grid, to - 1).0) / 1_000_000;
            report.pdt_ms = report.pdt_ms.max(off.abs());
        }
    }

    fn picture(&mut self, o: &Options, n: i64, hidden: bool, picture: &Picture, report: &mut Report) {
        self.check(n, picture.id, report);
        report.hidden += u64::from(hidden && n < self.filled);
        report.refilled += u64::from(!hidden && n < self.filled);
        // A jump that made no run was taken for time that passed: N is as far ahead as it was.
        self.jumped |= picture.jumps > self.jumps && report.runs == self.runs;
        (self.jumps, self.runs) = (self.jumps.max(picture.jumps), report.runs);
        let wall = picture.taken - *self.origin.get_or_insert(picture.taken);
        let line = (i128::from(n) * i128::from(o.rate.den) * 1_000 / i128::from(o.rate.num)) as i64;
        let off = (line - wall / 1_000_000).abs();
        let worst = match (o.long_outages, self.jumped) {
            (true, _) => &mut report.off_wall_stalled_ms,
            (false, true) => &mut report.off_wall_jumped_ms,
            (false, false) => &mut report.off_wall_ms,
        };
        *worst = (*worst).max(off);
    }
}

/// One simulation: its timeline and what is known of its source.
struct Sim {
    timeline: Timeline,
    checker: Checker,
    report: Report,
    o: Options,
    pictures: Vec<Picture>,
    by_id: BTreeMap<u64, usize>,
}

impl Sim {
    fn drain(&mut self, now: Now) {
        while let Some(out) = self.timeline.poll() {
            match out {
                Out::Video { n, prime, hidden, unit, .. } if !prime => {
                    let id = u64::from_le_bytes(unit.data[..].try_into().expect("eight bytes"));
                    let picture = &self.pictures[self.by_id[&id]];
                    self.checker.picture(&self.o, n, hidden, picture, &mut self.report);
                }
                Out::Fill { to, .. } => self.checker.fill(now, to, &mut self.report),
                Out::Record(Record::Anchor(_)) => self.report.runs += 1,
                Out::Record(Record::Plan(plan)) => {
                    self.report.misread += u64::from(plan.grid.cadence.rate != self.o.rate);
                    self.checker.grid = Some(plan.grid);
                }
                Out::Record(Record::Pdt(line)) => self.checker.line = Some(line),
                _ => {}
            }
        }
    }

    /// Lets the timers run that are due before `at`.
    fn pass(&mut self, at: i64) {
        for _ in 0..100_000 {
            let Some(due) = self.timeline.deadline().filter(|due| *due < clock(at).mono) else { return };
            let now = clock(i64::try_from(due.0).expect("fits") - SECOND);
            self.timeline.handle_timeout(now);
            self.drain(now);
        }
        panic!("timers that do not end");
    }
}

fn clock(at: i64) -> Now {
    Now { mono: Mono((at + SECOND).cast_unsigned()), wall: Wall(1_700_000_000 * SECOND + at) }
}

fn simulate(seed: u64, frames: i64, rules: Rules, one_leg: bool, long_outages: bool) -> Report {
    let mut dice = Dice(seed);
    let mut report = Report::default();
    let o = options(&mut dice, frames, one_leg, long_outages);
    let pictures = source(&mut dice, &o, &mut report);
    let mut events: Vec<(i64, u8, usize, bool)> = Vec::new();
    for number in 0..=u8::from(o.two_legs) {
        let late = number == 1 && dice.one_in(2);
        events.extend(
            leg(&mut dice, &pictures, late, long_outages).into_iter().map(|(at, i, fresh)| (at, number, i, fresh)),
        );
    }
    events.sort_unstable();
    let facts = Facts { kind: ChannelKind::Transcode, mode: LatencyMode::Ultra, profile: None, last_msn: None, rules };
    let program = Program { number: 1, pcr_pid: Some(PID), tracks: vec![Track::new(PID, Codec::H264)] };
    let by_id: BTreeMap<u64, usize> = pictures.iter().enumerate().map(|(i, picture)| (picture.id, i)).collect();
    let (timeline, checker) = (Timeline::new(facts), Checker::default());
    let mut sim = Sim { timeline, checker, report, o, pictures, by_id };
    let mut seen_idr = [false; 2];
    for (at, number, i, fresh) in events {
        sim.pass(at);
        sim.report.frames += 1;
        let (picture, now) = (sim.pictures[i].clone(), clock(at));
        if fresh {
            sim.timeline.leg_left(number);
            sim.timeline.leg_joined(number);
            sim.timeline.program(number, &program);
            sim.timeline.config(number, PID, &headers(sim.o.headers.then_some(sim.o.rate)));
            seen_idr[usize::from(number)] = false;
        }
        seen_idr[usize::from(number)] |= picture.idr;
        sim.timeline.push(now, number, unit(&picture, now.mono));
        sim.drain(now);
        // The leg that is not on air is numbered too: a take-over must find the same numbers.
        if sim.timeline.on_air().is_some_and(|air| air != number)
            && seen_idr[usize::from(number)]
            && let Some(n) = sim.timeline.last_index(number)
        {
            sim.checker.check(n, picture.id, &mut sim.report);
        }
    }
    sim.report
}

fn all(seeds: std::ops::Range<u64>, frames: i64, rules: Rules, one_leg: bool, long_outages: bool) -> Report {
    let mut sum = Report::default();
    for seed in seeds {
        let report = simulate(seed, frames, rules, one_leg, long_outages);
        if report.misread > 0 {
            sum.misread += 1;
            continue;
        }
        if !report.good() {
            sum.bad.push(seed);
        }
        sum.frames += report.frames;
        sum.placed += report.placed;
        sum.runs += report.runs;
        sum.mishaps += report.mishaps;
        sum.fixed += report.fixed;
        sum.doubled += report.doubled;
        sum.split += report.split;
        sum.filled += report.filled;
        sum.hidden += report.hidden;
        sum.refilled += report.refilled;
        sum.pdt_ms = sum.pdt_ms.max(report.pdt_ms);
        sum.off_wall_ms = sum.off_wall_ms.max(report.off_wall_ms);
        sum.off_wall_stalled_ms = sum.off_wall_stalled_ms.max(report.off_wall_stalled_ms);
        sum.off_wall_jumped_ms = sum.off_wall_jumped_ms.max(report.off_wall_jumped_ms);
    }
    sum
}

fn long() -> bool {
    std::env::var_os("RUNG_LONG").is_some()
}

#[test]
fn no_index_has_two_pictures_and_no_picture_two_indices() {
    let (seeds, frames) = if long() { (1_000, 10_000) } else { (60, 4_000) };
    let report = all(0..seeds, frames, Rules::default(), false, false);
    println!("{report:?}");
    assert!(report.misread * 20 <= seeds && report.placed * 10 > report.frames * 8 && report.fixed > 0, "{report:?}");
    assert!(report.good() && report.bad.is_empty(), "{report:?}");
}

#[test]
fn the_checker_notices_when_the_whole_frame_rule_is_off() {
    let report = all(0..60, 4_000, Rules { whole_frames: false, ..Rules::default() }, true, false);
    assert!(report.doubled + report.split > 0, "{report:?}");
}

#[test]
fn the_checker_notices_when_anchors_fit_behind_what_was_delivered() {
    let report = all(0..60, 4_000, Rules { ahead: false, ..Rules::default() }, false, false);
    assert!(report.doubled + report.split > 0, "{report:?}");
}

#[test]
fn through_outages_of_half_a_minute_each_frame_is_shown_once_and_in_time() {
    let (seeds, frames) = if long() { (1_000, 10_000) } else { (60, 4_000) };
    let report = all(0..seeds, frames, Rules::default(), true, true);
    println!("{report:?}");
    assert!(report.filled > 10_000 && report.hidden > 100 && report.misread * 20 <= seeds, "{report:?}");
    assert!(report.good() && report.bad.is_empty(), "{report:?}");
}

#[test]
fn the_checker_notices_when_filled_frames_do_not_count_as_shown() {
    let report = all(0..20, 4_000, Rules { filled: false, ..Rules::default() }, true, true);
    assert!(report.refilled > 0, "{report:?}");
}
