//! Device memory and pinned host memory, and the copies between them.
#![expect(unsafe_code, reason = "CUDA memory calls, and slices over pinned memory")]

use cudarc::driver::sys::{CUDA_MEMCPY2D, CUmemorytype};
use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::Arc;

use super::cuda::{Device, Stream};
use super::error::Error;

/// Rows of device memory at a pitch that suits the GPU. Plain memory, as encoders want it (they refuse what comes from a
/// stream-ordered pool).
pub struct Block {
    device: Arc<Device>,
    address: u64,
    pitch: usize,
    row_bytes: usize,
    rows: usize,
}

impl Block {
    /// `rows` rows of at least `row_bytes` bytes; contents are undefined.
    ///
    /// # Errors
    /// Out of device memory, or the driver's.
    pub fn new(device: &Arc<Device>, row_bytes: usize, rows: usize) -> Result<Block, Error> {
        /// The widest element that a kernel reads at once.
        const ELEMENT: u32 = 16;
        device.bind()?;
        let (mut address, mut pitch) = (0, 0);
        let alloc = device.driver().cuda.cuMemAllocPitch_v2;
        // SAFETY: writes an address and a pitch; the context is current.
        let status = unsafe { alloc(&raw mut address, &raw mut pitch, row_bytes, rows, ELEMENT) };
        device
            .check(status, "cuMemAllocPitch")
            .map_err(|e| e.while_doing(&format!("{rows} rows of {row_bytes} bytes")))?;
        Ok(Block { device: Arc::clone(device), address, pitch, row_bytes, rows })
    }

    /// One row that holds `bytes`.
    ///
    /// # Errors
    /// As `new`; and the copy's.
    pub fn holding(device: &Arc<Device>, bytes: &[u8]) -> Result<Block, Error> {
        device.bind()?;
        let mut address = 0;
        // SAFETY: writes an address; the context is current.
        let status = unsafe { (device.driver().cuda.cuMemAlloc_v2)(&raw mut address, bytes.len()) };
        device.check(status, "cuMemAlloc").map_err(|e| e.while_doing(&format!("{} bytes", bytes.len())))?;
        let (pitch, row_bytes) = (bytes.len(), bytes.len());
        let block = Block { device: Arc::clone(device), address, pitch, row_bytes, rows: 1 };
        let copy = device.driver().cuda.cuMemcpyHtoD_v2;
        // SAFETY: the block was made with this size; the slice is alive until the copy has returned.
        let status = unsafe { copy(address, bytes.as_ptr().cast(), bytes.len()) };
        device.check(status, "cuMemcpyHtoD")?;
        // Of memory that is not pinned the call may come back before the copy is there, and other streams do not wait.
        // SAFETY: the default stream of the current context.
        let status = unsafe { (device.driver().cuda.cuStreamSynchronize)(std::ptr::null_mut()) };
        device.check(status, "cuStreamSynchronize")?;
        Ok(block)
    }

    pub fn address(&self) -> u64 {
        self.address
    }

    /// Bytes from one row to the next.
    pub fn pitch(&self) -> usize {
        self.pitch
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Every byte of every row, in stream order.
    ///
    /// # Errors
    /// The driver's.
    pub fn fill(&self, stream: &Stream, rows: std::ops::Range<usize>, value: u8) -> Result<(), Error> {
        assert!(rows.end <= self.rows, "the rows lie in the block");
        let at = self.address + (rows.start * self.pitch) as u64;
        let set = self.device.driver().cuda.cuMemsetD2D8Async;
        // SAFETY: the rows lie in the block, which lives as long as its stream's work: `Drop` waits for the GPU.
        let status = unsafe { set(at, self.pitch, value, self.row_bytes, rows.len(), stream.raw()) };
        self.device.check(status, "cuMemsetD2D8Async")
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if self.device.bind().is_ok() {
            // In a context that is gone the memory goes with the process.
            // SAFETY: owned, freed once; the driver waits for what still uses it.
            unsafe { (self.device.driver().cuda.cuMemFree_v2)(self.address) };
        }
    }
}

/// Page-locked host memory: copies to and from it run beside everything else.
pub struct Pinned {
    device: Arc<Device>,
    at: NonNull<u8>,
    len: usize,
}

impl Pinned {
    /// # Errors
    /// Out of memory that may be locked, or the driver's.
    pub fn new(device: &Arc<Device>, len: usize) -> Result<Pinned, Error> {
        device.bind()?;
        let mut at: *mut c_void = std::ptr::null_mut();
        // SAFETY: writes an address; the context is current.
        let status = unsafe { (device.driver().cuda.cuMemHostAlloc)(&raw mut at, len, 0) };
        device.check(status, "cuMemHostAlloc").map_err(|e| e.while_doing(&format!("{len} pinned bytes")))?;
        let at = NonNull::new(at.cast::<u8>()).ok_or_else(|| {
            Error::new(super::error::Library::Cuda, super::error::OUT_OF_MEMORY, "cuMemHostAlloc gave nothing")
        })?;
        let mut pinned = Pinned { device: Arc::clone(device), at, len };
        pinned.bytes_mut().fill(0);
        Ok(pinned)
    }

    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `len` bytes, alive with `self`, set at the start; nobody writes while `self` is borrowed: `download`
        // takes it exclusively and the GPU is done with it when that returns.
        unsafe { std::slice::from_raw_parts(self.at.as_ptr(), self.len) }
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as `bytes`, borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.at.as_ptr(), self.len) }
    }
}

// SAFETY: plain memory that this value owns.
unsafe impl Send for Pinned {}
// SAFETY: shared access only reads.
unsafe impl Sync for Pinned {}

impl Drop for Pinned {
    fn drop(&mut self) {
        if self.device.bind().is_ok() {
            // SAFETY: owned, freed once.
            unsafe { (self.device.driver().cuda.cuMemFreeHost)(self.at.as_ptr().cast()) };
        }
    }
}

/// Rows of a plane somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rows {
    /// Bytes from the start of the memory to the first row.
    pub offset: usize,
    /// Bytes from one row to the next.
    pub pitch: usize,
}

/// One plane of a copy: where its rows lie on the GPU and on the host, and how many of how many bytes there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plane {
    pub device: Rows,
    pub host: Rows,
    pub width: usize,
    pub height: usize,
}

/// Copies planes to the host, behind what is on `stream`, and waits until they are there.
///
/// # Errors
/// The driver's, also for what ran on the stream before.
pub fn download(stream: &Stream, from: &Block, to: &mut Pinned, planes: &[Plane]) -> Result<(), Error> {
    let queued = planes.iter().try_for_each(|plane| {
        fits(from.pitch * from.rows, plane.device, plane);
        fits(to.len, plane.host, plane);
        let mut copy = blank(plane);
        copy.srcMemoryType = CUmemorytype::CU_MEMORYTYPE_DEVICE;
        copy.srcDevice = from.address + plane.device.offset as u64;
        copy.srcPitch = plane.device.pitch;
        copy.dstMemoryType = CUmemorytype::CU_MEMORYTYPE_HOST;
        copy.dstHost = to.bytes_mut()[plane.host.offset..].as_mut_ptr().cast();
        copy.dstPitch = plane.host.pitch;
        queue(stream, &copy)
    });
    // Also after a refusal: what was queued before it still uses the memory.
    let done = stream.wait_done();
    queued.and(done)
}

/// Copies planes to the GPU, in stream order, and waits until they are there.
///
/// # Errors
/// The driver's, also for what ran on the stream before.
pub fn upload(stream: &Stream, from: &Pinned, to: &Block, planes: &[Plane]) -> Result<(), Error> {
    let queued = planes.iter().try_for_each(|plane| {
        fits(from.len, plane.host, plane);
        fits(to.pitch * to.rows, plane.device, plane);
        let mut copy = blank(plane);
        copy.srcMemoryType = CUmemorytype::CU_MEMORYTYPE_HOST;
        copy.srcHost = from.bytes()[plane.host.offset..].as_ptr().cast();
        copy.srcPitch = plane.host.pitch;
        copy.dstMemoryType = CUmemorytype::CU_MEMORYTYPE_DEVICE;
        copy.dstDevice = to.address + plane.device.offset as u64;
        copy.dstPitch = plane.device.pitch;
        queue(stream, &copy)
    });
    // Also after a refusal: what was queued before it still uses the memory.
    let done = stream.wait_done();
    queued.and(done)
}

fn fits(len: usize, rows: Rows, plane: &Plane) {
    let (width, height) = (plane.width, plane.height);
    assert!(rows.pitch >= width, "a pitch of {} holds rows of {width}", rows.pitch);
    let needed = rows.offset + rows.pitch * height.saturating_sub(1) + width;
    assert!(height == 0 || needed <= len, "{len} bytes hold {height} rows of {width} from {}", rows.offset);
}

fn blank(plane: &Plane) -> CUDA_MEMCPY2D {
    CUDA_MEMCPY2D {
        srcXInBytes: 0,
        srcY: 0,
        srcMemoryType: CUmemorytype::CU_MEMORYTYPE_HOST,
        srcHost: std::ptr::null(),
        srcDevice: 0,
        srcArray: std::ptr::null_mut(),
        srcPitch: 0,
        dstXInBytes: 0,
        dstY: 0,
        dstMemoryType: CUmemorytype::CU_MEMORYTYPE_HOST,
        dstHost: std::ptr::null_mut(),
        dstDevice: 0,
        dstArray: std::ptr::null_mut(),
        dstPitch: 0,
        WidthInBytes: plane.width,
        Height: plane.height,
    }
}

fn queue(stream: &Stream, copy: &CUDA_MEMCPY2D) -> Result<(), Error> {
    let device = stream.device();
    // SAFETY: both ends were checked against their memory by the callers; the description is copied before the call
    // returns.
    let status = unsafe { (device.driver().cuda.cuMemcpy2DAsync_v2)(std::ptr::from_ref(copy), stream.raw()) };
    device.check(status, "cuMemcpy2DAsync")
}
