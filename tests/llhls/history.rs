//! Rules that hold in every version of every playlist, whatever happens to a session: checked over random histories with
//! lost media, new init sections, renditions that are shed, date ranges [HLS 4.4, 6.2].

use rung::media::modes::LatencyMode;
use rung::package::dates::DateRange;
use rung::package::fmp4::init::InitSection;
use rung::package::player::parse::{self, MediaPlaylist, SegmentLine};
use rung::package::window::Skip;
use rung::time::Wall;
use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use crate::read::{edge, text};
use crate::world::{WALL0, World, video_config};

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }
}

/// One moment: every form of every playlist.
struct Moment {
    /// Whole, by rendition.
    texts: Vec<String>,
    lists: Vec<MediaPlaylist>,
    /// `YES` and `v2`, by rendition.
    deltas: Vec<[MediaPlaylist; 2]>,
    wall: i64,
}

impl Moment {
    fn of(world: &World) -> Moment {
        let read = |index, skip| parse::media(&text(world, index, skip)).unwrap();
        let texts: Vec<String> = (0..world.feeders.len()).map(|i| text(world, i, Skip::No)).collect();
        let lists = texts.iter().map(|text| parse::media(text).unwrap()).collect();
        let deltas = (0..world.feeders.len()).map(|i| [read(i, Skip::Yes), read(i, Skip::V2)]).collect();
        Moment { texts, lists, deltas, wall: world.clock().wall.0 / 1_000_000 }
    }
}

/// 240 steps of a troubled session.
fn troubled(seed: u64, mode: LatencyMode) -> Vec<Moment> {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut world = World::new(25.0, mode).video("360p").video("180p").audio("a-eng-1", 48_000);
    let segment = u64::from(mode.params().target_duration) * 1_000;
    world.run_to(3 * segment);
    let (mut ms, mut quiet, mut maps, mut ranges) = (3 * segment, 0u64, 0u32, 0u32);
    let mut moments = vec![Moment::of(&world)];
    for _ in 0..240 {
        let step = [40, 100, 400, 700][usize::try_from(random.below(4)).unwrap()] * segment / 2_000;
        // Discontinuities come where every rendition begins a segment.
        let boundary = (ms / segment + 1) * segment;
        ms = if ms + step >= boundary { boundary } else { ms + step };
        world.run_to(ms);
        match random.below(12) {
            0 if ms != boundary => {
                let index = usize::try_from(random.below(2)).unwrap();
                let next = i64::try_from(ms / 40 + 1 + random.below(90)).unwrap();
                world.lose_to(index, next);
                quiet = ms + 4 * segment;
            }
            1 => world.output(1).set_shed(random.below(2) == 0),
            2 | 3 => {
                ranges += 1;
                let start = Wall(WALL0 + i64::try_from(ms + random.below(4_000)).unwrap() * 1_000_000);
                let duration = Some(Duration::from_millis(random.below(9_000)));
                let range = DateRange { id: format!("r{ranges}"), start, duration, ..DateRange::default() };
                world.session.announce(range).unwrap();
            }
            _ => {}
        }
        if ms == boundary && ms > quiet && random.below(3) == 0 {
            maps += 1;
            let (now, timescale) = (world.now, world.grid.cadence.timescale());
            let init = InitSection::video(&video_config(), timescale, u64::from(1_000_000 + maps));
            for feeder in &mut world.feeders[..2] {
                feeder.segmenter.discontinuity(now, Some(init.clone()));
            }
            world.feeders[2].segmenter.break_here();
        }
        moments.push(Moment::of(&world));
    }
    moments
}

/// Each moment with the one before and one of up to 5 s ago. All tests look at the same histories.
fn histories(mut check: impl FnMut(&Moment, &Moment, &Moment)) {
    static ALL: LazyLock<Vec<Vec<Moment>>> = LazyLock::new(|| {
        let both = |seed| [LatencyMode::Ultra, LatencyMode::Low].map(|mode| troubled(seed, mode));
        (1..=2).flat_map(both).collect()
    });
    for moments in ALL.iter() {
        let mut past = 0;
        for now in 1..moments.len() {
            while moments[past].wall + 5_000 < moments[now].wall && past + 1 < now {
                past += 1;
            }
            check(&moments[now], &moments[now - 1], &moments[past]);
        }
    }
}

#[test]
fn targets_and_server_control_are_constant_for_a_session_and_the_same_in_all_its_playlists() {
    let mut versions = 0;
    histories(|now, before, _| {
        for list in now.lists.iter().chain(now.deltas.iter().flatten()) {
            assert_eq!(list.promises, before.lists[0].promises);
            versions += 1;
        }
    });
    assert!(versions > 5_000);
}

#[test]
fn segments_keep_to_target_duration_and_parts_to_part_target() {
    let (mut segments, mut parts) = (0, 0);
    histories(|now, _, _| {
        for list in &now.lists {
            let (target, part_target) = (list.promises.target_duration, list.promises.part_target);
            for segment in &list.segments {
                if segment.whole.is_some() {
                    assert!((segment.duration() + 500_000) / 1_000_000 <= target, "{segment:?}");
                    segments += 1;
                }
                for (index, part) in segment.parts.iter().enumerate() {
                    assert!(part.duration <= part_target, "{segment:?}");
                    // The last one of a segment may be short, and one whose follower cannot be had.
                    let next = segment.parts.get(index + 1);
                    let excused = part.gap || next.is_none_or(|next| next.gap);
                    assert!(excused || part.duration * 100 >= part_target * 85, "{segment:?}");
                    parts += 1;
                }
                let sum: u64 = segment.parts.iter().map(|p| p.duration).sum();
                let rounding = 10 * segment.parts.len() as u64 + 10;
                let adds_up = sum.abs_diff(segment.duration()) <= rounding;
                assert!(segment.parts.is_empty() || adds_up, "PART durations sum to EXTINF: {segment:?}");
            }
        }
    });
    assert!(segments > 5_000 && parts > 5_000, "{segments} {parts}");
}

/// What a playlist says of its segments, without what is written anew in each version.
fn body(text: &str) -> Vec<&str> {
    let own = ["#EXT-X-PRELOAD-HINT", "#EXT-X-RENDITION-REPORT", "#EXT-X-PART:", "#EXT-X-MAP", "#EXT-X-DATERANGE"];
    let lines = text.lines().skip_while(|l| !l.starts_with("#EXT-X-DISCONTINUITY-SEQUENCE")).skip(1);
    lines.filter(|l| !own.iter().any(|tag| l.starts_with(tag))).collect()
}

#[test]
fn lines_are_only_appended_at_the_end_and_removed_at_the_front() {
    let mut removed = 0;
    histories(|now, before, _| {
        for (new, old) in now.texts.iter().zip(&before.texts) {
            let (new, old) = (body(new), body(old));
            let from = (0..old.len()).find(|from| new.starts_with(&old[*from..]));
            removed += from.unwrap_or_else(|| panic!("{old:#?}\n\nthen {new:#?}"));
        }
    });
    assert!(removed > 100, "{removed}");
}

#[test]
fn date_ranges_and_parts_keep_their_order_and_never_change() {
    histories(|now, before, _| {
        for (new, old) in now.texts.iter().zip(&before.texts) {
            let of = |text: &str, tag: &str| -> Vec<String> {
                text.lines().filter(|l| l.starts_with(tag)).map(str::to_owned).collect()
            };
            for tag in ["#EXT-X-DATERANGE", "#EXT-X-PART:"] {
                let (new, old) = (of(new, tag), of(old, tag));
                let kept: Vec<&String> = old.iter().filter(|line| new.contains(line)).collect();
                assert_eq!(kept, new.iter().take(kept.len()).collect::<Vec<_>>(), "{tag}");
            }
        }
    });
}

#[test]
fn sequence_numbers_follow_what_was_removed() {
    let mut gone_discontinuities = 0;
    histories(|now, before, _| {
        for (new, old) in now.lists.iter().zip(&before.lists) {
            assert!(new.msn >= old.msn && new.dsn >= old.dsn);
            let gone = old.segments.iter().filter(|s| s.msn < new.msn);
            let discontinuities = gone.filter(|s| s.discontinuity).count() as u64;
            assert_eq!(new.dsn, old.dsn + discontinuities, "segment {}", new.msn);
            gone_discontinuities += discontinuities;
        }
    });
    assert!(gone_discontinuities > 3, "{gone_discontinuities}");
}

#[test]
fn no_segment_leaves_if_less_than_three_target_durations_would_stay() {
    histories(|now, before, _| {
        for (new, old) in now.lists.iter().zip(&before.lists) {
            let listed: u64 = new.segments.iter().map(SegmentLine::duration).sum();
            assert!(new.msn == old.msn || listed >= 3_000_000 * new.promises.target_duration, "{listed}");
        }
    });
}

#[test]
fn discontinuities_stand_at_the_same_segment_of_every_playlist_under_the_same_number() {
    let mut seen = 0;
    histories(|now, _, _| {
        let numbers = |list: &MediaPlaylist| -> BTreeMap<u64, u64> {
            let mut number = list.dsn;
            let count = |s: &SegmentLine| {
                number += u64::from(s.discontinuity);
                (s.msn, number)
            };
            list.segments.iter().map(count).collect()
        };
        let first = numbers(&now.lists[0]);
        for list in &now.lists[1..] {
            for (msn, number) in numbers(list) {
                assert!(first.get(&msn).is_none_or(|n| *n == number), "segment {msn}");
                seen += u64::from(number > 0);
            }
        }
    });
    assert!(seen > 500, "{seen}");
}

#[test]
fn every_segment_has_its_date_its_map_and_no_date_lies_in_the_future() {
    histories(|now, _, _| {
        for list in &now.lists {
            for segment in &list.segments {
                assert!(segment.map.is_some() && segment.date_time.is_some(), "{segment:?}");
                assert!(segment.gap || segment.date_time.unwrap() <= now.wall, "{segment:?}");
            }
            let dates: Vec<i64> = list.segments.iter().filter_map(|s| s.date_time).collect();
            assert!(dates.is_sorted_by(|a, b| a < b), "{dates:?}");
        }
    });
}

#[test]
fn a_segment_with_a_part_that_cannot_be_had_is_a_gap_and_so_is_that_part() {
    let mut gaps = 0;
    histories(|now, _, _| {
        for segment in now.lists.iter().flat_map(|list| &list.segments).filter(|s| s.whole.is_some()) {
            assert!(segment.gap || segment.parts.iter().all(|p| !p.gap), "{segment:?}");
            gaps += u32::from(segment.gap);
        }
    });
    assert!(gaps > 100, "{gaps}");
}

#[test]
fn reports_say_where_every_other_playlist_ends_at_that_moment() {
    let mut reports = 0;
    histories(|now, before, past| {
        for (own, list) in now.lists.iter().enumerate().filter(|(_, list)| list.promises.part_target > 0) {
            for (uri, msn, part) in &list.reports {
                let index = match uri.as_str() {
                    "360p.m3u8" => 0,
                    "180p.m3u8" => 1,
                    "a-eng-1.m3u8" => 2,
                    _ => continue,
                };
                let (last, parts) = edge(&now.lists[index]);
                let (ends, claim) = ((last, parts.saturating_sub(1) as u64), (*msn, *part));
                // A version's reports are those of when it came.
                let new = now.texts[own] != before.texts[own];
                let stood = edge(&past.lists[index]);
                assert!(claim == ends || !new && claim < ends && claim.0 >= stood.0, "{uri}: {claim:?}, not {ends:?}");
                reports += 1;
            }
        }
    });
    assert!(reports > 1_000, "{reports}");
}

/// What a player makes of a delta and the playlist that it had.
fn applied(had: &MediaPlaylist, delta: &MediaPlaylist) -> MediaPlaylist {
    let upto = delta.msn + delta.skipped;
    let old = had.segments.iter().filter(|s| (delta.msn..upto).contains(&s.msn));
    let mut map = None;
    let mut whole = delta.clone();
    whole.segments =
        old.map(|s| SegmentLine { parts: Vec::new(), ..s.clone() }).chain(delta.segments.clone()).collect();
    for segment in &mut whole.segments {
        segment.map = segment.map.take().or_else(|| map.clone());
        map.clone_from(&segment.map);
    }
    if let Some(removed) = &delta.removed {
        whole.dates = had.dates.clone();
        whole.dates.retain(|id, _| !removed.contains(id));
        for (id, said) in &delta.dates {
            whole.dates.entry(id.clone()).or_default().extend(said.clone());
        }
    }
    (whole.skipped, whole.removed, whole.version) = (0, None, 6);
    whole
}

#[test]
fn a_delta_applied_to_what_a_player_had_is_the_whole_playlist() {
    let (mut skipped, mut left_out) = (0, 0);
    histories(|now, _, past| {
        for ((full, deltas), had) in now.lists.iter().zip(&now.deltas).zip(&past.lists) {
            for delta in deltas {
                let got = applied(had, delta);
                assert_eq!(got.dates, full.dates);
                for (got, wanted) in got.segments.iter().zip(&full.segments) {
                    assert_eq!(got, wanted);
                }
                // Another form of a version may have been asked for earlier, and say less of others.
                let reports = full.reports.clone();
                assert_eq!(MediaPlaylist { reports, ..got }, *full);
                skipped += delta.skipped;
            }
            left_out += deltas[0].dates.len() - deltas[1].dates.len();
        }
    });
    assert!(skipped > 5_000 && left_out > 300, "{skipped} {left_out}");
}

#[test]
fn a_delta_leaves_out_exactly_what_ends_before_the_skip_boundary() {
    histories(|now, _, _| {
        for (full, [yes, v2]) in now.lists.iter().zip(&now.deltas) {
            assert_eq!(yes.skipped, v2.skipped);
            let boundary = full.promises.control("CAN-SKIP-UNTIL");
            let after = |n: usize| full.segments[n..].iter().map(SegmentLine::duration).sum::<u64>();
            let skipped = usize::try_from(yes.skipped).unwrap();
            assert!(skipped == 0 || after(skipped) >= boundary, "{skipped} is too many");
            assert!(after(skipped + 1) < boundary + 20, "{skipped} is too few");
            assert!(yes.version == if skipped > 0 { 9 } else { 6 } && full.version == 6);
        }
    });
}
