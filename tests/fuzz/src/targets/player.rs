//! What a player reads: the model player itself, init sections, fragments, and the dumps of both.

use bytes::Bytes;
use rung::inspect::fmp4::Inspector;
use rung::inspect::hls::{Follower, summary};
use rung::media::channel::VideoCodec;
use rung::package::fmp4::read;
use rung::package::player::Player;
use rung::time::{Mono, Now, Wall};

use crate::Target;
use crate::script::Script;
use crate::seeds;

pub(super) const TARGETS: &[Target] = &[
    Target::new("player", player, seeds::conversations)
        .words(&[
            b"#EXTM3U\n",
            b"#EXT-X-MEDIA-SEQUENCE:",
            b"#EXT-X-SKIP:SKIPPED-SEGMENTS=",
            b"#EXT-X-DISCONTINUITY\n",
            b"#EXT-X-GAP\n",
            b"#EXT-X-ENDLIST\n",
            b"#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"p\"\n",
            b"../",
            b"v.m3u8",
            b"#EXT-X-DISCONTINUITY-SEQUENCE:",
            b"#EXT-X-RENDITION-REPORT:URI=\"a.m3u8\",LAST-MSN=9,LAST-PART=1\n",
            b"18446744073709551615",
        ])
        .longest(12 << 10)
        .memory(16 << 20, 1_024)
        .rounds(200),
    Target::new("fmp4", boxes, seeds::boxes)
        .words(&[
            b"moof",
            b"traf",
            b"trun",
            b"tfhd",
            b"tfdt",
            b"mfhd",
            b"mdat",
            b"moov",
            b"stsd",
            b"avcC",
            b"hvcC",
            b"emsg",
            b"styp",
            &[0, 0, 0, 1],
            &[0, 0, 0, 0],
            &[0xFF; 4],
        ])
        .memory(4 << 20, 512),
];

/// Answers of a server that says what it likes: a byte of status, two of length, the body. Nobody else sends anything.
fn player(input: &[u8]) {
    let mut script = Script::new(input);
    let flags = script.byte();
    let mut player = Player::new("/live/c/index.m3u8");
    let mut follower = Follower::new("http://h/live/c/index.m3u8");
    if flags & 1 != 0 {
        player.origin_may_restart();
    }
    let mut now = Now { mono: Mono(1_000_000_000), wall: Wall(1_795_176_010_000_000_000) };
    let mut waiting = Vec::new();
    while !script.is_over() {
        let mut asked = 0;
        while let Some(fetch) = player.poll(now) {
            assert!(!fetch.uri.is_empty());
            asked += 1;
            // A track asks for its playlist, its hint and one piece of media.
            assert!(asked < 4_096, "it asks without end");
            waiting.push(fetch.id);
        }
        let (kind, body) = (script.byte(), Bytes::copy_from_slice(script.piece()));
        let status = [200, 200, 200, 200, 200, 404, 503, 0][usize::from(kind & 7)];
        let step = [0, 5, 200, 2_000][usize::from(kind >> 3 & 3)] * 1_000_000;
        now.mono = Mono(now.mono.0 + step);
        now.wall = Wall(now.wall.0 + step.cast_signed());
        if waiting.is_empty() {
            let Some(due) = player.deadline() else { break };
            let wait = due.0.saturating_sub(now.mono.0).min(60_000_000_000);
            now.mono = Mono(now.mono.0 + wait);
            now.wall = Wall(now.wall.0 + wait.cast_signed());
        } else {
            let id = waiting.remove(usize::from(kind >> 5) % waiting.len());
            player.response(now, id, status, &body);
        }
        while let Some(fetch) = follower.poll(now) {
            follower.response(now, fetch.id, status, &body);
            if status != 200 || fetch.id > 4_096 {
                break;
            }
        }
        assert!(follower.lines(now).iter().all(|line| !line.is_empty()));
    }
    let report = player.report();
    assert!(report.violations.len() as u64 <= report.broken && report.violations.len() <= 100);
    assert!(!summary(&report).is_empty());
}

fn boxes(input: &[u8]) {
    let all = read::boxes(input, 0..input.len());
    let mut end = 0;
    for one in &all {
        assert!(one.start == end && one.payload.start >= one.start + 8 && one.payload.end <= input.len(), "{one:?}");
        end = one.payload.end;
    }
    if let Some(init) = read::init(input) {
        assert!(init.timescale > 0 && (init.video || init.codecs.is_none()));
    }
    if let Ok(fragments) = read::fragments(input) {
        let samples: usize = fragments.iter().map(|fragment| fragment.samples.len()).sum();
        assert!(samples <= input.len(), "{samples} samples in {} bytes", input.len());
        for fragment in &fragments {
            let mut at = fragment.start;
            for sample in &fragment.samples {
                assert!(sample.dts == at && sample.data.end <= input.len() && sample.data.start <= sample.data.end);
                at += u64::from(sample.duration);
                for codec in [VideoCodec::H264, VideoCodec::Hevc] {
                    let data = &input[sample.data.clone()];
                    let kinds = read::nal_types(codec, data);
                    assert!(kinds.len() * 4 <= data.len() && (!read::is_idr(codec, data) || !kinds.is_empty()));
                }
            }
            assert_eq!(fragment.end(), at);
        }
    }
    let mut inspector = Inspector::default();
    for samples in [true, false] {
        assert!(inspector.show("file", input, samples).len() < (1 << 16) + 400 * input.len());
    }
}
