//! The store that was opened: is it still what its path leads to, and is this still the process that opened
//! it? Asked before a group is written and before it is acknowledged (P1).
//!
//! What was opened stays writable when somebody removes the directory, moves it, or puts a backup in its place;
//! only nobody finds it there any more. A lock file that was removed keeps nobody out. And a forked child has
//! all of it a second time.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, FileIdentity};
use crate::error::{Error, Outcome, Result};

/// What a path led to when the store was opened.
#[derive(Clone, Debug)]
struct Place {
    path: PathBuf,
    what: &'static str,
    identity: FileIdentity,
}

/// What an open store holds. All calls are cheap, take no lock, and change nothing.
pub(crate) struct Anchor {
    /// Looks a path up as anybody else would.
    disk: Arc<dyn Disk>,
    process: u32,
    lock: Place,
    /// The store's directory, and its directory `log`.
    dirs: [Place; 2],
}

impl Anchor {
    /// For a store whose directories and lock file are open in this process.
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        (store_dir, store): (&Path, FileIdentity),
        log: FileIdentity,
        lock: FileIdentity,
    ) -> Self {
        let place = |path: PathBuf, what, identity| Place { path, what, identity };
        Self {
            process: disk.process(),
            disk,
            lock: place(crate::lock::lock_path(store_dir), "the lock file", lock),
            dirs: [
                place(store_dir.into(), "the store's directory", store),
                place(store_dir.join("log"), "the directory of the log", log),
            ],
        }
    }

    /// In a forked child every call is refused: the parent goes on with the same files, and there are none of
    /// the threads. Takes no lock, because one may have been held at the moment of the fork.
    pub(crate) fn check_process(&self) -> Result<()> {
        if self.is_in_its_process() {
            return Ok(());
        }
        Err(Error::Forked { opened_by: self.process, outcome: Outcome::NotWritten })
    }

    /// Whether this is the process that opened the store.
    pub(crate) fn is_in_its_process(&self) -> bool {
        self.disk.process() == self.process
    }

    /// Everything, for what happens seldom.
    pub(crate) fn check(&self) -> Result<()> {
        self.check_process()?;
        self.dirs.iter().chain([&self.lock]).try_for_each(|place| self.check_place(place))
    }

    /// What every group is worth: the newest segment and the lock. The way to the segment leads through both
    /// directories, so that these need no look of their own.
    pub(crate) fn check_newest(&self, path: &Path, identity: FileIdentity) -> Result<()> {
        self.check_process()?;
        self.look(path, "the newest segment", identity)?;
        self.check_place(&self.lock)
    }

    fn check_place(&self, place: &Place) -> Result<()> {
        self.look(&place.path, place.what, place.identity)
    }

    fn look(&self, path: &Path, what: &str, held: FileIdentity) -> Result<()> {
        let seen = match self.disk.identity(path) {
            Ok(Some(found)) if found == held => return Ok(()),
            Ok(Some(_)) => format!("{what} was replaced"),
            Ok(None) => format!("{what} is gone"),
            Err(error) => format!("whether {what} is still there cannot be seen ({error})"),
        };
        Err(Error::Displaced { path: path.into(), seen, outcome: Outcome::NotWritten })
    }
}
