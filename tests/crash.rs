//! kill -9 at any moment, again and again on one folder.
//!
//! Method: writers change channels, tokens and sessions over the API, publishers come and go, a reader follows the events.
//! The daemon is killed at a random instant, and what it left must hold everything that was answered, of each request
//! without an answer all or nothing, and states that the events alone tell. To show that the checks can fail, the ledger
//! runs in a child of this test binary that commits a state and its event in two transactions, or answers too early.
//!
//! `RUNG_LONG=1`: 240 kills of the daemon. `RUNG_SEED`: another walk.

#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]

#[expect(dead_code, reason = "other tests use the rest")]
#[path = "support/api.rs"]
mod api;
#[path = "support/book.rs"]
mod book;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "support/daemon.rs"]
mod daemon;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "support/fold.rs"]
mod fold;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "support/numbered.rs"]
mod numbered;
#[path = "crash/planted.rs"]
mod planted;
#[path = "support/random.rs"]
mod random;
#[path = "crash/reader.rs"]
mod reader;
#[path = "crash/writer.rs"]
mod writer;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rung::control::record;
use rung::media::channel::SessionId;
use serde_json::json;

use book::Book;
use daemon::{Daemon, KEY, Running, signal};
use numbered::{Drawn, clip};
use planted::{Commits, run_and_kill};
use random::Random;
use reader::Reader;
use writer::{Tally, Writer};

const CLIP: &str =
    "-c:v libx264 -preset veryfast -bf 2 -g 50 -keyint_min 50 -sc_threshold 0 -b:v 500k -c:a aac -ac 2 -b:a 96k";
/// Channels of `live` are published to without end, those of `brief` by publishers that finish.
const LIVE: usize = 4;
const BRIEF: usize = 2;
const WRITERS: usize = 3;
/// In so many rounds one is long enough for sessions to go on air.
const LONG_ROUND_EVERY: usize = 4;

fn long() -> bool {
    std::env::var("RUNG_LONG").is_ok_and(|v| v == "1")
}

fn seed() -> u64 {
    std::env::var("RUNG_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(0x5eed)
}

/// Not a test: what the others run in a process of its own.
#[test]
fn child() {
    let Ok(role) = std::env::var("RUNG_CRASH_ROLE") else { return };
    let folder = PathBuf::from(std::env::var("RUNG_CRASH_DIR").unwrap());
    // Ends the line that the harness began.
    println!();
    planted::child(&role, &folder, std::env::var("RUNG_CRASH_SEED").unwrap().parse().unwrap());
}

// ── the ledger alone ────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn a_killed_ledger_holds_what_it_acknowledged_and_its_events_tell_its_states() {
    let folder = tempfile::tempdir().unwrap();
    let (mut book, mut random) = (Book::default(), Random(seed()));
    for round in 0..if long() { 200 } else { 20 } {
        let after = Duration::from_millis(random.next() % 60);
        let judged = run_and_kill(Commits::Whole, folder.path(), random.next(), after, &mut book);
        judged.unwrap_or_else(|why| panic!("round {round}: {why}"));
    }
    println!("{}", book.tally());
}

/// What the checks say of a ledger with a bug, which they must notice within some kills.
fn found_in(commits: Commits) -> String {
    let mut random = Random(seed());
    let found = (1..=40).find_map(|kills| {
        let folder = tempfile::tempdir().unwrap();
        let after = Duration::from_millis(random.next() % 60);
        let judged = run_and_kill(commits, folder.path(), random.next(), after, &mut Book::default());
        judged.err().map(|why| (kills, why))
    });
    let (kills, why) = found.expect("40 kills and the planted bug went unnoticed");
    println!("{commits:?}: noticed at kill {kills}: {why}");
    why
}

#[test]
fn the_checks_find_a_state_and_its_event_in_two_transactions() {
    let why = found_in(Commits::Split);
    assert!(why.contains("events say") || why.contains("events tell") || why.contains("without events"), "{why}");
}

#[test]
fn the_checks_find_an_answer_before_the_commit() {
    let why = found_in(Commits::Early);
    assert!(why.contains("was acknowledged"), "{why}");
}

// ── the daemon ──────────────────────────────────────────────────────────────────────────────────────────────────────

fn channels() -> String {
    let table =
        |name: String, more: &str| format!("[[bootstrap.channel]]\nname = \"{name}\"\nkind = \"transmux\"\n{more}");
    let live = (1..=LIVE).map(|n| {
        // Half of them wait so short a time that a restart ends their sessions.
        let window = if n % 2 == 0 { "reconnect_window_s = 1\n" } else { "" };
        table(format!("live{n}"), &format!("end_on_eos = false\n{window}"))
    });
    let brief = (1..=BRIEF).map(|n| table(format!("brief{n}"), "end_on_eos = true\n"));
    live.chain(brief).collect()
}

/// One process with a stream for each channel of a kind.
fn publish(daemon: &Daemon, file: &Path, kind: &str, streams: usize, more: &[&str]) -> Running {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rung"));
    command.args(["push", "--quiet", "--loop", "--streams", &streams.to_string()]).args(more).arg(file);
    command.arg(format!("srt://{}?streamid={kind}{{n}}/{KEY}", daemon.srt));
    let (stdin, out) = (Stdio::null(), Stdio::null());
    Running(command.stdin(stdin).stdout(out).stderr(Stdio::null()).spawn().unwrap())
}

struct Crowd {
    writers: Vec<Writer>,
    reader: Reader,
    file: PathBuf,
}

impl Crowd {
    fn gather(daemon: &Daemon, random: &mut Random) -> Crowd {
        let admin = api::admin_token(&daemon.folder().join("rung-data"));
        // Each has a token of its own: how often one may ask is limited.
        let token = |name: &str| {
            let scopes = ["channels:write", "sessions:write", "tokens:admin", "nodes:admin"];
            let body = json!({ "name": name, "scopes": scopes });
            let made = api::ask(daemon.http, &admin, "POST", "/v1/tokens", &[], &body).unwrap();
            made.json()["secret"].as_str().unwrap_or_else(|| panic!("{}", made.text())).to_owned()
        };
        let mut writers: Vec<Writer> = (0..WRITERS)
            .map(|n| Writer::new(&format!("w{n}"), &token(&format!("writer {n}")), random.next()))
            .collect();
        let operated: Vec<String> =
            (1..=LIVE).map(|n| format!("live{n}")).chain((1..=BRIEF).map(|n| format!("brief{n}"))).collect();
        let operated: Vec<&str> = operated.iter().map(String::as_str).collect();
        writers.push(Writer::operator("op", &token("operator"), random.next(), daemon.http, &operated));
        let drawn = Drawn { width: 320, height: 180, rate: "25", pictures: 250 };
        let file = clip("book-10.ts", drawn, &["sine=frequency=440:sample_rate=48000:duration=10"], CLIP);
        Crowd { writers, reader: Reader::new(&token("reader")), file }
    }

    /// Everybody at once, until the daemon is killed `after` some time.
    fn round(&mut self, daemon: &mut Daemon, after: Duration) {
        let again = [&["--reconnect"][..], &["--reconnect", "--seconds", "1"][..]];
        let _live = publish(daemon, &self.file, "live", LIVE, again[0]);
        let _brief = publish(daemon, &self.file, "brief", BRIEF, again[1]);
        let to = daemon.http;
        std::thread::scope(|scope| {
            for writer in &mut self.writers {
                scope.spawn(|| writer.run(to));
            }
            let reader = &mut self.reader;
            scope.spawn(move || reader.run(to, u64::MAX));
            std::thread::sleep(after);
            signal(daemon.pid(), "KILL");
            daemon.wait_exit();
        });
    }

    fn settle(&mut self, folder: &Path, book: &mut Book) -> Result<(), String> {
        let found = book.check(folder)?;
        for writer in &mut self.writers {
            writer.settle(&found, book)?;
        }
        if self.reader.last() > book.seq {
            return Err(format!("event {} was told, the last one is {}", self.reader.last(), book.seq));
        }
        Ok(())
    }

    fn tally(&self) -> Tally {
        self.writers.iter().fold(Tally::default(), |sum, writer| Tally {
            answered: sum.answered + writer.tally.answered,
            unanswered: sum.unanswered + writer.tally.unanswered,
            done: sum.done + writer.tally.done,
            replayed: sum.replayed + writer.tally.replayed,
        })
    }
}

#[test]
fn a_daemon_killed_at_any_moment_keeps_its_word() {
    let kills = if long() { 240 } else { 24 };
    let mut random = Random(seed());
    let mut daemon = Daemon::start(&channels());
    let folder = daemon.folder().join("rung-data");
    let mut crowd = Crowd::gather(&daemon, &mut random);
    let mut book = Book::default();
    let (mut killed, mut starting, mut slowest) = (0, 0, Duration::ZERO);
    for round in 0.. {
        let most = if round % LONG_ROUND_EVERY == LONG_ROUND_EVERY - 1 { 4_000 } else { 800 };
        crowd.round(&mut daemon, Duration::from_millis(random.next() % most));
        killed += 1;
        if random.below(4) == 0 {
            // In the middle of its start, while it takes up what the last one left.
            daemon.again_killed(Duration::from_millis(random.next() % 150));
            (killed, starting) = (killed + 1, starting + 1);
        }
        crowd.settle(&folder, &mut book).unwrap_or_else(|why| panic!("seed {}, round {round}: {why}", seed()));
        let begun = Instant::now();
        daemon = if round == 0 { daemon.again_here() } else { daemon.again() };
        slowest = slowest.max(begun.elapsed());
        if killed >= kills {
            break;
        }
    }
    // What the reader has not heard yet is still there for it.
    crowd.reader.run(daemon.http, book.seq);
    signal(daemon.pid(), "KILL");
    daemon.wait_exit();
    let all = Book::default().check(&folder).unwrap();
    assert!(crowd.reader.last() >= book.seq, "the reader has {} of {}", crowd.reader.last(), book.seq);
    assert!(all.events.starts_with(&crowd.reader.events), "the reader heard what is there");
    let tally = crowd.tally();
    println!("{killed} kills, {starting} of them while it started; slowest start {slowest:?}; {}", book.tally());
    println!("{tally:?}; the reader connected {} times", crowd.reader.connections);
    assert!(tally.answered > 5 * kills && tally.unanswered > kills / 4, "there was load: {tally:?}");
    assert!(
        tally.done > 0 && tally.replayed > 0,
        "kills hit requests between their commit and their answer: {tally:?}"
    );
}
