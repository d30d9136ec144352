//! The driver's codes, and what each means for the process that met it.

use std::fmt;

/// Which library answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Library {
    /// libcuda and libnvcuvid: a CUresult.
    Cuda,
    /// libnvidia-encode: an NVENCSTATUS.
    Encode,
}

/// A call that the driver refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The call, and what it was for: "cuMemAllocPitch for a 1280x720 surface".
    pub what: String,
    pub library: Library,
    pub code: u32,
    /// The driver's own words, where it has some.
    pub words: String,
}

/// How far the harm reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    /// This request: another one may be met.
    Request,
    /// The process: every later call fails too, until it ends.
    Process,
    /// The GPU is gone for this machine.
    Gpu,
}

impl Error {
    pub fn new(library: Library, code: u32, what: impl Into<String>) -> Error {
        Error { what: what.into(), library, code, words: String::new() }
    }

    pub fn words(mut self, words: impl Into<String>) -> Error {
        self.words = words.into();
        self
    }

    /// The same refusal, with what it was for.
    pub fn while_doing(mut self, what: &str) -> Error {
        self.what = format!("{what}: {}", self.what);
        self
    }

    pub fn harm(&self) -> Harm {
        match (self.library, self.code) {
            (Library::Cuda, DEVICE_UNAVAILABLE | NO_DEVICE | SYSTEM_NOT_READY | CUDA_UNKNOWN) => Harm::Gpu,
            (Library::Cuda, code) if STICKY.contains(&code) => Harm::Process,
            (Library::Encode, DEVICE_NOT_EXIST) => Harm::Gpu,
            (Library::Encode, ENCODE_GENERIC) => Harm::Process,
            _ => Harm::Request,
        }
    }

    pub fn is_out_of_memory(&self) -> bool {
        matches!((self.library, self.code), (Library::Cuda, OUT_OF_MEMORY) | (Library::Encode, ENCODE_OUT_OF_MEMORY))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = name(self.library, self.code).unwrap_or("an unknown code");
        write!(f, "{}: {name} ({})", self.what, self.code)?;
        if self.words.is_empty() { Ok(()) } else { write!(f, ", {}", self.words) }
    }
}

impl std::error::Error for Error {}

pub const OUT_OF_MEMORY: u32 = 2;
pub const NOT_READY: u32 = 600;
const DEVICE_UNAVAILABLE: u32 = 46;
const NO_DEVICE: u32 = 100;
const SYSTEM_NOT_READY: u32 = 802;
const CUDA_UNKNOWN: u32 = 999;
const DEVICE_NOT_EXIST: u32 = 5;
const ENCODE_OUT_OF_MEMORY: u32 = 10;
const ENCODE_GENERIC: u32 = 20;

/// After one of these every call on the context fails (CUDA driver API, "inconsistent state").
const STICKY: [u32; 13] = [4, 201, 214, 220, 700, 702, 709, 710, 714, 715, 716, 718, 719];

fn name(library: Library, code: u32) -> Option<&'static str> {
    let table = match library {
        Library::Cuda => CUDA_NAMES,
        Library::Encode => ENCODE_NAMES,
    };
    table.iter().find(|(known, _)| *known == code).map(|(_, name)| *name)
}

const CUDA_NAMES: &[(u32, &str)] = &[
    (1, "invalid value"),
    (OUT_OF_MEMORY, "out of device memory"),
    (3, "the driver is not initialised"),
    (4, "the driver is shutting down"),
    (DEVICE_UNAVAILABLE, "the device is unavailable"),
    (NO_DEVICE, "no device"),
    (101, "no such device"),
    (200, "the kernel image is invalid"),
    (201, "the context is invalid"),
    (205, "the resource can not be mapped"),
    (206, "the resource can not be unmapped"),
    (209, "no kernel image for this device"),
    (214, "an uncorrectable memory error (ECC)"),
    (218, "the PTX is invalid"),
    (220, "an uncorrectable link error"),
    (222, "the PTX is newer than the driver"),
    (400, "invalid handle"),
    (500, "not found"),
    (NOT_READY, "not ready"),
    (700, "an illegal address in a kernel"),
    (701, "too many resources for a launch"),
    (702, "a kernel ran into its time-out"),
    (709, "the context was destroyed"),
    (710, "an assertion in a kernel"),
    (714, "a hardware stack error"),
    (715, "an illegal instruction"),
    (716, "a misaligned address"),
    (718, "an invalid program counter"),
    (719, "a kernel failed"),
    (801, "not supported"),
    (SYSTEM_NOT_READY, "the system is not ready"),
    (803, "driver and library versions do not match"),
    (CUDA_UNKNOWN, "an unknown error"),
];

const ENCODE_NAMES: &[(u32, &str)] = &[
    (1, "no encoder on this device"),
    (2, "this device is not supported"),
    (3, "invalid encode device"),
    (4, "invalid device"),
    (DEVICE_NOT_EXIST, "the device does not exist any more"),
    (6, "invalid pointer"),
    (7, "invalid event"),
    (8, "invalid parameter"),
    (9, "invalid call"),
    (ENCODE_OUT_OF_MEMORY, "out of memory or of encode sessions"),
    (11, "the encoder is not initialised"),
    (12, "unsupported parameter"),
    (13, "the lock is busy"),
    (14, "not enough buffer"),
    (15, "the driver is of another API version"),
    (16, "the map failed"),
    (17, "more input is needed"),
    (18, "the encoder is busy"),
    (19, "the event is not registered"),
    (ENCODE_GENERIC, "a generic error"),
    (21, "incompatible client key"),
    (22, "unimplemented"),
    (23, "the resource can not be registered"),
    (24, "the resource is not registered"),
    (25, "the resource is not mapped"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_call_and_the_code() {
        let error = Error::new(Library::Encode, 10, "nvEncOpenEncodeSessionEx").while_doing("rendition 720p");
        let text = "rendition 720p: nvEncOpenEncodeSessionEx: out of memory or of encode sessions (10)";
        assert_eq!(error.to_string(), text);
        assert!(error.is_out_of_memory() && error.harm() == Harm::Request);
    }

    #[test]
    fn the_harm_of_a_code_is_known() {
        let harm = |library, code| Error::new(library, code, "").harm();
        assert_eq!(harm(Library::Cuda, 214), Harm::Process);
        assert_eq!(harm(Library::Cuda, 1), Harm::Request);
        assert_eq!(harm(Library::Cuda, 100), Harm::Gpu);
        assert_eq!(harm(Library::Encode, 5), Harm::Gpu);
        assert_eq!(harm(Library::Encode, 8), Harm::Request);
    }
}
