//! What a process really writes: the log of a child that reports through `telemetry`.

use std::process::Command;

use rung::telemetry::setup::{Config, LogFormat, start};
use rung::telemetry::{Level, Place, Redacted, log};

const ROLE: &str = "RUNG_TEST_LOG_ROLE";
const SECRET: &str = "planted-stream-key-0123456789";

/// The child: reports an event, a storm and a secret, then ends.
#[test]
fn child() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let format = if role == "json" { LogFormat::Json } else { LogFormat::Text };
    let telemetry = start(&Config { format, filter: "info".into() }).expect("the first set-up of this process");
    let place = Place { channel: "news", session: "se_1", rendition: "" };
    let key = Redacted::new(SECRET);
    log(Level::Info, "session_live", &place, format_args!("first part listed, key {key:?} {key}"));
    for n in 0..5_000 {
        log(Level::Warn, "hole", &place, format_args!("frame {n} is missing"));
    }
    log(Level::Debug, "segment_cut", &place, "not at this level");
    drop(telemetry);
}

fn child_says(role: &str) -> String {
    let me = std::env::current_exe().expect("a test knows its own file");
    let mut command = Command::new(me);
    command.args(["--exact", "child", "--nocapture"]).env(ROLE, role).env_remove("RUNG_LOG");
    let output = command.output().expect("the child starts");
    assert!(output.status.success());
    String::from_utf8(output.stderr).expect("logs are UTF-8")
}

#[test]
fn json_lines_carry_fields_gather_repeats_and_keep_secrets() {
    let text = child_says("json");
    assert!(!text.contains(SECRET), "{text}");
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect();
    let live = &lines[0];
    assert_eq!((&live["level"], &live["code"]), (&"INFO".into(), &"session_live".into()), "{live}");
    assert_eq!((&live["channel"], &live["session"]), (&"news".into(), &"se_1".into()), "{live}");
    assert!(live.get("rendition").is_none() && live.get("repeats").is_none(), "{live}");
    let holes: Vec<&serde_json::Value> = lines.iter().filter(|line| line["code"] == "hole").collect();
    assert!((2..10).contains(&holes.len()), "a storm is a few lines: {text}");
    let counted: u64 = holes.iter().map(|line| line["repeats"].as_u64().unwrap_or(1)).sum();
    assert_eq!(counted, 5_000, "and none of it is lost");
    assert!(!text.contains("segment_cut"));
}

#[test]
fn text_lines_say_the_same() {
    let text = child_says("text");
    assert!(!text.contains(SECRET) && text.contains("[redacted] [redacted]"), "{text}");
    assert!(text.contains("INFO first part listed") && text.contains("channel=\"news\""), "{text}");
}
