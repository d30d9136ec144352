//! What players ask for: targets, directives, conditions, ranges.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use rung::package::window::Skip;
use rung::serve::media::{Item, Target as Named};
use rung::serve::respond::{Wanted, accepts_gzip, matches_etag, slice_chunks, wanted_range};
use rung::serve::{directives, split_pass};

use crate::Target;
use crate::script::Script;
use crate::seeds;

pub(super) const TARGETS: &[Target] = &[
    Target::new("http_target", target, seeds::http_targets).words(&[
        b"/live/",
        b"/t/",
        b"index.m3u8",
        b".iframes.m3u8",
        b"init-0.mp4",
        b"s18.m4s",
        b"p18.0.m4s",
        b"i18.m4s",
        b"storyboard.vtt",
        b"storyboard-3-0123456789abcdef.jpg",
        b"poster.jpg",
        b"steering.json",
        b"?_HLS_msn=",
        b"&_HLS_part=",
        b"&_HLS_skip=YES",
        b"%2F",
        b"..",
    ]),
    Target::new("http_head", head, seeds::http_heads).words(&[
        b"range: bytes=0-",
        b"if-none-match: \"s18\"",
        b"W/\"s18\"",
        b"accept-encoding: gzip;q=0.5",
        b"if-range: ",
        b"\n",
        b"identity;q=0",
        b"*",
        b"bytes=-5",
        b"1e9",
        b"NaN",
    ]),
];

fn target(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let (path, query) = text.split_once('?').map_or((text, None), |(path, query)| (path, Some(query)));
    let (pass, rest) = split_pass(path);
    match pass {
        Some(pass) => assert!(format!("/t/{pass}{rest}") == path && !pass.is_empty() && !pass.contains('/')),
        None => assert_eq!(rest, path),
    }
    if let Some(named) = rest.strip_prefix("/live/").and_then(|rest| Named::parse(rest).map(|named| (named, rest))) {
        // One address for one thing: what is named is written in one way.
        assert_eq!(written(&named.0), named.1);
    }
    match directives::parse(query) {
        Ok(found) => {
            let mut again = String::from("x=1");
            found.msn.iter().for_each(|msn| again.push_str(&format!("&_HLS_msn={msn}")));
            found.part.iter().for_each(|part| again.push_str(&format!("&_HLS_part={part}")));
            again.push_str(match found.skip {
                Skip::No => "",
                Skip::Yes => "&_HLS_skip=YES",
                Skip::V2 => "&_HLS_skip=v2",
            });
            assert_eq!(directives::parse(Some(&again)).map_err(|p| p.detail), Ok(found));
        }
        Err(problem) => {
            assert_eq!(problem.status.as_u16(), 400);
            assert!(problem.detail.contains("_HLS_") && problem.detail.len() < 600, "{}", problem.detail);
            serde_json::from_str::<serde_json::Value>(&problem.json()).expect("a problem is JSON");
        }
    }
}

fn written(named: &Named<'_>) -> String {
    match *named {
        Named::Multivariant { channel } => format!("{channel}/index.m3u8"),
        Named::Playlist { channel, rendition } => format!("{channel}/{rendition}.m3u8"),
        Named::Iframes { channel, rendition } => format!("{channel}/{rendition}.iframes.m3u8"),
        Named::Steering { channel } => format!("{channel}/steering.json"),
        Named::Poster { channel } => format!("{channel}/poster.jpg"),
        Named::Storyboard { channel, session: None } => format!("{channel}/storyboard.vtt"),
        Named::Storyboard { channel, session: Some(session) } => format!("{channel}/{session}/storyboard.vtt"),
        Named::Sheet { channel, session, file } => format!("{channel}/{session}/{file}"),
        Named::Media { channel, session, rendition, item } => {
            let file = match item {
                Item::Init(map) => format!("init-{map}.mp4"),
                Item::Segment(msn) => format!("s{msn}.m4s"),
                Item::Part(msn, part) => format!("p{msn}.{part}.m4s"),
                Item::Iframe(msn) => format!("i{msn}.m4s"),
            };
            format!("{channel}/{session}/{rendition}/{file}")
        }
    }
}

/// The lengths of three chunks, then header lines.
fn head(input: &[u8]) {
    let mut script = Script::new(input);
    let chunks: Vec<Bytes> = (0..3u8).map(|n| Bytes::from(vec![n; usize::from(script.byte())])).collect();
    let mut headers = HeaderMap::new();
    for line in script.rest().split(|byte| *byte == b'\n').take(64) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) =
            (HeaderName::from_bytes(&line[..colon]), HeaderValue::from_bytes(line[colon + 1..].trim_ascii()));
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    accepts_gzip(&headers);
    let etag = "\"s18\"";
    let known = headers.get_all(http::header::IF_NONE_MATCH).iter().any(|value| {
        let text = String::from_utf8_lossy(value.as_bytes()).into_owned();
        text.contains(etag) || text.contains('*')
    });
    assert!(known || !matches_etag(&headers, etag), "a tag that nobody sent");
    let whole: Vec<u8> = chunks.concat();
    let length = whole.len() as u64;
    let asked = headers.contains_key(http::header::RANGE);
    match wanted_range(&headers, length, etag) {
        Wanted::All => {}
        Wanted::Nothing => assert!(asked),
        Wanted::Part(range) => {
            assert!(asked && range.start < range.end && range.end <= length, "{range:?} of {length}");
            let start = usize::try_from(range.start).expect("within memory");
            let end = usize::try_from(range.end).expect("within memory");
            assert_eq!(slice_chunks(&chunks, &range).concat(), &whole[start..end]);
        }
    }
}
