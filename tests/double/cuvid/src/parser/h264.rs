//! H.264 headers [AVC 7.3]: parameter sets, slice headers, picture order, field pairs.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::h264_sets::{Pps, Sps};
use super::syntax::{Coded, Field, Fill, Prior, Syntax, with_start_code};
use crate::abi::{self, CUVIDH264PICPARAMS, PicParams};
use crate::bits::{Bits, without_prevention};

/// Slice headers are shorter; the rest of a slice is not looked at.
const HEADER_BYTES_MAX: usize = 1024;

#[derive(Default)]
pub(crate) struct H264 {
    sps: BTreeMap<u32, (Vec<u8>, Arc<Sps>)>,
    pps: BTreeMap<u32, (Vec<u8>, Arc<Pps>)>,
    current: Option<Current>,
    order: Order,
    /// The field that waits for its second.
    first: Option<FirstField>,
    side: Vec<u8>,
    /// Payload of a picture timing message.
    timing: Option<Vec<u8>>,
    recovery: bool,
}

struct Current {
    header: Header,
    sps: Arc<Sps>,
    pps: Arc<Pps>,
    intra: bool,
}

#[derive(Clone, Debug, Default)]
struct Header {
    ref_idc: u8,
    idr: bool,
    slice_type: u32,
    pps: u32,
    frame_num: i64,
    field: bool,
    bottom: bool,
    idr_pic_id: u32,
    poc_lsb: i64,
    delta_bottom: i64,
    delta: [i64; 2],
    no_output_of_prior: bool,
    /// memory_management_control_operation 5: as if an IDR picture had come.
    forget_all: bool,
}

/// The parameter sets that a slice names.
type Sets = (Arc<Sps>, Arc<Pps>);

struct FirstField {
    header: Header,
    counts: [i64; 2],
}

/// Picture order count [AVC 8.2.1].
#[derive(Default)]
struct Order {
    msb: i64,
    lsb: i64,
    frame_num: i64,
    offset: i64,
}

impl Syntax for H264 {
    fn begins_next(&self, unit: &[u8]) -> bool {
        let Some(current) = &self.current else { return false };
        match unit.first().map(|byte| byte & 31) {
            Some(1 | 5) => self.header(unit, false).is_some_and(|(next, _)| next.differs(&current.header)),
            // [AVC 7.4.1.2.3]
            Some(6..=11 | 14..=18) => true,
            _ => false,
        }
    }

    fn take(&mut self, unit: &[u8]) -> bool {
        let Some((head, payload)) = unit.split_first() else { return false };
        match head & 31 {
            1 | 5 => return self.slice(unit),
            6 => self.messages(unit, payload),
            7 => {
                if let Some(sps) = Sps::read(payload) {
                    self.sps.insert(sps.id, (unit.to_vec(), Arc::new(sps)));
                }
            }
            8 => {
                if let Some(pps) = Pps::read(payload) {
                    self.pps.insert(pps.id, (unit.to_vec(), Arc::new(pps)));
                }
            }
            _ => {}
        }
        false
    }

    fn finish(&mut self) -> Option<Coded> {
        let Current { header, sps, pps, intra } = self.current.take()?;
        let side = std::mem::take(&mut self.side);
        let timing = self.timing.take().and_then(|payload| sps.pic_struct(&payload));
        let recovery = std::mem::take(&mut self.recovery);
        let first = self.first.take().filter(|first| header.pairs_with(&first.header));
        let counts = self.order.counts(&sps, &header, first.as_ref().map(|f| f.counts));
        let field = match (header.field, &first) {
            (false, _) => Field::Frame,
            (true, None) => Field::First { bottom: header.bottom },
            (true, Some(_)) => Field::Second { bottom: header.bottom },
        };
        let poc = match field {
            Field::First { bottom } => counts[usize::from(bottom)],
            _ => counts[0].min(counts[1]),
        };
        if let Field::First { .. } = field {
            self.first = Some(FirstField { header: header.clone(), counts });
        }
        let prior = match (header.idr && first.is_none(), header.no_output_of_prior, header.forget_all) {
            (true, true, _) => Prior::Discard,
            (true, false, _) | (false, _, true) => Prior::Show,
            _ => Prior::Wait,
        };
        let progressive = match timing {
            Some(0 | 7 | 8) => !header.field,
            _ => sps.frame_mbs_only,
        };
        let repeat = match timing {
            Some(5 | 6) => 1,
            Some(7) => 2,
            Some(8) => 4,
            _ => 0,
        };
        let top_first = first.as_ref().map_or_else(
            || if header.field { !header.bottom } else { counts[0] <= counts[1] },
            |first| !first.header.bottom,
        );
        Some(Coded {
            sequence: sps.sequence(),
            starts: header.idr || recovery || intra,
            prior,
            poc,
            field,
            progressive,
            top_first,
            repeat,
            reference: header.ref_idc != 0,
            intra,
            shown: true,
            side,
            fields: Box::new(Fields { header, sps, pps, counts }),
        })
    }

    fn parameter_sets(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (raw, _) in self.sps.values() {
            with_start_code(&mut out, raw);
        }
        for (raw, _) in self.pps.values() {
            with_start_code(&mut out, raw);
        }
        out
    }

    fn reset(&mut self) {
        let H264 { sps, pps, .. } = std::mem::take(self);
        *self = H264 { sps, pps, ..H264::default() };
    }
}

impl H264 {
    fn slice(&mut self, unit: &[u8]) -> bool {
        let Some((header, sets)) = self.header(unit, true) else {
            // A damaged header: the decoder may still make something of the rest of its picture.
            return self.current.is_some();
        };
        let intra = matches!(header.slice_type, 2 | 4);
        if let Some(current) = &mut self.current {
            current.intra &= intra;
        } else {
            let (sps, pps) = sets;
            self.current = Some(Current { header, sps, pps, intra });
        }
        true
    }

    /// `whole`: up to the marking of references; else what tells pictures apart.
    fn header(&self, unit: &[u8], whole: bool) -> Option<(Header, Sets)> {
        let (head, payload) = unit.split_first()?;
        let mut bits = Bits::of_nal(payload, HEADER_BYTES_MAX);
        let mut header = Header { ref_idc: head >> 5 & 3, idr: head & 31 == 5, ..Header::default() };
        bits.ue()?;
        header.slice_type = bits.ue_to(9)? % 5;
        header.pps = bits.ue_to(255)?;
        let pps = &self.pps.get(&header.pps)?.1;
        let sps = &self.sps.get(&pps.sps)?.1;
        if sps.separate_planes {
            bits.u(2)?;
        }
        header.frame_num = i64::from(bits.u(sps.log2_frame_num)?);
        if !sps.frame_mbs_only {
            header.field = bits.flag()?;
            header.bottom = header.field && bits.flag()?;
        }
        if header.idr {
            header.idr_pic_id = bits.ue_to(65535)?;
        }
        if sps.poc_type == 0 {
            header.poc_lsb = i64::from(bits.u(sps.log2_poc_lsb)?);
            if pps.pic_order_present && !header.field {
                header.delta_bottom = i64::from(bits.se()?);
            }
        } else if sps.poc_type == 1 && !sps.delta_always_zero {
            header.delta[0] = i64::from(bits.se()?);
            if pps.pic_order_present && !header.field {
                header.delta[1] = i64::from(bits.se()?);
            }
        }
        if whole && header.ref_idc != 0 {
            header.marking(&mut bits, sps, pps)?;
        }
        Some((header, (sps.clone(), pps.clone())))
    }

    /// Supplemental enhancement information [AVC 7.3.2.3].
    fn messages(&mut self, unit: &[u8], payload: &[u8]) {
        with_start_code(&mut self.side, unit);
        let body = without_prevention(payload);
        let mut rest = &body[..];
        while let (Some(kind), Some(size)) = (message_number(&mut rest), message_number(&mut rest)) {
            let Some((message, after)) = rest.split_at_checked(size) else { break };
            match kind {
                1 => self.timing = Some(message.to_vec()),
                6 => self.recovery = true,
                _ => {}
            }
            rest = after;
        }
    }
}

/// A message's type or size: bytes of 255, then the rest.
pub(crate) fn message_number(rest: &mut &[u8]) -> Option<usize> {
    let mut sum = 0;
    loop {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        sum += usize::from(*byte);
        if *byte != 255 {
            return Some(sum);
        }
    }
}

impl Header {
    /// [AVC 7.4.1.2.4]: a slice with this header belongs to another picture than `other`.
    fn differs(&self, other: &Header) -> bool {
        self.frame_num != other.frame_num
            || self.pps != other.pps
            || (self.field, self.bottom) != (other.field, other.bottom)
            || (self.ref_idc == 0) != (other.ref_idc == 0)
            || self.idr != other.idr
            || self.idr_pic_id != other.idr_pic_id
            || (self.poc_lsb, self.delta_bottom, self.delta) != (other.poc_lsb, other.delta_bottom, other.delta)
    }

    /// The second field of a complementary pair [AVC 3.30, 3.31].
    fn pairs_with(&self, first: &Header) -> bool {
        let opposite = self.field && first.field && self.bottom != first.bottom;
        let reference = self.ref_idc != 0;
        opposite
            && reference == (first.ref_idc != 0)
            && (!reference || (self.frame_num == first.frame_num && !self.idr && !self.forget_all))
    }

    /// From the slice type's own part to the marking of reference pictures [AVC 7.3.3].
    fn marking(&mut self, bits: &mut Bits, sps: &Sps, pps: &Pps) -> Option<()> {
        const P: u32 = 0;
        const B: u32 = 1;
        const SP: u32 = 3;
        if pps.redundant_pictures {
            bits.ue()?;
        }
        if self.slice_type == B {
            bits.flag()?;
        }
        let lists = match self.slice_type {
            P | SP => 1,
            B => 2,
            _ => 0,
        };
        let mut counts = pps.references;
        if lists > 0 && bits.flag()? {
            for count in counts.iter_mut().take(lists) {
                *count = bits.ue_to(31)? + 1;
            }
        }
        for _ in 0..lists {
            if bits.flag()? {
                // At most one change for each entry, and the end.
                for _ in 0..=66 {
                    if bits.ue_to(3)? == 3 {
                        break;
                    }
                    bits.ue()?;
                }
            }
        }
        if (pps.weighted && lists == 1) || (pps.weighted_bipred == 1 && lists == 2) {
            weights(bits, sps.chroma_format != 0 && !sps.separate_planes, &counts[..lists])?;
        }
        if self.idr {
            self.no_output_of_prior = bits.flag()?;
            bits.flag()?;
        } else if bits.flag()? {
            for _ in 0..=66 {
                let operation = bits.ue_to(6)?;
                match operation {
                    0 => break,
                    1 | 2 | 4 | 6 => {
                        bits.ue()?;
                    }
                    3 => {
                        bits.ue()?;
                        bits.ue()?;
                    }
                    _ => self.forget_all = true,
                }
            }
        }
        Some(())
    }
}

/// [AVC 7.3.3.2]: read over.
fn weights(bits: &mut Bits, chroma: bool, counts: &[u32]) -> Option<()> {
    bits.ue_to(7)?;
    if chroma {
        bits.ue_to(7)?;
    }
    for _ in 0..counts.iter().sum::<u32>() {
        for components in [1, 2].into_iter().take(1 + usize::from(chroma)) {
            if bits.flag()? {
                for _ in 0..components {
                    bits.se()?;
                    bits.se()?;
                }
            }
        }
    }
    Some(())
}

impl Order {
    /// Of the top and the bottom field. `first`: those of the first field, where this is the second.
    fn counts(&mut self, sps: &Sps, header: &Header, first: Option<[i64; 2]>) -> [i64; 2] {
        let mut counts = match sps.poc_type {
            0 => self.by_lsb(sps, header),
            1 => self.by_cycle(sps, header),
            _ => self.by_frame_num(sps, header),
        };
        if let Some(first) = first {
            counts[usize::from(!header.bottom)] = first[usize::from(!header.bottom)];
        }
        if header.forget_all {
            // [AVC 8.2.1]: what follows counts from this picture, which counts from 0.
            let least = if header.field { counts[usize::from(header.bottom)] } else { counts[0].min(counts[1]) };
            counts = counts.map(|count| count - least);
            let lsb = if header.bottom { 0 } else { counts[0] };
            *self = Order { msb: 0, lsb, frame_num: 0, offset: 0 };
        }
        counts
    }

    fn by_lsb(&mut self, sps: &Sps, header: &Header) -> [i64; 2] {
        if header.idr {
            (self.msb, self.lsb) = (0, 0);
        }
        let max = 1i64 << sps.log2_poc_lsb;
        let step = header.poc_lsb - self.lsb;
        let msb = if step <= -max / 2 {
            self.msb + max
        } else if step > max / 2 {
            self.msb - max
        } else {
            self.msb
        };
        if header.ref_idc != 0 {
            (self.msb, self.lsb) = (msb, header.poc_lsb);
        }
        let count = msb + header.poc_lsb;
        [count, count + header.delta_bottom]
    }

    fn by_cycle(&mut self, sps: &Sps, header: &Header) -> [i64; 2] {
        let offset = self.frame_offset(sps, header);
        let cycle = &sps.offsets;
        let mut frame = if cycle.is_empty() { 0 } else { offset + header.frame_num };
        if header.ref_idc == 0 && frame > 0 {
            frame -= 1;
        }
        let mut expected = 0;
        if frame > 0 {
            let length = i64::try_from(cycle.len()).unwrap_or(1);
            let whole: i64 = cycle.iter().sum();
            let within = usize::try_from((frame - 1) % length).unwrap_or(0);
            expected = (frame - 1) / length * whole + cycle.iter().take(within + 1).sum::<i64>();
        }
        if header.ref_idc == 0 {
            expected += sps.offset_non_ref;
        }
        if header.field {
            let count = expected + header.delta[0];
            return [count, count + sps.offset_top_to_bottom];
        }
        let top = expected + header.delta[0];
        [top, top + sps.offset_top_to_bottom + header.delta[1]]
    }

    fn by_frame_num(&mut self, sps: &Sps, header: &Header) -> [i64; 2] {
        let offset = self.frame_offset(sps, header);
        let count = match (header.idr, header.ref_idc) {
            (true, _) => 0,
            (false, 0) => 2 * (offset + header.frame_num) - 1,
            _ => 2 * (offset + header.frame_num),
        };
        [count, count]
    }

    fn frame_offset(&mut self, sps: &Sps, header: &Header) -> i64 {
        self.offset = match header.idr {
            true => 0,
            false if self.frame_num > header.frame_num => self.offset + (1 << sps.log2_frame_num),
            false => self.offset,
        };
        self.frame_num = header.frame_num;
        self.offset
    }
}

struct Fields {
    header: Header,
    sps: Arc<Sps>,
    pps: Arc<Pps>,
    counts: [i64; 2],
}

impl Fill for Fields {
    fn fill(&self, out: &mut PicParams) {
        let Fields { header, sps, pps, counts } = self;
        let mut fields = abi::zeroed::<CUVIDH264PICPARAMS>();
        fields.log2_max_frame_num_minus4 = abi::int(sps.log2_frame_num) - 4;
        fields.pic_order_cnt_type = abi::int(sps.poc_type);
        fields.log2_max_pic_order_cnt_lsb_minus4 = abi::int(sps.log2_poc_lsb.max(4)) - 4;
        fields.delta_pic_order_always_zero_flag = i32::from(sps.delta_always_zero);
        fields.frame_mbs_only_flag = i32::from(sps.frame_mbs_only);
        fields.direct_8x8_inference_flag = i32::from(sps.direct_8x8);
        fields.num_ref_frames = abi::int(sps.references);
        fields.bit_depth_luma_minus8 = sps.depth_minus8[0];
        fields.bit_depth_chroma_minus8 = sps.depth_minus8[1];
        fields.entropy_coding_mode_flag = i32::from(pps.cabac);
        fields.pic_order_present_flag = i32::from(pps.pic_order_present);
        fields.num_ref_idx_l0_active_minus1 = abi::int(pps.references[0]) - 1;
        fields.num_ref_idx_l1_active_minus1 = abi::int(pps.references[1]) - 1;
        fields.weighted_pred_flag = i32::from(pps.weighted);
        fields.weighted_bipred_idc = abi::int(pps.weighted_bipred);
        fields.redundant_pic_cnt_present_flag = i32::from(pps.redundant_pictures);
        fields.MbaffFrameFlag = i32::from(sps.mbaff && !header.field);
        fields.ref_pic_flag = i32::from(header.ref_idc != 0);
        fields.frame_num = abi::int(header.frame_num);
        fields.CurrFieldOrderCnt = counts.map(abi::int);
        out.CodecSpecific.h264 = fields;
    }
}
