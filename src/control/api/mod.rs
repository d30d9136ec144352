//! Purpose: operators and their programs see and change channels over HTTP: REST under `/v1`, described by OpenAPI.
//! Time: UTC in records and answers; `Mono` for rates. Waiting is bounded by the caller's `Prefer` and by 30 s.
//! Invariants: an answer of success comes after the commit; a change, its audit row and its answer for a repeated key are
//! one transaction; no answer but the first, or an equal repeated request's, shows a secret, and none is kept in the store but
//! those that signatures are checked with;
//! a token never learns of channels that it does not reach.
//! Spec: RFC 9110, RFC 9457 (problems), RFC 6750 (bearer tokens), RFC 7396 (merge patch), RFC 7240 (Prefer), HTML
//! (server-sent events), OpenAPI 3.1.
//! When it fails: a problem with a code for programs and a sentence with the fix for people; nothing has changed.

mod access;
mod answer;
mod audit;
mod call;
mod change;
mod channels;
mod events;
mod gpus;
mod logo;
mod openapi;
mod page;
mod passphrase;
mod playback;
mod problem;
mod routes;
mod sessions;
mod stream;
mod system;
mod templates;
mod tokens;
mod views;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::{Stream, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use warp::filters::BoxedFilter;
use warp::reply::Response;
use warp::{Filter, Reply};

use super::auth::Limit;
use super::ledger::Ledger;
use super::state::{Db, Error, Need, State, Table};
use crate::media::channel::{ChannelName, SessionId};
use crate::media::playback::SharedKeyring;
use crate::pipeline::devices::Devices;
use crate::pipeline::gpus::Gpus;
use crate::pipeline::ports::PullStatus;
use crate::pipeline::snapshots;
use crate::serve::Peer;
use crate::sys::random;
use crate::time::{Mono, SystemClock};

pub use access::ADMIN_FILE;
pub use openapi::document;
pub use problem::{Code, Problem};
pub use routes::{ROUTES, Route};

use access::Access;
use change::{Refusals, Running};
use routes::{BodyFuture, Incoming};

/// What a caller who prefers to wait waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Awaited {
    /// The channel takes publishers.
    Started(ChannelName),
    /// The channel refuses publishers and has none.
    Stopped(ChannelName),
    /// The session's playlists are closed.
    Ended(ChannelName, SessionId),
}

/// Whether the data plane has followed what was committed. Asked a few times a second: it must not block.
pub type Settled = Arc<dyn Fn(&Awaited) -> bool + Send + Sync>;

/// Asks for a picture of a channel. False: too much is asked of the data plane already, and there will be no answer.
pub type TakeSnapshot = Arc<dyn Fn(&ChannelName, snapshots::Reply) -> bool + Send + Sync>;

/// How far the source of a channel is that the box calls; `None`: it calls none.
pub type LookAtPull = Arc<dyn Fn(&ChannelName) -> Option<PullStatus> + Send + Sync>;

/// What the API asks of the data plane.
#[derive(Clone)]
pub struct Media {
    pub pull: LookAtPull,
    pub settled: Settled,
    pub snapshot: TakeSnapshot,
}

/// Where publishers come by QUIC.
#[derive(Clone, Debug)]
pub struct QuicInput {
    pub port: u16,
    /// SHA-256 of the certificate; `None`: an authority vouches for it.
    pub pin: Option<String>,
}

/// How the API behaves, and what it must know of the box.
#[derive(Clone, Debug)]
pub struct Options {
    /// UDP port that publishers come to.
    pub srt_port: u16,
    /// Publishers must give a passphrase.
    pub srt_passphrase: bool,
    /// The QUIC port that publishers come to.
    pub quic: Option<QuicInput>,
    /// PUT, PATCH and DELETE without `If-Match` are refused.
    pub strict: bool,
    /// Requests of one token.
    pub requests: Limit,
    /// Requests without a valid token, by address.
    pub failures: Limit,
    /// Event streams at a time.
    pub streams_max: usize,
    /// An event stream without events says that it is alive this often.
    pub heartbeat: Duration,
    /// A body is waited for this long.
    pub body_patience: Duration,
    /// Bytes that large bodies may take together while they come and are answered.
    pub bodies_bytes_max: usize,
    /// What is known of the box's GPUs.
    pub gpus: Gpus,
    /// Where channels are placed.
    pub devices: Arc<Devices>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            srt_port: 9000,
            srt_passphrase: false,
            quic: None,
            strict: false,
            requests: Limit { burst: 200.0, per_second: 100.0 },
            failures: Limit { burst: 20.0, per_second: 0.2 },
            streams_max: 2_000,
            heartbeat: Duration::from_secs(15),
            body_patience: Duration::from_secs(30),
            bodies_bytes_max: 32 << 20,
            gpus: Gpus::default(),
            devices: Arc::default(),
        }
    }
}

/// Largest body of a request, bytes.
const BODY_BYTES_MAX: usize = 1 << 20;
/// This much of a body needs no room among the large ones: who fills that keeps no ordinary request out. What a token may
/// ask in `body_patience` bounds these.
const BODY_BYTES_FREE: usize = 16 << 10;
const KEYS: Table<String, [u8; 32]> = Table::json(Db::Meta, 1);
const CURSOR_KEY: &str = "api cursor key";

/// The API of one box.
pub struct Api {
    ledger: Arc<Ledger>,
    options: Options,
    media: Media,
    access: Access,
    refusals: Refusals,
    running: Running,
    /// What makes cursors this box's own.
    cursor_key: [u8; 32],
    keyring: SharedKeyring,
    since: Mono,
    streams: AtomicUsize,
    tail: stream::Tail,
    /// Room for large bodies, bytes.
    bodies: Arc<Semaphore>,
    closing: watch::Sender<bool>,
}

impl Api {
    /// Blocks: at the first start the admin token is made and written to `<state>/admin.token`.
    ///
    /// # Errors
    /// A sentence: the state folder cannot be written.
    pub fn open(ledger: Arc<Ledger>, options: Options, media: Media) -> Result<Arc<Api>, String> {
        access::ensure_admin(ledger.state())?;
        let fresh = random::secret();
        let key = ledger.state().control.write(Need::Ordinary, move |txn| {
            let name = CURSOR_KEY.to_owned();
            if let Some(key) = txn.get(&KEYS, &name)? {
                return Ok(key);
            }
            txn.put(&KEYS, &name, &fresh)?;
            Ok::<_, Error>(fresh)
        });
        let cursor_key = key.wait().map_err(|e| e.to_string())?;
        let keyring = playback::open(ledger.state()).map_err(|e| e.to_string())?;
        let bodies = Arc::new(Semaphore::new(options.bodies_bytes_max));
        Ok(Arc::new(Api {
            access: Access::new(&options),
            refusals: Refusals::new(),
            running: Running::default(),
            ledger,
            options,
            media,
            cursor_key,
            keyring,
            since: SystemClock::mono(),
            streams: AtomicUsize::new(0),
            tail: stream::Tail::default(),
            bodies,
            closing: watch::Sender::new(false),
        }))
    }

    /// What signatures of viewers are checked by.
    pub fn keyring(&self) -> SharedKeyring {
        self.keyring.clone()
    }

    /// Everything under `/v1`.
    pub fn filter(self: &Arc<Api>) -> BoxedFilter<(Response,)> {
        let api = Arc::clone(self);
        let query = warp::query::raw().or(warp::any().map(String::new)).unify();
        warp::path("v1")
            .and(warp::method())
            .and(warp::path::full())
            .and(query)
            .and(warp::header::headers_cloned())
            .and(warp::ext::optional::<Peer>())
            .and(warp::body::stream())
            .then(move |method, path: warp::path::FullPath, query, headers, peer: Option<Peer>, body| {
                let body: BodyFuture = Box::pin(whole(Arc::clone(&api), body));
                let peer = peer.map_or(SocketAddr::from(([0, 0, 0, 0], 0)), |Peer(address)| address);
                let path = path.as_str().to_owned();
                routes::answer(Arc::clone(&api), Incoming { method, path, query, headers, peer, body })
            })
            .boxed()
    }

    /// The API, and `pages` for all other paths.
    pub fn beside<R: Reply + Send + 'static>(self: &Arc<Api>, pages: BoxedFilter<(R,)>) -> BoxedFilter<(Response,)> {
        self.filter().or(pages.map(Reply::into_response)).unify().boxed()
    }

    /// Ends the event streams, so that a server that stops need not wait for them.
    pub fn close(&self) {
        self.closing.send_replace(true);
    }

    fn state(&self) -> &State {
        self.ledger.state()
    }
}

/// A body and the room that it takes.
struct Whole {
    bytes: Bytes,
    room: Option<OwnedSemaphorePermit>,
}

/// The body, if it is not too large and comes in time.
async fn whole<B: Buf>(api: Arc<Api>, body: impl Stream<Item = Result<B, warp::Error>>) -> Result<Whole, Problem> {
    let read = async {
        let mut body = std::pin::pin!(body);
        let (mut bytes, mut room) = (Vec::new(), None);
        while let Some(piece) = body.next().await {
            let mut piece = piece.map_err(|e| Problem::new(Code::BodyMalformed, format!("the body broke off: {e}")))?;
            let length = bytes.len() + piece.remaining();
            if length > BODY_BYTES_MAX {
                let what = format!("a body has {BODY_BYTES_MAX} bytes at most");
                return Err(Problem::new(Code::BodyTooLarge, what));
            }
            make_room(&api.bodies, &mut room, length.saturating_sub(bytes.len().max(BODY_BYTES_FREE)))?;
            while piece.has_remaining() {
                let chunk = piece.chunk();
                bytes.extend_from_slice(chunk);
                let length = chunk.len();
                piece.advance(length);
            }
        }
        Ok(Whole { bytes: Bytes::from(bytes), room })
    };
    let patience = api.options.body_patience;
    match tokio::time::timeout(patience, read).await {
        Ok(read) => read,
        Err(_) => {
            let what = format!("the body did not come within {} s", patience.as_secs_f64());
            Err(Problem::new(Code::BodySlow, what))
        }
    }
}

/// Adds `more` bytes to the room that a body has.
fn make_room(bodies: &Arc<Semaphore>, room: &mut Option<OwnedSemaphorePermit>, more: usize) -> Result<(), Problem> {
    if more == 0 {
        return Ok(());
    }
    let taken = u32::try_from(more).ok().and_then(|more| Arc::clone(bodies).try_acquire_many_owned(more).ok());
    let Some(taken) = taken else {
        let what = "many large bodies are under way: send it again in a moment";
        return Err(Problem::new(Code::Overloaded, what).retry(Duration::from_secs(1)));
    };
    match room {
        Some(room) => room.merge(taken),
        None => *room = Some(taken),
    }
    Ok(())
}
