//! The embedded files, compressed once at their first use.

use std::io::Write;
use std::sync::LazyLock;

use sha2::{Digest, Sha256};

pub(super) const INDEX: &str = include_str!("assets/index.html");
pub(super) const WATCH: &str = include_str!("assets/watch.html");
pub(super) const REFERENCE: &str = include_str!("assets/reference.html");

/// The player, if it was there at build time.
#[cfg(player)]
pub(super) const HLS_JS: Option<&[u8]> = Some(include_bytes!("vendor/hls.min.js"));
#[cfg(not(player))]
pub(super) const HLS_JS: Option<&[u8]> = None;

pub(super) struct Asset {
    pub(super) name: &'static str,
    pub(super) kind: &'static str,
    pub(super) plain: &'static [u8],
    pub(super) gzip: Vec<u8>,
    /// Weak: both encodings carry it.
    pub(super) etag: String,
}

pub(super) fn find(name: &str) -> Option<&'static Asset> {
    ASSETS.iter().find(|asset| asset.name == name)
}

static ASSETS: LazyLock<Vec<Asset>> = LazyLock::new(|| {
    let script = "text/javascript; charset=utf-8";
    let mut all = vec![
        Asset::new("style.css", "text/css; charset=utf-8", include_bytes!("assets/style.css")),
        Asset::new("index.js", script, include_bytes!("assets/index.js")),
        Asset::new("watch.js", script, include_bytes!("assets/watch.js")),
        Asset::new("reference.css", "text/css; charset=utf-8", include_bytes!("assets/reference.css")),
        Asset::new("reference.js", script, include_bytes!("assets/reference.js")),
        Asset::new("favicon.svg", "image/svg+xml", include_bytes!("assets/favicon.svg")),
    ];
    all.extend(HLS_JS.map(|player| Asset::new("hls.min.js", script, player)));
    all
});

impl Asset {
    fn new(name: &'static str, kind: &'static str, plain: &'static [u8]) -> Asset {
        let hash = Sha256::digest(plain);
        let short: String = hash.iter().take(8).map(|b| format!("{b:02x}")).collect();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        gzip.write_all(plain).expect("a Vec takes every byte");
        Asset {
            name,
            kind,
            plain,
            gzip: gzip.finish().expect("a Vec takes every byte"),
            etag: format!("W/\"{short}\""),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_load_nothing_from_elsewhere() {
        for text in [
            INDEX,
            WATCH,
            REFERENCE,
            include_str!("assets/style.css"),
            include_str!("assets/reference.css"),
            include_str!("assets/reference.js"),
            include_str!("assets/watch.js"),
            include_str!("assets/index.js"),
        ] {
            let without_namespaces = text.replace("http://www.w3.org/2000/svg", "");
            assert!(!without_namespaces.contains("http://") && !without_namespaces.contains("https://"));
        }
    }

    #[test]
    fn every_asset_that_a_page_names_is_embedded() {
        for page in [INDEX, WATCH, REFERENCE] {
            for name in page.split("/assets/").skip(1).filter_map(|rest| rest.split('"').next()) {
                assert!(find(name).is_some() || (name == "hls.min.js" && HLS_JS.is_none()), "{name}");
            }
        }
    }
}
