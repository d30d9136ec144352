//! `rung.toml` (+ `rung.d/*.toml` beside it): every key has a default, unknown keys are refused with the nearest known one.

use serde::Deserialize;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::lifecycle;
use super::record::{ChannelConfig, LogoImage, LogoSettings, Preset, Slate};
use crate::media::captions::CaptionService;
use crate::media::channel::{BackendPolicy, ChannelKind, ChannelName, Ladder, Takeover};
use crate::media::crop::Margins;
use crate::media::key::{KeyDigest, Passphrase, is_publish_key};
use crate::media::limits::{CONNECTIONS_PER_ADDRESS, SLATE_BYTES_MAX, WORKER_SILENCE_GPU};
use crate::media::logo::{LogoPixels, LogoPlace};
use crate::media::modes::LatencyMode;
use crate::media::networks::Networks;
use crate::media::playback::PlaybackPolicy;
use crate::media::steering::Steering;
use crate::pipeline::ports::PullUrl;
use crate::serve::{Pair, certificate};

/// The whole configuration. `Config::default()` is an empty file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    pub srt: Srt,
    pub quic: Quic,
    pub ingest: Ingest,
    pub http: Http,
    pub https: Https,
    pub metrics: Metrics,
    pub worker: Worker,
    pub log: Log,
    pub state: State,
    pub bootstrap: Bootstrap,
}

impl Config {
    /// What one file says; `file` is what errors name.
    ///
    /// # Errors
    /// The first thing that is wrong, with its line.
    pub fn of_text(file: &Path, text: &str) -> Result<Config, ConfigError> {
        parse(file, text)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Srt {
    /// UDP address of the one SRT port.
    pub listen: SocketAddr,
    /// File with the passphrase (10 to 79 characters) that every publisher must use; none: unencrypted.
    pub passphrase_file: Option<PathBuf>,
}

/// QUIC: on, with a certificate of its own unless one is given.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Quic {
    pub enabled: bool,
    /// UDP address of the one QUIC port.
    pub listen: SocketAddr,
    /// PEM file with the chain; none: one of its own, kept in the state folder, which publishers pin.
    pub certificate: Option<PathBuf>,
    /// PEM file with its key.
    pub key: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct State {
    /// Where channels, sessions and events are kept; made if it is not there. Relative to the configuration file, without
    /// one to where the daemon was started.
    pub folder: PathBuf,
}

impl Default for State {
    fn default() -> Self {
        State { folder: PathBuf::from("rung-data") }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Http {
    pub listen: SocketAddr,
    /// Connections at once from one IPv4 address or one IPv6 network of 64 bits, HTTPS included.
    pub connections_per_address: Connections,
    /// Networks that this does not hold for.
    pub trusted: Networks,
}

/// HTTPS: off without a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Https {
    pub listen: SocketAddr,
    /// PEM file with the chain, or a list of `{ chain, key }`, the first one for clients that name no host of theirs.
    pub certificate: Certificates,
    /// PEM file with the key of the one certificate.
    pub key: Option<PathBuf>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Certificates {
    #[default]
    None,
    One(PathBuf),
    Several(Vec<ChainAndKey>),
}

/// One `[[https.certificate]]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChainAndKey {
    pub chain: PathBuf,
    pub key: PathBuf,
}

impl<'de> Deserialize<'de> for Certificates {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> serde::de::Visitor<'de> for Visit {
            type Value = Certificates;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a file, or [[https.certificate]] with chain and key")
            }

            fn visit_str<E: serde::de::Error>(self, file: &str) -> Result<Certificates, E> {
                Ok(Certificates::One(file.into()))
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Certificates, A::Error> {
                let mut all = Vec::new();
                while let Some(one) = seq.next_element()? {
                    all.push(one);
                }
                Ok(Certificates::Several(all))
            }
        }
        d.deserialize_any(Visit)
    }
}

/// 1 to 1,000,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connections(pub usize);

impl<'de> Deserialize<'de> for Connections {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let count = i64::deserialize(d)?;
        match usize::try_from(count) {
            Ok(count @ 1..=1_000_000) => Ok(Connections(count)),
            _ => Err(serde::de::Error::custom(format!("connections_per_address = {count}: write 1 to 1000000"))),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Metrics {
    pub listen: SocketAddr,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Worker {
    /// The `rung-worker` program; none: the one beside `rung`.
    pub program: Option<PathBuf>,
    /// Where channels run that do not say so themselves.
    pub backend: BackendPolicy,
    /// How long a GPU's worker may be silent or inside one call of the driver before it is replaced, milliseconds.
    pub gpu_patience_ms: Patience,
    /// Where libcuda.so.1 and its siblings lie, if not where the loader looks. Relative to the configuration file.
    pub driver_folder: Option<PathBuf>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ingest {
    /// Threads that media runs on, from datagrams to parts; none: by the number of cores.
    pub shards: Option<ShardCount>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `info,rung::ingest=debug`.
    pub level: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Bootstrap {
    pub channel: Vec<BootstrapChannel>,
}

/// One `[[bootstrap.channel]]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootstrapChannel {
    pub name: ChannelName,
    #[serde(default)]
    pub kind: ChannelKind,
    #[serde(default)]
    pub mode: LatencyMode,
    #[serde(default)]
    pub ladder: Option<Ladder>,
    /// PART-HOLD-BACK in seconds, `ultra` only.
    #[serde(default)]
    pub hold_back: Option<Seconds>,
    /// How far back viewers may go, seconds; none: the mode's window.
    #[serde(default)]
    pub window_s: Option<u32>,
    /// Where players begin, seconds from the end, below zero.
    #[serde(default)]
    pub start_offset_s: Option<i32>,
    /// Origins that players are steered to.
    #[serde(default)]
    pub steering: Option<Steering>,
    #[serde(default)]
    pub takeover: Takeover,
    /// 0 to 1800; none: the mode's.
    #[serde(default)]
    pub reconnect_window_s: Option<u64>,
    #[serde(default)]
    pub end_on_eos: bool,
    /// Where an SRT source listens that Rung calls.
    #[serde(default)]
    pub pull: Option<PullUrl>,
    /// Who may watch.
    #[serde(default)]
    pub playback_policy: PlaybackPolicy,
    /// PNG or JPEG file; none: black.
    #[serde(default)]
    pub slate: Option<PathBuf>,
    /// Cut off the source's picture, luma samples.
    #[serde(default)]
    pub crop: Option<Margins>,
    /// Closed captions that players are told of; none: what the source carries; `[]`: there are none.
    #[serde(default)]
    pub captions: Option<Vec<CaptionService>>,
    /// Players find a variant of sound alone beside the pictures; none: they do.
    #[serde(default)]
    pub audio_only: Option<bool>,
    /// PNG file that lies over every rendition.
    #[serde(default)]
    pub logo: Option<PathBuf>,
    /// Where it lies.
    #[serde(default)]
    pub logo_place: Option<LogoPlace>,
    #[serde(default)]
    pub preset: Option<Preset>,
    /// Where it may run; none: `worker.backend`.
    #[serde(default)]
    pub backend: Option<BackendPolicy>,
    /// File whose first line is the publish key.
    #[serde(default)]
    pub key_file: Option<PathBuf>,
    /// SHA-256 of the publish key, 64 hexadecimal digits.
    #[serde(default)]
    pub key_sha256: Option<String>,
    /// File whose first line is what SRT publishers of this channel encrypt with; none: `srt.passphrase_file`.
    #[serde(default)]
    pub passphrase_file: Option<PathBuf>,
    /// Networks that publishers may come from; none: from anywhere.
    #[serde(default)]
    pub publish_from: Option<Networks>,
}

/// 100 to 60,000 ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience(pub u64);

impl Default for Patience {
    fn default() -> Self {
        Patience(u64::try_from(WORKER_SILENCE_GPU.as_millis()).unwrap_or(u64::MAX))
    }
}

impl<'de> Deserialize<'de> for Patience {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let ms = u64::deserialize(d)?;
        if (100..=60_000).contains(&ms) {
            return Ok(Patience(ms));
        }
        Err(serde::de::Error::custom(format!("gpu_patience_ms = {ms}: write milliseconds from 100 to 60000")))
    }
}

/// Seconds with a fraction, kept as milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seconds(pub u32);

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let seconds = f64::deserialize(d)?;
        if (1.2..=60.0).contains(&seconds) {
            Ok(Seconds((seconds * 1000.0).round() as u32))
        } else {
            Err(serde::de::Error::custom(format!("hold_back = {seconds}: write seconds from 1.2 to 60")))
        }
    }
}

/// Threads that media runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "i64")]
pub struct ShardCount(pub usize);

impl ShardCount {
    const MAX: usize = 64;

    /// One for each four of `cores`, eight at most: the other cores encode and serve.
    pub fn by_cores(cores: usize) -> ShardCount {
        ShardCount((cores / 4).clamp(1, 8))
    }
}

impl TryFrom<i64> for ShardCount {
    type Error = String;

    fn try_from(count: i64) -> Result<ShardCount, String> {
        let fits = usize::try_from(count).ok().filter(|count| (1..=ShardCount::MAX).contains(count));
        fits.map(ShardCount)
            .ok_or_else(|| format!("shards = {count}: write a number of threads from 1 to {}", ShardCount::MAX))
    }
}

impl Default for Srt {
    fn default() -> Self {
        Srt { listen: SocketAddr::from(([0u16; 8], 9000)), passphrase_file: None }
    }
}

impl Default for Quic {
    fn default() -> Self {
        Quic { enabled: true, listen: SocketAddr::from(([0u16; 8], 9443)), certificate: None, key: None }
    }
}

impl Default for Http {
    fn default() -> Self {
        Http {
            listen: SocketAddr::from(([0u16; 8], 8080)),
            connections_per_address: Connections(CONNECTIONS_PER_ADDRESS),
            trusted: Networks::loopback(),
        }
    }
}

impl Default for Https {
    fn default() -> Self {
        Https { listen: SocketAddr::from(([0u16; 8], 8443)), certificate: Certificates::None, key: None }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics { listen: SocketAddr::from(([127, 0, 0, 1], 9464)) }
    }
}

impl Default for Log {
    fn default() -> Self {
        Log { format: LogFormat::Text, level: "info".into() }
    }
}

/// A configuration that cannot be used: where, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    pub file: PathBuf,
    /// 1-based; `None` where the trouble is no place in the file.
    pub line: Option<usize>,
    pub what: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}", self.what)
    }
}

impl std::error::Error for ConfigError {}

/// A channel to be made unless there is one of its name, and the hash of its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configured {
    pub config: ChannelConfig,
    pub key: KeyDigest,
    /// Of its own, for SRT.
    pub passphrase: Option<Passphrase>,
    /// The PNG that its configuration names.
    pub logo: Option<bytes::Bytes>,
}

/// A configuration that was read, checked and resolved: every file it names has been read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    pub config: Config,
    pub channels: Vec<Configured>,
    pub srt_passphrase: Option<Passphrase>,
    /// What HTTPS is served with; empty: it is off.
    pub certificates: Vec<Pair>,
    /// What QUIC is served with; `None`: a certificate of its own.
    pub quic_certificate: Option<Pair>,
    /// What an operator should know of them.
    pub warnings: Vec<String>,
}

impl Loaded {
    /// Reads `path` and the `rung.d/*.toml` beside it (in name order; later files win, channels add up).
    ///
    /// # Errors
    /// The first thing that is wrong, with file and line.
    pub fn read(path: &Path) -> Result<Loaded, ConfigError> {
        let mut files = vec![path.to_path_buf()];
        files.extend(drop_ins(path)?);
        let mut merged = toml::Table::new();
        for file in &files {
            let text = std::fs::read_to_string(file).map_err(|e| error(file, None, format!("cannot be read: {e}")))?;
            // Each file alone is a valid configuration, so that an error names its own line.
            Config::of_text(file, &text)?;
            let table: toml::Table = parse(file, &text)?;
            merge(&mut merged, table);
        }
        let config: Config = Config::deserialize(merged)
            .map_err(|e| error(path, None, format!("with rung.d: {}", explain(e.message()))))?;
        resolve(config, path)
    }

    /// What an empty file means.
    pub fn empty() -> Loaded {
        Loaded {
            config: Config::default(),
            channels: Vec::new(),
            srt_passphrase: None,
            certificates: Vec::new(),
            quic_certificate: None,
            warnings: Vec::new(),
        }
    }
}

fn drop_ins(path: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let folder = path.with_file_name("rung.d");
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(error(&folder, None, format!("cannot be listed: {e}"))),
    };
    let mut files: Vec<PathBuf> =
        entries.filter_map(|e| Some(e.ok()?.path())).filter(|p| p.extension().is_some_and(|x| x == "toml")).collect();
    files.sort();
    Ok(files)
}

fn parse<T: for<'de> Deserialize<'de>>(file: &Path, text: &str) -> Result<T, ConfigError> {
    toml::from_str(text).map_err(|e| {
        let line = e.span().map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
        error(file, line, explain(e.message()))
    })
}

/// serde's words, with the nearest known name added to "unknown field/variant".
fn explain(message: &str) -> String {
    let mut names = message.split('`').skip(1).step_by(2);
    let unknown = message.starts_with("unknown field") || message.starts_with("unknown variant");
    let (Some(found), true) = (names.next(), unknown) else { return message.to_owned() };
    let kind = if message.starts_with("unknown field") { "key" } else { "value" };
    let known: Vec<&str> = names.collect();
    let list = known.join(", ");
    match nearest(found, known.iter().copied()) {
        Some(name) => format!("unknown {kind} `{found}`: did you mean `{name}`? (known here: {list})"),
        None if known.is_empty() => format!("unknown {kind} `{found}`"),
        None => format!("unknown {kind} `{found}`: known here are {list}"),
    }
}

/// The known name that was probably meant.
pub(super) fn nearest<'a>(found: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // Lengths that differ by more are further apart than that: a name of a megabyte costs nothing.
    let (length, most) = (found.chars().count(), |name: &str| 1 + name.len() / 3);
    let close = known.filter(|name| name.len().abs_diff(length) <= most(name));
    let close = close.map(|name| (strsim::damerau_levenshtein(name, found), name));
    close.filter(|(distance, name)| *distance <= most(name)).min().map(|(_, name)| name)
}

fn merge(into: &mut toml::Table, from: toml::Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(toml::Value::Table(a)), toml::Value::Table(b)) => merge(a, b),
            (Some(toml::Value::Array(a)), toml::Value::Array(b)) => a.extend(b),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

fn resolve(mut config: Config, path: &Path) -> Result<Loaded, ConfigError> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let srt_passphrase = passphrase(config.srt.passphrase_file.as_deref(), path, folder, "srt.passphrase_file")?;
    let mut channels: Vec<Configured> = Vec::new();
    for entry in &config.bootstrap.channel {
        let configured = resolve_channel(entry, path, folder)?;
        if channels.iter().any(|c| c.config.name == entry.name) {
            return Err(error(path, None, format!("channel \"{}\" is there twice: names are unique", entry.name)));
        }
        channels.push(configured);
    }
    let certificates = certificate_pairs(&config.https, path, folder)?;
    let read = certificate::load(&certificates).map_err(|trouble| error(path, None, format!("https: {trouble}")))?;
    let quic_certificate = quic_pair(&config.quic, path, folder)?;
    let quic_read = certificate::load(quic_certificate.as_slice());
    let quic_read = quic_read.map_err(|trouble| error(path, None, format!("quic: {trouble}")))?;
    let warnings = certificate::warnings(&read).into_iter().chain(certificate::warnings(&quic_read));
    let warnings = warnings.map(|trouble| trouble.to_string()).collect();
    config.state.folder = folder.join(&config.state.folder);
    config.worker.driver_folder = config.worker.driver_folder.map(|lies| absolute(folder, &lies));
    Ok(Loaded { config, channels, srt_passphrase, certificates, quic_certificate, warnings })
}

fn passphrase(file: Option<&Path>, path: &Path, folder: &Path, what: &str) -> Result<Option<Passphrase>, ConfigError> {
    let Some(file) = file else { return Ok(None) };
    let read = Passphrase::new(&first_line(path, &folder.join(file), what)?);
    read.map(Some).map_err(|why| error(path, None, format!("{what}: {} {why}", file.display())))
}

/// The files that HTTPS is served with.
fn certificate_pairs(https: &Https, path: &Path, folder: &Path) -> Result<Vec<Pair>, ConfigError> {
    let pair = |chain: &Path, key: &Path| Pair { certificate: absolute(folder, chain), key: absolute(folder, key) };
    let wrong = |what: &str| Err(error(path, None, what.to_owned()));
    match (&https.certificate, &https.key) {
        (Certificates::None, None) => Ok(Vec::new()),
        (Certificates::None, Some(_)) => {
            wrong("https.key without https.certificate: give both, or neither for no HTTPS")
        }
        (Certificates::One(_), None) => wrong("https.certificate without https.key: give the file of its private key"),
        (Certificates::One(chain), Some(key)) => Ok(vec![pair(chain, key)]),
        (Certificates::Several(_), Some(_)) => wrong("https.key beside [[https.certificate]]: give each its own key"),
        (Certificates::Several(all), None) => Ok(all.iter().map(|one| pair(&one.chain, &one.key)).collect()),
    }
}

/// The files that QUIC is served with.
fn quic_pair(quic: &Quic, path: &Path, folder: &Path) -> Result<Option<Pair>, ConfigError> {
    match (&quic.certificate, &quic.key) {
        (None, None) => Ok(None),
        (Some(chain), Some(key)) => Ok(Some(Pair { certificate: absolute(folder, chain), key: absolute(folder, key) })),
        (Some(_), None) => {
            Err(error(path, None, "quic.certificate without quic.key: give the file of its private key".into()))
        }
        (None, Some(_)) => {
            let what = "quic.key without quic.certificate: give both, or neither for a certificate of Rung's own";
            Err(error(path, None, what.into()))
        }
    }
}

fn resolve_channel(entry: &BootstrapChannel, path: &Path, folder: &Path) -> Result<Configured, ConfigError> {
    let wrong = |what: String| error(path, None, format!("channel \"{}\": {what}", entry.name));
    let digest = match (&entry.key_file, &entry.key_sha256) {
        (Some(_), Some(_)) => return Err(wrong("give key_file or key_sha256, not both".into())),
        (None, None) => {
            return Err(wrong(
                "needs a publish key: key_file = \"news.key\" (26 characters a-z 0-9) or \
                              key_sha256 = \"<sha256sum of the key>\""
                    .into(),
            ));
        }
        (Some(file), None) => {
            let key = first_line(path, &folder.join(file), &format!("channel \"{}\": key_file", entry.name))?;
            if !is_publish_key(&key) {
                return Err(wrong(format!(
                    "key_file {} holds {} characters; a publish key is 26 of a-z and 0-9",
                    file.display(),
                    key.len()
                )));
            }
            KeyDigest::of(&key)
        }
        (None, Some(hex)) => KeyDigest::from_hex(hex)
            .ok_or_else(|| wrong("key_sha256 wants 64 hexadecimal digits, as sha256sum prints them".into()))?,
    };
    let what = format!("channel \"{}\": passphrase_file", entry.name);
    let passphrase = passphrase(entry.passphrase_file.as_deref(), path, folder, &what)?;
    let config = ChannelConfig::from(entry);
    if let Some(first) = lifecycle::check(&config).into_iter().next() {
        return Err(wrong(first.detail));
    }
    let mut config = config;
    if let Some(file) = &entry.slate {
        let file = absolute(folder, file);
        read_slate(&file).map_err(|what| wrong(format!("slate: {what}")))?;
        config.profile.slate = Slate::File(file.to_string_lossy().into_owned());
    }
    let mut logo = None;
    if let Some(file) = &entry.logo {
        let file = absolute(folder, file);
        let png = std::fs::read(&file).map_err(|e| wrong(format!("logo: {} cannot be read: {e}", file.display())))?;
        let pixels = LogoPixels::read(&png).map_err(|e| wrong(format!("logo: {}: {e}", file.display())))?;
        config.policy.logo.get_or_insert_default().image = Some(LogoImage::of(&png, pixels.size()));
        logo = Some(png.into());
    }
    if let Some(first) = lifecycle::check(&config).into_iter().next() {
        return Err(wrong(first.detail));
    }
    Ok(Configured { config, key: digest, passphrase, logo })
}

/// What the file does not say has its default.
impl From<&BootstrapChannel> for ChannelConfig {
    fn from(entry: &BootstrapChannel) -> ChannelConfig {
        let mut config = ChannelConfig::new(entry.name.clone());
        config.profile.kind = entry.kind;
        config.profile.mode = entry.mode;
        config.profile.ladder = entry.ladder.clone();
        config.profile.hold_back_ms = entry.hold_back.map(|s| s.0);
        config.profile.window_s = entry.window_s;
        config.profile.start_offset_s = entry.start_offset_s;
        config.policy.steering = entry.steering.clone();
        config.profile.preset = entry.preset;
        config.profile.backend = entry.backend;
        config.profile.crop = entry.crop;
        config.profile.audio_only = entry.audio_only.unwrap_or(config.profile.audio_only);
        config.profile.captions = entry.captions.clone();
        config.policy.logo = entry.logo_place.map(|place| LogoSettings { place, image: None });
        config.policy.takeover = entry.takeover;
        config.policy.reconnect_window_s = entry.reconnect_window_s.map(|s| u32::try_from(s).unwrap_or(u32::MAX));
        config.policy.end_on_eos = entry.end_on_eos;
        config.policy.pull = entry.pull.clone();
        config.policy.playback_policy = entry.playback_policy;
        config.policy.publish_from = entry.publish_from.clone();
        config
    }
}

/// A picture for a slate. The daemon reads the file; only a worker looks into it.
///
/// # Errors
/// A sentence about the file.
pub fn read_slate(file: &Path) -> Result<bytes::Bytes, String> {
    let name = file.display();
    let bytes = std::fs::read(file).map_err(|e| format!("{name} cannot be read: {e}"))?;
    if bytes.len() > SLATE_BYTES_MAX {
        return Err(format!("{name} has {} bytes; up to {SLATE_BYTES_MAX} are taken", bytes.len()));
    }
    if !(bytes.starts_with(b"\x89PNG\r\n\x1a\n") || bytes.starts_with(&[0xff, 0xd8, 0xff])) {
        return Err(format!("{name} is neither a PNG nor a JPEG file"));
    }
    Ok(bytes.into())
}

/// What a path of the file means, wherever a worker is started.
fn absolute(folder: &Path, path: &Path) -> PathBuf {
    std::path::absolute(folder.join(path)).unwrap_or_else(|_| folder.join(path))
}

fn first_line(config: &Path, file: &Path, what: &str) -> Result<String, ConfigError> {
    let text = std::fs::read_to_string(file)
        .map_err(|e| error(config, None, format!("{what}: {} cannot be read: {e}", file.display())))?;
    Ok(text.lines().next().unwrap_or("").trim().to_owned())
}

fn error(file: &Path, line: Option<usize>, what: String) -> ConfigError {
    ConfigError { file: file.to_path_buf(), line, what }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Loaded, ConfigError> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("rung.toml");
        std::fs::write(&file, text).expect("writable");
        std::fs::write(folder.path().join("news.key"), "abcdefghijklmnopqrstuvwx12\n").expect("writable");
        Loaded::read(&file)
    }

    fn refusal(text: &str) -> String {
        let e = read(text).expect_err("must be refused");
        format!("{}: {}", e.line.map_or("-".into(), |l| l.to_string()), e.what)
    }

    #[test]
    fn an_empty_file_is_the_default() {
        let read = read("").expect("valid");
        assert_eq!((read.config.http, read.channels.len()), (Loaded::empty().config.http, 0));
    }

    #[test]
    fn the_annotated_example_in_the_repository_is_valid() {
        let text = include_str!("../../rung.toml");
        let _: Config = toml::from_str(text).expect("rung.toml as shipped");
        // Every commented-out key must be valid too.
        let all: String = text
            .lines()
            .map(|l| l.strip_prefix("# ").filter(|l| l.contains(" = ") || l.starts_with('[')).unwrap_or(l))
            .collect::<Vec<_>>()
            .join("\n");
        let everything: Config = toml::from_str(&all).expect("rung.toml with every key switched on");
        assert!(!everything.bootstrap.channel.is_empty());
    }

    #[test]
    fn unknown_keys_are_refused_with_line_and_suggestion() {
        let what = refusal("[http]\nlisten = \"127.0.0.1:1\"\n\n[srt]\nlisen = \"127.0.0.1:1\"\n");
        assert!(what.starts_with("5: unknown key `lisen`: did you mean `listen`?"), "{what}");
        let what = refusal("[[bootstrap.channel]]\nname = \"a\"\nmode = \"ultraa\"\n");
        assert!(what.contains("did you mean `ultra`"), "{what}");
    }

    #[test]
    fn wrong_values_say_what_to_write() {
        for (text, part) in [
            ("[[bootstrap.channel]]\nname = \"News\"\nkey_file = \"news.key\"", "2: channel name \"News\": write"),
            ("[[bootstrap.channel]]\nname = \"a\"", "needs a publish key"),
            ("[[bootstrap.channel]]\nname = \"a\"\nkey_sha256 = \"12\"", "64 hexadecimal digits"),
            ("[[bootstrap.channel]]\nname = \"a\"\nkey_file = \"none.key\"", "cannot be read"),
            ("[[bootstrap.channel]]\nname = \"a\"\nkey_file = \"news.key\"\nhold_back = 0.5", "from 1.2 to 60"),
            (
                "[[bootstrap.channel]]\nname = \"a\"\nkey_file = \"news.key\"\nreconnect_window_s = 1801",
                "from 0 to 1800",
            ),
            ("[[bootstrap.channel]]\nname = \"a\"\nkey_file = \"news.key\"\nslate = \"news.key\"", "neither a PNG"),
            ("[[bootstrap.channel]]\nname = \"a\"\nkey_file = \"news.key\"\nslate = \"no.png\"", "cannot be read"),
            (
                "[[bootstrap.channel]]\nname = \"a\"\nkey_file = \"news.key\"\nwindow_s = 10",
                "write seconds from 12 to 21600",
            ),
            (
                "[[bootstrap.channel]]\nname = \"a\"\nkey_file = \"news.key\"\nstart_offset_s = -3",
                "write seconds from -30 to -6",
            ),
            (
                "[[bootstrap.channel]]\nname = \"a\"\nkey_file = \"news.key\"\nsteering = { pathways = [{ id = \"a b\", base = \"\" }] }",
                "letters, digits",
            ),
            ("[srt]\nlisten = \"nowhere\"", "2: "),
            ("[srt", "1: "),
            ("[http]\nconnections_per_address = 0", "2: connections_per_address = 0: write 1 to 1000000"),
            ("[http]\ntrusted = [\"10.0.0.0/33\"]", "is no network: write"),
            ("[https]\nkey = \"news.key\"", "https.key without https.certificate"),
            ("[https]\ncertificate = \"a.pem\"", "https.certificate without https.key"),
            ("[https]\ncertificate = \"a.pem\"\nkey = \"news.key\"", "a.pem: cannot be read: No such file"),
            ("[https]\ncertificate = \"news.key\"\nkey = \"news.key\"", "news.key: holds no certificate: give PEM"),
            ("[https]\nkey = \"k\"\n[[https.certificate]]\nchain = \"a\"\nkey = \"b\"", "give each its own key"),
            ("[[https.certificate]]\nchain = \"a\"\nkee = \"b\"", "3: unknown key `kee`: did you mean `key`?"),
            ("[https]\ncertificate = 3", "2: invalid type"),
            ("[quic]\nkey = \"news.key\"", "quic.key without quic.certificate"),
            ("[quic]\ncertificate = \"a.pem\"", "quic.certificate without quic.key"),
            ("[quic]\ncertificate = \"a.pem\"\nkey = \"news.key\"", "quic: "),
            ("[quic]\nenabled = 1", "2: invalid type"),
            ("[quic]\nlissen = \"[::]:9443\"", "2: unknown key `lissen`: did you mean `listen`?"),
            (
                "[[bootstrap.channel]]\nname = \"a\"\nkey_file = \"news.key\"\n[[bootstrap.channel]]\nname = \"a\"\nkey_file = \"news.key\"",
                "twice",
            ),
            (
                "[[bootstrap.channel]]\nname = \"a\"\nkey_file = \"news.key\"\nladder = [{ name = \"odd\", height = 361, bitrate = 800000 }]",
                "even number",
            ),
        ] {
            let what = refusal(text);
            assert!(what.contains(part), "{text}\n-> {what}");
        }
    }

    #[test]
    fn what_stands_in_for_a_lost_source_follows_the_mode_unless_it_is_given() {
        let channel = |more: &str| {
            let text = format!("[[bootstrap.channel]]\nname = \"a\"\nkey_file = \"news.key\"\n{more}");
            read(&text).expect("valid").channels.remove(0).config
        };
        for (mode, seconds) in [("ultra", 10), ("low", 20), ("normal", 60)] {
            let channel = channel(&format!("mode = \"{mode}\""));
            let window = channel.policy.reconnect_window(&channel.profile);
            assert_eq!((window.as_secs(), channel.policy.end_on_eos), (seconds, false));
            assert_eq!(channel.profile.slate, Slate::Black);
        }
        let channel = channel("reconnect_window_s = 0\nend_on_eos = true\n");
        assert!(channel.policy.reconnect_window_s == Some(0) && channel.policy.end_on_eos);
    }

    #[test]
    fn the_driver_s_folder_is_meant_from_the_file() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("rung.toml");
        let driver_folder = |text: &str| {
            std::fs::write(&file, text).expect("writable");
            Loaded::read(&file).expect("valid").config.worker.driver_folder
        };
        assert_eq!(driver_folder(""), None);
        assert_eq!(driver_folder("[worker]\ndriver_folder = \"nv\""), Some(folder.path().join("nv")));
        assert_eq!(driver_folder("[worker]\ndriver_folder = \"/opt/nv\""), Some("/opt/nv".into()));
    }

    #[test]
    fn drop_ins_override_and_channels_add_up() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("rung.toml");
        let key = "60".repeat(32);
        std::fs::write(&file, format!("[[bootstrap.channel]]\nname = \"a\"\nkey_sha256 = \"{key}\""))
            .expect("writable");
        std::fs::create_dir(folder.path().join("rung.d")).expect("writable");
        let more =
            format!("[http]\nlisten = \"127.0.0.1:81\"\n[[bootstrap.channel]]\nname = \"b\"\nkey_sha256 = \"{key}\"");
        std::fs::write(folder.path().join("rung.d/10.toml"), more).expect("writable");
        let loaded = Loaded::read(&file).expect("valid");
        assert_eq!(loaded.config.http.listen.port(), 81);
        assert_eq!(loaded.channels.len(), 2);
        assert_eq!(Some(loaded.channels[0].key), KeyDigest::from_hex(&key));
    }
}
