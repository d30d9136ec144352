//! Initialization sections: what a decoder must be told before the first part [BMFF 8.2, 8.3, 8.5].

use bytes::Bytes;

use super::{boxed, full, hevc, put16, put32};
use crate::media::track::{AudioConfig, Codec, Colour, TrackConfig, VideoConfig};

/// One media initialization section and what it describes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitSection {
    pub track: TrackConfig,
    pub timescale: u32,
    pub bytes: Bytes,
}

impl InitSection {
    /// `bitrate`: cap in bits per second for `btrt`; 0 leaves the box out.
    pub fn video(config: &VideoConfig, timescale: u32, bitrate: u64) -> InitSection {
        let size = display_size(config);
        let bytes = section(timescale, *b"vide", size, |out| visual(out, config, bitrate));
        InitSection { track: TrackConfig::Video(config.clone()), timescale, bytes }
    }

    /// The timescale of audio is its sample rate. `bitrate` as for video.
    pub fn audio(config: &AudioConfig, bitrate: u64) -> InitSection {
        let timescale = config.sample_rate;
        let bytes = section(timescale, *b"soun", (0, 0), |out| mp4a(out, config, bitrate));
        InitSection { track: TrackConfig::Audio(config.clone()), timescale, bytes }
    }

    /// The CODECS value of this track (RFC 6381).
    pub fn codec(&self) -> String {
        match &self.track {
            TrackConfig::Video(v) if v.codec == Codec::H265 => hevc::codecs(v),
            TrackConfig::Video(v) => {
                format!("avc1.{:02x}{:02x}{:02x}", v.profile[0], v.profile[1], v.profile[2])
            }
            TrackConfig::Audio(a) => format!("mp4a.40.{}", a.object_type),
        }
    }
}

/// Columns and rows as shown: the sample aspect stretches columns.
pub fn display_size(config: &VideoConfig) -> (u32, u32) {
    let (num, den) = (u64::from(config.sar.0.max(1)), u64::from(config.sar.1.max(1)));
    let width = (u64::from(config.width) * num + den / 2) / den;
    (u32::try_from(width).unwrap_or(config.width), config.height)
}

/// The only track's id.
const TRACK_ID: u32 = 1;

fn section(timescale: u32, handler: [u8; 4], size: (u32, u32), entry: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut out = Vec::with_capacity(1024);
    boxed(&mut out, b"ftyp", |out| {
        // cmf2: composition offsets may be negative (trun version 1).
        out.extend_from_slice(b"cmf2\0\0\0\0iso6cmf2cmfcmp41");
    });
    boxed(&mut out, b"moov", |out| {
        full(out, b"mvhd", 0, 0, |out| {
            out.extend_from_slice(&[0; 8]);
            put32(out, 1_000);
            put32(out, 0);
            put32(out, 0x0001_0000);
            put16(out, 0x0100);
            out.extend_from_slice(&[0; 10]);
            matrix(out);
            out.extend_from_slice(&[0; 24]);
            put32(out, TRACK_ID + 1);
        });
        boxed(out, b"trak", |out| {
            track_header(out, handler, size);
            boxed(out, b"mdia", |out| media(out, timescale, handler, entry));
        });
        boxed(out, b"mvex", |out| {
            full(out, b"trex", 0, 0, |out| {
                for value in [TRACK_ID, 1, 0, 0, 0] {
                    put32(out, value);
                }
            });
        });
    });
    Bytes::from(out)
}

fn track_header(out: &mut Vec<u8>, handler: [u8; 4], (width, height): (u32, u32)) {
    // Flags: enabled, in movie, in preview.
    full(out, b"tkhd", 0, 7, |out| {
        out.extend_from_slice(&[0; 8]);
        put32(out, TRACK_ID);
        out.extend_from_slice(&[0; 16]);
        put16(out, 0);
        put16(out, u16::from(handler == *b"soun"));
        put16(out, if handler == *b"soun" { 0x0100 } else { 0 });
        put16(out, 0);
        matrix(out);
        put32(out, width << 16);
        put32(out, height << 16);
    });
}

fn media(out: &mut Vec<u8>, timescale: u32, handler: [u8; 4], entry: impl FnOnce(&mut Vec<u8>)) {
    full(out, b"mdhd", 0, 0, |out| {
        out.extend_from_slice(&[0; 8]);
        put32(out, timescale);
        put32(out, 0);
        // Language "und": tracks are demuxed, the playlist names the language.
        put16(out, 0x55c4);
        put16(out, 0);
    });
    full(out, b"hdlr", 0, 0, |out| {
        put32(out, 0);
        out.extend_from_slice(&handler);
        out.extend_from_slice(&[0; 12]);
        out.extend_from_slice(b"Rung\0");
    });
    boxed(out, b"minf", |out| {
        if handler == *b"vide" {
            full(out, b"vmhd", 0, 1, |out| out.extend_from_slice(&[0; 8]));
        } else {
            full(out, b"smhd", 0, 0, |out| out.extend_from_slice(&[0; 4]));
        }
        boxed(out, b"dinf", |out| {
            full(out, b"dref", 0, 0, |out| {
                put32(out, 1);
                full(out, b"url ", 0, 1, |_| ());
            });
        });
        boxed(out, b"stbl", |out| {
            full(out, b"stsd", 0, 0, |out| {
                put32(out, 1);
                entry(out);
            });
            for kind in [b"stts", b"stsc", b"stco"] {
                full(out, kind, 0, 0, |out| put32(out, 0));
            }
            full(out, b"stsz", 0, 0, |out| out.extend_from_slice(&[0; 8]));
        });
    });
}

/// The unity matrix [BMFF 6.2.2].
fn matrix(out: &mut Vec<u8>) {
    for value in [0x0001_0000u32, 0, 0, 0, 0x0001_0000, 0, 0, 0, 0x4000_0000] {
        put32(out, value);
    }
}

/// The sample entry of a picture track, parameter sets inside: `avc1`, for HEVC `hvc1` (ISO/IEC 14496-15, 5.4.2, 8.4.1).
fn visual(out: &mut Vec<u8>, config: &VideoConfig, bitrate: u64) {
    let is_hevc = config.codec == Codec::H265;
    boxed(out, if is_hevc { b"hvc1" } else { b"avc1" }, |out| {
        out.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 1]);
        out.extend_from_slice(&[0; 16]);
        put16(out, u16::try_from(config.width).unwrap_or(u16::MAX));
        put16(out, u16::try_from(config.height).unwrap_or(u16::MAX));
        put32(out, 0x0048_0000);
        put32(out, 0x0048_0000);
        put32(out, 0);
        put16(out, 1);
        out.extend_from_slice(&[0; 32]);
        put16(out, 0x0018);
        put16(out, 0xffff);
        if is_hevc {
            boxed(out, b"hvcC", |out| hevc::configuration(out, config));
        } else {
            boxed(out, b"avcC", |out| avc_configuration(out, config));
        }
        if config.colour != Colour::default() {
            boxed(out, b"colr", |out| {
                out.extend_from_slice(b"nclx");
                put16(out, u16::from(config.colour.primaries));
                put16(out, u16::from(config.colour.transfer));
                put16(out, u16::from(config.colour.matrix));
                out.push(u8::from(config.colour.full_range) << 7);
            });
        }
        boxed(out, b"pasp", |out| {
            put32(out, config.sar.0.max(1));
            put32(out, config.sar.1.max(1));
        });
        btrt(out, bitrate);
    });
}

/// AVCDecoderConfigurationRecord (ISO/IEC 14496-15, 5.3.3.1): one SPS, every PPS, 4-byte lengths.
fn avc_configuration(out: &mut Vec<u8>, config: &VideoConfig) {
    let profile = config.profile;
    out.extend_from_slice(&[1, profile[0], profile[1], profile[2], 0xff, 0xe1]);
    put_nal(out, &config.sps);
    // numOfPictureParameterSets has 8 bits; H.264 has at most 256 ids, of which streams use a handful.
    let pps = &config.pps[..config.pps.len().min(255)];
    out.push(u8::try_from(pps.len()).unwrap_or(u8::MAX));
    for set in pps {
        put_nal(out, set);
    }
    if matches!(profile[0], 100 | 110 | 122 | 144) {
        let depth = config.bit_depth.clamp(8, 15) - 8;
        out.extend_from_slice(&[0xfc | config.chroma_format & 3, 0xf8 | depth, 0xf8 | depth, 0]);
    }
}

pub(super) fn put_nal(out: &mut Vec<u8>, nal: &[u8]) {
    let nal = &nal[..nal.len().min(usize::from(u16::MAX))];
    put16(out, u16::try_from(nal.len()).unwrap_or(u16::MAX));
    out.extend_from_slice(nal);
}

fn mp4a(out: &mut Vec<u8>, config: &AudioConfig, bitrate: u64) {
    boxed(out, b"mp4a", |out| {
        out.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 1]);
        out.extend_from_slice(&[0; 8]);
        put16(out, u16::from(config.channels.max(1)));
        put16(out, 16);
        put32(out, 0);
        put32(out, config.sample_rate << 16);
        full(out, b"esds", 0, 0, |out| elementary_stream(out, config, bitrate));
        btrt(out, bitrate);
    });
}

/// ES_Descriptor with the AudioSpecificConfig (ISO/IEC 14496-1, 7.2.6.5).
fn elementary_stream(out: &mut Vec<u8>, config: &AudioConfig, bitrate: u64) {
    let asc = &config.asc[..config.asc.len().min(64)];
    let asc_length = u8::try_from(asc.len()).unwrap_or(0);
    let rate = u32::try_from(bitrate).unwrap_or(u32::MAX);
    out.extend_from_slice(&[0x03, 23 + asc_length, 0, 0, 0]);
    // AAC, audio stream, no decoder buffer size stated.
    out.extend_from_slice(&[0x04, 15 + asc_length, 0x40, 0x15, 0, 0, 0]);
    put32(out, rate);
    put32(out, rate);
    out.extend_from_slice(&[0x05, asc_length]);
    out.extend_from_slice(asc);
    out.extend_from_slice(&[0x06, 1, 2]);
}

fn btrt(out: &mut Vec<u8>, bitrate: u64) {
    if bitrate > 0 {
        let rate = u32::try_from(bitrate).unwrap_or(u32::MAX);
        boxed(out, b"btrt", |out| {
            put32(out, 0);
            put32(out, rate);
            put32(out, rate);
        });
    }
}
