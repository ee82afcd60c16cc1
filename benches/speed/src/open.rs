//! S10: a clean open, beside counting the rows.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};
use synclog::{Options, Store, SyncEvent};

use crate::args::Args;
use crate::contestant::Result;
use crate::fixture::Fixture;
use crate::report::{Figure, Goal, Row};
use crate::rounds;

/// What the goal allows on top.
const FIXED_MS: f64 = 10.0;
const FACTOR: f64 = 1.1;

/// Opens and closes a store.
pub fn open_and_close(dir: &Path) -> Result<Duration> {
    let start = Instant::now();
    Store::<SyncEvent>::open(dir, Options::default())?.close()?;
    Ok(start.elapsed())
}

fn count(path: &Path, table: &str) -> Result<(Duration, i64)> {
    let start = Instant::now();
    let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    // Asked for together, SQLite walks through every row; one by one, through the smallest index.
    let sql = format!(
        "SELECT (SELECT count(*) FROM {table}), (SELECT min(id) FROM {table}), (SELECT max(id) FROM {table})"
    );
    let (count, _, _): (i64, i64, i64) =
        db.query_row(&sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    Ok((start.elapsed(), count))
}

/// S10.
pub fn run(args: &Args, fixture: &Fixture) -> Result<Row> {
    let table = <SyncEvent as synclog::Event>::TABLE.name;
    let (mut own, mut other) = (Vec::new(), Vec::new());
    for round in 0..args.rounds {
        for place in rounds::order(round, 2) {
            rounds::rest()?;
            if place == 0 {
                own.push(open_and_close(&fixture.store)?.as_secs_f64() * 1000.0);
            } else {
                let (taken, count) = count(&fixture.plain, table)?;
                other.push(taken.as_secs_f64() * 1000.0);
                if count != fixture.events.cast_signed() {
                    return Err(format!("{count} rows were counted").into());
                }
            }
        }
    }
    let mut row = Row::new("S10", format!("clean open and close, {} events", fixture.events));
    let allowed: Vec<f64> = other.iter().map(|other| FIXED_MS + FACTOR * other).collect();
    row.ratio("synclog / (10 ms + 1.1 × count, min, max)", &own, &allowed, Goal::AtMost(1.0));
    row.figures.push(Figure::new("synclog, open and close", "ms", own));
    row.figures.push(Figure::new("SQLite, count(*), min(id), max(id)", "ms", other));
    Ok(row)
}
