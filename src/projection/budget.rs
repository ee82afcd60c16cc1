//! What SQLite may do for us.
//!
//! A database is a file that anyone may edit, and a small one can ask for any amount of work: a trigger without an
//! end, a view, an expression in an index, pages of a tree that share their children. So on every connection of
//! ours triggers and views are off, values have a limit, and the steps of SQLite's machine are counted: what needs
//! more of them than the file's size explains is no database that can be used, and is made anew from the log (P12).

use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use rusqlite::Connection;
use rusqlite::config::DbConfig;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::limits::Limit;

use crate::disk;

use super::{Trouble, beside};

/// The longest row, and the longest value: what an event's row may have, and the columns of the engine.
const LONGEST: i32 = (crate::faithful::MAX_ROW_BYTES + 64 * 1024) as i32;
/// SQLite's steps between two questions: some milliseconds.
const STEPS: i32 = 100_000;
/// Steps that one use of a connection may take in any case, and for each byte of the file. Comparing a row takes
/// some fifty, and one has some hundred bytes at least.
const ALLOWED: (u64, u64) = (10_000_000, 32);
/// Why a database is not used that needs more.
pub(super) const TOO_MUCH: &str =
    "it takes more work than its size explains: pages that share others, perhaps";

/// Whether what others make is kept from running. A test may want rows that are spoiled.
fn guarded() -> bool {
    #[cfg(test)]
    if crate::proof::outside::strangers_run() {
        return false;
    }
    true
}

/// Lets SQLite take so many bytes of memory in the whole process; beyond that its calls fail, and nothing is lost.
/// There is no limit by default. A later call can lower it, and neither raise it nor take it away.
/// Without this a database that anybody has edited takes at most some hundred megabytes. For programs that use
/// SQLite for nothing else, as synclog's own: the limit counts for all of it, whoever uses it.
pub fn limit_sqlite_memory(bytes: u64) {
    let set = |db: Connection| db.execute_batch(&format!("PRAGMA hard_heap_limit={bytes}"));
    // It is only a second line: nothing depends on it.
    let _ = Connection::open_in_memory().and_then(set);
}

/// A connection on a budget. Whoever takes the connection out of it begins with a fresh one.
pub(crate) struct Db {
    db: Connection,
    meter: Arc<Meter>,
}

#[derive(Default)]
struct Meter {
    /// The file, where its size bounds the work.
    path: Option<PathBuf>,
    /// Times that [`STEPS`] were made.
    used: AtomicU64,
    /// Whether to stop for other reasons.
    stop: OnceLock<Box<dyn Fn() -> bool + Send + Sync>>,
    /// No statement that adds rows is made any more.
    sealed: AtomicBool,
}

impl Meter {
    /// Called by SQLite after so many steps. Whether it is to stop.
    fn is_over(&self) -> bool {
        let used = self.used.fetch_add(1, Ordering::Relaxed) + 1;
        self.stop.get().is_some_and(|stop| stop()) || self.allowed(used) < used
    }

    fn allowed(&self, used: u64) -> u64 {
        let (always, each) = ALLOWED;
        let always = always / STEPS as u64;
        let Some(path) = self.path.as_ref().filter(|_| used > always) else { return u64::MAX };
        // What cannot be looked up has no size. A file may have grown since.
        let len = |path: &Path| disk::file_len(path).unwrap_or(0);
        let size = len(path).saturating_add(len(&beside(path, "-wal")));
        always.saturating_add(size.saturating_mul(each) / STEPS as u64)
    }
}

impl Db {
    /// A connection to the database at `path`.
    pub(super) fn new(mut db: Connection, path: &Path) -> Result<Self, Trouble> {
        // Neither triggers nor views of others are run, nor functions with side effects, nor does a foreign key of
        // theirs delete rows of theirs while ours are replaced.
        db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, !guarded())?;
        db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false)?;
        db.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
        db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, false)?;
        db.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
        // A check of the pages would run theirs.
        db.execute_batch("PRAGMA ignore_check_constraints=ON")?;
        for (limit, most) in [
            (Limit::SQLITE_LIMIT_LENGTH, LONGEST),
            (Limit::SQLITE_LIMIT_ATTACHED, 0),
            (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 256),
            (Limit::SQLITE_LIMIT_WORKER_THREADS, 0),
        ] {
            db.set_limit(limit, most)?;
        }
        let meter = Arc::new(Meter { path: Some(path.into()), ..Meter::default() });
        let also = Arc::clone(&meter);
        db.progress_handler(STEPS, Some(move || also.is_over()))?;
        Ok(Self { db, meter })
    }

    /// A connection to a database that only we have made.
    pub(super) fn private(db: Connection) -> Self {
        Self { db, meter: Arc::default() }
    }

    /// Statements that take long are given up where `stop` says so. Only the first one that is given counts.
    pub(crate) fn stop_where(&self, stop: impl Fn() -> bool + Send + Sync + 'static) {
        // The rest of what has just been opened.
        let _ = self.meter.stop.set(Box::new(stop));
    }

    /// Whether it was told to stop.
    pub(super) fn is_stopped(&self) -> bool {
        self.meter.stop.get().is_some_and(|stop| stop())
    }

    /// Minds who makes statements that add rows to `table`: see [`Db::seal`].
    pub(super) fn mind(&mut self, table: &'static str) -> Result<(), Trouble> {
        let meter = Arc::clone(&self.meter);
        let rule = move |context: AuthContext<'_>| match context.action {
            AuthAction::Insert { table_name } if table_name == table => {
                if meter.sealed.load(Ordering::Relaxed) { Authorization::Deny } else { Authorization::Allow }
            }
            _ => Authorization::Allow,
        };
        Ok(self.db.authorizer(Some(rule))?)
    }

    /// From now on no statement is made that adds rows to that table; those that are kept go on as they are, at no
    /// cost. SQLite makes one anew when somebody has changed tables or indexes: it then fails, and nothing of
    /// theirs is run, an expression in an index say, before somebody has looked at it.
    pub(super) fn seal(&self) {
        self.meter.sealed.store(guarded(), Ordering::Relaxed);
    }

    /// Values may be `bytes` long at most.
    pub(crate) fn limit_values(&self, bytes: usize) -> Result<(), Trouble> {
        let most = i32::try_from(bytes).unwrap_or(LONGEST).min(LONGEST);
        self.db.set_limit(Limit::SQLITE_LIMIT_LENGTH, most)?;
        Ok(())
    }

    /// Closes it.
    pub(super) fn close(self) -> Result<(), Trouble> {
        self.db.close().map_err(|(_, error)| error.into())
    }
}

impl Deref for Db {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.meter.used.store(0, Ordering::Relaxed);
        &self.db
    }
}

impl DerefMut for Db {
    fn deref_mut(&mut self) -> &mut Connection {
        self.meter.used.store(0, Ordering::Relaxed);
        &mut self.db
    }
}
