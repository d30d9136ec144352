//! Whether the state folder can be written, as a fact with a sentence, and the reserve that keeps it writable for a while.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::FallocateFlags;

use super::error::Error;
use crate::telemetry::report::{Level, Place, log};

/// Whether the state folder can be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    #[default]
    Good,
    /// No room: only essential writes are tried, out of the reserve. It ends by itself when there is room.
    Full { folder: PathBuf, free_bytes: u64 },
    /// The last write failed for another reason. It ends with the first write that succeeds.
    Failing { folder: PathBuf, why: String },
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Condition::Good => f.write_str("the state folder can be written"),
            Condition::Full { folder, free_bytes } => {
                let (folder, mib) = (folder.display(), free_bytes >> 20);
                write!(f, "state folder full: {folder} has {mib} MiB left: free space; live goes on")
            }
            Condition::Failing { folder, why } => {
                let folder = folder.display();
                write!(f, "state folder {folder} cannot be written ({why}): check the disk and its mount; live goes on")
            }
        }
    }
}

/// The folder's condition, and its ballast: a file that is given up when the disk is full, so that stop, delete and
/// retention still commit.
#[derive(Debug)]
pub(super) struct Health {
    folder: PathBuf,
    ballast_bytes: u64,
    condition: Mutex<Condition>,
}

impl Health {
    pub(super) fn new(folder: &Path, ballast_bytes: u64) -> Health {
        let health = Health { folder: folder.to_owned(), ballast_bytes, condition: Mutex::default() };
        if health.place_ballast().is_err() {
            let free_bytes = health.free_bytes();
            health.enter(Condition::Full { folder: folder.to_owned(), free_bytes });
        }
        health
    }

    pub(super) fn condition(&self) -> Condition {
        self.condition.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn is_full(&self) -> bool {
        matches!(*self.condition.lock().unwrap_or_else(PoisonError::into_inner), Condition::Full { .. })
    }

    /// A write failed with an error of the operating system. True: the ballast made room, the write may be tried again.
    pub(super) fn failed(&self, code: i32, what: &str) -> bool {
        let free_bytes = self.free_bytes();
        // LMDB reports a short write, which is how a full disk shows, as EIO.
        let errno = rustix::io::Errno::from_raw_os_error(code);
        let said = matches!(errno, rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT);
        if said || errno == rustix::io::Errno::IO && free_bytes < ROOM_BYTES {
            self.enter(Condition::Full { folder: self.folder.clone(), free_bytes });
            return std::fs::remove_file(self.ballast()).is_ok();
        }
        self.failing(what);
        false
    }

    /// A write failed, and room would not help.
    pub(super) fn failing(&self, why: &str) {
        self.enter(Condition::Failing { folder: self.folder.clone(), why: why.to_owned() });
    }

    /// A commit succeeded.
    pub(super) fn succeeded(&self) {
        if !self.is_full() {
            self.enter(Condition::Good);
        }
    }

    /// Called each second: where the disk was full and has room again, the ballast comes back first.
    pub(super) fn tick(&self) {
        if self.is_full() && self.free_bytes() >= 2 * self.ballast_bytes.max(ROOM_BYTES) && self.place_ballast().is_ok()
        {
            self.enter(Condition::Good);
        }
    }

    fn enter(&self, next: Condition) {
        let mut condition = self.condition.lock().unwrap_or_else(PoisonError::into_inner);
        // Free bytes vary while it is full: that is no transition.
        if std::mem::discriminant(&*condition) != std::mem::discriminant(&next) {
            let level = if next == Condition::Good { Level::Info } else { Level::Error };
            log(level, "state_folder", &Place::default(), &next);
        }
        *condition = next;
    }

    fn free_bytes(&self) -> u64 {
        rustix::fs::statvfs(&self.folder).map_or(0, |fs| fs.f_bavail.saturating_mul(fs.f_frsize))
    }

    fn ballast(&self) -> PathBuf {
        self.folder.join("ballast")
    }

    /// Allocated, not just sized: a sparse file would free nothing.
    fn place_ballast(&self) -> std::io::Result<()> {
        let path = self.ballast();
        let file: File = OpenOptions::new().write(true).create(true).truncate(false).open(&path)?;
        if self.ballast_bytes == 0 {
            return Ok(());
        }
        match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, self.ballast_bytes) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::OPNOTSUPP) => write_zeros(&file, self.ballast_bytes),
            Err(e) => Err(e.into()),
        }
        .inspect_err(|_| {
            // Half a ballast takes the room that it was to keep; there may be none of it.
            std::fs::remove_file(&path).unwrap_or_default();
        })
    }
}

impl From<&Condition> for Error {
    fn from(condition: &Condition) -> Error {
        Error::Unwritable(condition.to_string())
    }
}

fn write_zeros(mut file: &File, bytes: u64) -> std::io::Result<()> {
    std::io::copy(&mut std::io::Read::take(std::io::repeat(0), bytes), &mut file)?;
    file.sync_data()
}

/// Less free space than this, and a failed write is taken for a full disk.
const ROOM_BYTES: u64 = 1 << 20;
