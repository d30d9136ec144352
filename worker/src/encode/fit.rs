//! A source picture at one rendition's size: the picture itself where the sizes agree and nothing is cut off or lies over
//! it, else scaled into a pooled one.

use crate::av::{Error, Frame};
use crate::picture::{Host, Pool};
use crate::scale::{Scaler, Siting};

pub(super) struct Fit {
    width: u32,
    height: u32,
    pool: Pool,
    /// Built for a source size and siting; built again when the source changes.
    scaler: Option<((u32, u32, bool), Scaler)>,
}

/// A picture of the rendition's size.
#[derive(Debug)]
pub(super) struct Fitted {
    pub frame: Frame,
    /// Scaled into a picture of the pool, not the source's own.
    pooled: bool,
}

impl Fitted {
    /// A picture that has the rendition's size already, and is not the pool's.
    pub(super) fn of(frame: Frame) -> Fitted {
        Fitted { frame, pooled: false }
    }
}

impl Fit {
    pub(super) fn new(width: u32, height: u32) -> Fit {
        Fit { width, height, pool: Pool::new(width, height), scaler: None }
    }

    /// For rendition `index`. Never writes to `source`; nothing is copied where it can be shown as it is.
    pub(super) fn fit(&mut self, source: &Host, index: usize) -> Result<Fitted, Error> {
        let Host { frame, crop, marks } = source;
        let mark = marks.as_ref().and_then(|marks| marks.over(index));
        let same = (frame.width(), frame.height()) == (self.width, self.height);
        if same && crop.is_none() && mark.is_none() {
            return Ok(Fitted { frame: frame.share()?, pooled: false });
        }
        let mut planes = frame.planes();
        if let Some(crop) = crop {
            planes = planes.cropped(*crop).expect("made for a picture of this size");
        }
        let shape = (planes.width as u32, planes.height as u32, frame.chroma_is_centred());
        if self.scaler.as_ref().is_none_or(|(built, _)| *built != shape) {
            let siting = if shape.2 { Siting::Centre } else { Siting::Left };
            let [sw, sh, dw, dh] = [shape.0, shape.1, self.width, self.height].map(|side| side as usize);
            self.scaler = Some((shape, Scaler::new(sw, sh, dw, dh, siting)));
        }
        let mut slot = self.pool.slot()?;
        let (_, scaler) = self.scaler.as_mut().expect("built above");
        scaler.scale(&planes, &mut slot.planes_mut());
        if let Some(mark) = mark {
            mark.overlay.blend(&mut slot.planes_mut(), mark.x, mark.y).expect("made for a picture of this size");
        }
        Ok(Fitted { frame: slot, pooled: true })
    }

    /// A picture from `fit` that is not needed any more.
    pub(super) fn put(&mut self, fitted: Fitted) {
        if fitted.pooled {
            self.pool.put(fitted.frame);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scale::marks::{Canvases, Marks};
    use crate::scale::overlay::{Matrix, Range};
    use crate::scale::{Crop, Form, PlanesMut};
    use std::sync::Arc;

    const SOURCE: (usize, usize) = (322, 182);

    /// No two places of it are alike.
    fn source() -> Frame {
        let mut frame = Frame::picture(SOURCE.0 as u32, SOURCE.1 as u32).unwrap();
        let planes = frame.planes_mut();
        for (factor, plane) in [(7, planes.y), (11, planes.u), (13, planes.v)] {
            plane.iter_mut().enumerate().for_each(|(i, sample)| *sample = (i * factor % 251) as u8);
        }
        frame
    }

    fn rows(planes: &crate::scale::Planes<'_>) -> [Vec<u8>; 3] {
        let (w, h) = (planes.width, planes.height);
        let take = |plane: &[u8], stride: usize, w: usize, h: usize| {
            plane.chunks(stride).take(h).flat_map(|row| row[..w].to_vec()).collect()
        };
        let (cw, ch) = (w.div_ceil(2), h.div_ceil(2));
        [
            take(planes.y, planes.stride_y, w, h),
            take(planes.u, planes.stride_u, cw, ch),
            take(planes.v, planes.stride_v, cw, ch),
        ]
    }

    /// The specification's words: what lies inside the crop, scaled by the scalar form, and the logo blended over it.
    fn by_the_book(frame: &Frame, crop: Option<Crop>, marks: Option<&Marks>, (w, h): (usize, usize)) -> [Vec<u8>; 3] {
        let whole = Crop { x: 0, y: 0, width: SOURCE.0, height: SOURCE.1 };
        let planes = frame.planes().cropped(crop.unwrap_or(whole)).unwrap();
        let (mut y, mut u, mut v) = (vec![0; w * h], vec![0; w * h / 4], vec![0; w * h / 4]);
        let mut out = PlanesMut {
            y: &mut y,
            u: &mut u,
            v: &mut v,
            stride_y: w,
            stride_u: w / 2,
            stride_v: w / 2,
            width: w,
            height: h,
        };
        Scaler::with_form(planes.width, planes.height, w, h, Siting::Left, Form::Scalar).scale(&planes, &mut out);
        if let Some(mark) = marks.and_then(|marks| marks.over(0)) {
            mark.overlay.blend(&mut out, mark.x, mark.y).unwrap();
        }
        [y, u, v]
    }

    fn marks(size: (usize, usize)) -> Arc<Marks> {
        let rgba: Vec<u8> = (0..40 * 20u32).flat_map(|i| [i as u8, (i * 3) as u8, 200, (i * 7) as u8]).collect();
        let canvases = Canvases::one((size.0 as u32, size.1 as u32), Matrix::Bt709, Range::Narrow);
        Arc::new(Marks::of_pixels(&rgba, (40, 20), &canvases))
    }

    #[test]
    fn a_cut_and_marked_picture_is_the_specifications_and_the_source_stays_as_it_was() {
        let source = Arc::new(source());
        let before = rows(&source.planes());
        let crop = Some(Crop { x: 4, y: 6, width: 300, height: 160 });
        for size in [SOURCE, (300, 160), (150, 86), (400, 226)] {
            let some = Some(marks(size));
            for (crop, marks) in [(None, None), (crop, None), (None, some.clone()), (crop, some)] {
                let host = Host { frame: Arc::clone(&source), crop, marks: marks.clone() };
                let mut fit = Fit::new(size.0 as u32, size.1 as u32);
                let copied = size != SOURCE || crop.is_some() || marks.is_some();
                // Twice: the second one goes into a picture that was used before.
                for _ in 0..2 {
                    let fitted = fit.fit(&host, 0).unwrap();
                    assert_eq!(fitted.pooled, copied, "{size:?} {crop:?}");
                    let expected = by_the_book(&source, crop, marks.as_deref(), size);
                    assert!(rows(&fitted.frame.planes()) == expected, "{size:?} {crop:?} {marks:?}");
                    fit.put(fitted);
                }
                assert!(rows(&source.planes()) == before, "the source is another rendition's, too");
            }
        }
    }
}
