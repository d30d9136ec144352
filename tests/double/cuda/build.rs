//! The library's SONAME is the driver's, so that whoever asks for that name finds this one once it is loaded. It stays
//! loaded once it was (as the driver does): its streams are threads that run its code.
fn main() {
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libcuda.so.1");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
    println!("cargo::rerun-if-changed=build.rs");
}
