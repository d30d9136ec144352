//! A source picture at one rendition's size: the picture itself where the sizes agree, else scaled into a pooled one.

use crate::av::{Error, Frame};
use crate::picture::Pool;
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

    /// Never writes to `source`; where the sizes agree nothing is copied.
    pub(super) fn fit(&mut self, source: &Frame) -> Result<Fitted, Error> {
        if (source.width(), source.height()) == (self.width, self.height) {
            return Ok(Fitted { frame: source.share()?, pooled: false });
        }
        let shape = (source.width(), source.height(), source.chroma_is_centred());
        if self.scaler.as_ref().is_none_or(|(built, _)| *built != shape) {
            let siting = if shape.2 { Siting::Centre } else { Siting::Left };
            let [sw, sh, dw, dh] = [shape.0, shape.1, self.width, self.height].map(|side| side as usize);
            self.scaler = Some((shape, Scaler::new(sw, sh, dw, dh, siting)));
        }
        let mut slot = self.pool.slot()?;
        let (_, scaler) = self.scaler.as_mut().expect("built above");
        scaler.scale(&source.planes(), &mut slot.planes_mut());
        Ok(Fitted { frame: slot, pooled: true })
    }

    /// A picture from `fit` that is not needed any more.
    pub(super) fn put(&mut self, fitted: Fitted) {
        if fitted.pooled {
            self.pool.put(fitted.frame);
        }
    }
}
