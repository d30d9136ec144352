//! Every metric: its name, kind, labels and help, and the only calls into the `metrics` crate.
//!
//! Labels come from bounded sets. A channel label beyond [`CHANNELS_MAX`] becomes `_other`. Counters and histograms
//! are the exporter's; gauges live here as plain atomics and are handed over at each scrape, so that setting one is a
//! store, and those of a forgotten channel fade out by the exporter's idle time-out while the others stay.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, RwLock};
use std::time::Duration;

/// Distinct channel labels; the rest is `_other`.
pub const CHANNELS_MAX: usize = 2_000;

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Counter,
    Gauge,
    /// Upper bounds of the buckets.
    Histogram(&'static [f64]),
}

macro_rules! metrics_table {
    ($($name:ident = $text:literal, $kind:expr, [$($label:literal),*], $help:literal;)*) => {
        /// A metric's name. The order is that of the data's way through the box.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Metric { $(#[doc = $help] $name,)* }

        impl Metric {
            pub const ALL: &[Metric] = &[$(Metric::$name,)*];

            pub fn name(self) -> &'static str {
                match self { $(Metric::$name => $text,)* }
            }

            pub fn kind(self) -> Kind {
                match self { $(Metric::$name => $kind,)* }
            }

            pub fn help(self) -> &'static str {
                match self { $(Metric::$name => $help,)* }
            }

            /// The label names that it may carry.
            pub fn labels(self) -> &'static [&'static str] {
                match self { $(Metric::$name => &[$($label),*],)* }
            }
        }
    };
}

const LATENESS: Kind = Kind::Histogram(&[
    0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.12, 0.14, 0.16, 0.18, 0.2, 0.22, 0.24, 0.26, 0.28, 0.3, 0.33, 0.4,
    0.66, 1.5, 3.0, 10.0,
]);
const FRAME: Kind = Kind::Histogram(&[0.001, 0.002, 0.004, 0.008, 0.016, 0.033, 0.066, 0.133, 0.5, 2.0]);
const REQUEST: Kind = Kind::Histogram(&[0.0005, 0.002, 0.01, 0.05, 0.1, 0.2, 0.4, 0.8, 2.0, 6.0]);
const OPENING: Kind =
    Kind::Histogram(&[0.001, 0.002, 0.004, 0.006, 0.008, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.3, 1.0, 5.0]);
const COMMIT: Kind = Kind::Histogram(&[0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.2, 1.0, 5.0]);

metrics_table! {
    BuildInfo = "rung_build_info", Kind::Gauge, ["version", "profile_fp"], "Always 1; the version is in the label";
    Uptime = "rung_uptime_seconds", Kind::Gauge, [], "Seconds since the daemon started";
    SessionState = "rung_session_state", Kind::Gauge, ["channel", "state"], "1 for the state that a channel's session is in, 0 for the others";
    SessionOpenSeconds = "rung_session_open_seconds", OPENING, [], "From a publisher's admission to its session on disk";
    SessionTransitions = "rung_session_transitions_total", Kind::Counter, ["from", "to", "reason"], "State changes of sessions";
    InputReconnecting = "rung_input_reconnecting", Kind::Gauge, ["channel"], "1 while a session's source is lost and waited for";
    InputLosses = "rung_input_losses_total", Kind::Counter, ["channel"], "Times that a session lost its source";
    IngestLegUp = "rung_ingest_leg_up", Kind::Gauge, ["channel", "leg"], "1 while a publisher is connected on this leg";
    IngestLinks = "rung_ingest_links", Kind::Gauge, ["channel", "leg"], "Connections of the group (SRT bonding) that publishes on this leg";
    IngestBytes = "rung_ingest_bytes_total", Kind::Counter, ["channel", "leg"], "Transport stream bytes received from publishers";
    IngestLostPackets = "rung_ingest_lost_packets_total", Kind::Counter, ["channel", "leg", "kind"], "Packets of the contribution link detected as lost, recovered, rebuilt by a packet filter (these are among the recovered, too), or dropped as too late";
    IngestRtt = "rung_ingest_rtt_seconds", Kind::Gauge, ["channel", "leg"], "Round-trip time of the contribution link";
    IngestPtsJumps = "rung_ingest_pts_jumps_total", Kind::Counter, ["channel"], "Jumps of source time that began a new run";
    IngestRefusals = "rung_ingest_refusals_total", Kind::Counter, ["reason"], "Publishers refused";
    IngestPulls = "rung_ingest_pulls_total", Kind::Counter, ["channel", "kind"], "Steps of calls to sources that the box receives from: connected, on_air, lost, no_host, no_answer, refused, passphrase, unsupported, held_back";
    IngestPullConnected = "rung_ingest_pull_connected", Kind::Gauge, ["channel"], "1 while a source that the box calls is connected";
    IngestRejectedDatagrams = "rung_ingest_rejected_datagrams_total", Kind::Counter, ["kind"], "Datagrams of the SRT port that belong to no publisher or were dropped, by why";
    IngestQuicHandshakes = "rung_ingest_quic_handshakes_total", Kind::Counter, ["kind"], "Connections to the QUIC port, by what became of them: done, failed, limited (not answered), retried (sent back for a token), no_hello";
    IngestOverruns = "rung_ingest_overruns_total", Kind::Counter, ["channel", "stage"], "Times that a bounded queue on the way in was full and units were skipped";
    Faults = "rung_faults_total", Kind::Counter, ["channel", "kind"], "Faults found in the input, by kind";
    Markers = "rung_markers_total", Kind::Counter, ["channel", "kind"], "Cues and timed ID3 tags of the source, by command";
    MarkersRepeated = "rung_markers_repeated_total", Kind::Counter, ["channel"], "Cues that said again what was known";
    MarkersDropped = "rung_markers_dropped_total", Kind::Counter, ["channel", "reason"], "Cues and timed tags of which nothing came, by why";
    TimelinePdtError = "rung_timeline_pdt_error_seconds", Kind::Gauge, ["channel"], "PROGRAM-DATE-TIME of the newest frame minus its arrival";
    DecodeFrames = "rung_decode_frames_total", Kind::Counter, ["channel"], "Frames out of the decoder";
    EncodeFrames = "rung_encode_frames_total", Kind::Counter, ["channel", "rendition"], "Frames out of the encoder";
    EncodeFrameSeconds = "rung_encode_frame_seconds", FRAME, ["channel", "rendition"], "From decoded picture to encoded frame";
    FramesDropped = "rung_frames_dropped_total", Kind::Counter, ["channel", "stage"], "Frames dropped, by the stage that dropped them";
    FramesRepeated = "rung_frames_repeated_total", Kind::Counter, ["channel"], "Frames shown again because the source had none in time";
    RenditionShed = "rung_rendition_shed", Kind::Gauge, ["channel", "rendition"], "1 while the governor has this rendition shed";
    RenditionSheds = "rung_rendition_sheds_total", Kind::Counter, ["channel", "rendition"], "Times that a rendition was shed for lack of time";
    WorkerUp = "rung_worker_up", Kind::Gauge, ["channel"], "1 while the channel's worker answers";
    WorkerRespawns = "rung_worker_respawns_total", Kind::Counter, ["channel", "reason"], "Workers replaced, by why";
    WorkerCpu = "rung_worker_cpu_seconds", Kind::Gauge, ["channel"], "Processor time of the channel's present worker";
    WorkerMemory = "rung_worker_memory_bytes", Kind::Gauge, ["channel"], "Resident memory of the channel's worker";
    WorkerSandboxed = "rung_worker_sandboxed", Kind::Gauge, ["channel"], "1 if the kernel grants the whole sandbox, 0 if a part is missing";
    Pictures = "rung_pictures_total", Kind::Counter, ["channel", "kind"], "Posters, storyboard tiles and snapshots made";
    PicturesSkipped = "rung_pictures_skipped_total", Kind::Counter, ["channel"], "Posters and storyboard tiles left out because the one before was still being made";
    CaptionsLost = "rung_captions_lost_total", Kind::Counter, ["channel"], "Caption constructs for which no picture had room in time";
    WorkerProcesses = "rung_worker_processes", Kind::Gauge, ["gpu"], "Worker processes that channels of this GPU share";
    WorkerSeats = "rung_worker_seats", Kind::Gauge, ["gpu"], "Channels in them";
    GpuUp = "rung_gpu_up", Kind::Gauge, ["gpu"], "1 while the GPU is well, 0 while it is ill or lost";
    GpuUtilization = "rung_gpu_utilization_ratio", Kind::Gauge, ["gpu"], "Part of the time in which a kernel ran on the GPU";
    GpuEncoder = "rung_gpu_encoder_ratio", Kind::Gauge, ["gpu"], "Part of the time in which the GPU's encoders were busy";
    GpuDecoder = "rung_gpu_decoder_ratio", Kind::Gauge, ["gpu"], "Part of the time in which the GPU's decoders were busy";
    GpuMemory = "rung_gpu_memory_bytes", Kind::Gauge, ["gpu", "kind"], "Memory of the GPU, used and total";
    GpuTemperature = "rung_gpu_temperature_celsius", Kind::Gauge, ["gpu"], "Temperature of the GPU";
    GpuPower = "rung_gpu_power_watts", Kind::Gauge, ["gpu"], "Power that the GPU draws";
    GpuErrors = "rung_gpu_errors_total", Kind::Counter, ["gpu", "xid"], "Errors of the GPU that the driver told, by its number for them";
    GpuMonitorRespawns = "rung_gpu_monitor_respawns_total", Kind::Counter, ["reason"], "Times that the process which watches the GPUs was replaced, by why";
    PictureCopies = "rung_picture_copies_total", Kind::Counter, ["channel"], "Copies of full pictures between host and device";
    ChannelBackend = "rung_channel_backend", Kind::Gauge, ["channel", "backend"], "1 for the backend that makes the channel's pictures, 0 for the others";
    ChannelFallbackStep = "rung_channel_fallback_step", Kind::Gauge, ["channel"], "0 = on its first choice of device; each step down adds 1";
    PipelineLatency = "rung_pipeline_latency_seconds", LATENESS, ["channel", "stage"], "Time a frame needs for a stage; stage=whole is from the socket to the published part";
    LastPartPublished = "rung_channel_last_part_published_timestamp_seconds", Kind::Gauge, ["channel"], "Unix time at which the channel last made a part, listed or not";
    PartPublishLateness = "rung_part_publish_lateness_seconds", LATENESS, ["channel"], "Publication of a part minus the moment at which its last frame was due";
    PartsPublished = "rung_parts_published_total", Kind::Counter, ["channel", "rendition"], "Parts published";
    WindowBytes = "rung_window_bytes", Kind::Gauge, ["channel"], "Bytes of media held for the channel's players";
    HttpRequests = "rung_http_requests_total", Kind::Counter, ["route", "code"], "HTTP requests answered";
    HttpRequestSeconds = "rung_http_request_seconds", REQUEST, ["route"], "From a request's head to the head of its answer, blocking reloads included";
    HttpBlocked = "rung_http_blocked_requests", Kind::Gauge, [], "Requests that wait for media or playlists now";
    HttpConnections = "rung_http_connections", Kind::Gauge, [], "Open HTTP connections";
    HttpConnectionsClosed = "rung_http_connections_closed_total", Kind::Counter, ["reason"], "Connections that Rung closed, by why";
    TlsHandshakes = "rung_tls_handshakes_total", Kind::Counter, ["kind"], "TLS handshakes that succeeded: full, or resumed from a ticket";
    TlsHandshakeFailures = "rung_tls_handshake_failures_total", Kind::Counter, ["reason"], "TLS handshakes that failed, by why";
    TlsHandshakesOpen = "rung_tls_handshakes_open", Kind::Gauge, [], "TLS handshakes under way now";
    TlsCertificateExpiry = "rung_tls_certificate_expiry_timestamp_seconds", Kind::Gauge, [], "When the first of the served certificates ends, seconds since 1970";
    TlsReloadFailed = "rung_tls_certificate_reload_failed", Kind::Gauge, [], "1 while the certificate files cannot be used and those read before them are served";
    TlsReloads = "rung_tls_certificate_reloads_total", Kind::Counter, ["state"], "Times that changed certificate files were read: ok or failed";
    PlaybackDenied = "rung_playback_denied_total", Kind::Counter, ["reason"], "Requests for a signed channel that brought no good signature, by why";
    EgressBytes = "rung_egress_bytes_total", Kind::Counter, [], "Bytes of answers handed to sockets";
    LmdbCommitSeconds = "rung_lmdb_commit_seconds", COMMIT, ["env"], "Time that a group commit of the state store took until it was on disk";
    LmdbMapUsed = "rung_lmdb_map_used_ratio", Kind::Gauge, ["env"], "Part of the state store's map that is in use; it grows by itself";
    LmdbOldestReader = "rung_lmdb_oldest_reader_seconds", Kind::Gauge, ["env"], "Age of the oldest open read of the state store";
    LmdbReaders = "rung_lmdb_readers", Kind::Gauge, ["env"], "Open reads of the state store";
    LmdbCorruptRows = "rung_lmdb_corrupt_rows_total", Kind::Counter, ["env"], "Rows of the state store found damaged, counted each time they are met";
}

/// A label with a value from a bounded set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label<'a> {
    Channel(&'a str),
    Rendition(&'a str),
    Leg(&'static str),
    Kind(&'static str),
    Stage(&'static str),
    State(&'static str),
    From(&'static str),
    To(&'static str),
    Reason(&'static str),
    Route(&'static str),
    Code(&'static str),
    Env(&'static str),
    Backend(&'static str),
    /// Index: as the driver counts, or the daemon's number for it.
    Gpu(&'a str),
    Xid(&'a str),
    Version(&'static str),
    ProfileFingerprint(&'a str),
}

impl Label<'_> {
    fn key(&self) -> &'static str {
        match self {
            Label::Channel(_) => "channel",
            Label::Rendition(_) => "rendition",
            Label::Leg(_) => "leg",
            Label::Kind(_) => "kind",
            Label::Stage(_) => "stage",
            Label::State(_) => "state",
            Label::From(_) => "from",
            Label::To(_) => "to",
            Label::Reason(_) => "reason",
            Label::Route(_) => "route",
            Label::Code(_) => "code",
            Label::Env(_) => "env",
            Label::Backend(_) => "backend",
            Label::Gpu(_) => "gpu",
            Label::Xid(_) => "xid",
            Label::Version(_) => "version",
            Label::ProfileFingerprint(_) => "profile_fp",
        }
    }

    fn value(&self) -> String {
        match *self {
            Label::Channel(name) => bounded_channel(name),
            Label::Rendition(v)
            | Label::ProfileFingerprint(v)
            | Label::Leg(v)
            | Label::Kind(v)
            | Label::Stage(v)
            | Label::State(v)
            | Label::From(v)
            | Label::To(v)
            | Label::Reason(v)
            | Label::Route(v)
            | Label::Code(v)
            | Label::Env(v)
            | Label::Backend(v)
            | Label::Gpu(v)
            | Label::Xid(v)
            | Label::Version(v) => v.to_owned(),
        }
    }
}

/// A counter's handle: keep it where things are counted per packet or frame.
#[derive(Clone)]
pub struct Counter(metrics::Counter);

impl Counter {
    pub fn add(&self, n: u64) {
        self.0.increment(n);
    }
}

/// A histogram's handle: keep it where things are observed per frame or request.
#[derive(Clone)]
pub struct Histogram(metrics::Histogram);

impl Histogram {
    pub fn observe(&self, seconds: f64) {
        self.0.record(seconds);
    }

    pub fn observe_span(&self, span: Duration) {
        self.0.record(span.as_secs_f64());
    }
}

/// A gauge's handle: `set` is one relaxed store.
#[derive(Clone, Debug, Default)]
pub struct Gauge(Arc<AtomicU64>);

impl Gauge {
    pub fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Ordering::Relaxed);
    }

    pub fn add(&self, by: f64) {
        // A lost race only repeats the addition on the newer value.
        let added = |bits: u64| Some((f64::from_bits(bits) + by).to_bits());
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, added).expect("the closure always gives a value");
    }

    pub fn value(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }
}

impl std::fmt::Debug for Counter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Counter")
    }
}

impl std::fmt::Debug for Histogram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Histogram")
    }
}

/// The handle of a counter. Made after `setup::start`; before it the handle counts nothing.
pub fn counter(metric: Metric, labels: &[Label<'_>]) -> Counter {
    assert!(metric.kind() == Kind::Counter, "{} is no counter", metric.name());
    Counter(metrics::counter!(metric.name(), owned(metric, labels)))
}

pub fn histogram(metric: Metric, labels: &[Label<'_>]) -> Histogram {
    assert!(matches!(metric.kind(), Kind::Histogram(_)), "{} is no histogram", metric.name());
    Histogram(metrics::histogram!(metric.name(), owned(metric, labels)))
}

pub fn gauge_handle(metric: Metric, labels: &[Label<'_>]) -> Gauge {
    assert!(metric.kind() == Kind::Gauge, "{} is no gauge", metric.name());
    let key = GaugeKey { metric, labels: labels.iter().map(|l| (check(metric, l), l.value())).collect() };
    if let Some(gauge) = GAUGES.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
        return gauge.clone();
    }
    GAUGES.write().unwrap_or_else(PoisonError::into_inner).entry(key).or_default().clone()
}

/// Adds `n`: for what happens rarely. Hot paths hold a [`counter`].
pub fn count(metric: Metric, labels: &[Label<'_>], n: u64) {
    counter(metric, labels).add(n);
}

/// Sets a gauge: for what changes rarely. Hot paths hold a [`gauge_handle`].
pub fn gauge(metric: Metric, labels: &[Label<'_>], value: f64) {
    gauge_handle(metric, labels).set(value);
}

/// Adds an observation: for what happens rarely. Hot paths hold a [`histogram`].
pub fn observe(metric: Metric, labels: &[Label<'_>], seconds: f64) {
    histogram(metric, labels).observe(seconds);
}

/// The gauges of a channel are no longer refreshed: they leave the scrape ten minutes later.
pub fn forget_channel(channel: &str) {
    let mine = |key: &GaugeKey| key.labels.iter().any(|(k, v)| *k == "channel" && v == channel);
    GAUGES.write().unwrap_or_else(PoisonError::into_inner).retain(|key, _| !mine(key));
    CHANNELS.lock().unwrap_or_else(PoisonError::into_inner).remove(channel);
}

/// What a lost GPU told last is no longer refreshed; that it is not up is.
pub fn forget_gpu(gpu: &str) {
    let reading =
        |key: &GaugeKey| key.metric != Metric::GpuUp && key.labels.iter().any(|(k, v)| *k == "gpu" && v == gpu);
    GAUGES.write().unwrap_or_else(PoisonError::into_inner).retain(|key, _| !reading(key));
}

/// Hands every gauge to the exporter: called once per scrape.
pub(super) fn hand_over_gauges() {
    for (key, gauge) in GAUGES.read().unwrap_or_else(PoisonError::into_inner).iter() {
        let labels: Vec<metrics::Label> = key.labels.iter().map(|(k, v)| metrics::Label::new(*k, v.clone())).collect();
        metrics::gauge!(key.metric.name(), labels).set(gauge.value());
    }
}

/// Tells the exporter every name's help text.
pub(super) fn describe_all() {
    for metric in Metric::ALL {
        match metric.kind() {
            Kind::Counter => metrics::describe_counter!(metric.name(), metric.help()),
            Kind::Gauge => metrics::describe_gauge!(metric.name(), metric.help()),
            Kind::Histogram(_) => metrics::describe_histogram!(metric.name(), metric.help()),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct GaugeKey {
    metric: Metric,
    labels: Vec<(&'static str, String)>,
}

static GAUGES: LazyLock<RwLock<BTreeMap<GaugeKey, Gauge>>> = LazyLock::new(RwLock::default);
static CHANNELS: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

fn bounded_channel(name: &str) -> String {
    let mut known = CHANNELS.lock().unwrap_or_else(PoisonError::into_inner);
    if known.contains(name) {
        return name.to_owned();
    }
    if known.len() >= CHANNELS_MAX {
        return "_other".to_owned();
    }
    known.insert(name.to_owned());
    name.to_owned()
}

fn check(metric: Metric, label: &Label<'_>) -> &'static str {
    assert!(metric.labels().contains(&label.key()), "{} has no label {}", metric.name(), label.key());
    label.key()
}

fn owned(metric: Metric, labels: &[Label<'_>]) -> Vec<metrics::Label> {
    labels.iter().map(|l| metrics::Label::new(check(metric, l), l.value())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_conventions_of_prometheus() {
        let mut seen = BTreeSet::new();
        for metric in Metric::ALL {
            let name = metric.name();
            assert!(seen.insert(name), "{name} is there twice");
            assert!(name.starts_with("rung_"), "{name}");
            assert_eq!(metric.kind() == Kind::Counter, name.ends_with("_total"), "{name}: _total is for counters");
            assert!(!name.contains("_ms") && !name.contains("milli"), "{name}: base units only");
            assert!(
                metric.help().len() > 10 && !metric.help().ends_with('.'),
                "{name} needs a help text without a full stop"
            );
            for banned in ["session", "viewer", "url", "ip", "peer"] {
                assert!(!metric.labels().contains(&banned), "{name}: {banned} is unbounded");
            }
            if let Kind::Histogram(bounds) = metric.kind() {
                assert!(bounds.is_sorted(), "{name}");
            }
        }
    }

    #[test]
    fn a_label_that_the_metric_does_not_have_is_a_bug() {
        let wrong = std::panic::catch_unwind(|| count(Metric::EgressBytes, &[Label::Channel("a")], 1));
        assert!(wrong.is_err());
        let kind = std::panic::catch_unwind(|| gauge(Metric::EgressBytes, &[], 1.0));
        assert!(kind.is_err());
    }

    #[test]
    fn gauges_add_and_set_through_any_handle() {
        let a = gauge_handle(Metric::IngestRtt, &[Label::Channel("gauge-test"), Label::Leg("a")]);
        let b = gauge_handle(Metric::IngestRtt, &[Label::Channel("gauge-test"), Label::Leg("a")]);
        a.set(1.0);
        b.add(0.5);
        assert_eq!(a.value(), 1.5);
        forget_channel("gauge-test");
        let fresh = gauge_handle(Metric::IngestRtt, &[Label::Channel("gauge-test"), Label::Leg("a")]);
        assert_eq!(fresh.value(), 0.0);
    }
}
