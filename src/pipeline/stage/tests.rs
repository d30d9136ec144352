//! A session in another process: what is listed, under which init section.

use bytes::Bytes;

use super::*;
use crate::media::channel::ChannelName;
use crate::media::grid::{Cadence, SourceGop};
use crate::media::modes::LatencyMode;
use crate::media::plan::PlannedAudio;
use crate::media::track::Codec;
use crate::package::window::{Answer, Directives};
use crate::time::Wall;

const MSN: u64 = 1_000;

fn channel() -> Channel {
    let codec = crate::media::channel::VideoCodec::H264;
    let one =
        |name: &str, height| crate::media::channel::Rendition { name: name.into(), height, bitrate: 500_000, codec };
    Channel {
        ladder: Some(Ladder(vec![one("270p", 270), one("180p", 180)])),
        ..Channel::new(ChannelName::new("c").unwrap(), ChannelKind::Transcode, LatencyMode::Ultra)
    }
}

fn session() -> SessionId {
    SessionId::new(ulid::Ulid::from_parts(1, 1))
}

fn plan() -> Plan {
    let video = VideoConfig {
        codec: Codec::H264,
        width: 640,
        height: 360,
        sar: (1, 1),
        rate: None,
        interlaced: false,
        colour: crate::media::track::Colour::default(),
        profile: [77, 0, 30],
        bit_depth: 8,
        chroma_format: 1,
        reorder: None,
        sps: Bytes::new(),
        pps: vec![],
    };
    let asc = Bytes::from_static(&[0x11, 0x90]);
    let audio = AudioConfig { codec: Codec::Aac, object_type: 2, sample_rate: 48_000, channels: 2, asc };
    Plan {
        grid: Grid { cadence: Cadence::for_rate(25.0, LatencyMode::Ultra), msn0: MSN },
        target_duration: 2,
        source: None,
        exact: true,
        gop: SourceGop::Unknown,
        audio_only: false,
        video: Some((256, video)),
        audio: vec![PlannedAudio { pid: 257, language: None, role: Default::default(), config: Some(audio) }],
    }
}

const LINE: PdtLine = PdtLine { from_n: 0, wall: Wall(1_700_000_000_000_000_000), ppm: 0 };

fn encoders(level: u8) -> Vec<VideoInit> {
    let init =
        VideoInit { vps: None, sps: Bytes::from(vec![0x67, 100, 0, level]), pps: Bytes::from_static(&[0x68, 1]) };
    vec![init.clone(), init]
}

fn records(stage: &mut Stage) -> Vec<Record> {
    std::iter::from_fn(|| stage.poll_record()).collect()
}

/// What is kept of a session whose encoders had `level`, with breaks before two segments.
fn kept(level: u8, breaks: &[u64]) -> Kept {
    let mut stage = Stage::new(&channel(), &session(), &plan(), LINE);
    stage.opened(Mono(0), &encoders(level), &[]);
    let mut all = vec![Record::Plan(Box::new(plan())), Record::Pdt(LINE)];
    all.extend(breaks.iter().map(|msn| Record::Break { msn: *msn }));
    all.extend(records(&mut stage));
    Kept::of(all).expect("complete")
}

fn encoded(stage: &mut Stage, now: Mono, frames: std::ops::Range<i64>) {
    for at in frames {
        for rendition in 0..2 {
            let (sync, data) = (at % 50 == 0 || at == 1_010, Bytes::from_static(&[0, 0, 0, 1, 5]));
            let output = Output::Video(rendition);
            stage.encoded(now, &Encoded { output, at, sync, data, stamps: Stamps::default() });
        }
    }
    stage.release(now);
}

fn playlist(stage: &Stage, name: &str) -> String {
    let output = stage.output().rendition(name).expect("made");
    let Answer::Now(text) = output.playlist(Mono(0), Mono(0), &Directives::default()) else { panic!("nothing yet") };
    String::from_utf8(text.plain.to_vec()).expect("text")
}

/// The clocks when frame `n` is due.
fn on_time(n: i64) -> Now {
    Now { mono: Mono(1_000_000_000), wall: LINE.at(&plan().grid, n) }
}

#[test]
fn gaps_of_a_lost_process_are_listed_as_they_fall_due_and_no_date_lies_in_the_future() {
    // Media will go on with frame 1,010; it is frame 985 now: parts 0 to 2 of segment 1019 are over.
    let now = on_time(985);
    let mut stage = Stage::resumed(&channel(), &session(), kept(30, &[]), 1_010, now);
    stage.opened(now.mono, &encoders(30), &[]);
    for name in ["270p", "180p"] {
        let text = playlist(&stage, name);
        assert!(text.contains("/p1019.2.m4s\",GAP=YES") && !text.contains("p1019.3.m4s\",GAP"), "{text}");
        assert!(
            text.contains("PRELOAD-HINT:TYPE=PART,URI=\"se_00000000010000000000000001/270p/p1019.3.m4s\"")
                || name != "270p",
            "{text}"
        );
    }
    encoded(&mut stage, now.mono, 1_010..1_020);
    let text = playlist(&stage, "270p");
    assert!(text.contains("/p1019.4.m4s\",GAP=YES") && text.contains("/p1020.0.m4s\",GAP=YES"), "{text}");
    assert!(text.contains("/p1020.1.m4s\",INDEPENDENT=YES"), "{text}");
    assert!(text.contains("#EXTINF:2.00000,\nse_00000000010000000000000001/270p/s1019.m4s"), "whole: {text}");
}

#[test]
fn a_channel_s_window_and_start_are_those_of_its_playlists() {
    let own = Channel { window_s: Some(119), start_offset_s: Some(-40), ..channel() };
    let mut stage = Stage::new(&own, &session(), &plan(), LINE);
    stage.opened(Mono(0), &encoders(30), &[]);
    let output = stage.output().rendition("270p").expect("made");
    let targets = output.spec().targets;
    assert_eq!((targets.window_segments, targets.linger_segments, targets.segments_with_parts), (60, 60, 3));
    encoded(&mut stage, Mono(0), 0..6_250);
    let text = playlist(&stage, "270p");
    assert_eq!((text.matches("#EXTINF").count(), output.facts().segments_held), (60, 121));
    assert!(text.contains(&format!("#EXT-X-MEDIA-SEQUENCE:{}\n", MSN + 65)), "{text}");
    let bits = 500_000 * 242;
    assert!(output.spec().retained_bytes_max >= bits / 8, "room for it at its rate");
    stage.output().renditions().iter().filter(|r| r.name().starts_with("a-")).for_each(|r| r.set_shed(true));
    let text = stage.output().multivariant().expect("it plays");
    assert!(std::str::from_utf8(&text.plain).expect("text").contains("#EXT-X-START:TIME-OFFSET=-40.000\n"));
}

#[test]
fn the_same_encoders_go_on_under_the_same_init_behind_gaps() {
    let now = Mono(1_000_000_000);
    let mut stage = Stage::resumed(&channel(), &session(), kept(30, &[MSN + 3, MSN + 8]), 1_010, on_time(1_010));
    stage.opened(now, &encoders(30), &[]);
    assert!(records(&mut stage).iter().all(|record| matches!(record, Record::Inits(_))));
    encoded(&mut stage, now, 1_010..1_060);
    for name in ["270p", "180p"] {
        let text = playlist(&stage, name);
        // 15 segments before the one that goes on: 5 to 19.
        assert!(
            text.contains("#EXT-X-MEDIA-SEQUENCE:1006\n") || text.contains("#EXT-X-MEDIA-SEQUENCE:1005\n"),
            "{text}"
        );
        assert!(text.contains("#EXT-X-DISCONTINUITY-SEQUENCE:1\n"), "the break before 1003 is behind us: {text}");
        assert_eq!(text.matches("#EXT-X-DISCONTINUITY\n").count(), 1, "{text}");
        let (before, after) = text.split_once("#EXT-X-DISCONTINUITY\n").expect("one");
        assert!(!before.contains("/s1008.m4s") && after.contains("/s1008.m4s"), "{text}");
        assert!(text.contains("init-0.mp4") && !text.contains("init-1.mp4"), "{text}");
        // Of segment 1020 the first part is gone, the others are there: it is a gap for who asks for all of it.
        assert!(text.contains("/p1020.0.m4s\",GAP=YES"), "{text}");
        assert!(text.contains("/p1020.1.m4s\",INDEPENDENT=YES") && text.contains("/p1021.0.m4s"), "{text}");
        let dates: Vec<&str> = text.lines().filter(|l| l.starts_with("#EXT-X-PROGRAM-DATE-TIME")).collect();
        assert!(dates.is_sorted() && dates.len() >= 15, "{text}");
    }
}

#[test]
fn other_encoders_go_on_with_the_next_segment_under_another_init() {
    let now = Mono(1_000_000_000);
    let mut stage = Stage::resumed(&channel(), &session(), kept(30, &[MSN + 3]), 1_010, on_time(1_010));
    stage.opened(now, &encoders(31), &[]);
    assert!(records(&mut stage).contains(&Record::Break { msn: MSN + 21 }), "for the process after this one");
    encoded(&mut stage, now, 1_010..1_110);
    let text = playlist(&stage, "270p");
    assert_eq!(text.matches("#EXT-X-DISCONTINUITY\n").count(), 1, "{text}");
    let (before, after) = text.split_once("#EXT-X-DISCONTINUITY\n").expect("one");
    assert!(!before.contains("/s1021.m4s") && before.contains("/s1020.m4s") && after.contains("/s1021.m4s"), "{text}");
    assert!(text.contains("init-1.mp4") && !text.contains("init-0.mp4"), "what the old name meant is gone: {text}");
}

#[test]
fn a_worker_that_dies_before_it_opened_is_succeeded_where_the_session_resumes() {
    let mut stage = Stage::resumed(&channel(), &session(), kept(30, &[]), 1_010, on_time(1_010));
    assert_eq!(stage.restart().start, 1_010, "not at the session's first frame");
}
