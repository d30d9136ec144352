//! What can go wrong with stored state, as sentences.

use std::fmt;
use std::path::PathBuf;

/// Why a read or a write failed. Cloned to every member of a failed group commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// A row is not what was written: its checksum, its key or its JSON is wrong. The other rows are not concerned.
    Corrupt { db: &'static str, key: String, what: String },
    /// A row was written by a newer Rung.
    Newer { db: &'static str, key: String, found: u8, known: u8 },
    /// A value cannot be stored.
    Encode { db: &'static str, what: String },
    /// The environment's map is too small. The writer grows it and tries again: callers see this only at the last limit.
    MapFull,
    /// The operating system refused; `code` is its errno.
    Io { code: i32, what: String },
    /// LMDB refused.
    Lmdb(String),
    /// The folder cannot be written now; the sentence of [`super::Condition`].
    Unwritable(String),
    /// The writer's queue is full.
    Busy,
    /// The store is closed, or its writer is gone.
    Closed,
    /// The closure panicked; nothing of it was written.
    Bug(String),
}

impl Error {
    /// The same write may succeed later: a disk gets room again, a queue drains.
    pub fn may_pass(&self) -> bool {
        matches!(self, Error::MapFull | Error::Io { .. } | Error::Unwritable(_) | Error::Busy)
    }
}

impl From<heed::Error> for Error {
    fn from(error: heed::Error) -> Error {
        match error {
            heed::Error::Mdb(heed::MdbError::MapFull) => Error::MapFull,
            // Until it is opened again, which the next read or write does.
            heed::Error::Mdb(heed::MdbError::Panic) => {
                let code = rustix::io::Errno::IO.raw_os_error();
                Error::Io { code, what: "the disk refused the end of a commit".to_owned() }
            }
            heed::Error::Io(e) => Error::Io { code: e.raw_os_error().unwrap_or(0), what: e.to_string() },
            other => Error::Lmdb(other.to_string()),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Corrupt { db, key, what } => {
                write!(f, "state database {db}, key {key}: {what}; the row is skipped, a backup may hold a good one")
            }
            Error::Newer { db, key, found, known } => {
                write!(
                    f,
                    "state database {db}, key {key}: written as version {found}, this Rung knows {known}: update it"
                )
            }
            Error::Encode { db, what } => write!(f, "state database {db}: the value cannot be stored: {what}"),
            Error::MapFull => f.write_str("the state store has reached the largest size it may grow to"),
            Error::Io { what, .. } => write!(f, "the state folder cannot be written: {what}"),
            Error::Lmdb(what) => write!(f, "the state store failed: {what}"),
            Error::Unwritable(sentence) => f.write_str(sentence),
            Error::Busy => f.write_str("the state store is busy: too many writes are waiting, try again"),
            Error::Closed => f.write_str("the state store is closed"),
            Error::Bug(what) => write!(f, "a bug in Rung: a state write panicked ({what}); nothing of it was written"),
        }
    }
}

impl std::error::Error for Error {}

/// Why a state folder cannot be used: what was found, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// Another process holds the folder.
    InUse { folder: PathBuf, by: String },
    /// The folder cannot be made or written.
    Unwritable { folder: PathBuf, what: String },
    /// The data is damaged, and nothing may take its place.
    Damaged { folder: PathBuf, found: String, tried: String },
    /// The data was written by a newer Rung.
    NewerSchema { folder: PathBuf, found: u32, known: u32 },
    /// A step to this Rung's schema failed; nothing was changed.
    Migration { step: &'static str, why: String },
    /// A backup or an export is not usable.
    NotGood { file: PathBuf, why: String },
    /// Anything else that reading or writing the folder said.
    Failed { folder: PathBuf, why: String },
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::InUse { folder, by } => write!(
                f,
                "state folder {} is in use by {by}: stop that one, or give this one a folder of its own",
                folder.display()
            ),
            OpenError::Unwritable { folder, what } => write!(
                f,
                "state folder {} cannot be written ({what}): give Rung's user write access, or name another folder",
                folder.display()
            ),
            OpenError::Damaged { folder, found, tried } => write!(
                f,
                "state folder {}: {found}; {tried}. Put a good backup in place with `rung state restore`, or \
                 move the folder away to begin empty",
                folder.display()
            ),
            OpenError::NewerSchema { folder, found, known } => write!(
                f,
                "state folder {} has schema {found}, this Rung knows {known}: update Rung, or restore a backup from \
                 before the update",
                folder.display()
            ),
            OpenError::Migration { step, why } => {
                write!(
                    f,
                    "the state could not be brought to this Rung's schema at step {step}: {why}; nothing was changed"
                )
            }
            OpenError::NotGood { file, why } => write!(f, "{}: {why}", file.display()),
            OpenError::Failed { folder, why } => write!(f, "state folder {}: {why}", folder.display()),
        }
    }
}

impl std::error::Error for OpenError {}
