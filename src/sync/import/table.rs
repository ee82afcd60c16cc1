//! Databases of the system before this one: a table or view `sync_logs`, read and never written.
//!
//! A small file can ask SQLite for any amount of work, and hold any number of rows. So both are limited by the
//! file's size.

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};

use crate::error::{Error, Result};

use super::cells::Cell;
use super::fields::{Cells, Field, field};
use super::{MAX_LINE, Reading, Source};

/// Steps of SQLite's machine that reading may take in any case, and for each byte of the file. A row takes
/// about a hundred.
const STEPS: (u64, u64) = (10_000_000, 100);
/// How often they are counted.
const STEPS_BETWEEN: i32 = 10_000;

/// SQLite counts its wait in milliseconds of 31 bits.
const LONGEST_WAIT: Duration = Duration::from_hours(24);

/// Bytes of values that are read in any case, and for each byte of the file.
const VALUES: (u64, u64) = (32 << 20, 16);

/// Bytes of the values of one row, where columns are computed: those of a view, and those that are expressions.
const COMPUTED: usize = 2 * MAX_LINE;

/// Reads every row in the order of its id. The number of a row in that order is its line.
pub(super) fn read(path: &Path, reading: &Reading<'_>) -> Result<Source> {
    let mut db = open(path, reading.wait)?;
    let mut wal = path.as_os_str().to_owned();
    wal.push("-wal");
    let len = |path: &Path| crate::disk::file_len(path).map_err(|error| Error::io("look up", path, error));
    let size = len(path)?.saturating_add(len(Path::new(&wal))?);
    let allowed = |(always, each): (u64, u64)| size.saturating_mul(each).saturating_add(always);
    let mut left = allowed(STEPS) / STEPS_BETWEEN as u64;
    db.progress_handler(
        STEPS_BETWEEN,
        Some(move || {
            left = left.saturating_sub(1);
            left == 0
        }),
    )
    .map_err(|error| failed(path, &error))?;
    read_table(&db, path, reading, allowed(VALUES))
}

fn too_much() -> Error {
    Error::invalid("the source", "takes more work to read than its size explains: a view without an end?")
}

fn failed(path: &Path, error: &rusqlite::Error) -> Error {
    let busy = matches!(
        error.sqlite_error_code(),
        Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked)
    );
    if busy {
        return Error::Projection { path: path.into(), reason: error.to_string(), busy };
    }
    let bounds = [Some(rusqlite::ErrorCode::OperationInterrupted), Some(rusqlite::ErrorCode::OutOfMemory)];
    if bounds.contains(&error.sqlite_error_code()) {
        return too_much();
    }
    // Not the store's own database: no replay mends it.
    Error::io("read", path, std::io::Error::other(error.to_string()))
}

/// Opens the database for reading. One in WAL mode needs a place for its `-shm` file; where there
/// is none, and no `-wal` with anything in it either, the file is read as it lies there.
fn open(path: &Path, wait: Duration) -> Result<Connection> {
    // One that is a pipe would wait for its other end (P12).
    for suffix in ["-wal", "-journal", "-shm"] {
        let mut beside = path.as_os_str().to_owned();
        beside.push(suffix);
        let beside = Path::new(&beside);
        crate::disk::check_regular(beside).map_err(|error| Error::io("read", beside, error))?;
    }
    let attempt = |name: &std::ffi::OsStr, flags: OpenFlags| -> rusqlite::Result<Connection> {
        let db = Connection::open_with_flags(Path::new(name), flags | OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        db.busy_timeout(wait.min(LONGEST_WAIT))?;
        // What a stranger's database may ask of us: no long values, no functions in its schema.
        db.set_limit(Limit::SQLITE_LIMIT_LENGTH, MAX_LINE as i32)?;
        db.set_limit(Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 256)?;
        db.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
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
    // One that cannot be looked up may hold something.
    let wal_is_empty = crate::disk::file_len(Path::new(&wal)).is_ok_and(|len| len == 0);
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

fn read_table(db: &Connection, path: &Path, reading: &Reading<'_>, mut room: u64) -> Result<Source> {
    let failed = |error: rusqlite::Error| failed(path, &error);
    // One transaction, so that all of this looks at one state. It ends with the connection.
    db.execute_batch("BEGIN").map_err(failed)?;
    let count = |sql: &str| db.query_row(sql, [], |row| row.get::<_, i64>(0)).map_err(failed);
    // A virtual table could be anything.
    let tables = count(
        "SELECT count(*) FROM sqlite_master WHERE type IN ('table', 'view') AND lower(name) = 'sync_logs'
         AND (upper(ltrim(sql)) LIKE 'CREATE TABLE%' OR type = 'view')",
    )?;
    if tables == 0 {
        return Err(Error::invalid("the source", "has no table sync_logs, and no view of that name"));
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
    // All of a row that is computed is in memory at once.
    let computed = match count(
        "SELECT count(*) FROM sqlite_master WHERE lower(name) = 'sync_logs' AND type = 'view'",
    )? {
        0 => count("SELECT count(*) FROM pragma_table_xinfo('sync_logs') WHERE hidden <> 0")? as usize,
        _ => columns.len(),
    };
    let most = (COMPUTED / (computed + 1)).min(MAX_LINE);
    db.set_limit(Limit::SQLITE_LIMIT_LENGTH, most as i32).map_err(failed)?;
    let id = columns.iter().position(|name| field(name) == Some(Field::LegacyRowId));
    // The order by position: a name of the source never becomes part of the query.
    let order = id.map_or(String::new(), |at| format!(" ORDER BY {}", at + 1));
    let mut statement = db.prepare(&format!("SELECT * FROM sync_logs{order}")).map_err(failed)?;
    let mut rows = statement.query([]).map_err(failed)?;
    let mut source = Source::default();
    let mut line = 0;
    while let Some(row) = rows.next().map_err(failed)? {
        line += 1;
        let mut cells = Cells::of_row();
        let mut place = String::new();
        for (at, name) in columns.iter().enumerate() {
            let value = row.get_ref(at).map_err(failed)?;
            if let ValueRef::Text(bytes) | ValueRef::Blob(bytes) = value {
                room = room.checked_sub(bytes.len() as u64).ok_or_else(too_much)?;
            }
            let cell = match value {
                ValueRef::Null => Cell::Null,
                ValueRef::Integer(number) => Cell::Integer(number),
                ValueRef::Real(number) => Cell::Real(number),
                ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
                    Ok(text) => Cell::Text(text.into()),
                    Err(_) if field(name).is_none() => Cell::Text(hex(bytes)),
                    // Rejected, with this as the reason.
                    Err(_) => Cell::Other("not UTF-8"),
                },
                ValueRef::Blob(bytes) if field(name).is_none() => Cell::Text(hex(bytes)),
                ValueRef::Blob(_) => Cell::Other("a blob"),
            };
            if let (true, Cell::Integer(number)) = (id == Some(at), &cell) {
                place = format!("row with {name} {number}: ");
            }
            cells.put(name, cell);
        }
        source.take((line, 0), cells, reading, &place);
    }
    Ok(source)
}

/// Bytes as SQLite writes them.
fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(2 * bytes.len() + 3);
    text.push_str("x'");
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text.push('\'');
    text
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
