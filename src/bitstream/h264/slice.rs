//! Slice headers up to what tells one picture from the next [AVC 7.3.3, 7.4.1.2.4].

use super::sets::ParameterSets;
use super::sps::{PictureOrder, Sps};
use super::{Pps, nal};
use crate::bitstream::bits::Bits;

/// Bytes of a NAL unit that hold every field read here, emulation prevention included.
pub const HEAD_BYTES: usize = 48;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Structure {
    Frame,
    TopField,
    BottomField,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    pub nal_type: u8,
    /// nal_ref_idc is not zero.
    pub reference: bool,
    pub first_mb: u32,
    /// 0 P, 1 B, 2 I, 3 SP, 4 SI.
    pub slice_type: u8,
    pub pps_id: u8,
    /// `None`: its parameter sets are not known, so the rest cannot be read.
    pub picture: Option<Picture>,
}

/// The fields that name a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Picture {
    pub frame_num: u32,
    pub structure: Structure,
    /// idr_pic_id of an IDR picture.
    pub idr: Option<u32>,
    pub order: Order,
    /// redundant_pic_cnt is not zero: a spare copy of part of the primary picture.
    pub redundant: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Lsb { lsb: u32, delta_bottom: i32 },
    Cycle { deltas: [i32; 2] },
    Decoding,
}

impl Slice {
    /// From the start of a slice NAL unit (types 1, 2, 5) with its header byte; `HEAD_BYTES` are enough.
    ///
    /// # Errors
    /// What does not hold.
    pub fn parse(unit: &[u8], sets: &ParameterSets) -> Result<Slice, &'static str> {
        let (&header, body) = unit.split_first().ok_or("an empty slice")?;
        let mut r = Bits::new(body);
        let head = |r: &mut Bits<'_>| Some((r.ue_max(1 << 21)?, r.ue_max(9)?, r.ue_max(255)?));
        let (first_mb, slice_type, pps_id) = head(&mut r).ok_or("a slice header that ends early")?;
        let mut slice = Slice {
            nal_type: header & 31,
            reference: header & 0x60 != 0,
            first_mb,
            slice_type: (slice_type % 5) as u8,
            pps_id: pps_id as u8,
            picture: None,
        };
        if let Some((sps, pps)) = sets.of(slice.pps_id) {
            let picture = read_picture(&mut r, slice.nal_type, sps, pps);
            slice.picture = Some(picture.ok_or("a slice header that ends early")?);
        }
        Ok(slice)
    }

    pub fn is_idr(&self) -> bool {
        self.nal_type == nal::IDR
    }

    /// Whether `next`, the following slice, belongs to another coded picture (frame or field) [AVC 7.4.1.2.4].
    pub fn differs(&self, next: &Slice) -> bool {
        let (Some(a), Some(b)) = (self.picture, next.picture) else {
            // Without parameter sets all that is known is where a picture usually starts.
            return next.first_mb == 0;
        };
        a.frame_num != b.frame_num
            || self.pps_id != next.pps_id
            || a.structure != b.structure
            || self.reference != next.reference
            || a.idr != b.idr
            || a.order != b.order
            // Not in the clause: after losses two pictures can look alike; macroblock 0 comes once per primary picture.
            || (next.first_mb == 0 && !b.redundant)
    }

    /// Whether `next` is the second field of the frame whose first field this is [AVC 3.30, 3.31].
    pub fn pairs_with(&self, next: &Slice) -> bool {
        let (Some(a), Some(b)) = (self.picture, next.picture) else { return false };
        let opposite = matches!(
            (a.structure, b.structure),
            (Structure::TopField, Structure::BottomField) | (Structure::BottomField, Structure::TopField)
        );
        // A field that nobody refers to does not advance frame_num, so the reference field of the next frame may
        // carry the same.
        opposite && a.frame_num == b.frame_num && b.idr.is_none() && (self.reference || !next.reference)
    }
}

fn read_picture(r: &mut Bits<'_>, nal_type: u8, sps: &Sps, pps: &Pps) -> Option<Picture> {
    if sps.separate_colour_planes {
        r.u(2)?;
    }
    let frame_num = r.u(sps.log2_max_frame_num)?;
    let mut structure = Structure::Frame;
    if !sps.frames_only && r.flag()? {
        structure = if r.flag()? { Structure::BottomField } else { Structure::TopField };
    }
    let idr = if nal_type == nal::IDR { Some(r.ue_max(65_535)?) } else { None };
    let bottom = pps.bottom_order_present && structure == Structure::Frame;
    let order = match sps.order {
        PictureOrder::Lsb { bits } => Order::Lsb { lsb: r.u(bits)?, delta_bottom: if bottom { r.se()? } else { 0 } },
        PictureOrder::Cycle { deltas_always_zero: false } => {
            Order::Cycle { deltas: [r.se()?, if bottom { r.se()? } else { 0 }] }
        }
        PictureOrder::Cycle { .. } => Order::Cycle { deltas: [0; 2] },
        PictureOrder::Decoding => Order::Decoding,
    };
    let redundant = pps.redundant_pictures_present && r.ue_max(127)? > 0;
    Some(Picture { frame_num, structure, idr, order, redundant })
}
