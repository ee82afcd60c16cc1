//! The handles: [`SyncLog`] appends, [`Run`] ties the events of one run, [`SyncReader`] queries.

use std::path::Path;
use std::time::Instant;

use crate::codec;
use crate::error::{Error, Result};
use crate::event::Event;
use crate::projection::row::FoundRow;
use crate::projection::schema::Schema;
use crate::projection::{Applied, Connection, Db, compare, query};
use crate::store::{Options, Reader, Receipt, Store};
use crate::time::Timestamp;

use super::event::{Company, Level, Status, SyncEvent};
use super::filter::{CONTAINS_FUNCTION, Filter, PageCursor, contains_any_case};
use super::runs::{RunFilter, RunJoiner, RunSummary};

/// The history of sync runs, open for writing. Cheap to clone, `Send` and `Sync`.
///
/// ```
/// use synclog::{Company, Filter, Level, SyncLog};
///
/// # let dir = tempfile::tempdir().unwrap();
/// let log = SyncLog::open(dir.path())?;
/// let company = Company::new("8f0c1d52", "102209.0", "Acme Traders");
///
/// let run = log.start_run(&company)?;
/// run.progress(100, "100 vouchers inserted")?;
/// run.complete(100)?;
/// log.warning(&company, "Voucher count mismatch")?; // on disk when this returns
///
/// let warnings = log.reader()?.list(&Filter::new().level(Level::Warning))?;
/// assert_eq!(warnings[0].event.message, "Voucher count mismatch");
/// log.close()?;
/// # Ok::<(), synclog::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct SyncLog {
    store: Store<SyncEvent>,
}

impl SyncLog {
    /// Opens the log in `dir` with default [`Options`]; makes it where the directory is missing or
    /// empty.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(dir, Options::default())
    }

    /// Opens the log in `dir`.
    pub fn open_with(dir: impl AsRef<Path>, options: Options) -> Result<Self> {
        Ok(Self { store: Store::open(dir, options)? })
    }

    /// The store underneath: `submit`, tickets, idempotency keys, progress.
    pub fn store(&self) -> &Store<SyncEvent> {
        &self.store
    }

    /// Appends one event. When this returns, it is on disk (P1). One that is dated ahead of the clock is
    /// taken too: see [`SyncEvent::is_ahead`].
    pub fn append(&self, event: SyncEvent) -> Result<Receipt> {
        self.store.append(event)
    }

    /// Appends a batch atomically: all of it or, after a crash, nothing.
    pub fn append_all(&self, events: impl IntoIterator<Item = SyncEvent>) -> Result<Vec<Receipt>> {
        self.store.append_all(events)
    }

    /// Records a message at any level.
    pub fn log(&self, company: &Company, level: Level, message: impl Into<String>) -> Result<Receipt> {
        self.append(SyncEvent::new(company.clone(), level, message))
    }

    /// Records a message at level INFO.
    pub fn info(&self, company: &Company, message: impl Into<String>) -> Result<Receipt> {
        self.log(company, Level::Info, message)
    }

    /// Records a message at level WARNING.
    pub fn warning(&self, company: &Company, message: impl Into<String>) -> Result<Receipt> {
        self.log(company, Level::Warning, message)
    }

    /// Records an error with its code and text.
    pub fn error(
        &self,
        company: &Company,
        message: impl Into<String>,
        code: impl Into<String>,
        text: impl Into<String>,
    ) -> Result<Receipt> {
        self.append(SyncEvent::new(company.clone(), Level::Error, message).with_error(code, text))
    }

    /// Records a message at level SUCCESS.
    pub fn success(&self, company: &Company, message: impl Into<String>) -> Result<Receipt> {
        self.log(company, Level::Success, message)
    }

    /// Records that a sync has started. [`SyncLog::start_run`] also ties what follows to it.
    pub fn sync_started(&self, company: &Company) -> Result<Receipt> {
        self.append(started(company))
    }

    /// Records how far a sync is: records so far, and what was done.
    pub fn sync_progress(
        &self,
        company: &Company,
        records: i64,
        message: impl Into<String>,
    ) -> Result<Receipt> {
        self.append(progress(company, records, message))
    }

    /// Records that a sync has ended well: records in all, and how long it took in seconds.
    pub fn sync_completed(&self, company: &Company, records: i64, seconds: f64) -> Result<Receipt> {
        self.append(completed(company, records, seconds))
    }

    /// Records that a sync has failed: the error's code and text.
    pub fn sync_failed(
        &self,
        company: &Company,
        code: impl Into<String>,
        text: impl Into<String>,
    ) -> Result<Receipt> {
        self.append(failed(company, code, text))
    }

    /// Records the start of a run under a new run id and returns a handle for what follows.
    pub fn start_run(&self, company: &Company) -> Result<Run> {
        let id = new_run_id()?;
        let receipt = self.append(started(company).with_run(&id))?;
        Ok(Run { log: self.clone(), company: company.clone(), id, receipt, since: Instant::now() })
    }

    /// A reader that sees everything durable at this moment. Its rows may lag behind it: see
    /// [`SyncReader::lag`].
    pub fn reader(&self) -> Result<SyncReader> {
        SyncReader::new(self.store.reader()?)
    }

    /// Finishes what is queued and releases the lock. See [`Store::close`].
    pub fn close(self) -> Result<()> {
        self.store.close()
    }
}

fn started(company: &Company) -> SyncEvent {
    let message = format!("Sync started for {}", company.name);
    SyncEvent::new(company.clone(), Level::Info, message).with_status(Status::Started)
}

fn progress(company: &Company, records: i64, message: impl Into<String>) -> SyncEvent {
    SyncEvent::new(company.clone(), Level::Info, message)
        .with_status(Status::InProgress)
        .with_records(records)
}

fn completed(company: &Company, records: i64, seconds: f64) -> SyncEvent {
    let message = format!("Sync completed successfully: {records} records synced in {seconds:.2} seconds");
    SyncEvent::new(company.clone(), Level::Success, message)
        .with_status(Status::Completed)
        .with_records(records)
        .with_duration(seconds)
}

fn failed(company: &Company, code: impl Into<String>, text: impl Into<String>) -> SyncEvent {
    let text = text.into();
    SyncEvent::new(company.clone(), Level::Error, format!("Sync failed: {text}"))
        .with_status(Status::Failed)
        .with_error(code, text)
}

/// 16 hex digits of time, so that run ids sort by their start, and 16 of chance.
fn new_run_id() -> Result<String> {
    let mut chance = [0; 8];
    getrandom::fill(&mut chance)
        .map_err(|error| Error::invalid("run", format!("cannot be given an id: {error}")))?;
    Ok(format!("{:016x}{:016x}", Timestamp::now().as_micros(), u64::from_le_bytes(chance)))
}

/// A run that has started. Dropping it records nothing: the run then stays open.
#[derive(Clone, Debug)]
pub struct Run {
    log: SyncLog,
    company: Company,
    id: String,
    receipt: Receipt,
    since: Instant,
}

impl Run {
    /// The run id that ties its events.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The receipt of its first event.
    pub fn receipt(&self) -> Receipt {
        self.receipt
    }

    /// Records how far the run is: records so far, and what was done.
    pub fn progress(&self, records: i64, message: impl Into<String>) -> Result<Receipt> {
        self.log.append(progress(&self.company, records, message).with_run(&self.id))
    }

    /// Records that the run has ended well, with the time since its start as its duration.
    pub fn complete(&self, records: i64) -> Result<Receipt> {
        let seconds = self.since.elapsed().as_secs_f64();
        self.log.append(completed(&self.company, records, seconds).with_run(&self.id))
    }

    /// Records that the run has failed.
    pub fn fail(&self, code: impl Into<String>, text: impl Into<String>) -> Result<Receipt> {
        let seconds = self.since.elapsed().as_secs_f64();
        self.log.append(failed(&self.company, code, text).with_duration(seconds).with_run(&self.id))
    }
}

/// A row as a query gives it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct LogEntry {
    /// The event's seq, which is the row's `id`.
    pub seq: u64,
    /// The event.
    pub event: SyncEvent,
    /// Its idempotency key.
    pub key: Option<String>,
}

impl LogEntry {
    /// Its place in the order of lists: where the page behind it starts ([`Filter::after`]), and the one before it
    /// ends ([`Filter::before`]).
    pub fn page_cursor(&self) -> PageCursor {
        // A row without a time is none that a reader gives.
        PageCursor { created_at: self.event.created_at.unwrap_or(Timestamp::MIN), id: self.seq }
    }
}

/// What the row of the largest event takes in SQLite, with its key and its frame, in bytes.
const LONGEST_ROW: usize = crate::MAX_EVENT_BYTES as usize + 64 * 1024;

/// Rows that are read at once, and about the bytes of them.
const PAGE_ROWS: u64 = if cfg!(test) { 7 } else { 4096 };
const PAGE_BYTES: usize = 4 * 1024 * 1024;

/// The history of sync runs, open for reading. Changes no byte of the store.
#[derive(Debug)]
pub struct SyncReader {
    reader: Reader<SyncEvent>,
    schema: Schema,
}

impl SyncReader {
    /// Opens the log in `dir` for reading.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        Self::new(Reader::open(dir)?)
    }

    fn new(reader: Reader<SyncEvent>) -> Result<Self> {
        Ok(Self { reader, schema: Schema::of::<SyncEvent>()? })
    }

    /// The log underneath: events in seq order, findings, sizes.
    pub fn reader(&self) -> &Reader<SyncEvent> {
        &self.reader
    }

    fn connect(&self) -> Result<(Db, Applied)> {
        let (db, applied) = self.reader.connect()?;
        query::register_test(&db, CONTAINS_FUNCTION, contains_any_case)
            .and_then(|()| db.limit_values(LONGEST_ROW))
            .map_err(|trouble| trouble.into_error(&self.reader.database()))?;
        Ok((db, applied))
    }

    /// The rows that pass the filter, in its order, one page of them.
    pub fn list(&self, filter: &Filter) -> Result<Vec<LogEntry>> {
        let mut entries = Vec::new();
        self.each(filter, |entry| {
            entries.push(entry);
            true
        })?;
        Ok(entries)
    }

    /// Hands the rows that pass the filter to `each`, until that returns `false`. Memory does not
    /// grow with their number.
    ///
    /// Rows are read some thousand at a time, each time as of one moment, and `each` is called while nothing is
    /// read: however slow it is, a writer can cut SQLite's write-ahead log back. So all rows together are not those
    /// of one moment. A row that is there all the time is given once, and none twice; one that comes meanwhile is
    /// given where its place in the order is still ahead.
    pub fn each(&self, filter: &Filter, mut each: impl FnMut(LogEntry) -> bool) -> Result<()> {
        let (db, _) = self.connect()?;
        let mut page = filter.clone();
        if let Some(start) = self.start_of(&db, filter)? {
            page.after = Some(start);
        }
        let (columns, mut left) = (self.schema.columns.join(", "), filter.limit.unwrap_or(u64::MAX));
        let mut first = true;
        while left > 0 {
            let most = left.min(PAGE_ROWS);
            page.limit = Some(most);
            let (sql, values) = if first {
                page.to_sql(&columns, self.schema.table)
            } else {
                page.one_of_many_sql(&columns, self.schema.table)
            };
            first = false;
            let (rows, whole) = query::some_rows(&db, &sql, &values, self.schema.columns.len(), PAGE_BYTES)
                .map_err(|trouble| trouble.into_error(&self.reader.database()))?;
            let done = whole && (rows.len() as u64) < most;
            left -= rows.len() as u64;
            for row in rows {
                let entry = entry(&row).map_err(|error| self.unreadable(row.id, &error))?;
                let place = entry.page_cursor();
                // A damaged index can lead in circles.
                let ahead = |before| if filter.reverse { place > before } else { place < before };
                if !page.after.is_none_or(ahead) {
                    return Err(self.unreadable(row.id, &Error::codec("it stands out of order")));
                }
                page.after = Some(place);
                if !each(entry) {
                    return Ok(());
                }
            }
            if done {
                break;
            }
        }
        Ok(())
    }

    /// The place behind which a page starts that ends before a place.
    fn start_of(&self, db: &Connection, filter: &Filter) -> Result<Option<PageCursor>> {
        let Some((sql, values)) = filter.start_sql(self.schema.table) else { return Ok(None) };
        let found = query::id_and_text(db, &sql, &values)
            .map_err(|trouble| trouble.into_error(&self.reader.database()))?;
        let place = |(id, time): (i64, String)| {
            let id_of = u64::try_from(id).map_err(|_| Error::codec("its id is negative"));
            let place = time.parse().and_then(|created_at| Ok(PageCursor { created_at, id: id_of? }));
            place.map_err(|error| self.unreadable(id, &error))
        };
        found.map(place).transpose()
    }

    fn unreadable(&self, id: i64, error: &Error) -> Error {
        Error::Projection {
            path: self.reader.database(),
            reason: format!("the row with id {id} cannot be read ({error})"),
            busy: false,
        }
    }

    fn each_of(
        &self,
        db: &Connection,
        sql: &str,
        values: &[crate::event::Value],
        each: &mut dyn FnMut(LogEntry, Option<Timestamp>) -> bool,
    ) -> Result<()> {
        let mut bad = None;
        query::each_row(db, sql, values, self.schema.columns.len(), |row| match entry(&row) {
            Ok(entry) => each(entry, codec::appended_at(&row.frame)),
            Err(error) => {
                bad = Some((row.id, error));
                false
            }
        })
        .map_err(|trouble| trouble.into_error(&self.reader.database()))?;
        match bad {
            None => Ok(()),
            Some((id, error)) => Err(self.unreadable(id, &error)),
        }
    }

    /// How many rows pass the filter on all pages together.
    pub fn count(&self, filter: &Filter) -> Result<u64> {
        let (db, _) = self.connect()?;
        let (sql, values) = filter.count_sql(self.schema.table);
        query::number(&db, &sql, &values).map_err(|trouble| trouble.into_error(&self.reader.database()))
    }

    /// The runs that pass the filter, oldest first by their start. Memory grows with their number.
    pub fn runs(&self, filter: &RunFilter) -> Result<Vec<RunSummary>> {
        let (db, _) = self.connect()?;
        let sql = format!(
            "SELECT {} FROM {} WHERE {} ORDER BY {}",
            self.schema.columns.join(", "),
            self.schema.table,
            RunJoiner::WHERE,
            RunJoiner::order(self.schema.table)
        );
        let mut joiner = RunJoiner::new(Timestamp::now(), filter.older_than);
        let mut runs = Vec::new();
        self.each_of(&db, &sql, &[], &mut |entry, appended| {
            runs.extend(joiner.push(entry.seq, &entry.event, appended).filter(|run| filter.matches(run)));
            true
        })?;
        runs.extend(joiner.finish().filter(|run| filter.matches(run)));
        runs.sort_by_key(|run| (run.started_at.unwrap_or(run.last_at), run.first_seq));
        Ok(runs)
    }

    /// How many rows are gone that were there once, by counting: somebody deleted them, and replay
    /// brings them back. Queries compare no more than that, and SQLite counts in its smallest index;
    /// [`Reader::verify`] compares every column of every row. An error where the database cannot be read.
    pub fn missing_rows(&self) -> Result<u64> {
        let (db, applied) = self.connect()?;
        let last = applied.seq.min(self.reader.last_seq());
        compare::lacking_between(&db, &self.schema, self.reader.first_seq(), last)
            .map_err(|trouble| trouble.into_error(&self.reader.database()))
    }

    /// How many events of the snapshot have no row yet.
    pub fn lag(&self) -> Result<u64> {
        let (_, applied) = self.connect()?;
        Ok(self.reader.last_seq().saturating_sub(applied.seq))
    }
}

fn entry(row: &FoundRow) -> Result<LogEntry> {
    let seq = u64::try_from(row.id).map_err(|_| Error::codec("its id is negative"))?;
    let key = match &row.key {
        crate::event::Value::Text(key) => Some(key.clone()),
        crate::event::Value::Null => None,
        _ => return Err(Error::codec("its key is no text")),
    };
    Ok(LogEntry { seq, event: SyncEvent::from_row(&row.values)?, key })
}
