//! Notes whether the player was fetched (`make setup` puts it there): then it is embedded.

use std::path::Path;

fn main() {
    println!("cargo:rerun-if-changed=src/web/vendor");
    println!("cargo:rustc-check-cfg=cfg(player)");
    if Path::new("src/web/vendor/hls.min.js").is_file() {
        println!("cargo:rustc-cfg=player");
    }
}
