//! A struct of the driver's interface as plain memory: offsets come from the bindings, values are integers. What the
//! driver writes is never seen through the bindings' enums, which do not know every code of every driver.

use nvidia_video_codec_sdk::sys::nvEncodeAPI::GUID;
use std::ffi::c_void;
use std::marker::PhantomData;

/// Memory of the size of `T`, all zero at the start, at an address that stays.
pub(super) struct Raw<T> {
    words: Box<[u64]>,
    of: PhantomData<fn() -> T>,
}

/// Bits of a 32-bit word of flags: the lowest one, and how many.
#[derive(Clone, Copy)]
pub(super) struct Bits(pub(super) u32, pub(super) u32);

const WORD: usize = size_of::<u64>();

impl<T> Raw<T> {
    pub(super) fn zeroed() -> Raw<T> {
        const { assert!(align_of::<T>() <= WORD, "a word is aligned as the struct is") };
        Raw { words: vec![0; size_of::<T>().div_ceil(WORD)].into(), of: PhantomData }
    }

    /// Zeroed, with its version word. Every versioned struct begins with it.
    pub(super) fn versioned(version: u32) -> Raw<T> {
        let mut raw = Raw::zeroed();
        raw.set_u32(0, version);
        raw
    }

    /// Zeroed again, with its version word.
    pub(super) fn reset(&mut self, version: u32) {
        self.words.fill(0);
        self.set_u32(0, version);
    }

    /// For the driver. Nothing else of it is borrowed meanwhile.
    pub(super) fn at(&mut self) -> *mut T {
        self.words.as_mut_ptr().cast()
    }

    /// A place inside, for a function that takes a part of the struct.
    pub(super) fn address(&mut self, at: usize) -> u64 {
        assert!(at < size_of::<T>(), "the field lies in the struct");
        (self.words.as_mut_ptr().expose_provenance() + at) as u64
    }

    pub(super) fn u32(&self, at: usize) -> u32 {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&self.word(at, 4)[at % WORD..][..4]);
        u32::from_ne_bytes(bytes)
    }

    pub(super) fn u64(&self, at: usize) -> u64 {
        u64::from_ne_bytes(self.word(at, 8))
    }

    pub(super) fn pointer(&self, at: usize) -> *mut c_void {
        std::ptr::with_exposed_provenance_mut(self.u64(at) as usize)
    }

    pub(super) fn set_u32(&mut self, at: usize, value: u32) {
        self.set(at, &value.to_ne_bytes());
    }

    pub(super) fn set_u16(&mut self, at: usize, value: u16) {
        self.set(at, &value.to_ne_bytes());
    }

    pub(super) fn set_u64(&mut self, at: usize, value: u64) {
        self.set(at, &value.to_ne_bytes());
    }

    pub(super) fn set_pointer<P>(&mut self, at: usize, value: *mut P) {
        self.set_u64(at, value.expose_provenance() as u64);
    }

    pub(super) fn set_guid(&mut self, at: usize, guid: GUID) {
        self.set_u32(at, guid.Data1);
        self.set_u16(at + 4, guid.Data2);
        self.set_u16(at + 6, guid.Data3);
        for (i, byte) in guid.Data4.iter().enumerate() {
            self.set(at + 8 + i, &[*byte]);
        }
    }

    pub(super) fn set_bits(&mut self, at: usize, bits: Bits, value: u32) {
        let Bits(lowest, width) = bits;
        let mask = ((1 << width) - 1) << lowest;
        assert!(value << lowest & !mask == 0, "{value} fits in {width} bits");
        let word = self.u32(at);
        self.set_u32(at, word & !mask | value << lowest);
    }

    /// A copy of a struct inside this one.
    pub(super) fn set_struct<U>(&mut self, at: usize, inner: &Raw<U>) {
        let (from, len) = (at / WORD, inner.words.len());
        let fits = at.is_multiple_of(WORD) && size_of::<U>().is_multiple_of(WORD);
        assert!(fits && at + size_of::<U>() <= size_of::<T>(), "a struct inside lies on whole words");
        self.words[from..][..len].copy_from_slice(&inner.words);
    }

    fn word(&self, at: usize, len: usize) -> [u8; WORD] {
        self.inside(at, len);
        self.words[at / WORD].to_ne_bytes()
    }

    fn set(&mut self, at: usize, bytes: &[u8]) {
        self.inside(at, bytes.len());
        let mut word = self.words[at / WORD].to_ne_bytes();
        word[at % WORD..][..bytes.len()].copy_from_slice(bytes);
        self.words[at / WORD] = u64::from_ne_bytes(word);
    }

    fn inside(&self, at: usize, len: usize) {
        assert!(
            at.is_multiple_of(len) && at + len <= size_of::<T>(),
            "a field of {len} bytes at {at} lies in the struct"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[repr(C)]
    struct Mixed {
        version: u32,
        flags: u32,
        pointer: *mut c_void,
        small: u16,
        byte: u8,
        guid: GUID,
    }

    #[test]
    fn fields_do_not_touch_their_neighbours() {
        use std::mem::offset_of;
        let mut raw = Raw::<Mixed>::versioned(7);
        raw.set_u64(offset_of!(Mixed, pointer), u64::MAX);
        raw.set_bits(offset_of!(Mixed, flags), Bits(3, 4), 0b1001);
        raw.set_bits(offset_of!(Mixed, flags), Bits(31, 1), 1);
        raw.set_u16(offset_of!(Mixed, small), 0xabcd);
        assert_eq!((raw.u32(0), raw.u32(4)), (7, 1 << 31 | 0b1001 << 3));
        raw.set_bits(offset_of!(Mixed, flags), Bits(3, 4), 0);
        assert_eq!(raw.u32(4), 1 << 31);
        assert_eq!(raw.u64(offset_of!(Mixed, pointer)), u64::MAX);
        assert_eq!(raw.u32(offset_of!(Mixed, small)), 0xabcd, "the byte beside it is still zero");
        raw.reset(9);
        assert_eq!((raw.u32(0), raw.u32(4), raw.u64(offset_of!(Mixed, pointer))), (9, 0, 0));
    }

    #[test]
    #[should_panic(expected = "lies in the struct")]
    fn what_lies_outside_is_not_written() {
        Raw::<Mixed>::zeroed().set_u64(size_of::<Mixed>(), 1);
    }

    #[test]
    #[should_panic(expected = "fits in 4 bits")]
    fn a_value_does_not_spill_out_of_its_bits() {
        Raw::<Mixed>::zeroed().set_bits(4, Bits(3, 4), 16);
    }
}
