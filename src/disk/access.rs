//! Whose a new file is and who may use it.
//!
//! What replaces a file gets that file's owner and mode. What is new is open to nobody to whom the files beside
//! it are not, and belongs to the owner of its directory where root makes it: root may repair the store of a
//! service, which goes on with it as its own user.

use std::fs;
use std::io;
use std::path::Path;

use super::{Disk, DiskFile, RealDisk};

/// Owner, group and mode of what a name leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Access {
    owner: u32,
    group: u32,
    /// Read and write for owner, group and others.
    mode: u32,
    is_file: bool,
    pub(crate) is_link: bool,
}

/// The mode of a file that nothing restricts but the user's mask.
pub(super) const OPEN: u32 = 0o666;

impl Access {
    #[cfg(unix)]
    pub(super) fn of(meta: &fs::Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        let (is_file, is_link) = (meta.is_file(), meta.is_symlink());
        Self { owner: meta.uid(), group: meta.gid(), mode: meta.mode() & 0o777, is_file, is_link }
    }

    #[cfg(unix)]
    #[allow(clippy::unnecessary_cast, reason = "not every system has 32 bits there")]
    pub(super) fn of_stat(stat: &rustix::fs::Stat) -> Self {
        let kind = rustix::fs::FileType::from_raw_mode(stat.st_mode);
        let (is_file, is_link) = (kind.is_file(), kind.is_symlink());
        Self { owner: stat.st_uid, group: stat.st_gid, mode: stat.st_mode as u32 & 0o777, is_file, is_link }
    }

    #[cfg(not(unix))]
    pub(super) fn of(meta: &fs::Metadata) -> Self {
        Self { owner: 0, group: 0, mode: 0o777, is_file: meta.is_file(), is_link: meta.is_symlink() }
    }

    /// The mode for a directory below this one: the owner can use it, others as far as they can use this one.
    #[cfg(unix)]
    pub(super) fn mode_below(self) -> u32 {
        0o700 | self.mode
    }
}

/// The same for a name that may lead nowhere. A link is none of ours.
pub(super) fn found(meta: io::Result<fs::Metadata>) -> io::Result<Option<Access>> {
    match meta {
        Ok(meta) => Ok(Some(Access::of(&meta))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Makes a new file, to be used in the place of the first of `replaced` that is there; an error where it exists.
/// Where there is none, the first of `like` that is there tells how open it may be.
pub(crate) fn create(
    disk: &dyn Disk,
    path: &Path,
    replaced: &[&Path],
    like: &[&Path],
) -> io::Result<Box<dyn DiskFile>> {
    create_as(disk, path, first_file(disk, replaced)?, like)
}

fn create_as(
    disk: &dyn Disk,
    path: &Path,
    replaced: Option<Access>,
    like: &[&Path],
) -> io::Result<Box<dyn DiskFile>> {
    if let Some(access) = replaced {
        // Nobody gets in before it is known who may.
        let file = disk.create_with_mode(path, access.mode & 0o600)?;
        file.take_over(access)?;
        return Ok(file);
    }
    let mode = first_file(disk, like)?.map_or(OPEN, |access| access.mode & OPEN);
    let file = disk.create_with_mode(path, mode)?;
    if let Some(dir) = path.parent().map_or(Ok(None), |dir| disk.access(dir))? {
        file.hand_over(dir)?;
    }
    Ok(file)
}

fn first_file(disk: &dyn Disk, paths: &[&Path]) -> io::Result<Option<Access>> {
    for path in paths {
        if let Some(access) = disk.access(path)?.filter(|access| access.is_file) {
            return Ok(Some(access));
        }
    }
    Ok(None)
}

/// Owner and mode of the first of these files that is there.
pub(crate) fn of_first(paths: &[&Path]) -> io::Result<Option<Access>> {
    first_file(&RealDisk, paths)
}

/// Makes an empty file for SQLite to open, which would make one that is root's and open to all readers; one
/// that is there stays. It goes in the place of a file that had `replaced`.
pub(crate) fn make_database(path: &Path, replaced: Option<Access>) -> io::Result<()> {
    let segment = path.parent().and_then(|dir| any_segment(&dir.join("log")));
    match create_as(&RealDisk, path, replaced, segment.as_deref().as_slice()) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.map(drop),
    }
}

/// A file of the log, where it can be listed.
pub(super) fn any_segment(log_dir: &Path) -> Option<std::path::PathBuf> {
    let name = RealDisk.list(log_dir).ok()?.pop()?;
    Some(log_dir.join(name))
}

/// What a file takes over from the one that it replaces, as far as this user can give it.
#[cfg(unix)]
pub(super) fn take_over(file: &fs::File, access: Access) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
    let made = file.metadata()?;
    let mut mode = access.mode;
    let differs = (made.uid(), made.gid()) != (access.owner, access.group);
    if differs && !done(fchown(file, Some(access.owner), Some(access.group)))? {
        let same_group = made.gid() == access.group || done(fchown(file, None, Some(access.group)))?;
        if !same_group {
            // Another group gets no more than everybody has.
            mode &= !0o070 | (mode & 0o007) << 3;
        }
    }
    file.set_permissions(fs::Permissions::from_mode(mode))
}

/// Gives what root has made to the owner of the directory.
#[cfg(unix)]
pub(super) fn hand_over(file: &fs::File, dir: Access) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, fchown};
    let made = file.metadata()?;
    if made.uid() == 0 && dir.owner != 0 {
        done(fchown(file, Some(dir.owner), Some(dir.group)))?;
    }
    Ok(())
}

/// Whether an owner was changed. Only root may, and not every file system knows owners.
#[cfg(unix)]
fn done(changed: io::Result<()>) -> io::Result<bool> {
    use io::ErrorKind::{InvalidInput, PermissionDenied, Unsupported};
    match changed {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.kind(), PermissionDenied | Unsupported | InvalidInput) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(not(unix))]
pub(super) fn take_over(_file: &fs::File, _access: Access) -> io::Result<()> {
    Ok(())
}

#[cfg(not(unix))]
pub(super) fn hand_over(_file: &fs::File, _dir: Access) -> io::Result<()> {
    Ok(())
}

#[cfg(all(test, unix))]
#[path = "access_tests.rs"]
mod tests;
