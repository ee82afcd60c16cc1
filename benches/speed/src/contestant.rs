//! The trait that everything measured here implements, and the list of them.

use std::error::Error;
use std::path::Path;

use synclog::SyncEvent;

use crate::contestants::{
    fjall, json_lines, limit, okaywal, raft_engine, redb, seglog, sqlite, synclog_store,
};
use crate::table::Table;

/// Any error. What matters is that there is one, and its text.
pub type Failure = Box<dyn Error + Send + Sync>;

/// A result with that error.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// What one append takes in. It is made before the clock of that append starts.
pub enum Unit {
    /// For contestants that keep columns or text.
    Events(Vec<SyncEvent>),
    /// For contestants that keep bytes: the payloads that synclog writes for the same events.
    Records(Vec<Vec<u8>>),
}

impl Unit {
    /// The events, where the contestant has asked for events.
    pub fn events(self) -> Result<Vec<SyncEvent>> {
        match self {
            Self::Events(events) => Ok(events),
            Self::Records(_) => Err("records were given where events are needed".into()),
        }
    }

    /// The records, where the contestant has asked for records.
    pub fn records(self) -> Result<Vec<Vec<u8>>> {
        match self {
            Self::Records(records) => Ok(records),
            Self::Events(_) => Err("events were given where records are needed".into()),
        }
    }
}

/// Something that events are appended to. It is closed by dropping it.
pub trait Contestant: Sync {
    /// Whether it wants payloads instead of events.
    fn takes_records(&self) -> bool {
        true
    }

    /// Appends one unit, from the worker with this number, and returns when it is acknowledged.
    fn append(&self, worker: usize, unit: Unit) -> Result<()>;

    /// Does what is still to be done before a round counts as done: rows that follow, one sync at the end.
    fn settle(&self) -> Result<()> {
        Ok(())
    }
}

/// When an append is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syncs {
    /// Before each append is acknowledged.
    Each,
    /// When the round is over. Contestants that cannot leave out the sync of a commit do it anyway.
    End,
}

/// How a contestant is opened.
pub struct Setup<'a> {
    /// The table and the indexes of synclog's rows.
    pub table: &'a Table,
    /// How many threads append.
    pub workers: usize,
    /// When an append is on disk.
    pub syncs: Syncs,
}

/// All contestants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A checksummed frame and fdatasync, into zeros that were written before.
    Limit,
    /// synclog without its rows.
    SynclogLog,
    /// synclog with rows that are read back.
    Synclog,
    /// SQLite, WAL, a sync at each commit.
    SqliteFull,
    /// SQLite, WAL, a sync at each checkpoint.
    SqliteNormal,
    /// A log of Raft entries.
    RaftEngine,
    /// A write-ahead log.
    Okaywal,
    /// An LSM tree with a journal.
    Fjall,
    /// A copy-on-write B-tree.
    Redb,
    /// Segment files with one writer.
    Seglog,
    /// A text file.
    JsonLines,
}

impl Kind {
    /// All of them, in the order of the tables.
    pub const ALL: [Self; 11] = [
        Self::Limit,
        Self::SynclogLog,
        Self::Synclog,
        Self::SqliteFull,
        Self::SqliteNormal,
        Self::RaftEngine,
        Self::Okaywal,
        Self::Fjall,
        Self::Redb,
        Self::Seglog,
        Self::JsonLines,
    ];

    /// The name on the command line of a child, and of the directory.
    pub fn id(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::SynclogLog => "synclog-log",
            Self::Synclog => "synclog",
            Self::SqliteFull => "sqlite-full",
            Self::SqliteNormal => "sqlite-normal",
            Self::RaftEngine => "raft-engine",
            Self::Okaywal => "okaywal",
            Self::Fjall => "fjall",
            Self::Redb => "redb",
            Self::Seglog => "seglog",
            Self::JsonLines => "json-lines",
        }
    }

    /// The name in the tables.
    pub fn title(self) -> &'static str {
        match self {
            Self::Limit => "frame + fdatasync into written zeros",
            Self::SynclogLog => "synclog, log only",
            Self::Synclog => "synclog, projected and verified",
            Self::SqliteFull => "SQLite WAL FULL",
            Self::SqliteNormal => "SQLite WAL NORMAL",
            Self::RaftEngine => "raft-engine",
            Self::Okaywal => "okaywal",
            Self::Fjall => "fjall",
            Self::Redb => "redb",
            Self::Seglog => "seglog",
            Self::JsonLines => "JSON lines + fdatasync",
        }
    }

    /// Opens it in `dir`, which is empty or was made by it.
    pub fn open(self, dir: &Path, setup: &Setup<'_>) -> Result<Box<dyn Contestant>> {
        std::fs::create_dir_all(dir)?;
        Ok(match self {
            Self::Limit => Box::new(limit::Limit::open(dir)?),
            Self::SynclogLog => Box::new(synclog_store::SynclogStore::open(dir, setup, false)?),
            Self::Synclog => Box::new(synclog_store::SynclogStore::open(dir, setup, true)?),
            Self::SqliteFull => Box::new(sqlite::Sqlite::open(dir, setup, "FULL")?),
            Self::SqliteNormal => Box::new(sqlite::Sqlite::open(dir, setup, "NORMAL")?),
            Self::RaftEngine => Box::new(raft_engine::RaftEngine::open(dir, setup)?),
            Self::Okaywal => Box::new(okaywal::Okaywal::open(dir)?),
            Self::Fjall => Box::new(fjall::Fjall::open(dir, setup)?),
            Self::Redb => Box::new(redb::Redb::open(dir, setup)?),
            Self::Seglog => Box::new(seglog::Seglog::open(dir, setup)?),
            Self::JsonLines => Box::new(json_lines::JsonLines::open(dir, setup)?),
        })
    }
}

/// The version of a crate as this build has it.
pub fn version(name: &str) -> &'static str {
    let lock = include_str!("../Cargo.lock");
    let entry = format!("name = \"{name}\"\nversion = \"");
    lock.split(entry.as_str()).nth(1).and_then(|rest| rest.split('"').next()).unwrap_or("unknown")
}
