//! Elementary stream syntax: bits, start codes, parameter sets, slice headers, captions, AAC headers, pictures of logos.

use bytes::Bytes;
use rung::bitstream::aac::adts::{HEADER_BYTES, Header};
use rung::bitstream::aac::asc::AudioSpecificConfig;
use rung::bitstream::annexb::{find_start, nal_units};
use rung::bitstream::bits::Bits;
use rung::bitstream::captions::{self, Observer, TRIPLETS_MAX, Triplet};
use rung::bitstream::h264::{self, sei};
use rung::bitstream::h265;
use rung::bitstream::mpeg2video::{Display, Extension, Picture, Sequence, picture, sequence};
use rung::media::captions::InstreamId;
use rung::media::channel::VideoCodec;
use rung::media::grid::FrameRate;
use rung::media::logo::{Hundredths, LogoPixels};
use rung::media::track::{Codec, VideoConfig};
use rung::package::fmp4::init::{InitSection, display_size};
use rung::package::fmp4::read;

use crate::Target;
use crate::script::Script;
use crate::seeds;

pub(super) const TARGETS: &[Target] = &[
    Target::new("bits", bits, seeds::bits).words(&[&[0, 0, 3], &[0, 0, 3, 0], &[0, 0, 0, 0]]),
    Target::new("annexb", annexb, seeds::annexb).words(&[&[0, 0, 1], &[0, 0, 0, 1], &[0, 0, 0]]),
    Target::new("h264", h264, seeds::h264).words(&[
        &[0, 0, 1, 0x67],
        &[0, 0, 1, 0x68],
        &[0, 0, 1, 0x65],
        &[0, 0, 1, 0x41],
        &[0, 0, 1, 6, 6],
        &[0, 0, 3, 0, 0, 3, 0, 1],
    ]),
    Target::new("h265", h265, seeds::h265).words(&[
        &[0, 0, 1, 0x40, 1],
        &[0, 0, 1, 0x42, 1],
        &[0, 0, 1, 0x44, 1],
        &[0, 0, 1, 0x26, 1],
        &[0, 0, 1, 2, 1],
        &[0, 0, 3, 0, 0, 3, 0, 1],
    ]),
    Target::new("mpeg2video", mpeg2, seeds::mpeg2).words(&[&[0xB3], &[0xB5, 0x14], &[0xB5, 0x2B], &[0xB5, 0x8F], &[0]]),
    Target::new("captions", cc, seeds::captions).words(&[
        b"GA94\x03",
        &[0xB5, 0, 0x31],
        &[0, 0, 1, 6, 4],
        &[0, 0, 1, 0xB2],
        &[0, 0, 1, 0x4E, 1, 4],
        &[0xFC, 0x94, 0x20],
        &[0xFF, 2, 0x21],
    ]),
    Target::new("adts", adts, seeds::adts).words(&[&[0xFF, 0xF1, 0x4C, 0x80], &[0xFF, 0xF9], &[0x11, 0x90]]),
    Target::new("logo_png", logo, seeds::logos)
        .words(&[b"IHDR", b"IDAT", b"PLTE", b"tRNS", b"acTL", b"fcTL", b"fdAT", b"iCCP", b"zTXt", b"IEND"])
        .memory(96 << 20, 64)
        .rounds(120),
];

/// Reads one by one what a naive reader reads from bits without their emulation prevention.
fn bits(input: &[u8]) {
    let mut script = Script::new(input);
    let escapes = script.flag();
    let reads: Vec<u8> = script.piece().to_vec();
    let bytes = script.rest();
    let (mut plain, mut zeros) = (Vec::new(), 0);
    for byte in bytes {
        if escapes && zeros >= 2 && *byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if *byte == 0 { zeros + 1 } else { 0 };
        plain.extend((0..8).rev().map(|bit| byte >> bit & 1));
    }
    let mut real = if escapes { Bits::new(bytes) } else { Bits::plain(bytes) };
    let mut at = 0;
    let number = |at: &mut usize, n: usize| {
        let found = plain.get(*at..*at + n)?;
        *at += n;
        Some(found.iter().fold(0u64, |value, bit| value << 1 | u64::from(*bit)))
    };
    for read in reads {
        let wanted = match read % 4 {
            0 => number(&mut at, usize::from(read / 4 % 33)).map(i128::from),
            1 => number(&mut at, 1).map(i128::from),
            kind => {
                let zeros = plain.iter().skip(at).take_while(|bit| **bit == 0).count();
                at += zeros;
                let code = if zeros < 32 { number(&mut at, zeros + 1).map(|code| i128::from(code) - 1) } else { None };
                code.map(|code| if kind == 2 { code } else { (code + 1) / 2 * if code % 2 == 1 { 1 } else { -1 } })
            }
        };
        let found = match read % 4 {
            0 => real.u(u32::from(read / 4 % 33)).map(i128::from),
            1 => real.flag().map(i128::from),
            2 => real.ue().map(i128::from),
            _ => real.se().map(i128::from),
        };
        assert_eq!(found, wanted, "read {read} at bit {at}");
        if found.is_none() {
            break;
        }
    }
}

fn annexb(input: &[u8]) {
    let mut starts: Vec<usize> =
        (0..input.len().saturating_sub(2)).filter(|at| input[*at..].starts_with(&[0, 0, 1])).collect();
    assert_eq!(find_start(input), starts.first().copied());
    starts.push(input.len());
    let wanted: Vec<&[u8]> = starts
        .windows(2)
        .map(|w| {
            let mut unit = &input[w[0] + 3..w[1].max(w[0] + 3)];
            while let [head @ .., 0] = unit {
                unit = head;
            }
            unit
        })
        .filter(|unit| !unit.is_empty())
        .collect();
    let found: Vec<&[u8]> = nal_units(input).collect();
    assert_eq!(found, wanted);
    let prefixed = h264::to_length_prefixed(input);
    let kept: Vec<u8> =
        found.iter().map(|unit| h264::nal_type(unit)).filter(|kind| !h264::stays_out_of_samples(*kind)).collect();
    assert_eq!(read::nal_types(VideoCodec::H264, &prefixed), kept);
}

fn rate(rate: Option<FrameRate>) {
    assert!(rate.is_none_or(|rate| (1.0..=300.0).contains(&rate.hz())), "{rate:?}");
}

fn h264(input: &[u8]) {
    let mut sets = h264::ParameterSets::default();
    for unit in nal_units(input).take(64) {
        match h264::nal_type(unit) {
            h264::nal::SPS => {
                if let Ok(sps) = h264::Sps::parse(unit) {
                    assert!((1..=16_880).contains(&sps.width) && (1..=2 * 16_880).contains(&sps.height), "{sps:?}");
                    assert!((8..=14).contains(&sps.bit_depth) && (4..=16).contains(&sps.log2_max_frame_num));
                    assert!(sps.id < 32 && sps.chroma_format <= 3 && sps.sar.0 > 0 && sps.sar.1 > 0);
                    rate(sps.rate);
                }
                settled(&mut sets, |sets| sets.take_sps(unit));
            }
            h264::nal::PPS => settled(&mut sets, |sets| sets.take_pps(unit)),
            h264::nal::SEI => drop(sei::recovery_point(unit)),
            kind @ (h264::nal::SLICE | h264::nal::PARTITION_A | h264::nal::IDR) => {
                // What it settles is told by `settled`.
                sets.settle(kind == h264::nal::IDR).ok();
                let head = &unit[..unit.len().min(h264::slice::HEAD_BYTES)];
                let slice = h264::Slice::parse(unit, &sets);
                assert_eq!(h264::Slice::parse(head, &sets), slice, "its first bytes say less than all of it");
                let Ok(slice) = slice else { continue };
                assert!(!slice.differs(&slice) || slice.first_mb == 0);
                if let Some(config) = sets.config(slice.pps_id) {
                    video(&config);
                }
            }
            _ => {}
        }
    }
}

/// An equal set changes nothing the second time.
fn settled(sets: &mut h264::ParameterSets, take: impl Fn(&mut h264::ParameterSets) -> Result<(), &'static str>) {
    if take(sets).is_err() {
        return;
    }
    sets.settle(true).expect("at an IDR picture everything comes into force");
    let before = sets.revision();
    take(sets).expect("it was taken before");
    sets.settle(true).expect("nothing is held");
    assert_eq!(sets.revision(), before);
}

fn h265(input: &[u8]) {
    let mut sets = h265::ParameterSets::default();
    for unit in nal_units(input).take(64) {
        let Some((kind, _)) = h265::header(unit) else { continue };
        // What is wrong with a set is its `Err`: what was in force stays.
        match kind {
            h265::nal::VPS => {
                sets.take_vps(unit).ok();
            }
            h265::nal::SPS => {
                if let Ok(sps) = h265::Sps::parse(unit) {
                    assert!((1..=16_888).contains(&sps.width) && (1..=16_888).contains(&sps.height), "{sps:?}");
                    assert!((8..=16).contains(&sps.bit_depth) && (4..=16).contains(&sps.order_bits), "{sps:?}");
                    assert!(sps.address_bits <= 32 && sps.reorder <= 16 && sps.sar.0 > 0 && sps.sar.1 > 0, "{sps:?}");
                    rate(sps.rate);
                }
                sets.take_sps(unit).ok();
            }
            h265::nal::PPS => {
                sets.take_pps(unit).ok();
            }
            0..h265::nal::VCL_END => {
                sets.settle(h265::is_irap(kind)).ok();
                let head = &unit[..unit.len().min(h265::slice::HEAD_BYTES)];
                let slice = h265::Slice::parse(unit, &sets);
                assert_eq!(h265::Slice::parse(head, &sets), slice, "its first bytes say less than all of it");
                let Ok(slice) = slice else { continue };
                assert_eq!(slice.differs(&slice), slice.first);
                if let Some(config) = sets.config(slice.pps_id) {
                    video(&config);
                }
            }
            _ => {}
        }
    }
}

/// What is made of a configuration reads back as what it is.
fn video(config: &VideoConfig) {
    rate(config.rate);
    assert!(config.parameter_sets().all(|set| !set.is_empty()));
    let (width, height) = display_size(config);
    assert!(width > 0 && height > 0, "{width}x{height} of {config:?}");
    let section = InitSection::video(config, 90_000, 1_000_000);
    let init = read::init(&section.bytes).expect("an init section of our own");
    assert_eq!((init.timescale, init.video, init.codecs), (90_000, true, Some(section.codec())));
    assert_eq!(init.codec == VideoCodec::Hevc, config.codec == Codec::H265);
}

fn mpeg2(input: &[u8]) {
    let mut script = Script::new(input);
    let (mut header, mut extension, mut display) = (None, None, None);
    while !script.is_over() {
        let length = usize::from(script.byte());
        let unit = script.take(length);
        header = Sequence::parse(unit).ok().or(header);
        extension = Extension::parse(unit).ok().or(extension);
        display = Display::parse(unit).ok().or(display);
        let head = &unit[..unit.len().min(picture::HEAD_BYTES)];
        let found = Picture::parse(unit);
        assert_eq!(Picture::parse(head), found, "its first bytes say less than all of it");
        assert!(picture::is_field(unit).is_none() || unit.len() >= 4, "a structure from too few bytes");
        let Some((header, extension)) = header.zip(extension) else { continue };
        rate(sequence::rate(&header, &extension));
        if let Some(config) = sequence::config(&header, &extension, display.as_ref()) {
            assert!(config.sar.0 > 0 && config.sar.1 > 0, "{config:?}");
            assert!((1..1 << 14).contains(&config.width) && (1..1 << 14).contains(&config.height), "{config:?}");
        }
    }
}

fn cc(input: &[u8]) {
    let mut script = Script::new(input);
    let (flags, unit) = (script.byte(), script.rest());
    let codec = [Codec::H264, Codec::H265, Codec::Mpeg2Video, Codec::Aac][usize::from(flags & 3)];
    let mut found = Vec::new();
    let any = captions::read(codec, flags & 4 != 0, unit, &mut found);
    assert!((any || found.is_empty()) && found.len() <= 2 * TRIPLETS_MAX);
    let seen = |triplets: &[Triplet]| {
        let mut observer = Observer::default();
        observer.take(triplets);
        observer.seen()
    };
    // All of the bytes as constructs, too.
    let loose: Vec<Triplet> =
        unit.as_chunks::<3>().0.iter().map(|[kind, a, b]| Triplet { kind: kind & 3, data: [*a, *b] }).collect();
    for id in seen(&found).iter().chain(seen(&loose).iter()) {
        assert!(matches!(id, InstreamId::Cc(1..=4) | InstreamId::Service(1..=63)), "{id}");
    }
    for triplets in [&found, &loose] {
        let message = captions::message(triplets);
        assert!(message.windows(3).all(|w| w[0] > 0 || w[1] > 0 || w[2] > 3), "nothing to be escaped: {message:?}");
        for (codec, slice) in [(Codec::H264, &[0x65, 9][..]), (Codec::H265, &[0x26, 1, 9])] {
            let length = u32::try_from(slice.len()).expect("two or three").to_be_bytes();
            let with = captions::insert(codec, &Bytes::from([&length, slice].concat()), &message);
            let annexb = [&[0, 0, 0, 1], &with[4..with.len() - slice.len() - 4], &[0, 0, 0, 1], slice].concat();
            let mut again = Vec::new();
            assert!(captions::read(codec, false, &annexb, &mut again));
            assert_eq!(&again[..], &triplets[..triplets.len().min(TRIPLETS_MAX)]);
        }
    }
    let picture = Bytes::copy_from_slice(unit);
    let with = captions::insert(codec, &picture, b"xyz");
    assert!(with == picture || with.len() > picture.len() + 3 + 4);
}

fn adts(input: &[u8]) {
    for at in 0..input.len() {
        let Some(header) = Header::parse(&input[at..]) else { continue };
        assert!(header.frame_bytes > header.header_bytes && header.frame_bytes < 1 << 13, "{header:?}");
        let config = header.fixed.config();
        assert!(config.sample_rate > 0 && config.channels <= 8 && (1..=4).contains(&header.blocks));
        let asc = AudioSpecificConfig::parse(&config.asc).expect("a configuration of our own");
        assert_eq!((asc.object_type, asc.sample_rate), (config.object_type, config.sample_rate));
        assert_eq!(asc.channel_configuration, header.fixed.channel_configuration);
        let payload = header.frame_bytes - header.header_bytes;
        let written = Header::write(header.fixed, payload).expect("what was read fits");
        let again = Header::parse(&written).expect("a header of our own");
        assert_eq!((again.fixed, again.frame_bytes, again.blocks), (header.fixed, payload + HEADER_BYTES, 1));
        if config.passes_through() {
            let section = InitSection::audio(&config, 128_000);
            let init = read::init(&section.bytes).expect("an init section of our own");
            assert_eq!((init.timescale, init.video), (config.sample_rate, false));
        }
    }
    if let Some(asc) = AudioSpecificConfig::parse(input) {
        assert!(asc.object_type < 96 && asc.sample_rate < 1 << 24 && asc.channel_configuration < 16);
    }
}

fn logo(input: &[u8]) {
    let Ok(pixels) = LogoPixels::read(input) else { return };
    let (width, height) = pixels.size();
    assert!(width > 0 && height > 0);
    if width * height <= 64 * 64 {
        assert_eq!(pixels.scaled(6, 4, Hundredths(50)).len(), 6 * 4 * 4);
    }
}
