//! The model player is satisfied by what the packager does, and catches what it must not do: one planted fault a test.

use bytes::Bytes;
use rung::media::modes::LatencyMode;
use rung::package::dates::DateRange;
use rung::package::player::Report;
use rung::time::Wall;

use crate::world::{WALL0, World, keep};

fn ladder() -> World {
    World::new(25.0, LatencyMode::Ultra).video("360p").video("180p").audio("a-eng-1", 48_000)
}

fn satisfied(report: &Report) {
    assert_eq!(report.broken, 0, "{:#?}", report.violations);
    assert!(report.late.is_empty(), "{:#?}", report.late);
}

/// The player saw `needle` go wrong, and would not have without the plant.
fn caught(report: &Report, needle: &str) {
    assert!(report.violations.iter().any(|v| v.contains(needle)), "{needle:?} is not in {:#?}", report.violations);
}

fn playlist(edit: impl Fn(&str, &str) -> String) -> impl FnMut(&str, u16, Bytes) -> (u16, Bytes) {
    move |uri, status, body| match uri.contains(".m3u8") && !uri.contains("index") && status == 200 {
        true => (status, Bytes::from(edit(uri, std::str::from_utf8(&body).unwrap()))),
        false => (status, body),
    }
}

#[test]
fn a_player_is_satisfied_by_every_rate_in_ultra() {
    for hz in [12.5, 15.0, 20.0, 23.976, 24.0, 25.0, 29.97, 30.0, 50.0, 59.94, 60.0] {
        for rate in [32_000, 44_100, 48_000] {
            let report = World::new(hz, LatencyMode::Ultra).video("360p").audio("a-eng-1", rate).watch(20_000, keep);
            satisfied(&report);
            assert!(report.parts > 80 && report.deltas > 20, "{hz} {rate}: {report:?}");
            assert_eq!((report.gaps, report.hints_missed, report.discontinuities), (0, 0, 0), "{hz} {rate}");
            assert!(report.hints >= report.parts - 4, "{hz} {rate}: {report:?}");
        }
    }
}

#[test]
fn a_player_is_satisfied_over_ten_minutes_of_a_ladder() {
    let report = ladder().watch(600_000, keep);
    satisfied(&report);
    assert!(report.segments > 890 && report.parts > 4_400, "{report:?}");
    // Parts are listed the moment that they end.
    assert!(report.latency_ms_max.is_some_and(|ms| ms <= 30), "{report:?}");
}

#[test]
fn a_player_is_satisfied_without_parts() {
    for mode in [LatencyMode::Low, LatencyMode::Normal] {
        let report = World::new(29.97, mode).video("360p").audio("a-eng-1", 44_100).watch(120_000, keep);
        satisfied(&report);
        assert!(report.segments >= 36 && report.parts == 0 && report.deltas > 10, "{mode:?}: {report:?}");
    }
}

#[test]
fn a_player_that_missed_the_last_parts_of_a_segment_does_not_miscount_them() {
    let (mut world, mut asked) = (ladder(), 0);
    let mut player = rung::package::player::Player::new("/live/c/index.m3u8");
    // For eight seconds one of its playlists is not to be had.
    let mut lost = |uri: &str, status: u16, body: Bytes| {
        asked += usize::from(uri.contains("360p.m3u8"));
        if uri.contains("360p.m3u8") && (14..22).contains(&asked) { (503, Bytes::new()) } else { (status, body) }
    };
    world.watch_with(&mut player, 30_000, &mut lost);
    let report = player.report();
    let told = ["status 503 for a playlist", "was served and never listed"];
    let others = report.violations.iter().filter(|what| !told.iter().any(|told| what.contains(told))).count();
    assert!(asked > 30 && report.broken > 8 && others == 0, "{asked}: {:#?}", report.violations);
}

#[test]
fn a_player_sees_the_end() {
    let mut world = ladder();
    let mut player = rung::package::player::Player::new("/live/c/index.m3u8");
    world.watch_with(&mut player, 7_100, &mut keep);
    world.end();
    world.watch_with(&mut player, 7_300, &mut keep);
    satisfied(&player.report());
    assert!(player.report().ended);
}

#[test]
fn a_player_counts_gaps_without_calling_them_broken() {
    let mut world = ladder();
    let mut player = rung::package::player::Player::new("/live/c/index.m3u8");
    world.watch_with(&mut player, 5_000, &mut keep);
    world.feeders[0].stopped = true;
    // As a filler does: what is past its due time is given up, part by part, until the next GOP starts.
    for part in 3..=6 {
        world.watch_with(&mut player, 5_000 + (part - 2) * 400, &mut keep);
        let msn = world.grid.msn0 + 2 + part / 5;
        let now = world.now;
        world.feeders[0].segmenter.gap(now, (msn, u32::try_from(part % 5).unwrap()));
    }
    world.lose_to(0, 200);
    world.watch_with(&mut player, 7_995, &mut keep);
    let now = world.now;
    world.feeders[0].segmenter.gap(now, (world.grid.msn0 + 4, 0));
    world.feeders[0].stopped = false;
    world.watch_with(&mut player, 12_000, &mut keep);
    let report = player.report();
    assert_eq!(report.broken, 0, "{:#?}", report.violations);
    assert!(report.gaps >= 8, "{report:?}");
}

#[test]
fn a_player_looks_at_every_i_frame_and_at_date_ranges_too() {
    let mut world = ladder();
    let mut player = rung::package::player::Player::new("/live/c/index.m3u8");
    for n in 0..40u64 {
        let start = Wall(WALL0 + i64::try_from(n).unwrap() * 2_000_000_000);
        let duration = Some(std::time::Duration::from_millis(500 + n * 100));
        world.session.announce(DateRange { id: format!("r{n}"), start, duration, ..DateRange::default() }).unwrap();
        world.watch_with(&mut player, (n + 1) * 2_000, &mut keep);
    }
    let report = player.report();
    satisfied(&report);
    assert_eq!(report.renditions, 3);
    assert!(report.pictures >= 2 * 37 && report.dates >= 3 * 39 && report.deltas > 300, "{report:?}");
}

#[test]
fn an_i_frame_that_is_none_is_caught() {
    let report = ladder().watch(6_000, |uri: &str, status, body: Bytes| {
        let mut bytes = body.to_vec();
        if uri.contains("360p/i")
            && let Some(at) = bytes.windows(2).position(|w| w == [0x2c, 0x65])
        {
            bytes[at + 1] = 0x41;
        }
        (status, Bytes::from(bytes))
    });
    caught(&report, "is no single IDR picture");
    let report = ladder().watch(6_000, playlist(|_, t| t.replace("#EXT-X-I-FRAMES-ONLY\n", "")));
    caught(&report, "EXT-X-I-FRAMES-ONLY is false");
}

/// A ladder with a date range of half a minute from 4 s on, watched for 20 s.
fn dated(spoil: impl FnMut(&str, u16, Bytes) -> (u16, Bytes)) -> Report {
    let (mut world, start) = (ladder(), Wall(WALL0 + 4_000_000_000));
    let duration = Some(std::time::Duration::from_secs(30));
    world.session.announce(DateRange { id: "ad".into(), start, duration, ..DateRange::default() }).unwrap();
    world.watch(20_000, spoil)
}

#[test]
fn date_ranges_that_change_go_early_or_differ_are_caught() {
    satisfied(&dated(keep));
    let report = dated(playlist(|uri, text| match uri.contains("_HLS_part=2") {
        true => text.replace("DURATION=30.00000", "DURATION=31.00000"),
        false => text.to_owned(),
    }));
    caught(&report, "date range \"ad\" changed");
    let without = |text: &str| text.lines().filter(|l| !l.contains("ID=\"ad\"")).map(|l| l.to_owned() + "\n").collect();
    let report = dated(playlist(|uri, text| match uri.contains("_HLS_part=2") {
        true => without(text),
        false => text.to_owned(),
    }));
    caught(&report, "went before its time");
    caught(&report, "is there again");
    let report = dated(playlist(|uri, text| if uri.contains("180p") { without(text) } else { text.to_owned() }));
    caught(&report, "other date ranges than");
}

#[test]
fn a_version_below_what_a_delta_needs_is_caught() {
    let report = ladder().watch(30_000, playlist(|_, t| t.replace("VERSION:10", "VERSION:9")));
    caught(&report, "EXT-X-VERSION is 9, its tags need 10");
}

#[test]
fn changed_part_target_is_caught() {
    let report = ladder().watch(
        4_000,
        playlist(|uri, text| match uri.contains("_HLS_part=2") {
            true => text.replace("PART-TARGET=0.420", "PART-TARGET=0.421"),
            false => text.to_owned(),
        }),
    );
    caught(&report, "promises changed");
}

#[test]
fn hold_back_below_three_part_targets_is_caught() {
    let report = ladder().watch(1_500, playlist(|_, t| t.replace("PART-HOLD-BACK=2.000", "PART-HOLD-BACK=1.000")));
    caught(&report, "PART-HOLD-BACK is below");
}

#[test]
fn a_part_over_its_target_is_caught() {
    let report = ladder().watch(3_000, playlist(|_, t| t.replace("DURATION=0.40000", "DURATION=0.43000")));
    caught(&report, "over PART-TARGET");
}

#[test]
fn a_short_part_within_a_segment_is_caught() {
    let report = ladder().watch(3_000, playlist(|_, t| t.replace("DURATION=0.40000", "DURATION=0.30000")));
    caught(&report, "under 85 % of PART-TARGET");
}

#[test]
fn a_segment_over_target_duration_is_caught() {
    let report = ladder().watch(5_000, playlist(|_, t| t.replace("#EXTINF:2.00000", "#EXTINF:2.60000")));
    caught(&report, "over TARGETDURATION");
    caught(&report, "its parts are");
    caught(&report, "its media");
}

#[test]
fn a_media_sequence_that_goes_back_is_caught() {
    let mut asked = 0;
    let report = ladder().watch(40_000, |uri: &str, status, body: Bytes| {
        asked += 1;
        if asked < 400 || !uri.contains(".m3u8") {
            return (status, body);
        }
        let text = String::from_utf8(body.to_vec()).unwrap();
        (status, Bytes::from(text.replace("MEDIA-SEQUENCE:17951760", "MEDIA-SEQUENCE:17951759")))
    });
    caught(&report, "media sequence went back");
}

#[test]
fn a_wrong_discontinuity_sequence_is_caught() {
    let report = ladder().watch(
        4_000,
        playlist(|uri, text| match uri.contains("_HLS_part=3") {
            true => text.replace("DISCONTINUITY-SEQUENCE:0", "DISCONTINUITY-SEQUENCE:1"),
            false => text.to_owned(),
        }),
    );
    caught(&report, "discontinuity sequence is 1, not 0");
}

/// Shifts the first tfdt of every matching answer by one tick.
fn shift_tfdt(body: &Bytes) -> Bytes {
    let mut bytes = body.to_vec();
    let at = bytes.windows(4).position(|w| w == b"tfdt").unwrap();
    bytes[at + 15] ^= 1;
    Bytes::from(bytes)
}

#[test]
fn a_tfdt_that_does_not_meet_is_caught() {
    let report = ladder().watch(4_000, |uri: &str, status, body: Bytes| match uri.ends_with(".3.m4s") {
        true => (status, shift_tfdt(&body)),
        false => (status, body),
    });
    caught(&report, "the part before ends at");
    caught(&report, "is not its parts end to end");
}

#[test]
fn a_false_independent_flag_is_caught() {
    let lie = |uri: &str, text: &str| match uri.contains("360p") {
        true => text.replace(".1.m4s\"\n", ".1.m4s\",INDEPENDENT=YES\n"),
        false => text.to_owned(),
    };
    caught(&ladder().watch(3_000, playlist(lie)), "INDEPENDENT=true with 0 sync samples");
    let report = ladder().watch(3_000, playlist(|_, t| t.replace(",INDEPENDENT=YES", "")));
    caught(&report, "INDEPENDENT=false with 1 sync samples");
}

#[test]
fn a_sync_sample_without_an_idr_picture_is_caught() {
    let report = ladder().watch(3_000, |uri: &str, status, body: Bytes| {
        let mut bytes = body.to_vec();
        if uri.contains("360p/p")
            && let Some(at) = bytes.windows(2).position(|w| w == [0x2c, 0x65])
        {
            bytes[at + 1] = 0x41;
        }
        (status, Bytes::from(bytes))
    });
    caught(&report, "1 sync samples, 0 of them IDR pictures");
}

#[test]
fn one_uri_with_two_contents_is_caught() {
    let mut asked = 0;
    let report = ladder().watch(6_000, |uri: &str, status, body: Bytes| {
        asked += u32::from(uri.ends_with(".0.m4s"));
        if !uri.ends_with(".0.m4s") || asked < 8 {
            return (status, body);
        }
        let mut bytes = body.to_vec();
        let last = bytes.len() - 1;
        bytes[last] ^= u8::try_from(asked % 251).unwrap();
        (status, Bytes::from(bytes))
    });
    caught(&report, "has two contents");
}

#[test]
fn an_answer_before_its_part_is_caught() {
    let mut held: Option<Bytes> = None;
    let report = ladder().watch(4_000, |uri: &str, status, body: Bytes| {
        if !uri.contains("360p.m3u8?") || uri.contains("skip") {
            return (status, body);
        }
        (status, held.replace(body.clone()).unwrap_or(body))
    });
    caught(&report, "answered early");
}

#[test]
fn a_playlist_that_is_refused_is_caught() {
    let mut world = ladder();
    let mut player = rung::package::player::Player::new("/live/c/index.m3u8");
    world.watch_with(&mut player, 5_000, &mut keep);
    world.feeders.iter_mut().for_each(|f| f.stopped = true);
    world.watch_with(&mut player, 12_000, &mut keep);
    caught(&player.report(), "status 503 for a playlist after 6");
}

#[test]
fn a_false_rendition_report_is_caught() {
    let ahead = |uri: &str, text: &str| match uri.contains("360p") {
        true => text.replace("LAST-MSN=1795176001", "LAST-MSN=1795176004"),
        false => text.to_owned(),
    };
    let report = ladder().watch(8_000, playlist(ahead));
    caught(&report, "was reported elsewhere");
    let stale = |_: &str, text: &str| text.replace("LAST-MSN=1795176002", "LAST-MSN=1795176000");
    caught(&ladder().watch(8_000, playlist(stale)), "is stale");
}

#[test]
fn a_segment_that_ends_short_is_no_lead_over_other_renditions() {
    let mut world = World::new(50.0, LatencyMode::Ultra).video("360p").audio("a-eng-1", 48_000);
    let mut player = rung::package::player::Player::new("/live/c/index.m3u8");
    // Within a segment's first part both go on in the next one; the sound's first part there comes first.
    world.watch_with(&mut player, 4_100, &mut keep);
    world.renew();
    world.watch_with(&mut player, 12_000, &mut keep);
    satisfied(&player.report());
    assert_eq!(player.report().discontinuities, 2);
}

#[test]
fn a_hint_that_is_not_honoured_is_caught() {
    // The part comes under another name than the one that was hinted.
    let rename = |line: &str| match line.starts_with("#EXT-X-PART:") {
        true => line.replace(".1.m4s", ".9.m4s") + "\n",
        false => line.to_owned() + "\n",
    };
    caught(
        &ladder().watch(5_000, playlist(|_, text| text.lines().map(rename).collect())),
        "was served and never listed",
    );
}

#[test]
fn a_missing_hint_is_caught() {
    let report = ladder().watch(2_000, playlist(|_, text| text.replace("PRELOAD-HINT", "PRELOAD-NONE")));
    caught(&report, "no PRELOAD-HINT");
}

#[test]
fn date_times_in_the_future_or_back_are_caught() {
    let report =
        ladder().watch(3_000, playlist(|_, t| t.replace("TIME:2026-11-20T12:00:0", "TIME:2026-11-20T12:00:3")));
    caught(&report, "in the future");
    let report = ladder().watch(5_000, playlist(|_, t| t.replace("12:00:02.000Z", "11:59:02.000Z")));
    caught(&report, "goes back");
    let report = ladder().watch(7_000, playlist(|_, t| t.replace("12:00:02.000Z", "12:00:01.900Z")));
    caught(&report, "steps by -100 ms");
    caught(&report, "moved -100 ms against tfdt");
}

#[test]
fn a_delta_that_skips_too_much_is_caught() {
    let report = ladder().watch(
        30_000,
        playlist(|_, text| {
            // Skips one more segment than the boundary allows: drops the first one written out.
            let Some(at) = text.find("SKIPPED-SEGMENTS=") else { return text.to_owned() };
            let (count, rest) = text[at + 17..].split_once('\n').unwrap();
            let count = count.split(',').next().unwrap();
            let mut lines = rest.splitn(4, '\n');
            let rest = lines.nth(3).unwrap_or("");
            format!("{}SKIPPED-SEGMENTS={}\n{rest}", &text[..at], count.parse::<u32>().unwrap() + 1)
        }),
    );
    caught(&report, "a delta skips up to");
}

#[test]
fn a_segment_that_changes_is_caught() {
    let report = ladder().watch(
        6_000,
        playlist(|uri, text| match uri.contains("_HLS_part=3") {
            true => text.replace("#EXTINF:2.00000,", "#EXTINF:2.00010,"),
            false => text.to_owned(),
        }),
    );
    caught(&report, "changed");
}

#[test]
fn media_that_is_listed_but_missing_is_caught() {
    let report = ladder().watch(5_000, |uri: &str, status, body: Bytes| match uri.contains("/s17") {
        true => (404, Bytes::new()),
        false => (status, body),
    });
    caught(&report, "is listed but gives 404");
}

#[test]
fn audio_that_lags_by_more_than_a_part_is_called_late() {
    let mut world = ladder();
    world.feeders[2].delay_ms = 1_000;
    let report = world.watch(12_000, keep);
    assert!(report.late.iter().any(|late| late.contains("over a part apart")), "{report:?}");
}
