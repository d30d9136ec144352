//! One LMDB environment: opened, read, written, grown, and opened again where a commit broke it. The only file of the store with `unsafe`.
#![expect(unsafe_code, reason = "LMDB trusts its caller with the file, the handles and the size of its map")]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use heed::types::Bytes;
use heed::{CommitOrAbort, CompactionOption, Database, Env, EnvFlags, EnvOpenOptions, RwTxn, WithoutTls};

use super::error::Error;
use super::table::{Db, Home};
use super::txn::{Read, Write};
use crate::telemetry::report::{Level, Place, log};
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
    /// Held shared by every transaction, alone while the map grows or the environment is opened again: LMDB may not move
    /// its map under a transaction. `None`: it could not be opened again yet.
    opened: RwLock<Option<Opened>>,
    /// Of the map that is open, or was.
    map_bytes: AtomicUsize,
    /// A commit failed: where that was its very last write, LMDB refuses everything until the file is opened again.
    suspect: AtomicBool,
    readers: Mutex<BTreeMap<u64, Mono>>,
    next_reader: AtomicU64,
    last_commit_nanos: AtomicU64,
}

struct Opened {
    env: Env<WithoutTls>,
    handles: Handles,
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
        let opened = Opened::open(path, home, mode)?;
        let map_bytes = AtomicUsize::new(opened.env.info().map_size);
        Ok(Lmdb {
            home,
            path: path.to_owned(),
            opened: RwLock::new(Some(opened)),
            map_bytes,
            suspect: AtomicBool::new(false),
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

    /// Runs `look` on one unchanging view of the data. Not inside another read: a map about to grow would wait for the
    /// outer one while the inner waits for the map.
    pub(super) fn read<T, E: From<Error>>(&self, look: impl FnOnce(&Read<'_>) -> Result<T, E>) -> Result<T, E> {
        let open = self.enter()?;
        let opened = open.shared.as_ref().ok_or_else(closed)?;
        let txn = opened.env.read_txn().map_err(Error::from)?;
        look(&Read::new(&txn, &opened.handles))
    }

    /// The write transaction, of which there is one at a time: `change` fills it and says whether it is committed.
    pub(super) fn write<T>(&self, change: impl FnOnce(&mut RwTxn<'_>, &Handles) -> Done<T>) -> Result<T, Error> {
        let shared = self.share()?;
        let opened = shared.as_ref().ok_or_else(closed)?;
        let mut txn = opened.env.write_txn()?;
        match change(&mut txn, &opened.handles) {
            Done::Drop(value) => Ok(value),
            Done::Commit(value) => match txn.commit() {
                Ok(()) => Ok(value),
                Err(error) => {
                    self.suspect.store(true, Ordering::SeqCst);
                    Err(error.into())
                }
            },
        }
    }

    /// Commits `change` on this thread: before there is a writer.
    pub(super) fn write_now<T>(&self, change: impl FnOnce(&mut Write<'_, '_>) -> Result<T, Error>) -> Result<T, Error> {
        self.write(|txn, handles| match change(&mut Write::new(txn, handles)) {
            Ok(value) => Done::Commit(Ok(value)),
            Err(error) => Done::Drop(Err(error)),
        })?
    }

    /// A compact copy of one moment, in one new file, on disk when this returns. Holds a read transaction meanwhile.
    pub(super) fn copy_to(&self, file: &Path) -> Result<(), Error> {
        let open = self.enter()?;
        let io = |e| Error::from(heed::Error::Io(e));
        // Readable by its owner only, as the original.
        let mut copy = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(file).map_err(io)?;
        let opened = open.shared.as_ref().ok_or_else(closed)?;
        opened.env.copy_to_file(&mut copy, CompactionOption::Enabled)?;
        copy.sync_all().map_err(io)
    }

    /// Doubles the map. Waits for the open reads.
    pub(super) fn grow(&self) -> Result<usize, Error> {
        let opened = self.opened.write().unwrap_or_else(PoisonError::into_inner);
        let env = &opened.as_ref().ok_or_else(closed)?.env;
        let larger = env.info().map_size.saturating_mul(2);
        if larger > MAP_BYTES_MAX {
            return Err(Error::MapFull);
        }
        // SAFETY: every transaction of this process holds `opened` shared, so there is none; the folder's lock keeps other
        // processes out.
        unsafe { env.resize(larger) }?;
        self.map_bytes.store(larger, Ordering::Relaxed);
        Ok(larger)
    }

    /// Everything committed so far, on disk.
    pub(super) fn sync(&self) -> Result<(), Error> {
        Ok(self.share()?.as_ref().ok_or_else(closed)?.env.force_sync()?)
    }

    /// Frees the slots of readers whose process is gone.
    pub(super) fn clear_stale_readers(&self) -> Result<usize, Error> {
        Ok(self.share()?.as_ref().ok_or_else(closed)?.env.clear_stale_readers()?)
    }

    #[cfg(test)]
    pub(super) fn last_transaction(&self) -> usize {
        self.share().expect("open").as_ref().expect("open").env.info().last_txn_id
    }

    pub(super) fn usage(&self) -> Usage {
        let shared = self.opened.read().unwrap_or_else(PoisonError::into_inner);
        let Some(Opened { env, .. }) = shared.as_ref() else { return Usage::default() };
        let info = env.info();
        let page = env.unnamed_database_stat().page_size;
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

    /// The environment, for one transaction.
    fn share(&self) -> Result<RwLockReadGuard<'_, Option<Opened>>, Error> {
        if self.suspect.load(Ordering::SeqCst) {
            self.mend()?;
        }
        Ok(self.opened.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// After a commit that failed. Waits for the open reads.
    fn mend(&self) -> Result<(), Error> {
        let mut opened = self.opened.write().unwrap_or_else(PoisonError::into_inner);
        let panics = |open: &Opened| matches!(open.env.read_txn(), Err(heed::Error::Mdb(heed::MdbError::Panic)));
        if self.suspect.load(Ordering::SeqCst) && opened.as_ref().is_none_or(panics) {
            // A file is open once in a process: the old environment goes first. No transaction is in it.
            *opened = None;
            let map_bytes = self.map_bytes.load(Ordering::Relaxed);
            *opened = Some(Opened::open(&self.path, self.home, Mode::Live { map_bytes })?);
            let what = format!("{} was opened again: the disk refused the end of a commit", self.path.display());
            log(Level::Warn, "state_reopened", &Place::default(), what);
        }
        self.suspect.store(false, Ordering::SeqCst);
        Ok(())
    }

    fn enter(&self) -> Result<OpenRead<'_>, Error> {
        assert!(!READING.get(), "no read inside a read: take both rows from one view");
        let shared = self.share()?;
        READING.set(true);
        let number = self.next_reader.fetch_add(1, Ordering::Relaxed);
        self.readers.lock().unwrap_or_else(PoisonError::into_inner).insert(number, SystemClock::mono());
        Ok(OpenRead { of: self, number, shared })
    }
}

impl Opened {
    fn open(path: &Path, home: Home, mode: Mode) -> Result<Opened, Error> {
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
        Ok(Opened { env, handles })
    }
}

/// What becomes of a write transaction.
pub(super) enum Done<T> {
    Commit(T),
    Drop(T),
}

/// The file did not open again.
fn closed() -> Error {
    Error::Io { code: rustix::io::Errno::IO.raw_os_error(), what: "its database did not open again".to_owned() }
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
    shared: RwLockReadGuard<'a, Option<Opened>>,
}

impl Drop for OpenRead<'_> {
    fn drop(&mut self) {
        self.of.readers.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
        READING.set(false);
    }
}

type Made<'e> = [Option<Database<'e, Bytes, Bytes>>; Db::ALL.len()];

fn create(env: &Env<WithoutTls>, home: Home) -> Result<Handles, Error> {
    let made = env.create_databases_and_commit(env.write_txn()?, |opener, txn| {
        let mut made: Made<'_> = [None; Db::ALL.len()];
        for db in Db::ALL.iter().filter(|db| db.home() == home) {
            made[*db as usize] = Some(opener.create_database(txn, Some(db.name()))?);
        }
        Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit(made))
    })?;
    Ok(made.commit().unwrap_or([None; Db::ALL.len()]))
}

fn find(env: &Env<WithoutTls>, home: Home) -> Result<Handles, Error> {
    let found = env.open_databases_and_commit(env.read_txn()?, |opener, txn| {
        let mut found: Made<'_> = [None; Db::ALL.len()];
        for db in Db::ALL.iter().filter(|db| db.home() == home) {
            found[*db as usize] = opener.open_database(txn, Some(db.name()))?;
        }
        Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit(found))
    })?;
    Ok(found.commit().unwrap_or([None; Db::ALL.len()]))
}
