//! Room on the disk. After the system has said that there is none, SQLite is left alone until there is some again.
//!
//! SQLite maps its `-shm` into memory. Where a file system must find a new place for each page that is written, as
//! btrfs must, a write to that memory on a full disk is no error but a SIGBUS, which ends the process. So whoever has
//! met ENOSPC says so here, and whoever is about to use SQLite asks here first. It costs nothing while nobody has.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::disk;
use crate::error::Error;

/// Bytes that must be free again, and that a test must be able to write.
const ENOUGH: u64 = 1024 * 1024;
const TEST_BYTES: usize = 64 * 1024;

/// Whether there is room on the disk of a store.
#[derive(Debug)]
pub(crate) struct Room {
    dir: PathBuf,
    out: AtomicBool,
}

impl Room {
    pub(crate) fn new(dir: &Path) -> Self {
        Self { dir: dir.into(), out: AtomicBool::new(false) }
    }

    /// The system has said that there is no room.
    pub(crate) fn ran_out(&self) {
        self.out.store(true, Ordering::Relaxed);
    }

    /// Takes note where an error says so. Whether it does.
    pub(crate) fn note(&self, error: &Error) -> bool {
        let full = is_full(error);
        if full {
            self.ran_out();
        }
        full
    }

    /// Something failed that may be for want of room: takes note where there is none.
    pub(crate) fn suspect(&self) {
        if !disk::has_room(&self.dir, ENOUGH, TEST_BYTES) {
            self.ran_out();
        }
    }

    /// Whether nothing has said that there is no room, or a test has found some since.
    pub(crate) fn is_there(&self) -> bool {
        !self.out.load(Ordering::Relaxed)
    }

    /// The same, with a test where it is time for one.
    pub(crate) fn is_back(&self) -> bool {
        if self.is_there() {
            return true;
        }
        let free = disk::has_room(&self.dir, ENOUGH, TEST_BYTES);
        if free {
            self.out.store(false, Ordering::Relaxed);
        }
        free
    }

    /// Why rows do not follow without room.
    pub(crate) const REASON: &str =
        "no space left on device: rows follow when there is 1 MiB again, SQLite is left alone until then";
}

/// Whether an error says that the disk, or the user's part of it, is full.
fn is_full(error: &Error) -> bool {
    match error {
        Error::Io { source, .. } => {
            matches!(source.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
        }
        Error::Dead { cause } => is_full(cause),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_full_disk_runs_out_and_a_test_finds_room_again() {
        let dir = tempfile::tempdir().unwrap();
        let room = Room::new(dir.path());
        let error = |kind: ErrorKind| Error::io("write", dir.path(), kind.into());
        assert!(!room.note(&error(ErrorKind::PermissionDenied)) && room.is_there());
        for kind in [ErrorKind::StorageFull, ErrorKind::QuotaExceeded] {
            assert!(room.note(&Error::Dead { cause: std::sync::Arc::new(error(kind)) }));
            assert!(!room.is_there());
            assert!(room.is_back() && room.is_there());
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "a test leaves nothing behind");
        let gone = Room::new(&dir.path().join("gone"));
        gone.ran_out();
        assert!(!gone.is_back(), "what cannot be tested is not there");
    }
}
