//! A channel on a GPU, against the driver's double: NVDEC, the ladder's kernel, NVENC or libx264.

#[expect(dead_code, reason = "other tests use the rest")]
#[path = "support/double.rs"]
mod double;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "support/process.rs"]
mod process;
#[expect(dead_code, reason = "other tests use the rest")]
mod support;

use double::Driver;
use process::Process;
use rung::pixels::protocol::{Backend, FromWorker, Open, Output};
use support::*;

const SIZES: [(u32, u32); 3] = [(320, 180), (256, 144), (192, 108)];

fn on(driver: &Driver) -> Process {
    let folder = driver.folder();
    Process::start_with(&["--driver-folder", folder.to_str().unwrap()], |command| driver.env(command))
}

fn placed(backend: Backend) -> Open {
    let mut open = ladder();
    let video = open.video.as_mut().unwrap();
    // Real encoders take nothing narrower than 145 columns.
    video.renditions = SIZES.map(|(width, height)| rendition(width, height)).to_vec();
    video.backend = backend;
    open
}

/// Mean luma of every picture of each rendition, as a player sees it.
fn seen(worker: &Worker, dir: &std::path::Path, inits: &[rung::pixels::protocol::VideoInit]) -> Vec<Vec<f64>> {
    let one = |(i, (width, height)): (usize, (u32, u32))| {
        let frames = worker.encoded(&Output::Video(u8::try_from(i).unwrap()));
        decode_luma(dir, &inits[i], &frames, width as usize, height as usize)
    };
    SIZES.into_iter().enumerate().map(one).collect()
}

#[test]
fn a_ladder_stays_on_the_gpu_from_decoder_to_encoder() {
    let dir = tempfile::tempdir().unwrap();
    let messages = to_units(&video(dir.path(), 120, &["-bf", "2", "-g", "50"]));
    let driver = Driver::new();
    let process = on(&driver);
    let mut worker = process.join(0);
    worker.open(placed(Backend::Gpu));
    let (inits, _) = worker.opened();
    worker.feed_and_close(messages.clone());
    for rendition in 0..3 {
        let frames = worker.encoded(&Output::Video(rendition));
        assert!(frames.iter().map(|f| f.at).eq(0..120), "rendition {rendition}");
        assert!(frames.iter().filter(|f| f.sync).map(|f| f.at).eq((0..120).step_by(50)), "rendition {rendition}");
    }
    let copies = worker.log.iter().filter_map(|m| match m {
        FromWorker::Progress { progress, .. } => Some(progress.copies),
        _ => None,
    });
    assert_eq!(copies.max(), Some(0), "no picture leaves the GPU");
    let ours = seen(&worker, dir.path(), &inits);
    let mut software = Worker::start();
    software.open(placed(Backend::Software));
    let (inits, _) = software.opened();
    software.feed_and_close(messages);
    let theirs = seen(&software, dir.path(), &inits);
    for (rendition, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
        let off = ours.iter().zip(theirs).position(|(ours, theirs)| (ours - theirs).abs() >= 2.0);
        assert_eq!(off, None, "rendition {rendition}: {ours:?} against {theirs:?} on the CPU");
    }
    drop(worker);
    process.has_left(0);
    process.end();
    driver.assert_clean();
}
