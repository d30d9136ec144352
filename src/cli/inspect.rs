//! `rung inspect`: what is in a stream, a part, a live playlist.

use bytes::Bytes;
use clap::{Args, Subcommand};
use http_body_util::{BodyExt, Empty, Limited};
use std::fs::File;
use std::io::{self, BufReader, BufWriter};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::client::{Trust, Web};
use super::{Failure, print};
use crate::inspect::fmp4::Inspector;
use crate::inspect::hls::{Follower, summary};
use crate::inspect::ts::{self, Form};
use crate::time::{Clock, SystemClock};

/// Answers larger than this are no playlist and no part.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Requests at once; a player of eight renditions needs two each.
const REQUESTS_MAX: usize = 64;

#[derive(Subcommand)]
pub(crate) enum Inspect {
    /// Packets, clocks, units and faults of a transport stream
    Ts(Ts),
    /// Boxes, times and samples of init sections, parts and segments
    Fmp4(Fmp4),
    /// Follow a live stream as a strict player; exit code 1 if it breaks a promise
    Hls(Hls),
}

#[derive(Args)]
pub(crate) struct Ts {
    /// Transport stream; - for standard input
    file: PathBuf,
    /// Totals only
    #[arg(long, conflicts_with = "json")]
    summary: bool,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(crate) struct Fmp4 {
    /// Files in order: an init section first, then its parts or segments
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Every sample
    #[arg(long)]
    samples: bool,
}

#[derive(Args)]
pub(crate) struct Hls {
    /// http://… or https://… of the multivariant playlist
    url: String,
    /// Stop after so many seconds
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<u64>,
    #[command(flatten)]
    trust: Trust,
}

impl Inspect {
    pub(crate) fn run(self) -> Result<(), Failure> {
        match self {
            Inspect::Ts(command) => command.run(),
            Inspect::Fmp4(command) => command.run(),
            Inspect::Hls(command) => command.run(),
        }
    }
}

impl Ts {
    fn run(self) -> Result<(), Failure> {
        let form = match (self.json, self.summary) {
            (true, _) => Form::Json,
            (_, true) => Form::Summary,
            _ => Form::Table,
        };
        let out = BufWriter::new(io::stdout().lock());
        let done = if self.file == Path::new("-") {
            ts::dump(io::stdin().lock(), out, form)
        } else {
            ts::dump(BufReader::new(open(&self.file)?), out, form)
        };
        done.map_err(|e| Failure::failed(format!("{}: {e}", self.file.display())))
    }
}

impl Fmp4 {
    fn run(self) -> Result<(), Failure> {
        let mut inspector = Inspector::default();
        for file in &self.files {
            let bytes = std::fs::read(file).map_err(|e| Failure::usage(format!("{}: {e}", file.display())))?;
            print(inspector.show(&file.display().to_string(), &bytes, self.samples).trim_end());
        }
        Ok(())
    }
}

fn open(file: &Path) -> Result<File, Failure> {
    File::open(file).map_err(|e| Failure::usage(format!("{}: {e}", file.display())))
}

impl Hls {
    fn run(self) -> Result<(), Failure> {
        if !self.url.starts_with("http://") && !self.url.starts_with("https://") {
            return Err(Failure::usage("write http://HOST:PORT/live/CHANNEL/index.m3u8, or https://"));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| Failure::failed(e.to_string()))?;
        runtime.block_on(self.follow())
    }

    async fn follow(self) -> Result<(), Failure> {
        let client: Web<Empty<Bytes>> = self.trust.client(&self.url)?;
        let (send, mut answers) = tokio::sync::mpsc::channel::<(u64, u16, Bytes)>(REQUESTS_MAX);
        let mut follower = Follower::new(&self.url);
        let end = self.seconds.map(|s| SystemClock::mono() + Duration::from_secs(s));
        let interrupt = tokio::signal::ctrl_c();
        tokio::pin!(interrupt);
        loop {
            let now = SystemClock.now();
            while let Some(fetch) = follower.poll(now) {
                let (client, send) = (client.clone(), send.clone());
                tokio::spawn(async move {
                    let (status, body) = get(&client, &fetch.uri).await;
                    // The follower ended meanwhile: nobody wants the answer.
                    send.send((fetch.id, status, body)).await.ok();
                });
            }
            for line in follower.lines(now) {
                print(&line);
            }
            let report = follower.report();
            if report.ended || end.is_some_and(|end| now.mono >= end) {
                break;
            }
            let due =
                follower.deadline().map_or(Duration::from_secs(1), |at| (at - now.mono).min(Duration::from_secs(1)));
            let due = end.map_or(due, |end| due.min(end - now.mono));
            tokio::select! {
                Some((id, status, body)) = answers.recv() => follower.response(SystemClock.now(), id, status, &body),
                () = tokio::time::sleep(due) => {}
                _ = &mut interrupt => break,
            }
        }
        let report = follower.report();
        print(&summary(&report));
        match report.violations.len() {
            0 if report.parts + report.segments == 0 => {
                Err(Failure::failed("nothing was played: is the channel live?"))
            }
            0 => Ok(()),
            n => Err(Failure::failed(format!("{n} promises broken"))),
        }
    }
}

/// Status 0: the connection failed.
async fn get(client: &Web<Empty<Bytes>>, uri: &str) -> (u16, Bytes) {
    let Ok(uri) = uri.parse() else { return (0, Bytes::new()) };
    let Ok(response) = client.get(uri).await else { return (0, Bytes::new()) };
    let status = response.status().as_u16();
    match Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await {
        Ok(body) => (status, body.to_bytes()),
        Err(_) => (0, Bytes::new()),
    }
}
