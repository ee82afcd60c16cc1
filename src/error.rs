//! The one error type: what went wrong, where, how it ended, and what to do now.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::finding::Finding;
use crate::sync::TimeOffset;

/// How an operation that failed ended for the events it was given (P10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// No byte of the event reached the kernel: it will never show up.
    NotWritten,
    /// It may be on disk or not; the next open finds out.
    Unknown,
    /// The event is on disk, although something after that failed. No error of this version says so.
    Durable,
}

/// Everything that can go wrong. Cloneable, because one failed sync is every waiter's error.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Error {
    /// A value that must not be stored; checked before a byte is written.
    Invalid {
        /// The field or column.
        field: String,
        /// What is wrong with it, as the end of a sentence that starts with the field.
        reason: String,
    },
    /// An event or batch above the limit; checked before a byte is written.
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size in bytes.
        bytes: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// Bytes that are not an event of the version they claim, or an event that has no such encoding.
    Codec {
        /// What does not fit.
        reason: String,
    },
    /// The directory holds no store.
    NoStore {
        /// The directory.
        dir: PathBuf,
    },
    /// A store cannot be made here: the directory holds something else.
    NotEmpty {
        /// The directory.
        dir: PathBuf,
    },
    /// Another handle writes to this store.
    Locked {
        /// The lock file.
        path: PathBuf,
        /// The process that holds it, by the lock file: the writer that was the last to note itself there. Another
        /// process that may read the file, and has locked it without being a writer of ours, is not known.
        pid: Option<u32>,
        /// How long this call waited.
        waited: Duration,
    },
    /// The operating system refused a read, a write, a sync or the like.
    Io {
        /// What was tried, such as `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Where in the file, where that is known.
        offset: Option<u64>,
        /// How it ended for the events at hand.
        outcome: Outcome,
        /// The system's own error.
        source: Arc<io::Error>,
    },
    /// A file of a format newer than this program.
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// The version found.
        found: u32,
        /// The newest version that this program reads.
        supported: u32,
    },
    /// The log is damaged, or events of it are missing (P3). Nothing that may have been acknowledged was cut off.
    Damaged {
        /// The directory of the store.
        dir: PathBuf,
        /// Each damage: which seqs, which file, which offset.
        findings: Vec<Finding>,
    },
    /// The idempotency key belongs to an event with other content.
    KeyConflict {
        /// The key.
        key: String,
        /// The event it belongs to.
        seq: u64,
    },
    /// Idempotency keys cannot be looked up now, so the append was refused.
    KeysUnavailable {
        /// Why.
        reason: String,
    },
    /// The times of an import seem to be in another zone than they were read in. Nothing was written.
    SourceZone {
        /// The source.
        path: PathBuf,
        /// By how much they are off, and where that was seen first.
        offset: TimeOffset,
    },
    /// An earlier write or sync of this handle failed, or SQLite turned out to have seen more than the log; the
    /// handle takes nothing more (P10).
    Dead {
        /// What killed it.
        cause: Arc<Error>,
    },
    /// The handle was closed.
    Closed,
    /// The thread that writes the log ended without an answer: a bug. The next open finds out what
    /// became of the event.
    Abandoned,
    /// The path of the store no longer leads to what this handle has opened: its directory, its lock file or its
    /// newest segment was removed, moved or replaced. Or bytes stand behind the log's end that this handle has not
    /// written. The handle takes nothing more (P1).
    Displaced {
        /// Where it was.
        path: PathBuf,
        /// What was seen, as a whole sentence without its full stop.
        seen: String,
        /// `NotWritten` where it was seen before the write, `Unknown` where after it.
        outcome: Outcome,
    },
    /// A call in a child that was forked from the process that opened the handle. Nothing was done: the parent
    /// goes on with the same files.
    Forked {
        /// The process that opened the handle.
        opened_by: u32,
        /// `Unknown` for a batch that the parent had submitted before the fork, `NotWritten` otherwise.
        outcome: Outcome,
    },
    /// A database cannot be used: another process holds it, the system refuses, or replay has to mend it first.
    Projection {
        /// The database file.
        path: PathBuf,
        /// What SQLite said.
        reason: String,
        /// True where another process holds the database; waiting helps.
        busy: bool,
    },
    /// The log does not hold the event that a [`LogPosition`](crate::LogPosition) names: it ends before it, or has
    /// another event under its seq.
    PositionDiffers {
        /// The directory of the store.
        dir: PathBuf,
        /// The seq that the position names.
        seq: u64,
        /// The checksum that it names, where it names one.
        checksum: Option<u32>,
        /// The checksum of the event that the log has under this seq; `None` where it ends before it.
        found: Option<u32>,
        /// The seq of the log's last event.
        last_seq: u64,
    },
    /// A thread that works for the failed call ended in a panic. Nothing that it did not finish was taken for done.
    WorkerDied {
        /// The thread.
        worker: &'static str,
        /// What its panic said.
        reason: String,
    },
    /// The store holds events of another type. Nothing of it was touched.
    OtherEvents {
        /// The directory of the store.
        dir: PathBuf,
        /// The [`Event::KIND`](crate::Event::KIND) of its events.
        found: u16,
        /// That of the type that it was opened for.
        expected: u16,
    },
    /// The idempotency key belongs to an event that this program cannot read, so that nobody can tell whether
    /// the append repeats it.
    KeyUnreadable {
        /// The key.
        key: String,
        /// The event it belongs to.
        seq: u64,
    },
    /// The event type's own code panicked; the store and the handle go on.
    Application {
        /// The function of [`Event`](crate::Event), or `clone`, `eq`.
        function: &'static str,
        /// The event, where it has a seq already.
        seq: Option<u64>,
        /// What the panic said.
        reason: String,
    },
}

/// `std::result::Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A refused value. `reason` ends a sentence that starts with the field: `is empty`.
    pub fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), reason: reason.into() }
    }

    /// Bytes or a row that are no event.
    pub fn codec(reason: impl Into<String>) -> Self {
        Self::Codec { reason: reason.into() }
    }

    /// A call of the system that failed. Whoever knows that no byte was written says so
    /// ([`Error::with_outcome`]); nobody may take that for granted.
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io {
            action,
            path: path.into(),
            offset: None,
            outcome: Outcome::Unknown,
            source: Arc::new(source),
        }
    }

    /// The same, with the place in the file.
    pub(crate) fn io_at(action: &'static str, path: &Path, offset: u64, source: io::Error) -> Self {
        Self::Io {
            action,
            path: path.into(),
            offset: Some(offset),
            outcome: Outcome::Unknown,
            source: Arc::new(source),
        }
    }

    /// The same error, with another outcome where it carries one.
    pub(crate) fn with_outcome(mut self, to: Outcome) -> Self {
        if let Self::Io { outcome, .. } | Self::Displaced { outcome, .. } | Self::Forked { outcome, .. } =
            &mut self
        {
            *outcome = to;
        }
        self
    }

    /// The same error, told of event `seq` where it may be told of one.
    pub(crate) fn of_event(mut self, of: u64) -> Self {
        if let Self::Application { seq, .. } = &mut self {
            *seq = Some(of);
        }
        self
    }

    /// How this ended for the events that the failed call was given (P10). A dead handle answers
    /// `NotWritten` for calls that came after its death.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Io { outcome, .. } | Self::Displaced { outcome, .. } | Self::Forked { outcome, .. } => {
                *outcome
            }
            Self::Abandoned | Self::WorkerDied { .. } => Outcome::Unknown,
            // What a call refuses before it writes a byte; and what opening and reading meet, which are given no
            // events, and before which an append that looks keys up has written nothing.
            Self::Invalid { .. }
            | Self::TooLarge { .. }
            | Self::Codec { .. }
            | Self::Application { .. }
            | Self::KeyConflict { .. }
            | Self::KeyUnreadable { .. }
            | Self::OtherEvents { .. }
            | Self::KeysUnavailable { .. }
            | Self::SourceZone { .. }
            | Self::Dead { .. }
            | Self::Closed
            | Self::NoStore { .. }
            | Self::NotEmpty { .. }
            | Self::Locked { .. }
            | Self::NewerFormat { .. }
            | Self::Damaged { .. }
            | Self::Projection { .. }
            | Self::PositionDiffers { .. } => Outcome::NotWritten,
        }
    }

    /// True where the same call may succeed later without anybody mending anything.
    pub fn is_busy(&self) -> bool {
        matches!(
            self,
            Self::Locked { .. } | Self::KeysUnavailable { .. } | Self::Projection { busy: true, .. }
        )
    }

    /// The file or directory that the error is about.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::NoStore { dir }
            | Self::NotEmpty { dir }
            | Self::Damaged { dir, .. }
            | Self::PositionDiffers { dir, .. }
            | Self::OtherEvents { dir, .. } => Some(dir),
            Self::Locked { path, .. }
            | Self::Io { path, .. }
            | Self::NewerFormat { path, .. }
            | Self::SourceZone { path, .. }
            | Self::Displaced { path, .. }
            | Self::Projection { path, .. } => Some(path),
            Self::Dead { cause } => cause.path(),
            _ => None,
        }
    }

    /// The offset in the file, where one is known.
    pub fn offset(&self) -> Option<u64> {
        match self {
            Self::Io { offset, .. } => *offset,
            Self::Damaged { findings, .. } => findings.iter().find_map(|finding| finding.offset),
            Self::Dead { cause } => cause.offset(),
            _ => None,
        }
    }

    /// The first seq that the error is about, where one is known.
    pub fn seq(&self) -> Option<u64> {
        match self {
            Self::KeyConflict { seq, .. }
            | Self::KeyUnreadable { seq, .. }
            | Self::PositionDiffers { seq, .. } => Some(*seq),
            Self::Application { seq, .. } => *seq,
            Self::SourceZone { offset, .. } => Some(offset.seq),
            Self::Damaged { findings, .. } => findings.iter().find_map(|finding| finding.seq),
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid { field, reason } => write!(f, "{field} {reason}"),
            Self::TooLarge { what, bytes, limit } => {
                write!(f, "{what} takes {bytes} bytes, the limit is {limit}")
            }
            Self::Codec { reason } => write!(f, "not a readable event: {reason}"),
            Self::NoStore { dir } => write!(f, "no store in {}", dir.display()),
            Self::NotEmpty { dir } => {
                write!(f, "{} is not empty and holds no store, so none is made there", dir.display())
            }
            Self::Locked { path, pid, waited } => {
                write!(f, "another writer holds {}", path.display())?;
                if let Some(pid) = pid {
                    write!(f, " (process {pid}, by what it says)")?;
                }
                write!(f, "; waited {:.1} s", waited.as_secs_f64())
            }
            Self::Io { action, path, offset, source, .. } => {
                write!(f, "cannot {action} {}", path.display())?;
                if let Some(offset) = offset {
                    write!(f, " at offset {offset}")?;
                }
                write!(f, ": {source}")
            }
            Self::NewerFormat { path, found, supported } => write!(
                f,
                "{} has format version {found}; this program reads up to {supported}: use a newer synclog",
                path.display()
            ),
            Self::Damaged { dir, findings } => {
                write!(f, "the log in {} is damaged (P3), and nothing of it was given up", dir.display())?;
                for finding in findings.iter().take(10) {
                    write!(f, "; {finding}")?;
                }
                if findings.len() > 10 {
                    write!(f, "; and {} more", findings.len() - 10)?;
                }
                Ok(())
            }
            Self::KeyConflict { key, seq } => {
                write!(f, "the idempotency key {key:?} belongs to event {seq}, which has other content")
            }
            Self::KeysUnavailable { reason } => {
                write!(f, "idempotency keys cannot be looked up now, so nothing was written: {reason}")
            }
            Self::SourceZone { path, offset } => write!(
                f,
                "{} record(s) of {} match events by id and content but are off by {} (first: line {}, event {}); \
                 nothing was written: name the zone of the source",
                offset.records,
                path.display(),
                offset.zone(),
                offset.line,
                offset.seq
            ),
            Self::Dead { cause } => {
                write!(f, "an earlier failure is final for this handle (P10), open the store again: {cause}")
            }
            Self::Closed => write!(f, "the handle was closed"),
            Self::Abandoned => write!(f, "the writing thread ended without an answer; open the store again"),
            Self::Displaced { path, seen, outcome } => {
                let written = if *outcome == Outcome::Unknown {
                    "what it had just written may not be"
                } else {
                    "nothing was written"
                };
                write!(
                    f,
                    "{}: {seen} while this handle had the store open, so it takes nothing more (P1); {written}",
                    path.display()
                )
            }
            Self::Forked { opened_by, .. } => write!(
                f,
                "the store was opened by process {opened_by}, and this is a child that was forked from it: only the \
                 parent can use what was opened before the fork"
            ),
            Self::OtherEvents { dir, found, expected } => write!(
                f,
                "the store in {} holds events of kind {found}, and was to be opened for those of kind {expected}: \
                 open it with the program that made it",
                dir.display()
            ),
            Self::KeyUnreadable { key, seq } => write!(
                f,
                "the idempotency key {key:?} belongs to event {seq}, which this program cannot read: append with a \
                 program that knows it, or under another key"
            ),
            Self::Application { function, seq, reason } => {
                write!(f, "`{function}` of the event type panicked, which is a fault of the application")?;
                if let Some(seq) = seq {
                    write!(f, ", with event {seq}")?;
                }
                write!(f, ": {reason}")
            }
            Self::Projection { path, reason, busy } => {
                let state = if *busy { "is held by another process" } else { "cannot be used" };
                write!(f, "the database {} {state}: {reason}", path.display())
            }
            Self::PositionDiffers { dir, seq, checksum, found, last_seq } => {
                let name = |sum: &u32| format!(" (checksum {sum:08x})");
                // Nothing where no checksum is named.
                let named = checksum.as_ref().map(name).unwrap_or_default();
                match found {
                    Some(found) => write!(
                        f,
                        "the log in {} has another event {seq}{} than the one that was read{named}",
                        dir.display(),
                        name(found)
                    ),
                    None => write!(
                        f,
                        "event {seq}{named} was read, but the log in {} ends at {last_seq}",
                        dir.display()
                    ),
                }
            }
            Self::WorkerDied { worker, reason } => {
                write!(f, "the thread {worker} ended in a panic, so the call was not finished: {reason}")
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source.as_ref()),
            Self::Dead { cause } => Some(cause.as_ref()),
            _ => None,
        }
    }
}
