//! Any PCM to planar f32 at 48 kHz.
#![expect(unsafe_code, reason = "libav FFI")]

use ffmpeg_sys_next as ff;
use std::ptr::NonNull;

use super::Error;
use super::frame::Frame;

/// Rebuilds itself when what comes in changes its rate, layout or format.
#[derive(Debug)]
pub struct Resampler {
    channels: u8,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    raw: NonNull<ff::SwrContext>,
    /// Rate, sample format and channel count of the input it was built for.
    input: (i32, i32, i32),
}

impl Resampler {
    pub fn new(channels: u8) -> Resampler {
        Resampler { channels, open: None }
    }

    /// Appends the output for `input` to `out` (one plane per channel). Returns how many output samples *before* the
    /// input's own start the first one lies: the filter holds back a few and gives them with the next call.
    pub fn convert(&mut self, input: &Frame, out: &mut [Vec<f32>]) -> Result<i64, Error> {
        let raw = input.raw();
        let shape = (raw.sample_rate, raw.format, raw.ch_layout.nb_channels);
        if self.open.as_ref().is_none_or(|o| o.input != shape) {
            self.open = None;
            self.open = Some(self.build(input, shape)?);
        }
        let swr = self.open.as_ref().expect("built above").raw.as_ptr();
        // SAFETY: an initialised context.
        let held = unsafe { ff::swr_get_delay(swr, 48_000) };
        // SAFETY: an initialised context.
        let room = unsafe { ff::swr_get_out_samples(swr, raw.nb_samples) };
        let room = usize::try_from(Error::check("resampler", room)?).unwrap_or(0);
        let before = out[0].len();
        for plane in out.iter_mut() {
            plane.resize(before + room, 0.0);
        }
        let mut planes: [*mut u8; 2] = [std::ptr::null_mut(); 2];
        for (to, plane) in planes.iter_mut().zip(out.iter_mut()) {
            *to = plane[before..].as_mut_ptr().cast();
        }
        // SAFETY: `planes` has one pointer per output channel, each to `room` floats; the input's planes hold
        // `nb_samples` samples of the format that the context was built for.
        let made = unsafe {
            ff::swr_convert(
                swr,
                planes.as_mut_ptr(),
                i32::try_from(room).unwrap_or(i32::MAX),
                raw.extended_data.cast::<*const u8>().cast_mut().cast(),
                raw.nb_samples,
            )
        };
        let made = usize::try_from(Error::check("resampler", made)?).unwrap_or(0);
        for plane in out.iter_mut() {
            plane.truncate(before + made);
        }
        Ok(held)
    }

    fn build(&self, input: &Frame, shape: (i32, i32, i32)) -> Result<Open, Error> {
        let raw = input.raw();
        let mut layout = unset_layout();
        // SAFETY: an empty layout on the stack.
        unsafe { ff::av_channel_layout_default(&raw mut layout, i32::from(self.channels)) };
        let mut from = unset_layout();
        if raw.ch_layout.order == ff::AVChannelOrder::AV_CHANNEL_ORDER_UNSPEC {
            // SAFETY: an empty layout on the stack.
            unsafe { ff::av_channel_layout_default(&raw mut from, raw.ch_layout.nb_channels) };
        } else {
            // SAFETY: an empty layout on the stack, a live one in the frame.
            unsafe { ff::av_channel_layout_copy(&raw mut from, &raw const raw.ch_layout) };
        }
        let format = sample_format(raw.format).ok_or(Error { what: "resampler", code: ff::AVERROR_INVALIDDATA })?;
        let mut swr = std::ptr::null_mut();
        // SAFETY: both layouts are valid; `swr` is null, so libav allocates.
        let code = unsafe {
            ff::swr_alloc_set_opts2(
                &raw mut swr,
                &raw mut layout,
                ff::AVSampleFormat::AV_SAMPLE_FMT_FLTP,
                48_000,
                &raw mut from,
                format,
                raw.sample_rate,
                0,
                std::ptr::null_mut(),
            )
        };
        Error::check("resampler", code)?;
        let open = Open { raw: NonNull::new(swr).ok_or(Error::alloc("resampler"))?, input: shape };
        // SAFETY: just allocated and configured.
        Error::check("resampler", unsafe { ff::swr_init(open.raw.as_ptr()) })?;
        Ok(open)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut raw = self.raw.as_ptr();
        // SAFETY: owned, freed once.
        unsafe { ff::swr_free(&raw mut raw) };
    }
}

fn unset_layout() -> ff::AVChannelLayout {
    // SAFETY: libav documents an all-zero AVChannelLayout as the unset one.
    unsafe { std::mem::zeroed() }
}

fn sample_format(format: i32) -> Option<ff::AVSampleFormat> {
    use ff::AVSampleFormat as F;
    [
        F::AV_SAMPLE_FMT_U8,
        F::AV_SAMPLE_FMT_S16,
        F::AV_SAMPLE_FMT_S32,
        F::AV_SAMPLE_FMT_FLT,
        F::AV_SAMPLE_FMT_DBL,
        F::AV_SAMPLE_FMT_U8P,
        F::AV_SAMPLE_FMT_S16P,
        F::AV_SAMPLE_FMT_S32P,
        F::AV_SAMPLE_FMT_FLTP,
        F::AV_SAMPLE_FMT_DBLP,
    ]
    .into_iter()
    .find(|f| *f as i32 == format)
}
