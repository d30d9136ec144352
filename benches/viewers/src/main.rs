//! Viewers, requests that wait, requests that do not, and a relay that counts: see the library's head.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it is there to print")]

use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use rung_viewers::{ask, block, raise_descriptors, tap, watch};
use tokio::io::AsyncReadExt;

/// LL-HLS viewers and other requests by the thousand; one JSON object to standard output
#[derive(Parser)]
struct Arguments {
    /// Threads of this process
    #[arg(long, default_value_t = 1)]
    threads: usize,
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Live viewers of a channel
    Watch {
        /// Where they go: ADDRESS:PORT
        to: SocketAddr,
        channel: String,
        /// The origin behind a cache, for one witness of each track
        #[arg(long)]
        origin: Option<SocketAddr>,
        /// In front of /live/, such as /t/TOKEN
        #[arg(long, default_value = "")]
        prefix: String,
        /// Video rendition; without it the lowest
        #[arg(long)]
        rendition: Option<String>,
        /// Video only
        #[arg(long)]
        silent: bool,
        #[arg(long, default_value_t = 100)]
        viewers: usize,
        #[arg(long, default_value_t = 5.0, value_name = "SECONDS")]
        ramp: f64,
        #[arg(long, default_value_t = 20.0)]
        seconds: f64,
    },
    /// Requests one after the other on kept connections
    Ask {
        to: SocketAddr,
        #[arg(required = true)]
        paths: Vec<String>,
        #[arg(long, default_value_t = 16)]
        connections: usize,
        #[arg(long)]
        gzip: bool,
        #[arg(long, default_value_t = 10.0)]
        seconds: f64,
    },
    /// Requests for a version of a playlist that is two segments away; says `waiting` on standard error
    Block {
        to: SocketAddr,
        /// Of a media playlist
        path: String,
        #[arg(long, default_value_t = 1_000)]
        requests: usize,
        #[arg(long, default_value_t = 10.0)]
        seconds: f64,
    },
    /// A relay to a server that counts requests; prints its address, and the counts when standard input ends
    Tap { to: SocketAddr },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Err(error) = raise_descriptors() {
        eprintln!("the bound on open files stays: {error}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(arguments.threads).enable_all().build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(run(arguments.task)),
        Err(error) => Err(error.to_string()),
    };
    match done {
        // Who has gone needs no report.
        Ok(json) => writeln!(std::io::stdout(), "{json}").map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS),
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

async fn run(task: Task) -> Result<String, String> {
    let report = match task {
        Task::Watch { to, channel, origin, prefix, rendition, silent, viewers, ramp, seconds } => {
            let (ramp, time) = (span(ramp)?, span(seconds)?);
            let plan = watch::Plan { to, origin, channel, prefix, rendition, sound: !silent, viewers, ramp, time };
            serde_json::to_value(watch::watch(&plan).await?)
        }
        Task::Ask { to, paths, connections, gzip, seconds } => {
            serde_json::to_value(ask::ask(&ask::Plan { to, paths, connections, gzip, time: span(seconds)? }).await)
        }
        Task::Block { to, path, requests, seconds } => {
            let plan = block::Plan { to, path, requests, time: span(seconds)? };
            serde_json::to_value(block::block(&plan, || eprintln!("waiting")).await?)
        }
        Task::Tap { to } => {
            let tap = tap::Tap::start(to).await.map_err(|e| e.to_string())?;
            println!("{}", tap.address);
            let mut rest = Vec::new();
            tokio::io::stdin().read_to_end(&mut rest).await.map_err(|e| e.to_string())?;
            serde_json::to_value(tap.counts())
        }
    };
    report.map(|value| value.to_string()).map_err(|e| e.to_string())
}

fn span(seconds: f64) -> Result<Duration, String> {
    Duration::try_from_secs_f64(seconds).map_err(|e| e.to_string())
}
