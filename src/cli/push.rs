//! `rung push`: a transport stream file over SRT, paced by its PCR.

use clap::Args;
use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use super::{Failure, print, status_line};
use crate::ingest::srt::{Knobs, Pause, Progress, PublishEvent, PushError, PushOptions, SrtUrl, StreamProgress, push};

/// Publish a transport stream file over SRT, paced by its PCR
#[derive(Args)]
pub(crate) struct Push {
    /// MPEG transport stream (.ts)
    file: PathBuf,
    /// srt://HOST:PORT?streamid=CHANNEL/KEY[&passphrase=…][&latency=MS]; an n in braces in the stream id becomes 1, 2, …
    url: String,
    /// Publish so many streams from this one process
    #[arg(long, default_value_t = 1, value_name = "N")]
    streams: u32,
    /// Start again at the end, as one continuous stream
    #[arg(long = "loop")]
    looping: bool,
    /// Come back when the connection ends
    #[arg(long)]
    reconnect: bool,
    /// Stop after so many seconds
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<u64>,
    /// Leave out this share of the payloads, 0 to 1 (faults on purpose)
    #[arg(long, default_value_t = 0.0, value_name = "SHARE")]
    drop: f64,
    /// Change a byte in this share of the payloads, 0 to 1
    #[arg(long, default_value_t = 0.0, value_name = "SHARE")]
    garble: f64,
    /// Be silent for LENGTH of every EVERY seconds, as EVERY:LENGTH
    #[arg(long, value_name = "EVERY:LENGTH", value_parser = pause)]
    pause: Option<Pause>,
    /// Seed of the faults
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Say nothing but errors
    #[arg(long, short)]
    quiet: bool,
}

fn pause(text: &str) -> Result<Pause, String> {
    let parts = text.split_once(':').and_then(|(every, length)| Some((every.parse().ok()?, length.parse().ok()?)));
    match parts {
        Some((every, length)) if 0.0 < length && length < every && every < 86_400.0 => {
            Ok(Pause { every: Duration::from_secs_f64(every), length: Duration::from_secs_f64(length) })
        }
        _ => Err("write EVERY:LENGTH in seconds, for example 10:1.5".into()),
    }
}

impl Push {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let url = SrtUrl::parse(&self.url).map_err(Failure::usage)?;
        if ![self.drop, self.garble].iter().all(|share| (0.0..=1.0).contains(share)) {
            return Err(Failure::usage("--drop and --garble are shares from 0 to 1"));
        }
        let options = PushOptions {
            file: self.file,
            url,
            streams: self.streams.clamp(1, 1_000),
            looping: self.looping,
            reconnect: self.reconnect,
            knobs: Knobs { drop: self.drop, garble: self.garble, pause: self.pause },
            seed: self.seed,
        };
        let (quiet, limit) = (self.quiet, self.seconds.map(Duration::from_secs));
        let interrupted = interruption()?;
        let mut told = 0;
        let done = push(&options, &mut |progress| {
            match progress {
                Progress::Event { stream, event } if !quiet => match event {
                    PublishEvent::Connected { latency } => {
                        print(&format!("stream {stream}: on air, latency {} ms", latency.as_millis()));
                    }
                    PublishEvent::Closed(end) => print(&format!("stream {stream}: {end}")),
                },
                Progress::Tick { elapsed, streams } => {
                    let second = elapsed.as_secs();
                    let due = std::io::stderr().is_terminal() || second % 10 == 0;
                    if !quiet && second > told && due {
                        told = second;
                        status_line(&tick(second, streams));
                    }
                    if limit.is_some_and(|limit| elapsed >= limit) || interrupted.load(Ordering::Relaxed) {
                        return ControlFlow::Break(());
                    }
                }
                Progress::Event { .. } => {}
            }
            ControlFlow::Continue(())
        });
        match done {
            Ok(streams) => {
                let total: u64 = streams.iter().map(|s| s.publish.sent_bytes).sum();
                if !quiet {
                    print(&format!("{} stream(s), {:.1} MB sent", streams.len(), total as f64 / 1e6));
                }
                Ok(())
            }
            Err(error @ (PushError::File { .. } | PushError::Address(_))) => Err(Failure::usage(error.to_string())),
            Err(error) => Err(Failure::failed(error.to_string())),
        }
    }
}

/// Becomes true with SIGINT or SIGTERM: receivers are told that the stream is over. A second one does not wait for that.
fn interruption() -> Result<Arc<AtomicBool>, Failure> {
    let trouble = |e: std::io::Error| Failure::failed(format!("signals: {e}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(trouble)?;
    let listen = |kind| runtime.block_on(async { signal(kind) }).map_err(trouble);
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    let told = Arc::new(AtomicBool::new(false));
    let tell = Arc::clone(&told);
    let wait = move || {
        runtime.block_on(async {
            for _ in 0..2 {
                tokio::select! { _ = interrupt.recv() => (), _ = terminate.recv() => () }
                if tell.swap(true, Ordering::Relaxed) {
                    std::process::exit(130);
                }
            }
        });
    };
    std::thread::Builder::new().name("signals".into()).spawn(wait).map_err(trouble)?;
    Ok(told)
}

fn tick(second: u64, streams: &[StreamProgress]) -> String {
    let on_air = streams.iter().filter(|s| s.connected).count();
    let bytes: u64 = streams.iter().map(|s| s.publish.sent_bytes).sum();
    let again: u64 = streams.iter().map(|s| s.publish.retransmitted).sum();
    let rtt = streams.iter().map(|s| s.publish.rtt).max().unwrap_or_default();
    format!(
        "{second} s: {on_air}/{} on air, {:.1} MB sent, {again} packets retransmitted, RTT {:.1} ms",
        streams.len(),
        bytes as f64 / 1e6,
        rtt.as_secs_f64() * 1e3
    )
}
