//! Applying a stretch of the log to the rows: the one function behind append, catching up, healing and
//! rebuilding.

use rusqlite::{Connection, OptionalExtension, params};

use crate::event::Value;
use crate::time::Timestamp;

use super::foreign::quoted;
use super::row::Row;
use super::schema::Schema;
use super::{Applied, Trouble, compare, unread, write_applied};

/// The reason why events have no rows that were lost and given up.
pub(crate) const LOST: &str = "lost";
/// The reasons why events have no rows that this program cannot read. Each is entered by itself, and goes when
/// the event can be read again.
pub(crate) const UNKNOWN: &str = "unknown";
pub(crate) const UNREADABLE: &str = "unreadable";

/// Bytes of the longest row that is set aside. The file that has a longer one is kept as a whole.
const LONGEST_SET_ASIDE: i64 = 16 * 1024 * 1024;

/// What [`apply_in`] is given: rows and whatever else one stretch of the log holds.
#[derive(Debug, Default)]
pub(crate) struct Step {
    pub(crate) rows: Vec<Row>,
    /// Seqs that lawfully have no row: first, last, reason.
    pub(crate) absent: Vec<(u64, u64, &'static str)>,
    /// Seqs whose rows a deletion record takes away.
    pub(crate) deleted: Vec<(u64, u64)>,
    /// Ids of rows that no event explains.
    pub(crate) unknown: Vec<i64>,
    /// Idempotency keys of events that cannot be read, by seq.
    pub(crate) unread_keys: Vec<(u64, String)>,
    /// Events whose keys are kept among these and should not be, or not so.
    pub(crate) wrong_keys: Vec<u64>,
    /// Where the rows stand after this step; `None` when old rows are healed.
    pub(crate) applied: Option<Applied>,
}

/// What [`apply_in`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    pub(crate) restored: u64,
    pub(crate) replaced: u64,
    pub(crate) set_aside: u64,
    pub(crate) already_present: u64,
}

/// Applies one step inside the caller's transaction. `before` is the applied seq before this step: a row that is
/// already there below it is ours, a row above it was put there by somebody else.
pub(crate) fn apply_in(
    db: &Connection,
    schema: &Schema,
    step: &Step,
    before: Applied,
) -> Result<Changes, Trouble> {
    let mut changes = Changes::default();
    for id in &step.unknown {
        changes.set_aside += set_aside(db, schema, *id, "no event explains this row")?;
    }
    let mut insert = db.prepare_cached(&schema.insert)?;
    let old = step.rows.first().is_some_and(|row| row.seq <= before.seq);
    let keys = old && unread::exists(db)?;
    for row in &step.rows {
        if row.seq <= before.seq {
            // It was passed over once, perhaps by a program that could not read its event.
            unread::is_read(db, schema, row.seq, keys)?;
        }
        row.bind(&mut insert)?;
        if insert.raw_execute()? == 1 {
            changes.restored += 1;
            continue;
        }
        let found = compare::differing_columns(db, schema, row)?;
        if found.as_ref().is_some_and(Vec::is_empty) {
            changes.already_present += 1;
            continue;
        }
        let aside = match found {
            Some(_) if row.seq > before.seq => Some("it stood where an event's row goes"),
            Some(columns) if columns.contains(&"frame") && is_of_another(db, schema, row)? => {
                Some(OF_ANOTHER)
            }
            _ => None,
        };
        match aside {
            Some(why) => changes.set_aside += set_aside(db, schema, row.seq as i64, why)?,
            None => changes.replaced += 1,
        }
        let mut replace = db.prepare_cached(&schema.replace)?;
        row.bind(&mut replace)?;
        replace.raw_execute()?;
    }
    let mut delete =
        db.prepare_cached(&format!("DELETE FROM {} WHERE id BETWEEN ?1 AND ?2", schema.table))?;
    let mut absent = db.prepare_cached(&format!(
        "INSERT INTO {} (first, last, reason) VALUES (?1, ?2, ?3) \
         ON CONFLICT (first) DO UPDATE SET last = max(last, excluded.last), reason = excluded.reason",
        schema.absent
    ))?;
    for (first, last) in &step.deleted {
        delete.execute(params![*first as i64, *last as i64])?;
        absent.execute(params![*first as i64, *last as i64, "deleted"])?;
        unread::forget(db, *first, *last)?;
    }
    for (first, last, reason) in &step.absent {
        let (from, to) = (*first as i64, *last as i64);
        match *reason {
            LOST => changes.set_aside += clear(db, schema, from, to, "its event was lost and given up")?,
            // It was made by a program that could read the event.
            UNKNOWN | UNREADABLE => {
                changes.set_aside += clear(db, schema, from, to, "this program cannot read its event")?;
                unread::pass_over(db, schema)?;
            }
            _ => {}
        }
        absent.execute(params![*first as i64, *last as i64, reason])?;
    }
    for seq in &step.wrong_keys {
        unread::forget(db, *seq, *seq)?;
    }
    changes.replaced += step.wrong_keys.len() as u64;
    unread::keep(db, &step.unread_keys)?;
    if let Some(applied) = step.applied {
        write_applied(db, schema, applied)?;
    }
    Ok(changes)
}

/// Why a row is kept although the log has an event under its seq.
pub(super) const OF_ANOTHER: &str = "it is of another event than the log has under its seq";

/// Whether the row in the place of this one remembers the frame of another event under the same seq: it may be all
/// that is left of that.
fn is_of_another(db: &Connection, schema: &Schema, row: &Row) -> Result<bool, Trouble> {
    let own = Some(compare::sum_in(&row.frame));
    let found = compare::sums_between(db, schema, row.seq as i64, row.seq as i64)?;
    Ok(found.iter().any(|(_, sum)| sum.is_some() && *sum != own))
}

/// Sets aside what rows there are where there lawfully is none. Rows of events that were given up prove nothing
/// any more, and may be all that is left of them.
fn clear(db: &Connection, schema: &Schema, first: i64, last: i64, why: &str) -> Result<u64, Trouble> {
    let (mut moved, mut from) = (0, first);
    loop {
        let ids = compare::ids_between(db, schema, from, last, 512)?;
        let Some(newest) = ids.last().copied() else { break };
        for id in ids {
            moved += set_aside(db, schema, id, why)?;
        }
        from = newest.saturating_add(1);
    }
    if compare::ids_between(db, schema, first, last, 1)?.is_empty() {
        return Ok(moved);
    }
    Err(Trouble::Unusable(format!("rows do not go away ({why}), because of a trigger perhaps")))
}

/// Moves a row that no event explains into the table of such rows, as JSON. How many rows that moves.
fn set_aside(db: &Connection, schema: &Schema, id: i64, reason: &str) -> Result<u64, Trouble> {
    let Some(row) = as_json(db, schema, id)? else { return Ok(0) };
    let mut delete = db.prepare_cached(&format!("DELETE FROM {} WHERE id = ?1", schema.table))?;
    if delete.execute([id])? == 0 {
        return Ok(0); // a trigger keeps it
    }
    record_set_aside(db, schema, id, &row, reason)?;
    Ok(1)
}

/// Adds a row, as JSON, to those that no event explains, without taking it away from where it is.
pub(super) fn record_set_aside(
    db: &Connection,
    schema: &Schema,
    id: i64,
    row: &str,
    reason: &str,
) -> Result<(), Trouble> {
    let now = Timestamp::now().to_string();
    db.prepare_cached(INSERT_SET_ASIDE)?.execute(params![now, schema.table, id, reason, row])?;
    check_set_aside(db, row)
}

/// The row is taken away only when it is found where it was put.
fn check_set_aside(db: &Connection, row: &str) -> Result<(), Trouble> {
    let mut query = db.prepare_cached("SELECT row FROM synclog_set_aside WHERE number = ?1")?;
    // What is no text is another row.
    let same = |found: &rusqlite::Row<'_>| Ok(found.get_ref(0)?.as_str().ok() == Some(row));
    if query.query_row([db.last_insert_rowid()], same).optional()? == Some(true) {
        return Ok(());
    }
    Err(Trouble::Altered("a row that was set aside is not found again".into()))
}

/// A row of the table of rows that no event explains, but for its number.
pub(super) const INSERT_SET_ASIDE: &str = "INSERT INTO synclog_set_aside (noticed_at, source_table, row_id, reason, row) VALUES (?1, ?2, ?3, ?4, ?5)";

/// A row as a JSON object, with whatever columns it has but those that are expressions; blobs as `{"hex": "…"}`.
/// Without its id.
pub(super) fn as_json(db: &Connection, schema: &Schema, id: i64) -> Result<Option<String>, Trouble> {
    let mut columns = db.prepare_cached("SELECT name FROM pragma_table_xinfo(?1) WHERE hidden = 0")?;
    let names = columns.query_map([schema.table], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?;
    let quoted: Vec<String> = names.iter().map(|name| quoted(name)).collect();
    let bytes: Vec<String> = quoted.iter().map(|name| format!("coalesce(octet_length({name}), 0)")).collect();
    let from = format!("FROM {} WHERE id = ?1", schema.table);
    let size = db
        .prepare_cached(&format!("SELECT {} {from}", bytes.join(" + ")))?
        .query_row([id], |row| row.get::<_, i64>(0))
        .optional()?;
    if size.is_some_and(|size| size > LONGEST_SET_ASIDE) {
        return Err(Trouble::Unusable(format!("the row with id {id} is too long to be set aside")));
    }
    let mut query = db.prepare_cached(&format!("SELECT {} {from}", quoted.join(", ")))?;
    let object = query.query_row([id], |row| {
        let values = names.iter().enumerate().filter(|(_, name)| *name != "id");
        values.map(|(at, name)| Ok((name.clone(), json(&Value::from_ref(row.get_ref(at)?))))).collect()
    });
    let object: Option<serde_json::Map<_, _>> = object.optional()?;
    Ok(object.map(|object| serde_json::Value::Object(object).to_string()))
}

/// A value in JSON; a blob as `{"hex": "…"}`.
pub(crate) fn json(value: &Value) -> serde_json::Value {
    match value {
        Value::Null => serde_json::Value::Null,
        Value::Integer(number) => (*number).into(),
        Value::Real(number) => (*number).into(),
        Value::Text(text) => text.clone().into(),
        Value::Blob(bytes) => {
            let digit = |half: u8| char::from_digit(u32::from(half), 16).unwrap_or('?');
            let hex: String = bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect();
            serde_json::json!({ "hex": hex })
        }
    }
}
