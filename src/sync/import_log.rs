//! Importing into a log: read, match, append what is new.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::erasures::covers;
use crate::error::{Error, Result};
use crate::store::{Item, Options, Store, Ticket};
use crate::time::Timestamp;

use super::event::SyncEvent;
use super::import::{
    self, Extra, ImportPlan, ImportReport, Matcher, Reading, Record, Rejection, Replacement, Source,
    SourceTime,
};
use super::log::SyncLog;

/// What must be confirmed before events are taken back.
const TAKE_BACK: &str = "the number of events to take back";

/// Events that an import appends as one batch.
const BATCH: usize = 256;

type ReadTime = Box<dyn Fn(&str) -> Result<SourceTime> + Send + Sync>;

/// How to import.
///
/// ```
/// let options = synclog::ImportOptions::default().dry_run(true);
/// ```
pub struct ImportOptions {
    dry_run: bool,
    zone_name: String,
    read_time: ReadTime,
    wrong_time: Option<ReadTime>,
    extra: Extra,
    source_wait: Duration,
}

impl Default for ImportOptions {
    fn default() -> Self {
        Self {
            dry_run: false,
            zone_name: "UTC".into(),
            read_time: Box::new(import::utc),
            wrong_time: None,
            extra: Extra::default(),
            source_wait: Duration::from_secs(5),
        }
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
    /// that reads a time, as a [`Timestamp`](crate::Timestamp) or a [`SourceTime`]. Default: UTC.
    #[must_use]
    pub fn source_zone<T: Into<SourceTime>>(
        mut self,
        name: impl Into<String>,
        read_time: impl Fn(&str) -> Result<T> + Send + Sync + 'static,
    ) -> Self {
        self.zone_name = name.into();
        self.read_time = Box::new(move |text| read_time(text).map(Into::into));
        self
    }

    /// What becomes of fields and columns that an event has no place for. Default: they go into the details.
    #[must_use]
    pub fn extra(mut self, extra: Extra) -> Self {
        self.extra = extra;
        self
    }

    /// How long to wait for whoever holds a database that is imported. Default: 5 s.
    #[must_use]
    pub fn source_wait(mut self, wait: Duration) -> Self {
        self.source_wait = wait;
        self
    }

    /// How times were read by an earlier import of the same source that is to be corrected: see
    /// [`SyncLog::correct_zone`]. Default: there was none.
    #[must_use]
    pub fn was_zone<T: Into<SourceTime>>(
        mut self,
        read_time: impl Fn(&str) -> Result<T> + Send + Sync + 'static,
    ) -> Self {
        self.wrong_time = Some(Box::new(move |text| read_time(text).map(Into::into)));
        self
    }

    fn reading(&self) -> Reading<'_> {
        Reading {
            read_time: &*self.read_time,
            wrong_time: self.wrong_time.as_deref().map(|read| read as _),
            extra: self.extra,
            wait: self.source_wait,
        }
    }
}

/// A file that was read and not yet imported. See [`SyncLog::import_source`].
#[derive(Debug)]
pub struct ImportSource {
    path: PathBuf,
    source: Source,
}

impl ImportSource {
    /// Reads a file as [`SyncLog::import`] does, without a store. Lines may come through a pipe; devices
    /// are refused. Memory grows with the file.
    pub fn read(path: impl AsRef<Path>, options: &ImportOptions) -> Result<Self> {
        let path = path.as_ref();
        Ok(Self { path: path.into(), source: import::read_path(path, &options.reading())? })
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
        self.check_source(path.as_ref())?;
        self.import_source(ImportSource::read(path, options)?, options)
    }

    fn check_source(&self, path: &Path) -> Result<()> {
        let identity =
            |path: &Path| crate::disk::identity(path).map_err(|error| Error::io("look up", path, error));
        let own = identity(&self.store().database())?;
        if identity(path)?.is_some_and(|source| Some(source) == own) {
            // Opening and closing it here would also drop SQLite's locks on it.
            let reason = "is this store's own database; there is nothing to import from it";
            return Err(Error::invalid("the source", reason));
        }
        Ok(())
    }

    /// Takes in what was read before, with the same options. So nothing has to be made, and no lock be held,
    /// while a source is read that is slow or turns out to be unreadable.
    pub fn import_source(&self, from: ImportSource, options: &ImportOptions) -> Result<ImportReport> {
        if options.wrong_time.is_some() {
            return Err(Error::invalid(
                "the zone",
                "of an earlier import is corrected by SyncLog::correct_zone",
            ));
        }
        self.take_in(from, options, Some(0)).map(|(report, _)| report)
    }

    /// Takes an import back that read the times of a source in the wrong zone, and brings its events in the
    /// right one: the source is read once more, in [`ImportOptions::source_zone`], and
    /// [`ImportOptions::was_zone`] tells how it was read before.
    ///
    /// An event is taken back where it has the id, the content and, to the microsecond, the time that a record
    /// had in the wrong zone, unless it is what another record gives in the right one. First all events are
    /// appended that are not there in the right zone; then a deletion record takes the others back. So each is
    /// there at any time, and where this is cut off, the same call goes on. Payloads stay in the log, and no
    /// row, export or import shows them any more.
    ///
    /// `confirmed` must be the number of events to take back: with [`ImportOptions::dry_run`] it is not asked
    /// for, and [`ImportReport::corrected`] tells it. No other handle may be open.
    pub fn correct_zone(
        dir: impl AsRef<Path>,
        options: &Options,
        from: ImportSource,
        import: &ImportOptions,
        confirmed: Option<u64>,
    ) -> Result<ImportReport> {
        let dir = dir.as_ref();
        let log = Self::open_with(dir, options.clone().create(false))?;
        let done = log.take_in(from, import, confirmed);
        log.close()?;
        let (mut report, wrong) = done?;
        report.corrected = wrong.len() as u64;
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for seq in wrong {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == seq => *last = seq,
                _ => ranges.push((seq, seq)),
            }
        }
        if !import.dry_run && !ranges.is_empty() {
            Store::<SyncEvent>::delete(dir, options.clone(), &ranges)?;
        }
        Ok(report)
    }

    /// Imports, and returns which events are to be taken back, by seq. `confirmed` is their number.
    fn take_in(
        &self,
        from: ImportSource,
        options: &ImportOptions,
        confirmed: Option<u64>,
    ) -> Result<(ImportReport, Vec<u64>)> {
        let ImportSource { path, source } = from;
        self.check_source(&path)?;
        let mut report = ImportReport {
            source_tz: options.zone_name.clone(),
            dry_run: options.dry_run,
            rejections: source.rejections,
            empty_alterids: source.empty_alterids,
            unknown_words: source.unknown_words,
            extra_fields: source.extra_fields,
            skipped_times: source.skipped_times,
            doubled_times: source.doubled_times,
            ..ImportReport::default()
        };
        let now = Timestamp::now();
        for time in source.records.iter().filter_map(|record| record.event.created_at) {
            if time > now {
                report.in_future += 1;
                report.newest_in_future = report.newest_in_future.max(Some(time));
            }
        }
        let plan = self.plan(source.records)?;
        if let Some(offset) = plan.time_offset {
            return Err(Error::SourceZone { path, offset });
        }
        let wrong = plan.wrong.len() as u64;
        if !options.dry_run && confirmed != Some(wrong) {
            return Err(Error::invalid(TAKE_BACK, format!("is {wrong}, and that was not confirmed")));
        }
        report.already_present = plan.already_present;
        report.deleted = plan.deleted;
        report.id_conflicts = plan.id_conflicts;
        report.look_alikes = plan.look_alikes;
        let place = |record: &Record| (record.line, record.object);
        let places: Vec<(u64, u64)> = plan.import.iter().map(place).collect();
        if options.dry_run {
            report.imported = plan.import.len() as u64;
        } else {
            self.append_records(plan.import, &mut report)?;
        }
        report.rejections.sort_by_key(|rejection| (rejection.line, rejection.object));
        report.rejected = report.rejections.len() as u64;
        let rejected: HashSet<(u64, u64)> =
            report.rejections.iter().map(|rejection| (rejection.line, rejection.object)).collect();
        // What could not be brought in the right zone stays in the wrong one.
        let is_replaced = |by: &Replacement| match by {
            Replacement::There => true,
            Replacement::Imported(at) => places.get(*at).is_some_and(|place| !rejected.contains(place)),
        };
        let wrong = plan.wrong.into_iter().filter(|(_, by)| is_replaced(by)).map(|(seq, _)| seq).collect();
        Ok((report, wrong))
    }

    fn plan(&self, records: Vec<Record>) -> Result<ImportPlan> {
        let store = self.store();
        let reader = store.reader()?;
        let mut matcher = Matcher::new(records, store.id());
        let gone = reader.deleted()?;
        for item in reader.items(1)? {
            match item? {
                Item::Event(stored) if covers(&gone, stored.seq) => {}
                Item::Event(stored) => matcher.observe(stored.seq, &stored.event),
                Item::Damage(finding) => {
                    // What is unreadable might be what the source holds.
                    return Err(Error::Damaged { dir: store.dir().into(), findings: vec![finding] });
                }
                Item::Unknown(_) | Item::Lost(_) => {}
            }
        }
        Ok(matcher.plan(|record| {
            let own = record.origin().filter(|origin| origin.store == store.id());
            own.is_some_and(|origin| covers(&gone, origin.seq))
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
        let Some((line, object)) = batch.first().map(|record| (record.line, record.object)) else {
            return Ok(());
        };
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
                report.rejections.push(Rejection { line, object, reason: error.to_string() });
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}
