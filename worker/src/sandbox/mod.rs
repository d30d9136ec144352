//! Purpose: what a worker gives up before it reads the first byte of a stranger's stream: whoever takes over a decoder
//! holds a process that can compute, talk on the socket it has, and nothing else. On a GPU it can talk to the driver, too.
//! Time: none.
//! Invariants: nothing here is undone. A call that is not on the list returns EPERM; it does not kill, so a library that
//! tries an optional call goes on without it. Later threads inherit everything.
//! When it fails: `enter` says what could not be put in force, and the caller must not go on. A kernel without Landlock
//! is no failure: the sentence says so.

mod gpu;
mod monitor;

pub use gpu::enter_gpu;
pub use monitor::{end_with_parent, enter_monitor};

use std::collections::BTreeMap;

use landlock::{
    ABI, Access, AccessFs, AccessNet, LandlockStatus, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetError, RulesetStatus, Scope, path_beneath_rules,
};
use nix::libc;
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition, SeccompFilter,
    SeccompRule,
};

/// Confines the whole process (Landlock: the calling thread and the threads it starts, so call it before others
/// start). The answer is a sentence for the log that names what is in force.
///
/// The process ends with the *thread* that spawned it: spawn it from one that lives as long as the daemon.
///
/// # Errors
/// What could not be put in force.
pub fn enter() -> Result<String, String> {
    setrlimit(Resource::RLIMIT_AS, ADDRESS_SPACE, ADDRESS_SPACE).map_err(why("limit the address space"))?;
    give_up()?;
    let reading = path_beneath_rules(READABLE, AccessFs::ReadFile | AccessFs::ReadDir);
    let files = landlock(reading, &format!("reads {} only", READABLE.join(" and ")))?;
    let calls = seccomp(allowed())?;
    let mib = ADDRESS_SPACE >> 20;
    Ok(format!(
        "sandbox: seccomp allows {calls} system calls; {files}; {mib} MiB of address space, no core dumps, no new \
         privileges, ends with its parent"
    ))
}

/// What every worker gives up, whatever it works on.
fn give_up() -> Result<(), String> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(why("forbid core dumps"))?;
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(why("end with the parent"))?;
    prctl::set_no_new_privs().map_err(why("give up new privileges"))
}

fn why(what: &'static str) -> impl Fn(nix::Error) -> String {
    move |errno| format!("{what}: {errno}")
}

/// No TCP, no signals and no abstract sockets of others, and of the files what `rules` say; `says` is what that means.
fn landlock(
    rules: impl Iterator<Item = Result<PathBeneath<PathFd>, RulesetError>>,
    says: &str,
) -> Result<String, String> {
    let handled = AccessFs::from_all(ABI_NEWEST);
    let status = Ruleset::default()
        .handle_access(handled)
        .and_then(|ruleset| ruleset.handle_access(AccessNet::from_all(ABI_NEWEST)))
        .and_then(|ruleset| ruleset.scope(Scope::from_all(ABI_NEWEST)))
        .and_then(Ruleset::create)
        .and_then(|ruleset| ruleset.add_rules(rules))
        .and_then(|ruleset| ruleset.restrict_self())
        .map_err(|error| format!("Landlock: {error}"))?;
    Ok(match (status.ruleset, status.landlock) {
        (RulesetStatus::NotEnforced, LandlockStatus::NotEnabled) => {
            "no Landlock: this kernel has it switched off".into()
        }
        (RulesetStatus::NotEnforced, _) => "no Landlock: this kernel lacks it".into(),
        (_, LandlockStatus::Available { effective_abi, .. }) => format!("Landlock {} {says}", effective_abi as i32),
        (_, _) => "Landlock in part".into(),
    })
}

/// Two filters, because they answer differently: clone3, whose flags a filter cannot see, fails with ENOSYS, upon which
/// the C library takes clone; all but the allowed calls fail with EPERM. That one comes last: it refuses further ones.
fn seccomp(allowed: Result<Rules, seccompiler::BackendError>) -> Result<usize, String> {
    let allowed = allowed.map_err(|error| format!("seccomp rules: {error}"))?;
    let count = allowed.len();
    let absent = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    install(absent, SeccompAction::Allow, SeccompAction::Errno(libc::ENOSYS as u32))?;
    install(allowed, SeccompAction::Errno(libc::EPERM as u32), SeccompAction::Allow)?;
    Ok(count - 1)
}

fn install(rules: Rules, others: SeccompAction, these: SeccompAction) -> Result<(), String> {
    let arch = std::env::consts::ARCH.try_into().map_err(|error| format!("seccomp: {error}"))?;
    let program: BpfProgram = SeccompFilter::new(rules, others, these, arch)
        .and_then(TryInto::try_into)
        .map_err(|error| format!("seccomp filter: {error}"))?;
    seccompiler::apply_filter_all_threads(&program).map_err(|error| format!("seccomp: {error}"))
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// The list for software workers.
fn allowed() -> Result<Rules, seccompiler::BackendError> {
    let mut rules = allowed_everywhere()?;
    let mut when = |call: i64, conditions: Vec<SeccompCondition>| any_of(conditions).map(|any| rules.insert(call, any));
    let writing = bits(libc::O_WRONLY | libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC | libc::O_APPEND);
    when(libc::SYS_openat, vec![clear(2, writing)?])?;
    #[cfg(target_arch = "x86_64")]
    when(libc::SYS_open, vec![clear(1, writing)?])?;
    // No code that was not there from the start.
    when(libc::SYS_mmap, vec![clear(2, bits(libc::PROT_EXEC))?])?;
    when(libc::SYS_mprotect, vec![clear(2, bits(libc::PROT_EXEC))?])?;
    let fcntls = [libc::F_GETFD, libc::F_SETFD, libc::F_GETFL, libc::F_SETFL, libc::F_DUPFD_CLOEXEC];
    when(libc::SYS_fcntl, fcntls.into_iter().map(|what| is(1, bits(what))).collect::<Result<_, _>>()?)?;
    when(libc::SYS_ioctl, vec![is(1, libc::FIONBIO)?])?;
    Ok(rules)
}

/// What no worker can do without.
fn allowed_everywhere() -> Result<Rules, seccompiler::BackendError> {
    let mut rules: Rules = ALWAYS.iter().map(|call| (*call, Vec::new())).collect();
    let mut when = |call: i64, conditions: Vec<SeccompCondition>| any_of(conditions).map(|any| rules.insert(call, any));
    // Threads, not processes.
    when(libc::SYS_clone, vec![set(0, bits(libc::CLONE_THREAD))?])?;
    // `abort` raises a signal in its own thread; nobody else's.
    when(libc::SYS_tgkill, vec![is(0, u64::from(std::process::id()))?])?;
    let prctls = [libc::PR_SET_NAME, libc::PR_GET_NAME, libc::PR_SET_VMA];
    when(libc::SYS_prctl, prctls.into_iter().map(|what| is(0, bits(what))).collect::<Result<_, _>>()?)?;
    // Threads give way, of their own.
    when(libc::SYS_setpriority, vec![is(1, 0)?])?;
    // Ask for limits, set none.
    when(libc::SYS_prlimit64, vec![SeccompCondition::new(2, Len::Qword, Op::Eq, 0)?])?;
    Ok(rules)
}

/// Any of the conditions lets a call pass.
fn any_of(conditions: Vec<SeccompCondition>) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    conditions.into_iter().map(|one| SeccompRule::new(vec![one])).collect()
}

/// The argument has none of `bits`.
fn clear(argument: u8, bits: u64) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(argument, Len::Dword, Op::MaskedEq(bits), 0)
}

/// The argument has all of `bits`.
fn set(argument: u8, bits: u64) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(argument, Len::Dword, Op::MaskedEq(bits), bits)
}

fn is(argument: u8, value: u64) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(argument, Len::Dword, Op::Eq, value)
}

fn bits(flags: i32) -> u64 {
    u64::from(flags.cast_unsigned())
}

/// Address space: a 1080p ladder of four renditions takes about 0.5 GiB resident, and thread stacks and allocator
/// arenas reserve far more than they touch.
const ADDRESS_SPACE: u64 = 4 << 30;

/// What the C library and libav read after the start: the number of CPUs, and the process's own state.
const READABLE: [&str; 2] = ["/proc/self", "/sys/devices/system/cpu"];

/// The newest Landlock rules we know; a kernel that knows fewer enforces fewer.
const ABI_NEWEST: ABI = ABI::V7;

/// Allowed whatever the arguments: none opens, names or reaches anything that the process does not hold already.
const ALWAYS: &[i64] = &[
    // What is open: the socket to the daemon, and what comes over it.
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    libc::SYS_shutdown,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_close,
    libc::SYS_dup,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_getdents64,
    libc::SYS_readlinkat,
    libc::SYS_getcwd,
    // Waiting.
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_pipe2,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_timerfd_gettime,
    // Memory.
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_membarrier,
    // Threads.
    libc::SYS_clone3,
    libc::SYS_set_robust_list,
    libc::SYS_get_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_rseq,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // Signals to oneself.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    // Clocks, chance, and questions about oneself.
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_getcpu,
    libc::SYS_getppid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    libc::SYS_times,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_select,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_stat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lstat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_pipe,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_time,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_arch_prctl,
];

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::unix::net::UnixStream;
    use std::process::Command;

    use super::*;

    /// A confinement lasts as long as its process, so it is tried in a child: this binary, that one ignored test, which
    /// must pass. What it printed.
    #[track_caller]
    pub(super) fn in_a_child(test: &str, environment: &[(&str, &std::path::Path)]) -> String {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"]);
        let out = child.envs(environment.iter().copied()).output().unwrap();
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(out.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&out.stderr));
        said
    }

    #[test]
    fn a_confined_process_can_compute_and_talk_but_not_reach_out() {
        let said = in_a_child("sandbox::tests::confined", &[]);
        assert!(said.contains("sandbox: seccomp allows"), "{said}");
    }

    #[test]
    #[ignore = "confines its process: run by a_confined_process_can_compute_and_talk_but_not_reach_out in a child"]
    fn confined() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        let mut file = std::fs::File::open("/etc/hostname").unwrap();
        let written = tempfile_path();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();

        let sentence = enter().unwrap();
        println!("{sentence}");

        let refused = |what: &str, result: std::io::Result<()>| {
            let errno = result.expect_err(what).raw_os_error();
            assert_eq!(errno, Some(libc::EPERM), "{what}");
        };
        refused("socket", UdpSocket::bind("127.0.0.1:0").map(drop));
        refused("connect", TcpStream::connect(address).map(drop));
        refused("accept", listener.accept().map(drop));
        refused("execve", Command::new("/bin/true").spawn().map(drop));
        refused("create", std::fs::File::create(&written).map(drop));
        refused("append", std::fs::OpenOptions::new().append(true).open("/etc/hostname").map(drop));
        refused("unlink", std::fs::remove_file("/etc/hostname"));
        refused("kill", nix::sys::signal::kill(nix::unistd::getppid(), None).map_err(Into::into));
        refused("raise the limit", setrlimit(Resource::RLIMIT_AS, 1 << 40, 1 << 40).map_err(Into::into));
        if !sentence.contains("no Landlock") {
            let denied = std::fs::File::open("/etc/hostname").expect_err("Landlock hides files");
            assert_eq!(denied.kind(), ErrorKind::PermissionDenied);
        }

        // What a worker lives on: threads, memory, clocks, and what is open.
        let threads =
            (0..8).map(|n| std::thread::Builder::new().name(format!("enc-{n}")).spawn(move || vec![n; 9 << 20]));
        let sum: usize = threads.map(|t| t.unwrap().join().unwrap().len()).sum();
        assert_eq!(sum, 8 * (9 << 20));
        assert!(std::thread::available_parallelism().is_ok());
        assert!(rung::time::SystemClock::wall().unix_seconds() > 1_700_000_000);
        ours.set_nonblocking(true).unwrap();
        assert_eq!(ours.read(&mut [0; 4]).expect_err("nothing there yet").kind(), ErrorKind::WouldBlock);
        theirs.write_all(b"unit").unwrap();
        let mut unit = [0; 4];
        ours.read_exact(&mut unit).unwrap();
        assert_eq!(&unit, b"unit");
        let mut text = String::new();
        assert!(file.read_to_string(&mut text).is_ok(), "an open file stays readable");
        assert!(std::fs::read_to_string("/proc/self/stat").is_ok());
        let large = std::panic::catch_unwind(|| Vec::<u8>::new().try_reserve_exact(5 << 30).is_err());
        assert!(matches!(large, Ok(true)), "5 GiB are refused");
    }

    fn tempfile_path() -> std::path::PathBuf {
        std::env::temp_dir().join(format!("rung-sandbox-{}", std::process::id()))
    }
}
