//! The kernels of `kernels/*.cu`, built for the CPU: what the double of libcuda launches, and what tests compare the
//! scalar form with. Blocks are spread over threads; the threads of a block run one after another, which is enough
//! because no kernel shares memory or waits within a block.
#![expect(unsafe_code, reason = "calls into the C++ build of the kernels")]

use std::ffi::{CStr, c_char, c_void};
use std::sync::atomic::{AtomicU64, Ordering};

/// One kernel by its name in the PTX.
#[derive(Clone, Copy)]
pub struct Kernel(&'static Entry);

/// The kernel of this name, as `cuModuleGetFunction` would find it.
pub fn find(name: &str) -> Option<Kernel> {
    all().iter().find(|entry| entry.name().to_bytes() == name.as_bytes()).map(Kernel)
}

/// The names of all kernels.
pub fn names() -> impl Iterator<Item = &'static str> {
    all().iter().map(|entry| entry.name().to_str().expect("names of C++ functions are ASCII"))
}

impl Kernel {
    /// `sizeof` of each parameter, in order: what the PTX must declare.
    pub fn parameter_bytes(&self) -> &'static [usize] {
        // SAFETY: the table's pointer and count describe one static array.
        unsafe { std::slice::from_raw_parts(self.0.bytes, self.0.count) }
    }

    /// Runs the kernel to its end. Sides of 0 run nothing.
    ///
    /// # Safety
    /// `parameters` points to as many pointers as the kernel has parameters, each to a value of that parameter's type
    /// (alignment included), and every address in those values is one that the kernel may read or write as it does.
    pub unsafe fn launch(&self, grid: [u32; 3], block: [u32; 3], parameters: *mut *mut c_void) {
        let blocks: u64 = grid.iter().map(|n| u64::from(*n)).product();
        let workers = std::thread::available_parallelism().map_or(1, |n| n.get().min(WORKERS_MAX));
        let call = Call { entry: self.0, grid, block, parameters, blocks, next: AtomicU64::new(0) };
        if blocks <= BLOCKS_AT_ONCE {
            return call.work();
        }
        std::thread::scope(|scope| {
            for _ in 1..workers {
                scope.spawn(|| call.work());
            }
            call.work();
        });
    }
}

struct Call {
    entry: &'static Entry,
    grid: [u32; 3],
    block: [u32; 3],
    parameters: *mut *mut c_void,
    blocks: u64,
    next: AtomicU64,
}

// SAFETY: kernels only read their parameters, and a kernel's threads may run at once: they do on a card.
unsafe impl Sync for Call {}

impl Call {
    fn work(&self) {
        loop {
            let from = self.next.fetch_add(BLOCKS_AT_ONCE, Ordering::Relaxed);
            if from >= self.blocks {
                return;
            }
            let to = (from + BLOCKS_AT_ONCE).min(self.blocks);
            // SAFETY: whoever launched promised that the parameters are the kernel's; the range lies in the grid.
            unsafe { (self.entry.run)(self.grid.as_ptr(), self.block.as_ptr(), self.parameters, from, to) };
        }
    }
}

/// As in `cpu.cpp`.
#[repr(C)]
struct Entry {
    name: *const c_char,
    run: unsafe extern "C" fn(*const u32, *const u32, *mut *mut c_void, u64, u64),
    bytes: *const usize,
    count: usize,
}

// SAFETY: the table and all it points to are constants.
unsafe impl Sync for Entry {}

impl Entry {
    fn name(&self) -> &'static CStr {
        // SAFETY: the table holds string literals.
        unsafe { CStr::from_ptr(self.name) }
    }
}

unsafe extern "C" {
    fn rung_kernels(count: *mut usize) -> *const Entry;
}

fn all() -> &'static [Entry] {
    let mut count = 0;
    // SAFETY: `count` is a size_t to write to.
    let first = unsafe { rung_kernels(&raw mut count) };
    // SAFETY: the function returned a static array and wrote its length.
    unsafe { std::slice::from_raw_parts(first, count) }
}

/// Blocks a thread takes at a time; a launch of no more runs where it was called.
const BLOCKS_AT_ONCE: u64 = 16;
const WORKERS_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_found_by_name_and_run_over_every_block() {
        assert!(find("no_such_kernel").is_none());
        assert!(names().any(|name| name == "rung_frame_hash"));
        let kernel = find("rung_frame_hash").expect("the hash");
        assert_eq!(kernel.parameter_bytes(), [48]);
        // A picture of 8192 x 1: its interleaved chroma is as long as its luma, so both may be the same bytes.
        let (luma, mut sums) = (vec![0x0101_0101_u32; 2048], [0_u64; 64]);
        let addresses = [luma.as_ptr().addr(), luma.as_ptr().addr(), 0, sums.as_mut_ptr().addr()];
        let mut argument = [0_u64; 6];
        for (to, from) in argument.iter_mut().zip(addresses) {
            *to = from as u64;
        }
        argument[4] = 8192 << 32 | 8192;
        argument[5] = 1 << 32 | 8192;
        let mut parameters = [argument.as_mut_ptr().cast::<c_void>()];
        // SAFETY: 48 bytes of addresses and sizes, as `HashArguments` is laid out; all planes are 8192 bytes.
        unsafe { kernel.launch([32, 1, 1], [128, 1, 1], parameters.as_mut_ptr()) };
        assert!(sums.iter().all(|sum| *sum != 0), "{sums:?}");
    }
}
