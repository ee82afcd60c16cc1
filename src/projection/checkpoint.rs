//! Checkpoints off the commit path.
//!
//! SQLite moves its write-ahead log into the database inside the commit that made it long, and syncs both
//! files. Here a thread with a connection of its own does that beside the commits. What they add meanwhile is
//! little, and is moved by a last checkpoint between two commits, so that the log starts again from its
//! beginning and does not grow.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use crate::disk::{self, FileIdentity};
use crate::threads;

use super::open_connection;

/// Pages in the write-ahead log at which a checkpoint is due: 32 MiB. SQLite's own default is 1,000; but
/// commits write the same few pages again and again, so that this costs little more, and
/// fewer commits share the disk with a checkpoint.
const DUE: u64 = 8192;
/// Pages at which commits wait for the checkpoint.
const MOST: u64 = 8 * DUE;
/// Pages that the thread leaves to the last checkpoint.
const REST: i64 = 100;
/// Passes after which the thread lets go, however many pages are left.
const PASSES: usize = 4;

/// Moves the write-ahead log into the database from time to time.
#[derive(Default)]
pub(super) struct Checkpoints {
    /// About so many pages are in the write-ahead log.
    pages: u64,
    worker: Option<Worker>,
    running: bool,
}

struct Worker {
    ask: SyncSender<()>,
    done: Receiver<()>,
    thread: JoinHandle<()>,
}

impl Checkpoints {
    /// Something was committed on `db`, which does not checkpoint by itself: so many rows. It is the file at
    /// `path` with this identity.
    pub(super) fn committed(
        &mut self,
        db: &Connection,
        (path, identity): (&Path, Option<FileIdentity>),
        rows: usize,
    ) {
        // A page of each tree is written anew by every commit, and a batch touches about a page of some tree
        // for every two rows. Nothing depends on how exact this is.
        self.pages += 9 + rows as u64 / 2;
        if self.pages < DUE {
            return;
        }
        let Some(worker) = self.worker.as_ref().filter(|_| self.running) else {
            self.start(db, path, identity);
            return;
        };
        match worker.done.try_recv() {
            Err(TryRecvError::Empty) if self.pages < MOST => return,
            Err(TryRecvError::Disconnected) => self.worker = None,
            Ok(()) | Err(TryRecvError::Empty) => {}
        }
        self.running = false;
        self.finish(db);
    }

    fn start(&mut self, db: &Connection, path: &Path, identity: Option<FileIdentity>) {
        if self.worker.is_none() {
            self.worker = Worker::new(path, identity);
        }
        match &self.worker {
            Some(worker) if worker.ask.try_send(()).is_ok() => self.running = true,
            // Without a thread it is done here.
            _ => self.finish(db),
        }
    }

    fn finish(&mut self, db: &Connection) {
        let left = checkpoint(db).unwrap_or(0);
        self.pages = left.max(0) as u64;
    }
}

impl Drop for Checkpoints {
    fn drop(&mut self) {
        if let Some(Worker { ask, done, thread }) = self.worker.take() {
            drop((ask, done));
            let _ = thread.join();
        }
    }
}

impl Worker {
    fn new(path: &Path, identity: Option<FileIdentity>) -> Option<Self> {
        let (ask, asked) = sync_channel(1);
        // One answer for each question, so that sending never waits.
        let (answer, done) = sync_channel(1);
        let path: PathBuf = path.into();
        let thread = threads::spawn("synclog-checkpoint", move || {
            while asked.recv().is_ok() {
                // Opened for each time: the file may have been replaced since, by a rebuild for example, or by
                // that of another store, which is none of our business.
                if disk::identity(&path).is_ok_and(|found| found == identity)
                    && let Ok(db) = open_connection(&path, OpenFlags::SQLITE_OPEN_READ_WRITE, Duration::ZERO)
                {
                    let enough = |_: &usize| checkpoint(&db).is_none_or(|left| left <= REST);
                    let _ = (0..PASSES).find(enough);
                }
                if answer.send(()).is_err() {
                    return;
                }
            }
        });
        Some(Self { ask, done, thread: thread.ok()? })
    }
}

/// Moves what can be moved without waiting for anybody. How many pages are left; `None` where SQLite says
/// that nothing could be done now.
fn checkpoint(db: &Connection) -> Option<i64> {
    let done: rusqlite::Result<(i64, i64, i64)> = db
        .prepare_cached("PRAGMA wal_checkpoint(PASSIVE)")
        .and_then(|mut run| run.query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))));
    done.ok().filter(|(busy, ..)| *busy == 0).map(|(_, pages, moved)| pages - moved)
}
