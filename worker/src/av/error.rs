//! libav's error numbers as sentences, its versions, its log.
#![expect(unsafe_code, reason = "libav FFI")]

use ffmpeg_sys_next as ff;
use std::ffi::CStr;
use std::fmt;

/// What was tried, and libav's number for why it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error {
    pub what: &'static str,
    pub code: i32,
}

impl Error {
    /// libav was out of memory or refused to make an object.
    pub fn alloc(what: &'static str) -> Error {
        Error { what, code: ff::AVERROR(libc::ENOMEM) }
    }

    /// `Ok(code)` unless it is negative.
    pub(super) fn check(what: &'static str, code: i32) -> Result<i32, Error> {
        if code < 0 { Err(Error { what, code }) } else { Ok(code) }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0 as libc::c_char; 128];
        // SAFETY: `text` is 128 writable bytes, and libav ends what it writes with a zero.
        unsafe { ff::av_strerror(self.code, text.as_mut_ptr(), text.len()) };
        // SAFETY: zero-terminated above (av_strerror always terminates; the array starts as zeros).
        let text = unsafe { CStr::from_ptr(text.as_ptr()) };
        write!(f, "{}: {}", self.what, text.to_string_lossy())
    }
}

/// libav prints nothing from now on: what matters arrives as faults and errors.
pub fn quiet() {
    // SAFETY: stores one integer.
    unsafe { ff::av_log_set_level(ff::AV_LOG_QUIET) };
}

/// "libavcodec 59.37.100".
pub fn versions() -> String {
    // SAFETY: reads a constant of the library.
    let v = unsafe { ff::avcodec_version() };
    format!("libavcodec {}.{}.{}", v >> 16, v >> 8 & 255, v & 255)
}
