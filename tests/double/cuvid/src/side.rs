//! What a picture's parameters can not carry on their way from the parser to the decoder.
//!
//! A chip is given the fields of the parameter sets; libavcodec wants the sets themselves, and for MPEG-2 the picture
//! header too. Both are kept here under a number that travels in CUVIDPICPARAMS::Reserved, which a caller hands on
//! untouched. `pBitstreamData` is the slices and nothing else, as the header says.
#![expect(unsafe_code, reason = "fields of the driver's structures")]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::abi::{Format, PicParams};

/// In `Reserved[27]`: the number in the two words behind it is ours.
const MARK: u32 = 0x5255_4E47;

#[derive(Clone)]
pub(crate) struct Side {
    pub(crate) parser: usize,
    pub(crate) codec: u32,
    pub(crate) sets: Sets,
    /// Between parameter sets and slices, with start codes.
    pub(crate) before: Vec<u8>,
}

/// All parameter sets of a stream, and a number for this state of them.
#[derive(Clone, Default)]
pub(crate) struct Sets {
    pub(crate) number: u64,
    pub(crate) bytes: Arc<Vec<u8>>,
}

static NUMBER: AtomicU64 = AtomicU64::new(1);
static SIDES: Mutex<BTreeMap<u64, Arc<Side>>> = Mutex::new(BTreeMap::new());

impl Sets {
    pub(crate) fn update(&mut self, bytes: Vec<u8>) {
        if self.number == 0 || *self.bytes != bytes {
            *self = Sets { number: NUMBER.fetch_add(1, Ordering::Relaxed), bytes: Arc::new(bytes) };
        }
    }
}

pub(crate) fn publish(params: &mut PicParams, side: Side) -> u64 {
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    params.Reserved[27] = MARK;
    params.Reserved[28] = (number >> 32) as u32;
    params.Reserved[29] = number as u32;
    SIDES.lock().unwrap_or_else(PoisonError::into_inner).insert(number, Arc::new(side));
    number
}

/// `None`: no parser of this library made these parameters, or long ago.
pub(crate) fn of(params: *const PicParams) -> Option<Arc<Side>> {
    // SAFETY: the caller checked that the pointer is not null; the structure is the caller's.
    let reserved = unsafe { (*params).Reserved };
    let number = u64::from(reserved[28]) << 32 | u64::from(reserved[29]);
    let sides = SIDES.lock().unwrap_or_else(PoisonError::into_inner);
    sides.get(&number).filter(|_| reserved[27] == MARK).cloned()
}

pub(crate) fn forget(number: u64) {
    SIDES.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
}

thread_local! {
    static IN_SEQUENCE: Cell<Option<(usize, Format)>> = const { Cell::new(None) };
}

/// While this lives, the thread is inside a sequence callback.
pub(crate) struct InSequence(());

impl InSequence {
    pub(crate) fn enter(parser: usize, format: Format) -> InSequence {
        IN_SEQUENCE.set(Some((parser, format)));
        InSequence(())
    }

    /// The parser that calls, and what it tells.
    pub(crate) fn current() -> Option<(usize, Format)> {
        IN_SEQUENCE.get()
    }
}

impl Drop for InSequence {
    fn drop(&mut self) {
        IN_SEQUENCE.set(None);
    }
}
