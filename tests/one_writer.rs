//! A handle whose store somebody removes, moves or replaces, or whose process forks: it acknowledges nothing
//! that cannot be found where its path leads, and touches nothing of another store (P1, P3, P4).
#![cfg(unix)]
#![allow(unsafe_code)] // for fork(2), which nothing safe offers

mod common;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{copy_dir, full_event, messages, open, segments, small, verify};
use synclog::{Error, Outcome, Reader, Store, SyncEvent};

/// Every file below a directory, with its bytes.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut todo = vec![dir.to_path_buf()];
    while let Some(at) = todo.pop() {
        for entry in std::fs::read_dir(&at).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                found.insert(path.clone(), Vec::new());
                todo.push(path);
            } else {
                found.insert(path.clone(), std::fs::read(&path).unwrap());
            }
        }
    }
    found
}

fn expected(count: u64) -> Vec<(u64, String)> {
    (1..=count).map(|number| (number, full_event(number).message)).collect()
}

/// A store of five acknowledged events with its handle, an older copy of it, and another store.
struct Place {
    _temp: tempfile::TempDir,
    dir: PathBuf,
    backup: PathBuf,
    other: PathBuf,
    moved: PathBuf,
    store: Store<SyncEvent>,
}

const ACKNOWLEDGED: u64 = 5;

fn was_displaced(error: &Error) -> bool {
    match error {
        Error::Dead { cause } => was_displaced(cause),
        error => matches!(error, Error::Displaced { .. }),
    }
}

impl Place {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let at = |name: &str| temp.path().canonicalize().unwrap().join(name);
        let (dir, backup, other, moved) = (at("store"), at("backup"), at("other"), at("moved"));
        let store = open(&dir);
        store.append_all((1..=3).map(full_event)).unwrap();
        store.close().unwrap();
        copy_dir(&dir, &backup);
        let elsewhere = open(&other);
        elsewhere.append(full_event(77)).unwrap();
        elsewhere.close().unwrap();
        let store = open(&dir);
        for number in 4..=ACKNOWLEDGED {
            assert!(store.append(full_event(number)).unwrap().projected);
        }
        Self { _temp: temp, dir, backup, other, moved, store }
    }

    /// The next append is refused and nothing of it is written; the handle is at its end.
    #[track_caller]
    fn is_refused(&self, says: &str) {
        let error = self.store.append_with_key(full_event(6), "six").unwrap_err();
        // The mark that is written when the log falls idle may have met it first.
        assert!(was_displaced(&error), "{error}");
        assert_eq!(error.outcome(), Outcome::NotWritten, "{error}");
        assert!(error.to_string().contains(says), "{error}");
        assert!(error.path().unwrap().starts_with(&self.dir));
        let later = self.store.append(full_event(7)).unwrap_err();
        assert!(matches!(later, Error::Dead { .. }) && was_displaced(&later), "{later}");
        assert_eq!(later.outcome(), Outcome::NotWritten);
    }

    fn put_in_place(&self, what: &Path) {
        std::fs::rename(&self.dir, &self.moved).unwrap();
        std::fs::rename(what, &self.dir).unwrap();
    }
}

#[test]
fn a_removed_lock_file_lets_nobody_in_and_ends_the_handle() {
    let place = Place::new();
    std::fs::remove_file(place.dir.join("lock")).unwrap();
    let waiting = small().lock_wait(Duration::from_millis(100));
    let second = Store::<SyncEvent>::open(&place.dir, waiting.clone()).unwrap_err();
    assert!(matches!(second, Error::Locked { pid: None, .. }), "{second}");
    assert!(Reader::<SyncEvent>::open(&place.dir).unwrap().has_live_writer());
    place.is_refused("the lock file was replaced"); // whoever came second has made a new one
    // Until it is closed, nobody else gets in.
    assert!(matches!(Store::<SyncEvent>::open(&place.dir, waiting).unwrap_err(), Error::Locked { .. }));
    assert!(place.store.close().is_err());
    let again = open(&place.dir);
    assert_eq!(again.append(full_event(6)).unwrap().seq, 6);
    again.close().unwrap();
    assert_eq!(messages(&place.dir), expected(6));
    assert!(verify(&place.dir).1);
}

#[test]
fn a_lock_file_that_is_gone_is_noticed_by_the_next_append() {
    let place = Place::new();
    std::fs::remove_file(place.dir.join("lock")).unwrap();
    place.is_refused("the lock file is gone");
}

#[test]
fn a_removed_directory_takes_no_event_and_is_not_made_again() {
    let place = Place::new();
    std::fs::remove_dir_all(&place.dir).unwrap();
    assert!(matches!(place.store.reader().unwrap_err(), Error::Displaced { .. }));
    place.is_refused("is gone");
    drop(place.store);
    assert!(!place.dir.exists());
}

#[test]
fn a_moved_directory_keeps_what_was_acknowledged_and_takes_no_more() {
    let place = Place::new();
    std::fs::rename(&place.dir, &place.moved).unwrap();
    place.is_refused("is gone");
    drop(place.store);
    assert!(!place.dir.exists());
    assert_eq!(messages(&place.moved), expected(ACKNOWLEDGED));
    let there = open(&place.moved);
    assert_eq!(there.append(full_event(6)).unwrap().seq, 6);
    there.close().unwrap();
    assert!(verify(&place.moved).1);
}

#[test]
fn what_was_put_in_the_place_of_a_store_is_left_alone() {
    for same_store in [true, false] {
        let place = Place::new();
        let new = if same_store { &place.backup } else { &place.other };
        place.put_in_place(new);
        let before = files(&place.dir);
        let more: Vec<_> = (6..200).map(full_event).collect();
        let refused = place.store.append_all(more).unwrap_err();
        assert!(was_displaced(&refused), "{refused}");
        place.store.wait_projected(Duration::from_millis(100));
        assert!(place.store.close().is_err());
        assert!(files(&place.dir) == before, "same store {same_store}: its files were touched");
        assert_eq!(messages(&place.moved), expected(ACKNOWLEDGED), "same store {same_store}");
    }
}

/// The rows are behind, and the database is free at last: but it is another store's by now.
#[test]
fn rows_that_are_behind_do_not_go_into_another_stores_database() {
    for same_store in [true, false] {
        let place = Place::new();
        let held = rusqlite::Connection::open(common::database(&place.dir)).unwrap();
        held.execute_batch("BEGIN IMMEDIATE").unwrap();
        let since = Instant::now();
        let ticket = place.store.submit([full_event(6)]).unwrap();
        while !ticket.is_ready() {
            assert!(since.elapsed() < Duration::from_secs(20));
            std::thread::sleep(Duration::from_millis(5));
        }
        place.put_in_place(if same_store { &place.backup } else { &place.other });
        let before = files(&place.dir);
        held.execute_batch("ROLLBACK").unwrap();
        drop(held);
        // The thread that makes rows finds out by itself, and that is the end of the handle.
        let refused = loop {
            match place.store.append_all([]) {
                Ok(_) => std::thread::sleep(Duration::from_millis(5)),
                Err(error) => break error,
            }
            assert!(since.elapsed() < Duration::from_secs(20), "{:?}", place.store.projection_trouble());
        };
        assert!(refused.to_string().contains("while this handle had the store open"), "{refused}");
        drop(place.store);
        assert!(files(&place.dir) == before, "same store {same_store}: its files were touched");
        assert_eq!(messages(&place.moved), expected(6));
    }
}

#[test]
fn a_log_that_was_exchanged_takes_no_event() {
    let place = Place::new();
    std::fs::rename(place.dir.join("log"), &place.moved).unwrap();
    std::fs::rename(place.backup.join("log"), place.dir.join("log")).unwrap();
    let before = files(&place.dir.join("log"));
    place.is_refused("the newest segment was replaced");
    drop(place.store);
    assert!(files(&place.dir.join("log")) == before);
}

#[test]
fn a_newest_segment_that_was_exchanged_or_removed_takes_no_event() {
    let place = Place::new();
    let (segment, copy) = (segments(&place.dir).pop().unwrap(), place.dir.join("copy"));
    std::fs::copy(&segment, &copy).unwrap();
    std::fs::rename(&copy, &segment).unwrap();
    let before = std::fs::read(&segment).unwrap();
    place.is_refused("the newest segment was replaced");
    drop(place.store);
    assert!(std::fs::read(&segment).unwrap() == before);
    assert_eq!(messages(&place.dir), expected(ACKNOWLEDGED));

    let place = Place::new();
    std::fs::remove_file(segments(&place.dir).pop().unwrap()).unwrap();
    place.is_refused("the newest segment is gone");
}

/// Somebody who asks for no lock at all has gone on behind the last event.
#[test]
fn bytes_of_somebody_else_are_not_written_over() {
    let place = Place::new();
    let segment = segments(&place.dir).pop().unwrap();
    let bytes = std::fs::read(&segment).unwrap();
    // Farther than a mark goes, which is written when the log falls idle, and not as far as the next event.
    let at = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 100;
    let file = std::fs::OpenOptions::new().write(true).open(&segment).unwrap();
    file.write_all_at(&[1], at as u64).unwrap();
    place.is_refused("bytes that are not this handle's");
    assert!(place.store.close().is_err());
    let left = std::fs::read(&segment).unwrap();
    assert!(left[at] == 1 && left[at + 1..].iter().all(|byte| *byte == 0), "they were written over");
}

/// A repeated key is answered without a write; not for a store that is not there.
#[test]
fn a_repeated_key_is_not_answered_for_a_store_that_was_replaced() {
    let place = Place::new();
    let first = place.store.append_with_key(full_event(6), "six").unwrap();
    assert_eq!(place.store.append_with_key(full_event(6), "six").unwrap().seq, first.seq);
    place.put_in_place(&place.backup);
    place.is_refused("the newest segment was replaced");
}

/// Runs in a forked child, which ends with what `work` returns, or is killed where it hangs.
fn in_child(work: impl FnOnce() -> u8) -> i32 {
    // SAFETY: the child uses what this test wants to try, and ends without running anything of the parent's.
    unsafe {
        let child = libc::fork();
        if child == 0 {
            libc::alarm(30);
            let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_or(99);
            libc::_exit(i32::from(code));
        }
        assert!(child > 0);
        let mut status = 0;
        assert_eq!(libc::waitpid(child, &raw mut status, 0), child);
        if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 1000 + libc::WTERMSIG(status) }
    }
}

fn is_forked<T>(answer: Result<T, Error>, outcome: Outcome) -> bool {
    let own = std::process::id();
    matches!(answer, Err(error @ Error::Forked { opened_by, .. }) if opened_by != own && error.outcome() == outcome)
}

#[test]
fn a_forked_child_is_refused_everything_and_disturbs_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let store = open(dir);
    store.append_all((1..=3).map(full_event)).unwrap();
    let (reader, ticket) = (store.reader().unwrap(), store.submit([full_event(4)]).unwrap());
    // The child takes its own copy of each handle, down to the last one.
    let handles = RefCell::new(Some((store, reader, ticket)));
    let code = in_child(|| {
        let (store, reader, ticket) = handles.take().unwrap();
        let not_written = Outcome::NotWritten;
        let answers = [
            is_forked(store.append(full_event(9)), not_written),
            is_forked(store.append_with_key(full_event(9), "key"), not_written),
            is_forked(store.append_all([full_event(9)]), not_written),
            is_forked(store.append_all([]), not_written),
            is_forked(store.submit([full_event(9)]), not_written),
            is_forked(store.reader(), not_written),
            ticket.is_ready() && is_forked(ticket.wait(), Outcome::Unknown),
            is_forked(reader.items(1), not_written) && is_forked(reader.database_identity(), not_written),
            (store.last_seq(), store.applied_seq()) == (0, 0),
            store.projection_trouble().is_some_and(|text| text.contains("forked")),
            !store.wait_projected(Duration::from_mins(1)),
            is_forked(store.clone().close(), not_written),
        ];
        drop((store, reader));
        answers.iter().position(|right| !right).map_or(0, |wrong| wrong as u8 + 1)
    });
    assert_eq!(code, 0, "the answer of this number is wrong, or it ended otherwise");
    let (store, reader, ticket) = handles.take().unwrap();
    let second = Store::<SyncEvent>::open(dir, small().lock_wait(Duration::from_millis(50)));
    assert!(matches!(second, Err(Error::Locked { .. })), "the child has unlocked the store: {second:?}");
    assert_eq!(ticket.wait().unwrap()[0].seq, 4);
    assert!(store.append(full_event(5)).unwrap().projected);
    assert_eq!(reader.last_seq(), 3);
    store.close().unwrap();
    assert_eq!(messages(dir), expected(5));
    assert!(verify(dir).1);
}

/// A child may be forked while other threads are in the middle of anything.
#[test]
fn children_of_a_busy_process_neither_hang_nor_disturb_it() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let store = open(dir);
    let done = AtomicBool::new(false);
    let appended: u64 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let mut count = 0;
                    while !done.load(Ordering::Relaxed) {
                        store.append(full_event(1)).unwrap();
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        let own = RefCell::new(Some(store.clone()));
        for round in 0..40 {
            let code = in_child(|| {
                let store = own.take().unwrap();
                let refused = is_forked(store.append(full_event(2)), Outcome::NotWritten)
                    && is_forked(store.reader(), Outcome::NotWritten)
                    && store.last_seq() == 0;
                drop(store);
                u8::from(!refused)
            });
            assert_eq!(code, 0, "round {round}");
        }
        done.store(true, Ordering::Relaxed);
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(store.last_seq(), appended);
    store.close().unwrap();
    assert_eq!(messages(dir).len() as u64, appended);
    assert!(verify(dir).1);
}
