//! MPEG-2 video headers [MPEG-2 6.2]: sequence, picture, their extensions. MPEG-1 streams are not decoded.

use super::syntax::{Coded, Field, Fill, Prior, Sequence, Syntax, aspect, rate, with_start_code};
use crate::abi::{self, CUVIDMPEG2PICPARAMS, Format, PicParams};
use crate::bits::Bits;

const PICTURE: u8 = 0x00;
const USER_DATA: u8 = 0xB2;
const SEQUENCE: u8 = 0xB3;
const EXTENSION: u8 = 0xB5;
const GROUP: u8 = 0xB8;
const I: u32 = 1;
const B: u32 = 3;

#[derive(Default)]
pub(crate) struct Mpeg2 {
    sequence: Option<Headers>,
    /// Sequence header and its extensions, with start codes.
    sets: Vec<u8>,
    /// What came last was a sequence header or one of its extensions.
    in_sequence: bool,
    picture: Option<Picture>,
    slices: bool,
    first: Option<Picture>,
    side: Vec<u8>,
    /// Picture order made from the order in which pictures come.
    last_reference: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Headers {
    size: [u32; 2],
    aspect_code: u32,
    rate_code: u32,
    bitrate: u32,
    extension: Option<Extension>,
    colour: Option<[u32; 3]>,
    video_format: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Extension {
    progressive: bool,
    chroma_format: u32,
    low_delay: bool,
    rate: (u32, u32),
}

#[derive(Clone, Debug, Default)]
struct Picture {
    kind: u32,
    codes: [[u32; 2]; 2],
    dc_precision: u32,
    /// 1 top field, 2 bottom field, 3 frame.
    structure: u32,
    top_first: bool,
    frame_dct: bool,
    concealment: bool,
    q_scale: bool,
    intra_vlc: bool,
    alternate_scan: bool,
    repeat_first: bool,
    progressive: bool,
    coded: bool,
}

impl Syntax for Mpeg2 {
    fn begins_next(&self, unit: &[u8]) -> bool {
        self.slices && unit.first().is_some_and(|code| !(1..=0xAF).contains(code))
    }

    fn take(&mut self, unit: &[u8]) -> bool {
        let Some((code, payload)) = unit.split_first() else { return false };
        let mut bits = Bits::plain(payload);
        match *code {
            SEQUENCE => {
                if let Some(headers) = Headers::read(&mut bits) {
                    self.sequence = Some(headers);
                    self.sets.clear();
                    with_start_code(&mut self.sets, unit);
                    self.in_sequence = true;
                }
            }
            EXTENSION if self.in_sequence => {
                if let Some(headers) = &mut self.sequence {
                    headers.extend(&mut bits);
                }
                with_start_code(&mut self.sets, unit);
            }
            EXTENSION => {
                if let Some(picture) = &mut self.picture {
                    picture.extend(&mut bits);
                }
                with_start_code(&mut self.side, unit);
            }
            PICTURE => {
                self.in_sequence = false;
                self.picture = Picture::read(&mut bits);
                with_start_code(&mut self.side, unit);
            }
            GROUP => {
                self.in_sequence = false;
                with_start_code(&mut self.side, unit);
            }
            1..=0xAF => {
                self.slices |= self.picture.is_some() && self.sequence.is_some();
                return self.slices;
            }
            USER_DATA => {}
            _ => self.in_sequence = false,
        }
        false
    }

    fn finish(&mut self) -> Option<Coded> {
        let side = std::mem::take(&mut self.side);
        self.slices = false;
        let picture = self.picture.take()?;
        let sequence = self.sequence.as_ref()?.sequence()?;
        if !picture.coded {
            return None;
        }
        let opposite = |first: &Picture| picture.structure < 3 && first.structure + picture.structure == 3;
        let first = self.first.take().filter(|first| opposite(first) && (first.kind == B) == (picture.kind == B));
        let bottom = picture.structure == 2;
        let field = match (picture.structure, &first) {
            (3, _) => Field::Frame,
            (_, None) => Field::First { bottom },
            (_, Some(_)) => Field::Second { bottom },
        };
        if matches!(field, Field::First { .. }) {
            self.first = Some(picture.clone());
        }
        // A picture that others refer to is shown when the next such one comes, those between at once.
        let reference = picture.kind != B;
        if reference && first.is_none() {
            self.last_reference += 2;
        }
        let top_first = match (&first, field) {
            (Some(first), _) => first.structure == 1,
            (None, Field::First { .. }) => !bottom,
            _ => picture.top_first,
        };
        Some(Coded {
            starts: picture.kind == I,
            prior: Prior::Wait,
            poc: self.last_reference - i64::from(!reference),
            field,
            progressive: picture.progressive && picture.structure == 3,
            top_first,
            repeat: picture.repeat(sequence.format.progressive_sequence == 1),
            reference,
            intra: picture.kind == I,
            shown: true,
            side,
            sequence,
            fields: Box::new(picture),
        })
    }

    fn parameter_sets(&self) -> Vec<u8> {
        self.sets.clone()
    }

    fn reset(&mut self) {
        let Mpeg2 { sequence, sets, .. } = std::mem::take(self);
        *self = Mpeg2 { sequence, sets, ..Mpeg2::default() };
    }
}

impl Headers {
    fn read(bits: &mut Bits) -> Option<Headers> {
        let size = [bits.u(12)?, bits.u(12)?];
        let (aspect_code, rate_code, bitrate) = (bits.u(4)?, bits.u(4)?, bits.u(18)?);
        Some(Headers { size, aspect_code, rate_code, bitrate, extension: None, colour: None, video_format: 5 })
    }

    fn extend(&mut self, bits: &mut Bits) -> Option<()> {
        match bits.u(4)? {
            1 => {
                bits.u(8)?;
                let (progressive, chroma_format) = (bits.flag()?, bits.u(2)?);
                let high = [bits.u(2)?, bits.u(2)?];
                self.size = [self.size[0] & 0xFFF | high[0] << 12, self.size[1] & 0xFFF | high[1] << 12];
                self.bitrate = self.bitrate & 0x3_FFFF | bits.u(12)? << 18;
                bits.u(9)?;
                let low_delay = bits.flag()?;
                let rate = (bits.u(2)?, bits.u(5)?);
                self.extension = Some(Extension { progressive, chroma_format, low_delay, rate });
            }
            2 => {
                self.video_format = bits.u(3)?;
                if bits.flag()? {
                    self.colour = Some([bits.u(8)?, bits.u(8)?, bits.u(8)?]);
                }
            }
            _ => {}
        }
        Some(())
    }

    fn sequence(&self) -> Option<Sequence> {
        let extension = self.extension.as_ref()?;
        let [width, height] = self.size;
        if width == 0 || height == 0 {
            return None;
        }
        // [MPEG-2 6.3.3]: a field has whole macroblocks too.
        let rows = if extension.progressive { 16 } else { 32 };
        let (numerator, denominator) = match self.rate_code {
            1 => (24000, 1001),
            2 => (24, 1),
            3 => (25, 1),
            4 => (30000, 1001),
            5 => (30, 1),
            6 => (50, 1),
            7 => (60000, 1001),
            8 => (60, 1),
            _ => (0, 1),
        };
        let colour = self.colour.unwrap_or([2; 3]);
        let format = Format {
            codec: abi::MPEG2,
            frame_rate: rate(
                numerator * u64::from(extension.rate.0 + 1),
                denominator * u64::from(extension.rate.1 + 1),
            ),
            progressive_sequence: u8::from(extension.progressive),
            // Two references, the picture being decoded, and one that waits to be shown.
            min_num_decode_surfaces: 4,
            coded_width: width.next_multiple_of(16),
            coded_height: height.next_multiple_of(rows),
            display_area: [0, 0, abi::int(width), abi::int(height)],
            chroma_format: extension.chroma_format,
            bitrate: self.bitrate.saturating_mul(400),
            display_aspect_ratio: match self.aspect_code {
                2 => [4, 3],
                3 => [16, 9],
                4 => [221, 100],
                _ => aspect((1, 1), width, height),
            },
            signal: self.video_format as u8 & 7,
            color_primaries: colour[0] as u8,
            transfer_characteristics: colour[1] as u8,
            matrix_coefficients: colour[2] as u8,
            ..Format::default()
        };
        Some(Sequence { format, reorder: usize::from(!extension.low_delay), references: 2 })
    }
}

impl Picture {
    fn read(bits: &mut Bits) -> Option<Picture> {
        bits.u(10)?;
        let kind = bits.u(3)?;
        (1..=3).contains(&kind).then(|| Picture { kind, ..Picture::default() })
    }

    fn extend(&mut self, bits: &mut Bits) -> Option<()> {
        if bits.u(4)? != 8 {
            return Some(());
        }
        for codes in &mut self.codes {
            *codes = [bits.u(4)?, bits.u(4)?];
        }
        self.dc_precision = bits.u(2)?;
        self.structure = bits.u(2)?;
        self.top_first = bits.flag()?;
        self.frame_dct = bits.flag()?;
        self.concealment = bits.flag()?;
        self.q_scale = bits.flag()?;
        self.intra_vlc = bits.flag()?;
        self.alternate_scan = bits.flag()?;
        self.repeat_first = bits.flag()?;
        bits.flag()?;
        self.progressive = bits.flag()?;
        self.coded = self.structure != 0;
        Some(())
    }

    /// [MPEG-2 6.3.10] repeat_first_field.
    fn repeat(&self, progressive_sequence: bool) -> i32 {
        match (self.repeat_first, progressive_sequence, self.top_first) {
            (false, ..) => 0,
            (true, false, _) => 1,
            (true, true, false) => 2,
            (true, true, true) => 4,
        }
    }
}

impl Fill for Picture {
    fn fill(&self, out: &mut PicParams) {
        let mut fields = abi::zeroed::<CUVIDMPEG2PICPARAMS>();
        (fields.ForwardRefIdx, fields.BackwardRefIdx) = (-1, -1);
        fields.picture_coding_type = abi::int(self.kind);
        fields.f_code = self.codes.map(|codes| codes.map(abi::int));
        fields.intra_dc_precision = abi::int(self.dc_precision);
        fields.frame_pred_frame_dct = i32::from(self.frame_dct);
        fields.concealment_motion_vectors = i32::from(self.concealment);
        fields.q_scale_type = i32::from(self.q_scale);
        fields.intra_vlc_format = i32::from(self.intra_vlc);
        fields.alternate_scan = i32::from(self.alternate_scan);
        fields.top_field_first = i32::from(self.top_first);
        out.CodecSpecific.mpeg2 = fields;
    }
}
