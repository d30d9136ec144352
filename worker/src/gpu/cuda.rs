//! A GPU's context, streams, events and kernels. Set-up goes through cudarc; what runs for every picture goes through our
//! own table, whose codes decide about the life of the process.
#![expect(unsafe_code, reason = "CUDA driver calls")]

use cudarc::driver::{CudaContext, CudaFunction, CudaModule, DriverError};
use cudarc::nvrtc::Ptx;
use rung::pixels::health::PciAddress;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::error::{Error, Library, NOT_READY};
use super::load::{Driver, Status, check};

/// What a GPU is called by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GpuName {
    /// In the driver's order.
    Index(u32),
    Slot(PciAddress),
}

impl fmt::Display for GpuName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GpuName::Index(index) => write!(f, "{index}"),
            GpuName::Slot(slot) => write!(f, "in slot {slot}"),
        }
    }
}

/// `1`, or `0000:3b:00`.
impl FromStr for GpuName {
    type Err = ();

    fn from_str(text: &str) -> Result<GpuName, ()> {
        let index = text.parse().map(GpuName::Index);
        index.or_else(|_| text.parse().map(GpuName::Slot))
    }
}

/// One GPU, through its primary context. Cheap to share; `bind` makes it current on the calling thread.
pub struct Device {
    driver: Arc<Driver>,
    context: Arc<CudaContext>,
    ordinal: u32,
}

impl Device {
    /// Retains the GPU's primary context. Threads that wait for the GPU sleep.
    ///
    /// # Errors
    /// No such GPU, or the driver's refusal.
    pub fn open(driver: &Arc<Driver>, gpu: GpuName) -> Result<Arc<Device>, Error> {
        let ordinal = ordinal(driver, gpu)?;
        let context = CudaContext::new(ordinal as usize).map_err(|e| refused(e, "the context of a GPU"))?;
        // Order between streams is ours to keep, by events.
        // SAFETY: no cudarc allocation is ever made, so there is nothing whose use could go untracked.
        unsafe { context.disable_event_tracking() };
        let device = Device { driver: Arc::clone(driver), context, ordinal };
        device.bind()?;
        let slept = device.context.set_blocking_synchronize();
        slept.map_err(|e| refused(e, "cuCtxSetFlags"))?;
        Ok(Arc::new(device))
    }

    pub fn driver(&self) -> &Driver {
        &self.driver
    }

    /// The GPU's index in the driver's order.
    pub fn ordinal(&self) -> u32 {
        self.ordinal
    }

    /// The context, for interfaces that take it as a device.
    pub fn context(&self) -> *mut c_void {
        self.context.cu_ctx().cast()
    }

    /// Makes the context current on this thread. Every thread does it once before it calls anything else, and what is
    /// dropped does it again: a thread of another GPU may be the last owner.
    ///
    /// # Errors
    /// The context is gone: the process must end.
    pub fn bind(&self) -> Result<(), Error> {
        // SAFETY: the context is retained by `self`.
        check(unsafe { (self.driver.cuda.cuCtxSetCurrent)(self.context()) }, "cuCtxSetCurrent")
    }

    /// Its name, as the driver tells it.
    ///
    /// # Errors
    /// The driver's.
    pub fn name(&self) -> Result<String, Error> {
        self.context.name().map_err(|e| refused(e, "cuDeviceGetName"))
    }

    /// Compute capability.
    ///
    /// # Errors
    /// The driver's.
    pub fn capability(&self) -> Result<(i32, i32), Error> {
        self.context.compute_capability().map_err(|e| refused(e, "cuDeviceGetAttribute"))
    }

    /// Free and total device memory, bytes.
    ///
    /// # Errors
    /// The driver's.
    pub fn memory(&self) -> Result<(u64, u64), Error> {
        self.bind()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: writes two sizes; the context is current.
        let status = unsafe { (self.driver.cuda.cuMemGetInfo_v2)(&raw mut free, &raw mut total) };
        self.check(status, "cuMemGetInfo")?;
        Ok((free as u64, total as u64))
    }

    /// A status as a result, with the driver's own words.
    ///
    /// # Errors
    /// Anything but 0.
    pub fn check(&self, status: Status, what: &str) -> Result<(), Error> {
        if status == 0 {
            return Ok(());
        }
        let mut words: *const c_char = std::ptr::null();
        // SAFETY: writes a pointer to a static text, or null for a code it does not know.
        let known = unsafe { (self.driver.cuda.cuGetErrorString)(status, &raw mut words) };
        let error = Error::new(Library::Cuda, status, what);
        if known != 0 || words.is_null() {
            return Err(error);
        }
        // SAFETY: a zero-terminated text that lives as long as the library.
        Err(error.words(unsafe { CStr::from_ptr(words) }.to_string_lossy()))
    }
}

// SAFETY: the context behind it may be current on any number of threads; every method binds it to its caller's.
unsafe impl Send for Device {}
// SAFETY: as above; the driver locks its own state.
unsafe impl Sync for Device {}

/// A name's index in the driver's order, which changes when a card is lost.
fn ordinal(driver: &Driver, gpu: GpuName) -> Result<u32, Error> {
    let count = driver.gpus()?;
    let found = match gpu {
        GpuName::Index(index) => (index < count).then_some(index),
        GpuName::Slot(wanted) => (0..count).find(|ordinal| slot(driver, *ordinal) == Ok(wanted)),
    };
    found.ok_or_else(|| Error::new(Library::Cuda, NO_DEVICE, format!("there is no GPU {gpu}; the driver has {count}")))
}

/// Where the GPU of that index is plugged in.
///
/// # Errors
/// The driver's.
pub fn slot(driver: &Driver, ordinal: u32) -> Result<PciAddress, Error> {
    let part = |attribute: c_uint| {
        let mut value: c_int = 0;
        // SAFETY: writes one integer; a device handle is the device's index.
        let status = unsafe { (driver.cuda.cuDeviceGetAttribute)(&raw mut value, attribute, ordinal.cast_signed()) };
        check(status, "cuDeviceGetAttribute").map(|()| value.cast_unsigned())
    };
    let [domain, bus, device] = [part(PCI_DOMAIN)?, part(PCI_BUS)?, part(PCI_DEVICE)?];
    // The bus has eight bits of it, the device five.
    Ok(PciAddress { domain, bus: bus as u8, device: device as u8 })
}

/// CUDA_ERROR_INVALID_DEVICE.
const NO_DEVICE: Status = 101;
/// CU_DEVICE_ATTRIBUTE_PCI_BUS_ID, _DEVICE_ID, _DOMAIN_ID.
const PCI_BUS: c_uint = 33;
const PCI_DEVICE: c_uint = 34;
const PCI_DOMAIN: c_uint = 50;

fn refused(error: DriverError, what: &str) -> Error {
    Error::new(Library::Cuda, error.0 as u32, what)
}

/// Work in order, beside other streams. Ends with everything on it done.
pub struct Stream {
    device: Arc<Device>,
    raw: *mut c_void,
}

impl Stream {
    /// # Errors
    /// The driver's.
    pub fn new(device: &Arc<Device>) -> Result<Stream, Error> {
        const NON_BLOCKING: u32 = 1;
        device.bind()?;
        let mut raw = std::ptr::null_mut();
        // SAFETY: writes a handle; the context is current.
        let status = unsafe { (device.driver.cuda.cuStreamCreate)(&raw mut raw, NON_BLOCKING) };
        device.check(status, "cuStreamCreate")?;
        Ok(Stream { device: Arc::clone(device), raw })
    }

    pub fn raw(&self) -> *mut c_void {
        self.raw
    }

    pub fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// Waits until everything on it is done.
    ///
    /// # Errors
    /// The driver's, also for what ran on the stream.
    pub fn wait_done(&self) -> Result<(), Error> {
        // SAFETY: a live stream of the current context (its user bound it).
        let status = unsafe { (self.device.driver.cuda.cuStreamSynchronize)(self.raw) };
        self.device.check(status, "cuStreamSynchronize")
    }

    /// What is queued from here on waits on the GPU until `event` has happened.
    ///
    /// # Errors
    /// The driver's.
    pub fn follow(&self, event: &Event) -> Result<(), Error> {
        // SAFETY: a live stream and a live event of one context.
        let status = unsafe { (self.device.driver.cuda.cuStreamWaitEvent)(self.raw, event.raw, 0) };
        self.device.check(status, "cuStreamWaitEvent")
    }
}

// SAFETY: a stream may be used from any thread that has its context current; the driver locks it.
unsafe impl Send for Stream {}
// SAFETY: as above.
unsafe impl Sync for Stream {}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.device.bind().is_ok() {
            // A stream that can not be destroyed belongs to a context that is gone, and goes with it.
            // SAFETY: owned, destroyed once; the driver finishes what is on it.
            unsafe { (self.device.driver.cuda.cuStreamDestroy_v2)(self.raw) };
        }
    }
}

/// A point in a stream. Waiting for it sleeps.
pub struct Event {
    device: Arc<Device>,
    raw: *mut c_void,
}

/// Whether an event can also tell times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timing {
    Off,
    On,
}

impl Event {
    /// # Errors
    /// The driver's.
    pub fn new(device: &Arc<Device>, timing: Timing) -> Result<Event, Error> {
        const BLOCKING_SYNC: u32 = 1;
        const DISABLE_TIMING: u32 = 2;
        device.bind()?;
        let flags = if timing == Timing::Off { BLOCKING_SYNC | DISABLE_TIMING } else { BLOCKING_SYNC };
        let mut raw = std::ptr::null_mut();
        // SAFETY: writes a handle; the context is current.
        let status = unsafe { (device.driver.cuda.cuEventCreate)(&raw mut raw, flags) };
        device.check(status, "cuEventCreate")?;
        Ok(Event { device: Arc::clone(device), raw })
    }

    /// Happens when what is on `stream` so far is done.
    ///
    /// # Errors
    /// The driver's.
    pub fn record(&self, stream: &Stream) -> Result<(), Error> {
        // SAFETY: a live event and a live stream of one context.
        let status = unsafe { (self.device.driver.cuda.cuEventRecord)(self.raw, stream.raw) };
        self.device.check(status, "cuEventRecord")
    }

    /// Whether it has happened; an event never recorded has.
    ///
    /// # Errors
    /// The driver's, also for what ran before it.
    pub fn has_happened(&self) -> Result<bool, Error> {
        // SAFETY: a live event.
        match unsafe { (self.device.driver.cuda.cuEventQuery)(self.raw) } {
            NOT_READY => Ok(false),
            status => self.device.check(status, "cuEventQuery").map(|()| true),
        }
    }

    /// Waits until it has happened.
    ///
    /// # Errors
    /// The driver's, also for what ran before it.
    pub fn wait(&self) -> Result<(), Error> {
        // SAFETY: a live event.
        let status = unsafe { (self.device.driver.cuda.cuEventSynchronize)(self.raw) };
        self.device.check(status, "cuEventSynchronize")
    }

    /// Milliseconds from `earlier` to this one; both were recorded with timing and have happened.
    ///
    /// # Errors
    /// The driver's.
    pub fn ms_since(&self, earlier: &Event) -> Result<f32, Error> {
        let mut ms = 0.0;
        // SAFETY: two live events of one context; writes one float.
        let status = unsafe { (self.device.driver.cuda.cuEventElapsedTime)(&raw mut ms, earlier.raw, self.raw) };
        self.device.check(status, "cuEventElapsedTime")?;
        Ok(ms)
    }
}

// SAFETY: an event may be used from any thread that has its context current; the driver locks it.
unsafe impl Send for Event {}
// SAFETY: as above.
unsafe impl Sync for Event {}

impl Drop for Event {
    fn drop(&mut self) {
        if self.device.bind().is_ok() {
            // SAFETY: owned, destroyed once; the driver keeps it until it has happened.
            unsafe { (self.device.driver.cuda.cuEventDestroy_v2)(self.raw) };
        }
    }
}

/// Kernels of one PTX text, compiled by the driver for its GPU.
pub struct Module {
    device: Arc<Device>,
    module: Arc<CudaModule>,
}

impl Module {
    /// # Errors
    /// The driver can not compile it: too new, or damaged.
    pub fn load(device: &Arc<Device>, ptx: &str) -> Result<Module, Error> {
        let module = device.context.load_module(Ptx::from_src(ptx));
        let module = module.map_err(|e| refused(e, "cuModuleLoadData for Rung's kernels"))?;
        Ok(Module { device: Arc::clone(device), module })
    }

    /// # Errors
    /// There is no kernel of this name.
    pub fn kernel(&self, name: &str) -> Result<Kernel, Error> {
        let function = self.module.load_function(name);
        let function = function.map_err(|e| refused(e, "cuModuleGetFunction").while_doing(name))?;
        Ok(Kernel { device: Arc::clone(&self.device), function, name: name.to_owned() })
    }
}

/// A kernel's only parameter.
///
/// # Safety
/// Laid out as the kernel declares it; holds numbers and device addresses, no address of this process' memory.
pub unsafe trait Argument {}

pub struct Kernel {
    device: Arc<Device>,
    function: CudaFunction,
    name: String,
}

impl Kernel {
    /// Queues one launch on `stream`. `argument` is the kernel's only parameter, passed by value. What it points to lives
    /// until the launch is done; a kernel that leaves its memory is an error of the GPU (700), never of this process'.
    ///
    /// # Errors
    /// The driver's.
    pub fn launch<T: Argument>(
        &self,
        stream: &Stream,
        grid: [u32; 3],
        block: [u32; 3],
        argument: &T,
    ) -> Result<(), Error> {
        let mut arguments = [std::ptr::from_ref(argument).cast_mut().cast::<c_void>()];
        let (function, none) = (self.function_handle(), std::ptr::null_mut());
        let [gx, gy, gz] = grid;
        let [bx, by, bz] = block;
        let parameters = arguments.as_mut_ptr();
        let launch = self.device.driver.cuda.cuLaunchKernel;
        // SAFETY: a live function and stream; the driver copies the parameter before it returns, as many bytes as the
        // kernel declares, and those are there (`Argument`).
        let status = unsafe { launch(function, gx, gy, gz, bx, by, bz, 0, stream.raw, parameters, none) };
        self.device.check(status, &self.name)
    }

    fn function_handle(&self) -> *mut c_void {
        self.function.cu_function().cast()
    }
}
