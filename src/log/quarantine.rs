//! Damaged bytes are kept, never thrown away: each stretch in a file of its own, or the whole file.

use std::io;
use std::path::{Path, PathBuf};

use crate::disk::DiskFile;
use crate::error::{Error, Result};

use super::directory::LogDir;

/// Copies `start..end` of a segment into a new file in `quarantine/` and syncs it. Fails without
/// having changed the segment, on a full disk for example.
pub(crate) fn keep(log: &LogDir, file: &dyn DiskFile, number: u64, start: u64, end: u64) -> Result<PathBuf> {
    const CHUNK: u64 = 1024 * 1024;
    let dir = log.quarantine_dir();
    let wrap = |error: io::Error| Error::io("keep damaged bytes in", &dir, error);
    log.disk.create_dir(&dir).map_err(wrap)?;
    let (path, copy) = (0..u32::MAX)
        .find_map(|attempt| {
            let path = dir.join(format!("segment-{number}-offset-{start}-{attempt}.bin"));
            match log.disk.create(&path) {
                Ok(copy) => Some(Ok((path, copy))),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => None,
                Err(error) => Some(Err(error)),
            }
        })
        .unwrap_or_else(|| Err(io::ErrorKind::AlreadyExists.into()))
        .map_err(wrap)?;
    let mut offset = start;
    let mut buf = Vec::new();
    while offset < end {
        buf.resize(CHUNK.min(end - offset) as usize, 0);
        crate::disk::read_exact_at(file, &mut buf, offset)
            .map_err(|error| Error::io_at("read", &log.segment_path(number), offset, error))?;
        copy.write_all_at(&buf, offset - start).map_err(wrap)?;
        offset += buf.len() as u64;
    }
    copy.sync().map_err(wrap)?;
    log.disk.sync_dir(&dir).map_err(wrap)?;
    log.disk.sync_dir(&log.store_dir).map_err(wrap)?;
    Ok(path)
}

/// Moves a whole file of the log's directory into `quarantine/`, durably. `None` where it is not there.
pub(crate) fn move_file(log: &LogDir, path: &Path) -> Result<Option<PathBuf>> {
    let dir = log.quarantine_dir();
    let wrap = |error: io::Error| Error::io("move aside", path, error);
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if !log.disk.list(&log.log_dir()).map_err(wrap)?.contains(&name) {
        return Ok(None);
    }
    log.disk.create_dir(&dir).map_err(wrap)?;
    let taken = log.disk.list(&dir).map_err(wrap)?;
    let free = |attempt: &u32| !taken.contains(&format!("{name}-{attempt}.bin"));
    let attempt = (0..u32::MAX).find(free).unwrap_or(u32::MAX);
    let kept = dir.join(format!("{name}-{attempt}.bin"));
    log.disk.rename(path, &kept).map_err(wrap)?;
    for changed in [&dir, &log.log_dir(), &log.store_dir] {
        log.disk.sync_dir(changed).map_err(wrap)?;
    }
    Ok(Some(kept))
}
