//! `/live/...`: playlists, media and pictures of the sessions on air, from the packager's shared bytes.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};

use super::access::{self, Admitted, Visitor};
use super::directives;
use super::pictures;
use super::respond::{self, Body, Problem, Wanted};
use super::tally::{Counted, Route, Tally};
use crate::media::modes::LatencyMode;
use crate::media::playback::SharedKeyring;
use crate::package::origin::{ChannelOutput, Origin, SessionOutput};
use crate::package::window::{Answer, Directives, Media, Playlist, Refusal, RenditionOutput};
use crate::telemetry::Gauge;
use crate::time::{Mono, SystemClock};

/// What a path under `/live/` names. `session` and `file` are as they were written: nobody looked for them yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    Multivariant {
        channel: &'a str,
    },
    Playlist {
        channel: &'a str,
        rendition: &'a str,
    },
    Iframes {
        channel: &'a str,
        rendition: &'a str,
    },
    Steering {
        channel: &'a str,
    },
    Poster {
        channel: &'a str,
    },
    /// Without a session: that of the session on air.
    Storyboard {
        channel: &'a str,
        session: Option<&'a str>,
    },
    Sheet {
        channel: &'a str,
        session: &'a str,
        file: &'a str,
    },
    Media {
        channel: &'a str,
        session: &'a str,
        rendition: &'a str,
        item: Item,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    /// By number.
    Init(u32),
    /// By media sequence number; a part by its index too.
    Segment(u64),
    Part(u64, u32),
    /// A segment's first picture.
    Iframe(u64),
}

/// The request without its body, and where it may have to wait, without the 8 KiB that it was read into: there are
/// thousands who wait.
pub(super) fn light<B>(request: Request<B>) -> Request<()> {
    let file = request.uri().path().rsplit('/').next().unwrap_or_default();
    let waits = request.uri().query().is_some_and(|query| query.contains("_HLS_msn"))
        || file.starts_with('p') && file.ends_with(".m4s");
    let copy = waits.then(|| request.uri().path_and_query().and_then(|whole| whole.as_str().parse::<Uri>().ok()));
    let Some(uri) = copy.flatten() else { return request.map(drop) };
    let mut light = Request::new(());
    *light.method_mut() = request.method().clone();
    *light.uri_mut() = uri;
    for name in [header::ACCEPT_ENCODING, header::IF_NONE_MATCH, header::RANGE, header::IF_RANGE] {
        for value in request.headers().get_all(&name) {
            // The bytes of a value are one.
            if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
                light.headers_mut().append(&name, value);
            }
        }
    }
    light
}

/// Answers a request for `rest` (the path after `/live/`).
pub(super) async fn answer<B>(
    origin: &Origin,
    keyring: Option<&SharedKeyring>,
    tally: &Tally,
    rest: &str,
    visitor: Visitor<'_>,
    request: &Request<B>,
) -> (Route, Response<Body>) {
    let since = SystemClock::mono();
    let Some(target) = Target::parse(rest) else {
        let detail = "Under /live/ there are <channel>/index.m3u8, <channel>/<rendition>.m3u8, <channel>/poster.jpg, \
                      <channel>/storyboard.vtt, <channel>/pass, <channel>/<rendition>/pass and, in these, the addresses of \
                      media and sheets.";
        return (Route::Unknown, refuse(Problem::not_found("route_unknown", detail)));
    };
    if request.method() == Method::OPTIONS {
        let mut response = respond::preflight();
        respond::allow_any_origin(response.headers_mut());
        return (Route::Preflight, response);
    }
    let head = request.method() == Method::HEAD;
    if !head && request.method() != Method::GET {
        return (target.route(), refuse(Problem::method_not_allowed("GET, HEAD, OPTIONS")));
    }
    let enter = |channel: &ChannelOutput| access::admit(channel.access(), keyring, visitor, SystemClock::wall());
    let mut response = match find(origin, enter, tally, since, &target, request).await {
        Ok(response) => response,
        Err(problem) => problem.into_response(),
    };
    respond::allow_any_origin(response.headers_mut());
    (target.route(), if head { respond::without_body(response) } else { response })
}

/// Of what a cache asks whether a visitor may have it: a channel, or one rendition of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Question<'a> {
    channel: &'a str,
    rendition: Option<&'a str>,
}

impl<'a> Question<'a> {
    /// `<channel>` or `<channel>/<rendition>`.
    pub(super) fn parse(asked: &'a str) -> Option<Question<'a>> {
        match asked.split_once('/') {
            None => Some(Question { channel: asked, rendition: None }),
            Some((channel, rendition)) if !rendition.is_empty() && !rendition.contains('/') => {
                Some(Question { channel, rendition: Some(rendition) })
            }
            Some(_) => None,
        }
    }
}

/// What a cache in front asks before it gives a viewer what it holds: whether the visitor is let in.
pub(super) fn pass(
    origin: &Origin,
    keyring: Option<&SharedKeyring>,
    asked: Question<'_>,
    visitor: Visitor<'_>,
) -> Response<Body> {
    let now = SystemClock::wall();
    let admitted = known(origin, asked.channel).and_then(|channel| {
        let admitted = access::admit(channel.access(), keyring, visitor, now)?;
        if let Some(rendition) = asked.rendition {
            admitted.expect_rendition(channel.session().as_deref(), rendition)?;
        }
        Ok(admitted)
    });
    let admitted = match admitted {
        Ok(admitted) => admitted,
        Err(problem) => return refuse(problem),
    };
    let lasts = admitted.lasts(now).map_or(PASS_AGE_MAX, |left| left.min(PASS_AGE_MAX));
    let mut response = Response::new(Body::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    insert_ascii(&mut response, header::CACHE_CONTROL, &format!("public, max-age={lasts}"));
    response
}

/// A cache that asked believes in a deleted key for this long, seconds.
const PASS_AGE_MAX: u64 = 30;

fn known(origin: &Origin, channel: &str) -> Result<Arc<ChannelOutput>, Problem> {
    origin
        .channel(channel)
        .ok_or_else(|| Problem::not_found("channel_unknown", "No channel has this name. The channels are listed at /."))
}

async fn find<'v, B>(
    origin: &Origin,
    enter: impl Fn(&ChannelOutput) -> Result<Admitted<'v>, Problem>,
    tally: &Tally,
    since: Mono,
    target: &Target<'_>,
    request: &Request<B>,
) -> Result<Response<Body>, Problem> {
    let channel = known(origin, target.channel())?;
    let admitted = enter(&channel)?;
    if let Target::Steering { .. } = target {
        let steering = channel.steering().ok_or_else(not_steered)?;
        return Ok(playlist_response(request, &steering.manifest, STEERING_TYPE, STEERING_AGE));
    }
    let session = channel.session().ok_or_else(|| {
        if channel.is_expected() {
            return starting(&channel);
        }
        let detail = format!("Channel {} has no session now. It starts when a publisher connects.", channel.name);
        Problem::not_found("no_session", detail)
    })?;
    match *target {
        Target::Multivariant { .. } => {
            let (name, steering) = (channel.name.as_str(), channel.steering());
            let own =
                admitted.own_multivariant(&session, name, steering.as_deref()).map_err(|()| starting(&channel))?;
            if let Some(own) = own {
                return Ok(own_response(own));
            }
            let playlist = session.steered(steering.as_deref()).ok_or_else(|| starting(&channel))?;
            Ok(playlist_response(request, &playlist, PLAYLIST_TYPE, plain_age(session.mode)))
        }
        Target::Playlist { rendition, .. } => {
            let output = output(&session, rendition)?;
            admitted.expect_rendition(Some(&session), rendition)?;
            let wanted = directives::parse(request.uri().query())?;
            let playlist = settle(&*output, &tally.blocked, |now| output.playlist(since, now, &wanted)).await?;
            Ok(playlist_response(request, &playlist, PLAYLIST_TYPE, &list_age(&wanted, session.mode, &output)))
        }
        Target::Iframes { rendition, .. } => {
            let output = output(&session, rendition)?;
            admitted.expect_rendition(Some(&session), rendition)?;
            let wanted = directives::parse(request.uri().query())?;
            let playlist = settle(&*output, &tally.blocked, |now| output.iframes(since, now, &wanted)).await?;
            Ok(playlist_response(request, &playlist, PLAYLIST_TYPE, &list_age(&wanted, session.mode, &output)))
        }
        Target::Steering { .. } => Err(not_steered()),
        Target::Poster { .. } => pictures::poster(request, &session),
        Target::Storyboard { session: id, .. } => {
            id.map_or(Ok(()), |id| expect_on_air(&session, id))?;
            pictures::storyboard(request, &session, id.is_some())
        }
        Target::Sheet { session: id, file, .. } => {
            expect_on_air(&session, id)?;
            pictures::sheet(request, &session, file)
        }
        Target::Media { session: id, rendition, item, .. } => {
            expect_on_air(&session, id)?;
            let output = output(&session, rendition)?;
            admitted.expect_rendition(Some(&session), rendition)?;
            let media = item.get(tally, since, &output).await?;
            Ok(media_response(request, &media, rendition, item))
        }
    }
}

fn expect_on_air(session: &SessionOutput, id: &str) -> Result<(), Problem> {
    if session.id.as_str() == id {
        return Ok(());
    }
    let detail = "This address belongs to a session that is no longer on air; load the playlist again.";
    Err(Problem::not_found("session_over", detail))
}

fn output(session: &SessionOutput, rendition: &str) -> Result<Arc<RenditionOutput>, Problem> {
    session.rendition(rendition).ok_or_else(|| {
        let detail = "This session has no such rendition; index.m3u8 lists those it has.";
        Problem::not_found("rendition_unknown", detail)
    })
}

fn starting(channel: &ChannelOutput) -> Problem {
    let detail = format!("Channel {} has a publisher; its first pictures are being prepared.", channel.name);
    Problem::not_yet("session_starting", detail)
}

/// A media URI names one byte string for ever.
pub(super) const MEDIA_AGE: &str = "public, max-age=86400, immutable";

/// Blocking answers are one per version: caches may keep them six target durations [HLS B.1].
fn list_age(wanted: &Directives, mode: LatencyMode, output: &RenditionOutput) -> String {
    match wanted.msn {
        Some(_) if mode.params().parts => {
            format!("public, max-age={}", output.spec().targets.target_duration.saturating_mul(6))
        }
        _ => plain_age(mode).to_owned(),
    }
}

fn plain_age(mode: LatencyMode) -> &'static str {
    match mode.params().playlist_max_age {
        0 => "no-cache",
        1 => "public, max-age=1",
        _ => "public, max-age=2",
    }
}

const PLAYLIST_TYPE: &str = "application/vnd.apple.mpegurl";
const STEERING_TYPE: &str = "application/vnd.apple.steering-list";
/// One manifest serves all players; half the shortest TTL, so that a change reaches them in time.
const STEERING_AGE: &str = "public, max-age=5";

/// 410: a player that was steered before asks no more [HLS 7.5].
fn not_steered() -> Problem {
    let detail = "This channel's players are not steered; they stay on the pathway that they have.";
    Problem::new(StatusCode::GONE, "not_steered", "There is nothing here any more", detail)
}

/// A playlist that only one viewer may have.
fn own_response(text: String) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(PLAYLIST_TYPE));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    response
}

/// A text with its compressed form.
pub(super) fn playlist_response<B>(
    request: &Request<B>,
    playlist: &Playlist,
    kind: &'static str,
    age: &str,
) -> Response<Body> {
    let gzip = respond::accepts_gzip(request.headers());
    // A strong tag names one byte string, and the compressed form is another one.
    let etag = if gzip { tagged(&playlist.etag, "gzip") } else { playlist.etag.clone() };
    let fresh = respond::matches_etag(request.headers(), &etag);
    let body = if gzip { playlist.gzip.clone() } else { playlist.plain.clone() };
    let mut response = Response::new(if fresh { Body::default() } else { Body::from(body) });
    if fresh {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = response.headers_mut();
    if !fresh {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        if gzip {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_str(age).expect("words and digits are a header value"));
    headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        headers.insert(header::ETAG, etag);
    }
    response
}

fn tagged(etag: &str, form: &str) -> String {
    format!("{}-{form}\"", etag.strip_suffix('"').unwrap_or(etag))
}

fn media_response<B>(request: &Request<B>, media: &Media, rendition: &str, item: Item) -> Response<Body> {
    let etag = item.etag();
    let length = media.length() as u64;
    let mut response = Response::new(Body::default());
    if respond::matches_etag(request.headers(), &etag) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    } else {
        match respond::wanted_range(request.headers(), length, &etag) {
            Wanted::All => *response.body_mut() = Body::chunks(media.chunks.iter().cloned()),
            Wanted::Part(range) => {
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                let span = format!("bytes {}-{}/{length}", range.start, range.end - 1);
                insert_ascii(&mut response, header::CONTENT_RANGE, &span);
                *response.body_mut() = Body::chunks(respond::slice_chunks(&media.chunks, &range));
            }
            Wanted::Nothing => {
                let detail = format!("The range lies outside of the {length} bytes that there are.");
                let title = "The range cannot be satisfied";
                let problem = Problem::new(StatusCode::RANGE_NOT_SATISFIABLE, "range_outside", title, detail);
                let mut response = problem.into_response();
                insert_ascii(&mut response, header::CONTENT_RANGE, &format!("bytes */{length}"));
                return response;
            }
        }
        let kind = if is_audio(rendition) { "audio/mp4" } else { "video/mp4" };
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static(MEDIA_AGE));
    response.headers_mut().insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    insert_ascii(&mut response, header::ETAG, &etag);
    response
}

/// `value` is made of digits and ASCII letters here.
pub(super) fn insert_ascii(response: &mut Response<Body>, name: http::HeaderName, value: &str) {
    let value = HeaderValue::from_str(value).expect("digits and letters are a header value");
    response.headers_mut().insert(name, value);
}

/// Audio renditions are named `a-<language>-<n>`.
fn is_audio(rendition: &str) -> bool {
    rendition.starts_with("a-")
}

fn refuse(problem: Problem) -> Response<Body> {
    let mut response = problem.into_response();
    respond::allow_any_origin(response.headers_mut());
    response
}

impl<'a> Target<'a> {
    /// What `rest`, a path behind `/live/`, names. Each thing has one address.
    pub fn parse(rest: &'a str) -> Option<Target<'a>> {
        let mut steps = rest.split('/');
        let (channel, second) = (steps.next()?, steps.next()?);
        let (third, file) = (steps.next(), steps.next());
        if channel.is_empty() || steps.next().is_some() {
            return None;
        }
        match (third, file) {
            (None, None) if second == "steering.json" => Some(Target::Steering { channel }),
            (None, None) if second == "poster.jpg" => Some(Target::Poster { channel }),
            (None, None) if second == "storyboard.vtt" => Some(Target::Storyboard { channel, session: None }),
            (None, None) => {
                let rendition = second.strip_suffix(".m3u8").filter(|name| !name.is_empty() && *name != ".iframes")?;
                // No rendition's name holds a dot.
                Some(match rendition.strip_suffix(".iframes") {
                    Some(rendition) => Target::Iframes { channel, rendition },
                    None if rendition == "index" => Target::Multivariant { channel },
                    None => Target::Playlist { channel, rendition },
                })
            }
            (Some("storyboard.vtt"), None) => Some(Target::Storyboard { channel, session: Some(second) }),
            (Some(file), None) if pictures::is_sheet(file) => Some(Target::Sheet { channel, session: second, file }),
            (Some(rendition), Some(file)) => {
                Some(Target::Media { channel, session: second, rendition, item: Item::parse(file)? })
            }
            _ => None,
        }
    }

    fn channel(&self) -> &'a str {
        match *self {
            Target::Multivariant { channel }
            | Target::Playlist { channel, .. }
            | Target::Iframes { channel, .. }
            | Target::Steering { channel }
            | Target::Poster { channel }
            | Target::Storyboard { channel, .. }
            | Target::Sheet { channel, .. }
            | Target::Media { channel, .. } => channel,
        }
    }

    fn route(&self) -> Route {
        match self {
            Target::Multivariant { .. } => Route::Multivariant,
            Target::Playlist { .. } | Target::Iframes { .. } | Target::Steering { .. } => Route::Playlist,
            Target::Poster { .. } | Target::Sheet { .. } => Route::Picture,
            Target::Storyboard { .. } => Route::Storyboard,
            Target::Media { item: Item::Init(_), .. } => Route::Init,
            Target::Media { item: Item::Segment(_) | Item::Iframe(_), .. } => Route::Segment,
            Target::Media { item: Item::Part(..), .. } => Route::Part,
        }
    }
}

impl Item {
    fn parse(file: &str) -> Option<Item> {
        if let Some(map) = file.strip_prefix("init-").and_then(|f| f.strip_suffix(".mp4")) {
            return canonical(map).map(Item::Init);
        }
        let stem = file.strip_suffix(".m4s")?;
        if let Some(msn) = stem.strip_prefix('s') {
            return canonical(msn).map(Item::Segment);
        }
        if let Some(msn) = stem.strip_prefix('i') {
            return canonical(msn).map(Item::Iframe);
        }
        let (msn, part) = stem.strip_prefix('p')?.split_once('.')?;
        Some(Item::Part(canonical(msn)?, canonical(part)?))
    }

    /// Strong: the URI never names another byte string.
    fn etag(self) -> String {
        match self {
            Item::Init(map) => format!("\"i{map}\""),
            Item::Segment(msn) => format!("\"s{msn}\""),
            Item::Part(msn, part) => format!("\"p{msn}.{part}\""),
            Item::Iframe(msn) => format!("\"f{msn}\""),
        }
    }

    async fn get(self, tally: &Tally, since: Mono, output: &RenditionOutput) -> Result<Media, Refusal> {
        match self {
            Item::Init(map) => match output.init(map) {
                Some(init) => Ok(Media { chunks: vec![init] }),
                None => Err(Refusal::NotFound("This session has no such initialization section.".into())),
            },
            Item::Segment(msn) => settle(output, &tally.blocked, |now| output.segment(since, now, msn)).await,
            Item::Iframe(msn) => settle(output, &tally.blocked, |_| output.iframe(msn)).await,
            Item::Part(msn, part) => settle(output, &tally.blocked, |now| output.part(since, now, msn, part)).await,
        }
    }
}

/// A decimal number in its one form: another spelling would be a second URI for the same bytes.
pub(super) fn canonical<T: std::str::FromStr>(text: &str) -> Option<T> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain && !text.is_empty())
}

/// What can be waited for; the packager's outputs.
trait Changes {
    fn wait(&self, waker: &Waker) -> u64;
    fn cancel(&self, key: u64);
}

impl Changes for RenditionOutput {
    fn wait(&self, waker: &Waker) -> u64 {
        RenditionOutput::wait(self, waker)
    }

    fn cancel(&self, key: u64) {
        RenditionOutput::cancel(self, key);
    }
}

/// A place in the queue of those to wake; given back when dropped.
struct Queued<'a, C: Changes> {
    changes: &'a C,
    key: Option<u64>,
}

impl<C: Changes> Queued<'_, C> {
    fn join(&mut self, waker: &Waker) {
        self.leave();
        self.key = Some(self.changes.wait(waker));
    }

    fn leave(&mut self) {
        if let Some(key) = self.key.take() {
            self.changes.cancel(key);
        }
    }
}

impl<C: Changes> Drop for Queued<'_, C> {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Asks until there is an answer: at each change, and at the instant that the answer names at the latest.
async fn settle<T, C: Changes>(
    changes: &C,
    blocked: &Gauge,
    mut ask: impl FnMut(Mono) -> Answer<T>,
) -> Result<T, Refusal> {
    match ask(SystemClock::mono()) {
        Answer::Now(value) => return Ok(value),
        Answer::Refuse(refusal) => return Err(refusal),
        Answer::Until(_) => {}
    }
    let _waiting = Counted::new(blocked);
    let mut queued = Queued { changes, key: None };
    let (mut alarm, mut set_to) = (pin!(None), None);
    poll_fn(|cx| {
        // In the queue first, then asked: no change can fall between the two.
        queued.join(cx.waker());
        poll_once(cx, alarm.as_mut(), &mut set_to, &mut ask)
    })
    .await
}

fn poll_once<T>(
    cx: &mut Context<'_>,
    mut alarm: Pin<&mut Option<tokio::time::Sleep>>,
    set_to: &mut Option<Mono>,
    ask: &mut impl FnMut(Mono) -> Answer<T>,
) -> Poll<Result<T, Refusal>> {
    loop {
        let now = SystemClock::mono();
        let deadline = match ask(now) {
            Answer::Now(value) => return Poll::Ready(Ok(value)),
            Answer::Refuse(refusal) => return Poll::Ready(Err(refusal)),
            Answer::Until(deadline) => deadline,
        };
        if deadline <= now {
            return Poll::Ready(Err(Refusal::NotYet("It did not come in time.".into())));
        }
        // Who is woken by a change that is not theirs keeps the alarm that it has.
        if *set_to != Some(deadline) {
            alarm.set(Some(tokio::time::sleep(deadline - now)));
            *set_to = Some(deadline);
        }
        let sleep = alarm.as_mut().as_pin_mut().expect("it is set once there is an instant");
        if std::future::Future::poll(sleep, cx).is_pending() {
            return Poll::Pending;
        }
        *set_to = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    #[test]
    fn paths_have_one_spelling() {
        assert_eq!(Target::parse("news/index.m3u8"), Some(Target::Multivariant { channel: "news" }));
        assert_eq!(Target::parse("news/720p.m3u8"), Some(Target::Playlist { channel: "news", rendition: "720p" }));
        let iframes = Target::Iframes { channel: "news", rendition: "720p" };
        assert_eq!(Target::parse("news/720p.iframes.m3u8"), Some(iframes));
        for (file, item) in [
            ("init-0.mp4", Item::Init(0)),
            ("s12.m4s", Item::Segment(12)),
            ("i12.m4s", Item::Iframe(12)),
            ("p12.0.m4s", Item::Part(12, 0)),
            ("p1795219199.11.m4s", Item::Part(1_795_219_199, 11)),
        ] {
            let path = format!("news/se_1/720p/{file}");
            let want = Target::Media { channel: "news", session: "se_1", rendition: "720p", item };
            assert_eq!(Target::parse(&path), Some(want), "{file}");
        }
        assert_eq!(Target::parse("news/steering.json"), Some(Target::Steering { channel: "news" }));
        assert_eq!(Target::parse("news/poster.jpg"), Some(Target::Poster { channel: "news" }));
        let storyboard = |session| Some(Target::Storyboard { channel: "news", session });
        assert_eq!(Target::parse("news/storyboard.vtt"), storyboard(None));
        assert_eq!(Target::parse("news/se_1/storyboard.vtt"), storyboard(Some("se_1")));
        let file = "storyboard-12-0123456789abcdef.jpg";
        let sheet = Target::Sheet { channel: "news", session: "se_1", file };
        assert_eq!(Target::parse(&format!("news/se_1/{file}")), Some(sheet));
        for bad in [
            "",
            "news/poster.png",
            "news/storyboard-12-0123456789abcdef.jpg",
            "news/se_1/poster.jpg",
            "news/se_1/storyboard-012-0123456789abcdef.jpg",
            "news/se_1/storyboard-12-0123456789abcde.jpg",
            "news/se_1/storyboard-12-0123456789ABCDEF.jpg",
            "news/se_1/storyboard-12.jpg",
            "news/se_1/storyboard.vtt/",
            "/",
            "news",
            "news/",
            "news/index",
            "news/.m3u8",
            "/index.m3u8",
            "news/se_1/720p",
            "news/se_1/720p/",
            "news/se_1/720p/s12.m4s/x",
            "news/se_1/720p/s012.m4s",
            "news/se_1/720p/s+1.m4s",
            "news/se_1/720p/s.m4s",
            "news/se_1/720p/p1.m4s",
            "news/se_1/720p/p1.02.m4s",
            "news/se_1/720p/p1.2.3.m4s",
            "news/se_1/720p/init-.mp4",
            "news/se_1/720p/init-00.mp4",
            "news/se_1/720p/s99999999999999999999.m4s",
            "news/se_1/720p/s1.mp4",
            "../news/index.m3u8",
        ] {
            assert_eq!(Target::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn no_path_and_no_query_makes_the_parser_panic() {
        proptest::proptest!(|(path in "[ -~]{0,80}")| { Target::parse(&path); });
    }

    #[derive(Default)]
    struct Fake {
        version: AtomicU64,
        wakers: Mutex<std::collections::BTreeMap<u64, Waker>>,
        keys: AtomicU64,
    }

    impl Fake {
        fn publish(&self) {
            self.version.fetch_add(1, Ordering::SeqCst);
            for (_, waker) in std::mem::take(&mut *self.wakers.lock().unwrap()) {
                waker.wake();
            }
        }

        fn ask(&self, version: u64, deadline: Mono) -> Answer<u64> {
            match self.version.load(Ordering::SeqCst) {
                now if now >= version => Answer::Now(now),
                _ => Answer::Until(deadline),
            }
        }
    }

    impl Changes for Fake {
        fn wait(&self, waker: &Waker) -> u64 {
            let key = self.keys.fetch_add(1, Ordering::SeqCst);
            self.wakers.lock().unwrap().insert(key, waker.clone());
            key
        }

        fn cancel(&self, key: u64) {
            self.wakers.lock().unwrap().remove(&key);
        }
    }

    fn soon(ms: u64) -> Mono {
        SystemClock::mono() + Duration::from_millis(ms)
    }

    #[tokio::test]
    async fn a_thousand_waiters_are_answered_by_the_change_they_wait_for() {
        let (fake, gauge) = (Arc::new(Fake::default()), Gauge::default());
        let waiters: Vec<_> = (0..1_000)
            .map(|n| {
                let (fake, gauge) = (fake.clone(), gauge.clone());
                let deadline = soon(20_000);
                tokio::spawn(async move { settle(&*fake, &gauge, |_| fake.ask(1 + n % 3, deadline)).await })
            })
            .collect();
        while gauge.value() < 1_000.0 {
            tokio::task::yield_now().await;
        }
        for left in [666.0, 333.0, 0.0] {
            fake.publish();
            while gauge.value() > left {
                tokio::task::yield_now().await;
            }
            assert_eq!(gauge.value(), left, "only those whose version came are answered");
        }
        for waiter in waiters {
            assert!(waiter.await.unwrap().is_ok());
        }
        assert!(fake.wakers.lock().unwrap().is_empty(), "nobody is left in the queue");
    }

    #[tokio::test]
    async fn a_wait_ends_at_its_deadline_with_a_refusal() {
        let (fake, gauge) = (Fake::default(), Gauge::default());
        let deadline = soon(30);
        let answer = settle(&fake, &gauge, |_| fake.ask(1, deadline)).await;
        assert!(matches!(answer, Err(Refusal::NotYet(_))), "{answer:?}");
        assert!(SystemClock::mono() >= deadline);
        assert_eq!(gauge.value(), 0.0);
    }

    #[tokio::test]
    async fn a_waiter_that_goes_away_leaves_the_queue() {
        let (fake, gauge) = (Fake::default(), Gauge::default());
        let deadline = soon(20_000);
        {
            let mut wait = pin!(settle(&fake, &gauge, |_| fake.ask(1, deadline)));
            assert!(futures_util::poll!(wait.as_mut()).is_pending());
            assert_eq!(fake.wakers.lock().unwrap().len(), 1);
            assert!(futures_util::poll!(wait.as_mut()).is_pending());
            assert_eq!(fake.wakers.lock().unwrap().len(), 1, "one place in the queue per waiter");
        }
        assert!(fake.wakers.lock().unwrap().is_empty());
        assert_eq!(gauge.value(), 0.0);
    }

    #[test]
    fn a_request_that_may_wait_holds_no_more_than_its_answer_needs() {
        let asked = |path: &'static str| {
            let buffer = Bytes::from([path.as_bytes(), b"gzip\"tag\"agent"].concat());
            let mut request = Request::new(());
            *request.uri_mut() = Uri::from_maybe_shared(buffer.slice(..path.len())).unwrap();
            let (mut at, mut put) = (path.len(), Vec::new());
            for (name, length) in [(header::ACCEPT_ENCODING, 4), (header::IF_NONE_MATCH, 5), (header::USER_AGENT, 5)] {
                put.push((name, HeaderValue::from_maybe_shared(buffer.slice(at..at + length)).unwrap()));
                at += length;
            }
            request.headers_mut().extend(put);
            (light(request), buffer)
        };
        for path in ["/live/news/720p.m3u8?_HLS_msn=1&x=y", "/t/pass/live/news/se_1/720p/p12.0.m4s"] {
            let (request, buffer) = asked(path);
            assert!(buffer.is_unique(), "{path}: nothing of what was read is kept");
            assert_eq!(request.uri(), path);
            assert!(respond::accepts_gzip(request.headers()) && respond::matches_etag(request.headers(), "\"tag\""));
        }
        let (request, buffer) = asked("/live/news/720p.m3u8?x=y");
        assert!(request.headers().contains_key(header::USER_AGENT) && !buffer.is_unique(), "copied for nothing");
    }

    #[test]
    fn segments_of_shared_chunks_are_sent_without_copying() {
        let chunk = Bytes::from(vec![7u8; 1000]);
        let media = Media { chunks: vec![chunk.clone(), chunk.clone()] };
        let request = Request::builder().body(()).unwrap();
        let mut response = media_response(&request, &media, "720p", Item::Segment(1));
        let frame = futures_util::FutureExt::now_or_never(http_body_util::BodyExt::frame(response.body_mut()));
        let data = frame.unwrap().unwrap().unwrap().into_data().unwrap();
        assert_eq!(data.as_ptr(), chunk.as_ptr());
    }
}
