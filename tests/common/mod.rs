//! What several tests share.
#![allow(dead_code, unreachable_pub)]

pub mod number;

use std::path::{Path, PathBuf};

use synclog::{Company, Finding, Item, Level, Options, Reader, Status, Store, SyncEvent, SyncReader};

pub fn company() -> Company {
    Company::new("8f0c1d52-41c7", "102209.0", "Acme Traders Pvt Ltd 25-26")
}

/// An event with every column filled.
pub fn full_event(number: u64) -> SyncEvent {
    SyncEvent::new(company(), Level::Error, format!("Sync failed: {number}"))
        .with_details("श्री गणेश \"quoted\" 'n' \u{1F600}")
        .with_status(Status::Failed)
        .with_records(i64::try_from(number).unwrap())
        .with_error("FETCH_ERROR", "[HY000] timeout\n  at fetch()")
        .with_duration(number as f64 + 0.25)
        .with_run(format!("run-{}", number % 3))
}

/// However busy the machine is, opening waits for the rows.
pub fn patient() -> Options {
    Options::default().projection_wait(std::time::Duration::from_mins(1))
}

/// The same with small segments, so that a few hundred events fill several.
pub fn small() -> Options {
    patient().segment_bytes(16 * 1024, 64 * 1024)
}

pub fn open(dir: &Path) -> Store<SyncEvent> {
    Store::open(dir, small()).unwrap()
}

/// A closed store of `count` events.
pub fn filled(count: u64) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let numbers: Vec<u64> = (1..=count).collect();
    for batch in numbers.chunks(10) {
        store.append_all(batch.iter().copied().map(full_event)).unwrap();
    }
    assert!(store.wait_projected(std::time::Duration::from_secs(20)));
    store.close().unwrap();
    dir
}

/// A directory in memory where the system has one.
pub fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

pub fn database(dir: &Path) -> PathBuf {
    dir.join("synclog.db")
}

pub fn sql(dir: &Path, text: &str) {
    rusqlite::Connection::open(database(dir)).unwrap().execute_batch(text).unwrap();
}

/// All findings of a verify, and whether the store is sound.
pub fn verify(dir: &Path) -> (Vec<Finding>, bool) {
    let mut findings = Vec::new();
    let summary = Reader::<SyncEvent>::verify(dir, false, |finding| findings.push(finding)).unwrap();
    (findings, summary.is_sound())
}

pub fn replay(dir: &Path) -> synclog::ReplayReport {
    Store::<SyncEvent>::replay(dir, small(), false).unwrap().0
}

/// Seqs and messages of the log's events; panics on damage.
pub fn messages(dir: &Path) -> Vec<(u64, String)> {
    let reader = Reader::<SyncEvent>::open(dir).unwrap();
    let event = |item: Result<Item<SyncEvent>, synclog::Error>| match item {
        Ok(Item::Event(stored)) => (stored.seq, stored.event.message),
        other => panic!("{other:?}"),
    };
    reader.items(1).unwrap().map(event).collect()
}

/// Every row equals its event, in the order of seqs.
pub fn assert_rows_equal_log(dir: &Path) {
    let reader = SyncReader::open(dir).unwrap();
    let mut rows = reader.list(&synclog::Filter::new()).unwrap();
    rows.sort_by_key(|row| row.seq);
    let mut rows = rows.into_iter();
    for item in reader.reader().items(1).unwrap() {
        let Item::Event(stored) = item.unwrap() else { panic!("damage") };
        let row = rows.next().unwrap();
        assert_eq!((row.seq, row.event, row.key), (stored.seq, stored.event, stored.key));
    }
    assert_eq!(rows.next(), None);
}

/// Copies a directory with everything in it.
pub fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The segments of a store, oldest first.
pub fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> =
        std::fs::read_dir(dir.join("log")).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// Every file of a store with its bytes, SQLite's shared-memory file excepted.
pub fn snapshot(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(snapshot(&path));
        } else if !path.to_string_lossy().ends_with("-shm") {
            let bytes = std::fs::read(&path).unwrap();
            let empty_wal = bytes.is_empty() && path.to_string_lossy().ends_with("-wal");
            if !empty_wal {
                files.push((path, bytes));
            }
        }
    }
    files.sort();
    files
}
