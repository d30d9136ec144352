//! A kept HTTP/1.1 connection of one viewer. It owns no buffers while it waits: five thousand of them are cheap.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::Instant;

/// Longer than any request may be blocked (three target durations of 6 s).
pub const PATIENCE: Duration = Duration::from_secs(30);
const HEAD_MAX: usize = 16 << 10;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; 256 << 10]);
}

/// What is done with a body.
#[derive(Debug)]
pub enum Take {
    Sum,
    Keep(Vec<u8>),
}

/// An answer; its body was summed or kept.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    pub status: u16,
    pub etag: Option<String>,
    pub gzip: bool,
    pub length: usize,
    /// Of the body as sent.
    pub crc: u32,
    /// When the head was here.
    pub head_at: Option<Instant>,
    /// The server closes the connection after this.
    close: bool,
}

#[derive(Debug)]
pub struct Line {
    to: SocketAddr,
    stream: Option<TcpStream>,
    /// Connections made so far.
    pub opened: u32,
    used: bool,
}

impl Line {
    #[must_use]
    pub fn new(to: SocketAddr) -> Line {
        Line { to, stream: None, opened: 0, used: false }
    }

    /// GET. A kept connection that turns out to be closed is replaced once.
    ///
    /// # Errors
    /// No connection, no answer within [`PATIENCE`], or one that is none.
    pub async fn get(&mut self, path: &str, take: &mut Take) -> io::Result<Answer> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nAccept-Encoding: gzip\r\n\r\n", self.to);
        self.send(request.as_bytes(), take).await
    }

    /// A whole request head as given.
    ///
    /// # Errors
    /// As [`Line::get`].
    pub async fn send(&mut self, request: &[u8], take: &mut Take) -> io::Result<Answer> {
        loop {
            let kept = self.used;
            match tokio::time::timeout(PATIENCE, self.exchange(request, take)).await {
                Ok(Ok(answer)) => {
                    self.used = true;
                    if answer.close {
                        self.hang_up();
                    }
                    return Ok(answer);
                }
                Ok(Err(error)) => {
                    self.hang_up();
                    // A server may close a kept connection at any time, and then has not answered [RFC 9112 9.3.1].
                    if !kept || !is_closed(&error) {
                        return Err(error);
                    }
                }
                Err(_) => {
                    self.hang_up();
                    return Err(io::ErrorKind::TimedOut.into());
                }
            }
        }
    }

    fn hang_up(&mut self) {
        self.stream = None;
        self.used = false;
    }

    async fn exchange(&mut self, request: &[u8], take: &mut Take) -> io::Result<Answer> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(self.to).await?;
                stream.set_nodelay(true)?;
                self.opened += 1;
                self.stream.insert(stream)
            }
        };
        stream.write_all(request).await?;
        if let Take::Keep(body) = take {
            body.clear();
        }
        let mut reading = Reading::Head(Vec::new());
        loop {
            stream.readable().await?;
            let step = SCRATCH.with_borrow_mut(|scratch| match stream.try_read(scratch) {
                Ok(0) => Err(io::Error::from(match reading {
                    Reading::Head(ref head) if head.is_empty() => io::ErrorKind::ConnectionReset,
                    _ => io::ErrorKind::UnexpectedEof,
                })),
                Ok(n) => reading.feed(&scratch[..n], take),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
                Err(error) => Err(error),
            })?;
            if let Some(answer) = step {
                return Ok(answer);
            }
        }
    }
}

fn is_closed(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}

enum Reading {
    Head(Vec<u8>),
    Body { answer: Answer, left: usize },
}

impl Reading {
    /// The whole answer once its last byte is here.
    fn feed(&mut self, bytes: &[u8], take: &mut Take) -> io::Result<Option<Answer>> {
        let mut body = bytes;
        if let Reading::Head(partial) = self {
            let before = partial.len();
            if before > 0 {
                partial.extend_from_slice(bytes);
            }
            let Some((used, answer)) = head(if before > 0 { partial } else { bytes })? else {
                if before == 0 {
                    partial.extend_from_slice(bytes);
                }
                if partial.len() > HEAD_MAX {
                    return Err(io::Error::other("the head of the answer does not end"));
                }
                return Ok(None);
            };
            body = &bytes[used - before..];
            *self = Reading::Body { left: answer.length, answer };
        }
        let Reading::Body { answer, left } = self else { return Ok(None) };
        if body.len() > *left {
            return Err(io::Error::other("more bytes than the answer has"));
        }
        *left -= body.len();
        answer.crc = crc32c::crc32c_append(answer.crc, body);
        if let Take::Keep(kept) = take {
            kept.extend_from_slice(body);
        }
        Ok((*left == 0).then(|| std::mem::take(answer)))
    }
}

/// Length of the head, and what it says.
fn head(bytes: &[u8]) -> io::Result<Option<(usize, Answer)>> {
    let mut headers = [httparse::EMPTY_HEADER; 48];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(used) = response.parse(bytes).map_err(io::Error::other)? else { return Ok(None) };
    let status = response.code.unwrap_or(0);
    let mut answer = Answer { status, head_at: Some(Instant::now()), ..Answer::default() };
    let mut length = if matches!(status, 204 | 304) { Some(0) } else { None };
    for header in response.headers {
        let value = std::str::from_utf8(header.value).unwrap_or("");
        match header.name {
            name if name.eq_ignore_ascii_case("content-length") => length = length.or(value.parse().ok()),
            name if name.eq_ignore_ascii_case("etag") => answer.etag = Some(value.to_owned()),
            name if name.eq_ignore_ascii_case("content-encoding") => answer.gzip = value == "gzip",
            name if name.eq_ignore_ascii_case("connection") => answer.close = value.eq_ignore_ascii_case("close"),
            _ => {}
        }
    }
    // Rung knows every length, and a cache that passes it on needs no chunks.
    answer.length = length.ok_or_else(|| io::Error::other("an answer without its length"))?;
    Ok(Some((used, answer)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nETag: \"a\"\r\nContent-Encoding: gzip\r\n\r\nhello";

    #[test]
    fn an_answer_is_read_however_it_is_cut() {
        for first in 1..TEXT.len() {
            for second in first..TEXT.len() {
                let (mut reading, mut take) = (Reading::Head(Vec::new()), Take::Keep(Vec::new()));
                let mut done = None;
                for piece in [&TEXT[..first], &TEXT[first..second], &TEXT[second..]] {
                    assert!(done.is_none());
                    if !piece.is_empty() {
                        done = reading.feed(piece, &mut take).unwrap();
                    }
                }
                let answer = done.expect("whole");
                assert_eq!((answer.status, answer.length, answer.gzip), (200, 5, true));
                assert_eq!(answer.crc, crc32c::crc32c(b"hello"));
                assert!(matches!(take, Take::Keep(body) if body == b"hello"), "cut at {first} and {second}");
            }
        }
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        for text in
            [&b"HTTP/1.1 200 OK\r\n\r\n"[..], b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab", b"nonsense\r\n\r\n"]
        {
            assert!(Reading::Head(Vec::new()).feed(text, &mut Take::Sum).is_err());
        }
    }
}
