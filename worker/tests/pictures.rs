//! Posters, storyboard sheets and snapshots as the daemon gets them from the real program.

#[expect(dead_code, reason = "other tests use the rest")]
mod support;

use rung::media::picture::{Due, PictureRule};
use rung::pixels::protocol::{Fill, FromWorker, Open, Picture, PictureKind, Still, ToWorker};
use std::process::{Command, Stdio};
use support::*;

const RULE: PictureRule = PictureRule { poster: 25, tile: 50 };

fn pictured() -> Open {
    let mut open = ladder();
    open.video.as_mut().unwrap().pictures = Some(RULE);
    open
}

fn run(open: Open, messages: Vec<ToWorker>) -> Worker {
    let mut worker = Worker::start();
    worker.open(open);
    worker.opened();
    worker.feed_and_close(messages);
    worker
}

fn pictures(worker: &Worker) -> Vec<Picture> {
    let picture = |message: &FromWorker| match message {
        FromWorker::Picture { ch: CH, picture } => Some(picture.clone()),
        _ => None,
    };
    worker.log.iter().filter_map(picture).collect()
}

fn of_kind(all: &[Picture], kind: impl Fn(&PictureKind) -> bool) -> Vec<Picture> {
    all.iter().filter(|picture| kind(&picture.kind)).cloned().collect()
}

fn posters(all: &[Picture]) -> Vec<Picture> {
    of_kind(all, |kind| *kind == PictureKind::Poster)
}

fn skipped(worker: &Worker) -> Option<u64> {
    worker.log.iter().rev().find_map(|message| match message {
        FromWorker::Progress { progress, .. } => Some(progress.pictures_skipped),
        _ => None,
    })
}

/// Mean light of a JPEG, 0 to 255.
fn light(picture: &Picture) -> f64 {
    let mut ffmpeg = Command::new("ffmpeg")
        .args(["-nostdin", "-v", "error", "-f", "mjpeg", "-i", "-", "-f", "rawvideo", "-pix_fmt", "gray", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("ffmpeg is installed");
    let (mut stdin, jpeg) = (ffmpeg.stdin.take().unwrap(), picture.jpeg.clone());
    let writer = std::thread::spawn(move || std::io::Write::write_all(&mut stdin, &jpeg));
    let out = ffmpeg.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert_eq!(out.stdout.len(), usize::from(picture.width) * usize::from(picture.height));
    out.stdout.iter().map(|sample| f64::from(*sample)).sum::<f64>() / out.stdout.len() as f64
}

/// What frame `n` of `video` looks like once its range is stretched.
#[track_caller]
fn assert_shows(picture: &Picture, luma: u8) {
    let want = (f64::from(luma) - 16.0) * 255.0 / 219.0;
    assert!((light(picture) - want).abs() < 4.0, "frame {}: {} and not {want}", picture.at, light(picture));
}

#[test]
fn two_processes_make_the_same_pictures_of_the_lowest_rendition_at_the_same_frames() {
    let dir = tempfile::tempdir().unwrap();
    let units = to_units(&video(dir.path(), 130, &["-bf", "2", "-g", "50"]));
    let (one, other) = (run(pictured(), units.clone()), run(pictured(), units));
    assert_eq!((skipped(&one), skipped(&other)), (Some(0), Some(0)));
    let all = pictures(&one);
    assert_eq!(all, pictures(&other));
    let posters = posters(&all);
    assert_eq!(posters.iter().map(|p| p.at).collect::<Vec<_>>(), [0, 25, 50, 75, 100, 125]);
    for poster in &posters {
        assert_eq!((poster.width, poster.height), (128, 72));
        assert_shows(poster, luma_of(poster.at));
    }
    let sheets = of_kind(&all, |kind| matches!(kind, PictureKind::Sheet(_)));
    let places: Vec<_> = sheets
        .iter()
        .map(|picture| match &picture.kind {
            PictureKind::Sheet(sheet) => (picture.at, sheet.number, sheet.places.clone(), sheet.tile),
            _ => unreachable!(),
        })
        .collect();
    let tile = (128, 72);
    assert_eq!(places, [(0, 0, vec![0], tile), (50, 0, vec![0, 1], tile), (100, 0, vec![0, 1, 2], tile)]);
    assert!(sheets.iter().all(|sheet| (sheet.width, sheet.height) == (1280, 72)));
    assert_eq!(all.len(), posters.len() + sheets.len(), "nobody asked for a snapshot");
}

/// The source is away from frame 40 to 100: the picture is held, then the slate.
fn outage(dir: &std::path::Path) -> Vec<ToWorker> {
    let video = video(dir, 150, &["-bf", "0", "-g", "50", "-keyint_min", "50", "-sc_threshold", "0"]);
    let unit = |picture| ToWorker::Unit { ch: CH, unit: video_unit(picture) };
    let mut messages: Vec<ToWorker> = video.iter().filter(|p| p.n < 40).map(unit).collect();
    messages.extend((41..=65).map(|to| ToWorker::Fill { ch: CH, to, with: Fill::Hold }));
    messages.extend((66..=100).map(|to| ToWorker::Fill { ch: CH, to, with: Fill::Slate }));
    messages.extend(video.iter().filter(|p| p.n >= 100).map(unit));
    messages
}

#[test]
fn a_held_picture_and_a_slate_show_as_what_viewers_see() {
    let dir = tempfile::tempdir().unwrap();
    let worker = run(pictured(), outage(dir.path()));
    let posters = posters(&pictures(&worker));
    assert_eq!(posters.iter().map(|p| p.at).collect::<Vec<_>>(), [0, 25, 50, 75, 100, 125]);
    // The decoder keeps two pictures for reordering: the one before them is held.
    for (poster, luma) in posters.iter().zip([luma_of(0), luma_of(25), luma_of(37), 16, luma_of(100), luma_of(125)]) {
        assert_shows(poster, luma);
    }
}

#[test]
fn a_successor_makes_the_same_posters_and_a_sheet_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let whole = posters(&pictures(&run(pictured(), outage(dir.path()))));
    let mut messages = outage(dir.path());
    for message in &mut messages {
        if let ToWorker::Unit { unit, .. } = message {
            unit.prime = unit.at < 80;
        }
    }
    let mut open = pictured();
    open.video.as_mut().unwrap().start = 80;
    let all = pictures(&run(open, messages));
    assert_eq!(posters(&all), whole[4..]);
    let sheets = of_kind(&all, |kind| matches!(kind, PictureKind::Sheet(_)));
    let [Picture { at: 100, kind: PictureKind::Sheet(sheet), .. }] = &sheets[..] else { panic!("{sheets:?}") };
    assert_eq!((sheet.number, sheet.places.as_slice()), (0, &[2][..]));
}

#[test]
fn pictures_have_square_samples_and_a_jump_leaves_none_out() {
    let dir = tempfile::tempdir().unwrap();
    let mut units = to_units(&video(dir.path(), 30, &["-bf", "0", "-g", "15", "-keyint_min", "15"]));
    // Frames 15 to 29 are shown at 115 to 129.
    for message in &mut units[15..] {
        if let ToWorker::Unit { unit, .. } = message {
            unit.at += 100;
        }
    }
    units.insert(15, ToWorker::Fill { ch: CH, to: 115, with: Fill::Nothing });
    let mut open = pictured();
    let video = open.video.as_mut().unwrap();
    (video.renditions[2].width, video.renditions[2].sar) = (96, (4, 3));
    let posters = posters(&pictures(&run(open, units)));
    assert_eq!(posters.iter().map(|p| p.at).collect::<Vec<_>>(), [0, 115, 125]);
    assert!(posters.iter().all(|p| (p.width, p.height) == (96, 54)), "128x72 as wide as there are samples");
    assert_shows(&posters[1], luma_of(15));
}

#[test]
fn a_snapshot_is_the_newest_picture_and_comes_although_no_other_is_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let mut worker = Worker::start();
    worker.open(ladder());
    worker.opened();
    // Before the first frame: it is of the first.
    worker.send(&ToWorker::Snap { ch: CH });
    let units = to_units(&video(dir.path(), 20, &["-bf", "0", "-g", "10", "-tune", "zerolatency"]));
    units.iter().for_each(|unit| worker.send(unit));
    let snap = |worker: &mut Worker| {
        let fits =
            |m: &FromWorker| matches!(m, FromWorker::Picture { picture, .. } if picture.kind == PictureKind::Snap);
        let FromWorker::Picture { picture, .. } = worker.wait(fits) else { unreachable!() };
        picture
    };
    assert_eq!(snap(&mut worker).at, 0);
    // The decoder keeps two for reordering.
    worker.wait(|m| matches!(m, FromWorker::Progress { progress, .. } if progress.next == 18));
    worker.send(&ToWorker::Snap { ch: CH });
    let newest = snap(&mut worker);
    assert!(newest.at >= 15, "frame {}", newest.at);
    assert_shows(&newest, luma_of(newest.at));
    worker.feed_and_close(Vec::new());
    assert_eq!(pictures(&worker).len(), 2);
}

fn still(of: u32, coded: &Coded, due: Due) -> ToWorker {
    let still = Still {
        of,
        at: coded.n,
        due,
        snap: false,
        rule: RULE,
        source: video_config(320, 180),
        data: coded.data.clone(),
    };
    ToWorker::Still { ch: CH, still: Box::new(still) }
}

#[test]
fn single_units_of_several_sources_become_posters_and_sheets_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let coded = video(dir.path(), 120, &["-bf", "2", "-g", "50", "-keyint_min", "50", "-sc_threshold", "0"]);
    let keys: Vec<&Coded> = coded.iter().filter(|picture| picture.key).collect();
    assert_eq!(keys.iter().map(|key| key.n).collect::<Vec<_>>(), [0, 50, 100]);
    let both = Due { poster: true, tile: true };
    let mut worker = Worker::start();
    worker.send(&ToWorker::Stills { ch: CH });
    let mut ask = |message: ToWorker, of: u32| {
        worker.send(&message);
        match worker.wait(|m| matches!(m, FromWorker::StillMade { .. })) {
            FromWorker::StillMade { ch: CH, of: answered, pictures } => {
                assert_eq!(answered, of);
                pictures
            }
            other => panic!("{other:?}"),
        }
    };
    let places = |pictures: &[Picture]| match &pictures[1].kind {
        PictureKind::Sheet(sheet) => (sheet.number, sheet.places.clone()),
        kind => panic!("{kind:?}"),
    };
    for (i, key) in keys[..2].iter().enumerate() {
        for of in [3, 9] {
            let pictures = ask(still(of, key, both), of);
            assert_eq!((pictures.len(), pictures[0].width, pictures[0].height), (2, 320, 180));
            assert_shows(&pictures[0], luma_of(key.n));
            assert_eq!(places(&pictures), (0, (0..=u8::try_from(i).unwrap()).collect()), "source {of}");
        }
    }
    // Bytes that are no picture give none, harm nobody, and are answered all the same.
    let noise = Coded { n: 75, key: true, data: vec![0x5a; 5_000].into() };
    let cut = Coded { n: 75, key: true, data: keys[1].data.slice(..40) };
    let empty = Coded { n: 75, key: true, data: bytes::Bytes::new() };
    for broken in [&noise, &cut, &empty] {
        assert_eq!(ask(still(9, broken, both), 9), [], "{} bytes", broken.data.len());
    }
    assert_eq!(places(&ask(still(3, keys[2], both), 3)), (0, vec![0, 1, 2]));
    // A source that came back under its number begins anew.
    worker.send(&ToWorker::Forget { ch: CH, of: 9 });
    worker.send(&still(9, keys[2], both));
    let FromWorker::StillMade { pictures, .. } = worker.wait(|m| matches!(m, FromWorker::StillMade { of: 9, .. }))
    else {
        unreachable!()
    };
    assert_eq!(places(&pictures), (0, vec![2]));
    worker.feed_and_close(Vec::new());
}
