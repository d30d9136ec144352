//! What only benches ask of libcuda: plain copies on the card, attributes, and bytes of memory that the decoder owns.
#![expect(unsafe_code, reason = "libcuda calls that the product has no use for")]

use libloading::Library;
use rung_worker::gpu::cuda::{Argument, Device, Stream};
use rung_worker::gpu::load::Status;
use std::ffi::{c_int, c_void};
use std::path::Path;

use crate::report::Trouble;

/// Functions of the libcuda that the product has loaded already.
pub(crate) struct Raw {
    library: Library,
}

/// `CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT`.
pub(crate) const PROCESSORS: c_int = 16;
/// `CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE`, bytes.
pub(crate) const CACHE: c_int = 38;

impl Raw {
    /// # Errors
    /// It can not be loaded, though the product did.
    pub(crate) fn open(folder: Option<&Path>) -> Result<Raw, Trouble> {
        let name = folder.map_or_else(|| "libcuda.so.1".into(), |folder| folder.join("libcuda.so.1"));
        // SAFETY: loaded already by whoever opened the driver: nothing of it runs anew.
        let library = unsafe { Library::new(name) }.map_err(|error| Trouble::Fail(format!("libcuda: {error}")))?;
        Ok(Raw { library })
    }

    /// Whether this is the driver's double of Rung's tests.
    pub(crate) fn is_double(&self) -> bool {
        // SAFETY: looked at, never called.
        unsafe { self.library.get::<unsafe extern "C" fn()>(b"rung_double_aside\0") }.is_ok()
    }

    /// An attribute of GPU `ordinal`; 0 where the driver does not tell.
    pub(crate) fn attribute(&self, ordinal: c_int, attribute: c_int) -> usize {
        type Ask = unsafe extern "C" fn(*mut c_int, c_int, c_int) -> Status;
        let mut value = 0;
        // SAFETY: the signature of cuda.h.
        let Ok(ask) = (unsafe { self.library.get::<Ask>(b"cuDeviceGetAttribute\0") }) else { return 0 };
        // SAFETY: writes one integer; an ordinal is a device of its own [cuDeviceGet].
        if unsafe { ask(&raw mut value, attribute, ordinal) } == 0 { usize::try_from(value).unwrap_or(0) } else { 0 }
    }

    /// Queues a copy of `bytes` bytes within the card's memory.
    ///
    /// # Errors
    /// The driver's.
    pub(crate) fn copy(&self, stream: &Stream, to: u64, from: u64, bytes: usize) -> Result<(), Trouble> {
        type Copy = unsafe extern "C" fn(u64, u64, usize, *mut c_void) -> Status;
        // SAFETY: the signature of cuda.h.
        let copy = unsafe { self.library.get::<Copy>(b"cuMemcpyDtoDAsync_v2\0") };
        let copy = copy.map_err(|error| Trouble::Fail(error.to_string()))?;
        // SAFETY: device addresses, which the driver judges; no memory of this process.
        let status = unsafe { copy(to, from, bytes, stream.raw()) };
        Ok(stream.device().check(status, "cuMemcpyDtoDAsync")?)
    }

    /// Bytes at a device address, which nothing writes to meanwhile.
    ///
    /// # Errors
    /// The driver's.
    pub(crate) fn read(&self, device: &Device, from: u64, bytes: usize) -> Result<Vec<u8>, Trouble> {
        type Copy = unsafe extern "C" fn(*mut c_void, u64, usize) -> Status;
        let mut to = vec![0; bytes];
        // SAFETY: the signature of cuda.h.
        let copy = unsafe { self.library.get::<Copy>(b"cuMemcpyDtoH_v2\0") };
        let copy = copy.map_err(|error| Trouble::Fail(error.to_string()))?;
        // SAFETY: as many bytes as `to` holds; the driver judges the device address.
        let status = unsafe { copy(to.as_mut_ptr().cast(), from, bytes) };
        device.check(status, "cuMemcpyDtoH")?;
        Ok(to)
    }
}

/// A kernel that only copies, 16 bytes a thread: what no kernel that reads and writes as much can beat.
pub(crate) const COPY_PTX: &str = include_str!("copy.ptx");
pub(crate) const COPY_KERNEL: &str = "rung_plain_copy";

/// Its parameter: device addresses, and how often 16 bytes.
#[repr(C)]
pub(crate) struct CopyArguments {
    pub(crate) to: u64,
    pub(crate) from: u64,
    pub(crate) count: u64,
}

// SAFETY: as the PTX declares it: three numbers of 64 bit, device addresses only.
unsafe impl Argument for CopyArguments {}
