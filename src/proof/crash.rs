//! The log against kills and power cuts, at every call of a script and of the recovery that follows.
//!
//! After each: the log opens without help (P5), everything acknowledged is there bit for bit (P1, P3),
//! a batch is whole or absent and nothing else shows up (P4). A *state* is one distinct content of the
//! disk that was opened and checked. There is no weaker mode of durability, so none is simulated.
//!
//! `SYNCLOG_CRASH_STATES` is how many states to see (whole scripts, so it will be a few more),
//! `SYNCLOG_CRASH_SEED` the first seed, `SYNCLOG_CRASH_SCRIPTS` how many scripts at most,
//! `SYNCLOG_CRASH_THREADS` how many threads. A failure prints a place; `SYNCLOG_CRASH_ONE=place` checks
//! that state alone.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::explorer::{Explorer, Place};

/// A number from the environment.
pub(crate) fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// What a panic said.
pub(crate) fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_owned()
}

/// Explores one script; what is broken comes back with its place.
fn explore(seed: u64, only: Option<Place>) -> Result<(usize, u64), String> {
    let mut explorer = Explorer::new(seed, only);
    let done = catch_unwind(AssertUnwindSafe(|| explorer.explore()));
    let broken = match done {
        Ok(Ok(())) => return Ok((explorer.states.len(), explorer.openings)),
        Ok(Err(broken)) => broken,
        Err(panic) => said(panic.as_ref()),
    };
    Err(format!("{broken}\nalone: SYNCLOG_CRASH_ONE={} cargo test --lib proof::crash", explorer.place))
}

#[test]
fn no_crash_loses_an_acknowledged_event_or_locks_anybody_out() {
    if let Ok(place) = std::env::var("SYNCLOG_CRASH_ONE") {
        let place: Place = place.parse().unwrap();
        let (states, _) = explore(place.seed, Some(place)).unwrap_or_else(|broken| panic!("{broken}"));
        println!("{place}: {states} states, nothing is wrong");
        return;
    }
    let wanted = setting("SYNCLOG_CRASH_STATES").unwrap_or(40_000);
    let first = setting("SYNCLOG_CRASH_SEED").unwrap_or(0);
    let scripts = setting("SYNCLOG_CRASH_SCRIPTS").unwrap_or(u64::MAX);
    let threads = setting("SYNCLOG_CRASH_THREADS")
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |count| count.get() as u64));
    let started = Instant::now();
    let (next, states, openings) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let broken = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while states.load(Ordering::Relaxed) < wanted && broken.lock().unwrap().is_none() {
                    let script = next.fetch_add(1, Ordering::Relaxed);
                    if script >= scripts {
                        next.fetch_sub(1, Ordering::Relaxed);
                        break;
                    }
                    match explore(first + script, None) {
                        Ok((seen, opened)) => {
                            let before = states.fetch_add(seen as u64, Ordering::Relaxed);
                            openings.fetch_add(opened, Ordering::Relaxed);
                            let millions = (before + seen as u64) / 1_000_000;
                            if millions > before / 1_000_000 && millions < wanted / 1_000_000 {
                                println!(
                                    "{millions} million states, {script} scripts, {:.0?}",
                                    started.elapsed()
                                );
                            }
                        }
                        Err(what) => *broken.lock().unwrap() = Some(what),
                    }
                }
            });
        }
    });
    if let Some(broken) = broken.into_inner().unwrap() {
        panic!("{broken}");
    }
    let scripts = next.into_inner();
    println!(
        "{} states in {} openings, {scripts} scripts, seeds {first} to {}, {threads} threads, {:.1} s",
        states.into_inner(),
        openings.into_inner(),
        first + scripts - 1,
        started.elapsed().as_secs_f64()
    );
}
