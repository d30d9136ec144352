//! Purpose: contribution connections. A publisher is admitted to one leg of a channel and its transport-stream bytes
//! come out in order; what they mean is the demuxer's business.
//! Time: `now` is when the shard woke; a payload is handed over when its SRT latency has passed.
//! Invariants: one publisher per (channel, leg); nothing is ever back-pressured; every table and queue has a bound;
//! a publish key is compared as SHA-256 in constant time and never printed.
//! Spec: [SRT 3], [SRT 4.3], [SRT 4.5], [SRT 6].
//! When it fails: a caller that cannot be served gets a code and the log a sentence; bad datagrams are counters.

pub mod admission;
pub mod source;
pub mod srt;

use std::fmt;

pub use admission::{Admission, Directory, KeyDigest, Refusal, Roster, RosterEntry};
pub use source::{Leg, PublisherId};

/// A value that logs must not show: keys, passphrases, addresses. Prints `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Redacted<T>(pub T);

impl<T> fmt::Debug for Redacted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl<T> fmt::Display for Redacted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
