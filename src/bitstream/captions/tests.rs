//! Captions written by this room are read back by it; what others wrote is read as they meant it.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::media::captions::InstreamId;

fn cc(data: [u8; 2]) -> Triplet {
    Triplet { kind: 0, data }
}

/// With its parity bit.
fn odd(byte: u8) -> u8 {
    byte | u8::from(byte.count_ones().is_multiple_of(2)) << 7
}

fn pair(kind: u8, first: u8, second: u8) -> Triplet {
    Triplet { kind, data: [odd(first), odd(second)] }
}

/// A unit in Annex B of a NAL unit each.
fn annexb(units: &[&[u8]]) -> Vec<u8> {
    units.iter().flat_map(|unit| [&[0, 0, 0, 1], *unit].concat()).collect()
}

fn prefixed(units: &[&[u8]]) -> Bytes {
    units.iter().flat_map(|u| [&u32::try_from(u.len()).unwrap().to_be_bytes(), *u].concat()).collect::<Vec<u8>>().into()
}

fn read_all(codec: Codec, fields: bool, unit: &[u8]) -> Vec<Triplet> {
    let mut found = Vec::new();
    read(codec, fields, unit, &mut found);
    found
}

/// As a broadcast encoder writes it, padding included.
const FOREIGN: &[u8] = &[
    0xB5, 0x00, 0x31, b'G', b'A', b'9', b'4', 0x03, 0xC4, 0xFF, 0xFC, 0x94, 0x20, 0xFD, 0x80, 0x80, 0xFA, 0x00, 0x00,
    0xF8, 0x12, 0x34, 0xFF,
];

#[test]
fn what_another_encoder_wrote_is_read_without_its_padding() {
    let size = u8::try_from(FOREIGN.len()).unwrap();
    let wanted = [cc([0x94, 0x20]), Triplet { kind: 1, data: [0x80, 0x80] }];
    // Behind another message of the same NAL unit; 00 00 of the padding needs no escape, FF follows.
    let sei = [&[6, 1, 2, 9, 9, 4, size][..], FOREIGN, &[0x80]].concat();
    let unit = annexb(&[&[0x67, 1], &[0x68, 2], &sei, &[0x65, 7, 8]]);
    assert_eq!(read_all(Codec::H264, false, &unit), wanted);
    let sei = [&[0x4E, 1, 4, size][..], FOREIGN, &[0x80]].concat();
    assert_eq!(read_all(Codec::H265, false, &annexb(&[&[0x40, 1, 7], &sei, &[0x26, 1, 5]])), wanted);
    let user = [&[0xB2][..], &FOREIGN[3..]].concat();
    assert_eq!(read_all(Codec::Mpeg2Video, false, &annexb(&[&[0, 1, 2], &user, &[1, 5]])), wanted);
    // Of somebody else, or of another kind: bars.
    for (at, byte) in [(0, 0xB4), (1, 1), (2, 0x2F), (3, b'D'), (7, 6)] {
        let mut other = FOREIGN.to_vec();
        other[at] = byte;
        let sei = [&[6, 4, size][..], &other, &[0x80]].concat();
        assert_eq!(read_all(Codec::H264, false, &annexb(&[&sei, &[0x65, 7]])), []);
    }
}

#[test]
fn both_fields_of_a_frame_carry_their_own_where_there_are_fields() {
    let [one, two] = [cc([0x41, 0x42]), cc([0x43, 0x44])].map(|t| [&[6][..], &message(&[t])].concat());
    let unit = annexb(&[&one, &[0x65, 1], &two, &[0x61, 2]]);
    assert_eq!(read_all(Codec::H264, true, &unit), [cc([0x41, 0x42]), cc([0x43, 0x44])]);
    // A frame has all it has in front of its first slice: behind it nobody looks.
    assert_eq!(read_all(Codec::H264, false, &unit), [cc([0x41, 0x42])]);
}

#[test]
fn the_message_goes_in_front_of_the_first_slice_behind_all_that_precedes_it() {
    let message = message(&[cc([0x94, 0x2C])]);
    let timing: &[u8] = &[6, 1, 1, 0, 0x80];
    let picture = prefixed(&[timing, &[0x65, 9, 9], &[0x65, 8]]);
    let sei = [&[6][..], &message].concat();
    assert_eq!(insert(Codec::H264, &picture, &message), prefixed(&[timing, &sei, &[0x65, 9, 9], &[0x65, 8]]));
    let picture = prefixed(&[&[0x46, 1, 0x50], &[0x26, 1, 9]]);
    let sei = [&[0x4E, 1][..], &message].concat();
    assert_eq!(insert(Codec::H265, &picture, &message), prefixed(&[&[0x46, 1, 0x50], &sei, &[0x26, 1, 9]]));
    // What is no picture stays as it is.
    for odd in [prefixed(&[timing]), Bytes::from_static(&[0, 0, 0]), Bytes::from_static(&[0xFF; 9])] {
        assert_eq!(insert(Codec::H264, &odd, &message), odd);
    }
}

#[test]
fn captions_are_seen_text_mode_extended_data_and_noise_are_not() {
    let seen = |triplets: &[Triplet]| {
        let mut observer = Observer::default();
        observer.take(triplets);
        observer.seen().iter().map(|id| id.to_string()).collect::<Vec<_>>()
    };
    // RCL, a PAC and HI: pop-on of channel 1; of channel 2, with bit 3 set; of field 2.
    assert_eq!(seen(&[pair(0, 0x14, 0x20), pair(0, 0x14, 0x70), pair(0, b'H', b'I')]), ["CC1"]);
    assert_eq!(seen(&[pair(0, 0x1C, 0x25), pair(0, b'H', b'I')]), ["CC2"]);
    assert_eq!(seen(&[pair(1, 0x15, 0x29), pair(1, b'H', 0)]), ["CC3"]);
    assert_eq!(seen(&[pair(1, 0x1D, 0x26), pair(1, b'H', 0)]), ["CC4"]);
    // Control codes alone, blanks, text mode, extended data within captions, wrong parity.
    assert!(seen(&[pair(0, 0x14, 0x20), pair(0, 0x14, 0x2C), pair(0, 0, 0), pair(0, 0x20, 0x20)]).is_empty());
    assert!(seen(&[pair(0, 0x14, 0x2B), pair(0, b'H', b'I')]).is_empty());
    assert!(seen(&[pair(1, 0x15, 0x20), pair(1, 1, 3), pair(1, b'N', b'E'), pair(1, 0x0F, 0x1D)]).is_empty());
    assert!(seen(&[pair(0, 0x14, 0x20), cc([odd(b'H') ^ 0x80, odd(b'I')])]).is_empty());
    assert!(seen(&[pair(0, b'H', b'I')]).is_empty(), "nobody said what it is");
    // A channel that was addressed before goes on when it is addressed again.
    let both =
        [pair(0, 0x14, 0x20), pair(0, 0x1C, 0x2A), pair(0, b'X', b'Y'), pair(0, 0x14, 0x70), pair(0, b'H', b'I')];
    assert_eq!(seen(&both), ["CC1"]);
    // A packet of 4 bytes (code 2 less header): service 1 with one byte, then a null header. Then services 2 and 40.
    let packet = |kind, a, b| Triplet { kind, data: [a, b] };
    assert_eq!(seen(&[packet(3, 2, 0x21), packet(2, 0x41, 0)]), ["SERVICE1"]);
    let two =
        [packet(3, 4, 0x42), packet(2, 0x41, 0x42), packet(2, 0xE1, 40), packet(2, 0x41, 0), packet(2, 0x21, 0x41)];
    assert_eq!(seen(&two), ["SERVICE2", "SERVICE40"], "what lies behind the packet's end is none of it");
    assert!(seen(&[packet(2, 0x21, 0x41), packet(3, 2, 0x00), packet(2, 0x21, 0x41)]).is_empty());
}

proptest! {
    #[test]
    fn whatever_is_written_is_read_back(raw in prop::collection::vec((0u8..4, any::<[u8; 2]>()), 0..40), zero in any::<bool>()) {
        let triplets: Vec<Triplet> =
            raw.into_iter().map(|(kind, data)| Triplet { kind, data: if zero { data.map(|b| b & 3) } else { data } }).collect();
        let kept = &triplets[..triplets.len().min(TRIPLETS_MAX)];
        let message = message(&triplets);
        prop_assert!(message.windows(3).all(|w| w[0] > 0 || w[1] > 0 || w[2] > 3), "nothing to be escaped");
        for (codec, slice) in [(Codec::H264, &[0x65, 9][..]), (Codec::H265, &[0x26, 1, 9])] {
            let with = insert(codec, &prefixed(&[slice]), &message);
            // As the access units of a source: start codes in place of lengths.
            let length = u32::from_be_bytes(with[..4].try_into().unwrap()) as usize;
            let unit = annexb(&[&with[4..4 + length], &with[8 + length..]]);
            prop_assert_eq!(&read_all(codec, false, &unit)[..], kept);
        }
    }

    #[test]
    fn no_bytes_do_harm(unit in prop::collection::vec(prop_oneof![Just(0u8), Just(1), Just(6), Just(4), Just(0xB2), any::<u8>()], 0..400),
                        tail in any::<bool>(), fields in any::<bool>()) {
        let unit = if tail { [&[0, 0, 1, 6, 4, 200][..], FOREIGN, &unit].concat() } else { unit };
        for codec in [Codec::H264, Codec::H265, Codec::Mpeg2Video, Codec::Aac] {
            let found = read_all(codec, fields, &unit);
            prop_assert!(found.len() <= UNIT_TRIPLETS_MAX);
            let mut observer = Observer::default();
            observer.take(&found);
            prop_assert!(observer.seen().iter().all(|id| id != InstreamId::Service(0)));
            insert(codec, &unit.clone().into(), &message(&found));
        }
    }

    #[test]
    fn no_constructs_do_harm(raw in prop::collection::vec((0u8..4, any::<[u8; 2]>()), 0..400)) {
        let mut observer = Observer::default();
        observer.take(&raw.iter().map(|(kind, data)| Triplet { kind: *kind, data: *data }).collect::<Vec<_>>());
        prop_assert!(observer.seen().iter().all(|id| matches!(id, InstreamId::Cc(1..=4) | InstreamId::Service(1..=63))));
    }
}
