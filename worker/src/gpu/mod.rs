//! Purpose: everything that speaks to the NVIDIA driver: its libraries are found at run time, never linked.
//! Time: none; tags and indices of the caller ride along.
//! Invariants: one primary context per GPU and process, current on every thread that calls; statuses are read as plain
//! integers; a picture stays in device memory unless `picture` copies it, and that is counted.
//! When it fails: `Error` names the call and the driver's code. A sticky code ends the process: nothing in it can be
//! trusted any more, and only its end gives the memory back.
#![expect(unsafe_code, reason = "promises about the layout of kernels' parameters")]

pub mod abi; // the decoder's structs
pub mod cuda; // a GPU's context, streams, events, launches
pub mod error; // the driver's codes
pub mod frame_hash; // launch: a number for a picture
pub mod ladder; // launch: one surface to all renditions; the PTX
pub mod load; // libraries and their functions
pub mod memory; // device memory and pinned host memory
pub mod nvdec; // NVDEC
pub mod nvenc; // NVENC
pub mod probe; // which GPUs there are
pub mod watch; // calls that hang, seen from outside

use std::sync::Arc;

use cuda::{Argument, Device, GpuName, Kernel, Module};
use error::Error;
use load::{Absent, Driver};

/// How wide the samples of a surface are, two planes of 4:2:0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// NV12.
    Eight,
    /// P016 (for the encoder P010): 16 bit a sample, the ten high ones count.
    Ten,
}

impl Depth {
    pub fn bits(self) -> u32 {
        match self {
            Depth::Eight => 8,
            Depth::Ten => 10,
        }
    }

    /// Bytes of a sample in memory.
    pub fn bytes(self) -> usize {
        match self {
            Depth::Eight => 1,
            Depth::Ten => 2,
        }
    }
}

/// One GPU with Rung's kernels on it: what the channels of a process share.
pub struct Gpu {
    pub device: Arc<Device>,
    pub ladder: Kernel,
    pub ladder_ten: Kernel,
    /// The encoder's interface, or why there is none.
    pub encode: Result<Arc<nvenc::Api>, Absent>,
}

impl Gpu {
    /// # Errors
    /// No such GPU; the driver's; the kernels can not be translated.
    pub fn open(driver: &Arc<Driver>, gpu: GpuName) -> Result<Gpu, Error> {
        let device = Device::open(driver, gpu)?;
        let module = Module::load(&device, ladder::PTX)?;
        let ladder_ten = module.kernel(ladder::KERNEL_TEN)?;
        let encode = nvenc::Api::open(driver);
        Ok(Gpu { ladder: module.kernel(ladder::KERNEL)?, ladder_ten, encode, device })
    }
}

// SAFETY: `#[repr(C)]` as in `kernels/ladder.h`, its size asserted there and here; device addresses only.
unsafe impl Argument for ladder::LadderArguments {}
// SAFETY: `#[repr(C)]` as in `kernels/hash.h`, its size asserted there and here; device addresses only.
unsafe impl Argument for frame_hash::HashArguments {}
