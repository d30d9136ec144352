//! A session in another process: what is listed, under which init section.

use bytes::Bytes;

use super::*;
use crate::media::channel::{ChannelName, Slate, Takeover};
use crate::media::crop::Margins;
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
        name: ChannelName::new("c").unwrap(),
        kind: ChannelKind::Transcode,
        mode: LatencyMode::Ultra,
        ladder: Some(Ladder(vec![one("270p", 270), one("180p", 180)])),
        hold_back_ms: None,
        takeover: Takeover::IfSilent,
        slate: Slate::Black,
        preset: None,
        backend: None,
        crop: Margins::default(),
        logo: None,
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
        audio: vec![PlannedAudio { pid: 257, language: None, config: Some(audio) }],
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

#[test]
fn the_same_encoders_go_on_under_the_same_init_behind_gaps() {
    let now = Mono(1_000_000_000);
    let mut stage = Stage::resumed(&channel(), &session(), kept(30, &[MSN + 3, MSN + 8]), 1_010, now);
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
    let mut stage = Stage::resumed(&channel(), &session(), kept(30, &[MSN + 3]), 1_010, now);
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
    let mut stage = Stage::resumed(&channel(), &session(), kept(30, &[]), 1_010, Mono(1_000_000_000));
    assert_eq!(stage.restart().start, 1_010, "not at the session's first frame");
}
