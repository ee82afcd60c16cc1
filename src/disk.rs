//! The I/O seam: the only module that opens files, so that a test can put a faulty disk below.
//!
//! [`Disk`] is what the log needs of a file system. [`RealDisk`] is the one of the operating
//! system, [`held`] the same one seen from the open directories of a store. SQLite does its own file access; of
//! the database file only metadata, renames and
//! removals pass through here, because opening and closing it would drop SQLite's locks.

pub(crate) mod access;
mod held;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use access::Access;

/// A file of the log. All calls are positional; nobody shares a cursor.
pub(crate) trait DiskFile: Send + Sync {
    /// Reads up to `buf.len()` bytes at `offset`; 0 only at or beyond the end.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `buf` at `offset`.
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()>;
    /// Sends what was written to these bytes to the disk and does not wait for it: a hint, which makes the
    /// sync that must follow shorter. An error is one of that sync.
    fn start_sync(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }
    /// Makes what was written to the file durable.
    fn sync(&self) -> io::Result<()>;
    /// The file's length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Where bytes are kept, at `offset` or behind it: zeros alone lie between. The file's length where none are, and
    /// `offset` itself where the system does not tell.
    fn next_data(&self, offset: u64) -> io::Result<u64> {
        Ok(offset)
    }
    /// Which file it is, whatever its name leads to by now.
    fn identity(&self) -> io::Result<FileIdentity>;
    /// The file itself, for mapping a sealed segment; `None` where there is no real file.
    fn as_real(&self) -> Option<&fs::File>;
    /// Takes over owner and mode of what it will replace, as far as this user can give them.
    fn take_over(&self, access: Access) -> io::Result<()> {
        self.as_real().map_or(Ok(()), |file| access::take_over(file, access))
    }
    /// Goes to the owner of its directory, where root has made it.
    fn hand_over(&self, dir: Access) -> io::Result<()> {
        self.as_real().map_or(Ok(()), |file| access::hand_over(file, dir))
    }
}

/// What is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lockable {
    /// A file, which a writer makes where it is missing.
    File,
    /// A directory. Where the system has no locks for these nobody is kept out.
    Directory,
}

/// A lock of the operating system (flock), held until it is dropped. It is gone when its process is gone,
/// however that ended.
pub(crate) trait DiskLock: Send + Sync {
    /// What is locked, whatever its name leads to by now.
    fn identity(&self) -> io::Result<FileIdentity>;
    /// Writes a line into the locked file, in place of what it holds.
    fn note(&self, line: &str) -> io::Result<()>;
}

/// What the log needs of a file system.
pub(crate) trait Disk: Send + Sync {
    /// Opens an existing file.
    fn open(&self, path: &Path, writable: bool) -> io::Result<Box<dyn DiskFile>>;
    /// Makes a new file; an error where it exists. What goes into a store is made by [`access::create`].
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// The same, open to no more than `mode` and the user's mask allow.
    fn create_with_mode(&self, path: &Path, _mode: u32) -> io::Result<Box<dyn DiskFile>> {
        self.create(path)
    }
    /// Owner and mode of what is there, links not followed. A disk without owners has none to tell.
    fn access(&self, _path: &Path) -> io::Result<Option<Access>> {
        Ok(None)
    }
    /// Renames a file, replacing what was there.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes a directory; fine where it exists.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Makes the entries of a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// The names in a directory, in order. `NotFound` where there is no such directory.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;
    /// What a path leads to at this moment, links followed; `None` where there is nothing.
    fn identity(&self, path: &Path) -> io::Result<Option<FileIdentity>>;
    /// Locks without waiting: alone, or, for whoever only looks, together with others. `WouldBlock` where
    /// somebody else keeps the lock.
    fn lock(&self, path: &Path, what: Lockable, alone: bool) -> io::Result<Box<dyn DiskLock>>;
    /// The same disk from the open directory of a store and its directory `log`: whatever lies below is looked
    /// up from these from now on, wherever the path leads by then.
    fn hold(&self, store_dir: &Path) -> io::Result<Arc<dyn Disk>>;
    /// The process that asks.
    fn process(&self) -> u32 {
        std::process::id()
    }
}

/// The operating system's file system.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RealDisk;

impl DiskFile for fs::File {
    #[cfg(unix)]
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(self, buf, offset)
    }

    #[cfg(windows)]
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        std::os::windows::fs::FileExt::seek_read(self, buf, offset)
    }

    #[cfg(unix)]
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(self, buf, offset)
    }

    #[cfg(windows)]
    fn write_all_at(&self, mut buf: &[u8], mut offset: u64) -> io::Result<()> {
        while !buf.is_empty() {
            let written = std::os::windows::fs::FileExt::seek_write(self, buf, offset)?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            buf = &buf[written..];
            offset += written as u64;
        }
        Ok(())
    }

    #[cfg(target_os = "linux")]
    fn start_sync(&self, offset: u64, len: u64) -> io::Result<()> {
        crate::system::start_write_back(self, offset, len)
    }

    fn sync(&self) -> io::Result<()> {
        // Segments have their final size from the start, so data alone is what must be flushed.
        self.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    #[cfg(target_os = "linux")]
    fn next_data(&self, offset: u64) -> io::Result<u64> {
        // It moves the file's cursor, which nobody uses.
        match rustix::fs::seek(self, rustix::fs::SeekFrom::Data(offset)) {
            Err(rustix::io::Errno::NXIO) => DiskFile::len(self),
            // Not every file system knows; whoever reads meets the error of one that cannot be read.
            found => Ok(found.unwrap_or(offset)),
        }
    }

    fn identity(&self) -> io::Result<FileIdentity> {
        Ok(FileIdentity::of(&self.metadata()?))
    }

    fn as_real(&self) -> Option<&fs::File> {
        Some(self)
    }
}

/// A file that is too short, with zeros in the place of what it lacks.
pub(crate) struct Padded {
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) len: u64,
}

impl DiskFile for Padded {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        if offset >= self.len {
            buf.fill(0);
            return Ok(buf.len());
        }
        let there = (buf.len() as u64).min(self.len - offset) as usize;
        self.file.read_at(&mut buf[..there], offset)
    }

    fn write_all_at(&self, _buf: &[u8], _offset: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn identity(&self) -> io::Result<FileIdentity> {
        self.file.identity()
    }

    fn as_real(&self) -> Option<&fs::File> {
        None
    }
}

/// Why a link in a store is refused.
pub(crate) const LINK: &str = "it is a symbolic link, which is not followed";
/// The same of one that leads to no file.
const DANGLING: &str = "it is a symbolic link that leads to no file";

/// Whether a path leads to no file: nothing is there, or links that go round.
fn leads_nowhere(error: &io::Error) -> bool {
    #[cfg(unix)]
    if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) {
        return true;
    }
    error.kind() == io::ErrorKind::NotFound
}

/// Refuses a link: what is written to through one could be somebody's file outside the store (P12).
fn check_no_link(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path).is_ok_and(|meta| meta.is_symlink()) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, LINK));
    }
    Ok(())
}

/// Refuses what stands in the place of a file that SQLite opens by its name.
pub(crate) fn check_own(path: &Path) -> io::Result<()> {
    check_no_link(path)?;
    check_regular(path)
}

/// Refuses what is there and is no regular file: opening a pipe would wait for its other end (P12).
pub(crate) fn check_regular(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(meta) if !meta.is_file() => {
            Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"))
        }
        // What is there is then a link, and not nothing, which is for the opening to tell.
        Err(error) if leads_nowhere(&error) && fs::symlink_metadata(path).is_ok() => {
            Err(io::Error::new(io::ErrorKind::InvalidInput, DANGLING))
        }
        _ => Ok(()),
    }
}

impl Disk for RealDisk {
    fn open(&self, path: &Path, writable: bool) -> io::Result<Box<dyn DiskFile>> {
        check_regular(path)?;
        if writable {
            check_no_link(path)?;
        }
        Ok(Box::new(fs::OpenOptions::new().read(true).write(writable).open(path)?))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.create_with_mode(path, access::OPEN)
    }

    fn create_with_mode(&self, path: &Path, mode: u32) -> io::Result<Box<dyn DiskFile>> {
        let mut options = fs::OpenOptions::new();
        options.read(true).write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
        #[cfg(not(unix))]
        let _: u32 = mode; // Windows has no modes.
        Ok(Box::new(options.open(path)?))
    }

    fn access(&self, path: &Path) -> io::Result<Option<Access>> {
        access::found(fs::symlink_metadata(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    #[cfg(unix)]
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        use std::os::unix::fs::DirBuilderExt;
        let above = path.parent().map_or(Ok(None), |dir| access::found(fs::metadata(dir)))?;
        let mode = above.map_or(0o777, Access::mode_below);
        match fs::DirBuilder::new().mode(mode).create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            Err(error) => Err(error),
            Ok(()) => above.map_or(Ok(()), |above| access::hand_over(&fs::File::open(path)?, above)),
        }
    }

    #[cfg(not(unix))]
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        match fs::create_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            other => other,
        }
    }

    #[cfg(unix)]
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        fs::File::open(path)?.sync_all()
    }

    #[cfg(not(unix))]
    fn sync_dir(&self, _path: &Path) -> io::Result<()> {
        Ok(()) // Windows has no such call; NTFS journals its directories.
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(path)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    fn identity(&self, path: &Path) -> io::Result<Option<FileIdentity>> {
        identity(path)
    }

    fn lock(&self, path: &Path, what: Lockable, alone: bool) -> io::Result<Box<dyn DiskLock>> {
        let file = match what {
            Lockable::File => open_lock(path, alone)?,
            Lockable::Directory if cfg!(not(unix)) => return Ok(Box::new(NoLock)),
            Lockable::Directory => fs::File::open(path)?,
        };
        FileLock::take(file, alone)
    }

    fn hold(&self, store_dir: &Path) -> io::Result<Arc<dyn Disk>> {
        held::hold(store_dir)
    }
}

/// A lock on an open file or directory.
struct FileLock {
    file: fs::File,
    process: u32,
}

impl FileLock {
    fn take(file: fs::File, alone: bool) -> io::Result<Box<dyn DiskLock>> {
        if alone { file.try_lock() } else { file.try_lock_shared() }.map_err(io::Error::from)?;
        Ok(Box::new(Self { file, process: std::process::id() }))
    }
}

impl DiskLock for FileLock {
    fn identity(&self) -> io::Result<FileIdentity> {
        DiskFile::identity(&self.file)
    }

    fn note(&self, line: &str) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.write_all_at(line.as_bytes(), 0)
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // A forked child has the same lock as its parent: what it unlocks is unlocked for both.
        if self.process == std::process::id() {
            let _ = self.file.unlock();
        }
    }
}

/// Stands where the system cannot lock.
struct NoLock;

impl DiskLock for NoLock {
    fn identity(&self) -> io::Result<FileIdentity> {
        Ok(FileIdentity::default())
    }

    fn note(&self, _line: &str) -> io::Result<()> {
        Ok(())
    }
}

/// Fills `buf` from `offset`; a file that ends before that is an error, never "the end of the log".
pub(crate) fn read_exact_at(file: &dyn DiskFile, mut buf: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !buf.is_empty() {
        match file.read_at(buf, offset) {
            Ok(0) => {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is shorter than it was"));
            }
            Ok(count) => {
                buf = &mut buf[count..];
                offset += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Which file a path leads to at present. Where the system has no such numbers, all files are one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FileIdentity {
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

impl FileIdentity {
    #[cfg(unix)]
    fn of(meta: &fs::Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        Self { device: meta.dev(), inode: meta.ino() }
    }

    #[cfg(not(unix))]
    fn of(_meta: &fs::Metadata) -> Self {
        Self::default()
    }
}

/// Looks a path up without opening it.
#[cfg(unix)]
pub(crate) fn identity(path: &Path) -> io::Result<Option<FileIdentity>> {
    held::look_up(rustix::fs::CWD, path)
}

/// Looks a path up without opening it.
#[cfg(not(unix))]
pub(crate) fn identity(path: &Path) -> io::Result<Option<FileIdentity>> {
    match fs::metadata(path) {
        Ok(meta) => Ok(Some(FileIdentity::of(&meta))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The length of the file at `path`, without opening it; 0 where there is none.
pub(crate) fn file_len(path: &Path) -> io::Result<u64> {
    match fs::metadata(path) {
        Ok(meta) => Ok(meta.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

/// Whether at least so many bytes are free in a directory, and this many can be written there: what a file system
/// says of itself is not always so.
pub(crate) fn has_room(dir: &Path, free: u64, bytes: usize) -> bool {
    #[cfg(unix)]
    let there =
        // Where nobody can tell there is no room.
        rustix::fs::statvfs(dir).is_ok_and(|stat| stat.f_bavail.saturating_mul(stat.f_frsize) >= free);
    #[cfg(not(unix))]
    let there = free < u64::MAX;
    let path = dir.join("room.test");
    let write = || {
        remove_if_there(&path)?;
        let mut file = fs::OpenOptions::new().write(true).create_new(true).open(&path)?;
        io::Write::write_all(&mut file, &vec![1; bytes])
    };
    let written = there && write().is_ok();
    there && remove_if_there(&path).is_ok() && written
}

/// Removes a file that may be absent.
pub(crate) fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Writes a small file of which losing the newest version in a crash does no harm.
pub(crate) fn replace_small(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut new = path.to_path_buf();
    new.as_mut_os_string().push(".new");
    // Made anew each time, so that a link of this name is not followed.
    remove_if_there(&new)?;
    let segment = path.parent().and_then(|dir| access::any_segment(&dir.join("log")));
    let file = access::create(&RealDisk, &new, &[path], segment.as_deref().as_slice())?;
    file.write_all_at(bytes, 0)?;
    fs::rename(&new, path)
}

/// Reads a small file of at most `limit` bytes.
pub(crate) fn read_small(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    use std::io::Read;
    check_regular(path)?;
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Opens a file of somebody else's for reading: a regular one, or a pipe, which waits for its other end.
/// What a device gives may have no end.
pub(crate) fn open_source(path: &Path) -> io::Result<fs::File> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        let sort = fs::metadata(path)?.file_type();
        if sort.is_char_device() || sort.is_block_device() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is a device"));
        }
    }
    fs::File::open(path)
}

/// Opens the lock file, making it where `create` is set.
pub(crate) fn open_lock(path: &Path, create: bool) -> io::Result<fs::File> {
    check_regular(path)?;
    check_no_link(path)?;
    let file = fs::OpenOptions::new().read(true).write(create).create(create).truncate(false).open(path)?;
    if create && file.metadata()?.len() == 0 {
        // It was just made, by root perhaps.
        let dir = path.parent().map_or(Ok(None), |dir| access::found(fs::metadata(dir)))?;
        dir.map_or(Ok(()), |dir| access::hand_over(&file, dir))?;
    }
    Ok(file)
}

/// The path made absolute, links resolved as far as it exists.
pub(crate) fn absolute(path: &Path) -> io::Result<PathBuf> {
    fs::canonicalize(path).or_else(|_| std::path::absolute(path))
}

/// Cuts a file that may be absent to no bytes.
pub(crate) fn truncate_if_there(path: &Path) -> io::Result<()> {
    if check_no_link(path).is_err() {
        return fs::remove_file(path);
    }
    match fs::OpenOptions::new().write(true).open(path) {
        Ok(file) => file.set_len(0),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Renames a file and makes the new name durable.
pub(crate) fn rename_durably(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    to.parent().map_or(Ok(()), |dir| RealDisk.sync_dir(dir))
}

/// Makes a directory and all above it.
#[cfg(any(test, fuzzing))]
pub(crate) fn make_dirs(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)
}
