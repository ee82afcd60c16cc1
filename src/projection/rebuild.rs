//! A rebuild: rows are made in tables of their own beside the old ones, in the same file, and then take their
//! place at once.
//!
//! Whoever has the database open sees the old rows or the new ones, and goes on. Rows are committed in steps and
//! read back through the second connection (P6). How far they are stands beside them, so that a rebuild that was
//! interrupted goes on from there (P5). Then come the indexes, one by one. The last transaction only gives new
//! names, by writing SQLite's table of tables: `ALTER TABLE` changes the text that makes a table, and there is
//! none to rename an index. What was replaced is dropped behind it.
//!
//! Where the file cannot be used the same happens in a new one, which then takes its place.

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use crate::disk;
use crate::erasures::{covers, merged};
use crate::event::Value;
use crate::store_id::StoreId;

use super::apply::{INSERT_SET_ASIDE, OF_ANOTHER, as_json, record_set_aside};
use super::checkpoint::Checkpoints;
use super::compare::{self, Tally};
use super::foreign::{self, Foreign, put_aside_in, quoted};
use super::row::Row;
use super::schema::{PROJECTION_VERSION, REPLACED, SHADOW, Schema};
use super::{
    Applied, Changes, EVENT_KIND, Projection, Step, Trouble, beside, make_empty, meta_value, names_store,
    open_for_reading, open_for_writing, open_new, unread, write_applied, write_meta,
};

/// Steps in one transaction: pages are then written once for all of them.
const STEPS: usize = 8;
/// Ids of old rows that are looked up at a time.
const IDS: usize = 4096;
/// Stretches of lawfully absent rows that are looked at one by one.
const ABSENT: usize = 4096;

/// A rebuild under way.
pub(crate) struct Rebuild {
    /// Whose schema is that of the tables in the making.
    projection: Projection,
    /// What they become.
    schema: Schema,
    /// Rows of the transaction that is open.
    pending: Step,
    steps: usize,
    /// A row has an idempotency key.
    keyed: bool,
    /// What others had on tables of ours, and where it is now. In words.
    kept: Vec<String>,
}

/// The rows that a rebuild replaces.
#[derive(Clone, Copy, Default)]
pub(crate) struct OldRows<'a> {
    /// The database that they are in, where the new one is made beside it.
    pub(crate) beside: Option<&'a Connection>,
    /// They may be of another history: then those of other events than the new ones have under their seqs are kept.
    pub(crate) another: bool,
}

/// What a rebuild carried over.
#[derive(Debug, Default)]
pub(crate) struct Swapped {
    /// Rows that no event explains.
    pub(crate) set_aside: u64,
    /// What others had on tables of ours, in words.
    pub(crate) kept: Vec<String>,
}

impl Rebuild {
    /// Starts in the database of `store` at `path`, or in a new one where there is none; goes on with what an
    /// interrupted rebuild left there. [`Rebuild::applied`] says how far that is.
    pub(crate) fn start(
        path: &Path,
        schema: &Schema,
        store: StoreId,
        wait: Duration,
        stop: impl Fn() -> bool + Clone + Send + Sync + 'static,
    ) -> Result<Self, Trouble> {
        // An empty file only says whose the new one will be.
        let there = disk::identity(path).map_err(|error| Trouble::io(&error))?.is_some();
        let exists = there && disk::file_len(path).map_err(|error| Trouble::io(&error))? > 0;
        if exists {
            // Reading first: a file that is no database must not be turned into one.
            let probe = open_for_reading(path, wait)?;
            if !names_store(&probe, store) {
                return Err(Trouble::Foreign("it is not this store's".into()));
            }
        }
        let mut write = if exists { open_for_writing(path, wait)? } else { open_new(path, wait)? };
        if !exists {
            make_empty(&mut write, schema, store)?;
        }
        // The text of what others made on a table must stay as it is while tables change their names.
        write.execute_batch("PRAGMA legacy_alter_table=ON")?;
        // And names are given by writing the table of tables.
        write.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, false)?;
        let shadow = schema.shadow();
        let tx = write.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let kept = renew_engine_tables(&tx, schema, store)?;
        let applied = match progress(&tx, schema, &shadow)? {
            Some(applied) => applied,
            None => begin(&tx, schema, &shadow)?,
        };
        tx.commit()?;
        let read = open_for_reading(path, wait)?;
        let identity = disk::identity(path).map_err(|error| Trouble::io(&error))?;
        let checkpoints = Checkpoints::default();
        let projection =
            Projection { path: path.into(), schema: shadow, checkpoints, read, write, identity, applied };
        projection.stop_where(stop);
        let pending = Step::default();
        Ok(Self { projection, schema: schema.clone(), pending, steps: 0, keyed: false, kept })
    }

    /// The newest event that the rows in the making reflect.
    pub(crate) fn applied(&self) -> Applied {
        self.projection.applied
    }

    /// Throws away what an interrupted rebuild left.
    pub(crate) fn restart(&mut self) -> Result<(), Trouble> {
        let tx = self.projection.write.transaction_with_behavior(TransactionBehavior::Immediate)?;
        self.projection.applied = begin(&tx, &self.schema, &self.projection.schema)?;
        Ok(tx.commit()?)
    }

    /// Adds one step, and gives back rows that are committed and were read back.
    pub(crate) fn apply(&mut self, step: Step) -> Result<(Changes, Vec<Row>), Trouble> {
        if !self.keyed && step.rows.iter().any(|row| row.key.is_some()) {
            // Where no event has a key, which is common, having it from the start spares a walk through all rows.
            self.projection.begin()?;
            self.projection.schema.drop_key_index(&self.projection.write)?;
            self.keyed = true;
        }
        let changes = self.projection.prepare(&step)?;
        if !step.deleted.is_empty() {
            let gone = merged(step.deleted.clone());
            self.pending.rows.retain(|row| !covers(&gone, row.seq));
        }
        self.pending.rows.extend(step.rows);
        self.pending.applied = step.applied.or(self.pending.applied);
        self.steps += 1;
        let done = if self.steps < STEPS { Vec::new() } else { self.commit()? };
        Ok((changes, done))
    }

    /// Commits what is pending, and reads it back (P6).
    fn commit(&mut self) -> Result<Vec<Row>, Trouble> {
        self.steps = 0;
        let step = std::mem::take(&mut self.pending);
        if self.projection.write.is_autocommit() {
            return Ok(step.rows);
        }
        self.projection.commit(&step)?;
        match self.projection.read_back(&step.rows)?.first() {
            None => Ok(step.rows),
            Some((seq, _)) => {
                let what = format!("the new row of event {seq} reads back otherwise than it was written");
                Err(Trouble::Unusable(what))
            }
        }
    }

    /// Makes the indexes that are still missing, and then puts everything in the old rows' place. Carries over
    /// what no event explains: from another database, or from the tables that are replaced.
    pub(crate) fn finish(mut self, old: OldRows<'_>) -> Result<Swapped, Trouble> {
        self.commit()?;
        for at in 0..self.projection.schema.indexes() {
            self.projection.schema.create_index(&self.projection.write, at)?;
            let Projection { checkpoints, write, path, identity, .. } = &mut self.projection;
            checkpoints.committed_much(write, (path, *identity));
        }
        let mut kept = std::mem::take(&mut self.kept);
        let tx = self.projection.write.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let (schema, shadow) = (&self.schema, &self.projection.schema);
        let stopped = || self.projection.read.is_stopped();
        let unexplained = Unexplained { new: &tx, schema, shadow, another: old.another, stopped: &stopped };
        let mut set_aside = 0;
        if let Some(old) = old.beside {
            unexplained.keep_set_aside(old)?;
            // What it does not give stays in its file, which is kept.
            set_aside += unexplained.keep_from(old, true)?;
        }
        set_aside += unexplained.keep_from(&tx, false)?;
        kept.extend(replace(&tx, schema, shadow, self.projection.applied)?);
        tx.commit()?;
        // Nobody waits for this, and whoever opens the database next does it otherwise.
        let _ = drop_leftovers(&self.projection.write);
        Ok(Swapped { set_aside, kept })
    }
}

/// Closes a new database that is finished, so that its file alone is all of it.
pub(crate) fn settle(path: &Path, wait: Duration) -> Result<(), Trouble> {
    let db = open_for_writing(path, wait)?;
    let (busy, left): (i64, i64) =
        db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    if busy != 0 || left > 0 {
        return Err(Trouble::Busy("somebody reads the new database before it is in place".into()));
    }
    db.close()?;
    let io = |error: std::io::Error| Trouble::io(&error);
    disk::remove_if_there(&beside(path, "-wal")).map_err(io)?;
    disk::remove_if_there(&beside(path, "-shm")).map_err(io)
}

/// Whether somebody else is writing to the old database. One that cannot be opened or is damaged is nobody's.
pub(crate) fn is_held(path: &Path, wait: Duration) -> Option<Trouble> {
    let old = super::open_existing(path, wait).ok()?;
    let said = old.execute_batch("BEGIN IMMEDIATE; ROLLBACK").map_err(Trouble::from).err()?;
    matches!(said, Trouble::Busy(_)).then_some(said)
}

/// How far an interrupted rebuild is, where its tables are such that it can go on.
fn progress(db: &Connection, schema: &Schema, shadow: &Schema) -> Result<Option<Applied>, Trouble> {
    let made = meta_value(db, "rebuilt_digest")? == Some(Value::Integer(schema.digest()));
    // What others have made on them would be run.
    if !made || !shadow.has_tables(db)? || !shadow.has_no_other_index(db)? {
        return Ok(None);
    }
    let [seq, sum] = shadow.progress;
    Ok(match (meta_value(db, seq)?, meta_value(db, sum)?) {
        (Some(Value::Integer(seq)), Some(Value::Integer(sum))) if seq >= 0 => {
            // What is no checksum is no progress.
            u32::try_from(sum).ok().map(|sum| Applied { seq: seq as u64, sum })
        }
        _ => None,
    })
}

/// Makes the tables that are to be filled.
fn begin(db: &Connection, schema: &Schema, shadow: &Schema) -> Result<Applied, Trouble> {
    drop_leftovers(db)?;
    shadow.create_tables(db)?;
    shadow.create_index(db, 0)?;
    write_meta(db, "rebuilt_digest", schema.digest())?;
    write_applied(db, shadow, Applied::default())?;
    Ok(Applied::default())
}

/// The tables that a rebuild has made or replaced, where they are still there.
fn leftovers(db: &Connection) -> Result<Vec<String>, Trouble> {
    let tables = db
        .prepare_cached(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND (name GLOB ?1 OR name GLOB ?2)",
        )?
        .query_map([format!("{SHADOW}*"), format!("{REPLACED}*")], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    Ok(tables)
}

/// Drops what a rebuild has made and what it has replaced, where that is still there.
pub(super) fn drop_leftovers(db: &Connection) -> Result<(), Trouble> {
    for table in leftovers(db)? {
        db.execute_batch(&format!("DROP TABLE IF EXISTS {}", quoted(&table)))?;
    }
    db.execute("DELETE FROM synclog_meta WHERE name GLOB 'rebuilt_*'", [])?;
    Ok(())
}

/// The engine's tables that a rebuild goes on with must be as they should be.
fn renew_engine_tables(
    db: &Transaction<'_>,
    schema: &Schema,
    store: StoreId,
) -> Result<Vec<String>, Trouble> {
    let found = foreign::on_ours(db, schema)?;
    for trigger in found.iter().filter(|foreign| foreign.meddles) {
        trigger.drop_it(db)?;
    }
    let mut kept = Vec::new();
    if !schema.is_as_made(db, "synclog_set_aside")? {
        if Schema::is_there(db, "synclog_set_aside")? {
            let name = foreign::free_name(db)?;
            db.execute_batch(&format!("ALTER TABLE synclog_set_aside RENAME TO {name}"))?;
            kept.push(format!("the table synclog_set_aside was altered; as it was it is kept as {name}"));
        }
        schema.create_table(db, "synclog_set_aside")?;
    }
    if !schema.is_as_made(db, "synclog_meta")? {
        db.execute_batch("DROP TABLE synclog_meta")?;
        schema.create_table(db, "synclog_meta")?;
        let mut set = db.prepare("INSERT INTO synclog_meta (name, value) VALUES (?1, ?2)")?;
        set.execute(params!["store_id", store.to_string()])?;
        write_applied(db, schema, Applied::default())?;
    }
    kept.extend(put_aside_in(db, &found)?);
    Ok(kept)
}

/// Gives the new tables and indexes the names that they are made for.
fn replace(
    db: &Transaction<'_>,
    schema: &Schema,
    shadow: &Schema,
    applied: Applied,
) -> Result<Vec<String>, Trouble> {
    let (table, replaced) = (schema.table, format!("{REPLACED}rows"));
    let found = foreign::on_ours(db, schema)?;
    let mut kept = put_aside_in(db, &found)?;
    let indexes: Vec<_> = found.iter().filter(|foreign| foreign.is_index() && !foreign.meddles).collect();
    for index in &indexes {
        index.drop_it(db)?;
    }
    if Schema::is_there(db, table)? {
        kept.extend(keep_columns(db, schema)?);
        db.execute_batch(&format!("ALTER TABLE {table} RENAME TO {replaced}"))?;
    }
    db.execute_batch(&format!("DROP TABLE IF EXISTS {}", schema.absent))?;
    db.execute_batch("PRAGMA writable_schema=ON")?;
    for (at, name) in schema.index_names().enumerate() {
        let text = format!("CREATE INDEX {name} ON \"{replaced}\" ");
        let renamed = db.execute(
            "UPDATE sqlite_schema SET name = ?1, sql = ?2 || substr(sql, length(?3) + 1) \
             WHERE type = 'index' AND name = ?4 AND tbl_name = ?5 AND substr(sql, 1, length(?3)) = ?3",
            params![
                format!("{REPLACED}{at}"),
                format!("CREATE INDEX {REPLACED}{at} ON \"{replaced}\" "),
                text,
                name,
                replaced
            ],
        )?;
        if renamed == 0
            && let Some(index) = Foreign::index(db, name)?
        {
            index.drop_it(db)?;
            if index.table() != replaced {
                index.record(db, "it had the name of an index of ours")?;
                kept.push(format!(
                    "{}, and had the name of one of ours: its text is in synclog_set_aside",
                    index.words()
                ));
            }
        }
    }
    for (from, to, table, sql) in schema.renames(shadow) {
        db.execute(
            "UPDATE sqlite_schema SET name = ?1, tbl_name = ?2, sql = ?3 WHERE name = ?4",
            params![to, table, sql, from],
        )?;
    }
    db.execute_batch("PRAGMA writable_schema=RESET")?;
    for index in indexes {
        if index.make_again(db).is_err() {
            index.record(db, "it cannot be made on the new rows")?;
            let what =
                format!("{}, and cannot be made again: its text is in synclog_set_aside", index.words());
            kept.push(what);
        }
    }
    write_meta(db, "projection_version", PROJECTION_VERSION)?;
    write_meta(db, EVENT_KIND, i64::from(schema.event.0))?;
    unread::forget_read(db, schema)?;
    write_meta(db, "schema_digest", schema.digest())?;
    write_applied(db, schema, applied)?;
    db.execute("DELETE FROM synclog_meta WHERE name GLOB 'rebuilt_*'", [])?;
    match schema.difference(db)? {
        None => Ok(kept),
        Some(difference) => {
            Err(Trouble::Unusable(format!("it cannot be rebuilt inside its file: {difference}")))
        }
    }
}

/// Columns that others have added to the event's table and filled are kept in a table of their own.
fn keep_columns(db: &Transaction<'_>, schema: &Schema) -> Result<Vec<String>, Trouble> {
    if meta_value(db, "schema_digest")? == Some(Value::Integer(schema.digest_of(db)?)) {
        return Ok(Vec::new()); // as another version of the events has made it
    }
    let columns = foreign::filled_columns(db, schema)?;
    if columns.is_empty() {
        return Ok(Vec::new());
    }
    let name = foreign::free_name(db)?;
    let list: Vec<String> = columns.iter().map(|column| quoted(column)).collect();
    let any: Vec<String> = list.iter().map(|column| format!("{column} IS NOT NULL")).collect();
    let sql = format!(
        "CREATE TABLE {name} AS SELECT id, {} FROM {} WHERE {}",
        list.join(", "),
        schema.table,
        any.join(" OR ")
    );
    db.execute_batch(&sql)?;
    Ok(vec![format!(
        "the table {} had columns that are not ours ({}): what was in them is kept in the table {name}",
        schema.table,
        columns.join(", ")
    )])
}

/// Rows of old tables that the new ones do not have.
struct Unexplained<'a> {
    new: &'a Connection,
    schema: &'a Schema,
    shadow: &'a Schema,
    /// They may be of another history.
    another: bool,
    /// Whether the rebuild is to stop.
    stopped: &'a dyn Fn() -> bool,
}

impl Unexplained<'_> {
    /// What the new database took, or the old one gave; `None` where it cannot hold or give that. A disk that is
    /// full, or somebody who closes the handle, ends the rebuild.
    fn fits<T>(&self, taken: Result<T, Trouble>) -> Result<Option<T>, Trouble> {
        match taken {
            Err(trouble @ (Trouble::Busy(_) | Trouble::Failed(_))) => Err(trouble),
            Err(trouble) if (self.stopped)() => Err(trouble),
            // What cannot be held is left out.
            other => Ok(other.ok()),
        }
    }

    /// Where old tables may have rows that the new ones have not: anywhere, but for what counting shows.
    fn unsure(&self) -> Result<Vec<(i64, i64)>, Trouble> {
        let everywhere = vec![(i64::MIN, i64::MAX)];
        if self.another {
            return Ok(everywhere);
        }
        let tally = Tally::of(self.new, self.shadow)?;
        let (Some(least), Some(most)) = (tally.least, tally.most) else { return Ok(everywhere) };
        if least < 1 || !tally.has_all(self.new, self.shadow, least as u64, most as u64)? {
            return Ok(everywhere);
        }
        let sql =
            format!("SELECT first, last FROM {} ORDER BY first LIMIT {}", self.shadow.absent, ABSENT + 1);
        let mut unsure: Vec<(i64, i64)> = self
            .new
            .prepare(&sql)?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<_, _>>()?;
        if unsure.len() > ABSENT {
            return Ok(everywhere);
        }
        unsure.extend([(i64::MIN, least - 1), (most.saturating_add(1), i64::MAX)]);
        Ok(unsure)
    }

    /// Keeps rows that no event explains. How many. Where the old table is `kept` with its file all the same, only as
    /// far as it can be read; otherwise what cannot be read is an error, because the old table goes.
    fn keep_from(&self, old: &Connection, kept: bool) -> Result<u64, Trouble> {
        let read = |taken: Result<Vec<i64>, Trouble>| if kept { self.fits(taken) } else { taken.map(Some) };
        if !Schema::is_plain(old, self.schema.table)? {
            let there = Schema::is_there(old, self.schema.table)? && !kept;
            return if there { Err(Trouble::Unusable("its rows are computed".into())) } else { Ok(0) };
        }
        let mut rows = 0;
        for (mut from, to) in self.unsure()? {
            while let Some(ids) = read(compare::ids_between(old, self.schema, from, to, IDS))? {
                let (Some(first), Some(last)) = (ids.first().copied(), ids.last().copied()) else { break };
                let known = compare::ids_between(self.new, self.shadow, first, last, i64::MAX as usize)?;
                let mut known = known.into_iter().peekable();
                for id in ids {
                    while known.next_if(|known| *known < id).is_some() {}
                    if known.peek() != Some(&id) {
                        let row = self.keep_row(old, id, "no event explains this row");
                        rows += if kept { self.fits(row)?.unwrap_or(0) } else { row? };
                    }
                }
                if self.another {
                    let others = self.keep_others(old, first, last);
                    rows += if kept { self.fits(others)?.unwrap_or(0) } else { others? };
                }
                let Some(next) = last.checked_add(1) else { break };
                from = next;
            }
        }
        Ok(rows)
    }

    /// Keeps rows of other events than the new ones have under their seqs. How many.
    fn keep_others(&self, old: &Connection, first: i64, last: i64) -> Result<u64, Trouble> {
        let theirs = compare::sums_between(old, self.schema, first, last)?;
        let own = compare::sums_between(self.new, self.shadow, first, last)?;
        let mut own = own.into_iter().peekable();
        let mut kept = 0;
        for (id, sum) in theirs {
            while own.next_if(|(own, _)| *own < id).is_some() {}
            if sum.is_some() && own.peek().is_some_and(|(own, own_sum)| *own == id && *own_sum != sum) {
                kept += self.keep_row(old, id, OF_ANOTHER)?;
            }
        }
        Ok(kept)
    }

    /// Keeps one row, unless its event was deleted. How many that makes.
    fn keep_row(&self, old: &Connection, id: i64, why: &str) -> Result<u64, Trouble> {
        let sql = format!(
            "SELECT 1 FROM {} WHERE ?1 BETWEEN first AND last AND reason IN ('deleted', 'erased')",
            self.shadow.absent
        );
        if self.new.prepare_cached(&sql)?.exists([id])? {
            return Ok(0);
        }
        let Some(row) = as_json(old, self.schema, id)? else { return Ok(0) };
        record_set_aside(self.new, self.schema, id, &row, why)?;
        Ok(1)
    }

    /// Carries over rows that were set aside before.
    fn keep_set_aside(&self, old: &Connection) -> Result<(), Trouble> {
        if !Schema::is_plain(old, "synclog_set_aside")? {
            return Ok(());
        }
        let Ok(mut query) = old.prepare(
            "SELECT noticed_at, source_table, row_id, reason, row, number FROM synclog_set_aside ORDER BY number",
        ) else {
            return Ok(());
        };
        let Ok(mut rows) = query.query([]) else { return Ok(()) };
        let mut before = None;
        while let Ok(Some(row)) = rows.next() {
            // A damaged table can lead in circles.
            let number = row.get::<_, i64>(5).ok();
            if number <= before {
                break;
            }
            before = number;
            let values: Result<Vec<_>, _> =
                (0..5).map(|at| row.get::<_, rusqlite::types::Value>(at)).collect();
            let Ok(values) = values else { continue };
            let kept = self.new.execute(INSERT_SET_ASIDE, rusqlite::params_from_iter(values));
            self.fits(kept.map_err(Trouble::from))?;
        }
        Ok(())
    }
}

impl Projection {
    /// How far a rebuild is that was interrupted in this database.
    pub(crate) fn unfinished(&self) -> Result<Option<u64>, Trouble> {
        unfinished(&self.read)
    }

    /// Drops what a rebuild has left.
    pub(crate) fn drop_leftovers(&mut self) -> Result<(), Trouble> {
        let left = leftovers(&self.write)?;
        if left.is_empty() {
            return Ok(());
        }
        let tx = self.write.transaction_with_behavior(TransactionBehavior::Immediate)?;
        drop_leftovers(&tx)?;
        Ok(tx.commit()?)
    }
}

/// How far a rebuild is that is under way, or was interrupted, in this database: the newest event of its rows.
pub(crate) fn unfinished(db: &Connection) -> Result<Option<u64>, Trouble> {
    Ok(match meta_value(db, "rebuilt_seq")? {
        Some(Value::Integer(seq)) => u64::try_from(seq).ok(),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rebuild_that_is_stopped_while_it_keeps_rows_drops_none_of_them() {
        use std::sync::Arc;
        use std::sync::atomic::{AtomicUsize, Ordering};
        const ROWS: i64 = 40_000;
        /// Most of them are known: only looking for the others takes long.
        const STRANGE: u64 = 11;
        let schema = Schema::of::<crate::sync::SyncEvent>().unwrap();
        let not_ours =
            "company_guid, company_alterid, company_name, log_level, log_message, created_at, frame";
        let fill = format!(
            "WITH RECURSIVE each(id) AS (VALUES (1) UNION ALL SELECT id + 1 FROM each WHERE id < {ROWS}) \
             INSERT INTO {} (id, {not_ours}) SELECT id, 'g', '1', 'A', 'INFO', 'm', 't', x'00' FROM each",
            schema.table
        );
        let make = format!(
            "INSERT INTO {} SELECT * FROM {} WHERE id <> 5 AND id <= {ROWS} - 10",
            schema.shadow().table,
            schema.table
        );
        // Before that it has not come to the rows.
        for allowed in 12.. {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("synclog.db");
            let asked = Arc::new(AtomicUsize::new(0));
            let start = |allowed: usize| {
                let (asked, wait) = (Arc::clone(&asked), Duration::from_secs(1));
                let stop = move || asked.fetch_add(1, Ordering::Relaxed) >= allowed;
                Rebuild::start(&path, &schema, StoreId([7; 16]), wait, stop).unwrap()
            };
            start(usize::MAX).finish(OldRows::default()).unwrap();
            Connection::open(&path).unwrap().execute_batch(&fill).unwrap();
            let new = start(allowed);
            Connection::open(&path).unwrap().execute_batch(&make).unwrap();
            asked.store(0, Ordering::Relaxed);
            match new.finish(OldRows::default()) {
                Ok(done) => assert_eq!(done.set_aside, STRANGE, "{allowed}"),
                Err(_) => assert_eq!(
                    start(usize::MAX).finish(OldRows::default()).unwrap().set_aside,
                    STRANGE,
                    "{allowed}"
                ),
            }
            if asked.load(Ordering::Relaxed) <= allowed {
                assert!(allowed > 18);
                break;
            }
        }
    }
}
