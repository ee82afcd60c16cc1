//! Triggers that somebody made in the database: told, counted, and never looped on.

use std::time::Duration;

use crate::finding::{Finding, FindingKind};
use crate::projection::schema::Schema;
use crate::proof::outside::Outside;
use crate::sync::SyncEvent;

use super::view_tests::{COUNT, edit, event, filled, replay, verify};
use super::{Options, Store};

/// A trigger that spoils rows goes first, whatever it does and when; then rows stay as they are mended.
#[test]
fn rows_that_a_trigger_spoils_are_mended_without_it() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    filled(dir, COUNT);
    edit(
        dir,
        "CREATE TRIGGER theirs AFTER INSERT ON sync_logs WHEN new.id IN (7, 8, 600) BEGIN
           UPDATE sync_logs SET log_message = 'theirs' WHERE id = new.id; END;
         UPDATE sync_logs SET log_message = 'theirs' WHERE id IN (7, 8, 600, 601);",
    );
    let (found, findings) = verify(dir, false);
    let foreign = |finding: &Finding| finding.kind == FindingKind::ForeignObject;
    assert_eq!((found.differences, findings.iter().filter(|finding| foreign(finding)).count()), (5, 1));
    let (report, opened) = Store::<SyncEvent>::replay(dir, Options::default(), false).unwrap();
    assert_eq!((report.replaced, report.unhealable), (4, 0));
    let told = opened.findings.iter().find(|finding| foreign(finding)).unwrap();
    assert!(told.detail.contains("trigger theirs"), "{told}");
    assert_eq!(verify(dir, false).1, Vec::new());
    let db = crate::projection::open_existing(&dir.join("synclog.db"), Duration::ZERO).unwrap();
    let sql = "SELECT row ->> 'sql' FROM synclog_set_aside WHERE row ->> 'name' = 'theirs'";
    let text: String = db.query_row(sql, [], |row| row.get(0)).unwrap();
    assert!(text.starts_with("CREATE TRIGGER theirs AFTER INSERT ON sync_logs"), "{text}");
}

/// The same where rows catch up with the log when a store is opened.
#[test]
fn opening_puts_a_trigger_aside_before_rows_catch_up() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    filled(dir, 5);
    edit(
        dir,
        "CREATE TRIGGER theirs AFTER INSERT ON sync_logs WHEN new.id IN (7, 8) BEGIN
           UPDATE sync_logs SET log_message = 'theirs' WHERE id = new.id; END;",
    );
    let log_only = Store::open(dir, Options::default().projection(false)).unwrap();
    log_only.append_all((6..=9).map(event)).unwrap();
    log_only.close().unwrap();
    let options = Options::default().projection_wait(Duration::from_mins(1));
    let store = Store::<SyncEvent>::open(dir, options).unwrap();
    let report = &store.open_report().replay;
    assert_eq!((report.restored, report.unhealable), (4, 0));
    let told = |finding: &Finding| finding.kind == FindingKind::ForeignObject;
    assert!(store.open_report().findings.iter().any(told));
    store.close().unwrap();
}

/// Strange rows that do not go away, come back, or run ahead of whoever takes them away: the database is built
/// anew, without the trigger, and they are set aside.
#[test]
fn strange_rows_that_a_trigger_keeps_go_with_the_database() {
    let columns = "company_guid, company_alterid, company_name, log_level, log_message, created_at, frame";
    for body in [
        "BEFORE DELETE ON sync_logs BEGIN SELECT RAISE(IGNORE); END",
        "AFTER DELETE ON sync_logs BEGIN INSERT INTO sync_logs (id, COLUMNS) \
         VALUES (old.id, 'g', 'a', 'n', 'info', 'back', 't', x''); END",
        "AFTER DELETE ON sync_logs BEGIN INSERT INTO sync_logs (id, COLUMNS) \
         VALUES (old.id + 1, 'g', 'a', 'n', 'info', 'ahead', 't', x''); END",
    ] {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        filled(dir, 3);
        let strangers = "INSERT INTO sync_logs (id, COLUMNS) VALUES (5000, 'g', 'a', 'n', 'info', 'm', 't', x''), \
                         (-7, 'g', 'a', 'n', 'info', 'm', 't', x'')";
        let sql = format!("{strangers}; CREATE TRIGGER keeper {body}");
        edit(dir, &sql.replace("COLUMNS", columns));
        let store = Store::<SyncEvent>::open(dir, Options::default()).unwrap();
        assert!(store.append(event(4)).unwrap().projected, "{body}");
        store.close().unwrap();
        assert_eq!(verify(dir, false).1, Vec::new(), "{body}");
        let db = crate::projection::open_existing(&dir.join("synclog.db"), Duration::ZERO).unwrap();
        let count = |sql: &str| db.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
        assert!(count("SELECT count(DISTINCT row_id) FROM synclog_set_aside") >= 2, "{body}");
        assert_eq!(count("SELECT count(*) FROM sqlite_schema WHERE type = 'trigger'"), 0, "{body}");
    }
}

/// No receipt says that a row is right which is known to differ, also where these are too many to remember.
#[test]
fn no_row_that_differs_is_called_projected() {
    Outside::begin().set_strangers_run(true);
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    filled(dir, 3);
    let store = Store::open(dir, patient()).unwrap();
    edit(dir, SPOILS);
    let receipts = store.append_all((4..=1200).map(event)).unwrap();
    assert!(receipts.iter().all(|receipt| !receipt.projected));
    store.close().unwrap();
}

const SPOILS: &str = "CREATE TRIGGER theirs AFTER INSERT ON sync_logs BEGIN
     UPDATE sync_logs SET log_message = 'theirs', idempotency_key = NULL WHERE id = new.id; END;
     CREATE TRIGGER others AFTER UPDATE ON sync_logs BEGIN
     UPDATE sync_logs SET log_message = 'theirs', idempotency_key = NULL WHERE id = new.id; END";

fn patient() -> Options {
    Options::default().projection_wait(Duration::from_mins(1))
}

/// Rows that could not be healed answer for no key.
#[test]
fn keys_of_rows_that_differ_are_known_all_the_same() {
    Outside::begin().set_strangers_run(true);
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    filled(dir, 3);
    let store = Store::open(dir, patient()).unwrap();
    assert_eq!(store.append_with_key(event(4), "before").unwrap().seq, 4);
    edit(dir, SPOILS);
    let first = store.append_with_key(event(5), "key").unwrap();
    assert_eq!((first.seq, first.projected), (5, false));
    assert_eq!(store.append_with_key(event(6), "other").unwrap().seq, 6);
    for _ in 0..3 {
        assert_eq!(store.append_with_key(event(5), "key").unwrap().seq, 5);
        assert_eq!(store.append_with_key(event(6), "other").unwrap().seq, 6);
        assert_eq!(store.append_with_key(event(4), "before").unwrap().seq, 4);
    }
    store.close().unwrap();
}

/// A difference is healed once, in whatever column (P6); one that comes again is told.
#[test]
fn p6_verified_after_each_write() {
    Outside::begin().set_strangers_run(true);
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    filled(dir, 1);
    let store = Store::<SyncEvent>::open(dir, patient()).unwrap();
    let mut seq = 1;
    let columns = &Schema::of::<SyncEvent>().unwrap().columns[1..];
    for column in columns {
        for once in [true, false] {
            let when = if once { "WHEN NOT EXISTS (SELECT 1 FROM meddled)" } else { "" };
            edit(
                dir,
                &format!(
                    "CREATE TABLE meddled (seq); CREATE TRIGGER meddler AFTER INSERT ON sync_logs {when} BEGIN \
                     INSERT INTO meddled VALUES (NEW.id); \
                     UPDATE sync_logs SET {column} = 'changed' WHERE id = NEW.id; END; \
                     CREATE TRIGGER again AFTER UPDATE ON sync_logs {when} BEGIN \
                     UPDATE sync_logs SET {column} = 'changed' WHERE id = NEW.id; END"
                ),
            );
            let receipt = store.append(event(seq + 1)).unwrap();
            seq = receipt.seq;
            let db = crate::projection::Connection::open(dir.join("synclog.db")).unwrap();
            let hits: i64 = db.query_row("SELECT count(*) FROM meddled", [], |row| row.get(0)).unwrap();
            assert!(hits > 0, "{column}: the trigger was there");
            assert_eq!(receipt.projected, once, "P6: {column}, once {once}: {hits} hits");
            let sql = format!("SELECT {column} IS 'changed' FROM sync_logs WHERE id = ?1");
            let changed: bool = db.query_row(&sql, [seq as i64], |row| row.get(0)).unwrap();
            assert_eq!(changed, !once, "P6: {column}: a difference is healed once");
            db.execute_batch("DROP TRIGGER meddler; DROP TRIGGER again; DROP TABLE meddled").unwrap();
        }
    }
    store.close().unwrap();
    let (_, findings) = verify(dir, false);
    for (at, column) in columns.iter().enumerate() {
        let seq = 3 + 2 * at as u64;
        let told = |finding: &Finding| {
            finding.kind == FindingKind::RowDiffers
                && finding.seq == Some(seq)
                && finding.column.as_deref() == Some(*column)
        };
        assert!(findings.iter().any(told), "P6: {column} of event {seq}: {findings:?}");
    }
    let (report, _) = Store::<SyncEvent>::replay(dir, patient(), false).unwrap();
    assert_eq!(report.unhealable, 0);
    assert_eq!(verify(dir, false).1, Vec::new());
}

/// What others make beside a handle that is open is put aside before it has run once: no row goes or changes, and
/// no key is forgotten.
#[test]
fn what_others_make_beside_an_open_handle_never_runs() {
    for sql in [
        "CREATE TRIGGER theirs BEFORE INSERT ON sync_logs BEGIN SELECT RAISE(IGNORE); END",
        SPOILS,
        "CREATE TRIGGER theirs AFTER INSERT ON sync_logs BEGIN DELETE FROM sync_logs WHERE id < new.id; END",
        "CREATE TRIGGER theirs BEFORE INSERT ON synclog_meta BEGIN SELECT RAISE(IGNORE); END",
        "CREATE TRIGGER theirs BEFORE UPDATE ON synclog_meta BEGIN SELECT RAISE(IGNORE); END",
        "CREATE TRIGGER theirs BEFORE INSERT ON sync_logs BEGIN SELECT * FROM (WITH RECURSIVE up(number) AS \
         (VALUES (1) UNION ALL SELECT number + 1 FROM up) SELECT count(*) FROM up); END",
        "CREATE UNIQUE INDEX theirs ON sync_logs (company_guid)",
        "CREATE UNIQUE INDEX theirs ON sync_logs (abs(log_message) * 0)",
        "CREATE INDEX theirs ON sync_logs (abs(log_message))",
        "CREATE INDEX theirs ON sync_logs (id) WHERE abs(log_message) > 7",
    ] {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        filled(dir, 1);
        let store = Store::open(dir, patient()).unwrap();
        assert!(store.append_with_key(event(2), "two").unwrap().projected);
        if sql.contains("UNIQUE") {
            edit(dir, "DELETE FROM sync_logs WHERE id = 1");
        }
        edit(dir, sql);
        for seq in 3..6 {
            let receipt = store.append_with_key(event(seq), &format!("key {seq}")).unwrap();
            assert_eq!((receipt.seq, receipt.projected), (seq, true), "{sql}");
            assert_eq!(store.append_with_key(event(seq), &format!("key {seq}")).unwrap().seq, seq, "{sql}");
        }
        assert_eq!(store.append_with_key(event(2), "two").unwrap().seq, 2, "{sql}");
        store.close().unwrap();
        if sql.contains("UNIQUE") {
            assert_eq!(replay(dir, false).unhealable, 0, "{sql}");
        }
        let (_, mut findings) = verify(dir, false);
        // Nothing looks for what is on other tables before a store is opened the next time; nor does it run.
        findings.retain(|finding| finding.kind != FindingKind::ForeignObject);
        assert_eq!(findings, Vec::new(), "{sql}");
        let db = crate::projection::Connection::open(dir.join("synclog.db")).unwrap();
        let kept = "SELECT count(*) FROM synclog_set_aside WHERE row ->> 'name' = 'theirs'";
        assert_eq!(db.query_row(kept, [], |row| row.get::<_, i64>(0)), Ok(1), "{sql}");
    }
}
