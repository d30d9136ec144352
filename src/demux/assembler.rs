//! One PID's packets to PES packets, without holding their payload [TS 2.4.3.6].

use crate::mpegts::pes::{self, Parsed, PesHeader};

/// What one packet's payload was to its track. At most one PES packet starts in a packet.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Step<'a> {
    /// A bounded PES packet was cut short by this packet's unit start: so many bytes are missing.
    pub(super) short: Option<usize>,
    pub(super) started: Option<PesHeader>,
    pub(super) data: &'a [u8],
    /// The PES packet's declared length is reached: its payload's size.
    pub(super) ended: Option<usize>,
    pub(super) fault: Option<&'static str>,
}

#[derive(Debug, Default)]
pub(super) struct Assembler {
    state: State,
    /// A header that does not fit its first packet.
    head: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    /// Until the next unit start.
    #[default]
    Skip,
    Header,
    Payload {
        /// Bytes so far, and the length if bounded.
        got: usize,
        of: Option<usize>,
    },
}

impl Assembler {
    pub(super) fn push<'a>(&mut self, payload: &'a [u8], unit_start: bool) -> Step<'a> {
        let mut step = Step::default();
        if unit_start {
            if let State::Payload { got, of: Some(of) } = self.state
                && got < of
            {
                step.short = Some(of - got);
            }
            self.head.clear();
            self.state = State::Header;
        }
        match self.state {
            State::Skip => {}
            State::Header => self.header(payload, &mut step),
            State::Payload { .. } => self.payload(payload, &mut step),
        }
        step
    }

    /// Bytes were lost. A header in pieces is of no use any more; payload goes on, its end unknown.
    pub(super) fn gap(&mut self) {
        match &mut self.state {
            State::Header => self.state = State::Skip,
            State::Payload { of, .. } => *of = None,
            State::Skip => {}
        }
    }

    fn header<'a>(&mut self, payload: &'a [u8], step: &mut Step<'a>) {
        let before = self.head.len();
        let parsed = if before == 0 {
            pes::parse(payload)
        } else {
            self.head.extend_from_slice(&payload[..payload.len().min(pes::HEADER_BYTES_MAX)]);
            pes::parse(&self.head)
        };
        match parsed {
            Parsed::More if before == 0 => self.head.extend_from_slice(payload),
            Parsed::More => {}
            Parsed::Bad(why) => {
                step.fault = Some(why);
                self.state = State::Skip;
            }
            Parsed::Header(header, start) => {
                self.state = if header.stream_id == PADDING_STREAM {
                    State::Skip
                } else {
                    step.started = Some(header);
                    State::Payload { got: 0, of: header.payload }
                };
                self.payload(payload.get(start.saturating_sub(before)..).unwrap_or_default(), step);
            }
        }
    }

    fn payload<'a>(&mut self, payload: &'a [u8], step: &mut Step<'a>) {
        let State::Payload { got, of } = &mut self.state else { return };
        let room = of.map_or(usize::MAX, |of| of - *got);
        step.data = &payload[..payload.len().min(room)];
        *got += step.data.len();
        if *of == Some(*got) {
            step.ended = Some(*got);
            // What follows in this packet and the next ones belongs to no PES packet.
            self.state = State::Skip;
        }
    }
}

const PADDING_STREAM: u8 = 0xBE;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_cut_anywhere_gives_the_same_pes_packet() {
        let mut bytes = Vec::new();
        pes::write(0xC0, 90_000, 80_000, Some(50), &mut bytes);
        let header = bytes.len();
        bytes.extend(0..60u8);
        for cut in 1..header + 50 {
            let mut assembler = Assembler::default();
            let (mut data, mut started, mut ended) = (Vec::new(), 0, None);
            for (piece, start) in [(&bytes[..cut], true), (&bytes[cut..], false)] {
                let step = assembler.push(piece, start);
                started += usize::from(step.started.is_some());
                data.extend_from_slice(step.data);
                ended = ended.or(step.ended);
            }
            assert_eq!((started, ended), (1, Some(50)), "cut at {cut}");
            assert_eq!(data, (0..50u8).collect::<Vec<u8>>());
        }
    }

    #[test]
    fn a_bounded_packet_cut_short_says_how_much_is_missing() {
        let mut bytes = Vec::new();
        pes::write(0xC0, 0, 0, Some(50), &mut bytes);
        bytes.extend([7; 20]);
        let mut assembler = Assembler::default();
        assembler.push(&bytes, true);
        assert_eq!(assembler.push(&bytes, true).short, Some(30));
    }
}
