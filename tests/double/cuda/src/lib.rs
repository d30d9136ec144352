//! Stands in for the NVIDIA driver's libcuda.so.1, in tests only.
