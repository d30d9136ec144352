//! The state store against what ends a process or a disk: kill -9, a power cut, no room, no permission, damaged files.
//!
//! Method: the load writes one transaction per number n: two rows and an event, and drops those of n - KEPT, so that pages
//! are freed and used again. A store is whole if its events are contiguous, each has its rows and no row is without its
//! event; it lost nothing if the last event is not older than the last acknowledged one. What may kill a process runs in a
//! child of this test binary.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{TryRecvError, sync_channel};
use std::time::Duration;

use rung::control::state::{
    Condition, Db, Error, Need, OpenError, Options, Read, Recovery, State, Store, Table, Ulid, Write, verify,
};
use rung::time::SystemClock;

const CHANNELS: Table<Ulid, String> = Table::json(Db::Channels, 1);
const SESSIONS: Table<Ulid, u64> = Table::json(Db::Sessions, 1);
const EVENTS: Table<u64, u64> = Table::json(Db::Events, 1);
/// Numbers whose rows are kept.
const KEPT: u64 = 200;
/// Writes that wait at a time.
const IN_FLIGHT: usize = 8;

fn long() -> bool {
    std::env::var("RUNG_LONG").is_ok_and(|v| v == "1")
}

fn options(dir: &Path) -> Options {
    Options { ballast_bytes: 1 << 16, ..Options::new(dir) }
}

// ── the load, and what must be true of it ───────────────────────────────────────────────────────────────────────────

fn rows(txn: &mut Write<'_, '_>, n: u64) -> Result<(), Error> {
    txn.put(&CHANNELS, &Ulid(n.into()), &text(n))?;
    txn.put(&SESSIONS, &Ulid(n.into()), &n)?;
    if n > KEPT {
        txn.delete(&CHANNELS, &Ulid((n - KEPT).into()))?;
        txn.delete(&SESSIONS, &Ulid((n - KEPT).into()))?;
    }
    Ok(())
}

fn event(txn: &mut Write<'_, '_>, n: u64) -> Result<(), Error> {
    let number = txn.append(&EVENTS, &n)?;
    assert_eq!(number, n, "one event per transaction, in order");
    txn.delete_before(&EVENTS, &(n + 1).saturating_sub(KEPT))?;
    Ok(())
}

fn text(n: u64) -> String {
    format!("channel {n} ").repeat(usize::try_from(n % 40).unwrap() + 1)
}

/// Writes on and on (`count` numbers), telling `ack` each number once it is durable. `split`: the planted bug.
fn load(store: &Store, count: u64, split: bool, ack: impl Fn(u64) + Send + Sync + 'static) {
    let last = store.read(|view| view.last(&EVENTS)).unwrap().map_or(0, |(n, _)| n);
    let ack = std::sync::Arc::new(ack);
    let (free, freed) = sync_channel(IN_FLIGHT);
    (0..IN_FLIGHT).for_each(|_| free.send(()).unwrap());
    for n in last + 1..=last.saturating_add(count) {
        freed.recv().unwrap();
        let (ack, free) = (ack.clone(), free.clone());
        let done = move |outcome: Result<(), Error>| {
            outcome.unwrap();
            ack(n);
            free.try_send(()).unwrap();
        };
        if split {
            store.write(Need::Ordinary, move |txn| rows(txn, n)).wait().unwrap();
            store.write_then(Need::Ordinary, move |txn| event(txn, n), done);
        } else {
            store.write_then(Need::Ordinary, move |txn| rows(txn, n).and_then(|()| event(txn, n)), done);
        }
    }
    (0..IN_FLIGHT).for_each(|_| freed.recv().unwrap());
}

/// Whether the folder holds whole transactions only, up to `acked` at least.
fn check(dir: &Path, acked: u64) -> Result<(), String> {
    let state = State::open(&options(dir)).map_err(|e| e.to_string())?;
    if !state.notes().is_empty() {
        return Err(state.notes().join("; "));
    }
    let damage = state.damage(3).map_err(|e| e.to_string())?;
    if !damage.is_empty() {
        return Err(format!("{damage:?}"));
    }
    state.control.read(|view| whole(view, acked).map_err(Error::Lmdb)).map_err(|e| e.to_string())
}

fn whole(view: &Read<'_>, acked: u64) -> Result<(), String> {
    let say = |e: Error| e.to_string();
    let events: Vec<u64> =
        view.scan(&EVENTS).map_err(say)?.map(|r| r.map(|(n, _)| n)).collect::<Result<_, _>>().map_err(say)?;
    let last = events.last().copied().unwrap_or(0);
    if last < acked {
        return Err(format!("event {acked} was acknowledged, the last one is {last}"));
    }
    if events.windows(2).any(|w| w[1] != w[0] + 1) || events.len() as u64 != last.min(KEPT) {
        return Err(format!("events are not contiguous: {} up to {last}", events.len()));
    }
    let rows = |names: bool| -> Result<BTreeSet<u64>, Error> {
        let number = |key: Ulid| u64::try_from(key.0).unwrap();
        if names {
            let row =
                |row: Result<(Ulid, String), Error>| row.map(|(k, v)| number(k) * u64::from(v == text(number(k))));
            view.scan(&CHANNELS)?.map(row).collect()
        } else {
            view.scan(&SESSIONS)?.map(|row| row.map(|(k, v)| if number(k) == v { v } else { 0 })).collect()
        }
    };
    let events: BTreeSet<u64> = events.into_iter().collect();
    for names in [true, false] {
        let rows = rows(names).map_err(say)?;
        if rows != events {
            let odd: Vec<_> = rows.symmetric_difference(&events).take(5).collect();
            return Err(format!("rows and events disagree at {odd:?}"));
        }
    }
    Ok(())
}

// ── children ────────────────────────────────────────────────────────────────────────────────────────────────────────

fn in_test_child(role: &str, dir: &Path) -> Command {
    in_child(Command::new(std::env::current_exe().unwrap()), role, dir)
}

fn in_child(mut command: Command, role: &str, dir: &Path) -> Command {
    command.args(["--exact", "child", "--nocapture", "--test-threads=1"]);
    command.env("RUNG_STATE_ROLE", role).env("RUNG_STATE_DIR", dir).stdout(Stdio::piped());
    command
}

/// Not a test: what the others run in a process of its own.
#[test]
fn child() {
    let Ok(role) = std::env::var("RUNG_STATE_ROLE") else { return };
    let dir = PathBuf::from(std::env::var("RUNG_STATE_DIR").unwrap());
    // Ends the line that the harness began.
    println!();
    let say = |n: u64| writeln!(std::io::stdout(), "ack {n}").unwrap();
    match role.as_str() {
        "load" => load(&State::open(&options(&dir)).unwrap().control, u64::MAX, false, say),
        "split" => load(&State::open(&options(&dir)).unwrap().control, u64::MAX, true, say),
        "traced" => {
            let acks = File::create(dir.join("acks")).unwrap();
            let ack = move |n: u64| (&acks).write_all(&n.to_le_bytes()).unwrap();
            load(&State::open(&options(&dir)).unwrap().control, 600, false, ack);
        }
        "check" => judge_each(&dir, |image| check(image, acked_at(image))),
        "flipped" => judge_each(&dir, judge_flipped),
        "full" => fill_the_disk(&dir),
        "limited" => hit_the_limit(&dir),
        "flipped-limit" => flip_the_limit(&dir),
        "read-only" => write_protect(&dir),
        other => panic!("no such role: {other}"),
    }
}

/// Judges every folder under `dir` that has no verdict yet; a verdict is written before the next one is begun.
fn judge_each(dir: &Path, judge: impl Fn(&Path) -> Result<(), String>) {
    for image in images(dir).into_iter().filter(|image| !image.join("verdict").exists()) {
        fs::write(image.join("verdict"), "crashed").unwrap();
        let verdict = judge(&image).err().unwrap_or_else(|| "good".to_owned());
        fs::write(image.join("verdict"), verdict).unwrap();
    }
}

fn images(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    found.retain(|path| path.join("state").is_dir());
    found.sort();
    found
}

fn acked_at(image: &Path) -> u64 {
    fs::read_to_string(image.join("acked")).unwrap().parse().unwrap()
}

/// Runs the judging child until every folder has its verdict: a crash costs one folder.
fn verdicts(role: &str, dir: &Path) -> Vec<String> {
    let all = images(dir);
    for _ in 0..=all.len() {
        let output = in_test_child(role, dir).stderr(Stdio::null()).output().unwrap();
        if all.iter().all(|image| image.join("verdict").exists()) {
            break;
        }
        assert!(output.status.signal().is_some(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    all.iter().map(|image| fs::read_to_string(image.join("verdict")).unwrap()).collect()
}

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

// ── kill -9 ─────────────────────────────────────────────────────────────────────────────────────────────────────────

/// Kills a child some milliseconds after its first acknowledgement; the last one that came through the pipe.
fn run_and_kill(role: &str, dir: &Path, after: Duration) -> u64 {
    let mut running: Child = in_test_child(role, dir).spawn().unwrap();
    let stdout = running.stdout.take().unwrap();
    let (first, begun) = sync_channel(1);
    let reader = std::thread::spawn(move || {
        let mut last = 0;
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            // The kill may cut the last line short.
            if let Some(n) = line.strip_prefix("ack ").and_then(|n| n.parse::<u64>().ok()) {
                last = if n == last + 1 || last == 0 { n } else { last };
                first.try_send(()).unwrap_or_default();
            }
        }
        last
    });
    begun.recv_timeout(Duration::from_secs(60)).expect("the child writes");
    std::thread::sleep(after);
    running.kill().unwrap();
    running.wait().unwrap();
    reader.join().unwrap()
}

#[test]
fn a_kill_loses_nothing_acknowledged_and_leaves_no_partial_transaction() {
    let dir = tempfile::tempdir().unwrap();
    let mut dice = Dice(0x5eed);
    let (mut before, mut acked) = (0, 0);
    for round in 0..if long() { 200 } else { 25 } {
        acked = run_and_kill("load", dir.path(), Duration::from_millis(1 + dice.roll(60)));
        assert!(acked > before, "round {round} got further: {before} to {acked}");
        before = acked;
        check(dir.path(), acked).unwrap_or_else(|why| panic!("round {round}: {why}"));
    }
    println!("{acked} transactions");
}

#[test]
fn the_kill_test_finds_a_state_and_its_event_in_two_transactions() {
    let mut dice = Dice(0xb06);
    let found = (0..40).find_map(|_| {
        let dir = tempfile::tempdir().unwrap();
        let acked = run_and_kill("split", dir.path(), Duration::from_millis(1 + dice.roll(60)));
        check(dir.path(), acked).err()
    });
    assert!(found.as_deref().is_some_and(|why| why.contains("disagree")), "the planted bug went unnoticed: {found:?}");
}

// ── power cut ───────────────────────────────────────────────────────────────────────────────────────────────────────

enum Traced {
    Write { at: usize, bytes: Vec<u8>, durable: bool },
    Sync,
    Ack(u64),
}

/// Runs the load under the shim. What `state/data.mdb` held before, and everything that happened to it.
fn trace(work: &Path) -> (Vec<u8>, Vec<Traced>) {
    let shim = work.join("shim.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/state_store/shim.c");
    let built = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&shim).args([source, "-ldl"]).status();
    assert!(built.unwrap().success());
    let folder = work.join("folder");
    drop(State::open(&options(&folder)).unwrap());
    let base = fs::read(folder.join("state/data.mdb")).unwrap();
    let log = work.join("log");
    let mut traced = in_test_child("traced", &folder);
    traced.env("LD_PRELOAD", &shim).env("SHIM_LOG", &log).env("SHIM_FILE", "/state/data.mdb");
    assert!(traced.output().unwrap().status.success());
    (base, parse(&fs::read(&log).unwrap()))
}

fn parse(mut log: &[u8]) -> Vec<Traced> {
    let mut events = Vec::new();
    while let Some((kind, rest)) = log.split_first() {
        let at = u64::from_le_bytes(rest[..8].try_into().unwrap());
        let length = usize::try_from(u64::from_le_bytes(rest[8..16].try_into().unwrap())).unwrap();
        let bytes = rest[16..16 + length].to_vec();
        log = &rest[16 + length..];
        events.push(match kind {
            b'W' | b'D' => Traced::Write { at: usize::try_from(at).unwrap(), bytes, durable: *kind == b'D' },
            b'S' => Traced::Sync,
            b'A' => Traced::Ack(u64::from_le_bytes(bytes.try_into().unwrap())),
            other => panic!("{other}"),
        });
    }
    events
}

/// Makes `count` folders, each what the disk may hold at some moment: all that was durable, and any 512-byte sectors of
/// the writes that were not. `syncs`: whether the disk was ever told to sync.
fn cut_power(base: &[u8], events: &[Traced], out: &Path, count: usize, syncs: bool) {
    let mut dice = Dice(0x9d_c0de);
    let mut cuts: Vec<usize> =
        (0..count).map(|_| usize::try_from(dice.roll(events.len() as u64)).unwrap() + 1).collect();
    cuts.sort_unstable();
    let (mut durable, mut pending, mut acked, mut done) = (base.to_vec(), Vec::<(usize, &[u8])>::new(), 0, 0);
    for (number, cut) in cuts.into_iter().enumerate() {
        for event in &events[done..cut] {
            match event {
                Traced::Write { at, bytes, durable: true } if syncs => put(&mut durable, *at, bytes),
                Traced::Write { at, bytes, .. } => pending.push((*at, bytes)),
                Traced::Sync if syncs => pending.drain(..).for_each(|(at, bytes)| put(&mut durable, at, bytes)),
                Traced::Sync => {}
                Traced::Ack(n) => acked = *n,
            }
        }
        done = cut;
        let mut image = durable.clone();
        let kept = [0, 10, 50, 90][usize::try_from(dice.roll(4)).unwrap()];
        // The write under way at the cut is torn too, durable or not.
        let torn = events.get(cut).and_then(|e| match e {
            Traced::Write { at, bytes, .. } => Some((*at, bytes.as_slice())),
            _ => None,
        });
        for (at, bytes) in pending.iter().copied().chain(torn) {
            for (i, sector) in bytes.chunks(512).enumerate() {
                if dice.roll(100) < kept {
                    put(&mut image, at + 512 * i, sector);
                }
            }
        }
        let dir = out.join(format!("{number:04}"));
        fs::create_dir_all(dir.join("state")).unwrap();
        fs::write(dir.join("state/data.mdb"), image).unwrap();
        fs::write(dir.join("acked"), acked.to_string()).unwrap();
    }
}

fn put(image: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    image.resize(image.len().max(at + bytes.len()), 0);
    image[at..at + bytes.len()].copy_from_slice(bytes);
}

#[test]
fn a_power_cut_loses_nothing_acknowledged_and_corrupts_nothing() {
    let work = tempfile::tempdir().unwrap();
    let (base, events) = trace(work.path());
    let count = |wanted: fn(&Traced) -> bool| events.iter().filter(|e| wanted(e)).count();
    let (writes, durable) =
        (count(|e| matches!(e, Traced::Write { .. })), count(|e| matches!(e, Traced::Write { durable: true, .. })));
    let (syncs, acks) = (count(|e| matches!(e, Traced::Sync)), count(|e| matches!(e, Traced::Ack(_))));
    println!("{writes} writes ({durable} of them synced by themselves), {syncs} syncs, {acks} acknowledgements");
    assert!(acks == 600 && syncs > 5 && durable > 5, "the shim sees what the store does");

    let (synced, unsynced) = (work.path().join("synced"), work.path().join("unsynced"));
    cut_power(&base, &events, &synced, if long() { 1_000 } else { 100 }, true);
    let bad: Vec<String> = verdicts("check", &synced).into_iter().filter(|v| v != "good").collect();
    assert!(bad.is_empty(), "{} images: {:?}", bad.len(), &bad[..bad.len().min(3)]);

    // The same writes on a disk that was never told to sync: the test must notice.
    cut_power(&base, &events, &unsynced, 40, false);
    let bad: Vec<String> = verdicts("check", &unsynced).into_iter().filter(|v| v != "good").collect();
    let lost = bad.iter().filter(|v| v.contains("was acknowledged")).count();
    println!("without syncs, of 40 images {lost} lost what was acknowledged, {} are damaged", bad.len() - lost);
    assert!(bad.len() >= 20 && lost < bad.len(), "the test cannot fail: {bad:?}");
}

// ── no room, no permission ──────────────────────────────────────────────────────────────────────────────────────────

/// Runs a role on a tmpfs of `mib` MiB of its own. False: this machine lets us mount nothing.
fn on_a_small_disk(role: &str, mib: u32) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let namespaces = if rustix::process::geteuid().is_root() { "-m" } else { "-Urm" };
    let mount = format!("mount -t tmpfs -o size={mib}m none \"$0\"");
    let may = Command::new("unshare").args([namespaces, "sh", "-c", &mount]).arg(dir.path()).output();
    if !may.is_ok_and(|o| o.status.success()) {
        println!("SKIP {role}: no mount here");
        return false;
    }
    let mut shell = Command::new("unshare");
    shell.args([namespaces, "sh", "-c", &format!("{mount} && exec \"$@\"")]).arg(dir.path());
    shell.arg(std::env::current_exe().unwrap());
    let output = in_child(shell, role, dir.path()).output().unwrap();
    print!("{}", String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success(), "{role}: {}", String::from_utf8_lossy(&output.stderr));
    true
}

fn write_n(state: &State, need: Need, n: u64) -> Result<(), Error> {
    let text = "x".repeat(3_000);
    state.control.write(need, move |txn| txn.put(&CHANNELS, &Ulid(n.into()), &text)).wait()
}

fn wait_for_good(state: &State) {
    let until = SystemClock::mono() + Duration::from_secs(20);
    while state.condition() != Condition::Good {
        assert!(SystemClock::mono() < until, "no recovery: {}", state.condition());
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn fill_the_disk(dir: &Path) {
    let folder = dir.join("state-folder");
    let state = State::open(&Options { ballast_bytes: 4 << 20, ..Options::new(&folder) }).unwrap();
    (0..50).for_each(|n| write_n(&state, Need::Ordinary, n).unwrap());
    assert!(folder.join("ballast").metadata().unwrap().len() == 4 << 20);
    let mut filler = File::create(dir.join("filler")).unwrap();
    while filler.write_all(&[1; 4096]).is_ok() {}
    // An open file would keep its room when it is removed.
    drop(filler);

    // Full: the ballast goes, and with it there is room for what was under way.
    let refused = (50..5_000).find_map(|n| write_n(&state, Need::Ordinary, n).err()).expect("the disk is full");
    let sentence = state.condition().to_string();
    assert!(matches!(state.condition(), Condition::Full { .. }), "{sentence}");
    assert_eq!(refused, Error::Unwritable(sentence.clone()));
    assert!(sentence.contains("free space") && sentence.contains("live goes on"), "{sentence}");
    assert!(!folder.join("ballast").exists());
    // Reads, deletes and what is essential go on; the rest is refused while that lasts.
    assert_eq!(state.control.read(|view| view.get(&CHANNELS, &Ulid(3))).unwrap().map(|v| v.len()), Some(3_000));
    for n in 0..20u64 {
        let gone = state.control.write(Need::Essential, move |txn| txn.delete(&CHANNELS, &Ulid(n.into())));
        assert_eq!(gone.wait(), Ok::<_, Error>(true));
        write_n(&state, Need::Essential, 10_000 + n).unwrap();
        assert!(write_n(&state, Need::Ordinary, 1).is_err());
    }
    // Room again: it ends by itself, with the ballast back in place.
    fs::remove_file(dir.join("filler")).unwrap();
    wait_for_good(&state);
    assert!(folder.join("ballast").metadata().unwrap().len() == 4 << 20);
    write_n(&state, Need::Ordinary, 1).unwrap();
    assert_eq!(state.damage(5).unwrap(), []);
    let rows = state.control.read(|view| view.count(Db::Channels)).unwrap();
    drop(state);
    let state = State::open(&Options { ballast_bytes: 4 << 20, ..Options::new(&folder) }).unwrap();
    assert_eq!(state.control.read(|view| view.count(Db::Channels)).unwrap(), rows);
}

#[test]
fn a_full_disk_leaves_reads_and_essential_writes_and_ends_by_itself() {
    on_a_small_disk("full", 24);
}

fn hit_the_limit(dir: &Path) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let state = State::open(&options(dir)).unwrap();
    (0..50).for_each(|n| write_n(&state, Need::Ordinary, n).unwrap());
    let data = dir.join("state/data.mdb");
    let maximum = getrlimit(Resource::Fsize).maximum;
    // Not a whole page: the first write across it is cut short, as on a full disk.
    let current = Some(data.metadata().unwrap().len() + 10_000);
    setrlimit(Resource::Fsize, Rlimit { current, maximum }).unwrap();
    let failed = (50..500u64).find(|n| write_n(&state, Need::Ordinary, *n).is_err()).expect("the file cannot grow");
    let sentence = state.condition().to_string();
    assert!(sentence.contains("cannot be written") && sentence.contains("live goes on"), "{sentence}");
    assert_eq!(state.control.read(|view| view.count(Db::Channels)).unwrap(), failed, "the failed write is not there");
    setrlimit(Resource::Fsize, Rlimit { current: maximum, maximum }).unwrap();
    (failed..failed + 50).for_each(|n| write_n(&state, Need::Ordinary, n).unwrap());
    assert_eq!(state.condition(), Condition::Good);
    assert_eq!(state.damage(5).unwrap(), []);
}

#[test]
fn a_file_that_may_not_grow_fails_writes_and_nothing_else() {
    in_limited_child("limited");
}

fn in_limited_child(role: &str) {
    let dir = tempfile::tempdir().unwrap();
    let mut shell = Command::new("sh");
    // The signal that comes with the limit would end the process.
    shell.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""]).arg(std::env::current_exe().unwrap());
    let output = in_child(shell, role, dir.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Some commit is under way whenever the limit comes: in one of a few only its last write, of the meta page, is refused.
/// LMDB wants its file opened again then.
fn flip_the_limit(dir: &Path) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let state = State::open(&options(dir)).unwrap();
    let maximum = getrlimit(Resource::Fsize).maximum;
    let mut dice = Dice(0xf11b);
    let (mut written, mut held) = (0, 0);
    std::thread::scope(|scope| {
        let (running, over) = sync_channel::<()>(0);
        let state = &state;
        let busy = scope.spawn(move || {
            let mut written = 0;
            // Until the other end is dropped, by a panic too.
            for n in (1_000_000..).take_while(|_| over.try_recv() == Err(TryRecvError::Empty)) {
                written += u64::from(write_n(state, Need::Ordinary, n).is_ok());
            }
            written
        });
        for n in 0..if long() { 500 } else { 100 } {
            std::thread::sleep(Duration::from_micros(200 + dice.roll(3_000)));
            setrlimit(Resource::Fsize, Rlimit { current: Some(0), maximum }).unwrap();
            let refused = (0..50).map(|_| write_n(state, Need::Ordinary, 0)).find(Result::is_err);
            let why = refused.expect("nothing can be written").unwrap_err();
            assert!(matches!(why, Error::Unwritable(_)), "{why:?}");
            assert!(state.control.read(|view| view.count(Db::Channels)).unwrap() >= held, "reads go on");
            setrlimit(Resource::Fsize, Rlimit { current: maximum, maximum }).unwrap();
            write_n(state, Need::Ordinary, n + 1).unwrap();
            assert_eq!(state.condition(), Condition::Good);
            held = n + 1;
        }
        drop(running);
        written += busy.join().unwrap();
    });
    assert_eq!(state.damage(5).unwrap(), []);
    let rows = state.control.read(|view| view.count(Db::Channels)).unwrap();
    assert!(rows >= written + held, "{written} and {held} were acknowledged, {rows} are there");
    drop(state);
    let state = State::open(&options(dir)).unwrap();
    assert_eq!(state.control.read(|view| view.count(Db::Channels)).unwrap(), rows);
    assert!(state.notes().is_empty(), "{:?}", state.notes());
}

#[test]
fn a_commit_that_fails_at_its_very_end_is_mended() {
    in_limited_child("flipped-limit");
}

fn write_protect(dir: &Path) {
    write_n(&State::open(&options(dir)).unwrap(), Need::Ordinary, 1).unwrap();
    assert!(Command::new("mount").args(["-o", "remount,ro"]).arg(dir).status().unwrap().success());
    let error = State::open(&options(dir)).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, OpenError::Unwritable { .. }), "{text}");
    assert!(text.contains("Read-only") && text.contains(dir.to_str().unwrap()), "{text}");
}

#[test]
fn a_read_only_folder_is_refused_with_its_name() {
    if rustix::process::geteuid().is_root() {
        on_a_small_disk("read-only", 8);
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o555);
    fs::set_permissions(dir.path(), mode).unwrap();
    let error = State::open(&options(dir.path())).unwrap_err();
    assert!(matches!(error, OpenError::Unwritable { .. }) && error.to_string().contains("write access"), "{error}");
}

// ── damaged files ───────────────────────────────────────────────────────────────────────────────────────────────────

fn filled(dir: &Path) -> State {
    let state = State::open(&options(dir)).unwrap();
    load(&state.control, 500, false, |_| {});
    state
}

#[test]
fn a_file_cut_off_anywhere_is_refused_or_replaced_by_the_backup() {
    let dir = tempfile::tempdir().unwrap();
    drop(filled(dir.path()));
    let whole = fs::read(dir.path().join("state/data.mdb")).unwrap();
    let mut dice = Dice(0xc07);
    let work = tempfile::tempdir().unwrap();
    for round in 0..20 {
        let keep = usize::try_from(dice.roll(whole.len() as u64)).unwrap();
        let folder = work.path().join(round.to_string());
        fs::create_dir_all(folder.join("state")).unwrap();
        fs::write(folder.join("state/data.mdb"), &whole[..keep]).unwrap();
        match State::open(&options(&folder)) {
            // What was cut off were free pages.
            Ok(state) => {
                assert_eq!(state.damage(5).unwrap(), [], "{keep} of {}", whole.len());
                drop(state);
                check(&folder, 500).unwrap();
            }
            Err(error) => assert!(matches!(error, OpenError::Damaged { .. }), "{keep}: {error}"),
        }
    }

    let state = State::open(&options(dir.path())).unwrap();
    let backup = state.backup().unwrap();
    assert!(verify(&backup).unwrap() > 600);
    drop(state);
    File::options().write(true).open(dir.path().join("state/data.mdb")).unwrap().set_len(20_480).unwrap();
    let state = State::open(&Options { recovery: Recovery::Backup, ..options(dir.path()) }).unwrap();
    assert!(state.notes()[0].contains("cut off"), "{:?}", state.notes());
    drop(state);
    check(dir.path(), 500).unwrap();
}

/// `Err`: the damage was noticed. `Ok`: nothing that anyone stored has changed.
fn judge_flipped(image: &Path) -> Result<(), String> {
    let state = State::open(&options(image)).map_err(|e| e.to_string())?;
    let damage = state.damage(1).map_err(|e| e.to_string())?;
    if let Some(error) = damage.first() {
        return Err(error.to_string());
    }
    state.backup_to(&image.join("copy")).map_err(|e| e.to_string())?;
    let mut text = Vec::new();
    state.export(&mut text).map_err(|e| e.to_string())?;
    assert!(text == fs::read(image.join("../export")).unwrap(), "SILENT");
    Ok(())
}

#[test]
fn no_flipped_bit_changes_a_row_unnoticed() {
    let work = tempfile::tempdir().unwrap();
    let folder = work.path().join("folder");
    let state = filled(&folder);
    let mut text = Vec::new();
    state.export(&mut text).unwrap();
    // A compact copy: hardly a page of it is free.
    let whole = fs::read(state.backup().unwrap()).unwrap();
    drop(state);
    let flipped = work.path().join("flipped");
    fs::create_dir(&flipped).unwrap();
    fs::write(flipped.join("export"), text).unwrap();
    let mut dice = Dice(0xf11b);
    for n in 0..if long() { 400 } else { 40 } {
        let bit = usize::try_from(dice.roll(8 * whole.len() as u64)).unwrap();
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let image = flipped.join(format!("{n:04}"));
        fs::create_dir_all(image.join("state")).unwrap();
        fs::write(image.join("state/data.mdb"), bytes).unwrap();
    }
    let verdicts = verdicts("flipped", &flipped);
    let count = |what: &str| verdicts.iter().filter(|v| v.as_str() == what).count();
    let (same, crashed) = (count("good"), count("crashed"));
    println!("{} flips: {same} changed nothing, {crashed} crashed the reader, the rest was named", verdicts.len());
    assert!(same < verdicts.len(), "some flips hit rows");
    // A panic of the judge (it says SILENT) leaves its verdict at `crashed` without a signal, which `verdicts` refuses.
}

/// `rung state …`, to its end.
fn rung(arguments: &[&str], path: &Path) -> std::process::Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rung"));
    command.arg("state").args(arguments).arg(path).stdin(Stdio::null()).output().expect("rung starts")
}

/// A copy of `whole` whose reader dies: headers of its pages are tried bit by bit.
fn deadly(whole: &[u8], file: &Path) -> Option<Vec<u8>> {
    for page in (0..whole.len() / 4_096).rev() {
        for bit in (80..160).rev() {
            let mut bytes = whole.to_vec();
            bytes[page * 4_096 + bit / 8] ^= 1 << (bit % 8);
            fs::write(file, &bytes).unwrap();
            if rung(&["verify"], file).status.signal().is_some() {
                return Some(bytes);
            }
        }
    }
    None
}

#[test]
fn state_that_kills_its_reader_gives_way_to_the_newest_backup() {
    let work = tempfile::tempdir().unwrap();
    let folder = work.path().join("folder");
    let state = filled(&folder);
    let mut text = Vec::new();
    state.export(&mut text).unwrap();
    let backup = state.backup().unwrap();
    drop(state);
    let bytes = deadly(&fs::read(&backup).unwrap(), &work.path().join("copy.mdb")).expect("LMDB trusts its pages");
    fs::write(folder.join("state/data.mdb"), bytes).unwrap();
    let exported = rung(&["export", "--folder"], &folder);
    let said = String::from_utf8_lossy(&exported.stderr);
    assert!(exported.status.success() && said.contains("reading it kills") && said.contains("backup"), "{said}");
    assert!(exported.stdout == text, "the backup's rows");
    assert!(fs::read_dir(&folder).unwrap().flatten().any(|e| e.file_name().to_string_lossy().contains(".corrupt-")));
}
