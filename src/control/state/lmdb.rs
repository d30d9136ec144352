//! One LMDB environment: opened, read, grown. The only file of the store with `unsafe`.
#![expect(unsafe_code, reason = "LMDB trusts its caller with the file, the handles and the size of its map")]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use heed::types::Bytes;
use heed::{CommitOrAbort, CompactionOption, Database, Env, EnvFlags, EnvOpenOptions, RwTxn, WithoutTls};

use super::error::Error;
use super::table::{Db, Home};
use super::txn::{Read, Write};
use crate::time::{Mono, SystemClock};

pub(super) type Handle = Database<'static, Bytes, Bytes>;

/// Handles by database; `None`: lives in another environment, or a copy is older than the database.
pub(super) type Handles = [Option<Handle>; Db::ALL.len()];

/// How an environment is opened.
#[derive(Clone, Copy, Debug)]
pub(super) enum Mode {
    /// `data.mdb` and `lock.mdb` in a folder, to be written.
    Live { map_bytes: usize },
    /// A copy: one file, only read, by nobody else.
    Copy,
}

/// Read transactions at a time.
const READERS_MAX: u32 = 512;
/// A map never grows beyond this.
const MAP_BYTES_MAX: usize = 1 << 40;
const DATABASES_MAX: u32 = 64;

pub(super) struct Lmdb {
    home: Home,
    path: PathBuf,
    handles: Handles,
    env: Env<WithoutTls>,
    /// Held shared by every transaction, alone while the map grows: LMDB may not move it under a transaction.
    gate: RwLock<()>,
    readers: Mutex<BTreeMap<u64, Mono>>,
    next_reader: AtomicU64,
    last_commit_nanos: AtomicU64,
}

/// What an environment says about itself.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Bytes that may be in use before the map grows.
    pub map_bytes: u64,
    /// Bytes up to the last page in use.
    pub used_bytes: u64,
    /// Read transactions open now.
    pub readers: usize,
    /// Age of the oldest of them: a long one keeps deleted pages from being used again.
    pub oldest_reader: Duration,
    /// Time that the last group commit took until it was on disk; zero before the first.
    pub last_commit: Duration,
}

impl Lmdb {
    /// Opens `path` and all databases of `home`; a live environment gets the missing ones.
    pub(super) fn open(path: &Path, home: Home, mode: Mode) -> Result<Lmdb, Error> {
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        options.max_readers(READERS_MAX).max_dbs(DATABASES_MAX);
        let flags = match (mode, home) {
            (Mode::Live { .. }, Home::State) => EnvFlags::empty(),
            (Mode::Live { .. }, Home::Index) => EnvFlags::NO_META_SYNC,
            (Mode::Copy, _) => EnvFlags::READ_ONLY | EnvFlags::NO_SUB_DIR | EnvFlags::NO_LOCK,
        };
        if let Mode::Live { map_bytes } = mode {
            options.map_size(map_bytes);
        }
        // SAFETY: NO_META_SYNC may lose the last commit, which the index allows; NO_LOCK and NO_SUB_DIR are for copies
        // that no one writes.
        unsafe { options.flags(flags) };
        // SAFETY: the file is changed by LMDB alone while it is mapped: the caller holds the folder's lock, and has
        // compared the file's length with its last page.
        let env = unsafe { options.open(path) }?;
        let handles = match mode {
            Mode::Live { .. } => create(&env, home)?,
            Mode::Copy => find(&env, home)?,
        };
        Ok(Lmdb {
            home,
            path: path.to_owned(),
            handles,
            env,
            gate: RwLock::default(),
            readers: Mutex::default(),
            next_reader: AtomicU64::new(0),
            last_commit_nanos: AtomicU64::new(0),
        })
    }

    pub(super) fn home(&self) -> Home {
        self.home
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn handles(&self) -> &Handles {
        &self.handles
    }

    /// Runs `look` on one unchanging view of the data. Not inside another read: a map about to grow would wait for the
    /// outer one while the inner waits for the map.
    pub(super) fn read<T, E: From<Error>>(&self, look: impl FnOnce(&Read<'_>) -> Result<T, E>) -> Result<T, E> {
        let _open = self.enter();
        let txn = self.env.read_txn().map_err(Error::from)?;
        look(&Read::new(&txn, &self.handles))
    }

    /// The write transaction, of which there is one at a time. The guard keeps the map where it is.
    pub(super) fn write_txn(&self) -> Result<(RwTxn<'_>, RwLockReadGuard<'_, ()>), Error> {
        let shared = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        Ok((self.env.write_txn()?, shared))
    }

    /// Commits `change` on this thread: before there is a writer.
    pub(super) fn write_now<T>(&self, change: impl FnOnce(&mut Write<'_, '_>) -> Result<T, Error>) -> Result<T, Error> {
        let (mut txn, _shared) = self.write_txn()?;
        let done = change(&mut Write::new(&mut txn, &self.handles))?;
        txn.commit()?;
        Ok(done)
    }

    /// A compact copy of one moment, in one new file, on disk when this returns. Holds a read transaction meanwhile.
    pub(super) fn copy_to(&self, file: &Path) -> Result<(), Error> {
        let _open = self.enter();
        let io = |e| Error::from(heed::Error::Io(e));
        // Readable by its owner only, as the original.
        let mut copy = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(file).map_err(io)?;
        self.env.copy_to_file(&mut copy, CompactionOption::Enabled)?;
        copy.sync_all().map_err(io)
    }

    /// Doubles the map. Waits for the open reads.
    pub(super) fn grow(&self) -> Result<usize, Error> {
        let _alone = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        let larger = self.env.info().map_size.saturating_mul(2);
        if larger > MAP_BYTES_MAX {
            return Err(Error::MapFull);
        }
        // SAFETY: every transaction of this process holds `gate` shared, so there is none; the folder's lock keeps other
        // processes out.
        unsafe { self.env.resize(larger) }?;
        Ok(larger)
    }

    /// Everything committed so far, on disk.
    pub(super) fn sync(&self) -> Result<(), Error> {
        Ok(self.env.force_sync()?)
    }

    /// Frees the slots of readers whose process is gone.
    pub(super) fn clear_stale_readers(&self) -> Result<usize, Error> {
        Ok(self.env.clear_stale_readers()?)
    }

    #[cfg(test)]
    pub(super) fn last_transaction(&self) -> usize {
        self.env.info().last_txn_id
    }

    pub(super) fn usage(&self) -> Usage {
        let info = self.env.info();
        let page = self.env.unnamed_database_stat().page_size;
        let readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = readers.values().next().copied();
        Usage {
            map_bytes: info.map_size as u64,
            used_bytes: (info.last_page_number as u64 + 1) * u64::from(page),
            readers: readers.len(),
            oldest_reader: oldest.map_or(Duration::ZERO, |at| SystemClock::mono() - at),
            last_commit: Duration::from_nanos(self.last_commit_nanos.load(Ordering::Relaxed)),
        }
    }

    pub(super) fn committed(&self, took: Duration) {
        self.last_commit_nanos.store(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn enter(&self) -> OpenRead<'_> {
        READING.with(|reading| {
            assert!(!reading.replace(true), "no read inside a read: take both rows from one view");
        });
        let shared = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        let number = self.next_reader.fetch_add(1, Ordering::Relaxed);
        self.readers.lock().unwrap_or_else(PoisonError::into_inner).insert(number, SystemClock::mono());
        OpenRead { of: self, number, _shared: shared }
    }
}

impl std::fmt::Debug for Lmdb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Lmdb({})", self.path.display())
    }
}

thread_local! {
    static READING: Cell<bool> = const { Cell::new(false) };
}

/// Counts a read from its begin to its end.
struct OpenRead<'a> {
    of: &'a Lmdb,
    number: u64,
    _shared: RwLockReadGuard<'a, ()>,
}

impl Drop for OpenRead<'_> {
    fn drop(&mut self) {
        self.of.readers.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
        READING.with(|reading| reading.set(false));
    }
}

type Opened<'e> = [Option<Database<'e, Bytes, Bytes>>; Db::ALL.len()];

fn create(env: &Env<WithoutTls>, home: Home) -> Result<Handles, Error> {
    let made = env.create_databases_and_commit(env.write_txn()?, |opener, txn| {
        let mut made: Opened<'_> = [None; Db::ALL.len()];
        for db in Db::ALL.iter().filter(|db| db.home() == home) {
            made[*db as usize] = Some(opener.create_database(txn, Some(db.name()))?);
        }
        Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit(made))
    })?;
    Ok(made.commit().unwrap_or([None; Db::ALL.len()]))
}

fn find(env: &Env<WithoutTls>, home: Home) -> Result<Handles, Error> {
    let found = env.open_databases_and_commit(env.read_txn()?, |opener, txn| {
        let mut found: Opened<'_> = [None; Db::ALL.len()];
        for db in Db::ALL.iter().filter(|db| db.home() == home) {
            found[*db as usize] = opener.open_database(txn, Some(db.name()))?;
        }
        Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit(found))
    })?;
    Ok(found.commit().unwrap_or([None; Db::ALL.len()]))
}
