//! The commands that speak to a daemon, run as people and scripts run them: the real program against the API on loopback.

#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]

#[path = "support/api.rs"]
mod support;

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use support::Rig;

struct Said {
    code: i32,
    out: String,
    err: String,
}

fn command(rig: &Rig, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rung"));
    command.args(args).args(["--server", &format!("http://{}", rig.address)]);
    command.arg("--token-file").arg(rig.folder.path().join("admin.token"));
    command.stdin(Stdio::null()).current_dir(rig.folder.path());
    command
}

fn said(mut command: Command) -> Said {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

fn run(rig: &Rig, args: &[&str]) -> Said {
    said(command(rig, args))
}

/// What must succeed.
fn ok(rig: &Rig, args: &[&str]) -> String {
    let said = run(rig, args);
    assert_eq!(said.code, 0, "{args:?}: {}", said.err);
    said.out
}

fn json_of(rig: &Rig, args: &[&str]) -> Value {
    let args: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
    serde_json::from_str(&ok(rig, &args)).unwrap()
}

fn ladder(rig: &Rig, name: &str, height: u32) -> PathBuf {
    let file = rig.folder.path().join(name);
    let text = json!([{ "name": format!("{height}p"), "height": height, "bitrate": 1_000_000 }]);
    std::fs::write(&file, text.to_string()).unwrap();
    file
}

#[test]
fn a_channel_from_its_making_to_its_end() {
    let rig = Rig::new();
    let out = ok(&rig, &["channel", "create", "news", "--mode", "low", "--field", "legs=single"]);
    let key = out.split_whitespace().find(|word| rung::media::key::is_publish_key(word)).unwrap().to_owned();
    for line in [
        format!("srt://127.0.0.1:9000?streamid=news/{key}"),
        "ffmpeg -re -i FILE".to_owned(),
        "OBS       Settings > Stream > Service: Custom, Server:".to_owned(),
        format!("http://{}/live/news/index.m3u8", rig.address),
        format!("http://{}/watch/news", rig.address),
    ] {
        assert!(out.contains(&line), "{line:?} in\n{out}");
    }
    let list = ok(&rig, &["channel", "list"]);
    let lines: Vec<Vec<&str>> = list.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["NAME", "STATE", "KIND", "MODE", "SESSION", "CREATED"]);
    assert_eq!(lines[1][..5], ["news", "idle", "transcode", "low", "-"]);
    assert_eq!(json_of(&rig, &["channel", "list"])[0]["name"], "news");
    assert!(ok(&rig, &["channel", "list", "--state", "stop"]).lines().count() == 1);

    let set = ok(&rig, &["channel", "set", "news", "--mode", "ultra", "--field", "takeover=newest"]);
    assert!(set.contains("takeover in force\n") && set.contains("mode in force from the next session on"), "{set}");
    assert_eq!(ok(&rig, &["channel", "set", "news", "--mode", "ultra"]), "channel news is so already\n");
    let show = ok(&rig, &["channel", "show", "news"]);
    assert!(show.contains(&format!("{}…", &key[..4])) && !show.contains(&key), "{show}");
    assert_eq!(ok(&rig, &["channel", "stop", "news", "--wait", "1"]), "channel news is stop\n");
    assert_eq!(ok(&rig, &["channel", "start", "news"]), "channel news is idle\n");
    let rotated = ok(&rig, &["channel", "rotate-key", "news", "--grace", "60"]);
    assert!(rotated.contains("streamid=news/") && !rotated.contains(&key));
    let made = ok(&rig, &["channel", "passphrase", "news"]);
    let secret = made.split_whitespace().nth(1).unwrap().to_owned();
    assert!(secret.len() == 26 && made.contains("streamid=news/KEY&passphrase="), "{made}");
    let file = rig.folder.path().join("pass");
    std::fs::write(&file, "a long passphrase\n").unwrap();
    let given = ok(&rig, &["channel", "passphrase", "news", file.to_str().unwrap()]);
    assert!(!given.contains("long passphrase"), "{given}");
    let show = ok(&rig, &["channel", "show", "news"]);
    assert!(show.contains("its own") && !show.contains("long passphrase"), "{show}");
    let removed = ok(&rig, &["channel", "passphrase", "news", "--remove"]);
    assert_eq!(removed, "channel news has no passphrase of its own\n");
    ok(&rig, &["channel", "set", "news", "--publish-from", "192.0.2.0/24,2001:db8::1"]);
    assert!(ok(&rig, &["channel", "show", "news"]).contains("192.0.2.0/24"));
    ok(&rig, &["channel", "set", "news", "--publish-from", ""]);
    assert_eq!(json_of(&rig, &["channel", "show", "news"])["publish_from"], serde_json::Value::Null);
    assert_eq!(ok(&rig, &["channel", "delete", "news"]), "channel news is deleted\n");
}

#[test]
fn exit_codes_say_what_kind_of_failure_it_was() {
    let rig = Rig::new();
    ok(&rig, &["channel", "create", "news"]);
    rig.go_live("news");
    let cases: [(&[&str], i32, &str); 7] = [
        (&["channel", "show", "nothing"], 5, "there is no such channel"),
        (&["channel", "delete", "news"], 6, "on air"),
        (&["channel", "create", "news"], 6, "take another name"),
        (&["channel", "create", "other", "--mode", "lo"], 7, "write \"normal\""),
        (&["channel", "set", "news", "--field", "legs"], 2, "write NAME=VALUE"),
        (&["channel", "set", "news"], 2, "nothing to change"),
        (&["channel", "list", "--state", "gone"], 7, "idle, active or stop"),
    ];
    for (args, code, part) in cases {
        let said = run(&rig, args);
        assert!(
            said.code == code && said.err.contains(part) && said.out.is_empty(),
            "{args:?}: {} {}",
            said.code,
            said.err
        );
    }
    let two = run(&rig, &["channel", "create", "other", "--mode", "lo", "--kind", "x"]);
    assert!(two.err.contains("2 fields are wrong") && two.err.contains("\n  /kind: "), "{}", two.err);
    assert_eq!(run(&rig, &["channel", "delete", "news", "--force"]).code, 0);

    let with = |server: &str, token: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rung"));
        command.args(["channel", "list", "--server", server]).current_dir(rig.folder.path());
        if !token.is_empty() {
            command.args(["--token-file", token]);
        }
        said(command)
    };
    let here = format!("http://{}", rig.address);
    std::fs::write(rig.folder.path().join("wrong"), "rk_wrong\n").unwrap();
    assert_eq!(with(&here, "wrong").code, 4);
    assert_eq!(with("http://127.0.0.1:1", "admin.token").code, 3);
    assert_eq!(with("https://127.0.0.1:1", "admin.token").code, 3);
    assert_eq!(with("box:8080", "admin.token").code, 2);
    assert_eq!(with(&here, "not-there").code, 2);
}

#[test]
fn the_token_of_the_state_folder_is_found_where_it_can_be_read() {
    let rig = Rig::new();
    let data = rig.folder.path().join("rung-data");
    std::fs::create_dir(&data).unwrap();
    std::fs::copy(rig.folder.path().join("admin.token"), data.join("admin.token")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_rung"));
    command.args(["channel", "list", "--server", &format!("http://{}", rig.address)]).current_dir(rig.folder.path());
    let said = said(command);
    assert_eq!(said.code, 0, "{}", said.err);
}

#[test]
fn sessions_tokens_and_templates() {
    let rig = Rig::new();
    let file = ladder(&rig, "sport.json", 720);
    let made = ok(&rig, &["template", "create", "sport", "--ladder", file.to_str().unwrap()]);
    assert!(made.contains("720p"), "{made}");
    let smaller = ladder(&rig, "small.json", 360);
    ok(&rig, &["template", "set", "sport", "--ladder", smaller.to_str().unwrap(), "--name", "small"]);
    assert_eq!(json_of(&rig, &["template", "show", "small"])["revision"], 2);
    assert!(ok(&rig, &["template", "list"]).contains("small  360p"));
    let channel = json_of(&rig, &["channel", "create", "news", "--from", "small"]);
    assert_eq!(channel["ladder"][0]["height"], 360);
    ok(&rig, &["template", "delete", "small"]);

    let id = rig.go_live("news");
    assert!(ok(&rig, &["session", "list", "--channel", "news"]).contains(&id));
    assert!(ok(&rig, &["session", "show", &id]).contains("legs                a"));
    assert_eq!(ok(&rig, &["session", "end", &id]), format!("session {id} has ended\n"));
    assert_eq!(json_of(&rig, &["session", "list", "--state", "ended"])[0]["ended_reason"], "user_stop");

    let made = run(&rig, &["token", "create", "ci", "--scope", "channels:read", "--channel", "news"]);
    assert!(made.code == 0 && made.err.contains("only time"), "{}", made.err);
    assert_eq!(rig.ask_as(made.out.trim(), "GET", "/v1/channels", &[], Value::Null).status, 200);
    let list = ok(&rig, &["token", "list"]);
    assert!(list.contains("ci ") && !list.contains(made.out.trim()), "{list}");
    ok(&rig, &["token", "delete", "ci"]);
    assert_eq!(rig.ask_as(made.out.trim(), "GET", "/v1/channels", &[], Value::Null).status, 401);
}

#[test]
fn events_are_printed_and_followed() {
    let rig = Rig::new();
    ok(&rig, &["channel", "create", "news"]);
    ok(&rig, &["channel", "stop", "news"]);
    let past = ok(&rig, &["events"]);
    let kinds: Vec<&str> = past.lines().map(|line| line.split_whitespace().nth(2).unwrap()).collect();
    assert_eq!(kinds, ["channel.created", "channel.stopped"], "oldest first: {past}");
    assert_eq!(ok(&rig, &["events", "--types", "channel.stopped", "--limit", "5"]).lines().count(), 1);

    let mut follow = command(&rig, &["events", "--follow", "--json"]);
    let mut child = follow.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap()["seq"].clone();
    assert_eq!((next(), next()), (json!(1), json!(2)));
    ok(&rig, &["channel", "start", "news"]);
    assert_eq!(next(), 3);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_snapshot_is_saved_or_the_problem_is_said() {
    let rig = Rig::new();
    ok(&rig, &["channel", "create", "live"]);
    ok(&rig, &["channel", "create", "idle"]);
    let said = ok(&rig, &["channel", "snapshot", "live", "-o", "now.jpg"]);
    assert_eq!(said, format!("now.jpg: {} bytes\n", support::SNAPSHOT.len()));
    assert_eq!(std::fs::read(rig.folder.path().join("now.jpg")).unwrap(), support::SNAPSHOT);
    let out = command(&rig, &["channel", "snapshot", "live", "-o", "-"]).output().unwrap();
    assert_eq!(out.stdout, support::SNAPSHOT);
    let idle = run(&rig, &["channel", "snapshot", "idle", "-o", "idle.jpg"]);
    assert_eq!(idle.code, 6, "{}", idle.err);
    assert!(idle.err.contains("idle shows no picture now: it has no session"), "{}", idle.err);
    assert!(!rig.folder.path().join("idle.jpg").exists());
    assert_eq!(run(&rig, &["channel", "snapshot", "live", "-o", "no/such/folder.jpg"]).code, 1);
    assert_eq!(run(&rig, &["channel", "snapshot", "live"]).code, 2);
}

#[test]
fn completions_name_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let output = Command::new(env!("CARGO_BIN_EXE_rung")).args(["completions", shell]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && text.contains("rotate-key") && text.contains("channel"), "{shell}");
    }
}

#[test]
fn a_logo_is_put_moved_and_taken_away() {
    let rig = Rig::new();
    rig.make_channel("news");
    let file = rig.folder.path().join("logo.png");
    image::RgbaImage::from_pixel(40, 20, image::Rgba([255, 0, 0, 200])).save(&file).unwrap();
    let file = file.to_str().unwrap();
    let said = ok(&rig, &["channel", "logo", "news", file, "--corner", "top-left", "--width", "12.5"]);
    assert_eq!(said, "channel news: a logo of 40x20 pixels, top-left, 12.5 % wide, 3 % from the edges, opacity 1\n");
    let moved = json_of(&rig, &["channel", "logo", "news", "--opacity", "0.5", "--margin", "0"]);
    assert_eq!((&moved["opacity"], &moved["margin"], &moved["corner"]), (&json!(0.5), &json!(0), &json!("top-left")));
    assert!(ok(&rig, &["channel", "show", "news"]).contains("a logo of 40x20 pixels, top-left"));
    ok(&rig, &["channel", "set", "news", "--field", "crop={\"top\": 140}"]);
    assert!(ok(&rig, &["channel", "show", "news"]).contains("left 0, right 0, top 140, bottom 0"));
    assert_eq!(ok(&rig, &["channel", "logo", "news", "--remove"]), "channel news: no logo\n");
    for (args, code, words) in [
        (&["channel", "logo", "news"][..], 2, "nothing to do"),
        (&["channel", "logo", "news", "nowhere.png"], 2, "nowhere.png"),
        (&["channel", "logo", "news", "--remove"], 5, "has no logo"),
        (&["channel", "logo", "news", file, "--width", "90"], 7, "from 1 to 50"),
        (&["channel", "logo", "news", "--remove", "--width", "9"], 2, "cannot be used with"),
        (&["channel", "logo", "news", "admin.token"], 7, "is no PNG"),
    ] {
        let said = run(&rig, args);
        assert!(said.code == code && said.err.contains(words), "{args:?}: {} {}", said.code, said.err);
    }
}
