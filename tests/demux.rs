//! The demuxer on streams whose every time stamp and flaw is known.

#[expect(dead_code, reason = "other tests use the rest")]
#[path = "support/cues.rs"]
mod cues;
#[path = "support/random.rs"]
mod random;
#[path = "support/ts_builder.rs"]
mod ts_builder;

use random::Random;
use rung::bitstream::annexb::nal_units;
use rung::demux::{Counters, Demuxer, Event};
use rung::media::access_unit::AccessUnit;
use rung::media::fault::FaultKind;
use rung::media::track::TrackConfig;
use rung::time::Mono;
use ts_builder::{Coding, TsBuilder};

/// Arrival of each byte: 1 ms per packet.
fn run(stream: &[u8], chunk: usize) -> (Vec<Event>, Counters) {
    let (mut demuxer, mut events, mut at) = (Demuxer::new(), Vec::new(), 0u64);
    for piece in stream.chunks(chunk) {
        demuxer.push(Mono(at / 188 * 1_000_000), piece);
        events.extend(std::iter::from_fn(|| demuxer.poll()));
        at += piece.len() as u64;
    }
    demuxer.flush(Mono(at / 188 * 1_000_000));
    events.extend(std::iter::from_fn(|| demuxer.poll()));
    (events, demuxer.counters())
}

fn video(events: &[Event]) -> Vec<AccessUnit> {
    units(events, true)
}

fn units(events: &[Event], video: bool) -> Vec<AccessUnit> {
    let unit = |event: &Event| match event {
        Event::Unit(unit) if unit.codec.is_video() == video => Some(unit.clone()),
        _ => None,
    };
    events.iter().filter_map(unit).collect()
}

fn faults(events: &[Event]) -> Vec<FaultKind> {
    events.iter().filter_map(|e| if let Event::Fault(fault) = e { Some(fault.kind) } else { None }).collect()
}

/// Every unit has the times the builder gave it, and the GOPs start where they should.
fn assert_times(builder: &TsBuilder, gop: usize, found: &[AccessUnit]) {
    for (n, unit) in found.iter().enumerate() {
        assert_eq!((unit.pts.0, unit.dts.0), (builder.pts(n), builder.dts(n)), "unit {n}");
        assert_eq!(unit.random_access, n % gop == 0, "unit {n}");
        assert!(!unit.damaged, "unit {n}");
    }
}

#[test]
fn both_fields_of_a_frame_are_one_unit_in_one_pes_packet_or_in_two() {
    for coding in [Coding::FieldPairs, Coding::FieldPairsTogether] {
        for slices in [1, 2] {
            let builder = TsBuilder::h264().coding(coding).slices(slices).frames(60);
            let (events, _) = run(&builder.build(), 1316);
            let found = video(&events);
            assert_eq!(found.len(), 60, "{coding:?}, {slices} slices");
            assert_times(&builder, 25, &found);
            for unit in &found {
                let pictures = nal_units(&unit.data).filter(|nal| matches!(nal[0] & 31, 1 | 5)).count();
                assert_eq!(pictures, 2 * slices);
            }
            let config = events.iter().find_map(|e| match e {
                Event::Config { config: TrackConfig::Video(config), .. } => Some(config.clone()),
                _ => None,
            });
            let config = config.expect("a configuration");
            assert!(config.interlaced);
            assert_eq!((config.width, config.height, config.rate.map(|r| (r.num, r.den))), (32, 32, Some((25, 1))));
            assert_eq!(faults(&events), []);
        }
    }
}

#[test]
fn units_without_a_time_stamp_get_the_one_they_would_have_had() {
    for coding in [Coding::Frames, Coding::Reordered] {
        for (num, den) in [(25, 1), (30_000, 1_001), (60_000, 1_001)] {
            for units in [2, 5] {
                let builder = TsBuilder::h264().fps(num, den).coding(coding).units_per_pes(units).gop(20).frames(80);
                let found = video(&run(&builder.build(), 1316).0);
                assert_eq!(found.len(), 80);
                for (n, unit) in found.iter().enumerate() {
                    // The builder rounds frame durations down, so do not ask for the last tick.
                    let off = (unit.pts.0 - builder.pts(n)).abs().max((unit.dts.0 - builder.dts(n)).abs());
                    assert!(off <= 2, "{coding:?} {num}/{den}, unit {n}: {} for {}", unit.pts, builder.pts(n));
                }
            }
        }
    }
}

#[test]
fn a_unit_over_several_pes_packets_stays_one() {
    for packets in [2, 3] {
        for slices in [1, 2] {
            let builder = TsBuilder::h264().pes_per_unit(packets).slices(slices).frames(50);
            for stream in [builder.build(), builder.clone().bounded().build()] {
                let (events, _) = run(&stream, 1316);
                let found = video(&events);
                assert_eq!((found.len(), faults(&events)), (50, vec![]), "{packets} {slices}");
                assert_times(&builder, 25, &found);
            }
        }
    }
}

#[test]
fn time_goes_on_over_the_wrap_on_both_tracks() {
    let builder = TsBuilder::h264().audio().start((1 << 33) - 90_000).frames(75);
    let (events, counters) = run(&builder.build(), 1316);
    assert_times(&builder, 25, &video(&events));
    let audio = units(&events, false);
    assert!(audio.len() > 135);
    for (k, unit) in audio.iter().enumerate() {
        assert_eq!(unit.pts.0, builder.dts(0) + k as i64 * 1920);
    }
    let clock: Vec<i64> =
        events.iter().filter_map(|e| if let Event::Pcr { pcr, .. } = e { Some(*pcr) } else { None }).collect();
    assert!(clock.len() > 70 && clock.windows(2).all(|w| w[1] - w[0] == 3_600 * 300));
    assert_eq!((faults(&events), counters.pcr_errors, counters.pts_errors), (vec![], 0, 0));
}

#[test]
fn a_track_that_starts_behind_the_wrap_lands_beside_one_that_started_before() {
    let builder = TsBuilder::h264().audio().start((1 << 33) - 7_200).frames(50);
    // Without its first packets audio begins behind the wrap.
    let packets = builder.packets();
    let late: Vec<u8> =
        packets.iter().enumerate().filter(|(n, p)| *n > 80 || p[2] != 1).flat_map(|(_, p)| *p).collect();
    let (events, _) = run(&late, 1316);
    let (first_video, first_audio) = (&video(&events)[0], &units(&events, false)[0]);
    assert!((0..900_000).contains(&(first_audio.pts.0 - first_video.pts.0)), "{} {}", first_video.pts, first_audio.pts);
}

#[test]
fn a_jump_of_the_clock_is_a_fault_unless_it_was_announced() {
    for (announced, expected) in [(false, vec![FaultKind::PcrJump]), (true, vec![])] {
        let builder = TsBuilder::h264().jump(30, 900_000, announced).frames(60);
        let (events, _) = run(&builder.build(), 1316);
        assert_times(&builder, 25, &video(&events));
        assert_eq!(faults(&events), expected);
        let told = events.iter().filter(|e| matches!(e, Event::Pcr { discontinuity: true, .. })).count();
        assert_eq!(told, 1);
    }
}

#[test]
fn a_packet_sent_twice_is_taken_once() {
    let builder = TsBuilder::h264().audio().frames(50);
    let twice: Vec<u8> = builder.packets().iter().flat_map(|p| [*p, *p]).flatten().collect();
    let (events, counters) = run(&twice, 1316);
    let once = run(&builder.build(), 1316).0;
    assert_eq!(data_of(&video(&events)), data_of(&video(&once)));
    assert_eq!(data_of(&units(&events, false)), data_of(&units(&once, false)));
    assert_eq!((faults(&events), counters.continuity_errors), (vec![], 0));
    assert_eq!(counters.duplicate_packets, builder.packets().len() as u64);
}

fn data_of(units: &[AccessUnit]) -> Vec<(i64, &[u8])> {
    units.iter().map(|unit| (unit.pts.0, &unit.data[..])).collect()
}

#[test]
fn recovery_points_are_told_and_are_no_random_access() {
    let builder = TsBuilder::h264().recovery_points().gop(10).frames(40);
    let (events, _) = run(&builder.build(), 1316);
    let points: Vec<i64> = events
        .iter()
        .filter_map(|e| if let Event::RecoveryPoint { pts, .. } = e { Some(pts.0) } else { None })
        .collect();
    assert_eq!(points, [10, 20, 30].map(|n| builder.pts(n)));
    let keys: Vec<usize> = video(&events).iter().enumerate().filter(|(_, u)| u.random_access).map(|(n, _)| n).collect();
    assert_eq!(keys, [0]);
}

/// Packets from a unit's last byte until it comes out.
fn delays(stream: &[u8]) -> Vec<usize> {
    let mut demuxer = Demuxer::new();
    let (mut last_video, mut delays) = (0, Vec::new());
    for (n, packet) in stream.chunks(188).enumerate() {
        let is_video = packet[1] & 0x1F == 1 && packet[2] == 0;
        demuxer.push(Mono(n as u64), packet);
        while let Some(event) = demuxer.poll() {
            if let Event::Unit(unit) = event
                && unit.codec.is_video()
            {
                assert!(unit.received <= Mono(n as u64));
                delays.push(n - unit.received.0 as usize);
            }
        }
        if is_video {
            last_video = n;
        }
    }
    assert!(last_video > 0);
    delays
}

#[test]
fn once_the_packetizer_is_known_a_unit_comes_out_with_its_last_byte() {
    for builder in [TsBuilder::h264().frames(60).audio(), TsBuilder::h264().frames(60).audio().bounded()] {
        let delays = delays(&builder.build());
        assert!(delays[..5].iter().all(|d| *d > 0), "{delays:?}");
        assert!(delays[20..].iter().all(|d| *d == 0), "{delays:?}");
    }
}

#[test]
fn a_packetizer_that_stuffs_inside_a_picture_costs_one_picture_and_a_fault() {
    let builder = TsBuilder::h264().gop(10).frames(80).stuffing_inside(35);
    let (events, _) = run(&builder.build(), 1316);
    let found = video(&events);
    assert_eq!(faults(&events), [FaultKind::Syntax]);
    let whole = TsBuilder::h264().gop(10).frames(80).build();
    let (whole, _) = run(&whole, 1316);
    let whole = video(&whole);
    assert_eq!(found.len(), 80);
    let cut = found.iter().zip(&whole).filter(|(a, b)| a.data != b.data).count();
    assert_eq!(cut, 1);
    assert!(found.iter().zip(&whole).all(|(a, b)| a.pts == b.pts));
}

#[test]
fn equal_bytes_give_equal_events_however_they_are_cut() {
    let mut random = Random(11);
    for round in 0..12 {
        let coding = [Coding::Frames, Coding::Reordered, Coding::FieldPairs][round % 3];
        let mut stream = TsBuilder::h264().audio().coding(coding).slices(1 + round % 2).frames(60).build();
        for _ in 0..round * 3 {
            damage(&mut stream, &mut random);
        }
        let reference = still(&stream, |_| 188);
        for _ in 0..6 {
            let most = [1, 7, 400, 1316, 20_000, 64][random.below(6)];
            assert!(still(&stream, |random| 1 + random.below(most)) == reference, "round {round}, up to {most} bytes");
        }
    }
}

/// Events with arrival standing still.
fn still(stream: &[u8], mut size: impl FnMut(&mut Random) -> usize) -> Vec<Event> {
    let (mut demuxer, mut events, mut random) = (Demuxer::new(), Vec::new(), Random(stream.len() as u64));
    let mut rest = stream;
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(size(&mut random).min(rest.len()));
        demuxer.push(Mono(5), piece);
        events.extend(std::iter::from_fn(|| demuxer.poll()));
        rest = after;
    }
    demuxer.flush(Mono(5));
    events.extend(std::iter::from_fn(|| demuxer.poll()));
    events
}

/// One of the things that happen to bytes.
fn damage(stream: &mut Vec<u8>, random: &mut Random) {
    let at = random.below(stream.len());
    match random.below(6) {
        0 => stream[at] ^= 1 << random.below(8),
        1 => stream[at] = random.next() as u8,
        2 => drop(stream.splice(at..at, (0..random.below(600)).map(|_| random.next() as u8).collect::<Vec<u8>>())),
        3 => drop(stream.drain(at..(at + random.below(600)).min(stream.len()))),
        4 => {
            let packet = at / 188 * 188;
            drop(stream.drain(packet..(packet + 188).min(stream.len())));
        }
        _ => {
            let end = (at + random.below(60)).min(stream.len());
            stream[at..end].fill([0, 0xFF, 0x47][random.below(3)]);
        }
    }
}

#[test]
fn mutated_streams_never_panic_and_never_grow() {
    let mut random = Random(2026);
    let builder = TsBuilder::h264().audio().coding(Coding::Reordered).slices(2).gop(12).frames(40);
    let mut script = cues::Script::default();
    for n in (2..40).step_by(5) {
        let pts = builder.pts(n).cast_unsigned();
        script.section(pts, cues::insert(7, true, pts, Some((90_000, true))));
        script.section(pts, cues::segment(9, 0x30, pts, None));
        script.tag(pts, pts, cues::tag(&"long ".repeat(60)));
    }
    let clean = cues::muxed(&builder.build(), script);
    assert_eq!(markers(&still(&clean, |_| 1316)).len(), 24);
    let clean_units = units(&still(&clean, |_| 1316), true).len();
    let (mut survived, mut told) = (0, 0);
    for round in 0..3_000 {
        let mut stream = clean.clone();
        for _ in 0..1 + round % 40 {
            damage(&mut stream, &mut random);
            if stream.is_empty() {
                break;
            }
        }
        let events = still(&stream, |random| 1 + random.below(3_000));
        let found = units(&events, true);
        let bytes: usize = events.iter().map(|e| if let Event::Unit(unit) = e { unit.data.len() } else { 0 }).sum();
        // Start codes of three bytes grow by one; nothing else does.
        assert!(bytes <= stream.len() + stream.len() / 3, "round {round}: {bytes} bytes out of {}", stream.len());
        assert!(events.len() <= stream.len() / 20 + 50, "round {round}: {} events", events.len());
        survived += found.len();
        told += faults(&events).len();
    }
    assert!(survived > 3_000 * clean_units / 4, "{survived} of {}", 3_000 * clean_units);
    assert!(told > 3_000);
}

#[test]
fn a_picture_without_end_is_dropped_at_16_mib_and_the_next_ones_play() {
    let builder = TsBuilder::h264().frames(50);
    let packets = builder.packets();
    let cut = packets.iter().rposition(|p| p[1] & 0x40 != 0 && p[2] == 0 && p[1] & 0x1F == 1).expect("a picture");
    let mut stream = packets[..cut].concat();
    let counter = packets[..cut].iter().rev().find(|p| p[1] & 0x1F == 1).expect("video")[3];
    for n in 0..100_000u32 {
        let mut packet = [0x55u8; 188];
        packet[..4].copy_from_slice(&[0x47, 0x01, 0, 0x10 | (counter.wrapping_add(1).wrapping_add(n as u8) & 15)]);
        if n == 0 {
            packet[1] |= 0x40;
            packet[4..18].copy_from_slice(&[0, 0, 1, 0xE0, 0, 0, 0x80, 0, 0, 0, 0, 1, 0x41, 0x9A]);
        }
        stream.extend_from_slice(&packet);
    }
    let restart = TsBuilder::h264().start(9_000_000).frames(30);
    stream.extend(restart.build());
    let (events, _) = run(&stream, 1316);
    assert!(faults(&events).contains(&FaultKind::Oversize));
    let found = video(&events);
    assert!(found.iter().all(|unit| unit.data.len() < 10_000));
    let after: Vec<AccessUnit> = found.into_iter().filter(|unit| unit.dts.0 >= 9_000_000).collect();
    assert_times(&restart, 25, &after);
    assert_eq!(after.len(), 30);
}

#[test]
fn a_source_that_starts_anew_on_the_same_pids_plays_on() {
    let builder = TsBuilder::h264().audio().frames(40);
    let stream = [builder.build(), builder.build()].concat();
    let (events, counters) = run(&stream, 1316);
    let found = video(&events);
    assert_eq!(found.len(), 80);
    for (n, unit) in found.iter().enumerate() {
        assert_eq!((unit.pts.0, unit.random_access), (builder.pts(n % 40), n % 40 % 25 == 0));
    }
    assert!(faults(&events).contains(&FaultKind::PcrJump));
    assert!(counters.damaged_units <= 1);
}

#[test]
fn a_scrambled_track_is_told_once_and_gives_no_units() {
    let mut packets = TsBuilder::h264().audio().frames(50).packets();
    for packet in packets.iter_mut().filter(|p| p[2] == 0 && p[1] & 0x1F == 1) {
        packet[3] |= 0x80;
    }
    let (events, counters) = run(&packets.concat(), 1316);
    assert_eq!(faults(&events), [FaultKind::Scrambled]);
    assert_eq!((video(&events).len(), units(&events, false).len() > 90), (0, true));
    assert_eq!(counters.cat_errors, counters.scrambled_packets);
}

#[test]
fn health_counters_count_what_tr_101_290_names() {
    let mut packets = TsBuilder::h264().audio().frames(75).packets();
    let video = |p: &[u8; 188]| p[2] == 0 && p[1] & 0x1F == 1;
    // A transport error, a lost packet, a damaged table; then five seconds without tables, then the rest.
    let at: Vec<usize> =
        packets.iter().enumerate().filter(|(_, p)| video(p) && p[1] & 0x40 == 0).map(|(n, _)| n).collect();
    packets[at[3]][1] |= 0x80;
    let table = packets.iter().rposition(|p| p[1] == 0x50 && p[2] == 0).expect("a PMT");
    packets[table][20] ^= 1;
    packets.remove(at[9]);
    let mut demuxer = Demuxer::new();
    for packet in &packets {
        demuxer.push(Mono(1), packet);
    }
    for n in 1..=55u64 {
        demuxer.push(Mono(n * 100_000_000), &[]);
    }
    let c = demuxer.counters();
    assert_eq!((c.transport_errors, c.continuity_errors, c.crc_errors), (1, 1, 1));
    assert_eq!((c.pat_errors, c.pmt_errors, c.pid_errors), (9, 9, 2));
    assert_eq!((c.sync_losses, c.sync_byte_errors, c.pcr_errors, c.pts_errors), (0, 0, 0, 0));
}

/// Pictures from just before the wrap of their time stamps, with a cue and a tag for times behind it.
fn marked() -> (TsBuilder, Vec<u8>) {
    let builder = TsBuilder::h264().frames(60).audio().start((1 << 33) - 20 * 3_600);
    let pts = |n: usize| builder.pts(n).rem_euclid(1 << 33).cast_unsigned();
    let mut script = cues::Script::default();
    script.section(pts(10), cues::insert(7, true, pts(40), Some((90_000, true))));
    script.section(pts(12), cues::private(500));
    script.tag(pts(30), pts(31), cues::tag(&"long ".repeat(100)));
    script.section(pts(50), cues::segment(9, 0x31, pts(55), None));
    let stream = cues::muxed(&builder.build(), script);
    (builder, stream)
}

/// (PTS, command or "id3", bytes) of each marker.
fn markers(events: &[Event]) -> Vec<(Option<i64>, &'static str, usize)> {
    let marker = |event: &Event| match event {
        Event::Cue(cue) => Some((cue.pts.map(|pts| pts.0), cue.info.command.name(), cue.section.len())),
        Event::Tag(tag) => Some((Some(tag.pts.0), "id3", tag.data.len())),
        _ => None,
    };
    events.iter().filter_map(marker).collect()
}

#[test]
fn cues_and_timed_tags_come_out_on_the_pictures_line_however_the_stream_is_cut() {
    let (builder, stream) = marked();
    let tag = cues::tag(&"long ".repeat(100)).len();
    let expected = [
        (Some(builder.pts(40)), "splice_insert", cues::insert(7, true, 0, Some((90_000, true))).len()),
        (None, "private_command", 520),
        (Some(builder.pts(31)), "id3", tag),
        (Some(builder.pts(55)), "time_signal", cues::segment(9, 0x31, 0, None).len()),
    ];
    for chunk in [1, 100, 188, 1_316, stream.len()] {
        let (events, counters) = run(&stream, chunk);
        assert_eq!(markers(&events), expected, "chunks of {chunk}");
        assert_eq!((counters.cue_sections, counters.timed_tags, counters.cue_errors), (3, 1, 0));
        assert!(faults(&events).is_empty() && video(&events).len() == 60);
    }
}

#[test]
fn markers_that_were_damaged_on_the_way_are_left_out_and_pictures_are_not() {
    let (builder, stream) = marked();
    let pid = |packet: &[u8]| u16::from_be_bytes([packet[1] & 0x1F, packet[2]]);
    let ours: Vec<usize> = stream
        .chunks(188)
        .enumerate()
        .filter(|(_, p)| pid(p) >= cues::CUE_PID && pid(p) <= cues::TAG_PID)
        .map(|(n, _)| n)
        .collect();
    let whole = markers(&run(&stream, 1_316).0);
    assert_eq!(ours.len(), 1 + 3 + 3 + 1, "packets of the markers");
    for n in ours {
        let of = |n: usize| 188 * n..188 * (n + 1);
        let lost = [&stream[..188 * n], &stream[188 * (n + 1)..]].concat();
        let mut scrambled = stream.clone();
        scrambled[of(n)][3] |= 0xC0;
        let mut flipped = stream.clone();
        flipped[of(n)][100] ^= 0x10;
        for (what, bytes) in [("lost", lost), ("scrambled", scrambled), ("flipped", flipped)] {
            let (events, _) = run(&bytes, 1_316);
            let found = markers(&events);
            assert!(found.iter().all(|marker| whole.contains(marker)), "{what} {n}: {found:?}");
            assert_eq!(video(&events).len(), 60, "{what} {n}");
            assert_times(&builder, 25, &video(&events));
            // What is behind a hole is not taken for the rest of what was before it.
            assert!(what == "flipped" || !faults(&events).contains(&FaultKind::SectionCrc), "{what} {n}");
            let harmless = what == "flipped" && (found.len() == whole.len());
            assert!(found.len() < whole.len() || harmless, "{what} {n}: {found:?}");
        }
    }
}

#[test]
fn the_rest_of_a_section_is_not_taken_from_another_one() {
    let builder = TsBuilder::h264().frames(60);
    let mut script = cues::Script::default();
    (0..2).for_each(|_| script.section(builder.pts(12).cast_unsigned(), cues::private(500)));
    let stream = cues::muxed(&builder.build(), script);
    let ours = |p: &&[u8]| u16::from_be_bytes([p[1] & 0x1F, p[2]]) == cues::CUE_PID;
    assert_eq!(stream.chunks(188).filter(ours).count(), 6);
    // The end of the first and the beginning of the second are lost.
    let mut seen = 0;
    let left = stream.chunks(188).filter(|p| {
        seen += usize::from(ours(p));
        !(ours(p) && (seen == 3 || seen == 4))
    });
    let (events, counters) = run(&left.collect::<Vec<_>>().concat(), 1_316);
    assert!(markers(&events).is_empty() && video(&events).len() == 60);
    assert_eq!((counters.cue_sections, faults(&events)), (0, vec![FaultKind::Continuity]));
}

#[test]
fn what_is_no_cue_and_no_tag_is_counted_for_what_it_is() {
    let builder = TsBuilder::h264().frames(60);
    let pts = |n: usize| builder.pts(n).cast_unsigned();
    let mut script = cues::Script::default();
    let cue = cues::insert(7, true, pts(40), None);
    script.section(pts(5), cues::sealed(cue.clone(), |section| section[4] |= 0x80));
    let mut damaged = cue.clone();
    damaged[20] ^= 1;
    script.section(pts(6), damaged);
    script.section(pts(7), cues::sealed(cue, |section| section[3] = 1));
    script.tag(pts(8), pts(8), b"KLV!".to_vec());
    script.tag(pts(9), pts(9), [cues::tag("x"), vec![0; 40_000]].concat());
    let (events, counters) = run(&cues::muxed(&builder.build(), script), 1_316);
    assert!(markers(&events).is_empty());
    let expected = [FaultKind::Scrambled, FaultKind::SectionCrc, FaultKind::Cue, FaultKind::Cue, FaultKind::Oversize];
    assert_eq!(faults(&events), expected);
    assert_eq!((counters.cue_errors, counters.crc_errors, video(&events).len()), (5, 1, 60));
}
