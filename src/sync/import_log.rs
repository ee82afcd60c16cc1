//! Importing into a log: read, match, append what is new.

use std::path::Path;

use crate::error::{Error, Result};
use crate::projection::compare;
use crate::store::{Item, Ticket};
use crate::time::Timestamp;

use super::event::SyncEvent;
use super::import::{self, ImportPlan, ImportReport, Matcher, Record, Rejection};
use super::log::SyncLog;

/// Events that an import appends as one batch.
const BATCH: usize = 256;

type ReadTime = Box<dyn Fn(&str) -> Result<Timestamp> + Send + Sync>;

/// How to import.
///
/// ```
/// let options = synclog::ImportOptions::default().dry_run(true);
/// ```
pub struct ImportOptions {
    dry_run: bool,
    zone_name: String,
    read_time: ReadTime,
}

impl Default for ImportOptions {
    fn default() -> Self {
        Self { dry_run: false, zone_name: "UTC".into(), read_time: Box::new(import::utc) }
    }
}

impl ImportOptions {
    /// Match and report, and write nothing. Default: false.
    #[must_use]
    pub fn dry_run(mut self, dry_run: bool) -> Self {
        self.dry_run = dry_run;
        self
    }

    /// The zone in which times without one are read: its name for the report, and the function
    /// that reads a time. Default: UTC.
    #[must_use]
    pub fn source_zone(
        mut self,
        name: impl Into<String>,
        read_time: impl Fn(&str) -> Result<Timestamp> + Send + Sync + 'static,
    ) -> Self {
        self.zone_name = name.into();
        self.read_time = Box::new(read_time);
        self
    }
}

impl SyncLog {
    /// Takes in history from a file: JSON lines of an older system, a SQLite database with a
    /// `sync_logs` table, or our own export. What is there already is not taken in again, whatever
    /// is imported how often.
    ///
    /// Events are appended in batches of 256; where the import is cut off, importing the same file
    /// again takes in the rest. Memory grows with the file, not with the log.
    ///
    /// Where records match events by id and content but lie whole quarter hours beside them, nothing
    /// is written and [`Error::SourceZone`] tells the offset.
    pub fn import(&self, path: impl AsRef<Path>, options: &ImportOptions) -> Result<ImportReport> {
        let path = path.as_ref();
        let identity = |path: &Path| crate::disk::identity(path).ok().flatten();
        if identity(path).is_some_and(|source| Some(source) == identity(&self.store().database())) {
            // Opening and closing it here would also drop SQLite's locks on it.
            let reason = "is this store's own database; there is nothing to import from it";
            return Err(Error::invalid("the source", reason));
        }
        let source = import::read_path(path, &*options.read_time)?;
        let mut report = ImportReport {
            source_tz: options.zone_name.clone(),
            dry_run: options.dry_run,
            rejections: source.rejections,
            ..ImportReport::default()
        };
        let plan = self.plan(source.records)?;
        if let Some(offset) = plan.time_offset {
            return Err(Error::SourceZone { path: path.into(), offset });
        }
        report.already_present = plan.already_present;
        report.deleted = plan.deleted;
        report.id_conflicts = plan.id_conflicts;
        if options.dry_run {
            report.imported = plan.import.len() as u64;
        } else {
            self.append_records(plan.import, &mut report)?;
        }
        report.rejections.sort_by_key(|rejection| rejection.line);
        report.rejected = report.rejections.len() as u64;
        Ok(report)
    }

    fn plan(&self, records: Vec<Record>) -> Result<ImportPlan> {
        let store = self.store();
        let reader = store.reader()?;
        let mut matcher = Matcher::new(records, store.id());
        for item in reader.items(1)? {
            match item? {
                Item::Event(stored) => matcher.observe(stored.seq, &stored.event),
                Item::Damage(finding) => {
                    // What is unreadable might be what the source holds.
                    return Err(Error::Damaged { dir: store.dir().into(), findings: vec![finding] });
                }
                Item::Unknown(_) | Item::Lost(_) => {}
            }
        }
        let rows = reader.connect().ok();
        Ok(matcher.plan(|record| {
            record.origin().filter(|origin| origin.store == store.id()).is_some_and(|origin| {
                rows.as_ref().is_some_and(|(db, _)| compare::was_deleted(db, origin.seq).unwrap_or(false))
            })
        }))
    }

    fn append_records(&self, records: Vec<Record>, report: &mut ImportReport) -> Result<()> {
        let mut batch: Vec<Record> = Vec::new();
        for record in records {
            // A key can turn out to be taken, so a keyed record stands alone.
            let keyed = record.key.is_some();
            if keyed || batch.len() >= BATCH {
                self.append_batch(std::mem::take(&mut batch), report)?;
            }
            batch.push(record);
            if keyed {
                self.append_batch(std::mem::take(&mut batch), report)?;
            }
        }
        self.append_batch(batch, report)
    }

    fn append_batch(&self, batch: Vec<Record>, report: &mut ImportReport) -> Result<()> {
        let Some(line) = batch.first().map(|record| record.line) else { return Ok(()) };
        let count = batch.len() as u64;
        let before = self.store().last_seq();
        let events: Vec<(SyncEvent, Option<String>)> =
            batch.iter().map(|record| (record.event.clone(), record.key.clone())).collect();
        match self.store().submit_keyed(events).and_then(Ticket::wait) {
            Ok(receipts) if receipts.iter().all(|receipt| receipt.seq <= before) => {
                report.already_present += count;
                Ok(())
            }
            Ok(_) => {
                report.imported += count;
                Ok(())
            }
            Err(Error::TooLarge { .. }) if count > 1 => {
                // One large event must not keep the others out.
                batch.into_iter().try_for_each(|record| self.append_batch(vec![record], report))
            }
            Err(error @ (Error::KeyConflict { .. } | Error::TooLarge { .. } | Error::Invalid { .. })) => {
                report.rejections.push(Rejection { line, reason: error.to_string() });
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}
