//! The projection is disposable, verified, and heals (P6, P7), and a locked one holds nobody up.

mod common;

use std::time::{Duration, Instant};

use common::{
    assert_rows_equal_log, copy_dir, database, filled, full_event, messages, open, replay, sql, verify,
};
use synclog::{FindingKind, Reader, Store, SyncEvent};

const COLUMNS: [&str; 18] = [
    "company_guid",
    "company_alterid",
    "company_name",
    "log_level",
    "log_message",
    "log_details",
    "sync_status",
    "records_synced",
    "error_code",
    "error_message",
    "duration_seconds",
    "created_at",
    "run",
    "legacy_id",
    "origin_store",
    "origin_seq",
    "idempotency_key",
    "frame",
];

/// Verify names it and fails, replay heals it, verify passes, rows equal the log.
#[track_caller]
fn assert_heals(dir: &std::path::Path, kind: FindingKind) -> synclog::ReplayReport {
    let (findings, sound) = verify(dir);
    assert!(!sound, "verify must see it");
    assert!(findings.iter().any(|finding| finding.kind == kind), "{findings:?}");
    let report = replay(dir);
    let (findings, sound) = verify(dir);
    assert!(sound, "{findings:?}");
    assert_rows_equal_log(dir);
    report
}

#[test]
fn every_edited_column_is_named_and_healed() {
    let dir = filled(400);
    let path = dir.path();
    for (index, column) in COLUMNS.iter().enumerate() {
        for value in ["'edited'", "7", "x'00'"] {
            let seq = 1 + index as u64 * 20;
            sql(path, &format!("UPDATE sync_logs SET {column} = {value} WHERE id = {seq}"));
            let (findings, sound) = verify(path);
            assert!(!sound, "{column} = {value}");
            assert!(
                findings.iter().any(|finding| finding.kind == FindingKind::RowDiffers
                    && finding.seq == Some(seq)
                    && finding.column.as_deref() == Some(*column)),
                "{column} = {value}: {findings:?}"
            );
            let report = replay(path);
            assert_eq!(
                (report.replaced, report.restored, report.rebuilt),
                (1, 0, false),
                "{column} = {value}"
            );
            assert!(verify(path).1);
        }
    }
    assert_rows_equal_log(path);
}

#[test]
fn a_changed_id_is_a_missing_row_and_an_unknown_one() {
    let dir = filled(40);
    sql(dir.path(), "UPDATE sync_logs SET id = 4000 WHERE id = 7");
    let report = assert_heals(dir.path(), FindingKind::RowUnknown);
    assert_eq!((report.restored, report.set_aside), (1, 1));
}

#[test]
fn deleted_unknown_and_negative_rows_are_restored_and_set_aside() {
    let dir = filled(300);
    sql(dir.path(), "DELETE FROM sync_logs WHERE id IN (1, 150, 300)");
    assert_eq!(assert_heals(dir.path(), FindingKind::RowMissing).restored, 3);
    for id in ["-5", "0", "301", "9223372036854775807"] {
        let text = format!(
            "INSERT INTO sync_logs (id, company_guid, company_alterid, company_name, log_level, log_message, created_at, frame) \
             VALUES ({id}, 'g', 'a', 'n', 'INFO', 'somebody''s own', '2026-01-01', x'00')"
        );
        sql(dir.path(), &text);
        assert_eq!(assert_heals(dir.path(), FindingKind::RowUnknown).set_aside, 1, "{id}");
    }
    let db = rusqlite::Connection::open(database(dir.path())).unwrap();
    let kept: i64 = db
        .query_row("SELECT count(*) FROM synclog_set_aside WHERE row LIKE '%somebody''s own%'", [], |row| {
            row.get(0)
        })
        .unwrap();
    assert_eq!(kept, 4, "what was set aside can still be read");
    // A rebuild keeps what was set aside before.
    drop(db);
    Store::<SyncEvent>::replay(dir.path(), common::small(), true).unwrap();
    let db = rusqlite::Connection::open(database(dir.path())).unwrap();
    let kept: i64 = db.query_row("SELECT count(*) FROM synclog_set_aside", [], |row| row.get(0)).unwrap();
    assert_eq!(kept, 4);
}

#[test]
fn a_row_that_stands_where_the_next_event_goes_is_set_aside() {
    let dir = filled(3);
    let store = open(dir.path());
    sql(
        dir.path(),
        "INSERT INTO sync_logs (id, company_guid, company_alterid, company_name, log_level, log_message, created_at, frame) \
         VALUES (4, 'g', 'a', 'n', 'INFO', 'in the way', '2026-01-01', x'00')",
    );
    let receipt = store.append(full_event(4)).unwrap();
    assert_eq!((receipt.seq, receipt.projected), (4, true));
    store.close().unwrap();
    assert!(verify(dir.path()).1);
    assert_rows_equal_log(dir.path());
}

#[test]
fn a_deleted_database_is_built_again_at_the_next_open() {
    let dir = filled(2000);
    std::fs::remove_file(database(dir.path())).unwrap();
    let (findings, sound) = verify(dir.path());
    assert!(!sound && findings[0].kind == FindingKind::DatabaseMissing);
    let store = open(dir.path());
    assert!(store.open_report().replay.rebuilt);
    assert_eq!(store.open_report().replay.restored, 2000);
    store.close().unwrap();
    assert!(verify(dir.path()).1);
    assert_rows_equal_log(dir.path());
}

#[test]
fn an_older_copy_catches_up_at_the_next_open() {
    let dir = filled(100);
    let copy = tempfile::tempdir().unwrap();
    copy_dir(dir.path(), copy.path());
    let store = open(dir.path());
    store.append_all((101..=900).map(full_event)).unwrap();
    assert!(store.wait_projected(Duration::from_secs(20)));
    store.close().unwrap();
    std::fs::copy(database(copy.path()), database(dir.path())).unwrap();
    let (findings, sound) = verify(dir.path());
    assert!(!sound);
    assert_eq!(
        (findings[0].kind, findings[0].seq, findings[0].last_seq),
        (FindingKind::RowMissing, Some(101), Some(900))
    );
    let store = open(dir.path());
    assert_eq!(store.open_report().replay.restored, 800);
    store.close().unwrap();
    assert!(verify(dir.path()).1);
    assert_rows_equal_log(dir.path());
}

#[test]
fn dropped_tables_lost_indexes_and_foreign_files_end_with_the_same_rows() {
    let dir = filled(200);
    for (text, kind) in [
        ("DROP TABLE sync_logs", FindingKind::SchemaDiffers),
        ("DROP TABLE synclog_meta", FindingKind::DatabaseDamaged),
        ("DELETE FROM synclog_meta", FindingKind::DatabaseDamaged),
        ("DROP INDEX sync_logs_by_key", FindingKind::SchemaDiffers),
        ("ALTER TABLE sync_logs ADD COLUMN extra", FindingKind::SchemaDiffers),
        ("UPDATE synclog_meta SET value = 'x' WHERE name = 'applied_seq'", FindingKind::DatabaseDamaged),
        ("UPDATE synclog_meta SET value = 12 WHERE name = 'applied_sum'", FindingKind::AppliedDiffers),
    ] {
        sql(dir.path(), text);
        assert_heals(dir.path(), kind);
    }
    std::fs::write(database(dir.path()), b"this is no database, but somebody's notes").unwrap();
    assert_heals(dir.path(), FindingKind::DatabaseDamaged);
    let kept = std::fs::read_dir(dir.path().join("quarantine")).unwrap().any(|entry| {
        std::fs::read(entry.unwrap().path()).unwrap() == b"this is no database, but somebody's notes"
    });
    assert!(kept, "a file that is not ours is moved aside, not overwritten");
    let other = filled(20);
    std::fs::copy(database(other.path()), database(dir.path())).unwrap();
    assert_heals(dir.path(), FindingKind::DatabaseForeign);
    std::fs::write(database(dir.path()), b"").unwrap();
    assert_heals(dir.path(), FindingKind::DatabaseDamaged);
}

#[test]
fn each_zeroed_page_is_seen_and_healed() {
    let dir = filled(300);
    let bytes = std::fs::read(database(dir.path())).unwrap();
    for page in 0..bytes.len() / 4096 {
        let mut damaged = bytes.clone();
        let zeroed = &mut damaged[page * 4096..(page + 1) * 4096];
        if zeroed.iter().all(|byte| *byte == 0) {
            continue;
        }
        zeroed.fill(0);
        std::fs::write(database(dir.path()), damaged).unwrap();
        let (findings, sound) = verify(dir.path());
        assert!(!sound, "page {page}: {findings:?}");
        replay(dir.path());
        let (findings, sound) = verify(dir.path());
        assert!(sound, "page {page}: {findings:?}");
        assert_rows_equal_log(dir.path());
        std::fs::write(database(dir.path()), &bytes).unwrap();
    }
}

#[test]
fn a_trigger_beside_an_open_handle_changes_no_row() {
    let dir = filled(5);
    let store = open(dir.path());
    sql(
        dir.path(),
        "CREATE TRIGGER meddler AFTER INSERT ON sync_logs BEGIN \
         UPDATE sync_logs SET log_message = 'changed' WHERE id = NEW.id; END",
    );
    assert!(store.append(full_event(6)).unwrap().projected);
    store.close().unwrap();
    assert_eq!(messages(dir.path())[5].1, "Sync failed: 6", "the log has the event as it was");
    assert!(verify(dir.path()).1, "the trigger was put aside");
}

/// Whoever holds the database, and however firmly: acknowledged within the wait, projected later.
#[test]
fn a_locked_database_delays_no_acknowledgement() {
    for lock in ["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE", "PRAGMA locking_mode=EXCLUSIVE; BEGIN EXCLUSIVE"] {
        let dir = filled(3);
        let hold = rusqlite::Connection::open(database(dir.path())).unwrap();
        hold.execute_batch(lock).unwrap();
        let start = Instant::now();
        let options = common::small().projection_wait(Duration::from_millis(250));
        let store = Store::open(dir.path(), options).unwrap();
        assert!(start.elapsed() < Duration::from_secs(5), "{lock}: open took {:?}", start.elapsed());
        for number in 4..=30 {
            let receipt = store.append(full_event(number)).unwrap();
            assert_eq!((receipt.seq, receipt.projected), (number, false), "{lock}");
        }
        assert!(start.elapsed() < Duration::from_secs(5), "{lock}: only one append waits");
        assert!(store.applied_seq() <= 3 && store.last_seq() == 30);
        std::thread::sleep(Duration::from_millis(200)); // until the mark proves the last one
        assert_eq!(messages(dir.path()).len(), 30, "{lock}: readers of the log need no database");
        drop(hold);
        assert!(store.wait_projected(Duration::from_secs(20)), "{lock}: it catches up by itself");
        assert!(store.append(full_event(31)).unwrap().projected, "{lock}");
        store.close().unwrap();
        assert!(verify(dir.path()).1);
        assert_rows_equal_log(dir.path());
    }
}

#[test]
fn a_database_that_is_deleted_under_a_writer_comes_back_with_its_next_append() {
    let dir = filled(50);
    let store = open(dir.path());
    store.append(full_event(51)).unwrap();
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{suffix}", database(dir.path()).display()));
    }
    store.append(full_event(52)).unwrap();
    assert!(store.wait_projected(Duration::from_secs(20)));
    store.close().unwrap();
    assert!(verify(dir.path()).1);
    assert_rows_equal_log(dir.path());
}

#[test]
fn verify_beside_a_writer_calls_missing_rows_lag() {
    let dir = filled(3);
    let options = common::small().projection_wait(Duration::from_millis(250));
    let store = Store::open(dir.path(), options).unwrap();
    let hold = rusqlite::Connection::open(database(dir.path())).unwrap();
    hold.execute_batch("BEGIN IMMEDIATE").unwrap();
    store.append(full_event(4)).unwrap();
    std::thread::sleep(Duration::from_millis(200)); // until the mark proves it
    let mut findings = Vec::new();
    let summary = Reader::<SyncEvent>::verify(dir.path(), false, |finding| findings.push(finding)).unwrap();
    assert!(summary.is_sound(), "{findings:?}");
    assert_eq!((summary.lag, findings[0].kind, findings[0].seq), (1, FindingKind::Lag, Some(4)));
    drop(hold);
    store.close().unwrap();
}

#[test]
fn a_trigger_that_hits_other_rows_is_put_aside() {
    let dir = filled(20);
    sql(
        dir.path(),
        "DELETE FROM sync_logs WHERE id IN (5, 9); CREATE TRIGGER meddler AFTER INSERT ON sync_logs BEGIN \
         DELETE FROM sync_logs WHERE id = NEW.id - 1; END",
    );
    let report = replay(dir.path());
    assert_eq!((report.restored, report.unhealable), (2, 0));
    assert!(verify(dir.path()).1);
}

#[test]
fn a_stray_journal_does_not_keep_the_rows_from_following() {
    let dir = filled(20);
    std::fs::write(dir.path().join("synclog.db-journal"), vec![0xA5; 40_000]).unwrap();
    let store = open(dir.path());
    assert!(store.append(full_event(21)).unwrap().projected);
    store.close().unwrap();
    assert!(verify(dir.path()).1);
}

#[test]
fn queries_count_the_rows_that_are_gone() {
    let dir = filled(20);
    let missing = || synclog::SyncReader::open(dir.path()).unwrap().missing_rows().unwrap();
    assert_eq!(missing(), 0);
    sql(dir.path(), "DELETE FROM sync_logs WHERE id % 7 = 0");
    assert_eq!(missing(), 2);
}

/// A reader elsewhere keeps the old write-ahead log alive; the new rows must not be hidden by it, whether they are
/// made in the file or in a new one.
#[test]
fn a_rebuild_beside_a_reader_leaves_no_old_rows_behind() {
    for spoil in ["", "; DELETE FROM synclog_meta"] {
        rebuild_beside_a_reader(spoil);
    }
}

fn rebuild_beside_a_reader(spoil: &str) {
    // More rows than opening compares, so that the edited ones are still there when the rebuild starts.
    let dir = filled(300);
    let writer = rusqlite::Connection::open(database(dir.path())).unwrap();
    writer
        .execute_batch(&format!(
            "PRAGMA wal_autocheckpoint=0; UPDATE sync_logs SET log_message = 'edited' WHERE id <= 30{spoil}"
        ))
        .unwrap();
    let reader = rusqlite::Connection::open(database(dir.path())).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM sync_logs").unwrap();
    let edited = "SELECT count(*) FROM sync_logs WHERE log_message = 'edited'";
    assert_eq!(reader.query_row(edited, [], |row| row.get::<_, i64>(0)).unwrap(), 30);
    let (report, _) = Store::<SyncEvent>::replay(dir.path(), common::small(), true).unwrap();
    assert!(report.rebuilt);
    let fresh = rusqlite::Connection::open(database(dir.path())).unwrap();
    assert_eq!(fresh.query_row(edited, [], |row| row.get::<_, i64>(0)).unwrap(), 0);
    assert!(verify(dir.path()).1);
    assert_rows_equal_log(dir.path());
}
