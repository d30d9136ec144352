//! The state folder of a running daemon can no longer be written: what is on air goes on, the API says why nothing else
//! does, and all of it ends by itself.
//!
//! Method: a disk without room is a small tmpfs in a mount namespace of the daemon's own, filled from outside. A disk that
//! refuses every write, as one that the system has made read-only does, is a limit of 0 on the size of the daemon's files,
//! set while it runs: that needs no rights.

#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]

#[expect(dead_code, reason = "other tests use the rest")]
#[path = "support/api.rs"]
mod api;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "support/book.rs"]
mod book;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "support/daemon.rs"]
mod daemon;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "support/fold.rs"]
mod fold;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "support/follow.rs"]
mod follow;
#[path = "support/numbered.rs"]
mod numbered;

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rung::control::record;
use rung::media::channel::SessionId;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::{Value, json};

use api::Reply;
use book::Book;
use daemon::{Daemon, Running, signal, wait};
use follow::Follow;
use numbered::{Drawn, clip};

const CLIP: &str =
    "-c:v libx264 -preset veryfast -bf 2 -g 50 -keyint_min 50 -sc_threshold 0 -b:v 500k -c:a aac -ac 2 -b:a 96k";
/// Twice the ballast and more: only then there is room for it again.
const DISK_MIB: u32 = 160;

/// A daemon with transmux channels of these names, and who may ask it.
struct Station {
    daemon: Daemon,
    token: String,
    file: PathBuf,
}

impl Station {
    /// `state`: its state folder as this process sees it.
    fn start(wrapper: &[&str], channels: &[&str], state: impl Fn(&Daemon) -> PathBuf) -> Station {
        let table =
            |name| format!("[[bootstrap.channel]]\nname = \"{name}\"\nkind = \"transmux\"\nend_on_eos = false\n");
        let daemon = Daemon::start_under(wrapper, &channels.iter().map(table).collect::<String>());
        let drawn = Drawn { width: 320, height: 180, rate: "25", pictures: 250 };
        let file = clip("book-10.ts", drawn, &["sine=frequency=440:sample_rate=48000:duration=10"], CLIP);
        Station { token: api::admin_token(&state(&daemon)), daemon, file }
    }

    fn ask(&self, method: &str, path: &str, body: Value) -> Reply {
        api::ask(self.daemon.http, &self.token, method, path, &[], &body).expect("a whole head")
    }

    fn push(&self, channel: &str, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rung"));
        command.args(["push", "--quiet", "--loop"]).args(more).arg(&self.file).arg(self.daemon.publish_url(channel));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn publish(&self, channel: &str) -> Running {
        Running(self.push(channel, &["--reconnect"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// As the data plane has it.
    fn state_of(&self, channel: &str) -> String {
        let status: Value = serde_json::from_slice(&self.daemon.get("/status.json").body).unwrap();
        let one = status["channels"].as_array().unwrap().iter().find(|c| c["name"] == channel).unwrap();
        one["state"].as_str().unwrap().to_owned()
    }

    fn wait_state(&self, channel: &str, state: &str) {
        wait(Duration::from_secs(20), &format!("{channel} to be {state}"), || {
            (self.state_of(channel) == state).then_some(())
        });
    }

    /// As the book has it: the newest session of a channel.
    fn session(&self, channel: &str) -> Value {
        self.ask("GET", &format!("/v1/channels/{channel}/sessions"), Value::Null).json()["items"][0].clone()
    }

    fn condition(&self) -> (String, String) {
        let state = &self.ask("GET", "/v1/system", Value::Null).json()["state"];
        let text = |member: &str| state[member].as_str().unwrap().to_owned();
        (text("condition"), text("detail"))
    }

    fn wait_good(&self) {
        wait(Duration::from_secs(10), "a good state folder", || (self.condition().0 == "good").then_some(()));
    }

    /// A change that may wait.
    fn change(&self, seconds: u64) -> Reply {
        self.ask("PATCH", "/v1/channels/news", json!({ "max_duration_s": seconds }))
    }

    fn newest_segment(&self, channel: &str) -> u64 {
        let text = self.daemon.get(&format!("/live/{channel}/source.m3u8")).text();
        let uris = text.lines().filter_map(|line| line.rsplit_once("/s")?.1.strip_suffix(".m4s")?.parse().ok());
        uris.max().unwrap_or(0)
    }

    /// Viewers get so many more segments.
    fn goes_on(&self, channel: &str, segments: u64) {
        let from = self.newest_segment(channel);
        wait(Duration::from_secs(20), "live to go on", || {
            (from > 0 && self.newest_segment(channel) >= from + segments).then_some(())
        });
        assert_eq!(self.daemon.get("/readyz").status, 200, "viewers may come");
    }
}

/// A refusal that says what is wrong and that it passes.
fn says_why(reply: &Reply, why: &str) {
    assert_eq!((reply.status, reply.code().as_str()), (503, "state_unwritable"), "{}", reply.text());
    let detail = reply.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains(why) && detail.contains("live goes on"), "{detail}");
    assert!(reply.header("retry-after").is_some(), "{reply:?}");
}

/// What the folder holds once its daemon is gone: every event once, and states that they tell.
fn is_sound(daemon: &mut Daemon) -> Vec<String> {
    signal(daemon.pid(), "KILL");
    daemon.wait_exit();
    let found = Book::default().check(&daemon.folder().join("rung-data")).unwrap();
    found.events.iter().map(|record| record.event.what.name().to_owned()).collect()
}

// ── no write at all ─────────────────────────────────────────────────────────────────────────────────────────────────

/// `Some(0)`: no file of the daemon's can be written any more. `None`: as before.
fn limit_files(daemon: &Daemon, current: Option<u64>) {
    let pid = Pid::from_raw(daemon.pid().try_into().unwrap());
    prlimit(pid, Resource::Fsize, Rlimit { current, maximum: None }).unwrap();
}

#[test]
fn a_disk_that_takes_no_writes_stops_changes_and_not_what_is_on_air() {
    // The signal that comes with the limit would end the process.
    let wrapper = ["sh", "-c", "trap '' XFSZ; exec \"$@\"", "sh"];
    let mut here = Station::start(&wrapper, &["news", "lost", "late"], |daemon| daemon.folder().join("rung-data"));
    let (_news, lost) = (here.publish("news"), here.publish("lost"));
    here.wait_state("news", "live");
    here.wait_state("lost", "live");
    wait(Duration::from_secs(5), "both in the book", || {
        ["news", "lost"].iter().all(|name| here.session(name)["state"] == "live").then_some(())
    });
    let viewer = Follow::start(here.daemon.http, "news");
    limit_files(&here.daemon, Some(0));

    says_why(&here.change(4_000), "cannot be written");
    let (condition, detail) = here.condition();
    assert_eq!(condition, "failing");
    assert!(detail.contains("cannot be written") && detail.contains("live goes on"), "{detail}");
    assert_eq!(here.ask("GET", "/v1/channels/news", Value::Null).json()["state"], "active", "reads go on");
    says_why(&here.ask("POST", "/v1/channels/late/stop", Value::Null), "cannot be written");
    says_why(&here.ask("POST", "/v1/channels", json!({ "name": "more" })), "cannot be written");
    let refused: Output = here.push("late", &[]).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned() + &String::from_utf8_lossy(&refused.stdout);
    assert!(!refused.status.success() && said.contains("1503"), "{said}");

    // A fact that the disk does not take: the data plane does not wait for it, the book has it once it can.
    drop(lost);
    here.wait_state("lost", "reconnecting");
    here.goes_on("news", 2);
    assert_eq!(here.session("lost")["input"], "connected", "nothing was written");

    limit_files(&here.daemon, None);
    wait(Duration::from_secs(10), "the fact that waited", || {
        (here.session("lost")["input"] == "reconnecting").then_some(())
    });
    here.wait_good();
    assert_eq!(here.change(4_000).status, 200);
    let _late = here.publish("late");
    here.wait_state("late", "live");
    here.goes_on("news", 1);
    viewer.stop().assert_satisfied("news");
    let log = here.daemon.log();
    assert!(!log.contains("panicked"), "{log}");
    let events = is_sound(&mut here.daemon);
    let count = |name: &str| events.iter().filter(|event| *event == name).count();
    assert_eq!((count("session.created"), count("session.input_lost"), count("channel.created")), (3, 1, 3));
}

// ── no room ─────────────────────────────────────────────────────────────────────────────────────────────────────────

/// A shell's words that give the command behind them a small disk for its state. `None`: this machine lets us mount nothing.
fn small_disk() -> Option<[String; 5]> {
    let namespaces = if rustix::process::geteuid().is_root() { "-m" } else { "-Urm" };
    let mount = format!("mount -t tmpfs -o size={DISK_MIB}m none");
    let trial = tempfile::tempdir().unwrap();
    let may = [namespaces, "sh", "-c", &format!("{mount} \"$0\"")];
    if !Command::new("unshare").args(may).arg(trial.path()).output().is_ok_and(|o| o.status.success()) {
        println!("SKIP full disk: no mount here");
        return None;
    }
    // $4: the configuration, beside which the state is.
    let script = format!("dir=$(dirname \"$4\")/rung-data && mkdir -p \"$dir\" && {mount} \"$dir\" && exec \"$@\"");
    Some(["unshare".into(), namespaces.into(), "sh".into(), "-c".into(), script])
}

/// Takes all the room there is.
fn fill(state: &Path) -> PathBuf {
    let path = state.join("filler");
    let mut filler = File::create(&path).unwrap();
    while filler.write_all(&[1; 1 << 16]).is_ok() {}
    while filler.write_all(&[1; 1 << 12]).is_ok() {}
    path
}

#[test]
fn a_full_disk_leaves_what_is_on_air_and_what_ends_it_and_heals_by_itself() {
    let Some(words) = small_disk() else { return };
    let wrapper: Vec<&str> = words.iter().map(String::as_str).chain(["sh"]).collect();
    // Through the daemon's own view of the file system.
    let state = |daemon: &Daemon| {
        let inside = daemon.folder().join("rung-data");
        Path::new(&format!("/proc/{}/root", daemon.pid())).join(inside.strip_prefix("/").unwrap())
    };
    let mut here = Station::start(&wrapper, &["news", "spare"], state);
    let state = state(&here.daemon);
    let _news = here.publish("news");
    here.wait_state("news", "live");
    let viewer = Follow::start(here.daemon.http, "news");
    assert_eq!(state.join("ballast").metadata().unwrap().len(), 64 << 20);
    let filler = fill(&state);

    // What is free inside the file is used up first, and the ballast makes room for the write that met the end.
    let made = |n: usize| here.ask("POST", "/v1/channels", json!({ "name": format!("c{n}") }));
    let refused = (0..2_000).find_map(|n| Some(made(n)).filter(|reply| reply.status != 201));
    says_why(&refused.expect("the disk is full"), "free space");
    let (condition, detail) = here.condition();
    assert_eq!(condition, "full");
    assert!(detail.contains("free space") && detail.contains("live goes on"), "{detail}");
    assert!(!state.join("ballast").exists());
    says_why(&here.change(4_000), "free space");
    // Stop and delete, and what a session on air has to write, use the reserve.
    assert_eq!(here.ask("POST", "/v1/channels/spare/stop", Value::Null).status, 200);
    assert_eq!(here.ask("DELETE", "/v1/channels/c0", Value::Null).status, 204);
    says_why(&here.ask("POST", "/v1/channels/spare/start", Value::Null), "free space");
    let heard = here.session("news")["last_media_at"].clone();
    here.goes_on("news", 2);
    wait(Duration::from_secs(5), "the book to go on", || {
        (here.session("news")["last_media_at"] != heard).then_some(())
    });

    std::fs::remove_file(filler).unwrap();
    here.wait_good();
    assert_eq!(state.join("ballast").metadata().unwrap().len(), 64 << 20);
    assert_eq!(here.change(4_000).status, 200);
    assert_eq!(here.ask("POST", "/v1/channels/spare/start", Value::Null).status, 200);
    here.goes_on("news", 1);
    viewer.stop().assert_satisfied("news");
    assert_eq!(here.daemon.log().matches("code=\"state_folder\"").count(), 2, "{}", here.daemon.log());
    // The disk is the daemon's own and goes with it: what it holds is read before.
    let copy = tempfile::tempdir().unwrap();
    signal(here.daemon.pid(), "STOP");
    std::fs::create_dir(copy.path().join("state")).unwrap();
    std::fs::copy(state.join("state/data.mdb"), copy.path().join("state/data.mdb")).unwrap();
    signal(here.daemon.pid(), "KILL");
    here.daemon.wait_exit();
    let found = Book::default().check(copy.path()).unwrap();
    let stopped = found.events.iter().filter(|record| record.event.what.name() == "channel.stopped").count();
    assert_eq!(stopped, 1);
}
