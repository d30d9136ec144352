//! Bringing older data to this Rung's schema: ordered steps in one write transaction, after a backup.

use super::error::{Error, OpenError};
use super::lmdb::Lmdb;
use super::table::{Db, Table};
use super::txn::Write;
use super::{Options, backup};

/// One step. It may run again on data that has it: it looks before it changes.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// The schema that the data has afterwards.
    pub to: u32,
    pub name: &'static str,
    pub apply: fn(&mut Write<'_, '_>) -> Result<(), Error>,
}

/// The schema of data that no step has touched.
const FIRST: u32 = 1;
/// All steps, in order. Never change or remove one that was released.
pub(super) const MIGRATIONS: &[Migration] = &[Migration {
    to: 2,
    name: "a session's grid became its plan",
    // Sessions of before cannot be gone on with: they end as ones whose grid is not known do.
    apply: |txn| txn.clear(Db::Grid),
}];

const NUMBERS: Table<String, u32> = Table::json(Db::Meta, 1);

fn version_key() -> String {
    "schema_version".to_owned()
}

/// The schema that this Rung writes.
fn known(migrations: &[Migration]) -> u32 {
    migrations.last().map_or(FIRST, |last| last.to)
}

/// Marks new, empty data.
pub(super) fn stamp(txn: &mut Write<'_, '_>, migrations: &[Migration]) -> Result<(), Error> {
    txn.put(&NUMBERS, &version_key(), &known(migrations))
}

/// Refuses newer data, backs up and steps older data.
pub(super) fn run(options: &Options, lmdb: &Lmdb, notes: &mut Vec<String>) -> Result<(), OpenError> {
    let folder = &options.folder;
    let failed = |error: Error| OpenError::Failed { folder: folder.clone(), why: error.to_string() };
    let found = lmdb.read(|view| view.get(&NUMBERS, &version_key())).map_err(failed)?.unwrap_or(FIRST);
    let known = known(options.migrations);
    if found > known {
        return Err(OpenError::NewerSchema { folder: folder.clone(), found, known });
    }
    if found == known {
        return Ok(());
    }
    // In a folder of its own: the hourly ones come and go, this one is the way back.
    let copy = backup::copy_into(&folder.join("backups").join(format!("schema-{found}")), lmdb)?;
    let mut at = "begin";
    lmdb.write_now(|txn| steps(txn, found, options.migrations, &mut at))
        .map_err(|e| OpenError::Migration { step: at, why: e.to_string() })?;
    notes.push(format!("state brought from schema {found} to {known}; what was before is in {}", copy.display()));
    Ok(())
}

/// Runs the steps that data of schema `found` lacks, naming each in `at`.
fn steps(txn: &mut Write<'_, '_>, found: u32, migrations: &[Migration], at: &mut &'static str) -> Result<(), Error> {
    for step in migrations.iter().filter(|step| step.to > found) {
        *at = step.name;
        (step.apply)(txn)?;
    }
    stamp(txn, migrations)
}

/// The same for rows that were just imported.
pub(super) fn imported(txn: &mut Write<'_, '_>, migrations: &[Migration]) -> Result<(), Error> {
    let found = txn.get(&NUMBERS, &version_key())?.unwrap_or(FIRST);
    let known = known(migrations);
    if found > known {
        return Err(Error::Lmdb(format!("the export has schema {found}, this Rung knows {known}: update Rung")));
    }
    steps(txn, found, migrations, &mut "import")
}
