//! The driver's libraries, found at run time, and the functions that Rung calls in them, by name.
#![expect(unsafe_code, reason = "dlopen, and calls into what it found")]

use std::ffi::{c_char, c_int, c_uint, c_void};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::abi;
use super::error::{Error, Library};

/// A status as the driver returns it. Never read as one of the bindings' enums: a code that they do not know would be
/// undefined behaviour.
pub type Status = u32;

/// The version of the encoder's interface that Rung is written against.
pub const ENCODE_API: (u32, u32) = (12, 1);
/// The first driver with it, and the CUDA version that this driver reports (major * 1000 + minor * 10).
pub const DRIVER_MIN: &str = "530.41.03";
const CUDA_MIN: c_int = 12_010;

/// A struct of function pointers, and how it is filled from a library.
macro_rules! functions {
    ($(#[$about:meta])* $table:ident { $($name:ident: fn($($argument:ty),*);)* }) => {
        $(#[$about])*
        #[expect(non_snake_case, reason = "the driver's own names")]
        pub struct $table {
            $(pub $name: unsafe extern "C" fn($($argument),*) -> Status,)*
            _library: libloading::Library,
        }

        impl $table {
            fn of(library: libloading::Library) -> Result<$table, String> {
                Ok($table {
                    $($name: {
                        let name = concat!(stringify!($name), "\0");
                        // SAFETY: the type is the one that the driver's header gives to this name.
                        let found = unsafe { library.get::<unsafe extern "C" fn($($argument),*) -> Status>(name.as_bytes()) };
                        *found.map_err(|_| stringify!($name).to_owned())?
                    },)*
                    _library: library,
                })
            }
        }
    };
}

functions! {
    /// libcuda: what runs for every picture. Contexts and modules are cudarc's.
    Cuda {
        cuInit: fn(c_uint);
        cuDriverGetVersion: fn(*mut c_int);
        cuDeviceGetCount: fn(*mut c_int);
        cuDeviceGetAttribute: fn(*mut c_int, c_uint, c_int);
        cuCtxSetCurrent: fn(*mut c_void);
        cuMemGetInfo_v2: fn(*mut usize, *mut usize);
        cuMemAllocPitch_v2: fn(*mut u64, *mut usize, usize, usize, c_uint);
        cuMemAlloc_v2: fn(*mut u64, usize);
        cuMemFree_v2: fn(u64);
        cuMemHostAlloc: fn(*mut *mut c_void, usize, c_uint);
        cuMemFreeHost: fn(*mut c_void);
        cuMemcpyHtoD_v2: fn(u64, *const c_void, usize);
        cuMemcpyDtoH_v2: fn(*mut c_void, u64, usize);
        cuMemcpy2DAsync_v2: fn(*const cudarc::driver::sys::CUDA_MEMCPY2D, *mut c_void);
        cuMemsetD2D8Async: fn(u64, usize, u8, usize, usize, *mut c_void);
        cuStreamCreate: fn(*mut *mut c_void, c_uint);
        cuStreamDestroy_v2: fn(*mut c_void);
        cuStreamSynchronize: fn(*mut c_void);
        cuStreamWaitEvent: fn(*mut c_void, *mut c_void, c_uint);
        cuEventCreate: fn(*mut *mut c_void, c_uint);
        cuEventDestroy_v2: fn(*mut c_void);
        cuEventRecord: fn(*mut c_void, *mut c_void);
        cuEventQuery: fn(*mut c_void);
        cuEventSynchronize: fn(*mut c_void);
        cuEventElapsedTime: fn(*mut f32, *mut c_void, *mut c_void);
        cuLaunchKernel: fn(
            *mut c_void, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, *mut c_void, *mut *mut c_void,
            *mut *mut c_void);
        cuGetErrorString: fn(Status, *mut *const c_char);
    }
}

functions! {
    /// libnvcuvid: the decoder and its parser.
    Cuvid {
        cuvidGetDecoderCaps: fn(*mut abi::DecoderCaps);
        cuvidCreateDecoder: fn(*mut abi::Decoder, *mut abi::CreateInfo);
        cuvidDestroyDecoder: fn(abi::Decoder);
        cuvidDecodePicture: fn(abi::Decoder, *mut c_void);
        cuvidGetDecodeStatus: fn(abi::Decoder, c_int, *mut abi::DecodeStatus);
        cuvidMapVideoFrame64: fn(abi::Decoder, c_int, *mut u64, *mut c_uint, *mut abi::ProcParams);
        cuvidUnmapVideoFrame64: fn(abi::Decoder, u64);
        cuvidCreateVideoParser: fn(*mut abi::Parser, *mut abi::ParserParams);
        cuvidParseVideoData: fn(abi::Parser, *mut abi::Packet);
        cuvidDestroyVideoParser: fn(abi::Parser);
    }
}

functions! {
    /// libnvidia-encode's two doors; the rest comes as a list of functions.
    Encode {
        NvEncodeAPIGetMaxSupportedVersion: fn(*mut u32);
        NvEncodeAPICreateInstance: fn(*mut c_void);
    }
}

/// The driver of this machine: CUDA always, decoder and encoder where they are installed.
pub struct Driver {
    pub cuda: Cuda,
    pub cuvid: Result<Cuvid, Absent>,
    pub encode: Result<Encode, Absent>,
    /// CUDA version, major * 1000 + minor * 10.
    pub cuda_version: u32,
    folder: Option<PathBuf>,
}

/// Why something of the driver can not be used. `Display` is a sentence for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Absent {
    /// The library is not where the loader or the configuration looks.
    Library {
        name: &'static str,
        folder: Option<PathBuf>,
    },
    /// It is there and can not be used.
    Broken {
        name: &'static str,
        why: String,
    },
    TooOld {
        found: String,
    },
    /// It is installed and does not start.
    Refuses(Error),
    NoGpu,
}

impl Driver {
    /// Opens the libraries in `folder`, or where the loader looks, and starts the driver. Nothing of cudarc may be called
    /// before this has succeeded: it panics where a library is missing.
    ///
    /// # Errors
    /// Why there is no CUDA here, in a sentence.
    pub fn open(folder: Option<&Path>) -> Result<Arc<Driver>, Absent> {
        let cuda = Cuda::of(library("libcuda.so.1", folder)?)
            .map_err(|missing| Absent::TooOld { found: format!("a driver whose libcuda has no {missing}") })?;
        let mut version: c_int = 0;
        // SAFETY: writes one integer; may be called before cuInit.
        let status = unsafe { (cuda.cuDriverGetVersion)(&raw mut version) };
        check(status, "cuDriverGetVersion").map_err(Absent::Refuses)?;
        if version < CUDA_MIN {
            let found = format!("a driver for CUDA {}.{}", version / 1000, version % 1000 / 10);
            return Err(Absent::TooOld { found });
        }
        // SAFETY: no condition; flags must be 0.
        let status = unsafe { (cuda.cuInit)(0) };
        check(status, "cuInit")
            .map_err(|error| if error.code == 100 { Absent::NoGpu } else { Absent::Refuses(error) })?;
        let cuvid = open_cuvid(folder);
        let encode = open_encode(folder);
        let cuda_version = u32::try_from(version).unwrap_or(0);
        Ok(Arc::new(Driver { cuda, cuvid, encode, cuda_version, folder: folder.map(Path::to_path_buf) }))
    }

    /// How many GPUs the driver shows to this process.
    ///
    /// # Errors
    /// The driver's.
    pub fn gpus(&self) -> Result<u32, Error> {
        let mut count: c_int = 0;
        // SAFETY: writes one integer; the driver is started.
        check(unsafe { (self.cuda.cuDeviceGetCount)(&raw mut count) }, "cuDeviceGetCount")?;
        Ok(u32::try_from(count).unwrap_or(0))
    }

    /// Where the libraries were looked for, if not where the loader looks.
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }
}

fn open_cuvid(folder: Option<&Path>) -> Result<Cuvid, Absent> {
    const NAME: &str = "libnvcuvid.so.1";
    Cuvid::of(library(NAME, folder)?)
        .map_err(|missing| Absent::Broken { name: NAME, why: format!("it has no function {missing}") })
}

fn open_encode(folder: Option<&Path>) -> Result<Encode, Absent> {
    const NAME: &str = "libnvidia-encode.so.1";
    let encode = Encode::of(library(NAME, folder)?)
        .map_err(|missing| Absent::Broken { name: NAME, why: format!("it has no function {missing}") })?;
    let mut version = 0;
    // SAFETY: writes one integer.
    let status = unsafe { (encode.NvEncodeAPIGetMaxSupportedVersion)(&raw mut version) };
    if status != 0 {
        return Err(Absent::Refuses(Error::new(Library::Encode, status, "NvEncodeAPIGetMaxSupportedVersion")));
    }
    // Major in the high bits, minor in the low four.
    let (major, minor) = (version >> 4, version & 15);
    if (major, minor) < ENCODE_API {
        return Err(Absent::TooOld { found: format!("a driver whose encoder speaks API {major}.{minor}") });
    }
    Ok(encode)
}

/// Loads a library of the driver for the rest of this process, whoever opens and closes it after that: a thread that ends
/// may still have something to tidy up in it.
///
/// # Errors
/// Why it can not be used, in a sentence.
pub fn keep_loaded(name: &'static str, folder: Option<&Path>) -> Result<(), Absent> {
    std::mem::forget(library(name, folder)?);
    Ok(())
}

fn library(name: &'static str, folder: Option<&Path>) -> Result<libloading::Library, Absent> {
    let path = folder.map_or_else(|| PathBuf::from(name), |folder| folder.join(name));
    let there = folder.is_none() || path.exists();
    // SAFETY: runs the initialisers of a library that carries the driver's name, in the folder that the operator chose or
    // where the system keeps its libraries: it is trusted as the driver is.
    let opened = unsafe { libloading::Library::new(&path) };
    opened.map_err(|error| {
        // Its source says what the loader said.
        let why = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
        if there && !why.contains("cannot open shared object file") {
            return Absent::Broken { name, why };
        }
        Absent::Library { name, folder: folder.map(Path::to_path_buf) }
    })
}

/// A CUresult as a result.
///
/// # Errors
/// Anything but 0.
pub fn check(status: Status, what: &str) -> Result<(), Error> {
    if status == 0 { Ok(()) } else { Err(Error::new(Library::Cuda, status, what)) }
}

impl fmt::Display for Absent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Absent::Library { name, folder: None } => write!(
                f,
                "no NVIDIA driver: {name} was not found; install driver {DRIVER_MIN} or newer, or set \
                 worker.driver_folder to where it lies"
            ),
            Absent::Library { name, folder: Some(folder) } => {
                write!(f, "no {name} in {} (worker.driver_folder)", folder.display())
            }
            Absent::Broken { name, why } => write!(f, "{name} is installed but can not be used: {why}"),
            Absent::TooOld { found } => {
                write!(f, "{found} is too old: Rung needs NVIDIA driver {DRIVER_MIN} or newer")
            }
            Absent::Refuses(error) if error.library == Library::Cuda && error.code == 803 => write!(
                f,
                "the NVIDIA driver in the kernel and its libraries are of different versions (a package was upgraded): \
                 reboot this machine"
            ),
            Absent::Refuses(error) => write!(f, "the NVIDIA driver is installed but does not start: {error}"),
            Absent::NoGpu => write!(f, "an NVIDIA driver is installed, but it sees no GPU"),
        }
    }
}

impl std::error::Error for Absent {}
