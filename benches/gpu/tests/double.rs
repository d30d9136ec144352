//! The program over the driver's double, in its short form: every check and bench runs, says what it found, and leaves
//! nothing behind; what a machine lacks is skipped by name, or fails where it is required. No time is judged.

#[expect(dead_code, reason = "other tests use the rest")]
#[path = "../../../worker/tests/support/double.rs"]
mod double;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use double::Driver;

#[test]
fn everything_runs_on_a_whole_card() {
    let driver = Driver::new();
    let results = tempfile::tempdir().unwrap();
    let out = over(&driver, "all", Some("cuda,nvdec,nvenc,clips,worker"), &["--out", results.path().to_str().unwrap()]);
    let said = passed(&out);
    assert!(!said.contains("SKIP"), "{said}");
    let marked = "This is the driver's double, not a card";
    assert!(said.starts_with("Rung Double, driver double, not a card"), "{said}");
    assert!(said.contains(marked) && said.contains("nothing failed"), "{said}");
    let text = std::fs::read_to_string(results.path().join("gpu.md")).unwrap();
    assert!(text.contains(marked), "{text}");
    let (benches, answers) = text.split_once("## Answers").expect("answers for docs/hardware.md");
    for chapter in ["Checks", "Start", "Scaling", "Decoding", "Channels", "Thumbnails", "Encoding"] {
        assert!(benches.contains(&format!("\n## {chapter}")), "no chapter {chapter}");
    }
    for question in ["1. which parts", "2. kernels equal", "3. latency in frames", "4. the whole pipeline"] {
        let row =
            answers.lines().find(|line| line.contains(question)).unwrap_or_else(|| panic!("no answer {question}"));
        assert!(row.contains("driver double, not a card"), "{row}");
    }
    assert!(!text.contains("NaN"), "{text}");
    driver.assert_clean();
}

/// As data centre cards are: the worker gets the encoder's double, over the card's own memory.
#[test]
fn a_card_without_an_encoder_is_checked_with_a_stand_in_for_it() {
    let driver = Driver::new().setting("nvenc.count", 0);
    let stand_in = driver.folder().join("libnvidia-encode.so.1").canonicalize().unwrap();
    let arguments = ["--encode-double", stand_in.to_str().unwrap()];
    let out = over(&driver, "check", Some("cuda,nvdec"), &arguments);
    let said = passed(&out);
    assert!(said.contains("SKIP nvenc: this card has no encoder"), "{said}");
    assert!(!said.contains("(NVENC)") && !said.contains("(all of it doubled)"), "{said}");
    let without = over(&driver, "check", Some("cuda,nvdec"), &["--encode-double", "/nowhere"]);
    assert!(passed(&without).contains("SKIP encoder: the card has no encoder, and its double is not here"));
    let required = over(&driver, "check", Some("nvenc"), &["--encode-double", "/nowhere"]);
    assert_eq!(required.status.code(), Some(1), "{}", text(&required));
    assert!(text(&required).contains("nvenc is required"), "{}", text(&required));
    driver.assert_clean();
}

#[test]
fn a_machine_without_a_driver_skips_all_of_it_or_fails() {
    let none = Driver::new().without("libcuda.so.1");
    let said = passed(&over(&none, "all", None, &[]));
    assert!(said.contains("SKIP cuda: no libcuda.so.1"), "{said}");
    assert_eq!(over(&none, "all", Some("cuda"), &[]).status.code(), Some(1));
    let no_decoder = Driver::new().without("libnvcuvid.so.1");
    let said = passed(&over(&no_decoder, "all", None, &[]));
    assert!(said.contains("SKIP nvdec: ") && said.contains("ok the ladder's kernel"), "{said}");
    assert_eq!(over(&no_decoder, "check", Some("nvdec"), &[]).status.code(), Some(1));
    no_decoder.assert_clean();
}

/// The test of the checks: each of these cards does something wrong.
#[test]
fn what_a_card_does_wrong_is_found() {
    let wrong = [
        ("cuda.launch code=719 times=1", "the ladder's kernel"),
        ("cuvid.decode code=1 after=5 times=1", "is decoded as libavcodec"),
        ("cuvid.map code=1 after=40 times=1", "is decoded as libavcodec"),
        ("encode.idr no_idr after=1", "NVENC gives pictures"),
    ];
    for (fault, check) in wrong {
        let driver = Driver::new().fault(fault);
        let out = over(&driver, "check", None, &[]);
        let said = text(&out);
        let found = said.lines().any(|line| line.starts_with("FAIL") && line.contains(check));
        assert!(found && out.status.code() == Some(1), "{fault}:\n{said}");
    }
}

fn over(driver: &Driver, task: &str, required: Option<&str>, more: &[&str]) -> Output {
    worker();
    let mut command = Command::new(env!("CARGO_BIN_EXE_rung-gpu"));
    driver.env(&mut command);
    command.args([task, "--short", "--driver-folder"]).arg(driver.folder()).arg("--clips").arg(clips()).args(more);
    command.env_remove("RUNG_REQUIRE");
    if let Some(required) = required {
        command.env("RUNG_REQUIRE", required);
    }
    command.output().unwrap()
}

#[track_caller]
fn passed(out: &Output) -> String {
    assert!(out.status.success(), "{}: {}", out.status, text(out));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

fn text(out: &Output) -> String {
    String::from_utf8_lossy(&[&out.stdout[..], &out.stderr[..]].concat()).into_owned()
}

/// The `rung-worker` beside the program, of these sources: this test's own build makes it only with the whole workspace.
fn worker() {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        let folder = Path::new(env!("CARGO_BIN_EXE_rung-gpu")).parent().unwrap();
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["build", "-q", "-p", "rung-worker", "--target-dir"]).arg(folder.parent().unwrap());
        if folder.ends_with("release") {
            cargo.arg("--release");
        }
        let status = cargo.status().unwrap();
        assert!(status.success(), "rung-worker: {status}");
    });
}

/// Small ones, made once.
fn clips() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("gpu-clips");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tools/gpu-clips.sh");
        let changed = |path: &Path| std::fs::metadata(path).and_then(|m| m.modified()).ok();
        let mark = folder.join("made");
        if changed(&mark) <= changed(&script) {
            let status = Command::new(&script).arg(&folder).arg("small").status().expect("bash is there");
            assert!(status.success(), "tools/gpu-clips.sh: {status}");
            std::fs::write(&mark, "").unwrap();
        }
        folder
    })
}
