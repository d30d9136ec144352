//! Commits a second of the state store, with one write per commit and with 64 writers that share commits.
//! `cargo bench --bench state [-- DIR]`; the folder decides which disk is measured (default: the temporary one).

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rung::control::state::{Db, Error, Need, Options, State, Table, Ulid};
use rung::time::{Mono, SystemClock};

const ROWS: Table<Ulid, String> = Table::json(Db::Channels, 1);
const RUN: Duration = Duration::from_secs(5);

fn main() {
    let root = std::env::args().nth(1).filter(|a| !a.starts_with("--")).map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = root.join(format!("rung-bench-state-{}", std::process::id()));
    let state = Arc::new(State::open(&Options::new(&folder)).expect("a folder that can be written"));
    println!("200-byte rows, {} s each, {}", RUN.as_secs(), root.display());
    println!("writers   writes/s   p50 ms   p99 ms   max ms");
    for writers in [1, 64] {
        report(writers, &mut measure(&state, writers));
    }
    drop(state);
    std::fs::remove_dir_all(&folder).expect("the bench's own folder");
}

/// Writers that each wait for their write before the next: seconds that each write took.
fn measure(state: &Arc<State>, writers: u64) -> Vec<f64> {
    let took = Arc::new(Mutex::new(Vec::new()));
    let until = SystemClock::mono() + RUN;
    let threads: Vec<_> = (0..writers)
        .map(|writer| {
            let (state, took) = (state.clone(), took.clone());
            std::thread::spawn(move || {
                let mine = write_until(&state, writer, until);
                took.lock().expect("no writer panics").extend(mine);
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("no writer panics");
    }
    let mut took = took.lock().expect("no writer panics");
    std::mem::take(&mut took)
}

fn write_until(state: &State, writer: u64, until: Mono) -> Vec<f64> {
    let (mut took, text) = (Vec::new(), "x".repeat(200));
    for n in 0u64.. {
        let begun = SystemClock::mono();
        if begun >= until {
            break;
        }
        let (key, text) = (Ulid(u128::from(writer) << 64 | u128::from(n % 10_000)), text.clone());
        let write = state.control.write(Need::Ordinary, move |txn| txn.put(&ROWS, &key, &text));
        write.wait().map_err(|e: Error| e).expect("the disk takes it");
        took.push((SystemClock::mono() - begun).as_secs_f64());
    }
    took
}

fn report(writers: u64, took: &mut [f64]) {
    took.sort_by(f64::total_cmp);
    let ms = |part: f64| 1_000.0 * took[((took.len() - 1) as f64 * part) as usize];
    let rate = took.len() as f64 / RUN.as_secs_f64();
    println!("{writers:7} {rate:10.0} {:8.3} {:8.3} {:8.1}", ms(0.5), ms(0.99), ms(1.0));
}
