//! Two histories of one store: noticed before either takes the other's place, named, and put aside when
//! somebody has chosen (P3, P4). What proves the second one is told in `log/fork.rs`.

use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::codec;
use crate::error::{Error, Result};
use crate::event::{Event, Value};
use crate::finding::{Finding, FindingKind};
use crate::log::cursor::{Horizon, Segments};
use crate::log::directory::LogDir;
use crate::log::fork::{self, Fork};
use crate::log::heal::{Donor, NoDonor};
use crate::log::survey::Witness;
use crate::log::tail;
use crate::log::view::LogView;
use crate::projection::row::FoundRow;
use crate::projection::schema::Schema;
use crate::projection::{self, Connection, Db, Trouble, compare};
use crate::replay::RowDonor;
use crate::store_id::StoreId;

/// The part of the log that is looked at.
pub(super) struct Log<'a> {
    pub(super) dir: &'a LogDir,
    pub(super) segments: &'a Segments,
    pub(super) horizon: Horizon,
}

impl<'a> Log<'a> {
    pub(super) fn of(view: &'a LogView) -> Self {
        Self { dir: &view.log, segments: &view.segments, horizon: view.horizon }
    }

    fn store(&self) -> Option<StoreId> {
        self.segments.headers.last().map(|header| header.store)
    }
}

/// The history that the rows prove, where it is not the log's.
pub(super) fn of_rows<E: Event>(log: &Log<'_>, db: &Connection, schema: &Schema) -> Result<Option<Fork>> {
    let Some(applied) = log.store().and_then(|store| projection::evidence(db, store)) else {
        return Ok(None);
    };
    let applied = Witness { seq: applied.seq, sum: applied.sum };
    fork::find(log.dir, log.segments, log.horizon, applied, &mut RowDonor::<E>::new(db, schema))
}

/// What rows and the file `tail` say against the log. `db` are the rows; where there are none of this
/// version, what can be read of others is evidence all the same.
pub(super) fn findings<E: Event>(
    log: &Log<'_>,
    db: Option<&Connection>,
    schema: &Schema,
) -> Result<Vec<Finding>> {
    let database = projection::database_path(&log.dir.store_dir);
    // A database that cannot be read now is met again by whoever opens it.
    let other = if db.is_none() { open_evidence(&database, Duration::ZERO).ok().flatten() } else { None };
    let db = db.or(other.as_deref());
    let mut found = Vec::new();
    if let Some(db) = db
        && let Some(fork) = of_rows::<E>(log, db, schema)?
    {
        found.push(fork.finding().file(database));
    }
    let tail = tail::read(log.dir)?;
    if let Some(witness) = log.store().and_then(|store| tail::of_store(tail, store)) {
        let mut rows = db.map(|db| RowDonor::<E>::new(db, schema));
        let donor: &mut dyn Donor = match &mut rows {
            Some(rows) => rows,
            None => &mut NoDonor,
        };
        found.extend(fork::of_tail(log.dir, log.segments, log.horizon, witness, donor)?);
    }
    Ok(found)
}

/// A database whose tables need not be as they should be; `None` where there is none, or none that can be used.
pub(super) fn open_evidence(database: &Path, wait: Duration) -> Result<Option<Db>> {
    let found = crate::disk::identity(database).map_err(|error| Error::io("look up", database, error))?;
    if found.is_none() {
        return Ok(None);
    }
    match projection::open_for_reading(database, wait) {
        Ok(db) => Ok(Some(db)),
        Err(trouble @ (Trouble::Busy(_) | Trouble::Failed(_))) => Err(trouble.into_error(database)),
        // One that is no database, or is damaged, is no evidence.
        Err(_) => Ok(None),
    }
}

/// Refuses to go on where anything speaks against the log.
pub(super) fn refuse(log: &LogDir, found: Vec<Finding>) -> Result<()> {
    if found.is_empty() {
        return Ok(());
    }
    Err(Error::Damaged { dir: log.store_dir.clone(), findings: found })
}

/// Whether an error says that nothing may be appended any more, because rows know more or other events.
pub(super) fn forbids_appends(error: &Error) -> bool {
    let kinds = [FindingKind::AppliedBeyondLog, FindingKind::TwoHistories];
    matches!(error, Error::Damaged { findings, .. } if findings.iter().any(|found| kinds.contains(&found.kind)))
}

/// Writes the events of the rows' history to a file in `quarantine/`, as lines that an import takes, and
/// syncs it. The log's rows may take their place only then.
pub(super) fn put_aside<E: Event>(
    log: &LogDir,
    fork: &Fork,
    db: &Connection,
    schema: &Schema,
) -> Result<(PathBuf, Finding)> {
    const CHUNK: usize = 1024 * 1024;
    let dir = log.quarantine_dir();
    let wrap = |error: io::Error| Error::io("put rows aside in", &dir, error);
    log.make_quarantine().map_err(wrap)?;
    let (path, file) = (0..u32::MAX)
        .find_map(|attempt| {
            let path = dir.join(format!("rows-{}-{}-{attempt}.jsonl", fork.first(), fork.last));
            match log.disk.create(&path) {
                Ok(file) => Some(Ok((path, file))),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => None,
                Err(error) => Some(Err(error)),
            }
        })
        .unwrap_or_else(|| Err(io::ErrorKind::AlreadyExists.into()))
        .map_err(wrap)?;
    let (mut text, mut offset, mut events) = (String::new(), 0, 0_u64);
    let flush = |text: &mut String, offset: &mut u64| {
        file.write_all_at(text.as_bytes(), *offset).map_err(wrap)?;
        *offset += text.len() as u64;
        text.clear();
        Ok::<(), Error>(())
    };
    fork.each(&mut RowDonor::<E>::new(db, schema), |seq| {
        let id = seq as i64;
        let rows = compare::rows_between(db, schema, id, id, 1)
            .map_err(|trouble| trouble.into_error(&projection::database_path(&log.store_dir)))?;
        for row in rows {
            line(fork.identity(), schema, &row, &mut text);
            events += 1;
        }
        if text.len() >= CHUNK { flush(&mut text, &mut offset) } else { Ok(()) }
    })?;
    flush(&mut text, &mut offset)?;
    file.sync().map_err(wrap)?;
    log.disk.sync_dir(&dir).map_err(wrap)?;
    log.disk.sync_dir(&log.store_dir).map_err(wrap)?;
    let what = format!(
        "{events} event(s) of rows of another history were put aside here, as from a store {}; `synclog import \
         {}` takes them in as new ones",
        fork.identity(),
        path.display()
    );
    let finding = Finding::new(FindingKind::TwoHistories, what).seqs(fork.first(), fork.last).file(&path);
    Ok((path, finding))
}

/// A row in the form of an export's line: seq, store, the table's columns, key, time of the append.
fn line(store: StoreId, schema: &Schema, row: &FoundRow, into: &mut String) {
    // Writing to a string cannot fail.
    let _ = write!(into, "{{\"seq\":{},\"store\":\"{store}\"", row.id);
    let own = &schema.columns[1..schema.columns.len() - 2];
    let appended = codec::appended_at(&row.frame).map(|at| Value::Text(at.to_string()));
    let cells = own.iter().copied().zip(&row.values);
    let rest = [("key", row.key.clone()), ("appended_at", appended.unwrap_or(Value::Null))];
    for (name, value) in cells.chain(rest.iter().map(|(name, value)| (*name, value))) {
        // Writing to a string cannot fail.
        let _ = write!(into, ",{}:{}", serde_json::Value::from(name), projection::json(value));
    }
    into.push_str("}\n");
}

#[cfg(test)]
#[path = "histories_tests.rs"]
mod tests;
