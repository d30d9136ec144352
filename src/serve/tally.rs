//! Counters of the HTTP listeners, by route and code; handles are made at their first use and kept.

use std::sync::OnceLock;

use http::StatusCode;

use crate::telemetry::{Counter, Gauge, Histogram, Label, Metric, counter, gauge_handle, histogram};
use crate::time::{Mono, SystemClock};

/// What kind of thing was asked for: a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Multivariant,
    Playlist,
    Init,
    Segment,
    Part,
    Picture,
    Pass,
    Storyboard,
    Page,
    Health,
    Metrics,
    Preflight,
    Unknown,
    /// What HTTP itself refused before a request was seen.
    Malformed,
}

const ROUTES: usize = Route::Malformed as usize + 1;

impl Route {
    fn label(self) -> &'static str {
        match self {
            Route::Multivariant => "multivariant",
            Route::Playlist => "playlist",
            Route::Init => "init",
            Route::Segment => "segment",
            Route::Part => "part",
            Route::Picture => "picture",
            Route::Pass => "pass",
            Route::Storyboard => "storyboard",
            Route::Page => "page",
            Route::Health => "health",
            Route::Metrics => "metrics",
            Route::Preflight => "preflight",
            Route::Unknown => "unknown",
            Route::Malformed => "malformed",
        }
    }
}

const CODES: [(u16, &str); 24] = [
    (200, "200"),
    (201, "201"),
    (202, "202"),
    (204, "204"),
    (206, "206"),
    (304, "304"),
    (400, "400"),
    (401, "401"),
    (403, "403"),
    (404, "404"),
    (405, "405"),
    (409, "409"),
    (412, "412"),
    (413, "413"),
    (415, "415"),
    (416, "416"),
    (422, "422"),
    (428, "428"),
    (429, "429"),
    (431, "431"),
    (500, "500"),
    (503, "503"),
    (301, "301"),
    (302, "302"),
];

/// All other codes.
const OTHER: usize = CODES.len();

#[derive(Debug)]
pub(super) struct Tally {
    requests: [[OnceLock<Counter>; CODES.len() + 1]; ROUTES],
    seconds: [OnceLock<Histogram>; ROUTES],
    pub(super) blocked: Gauge,
    pub(super) connections: Gauge,
    pub(super) handshakes: Gauge,
    pub(super) egress: Counter,
}

impl Tally {
    pub(super) fn new() -> Tally {
        Tally {
            requests: Default::default(),
            seconds: Default::default(),
            blocked: gauge_handle(Metric::HttpBlocked, &[]),
            connections: gauge_handle(Metric::HttpConnections, &[]),
            handshakes: gauge_handle(Metric::TlsHandshakesOpen, &[]),
            egress: counter(Metric::EgressBytes, &[]),
        }
    }

    pub(super) fn answered(&self, route: Route, status: StatusCode, since: Mono) {
        self.count(route, status);
        let seconds = self.seconds[route as usize]
            .get_or_init(|| histogram(Metric::HttpRequestSeconds, &[Label::Route(route.label())]));
        seconds.observe_span(SystemClock::mono() - since);
    }

    pub(super) fn count(&self, route: Route, status: StatusCode) {
        let index = CODES.iter().position(|(code, _)| *code == status.as_u16()).unwrap_or(OTHER);
        let counter = self.requests[route as usize][index].get_or_init(|| {
            let code = CODES.get(index).map_or("other", |(_, label)| label);
            counter(Metric::HttpRequests, &[Label::Route(route.label()), Label::Code(code)])
        });
        counter.add(1);
    }
}

/// One more in a gauge while this lives.
#[derive(Debug)]
pub(super) struct Counted(Gauge);

impl Counted {
    pub(super) fn new(gauge: &Gauge) -> Counted {
        gauge.add(1.0);
        Counted(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.add(-1.0);
    }
}
