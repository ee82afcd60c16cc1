//! A store and a plain database with the same events, for everything that reads.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use synclog::{Options, Store, SyncEvent};

use crate::contestant::Result;
use crate::contestants::synclog_store::LONG;
use crate::events;
use crate::table::{Row, Table};

/// How many events go in at a time.
pub const CHUNK: u64 = 10_000;

/// Both of them.
pub struct Fixture {
    pub events: u64,
    /// The directory of the store; it is closed.
    pub store: PathBuf,
    /// The database; it is closed.
    pub plain: PathBuf,
}

impl Fixture {
    /// Makes both.
    pub fn make(dir: &Path, table: &Table, events: u64) -> Result<Self> {
        eprintln!("  making a store and a database of {events} events");
        let fixture = Self { events, store: dir.join("store"), plain: dir.join("plain.db") };
        fill_store(&fixture.store, events)?;
        load_plain(&fixture.plain, table, events)?;
        Ok(fixture)
    }
}

/// Makes a store, and takes the time until all rows are there. Closing it is not in that time.
pub fn fill_store(dir: &Path, events: u64) -> Result<Duration> {
    let store = Store::<SyncEvent>::open(dir, Options::default().projection_wait(Duration::ZERO))?;
    let start = Instant::now();
    let mut first = 0;
    while first < events {
        let last = events.min(first + CHUNK);
        store.append_all((first..last).map(events::event))?;
        first = last;
    }
    if !store.wait_projected(LONG) {
        return Err("the rows did not follow".into());
    }
    let taken = start.elapsed();
    store.close()?;
    Ok(taken)
}

/// Makes a plain database in the fastest way that SQLite has: no journal, no syncs, one transaction, indexes
/// after the rows, and the rows are ready before the clock goes on.
pub fn load_plain(path: &Path, table: &Table, events: u64) -> Result<Duration> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let mut start = Instant::now();
    let mut taken = Duration::ZERO;
    let db = Connection::open(path)?;
    db.execute_batch(
        "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA locking_mode=EXCLUSIVE; BEGIN",
    )?;
    table.create(&db)?;
    let mut insert = db.prepare(&table.insert)?;
    let mut first = 0;
    while first < events {
        let last = events.min(first + CHUNK);
        taken += start.elapsed();
        let rows: Vec<Row> = (first..last).map(Row::new).collect();
        start = Instant::now();
        for (id, row) in (first.cast_signed() + 1..).zip(&rows) {
            row.bind(&mut insert, id)?;
            insert.raw_execute()?;
        }
        first = last;
    }
    drop(insert);
    table.create_indexes(&db)?;
    db.execute_batch("COMMIT")?;
    db.close().map_err(|(_, error)| error)?;
    Ok(taken + start.elapsed())
}
