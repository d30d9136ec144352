//! The library's SONAME is the driver's, so that whoever asks for that name finds this one once it is loaded.
fn main() {
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libnvidia-ml.so.1");
    println!("cargo::rerun-if-changed=build.rs");
}
