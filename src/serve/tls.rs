//! TLS: one configuration for all handshakes, certificates by name, and new ones without a restart.
//!
//! The files are read every few seconds; what has changed and then rested from one look to the next is judged as a
//! whole, and serves every handshake from then on, or is told and leaves the certificates before it in place.
//! Connections keep what they were opened with.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use rustls::crypto::ring;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{Error as TlsError, HandshakeKind, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::certificate::{self, Certificate, Material, Pair, Trouble};
use crate::telemetry::{Label, Level, Metric, Place, count, gauge, log};

/// The least time from a change of the files to its handshakes: two looks.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// What is spoken inside, best first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// What a listener needs to speak TLS.
pub struct Tls {
    acceptor: TlsAcceptor,
    shelf: Arc<Shelf>,
    pairs: Vec<Pair>,
    seen: Mutex<Seen>,
    look_now: Notify,
    look_every: Duration,
}

/// The certificates that new handshakes choose from; never empty.
#[derive(Debug)]
struct Shelf(RwLock<Arc<Vec<Certificate>>>);

/// Digests of the files.
#[derive(Debug)]
struct Seen {
    served: [u8; 32],
    judged: [u8; 32],
    last: [u8; 32],
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("pairs", &self.pairs).finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads `pairs`; the first one serves clients that name no host or an unknown one.
    ///
    /// # Errors
    /// A file that cannot be used, or a machine without randomness.
    pub fn open(pairs: Vec<Pair>) -> Result<Tls, Trouble> {
        Tls::looking_every(pairs, LOOK_EVERY)
    }

    /// The same with another interval between two looks at the files.
    ///
    /// # Errors
    /// As for `open`.
    pub fn looking_every(pairs: Vec<Pair>, look_every: Duration) -> Result<Tls, Trouble> {
        let materials = certificate::read(&pairs);
        let certificates = certificate::judge(&materials)?;
        let Some(first) = pairs.first() else {
            return Err(Trouble { file: PathBuf::from("https"), what: "names no certificate".into() });
        };
        let unusable = |e: TlsError| Trouble { file: first.certificate.clone(), what: format!("no TLS: {e}") };
        let digest = certificate::digest(&materials);
        let shelf = Arc::new(Shelf(RwLock::new(Arc::new(Vec::new()))));
        shelf.put(certificates);
        let acceptor = acceptor(Arc::clone(&shelf) as _).map_err(unusable)?;
        gauge(Metric::TlsReloadFailed, &[], 0.0);
        let seen = Mutex::new(Seen { served: digest, judged: digest, last: digest });
        Ok(Tls { acceptor, shelf, pairs, seen, look_now: Notify::new(), look_every })
    }

    /// Looks at the files now and takes them as they are: a signal says that they are complete.
    pub fn reload(&self) {
        self.look_now.notify_one();
    }

    /// What is served now, for people.
    pub fn describe(&self) -> Vec<String> {
        self.shelf.current().iter().map(Certificate::describe).collect()
    }

    /// Takes the client through the handshake.
    ///
    /// # Errors
    /// Why there was none: a metric's label.
    pub(super) async fn shake<S>(&self, stream: S) -> Result<TlsStream<S>, &'static str>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let stream = self.acceptor.accept(stream).await.map_err(|error| reason(&error))?;
        let resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
        count(Metric::TlsHandshakes, &[Label::Kind(if resumed { "resumed" } else { "full" })], 1);
        Ok(stream)
    }

    /// Looks at the files until `closed`.
    pub(super) async fn follow(self: Arc<Tls>, mut closed: watch::Receiver<bool>) {
        let mut every = tokio::time::interval(self.look_every);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let asked = tokio::select! {
                _ = every.tick() => false,
                () = self.look_now.notified() => true,
                _ = closed.changed() => return,
            };
            let tls = Arc::clone(&self);
            // A disk that hangs holds up nobody's requests.
            if let Err(error) = tokio::task::spawn_blocking(move || tls.look(asked)).await {
                log(Level::Error, "certificate_look_failed", &Place::default(), error);
            }
        }
    }

    fn look(&self, asked: bool) {
        let materials = certificate::read(&self.pairs);
        let digest = certificate::digest(&materials);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let rested = digest == seen.last;
        seen.last = digest;
        if !asked && (digest == seen.judged || !rested) {
            return;
        }
        seen.judged = digest;
        if self.renew(&materials, digest == seen.served) {
            seen.served = digest;
        }
    }

    /// True if `materials` are what is served from now on.
    fn renew(&self, materials: &[Material], same: bool) -> bool {
        let place = Place::default();
        let (result, ok) = match certificate::judge(materials) {
            Ok(certificates) => {
                for warning in certificate::warnings(&certificates) {
                    log(Level::Warn, "certificate_warning", &place, warning);
                }
                let told = certificates.iter().map(Certificate::describe).collect::<Vec<_>>().join("; ");
                let what = if same { "the certificates are those that are served" } else { "new certificates" };
                log(Level::Info, "certificate_reloaded", &place, format!("{what}: {told}"));
                self.shelf.put(certificates);
                ("ok", true)
            }
            Err(trouble) => {
                let kept = self.describe().join("; ");
                log(Level::Error, "certificate_kept", &place, format!("{trouble}; still served: {kept}"));
                ("failed", false)
            }
        };
        count(Metric::TlsReloads, &[Label::State(result)], 1);
        gauge(Metric::TlsReloadFailed, &[], if ok { 0.0 } else { 1.0 });
        ok
    }
}

fn acceptor(shelf: Arc<dyn ResolvesServerCert>) -> Result<TlsAcceptor, TlsError> {
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let mut config = builder.with_safe_default_protocol_versions()?.with_no_client_auth().with_cert_resolver(shelf);
    // Tickets carry a session's secrets under keys that change every few hours: nothing is kept here for a client.
    config.ticketer = ring::Ticketer::new()?;
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    Ok(TlsAcceptor::from(Arc::new(config)))
}

impl Shelf {
    fn current(&self) -> Arc<Vec<Certificate>> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn put(&self, certificates: Vec<Certificate>) {
        let ends = certificates.iter().map(Certificate::valid_until).min().unwrap_or(0);
        gauge(Metric::TlsCertificateExpiry, &[], ends as f64);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(certificates);
    }
}

impl ResolvesServerCert for Shelf {
    /// The first certificate for the host whose key the client can verify, else the first that it can.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let certificates = self.current();
        let host = hello.server_name().map(str::to_ascii_lowercase);
        let verifiable = |one: &&Certificate| one.key.key.choose_scheme(hello.signature_schemes()).is_some();
        let mut fitting = certificates.iter().filter(|one| host.as_deref().is_some_and(|host| one.covers(host)));
        let chosen = fitting.find(verifiable).or_else(|| certificates.iter().find(verifiable));
        chosen.or(certificates.first()).map(|one| Arc::clone(&one.key))
    }
}

/// The kind of a failed handshake.
fn reason(error: &io::Error) -> &'static str {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>()) {
        None => "closed",
        Some(TlsError::AlertReceived(_)) => "client_refused",
        Some(TlsError::InvalidMessage(_)) => "not_tls",
        Some(TlsError::PeerIncompatible(_) | TlsError::NoApplicationProtocol) => "incompatible",
        Some(
            TlsError::PeerMisbehaved(_)
            | TlsError::InappropriateMessage { .. }
            | TlsError::InappropriateHandshakeMessage { .. }
            | TlsError::PeerSentOversizedRecord
            | TlsError::DecryptError,
        ) => "misbehaved",
        Some(_) => "other",
    }
}
