//! Copies of the control state: taken while it is used, believed only after every row was read, swapped in whole.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::error::{Error, OpenError};
use super::folder::{self, Shape};
use super::lmdb::{Lmdb, Mode};
use super::table::{Db, Home};
use super::txn::damage;
use crate::time::{SystemClock, Wall};

const HOURS_KEPT: usize = 24;
const DAYS_KEPT: usize = 7;
const PREFIX: &str = "state-";
const SUFFIX: &str = ".mdb";

/// A verified copy among the folder's own; older ones than it keeps are removed.
pub(super) fn hourly(folder: &Path, lmdb: &Lmdb) -> Result<PathBuf, OpenError> {
    let dir = folder.join("backups");
    let copy = copy_into(&dir, lmdb)?;
    let names: Vec<String> = newest_first(&dir).iter().filter_map(|p| stamp_of(p)).collect();
    let kept = kept(&names);
    for old in newest_first(&dir).iter().filter(|p| stamp_of(p).is_some_and(|s| !kept.contains(&s))) {
        fs::remove_file(old).map_err(|e| not_good(old, format!("an old backup cannot be removed: {e}")))?;
    }
    Ok(copy)
}

/// A verified copy in `dir`: written under another name, read back whole, then renamed.
pub(super) fn copy_into(dir: &Path, lmdb: &Lmdb) -> Result<PathBuf, OpenError> {
    let made = fs::create_dir_all(dir);
    made.map_err(|e| OpenError::Unwritable { folder: dir.to_owned(), what: e.to_string() })?;
    let name = format!("{PREFIX}{}{SUFFIX}", stamp(SystemClock::wall()));
    let (part, whole) = (dir.join(format!("{name}.part")), dir.join(name));
    let copied = lmdb.copy_to(&part).map_err(|e| not_good(&part, format!("cannot be written: {e}")));
    let checked = copied.and_then(|()| verify(&part).map(drop));
    if let Err(error) = checked {
        // What is left of it is in nobody's way if it cannot be removed either: its name says that it is a part.
        fs::remove_file(&part).unwrap_or_default();
        return Err(error);
    }
    let renamed = fs::rename(&part, &whole).and_then(|()| File::open(dir)?.sync_all());
    renamed.map_err(|e| not_good(&whole, format!("cannot be put in place: {e}")))?;
    Ok(whole)
}

/// Reads every row of a backup; how many there are.
///
/// # Errors
/// What is wrong with it.
pub fn verify(file: &Path) -> Result<u64, OpenError> {
    match folder::shape(file) {
        Ok(Shape::Whole) => {}
        Ok(Shape::Cut { found, .. }) => return Err(not_good(file, found)),
        Err(found) => return Err(not_good(file, found)),
    }
    let failed = |e: Error| not_good(file, format!("is damaged: {e}"));
    let copy = Lmdb::open(file, Home::State, Mode::Copy).map_err(failed)?;
    copy.read(|view| {
        let mut rows = 0;
        for db in Db::ALL.iter().filter(|db| db.home() == Home::State) {
            if let Some(error) = damage(view, *db, 1)?.into_iter().next() {
                return Err(error);
            }
            rows += view.raw(*db)?.map_or(Ok(0), |_| view.count(*db))?;
        }
        Ok(rows)
    })
    .map_err(failed)
}

/// Puts a backup in the place of a folder's control state; rows in it. The daemon must not run. The old state stays
/// beside it under the name in the second place.
///
/// # Errors
/// Why the backup or the folder cannot be used; the old state stays in place then.
pub fn restore(folder: &Path, file: &Path) -> Result<(u64, Option<PathBuf>), OpenError> {
    let _lock = folder::lock(folder)?;
    let rows = verify(file)?;
    folder::settle(folder, Home::State)?;
    prepare(folder, file)?;
    let old = folder::swap_in(folder, Home::State, "replaced")?;
    Ok((rows, old))
}

/// Makes `state.ready` from the newest backup that is good; `None`: there is none.
pub(super) fn prepare_newest(folder: &Path, tried: &mut Vec<String>) -> Result<Option<PathBuf>, OpenError> {
    for file in newest_first(&folder.join("backups")) {
        match verify(&file).and_then(|_| prepare(folder, &file)) {
            Ok(()) => return Ok(Some(file)),
            Err(OpenError::NotGood { file, why }) => tried.push(format!("backup {}: {why}", file.display())),
            Err(other) => return Err(other),
        }
    }
    Ok(None)
}

pub(super) fn has_any(folder: &Path) -> bool {
    !newest_first(&folder.join("backups")).is_empty()
}

fn prepare(folder: &Path, file: &Path) -> Result<(), OpenError> {
    let new = folder::new_dir(folder, Home::State)?;
    let data = new.join("data.mdb");
    let copied = fs::copy(file, &data).and_then(|_| File::open(&data)?.sync_all());
    copied.map_err(|e| OpenError::Unwritable { folder: folder.to_owned(), what: e.to_string() })?;
    verify(&data)?;
    folder::ready(folder, Home::State)
}

fn newest_first(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries.map(|e| e.path()).filter(|p| stamp_of(p).is_some()).collect();
    found.sort();
    found.reverse();
    found
}

/// `20260725T120000.000Z`: sorts by time, and is a file name anywhere.
pub(super) fn stamp(at: Wall) -> String {
    at.to_string().replace(['-', ':'], "")
}

fn stamp_of(file: &Path) -> Option<String> {
    let name = file.file_name()?.to_str()?;
    Some(name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.to_owned()).filter(|s| s.len() == 20 && s.is_ascii())
}

/// Of stamps, newest first: the newest of each of the last 24 hours and 7 days that have one.
fn kept(stamps: &[String]) -> BTreeSet<String> {
    let mut kept = BTreeSet::new();
    // "20260725T12" and "20260725"
    for (prefix, max) in [(11, HOURS_KEPT), (8, DAYS_KEPT)] {
        let mut periods = BTreeSet::new();
        for stamp in stamps {
            if periods.len() < max && periods.insert(&stamp[..prefix]) {
                kept.insert(stamp.clone());
            }
        }
    }
    kept
}

fn not_good(file: &Path, why: String) -> OpenError {
    OpenError::NotGood { file: file.to_owned(), why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backups_of_24_hours_and_7_days_are_kept() {
        let hour = |h: i64| stamp(Wall(1_790_000_000_000_000_000 + h * 3_600_000_000_000));
        let mut stamps: Vec<String> = (0..400).map(hour).collect();
        // Two more within the newest hour do not push hours out.
        stamps.push(stamp(Wall(1_790_000_000_000_000_000 + 399 * 3_600_000_000_000 + 1_000_000_000)));
        stamps.sort();
        stamps.reverse();
        let kept = kept(&stamps);
        assert!(kept.contains(&stamps[0]) && !kept.contains(&stamps[1]), "the newest of its hour");
        let hours: BTreeSet<&str> = kept.iter().map(|s| &s[..11]).collect();
        assert!((376..400).all(|h| hours.contains(&hour(h)[..11])), "24 hours");
        let days: BTreeSet<&str> = kept.iter().map(|s| &s[..8]).collect();
        assert_eq!(days.len(), 7, "{kept:?}");
        assert!(kept.len() <= 24 + 7);
    }

    #[test]
    fn stamps_sort_by_time_and_parse_back() {
        let name = PathBuf::from(format!("b/{PREFIX}{}{SUFFIX}", stamp(Wall(1_795_219_199_999_000_000))));
        assert_eq!(stamp_of(&name).as_deref(), Some("20261120T235959.999Z"));
        assert_eq!(stamp_of(Path::new("b/state-x.mdb")), None);
        assert_eq!(stamp_of(Path::new("b/state-20261120T235959.999Z.mdb.part")), None);
    }
}
