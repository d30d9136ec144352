//! Purpose: what survives: control state and the timeline's records, in two LMDB environments of one folder.
//! Time: stored instants are the callers'; the clock is read here to name files and to measure.
//! Invariants: a caller hears of a write only after it is on disk, and of all of it or none; readers never wait for the
//! writer; no view outlives its closure; a damaged row is an error with a name, never a panic; one process per folder.
//! When it fails: [`Condition`] says in a sentence what a folder that cannot be written means; [`OpenError`] what a folder
//! that cannot be used needs.
//!
//! Records belong to their owners, who declare a [`Table`] each; this room knows databases and keys:
//!
//! ```no_run
//! use rung::control::state::{Db, Error, Need, Options, State, Table, Ulid};
//! const OPEN: Table<Ulid, String> = Table::json(Db::Open, 1);
//! let state = State::open(&Options::new("rung-data"))?;
//! let ticket = state.control.write(Need::Ordinary, |txn| txn.put(&OPEN, &Ulid(1), &"a session".to_owned()));
//! ticket.wait()?;
//! let session = state.control.read(|view| view.get(&OPEN, &Ulid(1)))?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod backup;
mod error;
mod export;
mod folder;
mod health;
mod lmdb;
mod migrate;
mod store;
mod table;
#[cfg(test)]
mod tests;
mod timeline_log;
mod txn;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use backup::{restore, verify};
pub use error::{Error, OpenError};
pub use folder::Recovery;
pub use health::Condition;
pub use lmdb::Usage;
pub use migrate::Migration;
pub use store::{Need, Store, Ticket};
pub use table::{Db, Home, Key, Newest, Table};
pub use timeline_log::{LmdbLog, PROFILES, forget, hand_over, load};
pub use txn::{Read, Rows, RowsBack, Write};
pub use ulid::Ulid;

use health::Health;

/// How a state folder is opened.
#[derive(Clone, Debug)]
pub struct Options {
    pub folder: PathBuf,
    /// What happens if the data is damaged.
    pub recovery: Recovery,
    /// Reads the file of the control state before it is opened, and says what kills its reader: then it counts as
    /// damaged. Asked while the folder is held.
    pub reader: Option<fn(&Path) -> Option<String>>,
    /// Reserve for a full disk, bytes.
    pub ballast_bytes: u64,
    /// First size of the maps, bytes; the files grow with their content only. A full map grows by itself.
    pub state_map_bytes: usize,
    pub index_map_bytes: usize,
    /// Steps to this Rung's schema, in order.
    pub migrations: &'static [Migration],
}

impl Options {
    pub fn new(folder: impl Into<PathBuf>) -> Options {
        Options {
            folder: folder.into(),
            recovery: Recovery::Backup,
            reader: None,
            ballast_bytes: 64 << 20,
            state_map_bytes: 4 << 30,
            index_map_bytes: 64 << 30,
            migrations: migrate::MIGRATIONS,
        }
    }
}

/// The state folder of this process.
#[derive(Debug)]
pub struct State {
    /// Everything that was acknowledged to anyone.
    pub control: Store,
    /// Segment index and statistics: may lose its last second, rebuilt from the recordings.
    pub index: Store,
    options: Options,
    health: Arc<Health>,
    notes: Vec<String>,
    _lock: File,
}

impl State {
    /// Opens the folder, making what is missing, bringing older data to this Rung's schema, and replacing damaged data
    /// as [`Options::recovery`] allows.
    ///
    /// # Errors
    /// Why the folder cannot be used, and what to do. Nothing was changed then.
    pub fn open(options: &Options) -> Result<State, OpenError> {
        let lock = folder::lock(&options.folder)?;
        let mut notes = Vec::new();
        let control = folder::open_control(options, &mut notes)?;
        migrate::run(options, &control, &mut notes)?;
        let index = folder::open_index(options, &mut notes)?;
        let health = Arc::new(Health::new(&options.folder, options.ballast_bytes));
        let failed = |why| OpenError::Failed { folder: options.folder.clone(), why };
        Ok(State {
            control: Store::start(control, health.clone()).map_err(failed)?,
            index: Store::start(index, health.clone()).map_err(failed)?,
            options: options.clone(),
            health,
            notes,
            _lock: lock,
        })
    }

    /// What opening found and did beyond the ordinary, as sentences: damage, what took its place, schema steps.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Whether the folder can be written now.
    pub fn condition(&self) -> Condition {
        self.health.condition()
    }

    pub fn folder(&self) -> &Path {
        &self.options.folder
    }

    /// A verified copy of the control state among the folder's own backups, of which it keeps 24 hourly and 7 daily
    /// ones. Blocks; meant for each hour.
    ///
    /// # Errors
    /// Why there is no new backup; older ones are untouched.
    pub fn backup(&self) -> Result<PathBuf, OpenError> {
        backup::hourly(&self.options.folder, self.control.lmdb())
    }

    /// The same into a folder of the caller's.
    ///
    /// # Errors
    /// Why there is no backup.
    pub fn backup_to(&self, dir: &Path) -> Result<PathBuf, OpenError> {
        backup::copy_into(dir, self.control.lmdb())
    }

    /// Control state as text: one JSON line per row, sorted, so that two exports can be compared. Damaged rows are left
    /// out and returned. `out` is written while a view is open: a file or a buffer, not a slow peer.
    ///
    /// # Errors
    /// The store or `out` failed.
    pub fn export(&self, out: &mut dyn std::io::Write) -> Result<Vec<Error>, Error> {
        self.control.read(|view| export::write(view, out))
    }

    /// Replaces the whole control state by an export's. Blocks.
    ///
    /// # Errors
    /// The line that cannot be taken, or why nothing was written; the old state stays then.
    pub fn import(&self, text: &str) -> Result<usize, Error> {
        export::import(&self.control, text, self.options.migrations)
    }

    /// Damaged rows of both environments, at most `max` per database, by reading every row.
    ///
    /// # Errors
    /// The store failed: a page that holds many rows is damaged.
    pub fn damage(&self, max: usize) -> Result<Vec<Error>, Error> {
        let mut found = Vec::new();
        for db in Db::ALL {
            let store = if db.home() == Home::State { &self.control } else { &self.index };
            found.extend(store.read(|view| txn::damage(view, *db, max))?);
        }
        Ok(found)
    }
}
