//! Purpose: MPEG-TS over QUIC, `rung-ts/1`, in and out. `Port` receives all publishers of one UDP port; `push` publishes.
//! docs/quic-ingest.md describes the format for others. The only room of ingest that names quinn, rustls and tokio.
//! Time: `Mono` outside and in the cores (`message`, `reorder`, `segments`); timers are tokio's in the shells.
//! Invariants: QUIC runs on a thread of its own and hands over by a bounded queue; nothing is ever back-pressured, what
//! does not fit is counted; before its hello a connection has 16 kB, one stream and four seconds; no early data.
//! Spec: [QUIC 16], [QUIC 17.2.2], [SRT 4.6] for what comes too late.
//! When it fails: a refused publisher gets a code (`Refusal`) and a sentence; who breaks the format is closed.

mod connection;
mod controller;
pub mod cores;
mod gate;
mod handover;
mod identity;
mod message;
mod port;
mod push;
mod reorder;
mod segments;
mod server;
mod session;
mod source;
mod tls;
mod url;

pub use identity::{Identity, IdentityError, Pin};
pub use message::{ALPN, Answer, BROKEN, FINISHED, Head, Hello, LATE, REPEATED};
pub use port::{Port, PortConfig, PortCounters, PortError, Renewal};
pub use push::{PushOptions, push};
pub use source::Source;
pub use tls::Trust;
pub use url::QuicUrl;
