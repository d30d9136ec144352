//! Starts logging and metrics for the process; the one place that names the subscriber and the exporter.

use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_util::MetricKindMask;
use tracing_subscriber::EnvFilter;

use super::names::{self, Kind, Label, Metric};
use super::report;
use crate::time::{Mono, SystemClock};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// How a process reports.
#[derive(Clone, Debug, Default)]
pub struct Config {
    pub format: LogFormat,
    /// A filter such as `info` or `info,rung::serve=debug`; the environment's `RUNG_LOG` wins.
    pub filter: String,
}

/// Gauges of a channel that is gone stay this long in the scrape. Histograms stay for good, like counters: their
/// handles are kept, and a handle whose histogram the exporter dropped would count into nothing.
const FADE: Duration = Duration::from_secs(600);

/// Keeps logs and metrics going until it is dropped.
#[derive(Debug)]
pub struct Telemetry {
    exporter: Exporter,
    stop: Option<SyncSender<()>>,
    ticker: Option<JoinHandle<()>>,
}

/// Starts logging to standard error and the metrics' registry. Once per process, before handles are made.
///
/// # Errors
/// A sentence: the filter does not parse, or telemetry was already started.
pub fn start(config: &Config) -> Result<Telemetry, String> {
    let wanted = std::env::var("RUNG_LOG").unwrap_or_else(|_| config.filter.clone());
    let wanted = if wanted.is_empty() { "info".to_owned() } else { wanted };
    let filter = EnvFilter::try_new(&wanted)
        .map_err(|e| format!("log filter {wanted:?}: {e}; write for example \"info\" or \"info,rung::serve=debug\""))?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // A line that cannot be written, to a file on a full disk for example, is lost. To complain about it on the same standard
    // error would panic in whatever thread had something to say.
    let lines = lines.log_internal_errors(false);
    match config.format {
        LogFormat::Text => lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).with_ansi(false).try_init(),
    }
    .map_err(|e| format!("logging is already set up: {e}"))?;

    let exporter = exporter()?;
    let (stop, stopped) = sync_channel(1);
    let scrape = exporter.clone();
    let ticker = std::thread::Builder::new()
        .name("telemetry".into())
        .spawn(move || {
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(Duration::from_secs(1)) {
                report::flush(SystemClock::mono());
                scrape.handle.run_upkeep();
            }
        })
        .map_err(|e| format!("cannot start the telemetry thread: {e}"))?;
    Ok(Telemetry { exporter, stop: Some(stop), ticker: Some(ticker) })
}

/// The metrics' registry alone, without logs: for tests and tools.
///
/// # Errors
/// A sentence: a registry is already installed.
pub fn exporter() -> Result<Exporter, String> {
    let mut builder = PrometheusBuilder::new().idle_timeout(MetricKindMask::GAUGE, Some(FADE));
    for metric in Metric::ALL {
        if let Kind::Histogram(bounds) = metric.kind() {
            builder = builder
                .set_buckets_for_metric(Matcher::Full(metric.name().to_owned()), bounds)
                .map_err(|e| format!("{}: {e}", metric.name()))?;
        }
    }
    let handle = builder.install_recorder().map_err(|e| format!("metrics are already set up: {e}"))?;
    names::describe_all();
    names::gauge(Metric::BuildInfo, &[Label::Version(env!("CARGO_PKG_VERSION"))], 1.0);
    Ok(Exporter { handle, started: SystemClock::mono() })
}

impl Telemetry {
    /// What renders a scrape.
    pub fn exporter(&self) -> Exporter {
        self.exporter.clone()
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(ticker) = self.ticker.take() {
            // A panic of the ticker has been printed by then; there is nothing left to do about it.
            drop(ticker.join());
        }
        report::flush(SystemClock::mono() + Duration::from_secs(2));
    }
}

/// Renders the registry.
#[derive(Clone)]
pub struct Exporter {
    handle: PrometheusHandle,
    started: Mono,
}

impl std::fmt::Debug for Exporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Exporter")
    }
}

impl Exporter {
    /// Everything in Prometheus' text format 0.0.4.
    pub fn render(&self) -> String {
        names::gauge(Metric::Uptime, &[], (SystemClock::mono() - self.started).as_secs_f64());
        names::hand_over_gauges();
        self.handle.render()
    }
}
