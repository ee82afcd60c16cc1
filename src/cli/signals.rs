//! SIGINT and SIGTERM for commands that have something to finish.

use std::sync::Arc;
#[cfg(unix)]
use std::sync::atomic::AtomicBool;
use std::sync::atomic::{AtomicI32, Ordering};

#[cfg(unix)]
use signal_hook::consts::SIGXFSZ;

use super::exit::{Exit, Stop};

/// The signal that arrived, if one has.
#[derive(Clone, Default)]
pub(crate) struct Caught(Arc<AtomicI32>);

impl Caught {
    /// How the program ends because of it.
    pub(crate) fn exit(&self) -> Option<Exit> {
        match self.0.load(Ordering::SeqCst) {
            0 => None,
            signal => Some(Exit::Signal(signal)),
        }
    }
}

/// From now on a write beyond the user's limit for the size of files is an error, of which the outcome is told
/// (P10), and not the end of the process.
#[cfg(unix)]
pub(crate) fn outlive_file_limit() {
    // Caught and not ignored, so that a command that this one starts has the signal as it was. Where it cannot be
    // caught, it ends the process as before.
    drop(signal_hook::flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false))));
}

/// Without such signals there is nothing to outlive.
#[cfg(not(unix))]
pub(crate) fn outlive_file_limit() {}

/// From now on the first signal calls `first`; a second one ends the process at once.
#[cfg(unix)]
pub(crate) fn watch(first: impl Fn() + Send + 'static) -> Result<Caught, Stop> {
    use signal_hook::consts::{SIGINT, SIGTERM};

    let failed = |error: std::io::Error| Stop::new(Exit::Failure, format!("cannot watch signals: {error}"));
    let caught = Caught::default();
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM]).map_err(failed)?;
    let also = caught.clone();
    std::thread::Builder::new()
        .name("synclog-signals".into())
        .spawn(move || {
            for signal in signals.forever() {
                if also.0.swap(signal, Ordering::SeqCst) != 0 {
                    std::process::exit(i32::from(Exit::Signal(signal).code()));
                }
                first();
            }
        })
        .map_err(failed)?;
    Ok(caught)
}

/// Without such signals there is nothing to watch.
#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, reason = "the same signature on every system")]
pub(crate) fn watch(_first: impl Fn() + Send + 'static) -> Result<Caught, Stop> {
    Ok(Caught::default())
}
