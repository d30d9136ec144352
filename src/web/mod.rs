//! Purpose: the start page, the watch page of each channel and the status that they show, the API reference; everything
//! is embedded.
//! Time: none of its own; pages compare the server's wall clock in `/status.json` with PROGRAM-DATE-TIME.
//! Invariants: no address outside this server is named or loaded; pages name no framework; assets are revalidated.
//! Spec: HTML; the player is hls.js, fetched at set-up.
//! When it fails: without the fetched player the watch page says what to run.

mod assets;
pub mod status;

use std::sync::Arc;

use http::{HeaderValue, Response, StatusCode, header};
use warp::Filter;
use warp::filters::BoxedFilter;

use assets::Asset;
pub use status::{ChannelStatus, RenditionStatus, Status, StatusSource};

/// Pages, their assets and `/status.json`, which tells of one channel where `?channel=` names it.
pub fn filter(source: Arc<dyn StatusSource>) -> BoxedFilter<(Response<Vec<u8>>,)> {
    let known = Arc::clone(&source);
    let index = warp::path::end().map(|| page(StatusCode::OK, assets::INDEX.to_owned()));
    let watch = warp::path!("watch" / String).map(move |channel: String| {
        let there = !known.status(Some(&channel)).channels.is_empty();
        let status = if there { StatusCode::OK } else { StatusCode::NOT_FOUND };
        page(status, assets::WATCH.replace("@PLAYER@", if assets::HLS_JS.is_some() { "built-in" } else { "missing" }))
    });
    let embedded = warp::path!("assets" / String).and(warp::header::headers_cloned()).and_then(
        |name: String, headers: http::HeaderMap| async move {
            assets::find(&name).map(|asset| asset_response(asset, &headers)).ok_or_else(warp::reject::not_found)
        },
    );
    let reference = warp::path!("reference").map(|| page(StatusCode::OK, assets::REFERENCE.to_owned()));
    let problem = warp::path!("problems" / String).map(|code: String| explanation(&code));
    let query = warp::query::raw().or(warp::any().map(String::new)).unify();
    let status = warp::path!("status.json").and(query).map(move |query: String| {
        let channel =
            form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "channel").map(|(_, value)| value);
        status_response(&source.status(channel.as_deref()))
    });
    let pages = index.or(watch).unify().or(reference).unify().or(problem).unify();
    warp::get().and(pages.or(embedded).unify().or(status).unify()).boxed()
}

/// A problem's `type` leads to its code in the reference.
fn explanation(code: &str) -> Response<Vec<u8>> {
    let mut response = plain(StatusCode::SEE_OTHER, "text/plain; charset=utf-8", Vec::new());
    let known = code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    let to = if known { format!("/reference#problem-{code}") } else { "/reference".to_owned() };
    if let Ok(to) = HeaderValue::from_str(&to) {
        response.headers_mut().insert(header::LOCATION, to);
    }
    response
}

fn page(status: StatusCode, text: String) -> Response<Vec<u8>> {
    let mut response = plain(status, "text/html; charset=utf-8", text.into_bytes());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// The player works in a worker made of a blob and feeds the picture through one.
const POLICY: &str = "default-src 'self'; media-src 'self' blob: data:; worker-src 'self' blob:; img-src 'self' data:; \
                      object-src 'none'; base-uri 'none'";

fn status_response(status: &Status) -> Response<Vec<u8>> {
    // The status is numbers and strings: it always has a JSON form.
    let body = serde_json::to_vec(status).expect("numbers and strings serialise");
    let mut response = plain(StatusCode::OK, "application/json", body);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    response
}

fn asset_response(asset: &Asset, headers: &http::HeaderMap) -> Response<Vec<u8>> {
    let matches = headers.get(header::IF_NONE_MATCH).is_some_and(|v| v.as_bytes() == asset.etag.as_bytes());
    let gzip = headers
        .get(header::ACCEPT_ENCODING)
        .and_then(|v| v.to_str().ok())
        .is_some_and(|list| list.split(',').any(|one| one.trim() == "gzip"));
    let body = match (matches, gzip) {
        (true, _) => Vec::new(),
        (false, true) => asset.gzip.clone(),
        (false, false) => asset.plain.to_vec(),
    };
    let status = if matches { StatusCode::NOT_MODIFIED } else { StatusCode::OK };
    let mut response = plain(status, asset.kind, body);
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    if gzip && !matches {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    if let Ok(etag) = HeaderValue::from_str(&asset.etag) {
        headers.insert(header::ETAG, etag);
    }
    response
}

fn plain(status: StatusCode, kind: &'static str, body: Vec<u8>) -> Response<Vec<u8>> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
