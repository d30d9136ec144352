//! The same for a worker on a GPU. Its driver maps code, opens devices, reserves address space beyond all bounds and
//! talks to the kernel by ioctl; so those pass, and what a process needs to reach out of itself still does not.
//!
//! Entered once the driver is initialised: what only its start does (loading kernel modules through a helper program,
//! sockets between its own libraries) is over by then. Landlock confines the calling thread and those it starts later:
//! the driver's own threads, started before, are held by seccomp alone.

use landlock::{Access, AccessFs, path_beneath_rules};
use nix::libc;
use std::path::{Path, PathBuf};

use super::{ABI_NEWEST, Rules, allowed_everywhere, any_of, bits, give_up, is, landlock, seccomp};

/// As `enter`, for a process that has initialised the driver from `driver_folder` (`None`: where the loader looks).
///
/// There is no limit on the address space: CUDA reserves terabytes of it. The memory limit is the cgroup's.
///
/// # Errors
/// What could not be put in force.
pub fn enter_gpu(driver_folder: Option<&Path>) -> Result<String, String> {
    give_up()?;
    let readable = READABLE.iter().map(PathBuf::from).chain(driver_folder.map(Path::to_owned));
    let cache = cache_folder(|name| std::env::var_os(name).map(PathBuf::from)).filter(|folder| folder.is_dir());
    let writable = WRITABLE.iter().map(PathBuf::from).chain(cache.clone());
    // Writing includes making, renaming, removing and ioctl; nothing is ever executed.
    let all_but_run = AccessFs::from_all(ABI_NEWEST) & !AccessFs::from(AccessFs::Execute);
    let rules = path_beneath_rules(readable, AccessFs::ReadFile | AccessFs::ReadDir)
        .chain(path_beneath_rules(writable, all_but_run));
    let cache = cache.map_or_else(String::new, |folder| format!(" and {}", folder.display()));
    let files = landlock(rules, &format!("writes {}{cache} only, reads the system's files", WRITABLE.join(" and ")))?;
    let calls = seccomp(allowed())?;
    Ok(format!(
        "sandbox: seccomp allows {calls} system calls, a GPU's among them; {files}; no core dumps, no new privileges, \
         ends with its parent"
    ))
}

/// Where the driver keeps what it compiled: it honours these two, in this order.
fn cache_folder(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    variable("CUDA_CACHE_PATH").or_else(|| Some(variable("HOME")?.join(".nv"))).filter(|folder| folder.is_absolute())
}

fn allowed() -> Result<Rules, seccompiler::BackendError> {
    let mut rules = allowed_everywhere()?;
    rules.extend(ALWAYS.iter().map(|call| (*call, Vec::new())));
    // No owner for signals (F_SETOWN): the kernel would send them to others in this process's name.
    let fcntls = [
        libc::F_GETFD,
        libc::F_SETFD,
        libc::F_GETFL,
        libc::F_SETFL,
        libc::F_DUPFD,
        libc::F_DUPFD_CLOEXEC,
        libc::F_GETLK,
        libc::F_SETLK,
        libc::F_SETLKW,
        libc::F_OFD_GETLK,
        libc::F_OFD_SETLK,
        libc::F_OFD_SETLKW,
        libc::F_ADD_SEALS,
        libc::F_GET_SEALS,
    ];
    let conditions = fcntls.into_iter().map(|what| is(1, bits(what))).collect::<Result<_, _>>()?;
    rules.insert(libc::SYS_fcntl, any_of(conditions)?);
    Ok(rules)
}

/// What the driver reads after its start: its libraries, the kernel's tables, how the machine is built. Not the state
/// folder: a token of the daemon lies there.
const READABLE: [&str; 8] = ["/proc", "/sys", "/dev", "/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/nvidia"];

/// What it writes: devices, and its threads' names.
const WRITABLE: [&str; 2] = ["/dev", "/proc/self"];

/// Beside those of every worker. Files are Landlock's business, and the file system's own permissions'.
const ALWAYS: &[i64] = &[
    // The devices: what an ioctl may do is up to each driver.
    libc::SYS_openat,
    libc::SYS_ioctl,
    // Kernels are compiled for the card in this process: code appears in memory.
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mlock,
    libc::SYS_mlock2,
    libc::SYS_munlock,
    libc::SYS_mincore,
    libc::SYS_msync,
    libc::SYS_memfd_create,
    libc::SYS_mbind,
    libc::SYS_get_mempolicy,
    libc::SYS_set_mempolicy,
    // The cache of compiled kernels.
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_preadv,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_flock,
    libc::SYS_fadvise64,
    libc::SYS_mkdirat,
    libc::SYS_unlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fchmod,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_dup3,
    // Its threads: where they run, how urgent they are within what they were given.
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_get_priority_max,
    libc::SYS_sched_get_priority_min,
    libc::SYS_capget,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_access,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mkdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_unlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rename,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_dup2,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_getrlimit,
];
