//! Embeds the fetched player (`make setup` puts it there), or notes that it is missing.

use std::path::Path;
use std::{env, fs};

fn main() {
    let root = env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    let out = env::var("OUT_DIR").expect("cargo sets it");
    let player = Path::new(&root).join("src/web/vendor/hls.min.js");
    println!("cargo:rerun-if-changed=src/web/vendor");
    println!("cargo:rerun-if-changed=build.rs");
    let text = if player.is_file() {
        format!("pub(super) const HLS_JS: Option<&[u8]> = Some(include_bytes!({player:?}));\n")
    } else {
        "pub(super) const HLS_JS: Option<&[u8]> = None;\n".to_owned()
    };
    fs::write(Path::new(&out).join("player.rs"), text).expect("OUT_DIR can be written");
}
