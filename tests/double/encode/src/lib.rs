//! Stands in for the NVIDIA driver's libnvidia-encode.so.1, in tests only: NVENC API 12.1 over libavcodec (libx264,
//! libx265). Pictures are fetched through whichever libcuda the process has loaded, the double's or a real one.
//!
//! # Settings
//! | key | default | meaning |
//! |---|---|---|
//! | `nvenc.api` | `12.1` | newest API of the driver; older than 12.1: the client is refused with `INVALID_VERSION` |
//! | `nvenc.count`, `nvenc.count.<GPU>` | 2 | encoder engines of every GPU, of one GPU; 0 = none |
//! | `nvenc.none_code` | 2 | what opening a session answers on a GPU without an encoder: 1 or 2 |
//! | `nvenc.max_sessions` | no bound | sessions that can be open at once, in all processes of one report folder |
//! | `nvenc.max_sessions_code` | 10 | what opening one more answers: 10 or 21 |
//! | `nvenc.hevc` | 1 | 0: the card encodes no HEVC |
//! | `av1_encode` | 0 | 1: the card encodes AV1 (libaom; a new rate opens the encoder anew, with a key frame) |
//! | `nvenc.caps.<NV_ENC_CAPS_…>`, `nvenc.caps.<h264, hevc, av1>.<NV_ENC_CAPS_…>` | `card.rs` | a capability |
//!
//! # Faults
//! | point | what |
//! |---|---|
//! | `encode.open` | `code=`, `sleep=`, word `other_headers`: the session's parameter sets differ from all others' |
//! | `encode.init`, `encode.register`, `encode.map` | `code=`, `sleep=` |
//! | `encode.encode` | `code=` (the picture is not taken), `sleep=` |
//! | `encode.idr` (asked once for each `FORCEIDR`) | word `no_idr`: the flag is not seen |
//! | `encode.lock` | `code=` (the picture can be locked again), `sleep=`, word `hang`: never comes back |
//! | `encode.reconfigure` | `code=`, `sleep=`, word `ignore_rate`: answers success, the rate stays |
//! | `encode.destroy` | `code=`, `sleep=`, word `hang` |
//!
//! # Counts
//! `live sessions`, `live registrations`, `live mapped inputs`, `live input buffers`, `live bitstream buffers`,
//! `live locked bitstreams`; `frames encoded`, `IDRs encoded`.
//!
//! # Contracts
//! Every version word (15); the API of another version (15); a device that is no CUDA context, another context current
//! than the session's (4); a session that is not open (3), not initialised (11), initialised twice (9); what the header
//! forbids in a configuration (8, 12); memory that is no device memory, of `cuMemAllocAsync`, too short, registered twice
//! (23); pitch, size, format (8); mapped twice (16), not mapped (25), not registered (24); unregistered while mapped,
//! unmapped or destroyed while in flight or locked (9); an output used while in flight or locked (8), locked out of order,
//! twice, before success (9), without a picture (8), unlocked unlocked (9); two calls at once on the submitting or on the
//! taking side (9); a picture after the end before all outputs were locked (9) or without `FORCEIDR` (8); events (7, 12);
//! what may not change when reconfiguring (8, 12); a session ended with something left in it, or not flushed (0: it is
//! only reported). What is mapped is locked against writing in the double's libcuda. Without a report: what the card of
//! the settings lacks.
//!
//! # Not as a card
//! * No speed of a card and no rate control of a card; x264's and x265's, at their fastest presets, whatever the preset.
//! * With B frames and a lookahead too short to hide how late libx264 and libx265 give pictures out, every run of pictures
//!   is coded by coding everything since the last IDR picture again: exact, but slow in long GOPs.
//! * Every I picture is an IDR picture (`FORCEINTRA`, `gopLength` below `idrPeriod`).
//! * One slice, 4:2:0, progressive, one reference; no SEI but what the client gives; no HRD. Capabilities say so.
//! * What it does not know it refuses with the code a card without that feature gives.

mod abi;
mod buffers;
mod calls;
mod card;
mod coder;
mod config;
mod cuda;
mod limit;
mod nal;
mod picture;
mod plan;
mod preset;
mod rate;
mod session;
mod work;

use rung_double_common::Double;

static DOUBLE: Double = Double::new("libnvidia-encode");
