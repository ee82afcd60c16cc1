use std::path::PathBuf;

use super::*;
use crate::sync::import::{read_path, utc};

const COLUMNS: &str =
    "company_guid TEXT, company_alterid TEXT, company_name TEXT, log_level TEXT, log_message TEXT,
    log_details TEXT, sync_status TEXT, records_synced INTEGER, error_code TEXT, error_message TEXT,
    duration_seconds REAL, created_at TEXT";
const VALUES: &str =
    "'g', '1', 'Acme', 'INFO', 'text', NULL, NULL, 0, NULL, NULL, NULL, '2025-12-17 09:00:00'";

fn database(dir: &tempfile::TempDir, sql: &str) -> PathBuf {
    let path = dir.path().join("odd %41 ? # name.db");
    let db = Connection::open(&path).unwrap();
    db.execute_batch(sql).unwrap();
    db.close().unwrap();
    path
}

fn read_sql(sql: &str) -> Result<Source> {
    let dir = tempfile::tempdir().unwrap();
    let path = database(&dir, sql);
    let before = std::fs::read(&path).unwrap();
    let source = read_path(&path, &Reading::of(&utc));
    assert_eq!(std::fs::read(&path).unwrap(), before, "a source is never changed");
    source
}

#[test]
fn rows_come_in_the_order_of_their_ids() {
    let source = read_sql(&format!(
        "CREATE TABLE sync_logs (id INTEGER PRIMARY KEY, {COLUMNS});
         INSERT INTO sync_logs VALUES (30, {VALUES}), (-2, {VALUES}), (7, {VALUES});"
    ))
    .unwrap();
    assert_eq!(source.rejections, []);
    let ids: Vec<_> = source.records.iter().map(|record| (record.line, record.event.legacy_id)).collect();
    assert_eq!(ids, [(1, Some(-2)), (2, Some(7)), (3, Some(30))]);
    let source =
        read_sql(&format!("CREATE TABLE Sync_Logs ({COLUMNS}); INSERT INTO sync_logs VALUES ({VALUES})"))
            .unwrap();
    assert_eq!(source.records[0].event.legacy_id, None, "a table without ids");
}

#[test]
fn bad_rows_are_rejected_with_their_ids() {
    let row = |from: &str, to: &str| format!("({VALUES})").replace(from, to).replacen('(', "(NULL, ", 1);
    let rows = [
        row("'g'", "' '"),
        row("'text'", "x'ff'"),
        row("'text'", "CAST(x'ff' AS TEXT)"),
        row("NULL, 0", "NULL, 'many'"),
        row("NULL, 0", "NULL, 1.5"),
        row("'2025-12-17 09:00:00'", "NULL"),
        row("", ""),
    ];
    let source = read_sql(&format!(
        "CREATE TABLE sync_logs (id INTEGER PRIMARY KEY, {COLUMNS}); INSERT INTO sync_logs VALUES {};",
        rows.join(", ")
    ))
    .unwrap();
    let reasons: Vec<_> = source.rejections.iter().map(|rejection| rejection.reason.as_str()).collect();
    assert_eq!(
        reasons,
        [
            "row with id 1: company_guid is empty",
            "row with id 2: log_message is a blob, not text",
            "row with id 3: log_message is not UTF-8, not text",
            "row with id 4: records_synced is text, not an integer",
            "row with id 5: records_synced is a number with a fraction, not an integer",
            "row with id 6: created_at is empty",
        ]
    );
    assert_eq!(source.records.len(), 1);
}

#[test]
fn columns_of_its_own_go_into_the_details() {
    let sql = format!(
        "CREATE TABLE sync_logs ({COLUMNS}, host, store INTEGER, photo);
         INSERT INTO sync_logs VALUES ({VALUES}, NULL, NULL, NULL), ({VALUES}, 'web1', 4, x'00ff');"
    );
    let source = read_sql(&sql).unwrap();
    assert_eq!(source.rejections, []);
    assert_eq!(source.records[0].event.details, None);
    let wanted = "[extra] host: web1\n[extra] photo: x'00ff'\n[extra] store: 4";
    assert_eq!(source.records[1].event.details.as_deref(), Some(wanted));
    assert_eq!(source.extra_fields, ["host", "photo", "store"]);
}

#[test]
fn columns_in_other_letters_are_the_same_columns() {
    let columns = COLUMNS.to_uppercase().replace("LOG_LEVEL", "Log_Level");
    let source = read_sql(&format!(
        "CREATE TABLE SYNC_LOGS (ID INTEGER PRIMARY KEY, {columns}, Run, \"Key\", TIMESTAMP);
         INSERT INTO sync_logs VALUES (4, {VALUES}, 'r', 'k', 'noon');"
    ))
    .unwrap();
    assert_eq!(source.rejections, []);
    let record = &source.records[0];
    assert_eq!((record.event.legacy_id, record.key.as_deref()), (Some(4), Some("k")));
    assert_eq!(record.event.run.as_deref(), Some("r"));
    assert_eq!(record.event.details.as_deref(), Some("[extra] timestamp: noon"), "created_at is the time");
}

#[test]
fn a_view_of_that_name_is_read_within_limits() {
    let source = read_sql(&format!(
        "CREATE TABLE events (id INTEGER PRIMARY KEY, {COLUMNS});
         WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 500)
         INSERT INTO events SELECT x, {VALUES} FROM n;
         CREATE VIEW sync_logs AS SELECT * FROM events WHERE id > 100;"
    ))
    .unwrap();
    assert_eq!((source.records.len(), source.records[0].event.legacy_id), (400, Some(101)));
    for endless in [
        "SELECT x FROM n",
        "SELECT max(x) AS id FROM n",
        "SELECT printf('%30000000d', x) AS log_details FROM n",
    ] {
        let refused = read_sql(&format!(
            "CREATE VIEW sync_logs AS WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x FROM n) {endless}"
        ));
        assert!(refused.unwrap_err().to_string().contains("more work"), "{endless}");
    }
}

#[test]
fn a_locked_source_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = database(
        &dir,
        &format!("CREATE TABLE sync_logs ({COLUMNS}); INSERT INTO sync_logs VALUES ({VALUES})"),
    );
    let holder = Connection::open(&path).unwrap();
    holder.execute_batch("BEGIN EXCLUSIVE").unwrap();
    assert!(matches!(read_path(&path, &Reading::of(&utc)), Err(Error::Projection { busy: true, .. })));
    let release = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        holder.execute_batch("COMMIT").unwrap();
    });
    let patient = Reading { wait: Duration::MAX, ..Reading::of(&utc) };
    assert_eq!(read_path(&path, &patient).unwrap().records.len(), 1);
    release.join().unwrap();
}

#[test]
fn what_is_no_legacy_database_is_refused() {
    let refusals = [
        ("CREATE TABLE other (a)", "no table sync_logs"),
        ("CREATE VIRTUAL TABLE sync_logs USING fts5(id)", "no table sync_logs"),
        ("CREATE TABLE sync_logs (id, frame); CREATE TABLE synclog_meta (a)", "synclog export"),
    ];
    for (sql, expected) in refusals {
        match read_sql(sql) {
            Err(error @ Error::Invalid { .. }) => assert!(error.to_string().contains(expected), "{error}"),
            other => panic!("{sql}: {other:?}"),
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("damaged.db");
    let mut bytes = b"SQLite format 3\0".to_vec();
    bytes.resize(4096, 0xa5);
    std::fs::write(&path, &bytes).unwrap();
    assert!(matches!(read_path(&path, &Reading::of(&utc)), Err(Error::Io { .. })), "damaged");
    assert!(
        matches!(read_path(&dir.path().join("none"), &Reading::of(&utc)), Err(Error::Io { .. })),
        "not there"
    );
    assert!(matches!(read_path(dir.path(), &Reading::of(&utc)), Err(Error::Io { .. })), "a directory");
    std::fs::write(&path, &bytes[..10]).unwrap();
    assert_eq!(
        read_path(&path, &Reading::of(&utc)).unwrap().rejections.len(),
        1,
        "too short for a database: a bad line"
    );
}

#[test]
fn a_database_in_wal_mode_is_read_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = database(&dir, &format!("PRAGMA journal_mode = WAL; CREATE TABLE sync_logs ({COLUMNS});"));
    let writer = Connection::open(&path).unwrap();
    writer
        .execute_batch(&format!("PRAGMA wal_autocheckpoint = 0; INSERT INTO sync_logs VALUES ({VALUES})"))
        .unwrap();
    assert_eq!(
        read_path(&path, &Reading::of(&utc)).unwrap().records.len(),
        1,
        "rows that are only in the -wal"
    );
    writer.close().unwrap();
    assert_eq!(read_path(&path, &Reading::of(&utc)).unwrap().records.len(), 1);
}

/// A small file whose columns are computed: all of a row would be in memory at once.
#[test]
fn computed_columns_take_no_more_memory_than_rows() {
    let many: Vec<String> =
        (0..60).map(|at| format!("more{at} AS (hex(zeroblob({}))) VIRTUAL", 8_000_000 + at)).collect();
    let error = read_sql(&format!(
        "CREATE TABLE sync_logs (id INTEGER PRIMARY KEY, {COLUMNS}, {}); \
         INSERT INTO sync_logs VALUES (1, {VALUES})",
        many.join(", ")
    ))
    .unwrap_err();
    assert!(error.to_string().contains("too big"), "{error}");
    let few = format!(
        "CREATE TABLE sync_logs (id INTEGER PRIMARY KEY, {COLUMNS}, more AS (upper(log_message))); \
         INSERT INTO sync_logs VALUES (1, {VALUES})"
    );
    assert_eq!(read_sql(&few).unwrap().records.len(), 1);
}

/// SQLite would open the pipe again, and wait for ever.
#[cfg(unix)]
#[test]
fn a_database_does_not_come_through_a_pipe() {
    let dir = tempfile::tempdir().unwrap();
    let file = database(&dir, &format!("CREATE TABLE sync_logs (id INTEGER PRIMARY KEY, {COLUMNS})"));
    let pipe = dir.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let (also, bytes) = (pipe.clone(), std::fs::read(file).unwrap());
    // Whoever reads has seen enough after some bytes.
    let writer = std::thread::spawn(move || drop(std::fs::write(also, bytes)));
    let error = read_path(&pipe, &Reading::of(&utc)).unwrap_err();
    assert!(error.to_string().contains("regular"), "{error}");
    writer.join().unwrap();
}
