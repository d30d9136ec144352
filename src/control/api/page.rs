//! Lists: newest first, a page at a time, by a cursor that only this box makes and only the same list takes.

use std::ops::ControlFlow;

use hmac::{Hmac, KeyInit, Mac};
use http::StatusCode;
use serde::Serialize;
use sha2::Sha256;
use utoipa::{IntoParams, ToSchema};

use super::answer::{Answer, Body};
use super::call::Call;
use super::problem::{Code, Problem};
use crate::control::state::{Error, Read, Table, Ulid};

/// Where a list goes on.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes parameters that `page` reads one by one")]
pub(super) struct PageQuery {
    /// Items of a page.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
    /// `next` of the page before; only for the same list with the same filter.
    cursor: Option<String>,
}

/// A page of a list, newest first.
#[derive(Serialize, ToSchema)]
pub(super) struct Page<T> {
    pub(super) items: Vec<T>,
    /// Cursor of the next page; `null`: this was the last one.
    pub(super) next: Option<String>,
}

pub(super) const PARAMETERS: [&str; 2] = ["limit", "cursor"];
const LIMIT: usize = 50;
const LIMIT_MAX: usize = 200;
/// Rows that one page looks at while it searches for those that match; the page may then be short, or empty.
const LOOK_AT_MAX: usize = 5_000;
/// Rows read at once while going back through numbered ones.
const STRIDE: u64 = 256;
const MAC_BYTES: usize = 16;

/// What was asked of a list: how many, and behind which position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) limit: usize,
    pub(super) behind: Option<u128>,
}

/// Reads `limit` and `cursor`; `filters` are the list's other parameters.
pub(super) fn asked(call: &Call, filters: &[&str]) -> Result<Asked, Problem> {
    let known: Vec<&str> = filters.iter().chain(&PARAMETERS).copied().collect();
    call.query.expect_known(&known)?;
    let in_range = |n: &usize| (1..=LIMIT_MAX).contains(n);
    let limit = call.query.read("limit", "a number from 1 to 200", |text| text.parse().ok().filter(in_range))?;
    let behind = call.query.get("cursor").map(|cursor| open(call, cursor)).transpose()?;
    Ok(Asked { limit: limit.unwrap_or(LIMIT), behind })
}

/// A page; `more`: position of its last item, if others may follow.
pub(super) fn page<T: Serialize>(call: &Call, items: Vec<T>, more: Option<u128>) -> Answer {
    let page = Page { items, next: more.map(|position| seal(call, position)) };
    // At once: a tree of values in between costs more than all else about a page.
    let text = serde_json::to_string(&page).expect("a page has a JSON form");
    Answer::new(StatusCode::OK, Body::Text(text.into()))
}

/// `limit` of the items that `view_of` gives for `positions`, which come newest first, and where to go on.
pub(super) fn collect<T>(
    asked: Asked,
    positions: impl Iterator<Item = u128>,
    mut view_of: impl FnMut(u128) -> Result<Option<T>, Problem>,
) -> Result<(Vec<T>, Option<u128>), Problem> {
    let positions = positions.filter(|p| asked.behind.is_none_or(|behind| *p < behind));
    collect_rows(asked, positions.map(|position| Ok((Ulid(position), ()))), |Ulid(position), ()| view_of(position))
}

/// The same of rows that come newest first from `asked.behind` on, as [`Read::scan_back`] gives them: a page costs what it
/// shows, however long the table is.
pub(super) fn collect_rows<V, T>(
    asked: Asked,
    rows: impl Iterator<Item = Result<(Ulid, V), Error>>,
    mut view_of: impl FnMut(Ulid, V) -> Result<Option<T>, Problem>,
) -> Result<(Vec<T>, Option<u128>), Problem> {
    let (mut items, mut last) = (Vec::new(), None);
    for (looked, row) in rows.enumerate() {
        if items.len() == asked.limit || looked == LOOK_AT_MAX {
            return Ok((items, last));
        }
        // A damaged row is named by the log and by `rung state check`; the others are shown.
        let Ok((id, value)) = row else { continue };
        last = Some(id.0);
        items.extend(view_of(id, value)?);
    }
    Ok((items, None))
}

/// Keys of a table that is small enough to be read as a whole, newest first. Damaged rows are left out.
pub(super) fn newest_first<V>(view: &Read<'_>, table: &Table<Ulid, V>) -> Result<Vec<u128>, Error> {
    let mut ids: Vec<u128> = view.scan(table)?.filter_map(|row| row.ok().map(|(id, _)| id.0)).collect();
    ids.sort_unstable_by(|a, b| b.cmp(a));
    Ok(ids)
}

/// Numbered rows from the newest one back, which have no holes but for damaged ones, until `look` breaks off.
pub(super) fn backwards<V>(
    view: &Read<'_>,
    table: &Table<u64, V>,
    behind: Option<u64>,
    mut look: impl FnMut(u64, V) -> ControlFlow<()>,
) -> Result<(), Error> {
    let Some((newest, _)) = view.last(table)? else { return Ok(()) };
    let Some(first) = view.scan(table)?.find_map(|row| row.ok().map(|(seq, _)| seq)) else { return Ok(()) };
    let mut end = behind.map_or(newest + 1, |seq| seq.min(newest + 1));
    while end > first {
        let begin = end.saturating_sub(STRIDE).max(first);
        let rows = view.scan_from(table, &begin)?.filter_map(Result::ok);
        let rows: Vec<(u64, V)> = rows.take_while(|(seq, _)| *seq < end).collect();
        for (seq, row) in rows.into_iter().rev() {
            if look(seq, row).is_break() {
                return Ok(());
            }
        }
        end = begin;
    }
    Ok(())
}

/// A page of numbered rows.
pub(super) fn numbered<V, T>(
    view: &Read<'_>,
    table: &Table<u64, V>,
    asked: Asked,
    mut view_of: impl FnMut(u64, V) -> Option<T>,
) -> Result<(Vec<T>, Option<u128>), Problem> {
    let behind = asked.behind.map(|position| u64::try_from(position).unwrap_or(u64::MAX));
    let (mut items, mut last, mut more, mut looked) = (Vec::new(), None, false, 0);
    backwards(view, table, behind, |seq, row| {
        if items.len() == asked.limit || looked == LOOK_AT_MAX {
            more = true;
            return ControlFlow::Break(());
        }
        looked += 1;
        last = Some(u128::from(seq));
        items.extend(view_of(seq, row));
        ControlFlow::Continue(())
    })?;
    Ok((items, last.filter(|_| more)))
}

fn seal(call: &Call, position: u128) -> String {
    let bytes = position.to_be_bytes();
    bytes.iter().chain(&sign(call, position)).map(|b| format!("{b:02x}")).collect()
}

fn open(call: &Call, cursor: &str) -> Result<u128, Problem> {
    let position = cursor.get(..32).and_then(|hex| u128::from_str_radix(hex, 16).ok());
    match position {
        Some(position) if seal(call, position) == cursor => Ok(position),
        _ => {
            let what = "take `next` of a page of this very list, with the same filter";
            Err(Problem::parameter(Code::CursorInvalid, "cursor", what))
        }
    }
}

/// Binds a position to this box, this list and its filter. A cursor opens nothing by itself: no care for timing is needed.
fn sign(call: &Call, position: u128) -> [u8; MAC_BYTES] {
    let mut mac = Hmac::<Sha256>::new_from_slice(&call.api.cursor_key).expect("a key of any length");
    let filter = call.query.canonical(&PARAMETERS);
    mac.update(format!("{} {filter:?} ", call.path).as_bytes());
    mac.update(&position.to_be_bytes());
    *mac.finalize().into_bytes().first_chunk().expect("32 bytes begin with 16")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_ends_where_the_next_one_begins() {
        let all: Vec<u128> = (1..=10).rev().collect();
        let odd = |n: u128| Ok((n % 2 == 1).then_some(n));
        let (mut seen, mut behind, mut pages) = (Vec::new(), None, 0);
        loop {
            let (items, more) = collect(Asked { limit: 2, behind }, all.iter().copied(), odd).unwrap();
            seen.extend(items);
            pages += 1;
            match more {
                Some(position) => behind = Some(position),
                None => break,
            }
        }
        assert_eq!((seen, pages), (vec![9, 7, 5, 3, 1], 3));
    }

    #[test]
    fn a_page_gives_up_searching_and_says_where_it_was() {
        let none = |_| Ok(None::<()>);
        let (items, more) = collect(Asked { limit: 5, behind: None }, (0..20_000).rev(), none).unwrap();
        assert_eq!((items.len(), more), (0, Some(15_000)));
    }
}
