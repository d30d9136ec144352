//! The NVIDIA driver's double as a folder that a program under test takes for the driver.
//!
//! ```ignore
//! #[path = "support/double.rs"]
//! mod double;
//! let driver = Driver::new().gpus(2).setting("gpu0.memory_mb", 512).fault("cuda.alloc code=2 after=3");
//! driver.env(&mut command);              // then hand `driver.folder()` to the program as its driver folder
//! driver.assert_clean();                 // nothing lives any more, no contract was broken
//! ```
//! The settings and fault points are those of the libraries under `tests/double`, each in its crate's own words.
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

/// Crate, and the names under which its library is asked for. `libcuda.so` as well, because cudarc asks for that name
/// first, and where a real driver is installed would find that one.
const LIBRARIES: [(&str, &[&str]); 4] = [
    ("rung-double-cuda", &["libcuda.so.1", "libcuda.so"]),
    ("rung-double-cuvid", &["libnvcuvid.so.1"]),
    ("rung-double-encode", &["libnvidia-encode.so.1"]),
    ("rung-double-ml", &["libnvidia-ml.so.1"]),
];

/// Ends with its folder: keep it as long as a process uses it.
pub(crate) struct Driver {
    root: tempfile::TempDir,
    settings: BTreeMap<String, String>,
    faults: Vec<String>,
    /// The settings file's time, set by us: the doubles read the file again when it changes, and two changes may come
    /// within one tick of the file system's clock.
    written: SystemTime,
}

impl Driver {
    /// Every library, one GPU, no faults. Builds the libraries where they are missing or older than their source.
    pub(crate) fn new() -> Driver {
        let built = built();
        let root = tempfile::Builder::new().prefix("rung-driver-").tempdir().unwrap();
        for folder in ["driver", "report"] {
            fs::create_dir(root.path().join(folder)).unwrap();
        }
        for (krate, names) in LIBRARIES {
            for name in names {
                symlink(file(built, krate), root.path().join("driver").join(name)).unwrap();
            }
        }
        let driver = Driver { root, settings: BTreeMap::new(), faults: Vec::new(), written: SystemTime::now() };
        driver.gpus(1)
    }

    pub(crate) fn gpus(self, gpus: u32) -> Driver {
        self.setting("gpus", gpus)
    }

    /// One line `key = value` of the settings.
    pub(crate) fn setting(mut self, key: &str, value: impl Display) -> Driver {
        self.set(key, value);
        self
    }

    /// One fault, without the word `fault`: `"cuda.launch code=700 after=3"`.
    pub(crate) fn fault(mut self, line: &str) -> Driver {
        self.play(line);
        self
    }

    /// Without this library, as on a machine where it is not installed: one of the names that a driver folder holds.
    pub(crate) fn without(self, name: &str) -> Driver {
        let (_, names) = LIBRARIES.iter().find(|(_, names)| names.contains(&name)).unwrap();
        for name in *names {
            fs::remove_file(self.folder().join(name)).unwrap();
        }
        self
    }

    /// A setting changed under running processes: they see it at their next call.
    pub(crate) fn set(&mut self, key: &str, value: impl Display) {
        self.settings.insert(key.to_owned(), value.to_string());
        self.write();
    }

    /// A fault played into running processes. `after` counts from now.
    pub(crate) fn play(&mut self, line: &str) {
        self.faults.push(line.to_owned());
        self.write();
    }

    /// From now on no fault is played. What a fault did to a context is not undone.
    pub(crate) fn heal(&mut self) {
        self.faults.clear();
        self.write();
    }

    /// What the product is to take for the folder of the driver's libraries.
    pub(crate) fn folder(&self) -> PathBuf {
        self.root.path().join("driver")
    }

    /// Names settings and report to a process, and puts the folder first where the loader looks.
    pub(crate) fn env(&self, command: &mut Command) {
        let mut path = self.folder().into_os_string();
        if let Some(others) = std::env::var_os("LD_LIBRARY_PATH") {
            path.push(":");
            path.push(others);
        }
        command.env("LD_LIBRARY_PATH", path);
        command.env("RUNG_DOUBLE", self.settings_file()).env("RUNG_DOUBLE_REPORT", self.report());
        // A worker in its sandbox reads the driver's folder, and writes nowhere but where the driver keeps its cache.
        command.env("CUDA_CACHE_PATH", self.report());
    }

    /// One ignored test of this binary in a process of its own, which finds the driver's folder by `folder()`. Names are
    /// as the test binary prints them.
    pub(crate) fn command(&self, test: &str) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"]);
        self.env(&mut command);
        command.env(FOLDER, self.folder());
        command
    }

    /// Runs such a test, which must pass: what it printed.
    #[track_caller]
    pub(crate) fn pass(&self, test: &str) -> String {
        passed(test, &self.command(test).output().unwrap())
    }

    /// Every count, summed over libraries and processes, those that have ended as well.
    pub(crate) fn counts(&self) -> BTreeMap<String, i64> {
        self.counts_where(|_| true)
    }

    /// The counts of one process: for processes that were killed, which leave alive what they had.
    pub(crate) fn counts_of(&self, pid: u32) -> BTreeMap<String, i64> {
        self.counts_where(|of| of == pid)
    }

    /// One count; what was never counted is 0.
    pub(crate) fn count(&self, what: &str) -> i64 {
        self.counts().get(what).copied().unwrap_or(0)
    }

    /// A sentence for every contract that some process broke.
    pub(crate) fn broken(&self) -> Vec<String> {
        let texts = self.reports("broken");
        texts.iter().flat_map(|(_, text)| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect()
    }

    /// Nothing lives any more, in whatever process, and no contract was broken.
    #[track_caller]
    pub(crate) fn assert_clean(&self) {
        assert_eq!(self.broken(), Vec::<String>::new(), "contracts were broken");
        let alive: Vec<_> =
            self.counts().into_iter().filter(|(what, count)| what.starts_with("live ") && *count != 0).collect();
        assert_eq!(alive, Vec::new(), "left behind");
    }

    fn counts_where(&self, wanted: impl Fn(u32) -> bool) -> BTreeMap<String, i64> {
        let mut all = BTreeMap::new();
        for (_, text) in self.reports("count").iter().filter(|(pid, _)| wanted(*pid)) {
            for (what, count) in text.lines().map(|line| line.rsplit_once(' ').unwrap()) {
                *all.entry(what.to_owned()).or_default() += count.parse::<i64>().unwrap();
            }
        }
        all
    }

    /// `<library>.<pid>.<kind>` of every process that reported: its PID and the text.
    fn reports(&self, kind: &str) -> Vec<(u32, String)> {
        let mut reports = Vec::new();
        for entry in fs::read_dir(self.report()).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if let Some((head, _)) = name.rsplit_once('.').filter(|(_, of)| *of == kind) {
                let (_, pid) = head.rsplit_once('.').unwrap();
                reports.push((pid.parse().unwrap(), fs::read_to_string(self.report().join(&name)).unwrap()));
            }
        }
        reports
    }

    fn write(&mut self) {
        let settings = self.settings.iter().map(|(key, value)| format!("{key} = {value}\n"));
        let faults = self.faults.iter().map(|line| format!("fault {line}\n"));
        let made = self.root.path().join("settings.made");
        fs::write(&made, settings.chain(faults).collect::<String>()).unwrap();
        self.written += Duration::from_millis(1);
        fs::File::options().write(true).open(&made).unwrap().set_modified(self.written).unwrap();
        fs::rename(made, self.settings_file()).unwrap();
    }

    /// Beside the libraries: a confined process may read there.
    fn settings_file(&self) -> PathBuf {
        self.folder().join("settings")
    }

    fn report(&self) -> PathBuf {
        self.root.path().join("report")
    }
}

/// What a process of `Driver::command` printed, whose test must have passed.
#[track_caller]
pub(crate) fn passed(test: &str, out: &Output) -> String {
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    let passed = out.status.success() && said.contains("1 passed");
    assert!(passed, "{test}: {}\n{said}{}", out.status, String::from_utf8_lossy(&out.stderr));
    said
}

/// In a test that `Driver::command` started: the driver's folder.
pub(crate) fn folder() -> PathBuf {
    std::env::var_os(FOLDER).expect("this test is run by another one, in a process of its own").into()
}

const FOLDER: &str = "RUNG_TEST_DRIVER";

/// The folder that holds the built libraries: beside the programs of this profile. Built once a process.
fn built() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        // target/<profile>/deps/<this test>
        let folder = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().to_owned();
        let root =
            Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().find(|at| at.join("tests/double").is_dir()).unwrap();
        let source = newest(&root.join("tests/double")).max(newest(&root.join("kernels")));
        let fresh = |krate| fs::metadata(file(&folder, krate)).and_then(|m| m.modified()).is_ok_and(|at| at > source);
        if !LIBRARIES.iter().all(|(krate, _)| fresh(krate)) {
            build(root, &folder);
        }
        folder
    })
}

fn build(root: &Path, folder: &Path) {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root).args(["build", "-q", "--target-dir"]).arg(folder.parent().unwrap());
    if folder.ends_with("release") {
        cargo.arg("--release");
    }
    for (krate, _) in LIBRARIES {
        cargo.args(["-p", krate]);
    }
    let out = cargo.output().unwrap();
    assert!(out.status.success(), "the driver's double: {}", String::from_utf8_lossy(&out.stderr));
    // What did not change was not built again, and is fresh all the same.
    for (krate, _) in LIBRARIES {
        fs::File::options().append(true).open(file(folder, krate)).unwrap().set_modified(SystemTime::now()).unwrap();
    }
}

fn file(folder: &Path, krate: &str) -> PathBuf {
    folder.join(format!("lib{}.so", krate.replace('-', "_")))
}

/// When a file under `at` was last changed.
fn newest(at: &Path) -> SystemTime {
    let Ok(entries) = fs::read_dir(at) else {
        return fs::metadata(at).and_then(|m| m.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
    };
    entries.map(|entry| newest(&entry.unwrap().path())).max().unwrap_or(SystemTime::UNIX_EPOCH)
}
