//! `rung state`: the state folder of a daemon that does not run.

use clap::{Args, Subcommand};
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::{Failure, complain, print};
use crate::control::config::Loaded;
use crate::control::state::{self, OpenError, Options};
use crate::telemetry::report::{Level, Place, log};
use crate::time::SystemClock;

/// Damaged rows named for each database.
const NAMED: usize = 20;

/// Which folder is meant.
#[derive(Args)]
pub(crate) struct Folder {
    /// The state folder; else that of the configuration
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Configuration file that names the folder
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Subcommand)]
pub(crate) enum State {
    /// Read every row and name what is damaged
    Check {
        #[command(flatten)]
        folder: Folder,
    },
    /// Read every row of a copy, or of the state of a daemon that does not run (state/data.mdb in its folder)
    Verify { file: PathBuf },
    /// Make a verified copy of channels, sessions, events and tokens in a directory
    Backup {
        /// Where the copy goes
        dir: PathBuf,
        #[command(flatten)]
        folder: Folder,
    },
    /// Put a backup in the place of the control state; what was there is kept beside it
    Restore {
        /// A file that `rung state backup` or the daemon made
        file: PathBuf,
        #[command(flatten)]
        folder: Folder,
    },
    /// Write the control state as text, one JSON line per row, sorted
    Export {
        #[command(flatten)]
        folder: Folder,
    },
    /// Replace the control state by an export's (from a file, or - for standard input)
    Import {
        file: PathBuf,
        #[command(flatten)]
        folder: Folder,
    },
}

impl State {
    pub(crate) fn run(self) -> Result<(), Failure> {
        match self {
            State::Check { folder } => check(&folder.open()?),
            State::Verify { file } => {
                print(&format!("{}: {} rows, all sound", file.display(), state::verify(&file).map_err(trouble)?));
                Ok(())
            }
            State::Backup { dir, folder } => {
                let made = folder.open()?.backup_to(&dir).map_err(trouble)?;
                print(&format!("{}: {} rows, verified", made.display(), state::verify(&made).map_err(trouble)?));
                Ok(())
            }
            State::Restore { file, folder } => {
                let folder = folder.path()?;
                let (rows, old) = state::restore(&folder, &file).map_err(trouble)?;
                print(&format!("{rows} rows of {} are in {}", file.display(), folder.display()));
                old.iter().for_each(|old| print(&format!("what was there before is in {}", old.display())));
                Ok(())
            }
            State::Export { folder } => export(&folder.open()?),
            State::Import { file, folder } => {
                let text = if file.as_os_str() == "-" {
                    std::io::read_to_string(std::io::stdin())
                } else {
                    std::fs::read_to_string(&file)
                };
                let text = text.map_err(|e| Failure::usage(format!("{}: {e}", file.display())))?;
                let rows = folder.open()?.import(&text).map_err(|e| Failure::failed(e.to_string()))?;
                print(&format!("{rows} rows taken"));
                Ok(())
            }
        }
    }
}

impl Folder {
    fn path(self) -> Result<PathBuf, Failure> {
        match (self.folder, self.config) {
            (Some(folder), _) => Ok(folder),
            (None, Some(file)) => {
                Ok(Loaded::read(&file).map_err(|e| Failure::usage(e.to_string()))?.config.state.folder)
            }
            (None, None) => Ok(Loaded::empty().config.state.folder),
        }
    }

    fn open(self) -> Result<state::State, Failure> {
        let folder = self.path()?;
        // Opening makes what is not there; nobody who asks about a folder wants that.
        if !folder.join("state").is_dir() {
            let what = "holds no state; give --folder DIR or --config FILE";
            return Err(Failure::usage(format!("{} {what}", folder.display())));
        }
        let opened = state::State::open(&trusted(Options::new(folder))).map_err(trouble)?;
        opened.notes().iter().for_each(|note| complain(note));
        Ok(opened)
    }
}

/// LMDB trusts its pages: damage between them can kill whoever reads them. So a process of its own reads the control state
/// first, and state that killed it is not opened but replaced as damaged state is. Any other end of that process says
/// nothing about the state.
pub(super) fn trusted(options: Options) -> Options {
    Options { reader: Some(deadly), ..options }
}

fn deadly(file: &Path) -> Option<String> {
    let unchecked = |why: String| {
        log(Level::Warn, "state_not_read_first", &Place::default(), why);
        None
    };
    let program = std::env::current_exe();
    let spawned = program.and_then(|program| {
        let mut command = Command::new(program);
        command.args(["state", "verify"]).arg(file);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
    });
    let mut reader = match spawned {
        Ok(reader) => reader,
        Err(error) => return unchecked(format!("no process to read it with: {error}")),
    };
    let end = SystemClock::mono() + PATIENCE;
    let status = loop {
        match reader.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if SystemClock::mono() < end => std::thread::park_timeout(LOOK),
            _ => {
                drop(reader.kill().and_then(|()| reader.wait()));
                return unchecked(format!("reading it takes longer than {PATIENCE:?}"));
            }
        }
    };
    let signal = status.signal()?;
    if DEADLY.contains(&signal) {
        return Some(format!("{}: reading it kills (signal {signal})", file.display()));
    }
    unchecked(format!("its reader was ended by signal {signal}"))
}

/// What damaged pages do to a process: SIGILL, SIGABRT, SIGBUS, SIGFPE, SIGSEGV.
const DEADLY: [i32; 5] = [4, 6, 7, 8, 11];
/// All of an ordinary state is read within this; the daemon waits no longer.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(5);

fn check(state: &state::State) -> Result<(), Failure> {
    let damage = state.damage(NAMED).map_err(|e| Failure::failed(e.to_string()))?;
    if damage.is_empty() {
        print("every row is sound");
        return Ok(());
    }
    damage.iter().for_each(|row| print(&row.to_string()));
    Err(Failure::failed(format!("{} damaged rows: restore a backup (rung state restore)", damage.len())))
}

fn export(state: &state::State) -> Result<(), Failure> {
    let mut text = Vec::new();
    let damaged = state.export(&mut text).map_err(|e| Failure::failed(e.to_string()))?;
    // A reader that went away (`| head`) is no error.
    drop(std::io::stdout().lock().write_all(&text));
    damaged.iter().for_each(|row| complain(&format!("left out: {row}")));
    Ok(())
}

fn trouble(error: OpenError) -> Failure {
    Failure::failed(error.to_string())
}
