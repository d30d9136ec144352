//! The video parser: packets in; sequence, decode and display callbacks out, all from within one call.
//!
//! Purpose: cut a stream into pictures, read their headers, give each a surface, put them in display order.
//! Time: a time stamp is passed through with the picture that begins in its packet, as it was given. A picture without
//! one gets the time at which the picture shown before it ends (duration of a frame from the stream's frame rate and
//! `ulClockRate`, a 30th of a second where the stream says none; half of that for each field).
//! Invariants: a surface is not given out again while its picture waits for display or may be referred to.
//! When it fails: a picture whose headers make no sense is passed over without a callback; a callback's failure is the
//! result of the call, and the rest of the packet is read all the same.
//!
//! The order of display follows what NVIDIA publishes of this parser's relatives: a picture is shown as soon as more
//! wait than `max_num_reorder_frames` (H.264), `sps_max_num_reorder_pics` (HEVC) or one (MPEG-2, none with `low_delay`)
//! says. **An H.264 stream whose parameter set does not say waits for all that its level allows**, unless its picture
//! order type is 2. `ulMaxDisplayDelay` more wait after that.
#![expect(unsafe_code, reason = "calls the callbacks of the driver's interface")]

mod av1;
mod h264;
mod h264_sets;
mod h265;
mod h265_sets;
mod mpeg2;
mod order;
mod syntax;
mod units;

use std::collections::VecDeque;
use std::ffi::c_void;

use crate::DOUBLE;
use crate::abi::{self, DataPacket, DispInfo, ParserParams, PicParams, Status};
use crate::side::{self, Side};
use order::{Entry, Order};
use syntax::{Coded, Field, Prior, Sequence, Syntax};
use units::Units;

/// Of so many pictures the side data are kept, counted from the newest: a caller may decode that much later.
const SIDES_MAX: usize = 64;

const KNOWN_FLAGS: u64 =
    abi::PKT_ENDOFSTREAM | abi::PKT_TIMESTAMP | abi::PKT_DISCONTINUITY | abi::PKT_ENDOFPICTURE | abi::PKT_NOTIFY_EOS;

pub(crate) struct Parser {
    id: usize,
    callbacks: Callbacks,
    codec: u32,
    clock: u64,
    delay: usize,
    syntax: Box<dyn Syntax>,
    units: Units,
    slices: Slices,
    order: Order,
    /// Pictures whose turn came, that `ulMaxDisplayDelay` holds back.
    queue: VecDeque<DispInfo>,
    sequence: Option<Sequence>,
    surfaces: usize,
    /// A picture came with which decoding could begin.
    started: bool,
    /// The sequence callback failed: nothing is decoded before another sequence comes.
    refused: bool,
    sides: VecDeque<u64>,
    sets: side::Sets,
    /// Frames begun, and access unit delimiters met, in the current packet.
    frames: u32,
    delimiters: u32,
    outcome: Status,
}

struct Callbacks {
    user: usize,
    sequence: abi::SequenceCallback,
    decode: abi::DecodeCallback,
    display: abi::DisplayCallback,
}

/// Slice data of the picture that is being gathered.
#[derive(Default)]
struct Slices {
    data: Vec<u8>,
    offsets: Vec<u32>,
    at: u64,
}

impl Parser {
    /// # Errors
    /// NOT_SUPPORTED for a codec that no double of this library reads; INVALID_VALUE for parameters that make no sense.
    pub(crate) fn new(id: usize, params: &ParserParams, before: &[u8]) -> Result<Parser, Status> {
        let syntax: Box<dyn Syntax> = match params.codec {
            abi::H264 => Box::new(h264::H264::default()),
            abi::HEVC => Box::new(h265::H265::default()),
            abi::MPEG2 => Box::new(mpeg2::Mpeg2::default()),
            abi::AV1 => Box::new(av1::Av1::default()),
            _ => return Err(abi::NOT_SUPPORTED),
        };
        if params.error_threshold > 100 {
            DOUBLE.broken("cuvidCreateVideoParser: ulErrorThreshold is a percentage");
            return Err(abi::INVALID_VALUE);
        }
        if params.sequence.is_none() || params.decode.is_none() {
            DOUBLE.broken("cuvidCreateVideoParser: no sequence or no decode callback");
            return Err(abi::INVALID_VALUE);
        }
        let mut parser = Parser {
            id,
            callbacks: Callbacks {
                user: params.user_data.addr(),
                sequence: params.sequence,
                decode: params.decode,
                display: params.display,
            },
            codec: params.codec,
            clock: if params.clock_rate == 0 { 10_000_000 } else { u64::from(params.clock_rate) },
            delay: params.max_display_delay as usize,
            syntax,
            units: Units::default(),
            slices: Slices::default(),
            order: Order::default(),
            queue: VecDeque::new(),
            sequence: None,
            surfaces: params.max_num_decode_surfaces as usize,
            started: false,
            refused: false,
            sides: VecDeque::new(),
            sets: side::Sets::default(),
            frames: 0,
            delimiters: 0,
            outcome: abi::SUCCESS,
        };
        parser.bytes(before);
        Ok(parser)
    }

    /// cuvidParseVideoData. `payload` is the packet's.
    pub(crate) fn parse(&mut self, packet: &DataPacket, payload: &[u8]) -> Status {
        let flags = packet.flags;
        let ends_stream = flags & abi::PKT_ENDOFSTREAM != 0;
        if flags & !KNOWN_FLAGS != 0 {
            DOUBLE.broken("cuvidParseVideoData: a packet flag that does not exist");
            return abi::INVALID_VALUE;
        }
        if flags & abi::PKT_NOTIFY_EOS != 0 && !ends_stream {
            DOUBLE.broken("cuvidParseVideoData: CUVID_PKT_NOTIFY_EOS without CUVID_PKT_ENDOFSTREAM");
        }
        if payload.is_empty() && !ends_stream {
            DOUBLE.broken("cuvidParseVideoData: an empty packet that is not the end of the stream");
            return abi::INVALID_VALUE;
        }
        self.outcome = abi::SUCCESS;
        (self.frames, self.delimiters) = (0, 0);
        if flags & abi::PKT_TIMESTAMP != 0 {
            self.order.stamp(self.units.end(), packet.timestamp, flags & abi::PKT_DISCONTINUITY != 0);
        }
        self.bytes(payload);
        if flags & abi::PKT_ENDOFPICTURE != 0 || ends_stream {
            self.end_unit();
            self.end_picture();
        }
        // Damage can make two frames of one, but no delimiters.
        if flags & abi::PKT_ENDOFPICTURE != 0 && self.frames > 1 && self.delimiters > 1 {
            DOUBLE.broken("cuvidParseVideoData: CUVID_PKT_ENDOFPICTURE on a packet with more than one frame");
        }
        if ends_stream {
            self.end_stream(flags & abi::PKT_NOTIFY_EOS != 0);
        }
        self.outcome
    }

    fn bytes(&mut self, bytes: &[u8]) {
        if !self.syntax.has_start_codes() {
            for unit in av1::temporal_units(bytes).into_iter().filter(|unit| !unit.is_empty()) {
                let at = self.units.end();
                self.units.push(unit);
                self.units.finish();
                self.unit(at, unit);
            }
            return;
        }
        self.units.push(bytes);
        while let Some((at, unit)) = self.units.next_whole() {
            self.unit(at, &unit);
        }
        if self.units.partial().is_some_and(|begin| self.syntax.begins_next(begin)) {
            self.end_picture();
        }
    }

    fn end_unit(&mut self) {
        if let Some((at, unit)) = self.units.finish() {
            self.unit(at, &unit);
        }
    }

    fn unit(&mut self, at: u64, unit: &[u8]) {
        if self.syntax.begins_next(unit) {
            self.end_picture();
        }
        let delimiter = match self.codec {
            abi::H264 => unit.first().is_some_and(|head| head & 31 == 9),
            abi::HEVC => unit.first().is_some_and(|head| head >> 1 & 63 == 35),
            _ => false,
        };
        self.delimiters += u32::from(delimiter);
        if self.syntax.take(unit) {
            if self.slices.data.is_empty() {
                self.slices.at = at;
            }
            self.slices.offsets.push(u32::try_from(self.slices.data.len()).unwrap_or(u32::MAX));
            if self.syntax.has_start_codes() {
                syntax::with_start_code(&mut self.slices.data, unit);
            } else {
                self.slices.data.extend_from_slice(unit);
            }
        }
    }

    fn end_picture(&mut self) {
        let slices = std::mem::take(&mut self.slices);
        if slices.data.is_empty() {
            return;
        }
        let Some(coded) = self.syntax.finish() else { return };
        self.started |= coded.starts;
        if !self.started {
            return;
        }
        let index = if matches!(coded.field, Field::Second { .. }) {
            // The first field may have been passed over.
            let Some(index) = self.order.half() else { return };
            index
        } else {
            self.frames += 1;
            match self.begin_frame(&coded) {
                Some(index) => index,
                None => return,
            }
        };
        self.order.insert(index, &coded, slices.at);
        self.decode(index, &coded, slices);
        self.show(coded.sequence.reorder);
    }

    /// What goes before a frame is decoded: others are shown, the caller is told of a new sequence, a surface is found.
    fn begin_frame(&mut self, coded: &Coded) -> Option<usize> {
        self.order.close_half();
        let depth = self.sequence.as_ref().map_or(0, |sequence| sequence.reorder);
        self.show(depth);
        let changed = self.sequence.as_ref() != Some(&coded.sequence);
        match coded.prior {
            Prior::Discard => self.order.discard(),
            Prior::Show => self.show(0),
            Prior::Wait => {}
        }
        if coded.prior != Prior::Wait && self.codec != abi::AV1 {
            self.order.forget_references();
        }
        if changed {
            self.show(0);
            self.show_queue(0);
            self.begin_sequence(coded.sequence.clone());
        }
        if self.refused {
            self.outcome = abi::UNKNOWN;
            return None;
        }
        let queue = &self.queue;
        let index =
            self.order.allocate(&|index| queue.iter().any(|shown| usize::try_from(shown.picture_index) == Ok(index)));
        if index.is_none() {
            DOUBLE.broken(&format!(
                "pfnSequenceCallback: {} decode surfaces are too few, a picture is lost",
                self.surfaces
            ));
        }
        index
    }

    fn begin_sequence(&mut self, sequence: Sequence) {
        let mut format = sequence.format;
        let answer = {
            let _inside = side::InSequence::enter(self.id, format);
            let user = std::ptr::with_exposed_provenance_mut::<c_void>(self.callbacks.user);
            let Some(callback) = self.callbacks.sequence else { return };
            // SAFETY: the caller's function with the caller's pointer, and a structure that lives through the call.
            unsafe { callback(user, &raw mut format) }
        };
        self.refused = answer < 1;
        if answer > 1 {
            self.surfaces = answer.unsigned_abs() as usize;
        }
        let least = usize::from(sequence.format.min_num_decode_surfaces);
        if !self.refused && self.surfaces < least {
            DOUBLE.broken(&format!("pfnSequenceCallback: {} decode surfaces, the stream needs {least}", self.surfaces));
        }
        self.order.begin(self.surfaces, &sequence, self.clock);
        self.sequence = Some(sequence);
    }

    fn decode(&mut self, index: usize, coded: &Coded, slices: Slices) {
        let mut params = abi::zeroed::<PicParams>();
        let format = &coded.sequence.format;
        params.PicWidthInMbs = abi::int(format.coded_width.div_ceil(16));
        params.FrameHeightInMbs = abi::int(format.coded_height.div_ceil(16));
        params.CurrPicIdx = abi::int(index as u32);
        let (field, bottom, second) = match coded.field {
            Field::Frame => (false, false, false),
            Field::First { bottom } => (true, bottom, false),
            Field::Second { bottom } => (true, bottom, true),
        };
        params.field_pic_flag = i32::from(field);
        params.bottom_field_flag = i32::from(bottom);
        params.second_field = i32::from(second);
        params.nBitstreamDataLen = u32::try_from(slices.data.len()).unwrap_or(u32::MAX);
        params.pBitstreamData = slices.data.as_ptr();
        params.nNumSlices = slices.offsets.len() as u32;
        params.pSliceDataOffsets = slices.offsets.as_ptr();
        params.ref_pic_flag = i32::from(coded.reference);
        params.intra_pic_flag = i32::from(coded.intra);
        coded.fields.fill(&mut params);
        self.sets.update(self.syntax.parameter_sets());
        let side = Side { parser: self.id, codec: self.codec, sets: self.sets.clone(), before: coded.side.clone() };
        self.remember(side::publish(&mut params, side));
        let user = std::ptr::with_exposed_provenance_mut::<c_void>(self.callbacks.user);
        let Some(callback) = self.callbacks.decode else { return };
        // SAFETY: the caller's function with the caller's pointer; the parameters and the slices that they point to live
        // through the call.
        let answer = unsafe { callback(user, &raw mut params) };
        if answer < 1 {
            self.outcome = abi::UNKNOWN;
            self.order.skip_last();
        }
    }

    fn remember(&mut self, token: u64) {
        self.sides.push_back(token);
        if self.sides.len() > SIDES_MAX {
            self.sides.pop_front().into_iter().for_each(side::forget);
        }
    }

    /// Shows what need not wait any longer while `depth` pictures may.
    fn show(&mut self, depth: usize) {
        while let Some((entry, time)) = self.order.next_due(depth) {
            if entry.skipped {
                continue;
            }
            self.queue.push_back(display_info(&entry, time));
            self.show_queue(self.delay);
        }
    }

    fn show_queue(&mut self, delay: usize) {
        while self.queue.len() > delay {
            if let Some(mut info) = self.queue.pop_front() {
                self.display(&raw mut info);
            }
        }
    }

    fn display(&mut self, info: *mut DispInfo) {
        let user = std::ptr::with_exposed_provenance_mut::<c_void>(self.callbacks.user);
        let Some(callback) = self.callbacks.display else { return };
        // SAFETY: the caller's function with the caller's pointer; null stands for the end of the stream, else the
        // structure lives through the call.
        if unsafe { callback(user, info) } < 1 {
            self.outcome = abi::UNKNOWN;
        }
    }

    fn end_stream(&mut self, notify: bool) {
        self.order.close_half();
        self.show(0);
        self.show_queue(0);
        self.syntax.reset();
        self.order.reset();
        self.units = Units::default();
        self.sequence = None;
        self.started = false;
        if notify {
            self.display(std::ptr::null_mut());
        }
    }
}

impl Drop for Parser {
    fn drop(&mut self) {
        self.sides.drain(..).for_each(side::forget);
    }
}

fn display_info(entry: &Entry, time: i64) -> DispInfo {
    DispInfo {
        picture_index: abi::int(entry.index as u32),
        progressive_frame: i32::from(entry.progressive),
        top_field_first: i32::from(entry.top_first),
        repeat_first_field: if entry.unpaired { -1 } else { entry.repeat },
        timestamp: time,
    }
}
