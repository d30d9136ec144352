//! Answers: bodies made of shared bytes, problem bodies, ranges, conditions, encodings.

use std::collections::VecDeque;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use super::connection::Serving;
use crate::package::window::Refusal;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A body: a list of shared chunks, or a foreign body behind a box.
#[derive(Debug, Default)]
pub struct Body {
    content: Content,
    /// Keeps the connection "busy" until the body is done or dropped.
    serving: Option<Serving>,
}

#[derive(Debug, Default)]
enum Content {
    #[default]
    Empty,
    Chunks {
        chunks: VecDeque<Bytes>,
        length: u64,
    },
    Boxed {
        body: UnsyncBoxBody<Bytes, BoxError>,
        /// What the foreign body said of its length; mapping its frames loses it.
        length: SizeHint,
        /// Bytes of it that are still to come, where it said how many.
        left: Option<u64>,
    },
}

impl Body {
    pub fn chunks(chunks: impl IntoIterator<Item = Bytes>) -> Body {
        let chunks: VecDeque<Bytes> = chunks.into_iter().filter(|c| !c.is_empty()).collect();
        let length = chunks.iter().map(|c| c.len() as u64).sum();
        Body { content: Content::Chunks { chunks, length }, serving: None }
    }

    /// A foreign body.
    pub fn boxed<B>(body: B) -> Body
    where
        B: HttpBody<Data: Buf, Error: Into<BoxError>> + Send + 'static,
    {
        let length = body.size_hint();
        let bytes = body.map_frame(|frame| {
            frame.map_data(|mut data| {
                let length = data.remaining();
                data.copy_to_bytes(length)
            })
        });
        let body = bytes.map_err(Into::into).boxed_unsync();
        Body { content: Content::Boxed { body, left: length.exact(), length }, serving: None }
    }

    pub(super) fn carry(&mut self, mut serving: Serving) {
        match &self.content {
            Content::Empty => serving.finish(),
            Content::Chunks { chunks, .. } if chunks.is_empty() => serving.finish(),
            Content::Chunks { length, .. } => serving.due(bytes_of(*length)),
            Content::Boxed { body, left, .. } if *left == Some(0) || body.is_end_stream() => serving.finish(),
            Content::Boxed { .. } => serving.due(0),
        }
        self.serving = Some(serving);
    }
}

/// A chunk on its way, with `left` bytes behind it.
fn sent(serving: &mut Option<Serving>, chunk: Bytes, left: Option<usize>, last: bool) -> Bytes {
    let Some(serving) = serving else { return chunk };
    if last {
        serving.finish();
    }
    serving.send(chunk, left)
}

/// What is in memory fits.
fn bytes_of(length: u64) -> usize {
    usize::try_from(length).unwrap_or(usize::MAX)
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Body {
        Body::chunks([bytes])
    }
}

impl From<String> for Body {
    fn from(text: String) -> Body {
        Body::chunks([Bytes::from(text)])
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Body { content, serving } = &mut *self;
        match content {
            Content::Empty => Poll::Ready(None),
            Content::Chunks { chunks, length } => Poll::Ready(chunks.pop_front().map(|chunk| {
                *length -= chunk.len() as u64;
                Ok(Frame::data(sent(serving, chunk, Some(bytes_of(*length)), chunks.is_empty())))
            })),
            Content::Boxed { body, left, .. } => {
                let frame = Pin::new(&mut *body).poll_frame(cx);
                match (&frame, serving.as_mut()) {
                    (Poll::Pending, Some(serving)) => serving.waits(),
                    (Poll::Ready(Some(_)), Some(serving)) => serving.due(0),
                    (Poll::Ready(None), Some(serving)) => serving.finish(),
                    (_, None) => {}
                }
                let ended = body.is_end_stream();
                let mut send = |bytes: Bytes| {
                    *left = left.map(|left| left.saturating_sub(bytes.len() as u64));
                    // With its last byte it is not asked again.
                    sent(serving, bytes, None, ended || *left == Some(0))
                };
                frame.map(|frame| frame.map(|frame| frame.map(|frame| frame.map_data(&mut send))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Empty => true,
            Content::Chunks { chunks, .. } => chunks.is_empty(),
            Content::Boxed { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Empty => SizeHint::with_exact(0),
            Content::Chunks { length, .. } => SizeHint::with_exact(*length),
            Content::Boxed { length, .. } => *length,
        }
    }
}

/// The head of an answer for HEAD: its length is that of the body it leaves out.
pub fn without_body(mut response: Response<Body>) -> Response<Body> {
    if let Some(length) = response.body().size_hint().exact()
        && !matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
    {
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    *response.body_mut() = Body::default();
    response
}

/// What went wrong, in the words of RFC 9457. `code` is for programs, `detail` for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub status: StatusCode,
    pub code: &'static str,
    pub title: &'static str,
    pub detail: String,
    pub allow: Option<&'static str>,
}

impl Problem {
    pub fn new(status: StatusCode, code: &'static str, title: &'static str, detail: impl Into<String>) -> Problem {
        Problem { status, code, title, detail: detail.into(), allow: None }
    }

    pub fn bad_request(code: &'static str, detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, code, "The request makes no sense", detail)
    }

    pub fn not_found(code: &'static str, detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, code, "There is nothing here", detail)
    }

    pub fn method_not_allowed(allow: &'static str) -> Problem {
        let detail = format!("This address answers {allow} only.");
        let problem =
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "The method is not allowed", detail);
        Problem { allow: Some(allow), ..problem }
    }

    pub fn unknown_route() -> Problem {
        Problem::not_found(
            "route_unknown",
            "Nothing is served at this path. Channels are listed at /, watched at /watch/<channel>, and played from \
             /live/<channel>/index.m3u8.",
        )
    }

    pub fn not_yet(code: &'static str, detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, "Not yet", detail)
    }

    /// The body's text.
    pub fn json(&self) -> String {
        serde_json::json!({
            "type": format!("/problems/{}", self.code),
            "title": self.title,
            "status": self.status.as_u16(),
            "detail": self.detail,
            "code": self.code,
        })
        .to_string()
    }

    pub fn into_response(self) -> Response<Body> {
        self.into_text().map(Body::from)
    }

    /// The whole answer with its body as text.
    pub fn into_text(self) -> Response<String> {
        let mut response = Response::new(self.json());
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(allow) = self.allow {
            headers.insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Problem {
        match refusal {
            Refusal::BadRequest(why) => Problem::bad_request("directive_refused", why),
            Refusal::NotFound(why) => Problem::not_found("media_not_found", why),
            Refusal::NotYet(why) => Problem::not_yet("media_not_yet", why),
        }
    }
}

/// Players on other origins may read everything under `/live/` [Fetch 3.2].
pub fn allow_any_origin(headers: &mut HeaderMap) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(
        header::ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static("Content-Length, Content-Range, Date, Age, ETag, Retry-After"),
    );
    headers.insert(TIMING_ALLOW_ORIGIN, HeaderValue::from_static("*"));
}

const TIMING_ALLOW_ORIGIN: HeaderName = HeaderName::from_static("timing-allow-origin");

/// The answer to a CORS preflight.
pub fn preflight() -> Response<Body> {
    let mut response = Response::new(Body::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, HEAD, OPTIONS"));
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static(
            "Range, If-Range, If-None-Match, CMCD-Object, CMCD-Request, CMCD-Session, CMCD-Status",
        ),
    );
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD, OPTIONS"));
    response
}

/// True if `etag` (strong, quoted) is among those of If-None-Match (weak comparison, RFC 9110 13.1.2).
pub fn matches_etag(headers: &HeaderMap, etag: &str) -> bool {
    headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|v| v.to_str().ok()).any(|list| {
        list.split(',').map(str::trim).any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == etag)
    })
}

/// Whether gzip may be sent and is not liked less than the plain form (RFC 9110 12.5.3).
pub fn accepts_gzip(headers: &HeaderMap) -> bool {
    let (mut gzip, mut any, mut identity) = (None, None, None);
    for list in headers.get_all(header::ACCEPT_ENCODING) {
        for item in list.to_str().unwrap_or("").split(',') {
            let mut words = item.split(';').map(str::trim);
            let coding = words.next().unwrap_or("");
            let q = words.find_map(|w| w.strip_prefix("q=").or_else(|| w.strip_prefix("Q="))).map_or(1.0, quality);
            if coding.eq_ignore_ascii_case("gzip") || coding.eq_ignore_ascii_case("x-gzip") {
                gzip = Some(q);
            } else if coding.eq_ignore_ascii_case("identity") {
                identity = Some(q);
            } else if coding == "*" {
                any = Some(q);
            }
        }
    }
    let gzip = gzip.or(any).unwrap_or(0.0);
    gzip > 0.0 && gzip >= identity.unwrap_or(0.0)
}

fn quality(text: &str) -> f32 {
    text.parse().ok().filter(|q| (0.0..=1.0).contains(q)).unwrap_or(0.0)
}

/// What a Range header asks of `length` bytes (RFC 9110 14.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    All,
    Part(Range<u64>),
    /// 416.
    Nothing,
}

/// A single range is honoured; several, other units and nonsense mean the whole.
pub fn wanted_range(headers: &HeaderMap, length: u64, etag: &str) -> Wanted {
    if let Some(condition) = headers.get(header::IF_RANGE)
        && condition.as_bytes() != etag.as_bytes()
    {
        return Wanted::All;
    }
    let Some(spec) = headers.get(header::RANGE).and_then(|v| v.to_str().ok()).and_then(|v| v.strip_prefix("bytes="))
    else {
        return Wanted::All;
    };
    let Some((first, last)) = spec.trim().split_once('-').filter(|(a, b)| digits(a) && digits(b)) else {
        return Wanted::All;
    };
    match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if first > last => Wanted::All,
        (Ok(first), _) if first >= length => Wanted::Nothing,
        (Ok(first), Ok(last)) => Wanted::Part(first..length.min(last.saturating_add(1))),
        (Ok(first), Err(_)) if last.is_empty() => Wanted::Part(first..length),
        (Err(_), Ok(0)) if first.is_empty() => Wanted::Nothing,
        (Err(_), Ok(suffix)) if first.is_empty() => Wanted::Part(length.saturating_sub(suffix)..length),
        _ => Wanted::All,
    }
}

fn digits(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit())
}

/// The chunks of `range`, sharing their memory.
pub fn slice_chunks(chunks: &[Bytes], range: &Range<u64>) -> Vec<Bytes> {
    let mut out = Vec::new();
    let mut start = 0u64;
    for chunk in chunks {
        let end = start + chunk.len() as u64;
        let (from, to) = (range.start.max(start), range.end.min(end));
        if from < to {
            // Both differences are within this chunk, whose length is a usize.
            let inside = |at: u64| usize::try_from(at - start).expect("an offset within a chunk fits usize");
            out.push(chunk.slice(inside(from)..inside(to)));
        }
        start = end;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(k, v)| (k.clone(), HeaderValue::from_str(v).unwrap())).collect()
    }

    #[test]
    fn gzip_follows_the_quality_values() {
        let accepts = |text: &str| accepts_gzip(&headers(&[(header::ACCEPT_ENCODING, text)]));
        for yes in ["gzip", "GZIP", "x-gzip", "deflate, gzip;q=0.5", "*", "br, *;q=0.1", "gzip;q=1.0, identity;q=0.5"] {
            assert!(accepts(yes), "{yes}");
        }
        for no in ["", "br", "gzip;q=0", "*;q=0", "gzip;q=0.3, identity;q=0.9", "gzip;q=nonsense", "gzipped"] {
            assert!(!accepts(no), "{no}");
        }
        assert!(!accepts_gzip(&HeaderMap::new()));
    }

    #[test]
    fn ranges_follow_rfc_9110() {
        let wanted = |text: &str| wanted_range(&headers(&[(header::RANGE, text)]), 100, "\"a\"");
        assert_eq!(wanted("bytes=0-9"), Wanted::Part(0..10));
        assert_eq!(wanted("bytes=90-"), Wanted::Part(90..100));
        assert_eq!(wanted("bytes=90-1000"), Wanted::Part(90..100));
        assert_eq!(wanted("bytes=-10"), Wanted::Part(90..100));
        assert_eq!(wanted("bytes=-1000"), Wanted::Part(0..100));
        assert_eq!(wanted("bytes=100-"), Wanted::Nothing);
        assert_eq!(wanted("bytes=-0"), Wanted::Nothing);
        for whole in ["bytes=9-0", "bytes=0-1,5-6", "lines=0-1", "bytes=-", "bytes=a-b", "bytes=+1-2", "bytes=", "0-9"]
        {
            assert_eq!(wanted(whole), Wanted::All, "{whole}");
        }
    }

    #[test]
    fn if_range_with_another_tag_means_the_whole() {
        let both = |tag| headers(&[(header::RANGE, "bytes=0-9"), (header::IF_RANGE, tag)]);
        assert_eq!(wanted_range(&both("\"a\""), 100, "\"a\""), Wanted::Part(0..10));
        assert_eq!(wanted_range(&both("\"b\""), 100, "\"a\""), Wanted::All);
    }

    #[test]
    fn slices_of_chunks_are_the_bytes_of_the_range() {
        let whole: Vec<u8> = (0..97u8).collect();
        let chunks: Vec<Bytes> = whole.chunks(13).map(Bytes::copy_from_slice).collect();
        for start in 0..97u64 {
            for end in start..=97 {
                let got: Vec<u8> = slice_chunks(&chunks, &(start..end)).concat();
                assert_eq!(got, whole[start as usize..end as usize]);
            }
        }
    }

    #[test]
    fn an_answer_is_whole_with_its_last_byte_and_cut_short_before_it() {
        use crate::serve::connection::Connection;
        let peer = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        let connection = std::sync::Arc::new(Connection::new(peer, crate::time::SystemClock::mono()));
        let two = || [Bytes::from_static(b"one"), Bytes::from_static(b"two")];
        let boxed = || {
            let frames = two().map(|bytes| Ok::<_, BoxError>(Frame::data(bytes)));
            let stream = http_body_util::StreamBody::new(futures_util::stream::iter(frames));
            Body {
                content: Content::Boxed { body: stream.boxed_unsync(), length: SizeHint::default(), left: Some(6) },
                serving: None,
            }
        };
        let empty = || Body::boxed(http_body_util::Empty::<Bytes>::new());
        for (body, fetched, cut) in [
            (Body::default(), 0, 0),
            (empty(), 0, 0),
            (Body::chunks(two()), 2, 0),
            (Body::chunks(two()), 1, 1),
            (boxed(), 2, 0),
            (boxed(), 1, 1),
            (Body::from("text".to_owned()), 0, 1),
        ] {
            let (mut body, before) = (body, connection.cut_short());
            body.carry(connection.begin(http::Version::HTTP_2));
            for _ in 0..fetched {
                let frame = futures_util::FutureExt::now_or_never(body.frame()).flatten();
                assert!(frame.is_some_and(|frame| frame.is_ok()));
            }
            drop(body);
            assert_eq!((connection.cut_short() - before, connection.held_bytes()), (cut, 0));
        }
    }

    #[test]
    fn etags_compare_weakly_and_in_lists() {
        let with = |text: &str| matches_etag(&headers(&[(header::IF_NONE_MATCH, text)]), "\"x1\"");
        assert!(with("\"x1\"") && with("W/\"x1\"") && with("\"a\", \"x1\"") && with("*"));
        assert!(!with("\"x2\"") && !with("x1") && !with(""));
    }
}
