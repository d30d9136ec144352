//! The accept loop: HTTP/1.1 and HTTP/2 (prior knowledge) on one port, bounded in number and in patience.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{Response, StatusCode};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use warp::Filter;
use warp::filters::BoxedFilter;

use super::connection::{Connection, Order, Patience, Watched};
use super::respond::{Body, Problem};
use super::tally::{Counted, Route, Tally};
use super::{Routes, Site, answer};
use crate::media::limits;
use crate::telemetry::{Label, Level, Metric, Place, count, log};
use crate::time::SystemClock;

/// A port that cannot be listened on, in a sentence.
#[derive(Debug)]
pub struct BindError {
    pub address: SocketAddr,
    source: io::Error,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (port, ip) = (self.address.port(), self.address.ip());
        match self.source.kind() {
            io::ErrorKind::AddrInUse => write!(
                f,
                "{port}/tcp is in use by another process: stop that one (`ss -ltnp 'sport = :{port}'` names it), or choose another port"
            ),
            io::ErrorKind::PermissionDenied => write!(
                f,
                "{port}/tcp may not be opened by this user: ports below 1024 need CAP_NET_BIND_SERVICE or a socket unit"
            ),
            io::ErrorKind::AddrNotAvailable => {
                write!(f, "{ip} is no address of this machine: `ip address` lists those that it has")
            }
            _ => write!(f, "cannot listen on {}: {}", self.address, self.source),
        }
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Opens a listening socket; `[::]` takes IPv4 too.
///
/// # Errors
/// The port is taken, forbidden or not ours.
pub fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    let open = || -> io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        if address.is_ipv6() && address.ip().is_unspecified() {
            socket.set_only_v6(false)?;
        }
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    open().map_err(|source| BindError { address, source })
}

const BACKLOG: i32 = 4_096;
/// Request heads above this are answered 431.
const HEAD_BYTES_MAX: usize = 32 << 10;
const HEADERS_MAX: usize = 64;
/// HTTP/2 requests at once on one connection: two playlists and two parts of a player, and room.
const STREAMS_MAX: u32 = 32;
/// Bytes of one HTTP/2 stream that are taken from a body ahead of the socket.
const STREAM_BUFFER: usize = 256 << 10;
const REAP_EVERY: Duration = Duration::from_millis(500);
const OVERLOADED: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nRetry-After: 1\r\n\
    Cache-Control: no-store\r\nConnection: close\r\n\r\n";

/// Bounds of one listener.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub connections_max: usize,
    pub patience: Patience,
}

impl Default for Options {
    fn default() -> Self {
        Options { connections_max: limits::CONNECTIONS_MAX, patience: Patience::default() }
    }
}

/// A running listener. Dropping it stops accepting and drops its connections; `stop` lets them finish.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    closing: watch::Sender<bool>,
}

#[derive(Debug)]
struct Shared {
    site: Arc<Site>,
    tally: Arc<Tally>,
    options: Options,
    open: Mutex<Open>,
    emptied: Notify,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    connections: BTreeMap<u64, Arc<Connection>>,
}

impl Server {
    /// Serves `site` on a socket that is bound already (inherited ones too). Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The socket is of no use to the runtime.
    pub fn start(listener: TcpListener, site: Site, options: Options) -> io::Result<Server> {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let shared = Arc::new(Shared {
            site: Arc::new(site),
            tally: Arc::new(Tally::new()),
            options,
            open: Mutex::default(),
            emptied: Notify::new(),
        });
        let (closing, closed) = watch::channel(false);
        tokio::spawn(accept(listener, Arc::clone(&shared), closed.clone()));
        tokio::spawn(reap(Arc::clone(&shared), closed));
        Ok(Server { address, shared, closing })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Open connections now.
    pub fn connections(&self) -> usize {
        self.shared.open().connections.len()
    }

    /// Bytes of media that connections keep in memory now.
    pub fn held_bytes(&self) -> usize {
        self.shared.open().connections.values().map(|c| c.held_bytes()).sum()
    }

    /// Stops accepting, lets answers under way end, and drops what is left after `grace`.
    pub async fn stop(self, grace: Duration) {
        self.closing.send_replace(true);
        self.shared.order_all(Order::Finish);
        let all_gone = async {
            loop {
                let emptied = self.shared.emptied.notified();
                if self.connections() == 0 {
                    break;
                }
                emptied.await;
            }
        };
        if tokio::time::timeout(grace, all_gone).await.is_err() {
            self.shared.order_all(Order::Drop);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.closing.send_replace(true);
        self.shared.order_all(Order::Drop);
    }
}

impl Shared {
    fn open(&self) -> std::sync::MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn order_all(&self, order: Order) {
        for connection in self.open().connections.values() {
            connection.give(order);
        }
    }

    /// A place for one more connection, if there is one.
    fn admit(&self, peer: SocketAddr) -> Option<(u64, Arc<Connection>)> {
        let mut open = self.open();
        if open.connections.len() >= self.options.connections_max {
            return None;
        }
        let (key, connection) = (open.next, Arc::new(Connection::new(peer, SystemClock::mono())));
        open.next += 1;
        open.connections.insert(key, Arc::clone(&connection));
        Some((key, connection))
    }

    fn leave(&self, key: u64) {
        let mut open = self.open();
        open.connections.remove(&key);
        if open.connections.is_empty() {
            self.emptied.notify_waiters();
        }
    }
}

/// Warp filters as [`Routes`]: what they reject becomes a problem body.
pub fn routes<R: warp::Reply + Send + 'static>(filter: BoxedFilter<(R,)>) -> Routes {
    use hyper::service::Service;
    let service = hyper_util::service::TowerToHyperService::new(warp::service(filter.recover(explain_rejection)));
    Arc::new(move |request| {
        let answer = service.call(request);
        Box::pin(async move {
            match answer.await {
                Ok(response) => response.map(Body::boxed),
                Err(never) => match never {},
            }
        })
    })
}

async fn explain_rejection(rejection: warp::Rejection) -> Result<Response<String>, Infallible> {
    let problem = if rejection.find::<warp::reject::MethodNotAllowed>().is_some() {
        Problem::method_not_allowed("GET, HEAD")
    } else if rejection.is_not_found() {
        Problem::unknown_route()
    } else {
        Problem::bad_request("request_malformed", format!("This request cannot be read: {rejection:?}."))
    };
    Ok(problem.into_text())
}

async fn accept(listener: tokio::net::TcpListener, shared: Arc<Shared>, mut closed: watch::Receiver<bool>) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = closed.changed() => return,
        };
        match accepted {
            Ok((stream, peer)) => match shared.admit(peer) {
                Some((key, connection)) => {
                    tokio::spawn(converse(stream, Arc::clone(&shared), key, connection));
                }
                None => refuse_overload(&stream),
            },
            Err(error) => {
                log(Level::Warn, "http_accept_failed", &Place::default(), &error);
                // Out of descriptors: the backlog waits until some are back.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// One try: who does not take these bytes at once gets nothing.
fn refuse_overload(stream: &TcpStream) {
    count(Metric::HttpConnectionsClosed, &[Label::Reason("overload")], 1);
    if let Err(error) = stream.try_write(OVERLOADED) {
        log(Level::Debug, "http_overload", &Place::default(), error);
    }
}

async fn converse(stream: TcpStream, shared: Arc<Shared>, key: u64, connection: Arc<Connection>) {
    let _open = Counted::new(&shared.tally.connections);
    let _seat = Seat { shared: &shared, key };
    if let Err(error) = stream.set_nodelay(true) {
        log(Level::Debug, "http_nodelay", &Place::default(), error);
    }
    let watched = Watched::new(stream, Arc::clone(&connection), shared.tally.egress.clone());
    let service = service_fn(|request| {
        answer(Arc::clone(&shared.site), Arc::clone(&shared.tally), Arc::clone(&connection), request)
    });
    let builder = protocol();
    let mut conversation = std::pin::pin!(builder.serve_connection(TokioIo::new(watched), service));
    let result = loop {
        tokio::select! {
            result = conversation.as_mut() => break result,
            () = connection.ordered.notified() => match connection.order() {
                Order::Go => {}
                Order::Finish => conversation.as_mut().graceful_shutdown(),
                Order::Drop => return,
            },
        }
    };
    if let Err(error) = result
        && let Some(error) = error.downcast_ref::<hyper::Error>()
        && error.is_parse()
    {
        shared.tally.count(Route::Malformed, StatusCode::BAD_REQUEST);
    }
}

/// Gives the place back, whichever way the conversation ends.
struct Seat<'a> {
    shared: &'a Shared,
    key: u64,
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.shared.leave(self.key);
    }
}

fn protocol() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        // The reaper does it, without a timer per request.
        .header_read_timeout(None)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .keep_alive(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_send_buf_size(STREAM_BUFFER)
        .max_header_list_size(HEAD_BYTES_MAX as u32)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10));
    builder
}

/// Looks at every connection twice a second and ends those that have to go.
async fn reap(shared: Arc<Shared>, mut closed: watch::Receiver<bool>) {
    let mut every = tokio::time::interval(REAP_EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = every.tick() => {}
            // After a stop was asked for `Server::stop` has the word.
            _ = closed.changed() => return,
        }
        let now = SystemClock::mono();
        let open: Vec<Arc<Connection>> = shared.open().connections.values().cloned().collect();
        for connection in open {
            if let Some((order, reason)) = connection.verdict(now, &shared.options.patience) {
                count(Metric::HttpConnectionsClosed, &[Label::Reason(reason)], 1);
                connection.give(order);
            }
        }
    }
}
