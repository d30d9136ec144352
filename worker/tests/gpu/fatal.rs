//! Faults that nobody comes back from: calls that hang, codes that stay, cards that are gone. The process says why, to
//! each of its channels, and ends.

use rung::pixels::protocol::{Backend, FromWorker, Lost, ToWorker};
use rung::time::SystemClock;
use std::time::Duration;

use crate::rig::*;
use crate::support::*;

const SMALL: &[(u32, u32)] = &[SIZES[2], SIZES[3]];
/// A call may take half a second, the watchdog looks twenty times a second, last words take 300 ms at most; the rest is
/// a loaded machine's.
const NOTICED: Duration = Duration::from_millis(2_500);

struct Case {
    backend: Backend,
    fault: &'static str,
    lost: Lost,
    words: &'static [&'static str],
}

/// Plays the fault into a process with two busy channels.
fn end_by(case: &Case) {
    let Case { backend, fault, lost, words } = case;
    let pictures = to_units(&grey(90, "-c:v libx264 -preset veryfast -bf 0 -g 25"));
    let (first, second) = pictures.split_at(20);
    let mut card = Card::impatient();
    let mut workers: Vec<Worker> = (0..2)
        .map(|_| {
            let (_, mut worker) = card.join();
            worker.open(placed(*backend, SMALL));
            worker.opened();
            worker.feed(first.to_vec()).join().unwrap();
            worker.wait(|m| matches!(m, FromWorker::Encoded { .. }));
            worker
        })
        .collect();
    card.driver.play(fault);
    let played = SystemClock::mono();
    // The process ends while they write: its socket breaks under one of them.
    let feeders: Vec<_> = workers.iter().map(|worker| worker.feed(second.to_vec())).collect();
    let told: Vec<(String, Lost)> = workers.iter_mut().map(failure).collect();
    let noticed = SystemClock::mono().since(played);
    assert!(noticed < NOTICED, "{fault}: told after {noticed:?}");
    assert!(told.iter().all(|(_, how)| how == lost), "{fault}: {told:?}");
    let other = ", in another channel of this process";
    let culprits: Vec<&String> = told.iter().map(|(what, _)| what).filter(|what| !what.ends_with(other)).collect();
    assert_eq!(culprits.len(), 1, "{fault}: {told:?}");
    for word in *words {
        assert!(culprits[0].contains(word), "{fault}: {word:?} is not in {:?}", culprits[0]);
    }
    println!("{backend:?}, {fault}: {} ({noticed:?})", culprits[0]);
    feeders.into_iter().for_each(|feeder| feeder.join().unwrap());
    let driver = card.has_aborted();
    // Where nothing of the driver works any more, what is given back on the way out is not taken.
    if fault.contains("sleep") || fault.contains("hang") {
        assert_eq!(driver.broken(), Vec::<String>::new(), "{fault}");
    }
}

#[test]
fn a_call_that_does_not_come_back_ends_the_process_and_is_named() {
    let hangs = |backend, fault, words| Case { backend, fault, lost: Lost::Process, words };
    use Backend::{Gpu, GpuDecode};
    let cases = [
        hangs(Gpu, "encode.lock hang", &["nvEncLockBitstream of encode ", "has not come back for "][..]),
        hangs(Gpu, "encode.lock sleep=1500", &["nvEncLockBitstream of encode "]),
        hangs(Gpu, "encode.encode sleep=1500", &["nvEncEncodePicture of encode "]),
        hangs(Gpu, "cuvid.map sleep=1500", &["cuvidMapVideoFrame64 of decode"]),
        hangs(GpuDecode, "cuvid.decode sleep=1500", &["cuvidDecodePicture of decode"]),
        // The stream is held up: whoever waits for the picture hangs.
        hangs(Gpu, "cuda.launch sleep=1500", &["cuEventSynchronize of encode "]),
        hangs(GpuDecode, "cuda.launch sleep=1500", &["cuEventSynchronize of encode "]),
        hangs(GpuDecode, "cuda.copy sleep=1500", &["cuStreamSynchronize of encode "]),
    ];
    cases.iter().for_each(end_by);
}

#[test]
fn a_code_that_stays_ends_the_process_and_a_card_that_is_gone_is_told() {
    let ends = |backend, fault, lost, words| Case { backend, fault, lost, words };
    use Backend::{Gpu, GpuDecode};
    let cases = [
        ends(Gpu, "cuda.launch code=700 times=1", Lost::Process, &["illegal address", "(700)"][..]),
        ends(GpuDecode, "cuda.launch code=719 times=1", Lost::Process, &["(719)"]),
        ends(Gpu, "cuda.launch code=214 times=1", Lost::Process, &["ECC", "(214)"]),
        ends(Gpu, "encode.encode code=20", Lost::Process, &["nvEncEncodePicture", "(20)"]),
        ends(Gpu, "encode.encode code=5", Lost::Device, &["does not exist any more (5)"]),
        ends(Gpu, "cuvid.decode code=719", Lost::Process, &["cuvidDecodePicture", "(719)"]),
        ends(Gpu, "cuda.lost code=999", Lost::Device, &["(999)"]),
        ends(GpuDecode, "cuda.lost code=46", Lost::Device, &["(46)"]),
    ];
    cases.iter().for_each(end_by);
}

#[test]
fn a_code_that_stays_ends_the_process_already_when_a_channel_is_opened() {
    let opens = [
        ("cuda.alloc code=719", Lost::Process, "(719)"),
        ("encode.open code=5", Lost::Device, "(5)"),
        ("cuvid.parser code=999", Lost::Device, "(999)"),
    ];
    for (fault, lost, word) in opens {
        let mut card = Card::impatient();
        card.driver.play(fault);
        let (_, mut worker) = card.join();
        worker.open(placed(Backend::Gpu, SMALL));
        let (what, how) = failure(&mut worker);
        assert!(how == lost && what.contains(word), "{fault}: {how:?}, {what}");
        card.has_aborted();
    }
}

#[test]
fn an_encoder_whose_end_hangs_ends_the_process() {
    let mut card = Card::impatient();
    card.driver.play("encode.destroy hang");
    let (_, mut worker) = card.join();
    worker.open(placed(Backend::Gpu, SMALL));
    worker.opened();
    let begun = SystemClock::mono();
    worker.send(&ToWorker::Close { ch: CH });
    let (what, lost) = failure(&mut worker);
    // Setting up and tearing down may take ten seconds.
    let noticed = SystemClock::mono().since(begun);
    assert!(noticed > Duration::from_secs(9) && noticed < Duration::from_secs(14), "{noticed:?}");
    assert!(what.contains("nvEncDestroyEncoder of encode ") && lost == Lost::Process, "{what}");
    card.has_aborted();
}
