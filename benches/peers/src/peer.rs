//! The trait that every log here implements.

use std::error::Error;
use std::ops::Range;
use std::path::Path;

/// Any error. What matters is that there is one, and its text.
pub type Failure = Box<dyn Error + Send + Sync>;

/// A result with that error.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// A log that is open for appending. It is closed by dropping it.
pub trait Log: Send {
    /// Appends the records as one unit, where the peer has units, and returns when they are durable by the
    /// strongest means that the peer documents.
    fn append(&mut self, batch: &[&[u8]]) -> Result<()>;
}

/// What reading found. Records go to `each` as they come, so that they count even if the peer crashes.
pub struct Found<'a> {
    each: &'a mut dyn FnMut(&[u8]),
    /// Whether opening succeeded. An error before is a refusal.
    pub opened: bool,
    /// What the peer said by way of its API, besides errors: reports, checks.
    pub told: Vec<String>,
}

impl<'a> Found<'a> {
    /// Hands the records to `each`.
    pub fn new(each: &'a mut dyn FnMut(&[u8])) -> Self {
        Self { each, opened: false, told: Vec::new() }
    }

    /// One record, as it was read.
    pub fn record(&mut self, bytes: &[u8]) {
        (self.each)(bytes);
    }
}

/// A log under test, with defaults for a log that keeps a record's bytes in one piece in its files.
pub trait Peer: Sync {
    /// The name on the command line.
    fn id(&self) -> &'static str;

    /// Name, version, and setup where there are several.
    fn title(&self) -> String;

    /// How an append is made durable.
    fn means(&self) -> &'static str;

    /// Opens the log in `dir` for appending, and makes it where there is none. Some peers find their
    /// directory through the environment: see [`Peer::env`].
    fn open(&self, dir: &Path) -> Result<Box<dyn Log>>;

    /// Opens the log as a program would after a restart, and reads all records in order.
    fn read(&self, dir: &Path, found: &mut Found<'_>) -> Result<()>;

    /// An environment variable that must name the directory before the process starts.
    fn env(&self) -> Option<&'static str> {
        None
    }

    /// Whether several records can be appended as one unit.
    fn has_batches(&self) -> bool {
        true
    }

    /// Whether the writer closes the log before the files are copied. Otherwise it is killed.
    fn closes(&self) -> bool {
        false
    }

    /// A part of the names of the files that hold the truth. Only they are damaged, and only their syncs
    /// are counted and made to fail.
    fn data_files(&self) -> &'static str {
        ""
    }

    /// Done to the files before they are damaged.
    fn before_damage(&self, _dir: &Path) -> Result<()> {
        Ok(())
    }

    /// The bytes by which a record is found in the files.
    fn needle<'r>(&self, record: &'r [u8]) -> &'r [u8] {
        record
    }

    /// The framing of the record at `at`: what lies between it and the end of the record before.
    fn framing(&self, _file: &[u8], before: usize, at: usize) -> Option<Range<usize>> {
        (before < at && at - before <= 512).then_some(before..at)
    }

    /// What `framing` covers, in words.
    fn framing_words(&self) -> &'static str;
}

/// The version of a crate as this build has it.
pub fn version(name: &str) -> &'static str {
    let lock = include_str!("../Cargo.lock");
    let entry = format!("name = \"{name}\"\nversion = \"");
    lock.split(entry.as_str()).nth(1).and_then(|rest| rest.split('"').next()).unwrap_or("unknown")
}
