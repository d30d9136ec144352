//! What parameter sets of one kind have in common, H.264's and H.265's: a table by id of those in force.

use bytes::Bytes;
use std::collections::BTreeMap;

/// A longer parameter set is refused, bytes.
const SET_BYTES_MAX: usize = 4_096;

/// One kind of parameter set.
pub(super) trait Set: Sized {
    /// The refusal of one that is longer than `SET_BYTES_MAX`.
    const TOO_LONG: &'static str;

    fn read(unit: &[u8]) -> Result<Self, &'static str>;
    fn id(&self) -> u8;
}

/// Those in force, with their bytes. The size of ids bounds it.
#[derive(Clone, Debug)]
pub(super) struct Table<S> {
    sets: BTreeMap<u8, (S, Bytes)>,
    /// One that differs from that of its id: in force from the next random access point on, if one follows at once.
    held: Option<(S, Bytes)>,
    changes: u64,
}

impl<S> Default for Table<S> {
    fn default() -> Table<S> {
        Table { sets: BTreeMap::new(), held: None, changes: 0 }
    }
}

impl<S: Set> Table<S> {
    /// Takes a NAL unit, in force at once.
    pub(super) fn take(&mut self, unit: &[u8]) -> Result<(), &'static str> {
        self.read(unit)?.into_iter().for_each(|entry| self.enforce(entry));
        Ok(())
    }

    /// The same where the content of an id in use changes only at a random access point: see `settle`.
    pub(super) fn take_or_hold(&mut self, unit: &[u8]) -> Result<(), &'static str> {
        match self.read(unit)? {
            Some(entry) if self.sets.contains_key(&entry.0.id()) => self.held = Some(entry),
            Some(entry) => self.enforce(entry),
            None => {}
        }
        Ok(())
    }

    /// A picture begins: what is held comes into force if it is a random access point. False: it is none, and the change
    /// was dropped.
    pub(super) fn settle(&mut self, random_access: bool) -> bool {
        match self.held.take() {
            Some(_) if !random_access => return false,
            Some(entry) => self.enforce(entry),
            None => {}
        }
        true
    }

    fn enforce(&mut self, entry: (S, Bytes)) {
        self.sets.insert(entry.0.id(), entry);
        self.changes += 1;
    }

    /// Changes so far.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    pub(super) fn get(&self, id: u8) -> Option<&(S, Bytes)> {
        self.sets.get(&id)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &(S, Bytes)> {
        self.sets.values()
    }

    /// `None`: it is in force as it is.
    fn read(&self, unit: &[u8]) -> Result<Option<(S, Bytes)>, &'static str> {
        if self.all().any(|(_, bytes)| bytes == unit) {
            return Ok(None);
        }
        if unit.len() > SET_BYTES_MAX {
            return Err(S::TOO_LONG);
        }
        Ok(Some((S::read(unit)?, Bytes::copy_from_slice(unit))))
    }
}
