//! What a handler gives back, and the HTTP answer that becomes of it.

use bytes::Bytes;
use futures_util::stream::BoxStream;
use http::header::{self, HeaderName};
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use serde_json::Value;
use std::borrow::Cow;
use std::convert::Infallible;
use warp::Reply;
use warp::reply::Response;

use super::problem::Problem;

/// The name under which a request is found in the audit.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// On an answer that was given before.
pub(super) const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// What a request came to.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Body,
    /// Revision of the record that was answered: its ETag.
    pub(super) revision: Option<u64>,
    /// Path of what was made.
    pub(super) location: Option<String>,
    /// The answer of an earlier, equal request.
    pub(super) replayed: bool,
    /// Seconds that were waited for at most, as the caller preferred.
    pub(super) waited: Option<u64>,
}

pub(super) enum Body {
    Empty,
    Json(Value),
    Jpeg(Bytes),
    Png(Bytes),
    /// JSON that is written already.
    Text(Cow<'static, str>),
    Events(BoxStream<'static, Bytes>),
}

impl Answer {
    pub(super) fn new(status: StatusCode, body: Body) -> Answer {
        Answer { status, body, revision: None, location: None, replayed: false, waited: None }
    }

    pub(super) fn json(view: &impl Serialize) -> Answer {
        // Views are numbers, strings and lists of them.
        Answer::new(StatusCode::OK, Body::Json(serde_json::to_value(view).expect("a view has a JSON form")))
    }

    pub(super) fn created(location: String, view: &impl Serialize) -> Answer {
        Answer { status: StatusCode::CREATED, location: Some(location), ..Answer::json(view) }
    }

    pub(super) fn gone() -> Answer {
        Answer::new(StatusCode::NO_CONTENT, Body::Empty)
    }

    #[must_use]
    pub(super) fn revision(self, revision: u64) -> Answer {
        Answer { revision: Some(revision), ..self }
    }

    pub(super) fn into_response(self, request_id: &str) -> Response {
        let (kind, mut response) = match self.body {
            Body::Empty => (None, String::new().into_response()),
            Body::Png(bytes) => (Some("image/png"), http::Response::new(bytes).map(Into::into)),
            Body::Jpeg(bytes) => (Some("image/jpeg"), http::Response::new(bytes).map(Into::into)),
            Body::Json(value) => (Some("application/json"), value.to_string().into_response()),
            Body::Text(Cow::Borrowed(text)) => (Some("application/json"), text.into_response()),
            Body::Text(Cow::Owned(text)) => (Some("application/json"), text.into_response()),
            Body::Events(events) => {
                use futures_util::StreamExt;
                // Polled by one connection at a time: the wrapper only has to say so.
                let events = sync_wrapper(events).map(Ok::<_, Infallible>);
                (Some("text/event-stream"), warp::reply::stream(events).into_response())
            }
        };
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        match kind {
            Some(kind) => headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind)),
            None => headers.remove(header::CONTENT_TYPE),
        };
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        let mut put = |name: HeaderName, text: String| {
            // Ids, numbers and paths of ASCII.
            headers.insert(name, HeaderValue::try_from(text).expect("visible ASCII"));
        };
        put(REQUEST_ID, request_id.to_owned());
        if let Some(revision) = self.revision {
            put(header::ETAG, etag(revision));
        }
        if let Some(location) = self.location {
            put(header::LOCATION, location);
        }
        if let Some(seconds) = self.waited {
            put(PREFERENCE_APPLIED, format!("wait={seconds}"));
        }
        if self.replayed {
            put(REPLAYED, "true".into());
        }
        response
    }
}

pub(super) fn etag(revision: u64) -> String {
    format!("\"{revision}\"")
}

/// The answer of a request that did not succeed.
pub(super) fn problem_response(problem: &Problem, request_id: &str) -> Response {
    let mut response =
        serde_json::to_string(&problem.view(request_id)).expect("a problem has a JSON form").into_response();
    *response.status_mut() = problem.code.status();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let texts = [
        (REQUEST_ID, Some(request_id.to_owned())),
        (header::RETRY_AFTER, problem.retry_after.map(|after| after.as_secs_f64().ceil().max(1.0).to_string())),
        (header::ALLOW, problem.allow.clone()),
        (header::WWW_AUTHENTICATE, problem.challenge.clone()),
    ];
    for (name, text) in texts {
        if let Some(value) = text.and_then(|text| HeaderValue::try_from(text).ok()) {
            headers.insert(name, value);
        }
    }
    response
}

/// A stream behind a lock that nobody contends for: warp wants bodies that are `Sync`.
fn sync_wrapper(stream: BoxStream<'static, Bytes>) -> impl futures_util::Stream<Item = Bytes> + Send + Sync {
    let mut cell = std::sync::Mutex::new(stream);
    futures_util::stream::poll_fn(move |cx| {
        let stream = cell.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        stream.as_mut().poll_next(cx)
    })
}
