//! Byte stream format: NAL units behind start codes [AVC B.1].

use memchr::memmem::Finder;
use std::sync::LazyLock;

/// The start code that Rung writes before every NAL unit.
pub const START_CODE: [u8; 4] = [0, 0, 0, 1];

static PREFIX: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(&[0, 0, 1]));

/// Offset of the next 00 00 01.
pub fn find_start(bytes: &[u8]) -> Option<usize> {
    PREFIX.find(bytes)
}

/// The NAL units of a byte stream, without start codes and trailing zero bytes. What precedes the first start code is
/// no NAL unit.
pub fn nal_units(bytes: &[u8]) -> NalUnits<'_> {
    let rest = find_start(bytes).map_or(&[][..], |at| &bytes[at + 3..]);
    NalUnits { rest }
}

#[derive(Clone, Debug)]
pub struct NalUnits<'a> {
    /// Behind a start code.
    rest: &'a [u8],
}

impl<'a> Iterator for NalUnits<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        while !self.rest.is_empty() {
            let (mut nal, rest) = match find_start(self.rest) {
                Some(at) => (&self.rest[..at], &self.rest[at + 3..]),
                None => (self.rest, &[][..]),
            };
            self.rest = rest;
            while let [head @ .., 0] = nal {
                nal = head;
            }
            if !nal.is_empty() {
                return Some(nal);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_codes_of_three_and_four_bytes_and_trailing_zeros_are_not_nal_data() {
        let stream = [9, 9, 0, 0, 1, 0x67, 1, 0, 0, 0, 0, 1, 0x68, 2, 0, 0, 1, 0x65, 0, 3, 0, 0, 0];
        let nals: Vec<&[u8]> = nal_units(&stream).collect();
        assert_eq!(nals, [&[0x67, 1][..], &[0x68, 2], &[0x65, 0, 3]]);
    }

    #[test]
    fn nothing_and_bare_start_codes_hold_no_nal() {
        for stream in [&[][..], &[0, 0], &[0, 0, 1], &[0, 0, 1, 0, 0, 1], &[1, 2, 3]] {
            assert_eq!(nal_units(stream).count(), 0, "{stream:?}");
        }
    }
}
