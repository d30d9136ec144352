//! Stands in for the NVIDIA driver's libnvcuvid.so.1, in tests only: pictures are decoded by libavcodec, and mapped as
//! device memory of whatever libcuda is loaded, a double or a real one.
//!
//! Purpose: the product's decoding over the driver's own C ABI, with real H.264, HEVC, MPEG-2 and AV1 pictures; whoever
//! breaks a contract hears of it in a sentence.
//! Time: a picture is decoded within cuvidDecodePicture; nothing is paced. Time stamps: see `parser`.
//! Invariants: device memory is reached through libcuda only; no handle is given out twice; callbacks run within
//! cuvidParseVideoData, on its thread, and none of this library's locks is held meanwhile.
//! When it fails: a contract broken by the caller is a line of the report *and* a status code. Bytes that are no stream
//! decode to nothing or to what libavcodec makes of them.
//!
//! # Exported
//! `cuvidGetDecoderCaps cuvidCreateVideoParser cuvidParseVideoData cuvidDestroyVideoParser cuvidCreateDecoder
//! cuvidDestroyDecoder cuvidDecodePicture cuvidGetDecodeStatus cuvidReconfigureDecoder cuvidMapVideoFrame64
//! cuvidUnmapVideoFrame64 cuvidCtxLockCreate cuvidCtxLockDestroy cuvidCtxLock cuvidCtxUnlock`
//!
//! # Settings
//! `nvdec.codecs` (mpeg2,h264,hevc,av1), `nvdec.count` (1), `nvdec.max_width`, `nvdec.max_height`, `av1_decode` (0): see
//! `caps`. `cuvid.spoil` (0): 1 overwrites a frame's memory when it is unmapped, so that whoever still reads it shows
//! rubbish (the overwriting waits for the default stream, which a card would not do).
//!
//! # Faults
//! `cuvid.caps`, `cuvid.parser` (its creation), `cuvid.parse`, `cuvid.create`, `cuvid.reconfigure`, `cuvid.decode`,
//! `cuvid.status`, `cuvid.map`, `cuvid.unmap`: `code` is the call's answer, and nothing is done; `sleep` goes before what
//! is done. `cuvid.decode error` and `cuvid.decode concealed`: the picture is decoded, and its status says so.
//!
//! # Counts
//! `live parsers`, `live decoders`, `live mapped frames`, `live context locks`; `decoders created`, `decoders
//! reconfigured`, `pictures decoded` (fields count), `frames mapped`. The memory that frames are mapped to is allocated
//! with the decoder and is one of libcuda's `live allocations` for each output surface.
//!
//! # Contracts
//! A call of the decoder with no current context, or another than at creation (201); a null pointer (1); handles that do
//! not live (400): also decoding, mapping and unmapping after cuvidDestroyDecoder. Parser: a call from within a callback
//! or from two threads at once (1), no sequence or decode callback (1), an error threshold over 100 (1), packet flags
//! that do not exist (1), an empty packet that does not end the stream (1), CUVID_PKT_ENDOFPICTURE on two frames
//! (told by their access unit delimiters), a
//! sequence callback that leaves fewer decode surfaces than the stream needs. Decoder: 0 or more than 32 decode surfaces
//! (1), no output surface (1), an output format or deinterlace mode that is not there (801, 1), a target that is not the
//! display area (1), created in a sequence callback while the one of an earlier call lives; reconfigured outside the
//! sequence callback, over the maximum of its creation, for another codec or depth, or with mapped frames (1); a picture
//! index beyond the surfaces (1), a picture of another codec, size or parser (1), or into a surface that is mapped;
//! mapping what was not decoded (1) or more than ulNumOutputSurfaces (205); unmapping what is not mapped (1); destroyed
//! with mapped frames.
//!
//! # Not as a card
//! * One picture after the other, in the call: no status 1 (in progress), no map that waits.
//! * No scaling, no target rectangle, no histogram; 10 bit pictures are mapped as P016 only, 8 bit ones as NV12 only.
//! * Adaptive deinterlacing is a simple one: what is at rest against the frame mapped before is woven, the rest
//!   interpolated. Bob interpolates the other field's rows.
//! * HEVC damage is seen in headers and missing references only, as far as libavcodec says; status 9 then.
//! * The codec's part of CUVIDPICPARAMS has the headers' main fields, no reference lists and no matrices. `Reserved[27]` to
//!   `[29]` carry a number, see `side`. AV1 is decoded by temporal units, hidden frames included.
//! * pfnGetOperatingPoint and pfnGetSEIMsg are not called; ulErrorThreshold is checked and has no effect.
#![expect(unsafe_code, reason = "exports the driver's C ABI")]

mod abi;
mod av;
mod bits;
mod caps;
mod cuda;
mod decoder;
mod lock;
mod parser;
mod side;
mod surface;

use rung_double_common::{Double, Fault};
use std::collections::BTreeMap;
use std::ffi::c_int;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use abi::{Caps, CreateInfo, DataPacket, DecodeStatus, ParserParams, PicParams, ProcParams, ReconfigureInfo, Status};
use cuda::Cuda;
use decoder::Decoder;
use parser::Parser;

pub(crate) static DOUBLE: Double = Double::new("libnvcuvid");

/// `None`: it is at work.
static PARSERS: Mutex<BTreeMap<usize, Option<Parser>>> = Mutex::new(BTreeMap::new());

static DECODERS: Mutex<BTreeMap<usize, Handle>> = Mutex::new(BTreeMap::new());

/// A decoder that lives, and what never changes of it: a call that takes its time in one decoder holds up no other.
#[derive(Clone)]
struct Handle {
    /// The context that was current at creation.
    context: usize,
    /// cuvidCtxLock to be taken around its calls, 0 for none.
    lock: usize,
    /// The parser in whose sequence callback it was created.
    parser: Option<usize>,
    decoder: Arc<Mutex<Decoder>>,
}

/// Handles are numbers, and never followed.
static HANDLE: AtomicUsize = AtomicUsize::new(0xC0_0000);

type Answer = Result<(), Status>;

#[unsafe(no_mangle)]
unsafe extern "C" fn cuvidGetDecoderCaps(caps: *mut Caps) -> Status {
    run(|| {
        let call = "cuvidGetDecoderCaps";
        let mut asked = read(call, caps)?;
        Cuda::get()?.current(call)?;
        play("cuvid.caps")?;
        caps::fill(&mut asked);
        write(call, caps, asked)
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuvidCreateVideoParser(parser: *mut usize, params: *mut ParserParams) -> Status {
    run(|| {
        let call = "cuvidCreateVideoParser";
        let params = read(call, params)?;
        play("cuvid.parser")?;
        let mut before = Vec::new();
        if !params.ext_video_info.is_null() {
            // SAFETY: not null: the caller's structure, as the header wants it.
            let info = unsafe { &*params.ext_video_info };
            let length = (info.format.seqhdr_data_length as usize).min(info.raw_seqhdr_data.len());
            before.extend_from_slice(&info.raw_seqhdr_data[..length]);
        }
        let id = handle();
        let made = Parser::new(id, &params, &before)?;
        write(call, parser, id)?;
        lock(&PARSERS).insert(id, Some(made));
        DOUBLE.count("live parsers", 1);
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuvidParseVideoData(parser: usize, packet: *mut DataPacket) -> Status {
    run(|| {
        let call = "cuvidParseVideoData";
        let packet = read(call, packet)?;
        play("cuvid.parse")?;
        let payload: &[u8] = match (packet.payload.is_null(), usize::try_from(packet.payload_size).unwrap_or(0)) {
            (_, 0) => &[],
            (true, _) => return refuse(call, "bytes at null", abi::INVALID_VALUE),
            // SAFETY: not null: so many bytes of the caller's, as the header wants it.
            (false, size) => unsafe { std::slice::from_raw_parts(packet.payload, size) },
        };
        let mut at_work = take_parser(call, parser)?;
        let status = at_work.parse(&packet, payload);
        lock(&PARSERS).insert(parser, Some(at_work));
        if status == abi::SUCCESS { Ok(()) } else { Err(status) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuvidDestroyVideoParser(parser: usize) -> Status {
    run(|| {
        drop(take_parser("cuvidDestroyVideoParser", parser)?);
        lock(&PARSERS).remove(&parser);
        DOUBLE.count("live parsers", -1);
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuvidCreateDecoder(decoder: *mut usize, info: *mut CreateInfo) -> Status {
    run(|| {
        let call = "cuvidCreateDecoder";
        let info = read(call, info)?;
        if decoder.is_null() {
            return refuse(call, "a null pointer", abi::INVALID_VALUE);
        }
        let cuda = Cuda::get()?;
        let _context = Current::enter(call, cuda, info.lock)?;
        let context = cuda.current(call)?;
        play("cuvid.create")?;
        if let Some((parser, _)) = side::InSequence::current()
            && lock(&DECODERS).values().any(|decoder| decoder.parser == Some(parser))
        {
            DOUBLE.broken("cuvidCreateDecoder: the decoder of an earlier sequence was not destroyed, and leaks");
        }
        let made = Decoder::create(cuda, &info)?;
        let id = handle();
        write(call, decoder, id)?;
        let made = Handle { context, lock: info.lock, parser: made.parser, decoder: Arc::new(Mutex::new(made)) };
        lock(&DECODERS).insert(id, made);
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuvidDestroyDecoder(decoder: usize) -> Status {
    run(|| {
        let call = "cuvidDestroyDecoder";
        // With its context current, or it stays as it is.
        with_decoder(call, decoder, |_| Ok(()))?;
        let Some(taken) = lock(&DECODERS).remove(&decoder) else { return refuse_handle(call) };
        let cuda = Cuda::get()?;
        let context_lock = taken.lock;
        let Ok(taken) = Arc::try_unwrap(taken.decoder) else {
            return refuse(call, "another thread is in a call of this decoder", abi::INVALID_HANDLE);
        };
        let taken = taken.into_inner().unwrap_or_else(PoisonError::into_inner);
        let _context = Current::enter(call, cuda, context_lock)?;
        match taken.destroy() {
            abi::SUCCESS => Ok(()),
            status => Err(status),
        }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuvidDecodePicture(decoder: usize, params: *mut PicParams) -> Status {
    run(|| {
        let call = "cuvidDecodePicture";
        let given = read(call, params)?;
        with_decoder(call, decoder, |decoder| {
            let word = play("cuvid.decode")?;
            let Some(side) = side::of(params) else {
                return refuse(call, "picture parameters that no parser of this library made", abi::INVALID_VALUE);
            };
            if given.pBitstreamData.is_null() {
                return refuse(call, "slices at null", abi::INVALID_VALUE);
            }
            // SAFETY: not null: so many bytes, as the header wants it.
            let slices = unsafe { std::slice::from_raw_parts(given.pBitstreamData, given.nBitstreamDataLen as usize) };
            decoder.decode(&given, slices, &side)?;
            match word.as_deref() {
                Some("error") => decoder.mark(given.CurrPicIdx, abi::STATUS_ERROR),
                Some("concealed") => decoder.mark(given.CurrPicIdx, abi::STATUS_CONCEALED),
                _ => {}
            }
            Ok(())
        })
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuvidGetDecodeStatus(decoder: usize, picture: c_int, status: *mut DecodeStatus) -> Status {
    run(|| {
        let call = "cuvidGetDecodeStatus";
        with_decoder(call, decoder, |decoder| {
            play("cuvid.status")?;
            let reserved_pointers = [std::ptr::null_mut(); 8];
            write(call, status, DecodeStatus { status: decoder.status(picture)?, reserved: [0; 31], reserved_pointers })
        })
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuvidReconfigureDecoder(decoder: usize, info: *mut ReconfigureInfo) -> Status {
    run(|| {
        let call = "cuvidReconfigureDecoder";
        let info = read(call, info)?;
        with_decoder(call, decoder, |decoder| {
            play("cuvid.reconfigure")?;
            let Some((parser, format)) = side::InSequence::current() else {
                return refuse(call, "outside of the sequence callback", abi::INVALID_VALUE);
            };
            if decoder.parser.is_some_and(|of| of != parser) {
                return refuse(call, "in the sequence callback of another parser", abi::INVALID_VALUE);
            }
            decoder.reconfigure(&info, &format)
        })
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuvidMapVideoFrame64(
    decoder: usize,
    picture: c_int,
    at: *mut u64,
    pitch: *mut u32,
    how: *mut ProcParams,
) -> Status {
    run(|| {
        let call = "cuvidMapVideoFrame64";
        // SAFETY: not null, by `read_by`; integers and pointers that are not followed.
        let how = read_by(call, how, |how| unsafe { how.read() })?;
        with_decoder(call, decoder, |decoder| {
            play("cuvid.map")?;
            if at.is_null() || pitch.is_null() {
                return refuse(call, "nowhere to write to", abi::INVALID_VALUE);
            }
            let (address, row) = decoder.map(picture, &how)?;
            write(call, at, address)?;
            write(call, pitch, row)
        })
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuvidUnmapVideoFrame64(decoder: usize, at: u64) -> Status {
    run(|| {
        with_decoder("cuvidUnmapVideoFrame64", decoder, |decoder| {
            play("cuvid.unmap")?;
            decoder.unmap(at)
        })
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuvidCtxLockCreate(lock: *mut usize, context: usize) -> Status {
    run(|| {
        let id = handle();
        write("cuvidCtxLockCreate", lock, id)?;
        lock::create(id, context);
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuvidCtxLockDestroy(lock: usize) -> Status {
    run(|| lock::destroy(lock))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuvidCtxLock(lock: usize, _flags: u32) -> Status {
    run(|| lock::take("cuvidCtxLock", Cuda::get()?, lock))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuvidCtxUnlock(lock: usize, _flags: u32) -> Status {
    run(|| lock::give_back("cuvidCtxUnlock", Cuda::get()?, lock))
}

fn run(call: impl FnOnce() -> Answer) -> Status {
    call().err().unwrap_or(abi::SUCCESS)
}

/// With the decoder's context current, which is the caller's to see to unless it gave a lock for it.
fn with_decoder(call: &str, id: usize, work: impl FnOnce(&mut Decoder) -> Answer) -> Answer {
    let Some(handle) = lock(&DECODERS).get(&id).cloned() else { return refuse_handle(call) };
    let cuda = Cuda::get()?;
    let _context = Current::enter(call, cuda, handle.lock)?;
    if cuda.current(call)? != handle.context {
        return refuse(call, "another context is current than when the decoder was created", abi::INVALID_CONTEXT);
    }
    work(&mut lock(&handle.decoder))
}

/// While this lives, the caller's context lock is held, if it gave one.
struct Current {
    held: Option<(Cuda, usize)>,
}

impl Current {
    fn enter(call: &str, cuda: Cuda, handle: usize) -> Result<Current, Status> {
        if handle == 0 {
            return Ok(Current { held: None });
        }
        lock::take(call, cuda, handle)?;
        Ok(Current { held: Some((cuda, handle)) })
    }
}

impl Drop for Current {
    fn drop(&mut self) {
        if let Some((cuda, handle)) = self.held
            && let Err(status) = lock::give_back("a context lock", cuda, handle)
        {
            DOUBLE.broken(&format!("cuvidCtxUnlock: the context can not be taken off again: {status}"));
        }
    }
}

fn take_parser(call: &str, id: usize) -> Result<Parser, Status> {
    match lock(&PARSERS).get_mut(&id) {
        None => refuse_handle(call).map(|()| unreachable!("a refusal is an error")),
        Some(parser) => parser.take().ok_or_else(|| {
            DOUBLE.broken(&format!("{call}: within a callback of this parser, or from two threads at once"));
            abi::INVALID_VALUE
        }),
    }
}

/// The fault that is due at this point: a code is an error, a word is the caller's to carry out.
fn play(point: &str) -> Result<Option<String>, Status> {
    match DOUBLE.fault(point) {
        None => Ok(None),
        Some(Fault::Code(code)) => Err(code),
        Some(Fault::Word(word)) => Ok(Some(word)),
        Some(Fault::Sleep(time)) => {
            sleep(time);
            Ok(None)
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a fault that takes its time")]
fn sleep(time: std::time::Duration) {
    std::thread::sleep(time);
}

fn handle() -> usize {
    HANDLE.fetch_add(16, Ordering::Relaxed)
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

fn refuse(call: &str, why: &str, status: Status) -> Answer {
    DOUBLE.broken(&format!("{call}: {why}"));
    Err(status)
}

fn refuse_handle(call: &str) -> Answer {
    refuse(call, "a handle that does not live", abi::INVALID_HANDLE)
}

/// A copy of a structure that the caller filled.
fn read<T: Copy>(call: &str, from: *const T) -> Result<T, Status> {
    // SAFETY: not null, by `read_by`: the caller's structure, of integers and pointers, as the header wants it.
    read_by(call, from, |from| unsafe { from.read() })
}

fn read_by<T>(call: &str, from: *const T, read: impl FnOnce(*const T) -> T) -> Result<T, Status> {
    if from.is_null() {
        DOUBLE.broken(&format!("{call}: a null pointer"));
        return Err(abi::INVALID_VALUE);
    }
    Ok(read(from))
}

fn write<T>(call: &str, to: *mut T, value: T) -> Answer {
    if to.is_null() {
        return refuse(call, "a null pointer", abi::INVALID_VALUE);
    }
    // SAFETY: not null: room for one, as the header wants it. What was there is not dropped, it is the caller's.
    unsafe { to.write(value) };
    Ok(())
}
