//! Crop and logo: the same pictures wherever they are made, and a logo that changes while a channel goes on.

use rung::media::crop::Margins;
use rung::media::logo::{Corner, Hundredths, Logo, LogoPicture, LogoPlace};
use rung::pixels::protocol::{Backend, FromWorker, Open, ToWorker};
use std::path::Path;

use crate::double::Driver;
use crate::rig::*;
use crate::support::*;

/// White with a hard edge to nothing, and a red bar that lets half through.
const COLOURED: &str = "nullsrc=s=120x60,format=rgba,geq=r=255:g='if(lt(Y,20),255,0)':b='if(lt(Y,20),255,0)':\
                        a='if(lt(X,20),0,if(lt(Y,20),255,128))'";
const WHITE: &str = "color=white:s=120x60,format=rgba";

fn logo(dir: &Path, pixels: &str, corner: Corner, opacity: u32) -> Box<Logo> {
    let file = dir.join("logo.png");
    ffmpeg(&["-f", "lavfi", "-i", pixels, "-frames:v", "1", file.to_str().unwrap()]);
    let png = std::fs::read(file).unwrap();
    Box::new(Logo { place: place(corner, opacity), picture: LogoPicture::Png(png.into()) })
}

fn place(corner: Corner, opacity: u32) -> LogoPlace {
    LogoPlace { corner, width: Hundredths(3_000), margin: Hundredths(450), opacity: Hundredths(opacity) }
}

const CROP: Margins = Margins { left: 8, right: 16, top: 20, bottom: 26 };

fn dressed(backend: Backend, crop: Margins, logo: Option<Box<Logo>>) -> Open {
    let mut open = placed(backend, &SIZES);
    let video = open.video.as_mut().unwrap();
    (video.crop, video.logo) = (crop, logo);
    open
}

#[test]
fn a_cut_and_marked_picture_has_the_same_bytes_wherever_it_is_scaled() {
    let dir = tempfile::tempdir().unwrap();
    let card = Card::with(Driver::new().setting("nvenc.count", 0));
    let messages = to_units(&moving(12, "-c:v libx264 -preset veryfast -bf 2 -g 30"));
    let plain = software(dressed(Backend::Software, Margins::default(), None), messages.clone());
    let logo = logo(dir.path(), COLOURED, Corner::BottomLeft, 80);
    for (crop, logo) in [(CROP, None), (Margins::default(), Some(logo.clone())), (CROP, Some(logo))] {
        let open = dressed(Backend::GpuDecode, crop, logo);
        let ours = card.run(open.clone(), messages.clone());
        assert!(ours.faults.is_empty(), "{:?}", ours.faults);
        ours.assert_whole(0..12, &[0]);
        assert_eq!(ours.progress.copies, 4 * 12);
        for (rendition, frames) in ours.frames.iter().enumerate() {
            assert!(frames[0].data != plain.frames[rendition][0].data, "rendition {rendition} is as it was");
        }
        ours.assert_same_bytes(&software(open, messages.clone()));
    }
    card.end();
}

#[test]
fn held_pictures_bear_the_logo_and_slates_neither_bear_it_nor_are_cut_on_every_placement() {
    let dir = tempfile::tempdir().unwrap();
    let card = Card::new();
    let messages = crate::channel::life(&grey(240, "-c:v libx264 -preset veryfast -bf 0 -g 30"));
    let open = |backend| {
        let mut open = crate::channel::lively(dir.path(), backend);
        let video = open.video.as_mut().unwrap();
        (video.crop, video.logo) = (CROP, Some(logo(dir.path(), WHITE, Corner::TopRight, 100)));
        open
    };
    let software = software(open(Backend::Software), messages.clone());
    let decode = card.run(open(Backend::GpuDecode), messages.clone());
    decode.assert_same_bytes(&software);
    let whole = card.run(open(Backend::Gpu), messages);
    let mut judged = 0;
    for rendition in 0..software.frames.len() {
        let luma = software.luma(dir.path(), rendition);
        let shown = software.shown(rendition);
        assert_eq!(whole.shown(rendition), shown);
        whole.assert_luma(dir.path(), rendition, 2.5, |n| luma[shown.binary_search(&n).unwrap()]);
        // One is shed meanwhile.
        if shown.binary_search(&85).is_err() {
            continue;
        }
        judged += 1;
        // A white square with bars, the whole of it: 180 of 320 columns, in what 296 by 134 leave room for.
        let of = |n: i64| luma[shown.binary_search(&n).unwrap()];
        let slate = 16.0 + (235.0 - 16.0) * 134.0 / 296.0;
        assert!((of(85) - slate).abs() < 3.0, "slate {}, not {slate}", of(85));
        // The last picture, held: as bright as it was with its logo.
        assert!((of(75) - of(69)).abs() < 1.5, "held {} after {}", of(75), of(69));
        assert!((of(69) - f64::from(luma_of(69))).abs() > 2.0, "frame 69 has no logo");
    }
    assert!(judged >= 2);
    card.end();
}

/// Mean luma of the inside of a logo in this corner.
fn inside(picture: &[u8], size: (u32, u32), corner: Corner) -> f64 {
    let spot = place(corner, 100).spot((120, 60), size, (1, 1));
    let [x, y, w, h] = [spot.x, spot.y, spot.width, spot.height].map(|n| n as usize);
    let (columns, rows) = (x + w / 4..x + w - w / 4, y + h / 4..y + h - h / 4);
    let area = (columns.len() * rows.len()) as f64;
    let row = |y: usize| picture[y * size.0 as usize..][columns.clone()].iter().map(|luma| f64::from(*luma));
    rows.flat_map(row).sum::<f64>() / area
}

/// Mean luma of the inside of a logo in the upper right corner, and in the lower left one, by frame.
fn corners(dir: &Path, ran: &Ran, rendition: usize) -> Vec<(f64, f64)> {
    let (width, height) = (SIZES[rendition].0 as usize, SIZES[rendition].1 as usize);
    let pictures = decode_planar(&write_annexb(dir, &ran.inits[rendition], &ran.frames[rendition]));
    let size = SIZES[rendition];
    let both = |picture: &[u8]| (inside(picture, size, Corner::TopRight), inside(picture, size, Corner::BottomLeft));
    pictures.chunks(width * height * 3 / 2).map(both).collect()
}

/// Whether a logo covers the upper right corner, and the lower left one, of a picture that is this grey elsewhere.
fn covered((right, left): (f64, f64), grey: f64) -> (bool, bool) {
    let one = |corner: f64| {
        let covered = corner > 225.0;
        assert!(covered || (corner - grey).abs() < 8.0, "{corner} is neither white nor {grey}");
        covered
    };
    (one(right), one(left))
}

/// The lowest rendition when these are shown: where none was before, the first of them answers.
fn snap(worker: &mut Worker, dir: &Path, group: &[Coded]) -> (bool, bool) {
    worker.send(&ToWorker::Snap { ch: CH });
    worker.feed(to_units(group)).join().unwrap();
    let FromWorker::Picture { picture, .. } = worker.wait(|m| matches!(m, FromWorker::Picture { .. })) else {
        unreachable!()
    };
    let (jpeg, raw) = (dir.join("snap.jpg"), dir.join("snap.raw"));
    std::fs::write(&jpeg, &picture.jpeg).unwrap();
    let to = ["-pix_fmt", "gray", "-vf", "scale=in_range=pc:out_range=tv", "-f", "rawvideo", raw.to_str().unwrap()];
    ffmpeg(&[&["-i", jpeg.to_str().unwrap()], &to[..]].concat());
    let (pixels, width) = (std::fs::read(raw).unwrap(), usize::from(picture.width));
    let size = (u32::from(picture.width), u32::from(picture.height));
    // Away from both corners.
    let grey = f64::from(pixels[pixels.len() / 2 + width / 2]);
    covered((inside(&pixels, size, Corner::TopRight), inside(&pixels, size, Corner::BottomLeft)), grey)
}

#[test]
fn a_logo_comes_moves_and_goes_without_another_idr_or_a_lost_frame() {
    let dir = tempfile::tempdir().unwrap();
    let card = Card::new();
    // Never near white.
    let source = "nullsrc=s=320x180:r=25,geq=lum='20+mod(N,20)*5':cb=128:cr=128,format=yuv420p";
    let pictures = clip("dim", &format!("{source} -frames:v 400 -c:v libx264 -preset veryfast -bf 0 -g 500"));
    for backend in [Backend::Software, Backend::GpuDecode, Backend::Gpu] {
        let (seat, mut worker) = match backend {
            Backend::Software => (None, Worker::start()),
            _ => {
                let (seat, worker) = card.join();
                (Some(seat), worker)
            }
        };
        worker.open(dressed(backend, Margins::default(), None));
        let (inits, _) = worker.opened();
        let broken = Logo { place: LogoPlace::default(), picture: LogoPicture::Png(b"\x89PNG no".as_slice().into()) };
        let orders = [
            (Some(logo(dir.path(), WHITE, Corner::TopRight, 100)), (true, false)),
            (Some(logo(dir.path(), WHITE, Corner::BottomLeft, 100)), (false, true)),
            // What it cannot read it tells of, and goes on with what it has.
            (Some(Box::new(broken)), (false, true)),
            (None, (false, false)),
        ];
        let mut groups = pictures.chunks(10);
        for (logo, wanted) in orders {
            worker.send(&ToWorker::Logo { ch: CH, logo });
            loop {
                let group = groups.next().expect("it is seen within 400 frames");
                if snap(&mut worker, dir.path(), group) == wanted {
                    break;
                }
            }
        }
        worker.feed_and_close(Vec::new());
        let ran = ran(&worker, inits, SIZES.to_vec());
        drop(worker);
        seat.into_iter().for_each(|seat| card.has_left(seat));
        let last = ran.shown(0).len() as i64;
        ran.assert_whole(0..last, &(0..last).step_by(50).collect::<Vec<_>>());
        assert!(ran.faults.iter().all(|(_, words)| words.contains("logo")), "{:?}", ran.faults);
        let grey = |n: usize| 20.0 + (n % 20) as f64 * 5.0;
        let states = |rendition| -> Vec<(bool, bool)> {
            let corners = corners(dir.path(), &ran, rendition);
            corners.iter().enumerate().map(|(n, corners)| covered(*corners, grey(n))).collect()
        };
        let first = states(0);
        for rendition in 1..SIZES.len() {
            assert!(states(rendition) == first, "{backend:?}: every rendition changes at the same frames");
        }
        let mut changes = first;
        changes.dedup();
        assert_eq!(changes, [(false, false), (true, false), (false, true), (false, false)], "{backend:?}");
    }
    card.end();
}

#[test]
fn a_source_that_shrinks_under_its_crop_is_shown_whole() {
    let dir = tempfile::tempdir().unwrap();
    let card = Card::new();
    let coding = "-c:v libx264 -preset veryfast -bf 0 -g 200";
    let mut pictures = grey(20, coding);
    let small = clip("small", &format!("{},format=yuv420p -frames:v 20 {coding}", GREY.replace("320x180", "160x96")));
    pictures.extend(small.into_iter().map(|picture| Coded { n: picture.n + 20, ..picture }));
    let crop = Margins { left: 100, right: 60, top: 30, bottom: 30 };
    let mut software_pictures = None;
    for backend in [Backend::Software, Backend::GpuDecode, Backend::Gpu] {
        let open = dressed(backend, crop, None);
        let ran = match backend {
            Backend::Software => software(open, to_units(&pictures)),
            _ => card.run(open, to_units(&pictures)),
        };
        ran.assert_whole(0..40, &[0]);
        ran.assert_luma(dir.path(), 1, 2.5, |n| f64::from(luma_of(n % 20)));
        match (&software_pictures, backend) {
            (Some(software), Backend::GpuDecode) => ran.assert_same_bytes(software),
            _ => software_pictures = Some(ran),
        }
    }
    card.end();
}
