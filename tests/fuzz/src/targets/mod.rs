//! The table. A new target is one line of its module's; a new module is one line here.

use crate::Target;

mod bitstream;
mod control;
mod demux;
mod http;
mod mpegts;
mod packager;
mod player;
mod quic;
mod srt;
mod srt_bond;
mod srt_port;
mod text;
mod timeline;
mod worker;

pub(crate) use packager::{init_sections, recording};
pub(crate) use text::{sealed_pass, signed_token};

/// By room.
pub static TARGETS: &[&[Target]] = &[
    srt::TARGETS,
    srt_port::TARGETS,
    srt_bond::TARGETS,
    quic::TARGETS,
    mpegts::TARGETS,
    demux::TARGETS,
    bitstream::TARGETS,
    timeline::TARGETS,
    packager::TARGETS,
    player::TARGETS,
    http::TARGETS,
    text::TARGETS,
    control::TARGETS,
    worker::TARGETS,
];

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
