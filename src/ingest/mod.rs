//! Purpose: contribution connections. A publisher is admitted to one leg of a channel and its transport-stream bytes
//! come out in order; what they mean is the demuxer's business.
//! Time: `now` is when the shard woke; a payload is handed over when its SRT latency has passed.
//! Invariants: one publisher per (channel, leg); nothing is ever back-pressured; every table and queue has a bound;
//! a publish key is compared as SHA-256 in constant time and never printed.
//! Spec: [SRT 3], [SRT 4.3], [SRT 4.5], [SRT 6].
//! When it fails: a caller that cannot be served gets a code and the log a sentence; bad datagrams are counters.

pub mod admission;
mod clip;
mod door;
mod event;
mod feeder;
mod publish;
mod query;
pub mod quic;
pub mod source;
pub mod srt;
mod stats;
mod udp;

pub use admission::{Admission, Directory, Refusal, Roster, RosterEntry};
pub use door::{Door, Wanted};
pub use event::{Closing, Connected, Event, Protocol, PullNews, PullState, PullStatus};
pub use feeder::{Feed, FeedStats, Feeder, Knobs, Pause};
pub use publish::{
    LinkNews, PAYLOAD, Progress, PublishEnd, PublishEvent, PublishStats, PushError, SourceNews, StreamProgress,
};
pub use source::{Leg, PublisherId};
pub use stats::{LinkStats, PublisherStats};
pub use udp::BindError;
