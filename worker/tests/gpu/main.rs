//! Channels on a GPU, against the driver's double: NVDEC, the ladder's kernel, NVENC or libx264, in a real shared
//! `rung-worker`. What comes out is judged beside the software backend, what went on in the driver by what the double
//! counted; every test ends with nothing alive in the driver and no contract broken.

mod absent;
mod channel;
#[path = "../../../tests/support/clips.rs"]
mod clips;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "../support/double.rs"]
mod double;
mod dress;
mod exact;
mod fatal;
mod faults;
mod hevc;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "../support/process.rs"]
mod process;
mod restarts;
mod rig;
mod sources;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "../support/mod.rs"]
mod support;
