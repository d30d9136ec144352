//! One piece of memory between two pages that nobody may touch.
#![expect(unsafe_code, reason = "maps memory and reads it by address")]

use std::ptr;
use std::sync::OnceLock;

pub(crate) struct Mapping {
    /// Of the first guard page.
    base: u64,
    /// With both guard pages.
    total: usize,
    /// Of what the caller uses.
    address: u64,
    bytes: usize,
}

impl Mapping {
    /// `bytes` of memory that end, but for the alignment, at the guard page. Nothing if the machine has none.
    pub(crate) fn new(bytes: usize) -> Option<Mapping> {
        let padded = bytes.max(1).checked_next_multiple_of(ALIGNMENT)?;
        let inner = padded.checked_next_multiple_of(page())?;
        let total = inner.checked_add(2 * page())?;
        let base = map(ptr::null_mut(), total, 0)?;
        let base = base as u64;
        // From here on a drop gives it back.
        let mapping = Mapping { base, total, address: base + (page() + inner - padded) as u64, bytes };
        let at = (base + page() as u64) as *mut libc::c_void;
        // SAFETY: the pages between the guards of the mapping that was just made.
        if unsafe { libc::mprotect(at, inner, libc::PROT_READ | libc::PROT_WRITE) } != 0 {
            return None;
        }
        let (front, back) = mapping.padding();
        for (from, count) in [front, back] {
            fill(from, count, PADDING);
        }
        // Very large ones are not touched: they would become resident.
        fill(mapping.address, bytes.min(FRESH_MAX), FRESH);
        Some(mapping)
    }

    pub(crate) fn address(&self) -> u64 {
        self.address
    }

    pub(crate) fn reserved(&self) -> usize {
        self.total
    }

    /// Where something wrote beside the memory, counted from its first byte.
    pub(crate) fn spoilt(&self) -> Option<i64> {
        let (front, back) = self.padding();
        let bytes = [front, back].into_iter().flat_map(|(from, count)| from..from + count as u64);
        for at in bytes {
            // SAFETY: padding lies within the readable pages.
            if unsafe { (at as *const u8).read_volatile() } != PADDING {
                return Some(at.cast_signed() - self.address.cast_signed());
            }
        }
        None
    }

    /// Takes the memory away and keeps the address: whoever still uses it crashes.
    pub(crate) fn close(&self) {
        let kept = map(self.base as *mut libc::c_void, self.total, libc::MAP_FIXED);
        assert!(kept.is_some(), "pages that are ours can be mapped again");
    }

    /// What lies between the guard pages and is not the caller's: from where, how many.
    fn padding(&self) -> ((u64, usize), (u64, usize)) {
        let first = self.base + page() as u64;
        let end = self.address + self.bytes as u64;
        let last = self.base + (self.total - page()) as u64;
        ((first, (self.address - first) as usize), (end, (last - end) as usize))
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.total > 0 {
            // SAFETY: the mapping is ours and nobody was told an address in it that is still good.
            unsafe { libc::munmap(self.base as *mut libc::c_void, self.total) };
        }
    }
}

fn page() -> usize {
    static PAGE: OnceLock<usize> = OnceLock::new();
    // SAFETY: asks for a number.
    *PAGE.get_or_init(|| unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize)
}

fn map(at: *mut libc::c_void, bytes: usize, flags: i32) -> Option<*mut libc::c_void> {
    let flags = flags | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: no file; where the address is fixed, the range is a mapping of ours.
    let at = unsafe { libc::mmap(at, bytes, libc::PROT_NONE, flags, -1, 0) };
    (at != libc::MAP_FAILED).then_some(at)
}

fn fill(from: u64, count: usize, with: u8) {
    // SAFETY: all callers name bytes between the guard pages of one mapping.
    unsafe { ptr::write_bytes(from as *mut u8, with, count) };
}

/// A sum of bytes that changes when any of them does.
pub(crate) fn sum(address: u64, bytes: usize) -> u64 {
    let mut sums = [0xcbf2_9ce4_8422_2325_u64, 1, 2, 3];
    let mix = |sum: u64, word: u64| (sum ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29);
    for block in (0..bytes / 32).map(|block| address + block as u64 * 32) {
        for (lane, sum) in sums.iter_mut().enumerate() {
            let at = (block + lane as u64 * 8) as *const u64;
            // SAFETY: the caller names live memory; whoever writes to it meanwhile is whom this looks for.
            *sum = mix(*sum, unsafe { at.read_unaligned() });
        }
    }
    for at in (bytes / 32 * 32..bytes).map(|at| (address + at as u64) as *const u8) {
        // SAFETY: as above.
        sums[0] = mix(sums[0], u64::from(unsafe { at.read() }));
    }
    sums.into_iter().fold(0, mix)
}

/// What any use of memory may ask for.
const ALIGNMENT: usize = 512;
const PADDING: u8 = 0xfb;
const FRESH: u8 = 0xa7;
const FRESH_MAX: usize = 256 << 20;
