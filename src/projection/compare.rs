//! Comparing rows with what they should be: one row, a stretch, or only counts.

use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, params};

use crate::disk;
use crate::threads;

use super::row::{FrameKeep, Row};
use super::schema::Schema;
use super::{Trouble, foreign};

fn names(schema: &Schema, columns: Vec<usize>) -> Vec<&'static str> {
    columns.into_iter().map(|index| schema.columns[index]).collect()
}

fn select(schema: &Schema, condition: &str) -> String {
    format!("SELECT {} FROM {} WHERE {condition}", schema.columns.join(", "), schema.table)
}

/// The columns in which the database's row differs; `None` where it has no such row.
pub(crate) fn differing_columns(
    db: &Connection,
    schema: &Schema,
    row: &Row,
) -> Result<Option<Vec<&'static str>>, Trouble> {
    let mut query = db.prepare_cached(&select(schema, "id = ?1"))?;
    let found = query.query_row([row.seq as i64], |found| row.differing(found)).optional()?;
    Ok(found.map(|columns| names(schema, columns)))
}

/// What differs between `rows`, which ascend by seq, and the database: seq and columns; no columns
/// where the row is missing.
pub(crate) fn read_back(
    db: &Connection,
    schema: &Schema,
    rows: &[Row],
) -> Result<Vec<(u64, Vec<&'static str>)>, Trouble> {
    let mut differing = Vec::new();
    let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Ok(differing) };
    let span = last.seq - first.seq + 1;
    if span > 2 * rows.len() as u64 {
        for row in rows {
            match differing_columns(db, schema, row)? {
                None => differing.push((row.seq, Vec::new())),
                Some(columns) if !columns.is_empty() => differing.push((row.seq, columns)),
                Some(_) => {}
            }
        }
        return Ok(differing);
    }
    let mut query = db.prepare_cached(&select(schema, "id BETWEEN ?1 AND ?2 ORDER BY id"))?;
    let mut found = query.query(params![first.seq as i64, last.seq as i64])?;
    let mut wanted = rows.iter().peekable();
    let mut least = first.seq as i64;
    while let Some(row) = found.next()? {
        let id = row.get_ref(0)?.as_i64().map_err(|error| Trouble::Unusable(error.to_string()))?;
        check_order(least, last.seq as i64, std::iter::once(id))?;
        least = id.saturating_add(1);
        while let Some(missing) = wanted.next_if(|wanted| (wanted.seq as i64) < id) {
            differing.push((missing.seq, Vec::new()));
        }
        if let Some(same) = wanted.next_if(|wanted| wanted.seq as i64 == id) {
            let columns = same.differing(row)?;
            if !columns.is_empty() {
                differing.push((same.seq, names(schema, columns)));
            }
        }
    }
    differing.extend(wanted.map(|missing| (missing.seq, Vec::new())));
    Ok(differing)
}

/// Ids from `first` to `last`, in order, at most `limit` of them.
pub(crate) fn ids_between(
    db: &Connection,
    schema: &Schema,
    first: i64,
    last: i64,
    limit: usize,
) -> Result<Vec<i64>, Trouble> {
    let sql = format!("SELECT id FROM {} WHERE id BETWEEN ?1 AND ?2 ORDER BY id LIMIT ?3", schema.table);
    let mut query = db.prepare_cached(&sql)?;
    let ids = query
        .query_map(params![first, last, limit as i64], |row| row.get(0))?
        .collect::<Result<Vec<i64>, _>>()?;
    check_order(first, last, ids.iter().copied())?;
    Ok(ids)
}

/// The header checksum in what a row keeps of its event's frame.
pub(super) fn sum_in(frame: &FrameKeep) -> u32 {
    u32::from_le_bytes([frame[40], frame[41], frame[42], frame[43]])
}

/// Ids from `first` to `last`, in order, each with the checksum of the header that its row keeps; `None` where that is
/// none of this seq.
pub(super) fn sums_between(
    db: &Connection,
    schema: &Schema,
    first: i64,
    last: i64,
) -> Result<Vec<(i64, Option<u32>)>, Trouble> {
    let sql = format!("SELECT id, frame FROM {} WHERE id BETWEEN ?1 AND ?2 ORDER BY id", schema.table);
    let mut query = db.prepare_cached(&sql)?;
    let sum = |id: i64, frame: ValueRef<'_>| {
        let ValueRef::Blob(frame) = frame else { return None };
        // What is of another length is no frame.
        let frame: &FrameKeep = frame.try_into().ok()?;
        (frame[8..16] == id.to_le_bytes()).then(|| sum_in(frame))
    };
    let found = query
        .query_map(params![first, last], |row| {
            let id = row.get(0)?;
            Ok((id, sum(id, row.get_ref(1)?)))
        })?
        .collect::<Result<Vec<_>, _>>()?;
    check_order(first, last, found.iter().map(|(id, _)| *id))?;
    Ok(found)
}

/// The largest id up to `last`.
pub(crate) fn largest_id(db: &Connection, schema: &Schema, last: i64) -> Result<Option<i64>, Trouble> {
    let sql = format!("SELECT max(id) FROM {} WHERE id <= ?1", schema.table);
    Ok(db.prepare_cached(&sql)?.query_row([last], |row| row.get(0))?)
}

/// A damaged table can give ids in any order, and whoever pages through it would never get to the
/// end (P12).
fn check_order(first: i64, last: i64, ids: impl Iterator<Item = i64>) -> Result<(), Trouble> {
    let mut least = first;
    for id in ids {
        if id < least || id > last {
            return Err(Trouble::Unusable(format!("id {id} stands out of order: the table is damaged")));
        }
        least = id.saturating_add(1);
    }
    Ok(())
}

/// Hands all ids from `first` to `last` to `each`, some at a time. `each` may take the rows away.
pub(crate) fn each_id(
    db: &Connection,
    schema: &Schema,
    mut first: i64,
    last: i64,
    mut each: impl FnMut(Vec<i64>),
) -> Result<(), Trouble> {
    while first <= last {
        let ids = ids_between(db, schema, first, last, 512)?;
        let Some(newest) = ids.last().copied() else { break };
        each(ids);
        let Some(next) = newest.checked_add(1) else { break };
        first = next;
    }
    Ok(())
}

/// Seqs from `first` to `last` that lawfully have no row.
fn absent_between(db: &Connection, table: &str, first: u64, last: u64) -> Result<u64, Trouble> {
    let mut query = db.prepare_cached(&format!(
        "SELECT coalesce(sum(min(last, ?2) - max(first, ?1) + 1), 0) FROM {table} \
         WHERE first <= ?2 AND last >= ?1"
    ))?;
    Ok(query.query_row(params![first as i64, last as i64], |row| row.get::<_, i64>(0))?.max(0) as u64)
}

/// What the database says about seqs without rows, as far as it reaches into `first` to `last`: at most `limit`
/// ranges that start behind `after`, in order.
pub(crate) fn absences(
    db: &Connection,
    first: u64,
    last: u64,
    after: i64,
    limit: usize,
) -> Result<Vec<(i64, i64)>, Trouble> {
    let mut query = db.prepare_cached(
        "SELECT first, last FROM synclog_absent WHERE first > ?1 AND first <= ?2 AND last >= ?3 \
         ORDER BY first LIMIT ?4",
    )?;
    let ranges = query
        .query_map(params![after, last as i64, first as i64, limit as i64], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?
        .collect::<Result<Vec<(i64, i64)>, _>>()?;
    check_order(after.saturating_add(1), last as i64, ranges.iter().map(|(first, _)| *first))?;
    Ok(ranges)
}

/// Whether the database says that `seq` lawfully has no row.
pub(crate) fn is_absent(db: &Connection, seq: u64) -> Result<bool, Trouble> {
    Ok(absent_between(db, "synclog_absent", seq, seq)? > 0)
}

/// Whether the database says that event `seq` was deleted.
pub(crate) fn was_deleted(db: &Connection, seq: u64) -> Result<bool, Trouble> {
    let mut query = db.prepare_cached(
        "SELECT 1 FROM synclog_absent WHERE ?1 BETWEEN first AND last AND reason IN ('deleted', 'erased')",
    )?;
    Ok(query.exists([seq as i64])?)
}

/// Events up to `last` that were deleted, as far as the database says so and has no rows of them.
pub(crate) fn deleted(db: &Connection, schema: &Schema, last: u64) -> Result<Vec<(u64, u64)>, Trouble> {
    let mut query = db.prepare_cached(
        "SELECT max(first, 1), min(last, ?1) FROM synclog_absent \
         WHERE reason IN ('deleted', 'erased') AND first <= ?1 AND last >= max(first, 1) ORDER BY first",
    )?;
    let said = query
        .query_map([last as i64], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<Vec<(i64, i64)>, _>>()?;
    let mut found = Vec::with_capacity(said.len());
    for (mut first, last) in said {
        each_id(db, schema, first, last, |ids| {
            for id in ids {
                if first < id {
                    found.push((first as u64, id as u64 - 1));
                }
                first = id + 1;
            }
        })?;
        if first <= last {
            found.push((first as u64, last as u64));
        }
    }
    Ok(found)
}

/// How many of the seqs from `first` to `last` lack a row, by counting.
pub(crate) fn lacking_between(
    db: &Connection,
    schema: &Schema,
    first: u64,
    last: u64,
) -> Result<u64, Trouble> {
    if first > last {
        return Ok(0);
    }
    // Beside a writer all of it must be of one moment.
    let _one_moment = db.unchecked_transaction()?;
    if Tally::soon(db, schema, last - first + 1)?.has_all(db, schema, first, last)? {
        return Ok(0);
    }
    let sql = format!("SELECT count(*) FROM {} WHERE id BETWEEN ?1 AND ?2", schema.table);
    let rows: i64 =
        db.prepare_cached(&sql)?.query_row(params![first as i64, last as i64], |row| row.get(0))?;
    let lawful = absent_between(db, schema.absent, first, last)?;
    Ok((last - first + 1).saturating_sub(rows.max(0) as u64).saturating_sub(lawful))
}

/// How many rows there are, and their smallest and largest ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tally {
    rows: u64,
    pub(super) least: Option<i64>,
    pub(super) most: Option<i64>,
}

impl Tally {
    /// Counts. SQLite walks through the smallest index of a whole table, step by step, and finds both ends without
    /// a scan.
    pub(crate) fn of(db: &Connection, schema: &Schema) -> Result<Self, Trouble> {
        Self::by(db, schema, "count(id)")
    }

    /// Rows from which on starting a thread takes less time than counting step by step.
    pub(crate) const MANY: u64 = if cfg!(test) { 1 } else { 5_000 };

    /// The same several times as fast where there are about so many rows: in a single step of SQLite's machine,
    /// which nothing bounds, so that a thread interrupts it where it takes long. Pages that share others would be
    /// counted for ever.
    pub(crate) fn soon(db: &Connection, schema: &Schema, rows: u64) -> Result<Self, Trouble> {
        /// A hundred times as long as it takes, for each row; and how long in any case.
        const PATIENCE: (Duration, Duration) = (Duration::from_micros(1), Duration::from_millis(500));
        /// The least that a row takes in an index, in bytes.
        const LEAST_BYTES: u64 = 8;
        if rows < Self::MANY {
            return Self::of(db, schema);
        }
        // What cannot be looked up has no size.
        let size = disk::file_len(Path::new(db.path().unwrap_or_default())).unwrap_or(0);
        let rows = u32::try_from(rows.min(size / LEAST_BYTES)).unwrap_or(u32::MAX);
        let mut patience = PATIENCE.0 * rows + PATIENCE.1;
        let (counting, over) = sync_channel::<()>(0);
        let interrupt = db.get_interrupt_handle();
        let watch = move || {
            // One that comes before the count has begun is lost.
            while matches!(over.recv_timeout(patience), Err(RecvTimeoutError::Timeout)) {
                interrupt.interrupt();
                patience = Duration::from_millis(1);
            }
        };
        let Ok(watch) = threads::spawn("synclog-watch", watch) else { return Self::of(db, schema) };
        let counted = Self::by(db, schema, "count(*)");
        drop(counting);
        // So that nothing else is interrupted.
        drop(watch.join());
        counted.or_else(|_| Self::of(db, schema))
    }

    fn by(db: &Connection, schema: &Schema, count: &str) -> Result<Self, Trouble> {
        let sql = format!(
            "SELECT (SELECT min(id) FROM {0}), (SELECT max(id) FROM {0}), (SELECT {count} FROM {0})",
            schema.table
        );
        let (least, most, rows) = db
            .prepare_cached(&sql)?
            .query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get::<_, Option<i64>>(2)?)))?;
        Ok(Self { least, most, rows: rows.unwrap_or(0).max(0) as u64 })
    }

    /// Whether every seq from `first` to `last` has a row or lawfully has none, and no other id has one.
    pub(super) fn has_all(
        self,
        db: &Connection,
        schema: &Schema,
        first: u64,
        last: u64,
    ) -> Result<bool, Trouble> {
        let (Some(least), Some(most)) = (self.least, self.most) else { return Ok(false) };
        // In a damaged table the ends may be the wrong way round.
        if first > last || least < first as i64 || most > last as i64 {
            return Ok(false);
        }
        Ok(self.rows + absent_between(db, schema.absent, first, last)? == last - first + 1)
    }
}

/// Stretches of seqs from `first` to `last` that lack rows, found by counting and halving. At most
/// `limit` stretches; a stretch may hold some rows that are there.
pub(crate) fn missing_between(
    db: &Connection,
    schema: &Schema,
    tally: Tally,
    first: u64,
    last: u64,
    limit: usize,
) -> Result<Vec<(u64, u64)>, Trouble> {
    /// Below this, applying the whole stretch again costs less than looking closer.
    const SMALL: u64 = 64;
    if tally.has_all(db, schema, first, last)? {
        return Ok(Vec::new());
    }
    let sql = format!("SELECT count(*) FROM {} WHERE id BETWEEN ?1 AND ?2", schema.table);
    let mut count = db.prepare_cached(&sql)?;
    let mut missing: Vec<(u64, u64)> = Vec::new();
    let mut open = vec![(first, last)];
    while let Some((low, high)) = open.pop() {
        if low > high {
            continue;
        }
        let rows: i64 = count.query_row(params![low as i64, high as i64], |row| row.get(0))?;
        if rows as u64 + absent_between(db, schema.absent, low, high)? > high - low {
            continue;
        }
        if high - low < SMALL || rows == 0 || missing.len() + open.len() >= limit {
            match missing.last_mut() {
                Some(before) if before.1 + 1 == low => before.1 = high,
                _ => missing.push((low, high)),
            }
            continue;
        }
        let middle = low + (high - low) / 2;
        open.push((middle + 1, high));
        open.push((low, middle));
    }
    Ok(missing)
}

/// What SQLite finds wrong with its pages, without looking whether indexes have all rows.
pub(crate) fn pages(db: &Connection, schema: &Schema) -> Result<(), Trouble> {
    if !foreign::computes(db, schema, None)? {
        return sound(&said(db, "PRAGMA quick_check(1)", 1)?);
    }
    for table in schema.table_names() {
        // Of columns that are expressions, which would be run, nothing is checked.
        if Schema::is_plain(db, table)? {
            sound(&said(db, &format!("PRAGMA quick_check({})", foreign::quoted(table)), 1)?)?;
        }
    }
    Ok(())
}

fn sound(said: &[String]) -> Result<(), Trouble> {
    if said.is_empty() { Ok(()) } else { Err(Trouble::Unusable(said.join("; "))) }
}

/// What SQLite's own check has to say, at most `limit` sentences; none where it found nothing. Where others keep
/// indexes or columns that are expressions, which it would run, only tables of ours are checked.
pub(crate) fn integrity(db: &Connection, schema: &Schema, limit: usize) -> Result<Vec<String>, Trouble> {
    if !foreign::computes(db, schema, None)? {
        return said(db, &format!("PRAGMA integrity_check({limit})"), limit);
    }
    let mut found = Vec::new();
    for table in schema.table_names() {
        let check =
            if foreign::computes(db, schema, Some(table))? { "quick_check" } else { "integrity_check" };
        let sql = format!("PRAGMA {check}({})", foreign::quoted(table));
        found.extend(said(db, &sql, limit.saturating_sub(found.len()))?);
    }
    Ok(found)
}

/// The first sentences that a check says, but for the one that all is well.
fn said(db: &Connection, sql: &str, limit: usize) -> Result<Vec<String>, Trouble> {
    let mut query = db.prepare(sql)?;
    let said = query.query_map([], |row| row.get(0))?.take(limit).collect::<Result<Vec<String>, _>>()?;
    Ok(said.into_iter().filter(|text| text != "ok").collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Column, ColumnType, Table, Value};

    const TABLE: Table =
        Table { name: "readings", columns: &[Column::required("celsius", ColumnType::Real)], indexes: &[] };

    fn database() -> (Connection, Schema) {
        let schema = Schema::new(&TABLE).unwrap();
        let db = Connection::open_in_memory().unwrap();
        schema.create_tables(&db).unwrap();
        (db, schema)
    }

    fn row(seq: u64) -> Row {
        Row { seq, values: vec![Value::Real(seq as f64)], key: None, frame: [1; 56] }
    }

    fn insert(db: &Connection, seq: u64) {
        let sql = "INSERT INTO readings VALUES (?1, ?2, NULL, ?3)";
        db.execute(sql, params![seq as i64, seq as f64, vec![1_u8; 56]]).unwrap();
    }

    fn missing_in(db: &Connection, schema: &Schema, first: u64, last: u64, limit: usize) -> Vec<(u64, u64)> {
        missing_between(db, schema, Tally::of(db, schema).unwrap(), first, last, limit).unwrap()
    }

    #[test]
    fn missing_stretches_cover_exactly_what_is_missing_up_to_the_grain() {
        let (db, schema) = database();
        (1..=10_000).for_each(|seq| insert(&db, seq));
        let found = |limit| missing_in(&db, &schema, 1, 10_000, limit);
        assert_eq!(found(100), []);
        db.execute_batch("DELETE FROM readings WHERE id IN (1, 5000, 10000) OR id BETWEEN 7000 AND 7999")
            .unwrap();
        let missing = found(1000);
        let covered = |seq| missing.iter().any(|(first, last)| (*first..=*last).contains(&seq));
        assert!([1, 5000, 10_000, 7000, 7500, 7999].into_iter().all(covered));
        assert!(![1000, 4000, 6000, 9000].into_iter().any(covered));
        db.execute_batch("INSERT INTO synclog_absent VALUES (1, 10000, 'deleted')").unwrap();
        assert_eq!(found(100), []);
        assert!(is_absent(&db, 10_000).unwrap() && !is_absent(&db, 10_001).unwrap());
    }

    #[test]
    fn missing_stretches_end_where_halving_ends() {
        let (db, schema) = database();
        let found = |first, last, limit| missing_in(&db, &schema, first, last, limit);
        assert_eq!(found(5, 5, 9), [(5, 5)]);
        (1001..=1260).filter(|seq| ![1001, 1130, 1131, 1260].contains(seq)).for_each(|seq| insert(&db, seq));
        assert_eq!(found(1002, 1002, 9), []);
        // 64 seqs are small, 65 are halved.
        assert_eq!(found(1001, 1064, 9), [(1001, 1064)]);
        assert_eq!(found(1001, 1065, 9), [(1001, 1033)]);
        // Neighbours are one stretch, others are not.
        assert_eq!(found(1001, 1260, 9), [(1001, 1033), (1099, 1163), (1229, 1260)]);
        assert_eq!(found(1001, 1260, 2).len(), 2);
        assert_eq!(found(1001, 1260, 1), [(1001, 1260)]);
        assert_eq!(found(1261, 1400, 9), [(1261, 1400)]);
    }

    #[test]
    fn all_are_there_means_all_and_no_others() {
        let (db, schema) = database();
        let all = |first, last| Tally::of(&db, &schema).unwrap().has_all(&db, &schema, first, last).unwrap();
        assert!(!all(1, 1));
        (10..=20).for_each(|seq| insert(&db, seq));
        assert!(all(10, 20) && ![(9, 20), (11, 20), (10, 19), (10, 21)].into_iter().any(|(a, b)| all(a, b)));
        db.execute_batch("DELETE FROM readings WHERE id = 15").unwrap();
        assert!(!all(10, 20));
        let lacking = |first, last| lacking_between(&db, &schema, first, last).unwrap();
        assert_eq!((lacking(10, 20), lacking(15, 15), lacking(16, 20), lacking(16, 15)), (1, 1, 0, 0));
        db.execute_batch("INSERT INTO synclog_absent VALUES (15, 15, 'unknown')").unwrap();
        assert!(all(10, 20) && lacking(10, 20) == 0);
        db.execute_batch("DELETE FROM readings WHERE id = 20").unwrap();
        assert!(!all(10, 20));
        // As many as there should be, and one of them elsewhere.
        insert(&db, 9);
        assert!(!all(10, 20));
        db.execute_batch("UPDATE readings SET id = 21 WHERE id = 9").unwrap();
        assert!(!all(10, 20));
    }

    #[test]
    fn an_index_that_lacks_rows_is_told_up_to_the_limit() {
        let (db, schema) = database();
        (1..=9).for_each(|seq| insert(&db, seq));
        schema.create_indexes(&db).unwrap();
        db.execute_batch("CREATE INDEX by_celsius ON readings (celsius)").unwrap();
        assert_eq!(integrity(&db, &schema, 3).unwrap(), Vec::<String>::new());
        db.execute_batch(
            "PRAGMA writable_schema=ON; \
             UPDATE sqlite_schema SET sql = 'CREATE INDEX by_celsius ON readings (frame)' \
             WHERE name = 'by_celsius'; \
             PRAGMA schema_version=1000; PRAGMA writable_schema=RESET",
        )
        .unwrap();
        let said = integrity(&db, &schema, 3).unwrap();
        assert_eq!(said.len(), 3);
        assert!(said[0].contains("by_celsius"), "{said:?}");
    }

    #[test]
    fn read_back_names_missing_rows_and_differing_columns_near_and_far() {
        let (db, schema) = database();
        let rows: Vec<Row> = (1..=9).map(row).collect();
        (2..=8).for_each(|seq| insert(&db, seq));
        db.execute_batch(
            "UPDATE readings SET celsius = 0 WHERE id = 4; UPDATE readings SET frame = x'00' WHERE id = 5",
        )
        .unwrap();
        let expected = vec![(1, vec![]), (4, vec!["celsius"]), (5, vec!["frame"]), (9, vec![])];
        assert_eq!(read_back(&db, &schema, &rows).unwrap(), expected);
        let far = [row(4), row(4000)];
        assert_eq!(read_back(&db, &schema, &far).unwrap(), [(4, vec!["celsius"]), (4000, vec![])]);
    }
}
