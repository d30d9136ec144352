//! A decoder: surfaces that pictures are decoded into, and device memory that they are mapped to.

use crate::abi::{self, Caps, CreateInfo, Format, PicParams, ProcParams, ReconfigureInfo, Status};
use crate::av::{Codec, Frame, Picture};
use crate::cuda::Cuda;
use crate::side::{self, Side};
use crate::surface::{self, Deinterlace, Layout};
use crate::{DOUBLE, caps};

pub(crate) struct Decoder {
    cuda: Cuda,
    /// The parser in whose sequence callback this was created.
    pub(crate) parser: Option<usize>,
    codec: u32,
    depth_minus8: u64,
    chroma_format: u32,
    size: [usize; 2],
    size_max: [usize; 2],
    deinterlace: u32,
    view: View,
    surfaces: Vec<Option<Surface>>,
    outputs: Vec<Output>,
    libav: Codec,
    /// Number of the parameter sets that libavcodec knows.
    sets: u64,
    /// The frame mapped last, and the one mapped before that: what an adaptive deinterlacer compares.
    shown: [Option<Frame>; 2],
}

/// The part of a picture that is mapped.
#[derive(Clone, Copy)]
struct View {
    from: [usize; 2],
    layout: Layout,
}

struct Surface {
    /// `None`: nothing ever came of the stream.
    picture: Option<Picture>,
    status: u32,
}

/// Device memory for one mapped frame.
struct Output {
    at: u64,
    /// The surface that is mapped here.
    mapped: Option<usize>,
}

impl Decoder {
    /// cuvidCreateDecoder.
    ///
    /// # Errors
    /// NOT_SUPPORTED for what the card can not decode; INVALID_VALUE, with a broken contract, for what no card takes;
    /// what libcuda answers where there is no room.
    pub(crate) fn create(cuda: Cuda, info: &CreateInfo) -> Result<Decoder, Status> {
        let call = "cuvidCreateDecoder";
        let mut caps = Caps::asked(info.codec, info.chroma_format, u32::try_from(info.bit_depth_minus8).unwrap_or(99));
        caps::fill(&mut caps);
        if caps.is_supported == 0 {
            return Err(abi::NOT_SUPPORTED);
        }
        let size = [info.width, info.height].map(|side| usize::try_from(side).unwrap_or(usize::MAX));
        let fits = |size: [usize; 2]| {
            size[0] >= usize::from(caps.min_width)
                && size[1] >= usize::from(caps.min_height)
                && size[0] <= caps.max_width as usize
                && size[1] <= caps.max_height as usize
                && size[0].div_ceil(16) * size[1].div_ceil(16) <= caps.max_mb_count as usize
        };
        if !fits(size) {
            return Err(abi::NOT_SUPPORTED);
        }
        let size_max = match [info.max_width, info.max_height].map(|side| usize::try_from(side).unwrap_or(usize::MAX)) {
            [0, 0] => size,
            size_max if !fits(size_max) => return Err(abi::NOT_SUPPORTED),
            size_max => size_max,
        };
        check(
            call,
            size[0] <= size_max[0] && size[1] <= size_max[1],
            "ulWidth or ulHeight over ulMaxWidth or ulMaxHeight",
        )?;
        let surfaces = info.num_decode_surfaces;
        check(
            call,
            (1..=abi::DECODE_SURFACES_MAX).contains(&surfaces),
            &format!("{surfaces} decode surfaces: 1 to 32 are possible"),
        )?;
        check(call, info.num_output_surfaces >= 1, "no output surface")?;
        check(call, info.num_output_surfaces <= 64, "more than 64 output surfaces")?;
        check(call, info.deinterlace_mode <= abi::ADAPTIVE, "a deinterlace mode that does not exist")?;
        check(call, info.enable_histogram == 0, "a histogram, which the double does not make")?;
        let formats = 1 << info.output_format.min(15) & caps.output_format_mask;
        if formats == 0 {
            DOUBLE.broken(&format!("{call}: an output format that nOutputFormatMask does not name"));
            return Err(abi::NOT_SUPPORTED);
        }
        let target = [info.target_width, info.target_height].map(|side| usize::try_from(side).unwrap_or(0));
        let view = View::of(call, size, info.display_area, target, info.target_rect, info.output_format)?;
        let libav = Codec::open(info.codec).ok_or(abi::OUT_OF_MEMORY)?;
        let mut decoder = Decoder {
            cuda,
            parser: side::InSequence::current().map(|(parser, _)| parser),
            codec: info.codec,
            depth_minus8: info.bit_depth_minus8,
            chroma_format: info.chroma_format,
            size,
            size_max,
            deinterlace: info.deinterlace_mode,
            view,
            surfaces: (0..surfaces).map(|_| None).collect(),
            outputs: Vec::new(),
            libav,
            sets: 0,
            shown: [None, None],
        };
        decoder.make_outputs(info.num_output_surfaces as usize)?;
        DOUBLE.count("live decoders", 1);
        DOUBLE.count("decoders created", 1);
        Ok(decoder)
    }

    fn make_outputs(&mut self, count: usize) -> Result<(), Status> {
        for _ in 0..count {
            match self.cuda.alloc(self.view.layout.bytes()) {
                Ok(at) => self.outputs.push(Output { at, mapped: None }),
                Err(status) => {
                    self.free_outputs();
                    return Err(status);
                }
            }
        }
        Ok(())
    }

    /// The first failure.
    fn free_outputs(&mut self) -> Status {
        let mut first = abi::SUCCESS;
        for output in self.outputs.drain(..) {
            if let Err(status) = self.cuda.free(output.at)
                && first == abi::SUCCESS
            {
                first = status;
            }
        }
        first
    }

    /// cuvidDestroyDecoder.
    pub(crate) fn destroy(mut self) -> Status {
        let mapped = self.mapped();
        if mapped > 0 {
            DOUBLE.broken(&format!("cuvidDestroyDecoder: {mapped} frames are still mapped"));
            DOUBLE.count("live mapped frames", -(mapped as i64));
        }
        DOUBLE.count("live decoders", -1);
        self.free_outputs()
    }

    fn mapped(&self) -> usize {
        self.outputs.iter().filter(|output| output.mapped.is_some()).count()
    }

    /// cuvidReconfigureDecoder: another size, nothing else.
    ///
    /// # Errors
    /// INVALID_VALUE, with a broken contract.
    pub(crate) fn reconfigure(&mut self, info: &ReconfigureInfo, told: &Format) -> Result<(), Status> {
        let call = "cuvidReconfigureDecoder";
        let size = [info.ulWidth as usize, info.ulHeight as usize];
        check(
            call,
            size[0] <= self.size_max[0] && size[1] <= self.size_max[1],
            &format!("{}x{} over the {}x{} of the creation", size[0], size[1], self.size_max[0], self.size_max[1]),
        )?;
        let same = told.codec == self.codec
            && u64::from(told.bit_depth_luma_minus8) == self.depth_minus8
            && told.chroma_format == self.chroma_format;
        check(call, same, "another codec, bit depth or chroma format needs another decoder")?;
        check(call, self.mapped() == 0, "frames are still mapped")?;
        let surfaces = u64::from(info.ulNumDecodeSurfaces);
        check(
            call,
            (1..=abi::DECODE_SURFACES_MAX).contains(&surfaces),
            &format!("{surfaces} decode surfaces: 1 to 32 are possible"),
        )?;
        let area = [info.display_area.left, info.display_area.top, info.display_area.right, info.display_area.bottom];
        let rect = [info.target_rect.left, info.target_rect.top, info.target_rect.right, info.target_rect.bottom];
        let target = [info.ulTargetWidth as usize, info.ulTargetHeight as usize];
        let output_format = if self.view.layout.wide { abi::P016 } else { abi::NV12 };
        let view = View::of(call, size, area, target, rect, output_format)?;
        (self.size, self.view) = (size, view);
        self.surfaces = (0..surfaces).map(|_| None).collect();
        self.shown = [None, None];
        let outputs = self.outputs.len();
        if self.free_outputs() != abi::SUCCESS {
            return Err(abi::INVALID_CONTEXT);
        }
        self.make_outputs(outputs)?;
        DOUBLE.count("decoders reconfigured", 1);
        Ok(())
    }

    /// cuvidDecodePicture. `slices`: the bytes that the parameters point to.
    ///
    /// # Errors
    /// INVALID_VALUE, with a broken contract.
    pub(crate) fn decode(&mut self, params: &PicParams, slices: &[u8], side: &Side) -> Result<(), Status> {
        let call = "cuvidDecodePicture";
        let index = self.surface_index(call, params.CurrPicIdx)?;
        check(call, side.codec == self.codec, "a picture of another codec than the decoder's")?;
        if let Some(parser) = self.parser {
            check(call, side.parser == parser, "a picture of another parser than the decoder was created for")?;
        }
        let coded = [params.PicWidthInMbs, params.FrameHeightInMbs].map(|mbs| usize::try_from(mbs).unwrap_or(0));
        check(
            call,
            coded == self.size.map(|side| side.div_ceil(16)),
            &format!(
                "a picture of {}x{} macroblocks in a decoder for {}x{}",
                coded[0], coded[1], self.size[0], self.size[1]
            ),
        )?;
        if params.second_field == 0 && self.outputs.iter().any(|output| output.mapped == Some(index)) {
            DOUBLE.broken(&format!("{call}: surface {index} is still mapped, and another picture goes into it"));
        }
        let mut data = Vec::new();
        if side.sets.number != self.sets {
            data.extend_from_slice(&side.sets.bytes);
            self.sets = side.sets.number;
        }
        data.extend_from_slice(&side.before);
        data.extend_from_slice(slices);
        let decoded = self.libav.decode(&data);
        let picture = decoded.picture.filter(|picture| self.takes(&picture.frame));
        let before = self.surfaces[index].take().filter(|_| params.second_field != 0);
        let hurt = decoded.failed || decoded.references_missing;
        self.surfaces[index] = Some(match (picture, before) {
            (Some(picture), _) => {
                let status = self.libav.status(&picture, hurt);
                Surface { picture: Some(picture), status }
            }
            // A second field that is lost leaves its rows as they are.
            (None, Some(first)) if decoded.failed => Surface { status: abi::STATUS_ERROR, ..first },
            (None, Some(first)) => {
                let noted =
                    first.picture.as_ref().map_or(abi::STATUS_ERROR, |picture| self.libav.status(picture, hurt));
                Surface { status: noted.max(first.status), ..first }
            }
            // Nothing came of it: what was shown last is shown again.
            (None, None) => Surface { picture: self.stand_in(), status: abi::STATUS_ERROR },
        });
        DOUBLE.count("pictures decoded", 1);
        Ok(())
    }

    /// The test decides what came of a picture.
    pub(crate) fn mark(&mut self, index: i32, status: u32) {
        let surface =
            usize::try_from(index).ok().and_then(|index| self.surfaces.get_mut(index)).and_then(Option::as_mut);
        if let Some(surface) = surface {
            surface.status = status;
        }
    }

    fn takes(&self, frame: &Frame) -> bool {
        let depth = self.depth_minus8 + 8;
        let [width, height] = frame.size();
        let [left, top] = self.view.from;
        frame.samples().is_some_and(|samples| u64::from(samples.depth) == depth)
            && left + self.view.layout.width <= width
            && top + self.view.layout.height <= height
    }

    fn stand_in(&self) -> Option<Picture> {
        self.shown[0].as_ref().and_then(Frame::clone_reference).map(Picture::alone)
    }

    fn surface_index(&self, call: &str, index: i32) -> Result<usize, Status> {
        let found = usize::try_from(index).ok().filter(|index| *index < self.surfaces.len());
        found.ok_or_else(|| {
            DOUBLE.broken(&format!("{call}: picture index {index} of {} surfaces", self.surfaces.len()));
            abi::INVALID_VALUE
        })
    }

    /// cuvidGetDecodeStatus.
    ///
    /// # Errors
    /// NOT_SUPPORTED but for H.264 and HEVC.
    pub(crate) fn status(&self, index: i32) -> Result<u32, Status> {
        if !matches!(self.codec, abi::H264 | abi::HEVC) {
            return Err(abi::NOT_SUPPORTED);
        }
        let index = self.surface_index("cuvidGetDecodeStatus", index)?;
        Ok(self.surfaces[index].as_ref().map_or(abi::STATUS_INVALID, |surface| surface.status))
    }

    /// cuvidMapVideoFrame64: device address and pitch.
    ///
    /// # Errors
    /// INVALID_VALUE or MAP_FAILED, with a broken contract; what libcuda answers to the copy.
    pub(crate) fn map(&mut self, index: i32, how: &ProcParams) -> Result<(u64, u32), Status> {
        let call = "cuvidMapVideoFrame64";
        let index = self.surface_index(call, index)?;
        let Some(free) = self.outputs.iter().position(|output| output.mapped.is_none()) else {
            DOUBLE.broken(&format!("{call}: all {} output surfaces are mapped", self.outputs.len()));
            return Err(abi::MAP_FAILED);
        };
        check(
            call,
            how.raw_input_dptr == 0 && how.raw_output_dptr == 0,
            "raw input or output, which the double lacks",
        )?;
        let Some(surface) = &self.surfaces[index] else {
            DOUBLE.broken(&format!("{call}: nothing was decoded into surface {index}"));
            return Err(abi::INVALID_VALUE);
        };
        let fields = Deinterlace {
            mode: self.deinterlace,
            progressive: how.progressive_frame != 0,
            top_first: how.top_field_first != 0,
            second: how.second_field != 0,
            unpaired: how.unpaired_field != 0,
        };
        let bytes = match surface.picture.as_ref().map(|picture| picture.frame.clone_reference()) {
            Some(frame) => self.render(&frame.ok_or(abi::OUT_OF_MEMORY)?, fields),
            None => surface::black(self.view.layout),
        };
        let output = &mut self.outputs[free];
        self.cuda.upload(output.at, &bytes, how.output_stream.addr())?;
        output.mapped = Some(index);
        DOUBLE.count("live mapped frames", 1);
        DOUBLE.count("frames mapped", 1);
        Ok((output.at, self.view.layout.pitch() as u32))
    }

    fn render(&mut self, frame: &Frame, fields: Deinterlace) -> Vec<u8> {
        if self.shown[0].as_ref().is_none_or(|last| !last.same_as(frame)) {
            self.shown.swap(0, 1);
            self.shown[0] = frame.clone_reference();
        }
        surface::render(frame, self.shown[1].as_ref(), self.view.from, self.view.layout, fields)
    }

    /// cuvidUnmapVideoFrame64.
    ///
    /// # Errors
    /// INVALID_VALUE, with a broken contract: it is not mapped.
    pub(crate) fn unmap(&mut self, at: u64) -> Result<(), Status> {
        let Some(output) = self.outputs.iter_mut().find(|output| output.at == at && output.mapped.is_some()) else {
            DOUBLE.broken("cuvidUnmapVideoFrame64: an address that is not mapped");
            return Err(abi::INVALID_VALUE);
        };
        output.mapped = None;
        DOUBLE.count("live mapped frames", -1);
        if DOUBLE.number("cuvid.spoil", 0) == 1 {
            self.cuda.upload(at, &vec![0xA5; self.view.layout.bytes()], 0)?;
        }
        Ok(())
    }
}

impl View {
    /// # Errors
    /// INVALID_VALUE, with a broken contract.
    fn of(
        call: &str,
        size: [usize; 2],
        area: [i16; 4],
        target: [usize; 2],
        rect: [i16; 4],
        output_format: u32,
    ) -> Result<View, Status> {
        let [left, top, right, bottom] = match area {
            [0, 0, 0, 0] => [0, 0, size[0], size[1]],
            area => area.map(|side| usize::try_from(side).unwrap_or(usize::MAX)),
        };
        check(
            call,
            left < right && top < bottom && right <= size[0] && bottom <= size[1],
            &format!("display area {area:?} in pictures of {}x{}", size[0], size[1]),
        )?;
        let shown = [right - left, bottom - top];
        check(call, target == shown, &format!("scaling from {shown:?} to {target:?}, which the double does not do"))?;
        let whole = [0, 0, target[0], target[1]].map(|side| i16::try_from(side).unwrap_or(i16::MAX));
        check(call, rect == [0; 4] || rect == whole, "a target rectangle within the target, which the double lacks")?;
        let layout = Layout { width: target[0], height: target[1], wide: output_format == abi::P016 };
        Ok(View { from: [left, top], layout })
    }
}

impl Caps {
    fn asked(codec: u32, chroma_format: u32, bit_depth_minus8: u32) -> Caps {
        Caps { codec, chroma_format, bit_depth_minus8, ..Caps::default() }
    }
}

fn check(call: &str, holds: bool, what: &str) -> Result<(), Status> {
    if holds {
        return Ok(());
    }
    DOUBLE.broken(&format!("{call}: {what}"));
    Err(abi::INVALID_VALUE)
}
