//! A client of the raw ABI: the function list by offset, structs as bytes, every status a number.
#![expect(unsafe_code, reason = "function pointers out of libraries")]

use std::collections::VecDeque;
use std::ffi::{CStr, c_char, c_void};
use std::mem::offset_of;
use std::path::Path;
use std::time::Duration;

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
use nvidia_video_codec_sdk::sys::nvEncodeAPI as sys;

/// As the header's macro makes them for API 12.1.
pub(crate) const fn version(of: u32) -> u32 {
    0x7000_0000 | of << 16 | 1 << 24 | 12
}
pub(crate) const fn extended(of: u32) -> u32 {
    version(of) | 0x8000_0000
}

/// As it lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Guid(pub(crate) [u32; 4]);

pub(crate) const H264: Guid = Guid([0x6bc8_2762, 0x4ca4_4e63, 0x501e_85aa, 0xbff6_21f3]);
pub(crate) const HEVC: Guid = Guid([0x790c_dc88, 0x4d7b_4522, 0xa9bd_2594, 0x0376_5f97]);
pub(crate) const AV1: Guid = Guid([0x0a35_2289, 0x4759_0aa7, 0x155d_2d86, 0x54d2_16cd]);
pub(crate) const P4: Guid = Guid([0x90a7_b826, 0x4862_df06, 0x6dcd_d2b9, 0x8186_a073]);
pub(crate) const HIGH: Guid = Guid([0xe7cb_c309, 0x4b89_4f7a, 0x37d5_2aaf, 0x10e3_2bc9]);
pub(crate) const MAIN: Guid = Guid([0x60b5_c1d4, 0x4790_67fe, 0x72c4_d594, 0x6d6e_7b6d]);
pub(crate) const BASELINE: Guid = Guid([0x0727_bcaa, 0x4c83_78c4, 0x3def_2f8c, 0x6a7c_26ff]);
pub(crate) const MAIN10: Guid = Guid([0xfa4d_2b6c, 0x411a_3a5b, 0x3f0a_1880, 0xe59b_3c5e]);

pub(crate) const HEVC_MAIN: Guid = Guid([0xb514_c39a, 0x40fa_b55b, 0x25f1_8f87, 0xecfd_4d3b]);

pub(crate) const NV12: u32 = 1;
pub(crate) const IYUV: u32 = 0x100;
pub(crate) const TEN_BIT: u32 = 0x1_0000;

pub(crate) const FORCE_IDR: u32 = 2;
pub(crate) const HEADERS: u32 = 4;
pub(crate) const EOS: u32 = 8;

pub(crate) const MORE: u32 = 17;

/// A struct of the ABI as bytes.
#[derive(Clone)]
pub(crate) struct Raw(Vec<u64>);

impl Raw {
    pub(crate) fn new<T>(version: u32) -> Raw {
        let mut raw = Raw(vec![0; size_of::<T>().div_ceil(8)]);
        raw.put(0, version);
        raw
    }

    pub(crate) fn at(&mut self) -> *mut c_void {
        self.0.as_mut_ptr().cast()
    }

    pub(crate) fn put(&mut self, at: usize, word: u32) {
        let shift = at % 8 * 8;
        let place = &mut self.0[at / 8];
        *place = *place & !(0xffff_ffff << shift) | u64::from(word) << shift;
    }

    pub(crate) fn get(&self, at: usize) -> u32 {
        (self.0[at / 8] >> (at % 8 * 8)) as u32
    }

    pub(crate) fn put64(&mut self, at: usize, number: u64) {
        assert_eq!(at % 8, 0);
        self.0[at / 8] = number;
    }

    pub(crate) fn get64(&self, at: usize) -> u64 {
        assert_eq!(at % 8, 0);
        self.0[at / 8]
    }

    pub(crate) fn put_guid(&mut self, at: usize, guid: Guid) {
        guid.0.iter().enumerate().for_each(|(n, word)| self.put(at + n * 4, *word));
    }

    pub(crate) fn set_bit(&mut self, at: usize, bit: u32, on: bool) {
        let word = self.get(at) & !(1 << bit) | u32::from(on) << bit;
        self.put(at, word);
    }
}

type Of1 = extern "C" fn(u64) -> u32;
type Of2 = extern "C" fn(u64, *mut c_void) -> u32;
type OfHandle = extern "C" fn(u64, u64) -> u32;
pub(crate) type OfCodec = extern "C" fn(u64, Guid, *mut c_void, *mut c_void) -> u32;
pub(crate) type OfList = extern "C" fn(u64, Guid, *mut c_void, u32, *mut c_void) -> u32;

/// The slots that are called.
#[derive(Clone, Copy)]
pub(crate) struct Api {
    pub(crate) max_version: extern "C" fn(*mut c_void) -> u32,
    pub(crate) create_instance: extern "C" fn(*mut c_void) -> u32,
    pub(crate) open: extern "C" fn(*mut c_void, *mut u64) -> u32,
    pub(crate) guids: extern "C" fn(u64, *mut c_void, u32, *mut c_void) -> u32,
    pub(crate) profiles: OfList,
    pub(crate) formats: OfList,
    pub(crate) presets: OfList,
    pub(crate) caps: OfCodec,
    pub(crate) preset: extern "C" fn(u64, Guid, Guid, u32, *mut c_void) -> u32,
    pub(crate) preset_old: extern "C" fn(u64, Guid, Guid, *mut c_void) -> u32,
    pub(crate) initialise: Of2,
    pub(crate) reconfigure: Of2,
    pub(crate) create_input: Of2,
    pub(crate) destroy_input: OfHandle,
    pub(crate) lock_input: Of2,
    pub(crate) unlock_input: OfHandle,
    pub(crate) create_output: Of2,
    pub(crate) destroy_output: OfHandle,
    pub(crate) register: Of2,
    pub(crate) unregister: OfHandle,
    pub(crate) map: Of2,
    pub(crate) unmap: OfHandle,
    pub(crate) encode: Of2,
    pub(crate) lock: Of2,
    pub(crate) unlock: OfHandle,
    pub(crate) headers: Of2,
    pub(crate) headers_ex: extern "C" fn(u64, *mut c_void, *mut c_void) -> u32,
    pub(crate) stats: Of2,
    pub(crate) event: Of2,
    pub(crate) invalidate: OfHandle,
    pub(crate) streams: extern "C" fn(u64, *mut u64, *mut u64) -> u32,
    pub(crate) last_error: extern "C" fn(u64) -> *const c_char,
    pub(crate) mv_buffer: Of2,
    pub(crate) destroy: Of1,
}

/// libcuda, as far as the tests need it.
#[derive(Clone, Copy)]
pub(crate) struct Cuda {
    init: extern "C" fn(u32) -> u32,
    retain: extern "C" fn(*mut u64, i32) -> u32,
    release: extern "C" fn(i32) -> u32,
    pub(crate) set_current: extern "C" fn(u64) -> u32,
    alloc_pitch: extern "C" fn(*mut u64, *mut usize, usize, usize, u32) -> u32,
    pub(crate) alloc_async: extern "C" fn(*mut u64, usize, u64) -> u32,
    pub(crate) free_async: extern "C" fn(u64, u64) -> u32,
    pub(crate) free: extern "C" fn(u64) -> u32,
    pub(crate) upload: extern "C" fn(u64, *const c_void, usize) -> u32,
    pub(crate) upload_async: extern "C" fn(u64, *const c_void, usize, u64) -> u32,
    pub(crate) stream: extern "C" fn(*mut u64, u32) -> u32,
    pub(crate) destroy_stream: extern "C" fn(u64) -> u32,
}

/// Both libraries, and a context that is current on the thread that loaded them.
#[derive(Clone, Copy)]
pub(crate) struct Card {
    pub(crate) api: Api,
    pub(crate) cuda: Cuda,
    pub(crate) context: u64,
}

impl Card {
    /// The libraries of a driver folder.
    pub(crate) fn load(folder: &Path) -> Card {
        end_after(Duration::from_secs(240));
        let cuda = library(&folder.join("libcuda.so.1"));
        let cuda = Cuda {
            init: symbol(&cuda, "cuInit"),
            retain: symbol(&cuda, "cuDevicePrimaryCtxRetain"),
            release: symbol(&cuda, "cuDevicePrimaryCtxRelease_v2"),
            set_current: symbol(&cuda, "cuCtxSetCurrent"),
            alloc_pitch: symbol(&cuda, "cuMemAllocPitch_v2"),
            alloc_async: symbol(&cuda, "cuMemAllocAsync"),
            free_async: symbol(&cuda, "cuMemFreeAsync"),
            free: symbol(&cuda, "cuMemFree_v2"),
            upload: symbol(&cuda, "cuMemcpyHtoD_v2"),
            upload_async: symbol(&cuda, "cuMemcpyHtoDAsync_v2"),
            stream: symbol(&cuda, "cuStreamCreate"),
            destroy_stream: symbol(&cuda, "cuStreamDestroy_v2"),
        };
        assert_eq!((cuda.init)(0), 0);
        let mut context = 0;
        assert_eq!((cuda.retain)(&raw mut context, 0), 0);
        assert_eq!((cuda.set_current)(context), 0);
        let encode = library(&folder.join("libnvidia-encode.so.1"));
        Card { api: Api::load(&encode), cuda, context }
    }

    /// Device memory for `rows` rows of `width` bytes: address and pitch.
    pub(crate) fn memory(&self, width: usize, rows: usize) -> (u64, usize) {
        let (mut address, mut pitch) = (0, 0);
        assert_eq!((self.cuda.alloc_pitch)(&raw mut address, &raw mut pitch, width, rows, 16), 0);
        (address, pitch)
    }

    /// The status of opening a session, and the session.
    pub(crate) fn open(&self) -> (u32, u64) {
        let mut params = Raw::new::<sys::NV_ENC_OPEN_ENCODE_SESSION_EX_PARAMS>(version(1));
        type P = sys::NV_ENC_OPEN_ENCODE_SESSION_EX_PARAMS;
        params.put(offset_of!(P, deviceType), 1);
        params.put64(offset_of!(P, device), self.context);
        params.put(offset_of!(P, apiVersion), 12 | 1 << 24);
        let mut session = 0;
        ((self.api.open)(params.at(), &raw mut session), session)
    }

    pub(crate) fn close(self) {
        assert_eq!((self.cuda.set_current)(0), 0);
        assert_eq!((self.cuda.release)(0), 0);
    }
}

impl Api {
    fn load(library: &Library) -> Api {
        let create_instance: extern "C" fn(*mut c_void) -> u32 = symbol(library, "NvEncodeAPICreateInstance");
        type L = sys::NV_ENCODE_API_FUNCTION_LIST;
        let mut list = Raw::new::<L>(version(2));
        let code = create_instance(list.at());
        assert!(matches!(code, 0 | 15), "{code}");
        if code == 0 {
            let filled = list.0[1..44].iter().filter(|slot| **slot != 0).count();
            assert_eq!(filled, 42, "every slot is filled but the reserved one");
        }
        macro_rules! slot {
            ($name:ident) => {
                slot(&list, offset_of!(L, $name))
            };
        }
        Api {
            max_version: symbol(library, "NvEncodeAPIGetMaxSupportedVersion"),
            create_instance,
            open: slot!(nvEncOpenEncodeSessionEx),
            guids: slot!(nvEncGetEncodeGUIDs),
            profiles: slot!(nvEncGetEncodeProfileGUIDs),
            formats: slot!(nvEncGetInputFormats),
            presets: slot!(nvEncGetEncodePresetGUIDs),
            caps: slot!(nvEncGetEncodeCaps),
            preset: slot!(nvEncGetEncodePresetConfigEx),
            preset_old: slot!(nvEncGetEncodePresetConfig),
            initialise: slot!(nvEncInitializeEncoder),
            reconfigure: slot!(nvEncReconfigureEncoder),
            create_input: slot!(nvEncCreateInputBuffer),
            destroy_input: slot!(nvEncDestroyInputBuffer),
            lock_input: slot!(nvEncLockInputBuffer),
            unlock_input: slot!(nvEncUnlockInputBuffer),
            create_output: slot!(nvEncCreateBitstreamBuffer),
            destroy_output: slot!(nvEncDestroyBitstreamBuffer),
            register: slot!(nvEncRegisterResource),
            unregister: slot!(nvEncUnregisterResource),
            map: slot!(nvEncMapInputResource),
            unmap: slot!(nvEncUnmapInputResource),
            encode: slot!(nvEncEncodePicture),
            lock: slot!(nvEncLockBitstream),
            unlock: slot!(nvEncUnlockBitstream),
            headers: slot!(nvEncGetSequenceParams),
            headers_ex: slot!(nvEncGetSequenceParamEx),
            stats: slot!(nvEncGetEncodeStats),
            event: slot!(nvEncRegisterAsyncEvent),
            invalidate: slot!(nvEncInvalidateRefFrames),
            streams: slot!(nvEncSetIOCudaStreams),
            last_error: slot!(nvEncGetLastErrorString),
            mv_buffer: slot!(nvEncCreateMVBuffer),
            destroy: slot!(nvEncDestroyEncoder),
        }
    }

    pub(crate) fn sentence(&self, session: u64) -> String {
        let text = (self.last_error)(session);
        // SAFETY: the driver gives a zero-terminated text that stays.
        unsafe { CStr::from_ptr(text) }.to_str().unwrap().to_owned()
    }
}

/// What an encoder is asked for; the rest comes from the preset.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) codec: Guid,
    pub(crate) profile: Option<Guid>,
    pub(crate) size: (u32, u32),
    pub(crate) most: (u32, u32),
    pub(crate) aspect: (u32, u32),
    pub(crate) format: u32,
    pub(crate) rate: u32,
    pub(crate) gop: u32,
    pub(crate) b_frames: u32,
    pub(crate) lookahead: u32,
    pub(crate) repeat: bool,
    pub(crate) level: u32,
    /// Primaries, transfer, matrix; full range.
    pub(crate) colour: Option<([u32; 3], bool)>,
    pub(crate) decides: u32,
    pub(crate) asynchronous: u32,
}

impl Ask {
    pub(crate) fn h264(width: u32, height: u32, rate: u32) -> Ask {
        Ask {
            codec: H264,
            profile: Some(HIGH),
            size: (width, height),
            most: (0, 0),
            aspect: (0, 0),
            format: NV12,
            rate,
            gop: u32::MAX,
            b_frames: 0,
            lookahead: 0,
            repeat: true,
            level: 0,
            colour: None,
            decides: 1,
            asynchronous: 0,
        }
    }

    pub(crate) fn hevc10(width: u32, height: u32, rate: u32) -> Ask {
        Ask { codec: HEVC, profile: Some(MAIN10), format: TEN_BIT, ..Ask::h264(width, height, rate) }
    }

    /// `NV_ENC_CONFIG`, out of the preset's.
    pub(crate) fn config(&self, card: &Card, session: u64) -> Raw {
        type P = sys::NV_ENC_PRESET_CONFIG;
        type C = sys::NV_ENC_CONFIG;
        type R = sys::NV_ENC_RC_PARAMS;
        let mut preset = Raw::new::<P>(extended(4));
        preset.put(offset_of!(P, presetCfg), extended(8));
        assert_eq!((card.api.preset)(session, self.codec, P4, 2, preset.at()), 0);
        let at = offset_of!(P, presetCfg) / 8;
        let mut config = Raw(preset.0[at..at + size_of::<C>() / 8].to_vec());
        if let Some(profile) = self.profile {
            config.put_guid(offset_of!(C, profileGUID), profile);
        }
        config.put(offset_of!(C, gopLength), self.gop);
        config.put(offset_of!(C, frameIntervalP), self.b_frames + 1);
        let rates = offset_of!(C, rcParams);
        config.put(rates + offset_of!(R, rateControlMode), 2);
        config.put(rates + offset_of!(R, averageBitRate), self.rate);
        config.put(rates + offset_of!(R, vbvBufferSize), self.rate / 2);
        config.put(rates + offset_of!(R, vbvInitialDelay), self.rate / 20 * 9);
        config.set_bit(rates + offset_of!(R, _bitfield_1), 5, self.lookahead > 0);
        let depth = rates + offset_of!(R, lookaheadDepth);
        let words = config.get(depth & !3);
        let shift = depth % 4 * 8;
        config.put(depth & !3, words & !(0xffff << shift) | self.lookahead << shift);
        self.of_codec(&mut config);
        config
    }

    fn of_codec(&self, config: &mut Raw) {
        type H = sys::NV_ENC_CONFIG_H264;
        type E = sys::NV_ENC_CONFIG_HEVC;
        type V = sys::NV_ENC_CONFIG_H264_VUI_PARAMETERS;
        let own = offset_of!(sys::NV_ENC_CONFIG, encodeCodecConfig);
        let vui = if self.codec == H264 {
            let flags = own + offset_of!(H, _bitfield_1);
            config.set_bit(flags, 6, true);
            config.set_bit(flags, 12, self.repeat);
            config.put(own + offset_of!(H, idrPeriod), self.gop);
            config.put(own + offset_of!(H, level), self.level);
            own + offset_of!(H, h264VUIParameters)
        } else if self.codec == HEVC {
            let flags = own + offset_of!(E, _bitfield_1);
            config.set_bit(flags, 4, true);
            config.set_bit(flags, 7, self.repeat);
            config.set_bit(flags, 12, self.format == TEN_BIT);
            config.put(own + offset_of!(E, idrPeriod), self.gop);
            config.put(own + offset_of!(E, level), self.level);
            own + offset_of!(E, hevcVUIParameters)
        } else {
            return;
        };
        if let Some((colour, full)) = self.colour {
            config.put(vui + offset_of!(V, videoSignalTypePresentFlag), 1);
            config.put(vui + offset_of!(V, videoFormat), 5);
            config.put(vui + offset_of!(V, videoFullRangeFlag), u32::from(full));
            config.put(vui + offset_of!(V, colourDescriptionPresentFlag), 1);
            config.put(vui + offset_of!(V, colourPrimaries), colour[0]);
            config.put(vui + offset_of!(V, transferCharacteristics), colour[1]);
            config.put(vui + offset_of!(V, colourMatrix), colour[2]);
        }
    }

    /// `NV_ENC_INITIALIZE_PARAMS` that point to `config`.
    pub(crate) fn params(&self, config: &mut Raw) -> Raw {
        type I = sys::NV_ENC_INITIALIZE_PARAMS;
        let mut params = Raw::new::<I>(extended(6));
        params.put_guid(offset_of!(I, encodeGUID), self.codec);
        params.put_guid(offset_of!(I, presetGUID), P4);
        for (at, value) in [
            (offset_of!(I, encodeWidth), self.size.0),
            (offset_of!(I, encodeHeight), self.size.1),
            (offset_of!(I, darWidth), self.aspect.0),
            (offset_of!(I, darHeight), self.aspect.1),
            (offset_of!(I, frameRateNum), 25),
            (offset_of!(I, frameRateDen), 1),
            (offset_of!(I, enablePTD), self.decides),
            (offset_of!(I, enableEncodeAsync), self.asynchronous),
            (offset_of!(I, maxEncodeWidth), self.most.0),
            (offset_of!(I, maxEncodeHeight), self.most.1),
            (offset_of!(I, tuningInfo), 2),
        ] {
            params.put(at, value);
        }
        params.put64(offset_of!(I, encodeConfig), config.at().expose_provenance() as u64);
        params
    }
}

/// A picture as it came out.
#[derive(Clone, Debug)]
pub(crate) struct Taken {
    pub(crate) timestamp: u64,
    pub(crate) index: u32,
    pub(crate) shown: u32,
    /// 0 P, 1 B, 2 I, 3 IDR.
    pub(crate) kind: u32,
    pub(crate) bytes: Vec<u8>,
}

/// A registered surface of the device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Surface {
    pub(crate) address: u64,
    pub(crate) pitch: usize,
    pub(crate) registration: u64,
}

/// A session as a good client has it.
pub(crate) struct Client {
    pub(crate) card: Card,
    pub(crate) session: u64,
    pub(crate) ask: Ask,
    pub(crate) surfaces: Vec<Surface>,
    pub(crate) outputs: Vec<u64>,
    /// Output, mapped input.
    pub(crate) pending: VecDeque<(u64, u64)>,
    pub(crate) taken: Vec<Taken>,
    pub(crate) submitted: usize,
}

impl Client {
    pub(crate) fn start(card: &Card, ask: &Ask) -> Client {
        let (code, session) = card.open();
        assert_eq!(code, 0);
        Client::begin(card, ask, session)
    }

    /// With buffers for the deepest reordering.
    pub(crate) fn begin(card: &Card, ask: &Ask, session: u64) -> Client {
        let mut config = ask.config(card, session);
        let mut params = ask.params(&mut config);
        let code = (card.api.initialise)(session, params.at());
        assert_eq!(code, 0, "{}", card.api.sentence(session));
        let mut client = Client::bare(card, ask, session);
        for _ in 0..ask.b_frames * 2 + ask.lookahead + 4 {
            client.surface();
            let output = client.output();
            client.outputs.push(output);
        }
        client
    }

    /// A session that is initialised, without any buffer.
    pub(crate) fn bare(card: &Card, ask: &Ask, session: u64) -> Client {
        Client {
            card: *card,
            session,
            ask: ask.clone(),
            surfaces: Vec::new(),
            outputs: Vec::new(),
            pending: VecDeque::new(),
            taken: Vec::new(),
            submitted: 0,
        }
    }

    /// The status of registering memory, which is then one of the surfaces.
    pub(crate) fn register(&mut self, address: u64, pitch: usize) -> u32 {
        let mut resource = self.resource(address, pitch);
        let code = (self.card.api.register)(self.session, resource.at());
        if code == 0 {
            let registration = resource.get64(offset_of!(sys::NV_ENC_REGISTER_RESOURCE, registeredResource));
            self.surfaces.push(Surface { address, pitch, registration });
        }
        code
    }

    fn surface(&mut self) {
        let (width, height) = (self.ask.size.0.max(self.ask.most.0), self.ask.size.1.max(self.ask.most.1));
        let sample = if self.ask.format == TEN_BIT { 2 } else { 1 };
        let (address, pitch) = self.card.memory(width as usize * sample, height as usize * 3 / 2);
        assert_eq!(self.register(address, pitch), 0, "{}", self.sentence());
    }

    /// `NV_ENC_REGISTER_RESOURCE` for memory of this session's largest size.
    pub(crate) fn resource(&self, address: u64, pitch: usize) -> Raw {
        type R = sys::NV_ENC_REGISTER_RESOURCE;
        let mut resource = Raw::new::<R>(version(4));
        resource.put(offset_of!(R, resourceType), 1);
        resource.put(offset_of!(R, width), self.ask.size.0.max(self.ask.most.0));
        resource.put(offset_of!(R, height), self.ask.size.1.max(self.ask.most.1));
        resource.put(offset_of!(R, pitch), pitch as u32);
        resource.put64(offset_of!(R, resourceToRegister), address);
        resource.put(offset_of!(R, bufferFormat), self.ask.format);
        resource
    }

    pub(crate) fn output(&self) -> u64 {
        let mut buffer = Raw::new::<sys::NV_ENC_CREATE_BITSTREAM_BUFFER>(version(1));
        assert_eq!((self.card.api.create_output)(self.session, buffer.at()), 0, "{}", self.sentence());
        buffer.get64(offset_of!(sys::NV_ENC_CREATE_BITSTREAM_BUFFER, bitstreamBuffer))
    }

    /// The status, and the mapped input.
    pub(crate) fn map(&self, registration: u64) -> (u32, u64) {
        let mut map = Raw::new::<sys::NV_ENC_MAP_INPUT_RESOURCE>(version(4));
        map.put64(offset_of!(sys::NV_ENC_MAP_INPUT_RESOURCE, registeredResource), registration);
        let code = (self.card.api.map)(self.session, map.at());
        (code, map.get64(offset_of!(sys::NV_ENC_MAP_INPUT_RESOURCE, mappedResource)))
    }

    /// `NV_ENC_PIC_PARAMS` of picture number `n`.
    pub(crate) fn picture(&self, n: usize, input: u64, pitch: usize, output: u64, flags: u32) -> Raw {
        type P = sys::NV_ENC_PIC_PARAMS;
        let mut picture = Raw::new::<P>(extended(6));
        for (at, value) in [
            (offset_of!(P, inputWidth), self.ask.size.0),
            (offset_of!(P, inputHeight), self.ask.size.1),
            (offset_of!(P, inputPitch), pitch as u32),
            (offset_of!(P, encodePicFlags), flags),
            (offset_of!(P, frameIdx), 1_000 + n as u32),
            (offset_of!(P, bufferFmt), self.ask.format),
            (offset_of!(P, pictureStruct), 1),
        ] {
            picture.put(at, value);
        }
        picture.put64(offset_of!(P, inputTimeStamp), n as u64 * 3_600);
        picture.put64(offset_of!(P, inputBuffer), input);
        picture.put64(offset_of!(P, outputBitstream), output);
        picture
    }

    /// Uploads `pixels` (rows of the surface's width) to the next surface and submits them: the status.
    pub(crate) fn submit(&mut self, pixels: &[u8], flags: u32) -> u32 {
        let n = self.submitted;
        let surface = self.surfaces[n % self.surfaces.len()];
        let output = self.outputs[n % self.outputs.len()];
        self.upload(&surface, pixels);
        let (code, input) = self.map(surface.registration);
        assert_eq!(code, 0, "{}", self.sentence());
        let mut picture = self.picture(n, input, surface.pitch, output, flags);
        let code = (self.card.api.encode)(self.session, picture.at());
        if code == 0 || code == MORE {
            self.pending.push_back((output, input));
            self.submitted += 1;
        } else {
            assert_eq!((self.card.api.unmap)(self.session, input), 0);
        }
        code
    }

    /// Luma begins at row 0, chroma at the registered height.
    pub(crate) fn upload(&self, surface: &Surface, pixels: &[u8]) {
        let sample = if self.ask.format == TEN_BIT { 2 } else { 1 };
        let (width, height) = (self.ask.size.0 as usize * sample, self.ask.size.1 as usize);
        let chroma = self.ask.size.1.max(self.ask.most.1) as usize;
        for (y, row) in pixels.chunks_exact(width).enumerate() {
            let y = if y < height { y } else { chroma + y - height };
            let to = surface.address + (y * surface.pitch) as u64;
            assert_eq!((self.card.cuda.upload)(to, row.as_ptr().cast(), row.len()), 0);
        }
    }

    /// Locks outputs in their order until only `keep` are pending.
    pub(crate) fn take(&mut self, keep: usize) {
        while self.pending.len() > keep {
            let (output, input) = self.pending.pop_front().unwrap();
            let code = self.take_one(output);
            assert_eq!(code, 0, "{}", self.sentence());
            assert_eq!((self.card.api.unmap)(self.session, input), 0, "{}", self.sentence());
        }
    }

    pub(crate) fn take_one(&mut self, output: u64) -> u32 {
        let (code, taken) = lock(&self.card, self.session, output, false);
        if let Some(taken) = taken {
            self.taken.push(taken);
            assert_eq!((self.card.api.unlock)(self.session, output), 0, "{}", self.sentence());
        }
        code
    }

    pub(crate) fn flush(&self) -> u32 {
        let mut picture = Raw::new::<sys::NV_ENC_PIC_PARAMS>(extended(6));
        picture.put(offset_of!(sys::NV_ENC_PIC_PARAMS, encodePicFlags), EOS);
        (self.card.api.encode)(self.session, picture.at())
    }

    /// Flushes, takes what is left and gives everything back.
    pub(crate) fn finish(mut self) -> Vec<Taken> {
        assert_eq!(self.flush(), 0, "{}", self.sentence());
        self.take(0);
        self.free();
        self.taken
    }

    /// Gives everything back, whatever was met.
    pub(crate) fn free(&mut self) {
        for (_, input) in self.pending.drain(..) {
            assert_eq!((self.card.api.unmap)(self.session, input), 0, "{}", self.card.api.sentence(self.session));
        }
        for surface in self.surfaces.drain(..) {
            assert_eq!((self.card.api.unregister)(self.session, surface.registration), 0);
            assert_eq!((self.card.cuda.free)(surface.address), 0);
        }
        for output in self.outputs.drain(..) {
            assert_eq!((self.card.api.destroy_output)(self.session, output), 0);
        }
        assert_eq!((self.card.api.destroy)(self.session), 0);
    }

    /// SPS and PPS out of band.
    pub(crate) fn headers(&self) -> Vec<u8> {
        let mut payload = payload();
        assert_eq!((self.card.api.headers)(self.session, payload.0.at()), 0, "{}", self.sentence());
        payload.1[..payload.2[0] as usize].to_vec()
    }

    /// A new rate from the next picture on: the status.
    pub(crate) fn retune(&mut self, rate: u32) -> u32 {
        self.ask.rate = rate;
        let ask = self.ask.clone();
        self.reconfigure(&ask, 0)
    }

    /// `flags`: 1 resetEncoder, 2 forceIDR.
    pub(crate) fn reconfigure(&self, ask: &Ask, flags: u32) -> u32 {
        type R = sys::NV_ENC_RECONFIGURE_PARAMS;
        let mut config = ask.config(&self.card, self.session);
        let params = ask.params(&mut config);
        let mut wanted = Raw::new::<R>(extended(1));
        let at = offset_of!(R, reInitEncodeParams) / 8;
        wanted.0[at..at + params.0.len()].copy_from_slice(&params.0);
        wanted.put(offset_of!(R, _bitfield_1), flags);
        (self.card.api.reconfigure)(self.session, wanted.at())
    }

    pub(crate) fn sentence(&self) -> String {
        self.card.api.sentence(self.session)
    }
}

/// A request for parameter sets, the room for them, and where their size is written.
pub(crate) fn payload() -> (Raw, Vec<u8>, Box<[u32; 1]>) {
    type S = sys::NV_ENC_SEQUENCE_PARAM_PAYLOAD;
    let mut payload = Raw::new::<S>(version(1));
    let mut room = vec![0_u8; 512];
    let mut size = Box::new([0_u32]);
    payload.put(offset_of!(S, inBufferSize), room.len() as u32);
    payload.put64(offset_of!(S, spsppsBuffer), room.as_mut_ptr().expose_provenance() as u64);
    payload.put64(offset_of!(S, outSPSPPSPayloadSize), size.as_mut_ptr().expose_provenance() as u64);
    (payload, room, size)
}

/// Locks an output and copies what it holds.
pub(crate) fn lock(card: &Card, session: u64, output: u64, now: bool) -> (u32, Option<Taken>) {
    type L = sys::NV_ENC_LOCK_BITSTREAM;
    let mut lock = Raw::new::<L>(extended(1));
    lock.put(4, u32::from(now));
    lock.put64(offset_of!(L, outputBitstream), output);
    let code = (card.api.lock)(session, lock.at());
    if code != 0 {
        return (code, None);
    }
    let bytes = std::ptr::with_exposed_provenance::<u8>(lock.get64(offset_of!(L, bitstreamBufferPtr)) as usize);
    let length = lock.get(offset_of!(L, bitstreamSizeInBytes)) as usize;
    // SAFETY: the driver lends so many bytes until the buffer is unlocked.
    let bytes = unsafe { std::slice::from_raw_parts(bytes, length) }.to_vec();
    assert_eq!(lock.get(offset_of!(L, pictureStruct)), 1);
    let taken = Taken {
        timestamp: lock.get64(offset_of!(L, outputTimeStamp)),
        index: lock.get(offset_of!(L, frameIdx)),
        shown: lock.get(offset_of!(L, frameIdxDisplay)),
        kind: lock.get(offset_of!(L, pictureType)),
        bytes,
    };
    (0, Some(taken))
}

/// A call that hangs ends the process, however loaded the machine is.
fn end_after(bound: Duration) {
    std::thread::spawn(move || {
        std::thread::sleep(bound);
        std::process::abort();
    });
}

fn library(path: &Path) -> Library {
    // SAFETY: the double's start code does nothing.
    unsafe { Library::open(Some(path), RTLD_NOW | RTLD_GLOBAL) }.unwrap()
}

fn symbol<F: Copy>(library: &Library, name: &str) -> F {
    // SAFETY: callers name the type that the header gives that function.
    let symbol = unsafe { library.get::<F>(name) }.unwrap();
    *symbol
}

/// A slot of the list; one that was not filled ends the process when it is called.
fn slot<F: Copy>(list: &Raw, at: usize) -> F {
    assert_eq!(size_of::<F>(), 8);
    let address = match list.get64(at) {
        0 => unfilled as *const () as u64,
        address => address,
    };
    // SAFETY: a function's address, of the type that callers name.
    unsafe { std::mem::transmute_copy(&address) }
}

extern "C" fn unfilled() -> u32 {
    panic!("this slot was not filled");
}
