//! The packet filter where media goes out: after the last packet of a row or a column goes the sum of all of them.

use super::filter::{Layout, Sum};
use super::packet::Data;

#[derive(Debug)]
pub(super) struct Protector {
    layout: Layout,
    /// How many packets went.
    at: u64,
    row: Sum,
    columns: Box<[Sum]>,
}

impl Protector {
    pub(super) fn new(layout: Layout) -> Protector {
        let columns = if layout.rows > 1 { layout.columns } else { 0 };
        Protector { layout, at: 0, row: Sum::default(), columns: (0..columns).map(|_| Sum::default()).collect() }
    }

    /// The next packet goes, its payload as on the wire; then those of the filter, at most two, by `put`.
    pub(super) fn packet(&mut self, data: &Data, payload: &[u8], mut put: impl FnMut(Data, Vec<u8>)) {
        let at = self.at;
        self.at += 1;
        let row = Some(self.layout.row(at)).filter(|_| self.layout.by_rows);
        // libsrt's order, columns first.
        for group in [self.layout.column(at), row].into_iter().flatten() {
            let sum = match group.column {
                Some(column) => self.columns.get_mut(column as usize),
                None => Some(&mut self.row),
            };
            let Some(sum) = sum else { continue };
            if group.first == at {
                sum.clear();
            }
            sum.add(data, payload);
            if group.last() == at {
                let (head, body) = sum.packet(&group, data);
                put(head, body);
            }
        }
    }
}
