//! The library's SONAME is the driver's, so that whoever asks for that name finds this one once it is loaded. It is never
//! unloaded: threads that called it have something of its runtime to tidy up when they end.
fn main() {
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libnvidia-ml.so.1");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
    println!("cargo::rerun-if-changed=build.rs");
}
