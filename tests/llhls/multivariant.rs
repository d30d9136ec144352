//! The multivariant playlist [HLS 4.4.6, 6.2.4, 7] and what of Apple's rules stands in it.

use rung::media::captions::{CaptionService, Captions};
use rung::media::modes::LatencyMode;
use rung::media::steering::{Pathway, Steering};
use rung::media::track::{AudioRole, Colour};
use rung::package::fmp4::init::InitSection;
use rung::package::origin::{ChannelOutput, Origin};
use rung::package::player::parse::{self, Attributes};
use rung::package::segmenter::{Cut, Segmenter};
use rung::package::window::{Kind, RenditionOutput, Skip, Targets, audio_name};
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::read::text;
use crate::rig::Rig;
use crate::world::{World, audio_config, video_config};

fn ladder(ms: u64) -> World {
    let mut world = World::new(25.0, LatencyMode::Ultra).video("360p").video("180p").audio("a-eng-1", 48_000);
    world.run_to(ms);
    world
}

fn multivariant(world: &World) -> String {
    String::from_utf8(world.session.multivariant().unwrap().plain.to_vec()).unwrap()
}

/// Attribute lists of every tag of one name.
fn tags(text: &str, tag: &str) -> Vec<Attributes> {
    text.lines().filter_map(|l| l.strip_prefix(tag)?.strip_prefix(':')).map(parse::attributes).collect()
}

/// Variants with their URIs.
fn variants(text: &str) -> Vec<(Attributes, String)> {
    let lines: Vec<&str> = text.lines().collect();
    let found = lines.windows(2).filter_map(|w| Some((w[0].strip_prefix("#EXT-X-STREAM-INF:")?, w[1])));
    found.map(|(attributes, uri)| (parse::attributes(attributes), uri.to_owned())).collect()
}

#[test]
fn every_tag_stands_where_it_may_and_as_often_as_it_may() {
    const MEDIA: [&str; 16] = [
        "TARGETDURATION",
        "MEDIA-SEQUENCE",
        "DISCONTINUITY-SEQUENCE",
        "ENDLIST",
        "I-FRAMES-ONLY",
        "PART-INF",
        "SERVER-CONTROL",
        "DISCONTINUITY",
        "MAP",
        "PROGRAM-DATE-TIME",
        "GAP",
        "PART",
        "DATERANGE",
        "SKIP",
        "PRELOAD-HINT",
        "RENDITION-REPORT",
    ];
    const MULTI: [&str; 5] = ["MEDIA", "STREAM-INF", "I-FRAME-STREAM-INF", "CONTENT-STEERING", "INDEPENDENT-SEGMENTS"];
    let names = |text: &str| -> Vec<String> {
        let tags = text.lines().filter_map(|l| l.strip_prefix("#EXT-X-"));
        tags.map(|l| l.split(':').next().unwrap().to_owned()).collect()
    };
    let world = ladder(60_000);
    let multi = multivariant(&world);
    assert!(multi.starts_with("#EXTM3U\n#EXT-X-VERSION:6\n"));
    assert!(names(&multi).iter().all(|n| n == "VERSION" || MULTI.contains(&n.as_str())), "{multi}");
    for skip in [Skip::No, Skip::Yes, Skip::V2] {
        for index in 0..3 {
            let text = text(&world, index, skip);
            assert!(text.starts_with("#EXTM3U\n#EXT-X-VERSION:"));
            let names = names(&text);
            assert!(names.iter().all(|n| n == "VERSION" || MEDIA.contains(&n.as_str())), "{text}");
            for once in ["VERSION", "TARGETDURATION", "MEDIA-SEQUENCE", "DISCONTINUITY-SEQUENCE", "PART-INF", "SKIP"] {
                assert!(names.iter().filter(|n| *n == once).count() <= 1, "{once}: {text}");
            }
            assert!(
                names.iter().filter(|n| *n == "PRELOAD-HINT").count() <= 1 && !names.contains(&"PLAYLIST-TYPE".into())
            );
            let at = |tag: &str| text.find(tag).unwrap();
            assert!(at("#EXT-X-MEDIA-SEQUENCE") < at("#EXTINF") && at("#EXT-X-DISCONTINUITY-SEQUENCE") < at("#EXTINF"));
        }
    }
}

#[test]
fn independent_segments_are_promised_once_for_all_playlists() {
    let world = ladder(5_000);
    assert_eq!(multivariant(&world).matches("#EXT-X-INDEPENDENT-SEGMENTS\n").count(), 1);
    for index in 0..3 {
        assert!(!text(&world, index, Skip::No).contains("INDEPENDENT-SEGMENTS"));
    }
}

#[test]
fn a_variant_says_all_that_apple_asks_and_every_format_that_it_may_lead_to() {
    let mut world = ladder(100);
    let kind = Kind::Audio { language: None, default: false, role: AudioRole::Main };
    let other = RenditionOutput::new(world.spec(&audio_name(None, 2), kind, 128_000));
    let mut config = audio_config(48_000);
    (config.object_type, config.channels) = (5, 1);
    let init = InitSection::audio(&config, 128_000);
    let codec = init.codec();
    let mut segmenter = Segmenter::new(other.clone(), init, Cut::Audio, world.grid, world.line);
    world.session.add(other);
    segmenter.gap(world.now, (world.grid.msn0, 1));
    world.run_to(900);
    let text = multivariant(&world);
    let mut all = variants(&text);
    let (sound, uri) = all.pop().expect("variants");
    assert_eq!(
        (sound["CODECS"].clone(), uri),
        (format!("mp4a.40.2,{codec}"), format!("{}.m3u8", audio_name(Some("eng"), 1)))
    );
    assert!(sound.contains_key("AUDIO") && !sound.contains_key("RESOLUTION") && !sound.contains_key("VIDEO-RANGE"));
    for (variant, uri) in all {
        let codecs: Vec<&str> = variant["CODECS"].split(',').collect();
        assert!(codecs.contains(&"avc1.64001e") && codecs.contains(&"mp4a.40.2") && codecs.contains(&codec.as_str()));
        for needed in ["BANDWIDTH", "AVERAGE-BANDWIDTH", "RESOLUTION", "FRAME-RATE", "VIDEO-RANGE", "AUDIO"] {
            assert!(variant.contains_key(needed), "{uri}: {needed}");
        }
        assert!(!variant.contains_key("SCORE") && !variant.contains_key("SUPPLEMENTAL-CODECS"));
    }
    let media = tags(&text, "#EXT-X-MEDIA");
    let of = |name: &str| media.iter().map(|m| m[name].as_str()).collect::<Vec<_>>();
    assert_eq!((of("LANGUAGE"), of("DEFAULT")), (vec!["en", "und"], vec!["YES", "NO"]), "{text}");
    assert_eq!((of("CHANNELS"), of("AUTOSELECT")), (vec!["2", "1"], vec!["YES", "YES"]));
    assert!(of("NAME")[0] != of("NAME")[1] && of("GROUP-ID") == ["audio", "audio"]);
}

#[test]
fn a_multivariant_playlist_with_a_digital_caption_service_says_version_7() {
    let world = ladder(5_000);
    for (id, version) in [("CC1", 6), ("SERVICE1", 7)] {
        let service = CaptionService { instream_id: id.parse().unwrap(), language: None, name: None };
        world.session.set_captions(Captions::Services(vec![service]));
        let text = multivariant(&world);
        assert!(text.starts_with(&format!("#EXTM3U\n#EXT-X-VERSION:{version}\n")), "{text}");
    }
}

#[test]
fn bandwidth_covers_the_largest_playable_combination_as_it_was_measured() {
    let mut world = ladder(2_000);
    world.feeders[0].size = 9_000;
    world.run_to(8_000);
    world.feeders[0].size = 1_000;
    world.run_to(60_000);
    let text = multivariant(&world);
    let (found, _) = &variants(&text)[0];
    let of = |index: usize, ms_per_segment: u64| {
        let sizes =
            (0..28).filter_map(|k| match world.output(index).segment(world.now, world.now, crate::world::MSN0 + k) {
                rung::package::window::Answer::Now(media) => Some(media.length() as u64 * 8_000 / ms_per_segment),
                _ => None,
            });
        sizes.max().unwrap()
    };
    let (peak, average): (u64, u64) =
        (found["BANDWIDTH"].parse().unwrap(), found["AVERAGE-BANDWIDTH"].parse().unwrap());
    let least = of(0, 2_000) + of(2, 2_005);
    assert!((least..least * 5 / 4).contains(&peak), "{peak} for {least}");
    assert!(average * 2 < peak);
}

#[test]
fn video_range_is_said_for_every_transfer_function() {
    for (transfer, wanted) in [(1, "SDR"), (6, "SDR"), (13, "SDR"), (14, "SDR"), (15, "SDR"), (16, "PQ"), (18, "HLG")] {
        let mut world = World::new(25.0, LatencyMode::Ultra);
        let output = RenditionOutput::new(world.spec("360p", Kind::Video { rate: None }, 1_000_000));
        world.session.add(output.clone());
        let mut config = video_config();
        config.colour = Colour { transfer, ..config.colour };
        let init = InitSection::video(&config, 25_000, 0);
        Segmenter::new(output, init, Cut::Frames, world.grid, world.line).gap(world.now, (world.grid.msn0, 1));
        world.run_to(1);
        let text = multivariant(&world);
        assert_eq!(variants(&text)[0].0["VIDEO-RANGE"], wanted, "{transfer}");
        assert_eq!(tags(&text, "#EXT-X-I-FRAME-STREAM-INF")[0]["VIDEO-RANGE"], wanted, "{transfer}");
    }
}

#[test]
fn where_players_begin_is_said_once_and_never_nearer_than_they_may() {
    let world = ladder(5_000);
    assert!(!multivariant(&world).contains("EXT-X-START"));
    world.session.set_start(-12);
    assert_eq!(multivariant(&world).matches("#EXT-X-START:TIME-OFFSET=-12.000\n").count(), 1);
    assert!(!text(&world, 0, Skip::No).contains("EXT-X-START"));
    // 3 target durations, the window.
    let cadence = world.grid.cadence;
    for (wish, wanted) in [(-1, -6), (-6, -6), (-29, -29), (-31, -30), (i32::MIN, -30)] {
        assert_eq!(world.targets.start(cadence, wish), wanted, "{wish}");
    }
    let long = world.targets.windowed(cadence, Some(601));
    assert_eq!((long.window_segments, long.start(cadence, -590)), (301, -590));
    assert_eq!(long.windowed(cadence, Some(1)).window_segments, 6, "six segments at least");
    let source = Targets::source(LatencyMode::Ultra, cadence, 4, None);
    assert_eq!(source.start(cadence, -6), -12, "a longer target duration holds back further");
}

fn steered(world: &World, pathways: &[(&str, &str)]) -> (Arc<Origin>, Arc<ChannelOutput>, Steering) {
    let origin = Arc::new(Origin::default());
    let channel = origin.declare(&rung::media::channel::ChannelName::new("c").unwrap());
    channel.set_session(Some(world.session.clone()));
    let pathway = |(id, base): &(&str, &str)| Pathway { id: (*id).to_owned(), base: (*base).to_owned() };
    let steering = Steering { pathways: pathways.iter().map(pathway).collect(), ttl_s: 60 };
    channel.set_steering(Some(&steering));
    (origin, channel, steering)
}

#[test]
fn steered_players_find_every_variant_and_group_on_every_pathway_under_one_stable_name() {
    let world = ladder(5_000);
    let plain = multivariant(&world);
    let (_, channel, _) =
        steered(&world, &[("east", "https://e.example.com"), ("west", "https://w.example.com/cdn"), ("own", "")]);
    let text = world.session.steered(channel.steering().as_deref()).unwrap();
    let text = std::str::from_utf8(&text.plain).unwrap();
    let steering = tags(text, "#EXT-X-CONTENT-STEERING");
    assert_eq!(steering.len(), 1, "{text}");
    assert_eq!((steering[0]["SERVER-URI"].as_str(), steering[0]["PATHWAY-ID"].as_str()), ("steering.json", "east"));
    let bases = BTreeMap::from([
        ("east", "https://e.example.com/live/c/"),
        ("west", "https://w.example.com/cdn/live/c/"),
        ("own", ""),
    ]);
    let mut seen = 0;
    for (mut variant, uri) in variants(text) {
        let way = variant.remove("PATHWAY-ID").unwrap();
        let stable = variant.remove("STABLE-VARIANT-ID").unwrap();
        assert_eq!(uri, format!("{}{stable}.m3u8", bases[way.as_str()]));
        assert_eq!(variant.insert("AUDIO".into(), "audio".into()), Some(format!("audio-{way}")));
        let (wanted, _) = variants(&plain).into_iter().find(|(_, u)| *u == format!("{stable}.m3u8")).unwrap();
        assert_eq!(variant, wanted, "else the same on every pathway");
        seen += 1;
    }
    for (tag, stable_id) in
        [("#EXT-X-MEDIA", "STABLE-RENDITION-ID"), ("#EXT-X-I-FRAME-STREAM-INF", "STABLE-VARIANT-ID")]
    {
        for found in tags(text, tag) {
            let way = found.get("PATHWAY-ID").cloned().unwrap_or_else(|| found["GROUP-ID"].replace("audio-", ""));
            assert_eq!(found["URI"], format!("{}{}.m3u8", bases[way.as_str()], found[stable_id]), "{tag}");
            seen += 1;
        }
    }
    assert_eq!(seen, 3 * (2 + 1 + 1 + 2), "pictures, sound alone, the group's one track, I-frames");
    assert!(!plain.contains("PATHWAY") && !plain.contains("STABLE") && !plain.contains("STEERING"), "{plain}");
}

#[test]
fn the_steering_manifest_can_be_cached_for_a_moment_and_follows_the_order_while_players_are_on_it() {
    let world = ladder(5_000);
    let (origin, channel, mut steering) = steered(&world, &[("a", "https://a.example.com"), ("b", "")]);
    let rig = Rig::new(&origin);
    let ask = || rig.get("/live/c/steering.json?_HLS_pathway=%22a%22&_HLS_throughput=5140000");
    let reply = ask();
    assert_eq!(reply.header("content-type"), "application/vnd.apple.steering-list");
    assert_eq!((reply.status, reply.header("cache-control")), (200, "public, max-age=5"));
    assert_eq!(reply.header("access-control-allow-origin"), "*");
    let manifest: serde_json::Value = serde_json::from_str(reply.text()).unwrap();
    let wanted =
        serde_json::json!({ "VERSION": 1, "TTL": 60, "RELOAD-URI": "steering.json", "PATHWAY-PRIORITY": ["a", "b"] });
    assert_eq!(manifest, wanted);
    let not_modified = rig.get_with("/live/c/steering.json", &format!("If-None-Match: {}", reply.header("etag")));
    assert_eq!(not_modified.status, 304);
    steering.pathways.reverse();
    channel.set_steering(Some(&steering));
    let manifest: serde_json::Value = serde_json::from_str(ask().text()).unwrap();
    assert_eq!(manifest["PATHWAY-PRIORITY"], serde_json::json!(["b", "a"]));
    assert!(
        rig.get("/live/c/index.m3u8").text().contains("PATHWAY-ID=\"b\"\n#EXT-X-MEDIA"),
        "the first is the initial one"
    );
    channel.set_steering(None);
    assert_eq!((ask().status, ask().header("cache-control")), (410, "no-store"));
    assert_eq!(rig.get("/live/d/steering.json").status, 404);
    assert!(!rig.get("/live/c/index.m3u8").text().contains("PATHWAY"));
}
