//! Stands in for the NVIDIA driver's libnvidia-encode.so.1, in tests only.
