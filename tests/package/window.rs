//! Answers to requests, at every edge [HLS 6.2.5.2]; waiting, rendering once, and what is held in memory.

use bytes::Bytes;
use rung::media::grid::Ends;
use rung::media::modes::LatencyMode;
use rung::package::window::{Answer, Directives, Refusal, RenditionOutput, Skip};
use rung::time::Mono;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};
use std::time::Duration;

use crate::world::{MSN0, World, at, keep, place, plain};

/// 25 fps: parts of 0.4 s, five to a segment of 2 s. Audio beside it is not needed here.
fn world(ms: u64) -> World {
    let mut world = World::new(25.0, LatencyMode::Ultra).video("360p");
    world.run_to(ms);
    world
}

fn ask(world: &World, msn: u64, part: impl Into<Option<u32>>) -> Answer<Arc<rung::package::window::Playlist>> {
    let directives = Directives { msn: Some(MSN0 + msn), part: part.into(), skip: Skip::No };
    world.output(0).playlist(world.now, world.now, &directives)
}

fn now<T: std::fmt::Debug>(answer: Answer<T>) -> bool {
    matches!(answer, Answer::Now(_))
}

fn refused<T>(answer: Answer<T>) -> u16 {
    match answer {
        Answer::Refuse(Refusal::BadRequest(_)) => 400,
        Answer::Refuse(Refusal::NotFound(_)) => 404,
        Answer::Refuse(Refusal::NotYet(_)) => 503,
        Answer::Now(_) | Answer::Until(_) => 0,
    }
}

fn until<T>(answer: Answer<T>) -> Option<Mono> {
    match answer {
        Answer::Until(at) => Some(at),
        _ => None,
    }
}

#[test]
fn hls_6_2_5_2_a_listed_part_is_answered_at_once_and_the_next_one_waits() {
    let world = world(5_000); // segments 0 and 1 are whole, parts 0 and 1 of segment 2 are listed
    assert!(now(ask(&world, 2, 1)) && now(ask(&world, 2, 0)) && now(ask(&world, 1, 4)) && now(ask(&world, 0, 0)));
    let deadline = Some(at(5_000 + 6_000)); // 3 x TARGETDURATION
    assert_eq!(until(ask(&world, 2, 2)), deadline);
}

#[test]
fn hls_6_2_5_2_a_part_past_the_end_means_part_0_of_the_next_segment() {
    let mut world = world(4_000);
    assert_eq!(world.output(0).facts().last, Some((MSN0 + 1, 4)));
    assert!(now(ask(&world, 0, 5)) && now(ask(&world, 0, 77)));
    assert!(until(ask(&world, 1, 5)).is_some(), "part 0 of segment 2 is not there yet");
    world.run_to(4_400);
    assert!(now(ask(&world, 1, 5)));
}

#[test]
fn hls_6_2_5_2_more_than_two_segments_ahead_is_a_bad_request() {
    let world = world(5_000);
    assert!(until(ask(&world, 3, 0)).is_some());
    assert_eq!(refused(ask(&world, 4, 0)), 400);
    assert_eq!(refused(ask(&world, 4, None)), 400);
    assert_eq!(refused(ask(&world, u64::MAX - MSN0, 0)), 400);
    // Advance part limit: 3 / 0.42 = 7 parts.
    assert!(until(ask(&world, 2, 8)).is_some());
    assert_eq!(refused(ask(&world, 2, 9)), 400);
    assert_eq!(refused(ask(&world, 2, u32::MAX)), 400);
}

#[test]
fn hls_6_2_5_2_a_segment_number_alone_waits_for_the_whole_segment() {
    let mut world = world(5_900);
    assert!(until(ask(&world, 2, None)).is_some());
    assert!(now(ask(&world, 1, None)));
    world.run_to(6_000);
    assert!(now(ask(&world, 2, None)));
}

#[test]
fn hls_6_2_5_2_a_part_without_a_segment_is_a_bad_request() {
    let directives = Directives { msn: None, part: Some(1), skip: Skip::No };
    let world = world(5_000);
    assert_eq!(refused(world.output(0).playlist(world.now, world.now, &directives)), 400);
}

#[test]
fn old_segment_numbers_are_answered_at_once() {
    let world = world(120_000);
    let directives = Directives { msn: Some(3), part: Some(0), skip: Skip::No };
    assert!(now(world.output(0).playlist(world.now, world.now, &directives)));
    assert!(now(ask(&world, 0, None)) && now(ask(&world, 0, 99)));
}

#[test]
fn a_blocked_playlist_is_refused_after_three_target_durations() {
    let world = world(5_000);
    let directives = Directives { msn: Some(MSN0 + 2), part: Some(2), skip: Skip::No };
    let output = world.output(0);
    assert!(until(output.playlist(at(5_000), at(10_999), &directives)).is_some());
    assert_eq!(refused(output.playlist(at(5_000), at(11_000), &directives)), 503);
}

#[test]
fn the_hinted_part_waits_and_is_then_exactly_that_part() {
    let mut world = world(5_000);
    let output = world.output(0);
    // 3 x PART-TARGET of 0.42 s
    assert_eq!(until(output.part(at(5_000), at(5_000), MSN0 + 2, 2)), Some(at(6_260)));
    assert_eq!(refused(output.part(at(5_000), at(6_260), MSN0 + 2, 2)), 503);
    world.run_to(5_200);
    let Answer::Now(part) = output.part(at(5_000), at(5_200), MSN0 + 2, 2) else { panic!("not served") };
    let fragments = rung::package::fmp4::read::fragments(&part.chunks[0]).unwrap();
    assert_eq!((fragments[0].start, fragments[0].duration()), (120_000, 10_000));
    assert_eq!(part.chunks.len(), 1);
}

#[test]
fn parts_that_never_come_are_404_and_those_that_may_are_503() {
    let mut world = world(5_000);
    let output = world.output(0);
    let part = |msn: u64, part: u32| output.part(at(5_000), at(5_000), MSN0 + msn, part);
    assert_eq!(refused(part(1, 5)), 404, "behind the last part of a whole segment");
    assert_eq!(refused(part(2, 3)), 503, "after the hinted one");
    assert_eq!(refused(part(3, 1)), 503);
    assert!(until(part(3, 0)).is_some(), "the open segment may be over");
    assert_eq!(refused(part(2, 40)), 404);
    assert_eq!(refused(part(9, 0)), 404);
    assert_eq!(refused(output.part(at(0), at(0), 5, 0)), 404);
    world.end();
    assert!(now(part(2, 2)), "what was open is published");
    assert_eq!(refused(part(2, 3)), 404, "the session is over");
}

#[test]
fn whole_segments_are_served_and_open_ones_are_not_yet() {
    let world = world(5_000);
    let output = world.output(0);
    let Answer::Now(segment) = output.segment(world.now, world.now, MSN0 + 1) else { panic!("not served") };
    let parts: Vec<Bytes> = (0..5)
        .map(|i| match output.part(world.now, world.now, MSN0 + 1, i) {
            Answer::Now(part) => part.chunks[0].clone(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(segment.chunks, parts);
    assert_eq!(segment.chunks[0].as_ptr(), parts[0].as_ptr(), "the same bytes, not a copy");
    assert_eq!(refused(output.segment(world.now, world.now, MSN0 + 2)), 503);
    assert_eq!(refused(output.segment(world.now, world.now, MSN0 + 3)), 503);
    assert_eq!(refused(output.segment(world.now, world.now, MSN0 + 4)), 404);
}

#[test]
fn segments_outlive_their_listing_by_a_window() {
    let world = world(100_000); // 50 segments; 35..49 listed, 19..49 held
    let text = world.text(0);
    assert!(text.contains(&format!("#EXT-X-MEDIA-SEQUENCE:{}\n", MSN0 + 35)));
    let output = world.output(0);
    let segment = |n: u64| output.segment(world.now, world.now, MSN0 + n);
    assert!(now(segment(34)) && now(segment(19)));
    assert_eq!(refused(segment(18)), 404);
    assert_eq!(output.facts().segments_held, 31);
}

#[test]
fn a_channels_own_window_is_owed_as_long_again() {
    let mut world = World::new(25.0, LatencyMode::Ultra);
    world.targets = world.targets.windowed(world.grid.cadence, Some(60));
    let mut world = world.video("360p");
    world.run_to(200_000); // 100 segments; 70..99 listed, 39..99 held
    let text = world.text(0);
    assert!(text.contains(&format!("#EXT-X-MEDIA-SEQUENCE:{}\n", MSN0 + 70)));
    let output = world.output(0);
    let segment = |n: u64| output.segment(world.now, world.now, MSN0 + n);
    // Segment 39 left with segment 69: since then it has stayed for itself and the thirty that were listed with it.
    assert!(now(segment(69)) && now(segment(39)));
    assert_eq!((refused(segment(38)), output.facts().segments_held), (404, 61));
    // The bound of its memory does not take it away before.
    let targets = output.spec().targets;
    let (rate, of_source) = (8_000_000, targets.bytes_max(0, true));
    assert!(targets.bytes_max(rate, false) as u64 >= rate / 8 * 122);
    assert_eq!(of_source, 2 * rung::package::window::RETAINED_BYTES_MAX);
}

#[test]
fn modes_without_parts_ignore_directives_and_list_whole_segments_only() {
    for mode in [LatencyMode::Low, LatencyMode::Normal] {
        let mut world = World::new(25.0, mode).video("360p");
        let seconds = u64::from(mode.params().target_duration);
        world.run_to(1_000);
        let ask = |world: &World, directives: Directives| world.output(0).playlist(world.now, world.now, &directives);
        assert!(until(ask(&world, Directives::default())).is_some(), "nothing to play yet");
        world.run_to(seconds * 1_500);
        let wild = Directives { msn: Some(MSN0 + 99), part: Some(7), skip: Skip::No };
        let Answer::Now(playlist) = ask(&world, wild) else { panic!("directives mean nothing here") };
        assert_eq!(plain(&playlist), world.text(0));
        assert_eq!(plain(&playlist).matches("#EXTINF").count(), 1);
        for tag in ["EXT-X-PART", "CAN-BLOCK-RELOAD", "PRELOAD-HINT", "RENDITION-REPORT"] {
            assert!(!plain(&playlist).contains(tag), "{tag}");
        }
        assert_eq!(refused(world.output(0).part(world.now, world.now, MSN0, 0)), 404);
    }
}

struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn counted() -> (Arc<Count>, Waker) {
    let count = Arc::new(Count(AtomicUsize::new(0)));
    (count.clone(), Waker::from(count))
}

#[test]
fn a_thousand_waiters_cause_one_render_and_one_wake_each() {
    let mut world = world(5_000);
    let output = world.output(0);
    let before = output.facts().renders;
    let wakers: Vec<(Arc<Count>, Waker)> = (0..1_000).map(|_| counted()).collect();
    let mut keys = Vec::new();
    for (_, waker) in &wakers {
        keys.push(output.wait(waker));
        assert!(until(ask(&world, 2, 2)).is_some());
    }
    assert_eq!(output.facts().waiting, 1_000);
    world.run_to(5_200);
    let woken = || wakers.iter().filter(|(count, _)| count.0.load(Ordering::Relaxed) == 1).count();
    assert_eq!(woken(), 16, "the publisher wakes a few");
    // Each of those who are awake asks and leaves, and with that wakes the next ones.
    for (at, key) in keys.into_iter().enumerate() {
        assert!(woken() > at, "waiter {at} sleeps");
        output.cancel(key);
    }
    assert_eq!((output.facts().waiting, woken()), (0, 1_000));
    let answers: Vec<_> = (0..1_000).map(|_| ask(&world, 2, 2)).collect();
    assert!(wakers.iter().all(|(count, _)| count.0.load(Ordering::Relaxed) == 1));
    assert_eq!(output.facts().renders - before, 1);
    let Answer::Now(first) = &answers[0] else { panic!("not answered") };
    assert!(answers.iter().all(|a| matches!(a, Answer::Now(p) if Arc::ptr_eq(p, first))), "all share one rendering");
    // Nobody is woken twice for one wait.
    world.run_to(6_000);
    assert!(wakers.iter().all(|(count, _)| count.0.load(Ordering::Relaxed) == 1));
}

#[test]
fn threads_that_ask_together_cause_one_render() {
    let world = world(5_200);
    let output = world.output(0);
    let before = output.facts().renders;
    std::thread::scope(|scope| {
        for _ in 0..8 {
            let output = &output;
            scope.spawn(move || {
                for _ in 0..200 {
                    assert!(now(output.playlist(at(5_200), at(5_200), &Directives::default())));
                }
            });
        }
    });
    assert_eq!(output.facts().renders - before, 1);
}

#[test]
fn cancelled_waiters_are_not_woken() {
    let mut world = world(5_000);
    let output = world.output(0);
    let ((kept, a), (cancelled, b)) = (counted(), counted());
    output.wait(&a);
    let key = output.wait(&b);
    output.cancel(key);
    world.run_to(5_200);
    assert_eq!((kept.0.load(Ordering::Relaxed), cancelled.0.load(Ordering::Relaxed)), (1, 0));
}

#[test]
fn waiters_that_go_away_unwoken_leave_nobody_asleep() {
    let mut world = world(5_000);
    let output = world.output(0);
    let wakers: Vec<(Arc<Count>, Waker)> = (0..100).map(|_| counted()).collect();
    let keys: Vec<u64> = wakers.iter().map(|(_, waker)| output.wait(waker)).collect();
    world.run_to(5_200);
    // The next change comes while most of them are still to be told of the first; a newcomer is told of the second.
    let ((late, waker), count) = (counted(), |at: usize| wakers[at].0.0.load(Ordering::Relaxed));
    let late_key = output.wait(&waker);
    world.run_to(5_600);
    assert!((16..100).contains(&(0..100).filter(|at| count(*at) == 1).count()), "most are asleep");
    // From the last one on they give up; each that goes wakes others, and is not woken itself any more.
    let mut asleep = Vec::new();
    for at in (70..100).rev() {
        output.cancel(keys[at]);
        asleep.extend((count(at) == 0).then_some(at));
    }
    assert!((0..70).all(|at| count(at) == 1) && !asleep.is_empty());
    assert!(asleep.iter().all(|at| count(*at) == 0));
    assert_eq!(late.0.load(Ordering::Relaxed), 1);
    output.cancel(late_key);
    assert_eq!(output.facts().waiting, 0);
}

#[test]
fn without_parts_waiters_are_woken_by_whole_segments_only() {
    let mut world = World::new(25.0, LatencyMode::Low).video("360p");
    let (count, waker) = counted();
    world.output(0).wait(&waker);
    world.run_to(1_990);
    assert_eq!(count.0.load(Ordering::Relaxed), 0);
    world.run_to(2_000);
    assert_eq!(count.0.load(Ordering::Relaxed), 1);
}

#[test]
fn the_end_wakes_everyone_and_lists_nothing_more_to_come() {
    let mut world = world(5_000);
    let output = world.output(0);
    let (count, waker) = counted();
    output.wait(&waker);
    world.end();
    assert_eq!(count.0.load(Ordering::Relaxed), 1);
    let text = world.text(0);
    assert!(text.ends_with("#EXT-X-ENDLIST\n") && !text.contains("PRELOAD-HINT"), "{text}");
    assert!(text.contains(&format!("s{}.m4s", MSN0 + 2)), "the short last segment is whole");
    assert!(now(ask(&world, 7, 3)), "nothing blocks any more");
    assert!(world.session.ended() && output.facts().ended);
    // What comes after the end changes nothing.
    let late = world.feeders[0].segmenter.counts().late;
    world.feed(0);
    assert_eq!(world.feeders[0].segmenter.counts().late, late + 1);
    assert_eq!(world.text(0), text);
}

#[test]
fn etags_and_gzip_belong_to_the_text() {
    let mut world = world(5_000);
    let (Answer::Now(a), Answer::Now(again)) = (ask(&world, 0, 0), ask(&world, 1, 1)) else { panic!("no playlist") };
    assert!(Arc::ptr_eq(&a, &again));
    world.run_to(5_200);
    let Answer::Now(b) = ask(&world, 0, 0) else { panic!("no playlist") };
    assert_ne!(a.etag, b.etag);
    assert!(a.etag.starts_with('"') && a.etag.ends_with('"') && a.etag.len() == 18);
    let mut unpacked = String::new();
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&b.gzip[..]), &mut unpacked).unwrap();
    assert_eq!(unpacked, plain(&b));
    assert!(b.gzip.len() < b.plain.len() / 3, "{} of {}", b.gzip.len(), b.plain.len());
}

#[test]
fn an_hour_of_media_holds_two_windows_and_no_more() {
    let mut world = World::new(25.0, LatencyMode::Ultra).video("360p").audio("a-eng-1", 48_000);
    world.feeders[0].size = 2_000; // 400 kb/s
    world.run_to(120_000);
    let output: Vec<Arc<RenditionOutput>> = (0..2).map(|i| world.output(i)).collect();
    let held: Vec<usize> = output.iter().map(|o| o.facts().bytes_held).collect();
    for minute in 3..=60 {
        world.run_to(minute * 60_000);
        for (output, held) in output.iter().zip(&held) {
            let facts = output.facts();
            assert!(facts.segments_held <= 32, "{facts:?}");
            // Within one segment of what it was: 31 or 32 of them, 93 or 94 audio frames each.
            assert!(facts.bytes_held.abs_diff(*held) <= held / 30 + 4_000, "{held}, then {}", facts.bytes_held);
        }
        world.feeders.iter_mut().for_each(|f| while f.segmenter.poll().is_some() {});
    }
    assert_eq!(world.session.bytes_held(), output.iter().map(|o| o.facts().bytes_held).sum::<usize>());
}

#[test]
fn the_byte_bound_holds_and_shortens_the_window_from_its_old_end() {
    let world = World::new(25.0, LatencyMode::Ultra);
    let kind = rung::package::window::Kind::Video { rate: None };
    let mut spec = world.spec("360p", kind, 1_000_000);
    spec.retained_bytes_max = 1_000_000;
    let output = RenditionOutput::new(spec);
    world.session.add(output.clone());
    let init = rung::package::fmp4::init::InitSection::video(&crate::world::video_config(), 90_000, 0);
    let cut = rung::package::segmenter::Cut::Source;
    let mut segmenter = rung::package::segmenter::Segmenter::new(output.clone(), init, cut, world.grid, world.line);
    for segment in 0..40 {
        for part in 0..5 {
            let ends = if part == 4 { Ends::Segment } else { Ends::Part };
            let dts = i64::try_from(segment * 5 + u64::from(part)).unwrap() * 36_000;
            let mut sample = crate::world::source_sample(dts, 36_000, part == 0);
            sample.data = Bytes::from(vec![0; 20_000]);
            segmenter.push(at(segment * 2_000), sample, place(segment, part, ends));
        }
    }
    let facts = output.facts();
    assert!(facts.bytes_held <= 1_000_000 && facts.bytes_held > 800_000, "{facts:?}");
    assert_eq!(facts.segments_held, 9);
    let Answer::Now(list) = output.playlist(at(80_000), at(80_000), &Directives::default()) else { panic!("none") };
    assert!(plain(&list).contains(&format!("MEDIA-SEQUENCE:{}\n", MSN0 + 31)));
}

#[test]
fn facts_say_when_the_last_part_came() {
    let world = world(5_000);
    let facts = world.output(0).facts();
    assert_eq!(facts.last, Some((MSN0 + 2, 1)));
    assert_eq!(facts.last_part_at, Some(at(4_800)));
    assert_eq!(world.session.last_part_at(), Some(at(4_800)));
    assert_eq!(facts.version, 12);
}

#[test]
fn part_hold_back_is_the_channels_within_its_limit() {
    use rung::media::grid::Cadence;
    use rung::package::window::Targets;
    for (hz, hold_back, wanted) in [
        (25.0, None, 2_000),
        (25.0, Some(0), 1_260),
        (30.0, Some(0), 1_200),
        (30.0, Some(1_100), 1_200),
        (30.0, Some(1_500), 1_500),
        (30.0, Some(9_000), 9_000),
    ] {
        let cadence = Cadence::for_rate(hz, LatencyMode::Ultra);
        let targets = Targets::ladder(LatencyMode::Ultra, cadence, hold_back);
        assert_eq!(targets.part_hold_back_ms, wanted, "{hz} {hold_back:?}");
        assert_eq!((targets.hold_back_ms, targets.can_skip_until), (6_000, 12));
    }
    let cadence = Cadence::for_rate(25.0, LatencyMode::Low);
    let low = Targets::source(LatencyMode::Low, cadence, 4, None);
    assert_eq!((low.target_duration, low.hold_back_ms, low.can_skip_until), (4, 14_000, 24));
    let normal = Targets::ladder(LatencyMode::Normal, cadence, None);
    assert_eq!((normal.hold_back_ms, normal.can_skip_until, normal.window_segments), (18_000, 36, 10));
    assert_eq!(normal.playlist_patience(), Duration::from_secs(18));
}

#[test]
fn the_multivariant_playlist_waits_for_every_rendition_that_is_not_shed() {
    let mut world = World::new(25.0, LatencyMode::Ultra).video("360p").video("180p").audio("a-eng-1", 48_000);
    world.feeders[1].stopped = true;
    world.run_to(300);
    assert!(world.session.multivariant().is_none());
    world.run_to(900);
    assert!(world.session.multivariant().is_none(), "180p has nothing yet");
    world.output(1).set_shed(true);
    let text = plain(&world.session.multivariant().expect("the rest plays"));
    assert!(text.contains("\n360p.m3u8\n") && !text.contains("180p"), "{text}");
    world.output(1).set_shed(false);
    world.feeders[1].stopped = false;
    world.run_to(2_000);
    let whole = world.session.multivariant().expect("all play");
    assert!(plain(&whole).contains("\n180p.m3u8\n"));
    assert!(Arc::ptr_eq(&whole, &world.session.multivariant().unwrap()), "unchanged text is the same rendering");
}

#[test]
fn a_shed_rendition_goes_on_as_gap_and_comes_back() {
    let mut world = World::new(25.0, LatencyMode::Ultra).video("360p").video("180p");
    world.run_to(4_000);
    world.feeders[0].stopped = true;
    world.output(0).set_shed(true);
    for part in 1..=10u32 {
        world.run_to(4_000 + u64::from(part) * 400);
        let (msn, index) = (MSN0 + 2 + u64::from(part / 5), part % 5);
        let now = world.now;
        world.feeders[0].segmenter.gap(now, (msn, index));
    }
    assert_eq!(world.output(0).facts().last, world.output(1).facts().last, "numbers go on together");
    world.lose_to(0, 200);
    world.feeders[0].stopped = false;
    world.output(0).set_shed(false);
    let report = world.watch(16_000, keep);
    assert_eq!(report.broken, 0, "{:#?}", report.violations);
    assert!(report.late.is_empty(), "{:#?}", report.late);
    let text = world.text(0);
    assert_eq!(text.matches("#EXT-X-GAP\n").count(), 2, "{text}");
    assert!(!text.contains("EXT-X-DISCONTINUITY\n"), "the same init and timeline need none");
}
