//! What opening has learned before rows are brought up to the log, so that nothing is looked at twice.

use std::path::Path;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::disk::{self, FileIdentity};
use crate::log::cursor::Segments;
use crate::projection::compare::Tally;
use crate::projection::schema::Schema;
use crate::projection::{self, Connection, Db};
use crate::threads;

/// What opening has learned.
#[derive(Default)]
pub(super) struct Known {
    /// What recovery has found of the log.
    pub(super) segments: Option<Segments>,
    /// The database, where it was found to be this store's.
    pub(super) rows: Option<KnownRows>,
}

/// A database that was found to be this store's.
pub(super) struct KnownRows {
    /// Which file it was.
    pub(super) identity: FileIdentity,
    /// Only reads.
    pub(super) db: Db,
    pub(super) counting: Option<Counting>,
}

/// Rows that are being counted in a thread of its own while the log is walked through.
pub(super) struct Counting(Option<JoinHandle<Option<Tally>>>);

impl Counting {
    /// Starts to count where there are about so many rows in the database of this connection.
    pub(super) fn start(db: &Connection, database: &Path, schema: &Schema, rows: u64) -> Option<Self> {
        // Without a write-ahead log whoever reads keeps out whoever writes: ourselves.
        if rows < Tally::MANY || !projection::uses_wal(db) {
            return None;
        }
        let (path, schema) = (database.to_owned(), schema.clone());
        let count = move || {
            // Whoever needs the tally counts again, and meets the error.
            let db = projection::open_for_reading(&path, Duration::ZERO).ok()?;
            // Each page is looked at once: a few buffers that stay warm are faster than many. Nor does a count
            // depend on what is in the cells of a leaf, so that looking at each takes longer than counting.
            db.execute_batch("PRAGMA cache_size=32; PRAGMA cell_size_check=OFF").ok()?;
            Tally::soon(&db, &schema, rows).ok()
        };
        // Without a thread whoever needs the tally counts.
        threads::spawn("synclog-count", count).ok().map(|thread| Self(Some(thread)))
    }

    /// Waits for the tally. `None` where it failed; whoever needs one counts again, and meets the error.
    pub(super) fn tally(mut self) -> Option<Tally> {
        self.0.take()?.join().ok()?
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        // An opening that failed leaves nobody behind who still has the database open.
        if let Some(thread) = self.0.take() {
            drop(thread.join());
        }
    }
}

impl KnownRows {
    /// Whether the path still leads to the file that was looked at.
    pub(super) fn is_in_place(&self, database: &Path) -> bool {
        disk::identity(database).is_ok_and(|found| found == Some(self.identity))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::projection::{Projection, Trouble};
    use crate::store::view_tests::event;
    use crate::store::{Options, Store};
    use crate::sync::SyncEvent;

    #[test]
    fn rows_are_counted_only_where_that_keeps_nobody_from_writing() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), Options::default()).unwrap();
        store.append_all((1..=9).map(event)).unwrap();
        store.close().unwrap();
        let schema = Schema::of::<SyncEvent>().unwrap();
        let database = projection::database_path(dir.path());
        let db = Connection::open(&database).unwrap();
        let start = || Counting::start(&db, &database, &schema, 9);
        assert_eq!(start().unwrap().tally(), Some(Tally::of(&db, &schema).unwrap()));
        db.query_row("PRAGMA journal_mode=DELETE", [], |_| Ok(())).unwrap();
        assert!(start().is_none());
    }

    #[test]
    fn a_database_that_was_replaced_while_it_was_opened_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::<SyncEvent>::open(dir.path(), Options::default()).unwrap();
        let id = store.id();
        store.close().unwrap();
        let schema = Schema::of::<SyncEvent>().unwrap();
        let database = projection::database_path(dir.path());
        let open = |identity| {
            let read = projection::open_for_reading(&database, Duration::ZERO).unwrap();
            Projection::open(&database, schema.clone(), id, Duration::ZERO, false, Some((read, identity)))
        };
        let looked_at = disk::identity(&database).unwrap().unwrap();
        assert!(open(looked_at).is_ok());
        // A copy takes its place, as a restored backup would.
        let copy = dir.path().join("copy");
        std::fs::copy(&database, &copy).unwrap();
        std::fs::rename(&copy, &database).unwrap();
        let replaced = open(looked_at).err();
        assert!(matches!(replaced, Some(Trouble::Busy(_))), "{replaced:?}");
    }
}
