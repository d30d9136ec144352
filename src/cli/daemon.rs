//! The daemon put together: telemetry, ports of publishers, shards, HTTP listeners. `rung serve` and `rung demo` both run it.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::num::NonZero;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, SyncSender};
use std::time::Duration;

use super::Failure;
use super::gpus::Search;
use super::state::trusted;
use crate::control::api::{self, Api, Awaited};
use crate::control::bridge::Bridge;
use crate::control::config::{Config, Configured, Loaded, Log, LogFormat, ShardCount};
use crate::control::ledger::{self, Ledger};
use crate::control::lifecycle::{Code, Command as Wish, Input};
use crate::control::record::{LogoFile, StreamKey};
use crate::control::state::{self, Db, Need, State as Store};
use crate::ingest::srt::{Port, PortConfig};
use crate::ingest::{Admission, Directory, Door, Refusal, quic};
use crate::media::channel::{ChannelName, Leg};
use crate::media::playback::{Access, SharedKeyring};
use crate::package::origin::Origin;
use crate::pipeline::devices::Devices;
use crate::pipeline::gpus::GpuWatch;
use crate::pipeline::ports;
use crate::pipeline::shard::{Command, Setup};
use crate::pipeline::shards::{Shards, Watcher};
use crate::pipeline::status::{self, ChannelStatus, InputState, State};
use crate::pixels::client::beside_this_program;
use crate::serve::{Check, Health, Options, Pair, Routes, Scrape, Server, Site, Tls, bind, routes};
use crate::telemetry::report::{Level, Place, log};
use crate::telemetry::setup::{self, Telemetry};
use crate::time::SystemClock;
use crate::web;

/// Publishers on air at once, over all protocols.
const PUBLISHERS_MAX: usize = 300;
/// Every shard came round within this: the process is ready.
const ROUND_MAX: Duration = Duration::from_secs(3);
const BACKUP_EVERY: Duration = Duration::from_secs(3_600);
/// Answers under way may end within this when the daemon stops.
const GRACE: Duration = Duration::from_secs(2);

/// Where publishers come by QUIC.
#[derive(Clone, Debug)]
pub(crate) struct QuicPort {
    pub(crate) address: SocketAddr,
    /// SHA-256 of the certificate.
    pub(crate) pin: quic::Pin,
    /// It is Rung's own: publishers need the pin.
    pub(crate) own: bool,
    renewal: quic::Renewal,
    /// Its files, unless it is Rung's own.
    files: Option<Pair>,
}

/// A running daemon.
pub(crate) struct Daemon {
    pub(crate) srt: SocketAddr,
    pub(crate) quic: Option<QuicPort>,
    pub(crate) http: SocketAddr,
    pub(crate) https: Option<SocketAddr>,
    pub(crate) metrics: SocketAddr,
    shards: Shards,
    /// Behind the shards: what it says in the end is still written down.
    ledger: Arc<Ledger>,
    _backups: SyncSender<()>,
    _gpus: Option<GpuWatch>,
    api: Arc<Api>,
    tls: Option<Arc<Tls>>,
    servers: Vec<Server>,
    runtime: tokio::runtime::Runtime,
    /// Last: what the others say while they stop is still logged.
    _telemetry: Telemetry,
}

impl Daemon {
    /// Opens every socket, then starts everything.
    pub(crate) fn start(loaded: &Loaded) -> Result<Daemon, Failure> {
        let config = &loaded.config;
        let telemetry = start_telemetry(&config.log)?;
        let worker = config.worker.program.clone().unwrap_or_else(beside_this_program);
        check_worker(&worker, loaded)?;
        let ports = Ports::bind(loaded)?;
        let state = open_state(&config.state.folder)?;
        let bridge = Arc::new(Bridge::new(Arc::clone(&state)));
        let store = |e: crate::control::state::Error| Failure::failed(format!("state folder: {e}"));
        let ledger = Arc::new(Ledger::open(state, Arc::clone(&bridge) as _).map_err(store)?);
        let search = Search::new(&worker, config);
        let doors = Doors { bridge: Arc::clone(&bridge), devices: Arc::clone(search.devices()) };
        let Ingest { ports: ingest, srt, quic } = Ingest::bind(loaded, doors)?;
        let origin = Arc::new(Origin::default());
        let watch = search.watch()?;
        let gpus = watch.as_ref().map(GpuWatch::gpus).unwrap_or_default();
        let devices = Arc::clone(search.devices());
        let setup = Setup {
            origin: Arc::clone(&origin),
            hall: search.hall().clone(),
            devices: Arc::clone(search.devices()),
            gpus: gpus.clone(),
            look_for_gpus: Arc::new(move |now| search.again(now)),
            backend: config.worker.backend,
            witness: Arc::clone(&bridge) as _,
        };
        let shards = Shards::start(ingest, setup).map_err(|e| Failure::failed(format!("shards: {e}")))?;
        let backups = back_up_hourly(Arc::clone(ledger.state()))?;
        bridge.join(shards.watcher(), &ledger);
        ledger.recover().map_err(store)?;
        let runtime = runtime()?;
        runtime.block_on(bootstrap(&ledger, loaded))?;
        bridge.open();
        shards.watcher().settle();
        let health = health(shards.watcher());
        let pages = web::filter(Arc::new(status_source(shards.watcher(), Arc::clone(&origin))));
        let options = api::Options {
            srt_port: srt.port(),
            srt_passphrase: loaded.srt_passphrase.is_some(),
            quic: quic.as_ref().map(QuicPort::input),
            gpus,
            devices,
            ..Default::default()
        };
        let api = Api::open(Arc::clone(&ledger), options, media(&shards)).map_err(Failure::failed)?;
        let exporter = telemetry.exporter();
        let (public, private) =
            sites(origin, api.keyring(), health, routes(api.beside(pages)), Arc::new(move || exporter.render()));
        let inside = runtime.enter();
        let Served { http, https, metrics, tls, servers } = ports.serve(config, public, private)?;
        drop(inside);
        Ok(Daemon {
            srt,
            quic,
            http,
            https,
            metrics,
            shards,
            ledger,
            _backups: backups,
            _gpus: watch,
            api,
            tls,
            servers,
            runtime,
            _telemetry: telemetry,
        })
    }

    pub(crate) fn watcher(&self) -> Watcher {
        self.shards.watcher()
    }

    /// Channels in the book.
    pub(crate) fn channels(&self) -> usize {
        let count = self.ledger.state().control.read(|view| view.count(Db::ChannelNames));
        count.map_or(0, |count| usize::try_from(count).unwrap_or(usize::MAX))
    }

    /// Until SIGINT or SIGTERM. Where there are certificates, SIGHUP reads them again; else it does what it does to any
    /// program of a terminal that is closed. `tick` is called once a second meanwhile, and ends the wait by returning
    /// false.
    pub(crate) fn wait(&self, mut tick: impl FnMut() -> bool) -> Result<(), Failure> {
        use tokio::signal::unix::{SignalKind, signal};
        self.runtime.block_on(async {
            let trouble = |e: std::io::Error| Failure::failed(format!("signals: {e}"));
            let mut interrupt = signal(SignalKind::interrupt()).map_err(trouble)?;
            let mut terminate = signal(SignalKind::terminate()).map_err(trouble)?;
            let quic = self.quic.as_ref().filter(|quic| quic.files.is_some());
            let mut hangup = match (&self.tls, quic) {
                (None, None) => None,
                _ => Some(signal(SignalKind::hangup()).map_err(trouble)?),
            };
            let mut reload = async || match &mut hangup {
                Some(signal) => {
                    signal.recv().await;
                    self.tls.iter().for_each(|tls| tls.reload());
                    quic.into_iter().for_each(QuicPort::reload);
                }
                None => std::future::pending().await,
            };
            let mut second = tokio::time::interval(Duration::from_secs(1));
            loop {
                tokio::select! {
                    _ = interrupt.recv() => break,
                    _ = terminate.recv() => break,
                    () = reload() => (),
                    _ = second.tick() => if !tick() { break },
                }
            }
            // A second signal does not wait for anything.
            tokio::spawn(async move {
                tokio::select! { _ = interrupt.recv() => (), _ = terminate.recv() => () }
                std::process::exit(130);
            });
            Ok(())
        })
    }

    /// Publishers are told to come back, sessions end, answers under way finish.
    pub(crate) fn stop(mut self) {
        self.api.close();
        self.shards.stop();
        for server in self.servers.drain(..) {
            self.runtime.block_on(server.stop(GRACE));
        }
        self.runtime.shutdown_timeout(GRACE);
    }
}

/// Every TCP port, bound and not yet served.
struct Ports {
    http: TcpListener,
    /// And what it is served with.
    https: Option<(TcpListener, Arc<Tls>)>,
    metrics: TcpListener,
}

/// The same on air.
struct Served {
    http: SocketAddr,
    https: Option<SocketAddr>,
    metrics: SocketAddr,
    tls: Option<Arc<Tls>>,
    servers: Vec<Server>,
}

impl Ports {
    fn bind(loaded: &Loaded) -> Result<Ports, Failure> {
        let config = &loaded.config;
        let bind = |address| bind(address).map_err(|e| Failure::failed(e.to_string()));
        for warning in &loaded.warnings {
            log(Level::Warn, "certificate_warning", &Place::default(), warning);
        }
        let https = if loaded.certificates.is_empty() {
            None
        } else {
            let tls = Tls::open(loaded.certificates.clone()).map_err(|e| Failure::usage(format!("https: {e}")))?;
            Some((bind(config.https.listen)?, Arc::new(tls)))
        };
        Ok(Ports { http: bind(config.http.listen)?, https, metrics: bind(config.metrics.listen)? })
    }

    /// Within the runtime.
    fn serve(self, config: &Config, public: Site, private: Site) -> Result<Served, Failure> {
        let trouble = |e: std::io::Error| Failure::failed(format!("HTTP: {e}"));
        let start = |listener, site| Server::start(listener, site, bounds(config)).map_err(trouble);
        let (public, private) = (start(self.http, public)?, start(self.metrics, private)?);
        let (http, metrics) = (public.address(), private.address());
        let (https, tls) = match self.https {
            Some((listener, tls)) => (Some(public.secure(listener, &tls).map_err(trouble)?), Some(tls)),
            None => (None, None),
        };
        Ok(Served { http, https, metrics, tls, servers: vec![public, private] })
    }
}

fn bounds(config: &Config) -> Options {
    Options {
        connections_per_address: config.http.connections_per_address.0,
        trusted: config.http.trusted.clone(),
        ..Options::default()
    }
}

fn start_telemetry(log: &Log) -> Result<Telemetry, Failure> {
    let format = match log.format {
        LogFormat::Text => setup::LogFormat::Text,
        LogFormat::Json => setup::LogFormat::Json,
    };
    setup::start(&setup::Config { format, filter: log.level.clone() }).map_err(Failure::usage)
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let built = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("http").build();
    built.map_err(|e| Failure::failed(format!("HTTP threads: {e}")))
}

fn open_state(folder: &Path) -> Result<Arc<Store>, Failure> {
    let state = Store::open(&trusted(state::Options::new(folder))).map_err(|e| Failure::failed(e.to_string()))?;
    for note in state.notes() {
        log(Level::Warn, "state_opened", &Place::default(), note);
    }
    Ok(Arc::new(state))
}

/// Whether the data plane has followed what a caller of the API waits for.
fn settled(watcher: Watcher) -> api::Settled {
    Arc::new(move |awaited| {
        let open = |name| {
            let session = watcher.status_of(name)?.session.as_ref().map(|s| (s.id.clone(), s.state));
            session.filter(|(_, state)| *state != State::Ended)
        };
        match awaited {
            Awaited::Started(name) => watcher.status_of(name).is_some(),
            Awaited::Stopped(name) => open(name).is_none(),
            Awaited::Ended(name, id) => open(name).is_none_or(|(on_air, _)| on_air != id.as_str()),
        }
    })
}

/// What the API asks of the data plane.
fn media(shards: &Shards) -> api::Media {
    let watcher = shards.watcher();
    let pull = Arc::new(move |channel: &ChannelName| watcher.pull_of(channel));
    api::Media { settled: settled(shards.watcher()), snapshot: snapshot(shards.watcher()), pull }
}

/// Asks the data plane for a picture.
fn snapshot(watcher: Watcher) -> api::TakeSnapshot {
    Arc::new(move |channel, reply| watcher.tell(Command::Snapshot { channel: channel.clone(), reply }).is_ok())
}

/// A copy each hour, beside the state, until what is returned is dropped.
fn back_up_hourly(state: Arc<Store>) -> Result<SyncSender<()>, Failure> {
    let (end, ended) = std::sync::mpsc::sync_channel(0);
    let copy = move || {
        while ended.recv_timeout(BACKUP_EVERY) == Err(RecvTimeoutError::Timeout) {
            if let Err(error) = state.backup() {
                log(Level::Error, "no_backup", &Place::default(), error);
            }
        }
    };
    let thread = std::thread::Builder::new().name("backup".into()).spawn(copy);
    thread.map(|_| end).map_err(|e| Failure::failed(format!("backup thread: {e}")))
}

/// Channels of the file that are not in the book yet. One that is there stays as it is.
async fn bootstrap(ledger: &Ledger, loaded: &Loaded) -> Result<(), Failure> {
    for Configured { config, key, passphrase, logo } in &loaded.channels {
        let (config, digest, logo) = (config.clone(), *key, logo.as_deref().map(LogoFile::of));
        let passphrase = passphrase.clone();
        let created = ledger.submit(Need::Ordinary, move |txn, now| {
            if ledger::find(&txn.view(), config.name.as_str())?.is_some() {
                return Ok((Vec::new(), ()));
            }
            let key = StreamKey { digest, prefix: String::new(), created_at: now.into(), expires_at: None };
            let made = ledger::create(txn, config.clone(), key, now)?;
            if let Some(logo) = &logo {
                txn.put(&ledger::LOGOS, &made.id.0, logo)?;
            }
            let mut changes = vec![made];
            if let (Some(passphrase), Some(made)) = (&passphrase, changes.first()) {
                let command = Wish::Passphrase(Some(passphrase.clone()));
                changes.push(ledger::step(txn, made.id, &Input::Command(command), now)?);
            }
            Ok((changes, ()))
        });
        match created.await {
            Ok(()) => {}
            // One that is damaged costs itself, not the others.
            Err(ledger::Failure::Store(error @ state::Error::Corrupt { .. })) => {
                log(Level::Error, "channel_damaged", &Place::default(), error);
            }
            Err(error) => return Err(Failure::failed(error.to_string())),
        }
    }
    Ok(())
}

/// Publishers at the port, and what the book and the GPUs say about them.
struct Doors {
    bridge: Arc<Bridge>,
    devices: Arc<Devices>,
}

impl Doors {
    /// Whether a session can begin and be carried.
    fn room_for(&self, channel: &ChannelName) -> Result<(), Refusal> {
        if let Some(trouble) = self.bridge.trouble() {
            return Err(Refusal::NoCapacity(trouble));
        }
        // A channel that may run on the CPU always finds room.
        self.devices.welcome(channel).map(drop).map_err(|refusal| Refusal::NoCapacity(refusal.to_string()))
    }
}

impl Directory for Doors {
    fn admit(&self, channel: &str, key: &str, leg: Leg, from: IpAddr) -> Result<Admission, Refusal> {
        if let Some(starting) = self.bridge.starting() {
            return Err(Refusal::NoCapacity(starting.to_owned()));
        }
        let (channel, door) = self.bridge.admit(channel, key, leg, from).map_err(|refusal| match refusal.code {
            Code::Stopped | Code::NotStarted => Refusal::Stopped,
            Code::NotFromHere => Refusal::NotFromHere,
            Code::NoSuchLeg => Refusal::Unsupported("the channel has one leg: publish on leg a"),
            _ => Refusal::Denied,
        })?;
        self.room_for(&channel)?;
        Ok(Admission { channel, takeover: door.takeover, passphrase: door.passphrase, latency: Some(door.latency) })
    }

    fn admit_source(&self, channel: &ChannelName, leg: Leg) -> Result<Admission, Refusal> {
        let door = self.bridge.admit_source(channel, leg).map_err(|_| Refusal::Stopped)?;
        self.room_for(channel)?;
        let (channel, latency) = (channel.clone(), Some(door.latency));
        Ok(Admission { channel, takeover: door.takeover, passphrase: None, latency })
    }
}

/// Every UDP port that publishers come to, bound, for each shard.
struct Ingest {
    ports: Vec<ports::Ports>,
    srt: SocketAddr,
    quic: Option<QuicPort>,
}

impl Ingest {
    fn bind(loaded: &Loaded, doors: Doors) -> Result<Ingest, Failure> {
        let door = Door::new(Arc::new(doors), PUBLISHERS_MAX);
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let shards = loaded.config.ingest.shards.unwrap_or_else(|| ShardCount::by_cores(cores)).0;
        let srt_ports = srt_ports(loaded, &door, shards)?;
        let srt = srt_ports[0].local_addr().map_err(|e| Failure::failed(format!("SRT port: {e}")))?;
        let (quic_ports, quic) = quic_ports(loaded, &door, shards)?.unzip();
        let quic_ports = quic_ports.into_iter().flatten().map(Some).chain(std::iter::repeat_with(|| None));
        let ports = srt_ports.into_iter().zip(quic_ports).map(|(srt, quic)| ports::Ports::new(srt, quic));
        Ok(Ingest { ports: ports.collect(), srt, quic })
    }
}

impl QuicPort {
    /// Reads the files again; what cannot be used leaves those before in place.
    fn reload(&self) {
        let Some(Pair { certificate, key }) = &self.files else { return };
        let identity = quic::Identity::read(certificate, key).map_err(|e| e.to_string());
        let renewed = identity.and_then(|identity| {
            self.renewal.renew(&identity).map_err(|e| e.to_string())?;
            Ok(identity.pin())
        });
        match renewed {
            Ok(pin) => {
                let what = format!("new QUIC certificate, SHA-256 {pin}");
                log(Level::Info, "quic_certificate", &Place::default(), what);
            }
            Err(why) => {
                let what = format!("{why}; the QUIC certificate before it is still served");
                log(Level::Error, "quic_certificate_kept", &Place::default(), what);
            }
        }
    }

    fn input(&self) -> api::QuicInput {
        api::QuicInput { port: self.address.port(), pin: self.own.then(|| self.pin.to_string()) }
    }
}

fn quic_ports(
    loaded: &Loaded,
    door: &Arc<Door>,
    shards: usize,
) -> Result<Option<(Vec<quic::Port>, QuicPort)>, Failure> {
    let config = &loaded.config;
    if !config.quic.enabled {
        return Ok(None);
    }
    let identity = match &loaded.quic_certificate {
        Some(pair) => quic::Identity::read(&pair.certificate, &pair.key),
        None => quic::Identity::own(&config.state.folder),
    };
    let identity = identity.map_err(|e| Failure::failed(format!("QUIC: {e}")))?;
    let own = identity.is_own();
    let ours = quic::PortConfig { address: config.quic.listen, ..quic::PortConfig::new(identity) };
    let ports = quic::Port::among(Arc::clone(door), ours, shards).map_err(|e| Failure::failed(e.to_string()))?;
    let port = &ports[0];
    if let Some(warning) = port.receive_buffer_warning() {
        log(Level::Warn, "receive_buffer", &Place::default(), warning);
    }
    let (files, renewal) = (loaded.quic_certificate.clone(), port.renewal());
    let told = QuicPort { address: port.local_addr(), pin: port.pin(), own, renewal, files };
    let whose = if own { "its own certificate" } else { "the certificate of quic.certificate" };
    let what = format!("publishers over QUIC at {}: {whose}, SHA-256 {}", told.address, told.pin);
    log(Level::Info, "quic_certificate", &Place::default(), what);
    Ok(Some((ports, told)))
}

fn srt_ports(loaded: &Loaded, door: &Arc<Door>, shards: usize) -> Result<Vec<Port>, Failure> {
    let config = PortConfig {
        address: loaded.config.srt.listen,
        passphrase: loaded.srt_passphrase.clone(),
        publishers_max: PUBLISHERS_MAX,
        ..PortConfig::default()
    };
    let ports = Port::among(door, &config, shards).map_err(|e| Failure::failed(e.to_string()))?;
    if let Some(warning) = ports[0].receive_buffer_warning() {
        log(Level::Warn, "receive_buffer", &Place::default(), warning);
    }
    Ok(ports)
}

/// A box that has something to encode must have a worker to do it.
fn check_worker(program: &std::path::Path, loaded: &Loaded) -> Result<(), Failure> {
    use crate::media::channel::ChannelKind;
    let needed = loaded.channels.iter().any(|c| c.config.profile.kind != ChannelKind::Transmux);
    if needed && !program.is_file() {
        let what = format!("{} is not there: build it (cargo build) or set worker.program", program.display());
        return Err(Failure::usage(what));
    }
    Ok(())
}

/// What players and operators see, and what only the box itself.
fn sites(origin: Arc<Origin>, keyring: SharedKeyring, health: Health, routes: Routes, metrics: Scrape) -> (Site, Site) {
    let public = Site {
        origin: Some(origin),
        keyring: Some(keyring),
        health: Some(health.clone()),
        routes: Some(routes),
        ..Site::default()
    };
    let private = Site { health: Some(health), metrics: Some(metrics), ..Site::default() };
    (public, private)
}

fn health(watcher: Watcher) -> Health {
    Health::new(move || {
        let age = watcher.age();
        let detail = format!("media loop came round {:.1} s ago", age.as_secs_f64());
        vec![Check { name: "media", ok: age < ROUND_MAX, detail }]
    })
}

fn status_source(watcher: Watcher, origin: Arc<Origin>) -> impl Fn(Option<&str>) -> web::Status + Send + Sync {
    move |channel: Option<&str>| {
        let channels = match channel {
            None => watcher.status(),
            Some(name) => ChannelName::new(name).ok().and_then(|name| watcher.status_of(&name)).into_iter().collect(),
        };
        let signed = |name: &str| origin.channel(name).is_some_and(|c| c.access() != Access::Public);
        let channels = channels.iter().map(|c| page_status(c, signed(c.name.as_str()))).collect();
        web::Status { version: env!("CARGO_PKG_VERSION").into(), now_ms: SystemClock::wall().unix_millis(), channels }
    }
}

/// A lost source is what a viewer of a live session wants to know.
fn state_name(session: &status::SessionStatus) -> &'static str {
    match (session.state, session.input) {
        (State::Live, InputState::Reconnecting) => session.input.name(),
        (state, _) => state.name(),
    }
}

/// A picture's address on a page: another one with each picture, so that nobody has to ask whether it changed.
fn poster_address(channel: &ChannelName, etag: &str) -> String {
    format!("/live/{channel}/poster.jpg?{}", etag.trim_matches('"'))
}

fn page_status(channel: &ChannelStatus, signed: bool) -> web::ChannelStatus {
    let session = channel.session.as_ref();
    let renditions = session.map_or(&[][..], |s| &s.renditions);
    web::ChannelStatus {
        name: channel.name.to_string(),
        state: session.map_or("idle", state_name).to_owned(),
        mode: channel.mode.name().to_owned(),
        session: session.map(|s| s.id.clone()),
        since_ms: session.and_then(|s| s.live_since).map(|at| at.unix_millis()),
        detail: session.and_then(|s| s.detail.clone()),
        signed,
        poster: session
            .filter(|_| !signed)
            .and_then(|s| s.poster.as_ref())
            .map(|tag| poster_address(&channel.name, tag)),
        renditions: renditions
            .iter()
            .map(|r| web::RenditionStatus {
                name: r.name.clone(),
                width: r.width,
                height: r.height,
                bitrate: r.bitrate,
                state: if r.shed { "shed" } else { "live" }.to_owned(),
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_before_the_book_is_read_is_not_told_to_be_a_stranger() {
        let folder = tempfile::tempdir().unwrap();
        let state = open_state(&folder.path().join("state")).unwrap_or_else(|_| panic!("a state folder"));
        let bridge = Arc::new(Bridge::new(state));
        let doors = Doors { bridge: Arc::clone(&bridge), devices: Arc::default() };
        let ask = || doors.admit("news", "key", Leg::A, [127, 0, 0, 1].into()).unwrap_err();
        assert_eq!(ask().code(), 1503);
        bridge.open();
        assert_eq!(ask(), Refusal::Denied);
    }
}
