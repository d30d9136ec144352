//! The slate: black, or an image fitted into the source's picture, its shape kept, black beside it.

use rung::media::channel::Slate;
use rung::media::track::VideoConfig;

use crate::av::{Decoder, Error, Filter, Frame, Pushed};
use crate::scale::marks::is_bt709;
use crate::scale::{PlanesMut, SIDE_MAX, Scaler, Siting};

/// Of `size` columns and rows, in the range and colours of `source`.
///
/// # Errors
/// A sentence: the image cannot be read, or there is no memory for it.
pub(super) fn frame(slate: &Slate, source: &VideoConfig, size: (u32, u32)) -> Result<Frame, String> {
    let canvas = black(source, size).map_err(|e| e.to_string())?;
    match slate {
        // A file is the daemon's to read.
        Slate::Black | Slate::File(_) => Ok(canvas),
        Slate::Image(bytes) => Ok(fitted(&image(bytes, source)?, canvas, source.sar)),
    }
}

fn black(source: &VideoConfig, (width, height): (u32, u32)) -> Result<Frame, Error> {
    let mut frame = Frame::picture(width, height)?;
    let planes = frame.planes_mut();
    planes.y.fill(if source.colour.full_range { 0 } else { 16 });
    planes.u.fill(128);
    planes.v.fill(128);
    Ok(frame)
}

/// The image in 4:2:0 of the source's matrix and range.
fn image(bytes: &[u8], source: &VideoConfig) -> Result<Frame, String> {
    let unreadable = || "the slate is no PNG or JPEG image of at most 8192 rows and columns".to_owned();
    let mut decoder = Decoder::image(bytes).map_err(|e| e.to_string())?;
    if decoder.push(bytes, 0).map_err(|e| e.to_string())? == Pushed::Damaged {
        return Err(unreadable());
    }
    decoder.drain();
    let frame = decoder.pull().map_err(|e| e.to_string())?.ok_or_else(unreadable)?;
    if [frame.width(), frame.height()].iter().any(|side| *side == 0 || *side as usize > SIDE_MAX) {
        return Err(unreadable());
    }
    let mut convert =
        Filter::to_colours(&frame, is_bt709(source), source.colour.full_range).map_err(|e| e.to_string())?;
    convert.push(&frame).map_err(|e| e.to_string())?;
    convert.drain();
    Ok(convert.pull().map_err(|e| e.to_string())?.ok_or_else(unreadable)?.frame)
}

/// `image` in the middle of `canvas`, whose samples have the aspect `sar`.
fn fitted(image: &Frame, mut canvas: Frame, sar: (u32, u32)) -> Frame {
    let (width, height) = (canvas.width(), canvas.height());
    let squeeze = if sar.0 == 0 || sar.1 == 0 { 1.0 } else { f64::from(sar.0) / f64::from(sar.1) };
    let (iw, ih) = (f64::from(image.width()), f64::from(image.height()));
    let scale = (f64::from(width) * squeeze / iw).min(f64::from(height) / ih);
    let even = |size: f64, most: u32| (((size / 2.0).round() as u32) * 2).clamp(2.min(most), most);
    let (w, h) = (even(iw * scale / squeeze, width) as usize, even(ih * scale, height) as usize);
    // Chroma lies on even samples.
    let (x, y) = ((width as usize - w) / 4 * 2, (height as usize - h) / 4 * 2);
    let all = canvas.planes_mut();
    let mut part = PlanesMut {
        y: &mut all.y[y * all.stride_y + x..],
        u: &mut all.u[y / 2 * all.stride_u + x / 2..],
        v: &mut all.v[y / 2 * all.stride_v + x / 2..],
        stride_y: all.stride_y,
        stride_u: all.stride_u,
        stride_v: all.stride_v,
        width: w,
        height: h,
    };
    let (iw, ih) = (image.width() as usize, image.height() as usize);
    Scaler::new(iw, ih, w, h, Siting::Left).scale(&image.planes(), &mut part);
    canvas
}

#[cfg(test)]
mod tests {
    use super::*;
    use rung::media::track::{Codec, Colour};

    fn source(width: u32, height: u32, sar: (u32, u32), full_range: bool) -> VideoConfig {
        VideoConfig {
            codec: Codec::H264,
            width,
            height,
            sar,
            rate: None,
            interlaced: false,
            colour: Colour { primaries: 1, transfer: 1, matrix: 1, full_range },
            profile: [100, 0, 40],
            bit_depth: 8,
            chroma_format: 1,
            reorder: None,
            sps: bytes::Bytes::new(),
            pps: Vec::new(),
        }
    }

    /// A white picture in the middle of black: the first and last white column and row.
    fn white_in(source: &VideoConfig, image: (u32, u32)) -> [usize; 4] {
        let mut white = Frame::picture(image.0, image.1).unwrap();
        let planes = white.planes_mut();
        planes.y.fill(235);
        planes.u.fill(128);
        planes.v.fill(128);
        let canvas = fitted(&white, black(source, (source.width, source.height)).unwrap(), source.sar);
        let planes = canvas.planes();
        let lit = |x: usize, y: usize| planes.y[y * planes.stride_y + x] == 235;
        let (w, h) = (planes.width, planes.height);
        for (x, y) in (0..w).flat_map(|x| (0..h).map(move |y| (x, y))) {
            assert!(lit(x, y) || planes.y[y * planes.stride_y + x] == 16, "nothing between black and white");
        }
        let columns: Vec<usize> = (0..w).filter(|x| lit(*x, h / 2)).collect();
        let rows: Vec<usize> = (0..h).filter(|y| lit(w / 2, *y)).collect();
        [columns[0], columns[columns.len() - 1], rows[0], rows[rows.len() - 1]]
    }

    #[test]
    fn an_image_keeps_its_shape_between_bars() {
        assert_eq!(white_in(&source(320, 180, (1, 1), false), (640, 360)), [0, 319, 0, 179]);
        assert_eq!(white_in(&source(320, 180, (1, 1), false), (400, 400)), [70, 249, 0, 179]);
        assert_eq!(white_in(&source(320, 180, (1, 1), false), (400, 100)), [0, 319, 50, 129]);
        // Anamorphic samples, half as many columns: a square is half as many columns wide.
        assert_eq!(white_in(&source(160, 180, (2, 1), false), (50, 50)), [34, 123, 0, 179]);
        // Smaller images grow.
        assert_eq!(white_in(&source(320, 180, (1, 1), false), (16, 9)), [0, 319, 0, 179]);
    }

    #[test]
    fn black_is_black_in_either_range() {
        for (full_range, luma) in [(false, 16), (true, 0)] {
            let frame = frame(&Slate::Black, &source(64, 48, (1, 1), full_range), (64, 48)).unwrap();
            let planes = frame.planes();
            assert!(planes.y[..64].iter().all(|y| *y == luma) && planes.u[..32].iter().all(|u| *u == 128));
        }
    }

    #[test]
    fn what_is_no_image_is_refused_with_words() {
        for bytes in [&b"\x89PNG\r\n\x1a\nnothing"[..], &[0xff, 0xd8, 0xff, 0xe0, 0, 3, 9], b""] {
            let slate = Slate::Image(bytes::Bytes::copy_from_slice(bytes));
            let words = frame(&slate, &source(64, 48, (1, 1), false), (64, 48)).expect_err("refused");
            assert!(words.contains("slate"), "{words}");
        }
    }
}
