//! The kernels of `kernels/*.cu`, built for the CPU.
