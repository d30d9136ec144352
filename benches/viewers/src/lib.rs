//! Thousands of LL-HLS viewers in one process, and what their requests cost a server.
//!
//! `watch`: viewers as players are: blocking reloads, each part by its preload hint on a kept connection. `ask`: requests
//! one after the other, as fast as they are answered. `block`: requests that wait. `tap`: a relay that counts what passes.
//! Everything speaks plain HTTP/1.1; times are seconds unless a name says otherwise.

pub mod ask;
pub mod block;
pub mod board;
pub mod histogram;
pub mod line;
pub mod playlist;
pub mod tap;
pub mod watch;

/// Lets this process have as many sockets as it may have.
///
/// # Errors
/// The system's, which leaves the bound where it was.
pub fn raise_descriptors() -> std::io::Result<u64> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    Ok(most)
}

/// User and system time of this process so far, seconds.
#[must_use]
pub fn own_cpu() -> f64 {
    use nix::sys::resource::{UsageWho, getrusage};
    use nix::sys::time::TimeValLike;
    getrusage(UsageWho::RUSAGE_SELF)
        .map_or(0.0, |used| (used.user_time().num_microseconds() + used.system_time().num_microseconds()) as f64 / 1e6)
}
