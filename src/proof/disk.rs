//! A disk in memory that fails on demand: for tests of the log.
//!
//! [`super::sectors`] says what a power cut makes of bytes, [`super::tree`] what it makes of names.
//! Here are the calls: counted, made to fail, and recorded one by one, so that a test can go back to
//! the moment after any of them. A kill keeps the page cache. Directories are different from files in
//! one thing: after a failed sync their changes stay pending, because a file system that cannot write
//! its own journal takes no more writes at all.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::disk::{Disk, DiskFile, DiskLock, FileIdentity, Lockable};

pub(crate) use super::rng::Rng;
use super::sectors::SECTOR;
use super::tree::{Node, Tree};

/// Which call that changes something fails, and what becomes of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    /// The call, counted from 0 over writes, syncs, creations, renames and removals.
    pub(crate) at: u64,
    /// The process dies there: everything after it fails as well.
    pub(crate) fatal: bool,
    /// A failing write leaves about this many bytes behind, up to a sector's end.
    pub(crate) partial: usize,
    /// The error, as the system numbers it.
    pub(crate) errno: i32,
}

/// Which call that reads fails: opening, listing, reading, asking for a length.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadFault {
    pub(crate) at: u64,
    /// All that follow fail as well.
    pub(crate) forever: bool,
    pub(crate) errno: i32,
}

/// What kind of call changed the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Write {
        file: usize,
        from: usize,
        to: usize,
    },
    Sync,
    Create,
    Rename,
    Remove,
    CreateDir,
    SyncDir,
    /// No call: the script took a step.
    Step,
}

/// The disk as it was after a call.
#[derive(Clone)]
pub(crate) struct Point {
    pub(crate) tree: Tree,
    pub(crate) call: Call,
    /// How far the script was.
    pub(crate) step: usize,
}

#[derive(Default)]
struct State {
    tree: Tree,
    operations: u64,
    fault: Option<Fault>,
    /// The first call that the fault hit.
    hit: Option<(&'static str, PathBuf)>,
    reads: u64,
    bytes_read: u64,
    read_fault: Option<ReadFault>,
    reads_fail: Option<(PathBuf, u64)>,
    syncs: u64,
    writes: u64,
    /// Bytes by which files can still grow.
    free: Option<usize>,
    points: Option<Vec<Point>>,
    step: usize,
    /// What is locked, and by which opening of it; whether alone.
    locks: Vec<(Node, u64, bool)>,
    openings: u64,
    /// The process that calls.
    process: u32,
    /// Calls of any kind.
    calls: u64,
    /// What somebody else does before which call.
    meddler: Option<(u64, Meddling)>,
}

/// What somebody else does to the tree, and to the process that calls.
type Meddling = Box<dyn FnOnce(&mut Tree, &mut u32) + Send>;

/// The disk. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct SimDisk(Arc<Mutex<State>>);

/// The disk from the open directory of a store and its directory `log`.
struct HeldDisk {
    disk: SimDisk,
    store_dir: PathBuf,
    store: usize,
    log: usize,
}

struct SimLock {
    disk: SimDisk,
    node: Node,
    opening: u64,
    process: u32,
}

struct SimFile {
    disk: SimDisk,
    path: PathBuf,
    file: usize,
    writable: bool,
}

fn identity_of(node: Node) -> FileIdentity {
    match node {
        Node::File(file) => FileIdentity { device: 1, inode: file as u64 },
        Node::Dir(dir) => FileIdentity { device: 2, inode: dir as u64 },
    }
}

impl State {
    /// Lets somebody else do what is due before this call.
    fn meddle(&mut self) {
        let calls = self.calls;
        if let Some((_, meddling)) = self.meddler.take_if(|(at, _)| *at <= calls) {
            meddling(&mut self.tree, &mut self.process);
        }
        self.calls += 1;
    }

    /// Counts a call; an error where it is to fail.
    fn operate(
        &mut self,
        call: &'static str,
        path: impl FnOnce(&Tree) -> PathBuf,
    ) -> Result<(), (io::Error, usize)> {
        self.meddle();
        let now = self.operations;
        self.operations += 1;
        match self.fault {
            Some(fault) if now == fault.at || (fault.fatal && now > fault.at) => {
                self.hit.get_or_insert_with(|| (call, path(&self.tree)));
                let partial = if now == fault.at { fault.partial } else { 0 };
                Err((io::Error::from_raw_os_error(fault.errno), partial))
            }
            _ => Ok(()),
        }
    }

    fn read(&mut self) -> io::Result<()> {
        self.meddle();
        let now = self.reads;
        self.reads += 1;
        match self.read_fault {
            Some(fault) if now == fault.at || (fault.forever && now > fault.at) => {
                Err(io::Error::from_raw_os_error(fault.errno))
            }
            _ => Ok(()),
        }
    }

    fn record(&mut self, call: Call) {
        if let Some(points) = &mut self.points {
            points.push(Point { tree: self.tree.clone(), call, step: self.step });
        }
    }
}

impl SimDisk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn from_tree(tree: Tree) -> Self {
        Self(Arc::new(Mutex::new(State { tree, ..State::default() })))
    }

    /// A copy of names and bytes, with everything that is pending.
    pub(crate) fn tree(&self) -> Tree {
        self.state().tree.clone()
    }

    /// Before the call of this number, reads and looks included, somebody else does this.
    pub(crate) fn meddle_at(&self, call: u64, meddling: impl FnOnce(&mut Tree, &mut u32) + Send + 'static) {
        self.state().meddler = Some((call, Box::new(meddling)));
    }

    /// How many calls of any kind there were.
    pub(crate) fn calls(&self) -> u64 {
        self.state().calls
    }

    /// Somebody else does this now.
    pub(crate) fn meddle<T>(&self, meddling: impl FnOnce(&mut Tree) -> T) -> T {
        meddling(&mut self.state().tree)
    }

    /// From now on this process calls.
    pub(crate) fn set_process(&self, process: u32) {
        self.state().process = process;
    }

    /// Makes the directory above the store.
    pub(crate) fn create_parents(&self) {
        self.add_dir(Path::new("/parent/store"));
    }

    /// Makes a directory and all above it.
    pub(crate) fn add_dir(&self, dir: &Path) {
        self.state().tree.add_dirs(dir);
    }

    /// Whether files can still grow.
    pub(crate) fn set_full(&self, full: bool) {
        self.set_free(full.then_some(0));
    }

    /// By how many bytes files can still grow; `None` for no limit.
    pub(crate) fn set_free(&self, free: Option<usize>) {
        self.state().free = free;
    }

    pub(crate) fn set_fault(&self, fault: Option<Fault>) {
        let mut state = self.state();
        state.fault = fault;
        state.operations = 0;
        state.hit = None;
    }

    pub(crate) fn set_read_fault(&self, fault: Option<ReadFault>) {
        let mut state = self.state();
        state.read_fault = fault;
        (state.reads, state.bytes_read) = (0, 0);
    }

    /// The first call that the fault hit, and its path.
    pub(crate) fn hit(&self) -> Option<(&'static str, PathBuf)> {
        self.state().hit.clone()
    }

    /// Calls since the fault was set that would change something.
    pub(crate) fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Calls since the fault was set that only read.
    pub(crate) fn reads(&self) -> u64 {
        self.state().reads
    }

    /// Bytes that were read since the fault was set.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.state().bytes_read
    }

    pub(crate) fn syncs(&self) -> u64 {
        self.state().syncs
    }

    /// Writes that were tried.
    pub(crate) fn writes(&self) -> u64 {
        self.state().writes
    }

    /// Reads that touch this byte fail with EIO.
    pub(crate) fn fail_reads_at(&self, place: Option<(PathBuf, u64)>) {
        self.state().reads_fail = place;
    }

    /// From now on the disk is kept as it was after each call.
    pub(crate) fn record(&self) {
        self.state().points = Some(Vec::new());
    }

    /// Keeps the disk as it is now, and gives what follows this number.
    pub(crate) fn step(&self, step: usize) {
        let mut state = self.state();
        state.step = step;
        state.record(Call::Step);
    }

    pub(crate) fn take_points(&self) -> Vec<Point> {
        self.state().points.take().unwrap_or_default()
    }

    /// The page cache's bytes of a file.
    pub(crate) fn bytes(&self, path: &Path) -> Vec<u8> {
        let state = self.state();
        state.tree.file(state.tree.file_at(path).expect("a file")).cache().to_vec()
    }

    /// Whether a file holds just these bytes.
    pub(crate) fn holds(&self, path: &Path, bytes: &[u8]) -> bool {
        let state = self.state();
        state.tree.file_at(path).is_some_and(|file| state.tree.file(file).cache() == bytes)
    }

    /// Puts bytes into a file, in cache and on disk alike.
    pub(crate) fn put(&self, path: &Path, bytes: Vec<u8>) {
        self.state().tree.put(path, bytes);
    }

    /// Changes bytes of a file, in cache and on disk alike.
    pub(crate) fn damage(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = self.bytes(path);
        change(&mut bytes);
        self.put(path, bytes);
    }

    pub(crate) fn flip_bit(&self, path: &Path, at: usize, bit: u32) {
        self.damage(path, |bytes| bytes[at] ^= 1 << bit);
    }

    pub(crate) fn zero_sector(&self, path: &Path, sector: usize) {
        self.damage(path, |bytes| bytes[sector * SECTOR..(sector + 1) * SECTOR].fill(0));
    }

    pub(crate) fn swap_sectors(&self, path: &Path, one: usize, other: usize) {
        self.damage(path, |bytes| {
            for index in 0..SECTOR {
                bytes.swap(one * SECTOR + index, other * SECTOR + index);
            }
        });
    }

    pub(crate) fn truncate(&self, path: &Path, len: usize) {
        self.damage(path, |bytes| bytes.truncate(len));
    }

    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        self.state().tree.paths()
    }

    /// A copy of what is in the page cache: as after a kill.
    pub(crate) fn after_kill(&self) -> Self {
        Self::from_tree(self.tree())
    }

    /// A copy of nothing but what was synced.
    pub(crate) fn after_worst_power_cut(&self) -> Self {
        Self::from_tree(self.tree().cut(&mut |count| count - 1))
    }

    /// A copy of what a power cut leaves.
    pub(crate) fn after_power_cut(&self, rng: &mut Rng) -> Self {
        Self::from_tree(self.tree().cut(&mut |count| rng.below(count as u64) as usize))
    }

    /// Opens what is at one path and is known by another.
    fn open_as(&self, at: &Path, path: &Path, writable: bool) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        state.read()?;
        let file = state.tree.file_at(at).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(SimFile { disk: self.clone(), path: path.into(), file, writable }))
    }

    fn create_as(&self, at: &Path, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = self.change(Call::Create, path, |tree| tree.create(at))?;
        Ok(Box::new(SimFile { disk: self.clone(), path: path.into(), file, writable: true }))
    }

    /// A call that changes names.
    fn change<T>(
        &self,
        call: Call,
        path: &Path,
        change: impl FnOnce(&mut Tree) -> io::Result<T>,
    ) -> io::Result<T> {
        let name = match call {
            Call::Create => "create",
            Call::Rename => "rename",
            Call::Remove => "remove",
            Call::CreateDir => "create_dir",
            _ => "sync_dir",
        };
        let mut state = self.state();
        state.operate(name, |_| path.into()).map_err(|(error, _)| error)?;
        let done = change(&mut state.tree)?;
        state.record(call);
        Ok(done)
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, writable: bool) -> io::Result<Box<dyn DiskFile>> {
        self.open_as(path, path, writable)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.create_as(path, path)
    }

    fn identity(&self, path: &Path) -> io::Result<Option<FileIdentity>> {
        let mut state = self.state();
        state.meddle();
        Ok(state.tree.lookup(path).map(identity_of))
    }

    fn lock(&self, path: &Path, what: Lockable, alone: bool) -> io::Result<Box<dyn DiskLock>> {
        let mut state = self.state();
        state.meddle();
        if what == Lockable::File && alone && state.tree.lookup(path).is_none() {
            state.tree.create(path)?;
        }
        let node = state.tree.lookup(path).ok_or(io::ErrorKind::NotFound)?;
        if state.locks.iter().any(|(other, _, others)| *other == node && (alone || *others)) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        state.openings += 1;
        let (opening, process) = (state.openings, state.process);
        state.locks.push((node, opening, alone));
        Ok(Box::new(SimLock { disk: self.clone(), node, opening, process }))
    }

    fn hold(&self, store_dir: &Path) -> io::Result<Arc<dyn Disk>> {
        let state = self.state();
        let dir = |path: &Path| match state.tree.lookup(path) {
            Some(Node::Dir(dir)) => Ok(dir),
            _ => Err(io::Error::from(io::ErrorKind::NotFound)),
        };
        let (store, log) = (dir(store_dir)?, dir(&store_dir.join("log"))?);
        Ok(Arc::new(HeldDisk { disk: self.clone(), store_dir: store_dir.into(), store, log }))
    }

    fn process(&self) -> u32 {
        self.state().process
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(Call::Rename, to, |tree| tree.rename(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.change(Call::Remove, path, |tree| tree.remove(path))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.change(Call::CreateDir, path, |tree| tree.create_dir(path))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.change(Call::SyncDir, path, |tree| tree.sync_dir(path))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut state = self.state();
        state.read()?;
        state.tree.list(path)
    }
}

impl HeldDisk {
    fn locate(&self, path: &Path) -> PathBuf {
        if let Ok(rest) = path.strip_prefix(self.store_dir.join("log")) {
            return Tree::open_dir(self.log).join(rest);
        }
        path.strip_prefix(&self.store_dir)
            .map_or_else(|_| path.to_owned(), |rest| Tree::open_dir(self.store).join(rest))
    }
}

impl Disk for HeldDisk {
    fn open(&self, path: &Path, writable: bool) -> io::Result<Box<dyn DiskFile>> {
        self.disk.open_as(&self.locate(path), path, writable)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.disk.create_as(&self.locate(path), path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (old, new) = (self.locate(from), self.locate(to));
        self.disk.change(Call::Rename, to, |tree| tree.rename(&old, &new))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.change(Call::Remove, path, |tree| tree.remove(&self.locate(path)))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.change(Call::CreateDir, path, |tree| tree.create_dir(&self.locate(path)))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.change(Call::SyncDir, path, |tree| tree.sync_dir(&self.locate(path)))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.disk.list(&self.locate(path))
    }

    fn identity(&self, path: &Path) -> io::Result<Option<FileIdentity>> {
        self.disk.identity(&self.locate(path))
    }

    fn lock(&self, path: &Path, what: Lockable, alone: bool) -> io::Result<Box<dyn DiskLock>> {
        self.disk.lock(&self.locate(path), what, alone)
    }

    fn hold(&self, store_dir: &Path) -> io::Result<Arc<dyn Disk>> {
        self.disk.hold(store_dir)
    }

    fn process(&self) -> u32 {
        self.disk.process()
    }
}

impl DiskLock for SimLock {
    fn identity(&self) -> io::Result<FileIdentity> {
        Ok(identity_of(self.node))
    }

    fn note(&self, _line: &str) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        if state.process == self.process {
            state.locks.retain(|(_, opening, _)| *opening != self.opening);
        }
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.state();
        state.read()?;
        let cache = state.tree.file(self.file).cache();
        let start = (offset as usize).min(cache.len());
        let end = (start + buf.len()).min(cache.len());
        if let Some((path, at)) = &state.reads_fail
            && *path == self.path
            && (start as u64..end as u64).contains(at)
        {
            return Err(io::Error::from_raw_os_error(5));
        }
        buf[..end - start].copy_from_slice(&cache[start..end]);
        state.bytes_read += (end - start) as u64;
        Ok(end - start)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        assert!(self.writable, "a file that was opened for reading is written to");
        let from = offset as usize;
        let mut state = self.disk.state();
        state.writes += 1;
        let (mut to, mut result) = match state.operate("write", |tree| tree.path_of(self.file)) {
            Ok(()) => (from + buf.len(), Ok(())),
            Err((error, partial)) => (from + partial.min(buf.len()), Err(error)),
        };
        let len = state.tree.file(self.file).cache().len();
        if let Some(free) = state.free
            && to.saturating_sub(len) > free
        {
            to = len + free;
            result = result.and(Err(io::Error::from_raw_os_error(28)));
        }
        if result.is_err() {
            // The kernel copies page by page, so a write that is cut off ends at a sector's end.
            to = (to / SECTOR * SECTOR).max(from);
        }
        if to > from {
            if let Some(free) = &mut state.free {
                *free -= to.saturating_sub(len);
            }
            state.tree.file_mut(self.file).write(&buf[..to - from], from);
            state.record(Call::Write { file: self.file, from, to });
        }
        result
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        state.syncs += 1;
        let operated = state.operate("sync", |tree| tree.path_of(self.file));
        if state.tree.file(self.file).is_settled() {
            return operated.map_err(|(error, _)| error);
        }
        let content = state.tree.file_mut(self.file);
        match operated {
            Ok(()) => content.sync(),
            Err(_) => content.fail_sync(),
        }
        state.record(Call::Sync);
        operated.map_err(|(error, _)| error)
    }

    fn len(&self) -> io::Result<u64> {
        let mut state = self.disk.state();
        state.read()?;
        Ok(state.tree.file(self.file).cache().len() as u64)
    }

    fn identity(&self) -> io::Result<FileIdentity> {
        Ok(identity_of(Node::File(self.file)))
    }

    fn as_real(&self) -> Option<&std::fs::File> {
        None
    }
}

/// Rows of events by seq, for healing.
pub(crate) type Frames = HashMap<u64, (Vec<u8>, Vec<u8>)>;
