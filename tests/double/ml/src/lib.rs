//! Stands in for the NVIDIA driver's libnvidia-ml.so.1, in tests only.
