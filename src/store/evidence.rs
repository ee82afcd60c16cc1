//! What stands beside the log and may know more than it holds: the database, whether it can serve as the view or
//! not, and those that lie in `quarantine/`.
//!
//! Whoever looks at a log asks them first. Their rows heal what they prove; the newest event that one says it has
//! applied is a witness where its row vouches for it. One that is no view any more, because an upgrade or somebody
//! else has changed its tables, is no worse a witness for that (P3, P9).

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::disk::{self, FileIdentity};
use crate::error::{Error, Result};
use crate::event::Event;
use crate::log::directory::LogDir;
use crate::log::open::{Unread, newest};
use crate::log::survey::Witness;
use crate::projection::schema::Schema;
use crate::projection::{self, Connection, Db, Trouble};
use crate::replay::RowDonor;
use crate::store_id::StoreId;

/// So many databases in quarantine are asked, the newest ones.
const MOST_IN_QUARANTINE: usize = 8;
/// How the names of databases in quarantine begin, and how those begin that are not asked any more.
const KEPT: &str = "database-";
const ENDING: &str = ".db";
const OVERRULED: &str = "overruled-";

/// What was found beside the log before it was looked at.
pub(super) struct Peeked {
    /// The connection, where the database is this store's and has its tables.
    pub(super) db: Option<Db>,
    /// Databases that can only give evidence. The store's own comes first, where it is one of them.
    others: Vec<(PathBuf, Db)>,
    said: Vec<Said>,
    /// It cannot be read now, so that nothing is known.
    pub(super) unread: Option<Unread>,
    pub(super) applied: u64,
    /// Which file it was.
    pub(super) identity: Option<FileIdentity>,
    database: PathBuf,
}

/// The newest event that a database says it has applied.
struct Said {
    store: StoreId,
    applied: Witness,
    /// Its row says the same.
    vouched: bool,
}

impl Said {
    fn of(db: &Connection, schema: &Schema) -> std::result::Result<Option<Self>, Trouble> {
        let Some(store) = projection::store_of(db) else { return Ok(None) };
        let Some(applied) = projection::evidence(db, store) else { return Ok(None) };
        let vouched = projection::vouches_for(db, schema, applied)?;
        Ok(Some(Self { store, applied: Witness { seq: applied.seq, sum: applied.sum }, vouched }))
    }
}

impl Peeked {
    /// The store that the rows say they are of.
    pub(super) fn store(&self) -> Option<StoreId> {
        self.sources().into_iter().find_map(|(_, db)| projection::store_of(db))
    }

    fn newest(&self, store: Option<StoreId>, vouched: bool) -> Option<Witness> {
        let store = store.or(self.store())?;
        let fits = |said: &&Said| said.store == store && said.vouched == vouched && said.applied.seq > 0;
        self.said.iter().filter(fits).fold(None, |most, said| newest(most, Some(said.applied)))
    }

    /// The newest event of `store` that rows vouch for; without a log, of the store that they say they are of.
    pub(super) fn witness(&self, store: Option<StoreId>) -> Option<Witness> {
        self.newest(store, true)
    }

    /// The newest applied seq without a row that vouches for it.
    pub(super) fn claim(&self, store: Option<StoreId>) -> Option<Witness> {
        self.newest(store, false)
    }

    /// Every database that can be asked, with its path.
    pub(super) fn sources(&self) -> Vec<(&Path, &Connection)> {
        let own = self.db.as_deref().map(|db| (self.database.as_path(), db));
        own.into_iter().chain(self.others.iter().map(|(path, db)| (path.as_path(), &**db))).collect()
    }

    /// The store's own database among them.
    pub(super) fn own(&self) -> Option<&Connection> {
        self.sources().into_iter().find(|(path, _)| *path == self.database).map(|(_, db)| db)
    }

    /// Their rows.
    pub(super) fn rows<'a, E: Event>(&'a self, schema: &'a Schema) -> RowDonor<'a, E> {
        RowDonor::of(self.sources().into_iter().map(|(_, db)| db), schema)
    }
}

/// What to try where the system does not let SQLite open the database for reading alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fallback {
    Nothing,
    /// For whoever holds the lock: a kill can leave a journal that only a writer may roll back.
    ReadWrite,
    /// Where nobody writes: on a read-only file system the file alone is the database.
    FileAlone,
}

/// Asks what there is, before the log is looked at.
pub(super) fn peek(
    log: &LogDir,
    schema: &Schema,
    store: Option<StoreId>,
    wait: Duration,
    fallback: Fallback,
) -> Peeked {
    let mut peeked = Peeked {
        db: None,
        others: Vec::new(),
        said: Vec::new(),
        unread: None,
        applied: 0,
        identity: None,
        database: projection::database_path(&log.store_dir),
    };
    peeked.look_at_own(schema, store, wait, fallback);
    for path in in_quarantine(log).into_iter().rev().take(MOST_IN_QUARANTINE) {
        let asked = open_kept(&path).and_then(|db| Ok((Said::of(&db, schema)?, db)));
        match asked {
            Ok((said, db)) => {
                peeked.said.extend(said);
                peeked.others.push((path, db));
            }
            Err(trouble) => {
                tracing::warn!(path = %path.display(), reason = trouble.reason(), "a database in quarantine cannot be asked");
            }
        }
    }
    peeked
}

impl Peeked {
    fn look_at_own(&mut self, schema: &Schema, store: Option<StoreId>, wait: Duration, fallback: Fallback) {
        let path = &self.database;
        match disk::identity(path) {
            Ok(None) => return,
            Ok(found) => self.identity = found,
            // What cannot be looked up may be there, and tell.
            Err(error) => {
                self.unread = Some(Unread { reason: error.to_string(), busy: false });
                return;
            }
        }
        let look = |db: Db| {
            let view = match projection::check(&db, schema, store) {
                Err(trouble @ (Trouble::Busy(_) | Trouble::Failed(_))) => return Err(trouble),
                // It is no view, and evidence all the same.
                Err(_) => None,
                Ok((_, applied)) => Some(applied),
            };
            Ok((view, Said::of(&db, schema)?, db))
        };
        let mut opened = projection::open_for_reading(path, wait).and_then(look);
        if matches!(opened, Err(Trouble::Failed(_))) {
            // One that cannot be looked up may hold something.
            let alone = disk::file_len(&projection::beside(path, "-wal")).is_ok_and(|len| len == 0);
            opened = match fallback {
                Fallback::ReadWrite => projection::open_existing(path, wait).and_then(look),
                Fallback::FileAlone if alone => projection::open_immutable(path).and_then(look),
                _ => opened,
            };
        }
        match opened {
            Ok((view, said, db)) => {
                self.said.extend(said);
                match view {
                    Some(applied) => (self.applied, self.db) = (applied.seq, Some(db)),
                    None => self.others.push((self.database.clone(), db)),
                }
            }
            Err(Trouble::Busy(reason)) => self.unread = Some(Unread { reason, busy: true }),
            Err(Trouble::Failed(reason)) => self.unread = Some(Unread { reason, busy: false }),
            // What is no database says nothing.
            Err(_) => {}
        }
    }
}

/// The databases in quarantine, the oldest first. What cannot be listed is not asked: their evidence is a second one.
fn in_quarantine(log: &LogDir) -> Vec<PathBuf> {
    let dir = log.quarantine_dir();
    let mut names = match log.disk.list(&dir) {
        Ok(names) => names,
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(%error, "the databases in quarantine cannot be asked");
            }
            return Vec::new();
        }
    };
    names.retain(|name| name.strip_prefix(KEPT).and_then(|rest| rest.strip_suffix(ENDING)).is_some());
    names.sort_unstable();
    names.into_iter().map(|name| dir.join(name)).collect()
}

/// Nobody writes to a database in quarantine: without a write-ahead log its file alone is all of it, and SQLite
/// makes nothing beside it.
fn open_kept(path: &Path) -> std::result::Result<Db, Trouble> {
    match disk::file_len(&projection::beside(path, "-wal")) {
        Ok(0) => projection::open_immutable(path),
        Ok(_) => projection::open_for_reading(path, Duration::ZERO),
        Err(error) => Err(Trouble::Failed(error.to_string())),
    }
}

/// Where a database goes that a new one has replaced.
pub(super) fn kept_path(log: &LogDir) -> PathBuf {
    let stamp: String = crate::Timestamp::now().to_string().chars().filter(char::is_ascii_digit).collect();
    log.quarantine_dir().join(format!("{KEPT}{stamp}{ENDING}"))
}

/// Moves a database, with the logs that SQLite keeps beside it. Those first, so that no crash leaves them to a new
/// database.
pub(super) fn move_database(from: &Path, to: &Path) -> io::Result<()> {
    for suffix in ["-wal", "-journal", "-shm", ""] {
        let part = projection::beside(from, suffix);
        if disk::identity(&part)?.is_some() {
            disk::rename_durably(&part, &projection::beside(to, suffix))?;
        }
    }
    Ok(())
}

/// Databases in quarantine are kept, and not asked any more: somebody has chosen the log.
pub(super) fn overrule(log: &LogDir) -> Result<()> {
    for path in in_quarantine(log) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let to = path.with_file_name(format!("{OVERRULED}{name}"));
        move_database(&path, &to).map_err(|error| Error::io("rename", &path, error))?;
    }
    Ok(())
}
