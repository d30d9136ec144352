//! Control state as text: `{"db":…,"key":…,"schema":…,"value":…}`, a line per row, sorted by database and key.

use std::io::Write as _;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::Error;
use super::migrate::{self, Migration};
use super::store::{Need, Store};
use super::table::{Db, Home, corrupt, parse_key, seal, show_key, unseal};
use super::txn::{Read, Write};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    db: String,
    /// Hexadecimal, except where keys are text.
    key: String,
    schema: u8,
    value: Value,
}

pub(super) fn write(view: &Read<'_>, out: &mut dyn std::io::Write) -> Result<Vec<Error>, Error> {
    let mut left_out = Vec::new();
    let mut buffer = std::io::BufWriter::new(out);
    let io = |e: std::io::Error| Error::Io { code: e.raw_os_error().unwrap_or(0), what: format!("export: {e}") };
    for db in sorted() {
        let Some(rows) = view.raw(db)? else { continue };
        for row in rows {
            let (key, stored) = row?;
            match line(db, key, stored) {
                Ok(line) => {
                    serde_json::to_writer(&mut buffer, &line).map_err(|e| io(e.into()))?;
                    buffer.write_all(b"\n").map_err(io)?;
                }
                Err(error) => left_out.push(error),
            }
        }
    }
    buffer.flush().map_err(io)?;
    drop(buffer);
    Ok(left_out)
}

fn line(db: Db, key: &[u8], stored: &[u8]) -> Result<Line, Error> {
    let (schema, payload) = unseal(db, key, stored)?;
    let value = serde_json::from_slice(payload).map_err(|e| corrupt(db, key, format!("is no JSON: {e}")))?;
    Ok(Line { db: db.name().to_owned(), key: show_key(db, key), schema, value })
}

/// Rows by database name: an export reads like its diff.
fn sorted() -> Vec<Db> {
    let mut all: Vec<Db> = Db::ALL.iter().copied().filter(|db| db.home() == Home::State).collect();
    all.sort_by_key(|db| db.name());
    all
}

pub(super) fn import(store: &Store, text: &str, migrations: &'static [Migration]) -> Result<usize, Error> {
    let rows = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let rows = rows.map(|(i, line)| parse(line).map_err(|why| Error::Lmdb(format!("import: line {}: {why}", i + 1))));
    let rows: Vec<(Db, Vec<u8>, Vec<u8>)> = rows.collect::<Result<_, _>>()?;
    let count = rows.len();
    let replace = move |txn: &mut Write<'_, '_>| {
        for db in sorted() {
            txn.clear(db)?;
        }
        for (db, key, stored) in &rows {
            txn.put_raw(*db, key, stored)?;
        }
        migrate::imported(txn, migrations)
    };
    store.write(Need::Ordinary, replace).wait()?;
    Ok(count)
}

fn parse(line: &str) -> Result<(Db, Vec<u8>, Vec<u8>), String> {
    let line: Line = serde_json::from_str(line).map_err(|e| e.to_string())?;
    let known = sorted().into_iter().find(|db| db.name() == line.db);
    let db = known.ok_or_else(|| format!("there is no database {:?}", line.db))?;
    let key = parse_key(db, &line.key).ok_or_else(|| format!("{:?} is no key of {}", line.key, line.db))?;
    let payload = serde_json::to_vec(&line.value).map_err(|e| e.to_string())?;
    let stored = seal(&key, line.schema, &payload);
    Ok((db, key, stored))
}
