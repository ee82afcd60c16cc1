//! A rebuild: a new database beside the old one, which then takes its place at once.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use crate::disk::{self, access};
use crate::store_id::StoreId;
use crate::threads;

use super::apply::{INSERT_SET_ASIDE, as_json, record_set_aside};
use super::schema::Schema;
use super::{Applied, Changes, Step, Trouble, apply_in, beside, compare, initialize, open_connection};

/// Ids of old rows that are looked up at a time.
const IDS: usize = 4096;
/// Stretches of ids that are remembered. Most logs are one.
const STRETCHES: usize = 4096;

/// A database in the making.
pub(crate) struct Rebuild {
    target: PathBuf,
    unfinished: PathBuf,
    schema: Schema,
    db: Connection,
    applied: Applied,
    /// A row has an idempotency key.
    keyed: bool,
    /// Stretches of ids that the new database has, in order. It may have more.
    known: Vec<(i64, i64)>,
}

impl Rebuild {
    /// Starts a new database beside `target`, throwing away what an interrupted rebuild left.
    pub(crate) fn start(target: &Path, schema: Schema, store: StoreId) -> Result<Self, Trouble> {
        let unfinished = beside(target, ".new");
        // Before these go: the new file gets its owner and mode from what it replaces.
        let replaced = access::of_first(&[target, &unfinished]).map_err(|error| Trouble::io(&error))?;
        for suffix in ["", "-wal", "-shm", "-journal"] {
            disk::remove_if_there(&beside(&unfinished, suffix)).map_err(|error| Trouble::io(&error))?;
        }
        access::make_database(&unfinished, replaced).map_err(|error| Trouble::io(&error))?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
        let db = open_connection(&unfinished, flags, Duration::ZERO)?;
        // Nobody sees this file before it is whole and synced, so it needs no journal.
        db.execute_batch(
            "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA locking_mode=EXCLUSIVE; BEGIN",
        )?;
        initialize(&db, &schema, store)?;
        // Where no event has a key, which is common, this spares one walk through all rows.
        schema.create_key_index(&db)?;
        Ok(Self {
            target: target.into(),
            unfinished,
            schema,
            db,
            applied: Applied::default(),
            keyed: false,
            known: Vec::new(),
        })
    }

    /// The same as for an append, without a transaction of its own.
    pub(crate) fn apply(&mut self, step: &Step) -> Result<Changes, Trouble> {
        if !self.keyed && step.rows.iter().any(|row| row.key.is_some()) {
            self.schema.drop_key_index(&self.db)?;
            self.keyed = true;
        }
        let changes = apply_in(&self.db, &self.schema, step, self.applied)?;
        if let Some(applied) = step.applied {
            self.applied = applied;
        }
        if changes.restored == step.rows.len() as u64 {
            step.rows.iter().for_each(|row| self.remember(row.seq as i64));
        }
        if !step.deleted.is_empty() || changes.set_aside > 0 {
            self.known.clear();
        }
        Ok(changes)
    }

    fn remember(&mut self, id: i64) {
        let full = self.known.len() >= STRETCHES;
        match self.known.last_mut() {
            Some((_, last)) if *last + 1 == id => *last = id,
            Some((_, last)) if *last >= id => {}
            _ if full => {}
            _ => self.known.push((id, id)),
        }
    }

    /// Where the old database may have rows that the new one has not.
    fn unsure(&self) -> Vec<(i64, i64)> {
        let mut stretches = Vec::new();
        let mut from = i64::MIN;
        for (first, last) in &self.known {
            stretches.push((from, first - 1));
            from = last + 1;
        }
        stretches.push((from, i64::MAX));
        stretches
    }

    /// Carries over rows of the old database that were set aside before, and those that no event
    /// explains, as far as the old database can still be read. Returns how many are new.
    pub(crate) fn keep_unexplained(&mut self, old: &Connection, reason: &str) -> Result<u64, Trouble> {
        self.keep_set_aside(old)?;
        let mut kept = 0;
        for (mut from, to) in self.unsure() {
            // One that is too damaged to read on gives what could be read.
            while let Ok(ids) = compare::ids_between(old, &self.schema, from, to, IDS) {
                let (Some(first), Some(last)) = (ids.first().copied(), ids.last().copied()) else { break };
                let known = compare::ids_between(&self.db, &self.schema, first, last, i64::MAX as usize)?;
                let mut known = known.into_iter().peekable();
                for id in ids {
                    while known.next_if(|known| *known < id).is_some() {}
                    if known.peek() != Some(&id) {
                        kept += self.keep_row(old, id, reason)?;
                    }
                }
                let Some(next) = last.checked_add(1) else { break };
                from = next;
            }
        }
        Ok(kept)
    }

    /// Carries over one row of the old database, unless its event was deleted. How many that makes.
    fn keep_row(&self, old: &Connection, id: i64, reason: &str) -> Result<u64, Trouble> {
        if id > 0 && compare::was_deleted(&self.db, id as u64)? {
            return Ok(0);
        }
        let Ok(Some(row)) = as_json(old, &self.schema, id) else { return Ok(0) };
        let kept = record_set_aside(&self.db, &self.schema, id, &row, reason);
        Ok(u64::from(fits(kept)?.is_some()))
    }

    fn keep_set_aside(&self, old: &Connection) -> Result<(), Trouble> {
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
            let kept = self.db.execute(INSERT_SET_ASIDE, rusqlite::params_from_iter(values));
            fits(kept.map_err(Trouble::from))?;
        }
        Ok(())
    }

    /// Finishes the new database and puts it in the old one's place. Connections that read the old
    /// one go on seeing it; none of this process may write to it. Another process that is writing there makes this fail as busy.
    pub(crate) fn finish(self, wait: Duration) -> Result<(), Trouble> {
        let io = |error: std::io::Error| Trouble::io(&error);
        if self.keyed {
            self.schema.create_key_index(&self.db)?;
        }
        let unfinished = &self.unfinished;
        std::thread::scope(|scope| {
            // The disk takes the rows while the indexes are made. The handle lives until SQLite's is closed.
            let early = threads::spawn_scoped(scope, "synclog-sync", || disk::sync_file(unfinished));
            self.schema.create_other_indexes(&self.db)?;
            self.db.execute_batch("COMMIT")?;
            self.db.close().map_err(|(_, error)| error)?;
            // Without a thread the last sync alone takes longer.
            let Ok(early) = early else { return Ok(()) };
            let early = threads::ended("synclog-sync", early.join());
            early.map_err(|error| Trouble::Failed(error.to_string()))?.map(drop).map_err(io)
        })?;
        disk::sync_file(unfinished).map_err(io)?;
        if let Some(busy) = hold_old(&self.target, wait) {
            return Err(busy);
        }
        // A new file with the old one's write-ahead log beside it would show old rows, and a journal that a
        // kill left would be rolled back into it.
        for suffix in ["-wal", "-journal"] {
            let old = beside(&self.target, suffix);
            disk::truncate_if_there(&old).map_err(io)?;
            disk::remove_if_there(&old).map_err(io)?;
        }
        disk::remove_if_there(&beside(&self.target, "-shm")).map_err(io)?;
        disk::rename_durably(&self.unfinished, &self.target).map_err(io)
    }
}

/// What the new database took; `None` where it cannot hold that. A disk that is full ends the rebuild.
fn fits<T>(taken: Result<T, Trouble>) -> Result<Option<T>, Trouble> {
    match taken {
        Err(trouble @ (Trouble::Busy(_) | Trouble::Failed(_))) => Err(trouble),
        other => Ok(other.ok()),
    }
}

/// Whether another process is writing to the old database. A database that cannot be opened or is
/// damaged is nobody's.
fn hold_old(target: &Path, wait: Duration) -> Option<Trouble> {
    let old = open_connection(target, OpenFlags::SQLITE_OPEN_READ_WRITE, wait).ok()?;
    let said = old.execute_batch("BEGIN IMMEDIATE; ROLLBACK").map_err(Trouble::from).err()?;
    matches!(said, Trouble::Busy(_)).then_some(said)
}
