//! The encoder's list of functions, and a session: the handle that all of them take.
#![expect(unsafe_code, reason = "NVENC calls, through a list of function pointers that the driver fills")]

use nvidia_video_codec_sdk::sys::nvEncodeAPI as sys;
use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::marker::PhantomData;
use std::mem::offset_of;
use std::sync::Arc;

use super::raw::Raw;
use super::{Codec, EncodeCaps, config};
use crate::gpu::cuda::Device;
use crate::gpu::error::{Error, Harm, Library};
use crate::gpu::load::{Absent, Driver, Status};
use crate::gpu::watch::Watch;

/// The encoder's interface of this driver.
pub struct Api {
    list: List,
    // Keeps the library in memory.
    _driver: Arc<Driver>,
}

/// The functions that are used, and how they are found in the driver's list.
macro_rules! slots {
    ($($name:ident: fn($($argument:ty),*);)*) => {
        #[expect(non_snake_case, reason = "the driver's own names")]
        pub(super) struct List {
            $(pub(super) $name: unsafe extern "C" fn($($argument),*) -> Status,)*
            /// Words for the last refusal of a session; not every driver has it.
            last_words: Option<unsafe extern "C" fn(*mut c_void) -> *const c_char>,
        }

        impl List {
            fn of(filled: &Raw<sys::NV_ENCODE_API_FUNCTION_LIST>) -> Result<List, &'static str> {
                Ok(List {
                    $($name: {
                        let slot = filled.pointer(offset_of!(sys::NV_ENCODE_API_FUNCTION_LIST, $name));
                        // SAFETY: null or the function that the interface's header declares for this slot.
                        let found = unsafe { std::mem::transmute::<
                            *mut c_void,
                            Option<unsafe extern "C" fn($($argument),*) -> Status>,
                        >(slot) };
                        found.ok_or(stringify!($name))?
                    },)*
                    last_words: {
                        let at = offset_of!(sys::NV_ENCODE_API_FUNCTION_LIST, nvEncGetLastErrorString);
                        // SAFETY: null or the function that the interface's header declares for this slot.
                        unsafe { std::mem::transmute::<
                            *mut c_void,
                            Option<unsafe extern "C" fn(*mut c_void) -> *const c_char>,
                        >(filled.pointer(at)) }
                    },
                })
            }
        }
    };
}

slots! {
    nvEncOpenEncodeSessionEx: fn(*mut sys::NV_ENC_OPEN_ENCODE_SESSION_EX_PARAMS, *mut *mut c_void);
    nvEncGetEncodeGUIDCount: fn(*mut c_void, *mut u32);
    nvEncGetEncodeGUIDs: fn(*mut c_void, *mut sys::GUID, u32, *mut u32);
    nvEncGetEncodeCaps: fn(*mut c_void, sys::GUID, *mut sys::NV_ENC_CAPS_PARAM, *mut c_int);
    nvEncGetEncodePresetConfigEx:
        fn(*mut c_void, sys::GUID, sys::GUID, u32, *mut sys::NV_ENC_PRESET_CONFIG);
    nvEncInitializeEncoder: fn(*mut c_void, *mut sys::NV_ENC_INITIALIZE_PARAMS);
    nvEncCreateBitstreamBuffer: fn(*mut c_void, *mut sys::NV_ENC_CREATE_BITSTREAM_BUFFER);
    nvEncDestroyBitstreamBuffer: fn(*mut c_void, *mut c_void);
    nvEncRegisterResource: fn(*mut c_void, *mut sys::NV_ENC_REGISTER_RESOURCE);
    nvEncUnregisterResource: fn(*mut c_void, *mut c_void);
    nvEncMapInputResource: fn(*mut c_void, *mut sys::NV_ENC_MAP_INPUT_RESOURCE);
    nvEncUnmapInputResource: fn(*mut c_void, *mut c_void);
    nvEncEncodePicture: fn(*mut c_void, *mut sys::NV_ENC_PIC_PARAMS);
    nvEncLockBitstream: fn(*mut c_void, *mut sys::NV_ENC_LOCK_BITSTREAM);
    nvEncUnlockBitstream: fn(*mut c_void, *mut c_void);
    nvEncGetSequenceParams: fn(*mut c_void, *mut sys::NV_ENC_SEQUENCE_PARAM_PAYLOAD);
    nvEncReconfigureEncoder: fn(*mut c_void, *mut sys::NV_ENC_RECONFIGURE_PARAMS);
    nvEncDestroyEncoder: fn(*mut c_void);
}

impl Api {
    /// Asks the driver for its list.
    ///
    /// # Errors
    /// Why there is no encoder's library here; or a driver that refuses, or whose list lacks a function.
    pub fn open(driver: &Arc<Driver>) -> Result<Arc<Api>, Absent> {
        let encode = driver.encode.as_ref().map_err(Clone::clone)?;
        let mut filled = Raw::<sys::NV_ENCODE_API_FUNCTION_LIST>::versioned(sys::NV_ENCODE_API_FUNCTION_LIST_VER);
        // SAFETY: zeroed memory of the list's size, with its version.
        let status = unsafe { (encode.NvEncodeAPICreateInstance)(filled.at().cast()) };
        if status != 0 {
            return Err(Absent::Refuses(Error::new(Library::Encode, status, "NvEncodeAPICreateInstance")));
        }
        let list = List::of(&filled).map_err(|missing| Absent::Broken {
            name: "libnvidia-encode.so.1",
            why: format!("its list has no function {missing}"),
        })?;
        Ok(Arc::new(Api { list, _driver: Arc::clone(driver) }))
    }

    /// What the GPU can do with `codec`; `None`: it does not encode it. Opens a session for as long as it asks.
    ///
    /// # Errors
    /// The driver's; a GPU without an encoder refuses the session.
    pub fn caps(
        self: &Arc<Api>,
        device: &Arc<Device>,
        codec: Codec,
        watch: &Watch,
    ) -> Result<Option<EncodeCaps>, Error> {
        Session::open(self, device, watch)?.caps(codec)
    }

    /// How many sessions open now, up to `up_to`. All are closed again.
    ///
    /// # Errors
    /// A refusal that is not about their number.
    pub fn sessions_available(self: &Arc<Api>, device: &Arc<Device>, up_to: u32, watch: &Watch) -> Result<u32, Error> {
        let mut open = Vec::new();
        for _ in 0..up_to {
            match Session::open(self, device, watch) {
                Ok(session) => open.push(session),
                Err(error) if is_limit(error.code) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(open.len() as u32)
    }
}

/// An encode session. Opened, used and dropped on one thread.
pub(super) struct Session {
    api: Arc<Api>,
    device: Arc<Device>,
    raw: *mut c_void,
    watch: Watch,
    /// The code after which the driver is not called any more.
    gone: Cell<Option<(Library, u32)>>,
    // The driver ties a session to its thread.
    _thread: PhantomData<*mut ()>,
}

impl Session {
    pub(super) fn open(api: &Arc<Api>, device: &Arc<Device>, watch: &Watch) -> Result<Session, Error> {
        const CUDA: u32 = 1;
        type Params = sys::NV_ENC_OPEN_ENCODE_SESSION_EX_PARAMS;
        device.bind()?;
        let mut params = Raw::<Params>::versioned(sys::NV_ENC_OPEN_ENCODE_SESSION_EX_PARAMS_VER);
        params.set_u32(offset_of!(Params, deviceType), CUDA);
        params.set_pointer(offset_of!(Params, device), device.context());
        params.set_u32(offset_of!(Params, apiVersion), sys::NVENCAPI_VERSION);
        let mut raw = std::ptr::null_mut();
        let status = {
            let _busy = watch.enter("nvEncOpenEncodeSessionEx");
            // SAFETY: filled parameters with a live context, and a place for the handle.
            unsafe { (api.list.nvEncOpenEncodeSessionEx)(params.at(), &raw mut raw) }
        };
        let session = Session {
            api: Arc::clone(api),
            device: Arc::clone(device),
            raw,
            watch: watch.clone(),
            gone: Cell::new(None),
            _thread: PhantomData,
        };
        // A refused session that has a handle must be destroyed all the same: it is dropped here.
        session.check(status, "nvEncOpenEncodeSessionEx").map_err(explain)?;
        Ok(session)
    }

    /// What the GPU can do with `codec`; `None`: it does not encode it.
    pub(super) fn caps(&self, codec: Codec) -> Result<Option<EncodeCaps>, Error> {
        use sys::NV_ENC_CAPS as Cap;
        let guid = config::codec_guid(codec);
        if !self.codecs()?.contains(&guid) {
            return Ok(None);
        }
        let ask = |what: Cap| self.cap(guid, what as u32);
        Ok(Some(EncodeCaps {
            width_min: ask(Cap::NV_ENC_CAPS_WIDTH_MIN)?,
            height_min: ask(Cap::NV_ENC_CAPS_HEIGHT_MIN)?,
            width_max: ask(Cap::NV_ENC_CAPS_WIDTH_MAX)?,
            height_max: ask(Cap::NV_ENC_CAPS_HEIGHT_MAX)?,
            bframes_max: ask(Cap::NV_ENC_CAPS_NUM_MAX_BFRAMES)?,
            lookahead: ask(Cap::NV_ENC_CAPS_SUPPORT_LOOKAHEAD)? != 0,
            temporal_aq: ask(Cap::NV_ENC_CAPS_SUPPORT_TEMPORAL_AQ)? != 0,
            ten_bit: ask(Cap::NV_ENC_CAPS_SUPPORT_10BIT_ENCODE)? != 0,
            custom_vbv: ask(Cap::NV_ENC_CAPS_SUPPORT_CUSTOM_VBV_BUF_SIZE)? != 0,
            retune: ask(Cap::NV_ENC_CAPS_SUPPORT_DYN_BITRATE_CHANGE)? != 0,
            // Younger than the rest: a driver may not know it.
            engines: ask(Cap::NV_ENC_CAPS_NUM_ENCODER_ENGINES).unwrap_or(0),
        }))
    }

    pub(super) fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// Whether the driver is still called: not after a code that reaches further than its request.
    pub(super) fn is_gone(&self) -> bool {
        self.gone.get().is_some()
    }

    /// An error of another call on this GPU.
    pub(super) fn note(&self, error: &Error) {
        if error.harm() != Harm::Request {
            self.gone.set(Some((error.library, error.code)));
        }
    }

    /// Makes the call, unless the driver is gone, and says so to who watches.
    pub(super) fn call(
        &self,
        name: &'static str,
        call: impl FnOnce(&List, *mut c_void) -> Status,
    ) -> Result<(), Error> {
        self.ask(name, &[], call).map(|_| ())
    }

    /// The same, where some codes are answers.
    pub(super) fn ask(
        &self,
        name: &'static str,
        answers: &[Status],
        call: impl FnOnce(&List, *mut c_void) -> Status,
    ) -> Result<Status, Error> {
        if let Some((library, code)) = self.gone.get() {
            return Err(Error::new(library, code, format!("{name} after the driver failed")));
        }
        let status = {
            let _busy = self.watch.enter(name);
            call(&self.api.list, self.raw)
        };
        if answers.contains(&status) {
            return Ok(status);
        }
        self.check(status, name).map(|()| status)
    }

    /// Waits for something else of the driver, and says so to who watches.
    pub(super) fn wait(&self, name: &'static str, wait: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
        let waited = {
            let _busy = self.watch.enter(name);
            wait()
        };
        waited.inspect_err(|error| self.note(error))
    }

    fn check(&self, status: Status, name: &'static str) -> Result<(), Error> {
        if status == 0 {
            return Ok(());
        }
        let error = Error::new(Library::Encode, status, name);
        self.note(&error);
        match self.words() {
            Some(words) => Err(error.words(words)),
            None => Err(error),
        }
    }

    /// The driver's words for its last refusal.
    fn words(&self) -> Option<String> {
        let last_words = self.api.list.last_words.filter(|_| !self.raw.is_null() && !self.is_gone())?;
        // SAFETY: a live session.
        let words = unsafe { last_words(self.raw) };
        if words.is_null() {
            return None;
        }
        // SAFETY: a zero-terminated text that lives until the session's next call.
        let words = unsafe { CStr::from_ptr(words) }.to_string_lossy().trim().to_owned();
        (!words.is_empty()).then_some(words)
    }

    fn codecs(&self) -> Result<Vec<sys::GUID>, Error> {
        let mut count = 0;
        self.call("nvEncGetEncodeGUIDCount", |list, raw| {
            // SAFETY: a live session; writes one integer.
            unsafe { (list.nvEncGetEncodeGUIDCount)(raw, &raw mut count) }
        })?;
        let mut codecs = vec![sys::GUID::default(); count.min(64) as usize];
        let (room, mut written) = (codecs.len() as u32, 0);
        self.call("nvEncGetEncodeGUIDs", |list, raw| {
            // SAFETY: a live session; room for as many identifiers as is said.
            unsafe { (list.nvEncGetEncodeGUIDs)(raw, codecs.as_mut_ptr(), room, &raw mut written) }
        })?;
        codecs.truncate(written as usize);
        Ok(codecs)
    }

    fn cap(&self, codec: sys::GUID, what: u32) -> Result<u32, Error> {
        type Params = sys::NV_ENC_CAPS_PARAM;
        let mut params = Raw::<Params>::versioned(sys::NV_ENC_CAPS_PARAM_VER);
        params.set_u32(offset_of!(Params, capsToQuery), what);
        let mut value: c_int = 0;
        self.call("nvEncGetEncodeCaps", |list, raw| {
            // SAFETY: a live session; writes one integer.
            unsafe { (list.nvEncGetEncodeCaps)(raw, codec, params.at(), &raw mut value) }
        })?;
        Ok(u32::try_from(value).unwrap_or(0))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.raw.is_null() || self.is_gone() || self.device.bind().is_err() {
            return;
        }
        let destroyed = self.call("nvEncDestroyEncoder", |list, raw| {
            // SAFETY: owned, destroyed once, on its own thread; what was made in it is gone already.
            unsafe { (list.nvEncDestroyEncoder)(raw) }
        });
        // Nobody is left who could do something about it; the number of open sessions shows it.
        drop(destroyed);
    }
}

const NO_ENCODE_DEVICE: u32 = 1;
const UNSUPPORTED_DEVICE: u32 = 2;
const OUT_OF_MEMORY: u32 = 10;
const INCOMPATIBLE_CLIENT_KEY: u32 = 21;

/// How drivers refuse one session too many.
fn is_limit(code: u32) -> bool {
    matches!(code, OUT_OF_MEMORY | INCOMPATIBLE_CLIENT_KEY)
}

fn explain(error: Error) -> Error {
    match error.code {
        code if is_limit(code) => error.words(
            "this GPU or system allows no more encode sessions: consumer cards share a small number of them among all \
             programs; end another encoder, or use a card without this limit (or its memory is full)",
        ),
        NO_ENCODE_DEVICE | UNSUPPORTED_DEVICE => error.words("this GPU has no encoder"),
        _ => error,
    }
}
