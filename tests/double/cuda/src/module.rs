//! Modules of PTX text, and launches. The double compiles nothing: a kernel of the text is the kernel of the same name
//! and parameters of the CPU build. It can not look into pointers that a launch hands over; what they point to is
//! guarded by pages that nobody may touch.
#![expect(unsafe_code, reason = "exports the driver's C ABI and calls kernels by address")]

use std::collections::BTreeMap;
use std::ffi::{c_char, c_void};

use rung_double_kernels::Kernel;

use crate::abi::{Answer, Code, In, Out, broken, counted, fault, in_context, refuse};
use crate::codes::{
    INVALID_HANDLE, INVALID_IMAGE, INVALID_PTX, INVALID_VALUE, NO_BINARY_FOR_GPU, NOT_FOUND, NOT_SUPPORTED,
    UNSUPPORTED_PTX_VERSION,
};
use crate::context::Here;
use crate::device::{BLOCK_Z_MAX, GRID_YZ_MAX, SHARED_BYTES_MAX, THREADS_MAX, capability, cuda_version};
use crate::ptx::{self, Ptx};
use crate::stream::{played_in_stream, submit};
use crate::world::{Kind, world};

pub(crate) struct Module {
    pub(crate) context: u64,
    kernels: BTreeMap<String, Kernel>,
    version: (u32, u32),
}

#[derive(Clone, Copy)]
pub(crate) struct Function {
    pub(crate) module: u64,
    context: u64,
    kernel: Kernel,
    version: (u32, u32),
}

#[unsafe(no_mangle)]
extern "C" fn cuModuleLoadData(module: Out<u64>, image: In<c_char>) -> Code {
    in_context("cuModuleLoadData", |here| load("cuModuleLoadData", here, module, image).map_err(|(code, _)| code))
}

/// Of the options it knows where the compiler's words are wanted.
#[unsafe(no_mangle)]
extern "C" fn cuModuleLoadDataEx(
    module: Out<u64>,
    image: In<c_char>,
    count: u32,
    options: In<u32>,
    values: In<u64>,
) -> Code {
    in_context("cuModuleLoadDataEx", |here| {
        let log = Log::of(count as usize, &options, &values)?;
        load("cuModuleLoadDataEx", here, module, image).map_err(|(code, why)| {
            log.write(&why);
            code
        })
    })
}

/// Where a caller wants to read why the compiler refused.
struct Log {
    at: u64,
    room: usize,
}

impl Log {
    fn of(count: usize, options: &In<u32>, values: &In<u64>) -> Result<Log, Code> {
        let mut log = Log { at: 0, room: 0 };
        for index in 0..count {
            let value = values.at("cuModuleLoadDataEx", index)?;
            match options.at("cuModuleLoadDataEx", index)? {
                // CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES
                5 => log.at = value,
                6 => log.room = value as u32 as usize,
                _ => {}
            }
        }
        Ok(log)
    }

    fn write(&self, why: &str) {
        let mut at = self.at as *mut u8;
        for byte in why.bytes().take(self.room.saturating_sub(1)).chain([0]).take(self.room) {
            Out(at).put_if(byte);
            at = at.wrapping_add(1);
        }
    }
}

fn load(call: &str, here: &Here, module: Out<u64>, image: In<c_char>) -> Result<(), (Code, String)> {
    let silent = |code: Code| (code, String::new());
    fault("cuda.module").now().map_err(silent)?;
    // Images that are no text.
    let begin: [u8; 4] = In(image.0.cast()).get(call).map_err(silent)?;
    let text = match begin {
        [0x7f, b'E', b'L', b'F'] | [0x50, 0xed, 0x55, 0xba] => None,
        _ => image.text(call).map_err(silent)?.to_str().ok(),
    };
    let wrong = |why: String, code: Code| {
        broken(call, &why);
        (code, why)
    };
    let Some(text) = text.filter(|text| text.contains(".version")) else {
        return Err(wrong("this double takes PTX text only".to_owned(), INVALID_IMAGE));
    };
    let ptx = Ptx::read(text).map_err(|why| wrong(format!("the PTX: {why}"), INVALID_PTX))?;
    fits(&ptx, here)?;
    let kernels = kernels(&ptx).map_err(|why| wrong(why, INVALID_IMAGE))?;
    let mut world = world();
    let handle = world.handle(Kind::Module);
    world.modules.insert(handle, Module { context: here.context, kernels, version: ptx.version });
    drop(world);
    counted("live modules", 1);
    module.put(call, handle).map_err(silent)
}

/// Neither is a contract of the caller's: it can not know before it asks.
fn fits(ptx: &Ptx, here: &Here) -> Result<(), (Code, String)> {
    let (newest, (major, minor)) = (ptx::newest(cuda_version()), capability(here.device));
    if ptx.version > newest {
        let why = format!(
            "Unsupported .version {}.{}; current version is '{}.{}'",
            ptx.version.0, ptx.version.1, newest.0, newest.1
        );
        return Err((UNSUPPORTED_PTX_VERSION, why));
    }
    if ptx.target > major * 10 + minor {
        return Err((NO_BINARY_FOR_GPU, format!(".target sm_{} on a GPU of sm_{major}{minor}", ptx.target)));
    }
    Ok(())
}

/// The CPU build of every kernel that the text declares.
fn kernels(ptx: &Ptx) -> Result<BTreeMap<String, Kernel>, String> {
    let mut kernels = BTreeMap::new();
    for entry in &ptx.entries {
        let name = &entry.name;
        let kernel = rung_double_kernels::find(name)
            .ok_or_else(|| format!("the PTX has a kernel {name}, the source has none; regenerate the PTX"))?;
        let source = kernel.parameter_bytes();
        if source != entry.bytes {
            let ptx = &entry.bytes;
            return Err(format!(
                "{name}: PTX parameters {ptx:?} differ from the source's {source:?}; regenerate the PTX"
            ));
        }
        kernels.insert(name.clone(), kernel);
    }
    Ok(kernels)
}

#[unsafe(no_mangle)]
extern "C" fn cuModuleUnload(module: u64) -> Code {
    in_context("cuModuleUnload", |_| {
        let mut world = world();
        if world.modules.remove(&module).is_none() {
            return world.unknown("cuModuleUnload", Kind::Module, module, INVALID_HANDLE);
        }
        world.functions.retain(|_, function| function.module != module);
        drop(world);
        counted("live modules", -1);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuModuleGetFunction(function: Out<u64>, module: u64, name: In<c_char>) -> Code {
    in_context("cuModuleGetFunction", |_| {
        let name = name.text("cuModuleGetFunction")?.to_string_lossy().into_owned();
        let mut world = world();
        let Some(known) = world.modules.get(&module) else {
            return world.unknown("cuModuleGetFunction", Kind::Module, module, INVALID_HANDLE);
        };
        let kernel = *known.kernels.get(&name).ok_or(NOT_FOUND)?;
        let found = Function { module, context: known.context, kernel, version: known.version };
        let handle = world.handle(Kind::Function);
        world.functions.insert(handle, found);
        function.put("cuModuleGetFunction", handle)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuFuncGetAttribute(value: Out<i32>, attribute: u32, function: u64) -> Code {
    in_context("cuFuncGetAttribute", |here| {
        let known = find("cuFuncGetAttribute", function)?;
        let (major, minor) = capability(here.device);
        value.put(
            "cuFuncGetAttribute",
            match attribute {
                0 => THREADS_MAX as i32,
                // Bytes of shared, constant and local memory.
                1..=3 => 0,
                4 => 44,
                5 => (known.version.0 * 10 + known.version.1) as i32,
                6 => (major * 10 + minor) as i32,
                7 => 0,
                8 => SHARED_BYTES_MAX as i32,
                9 => -1,
                _ => return refuse("cuFuncGetAttribute", format_args!("attribute {attribute}"), INVALID_VALUE),
            },
        )
    })
}

fn find(call: &str, function: u64) -> Result<Function, Code> {
    let world = world();
    match world.functions.get(&function) {
        Some(function) => Ok(*function),
        None => world.unknown(call, Kind::Function, function, INVALID_HANDLE),
    }
}

#[unsafe(no_mangle)]
extern "C" fn cuLaunchKernel(
    function: u64,
    grid_x: u32,
    grid_y: u32,
    grid_z: u32,
    block_x: u32,
    block_y: u32,
    block_z: u32,
    shared: u32,
    stream: u64,
    parameters: In<In<u8>>,
    extra: In<u64>,
) -> Code {
    in_context("cuLaunchKernel", |here| {
        let function = find("cuLaunchKernel", function)?;
        if function.context != here.context {
            return refuse("cuLaunchKernel", "the function is another context's", INVALID_HANDLE);
        }
        if !extra.0.is_null() {
            return refuse("cuLaunchKernel", "this double takes no packed parameters", NOT_SUPPORTED);
        }
        let (grid, block) = ([grid_x, grid_y, grid_z], [block_x, block_y, block_z]);
        sides(grid, block, shared)?;
        let mut arguments = Arguments::take(function.kernel.parameter_bytes(), &parameters)?;
        let play = played_in_stream(fault("cuda.launch"), &here.failed)?;
        submit("cuLaunchKernel", here, stream, move || {
            if play() {
                let mut pointers = arguments.pointers();
                // SAFETY: as many values as the kernel has parameters, each of its size and aligned; for the addresses
                // among them the caller answers, as on a card.
                unsafe { function.kernel.launch(grid, block, pointers.as_mut_ptr()) };
            }
        })?;
        counted("launches", 1);
        Ok(())
    })
}

fn sides(grid: [u32; 3], block: [u32; 3], shared: u32) -> Answer {
    let threads: u64 = block.iter().map(|side| u64::from(*side)).product();
    let limits = [i32::MAX as u32, GRID_YZ_MAX, GRID_YZ_MAX].into_iter().zip(grid);
    let blocks = [THREADS_MAX, THREADS_MAX, BLOCK_Z_MAX].into_iter().zip(block);
    let fits = limits.chain(blocks).all(|(most, side)| (1..=most).contains(&side));
    if fits && threads <= u64::from(THREADS_MAX) && shared <= SHARED_BYTES_MAX {
        return Ok(());
    }
    let why = format_args!("a grid of {grid:?}, blocks of {block:?}, {shared} bytes shared");
    refuse("cuLaunchKernel", why, INVALID_VALUE)
}

/// A launch's parameters as they were when it was asked for, each at a multiple of 16 bytes.
struct Arguments {
    words: Vec<u128>,
    starts: Vec<usize>,
}

impl Arguments {
    fn take(sizes: &[usize], parameters: &In<In<u8>>) -> Result<Arguments, Code> {
        let (mut words, mut starts) = (Vec::new(), Vec::new());
        for (index, bytes) in sizes.iter().enumerate() {
            let value = In(parameters.0.cast::<*const u8>()).at("cuLaunchKernel", index)?;
            starts.push(words.len());
            for from in (0..*bytes).step_by(size_of::<u128>()) {
                let mut word = [0; size_of::<u128>()];
                for (at, byte) in word.iter_mut().take(bytes - from).enumerate() {
                    *byte = In(value).at("cuLaunchKernel", from + at)?;
                }
                words.push(u128::from_ne_bytes(word));
            }
        }
        Ok(Arguments { words, starts })
    }

    fn pointers(&mut self) -> Vec<*mut c_void> {
        let base = self.words.as_mut_ptr();
        self.starts.iter().map(|start| base.wrapping_add(*start).cast()).collect()
    }
}
