//! The one table of what is answered, and the way of a request through it.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method};
use warp::reply::Response;

use super::answer::{Answer, problem_response};
use super::call::{Call, Query};
use super::problem::{Code, Problem};
use super::{
    Api, Whole, audit, channels, events, logo, openapi, passphrase, playback, sessions, stream, system, templates,
    tokens,
};
use crate::control::auth::Scope;
use crate::control::state::Ulid;
use crate::sys::random;
use crate::time::SystemClock;

pub(super) type Handling<'a> = Pin<Box<dyn Future<Output = Result<Answer, Problem>> + Send + 'a>>;
/// Reads the body once it is wanted.
pub(super) type BodyFuture = Pin<Box<dyn Future<Output = Result<Whole, Problem>> + Send>>;

/// One operation.
pub struct Route {
    pub method: Method,
    /// With `{id}` where a name or an id stands.
    pub path: &'static str,
    /// What the caller's token must allow; `None`: everybody may ask.
    pub scope: Option<Scope>,
    /// The operation's id in the document.
    pub id: &'static str,
    run: for<'a> fn(&'a Call) -> Handling<'a>,
}

macro_rules! routes {
    ($($method:ident $path:literal $scope:expr => $room:ident::$handler:ident;)*) => {
        /// Everything that the API answers.
        pub static ROUTES: &[Route] = &[$(Route {
            method: Method::$method,
            path: $path,
            scope: $scope,
            id: stringify!($handler),
            run: |call| Box::pin($room::$handler(call)),
        },)*];
    };
}

use Scope::{ChannelsRead, ChannelsWrite, NodesAdmin, SessionsRead, SessionsWrite, TokensAdmin};

routes! {
    GET "/v1/channels" Some(ChannelsRead) => channels::list_channels;
    POST "/v1/channels" Some(ChannelsWrite) => channels::create_channel;
    GET "/v1/channels/{id}" Some(ChannelsRead) => channels::get_channel;
    PATCH "/v1/channels/{id}" Some(ChannelsWrite) => channels::update_channel;
    DELETE "/v1/channels/{id}" Some(ChannelsWrite) => channels::delete_channel;
    POST "/v1/channels/{id}/start" Some(ChannelsWrite) => channels::start_channel;
    POST "/v1/channels/{id}/stop" Some(ChannelsWrite) => channels::stop_channel;
    POST "/v1/channels/{id}/rotate-key" Some(ChannelsWrite) => channels::rotate_channel_key;
    PUT "/v1/channels/{id}/srt-passphrase" Some(ChannelsWrite) => passphrase::put_channel_srt_passphrase;
    DELETE "/v1/channels/{id}/srt-passphrase" Some(ChannelsWrite) => passphrase::delete_channel_srt_passphrase;
    GET "/v1/channels/{id}/renditions" Some(ChannelsRead) => channels::get_channel_renditions;
    PUT "/v1/channels/{id}/renditions" Some(ChannelsWrite) => channels::put_channel_renditions;
    GET "/v1/channels/{id}/inputs" Some(ChannelsRead) => channels::get_channel_inputs;
    POST "/v1/channels/{id}/snapshot" Some(ChannelsRead) => channels::take_snapshot;
    GET "/v1/channels/{id}/logo" Some(ChannelsRead) => logo::get_channel_logo;
    PUT "/v1/channels/{id}/logo" Some(ChannelsWrite) => logo::put_channel_logo;
    DELETE "/v1/channels/{id}/logo" Some(ChannelsWrite) => logo::delete_channel_logo;
    GET "/v1/channels/{id}/playback" Some(ChannelsWrite) => playback::sign_channel_playback;
    GET "/v1/channels/{id}/sessions" Some(SessionsRead) => sessions::list_channel_sessions;
    GET "/v1/sessions" Some(SessionsRead) => sessions::list_sessions;
    GET "/v1/sessions/{id}" Some(SessionsRead) => sessions::get_session;
    POST "/v1/sessions/{id}/end" Some(SessionsWrite) => sessions::end_session;
    GET "/v1/templates" Some(ChannelsRead) => templates::list_templates;
    POST "/v1/templates" Some(ChannelsWrite) => templates::create_template;
    GET "/v1/templates/{id}" Some(ChannelsRead) => templates::get_template;
    PATCH "/v1/templates/{id}" Some(ChannelsWrite) => templates::update_template;
    DELETE "/v1/templates/{id}" Some(ChannelsWrite) => templates::delete_template;
    GET "/v1/tokens" Some(TokensAdmin) => tokens::list_tokens;
    POST "/v1/tokens" Some(TokensAdmin) => tokens::create_token;
    DELETE "/v1/tokens/{id}" Some(TokensAdmin) => tokens::delete_token;
    GET "/v1/playback-keys" Some(TokensAdmin) => playback::list_playback_keys;
    POST "/v1/playback-keys" Some(TokensAdmin) => playback::create_playback_key;
    DELETE "/v1/playback-keys/{id}" Some(TokensAdmin) => playback::delete_playback_key;
    GET "/v1/events" Some(SessionsRead) => events::list_events;
    GET "/v1/events/stream" Some(SessionsRead) => stream::stream_events;
    GET "/v1/audit" Some(TokensAdmin) => audit::list_audit;
    GET "/v1/system" Some(NodesAdmin) => system::get_system;
    GET "/v1/openapi.json" None => openapi::get_openapi;
}

/// What came over the wire.
pub(super) struct Incoming {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) query: String,
    pub(super) headers: HeaderMap,
    pub(super) peer: SocketAddr,
    pub(super) body: BodyFuture,
}

/// Answers one request.
pub(super) async fn answer(api: Arc<Api>, incoming: Incoming) -> Response {
    let request_id = format!("rq_{}", Ulid::from_parts(SystemClock::wall().unix_millis(), random::bits()));
    match run(api, incoming, &request_id).await {
        Ok(answer) => answer.into_response(&request_id),
        Err(problem) => problem_response(&problem, &request_id),
    }
}

async fn run(api: Arc<Api>, incoming: Incoming, request_id: &str) -> Result<Answer, Problem> {
    let (route, captured) = find(&incoming.method, &incoming.path)?;
    let mut call = Call {
        api: Arc::clone(&api),
        route,
        captured,
        path: incoming.path,
        query: Query::parse(&incoming.query),
        headers: incoming.headers,
        body: Bytes::new(),
        caller: None,
        peer: incoming.peer,
        request_id: request_id.to_owned(),
        salt: random::secret(),
    };
    // What needs no right to change anything changes nothing.
    let changes = route.method != Method::GET && !route.scope.is_some_and(Scope::only_reads);
    if let Some(scope) = route.scope {
        let admitted = api.access.admit(api.state(), &call.headers, call.peer.ip(), scope);
        call.caller = Some(admitted.map_err(|denied| {
            let (token, problem) = *denied;
            if changes || matches!(problem.code, Code::TokenInvalid | Code::ScopeMissing) {
                api.refusals.note(&call, token, &problem);
            }
            problem
        })?);
    }
    let outcome = attempt(&mut call, incoming.body).await;
    if let Err(problem) = &outcome
        && changes
    {
        api.refusals.note(&call, None, problem);
    }
    outcome
}

async fn attempt(call: &mut Call, body: BodyFuture) -> Result<Answer, Problem> {
    let api = Arc::clone(&call.api);
    // Given back with the answer.
    let mut _room = None;
    if call.route.method != Method::GET {
        Whole { bytes: call.body, room: _room } = body.await?;
    }
    let _turn = api.running.enter(call)?;
    (call.route.run)(call).await
}

/// The route of a path, and what stands in its braces.
pub(super) fn find(method: &Method, path: &str) -> Result<(&'static Route, Vec<String>), Problem> {
    let mut allowed: Vec<&str> = Vec::new();
    for route in ROUTES {
        let Some(captured) = matches(route.path, path) else { continue };
        if route.method == *method {
            return Ok((route, captured));
        }
        allowed.push(route.method.as_str());
        if route.method == Method::GET {
            allowed.push("HEAD");
        }
    }
    if allowed.is_empty() {
        let what = "nothing is answered at this path: /v1/openapi.json lists what is, /reference shows it";
        return Err(Problem::new(Code::RouteUnknown, what));
    }
    let allow = allowed.join(", ");
    let what = format!("this address answers {allow} only");
    Err(Problem { allow: Some(allow), ..Problem::new(Code::MethodNotAllowed, what) })
}

/// Words of a template stand before braces: `/v1/events/stream` is not the event "stream".
fn matches(template: &str, path: &str) -> Option<Vec<String>> {
    let mut captured = Vec::new();
    let (mut wanted, mut found) = (template.split('/'), path.split('/'));
    loop {
        match (wanted.next(), found.next()) {
            (None, None) => return Some(captured),
            (Some(word), Some(part)) if word.starts_with('{') && !part.is_empty() => captured.push(part.to_owned()),
            (Some(word), Some(part)) if word == part => {}
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_one_route_for_a_method_and_the_others_are_named() {
        let (route, captured) = find(&Method::POST, "/v1/channels/news/rotate-key").unwrap();
        assert_eq!((route.id, captured), ("rotate_channel_key", vec!["news".to_owned()]));
        assert_eq!(find(&Method::GET, "/v1/events/stream").map(|(r, _)| r.id), Ok("stream_events"));
        let other = find(&Method::PUT, "/v1/channels/news").map(|(r, _)| r.id).unwrap_err();
        assert_eq!(other.allow.as_deref(), Some("GET, HEAD, PATCH, DELETE"));
        for nowhere in ["/v1", "/v1/", "/v1/channels/", "/v1/channels/a/b", "/v1/channels/a/start/", "/v2/channels"] {
            assert_eq!(
                find(&Method::GET, nowhere).map(|(r, _)| r.id).unwrap_err().code,
                Code::RouteUnknown,
                "{nowhere}"
            );
        }
    }

    #[test]
    fn no_two_routes_answer_the_same() {
        for (i, a) in ROUTES.iter().enumerate() {
            for b in &ROUTES[..i] {
                assert!(a.id != b.id && (a.method != b.method || a.path != b.path), "{} {}", a.id, b.id);
            }
        }
    }
}
