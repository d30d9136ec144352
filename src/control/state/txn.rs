//! Typed views of the data: [`Read`], and [`Write`], which reads its own writes.

use std::ops::Bound;

use heed::{RoTxn, RwTxn, WithoutTls};

use super::error::Error;
use super::lmdb::{Handle, Handles};
use super::table::{Db, Key, Table, bytes_of, corrupt};

/// One unchanging view. It keeps every page that it may show: be quick (100 ms at most), never hold one while waiting.
pub struct Read<'t> {
    txn: &'t RoTxn<'t, WithoutTls>,
    handles: &'t Handles,
}

impl<'t> Read<'t> {
    pub(super) fn new(txn: &'t RoTxn<'t, WithoutTls>, handles: &'t Handles) -> Read<'t> {
        Read { txn, handles }
    }

    /// # Errors
    /// The row is damaged or newer than this Rung, or the store failed.
    pub fn get<K: Key, V>(&self, table: &Table<K, V>, key: &K) -> Result<Option<V>, Error> {
        let key = bytes_of(key);
        let stored = handle(self.handles, table.db)?.get(self.txn, &key)?;
        stored.map(|stored| table.decode(&key, stored)).transpose()
    }

    /// Whether there is a row, whatever its state.
    ///
    /// # Errors
    /// The store failed.
    pub fn has<K: Key, V>(&self, table: &Table<K, V>, key: &K) -> Result<bool, Error> {
        Ok(handle(self.handles, table.db)?.get(self.txn, &bytes_of(key))?.is_some())
    }

    /// The row with the greatest key.
    ///
    /// # Errors
    /// The row is damaged or newer than this Rung, or the store failed.
    pub fn last<K: Key, V>(&self, table: &Table<K, V>) -> Result<Option<(K, V)>, Error> {
        let last = handle(self.handles, table.db)?.last(self.txn)?;
        last.map(|(key, stored)| Ok((table.decode_key(key)?, table.decode(key, stored)?))).transpose()
    }

    /// All rows in key order. A damaged row is an `Err` among them: skip and report it; the next ones are still good.
    ///
    /// # Errors
    /// The store failed.
    pub fn scan<'a, K: Key, V>(&'a self, table: &'a Table<K, V>) -> Result<Rows<'a, K, V>, Error> {
        self.between(table, Bound::Unbounded, Bound::Unbounded)
    }

    /// Rows from `key` on, as [`Read::scan`].
    ///
    /// # Errors
    /// The store failed.
    pub fn scan_from<'a, K: Key, V>(&'a self, table: &'a Table<K, V>, key: &K) -> Result<Rows<'a, K, V>, Error> {
        self.between(table, Bound::Included(&bytes_of(key)), Bound::Unbounded)
    }

    /// Rows whose key begins with `prefix` (the first members of the key's tuple), as [`Read::scan`].
    ///
    /// # Errors
    /// The store failed.
    pub fn scan_prefix<'a, K: Key, V>(
        &'a self,
        table: &'a Table<K, V>,
        prefix: &impl Key,
    ) -> Result<Rows<'a, K, V>, Error> {
        let low = bytes_of(prefix);
        match after(&low) {
            Some(high) => self.between(table, Bound::Included(&low), Bound::Excluded(&high)),
            None => self.between(table, Bound::Included(&low), Bound::Unbounded),
        }
    }

    /// Rows in front of `behind`, all where there is none, last first; otherwise as [`Read::scan`].
    ///
    /// # Errors
    /// The store failed.
    pub fn scan_back<'a, K: Key, V>(
        &'a self,
        table: &'a Table<K, V>,
        behind: Option<&K>,
    ) -> Result<RowsBack<'a, K, V>, Error> {
        let high = behind.map(bytes_of);
        let bounds = (Bound::Unbounded, high.as_deref().map_or(Bound::Unbounded, Bound::Excluded));
        let rows = handle(self.handles, table.db)?.rev_range(self.txn, &bounds)?;
        Ok(Rows { rows, table, ended: false })
    }

    /// Rows of a database, damaged ones included.
    ///
    /// # Errors
    /// The store failed.
    pub fn count(&self, db: Db) -> Result<u64, Error> {
        Ok(handle(self.handles, db)?.len(self.txn)?)
    }

    fn between<'a, K: Key, V>(
        &'a self,
        table: &'a Table<K, V>,
        low: Bound<&[u8]>,
        high: Bound<&[u8]>,
    ) -> Result<Rows<'a, K, V>, Error> {
        let rows = handle(self.handles, table.db)?.range(self.txn, &(low, high))?;
        Ok(Rows { rows, table, ended: false })
    }

    fn stored(&self, db: Db, key: &[u8]) -> Result<Option<&[u8]>, Error> {
        Ok(handle(self.handles, db)?.get(self.txn, key)?)
    }

    /// Every row of a database as it is stored; `None` where this copy does not have the database.
    pub(super) fn raw(
        &self,
        db: Db,
    ) -> Result<Option<heed::RoIter<'_, heed::types::Bytes, heed::types::Bytes>>, Error> {
        let Some(handle) = &self.handles[db as usize] else { return Ok(None) };
        Ok(Some(handle.iter(self.txn)?))
    }
}

/// Rows in key order.
pub struct Rows<'a, K, V, I = heed::RoRange<'a, heed::types::Bytes, heed::types::Bytes>> {
    rows: I,
    table: &'a Table<K, V>,
    ended: bool,
}

/// Rows against key order.
pub type RowsBack<'a, K, V> = Rows<'a, K, V, heed::RoRevRange<'a, heed::types::Bytes, heed::types::Bytes>>;

impl<'a, K: Key, V, I: Iterator<Item = heed::Result<(&'a [u8], &'a [u8])>>> Iterator for Rows<'a, K, V, I> {
    type Item = Result<(K, V), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        match self.rows.next()? {
            Ok((key, stored)) => {
                let row = self.table.decode_key(key).and_then(|k| Ok((k, self.table.decode(key, stored)?)));
                Some(row)
            }
            Err(error) => {
                // The cursor does not know where it is: it might give the same error for ever.
                self.ended = true;
                Some(Err(error.into()))
            }
        }
    }
}

/// The write transaction as one closure sees it. What it wrote is undone if it returns an error.
pub struct Write<'w, 'e> {
    txn: &'w mut RwTxn<'e>,
    handles: &'w Handles,
    /// It changed something: a refusal must be undone.
    pub(super) wrote: bool,
    /// The environment failed: the transaction cannot go on, whatever the closure makes of the error.
    pub(super) failed: Option<Error>,
}

impl<'w, 'e> Write<'w, 'e> {
    pub(super) fn new(txn: &'w mut RwTxn<'e>, handles: &'w Handles) -> Write<'w, 'e> {
        Write { txn, handles, wrote: false, failed: None }
    }

    /// The data, this transaction's writes included.
    pub fn view(&self) -> Read<'_> {
        Read::new(self.txn, self.handles)
    }

    /// # Errors
    /// As [`Read::get`].
    pub fn get<K: Key, V>(&self, table: &Table<K, V>, key: &K) -> Result<Option<V>, Error> {
        self.view().get(table, key)
    }

    /// Writes a row, over an older one if there is one.
    ///
    /// # Errors
    /// The value cannot be stored, or the store failed.
    pub fn put<K: Key, V>(&mut self, table: &Table<K, V>, key: &K, value: &V) -> Result<(), Error> {
        let key = bytes_of(key);
        self.put_raw(table.db, &key, &table.encode(&key, value)?)
    }

    /// Removes a row; false if there was none.
    ///
    /// # Errors
    /// The store failed.
    pub fn delete<K: Key, V>(&mut self, table: &Table<K, V>, key: &K) -> Result<bool, Error> {
        let handle = handle(self.handles, table.db)?;
        self.wrote = true;
        let gone = handle.delete(self.txn, &bytes_of(key));
        self.noted(gone)
    }

    /// Removes the rows whose key begins with `prefix`, damaged ones too; how many.
    ///
    /// # Errors
    /// The store failed.
    pub fn delete_prefix<K: Key, V>(&mut self, table: &Table<K, V>, prefix: &impl Key) -> Result<usize, Error> {
        let low = bytes_of(prefix);
        let high = after(&low);
        self.delete_between(table.db, Bound::Included(&low), high.as_deref().map_or(Bound::Unbounded, Bound::Excluded))
    }

    /// Removes the rows in front of `key`, damaged ones too; how many.
    ///
    /// # Errors
    /// The store failed.
    pub fn delete_before<K: Key, V>(&mut self, table: &Table<K, V>, key: &K) -> Result<usize, Error> {
        self.delete_between(table.db, Bound::Unbounded, Bound::Excluded(&bytes_of(key)))
    }

    /// Writes a row behind the last one that this table ever had, even if that one was deleted; its number, from 1.
    ///
    /// # Errors
    /// As [`Write::put`].
    pub fn append<V>(&mut self, table: &Table<u64, V>, value: &V) -> Result<u64, Error> {
        let counter = format!("last {}", table.db.name());
        let number = self.get(&COUNTERS, &counter)?.unwrap_or(0) + 1;
        self.put(table, &number, value)?;
        self.put(&COUNTERS, &counter, &number)?;
        Ok(number)
    }

    fn delete_between(&mut self, db: Db, low: Bound<&[u8]>, high: Bound<&[u8]>) -> Result<usize, Error> {
        let handle = handle(self.handles, db)?;
        self.wrote = true;
        let gone = handle.delete_range(self.txn, &(low, high));
        self.noted(gone)
    }

    pub(super) fn put_raw(&mut self, db: Db, key: &[u8], stored: &[u8]) -> Result<(), Error> {
        let handle = handle(self.handles, db)?;
        self.wrote = true;
        let put = handle.put(self.txn, key, stored);
        self.noted(put)
    }

    pub(super) fn clear(&mut self, db: Db) -> Result<(), Error> {
        let handle = handle(self.handles, db)?;
        self.wrote = true;
        let cleared = handle.clear(self.txn);
        self.noted(cleared)
    }

    fn noted<T>(&mut self, result: heed::Result<T>) -> Result<T, Error> {
        result.map_err(|e| {
            let error = Error::from(e);
            self.failed.get_or_insert_with(|| error.clone());
            error
        })
    }
}

/// The last number given out, by table.
const COUNTERS: Table<String, u64> = Table::json(Db::Meta, 1);

fn handle(handles: &Handles, db: Db) -> Result<&Handle, Error> {
    let missing = || Error::Lmdb(format!("database {} is not in this environment", db.name()));
    handles[db as usize].as_ref().ok_or_else(missing)
}

/// The first byte string behind all that begin with `prefix`; `None`: there is none.
fn after(prefix: &[u8]) -> Option<Vec<u8>> {
    let end = prefix.iter().rposition(|b| *b != u8::MAX)?;
    let mut high = prefix[..=end].to_vec();
    high[end] += 1;
    Some(high)
}

/// What is wrong with the rows of one database, at most `max` of them. A flipped bit in a page may hide rows from the
/// walk, from the count, or from a look-up by key: all three must agree.
pub(super) fn damage(view: &Read<'_>, db: Db, max: usize) -> Result<Vec<Error>, Error> {
    let Some(rows) = view.raw(db)? else { return Ok(Vec::new()) };
    let (mut wrong, mut seen, mut before) = (Vec::new(), 0u64, None::<Vec<u8>>);
    for row in rows {
        let (key, stored) = row?;
        seen += 1;
        let fine = super::table::unseal(db, key, stored).map(drop);
        let ordered = before.as_deref().is_none_or(|b| b < key);
        let shaped = db.width() == 0 || key.len() == db.width();
        let error = match fine {
            Err(error) => Some(error),
            Ok(()) if !ordered => Some(corrupt(db, key, "is out of order".to_owned())),
            Ok(()) if view.stored(db, key)? != Some(stored) => {
                Some(corrupt(db, key, "is not found by its key".to_owned()))
            }
            Ok(()) if !shaped => Some(corrupt(db, key, format!("has {} bytes", key.len()))),
            Ok(()) => None,
        };
        wrong.extend(error.filter(|_| wrong.len() < max));
        before = Some(key.to_vec());
    }
    let expected = view.count(db)?;
    if expected != seen {
        wrong.push(corrupt(db, &[], format!("{seen} rows found of {expected}")));
    }
    Ok(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_behind_all_that_begin_with_it() {
        assert_eq!(after(&[1, 2]), Some(vec![1, 3]));
        assert_eq!(after(&[1, 255, 255]), Some(vec![2]));
        assert_eq!(after(&[255, 255]), None);
    }
}
