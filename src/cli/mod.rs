//! Purpose: the faces at the terminal, and the only place that prints.
//! When it fails: one sentence to stderr that says what to do, and an exit code: 2 for a wrong command line or
//! configuration, 1 for anything else. Commands that speak to a daemon have more codes: see `EXIT_CODES`.

mod channel;
mod client;
mod completions;
mod config;
mod daemon;
mod demo;
mod events;
mod gpus;
mod inspect;
mod playback_key;
mod probe;
mod push;
mod remote;
mod serve;
mod state;
mod session;
mod studio;
mod template;
mod token;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Live feeds in over SRT, Low-Latency HLS out.
#[derive(Parser)]
#[command(name = "rung", version, about, long_about = LONG, after_long_help = EXIT_CODES, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const LONG: &str = "Rung takes live contribution feeds over SRT, makes each into a ladder of renditions and serves \
them as Low-Latency HLS from memory.\n\nTry `rung demo` first: it starts a channel with a test picture and prints \
the page to open.";

/// Scripts rely on them: a code keeps its meaning.
const EXIT_CODES: &str = "Exit codes: 0 done; 1 it failed; 2 wrong command line, configuration or token file. \
Commands that speak to a daemon also: 3 it cannot be reached; 4 the token is not valid or may not do this; 5 there is \
nothing of that name; 6 the state of things does not allow it; 7 something in the request is wrong; 8 the daemon cannot \
do it now: try again.";

#[derive(Subcommand)]
enum Command {
    /// Run the daemon until SIGTERM or Ctrl-C
    Serve(serve::Serve),
    /// Start a channel with a test picture and print the page to open
    Demo(demo::Demo),
    /// Publish a transport stream over SRT or QUIC; a file is paced by its PCR
    Push(push::Push),
    /// Show what is in a stream, a part, a live playlist
    #[command(subcommand)]
    Inspect(inspect::Inspect),
    /// Work with the configuration file
    #[command(subcommand)]
    Config(config::Config),
    /// Check, copy, restore, export the state folder of a daemon that does not run
    #[command(subcommand)]
    State(state::State),
    /// Print what this machine can decode, scale and encode
    Probe(probe::Probe),
    Channel(channel::Channel),
    Session(session::Session),
    Token(token::Token),
    PlaybackKey(playback_key::PlaybackKey),
    Template(template::Template),
    Events(events::Events),
    Completions(completions::Completions),
}

/// What a command ends with when it does not succeed.
pub(crate) struct Failure {
    what: String,
    code: u8,
}

impl Failure {
    /// The command line or the configuration must be changed.
    pub(crate) fn usage(what: impl Into<String>) -> Failure {
        Failure { what: what.into(), code: 2 }
    }

    /// It was tried and did not work.
    pub(crate) fn failed(what: impl Into<String>) -> Failure {
        Failure { what: what.into(), code: 1 }
    }
}

/// Runs the command line.
#[expect(clippy::print_stderr, reason = "the face at the terminal")]
pub fn main() -> ExitCode {
    crate::sys::process::limit_heaps();
    let result = match Cli::parse().command {
        Command::Serve(command) => command.run(),
        Command::Demo(command) => command.run(),
        Command::Push(command) => command.run(),
        Command::Inspect(command) => command.run(),
        Command::Config(command) => command.run(),
        Command::State(command) => command.run(),
        Command::Probe(command) => command.run(),
        Command::Channel(command) => command.run(),
        Command::Session(command) => command.run(),
        Command::Token(command) => command.run(),
        Command::PlaybackKey(command) => command.run(),
        Command::Template(command) => command.run(),
        Command::Events(command) => command.run(),
        Command::Completions(command) => command.run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("rung: {}", failure.what);
            ExitCode::from(failure.code)
        }
    }
}

/// Prints lines; a reader that went away (`| head`) is no error.
pub(crate) fn print(text: &str) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    // A closed pipe ends the output, not the program.
    drop(out.write_all(text.as_bytes()).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush()));
}

/// A line that the next one replaces on a terminal, and an ordinary one elsewhere.
#[expect(clippy::print_stderr, reason = "the face at the terminal")]
pub(crate) fn status_line(text: &str) {
    use std::io::IsTerminal;
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K{text}");
    } else {
        eprintln!("{text}");
    }
}

/// Something went wrong that the command survives.
#[expect(clippy::print_stderr, reason = "the face at the terminal")]
pub(crate) fn complain(text: &str) {
    eprintln!("rung: {text}");
}
