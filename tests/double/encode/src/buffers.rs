//! What pictures come from and go to: registered device memory and its mappings, input buffers, bitstream buffers.

use std::ffi::c_void;
use std::mem::offset_of;

use nvidia_video_codec_sdk::sys::nvEncodeAPI as sys;

use crate::DOUBLE;
use crate::abi::{
    Answer, CREATE_BITSTREAM_BUFFER_VER, CREATE_INPUT_BUFFER_VER, Given, INVALID_CALL, INVALID_PARAM,
    LOCK_INPUT_BUFFER_VER, MAP_FAILED, MAP_INPUT_RESOURCE_VER, NOT_MAPPED, NOT_REGISTERED, Out, REGISTER_FAILED,
    REGISTER_RESOURCE_VER, Status, UNSUPPORTED_PARAM, decline, refuse,
};
use crate::card::Format;
use crate::config::Config;
use crate::cuda::{Cuda, Memory};
use crate::session::{Session, State, fault, handle};
use crate::work::{Coded, Surface};

/// Device memory that the session knows.
pub(crate) struct Registered {
    pub(crate) surface: Surface,
    /// The input it is mapped as.
    mapped: Option<u64>,
}

/// A registration as the input of pictures.
pub(crate) struct Mapped {
    registration: u64,
    pub(crate) surface: Surface,
    /// Pictures in flight.
    pub(crate) busy: u32,
    /// Nobody may write there, says the double's libcuda.
    guarded: bool,
}

/// Host memory that pictures are written to by the client.
pub(crate) struct HostBuffer {
    pub(crate) height: u32,
    pub(crate) format: Format,
    pub(crate) pitch: usize,
    pub(crate) bytes: Vec<u8>,
    pub(crate) locked: bool,
}

pub(crate) struct Output {
    pub(crate) used: Use,
}

/// What a bitstream buffer is in.
pub(crate) enum Use {
    Free,
    InFlight,
    /// Until it is unlocked, the client reads the bytes in it.
    Locked(#[expect(dead_code, reason = "it keeps the bytes")] Coded),
}

impl Mapped {
    pub(crate) fn guard(&mut self, surface: &Surface) {
        if let Some(cuda) = Cuda::get().filter(|_| !self.guarded) {
            cuda.lock(surface.address, surface.length());
            self.guarded = true;
        }
    }

    /// No input any more.
    pub(crate) fn release(self) {
        if let Some(cuda) = Cuda::get().filter(|_| self.guarded) {
            cuda.unlock(self.surface.address, self.surface.length());
        }
        DOUBLE.count("live mapped inputs", -1);
    }
}

impl Session {
    pub(crate) fn register(&self, at: *mut c_void) -> Answer {
        const CALL: &str = "nvEncRegisterResource";
        let given = Given::versioned::<sys::NV_ENC_REGISTER_RESOURCE>(
            CALL,
            "NV_ENC_REGISTER_RESOURCE",
            at,
            REGISTER_RESOURCE_VER,
        )?;
        fault("encode.register", &[])?;
        let mut state = self.state();
        let surface = surface(CALL, &given, &state.encoder(CALL)?.config)?;
        if state.registered.values().any(|known| known.surface.address == surface.address) {
            return refuse(CALL, format_args!("{:#x} is registered", surface.address), REGISTER_FAILED);
        }
        fits_memory(CALL, &surface)?;
        let registration = handle();
        state.registered.insert(registration, Registered { surface, mapped: None });
        DOUBLE.count("live registrations", 1);
        let out = Out::new(CALL, "NV_ENC_REGISTER_RESOURCE", at)?;
        out.put(offset_of!(sys::NV_ENC_REGISTER_RESOURCE, registeredResource), registration);
        Ok(())
    }

    pub(crate) fn unregister(&self, registration: u64) -> Answer {
        const CALL: &str = "nvEncUnregisterResource";
        let mut state = self.state();
        match state.registered.get(&registration) {
            None => return refuse(CALL, format_args!("{registration:#x} is no registration"), NOT_REGISTERED),
            Some(Registered { mapped: Some(_), .. }) => {
                return refuse(CALL, format_args!("{registration:#x} is mapped"), INVALID_CALL);
            }
            Some(_) => state.registered.remove(&registration),
        };
        DOUBLE.count("live registrations", -1);
        Ok(())
    }

    pub(crate) fn map(&self, at: *mut c_void) -> Answer {
        const CALL: &str = "nvEncMapInputResource";
        let given = Given::versioned::<sys::NV_ENC_MAP_INPUT_RESOURCE>(
            CALL,
            "NV_ENC_MAP_INPUT_RESOURCE",
            at,
            MAP_INPUT_RESOURCE_VER,
        )?;
        fault("encode.map", &[])?;
        let mut state = self.state();
        state.encoder(CALL)?;
        state.healthy(CALL)?;
        let by_default_stream = state.stream.is_none();
        let registration = given.u64(offset_of!(sys::NV_ENC_MAP_INPUT_RESOURCE, registeredResource));
        let Some(known) = state.registered.get_mut(&registration) else {
            return refuse(CALL, format_args!("{registration:#x} is no registration"), NOT_REGISTERED);
        };
        if known.mapped.is_some() {
            return refuse(CALL, format_args!("{registration:#x} is mapped"), MAP_FAILED);
        }
        let (input, surface) = (handle(), known.surface);
        known.mapped = Some(input);
        let mut mapped = Mapped { registration, surface, busy: 0, guarded: false };
        if by_default_stream {
            // What was submitted to the default stream is complete, whatever is in other streams.
            if let Some(cuda) = Cuda::get() {
                cuda.wait(0).or_else(|code| decline(CALL, format_args!("libcuda says {code}"), MAP_FAILED))?;
            }
            mapped.guard(&surface);
        }
        state.mapped.insert(input, mapped);
        DOUBLE.count("live mapped inputs", 1);
        let out = Out::new(CALL, "NV_ENC_MAP_INPUT_RESOURCE", at)?;
        out.put(offset_of!(sys::NV_ENC_MAP_INPUT_RESOURCE, mappedResource), input);
        out.put(offset_of!(sys::NV_ENC_MAP_INPUT_RESOURCE, mappedBufferFmt), surface.format.number());
        Ok(())
    }

    pub(crate) fn unmap(&self, input: u64) -> Answer {
        const CALL: &str = "nvEncUnmapInputResource";
        let mut state = self.state();
        state.encoder(CALL)?;
        let settled = state.settled();
        match state.mapped.get(&input) {
            None => return refuse(CALL, format_args!("{input:#x} is no mapped input"), NOT_MAPPED),
            Some(mapped) if mapped.busy > 0 && !settled => {
                return refuse(CALL, format_args!("{input:#x} is in flight: lock its output first"), INVALID_CALL);
            }
            Some(_) => {}
        }
        let mapped = state.mapped.remove(&input).expect("it was just there");
        if let Some(known) = state.registered.get_mut(&mapped.registration) {
            known.mapped = None;
        }
        drop(state);
        mapped.release();
        Ok(())
    }

    pub(crate) fn create_input(&self, at: *mut c_void) -> Answer {
        const CALL: &str = "nvEncCreateInputBuffer";
        let given = Given::versioned::<sys::NV_ENC_CREATE_INPUT_BUFFER>(
            CALL,
            "NV_ENC_CREATE_INPUT_BUFFER",
            at,
            CREATE_INPUT_BUFFER_VER,
        )?;
        let mut state = self.state();
        let config = &state.encoder(CALL)?.config;
        let width = given.u32(offset_of!(sys::NV_ENC_CREATE_INPUT_BUFFER, width));
        let height = given.u32(offset_of!(sys::NV_ENC_CREATE_INPUT_BUFFER, height));
        let format = format(CALL, config, given.u32(offset_of!(sys::NV_ENC_CREATE_INPUT_BUFFER, bufferFmt)))?;
        if width < config.width || height < config.height || width > 16_384 || height > 16_384 {
            return refuse(CALL, format_args!("{width}x{height}"), INVALID_PARAM);
        }
        let pitch = (width as usize * format.sample()).next_multiple_of(64);
        let bytes = vec![0; pitch * (height as usize * 3 / 2 + 1)];
        let input = handle();
        state.hosts.insert(input, HostBuffer { height, format, pitch, bytes, locked: false });
        DOUBLE.count("live input buffers", 1);
        let out = Out::new(CALL, "NV_ENC_CREATE_INPUT_BUFFER", at)?;
        out.put(offset_of!(sys::NV_ENC_CREATE_INPUT_BUFFER, inputBuffer), input);
        Ok(())
    }

    pub(crate) fn destroy_input(&self, input: u64) -> Answer {
        const CALL: &str = "nvEncDestroyInputBuffer";
        let mut state = self.state();
        match state.hosts.get(&input) {
            None => return refuse(CALL, format_args!("{input:#x} is no input buffer"), INVALID_PARAM),
            Some(buffer) if buffer.locked => {
                return refuse(CALL, format_args!("{input:#x} is locked"), INVALID_CALL);
            }
            Some(_) => state.hosts.remove(&input),
        };
        DOUBLE.count("live input buffers", -1);
        Ok(())
    }

    /// The picture was copied when it was submitted: there is nothing to wait for.
    pub(crate) fn lock_input(&self, at: *mut c_void) -> Answer {
        const CALL: &str = "nvEncLockInputBuffer";
        let given = Given::versioned::<sys::NV_ENC_LOCK_INPUT_BUFFER>(
            CALL,
            "NV_ENC_LOCK_INPUT_BUFFER",
            at,
            LOCK_INPUT_BUFFER_VER,
        )?;
        let input = given.u64(offset_of!(sys::NV_ENC_LOCK_INPUT_BUFFER, inputBuffer));
        let mut state = self.state();
        let Some(buffer) = state.hosts.get_mut(&input) else {
            return refuse(CALL, format_args!("{input:#x} is no input buffer"), INVALID_PARAM);
        };
        if std::mem::replace(&mut buffer.locked, true) {
            return refuse(CALL, format_args!("{input:#x} is locked"), INVALID_CALL);
        }
        let out = Out::new(CALL, "NV_ENC_LOCK_INPUT_BUFFER", at)?;
        let bytes = buffer.bytes.as_mut_ptr().expose_provenance();
        out.put(offset_of!(sys::NV_ENC_LOCK_INPUT_BUFFER, bufferDataPtr), bytes as u64);
        out.put(offset_of!(sys::NV_ENC_LOCK_INPUT_BUFFER, pitch), buffer.pitch as u32);
        Ok(())
    }

    pub(crate) fn unlock_input(&self, input: u64) -> Answer {
        const CALL: &str = "nvEncUnlockInputBuffer";
        let mut state = self.state();
        let Some(buffer) = state.hosts.get_mut(&input) else {
            return refuse(CALL, format_args!("{input:#x} is no input buffer"), INVALID_PARAM);
        };
        if !std::mem::replace(&mut buffer.locked, false) {
            return refuse(CALL, format_args!("{input:#x} is not locked"), INVALID_CALL);
        }
        Ok(())
    }

    pub(crate) fn create_output(&self, at: *mut c_void) -> Answer {
        const CALL: &str = "nvEncCreateBitstreamBuffer";
        Given::versioned::<sys::NV_ENC_CREATE_BITSTREAM_BUFFER>(
            CALL,
            "NV_ENC_CREATE_BITSTREAM_BUFFER",
            at,
            CREATE_BITSTREAM_BUFFER_VER,
        )?;
        let mut state = self.state();
        state.encoder(CALL)?;
        let output = handle();
        state.outputs.insert(output, Output { used: Use::Free });
        DOUBLE.count("live bitstream buffers", 1);
        let out = Out::new(CALL, "NV_ENC_CREATE_BITSTREAM_BUFFER", at)?;
        out.put(offset_of!(sys::NV_ENC_CREATE_BITSTREAM_BUFFER, bitstreamBuffer), output);
        Ok(())
    }

    pub(crate) fn destroy_output(&self, output: u64) -> Answer {
        const CALL: &str = "nvEncDestroyBitstreamBuffer";
        let mut state = self.state();
        state.encoder(CALL)?;
        let settled = state.settled();
        match state.outputs.get(&output).map(|output| &output.used) {
            None => return refuse(CALL, format_args!("{output:#x} is no bitstream buffer"), INVALID_PARAM),
            Some(Use::Locked(_)) => return refuse(CALL, format_args!("{output:#x} is locked"), INVALID_CALL),
            Some(Use::InFlight) if !settled => {
                return refuse(CALL, format_args!("{output:#x} is in flight: flush first"), INVALID_CALL);
            }
            Some(_) => state.outputs.remove(&output),
        };
        DOUBLE.count("live bitstream buffers", -1);
        Ok(())
    }
}

impl State {
    /// The output at a place was locked, and held that picture. The header counts an input as free once the output that
    /// was given with it is locked, and once the output of its own picture is: with B frames these are two.
    pub(crate) fn input_done(&mut self, place: u64, picture: u64) {
        for number in [place, picture] {
            let input = self.encoder.as_mut().and_then(|encoder| encoder.inputs.remove(&number));
            if let Some(mapped) = input.and_then(|input| self.mapped.get_mut(&input)) {
                mapped.busy -= 1;
            }
        }
    }
}

fn surface(call: &str, given: &Given, config: &Config) -> Result<Surface, Status> {
    let number = |at| given.u32(at);
    let kind = number(offset_of!(sys::NV_ENC_REGISTER_RESOURCE, resourceType));
    let usage = number(offset_of!(sys::NV_ENC_REGISTER_RESOURCE, bufferUsage));
    if kind != 1 || usage != 0 {
        return decline(call, format_args!("resource type {kind} for use {usage} on this card"), UNSUPPORTED_PARAM);
    }
    let format = format(call, config, number(offset_of!(sys::NV_ENC_REGISTER_RESOURCE, bufferFormat)))?;
    let surface = Surface {
        address: given.u64(offset_of!(sys::NV_ENC_REGISTER_RESOURCE, resourceToRegister)),
        pitch: number(offset_of!(sys::NV_ENC_REGISTER_RESOURCE, pitch)) as usize,
        width: number(offset_of!(sys::NV_ENC_REGISTER_RESOURCE, width)) as usize,
        height: number(offset_of!(sys::NV_ENC_REGISTER_RESOURCE, height)) as usize,
        format,
    };
    let Surface { address, pitch, width, height, .. } = surface;
    if number(offset_of!(sys::NV_ENC_REGISTER_RESOURCE, subResourceIndex)) != 0 {
        return refuse(call, "subResourceIndex is not 0", INVALID_PARAM);
    }
    if !pitch.is_multiple_of(4) || pitch < width * format.sample() {
        return refuse(call, format_args!("pitch {pitch} for {width} samples of {format:?}"), INVALID_PARAM);
    }
    if width < config.width as usize || height < config.height as usize || !height.is_multiple_of(2) {
        let wanted = (config.width, config.height);
        return refuse(call, format_args!("{width}x{height} for pictures of {wanted:?}"), INVALID_PARAM);
    }
    if address == 0 {
        return refuse(call, "resourceToRegister is null", INVALID_PARAM);
    }
    Ok(surface)
}

fn fits_memory(call: &str, surface: &Surface) -> Answer {
    let Some(cuda) = Cuda::get() else { return decline(call, "no libcuda", REGISTER_FAILED) };
    let address = surface.address;
    match cuda.memory(address) {
        Memory::None => refuse(call, format_args!("{address:#x} is no device memory"), REGISTER_FAILED),
        Memory::Pool => refuse(call, format_args!("{address:#x} is of cuMemAllocAsync"), REGISTER_FAILED),
        Memory::Device(bytes) if bytes < surface.length() => {
            refuse(call, format_args!("{} bytes at {address:#x}, of {bytes}", surface.length()), REGISTER_FAILED)
        }
        Memory::Device(_) => Ok(()),
    }
}

fn format(call: &str, config: &Config, number: u32) -> Result<Format, Status> {
    let known = Format::find(number).filter(|format| config.codec.formats().contains(format));
    let Some(format) = known else {
        return decline(call, format_args!("format {number:#x} on this card"), UNSUPPORTED_PARAM);
    };
    if (format == Format::TenBit) != config.ten_bit {
        return refuse(call, format_args!("{format:?} for an encoder of another depth"), INVALID_PARAM);
    }
    Ok(format)
}
