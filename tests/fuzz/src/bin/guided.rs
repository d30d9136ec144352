//! libFuzzer's main: one target, named by RUNG_FUZZ_TARGET, with what the compiler's coverage says. Run by
//! tests/prove/fuzz.py.
#![no_main]
#![expect(clippy::print_stderr, reason = "a program for the terminal")]

use std::sync::OnceLock;

use rung_fuzz::replay::replay;
use rung_fuzz::{Target, find};

fn target() -> &'static Target {
    static TARGET: OnceLock<&'static Target> = OnceLock::new();
    TARGET.get_or_init(|| {
        let name = std::env::var("RUNG_FUZZ_TARGET").expect("RUNG_FUZZ_TARGET names a target");
        find(&name).unwrap_or_else(|| panic!("no target {name:?}"))
    })
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    if let Err(why) = replay(target(), input) {
        eprintln!("{}: {why}", target().name);
        std::process::abort();
    }
});
