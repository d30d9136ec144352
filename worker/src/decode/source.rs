//! Where a channel's pictures come from: libav on the CPU, or NVDEC and the ladder's kernel.

use std::sync::Arc;

use crate::error::Error;
use crate::picture::Picture;
use crate::scale::Planes;
use crate::scale::device::Patience;
use crate::scale::marks::Marks;

use super::device;
#[cfg(feature = "software")]
use super::host;

/// One picture out of a decoder, in presentation order.
#[derive(Debug)]
pub(super) struct Decoded {
    pub picture: Picture,
    /// What was given with the access unit.
    pub tag: i64,
    /// Made of the second field.
    pub second: bool,
    pub damaged: bool,
}

/// What an access unit did to the decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    Good,
    Damaged,
    /// Nothing came out for too long: the decoder was opened anew.
    Reopened,
}

/// Takes each picture as soon as it is there.
pub(super) type Taker<'a> = &'a mut (dyn FnMut(Decoded) + 'a);

pub(super) enum Source {
    #[cfg(feature = "software")]
    Host(Box<host::Source>),
    Device(Box<device::Source>),
}

impl Source {
    /// Gives the pictures that this access unit, of frame `at`, completes.
    pub(super) fn push(
        &mut self,
        data: &[u8],
        (tag, at): (i64, i64),
        patience: &dyn Fn(usize) -> Patience,
        taker: Taker<'_>,
    ) -> Result<Health, Error> {
        match self {
            #[cfg(feature = "software")]
            Source::Host(source) => source.push(data, tag, taker).map_err(Error::from),
            Source::Device(source) => source.push(data, (tag, at), patience, taker).map_err(Error::from),
        }
    }

    /// End of media.
    pub(super) fn drain(&mut self, taker: Taker<'_>) -> Result<(), Error> {
        match self {
            #[cfg(feature = "software")]
            Source::Host(source) => source.drain(taker).map_err(Error::from),
            Source::Device(source) => source.drain(taker).map_err(Error::from),
        }
    }

    /// What lies over each rendition's picture from now on, where this source makes those.
    pub(super) fn mark(&mut self, marks: Option<&Arc<Marks>>) -> Result<(), Error> {
        match self {
            #[cfg(feature = "software")]
            Source::Host(_) => Ok(()),
            Source::Device(source) => source.ladder().mark(marks).map_err(Error::from),
        }
    }

    /// A picture of the host's where this source's pictures are; `None`: it is there already.
    pub(super) fn uploaded(&mut self, picture: &Planes<'_>) -> Result<Option<Picture>, Error> {
        match self {
            #[cfg(feature = "software")]
            Source::Host(_) => Ok(None),
            Source::Device(source) => {
                let scaled = source.ladder().upload(picture)?;
                Ok(Some(Picture::Device(Arc::new(scaled))))
            }
        }
    }
}

/// When a decoder that reported damage and gives no pictures is opened anew. Pure.
#[derive(Debug)]
pub(super) struct Barren {
    /// Units in a row that gave no picture although something was wrong with one of them.
    units: u32,
    max: u32,
    damaged: bool,
}

impl Barren {
    /// `max`: units without a picture that are borne.
    pub(super) fn new(max: u32) -> Barren {
        Barren { units: 0, max, damaged: false }
    }

    /// A unit went in. True: open the decoder anew.
    pub(super) fn pushed(&mut self, damaged: bool, pictures: usize) -> bool {
        if pictures > 0 {
            (self.units, self.damaged) = (0, false);
        } else {
            self.units += 1;
        }
        self.damaged |= damaged;
        let barren = self.damaged && self.units >= self.max;
        if barren {
            (self.units, self.damaged) = (0, false);
        }
        barren
    }
}
