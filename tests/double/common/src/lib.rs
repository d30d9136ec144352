//! What the doubles of the NVIDIA driver share: what the card is said to be, faults to play, contracts that a caller
//! broke, and the count of what lives.
//!
//! A test names a file in `RUNG_DOUBLE` and a folder in `RUNG_DOUBLE_REPORT`. The file is read again whenever it was
//! changed, so faults can be played into a running process. Its lines are `key = value` (what the card is), or
//! `fault <point> <what> [after=<calls>] [times=<n>]`, where `<what>` is `code=<n>`, `sleep=<ms>` or a word that the
//! point knows. `after=3` lets three calls of that point pass after the line was first seen; without `times` a fault is
//! played for ever. A line of the report folder's `<library>.<pid>.count` is `<what> <number>`; each line of
//! `<library>.<pid>.broken` says which contract a caller broke. Both files are opened at the first call and kept: a process
//! that gives up opening files goes on reporting.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

/// What a fault does; the point that asked carries it out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Return this status.
    Code(u32),
    /// Wait so long, then do what was asked.
    Sleep(Duration),
    Word(String),
}

/// One library's double. Made once, in a static: `static DOUBLE: Double = Double::new("libcuda")`.
pub struct Double {
    library: &'static str,
    state: Mutex<State>,
}

struct State {
    read: Option<SystemTime>,
    settings: BTreeMap<String, String>,
    plan: Vec<Planned>,
    /// In the order of their first mention.
    counts: Vec<(&'static str, i64)>,
    reports: Option<Reports>,
}

struct Reports {
    count: fs::File,
    broken: fs::File,
}

struct Planned {
    line: String,
    point: String,
    fault: Fault,
    after: u64,
    left: Option<u64>,
}

impl Double {
    pub const fn new(library: &'static str) -> Double {
        let state =
            State { read: None, settings: BTreeMap::new(), plan: Vec::new(), counts: Vec::new(), reports: None };
        Double { library, state: Mutex::new(state) }
    }

    /// What the file says about `key`.
    pub fn setting(&self, key: &str) -> Option<String> {
        self.state().settings.get(key).cloned()
    }

    /// A number of the file, or `otherwise`.
    ///
    /// # Panics
    /// The file says something else than a number: the test is wrong.
    pub fn number(&self, key: &str, otherwise: u64) -> u64 {
        let said = self.setting(key);
        said.map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{key} = {text}: write a number")))
    }

    /// Called once wherever a fault may be played: the fault that is due now.
    pub fn fault(&self, point: &str) -> Option<Fault> {
        let mut state = self.state();
        let planned = state.plan.iter_mut().find(|p| p.point == point && p.left != Some(0))?;
        if planned.after > 0 {
            planned.after -= 1;
            return None;
        }
        planned.left = planned.left.map(|left| left - 1);
        let fault = planned.fault.clone();
        drop(state);
        self.count("faults played", 1);
        Some(fault)
    }

    /// The caller broke a contract of the driver. Say which, as a sentence with the call's name in front.
    pub fn broken(&self, contract: &str) {
        self.count("contracts broken", 1);
        if let Some(reports) = &mut self.state().reports {
            drop(writeln!(reports.broken, "{contract}"));
        }
    }

    /// Something began (+1) or ended (-1), or was done so often.
    pub fn count(&self, what: &'static str, change: i64) {
        let mut state = self.state();
        match state.counts.iter_mut().find(|(counted, _)| *counted == what) {
            Some((_, count)) => *count += change,
            None => state.counts.push((what, change)),
        }
        // Every number keeps its place and its width: whoever reads while it is written sees old numbers or new ones.
        let text: String = state.counts.iter().map(|(what, count)| format!("{what} {count:+012}\n")).collect();
        if let Some(reports) = &mut state.reports {
            let file = &mut reports.count;
            drop(file.seek(SeekFrom::Start(0)).and_then(|_| file.write_all(text.as_bytes())));
        }
    }

    /// As the count stands.
    pub fn counted(&self, what: &str) -> i64 {
        self.state().counts.iter().find(|(counted, _)| *counted == what).map_or(0, |(_, count)| *count)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(path) = std::env::var_os("RUNG_DOUBLE") {
            state.refresh(Path::new(&path));
        }
        if state.reports.is_none()
            && let Some(folder) = std::env::var_os("RUNG_DOUBLE_REPORT")
        {
            state.reports = Reports::open(Path::new(&folder), self.library);
        }
        state
    }
}

impl Reports {
    fn open(folder: &Path, library: &str) -> Option<Reports> {
        let path = |kind| folder.join(format!("{library}.{}.{kind}", std::process::id()));
        let count = fs::File::create(path("count")).ok()?;
        Some(Reports { count, broken: fs::File::create(path("broken")).ok()? })
    }
}

impl State {
    fn refresh(&mut self, path: &Path) {
        let changed = fs::metadata(path).and_then(|m| m.modified()).ok();
        if changed == self.read {
            return;
        }
        self.read = changed;
        let text = fs::read_to_string(path).unwrap_or_default();
        self.settings.clear();
        let mut plan = Vec::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if let Some((key, value)) = line.split_once('=').filter(|_| !line.starts_with("fault ")) {
                self.settings.insert(key.trim().to_owned(), value.trim().to_owned());
                continue;
            }
            // A fault that was seen before goes on where it stands.
            let known = self.plan.iter().position(|planned| planned.line == line);
            plan.push(known.map_or_else(|| Planned::read(line), |at| self.plan.swap_remove(at)));
        }
        self.plan = plan;
    }
}

impl Planned {
    fn read(line: &str) -> Planned {
        let mut words = line.split_whitespace().skip(1);
        let (Some(point), Some(what)) = (words.next(), words.next()) else {
            panic!("{line}: write fault <point> <what>");
        };
        let number = |text: &str| text.parse::<u64>().unwrap_or_else(|_| panic!("{line}: {text} is no number"));
        let fault = match what.split_once('=') {
            Some(("code", code)) => Fault::Code(number(code) as u32),
            Some(("sleep", ms)) => Fault::Sleep(Duration::from_millis(number(ms))),
            _ => Fault::Word(what.to_owned()),
        };
        let mut planned = Planned { line: line.to_owned(), point: point.to_owned(), fault, after: 0, left: None };
        for word in words {
            match word.split_once('=') {
                Some(("after", calls)) => planned.after = number(calls),
                Some(("times", times)) => planned.left = Some(number(times)),
                _ => panic!("{line}: {word} is neither after= nor times="),
            }
        }
        planned
    }
}

/// All reports of a folder summed up: for tests. `(what, count)` over every library and process.
pub fn counts(folder: &Path) -> BTreeMap<String, i64> {
    let mut all = BTreeMap::new();
    for text in reports(folder, "count") {
        for (what, count) in text.lines().filter_map(|line| line.rsplit_once(' ')) {
            *all.entry(what.to_owned()).or_default() += count.parse::<i64>().unwrap_or(0);
        }
    }
    all
}

/// Every contract that was broken, by whatever process.
pub fn broken(folder: &Path) -> Vec<String> {
    reports(folder, "broken").iter().flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect()
}

fn reports(folder: &Path, kind: &str) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let of_kind = entries.filter(|path| path.extension().is_some_and(|e| e == kind));
    of_kind.filter_map(|path| fs::read_to_string(path).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_played_when_they_are_due_and_a_changed_file_keeps_what_went_before() {
        let mut state =
            State { read: None, settings: BTreeMap::new(), plan: Vec::new(), counts: Vec::new(), reports: None };
        let path = std::env::temp_dir().join(format!("rung-double-{}", std::process::id()));
        fs::write(&path, "gpus = 2\nfault encode.open code=10 after=1 times=1\n").unwrap();
        state.refresh(&path);
        assert_eq!(state.settings["gpus"], "2");
        assert_eq!((state.plan[0].after, state.plan[0].left), (1, Some(1)));
        assert_eq!(state.plan[0].fault, Fault::Code(10));
        state.plan[0].after = 0;
        fs::write(&path, "fault encode.open code=10 after=1 times=1\nfault launch lost\n").unwrap();
        state.read = None;
        state.refresh(&path);
        assert_eq!((state.plan[0].after, state.plan.len()), (0, 2));
        fs::remove_file(&path).unwrap();
    }
}
