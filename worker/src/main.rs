//! `rung-worker`: started by `rung`, never by hand, except to ask what it is.

use rung::pixels::protocol::WORKER_FD;
use rung_worker::av;
use rung_worker::monitor::{Settings, watch};
use rung_worker::run::serve;
use std::io::Write;
use std::process::ExitCode;

const HELP: &str = "\
rung-worker: the pixel process of Rung. It decodes, scales and encodes one channel.

It is started by `rung` with a socket as file descriptor 3, and ends when that socket closes.
There is nothing to start by hand: run `rung demo` or `rung serve`; `rung probe` shows what this program can do here.
With --monitor as its first argument it watches the GPUs instead, and does nothing else.

  --version   print the version
  --help      print this text
";

fn main() -> ExitCode {
    let argument = std::env::args().nth(1);
    match argument.as_deref() {
        None => worker(),
        Some("--monitor") => monitor(),
        Some("--version" | "-V") => say(std::io::stdout(), &format!("rung-worker {}\n", env!("CARGO_PKG_VERSION"))),
        Some("--help" | "-h") => say(std::io::stdout(), HELP),
        Some(other) => {
            say(std::io::stderr(), &format!("rung-worker: unknown argument {other:?}\n\n{HELP}"));
            ExitCode::from(2)
        }
    }
}

fn worker() -> ExitCode {
    let Some(socket) = av::process::inherited_socket(WORKER_FD) else {
        say(std::io::stderr(), &format!("rung-worker: file descriptor {WORKER_FD} is no socket.\n\n{HELP}"));
        return ExitCode::from(2);
    };
    av::process::limit_heaps();
    #[cfg(feature = "software")]
    av::quiet();
    match serve(socket) {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => {
            say(std::io::stderr(), &format!("rung-worker: {what}\n"));
            ExitCode::FAILURE
        }
    }
}

fn monitor() -> ExitCode {
    let settings = match Settings::from_arguments(std::env::args_os().skip(2)) {
        Ok(settings) => settings,
        Err(what) => {
            say(std::io::stderr(), &format!("rung-worker: {what}\n"));
            return ExitCode::from(2);
        }
    };
    let Some(socket) = av::process::inherited_socket(WORKER_FD) else {
        say(std::io::stderr(), &format!("rung-worker: file descriptor {WORKER_FD} is no socket.\n\n{HELP}"));
        return ExitCode::from(2);
    };
    match watch(socket, &settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => {
            say(std::io::stderr(), &format!("rung-worker: {what}\n"));
            ExitCode::FAILURE
        }
    }
}

fn say(mut to: impl Write, text: &str) -> ExitCode {
    match to.write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
