//! The folder on disk: who holds it, whether its files are whole, and how new data takes the place of old.
//!
//! An environment is made or restored under `<name>.new`, becomes `<name>.ready` once it is complete and on disk, and then
//! takes its place by renames. A crash between any two steps leaves a folder that the next open completes: `<name>` is
//! whole or absent, never half.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write as _;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::{Error, OpenError};
use super::lmdb::{Lmdb, Mode};
use super::table::Home;
use super::{Options, backup, migrate};
use crate::time::SystemClock;

/// What may take the place of damaged control state. The damaged files are always kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// The newest good backup; without one, opening is refused.
    Backup,
    /// The newest good backup; without one, an empty state.
    BackupOrEmpty,
}

/// Takes the folder for this process, making it if it is not there. Held as long as the file is open.
pub(super) fn lock(folder: &Path) -> Result<File, OpenError> {
    let unwritable = |e: std::io::Error| OpenError::Unwritable { folder: folder.to_owned(), what: e.to_string() };
    fs::create_dir_all(folder).map_err(unwritable)?;
    let path = folder.join("rung.lock");
    let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
    let mut file = options.map_err(unwritable)?;
    let until = SystemClock::mono() + LINGERS;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::Error(e)) => return Err(unwritable(e)),
            Err(TryLockError::WouldBlock) => {}
        }
        let holder = holder(&file);
        // Who was starting a worker when it was killed, or when it closed the folder, left a copy of itself that holds the
        // lock until it is the worker.
        let lives = |pid: u32| pid != std::process::id() && Path::new("/proc").join(pid.to_string()).exists();
        let lives = holder.is_some_and(lives);
        if lives || SystemClock::mono() > until {
            let by = holder.map_or_else(|| "another rung".to_owned(), |pid| format!("another rung (process {pid})"));
            return Err(OpenError::InUse { folder: folder.to_owned(), by });
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
    let pid = format!("{}\n", std::process::id());
    // On a full disk the lock holds all the same; only the number for the sentence above is missing.
    file.set_len(0).and_then(|()| file.write_all(pid.as_bytes())).unwrap_or_default();
    Ok(file)
}

/// Whoever wrote its number last; it helps whoever is refused.
fn holder(file: &File) -> Option<u32> {
    let mut text = [0; 16];
    let length = file.read_at(&mut text, 0).ok()?;
    std::str::from_utf8(&text[..length]).ok()?.trim().parse().ok()
}

/// A dead process's lock is waited for so long.
const LINGERS: Duration = Duration::from_secs(2);

pub(super) fn open_control(options: &Options, notes: &mut Vec<String>) -> Result<Lmdb, OpenError> {
    let folder = &options.folder;
    settle(folder, Home::State)?;
    let here = folder.join(Home::State.name());
    let deadly = || options.reader.and_then(|reader| reader(&here.join("data.mdb"))).filter(|_| here.exists());
    let found = if let Some(why) = deadly() {
        why
    } else if here.exists() {
        match open_whole(&here, Home::State, options.state_map_bytes) {
            Ok(lmdb) => return Ok(lmdb),
            Err(Trouble::Damaged(found)) => found,
            Err(Trouble::Failed(why)) => return Err(failed(folder, why)),
        }
    } else if backup::has_any(folder) {
        "there are backups, but the state itself is missing".to_owned()
    } else {
        make_empty(options, Home::State)?;
        return open_again(options, Home::State);
    };
    let mut tried = Vec::new();
    let put = match backup::prepare_newest(folder, &mut tried)? {
        Some(file) => format!("the backup {} took its place: what came after it is lost", file.display()),
        None if options.recovery == Recovery::BackupOrEmpty => {
            prepare_empty(options, Home::State)?;
            "an empty state took its place".to_owned()
        }
        None => {
            let none = "there is no good backup".to_owned();
            let tried = if tried.is_empty() { none } else { format!("{none} ({})", tried.join("; ")) };
            return Err(OpenError::Damaged { folder: folder.clone(), found, tried });
        }
    };
    let kept = swap_in(folder, Home::State, "corrupt")?;
    let kept = kept.map_or_else(String::new, |kept| format!("; the damaged files are kept in {}", kept.display()));
    notes.push(format!("state folder {}: {found}; {put}{kept}", folder.display()));
    open_again(options, Home::State)
}

/// The index is rebuilt from the recordings: damaged, it starts empty.
pub(super) fn open_index(options: &Options, notes: &mut Vec<String>) -> Result<Lmdb, OpenError> {
    let folder = &options.folder;
    settle(folder, Home::Index)?;
    let here = folder.join(Home::Index.name());
    if here.exists() {
        match open_whole(&here, Home::Index, options.index_map_bytes) {
            Ok(lmdb) => return Ok(lmdb),
            Err(Trouble::Damaged(found)) => {
                notes.push(format!("index of {}: {found}; it is built anew", folder.display()));
            }
            Err(Trouble::Failed(why)) => return Err(failed(folder, why)),
        }
    }
    make_empty(options, Home::Index)?;
    open_again(options, Home::Index)
}

fn open_again(options: &Options, home: Home) -> Result<Lmdb, OpenError> {
    let map_bytes = map_bytes(options, home);
    Lmdb::open(&options.folder.join(home.name()), home, Mode::Live { map_bytes })
        .map_err(|e| failed(&options.folder, e.to_string()))
}

fn map_bytes(options: &Options, home: Home) -> usize {
    match home {
        Home::State => options.state_map_bytes,
        Home::Index => options.index_map_bytes,
    }
}

/// Why an environment that is there did not open.
enum Trouble {
    /// Its bytes are wrong.
    Damaged(String),
    /// The operating system refused: its bytes may be well.
    Failed(String),
}

fn open_whole(dir: &Path, home: Home, map_bytes: usize) -> Result<Lmdb, Trouble> {
    let data = dir.join("data.mdb");
    let shape = shape(&data).map_err(Trouble::Damaged)?;
    if let Shape::Cut { needs, .. } = shape {
        // LMDB may leave pages at the end unwritten that it allocated and gave back in one transaction, so a short file
        // is not always a truncated one; but touching a page behind its end would kill the process.
        let lengthened = OpenOptions::new().write(true).open(&data).and_then(|f| f.set_len(needs));
        lengthened.map_err(|e| Trouble::Failed(e.to_string()))?;
    }
    let lmdb = Lmdb::open(dir, home, Mode::Live { map_bytes }).map_err(|e| trouble(&data, &shape, e))?;
    if shape != Shape::Whole {
        whole_copy(&lmdb, dir).map_err(|e| trouble(&data, &shape, e))?;
    }
    Ok(lmdb)
}

/// A full disk, say, is no damage: only what LMDB or a checksum says against the bytes is.
fn trouble(data: &Path, shape: &Shape, error: Error) -> Trouble {
    let data = data.display();
    match (error, shape) {
        (Error::Io { what, .. }, _) => Trouble::Failed(what),
        (error, Shape::Cut { found, .. }) => Trouble::Damaged(format!("{data}: {found}: {error}")),
        (error, Shape::Whole) => Trouble::Damaged(format!("{data} does not open: {error}")),
    }
}

/// A compact copy walks every page in use and the list of free ones.
fn whole_copy(lmdb: &Lmdb, dir: &Path) -> Result<(), Error> {
    let probe = dir.join("probe.mdb");
    let checked = lmdb.copy_to(&probe).and_then(|()| match lmdb.home() {
        Home::State => backup::verify(&probe).map(drop).map_err(|e| Error::Lmdb(e.to_string())),
        Home::Index => Ok(()),
    });
    // A probe that stays is overwritten by the next one.
    fs::remove_file(&probe).unwrap_or_default();
    checked
}

fn make_empty(options: &Options, home: Home) -> Result<(), OpenError> {
    prepare_empty(options, home)?;
    swap_in(&options.folder, home, "corrupt").map(drop)
}

fn prepare_empty(options: &Options, home: Home) -> Result<(), OpenError> {
    let dir = new_dir(&options.folder, home)?;
    let made = Lmdb::open(&dir, home, Mode::Live { map_bytes: map_bytes(options, home) }).and_then(|lmdb| {
        if home == Home::State {
            lmdb.write_now(|txn| migrate::stamp(txn, options.migrations))?;
        }
        lmdb.sync()
    });
    made.map_err(|e| failed(&options.folder, e.to_string()))?;
    ready(&options.folder, home)
}

/// `<name>.new`, empty.
pub(super) fn new_dir(folder: &Path, home: Home) -> Result<PathBuf, OpenError> {
    let dir = folder.join(format!("{}.new", home.name()));
    remove(&dir).and_then(|()| fs::create_dir(&dir)).map_err(|e| unwritable(folder, &e))?;
    Ok(dir)
}

/// `<name>.new` is complete: from here on it will take its place.
pub(super) fn ready(folder: &Path, home: Home) -> Result<(), OpenError> {
    let (new, ready) = (folder.join(format!("{}.new", home.name())), ready_dir(folder, home));
    let renamed = sync_dir(&new).and_then(|()| fs::rename(&new, &ready)).and_then(|()| sync_dir(folder));
    renamed.map_err(|e| unwritable(folder, &e))
}

/// Puts `<name>.ready` in place; what was there is kept as `<name>.<why>-<time>`, which is returned.
pub(super) fn swap_in(folder: &Path, home: Home, why: &str) -> Result<Option<PathBuf>, OpenError> {
    let here = folder.join(home.name());
    let aside = folder.join(format!("{}.{why}-{}", home.name(), backup::stamp(SystemClock::wall())));
    let moved = here.exists();
    let swap = || {
        if moved {
            fs::rename(&here, &aside)?;
        }
        fs::rename(ready_dir(folder, home), &here)?;
        sync_dir(folder)
    };
    swap().map_err(|e: std::io::Error| unwritable(folder, &e))?;
    Ok(moved.then_some(aside))
}

/// Completes what a crash interrupted.
pub(super) fn settle(folder: &Path, home: Home) -> Result<(), OpenError> {
    remove(&folder.join(format!("{}.new", home.name()))).map_err(|e| unwritable(folder, &e))?;
    if ready_dir(folder, home).exists() {
        swap_in(folder, home, "replaced")?;
    }
    Ok(())
}

fn ready_dir(folder: &Path, home: Home) -> PathBuf {
    folder.join(format!("{}.ready", home.name()))
}

fn remove(dir: &Path) -> std::io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

fn sync_dir(dir: &Path) -> std::io::Result<()> {
    File::open(dir)?.sync_all()
}

fn unwritable(folder: &Path, error: &std::io::Error) -> OpenError {
    OpenError::Unwritable { folder: folder.to_owned(), what: error.to_string() }
}

fn failed(folder: &Path, why: String) -> OpenError {
    OpenError::Failed { folder: folder.to_owned(), why }
}

/// What a data file looks like from outside.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Whole,
    /// It ends before its last page does.
    Cut {
        needs: u64,
        found: String,
    },
}

/// Reads the two meta pages and compares the file's length with the last page of the newer: LMDB does not, and a page
/// behind the end of the file kills the process that touches it. `Err`: what is wrong with the metas.
pub(super) fn shape(data: &Path) -> Result<Shape, String> {
    let file = File::open(data).map_err(|e| format!("{} cannot be read: {e}", data.display()))?;
    let length = file.metadata().map_err(|e| format!("{} cannot be read: {e}", data.display()))?.len();
    let first = meta(&file, 0).ok_or_else(|| bad_meta(0, length))?;
    if !first.page.is_power_of_two() || first.page < 512 {
        return Err(format!("its page size is said to be {}: the first meta page is damaged", first.page));
    }
    let second = meta(&file, first.page).ok_or_else(|| bad_meta(1, length))?;
    let newer = if second.txn > first.txn { second } else { first };
    let needs = newer.last_page.saturating_add(1).saturating_mul(first.page);
    if length < needs {
        let found = format!("it has {length} bytes, its last page ends at {needs}: the end was cut off");
        return Ok(Shape::Cut { needs, found });
    }
    Ok(Shape::Whole)
}

fn bad_meta(number: u8, length: u64) -> String {
    format!("meta page {number} is not LMDB's: the file ({length} bytes) was overwritten, zeroed or cut off")
}

#[derive(Clone, Copy)]
struct Meta {
    page: u64,
    last_page: u64,
    txn: u64,
}

const META_BYTES: usize = 152;
const MAGIC: u32 = 0xBEEF_C0DE;

/// A meta page: 16 bytes of page header, then magic u32, version u32, address u64, map size u64, the records of the two
/// inner databases (48 bytes each; the first begins with the page size u32), last page u64, transaction u64.
fn meta(file: &File, at: u64) -> Option<Meta> {
    let mut bytes = [0; META_BYTES];
    file.read_exact_at(&mut bytes, at).ok()?;
    let u32_at = |at: usize| bytes[at..].first_chunk().map(|b| u32::from_ne_bytes(*b));
    let u64_at = |at: usize| bytes[at..].first_chunk().map(|b| u64::from_ne_bytes(*b));
    let page = u64::from(u32_at(40)?);
    (u32_at(16)? == MAGIC).then_some(Meta { page, last_page: u64_at(136)?, txn: u64_at(144)? })
}
