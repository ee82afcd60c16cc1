//! Running a query that a filter has built.

use rusqlite::functions::FunctionFlags;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, params_from_iter};

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
            ValueRef::Text(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        };
        Ok(text(0).zip(text(1)).is_some_and(|(haystack, needle)| test(haystack, needle)))
    })?;
    Ok(())
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
