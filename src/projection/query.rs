//! Running a query that a filter has built.

use rusqlite::functions::FunctionFlags;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, params_from_iter};

use crate::event::Value;

use super::Trouble;
use super::row::FoundRow;

/// Makes a two-argument text test known to SQL under `name`. NULL contains nothing.
pub(crate) fn register_test(
    db: &Connection,
    name: &str,
    test: fn(&str, &str) -> bool,
) -> Result<(), Trouble> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    db.create_scalar_function(name, 2, flags, move |call| {
        let text = |index: usize| match call.get_raw(index) {
            // Text that is none has no such letters.
            ValueRef::Text(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        };
        Ok(text(0).zip(text(1)).is_some_and(|(haystack, needle)| test(haystack, needle)))
    })?;
    Ok(())
}

/// The rows of a query, as many as fit into about so many bytes, and whether that was all of them. The read
/// transaction ends with it: whoever is slow with what is returned keeps nobody from cutting the write-ahead log
/// back.
pub(crate) fn some_rows(
    db: &Connection,
    sql: &str,
    values: &[Value],
    columns: usize,
    bytes: usize,
) -> Result<(Vec<FoundRow>, bool), Trouble> {
    let (mut found, mut taken) = (Vec::new(), 0);
    let mut whole = true;
    each_row(db, sql, values, columns, |row| {
        taken += row.len();
        found.push(row);
        whole = taken < bytes;
        whole
    })?;
    Ok((found, whole))
}

/// The id and the text that a query gives; `None` where it gives no row.
pub(crate) fn id_and_text(
    db: &Connection,
    sql: &str,
    values: &[Value],
) -> Result<Option<(i64, String)>, Trouble> {
    let found =
        db.prepare_cached(sql)?.query_row(params_from_iter(values), |row| Ok((row.get(0)?, row.get(1)?)));
    Ok(found.optional()?)
}

/// Hands every row of a query to `each`, until that says `false`. `columns` is how many the query
/// selects; the first is the id, the last two are key and frame.
pub(crate) fn each_row(
    db: &Connection,
    sql: &str,
    values: &[Value],
    columns: usize,
    mut each: impl FnMut(FoundRow) -> bool,
) -> Result<(), Trouble> {
    let mut query = db.prepare_cached(sql)?;
    let mut rows = query.query(params_from_iter(values))?;
    while let Some(row) = rows.next()? {
        if !each(FoundRow::read(row, columns)?) {
            break;
        }
    }
    Ok(())
}

/// The single number that a query gives.
pub(crate) fn number(db: &Connection, sql: &str, values: &[Value]) -> Result<u64, Trouble> {
    let number: i64 = db.prepare_cached(sql)?.query_row(params_from_iter(values), |row| row.get(0))?;
    u64::try_from(number).map_err(|_| Trouble::Unusable("a count is negative".into()))
}
