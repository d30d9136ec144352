//! Every target on its corpus and on a bounded number of mutated inputs, the same ones each time.

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use rung_fuzz::replay::replay;
use rung_fuzz::{Target, all, corpus, find, mutate};

/// A single input takes less than this, whatever else the box does.
const LONGEST: Duration = Duration::from_secs(20);

fn rounds(target: &Target) -> u32 {
    target.rounds * if std::env::var_os("RUNG_LONG").is_some() { 40 } else { 1 }
}

/// What failed, if anything did; the input is written down.
fn run(target: &'static Target) -> Vec<String> {
    let corpus = corpus::read(target).unwrap_or_else(|e| panic!("{}: its corpus cannot be read: {e}", target.name));
    assert!(!corpus.is_empty(), "{}: `rung-fuzz seeds` begins its corpus", target.name);
    let mut failed = Vec::new();
    let mut give = |what: String, input: &[u8]| {
        let why = match replay(target, input) {
            Ok(cost) if cost.took < LONGEST => return,
            Ok(cost) => format!("it took {:?}", cost.took),
            Err(why) => why,
        };
        let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{what}", target.name));
        std::fs::write(&file, input).expect("the target folder is writable");
        failed.push(format!(
            "{}, {what}: {why}\n  cargo run -p rung-fuzz -- {} {}",
            target.name,
            target.name,
            file.display()
        ));
    };
    for (name, input) in &corpus {
        give(name.clone(), input);
    }
    let corpus: Vec<Vec<u8>> = corpus.into_iter().map(|(_, input)| input).collect();
    for round in 0..rounds(target) {
        let seed = mutate::seed(target, round);
        give(format!("seed-{seed:016x}"), &mutate::make(target, &corpus, seed));
    }
    failed
}

#[test]
fn every_target_keeps_its_invariants_on_its_corpus_and_on_mutations_of_it() {
    let (queue, failed) = (Mutex::new(all()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().expect("nobody panics with it").next();
                    let Some(target) = next else { return };
                    let found = run(target);
                    failed.lock().expect("nobody panics with it").extend(found);
                }
            });
        }
    });
    let failed = failed.into_inner().expect("nobody panics with it");
    assert!(failed.is_empty(), "{} inputs failed:\n{}", failed.len(), failed.join("\n"));
}

#[test]
fn the_replay_notices_panics_and_memory() {
    let target = find("bits").expect("in the table");
    let panics = Target { run: |input| assert!(input.is_empty(), "planted"), ..*target };
    assert!(replay(&panics, b"").is_ok());
    assert!(replay(&panics, b"x").is_err_and(|why| why.contains("planted") && why.contains("replay.rs")));
    let greedy = Target { run: |input| drop(std::hint::black_box(vec![0u8; input.len() << 20])), ..*target };
    assert!(replay(&greedy, b"1").is_ok());
    assert!(replay(&greedy, &[0; 16]).is_err_and(|why| why.contains("16777216 bytes at a time")));
}

#[test]
fn a_seed_makes_the_same_input_for_ever() {
    let target = find("h264").expect("in the table");
    let corpus = vec![(0..200).collect::<Vec<u8>>(), vec![1; 40]];
    let made = |seed| mutate::make(target, &corpus, seed);
    assert_eq!(made(7), made(7));
    let different = (0..100).map(made).collect::<std::collections::BTreeSet<_>>();
    assert!(different.len() > 90 && different.iter().all(|input| input.len() <= target.longest));
}
