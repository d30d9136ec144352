//! What the segmenter makes of samples: exact times, cuts, gaps, discontinuities, samples that come wrong.

use mp4_atom::{Atom, Emsg, EmsgTimestamp, Header, ReadAtom, ReadFrom};
use rung::media::grid::{Cadence, Ends, Grid};
use rung::media::modes::LatencyMode;
use rung::media::sample::{Sample, Stamps};
use rung::package::fmp4::emsg::TimedTag;
use rung::package::fmp4::init::InitSection;
use rung::package::fmp4::read::{Fragment, fragments};
use rung::package::player::parse;
use rung::package::segmenter::{Counts, Cut, PartPublished, Segmenter};
use rung::package::window::{Answer, Directives, Kind, Media, RenditionOutput};
use std::sync::Arc;

use crate::world::{MSN0, World, at, audio_config, place, plain, source_sample, video_config};

fn media(output: &RenditionOutput, msn: u64) -> Media {
    match output.segment(at(0), at(0), msn) {
        Answer::Now(media) => media,
        other => panic!("segment {msn}: {other:?}"),
    }
}

fn read(media: &Media) -> Vec<Fragment> {
    media.chunks.iter().flat_map(|chunk| fragments(chunk).unwrap()).collect()
}

/// (rate, timescale, ticks of a part, ticks of a segment)
const EXACT: [(f64, u32, u64, u64); 3] =
    [(25.0, 25_000, 10_000, 50_000), (29.97, 30_000, 10_010, 60_060), (50.0, 50_000, 20_000, 100_000)];

#[test]
fn video_parts_have_exact_times_at_25_and_29_97_and_50_frames() {
    for (hz, timescale, part, segment) in EXACT {
        let mut world = World::new(hz, LatencyMode::Ultra).video("360p");
        world.run_to(10_200);
        let output = world.output(0);
        assert_eq!(world.grid.cadence.timescale(), timescale);
        for k in 0..4 {
            let fragments = read(&media(&output, MSN0 + k));
            assert_eq!(fragments.len() as u64, segment / part);
            for (j, fragment) in fragments.iter().enumerate() {
                assert_eq!(fragment.start, k * segment + j as u64 * part, "{hz} segment {k} part {j}");
                assert_eq!(fragment.duration(), part);
                assert_eq!(fragment.samples[0].sync, j == 0);
                assert_eq!(u64::from(fragment.sequence), ((MSN0 + k) & 0x3ff_ffff) << 6 | j as u64);
            }
        }
    }
}

#[test]
fn audio_parts_have_exact_times_at_44_1_and_48_khz() {
    for (hz, ..) in EXACT {
        for rate in [44_100u32, 48_000] {
            let mut world = World::new(hz, LatencyMode::Ultra).audio("a-eng-1", rate);
            world.run_to(60_000);
            let (output, grid) = (world.output(0), world.grid);
            for k in 0..28 {
                let fragments = read(&media(&output, MSN0 + k));
                for (j, fragment) in fragments.iter().enumerate() {
                    // The first frame that starts at or after the part's first picture.
                    let n = i64::try_from(k).unwrap() * i64::from(grid.cadence.segment)
                        + i64::try_from(j).unwrap() * i64::from(grid.cadence.part);
                    let first = u64::try_from(grid.audio_at_frame(n, rate)).unwrap();
                    assert_eq!(fragment.start, first * 1024, "{hz} {rate} segment {k} part {j}");
                    assert!(fragment.samples.iter().all(|s| s.duration == 1024 && s.sync && s.cto == 0));
                }
                let frames: usize = fragments.iter().map(|f| f.samples.len()).sum();
                let exact = 1_000 * u64::from(rate) / 1024 * 2 / 1_000;
                assert!((frames as u64).abs_diff(exact) <= 1, "{frames} frames, {exact} expected");
            }
        }
    }
}

#[test]
fn what_was_published_is_told_once() {
    let mut world = World::new(25.0, LatencyMode::Ultra).video("360p");
    world.run_to(2_500);
    let segmenter = &mut world.feeders[0].segmenter;
    let told: Vec<PartPublished> = std::iter::from_fn(|| segmenter.poll()).collect();
    assert_eq!(told.len(), 6);
    assert_eq!((told[4].msn, told[4].part, told[4].completes_segment), (MSN0, 4, true));
    assert_eq!((told[5].msn, told[5].part, told[5].completes_segment), (MSN0 + 1, 0, false));
    assert!(told[0].independent && !told[1].independent && told[5].independent);
    assert!(told.iter().all(|p| p.samples == 10 && p.duration == 10_000 && !p.gap));
    assert_eq!(told[0].published, at(400));
}

fn source(targets_td: u32) -> (Arc<RenditionOutput>, Segmenter, World) {
    let mut world = World::new(25.0, LatencyMode::Ultra);
    world.targets = rung::package::window::Targets::source(LatencyMode::Ultra, world.grid.cadence, targets_td, None);
    let output = RenditionOutput::new(world.spec("source", Kind::Video { rate: None }, 4_000_000));
    world.session.add(output.clone());
    let init = InitSection::video(&video_config(), 90_000, 0);
    let segmenter = Segmenter::new(output.clone(), init, Cut::Source, world.grid, world.line);
    (output, segmenter, world)
}

/// 25 fps in 90 kHz, frames `from..to` of one segment, parts of ten.
fn frames(segmenter: &mut Segmenter, msn: u64, from: i64, to: i64) {
    for d in from..to {
        let part = u32::try_from((d - from) / 10).unwrap();
        let ends = if (d - from + 1) % 10 == 0 { Ends::Part } else { Ends::Nothing };
        segmenter.push(at(0), source_sample(d * 3_600, 3_600, d == from), place(msn, part, ends));
    }
}

fn text(output: &RenditionOutput) -> String {
    match output.playlist(at(0), at(0), &Directives::default()) {
        Answer::Now(playlist) => plain(&playlist),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_sample_of_a_later_segment_closes_the_open_one_of_a_source() {
    let (output, mut segmenter, _) = source(2);
    frames(&mut segmenter, 0, 0, 48);
    frames(&mut segmenter, 1, 48, 60);
    frames(&mut segmenter, 2, 60, 61);
    let list = text(&output);
    assert!(list.contains(&format!("#EXTINF:1.92000,\n{}", world_base())), "{list}");
    assert!(list.contains("#EXTINF:0.48000,\n"), "{list}");
    assert!(!list.contains("GAP"), "{list}");
    let first = read(&media(&output, MSN0));
    assert_eq!(first.iter().map(|f| f.samples.len()).collect::<Vec<_>>(), [10, 10, 10, 10, 8]);
    // The part that was hinted behind 0.4 will never come.
    assert!(matches!(output.part(at(0), at(0), MSN0, 5), Answer::Refuse(rung::package::window::Refusal::NotFound(_))));
}

fn world_base() -> String {
    format!("{}/source/s{MSN0}.m4s", crate::world::session_id())
}

#[test]
fn late_and_repeated_samples_are_dropped_and_counted() {
    let mut world = World::new(25.0, LatencyMode::Ultra).video("360p");
    world.run_to(3_000);
    let before = world.text(0);
    for n in [0, 74, 40] {
        let ((sample, place), now) = (world.sample(0, n), world.now);
        world.feeders[0].segmenter.push(now, sample, place);
    }
    assert_eq!(world.feeders[0].segmenter.counts(), Counts { late: 3, ..Counts::default() });
    assert_eq!(world.text(0), before);
    // The grid goes on as if nothing had been.
    world.run_to(4_000);
    assert_eq!(world.feeders[0].segmenter.counts().stretched, 0);
    assert_eq!(read(&media(&world.output(0), MSN0 + 1)).len(), 5);
}

#[test]
fn a_hole_inside_a_part_lengthens_the_sample_before_it() {
    let mut world = World::new(25.0, LatencyMode::Ultra).video("360p");
    world.run_to(120);
    world.lose_to(0, 6);
    world.run_to(2_000);
    let first = &read(&media(&world.output(0), MSN0))[0];
    let durations: Vec<u32> = first.samples.iter().map(|s| s.duration).collect();
    assert_eq!(durations, [1_000, 1_000, 4_000, 1_000, 1_000, 1_000, 1_000]);
    assert_eq!(world.feeders[0].segmenter.counts().stretched, 1);
}

#[test]
fn missing_parts_and_segments_become_gaps_with_the_grids_times() {
    let mut world = World::new(29.97, LatencyMode::Ultra).video("360p").audio("a-eng-1", 48_000);
    world.run_to(2_200); // within part 0 of segment 1
    world.lose_to(0, 60 * 4);
    let m = world.grid.audio_at_frame(60 * 4, 48_000);
    world.lose_to(1, m);
    world.run_to(10_300);
    for index in 0..2 {
        let list = world.text(index);
        assert_eq!(list.matches("#EXT-X-GAP\n").count(), 3, "{list}");
        // Segments 2 and 3 whole, five parts of segment 1; the sixth is the one that was open, shown longer.
        assert_eq!(world.output(index).facts().gap_parts, 17);
        let extinf: Vec<&str> = list.lines().filter(|l| l.starts_with("#EXTINF")).collect();
        assert_eq!(extinf.len(), 5);
        if index == 0 {
            assert!(extinf.iter().all(|l| *l == "#EXTINF:2.00200,"), "{list}");
        }
        // No date-time steps: 2.002 s apart, in milliseconds; audio within its 21 ms frames.
        let after = read(&media(&world.output(index), MSN0 + 4));
        let start = if index == 0 { 240 * 1_001 } else { u64::try_from(m).unwrap() * 1_024 };
        assert_eq!(after[0].start, start);
    }
    let dates: Vec<String> =
        world.text(0).lines().filter(|l| l.contains("DATE-TIME")).map(|l| l[42..].to_owned()).collect();
    assert_eq!(dates, ["00.000Z", "02.002Z", "04.004Z", "06.006Z", "08.008Z"]);
}

#[test]
fn a_gap_of_a_source_lasts_as_long_as_it_is_told() {
    let (output, mut segmenter, _) = source(3);
    // Behind five whole parts, where the next key picture is three frames later, and in the middle of a segment.
    frames(&mut segmenter, 0, 0, 50);
    segmenter.gap_to(at(0), (MSN0, 6), 53 * 3_600);
    segmenter.gap(at(0), (MSN0 + 1, 0));
    frames(&mut segmenter, 1, 53, 63);
    segmenter.gap_to(at(0), (MSN0 + 1, 2), 73 * 3_600 + 40);
    frames(&mut segmenter, 2, 103, 113);
    let list = text(&output);
    let gaps: Vec<&str> = list.lines().filter(|line| line.contains("GAP=YES")).collect();
    assert!(gaps.len() == 2 && gaps[0].contains("DURATION=0.12000"), "{list}");
    assert!(gaps[1].contains("DURATION=0.40044"), "{list}");
    let dates: Vec<&str> = list.lines().filter(|l| l.contains("DATE-TIME")).map(|l| &l[42..]).collect();
    assert_eq!(dates, ["00.000Z", "02.120Z", "04.120Z"], "{list}");
}

#[test]
fn a_rendition_that_joins_within_a_segment_lists_what_it_missed() {
    let mut world = World::new(25.0, LatencyMode::Ultra).video("360p");
    world.lose_to(0, 130);
    world.run_to(8_500);
    let list = world.text(0);
    assert!(list.contains(&format!("MEDIA-SEQUENCE:{}\n", MSN0 + 2)));
    assert_eq!(list.matches("GAP=YES").count(), 3, "parts 0 to 2 of segment 2: {list}");
    assert!(list.contains("PROGRAM-DATE-TIME:2026-11-20T12:00:04.000Z"), "{list}");
}

#[test]
fn a_jump_over_more_than_the_window_keeps_the_grids_numbers() {
    let mut world = World::new(25.0, LatencyMode::Ultra).video("360p");
    world.run_to(5_000);
    world.lose_to(0, 50 * 1_000);
    world.run_to(2_002_500);
    let list = world.text(0);
    assert_eq!(world.output(0).facts().last, Some((MSN0 + 1_001, 0)));
    assert!(list.contains("PROGRAM-DATE-TIME:2026-11-20T12:33:20.000Z"), "{list}");
    assert_eq!(list.matches("#EXTINF").count(), 15);
    assert!(list.contains(&format!("#EXT-X-MEDIA-SEQUENCE:{}\n", MSN0 + 986)), "{list}");
    // However far: what lies between is not walked through.
    let now = world.now;
    world.feeders[0].segmenter.gap(now, (MSN0 + (1 << 40), 0));
    assert_eq!(world.output(0).facts().segments_held, 14);
}

#[test]
fn another_init_section_means_discontinuity_and_a_new_map() {
    let (output, mut segmenter, world) = source(2);
    frames(&mut segmenter, 0, 0, 48);
    let mut other = video_config();
    other.width = 1_280;
    let line =
        rung::media::grid::PdtLine { from_n: 50, wall: rung::time::Wall(world.line.wall.0 + 9_000_000_000), ppm: 0 };
    segmenter.date_line(line);
    segmenter.discontinuity(at(0), Some(InitSection::video(&other, 90_000, 0)));
    frames(&mut segmenter, 1, 50, 100);
    let list = text(&output);
    let base = format!("{}/source/", crate::world::session_id());
    let wanted = format!(
        "#EXT-X-DISCONTINUITY\n#EXT-X-MAP:URI=\"{base}init-1.mp4\"\n#EXT-X-PROGRAM-DATE-TIME:2026-11-20T12:00:09.000Z\n"
    );
    assert!(list.contains(&wanted), "{list}");
    assert!(list.contains(&format!("#EXT-X-MAP:URI=\"{base}init-0.mp4\"\n")));
    assert!(output.init(0).is_some() && output.init(1).is_some() && output.init(2).is_none());
    assert_ne!(output.init(0), output.init(1));
}

#[test]
fn discontinuities_are_counted_when_they_leave_and_maps_go_with_their_segments() {
    let (output, mut segmenter, _) = source(2);
    for k in 0..60 {
        if k == 3 || k == 20 {
            segmenter.discontinuity(at(0), Some(InitSection::video(&video_config(), 90_000, k)));
        }
        let from = i64::try_from(k).unwrap() * 50;
        frames(&mut segmenter, k, from, from + 50);
        let first = (k + 1).saturating_sub(15 + 1);
        let gone = u64::from(first > 3) + u64::from(first > 20);
        let list = text(&output);
        assert!(list.contains(&format!("#EXT-X-DISCONTINUITY-SEQUENCE:{gone}\n")), "{k}: {list}");
    }
    assert!(output.init(0).is_none() && output.init(1).is_none() && output.init(2).is_some());
}

#[test]
fn a_source_that_breaks_off_again_and_again_keeps_three_target_durations_listed() {
    let (output, mut segmenter, _) = source(2);
    let mut first = 0;
    for k in 0..60u64 {
        if k > 20 {
            segmenter.discontinuity(at(0), None);
        }
        // Two seconds, then a third of one.
        let from = i64::try_from(k).unwrap() * 50;
        frames(&mut segmenter, k, from, from + if k >= 20 { 8 } else { 50 });
        let list = parse::media(&text(&output)).unwrap();
        let whole: u64 = list.segments.iter().filter(|s| s.whole.is_some()).map(|s| s.duration()).sum();
        assert!(whole >= 6_000_000 || list.msn == MSN0 || list.segments.len() >= 30, "{k}: {whole} us");
        assert!(list.msn >= first, "{k}");
        first = list.msn;
    }
}

#[test]
fn a_place_that_no_segment_has_is_late() {
    let mut world = World::new(25.0, LatencyMode::Ultra).video("360p");
    world.run_to(3_000);
    let now = world.now;
    // The last part of a segment of 50 frames is number 4.
    let (sample, _) = world.sample(0, 75);
    world.feeders[0].segmenter.push(now, sample, place(1, 5, Ends::Part));
    assert_eq!(world.feeders[0].segmenter.counts().late, 1);
    world.run_to(9_000);
    assert_eq!(world.output(0).facts().gap_parts, 0);
}

#[test]
fn samples_of_a_segment_that_a_discontinuity_ended_are_late() {
    let (_, mut segmenter, _) = source(2);
    frames(&mut segmenter, 0, 0, 15);
    segmenter.discontinuity(at(0), None);
    frames(&mut segmenter, 0, 15, 20);
    assert_eq!(segmenter.counts().late, 5);
}

#[test]
fn a_part_is_bounded_and_what_exceeds_it_is_counted() {
    let (_, mut segmenter, _) = source(2);
    for d in 0..1_100 {
        segmenter.push(at(0), source_sample(d, 1, d == 0), place(0, 0, Ends::Nothing));
    }
    assert_eq!(segmenter.counts().over, 1_100 - 1_024);
}

#[test]
fn date_lines_hold_from_their_own_frame_on() {
    let mut world = World::new(25.0, LatencyMode::Ultra).video("360p").audio("a-eng-1", 48_000);
    world.run_to(3_000);
    let mut line = world.line;
    // From segment 2 on, 1,000 ppm faster, without a step.
    line.wall = line.at(&world.grid, 100);
    line.from_n = 100;
    line.ppm = 1_000;
    world.feeders.iter_mut().for_each(|f| f.segmenter.date_line(line));
    world.run_to(10_500);
    let dates = |index: usize| -> Vec<String> {
        world.text(index).lines().filter(|l| l.contains("DATE-TIME")).map(|l| l[42..].to_owned()).collect()
    };
    assert_eq!(dates(0), ["00.000Z", "02.000Z", "04.000Z", "06.002Z", "08.004Z", "10.006Z"]);
    // Audio: that of its own first frame, up to 21 ms later.
    assert_eq!(dates(1), ["00.000Z", "02.005Z", "04.010Z", "06.018Z", "08.004Z", "10.011Z"]);
}

#[test]
fn without_a_grid_rate_row_an_audio_only_session_cuts_by_the_grid() {
    let grid = Grid { cadence: Cadence::for_rate(25.0, LatencyMode::Normal), msn0: MSN0 };
    let mut world = World::new(25.0, LatencyMode::Normal).audio("a-und-1", 44_100);
    assert_eq!(world.grid, grid);
    world.run_to(12_100);
    let list = world.text(0);
    assert_eq!(list.matches("#EXTINF:6.0").count() + list.matches("#EXTINF:5.9").count(), 2, "{list}");
    let text = plain(&world.session.multivariant().unwrap());
    assert!(text.contains("CODECS=\"mp4a.40.2\"\na-und-1.m3u8"), "{text}");
    assert!(!text.contains("EXT-X-MEDIA:"), "{text}");
    assert_eq!(audio_config(44_100).channels, 2);
}

#[test]
fn unlisted_parts_are_taken_back_and_made_again_without_a_trace() {
    let playlist = |take_back: bool| {
        let mut world = World::new(25.0, LatencyMode::Normal).video("360p");
        world.run_to(6_000);
        let now = world.now;
        world.feeders[0].segmenter.discontinuity(now, None);
        world.run_to(9_900);
        if take_back {
            let segmenter = &mut world.feeders[0].segmenter;
            let held = segmenter.output().facts().bytes_held;
            segmenter.take_back((MSN0 + 1, 5));
            assert!(segmenter.output().facts().bytes_held < held);
            segmenter.take_back((MSN0 + 1, 0));
            world.lose_to(0, world.grid.first_frame(MSN0 + 1));
        }
        world.run_to(20_000);
        (world.text(0), media(&world.output(0), MSN0 + 1))
    };
    let (once, again) = (playlist(false), playlist(true));
    assert!(once.0.contains("#EXT-X-DISCONTINUITY\n"), "{}", once.0);
    assert_eq!(once, again);
}

/// (segment, part, presentation time, text) of each event message box, as an independent parser reads them.
fn tags(output: &RenditionOutput, msns: std::ops::Range<u64>) -> Vec<(u64, usize, u64, String)> {
    let mut found = Vec::new();
    for msn in msns {
        for (part, chunk) in media(output, msn).chunks.iter().enumerate() {
            let mut rest = &chunk[..];
            while let Ok(header) = Header::read_from(&mut rest) {
                let size = header.size.expect("a size");
                if header.kind == Emsg::KIND {
                    let emsg = Emsg::read_atom(&header, &mut &rest[..size]).expect("an emsg box");
                    let EmsgTimestamp::Absolute(time) = emsg.presentation_time else { panic!("version 1") };
                    assert_eq!(
                        (emsg.scheme_id_uri.as_str(), emsg.event_duration),
                        ("https://aomedia.org/emsg/ID3", u32::MAX)
                    );
                    found.push((msn, part, time, String::from_utf8(emsg.message_data).expect("text")));
                }
                rest = &rest[size..];
            }
        }
    }
    found
}

fn tag(ms: i64, text: &str) -> TimedTag {
    TimedTag { time: ms * 90, data: text.to_owned().into() }
}

#[test]
fn a_tag_stands_in_the_part_of_its_time_and_a_late_one_in_the_next() {
    let mut world = World::new(25.0, LatencyMode::Ultra).video("360p");
    // Told in another order than they are due; one at the very start of a part, one at its last tick.
    for (ms, text) in [(4_800, "start"), (800, "early"), (5_199, "last"), (4_801, "within")] {
        world.feeders[0].segmenter.tag(tag(ms, text));
    }
    world.run_to(6_600);
    world.feeders[0].segmenter.tag(tag(3_000, "late"));
    world.feeders[0].segmenter.tag(tag(-9_000, "long over"));
    world.run_to(12_500);
    let expected = [(0, 2, 800, "early"), (2, 2, 4_800, "start"), (2, 2, 4_801, "within"), (2, 2, 5_199, "last")];
    let mut expected: Vec<_> = expected.map(|(k, part, ms, text)| (MSN0 + k, part, ms * 25, text.to_owned())).into();
    let found = tags(&world.output(0), MSN0..MSN0 + 6);
    let late = found.last().cloned().expect("the late one");
    assert!(late.3 == "late" && late.2 == (late.0 - MSN0) * 50_000 + late.1 as u64 * 10_000, "{late:?}");
    assert!((6_000..7_200).contains(&(late.2 / 25)), "{late:?}");
    expected.push(late);
    assert_eq!(found, expected);
    let counts = world.feeders[0].segmenter.counts();
    assert_eq!((counts.tags_late, counts.tags_lost), (1, 1));
}

#[test]
fn tags_of_one_part_are_bounded_and_what_is_over_follows() {
    let mut world = World::new(25.0, LatencyMode::Ultra).video("360p");
    for k in 0..80 {
        world.feeders[0].segmenter.tag(tag(1_000 + k, &format!("{k}")));
    }
    world.run_to(6_500);
    let found = tags(&world.output(0), MSN0..MSN0 + 3);
    assert_eq!(found.len(), 64, "the oldest of what waits go");
    let of = |part: usize| found.iter().filter(|tag| (tag.0, tag.1) == (MSN0, part)).count();
    assert_eq!((of(2), of(3), of(4)), (16, 16, 16));
    assert_eq!(world.feeders[0].segmenter.counts().tags_lost, 16);
}

/// Without parts an open segment can be made again: its tags come again, too.
#[test]
fn tags_of_a_part_that_is_taken_back_are_not_lost() {
    let mut world = World::new(25.0, LatencyMode::Low).video("360p");
    world.feeders[0].segmenter.tag(tag(4_100, "kept"));
    world.feeders[0].segmenter.tag(tag(4_900, "again"));
    world.run_to(5_700);
    let frame = |n: i64| world.grid.place_frame(n);
    let segmenter = &mut world.feeders[0].segmenter;
    segmenter.take_back((MSN0 + 2, 1));
    for n in 110..150 {
        let (data, stamps) = (vec![7; 10].into(), Stamps::default());
        segmenter.push(
            at(9_000),
            Sample { dts: n * 1_000, duration: 1_000, cto: 0, sync: false, data, stamps },
            frame(n),
        );
    }
    let found = tags(&world.output(0), MSN0 + 2..MSN0 + 3);
    let texts: Vec<_> = found.iter().map(|tag| (tag.1, tag.3.as_str())).collect();
    assert_eq!(texts, [(0, "kept"), (2, "again")]);
}
