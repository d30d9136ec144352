//! What the codecs of video differ in, for who splits their byte streams into access units.

use std::fmt::Debug;

use crate::media::grid::FrameRate;
use crate::media::track::{Codec, VideoConfig};

mod h264;
mod h265;
mod mpeg2;

pub(super) use h264::H264;
pub(super) use h265::H265;
pub(super) use mpeg2::Mpeg2;

/// A codec's view of the pieces between start codes; knows the headers in force.
pub(super) trait Coding: Debug + Default + Send {
    /// What tells a coded picture (frame or field) from the next: a slice's header, or the picture's own.
    type Slice: Copy + Debug + Send;

    const CODEC: Codec;
    /// Start codes are brought into the form of four bytes, and zeros before them taken out. Otherwise bytes stay as they
    /// came: zeros may be data.
    const ANNEX_B: bool;
    /// Bytes of a piece that hold all of a `Slice`.
    const HEAD_BYTES: usize;

    /// What a piece is, by its first bytes. `None`: more are needed.
    fn role(&self, piece: &[u8]) -> Option<Role>;

    /// Reads a piece of `Role::Slice`. What is wrong goes to `complain`; `None`: nothing can be said of it.
    fn slice(&mut self, head: &[u8], complain: &mut dyn FnMut(&'static str)) -> Option<Self::Slice>;

    /// `next` follows `last` in the stream.
    fn relation(&self, last: &Self::Slice, next: &Self::Slice) -> Relation;

    /// Of a whole frame: nothing but another unit follows its last slice.
    fn is_frame(&self, slice: &Self::Slice) -> bool;

    /// `slice` goes on with the picture of `early`, which was given out already.
    fn continues(&self, early: &Self::Slice, slice: &Self::Slice) -> bool;

    /// A piece has ended, undamaged: headers come into force.
    ///
    /// # Errors
    /// What does not hold; what was in force stays.
    fn take(&mut self, piece: &[u8]) -> Result<(), &'static str>;

    /// Frames from the picture that begins here until pictures are right, where the stream says so of it.
    fn recovery(&mut self) -> Option<u16> {
        None
    }

    /// Decoding can start with this unit, whose first slice `slice` is.
    fn is_random_access(&self, slice: &Self::Slice) -> bool;

    /// Once per unit, in decoding order. `None`: its headers have not come.
    fn timing(&mut self, slice: &Self::Slice) -> Option<Timing>;

    /// Changes where `config` may have.
    fn revision(&self, slice: &Self::Slice) -> (u64, u8);

    fn config(&self, slice: &Self::Slice) -> Option<VideoConfig>;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Of no use to decoders: left out.
    Delimiter,
    Slice,
    /// Part of the picture whose header came.
    More,
    /// Behind a picture it begins the next unit; `sure`: it cannot belong to a further slice or field of the same one.
    Next {
        sure: bool,
    },
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Relation {
    Same,
    /// Of the frame whose first field is before it.
    SecondField,
    Next,
}

/// What a unit's own headers say about its place in time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    /// Place in presentation order; comparable back to the last `restart`. `None`: not known, presentation is in decoding
    /// order.
    pub(super) count: Option<i64>,
    /// How much `count` grows from frame to frame.
    pub(super) per_frame: i64,
    /// Counts begin anew.
    pub(super) restart: bool,
    pub(super) declared: Option<FrameRate>,
}

/// A counter of which a picture carries the low bits, continued from reference picture to reference picture
/// [AVC 8.2.1.1], [HEVC 8.3.1].
#[derive(Clone, Copy, Debug, Default)]
struct OrderCount {
    msb: i64,
    lsb: i64,
}

impl OrderCount {
    /// `reference`: later pictures count from this one.
    fn next(&mut self, lsb: u32, bits: u32, restart: bool, reference: bool) -> i64 {
        if restart {
            *self = OrderCount::default();
        }
        let (lsb, max) = (i64::from(lsb), 1i64 << bits);
        let msb = if lsb < self.lsb && self.lsb - lsb >= max / 2 {
            self.msb + max
        } else if lsb > self.lsb && lsb - self.lsb > max / 2 {
            self.msb - max
        } else {
            self.msb
        };
        if reference {
            (self.msb, self.lsb) = (msb, lsb);
        }
        msb + lsb
    }
}

#[cfg(test)]
mod tests;
