//! Purpose: CMAF written and read: initialization sections and parts (one `moof` and one `mdat`) [BMFF 8.8].
//! Time: decode times are in the track's timescale from the session's origin.
//! Invariants: a byte string is a function of its input alone (no clock, no counter), so two boxes write the same.
//! Spec: [BMFF 4.2], [BMFF 8.8], [AVC 7.3], [HEVC 7.3.3].
//! When it fails: nothing here fails; the reader yields what it could read and says where it stopped.

pub mod emsg;
pub mod fragment;
mod hevc;
pub mod init;
pub mod read;

/// Writes one box; its size is filled in when `body` is done [BMFF 4.2].
fn boxed(out: &mut Vec<u8>, kind: &[u8; 4], body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(kind);
    body(out);
    let size = u32::try_from(out.len() - start).expect("a header box is far below 4 GiB");
    out[start..start + 4].copy_from_slice(&size.to_be_bytes());
}

/// A box with version and flags.
fn full(out: &mut Vec<u8>, kind: &[u8; 4], version: u8, flags: u32, body: impl FnOnce(&mut Vec<u8>)) {
    boxed(out, kind, |out| {
        put32(out, u32::from(version) << 24 | flags & 0x00ff_ffff);
        body(out);
    });
}

fn put16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_be_bytes());
}

fn put32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_be_bytes());
}
