//! One libavcodec encoder: libx264, libx265 or libaom. Opened, used and dropped on its session's thread.
#![expect(unsafe_code, reason = "libav FFI")]

use std::ffi::{CStr, CString};

use ffmpeg_sys_next as ff;

use crate::card::{Codec, Format, Profile};
use crate::config::{Config, Mode, Spending};

/// A picture of the client's, as it lay in its memory.
pub(crate) struct Pixels {
    pub(crate) format: Format,
    /// Bytes from one row of luma to the next.
    pub(crate) pitch: usize,
    /// Rows of luma before chroma begins.
    pub(crate) rows: usize,
    pub(crate) bytes: Vec<u8>,
}

/// What came out of the encoder.
pub(crate) struct Packet {
    pub(crate) number: i64,
    pub(crate) bytes: Vec<u8>,
    pub(crate) key: bool,
    /// Average quantiser; 0 where the encoder does not say.
    pub(crate) quantiser: u32,
}

pub(crate) struct Coder {
    context: *mut ff::AVCodecContext,
    ten_bit: bool,
}

impl Coder {
    /// # Errors
    /// libav's code, where the encoder does not take what was asked.
    pub(crate) fn open(config: &Config, other_headers: bool) -> Result<Coder, i32> {
        quiet();
        let name = match config.codec {
            Codec::H264 => c"libx264",
            Codec::Hevc => c"libx265",
            Codec::Av1 => c"libaom-av1",
        };
        // SAFETY: looks up a static table by a zero-terminated name.
        let codec = unsafe { ff::avcodec_find_encoder_by_name(name.as_ptr()) };
        if codec.is_null() {
            return Err(ff::AVERROR_ENCODER_NOT_FOUND);
        }
        // SAFETY: `codec` is a static description.
        let context = unsafe { ff::avcodec_alloc_context3(codec) };
        if context.is_null() {
            return Err(ff::AVERROR(libc::ENOMEM));
        }
        let mut coder = Coder { context, ten_bit: config.ten_bit };
        coder.configure(config);
        let mut options = Options(std::ptr::null_mut());
        options.fill(config, other_headers);
        // SAFETY: the context was made for this codec and is not open yet; `options` is a dictionary or null.
        check(unsafe { ff::avcodec_open2(coder.context, codec, &raw mut options.0) })?;
        Ok(coder)
    }

    fn configure(&mut self, config: &Config) {
        let c = self.raw();
        c.width = int(config.width);
        c.height = int(config.height);
        c.time_base = ff::AVRational { num: int(config.rate.1), den: int(config.rate.0) };
        c.framerate = ff::AVRational { num: int(config.rate.0), den: int(config.rate.1) };
        let (w, h) = (u64::from(config.width), u64::from(config.height));
        if config.aspect.0 > 0 {
            let (num, den) = (u64::from(config.aspect.0) * h, u64::from(config.aspect.1) * w);
            let divisor = gcd(num, den);
            c.sample_aspect_ratio = ff::AVRational { num: int(num / divisor), den: int(den / divisor) };
        }
        c.pix_fmt = if config.ten_bit {
            ff::AVPixelFormat::AV_PIX_FMT_YUV420P10LE
        } else {
            ff::AVPixelFormat::AV_PIX_FMT_YUV420P
        };
        c.gop_size = if config.codec == Codec::Av1 { 9_999 } else { -1 };
        c.max_b_frames = int(config.b_frames);
        c.thread_count = 1;
        c.flags |= ff::AV_CODEC_FLAG_CLOSED_GOP.cast_signed();
        if config.codec != Codec::Av1 {
            // The card's way with parameter sets is made where access units are put together.
            c.flags |= ff::AV_CODEC_FLAG_GLOBAL_HEADER.cast_signed();
        }
        if let Some((_, full)) = config.vui.signal {
            c.color_range = if full { ff::AVColorRange::AVCOL_RANGE_JPEG } else { ff::AVColorRange::AVCOL_RANGE_MPEG };
        }
        if let Some([primaries, transfer, matrix]) = config.vui.colour {
            put_number(&raw mut c.color_primaries, primaries);
            put_number(&raw mut c.color_trc, transfer);
            put_number(&raw mut c.colorspace, matrix);
        }
        self.retune(config, &config.spending);
    }

    /// A new rate from the next picture on; only libx264 takes one once it is open.
    pub(crate) fn retune(&mut self, config: &Config, spending: &Spending) {
        let by_itself = config.codec == Codec::Hevc || spending.mode == Mode::Quantiser;
        let c = self.raw();
        if by_itself {
            return;
        }
        c.bit_rate = i64::from(spending.average);
        let most = match spending.mode {
            Mode::Variable if spending.most > 0 => spending.most,
            Mode::Variable => spending.average.saturating_mul(2),
            _ => spending.average,
        };
        c.rc_max_rate = i64::from(most);
        // One second, where the client leaves it to the driver.
        c.rc_buffer_size = int(if spending.buffer > 0 { spending.buffer } else { most });
        let tenths = i64::from(c.rc_buffer_size) * 9 / 10;
        c.rc_initial_buffer_occupancy = if spending.initial > 0 { int(spending.initial) } else { int(tenths) };
    }

    /// Parameter sets, as libav gives them.
    pub(crate) fn extradata(&mut self) -> Vec<u8> {
        let c = self.raw();
        crate::abi::bytes(c.extradata.cast(), usize::try_from(c.extradata_size).unwrap_or(0))
    }

    /// The next picture in the order of display. `coarser` steps of quantiser are added to libx265's own choice;
    /// given for the first picture, it has to be given for all (libx265 reuses its frames as they are).
    pub(crate) fn push(&mut self, pixels: &Pixels, number: i64, idr: bool, coarser: Option<f64>) -> Result<(), i32> {
        let frame = Frame::new()?;
        let (width, height, format) = {
            let c = self.raw();
            (c.width, c.height, c.pix_fmt as i32)
        };
        frame.allocate(width, height, format)?;
        fill(&frame, pixels, width.unsigned_abs() as usize, height.unsigned_abs() as usize, self.ten_bit);
        frame.mark(number, idr);
        if let Some(coarser) = coarser {
            frame.coarser(width, height, coarser, self.ten_bit)?;
        }
        // SAFETY: an open encoder; the frame lives, and libav takes its own reference.
        check(unsafe { ff::avcodec_send_frame(self.context, frame.0) })
    }

    /// No pictures follow.
    pub(crate) fn end(&mut self) -> Result<(), i32> {
        // SAFETY: an open encoder; a null frame is the end.
        check(unsafe { ff::avcodec_send_frame(self.context, std::ptr::null()) })
    }

    pub(crate) fn pull(&mut self) -> Result<Option<Packet>, i32> {
        // SAFETY: allocates; null is handled.
        let mut raw = unsafe { ff::av_packet_alloc() };
        if raw.is_null() {
            return Err(ff::AVERROR(libc::ENOMEM));
        }
        // SAFETY: an open encoder, a packet of our own.
        let code = unsafe { ff::avcodec_receive_packet(self.context, raw) };
        let packet = (code == 0).then(|| read_packet(raw));
        // SAFETY: ours, freed once.
        unsafe { ff::av_packet_free(&raw mut raw) };
        if code == ff::AVERROR(libc::EAGAIN) || code == ff::AVERROR_EOF {
            return Ok(None);
        }
        check(code)?;
        Ok(packet)
    }

    fn raw(&mut self) -> &mut ff::AVCodecContext {
        // SAFETY: a live context that this value owns, borrowed exclusively.
        unsafe { &mut *self.context }
    }
}

impl Drop for Coder {
    fn drop(&mut self) {
        // SAFETY: owned, freed once.
        unsafe { ff::avcodec_free_context(&raw mut self.context) };
    }
}

fn read_packet(raw: *mut ff::AVPacket) -> Packet {
    // SAFETY: a packet that was just received.
    let packet = unsafe { &*raw };
    let bytes = crate::abi::bytes(packet.data.cast(), usize::try_from(packet.size).unwrap_or(0));
    let kind = ff::AVPacketSideDataType::AV_PKT_DATA_QUALITY_STATS;
    // SAFETY: looks through a live packet; null is allowed for the size.
    let stats = unsafe { ff::av_packet_get_side_data(raw, kind, std::ptr::null_mut()) };
    let quality =
        if stats.is_null() { [0; 4] } else { *crate::abi::bytes(stats.cast(), 4).first_chunk().expect("four") };
    let quantiser = u32::from_le_bytes(quality) / ff::FF_QP2LAMBDA.unsigned_abs();
    Packet { number: packet.pts, bytes, key: packet.flags & ff::AV_PKT_FLAG_KEY != 0, quantiser }
}

/// Planes of their own for chroma, ten bits in the low ones.
fn fill(frame: &Frame, pixels: &Pixels, width: usize, height: usize, ten_bit: bool) {
    let sample = pixels.format.sample();
    for y in 0..height {
        copy_row(pixels, y * pixels.pitch, frame.row(0, y, width * sample), 1, 0, ten_bit);
    }
    let chroma = pixels.pitch * pixels.rows;
    for y in 0..height / 2 {
        for plane in [1, 2] {
            let row = frame.row(plane, y, width / 2 * sample);
            let (from, step, first) = match pixels.format {
                Format::Iyuv => (chroma + ((plane - 1) * pixels.rows / 2 + y) * (pixels.pitch / 2), 1, 0),
                _ => (chroma + y * pixels.pitch, 2, plane - 1),
            };
            copy_row(pixels, from, row, step, first, ten_bit);
        }
    }
}

fn copy_row(pixels: &Pixels, from: usize, row: &mut [u8], step: usize, first: usize, ten_bit: bool) {
    if ten_bit {
        for (at, to) in row.chunks_exact_mut(2).enumerate() {
            let at = from + (at * step + first) * 2;
            let sample = u16::from_le_bytes([pixels.bytes[at], pixels.bytes[at + 1]]);
            to.copy_from_slice(&(sample >> 6).to_le_bytes());
        }
    } else if step == 1 {
        row.copy_from_slice(&pixels.bytes[from..from + row.len()]);
    } else {
        for (at, to) in row.iter_mut().enumerate() {
            *to = pixels.bytes[from + at * step + first];
        }
    }
}

struct Frame(*mut ff::AVFrame);

impl Frame {
    fn new() -> Result<Frame, i32> {
        // SAFETY: allocates; null is handled.
        let raw = unsafe { ff::av_frame_alloc() };
        if raw.is_null() { Err(ff::AVERROR(libc::ENOMEM)) } else { Ok(Frame(raw)) }
    }

    fn allocate(&self, width: i32, height: i32, format: i32) -> Result<(), i32> {
        let raw = self.raw();
        (raw.width, raw.height, raw.format) = (width, height, format);
        // SAFETY: size and format are set, and there is no buffer yet.
        check(unsafe { ff::av_frame_get_buffer(self.0, 0) })
    }

    fn mark(&self, number: i64, idr: bool) {
        let raw = self.raw();
        raw.pts = number;
        let (idr_type, any) = (ff::AVPictureType::AV_PICTURE_TYPE_I, ff::AVPictureType::AV_PICTURE_TYPE_NONE);
        raw.pict_type = if idr { idr_type } else { any };
    }

    /// The way libav has to give libx265 a quantiser: a region of interest as large as the picture.
    fn coarser(&self, width: i32, height: i32, steps: f64, ten_bit: bool) -> Result<(), i32> {
        let range = if ten_bit { 63.0 } else { 51.0 };
        let qoffset = ff::AVRational { num: (steps / range * 10_000.0) as i32, den: 10_000 };
        let size = size_of::<ff::AVRegionOfInterest>();
        let region =
            ff::AVRegionOfInterest { self_size: size as u32, top: 0, bottom: height, left: 0, right: width, qoffset };
        let kind = ff::AVFrameSideDataType::AV_FRAME_DATA_REGIONS_OF_INTEREST;
        // SAFETY: a live frame; null is handled.
        let side = unsafe { ff::av_frame_new_side_data(self.0, kind, size) };
        if side.is_null() {
            return Err(ff::AVERROR(libc::ENOMEM));
        }
        // SAFETY: libav just made it.
        let data = unsafe { (*side).data };
        // SAFETY: it has room for one region.
        unsafe { data.cast::<ff::AVRegionOfInterest>().write_unaligned(region) };
        Ok(())
    }

    #[expect(clippy::mut_from_ref, reason = "rows of a frame that only this function's caller holds")]
    fn row(&self, plane: usize, y: usize, length: usize) -> &mut [u8] {
        let raw = self.raw();
        let stride = raw.linesize[plane].unsigned_abs() as usize;
        assert!(length <= stride, "a row of {length} bytes in {stride}");
        let row = raw.data[plane].wrapping_add(y * stride);
        // SAFETY: the frame has that row, as long as its stride; callers hold one row at a time.
        unsafe { std::slice::from_raw_parts_mut(row, length) }
    }

    #[expect(clippy::mut_from_ref, reason = "a frame is held by one function at a time")]
    fn raw(&self) -> &mut ff::AVFrame {
        // SAFETY: a live frame that this value owns.
        unsafe { &mut *self.0 }
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        // SAFETY: owned, freed once.
        unsafe { ff::av_frame_free(&raw mut self.0) };
    }
}

/// libav's dictionary.
struct Options(*mut ff::AVDictionary);

impl Options {
    fn fill(&mut self, config: &Config, other_headers: bool) {
        match config.codec {
            Codec::H264 => self.fill_x264(config, other_headers),
            Codec::Hevc => self.fill_x265(config, other_headers),
            Codec::Av1 => {
                for (key, value) in [("usage", "realtime"), ("cpu-used", "8"), ("lag-in-frames", "0")] {
                    self.set(key, value);
                }
            }
        }
    }

    fn fill_x264(&mut self, config: &Config, other_headers: bool) {
        let mut all = "force-cfr=1:rc-lookahead=0:sync-lookahead=0:mbtree=0:scenecut=0:b-adapt=0:b-pyramid=none:\
                       weightb=0:ref=1:keyint=infinite:8x8dct="
            .to_owned();
        let high = matches!(config.profile, Profile::High | Profile::Auto);
        all.push_str(if high { "1" } else { "0" });
        all.push_str(if config.cavlc { ":cabac=0" } else { ":cabac=1" });
        all.push_str(if config.weighted && config.profile != Profile::Baseline { ":weightp=1" } else { ":weightp=0" });
        if config.sps_id > 0 {
            all.push_str(&format!(":sps-id={}", config.sps_id));
        }
        if config.level > 0 {
            all.push_str(&format!(":level={}", if config.level == 9 { "1b".into() } else { config.level.to_string() }));
        }
        if config.filler && config.spending.mode == Mode::Constant {
            all.push_str(":filler=1");
        }
        self.common(config, other_headers, &mut all);
        let profile = match config.profile {
            Profile::Baseline => "baseline",
            Profile::Main => "main",
            _ => "high",
        };
        if config.spending.mode == Mode::Quantiser {
            self.set("qp", &config.spending.quantiser.to_string());
        }
        self.set("preset", "superfast");
        self.set("profile", profile);
        self.set("forced-idr", "1");
        self.set("x264-params", &all);
    }

    fn fill_x265(&mut self, config: &Config, other_headers: bool) {
        let ahead = if config.b_frames > 0 { config.b_frames + 1 } else { 0 };
        let mut all = format!(
            "log-level=none:info=0:hrd=0:repeat-headers=0:aud=0:keyint=-1:open-gop=0:scenecut=0:cutree=0:b-adapt=0:\
             b-pyramid=0:weightb=0:weightp={}:ref=1:frame-threads=1:pools=none:wpp=0:bframes={}:rc-lookahead={ahead}:\
             aq-mode=1:aq-strength=0.5",
            u32::from(config.weighted),
            config.b_frames
        );
        if config.level > 0 {
            all.push_str(&format!(":level-idc={}:high-tier={}", config.level / 3, u32::from(config.high_tier)));
        }
        self.common(config, other_headers, &mut all);
        match config.spending.mode {
            Mode::Quantiser => self.set("qp", &config.spending.quantiser.to_string()),
            _ => self.set("crf", &crf(config).to_string()),
        }
        self.set("preset", "ultrafast");
        self.set("profile", if config.ten_bit { "main10" } else { "main" });
        self.set("forced-idr", "1");
        self.set("x265-params", &all);
    }

    /// What libx264 and libx265 call by the same names.
    fn common(&mut self, config: &Config, other_headers: bool, all: &mut String) {
        if let Some((format, _)) = config.vui.signal {
            let names = ["component", "pal", "ntsc", "secam", "mac"];
            if let Some(name) = names.get(format as usize) {
                all.push_str(&format!(":videoformat={name}"));
            }
        }
        if let Some(location) = config.vui.chroma_location {
            all.push_str(&format!(":chromaloc={location}"));
        }
        if other_headers {
            all.push_str(":overscan=show");
        }
    }

    fn set(&mut self, key: &str, value: &str) {
        let text = |text: &str| CString::new(text).expect("no zero in an option");
        let (key, value) = (text(key), text(value));
        // SAFETY: a dictionary or null; key and value are zero-terminated and copied.
        let code = unsafe { ff::av_dict_set(&raw mut self.0, key.as_ptr(), value.as_ptr(), 0) };
        assert!(code >= 0, "libav takes an option: {code}");
    }
}

impl Drop for Options {
    fn drop(&mut self) {
        // SAFETY: owned; freeing null is allowed.
        unsafe { ff::av_dict_free(&raw mut self.0) };
    }
}

/// Where libx265 begins, roughly: it is corrected from picture to picture.
fn crf(config: &Config) -> i32 {
    let pixels = f64::from(config.width) * f64::from(config.height);
    let per_pixel = config.bits_per_picture(&config.spending) / pixels;
    (28.0 - 6.0 * (per_pixel / 0.06).log2()).round().clamp(10.0, 45.0) as i32
}

/// An enum of libav that is numbered as the standards number it.
fn put_number<T>(at: *mut T, number: u32) {
    assert!(size_of::<T>() == size_of::<u32>(), "libav's enums are 32 bit");
    // SAFETY: an enum of a live context; libav only hands the number on, and nothing here reads it again.
    unsafe { at.cast::<u32>().write(number) };
}

fn int(number: impl TryInto<i32>) -> i32 {
    number.try_into().unwrap_or(i32::MAX)
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a.max(1) } else { gcd(b, a % b) }
}

fn check(code: i32) -> Result<(), i32> {
    if code < 0 { Err(code) } else { Ok(()) }
}

/// Unless the process has its own mind about libav's log.
fn quiet() {
    // SAFETY: reads a number.
    if unsafe { ff::av_log_get_level() } == ff::AV_LOG_INFO {
        // SAFETY: writes that number.
        unsafe { ff::av_log_set_level(ff::AV_LOG_ERROR) };
    }
}

/// libav's own sentence.
pub(crate) fn sentence(code: i32) -> String {
    let mut text = [0; 128];
    // SAFETY: writes a zero-terminated text of at most that size.
    unsafe { ff::av_strerror(code, text.as_mut_ptr(), text.len()) };
    // SAFETY: zero-terminated by the call above.
    unsafe { CStr::from_ptr(text.as_ptr()) }.to_string_lossy().into_owned()
}
