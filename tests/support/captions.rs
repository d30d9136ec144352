//! Clips with closed captions: cc_data written byte by byte into the pictures of a real H.264 stream, and read back by
//! libavcodec's own decoder.

use std::path::{Path, PathBuf};
use std::process::Command;

use rung::mpegts::packet::{Header, PACKET_BYTES, Packet};
use rung::mpegts::pes;

/// What each picture says, in the order of presentation: a pair of each field of line 21.
pub(crate) type Script = Vec<[[u8; 2]; 2]>;

/// Pop-on captions of CC1, one after the other, and roll-up ones of CC3 beside them; idle pairs to the end.
pub(crate) fn script(pictures: usize, cc1: &[String], cc3: &[String]) -> Script {
    let mut fields = [Vec::new(), Vec::new()];
    for words in cc1 {
        // RCL, ENM, a PAC for row 15, the words, EOC: codes are sent twice.
        fields[0].extend([[0x14, 0x20]; 2].into_iter().chain([[0x14, 0x2E]; 2]).chain([[0x14, 0x70]; 2]));
        fields[0].extend(words.as_bytes().chunks(2).map(|pair| [pair[0], *pair.get(1).unwrap_or(&0)]));
        fields[0].extend([[0x14, 0x2F]; 2]);
    }
    for words in cc3 {
        // RU2, CR, PAC.
        fields[1].extend([[0x15, 0x25]; 2].into_iter().chain([[0x15, 0x2D]; 2]).chain([[0x14, 0x70]; 2]));
        fields[1].extend(words.as_bytes().chunks(2).map(|pair| [pair[0], *pair.get(1).unwrap_or(&0)]));
    }
    assert!(fields.iter().all(|field| field.len() <= pictures), "the clip is too short for its captions");
    let pair = |field: &[[u8; 2]], at: usize| field.get(at).copied().unwrap_or([0, 0]).map(odd);
    (0..pictures).map(|at| [pair(&fields[0], at), pair(&fields[1], at)]).collect()
}

/// With its parity bit.
fn odd(byte: u8) -> u8 {
    byte | u8::from(byte.count_ones().is_multiple_of(2)) << 7
}

/// The clip with these captions: a copy beside it. Everything but its pictures stays as ffmpeg wrote it.
pub(crate) fn captioned(clip: &Path, name: &str, script: &Script) -> PathBuf {
    let file = clip.with_file_name(name);
    if file.exists() {
        return file;
    }
    let stream = std::fs::read(clip).expect("the clip was made");
    let mut shown: Vec<u64> = pictures(&stream).iter().map(|picture| picture.pts).collect();
    shown.sort_unstable();
    let part = file.with_extension(format!("{}.part", std::process::id()));
    std::fs::write(&part, rewritten(&stream, &shown, script)).expect("writable");
    std::fs::rename(&part, &file).expect("same folder");
    file
}

/// ffmpeg's first track, whose PES packets are a picture each.
const VIDEO_PID: u16 = 0x100;

struct Picture {
    /// Of its last packet, bytes into the stream.
    ends: usize,
    pts: u64,
    pcr: Option<u64>,
    pes: Vec<u8>,
    payload: usize,
}

fn pictures(stream: &[u8]) -> Vec<Picture> {
    let mut pictures: Vec<Picture> = Vec::new();
    for (at, packet) in packets(stream).filter(|(_, packet)| packet.pid == VIDEO_PID && packet.has_payload) {
        if packet.unit_start {
            let pes::Parsed::Header(header, payload) = pes::parse(packet.payload) else { panic!("a PES header") };
            assert_eq!(header.payload, None, "ffmpeg leaves the length open");
            let pts = header.pts.expect("every picture has its time");
            pictures.push(Picture { ends: at, pts, pcr: packet.pcr, pes: Vec::new(), payload });
        }
        let picture = pictures.last_mut().expect("the stream begins with a picture");
        picture.ends = at;
        picture.pes.extend_from_slice(packet.payload);
    }
    pictures
}

fn packets(stream: &[u8]) -> impl Iterator<Item = (usize, Packet<'_>)> {
    stream.chunks_exact(PACKET_BYTES).enumerate().map(|(n, bytes)| {
        let bytes: &[u8; PACKET_BYTES] = bytes.try_into().expect("whole packets");
        (n * PACKET_BYTES, Packet::parse(bytes).expect("ffmpeg's own"))
    })
}

/// Each picture anew where its last packet was, all else as it is.
fn rewritten(stream: &[u8], shown: &[u64], script: &Script) -> Vec<u8> {
    let (mut out, mut continuity) = (Vec::with_capacity(stream.len() * 2), 0u8);
    let mut pictures = pictures(stream).into_iter().peekable();
    for (at, packet) in packets(stream) {
        if packet.pid != VIDEO_PID {
            out.extend_from_slice(&stream[at..at + PACKET_BYTES]);
        }
        let Some(Picture { pts, pcr, pes, payload, .. }) = pictures.next_if(|picture| picture.ends == at) else {
            continue;
        };
        let spoken = &script[shown.binary_search(&pts).expect("it is one of them")];
        let bytes = [&pes[..payload], &with_captions(&pes[payload..], spoken)].concat();
        let mut written = 0;
        while written < bytes.len() {
            let first = written == 0;
            let pcr = pcr.filter(|_| first);
            let header = Header { pid: VIDEO_PID, unit_start: first, continuity, pcr, ..Header::default() };
            continuity = (continuity + 1) & 15;
            written += header.write(&bytes[written..], &mut out);
        }
    }
    out
}

/// In front of the first slice, as a broadcast encoder writes it: both fields, and padding up to the rate that cc_data has.
fn with_captions(annexb: &[u8], pairs: &[[u8; 2]; 2]) -> Vec<u8> {
    let mut payload = vec![0xB5, 0x00, 0x31];
    payload.extend_from_slice(b"GA94\x03");
    payload.extend_from_slice(&[0xC0 | 6, 0xFF]);
    for (field, pair) in (0u8..).zip(pairs) {
        payload.extend_from_slice(&[0xFC | field, pair[0], pair[1]]);
    }
    payload.extend_from_slice(&[0xFA, 0x00, 0x00].repeat(4));
    payload.push(0xFF);
    let mut sei = vec![0, 0, 0, 1, 6, 4, u8::try_from(payload.len()).expect("short")];
    // 00 00 00 to 00 00 03 are not allowed: of the padding each is followed by FA.
    assert!(payload.windows(3).all(|w| w[0] > 0 || w[1] > 0 || w[2] > 3), "no emulation prevention is needed");
    sei.extend_from_slice(&payload);
    sei.push(0x80);
    let slice = annexb.windows(4).position(|w| w[..3] == [0, 0, 1] && (1..=5).contains(&(w[3] & 31)));
    // The start code may have one zero byte more in front.
    let at = slice.map(|at| at - usize::from(at > 0 && annexb[at - 1] == 0)).expect("a picture has a slice");
    [&annexb[..at], &sei, &annexb[at..]].concat()
}

/// The words that libavcodec reads in the pictures of a file, caption by caption. `field`: `first` or `second`.
pub(crate) fn read_captions(file: &Path, field: &str) -> Vec<String> {
    let graph = format!("movie={}[out0+subcc]", file.display());
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-data_field", field, "-f", "lavfi", "-i", &graph]);
    let output = command.args(["-map", "0:s:0", "-f", "srt", "pipe:1"]).output().expect("ffmpeg is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text").replace('\r', "");
    let blocks = text.split("\n\n").filter(|block| !block.trim().is_empty());
    blocks.map(|block| plain(&block.trim().lines().skip(2).collect::<Vec<_>>().join("\n"))).collect()
}

/// Without the marks of place and font.
fn plain(text: &str) -> String {
    let (mut out, mut depth) = (String::new(), 0);
    for c in text.replace("\\h", " ").chars() {
        match c {
            '<' | '{' => depth += 1,
            '>' | '}' => depth -= 1,
            c if depth == 0 => out.push(c),
            _ => {}
        }
    }
    out.trim().to_owned()
}
