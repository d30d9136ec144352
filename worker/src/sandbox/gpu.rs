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
    let all_but_run = AccessFs::from_all(ABI_NEWEST) & !AccessFs::Execute;
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
pub(super) const READABLE: [&str; 8] =
    ["/proc", "/sys", "/dev", "/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/nvidia"];

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

#[cfg(test)]
mod tests {
    #![expect(unsafe_code, reason = "calls that no crate offers because no program should make them, and a driver's")]
    use super::super::tests::in_a_child;
    use super::*;
    use rustix::net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
        recvmsg, sendmsg,
    };
    use std::io::{ErrorKind, IoSlice, IoSliceMut, Write};
    use std::mem::MaybeUninit;
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;
    use std::process::Command;

    const CACHE: &str = "CUDA_CACHE_PATH";

    /// Ways out of a process, and into others. With arguments that are all -1 none of them does anything.
    const REFUSED: &[(&str, i64)] = &[
        ("socketpair", libc::SYS_socketpair),
        ("bind", libc::SYS_bind),
        ("listen", libc::SYS_listen),
        ("accept4", libc::SYS_accept4),
        ("ptrace", libc::SYS_ptrace),
        ("process_vm_readv", libc::SYS_process_vm_readv),
        ("process_vm_writev", libc::SYS_process_vm_writev),
        ("pidfd_open", libc::SYS_pidfd_open),
        ("pidfd_getfd", libc::SYS_pidfd_getfd),
        ("pidfd_send_signal", libc::SYS_pidfd_send_signal),
        ("tkill", libc::SYS_tkill),
        ("mount", libc::SYS_mount),
        ("chroot", libc::SYS_chroot),
        ("unshare", libc::SYS_unshare),
        ("setns", libc::SYS_setns),
        ("setuid", libc::SYS_setuid),
        ("bpf", libc::SYS_bpf),
        ("perf_event_open", libc::SYS_perf_event_open),
        ("io_uring_setup", libc::SYS_io_uring_setup),
        ("keyctl", libc::SYS_keyctl),
        ("execveat", libc::SYS_execveat),
        ("seccomp", libc::SYS_seccomp),
        ("shmget", libc::SYS_shmget),
        ("fchmodat", libc::SYS_fchmodat),
        ("linkat", libc::SYS_linkat),
        ("symlinkat", libc::SYS_symlinkat),
    ];

    #[test]
    fn a_confined_gpu_process_can_talk_to_devices_but_not_reach_out() {
        let cache = tempfile::tempdir().unwrap();
        let said = in_a_child("sandbox::gpu::tests::confined", &[(CACHE, cache.path())]);
        assert!(said.contains("a GPU's among them"), "{said}");
    }

    #[test]
    #[ignore = "confines its process: run by a_confined_gpu_process_can_talk_to_devices_but_not_reach_out in a child"]
    fn confined() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (control, daemon) = UnixStream::pair().unwrap();
        let cache = PathBuf::from(std::env::var_os(CACHE).unwrap());

        let sentence = enter_gpu(None).unwrap();
        println!("{sentence}");

        let refused = |what: &str, result: std::io::Result<()>| {
            let errno = result.expect_err(what).raw_os_error();
            assert_eq!(errno, Some(libc::EPERM), "{what}");
        };
        refused("socket", UdpSocket::bind("127.0.0.1:0").map(drop));
        refused("connect", TcpStream::connect(address).map(drop));
        refused("accept", listener.accept().map(drop));
        refused("execve", Command::new("/bin/true").spawn().map(drop));
        refused("kill", nix::sys::signal::kill(nix::unistd::getppid(), None).map_err(Into::into));
        for (what, call) in REFUSED {
            // SAFETY: every argument is -1: a call that passed the filter after all would find nothing there.
            let answer = unsafe { libc::syscall(*call, -1, -1, -1, -1, -1, -1) };
            refused(what, if answer < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) });
        }
        if !sentence.contains("no Landlock") {
            let denied = |result: std::io::Result<std::fs::File>| {
                assert_eq!(result.expect_err("Landlock").kind(), ErrorKind::PermissionDenied);
            };
            denied(std::fs::File::create(std::env::temp_dir().join("rung-sandbox-gpu")));
            denied(std::fs::File::open("/etc/hostname"));
        }

        lives_on_files(&cache);
        lives_on_memory();
        assert_eq!(taken(&control, &daemon), 1, "a channel's socket arrives");
        let cpus = rustix::thread::sched_getaffinity(None).unwrap();
        rustix::thread::sched_setaffinity(None, &cpus).unwrap();
        assert_eq!(std::thread::spawn(|| 7).join().unwrap(), 7);
    }

    /// Devices, the cache, the kernel's tables.
    fn lives_on_files(cache: &Path) {
        std::fs::OpenOptions::new().read(true).write(true).open("/dev/null").unwrap().write_all(b"frame").unwrap();
        std::fs::create_dir(cache.join("kernels")).unwrap();
        std::fs::write(cache.join("kernels/new"), b"code").unwrap();
        std::fs::rename(cache.join("kernels/new"), cache.join("kernels/0")).unwrap();
        assert_eq!(std::fs::read(cache.join("kernels/0")).unwrap(), b"code");
        std::fs::remove_file(cache.join("kernels/0")).unwrap();
        assert!(std::fs::read_to_string("/proc/self/maps").is_ok() && std::fs::read_dir("/sys").is_ok());
        // SAFETY: asks how much there is to read; the zero descriptor is standard input.
        let asked = unsafe { libc::ioctl(0, libc::FIONREAD, &mut 0i32) };
        assert!(asked == 0 || std::io::Error::last_os_error().raw_os_error() != Some(libc::EPERM));
        // SAFETY: a system library that does nothing when it is opened.
        drop(unsafe { libloading::Library::new("libresolv.so.2") }.unwrap());
    }

    /// More address space than there is memory, code, locked pages.
    fn lives_on_memory() {
        let map = |length: usize, protection: i32| {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
            // SAFETY: a new mapping of nobody's memory.
            let at = unsafe { libc::mmap(std::ptr::null_mut(), length, protection, flags, -1, 0) };
            assert_ne!(at, libc::MAP_FAILED, "{length} bytes: {}", std::io::Error::last_os_error());
            at
        };
        map(1 << 40, libc::PROT_NONE);
        map(4096, libc::PROT_READ | libc::PROT_EXEC);
        let page = map(4096, libc::PROT_READ | libc::PROT_WRITE);
        // SAFETY: the page was just mapped and is nobody else's.
        assert_eq!(unsafe { libc::mlock(page, 4096) }, 0);
        // SAFETY: as above.
        assert_eq!(unsafe { libc::mprotect(page, 4096, libc::PROT_READ | libc::PROT_EXEC) }, 0);
        // SAFETY: a name that ends in zero; the descriptor stays open until the process ends.
        assert!(unsafe { libc::memfd_create(c"frames".as_ptr(), libc::MFD_CLOEXEC) } >= 0);
    }

    /// Descriptors that came with one message.
    fn taken(control: &UnixStream, daemon: &UnixStream) -> usize {
        let descriptors = [daemon.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut rights = SendAncillaryBuffer::new(&mut space);
        assert!(rights.push(SendAncillaryMessage::ScmRights(&descriptors)));
        sendmsg(daemon, &[IoSlice::new(b"join")], &mut rights, SendFlags::empty()).unwrap();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut rights = RecvAncillaryBuffer::new(&mut space);
        recvmsg(control, &mut [IoSliceMut::new(&mut [0; 8])], &mut rights, RecvFlags::CMSG_CLOEXEC).unwrap();
        let came = rights.drain().map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => descriptors.count(),
            _ => 0,
        });
        came.sum()
    }

    #[test]
    fn the_driver_s_cache_lies_where_it_is_told() {
        let with = |known: &'static [(&str, &str)]| {
            cache_folder(move |name| known.iter().find(|(n, _)| *n == name).map(|(_, value)| PathBuf::from(value)))
        };
        assert_eq!(with(&[("CUDA_CACHE_PATH", "/var/cache/rung"), ("HOME", "/root")]), Some("/var/cache/rung".into()));
        assert_eq!(with(&[("HOME", "/root")]), Some("/root/.nv".into()));
        assert_eq!(with(&[("CUDA_CACHE_PATH", "here")]), None);
        assert_eq!(with(&[]), None);
    }
}
