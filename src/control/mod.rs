//! Purpose: what configures and watches the data plane, to the side of it. Never carries media.
//! Time: `Wall`; records write it as RFC 3339 UTC.
//! Invariants: every change of a state is one step of `lifecycle`, and one transaction of `state`.
//! When it fails: a bad configuration is refused whole, with the line and what to write instead, a bad request likewise,
//! with its field; a state folder that cannot be written is a fact with a sentence, and live goes on.

pub mod config;
pub mod lifecycle;
pub mod record;
pub mod state;
