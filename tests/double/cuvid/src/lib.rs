//! Stands in for the NVIDIA driver's libnvcuvid.so.1, in tests only.
