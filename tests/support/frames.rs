//! HTTP/2 frame by frame, for clients that no library would be.

use std::io::{Read, Write};
use std::net::TcpStream;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// RFC 9113 4.1.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A GET without a body, its fields as literals.
pub(crate) fn get(stream: u32, path: &str) -> Vec<u8> {
    // :method GET and :scheme http of the static table, :path and :authority by the names there (RFC 7541, appendix A).
    let mut block = vec![0x82, 0x86, 0x04, u8::try_from(path.len()).ok().filter(|n| *n < 127).expect("a short path")];
    block.extend(path.as_bytes());
    block.extend(b"\x01\x04test");
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &block)
}

pub(crate) fn reset(stream: u32) -> Vec<u8> {
    const CANCEL: u32 = 8;
    frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())
}

/// The preface with `settings` (identifier, value).
pub(crate) fn greet(stream: &mut TcpStream, settings: &[(u16, u32)]) {
    let payload: Vec<u8> =
        settings.iter().flat_map(|(id, value)| [id.to_be_bytes().as_slice(), &value.to_be_bytes()].concat()).collect();
    stream.set_nodelay(true).unwrap();
    stream.write_all(PREFACE).unwrap();
    stream.write_all(&frame(SETTINGS, 0, 0, &payload)).unwrap();
    stream.write_all(&frame(SETTINGS, ACK, 0, &[])).unwrap();
}

/// The next frame; `None` at the connection's end.
pub(crate) fn next(stream: &mut TcpStream) -> Option<(u8, u8, u32, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).ok()?;
    let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
    stream.read_exact(&mut payload).ok()?;
    Some((head[3], head[4], u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload))
}

/// Reads until the server has answered a ping that is sent now: it has seen everything before it. False: it has gone.
pub(crate) fn catch_up(stream: &mut TcpStream) -> bool {
    if stream.write_all(&frame(PING, 0, 0, b"caughtup")).is_err() {
        return false;
    }
    while let Some((kind, flags, _, _)) = next(stream) {
        if (kind, flags) == (PING, ACK) {
            return true;
        }
        if kind == GOAWAY {
            return false;
        }
    }
    false
}
