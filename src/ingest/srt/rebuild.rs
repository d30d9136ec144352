//! The packet filter where media comes in: what was lost is made again out of the packets of its row or its column.
//!
//! A packet that came back may be the last one that another group lacked: rows and columns help each other until neither
//! can. A group is over when the newest packet is a few beyond its last; what is missing then, and in no group that is
//! not over, is hopeless. Memory is that of four matrices, whatever comes.

use bytes::BytesMut;

use super::filter::{Group, Layout, Sum};
use super::packet::Data;
use super::seq::Seq;

/// Matrices behind the newest packet whose groups still count, and for which packets are remembered.
const LIVE: u64 = 3;
const REMEMBERED: u64 = 4;
/// A packet this many matrices ahead of all others is a new beginning.
const LEAP: u64 = 2;
/// Groups of one column that four matrices touch.
const SERIES: u64 = REMEMBERED + 1;

/// libsrt's names are in `stats`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Packets of the filter that came.
    pub(super) extra: u64,
    /// Packets that it brought back.
    pub(super) supplied: u64,
    /// Packets that it could not bring back.
    pub(super) lost: u64,
}

/// What a packet led to.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Lost packets, made again; their payloads are as on the wire.
    pub(super) packets: Vec<(Data, BytesMut)>,
    /// First and last of ranges; what of them is missing will not come back.
    pub(super) hopeless: Vec<(Seq, Seq)>,
}

#[derive(Debug)]
pub(super) struct Rebuilder {
    layout: Layout,
    /// The number behind the newest packet, and how many packets after the connection's first one it is.
    next: Seq,
    next_at: u64,
    /// Which packets are here: each in its place of a ring, by position + 1.
    here: Box<[u64]>,
    rows: Ring,
    columns: Ring,
    /// Groups that end before this position are over.
    judged: u64,
    pub(super) counts: Counts,
}

/// Sums of groups, each in its place; a newer group takes an older one's.
#[derive(Debug)]
struct Ring(Box<[(u64, Sum)]>);

impl Ring {
    fn new(groups: u64) -> Ring {
        Ring((0..groups).map(|_| (0, Sum::default())).collect())
    }

    /// `None`: a newer group has its place.
    fn sum(&mut self, place: u64, number: u64) -> Option<&mut Sum> {
        let (owner, sum) = self.0.get_mut(place as usize)?;
        if *owner < number + 1 {
            *owner = number + 1;
            sum.clear();
        }
        (*owner == number + 1).then_some(sum)
    }
}

impl Rebuilder {
    /// `first`: the number of the sender's first packet.
    pub(super) fn new(layout: Layout, first: Seq) -> Rebuilder {
        let rows = if layout.by_rows { REMEMBERED * u64::from(layout.rows) + 1 } else { 0 };
        let columns = if layout.rows > 1 { SERIES * u64::from(layout.columns) } else { 0 };
        Rebuilder {
            layout,
            next: first,
            next_at: 0,
            here: vec![0; (REMEMBERED * layout.matrix()) as usize].into(),
            rows: Ring::new(rows),
            columns: Ring::new(columns),
            judged: 0,
            counts: Counts::default(),
        }
    }

    /// A packet of media came, its payload as on the wire.
    pub(super) fn media(&mut self, data: &Data, payload: &[u8], found: &mut Found) {
        let Some(at) = self.position(data.seq).filter(|at| self.is_live(*at) && !self.is_here(*at)) else { return };
        if at >= self.next_at + LEAP * self.layout.matrix() {
            self.leap(at, found);
        }
        self.came(at);
        let groups = [Some(self.layout.row(at)), self.layout.column(at)];
        for group in groups.into_iter().flatten() {
            if let Some(sum) = self.sum(&group) {
                sum.add(data, payload);
            }
        }
        groups.into_iter().flatten().for_each(|group| self.rebuild(group, found));
        self.judge(found);
    }

    /// A packet of the filter came: it has the number of its group's last packet.
    pub(super) fn filter(&mut self, data: &Data, payload: &[u8], found: &mut Found) {
        self.counts.extra += 1;
        let ahead = self.next_at + self.layout.matrix();
        let Some(at) = self.position(data.seq).filter(|at| *at < ahead) else { return };
        let Some(group) = payload.first().and_then(|byte| self.layout.group(at, *byte)) else { return };
        let Some(sum) = self.sum(&group).filter(|sum| !sum.filter) else { return };
        if sum.add_filter(data.timestamp, payload) {
            self.rebuild(group, found);
            self.judge(found);
        }
    }

    /// Makes a group's last missing packet again, then the one that this lets be made in the group that crosses it
    /// there, and so on.
    fn rebuild(&mut self, group: Group, found: &mut Found) {
        let mut next = Some(group);
        while let Some(group) = next.take() {
            if !self.sum(&group).is_some_and(|sum| sum.filter && sum.packets + 1 == group.size) {
                return;
            }
            let Some(at) = group.members().find(|at| !self.is_here(*at)) else { return };
            let seq = self.seq(at);
            let Some(sum) = self.sum(&group) else { return };
            // Whatever comes of it, the group has done what it can.
            sum.packets += 1;
            let Some((data, payload)) = sum.left(seq) else { return };
            let payload = BytesMut::from(payload);
            self.came(at);
            self.counts.supplied += 1;
            next = if group.column.is_some() { Some(self.layout.row(at)) } else { self.layout.column(at) };
            if let Some(sum) = next.as_ref().and_then(|crossing| self.sum(crossing)) {
                sum.add(&data, &payload);
            }
            found.packets.push((data, payload));
        }
    }

    /// What is missing from groups that are over.
    fn judge(&mut self, found: &mut Found) {
        // Neighbours may overtake each other by so much.
        let patience = u64::from(self.layout.columns / 3 + 1);
        while self.judged + patience < self.next_at {
            let end = self.judged;
            self.judged += 1;
            let (layout, before) = (self.layout, found.hopeless.len());
            let row = layout.row(end);
            if row.last() == end {
                let over = |column: Option<Group>| column.is_none_or(|c| layout.by_rows && c.last() <= end);
                let missing = row.members().filter(|at| !self.is_here(*at) && over(layout.column(*at)));
                found.hopeless.extend(missing.map(|at| (self.seq(at), self.seq(at))));
            }
            if let Some(column) = layout.column(end).filter(|column| column.last() == end) {
                let over = |row: Group| !layout.by_rows || row.last() < end;
                let missing = column.members().filter(|at| !self.is_here(*at) && over(layout.row(*at)));
                found.hopeless.extend(missing.map(|at| (self.seq(at), self.seq(at))));
            }
            self.counts.lost += (found.hopeless.len() - before) as u64;
        }
    }

    /// The sender went on while nothing was heard of it.
    fn leap(&mut self, at: u64, found: &mut Found) {
        // The groups of the last matrix before it are not over.
        let (matrix, end) = (self.layout.matrix(), at - self.layout.matrix());
        self.counts.lost += end - self.next_at;
        found.hopeless.push((self.seq(self.next_at.saturating_sub(LIVE * matrix)), self.seq(end - 1)));
        self.judged = end;
    }

    /// `None`: before the connection's first packet.
    fn position(&self, seq: Seq) -> Option<u64> {
        self.next_at.checked_add_signed(seq.since(self.next).into())
    }

    fn seq(&self, at: u64) -> Seq {
        // Positions wrap as numbers do: the low bits of their difference are all that counts.
        self.next.plus(at.wrapping_sub(self.next_at) as u32)
    }

    fn is_live(&self, at: u64) -> bool {
        at + LIVE * self.layout.matrix() >= self.next_at
    }

    fn is_here(&self, at: u64) -> bool {
        self.here[(at % self.here.len() as u64) as usize] == at + 1
    }

    fn came(&mut self, at: u64) {
        let place = (at % self.here.len() as u64) as usize;
        self.here[place] = at + 1;
        if at >= self.next_at {
            (self.next, self.next_at) = (self.seq(at + 1), at + 1);
        }
    }

    /// A group's sum; `None`: there is none of it, or not any more.
    fn sum(&mut self, group: &Group) -> Option<&mut Sum> {
        if !self.is_live(group.first) {
            return None;
        }
        match group.column {
            None => self.rows.sum(group.number % self.rows.0.len().max(1) as u64, group.number),
            Some(column) => self.columns.sum(u64::from(column) * SERIES + group.number % SERIES, group.number),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::filter::{Filter, HEAD};
    use super::super::packet::Key;
    use super::super::protect::Protector;
    use super::*;

    const LAYOUTS: [&str; 8] = [
        "fec,cols:7",
        "fec,cols:2",
        "fec,cols:10,rows:5",
        "fec,cols:5,rows:3,layout:even",
        "fec,cols:4,rows:9",
        "fec,cols:6,rows:-4,layout:even",
        "fec,cols:6,rows:-4",
        "fec,cols:3,rows:2",
    ];

    fn first() -> Seq {
        Seq::new(0x7fff_ffe0)
    }

    struct Random(u64);

    impl Random {
        fn below(&mut self, n: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % n
        }
    }

    fn layout(text: &str) -> Layout {
        Filter::parse(text).unwrap().layout
    }

    fn packet(at: u64) -> (Data, Vec<u8>) {
        let key = if (at / 11).is_multiple_of(2) { Key::Even } else { Key::Odd };
        let data = Data {
            seq: first().plus(at as u32),
            key,
            retransmitted: false,
            message: at as u32 + 1,
            timestamp: (at as u32).wrapping_mul(0x9e37_79b1),
        };
        let length = 20 + at as usize * 7 % 40;
        (data, (0..length as u64).map(|n| (at * 31 + n * n) as u8).collect())
    }

    /// What a sender sends: packet, position, and whether it is the filter's.
    fn sent(layout: Layout, packets: u64) -> Vec<(Data, Vec<u8>)> {
        let (mut protector, mut all) = (Protector::new(layout), Vec::new());
        for at in 0..packets {
            let (data, payload) = packet(at);
            let mut behind = Vec::new();
            protector.packet(&data, &payload, |data, payload| behind.push((data, payload)));
            all.push((data, payload));
            all.extend(behind);
        }
        all
    }

    fn position(data: &Data) -> u64 {
        data.seq.since(first()) as u64
    }

    /// Groups by the words of libsrt's description, not by the layout's arithmetic.
    fn groups(text: &str, packets: u64) -> Vec<(Option<u64>, Vec<u64>)> {
        let l = layout(text);
        let (columns, rows) = (u64::from(l.columns), u64::from(l.rows));
        let mut all = Vec::new();
        if l.by_rows {
            all.extend((0..packets / columns).map(|row| (None, (row * columns..(row + 1) * columns).collect())));
        }
        let mut top = 0;
        for column in 0..if rows > 1 { columns } else { 0 } {
            for base in (top..packets).step_by((columns * rows) as usize) {
                all.push((Some(column), (0..rows).map(|row| base + row * columns).collect()));
            }
            top = match (l.staircase, column % rows == rows - 1) {
                (true, false) => top + columns + 1,
                _ => column + 1,
            };
        }
        all.retain(|(_, members): &(_, Vec<u64>)| members.iter().all(|at| *at < packets));
        all
    }

    /// Every packet that is here or comes back when groups help each other until none can.
    fn oracle(text: &str, packets: u64, here: &[(Data, Vec<u8>)]) -> BTreeSet<u64> {
        let filters: BTreeSet<(Option<u64>, u64)> = here
            .iter()
            .filter(|(data, _)| data.message == 0)
            .map(|(data, payload)| ((payload[0] != 0xff).then_some(payload[0].into()), position(data)))
            .collect();
        let groups: Vec<_> = groups(text, packets)
            .into_iter()
            .filter(|(column, members)| filters.contains(&(*column, *members.last().unwrap())))
            .collect();
        let mut known: BTreeSet<u64> = here.iter().filter(|(d, _)| d.message != 0).map(|(d, _)| position(d)).collect();
        while let Some(at) = groups.iter().find_map(|(_, members)| {
            let mut missing = members.iter().filter(|at| !known.contains(at));
            missing.next().filter(|_| missing.next().is_none()).copied()
        }) {
            known.insert(at);
        }
        known
    }

    #[derive(Default)]
    struct Outcome {
        known: BTreeSet<u64>,
        hopeless: Vec<u64>,
    }

    /// Feeds `here` and checks that each packet that comes back is what was sent.
    fn feed(rebuilder: &mut Rebuilder, here: &[(Data, Vec<u8>)]) -> Outcome {
        let (mut outcome, mut found) = (Outcome::default(), Found::default());
        for (data, payload) in here {
            if data.message == 0 {
                rebuilder.filter(data, payload, &mut found);
            } else {
                rebuilder.media(data, payload, &mut found);
                outcome.known.insert(position(data));
            }
            for (data, payload) in found.packets.drain(..) {
                let (want, body) = packet(position(&data));
                assert_eq!((data.key, data.timestamp, &payload[..]), (want.key, want.timestamp, &body[..]));
                assert!(data.retransmitted && outcome.known.insert(position(&data)), "each comes back once");
            }
            for (from, to) in found.hopeless.drain(..) {
                let (from, to) = (from.since(first()) as u64, to.since(first()) as u64);
                outcome.hopeless.extend((from..=to).filter(|at| !outcome.known.contains(at)));
            }
        }
        outcome
    }

    #[test]
    fn exactly_what_groups_that_help_each_other_can_bring_back_comes_back() {
        let mut supplied = [0; LAYOUTS.len()];
        for (text, supplied) in LAYOUTS.iter().zip(&mut supplied) {
            for seed in 0..40 {
                let (l, mut random) = (layout(text), Random(seed));
                let packets = LIVE * l.matrix() + random.below(l.columns.into());
                let loss = 1 + random.below(30);
                let mut here = sent(l, packets);
                here.retain(|_| random.below(100) >= loss);
                let disorder = [1, 1, 6][seed as usize % 3];
                let mut order: Vec<(u64, usize)> =
                    (0..here.len()).map(|n| (n as u64 + random.below(disorder), n)).collect();
                order.sort();
                // Some come twice.
                let again = order.iter().filter(|(_, n)| n % 9 == 0);
                let shuffled: Vec<_> = order.iter().chain(again).map(|(_, n)| here[*n].clone()).collect();
                let mut rebuilder = Rebuilder::new(l, first());
                let outcome = feed(&mut rebuilder, &shuffled);
                let want = oracle(text, packets, &here);
                assert_eq!(outcome.known, want, "{text}, seed {seed}");
                if disorder == 1 {
                    let media = here.iter().filter(|(data, _)| data.message != 0).count();
                    assert_eq!(rebuilder.counts.supplied as usize, want.len() - media);
                    *supplied += want.len() - media;
                    check_hopeless(text, packets, &outcome, &want, seed);
                }
            }
        }
        assert!(supplied.iter().all(|n| *n > 15), "{supplied:?}");
    }

    /// What is hopeless was said once, in time, and nothing that was here.
    fn check_hopeless(text: &str, packets: u64, outcome: &Outcome, known: &BTreeSet<u64>, seed: u64) {
        let (l, said) = (layout(text), outcome.hopeless.iter().copied().collect::<BTreeSet<_>>());
        // A leap, which only small matrices see here, names what is unsure once more.
        assert!(said.len() == outcome.hopeless.len() || l.matrix() < 7, "{text}, seed {seed}: said twice");
        let newest = outcome.known.last().copied().unwrap_or(0);
        let groups = groups(text, packets + 2 * l.matrix());
        for at in (0..newest).filter(|at| !known.contains(at)) {
            let own = groups.iter().filter(|(_, members)| members.contains(&at));
            let over = own.map(|(_, members)| members[members.len() - 1]).max().unwrap_or(l.row(at).last());
            if over + u64::from(l.columns) < newest {
                assert!(said.contains(&at), "{text}, seed {seed}: {at} of {packets} is missing and nobody says so");
            }
        }
        if l.rows == 1 {
            assert!(said.is_disjoint(known), "{text}, seed {seed}: rows alone are certain");
        }
    }

    #[test]
    fn a_long_connection_over_the_wrap_keeps_what_it_needs_and_no_more() {
        for text in LAYOUTS {
            let (l, mut random) = (layout(text), Random(5));
            let packets = 40 * l.matrix();
            let mut here = sent(l, packets);
            here.retain(|_| random.below(50) != 0);
            let mut rebuilder = Rebuilder::new(l, first());
            let outcome = feed(&mut rebuilder, &here);
            let want = oracle(text, packets, &here);
            assert_eq!(outcome.known, want, "{text}");
            let sums = rebuilder.rows.0.iter().chain(&rebuilder.columns.0).count() as u64;
            assert!(sums <= 9 * u64::from(l.rows + l.columns), "{text}: {sums} sums");
        }
    }

    #[test]
    fn a_sender_that_leaps_ahead_is_followed_and_what_it_skipped_is_hopeless() {
        for text in LAYOUTS {
            let l = layout(text);
            let (leap, lost) = (100 * l.matrix(), 101 * l.matrix() + 1);
            let mut rebuilder = Rebuilder::new(l, first());
            let mut all = sent(l, leap + 4 * l.matrix());
            all.retain(|(data, _)| {
                position(data) < 3 || position(data) >= leap && (position(data), data.message == 0) != (lost, false)
            });
            let outcome = feed(&mut rebuilder, &all);
            assert!(outcome.known.contains(&lost), "{text}: groups are as before");
            let said: BTreeSet<u64> = outcome.hopeless.iter().copied().collect();
            // Groups that end behind the leap may still bring one back.
            let gone: Vec<u64> = (3..leap).filter(|at| !outcome.known.contains(at)).collect();
            assert!(gone.len() as u64 + 3 + l.matrix() >= leap && gone.iter().all(|at| said.contains(at)), "{text}");
            assert!(rebuilder.counts.lost >= gone.len() as u64, "{text}");
        }
    }

    #[test]
    fn packets_of_the_filter_that_make_no_sense_are_bounded_and_forgotten() {
        let text = "fec,cols:5,rows:4";
        let (l, mut random) = (layout(text), Random(3));
        let (mut rebuilder, mut found, mut made) = (Rebuilder::new(l, first()), Found::default(), 0);
        for at in 0..2_000 {
            let (mut data, payload) = packet(at);
            rebuilder.media(&data, &payload, &mut found);
            data.message = 0;
            for _ in 0..4 {
                let near = (at + 60).saturating_sub(random.below(120)) as u32;
                let far = if random.below(4) == 0 { (random.below(8) as u32) << 28 } else { 0 };
                let mut body: Vec<u8> = (0..random.below(HEAD as u64 + 90)).map(|_| random.below(256) as u8).collect();
                if let ([index, key, high, ..], true) = (body.as_mut_slice(), random.below(2) == 0) {
                    (*index, *key, *high) = ([0, 1, 2, 3, 4, 0xff][random.below(6) as usize], *key & 3, 0);
                }
                rebuilder.filter(&Data { seq: first().plus(near + far), ..data }, &body, &mut found);
            }
            made += found.packets.len();
            assert!(found.packets.drain(..).all(|(_, payload)| !payload.is_empty() && payload.len() < HEAD + 90));
            found.hopeless.clear();
        }
        assert!(made > 10 && rebuilder.counts.extra == 8_000, "{made} made up");
        assert!(rebuilder.here.len() as u64 == REMEMBERED * l.matrix() && rebuilder.rows.0.len() == 17);
        // A sender that behaves from then on is served as if nothing had been.
        let mut all = sent(l, 4_000);
        all.retain(|(data, _)| position(data) >= 3_000 && (data.message == 0 || !position(data).is_multiple_of(13)));
        let outcome = feed(&mut rebuilder, &all);
        assert_eq!(outcome.known, oracle(text, 4_000, &all));
        assert!(outcome.known.len() > 990);
    }
}
