//! The header's numbers, written down from it once more so that a wrong one of the product is seen; structs of the
//! client, read and written by offset because their enums may hold anything.
#![expect(unsafe_code, reason = "reads and writes through the client's pointers")]

use std::cell::RefCell;
use std::ffi::c_void;
use std::fmt::Display;

use crate::DOUBLE;

pub(crate) type Status = u32;

/// Nothing, or the status of the refusal.
pub(crate) type Answer = Result<(), Status>;

pub(crate) const SUCCESS: Status = 0;
pub(crate) const UNSUPPORTED_DEVICE: Status = 2;
pub(crate) const INVALID_ENCODERDEVICE: Status = 3;
pub(crate) const INVALID_DEVICE: Status = 4;
pub(crate) const DEVICE_NOT_EXIST: Status = 5;
pub(crate) const INVALID_PTR: Status = 6;
pub(crate) const INVALID_EVENT: Status = 7;
pub(crate) const INVALID_PARAM: Status = 8;
pub(crate) const INVALID_CALL: Status = 9;
pub(crate) const OUT_OF_MEMORY: Status = 10;
pub(crate) const NOT_INITIALIZED: Status = 11;
pub(crate) const UNSUPPORTED_PARAM: Status = 12;
pub(crate) const LOCK_BUSY: Status = 13;
pub(crate) const NOT_ENOUGH_BUFFER: Status = 14;
pub(crate) const INVALID_VERSION: Status = 15;
pub(crate) const MAP_FAILED: Status = 16;
pub(crate) const NEED_MORE_INPUT: Status = 17;
pub(crate) const GENERIC: Status = 20;
pub(crate) const UNIMPLEMENTED: Status = 22;
pub(crate) const REGISTER_FAILED: Status = 23;
pub(crate) const NOT_REGISTERED: Status = 24;
pub(crate) const NOT_MAPPED: Status = 25;

/// 12.1 as the client writes it.
pub(crate) const API: u32 = 12 | 1 << 24;

const fn version(of: u32) -> u32 {
    API | of << 16 | 7 << 28
}
/// Structs whose version word has its highest bit set.
const fn version_extended(of: u32) -> u32 {
    version(of) | 1 << 31
}

pub(crate) const FUNCTION_LIST_VER: u32 = version(2);
pub(crate) const OPEN_SESSION_EX_VER: u32 = version(1);
pub(crate) const CAPS_PARAM_VER: u32 = version(1);
pub(crate) const CREATE_INPUT_BUFFER_VER: u32 = version(1);
pub(crate) const LOCK_INPUT_BUFFER_VER: u32 = version(1);
pub(crate) const CREATE_BITSTREAM_BUFFER_VER: u32 = version(1);
pub(crate) const RC_PARAMS_VER: u32 = version(1);
pub(crate) const SEQUENCE_PARAM_PAYLOAD_VER: u32 = version(1);
pub(crate) const MAP_INPUT_RESOURCE_VER: u32 = version(4);
pub(crate) const REGISTER_RESOURCE_VER: u32 = version(4);
pub(crate) const CONFIG_VER: u32 = version_extended(8);
pub(crate) const INITIALIZE_PARAMS_VER: u32 = version_extended(6);
pub(crate) const RECONFIGURE_PARAMS_VER: u32 = version_extended(1);
pub(crate) const PRESET_CONFIG_VER: u32 = version_extended(4);
pub(crate) const PIC_PARAMS_VER: u32 = version_extended(6);
pub(crate) const LOCK_BITSTREAM_VER: u32 = version_extended(1);

pub(crate) const INFINITE_GOP: u32 = 0xffff_ffff;

/// A GUID as it is written: `{d1-d2-d3-d4…}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Guid(pub(crate) u32, pub(crate) u16, pub(crate) u16, pub(crate) [u8; 8]);

/// The client broke a contract.
pub(crate) fn refuse<T>(call: &str, why: impl Display, code: Status) -> Result<T, Status> {
    let sentence = format!("{call}: {why}");
    DOUBLE.broken(&sentence);
    say(sentence);
    Err(code)
}

/// The card does not do that; no fault of the client's.
pub(crate) fn decline<T>(call: &str, why: impl Display, code: Status) -> Result<T, Status> {
    say(format!("{call}: {why}"));
    Err(code)
}

fn say(sentence: String) {
    SAID.with_borrow_mut(|said| *said = sentence);
}

/// The sentence of this thread's last refusal.
pub(crate) fn said() -> String {
    SAID.with_borrow_mut(std::mem::take)
}

thread_local! {
    static SAID: RefCell<String> = const { RefCell::new(String::new()) };
}

/// A copy of one of the client's structs.
pub(crate) struct Given {
    bytes: Vec<u8>,
}

impl Given {
    /// # Errors
    /// `at` is null, or the struct does not begin with `version`.
    pub(crate) fn versioned<T>(call: &str, what: &str, at: *const c_void, version: u32) -> Result<Given, Status> {
        let word = number(call, what, at)?;
        if word != version {
            return refuse(call, format_args!("{what}.version is {word:#010x}, not {version:#010x}"), INVALID_VERSION);
        }
        Ok(Given { bytes: bytes(at, size_of::<T>()) })
    }

    /// The part of a struct that is a struct.
    pub(crate) fn part<T>(&self, at: usize) -> Given {
        Given { bytes: self.bytes[at..at + size_of::<T>()].to_vec() }
    }

    /// The part of a struct that has a version word of its own.
    pub(crate) fn versioned_part<T>(&self, call: &str, what: &str, at: usize, version: u32) -> Result<Given, Status> {
        let part = self.part::<T>(at);
        let word = part.u32(0);
        if word == version {
            return Ok(part);
        }
        refuse(call, format_args!("{what}.version is {word:#010x}, not {version:#010x}"), INVALID_VERSION)
    }

    pub(crate) fn u32(&self, at: usize) -> u32 {
        u32::from_ne_bytes(self.array(at))
    }

    pub(crate) fn u16(&self, at: usize) -> u16 {
        u16::from_ne_bytes(self.array(at))
    }

    pub(crate) fn u64(&self, at: usize) -> u64 {
        u64::from_ne_bytes(self.array(at))
    }

    /// A pointer, or a handle that only looks like one.
    pub(crate) fn pointer(&self, at: usize) -> *mut c_void {
        std::ptr::with_exposed_provenance_mut(self.u64(at) as usize)
    }

    /// Bit `bit` of the bit field at `at`.
    pub(crate) fn bit(&self, at: usize, bit: u32) -> bool {
        self.bits(at, bit, 1) == 1
    }

    pub(crate) fn bits(&self, at: usize, first: u32, count: u32) -> u32 {
        self.u32(at) >> first & ((1 << count) - 1)
    }

    pub(crate) fn guid(&self, at: usize) -> Guid {
        Guid(self.u32(at), self.u16(at + 4), self.u16(at + 6), self.array(at + 8))
    }

    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        let bytes = self.bytes[at..].first_chunk();
        *bytes.expect("an offset of the struct that was copied")
    }
}

impl From<Vec<u8>> for Given {
    fn from(bytes: Vec<u8>) -> Given {
        Given { bytes }
    }
}

/// What the client gives to be written.
#[derive(Clone, Copy)]
pub(crate) struct Out(*mut c_void);

impl Out {
    /// # Errors
    /// `at` is null.
    pub(crate) fn new(call: &str, what: &str, at: *mut c_void) -> Result<Out, Status> {
        if at.is_null() { refuse(call, format_args!("{what} is null"), INVALID_PTR) } else { Ok(Out(at)) }
    }

    pub(crate) fn put<T: Copy>(self, offset: usize, value: T) {
        let to = self.0.wrapping_byte_add(offset).cast::<T>();
        // SAFETY: the client answers for a pointer that it passes to be written, and `offset` lies in what it points to.
        unsafe { to.write_unaligned(value) };
    }

    pub(crate) fn put_bytes(self, bytes: &[u8]) {
        // SAFETY: the client answers for as many bytes as it said there are; callers look at that number first.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.0.cast(), bytes.len()) };
    }
}

/// A 32 bit word of the client.
pub(crate) fn number(call: &str, what: &str, at: *const c_void) -> Result<u32, Status> {
    if at.is_null() {
        return refuse(call, format_args!("{what} is null"), INVALID_PTR);
    }
    // SAFETY: the client answers for what it passes to be read; null was refused.
    Ok(unsafe { at.cast::<u32>().read_unaligned() })
}

/// Bytes of the client; null has none.
pub(crate) fn bytes(at: *const c_void, length: usize) -> Vec<u8> {
    let mut copy = vec![0; length];
    if !at.is_null() {
        // SAFETY: the client answers for `length` bytes at a pointer that it passes to be read; null was left out.
        unsafe { std::ptr::copy_nonoverlapping(at.cast::<u8>(), copy.as_mut_ptr(), length) };
    }
    copy
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_words_are_the_headers() {
        // Taken from a C program that prints the header's macros.
        assert_eq!(FUNCTION_LIST_VER, 0x7102_000c);
        assert_eq!(CONFIG_VER, 0xf108_000c);
        assert_eq!(INITIALIZE_PARAMS_VER, 0xf106_000c);
        assert_eq!(PIC_PARAMS_VER, 0xf106_000c);
        assert_eq!(LOCK_BITSTREAM_VER, 0xf101_000c);
        assert_eq!(REGISTER_RESOURCE_VER, 0x7104_000c);
        assert_eq!(PRESET_CONFIG_VER, 0xf104_000c);
    }

    #[test]
    fn layouts_have_the_sizes_that_were_seen() {
        use nvidia_video_codec_sdk::sys::nvEncodeAPI as sys;
        assert_eq!(size_of::<sys::NV_ENC_CONFIG>(), 3584);
        assert_eq!(size_of::<sys::NV_ENC_PRESET_CONFIG>(), 5128);
        assert_eq!(size_of::<sys::NV_ENC_PIC_PARAMS>(), 3360);
        assert_eq!(size_of::<sys::NV_ENC_LOCK_BITSTREAM>(), 1552);
        assert_eq!(size_of::<sys::NV_ENC_INITIALIZE_PARAMS>(), 1808);
        assert_eq!(size_of::<sys::NV_ENC_RECONFIGURE_PARAMS>(), 1824);
        assert_eq!(size_of::<sys::NV_ENC_REGISTER_RESOURCE>(), 1536);
    }
}
