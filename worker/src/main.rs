//! `rung-worker`: started by `rung`, never by hand, except to ask what it is.

use rung::media::limits::DRIVER_CALL_MAX;
use rung::pixels::protocol::WORKER_FD;
use rung_worker::av;
use rung_worker::monitor::{Settings, watch};
use rung_worker::process::Device;
use rung_worker::run::{serve, serve_probe, serve_shared};
use std::ffi::OsString;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

const HELP: &str = "\
rung-worker: the pixel process of Rung. It decodes, scales and encodes.

It is started by `rung` with a socket as file descriptor 3, and ends when that socket closes.
There is nothing to start by hand: run `rung demo` or `rung serve`; `rung probe` shows what this program can do here.

  (no argument)                    one channel, on the CPU
  --gpu GPU                        up to 8 channels on that GPU (its number, or its slot as in 0000:3b:00); their sockets
                                   come over the one that it is started with
  --patience-ms N                  with --gpu: a driver call that takes longer has hung (500)
  --probe                          no channel: says what this machine can do, GPUs included
  --driver-folder PATH             with --gpu or --probe: where the driver's libraries lie, if not where the loader looks
  --monitor                        no channel: watch the GPUs and tell the daemon of them
  --version                        print the version
  --help                           print this text
";

fn main() -> ExitCode {
    match Task::read(std::env::args_os().skip(1)) {
        Ok(Task::Channel) => worker(serve),
        Ok(Task::Shared(device)) => worker(|socket| serve_shared(socket, device)),
        Ok(Task::Monitor(settings)) => worker(|socket| watch(socket, &settings)),
        Ok(Task::Probe(folder)) => worker(|socket| serve_probe(socket, folder.as_deref())),
        Ok(Task::Version) => say(std::io::stdout(), &format!("rung-worker {}\n", env!("CARGO_PKG_VERSION"))),
        Ok(Task::Help) => say(std::io::stdout(), HELP),
        Err(what) => {
            say(std::io::stderr(), &format!("rung-worker: {what}\n\n{HELP}"));
            ExitCode::from(2)
        }
    }
}

/// What the arguments ask for.
enum Task {
    Channel,
    Shared(Device),
    Monitor(Settings),
    Probe(Option<PathBuf>),
    Version,
    Help,
}

impl Task {
    fn read(mut arguments: impl Iterator<Item = OsString>) -> Result<Task, String> {
        let (mut gpu, mut driver_folder, mut probe) = (None, None, false);
        let mut patience = DRIVER_CALL_MAX;
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{} needs a value", argument.display()));
            match argument.to_str() {
                Some("--version" | "-V") => return Ok(Task::Version),
                Some("--help" | "-h") => return Ok(Task::Help),
                Some("--monitor") => return Settings::from_arguments(arguments).map(Task::Monitor),
                Some("--gpu") => {
                    let name = value()?;
                    let read = name.to_str().and_then(|text| text.parse().ok());
                    gpu = Some(read.ok_or_else(|| format!("--gpu takes a number or a slot, not {name:?}"))?);
                }
                Some("--probe") => probe = true,
                Some("--patience-ms") => {
                    let ms = value()?;
                    let number = ms.to_str().and_then(|text| text.parse().ok()).map(Duration::from_millis);
                    patience = number.ok_or_else(|| format!("--patience-ms takes a number, not {ms:?}"))?;
                }
                Some("--driver-folder") => driver_folder = Some(PathBuf::from(value()?)),
                _ => return Err(format!("unknown argument {argument:?}")),
            }
        }
        if probe && gpu.is_none() {
            return Ok(Task::Probe(driver_folder));
        }
        match (gpu, driver_folder) {
            (Some(gpu), driver_folder) => Ok(Task::Shared(Device { gpu, driver_folder, patience })),
            (None, None) => Ok(Task::Channel),
            (None, Some(_)) => Err("--driver-folder goes with --gpu or --probe".to_owned()),
        }
    }
}

fn worker(serve: impl FnOnce(OwnedFd) -> Result<(), String>) -> ExitCode {
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

fn say(mut to: impl Write, text: &str) -> ExitCode {
    match to.write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
