//! A process of its own for everything that may crash or hang.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// After this a process that has not ended counts as hanging.
pub const LIMIT: Duration = Duration::from_secs(10);

/// A running copy of this program, with its standard output and standard error in files: `TEXT.out` and
/// `TEXT.err`.
pub struct Process {
    child: Child,
    since: Instant,
}

impl Process {
    /// Starts this program as `child ARGS`.
    pub fn start<I, S>(args: I, env: &[(&str, &OsStr)], text: &Path) -> io::Result<Self>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let child = Command::new(std::env::current_exe()?)
            .arg("child")
            .args(args)
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(File::create(text.with_extension("out"))?)
            .stderr(File::create(text.with_extension("err"))?)
            .spawn()?;
        Ok(Self { child, since: Instant::now() })
    }

    /// Waits until it has ended; `None` where it hangs. It is killed then.
    pub fn wait(mut self) -> io::Result<Option<ExitStatus>> {
        self.wait_for(|| false)
    }

    /// Waits until `done` or until it has ended by itself, and kills it.
    pub fn wait_for(&mut self, mut done: impl FnMut() -> bool) -> io::Result<Option<ExitStatus>> {
        let mut pause = Duration::from_micros(500);
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(status));
            }
            if done() || self.since.elapsed() > LIMIT {
                self.child.kill()?;
                self.child.wait()?;
                return Ok(None);
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(5));
        }
    }
}

/// How a process ended, if not well.
pub fn crash(status: ExitStatus) -> Option<String> {
    match (status.code(), status.signal()) {
        (Some(0), _) => None,
        (Some(101), _) => Some("panic".into()),
        (Some(code), _) => Some(format!("exit {code}")),
        (None, Some(6)) => Some("abort".into()),
        (None, Some(7)) => Some("SIGBUS".into()),
        (None, Some(9)) => Some("killed: out of memory?".into()),
        (None, Some(11)) => Some("SIGSEGV".into()),
        (None, signal) => Some(format!("signal {}", signal.unwrap_or(0))),
    }
}

/// The lines of a file; none where there is no file.
pub fn lines(text: &Path) -> Vec<String> {
    let bytes = fs::read(text).unwrap_or_default();
    String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect()
}
