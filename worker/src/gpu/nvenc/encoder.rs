//! One rendition's encoder.
#![expect(unsafe_code, reason = "NVENC calls, and the bytes of a locked bitstream")]

use nvidia_video_codec_sdk::sys::nvEncodeAPI as sys;
use rung::media::grid::Cadence;
use rung::pixels::protocol::OpenRendition;
use std::collections::VecDeque;
use std::ffi::c_void;
use std::mem::offset_of;
use std::sync::Arc;
use std::time::Duration;

use super::api::{Api, Session};
use super::config::{Init, Preset, Settings, unsupported};
use super::raw::{Bits, Raw};
use super::surfaces::{Surface, Surfaces};
use super::{Codec, EncodeCaps, Format};
use crate::gpu::cuda::{Device, Event};
use crate::gpu::error::{Error, Library};
use crate::gpu::watch::Watch;

/// Opened, used and dropped on one thread; its surfaces may be written to from others. After an error it can only be
/// dropped. `pts` counts frames.
pub struct Encoder {
    // First, so that it is destroyed before the surfaces' memory is freed.
    session: Session,
    rendition: String,
    settings: Settings,
    caps: EncodeCaps,
    config: Raw<Preset>,
    headers: Vec<u8>,
    surfaces: Surfaces,
    /// By a surface's place in the pool.
    inputs: Vec<Input>,
    outputs: Vec<*mut c_void>,
    /// Outputs that hold nothing, by their place.
    idle: Vec<usize>,
    /// Outputs that were given to the driver, in that order.
    given: VecDeque<usize>,
    /// How many of those, from the front, the driver has promised to fill.
    promised: usize,
    /// The output whose bytes are being read.
    locked: Option<usize>,
    /// Pictures that the driver has use of.
    inside: Vec<Inside>,
    /// Taken out while `push` needed an output.
    done: VecDeque<Coded>,
    run: Run,
}

/// One coded frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coded {
    pub pts: i64,
    /// An IDR.
    pub sync: bool,
    /// H.264, HEVC: Annex B with delimiter, parameter sets before an IDR. AV1: a temporal unit.
    pub data: Vec<u8>,
}

/// A registered surface.
struct Input {
    registered: *mut c_void,
    /// While `uses` is above 0.
    mapped: *mut c_void,
    format: u32,
    uses: usize,
}

/// The driver is done with a picture when it has come out and when the output that was given with it has been read. With
/// B-frames these are two frames.
struct Inside {
    pts: i64,
    idr: bool,
    surface: Surface,
    output: Option<usize>,
    came_out: bool,
}

/// A stretch of frames that refer to each other.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Run {
    /// The next frame opens one.
    None,
    Open,
    /// Everything inside comes out, nothing more belongs to it.
    Ended,
}

/// Outputs beyond what the encoder holds back: the interface's header asks for four.
const OUTPUTS: usize = 4;
const IDR_AND_HEADERS: u32 = 2 | 4;
const END: u32 = 8;
const NEED_MORE_INPUT: u32 = 17;
const ENCODER_BUSY: u32 = 18;

impl Encoder {
    /// Opens a session and sets it up for `rendition`. `surfaces` inputs can be in other hands at once; as many more are
    /// made as the encoder holds back.
    ///
    /// # Errors
    /// No session is to be had, the card does not encode this, or the driver refuses; nothing is left behind.
    pub fn open(
        api: &Arc<Api>,
        device: &Arc<Device>,
        rendition: &OpenRendition,
        format: Format,
        cadence: Cadence,
        surfaces: usize,
        watch: &Watch,
    ) -> Result<Encoder, Error> {
        assert!((1..=64).contains(&surfaces), "some surfaces, and not without bound");
        let opened = Encoder::start(api, device, rendition, format, cadence, surfaces, watch);
        opened.map_err(|error| error.while_doing(&format!("rendition {}", rendition.name)))
    }

    fn start(
        api: &Arc<Api>,
        device: &Arc<Device>,
        rendition: &OpenRendition,
        format: Format,
        cadence: Cadence,
        surfaces: usize,
        watch: &Watch,
    ) -> Result<Encoder, Error> {
        let session = Session::open(api, device, watch)?;
        let codec = format.codec.name();
        let caps = session.caps(format.codec)?.ok_or_else(|| unsupported(format!("{codec} on this GPU")))?;
        let settings = Settings::of(rendition, format, cadence, &caps)?;
        let config = configure(&session, &settings)?;
        let count = surfaces + settings.held_back();
        let pool = Surfaces::new(device, (settings.width, settings.height), format.depth, count)?;
        let mut encoder = Encoder {
            session,
            rendition: rendition.name.clone(),
            settings,
            caps,
            config,
            headers: Vec::new(),
            surfaces: pool,
            inputs: Vec::new(),
            outputs: Vec::new(),
            idle: Vec::new(),
            given: VecDeque::new(),
            locked: None,
            promised: 0,
            inside: Vec::new(),
            done: VecDeque::new(),
            run: Run::None,
        };
        encoder.initialize()?;
        for index in 0..count {
            encoder.register(index)?;
        }
        for _ in 0..encoder.settings.held_back() + surfaces.max(OUTPUTS) {
            encoder.create_output()?;
        }
        if format.codec != Codec::Av1 {
            encoder.headers = encoder.parameter_sets()?;
        }
        Ok(encoder)
    }

    /// What it is set to.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The pool that its input comes from.
    pub fn inputs(&self) -> &Surfaces {
        &self.surfaces
    }

    /// The parameter sets, in Annex B; nothing for AV1, whose key frames bring their sequence header. The same for the same
    /// settings.
    pub fn headers(&self) -> &[u8] {
        &self.headers
    }

    /// Frames inside: pushed, and not pulled yet.
    pub fn inflight(&self) -> usize {
        self.given.len() + self.done.len()
    }

    /// Encodes `surface` as frame `pts` once `ready` has happened: when it is written. The first frame of a run is an IDR
    /// whether asked for or not. A surface may be pushed again, also while it is inside. Where the driver has no room the
    /// oldest frame is waited for.
    ///
    /// # Errors
    /// The driver's, also for what ran before `ready`.
    pub fn push(&mut self, surface: &Surface, pts: i64, idr: bool, ready: &Event) -> Result<(), Error> {
        assert!(self.surfaces.owns(surface), "a surface is pushed to the encoder that it was taken from");
        self.give(surface, pts, idr, ready).map_err(|error| self.doing(error, pts))
    }

    /// The next frame in decode order, but leaves the `keep` youngest inside. Waits until it is coded. `None`: the encoder
    /// has too few to let one out. `keep` 0 is the least delay; 1 lets the driver work on one frame while the thread is
    /// elsewhere.
    ///
    /// # Errors
    /// The driver's; a frame that was asked to be an IDR and is none.
    pub fn pull(&mut self, keep: usize) -> Result<Option<Coded>, Error> {
        if let Some(coded) = self.done.pop_front() {
            return Ok(Some(coded));
        }
        let keep = if self.run == Run::Ended { 0 } else { keep + self.settings.held_back() };
        if self.promised == 0 || self.given.len() <= keep {
            return Ok(None);
        }
        let oldest = self.oldest();
        self.take().map(Some).map_err(|error| self.doing(error, oldest))
    }

    /// A gap follows, or the end: everything inside can be pulled. What is pushed afterwards starts a new run.
    ///
    /// # Errors
    /// The driver's.
    pub fn drain(&mut self) -> Result<(), Error> {
        if self.run != Run::Open {
            return Ok(());
        }
        let mut picture = Raw::<sys::NV_ENC_PIC_PARAMS>::versioned(sys::NV_ENC_PIC_PARAMS_VER);
        picture.set_u32(offset_of!(sys::NV_ENC_PIC_PARAMS, encodePicFlags), END);
        self.encode(&mut picture).map_err(|error| self.doing(error, self.oldest()))?;
        self.promised = self.given.len();
        self.run = Run::Ended;
        Ok(())
    }

    /// A new cap in bits per second from the next frame on: no IDR, no gap, the same parameter sets.
    ///
    /// # Errors
    /// The card can not, or the driver refuses; the rate stays as it was.
    pub fn retune(&mut self, bitrate: u64) -> Result<(), Error> {
        let before = self.settings.bitrate;
        self.settings.bitrate = u32::try_from(bitrate).unwrap_or(u32::MAX);
        let done = self.reconfigure();
        if done.is_err() {
            self.settings.bitrate = before;
            self.settings.write_rate(&mut self.config);
        }
        done.map_err(|error| error.while_doing(&format!("rendition {} to {bitrate} b/s", self.rendition)))
    }

    fn reconfigure(&mut self) -> Result<(), Error> {
        type Params = sys::NV_ENC_RECONFIGURE_PARAMS;
        if !self.caps.retune {
            return Err(unsupported("another rate for a running session"));
        }
        self.settings.write_rate(&mut self.config);
        let mut params = Raw::<Params>::versioned(sys::NV_ENC_RECONFIGURE_PARAMS_VER);
        let init = self.init();
        // Neither `resetEncoder` nor `forceIDR`.
        params.set_struct(offset_of!(Params, reInitEncodeParams), &init);
        self.session.call("nvEncReconfigureEncoder", |list, raw| {
            // SAFETY: a live session; the configuration that the parameters point to is this encoder's.
            unsafe { (list.nvEncReconfigureEncoder)(raw, params.at()) }
        })
    }

    fn init(&mut self) -> Raw<Init> {
        let mut init = Raw::zeroed();
        self.settings.write_init(&mut init, self.config.address(offset_of!(Preset, presetCfg)));
        init
    }

    fn initialize(&mut self) -> Result<(), Error> {
        let mut init = self.init();
        let refused = format!("{}", self.settings);
        let done = self.session.call("nvEncInitializeEncoder", |list, raw| {
            // SAFETY: a live session; the configuration that the parameters point to is this encoder's.
            unsafe { (list.nvEncInitializeEncoder)(raw, init.at()) }
        });
        done.map_err(|error| error.while_doing(&refused))
    }

    fn register(&mut self, index: usize) -> Result<(), Error> {
        type Params = sys::NV_ENC_REGISTER_RESOURCE;
        const CUDA_ADDRESS: u32 = 1;
        let block = &self.surfaces.blocks()[index];
        let mut params = Raw::<Params>::versioned(sys::NV_ENC_REGISTER_RESOURCE_VER);
        params.set_u32(offset_of!(Params, resourceType), CUDA_ADDRESS);
        params.set_u32(offset_of!(Params, width), self.settings.width);
        params.set_u32(offset_of!(Params, height), self.settings.height);
        params.set_u32(offset_of!(Params, pitch), block.pitch() as u32);
        params.set_u64(offset_of!(Params, resourceToRegister), block.address());
        params.set_u32(offset_of!(Params, bufferFormat), self.settings.buffer_format());
        self.session.call("nvEncRegisterResource", |list, raw| {
            // SAFETY: a live session; device memory of this size, which the pool keeps until after it is unregistered.
            unsafe { (list.nvEncRegisterResource)(raw, params.at()) }
        })?;
        let registered = params.pointer(offset_of!(Params, registeredResource));
        self.inputs.push(Input { registered, mapped: std::ptr::null_mut(), format: 0, uses: 0 });
        Ok(())
    }

    fn create_output(&mut self) -> Result<(), Error> {
        type Params = sys::NV_ENC_CREATE_BITSTREAM_BUFFER;
        let mut params = Raw::<Params>::versioned(sys::NV_ENC_CREATE_BITSTREAM_BUFFER_VER);
        self.session.call("nvEncCreateBitstreamBuffer", |list, raw| {
            // SAFETY: a live, initialised session.
            unsafe { (list.nvEncCreateBitstreamBuffer)(raw, params.at()) }
        })?;
        self.idle.push(self.outputs.len());
        self.outputs.push(params.pointer(offset_of!(Params, bitstreamBuffer)));
        Ok(())
    }

    fn parameter_sets(&self) -> Result<Vec<u8>, Error> {
        type Params = sys::NV_ENC_SEQUENCE_PARAM_PAYLOAD;
        const ROOM: usize = 1024;
        let (mut bytes, mut len) = (vec![0; ROOM], 0_u32);
        let mut params = Raw::<Params>::versioned(sys::NV_ENC_SEQUENCE_PARAM_PAYLOAD_VER);
        params.set_u32(offset_of!(Params, inBufferSize), ROOM as u32);
        params.set_pointer(offset_of!(Params, spsppsBuffer), bytes.as_mut_ptr());
        params.set_pointer(offset_of!(Params, outSPSPPSPayloadSize), &raw mut len);
        self.session.call("nvEncGetSequenceParams", |list, raw| {
            // SAFETY: a live, initialised session; room of the size that is said, and a place for the length.
            unsafe { (list.nvEncGetSequenceParams)(raw, params.at()) }
        })?;
        bytes.truncate(len as usize);
        Ok(bytes)
    }

    fn give(&mut self, surface: &Surface, pts: i64, idr: bool, ready: &Event) -> Result<(), Error> {
        self.session.wait("cuEventSynchronize", || ready.wait())?;
        while self.run == Run::Ended && !self.given.is_empty() || self.idle.is_empty() {
            if self.promised == 0 {
                let held = self.given.len();
                return Err(Error::new(Library::Encode, NEED_MORE_INPUT, format!("the driver keeps {held} frames")));
            }
            let coded = self.take()?;
            self.done.push_back(coded);
        }
        let idr = idr || self.run != Run::Open;
        self.map(surface.index())?;
        let output = *self.idle.last().expect("the loop left one");
        let mut picture = self.picture(surface, output, pts, idr);
        let filled = self.encode(&mut picture);
        let filled = match filled {
            Ok(filled) => filled,
            Err(error) => {
                // The first refusal is the one to tell.
                drop(self.unmap(surface.index()));
                return Err(error);
            }
        };
        self.run = Run::Open;
        self.idle.pop();
        self.given.push_back(output);
        let surface = surface.clone();
        self.inside.push(Inside { pts, idr, surface, output: Some(output), came_out: false });
        if filled {
            // What the driver still looks ahead at it has not coded.
            self.promised = self.promised.max(self.given.len().saturating_sub(self.settings.lookahead as usize));
        }
        Ok(())
    }

    fn picture(&self, surface: &Surface, output: usize, pts: i64, idr: bool) -> Raw<sys::NV_ENC_PIC_PARAMS> {
        type Params = sys::NV_ENC_PIC_PARAMS;
        const FRAME: u32 = 1;
        let input = &self.inputs[surface.index()];
        let mut picture = Raw::<Params>::versioned(sys::NV_ENC_PIC_PARAMS_VER);
        picture.set_u32(offset_of!(Params, inputWidth), surface.width());
        picture.set_u32(offset_of!(Params, inputHeight), surface.height());
        picture.set_u32(offset_of!(Params, inputPitch), surface.pitch() as u32);
        picture.set_u32(offset_of!(Params, encodePicFlags), if idr { IDR_AND_HEADERS } else { 0 });
        picture.set_u64(offset_of!(Params, inputTimeStamp), pts.cast_unsigned());
        picture.set_u64(offset_of!(Params, inputDuration), 1);
        picture.set_pointer(offset_of!(Params, inputBuffer), input.mapped);
        picture.set_pointer(offset_of!(Params, outputBitstream), self.outputs[output]);
        picture.set_u32(offset_of!(Params, bufferFmt), input.format);
        picture.set_u32(offset_of!(Params, pictureStruct), FRAME);
        picture
    }

    /// True: the driver promises output; false: it needs more pictures first.
    fn encode(&mut self, picture: &mut Raw<sys::NV_ENC_PIC_PARAMS>) -> Result<bool, Error> {
        /// A tenth of a second in all.
        const TRIES: u32 = 25;
        const PAUSE: Duration = Duration::from_millis(4);
        for _ in 0..TRIES {
            let answers = &[NEED_MORE_INPUT, ENCODER_BUSY];
            let status = self.session.ask("nvEncEncodePicture", answers, |list, raw| {
                // SAFETY: a live, initialised session; a mapped input and an idle output of it, or the end without any.
                unsafe { (list.nvEncEncodePicture)(raw, picture.at()) }
            })?;
            if status != ENCODER_BUSY {
                return Ok(status != NEED_MORE_INPUT);
            }
            // The header: try again a few milliseconds later. Nothing tells when.
            std::thread::park_timeout(PAUSE);
        }
        Err(Error::new(Library::Encode, ENCODER_BUSY, "nvEncEncodePicture"))
    }

    /// Waits for the oldest frame, copies it out and gives its output and its surface back.
    fn take(&mut self) -> Result<Coded, Error> {
        type Params = sys::NV_ENC_LOCK_BITSTREAM;
        const IDR: u32 = 3;
        let output = *self.given.front().expect("who takes has looked");
        let mut locked = Raw::<Params>::versioned(sys::NV_ENC_LOCK_BITSTREAM_VER);
        locked.set_bits(offset_of!(Params, _bitfield_1), Bits(0, 1), 0); // doNotWait
        locked.set_pointer(offset_of!(Params, outputBitstream), self.outputs[output]);
        self.session.call("nvEncLockBitstream", |list, raw| {
            // SAFETY: a live session; an output of it that the driver promised to fill.
            unsafe { (list.nvEncLockBitstream)(raw, locked.at()) }
        })?;
        let pts = locked.u64(offset_of!(Params, outputTimeStamp)).cast_signed();
        let sync = locked.u32(offset_of!(Params, pictureType)) == IDR;
        self.locked = Some(output);
        self.given.pop_front();
        self.promised -= 1;
        let data = copy(&locked);
        self.unlock()?;
        let place = self.inside.iter().position(|inside| inside.pts == pts && !inside.came_out);
        let Some(inside) = place.map(|place| &mut self.inside[place]) else {
            return Err(unsupported(format!("the driver gave frame {pts}, which it does not have")));
        };
        inside.came_out = true;
        let idr = inside.idr;
        self.release(output)?;
        if data.is_empty() || idr && !sync {
            let wrong = if data.is_empty() { "is empty" } else { "was asked to be an IDR and is none" };
            return Err(unsupported(format!("frame {pts} {wrong}")));
        }
        Ok(Coded { pts, sync, data })
    }

    /// `output` has been read: gives back the surfaces that the driver is done with.
    fn release(&mut self, output: usize) -> Result<(), Error> {
        let read = self.inside.iter_mut().find(|inside| inside.output == Some(output));
        read.expect("an output is given with a picture").output = None;
        while let Some(done) = self.inside.iter().position(|inside| inside.came_out && inside.output.is_none()) {
            let inside = self.inside.remove(done);
            self.unmap(inside.surface.index())?;
        }
        Ok(())
    }

    /// Gives the locked output back, if there is one.
    fn unlock(&mut self) -> Result<(), Error> {
        let Some(output) = self.locked else { return Ok(()) };
        let at = self.outputs[output];
        self.session.call("nvEncUnlockBitstream", |list, raw| {
            // SAFETY: a live session; an output of it that is locked, and nothing of it is borrowed any more.
            unsafe { (list.nvEncUnlockBitstream)(raw, at) }
        })?;
        self.locked = None;
        self.idle.push(output);
        Ok(())
    }

    /// Counts a use of a surface; the first one maps it.
    fn map(&mut self, index: usize) -> Result<(), Error> {
        type Params = sys::NV_ENC_MAP_INPUT_RESOURCE;
        let input = &mut self.inputs[index];
        if input.uses == 0 {
            let mut params = Raw::<Params>::versioned(sys::NV_ENC_MAP_INPUT_RESOURCE_VER);
            params.set_pointer(offset_of!(Params, registeredResource), input.registered);
            self.session.call("nvEncMapInputResource", |list, raw| {
                // SAFETY: a live session; a registered and unmapped resource of it.
                unsafe { (list.nvEncMapInputResource)(raw, params.at()) }
            })?;
            input.mapped = params.pointer(offset_of!(Params, mappedResource));
            input.format = params.u32(offset_of!(Params, mappedBufferFmt));
        }
        input.uses += 1;
        Ok(())
    }

    /// Counts a use less; the last one unmaps it.
    fn unmap(&mut self, index: usize) -> Result<(), Error> {
        let input = &mut self.inputs[index];
        input.uses -= 1;
        if input.uses == 0 { input.unmap(&self.session) } else { Ok(()) }
    }

    fn oldest(&self) -> i64 {
        self.inside.iter().find(|inside| !inside.came_out).map_or(0, |inside| inside.pts)
    }

    fn doing(&self, error: Error, pts: i64) -> Error {
        error.while_doing(&format!("rendition {}, frame {pts}", self.rendition))
    }

    /// Everything back to the driver, as far as it takes it. A call after one that ended the driver is none.
    fn give_all_back(&mut self) {
        drop(self.drain());
        drop(self.unlock());
        while self.promised > 0 && self.take().is_ok() {}
        for mut input in std::mem::take(&mut self.inputs) {
            drop(input.unmap(&self.session));
            drop(self.session.call("nvEncUnregisterResource", |list, raw| {
                // SAFETY: a live session; registered in it, unmapped above, unregistered once.
                unsafe { (list.nvEncUnregisterResource)(raw, input.registered) }
            }));
        }
        for output in std::mem::take(&mut self.outputs) {
            drop(self.session.call("nvEncDestroyBitstreamBuffer", |list, raw| {
                // SAFETY: a live session; made in it, not locked, destroyed once.
                unsafe { (list.nvEncDestroyBitstreamBuffer)(raw, output) }
            }));
        }
    }
}

impl Drop for Encoder {
    fn drop(&mut self) {
        self.surfaces.close();
        if !self.session.is_gone() && self.session.device().bind().is_ok() {
            self.give_all_back();
        }
        if self.session.is_gone() {
            // What the driver may still read is not freed: the process ends, and that frees it.
            std::mem::forget(self.surfaces.clone());
        }
    }
}

/// The preset's configuration, with ours over it.
fn configure(session: &Session, settings: &Settings) -> Result<Raw<Preset>, Error> {
    let mut config = Raw::<Preset>::versioned(sys::NV_ENC_PRESET_CONFIG_VER);
    config.set_u32(offset_of!(Preset, presetCfg), sys::NV_ENC_CONFIG_VER);
    let (codec, preset, tuning) = (settings.codec_guid(), settings.preset_guid(), settings.tuning());
    session.call("nvEncGetEncodePresetConfigEx", |list, raw| {
        // SAFETY: a live session; memory of the struct's size, with its versions.
        unsafe { (list.nvEncGetEncodePresetConfigEx)(raw, codec, preset, tuning, config.at()) }
    })?;
    settings.write_config(&mut config);
    Ok(config)
}

impl Input {
    /// If it is mapped.
    fn unmap(&mut self, session: &Session) -> Result<(), Error> {
        if self.mapped.is_null() {
            return Ok(());
        }
        session.call("nvEncUnmapInputResource", |list, raw| {
            // SAFETY: a live session; mapped in it, and nothing inside uses it, or the session ends.
            unsafe { (list.nvEncUnmapInputResource)(raw, self.mapped) }
        })?;
        self.mapped = std::ptr::null_mut();
        Ok(())
    }
}

/// The bytes of a locked output.
fn copy(locked: &Raw<sys::NV_ENC_LOCK_BITSTREAM>) -> Vec<u8> {
    let at = locked.pointer(offset_of!(sys::NV_ENC_LOCK_BITSTREAM, bitstreamBufferPtr)).cast::<u8>();
    let len = locked.u32(offset_of!(sys::NV_ENC_LOCK_BITSTREAM, bitstreamSizeInBytes)) as usize;
    if at.is_null() || len == 0 {
        return Vec::new();
    }
    // SAFETY: the driver keeps so many bytes there until the output is unlocked.
    unsafe { std::slice::from_raw_parts(at, len) }.to_vec()
}
