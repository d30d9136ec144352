//! The libcuda that the process has loaded: the double's or a real one.
#![expect(unsafe_code, reason = "libcuda FFI")]

use std::ffi::c_void;
use std::sync::OnceLock;

use libloading::os::unix::{Library, RTLD_NOW, Symbol};

type Code = u32;

/// The functions that are used. `aside`, `kind` and `lock` are the double's own.
pub(crate) struct Cuda {
    context: Symbol<unsafe extern "C" fn(*mut u64) -> Code>,
    set_context: Symbol<unsafe extern "C" fn(u64) -> Code>,
    device: Symbol<unsafe extern "C" fn(*mut i32) -> Code>,
    copy_out: Symbol<unsafe extern "C" fn(*mut c_void, u64, usize) -> Code>,
    range: Option<Symbol<unsafe extern "C" fn(*mut u64, *mut usize, u64) -> Code>>,
    synchronise: Symbol<unsafe extern "C" fn(u64) -> Code>,
    aside: Option<Symbol<unsafe extern "C" fn(i32)>>,
    kind: Option<Symbol<unsafe extern "C" fn(u64) -> i32>>,
    lock: Option<Symbol<unsafe extern "C" fn(u64, usize, i32) -> i32>>,
    _library: Library,
}

impl Cuda {
    /// None where no libcuda can be loaded.
    pub(crate) fn get() -> Option<&'static Cuda> {
        LOADED.get_or_init(Cuda::load).as_ref()
    }

    fn load() -> Option<Cuda> {
        // SAFETY: this takes a reference to a library whose start code has run.
        let loaded = unsafe { Library::open(Some("libcuda.so.1"), NOLOAD | RTLD_NOW) };
        // SAFETY: the driver's library may be loaded by whoever wants to use it.
        let library = loaded.or_else(|_| unsafe { Library::open(Some("libcuda.so.1"), RTLD_NOW) }).ok()?;
        Some(Cuda {
            context: function(&library, "cuCtxGetCurrent")?,
            set_context: function(&library, "cuCtxSetCurrent")?,
            device: function(&library, "cuCtxGetDevice")?,
            copy_out: function(&library, "cuMemcpyDtoH_v2")?,
            range: function(&library, "cuMemGetAddressRange_v2"),
            synchronise: function(&library, "cuStreamSynchronize")?,
            aside: function(&library, "rung_double_aside"),
            kind: function(&library, "rung_double_memory_kind"),
            lock: function(&library, "rung_double_lock_range"),
            _library: library,
        })
    }

    /// The calling thread's context; 0 = none.
    pub(crate) fn context(&self) -> Result<u64, Code> {
        let _aside = Aside::begin(self);
        let mut context = 0;
        // SAFETY: writes one handle to a place of that size.
        check(unsafe { (self.context)(&raw mut context) })?;
        Ok(context)
    }

    /// Makes `context` the calling thread's for as long as `body` runs.
    ///
    /// # Errors
    /// libcuda's code when it is no context.
    pub(crate) fn within<T>(&self, context: u64, body: impl FnOnce() -> T) -> Result<T, Code> {
        let _aside = Aside::begin(self);
        let before = self.context()?;
        self.make_current(context)?;
        let result = body();
        self.make_current(before)?;
        Ok(result)
    }

    pub(crate) fn make_current(&self, context: u64) -> Result<(), Code> {
        // SAFETY: a handle, which libcuda judges.
        check(unsafe { (self.set_context)(context) })
    }

    /// The GPU of the thread's context.
    pub(crate) fn device(&self) -> Result<i32, Code> {
        let mut device = 0;
        // SAFETY: writes one number to a place of that size.
        check(unsafe { (self.device)(&raw mut device) })?;
        Ok(device)
    }

    /// Copies device memory into `to`.
    pub(crate) fn read(&self, from: u64, to: &mut [u8]) -> Result<(), Code> {
        let _aside = Aside::begin(self);
        // SAFETY: `to` is that long; libcuda judges the device's side.
        check(unsafe { (self.copy_out)(to.as_mut_ptr().cast(), from, to.len()) })
    }

    /// Waits for all that was submitted to `stream`; 0 is the default stream.
    pub(crate) fn wait(&self, stream: u64) -> Result<(), Code> {
        let _aside = Aside::begin(self);
        // SAFETY: a handle, which libcuda judges.
        check(unsafe { (self.synchronise)(stream) })
    }

    /// What lies at `address`, for an encoder.
    pub(crate) fn memory(&self, address: u64) -> Memory {
        // SAFETY: the double takes any number.
        match self.kind.as_ref().map(|kind| unsafe { kind(address) }) {
            Some(3) => return Memory::Pool,
            Some(0 | 4) => return Memory::None,
            _ => {}
        }
        let _aside = Aside::begin(self);
        let Some(range) = &self.range else { return Memory::Device(usize::MAX) };
        let (mut base, mut size) = (0, 0);
        // SAFETY: writes an address and a size to places of their sizes.
        match check(unsafe { range(&raw mut base, &raw mut size, address) }) {
            Ok(()) => Memory::Device(size.saturating_sub((address - base) as usize)),
            Err(_) => Memory::None,
        }
    }

    /// Nobody is to write these bytes until they are unlocked.
    pub(crate) fn lock(&self, address: u64, length: usize) {
        self.change_lock(address, length, 1);
    }

    /// With the numbers of `lock`.
    pub(crate) fn unlock(&self, address: u64, length: usize) {
        self.change_lock(address, length, -1);
    }

    fn change_lock(&self, address: u64, length: usize, change: i32) {
        if let Some(lock) = &self.lock {
            // SAFETY: the double takes any numbers.
            unsafe { lock(address, length, change) };
        }
    }
}

/// What an address is to an encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Memory {
    /// No device memory.
    None,
    /// Of `cuMemAllocAsync`, which a card's encoder refuses. A real libcuda is not asked.
    Pool,
    /// So many bytes to the end of the allocation.
    Device(usize),
}

/// While it lives, the double's libcuda counts this thread's copies as a codec's and plays no faults.
struct Aside(&'static Cuda);

impl Aside {
    fn begin(cuda: &Cuda) -> Option<Aside> {
        let cuda = Cuda::get().filter(|one| std::ptr::eq(*one, cuda))?;
        Aside::change(cuda, 1);
        Some(Aside(cuda))
    }

    fn change(cuda: &Cuda, by: i32) {
        if let Some(aside) = &cuda.aside {
            // SAFETY: counts on the calling thread.
            unsafe { aside(by) };
        }
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        Aside::change(self.0, -1);
    }
}

fn function<F>(library: &Library, name: &str) -> Option<Symbol<F>> {
    // SAFETY: the types above are those of cuda.h and of the double.
    unsafe { library.get(name) }.ok()
}

fn check(code: Code) -> Result<(), Code> {
    if code == 0 { Ok(()) } else { Err(code) }
}

static LOADED: OnceLock<Option<Cuda>> = OnceLock::new();

/// Linux: take a library only when it is loaded already.
const NOLOAD: i32 = 4;
