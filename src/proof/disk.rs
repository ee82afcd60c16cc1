//! A disk in memory that fails on demand: for tests of the log.
//!
//! Every file has what a sync has made durable and what the page cache holds; every directory
//! likewise. A power cut keeps any subset of the unsynced sectors, and any prefix of the unsynced
//! changes of names. A kill keeps the page cache. A fault makes one operation fail, or it and all
//! that follow.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::disk::{Disk, DiskFile};

const SECTOR: usize = 512;

/// A small generator, so that a failing case can be run again by its seed.
#[derive(Clone)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 11) % end.max(1)
    }

    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

#[derive(Default, Clone)]
struct Inode {
    durable: Vec<u8>,
    cache: Vec<u8>,
}

#[derive(Clone)]
enum NameChange {
    Link(PathBuf, usize),
    Rename(PathBuf, PathBuf),
    Unlink(PathBuf),
}

#[derive(Default)]
struct State {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    journal: Vec<NameChange>,
    dirs: Vec<PathBuf>,
    operations: u64,
    fault: Option<Fault>,
    reads_fail: Option<(PathBuf, u64)>,
    syncs: u64,
    full: bool,
}

/// Which operation fails, and what becomes of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    /// The operation, counted from 0 over writes, syncs, creations, renames and removals.
    pub(crate) at: u64,
    /// The process dies there: everything after it fails as well.
    pub(crate) fatal: bool,
    /// A failing write leaves about this many bytes behind, up to a sector's end.
    pub(crate) partial: usize,
    /// The error, as the system numbers it.
    pub(crate) errno: i32,
}

/// The disk. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct SimDisk(Arc<Mutex<State>>);

struct SimFile {
    disk: SimDisk,
    path: PathBuf,
    inode: usize,
}

fn apply(names: &mut BTreeMap<PathBuf, usize>, change: &NameChange) {
    match change {
        NameChange::Link(path, inode) => {
            names.insert(path.clone(), *inode);
        }
        NameChange::Rename(from, to) => {
            if let Some(inode) = names.remove(from) {
                names.insert(to.clone(), inode);
            }
        }
        NameChange::Unlink(path) => {
            names.remove(path);
        }
    }
}

impl SimDisk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the directory above the store.
    pub(crate) fn create_parents(&self) {
        let mut state = self.state();
        state.dirs.extend([PathBuf::from("/parent"), PathBuf::from("/parent/store")]);
    }

    /// Makes a directory and all above it.
    pub(crate) fn add_dir(&self, dir: &Path) {
        self.state().dirs.extend(dir.ancestors().map(Path::to_path_buf));
    }

    /// Whether files can still be made or grow.
    pub(crate) fn set_full(&self, full: bool) {
        self.state().full = full;
    }

    /// A copy of nothing but what was synced.
    pub(crate) fn after_worst_power_cut(&self) -> Self {
        let copy = self.after_kill();
        let mut state = copy.state();
        for inode in &mut state.inodes {
            inode.cache.clone_from(&inode.durable);
        }
        state.names = state.durable_names.clone();
        drop(state);
        copy
    }

    pub(crate) fn set_fault(&self, fault: Option<Fault>) {
        let mut state = self.state();
        state.fault = fault;
        state.operations = 0;
    }

    pub(crate) fn operations(&self) -> u64 {
        self.state().operations
    }

    pub(crate) fn syncs(&self) -> u64 {
        self.state().syncs
    }

    /// Reads that touch this byte fail with EIO.
    pub(crate) fn fail_reads_at(&self, place: Option<(PathBuf, u64)>) {
        self.state().reads_fail = place;
    }

    /// The page cache's bytes of a file.
    pub(crate) fn bytes(&self, path: &Path) -> Vec<u8> {
        let state = self.state();
        state.inodes[state.names[path]].cache.clone()
    }

    /// Puts bytes into a file, in cache and on disk alike.
    pub(crate) fn put(&self, path: &Path, bytes: Vec<u8>) {
        let mut state = self.state();
        let inode = if let Some(inode) = state.names.get(path) {
            *inode
        } else {
            state.inodes.push(Inode::default());
            let inode = state.inodes.len() - 1;
            state.names.insert(path.into(), inode);
            state.durable_names.insert(path.into(), inode);
            inode
        };
        state.inodes[inode] = Inode { durable: bytes.clone(), cache: bytes };
    }

    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        self.state().names.keys().cloned().collect()
    }

    /// A copy of what is in the page cache: as after a kill.
    pub(crate) fn after_kill(&self) -> Self {
        let state = self.state();
        Self(Arc::new(Mutex::new(State {
            inodes: state.inodes.clone(),
            names: state.names.clone(),
            durable_names: state.durable_names.clone(),
            journal: state.journal.clone(),
            dirs: state.dirs.clone(),
            ..State::default()
        })))
    }

    /// A copy of what a power cut leaves.
    pub(crate) fn after_power_cut(&self, rng: &mut Rng) -> Self {
        let state = self.state();
        let mut inodes = Vec::new();
        for inode in &state.inodes {
            let mut bytes = inode.durable.clone();
            // A file's new length may or may not have arrived.
            if inode.cache.len() != bytes.len() && rng.chance(50) {
                bytes.resize(inode.cache.len(), 0);
            }
            for start in (0..bytes.len()).step_by(SECTOR) {
                let end = (start + SECTOR).min(bytes.len()).min(inode.cache.len());
                if start < end && inode.cache[start..end] != bytes[start..end] && rng.chance(50) {
                    bytes[start..end].copy_from_slice(&inode.cache[start..end]);
                }
            }
            inodes.push(Inode { durable: bytes.clone(), cache: bytes });
        }
        let mut names = state.durable_names.clone();
        let kept = rng.below(state.journal.len() as u64 + 1) as usize;
        state.journal[..kept].iter().for_each(|change| apply(&mut names, change));
        Self(Arc::new(Mutex::new(State {
            inodes,
            durable_names: names.clone(),
            names,
            dirs: state.dirs.clone(),
            ..State::default()
        })))
    }

    /// Counts an operation; an error where it is to fail.
    fn operate(&self) -> Result<(), (io::Error, usize)> {
        let mut state = self.state();
        let now = state.operations;
        state.operations += 1;
        match state.fault {
            Some(fault) if now == fault.at || (fault.fatal && now > fault.at) => {
                let partial = if now == fault.at { fault.partial } else { 0 };
                Err((io::Error::from_raw_os_error(fault.errno), partial))
            }
            _ => Ok(()),
        }
    }

    fn change_names(&self, change: NameChange) -> io::Result<()> {
        self.operate().map_err(|(error, _)| error)?;
        let mut state = self.state();
        apply(&mut state.names, &change);
        state.journal.push(change);
        Ok(())
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, _writable: bool) -> io::Result<Box<dyn DiskFile>> {
        let inode = *self.state().names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(SimFile { disk: self.clone(), path: path.into(), inode }))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let inode = {
            let mut state = self.state();
            if state.names.contains_key(path) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            state.inodes.push(Inode::default());
            state.inodes.len() - 1
        };
        self.change_names(NameChange::Link(path.into(), inode))?;
        Ok(Box::new(SimFile { disk: self.clone(), path: path.into(), inode }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change_names(NameChange::Rename(from.into(), to.into()))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        if !self.state().names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.change_names(NameChange::Unlink(path.into()))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        if !state.dirs.iter().any(|dir| dir == path) {
            state.dirs.push(path.into());
        }
        Ok(())
    }

    fn sync_dir(&self, _path: &Path) -> io::Result<()> {
        self.operate().map_err(|(error, _)| error)?;
        let mut state = self.state();
        state.durable_names = state.names.clone();
        state.journal.clear();
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        if !state.dirs.iter().any(|dir| dir == path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inside = state.names.keys().chain(&state.dirs).filter(|name| name.parent() == Some(path));
        let mut names: Vec<String> =
            inside.filter_map(|name| Some(name.file_name()?.to_string_lossy().into_owned())).collect();
        names.sort();
        Ok(names)
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.disk.state();
        let cache = &state.inodes[self.inode].cache;
        let start = (offset as usize).min(cache.len());
        let end = (start + buf.len()).min(cache.len());
        if let Some((path, at)) = &state.reads_fail
            && *path == self.path
            && (start as u64..end as u64).contains(at)
        {
            return Err(io::Error::from_raw_os_error(5));
        }
        buf[..end - start].copy_from_slice(&cache[start..end]);
        Ok(end - start)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let (written, result) = match self.disk.operate() {
            Ok(()) => (buf.len(), Ok(())),
            // The kernel copies page by page, so a write that is cut off ends at a sector's end.
            Err((error, partial)) => {
                let end = (offset as usize + partial.min(buf.len())) / SECTOR * SECTOR;
                (end.saturating_sub(offset as usize), Err(error))
            }
        };
        if written == 0 {
            return result;
        }
        let mut state = self.disk.state();
        let full = state.full;
        let cache = &mut state.inodes[self.inode].cache;
        let end = offset as usize + written;
        if full && cache.len() < end {
            return Err(io::Error::from_raw_os_error(28));
        }
        if cache.len() < end {
            cache.resize(end, 0);
        }
        cache[offset as usize..end].copy_from_slice(&buf[..written]);
        result
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.operate().map_err(|(error, _)| error)?;
        let mut state = self.disk.state();
        state.syncs += 1;
        let inode = &mut state.inodes[self.inode];
        inode.durable = inode.cache.clone();
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.state().inodes[self.inode].cache.len() as u64)
    }

    fn as_real(&self) -> Option<&std::fs::File> {
        None
    }
}

/// Rows of events by seq, for healing.
pub(crate) type Frames = HashMap<u64, (Vec<u8>, Vec<u8>)>;
