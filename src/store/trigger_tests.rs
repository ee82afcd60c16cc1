//! Triggers that somebody made in the database: told, counted, and never looped on.

use std::time::Duration;

use crate::finding::{Finding, FindingKind};
use crate::sync::SyncEvent;

use super::view_tests::{COUNT, edit, event, filled, verify};
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
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    filled(dir, 3);
    let store = Store::open(dir, Options::default().projection_wait(Duration::from_mins(1))).unwrap();
    edit(
        dir,
        "CREATE TRIGGER theirs AFTER INSERT ON sync_logs BEGIN
           UPDATE sync_logs SET log_message = 'theirs' WHERE id = new.id; END",
    );
    let receipts = store.append_all((4..=1200).map(event)).unwrap();
    assert!(receipts.iter().all(|receipt| !receipt.projected));
    store.close().unwrap();
}
