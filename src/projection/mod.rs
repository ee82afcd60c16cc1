//! The projection: the SQLite side. It knows rows and tables, and nothing of the log or of events.
//!
//! Two connections: one writes, the other reads back what was committed (P6). WAL with
//! `synchronous=NORMAL`: a commit needs no sync of its own, because replay restores what a power
//! cut takes. Whatever is wrong with the file is told as a [`Trouble`], and whoever knows the log
//! decides what to do.

mod apply;
mod budget;
mod checkpoint;
pub(crate) mod compare;
mod evidence;
pub(crate) mod foreign;
pub(crate) mod query;
pub(crate) mod rebuild;
pub(crate) mod row;
pub(crate) mod schema;
pub(crate) mod unread;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub(crate) use rusqlite::Connection;
use rusqlite::config::DbConfig;
use rusqlite::{ErrorCode, OpenFlags, OptionalExtension, ToSql, TransactionBehavior, params};

use crate::disk::{self, FileIdentity, access};
use crate::error::Error;
use crate::event::Value;
use crate::room::Room;
use crate::store_id::StoreId;

pub(crate) use apply::{Changes, LOST, Step, UNKNOWN, UNREADABLE, apply_in, json};
pub(crate) use budget::Db;
pub use budget::limit_sqlite_memory;
use checkpoint::Checkpoints;
pub(crate) use evidence::{OwnRows, evidence, kept, kept_behind, names_store, store_of, vouches_for};
use row::Row;
use schema::{PROJECTION_VERSION, Schema};

/// SQLite from 3.7.0 to 3.51.2 could damage a WAL that was reset by two connections at once.
const LEAST_SQLITE: i32 = 3_051_003;

/// The event type of the rows, and the newest version of it that whoever made them knew. Only hints: older
/// databases lack them.
const EVENT_KIND: &str = "event_kind";
const EVENT_VERSION: &str = "event_version";

/// What keeps the projection from being used.
#[derive(Clone, Debug)]
pub(crate) enum Trouble {
    /// Another process holds it. Waiting helps.
    Busy(String),
    /// Damaged, not ours, or not as it should be: a rebuild helps.
    Unusable(String),
    /// The file belongs to another store: a rebuild helps, after its rows were set aside.
    Foreign(String),
    /// Its tables were made for another version of the events or of synclog, as before an upgrade. Nothing is
    /// wrong with it: a rebuild makes them anew.
    Outdated(String),
    /// Somebody changed its tables or indexes: a rebuild helps.
    Altered(String),
    /// It is still being made: a rebuild goes on with that.
    Unfinished(String),
    /// The system refused; neither helps.
    Failed(String),
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        let text = error.to_string();
        match error.sqlite_error_code() {
            // The last three mean that somebody else was changing it just then.
            Some(
                ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::SchemaChanged
                | ErrorCode::AuthorizationForStatementDenied
                | ErrorCode::FileLockingProtocolFailed,
            ) => Self::Busy(text),
            Some(
                ErrorCode::ReadOnly
                | ErrorCode::PermissionDenied
                | ErrorCode::CannotOpen
                | ErrorCode::DiskFull
                | ErrorCode::SystemIoFailure
                | ErrorCode::OutOfMemory
                | ErrorCode::NoLargeFileSupport,
            ) => Self::Failed(text),
            // Whoever has said that it is to stop looks at that first.
            Some(ErrorCode::OperationInterrupted) => Self::Unusable(budget::TOO_MUCH.into()),
            // Of an index of somebody else's.
            Some(ErrorCode::ConstraintViolation) => Self::Altered(text),
            _ => Self::Unusable(text),
        }
    }
}

impl Trouble {
    fn io(error: &std::io::Error) -> Self {
        Self::Failed(error.to_string())
    }

    /// In words.
    pub(crate) fn reason(&self) -> &str {
        match self {
            Self::Busy(text)
            | Self::Unusable(text)
            | Self::Foreign(text)
            | Self::Outdated(text)
            | Self::Altered(text)
            | Self::Unfinished(text)
            | Self::Failed(text) => text,
        }
    }

    /// Whether a database built anew from the log is what helps.
    pub(crate) fn wants_rebuild(&self) -> bool {
        !matches!(self, Self::Busy(_) | Self::Failed(_))
    }

    /// The error for a caller.
    pub(crate) fn into_error(self, path: &Path) -> Error {
        let busy = matches!(self, Self::Busy(_));
        Error::Projection { path: path.into(), reason: self.reason().to_owned(), busy }
    }
}

/// The newest event that the rows reflect: its seq and its frame's header checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Applied {
    pub(crate) seq: u64,
    pub(crate) sum: u32,
}

/// The database, open for writing.
pub(crate) struct Projection {
    path: PathBuf,
    schema: Schema,
    /// Closed before both connections, like the next one before the last.
    checkpoints: Checkpoints,
    /// Reads back. Closed before the other one: the last connection to close empties and removes the
    /// write-ahead log, and one that only reads cannot.
    read: Db,
    write: Db,
    identity: Option<FileIdentity>,
    applied: Applied,
}

/// The path of the database of a store.
pub(crate) fn database_path(store_dir: &Path) -> PathBuf {
    store_dir.join("synclog.db")
}

/// The path of a file that SQLite keeps beside the database.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The longest path of a database, in bytes: SQLite takes 512, and it and a rebuild put up to twelve behind it.
const LONGEST_PATH: usize = 500;

/// Why SQLite cannot open a database with this path, as the end of a sentence; `None` where it can.
pub(crate) fn refuses_path(path: &Path) -> Option<String> {
    let len = path.as_os_str().len();
    (len > LONGEST_PATH).then(|| {
        format!("is too long for SQLite: {len} bytes, where it takes {LONGEST_PATH}; move the store to a shorter one")
    })
}

fn check_path(path: &Path) -> Result<(), Trouble> {
    refuses_path(path).map_or(Ok(()), |why| Err(Trouble::Failed(format!("its path {why}"))))
}

/// Refuses what stands in the place of the database, or of a file that SQLite keeps beside it, and is no file of the
/// store: SQLite would follow a link, and wait for the other end of a pipe (P12).
fn check_files(path: &Path) -> Result<(), Trouble> {
    ["", "-wal", "-journal", "-shm"].iter().try_for_each(|suffix| {
        let file = beside(path, suffix);
        disk::check_own(&file).map_err(|error| Trouble::Unusable(format!("{}: {error}", file.display())))
    })
}

fn open_connection(path: &Path, flags: OpenFlags, wait: Duration) -> Result<Db, Trouble> {
    check_path(path)?;
    check_files(path)?;
    connect(path, path, flags, wait)
}

/// `name` is what SQLite takes for `path`.
fn connect(name: &Path, path: &Path, flags: OpenFlags, wait: Duration) -> Result<Db, Trouble> {
    if rusqlite::version_number() < LEAST_SQLITE {
        let text = format!("SQLite {} has a known WAL bug; 3.51.3 or later is needed", rusqlite::version());
        return Err(Trouble::Failed(text));
    }
    let db = Connection::open_with_flags(name, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    db.busy_timeout(wait)?;
    db.set_prepared_statement_cache_capacity(32);
    db.execute_batch("PRAGMA cell_size_check=ON")?;
    Db::new(db, path)
}

/// Opens a database for reading only. Nothing of the store changes, SQLite's own `-shm` excepted.
pub(crate) fn open_for_reading(path: &Path, wait: Duration) -> Result<Db, Trouble> {
    // Beside an empty file SQLite deletes the write-ahead log, even where it only reads (P11). A file that
    // cannot be looked up is met again by SQLite.
    if disk::identity(path).is_ok_and(|found| found.is_some())
        && disk::file_len(path).is_ok_and(|len| len == 0)
    {
        return Err(Trouble::Unusable("the file is empty".into()));
    }
    open_connection(path, OpenFlags::SQLITE_OPEN_READ_ONLY, wait).and_then(with_plain_meta)
}

/// Whatever a database is like otherwise, it is asked whose it is; so that table must be one.
fn with_plain_meta(db: Db) -> Result<Db, Trouble> {
    if !Schema::is_there(&db, "synclog_meta")? || Schema::is_plain(&db, "synclog_meta")? {
        return Ok(db);
    }
    Err(Trouble::Unusable("what is named synclog_meta is no plain table".into()))
}

/// Opens a database that is there, for whoever may write to it.
pub(crate) fn open_existing(path: &Path, wait: Duration) -> Result<Db, Trouble> {
    open_connection(path, OpenFlags::SQLITE_OPEN_READ_WRITE, wait)
}

fn percent(byte: u8) -> String {
    format!("%{byte:02X}")
}

/// Opens a database that nobody writes to and that has no write-ahead log, on a read-only file
/// system for example. SQLite then makes no file beside it and takes no lock.
pub(crate) fn open_immutable(path: &Path) -> Result<Db, Trouble> {
    check_path(path)?;
    check_files(path)?;
    let mut uri = String::from("file:");
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' => {
                uri.push(char::from(*byte));
            }
            other => uri.push_str(&percent(*other)),
        }
    }
    uri.push_str("?immutable=1");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    connect(Path::new(&uri), path, flags, Duration::ZERO).and_then(with_plain_meta)
}

/// Whether the database has a write-ahead log, as every projection should.
pub(crate) fn uses_wal(db: &Connection) -> bool {
    db.query_row("PRAGMA journal_mode", [], |row| row.get::<_, String>(0)).is_ok_and(|mode| mode == "wal")
}

/// Makes an empty database where there is none. One that is to be replaced has left its owner and mode
/// ([`leave_access`]).
fn make_file(path: &Path) -> std::io::Result<()> {
    access::make_database(path, access::of_first(&[&beside(path, ".new")])?)
}

/// Keeps owner and mode of a database that is about to be moved aside, for the one that will take its place: in
/// the file that is made beside it.
pub(crate) fn leave_access(path: &Path) -> std::io::Result<()> {
    let Some(found) = access::of_first(&[path])? else { return Ok(()) };
    access::make_database(&beside(path, ".new"), Some(found))
}

fn open_for_writing(path: &Path, wait: Duration) -> Result<Db, Trouble> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    let db = open_connection(path, flags, wait)?;
    let mode: String = db.query_row("PRAGMA journal_mode=WAL", [], |row| row.get(0))?;
    if mode != "wal" && mode != "memory" {
        return Err(Trouble::Failed(format!("SQLite cannot use a write-ahead log here (it chose {mode})")));
    }
    // Checkpoints are ours: see `checkpoint`.
    db.execute_batch("PRAGMA synchronous=NORMAL; PRAGMA wal_autocheckpoint=0")?;
    // Whoever reads for long makes the write-ahead log grow; afterwards its file is cut back.
    db.pragma_update(None, "journal_size_limit", checkpoint::KEPT as i64)?;
    Ok(db)
}

fn meta_value(db: &Connection, name: &str) -> rusqlite::Result<Option<Value>> {
    db.prepare_cached("SELECT value FROM synclog_meta WHERE name = ?1")?
        .query_row([name], |row| Ok(Value::from_ref(row.get_ref(0)?)))
        .optional()
}

/// The applied seq and its checksum, after checking that the database is this store's and has the
/// tables that it should have.
pub(crate) fn check(
    db: &Connection,
    schema: &Schema,
    store: Option<StoreId>,
) -> Result<(StoreId, Applied), Trouble> {
    let unusable = |what: &str| Trouble::Unusable(what.to_owned());
    if !Schema::is_plain(db, "synclog_meta")? {
        return Err(unusable("it has no table synclog_meta, so it is no projection of a store"));
    }
    let Some(Value::Text(found)) = meta_value(db, "store_id")? else {
        return Err(unusable("it names no store"));
    };
    let found: StoreId = found.parse().map_err(|_| unusable("it names no store"))?;
    if let Some(store) = store.filter(|store| *store != found) {
        return Err(Trouble::Foreign(format!("it belongs to the store {found}, the log to {store}")));
    }
    let made_for = |name: &str, wanted: i64, what: &str| match meta_value(db, name)? {
        Some(Value::Integer(found)) if found == wanted => Ok(()),
        Some(Value::Integer(_)) => Err(Trouble::Outdated(format!("its tables were made for {what}"))),
        _ => Err(unusable("it does not tell what its tables were made for")),
    };
    made_for("projection_version", PROJECTION_VERSION, "another version of synclog")?;
    made_for("schema_digest", schema.digest(), "another version of the events")?;
    if let Some(difference) = schema.difference(db)? {
        return Err(Trouble::Altered(difference));
    }
    match (meta_value(db, "applied_seq")?, meta_value(db, "applied_sum")?) {
        (Some(Value::Integer(seq)), Some(Value::Integer(sum))) if seq >= 0 => {
            let sum = u32::try_from(sum).map_err(|_| unusable("its applied checksum is out of range"))?;
            Ok((found, Applied { seq: seq as u64, sum }))
        }
        _ => Err(unusable("it does not tell which events it has applied")),
    }
}

fn write_meta(db: &Connection, name: &str, value: i64) -> rusqlite::Result<()> {
    set_meta(db, name, &value)
}

fn set_meta(db: &Connection, name: &str, value: &dyn ToSql) -> rusqlite::Result<()> {
    // Never OR REPLACE: where somebody has made an index, that takes other rows away.
    let mut set = db.prepare_cached(
        "INSERT INTO synclog_meta (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
    )?;
    set.execute(params![name, value]).map(drop)
}

fn write_applied(db: &Connection, schema: &Schema, applied: Applied) -> rusqlite::Result<()> {
    let [seq, sum] = schema.progress;
    write_meta(db, seq, applied.seq as i64)?;
    write_meta(db, sum, i64::from(applied.sum))
}

/// Makes tables and identity in an empty database.
fn initialize(db: &Connection, schema: &Schema, store: StoreId) -> rusqlite::Result<()> {
    schema.create_tables(db)?;
    let mut set = db.prepare_cached("INSERT INTO synclog_meta (name, value) VALUES (?1, ?2)")?;
    set.execute(params!["store_id", store.to_string()])?;
    set.execute(params!["projection_version", PROJECTION_VERSION])?;
    set.execute(params!["schema_digest", schema.digest()])?;
    let (kind, version) = schema.event;
    write_meta(db, EVENT_KIND, i64::from(kind))?;
    write_meta(db, EVENT_VERSION, i64::from(version))?;
    write_applied(db, schema, Applied::default())
}

/// Makes tables, indexes and identity in a new database.
fn make_empty(write: &mut Db, schema: &Schema, store: StoreId) -> Result<(), Trouble> {
    let tx = write.transaction_with_behavior(TransactionBehavior::Immediate)?;
    initialize(&tx, schema, store)?;
    schema.create_indexes(&tx)?;
    tx.commit()?;
    // Tables and identity go into the file itself: without its write-ahead log it is then an
    // older copy of ours, and not somebody else's empty file.
    write.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    Ok(())
}

/// Opens a database for writing where there is none. What an earlier one has left beside it goes.
fn open_new(path: &Path, wait: Duration) -> Result<Db, Trouble> {
    for suffix in ["-wal", "-journal", "-shm"] {
        // An old write-ahead log beside a new database would show old rows.
        let old = beside(path, suffix);
        disk::remove_if_there(&old)
            .map_err(|error| Trouble::Failed(format!("cannot remove {}: {error}", old.display())))?;
    }
    make_file(path).map_err(|error| Trouble::io(&error))?;
    open_for_writing(path, wait)
}

impl Projection {
    /// Opens the database of a store, making it where `create` is set and there is none. `read` only reads,
    /// and found the file with this identity to be the store's database just now.
    pub(crate) fn open(
        path: &Path,
        schema: Schema,
        store: StoreId,
        wait: Duration,
        create: bool,
        read: Option<(Db, FileIdentity)>,
    ) -> Result<Self, Trouble> {
        let before = disk::identity(path).map_err(|error| Trouble::io(&error))?;
        let exists = before.is_some();
        let looked_at = read.as_ref().map(|(_, identity)| *identity);
        let mut read = read.map(|(db, _)| db);
        if !exists && !create {
            return Err(Trouble::Unusable("the database is not there".into()));
        }
        let mut write = if exists {
            if read.is_none() {
                // Reading first: a file that is no database must not be turned into one.
                let probe = open_for_reading(path, wait)
                    .and_then(|probe| check(&probe, &schema, Some(store)).map(|_| probe));
                read = match probe {
                    Ok(probe) => Some(probe),
                    // SQLite may want to write before it can read, to clear a stray journal for example.
                    Err(Trouble::Failed(_)) => None,
                    Err(trouble) => return Err(trouble),
                };
            }
            open_for_writing(path, wait)?
        } else {
            read = None;
            open_new(path, wait)?
        };
        if !exists {
            make_empty(&mut write, &schema, store)?;
        }
        let (_, applied) = check(&write, &schema, Some(store))?;
        let read = match read {
            Some(read) => read,
            None => open_for_reading(path, wait)?,
        };
        read.busy_timeout(wait)?;
        let identity = disk::identity(path).map_err(|error| Trouble::io(&error))?;
        if [before, looked_at].into_iter().flatten().any(|seen| identity != Some(seen)) {
            // One connection may be of the old file and one of the new.
            return Err(Trouble::Busy("the database was replaced while it was opened".into()));
        }
        let checkpoints = Checkpoints::default();
        Ok(Self { path: path.into(), schema, checkpoints, read, write, identity, applied })
    }

    /// A private projection in memory or in SQLite's own temporary files: for readers of a store
    /// whose database cannot be opened.
    pub(crate) fn temporary(schema: &Schema, store: StoreId) -> Result<Db, Trouble> {
        let db = Connection::open("")?;
        initialize(&db, schema, store)?;
        schema.create_indexes(&db)?;
        Ok(Db::private(db))
    }

    /// Statements that take long are given up where `stop` says so.
    pub(crate) fn stop_where(&self, stop: impl Fn() -> bool + Clone + Send + Sync + 'static) {
        self.read.stop_where(stop.clone());
        self.write.stop_where(stop);
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn schema(&self) -> &Schema {
        &self.schema
    }

    /// The newest event that the rows reflect.
    pub(crate) fn applied(&self) -> Applied {
        self.applied
    }

    /// The connection that reads back.
    pub(crate) fn reader(&self) -> &Connection {
        &self.read
    }

    /// Whether the path still leads to the file that is open.
    pub(crate) fn is_in_place(&self) -> bool {
        disk::identity(&self.path).is_ok_and(|found| found.is_some() && found == self.identity)
    }

    /// Leaves the write-ahead log alone while there is no room on the disk.
    pub(crate) fn mind(&mut self, room: &Arc<Room>) {
        self.checkpoints.mind(room);
    }

    /// Closes the database as it is: closing it otherwise moves the write-ahead log, which takes room.
    pub(crate) fn leave(self) {
        for db in [&self.read, &self.write] {
            // Nothing can be done about an error, and there is none to expect.
            drop(db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true));
        }
    }

    /// Sets how long to wait for another process's lock.
    pub(crate) fn set_wait(&self, wait: Duration) -> Result<(), Trouble> {
        self.write.busy_timeout(wait)?;
        Ok(self.read.busy_timeout(wait)?)
    }

    /// Applies one step in one transaction: the same function for an append, for catching up, for
    /// healing and for a rebuild.
    pub(crate) fn apply(&mut self, step: &Step) -> Result<Changes, Trouble> {
        let changes = self.prepare(step)?;
        self.commit(step)?;
        Ok(changes)
    }

    /// Begins a transaction, unless that is done.
    pub(crate) fn begin(&mut self) -> Result<(), Trouble> {
        if self.write.is_autocommit() {
            self.write.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        }
        Ok(())
    }

    /// All of [`Projection::apply`] but the commit.
    pub(crate) fn prepare(&mut self, step: &Step) -> Result<Changes, Trouble> {
        self.begin()?;
        apply_in(&self.write, &self.schema, step, self.applied).inspect_err(|_| self.roll_back())
    }

    /// Lets SQLite write the pages that are changed so far, so that the commit has less to do. Nobody sees
    /// them before it.
    pub(crate) fn flush(&self) {
        let _ = self.write.cache_flush();
    }

    /// Commits what was prepared of this step.
    pub(crate) fn commit(&mut self, step: &Step) -> Result<(), Trouble> {
        let done = self.write.prepare_cached("COMMIT").and_then(|mut commit| commit.execute([]));
        if let Err(error) = done {
            self.roll_back();
            return Err(error.into());
        }
        self.checkpoints.committed(&self.write, (&self.path, self.identity), &step.rows);
        if let Some(applied) = step.applied {
            self.applied = applied;
        }
        Ok(())
    }

    /// Takes back what was begun.
    pub(crate) fn roll_back(&self) {
        if !self.write.is_autocommit() {
            let _ = self.write.execute_batch("ROLLBACK");
        }
    }

    /// Reads rows back through the second connection and names what differs: seq and columns; no
    /// columns where the row is missing. `rows` ascend by seq.
    pub(crate) fn read_back(&self, rows: &[Row]) -> Result<Vec<(u64, Vec<&'static str>)>, Trouble> {
        compare::read_back(&self.read, &self.schema, rows)
    }

    /// Takes away what the table of seqs without rows says of these.
    pub(crate) fn forget_absence(&self, first: u64, last: u64) -> Result<(), Trouble> {
        let mut delete =
            self.write.prepare_cached("DELETE FROM synclog_absent WHERE first <= ?2 AND last >= ?1")?;
        delete.execute(params![first as i64, last as i64])?;
        Ok(())
    }

    /// Whether an older program has passed over events that this one may know.
    pub(crate) fn is_behind(&self) -> Result<bool, Trouble> {
        unread::is_behind(&self.write, &self.schema)
    }

    /// Every event that this program knows has been looked at.
    pub(crate) fn is_abreast(&self) -> Result<(), Trouble> {
        Ok(unread::pass_over(&self.write, &self.schema)?)
    }

    /// Sets the applied seq without touching rows.
    pub(crate) fn force_applied(&mut self, applied: Applied) -> Result<(), Trouble> {
        write_applied(&self.write, &self.schema, applied)?;
        self.applied = applied;
        Ok(())
    }
}

/// The applied seq of the database of `store`; an error where it is another store's.
pub(crate) fn applied_seq_of(db: &Connection, store: StoreId) -> Result<u64, Trouble> {
    if !names_store(db, store) {
        return Err(Trouble::Unusable("the database is not this store's".into()));
    }
    match meta_value(db, "applied_seq")? {
        Some(Value::Integer(seq)) if seq >= 0 => Ok(seq as u64),
        _ => Err(Trouble::Unusable("it does not tell which events it has applied".into())),
    }
}

/// The id of the row that has an idempotency key; the first one where somebody made several.
pub(crate) fn id_with_key(db: &Connection, schema: &Schema, key: &str) -> Result<Option<i64>, Trouble> {
    let select = format!("SELECT id FROM {} WHERE idempotency_key = ?1 ORDER BY id LIMIT 1", schema.table);
    Ok(db.prepare_cached(&select)?.query_row([key], |row| row.get(0)).optional()?)
}

/// The event type that a database of `store` was made for, where it says.
pub(crate) fn event_kind_of(db: &Connection, store: StoreId) -> Option<u16> {
    if !names_store(db, store) {
        return None;
    }
    match meta_value(db, EVENT_KIND) {
        // What is out of range is none.
        Ok(Some(Value::Integer(kind))) => u16::try_from(kind).ok().filter(|kind| *kind != 0),
        _ => None,
    }
}
