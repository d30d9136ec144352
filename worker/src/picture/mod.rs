//! Purpose: decoded pictures as stages hand them on, and the pool that scaled ones are written to.
//! Time: none; N travels beside a picture.
//! Invariants: a picture that is shared is never written; sharing copies no pixel.
//! When it fails: out of memory is an `av::Error`.

mod pool;

pub use pool::Pool;

use crate::av::Frame;
use std::sync::Arc;

/// Pixels with their home. Clone = reference count.
#[derive(Clone, Debug)]
pub enum Picture {
    /// In this process' memory, planar 4:2:0 8 bit.
    Host(Arc<Frame>),
}

impl Picture {
    /// Black in narrow-range BT.601/709: what is shown when there is nothing to hold.
    pub fn black(width: u32, height: u32) -> Result<Picture, crate::av::Error> {
        let mut frame = Frame::picture(width, height)?;
        let planes = frame.planes_mut();
        planes.y.fill(16);
        planes.u.fill(128);
        planes.v.fill(128);
        Ok(Picture::Host(Arc::new(frame)))
    }
}
