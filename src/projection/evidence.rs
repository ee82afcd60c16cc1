//! What a database says that need not be one that can serve as the view: an older version's, one whose tables were
//! altered, one in quarantine.
//!
//! Whose it is, which event it has applied last, and rows as far as they have columns of ours. Nothing of it is
//! believed without proof, so what is missing in a row may be made up: its frame's checksum decides.

use rusqlite::{Connection, OptionalExtension};

use super::row::FoundRow;
use super::schema::Schema;
use super::{Applied, Trouble, compare, meta_value};
use crate::event::Value;
use crate::store_id::StoreId;

/// Where a row's frame has the seq, and its header's checksum. The format never changes.
const SEQ_AT: usize = 8;
const HEADER_SUM_AT: usize = 40;

/// Whether the applied seq has its row, with the same checksum, or lawfully has none. Both are written
/// in one transaction; an applied seq without its row was edited and is no witness.
pub(crate) fn vouches_for(db: &Connection, schema: &Schema, applied: Applied) -> Result<bool, Trouble> {
    if applied.seq == 0 {
        return Ok(false);
    }
    let look = || {
        if !Schema::is_plain(db, schema.table)? {
            return Ok(false);
        }
        let sql = format!("SELECT frame FROM {} WHERE id = ?1", schema.table);
        let mut query = db.prepare_cached(&sql)?;
        let frame =
            query.query_row([applied.seq as i64], |row| Ok(Value::from_ref(row.get_ref(0)?))).optional()?;
        match frame {
            Some(Value::Blob(frame)) => {
                Ok(frame.get(HEADER_SUM_AT..HEADER_SUM_AT + 4) == Some(&applied.sum.to_le_bytes()[..]))
            }
            Some(_) => Ok(false),
            None => compare::is_absent(db, applied.seq),
        }
    };
    match look() {
        // What cannot be read now may vouch; what can never be read does not.
        Err(trouble @ (Trouble::Busy(_) | Trouble::Failed(_))) => Err(trouble),
        Err(_) => Ok(false),
        Ok(vouches) => Ok(vouches),
    }
}

/// The newest event that the rows of `store` say they have, whatever else became of the tables; `None` where
/// they do not tell.
pub(crate) fn evidence(db: &Connection, store: StoreId) -> Option<Applied> {
    if !names_store(db, store) {
        return None;
    }
    match (meta_value(db, "applied_seq"), meta_value(db, "applied_sum")) {
        (Ok(Some(Value::Integer(seq))), Ok(Some(Value::Integer(sum)))) => {
            // What is out of range is none.
            Some(Applied { seq: u64::try_from(seq).ok()?, sum: u32::try_from(sum).ok()? })
        }
        _ => None,
    }
}

/// Whether a database says that it is the projection of `store`, whatever state it is in otherwise.
pub(crate) fn names_store(db: &Connection, store: StoreId) -> bool {
    store_of(db) == Some(store)
}

/// The store that a database says it is the projection of, whatever state it is in otherwise.
pub(crate) fn store_of(db: &Connection) -> Option<StoreId> {
    match meta_value(db, "store_id") {
        Ok(Some(Value::Text(found))) => found.parse().ok(),
        _ => None,
    }
}

/// The newest event behind `last` of which a row has kept a frame: seq and the header's checksum. No look at the
/// row's other columns, and no proof: where the frame stood is not known. A table that can never be read tells nothing.
pub(crate) fn kept_behind(db: &Connection, schema: &Schema, last: u64) -> Result<Option<Applied>, Trouble> {
    kept_in(db, schema, last.saturating_add(1), u64::MAX)
}

/// The header's checksum that an event's row has kept.
pub(crate) fn kept(db: &Connection, schema: &Schema, seq: u64) -> Result<Option<u32>, Trouble> {
    Ok(kept_in(db, schema, seq, seq)?.map(|kept| kept.sum))
}

fn kept_in(db: &Connection, schema: &Schema, first: u64, last: u64) -> Result<Option<Applied>, Trouble> {
    /// Rows that somebody else has put there have no frame of their own seq.
    const ROWS: i64 = 64;
    let id_of = |seq: u64| i64::try_from(seq).unwrap_or(i64::MAX); // no seq is larger
    let look = || -> Result<Option<Applied>, Trouble> {
        if !Schema::is_plain(db, schema.table)? {
            return Ok(None);
        }
        let sql = format!(
            "SELECT id, frame FROM {} WHERE id BETWEEN ?1 AND ?2 AND typeof(frame) = 'blob' AND octet_length(frame) < 1024 \
             ORDER BY id DESC LIMIT ?3",
            schema.table
        );
        let mut query = db.prepare_cached(&sql)?;
        let mut rows = query.query([id_of(first), id_of(last), ROWS])?;
        while let Some(row) = rows.next()? {
            let (id, frame): (i64, Vec<u8>) = (row.get(0)?, row.get(1)?);
            let (seq, sum) = (frame.get(SEQ_AT..), frame.get(HEADER_SUM_AT..));
            let seq = seq.and_then(<[u8]>::first_chunk).map(|raw| u64::from_le_bytes(*raw));
            let sum = sum.and_then(<[u8]>::first_chunk).map(|raw| u32::from_le_bytes(*raw));
            if let (Some(seq), Some(sum)) = (seq, sum)
                && id == seq.cast_signed()
            {
                return Ok(Some(Applied { seq, sum }));
            }
        }
        Ok(None)
    };
    match look() {
        // What cannot be read now may tell of events; what can never be read does not.
        Err(trouble @ (Trouble::Busy(_) | Trouble::Failed(_))) => Err(trouble),
        Err(_) => Ok(None),
        Ok(kept) => Ok(kept),
    }
}

/// Rows of a table that need not have all columns, or only them.
pub(crate) struct OwnRows<'a> {
    db: &'a Connection,
    columns: usize,
    /// `None` where it has no such table, or no row of it could tell of a frame.
    select: Option<String>,
}

impl<'a> OwnRows<'a> {
    pub(crate) fn of(db: &'a Connection, schema: &Schema) -> Result<Self, Trouble> {
        let mut query = db.prepare_cached("SELECT name FROM pragma_table_info(?1)")?;
        let there: Vec<String> =
            query.query_map([schema.table], |row| row.get(0))?.collect::<Result<_, _>>()?;
        let has = |own: &str| there.iter().any(|name| name.eq_ignore_ascii_case(own));
        let cells = schema.columns.iter().zip(&schema.stand_ins);
        let cells: Vec<_> = cells.map(|(name, instead)| if has(name) { *name } else { *instead }).collect();
        let select = format!("SELECT {} FROM {} WHERE id = ?1 LIMIT 1", cells.join(", "), schema.table);
        let can_tell = has("id") && has("frame") && Schema::is_plain(db, schema.table)?;
        let select = can_tell.then_some(select);
        Ok(Self { db, columns: schema.columns.len(), select })
    }

    /// The row of an event, with stand-ins for what its table lacks.
    pub(crate) fn row(&self, id: i64) -> Result<Option<FoundRow>, Trouble> {
        let Some(select) = &self.select else { return Ok(None) };
        let mut query = self.db.prepare_cached(select)?;
        Ok(query.query_row([id], |row| FoundRow::read(row, self.columns)).optional()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Column, ColumnType, Table};

    #[test]
    fn a_row_is_read_as_far_as_its_table_goes() {
        const TABLE: Table = Table {
            name: "readings",
            columns: &[
                Column::required("celsius", ColumnType::Real),
                Column::nullable("place", ColumnType::Text),
                Column::required("sensor", ColumnType::Text),
            ],
            indexes: &[],
        };
        let schema = Schema::new(&TABLE).unwrap();
        let db = Connection::open_in_memory().unwrap();
        let row = |id| OwnRows::of(&db, &schema).and_then(|rows| rows.row(id)).unwrap();
        assert_eq!(row(1), None, "no table");
        db.execute_batch("CREATE TABLE readings (id INTEGER PRIMARY KEY, CELSIUS REAL)").unwrap();
        db.execute_batch("INSERT INTO readings VALUES (1, 2.5)").unwrap();
        assert_eq!(row(1), None, "no frame");
        db.execute_batch("ALTER TABLE readings ADD COLUMN other; ALTER TABLE readings ADD COLUMN frame BLOB")
            .unwrap();
        db.execute_batch("UPDATE readings SET other = 7, frame = x'01'").unwrap();
        let values = vec![Value::Real(2.5), Value::Null, Value::Text(String::new())];
        let found = FoundRow { id: 1, values, key: Value::Null, frame: Value::Blob(vec![1]) };
        assert_eq!((row(1), row(2)), (Some(found), None));
    }
}
