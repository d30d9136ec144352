//! Encoders: libx264, libx265 and the native AAC encoder, opened and used on one thread each.
#![expect(unsafe_code, reason = "libav FFI")]

use ffmpeg_sys_next as ff;
use rung::media::channel::VideoCodec;
use rung::media::grid::Cadence;
use rung::pixels::protocol::OpenRendition;
use std::ffi::{CStr, CString};
use std::ptr::NonNull;

use super::Error;
use super::frame::{Frame, int};
use super::packet::Packet;

/// Where an encoder puts its parameter sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Headers {
    /// Beside the stream, for an init section.
    Global,
    /// Before each IDR, for a transport stream.
    InBand,
}

/// One coded frame; valid until the next call on its encoder.
#[derive(Debug)]
pub struct Coded<'a> {
    pub pts: i64,
    pub sync: bool,
    /// As libav gives it: Annex B, or a raw AAC frame.
    pub data: &'a [u8],
}

/// What both encoders share. Not `Send`: opened, used and dropped on its own thread.
#[derive(Debug)]
struct Encoder {
    raw: NonNull<ff::AVCodecContext>,
    packet: Packet,
}

/// libx264 or libx265 through libavcodec. `pts` counts frames.
#[derive(Debug)]
pub struct VideoEncoder {
    inner: Encoder,
    codec: VideoCodec,
    vbv_ms: u32,
}

/// What level an encoder writes into its parameter sets; level_idc, general_level_idc.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The least that size and rates need.
    Least,
    /// This one, which an encoder of the same size had: what it does not allow is not used.
    As(u8),
}

/// The native AAC-LC encoder at 48 kHz. `pts` counts samples; the first packet lies one frame before the first sample.
#[derive(Debug)]
pub struct AudioEncoder {
    inner: Encoder,
}

impl VideoEncoder {
    pub fn open(
        rendition: &OpenRendition,
        cadence: Cadence,
        headers: Headers,
        level: Level,
    ) -> Result<VideoEncoder, Error> {
        let mut inner = Encoder::alloc(match rendition.codec {
            VideoCodec::H264 => c"libx264",
            VideoCodec::Hevc => c"libx265",
        })?;
        let c = inner.raw_mut();
        c.width = int(rendition.width);
        c.height = int(rendition.height);
        c.pix_fmt = ff::AVPixelFormat::AV_PIX_FMT_YUV420P;
        c.time_base = ff::AVRational { num: int(cadence.rate.den), den: int(cadence.rate.num) };
        c.framerate = ff::AVRational { num: int(cadence.rate.num), den: int(cadence.rate.den) };
        c.sample_aspect_ratio = ff::AVRational { num: int(rendition.sar.0), den: int(rendition.sar.1) };
        c.gop_size = int(cadence.gop);
        c.max_b_frames = int(rendition.bframes);
        c.thread_count = int(rendition.threads.max(1));
        c.thread_type = ff::FF_THREAD_SLICE;
        c.flags |= ff::AV_CODEC_FLAG_CLOSED_GOP.cast_signed();
        if headers == Headers::Global {
            c.flags |= ff::AV_CODEC_FLAG_GLOBAL_HEADER.cast_signed();
        }
        set_colour(c, rendition);
        set_rate(c, rendition.bitrate, rendition.vbv_ms);
        let (profile, key, mut params) = match rendition.codec {
            VideoCodec::H264 => ("high", c"x264-params", x264(rendition, level)),
            VideoCodec::Hevc => ("main", c"x265-params", x265(rendition, level)),
        };
        if !rendition.extra.is_empty() {
            params.push(':');
            params.push_str(&rendition.extra);
        }
        let mut options = Options::default();
        options.set(c"preset", &rendition.preset)?;
        options.set(c"profile", profile)?;
        options.set(c"forced-idr", "1")?;
        options.set(key, &params)?;
        inner.open(&mut options)?;
        Ok(VideoEncoder { inner, codec: rendition.codec, vbv_ms: rendition.vbv_ms })
    }

    /// SPS, PPS, for HEVC VPS, SPS, PPS (Annex B) of an encoder opened with `Headers::Global`.
    pub fn headers(&self) -> &[u8] {
        self.inner.extradata()
    }

    /// `frame`'s pts and key mark are set; its pixels are only read.
    pub fn push(&mut self, frame: &Frame) -> Result<(), Error> {
        self.inner.push(frame)
    }

    pub fn pull(&mut self) -> Result<Option<Coded<'_>>, Error> {
        self.inner.pull()
    }

    pub fn drain(&mut self) {
        self.inner.drain();
    }

    /// A new cap from the next frame on; no IDR, no gap, the same parameter sets. False: libavcodec does not tell libx265,
    /// and the encoder must be opened again.
    #[must_use]
    pub fn retune(&mut self, bitrate: u64) -> bool {
        let vbv_ms = self.vbv_ms;
        set_rate(self.inner.raw_mut(), bitrate, vbv_ms);
        self.codec == VideoCodec::H264
    }
}

/// A fixed pattern of B-frames: x264's search for a better one costs 4 % of its time and gained nothing here (same PSNR
/// and SSIM on the natural clip of `benches/ladder.rs`).
fn x264(rendition: &OpenRendition, level: Level) -> String {
    let mut params = format!("scenecut=0:b-adapt=0:rc-lookahead={}", rendition.lookahead);
    if rendition.lookahead > 0 {
        params.push_str(":mbtree=1");
    }
    if let Level::As(level) = level {
        params.push_str(&format!(":level={level}"));
    }
    params
}

/// Frames that x265 holds back beyond its lookahead and its B-frames.
const X265_BEYOND: u32 = 4;

/// What the x264 path promises, in x265's words: GOPs closed and cut where they are forced, B-frames in a fixed pattern,
/// nothing in the parameter sets that depends on the rate (hrd, tier, a searched level), one picture coded at a time, rows
/// of it in parallel where `threads` says so, and no frame much later than from x264, which counts differently. Its own log and its signature in the stream stay off.
fn x265(rendition: &OpenRendition, level: Level) -> String {
    let OpenRendition { bframes, lookahead, threads, .. } = *rendition;
    // With B-frames x265 insists on one frame more than there are.
    let lookahead = match (bframes, lookahead) {
        (0, 0) => 0,
        _ => lookahead.saturating_sub(bframes + X265_BEYOND).max(bframes + 1),
    };
    let mut params = format!(
        "log-level=none:info=0:hrd=0:aud=0:high-tier=0:open-gop=0:radl=0:scenecut=0:min-keyint=1:b-adapt=0:frame-threads=1:\
         rc-lookahead={lookahead}"
    );
    match threads {
        0 | 1 => params.push_str(":pools=none:wpp=0"),
        more => params.push_str(&format!(":pools={more}:wpp=1")),
    }
    if lookahead == 0 {
        params.push_str(":cutree=0");
    }
    if let Level::As(level) = level {
        // general_level_idc is 30 times the level, x265 takes ten times.
        params.push_str(&format!(":level-idc={}", level / 3));
    }
    params
}

impl AudioEncoder {
    /// Samples per frame.
    pub const FRAME: usize = 1024;

    pub fn open(channels: u8, bitrate: u64) -> Result<AudioEncoder, Error> {
        let mut inner = Encoder::alloc(c"aac")?;
        let c = inner.raw_mut();
        c.sample_fmt = ff::AVSampleFormat::AV_SAMPLE_FMT_FLTP;
        c.sample_rate = 48_000;
        c.time_base = ff::AVRational { num: 1, den: 48_000 };
        c.bit_rate = bitrate.cast_signed();
        c.flags |= ff::AV_CODEC_FLAG_GLOBAL_HEADER.cast_signed();
        c.thread_count = 1;
        // SAFETY: the layout is part of a live context and still empty.
        unsafe { ff::av_channel_layout_default(&raw mut c.ch_layout, i32::from(channels)) };
        inner.open(&mut Options::default())?;
        Ok(AudioEncoder { inner })
    }

    /// The AudioSpecificConfig.
    pub fn config(&self) -> &[u8] {
        self.inner.extradata()
    }

    pub fn push(&mut self, frame: &Frame) -> Result<(), Error> {
        self.inner.push(frame)
    }

    pub fn pull(&mut self) -> Result<Option<Coded<'_>>, Error> {
        self.inner.pull()
    }

    pub fn drain(&mut self) {
        self.inner.drain();
    }
}

/// Which of the picture encoders this libavcodec has.
pub fn encoders() -> Vec<&'static str> {
    let has = |name: &&CStr| {
        // SAFETY: looks up a static table by a zero-terminated name.
        let found = unsafe { ff::avcodec_find_encoder_by_name(name.as_ptr()) };
        !found.is_null()
    };
    [c"libx264", c"libx265"].into_iter().filter(has).filter_map(|name| name.to_str().ok()).collect()
}

impl Encoder {
    fn alloc(name: &CStr) -> Result<Encoder, Error> {
        // SAFETY: looks up a static table by a zero-terminated name.
        let codec = unsafe { ff::avcodec_find_encoder_by_name(name.as_ptr()) };
        if codec.is_null() {
            return Err(Error { what: "encoder", code: ff::AVERROR_ENCODER_NOT_FOUND });
        }
        // SAFETY: `codec` is a static description; null is handled.
        let raw = unsafe { ff::avcodec_alloc_context3(codec) };
        Ok(Encoder { raw: NonNull::new(raw).ok_or(Error::alloc("encoder"))?, packet: Packet::new()? })
    }

    fn raw_mut(&mut self) -> &mut ff::AVCodecContext {
        // SAFETY: points to a live context that this value owns, borrowed exclusively.
        unsafe { self.raw.as_mut() }
    }

    fn open(&mut self, options: &mut Options) -> Result<(), Error> {
        // SAFETY: the context was made for its codec (null here means that one) and is not open yet; `options` is a
        // dictionary or null, and libav leaves in it what it did not understand.
        let code = unsafe { ff::avcodec_open2(self.raw.as_ptr(), std::ptr::null(), &raw mut options.raw) };
        Error::check("encoder", code)?;
        Ok(())
    }

    fn extradata(&self) -> &[u8] {
        // SAFETY: points to a live context that this value owns.
        let c = unsafe { self.raw.as_ref() };
        if c.extradata.is_null() {
            return &[];
        }
        // SAFETY: libav keeps `extradata_size` bytes there for as long as the context lives.
        unsafe { std::slice::from_raw_parts(c.extradata, usize::try_from(c.extradata_size).unwrap_or(0)) }
    }

    fn push(&mut self, frame: &Frame) -> Result<(), Error> {
        // SAFETY: open context; the frame is alive and libav takes its own reference.
        let code = unsafe { ff::avcodec_send_frame(self.raw.as_ptr(), frame.as_ptr()) };
        Error::check("encoder input", code)?;
        Ok(())
    }

    fn pull(&mut self) -> Result<Option<Coded<'_>>, Error> {
        self.packet.clear();
        // SAFETY: open context; the packet is empty and owned here.
        let code = unsafe { ff::avcodec_receive_packet(self.raw.as_ptr(), self.packet.as_ptr()) };
        if code == ff::AVERROR(libc::EAGAIN) || code == ff::AVERROR_EOF {
            return Ok(None);
        }
        Error::check("encoder output", code)?;
        let packet = self.packet.raw();
        let (pts, sync) = (packet.pts, packet.flags & ff::AV_PKT_FLAG_KEY != 0);
        Ok(Some(Coded { pts, sync, data: self.packet.bytes() }))
    }

    fn drain(&mut self) {
        // SAFETY: open context; a null frame starts draining. Draining twice is refused harmlessly.
        unsafe { ff::avcodec_send_frame(self.raw.as_ptr(), std::ptr::null()) };
    }
}

impl Drop for Encoder {
    fn drop(&mut self) {
        let mut raw = self.raw.as_ptr();
        // SAFETY: owned, freed once, on the thread that opened it.
        unsafe { ff::avcodec_free_context(&raw mut raw) };
    }
}

/// Average = cap: the encoder never spends more than the playlist's BANDWIDTH says.
fn set_rate(c: &mut ff::AVCodecContext, bitrate: u64, vbv_ms: u32) {
    let rate = bitrate.min(i64::MAX.cast_unsigned()).cast_signed();
    c.bit_rate = rate;
    c.rc_max_rate = rate;
    c.rc_buffer_size = i32::try_from(i128::from(rate) * i128::from(vbv_ms) / 1_000).unwrap_or(i32::MAX);
}

fn set_colour(c: &mut ff::AVCodecContext, rendition: &OpenRendition) {
    use ff::{AVColorPrimaries as P, AVColorRange as R, AVColorSpace as S, AVColorTransferCharacteristic as T};
    let colour = rendition.colour;
    c.color_range = if colour.full_range { R::AVCOL_RANGE_JPEG } else { R::AVCOL_RANGE_MPEG };
    c.color_primaries = match colour.primaries {
        1 => P::AVCOL_PRI_BT709,
        4 => P::AVCOL_PRI_BT470M,
        5 => P::AVCOL_PRI_BT470BG,
        6 => P::AVCOL_PRI_SMPTE170M,
        7 => P::AVCOL_PRI_SMPTE240M,
        8 => P::AVCOL_PRI_FILM,
        9 => P::AVCOL_PRI_BT2020,
        _ => P::AVCOL_PRI_UNSPECIFIED,
    };
    c.color_trc = match colour.transfer {
        1 => T::AVCOL_TRC_BT709,
        4 => T::AVCOL_TRC_GAMMA22,
        5 => T::AVCOL_TRC_GAMMA28,
        6 => T::AVCOL_TRC_SMPTE170M,
        7 => T::AVCOL_TRC_SMPTE240M,
        8 => T::AVCOL_TRC_LINEAR,
        11 => T::AVCOL_TRC_IEC61966_2_4,
        13 => T::AVCOL_TRC_IEC61966_2_1,
        14 => T::AVCOL_TRC_BT2020_10,
        15 => T::AVCOL_TRC_BT2020_12,
        16 => T::AVCOL_TRC_SMPTE2084,
        18 => T::AVCOL_TRC_ARIB_STD_B67,
        _ => T::AVCOL_TRC_UNSPECIFIED,
    };
    c.colorspace = match colour.matrix {
        1 => S::AVCOL_SPC_BT709,
        4 => S::AVCOL_SPC_FCC,
        5 => S::AVCOL_SPC_BT470BG,
        6 => S::AVCOL_SPC_SMPTE170M,
        7 => S::AVCOL_SPC_SMPTE240M,
        9 => S::AVCOL_SPC_BT2020_NCL,
        10 => S::AVCOL_SPC_BT2020_CL,
        _ => S::AVCOL_SPC_UNSPECIFIED,
    };
}

/// libav's dictionary.
struct Options {
    raw: *mut ff::AVDictionary,
}

impl Default for Options {
    fn default() -> Options {
        Options { raw: std::ptr::null_mut() }
    }
}

impl Options {
    fn set(&mut self, key: &CStr, value: &str) -> Result<(), Error> {
        let value =
            CString::new(value).map_err(|_| Error { what: "encoder option", code: ff::AVERROR(libc::EINVAL) })?;
        // SAFETY: a dictionary or null; key and value are zero-terminated and copied.
        let code = unsafe { ff::av_dict_set(&raw mut self.raw, key.as_ptr(), value.as_ptr(), 0) };
        Error::check("encoder option", code)?;
        Ok(())
    }
}

impl Drop for Options {
    fn drop(&mut self) {
        // SAFETY: owned; freeing null is allowed.
        unsafe { ff::av_dict_free(&raw mut self.raw) };
    }
}
