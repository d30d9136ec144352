//! Purpose: players, pages and operators get their answers over HTTP/1.1 and HTTP/2, in the clear or in TLS.
//! Time: `Mono` from the shell's clock; it only ages requests and connections.
//! Invariants: media is never copied on its way to a socket; a viewer who stops reading is closed; errors are
//! `application/problem+json` and never cached; nothing a client sends can do more than cost it its own connection.
//! Spec: [HLS 6.2], RFC 9110, RFC 9112, RFC 9113, RFC 9457; RFC 8446 and RFC 5246 by rustls.
//! When it fails: a busy port or a certificate of no use is a sentence; a broken connection is a counter.

pub mod accept;
mod access;
pub mod certificate;
pub mod connection;
pub mod directives;
pub mod health;
pub mod media;
mod pictures;
pub mod respond;
mod seats;
mod tally;
pub mod tls;

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use http::{HeaderValue, Method, Request, Response, Uri, header};
use hyper::body::Incoming;

use crate::media::playback::SharedKeyring;
use crate::package::origin::Origin;
use access::Visitor;
use connection::Connection;
use respond::{Body, Problem};
use tally::{Route, Tally};

pub use accept::{BindError, Options, Server, bind, routes};
pub use access::split as split_pass;
pub use certificate::{Pair, Trouble};
pub use health::{Check, Health};
pub use tls::Tls;

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
    /// What viewers of signed channels are let in by; without it nobody is.
    pub keyring: Option<SharedKeyring>,
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
    if let Some(origin) = &site.origin
        && access::split(request.uri().path()).1.starts_with("/live/")
    {
        let request = media::light(request);
        return live(site, origin, tally, connection, &request).await;
    }
    let (pass, path) = access::split(request.uri().path());
    // The watch page finds its pass in its own address.
    if pass.is_some()
        && path.starts_with("/watch/")
        && let Ok(plain) = path.parse::<Uri>()
    {
        *request.uri_mut() = plain;
    }
    let path = request.uri().path();
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

/// `/live/…`, for a viewer without a pass or with one.
async fn live(
    site: &Site,
    origin: &Origin,
    tally: &Tally,
    connection: &Connection,
    request: &Request<()>,
) -> (Route, Response<Body>) {
    let (pass, path) = access::split(request.uri().path());
    let rest = path.strip_prefix("/live/").unwrap_or_default();
    let (method, keyring) = (request.method(), site.keyring.as_ref());
    let visitor = Visitor { pass, query: request.uri().query(), peer: connection.peer().ip() };
    if let Some(asked) = rest.strip_suffix("/pass").and_then(media::Question::parse)
        && matches!(*method, Method::GET | Method::HEAD)
    {
        return (Route::Pass, media::pass(origin, keyring, asked, visitor));
    }
    media::answer(origin, keyring, tally, rest, visitor, request).await
}
