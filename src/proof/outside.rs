//! What a test puts in the place of the system's clock, and of its threads. A thread that the library starts
//! sees what the thread sees that has started it, so tests beside each other do not disturb each other.

use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

/// A clock that stands still until it is set, and threads that can run out.
#[derive(Clone)]
pub(crate) struct Outside(Arc<State>);

struct State {
    /// Microseconds since 1970; [`RUNS`] for the system's clock.
    clock: AtomicI64,
    no_threads: AtomicBool,
    panics: AtomicBool,
    strangers_run: AtomicBool,
}

const RUNS: i64 = i64::MIN;

thread_local! {
    static SEEN: RefCell<Option<Outside>> = const { RefCell::new(None) };
}

impl Outside {
    /// From now on this thread, and all that it has started through the library, sees this.
    pub(crate) fn begin() -> Self {
        let new = Self(Arc::new(State {
            clock: AtomicI64::new(RUNS),
            no_threads: AtomicBool::new(false),
            panics: AtomicBool::new(false),
            strangers_run: AtomicBool::new(false),
        }));
        SEEN.set(Some(new.clone()));
        new
    }

    /// The clock shows so many microseconds since 1970.
    pub(crate) fn set_clock(&self, micros: i64) {
        self.0.clock.store(micros, Ordering::SeqCst);
    }

    /// Whether whoever makes rows in the thread for it panics.
    pub(crate) fn set_panics(&self, panics: bool) {
        self.0.panics.store(panics, Ordering::SeqCst);
    }

    /// Whether what others make in a database runs, so that rows are not as they were written.
    pub(crate) fn set_strangers_run(&self, run: bool) {
        self.0.strangers_run.store(run, Ordering::SeqCst);
    }

    /// Whether the system has no more threads.
    pub(crate) fn set_no_threads(&self, none: bool) {
        self.0.no_threads.store(none, Ordering::SeqCst);
    }
}

/// Whether a test wants what others make in a database to run.
pub(crate) fn strangers_run() -> bool {
    let wanted = |outside: &Outside| outside.0.strangers_run.load(Ordering::SeqCst);
    SEEN.with_borrow(|seen| seen.as_ref().is_some_and(wanted))
}

/// Panics where a test wants it.
pub(crate) fn may_panic() {
    let wanted =
        SEEN.with_borrow(|seen| seen.as_ref().is_some_and(|outside| outside.0.panics.load(Ordering::SeqCst)));
    assert!(!wanted, "a test wants a panic");
}

/// The time that a test has set.
pub(crate) fn clock() -> Option<SystemTime> {
    let micros =
        SEEN.with_borrow(|seen| seen.as_ref().map(|outside| outside.0.clock.load(Ordering::SeqCst)))?;
    let distance = Duration::from_micros(micros.unsigned_abs());
    match micros {
        RUNS => None,
        0.. => Some(SystemTime::UNIX_EPOCH + distance),
        _ => Some(SystemTime::UNIX_EPOCH - distance),
    }
}

/// Work for a thread that is to be started; an error where there is none left.
pub(crate) fn inherited<T>(work: impl FnOnce() -> T + Send) -> io::Result<impl FnOnce() -> T + Send> {
    let seen = SEEN.with_borrow(Clone::clone);
    if seen.as_ref().is_some_and(|outside| outside.0.no_threads.load(Ordering::SeqCst)) {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    Ok(move || {
        SEEN.set(seen);
        work()
    })
}
