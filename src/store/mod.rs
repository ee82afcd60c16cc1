//! The store: a log and its projection, for any event type.
//!
//! One event down: prepare and encode (an error means that nothing was written), join the queue, one
//! write and one sync with whatever else is waiting (the durability point), one SQLite transaction,
//! read back and compare. Back up: lock, recovery, open the projection, compare, replay what is
//! missing, report. Read next: [`commit`], where all locks are.

mod commit;
#[cfg(all(test, unix))]
mod deletion_tests;
mod evidence;
#[cfg(test)]
mod fault_tests;
mod histories;
mod items;
mod keys;
mod known;
mod log_position;
#[cfg(all(test, unix))]
mod lost_record_tests;
mod mend;
#[cfg(test)]
mod neighbour_tests;
mod open;
mod opening;
mod options;
#[cfg(test)]
mod outside_tests;
mod project;
#[cfg(test)]
mod promise_tests;
mod reader;
mod rebuild;
mod report;
mod scan;
#[cfg(test)]
mod trigger_tests;
mod verify;
#[cfg(test)]
mod view_tests;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::anchor::Anchor;
use crate::application::{self, Held};
use crate::codec::{Salter, check_key, encode};
use crate::disk::{Disk, RealDisk};
use crate::error::{Error, Outcome, Result};
use crate::event::Event;
use crate::lock::WriterLock;
use crate::log::writer::{MAX_BATCH, batch_len};
use crate::store_id::StoreId;
use crate::threads;
use crate::time::Timestamp;

use commit::{Claimed, Confirm, Core, Entry, Promise, Rows, Shared, Slot, Waited, lock};
pub use items::{Item, Items, Stored};
pub use log_position::LogPosition;
pub use mend::RepairReport;
use opening::{BEHIND, Halt, Opening};
use options::LONGEST_WAIT;
pub use options::{MAX_EVENT_BYTES, Options};
pub use reader::Reader;
pub use report::OpenReport;
pub use verify::VerifySummary;

/// The answer to an append: the event is on disk (P1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt {
    /// The event's seq.
    pub seq: u64,
    /// Whether its row is in SQLite, read back and compared (P6). Where it is not, it follows
    /// while the handle lives, or when the store is opened again; where a trigger spoils it, not before the trigger
    /// is gone.
    pub projected: bool,
}

/// A store that is open for writing. Cheap to clone; the last clone closes it.
///
/// The handle writes only as long as its path leads to what it has opened: where the directory, the lock file
/// or the newest segment was removed, moved or replaced, the append at hand and all later ones fail
/// ([`Error::Displaced`]). In a forked child every call fails ([`Error::Forked`]), what has no error
/// answers as for an empty store, and closing and dropping do nothing. The child keeps the parent's lock until it
/// ends or runs another program, and it must not open the store anew before that: SQLite's state was copied
/// with it.
///
/// ```
/// # use synclog::{Company, Level, Options, Store, SyncEvent};
/// # let dir = tempfile::tempdir().unwrap();
/// let store = Store::<SyncEvent>::open(dir.path(), Options::default())?;
/// let company = Company::new("8f0c1d52", "4401", "Acme Traders");
/// let receipt = store.append(SyncEvent::new(company, Level::Info, "Sync started"))?;
/// assert_eq!(receipt.seq, 1);
/// store.close()?;
/// # Ok::<(), synclog::Error>(())
/// ```
#[derive(Clone)]
pub struct Store<E: Event> {
    inner: Arc<Inner<E>>,
}

struct Inner<E: Event> {
    dir: PathBuf,
    id: StoreId,
    shared: Arc<Shared<E>>,
    threads: Arc<Mutex<Option<Threads>>>,
    anchor: Arc<Anchor>,
    report: OpenReport,
    options: Options,
    salter: Salter,
    confirm: Arc<Confirm>,
    halt: Halt,
}

struct Threads {
    committer: JoinHandle<()>,
    /// None where the projection is switched off.
    projector: Option<JoinHandle<()>>,
    _lock: WriterLock,
}

/// A batch on its way to the disk; [`Store::submit`] returns one.
#[must_use = "the batch may still fail; wait for it"]
pub struct Ticket<E: Event> {
    slot: Arc<Slot>,
    shared: Arc<Shared<E>>,
    confirm: Arc<Confirm>,
    claimed: Option<Claimed<E>>,
    anchor: Arc<Anchor>,
}

impl<E: Event> fmt::Debug for Ticket<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").field("ready", &self.is_ready()).finish()
    }
}

impl<E: Event> fmt::Debug for Store<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("dir", &self.inner.dir)
            .field("id", &self.inner.id)
            .finish_non_exhaustive()
    }
}

impl<E: Event> Ticket<E> {
    /// Waits until the batch is durable, then for its rows at most as long as
    /// [`Options::projection_wait`]. One receipt for each event, in order.
    pub fn wait(self) -> Result<Vec<Receipt>> {
        self.anchor.check_process().map_err(|error| error.with_outcome(Outcome::Unknown))?;
        self.wait_here()
    }

    /// The same for whoever has just entered the batch.
    fn wait_here(self) -> Result<Vec<Receipt>> {
        let rows = &self.shared.rows;
        let (mut seqs, waited) = self.slot.wait(rows.patience())?;
        if let Some(claims) = self.claimed.as_ref().and_then(|claimed| claimed.get()) {
            seqs = self.confirm.settle(claims)?;
        }
        if waited == Waited::TimedOut {
            rows.stop_waiting();
        }
        let projected = match waited {
            Waited::RowsAreThere => vec![true; seqs.len()],
            Waited::Durable | Waited::TimedOut => rows.projected(&seqs),
        };
        Ok(seqs.into_iter().zip(projected).map(|(seq, projected)| Receipt { seq, projected }).collect())
    }

    /// Whether [`Ticket::wait`] would find the batch durable or failed already.
    pub fn is_ready(&self) -> bool {
        !self.anchor.is_in_its_process() || self.slot.is_answered()
    }
}

impl<E: Event> Store<E> {
    /// Opens the store in `dir` for writing: waits for the lock and recovers the log. The rows are brought up
    /// to date by a thread; this waits for it at most as long as [`Options::projection_wait`], and appends
    /// are taken behind it all the same (P5). See [`Store::open_report`] for what was found.
    pub fn open(dir: impl AsRef<Path>, options: Options) -> Result<Self> {
        let opened = Self::open_on(Arc::new(RealDisk), dir.as_ref(), options, false);
        // Opening is given no event.
        opened.map_err(|error| error.with_outcome(Outcome::NotWritten))
    }

    pub(crate) fn open_on(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: Options,
        trust_log: bool,
    ) -> Result<Self> {
        let opened = open::open::<E>(disk, dir, &options, trust_log)?;
        let position = opened.writer.position();
        let (dir, id) = (opened.projector.log.store_dir.clone(), opened.writer.store());
        let room = Arc::clone(&opened.projector.room);
        let keys = keys::KeyIndex::new(
            &dir,
            id,
            opened.projector.schema.clone(),
            position.seq - 1,
            options.projection,
            Arc::clone(&room),
        );
        let confirm = Arc::new(Confirm::new(opened.projector.log.clone()));
        let halt = opened.projector.halt.clone();
        let log = opened.projector.log.clone();
        let rows = Rows::new(
            position,
            0,
            options.projection.then(|| Box::new(opened.projector)),
            Some(if options.projection { BEHIND.into() } else { switched_off() }),
            options.projection_wait,
        );
        let shared = Arc::new(Shared::new(Core { writer: opened.writer, keys, room }, rows));
        let spawn_error = |error| Error::io("start a thread for", &dir, error);
        let (also, idle) = (Arc::clone(&shared), options.idle_mark);
        let commit = move || {
            // Whatever ends this thread, nobody waits for it after that.
            if let Err(error) = threads::guarded("synclog-commit", || also.run(idle)) {
                also.die(error);
            }
        };
        let committer = threads::spawn("synclog-commit", commit).map_err(spawn_error)?;
        let anchor = opened.lock.anchor();
        let mut threads = Threads { committer, projector: None, _lock: opened.lock };
        let mut report = opened.report;
        if options.projection {
            let also = Arc::clone(&shared);
            let (opening, reports) = Opening::new(report.clone(), log.clone());
            match threads::spawn(project::PROJECTOR, move || project::run::<E>(&also, Some(opening))) {
                Ok(projector) => {
                    threads.projector = Some(projector);
                    report = opening::await_report(reports, options.projection_wait, report, &log);
                }
                Err(error) => {
                    // The writer must be gone before the lock is.
                    shared.close();
                    drop(threads.committer.join());
                    return Err(spawn_error(error));
                }
            }
        }
        if let Some(cause) = shared.dead() {
            // The rows have shown that the log is not whole: that is told at once, where it shows in time.
            shared.close();
            let _ = threads.committer.join();
            let _ = threads.projector.map(JoinHandle::join);
            return Err(Error::clone(&cause));
        }
        if !options.projection {
            report.save(&log);
        }
        let (threads, salter) = (Arc::new(Mutex::new(Some(threads))), Salter::default());
        Ok(Self {
            inner: Arc::new(Inner {
                dir,
                id,
                shared,
                threads,
                anchor,
                report,
                options,
                salter,
                confirm,
                halt,
            }),
        })
    }

    /// Appends one event. When this returns, the event is on disk (P1).
    pub fn append(&self, event: E) -> Result<Receipt> {
        self.append_keyed(event, None)
    }

    /// Appends one event under an idempotency key of up to [`crate::MAX_KEY_BYTES`] bytes: the same
    /// append again returns the same seq; another event under the same key is
    /// [`Error::KeyConflict`], and a key of an event that this program cannot read [`Error::KeyUnreadable`]. Keys are looked up in the rows: whoever deletes rows by hand under an open
    /// store makes it forget their keys, until it is opened again.
    pub fn append_with_key(&self, event: E, key: &str) -> Result<Receipt> {
        self.append_keyed(event, Some(key.to_owned()))
    }

    fn append_keyed(&self, event: E, key: Option<String>) -> Result<Receipt> {
        let receipts = self.enter(vec![(event, key)], Shared::append)?.wait_here()?;
        receipts.first().copied().ok_or(Error::Closed)
    }

    /// Appends a batch atomically: after a crash all of it is there, or nothing. Its frames may take
    /// up to 32 MiB. An empty batch is fine and writes nothing.
    pub fn append_all(&self, events: impl IntoIterator<Item = E>) -> Result<Vec<Receipt>> {
        self.enter(events.into_iter().map(|event| (event, None)).collect(), Shared::append)?.wait_here()
    }

    /// Puts a batch into the queue and returns a ticket to wait on. Blocks only while 64 MiB of
    /// events are waiting.
    pub fn submit(&self, events: impl IntoIterator<Item = E>) -> Result<Ticket<E>> {
        self.submit_keyed(events.into_iter().map(|event| (event, None)).collect())
    }

    /// Like [`Store::submit`], with an idempotency key for each event that has one. Where all keys
    /// are known with the same content, the batch is a repeat; where only some are, it is refused.
    pub fn submit_keyed(&self, events: Vec<(E, Option<String>)>) -> Result<Ticket<E>> {
        self.enter(events, Shared::submit)
    }

    fn enter(
        &self,
        events: Vec<(E, Option<String>)>,
        join: impl FnOnce(&Shared<E>, Entry<E>) -> Result<()>,
    ) -> Result<Ticket<E>> {
        self.inner.anchor.check_process()?;
        let (slot, promise) = Promise::new();
        let claimed = events.iter().any(|(_, key)| key.is_some()).then(Claimed::default);
        let ticket = Ticket {
            slot,
            shared: Arc::clone(&self.inner.shared),
            confirm: Arc::clone(&self.inner.confirm),
            claimed: claimed.clone(),
            anchor: Arc::clone(&self.inner.anchor),
        };
        let now = Timestamp::now();
        let (mut encoded, mut keyed) = (Vec::with_capacity(events.len()), Vec::with_capacity(events.len()));
        for (mut event, key) in events {
            if let Some(key) = &key {
                check_key(key)?;
            }
            let given = key.as_ref().map(|_| application::copy(&event)).transpose()?;
            application::prepare(&mut event, now)?;
            encoded.push(encode(
                &event,
                key.as_deref(),
                self.inner.options.max_event_bytes,
                &self.inner.salter,
            )?);
            keyed.push(key.zip(given).map(|(key, given)| (key, Held::new(given), Held::new(event))));
        }
        let bytes = batch_len(&encoded);
        if bytes > MAX_BATCH {
            return Err(Error::TooLarge { what: "the batch", bytes, limit: MAX_BATCH });
        }
        if encoded.is_empty() {
            if let Some(cause) = self.inner.shared.dead() {
                return Err(Error::Dead { cause });
            }
            promise.put_all(Ok(Vec::new()));
        } else {
            join(&self.inner.shared, Entry { events: encoded, keyed, slot: promise, claimed })?;
        }
        Ok(ticket)
    }

    /// The store's directory, absolute.
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// The path of the database.
    pub fn database(&self) -> PathBuf {
        crate::projection::database_path(&self.inner.dir)
    }

    /// The store's identity.
    pub fn id(&self) -> StoreId {
        self.inner.id
    }

    /// What opening found and did. Where it says [`OpenReport::projection_pending`], the file `last-open.json`
    /// tells the rest when the rows have caught up.
    pub fn open_report(&self) -> &OpenReport {
        &self.inner.report
    }

    /// The seq of the newest durable event; 0 in an empty store.
    pub fn last_seq(&self) -> u64 {
        self.rows().map_or(0, |rows| rows.durable().seq - 1)
    }

    /// The newest event whose row is in SQLite.
    pub fn applied_seq(&self) -> u64 {
        self.rows().map_or(0, Rows::applied)
    }

    /// How far rows are; an error in a forked child, where nobody may wait for a lock.
    fn rows(&self) -> Result<&Rows<Box<project::Projector>>> {
        self.inner.anchor.check_process().map(|()| &self.inner.shared.rows)
    }

    /// Why the rows do not follow the log at present; `None` where they do.
    pub fn projection_trouble(&self) -> Option<String> {
        self.rows().map_or_else(|error| Some(error.to_string()), Rows::trouble)
    }

    /// Waits until every durable event has its row, at most `wait`. True where that is so.
    pub fn wait_projected(&self, wait: Duration) -> bool {
        let until = Instant::now() + wait.min(LONGEST_WAIT);
        self.rows().is_ok_and(|rows| rows.wait_caught_up(until))
    }

    /// A reader of this store that sees everything durable at this moment.
    pub fn reader(&self) -> Result<Reader<E>> {
        self.inner.anchor.check()?;
        Reader::beside(&self.inner.dir, self.inner.id, self.inner.shared.rows.durable())
    }

    /// Finishes the queue, proves the last group with a mark, and releases the lock. Other clones of
    /// this handle then get [`Error::Closed`]. Needs no free space on the disk. An error where an
    /// earlier write or sync had failed.
    ///
    /// Waits for rows that are still to come at most as long as [`Options::projection_wait`], and only while they come:
    /// where another process holds the database, or the disk is full, it tries once. What has no row then gets it when
    /// the store is opened again.
    pub fn close(self) -> Result<()> {
        self.inner.anchor.check_process()?;
        self.inner.shut();
        match self.inner.shared.dead() {
            Some(cause) => Err(Error::Dead { cause }),
            None => Ok(()),
        }
    }
}

/// Why rows do not follow where nobody makes any.
fn switched_off() -> String {
    "this handle makes no rows (Options::projection)".into()
}

impl<E: Event> Inner<E> {
    fn shut(&self) {
        let Some(threads) = lock(&self.threads).take() else { return };
        self.shared.close();
        // Neither ends in a panic: both catch what happens in them, and tell it.
        drop(threads.committer.join());
        self.halt.at(Instant::now() + self.options.projection_wait);
        self.shared.close_projection();
        if let Some(projector) = threads.projector {
            drop(projector.join());
        }
    }
}

impl<E: Event> Drop for Inner<E> {
    fn drop(&mut self) {
        if self.anchor.is_in_its_process() {
            self.shut();
        } else {
            // What a forked child has of these is the parent's: connections, locks, threads. Not even their
            // memory is touched, because a thread may have been at work on it at the moment of the fork.
            std::mem::forget((Arc::clone(&self.shared), Arc::clone(&self.threads)));
        }
    }
}
