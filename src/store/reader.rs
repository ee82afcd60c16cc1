//! Reading without writing (P11): a snapshot of the log, and a connection to the rows.

use std::fmt;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::disk::{self, RealDisk};
use crate::error::{Error, Outcome, Result};
use crate::event::Event;
use crate::finding::{Finding, FindingKind};
use crate::lock;
use crate::log::cursor::{Cursor, Entry};
use crate::log::damage::all_gone;
use crate::log::directory::LogDir;
use crate::log::open::newest;
use crate::log::survey::Sighting;
use crate::log::tail;
use crate::log::view::LogView;
use crate::log::writer::Position;
use crate::projection::schema::Schema;
use crate::projection::unread;
use crate::projection::{self, Db, Trouble};
use crate::store_id::StoreId;

use super::evidence::{Fallback, peek};
use super::histories::{self, Log};
use super::items::Items;
use super::log_position::LogPosition;
use super::open::{check_type, contents, no_store};
use super::report::OpenReport;

/// How long a reader waits for a process that holds the database.
pub(super) const READ_WAIT: Duration = Duration::from_secs(2);

/// What the log has under a seq.
enum Place {
    /// The header checksum of the frame that ends with it.
    Event(u32),
    /// It is damaged, was given up, or the log starts behind it.
    Unreadable,
    /// The log ends before it.
    Beyond,
}

/// A store that is open for reading: a snapshot of the log. Changes no byte of the store (SQLite's
/// own `-shm` and an empty `-wal` excepted), takes no lock, and works
/// beside a writer, of which it sees what is proved durable. In a forked child it reads nothing
/// ([`Error::Forked`]): SQLite's state was copied with it.
pub struct Reader<E: Event> {
    view: LogView,
    schema: Schema,
    live_writer: bool,
    /// The process that opened it.
    process: u32,
    event: PhantomData<E>,
}

impl<E: Event> fmt::Debug for Reader<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("dir", &self.dir())
            .field("last_seq", &self.last_seq())
            .finish_non_exhaustive()
    }
}

impl<E: Event> Reader<E> {
    /// Opens a store for reading.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        let dir = disk::absolute(dir).map_err(|error| Error::io("resolve", dir, error))?;
        let schema = Schema::of::<E>()?;
        let log = LogDir::new(Arc::new(RealDisk), &dir);
        check_type::<E>(&log)?;
        // The answer holds only if no writer came or went while the log was looked at.
        let mut attempts = 0;
        loop {
            let live = lock::writer_lives(&RealDisk, &dir)?;
            let peeked = peek(&log, &schema, None, Duration::ZERO, Fallback::Nothing);
            let store = log.list()?.segments.last().map(|header| header.store);
            let witness = store.and_then(|store| peeked.witness(Some(store)));
            let (claim, mut rows) = (peeked.claim(store), peeked.rows::<E>(&schema));
            let view = match LogView::open_beside(log.clone(), witness, claim, &mut rows, live) {
                // Whoever holds the rows now: without them.
                Err(error) if error.is_busy() => LogView::open(log.clone(), witness, live)?,
                view => view?,
            };
            attempts += 1;
            if live != lock::writer_lives(&RealDisk, &dir)? && attempts < 10 {
                continue;
            }
            let Some(mut view) = view else {
                let found = contents(&log)?;
                if found == super::open::Contents::Store {
                    let mut findings = log.list()?.refusals;
                    if findings.is_empty() && attempts < 10 {
                        continue; // it was made while this looked
                    }
                    let own = tail::read(&log)?.map(|(_, witness)| witness);
                    findings.push(all_gone(&log, newest(peeked.witness(None), own)));
                    return Err(Error::Damaged { dir, findings });
                }
                return Err(no_store(&log, &found, false));
            };
            let found = histories::findings::<E>(&Log::of(&view), &peeked.sources(), &schema);
            view.findings
                .extend(found.or_else(|error| if error.is_busy() { Ok(Vec::new()) } else { Err(error) })?);
            let process = std::process::id();
            return Ok(Self { view, schema, live_writer: live, process, event: PhantomData });
        }
    }

    pub(super) fn beside(dir: &Path, store: StoreId, durable: Position) -> Result<Self> {
        let log = LogDir::new(Arc::new(RealDisk), dir);
        let listing = log.list()?;
        let view = LogView {
            store,
            segments: listing.segments.into(),
            horizon: durable,
            proved_seq: durable.seq,
            findings: listing.refusals,
            damage: None,
            sighting: Sighting::Elsewhere,
            end: None,
            log,
        };
        let (schema, process) = (Schema::of::<E>()?, std::process::id());
        Ok(Self { view, schema, live_writer: true, process, event: PhantomData })
    }

    fn check_process(&self) -> Result<()> {
        if self.process == std::process::id() {
            return Ok(());
        }
        Err(Error::Forked { opened_by: self.process, outcome: Outcome::NotWritten })
    }

    /// Every event from seq `from` on, in seq order, up to the end of the snapshot.
    pub fn items(&self, from: u64) -> Result<Items<E>> {
        self.check_process()?;
        let (cursor, missing) = self.view.cursor(from.max(1))?;
        Ok(Items::new(cursor, missing, &self.view))
    }

    /// Which events deletion records cover, as stretches from first to last seq, in their order. A record lies
    /// behind what it covers, so this reads the whole log; [`Reader::items`] still gives events that are
    /// deleted and not erased.
    pub fn deleted(&self) -> Result<Vec<(u64, u64)>> {
        self.check_process()?;
        crate::replay::deletions(&self.view)
    }

    /// Every event behind a position, once that was compared with the log: what [`Reader::check`] says is an
    /// error here.
    pub fn items_after(&self, position: &LogPosition) -> Result<Items<E>> {
        self.check(position)?;
        self.items(position.seq.saturating_add(1))
    }

    /// Whether the log still has the event that a position names. [`Error::PositionDiffers`] where it has another
    /// one under that seq, or ends before it: an older copy of the store was put in its place, for example, and
    /// whoever went on from there would miss what came since. Where the event is damaged, or was given up,
    /// nothing can be compared; whoever reads on meets that by itself.
    pub fn check(&self, position: &LogPosition) -> Result<()> {
        if position.store != self.id() {
            let what = format!("belongs to the store {}, this one is {}", position.store, self.id());
            return Err(Error::invalid("position", what));
        }
        let found = match self.find(position.seq)? {
            Place::Event(sum) if sum == position.checksum => return Ok(()),
            Place::Unreadable => return Ok(()),
            Place::Event(sum) => Some(sum),
            Place::Beyond => None,
        };
        Err(Error::PositionDiffers {
            dir: self.dir().to_owned(),
            seq: position.seq,
            checksum: Some(position.checksum),
            found,
            last_seq: self.last_seq(),
        })
    }

    /// The position behind the event with this seq. `None` for 0, which is before the first event, and where the
    /// event is damaged or was given up. [`Error::PositionDiffers`] where the log ends before it.
    pub fn position(&self, seq: u64) -> Result<Option<LogPosition>> {
        match self.find(seq)? {
            Place::Event(checksum) => Ok(Some(LogPosition { store: self.id(), seq, checksum })),
            Place::Unreadable => Ok(None),
            Place::Beyond => Err(Error::PositionDiffers {
                dir: self.dir().to_owned(),
                seq,
                checksum: None,
                found: None,
                last_seq: self.last_seq(),
            }),
        }
    }

    fn find(&self, seq: u64) -> Result<Place> {
        if seq < self.first_seq() {
            return Ok(Place::Unreadable);
        }
        let view = &self.view;
        let mut horizon = view.horizon;
        if seq > self.last_seq() {
            // Beside a writer it may be written and not be proved durable yet: a receipt can name such an event.
            let Some(last) = view.segments.headers.last().filter(|_| self.live_writer) else {
                return Ok(Place::Beyond);
            };
            horizon = Position { segment: last.number, offset: last.size, seq: u64::MAX };
        }
        let (mut cursor, _) = Cursor::new(view.log.clone(), &view.segments, seq, horizon)?;
        while let Some(entry) = cursor.next()? {
            let (last, sum) = match entry {
                Entry::Event { header, .. } => (header.seq, header.sum),
                Entry::Erased { seq, sum, .. } => (seq, sum),
                Entry::Gap { header, .. } => (header.next_seq() - 1, header.sum),
                Entry::Deletion { .. } => continue,
                Entry::Damage(_) => (u64::MAX, 0),
            };
            return Ok(match last {
                last if last == seq => Place::Event(sum),
                u64::MAX if seq > self.last_seq() => Place::Beyond,
                _ => Place::Unreadable,
            });
        }
        Ok(Place::Beyond)
    }

    /// What is wrong with the list of segments and with the log's end.
    pub fn findings(&self) -> &[Finding] {
        &self.view.findings
    }

    /// The first damaged frame of the last segment, as far as looking for the log's end met one.
    /// [`Reader::items`] and [`Reader::verify`] give every one, in all segments.
    pub fn damage(&self) -> Option<&Finding> {
        self.view.damage.as_ref()
    }

    /// The seq of the newest event in the snapshot; 0 where there is none.
    pub fn last_seq(&self) -> u64 {
        self.view.last_seq()
    }

    /// The seq of the newest event that is proved durable; 0 where there is none. After a crash, and
    /// until the next opening for writing, [`Reader::last_seq`] may be larger: what lies between was
    /// written, and a power cut could still take it back.
    pub fn proved_seq(&self) -> u64 {
        (self.view.proved_seq - 1).min(self.last_seq())
    }

    /// The seq of the first event that the log still has, or would have.
    pub fn first_seq(&self) -> u64 {
        self.view.first_seq()
    }

    /// The store's identity.
    pub fn id(&self) -> StoreId {
        self.view.store
    }

    /// Whether a writer held the store when the snapshot was taken.
    pub fn has_live_writer(&self) -> bool {
        self.live_writer
    }

    /// The store's directory, absolute.
    pub fn dir(&self) -> &Path {
        &self.view.log.store_dir
    }

    /// The path of the database.
    pub fn database(&self) -> PathBuf {
        projection::database_path(self.dir())
    }

    /// The report of the last opening for writing; `None` where none was kept.
    pub fn last_open_report(&self) -> Option<OpenReport> {
        OpenReport::load(self.dir())
    }

    /// Bytes of the log's segments.
    pub fn log_bytes(&self) -> u64 {
        self.view.segments.headers.iter().map(|header| header.size).sum()
    }

    /// Bytes of the database and of the log that SQLite keeps beside it.
    pub fn database_bytes(&self) -> u64 {
        let path = self.database();
        // For show: what cannot be looked up is told where it is read.
        let len = |path: &std::path::Path| disk::file_len(path).unwrap_or(0);
        len(&path) + len(&projection::beside(&path, "-wal"))
    }

    /// The store that the database names, and the newest event that its rows reflect. The id differs
    /// from [`Reader::id`] where the database was put there from another store. [`Error::Io`] where the
    /// system does not let SQLite open it, on a read-only file system for example.
    pub fn database_identity(&self) -> Result<(StoreId, u64)> {
        self.check_process()?;
        let path = self.database();
        match self.connect_as(None) {
            Ok((_, store, applied)) => Ok((store, applied.seq)),
            Err(Trouble::Failed(reason)) => Err(Error::io("open", &path, std::io::Error::other(reason))),
            Err(trouble) => Err(trouble.into_error(&path)),
        }
    }

    /// How many events have rows already where rows are being made anew, and are not to be seen before all are
    /// there; `None` where that is not so. A writer goes on with it, or `replay` does.
    pub fn rows_in_making(&self) -> Option<u64> {
        let db = projection::open_for_reading(&self.database(), READ_WAIT).ok()?;
        projection::rebuild::unfinished(&db).ok()?
    }

    /// Events that have no rows because this program cannot read them, as one finding; `None` where the rows know
    /// of none. [`Reader::verify`] names each. An error where the database cannot be read.
    pub fn unread_events(&self) -> Result<Option<Finding>> {
        let path = self.database();
        let counted = self.connect_in_place().and_then(|(db, _)| unread::count(&db));
        let (count, first) = counted.map_err(|trouble| trouble.into_error(&path))?;
        let what = format!(
            "{count} event(s) have no rows, because this program cannot read them; `synclog verify` names each"
        );
        Ok((count > 0).then(|| Finding::new(FindingKind::UnknownEvent, what).seq(first)))
    }

    /// The process id of the writer that held the store when the snapshot was taken, as far as the
    /// lock file tells.
    pub fn writer_pid(&self) -> Option<u32> {
        if self.live_writer { lock::holder(&lock::lock_path(self.dir())) } else { None }
    }

    pub(super) fn view(&self) -> &LogView {
        &self.view
    }

    pub(super) fn schema(&self) -> &Schema {
        &self.schema
    }

    /// Connects to the rows and checks that they are this store's. Where SQLite cannot open the
    /// database because the file system is read-only, a private copy is made from the log, in
    /// SQLite's temporary files.
    pub(crate) fn connect(&self) -> Result<(Db, projection::Applied)> {
        self.check_process()?;
        let path = self.database();
        let into = |trouble: Trouble| trouble.into_error(&path);
        match self.connect_in_place() {
            Ok(found) => Ok(found),
            Err(Trouble::Failed(_)) => {
                let db = projection::Projection::temporary(&self.schema, self.id()).map_err(into)?;
                let applied = crate::replay::fill::<E>(&db, &self.schema, &self.view)
                    .map_err(|stop| stop.into_error(&path))?;
                Ok((db, applied))
            }
            Err(trouble) => Err(into(trouble)),
        }
    }

    /// Connects to the rows in the store.
    pub(super) fn connect_in_place(&self) -> Result<(Db, projection::Applied), Trouble> {
        self.connect_as(Some(self.id())).map(|(db, _, applied)| (db, applied))
    }

    /// Connects to the rows in the store, whichever store they belong to where `store` is `None`. What passes,
    /// because somebody puts another database in the place of this one just now, is no answer.
    fn connect_as(&self, store: Option<StoreId>) -> Result<(Db, StoreId, projection::Applied), Trouble> {
        const ATTEMPTS: u32 = 6;
        let path = self.database();
        // Only whether anything has changed matters.
        let looks = || (disk::identity(&path).ok(), disk::identity(&projection::beside(&path, ".new")).ok());
        for attempt in 1..ATTEMPTS {
            let before = looks();
            let found = self.connect_once(store);
            let passes = match &found {
                Ok(_) | Err(Trouble::Busy(_) | Trouble::Foreign(_)) => false,
                // As above.
                Err(_) => before != looks() || (before.0 == Some(None) && before.1 != Some(None)),
            };
            if !passes {
                return found;
            }
            std::thread::sleep(Duration::from_millis(5) * attempt);
        }
        self.connect_once(store)
    }

    fn connect_once(&self, store: Option<StoreId>) -> Result<(Db, StoreId, projection::Applied), Trouble> {
        let path = self.database();
        // What cannot be looked up fails below.
        if disk::identity(&path).is_ok_and(|found| found.is_none()) {
            return Err(Trouble::Unusable("the database is not there".into()));
        }
        let check = |db: Db| {
            let (found, applied) = projection::check(&db, &self.schema, store)?;
            Ok((db, found, applied))
        };
        match projection::open_for_reading(&path, READ_WAIT).and_then(check) {
            Err(Trouble::Failed(reason)) => {
                // With nothing in the write-ahead log and nobody writing, the file alone is the
                // database, and SQLite can read it without making files beside it.
                let alone = disk::file_len(&projection::beside(&path, "-wal")).is_ok_and(|len| len == 0);
                if alone && !self.live_writer {
                    projection::open_immutable(&path).and_then(check)
                } else {
                    Err(Trouble::Failed(reason))
                }
            }
            other => other,
        }
    }
}
