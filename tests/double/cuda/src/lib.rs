//! Stands in for the NVIDIA driver's libcuda.so.1, in tests only.
mod abi;
mod alloc;
mod codes;
mod context;
mod copy;
mod device;
mod event;
mod mapping;
mod memory;
mod module;
mod ptx;
mod stream;
mod world;
