//! Purpose: joins the stages: which publisher feeds which channel, what a worker is told, who is shed, what is published.
//! Time: everything runs to completion on a shard thread with one `now` per wake-up.
//! Invariants: nothing queues without a bound; a channel's trouble stays that channel's.
//! When it fails: a worker is respawned under the same init section; a panic ends its channel's session, not the shard.

pub mod shards; // all threads of the data plane
pub mod shard; // one of them: ports, channels, workers
pub mod channel; // one channel over its sessions
pub mod ports; // where publishers come in, as one
pub mod session; // one broadcast: demux -> timeline -> stage
pub mod stage; // its renditions
pub mod cues; // date ranges and forced frames of its cues
pub mod outputs; // one rendition: decode order, holes, late encoders
pub mod captions; // around the worker, from source pictures to encoded ones
pub mod witness; // what control is told, and asked
pub mod workers; // its worker over its lives
pub mod pulse; // whether a worker that talks also works
pub mod history; // what a worker's successor must decode
pub mod gpus; // which GPUs there are, and how they are
pub mod governor; // what to shed when late
pub mod stills; // pictures of sources that nobody decodes
pub mod snapshots; // who waits for a picture of now
pub mod placement; // which outputs, with which settings
pub mod devices; // which GPU carries which channel
pub mod placer; // where one session's worker runs over its lives
pub mod events; // log lines and metrics
pub mod status; // what is told about it
