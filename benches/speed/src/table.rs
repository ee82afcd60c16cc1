//! synclog's table, for SQLite alone: the SQL comes from a store, so it is always the present one.

use std::path::Path;

use rusqlite::types::{ToSqlOutput, Value as Sql, ValueRef};
use rusqlite::{Connection, Statement};
use synclog::{Event, Options, Status, Store, SyncEvent, Value};

use crate::contestant::Result;
use crate::contestants::synclog_store::LONG;
use crate::events;

/// How many rows are compared before anything is measured.
const COMPARED: u64 = 200;

/// The table and its indexes.
pub struct Table {
    create: String,
    indexes: Vec<String>,
    /// Inserts one row; the first parameter is the id.
    pub insert: String,
    /// Selects all columns, by id.
    pub select: String,
}

impl Table {
    /// Takes the SQL from a new store, and makes sure that a plain database gets the same rows.
    pub fn from_synclog(dir: &Path) -> Result<Self> {
        let store = Store::<SyncEvent>::open(dir, Options::default())?;
        store.append_all((0..COMPARED).map(events::event))?;
        if !store.wait_projected(LONG) {
            return Err("the rows did not follow".into());
        }
        let theirs = Connection::open(store.database())?;
        let name = SyncEvent::TABLE.name;
        let mut query = theirs.prepare(
            "SELECT sql FROM sqlite_schema WHERE tbl_name = ?1 AND sql IS NOT NULL ORDER BY type DESC, rowid",
        )?;
        let mut sql = query.query_map([name], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?;
        if sql.len() < 2 {
            return Err("synclog's table was not found".into());
        }
        let create = sql.remove(0);
        let columns: Vec<&str> = ["id"]
            .into_iter()
            .chain(SyncEvent::TABLE.columns.iter().map(|column| column.name))
            .chain(["idempotency_key", "frame"])
            .collect();
        let marks: Vec<String> = (1..=columns.len()).map(|number| format!("?{number}")).collect();
        let (columns, marks) = (columns.join(", "), marks.join(", "));
        let table = Self {
            create,
            indexes: sql,
            insert: format!("INSERT INTO {name} ({columns}) VALUES ({marks})"),
            select: format!("SELECT {columns} FROM {name} ORDER BY id"),
        };
        let ours = Connection::open_in_memory()?;
        table.create(&ours)?;
        table.create_indexes(&ours)?;
        let mut insert = ours.prepare(&table.insert)?;
        for number in 0..COMPARED {
            bind(&mut insert, None, &events::event(number), &events::frame(number))?;
            insert.raw_execute()?;
        }
        if table.rows_without_frame(&ours)? != table.rows_without_frame(&theirs)? {
            return Err("the plain database has other rows than synclog's".into());
        }
        Ok(table)
    }

    fn rows_without_frame(&self, db: &Connection) -> Result<Vec<Vec<Sql>>> {
        let mut query = db.prepare(&self.select)?;
        let frame_at = query.column_count() - 1;
        let rows = query.query_map([], |row| {
            if row.get_ref(frame_at)?.as_blob()?.len() != events::FRAME_BYTES {
                return Err(rusqlite::Error::InvalidQuery);
            }
            (0..frame_at).map(|column| row.get(column)).collect()
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Makes the table.
    pub fn create(&self, db: &Connection) -> Result<()> {
        Ok(db.execute_batch(&self.create)?)
    }

    /// Makes the indexes.
    pub fn create_indexes(&self, db: &Connection) -> Result<()> {
        Ok(self.indexes.iter().try_for_each(|sql| db.execute_batch(sql))?)
    }
}

/// Binds an event as a program would that has no log: straight from its fields.
pub fn bind(
    statement: &mut Statement<'_>,
    id: Option<i64>,
    event: &SyncEvent,
    frame: &[u8; events::FRAME_BYTES],
) -> Result<()> {
    let time = event.created_at.map(|time| time.to_string());
    let origin = event.origin.map(|origin| origin.store.to_string());
    statement.raw_bind_parameter(1, id)?;
    statement.raw_bind_parameter(2, &event.company.guid)?;
    statement.raw_bind_parameter(3, &event.company.alterid)?;
    statement.raw_bind_parameter(4, &event.company.name)?;
    statement.raw_bind_parameter(5, event.level.as_str())?;
    statement.raw_bind_parameter(6, &event.message)?;
    statement.raw_bind_parameter(7, event.details.as_deref())?;
    statement.raw_bind_parameter(8, event.status.map(Status::as_str))?;
    statement.raw_bind_parameter(9, event.records_synced)?;
    statement.raw_bind_parameter(10, event.error_code.as_deref())?;
    statement.raw_bind_parameter(11, event.error_message.as_deref())?;
    statement.raw_bind_parameter(12, event.duration_seconds)?;
    statement.raw_bind_parameter(13, time)?;
    statement.raw_bind_parameter(14, event.run.as_deref())?;
    statement.raw_bind_parameter(15, event.legacy_id)?;
    statement.raw_bind_parameter(16, origin)?;
    statement.raw_bind_parameter(17, event.origin.map(|origin| origin.seq.cast_signed()))?;
    statement.raw_bind_parameter(18, None::<&str>)?;
    Ok(statement.raw_bind_parameter(19, &frame[..])?)
}

/// A row as it goes into the database, made ahead.
pub struct Row {
    values: Vec<Value>,
    frame: [u8; events::FRAME_BYTES],
}

impl Row {
    /// The row of the event with this number, as synclog makes it.
    pub fn new(number: u64) -> Self {
        Self { values: events::event(number).to_row(), frame: events::frame(number) }
    }

    /// Binds all columns.
    pub fn bind(&self, statement: &mut Statement<'_>, id: i64) -> Result<()> {
        statement.raw_bind_parameter(1, id)?;
        for (index, value) in self.values.iter().enumerate() {
            statement.raw_bind_parameter(index + 2, ToSqlOutput::Borrowed(value_ref(value)))?;
        }
        statement.raw_bind_parameter(self.values.len() + 2, None::<&str>)?;
        Ok(statement.raw_bind_parameter(self.values.len() + 3, &self.frame[..])?)
    }

    /// Whether the database's row is this one, in every column.
    pub fn equals(&self, id: i64, found: &rusqlite::Row<'_>) -> Result<bool> {
        let mut same = found.get_ref(0)? == ValueRef::Integer(id);
        for (index, value) in self.values.iter().enumerate() {
            same &= found.get_ref(index + 1)? == value_ref(value);
        }
        same &= found.get_ref(self.values.len() + 1)? == ValueRef::Null;
        same &= found.get_ref(self.values.len() + 2)? == ValueRef::Blob(&self.frame);
        Ok(same)
    }
}

fn value_ref(value: &Value) -> ValueRef<'_> {
    match value {
        Value::Null => ValueRef::Null,
        Value::Integer(number) => ValueRef::Integer(*number),
        Value::Real(number) => ValueRef::Real(*number),
        Value::Text(text) => ValueRef::Text(text.as_bytes()),
        Value::Blob(bytes) => ValueRef::Blob(bytes),
    }
}
