//! Machines without a GPU, a driver or a part of it: each says so in a sentence of its own, to a channel and to
//! `--probe`, and the process serves on.

use rung::pixels::protocol::{Backend, FromWorker, GpuCaps, Lost, ToWorker};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::double::Driver;
use crate::process::Process;
use crate::rig::*;
use crate::support::*;

const SMALL: &[(u32, u32)] = &[SIZES[2], SIZES[3]];

fn shared(driver: &Driver, folder: &Path, more: &[&str]) -> Process {
    let arguments = [&["--patience-ms", "30000", "--driver-folder", folder.to_str().unwrap()], more].concat();
    Process::start_with(&arguments, |command| driver.env(command))
}

/// A process of such a machine: channels on the GPU fail with this sentence, one on the CPU runs beside them.
#[track_caller]
fn refuses(driver: &Driver, folder: &Path, more: &[&str], backends: &[Backend], sentence: &str) {
    let process = shared(driver, folder, more);
    let pictures = to_units(&grey(20, "-c:v libx264 -preset veryfast -bf 0 -g 25"));
    for (seat, backend) in (0..).zip(backends) {
        let mut worker = process.join(seat);
        worker.open(placed(*backend, SMALL));
        let feeder = worker.feed(pictures.clone());
        let (what, lost) = failure(&mut worker);
        feeder.join().unwrap();
        assert!(what.contains(sentence), "{backend:?}: {sentence:?} is not in {what:?}");
        assert_eq!(lost, Lost::Channel);
        drop(worker);
        process.has_left(seat);
    }
    let worker = process.join(9);
    play(worker, placed(Backend::Software, SMALL), pictures).assert_whole(0..20, &[0]);
    process.has_left(9);
    process.end();
}

fn probe(driver: &Driver, folder: &Path) -> Result<Vec<GpuCaps>, String> {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let arguments = ["--probe", "--driver-folder", folder.to_str().unwrap()];
    let child = spawn_in(&arguments, OwnedFd::from(theirs), |command| driver.env(command));
    let mut worker = Worker::over(Some(child), ours);
    worker.send(&ToWorker::ProbeGpus);
    let FromWorker::Gpus(gpus) = worker.wait(|m| matches!(m, FromWorker::Gpus(_))) else { unreachable!() };
    assert!(worker.hang_up().success());
    gpus
}

const BOTH: &[Backend] = &[Backend::Gpu, Backend::GpuDecode];

#[test]
fn no_driver_or_one_that_can_not_be_used_is_a_sentence() {
    let garbage = tempfile::tempdir().unwrap();
    std::fs::write(garbage.path().join("libcuda.so.1"), "no library").unwrap();
    let (whole, bare) = (Driver::new(), Driver::new().without("libcuda.so.1"));
    let cases: [(Driver, Option<&Path>, String); 7] = [
        (bare, None, "no libcuda.so.1 in /".to_owned()),
        (Driver::new(), Some(Path::new("/nowhere")), "no libcuda.so.1 in /nowhere (worker.driver_folder)".to_owned()),
        (whole, Some(garbage.path()), "libcuda.so.1 is installed but can not be used: ".to_owned()),
        (
            Driver::new().setting("cuda_version", 12_000),
            None,
            "a driver for CUDA 12.0 is too old: Rung needs".to_owned(),
        ),
        (Driver::new().gpus(0), None, "it sees no GPU".to_owned()),
        (Driver::new().fault("cuda.init code=803"), None, "of different versions".to_owned()),
        (Driver::new().fault("cuda.init code=999"), None, "does not start: cuInit: an unknown error (999)".to_owned()),
    ];
    for (driver, folder, sentence) in cases {
        let folder = folder.map_or_else(|| driver.folder(), Path::to_path_buf);
        let said = probe(&driver, &folder).expect_err(&sentence);
        assert!(said.contains(&sentence), "{said}");
        refuses(&driver, &folder, &[], BOTH, &sentence);
        driver.assert_clean();
    }
}

#[test]
fn a_driver_without_a_part_does_what_it_can() {
    let decodes = [
        (Driver::new().without("libnvidia-encode.so.1"), "no libnvidia-encode.so.1 in /"),
        (Driver::new().setting("nvenc.api", "11.1"), "a driver whose encoder speaks API 11.1 is too old: Rung needs"),
        (Driver::new().setting("nvenc.count", 0), "no encoder"),
        (Driver::new().setting("nvenc.count", 0).setting("nvenc.none_code", 1), "no encoder"),
    ];
    for (driver, sentence) in decodes {
        let gpus = probe(&driver, &driver.folder()).unwrap();
        let said = gpus[0].encode.as_ref().expect_err(sentence);
        assert!(said.contains(sentence) && gpus[0].decode.len() == 4, "{said}, {:?}", gpus[0].decode);
        refuses(&driver, &driver.folder(), &[], &[Backend::Gpu], sentence);
        let process = shared(&driver, &driver.folder(), &[]);
        let pictures = to_units(&grey(20, "-c:v libx264 -preset veryfast -bf 0 -g 25"));
        play(process.join(0), placed(Backend::GpuDecode, SMALL), pictures).assert_whole(0..20, &[0]);
        process.has_left(0);
        process.end();
        driver.assert_clean();
    }
    let driver = Driver::new().without("libnvcuvid.so.1");
    let gpus = probe(&driver, &driver.folder()).unwrap();
    assert!(gpus[0].decode.is_empty() && gpus[0].encode.is_ok(), "{:?}", gpus[0]);
    assert!(gpus[0].unfit.as_ref().is_some_and(|why| why.contains("no libnvcuvid.so.1 in /")), "{:?}", gpus[0]);
    refuses(&driver, &driver.folder(), &[], BOTH, "no libnvcuvid.so.1 in /");
    driver.assert_clean();
}

#[test]
fn a_card_that_can_not_be_used_says_why_and_costs_no_other() {
    let driver = Driver::new().gpus(2).setting("gpu0.capability", "6.1");
    let gpus = probe(&driver, &driver.folder()).unwrap();
    let why = gpus[0].unfit.as_deref().unwrap();
    assert!(why.contains("6.1") && why.contains("7.5 (Turing)"), "{why}");
    assert_eq!((gpus[1].unfit.as_ref(), gpus[1].decode.is_empty()), (None, false));
    driver.assert_clean();
}

#[test]
fn a_gpu_that_is_not_there_is_named_and_a_refused_context_or_kernel_too() {
    let driver = Driver::new();
    refuses(&driver, &driver.folder(), &["--gpu", "1"], BOTH, "there is no GPU 1; the driver has 1");
    let other = &["--gpu", "0000:3b:00"];
    refuses(&driver, &driver.folder(), other, BOTH, "there is no GPU in slot 0000:3b:00; the driver has 1");
    driver.assert_clean();
    let driver = Driver::new().fault("cuda.module code=222");
    refuses(&driver, &driver.folder(), &[], BOTH, "the PTX is newer than the driver (222)");
    driver.assert_clean();
}
