//! Checkpoints off the commit path.
//!
//! SQLite moves its write-ahead log into the database inside the commit that made it long, and syncs both
//! files. Here a thread with a connection of its own does that beside the commits. What they add meanwhile is
//! little, and is moved by a last checkpoint between two commits, so that the log starts again from its
//! beginning and does not grow.
//!
//! Whoever reads for long keeps it from starting again. Once that is over it is cut back: by SQLite with the next
//! commit ([`KEPT`] is its `journal_size_limit`), and where none comes, by the thread.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use crate::disk::{self, FileIdentity};
use crate::room::Room;
use crate::threads;

use super::row::Row;
use super::{beside, open_connection};

/// Pages in the write-ahead log at which a checkpoint is due: 32 MiB. SQLite's own default is 1,000; but
/// commits write the same few pages again and again, so that this costs little more, and
/// fewer commits share the disk with a checkpoint.
const DUE: u64 = if cfg!(test) { 256 } else { 8192 };
/// Pages at which commits wait for the checkpoint.
const MOST: u64 = 8 * DUE;
/// Pages that the thread leaves to the last checkpoint.
const REST: i64 = 100;
/// Passes after which the thread lets go, however many pages are left.
const PASSES: usize = 4;

/// Bytes of its file that the write-ahead log keeps once all of it was moved: what it takes between two checkpoints.
pub(super) const KEPT: u64 = (DUE + DUE / 8) * 4096;
/// How long the file may be longer than that while nothing is committed, before the thread looks at it; and
/// at most, while somebody still reads.
const LOOK: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 500 });
const LONGEST_LOOK: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 8 });

/// Moves the write-ahead log into the database from time to time.
#[derive(Default)]
pub(super) struct Checkpoints {
    /// About so many pages are in the write-ahead log.
    pages: u64,
    worker: Option<Worker>,
    running: bool,
    commits: Arc<AtomicU64>,
    room: Option<Arc<Room>>,
}

struct Worker {
    ask: SyncSender<()>,
    done: Receiver<()>,
    thread: JoinHandle<()>,
}

impl Checkpoints {
    /// Does nothing while there is no room.
    pub(super) fn mind(&mut self, room: &Arc<Room>) {
        self.room = Some(Arc::clone(room));
    }

    /// Something was committed on `db`, which does not checkpoint by itself. It is the file at `path` with this
    /// identity.
    pub(super) fn committed(&mut self, db: &Connection, place: (&Path, Option<FileIdentity>), rows: &[Row]) {
        // A page of each tree is written anew by every commit, and a batch touches about a page of some tree
        // for every two rows; large rows have pages of their own. Nothing depends on how exact this is.
        let bytes: usize = rows.iter().map(Row::len).sum();
        self.written(db, place, 9 + rows.len() as u64 / 2 + bytes as u64 / 4096);
    }

    /// The same for much at once: an index, say.
    pub(super) fn committed_much(&mut self, db: &Connection, place: (&Path, Option<FileIdentity>)) {
        self.written(db, place, DUE);
    }

    fn written(&mut self, db: &Connection, (path, identity): (&Path, Option<FileIdentity>), pages: u64) {
        self.pages += pages;
        self.commits.fetch_add(1, Ordering::Relaxed);
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
            self.worker = Worker::new(path, identity, Arc::clone(&self.commits), self.room.clone());
        }
        match &self.worker {
            Some(worker) if worker.ask.try_send(()).is_ok() => self.running = true,
            // Without a thread it is done here.
            _ => self.finish(db),
        }
    }

    fn finish(&mut self, db: &Connection) {
        let left = checkpoint(db, "PASSIVE").unwrap_or(0);
        self.pages = left.max(0) as u64;
    }
}

impl Drop for Checkpoints {
    fn drop(&mut self) {
        if let Some(Worker { ask, done, thread }) = self.worker.take() {
            drop((ask, done));
            // A checkpoint that died has moved less, and nothing depends on it.
            drop(thread.join());
        }
    }
}

impl Worker {
    fn new(
        path: &Path,
        identity: Option<FileIdentity>,
        commits: Arc<AtomicU64>,
        room: Option<Arc<Room>>,
    ) -> Option<Self> {
        let (ask, asked) = sync_channel(1);
        // One answer for each question, so that sending never waits.
        let (answer, done) = sync_channel(1);
        let path: PathBuf = path.into();
        let thread = threads::spawn("synclog-checkpoint", move || {
            // When to look at the file's length.
            let mut look: Option<Duration> = None;
            let mut seen = 0;
            loop {
                let question = match look {
                    Some(pause) => asked.recv_timeout(pause),
                    None => asked.recv().map_err(|_| RecvTimeoutError::Disconnected),
                };
                // Opened for each time: the file may have been replaced since, by a rebuild for example, or by
                // that of another store, which is none of our business.
                let open = || {
                    let ours = disk::identity(&path).is_ok_and(|found| found == identity)
                        && room.as_ref().is_none_or(|room| room.is_there());
                    ours.then(|| {
                        // It is tried again after the next commits.
                        open_connection(&path, OpenFlags::SQLITE_OPEN_READ_WRITE, Duration::ZERO).ok()
                    })?
                };
                match (question, look) {
                    (Ok(()), _) => {
                        if let Some(db) = open() {
                            let enough =
                                |_: &usize| checkpoint(&db, "PASSIVE").is_none_or(|left| left <= REST);
                            // Whether it was enough is seen at the next commit.
                            let _ = (0..PASSES).find(enough);
                        }
                        if answer.send(()).is_err() {
                            return;
                        }
                        look = Some(LOOK);
                    }
                    (Err(RecvTimeoutError::Timeout), Some(pause)) => {
                        let now = commits.load(Ordering::Relaxed);
                        let idle = now == std::mem::replace(&mut seen, now);
                        // What cannot be looked up is looked at again later.
                        look = if disk::file_len(&beside(&path, "-wal")).is_ok_and(|len| len <= KEPT) {
                            None
                        } else if idle {
                            // It is tried again after the next commits.
                            let _ = open().map(|db| checkpoint(&db, "TRUNCATE"));
                            Some((pause * 2).min(LONGEST_LOOK))
                        } else {
                            Some(LOOK)
                        };
                    }
                    (Err(_), _) => return,
                }
            }
        });
        // Without a thread the commits do it.
        Some(Self { ask, done, thread: thread.ok()? })
    }
}

/// Moves what can be moved without waiting for anybody. How many pages are left; `None` where SQLite says
/// that nothing could be done now.
fn checkpoint(db: &Connection, mode: &str) -> Option<i64> {
    let done: rusqlite::Result<(i64, i64, i64)> = db
        .prepare_cached(&format!("PRAGMA wal_checkpoint({mode})"))
        .and_then(|mut run| run.query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))));
    // A failure is met again by whoever reads or commits.
    done.ok().filter(|(busy, ..)| *busy == 0).map(|(_, pages, moved)| pages - moved)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::store::Store;
    use crate::sync::{Company, Level, SyncEvent};

    #[test]
    fn the_write_ahead_log_is_cut_back_when_whoever_read_has_gone() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::<SyncEvent>::open(dir.path(), crate::Options::default()).unwrap();
        let event = |text: &str| SyncEvent::new(Company::new("g", "1", "n"), Level::Info, text);
        store.append(event("first")).unwrap();
        let reader = super::super::open_for_reading(&store.database(), Duration::ZERO).unwrap();
        reader.execute_batch("BEGIN; SELECT count(*) FROM sync_logs").unwrap();
        let wal = beside(&store.database(), "-wal");
        // A few large rows count as well.
        let text = "x".repeat(100_000);
        let mut appended = 1;
        while disk::file_len(&wal).unwrap() < 4 * KEPT {
            store.append(event(&text)).unwrap();
            appended += 1;
            assert!(appended < 1000, "the log does not grow");
        }
        assert!(store.wait_projected(Duration::from_secs(30)));
        drop(reader);
        // Nothing more is appended.
        let start = Instant::now();
        while disk::file_len(&wal).unwrap() > KEPT {
            assert!(start.elapsed() < Duration::from_mins(1), "{} bytes stay", disk::file_len(&wal).unwrap());
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(store.append(event("last")).unwrap().projected);
        store.close().unwrap();
    }
}
