//! One AVFrame: a reference-counted picture or a block of samples.
#![expect(unsafe_code, reason = "libav FFI")]

use ffmpeg_sys_next as ff;
use std::ptr::NonNull;
use std::sync::Arc;

use super::Error;
use crate::scale::{Planes, PlanesMut};

/// Owns its AVFrame; the pixels behind it are shared by reference count.
#[derive(Debug)]
pub struct Frame {
    raw: NonNull<ff::AVFrame>,
}

// SAFETY: an AVFrame has no thread of its own; its buffers' reference counts are atomic, and pixels are written only
// through `&mut Frame` while `is_writable` says that nobody shares them.
unsafe impl Send for Frame {}
// SAFETY: `&Frame` only reads fields and pixels, or takes a new reference (atomic).
unsafe impl Sync for Frame {}

impl Frame {
    pub fn empty() -> Result<Frame, Error> {
        // SAFETY: allocates; null is handled.
        let raw = unsafe { ff::av_frame_alloc() };
        Ok(Frame { raw: NonNull::new(raw).ok_or(Error::alloc("frame"))? })
    }

    /// A 4:2:0 8 bit picture of its own memory, strides multiples of 64.
    pub fn picture(width: u32, height: u32) -> Result<Frame, Error> {
        let mut frame = Frame::empty()?;
        let raw = frame.raw_mut();
        raw.format = ff::AVPixelFormat::AV_PIX_FMT_YUV420P as i32;
        raw.width = int(width);
        raw.height = int(height);
        frame.allocate()
    }

    /// `samples` planar f32 samples per channel at 48 kHz.
    pub fn samples(channels: u8, samples: usize) -> Result<Frame, Error> {
        let mut frame = Frame::empty()?;
        let raw = frame.raw_mut();
        raw.format = ff::AVSampleFormat::AV_SAMPLE_FMT_FLTP as i32;
        raw.sample_rate = 48_000;
        raw.nb_samples = i32::try_from(samples).unwrap_or(i32::MAX);
        // SAFETY: the layout is part of a live frame and still empty.
        unsafe { ff::av_channel_layout_default(&raw mut raw.ch_layout, i32::from(channels)) };
        frame.allocate()
    }

    /// A 4:2:0 8 bit picture over memory that somebody else made: planes Y, U, V one behind the other, their rows
    /// `strides` bytes apart. It keeps `memory` alive, and nobody writes to it.
    ///
    /// # Panics
    /// `memory` is shorter than that.
    pub fn over(memory: Arc<dyn Memory>, (width, height): (u32, u32), strides: [usize; 3]) -> Result<Frame, Error> {
        let (h, ch) = (height as usize, height.div_ceil(2) as usize);
        let offsets = [0, strides[0] * h, strides[0] * h + strides[1] * ch];
        let (from, len) = (memory.bytes().as_ptr().cast_mut(), memory.bytes().len());
        assert!(offsets[2] + strides[2] * ch <= len, "{len} bytes hold {width}x{height} at strides {strides:?}");
        let mut frame = Frame::empty()?;
        let owner = Box::into_raw(Box::new(memory)).cast();
        // SAFETY: `len` bytes that live until `let_go` has dropped their owner; marked read-only.
        let buffer = unsafe { ff::av_buffer_create(from, len, Some(let_go), owner, ff::AV_BUFFER_FLAG_READONLY) };
        if buffer.is_null() {
            // SAFETY: nobody else took it.
            drop(unsafe { Box::from_raw(owner.cast::<Arc<dyn Memory>>()) });
            return Err(Error::alloc("frame over other memory"));
        }
        let raw = frame.raw_mut();
        raw.format = ff::AVPixelFormat::AV_PIX_FMT_YUV420P as i32;
        (raw.width, raw.height) = (int(width), int(height));
        raw.buf[0] = buffer;
        for (i, offset) in offsets.into_iter().enumerate() {
            raw.linesize[i] = i32::try_from(strides[i]).unwrap_or(i32::MAX);
            raw.data[i] = from.wrapping_add(offset);
        }
        Ok(frame)
    }

    fn allocate(self) -> Result<Frame, Error> {
        // SAFETY: format and sizes were set by the callers above; the frame has no buffer yet.
        Error::check("frame memory", unsafe { ff::av_frame_get_buffer(self.raw.as_ptr(), 64) })?;
        Ok(self)
    }

    pub(super) fn as_ptr(&self) -> *mut ff::AVFrame {
        self.raw.as_ptr()
    }

    pub(super) fn raw(&self) -> &ff::AVFrame {
        // SAFETY: points to a live AVFrame that this value owns.
        unsafe { self.raw.as_ref() }
    }

    pub(super) fn raw_mut(&mut self) -> &mut ff::AVFrame {
        // SAFETY: points to a live AVFrame that this value owns, borrowed exclusively.
        unsafe { self.raw.as_mut() }
    }

    /// Another frame of the same pixels; copies nothing.
    pub fn share(&self) -> Result<Frame, Error> {
        // SAFETY: takes references to the buffers of a live frame; null is handled.
        let raw = unsafe { ff::av_frame_clone(self.raw.as_ptr()) };
        Ok(Frame { raw: NonNull::new(raw).ok_or(Error::alloc("frame reference"))? })
    }

    /// Nobody else holds these pixels.
    pub fn is_writable(&self) -> bool {
        // SAFETY: reads the reference counts of a live frame.
        unsafe { ff::av_frame_is_writable(self.raw.as_ptr()) > 0 }
    }

    pub fn width(&self) -> u32 {
        self.raw().width.cast_unsigned()
    }

    pub fn height(&self) -> u32 {
        self.raw().height.cast_unsigned()
    }

    pub fn pts(&self) -> Option<i64> {
        let pts = self.raw().pts;
        (pts != ff::AV_NOPTS_VALUE).then_some(pts)
    }

    pub fn set_pts(&mut self, pts: i64) {
        self.raw_mut().pts = pts;
    }

    /// For an encoder: `key` forces an IDR, otherwise it chooses. Closed captions that the decoder found go: encoders would
    /// write them, and the daemon does, for every rendition and backend alike.
    pub fn set_key(&mut self, key: bool) {
        // SAFETY: a live frame that is borrowed exclusively; one without such side data stays as it is.
        unsafe { ff::av_frame_remove_side_data(self.raw.as_ptr(), ff::AVFrameSideDataType::AV_FRAME_DATA_A53_CC) };
        let raw = self.raw_mut();
        raw.pict_type =
            if key { ff::AVPictureType::AV_PICTURE_TYPE_I } else { ff::AVPictureType::AV_PICTURE_TYPE_NONE };
        raw.format = ff::AVPixelFormat::AV_PIX_FMT_YUV420P as i32;
    }

    pub fn is_interlaced(&self) -> bool {
        self.raw().interlaced_frame != 0
    }

    /// Shown although the decoder saw damage.
    pub fn is_damaged(&self) -> bool {
        let raw = self.raw();
        raw.flags & ff::AV_FRAME_FLAG_CORRUPT != 0 || raw.decode_error_flags != 0
    }

    pub(super) fn format(&self) -> i32 {
        self.raw().format
    }

    /// Planar 4:2:0 with 8 bits, either range.
    pub fn is_420(&self) -> bool {
        let raw = self.raw();
        let known = raw.format == ff::AVPixelFormat::AV_PIX_FMT_YUV420P as i32
            || raw.format == ff::AVPixelFormat::AV_PIX_FMT_YUVJ420P as i32;
        known && raw.linesize[..3].iter().all(|s| *s > 0)
    }

    /// Bits of a sample of planar 4:2:0 deeper than 8 bits.
    fn deep_420(&self) -> Option<u32> {
        let raw = self.raw();
        let sound = raw.linesize[..3].iter().all(|stride| *stride > 0 && stride % 2 == 0);
        let is = |format: ff::AVPixelFormat| raw.format == format as i32;
        let depths = [(10, ff::AVPixelFormat::AV_PIX_FMT_YUV420P10LE), (12, ff::AVPixelFormat::AV_PIX_FMT_YUV420P12LE)];
        depths.into_iter().find(|(_, format)| sound && is(*format)).map(|(bits, _)| bits)
    }

    /// A copy of a planar 4:2:0 picture of 10 or 12 bits in 8 bits, each sample rounded half up, as the ladder's kernel
    /// does. `None`: it is of another format.
    pub fn rounded(&self) -> Result<Option<Frame>, Error> {
        let Some(bits) = self.deep_420() else { return Ok(None) };
        let mut to = Frame::picture(self.width(), self.height())?;
        let (columns, rows) = (self.width() as usize, self.height() as usize);
        let planes = to.planes_mut();
        let all = [(planes.y, planes.stride_y), (planes.u, planes.stride_u), (planes.v, planes.stride_v)];
        for (i, (plane, stride)) in all.into_iter().enumerate() {
            let (columns, rows) = if i == 0 { (columns, rows) } else { (columns.div_ceil(2), rows.div_ceil(2)) };
            let (from, stride_from) = self.deep_plane(i, columns, rows);
            for (to, from) in plane.chunks_mut(stride).zip(from.chunks(stride_from)) {
                round(&from[..columns], &mut to[..columns], bits - 8);
            }
        }
        // SAFETY: two live frames; times, flags and colours are copied, no pixels.
        Error::check("frame", unsafe { ff::av_frame_copy_props(to.raw.as_ptr(), self.raw.as_ptr()) })?;
        Ok(Some(to))
    }

    fn deep_plane(&self, i: usize, columns: usize, rows: usize) -> (&[u16], usize) {
        let raw = self.raw();
        let stride = usize::try_from(raw.linesize[i]).unwrap_or(0) / 2;
        let samples = stride * rows.saturating_sub(1) + columns;
        // SAFETY: libav gives each plane of these formats `rows` rows of `linesize` bytes, even (`deep_420`), two to a sample
        // and so aligned, alive with the frame; a shared borrow keeps writers out.
        (unsafe { std::slice::from_raw_parts(raw.data[i].cast::<u16>(), samples) }, stride)
    }

    /// Chroma sits half a luma sample right of the left-sited position (MPEG-1, JPEG).
    pub fn chroma_is_centred(&self) -> bool {
        self.raw().chroma_location == ff::AVChromaLocation::AVCHROMA_LOC_CENTER
    }

    /// The pixels of a 4:2:0 picture.
    pub fn planes(&self) -> Planes<'_> {
        assert!(self.is_420(), "only 4:2:0 8 bit pictures are looked into");
        let (w, h) = (self.width() as usize, self.height() as usize);
        let (cw, ch) = (w.div_ceil(2), h.div_ceil(2));
        let (y, stride_y) = self.plane(0, w, h);
        let (u, stride_u) = self.plane(1, cw, ch);
        let (v, stride_v) = self.plane(2, cw, ch);
        Planes { y, u, v, stride_y, stride_u, stride_v, width: w, height: h }
    }

    fn plane(&self, i: usize, columns: usize, rows: usize) -> (&[u8], usize) {
        let raw = self.raw();
        let stride = usize::try_from(raw.linesize[i]).unwrap_or(0);
        let bytes = stride * rows.saturating_sub(1) + columns;
        // SAFETY: libav gives each plane `rows` rows of `linesize` bytes (the last one `columns`), alive with the frame;
        // a shared borrow keeps writers out (`planes_mut` needs `&mut` and sole ownership).
        (unsafe { std::slice::from_raw_parts(raw.data[i], bytes) }, stride)
    }

    /// The pixels of a picture made by `Frame::picture`, to be written.
    pub fn planes_mut(&mut self) -> PlanesMut<'_> {
        assert!(self.is_420() && self.is_writable(), "only unshared 4:2:0 8 bit pictures are written");
        let (w, h) = (self.width() as usize, self.height() as usize);
        let raw = self.raw_mut();
        let [stride_y, stride_u, stride_v] = [0, 1, 2].map(|i| usize::try_from(raw.linesize[i]).unwrap_or(0));
        let [y, u, v, ..] = raw.data;
        // SAFETY: `picture` allocated `height` whole rows of this stride; sole owner (asserted), borrowed exclusively.
        let y = unsafe { std::slice::from_raw_parts_mut(y, stride_y * h) };
        // SAFETY: as above; a plane of its own with half the rows.
        let u = unsafe { std::slice::from_raw_parts_mut(u, stride_u * h.div_ceil(2)) };
        // SAFETY: as above; a plane of its own with half the rows.
        let v = unsafe { std::slice::from_raw_parts_mut(v, stride_v * h.div_ceil(2)) };
        PlanesMut { y, u, v, stride_y, stride_u, stride_v, width: w, height: h }
    }

    /// Samples per channel.
    pub fn sample_count(&self) -> usize {
        usize::try_from(self.raw().nb_samples).unwrap_or(0)
    }

    /// The samples of one channel of a block made by `Frame::samples`, to be written.
    pub fn channel_mut(&mut self, channel: usize) -> &mut [f32] {
        let count = self.sample_count();
        assert!(self.is_writable(), "only unshared samples are written");
        let raw = self.raw_mut();
        assert!(channel < usize::try_from(raw.ch_layout.nb_channels).unwrap_or(0), "channel {channel} exists");
        assert!(raw.format == ff::AVSampleFormat::AV_SAMPLE_FMT_FLTP as i32, "planar floats");
        // SAFETY: a planar f32 plane of `count` samples per channel, aligned to 64, sole owner (asserted).
        unsafe { std::slice::from_raw_parts_mut(raw.data[channel].cast::<f32>(), count) }
    }
}

/// Memory that a frame may lie over.
pub trait Memory: Send + Sync {
    fn bytes(&self) -> &[u8];
}

/// The last reference to a buffer over somebody's memory is gone.
unsafe extern "C" fn let_go(owner: *mut libc::c_void, _: *mut u8) {
    // SAFETY: made by `Frame::over` for exactly this call.
    drop(unsafe { Box::from_raw(owner.cast::<Arc<dyn Memory>>()) });
}

impl Drop for Frame {
    fn drop(&mut self) {
        let mut raw = self.raw.as_ptr();
        // SAFETY: owned, freed once.
        unsafe { ff::av_frame_free(&raw mut raw) };
    }
}

/// Drops the lowest `shift` bits, rounding half up; the topmost values stay at 255.
fn round(from: &[u16], to: &mut [u8], shift: u32) {
    for (to, from) in to.iter_mut().zip(from) {
        let eight = (u32::from(u16::from_le(*from)) + (1 << (shift - 1))) >> shift;
        *to = eight.min(255) as u8;
    }
}

pub(super) fn int(value: u32) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}
