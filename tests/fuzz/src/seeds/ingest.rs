//! What publishers say, over SRT and over QUIC; and scripts for what lies between two ends.

use rung::ingest::quic::{Answer, Head, Hello as QuicHello};
use rung::telemetry::Redacted;

use super::ts_builder::TsBuilder;
use super::{texts, unhex};
use crate::script::piece;
use crate::wire::{self, Hello, RETRANSMITTED, WHOLE, kind};

/// Of every secret.
pub(crate) const PASSPHRASE: &str = "a long passphrase";

/// An even key of 128 bits under it, made with another program's PBKDF2 and key wrap.
pub(crate) fn key_message() -> Vec<u8> {
    unhex(
        "12202901 00000000 02000200 00000404 000102030405060708090a0b0c0d0e0f bcad08222dc2c405d3350f376a5165514ef78e49a32c5ee9",
    )
}

pub(crate) fn srt_packets() -> Vec<Vec<u8>> {
    let control = |kind, subtype, body: &[u32]| wire::control(kind, subtype, 5, 99, &wire::words(body));
    let keys = key_message();
    vec![
        wire::data(0x7FFF_FFFE, WHOLE | 7, 9_000_000, 99, &[0x47; 188]),
        wire::data(5, WHOLE | RETRANSMITTED | 1 << 27 | 8, 1, 99, b"\x47media"),
        Hello::induction(77).packet(),
        control(1, 0, &[0]),
        control(kind::ACK, 0, &[7, 20_000, 5_000, 8_192, 400, 500, 600_000]),
        control(kind::ACK, 0, &[7]),
        control(kind::NAK, 0, &[4, 1 << 31 | 9, 12, 1 << 31 | 0x7FFF_FFFE, 3, 1 << 31 | 50, 49]),
        control(5, 0, &[0]),
        control(kind::ACK_ACK, 0, &[0]),
        control(kind::DROP_REQUEST, 0, &[3, 9]),
        wire::control(kind::USER, 3, 0, 99, &keys),
        control(kind::USER, 4, &[3]),
    ]
}

pub(crate) fn srt_handshakes() -> Vec<Vec<u8>> {
    let keys = key_message();
    let usual = Hello::conclusion(77, 99, b"#!::r=news,k=secret,m=publish");
    let extension = |kind: u32, body: &[u8]| {
        let mut bytes = wire::words(&[kind << 16 | body.len().div_ceil(4) as u32]);
        bytes.extend(wire::swapped(body));
        bytes
    };
    let more = [usual.body(), extension(6, b"live"), extension(7, b"fec,cols:10"), extension(8, &[1; 8])].concat();
    vec![
        Hello::induction(77).body(),
        usual.body(),
        Hello { keys: &keys, fields: 2 << 16 | 7, ..usual }.body(),
        Hello { kind: 2_401, options: None, stream_id: &[], ..usual }.body(),
        more,
    ]
}

pub(crate) fn srt_keys() -> Vec<Vec<u8>> {
    let mut recorded = vec![0];
    piece(&key_message(), &mut recorded);
    // Every fourth packet a new key, nothing bent; then one bent, and keys that are lost on the way.
    let steps = [10, 0].repeat(20);
    vec![
        [&recorded[..], &[2, 0, 0], &steps].concat(),
        [&[1, 0, 0, 3, 40, 8][..], &[12, 1, 12, 2, 60, 9, 12, 0].repeat(8)].concat(),
        [&[2, 0, 0, 20, 4, 1][..], &[20].repeat(60)].concat(),
    ]
}

/// First number, first time stamp, room and latency.
fn receiving(first: u32, stamp: u32, room: u8, latency: u8) -> Vec<u8> {
    [&first.to_le_bytes()[..], &stamp.to_le_bytes(), &[room, latency]].concat()
}

pub(crate) fn srt_receivers() -> Vec<Vec<u8>> {
    let calm = [0, 7, 10, 8].repeat(10);
    // Three left out, two of them sent again; time; what nobody will send again.
    let lossy = [0, 3, 4, 2, 0, 5, 5, 8, 1, 10, 15, 6, 9, 0, 10, 90, 12, 7, 2].repeat(6);
    let clock = [&[0, 7, 9][..], &30_000_000u32.to_le_bytes(), &[0, 7, 11, 220, 5, 0, 7, 8, 255, 1, 2, 3, 4]].concat();
    let far =
        [&[0, 3, 7][..], &50_000u32.to_le_bytes(), &[0, 11, 0, 2, 7], &90_000u32.to_le_bytes(), &[64, 10, 5]].concat();
    let answered = [0, 7, 10, 12, 13, 0, 1, 0, 0, 10, 30, 13, 0, 2, 0, 0, 13, 2, 1, 4, 0, 0, 0, 0, 3].repeat(3);
    vec![
        [receiving(0x7FFF_FFFA, 0, 1, 1), calm].concat(),
        [receiving(0x7FFF_FFF0, u32::MAX - 5_000, 0, 0), lossy.clone()].concat(),
        [receiving(5, 7, 2, 2), lossy].concat(),
        [receiving(5, 7, 0, 1), clock].concat(),
        [receiving(5, 7, 0, 1), far].concat(),
        [receiving(9, 0, 1, 1), answered].concat(),
    ]
}

pub(crate) fn srt_senders() -> Vec<Vec<u8>> {
    let near = |back: u32| (back + 20).to_le_bytes();
    let begin = |first: u32, latency: u8| [&first.to_le_bytes()[..], &[latency]].concat();
    // Sixteen, ten milliseconds, an acknowledgement of all but four.
    let calm = [&[0, 15, 10, 3, 10, 5][..], &near(4), &[1], &wire::words(&[9_000, 50, 0])[..8]].concat().repeat(6);
    let asked = [&[0, 15, 10, 3, 20, 6, 2][..], &near(9), &[3], &near(5), &[0], &near(30), &[14], &[3, 200]].concat();
    let silent = [0, 3, 4, 3, 255, 3, 255, 4, 0, 9].to_vec();
    vec![
        [begin(0x7FFF_FFF0, 1), calm].concat(),
        [begin(5, 0), asked.repeat(4)].concat(),
        [begin(5, 2), silent].concat(),
    ]
}

pub(crate) fn srt_links() -> Vec<Vec<u8>> {
    let begin = |latency: u8, keyed: u8| [&0x7FFF_FFF0u32.to_le_bytes()[..], &[latency, keyed]].concat();
    // Seven payloads and what becomes of each datagram: here, later, never, twice.
    let mixed = [87, 0, 0x93, 0xE0, 0, 0xC5, 0, 0xD3, 0, 0, 0xF0, 0, 0].repeat(8);
    let burst = [47, 0xE0, 0xE0, 0xE0, 0xE0, 0xE0, 0xE0, 0xE0, 230, 0, 0].repeat(6);
    vec![
        [begin(1, 0), [55].repeat(30)].concat(),
        [begin(0, 0), mixed.clone()].concat(),
        [begin(2, 7), mixed].concat(),
        [begin(1, 0), burst].concat(),
    ]
}

pub(crate) fn srt_bonds() -> Vec<Vec<u8>> {
    let begin = |backup: u8, links: u8, keyed: u8| vec![backup, links, 1, keyed];
    // Handshakes and media; each link in turn is cut and comes back; datagrams that are late, lost and there twice.
    let calm = [vec![0; 40], [47, 0, 0, 0].repeat(12)].concat();
    let cut = |link: u8| [vec![192, link], [183, 0, 0, 0, 0, 0].repeat(20), vec![255, 192, link, 255]].concat();
    let rough = [87, 0, 0x93, 0xE0, 0, 0xC5, 0, 0xD3, 0, 0, 0xF0, 0, 0].repeat(8);
    let said = [&[198, 0, 3, 9, 0, 0][..], &[194, 1, 192, 1, 255, 195, 1, 194, 1], &[199, 0, 15]].concat();
    vec![
        [begin(0, 0, 0), calm.clone(), cut(0), cut(1)].concat(),
        [begin(1, 1, 0), calm.clone(), cut(0), cut(1), cut(2)].concat(),
        [begin(1, 0, 7), rough.clone(), cut(0)].concat(),
        [begin(0, 2, 7), rough].concat(),
        [begin(1, 0, 0), calm, said].concat(),
    ]
}

pub(crate) fn srt_filters() -> Vec<Vec<u8>> {
    // Rows with a packet missing and a sum behind; sums of columns; a jump, then the same.
    let row =
        [[0, 0, 1, 9, 8].as_slice(), &[4, 0, 0, 0, 0, 0, 7], &[6, 1, 0, 0, 20, 0, 4, 0, 1, 2, 3, 4, 0, 0, 0, 0, 0]]
            .concat();
    let column = [[6, 4, 1, 1, 0, 20, 2, 0, 9, 9].as_slice(), &[7, 0, 30]].concat();
    let jump = [5, 0, 1, 2, 3, 0x70, 12].to_vec();
    let begin = |filter: u8| [&[filter], &0x7FFF_FFF0u32.to_le_bytes()[..], &[1]].concat();
    (0..8).map(|n| [begin(n), row.repeat(4), column.repeat(3), jump.clone(), row.repeat(3)].concat()).collect()
}

pub(crate) fn srt_filter_links() -> Vec<Vec<u8>> {
    (0..8).flat_map(|filter| srt_links().into_iter().map(move |link| [&[filter], &link[..]].concat())).collect()
}

pub(crate) fn srt_callers() -> Vec<Vec<u8>> {
    // A handshake from the first address, media in disorder, time; then one from another address that takes over.
    let media = [2, 0, 0, 2, 1, 0, 2, 4, 0, 5, 30, 2, 3, 1, 5, 200, 2, 5, 0x80, 1, 2, 3, 4];
    let odd = (0xF0..=0xFA).flat_map(|odd| [9, 0, odd, 1, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9]).collect();
    let denied = [9, 5, 0, 1, 9, 6, 0, 1, 9, 4, 0, 1, 9, 7, 0, 1, 5, 120].to_vec();
    let control = [8, 6, 1, 0, 0, 8, 7, 0, 8, 0, 0, 0, 0, 1, 0, 0, 0, 2, 8, 8, 0, 4, 0, 1, 2, 3, 4].to_vec();
    vec![
        [&[9, 0, 0, 1][..], &media, &[0x19, 0, 0, 1], &media, &[15]].concat(),
        [&[9, 2, 0, 1][..], &media, &control, &[0x1D, 0, 6, 255]].concat(),
        [&[0x39, 1, 0, 1, 0x29, 1, 0, 1, 0x19, 3, 0, 1, 9, 8, 0, 1][..], &[12, 1, 0, 14, 5, 9]].concat(),
        odd,
        denied,
    ]
}

pub(crate) fn srt_listeners() -> Vec<Vec<u8>> {
    let open = [0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let good =
        [&[0, 0, 5, 1, 2][..], &5u32.to_le_bytes(), &7u32.to_le_bytes(), &[1], &(120u32 << 16).to_le_bytes(), &[2]]
            .concat();
    let media = [3, 20, 4, 30, 5, 20, 7, 3, 9, 5, 0, 4, 5, 6, 7, 8].repeat(3);
    vec![
        [&good[..], &media, &[6, 90]].concat(),
        [&good[..], &media, &[11]].concat(),
        [&[15][..], &good[1..], &media].concat(),
        [&[0, 0][..], &open, &[6, 255, 6, 255]].concat(),
        [&[0, 0, 2][..], &5u32.to_le_bytes(), &[0; 5], &[4]].concat(),
    ]
}

// ── QUIC ────────────────────────────────────────────────────────────────────────────────────────────────────────────

pub(crate) fn quic_messages() -> Vec<Vec<u8>> {
    let key = Redacted::new("abcdefghijklmnopqrstuvwx12".to_owned());
    let hello = QuicHello { name: "news/b".into(), key, latency_ms: 200, max_bitrate: 8_000_000 }.encode();
    let answer = |code, reason: &str| Answer { code, latency_ms: 1_000, reason: reason.into() }.encode();
    let later = [&hello[..1], &[hello[1] + 4], &hello[2..], b"more"].concat();
    vec![
        hello,
        later,
        answer(0, ""),
        answer(1_409, "another publisher is on air on this leg"),
        [Head { sequence: 70_000, timestamp_us: 3_000_000_000 }.encode(), vec![0x47; 4]].concat(),
        vec![0xFF; 17],
        // A body of a byte too many.
        [&[1, 0x44, 1][..], &[0x20; 1_045]].concat(),
    ]
}

pub(crate) fn quic_urls() -> Vec<Vec<u8>> {
    let pin = "a5".repeat(32);
    texts(&[
        &format!("quic://[::1]:1/news/k3y/b?pin={pin}&latency=500&max_bitrate=7.5M"),
        "quic://box/ch-{n}/k{n}",
        "quic://example.com:9443/a/b/a?latency=10000&max_bitrate=900k",
    ])
}

pub(crate) fn quic_segments() -> Vec<Vec<u8>> {
    // A segment begins, comes in pieces and ends; then three of them from the last to the first.
    let calm = [0, 20, 2, 0, 4, 0, 200, 5, 0, 250, 6, 0, 0, 7, 250].repeat(8);
    let turned = [0, 9, 7, 250, 0, 9, 7, 250, 0, 9, 2, 0, 2, 1, 2, 2, 4, 1, 255, 4, 0, 255, 6, 0, 0, 4, 2, 99, 7, 200];
    let given_up = [0, 9, 2, 0, 7, 250, 0, 9, 7, 250, 0, 9, 2, 0, 4, 0, 255, 8, 0, 4, 10, 0, 6, 1, 1].repeat(3);
    let far = [&[0, 3, 2, 0, 9, 100, 0][..], &[0xFF; 8], &[9, 255, 255], &[0; 8], &[8, 255, 255]].concat();
    vec![
        [&[1, 1][..], &calm].concat(),
        [&[0, 0][..], &turned.repeat(2)].concat(),
        [&[2, 1][..], &given_up].concat(),
        [&[1, 0][..], &far].concat(),
    ]
}

pub(crate) fn pipes() -> Vec<Vec<u8>> {
    let stream = TsBuilder::h264().gop(6).frames(4).build();
    let rtp = [&[0x90, 33, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9][..], &[0, 0, 0, 1, 1, 2, 3, 4], &stream[..188 * 3]].concat();
    vec![
        [&[0][..], &stream[..188 * 6]].concat(),
        [&[2, 0x47, 9][..], &stream[..188 * 3], &[0x47; 50], &stream[188..188 * 5]].concat(),
        [&[5][..], &rtp].concat(),
    ]
}
