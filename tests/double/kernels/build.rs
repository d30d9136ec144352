//! Builds `kernels/*.cu` for the CPU.
fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src");
    println!("cargo::rerun-if-changed=../../../kernels");
    cc::Build::new()
        .cpp(true)
        .std("c++14")
        .opt_level(2)
        .flag("-fno-strict-aliasing")
        .file("src/cpu.cpp")
        .compile("rung_double_kernels");
}
