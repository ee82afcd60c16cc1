//! What `tail` needs of files: a cursor to go on from, and the traces of a write.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use synclog::{LogPosition, StoreId};

use super::exit::{Exit, Stop};

/// No cursor is longer.
const MAX_CURSOR: u64 = 1024;

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
        let failed = |error| Stop::new(Exit::Failure, format!("cannot read the cursor {shown}: {error}"));
        let target = self.target().map_err(failed)?;
        let mut bytes = Vec::new();
        match fs::metadata(&target) {
            // A pipe would wait for its other end, and a device may have none.
            Ok(found) if !found.is_file() => {
                return Err(Stop::usage(format!("the cursor {shown} is no regular file")));
            }
            Ok(_) => {
                let file = File::open(&target).map_err(failed)?;
                file.take(MAX_CURSOR).read_to_end(&mut bytes).map_err(failed)?;
            }
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Start { seq: 0, position: None }),
            Err(error) => return Err(failed(error)),
        }
        let text = String::from_utf8_lossy(&bytes);
        let words: Vec<&str> = text.split_whitespace().take(4).collect();
        if let Some(other) =
            // What is neither a position nor a seq is refused below.
            words.get(1).and_then(|word| word.parse::<StoreId>().ok()).filter(|id| *id != store)
        {
            return Err(Stop::usage(format!(
                "the cursor {shown} belongs to the store {other}, this one is {store}"
            )));
        }
        // It may be a bare seq.
        let position = text.parse::<LogPosition>().ok();
        let bare = match words[..] {
            // What is no number is refused below.
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

    /// The file itself. A link stays, and what it leads to is what is read and replaced.
    fn target(&self) -> std::io::Result<PathBuf> {
        match fs::symlink_metadata(&self.path) {
            Ok(found) if found.is_symlink() => fs::canonicalize(&self.path).map_err(|error| {
                std::io::Error::new(
                    error.kind(),
                    format!("it is a symbolic link that leads to no file ({error}); make the file or remove the link"),
                )
            }),
            _ => Ok(self.path.clone()),
        }
    }

    /// The new file has the owner and the mode of the old one, as far as this user can give them.
    fn replace(&self, text: &str) -> std::io::Result<()> {
        let target = self.target()?;
        let mut beside = target.clone().into_os_string();
        beside.push(".new");
        let beside = PathBuf::from(beside);
        // Made anew each time, so that a link of this name is not followed.
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let old = match fs::metadata(&target) {
            Ok(old) => Some(old),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        if old.is_some() {
            // Nobody gets in before it is known who may.
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        }
        let mut file = options.open(&beside)?;
        if let Some(old) = old {
            take_over(&file, &old)?;
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, &target)?;
        let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty());
        sync_dir(parent.unwrap_or(Path::new(".")))
    }
}

#[cfg(unix)]
fn take_over(file: &File, old: &fs::Metadata) -> std::io::Result<()> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
    let made = file.metadata()?;
    let mut mode = old.mode() & 0o777;
    if (made.uid(), made.gid()) != (old.uid(), old.gid())
        && fchown(file, Some(old.uid()), Some(old.gid())).is_err()
        && made.gid() != old.gid()
        && fchown(file, None, Some(old.gid())).is_err()
    {
        // Only root may give a file away. Another group gets no more than everybody has.
        mode &= !0o070 | (mode & 0o007) << 3;
    }
    file.set_permissions(fs::Permissions::from_mode(mode))
}

#[cfg(not(unix))]
fn take_over(_file: &File, _old: &fs::Metadata) -> std::io::Result<()> {
    Ok(())
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
        drop(File::from(copy).sync_data());
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
    // What is not there leaves no trace, and coming back is one.
    let found = fs::metadata(&path).ok()?;
    Some((path, found.len(), found.modified().ok()))
}
