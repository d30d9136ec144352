//! NVDEC: access units to pictures in device memory, in presentation order, at the lowest latency that the stream allows.
//!
//! Each picture is given to the caller's sink while the driver's parser still runs: that is the only time at which it is
//! sure that neither its surface nor its decoder is used for something else. The sink queues what it needs on the
//! decoder's stream and returns; the surface goes back at once, because whatever is written to it next is queued behind.
#![expect(unsafe_code, reason = "NVDEC calls and the callbacks of its parser")]

use rung::media::track::Codec;
use std::ffi::{c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::Depth;
use super::abi;
use super::cuda::{Device, Stream};
use super::error::{Error, Harm, Library};
use super::load::{Cuvid, check};
use super::watch::Watch;

/// What becomes of interlaced pictures. Adaptive to motion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fields {
    /// One picture per frame.
    Frame,
    /// Two: one of each field.
    Both,
}

/// A decoded picture in device memory: luma rows, then rows of interleaved chroma, at one pitch. Valid in stream order
/// on the decoder's stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Surface {
    pub luma: u64,
    pub chroma: u64,
    /// Bytes from one row to the next.
    pub pitch: u32,
    /// Samples shown; both even.
    pub width: u32,
    pub height: u32,
    pub depth: Depth,
    /// What was given with the access unit.
    pub tag: i64,
    /// Made of the second field.
    pub second: bool,
    /// Shown although the decoder met damage.
    pub damaged: bool,
}

/// What became of an access unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    Taken,
    /// Something of it could not be used.
    Damaged,
}

type Pictures = dyn FnMut(&Surface) -> Result<(), Error>;

/// What is done with each picture.
pub type Sink<'a> = &'a mut (dyn FnMut(&Surface) -> Result<(), Error> + 'a);

/// One stream's parser and decoder. Used and dropped on the thread that opened it.
pub struct Decoder {
    parser: abi::Parser,
    /// The parser's callbacks get its address.
    state: Box<State>,
    /// Parameter sets, in front of the first unit.
    headers: Option<Vec<u8>>,
}

struct State {
    stream: Arc<Stream>,
    fields: Fields,
    open: Option<Open>,
    /// Of the push that runs.
    sink: Option<*mut Pictures>,
    failed: Option<Error>,
    damaged: bool,
    /// Pictures in a row that could not be had from the decoder.
    unmapped: u32,
    watch: Watch,
}

/// So many, and the decoder is broken: half a second of a slow stream.
const UNMAPPED_MAX: u32 = 12;

/// The decoder for one format.
struct Open {
    raw: abi::Decoder,
    format: Format,
    surfaces: u32,
}

/// What the parser says of a sequence, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Format {
    codec: u32,
    chroma: u32,
    depth_minus_8: u32,
    progressive: bool,
    coded: (u32, u32),
    /// Left, top, right, bottom; even.
    shown: [u32; 4],
    /// Surfaces that the stream itself needs.
    surfaces: u32,
}

impl Format {
    fn depth(&self) -> Depth {
        if self.depth_minus_8 == 0 { Depth::Eight } else { Depth::Ten }
    }

    fn size(&self) -> (u32, u32) {
        let [left, top, right, bottom] = self.shown;
        (right - left, bottom - top)
    }
}

/// Whether this GPU decodes such a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    pub supported: bool,
    /// Decode engines on the card.
    pub engines: u32,
    pub width_max: u32,
    pub height_max: u32,
}

/// What the card's decoder can do with 4:2:0 pictures of a codec. The context is current.
///
/// # Errors
/// The driver's.
pub fn caps(device: &Device, codec: Codec, depth: Depth) -> Result<Caps, Error> {
    device.bind()?;
    let codec = codec_number(codec).ok_or_else(|| unsupported("NVDEC takes H.264, HEVC and MPEG-2"))?;
    caps_of(cuvid(device)?, codec, CHROMA_420, if depth == Depth::Eight { 0 } else { 2 })
}

impl Decoder {
    /// `headers`: parameter sets in Annex B, empty if they come with the stream. Pictures are made on `stream`.
    ///
    /// # Errors
    /// There is no decoder library, or no such codec. Whether the card takes the stream is known at its first picture.
    pub fn open(
        stream: &Arc<Stream>,
        codec: Codec,
        headers: &[u8],
        fields: Fields,
        watch: &Watch,
    ) -> Result<Decoder, Error> {
        let device = stream.device();
        let _busy = watch.enter("cuvidCreateVideoParser");
        device.bind()?;
        let cuvid = cuvid(device)?;
        let codec = codec_number(codec).ok_or_else(|| unsupported("NVDEC takes H.264, HEVC and MPEG-2"))?;
        let stream = Arc::clone(stream);
        let mut state = Box::new(State {
            stream,
            fields,
            open: None,
            sink: None,
            failed: None,
            damaged: false,
            unmapped: 0,
            watch: watch.clone(),
        });
        let mut parameters = abi::ParserParams {
            codec,
            // The real number is the answer to the sequence callback.
            decode_surfaces_max: 1,
            // Everything is shown; damage is judged here.
            error_threshold: 100,
            // A picture is shown as soon as its order is known.
            display_delay_max: 0,
            // It outlives the parser: `Drop` destroys the parser first.
            user: std::ptr::from_mut(&mut *state).cast(),
            on_sequence: Some(on_sequence),
            on_decode: Some(on_decode),
            on_display: Some(on_display),
            ..abi::ParserParams::default()
        };
        let mut parser = std::ptr::null_mut();
        // SAFETY: writes a handle; the parameters are complete.
        let status = unsafe { (cuvid.cuvidCreateVideoParser)(&raw mut parser, &raw mut parameters) };
        check(status, "cuvidCreateVideoParser")?;
        let headers = (!headers.is_empty()).then(|| headers.to_vec());
        Ok(Decoder { parser, state, headers })
    }

    /// Takes one access unit; the pictures that it completes go to `sink` before this returns.
    ///
    /// # Errors
    /// The driver's and the sink's; the card does not take the stream. Damage is no error.
    pub fn push(&mut self, unit: &[u8], tag: i64, sink: Sink<'_>) -> Result<Pushed, Error> {
        const TIMESTAMP_AND_END_OF_PICTURE: u64 = 2 | 8;
        let joined = self.headers.take().map(|mut headers| {
            headers.extend_from_slice(unit);
            headers
        });
        self.parse(joined.as_deref().unwrap_or(unit), tag, TIMESTAMP_AND_END_OF_PICTURE, sink)
    }

    /// End of media: whatever is held inside goes to `sink`.
    ///
    /// # Errors
    /// As `push`.
    pub fn drain(&mut self, sink: Sink<'_>) -> Result<(), Error> {
        const END_OF_STREAM: u64 = 1;
        self.parse(&[], 0, END_OF_STREAM, sink).map(drop)
    }

    fn parse(&mut self, data: &[u8], tag: i64, flags: u64, sink: Sink<'_>) -> Result<Pushed, Error> {
        let stream = Arc::clone(&self.state.stream);
        let cuvid = cuvid(stream.device())?;
        let mut packet = abi::Packet {
            flags,
            payload_size: data.len() as u64,
            payload: if data.is_empty() { std::ptr::null() } else { data.as_ptr() },
            timestamp: tag,
        };
        // SAFETY: only the lifetime is forgotten; the pointer is taken back below, before `sink` ends, and the callbacks
        // that use it run inside the next call only.
        let sink = unsafe { std::mem::transmute::<Sink<'_>, Sink<'static>>(sink) };
        self.state.sink = Some(std::ptr::from_mut(sink));
        let watch = self.state.watch.clone();
        let busy = watch.enter("cuvidParseVideoData");
        // SAFETY: a live parser and a complete packet whose payload is alive; callbacks come back on this thread.
        let status = unsafe { (cuvid.cuvidParseVideoData)(self.parser, &raw mut packet) };
        drop(busy);
        self.state.sink = None;
        let damaged = std::mem::take(&mut self.state.damaged);
        if let Some(error) = self.state.failed.take() {
            return Err(error);
        }
        match check(status, "cuvidParseVideoData") {
            Err(error) if error.harm() != Harm::Request => Err(error),
            Err(_) => Ok(Pushed::Damaged),
            Ok(()) => Ok(if damaged { Pushed::Damaged } else { Pushed::Taken }),
        }
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        let stream = Arc::clone(&self.state.stream);
        if let (Ok(()), Ok(cuvid)) = (stream.device().bind(), cuvid(stream.device())) {
            // SAFETY: owned, destroyed once, before the state that its callbacks use.
            unsafe { (cuvid.cuvidDestroyVideoParser)(self.parser) };
            self.state.close(cuvid);
        }
    }
}

impl State {
    fn cuvid(&self) -> Result<&Cuvid, Error> {
        cuvid(self.stream.device())
    }

    fn close(&mut self, cuvid: &Cuvid) {
        if let Some(open) = self.open.take() {
            // A decoder that can not be destroyed belongs to a context that is gone, and goes with it.
            // SAFETY: owned, destroyed once; no surface of it is mapped outside `show`.
            unsafe { (cuvid.cuvidDestroyDecoder)(open.raw) };
        }
    }

    /// The number of surfaces that the parser may use.
    fn sequence(&mut self, format: Format) -> Result<u32, Error> {
        if let Some(open) = self.open.as_ref().filter(|open| open.format == format) {
            return Ok(open.surfaces);
        }
        let stream = Arc::clone(&self.stream);
        let cuvid = cuvid(stream.device())?;
        let caps = caps_of(cuvid, format.codec, format.chroma, format.depth_minus_8)?;
        let (width, height) = format.coded;
        if !caps.supported || width > caps.width_max || height > caps.height_max {
            let chroma = ["4:0:0", "4:2:0", "4:2:2", "4:4:4"].get(format.chroma as usize).unwrap_or(&"unknown chroma");
            let (name, bits) = (codec_name(format.codec), format.depth_minus_8 + 8);
            let most = format!("at most {}x{}", caps.width_max, caps.height_max);
            let most = if caps.supported { most } else { "none of this kind".to_owned() };
            return Err(unsupported(&format!(
                "this GPU's decoder does not take {name} {chroma} {bits} bit {width}x{height}: {most}"
            )));
        }
        // Making a decoder takes longer than parsing may.
        let watch = self.watch.clone();
        let away = watch.leave();
        let busy = watch.enter("cuvidCreateDecoder");
        // Two decoders beside each other would leak the first one.
        self.close(cuvid);
        let surfaces = (format.surfaces + SPARE_SURFACES).min(SURFACES_MAX);
        let raw = create(cuvid, &format, surfaces)?;
        drop(busy);
        drop(away);
        self.open = Some(Open { raw, format, surfaces });
        Ok(surfaces)
    }

    fn decode(&mut self, picture: *mut c_void) -> Result<(), Error> {
        let Some(open) = &self.open else { return Ok(()) };
        let _busy = self.watch.enter("cuvidDecodePicture");
        // SAFETY: a live decoder, and the description that the parser made for it.
        let status = unsafe { (self.cuvid()?.cuvidDecodePicture)(open.raw, picture) };
        match check(status, "cuvidDecodePicture") {
            Err(error) if error.harm() != Harm::Request => Err(error),
            Err(_) => {
                self.damaged = true;
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    fn display(&mut self, shown: &abi::DisplayInfo) -> Result<(), Error> {
        self.show(shown, false)?;
        if self.fields == Fields::Both && shown.progressive_frame == 0 { self.show(shown, true) } else { Ok(()) }
    }

    fn show(&mut self, shown: &abi::DisplayInfo, second: bool) -> Result<(), Error> {
        let (Some(open), Some(sink)) = (&self.open, self.sink) else { return Ok(()) };
        let cuvid = cuvid(self.stream.device())?;
        let mut parameters = abi::ProcParams {
            progressive_frame: shown.progressive_frame,
            second_field: c_int::from(second),
            top_field_first: shown.top_field_first,
            unpaired_field: c_int::from(shown.repeat_first_field < 0),
            // It outlives the decoder.
            output_stream: self.stream.raw(),
            ..abi::ProcParams::default()
        };
        let (mut address, mut pitch) = (0, 0);
        let (raw, index) = (open.raw, shown.picture_index);
        let busy = self.watch.enter("cuvidMapVideoFrame64");
        // SAFETY: a live decoder and a picture that the parser just said is to be shown; writes an address and a pitch.
        let status =
            unsafe { (cuvid.cuvidMapVideoFrame64)(raw, index, &raw mut address, &raw mut pitch, &raw mut parameters) };
        drop(busy);
        match check(status, "cuvidMapVideoFrame64") {
            Err(error) if error.harm() != Harm::Request => return Err(error),
            Err(error) => {
                self.damaged = true;
                self.unmapped += 1;
                // No stream is to blame for that.
                return if self.unmapped < UNMAPPED_MAX { Ok(()) } else { Err(error) };
            }
            Ok(()) => self.unmapped = 0,
        }
        let (width, height) = open.format.size();
        let surface = Surface {
            luma: address,
            chroma: address + u64::from(pitch) * u64::from(height),
            pitch,
            width,
            height,
            depth: open.format.depth(),
            tag: shown.timestamp,
            second,
            damaged: was_damaged(cuvid, raw, index),
        };
        // Whoever takes the picture may wait for room: that is not the driver's time.
        let away = self.watch.leave();
        // SAFETY: set by the `parse` that this callback runs in; nobody else uses it meanwhile.
        let sunk = unsafe { &mut *sink }(&surface);
        drop(away);
        // SAFETY: mapped above, unmapped once.
        let status = unsafe { (cuvid.cuvidUnmapVideoFrame64)(raw, address) };
        sunk.and(check(status, "cuvidUnmapVideoFrame64"))
    }
}

/// What a callback returns to the parser: 0 stops it, and the reason is kept for the caller of `parse`.
fn answer(state: *mut c_void, body: impl FnOnce(&mut State) -> Result<c_int, Error>) -> c_int {
    // SAFETY: the address that `open` gave to the parser; `parse` lends its state to nobody else while callbacks run.
    let state = unsafe { &mut *state.cast::<State>() };
    let done = catch_unwind(AssertUnwindSafe(|| body(state)));
    let failed = match done {
        Ok(Ok(answer)) => return answer,
        Ok(Err(error)) => error,
        Err(_) => Error::new(Library::Cuda, 999, "a callback of the decoder's parser stopped"),
    };
    state.failed.get_or_insert(failed);
    0
}

unsafe extern "C" fn on_sequence(state: *mut c_void, format: *mut abi::VideoFormat) -> c_int {
    // SAFETY: the parser's own description, alive during the call.
    let format = read_format(unsafe { &*format });
    answer(state, |state| {
        let surfaces = state.sequence(format)?;
        Ok(c_int::try_from(surfaces).unwrap_or(1))
    })
}

unsafe extern "C" fn on_decode(state: *mut c_void, picture: *mut c_void) -> c_int {
    answer(state, |state| state.decode(picture).map(|()| 1))
}

unsafe extern "C" fn on_display(state: *mut c_void, shown: *mut abi::DisplayInfo) -> c_int {
    if shown.is_null() {
        // The end of the stream, as newer drivers tell it.
        return 1;
    }
    // SAFETY: the parser's own description, alive during the call; integers only.
    let shown = unsafe { *shown };
    answer(state, |state| state.display(&shown).map(|()| 1))
}

fn read_format(format: &abi::VideoFormat) -> Format {
    let even = |n: c_int| u32::try_from(n).unwrap_or(0) & !1;
    let coded = (format.coded_width, format.coded_height);
    let [left, top, right, bottom] = format.shown.map(even);
    let (right, bottom) = (right.min(coded.0).max(left + 2), bottom.min(coded.1).max(top + 2));
    Format {
        codec: format.codec,
        chroma: format.chroma,
        depth_minus_8: u32::from(format.depth_minus_8),
        progressive: format.progressive_sequence != 0,
        coded,
        shown: [left, top, right, bottom],
        surfaces: u32::from(format.decode_surfaces_min),
    }
}

fn create(cuvid: &Cuvid, format: &Format, surfaces: u32) -> Result<abi::Decoder, Error> {
    const P016: u32 = 1;
    const WEAVE: u32 = 0;
    const ADAPTIVE: u32 = 2;
    let [left, top, right, bottom] = format.shown.map(|side| i16::try_from(side).unwrap_or(i16::MAX));
    let [coded_width, coded_height] = [format.coded.0, format.coded.1].map(u64::from);
    let (width, height) = format.size();
    let mut info = abi::CreateInfo {
        width: coded_width,
        height: coded_height,
        width_max: coded_width,
        height_max: coded_height,
        codec: format.codec,
        chroma: format.chroma,
        depth_minus_8: u64::from(format.depth_minus_8),
        decode_surfaces: u64::from(surfaces),
        shown: abi::Rectangle { left, top, right, bottom },
        output_format: if format.depth() == Depth::Ten { P016 } else { 0 },
        deinterlace: if format.progressive { WEAVE } else { ADAPTIVE },
        target_width: u64::from(width),
        target_height: u64::from(height),
        // The next one is made while the one before it is scaled.
        output_surfaces: 2,
        ..abi::CreateInfo::default()
    };
    let mut raw = std::ptr::null_mut();
    // SAFETY: writes a handle; the description is complete and the context current (`open` bound it on this thread).
    let status = unsafe { (cuvid.cuvidCreateDecoder)(&raw mut raw, &raw mut info) };
    let what = format!("{} {coded_width}x{coded_height}", codec_name(format.codec));
    check(status, "cuvidCreateDecoder").map_err(|error| error.while_doing(&what))?;
    Ok(raw)
}

fn was_damaged(cuvid: &Cuvid, raw: abi::Decoder, index: c_int) -> bool {
    const ERROR: u32 = 8;
    const ERROR_CONCEALED: u32 = 9;
    let mut status = abi::DecodeStatus::default();
    // SAFETY: a live decoder; writes the struct.
    let code = unsafe { (cuvid.cuvidGetDecodeStatus)(raw, index, &raw mut status) };
    // Codecs without a status say so by a code: then nothing is known to be wrong.
    code == 0 && (status.status == ERROR || status.status == ERROR_CONCEALED)
}

fn caps_of(cuvid: &Cuvid, codec: u32, chroma: u32, depth_minus_8: u32) -> Result<Caps, Error> {
    let mut caps = abi::DecoderCaps { codec, chroma, depth_minus_8, ..abi::DecoderCaps::default() };
    // SAFETY: reads what was asked, writes the answer beside it.
    check(unsafe { (cuvid.cuvidGetDecoderCaps)(&raw mut caps) }, "cuvidGetDecoderCaps")?;
    let (supported, engines) = (caps.is_supported != 0, u32::from(caps.engines));
    Ok(Caps { supported, engines, width_max: caps.width_max, height_max: caps.height_max })
}

fn cuvid(device: &Device) -> Result<&Cuvid, Error> {
    device.driver().cuvid.as_ref().map_err(|absent| unsupported(&absent.to_string()))
}

fn unsupported(words: &str) -> Error {
    Error::new(Library::Cuda, 801, "NVDEC").words(words)
}

fn codec_number(codec: Codec) -> Option<u32> {
    match codec {
        Codec::Mpeg2Video => Some(MPEG2),
        Codec::H264 => Some(H264),
        Codec::H265 => Some(HEVC),
        _ => None,
    }
}

fn codec_name(codec: u32) -> &'static str {
    match codec {
        MPEG2 => "MPEG-2",
        H264 => "H.264",
        HEVC => "HEVC",
        _ => "this codec",
    }
}

const MPEG2: u32 = 1;
const H264: u32 = 4;
const HEVC: u32 = 8;
const CHROMA_420: u32 = 1;
/// Beyond what the stream refers to: the picture being shown, and those decoded ahead of it.
const SPARE_SURFACES: u32 = 4;
/// Decoders with more can not be made.
const SURFACES_MAX: u32 = 32;
