//! What asks more of the system than the standard library does: the start of a write to the disk. The one module
//! with unsafe code.
#![allow(unsafe_code)]

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
