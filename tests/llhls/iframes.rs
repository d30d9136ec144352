//! I-frame playlists [HLS 4.4.3.6, 4.4.6.3, 6.2.5.2, B.1].

use bytes::Bytes;
use rung::media::channel::ChannelName;
use rung::media::grid::{Cadence, Grid, PdtLine};
use rung::media::modes::LatencyMode;
use rung::media::sample::{Sample, Stamps};
use rung::media::track::VideoConfig;
use rung::package::fmp4::init::InitSection;
use rung::package::fmp4::read;
use rung::package::origin::{Origin, SessionOutput};
use rung::package::player::parse::{self, MediaPlaylist};
use rung::package::segmenter::{Cut, Segmenter};
use rung::package::window::{
    Answer, Before, Directives, Kind, RETAINED_BYTES_MAX, Refusal, RenditionOutput, RenditionSpec, Skip, Targets,
};
use rung::time::Wall;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use crate::rig::Rig;
use crate::world::{MSN0, World, at, session_id, video_config};

fn ladder(ms: u64) -> World {
    let mut world = World::new(25.0, LatencyMode::Ultra).video("360p").video("180p").audio("a-eng-1", 48_000);
    world.run_to(ms);
    world
}

fn text(world: &World, index: usize, skip: Skip) -> String {
    let directives = Directives { skip, ..Directives::default() };
    match world.output(index).iframes(world.now, world.now, &directives) {
        Answer::Now(playlist) => String::from_utf8(playlist.plain.to_vec()).unwrap(),
        other => panic!("{other:?}"),
    }
}

fn list(world: &World, index: usize) -> MediaPlaylist {
    parse::media(&text(world, index, Skip::No)).unwrap()
}

fn media(world: &World, index: usize) -> MediaPlaylist {
    crate::read::list(world, index, Skip::No)
}

#[test]
fn an_i_frame_playlist_lists_the_first_picture_of_each_whole_segment_under_its_number() {
    let world = ladder(61_000);
    let (frames, all) = (list(&world, 0), media(&world, 0));
    assert!(text(&world, 0, Skip::No).contains("\n#EXT-X-I-FRAMES-ONLY\n"));
    let whole: Vec<_> = all.segments.iter().filter(|s| s.whole.is_some()).collect();
    assert_eq!((frames.msn, frames.dsn, frames.segments.len()), (all.msn, all.dsn, whole.len()));
    for (picture, segment) in frames.segments.iter().zip(whole) {
        assert_eq!((picture.msn, picture.date_time, &picture.map), (segment.msn, segment.date_time, &segment.map));
        let (duration, uri) = picture.whole.clone().unwrap();
        assert_eq!(duration, segment.duration(), "shown until the next one");
        assert!(uri.ends_with(&format!("/i{}.m4s", segment.msn)) && picture.parts.is_empty());
        let Answer::Now(one) = world.output(0).iframe(segment.msn) else { panic!("{uri}") };
        let Answer::Now(media) = world.output(0).segment(world.now, world.now, segment.msn) else { panic!() };
        let (one, first) = (Bytes::from(one.chunks.concat()), media.chunks[0].clone());
        let (fragments, wanted) = (read::fragments(&one).unwrap(), &read::fragments(&first).unwrap()[0]);
        assert_eq!((fragments.len(), fragments[0].samples.len()), (1, 1));
        let (sample, idr) = (&fragments[0].samples[0], &wanted.samples[0]);
        assert!(sample.sync && idr.sync);
        assert_eq!((sample.dts, sample.cto, u64::from(sample.duration)), (idr.dts, idr.cto, 50_000));
        assert_eq!(one[sample.data.clone()], first[idr.data.clone()], "the picture itself");
        assert_eq!(sample.data.end, one.len(), "and nothing else");
    }
}

#[test]
fn the_picture_of_an_i_frame_entry_is_not_copied() {
    let world = ladder(5_000);
    let Answer::Now(one) = world.output(0).iframe(MSN0) else { panic!("none") };
    let Answer::Now(media) = world.output(0).segment(world.now, world.now, MSN0) else { panic!("none") };
    let whole = media.chunks[0].as_ptr_range();
    assert!(whole.contains(&one.chunks[1].as_ptr()), "a piece of the part");
}

#[test]
fn an_i_frame_playlist_has_the_targets_and_the_server_control_of_all_and_no_parts() {
    for mode in [LatencyMode::Ultra, LatencyMode::Low, LatencyMode::Normal] {
        let mut world = World::new(29.97, mode).video("360p");
        world.run_to(70_000);
        let (frames, all) = (list(&world, 0), media(&world, 0));
        assert_eq!(frames.promises.target_duration, all.promises.target_duration);
        assert_eq!(frames.promises.server_control, all.promises.server_control);
        let text = text(&world, 0, Skip::No);
        assert!(!text.contains("EXT-X-PART") && !text.contains("PRELOAD-HINT"), "{text}");
        assert!(frames.segments.iter().all(|s| s.duration() / 1_000_000 <= frames.promises.target_duration));
    }
}

#[test]
fn a_missing_segment_is_a_gap_among_i_frames() {
    let mut world = World::new(25.0, LatencyMode::Ultra).video("360p");
    world.run_to(2_400);
    world.lose_to(0, 150);
    world.run_to(10_000);
    let (frames, all) = (list(&world, 0), media(&world, 0));
    let gaps = |list: &MediaPlaylist| list.segments.iter().map(|s| (s.msn, s.gap)).collect::<Vec<_>>();
    assert_eq!(gaps(&frames), gaps(&all));
    assert_eq!(frames.segments.iter().filter(|s| s.gap).count(), 2);
    assert!(matches!(world.output(0).iframe(MSN0 + 1), Answer::Refuse(Refusal::NotFound(_))));
    assert!(matches!(world.output(0).iframe(MSN0 + 5), Answer::Refuse(Refusal::NotYet(_))));
    assert!(matches!(world.output(0).iframe(MSN0 + 50), Answer::Refuse(Refusal::NotFound(_))));
}

#[test]
fn an_i_frame_playlist_blocks_for_a_segment_and_skips_like_the_others() {
    let mut world = ladder(61_000); // segment 30 is open
    let output = world.output(0);
    let ask = |world: &World, msn: u64, part: Option<u32>| {
        output.iframes(world.now, world.now, &Directives { msn: Some(MSN0 + msn), part, skip: Skip::No })
    };
    assert!(matches!(ask(&world, 29, None), Answer::Now(_)));
    assert!(matches!(ask(&world, 30, None), Answer::Until(_)));
    assert!(matches!(ask(&world, 30, Some(0)), Answer::Until(_)), "there are no parts to speak of");
    assert!(matches!(ask(&world, 32, None), Answer::Refuse(Refusal::BadRequest(_))));
    let delta = parse::media(&text(&world, 0, Skip::Yes)).unwrap();
    assert_eq!((delta.msn, delta.skipped, delta.segments.len()), (MSN0 + 15, 9, 6));
    world.run_to(62_000);
    assert!(matches!(ask(&world, 30, None), Answer::Now(_)));
}

#[test]
fn only_video_whose_segments_begin_with_an_i_frame_has_an_i_frame_playlist() {
    let world = ladder(5_000);
    let nothing = |output: &RenditionOutput| {
        let playlist = output.iframes(world.now, world.now, &Directives::default());
        assert!(matches!(playlist, Answer::Refuse(Refusal::NotFound(_))), "{playlist:?}");
        assert!(matches!(output.iframe(MSN0), Answer::Refuse(Refusal::NotFound(_))));
    };
    nothing(&world.output(2));
    let mut spec = world.spec("source", Kind::Video { rate: None }, 1_000_000);
    spec.independent_segments = false;
    nothing(&RenditionOutput::new(spec));
    let text = world.session.multivariant().unwrap();
    let text = std::str::from_utf8(&text.plain).unwrap();
    assert_eq!(text.matches("#EXT-X-I-FRAME-STREAM-INF").count(), 2, "{text}");
}

#[test]
fn the_multivariant_playlist_describes_each_i_frame_stream_by_what_was_measured() {
    let mut world = ladder(1_000);
    world.feeders[0].size = 4_000;
    world.run_to(30_000);
    let text = world.session.multivariant().unwrap();
    let text = std::str::from_utf8(&text.plain).unwrap();
    let line = text.lines().find(|l| l.contains("URI=\"360p.iframes.m3u8\"")).unwrap();
    let found = parse::attributes(line.strip_prefix("#EXT-X-I-FRAME-STREAM-INF:").unwrap());
    let sizes: Vec<u64> = (0..15)
        .filter_map(|k| match world.output(0).iframe(MSN0 + k) {
            Answer::Now(media) => Some(media.length() as u64),
            _ => None,
        })
        .collect();
    let peak = sizes.iter().max().unwrap() * 8 / 2;
    assert_eq!(found["BANDWIDTH"], peak.to_string());
    assert!(found["AVERAGE-BANDWIDTH"].parse::<u64>().unwrap() < peak);
    let wanted = ("avc1.64001e", "640x360", "SDR");
    assert_eq!((found["CODECS"].as_str(), found["RESOLUTION"].as_str(), found["VIDEO-RANGE"].as_str()), wanted);
    assert!(!found.contains_key("FRAME-RATE") && !found.contains_key("AUDIO"));
}

#[test]
fn every_playlist_reports_every_other_one_i_frame_playlists_too() {
    let world = ladder(61_300);
    for index in 0..3 {
        let reports = media(&world, index).reports;
        let own = ["360p.m3u8", "180p.m3u8", "a-eng-1.m3u8"][index];
        let mut named: Vec<&str> = reports.iter().map(|(uri, ..)| uri.as_str()).collect();
        named.push(own);
        named.sort_unstable();
        let all = ["180p.iframes.m3u8", "180p.m3u8", "360p.iframes.m3u8", "360p.m3u8", "a-eng-1.m3u8"];
        assert_eq!(named, all);
        for (uri, msn, part) in &reports {
            let wanted = if uri.contains("iframes") { (MSN0 + 29, 0) } else { (MSN0 + 30, 2) };
            assert_eq!((*msn, *part), wanted, "{uri}");
        }
    }
    let text = text(&world, 0, Skip::No);
    assert!(!text.contains("URI=\"360p.iframes.m3u8\"") && text.contains("URI=\"360p.m3u8\""), "{text}");
    assert!(text.contains("URI=\"180p.iframes.m3u8\",LAST-MSN=1795176029\n"), "a playlist without parts: {text}");
}

fn run(command: &mut Command) -> String {
    let output = command.output().expect("ffmpeg is installed");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && errors.is_empty(), "{command:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// Pictures of an Annex B file, one slice each, with whether it is an IDR.
fn pictures(file: &[u8]) -> (VideoConfig, Vec<(bool, Bytes)>) {
    let starts: Vec<usize> =
        file.windows(3).enumerate().filter(|(_, w)| *w == [0, 0, 1]).map(|(at, _)| at + 3).collect();
    let ends = starts[1..].iter().map(|s| s - 3).chain([file.len()]);
    let (mut config, mut found) = (video_config(), Vec::new());
    for (start, end) in starts.iter().zip(ends) {
        let nal = file[*start..end].strip_suffix(&[0]).unwrap_or(&file[*start..end]);
        match nal[0] & 0x1f {
            7 => (config.profile, config.sps) = ([nal[1], nal[2], nal[3]], Bytes::copy_from_slice(nal)),
            8 => config.pps = vec![Bytes::copy_from_slice(nal)],
            kind @ (1 | 5) => {
                let length = u32::try_from(nal.len()).unwrap().to_be_bytes();
                found.push((kind == 5, Bytes::from([&length, nal].concat())));
            }
            _ => {}
        }
    }
    (config, found)
}

/// A session of real H.264, 25 frames/s, a GOP of 2 s.
fn real(folder: &Path) -> Arc<Origin> {
    let file = folder.join("v.h264");
    run(Command::new("ffmpeg")
        .args(["-nostdin", "-v", "error", "-y", "-f", "lavfi", "-i", "testsrc2=size=320x180:rate=25:duration=12"])
        .args(["-c:v", "libx264", "-preset", "ultrafast", "-bf", "0", "-g", "50", "-x264-params"])
        .args(["scenecut=0:sliced-threads=0:slices=1", "-pix_fmt", "yuv420p"])
        .arg(&file));
    let (config, pictures) = pictures(&std::fs::read(&file).unwrap());
    assert_eq!(pictures.len(), 300);
    let (origin, mode) = (Arc::new(Origin::default()), LatencyMode::Ultra);
    let session = Arc::new(SessionOutput::new(session_id(), mode));
    let grid = Grid { cadence: Cadence::for_rate(25.0, mode), msn0: MSN0 };
    let output = RenditionOutput::new(RenditionSpec {
        session: session_id(),
        name: "180p".to_owned(),
        kind: Kind::Video { rate: Some(grid.cadence.rate) },
        targets: Targets::ladder(mode, grid.cadence, None),
        independent_segments: true,
        bandwidth_cap: 1_000_000,
        retained_bytes_max: RETAINED_BYTES_MAX,
        before: Before::default(),
    });
    session.add(output.clone());
    let init = InitSection::video(&config, 25_000, 1_000_000);
    let line = PdtLine { from_n: 0, wall: Wall(0), ppm: 0 };
    let mut segmenter = Segmenter::new(output, init, Cut::Frames, grid, line);
    for (n, (sync, data)) in (0i64..).zip(pictures) {
        let sample = Sample { dts: n * 1_000, duration: 1_000, cto: 0, sync, data, stamps: Stamps::default() };
        segmenter.push(at(0), sample, grid.place_frame(n));
    }
    segmenter.end(at(0));
    origin.declare(&ChannelName::new("c").unwrap()).set_session(Some(session));
    origin
}

#[test]
fn ffmpeg_plays_an_i_frame_playlist_and_shows_the_right_pictures() {
    let folder = tempfile::tempdir().unwrap();
    let origin = real(folder.path());
    let rig = Rig::new(&origin);
    // Time and hash of every picture that a player shows.
    let shown = |playlist: &str| -> Vec<(String, String)> {
        let url = format!("http://{}/live/c/{playlist}", rig.address);
        let text = run(Command::new("ffmpeg")
            .args(["-nostdin", "-v", "warning", "-xerror", "-live_start_index", "0", "-i", &url])
            .args(["-fps_mode", "passthrough", "-enc_time_base", "1:25", "-f", "framemd5", "-"]));
        let rows = text.lines().filter(|l| !l.starts_with('#')).map(|l| l.split(',').map(str::trim).collect());
        rows.map(|row: Vec<&str>| (row[2].to_owned(), row[5].to_owned())).collect()
    };
    let all = shown("180p.m3u8");
    assert_eq!(all.len(), 300);
    let wanted: Vec<_> = all.into_iter().step_by(50).collect();
    assert_eq!(wanted.len(), 6);
    assert_eq!(shown("180p.iframes.m3u8"), wanted);
    let reply = rig.get("/live/c/180p.iframes.m3u8");
    assert_eq!(reply.header("content-type"), "application/vnd.apple.mpegurl");
    let picture = rig.get(&format!("/live/c/{}/180p/i{MSN0}.m4s", session_id()));
    assert_eq!((picture.status, picture.header("content-type")), (200, "video/mp4"));
    assert_eq!(picture.header("cache-control"), "public, max-age=86400, immutable");
    assert_eq!(rig.get(&format!("/live/c/{}/180p/i{}.m4s", session_id(), MSN0 + 99)).status, 404);
}
