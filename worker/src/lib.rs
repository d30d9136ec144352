//! Rung's pixel process: every room that touches pixels or samples, and the sandbox they run in.

// the process: messages in, messages out
pub mod probe; // what this machine can do
pub mod process; // what its channels share, and how it ends
pub mod run; // one channel, or several that share it
pub mod seat; // a channel's socket: its two ends
pub mod work; // a channel, or the test picture

pub mod error; // why a stage can not go on
pub mod queue; // bounded, between threads
pub mod shared; // the way out, counters, faults, threads

// a channel, in the order that media flows
pub mod audio; // access units -> the sample grid -> AAC-LC
pub mod channel; // its threads and queues
pub mod decode; // access units -> pictures, each N once
pub mod marker; // another logo for a channel that runs
pub mod encode; // scale and encode, one thread per rendition
pub mod picture; // decoded pictures and pools
pub mod thumbnail; // posters, storyboard sheets, snapshots: JPEG

#[cfg(feature = "software")]
pub mod stills; // single pictures of channels that nobody decodes
#[cfg(feature = "software")]
pub mod made; // the test picture as a stream
pub mod monitor; // watches the machine's GPUs, in a process of its own
pub mod pattern; // the demo's test picture and tone
pub mod sandbox; // what a worker gives up before it reads a stranger's bytes
pub mod scale; // one picture to the sizes of the ladder

pub mod gpu; // ALL NVIDIA FFI
pub mod av; // ALL libav FFI, and what else of C the process needs
