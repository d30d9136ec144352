//! The house's rules, checked over the text of the tree: who may name whom, sizes, spec tags, repository hygiene.
//! Method: comments and strings are blanked, then paths that start with `crate::` or a foreign crate are collected.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// room -> rooms of the library it may name. Ground rooms name each other.
const GROUND: &[&str] = &["time", "telemetry", "media", "bitstream", "mpegts", "sys"];
const RULES: &[(&str, &[&str])] = &[
    ("time", &[]),
    ("telemetry", &[]),
    ("media", &[]),
    ("bitstream", &[]),
    ("mpegts", &[]),
    ("sys", &[]),
    ("ingest", &[]),
    ("demux", &[]),
    ("timeline", &[]),
    ("package", &[]),
    ("serve", &["package"]),
    ("pixels", &[]),
    ("pipeline", &["ingest", "demux", "timeline", "package", "serve", "pixels"]),
    ("control", &["package", "serve", "pipeline"]),
    ("inspect", &["ingest", "demux", "timeline", "package", "serve", "pixels", "pipeline", "control"]),
    ("web", &["ingest", "demux", "timeline", "package", "serve", "pixels", "pipeline", "control"]),
    ("cli", &["ingest", "demux", "timeline", "package", "serve", "pixels", "pipeline", "control", "inspect", "web"]),
];

/// foreign crate -> path prefixes that may name it.
const FOREIGN: &[(&str, &[&str])] = &[
    ("tokio", &["src/serve", "src/control", "src/ingest/quic", "src/inspect/hls", "src/cli", "src/web"]),
    ("hyper", &["src/serve", "src/control", "src/inspect/hls", "src/cli"]),
    ("httpdate", &["src/serve"]),
    ("hyper_util", &["src/serve", "src/control", "src/inspect/hls", "src/cli"]),
    ("rustls", &["src/serve", "src/ingest/quic", "src/cli/client"]),
    ("rustls_native_certs", &["src/ingest/quic/tls"]),
    ("quinn", &["src/ingest/quic"]),
    ("quinn_proto", &["src/ingest/quic/controller"]),
    ("rcgen", &["src/ingest/quic/identity"]),
    ("tokio_rustls", &["src/serve/tls"]),
    ("hyper_rustls", &["src/cli/client"]),
    ("x509_parser", &["src/serve/certificate"]),
    ("h2", &["src/serve/accept"]),
    ("sapflow_srt", &["src/ingest/srt"]),
    ("postcard", &["src/pixels", "worker/src"]),
    ("warp", &["src/control/api", "src/web", "src/serve/accept"]),
    ("metrics", &["src/telemetry"]),
    ("metrics_exporter_prometheus", &["src/telemetry"]),
    ("tracing", &["src/telemetry"]),
    ("tracing_subscriber", &["src/telemetry"]),
    ("jiff", &["src/control/record"]),
    ("clap", &["src/cli"]),
    ("clap_complete", &["src/cli"]),
    ("utoipa", &["src/control", "src/media"]),
    ("hmac", &["src/control/api", "src/media/playback"]),
    ("image", &["src/media/logo"]),
    ("base64", &["src/control/record", "src/media/playback"]),
    ("ed25519_dalek", &["src/media/playback"]),
    ("heed", &["src/control/state"]),
    ("crc32c", &["src/control/state"]),
    ("ffmpeg_sys_next", &["worker/src/av"]),
    ("cudarc", &["worker/src/gpu"]),
    ("nvidia_video_codec_sdk", &["worker/src/gpu"]),
    ("libloading", &["worker/src/gpu"]),
    ("nvml_wrapper", &["worker/src/monitor"]),
    ("seccompiler", &["worker/src/sandbox"]),
    ("landlock", &["worker/src/sandbox"]),
    ("nvml_wrapper", &["worker/src/monitor"]),
];

/// Rooms of the daemon that a worker may name.
const WORKER_MAY: &[&str] = &["time", "telemetry", "media", "bitstream", "mpegts", "sys", "pixels"];

/// Tags of `lib.rs`'s list; everything in brackets that starts like one must be one of these with a clause.
const TAGS: &[&str] = &["HLS", "TS", "BMFF", "AVC", "HEVC", "MPEG2V", "SRT", "QUIC", "AAC", "EN", "CEA", "ATSC"];

const UNSAFE_MAY: &[&str] = &[
    "src/sys",
    "src/control/state/lmdb",
    "worker/src/av",
    "worker/src/gpu",
    "worker/src/scale/avx2",
    "worker/src/sandbox",
];

/// (file, code lines): above the cap with a reason each.
const LONG_FILES: &[(&str, &str)] = &[];
const LONG_FUNCTIONS: &[(&str, &str)] = &[];
const FILE_CAP: usize = 800;
const FUNCTION_CAP: usize = 70;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files(under: &str, extension: &str) -> Vec<(String, String)> {
    fn walk(dir: &Path, out: &mut Vec<PathBuf>) {
        let Ok(entries) = fs::read_dir(dir) else { return };
        for entry in entries.flatten() {
            let path = entry.path();
            let name = entry.file_name();
            if path.is_dir() {
                if name != "target" && name != "node_modules" && name != "vendor" && name != ".git" {
                    walk(&path, out);
                }
            } else {
                out.push(path);
            }
        }
    }
    let mut paths = Vec::new();
    walk(&root().join(under), &mut paths);
    paths.sort();
    paths
        .into_iter()
        .filter(|p| p.extension().is_some_and(|e| e == extension))
        .map(|p| {
            let name = p.strip_prefix(root()).expect("under the root").to_string_lossy().into_owned();
            (name, fs::read_to_string(&p).expect("sources are UTF-8"))
        })
        .collect()
}

/// The text with comments and string contents turned into spaces; newlines stay.
fn blank(source: &str) -> String {
    let s: Vec<char> = source.chars().collect();
    let mut out = String::with_capacity(source.len());
    let mut i = 0;
    while i < s.len() {
        let rest = |n: usize| s.get(i + n).copied().unwrap_or(' ');
        if s[i] == '/' && rest(1) == '/' {
            while i < s.len() && s[i] != '\n' {
                out.push(' ');
                i += 1;
            }
        } else if s[i] == '/' && rest(1) == '*' {
            while i < s.len() && !(s[i] == '*' && s.get(i + 1) == Some(&'/')) {
                out.push(if s[i] == '\n' { '\n' } else { ' ' });
                i += 1;
            }
            i = (i + 2).min(s.len());
        } else if s[i] == 'r' && (rest(1) == '"' || (rest(1) == '#' && (rest(2) == '"' || rest(2) == '#'))) {
            let hashes = s[i + 1..].iter().take_while(|c| **c == '#').count();
            let close: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
            i += 2 + hashes;
            while i < s.len() && !s[i..].starts_with(&close) {
                out.push(if s[i] == '\n' { '\n' } else { ' ' });
                i += 1;
            }
            i = (i + close.len()).min(s.len());
        } else if s[i] == '"' {
            out.push('"');
            i += 1;
            while i < s.len() && s[i] != '"' {
                out.push(if s[i] == '\n' { '\n' } else { ' ' });
                i += if s[i] == '\\' { 2 } else { 1 };
            }
            out.push('"');
            i += 1;
        } else if s[i] == '\'' && rest(1) == '\\' {
            i += 2;
            while i < s.len() && s[i] != '\'' {
                i += 1;
            }
            i += 1;
        } else if s[i] == '\'' && rest(2) == '\'' {
            i += 3;
        } else {
            out.push(s[i]);
            i += 1;
        }
    }
    out
}

/// Drops `#[cfg(test)] mod … { … }`: tests may name what they like.
fn without_tests(blanked: &str) -> String {
    let Some(at) = blanked.find("#[cfg(test)]\nmod ") else { return blanked.to_owned() };
    let open = match blanked[at..].find(['{', ';']) {
        Some(o) if blanked.as_bytes()[at + o] == b'{' => at + o,
        _ => return blanked.to_owned(),
    };
    let mut depth = 0usize;
    for (offset, c) in blanked[open..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return format!("{}{}", &blanked[..at], without_tests(&blanked[open + offset + 1..]));
        }
    }
    blanked[..at].to_owned()
}

/// First identifiers after `prefix::`, also inside `prefix::{a, b::c}`.
fn named_after(code: &str, prefix: &str) -> BTreeSet<String> {
    let ident = |t: &str| t.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut names = BTreeSet::new();
    let pattern = format!("{prefix}::");
    for (at, _) in code.match_indices(&pattern) {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':') {
            continue;
        }
        let tail = &code[at + pattern.len()..];
        if let Some(group) = tail.strip_prefix('{') {
            let (mut depth, mut start) = (0, true);
            for (offset, c) in group.char_indices() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => start = true,
                    c if start && !c.is_whitespace() => {
                        names.insert(ident(&group[offset..]));
                        start = false;
                    }
                    _ => {}
                }
            }
        } else {
            names.insert(if tail.starts_with('*') { "*".into() } else { ident(tail) });
        }
    }
    names
}

fn uses(code: &str, krate: &str) -> bool {
    [format!("{krate}::"), format!("use {krate};"), format!("{krate} as ")].iter().any(|pattern| {
        code.match_indices(pattern.as_str())
            .any(|(at, _)| !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':'))
    })
}

#[test]
fn rooms_name_only_what_the_table_allows() {
    let table: BTreeMap<&str, &[&str]> = RULES.iter().copied().collect();
    let mut wrong = Vec::new();
    for (file, source) in files("src", "rs") {
        let Some((room, _)) = file.trim_start_matches("src/").split_once('/') else { continue };
        let Some(allowed) = table.get(room) else {
            wrong.push(format!("{file}: room `{room}` is not in the table"));
            continue;
        };
        for name in named_after(&without_tests(&blank(&source)), "crate") {
            let fine = name == room || GROUND.contains(&name.as_str()) || allowed.contains(&name.as_str());
            if !fine {
                wrong.push(format!("{file}: `{room}` may not name `crate::{name}`"));
            }
        }
    }
    for (file, source) in files("worker/src", "rs") {
        for name in named_after(&without_tests(&blank(&source)), "rung") {
            if !WORKER_MAY.contains(&name.as_str()) {
                wrong.push(format!("{file}: the worker may not name `rung::{name}`"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn foreign_crates_stay_in_their_rooms() {
    let mut wrong = Vec::new();
    for (file, source) in files("src", "rs").into_iter().chain(files("worker/src", "rs")) {
        let code = without_tests(&blank(&source));
        for (krate, rooms) in FOREIGN {
            if uses(&code, krate) && !rooms.iter().any(|room| file.starts_with(room)) {
                wrong.push(format!("{file} names {krate}, which lives in {}", rooms.join(", ")));
            }
        }
        let daring = code.contains("unsafe {") || code.contains("unsafe fn") || code.contains("unsafe impl");
        if daring && !UNSAFE_MAY.iter().any(|room| file.starts_with(room)) {
            wrong.push(format!("{file}: unsafe lives in {}", UNSAFE_MAY.join(", ")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn sans_io_cores_read_no_clock_and_keep_their_order() {
    let mut wrong = Vec::new();
    let cores = ["time", "media", "bitstream", "mpegts", "demux", "timeline", "package"];
    for room in cores.into_iter().chain(["control/lifecycle", "control/record"]) {
        for (file, source) in files(&format!("src/{room}"), "rs") {
            let code = without_tests(&blank(&source));
            for word in ["HashMap", "HashSet", "Instant::now", "SystemTime", "thread::", "File::", "println!"] {
                if code.contains(word) {
                    wrong.push(format!("{file}: `{word}` in a core"));
                }
            }
            if code.contains("SystemClock::") && file != "src/time/clock.rs" {
                wrong.push(format!("{file}: a core takes `now`, it does not read it"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_and_functions_stay_short() {
    let mut wrong = Vec::new();
    for (file, source) in files("src", "rs").into_iter().chain(files("worker/src", "rs")) {
        let code = without_tests(&blank(&source));
        let lines = code.lines().filter(|l| !l.trim().is_empty()).count();
        if lines > FILE_CAP && !LONG_FILES.iter().any(|(f, _)| *f == file) {
            wrong.push(format!("{file}: {lines} code lines, cap {FILE_CAP}"));
        }
        for (name, length) in functions(&code) {
            let known = LONG_FUNCTIONS.iter().any(|(f, _)| *f == format!("{file}:{name}"));
            if length > FUNCTION_CAP && !known {
                wrong.push(format!("{file}: fn {name} has {length} lines, cap {FUNCTION_CAP}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// (name, lines from `fn` to its closing brace).
fn functions(code: &str) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let name: String = code[at + 3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let Some(open) = code[at..].find(['{', ';']) else { continue };
        if name.is_empty() || code.as_bytes()[at + open] == b';' {
            continue;
        }
        let mut depth = 0usize;
        for (offset, c) in code[at + open..].char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                found.push((name, code[at..at + open + offset].matches('\n').count() + 1));
                break;
            }
        }
    }
    found
}

#[test]
fn spec_tags_are_known() {
    let mut wrong = Vec::new();
    for (file, source) in files("src", "rs").into_iter().chain(files("worker/src", "rs")) {
        for line in source.lines().filter_map(|l| l.find("//").map(|at| &l[at..])) {
            for (at, _) in line.match_indices('[') {
                let Some(end) = line[at..].find(']') else { continue };
                let inside = &line[at + 1..at + end];
                let Some((tag, clause)) = inside.split_once(' ') else { continue };
                let looks_like_a_tag =
                    tag.len() >= 2 && tag.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
                let numbered = clause.starts_with(|c: char| c.is_ascii_digit());
                if looks_like_a_tag && numbered && !TAGS.contains(&tag) {
                    wrong.push(format!("{file}: unknown spec tag [{inside}]: add its edition to lib.rs"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn module_headers_say_their_purpose() {
    let mut wrong = Vec::new();
    for (file, source) in files("src", "rs") {
        // Rooms; a folder inside a room says what it holds in its own words.
        let room = file.matches('/').count() == 2 && file.ends_with("/mod.rs");
        if room && !source.starts_with("//! Purpose:") {
            wrong.push(format!("{file}: begin with `//! Purpose: …`"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_tree_holds_nothing_unfinished_or_foreign() {
    let mut wrong = Vec::new();
    let all = ["src", "worker", "tests", "benches", "docs", "kernels", "systemd"];
    let extensions = ["rs", "md", "toml", "js", "mjs", "css", "html", "sh", "cu", "h", "cpp"];
    for (file, source) in all.iter().flat_map(|d| extensions.iter().flat_map(|e| files(d, e))) {
        if file == "tests/tidy.rs" {
            continue;
        }
        for (i, line) in source.lines().enumerate() {
            for word in ["TODO", "FIXME", "XXX", "unimplemented!", "todo!("] {
                if line.contains(word) {
                    wrong.push(format!("{file}:{}: {word}", i + 1));
                }
            }
        }
    }
    let lock = fs::read_to_string(root().join("Cargo.lock")).expect("the lock file is committed");
    for line in lock.lines().filter(|l| l.starts_with("source = ")) {
        if line != "source = \"registry+https://github.com/rust-lang/crates.io-index\"" {
            wrong.push(format!("Cargo.lock: {line}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// `// <64 digits>  <file>` lines head the PTX, one for each source; `kernels/build.sh --check` compares the rest where
/// clang is.
#[test]
fn the_ptx_is_made_of_its_sources() {
    let ptx = fs::read_to_string(root().join("kernels/scale.ptx")).expect("the PTX is kept");
    let said: BTreeSet<&str> =
        ptx.lines().skip(1).map_while(|line| line.strip_prefix("// ")).filter(|line| line.contains("  ")).collect();
    let sources = files("kernels", "cu").into_iter().chain(files("kernels", "h"));
    let found: BTreeSet<String> = sources
        .map(|(file, source)| {
            let digits: String = Sha256::digest(&source).iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{digits}  {}", file.trim_start_matches("kernels/"))
        })
        .collect();
    assert!(!found.is_empty(), "the kernels are in `kernels`");
    assert!(said.iter().eq(found.iter()), "run kernels/build.sh: scale.ptx says {said:#?}, its sources are {found:#?}");
}

#[test]
fn no_large_binary_is_kept() {
    let listed = std::process::Command::new("git").args(["ls-files", "-z"]).current_dir(root()).output();
    let listed = listed.expect("git lists the tree").stdout;
    let mut wrong = Vec::new();
    for name in listed.split(|b| *b == 0).filter(|n| !n.is_empty()).map(|n| String::from_utf8_lossy(n).into_owned()) {
        let Ok(bytes) = fs::read(root().join(&name)) else { continue };
        let binary = bytes.iter().take(8_000).any(|b| *b == 0);
        if binary && bytes.len() > 256 << 10 && !name.starts_with("tests/media/") {
            wrong.push(format!("{name}: {} KiB", bytes.len() >> 10));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_tester_sees_what_it_must() {
    let code = blank("use crate::{media::grid, time}; // crate::cli\nlet s = \"crate::web\"; crate::serve::x();");
    let names: Vec<String> = named_after(&code, "crate").into_iter().collect();
    assert_eq!(names, ["media", "serve", "time"]);
    assert!(uses("use tokio::net;", "tokio") && !uses("mytokio::net", "tokio"));
    assert_eq!(functions("fn a() {\n\n}\nfn b();"), [("a".to_owned(), 3)]);
    assert!(!without_tests("x\n#[cfg(test)]\nmod tests { crate::web }\ny").contains("web"));
}
