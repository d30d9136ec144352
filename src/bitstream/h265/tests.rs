//! Real headers, written by x265 as its version of 2022 writes them.

use super::*;
use crate::media::grid::FrameRate;
use crate::media::track::{Codec, Colour};

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect()
}

/// VPS, SPS, PPS of one stream.
type Headers = [&'static str; 3];

/// 1918x1078, 8 bit, 25 Hz: a conformance window of one chroma sample a side.
const ODD: Headers = [
    "40010c01ffff016000000300900000030000030078959409",
    "420101016000000300900000030000030078a003c0801107536595952930bc05a02000000300200000030321",
    "4401c073c189",
];
/// 318x178, 10 bit, 29.97 Hz, 40:33, scaling lists, BT.2020 with PQ, HRD, reference sets predicted from others.
const TEN: Headers = [
    "40010c01ffff02200000030090000003000003003c999809",
    "42010102200000030090000003000003003ca00a080b9d48d966669246ed782b50910090400000fa40001d4c1803259b8007a10001e84880",
    "4401c172b66240",
];
/// 320x180, 4:2:2 10 bit, 50 Hz, full range, no reordering.
const TWO: Headers = [
    "40010c01ffff0408000003009d0800000300003c928090",
    "4201010408000003009d0800000300003cb00a080b9f2b6592a4acaf016c080000030008000003019040",
    "4401c172b44240",
];
/// 720x576, every picture a field.
const FIELDS: Headers = [
    "40010c01ffff01600000030040000003000003005d959409",
    "42010101600000030040000003000003005da005a200905965654a4c2f0168680000030008000003019040",
    "4401c073c189",
];

fn sets(headers: Headers) -> ParameterSets {
    let mut sets = ParameterSets::default();
    sets.take_vps(&bytes(headers[0])).unwrap();
    sets.take_sps(&bytes(headers[1])).unwrap();
    sets.take_pps(&bytes(headers[2])).unwrap();
    sets
}

#[test]
fn real_headers_say_what_their_encoder_was_told() {
    let odd = sets(ODD).config(0).unwrap();
    assert_eq!((odd.codec, odd.width, odd.height, odd.sar), (Codec::H265, 1_918, 1_078, (1, 1)));
    assert_eq!((odd.rate, odd.bit_depth, odd.chroma_format), (Some(FrameRate::new(25, 1)), 8, 1));
    assert_eq!((odd.profile, odd.reorder, odd.interlaced), ([1, 0, 120], Some(2), false));
    assert_eq!(odd.colour, Colour::default());
    let kinds: Vec<u8> = odd.parameter_sets().map(|unit| header(unit).unwrap().0).collect();
    assert_eq!(kinds, [nal::VPS, nal::SPS, nal::PPS]);

    let ten = sets(TEN).config(0).unwrap();
    assert_eq!((ten.width, ten.height, ten.sar), (318, 178, (40, 33)));
    assert_eq!((ten.rate, ten.bit_depth, ten.chroma_format), (Some(FrameRate::new(30_000, 1_001)), 10, 1));
    assert_eq!((ten.profile, ten.reorder), ([2, 0, 60], Some(2)));
    assert_eq!(ten.colour, Colour { primaries: 9, transfer: 16, matrix: 9, full_range: false });

    let two = sets(TWO).config(0).unwrap();
    assert_eq!((two.width, two.height, two.bit_depth, two.chroma_format), (320, 180, 10, 2));
    assert_eq!((two.rate, two.reorder, two.colour.full_range), (Some(FrameRate::new(50, 1)), Some(0), true));

    let fields = sets(FIELDS).config(0).unwrap();
    assert!(fields.interlaced, "field_seq_flag");
}

#[test]
fn nothing_is_told_before_all_three_sets_have_come() {
    let mut sets = ParameterSets::default();
    sets.take_sps(&bytes(ODD[1])).unwrap();
    sets.take_pps(&bytes(ODD[2])).unwrap();
    assert!(sets.config(0).is_none() && sets.of(0).is_none());
    sets.take_vps(&bytes(ODD[0])).unwrap();
    assert!(sets.config(0).is_some() && sets.of(0).is_some() && sets.of(1).is_none());
}

#[test]
fn a_changed_sps_waits_for_a_random_access_point() {
    let mut sets = sets(ODD);
    let before = sets.revision();
    sets.take_sps(&bytes(TEN[1])).unwrap();
    assert_eq!((sets.revision(), sets.config(0).unwrap().width), (before, 1_918));
    assert!(sets.settle(false).is_err());
    assert_eq!(sets.config(0).unwrap().width, 1_918, "it was damage");
    sets.take_sps(&bytes(TEN[1])).unwrap();
    sets.settle(true).unwrap();
    assert_eq!((sets.revision(), sets.config(0).unwrap().width), (before + 1, 318));
}

#[test]
fn slices_of_one_picture_are_told_from_those_of_the_next() {
    let sets = sets(TWO);
    let parse = |hex: &str| Slice::parse(&bytes(hex), &sets).unwrap();
    let idr = [parse("2801ac0a60335fff"), parse("28012af0a6cd2617"), parse("280134f0a6cccc2f")];
    assert!(idr[0].first && !idr[1].first && idr[1].order == Some(0));
    assert!(!idr[0].differs(&idr[1]) && !idr[1].differs(&idr[2]));
    // The second picture, and the third without its first slice.
    let next = [parse("0201d0097e10c205"), parse("0201550097e10c20"), parse("0201690097e10c20")];
    assert!(idr[2].differs(&next[0]) && idr[2].differs(&next[1]), "another type");
    assert!(!next[0].differs(&next[1]) && !next[1].differs(&next[2]));
    let third = parse("020155011ffd4430");
    assert_eq!((next[2].order, third.order), (Some(1), Some(2)));
    assert!(next[2].differs(&third), "another place in the order");
}

#[test]
fn units_that_begin_an_access_unit_are_those_of_the_clause() {
    let begins: Vec<u8> = (0..64).filter(|kind| begins_access_unit(*kind)).collect();
    let mut clause = vec![32, 33, 34, 35, 39, 41, 42, 43, 44];
    clause.extend(48..=55);
    assert_eq!(begins, clause);
    assert!((0..64).filter(|kind| is_irap(*kind)).eq(16..=23));
}

#[test]
fn headers_cut_or_mutated_anywhere_never_panic() {
    let mut seed = 7u64;
    let mut next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize
    };
    let (mut read, mut refused) = (0, 0);
    for headers in [ODD, TEN, TWO, FIELDS] {
        for hex in headers {
            let whole = bytes(hex);
            for round in 0..4_000 {
                let mut unit = whole.clone();
                unit.truncate(if round % 2 == 0 { next() % (whole.len() + 1) } else { whole.len() });
                for _ in 0..next() % 4 {
                    let at = next() % unit.len().max(1);
                    if let Some(byte) = unit.get_mut(at) {
                        *byte ^= 1 << (next() % 8);
                    }
                }
                let mut sets = sets(headers);
                let taken = [sets.take_vps(&unit), sets.take_sps(&unit), sets.take_pps(&unit)];
                read += taken.iter().filter(|taken| taken.is_ok()).count();
                refused += taken.iter().filter(|taken| taken.is_err()).count();
                sets.settle(true).unwrap_or_default();
                sets.config(0);
                Slice::parse(&unit, &sets).ok();
            }
        }
    }
    assert!(read > 1_000 && refused > 1_000, "{read} read, {refused} refused");
}
