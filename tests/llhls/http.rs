//! Rules that only show over HTTP: the real server on loopback [HLS 6.2.1, 6.2.2, 6.2.5, 6.2.6, B.1].

use rung::media::modes::LatencyMode;
use rung::package::player::parse;
use std::io::Read;

use crate::on_air::{MSN0, OnAir};
use crate::rig::{Rig, blocked};

fn on_air(parts: usize) -> (OnAir, Rig) {
    let mut air = OnAir::new(LatencyMode::Ultra);
    air.parts(parts);
    let rig = Rig::new(&air.origin);
    (air, rig)
}

#[test]
fn a_reload_for_a_part_and_its_hint_are_answered_together_by_exactly_that_part() {
    let (mut air, rig) = on_air(7); // segment 1 has parts 0 and 1
    let output = air.session.rendition("720p").unwrap();
    let list = parse::media(rig.get("/live/news/720p.m3u8").text()).unwrap();
    let hint = list.hint.unwrap();
    assert!(hint.ends_with(&format!("/p{}.2.m4s", MSN0 + 1)));
    let media = rig.send(&format!("/live/news/{hint}"), "");
    let reload = rig.send(&format!("/live/news/720p.m3u8?_HLS_msn={}&_HLS_part=2", MSN0 + 1), "");
    blocked(&output, 2);
    air.part();
    let (media, reload) = (media.finish(), reload.finish());
    assert_eq!((media.status, reload.status), (200, 200));
    let list = parse::media(reload.text()).unwrap();
    let part = list.segments.last().unwrap().parts.last().unwrap();
    assert_eq!(part.uri, hint, "the hint's address is the part's");
    let again = rig.get(&format!("/live/news/{hint}"));
    assert_eq!(
        (again.body == media.body, media.header("content-length")),
        (true, media.body.len().to_string().as_str())
    );
    let fragments = rung::package::fmp4::read::fragments(&media.body).unwrap();
    assert_eq!((fragments.len(), fragments[0].start), (1, 70_000), "one whole part, no byte of it before it was whole");
}

#[test]
fn a_range_of_a_hinted_part_waits_for_the_whole_part() {
    let (mut air, rig) = on_air(7);
    let output = air.session.rendition("720p").unwrap();
    // What a player asks whose hint has no length [RFC 8673].
    let path = air.media(&format!("p{}.2.m4s", MSN0 + 1));
    let open = rig.send(&path, "Range: bytes=0-9007199254740991");
    let middle = rig.send(&path, "Range: bytes=100-199");
    blocked(&output, 2);
    air.part();
    let (whole, open, middle) = (rig.get(&path), open.finish(), middle.finish());
    assert_eq!((open.status, middle.status), (206, 206));
    assert_eq!(open.body, whole.body);
    assert_eq!(
        (&middle.body[..], middle.header("content-range")),
        (&whole.body[100..200], format!("bytes 100-199/{}", whole.body.len()).as_str())
    );
}

#[test]
fn i_frame_playlists_and_deltas_block_too() {
    let (mut air, rig) = on_air(40); // segments 0 to 7 are whole
    let output = air.session.rendition("720p").unwrap();
    let frames = rig.send(&format!("/live/news/720p.iframes.m3u8?_HLS_msn={}", MSN0 + 8), "");
    let delta = rig.send(&format!("/live/news/720p.m3u8?_HLS_msn={}&_HLS_part=4&_HLS_skip=v2", MSN0 + 8), "");
    blocked(&output, 2);
    air.parts(5);
    let (frames, delta) = (parse::media(frames.finish().text()).unwrap(), parse::media(delta.finish().text()).unwrap());
    assert_eq!(frames.segments.last().unwrap().msn, MSN0 + 8);
    assert_eq!((delta.skipped, delta.removed, delta.version), (3, Some(vec![]), 10));
    assert_eq!(delta.segments.last().unwrap().msn, MSN0 + 8);
}

#[test]
fn what_was_never_hinted_is_not_found_and_directives_that_make_no_sense_are_refused_at_once() {
    let (air, rig) = on_air(7);
    for file in
        [format!("p{}.9.m4s", MSN0 + 7), format!("s{}.m4s", MSN0 + 7), format!("p{}.5.m4s", MSN0), "init-9.mp4".into()]
    {
        let reply = rig.get(&air.media(&file));
        assert_eq!((reply.status, reply.header("cache-control")), (404, "no-store"), "{file}");
    }
    for query in [
        format!("_HLS_msn={}", MSN0 + 3),
        format!("_HLS_msn={}&_HLS_part=9", MSN0 + 1),
        "_HLS_part=1".into(),
        "_HLS_skip=no".into(),
    ] {
        let reply = rig.get(&format!("/live/news/720p.m3u8?{query}"));
        assert_eq!((reply.status, reply.header("cache-control")), (400, "no-store"), "{query}");
    }
}

#[test]
fn an_ended_playlist_is_answered_whole_and_at_once_whatever_was_asked() {
    let (mut air, rig) = on_air(63);
    air.end();
    let plain = rig.get("/live/news/720p.m3u8");
    assert!(plain.text().ends_with("#EXT-X-ENDLIST\n") && !plain.text().contains("PRELOAD-HINT"));
    for query in [
        format!("_HLS_msn={}&_HLS_part=3", MSN0 + 99),
        "_HLS_skip=YES".into(),
        "_HLS_skip=v2".into(),
        format!("_HLS_msn={}&_HLS_skip=YES", MSN0 + 14),
    ] {
        let reply = rig.get(&format!("/live/news/720p.m3u8?{query}"));
        assert_eq!((reply.status, reply.text()), (200, plain.text()), "{query}");
    }
}

#[test]
fn a_segment_and_its_parts_stay_available_for_longer_than_their_playlist_lists_them() {
    let (mut air, rig) = on_air(100); // 20 segments: 5 to 19 are listed, parts from 17 on
    let there = |air: &OnAir, file: String| rig.get(&air.media(&file)).status;
    let list = parse::media(rig.get("/live/news/720p.m3u8").text()).unwrap();
    assert_eq!(list.msn, MSN0 + 5);
    assert!(list.segments.iter().all(|s| s.parts.is_empty() == (s.msn < MSN0 + 17)));
    // Three target durations after its line went: segment 17's parts were listed until segment 19 was whole.
    air.parts(15);
    assert_eq!(there(&air, format!("p{}.0.m4s", MSN0 + 17)), 200);
    assert_eq!(there(&air, format!("p{}.4.m4s", MSN0 + 17)), 200);
    // A segment's availability: its own duration and that of the longest playlist that held it, fifteen segments. Segment 9
    // left as segment 24 was whole: it is owed until segment 40 is.
    air.parts(204 - 115);
    assert_eq!(parse::media(rig.get("/live/news/720p.m3u8").text()).unwrap().msn, MSN0 + 25);
    for file in ["s", "i", "p"].map(|kind| format!("{kind}{}{}.m4s", MSN0 + 9, if kind == "p" { ".0" } else { "" })) {
        assert_eq!(there(&air, file.clone()), 200, "{file}");
    }
    air.part();
    assert_eq!(there(&air, format!("s{}.m4s", MSN0 + 9)), 404, "and no longer");
}

#[test]
fn playlists_come_compressed_typed_and_with_their_length_to_those_who_take_it() {
    let (air, rig) = on_air(63);
    let media = [("index.m3u8", 2), ("720p.m3u8", 4), ("720p.iframes.m3u8", 3)];
    for (file, times) in media {
        let path = format!("/live/news/{file}");
        let (plain, gzip) = (rig.get(&path), rig.get_with(&path, "Accept-Encoding: gzip"));
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(&gzip.body[..]).read_to_end(&mut unpacked).unwrap();
        assert_eq!((gzip.header("content-encoding"), unpacked), ("gzip", plain.body.clone()), "{file}");
        assert!(gzip.body.len() * times < plain.body.len() * 2, "{file}: {} of {}", gzip.body.len(), plain.body.len());
        assert_eq!(gzip.header("content-type"), "application/vnd.apple.mpegurl");
        assert!(plain.header("location").is_empty() && plain.header("set-cookie").is_empty());
    }
    for file in [format!("s{MSN0}.m4s"), "init-0.mp4".to_owned()] {
        let reply = rig.get(&air.media(&file));
        assert_eq!((reply.status, reply.header("content-type")), (200, "video/mp4"), "{file}");
    }
}

#[test]
fn a_version_is_one_text_for_everybody_until_the_next_part() {
    let (mut air, rig) = on_air(63);
    let path = "/live/news/720p.m3u8";
    let (one, two) = (rig.get(path), rig.get(&format!("{path}?_HLS_msn={}&_HLS_part=0", MSN0 + 3)));
    assert_eq!((one.text(), one.header("etag")), (two.text(), two.header("etag")));
    air.part();
    let three = rig.get(path);
    assert!(three.header("etag") != one.header("etag") && three.text() != one.text());
}
