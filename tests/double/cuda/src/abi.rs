//! What every exported call has in common: it is counted, refused when the card is lost or the library not started, and
//! answered with a status code; pointers of the caller are read and written here.
#![expect(unsafe_code, reason = "reads and writes through the caller's pointers")]

use std::cell::Cell;
use std::ffi::{CStr, c_char};
use std::fmt::Display;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::time::Duration;

use rung_double_common::{Double, Fault};

use crate::codes::{INVALID_VALUE, NOT_INITIALIZED, NOT_PERMITTED, SUCCESS};
use crate::context::{self, Here};
use crate::world::world;

pub(crate) static DOUBLE: Double = Double::new("libcuda");

pub(crate) type Code = u32;

/// Nothing, or the status code of the refusal.
pub(crate) type Answer = Result<(), Code>;

/// A call that works without a card: text and versions.
pub(crate) fn always(call: &str, body: impl FnOnce() -> Answer) -> Code {
    called();
    if CALLBACK.get() {
        broken(call, "called from a host function of cuLaunchHostFunc");
        return NOT_PERMITTED;
    }
    body().err().unwrap_or(SUCCESS)
}

/// A call that needs the card, but not that `cuInit` was called.
pub(crate) fn with_card(call: &str, body: impl FnOnce() -> Answer) -> Code {
    always(call, || if lost() == SUCCESS { body() } else { Err(lost()) })
}

/// A call that needs `cuInit`.
pub(crate) fn initialised(call: &str, body: impl FnOnce() -> Answer) -> Code {
    with_card(call, || {
        let started = world().gpus.is_some();
        if started { body() } else { refuse(call, "before cuInit", NOT_INITIALIZED) }
    })
}

/// A call that needs a context on the calling thread, and one that did not fail.
pub(crate) fn in_context(call: &str, body: impl FnOnce(&Here) -> Answer) -> Code {
    initialised(call, || {
        let here = context::here(call)?;
        here.fit()?;
        body(&here)
    })
}

/// The caller broke a contract.
pub(crate) fn refuse<T>(call: &str, why: impl Display, code: Code) -> Result<T, Code> {
    broken(call, why);
    Err(code)
}

pub(crate) fn broken(call: &str, why: impl Display) {
    DOUBLE.broken(&format!("{call}: {why}"));
}

/// Adds to a count.
pub(crate) fn counted(what: &'static str, change: i64) {
    if what == "live contexts" {
        flush();
    }
    DOUBLE.count(what, change);
}

/// The fault that is due at `point`. What the other doubles do for themselves meets none.
pub(crate) fn fault(point: &str) -> Played {
    match (!aside()).then(|| DOUBLE.fault(point)).flatten() {
        None => Played::Nothing,
        Some(Fault::Code(code)) => Played::Code(code),
        Some(Fault::Sleep(time)) => Played::Sleep(time),
        Some(Fault::Word(word)) => panic!("fault {point} {word}: write code=<n> or sleep=<ms>"),
    }
}

#[derive(Clone, Copy)]
pub(crate) enum Played {
    Nothing,
    Code(Code),
    Sleep(Duration),
}

impl Played {
    /// For calls that do their work before they return.
    pub(crate) fn now(self) -> Answer {
        match self {
            Played::Nothing => Ok(()),
            Played::Code(code) => Err(code),
            Played::Sleep(time) => {
                sleep(time);
                Ok(())
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a fault that takes its time")]
pub(crate) fn sleep(time: Duration) {
    std::thread::sleep(time);
}

/// Whether another double works for itself on this thread: its copies are not the caller's.
pub(crate) fn aside() -> bool {
    ASIDE.get() > 0
}

/// From +1 to -1, on the calling thread, copies are counted as the codecs' own and no fault is played: for the doubles
/// of the codecs, which move pictures through this library.
#[unsafe(no_mangle)]
extern "C" fn rung_double_aside(change: i32) {
    ASIDE.set(ASIDE.get() + change);
}

/// Runs a host function of the caller; calls of the driver are forbidden in it.
pub(crate) fn callback(run: impl FnOnce()) {
    CALLBACK.set(true);
    run();
    CALLBACK.set(false);
}

thread_local! {
    static ASIDE: Cell<i32> = const { Cell::new(0) };
    static CALLBACK: Cell<bool> = const { Cell::new(false) };
}

/// A pointer that the caller gives to be written. As a parameter it is the pointer itself.
#[repr(transparent)]
pub(crate) struct Out<T>(pub(crate) *mut T);

impl<T> Out<T> {
    pub(crate) fn put(&self, call: &str, value: T) -> Answer {
        if self.0.is_null() {
            return refuse(call, "the pointer for the answer is null", INVALID_VALUE);
        }
        self.put_if(value);
        Ok(())
    }

    /// For answers that the caller may not want.
    pub(crate) fn put_if(&self, value: T) {
        if !self.0.is_null() {
            // SAFETY: the caller answers for a pointer that it passes to be written; null was left out.
            unsafe { self.0.write(value) };
        }
    }
}

/// A pointer that the caller gives to be read. As a parameter it is the pointer itself.
#[repr(transparent)]
pub(crate) struct In<T>(pub(crate) *const T);

impl<T: Copy> In<T> {
    pub(crate) fn get(&self, call: &str) -> Result<T, Code> {
        self.at(call, 0)
    }

    pub(crate) fn at(&self, call: &str, index: usize) -> Result<T, Code> {
        if self.0.is_null() {
            return refuse(call, "a pointer to be read is null", INVALID_VALUE);
        }
        let at = self.0.wrapping_add(index);
        // SAFETY: the caller answers for what it passes to be read; null was refused.
        Ok(unsafe { at.read_unaligned() })
    }
}

impl In<c_char> {
    pub(crate) fn text(&self, call: &str) -> Result<&CStr, Code> {
        if self.0.is_null() {
            return refuse(call, "a text is null", INVALID_VALUE);
        }
        // SAFETY: the caller answers for a text that ends with a zero; null was refused.
        Ok(unsafe { CStr::from_ptr(self.0) })
    }
}

/// Calls are many, and each count is a file written: they are written down 256 at a time, and with every context.
fn called() {
    if !aside() && CALLS.fetch_add(1, Ordering::Relaxed) >= 255 {
        flush();
    }
}

fn flush() {
    let calls = CALLS.swap(0, Ordering::Relaxed);
    if calls > 0 {
        DOUBLE.count("calls", calls);
    }
}

static CALLS: AtomicI64 = AtomicI64::new(0);

/// What a card that is gone answers, once the fault `cuda.lost` was due.
fn lost() -> Code {
    let known = LOST.load(Ordering::Relaxed);
    if known != SUCCESS || aside() {
        return known;
    }
    if let Played::Code(code) = fault("cuda.lost") {
        LOST.store(code, Ordering::Relaxed);
    }
    LOST.load(Ordering::Relaxed)
}

static LOST: AtomicU32 = AtomicU32::new(SUCCESS);
