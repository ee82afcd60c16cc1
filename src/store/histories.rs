//! Two histories of one store: noticed before either takes the other's place, named, and put aside when
//! somebody has chosen (P3, P4). What proves the second one is told in `log/fork.rs`.

use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};

use crate::codec;
use crate::error::{Error, Result};
use crate::event::{Event, Value};
use crate::finding::{Finding, FindingKind};
use crate::log::cursor::{Horizon, Segments};
use crate::log::directory::LogDir;
use crate::log::fork::{self, Fork};
use crate::log::heal::Donor;
use crate::log::survey::Witness;
use crate::log::tail;
use crate::log::view::LogView;
use crate::projection::row::FoundRow;
use crate::projection::schema::Schema;
use crate::projection::{self, Connection, OwnRows, Trouble, compare};
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

/// The newest event that rows vouch for.
fn vouched(log: &Log<'_>, path: &Path, db: &Connection, schema: &Schema) -> Result<Option<Witness>> {
    let Some(applied) = log.store().and_then(|store| projection::evidence(db, store)) else {
        return Ok(None);
    };
    let vouches = projection::vouches_for(db, schema, applied).map_err(|trouble| trouble.into_error(path))?;
    Ok(vouches.then_some(Witness { seq: applied.seq, sum: applied.sum }))
}

/// The history that the rows prove, where it is not the log's.
pub(super) fn of_rows<E: Event>(
    log: &Log<'_>,
    path: &Path,
    db: &Connection,
    schema: &Schema,
) -> Result<Option<Fork>> {
    let mut rows = RowDonor::<E>::new(db, schema);
    let newest = match vouched(log, path, db, schema)? {
        Some(applied) => applied,
        // Rows prove themselves: the newest one says how far they go.
        None => match newest_row(log, path, db, schema, &mut rows)? {
            Some(newest) => newest,
            None => return Ok(None),
        },
    };
    fork::find(log.dir, log.segments, log.horizon, newest, &mut rows)
}

/// The newest row that is not behind the log's end.
fn newest_row(
    log: &Log<'_>,
    path: &Path,
    db: &Connection,
    schema: &Schema,
    rows: &mut dyn Donor,
) -> Result<Option<Witness>> {
    let seq = match compare::largest_id(db, schema, log.horizon.seq as i64 - 1) {
        Ok(Some(id)) if id > 0 => id as u64,
        Err(trouble @ (Trouble::Busy(_) | Trouble::Failed(_))) => return Err(trouble.into_error(path)),
        // What has no such rows proves nothing.
        Ok(_) | Err(_) => return Ok(None),
    };
    Ok(fork::sum_of_row(seq, rows)?.map(|sum| Witness { seq, sum }))
}

/// What the rows of a database say against the log: another history that they prove, or at least another event under
/// the seq that they vouch for.
pub(super) fn against<E: Event>(
    log: &Log<'_>,
    path: &Path,
    db: &Connection,
    schema: &Schema,
) -> Result<Option<Finding>> {
    if let Some(fork) = of_rows::<E>(log, path, db, schema)? {
        return Ok(Some(fork.finding().file(path)));
    }
    let Some(witness) = vouched(log, path, db, schema)? else { return Ok(None) };
    Ok(fork::of_witness(log.dir, log.segments, log.horizon, witness)?.map(|finding| finding.file(path)))
}

/// What rows and the file `tail` say against the log.
pub(super) fn findings<E: Event>(
    log: &Log<'_>,
    sources: &[(&Path, &Connection)],
    schema: &Schema,
) -> Result<Vec<Finding>> {
    let mut found = Vec::new();
    for (path, db) in sources {
        found.extend(against::<E>(log, path, db, schema)?);
    }
    let tail = tail::read(log.dir)?;
    if let Some(witness) = log.store().and_then(|store| tail::of_store(tail, store)) {
        let of_tail = fork::of_witness(log.dir, log.segments, log.horizon, witness)?;
        let mut rows = RowDonor::<E>::of(sources.iter().map(|(_, db)| *db), schema);
        // Where a row remembers the same as the file, the rows speak for both.
        if of_tail.is_some()
            && (found.is_empty() || fork::sum_of_row(witness.seq, &mut rows)? != Some(witness.sum))
        {
            found.extend(of_tail.map(|finding| finding.file(log.dir.tail_path())));
        }
    }
    Ok(found)
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
    let failed = |trouble: Trouble| trouble.into_error(&projection::database_path(&log.store_dir));
    let rows = OwnRows::of(db, schema).map_err(failed)?;
    fork.each(&mut RowDonor::<E>::new(db, schema), |seq| {
        if let Some(row) = rows.row(seq as i64).map_err(failed)? {
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
