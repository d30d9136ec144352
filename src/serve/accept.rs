//! The accept loops: HTTP/1.1 and HTTP/2 (prior knowledge, or by ALPN in TLS), bounded in number and in patience.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use http::{Response, StatusCode};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use warp::Filter;
use warp::filters::BoxedFilter;

use super::connection::{Order, Patience, Watched};
use super::respond::{Body, Problem};
use super::seats::{Full, Seat, Seats};
use super::tally::{Counted, Route, Tally};
use super::tls::Tls;
use super::{Routes, Site, answer};
use crate::media::limits;
use crate::media::networks::Networks;
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
/// What a client may send ahead of the application on one HTTP/2 stream, and on all of a connection together.
const STREAM_WINDOW: u32 = 64 << 10;
const CONNECTION_WINDOW: u32 = 256 << 10;
/// HTTP/2 streams that a client opened and reset before they were looked at: more at once end the connection.
const RESET_AT_ONCE_MAX: usize = 20;
const OVERLOADED: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nRetry-After: 1\r\n\
    Cache-Control: no-store\r\nConnection: close\r\n\r\n";
const TOO_MANY: &[u8] = b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\nRetry-After: 1\r\n\
    Cache-Control: no-store\r\nConnection: close\r\n\r\n";

/// Bounds of one server, all its listeners together.
#[derive(Clone, Debug)]
pub struct Options {
    pub connections_max: usize,
    /// From one IPv4 address, or one IPv6 network of 64 bits.
    pub connections_per_address: usize,
    /// Networks that may have as many as there are: proxies.
    pub trusted: Networks,
    /// TLS handshakes under way at once; one more ends the oldest.
    pub handshakes_max: usize,
    pub patience: Patience,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            connections_max: limits::CONNECTIONS_MAX,
            connections_per_address: limits::CONNECTIONS_PER_ADDRESS,
            trusted: Networks::loopback(),
            handshakes_max: limits::HANDSHAKES_MAX,
            patience: Patience::default(),
        }
    }
}

/// A running server. Dropping it stops accepting and drops its connections; `stop` lets them finish.
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
    patience: Patience,
    seats: Arc<Seats>,
}

impl Server {
    /// Serves `site` on a socket that is bound already (inherited ones too). Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The socket is of no use to the runtime.
    pub fn start(listener: TcpListener, site: Site, options: Options) -> io::Result<Server> {
        let (address, listener) = adopt(listener)?;
        let shared = Arc::new(Shared {
            site: Arc::new(site),
            tally: Arc::new(Tally::new()),
            patience: options.patience,
            seats: Arc::new(Seats::new(&options)),
        });
        let (closing, closed) = watch::channel(false);
        tokio::spawn(accept(listener, Arc::clone(&shared), closed.clone(), None));
        tokio::spawn(reap(Arc::clone(&shared), closed));
        Ok(Server { address, shared, closing })
    }

    /// Serves the same over TLS on another socket, within the same bounds, and looks after the certificates. Must be called
    /// within a tokio runtime. Gives the socket's address.
    ///
    /// # Errors
    /// The socket is of no use to the runtime.
    pub fn secure(&self, listener: TcpListener, tls: &Arc<Tls>) -> io::Result<SocketAddr> {
        let (address, listener) = adopt(listener)?;
        let closed = self.closing.subscribe();
        tokio::spawn(accept(listener, Arc::clone(&self.shared), closed.clone(), Some(Arc::clone(tls))));
        tokio::spawn(Arc::clone(tls).follow(closed));
        Ok(address)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Open connections now.
    pub fn connections(&self) -> usize {
        self.shared.seats.count()
    }

    /// Bytes of media that connections keep in memory now.
    pub fn held_bytes(&self) -> usize {
        self.shared.seats.all().iter().map(|c| c.held_bytes()).sum()
    }

    /// Stops accepting, lets answers under way end, and drops what is left after `grace`.
    pub async fn stop(self, grace: Duration) {
        self.closing.send_replace(true);
        self.shared.order_all(Order::Finish);
        let all_gone = async {
            loop {
                let emptied = self.shared.seats.emptied.notified();
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
    fn order_all(&self, order: Order) {
        for connection in self.seats.all() {
            connection.give(order);
        }
    }
}

fn adopt(listener: TcpListener) -> io::Result<(SocketAddr, tokio::net::TcpListener)> {
    listener.set_nonblocking(true)?;
    Ok((listener.local_addr()?, tokio::net::TcpListener::from_std(listener)?))
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

async fn accept(
    listener: tokio::net::TcpListener,
    shared: Arc<Shared>,
    mut closed: watch::Receiver<bool>,
    tls: Option<Arc<Tls>>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = closed.changed() => return,
        };
        match (accepted, &tls) {
            (Ok((stream, peer)), tls) => match (shared.seats.admit(peer, tls.is_some()), tls) {
                (Ok(seat), None) => drop(tokio::spawn(in_the_clear(stream, Arc::clone(&shared), seat))),
                (Ok(seat), Some(tls)) => {
                    drop(tokio::spawn(secured(stream, Arc::clone(&shared), seat, Arc::clone(tls))));
                }
                (Err(full), tls) => refuse(&stream, full, tls.is_some()),
            },
            (Err(error), _) => {
                log(Level::Warn, "http_accept_failed", &Place::default(), &error);
                // Out of descriptors: the backlog waits until some are back.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// One try: who does not take these bytes at once gets nothing, and who speaks TLS would not understand them.
fn refuse(stream: &TcpStream, full: Full, secure: bool) {
    count(Metric::HttpConnectionsClosed, &[Label::Reason(full.label())], 1);
    let answer = match full {
        Full::All => OVERLOADED,
        Full::Address => TOO_MANY,
    };
    if !secure && let Err(error) = stream.try_write(answer) {
        log(Level::Debug, "http_refused", &Place::default(), error);
    }
}

async fn in_the_clear(stream: TcpStream, shared: Arc<Shared>, seat: Seat) {
    let _open = Counted::new(&shared.tally.connections);
    let builder = tokio::select! {
        builder = first_words(&stream) => builder,
        () = seat.connection.ordered.notified() => return,
    };
    let stream = watched(stream, &shared, &seat);
    converse(builder, stream, &shared, &seat).await;
}

/// What a client without TLS speaks. hyper finds out as well, and keeps 16 KiB for each connection from then on.
async fn first_words(stream: &TcpStream) -> auto::Builder<TokioExecutor> {
    let mut words = [0; 3];
    match stream.peek(&mut words).await {
        Ok(3..) if &words == b"PRI" => protocol().http2_only(),
        // A method that begins like the preface, and no more of it yet.
        Ok(n) if n < 3 && words[0] == b'P' => protocol(),
        // What is broken shows when it is read.
        _ => protocol().http1_only(),
    }
}

async fn secured(stream: TcpStream, shared: Arc<Shared>, seat: Seat, tls: Arc<Tls>) {
    let _open = Counted::new(&shared.tally.connections);
    let stream = watched(stream, &shared, &seat);
    let shaken = {
        let _shaking = Counted::new(&shared.tally.handshakes);
        // On the heap: it is gone before the first request.
        let mut handshake = Box::pin(tls.shake(stream));
        loop {
            tokio::select! {
                shaken = handshake.as_mut() => break shaken,
                () = seat.connection.ordered.notified() => match seat.connection.order() {
                    Order::Go => {}
                    Order::Finish | Order::Drop => break Err("given_up"),
                },
            }
        }
    };
    match shaken {
        Ok(stream) => {
            seat.shaken();
            let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            let builder = if h2 { protocol().http2_only() } else { protocol().http1_only() };
            converse(builder, stream, &shared, &seat).await;
        }
        Err(reason) => count(Metric::TlsHandshakeFailures, &[Label::Reason(reason)], 1),
    }
}

/// The bytes of the wire, inside of which TLS may be.
fn watched(stream: TcpStream, shared: &Shared, seat: &Seat) -> Watched<TcpStream> {
    if let Err(error) = stream.set_nodelay(true) {
        log(Level::Debug, "http_nodelay", &Place::default(), error);
    }
    Watched::new(stream, Arc::clone(&seat.connection), shared.tally.egress.clone())
}

async fn converse<S>(builder: auto::Builder<TokioExecutor>, stream: S, shared: &Shared, seat: &Seat)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let connection = &seat.connection;
    let service = service_fn(|request| {
        answer(Arc::clone(&shared.site), Arc::clone(&shared.tally), Arc::clone(connection), request)
    });
    let mut conversation = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
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
    {
        broken(&shared.tally, error);
    }
}

/// A conversation that ended on what the client did.
fn broken(tally: &Tally, error: &hyper::Error) {
    if error.is_parse() {
        tally.count(Route::Malformed, StatusCode::BAD_REQUEST);
        return;
    }
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        if let Some(h2) = inner.downcast_ref::<h2::Error>() {
            if h2.is_go_away() && h2.is_library() {
                let calm = h2.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM);
                let reason = if calm { "http2_abuse" } else { "http2_broken" };
                count(Metric::HttpConnectionsClosed, &[Label::Reason(reason)], 1);
            }
            return;
        }
        cause = inner.source();
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
        .max_pending_accept_reset_streams(RESET_AT_ONCE_MAX)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
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
        for connection in shared.seats.all() {
            connection.forgive(&shared.patience);
            if let Some((order, reason)) = connection.verdict(now, &shared.patience) {
                count(Metric::HttpConnectionsClosed, &[Label::Reason(reason)], 1);
                connection.give(order);
            }
        }
    }
}
