//! `rung push`: a transport stream over SRT or QUIC; a file is paced by its PCR.

use clap::Args;
use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use super::{Failure, print, status_line};
use crate::ingest::quic::{self, QuicUrl, Source, Trust};
use crate::ingest::srt::{self, PushUrl};
use crate::ingest::{Knobs, Pause, Progress, PublishEvent, PushError, StreamProgress};

/// Publish a transport stream over SRT or QUIC; a file is paced by its PCR
#[derive(Args)]
pub(crate) struct Push {
    /// MPEG transport stream (.ts); over QUIC also - (standard input), udp://ADDRESS:PORT or rtp://ADDRESS:PORT to listen
    /// on (a multicast group is joined), srt://ENCODER:PORT[?passphrase=…] to call an encoder that listens, or
    /// srt://:PORT?mode=listener[&passphrase=…] to listen for one that calls
    source: String,
    /// srt://HOST:PORT?streamid=CHANNEL/KEY[&passphrase=…][&latency=MS], bonded over several networks
    /// srt://HOST:PORT[,HOST:PORT…]?…&grouptype=broadcast|backup[&adapter=IP,IP…], or
    /// quic://HOST:PORT/CHANNEL/KEY[/LEG][?pin=SHA256][&latency=MS][&max_bitrate=8M]; an n in braces in channel and key
    /// becomes 1, 2, …
    url: String,
    /// PEM file with the authorities that may vouch for a quic:// receiver whose address has no pin; without it the system's
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
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
        if ![self.drop, self.garble].iter().all(|share| (0.0..=1.0).contains(share)) {
            return Err(Failure::usage("--drop and --garble are shares from 0 to 1"));
        }
        let publisher = self.publisher()?;
        let interrupted = interruption()?;
        let mut screen =
            Screen { quiet: self.quiet, limit: self.seconds.map(Duration::from_secs), interrupted, told: 0 };
        let done = match &publisher {
            Publisher::Srt(options) => srt::push(options, &mut |progress| screen.show(&progress)),
            Publisher::Quic(options) => quic::push(options, &mut |progress| screen.show(&progress)),
        };
        match done {
            Ok(streams) => {
                let total: u64 = streams.iter().map(|s| s.publish.sent_bytes).sum();
                let late: u64 = streams.iter().map(|s| s.publish.late).sum();
                let late = if late > 0 { format!(", {late} segments came too late") } else { String::new() };
                if !self.quiet {
                    print(&format!("{} stream(s), {:.1} MB sent{late}", streams.len(), total as f64 / 1e6));
                }
                Ok(())
            }
            Err(error @ (PushError::File { .. } | PushError::Address(_))) => Err(Failure::usage(error.to_string())),
            Err(error) => Err(Failure::failed(error.to_string())),
        }
    }

    fn publisher(&self) -> Result<Publisher, Failure> {
        let knobs = Knobs { drop: self.drop, garble: self.garble, pause: self.pause };
        let source = Source::parse(&self.source).map_err(Failure::usage)?;
        let (streams, looping, reconnect) = (self.streams.clamp(1, 1_000), self.looping, self.reconnect);
        if self.url.starts_with("quic://") {
            if !matches!(source, Source::File(_)) && (looping || knobs != Knobs::default()) {
                return Err(Failure::usage("--loop, --drop, --garble and --pause are for files"));
            }
            let url = QuicUrl::parse(&self.url).map_err(Failure::usage)?;
            let trust = match (url.pin, &self.ca) {
                (Some(_), Some(_)) => return Err(Failure::usage("give a pin or --ca, not both")),
                (Some(pin), None) => Ok(Trust::Pin(pin)),
                (None, Some(file)) => Trust::file(file).map_err(|what| format!("--ca {what}")),
                (None, None) => Trust::system(),
            };
            let trust = trust.map_err(Failure::usage)?;
            let seed = self.seed;
            return Ok(Publisher::Quic(Box::new(quic::PushOptions {
                source,
                url,
                trust,
                streams,
                looping,
                reconnect,
                knobs,
                seed,
            })));
        }
        let url = PushUrl::parse(&self.url).map_err(Failure::usage)?;
        let Source::File(file) = source else {
            return Err(Failure::usage(
                "over SRT only files are published; standard input, udp://, rtp:// and srt:// go to quic://",
            ));
        };
        if self.ca.is_some() {
            return Err(Failure::usage("--ca is for quic:// addresses"));
        }
        Ok(Publisher::Srt(Box::new(srt::PushOptions {
            file,
            url,
            streams,
            looping,
            reconnect,
            knobs,
            seed: self.seed,
        })))
    }
}

enum Publisher {
    Srt(Box<srt::PushOptions>),
    Quic(Box<quic::PushOptions>),
}

/// What is printed meanwhile, and when it is to stop.
struct Screen {
    quiet: bool,
    limit: Option<Duration>,
    interrupted: Arc<AtomicBool>,
    /// The last second that was told.
    told: u64,
}

impl Screen {
    fn show(&mut self, progress: &Progress<'_>) -> ControlFlow<()> {
        match progress {
            Progress::Event { stream, event } if !self.quiet => match event {
                PublishEvent::Connected { latency } => {
                    print(&format!("stream {stream}: on air, latency {} ms", latency.as_millis()));
                }
                PublishEvent::Closed(end) => print(&format!("stream {stream}: {end}")),
            },
            Progress::Link { stream, link, news } if !self.quiet => {
                print(&format!("stream {stream}, link {link}: {news}"));
            }
            Progress::Source { stream: _, news } if !self.quiet => print(&format!("source: {news}")),
            Progress::Late { stream, segment } if !self.quiet => print(&format!(
                "stream {stream}: the link does not carry the source: what would come too late is left out; halve the \
                 encoder's bitrate (segments of {} ms now)",
                segment.as_millis()
            )),
            Progress::Tick { elapsed, streams } => {
                let second = elapsed.as_secs();
                let due = std::io::stderr().is_terminal() || second % 10 == 0;
                if !self.quiet && second > self.told && due {
                    self.told = second;
                    status_line(&tick(second, streams));
                }
                let over = self.limit.is_some_and(|limit| *elapsed >= limit);
                if over || self.interrupted.load(Ordering::Relaxed) {
                    return ControlFlow::Break(());
                }
            }
            Progress::Event { .. } | Progress::Link { .. } | Progress::Source { .. } | Progress::Late { .. } => {}
        }
        ControlFlow::Continue(())
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
    let late: u64 = streams.iter().map(|s| s.publish.late).sum();
    let late = if late > 0 { format!("{late} segments too late, ") } else { String::new() };
    let links: u32 = streams.iter().map(|s| s.publish.links).sum();
    let links = if links > 0 { format!("{links} links up, ") } else { String::new() };
    let rtt = streams.iter().map(|s| s.publish.rtt).max().unwrap_or_default();
    format!(
        "{second} s: {on_air}/{} on air, {:.1} MB sent, {again} packets retransmitted, {links}{late}RTT {:.1} ms",
        streams.len(),
        bytes as f64 / 1e6,
        rtt.as_secs_f64() * 1e3
    )
}
