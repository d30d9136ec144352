//! Crop and logo: the same pictures wherever they are made, and a logo that changes while a channel goes on.

use rung::media::crop::Margins;
use rung::media::logo::{Corner, Hundredths, Logo, LogoPicture, LogoPlace};
use rung::pixels::protocol::{Backend, Fill, FromWorker, Open, Output, ToWorker};
use std::path::Path;

use crate::double::Driver;
use crate::rig::*;
use crate::support::*;

/// White with a hard edge to nothing, and a red bar that lets half through.
fn logo(dir: &Path, corner: Corner, opacity: u32) -> Box<Logo> {
    let file = dir.join("logo.png");
    let alpha = "a='if(lt(X,20),0,if(lt(Y,20),255,128))'";
    let pixels =
        format!("nullsrc=s=120x60,format=rgba,geq=r=255:g='if(lt(Y,20),255,0)':b='if(lt(Y,20),255,0)':{alpha}");
    ffmpeg(&["-f", "lavfi", "-i", &pixels, "-frames:v", "1", file.to_str().unwrap()]);
    let place = LogoPlace { corner, width: Hundredths(3_000), margin: Hundredths(450), opacity: Hundredths(opacity) };
    let png = std::fs::read(file).unwrap();
    Box::new(Logo { place, picture: LogoPicture::Png(png.into()) })
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
    let logo = logo(dir.path(), Corner::BottomLeft, 80);
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
        (video.crop, video.logo) = (CROP, Some(logo(dir.path(), Corner::TopRight, 100)));
        open
    };
    let software = software(open(Backend::Software), messages.clone());
    let decode = card.run(open(Backend::GpuDecode), messages.clone());
    decode.assert_same_bytes(&software);
    let whole = card.run(open(Backend::Gpu), messages);
    for rendition in 0..software.frames.len() {
        let luma = software.luma(dir.path(), rendition);
        let shown = software.shown(rendition);
        assert_eq!(whole.shown(rendition), shown);
        whole.assert_luma(dir.path(), rendition, 2.5, |n| luma[shown.binary_search(&n).unwrap()]);
        // A white square with bars, the whole of it: 180 of 320 columns, in what 296 by 134 leave room for.
        let of = |n: i64| luma[shown.binary_search(&n).unwrap()];
        let slate = 16.0 + (235.0 - 16.0) * 134.0 / 296.0;
        assert!((of(85) - slate).abs() < 3.0, "slate {}, not {slate}", of(85));
        // The last picture, held: as bright as it was with its logo.
        assert!((of(75) - of(69)).abs() < 1.5, "held {} after {}", of(75), of(69));
        assert!((of(69) - f64::from(luma_of(69))).abs() > 2.0, "frame 69 has no logo");
    }
    card.end();
}

/// Mean luma of the upper right corner where the logo covers, and of the lower left one, by frame.
fn corners(dir: &Path, ran: &Ran, rendition: usize) -> Vec<(f64, f64)> {
    let (width, height) = (SIZES[rendition].0 as usize, SIZES[rendition].1 as usize);
    let pictures = decode_planar(&write_annexb(dir, &ran.inits[rendition], &ran.frames[rendition]));
    let mean = |picture: &[u8], x: std::ops::Range<usize>, y: std::ops::Range<usize>| {
        let area = (x.len() * y.len()) as f64;
        y.flat_map(|y| picture[y * width..][x.clone()].iter()).map(|sample| f64::from(*sample)).sum::<f64>() / area
    };
    let (w, h) = (width / 10, height / 20);
    let edge = |side: usize| side * 7 / 100;
    pictures
        .chunks(width * height * 3 / 2)
        .map(|picture| {
            let right = mean(picture, width - edge(width) - w..width - edge(width), edge(width)..edge(width) + h);
            (right, mean(picture, edge(width)..edge(width) + w, height - edge(width) - h..height - edge(width)))
        })
        .collect()
}

#[test]
fn a_logo_comes_moves_and_goes_without_another_idr_or_a_lost_frame() {
    let dir = tempfile::tempdir().unwrap();
    let card = Card::new();
    let pictures = grey(150, "-c:v libx264 -preset veryfast -bf 0 -g 200");
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
        let mut wanted = [
            Some(logo(dir.path(), Corner::TopRight, 100)),
            Some(logo(dir.path(), Corner::BottomLeft, 100)),
            None,
            // What it cannot read it tells of, and goes on with what it has.
            Some(Box::new(Logo {
                place: LogoPlace::default(),
                picture: LogoPicture::Png(b"\x89PNG no".as_slice().into()),
            })),
        ]
        .into_iter();
        for (i, group) in pictures.chunks(30).enumerate() {
            worker.feed(to_units(group)).join().unwrap();
            // The encoders hold back some.
            let last = (30 * (i as i64 + 1) - 12).max(0);
            worker.wait(|m| matches!(m, FromWorker::Encoded { frame, .. } if frame.output == Output::Video(3) && frame.at == last));
            if let Some(logo) = wanted.next() {
                let broken = i == 3;
                worker.send(&ToWorker::Logo { ch: CH, logo });
                if broken {
                    worker.wait(|m| matches!(m, FromWorker::Fault { detail, .. } if detail.contains("logo")));
                }
            }
        }
        worker.feed_and_close(vec![fill(155, Fill::Hold)]);
        let ran = ran(&worker, inits, SIZES.to_vec());
        drop(worker);
        seat.into_iter().for_each(|seat| card.has_left(seat));
        ran.assert_whole(0..155, &[0, 50, 100, 150]);
        assert_eq!(ran.faults.len(), 1, "{:?}", ran.faults);
        let all: Vec<_> = (0..SIZES.len()).map(|rendition| corners(dir.path(), &ran, rendition)).collect();
        let lit = |n: usize| {
            let grey = f64::from(luma_of(n.min(149) as i64));
            let one = |corner: f64| {
                if corner > 225.0 {
                    'w'
                } else if (corner - grey).abs() < 8.0 {
                    '-'
                } else {
                    '?'
                }
            };
            let states: Vec<_> = all.iter().map(|corners| (one(corners[n].0), one(corners[n].1))).collect();
            assert!(states.iter().all(|state| *state == states[0]), "{backend:?}: frame {n} differs: {states:?}");
            states[0]
        };
        // luma_of is far from white but at its top.
        let states: Vec<_> = (0..155).filter(|n| luma_of(*n as i64) < 200).map(lit).collect();
        let mut changes = states.clone();
        changes.dedup();
        assert_eq!(changes, [('-', '-'), ('w', '-'), ('-', 'w'), ('-', '-')], "{backend:?}");
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
