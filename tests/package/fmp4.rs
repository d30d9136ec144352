//! Media read back by others: mp4-atom (an independent parser), ffprobe and ffmpeg.

use bytes::Bytes;
use mp4_atom::{Atom, Codec, Decode, DecodeMaybe, Ftyp, Header, Moof, Moov, ReadFrom};
use rung::media::access_unit::AccessUnit;
use rung::media::channel::VideoCodec;
use rung::media::grid::{Cadence, Grid, PdtLine};
use rung::media::modes::LatencyMode;
use rung::media::sample::{Sample, Stamps};
use rung::media::track::{AudioConfig, Codec as TrackCodec, VideoConfig};
use rung::package::fmp4::fragment::{fragment, sequence_number};
use rung::package::fmp4::init::InitSection;
use rung::package::fmp4::read;
use rung::package::segmenter::{Cut, Segmenter};
use rung::package::window::{Answer, Kind, RenditionOutput};
use rung::time::Wall;
use std::path::Path;
use std::process::Command;

use crate::world::{MSN0, World, at, audio_config, video_config};

fn moov(init: &InitSection) -> Moov {
    let mut bytes = &init.bytes[..];
    let ftyp = Ftyp::read_from(&mut bytes).unwrap();
    assert_eq!(ftyp.major_brand, b"cmf2".into());
    let moov = Moov::read_from(&mut bytes).unwrap();
    assert!(bytes.is_empty(), "nothing follows moov");
    moov
}

#[test]
fn a_video_init_section_says_what_the_stream_says() {
    let config = video_config();
    let moov = moov(&InitSection::video(&config, 25_000, 2_800_000));
    let trak = &moov.trak[0];
    assert_eq!(trak.mdia.mdhd.timescale, 25_000);
    assert_eq!((trak.tkhd.width.integer(), trak.tkhd.height.integer()), (640, 360));
    let Codec::Avc1(avc1) = &trak.mdia.minf.stbl.stsd.codecs[0] else { panic!("{:?}", trak.mdia.minf.stbl.stsd) };
    assert_eq!((avc1.visual.width, avc1.visual.height), (640, 360));
    assert_eq!(avc1.avcc.sequence_parameter_sets, [config.sps.to_vec()]);
    assert_eq!(avc1.avcc.picture_parameter_sets, [config.pps[0].to_vec()]);
    assert_eq!((avc1.avcc.avc_profile_indication, avc1.avcc.avc_level_indication), (0x64, 0x1e));
    assert_eq!(avc1.avcc.length_size, 4);
    assert!(avc1.colr.is_some() && avc1.pasp.is_some());
    assert_eq!(avc1.btrt.as_ref().unwrap().max_bitrate, 2_800_000);
    assert_eq!(moov.mvex.unwrap().trex[0].track_id, 1);
}

#[test]
fn an_audio_init_section_says_what_the_stream_says() {
    for (rate, index) in [(44_100u32, 4u8), (48_000, 3)] {
        let moov = moov(&InitSection::audio(&audio_config(rate), 128_000));
        let trak = &moov.trak[0];
        assert_eq!(trak.mdia.mdhd.timescale, rate);
        let Codec::Mp4a(mp4a) = &trak.mdia.minf.stbl.stsd.codecs[0] else { panic!("no mp4a") };
        assert_eq!((mp4a.audio.channel_count, mp4a.audio.sample_rate.integer()), (2, u16::try_from(rate).unwrap()));
        let specific = mp4a.esds.es_desc.dec_config.dec_specific.clone().unwrap();
        assert_eq!((specific.profile, specific.freq_index), (2, index));
        assert_eq!(specific.chan_conf, 2);
    }
}

fn samples() -> Vec<Sample> {
    let sample = |dts, duration, cto, sync, size: usize| Sample {
        dts,
        duration,
        cto,
        sync,
        data: Bytes::from(vec![7; size]),
        stamps: Stamps::default(),
    };
    vec![
        sample(9_000, 3_000, 0, true, 100),
        sample(12_000, 3_000, -3_000, false, 50),
        sample(15_000, 4_000, 6_000, false, 25),
    ]
}

/// Both readers must see this.
fn check(samples: &[Sample]) {
    let bytes = fragment(sequence_number(MSN0, 3), samples);
    let mut rest = &bytes[..];
    let moof = Moof::read_from(&mut rest).unwrap();
    let traf = &moof.traf[0];
    assert_eq!(traf.tfdt.as_ref().unwrap().base_media_decode_time, u64::try_from(samples[0].dts).unwrap());
    assert_eq!(traf.tfhd.base_data_offset, None);
    let trun = &traf.trun[0];
    assert_eq!(trun.data_offset, Some(i32::try_from(bytes.len() - rest.len() + 8).unwrap()), "behind mdat's header");
    let header = Header::decode_maybe(&mut rest).unwrap().unwrap();
    let body: usize = samples.iter().map(|s| s.data.len()).sum();
    assert_eq!((header.kind, header.size), (mp4_atom::Mdat::KIND, Some(body)));
    assert_eq!(rest.len(), body);
    for (wanted, entry) in samples.iter().zip(&trun.samples) {
        assert_eq!(entry.duration.or(traf.tfhd.default_sample_duration), Some(wanted.duration));
        assert_eq!(entry.size, Some(u32::try_from(wanted.data.len()).unwrap()));
        let flags = entry.flags.or(traf.tfhd.default_sample_flags).unwrap();
        assert_eq!(flags & 0x1_0000 == 0, wanted.sync);
        assert_eq!(entry.cts.unwrap_or(0), i64::from(wanted.cto));
    }
    let ours = read::fragments(&bytes).unwrap();
    assert_eq!(ours.len(), 1);
    for (wanted, found) in samples.iter().zip(&ours[0].samples) {
        assert_eq!((found.duration, found.cto, found.sync), (wanted.duration, wanted.cto, wanted.sync));
        assert_eq!((&bytes[found.data.clone()], found.dts), (&wanted.data[..], u64::try_from(wanted.dts).unwrap()));
    }
}

#[test]
fn an_independent_parser_reads_parts_of_every_shape() {
    let all = samples();
    check(&all);
    check(&all[..2]);
    check(&all[1..2]);
    check(&all[2..]);
    let plain = |s: &Sample| Sample { dts: s.dts / 3_000 * 1_024, cto: 0, sync: true, duration: 1_024, ..s.clone() };
    let plain: Vec<Sample> = all.iter().map(plain).collect();
    check(&plain);
}

#[test]
fn a_part_is_one_buffer_and_a_function_of_its_samples() {
    let bytes = fragment(1, &samples());
    assert_eq!(bytes, fragment(1, &samples()));
    assert_ne!(bytes, fragment(2, &samples()));
    assert_eq!(sequence_number(MSN0, 1), sequence_number(MSN0, 0) + 1);
    assert_eq!(sequence_number(MSN0 + 1, 0), sequence_number(MSN0, 0) + 64);
}

#[test]
fn the_reader_survives_any_bytes() {
    let good =
        [InitSection::video(&video_config(), 90_000, 1).bytes.to_vec(), fragment(1, &samples()).to_vec()].concat();
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed >> 16).unwrap()
    };
    for _ in 0..20_000 {
        let mut bytes = good.clone();
        for _ in 0..random() % 8 {
            let at = random() % bytes.len();
            bytes[at] = u8::try_from(random() & 0xff).unwrap();
        }
        bytes.truncate(random() % (good.len() + 1));
        // Nothing may panic, and whatever is read lies within the bytes.
        for fragment in read::fragments(&bytes).into_iter().flatten() {
            assert!(fragment.samples.iter().all(|s| s.data.end <= bytes.len()));
        }
        read::init(&bytes);
        read::nal_types(VideoCodec::H264, &bytes);
        read::nal_types(VideoCodec::Hevc, &bytes);
    }
}

fn run(command: &mut Command) -> String {
    let output = command.output().expect("ffmpeg is installed");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && errors.is_empty(), "{command:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// NAL units of an Annex B file, without start codes.
fn nals(file: &[u8]) -> Vec<&[u8]> {
    let starts: Vec<usize> =
        file.windows(3).enumerate().filter(|(_, w)| *w == [0, 0, 1]).map(|(at, _)| at + 3).collect();
    let ends = starts[1..].iter().map(|s| s - 3).chain([file.len()]);
    starts.iter().zip(ends).map(|(s, e)| file[*s..e].strip_suffix(&[0]).unwrap_or(&file[*s..e])).collect()
}

/// Coded pictures of real H.264: parameter sets taken out, one slice a picture.
fn pictures(file: &[u8]) -> (VideoConfig, Vec<AccessUnit>) {
    let mut config = video_config();
    let mut units = Vec::new();
    for nal in nals(file) {
        match nal[0] & 0x1f {
            7 => (config.profile, config.sps) = ([nal[1], nal[2], nal[3]], Bytes::copy_from_slice(nal)),
            8 => config.pps = vec![Bytes::copy_from_slice(nal)],
            kind @ (1 | 5) => {
                let length = u32::try_from(nal.len()).unwrap().to_be_bytes();
                units.push(AccessUnit {
                    pid: 256,
                    codec: TrackCodec::H264,
                    pts: rung::time::Pts(0),
                    dts: rung::time::Dts(0),
                    random_access: kind == 5,
                    damaged: false,
                    received: at(0),
                    data: Bytes::from([&length, nal].concat()),
                });
            }
            _ => {}
        }
    }
    (config, units)
}

/// Raw frames of an ADTS file.
fn frames(mut file: &[u8]) -> Vec<Bytes> {
    let mut found = Vec::new();
    while file.len() > 7 {
        let length = usize::from(file[3] & 3) << 11 | usize::from(file[4]) << 3 | usize::from(file[5]) >> 5;
        found.push(Bytes::copy_from_slice(&file[7..length]));
        file = &file[length..];
    }
    found
}

fn whole(output: &RenditionOutput, segments: u64) -> Vec<u8> {
    let mut file = output.init(0).unwrap().to_vec();
    for k in 0..segments {
        let Answer::Now(media) = output.segment(at(0), at(0), MSN0 + k) else { panic!("segment {k}") };
        media.chunks.iter().for_each(|chunk| file.extend_from_slice(chunk));
    }
    file
}

fn encode(folder: &Path) -> (Vec<u8>, Vec<u8>) {
    let (video, audio) = (folder.join("v.h264"), folder.join("a.aac"));
    let quiet = ["-nostdin", "-v", "error", "-y", "-f", "lavfi", "-i"];
    let x264 = ["-c:v", "libx264", "-preset", "ultrafast", "-bf", "0", "-g", "50", "-x264-params"];
    run(Command::new("ffmpeg")
        .args(quiet)
        .args(["testsrc2=size=640x360:rate=25:duration=6"])
        .args(x264)
        .args(["scenecut=0:sliced-threads=0:slices=1", "-pix_fmt", "yuv420p"])
        .arg(&video));
    run(Command::new("ffmpeg")
        .args(quiet)
        .args(["sine=frequency=440:sample_rate=48000:duration=6", "-c:a", "aac", "-ac", "2"])
        .arg(&audio));
    (std::fs::read(video).unwrap(), std::fs::read(audio).unwrap())
}

#[test]
fn ffmpeg_decodes_real_media_without_a_word() {
    let folder = tempfile::tempdir().unwrap();
    let (video, audio) = encode(folder.path());
    let (config, units) = pictures(&video);
    assert_eq!(units.len(), 150);
    let world = World::new(25.0, LatencyMode::Ultra);
    let grid = Grid { cadence: Cadence::for_rate(25.0, LatencyMode::Ultra), msn0: MSN0 };
    let line = PdtLine { from_n: 0, wall: Wall(0), ppm: 0 };
    let output = RenditionOutput::new(world.spec("360p", Kind::Video { rate: None }, 1_000_000));
    let init = InitSection::video(&config, 25_000, 1_000_000);
    let mut segmenter = Segmenter::new(output.clone(), init, Cut::Frames, grid, line);
    for (n, unit) in units.into_iter().enumerate() {
        let n = i64::try_from(n).unwrap();
        let (sync, data) = (unit.random_access, unit.data);
        let sample = Sample { dts: n * 1_000, duration: 1_000, cto: 0, sync, data, stamps: Stamps::default() };
        segmenter.push(at(0), sample, grid.place_frame(n));
    }
    let sound = RenditionOutput::new(world.spec(
        "a-und-1",
        Kind::Audio { language: None, default: true, role: Default::default() },
        128_000,
    ));
    let config = AudioConfig { ..audio_config(48_000) };
    let init = InitSection::audio(&config, 128_000);
    let mut segmenter = Segmenter::new(sound.clone(), init, Cut::Audio, grid, line);
    for (m, data) in frames(&audio).into_iter().enumerate() {
        let m = i64::try_from(m).unwrap();
        let sample = Sample { dts: m * 1_024, duration: 1_024, cto: 0, sync: true, data, stamps: Stamps::default() };
        segmenter.push(at(0), sample, grid.place_audio(m, 48_000));
    }

    let (v, a) = (folder.path().join("v.mp4"), folder.path().join("a.mp4"));
    std::fs::write(&v, whole(&output, 3)).unwrap();
    std::fs::write(&a, whole(&sound, 2)).unwrap();
    let probe = |file: &Path, entries: &str| {
        run(Command::new("ffprobe").args(["-v", "error", "-of", "csv=p=0", "-show_entries", entries]).arg(file))
    };
    let stream = probe(&v, "stream=codec_name,width,height,color_space,time_base,sample_aspect_ratio");
    assert_eq!(stream.trim(), "h264,640,360,1:1,bt709,1/25000");
    let packets = probe(&v, "packet=pts,dts,duration,flags");
    let rows: Vec<&str> = packets.lines().collect();
    assert_eq!(rows.len(), 150);
    for (n, row) in rows.iter().enumerate() {
        let key = if n % 50 == 0 { "K" } else { "_" };
        assert!(row.starts_with(&format!("{0},{0},1000,{key}", n * 1_000)), "{n}: {row}");
    }
    assert_eq!(probe(&a, "stream=codec_name,sample_rate,channels").trim(), "aac,48000,2");
    assert_eq!(probe(&a, "packet=pts").lines().count(), 188);
    for file in [&v, &a] {
        let decode = ["-f", "null", "-"];
        run(Command::new("ffmpeg").args(["-nostdin", "-v", "warning", "-xerror", "-i"]).arg(file).args(decode));
    }
}

/// B-frames: composition offsets below zero survive the way to ffprobe.
#[test]
fn negative_composition_offsets_are_read_back() {
    let mut file = InitSection::video(&video_config(), 90_000, 0).bytes.to_vec();
    file.extend_from_slice(&fragment(1, &samples()));
    let fragments = read::fragments(&file).unwrap();
    let shown: Vec<i64> =
        fragments[0].samples.iter().map(|s| i64::try_from(s.dts).unwrap() + i64::from(s.cto)).collect();
    assert_eq!(shown, [9_000, 9_000, 21_000]);
    let moof = Moof::decode(&mut &file[InitSection::video(&video_config(), 90_000, 0).bytes.len()..]);
    assert_eq!(moof.unwrap().traf[0].trun[0].samples.iter().nth(1).unwrap().cts, Some(-3_000));
}
