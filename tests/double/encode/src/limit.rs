//! How many sessions are open, in all processes that share a report folder: each holds one of the folder's slots, a
//! locked file, which the kernel gives back when the process dies. Without such a
//! folder, or where a process may not write there, every process counts for itself.

use std::fs::{File, OpenOptions};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

/// One open session's place among those that may be open.
pub(crate) struct Slot {
    /// Locked for as long as it is open.
    _file: Option<File>,
}

impl Slot {
    /// None when all `most` are taken.
    pub(crate) fn take(most: u64) -> Option<Slot> {
        let Some(files) = slots(most) else {
            return (OPEN.load(Ordering::SeqCst) < most).then(|| Slot::held(None));
        };
        let free = files.into_iter().find(|file| file.try_lock().is_ok())?;
        Some(Slot::held(Some(free)))
    }

    /// Where there is no bound.
    pub(crate) fn unbounded() -> Slot {
        Slot::held(None)
    }

    fn held(file: Option<File>) -> Slot {
        OPEN.fetch_add(1, Ordering::SeqCst);
        Slot { _file: file }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The folder's slots; none where there is no folder or this process may not write there.
fn slots(most: u64) -> Option<Vec<File>> {
    let folder = std::env::var_os("RUNG_DOUBLE_REPORT").map(PathBuf::from)?;
    let path = |number| folder.join(format!("encode-session-{number}.lock"));
    let open = |path| OpenOptions::new().create(true).truncate(false).write(true).open(path).ok();
    (0..most.min(BOUND)).map(|number| open(path(number))).collect()
}

/// Sessions of this process.
static OPEN: AtomicU64 = AtomicU64::new(0);

/// More slots than any test has sessions.
const BOUND: u64 = 1_000;
