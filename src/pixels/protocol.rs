//! Messages between daemon and worker: postcard values, each behind a little-endian u32 length, over a socketpair.
//! A worker of one channel inherits its end as file descriptor 3. A shared worker inherits a control socket there
//! instead, and takes the socket of each of its channels from it: a slow channel never stands in another one's way.
//! `ch` names the channel on its socket.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::health::PciAddress;
use crate::media::channel::{Slate, VideoCodec};
use crate::media::crop::Margins;
use crate::media::fault::FaultKind;
use crate::media::grid::Cadence;
use crate::media::logo::Logo;
use crate::media::picture::{Due, PictureRule};
use crate::media::sample::Stamps;
use crate::media::track::{AudioConfig, Codec, Colour, Pid, VideoConfig};

/// Changed with every incompatible change: daemon and worker of two versions refuse each other in `hello`.
pub const VERSION: u32 = 7;
/// Where a spawned worker finds its end of the socketpair, a shared one that of its control socket.
pub const WORKER_FD: i32 = 3;

/// Daemon to shared worker, on the control socket: a channel sits down. The descriptor of its socket travels with the
/// message (SCM_RIGHTS); on it everything is as with a worker of one channel, the two `Hello` first. The channel leaves
/// when that socket closes; the worker goes when the control socket does.
///
/// Control messages are postcard values, one a packet (SOCK_SEQPACKET), without a length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    /// Names the channel on the control socket; never used twice in one process.
    pub seat: u32,
}

/// Shared worker to daemon, on the control socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromShared {
    /// The driver is initialised and the sandbox in force: from here on channels are served.
    Hello { version: u32, pid: u32, sandbox: String },
    /// Nothing of that channel is left: its threads have ended.
    Left { seat: u32 },
}

/// How much is lost with what failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lost {
    /// This channel; the process can take another one.
    Channel,
    /// The process: what a codec, a driver or the device left behind can not be trusted. Every channel in it is told so,
    /// and it ends.
    Process,
    /// The process, and the GPU: it is gone, or answers nothing any more.
    Device,
}

/// Index of a rendition within `Open::renditions`.
pub type RenditionIndex = u8;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToWorker {
    Hello {
        version: u32,
    },
    /// Answered by `Caps`.
    Probe,
    /// Which GPUs there are. Answered by `Gpus`; only a worker that was started with `--probe` looks.
    ProbeGpus,
    Open {
        ch: u32,
        open: Box<Open>,
    },
    Unit {
        ch: u32,
        unit: Unit,
    },
    /// Fill every N not yet shown up to and excluding `to`; never flushes the decoder. Audio tracks become silent up to
    /// the same instant. In an audio-only worker, which knows no frame rate, `to` is a 48 kHz sample index.
    Fill {
        ch: u32,
        to: i64,
        with: Fill,
    },
    /// Force an IDR at frame `at` beside those of the grid.
    Idr {
        ch: u32,
        at: i64,
    },
    Retune {
        ch: u32,
        rendition: RenditionIndex,
        bitrate: u64,
    },
    /// Stop encoding a rendition at frame `at` (a grid IDR).
    Shed {
        ch: u32,
        rendition: RenditionIndex,
        at: i64,
    },
    /// Encode it again from the grid IDR `at` on.
    Resume {
        ch: u32,
        rendition: RenditionIndex,
        at: i64,
    },
    /// Another logo, or none, from some frame within the next second on: the same one for all renditions.
    Logo {
        ch: u32,
        logo: Option<Box<Logo>>,
    },
    /// Answered by a `Picture` of the newest frame, or of the next one that there is room for.
    Snap {
        ch: u32,
    },
    /// End of media: drain decoder and encoders, then `Closed`.
    Close {
        ch: u32,
    },
    /// Make pictures of single units, as `Still` asks, until `Close`.
    Stills {
        ch: u32,
    },
    /// Answered by `StillMade`, whatever comes of it. The next one follows behind the answer.
    Still {
        ch: u32,
        still: Box<Still>,
    },
    /// No more stills of this source will come.
    Forget {
        ch: u32,
        of: u32,
    },
    /// Make a test picture and tone as `Made` units, in real time, until `Close`.
    Pattern {
        ch: u32,
        pattern: Pattern,
    },
}

/// A channel's whole set-up. An encoder's settings follow from it and from nothing else.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Open {
    /// `None`: an audio-only worker.
    pub video: Option<OpenVideo>,
    /// Audio tracks to decode and re-encode to AAC-LC; those passed through never come here.
    pub audio: Vec<OpenAudio>,
    /// Governor off: encoders are waited for and nothing is ever shed (benches, files).
    pub unpaced: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpenVideo {
    pub pid: Pid,
    pub source: VideoConfig,
    pub cadence: Cadence,
    /// Frame the first output belongs to; smaller ones are decoded, not shown. For a respawn: the first unpublished part.
    pub start: i64,
    pub renditions: Vec<OpenRendition>,
    pub deinterlace: Deinterlace,
    /// Cut off the source's pictures. Of a picture that it leaves too little of nothing is.
    pub crop: Margins,
    /// Over every rendition's picture of the source, held ones included; not over the slate.
    pub logo: Option<Box<Logo>>,
    /// What a fill shows once it holds no longer.
    pub slate: Slate,
    /// Posters and storyboard tiles of the lowest rendition that are made by themselves; `None`: none are.
    pub pictures: Option<PictureRule>,
    pub backend: Backend,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpenRendition {
    pub name: String,
    pub codec: VideoCodec,
    pub width: u32,
    pub height: u32,
    /// Sample aspect of the output.
    pub sar: (u32, u32),
    /// Cap and average, bits per second.
    pub bitrate: u64,
    pub vbv_ms: u32,
    pub bframes: u32,
    pub lookahead: u32,
    pub preset: String,
    /// Options of libx264 or libx265 in `key=value:key=value` form put last (benches compare at equal settings);
    /// normally empty.
    pub extra: String,
    /// Threads that share a picture; a function of codec, height x rate, never of load.
    pub threads: u32,
    pub colour: Colour,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpenAudio {
    pub pid: Pid,
    pub codec: Codec,
    pub config: AudioConfig,
    /// Output channels (1 or 2) and bits per second; the output rate is 48 kHz.
    pub channels: u8,
    pub bitrate: u64,
    /// First output frame m (1024 samples each) that is wanted.
    pub start: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Deinterlace {
    /// 25i -> 25p.
    Frame,
    /// 25i -> 50p.
    Field,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    pub pid: Pid,
    /// Video: frame index N of the picture. Audio: index of the first 48 kHz output sample that it covers.
    pub at: i64,
    /// Decode only, show nothing (a respawn's history).
    pub prime: bool,
    /// N was already shown by a fill.
    pub hidden: bool,
    pub random_access: bool,
    pub damaged: bool,
    pub stamps: Stamps,
    /// As `AccessUnit::data`.
    pub data: Bytes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fill {
    /// The last picture, and silence.
    Hold,
    /// The last picture; the sound goes on by itself.
    Still,
    Slate,
    /// No frame below `to` is made: N jumps there. Audio becomes silent all the same.
    Nothing,
}

/// The demo's test picture: bars, a clock, a machine-readable frame counter, and a tone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pattern {
    pub width: u32,
    pub height: u32,
    pub cadence: Cadence,
    pub bitrate: u64,
    pub tone_hz: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum FromWorker {
    Hello {
        version: u32,
        pid: u32,
    },
    Caps(Caps),
    /// The GPUs, or why there are none, in a sentence.
    Gpus(Result<Vec<GpuCaps>, String>),
    /// The encoders stand: what a player must be told.
    Opened {
        ch: u32,
        renditions: Vec<VideoInit>,
        audio: Vec<AudioConfig>,
    },
    Encoded {
        ch: u32,
        frame: Encoded,
    },
    /// As `OpenVideo::pictures` and `Snap` ask.
    Picture {
        ch: u32,
        picture: Picture,
    },
    /// The answer to `Still`: empty where the unit gave no picture.
    StillMade {
        ch: u32,
        of: u32,
        pictures: Vec<Picture>,
    },
    /// At least every 200 ms while a channel is open.
    Progress {
        ch: u32,
        progress: Progress,
    },
    /// An encoder's queue was full: it skips until the next grid IDR at `resumes`.
    Late {
        ch: u32,
        rendition: RenditionIndex,
        at: i64,
        resumes: i64,
    },
    Fault {
        ch: u32,
        kind: FaultKind,
        at: Option<i64>,
        detail: String,
    },
    /// Everything has been drained.
    Closed {
        ch: u32,
    },
    /// A pattern's unit, to be muxed to a transport stream.
    Made {
        ch: u32,
        unit: Made,
    },
    /// This channel cannot go on; the sentence says why.
    Failed {
        ch: u32,
        what: String,
        lost: Lost,
    },
}

/// Index of the rendition that is never shed: the one with the fewest pixels, of several the last; of the H.264 ones if
/// there are any, because every player has those.
pub fn lowest(renditions: &[OpenRendition]) -> usize {
    let weight = |i: &usize| {
        let r = &renditions[*i];
        (r.codec, u64::from(r.width) * u64::from(r.height))
    };
    (0..renditions.len()).rev().min_by_key(weight).unwrap_or(0)
}

/// Parameter sets as NAL units without start codes; codec and coded size are those of `OpenRendition`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VideoInit {
    /// HEVC only.
    pub vps: Option<Bytes>,
    pub sps: Bytes,
    pub pps: Bytes,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Output {
    Video(RenditionIndex),
    /// Index within `Open::audio`.
    Audio(u8),
}

/// One encoded frame, in decode order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Encoded {
    pub output: Output,
    /// Video: N of the picture (presentation). Audio: m.
    pub at: i64,
    pub sync: bool,
    pub stamps: Stamps,
    /// As `Sample::data`: length-prefixed NAL units without parameter sets; a raw AAC frame.
    pub data: Bytes,
}

/// A random access point that is to be shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Still {
    /// Which source it is of: its sheet goes on with each still.
    pub of: u32,
    /// Frame index N of the picture.
    pub at: i64,
    pub due: Due,
    pub snap: bool,
    pub rule: PictureRule,
    pub source: VideoConfig,
    /// As `AccessUnit::data`.
    pub data: Bytes,
}

/// A JPEG of square samples, in the colours of JFIF.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Picture {
    /// The frame that it shows; of a sheet, its newest tile does.
    pub at: i64,
    pub kind: PictureKind,
    pub width: u16,
    pub height: u16,
    pub jpeg: Bytes,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PictureKind {
    Poster,
    /// The storyboard sheet with one tile more.
    Sheet(Sheet),
    /// The answer to `Snap`.
    Snap,
}

/// What is on a storyboard sheet. A worker begins a sheet with its first tile, wherever that lies on it: what its
/// predecessor put there stays on that one's sheet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sheet {
    pub number: i64,
    /// Places that hold a tile, in order; the last one is the newest.
    pub places: Vec<u8>,
    /// Columns and rows of a tile.
    pub tile: (u16, u16),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Units and fills that the decode stage is done with, whatever came of them.
    pub taken: u64,
    /// Frames out of the decoder; frames held because the source had none; units dropped on one N.
    pub decoded: u64,
    pub repeated: u64,
    pub collided: u64,
    /// Next N to be shown.
    pub next: i64,
    pub encoded: u64,
    pub shed: u64,
    /// Host <-> device copies of full pictures.
    pub copies: u64,
    /// Posters and tiles left out because the one before was still being made.
    pub pictures_skipped: u64,
    /// CPU time of the process, microseconds. A shared worker's channels all report the same sum of them all.
    pub cpu_us: u64,
    /// Resident memory of the process: the same holds.
    pub rss_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caps {
    /// What decodes and encodes here, in a reader's words: "libavcodec 59.37.100, libx264 164".
    pub backend: String,
    pub cpus: u32,
    /// 1080p-equivalent encode speed measured at start: frames per CPU-second of the default preset at 640x360.
    pub encode_fps_360: u32,
    pub simd: String,
    pub sandbox: String,
}

/// What one GPU can do, as its driver says; functions that it lacks say why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuCaps {
    /// As the driver counts: by slot.
    pub index: u32,
    /// Where it is plugged in.
    pub pci: PciAddress,
    pub name: String,
    /// The driver's version, "550.54.14", if NVML tells it.
    pub driver: Option<String>,
    /// Driver's CUDA version, "12.4".
    pub cuda: String,
    /// Compute capability, "8.9".
    pub capability: String,
    pub memory_bytes: u64,
    pub memory_free_bytes: u64,
    /// Decode engines; 0: none.
    pub decode_engines: u32,
    pub decode: Vec<DecodeCaps>,
    pub encode: Result<EncodeCaps, String>,
    /// Why no channel can run on it, whatever else it can do.
    pub unfit: Option<String>,
}

/// A kind of stream that a GPU decodes (4:2:0).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecodeCaps {
    pub codec: Codec,
    pub bits: u8,
    pub width_max: u32,
    pub height_max: u32,
}

/// A GPU's encoder; where nothing else is said, for H.264.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EncodeCaps {
    pub engines: u32,
    /// Sessions that could be opened at once when it was asked; as many as were tried: there may be more.
    pub sessions: u32,
    pub sessions_tried: u32,
    pub width_min: u32,
    pub height_min: u32,
    pub width_max: u32,
    pub height_max: u32,
    /// It makes HEVC, too: up to this size.
    pub hevc: bool,
    pub hevc_width_max: u32,
    pub hevc_height_max: u32,
    pub bframes_max: u32,
    pub lookahead: bool,
}

/// Where a channel's pictures are decoded, scaled and encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Backend {
    /// libavcodec, the CPU's scaler, libx264 or libx265.
    #[default]
    Software,
    /// NVDEC and CUDA; the scaled pictures are copied to the host for libx264 or libx265.
    GpuDecode,
    /// NVDEC, CUDA, NVENC: no picture leaves the GPU.
    Gpu,
}

impl Backend {
    /// As API, metrics and log name it.
    pub fn name(self) -> &'static str {
        match self {
            Backend::Software => "software",
            Backend::GpuDecode => "gpu_decode",
            Backend::Gpu => "gpu",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    pub video: bool,
    /// 90 kHz from the pattern's start.
    pub pts: i64,
    pub dts: i64,
    pub random_access: bool,
    /// Video: Annex B with parameter sets before each IDR. Audio: an ADTS frame.
    pub data: Bytes,
}

/// `message` with its length in front, appended to `out`.
pub fn encode<T: Serialize>(message: &T, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    // Serialising plain data into memory has no way to fail.
    let grown = postcard::to_extend(message, std::mem::take(out)).expect("plain data serialises into memory");
    *out = grown;
    let length = u32::try_from(out.len() - start - 4).expect("messages are bounded by MESSAGE_BYTES_MAX");
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

/// A control message as a packet.
pub fn packet<T: Serialize>(message: &T) -> Vec<u8> {
    postcard::to_stdvec(message).expect("plain data serialises into memory")
}

/// A packet as a control message.
///
/// # Errors
/// The peer speaks another protocol: the connection is of no use any more.
pub fn from_packet<T: for<'de> Deserialize<'de>>(packet: &[u8]) -> Result<T, String> {
    let said = |why: &dyn std::fmt::Display| format!("unreadable control message of {} bytes: {why}", packet.len());
    match postcard::take_from_bytes(packet) {
        Ok((message, [])) => Ok(message),
        Ok((_, rest)) => Err(said(&format_args!("{} bytes too many", rest.len()))),
        Err(e) => Err(said(&e)),
    }
}

/// Takes whole messages off the front of a byte stream.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    at: usize,
}

impl Decoder {
    pub fn push(&mut self, bytes: &[u8]) {
        if self.at > 0 && self.at >= self.buffer.len() / 2 {
            self.buffer.drain(..self.at);
            self.at = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message.
    ///
    /// # Errors
    /// The peer speaks another protocol: the connection is of no use any more.
    pub fn pop<T: for<'de> Deserialize<'de>>(&mut self) -> Result<Option<T>, String> {
        let rest = &self.buffer[self.at..];
        let Some((head, body)) = rest.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*head) as usize;
        if length > crate::media::limits::MESSAGE_BYTES_MAX {
            return Err(format!("a message of {length} bytes: the other end is no rung-worker of this version"));
        }
        let Some(body) = body.get(..length) else {
            return Ok(None);
        };
        let message = postcard::from_bytes(body).map_err(|e| format!("unreadable message: {e}"))?;
        self.at += 4 + length;
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::logo::{Corner, Hundredths, LogoPicture, LogoPlace};

    #[test]
    fn a_logo_arrives_as_it_was_sent() {
        let place = LogoPlace { corner: Corner::BottomLeft, width: Hundredths(1_250), ..LogoPlace::default() };
        let logo = Logo { place, picture: LogoPicture::Png(Bytes::from_static(b"\x89PNG")) };
        let sent = [ToWorker::Logo { ch: 3, logo: Some(Box::new(logo)) }, ToWorker::Logo { ch: 3, logo: None }];
        let (mut wire, mut decoder) = (Vec::new(), Decoder::default());
        sent.iter().for_each(|message| encode(message, &mut wire));
        decoder.push(&wire);
        let got: Vec<ToWorker> = std::iter::from_fn(|| decoder.pop().expect("own wire")).collect();
        assert_eq!(got, sent);
    }

    #[test]
    fn messages_survive_any_fragmentation() {
        let mut wire = Vec::new();
        let sent: Vec<ToWorker> = (0..50)
            .map(|n| ToWorker::Unit {
                ch: 1,
                unit: Unit {
                    pid: 256,
                    at: n,
                    prime: false,
                    hidden: n % 2 == 0,
                    random_access: n == 0,
                    damaged: false,
                    stamps: Stamps::default(),
                    data: Bytes::from(vec![7u8; n as usize * 13]),
                },
            })
            .collect();
        for message in &sent {
            encode(message, &mut wire);
        }
        for step in [1usize, 3, 7, 1000, wire.len()] {
            let (mut decoder, mut got) = (Decoder::default(), Vec::new());
            for chunk in wire.chunks(step) {
                decoder.push(chunk);
                while let Some(message) = decoder.pop::<ToWorker>().expect("own wire") {
                    got.push(message);
                }
            }
            assert_eq!(got, sent);
        }
    }
}
