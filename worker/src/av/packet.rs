//! One AVPacket, reused.
#![expect(unsafe_code, reason = "libav FFI")]

use ffmpeg_sys_next as ff;
use std::ptr::NonNull;

use super::Error;

#[derive(Debug)]
pub(super) struct Packet {
    raw: NonNull<ff::AVPacket>,
}

impl Packet {
    pub(super) fn new() -> Result<Packet, Error> {
        // SAFETY: allocates; null is handled.
        let raw = unsafe { ff::av_packet_alloc() };
        Ok(Packet { raw: NonNull::new(raw).ok_or(Error::alloc("packet"))? })
    }

    /// Copies `data` in, with the padding that libav's bit readers want behind it.
    pub(super) fn copy_from(&mut self, data: &[u8], pts: i64) -> Result<(), Error> {
        self.clear();
        let size = i32::try_from(data.len()).map_err(|_| Error::alloc("packet"))?;
        // SAFETY: an empty packet that this value owns; it gets `size` writable bytes plus zeroed padding.
        Error::check("packet memory", unsafe { ff::av_new_packet(self.raw.as_ptr(), size) })?;
        let raw = self.raw_mut();
        raw.pts = pts;
        raw.dts = ff::AV_NOPTS_VALUE;
        // SAFETY: `av_new_packet` gave `data.len()` bytes, unshared.
        let room = unsafe { std::slice::from_raw_parts_mut(raw.data, data.len()) };
        room.copy_from_slice(data);
        Ok(())
    }

    pub(super) fn clear(&mut self) {
        // SAFETY: a live packet that this value owns.
        unsafe { ff::av_packet_unref(self.raw.as_ptr()) };
    }

    pub(super) fn as_ptr(&self) -> *mut ff::AVPacket {
        self.raw.as_ptr()
    }

    pub(super) fn raw(&self) -> &ff::AVPacket {
        // SAFETY: points to a live packet that this value owns.
        unsafe { self.raw.as_ref() }
    }

    fn raw_mut(&mut self) -> &mut ff::AVPacket {
        // SAFETY: points to a live packet that this value owns, borrowed exclusively.
        unsafe { self.raw.as_mut() }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        let raw = self.raw();
        if raw.data.is_null() {
            return &[];
        }
        // SAFETY: libav keeps `size` bytes at `data` alive until the packet is cleared, which needs `&mut`.
        unsafe { std::slice::from_raw_parts(raw.data, usize::try_from(raw.size).unwrap_or(0)) }
    }
}

impl Drop for Packet {
    fn drop(&mut self) {
        let mut raw = self.raw.as_ptr();
        // SAFETY: owned, freed once.
        unsafe { ff::av_packet_free(&raw mut raw) };
    }
}
