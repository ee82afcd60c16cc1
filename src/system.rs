//! What asks more of the system than the standard library does: a sealed segment mapped into memory, and the
//! start of a write to the disk. The one module with unsafe code.
#![allow(unsafe_code)]

use crate::disk::DiskFile;

/// A read-only map of a whole segment.
pub(crate) struct Map(memmap2::Mmap);

impl Map {
    /// Maps `size` bytes; `None` where the file is no real one, is shorter, or cannot be mapped:
    /// the caller then reads instead.
    pub(crate) fn new(file: &dyn DiskFile, size: u64) -> Option<Self> {
        let real = file.as_real()?;
        if file.len().ok()? < size {
            return None;
        }
        // SAFETY: the map is read-only and private to this process. A sealed segment is never
        // written or cut again by this program: erasure puts a new file in its place. Somebody else
        // who cuts it while it is mapped gets this process a SIGBUS, as does a sector that cannot be
        // read. So nothing else is ever mapped, and opening, replay, verify and repair read instead:
        // only a caller who reads events in bulk gets the speed and the risk.
        let map = unsafe { memmap2::MmapOptions::new().len(size as usize).map(real) }.ok()?;
        #[cfg(unix)]
        drop(map.advise(memmap2::Advice::Sequential)); // a hint
        Some(Self(map))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Starts writing dirty pages of these bytes to the disk and returns without waiting: `sync_file_range`
/// with `SYNC_FILE_RANGE_WRITE` alone. See `sync_file_range(2)`.
///
/// It makes nothing durable. A failure of a write that it starts is kept by the kernel for the next sync of
/// this file; without the flags that wait it is not taken from there. One that shows here already is an
/// error. Where the call is not to be had, the sync does all of the work.
#[cfg(target_os = "linux")]
pub(crate) fn start_write_back(
    file: &impl std::os::fd::AsRawFd,
    offset: u64,
    len: u64,
) -> std::io::Result<()> {
    let (Ok(offset), Ok(len)) = (i64::try_from(offset), i64::try_from(len)) else { return Ok(()) };
    // SAFETY: a call with an open descriptor and three numbers; no memory of ours is involved.
    let done = unsafe { libc::sync_file_range(file.as_raw_fd(), offset, len, libc::SYNC_FILE_RANGE_WRITE) };
    if done == 0 {
        return Ok(());
    }
    let error = std::io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EIO | libc::ENOSPC | libc::EDQUOT) => Err(error),
        _ => Ok(()),
    }
}
