//! A byte stream cut at its start codes.

/// A unit that grows beyond this is no stream: it is dropped.
const UNIT_BYTES_MAX: usize = 32 << 20;

/// Begins of units shorter than this are not looked at.
const PARTIAL_BYTES_MIN: usize = 64;

#[derive(Default)]
pub(crate) struct Units {
    buffer: Vec<u8>,
    /// Place of `buffer[0]` in the stream.
    base: u64,
    /// The buffer begins with a start code.
    begun: bool,
    /// No start code begins before this, but for the one at 0.
    searched: usize,
}

impl Units {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Where the next byte will be.
    pub(crate) fn end(&self) -> u64 {
        self.base + self.buffer.len() as u64
    }

    /// The next unit that another start code ends: its place, and its bytes without start code.
    pub(crate) fn next_whole(&mut self) -> Option<(u64, Vec<u8>)> {
        loop {
            let from = self.searched.max(if self.begun { 3 } else { 0 });
            let Some(found) = self.buffer.get(from..).and_then(start_code).map(|at| from + at) else {
                self.searched = self.buffer.len().saturating_sub(2);
                if self.buffer.len() > UNIT_BYTES_MAX {
                    self.drop_front(self.buffer.len());
                    self.begun = false;
                }
                return None;
            };
            let at = self.base;
            let unit = self.begun.then(|| self.buffer[3..found].to_vec());
            self.drop_front(found);
            self.begun = true;
            if let Some(unit) = unit {
                return Some((at, unit));
            }
        }
    }

    /// The unit that nothing has ended yet, where enough of it is there to be told from others.
    pub(crate) fn partial(&self) -> Option<&[u8]> {
        (self.begun && self.buffer.len() >= PARTIAL_BYTES_MIN).then(|| &self.buffer[3..])
    }

    /// Nothing of the last unit is missing.
    pub(crate) fn finish(&mut self) -> Option<(u64, Vec<u8>)> {
        let unit = (self.begun && self.buffer.len() > 3).then(|| (self.base, self.buffer[3..].to_vec()));
        self.drop_front(self.buffer.len());
        self.begun = false;
        unit
    }

    fn drop_front(&mut self, count: usize) {
        self.buffer.drain(..count);
        self.base += count as u64;
        self.searched = 0;
    }
}

fn start_code(bytes: &[u8]) -> Option<usize> {
    bytes.windows(3).position(|three| three == [0, 0, 1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_come_out_whole_however_the_bytes_come_in() {
        let stream = [7, 0, 0, 1, 10, 11, 0, 0, 0, 1, 20, 0, 0, 1, 30, 31];
        for piece in 1..stream.len() {
            let mut units = Units::default();
            let mut out = Vec::new();
            for bytes in stream.chunks(piece) {
                units.push(bytes);
                out.extend(std::iter::from_fn(|| units.next_whole()));
            }
            assert_eq!(units.end(), 16);
            out.extend(units.finish());
            assert_eq!(out, [(1, vec![10, 11, 0]), (7, vec![20]), (11, vec![30, 31])], "pieces of {piece}");
        }
    }
}
