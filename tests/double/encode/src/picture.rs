//! Pictures in, access units out.

use std::ffi::c_void;
use std::mem::offset_of;
use std::sync::MutexGuard;

use nvidia_video_codec_sdk::sys::nvEncodeAPI as sys;

use crate::DOUBLE;
use crate::abi::{
    Answer, Given, INVALID_CALL, INVALID_EVENT, INVALID_PARAM, LOCK_BITSTREAM_VER, LOCK_BUSY, NEED_MORE_INPUT, Out,
    PIC_PARAMS_VER, Status, UNSUPPORTED_PARAM, bytes, decline, refuse,
};
use crate::buffers::Use;
use crate::card::Codec;
use crate::coder::Pixels;
use crate::config::Config;
use crate::nal::Message;
use crate::session::{Session, State, Submitted, fault, hang};
use crate::work::{Coded, Job, Labels, Picture, Source};

const ENCODE: &str = "nvEncEncodePicture";
const LOCK: &str = "nvEncLockBitstream";

const FORCE_INTRA: u32 = 1;
const FORCE_IDR: u32 = 2;
const OUTPUT_HEADERS: u32 = 4;
const END_OF_STREAM: u32 = 8;

impl Session {
    pub(crate) fn encode(&self, at: *const c_void) -> Answer {
        let given = Given::versioned::<sys::NV_ENC_PIC_PARAMS>(ENCODE, "NV_ENC_PIC_PARAMS", at, PIC_PARAMS_VER)?;
        self.excusing(fault("encode.encode", &[]))?;
        let mut state = self.state();
        let stream = state.stream;
        state.encoder(ENCODE)?;
        state.healthy(ENCODE)?;
        let flags = given.u32(offset_of!(sys::NV_ENC_PIC_PARAMS, encodePicFlags));
        if flags & END_OF_STREAM != 0 {
            return self.flush(state);
        }
        let encoder = state.encoder(ENCODE)?;
        if encoder.ended && !encoder.order.is_empty() {
            return refuse(ENCODE, "a picture after the end, before all outputs were locked", INVALID_CALL);
        }
        let config = encoder.config.clone();
        shape(&given, &config, flags)?;
        let input = given.u64(offset_of!(sys::NV_ENC_PIC_PARAMS, inputBuffer));
        let output = given.u64(offset_of!(sys::NV_ENC_PIC_PARAMS, outputBitstream));
        let source = source(&state, &given, input, stream)?;
        match state.outputs.get(&output).map(|output| &output.used) {
            None => return refuse(ENCODE, format_args!("{output:#x} is no bitstream buffer"), INVALID_PARAM),
            Some(Use::InFlight) => return refuse(ENCODE, format_args!("{output:#x} is in flight"), INVALID_PARAM),
            Some(Use::Locked(_)) => return refuse(ENCODE, format_args!("{output:#x} is locked"), INVALID_PARAM),
            Some(Use::Free) => {}
        }
        let force = key(&given, &config, flags)?;
        let encoder = state.encoder(ENCODE)?;
        if encoder.ended && !force {
            // What its first picture would refer to is said nowhere.
            return refuse(ENCODE, "a picture after the end that is not forced to be an IDR picture", INVALID_PARAM);
        }
        let again = std::mem::take(&mut encoder.ended);
        let planned = encoder.plan.submit(force || encoder.force_idr || again);
        encoder.force_idr = false;
        let number = encoder.submitted;
        encoder.submitted += 1;
        encoder.order.push_back(Submitted { output, place: number });
        encoder.inputs.insert(number, input);
        if !planned.more {
            encoder.allowed = encoder.submitted;
        }
        state.outputs.entry(output).and_modify(|output| output.used = Use::InFlight);
        if let Some(mapped) = state.mapped.get_mut(&input) {
            mapped.busy += 1;
        }
        if again {
            // After the end everything begins anew.
            state.push(Job::Restart(Box::new(config.clone())));
        }
        let labels = Labels {
            timestamp: given.u64(offset_of!(sys::NV_ENC_PIC_PARAMS, inputTimeStamp)),
            duration: given.u64(offset_of!(sys::NV_ENC_PIC_PARAMS, inputDuration)),
            index: given.u32(offset_of!(sys::NV_ENC_PIC_PARAMS, frameIdx)),
        };
        let headers = flags & OUTPUT_HEADERS != 0;
        let messages = messages(&given, config.codec);
        let picture = Picture { number, source, idr: planned.idr, headers, messages, labels };
        self.submit(state, Job::Picture(Box::new(picture)));
        if planned.more { Err(NEED_MORE_INPUT) } else { Ok(()) }
    }

    /// After an error that was played a client can not flush.
    fn excusing<T>(&self, played: Result<T, Status>) -> Result<T, Status> {
        if played.is_err() {
            self.state().excused = true;
        }
        played
    }

    /// The end of the stream: comes back when everything is coded.
    fn flush(&self, mut state: MutexGuard<'_, State>) -> Answer {
        let encoder = state.encoder(ENCODE)?;
        let again = std::mem::replace(&mut encoder.ended, true);
        encoder.allowed = encoder.submitted;
        encoder.plan.flush();
        if !again {
            self.submit(state, Job::Flush);
        } else {
            drop(state);
        }
        let state = self.wait(|state| state.idle() || state.failure().is_some());
        state.healthy(ENCODE)
    }

    pub(crate) fn lock(&self, at: *mut c_void) -> Answer {
        let given =
            Given::versioned::<sys::NV_ENC_LOCK_BITSTREAM>(LOCK, "NV_ENC_LOCK_BITSTREAM", at, LOCK_BITSTREAM_VER)?;
        if self.excusing(fault("encode.lock", &["hang"]))?.is_some() {
            hang();
        }
        let output = given.u64(offset_of!(sys::NV_ENC_LOCK_BITSTREAM, outputBitstream));
        let now = given.bit(offset_of!(sys::NV_ENC_LOCK_BITSTREAM, _bitfield_1), 0);
        let next = self.lockable(output)?;
        let mut state = if now {
            let state = self.state();
            if !state.ready(next.place) && state.failure().is_none() {
                return decline(LOCK, "not yet", LOCK_BUSY);
            }
            state
        } else {
            self.wait(|state| state.ready(next.place) || state.failure().is_some())
        };
        if !state.ready(next.place) {
            return state.healthy(LOCK);
        }
        let coded = state.take().expect("a ready output");
        state.encoder(LOCK)?.order.pop_front();
        state.input_done(next.place, coded.number);
        let offsets = state.encoder(LOCK)?.config.slice_offsets;
        describe(Out::new(LOCK, "NV_ENC_LOCK_BITSTREAM", at)?, &given, &coded, offsets)?;
        state.outputs.entry(output).and_modify(|output| output.used = Use::Locked(coded));
        drop(state);
        DOUBLE.count("live locked bitstreams", 1);
        Ok(())
    }

    /// Whether a client may lock that buffer now.
    fn lockable(&self, output: u64) -> Result<Submitted, Status> {
        let mut state = self.state();
        match state.outputs.get(&output).map(|output| &output.used) {
            None => return refuse(LOCK, format_args!("{output:#x} is no bitstream buffer"), INVALID_PARAM),
            Some(Use::Free) => return refuse(LOCK, format_args!("{output:#x}: nothing was encoded"), INVALID_PARAM),
            Some(Use::Locked(_)) => return refuse(LOCK, format_args!("{output:#x} is locked"), INVALID_CALL),
            Some(Use::InFlight) => {}
        }
        let encoder = state.encoder(LOCK)?;
        let Some(next) = encoder.order.front().copied() else {
            return refuse(LOCK, format_args!("{output:#x}: nothing is in flight"), INVALID_CALL);
        };
        if next.output != output {
            let why = format_args!("{output:#x}, but {:#x} was given before it", next.output);
            return refuse(LOCK, why, INVALID_CALL);
        }
        if next.place >= encoder.allowed {
            let why = format_args!("{output:#x}: nvEncEncodePicture wants more input for it");
            return refuse(LOCK, why, INVALID_CALL);
        }
        Ok(next)
    }

    pub(crate) fn unlock(&self, output: u64) -> Answer {
        const CALL: &str = "nvEncUnlockBitstream";
        let mut state = self.state();
        let Some(known) = state.outputs.get_mut(&output) else {
            return refuse(CALL, format_args!("{output:#x} is no bitstream buffer"), INVALID_PARAM);
        };
        if !matches!(known.used, Use::Locked(_)) {
            return refuse(CALL, format_args!("{output:#x} is not locked"), INVALID_CALL);
        }
        known.used = Use::Free;
        drop(state);
        DOUBLE.count("live locked bitstreams", -1);
        Ok(())
    }
}

/// The picture's size, format and flags.
fn shape(given: &Given, config: &Config, flags: u32) -> Answer {
    let number = |at| given.u32(at);
    if flags & !0xf != 0 {
        return decline(ENCODE, format_args!("encodePicFlags {flags:#x} on this card"), UNSUPPORTED_PARAM);
    }
    let size = (
        number(offset_of!(sys::NV_ENC_PIC_PARAMS, inputWidth)),
        number(offset_of!(sys::NV_ENC_PIC_PARAMS, inputHeight)),
    );
    if size != (config.width, config.height) {
        let why = format_args!("input of {size:?} for pictures of {:?}", (config.width, config.height));
        return refuse(ENCODE, why, INVALID_PARAM);
    }
    if !given.pointer(offset_of!(sys::NV_ENC_PIC_PARAMS, completionEvent)).is_null() {
        return refuse(ENCODE, "completionEvent: no events on Linux", INVALID_EVENT);
    }
    let structure = number(offset_of!(sys::NV_ENC_PIC_PARAMS, pictureStruct));
    if structure != 1 {
        return refuse(ENCODE, format_args!("pictureStruct {structure}"), INVALID_PARAM);
    }
    Ok(())
}

/// Where the picture is, with the pitch and the format that the client says.
fn source(state: &State, given: &Given, input: u64, stream: Option<u64>) -> Result<Source, Status> {
    let pitch = given.u32(offset_of!(sys::NV_ENC_PIC_PARAMS, inputPitch)) as usize;
    let width = given.u32(offset_of!(sys::NV_ENC_PIC_PARAMS, inputWidth)) as usize;
    let format = given.u32(offset_of!(sys::NV_ENC_PIC_PARAMS, bufferFmt));
    let (known_pitch, known_format, source) = if let Some(mapped) = state.mapped.get(&input) {
        let surface = mapped.surface;
        (surface.pitch, surface.format, Source::Device { mapped: input, surface, stream })
    } else if let Some(host) = state.hosts.get(&input) {
        if host.locked {
            return refuse(ENCODE, format_args!("{input:#x} is locked"), INVALID_PARAM);
        }
        let pixels =
            Pixels { format: host.format, pitch: host.pitch, rows: host.height as usize, bytes: host.bytes.clone() };
        (host.pitch, host.format, Source::Host(pixels))
    } else if state.registered.contains_key(&input) {
        return refuse(ENCODE, format_args!("{input:#x} is registered, not mapped"), INVALID_PARAM);
    } else {
        return refuse(ENCODE, format_args!("{input:#x} is no mapped input"), INVALID_PARAM);
    };
    // "If pitch value is not known, set this to inputWidth."
    if pitch != known_pitch && pitch != width {
        return refuse(ENCODE, format_args!("inputPitch {pitch}, the input's is {known_pitch}"), INVALID_PARAM);
    }
    if format != known_format.number() {
        return refuse(ENCODE, format_args!("bufferFmt {format:#x} for {known_format:?}"), INVALID_PARAM);
    }
    Ok(source)
}

/// Whether the client makes it an IDR picture.
fn key(given: &Given, config: &Config, flags: u32) -> Result<bool, Status> {
    if config.decides_types {
        let asked = flags & FORCE_IDR != 0;
        let ignored = asked && fault("encode.idr", &["no_idr"])?.is_some();
        return Ok(asked && !ignored || flags & FORCE_INTRA != 0);
    }
    if flags & FORCE_IDR != 0 {
        DOUBLE.broken(&format!("{ENCODE}: FORCEIDR without enablePTD, it is not looked at"));
    }
    match given.u32(offset_of!(sys::NV_ENC_PIC_PARAMS, pictureType)) {
        0 => Ok(false),
        2 | 3 => Ok(true),
        other => decline(ENCODE, format_args!("pictureType {other} on this card"), UNSUPPORTED_PARAM),
    }
}

/// The client's SEI messages for this picture.
fn messages(given: &Given, codec: Codec) -> Vec<Message> {
    let at = offset_of!(sys::NV_ENC_PIC_PARAMS, codecPicParams);
    let (count, list) = match codec {
        Codec::H264 => (
            at + offset_of!(sys::NV_ENC_PIC_PARAMS_H264, seiPayloadArrayCnt),
            at + offset_of!(sys::NV_ENC_PIC_PARAMS_H264, seiPayloadArray),
        ),
        Codec::Hevc => (
            at + offset_of!(sys::NV_ENC_PIC_PARAMS_HEVC, seiPayloadArrayCnt),
            at + offset_of!(sys::NV_ENC_PIC_PARAMS_HEVC, seiPayloadArray),
        ),
        Codec::Av1 => return Vec::new(),
    };
    let size = size_of::<sys::NV_ENC_SEI_PAYLOAD>();
    let list = given.pointer(list);
    let count = if list.is_null() { 0 } else { given.u32(count) as usize };
    let one = |index: usize| {
        let given = Given::from(bytes(list.wrapping_byte_add(index * size), size));
        let length = given.u32(offset_of!(sys::NV_ENC_SEI_PAYLOAD, payloadSize)) as usize;
        let kind = given.u32(offset_of!(sys::NV_ENC_SEI_PAYLOAD, payloadType));
        (kind, bytes(given.pointer(offset_of!(sys::NV_ENC_SEI_PAYLOAD, payload)), length))
    };
    (0..count).map(one).collect()
}

fn describe(out: Out, given: &Given, coded: &Coded, offsets: bool) -> Answer {
    type Lock = sys::NV_ENC_LOCK_BITSTREAM;
    let bytes = coded.bytes.as_ptr().expose_provenance() as u64;
    out.put(offset_of!(Lock, bitstreamBufferPtr), bytes);
    out.put(offset_of!(Lock, bitstreamSizeInBytes), coded.bytes.len() as u32);
    out.put(offset_of!(Lock, outputTimeStamp), coded.labels.timestamp);
    out.put(offset_of!(Lock, outputDuration), coded.labels.duration);
    out.put(offset_of!(Lock, frameIdx), coded.labels.index);
    out.put(offset_of!(Lock, frameIdxDisplay), coded.number as u32);
    out.put(offset_of!(Lock, pictureType), coded.kind as u32);
    out.put(offset_of!(Lock, pictureStruct), 1_u32);
    out.put(offset_of!(Lock, frameAvgQP), coded.quantiser);
    for nothing in [
        offset_of!(Lock, hwEncodeStatus),
        offset_of!(Lock, frameSatd),
        offset_of!(Lock, ltrFrameIdx),
        offset_of!(Lock, ltrFrameBitmap),
        offset_of!(Lock, temporalId),
        offset_of!(Lock, intraMBCount),
        offset_of!(Lock, interMBCount),
        offset_of!(Lock, averageMVX),
        offset_of!(Lock, averageMVY),
        offset_of!(Lock, alphaLayerSizeInBytes),
    ] {
        out.put(nothing, 0_u32);
    }
    if offsets {
        out.put(offset_of!(Lock, numSlices), coded.slices.len() as u32);
        let to = given.pointer(offset_of!(Lock, sliceOffsets));
        if !to.is_null() {
            let to = Out::new(LOCK, "sliceOffsets", to)?;
            coded.slices.iter().enumerate().for_each(|(at, offset)| to.put(at * 4, *offset));
        }
    }
    Ok(())
}
