//! Faults of the driver that cost a channel, or less: the process and its other channels live on, and nothing of the
//! channel is left in the driver.

use rung::media::fault::FaultKind;
use rung::pixels::protocol::{Backend, Lost, ToWorker};

use crate::rig::*;
use crate::support::*;

const SMALL: &[(u32, u32)] = &[SIZES[2], SIZES[3]];

/// What lives of a process without a channel: the context, and Rung's kernels.
fn alive(card: &Card) -> Vec<(String, i64)> {
    let counts = card.driver.counts().into_iter();
    counts.filter(|(what, count)| what.starts_with("live ") && *count != 0).collect()
}

/// With an IDR asked for at 15.
fn pictures() -> Vec<ToWorker> {
    let mut messages = to_units(&grey(20, "-c:v libx264 -preset veryfast -bf 0 -g 25"));
    messages.insert(3, ToWorker::Idr { ch: CH, at: 15 });
    messages
}

/// Plays each fault into a process in which a neighbour works; the channel must fail with these words, and everything
/// must be as before. Then the same channel runs.
fn fail_and_heal(cases: &[(Backend, &str, &[&str])]) {
    let mut card = Card::new();
    let baseline = alive(&card);
    for (backend, fault, words) in cases {
        card.driver.play(fault);
        let (seat, mut worker) = card.join();
        worker.open(placed(*backend, SMALL));
        let feeder = worker.feed(pictures());
        let (what, lost) = failure(&mut worker);
        feeder.join().unwrap();
        assert_eq!(lost, Lost::Channel, "{fault}: {what}");
        for word in *words {
            assert!(what.contains(word), "{fault}: {word:?} is not in {what:?}");
        }
        drop(worker);
        card.has_left(seat);
        assert_eq!(alive(&card), baseline, "{fault}: {what}");
        assert_eq!(card.driver.broken(), Vec::<String>::new(), "{fault}");
        card.driver.heal();
        card.run(placed(*backend, SMALL), pictures()).assert_whole(0..20, &[0, 15]);
        assert_eq!(alive(&card), baseline, "behind {fault}");
    }
    card.end();
}

#[test]
fn what_can_not_be_opened_fails_with_the_operators_sentence_and_leaves_nothing() {
    use Backend::{Gpu, GpuDecode};
    fail_and_heal(&[
        (Gpu, "encode.open code=10", &["enc-94p", "allows no more encode sessions", "(10)"]),
        (Gpu, "encode.open code=10 after=1", &["enc-86p", "allows no more encode sessions"]),
        (Gpu, "encode.open code=21", &["allows no more encode sessions", "(21)"]),
        (Gpu, "encode.open code=2", &["this GPU has no encoder", "(2)"]),
        (Gpu, "encode.init code=8", &["rendition 94p", "nvEncInitializeEncoder", "invalid parameter (8)"]),
        (Gpu, "encode.register code=23 after=3", &["nvEncRegisterResource", "(23)"]),
        (Gpu, "cuvid.parser code=1", &["decode", "cuvidCreateVideoParser", "(1)"]),
        (GpuDecode, "cuda.pinned code=2", &["enc-", "cuMemHostAlloc", "out of device memory (2)"]),
    ]);
}

#[test]
fn out_of_memory_at_whatever_allocation_fails_and_leaves_nothing() {
    // Two encoders of eleven surfaces each, or two rings of six; the launch's tables come with the first picture.
    let encode = [0, 1, 5, 6, 7, 11, 12].map(|after| format!("cuda.alloc code=2 after={after}"));
    let decode = [0, 5, 6, 11, 12].map(|after| format!("cuda.alloc code=2 after={after}"));
    let words: &[&str] = &["cuMemAlloc", "out of device memory (2)"];
    let cases: Vec<(Backend, &str, &[&str])> = encode
        .iter()
        .map(|fault| (Backend::Gpu, fault.as_str(), words))
        .chain(decode.iter().map(|fault| (Backend::GpuDecode, fault.as_str(), words)))
        .collect();
    fail_and_heal(&cases);
}

#[test]
fn what_fails_on_the_way_fails_its_channel_and_leaves_nothing() {
    use Backend::{Gpu, GpuDecode};
    fail_and_heal(&[
        (Gpu, "encode.encode code=8 after=9", &["nvEncEncodePicture", "invalid parameter (8)"]),
        (Gpu, "encode.encode code=18", &["nvEncEncodePicture", "busy (18)"]),
        (Gpu, "encode.map code=16 after=5", &["nvEncMapInputResource", "(16)"]),
        (Gpu, "encode.lock code=8 after=5", &["nvEncLockBitstream", "(8)"]),
        (Gpu, "encode.idr no_idr after=2", &["frame 15 was asked to be an IDR and is none"]),
        (Gpu, "cuvid.create code=2", &["cuvidCreateDecoder", "out of device memory (2)", "H.264 320x192"]),
        (Gpu, "cuvid.map code=205", &["cuvidMapVideoFrame64", "(205)"]),
        (Gpu, "cuvid.caps code=1", &["cuvidGetDecoderCaps", "(1)"]),
        (Gpu, "cuda.launch code=701 after=4", &["rung_ladder", "(701)"]),
        (GpuDecode, "cuda.launch code=701 after=4", &["rung_ladder", "(701)"]),
        (GpuDecode, "cuda.copy code=1 after=8", &["cuMemcpy2DAsync", "(1)"]),
    ]);
}

#[test]
fn pictures_that_the_decoder_can_not_give_are_counted_and_held() {
    let mut card = Card::new();
    for (fault, told) in [
        ("cuvid.map code=205 times=3 after=6", "could not use a picture"),
        ("cuvid.decode code=1 times=2 after=6", "could not use a picture"),
        ("cuvid.parse code=1 times=2 after=6", "could not use a picture"),
        ("cuvid.decode concealed times=2 after=6", "shown with damage"),
        ("cuvid.decode error times=2 after=6", "shown with damage"),
        // Without a status nothing is known to be wrong.
        ("cuvid.status code=801", ""),
    ] {
        card.driver.play(fault);
        let ran = card.run(placed(Backend::Gpu, SMALL), pictures());
        ran.assert_whole(0..20, &[0, 15]);
        let seen = ran.faults.iter().any(|(kind, detail)| *kind == FaultKind::Decode && detail.contains(told));
        assert_eq!(seen, !told.is_empty(), "{fault}: {:?}", ran.faults);
        card.driver.heal();
    }
    card.end();
}

#[test]
fn a_rate_that_is_refused_costs_no_frame() {
    let mut card = Card::new();
    card.driver.play("encode.reconfigure code=8 times=1");
    let mut messages = pictures();
    messages.insert(10, ToWorker::Retune { ch: CH, rendition: 0, bitrate: 100_000 });
    card.run(placed(Backend::Gpu, SMALL), messages).assert_whole(0..20, &[0, 15]);
    assert_eq!(card.driver.count("faults played"), 1);
    card.end();
}
