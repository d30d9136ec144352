//! Purpose: joins the stages: which publisher feeds which channel, what a worker is told, who is shed, what is published.
//! Time: everything runs to completion on a shard thread with one `now` per wake-up.
//! Invariants: nothing queues without a bound; a channel's trouble stays that channel's.
//! When it fails: a worker is respawned under the same init section; a panic ends its channel, not the shard.

pub mod governor;
pub mod history;
pub mod outputs;
pub mod placement;
pub mod workers;
