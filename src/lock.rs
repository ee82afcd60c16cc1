//! One writer at a time: an exclusive lock on the file `lock` in the store's directory.
//!
//! The lock is the operating system's (flock): it is gone when its process is gone, however that
//! ended. The file holds the writer's process id, for the message of the one who has to wait.

use std::fs::File;
use std::io::{ErrorKind, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fs2::FileExt;

use crate::disk;
use crate::error::{Error, Result};

/// However short the wait, a reader that looks whether a writer lives must not fail a writer.
const LEAST_WAIT: Duration = Duration::from_millis(50);

/// The lock, held until dropped.
pub(crate) struct WriterLock {
    file: File,
}

/// The lock file of the store in `dir`.
pub(crate) fn lock_path(dir: &Path) -> PathBuf {
    dir.join("lock")
}

impl WriterLock {
    /// Takes the lock, waiting for it at most `wait`.
    pub(crate) fn acquire(dir: &Path, wait: Duration) -> Result<Self> {
        let path = lock_path(dir);
        let start = Instant::now();
        let mut file = disk::open_lock(&path, true).map_err(|error| Error::io("open", &path, error))?;
        let mut pause = Duration::from_millis(1);
        loop {
            match FileExt::try_lock_exclusive(&file) {
                Ok(()) => break,
                Err(error) if is_contended(&error) => {}
                Err(error) => return Err(Error::io("lock", &path, error)),
            }
            let waited = start.elapsed();
            if waited >= wait.max(LEAST_WAIT) {
                return Err(Error::Locked { pid: holder(&path), path, waited });
            }
            std::thread::sleep(pause.min(wait.max(LEAST_WAIT).saturating_sub(waited)));
            pause = (pause * 2).min(Duration::from_millis(20));
        }
        // The pid is a courtesy; a full disk must not keep anybody from opening.
        let _ = file
            .set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .and_then(|_| writeln!(file, "{}", std::process::id()));
        Ok(Self { file })
    }
}

impl Drop for WriterLock {
    fn drop(&mut self) {
        let _ = FileExt::unlock(&self.file);
    }
}

/// Whether a writer holds the lock at this moment. Changes nothing.
pub(crate) fn writer_lives(dir: &Path) -> Result<bool> {
    let path = lock_path(dir);
    let file = match disk::open_lock(&path, false) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(Error::io("open", &path, error)),
    };
    match FileExt::try_lock_shared(&file) {
        Ok(()) => {
            let _ = FileExt::unlock(&file);
            Ok(false)
        }
        Err(error) if is_contended(&error) => Ok(true),
        Err(error) => Err(Error::io("lock", &path, error)),
    }
}

/// The process id that the lock file names, while somebody holds the lock.
pub(crate) fn holder(path: &Path) -> Option<u32> {
    let bytes = disk::read_small(path, 32).ok()?;
    std::str::from_utf8(&bytes).ok()?.trim().parse().ok()
}

fn is_contended(error: &std::io::Error) -> bool {
    error.kind() == ErrorKind::WouldBlock
        || error.raw_os_error() == fs2::lock_contended_error().raw_os_error()
}
