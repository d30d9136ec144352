//! Purpose: decoded pictures as stages hand them on, and the pools that scaled ones are written to.
//! Time: none; N travels beside a picture.
//! Invariants: a picture that is shared is never written; sharing copies no pixel. Pixels cross between GPU and host in
//! `Planar::download` and `Ladder::upload` only.
//! When it fails: out of memory is an error of the room that the memory belongs to.

pub mod planar;
#[cfg(feature = "software")]
mod pool;

#[cfg(feature = "software")]
pub use pool::Pool;

#[cfg(feature = "software")]
use crate::av::Frame;
use crate::scale::device::Scaled;
#[cfg(feature = "software")]
use crate::scale::{Crop, marks::Marks};
use std::fmt;
use std::sync::Arc;

/// Pixels with their home. Clone = reference count.
#[derive(Clone)]
pub enum Picture {
    /// In this process' memory, planar 4:2:0 8 bit, at the source's size.
    #[cfg(feature = "software")]
    Host(Host),
    /// In device memory, cut, scaled to every rendition's size, and marked.
    Device(Arc<Scaled>),
}

/// A picture of the host's, and what each rendition makes of it.
#[cfg(feature = "software")]
#[derive(Clone)]
pub struct Host {
    pub frame: Arc<Frame>,
    /// What of it is shown; `None`: all.
    pub crop: Option<Crop>,
    /// What is shown over it.
    pub marks: Option<Arc<Marks>>,
}

#[cfg(feature = "software")]
impl Host {
    /// As it is.
    pub fn plain(frame: Frame) -> Host {
        Host { frame: Arc::new(frame), crop: None, marks: None }
    }
}

impl Picture {
    /// Whether rendition `i` can be made of it.
    pub fn has(&self, i: usize) -> bool {
        match self {
            #[cfg(feature = "software")]
            Picture::Host(_) => true,
            Picture::Device(scaled) => scaled.slot(i).is_some(),
        }
    }
}

impl fmt::Debug for Picture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            #[cfg(feature = "software")]
            Picture::Host(_) => "picture in host memory",
            Picture::Device(_) => "picture in device memory",
        })
    }
}
