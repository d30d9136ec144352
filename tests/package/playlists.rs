//! Playlists as text, compared with `tests/golden`; `UPDATE_GOLDEN=1` rewrites them.

use rung::media::modes::LatencyMode;
use rung::media::track::TrackConfig;
use rung::package::fmp4::init::InitSection;
use rung::package::segmenter::{Cut, Segmenter};
use rung::package::window::{Answer, Directives, Kind, RenditionOutput, Skip, audio_name};
use std::path::PathBuf;

use crate::world::{World, audio_config, plain, video_config};

fn golden(name: &str, text: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("package-{name}.txt"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
    }
    let wanted = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(wanted == text, "{} differs from:\n{text}\nUPDATE_GOLDEN=1 rewrites it", path.display());
}

fn ultra(hz: f64, rate: u32, ms: u64) -> World {
    let mut world = World::new(hz, LatencyMode::Ultra).video("360p").video("180p").audio("a-eng-1", rate);
    world.run_to(ms);
    world
}

fn delta(world: &World, index: usize) -> String {
    let directives = Directives { skip: Skip::Yes, ..Directives::default() };
    match world.output(index).playlist(world.now, world.now, &directives) {
        Answer::Now(playlist) => plain(&playlist),
        other => panic!("{other:?}"),
    }
}

#[test]
fn ultra_lists_parts_hint_and_reports() {
    let world = ultra(29.97, 44_100, 9_500);
    golden("ultra-video", &world.text(0));
    golden("ultra-audio", &world.text(2));
}

#[test]
fn ultra_at_25_frames_has_the_longer_part_target() {
    golden("ultra-25", &ultra(25.0, 48_000, 4_900).text(0));
}

#[test]
fn a_delta_skips_what_ends_before_the_skip_boundary() {
    let world = ultra(25.0, 48_000, 60_900);
    golden("ultra-delta", &delta(&world, 0));
    assert!(world.text(0).starts_with("#EXTM3U\n") && !world.text(0).contains("EXT-X-SKIP"));
    // Too short to skip anything: the whole playlist.
    let young = ultra(25.0, 48_000, 11_900);
    assert_eq!(delta(&young, 0), young.text(0));
}

#[test]
fn the_end_of_a_session_is_listed() {
    let mut world = ultra(25.0, 48_000, 3_100);
    world.end();
    golden("ultra-ended", &world.text(0));
}

#[test]
fn low_and_normal_list_whole_segments() {
    for (name, mode, ms) in [("low", LatencyMode::Low, 7_000), ("normal", LatencyMode::Normal, 19_000)] {
        let mut world = World::new(50.0, mode).video("360p").audio("a-eng-1", 48_000);
        world.run_to(ms);
        golden(name, &world.text(0));
    }
}

#[test]
fn gaps_are_listed_in_the_place_of_media() {
    let mut world = World::new(25.0, LatencyMode::Ultra).video("360p");
    world.run_to(2_400);
    world.lose_to(0, 150);
    world.run_to(6_900);
    golden("ultra-gap", &world.text(0));
}

#[test]
fn the_multivariant_playlist_names_variants_and_the_audio_group() {
    let mut world = World::new(29.97, LatencyMode::Ultra).video("360p").video("180p").audio("a-eng-1", 48_000);
    let kind = Kind::Audio { language: Some("deu".to_owned()), default: false, role: Default::default() };
    let german = RenditionOutput::new(world.spec(&audio_name(Some("deu"), 2), kind, 128_000));
    let init = InitSection::audio(&audio_config(48_000), 128_000);
    let mut segmenter = Segmenter::new(german.clone(), init, Cut::Audio, world.grid, world.line);
    world.session.add(german);
    assert!(world.session.multivariant().is_none());
    segmenter.gap(world.now, (world.grid.msn0, 1));
    world.run_to(900);
    golden("multivariant-young", &plain(&world.session.multivariant().unwrap()));
    world.feeders[0].size = 4_000;
    world.run_to(30_000);
    golden("multivariant", &plain(&world.session.multivariant().unwrap()));
}

#[test]
fn bandwidth_is_never_below_a_segment_that_was_published() {
    let mut world = World::new(25.0, LatencyMode::Ultra).video("360p");
    world.feeders[0].size = 1_000;
    world.run_to(20_000);
    world.feeders[0].size = 20_000;
    world.run_to(22_000);
    world.feeders[0].size = 1_000;
    world.run_to(120_000); // the big segment left the window long ago
    let text = plain(&world.session.multivariant().unwrap());
    let value = |name: &str| -> u64 {
        let at = text.find(name).unwrap() + name.len();
        text[at..].split(',').next().unwrap().parse().unwrap()
    };
    let big = 50 * 20_000 * 8 / 2;
    assert!((big..big + big / 50).contains(&value("BANDWIDTH=")), "{text}");
    assert!((200_000..400_000).contains(&value("AVERAGE-BANDWIDTH=")), "{text}");
}

#[test]
fn resolution_and_range_follow_the_stream() {
    let mut config = video_config();
    (config.width, config.height, config.sar, config.colour.transfer) = (720, 576, (64, 45), 18);
    let mut world = World::new(25.0, LatencyMode::Ultra);
    let mut spec = world.spec("source", Kind::Video { rate: None }, 4_000_000);
    spec.independent_segments = false;
    let output = RenditionOutput::new(spec);
    world.session.add(output.clone());
    let init = InitSection::video(&config, 90_000, 0);
    assert!(matches!(init.track, TrackConfig::Video(_)));
    let mut segmenter = Segmenter::new(output, init, Cut::Source, world.grid, world.line);
    segmenter.gap(world.now, (world.grid.msn0, 1));
    world.run_to(1);
    let text = plain(&world.session.multivariant().unwrap());
    assert!(text.contains("RESOLUTION=1024x576,VIDEO-RANGE=HLG\n"), "{text}");
    assert!(!text.contains("INDEPENDENT-SEGMENTS") && !text.contains("FRAME-RATE"), "{text}");
}

#[test]
fn audio_names_follow_the_grammar() {
    assert_eq!(audio_name(Some("eng"), 1), "a-eng-1");
    assert_eq!(audio_name(None, 2), "a-und-2");
    assert_eq!(audio_name(Some("../x"), 3), "a-und-3");
}
