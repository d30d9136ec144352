//! H.265: a picture's first slice segment says so [HEVC 7.4.2.4.5], any IRAP picture is where decoding can start. Of
//! several layers the base layer is taken.

use super::{Coding, OrderCount, Relation, Role, Timing};
use crate::bitstream::h265::{self, ParameterSets, Slice, header, nal, slice};
use crate::media::track::{Codec, VideoConfig};

#[derive(Debug, Default)]
pub(in crate::demux) struct H265 {
    sets: ParameterSets,
    order: OrderCount,
}

impl Coding for H265 {
    type Slice = Slice;

    const CODEC: Codec = Codec::H265;
    const ANNEX_B: bool = true;
    const HEAD_BYTES: usize = slice::HEAD_BYTES;

    fn role(&self, piece: &[u8]) -> Option<Role> {
        let (kind, layer) = header(piece)?;
        Some(match kind {
            _ if layer > 0 => Role::Other,
            nal::AUD => Role::Delimiter,
            0..nal::VCL_END if is_slice(kind) => Role::Slice,
            kind if h265::begins_access_unit(kind) => Role::Next { sure: true },
            _ => Role::Other,
        })
    }

    fn slice(&mut self, head: &[u8], complain: &mut dyn FnMut(&'static str)) -> Option<Slice> {
        // A changed SPS counts from a random access point on, whose header must be read with it.
        let irap = header(head).is_some_and(|(kind, _)| h265::is_irap(kind));
        if let Err(why) = self.sets.settle(irap) {
            complain(why);
        }
        Slice::parse(head, &self.sets).map_err(complain).ok()
    }

    fn relation(&self, last: &Slice, next: &Slice) -> Relation {
        if last.differs(next) { Relation::Next } else { Relation::Same }
    }

    /// Fields, where they are coded at all, are units of their own.
    fn is_frame(&self, _: &Slice) -> bool {
        true
    }

    fn continues(&self, early: &Slice, slice: &Slice) -> bool {
        !early.differs(slice)
    }

    fn take(&mut self, piece: &[u8]) -> Result<(), &'static str> {
        match header(piece) {
            Some((nal::VPS, 0)) => self.sets.take_vps(piece),
            Some((nal::SPS, 0)) => self.sets.take_sps(piece),
            Some((nal::PPS, 0)) => self.sets.take_pps(piece),
            _ => Ok(()),
        }
    }

    fn is_random_access(&self, slice: &Slice) -> bool {
        h265::is_irap(slice.nal_type)
    }

    fn timing(&mut self, slice: &Slice) -> Option<Timing> {
        let (sps, _) = self.sets.of(slice.pps_id)?;
        let restart = h265::is_idr(slice.nal_type);
        // A dependent segment at the front: the beginning of its picture was lost, and nothing can decode the rest.
        let count = self.order.next(slice.order?, sps.order_bits, restart, slice.anchors_order());
        Some(Timing { count: Some(count), per_frame: 1, restart, declared: sps.rate })
    }

    fn revision(&self, slice: &Slice) -> (u64, u8) {
        (self.sets.revision(), self.sets.of(slice.pps_id).map_or(u8::MAX, |(sps, _)| sps.id))
    }

    fn config(&self, slice: &Slice) -> Option<VideoConfig> {
        self.sets.config(slice.pps_id)
    }
}

/// Slice segments; the other types below 32 are reserved, and decoders leave them out.
fn is_slice(kind: u8) -> bool {
    matches!(kind, 0..=9 | nal::BLA_W_LP..=nal::CRA)
}
