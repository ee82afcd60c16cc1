//! What `tail` needs of files: a cursor to go on from, and the traces of a write.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use synclog::{LogPosition, StoreId};

use super::exit::{Exit, Stop};

/// The file that says how far a `tail` has come: `SEQ STORE CHECKSUM` and a line end. Where there is no event to
/// name, `SEQ STORE`; earlier versions wrote no checksum, and people write a bare seq.
pub(crate) struct Cursor {
    path: PathBuf,
    kept: Option<String>,
}

/// Where to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Start {
    pub(crate) seq: u64,
    pub(crate) position: Option<LogPosition>,
}

impl Cursor {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, kept: None }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What was read last; the start of the log where there is no file yet.
    pub(crate) fn read(&self, store: StoreId) -> Result<Start, Stop> {
        let shown = self.path.display();
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Start { seq: 0, position: None }),
            Err(error) => {
                return Err(Stop::new(Exit::Failure, format!("cannot read the cursor {shown}: {error}")));
            }
        };
        let text = String::from_utf8_lossy(&bytes);
        let words: Vec<&str> = text.split_whitespace().take(4).collect();
        if let Some(other) =
            words.get(1).and_then(|word| word.parse::<StoreId>().ok()).filter(|id| *id != store)
        {
            return Err(Stop::usage(format!(
                "the cursor {shown} belongs to the store {other}, this one is {store}"
            )));
        }
        let position = text.parse::<LogPosition>().ok();
        let bare = match words[..] {
            [seq] => seq.parse().ok(),
            [seq, id] if id == store.to_string() => seq.parse().ok(),
            _ => None,
        };
        match position.map(|position| position.seq).or(bare) {
            Some(seq) => Ok(Start { seq, position }),
            None => Err(Stop::usage(format!("{shown} is no cursor"))),
        }
    }

    /// Keeps a place durably, after what was written for it.
    pub(crate) fn keep(&mut self, store: StoreId, start: Start) -> Result<(), Stop> {
        let text = match start.position {
            Some(position) => format!("{position}\n"),
            None => format!("{} {store}\n", start.seq),
        };
        if self.kept.as_ref() == Some(&text) {
            return Ok(());
        }
        sync_stdout();
        self.replace(&text).map_err(|error| {
            Stop::new(Exit::Failure, format!("cannot keep the cursor {}: {error}", self.path.display()))
        })?;
        self.kept = Some(text);
        Ok(())
    }

    fn replace(&self, text: &str) -> std::io::Result<()> {
        let mut beside = self.path.clone().into_os_string();
        beside.push(".new");
        let beside = PathBuf::from(beside);
        let mut file = File::create(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, &self.path)?;
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        sync_dir(parent.unwrap_or(Path::new(".")))
    }
}

#[cfg(unix)]
fn sync_dir(dir: &Path) -> std::io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, reason = "the same signature on every system")]
fn sync_dir(_dir: &Path) -> std::io::Result<()> {
    Ok(())
}

/// Where stdout is a file, the copy in it must not be behind the cursor after a power cut. A pipe
/// cannot be synced, and need not be.
#[cfg(unix)]
fn sync_stdout() {
    use std::os::fd::AsFd;
    if let Ok(copy) = std::io::stdout().as_fd().try_clone_to_owned() {
        let _ = File::from(copy).sync_data();
    }
}

#[cfg(not(unix))]
fn sync_stdout() {}

/// What a write leaves behind that is cheap to look at. Reading the log at every look would cost as
/// much as its newest segment is long.
#[derive(PartialEq, Eq)]
pub(crate) struct Traces(Vec<(PathBuf, u64, Option<SystemTime>)>);

impl Traces {
    pub(crate) fn of(dir: &Path) -> Self {
        let mut traces = Vec::new();
        for name in ["lock", "synclog.db", "synclog.db-wal", "log"] {
            traces.extend(trace(dir.join(name)));
        }
        // The newest segment has the greatest name.
        let names = fs::read_dir(dir.join("log")).into_iter().flatten().flatten();
        traces.extend(names.map(|entry| entry.path()).max().and_then(trace));
        Self(traces)
    }
}

fn trace(path: PathBuf) -> Option<(PathBuf, u64, Option<SystemTime>)> {
    let found = fs::metadata(&path).ok()?;
    Some((path, found.len(), found.modified().ok()))
}
