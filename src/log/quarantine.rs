//! Damaged bytes are kept, never thrown away: each stretch in a file of its own, or the whole file.

use std::io;
use std::path::PathBuf;

use crate::disk::{DiskFile, access};
use crate::error::{Error, Result};

use super::directory::LogDir;

/// Copies `start..end` of a segment into a new file in `quarantine/` and syncs it. Fails without
/// having changed the segment, on a full disk for example.
pub(crate) fn keep(log: &LogDir, file: &dyn DiskFile, number: u64, start: u64, end: u64) -> Result<PathBuf> {
    const CHUNK: u64 = 1024 * 1024;
    let dir = log.quarantine_dir();
    let wrap = |error: io::Error| Error::io("keep damaged bytes in", &dir, error);
    log.make_quarantine().map_err(wrap)?;
    let (path, copy) = (0..u32::MAX)
        .find_map(|attempt| {
            let path = dir.join(format!("segment-{number}-offset-{start}-{attempt}.bin"));
            match access::create(log.disk.as_ref(), &path, &[], &[&log.segment_path(number)]) {
                Ok(copy) => Some(Ok((path, copy))),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => None,
                Err(error) => Some(Err(error)),
            }
        })
        .unwrap_or_else(|| Err(io::ErrorKind::AlreadyExists.into()))
        .map_err(wrap)?;
    let (mut offset, mut written) = (start, start);
    let mut buf = Vec::new();
    while offset < end {
        let failed = |error| Error::io_at("read", &log.segment_path(number), offset, error);
        // What a file has grown by without a byte in it takes no room here either: it may be more than the disk has.
        let data = file.next_data(offset).map_err(failed)?;
        if data > offset {
            offset = data;
            continue;
        }
        buf.resize(CHUNK.min(end - offset) as usize, 0);
        crate::disk::read_exact_at(file, &mut buf, offset).map_err(failed)?;
        copy.write_all_at(&buf, offset - start).map_err(wrap)?;
        offset += buf.len() as u64;
        written = offset;
    }
    if written < end {
        // It is as long as what it is a copy of.
        copy.write_all_at(&[0], end - start - 1).map_err(wrap)?;
    }
    copy.sync().map_err(wrap)?;
    log.disk.sync_dir(&dir).map_err(wrap)?;
    log.disk.sync_dir(&log.store_dir).map_err(wrap)?;
    Ok(path)
}

/// Copies a whole file with a segment's name. What is no regular file is moved, because there is nothing
/// to copy. `None` where there is none.
pub(crate) fn keep_file(log: &LogDir, number: u64) -> Result<Option<PathBuf>> {
    let path = log.segment_path(number);
    match log.disk.open(&path, false) {
        Ok(file) => {
            let len = file.len().map_err(|error| Error::io("read the length of", &path, error))?;
            keep(log, file.as_ref(), number, 0, len).map(Some)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            let dir = log.quarantine_dir();
            let wrap = |error: io::Error| Error::io("move aside", &path, error);
            log.make_quarantine().map_err(|error| Error::io("keep damaged bytes in", &dir, error))?;
            let taken = log.disk.list(&dir).map_err(wrap)?;
            let name = |attempt: u32| format!("segment-{number}-whole-{attempt}");
            let attempt = (0..u32::MAX).find(|attempt| !taken.contains(&name(*attempt))).unwrap_or(0);
            let kept = dir.join(name(attempt));
            log.disk.rename(&path, &kept).map_err(wrap)?;
            log.disk.sync_dir(&dir).map_err(wrap)?;
            log.disk.sync_dir(&log.store_dir).map_err(wrap)?;
            Ok(Some(kept))
        }
        Err(error) => Err(Error::io("open", &path, error)),
    }
}

/// Takes a file with a segment's name away, durably; one that is not there is fine.
pub(crate) fn remove(log: &LogDir, number: u64) -> Result<()> {
    let path = log.segment_path(number);
    match log.disk.remove(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", &path, error)),
        _ => {
            let dir = log.log_dir();
            log.disk.sync_dir(&dir).map_err(|error| Error::io("sync the directory", &dir, error))
        }
    }
}
