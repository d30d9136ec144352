//! MPEG-2 video: sequence, group and picture headers begin a unit [MPEG2V 6.2.2], an I picture behind a sequence header
//! is where decoding can start.

use super::{Coding, OrderCount, Relation, Role, Timing};
use crate::bitstream::mpeg2video::picture::{self, HEAD_BYTES};
use crate::bitstream::mpeg2video::sequence;
use crate::bitstream::mpeg2video::{Display, Extension, Picture, Sequence, extension, extension_id, start};
use crate::media::track::{Codec, VideoConfig};

#[derive(Debug, Default)]
pub(in crate::demux) struct Mpeg2 {
    sequence: Option<Sequence>,
    extension: Option<Extension>,
    display: Option<Display>,
    /// A sequence header, and a group header, came since the last picture header.
    sequence_ahead: bool,
    group_ahead: bool,
    /// The last picture is a field.
    field: bool,
    /// Bits of temporal_reference continued within a group.
    order: OrderCount,
    /// Grows with every change of what `config` is made of.
    revision: u64,
}

#[derive(Clone, Copy, Debug)]
pub(in crate::demux) struct Slice {
    picture: Picture,
    /// Directly behind a sequence header, a group header.
    sequence: bool,
    group: bool,
}

impl Coding for Mpeg2 {
    type Slice = Slice;

    const CODEC: Codec = Codec::Mpeg2Video;
    const ANNEX_B: bool = false;
    const HEAD_BYTES: usize = HEAD_BYTES;

    fn role(&self, piece: &[u8]) -> Option<Role> {
        Some(match *piece.first()? {
            start::PICTURE => Role::Slice,
            start::SLICE_MIN..=start::SLICE_MAX => Role::More,
            start::SEQUENCE | start::GROUP => Role::Next { sure: true },
            _ => Role::Other,
        })
    }

    fn slice(&mut self, head: &[u8], complain: &mut dyn FnMut(&'static str)) -> Option<Slice> {
        let picture = Picture::parse(head).map_err(complain).ok()?;
        let (sequence, group) = (self.sequence_ahead, self.group_ahead);
        (self.sequence_ahead, self.group_ahead) = (false, false);
        Some(Slice { picture, sequence, group })
    }

    fn relation(&self, last: &Slice, next: &Slice) -> Relation {
        let same = last.picture.temporal_reference == next.picture.temporal_reference;
        if self.field && same && !next.sequence && !next.group { Relation::SecondField } else { Relation::Next }
    }

    fn is_frame(&self, _: &Slice) -> bool {
        !self.field
    }

    /// A picture header begins a picture or field.
    fn continues(&self, _: &Slice, _: &Slice) -> bool {
        false
    }

    fn take(&mut self, piece: &[u8]) -> Result<(), &'static str> {
        match (piece.first(), extension_id(piece)) {
            (Some(&start::SEQUENCE), _) => {
                let found = Sequence::parse(piece)?;
                self.sequence_ahead = true;
                // Extensions belong to the header that they follow; an equal one is followed by equal ones.
                if self.sequence.replace(found) != Some(found) {
                    (self.extension, self.display) = (None, None);
                    self.revision += 1;
                }
                Ok(())
            }
            (Some(&start::GROUP), _) => {
                self.group_ahead = true;
                Ok(())
            }
            (Some(&start::EXTENSION), Some(extension::SEQUENCE)) => {
                let found = Extension::parse(piece)?;
                self.revision += u64::from(self.extension.replace(found) != Some(found));
                Ok(())
            }
            (Some(&start::EXTENSION), Some(extension::DISPLAY)) => {
                let found = Display::parse(piece)?;
                self.revision += u64::from(self.display.replace(found) != Some(found));
                Ok(())
            }
            (Some(&start::EXTENSION), Some(extension::PICTURE_CODING)) => {
                self.field = picture::is_field(piece).ok_or("a picture coding extension that ends early")?;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn is_random_access(&self, slice: &Slice) -> bool {
        slice.sequence && slice.picture.is_intra()
    }

    fn timing(&mut self, slice: &Slice) -> Option<Timing> {
        let (sequence, extension) = (self.sequence?, self.extension?);
        let reference = !slice.picture.is_bidirectional();
        let count = self.order.next(slice.picture.temporal_reference, 10, slice.group, reference);
        let declared = sequence::rate(&sequence, &extension);
        Some(Timing { count: Some(count), per_frame: 1, restart: slice.group, declared })
    }

    fn revision(&self, _: &Slice) -> (u64, u8) {
        (self.revision, 0)
    }

    fn config(&self, _: &Slice) -> Option<VideoConfig> {
        sequence::config(&self.sequence?, &self.extension?, self.display.as_ref())
    }
}
