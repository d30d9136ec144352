//! What the store promises, over real files. Crashes, power cuts and full disks: `tests/state_store.rs`.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::*;
use crate::media::channel::SessionId;
use crate::media::grid::{Anchor, AudioAnchor, Cadence, Commit, Grid, PdtLine, Record, SourceGop, TimelineLog};
use crate::media::marker::{CUES_KEPT, KeptCue};
use crate::media::modes::LatencyMode;
use crate::media::plan::{InitMark, Inits, Plan, PlannedAudio};
use crate::time::Wall;

const CHANNELS: Table<Ulid, String> = Table::json(Db::Channels, 1);
const EVENTS: Table<u64, String> = Table::json(Db::Events, 1);
const OPEN: Table<Ulid, Ulid> = Table::json(Db::Open, 1);
const BY_CHANNEL: Table<(Ulid, Newest), ()> = Table::json(Db::SessionsByChannel, 1);
const BYTES: Table<(u32, u64), Vec<u8>> = Table::packed(Db::Segment, 1);

fn options(dir: &Path) -> Options {
    Options { ballast_bytes: 1 << 16, ..Options::new(dir) }
}

fn open(dir: &Path) -> State {
    State::open(&options(dir)).unwrap()
}

fn put(state: &State, key: u128, name: &str) -> Result<(), Error> {
    let name = name.to_owned();
    state.control.write(Need::Ordinary, move |txn| txn.put(&CHANNELS, &Ulid(key), &name)).wait()
}

fn names(state: &State) -> Vec<String> {
    let look = |view: &Read<'_>| view.scan(&CHANNELS)?.map(|row| row.map(|(_, name)| name)).collect();
    state.control.read::<_, Error>(look).unwrap()
}

fn folders(dir: &Path, prefix: &str) -> usize {
    let entries = fs::read_dir(dir).unwrap().flatten();
    entries.filter(|e| e.file_name().to_string_lossy().starts_with(prefix)).count()
}

fn zero_metas(dir: &Path) {
    let file = fs::OpenOptions::new().write(true).open(dir.join("state/data.mdb")).unwrap();
    file.write_all_at(&[0; 8192], 0).unwrap();
}

/// Holds the writer until the returned sender is dropped; returns once it is held.
fn hold(state: &State) -> std::sync::mpsc::SyncSender<()> {
    let (go, wait) = sync_channel::<()>(1);
    let (held, is_held) = sync_channel(1);
    let wait = Mutex::new(wait);
    let stop = move |_: &mut Write<'_, '_>| {
        held.try_send(()).unwrap_or_default();
        wait.lock().unwrap().recv().unwrap_or_default();
        Ok::<_, Error>(())
    };
    drop(state.control.write(Need::Ordinary, stop));
    is_held.recv().unwrap();
    go
}

#[test]
fn what_was_acknowledged_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(dir.path());
    put(&state, 1, "news").unwrap();
    let packed = state.index.write(Need::Ordinary, |txn| txn.put(&BYTES, &(1, 2), &vec![7, 8, 9]));
    packed.wait().map_err(|e: Error| e).unwrap();
    drop(state);
    let state = open(dir.path());
    assert_eq!(names(&state), ["news"]);
    assert_eq!(state.index.read(|view| view.get(&BYTES, &(1, 2))).unwrap(), Some(vec![7, 8, 9]));
    assert!(state.notes().is_empty() && state.condition() == Condition::Good);
}

#[test]
fn dropping_the_store_commits_what_was_queued() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(dir.path());
    for n in 0..300u64 {
        drop(state.control.write(Need::Ordinary, move |txn| txn.append(&EVENTS, &n.to_string()).map(drop)));
    }
    drop(state);
    assert_eq!(open(dir.path()).control.read(|view| view.count(Db::Events)).unwrap(), 300);
}

#[derive(Debug, PartialEq)]
enum Refusal {
    Taken,
    Store(Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Refusal {
        Refusal::Store(error)
    }
}

#[test]
fn a_refusal_undoes_its_own_writes_alone_and_one_commit_serves_the_group() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(dir.path());
    let go = hold(&state);
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = runs.clone();
    let before = state.control.lmdb().last_transaction();
    let first = state.control.write(Need::Ordinary, move |txn| {
        counted.fetch_add(1, Ordering::Relaxed);
        txn.put(&CHANNELS, &Ulid(1), &"kept".to_owned()).map_err(Refusal::from)
    });
    let refused = state.control.write(Need::Ordinary, |txn| {
        txn.put(&CHANNELS, &Ulid(2), &"undone".to_owned())?;
        txn.delete(&CHANNELS, &Ulid(1))?;
        Err::<(), _>(Refusal::Taken)
    });
    let panicked = state.control.write(Need::Ordinary, |txn| -> Result<(), Error> {
        txn.put(&CHANNELS, &Ulid(3), &"undone too".to_owned())?;
        panic!("planted");
    });
    let last = state.control.write(Need::Ordinary, |txn| txn.append(&EVENTS, &"after".to_owned()));
    drop(go);
    assert_eq!(first.wait(), Ok(()));
    assert_eq!(refused.wait(), Err(Refusal::Taken));
    assert_eq!(panicked.wait(), Err(Error::Bug("planted".to_owned())));
    assert_eq!(last.wait(), Ok::<_, Error>(1));
    assert_eq!(names(&state), ["kept"]);
    assert_eq!(runs.load(Ordering::Relaxed), 3, "once per attempt: the refusal and the panic cost one more each");
    assert_eq!(state.control.lmdb().last_transaction(), before + 1, "the group was one commit");
}

#[test]
fn nobody_waits_for_a_full_queue_and_a_closed_store_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(dir.path());
    let go = hold(&state);
    let mut waiting = Vec::new();
    let busy = loop {
        assert!(waiting.len() < 2_000, "the queue has a bound");
        let mut ticket = state.control.write(Need::Ordinary, |txn| txn.append(&EVENTS, &"x".to_owned()));
        match ticket.take() {
            Some(outcome) => break outcome,
            None => waiting.push(ticket),
        }
    };
    assert_eq!(busy, Err(Error::Busy));
    drop(go);
    let expected = waiting.len();
    for ticket in waiting {
        let _: u64 = ticket.wait().unwrap();
    }
    assert_eq!(state.control.read(|view| view.count(Db::Events)).unwrap(), expected as u64);
}

#[test]
fn readers_see_the_old_state_while_a_write_is_open_and_are_not_held_up() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(dir.path());
    put(&state, 1, "old").unwrap();
    let go = hold(&state);
    assert_eq!(names(&state), ["old"]);
    assert_eq!(state.control.usage().readers, 0, "no view outlives its closure");
    drop(go);
    let nested = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        state.control.read(|_| Ok::<_, Error>(names(&state)))
    }));
    assert!(nested.is_err(), "a read inside a read is a bug that tests must find");
}

#[test]
fn an_async_caller_is_told_too() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(dir.path());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let number =
        runtime.block_on(async { state.control.write(Need::Ordinary, |t| t.append(&EVENTS, &"a".into())).await });
    assert_eq!(number, Ok::<_, Error>(1));
}

#[test]
fn a_full_map_grows_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let small = Options { state_map_bytes: 1 << 18, ..options(dir.path()) };
    let state = State::open(&small).unwrap();
    let text = "x".repeat(2_000);
    for n in 0..2_000u64 {
        let text = text.clone();
        drop(state.control.write(Need::Ordinary, move |txn| txn.put(&EVENTS, &n, &text)));
        if n % 200 == 0 {
            names(&state);
        }
        if n % 500 == 0 {
            put(&state, n.into(), "flush").unwrap();
        }
    }
    put(&state, 1, "last").unwrap();
    assert_eq!(state.control.read(|view| view.count(Db::Events)).unwrap(), 2_000);
    let usage = state.control.usage();
    assert!(usage.last_commit > Duration::ZERO);
    assert!(usage.map_bytes > 2_000 * 2_000 && usage.used_bytes < usage.map_bytes, "{usage:?}");
    assert_eq!(state.damage(10).unwrap(), []);
}

#[test]
fn numbers_are_never_given_out_twice() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(dir.path());
    let append =
        || state.control.write(Need::Ordinary, |txn| txn.append(&EVENTS, &"e".to_owned())).wait().map_err(|e: Error| e);
    assert_eq!((append(), append(), append()), (Ok(1), Ok(2), Ok(3)));
    let trim = state.control.write(Need::Essential, |txn| txn.delete_before(&EVENTS, &9)).wait();
    assert_eq!(trim, Ok::<_, Error>(3));
    assert_eq!(append(), Ok(4), "although no event is left");
}

#[test]
fn prefixes_and_order_are_those_of_the_keys() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(dir.path());
    let fill = |txn: &mut Write<'_, '_>| {
        for (channel, session) in [(1, 5), (1, 9), (1, 7), (2, 6), (u128::MAX, 3)] {
            txn.put(&BY_CHANNEL, &(Ulid(channel), Newest(Ulid(session))), &())?;
        }
        Ok::<_, Error>(())
    };
    state.control.write(Need::Ordinary, fill).wait().unwrap();
    let of = |channel: u128| {
        let look = |view: &Read<'_>| -> Result<Vec<u128>, Error> {
            view.scan_prefix(&BY_CHANNEL, &Ulid(channel))?.map(|row| row.map(|((_, s), ())| s.0.0)).collect()
        };
        state.control.read(look).unwrap()
    };
    assert_eq!((of(1), of(2), of(3), of(u128::MAX)), (vec![9, 7, 5], vec![6], vec![], vec![3]));
    let gone = state.control.write(Need::Ordinary, |txn| txn.delete_prefix(&BY_CHANNEL, &Ulid(1))).wait();
    assert_eq!((gone, of(1), of(2)), (Ok::<_, Error>(3), vec![], vec![6]));
}

#[test]
fn a_damaged_row_is_named_and_its_neighbours_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(dir.path());
    for (n, name) in ["a", "b", "c"].into_iter().enumerate() {
        put(&state, n as u128 + 1, name).unwrap();
    }
    let spoil = |txn: &mut Write<'_, '_>| txn.put_raw(Db::Channels, &2u128.to_be_bytes(), b"\x01abcd\"b\"");
    state.control.write(Need::Ordinary, spoil).wait().unwrap();
    let rows = |view: &Read<'_>| Ok::<Vec<_>, Error>(view.scan(&CHANNELS)?.collect());
    let rows = state.control.read(rows).unwrap();
    assert!(rows[0].is_ok() && rows[2].is_ok(), "{rows:?}");
    let error = rows[1].as_ref().unwrap_err().to_string();
    assert!(error.contains("channels") && error.contains(&format!("{:032x}", 2)), "{error}");
    let mut text = Vec::new();
    assert_eq!(state.export(&mut text).unwrap().len(), 1, "the export leaves it out and says so");
    assert_eq!(state.damage(10).unwrap().len(), 1);
    assert!(state.backup().unwrap_err().to_string().contains("checksum"), "a damaged copy is no backup");
}

#[test]
fn two_daemons_do_not_share_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(dir.path());
    let error = State::open(&options(dir.path())).unwrap_err();
    let pid = std::process::id().to_string();
    assert!(matches!(&error, OpenError::InUse { by, .. } if by.contains(&pid)), "{error}");
    assert!(restore(dir.path(), Path::new("x")).is_err());
    drop(state);
    open(dir.path());
}

#[test]
fn the_lock_of_a_process_that_is_gone_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let mut gone = std::process::Command::new("true").spawn().unwrap();
    gone.wait().unwrap();
    let lock = dir.path().join("rung.lock");
    std::fs::write(&lock, format!("{}\n", gone.id())).unwrap();
    // As its half-made child does: it holds the lock for a moment more.
    let held = std::fs::File::open(&lock).unwrap();
    held.try_lock().unwrap();
    let (began, waits) = std::sync::mpsc::sync_channel(0);
    let folder = dir.path().to_owned();
    let opened = std::thread::spawn(move || {
        began.send(()).unwrap();
        State::open(&options(&folder)).map(drop)
    });
    waits.recv().unwrap();
    std::thread::park_timeout(Duration::from_millis(200));
    assert!(!opened.is_finished(), "it waits");
    drop(held);
    opened.join().unwrap().unwrap();
}

#[test]
fn zeroed_metas_are_refused_untouched_without_a_backup_and_permission() {
    let dir = tempfile::tempdir().unwrap();
    put(&open(dir.path()), 1, "lost").unwrap();
    zero_metas(dir.path());
    for _ in 0..2 {
        let error = State::open(&options(dir.path())).unwrap_err();
        let text = error.to_string();
        assert!(
            matches!(error, OpenError::Damaged { .. }) && text.contains("zeroed") && text.contains("restore"),
            "{text}"
        );
        assert_eq!(folders(dir.path(), "state.corrupt-"), 0, "nothing was touched");
    }
    let state = State::open(&Options { recovery: Recovery::BackupOrEmpty, ..options(dir.path()) }).unwrap();
    assert!(names(&state).is_empty() && state.notes()[0].contains("empty"), "{:?}", state.notes());
    assert_eq!(folders(dir.path(), "state.corrupt-"), 1);
}

#[test]
fn damaged_data_gives_way_to_the_newest_backup_that_is_good() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(dir.path());
    put(&state, 1, "first").unwrap();
    // Of two in one hour the newer would be kept.
    let good = dir.path().join("backups/state-20260101T000000.000Z.mdb");
    fs::rename(state.backup().unwrap(), &good).unwrap();
    put(&state, 2, "second").unwrap();
    let newer = state.backup().unwrap();
    drop(state);
    assert!(newer > good);
    // The newer one is damaged: a name in it is changed behind the checksum's back.
    let mut bytes = fs::read(&newer).unwrap();
    let at = bytes.windows(8).position(|w| w == b"\"second\"").unwrap();
    bytes[at + 1] ^= 1;
    fs::write(&newer, bytes).unwrap();
    zero_metas(dir.path());
    let state = open(dir.path());
    assert_eq!(names(&state), ["first"]);
    let note = &state.notes()[0];
    assert!(note.contains(good.to_str().unwrap()) && note.contains("state.corrupt-"), "{note}");
    assert_eq!(verify(&good).unwrap(), verify(&good).unwrap());
    assert!(verify(&newer).unwrap_err().to_string().contains("channels"));
}

#[test]
fn a_restore_is_checked_before_the_swap_and_keeps_what_was() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(dir.path());
    put(&state, 1, "then").unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let file = state.backup_to(elsewhere.path()).unwrap();
    put(&state, 1, "now").unwrap();
    drop(state);
    let cut = elsewhere.path().join("cut.mdb");
    let whole = fs::read(&file).unwrap();
    fs::write(&cut, &whole[..whole.len() - 4096]).unwrap();
    assert!(restore(dir.path(), &cut).unwrap_err().to_string().contains("cut off"));
    assert_eq!(names(&open(dir.path())), ["now"]);
    let (rows, old) = restore(dir.path(), &file).unwrap();
    assert!(rows >= 2 && old.unwrap().join("data.mdb").exists());
    assert_eq!(names(&open(dir.path())), ["then"]);
}

#[test]
fn an_interrupted_swap_is_completed_by_the_next_open() {
    let dir = tempfile::tempdir().unwrap();
    put(&open(dir.path()), 1, "old").unwrap();
    let other = tempfile::tempdir().unwrap();
    put(&open(other.path()), 1, "new").unwrap();
    // Crashed before the old one moved, after it moved, and while the new one was made.
    fs::rename(other.path().join("state"), dir.path().join("state.ready")).unwrap();
    assert_eq!(names(&open(dir.path())), ["new"]);
    fs::rename(dir.path().join("state"), dir.path().join("state.ready")).unwrap();
    fs::create_dir(dir.path().join("state.new")).unwrap();
    assert_eq!(names(&open(dir.path())), ["new"]);
    assert_eq!((folders(dir.path(), "state.replaced-"), folders(dir.path(), "state.new")), (1, 0));
}

#[test]
fn a_missing_state_beside_backups_is_damage_not_a_new_box() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(dir.path());
    put(&state, 1, "kept").unwrap();
    state.backup().unwrap();
    drop(state);
    fs::remove_dir_all(dir.path().join("state")).unwrap();
    let state = open(dir.path());
    assert_eq!(names(&state), ["kept"]);
    assert!(state.notes()[0].contains("missing"));
}

#[test]
fn a_file_that_ends_before_its_last_page_is_no_damage_if_no_row_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(dir.path());
    put(&state, 1, "kept").unwrap();
    // Pages at the end that were allocated and given back in one transaction are never written.
    let huge = "x".repeat(1 << 20);
    let come_and_go = move |txn: &mut Write<'_, '_>| {
        txn.put(&CHANNELS, &Ulid(2), &huge)?;
        txn.delete(&CHANNELS, &Ulid(2))
    };
    assert_eq!(state.control.write(Need::Ordinary, come_and_go).wait(), Ok::<_, Error>(true));
    drop(state);
    let shape = folder::shape(&dir.path().join("state/data.mdb")).unwrap();
    assert!(matches!(shape, folder::Shape::Cut { .. }), "LMDB wrote them after all: {shape:?}");
    let state = open(dir.path());
    assert_eq!((names(&state), state.notes().len()), (vec!["kept".to_owned()], 0));
}

#[test]
fn a_damaged_index_is_built_anew() {
    let dir = tempfile::tempdir().unwrap();
    put(&open(dir.path()), 1, "kept").unwrap();
    fs::write(dir.path().join("index/data.mdb"), [1; 9000]).unwrap();
    let state = open(dir.path());
    assert_eq!((names(&state).len(), folders(dir.path(), "index.corrupt-")), (1, 1));
    assert!(state.notes()[0].contains("index"));
}

const STEPS: &[Migration] = &[
    Migration { to: 2, name: "loud", apply: |txn| txn.put(&CHANNELS, &Ulid(1), &"LOUD".to_owned()) },
    Migration { to: 3, name: "more", apply: |txn| txn.put(&CHANNELS, &Ulid(2), &"more".to_owned()) },
];
const FAILING: &[Migration] =
    &[STEPS[0], Migration { to: 3, name: "breaks", apply: |_| Err(Error::Lmdb("planted".to_owned())) }];

#[test]
fn older_data_is_stepped_after_a_backup_and_newer_data_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let with = |migrations| State::open(&Options { migrations, ..options(dir.path()) });
    put(&with(&[]).unwrap(), 1, "quiet").unwrap();
    let error = with(FAILING).unwrap_err();
    assert!(matches!(error, OpenError::Migration { step: "breaks", .. }), "{error}");
    assert_eq!(names(&with(&[]).unwrap()), ["quiet"], "a failed step changes nothing");
    let state = with(STEPS).unwrap();
    assert_eq!(names(&state), ["LOUD", "more"]);
    assert!(state.notes()[0].contains("from schema 1 to 3"), "{:?}", state.notes());
    drop(state);
    assert!(with(STEPS).unwrap().notes().is_empty(), "once");
    let error = with(&[]).unwrap_err();
    assert!(matches!(error, OpenError::NewerSchema { found: 3, known: 1, .. }), "{error}");
    let before = fs::read_dir(dir.path().join("backups/schema-1")).unwrap().flatten().map(|e| e.path()).max().unwrap();
    restore(dir.path(), &before).unwrap();
    assert_eq!(names(&with(&[]).unwrap()), ["quiet"]);
}

#[test]
fn grids_of_before_there_were_plans_are_left_behind() {
    let dir = tempfile::tempdir().unwrap();
    let state = State::open(&Options { migrations: &[], ..options(dir.path()) }).unwrap();
    const GRIDS: Table<Ulid, u32> = Table::json(Db::Grid, 1);
    state.control.write(Need::Ordinary, |txn| txn.put(&GRIDS, &Ulid(1), &25)).wait().map_err(|e: Error| e).unwrap();
    drop(state);
    let state = open(dir.path());
    assert!(state.notes()[0].contains("from schema 1 to 2"), "{:?}", state.notes());
    assert_eq!(state.control.read(|view| view.count(Db::Grid)).unwrap(), 0);
}

#[test]
fn an_export_is_sorted_compares_line_by_line_and_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(dir.path());
    put(&state, 2, "two").unwrap();
    put(&state, 1, "one").unwrap();
    let open_one = |txn: &mut Write<'_, '_>| txn.put(&OPEN, &Ulid(1), &Ulid(9));
    state.control.write(Need::Ordinary, open_one).wait().unwrap();
    let export = |state: &State| {
        let mut text = Vec::new();
        assert_eq!(state.export(&mut text).unwrap(), []);
        String::from_utf8(text).unwrap()
    };
    let text = export(&state);
    let line = format!(r#"{{"db":"channels","key":"{:032x}","schema":1,"value":"one"}}"#, 1);
    assert_eq!(text.lines().next(), Some(line.as_str()));
    let order: Vec<(&str, &str)> = text.lines().map(|l| l.split_once(r#","schema"#).unwrap()).collect();
    assert!(order.is_sorted(), "{text}");

    let other = tempfile::tempdir().unwrap();
    let copy = open(other.path());
    put(&copy, 77, "goes").unwrap();
    assert_eq!(copy.import(&text).unwrap(), text.lines().count());
    assert_eq!(export(&copy), text);
    for (bad, why) in [
        ("{", "line 1"),
        (r#"{"db":"nope","key":"00","schema":1,"value":1}"#, "no database"),
        (r#"{"db":"events","key":"00","schema":1,"value":1}"#, "no key"),
        (r#"{"db":"meta","key":"schema_version","schema":1,"value":99}"#, "update Rung"),
    ] {
        assert!(copy.import(bad).unwrap_err().to_string().contains(why), "{bad}");
    }
    assert_eq!(export(&copy), text, "a refused import changes nothing");
}

#[test]
fn the_timeline_log_tells_later_and_keeps_every_record_of_its_session() {
    let dir = tempfile::tempdir().unwrap();
    let state = Arc::new(open(dir.path()));
    let (woken, wake) = sync_channel(64);
    let mut log = LmdbLog::new(state.clone(), Arc::new(move || woken.send(()).unwrap()));
    let cadence = Cadence::for_rate(25.0, LatencyMode::Ultra);
    let anchor = |run| Record::Anchor(Anchor { run, term: 1, pts0: 2, dts0: 3, n0: 4 });
    let line = |from_n| Record::Pdt(PdtLine { from_n, wall: Wall(5), ppm: -6 });
    let audio = Record::Audio(AudioAnchor { track: 1, run: 0, rate: 48_000, pts0: 7, m0: 8 });
    let plan = Plan {
        grid: Grid { cadence, msn0: 9 },
        target_duration: 2,
        source: None,
        exact: true,
        gop: SourceGop::Regular(50),
        audio_only: true,
        video: None,
        audio: vec![PlannedAudio {
            pid: 257,
            language: Some("deu".to_owned()),
            role: Default::default(),
            config: None,
        }],
    };
    let (mine, other) = (SessionId::new(Ulid(5)), SessionId::new(Ulid(6)));
    let inits = Inits { named: mine.clone(), marks: vec![InitMark::of("720p", 1, b"init")] };
    let whole = Record::Plan(Box::new(plan.clone()));
    let (break_at, marks) = (|msn| Record::Break { msn }, Record::Inits(inits.clone()));
    let cue = |seq| KeptCue { seq, n: 5, next: 4, due: Some(5), pid: 500, section: "fc".to_owned() };
    let cues = [1, CUES_KEPT].map(|seq| Record::Cue(cue(seq)));
    let records = [whole, anchor(1), anchor(0), audio, line(10), line(-1), break_at(12), break_at(11), marks];
    let records: Vec<Record> = records.into_iter().chain([Record::Cue(cue(0))]).chain(cues).collect();
    let go = hold(&state);
    for record in &records {
        assert_eq!(log.commit(&mine, record.clone()), Ok(Commit::Pending));
    }
    assert_eq!(log.commit(&other, anchor(3)), Ok(Commit::Pending));
    assert!(log.poll().is_none(), "nothing is on disk yet");
    drop(go);
    for expected in records {
        wake.recv_timeout(Duration::from_secs(10)).unwrap();
        assert_eq!(log.poll(), Some((expected, Ok(()))));
    }
    drop(log);
    drop(Arc::into_inner(state).unwrap());

    let state = open(dir.path());
    let load = |session: &SessionId| state.control.read(|view| load(view, session)).unwrap();
    let (kept, damaged) = load(&mine);
    let kept = kept.expect("a plan and a line");
    assert!(damaged.is_empty() && kept.plan == plan && kept.inits == Some(inits.clone()) && kept.breaks == [11, 12]);
    assert_eq!(kept.anchors.iter().map(|anchor| anchor.run).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(kept.lines.iter().map(|line| line.from_n).collect::<Vec<_>>(), [-1, 10]);
    assert_eq!(kept.cues, [1, CUES_KEPT].map(cue), "only so many are kept");
    let (from, to) = (mine.clone(), SessionId::new(Ulid(7)));
    state.control.write(Need::Essential, move |txn| hand_over(txn, &from, &to)).wait().map_err(|e: Error| e).unwrap();
    let (follows, none) = (load(&SessionId::new(Ulid(7))).0.expect("what the one before had"), load(&mine).0);
    assert!(none.is_none() && follows.plan == plan && follows.breaks == [11, 12] && follows.anchors.len() == 2);
    assert_eq!(follows.cues.len(), 2);
    let gone = mine.clone();
    state.control.write(Need::Essential, move |txn| forget(txn, &gone)).wait().map_err(|e: Error| e).unwrap();
    assert_eq!(load(&mine).0, None);
    let anchors = state.control.read(|view| view.count(Db::Anchors)).unwrap();
    assert_eq!((anchors, load(&other).0), (3, None), "an anchor without a plan is no session to go on with");
}
