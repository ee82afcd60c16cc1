//! One writer at a time: exclusive locks on the directory `log` and on the file `lock` in the store's
//! directory.
//!
//! The locks are the operating system's (flock): they are gone when their process is gone, however that
//! ended. The directory is what counts: nobody can take it away and leave the log. The file keeps older
//! programs out, which know nothing else, and those of systems without locks on directories; the writer notes its
//! process id there, for the message of the one who has to wait.
//!
//! Such a lock needs no more than a file that is open, for reading too: whoever may read `lock` or list `log` can
//! hold both and keep writers out, as long as their own process lives. The system does not say who holds a lock, so
//! what is shown is the process that was the last to note itself, which then need not be the one. Where others than
//! the writer's user must not be able to do that, the store's directory must be closed to them (mode 700).

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::anchor::Anchor;
use crate::disk::{self, Disk, DiskLock, Lockable};
use crate::error::{Error, Result};

/// However short the wait, a reader that looks whether a writer lives must not fail a writer.
const LEAST_WAIT: Duration = Duration::from_millis(50);

/// The lock, held until dropped. In a forked child dropping it does nothing.
pub(crate) struct WriterLock {
    /// The disk from the directories that are locked.
    disk: Arc<dyn Disk>,
    anchor: Arc<Anchor>,
    store_dir: PathBuf,
    _locks: [Box<dyn DiskLock>; 2],
}

/// The lock file of the store in `dir`.
pub(crate) fn lock_path(dir: &Path) -> PathBuf {
    dir.join("lock")
}

fn log_dir(dir: &Path) -> PathBuf {
    dir.join("log")
}

impl WriterLock {
    /// Takes the lock, waiting for it at most `wait`. The directory must be there; its directory `log` is made
    /// where it is missing.
    pub(crate) fn acquire(disk: &Arc<dyn Disk>, dir: &Path, wait: Duration) -> Result<Self> {
        let start = Instant::now();
        let mut pause = Duration::from_millis(1);
        loop {
            let held_by_other = match Self::try_acquire(disk, dir)? {
                Ok(lock) => return Ok(lock),
                Err(path) => path,
            };
            let waited = start.elapsed();
            if waited >= wait.max(LEAST_WAIT) {
                // Beside a lock on the directory the file may be a new one, or an old copy.
                let pid = holder(&held_by_other).filter(|_| held_by_other == lock_path(dir));
                return Err(Error::Locked { pid, path: held_by_other, waited });
            }
            std::thread::sleep(pause.min(wait.max(LEAST_WAIT).saturating_sub(waited)));
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }

    /// One attempt; the path that somebody else has locked where that is so.
    fn try_acquire(disk: &Arc<dyn Disk>, dir: &Path) -> Result<std::result::Result<Self, PathBuf>> {
        let (lock_path, log_dir) = (lock_path(dir), log_dir(dir));
        let within = |action, path: &Path| {
            let path = path.to_owned();
            move |error| Error::io(action, &path, error)
        };
        disk.create_dir(&log_dir).map_err(within("create", &log_dir))?;
        let held = disk.hold(dir).map_err(within("open", dir))?;
        let mut locks = Vec::with_capacity(2);
        for (path, what) in [(&lock_path, Lockable::File), (&log_dir, Lockable::Directory)] {
            match held.lock(path, what, true) {
                Ok(lock) => locks.push(lock),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Err(path.clone())),
                Err(error) => return Err(Error::io("lock", path, error)),
            }
        }
        let Ok(locks) = <[Box<dyn DiskLock>; 2]>::try_from(locks) else { return Ok(Err(lock_path)) };
        let identity = |path: &Path| match held.identity(path) {
            Ok(found) => found.ok_or_else(|| Error::io("look up", path, ErrorKind::NotFound.into())),
            Err(error) => Err(Error::io("look up", path, error)),
        };
        let locked = |lock: &dyn DiskLock, path: &Path| lock.identity().map_err(within("look up", path));
        let anchor = Anchor::new(
            Arc::clone(disk),
            (dir, identity(dir)?),
            locked(locks[1].as_ref(), &log_dir)?,
            locked(locks[0].as_ref(), &lock_path)?,
        );
        if anchor.check().is_err() {
            // Somebody took one of them away between the opening and the locking.
            return Ok(Err(lock_path));
        }
        // The pid is a courtesy; a full disk must not keep anybody from opening.
        let _ = locks[0].note(&format!("{}\n", disk.process()));
        Ok(Ok(Self { disk: held, anchor: Arc::new(anchor), store_dir: dir.into(), _locks: locks }))
    }

    /// The disk from the directories that are locked.
    pub(crate) fn disk(&self) -> Arc<dyn Disk> {
        Arc::clone(&self.disk)
    }

    /// What is locked, to be compared with what the path leads to.
    pub(crate) fn anchor(&self) -> Arc<Anchor> {
        Arc::clone(&self.anchor)
    }

    /// The store's directory.
    pub(crate) fn store_dir(&self) -> &Path {
        &self.store_dir
    }
}

/// Whether a writer holds the lock at this moment. Changes nothing.
pub(crate) fn writer_lives(disk: &dyn Disk, dir: &Path) -> Result<bool> {
    for (path, what) in [(lock_path(dir), Lockable::File), (log_dir(dir), Lockable::Directory)] {
        match disk.lock(&path, what, false) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
            Err(error) => return Err(Error::io("lock", &path, error)),
        }
    }
    Ok(false)
}

/// The process id that the lock file names, while somebody holds the lock.
pub(crate) fn holder(path: &Path) -> Option<u32> {
    let bytes = disk::read_small(path, 32).ok()?;
    std::str::from_utf8(&bytes).ok()?.trim().parse().ok()
}
