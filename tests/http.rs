//! The HTTP server seen from outside, over real sockets: every status and header that players and caches live by,
//! and what hostile or slow clients can do (nothing to others).

#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]

#[path = "support/on_air.rs"]
mod on_air;
#[path = "support/served.rs"]
mod served;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use on_air::{MSN0, OnAir};
use rung::media::modes::LatencyMode;
use rung::package::pictures::{SheetVersion, Span};
use rung::serve::{Check, Health, Options, Site};
use rung::time::{SystemClock, Wall};
use served::{METRICS, Reply, Rig, h2, h2_get, loopback, quick, since, until};

#[test]
fn playlists_carry_type_cache_rule_cors_and_tag() {
    let mut air = OnAir::new(LatencyMode::Ultra);
    air.parts(17);
    let rig = Rig::of(&air);
    for path in ["/live/news/index.m3u8", "/live/news/720p.m3u8", "/live/news/720p.m3u8?_HLS_msn=1001&_HLS_part=0"] {
        let reply = rig.get(path);
        assert_eq!(reply.status, 200, "{path}");
        assert!(reply.text().starts_with("#EXTM3U"), "{path}");
        assert_eq!(reply.header("content-type"), "application/vnd.apple.mpegurl");
        assert_eq!(reply.header("access-control-allow-origin"), "*");
        assert_eq!(reply.header("timing-allow-origin"), "*");
        assert_eq!(reply.header("vary"), "Accept-Encoding");
        assert_eq!(reply.header("content-length"), reply.body.len().to_string());
        assert!(reply.header("etag").starts_with('"'));
        assert!(reply.find("set-cookie").is_none() && reply.find("location").is_none());
        let cache = if path.contains("_HLS_msn") { "public, max-age=12" } else { "no-cache" };
        assert_eq!(reply.header("cache-control"), cache, "{path}");
    }
}

#[test]
fn modes_without_parts_let_caches_keep_playlists_for_a_moment() {
    for (mode, parts, cache) in
        [(LatencyMode::Low, 6, "public, max-age=1"), (LatencyMode::Normal, 16, "public, max-age=2")]
    {
        let mut air = OnAir::new(mode);
        air.parts(parts);
        let rig = Rig::of(&air);
        assert_eq!(rig.get("/live/news/720p.m3u8").header("cache-control"), cache);
        assert_eq!(rig.get("/live/news/index.m3u8").header("cache-control"), cache);
    }
}

#[test]
fn the_compressed_playlist_is_the_plain_one_and_has_its_own_tag() {
    let mut air = OnAir::new(LatencyMode::Ultra);
    air.parts(17);
    let rig = Rig::of(&air);
    let path = "/live/news/720p.m3u8";
    let plain = rig.get(path);
    let gzip = rig.get_with(path, "Accept-Encoding", "br, gzip;q=0.8");
    assert_eq!(gzip.header("content-encoding"), "gzip");
    assert!(plain.find("content-encoding").is_none());
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(&gzip.body[..]).read_to_end(&mut unpacked).unwrap();
    assert_eq!(unpacked, plain.body);
    assert!(gzip.body.len() * 2 < plain.body.len());
    assert_ne!(gzip.header("etag"), plain.header("etag"));

    let again = rig.get_with(path, "If-None-Match", plain.header("etag"));
    assert_eq!((again.status, again.body.len()), (304, 0));
    assert_eq!(again.header("etag"), plain.header("etag"));
    air.part();
    assert_eq!(rig.get_with(path, "If-None-Match", plain.header("etag")).status, 200);
    assert_eq!(rig.get_with(path, "Accept-Encoding", "gzip;q=0").find("content-encoding"), None);
}

#[test]
fn media_is_immutable_and_a_segment_is_its_parts() {
    let mut air = OnAir::new(LatencyMode::Ultra);
    air.parts(7);
    let rig = Rig::of(&air);
    let segment = rig.get(&air.media(&format!("s{MSN0}.m4s")));
    assert_eq!(segment.status, 200);
    assert_eq!(segment.header("content-type"), "video/mp4");
    assert_eq!(segment.header("cache-control"), "public, max-age=86400, immutable");
    assert_eq!(segment.header("accept-ranges"), "bytes");
    assert_eq!(segment.header("access-control-allow-origin"), "*");
    let parts: Vec<u8> = (0..5).flat_map(|n| rig.get(&air.media(&format!("p{MSN0}.{n}.m4s"))).body).collect();
    assert!(segment.body == parts, "the segment's bytes are those of its parts");
    let init = rig.get(&air.media("init-0.mp4"));
    assert_eq!((init.status, &init.body[4..8]), (200, &b"ftyp"[..]));
    assert_eq!(init.header("cache-control"), "public, max-age=86400, immutable");
    let same = rig.get_with(&air.media("init-0.mp4"), "If-None-Match", init.header("etag"));
    assert_eq!((same.status, same.body.len()), (304, 0));
}

#[test]
fn ranges_of_media_are_honoured() {
    let mut air = OnAir::new(LatencyMode::Ultra);
    air.parts(5);
    let rig = Rig::of(&air);
    let path = air.media(&format!("s{MSN0}.m4s"));
    let whole = rig.get(&path).body;
    let length = whole.len();
    // Across the border of the first two parts.
    let border = rig.get(&air.media(&format!("p{MSN0}.0.m4s"))).body.len();
    for (spec, from, to) in [
        ("bytes=0-0".to_owned(), 0, 1),
        (format!("bytes={}-{}", border - 10, border + 9), border - 10, border + 10),
        ("bytes=100-".to_owned(), 100, length),
        ("bytes=-100".to_owned(), length - 100, length),
        (format!("bytes=0-{}", length * 2), 0, length),
    ] {
        let reply = rig.get_with(&path, "Range", &spec);
        assert_eq!(reply.status, 206, "{spec}");
        assert_eq!(reply.header("content-range"), format!("bytes {from}-{}/{length}", to - 1));
        assert!(reply.body == whole[from..to], "{spec}");
    }
    let outside = rig.get_with(&path, "Range", &format!("bytes={length}-"));
    assert_eq!(outside.status, 416);
    assert_eq!(outside.header("content-range"), format!("bytes */{length}"));
    outside.problem();
    for whole_spec in ["bytes=0-1,4-5", "bytes=5-1", "pages=1-2"] {
        let reply = rig.get_with(&path, "Range", whole_spec);
        assert_eq!((reply.status, reply.body.len()), (200, length), "{whole_spec}");
    }
    let stale = rig.ask("GET", &path, &[("Range", "bytes=0-1"), ("If-Range", "\"old\"")]);
    assert_eq!((stale.status, stale.body.len()), (200, length));
}

#[test]
fn head_is_the_head_of_get() {
    let mut air = OnAir::new(LatencyMode::Ultra);
    air.parts(7);
    let rig = Rig::of(&air);
    for path in [
        "/live/news/index.m3u8".to_owned(),
        "/live/news/720p.m3u8".to_owned(),
        air.media(&format!("s{MSN0}.m4s")),
        air.media("init-0.mp4"),
        "/live/other/index.m3u8".to_owned(),
        "/live/news/1080p.m3u8".to_owned(),
    ] {
        let (get, head) = (rig.get(&path), rig.ask("HEAD", &path, &[]));
        assert_eq!(head.body, b"", "{path}");
        assert_eq!(head.status, get.status, "{path}");
        let without_date = |reply: &Reply| {
            let mut headers = reply.headers.clone();
            headers.retain(|(name, _)| name != "date");
            headers.sort();
            headers
        };
        assert_eq!(without_date(&head), without_date(&get), "{path}");
    }
}

#[test]
fn a_preflight_allows_what_players_send() {
    let air = OnAir::new(LatencyMode::Ultra);
    let rig = Rig::of(&air);
    let reply = rig.ask(
        "OPTIONS",
        "/live/news/720p.m3u8",
        &[
            ("Origin", "https://player.example"),
            ("Access-Control-Request-Method", "GET"),
            ("Access-Control-Request-Headers", "range"),
        ],
    );
    assert_eq!((reply.status, reply.body.len()), (204, 0));
    assert_eq!(reply.header("access-control-allow-origin"), "*");
    assert!(reply.header("access-control-allow-methods").contains("GET"));
    assert!(reply.header("access-control-allow-headers").to_ascii_lowercase().contains("range"));
    assert_eq!(reply.header("access-control-max-age"), "86400");
}

#[test]
fn what_is_not_there_is_a_problem_with_words() {
    let mut air = OnAir::new(LatencyMode::Ultra);
    let rig = Rig::of(&air);
    let starting = rig.get("/live/news/index.m3u8");
    assert_eq!((starting.status, starting.problem()["code"].as_str()), (503, Some("session_starting")));
    assert_eq!(starting.header("retry-after"), "1");
    air.parts(7);
    air.origin.declare(&rung::media::channel::ChannelName::new("quiet").unwrap());
    let media = |file: &str| air.media(file);
    for (path, status, code) in [
        ("/live/quiet/index.m3u8".to_owned(), 404, "no_session"),
        ("/live/quiet/720p.m3u8".to_owned(), 404, "no_session"),
        ("/live/other/index.m3u8".to_owned(), 404, "channel_unknown"),
        ("/live/news/1080p.m3u8".to_owned(), 404, "rendition_unknown"),
        ("/live/news/se_OLD/720p/init-0.mp4".to_owned(), 404, "session_over"),
        (media("init-9.mp4"), 404, "media_not_found"),
        (media("s1.m4s"), 404, "media_not_found"),
        (media("p1.0.m4s"), 404, "media_not_found"),
        (media(&format!("s0{MSN0}.m4s")), 404, "route_unknown"),
        (media("cover.jpg"), 404, "route_unknown"),
        ("/live/".to_owned(), 404, "route_unknown"),
        ("/live/news".to_owned(), 404, "route_unknown"),
        ("/nowhere".to_owned(), 404, "route_unknown"),
        ("/".to_owned(), 404, "route_unknown"),
    ] {
        let reply = rig.get(&path);
        assert_eq!((reply.status, reply.problem()["code"].as_str()), (status, Some(code)), "{path}");
        if path.starts_with("/live/") {
            assert_eq!(reply.header("access-control-allow-origin"), "*", "{path}");
        }
    }
    for method in ["POST", "PUT", "DELETE", "PATCH", "TRACE", "PROPFIND"] {
        let reply = rig.ask(method, "/live/news/index.m3u8", &[]);
        assert_eq!((reply.status, reply.header("allow")), (405, "GET, HEAD, OPTIONS"), "{method}");
        reply.problem();
    }
}

#[test]
fn malformed_directives_are_refused_by_name_and_unknown_ones_ignored() {
    let mut air = OnAir::new(LatencyMode::Ultra);
    air.parts(7);
    let rig = Rig::of(&air);
    for (query, name) in [
        ("_HLS_msn=abc", "_HLS_msn"),
        ("_HLS_msn=-1", "_HLS_msn"),
        ("_HLS_msn=1000&_HLS_part=x", "_HLS_part"),
        ("_HLS_part=1", "_HLS_part"),
        ("_HLS_skip=maybe", "_HLS_skip"),
        ("_HLS_msn=1000&_HLS_msn=1001", "_HLS_msn"),
        ("_HLS_msn=5000", "_HLS_msn"),
    ] {
        let reply = rig.get(&format!("/live/news/720p.m3u8?{query}"));
        assert_eq!(reply.status, 400, "{query}");
        assert!(reply.problem()["detail"].as_str().unwrap().contains(name), "{query}: {}", reply.text());
    }
    for query in ["_HLS_push=1&_HLS_report=/x", "t=abc", "", "_HLS_msn=1000&CMCD=bl%3D100"] {
        assert_eq!(rig.get(&format!("/live/news/720p.m3u8?{query}")).status, 200, "{query}");
    }
}

#[test]
fn a_blocked_reload_is_answered_by_its_part_and_not_before() {
    let mut air = OnAir::new(LatencyMode::Ultra);
    air.parts(7);
    let rig = Rig::of(&air);
    let output = air.session.rendition("720p").unwrap();
    let hinted = air.media(&format!("p{}.2.m4s", MSN0 + 1));
    let waiting = |count| until("as many requests wait as have to", || output.facts().waiting == count);
    std::thread::scope(|scope| {
        let reload = |part: u32| rig.get(&format!("/live/news/720p.m3u8?_HLS_msn={}&_HLS_part={part}", MSN0 + 1));
        let next = scope.spawn(move || reload(2));
        let later = scope.spawn(move || reload(3));
        let media = scope.spawn(|| rig.get(&hinted));
        waiting(3);
        air.part();
        let (next, media) = (next.join().unwrap(), media.join().unwrap());
        assert_eq!((next.status, media.status), (200, 200));
        assert!(next.text().contains(&format!("p{}.2.m4s", MSN0 + 1)));
        assert!(!next.text().contains(&format!("#EXT-X-PART:DURATION=0.40000,URI=\"p{}.3", MSN0 + 1)));
        waiting(1);
        assert!(!later.is_finished(), "the part after that is still to come");
        air.part();
        assert_eq!(later.join().unwrap().status, 200);
    });
    waiting(0);
}

#[test]
fn a_hinted_part_that_does_not_come_is_a_503_after_three_part_targets() {
    let mut air = OnAir::new(LatencyMode::Ultra);
    air.parts(7);
    let rig = Rig::of(&air);
    let start = SystemClock::mono();
    let reply = rig.get(&air.media(&format!("p{}.2.m4s", MSN0 + 1)));
    let waited = since(start);
    assert_eq!((reply.status, reply.problem()["code"].as_str()), (503, Some("media_not_yet")));
    assert!((Duration::from_millis(1_200)..Duration::from_millis(2_500)).contains(&waited), "{waited:?}");
    assert_eq!(reply.header("retry-after"), "1");
}

#[test]
fn a_session_that_ends_answers_everyone_who_waits() {
    let mut air = OnAir::new(LatencyMode::Ultra);
    air.parts(7);
    let rig = Rig::of(&air);
    let output = air.session.rendition("720p").unwrap();
    std::thread::scope(|scope| {
        let reload = scope.spawn(|| rig.get(&format!("/live/news/720p.m3u8?_HLS_msn={}&_HLS_part=2", MSN0 + 1)));
        until("the request waits", || output.facts().waiting == 1);
        air.end();
        assert!(reload.join().unwrap().text().contains("#EXT-X-ENDLIST"));
    });
}

#[test]
fn http_2_with_prior_knowledge_shares_the_port_and_one_connection_carries_many_requests() {
    let mut air = OnAir::new(LatencyMode::Ultra);
    air.parts(7);
    let rig = Rig::of(&air);
    let segment = air.media(&format!("s{MSN0}.m4s"));
    let plain = rig.get(&segment).body;
    let output = air.session.rendition("720p").unwrap();
    rig.runtime.block_on(async {
        let mut sender = h2(rig.address).await;
        let blocked = {
            let mut sender = sender.clone();
            let path = format!("/live/news/720p.m3u8?_HLS_msn={}&_HLS_part=2", MSN0 + 1);
            tokio::spawn(async move { h2_get(&mut sender, &path).await })
        };
        for _ in 0..20 {
            let (status, body) = h2_get(&mut sender, &segment).await;
            assert!(status == 200 && body == plain, "a blocked stream does not hold the others up");
        }
        while output.facts().waiting == 0 {
            tokio::task::yield_now().await;
        }
        assert!(!blocked.is_finished());
        air.part();
        assert_eq!(blocked.await.unwrap().0, 200);
        assert_eq!(h2_get(&mut sender, "/live/news/1080p.m3u8").await.0, 404);
        let head = http::Request::head(format!("http://test{segment}")).body(Empty::new()).unwrap();
        let head = sender.send_request(head).await.unwrap();
        assert_eq!(head.headers()["content-length"], plain.len().to_string());
        assert!(head.into_body().collect().await.unwrap().to_bytes().is_empty());
    });
}

#[test]
fn viewers_who_go_away_while_they_wait_leave_nothing_behind() {
    let mut air = OnAir::new(LatencyMode::Ultra);
    air.parts(7);
    let rig = Rig::of(&air);
    let output = air.session.rendition("720p").unwrap();
    let path = format!("/live/news/720p.m3u8?_HLS_msn={}&_HLS_part=2", MSN0 + 1);
    let streams: Vec<TcpStream> = (0..20)
        .map(|_| {
            let mut stream = rig.connect();
            stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes()).unwrap();
            stream
        })
        .collect();
    let reset = rig.runtime.spawn({
        let (address, path) = (rig.address, path.clone());
        async move { h2_get(&mut h2(address).await, &path).await }
    });
    until("all wait", || output.facts().waiting == 21);
    drop(streams);
    reset.abort();
    // Sooner than their patience of six seconds would end it.
    let start = SystemClock::mono();
    until("nobody waits", || output.facts().waiting == 0);
    assert!(since(start) < Duration::from_secs(3));
}

#[test]
fn a_viewer_who_stops_reading_is_closed_and_its_memory_comes_back() {
    // A segment of 16 MB: more than the kernel takes off the server's hands.
    let mut air = OnAir::with_frames_of(LatencyMode::Ultra, 320_000);
    air.parts(6);
    let rig = Rig::patient(&air, quick());
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(8 << 10).unwrap();
    socket.connect(&rig.address.into()).unwrap();
    let mut stream: TcpStream = socket.into();
    let path = air.media(&format!("s{MSN0}.m4s"));
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes()).unwrap();
    until("the server holds media for the viewer", || rig.server().held_bytes() > 1_000_000);
    until("the viewer is closed", || rig.server().connections() == 0);
    assert_eq!(rig.server().held_bytes(), 0);
    assert_eq!(rig.get("/live/news/720p.m3u8").status, 200, "others are served");
    until("the reason is counted", || METRICS.render().contains("reason=\"write_stall\""));
}

#[test]
fn an_http_2_stream_without_window_is_closed_though_others_flow() {
    let mut air = OnAir::with_frames_of(LatencyMode::Ultra, 20_000);
    air.parts(6);
    let rig = Rig::patient(&air, quick());
    let path = air.media(&format!("s{MSN0}.m4s"));
    rig.runtime.block_on(async {
        let mut sender = h2(rig.address).await;
        let request = http::Request::get(format!("http://test{path}")).body(Empty::new()).unwrap();
        // Its body is never read: its window stays shut.
        let _stuck = sender.send_request(request).await.unwrap();
        let start = SystemClock::mono();
        while rig.server().connections() > 0 {
            assert!(since(start) < Duration::from_secs(10), "the connection is still open");
            let request = http::Request::get("http://test/live/news/720p.m3u8").body(Empty::new()).unwrap();
            match sender.send_request(request).await {
                Ok(response) => drop(response.into_body().collect().await),
                Err(_) => break,
            }
        }
        assert!(since(start) > Duration::from_secs(2), "it had its patience");
    });
    until("its memory comes back", || rig.server().held_bytes() == 0 && rig.server().connections() == 0);
}

#[test]
fn requests_that_never_get_whole_are_closed() {
    let mut air = OnAir::new(LatencyMode::Ultra);
    air.parts(6);
    let rig = Rig::patient(&air, quick());
    let silent = rig.connect();
    let mut half = rig.connect();
    half.write_all(b"GET /live/news/720p.m3u8 HTTP/1.1\r\nHo").unwrap();
    let mut preface = rig.connect();
    preface.write_all(b"PRI * HTTP/2.0\r\n").unwrap();
    // A good first request, then a head that trickles.
    let mut second = rig.connect();
    second.write_all(b"GET /live/news/720p.m3u8 HTTP/1.1\r\nHost: test\r\n\r\nGET /live/ne").unwrap();
    // A good request, then nothing.
    let mut idle = rig.connect();
    idle.write_all(b"GET /live/news/720p.m3u8 HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    let mut trickle = rig.connect();
    let start = SystemClock::mono();
    let mut alive = true;
    while alive && since(start) < Duration::from_secs(8) {
        alive = trickle.write_all(b"G").is_ok() && rig.server().connections() > 0;
        std::thread::park_timeout(Duration::from_millis(50));
    }
    until("all are closed", || rig.server().connections() == 0);
    drop((silent, half, preface, second, idle));
}

#[test]
fn a_blocked_reload_outlasts_the_idle_time() {
    let mut air = OnAir::new(LatencyMode::Ultra);
    air.parts(7);
    let rig = Rig::patient(&air, quick());
    let start = SystemClock::mono();
    let reply = rig.get(&format!("/live/news/720p.m3u8?_HLS_msn={}&_HLS_part=2", MSN0 + 1));
    assert_eq!(reply.status, 503, "three target durations, then no");
    assert!(since(start) > Duration::from_secs(5));
}

#[test]
fn connections_above_the_cap_are_turned_away_and_places_come_back() {
    let mut air = OnAir::new(LatencyMode::Ultra);
    air.parts(6);
    let rig = Rig::patient(&air, Options { connections_max: 8, ..Options::default() });
    let held: Vec<TcpStream> = (0..8).map(|_| rig.connect()).collect();
    until("eight are open", || rig.server().connections() == 8);
    let mut ninth = rig.connect();
    let mut text = Vec::new();
    ninth.read_to_end(&mut text).unwrap();
    assert!(text.starts_with(b"HTTP/1.1 503 "), "{}", String::from_utf8_lossy(&text));
    drop(held);
    until("all places are free", || rig.server().connections() == 0);
    assert_eq!(rig.get("/live/news/720p.m3u8").status, 200);
}

/// Requests that are wrong in every way a seeded generator thinks of.
fn nonsense(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let good = b"GET /live/news/720p.m3u8?_HLS_msn=1 HTTP/1.1\r\nHost: test\r\nRange: bytes=0-1\r\n\r\n".to_vec();
    match seed % 8 {
        0 => (0..next() % 600).map(|_| (next() >> 13) as u8).collect(),
        1 => good.iter().map(|b| if next() % 9 == 0 { (next() >> 7) as u8 } else { *b }).collect(),
        2 => good[..(next() as usize % good.len())].to_vec(),
        3 => format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(40_000)).into_bytes(),
        4 => format!("GET / HTTP/1.1\r\n{}\r\n", "X-A: b\r\n".repeat(500)).into_bytes(),
        5 => b"POST /live/news/720p.m3u8 HTTP/1.1\r\nHost: t\r\nContent-Length: 99999999999999999999\r\n\r\n".to_vec(),
        6 => [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &next().to_le_bytes(), &next().to_le_bytes(), &[0xff; 64]]
            .concat(),
        _ => b"GET http://[::1/live HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nzz\r\n".to_vec(),
    }
}

#[test]
fn a_thousand_malformed_requests_cost_two_good_viewers_nothing() {
    let mut air = OnAir::new(LatencyMode::Ultra);
    air.parts(7);
    let rig = Rig::of(&air);
    let (address, session) = (rig.address, air.session.id.to_string());
    let parts = 40u64;
    // Two viewers, one per protocol, take every part as it is hinted.
    let names: Vec<String> = (7..7 + parts).map(|n| format!("p{}.{}.m4s", MSN0 + n / 5, n % 5)).collect();
    let first = {
        let (names, session) = (names.clone(), session.clone());
        rig.runtime.spawn(async move {
            let mut sender = h2(address).await;
            let mut sizes = Vec::new();
            for name in names {
                sizes.push(h2_get(&mut sender, &format!("/live/news/{session}/720p/{name}")).await.0);
            }
            sizes
        })
    };
    std::thread::scope(|scope| {
        let second = scope.spawn(|| {
            names.iter().map(|name| rig.get(&format!("/live/news/{session}/360p/{name}")).status).collect::<Vec<_>>()
        });
        let hostile = scope.spawn(|| {
            for seed in 0..1_000 {
                let mut stream = rig.connect();
                // The server may close before all is written: that is its right.
                drop(stream.write_all(&nonsense(seed)));
                drop(stream.shutdown(std::net::Shutdown::Write));
                let mut answer = Vec::new();
                drop(stream.read_to_end(&mut answer));
                if let Some(code) = answer.strip_prefix(b"HTTP/1.1 ").and_then(|a| a.first()) {
                    assert_ne!(*code, b'5', "seed {seed}: {}", String::from_utf8_lossy(&answer));
                }
            }
        });
        for index in 0..parts {
            let at = 7 + index;
            for (name, place) in [("720p", &air.session), ("360p", &air.session)] {
                let output = place.rendition(name).unwrap();
                until("the viewer waits for its next part", || output.facts().waiting >= 1);
            }
            assert_eq!(air.session.rendition("720p").unwrap().facts().last.map(|(m, _)| m), Some(MSN0 + (at - 1) / 5));
            air.part();
        }
        assert!(second.join().unwrap().iter().all(|status| *status == 200));
        hostile.join().unwrap();
    });
    assert!(rig.runtime.block_on(first).unwrap().iter().all(|status| *status == 200));
    until("the hostile connections are gone", || rig.server().connections() <= 1);
    assert!(METRICS.render().contains("rung_http_requests_total{route=\"malformed\",code=\"400\"}"));
}

#[test]
fn a_busy_port_is_a_sentence() {
    let taken = loopback();
    let address = taken.local_addr().unwrap();
    let error = rung::serve::bind(address).unwrap_err().to_string();
    assert!(error.starts_with(&format!("{}/tcp is in use by another process", address.port())), "{error}");
    let foreign = rung::serve::bind("192.0.2.1:0".parse().unwrap()).unwrap_err().to_string();
    assert!(foreign.contains("192.0.2.1 is no address of this machine"), "{foreign}");
}

#[test]
fn ipv6_any_takes_ipv4_too() {
    let Ok(listener) = rung::serve::bind("[::]:0".parse().unwrap()) else {
        return; // A machine without IPv6.
    };
    let port = listener.local_addr().unwrap().port();
    assert!(TcpStream::connect(("127.0.0.1", port)).is_ok());
}

#[test]
fn stopping_lets_an_answer_end_and_takes_no_more() {
    let mut air = OnAir::new(LatencyMode::Ultra);
    air.parts(7);
    let mut rig = Rig::of(&air);
    let output = air.session.rendition("720p").unwrap();
    let server = rig.server.take().unwrap();
    let address = rig.address;
    let idle = rig.connect();
    std::thread::scope(|scope| {
        let path = format!("/live/news/720p.m3u8?_HLS_msn={}&_HLS_part=2", MSN0 + 1);
        let rig = &rig;
        let reload = scope.spawn(move || rig.get(&path));
        until("the request waits", || output.facts().waiting == 1);
        let stopping = scope.spawn(move || rig.runtime.block_on(server.stop(Duration::from_secs(10))));
        until("nothing new is accepted", || TcpStream::connect(address).is_err());
        air.part();
        assert_eq!(reload.join().unwrap().status, 200);
        stopping.join().unwrap();
    });
    drop(idle);
}

#[test]
fn health_and_metrics_answer_on_their_listener() {
    let scrape: rung::serve::Scrape = Arc::new(|| METRICS.render());
    let health = Health::new(|| vec![Check { name: "ingest", ok: true, detail: "listening on 9000/udp".into() }]);
    let rig = Rig::new(Site { health: Some(health), metrics: Some(scrape), ..Site::default() }, Options::default());
    assert_eq!(rig.get("/healthz").text(), r#"{"status":"alive"}"#);
    let ready = rig.get("/readyz");
    assert_eq!((ready.status, ready.header("content-type")), (200, "application/json"));
    assert!(ready.text().contains("listening on 9000/udp"));
    let metrics = rig.get("/metrics");
    assert_eq!(metrics.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    for line in ["# HELP rung_build_info ", "# TYPE rung_http_requests_total counter", "rung_uptime_seconds "] {
        assert!(metrics.text().contains(line), "{line} is missing in:\n{}", metrics.text());
    }
    assert_eq!(rig.ask("POST", "/metrics", &[]).status, 405);

    let broken = Health::new(|| vec![Check { name: "ingest", ok: false, detail: "no socket".into() }]);
    let rig = Rig::new(Site { health: Some(broken), ..Site::default() }, Options::default());
    let ready = rig.get("/readyz");
    assert_eq!(ready.status, 503);
    assert!(ready.text().contains("not ready"));
    assert_eq!(rig.get("/metrics").status, 404, "the scrape is not on the players' port");
}

#[test]
fn pages_and_status_are_served_beside_the_media() {
    let mut air = OnAir::new(LatencyMode::Ultra);
    air.parts(6);
    let status = |channel: Option<&str>| {
        let all = ["news", "sport"].into_iter().filter(|name| channel.is_none_or(|one| one == *name));
        let live =
            |name: &str| rung::web::ChannelStatus { name: name.into(), state: "live".into(), ..Default::default() };
        rung::web::Status { version: "0".into(), now_ms: 5, channels: all.map(live).collect() }
    };
    let routes = rung::serve::routes(rung::web::filter(Arc::new(status)));
    let site = Site { origin: Some(air.origin.clone()), routes: Some(routes), ..Site::default() };
    let rig = Rig::new(site, Options::default());
    for path in ["/", "/watch/news"] {
        let page = rig.get(path);
        assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
        assert!(page.header("content-security-policy").contains("default-src 'self'"));
        assert_eq!(rig.ask("HEAD", path, &[]).body, b"");
    }
    assert_eq!(rig.get("/watch/nobody").status, 404);
    let style = rig.get_with("/assets/style.css", "Accept-Encoding", "gzip");
    assert_eq!(style.header("content-encoding"), "gzip");
    assert_eq!(rig.get_with("/assets/style.css", "If-None-Match", style.header("etag")).status, 304);
    let told = |query: &str| -> serde_json::Value {
        let json: serde_json::Value = serde_json::from_slice(&rig.get(&format!("/status.json{query}")).body).unwrap();
        json["channels"].as_array().unwrap().iter().map(|channel| channel["name"].clone()).collect()
    };
    assert_eq!(told(""), serde_json::json!(["news", "sport"]));
    assert_eq!(
        (told("?channel=sport"), told("?channel=nobody")),
        (serde_json::json!(["sport"]), serde_json::json!([]))
    );
    for (method, path, status) in [("GET", "/assets/none", 404), ("GET", "/x/y", 404), ("POST", "/", 405)] {
        let reply = rig.ask(method, path, &[]);
        assert_eq!(reply.status, status, "{method} {path}");
        reply.problem();
    }
    assert_eq!(rig.get("/live/news/720p.m3u8").status, 200);
}

/// The session's nth tile on its sheet, of made-up bytes.
fn sheet(tile: u8) -> SheetVersion {
    let at = i64::from(tile);
    let span = Span { from_ms: at * 10_000, to_ms: at * 10_000 + 10_000, date: Wall(1_800_000_000_000_000_000) };
    SheetVersion { number: 0, places: (0..=tile).collect(), tile: (160, 90), jpeg: vec![tile; 64].into(), span }
}

#[test]
fn a_poster_has_a_tag_a_date_and_a_short_life_and_is_not_sent_twice() {
    let mut air = OnAir::new(LatencyMode::Ultra);
    air.parts(17);
    let rig = Rig::of(&air);
    let path = "/live/news/poster.jpg";
    let none = rig.get(path);
    assert_eq!((none.status, none.problem()["code"].as_str()), (404, Some("no_picture")));
    let made = Wall(784_111_777_000_000_000);
    assert!(air.session.pictures().set_poster(Bytes::from_static(b"one"), made));
    let reply = rig.ask("GET", &format!("{path}?anything"), &[]);
    assert_eq!((reply.status, reply.body.as_slice()), (200, &b"one"[..]));
    assert_eq!(reply.header("content-type"), "image/jpeg");
    assert_eq!(reply.header("cache-control"), "public, max-age=5");
    assert_eq!(reply.header("last-modified"), "Sun, 06 Nov 1994 08:49:37 GMT");
    assert_eq!(reply.header("access-control-allow-origin"), "*");
    assert_eq!(reply.header("x-content-type-options"), "nosniff");
    let tag = reply.header("etag").to_owned();
    assert!(tag.starts_with('"') && tag.len() == 18, "{tag}");

    let head = rig.ask("HEAD", path, &[]);
    assert_eq!((head.status, head.body.len(), head.header("content-length")), (200, 0, "3"));
    assert_eq!(head.header("etag"), tag);
    let again = rig.get_with(path, "If-None-Match", &format!("\"x\", W/{tag}"));
    assert_eq!((again.status, again.body.len(), again.header("etag")), (304, 0, tag.as_str()));
    assert_eq!(again.header("cache-control"), "public, max-age=5");
    let since = |date| rig.get_with(path, "If-Modified-Since", date).status;
    assert_eq!(since("Sun, 06 Nov 1994 08:49:37 GMT"), 304);
    assert_eq!((since("Sun, 06 Nov 1994 08:49:36 GMT"), since("yesterday")), (200, 200));
    let both = [("If-None-Match", "\"x\""), ("If-Modified-Since", "Sun, 06 Nov 1994 08:49:37 GMT")];
    assert_eq!(rig.ask("GET", path, &both).status, 200, "the tag decides");
    assert_eq!(rig.ask("POST", path, &[]).status, 405);

    assert!(air.session.pictures().set_poster(Bytes::from_static(b"two"), made));
    let next = rig.get_with(path, "If-None-Match", &tag);
    assert_eq!((next.status, next.body.as_slice()), (200, &b"two"[..]));
    assert_ne!(next.header("etag"), tag);

    // It stays while the ended session lingers, and goes with it.
    air.end();
    assert_eq!(rig.get(path).status, 200);
    air.origin.channel("news").unwrap().set_session(None);
    assert_eq!((rig.get(path).status, rig.get(path).problem()["code"].as_str()), (404, Some("no_session")));
    assert_eq!(rig.get("/live/nobody/poster.jpg").problem()["code"], "channel_unknown");
}

#[test]
fn a_storyboard_leads_to_sheets_that_never_change() {
    let mut air = OnAir::new(LatencyMode::Ultra);
    air.parts(17);
    let rig = Rig::of(&air);
    let session = air.session.id.clone();
    for path in ["/live/news/storyboard.vtt".to_owned(), format!("/live/news/{session}/storyboard.vtt")] {
        assert_eq!(rig.get(&path).problem()["code"], "no_picture");
    }
    let mut named: Vec<(String, Vec<u8>)> = Vec::new();
    for tile in 0..3 {
        assert!(air.session.pictures().set_sheet(sheet(tile), 0));
        for folder in ["/live/news/".to_owned(), format!("/live/news/{session}/")] {
            let text = rig.get(&format!("{folder}storyboard.vtt"));
            assert_eq!((text.status, text.header("content-type")), (200, "text/vtt; charset=utf-8"));
            assert_eq!(text.header("cache-control"), "public, max-age=5");
            assert!(text.text().starts_with("WEBVTT\nX-TIMESTAMP-MAP=LOCAL:00:00:00.000,MPEGTS:0\n\n"));
            assert_eq!(text.text().matches(" --> ").count(), usize::from(tile) + 1);
            assert_eq!(
                rig.get_with(&format!("{folder}storyboard.vtt"), "If-None-Match", text.header("etag")).status,
                304
            );
            let place = text.text().lines().find(|line| line.contains("#xywh=")).unwrap();
            let (file, at) = place.split_once("#xywh=").unwrap();
            assert_eq!(at, "0,0,160,90");
            let reply = rig.get(&format!("{folder}{file}"));
            assert_eq!((reply.status, reply.header("content-type")), (200, "image/jpeg"), "{folder}{file}");
            assert_eq!(reply.header("cache-control"), "public, max-age=86400, immutable");
            assert_eq!(reply.body, vec![tile; 64]);
            assert_eq!(rig.get_with(&format!("{folder}{file}"), "If-None-Match", reply.header("etag")).status, 304);
            named.push((format!("{folder}{file}"), reply.body));
        }
    }
    for (address, bytes) in &named {
        assert_eq!(&rig.get(address).body, bytes, "{address} names what it named");
    }
    let gone = rig.get(&format!("/live/news/{session}/storyboard-0-0000000000000000.jpg"));
    assert_eq!((gone.status, gone.problem()["code"].as_str()), (404, Some("no_picture")));
    let other = rig.get(&named[1].0.replace(session.as_str(), "se_01ARZ3NDEKTSV4RRFFQ69G5FAV"));
    assert_eq!(other.problem()["code"], "session_over");
}
