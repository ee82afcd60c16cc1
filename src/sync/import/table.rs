//! Databases of the system before this one: a table `sync_logs`, read and never written.

use std::path::Path;

use rusqlite::limits::Limit;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};

use crate::error::{Error, Result};

use super::fields::{Cell, Cells, Field, field, shown};
use super::{MAX_LINE, ReadTime, Source};

/// Reads every row in the order of its id. The number of a row in that order is its line.
pub(super) fn read(path: &Path, read_time: ReadTime<'_>) -> Result<Source> {
    read_table(&open(path)?, path, read_time)
}

fn failed(path: &Path, error: &rusqlite::Error) -> Error {
    let busy = matches!(
        error.sqlite_error_code(),
        Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked)
    );
    if busy {
        return Error::Projection { path: path.into(), reason: error.to_string(), busy };
    }
    // Not the store's own database: no replay mends it.
    Error::io("read", path, std::io::Error::other(error.to_string()))
}

/// Opens the database for reading. One in WAL mode needs a place for its `-shm` file; where there
/// is none, and no `-wal` with anything in it either, the file is read as it lies there.
fn open(path: &Path) -> Result<Connection> {
    let attempt = |name: &std::ffi::OsStr, flags: OpenFlags| -> rusqlite::Result<Connection> {
        let db = Connection::open_with_flags(Path::new(name), flags | OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        // What a stranger's database may ask of us: no long values, no functions in its schema.
        db.set_limit(Limit::SQLITE_LIMIT_LENGTH, MAX_LINE as i32)?;
        db.execute_batch("PRAGMA trusted_schema = OFF; PRAGMA query_only = ON")?;
        db.query_row("SELECT count(*) FROM sqlite_master", [], |_| Ok(()))?;
        Ok(db)
    };
    let plain = attempt(path.as_os_str(), OpenFlags::SQLITE_OPEN_NO_MUTEX);
    let error = match plain {
        Ok(db) => return Ok(db),
        Err(error) => error,
    };
    let mut wal = path.as_os_str().to_owned();
    wal.push("-wal");
    let wal_is_empty = crate::disk::file_len(Path::new(&wal)) == 0;
    let no_room = matches!(
        error.sqlite_error_code(),
        Some(rusqlite::ErrorCode::CannotOpen | rusqlite::ErrorCode::ReadOnly)
    );
    if no_room
        && wal_is_empty
        && let Some(text) = path.to_str()
    {
        let uri =
            format!("file:{}?immutable=1", text.replace('%', "%25").replace('?', "%3f").replace('#', "%23"));
        if let Ok(db) = attempt(uri.as_ref(), OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX) {
            return Ok(db);
        }
    }
    Err(failed(path, &error))
}

fn read_table(db: &Connection, path: &Path, read_time: ReadTime<'_>) -> Result<Source> {
    let failed = |error: rusqlite::Error| failed(path, &error);
    // One transaction, so that all of this looks at one state. It ends with the connection.
    db.execute_batch("BEGIN").map_err(failed)?;
    let count = |sql: &str| db.query_row(sql, [], |row| row.get::<_, i64>(0)).map_err(failed);
    // A view could make SQLite compute for ever, and a virtual table could be anything.
    let tables = count(
        "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND lower(name) = 'sync_logs'
         AND upper(ltrim(sql)) LIKE 'CREATE TABLE%'",
    )?;
    if tables == 0 {
        return Err(Error::invalid("the source", "has no table sync_logs"));
    }
    let own = count("SELECT count(*) FROM sqlite_master WHERE lower(name) LIKE 'synclog^_%' ESCAPE '^'")?;
    if own > 0 {
        return Err(Error::invalid(
            "the source",
            "is the database of a synclog store: run `synclog export` there and import what it prints",
        ));
    }
    let columns: Vec<String> = {
        let statement = db.prepare("SELECT * FROM sync_logs LIMIT 0").map_err(failed)?;
        statement.column_names().map(Into::into).collect()
    };
    let id = columns.iter().position(|name| field(name) == Some(Field::LegacyRowId));
    // The order by position: a name of the source never becomes part of the query.
    let order = id.map_or(String::new(), |at| format!(" ORDER BY {}", at + 1));
    let mut statement = db.prepare(&format!("SELECT * FROM sync_logs{order}")).map_err(failed)?;
    let mut rows = statement.query([]).map_err(failed)?;
    let mut source = Source::default();
    let mut line = 0;
    while let Some(row) = rows.next().map_err(failed)? {
        line += 1;
        let mut cells = Cells::default();
        let mut place = String::new();
        for (at, name) in columns.iter().enumerate() {
            let cell = match row.get_ref(at).map_err(failed)? {
                ValueRef::Null => Cell::Null,
                ValueRef::Integer(number) => Cell::Integer(number),
                ValueRef::Real(number) => Cell::Real(number),
                ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
                    Ok(text) => Cell::Text(text.into()),
                    Err(_) => Cell::Other("not UTF-8"),
                },
                ValueRef::Blob(_) => Cell::Other("a blob"),
            };
            if let (true, Cell::Integer(number)) = (id == Some(at), &cell) {
                place = format!("row with {name} {number}: ");
            }
            match field(name) {
                Some(_) => cells.put(name, cell),
                // An unknown column loses nothing as long as there is nothing in it.
                None if cell == Cell::Null => {}
                None => cells.note(format!("{} is not a known column, and it would be lost", shown(name))),
            }
        }
        source.take(line, cells.into_record(line, read_time).map_err(|reason| place + &reason));
    }
    Ok(source)
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
