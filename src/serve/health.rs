//! `/healthz`: this process answers. `/readyz`: it may serve viewers. `/metrics`: the scrape.

use std::sync::Arc;

use http::{HeaderValue, Response, StatusCode, header};

use super::respond::Body;

/// One thing that must hold before viewers are sent here.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Check {
    pub name: &'static str,
    pub ok: bool,
    /// A sentence: what was looked at and what was found.
    pub detail: String,
}

/// Where readiness comes from.
#[derive(Clone)]
pub struct Health(Arc<dyn Fn() -> Vec<Check> + Send + Sync>);

impl std::fmt::Debug for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Health")
    }
}

impl Health {
    /// `checks` is called per request and must not block.
    pub fn new(checks: impl Fn() -> Vec<Check> + Send + Sync + 'static) -> Health {
        Health(Arc::new(checks))
    }

    pub(super) fn ready(&self) -> Response<Body> {
        let checks = (self.0)();
        let ok = checks.iter().all(|c| c.ok);
        let status = if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        json(status, &serde_json::json!({ "status": if ok { "ready" } else { "not ready" }, "checks": checks }))
    }
}

pub(super) fn alive() -> Response<Body> {
    json(StatusCode::OK, &serde_json::json!({ "status": "alive" }))
}

pub(super) fn metrics(text: String) -> Response<Body> {
    plain(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text)
}

fn json(status: StatusCode, value: &serde_json::Value) -> Response<Body> {
    plain(status, "application/json", value.to_string())
}

fn plain(status: StatusCode, content_type: &'static str, text: String) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
