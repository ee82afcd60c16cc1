//! The files and directories of a simulated disk, cheap to copy, and what crashes make of them.
//!
//! Each directory has a journal of the changes since it was last synced. A power cut keeps a prefix of
//! each directory's own journal: one directory may lose what another one keeps. A new directory is an
//! entry of the one above it and is lost with it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::sectors::{Content, mix};

/// What a name leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    File(usize),
    Dir(usize),
}

/// How a path says that it starts at an open directory.
const OPEN_DIR: &str = "#open-";

type Names = BTreeMap<Arc<str>, Node>;

#[derive(Clone)]
enum Change {
    Link(Arc<str>, Node),
    Rename(Arc<str>, Arc<str>),
    Unlink(Arc<str>),
}

fn apply(names: &mut Names, change: &Change) {
    match change {
        Change::Link(name, node) => {
            names.insert(Arc::clone(name), *node);
        }
        Change::Rename(from, to) => {
            if let Some(node) = names.remove(from) {
                names.insert(Arc::clone(to), node);
            }
        }
        Change::Unlink(name) => {
            names.remove(name);
        }
    }
}

#[derive(Clone, Default)]
struct Dir {
    names: Names,
    durable: Names,
    journal: Vec<Change>,
}

/// A whole file system. A copy shares everything that nobody changes.
#[derive(Clone)]
pub(crate) struct Tree {
    files: Vec<Arc<Content>>,
    dirs: Vec<Arc<Dir>>,
}

impl Default for Tree {
    fn default() -> Self {
        Self { files: Vec::new(), dirs: vec![Arc::default()] }
    }
}

impl Tree {
    fn node(&self, path: &Path) -> Option<Node> {
        let mut node = Node::Dir(0);
        for name in path.iter().skip(1) {
            let name = name.to_str()?;
            // From an open directory, wherever it is by now.
            if let Some(open) = name.strip_prefix(OPEN_DIR) {
                node = Node::Dir(open.parse().ok()?);
                continue;
            }
            let Node::Dir(dir) = node else { return None };
            node = *self.dirs[dir].names.get(name)?;
        }
        Some(node)
    }

    /// What a path leads to.
    pub(crate) fn lookup(&self, path: &Path) -> Option<Node> {
        self.node(path)
    }

    /// A path for what lies in an open directory; see [`Tree::lookup`].
    pub(crate) fn open_dir(dir: usize) -> PathBuf {
        format!("/{OPEN_DIR}{dir}").into()
    }

    /// Whether a directory still has a name.
    fn is_linked(&self, wanted: usize) -> bool {
        let mut todo = vec![0];
        while let Some(dir) = todo.pop() {
            if dir == wanted {
                return true;
            }
            todo.extend(self.dirs[dir].names.values().filter_map(|node| match node {
                Node::Dir(dir) => Some(*dir),
                Node::File(_) => None,
            }));
        }
        false
    }

    /// Moves a directory, and whatever has its new name away, as somebody else's `mv` would. Durable at once.
    pub(crate) fn move_dir(&mut self, from: &Path, to: &Path) {
        let Some(node @ Node::Dir(_)) = self.node(from) else { panic!("{} is no directory", from.display()) };
        for (path, node) in [(from, None), (to, Some(node))] {
            let (dir, name) = self.parent_of(path).unwrap();
            let change = node.map_or(Change::Unlink(Arc::clone(&name)), |node| Change::Link(name, node));
            self.change(dir, change);
            self.sync_dir(path.parent().unwrap()).unwrap();
        }
    }

    /// Takes a directory away, with all that is in it. Durable at once.
    pub(crate) fn remove_dir(&mut self, path: &Path) {
        let Some(Node::Dir(dir)) = self.node(path) else { panic!("{} is no directory", path.display()) };
        for name in self.list(path).unwrap() {
            let inner = path.join(name);
            match self.node(&inner) {
                Some(Node::Dir(_)) => self.remove_dir(&inner),
                _ => self.remove(&inner).unwrap(),
            }
        }
        self.sync_dir(&Self::open_dir(dir)).unwrap();
        let (above, name) = self.parent_of(path).unwrap();
        self.change(above, Change::Unlink(name));
        self.sync_dir(path.parent().unwrap()).unwrap();
    }

    /// A copy of a directory, with files of its own: a backup. Durable at once.
    pub(crate) fn copy_dir(&mut self, from: &Path, to: &Path) {
        self.add_dirs(to);
        for name in self.list(from).unwrap() {
            let (from, to) = (from.join(&name), to.join(&name));
            match self.node(&from) {
                Some(Node::File(file)) => self.put(&to, self.files[file].cache().to_vec()),
                _ => self.copy_dir(&from, &to),
            }
        }
    }

    fn parent_of(&self, path: &Path) -> io::Result<(usize, Arc<str>)> {
        let name = path.file_name().and_then(|name| name.to_str()).ok_or(io::ErrorKind::InvalidInput)?;
        match path.parent().and_then(|parent| self.node(parent)) {
            Some(Node::Dir(dir)) => Ok((dir, name.into())),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn change(&mut self, dir: usize, change: Change) {
        let dir = Arc::make_mut(&mut self.dirs[dir]);
        apply(&mut dir.names, &change);
        dir.journal.push(change);
    }

    /// The file at a path.
    pub(crate) fn file_at(&self, path: &Path) -> Option<usize> {
        match self.node(path) {
            Some(Node::File(file)) => Some(file),
            _ => None,
        }
    }

    pub(crate) fn file(&self, file: usize) -> &Content {
        &self.files[file]
    }

    pub(crate) fn file_mut(&mut self, file: usize) -> &mut Content {
        Arc::make_mut(&mut self.files[file])
    }

    pub(crate) fn create(&mut self, path: &Path) -> io::Result<usize> {
        let (dir, name) = self.parent_of(path)?;
        if self.dirs[dir].names.contains_key(&name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if !self.is_linked(dir) {
            return Err(io::ErrorKind::NotFound.into()); // nothing is made in a directory that was removed
        }
        self.files.push(Arc::default());
        let file = self.files.len() - 1;
        self.change(dir, Change::Link(name, Node::File(file)));
        Ok(file)
    }

    pub(crate) fn create_dir(&mut self, path: &Path) -> io::Result<()> {
        let (dir, name) = self.parent_of(path)?;
        match self.dirs[dir].names.get(&name) {
            Some(Node::Dir(_)) => Ok(()),
            Some(Node::File(_)) => Err(io::ErrorKind::AlreadyExists.into()),
            None => {
                self.dirs.push(Arc::default());
                self.change(dir, Change::Link(name, Node::Dir(self.dirs.len() - 1)));
                Ok(())
            }
        }
    }

    /// Renames within one directory; the log needs nothing else.
    pub(crate) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let ((dir, old), (other, new)) = (self.parent_of(from)?, self.parent_of(to)?);
        assert_eq!(dir, other, "a rename across directories is not simulated");
        if !self.dirs[dir].names.contains_key(&old) {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.change(dir, Change::Rename(old, new));
        Ok(())
    }

    pub(crate) fn remove(&mut self, path: &Path) -> io::Result<()> {
        let (dir, name) = self.parent_of(path)?;
        if !matches!(self.dirs[dir].names.get(&name), Some(Node::File(_))) {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.change(dir, Change::Unlink(name));
        Ok(())
    }

    pub(crate) fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        let Some(Node::Dir(dir)) = self.node(path) else { return Err(io::ErrorKind::NotFound.into()) };
        if !self.dirs[dir].journal.is_empty() {
            let dir = Arc::make_mut(&mut self.dirs[dir]);
            dir.durable = dir.names.clone();
            dir.journal.clear();
        }
        Ok(())
    }

    pub(crate) fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        match self.node(path) {
            Some(Node::Dir(dir)) => Ok(self.dirs[dir].names.keys().map(ToString::to_string).collect()),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Makes a directory and all above it, durably.
    pub(crate) fn add_dirs(&mut self, path: &Path) {
        let mut above: Vec<&Path> = path.ancestors().collect();
        above.pop();
        for dir in above.into_iter().rev() {
            self.create_dir(dir).unwrap();
            self.sync_dir(dir.parent().unwrap()).unwrap();
        }
    }

    /// Puts bytes into a file, in cache and on disk alike.
    pub(crate) fn put(&mut self, path: &Path, bytes: Vec<u8>) {
        let file = self.file_at(path).unwrap_or_else(|| {
            let file = self.create(path).unwrap();
            self.sync_dir(path.parent().unwrap()).unwrap();
            file
        });
        self.files[file] = Arc::new(Content::settled(bytes));
    }

    /// All files that have a name, with their paths.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        self.visit(0, &mut PathBuf::from("/"), &mut |path, _| found.push(path.to_path_buf()));
        found
    }

    /// The present name of a file; none where it was removed.
    pub(crate) fn path_of(&self, wanted: usize) -> PathBuf {
        let mut found = PathBuf::new();
        self.visit(0, &mut PathBuf::from("/"), &mut |path, file| {
            if file == wanted {
                found = path.to_path_buf();
            }
        });
        found
    }

    fn visit(&self, dir: usize, path: &mut PathBuf, see: &mut dyn FnMut(&Path, usize)) {
        for (name, node) in &self.dirs[dir].names {
            path.push(&**name);
            match node {
                Node::File(file) => see(path, *file),
                Node::Dir(dir) => self.visit(*dir, path, see),
            }
            path.pop();
        }
    }

    /// Files and directories that have a name, or may have one after a crash.
    fn reachable(&self) -> (BTreeSet<usize>, BTreeSet<usize>) {
        let (mut files, mut dirs, mut todo) = (BTreeSet::new(), BTreeSet::new(), vec![0]);
        while let Some(dir) = todo.pop() {
            if !dirs.insert(dir) {
                continue;
            }
            let dir = &self.dirs[dir];
            let linked = dir.journal.iter().filter_map(|change| match change {
                Change::Link(_, node) => Some(node),
                _ => None,
            });
            for node in dir.names.values().chain(dir.durable.values()).chain(linked) {
                match node {
                    Node::File(file) => {
                        files.insert(*file);
                    }
                    Node::Dir(dir) => todo.push(*dir),
                }
            }
        }
        (files, dirs)
    }

    /// How many choices a power cut has for each thing that is not settled.
    pub(crate) fn options(&self) -> Vec<usize> {
        let (files, dirs) = self.reachable();
        let journals = dirs.iter().map(|dir| self.dirs[*dir].journal.len() + 1).filter(|count| *count > 1);
        let mut options: Vec<usize> = journals.collect();
        files.iter().for_each(|file| options.extend(self.files[*file].options()));
        options
    }

    /// Whether a power cut would change nothing.
    pub(crate) fn is_settled(&self) -> bool {
        self.files.iter().all(|file| file.is_settled()) && self.dirs.iter().all(|dir| dir.journal.is_empty())
    }

    /// What a power cut leaves. `pick` is asked in the order of [`Tree::options`]: 0 keeps the newest,
    /// `count - 1` the oldest.
    pub(crate) fn cut(&self, pick: &mut dyn FnMut(usize) -> usize) -> Self {
        let (files, dirs) = self.reachable();
        let mut left = self.clone();
        for index in dirs {
            let dir = &self.dirs[index];
            if dir.journal.is_empty() {
                continue;
            }
            let kept = dir.journal.len() - pick(dir.journal.len() + 1);
            let mut names = dir.durable.clone();
            dir.journal[..kept].iter().for_each(|change| apply(&mut names, change));
            left.dirs[index] = Arc::new(Dir { durable: names.clone(), names, journal: Vec::new() });
        }
        for index in files {
            if !self.files[index].is_settled() {
                left.files[index] = Arc::new(self.files[index].cut(pick));
            }
        }
        left
    }

    /// The kernel forgets clean pages; see [`Content::evict`].
    pub(crate) fn evict(&self, pick: &mut dyn FnMut(usize) -> usize) -> Self {
        let mut left = self.clone();
        for file in &mut left.files {
            if !file.is_settled() {
                *file = Arc::new(file.evict(pick));
            }
        }
        left
    }

    /// A number for everything that a reader sees: names and bytes.
    pub(crate) fn sum(&self) -> u64 {
        self.sum_with(0, 7, &Content::sum)
    }

    /// A number for what a reader sees and for what a power cut could make of it.
    pub(crate) fn full_sum(&self) -> u64 {
        let journals = self.dirs.iter().map(|dir| dir.journal.len() as u64);
        journals.fold(self.sum_with(0, 11, &Content::full_sum), mix)
    }

    fn sum_with(&self, dir: usize, mut sum: u64, of: &dyn Fn(&Content) -> u64) -> u64 {
        for (name, node) in &self.dirs[dir].names {
            sum = name.bytes().fold(sum, |sum, byte| mix(sum, u64::from(byte)));
            sum = match node {
                Node::File(file) => mix(sum, of(&self.files[*file])),
                Node::Dir(dir) => mix(self.sum_with(*dir, sum, of), 1),
            };
        }
        sum
    }
}
