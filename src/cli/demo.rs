//! `rung demo`: the daemon with a channel that is on air, in one command.

use clap::{Args, ValueEnum};
use std::io::IsTerminal;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::daemon::Daemon;
use super::probe::{Asked, load_of};
use super::studio;
use super::{Failure, print, status_line};
use crate::control::auth::publish_key;
use crate::control::config::{Config, Configured, Loaded};
use crate::control::record::{ChannelConfig, Preset};
use crate::demux::{Demuxer, Event};
use crate::media::channel::{ChannelName, Ladder, Rendition, VideoCodec};
use crate::media::grid::Cadence;
use crate::media::key::KeyDigest;
use crate::media::modes::LatencyMode;
use crate::media::track::TrackConfig;
use crate::pipeline::status::{ChannelStatus, InputState, State};
use crate::pixels::client::beside_this_program;
use crate::pixels::protocol::{Caps, Pattern};
use crate::sys::random;
use crate::time::Mono;

/// Share of the machine that the demo's ladder may need: the rest is for the browser.
const LOAD_MAX: f64 = 0.45;
/// ultrafast costs this much of what the probe's preset does.
const ULTRAFAST: f64 = 0.6;
/// Bytes of `--input` that are read to find its picture's size.
const LOOK_AHEAD: usize = 8 << 20;

/// Start a channel with a test picture and print the page to open
#[derive(Args)]
pub(crate) struct Demo {
    /// Loop this transport stream file instead of the test picture
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Latency mode of the channels
    #[arg(long, value_enum, default_value_t = Mode::Ultra)]
    mode: Mode,
    /// HTTP address; another port is taken if this one is in use
    #[arg(long, default_value = "[::]:8080", value_name = "ADDRESS")]
    http: SocketAddr,
    /// SRT address; another port is taken if this one is in use
    #[arg(long, default_value = "[::]:9000", value_name = "ADDRESS")]
    srt: SocketAddr,
    /// Stop after so many seconds
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<u64>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Mode {
    Normal,
    Low,
    Ultra,
}

/// What the demo shows and how it encodes it.
struct Plan {
    ladder: Ladder,
    preset: Preset,
    pattern: Pattern,
    why: String,
}

impl Demo {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let worker = beside_this_program();
        let caps = Asked::start(&worker, None).and_then(|mut asked| asked.caps()).map_err(Failure::failed)?;
        let mode = match self.mode {
            Mode::Normal => LatencyMode::Normal,
            Mode::Low => LatencyMode::Low,
            Mode::Ultra => LatencyMode::Ultra,
        };
        let height = self.input.as_deref().map(height_of).transpose()?;
        let plan = plan(&caps, mode, height);
        let (demo_key, own_key) = (publish_key(random::secret()), publish_key(random::secret()));
        let mut config = Config::default();
        config.log.level = "warn".into();
        config.http.listen = free_tcp(self.http);
        config.metrics.listen = free_tcp(config.metrics.listen);
        config.srt.listen = free_udp(self.srt);
        config.quic.listen = free_udp(SocketAddr::new(self.srt.ip(), config.quic.listen.port()));
        let channel = |name: &str, key: &str| configured(name, key, mode, &plan);
        let channels = vec![channel("demo", &demo_key), channel("mine", &own_key)];
        let folder = Scratch::new()?;
        config.state.folder = folder.0.clone();
        let daemon = Daemon::start(&Loaded { config, channels, ..Loaded::empty() })?;

        let stop = Arc::new(AtomicBool::new(false));
        let port = daemon.srt.port();
        let studio = studio::start(worker, self.input.clone(), plan.pattern.clone(), port, demo_key, Arc::clone(&stop))
            .map_err(Failure::failed)?;
        announce(&daemon, &plan, &own_key, self.input.as_deref());
        let watcher = daemon.watcher();
        let mut second = 0u64;
        daemon.wait(|| {
            second += 1;
            let due = std::io::stderr().is_terminal() || second % 10 == 1;
            if let (true, Some(demo)) = (due, watcher.status().first()) {
                status_line(&describe(second, demo));
            }
            self.seconds.is_none_or(|limit| second <= limit)
        })?;
        stop.store(true, Ordering::Release);
        // What went wrong in the studio was printed where it happened.
        drop(studio.join());
        daemon.stop();
        Ok(())
    }
}

fn announce(daemon: &Daemon, plan: &Plan, own_key: &str, input: Option<&Path>) {
    let (http, srt) = (daemon.http.port(), daemon.srt.port());
    let what = input.map_or("a test picture".to_owned(), |file| format!("{} (looped)", file.display()));
    print(&format!("Rung {} shows {what}: {}", env!("CARGO_PKG_VERSION"), plan.why));
    print("");
    print(&format!("  watch     http://localhost:{http}/watch/demo"));
    print(&format!("  playlist  http://localhost:{http}/live/demo/index.m3u8"));
    print(&format!("  metrics   http://{}/metrics", daemon.metrics));
    print("");
    print("  Publish a picture of your own, and watch it at");
    print(&format!("            http://localhost:{http}/watch/mine"));
    print("  ffmpeg    ffmpeg -re -i FILE -c:v libx264 -g 50 -c:a aac -f mpegts \\");
    print(&format!("              'srt://localhost:{srt}?streamid=mine/{own_key}'"));
    print("  OBS       Settings > Stream > Service: Custom, Server:");
    print(&format!("              srt://localhost:{srt}?streamid=mine/{own_key}"));
    print("");
    print("Ctrl-C stops it.");
    print("ready");
}

fn describe(second: u64, channel: &ChannelStatus) -> String {
    let Some(session) = &channel.session else { return format!("{second} s: waiting for the publisher") };
    let names: Vec<String> =
        session.renditions.iter().map(|r| if r.shed { format!("{} (shed)", r.name) } else { r.name.clone() }).collect();
    let rate = session.publishers.first().and_then(|p| p.stats.bitrate).unwrap_or(0) as f64 / 1e6;
    let memory = session.worker.map_or(0, |w| w.rss_bytes) >> 20;
    let state = match session.input {
        InputState::Connected => session.state.name(),
        InputState::Reconnecting => session.input.name(),
    };
    let detail = match (&session.detail, session.state) {
        (Some(detail), State::Error | State::Ended) => format!(" ({detail})"),
        _ => String::new(),
    };
    format!("{second} s: {state}{detail}, {}, in {rate:.1} Mb/s, worker {memory} MiB", names.join(" "))
}

/// The largest of three ladders that leaves room for a browser beside it.
fn plan(caps: &Caps, mode: LatencyMode, input: Option<u32>) -> Plan {
    let cadence = Cadence::for_rate(25.0, mode);
    let small = Ladder(
        [("540p", 540, 1_800_000), ("360p", 360, 900_000), ("216p", 216, 400_000)]
            .map(|(name, height, bitrate)| Rendition {
                name: name.to_owned(),
                height,
                bitrate,
                codec: VideoCodec::H264,
            })
            .to_vec(),
    );
    let choices = [
        (1080, Ladder::default_for(1080, false), Preset::Superfast, 1.0),
        (720, Ladder::default_for(720, false), Preset::Superfast, 1.0),
        (540, small, Preset::Ultrafast, ULTRAFAST),
    ];
    let limit = input.unwrap_or(1080).max(216);
    let mut chosen = None;
    for (height, ladder, preset, cost) in choices {
        let ladder = ladder.never_upscaled(limit);
        let load = load_of(caps, input.unwrap_or(height), &ladder);
        let names = ladder.0.iter().map(|r| r.name.as_str()).collect::<Vec<_>>().join(" ");
        let why = format!("{names}, about {:.0} % of this machine's {} CPUs", load * cost * 100.0, caps.cpus);
        chosen = Some((height, ladder, preset, why));
        if load * cost <= LOAD_MAX {
            break;
        }
    }
    // The list of choices is not empty.
    let (height, ladder, preset, why) = chosen.expect("there is a smallest ladder");
    let bitrate = if height >= 1080 { 6_000_000 } else { 3_000_000 };
    let pattern = Pattern { width: height * 16 / 9, height, cadence, bitrate, tone_hz: 440 };
    Plan { ladder, preset, pattern, why }
}

fn configured(name: &str, key: &str, mode: LatencyMode, plan: &Plan) -> Configured {
    let mut config = ChannelConfig::new(ChannelName::new(name).expect("a good name"));
    config.profile.mode = mode;
    config.profile.ladder = Some(plan.ladder.clone());
    config.profile.preset = Some(plan.preset);
    Configured { config, key: KeyDigest::of(key), passphrase: None, logo: None }
}

/// Rows of the first picture in a file.
fn height_of(file: &Path) -> Result<u32, Failure> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let open = std::fs::File::open(file).and_then(|f| f.take(LOOK_AHEAD as u64).read_to_end(&mut bytes));
    open.map_err(|e| Failure::usage(format!("{}: {e}", file.display())))?;
    let mut demuxer = Demuxer::new();
    demuxer.push(Mono(0), &bytes);
    demuxer.flush(Mono(0));
    while let Some(event) = demuxer.poll() {
        if let Event::Config { config: TrackConfig::Video(video), .. } = event {
            return Ok(video.height);
        }
    }
    let what = "holds no H.264 picture in its first 8 MB; make it an MPEG transport stream (ffmpeg -i … -f mpegts)";
    Err(Failure::usage(format!("{}: {what}", file.display())))
}

/// The demo's state, gone with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Scratch, Failure> {
        let folder = std::env::temp_dir().join(format!("rung-demo-{:032x}", random::bits()));
        let made = std::fs::DirBuilder::new().mode(0o700).create(&folder);
        made.map_err(|e| Failure::failed(format!("{}: {e}", folder.display())))?;
        Ok(Scratch(folder))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Nothing is lost with what stays: the system clears its folder for temporary files.
        drop(std::fs::remove_dir_all(&self.0));
    }
}

fn free_tcp(wanted: SocketAddr) -> SocketAddr {
    if TcpListener::bind(wanted).is_ok() { wanted } else { SocketAddr::new(wanted.ip(), 0) }
}

fn free_udp(wanted: SocketAddr) -> SocketAddr {
    if UdpSocket::bind(wanted).is_ok() { wanted } else { SocketAddr::new(wanted.ip(), 0) }
}
