//! Where a source rendition breaks off and goes on: other headers, another clock.

use super::*;

const RATE: FrameRate = FrameRate::new(25_000, 1_000);

/// A source passed on: `at` is called before each unit with its arrival.
fn passed(mut mux: Mux, mut at: impl FnMut(&mut Timeline, i64, &AccessUnit)) -> Vec<Out> {
    mux.0.sort_by_key(|(at, unit)| (*at, unit.pid));
    let mut timeline = Timeline::new(facts(ChannelKind::Transmux, None));
    open(&mut timeline, 48_000);
    let (mut out, mut last) = (Vec::new(), 0);
    for (arrival, unit) in mux.0 {
        at(&mut timeline, arrival, &unit);
        timeline.push(now(arrival), 0, AccessUnit { received: now(arrival).mono, ..unit });
        out.extend(std::iter::from_fn(|| timeline.poll()));
        last = arrival;
    }
    timeline.finish(now(last));
    out.extend(std::iter::from_fn(|| timeline.poll()));
    out
}

fn sounds(out: &[Out]) -> Vec<(i64, Place)> {
    out.iter().filter_map(|out| if let Out::Audio(audio) = out { Some((audio.m, audio.place)) } else { None }).collect()
}

#[test]
fn other_headers_begin_the_segment_that_is_due_and_the_sound_goes_on() {
    let mut mux = Mux::default();
    mux.video(RATE, 45_000, 0..300, |k| k % 50 == 0);
    mux.audio(48_000, 45_000 + 3_600, 0, 0..560);
    let out = passed(mux, |timeline, arrival, unit| {
        if unit.pid == VIDEO
            && arrival == RATE.ticks(100)
            && let TrackConfig::Video(config) = video_config()
        {
            let other = VideoConfig { pps: vec![Bytes::from_static(b"other")], ..config };
            timeline.config(0, VIDEO, &TrackConfig::Video(other));
        }
    });
    let grid = ready(&out).grid;
    let breaks: Vec<u64> =
        out.iter().filter_map(|out| if let Out::Discontinuity { msn } = out { Some(*msn) } else { None }).collect();
    assert_eq!(breaks, [grid.msn0 + 2], "at frame 100, where a segment begins");
    assert!(!out.iter().any(|out| matches!(out, Out::Gap { .. } | Out::Silence { .. })), "nothing is missing");
    let holes: Vec<(i64, i64)> = sounds(&out).windows(2).map(|w| (w[0].0, w[1].0)).filter(|(a, b)| b - a > 1).collect();
    // What came behind the picture of the new headers and belongs before it: 80 ms in this multiplex.
    assert!(matches!(holes[..], [(a, b)] if b == grid.audio_at_frame(100, 48_000) && b - a <= 6), "{holes:?}");
}

#[test]
fn sound_that_is_ahead_of_a_jump_takes_nothing_from_the_segment_behind_it() {
    let (mut mux, jump) = (Mux::default(), 9_000_000);
    mux.video(RATE, 45_000, 0..130, |k| k % 50 == 0);
    mux.video(RATE, 45_000 + jump, 130..300, |k| k % 50 == 30);
    // The sound is up to 0.9 s ahead of the pictures, then in time.
    let ahead = |m: i64| m * 1_920 - 81_000;
    for m in (0..).take_while(|m| ahead(*m) < RATE.ticks(130)) {
        mux.0.push((ahead(m).max(0), super::unit(AUDIO, 48_600 + m * 1_920, 48_600 + m * 1_920, true)));
    }
    for m in 240..560 {
        mux.0.push((m * 1_920, super::unit(AUDIO, 48_600 + jump + m * 1_920, 48_600 + jump + m * 1_920, true)));
    }
    let out = passed(mux, |_, _, _| {});
    let grid = ready(&out).grid;
    let first = sounds(&out).into_iter().find(|(_, place)| place.msn == grid.msn0 + 3);
    assert_eq!(first.map(|(m, place)| (m, place.part)), Some((grid.audio_at_frame(150, 48_000), 0)));
}
