//! A disk seen from the open directories of a store.
//!
//! A path says where a store was when it was opened. Somebody may move that directory, remove it, or put
//! another store in its place while a writer lives. Whoever then made a segment by its path would make it in
//! the other store. So everything below the store's directory is opened, made, renamed and removed relative
//! to directories that were opened once. What lies elsewhere goes by its path.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::Disk;

#[cfg(not(unix))]
pub(super) fn hold(_store_dir: &Path) -> io::Result<Arc<dyn Disk>> {
    // Windows lets nobody rename or remove a directory in which a file is open.
    Ok(Arc::new(super::RealDisk))
}

#[cfg(unix)]
pub(super) fn hold(store_dir: &Path) -> io::Result<Arc<dyn Disk>> {
    Ok(Arc::new(unix::HeldDisk::new(store_dir)?))
}

#[cfg(unix)]
pub(super) use unix::look_up;

#[cfg(unix)]
mod unix {
    use std::fs::File;
    use std::io;
    use std::os::fd::{AsFd, BorrowedFd};
    use std::path::{Path, PathBuf};
    use std::sync::Arc;

    use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, RawMode};
    use rustix::io::Errno;

    use super::super::access::{self, Access};
    use super::super::{DANGLING, Disk, DiskFile, DiskLock, FileIdentity, FileLock, LINK, Lockable};

    pub(super) struct HeldDisk {
        store_dir: PathBuf,
        log_dir: PathBuf,
        store: File,
        log: File,
    }

    const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

    impl HeldDisk {
        pub(super) fn new(store_dir: &Path) -> io::Result<Self> {
            let store = File::open(store_dir)?;
            let log = File::from(rustix::fs::openat(&store, "log", DIRECTORY, Mode::empty())?);
            Ok(Self { store_dir: store_dir.into(), log_dir: store_dir.join("log"), store, log })
        }

        /// The open directory from which a path is looked up, and the rest of the path. What is not below
        /// the store stays as it is.
        fn locate<'a>(&'a self, path: &'a Path) -> (BorrowedFd<'a>, &'a Path) {
            let below = |dir: &Path| path.strip_prefix(dir).ok();
            let (dir, rest) = match (below(&self.log_dir), below(&self.store_dir)) {
                (Some(rest), _) => (self.log.as_fd(), rest),
                (_, Some(rest)) => (self.store.as_fd(), rest),
                _ => return (CWD, path),
            };
            (dir, if rest.as_os_str().is_empty() { Path::new(".") } else { rest })
        }

        fn open_at(&self, path: &Path, flags: OFlags, mode: Mode) -> io::Result<File> {
            let (dir, name) = self.locate(path);
            Ok(File::from(rustix::fs::openat(dir, name, flags | OFlags::CLOEXEC, mode)?))
        }

        fn access_of(&self, path: &Path, follow: AtFlags) -> io::Result<Option<Access>> {
            let (dir, name) = self.locate(path);
            match rustix::fs::statat(dir, name, follow) {
                Ok(stat) => Ok(Some(Access::of_stat(&stat))),
                Err(Errno::NOENT) => Ok(None),
                Err(error) => Err(error.into()),
            }
        }

        /// Owner and mode of the directory in which a path lies.
        fn above(&self, path: &Path) -> io::Result<Option<Access>> {
            path.parent().map_or(Ok(None), |dir| self.access_of(dir, AtFlags::empty()))
        }

        /// What is at a path and is neither a regular file nor, for whoever writes, reached through a link is
        /// refused, as `RealDisk` does (P12).
        fn check_file(&self, path: &Path, writable: bool) -> io::Result<()> {
            let (dir, name) = self.locate(path);
            let follow = if writable { AtFlags::SYMLINK_NOFOLLOW } else { AtFlags::empty() };
            let refused = |what: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
            let kind = match rustix::fs::statat(dir, name, follow) {
                Ok(stat) => FileType::from_raw_mode(stat.st_mode),
                // What is there is then a link, and not nothing, which is for the opening to tell.
                Err(Errno::NOENT | Errno::LOOP)
                    if rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).is_ok() =>
                {
                    return refused(DANGLING);
                }
                Err(Errno::NOENT) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            match kind {
                FileType::RegularFile => Ok(()),
                FileType::Symlink => refused(LINK),
                _ => refused("it is not a regular file"),
            }
        }
    }

    /// Looks a path up from an open directory. Every append does so several times.
    ///
    /// Linux is asked for nothing but the file's number. A look at a file's times makes its next write note a
    /// time of its own (multigrain timestamps, from Linux 6.13 on), which costs the sync of that write a change
    /// of the inode: each append took 1.5 times as long.
    #[cfg(target_os = "linux")]
    pub(in crate::disk) fn look_up(dir: BorrowedFd<'_>, name: &Path) -> io::Result<Option<FileIdentity>> {
        use rustix::fs::{StatxFlags, makedev, statx};
        match statx(dir, name, AtFlags::empty(), StatxFlags::INO) {
            Ok(found) => Ok(Some(FileIdentity {
                device: makedev(found.stx_dev_major, found.stx_dev_minor),
                inode: found.stx_ino,
            })),
            Err(Errno::NOENT) => Ok(None),
            // Before Linux 4.11, and in some sandboxes.
            Err(Errno::NOSYS | Errno::PERM) => look_up_all(dir, name),
            Err(error) => Err(error.into()),
        }
    }

    #[cfg(not(target_os = "linux"))]
    pub(in crate::disk) use look_up_all as look_up;

    /// The same with the call that every system has.
    #[allow(clippy::unnecessary_cast, reason = "the types of these numbers differ from system to system")]
    pub(in crate::disk) fn look_up_all(dir: BorrowedFd<'_>, name: &Path) -> io::Result<Option<FileIdentity>> {
        match rustix::fs::statat(dir, name, AtFlags::empty()) {
            Ok(stat) => Ok(Some(FileIdentity { device: stat.st_dev as u64, inode: stat.st_ino as u64 })),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Owner and group may read and write, others as the user's mask says: what the standard library asks for.
    const FILE_MODE: Mode = Mode::from_raw_mode(0o666);

    impl Disk for HeldDisk {
        fn open(&self, path: &Path, writable: bool) -> io::Result<Box<dyn DiskFile>> {
            self.check_file(path, writable)?;
            let flags = if writable { OFlags::RDWR } else { OFlags::RDONLY };
            Ok(Box::new(self.open_at(path, flags, Mode::empty())?))
        }

        fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
            self.create_with_mode(path, access::OPEN)
        }

        fn create_with_mode(&self, path: &Path, mode: u32) -> io::Result<Box<dyn DiskFile>> {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
            Ok(Box::new(self.open_at(path, flags, Mode::from_raw_mode(mode as RawMode))?))
        }

        fn access(&self, path: &Path) -> io::Result<Option<Access>> {
            self.access_of(path, AtFlags::SYMLINK_NOFOLLOW)
        }

        fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
            let ((old_dir, old), (new_dir, new)) = (self.locate(from), self.locate(to));
            Ok(rustix::fs::renameat(old_dir, old, new_dir, new)?)
        }

        fn remove(&self, path: &Path) -> io::Result<()> {
            let (dir, name) = self.locate(path);
            Ok(rustix::fs::unlinkat(dir, name, AtFlags::empty())?)
        }

        fn create_dir(&self, path: &Path) -> io::Result<()> {
            let (dir, name) = self.locate(path);
            let above = self.above(path)?;
            let mode = above.map_or(0o777, Access::mode_below);
            match rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(mode as RawMode)) {
                Err(Errno::EXIST) => self.open_at(path, DIRECTORY, Mode::empty()).map(drop),
                Err(error) => Err(error.into()),
                Ok(()) => above.map_or(Ok(()), |above| {
                    access::hand_over(&self.open_at(path, DIRECTORY, Mode::empty())?, above)
                }),
            }
        }

        fn sync_dir(&self, path: &Path) -> io::Result<()> {
            self.open_at(path, DIRECTORY, Mode::empty())?.sync_all()
        }

        fn list(&self, path: &Path) -> io::Result<Vec<String>> {
            let mut names = Vec::new();
            for entry in Dir::new(self.open_at(path, DIRECTORY, Mode::empty())?)? {
                let name = entry?.file_name().to_string_lossy().into_owned();
                if name != "." && name != ".." {
                    names.push(name);
                }
            }
            names.sort();
            Ok(names)
        }

        fn identity(&self, path: &Path) -> io::Result<Option<FileIdentity>> {
            let (dir, name) = self.locate(path);
            look_up(dir, name)
        }

        fn lock(&self, path: &Path, what: Lockable, alone: bool) -> io::Result<Box<dyn DiskLock>> {
            let file = match what {
                Lockable::Directory => self.open_at(path, DIRECTORY, Mode::empty())?,
                Lockable::File => {
                    self.check_file(path, true)?;
                    let flags =
                        if alone { OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW } else { OFlags::RDONLY };
                    let file = self.open_at(path, flags, FILE_MODE)?;
                    if alone && file.metadata()?.len() == 0 {
                        // It was just made, by root perhaps.
                        self.above(path)?.map_or(Ok(()), |above| access::hand_over(&file, above))?;
                    }
                    file
                }
            };
            FileLock::take(file, alone)
        }

        fn hold(&self, store_dir: &Path) -> io::Result<Arc<dyn Disk>> {
            super::hold(store_dir)
        }
    }
}
