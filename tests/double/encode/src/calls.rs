//! The exported functions and the function list.
#![expect(unsafe_code, reason = "the driver's exported names")]

use std::collections::BTreeSet;
use std::ffi::{CStr, CString, c_char, c_void};
use std::mem::offset_of;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use nvidia_video_codec_sdk::sys::nvEncodeAPI as sys;

use crate::DOUBLE;
use crate::abi::{
    API, Answer, CAPS_PARAM_VER, CONFIG_VER, DEVICE_NOT_EXIST, FUNCTION_LIST_VER, GENERIC, Given, Guid, INVALID_CALL,
    INVALID_DEVICE, INVALID_ENCODERDEVICE, INVALID_PARAM, INVALID_PTR, INVALID_VERSION, NEED_MORE_INPUT,
    OPEN_SESSION_EX_VER, OUT_OF_MEMORY, Out, PRESET_CONFIG_VER, SUCCESS, Status, UNIMPLEMENTED, UNSUPPORTED_DEVICE,
    UNSUPPORTED_PARAM, decline, number, refuse, said,
};
use crate::card::{self, Codec, PRESETS, caps};
use crate::cuda::Cuda;
use crate::limit::Slot;
use crate::preset::{self, Tuning};
use crate::session::{Session, Side, fault};

#[unsafe(no_mangle)]
extern "C" fn NvEncodeAPIGetMaxSupportedVersion(version: *mut c_void) -> Status {
    guarded("NvEncodeAPIGetMaxSupportedVersion", || {
        let (major, minor) = card::api();
        Out::new("NvEncodeAPIGetMaxSupportedVersion", "version", version)?.put(0, major << 4 | minor);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn NvEncodeAPICreateInstance(list: *mut c_void) -> Status {
    const CALL: &str = "NvEncodeAPICreateInstance";
    guarded(CALL, || {
        newer(CALL)?;
        let given = Given::versioned::<sys::NV_ENCODE_API_FUNCTION_LIST>(
            CALL,
            "NV_ENCODE_API_FUNCTION_LIST",
            list,
            FUNCTION_LIST_VER,
        )?;
        if given.u32(4) != 0 {
            return refuse(CALL, "reserved is not 0", INVALID_PARAM);
        }
        let out = Out::new(CALL, "NV_ENCODE_API_FUNCTION_LIST", list)?;
        for (offset, function) in slots() {
            out.put(offset, function.expose_provenance() as u64);
        }
        Ok(())
    })
}

/// Every slot of the list, by its offset.
fn slots() -> Vec<(usize, *const c_void)> {
    type List = sys::NV_ENCODE_API_FUNCTION_LIST;
    macro_rules! list {
        ($($slot:ident = $function:expr;)*) => { vec![$((offset_of!(List, $slot), $function as *const c_void)),*] };
    }
    list! {
        nvEncOpenEncodeSession = open_deprecated;
        nvEncGetEncodeGUIDCount = guid_count;
        nvEncGetEncodeProfileGUIDCount = profile_count;
        nvEncGetEncodeProfileGUIDs = profiles;
        nvEncGetEncodeGUIDs = guids;
        nvEncGetInputFormatCount = format_count;
        nvEncGetInputFormats = formats;
        nvEncGetEncodeCaps = get_caps;
        nvEncGetEncodePresetCount = preset_count;
        nvEncGetEncodePresetGUIDs = presets;
        nvEncGetEncodePresetConfig = preset_config_deprecated;
        nvEncInitializeEncoder = initialise;
        nvEncCreateInputBuffer = create_input;
        nvEncDestroyInputBuffer = destroy_input;
        nvEncCreateBitstreamBuffer = create_output;
        nvEncDestroyBitstreamBuffer = destroy_output;
        nvEncEncodePicture = encode;
        nvEncLockBitstream = lock;
        nvEncUnlockBitstream = unlock;
        nvEncLockInputBuffer = lock_input;
        nvEncUnlockInputBuffer = unlock_input;
        nvEncGetEncodeStats = stats;
        nvEncGetSequenceParams = sequence_params;
        nvEncRegisterAsyncEvent = event;
        nvEncUnregisterAsyncEvent = event;
        nvEncMapInputResource = map;
        nvEncUnmapInputResource = unmap;
        nvEncDestroyEncoder = destroy;
        nvEncInvalidateRefFrames = invalidate;
        nvEncOpenEncodeSessionEx = open;
        nvEncRegisterResource = register;
        nvEncUnregisterResource = unregister;
        nvEncReconfigureEncoder = reconfigure;
        nvEncCreateMVBuffer = unimplemented;
        nvEncDestroyMVBuffer = unimplemented;
        nvEncRunMotionEstimationOnly = unimplemented;
        nvEncGetLastErrorString = last_error;
        nvEncSetIOCudaStreams = set_streams;
        nvEncGetEncodePresetConfigEx = preset_config;
        nvEncGetSequenceParamEx = sequence_params_ex;
        nvEncRestoreEncoderState = unimplemented;
        nvEncLookaheadPicture = unimplemented;
    }
}

/// A client of 12.1 and a driver that is older: no fault of the client's.
fn newer(call: &str) -> Answer {
    let (major, minor) = card::api();
    if (major, minor) < (12, 1) {
        return decline(call, format_args!("the driver knows API {major}.{minor}"), INVALID_VERSION);
    }
    Ok(())
}

/// No panic crosses to the client.
fn guarded(call: &str, body: impl FnOnce() -> Answer) -> Status {
    catch_unwind(AssertUnwindSafe(body)).map_or_else(
        |_| {
            DOUBLE.broken(&format!("{call}: the double panicked"));
            GENERIC
        },
        |answer| answer.err().unwrap_or(SUCCESS),
    )
}

/// A call of a session.
fn of_session(call: &str, encoder: u64, side: Side, body: impl FnOnce(&Arc<Session>) -> Answer) -> Status {
    guarded(call, || {
        let Some(session) = Session::find(encoder) else {
            let code = if encoder == 0 { INVALID_PTR } else { INVALID_ENCODERDEVICE };
            return refuse(call, format_args!("{encoder:#x} is no open session"), code);
        };
        let answer = session.call(call, side, || body(&session));
        if answer.is_err_and(|code| code != NEED_MORE_INPUT) {
            keep(encoder, said());
        }
        answer
    })
}

extern "C" fn open_deprecated(_device: u64, _kind: u32, _encoder: *mut c_void) -> Status {
    guarded("nvEncOpenEncodeSession", || refuse("nvEncOpenEncodeSession", "use the Ex call", INVALID_CALL))
}

extern "C" fn open(params: *mut c_void, encoder: *mut c_void) -> Status {
    const CALL: &str = "nvEncOpenEncodeSessionEx";
    type Params = sys::NV_ENC_OPEN_ENCODE_SESSION_EX_PARAMS;
    guarded(CALL, || {
        let out = Out::new(CALL, "encoder", encoder)?;
        out.put(0, 0_u64);
        newer(CALL)?;
        let what = "NV_ENC_OPEN_ENCODE_SESSION_EX_PARAMS";
        let given = Given::versioned::<Params>(CALL, what, params, OPEN_SESSION_EX_VER)?;
        let other_headers = fault("encode.open", &["other_headers"])?.is_some();
        let api = given.u32(offset_of!(Params, apiVersion));
        if api != API {
            return refuse(CALL, format_args!("apiVersion {api:#x}, not {API:#x}"), INVALID_VERSION);
        }
        let kind = given.u32(offset_of!(Params, deviceType));
        if kind != 1 {
            return refuse(CALL, format_args!("deviceType {kind} is not CUDA's"), UNSUPPORTED_DEVICE);
        }
        let context = given.u64(offset_of!(Params, device));
        let Some(cuda) = Cuda::get().filter(|_| context != 0) else {
            return refuse(CALL, "device is null, or there is no libcuda", INVALID_DEVICE);
        };
        let Ok(device) = cuda.within(context, || cuda.device()) else {
            return refuse(CALL, format_args!("device {context:#x} is no CUDA context"), INVALID_DEVICE);
        };
        let device = device.or_else(|_| decline(CALL, "the device is gone", DEVICE_NOT_EXIST))?;
        if card::engines(device) == 0 {
            let code = DOUBLE.number("nvenc.none_code", u64::from(UNSUPPORTED_DEVICE)) as Status;
            return decline(CALL, "no encoder on this card", code);
        }
        let most = DOUBLE.number("nvenc.max_sessions", u64::MAX);
        let slot = if most == u64::MAX { Some(Slot::unbounded()) } else { Slot::take(most) };
        let Some(slot) = slot else {
            let code = DOUBLE.number("nvenc.max_sessions_code", u64::from(OUT_OF_MEMORY)) as Status;
            return decline(CALL, "no session is free", code);
        };
        out.put(0, Session::open(context, slot, other_headers));
        Ok(())
    })
}

extern "C" fn guid_count(encoder: u64, count: *mut c_void) -> Status {
    const CALL: &str = "nvEncGetEncodeGUIDCount";
    of_session(CALL, encoder, Side::Submit, |_| put_count(CALL, count, Codec::all().len()))
}

extern "C" fn guids(encoder: u64, list: *mut c_void, room: u32, count: *mut c_void) -> Status {
    const CALL: &str = "nvEncGetEncodeGUIDs";
    let all = || Codec::all().into_iter().map(Codec::guid).collect::<Vec<_>>();
    of_session(CALL, encoder, Side::Submit, |_| put_list(CALL, list, room, count, &all()))
}

extern "C" fn profile_count(encoder: u64, codec: Guid, count: *mut c_void) -> Status {
    const CALL: &str = "nvEncGetEncodeProfileGUIDCount";
    of_codec(CALL, encoder, codec, |codec| put_count(CALL, count, codec.profiles().len()))
}

extern "C" fn profiles(encoder: u64, codec: Guid, list: *mut c_void, room: u32, count: *mut c_void) -> Status {
    const CALL: &str = "nvEncGetEncodeProfileGUIDs";
    of_codec(CALL, encoder, codec, |codec| {
        let all: Vec<Guid> = codec.profiles().into_iter().map(|(guid, _)| guid).collect();
        put_list(CALL, list, room, count, &all)
    })
}

extern "C" fn format_count(encoder: u64, codec: Guid, count: *mut c_void) -> Status {
    const CALL: &str = "nvEncGetInputFormatCount";
    of_codec(CALL, encoder, codec, |codec| put_count(CALL, count, codec.formats().len()))
}

extern "C" fn formats(encoder: u64, codec: Guid, list: *mut c_void, room: u32, count: *mut c_void) -> Status {
    const CALL: &str = "nvEncGetInputFormats";
    of_codec(CALL, encoder, codec, |codec| {
        let all: Vec<u32> = codec.formats().into_iter().map(card::Format::number).collect();
        put_list(CALL, list, room, count, &all)
    })
}

extern "C" fn get_caps(encoder: u64, codec: Guid, params: *mut c_void, value: *mut c_void) -> Status {
    const CALL: &str = "nvEncGetEncodeCaps";
    of_codec(CALL, encoder, codec, |codec| {
        let given = Given::versioned::<sys::NV_ENC_CAPS_PARAM>(CALL, "NV_ENC_CAPS_PARAM", params, CAPS_PARAM_VER)?;
        let out = Out::new(CALL, "capsVal", value)?;
        let asked = given.u32(offset_of!(sys::NV_ENC_CAPS_PARAM, capsToQuery));
        if asked >= caps::COUNT {
            return refuse(CALL, format_args!("capability {asked}"), INVALID_PARAM);
        }
        let cuda = Cuda::get().and_then(|cuda| cuda.device().ok());
        let engines = cuda.map(|device| card::engines(device) as i32);
        let engines = engines.filter(|_| asked == caps::ENGINES);
        out.put(0, engines.unwrap_or_else(|| codec.cap(asked)));
        Ok(())
    })
}

extern "C" fn preset_count(encoder: u64, codec: Guid, count: *mut c_void) -> Status {
    const CALL: &str = "nvEncGetEncodePresetCount";
    of_codec(CALL, encoder, codec, |_| put_count(CALL, count, PRESETS.len()))
}

extern "C" fn presets(encoder: u64, codec: Guid, list: *mut c_void, room: u32, count: *mut c_void) -> Status {
    const CALL: &str = "nvEncGetEncodePresetGUIDs";
    of_codec(CALL, encoder, codec, |_| put_list(CALL, list, room, count, &PRESETS))
}

/// Drivers of these days answer it no longer.
extern "C" fn preset_config_deprecated(encoder: u64, codec: Guid, _preset: Guid, _config: *mut c_void) -> Status {
    const CALL: &str = "nvEncGetEncodePresetConfig";
    of_codec(CALL, encoder, codec, |_| refuse(CALL, "use the Ex call", UNSUPPORTED_PARAM))
}

extern "C" fn preset_config(encoder: u64, codec: Guid, preset: Guid, tuning: u32, config: *mut c_void) -> Status {
    const CALL: &str = "nvEncGetEncodePresetConfigEx";
    type Preset = sys::NV_ENC_PRESET_CONFIG;
    of_codec(CALL, encoder, codec, |codec| {
        let given = Given::versioned::<Preset>(CALL, "NV_ENC_PRESET_CONFIG", config, PRESET_CONFIG_VER)?;
        let at = offset_of!(Preset, presetCfg);
        given.versioned_part::<sys::NV_ENC_CONFIG>(CALL, "presetCfg", at, CONFIG_VER)?;
        let Some(preset) = PRESETS.iter().position(|known| *known == preset) else {
            return refuse(CALL, "presetGUID is none of P1 to P7", INVALID_PARAM);
        };
        let Some(tuning) = Tuning::find(tuning) else {
            return refuse(CALL, format_args!("tuningInfo {tuning}"), INVALID_PARAM);
        };
        let out = Out::new(CALL, "presetCfg", config.wrapping_byte_add(at))?;
        out.put_bytes(&preset::config(codec, preset, tuning));
        Ok(())
    })
}

extern "C" fn initialise(encoder: u64, params: *mut c_void) -> Status {
    of_session("nvEncInitializeEncoder", encoder, Side::Submit, |session| session.initialise(params))
}

extern "C" fn reconfigure(encoder: u64, params: *mut c_void) -> Status {
    of_session("nvEncReconfigureEncoder", encoder, Side::Submit, |session| session.reconfigure(params))
}

extern "C" fn sequence_params(encoder: u64, payload: *mut c_void) -> Status {
    const CALL: &str = "nvEncGetSequenceParams";
    of_session(CALL, encoder, Side::Submit, |session| session.sequence_params(CALL, None, payload))
}

extern "C" fn sequence_params_ex(encoder: u64, params: *mut c_void, payload: *mut c_void) -> Status {
    const CALL: &str = "nvEncGetSequenceParamEx";
    let instead = Some(params.cast_const());
    of_session(CALL, encoder, Side::Submit, |session| session.sequence_params(CALL, instead, payload))
}

extern "C" fn create_input(encoder: u64, params: *mut c_void) -> Status {
    of_session("nvEncCreateInputBuffer", encoder, Side::Submit, |session| session.create_input(params))
}

extern "C" fn destroy_input(encoder: u64, input: u64) -> Status {
    of_session("nvEncDestroyInputBuffer", encoder, Side::Submit, |session| session.destroy_input(input))
}

extern "C" fn lock_input(encoder: u64, params: *mut c_void) -> Status {
    of_session("nvEncLockInputBuffer", encoder, Side::Submit, |session| session.lock_input(params))
}

extern "C" fn unlock_input(encoder: u64, input: u64) -> Status {
    of_session("nvEncUnlockInputBuffer", encoder, Side::Submit, |session| session.unlock_input(input))
}

extern "C" fn create_output(encoder: u64, params: *mut c_void) -> Status {
    of_session("nvEncCreateBitstreamBuffer", encoder, Side::Submit, |session| session.create_output(params))
}

extern "C" fn destroy_output(encoder: u64, output: u64) -> Status {
    of_session("nvEncDestroyBitstreamBuffer", encoder, Side::Submit, |session| session.destroy_output(output))
}

extern "C" fn register(encoder: u64, params: *mut c_void) -> Status {
    of_session("nvEncRegisterResource", encoder, Side::Submit, |session| session.register(params))
}

extern "C" fn unregister(encoder: u64, registration: u64) -> Status {
    of_session("nvEncUnregisterResource", encoder, Side::Submit, |session| session.unregister(registration))
}

extern "C" fn map(encoder: u64, params: *mut c_void) -> Status {
    of_session("nvEncMapInputResource", encoder, Side::Submit, |session| session.map(params))
}

extern "C" fn unmap(encoder: u64, input: u64) -> Status {
    of_session("nvEncUnmapInputResource", encoder, Side::Either, |session| session.unmap(input))
}

extern "C" fn encode(encoder: u64, params: *mut c_void) -> Status {
    of_session("nvEncEncodePicture", encoder, Side::Submit, |session| session.encode(params))
}

extern "C" fn lock(encoder: u64, params: *mut c_void) -> Status {
    of_session("nvEncLockBitstream", encoder, Side::Output, |session| session.lock(params))
}

extern "C" fn unlock(encoder: u64, output: u64) -> Status {
    of_session("nvEncUnlockBitstream", encoder, Side::Output, |session| session.unlock(output))
}

extern "C" fn destroy(encoder: u64) -> Status {
    let code = of_session("nvEncDestroyEncoder", encoder, Side::Submit, Session::destroy);
    if code == SUCCESS {
        LAST.lock().unwrap_or_else(PoisonError::into_inner).retain(|(of, _)| *of != encoder);
    }
    code
}

/// "Not supported when encode device type is CUDA."
extern "C" fn stats(encoder: u64, _stats: *mut c_void) -> Status {
    const CALL: &str = "nvEncGetEncodeStats";
    of_session(CALL, encoder, Side::Submit, |_| refuse(CALL, "not for CUDA devices", UNSUPPORTED_PARAM))
}

/// "Asynchronous mode is not supported on Linux."
extern "C" fn event(encoder: u64, _params: *mut c_void) -> Status {
    const CALL: &str = "nvEncRegisterAsyncEvent, nvEncUnregisterAsyncEvent";
    of_session(CALL, encoder, Side::Submit, |_| refuse(CALL, "no events on Linux", UNSUPPORTED_PARAM))
}

/// The capability for it is absent.
extern "C" fn invalidate(encoder: u64, _timestamp: u64) -> Status {
    const CALL: &str = "nvEncInvalidateRefFrames";
    of_session(CALL, encoder, Side::Submit, |_| decline(CALL, "not on this card", UNSUPPORTED_PARAM))
}

/// Both are pointers to a stream's handle.
extern "C" fn set_streams(encoder: u64, input: *mut c_void, output: *mut c_void) -> Status {
    const CALL: &str = "nvEncSetIOCudaStreams";
    of_session(CALL, encoder, Side::Submit, |session| {
        // The double's handles are no addresses of a process: a client that passes one is told, not crashed.
        if [input, output].iter().any(|at| at.expose_provenance() >> 47 != 0) {
            return refuse(CALL, "it takes the address of a stream's handle, not the handle", INVALID_PTR);
        }
        number(CALL, "outputStream", output)?;
        number(CALL, "inputStream", input)?;
        session.state().stream = Some(Given::from(crate::abi::bytes(input, 8)).u64(0));
        Ok(())
    })
}

extern "C" fn unimplemented(_encoder: u64) -> Status {
    UNIMPLEMENTED
}

/// The sentence of the session's last refusal; it stays valid.
extern "C" fn last_error(encoder: u64) -> *const c_char {
    let last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    last.iter().find(|(of, _)| *of == encoder).map_or(c"".as_ptr(), |(_, sentence)| sentence.as_ptr())
}

/// A call about one codec.
fn of_codec(call: &str, encoder: u64, codec: Guid, body: impl FnOnce(Codec) -> Answer) -> Status {
    of_session(call, encoder, Side::Submit, |_| match Codec::find(codec) {
        Some(codec) => body(codec),
        None => decline(call, "no such codec", UNSUPPORTED_PARAM),
    })
}

fn put_count(call: &str, at: *mut c_void, count: usize) -> Answer {
    Out::new(call, "the count", at)?.put(0, count as u32);
    Ok(())
}

fn put_list<T: Copy>(call: &str, list: *mut c_void, room: u32, count: *mut c_void, all: &[T]) -> Answer {
    let out = Out::new(call, "the list", list)?;
    let some = &all[..all.len().min(room as usize)];
    some.iter().enumerate().for_each(|(at, one)| out.put(at * size_of::<T>(), *one));
    put_count(call, count, some.len())
}

/// Keeps a sentence for `last_error`, each different one once and for ever.
fn keep(encoder: u64, sentence: String) {
    let sentence = CString::new(sentence).unwrap_or_default();
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    let known = kept.get(sentence.as_c_str()).copied();
    let known = known.unwrap_or_else(|| Box::leak(sentence.into_boxed_c_str()));
    kept.insert(known);
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    last.retain(|(of, _)| *of != encoder);
    last.push((encoder, known));
}

static KEPT: Mutex<BTreeSet<&'static CStr>> = Mutex::new(BTreeSet::new());
static LAST: Mutex<Vec<(u64, &'static CStr)>> = Mutex::new(Vec::new());
