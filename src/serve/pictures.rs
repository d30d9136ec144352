//! Posters, storyboards and their sheets over HTTP.

use std::time::{Duration, UNIX_EPOCH};

use http::{HeaderValue, Request, Response, StatusCode, header};

use super::media::{MEDIA_AGE, canonical, insert_ascii, playlist_response};
use super::respond::{self, Body, Problem};
use crate::package::origin::SessionOutput;
use crate::package::pictures::Beside;
use crate::time::Wall;

/// A poster is followed by the next one within five seconds, a storyboard within ten.
const CHANGING_AGE: &str = "public, max-age=5";

pub(super) fn poster<B>(request: &Request<B>, session: &SessionOutput) -> Result<Response<Body>, Problem> {
    let poster = session.pictures().poster().ok_or_else(|| {
        let detail =
            "There is no picture yet: the first one comes with the session's first frame, one each 5 s after it.";
        Problem::not_found("no_picture", detail)
    })?;
    let date = http_date(poster.made);
    let headers = request.headers();
    // With a tag the date is not looked at (RFC 9110 13.1.3).
    let fresh = if headers.contains_key(header::IF_NONE_MATCH) {
        respond::matches_etag(headers, &poster.etag)
    } else {
        let since = headers.get(header::IF_MODIFIED_SINCE).and_then(|date| date.to_str().ok());
        since.and_then(|text| httpdate::parse_http_date(text).ok()).is_some_and(|since| since >= seconds(poster.made))
    };
    let mut response = jpeg(if fresh { None } else { Some(poster.jpeg.clone()) }, CHANGING_AGE, &poster.etag);
    insert_ascii(&mut response, header::LAST_MODIFIED, &date);
    Ok(response)
}

/// `of_session`: the address names the session, as those of its sheets do.
pub(super) fn storyboard<B>(
    request: &Request<B>,
    session: &SessionOutput,
    of_session: bool,
) -> Result<Response<Body>, Problem> {
    let beside = if of_session { Beside::Sheets } else { Beside::Session };
    let text = session.pictures().storyboard(session.id.as_str(), beside).ok_or_else(|| {
        let detail =
            "There is no tile yet: the first one comes with the session's first frame, one each 10 s after it.";
        Problem::not_found("no_picture", detail)
    })?;
    Ok(playlist_response(request, &text, "text/vtt; charset=utf-8", CHANGING_AGE))
}

pub(super) fn sheet<B>(request: &Request<B>, session: &SessionOutput, file: &str) -> Result<Response<Body>, Problem> {
    let jpeg_bytes = session.pictures().sheet(file).ok_or_else(|| {
        Problem::not_found("no_picture", "This version of the sheet is gone: load the storyboard again.")
    })?;
    let etag = format!("\"{file}\"");
    let fresh = respond::matches_etag(request.headers(), &etag);
    Ok(jpeg(if fresh { None } else { Some(jpeg_bytes) }, MEDIA_AGE, &etag))
}

/// `storyboard-<n>-<16 hexadecimal digits>.jpg`
pub(super) fn is_sheet(file: &str) -> bool {
    let stem = file.strip_prefix("storyboard-").and_then(|file| file.strip_suffix(".jpg"));
    stem.and_then(|stem| stem.split_once('-')).is_some_and(|(number, digest)| {
        let digest = digest.len() == 16 && digest.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        canonical::<u32>(number).is_some() && digest
    })
}

/// `None`: the caller has it already.
fn jpeg(bytes: Option<bytes::Bytes>, age: &'static str, etag: &str) -> Response<Body> {
    let mut response = Response::new(Body::default());
    match bytes {
        Some(bytes) => {
            *response.body_mut() = Body::from(bytes);
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("image/jpeg"));
        }
        None => *response.status_mut() = StatusCode::NOT_MODIFIED,
    }
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(age));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    insert_ascii(&mut response, header::ETAG, etag);
    response
}

fn http_date(at: Wall) -> String {
    httpdate::fmt_http_date(seconds(at))
}

/// Whole seconds, as HTTP has them.
fn seconds(at: Wall) -> std::time::SystemTime {
    UNIX_EPOCH + Duration::from_secs(at.unix_millis() / 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_http() {
        assert_eq!(http_date(Wall(784_111_777_999_999_999)), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(http_date(Wall(-1)), "Thu, 01 Jan 1970 00:00:00 GMT");
    }

    #[test]
    fn sheets_have_one_spelling() {
        assert!(is_sheet("storyboard-0-0123456789abcdef.jpg") && is_sheet("storyboard-900-ffffffffffffffff.jpg"));
        for bad in ["storyboard--0123456789abcdef.jpg", "storyboard-+1-0123456789abcdef.jpg", "storyboard-1-.jpg"] {
            assert!(!is_sheet(bad), "{bad}");
        }
    }
}
