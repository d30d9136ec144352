//! HEVC headers [HEVC 7.3]: slice segment headers, picture order, leading pictures that can not be decoded.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::h265_sets::{Pps, Sps};
use super::syntax::{Coded, Field, Fill, Prior, Syntax, with_start_code};
use crate::abi::{self, CUVIDHEVCPICPARAMS, PicParams};
use crate::bits::Bits;

/// What is read of a slice segment header fits in.
const HEADER_BYTES_MAX: usize = 64;

#[derive(Default)]
pub(crate) struct H265 {
    vps: BTreeMap<u32, Vec<u8>>,
    sps: BTreeMap<u32, (Vec<u8>, Arc<Sps>)>,
    pps: BTreeMap<u32, (Vec<u8>, Arc<Pps>)>,
    current: Option<Current>,
    /// Picture order count of the last picture that others of its layer count from.
    previous: i64,
    /// An intra random access point has come since the start or the end of a sequence.
    started: bool,
    /// The last such point opened a sequence: leading pictures that refer to what came before it are lost.
    drop_leading: bool,
    side: Vec<u8>,
}

struct Current {
    header: Header,
    sps: Arc<Sps>,
    intra: bool,
}

#[derive(Clone, Debug)]
struct Header {
    kind: u8,
    temporal: u8,
    no_output_of_prior: bool,
    intra: bool,
    output: bool,
    poc_lsb: u32,
}

impl Header {
    /// Intra random access point.
    fn irap(&self) -> bool {
        (16..=23).contains(&self.kind)
    }

    fn idr(&self) -> bool {
        matches!(self.kind, 19 | 20)
    }

    /// Random access skipped leading.
    fn rasl(&self) -> bool {
        matches!(self.kind, 8 | 9)
    }

    fn leading(&self) -> bool {
        matches!(self.kind, 6..=9)
    }

    /// Not referred to within its temporal sub-layer.
    fn sub_layer_non_reference(&self) -> bool {
        self.kind < 16 && self.kind.is_multiple_of(2)
    }
}

impl Syntax for H265 {
    fn begins_next(&self, unit: &[u8]) -> bool {
        if self.current.is_none() || unit.len() < 3 {
            return false;
        }
        match unit[0] >> 1 & 63 {
            // first_slice_segment_in_pic_flag
            0..=31 => unit[2] & 0x80 != 0,
            // [HEVC 7.4.2.4.4]
            32..=37 | 39 | 41..=44 | 48..=55 => true,
            _ => false,
        }
    }

    fn take(&mut self, unit: &[u8]) -> bool {
        if unit.len() < 3 || unit[0] & 1 != 0 || unit[1] >> 3 != 0 {
            // Another layer.
            return false;
        }
        let payload = &unit[2..];
        match unit[0] >> 1 & 63 {
            0..=9 | 16..=21 => return self.slice(unit),
            32 => {
                self.vps.insert(u32::from(payload[0] >> 4), unit.to_vec());
            }
            33 => {
                if let Some(sps) = Sps::read(payload) {
                    self.sps.insert(sps.id, (unit.to_vec(), Arc::new(sps)));
                }
            }
            34 => {
                if let Some(pps) = Pps::read(payload) {
                    self.pps.insert(pps.id, (unit.to_vec(), Arc::new(pps)));
                }
            }
            // End of sequence, end of bitstream: the next random access point opens a sequence.
            36 | 37 => self.started = false,
            39 => with_start_code(&mut self.side, unit),
            _ => {}
        }
        false
    }

    fn finish(&mut self) -> Option<Coded> {
        let Current { header, sps, intra } = self.current.take()?;
        let side = std::mem::take(&mut self.side);
        let opens = header.irap() && (header.idr() || matches!(header.kind, 16..=18) || !self.started);
        if header.irap() {
            self.drop_leading = opens;
            self.started = true;
        }
        let poc = self.order(&sps, &header, opens);
        if header.rasl() && self.drop_leading {
            return None;
        }
        let prior = match (opens, header.no_output_of_prior) {
            (false, _) => Prior::Wait,
            (true, true) => Prior::Discard,
            (true, false) => Prior::Show,
        };
        Some(Coded {
            sequence: sps.sequence(),
            starts: header.irap(),
            prior,
            poc,
            field: Field::Frame,
            progressive: true,
            top_first: true,
            repeat: 0,
            reference: !header.sub_layer_non_reference(),
            intra,
            shown: header.output,
            side,
            fields: Box::new(Fields { header, sps, poc }),
        })
    }

    fn parameter_sets(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let (sps, pps) = (self.sps.values().map(|(raw, _)| raw), self.pps.values().map(|(raw, _)| raw));
        for raw in self.vps.values().chain(sps).chain(pps) {
            with_start_code(&mut out, raw);
        }
        out
    }

    fn reset(&mut self) {
        let H265 { vps, sps, pps, .. } = std::mem::take(self);
        *self = H265 { vps, sps, pps, ..H265::default() };
    }
}

impl H265 {
    fn slice(&mut self, unit: &[u8]) -> bool {
        let first = unit[2] & 0x80 != 0;
        if !first {
            // A later segment of the picture whose first one was understood.
            return self.current.is_some();
        }
        let Some((header, sps)) = self.header(unit) else { return false };
        let intra = header.intra;
        self.current = Some(Current { header, sps, intra });
        true
    }

    /// Of a picture's first slice segment [HEVC 7.3.6.1].
    fn header(&self, unit: &[u8]) -> Option<(Header, Arc<Sps>)> {
        let mut bits = Bits::of_nal(&unit[2..], HEADER_BYTES_MAX);
        let mut header = Header {
            kind: unit[0] >> 1 & 63,
            temporal: unit[1] & 7,
            no_output_of_prior: false,
            intra: false,
            output: true,
            poc_lsb: 0,
        };
        bits.flag()?;
        if header.irap() {
            header.no_output_of_prior = bits.flag()?;
        }
        let pps = &self.pps.get(&bits.ue_to(63)?)?.1;
        let sps = &self.sps.get(&pps.sps)?.1;
        bits.skip(pps.extra_bits as usize)?;
        header.intra = bits.ue_to(2)? == 2;
        if pps.output_flag {
            header.output = bits.flag()?;
        }
        if sps.separate_planes {
            bits.u(2)?;
        }
        if !header.idr() {
            header.poc_lsb = bits.u(sps.log2_poc_lsb)?;
        }
        Some((header, sps.clone()))
    }

    /// [HEVC 8.3.1]
    fn order(&mut self, sps: &Sps, header: &Header, opens: bool) -> i64 {
        let max = 1i64 << sps.log2_poc_lsb;
        let lsb = i64::from(header.poc_lsb);
        let before = self.previous.rem_euclid(max);
        let msb = if opens {
            0
        } else if lsb - before <= -max / 2 {
            self.previous - before + max
        } else if lsb - before > max / 2 {
            self.previous - before - max
        } else {
            self.previous - before
        };
        let poc = msb + lsb;
        if header.temporal <= 1 && !header.leading() && !header.sub_layer_non_reference() {
            self.previous = poc;
        }
        poc
    }
}

struct Fields {
    header: Header,
    sps: Arc<Sps>,
    poc: i64,
}

impl Fill for Fields {
    fn fill(&self, out: &mut PicParams) {
        let mut fields = abi::zeroed::<CUVIDHEVCPICPARAMS>();
        let [width, height] = self.sps.coded;
        fields.pic_width_in_luma_samples = abi::int(width);
        fields.pic_height_in_luma_samples = abi::int(height);
        fields.log2_max_pic_order_cnt_lsb_minus4 = self.sps.log2_poc_lsb as u8 - 4;
        fields.IrapPicFlag = u8::from(self.header.irap());
        fields.IdrPicFlag = u8::from(self.header.idr());
        fields.bit_depth_luma_minus8 = self.sps.depth_minus8[0];
        fields.bit_depth_chroma_minus8 = self.sps.depth_minus8[1];
        fields.CurrPicOrderCntVal = abi::int(self.poc);
        fields.RefPicIdx = [-1; 16];
        out.CodecSpecific.hevc = fields;
    }
}
