//! The libcuda that is loaded in this process: a real one or its double. All device memory is reached through it.
#![expect(unsafe_code, reason = "symbols of another library")]

use libloading::os::unix::{Library, RTLD_NOW};
use std::ffi::c_void;
use std::sync::{Mutex, PoisonError};

use crate::DOUBLE;
use crate::abi::{self, Status};

/// Do not load: find what is loaded.
const RTLD_NOLOAD: i32 = libc::RTLD_NOLOAD;

#[derive(Clone, Copy)]
pub(crate) struct Cuda {
    ctx_get_current: unsafe extern "C" fn(*mut usize) -> Status,
    ctx_push: unsafe extern "C" fn(usize) -> Status,
    ctx_pop: unsafe extern "C" fn(*mut usize) -> Status,
    mem_alloc: unsafe extern "C" fn(*mut u64, usize) -> Status,
    mem_free: unsafe extern "C" fn(u64) -> Status,
    copy: unsafe extern "C" fn(u64, *const c_void, usize) -> Status,
    copy_async: unsafe extern "C" fn(u64, *const c_void, usize, usize) -> Status,
    aside: Option<unsafe extern "C" fn(i32)>,
}

static LOADED: Mutex<Option<Cuda>> = Mutex::new(None);

impl Cuda {
    /// # Errors
    /// No libcuda.so.1 is to be had, or it lacks a function.
    pub(crate) fn get() -> Result<Cuda, Status> {
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cuda) = *loaded {
            return Ok(cuda);
        }
        let cuda = Cuda::load().ok_or(abi::SHARED_OBJECT_INIT_FAILED)?;
        *loaded = Some(cuda);
        Ok(cuda)
    }

    fn load() -> Option<Cuda> {
        // SAFETY: already loaded: nothing is run.
        let found = unsafe { Library::open(Some("libcuda.so.1"), RTLD_NOLOAD | RTLD_NOW) };
        // SAFETY: the driver's own library (or its double), whose constructors are safe to run.
        let library = found.or_else(|_| unsafe { Library::open(Some("libcuda.so.1"), RTLD_NOW) }).ok()?;
        let cuda = Cuda {
            ctx_get_current: symbol(&library, "cuCtxGetCurrent")?,
            ctx_push: symbol(&library, "cuCtxPushCurrent_v2")?,
            ctx_pop: symbol(&library, "cuCtxPopCurrent_v2")?,
            mem_alloc: symbol(&library, "cuMemAlloc_v2")?,
            mem_free: symbol(&library, "cuMemFree_v2")?,
            copy: symbol(&library, "cuMemcpyHtoD_v2")?,
            copy_async: symbol(&library, "cuMemcpyHtoDAsync_v2")?,
            aside: symbol(&library, "rung_double_aside"),
        };
        // It stays loaded as long as this process: its functions were copied out.
        std::mem::forget(library);
        Some(cuda)
    }

    /// The context that is current on this thread.
    ///
    /// # Errors
    /// INVALID_CONTEXT where there is none, and that is a broken contract of `call`.
    pub(crate) fn current(self, call: &str) -> Result<usize, Status> {
        let mut context = 0;
        // SAFETY: writes one pointer.
        check(unsafe { (self.ctx_get_current)(&raw mut context) })?;
        if context == 0 {
            DOUBLE.broken(&format!("{call}: no context is current on the calling thread"));
            return Err(abi::INVALID_CONTEXT);
        }
        Ok(context)
    }

    pub(crate) fn push(self, context: usize) -> Result<(), Status> {
        // SAFETY: a handle that the caller gave for this; libcuda judges it.
        check(unsafe { (self.ctx_push)(context) })
    }

    pub(crate) fn pop(self) -> Result<(), Status> {
        let mut context = 0;
        // SAFETY: writes one pointer.
        check(unsafe { (self.ctx_pop)(&raw mut context) })
    }

    pub(crate) fn alloc(self, bytes: usize) -> Result<u64, Status> {
        let mut at = 0;
        self.aside(1);
        // SAFETY: writes one device pointer.
        let status = unsafe { (self.mem_alloc)(&raw mut at, bytes) };
        self.aside(-1);
        check(status).map(|()| at)
    }

    pub(crate) fn free(self, at: u64) -> Result<(), Status> {
        self.aside(1);
        // SAFETY: memory from `alloc`, freed once by its owner.
        let status = unsafe { (self.mem_free)(at) };
        self.aside(-1);
        check(status)
    }

    /// Host to device. On the default stream (0) it is done on return, else queued on `stream`; `from` is pageable
    /// memory and was read on return either way.
    pub(crate) fn upload(self, to: u64, from: &[u8], stream: usize) -> Result<(), Status> {
        let at = from.as_ptr().cast();
        self.aside(1);
        let status = if stream == 0 {
            // SAFETY: `from` is readable for its length; `to` has room for it, by who calls this.
            unsafe { (self.copy)(to, at, from.len()) }
        } else {
            // SAFETY: as above; the stream is the caller's.
            unsafe { (self.copy_async)(to, at, from.len(), stream) }
        };
        self.aside(-1);
        check(status)
    }

    /// Tells a double of libcuda that what this thread does now is the driver's doing and not its caller's, so that it
    /// is not counted as such. A real libcuda has no such function.
    fn aside(self, step: i32) {
        if let Some(aside) = self.aside {
            // SAFETY: changes a count of the calling thread.
            unsafe { aside(step) };
        }
    }
}

fn symbol<F: Copy>(library: &Library, name: &str) -> Option<F> {
    // SAFETY: the type is the function's, from cuda.h, by who calls this.
    let symbol = unsafe { library.get::<F>(name.as_bytes()) };
    symbol.ok().map(|symbol| *symbol)
}

fn check(status: Status) -> Result<(), Status> {
    if status == abi::SUCCESS { Ok(()) } else { Err(status) }
}
