//! The demuxer against libavformat, on clips made by the real ffmpeg, whole and damaged.

#[path = "support/clips.rs"]
mod clips;
#[path = "support/random.rs"]
mod random;
#[path = "support/ts_builder.rs"]
#[expect(dead_code, reason = "tests/demux.rs turns the other knobs")]
mod ts_builder;

use std::collections::HashSet;
use std::process::Command;

use clips::{Packet, clip, oracle};
use random::Random;
use rung::bitstream::aac::adts::{Fixed, Header};
use rung::bitstream::annexb::nal_units;
use rung::demux::{Counters, Demuxer, Event};
use rung::media::access_unit::AccessUnit;
use rung::media::fault::{Fault, FaultKind};
use rung::media::track::{Codec, TrackConfig, VideoConfig};
use rung::mpegts::Muxer;
use rung::time::Mono;
use ts_builder::{Coding, TsBuilder};

const SOURCE: &str = "-f lavfi -i testsrc2=s=640x360:r=25 -f lavfi -i sine=r=48000 -t 12 -c:a aac -b:a 128k -ac 2";

fn main_clip() -> Vec<u8> {
    clip("main", &format!("{SOURCE} -c:v libx264 -preset veryfast -g 50 -bf 2 -b:v 2M -maxrate 2M -bufsize 2M"))
}

struct Run {
    events: Vec<Event>,
    counters: Counters,
}

impl Run {
    fn of(stream: &[u8], chunk: usize) -> Run {
        let (mut demuxer, mut events) = (Demuxer::new(), Vec::new());
        for piece in stream.chunks(chunk) {
            demuxer.push(Mono(1), piece);
            events.extend(std::iter::from_fn(|| demuxer.poll()));
        }
        demuxer.flush(Mono(1));
        events.extend(std::iter::from_fn(|| demuxer.poll()));
        Run { events, counters: demuxer.counters() }
    }

    fn units(&self) -> impl Iterator<Item = &AccessUnit> {
        self.events.iter().filter_map(|e| if let Event::Unit(unit) = e { Some(unit) } else { None })
    }

    fn faults(&self) -> impl Iterator<Item = &Fault> {
        self.events.iter().filter_map(|e| if let Event::Fault(fault) = e { Some(fault) } else { None })
    }

    /// In libavformat's terms.
    fn packets(&self, video: bool) -> Vec<Packet> {
        let ours = |unit: &AccessUnit| Packet {
            video,
            pts: Some(unit.pts.raw33()),
            dts: Some(unit.dts.raw33()),
            key: unit.random_access,
            corrupt: unit.damaged,
            data: unit.data.to_vec(),
        };
        self.units().filter(|unit| unit.codec.is_video() == video).map(ours).collect()
    }
}

/// Libavformat's packets of a track with data in our form: 4-byte start codes and no delimiter; no ADTS header.
fn theirs(packets: &[Packet], video: bool) -> Vec<Packet> {
    theirs_of(Codec::H264, packets, video)
}

fn theirs_of(codec: Codec, packets: &[Packet], video: bool) -> Vec<Packet> {
    let delimiter = |unit: &[u8]| if codec == Codec::H265 { unit[0] >> 1 & 63 == 35 } else { unit[0] & 31 == 9 };
    let in_our_form = |packet: &Packet| {
        let data = if video && codec == Codec::Mpeg2Video {
            packet.data.clone()
        } else if video {
            let units = nal_units(&packet.data).filter(|unit| !delimiter(unit));
            units.flat_map(|unit| [&[0, 0, 0, 1], unit].concat()).collect()
        } else {
            packet.data.get(7..).unwrap_or_default().to_vec()
        };
        Packet { data, ..packet.clone() }
    };
    packets.iter().filter(|packet| packet.video == video).map(in_our_form).collect()
}

fn assert_same(ours: &[Packet], theirs: &[Packet], what: &str) {
    for (n, (a, b)) in ours.iter().zip(theirs).enumerate() {
        assert_eq!((a.pts, a.dts, a.key), (b.pts, b.dts, b.key), "{what}: unit {n}");
        assert!(a.data == b.data, "{what}: unit {n} has {} bytes, theirs {}", a.data.len(), b.data.len());
    }
    assert_eq!(ours.len(), theirs.len(), "{what}: units");
}

#[test]
fn a_clean_clip_gives_the_units_that_libavformat_gives() {
    let stream = main_clip();
    let (run, packets) = (Run::of(&stream, 1316), oracle(&stream));
    for video in [true, false] {
        assert_same(&run.packets(video), &theirs(&packets, video), if video { "video" } else { "audio" });
    }
    assert_eq!(run.faults().collect::<Vec<_>>(), Vec::<&Fault>::new());
    assert_eq!(run.counters.damaged_units, 0);
}

/// Ways to code and to packetize, each a thing that once broke somebody's demuxer.
const KINDS: [(&str, &str); 12] = [
    (
        "b-pyramid and open GOP",
        "-c:v libx264 -preset veryfast -x264-params open-gop=1:bframes=3:b-pyramid=normal -g 30",
    ),
    ("four slices", "-c:v libx264 -preset veryfast -x264-params slices=4:bframes=2 -g 50"),
    ("baseline", "-c:v libx264 -preset veryfast -profile:v baseline -g 25"),
    ("interlaced (MBAFF)", "-c:v libx264 -preset veryfast -flags +ilme+ildct -x264opts tff=1 -g 50"),
    ("intra refresh", "-c:v libx264 -preset veryfast -x264-params intra-refresh=1:bframes=0 -g 50"),
    ("no B-frames, sliced threads", "-c:v libx264 -preset ultrafast -tune zerolatency -g 50"),
    ("29.97", "-r 30000/1001 -c:v libx264 -preset veryfast -g 60"),
    ("bounded video PES", "-c:v libx264 -preset veryfast -omit_video_pes_length 0 -g 50"),
    ("33-bit wrap inside", "-c:v libx264 -preset veryfast -g 50 -output_ts_offset 95438"),
    ("constant rate", "-c:v libx264 -preset veryfast -g 50 -muxrate 3M"),
    ("192 bytes a packet", "-c:v libx264 -preset veryfast -g 50 -mpegts_m2ts_mode 1 -an"),
    ("filler and HRD", "-c:v libx264 -preset veryfast -g 50 -b:v 1M -maxrate 1M -bufsize 1M -x264-params nal-hrd=cbr"),
];

#[test]
fn every_way_to_code_gives_the_units_that_libavformat_gives() {
    for (what, arguments) in KINDS {
        let source = SOURCE.replace("640x360", "320x180").replace("-t 12", "-t 8");
        let stream = clip("kind", &format!("{source} {arguments}"));
        let (run, packets) = (Run::of(&stream, 1316), oracle(&stream));
        let mut video = theirs(&packets, true);
        let ours = run.packets(true);
        // Libavformat calls recovery points key frames; here only an IDR picture is.
        for packet in &mut video {
            packet.key = nal_units(&packet.data).any(|unit| unit[0] & 31 == 5);
        }
        assert_same(&ours, &video, what);
        assert_same(&run.packets(false), &theirs(&packets, false), what);
        assert_eq!(run.faults().collect::<Vec<_>>(), Vec::<&Fault>::new(), "{what}");
        assert!(run.counters.pes_packets >= 200 && run.counters.pts_errors == 0, "{what}: {:?}", run.counters);
    }
}

/// The same for the other codecs.
const OTHERS: [(&str, Codec, &str); 12] = [
    (
        "HEVC, open GOPs, B pyramid",
        Codec::H265,
        "-c:v libx265 -preset ultrafast -x265-params bframes=4:b-pyramid=1:keyint=25",
    ),
    (
        "HEVC 10 bit, closed GOPs",
        Codec::H265,
        "-pix_fmt yuv420p10le -c:v libx265 -preset ultrafast -x265-params open-gop=0:keyint=50",
    ),
    (
        "HEVC, four slices, no reordering",
        Codec::H265,
        "-c:v libx265 -preset ultrafast -x265-params slices=4:bframes=0:keyint=50",
    ),
    (
        "HEVC, wavefronts, delimiters, HRD",
        Codec::H265,
        "-c:v libx265 -preset ultrafast -b:v 500k -x265-params aud=1:hrd=1:wpp=1:repeat-headers=1:vbv-maxrate=500:vbv-bufsize=500",
    ),
    (
        "HEVC of an odd size, bounded PES",
        Codec::H265,
        "-vf scale=318:178 -c:v libx265 -preset ultrafast -omit_video_pes_length 0",
    ),
    ("HEVC over the 33-bit wrap", Codec::H265, "-c:v libx265 -preset ultrafast -output_ts_offset 95438"),
    (
        "HEVC, temporal layers, constant rate",
        Codec::H265,
        "-c:v libx265 -preset ultrafast -x265-params temporal-layers=2:bframes=4 -muxrate 3M",
    ),
    ("MPEG-2, B pictures", Codec::Mpeg2Video, "-c:v mpeg2video -bf 2 -g 12 -b:v 2M"),
    (
        "MPEG-2 interlaced, bounded PES",
        Codec::Mpeg2Video,
        "-c:v mpeg2video -bf 2 -g 15 -flags +ilme+ildct -top 1 -omit_video_pes_length 0",
    ),
    (
        "MPEG-2 of an odd size, no reordering",
        Codec::Mpeg2Video,
        "-vf scale=318:178 -c:v mpeg2video -bf 0 -g 25 -flags +low_delay",
    ),
    (
        "MPEG-2, many slices a row, constant rate",
        Codec::Mpeg2Video,
        "-c:v mpeg2video -bf 1 -g 25 -b:v 1M -minrate 1M -maxrate 1M -bufsize 1M -muxrate 3M",
    ),
    (
        "MPEG-2 29.97, closed GOPs",
        Codec::Mpeg2Video,
        "-r 30000/1001 -c:v mpeg2video -bf 2 -g 30 -flags +cgop -sc_threshold 1000000000",
    ),
];

#[test]
fn hevc_and_mpeg2_give_the_units_that_libavformat_gives() {
    for (what, codec, arguments) in OTHERS {
        let source = SOURCE.replace("640x360", "320x180").replace("-t 12", "-t 5");
        let arguments = arguments.replace("x265-params ", "x265-params log-level=none:");
        let arguments = if arguments.contains("log-level") || codec != Codec::H265 {
            arguments
        } else {
            format!("{arguments} -x265-params log-level=none")
        };
        let stream = clip("other", &format!("{source} {arguments}"));
        let (run, packets) = (Run::of(&stream, 1316), oracle(&stream));
        let mut video = theirs_of(codec, &packets, true);
        for packet in &mut video {
            packet.key = is_random_access(codec, &packet.data);
        }
        assert_same(&run.packets(true), &video, what);
        assert_same(&run.packets(false), &theirs(&packets, false), what);
        assert!(video.iter().filter(|packet| packet.key).count() >= 1 && video.len() >= 125, "{what}");
        assert_eq!(run.faults().collect::<Vec<_>>(), Vec::<&Fault>::new(), "{what}");
        assert_eq!((run.counters.undecodable_units, run.counters.damaged_units), (0, 0), "{what}");
    }
}

/// A picture of 16 to 21; an I picture behind a sequence header.
fn is_random_access(codec: Codec, data: &[u8]) -> bool {
    let mut units = nal_units(data);
    match codec {
        Codec::H265 => units.any(|unit| (16..=21).contains(&(unit[0] >> 1 & 63))),
        _ => {
            units.next().is_some_and(|unit| unit[0] == 0xB3)
                && data.windows(6).any(|w| w[..4] == [0, 0, 1, 0] && w[5] >> 3 & 7 == 1)
        }
    }
}

/// The damage table of what links and recorders do: as many units survive as in libavformat, and what loss touched says
/// so.
#[test]
fn damaged_streams_lose_no_more_than_with_libavformat() {
    let clean = main_clip();
    let whole = oracle(&clean);
    for (what, damage) in DAMAGE {
        for seed in 1..=3 {
            let stream = damage(clean.clone(), &mut Random(seed));
            let (run, packets) = (Run::of(&stream, 1316), oracle(&stream));
            for video in [true, false] {
                let clean: HashSet<(Option<u64>, Vec<u8>)> =
                    theirs(&whole, video).into_iter().map(|p| (p.pts, p.data)).collect();
                let intact = |p: &&Packet| clean.contains(&(p.pts, p.data.clone()));
                let (ours, theirs) = (run.packets(video), theirs(&packets, video));
                let (mine, their) = (ours.iter().filter(intact).count(), theirs.iter().filter(intact).count());
                let line = format!("{what}, seed {seed}, video {video}: {mine} units intact, libavformat {their}");
                // A hole of unknown length may shift the audio frames behind it until the next PES packet's time stamp.
                let slack = if video { 1 } else { 8 };
                assert!(mine + slack >= their && mine >= clean.len() / 3, "{line}");
                assert!(ours.len() <= clean.len() && ours.len() + 12 >= theirs.len().min(clean.len()), "{line}");
                if !what.contains("bit") {
                    let silent = ours.iter().filter(|p| !p.corrupt && !intact(p)).count();
                    // A burst inside a PES packet's last packet shows only when its unit is out already: of 20 bursts
                    // at random places one or two do that.
                    assert!(silent <= 2, "{line}; {silent} damaged units are not flagged");
                }
                println!("{line}; of {}, {} flagged", clean.len(), ours.iter().filter(|p| p.corrupt).count());
            }
        }
    }
}

type Damage = fn(Vec<u8>, &mut Random) -> Vec<u8>;

const DAMAGE: [(&str, Damage); 5] = [
    ("starts in mid-packet", |stream, _| stream[100..].to_vec()),
    ("20 garbage bursts", |stream, random| {
        let mut cuts: Vec<usize> = (0..20).map(|_| random.below(stream.len() / 188) * 188).collect();
        cuts.sort_unstable();
        insert(&stream, &cuts, random)
    }),
    ("20 bursts in mid-packet", |stream, random| {
        let mut cuts: Vec<usize> = (0..20).map(|_| random.below(stream.len())).collect();
        cuts.sort_unstable();
        insert(&stream, &cuts, random)
    }),
    ("0.1 % of packets dropped", |stream, random| {
        stream.chunks(188).filter(|_| random.below(1000) > 0).flatten().copied().collect()
    }),
    ("a bit flipped every 20 kB", |mut stream, random| {
        for block in stream.chunks_mut(20_000) {
            let bit = random.below(block.len() * 8);
            block[bit / 8] ^= 1 << (bit % 8);
        }
        stream
    }),
];

/// Bursts of up to 2000 random bytes at these places.
fn insert(stream: &[u8], cuts: &[usize], random: &mut Random) -> Vec<u8> {
    let (mut out, mut at) = (Vec::new(), 0);
    for cut in cuts {
        out.extend_from_slice(&stream[at..*cut]);
        at = *cut;
        out.extend((0..random.below(2000)).map(|_| random.next() as u8));
    }
    out.extend_from_slice(&stream[at..]);
    out
}

/// What ffprobe says at level warning: nothing, and how many frames decode.
fn probe(stream: &[u8]) -> (String, String) {
    let file = tempfile::Builder::new().suffix(".ts").tempfile_in(clips::folder()).expect("a temporary file");
    std::fs::write(file.path(), stream).expect("room for a clip");
    let output = Command::new("ffprobe")
        .args(["-v", "warning", "-count_frames", "-show_entries", "stream=codec_name,nb_read_frames", "-of", "csv=p=0"])
        .arg(file.path())
        .output()
        .expect("ffprobe is installed");
    let [complaints, found] =
        [output.stderr, output.stdout].map(|b| String::from_utf8(b).expect("ffprobe writes ASCII"));
    // The same streams come twice: by program, and on their own.
    let found = found.split("\n\n").next().expect("one part at least").trim().to_owned();
    (complaints, found)
}

#[test]
fn what_the_muxer_writes_is_read_back_by_libavformat_without_complaint() {
    let source = Run::of(&main_clip(), 1316);
    // From the clip's own times, and over the 33-bit wrap.
    for shift in [0, (1 << 33) - 400_000] {
        let (mut muxer, mut stream) = (Muxer::new(true, true), Vec::new());
        for unit in source.units() {
            let (pts, dts) = (unit.pts.0 + shift, unit.dts.0 + shift);
            if unit.codec.is_video() {
                muxer.video(pts, dts, unit.random_access, &unit.data, &mut stream);
            } else {
                let fixed = Fixed { object_type: 2, rate_index: 3, channel_configuration: 2 };
                let header = Header::write(fixed, unit.data.len()).expect("a short frame");
                muxer.audio(pts, &[&header[..], &unit.data].concat(), &mut stream);
            }
        }
        let packets = oracle(&stream);
        let again = Run::of(&stream, 188);
        for video in [true, false] {
            let mut sent = source.packets(video);
            for packet in &mut sent {
                packet.pts = packet.pts.map(|t| (t as i64 + shift).rem_euclid(1 << 33) as u64);
                packet.dts = packet.dts.map(|t| (t as i64 + shift).rem_euclid(1 << 33) as u64);
            }
            assert_same(&theirs(&packets, video), &sent, "libavformat");
            assert_same(&again.packets(video), &sent, "own demuxer");
        }
        assert_eq!(again.faults().collect::<Vec<_>>(), Vec::<&Fault>::new());
        assert_eq!((again.counters.pcr_errors, again.counters.continuity_errors), (0, 0));
        assert_eq!(probe(&stream), (String::new(), "h264,300\naac,564".into()));
    }
}

#[test]
fn what_the_builder_writes_is_decoded_by_libavcodec_without_complaint() {
    for coding in [Coding::Frames, Coding::Reordered, Coding::FieldPairs, Coding::FieldPairsTogether] {
        let stream = TsBuilder::h264().audio().coding(coding).frames(75).build();
        assert_eq!(probe(&stream), (String::new(), "h264,75\naac,141".into()), "{coding:?}");
    }
}

#[test]
fn what_is_not_taken_is_named_once_with_what_to_do() {
    let cases = [
        ("-c:v mpeg2video -c:a mp2", [Codec::Mpeg2Video, Codec::MpegAudio]),
        ("-c:v libx264 -preset ultrafast -c:a ac3", [Codec::H264, Codec::Ac3]),
        ("-c:v libx264 -preset ultrafast -c:a eac3", [Codec::H264, Codec::Eac3]),
        ("-c:v libx264 -preset ultrafast -c:a aac -mpegts_flags latm", [Codec::H264, Codec::AacLatm]),
        ("-c:v libx264 -preset ultrafast -c:a libopus", [Codec::H264, Codec::Opus]),
        ("-c:v libx265 -preset ultrafast -x265-params log-level=none -c:a aac", [Codec::H265, Codec::Aac]),
    ];
    for (arguments, codecs) in cases {
        let source = "-f lavfi -i testsrc2=s=160x120:r=25 -f lavfi -i sine=r=48000 -t 3 -ac 2";
        let run = Run::of(&clip("codec", &format!("{source} {arguments}")), 1316);
        let program = run.events.iter().find_map(|e| if let Event::Program(p) = e { Some(p) } else { None });
        let found: Vec<Codec> = program.expect("a program").tracks.iter().map(|t| t.codec).collect();
        assert_eq!(found, codecs, "{arguments}");
        let taken = |codec: &Codec| codec.is_video() || *codec == Codec::Aac;
        let refused: Vec<&Fault> = run.faults().collect();
        assert_eq!(refused.len(), codecs.iter().filter(|c| !taken(c)).count(), "{refused:?}");
        assert!(
            refused.iter().all(|f| f.kind == FaultKind::UnsupportedCodec && f.detail.contains("set the encoder to"))
        );
        for codec in codecs {
            assert_eq!(run.units().any(|u| u.codec == codec), taken(&codec), "{arguments}");
        }
    }
}

fn pixel_format(v: &VideoConfig) -> String {
    let (sub, deep) = (if v.chroma_format == 2 { 422 } else { 420 }, v.bit_depth > 8);
    let range = if v.colour.full_range && !deep { "j" } else { "" };
    format!("yuv{range}{sub}p{}", if deep { "10le" } else { "" })
}

#[test]
fn the_configuration_says_what_ffprobe_says() {
    let cases = [
        "-f lavfi -i testsrc2=s=1920x1080:r=30000/1001 -t 1 -c:v libx264 -preset ultrafast",
        "-f lavfi -i testsrc2=s=720x576:r=25,setsar=16/11 -t 1 -c:v libx264 -preset veryfast -colorspace bt470bg \
         -color_primaries bt470bg -color_trc gamma28 -flags +ilme+ildct",
        "-f lavfi -i testsrc2=s=426x238:r=50,format=yuv422p10 -t 1 -c:v libx264 -preset veryfast -profile:v high422 \
         -colorspace bt709 -color_primaries bt709 -color_trc bt709 -color_range pc",
        "-f lavfi -i testsrc2=s=1918x1078:r=30000/1001 -t 1 -c:v libx265 -preset ultrafast -x265-params log-level=none",
        "-f lavfi -i testsrc2=s=318x178:r=50,setsar=40/33,format=yuv420p10le -t 1 -c:v libx265 -preset slow \
         -x265-params log-level=none:colorprim=bt709:transfer=bt709:colormatrix=bt709:range=full:scaling-list=default",
        "-f lavfi -i testsrc2=s=720x576:r=25,setsar=64/45 -t 1 -c:v mpeg2video -flags +ilme+ildct -top 1 \
         -colorspace bt470bg -color_primaries bt470bg -color_trc gamma28",
        "-f lavfi -i testsrc2=s=426x238:r=60000/1001 -t 1 -c:v mpeg2video -pix_fmt yuv422p",
    ];
    for arguments in cases {
        let run = Run::of(&clip("config", arguments), 1316);
        let config = run.events.iter().find_map(|e| match e {
            Event::Config { config: TrackConfig::Video(config), .. } => Some(config),
            _ => None,
        });
        let v = config.expect("a configuration");
        let rate = v.rate.expect("x264 writes timing");
        let name = |value: u8| match value {
            1 => "bt709",
            4 => "gamma28",
            5 => "bt470bg",
            _ => "unknown",
        };
        let ours = [
            format!("width={}", v.width),
            format!("height={}", v.height),
            format!("sample_aspect_ratio={}:{}", v.sar.0, v.sar.1),
            format!("r_frame_rate={}/{}", rate.num, rate.den),
            format!("color_range={}", if v.colour.full_range { "pc" } else { "unknown" }),
            format!("color_space={}", name(v.colour.matrix)),
            format!("color_transfer={}", name(v.colour.transfer)),
            format!("color_primaries={}", name(v.colour.primaries)),
            format!("level={}", if v.codec == Codec::Mpeg2Video { v.profile[0] & 15 } else { v.profile[2] }),
            format!("pix_fmt={}", pixel_format(v)),
        ];
        let path = clips::clip_path("config", arguments);
        let probe = Command::new("ffprobe").args(["-v", "error", "-show_streams"]).arg(path).output();
        let theirs = String::from_utf8(probe.expect("ffprobe is installed").stdout).expect("ASCII");
        for line in ours {
            // Libavformat writes "tv" where a limited range is said out loud.
            let said = theirs.lines().any(|l| l == line || (line == "color_range=unknown" && l == "color_range=tv"));
            assert!(said, "{arguments}: ours {line}, theirs\n{theirs}");
        }
        assert_eq!(v.interlaced, arguments.contains("ildct"));
        if v.codec != Codec::H264 {
            continue;
        }
        let avcc = rung::bitstream::h264::decoder_configuration(&v.sps, &v.pps).expect("the SPS parses");
        assert_eq!((avcc[0], &avcc[1..4], &avcc[8..8 + v.sps.len()]), (1, &v.profile[..], &v.sps[..]));
    }
}

#[test]
fn six_thousand_mutations_of_a_real_clip_neither_panic_nor_grow() {
    mutate(&main_clip(), 300);
}

#[test]
fn mutations_of_other_codecs_neither_panic_nor_grow() {
    let source = SOURCE.replace("640x360", "320x180").replace("-t 12", "-t 5");
    let hevc = "-c:v libx265 -preset ultrafast -x265-params log-level=none:slices=4:keyint=25";
    mutate(&clip("other", &format!("{source} {hevc}")), 100);
    mutate(&clip("other", &format!("{source} -c:v mpeg2video -bf 2 -g 12 -b:v 2M")), 100);
}

fn mutate(clip: &[u8], rounds: usize) {
    let clean = &clip[..(188 * 1_000).min(clip.len())];
    let mut random = Random(99);
    let (mut units, mut flagged) = (0, 0);
    for round in 0..rounds {
        let mut stream = clean.to_vec();
        for _ in 0..20 {
            let at = random.below(stream.len());
            match random.below(4) {
                0 => stream[at] ^= 1 << random.below(8),
                1 => stream[at] = random.next() as u8,
                2 => drop(stream.drain(at..(at + random.below(500)).min(stream.len()))),
                _ => {
                    let end = (at + random.below(100)).min(stream.len());
                    stream[at..end].fill([0, 0xFF, 0x47][random.below(3)]);
                }
            }
        }
        let run = Run::of(&stream, 1 + random.below(3_000));
        let bytes: usize = run.units().map(|u| u.data.len()).sum();
        assert!(bytes <= stream.len(), "round {round}: {bytes} bytes out of {}", stream.len());
        assert!(run.events.len() < 2_000, "round {round}: {} events", run.events.len());
        units += run.units().count();
        flagged += run.units().filter(|u| u.damaged).count();
    }
    let whole = Run::of(clean, 1316).units().count();
    assert!(units > rounds * whole / 2, "{units} units of {}", rounds * whole);
    assert!(flagged > rounds);
}
