//! The daemon put together: telemetry, SRT port, shard, HTTP listeners. `rung serve` and `rung demo` both run it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, SyncSender};
use std::time::Duration;

use super::Failure;
use super::gpus::Search;
use super::state::trusted;
use crate::control::api::{self, Api, Awaited};
use crate::control::bridge::Bridge;
use crate::control::config::{Configured, Loaded, Log, LogFormat};
use crate::control::ledger::{self, Ledger};
use crate::control::lifecycle::Code;
use crate::control::record::{LogoFile, StreamKey};
use crate::control::state::{self, Db, Need, State as Store};
use crate::ingest::srt::{Passphrase, Port, PortConfig};
use crate::ingest::{Admission, Directory, Refusal};
use crate::media::channel::{ChannelName, Leg};
use crate::media::modes::LatencyMode;
use crate::package::origin::Origin;
use crate::pipeline::devices::Devices;
use crate::pipeline::gpus::GpuWatch;
use crate::pipeline::shard::{Command, Setup, Shard, Watcher};
use crate::pipeline::status::{self, ChannelStatus, InputState, State};
use crate::pixels::client::beside_this_program;
use crate::serve::{Check, Health, Options, Routes, Scrape, Server, Site, bind, routes};
use crate::telemetry::report::{Level, Place, log};
use crate::telemetry::setup::{self, Telemetry};
use crate::time::SystemClock;
use crate::web;

/// The shard's loop came round within this: the process is ready.
const ROUND_MAX: Duration = Duration::from_secs(3);
const BACKUP_EVERY: Duration = Duration::from_secs(3_600);
/// Answers under way may end within this when the daemon stops.
const GRACE: Duration = Duration::from_secs(2);

/// A running daemon.
pub(crate) struct Daemon {
    pub(crate) srt: SocketAddr,
    pub(crate) http: SocketAddr,
    pub(crate) metrics: SocketAddr,
    shard: Shard,
    /// Behind the shard: what it says in the end is still written down.
    ledger: Arc<Ledger>,
    _backups: SyncSender<()>,
    _gpus: Option<GpuWatch>,
    api: Arc<Api>,
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
        let http = bind(config.http.listen).map_err(|e| Failure::failed(e.to_string()))?;
        let metrics = bind(config.metrics.listen).map_err(|e| Failure::failed(e.to_string()))?;
        let state = open_state(&config.state.folder)?;
        let bridge = Arc::new(Bridge::new(Arc::clone(&state)));
        let store = |e: crate::control::state::Error| Failure::failed(format!("state folder: {e}"));
        let ledger = Arc::new(Ledger::open(state, Arc::clone(&bridge) as _).map_err(store)?);
        let search = Search::new(&worker, config);
        let port = srt_port(loaded, &bridge, search.devices())?;
        let srt = port.local_addr().map_err(|e| Failure::failed(format!("SRT port: {e}")))?;
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
        let shard = Shard::start(port, setup).map_err(|e| Failure::failed(format!("shard: {e}")))?;
        let backups = back_up_hourly(Arc::clone(ledger.state()))?;
        bridge.join(shard.watcher(), &ledger);
        ledger.recover().map_err(store)?;
        bridge.open();
        let runtime = runtime()?;
        runtime.block_on(bootstrap(&ledger, loaded))?;
        shard.watcher().settle();
        let health = health(shard.watcher());
        let pages = web::filter(Arc::new(status_source(shard.watcher())));
        let options = api::Options {
            srt_port: srt.port(),
            srt_passphrase: loaded.srt_passphrase.is_some(),
            gpus,
            devices,
            ..Default::default()
        };
        let media = api::Media { settled: settled(shard.watcher()), snapshot: snapshot(shard.watcher()) };
        let api = Api::open(Arc::clone(&ledger), options, media).map_err(Failure::failed)?;
        let exporter = telemetry.exporter();
        let (public, private) = sites(origin, health, routes(api.beside(pages)), Arc::new(move || exporter.render()));
        let inside = runtime.enter();
        let start = |listener, site| Server::start(listener, site, Options::default());
        let public = start(http, public).map_err(|e| Failure::failed(format!("HTTP: {e}")))?;
        let private = start(metrics, private).map_err(|e| Failure::failed(format!("metrics: {e}")))?;
        drop(inside);
        let (http, metrics) = (public.address(), private.address());
        let servers = vec![public, private];
        Ok(Daemon {
            srt,
            http,
            metrics,
            shard,
            ledger,
            _backups: backups,
            _gpus: watch,
            api,
            servers,
            runtime,
            _telemetry: telemetry,
        })
    }

    pub(crate) fn watcher(&self) -> Watcher {
        self.shard.watcher()
    }

    /// Channels in the book.
    pub(crate) fn channels(&self) -> usize {
        let count = self.ledger.state().control.read(|view| view.count(Db::ChannelNames));
        count.map_or(0, |count| usize::try_from(count).unwrap_or(usize::MAX))
    }

    /// Until SIGINT or SIGTERM; `tick` is called once a second meanwhile, and ends the wait by returning false.
    pub(crate) fn wait(&self, mut tick: impl FnMut() -> bool) -> Result<(), Failure> {
        use tokio::signal::unix::{SignalKind, signal};
        self.runtime.block_on(async {
            let trouble = |e: std::io::Error| Failure::failed(format!("signals: {e}"));
            let mut interrupt = signal(SignalKind::interrupt()).map_err(trouble)?;
            let mut terminate = signal(SignalKind::terminate()).map_err(trouble)?;
            let mut second = tokio::time::interval(Duration::from_secs(1));
            loop {
                tokio::select! {
                    _ = interrupt.recv() => break,
                    _ = terminate.recv() => break,
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
        self.shard.stop();
        for server in self.servers.drain(..) {
            self.runtime.block_on(server.stop(GRACE));
        }
        self.runtime.shutdown_timeout(GRACE);
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
    for Configured { config, key, logo } in &loaded.channels {
        let (config, digest, logo) = (config.clone(), *key, logo.as_deref().map(LogoFile::of));
        let created = ledger.submit(Need::Ordinary, move |txn, now| {
            if ledger::find(&txn.view(), config.name.as_str())?.is_some() {
                return Ok((Vec::new(), ()));
            }
            let key = StreamKey { digest, prefix: String::new(), created_at: now.into(), expires_at: None };
            let made = ledger::create(txn, config.clone(), key, now)?;
            if let Some(logo) = &logo {
                txn.put(&ledger::LOGOS, &made.id.0, logo)?;
            }
            Ok((vec![made], ()))
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

impl Directory for Doors {
    fn admit(&self, channel: &str, key: &str, leg: Leg) -> Result<Admission, Refusal> {
        let (channel, takeover) = self.bridge.admit(channel, key, leg).map_err(|refusal| match refusal.code {
            Code::Stopped | Code::NotStarted => Refusal::Stopped,
            Code::NoSuchLeg => Refusal::Unsupported("the channel has one leg: publish on leg a"),
            _ => Refusal::Denied,
        })?;
        if let Some(trouble) = self.bridge.trouble() {
            return Err(Refusal::NoCapacity(trouble));
        }
        // A channel that may run on the CPU always finds room.
        self.devices.welcome(&channel).map_err(|refusal| Refusal::NoCapacity(refusal.to_string()))?;
        Ok(Admission { channel, takeover })
    }
}

fn srt_port(loaded: &Loaded, bridge: &Arc<Bridge>, devices: &Arc<Devices>) -> Result<Port, Failure> {
    let passphrase = loaded.srt_passphrase.as_deref().map(Passphrase::new).transpose();
    let passphrase = passphrase.map_err(|e| Failure::usage(format!("srt.passphrase_file: {e}")))?;
    // One latency for the port: the shortest that a channel asks for; a caller that asks for more gets more.
    let modes = loaded.channels.iter().map(|c| c.config.profile.mode.params().srt_latency_ms);
    let latency_ms = modes.min().unwrap_or(LatencyMode::Ultra.params().srt_latency_ms);
    let config = PortConfig {
        address: loaded.config.srt.listen,
        latency: Duration::from_millis(u64::from(latency_ms)),
        passphrase,
        ..PortConfig::default()
    };
    let (bridge, devices) = (Arc::clone(bridge), Arc::clone(devices));
    let doors = Arc::new(Doors { bridge, devices });
    let port = Port::bind(config, doors).map_err(|e| Failure::failed(e.to_string()))?;
    if let Some(warning) = port.receive_buffer_warning() {
        log(Level::Warn, "receive_buffer", &Place::default(), warning);
    }
    Ok(port)
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
fn sites(origin: Arc<Origin>, health: Health, routes: Routes, metrics: Scrape) -> (Site, Site) {
    let public = Site { origin: Some(origin), health: Some(health.clone()), metrics: None, routes: Some(routes) };
    let private = Site { origin: None, health: Some(health), metrics: Some(metrics), routes: None };
    (public, private)
}

fn health(watcher: Watcher) -> Health {
    Health::new(move || {
        let age = watcher.age();
        let detail = format!("media loop came round {:.1} s ago", age.as_secs_f64());
        vec![Check { name: "media", ok: age < ROUND_MAX, detail }]
    })
}

fn status_source(watcher: Watcher) -> impl Fn(Option<&str>) -> web::Status + Send + Sync {
    move |channel: Option<&str>| {
        let channels = match channel {
            None => watcher.status(),
            Some(name) => ChannelName::new(name).ok().and_then(|name| watcher.status_of(&name)).into_iter().collect(),
        };
        let channels = channels.iter().map(|channel| page_status(channel)).collect();
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

fn page_status(channel: &ChannelStatus) -> web::ChannelStatus {
    let session = channel.session.as_ref();
    let renditions = session.map_or(&[][..], |s| &s.renditions);
    web::ChannelStatus {
        name: channel.name.to_string(),
        state: session.map_or("idle", state_name).to_owned(),
        mode: channel.mode.name().to_owned(),
        session: session.map(|s| s.id.clone()),
        since_ms: session.and_then(|s| s.live_since).map(|at| at.unix_millis()),
        detail: session.and_then(|s| s.detail.clone()),
        poster: session.and_then(|s| s.poster.as_ref()).map(|tag| poster_address(&channel.name, tag)),
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
