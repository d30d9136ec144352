//! Purpose: players, pages and operators get their answers over HTTP/1.1 and HTTP/2.
//! Time: `Mono` from the shell's clock; it only ages requests and connections.
//! Invariants: media is never copied on its way to a socket; a viewer who stops reading is closed; errors are
//! `application/problem+json` and never cached; nothing a client sends can do more than cost it its own connection.
//! Spec: [HLS 6.2], RFC 9110, RFC 9112, RFC 9113, RFC 9457.
//! When it fails: a busy port is a sentence; a broken connection is a counter.

pub mod accept;
pub mod connection;
pub mod directives;
pub mod health;
pub mod media;
mod pictures;
pub mod respond;
mod tally;

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use http::{HeaderValue, Method, Request, Response, header};
use hyper::body::Incoming;

use crate::package::origin::Origin;
use connection::Connection;
use respond::{Body, Problem};
use tally::{Route, Tally};

pub use accept::{BindError, Options, Server, bind, routes};
pub use health::{Check, Health};

/// What is not media: called with every request that no room of `serve` answers.
pub type Routes = Arc<dyn Fn(Request<Incoming>) -> RoutesFuture + Send + Sync>;
pub type RoutesFuture = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;
/// Renders a scrape.
pub type Scrape = Arc<dyn Fn() -> String + Send + Sync>;

/// The client's address, as a request extension for [`Routes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub std::net::SocketAddr);

/// Everything that one listener answers.
#[derive(Clone, Default)]
pub struct Site {
    /// `/live/...`
    pub origin: Option<Arc<Origin>>,
    /// `/healthz`, `/readyz`
    pub health: Option<Health>,
    /// `/metrics`
    pub metrics: Option<Scrape>,
    /// Everything else: pages, API.
    pub routes: Option<Routes>,
}

impl std::fmt::Debug for Site {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Site").field("origin", &self.origin.is_some()).finish_non_exhaustive()
    }
}

/// Answers one request.
async fn answer(
    site: Arc<Site>,
    tally: Arc<Tally>,
    connection: Arc<Connection>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let serving = connection.begin(request.version());
    let since = serving.since;
    let (route, mut response) = route(&site, &tally, &connection, request).await;
    tally.answered(route, response.status(), since);
    response.body_mut().carry(serving);
    Ok(response)
}

async fn route(
    site: &Site,
    tally: &Tally,
    connection: &Arc<Connection>,
    mut request: Request<Incoming>,
) -> (Route, Response<Body>) {
    let path = request.uri().path();
    if let (Some(origin), Some(rest)) = (&site.origin, path.strip_prefix("/live/")) {
        return media::answer(origin, tally, rest, &request).await;
    }
    let health = match (path, &site.health, &site.metrics) {
        ("/healthz", Some(_), _) => Some((Route::Health, health::alive())),
        ("/readyz", Some(health), _) => Some((Route::Health, health.ready())),
        ("/metrics", _, Some(scrape)) => Some((Route::Metrics, health::metrics(scrape()))),
        _ => None,
    };
    let head = request.method() == Method::HEAD;
    if let Some((route, response)) = health {
        if !head && request.method() != Method::GET {
            return (route, Problem::method_not_allowed("GET, HEAD").into_response());
        }
        return (route, if head { respond::without_body(response) } else { response });
    }
    let Some(routes) = &site.routes else {
        return (Route::Unknown, Problem::unknown_route().into_response());
    };
    request.extensions_mut().insert(Peer(connection.peer()));
    if head {
        // Filters name GET only; the answer's head is the same.
        *request.method_mut() = Method::GET;
    }
    let mut response = routes(request).await;
    if response.status().is_client_error() || response.status().is_server_error() {
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    let known = if response.status() == http::StatusCode::NOT_FOUND { Route::Unknown } else { Route::Page };
    (known, if head { respond::without_body(response) } else { response })
}
