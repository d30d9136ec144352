//! The same for the process that watches the GPUs. It reads no stranger's bytes: only what the kernel and the driver say.
//! This is for the case that these go wrong.
//!
//! Entered once NVML has started and every GPU is set up: what only that does (the driver's helper program, libraries)
//! is over by then. It keeps what NVML lives on: device nodes that may be opened for writing, and any ioctl on them.

use landlock::{AccessFs, path_beneath_rules};
use nix::libc;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use seccompiler::SeccompRule;
use std::path::{Path, PathBuf};

use super::gpu::READABLE;
use super::{Rules, allowed, bits, clear, give_up, landlock, seccomp, why};

/// Ends this process when the *thread* that spawned it ends: spawn it from one that lives as long as the daemon.
///
/// # Errors
/// The kernel's word.
pub fn end_with_parent() -> Result<(), String> {
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(why("end with the parent"))
}

/// As `enter`, for a process that has started NVML from `driver_folder` (`None`: where the loader looks). Before other
/// threads start.
///
/// # Errors
/// What could not be put in force.
pub fn enter_monitor(driver_folder: Option<&Path>) -> Result<String, String> {
    give_up()?;
    let readable = READABLE.iter().map(PathBuf::from).chain(driver_folder.map(Path::to_owned));
    let rules = path_beneath_rules(readable, AccessFs::ReadFile | AccessFs::ReadDir)
        .chain(path_beneath_rules(["/dev"], AccessFs::WriteFile | AccessFs::IoctlDev));
    let files = landlock(rules, "writes devices only, reads the system's files")?;
    let calls = seccomp(rules_of_monitor())?;
    Ok(format!(
        "sandbox: seccomp allows {calls} system calls, none of them for sockets, programs, new code or new files; \
         {files}; no core dumps, no new privileges, ends with its parent"
    ))
}

/// The software worker's list, and devices.
fn rules_of_monitor() -> Result<Rules, seccompiler::BackendError> {
    let mut rules = allowed()?;
    let making = bits(libc::O_CREAT | libc::O_TRUNC | libc::O_APPEND);
    rules.insert(libc::SYS_openat, vec![SeccompRule::new(vec![clear(2, making)?])?]);
    #[cfg(target_arch = "x86_64")]
    rules.insert(libc::SYS_open, vec![SeccompRule::new(vec![clear(1, making)?])?]);
    // What an ioctl may do is up to each driver.
    rules.insert(libc::SYS_ioctl, Vec::new());
    rules.extend(ALWAYS.iter().map(|call| (*call, Vec::new())));
    Ok(rules)
}

/// What NVML asks of the file system beside reading.
const ALWAYS: &[i64] = &[
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_sched_setaffinity,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_access,
];

#[cfg(test)]
mod tests {
    use super::super::tests::in_a_child;
    use super::*;
    use std::fs::File;
    use std::io::{Error, IsTerminal, Read};
    use std::net::TcpStream;
    use std::os::unix::net::UnixStream;
    use std::process::Command;

    #[test]
    fn a_confined_monitor_can_use_devices_and_not_reach_out() {
        let said = in_a_child("sandbox::monitor::tests::confined", &[]);
        assert!(said.contains("sandbox: seccomp allows"), "{said}");
    }

    #[test]
    #[ignore = "confines its process: run by a_confined_monitor_can_use_devices_and_not_reach_out in a child"]
    fn confined() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "there").unwrap();
        let sentence = enter_monitor(Some(folder.path())).unwrap();
        println!("{sentence}");

        let refused = |what: &str, result: Result<(), Error>| {
            let errno = result.expect_err(what).raw_os_error();
            assert_eq!(errno, Some(libc::EPERM), "{what}");
        };
        refused("connect", TcpStream::connect("127.0.0.1:1").map(drop));
        refused("connect by name", UnixStream::connect("/nowhere").map(drop));
        refused("execve", Command::new("/bin/true").spawn().map(drop));
        refused("create", File::create(folder.path().join("new")).map(drop));
        refused("append", File::options().append(true).open(&file).map(drop));
        refused("unlink", std::fs::remove_file(&file));
        refused("rename", std::fs::rename(&file, folder.path().join("other")));
        refused("kill", nix::sys::signal::kill(nix::unistd::getppid(), None).map_err(Into::into));
        if !sentence.contains("no Landlock") {
            let writing = File::options().write(true).open(&file).expect_err("no device");
            assert_eq!(writing.raw_os_error(), Some(libc::EACCES));
            assert!(File::open("/etc/hostname").is_err(), "Landlock hides files");
        }

        // What a monitor lives on: devices, the driver's files, the kernel's, threads.
        let mut device = File::options().read(true).write(true).open("/dev/null").unwrap();
        assert_eq!(device.read(&mut [0; 4]).unwrap(), 0);
        assert!(!device.is_terminal());
        assert_eq!(Error::last_os_error().raw_os_error(), Some(libc::ENOTTY), "the device refuses, not the filter");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "there");
        assert!(file.canonicalize().is_ok(), "links are followed");
        assert!(std::fs::read_to_string("/proc/self/stat").is_ok());
        assert!(std::thread::Builder::new().name("nvml".into()).spawn(|| 7).unwrap().join().is_ok());
    }
}
