//! Decoders: one access unit in, frames out, on one thread.
#![expect(unsafe_code, reason = "libav FFI")]

use ffmpeg_sys_next as ff;
use rung::media::track::{AudioConfig, Codec, VideoConfig};
use std::ptr::NonNull;

use super::frame::Frame;
use super::packet::Packet;
use super::{Error, frame};

/// One open decoder. Not `Send`: opened, used and dropped on its own thread.
#[derive(Debug)]
pub struct Decoder {
    raw: NonNull<ff::AVCodecContext>,
    packet: Packet,
}

/// What became of an access unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    Taken,
    /// Nothing of it could be used.
    Damaged,
}

impl Decoder {
    /// A video decoder. `pts` of what goes in comes out on the picture that it belongs to.
    pub fn video(config: &VideoConfig) -> Result<Decoder, Error> {
        let mut decoder = Decoder::alloc(config.codec)?;
        let mut headers = Vec::new();
        for nal in config.parameter_sets() {
            headers.extend_from_slice(&[0, 0, 0, 1]);
            headers.extend_from_slice(nal);
        }
        decoder.set_extradata(&headers)?;
        let reorder = config.reorder.map_or_else(|| reorder_guess(config), i32::from);
        let context = decoder.raw_mut();
        context.width = frame::int(config.width);
        context.height = frame::int(config.height);
        context.has_b_frames = reorder;
        context.thread_count = 1;
        context.err_recognition = 0;
        context.error_concealment = ff::FF_EC_GUESS_MVS | ff::FF_EC_DEBLOCK;
        decoder.open()
    }

    pub fn audio(config: &AudioConfig) -> Result<Decoder, Error> {
        let mut decoder = Decoder::alloc(config.codec)?;
        decoder.set_extradata(&config.asc)?;
        let context = decoder.raw_mut();
        context.sample_rate = frame::int(config.sample_rate);
        context.thread_count = 1;
        // The grid places samples; libav shall not trim any on its own.
        context.flags2 |= ff::AV_CODEC_FLAG2_SKIP_MANUAL;
        if config.channels > 0 {
            // SAFETY: the layout is part of a live context and still empty.
            unsafe { ff::av_channel_layout_default(&raw mut context.ch_layout, i32::from(config.channels)) };
        }
        decoder.open()
    }

    /// For one whole PNG or, if `bytes` do not look like one, JPEG image.
    pub fn image(bytes: &[u8]) -> Result<Decoder, Error> {
        let png = bytes.starts_with(b"\x89PNG");
        let mut decoder =
            Decoder::alloc_id(if png { ff::AVCodecID::AV_CODEC_ID_PNG } else { ff::AVCodecID::AV_CODEC_ID_MJPEG })?;
        let context = decoder.raw_mut();
        context.thread_count = 1;
        context.max_pixels = IMAGE_PIXELS_MAX;
        decoder.open()
    }

    fn alloc(codec: Codec) -> Result<Decoder, Error> {
        Decoder::alloc_id(codec_id(codec).ok_or(Error { what: "decoder", code: ff::AVERROR_DECODER_NOT_FOUND })?)
    }

    fn alloc_id(id: ff::AVCodecID) -> Result<Decoder, Error> {
        // SAFETY: looks up a static table.
        let codec = unsafe { ff::avcodec_find_decoder(id) };
        if codec.is_null() {
            return Err(Error { what: "decoder", code: ff::AVERROR_DECODER_NOT_FOUND });
        }
        // SAFETY: `codec` is a static description; null is handled.
        let raw = unsafe { ff::avcodec_alloc_context3(codec) };
        Ok(Decoder { raw: NonNull::new(raw).ok_or(Error::alloc("decoder"))?, packet: Packet::new()? })
    }

    fn set_extradata(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if bytes.is_empty() {
            return Ok(());
        }
        let padded = bytes.len() + ff::AV_INPUT_BUFFER_PADDING_SIZE as usize;
        // SAFETY: allocates; null is handled. The context frees it.
        let room = unsafe { ff::av_mallocz(padded) }.cast::<u8>();
        if room.is_null() {
            return Err(Error::alloc("decoder headers"));
        }
        // SAFETY: just allocated with at least this size, not shared yet.
        unsafe { std::slice::from_raw_parts_mut(room, bytes.len()) }.copy_from_slice(bytes);
        let context = self.raw_mut();
        context.extradata = room;
        context.extradata_size = i32::try_from(bytes.len()).unwrap_or(0);
        Ok(())
    }

    fn open(self) -> Result<Decoder, Error> {
        // SAFETY: the context was made for its codec (null here means that one) and is not open yet.
        let code = unsafe { ff::avcodec_open2(self.raw.as_ptr(), std::ptr::null(), std::ptr::null_mut()) };
        Error::check("decoder", code)?;
        Ok(self)
    }

    fn raw_mut(&mut self) -> &mut ff::AVCodecContext {
        // SAFETY: points to a live context that this value owns, borrowed exclusively.
        unsafe { self.raw.as_mut() }
    }

    /// Takes one access unit. All frames must have been pulled before.
    pub fn push(&mut self, data: &[u8], pts: i64) -> Result<Pushed, Error> {
        self.packet.copy_from(data, pts)?;
        // SAFETY: open context, filled packet; libav takes its own reference.
        let code = unsafe { ff::avcodec_send_packet(self.raw.as_ptr(), self.packet.as_ptr()) };
        self.packet.clear();
        match code {
            0.. => Ok(Pushed::Taken),
            code if code == ff::AVERROR(libc::ENOMEM) => Err(Error { what: "decoder", code }),
            _ => Ok(Pushed::Damaged),
        }
    }

    /// The next frame in presentation order.
    pub fn pull(&mut self) -> Result<Option<Frame>, Error> {
        let frame = Frame::empty()?;
        loop {
            // SAFETY: open context; the frame is empty and owned here.
            let code = unsafe { ff::avcodec_receive_frame(self.raw.as_ptr(), frame.as_ptr()) };
            return match code {
                0.. => Ok(Some(frame)),
                code if code == ff::AVERROR(libc::EAGAIN) || code == ff::AVERROR_EOF => Ok(None),
                code if code == ff::AVERROR(libc::ENOMEM) => Err(Error { what: "decoder", code }),
                // Damage met while decoding a queued packet: the next call goes on behind it.
                _ => continue,
            };
        }
    }

    /// End of media: whatever is held inside comes out of `pull`.
    pub fn drain(&mut self) {
        // SAFETY: open context; a null packet starts draining. Draining twice is refused harmlessly.
        unsafe { ff::avcodec_send_packet(self.raw.as_ptr(), std::ptr::null()) };
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        let mut raw = self.raw.as_ptr();
        // SAFETY: owned, freed once, on the thread that opened it.
        unsafe { ff::avcodec_free_context(&raw mut raw) };
    }
}

/// An 8K picture: larger images are refused.
const IMAGE_PIXELS_MAX: i64 = 7_680 * 4_320;

/// Pictures held for reordering where the stream does not say: too few would drop the first B pictures of a session,
/// too many only delay. Baseline has none; two cover a pyramid of B pictures. The other codecs always say.
fn reorder_guess(config: &VideoConfig) -> i32 {
    match config.codec {
        Codec::H264 if config.profile[0] == 66 => 0,
        Codec::H264 => 2,
        _ => 0,
    }
}

fn codec_id(codec: Codec) -> Option<ff::AVCodecID> {
    use ff::AVCodecID as Id;
    Some(match codec {
        Codec::H264 => Id::AV_CODEC_ID_H264,
        Codec::H265 => Id::AV_CODEC_ID_HEVC,
        Codec::Mpeg2Video => Id::AV_CODEC_ID_MPEG2VIDEO,
        Codec::Aac => Id::AV_CODEC_ID_AAC,
        Codec::AacLatm => Id::AV_CODEC_ID_AAC_LATM,
        Codec::MpegAudio => Id::AV_CODEC_ID_MP2,
        Codec::Ac3 => Id::AV_CODEC_ID_AC3,
        Codec::Eac3 => Id::AV_CODEC_ID_EAC3,
        Codec::Opus => Id::AV_CODEC_ID_OPUS,
        Codec::Scte35 | Codec::Id3 | Codec::Unknown(_) => return None,
    })
}
