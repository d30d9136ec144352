//! H.264: slices tell pictures apart [AVC 7.4.1.2.4], an IDR picture is where decoding can start.

use super::{Coding, OrderCount, Relation, Role, Timing};
use crate::bitstream::h264::slice::{self, Order};
use crate::bitstream::h264::sps::PictureOrder;
use crate::bitstream::h264::{ParameterSets, Slice, Structure, nal, nal_type, sei};
use crate::media::track::{Codec, VideoConfig};

#[derive(Debug, Default)]
pub(in crate::demux) struct H264 {
    sets: ParameterSets,
    order: OrderCount,
    /// Recovery point message of the next picture.
    recovery: Option<u16>,
}

impl Coding for H264 {
    type Slice = Slice;

    const CODEC: Codec = Codec::H264;
    const ANNEX_B: bool = true;
    const HEAD_BYTES: usize = slice::HEAD_BYTES;

    fn role(&self, piece: &[u8]) -> Option<Role> {
        let kind = piece.first()? & 31;
        Some(match kind {
            nal::SLICE | nal::PARTITION_A | nal::IDR => Role::Slice,
            nal::AUD => Role::Delimiter,
            nal::SEI..nal::AUD | 15..=18 => Role::Next { sure: true },
            // May also announce one more slice.
            nal::PREFIX => Role::Next { sure: false },
            _ => Role::Other,
        })
    }

    fn slice(&mut self, head: &[u8], complain: &mut dyn FnMut(&'static str)) -> Option<Slice> {
        // A changed SPS counts from an IDR picture on, whose header must be read with it.
        if let Err(why) = self.sets.settle(nal_type(head) == nal::IDR) {
            complain(why);
        }
        Slice::parse(head, &self.sets).map_err(complain).ok()
    }

    fn relation(&self, last: &Slice, next: &Slice) -> Relation {
        if !last.differs(next) {
            Relation::Same
        } else if last.pairs_with(next) {
            Relation::SecondField
        } else {
            Relation::Next
        }
    }

    fn is_frame(&self, slice: &Slice) -> bool {
        slice.picture.is_none_or(|picture| picture.structure == Structure::Frame)
    }

    fn continues(&self, early: &Slice, slice: &Slice) -> bool {
        slice.first_mb > 0 && !early.differs(slice)
    }

    fn take(&mut self, piece: &[u8]) -> Result<(), &'static str> {
        match nal_type(piece) {
            nal::SPS => self.sets.take_sps(piece),
            nal::PPS => self.sets.take_pps(piece),
            nal::SEI => {
                self.recovery = sei::recovery_point(piece).or(self.recovery);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn recovery(&mut self) -> Option<u16> {
        self.recovery.take()
    }

    fn is_random_access(&self, slice: &Slice) -> bool {
        slice.is_idr()
    }

    fn timing(&mut self, slice: &Slice) -> Option<Timing> {
        let (picture, (sps, _)) = slice.picture.zip(self.sets.of(slice.pps_id))?;
        let restart = picture.idr.is_some();
        // The other types of order leave their pictures at PTS = DTS.
        let count = match (picture.order, sps.order) {
            (Order::Lsb { lsb, delta_bottom }, PictureOrder::Lsb { bits }) => {
                let top = self.order.next(lsb, bits, restart, slice.reference);
                Some(top + i64::from(delta_bottom.min(0)))
            }
            _ => None,
        };
        // Counts go by fields.
        Some(Timing { count, per_frame: 2, restart, declared: sps.rate })
    }

    fn revision(&self, slice: &Slice) -> (u64, u8) {
        (self.sets.revision(), self.sets.of(slice.pps_id).map_or(u8::MAX, |(sps, _)| sps.id))
    }

    fn config(&self, slice: &Slice) -> Option<VideoConfig> {
        self.sets.config(slice.pps_id)
    }
}
