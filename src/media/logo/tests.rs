use super::*;
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};

fn png(width: u32, height: u32, pixel: impl Fn(u32, u32) -> [u8; 4]) -> Vec<u8> {
    let image = RgbaImage::from_fn(width, height, |x, y| Rgba(pixel(x, y)));
    let mut out = Vec::new();
    PngEncoder::new(&mut out).write_image(&image, width, height, ExtendedColorType::Rgba8).unwrap();
    out
}

fn place(corner: Corner, width: u32, margin: u32) -> LogoPlace {
    let (width, margin) = (Hundredths(width), Hundredths(margin));
    LogoPlace { corner, width, margin, opacity: Hundredths(100) }
}

fn spot(x: u32, y: u32, width: u32, height: u32) -> Spot {
    Spot { x, y, width, height }
}

#[test]
fn a_logo_lies_in_its_corner_at_the_same_place_of_every_rendition() {
    let at = |corner, picture| place(corner, 1_000, 300).spot((400, 200), picture, (1, 1));
    assert_eq!(at(Corner::TopLeft, (1920, 1080)), spot(58, 58, 192, 96));
    assert_eq!(at(Corner::TopRight, (1920, 1080)), spot(1920 - 58 - 192, 58, 192, 96));
    assert_eq!(at(Corner::BottomLeft, (1920, 1080)), spot(58, 1080 - 58 - 96, 192, 96));
    assert_eq!(at(Corner::BottomRight, (1920, 1080)), spot(1670, 926, 192, 96));
    assert_eq!(at(Corner::TopRight, (640, 360)), spot(640 - 20 - 64, 20, 64, 32));
    assert_eq!(at(Corner::TopRight, (854, 480)), spot(854 - 26 - 86, 26, 86, 42));
}

#[test]
fn a_logo_keeps_its_shape_on_samples_that_are_not_square() {
    // 16:9 in 720x576, samples 64:45: a square logo of a tenth of the width is 72 columns and 102.4 rows.
    assert_eq!(place(Corner::TopLeft, 1_000, 0).spot((50, 50), (720, 576), (64, 45)), spot(0, 0, 72, 102));
    // The margin looks alike both ways.
    assert_eq!(place(Corner::TopLeft, 1_000, 500).spot((50, 50), (720, 576), (64, 45)), spot(36, 52, 72, 102));
    // 4:3 in as many: 16:15.
    assert_eq!(place(Corner::TopLeft, 1_000, 0).spot((50, 50), (720, 576), (16, 15)), spot(0, 0, 72, 76));
    assert_eq!(place(Corner::TopLeft, 1_000, 0).spot((50, 50), (720, 576), (0, 0)), spot(0, 0, 72, 72));
}

#[test]
fn a_logo_is_always_inside_with_even_sides_at_even_places() {
    for picture in [(1920, 1080), (360, 640), (1920, 270), (320, 16), (16, 16), (2, 2), (720, 576)] {
        for image in [(1, 1), (2048, 1), (1, 2048), (300, 100), (7, 13)] {
            for (width, margin) in [(100, 0), (5_000, 2_000), (1_250, 333), (5_000, 0), (100, 2_000)] {
                for corner in [Corner::TopLeft, Corner::TopRight, Corner::BottomLeft, Corner::BottomRight] {
                    for sar in [(1, 1), (64, 45), (1, 9), (9, 1)] {
                        let spot = place(corner, width, margin).spot(image, picture, sar);
                        let words = format!("{picture:?} {image:?} {width} {margin} {corner:?} {sar:?}: {spot:?}");
                        let Spot { x, y, width, height } = spot;
                        assert!([x, y, width, height].iter().all(|n| n % 2 == 0), "{words}");
                        assert!(width >= 2 && height >= 2, "{words}");
                        assert!(x + width <= picture.0 && y + height <= picture.1, "{words}");
                    }
                }
            }
        }
    }
}

#[test]
fn what_is_hidden_lends_its_colour_to_nobody() {
    // Red that covers on the left, green that does not on the right.
    let file = png(64, 8, |x, _| if x < 32 { [255, 0, 0, 255] } else { [0, 255, 0, 0] });
    let pixels = LogoPixels::read(&file).unwrap();
    for (width, height) in [(16, 2), (22, 6), (64, 8), (150, 20)] {
        let scaled = pixels.scaled(width, height, Hundredths(100));
        assert_eq!(scaled.len(), 4 * width as usize * height as usize);
        let (all, _) = scaled.as_chunks::<4>();
        for [r, g, b, a] in all.iter().filter(|pixel| pixel[3] > 0) {
            assert_eq!([*r, *g, *b], [255, 0, 0], "alpha {a} at {width}x{height}");
        }
        assert!(all.iter().any(|pixel| pixel[3] == 255) && all.iter().any(|pixel| pixel[3] == 0));
    }
}

#[test]
fn an_unscaled_logo_is_as_it_was_and_opacity_makes_it_thinner() {
    let of = |x: u32, y: u32| [x as u8 * 40, y as u8 * 60, 200, (x * 50 + y * 11) as u8];
    let pixels = LogoPixels::read(&png(6, 4, of)).unwrap();
    let (same, half) = (pixels.scaled(6, 4, Hundredths(100)), pixels.scaled(6, 4, Hundredths(50)));
    for (i, (one, thin)) in same.as_chunks::<4>().0.iter().zip(half.as_chunks::<4>().0).enumerate() {
        let was = of(i as u32 % 6, i as u32 / 6);
        assert!(was[3] == 0 || *one == was, "{i}: {one:?} {was:?}");
        assert_eq!(u32::from(thin[3]), u32::from(was[3]).div_ceil(2), "{i}");
    }
    assert!(pixels.scaled(6, 4, Hundredths(0)).as_chunks::<4>().0.iter().all(|pixel| pixel[3] == 0));
}

#[test]
fn pngs_of_every_kind_are_read() {
    let write = |colour, bytes: &[u8]| {
        let mut out = Vec::new();
        PngEncoder::new(&mut out).write_image(bytes, 2, 1, colour).unwrap();
        LogoPixels::read(&out).unwrap().scaled(2, 1, Hundredths(100))
    };
    assert_eq!(write(ExtendedColorType::L8, &[0, 255]), [0, 0, 0, 255, 255, 255, 255, 255]);
    assert_eq!(write(ExtendedColorType::Rgb8, &[1, 2, 3, 4, 5, 6]), [1, 2, 3, 255, 4, 5, 6, 255]);
    assert_eq!(write(ExtendedColorType::La8, &[9, 255, 7, 255]), [9, 9, 9, 255, 7, 7, 7, 255]);
    let deep: Vec<u8> = [0xffffu16, 0, 0, 0xffff, 0, 0, 0xffff, 0xffff].iter().flat_map(|n| n.to_ne_bytes()).collect();
    assert_eq!(write(ExtendedColorType::Rgba16, &deep), [255, 0, 0, 255, 0, 0, 255, 255]);
}

#[test]
fn what_is_no_logo_is_refused_with_its_fix() {
    let good = png(40, 30, |x, y| [x as u8, y as u8, 3, (x * y) as u8]);
    assert_eq!(LogoPixels::read(&vec![0; PNG_BYTES_MAX + 1]).unwrap_err(), LogoError::TooLong(PNG_BYTES_MAX + 1));
    for other in [&b""[..], b"GIF89a", &[0xff, 0xd8, 0xff, 0xe0]] {
        assert_eq!(LogoPixels::read(other).unwrap_err(), LogoError::NoPng);
    }
    // Cut off anywhere it is no logo; behind the last pixel's bytes nothing is missed.
    for length in 8..good.len() - 20 {
        let error = LogoPixels::read(&good[..length]).unwrap_err();
        assert!(matches!(error, LogoError::Damaged(_)), "{length} of {}: {error}", good.len());
    }
    for side in [(SIDE_MAX + 1, 1), (1, SIDE_MAX + 1)] {
        let error = LogoPixels::read(&png(side.0, side.1, |_, _| [0; 4])).unwrap_err();
        assert_eq!(error, LogoError::TooLarge { width: side.0, height: side.1 });
    }
    assert!(LogoPixels::read(&png(SIDE_MAX, 3, |_, _| [0; 4])).is_ok());
}

/// A head that promises more than any machine has, and bytes that any change may spoil: words, never a panic.
#[test]
fn no_bytes_make_it_panic() {
    let good = png(23, 17, |x, y| [x as u8 * 3, y as u8 * 5, 90, 200]);
    let mut huge = good.clone();
    huge[16..24].copy_from_slice(&[0x7f, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff]);
    assert!(LogoPixels::read(&huge).is_err());
    // With a checksum that is right.
    let crc = crc32(&huge[12..29]);
    huge[29..33].copy_from_slice(&crc.to_be_bytes());
    let error = LogoPixels::read(&huge).unwrap_err();
    assert!(matches!(error, LogoError::TooLarge { .. } | LogoError::Damaged(_)), "{error}");
    let mut seed = 11u64;
    let mut random = |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % below
    };
    for _ in 0..2_000 {
        let mut bad = good.clone();
        for _ in 0..1 + random(4) {
            let at = random(bad.len());
            bad[at] = random(256) as u8;
        }
        bad.truncate(8 + random(bad.len()));
        drop(LogoPixels::read(&bad).map(|pixels| pixels.scaled(10, 10, Hundredths(80))));
    }
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

#[test]
fn numbers_have_two_decimals() {
    for (text, kept, written) in [("12.5", 1250, "12.5"), ("10", 1000, "10"), ("0.333", 33, "0.33"), ("7.00", 700, "7")]
    {
        let number: Hundredths = serde_json::from_str(text).unwrap();
        assert_eq!(number, Hundredths(kept));
        assert_eq!((serde_json::to_string(&number).unwrap().as_str(), text.parse()), (written, Ok(number)));
    }
    for wrong in ["-1", "1e300", "\"x\"", "null"] {
        assert!(serde_json::from_str::<Hundredths>(wrong).is_err(), "{wrong}");
    }
    assert!("NaN".parse::<Hundredths>().is_err() && "inf".parse::<Hundredths>().is_err());
}
