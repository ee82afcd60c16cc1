//! What others keep in the database, and who has it open, while rows are made anew.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::finding::FindingKind;
use crate::projection::{self, Connection};
use crate::sync::SyncEvent;

use super::view_tests::{COUNT, edit, event, filled, replay, verify};
use super::{Options, Reader, Store};

fn connect(dir: &Path) -> Connection {
    let db = Connection::open(dir.join("synclog.db")).unwrap();
    db.busy_timeout(Duration::from_secs(5)).unwrap();
    db
}

fn number(db: &Connection, sql: &str) -> i64 {
    db.query_row(sql, [], |row| row.get(0)).unwrap()
}

fn texts(db: &Connection, sql: &str) -> Vec<String> {
    let mut query = db.prepare(sql).unwrap();
    query.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

const THEIRS: &str = "
    CREATE TABLE notes (text, event REFERENCES sync_logs (id) ON DELETE CASCADE);
    INSERT INTO notes VALUES ('mine', 2);
    CREATE TABLE notes_log (text);
    CREATE TRIGGER of_theirs AFTER INSERT ON notes BEGIN INSERT INTO notes_log VALUES (new.text); END;
    CREATE VIEW failed AS SELECT id FROM sync_logs WHERE sync_status = 'failed';
    CREATE INDEX my_index ON sync_logs (error_code);
    CREATE UNIQUE INDEX my_unique ON sync_logs (log_message);
    CREATE INDEX \"my \"\"expression\" ON sync_logs (upper(log_message));
    CREATE TRIGGER on_ours AFTER DELETE ON sync_logs BEGIN DELETE FROM notes; END;";

/// Whether what others keep in the database is there and works.
fn assert_theirs_is_there(dir: &Path) {
    let db = connect(dir);
    let kept = "SELECT name FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT GLOB 'sync*' ORDER BY name";
    assert_eq!(texts(&db, kept), ["failed", "my_index", "notes", "notes_log", "of_theirs"]);
    assert_eq!(texts(&db, "SELECT text FROM notes"), ["mine"]);
    assert_eq!(number(&db, "SELECT count(*) FROM failed"), 0);
    let plan = "SELECT count(*) FROM sync_logs INDEXED BY my_index WHERE error_code IS NULL";
    assert_eq!(number(&db, plan), number(&db, "SELECT count(*) FROM sync_logs"));
    let aside =
        "SELECT row ->> 'name' FROM synclog_set_aside WHERE source_table = 'sqlite_schema' ORDER BY 1";
    assert_eq!(texts(&db, aside), ["my \"expression", "my_unique", "on_ours"]);
    assert_eq!(verify(dir, false).1, Vec::new());
    let left =
        "SELECT count(*) FROM sqlite_schema WHERE name GLOB 'synclog_new_*' OR name GLOB 'synclog_old_*'";
    assert_eq!(number(&db, left), 0);
    assert_eq!(texts(&db, "PRAGMA integrity_check"), ["ok"]);
}

#[test]
fn a_rebuild_keeps_what_others_keep_in_the_database() {
    for change in ["", "DROP INDEX sync_logs_time", "ALTER TABLE sync_logs ADD COLUMN ticket TEXT"] {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        filled(dir, COUNT);
        edit(dir, THEIRS);
        edit(dir, change);
        let (report, opened) =
            Store::<SyncEvent>::replay(dir, Options::default(), change.is_empty()).unwrap();
        assert!(report.rebuilt && report.restored == COUNT, "{report:?}");
        assert_theirs_is_there(dir);
        let told = opened.findings.iter().filter(|finding| finding.kind == FindingKind::ForeignObject);
        let told: String = told.map(|finding| finding.detail.clone()).collect();
        assert!(["my_unique", "on_ours", "expression"].iter().all(|name| told.contains(name)), "{told}");
        assert!(!dir.join("quarantine").exists(), "the file was good enough");
        assert!(replay(dir, false).changed_nothing());
        assert_theirs_is_there(dir);
        replay(dir, true);
        assert_theirs_is_there(dir);
    }
}

#[test]
fn what_others_wrote_into_columns_of_their_own_is_kept_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    filled(dir, 9);
    edit(dir, "ALTER TABLE sync_logs ADD COLUMN \"tic\"\"ket\" TEXT; ALTER TABLE sync_logs ADD COLUMN empty");
    edit(dir, "UPDATE sync_logs SET \"tic\"\"ket\" = 'T-' || id WHERE id IN (2, 5)");
    let (report, opened) = Store::<SyncEvent>::replay(dir, Options::default(), false).unwrap();
    assert!(report.rebuilt && report.set_aside == 0, "{report:?}");
    let kept = "SELECT id || ' ' || \"tic\"\"ket\" FROM synclog_kept_1 ORDER BY id";
    assert_eq!(texts(&connect(dir), kept), ["2 T-2", "5 T-5"]);
    let told = opened.findings.iter().find(|finding| finding.kind == FindingKind::ForeignObject).unwrap();
    assert!(told.detail.contains("tic\"ket") && told.detail.contains("synclog_kept_1"), "{told}");
    assert_eq!(verify(dir, false).1, Vec::new());
    assert!(replay(dir, true).rebuilt);
    assert_eq!(texts(&connect(dir), kept).len(), 2);
}

/// A connection that stays open sees the old rows or the new ones, and what it writes is where everybody looks.
#[test]
fn open_connections_live_through_a_rebuild() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    filled(dir, COUNT);
    let dashboard = connect(dir);
    dashboard.execute_batch("CREATE TABLE notes (text); DELETE FROM sync_logs WHERE id <= 300").unwrap();
    let mut count = dashboard.prepare("SELECT count(*) FROM sync_logs").unwrap();
    let mut rows = || count.query_row([], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(rows(), COUNT as i64 - 300);
    // One more has a transaction open all the time.
    let reading = connect(dir);
    reading.execute_batch("BEGIN; SELECT 1 FROM sync_logs").unwrap();
    edit(dir, "DROP INDEX sync_logs_run");
    assert!(replay(dir, false).rebuilt);
    assert_eq!(rows(), COUNT as i64);
    assert_eq!(number(&reading, "SELECT count(*) FROM sync_logs"), COUNT as i64 - 300);
    drop(reading);
    assert!(replay(dir, true).rebuilt);
    assert_eq!(rows(), COUNT as i64);
    dashboard.execute_batch("INSERT INTO notes VALUES ('seen')").unwrap();
    assert_eq!(number(&connect(dir), "SELECT count(*) FROM notes"), 1);
    assert_eq!(verify(dir, false).1, Vec::new());
}

/// A rebuild that is interrupted again and again gets to its end, and each start takes an append (P5).
#[test]
fn an_interrupted_rebuild_goes_on_where_it_was() {
    const EVENTS: u64 = 30_000;
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let store = Store::open(dir, Options::default().projection(false)).unwrap();
    for first in (1..=EVENTS).step_by(5000) {
        store.append_all((first..first + 5000).map(event)).unwrap();
    }
    store.close().unwrap();
    let options = Options::default().projection_wait(Duration::ZERO);
    let (mut before, mut starts) = (0, 0);
    for _ in 0..4 {
        let store = Store::open(dir, options.clone()).unwrap();
        assert!(!store.append(event(EVENTS + 1)).unwrap().projected);
        starts += 1;
        // Interrupted as soon as there is more than there was.
        let start = Instant::now();
        let mut made = Some(before);
        while made.is_some_and(|made| made <= before) {
            assert!(start.elapsed() < Duration::from_mins(2));
            let Ok(db) = projection::open_for_reading(&dir.join("synclog.db"), Duration::ZERO) else {
                continue;
            };
            made = match projection::rebuild::unfinished(&db) {
                Ok(None) if number(&db, "SELECT count(*) FROM sync_logs") == 0 => made,
                found => found.unwrap_or(made),
            };
        }
        store.close().unwrap();
        let Some(made) = made else { break };
        before = made;
    }
    assert!(before > 0, "the first interruption came before the end");
    // A reader sees that rows are behind, and how many are made.
    if starts == 4 {
        let reader = Reader::<SyncEvent>::open(dir).unwrap();
        assert_eq!(reader.rows_in_making().map(|made| made >= before), Some(true));
    }
    let store =
        Store::<SyncEvent>::open(dir, Options::default().projection_wait(Duration::from_mins(2))).unwrap();
    let report = store.open_report();
    assert_eq!(report.projection_pending, None);
    let made = report.replay.restored;
    store.close().unwrap();
    assert!(starts < 4 || made + before <= EVENTS + starts, "{made} were made again after {before}");
    assert_eq!(verify(dir, false).1, Vec::new());
    assert_eq!(number(&connect(dir), "SELECT count(*) FROM sync_logs"), (EVENTS + starts) as i64);
}

/// Where the file cannot be used there is a new one; the old one is kept, and named.
#[test]
fn a_database_that_cannot_be_used_is_kept_until_the_new_one_is_finished() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    filled(dir, COUNT);
    edit(dir, "CREATE TABLE notes (text); INSERT INTO notes VALUES ('mine'); DROP TABLE synclog_meta");
    let (report, opened) = Store::<SyncEvent>::replay(dir, Options::default(), false).unwrap();
    assert!(report.rebuilt && report.restored == COUNT);
    let kept: Vec<_> =
        std::fs::read_dir(dir.join("quarantine")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(kept.len(), 1, "{kept:?}");
    let told = opened.findings.iter().find(|finding| finding.kind == FindingKind::DatabaseDamaged).unwrap();
    assert!(told.detail.contains(kept[0].to_str().unwrap()), "{told}");
    let old = projection::open_existing(&kept[0], Duration::ZERO).unwrap();
    assert_eq!(texts(&old, "SELECT text FROM notes"), ["mine"]);
    assert!(!dir.join("synclog.db.new").exists());
    assert_eq!(verify(dir, false).1, Vec::new());
}
