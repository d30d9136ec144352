//! Purpose: SRT in and out, live mode. `Port` receives all publishers of one UDP port; `Publish` is one of ours.
//! The only room that names `sapflow_srt`.
//! Time: `Mono` outside; the crate wants `Instant`, which `socket::Epoch` converts (both are CLOCK_MONOTONIC).
//! Invariants: no thread, no wait, no lock inside; the owner polls. Nothing is ever back-pressured.
//! Spec: [SRT 3], [SRT 4.3], [SRT 4.5], [SRT 6].
//! When it fails: a refused caller gets a code (`Refusal`), a bad datagram is a counter (`PortCounters`).
//!
//! Not there, refused with a sentence: AES-192, packet filter (FEC), groups (bonding), stream mode, rendezvous,
//! handshake version 4 (libsrt before 1.3), pulling.

mod caller;
mod clip;
mod crypto;
mod feeder;
mod listener;
mod port;
mod push;
mod sniff;
mod socket;
mod stats;
mod streamid;
mod url;

pub use caller::{PAYLOAD, Publish, PublishEnd, PublishEvent, PublishStats};
pub use crypto::Passphrase;
pub use feeder::{Feed, FeedStats, Feeder, Knobs, Pause};
pub use listener::{Closing, Connected, Event, PortCounters};
pub use port::{Port, PortConfig};
pub use push::{Progress, PushError, PushOptions, StreamProgress, push};
pub use socket::BindError;
pub use stats::PublisherStats;
pub use url::SrtUrl;
