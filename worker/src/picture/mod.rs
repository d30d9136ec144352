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
