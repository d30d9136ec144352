//! The demo's test picture: painted, encoded and sent as elementary stream units in real time.
//!
//! Time: frame n is due n / rate seconds after the start; a machine too slow to paint one in time leaves frames out,
//! so the picture's clock stays right. PTS count 90 kHz from the start.

use bytes::{BufMut, Bytes, BytesMut};
use rung::media::channel::VideoCodec;
use rung::media::track::Colour;
use rung::pixels::protocol::{FromWorker, Made, OpenRendition, Pattern};
use rung::time::SystemClock;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::av::{AudioEncoder, Error, Frame, Headers, Level, VideoEncoder};
use crate::pattern::{Painter, tone};
use crate::picture::Pool;
use crate::queue::{Popped, Queue};
use crate::shared::{Counters, Shared};

/// A frame due longer ago than this is left out.
const LATE_MAX: Duration = Duration::from_millis(500);
const AUDIO_BITRATE: u64 = 128_000;
const CHANNELS: u8 = 2;

/// The running test picture.
pub struct Maker {
    stop: Arc<Queue<()>>,
    thread: JoinHandle<()>,
}

impl Maker {
    /// # Errors
    /// A sentence: what could not be opened.
    pub fn start(ch: u32, pattern: Pattern, shared: &Arc<Shared>) -> Result<Maker, String> {
        let rate = pattern.cadence.rate;
        if pattern.width < 16 || pattern.height < 16 || rate.num == 0 || rate.den == 0 {
            return Err("a test picture has at least 16 x 16 pixels and a frame rate".to_owned());
        }
        shared.counters.open(ch, 0);
        let stop = Arc::new(Queue::bounded(1));
        let (ready, opened) = sync_channel(1);
        let (out, until) = (Arc::clone(shared), Arc::clone(&stop));
        let body = move || match Loop::open(ch, pattern, Arc::clone(&out)) {
            Ok(made) => {
                if ready.send(Ok(())).is_ok()
                    && let Err(error) = made.run(&until)
                {
                    out.fail(ch, format!("test picture: {error}"));
                }
            }
            Err(error) => drop(ready.send(Err(format!("test picture: {error}")))),
        };
        let thread = shared.spawn("pattern".to_owned(), ch, body).map_err(|e| format!("thread pattern: {e}"))?;
        opened.recv().map_err(|_| "the test picture's thread ended before it stood".to_owned())??;
        Ok(Maker { stop, thread })
    }

    pub fn close(self) {
        self.stop.close();
        // A panic was caught and reported by `Shared::spawn`.
        drop(self.thread.join());
    }
}

struct Loop {
    ch: u32,
    pattern: Pattern,
    shared: Arc<Shared>,
    painter: Painter,
    pool: Pool,
    video: VideoEncoder,
    audio: AudioEncoder,
    /// Next sample of the tone.
    sample: i64,
}

impl Loop {
    fn open(ch: u32, pattern: Pattern, shared: Arc<Shared>) -> Result<Loop, Error> {
        let rendition = OpenRendition {
            name: "pattern".to_owned(),
            codec: VideoCodec::H264,
            width: pattern.width,
            height: pattern.height,
            sar: (1, 1),
            bitrate: pattern.bitrate,
            vbv_ms: 1_000,
            bframes: 0,
            lookahead: 0,
            preset: "superfast".to_owned(),
            extra: String::new(),
            threads: 1,
            colour: Colour { primaries: 1, transfer: 1, matrix: 1, full_range: false },
        };
        Ok(Loop {
            video: VideoEncoder::open(&rendition, pattern.cadence, Headers::InBand, Level::Least)?,
            audio: AudioEncoder::open(CHANNELS, AUDIO_BITRATE)?,
            painter: Painter::new(pattern.width, pattern.height, pattern.cadence.rate),
            pool: Pool::new(pattern.width, pattern.height),
            sample: 0,
            ch,
            pattern,
            shared,
        })
    }

    fn run(mut self, stop: &Queue<()>) -> Result<(), Error> {
        let start = SystemClock::mono();
        let mut n = 0i64;
        loop {
            let due = start + self.time_of(n);
            match stop.pop_within(due.since(SystemClock::mono())) {
                Popped::Closed | Popped::Item(()) => break,
                Popped::TimedOut => {}
            }
            if SystemClock::mono().since(due) > LATE_MAX {
                Counters::add(&self.shared.counters.shed, 1);
            } else {
                self.frame(n)?;
            }
            n += 1;
            self.tone_until(n)?;
        }
        self.video.drain();
        self.send_video()?;
        self.audio.drain();
        self.send_audio()
    }

    /// Time of frame `n` since the start.
    fn time_of(&self, n: i64) -> Duration {
        let rate = self.pattern.cadence.rate;
        let nanos = i128::from(n) * i128::from(rate.den) * 1_000_000_000 / i128::from(rate.num);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    fn frame(&mut self, n: i64) -> Result<(), Error> {
        let mut frame = self.pool.slot()?;
        let wall = SystemClock::wall();
        // The counter strip holds 24 bits; so does the painter's frame number for 3 days at 60 frames/s.
        self.painter.paint(u32::try_from(n).unwrap_or(u32::MAX), wall, &mut frame.planes_mut());
        frame.set_pts(n);
        frame.set_key(n.rem_euclid(i64::from(self.pattern.cadence.gop)) == 0);
        self.video.push(&frame)?;
        self.send_video()?;
        self.pool.put(frame);
        let counters = &self.shared.counters;
        counters.next.store(n + 1, std::sync::atomic::Ordering::Relaxed);
        Ok(())
    }

    fn send_video(&mut self) -> Result<(), Error> {
        let rate = self.pattern.cadence.rate;
        while let Some(coded) = self.video.pull()? {
            let pts = i64::try_from(i128::from(coded.pts) * 90_000 * i128::from(rate.den) / i128::from(rate.num))
                .unwrap_or(i64::MAX);
            let data = Bytes::copy_from_slice(coded.data);
            let unit = Made { video: true, pts, dts: pts, random_access: coded.sync, data };
            Counters::add(&self.shared.counters.encoded, 1);
            self.shared.send(FromWorker::Made { ch: self.ch, unit });
        }
        Ok(())
    }

    /// The tone of everything before frame `n`.
    fn tone_until(&mut self, n: i64) -> Result<(), Error> {
        let rate = self.pattern.cadence.rate;
        let end = i64::try_from(i128::from(n) * 48_000 * i128::from(rate.den) / i128::from(rate.num)).unwrap_or(0);
        let size = i64::try_from(AudioEncoder::FRAME).unwrap_or(1024);
        while self.sample + size <= end {
            let mut frame = Frame::samples(CHANNELS, AudioEncoder::FRAME)?;
            for channel in 0..usize::from(CHANNELS) {
                tone(self.pattern.tone_hz, 48_000, self.sample, frame.channel_mut(channel));
            }
            frame.set_pts(self.sample);
            self.sample += size;
            self.audio.push(&frame)?;
            self.send_audio()?;
        }
        Ok(())
    }

    fn send_audio(&mut self) -> Result<(), Error> {
        while let Some(coded) = self.audio.pull()? {
            // Before the start lies only the encoder's priming.
            if coded.pts < 0 {
                continue;
            }
            let pts = coded.pts * 90_000 / 48_000;
            let data = adts(coded.data, CHANNELS);
            let unit = Made { video: false, pts, dts: pts, random_access: true, data };
            self.shared.send(FromWorker::Made { ch: self.ch, unit });
        }
        Ok(())
    }
}

/// An AAC-LC frame at 48 kHz behind its ADTS header [AAC 1.A.2.2].
fn adts(frame: &[u8], channels: u8) -> Bytes {
    const SYNC_MPEG4_NO_CRC: u16 = 0xfff1;
    const PROFILE_LC: u8 = 1 << 6;
    const RATE_48000: u8 = 3 << 2;
    let size = u32::try_from(frame.len() + 7).expect("an AAC frame has less than 8 KiB");
    let mut out = BytesMut::with_capacity(frame.len() + 7);
    out.put_u16(SYNC_MPEG4_NO_CRC);
    out.put_u8(PROFILE_LC | RATE_48000 | channels >> 2);
    // Two bits of channels, thirteen of size, eleven of buffer fullness (all ones: variable rate), two of frame count.
    let tail = u32::from(channels & 3) << 30 | size << 13 | 0x7ff << 2;
    out.put_u32(tail);
    out.put_slice(frame);
    out.freeze()
}
