//! libavcodec as a chip: every picture at once, in decoding order.
//!
//! libavcodec hands frames out in display order, and late. A chip writes each picture into the surface that it was told.
//! So frames are caught where they begin: `get_buffer2` is called once for each frame that libavcodec starts, and holds
//! a reference to its pixels, which are complete when the picture's slices were decoded. A second field goes into the
//! frame of the first, without another call. Where references are missing libavcodec asks for frames to stand in for
//! them: H.264 before the picture's own, HEVC and MPEG-2 after it.
#![expect(unsafe_code, reason = "libav FFI")]

use ffmpeg_sys_next as ff;
use std::ffi::c_int;
use std::ptr::NonNull;

use crate::abi::{self, STATUS_CONCEALED, STATUS_SUCCESS};

/// A picture's pixels, shared by reference count.
pub(crate) struct Frame {
    raw: NonNull<ff::AVFrame>,
}

// SAFETY: an AVFrame has no thread of its own, its buffers' reference counts are atomic, and pixels are only read here.
unsafe impl Send for Frame {}

/// How a sample is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Samples {
    /// 8, 10 or 12; more than 8 lie in the low bits of two bytes.
    pub(crate) depth: u32,
}

impl Frame {
    /// A reference to what `from` refers to.
    fn share(from: *const ff::AVFrame) -> Option<Frame> {
        // SAFETY: a frame that its owner keeps alive through the call; null is handled.
        NonNull::new(unsafe { ff::av_frame_clone(from) }).map(|raw| Frame { raw })
    }

    fn empty() -> Option<Frame> {
        // SAFETY: allocates; null is handled.
        NonNull::new(unsafe { ff::av_frame_alloc() }).map(|raw| Frame { raw })
    }

    pub(crate) fn clone_reference(&self) -> Option<Frame> {
        Frame::share(self.raw.as_ptr())
    }

    fn raw(&self) -> &ff::AVFrame {
        // SAFETY: points to a live AVFrame that this value owns.
        unsafe { self.raw.as_ref() }
    }

    pub(crate) fn size(&self) -> [usize; 2] {
        [self.raw().width, self.raw().height].map(|side| usize::try_from(side).unwrap_or(0))
    }

    /// Planar 4:2:0, else `None`.
    pub(crate) fn samples(&self) -> Option<Samples> {
        use ff::AVPixelFormat as Pix;
        let formats = [
            (Pix::AV_PIX_FMT_YUV420P, 8),
            (Pix::AV_PIX_FMT_YUVJ420P, 8),
            (Pix::AV_PIX_FMT_YUV420P10LE, 10),
            (Pix::AV_PIX_FMT_YUV420P12LE, 12),
        ];
        let found = formats.into_iter().find(|(format, _)| *format as c_int == self.raw().format)?;
        Some(Samples { depth: found.1 })
    }

    /// Rows of a plane of a 4:2:0 picture: the first `rows` of them, `bytes` each.
    pub(crate) fn row(&self, plane: usize, row: usize, bytes: usize) -> &[u8] {
        let raw = self.raw();
        let stride = raw.linesize[plane];
        let rows = self.size()[1].div_ceil(if plane == 0 { 1 } else { 2 });
        assert!(row < rows, "row {row} of {rows}");
        assert!(usize::try_from(stride).is_ok_and(|stride| stride >= bytes), "{bytes} bytes in a row of {stride}");
        // SAFETY: libav gives each plane `rows` rows of `stride` bytes, alive with this reference; the row is one of
        // them (asserted).
        let start = unsafe { raw.data[plane].add(row * stride.unsigned_abs() as usize) };
        // SAFETY: within that row (asserted); nobody writes to a picture that was decoded.
        unsafe { std::slice::from_raw_parts(start, bytes) }
    }

    /// The same pixels in memory.
    pub(crate) fn same_as(&self, other: &Frame) -> bool {
        self.raw().data[0] == other.raw().data[0]
    }

    fn same_pixels(&self, other: &ff::AVFrame) -> bool {
        !other.buf[0].is_null() && self.raw().data[0] == other.data[0]
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        let mut raw = self.raw.as_ptr();
        // SAFETY: owned, freed once.
        unsafe { ff::av_frame_free(&raw mut raw) };
    }
}

/// A decoder of one codec.
pub(crate) struct Codec {
    context: NonNull<ff::AVCodecContext>,
    packet: NonNull<ff::AVPacket>,
    /// Written by `catch_frame`, which has its address.
    caught: Box<Caught>,
    codec: u32,
}

// SAFETY: libavcodec contexts may be used by one thread after another; the decoder's lock keeps them apart.
unsafe impl Send for Codec {}

#[derive(Default)]
struct Caught {
    frames: Vec<Picture>,
    /// What a new picture holds where nothing is decoded into it.
    before: Option<Frame>,
    conceal: bool,
}

/// A picture that was decoded, or half of one.
pub(crate) struct Picture {
    pub(crate) frame: Frame,
    /// libavcodec's own frame: where it notes errors.
    noted: *mut ff::AVFrame,
}

// SAFETY: the pointer is followed in `Codec::status` only, under the lock that keeps the codec.
unsafe impl Send for Picture {}

/// What came of slices.
pub(crate) struct Decoded {
    /// `None`: they went into the picture before (a second field), or nowhere.
    pub(crate) picture: Option<Picture>,
    /// libavcodec gave up on them.
    pub(crate) failed: bool,
    /// Something had to stand in for pictures that they refer to.
    pub(crate) references_missing: bool,
}

impl Picture {
    /// Nothing is noted of it.
    pub(crate) fn alone(frame: Frame) -> Picture {
        Picture { frame, noted: std::ptr::null_mut() }
    }
}

impl Codec {
    /// `None` where this libavcodec has no such decoder, or no memory.
    pub(crate) fn open(codec: u32) -> Option<Codec> {
        let id = match codec {
            abi::H264 => ff::AVCodecID::AV_CODEC_ID_H264,
            abi::HEVC => ff::AVCodecID::AV_CODEC_ID_HEVC,
            abi::MPEG2 => ff::AVCodecID::AV_CODEC_ID_MPEG2VIDEO,
            abi::AV1 => ff::AVCodecID::AV_CODEC_ID_AV1,
            _ => return None,
        };
        let description = if codec == abi::AV1 { software_av1() } else { find(id) }?;
        // SAFETY: a static description; null is handled.
        let context = NonNull::new(unsafe { ff::avcodec_alloc_context3(description.as_ptr()) })?;
        // SAFETY: allocates; null is handled.
        let Some(packet) = NonNull::new(unsafe { ff::av_packet_alloc() }) else {
            let mut context = context.as_ptr();
            // SAFETY: owned, freed once.
            unsafe { ff::avcodec_free_context(&raw mut context) };
            return None;
        };
        let caught = Box::new(Caught { conceal: codec == abi::HEVC, ..Caught::default() });
        let mut codec = Codec { context, packet, caught, codec };
        codec.configure().then_some(codec)
    }

    fn configure(&mut self) -> bool {
        let caught: *mut Caught = &raw mut *self.caught;
        // SAFETY: a live context, owned here.
        let context = unsafe { self.context.as_mut() };
        context.thread_count = 1;
        context.thread_type = 0;
        context.flags |= ff::AV_CODEC_FLAG_OUTPUT_CORRUPT as c_int;
        context.flags2 |= ff::AV_CODEC_FLAG2_SHOW_ALL;
        if self.codec == abi::HEVC {
            // Its HEVC decoder notes no errors: the first that it meets in a picture is to be its answer.
            context.err_recognition = ff::AV_EF_EXPLODE;
        }
        if self.codec != abi::AV1 {
            context.opaque = caught.cast();
            context.get_buffer2 = Some(catch_frame);
        }
        // SAFETY: made for its codec (null means that one), not open yet.
        unsafe { ff::avcodec_open2(self.context.as_ptr(), std::ptr::null(), std::ptr::null_mut()) == 0 }
    }

    /// Decodes one picture's slices with what goes before them.
    pub(crate) fn decode(&mut self, data: &[u8]) -> Decoded {
        self.caught.frames.clear();
        let nothing = Decoded { picture: None, failed: true, references_missing: false };
        let Ok(size) = c_int::try_from(data.len()) else { return nothing };
        // SAFETY: an empty packet, owned here; it gets `size` writable bytes and the padding that libav wants.
        if unsafe { ff::av_new_packet(self.packet.as_ptr(), size) } < 0 {
            return nothing;
        }
        // SAFETY: a live packet.
        let at = unsafe { self.packet.as_ref() }.data;
        // SAFETY: `av_new_packet` gave `data.len()` bytes, unshared.
        unsafe { std::slice::from_raw_parts_mut(at, data.len()) }.copy_from_slice(data);
        // SAFETY: an open context and a packet of which libav takes its own reference.
        let sent = unsafe { ff::avcodec_send_packet(self.context.as_ptr(), self.packet.as_ptr()) };
        // SAFETY: a live packet.
        unsafe { ff::av_packet_unref(self.packet.as_ptr()) };
        let (shown, damaged) = self.drain();
        if self.codec == abi::AV1 {
            let picture = shown.map(Picture::alone);
            return Decoded { failed: sent < 0 || picture.is_none(), picture, references_missing: false };
        }
        let references_missing = self.caught.frames.len() > 1;
        let frames = &mut self.caught.frames;
        let picture = if self.codec == abi::H264 { frames.pop() } else { frames.drain(..).next() };
        if let (true, Some(picture)) = (self.caught.conceal, &picture) {
            self.caught.before = picture.frame.clone_reference();
        }
        self.caught.frames.clear();
        Decoded { picture, failed: sent < 0 || damaged, references_missing }
    }

    /// What libavcodec noted of this picture while it decoded it. `hurt`: what else says that it is not whole.
    pub(crate) fn status(&self, picture: &Picture, hurt: bool) -> u32 {
        let mut noted = 0;
        if !picture.noted.is_null() {
            // SAFETY: the frame that libavcodec gave to `get_buffer2`: an element of the decoder's own table of pictures
            // (libavcodec 59: H.264, HEVC, MPEG-2), which lives as long as the context, and is used by this thread only.
            let frame = unsafe { &*picture.noted };
            if picture.frame.same_pixels(frame) {
                noted = frame.decode_error_flags;
            }
        }
        if noted != 0 || hurt { STATUS_CONCEALED } else { STATUS_SUCCESS }
    }

    /// Takes out what libavcodec would show, or it would take no more. The last of it, and whether damage was met.
    fn drain(&mut self) -> (Option<Frame>, bool) {
        let (mut last, mut damaged) = (None, false);
        // It holds fewer frames than this.
        for _ in 0..64 {
            let Some(frame) = Frame::empty() else { break };
            // SAFETY: an open context; the frame is empty and owned here.
            match unsafe { ff::avcodec_receive_frame(self.context.as_ptr(), frame.raw.as_ptr()) } {
                0 => last = Some(frame),
                code if code == ff::AVERROR(libc::EAGAIN) || code == ff::AVERROR_EOF => break,
                _ => damaged = true,
            }
        }
        (last, damaged)
    }
}

impl Drop for Codec {
    fn drop(&mut self) {
        let (mut context, mut packet) = (self.context.as_ptr(), self.packet.as_ptr());
        // SAFETY: owned, freed once; `caught` is still alive.
        unsafe { ff::avcodec_free_context(&raw mut context) };
        // SAFETY: owned, freed once.
        unsafe { ff::av_packet_free(&raw mut packet) };
    }
}

/// This libavcodec can decode AV1 without a card.
pub(crate) fn has_av1() -> bool {
    software_av1().is_some()
}

/// libavcodec's own AV1 decoder needs a card.
fn software_av1() -> Option<NonNull<ff::AVCodec>> {
    // SAFETY: looks up a static table by a zero-terminated name.
    let dav1d = unsafe { ff::avcodec_find_decoder_by_name(c"libdav1d".as_ptr()) };
    // SAFETY: as above.
    let aom = || unsafe { ff::avcodec_find_decoder_by_name(c"libaom-av1".as_ptr()) };
    NonNull::new(dav1d.cast_mut()).or_else(|| NonNull::new(aom().cast_mut()))
}

fn find(id: ff::AVCodecID) -> Option<NonNull<ff::AVCodec>> {
    // SAFETY: looks up a static table.
    NonNull::new(unsafe { ff::avcodec_find_decoder(id) }.cast_mut())
}

/// libavcodec begins a frame: its pixels are held from now on.
unsafe extern "C" fn catch_frame(context: *mut ff::AVCodecContext, frame: *mut ff::AVFrame, flags: c_int) -> c_int {
    // SAFETY: libavcodec's own arguments, handed on.
    let code = unsafe { ff::avcodec_default_get_buffer2(context, frame, flags) };
    if code < 0 {
        return code;
    }
    // SAFETY: libavcodec calls with its open context.
    let opaque = unsafe { (*context).opaque };
    // SAFETY: the `Caught` that the codec keeps as long as its context; it is not touched elsewhere while libavcodec
    // runs.
    let caught = unsafe { &mut *opaque.cast::<Caught>() };
    let Some(held) = Frame::share(frame) else { return ff::AVERROR(libc::ENOMEM) };
    if caught.conceal
        && let Some(before) = &caught.before
        && before.size() == held.size()
        && before.raw().format == held.raw().format
    {
        // SAFETY: two frames of the same size and format; libavcodec has not begun to write to the new one.
        unsafe { ff::av_frame_copy(frame, before.raw.as_ptr()) };
    }
    caught.frames.push(Picture { frame: held, noted: frame });
    code
}
