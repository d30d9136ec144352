//! Streams that no encoder at hand writes: field pictures, losses at chosen places, layers.

use super::*;
use crate::demux::access_units::{VideoTrack, VideoUnits};
use crate::demux::event::{Event, Outbox};
use crate::demux::stamp::Stamp;
use crate::media::access_unit::AccessUnit;

/// PES packets, each with a PTS and maybe a DTS, to units.
fn units<C: Coding>(packets: &[(Option<u64>, Vec<u8>)]) -> (Vec<AccessUnit>, Outbox) {
    let (mut track, mut out) = (VideoUnits::<C>::new(256), Outbox::default());
    for (pes, (pts, bytes)) in (1..).zip(packets) {
        track.start(Stamp { pes, pts: *pts, dts: None });
        for piece in bytes.chunks(7) {
            track.push(piece, &mut out);
        }
        track.end(Some(bytes.len()), &mut out);
    }
    track.flush(&mut out);
    let found = out.events.iter().filter_map(|event| match event {
        Event::Unit(unit) => Some(unit.clone()),
        _ => None,
    });
    (found.collect(), out)
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(|digit| !digit.is_ascii_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

// ── MPEG-2 ──────────────────────────────────────────────────────────────────────────────────────────────────────────

const HEADERS: &str = "000001b32d024033ffffe018 000001b5148200010000 000001b800080040";
/// Slices whose last one ends with zeros that are data.
const SLICES: &str = "00000101aabbcc 00000102aabb0000";

/// `structure`: 1 top, 2 bottom, 3 frame.
fn picture(temporal_reference: u8, kind: u8, structure: u8) -> Vec<u8> {
    let header = [0, 0, 1, 0, temporal_reference >> 2, temporal_reference << 6 | kind << 3 | 7, 0xFF, 0xF8];
    let extension = [0, 0, 1, 0xB5, 0x8F, 0xFF, 0xF0 | structure, 0x80, 0];
    [&header[..], &extension, &bytes(SLICES)].concat()
}

#[test]
fn both_fields_of_an_mpeg2_frame_are_one_unit_in_one_pes_packet_or_in_two() {
    let first = [bytes(HEADERS), picture(0, 1, 1), picture(0, 2, 2)].concat();
    let together: Vec<(Option<u64>, Vec<u8>)> = std::iter::once((Some(3_600), first.clone()))
        .chain((1..20u8).map(|n| (Some(3_600 * u64::from(n + 1)), [picture(n, 2, 1), picture(n, 2, 2)].concat())))
        .collect();
    let apart: Vec<(Option<u64>, Vec<u8>)> =
        [(Some(3_600), [bytes(HEADERS), picture(0, 1, 1)].concat()), (Some(5_400), picture(0, 2, 2))]
            .into_iter()
            .chain((1..20u8).flat_map(|n| {
                let at = 3_600 * u64::from(n + 1);
                [(Some(at), picture(n, 2, 1)), (Some(at + 1_800), picture(n, 2, 2))]
            }))
            .collect();
    let (one, _) = units::<Mpeg2>(&together);
    let (two, out) = units::<Mpeg2>(&apart);
    assert_eq!(one.len(), 20);
    assert_eq!(one[0].data, first);
    assert!(one.iter().zip(1..).all(|(unit, n)| unit.pts.0 == 3_600 * n), "{one:?}");
    assert_eq!(
        one.iter().map(|u| (&u.data, u.pts)).collect::<Vec<_>>(),
        two.iter().map(|u| (&u.data, u.pts)).collect::<Vec<_>>()
    );
    assert_eq!((one[0].random_access, one[1].random_access), (true, false));
    let configs = out.events.iter().filter(|event| matches!(event, Event::Config { .. })).count();
    assert_eq!(configs, 1);
}

#[test]
fn two_fields_of_one_parity_after_a_loss_are_two_units() {
    let stream = vec![
        (Some(3_600), [bytes(HEADERS), picture(0, 1, 1)].concat()),
        (Some(7_200), [picture(1, 2, 1), picture(1, 2, 2)].concat()),
        (Some(10_800), [picture(2, 2, 1), picture(2, 2, 2)].concat()),
    ];
    let (found, _) = units::<Mpeg2>(&stream);
    assert_eq!(found.iter().map(|unit| unit.pts.0).collect::<Vec<_>>(), [3_600, 7_200, 10_800]);
}

#[test]
fn zeros_of_mpeg2_stay_where_they_are_and_bytes_are_not_changed() {
    let stream: Vec<u8> = (0..30u8)
        .flat_map(|n| {
            [if n % 10 == 0 { bytes(HEADERS) } else { vec![] }, picture(n % 10, if n % 10 == 0 { 1 } else { 2 }, 3)]
                .concat()
        })
        .collect();
    let (found, out) = units::<Mpeg2>(&[(Some(9_000), stream.clone())]);
    let together: Vec<u8> = found.iter().flat_map(|unit| unit.data.to_vec()).collect();
    assert_eq!((found.len(), together == stream), (30, true));
    // One time stamp for all: the others follow the declared 25 frames a second.
    assert!(found.iter().zip(0..).all(|(unit, n)| unit.pts.0 == 9_000 + 3_600 * n), "{found:?}");
    assert!(!out.events.iter().any(|event| matches!(event, Event::Fault(_))));
}

#[test]
fn mpeg2_pictures_without_time_stamps_are_placed_by_their_temporal_reference() {
    // I0 P3 B1 B2 P6 B4 B5: only I and P pictures carry stamps, as broadcast encoders write it.
    let order = [(0u8, 1u8), (3, 2), (1, 3), (2, 3), (6, 2), (4, 3), (5, 3)];
    let mut track = VideoUnits::<Mpeg2>::new(256);
    let mut out = Outbox::default();
    for (n, (reference, kind)) in (0u64..).zip(order) {
        let shown = 90_000 + 3_600 * (u64::from(reference) + 1);
        let own = kind < 3;
        let (pts, dts) = (own.then_some(shown), own.then_some(90_000 + 3_600 * n));
        track.start(Stamp { pes: n + 1, pts, dts });
        let head = if n == 0 { bytes(HEADERS) } else { vec![] };
        track.push(&[head, picture(reference, kind, 3)].concat(), &mut out);
    }
    track.flush(&mut out);
    let found: Vec<i64> = out
        .events
        .iter()
        .filter_map(|event| if let Event::Unit(unit) = event { Some((unit.pts.0 - 90_000) / 3_600 - 1) } else { None })
        .collect();
    assert_eq!(found, [0, 3, 1, 2, 6, 4, 5]);
}

#[test]
fn the_rest_of_an_mpeg2_picture_that_was_given_out_too_early_is_noticed_once() {
    let mut stream: Vec<(Option<u64>, Vec<u8>)> = (0..12u8)
        .map(|n| {
            let head = if n == 0 { bytes(HEADERS) } else { vec![] };
            (Some(3_600 * u64::from(n + 1)), [head, picture(n, if n == 0 { 1 } else { 2 }, 3)].concat())
        })
        .collect();
    // A picture that goes on in a PES packet of its own.
    stream.insert(11, (None, bytes("00000103aabbcc")));
    stream.push((Some(3_600 * 14), picture(12, 2, 3)));
    let (found, out) = units::<Mpeg2>(&stream);
    let lies = out
        .events
        .iter()
        .filter(|event| matches!(event, Event::Fault(fault) if fault.detail.contains("went on behind")))
        .count();
    assert_eq!((found.len(), lies), (13, 1));
    assert!(found[11].damaged && !found[12].damaged, "the rest lies in front of the next picture");
}

#[test]
fn mpeg1_and_a_stream_without_headers_give_no_units() {
    let mpeg1 = [bytes("000001b315e11e12ffffe018 000001b800080040"), bytes("0000010000 0ffff8 00000101aabb")].concat();
    let (found, out) = units::<Mpeg2>(&[(Some(1), mpeg1), (Some(3_601), picture(1, 2, 3))]);
    assert_eq!((found.len(), out.counters.undecodable_units), (0, 2));
}

// ── H.265 ───────────────────────────────────────────────────────────────────────────────────────────────────────────

const SETS: &str = "0000000140010c01ffff0408000003009d0800000300003c928090
    000000014201010408000003009d0800000300003cb00a080b9f2b6592a4acaf016c080000030008000003019040
    000000014401c172b44240";
const IDR: [&str; 3] = ["000000012801ac0a60335fff", "0000000128012af0a6cd2617", "00000001280134f0a6cccc2f"];
const SECOND: [&str; 3] = ["000000010201d0097e10c205", "000000010201550097e10c20", "000000010201690097e10c20"];
const THIRD: [&str; 3] = ["000000010201d011ffd44302", "00000001020155011ffd4430", "00000001020169011ffd4430"];

fn hevc(pieces: &[&str]) -> Vec<u8> {
    pieces.iter().flat_map(|piece| bytes(piece)).collect()
}

#[test]
fn slices_of_hevc_are_one_unit_and_a_lost_first_slice_is_no_part_of_the_picture_before() {
    let whole = [
        (Some(1_800), [hevc(&[SETS]), hevc(&IDR)].concat()),
        (Some(3_600), hevc(&SECOND)),
        (Some(5_400), hevc(&THIRD)),
    ];
    let (found, out) = units::<H265>(&whole);
    assert_eq!(
        found.iter().map(|unit| unit.data.len()).collect::<Vec<_>>(),
        whole.iter().map(|(_, b)| b.len()).collect::<Vec<_>>()
    );
    assert_eq!((found[0].random_access, found[1].random_access, out.counters.undecodable_units), (true, false, 0));
    // All in one PES packet, the second picture without its first slice.
    let rest = [hevc(&[SETS]), hevc(&IDR), hevc(&SECOND[1..]), hevc(&THIRD)].concat();
    let (found, _) = units::<H265>(&[(Some(1_800), rest)]);
    let pictures: Vec<usize> = found.iter().map(|unit| unit.data.len()).collect();
    assert_eq!(pictures, [whole[0].1.len(), 2 * 12, whole[2].1.len()]);
    assert_eq!(found.iter().map(|unit| unit.pts.0).collect::<Vec<_>>(), [1_800, 3_600, 5_400], "50 a second, declared");
}

#[test]
fn other_layers_of_hevc_change_nothing() {
    // An SPS, a parameter set and a slice of layer 1 between the pictures.
    let layer = "0000000142090101ffff 0000000102 0900aabb";
    let stream = [hevc(&[SETS]), hevc(&IDR), bytes(layer), hevc(&SECOND), bytes(layer), hevc(&THIRD)].concat();
    let (found, out) = units::<H265>(&[(Some(1_800), stream.clone())]);
    assert_eq!(found.len(), 3);
    assert_eq!(found.iter().flat_map(|unit| unit.data.to_vec()).collect::<Vec<u8>>(), stream);
    assert!(!out.events.iter().any(|event| matches!(event, Event::Fault(_))), "{:?}", out.events);
}
