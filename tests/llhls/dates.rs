//! Date ranges [HLS 4.4.5.1, 6.2.1, 6.2.4, 6.2.5.1].

use bytes::Bytes;
use rung::media::modes::LatencyMode;
use rung::package::dates::{DATE_RANGES_MAX, DateRange, Value};
use rung::package::window::Skip;
use rung::time::Wall;
use std::collections::BTreeMap;
use std::time::Duration;

use crate::read::{edge, list, text};
use crate::world::{WALL0, World};

/// Milliseconds into the world.
fn wall(ms: i64) -> Wall {
    Wall(WALL0 + ms * 1_000_000)
}

fn range(id: &str, from_ms: i64, duration_ms: impl Into<Option<u64>>) -> DateRange {
    let duration = duration_ms.into().map(Duration::from_millis);
    DateRange { id: id.to_owned(), start: wall(from_ms), duration, ..DateRange::default() }
}

fn ladder(ms: u64) -> World {
    let mut world = World::new(25.0, LatencyMode::Ultra).video("360p").video("180p").audio("a-eng-1", 48_000);
    world.run_to(ms);
    world
}

fn ids(world: &World, index: usize, skip: Skip) -> Vec<String> {
    list(world, index, skip).dates.into_keys().collect()
}

#[test]
fn a_date_range_is_written_with_its_attributes_in_the_spelling_of_the_draft() {
    let mut world = ladder(5_000);
    let attributes = BTreeMap::from([
        ("SCTE35-OUT".to_owned(), Value::Hex(Bytes::from_static(&[0xfc, 0x30, 0x0a]))),
        ("X-COM-EXAMPLE-NAME".to_owned(), Value::Text("a, b".to_owned())),
        ("X-COM-EXAMPLE-SPAN".to_owned(), Value::Seconds(Duration::from_millis(1_500))),
    ]);
    let planned_duration = Some(Duration::from_secs(30));
    let class = Some("com.example.ad".to_owned());
    world.session.announce(DateRange { class, planned_duration, attributes, ..range("ad-1", 6_000, None) }).unwrap();
    assert!(!text(&world, 0, Skip::No).contains("#EXT-X-DATERANGE"), "it comes with the next part");
    world.run_to(5_300);
    let wanted = "#EXT-X-DATERANGE:ID=\"ad-1\",CLASS=\"com.example.ad\",START-DATE=\"2026-11-20T12:00:06.000Z\",\
                  PLANNED-DURATION=30.00000,SCTE35-OUT=0xFC300A,X-COM-EXAMPLE-NAME=\"a, b\",X-COM-EXAMPLE-SPAN=1.50000\n";
    for index in 0..3 {
        assert!(text(&world, index, Skip::No).contains(wanted), "{}", text(&world, index, Skip::No));
    }
}

#[test]
fn playlists_of_a_session_that_end_alike_list_the_same_date_ranges() {
    let mut world = ladder(1_000);
    // Renditions come at different times, so that each announcement falls between their parts.
    (world.feeders[1].delay_ms, world.feeders[2].delay_ms) = (130, 290);
    let mut seen: BTreeMap<(u64, usize), Vec<String>> = BTreeMap::new();
    let mut compared = 0;
    for step in 0..900u64 {
        world.run_to(1_000 + step * 50);
        if step % 37 == 0 {
            let now = i64::try_from(1_000 + step * 50).unwrap();
            world.session.announce(range(&format!("r{step}"), now, 400 + step * 3)).unwrap();
        }
        for index in 0..3 {
            let list = list(&world, index, Skip::No);
            let all: Vec<String> = list.dates.keys().cloned().collect();
            compared += usize::from(seen.contains_key(&edge(&list)) && !all.is_empty());
            assert_eq!(seen.entry(edge(&list)).or_insert_with(|| all.clone()), &all, "{index} at {step}");
        }
    }
    assert!(compared > 1_000 && seen.values().any(|ids| ids.len() > 10), "{compared}");
    assert!(seen.values().last().unwrap().iter().all(|id| id != "r0"), "the first is over and gone");
}

#[test]
fn a_date_range_stays_while_a_listed_segment_falls_into_it_and_goes_behind() {
    let mut world = ladder(5_000);
    world.session.announce(range("short", 5_000, 1_000)).unwrap();
    world.session.announce(range("instant", 5_000, 0)).unwrap();
    world.session.announce(range("open", 5_000, None)).unwrap();
    for second in 6..90u64 {
        world.run_to(second * 1_000);
        for index in 0..3 {
            let list = list(&world, index, Skip::No);
            let first = list.segments[0].date_time.unwrap();
            for (id, end) in [("short", 6_000), ("instant", 5_000)] {
                let meets = first <= wall(end).0 / 1_000_000;
                assert!(!meets || list.dates.contains_key(id), "{id} at {second} s is missing");
                let behind = first > wall(end + 4_000).0 / 1_000_000;
                assert!(!behind || !list.dates.contains_key(id), "{id} at {second} s is still listed");
            }
            assert!(list.dates.contains_key("open"), "nobody knows its end");
        }
    }
    assert!(!ids(&world, 0, Skip::No).contains(&"short".to_owned()));
    world.session.announce(range("open", 5_000, 80_000)).unwrap();
    world.run_to(200_000);
    assert!(ids(&world, 0, Skip::No).is_empty());
}

#[test]
fn what_is_learnt_of_a_date_range_is_another_tag_and_contradictions_are_refused() {
    let mut world = ladder(5_000);
    let planned_duration = Some(Duration::from_secs(30));
    let first = DateRange { planned_duration, ..range("ad", 5_000, None) };
    world.session.announce(first.clone()).unwrap();
    world.run_to(6_000);
    let before = text(&world, 0, Skip::No);
    world.session.announce(first.clone()).unwrap();
    let attributes = BTreeMap::from([("SCTE35-IN".to_owned(), Value::Hex(Bytes::from_static(&[1])))]);
    world.session.announce(DateRange { attributes, ..range("ad", 5_000, 4_200) }).unwrap();
    world.run_to(10_000);
    let after = text(&world, 0, Skip::No);
    let tags =
        |text: &str| text.lines().filter(|l| l.starts_with("#EXT-X-DATERANGE")).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(tags(&after).len(), 2, "said again says nothing: {after}");
    assert_eq!(tags(&after)[0], tags(&before)[0], "a line never changes");
    let new = "#EXT-X-DATERANGE:ID=\"ad\",START-DATE=\"2026-11-20T12:00:05.000Z\",DURATION=4.20000,SCTE35-IN=0x01";
    assert_eq!(tags(&after)[1], new);
    for wrong in [
        DateRange { start: wall(5_001), ..first.clone() },
        range("ad", 5_000, 4_300),
        DateRange { class: Some("other".to_owned()), ..first.clone() },
        DateRange { planned_duration: Some(Duration::from_secs(31)), ..first.clone() },
        DateRange { end: Some(wall(9_000)), ..range("ad", 5_000, 4_200) },
        DateRange { end: Some(wall(4_000)), ..range("b", 5_000, None) },
        DateRange { end_on_next: true, ..range("c", 5_000, None) },
        range("", 5_000, None),
        range("tab\there", 5_000, None),
        range("quote\"", 5_000, None),
        DateRange { attributes: BTreeMap::from([("ID".to_owned(), Value::Text("x".to_owned()))]), ..range("d", 0, 0) },
        DateRange { attributes: BTreeMap::from([("X-a".to_owned(), Value::Text("x".to_owned()))]), ..range("e", 0, 0) },
        DateRange {
            attributes: BTreeMap::from([("X-A".to_owned(), Value::Text("\n".to_owned()))]),
            ..range("f", 0, 0)
        },
    ] {
        assert!(world.session.announce(wrong.clone()).is_err(), "{wrong:?}");
    }
    world.run_to(10_400);
    assert_eq!(tags(&text(&world, 0, Skip::No)).len(), 2, "what was refused left no trace");
}

#[test]
fn the_id_of_a_date_range_is_never_used_again() {
    let mut world = ladder(5_000);
    world.session.announce(range("ad", 5_000, 0)).unwrap();
    world.run_to(60_000);
    assert!(ids(&world, 0, Skip::No).is_empty());
    let refused = world.session.announce(range("ad", 60_000, 0)).unwrap_err();
    assert!(refused.contains("another ID"), "{refused}");
}

#[test]
fn a_range_that_ends_on_the_next_one_goes_behind_it_and_none_comes_between() {
    let mut world = ladder(5_000);
    let of = |id: &str, from: i64| DateRange {
        class: Some("programme".to_owned()),
        end_on_next: true,
        ..range(id, from, None)
    };
    world.session.announce(of("one", 5_000)).unwrap();
    world.run_to(60_000);
    assert_eq!(ids(&world, 0, Skip::No), ["one"], "nothing follows yet");
    world.session.announce(of("two", 61_000)).unwrap();
    assert!(world.session.announce(of("between", 30_000)).is_err());
    world.session.announce(DateRange { class: Some("other".to_owned()), ..of("beside", 30_000) }).unwrap();
    world.run_to(61_000);
    assert_eq!(ids(&world, 0, Skip::No), ["beside", "one", "two"]);
    world.run_to(100_000);
    assert_eq!(ids(&world, 0, Skip::No), ["beside", "two"]);
}

#[test]
fn a_delta_keeps_date_ranges_and_v2_leaves_out_old_ones_and_names_those_removed() {
    let mut world = ladder(40_000);
    world.session.announce(range("gone", 41_000, 0)).unwrap();
    world.session.announce(range("old", 41_000, 200_000)).unwrap();
    world.run_to(60_000);
    world.session.announce(range("new", 60_000, 200_000)).unwrap();
    world.run_to(60_800);
    for index in 0..3 {
        assert_eq!(ids(&world, index, Skip::Yes), ["gone", "new", "old"], "segments only");
        let v2 = list(&world, index, Skip::V2);
        assert_eq!(v2.dates.keys().collect::<Vec<_>>(), ["new"]);
        assert_eq!((v2.removed, v2.version), (Some(vec![]), 10), "the attribute is there though empty");
        let yes = list(&world, index, Skip::Yes);
        assert_eq!((yes.removed, yes.version, yes.skipped), (None, 9, v2.skipped));
    }
    // What is learnt counts from then on: it may not be left out for 12 s.
    world
        .session
        .announce(DateRange { planned_duration: Some(Duration::from_secs(9)), ..range("old", 41_000, None) })
        .unwrap();
    world.run_to(76_000);
    let removed = list(&world, 0, Skip::V2);
    assert!(ids(&world, 0, Skip::No).iter().all(|id| id != "gone"), "the window left it behind");
    assert_eq!(removed.removed, Some(vec!["gone".to_owned()]));
    world.run_to(100_000);
    assert_eq!(list(&world, 0, Skip::V2).removed, Some(vec![]), "12 s later nobody needs to hear of it");
}

#[test]
fn a_version_of_a_v2_delta_grows_old_with_its_date_ranges() {
    let mut world = ladder(60_000);
    world.session.announce(range("a", 60_000, 100_000)).unwrap();
    world.run_to(72_350); // listed at 60.4 s; the last part at 72.0 s
    assert_eq!(ids(&world, 0, Skip::V2), ["a"]);
    let renders = world.output(0).facts().renders;
    world.now = crate::world::at(72_399);
    assert_eq!(ids(&world, 0, Skip::V2), ["a"]);
    assert_eq!(world.output(0).facts().renders, renders, "rendered once");
    // No new part, but more than 12 s.
    world.now = crate::world::at(72_401);
    assert!(ids(&world, 0, Skip::V2).is_empty());
    assert_eq!(ids(&world, 0, Skip::Yes), ["a"]);
}

#[test]
fn an_ended_playlist_is_whole_whatever_was_asked_and_lists_every_date_range() {
    let mut world = ladder(60_000);
    world.session.announce(range("early", 60_000, 0)).unwrap();
    world.run_to(60_400);
    world.session.announce(range("last", 60_400, 0)).unwrap();
    world.end();
    for skip in [Skip::No, Skip::Yes, Skip::V2] {
        let list = list(&world, 0, skip);
        assert_eq!((list.skipped, list.ended), (0, true), "{skip:?}");
        assert_eq!(list.dates.keys().collect::<Vec<_>>(), ["early", "last"]);
    }
}

#[test]
fn date_ranges_are_bounded_and_the_one_that_began_first_gives_way() {
    let mut world = ladder(5_000);
    for n in 0..DATE_RANGES_MAX + 40 {
        world.session.announce(range(&format!("r{n:04}"), 5_000 + i64::try_from(n).unwrap(), None)).unwrap();
    }
    world.run_to(5_400);
    let ids = ids(&world, 1, Skip::No);
    assert_eq!((ids.len(), ids[0].as_str()), (DATE_RANGES_MAX, "r0040"));
    assert_eq!(world.session.date_ranges_dropped(), 40);
}

#[test]
fn modes_without_parts_list_date_ranges_with_whole_segments() {
    let mut world = World::new(25.0, LatencyMode::Low).video("360p").audio("a-eng-1", 48_000);
    world.run_to(5_000);
    world.session.announce(range("a", 5_000, 1_000)).unwrap();
    world.run_to(5_900);
    assert!(ids(&world, 0, Skip::No).is_empty());
    world.run_to(6_100);
    assert_eq!((ids(&world, 0, Skip::No), ids(&world, 1, Skip::No)), (vec!["a".to_owned()], vec!["a".to_owned()]));
    world.run_to(60_000);
    assert!(ids(&world, 0, Skip::No).is_empty());
}
