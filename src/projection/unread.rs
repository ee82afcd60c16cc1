//! Events that have no rows because this program cannot read them, and their idempotency keys.
//!
//! A key counts also where its event is not understood. It has a table of its own, which is made with the first
//! such key, so that most databases have none.

use rusqlite::{Connection, OptionalExtension, params};

use super::apply::{UNKNOWN, UNREADABLE};
use super::schema::Schema;
use super::{EVENT_VERSION, Trouble, meta_value, write_meta};
use crate::event::Value;

const TABLE: &str = "CREATE TABLE IF NOT EXISTS synclog_unread_keys (seq INTEGER PRIMARY KEY, key TEXT NOT NULL); \
     CREATE INDEX IF NOT EXISTS synclog_unread_keys_by_key ON synclog_unread_keys (key)";

/// Whether there is a table of such keys.
pub(super) fn exists(db: &Connection) -> rusqlite::Result<bool> {
    db.prepare_cached("SELECT 1 FROM sqlite_schema WHERE name = 'synclog_unread_keys' AND type = 'table'")?
        .exists([])
}

/// Whether an older program has passed over events that this one may know.
pub(super) fn is_behind(db: &Connection, schema: &Schema) -> Result<bool, Trouble> {
    let unknown =
        db.prepare_cached("SELECT 1 FROM synclog_absent WHERE reason = ?1 LIMIT 1")?.exists([UNKNOWN])?;
    let (_, version) = schema.event;
    Ok(unknown
        && match meta_value(db, EVENT_VERSION)? {
            Some(Value::Integer(knew)) => knew < i64::from(version),
            _ => version > 0,
        })
}

/// Notes that an event is not known to this program, for a newer one to look again.
pub(super) fn pass_over(db: &Connection, schema: &Schema) -> rusqlite::Result<()> {
    write_meta(db, EVENT_VERSION, i64::from(schema.event.1))
}

/// Keeps the key of an event without a row.
pub(super) fn keep(db: &Connection, keys: &[(u64, String)]) -> rusqlite::Result<()> {
    if keys.is_empty() {
        return Ok(());
    }
    if !exists(db)? {
        db.execute_batch(TABLE)?;
    }
    let mut keep = db.prepare_cached(
        "INSERT INTO synclog_unread_keys (seq, key) VALUES (?1, ?2) ON CONFLICT (seq) DO UPDATE SET key = excluded.key",
    )?;
    keys.iter().try_for_each(|(seq, key)| keep.execute(params![*seq as i64, key]).map(drop))
}

/// Forgets the keys of the events from `first` to `last`: they are in rows, or gone with their events.
pub(super) fn forget(db: &Connection, first: u64, last: u64) -> rusqlite::Result<()> {
    if !exists(db)? {
        return Ok(());
    }
    let sql = "DELETE FROM synclog_unread_keys WHERE seq BETWEEN ?1 AND ?2";
    db.prepare_cached(sql)?.execute(params![first as i64, last as i64]).map(drop)
}

/// Forgets the keys of events that have rows, behind a rebuild.
pub(super) fn forget_read(db: &Connection, schema: &Schema) -> rusqlite::Result<()> {
    if !exists(db)? {
        return Ok(());
    }
    let table = schema.table;
    let sql = format!("DELETE FROM synclog_unread_keys WHERE EXISTS (SELECT 1 FROM {table} WHERE id = seq)");
    db.execute_batch(&sql)
}

/// Notes that event `seq` has a row after all. `keys` says whether there is a table of keys.
pub(super) fn is_read(db: &Connection, schema: &Schema, seq: u64, keys: bool) -> rusqlite::Result<()> {
    let table = schema.absent;
    let sql = format!("DELETE FROM {table} WHERE first = ?1 AND last = ?1 AND reason IN (?2, ?3)");
    db.prepare_cached(&sql)?.execute(params![seq as i64, UNKNOWN, UNREADABLE])?;
    if keys {
        forget(db, seq, seq)?;
    }
    Ok(())
}

/// The event without a row that has an idempotency key; the first one where somebody entered several.
pub(crate) fn event_with_key(db: &Connection, key: &str) -> Result<Option<u64>, Trouble> {
    if !exists(db)? {
        return Ok(None);
    }
    let sql = "SELECT seq FROM synclog_unread_keys WHERE key = ?1 ORDER BY seq LIMIT 1";
    let seq: Option<i64> = db.prepare_cached(sql)?.query_row([key], |row| row.get(0)).optional()?;
    Ok(seq.map(|seq| seq.max(0) as u64))
}

/// The events from `first` to `last` whose keys are not kept as `wanted`, which ascends by seq.
pub(crate) fn differing(
    db: &Connection,
    first: i64,
    last: i64,
    wanted: &[(u64, String)],
) -> Result<Vec<u64>, Trouble> {
    let mut found = Vec::new();
    if exists(db)? {
        let sql = "SELECT seq, key FROM synclog_unread_keys WHERE seq BETWEEN ?1 AND ?2 ORDER BY seq";
        let mut query = db.prepare_cached(sql)?;
        let mut rows = query.query(params![first, last])?;
        while let Some(row) = rows.next()? {
            let seq = row.get::<_, i64>(0)? as u64;
            if found.last().is_some_and(|(before, _)| *before >= seq) {
                return Err(Trouble::Unusable(
                    "keys of unread events stand out of order: it is damaged".into(),
                ));
            }
            found.push((seq, Value::from_ref(row.get_ref(1)?)));
        }
    }
    let mut differ = Vec::new();
    let mut found = found.into_iter().peekable();
    for (seq, key) in wanted {
        while let Some((other, _)) = found.next_if(|(other, _)| other < seq) {
            differ.push(other);
        }
        match found.next_if(|(other, _)| other == seq) {
            Some((_, Value::Text(same))) if same == *key => {}
            _ => differ.push(*seq),
        }
    }
    differ.extend(found.map(|(other, _)| other));
    Ok(differ)
}

/// How many events have no rows because this program cannot read them, and the first of them.
pub(crate) fn count(db: &Connection) -> Result<(u64, u64), Trouble> {
    let sql = "SELECT count(*), coalesce(min(first), 0) FROM synclog_absent WHERE reason IN (?1, ?2)";
    let counted = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?));
    let (count, first) = db.prepare_cached(sql)?.query_row([UNKNOWN, UNREADABLE], counted)?;
    Ok((count.max(0) as u64, first.max(0) as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Column, ColumnType, Table};
    use crate::projection::row::Row;
    use crate::projection::{Applied, Step, apply_in};

    const EVENTS: Table =
        Table { name: "readings", columns: &[Column::required("celsius", ColumnType::Real)], indexes: &[] };

    #[test]
    fn keys_of_unread_events_are_found_compared_and_go_with_their_events() {
        let schema = Schema::new(&EVENTS).unwrap();
        let db = Connection::open_in_memory().unwrap();
        schema.create_tables(&db).unwrap();
        let apply = |step: &Step, before| {
            apply_in(&db, &schema, step, Applied { seq: before, sum: 0 }).unwrap();
        };
        assert!(!exists(&db).unwrap() && event_with_key(&db, "a").unwrap().is_none());
        assert!(differing(&db, 1, 9, &[]).unwrap().is_empty());
        forget(&db, 1, 9).unwrap();
        let keys = [(2, "a".to_owned()), (4, "b".to_owned()), (6, "c".to_owned()), (8, "d".to_owned())];
        let absent = keys.iter().map(|(seq, _)| (*seq, *seq, UNKNOWN)).collect();
        apply(&Step { absent, unread_keys: keys.to_vec(), ..Step::default() }, 0);
        assert_eq!(event_with_key(&db, "b").unwrap(), Some(4));
        assert_eq!(count(&db).unwrap(), (4, 2));
        assert!(differing(&db, 1, 9, &keys).unwrap().is_empty());
        assert!(differing(&db, 3, 7, &keys[1..3]).unwrap().is_empty());
        // One is gone, one is another, one is too many.
        db.execute_batch(
            "DELETE FROM synclog_unread_keys WHERE seq = 2; UPDATE synclog_unread_keys SET key = x'00' WHERE seq = 6; \
             INSERT INTO synclog_unread_keys VALUES (5, 'e'), (9, 'f')",
        )
        .unwrap();
        let wrong = differing(&db, 1, 9, &keys).unwrap();
        assert_eq!(wrong, [2, 5, 6, 9]);
        apply(&Step { wrong_keys: wrong, unread_keys: keys.to_vec(), ..Step::default() }, 9);
        assert!(differing(&db, 1, 9, &keys).unwrap().is_empty());
        // An event that was deleted takes its key with it, and so does one that has its row now.
        apply(&Step { deleted: vec![(1, 4)], ..Step::default() }, 9);
        assert!(differing(&db, 1, 9, &keys[2..]).unwrap().is_empty());
        let row = Row { seq: 6, values: vec![Value::Real(1.0)], key: Some("c".into()), frame: [1; 56] };
        apply(&Step { rows: vec![row], ..Step::default() }, 9);
        assert!(differing(&db, 1, 9, &keys[3..]).unwrap().is_empty());
        assert_eq!((event_with_key(&db, "c").unwrap(), event_with_key(&db, "d").unwrap()), (None, Some(8)));
    }
}
