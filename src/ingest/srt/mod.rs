//! Purpose: SRT in and out, live mode, without a foreign protocol library. `Port` receives all publishers of one UDP
//! port; `Publish` is one of ours. Below them no file knows a socket or a clock:
//!
//! - `packet`, `handshake`, `crypto`: bytes and what they mean. `seq`: numbers that wrap.
//! - `receiver` with `losses`, `playout`, `rtt`: media coming in. `inbound` adds keys and answers. `sender`: going out.
//! - `filter`: what the packet filter (FEC) is; `rebuild` and `protect`: what it does to media coming in and going out.
//! - `group`: several connections that are one publisher (bonding); `bond` with `bonded`, its sockets: such a publisher of ours.
//! - `listener` with `greeting`: many connections of a port. `call`: the handshake that we begin, `meeting`: the one
//!   that both sides begin; `caller` sends behind the first, `dialer` receives from sources that a port calls. `link`: what all have.
//! - `place`: several ports at one address, one for each thread.
//! - `input`: one source, called or calling, on a thread of its own, for `rung push` that passes it on over QUIC.
//! - `lookup`: names of those sources, each on a thread of its own while it is looked up.
//! - `cores`: all of these for who has no socket.
//!
//! Time: `Mono`; time stamps of packets are microseconds of each side's own clock (`playout`).
//! Invariants: no wait, no lock inside, no thread but those of a look-up and an `Input`; the owner polls. Nothing is ever back-pressured. A packet's payload
//! stays where the kernel wrote it (`sys::mmsg`); a connection costs nothing while nothing happens on it.
//! Spec: [SRT 3], [SRT 4], [SRT 6].
//! When it fails: a refused caller gets a code (`Refusal`, `greeting::Rejection`), a bad datagram is a counter
//! (`PortCounters`).
//!
//! Not there, refused with a sentence: stream mode, AES-GCM, handshake version 4 (libsrt before 1.3).

mod bond;
mod bonded;
mod call;
mod caller;
pub mod cores;
mod crypto;
mod dialer;
mod filter;
mod greeting;
mod group;
mod handshake;
mod inbound;
mod input;
mod link;
mod listener;
mod lookup;
mod losses;
mod meeting;
mod outbox;
mod packet;
mod place;
mod playout;
mod port;
mod protect;
mod publish;
mod pull_url;
mod push;
mod push_url;
mod rebuild;
mod receiver;
mod rtt;
mod sender;
mod seq;
mod socket;
mod stats;
mod streamid;
mod url;

pub use input::{Input, InputUrl, Intake};
pub use listener::PortCounters;
pub use port::{Port, PortConfig};
pub use publish::Publish;
pub use pull_url::PullUrl;
pub use push::{PushOptions, push};
pub use push_url::PushUrl;
pub use streamid::parse as stream_id;
pub use url::SrtUrl;
