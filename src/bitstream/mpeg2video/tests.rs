//! Real headers, written by libavcodec.

use super::*;
use crate::bitstream::mpeg2video::sequence::{config, rate};
use crate::media::grid::FrameRate;
use crate::media::track::{Codec, Colour};

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect()
}

/// 720x576 interlaced, 25 Hz, 16:9, with colours; a first field is on top.
const SD: [&str; 3] = ["b32d024033ffffe018", "b5148200010000", "b52b0505050b421200"];
/// 1920x1080 progressive, 29.97 Hz, square, low delay.
const HD: [&str; 2] = ["b378043834ffffe018", "b5144a00010080"];
/// 352x288, 4:2:2.
const TWO: [&str; 2] = ["b316012013ffffe018", "b5185c00010000"];

fn read(headers: &[&str]) -> (Sequence, Extension, Option<Display>) {
    (
        Sequence::parse(&bytes(headers[0])).unwrap(),
        Extension::parse(&bytes(headers[1])).unwrap(),
        headers.get(2).map(|display| Display::parse(&bytes(display)).unwrap()),
    )
}

#[test]
fn real_headers_say_what_their_encoder_was_told() {
    let (sequence, extension, display) = read(&SD);
    let sd = config(&sequence, &extension, display.as_ref()).unwrap();
    assert_eq!((sd.codec, sd.width, sd.height, sd.sar), (Codec::Mpeg2Video, 720, 576, (64, 45)));
    assert_eq!((sd.rate, sd.interlaced, sd.reorder), (Some(FrameRate::new(25, 1)), true, Some(1)));
    assert_eq!((sd.profile, sd.bit_depth, sd.chroma_format), ([0x48, 0, 0], 8, 1));
    assert_eq!(sd.colour, Colour { primaries: 5, transfer: 5, matrix: 5, full_range: false });
    assert_eq!(sd.parameter_sets().count(), 0);

    let (sequence, extension, _) = read(&HD);
    let hd = config(&sequence, &extension, None).unwrap();
    assert_eq!((hd.width, hd.height, hd.sar), (1_920, 1_080, (1, 1)));
    assert_eq!((hd.rate, hd.interlaced, hd.reorder), (Some(FrameRate::new(30_000, 1_001)), false, Some(0)));
    assert_eq!(hd.colour, Colour::default());

    let (sequence, extension, _) = read(&TWO);
    assert_eq!(config(&sequence, &extension, None).unwrap().chroma_format, 2);
}

#[test]
fn aspects_are_of_the_coded_size_unless_the_display_size_makes_a_common_picture() {
    let (sequence, extension, _) = read(&SD);
    let sar = |aspect, display: Option<(u32, u32)>| {
        let display = display.map(|(width, height)| Display { colour: Colour::default(), width, height });
        config(&Sequence { aspect, ..sequence }, &extension, display.as_ref()).unwrap().sar
    };
    assert_eq!((sar(1, None), sar(2, None), sar(3, None)), ((1, 1), (16, 15), (64, 45)));
    // A display of 540 columns inside 720, as some encoders write it: the aspect is the whole picture's all the same.
    assert_eq!(sar(2, Some((540, 576))), (64, 45), "720 columns of that are 16:9");
    assert_eq!(sar(2, Some((704, 576))), (16, 15));
    assert_eq!((sar(2, Some((0, 576))), sar(2, Some((720, 0)))), ((16, 15), (16, 15)));
}

#[test]
fn sizes_and_rates_take_their_extensions_along() {
    let (sequence, extension, _) = read(&SD);
    let wide = Extension { width: 1 << 12, rate: (2, 1), ..extension };
    assert_eq!(config(&sequence, &wide, None).unwrap().width, 4_096 + 720);
    assert_eq!(rate(&sequence, &wide), Some(FrameRate::new(50, 1)));
    assert_eq!(config(&Sequence { width: 0, ..sequence }, &extension, None), None);
}

#[test]
fn picture_headers_tell_order_kind_and_structure() {
    let kinds: Vec<Picture> =
        ["00000ffff8", "000057fffb80", "000097fffb80"].map(|hex| Picture::parse(&bytes(hex)).unwrap()).to_vec();
    let told: Vec<(u32, u8)> = kinds.iter().map(|picture| (picture.temporal_reference, picture.kind)).collect();
    assert_eq!(told, [(0, 1), (1, 2), (2, 2)]);
    assert!(Picture::parse(&bytes("00ffffff")).is_err() && Picture::parse(&[0]).is_err());
    assert_eq!(picture::is_field(&bytes("b58ffff38000")), Some(false));
    assert_eq!(picture::is_field(&bytes("b58ffff18000")), Some(true), "top");
    assert_eq!(picture::is_field(&bytes("b58ffff28000")), Some(true), "bottom");
    assert_eq!(picture::is_field(&bytes("b58f")), None);
}

#[test]
fn headers_cut_or_mutated_anywhere_never_panic() {
    let mut seed = 11u64;
    let mut next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize
    };
    let (mut sound, mut refused) = (0, 0);
    for hex in SD.iter().chain(&HD).chain(&TWO) {
        let whole = bytes(hex);
        for round in 0..4_000 {
            let mut unit = whole.clone();
            unit.truncate(if round % 2 == 0 { next() % (whole.len() + 1) } else { whole.len() });
            for _ in 0..next() % 6 {
                let at = next() % unit.len().max(1);
                if let Some(byte) = unit.get_mut(at) {
                    *byte ^= 1 << (next() % 8);
                }
            }
            let (sequence, extension) = (Sequence::parse(&unit), Extension::parse(&unit));
            let (display, _) = (Display::parse(&unit).ok(), Picture::parse(&unit));
            picture::is_field(&unit);
            let (of, extended, _) = read(&SD);
            let made = config(&sequence.unwrap_or(of), &extension.unwrap_or(extended), display.as_ref());
            sound += usize::from(made.is_some());
            refused += usize::from(sequence.is_err());
        }
    }
    assert!(sound > 1_000 && refused > 1_000, "{sound} sound, {refused} refused");
}
