//! Status codes of the driver, as its header numbers them.
#![expect(unsafe_code, reason = "exports the driver's C ABI")]

use std::ffi::{CStr, c_char};
use std::ptr;

use crate::abi::{Answer, Code, Out, always};

pub(crate) const SUCCESS: Code = 0;
pub(crate) const INVALID_VALUE: Code = 1;
pub(crate) const OUT_OF_MEMORY: Code = 2;
pub(crate) const NOT_INITIALIZED: Code = 3;
pub(crate) const NO_DEVICE: Code = 100;
pub(crate) const INVALID_DEVICE: Code = 101;
pub(crate) const INVALID_IMAGE: Code = 200;
pub(crate) const INVALID_CONTEXT: Code = 201;
pub(crate) const NO_BINARY_FOR_GPU: Code = 209;
pub(crate) const INVALID_PTX: Code = 218;
pub(crate) const UNSUPPORTED_PTX_VERSION: Code = 222;
pub(crate) const INVALID_HANDLE: Code = 400;
pub(crate) const NOT_FOUND: Code = 500;
pub(crate) const NOT_READY: Code = 600;
pub(crate) const ILLEGAL_ADDRESS: Code = 700;
pub(crate) const CONTEXT_IS_DESTROYED: Code = 709;
pub(crate) const LAUNCH_FAILED: Code = 719;
pub(crate) const NOT_PERMITTED: Code = 800;
pub(crate) const NOT_SUPPORTED: Code = 801;
pub(crate) const UNKNOWN: Code = 999;

/// Whether a context that met this can not be used any more: every later call on it answers the same.
pub(crate) fn sticky(code: Code) -> bool {
    matches!(code, 214 | 220 | 700 | 702 | 710 | 714..=719 | UNKNOWN)
}

#[unsafe(no_mangle)]
extern "C" fn cuGetErrorName(code: Code, name: Out<*const c_char>) -> Code {
    always("cuGetErrorName", || say("cuGetErrorName", name, text(code).map(|(name, _)| name)))
}

#[unsafe(no_mangle)]
extern "C" fn cuGetErrorString(code: Code, words: Out<*const c_char>) -> Code {
    always("cuGetErrorString", || say("cuGetErrorString", words, text(code).map(|(_, words)| words)))
}

/// A code that the driver does not know is answered by a null pointer and an error.
fn say(call: &str, out: Out<*const c_char>, text: Option<&'static CStr>) -> Answer {
    out.put(call, text.map_or(ptr::null(), CStr::as_ptr))?;
    text.map(|_| ()).ok_or(INVALID_VALUE)
}

fn text(code: Code) -> Option<(&'static CStr, &'static CStr)> {
    Some(match code {
        0 => (c"CUDA_SUCCESS", c"no error"),
        1 => (c"CUDA_ERROR_INVALID_VALUE", c"invalid argument"),
        2 => (c"CUDA_ERROR_OUT_OF_MEMORY", c"out of memory"),
        3 => (c"CUDA_ERROR_NOT_INITIALIZED", c"initialization error"),
        46 => (c"CUDA_ERROR_DEVICE_UNAVAILABLE", c"device is busy or unavailable"),
        100 => (c"CUDA_ERROR_NO_DEVICE", c"no device found"),
        101 => (c"CUDA_ERROR_INVALID_DEVICE", c"invalid device ordinal"),
        200 => (c"CUDA_ERROR_INVALID_IMAGE", c"invalid kernel image"),
        201 => (c"CUDA_ERROR_INVALID_CONTEXT", c"invalid device context"),
        209 => (c"CUDA_ERROR_NO_BINARY_FOR_GPU", c"no kernel image for this device"),
        214 => (c"CUDA_ERROR_ECC_UNCORRECTABLE", c"uncorrectable ECC error"),
        218 => (c"CUDA_ERROR_INVALID_PTX", c"the PTX could not be compiled"),
        220 => (c"CUDA_ERROR_NVLINK_UNCORRECTABLE", c"uncorrectable NVLink error"),
        222 => (c"CUDA_ERROR_UNSUPPORTED_PTX_VERSION", c"the PTX is of a newer version than the driver"),
        400 => (c"CUDA_ERROR_INVALID_HANDLE", c"invalid resource handle"),
        500 => (c"CUDA_ERROR_NOT_FOUND", c"named symbol not found"),
        600 => (c"CUDA_ERROR_NOT_READY", c"device not ready"),
        700 => (c"CUDA_ERROR_ILLEGAL_ADDRESS", c"illegal memory access"),
        701 => (c"CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES", c"too many resources asked for launch"),
        702 => (c"CUDA_ERROR_LAUNCH_TIMEOUT", c"the launch timed out"),
        709 => (c"CUDA_ERROR_CONTEXT_IS_DESTROYED", c"context is destroyed"),
        710 => (c"CUDA_ERROR_ASSERT", c"device-side assert"),
        714 => (c"CUDA_ERROR_HARDWARE_STACK_ERROR", c"hardware stack error"),
        715 => (c"CUDA_ERROR_ILLEGAL_INSTRUCTION", c"illegal instruction"),
        716 => (c"CUDA_ERROR_MISALIGNED_ADDRESS", c"misaligned address"),
        717 => (c"CUDA_ERROR_INVALID_ADDRESS_SPACE", c"operation not on this address space"),
        718 => (c"CUDA_ERROR_INVALID_PC", c"invalid program counter"),
        719 => (c"CUDA_ERROR_LAUNCH_FAILED", c"unspecified launch failure"),
        800 => (c"CUDA_ERROR_NOT_PERMITTED", c"operation not permitted"),
        801 => (c"CUDA_ERROR_NOT_SUPPORTED", c"operation not supported"),
        803 => (c"CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", c"driver and library of different versions"),
        999 => (c"CUDA_ERROR_UNKNOWN", c"unknown error"),
        _ => return None,
    })
}
