//! The packet filter `fec`: what both sides agree on, where its matrix puts a packet, and the sum of a group's packets
//! from which a missing one comes back.
//!
//! Packets, counted from a connection's first, lie in rows of `columns`; so many `rows` are a matrix. A row's packets
//! follow each other, a column's are a row apart. In the staircase every column begins a row below its left neighbour,
//! as many steps as there are rows, then at the top again: what lies above a column's first packet is in no column.
//! The format is libsrt's own: [SRT 3.2.1] only numbers the extension.

use std::collections::BTreeMap;

use super::packet::{Data, Key};
use super::seq::Seq;

/// Packets of a matrix at most: what a connection's sums may take of the memory, 3 MB, is decided here.
const MATRIX_MAX: u32 = 1_024;
/// Columns at most where they have packets of their own, whose first byte names them; 255 is a row's.
const COLUMNS_MAX: u32 = 255;
/// In front of the sum in a filter's packet: which group, keys, length.
pub(super) const HEAD: usize = 4;
/// The group byte of a row.
const ROW: u8 = 0xff;

/// A filter that both sides know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Filter {
    pub(super) layout: Layout,
    pub(super) questions: Questions,
}

/// When the receiver asks for a packet that is missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Questions {
    /// As if there were no filter.
    #[default]
    Always,
    /// Once the filter cannot bring it back any more.
    Hopeless,
    Never,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) columns: u32,
    pub(super) rows: u32,
    /// Rows have packets of the filter.
    pub(super) by_rows: bool,
    pub(super) staircase: bool,
}

/// Packets that share one packet of the filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Group {
    /// `None`: a row.
    pub(super) column: Option<u32>,
    /// Which of the rows, or of the column's groups, from the connection's beginning.
    pub(super) number: u64,
    pub(super) first: u64,
    step: u64,
    pub(super) size: u32,
}

impl Filter {
    /// `text` as both sides send it: `fec,cols:10,rows:5,layout:staircase,arq:onreq`; only `cols` must be there. One row
    /// means rows alone, `rows:-5` columns of five alone. `None`: nothing that is known and fits.
    pub(super) fn parse(text: &str) -> Option<Filter> {
        Filter::from_pairs(&pairs(text)?)
    }

    /// What a caller that asked for `ours` uses after the listener's answer `theirs`, which wins.
    pub(super) fn merged(ours: &str, theirs: &str) -> Option<Filter> {
        let mut all = pairs(ours)?;
        all.extend(pairs(theirs)?);
        Filter::from_pairs(&all)
    }

    fn from_pairs(pairs: &BTreeMap<&str, &str>) -> Option<Filter> {
        if pairs.keys().any(|key| !["cols", "rows", "layout", "arq"].contains(key)) {
            return None;
        }
        let columns: u32 = pairs.get("cols")?.parse().ok()?;
        let rows: i32 = pairs.get("rows").map_or(Ok(1), |rows| rows.parse()).ok()?;
        let staircase = match pairs.get("layout").copied() {
            None | Some("staircase") => true,
            Some("even") => false,
            Some(_) => return None,
        };
        let questions = match pairs.get("arq").copied() {
            Some("always") => Questions::Always,
            None | Some("onreq") => Questions::Hopeless,
            Some("never") => Questions::Never,
            Some(_) => return None,
        };
        let layout = Layout { columns, rows: rows.unsigned_abs(), by_rows: rows > 0, staircase };
        let fits = columns >= 2
            && (rows >= 1 || rows <= -2)
            && (rows == 1 || columns <= COLUMNS_MAX)
            && u64::from(columns) * u64::from(layout.rows) <= u64::from(MATRIX_MAX);
        fits.then_some(Filter { layout, questions })
    }
}

fn pairs(text: &str) -> Option<BTreeMap<&str, &str>> {
    let mut parts = text.split(',');
    parts.next().filter(|kind| *kind == "fec")?;
    parts.map(|pair| pair.split_once(':')).collect()
}

impl Layout {
    /// Packets of a matrix.
    pub(super) fn matrix(self) -> u64 {
        u64::from(self.columns) * u64::from(self.rows)
    }

    /// The row of the packet at `at`; it has a packet of the filter only `by_rows`.
    pub(super) fn row(self, at: u64) -> Group {
        let number = at / u64::from(self.columns);
        Group { column: None, number, first: number * u64::from(self.columns), step: 1, size: self.columns }
    }

    /// The column's group of the packet at `at`.
    pub(super) fn column(self, at: u64) -> Option<Group> {
        if self.rows == 1 {
            return None;
        }
        let column = (at % u64::from(self.columns)) as u32;
        let steps = if self.staircase { column % self.rows } else { 0 };
        let top = u64::from(column) + u64::from(steps) * u64::from(self.columns);
        let number = at.checked_sub(top)? / self.matrix();
        let first = top + number * self.matrix();
        Some(Group { column: Some(column), number, first, step: self.columns.into(), size: self.rows })
    }

    /// The group whose packet of the filter came with the number of the packet at `at`, by its first byte.
    pub(super) fn group(self, at: u64, byte: u8) -> Option<Group> {
        if byte == ROW {
            return self.by_rows.then(|| self.row(at));
        }
        self.column(at).filter(|group| group.column == Some(byte.into()))
    }
}

impl Group {
    pub(super) fn last(&self) -> u64 {
        self.first + self.step * u64::from(self.size - 1)
    }

    pub(super) fn members(&self) -> impl Iterator<Item = u64> + use<> {
        let (first, step) = (self.first, self.step);
        (0..u64::from(self.size)).map(move |n| first + n * step)
    }
}

/// The exclusive or of packets: of their payloads (short ones end in zeros), lengths, keys and time stamps.
#[derive(Debug, Default)]
pub(super) struct Sum {
    /// How many packets are in it.
    pub(super) packets: u32,
    /// So is the filter's own.
    pub(super) filter: bool,
    length: u16,
    key: u8,
    timestamp: u32,
    payload: Vec<u8>,
}

impl Sum {
    /// Of nothing; its memory stays.
    pub(super) fn clear(&mut self) {
        let mut payload = std::mem::take(&mut self.payload);
        payload.clear();
        *self = Sum { payload, ..Sum::default() };
    }

    /// One more packet, its payload as it is on the wire.
    pub(super) fn add(&mut self, data: &Data, payload: &[u8]) {
        self.packets += 1;
        self.length ^= payload.len() as u16;
        self.key ^= key_bits(data.key);
        self.timestamp ^= data.timestamp;
        self.mix(payload);
    }

    /// The filter's packet, whose payload is this: all that its sender had in its own sum. `false`: it is none.
    pub(super) fn add_filter(&mut self, timestamp: u32, payload: &[u8]) -> bool {
        let [_, key, high, low, rest @ ..] = payload else { return false };
        self.filter = true;
        self.length ^= u16::from_be_bytes([*high, *low]);
        self.key ^= key;
        self.timestamp ^= timestamp;
        self.mix(rest);
        true
    }

    fn mix(&mut self, payload: &[u8]) {
        if self.payload.len() < payload.len() {
            self.payload.resize(payload.len(), 0);
        }
        self.payload.iter_mut().zip(payload).for_each(|(sum, byte)| *sum ^= byte);
    }

    /// The packet `seq`, the only one of the group that is not in the sum. `None`: what is left is no packet.
    pub(super) fn left(&self, seq: Seq) -> Option<(Data, &[u8])> {
        let key = [Key::Clear, Key::Even, Key::Odd].into_iter().find(|key| key_bits(*key) == self.key)?;
        let payload = self.payload.get(..self.length.into()).filter(|payload| !payload.is_empty())?;
        // It is not where the sender's clock was when it came, like one that was sent again.
        Some((Data { seq, key, retransmitted: true, message: 1, timestamp: self.timestamp }, payload))
    }

    /// The filter's packet for a group that ends with the packet `last`.
    pub(super) fn packet(&self, group: &Group, last: &Data) -> (Data, Vec<u8>) {
        let index = group.column.map_or(ROW, |column| column as u8);
        let [high, low] = self.length.to_be_bytes();
        let mut payload = Vec::with_capacity(HEAD + self.payload.len());
        payload.extend([index, self.key, high, low]);
        payload.extend_from_slice(&self.payload);
        (Data { message: 0, retransmitted: false, timestamp: self.timestamp, ..*last }, payload)
    }
}

fn key_bits(key: Key) -> u8 {
    match key {
        Key::Clear => 0,
        Key::Even => 1,
        Key::Odd => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_read_with_its_defaults_and_nothing_else_is_taken() {
        let layout = |columns, rows, by_rows, staircase| Layout { columns, rows, by_rows, staircase };
        for (text, want, questions) in [
            ("fec,cols:10,rows:5", layout(10, 5, true, true), Questions::Hopeless),
            ("fec,cols:10", layout(10, 1, true, true), Questions::Hopeless),
            ("fec,arq:never,layout:even,rows:-5,cols:4", layout(4, 5, false, false), Questions::Never),
            ("fec,cols:1024,rows:1,arq:always,layout:staircase", layout(1_024, 1, true, true), Questions::Always),
            ("fec,cols:255,rows:4", layout(255, 4, true, true), Questions::Hopeless),
        ] {
            assert_eq!(Filter::parse(text), Some(Filter { layout: want, questions }), "{text}");
        }
        for text in [
            "",
            "fec",
            "fec,",
            "fec,rows:5",
            "fec,cols:1",
            "fec,cols:x",
            "fec,cols:10,rows:0",
            "fec,cols:10,rows:-1",
            "fec,cols:10,layout:odd",
            "fec,cols:10,arq:sometimes",
            "fec,cols:10,more:1",
            "fec,cols:256,rows:2",
            "fec,cols:1025",
            "fec,cols:40,rows:40",
            "fec,cols:10,rows:-2147483648",
            "adaptive,cols:10",
        ] {
            assert_eq!(Filter::parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_listeners_answer_wins_over_what_was_asked() {
        let merged =
            |ours, theirs| Filter::merged(ours, theirs).map(|f| (f.layout.columns, f.layout.rows, f.questions));
        assert_eq!(merged("fec", "fec,cols:7,arq:never"), Some((7, 1, Questions::Never)));
        assert_eq!(merged("fec,cols:8,rows:3", "fec,cols:8"), Some((8, 3, Questions::Hopeless)));
        assert_eq!(merged("fec,cols:8,rows:3", "fec,rows:4"), Some((8, 4, Questions::Hopeless)));
        assert_eq!(merged("fec,cols:8", "other,cols:8"), None);
    }

    #[test]
    fn a_packet_lies_in_its_row_and_in_a_column_that_begins_where_the_layout_says() {
        let even = Filter::parse("fec,cols:5,rows:3,layout:even").unwrap().layout;
        let stairs = Filter::parse("fec,cols:5,rows:3").unwrap().layout;
        let members = |group: Group| group.members().collect::<Vec<_>>();
        assert_eq!(members(even.row(7)), [5, 6, 7, 8, 9]);
        assert_eq!(members(even.column(7).unwrap()), [2, 7, 12]);
        assert_eq!(members(even.column(17).unwrap()), [17, 22, 27]);
        // Columns begin at 0, 6, 12, then from the top again at 3 and 9.
        let tops: Vec<Vec<u64>> = [0, 6, 12, 3, 9].map(|at| members(stairs.column(at).unwrap())).into();
        assert_eq!(tops, [vec![0, 5, 10], vec![6, 11, 16], vec![12, 17, 22], vec![3, 8, 13], vec![9, 14, 19]]);
        for above in [1, 2, 4, 7] {
            assert_eq!(stairs.column(above), None, "{above}");
        }
        let second = stairs.column(26).unwrap();
        assert_eq!((second.first, second.number, second.last()), (21, 1, 31));
        assert_eq!(stairs.group(31, 1), Some(second));
        assert_eq!((stairs.group(31, 2), stairs.group(31, ROW)), (None, Some(stairs.row(31))));
        let columns = Filter::parse("fec,cols:5,rows:-3").unwrap().layout;
        assert_eq!(columns.group(31, ROW), None, "rows have none of the filter's packets");
        assert_eq!(Filter::parse("fec,cols:5").unwrap().layout.column(4), None);
    }

    #[test]
    fn what_is_missing_from_a_sum_is_what_is_left_of_it() {
        let seq = Seq::new(77);
        let packet = |n: u32, key, length: usize| {
            (
                Data { seq: seq.plus(n), key, message: n + 1, timestamp: n * 1_000_003, ..Data::default() },
                vec![n as u8; length],
            )
        };
        let all = [packet(0, Key::Even, 1_316), packet(1, Key::Odd, 188), packet(2, Key::Clear, 1_400)];
        let layout = Filter::parse("fec,cols:3").unwrap().layout;
        let mut sent = Sum::default();
        all.iter().for_each(|(data, payload)| sent.add(data, payload));
        let (head, body) = sent.packet(&layout.row(2), &all[2].0);
        assert_eq!((head.seq, head.message, body.len(), body[0]), (seq.plus(2), 0, HEAD + 1_400, ROW));
        for missing in 0..3 {
            let mut got = Sum::default();
            all.iter()
                .enumerate()
                .filter(|(n, _)| *n != missing)
                .for_each(|(_, (data, payload))| got.add(data, payload));
            assert!(got.add_filter(head.timestamp, &body) && got.filter && got.packets == 2);
            let (want, payload) = &all[missing];
            let (data, left) = got.left(want.seq).unwrap();
            assert_eq!((data.key, data.timestamp, left), (want.key, want.timestamp, payload.as_slice()));
            got.clear();
            assert!(got.left(seq).is_none() && !got.add_filter(0, &[ROW, 0, 1]), "neither is a packet");
        }
    }

    #[test]
    fn a_sum_that_makes_no_sense_gives_no_packet() {
        for body in
            [vec![ROW, 3, 0, 9, 1, 2, 3], vec![ROW, 0, 0, 0, 1, 2], vec![ROW, 0, 0xff, 0xff, 1], vec![ROW, 9, 0, 1, 1]]
        {
            let mut sum = Sum::default();
            assert!(sum.add_filter(0, &body));
            assert_eq!(sum.left(Seq::new(1)), None, "{body:?}");
        }
    }
}
