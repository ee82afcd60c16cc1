//! Another history put in place: parts of two copies of a store, each of which went on by itself.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use super::*;
use crate::store::{Item, Options, Reader, Store};
use crate::sync::{Company, ExportLine, ImportOptions, Level, SyncEvent, SyncLog};

const COMMON: u64 = 20;

fn event(text: &str, size: usize) -> SyncEvent {
    SyncEvent::new(Company::new("g", "1", "A"), Level::Info, text).with_details("x".repeat(size))
}

/// Appends so many events in several openings and groups, so that there are marks in between.
fn append(dir: &Path, name: &str, events: u64, size: usize) {
    for half in [0..events / 2, events / 2..events] {
        // Long enough for every row to be there.
        let store = Store::open(dir, Options::default().projection_wait(Duration::from_mins(1))).unwrap();
        for number in half {
            store.append(event(&format!("{name} {number}"), size)).unwrap();
        }
        store.close().unwrap();
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, name) = (entry.as_ref().unwrap().path(), entry.unwrap().file_name());
        if path.is_dir() {
            copy(&path, &to.join(name));
        } else {
            fs::copy(path, to.join(name)).unwrap();
        }
    }
}

/// The texts of the log.
fn texts(dir: &Path) -> BTreeSet<String> {
    let reader = Reader::<SyncEvent>::open(dir).unwrap();
    let events = reader.items(1).unwrap().filter_map(|item| match item.unwrap() {
        Item::Event(stored) => Some(stored.event.message),
        _ => None,
    });
    events.collect()
}

/// The texts of the rows.
fn rows(dir: &Path) -> BTreeSet<String> {
    let database = projection::database_path(dir);
    if !database.exists() {
        return BTreeSet::new();
    }
    let db = projection::open_for_reading(&database, Duration::ZERO).unwrap();
    let mut query = db.prepare("SELECT log_message FROM sync_logs").unwrap();
    query.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

fn kinds(findings: &[Finding]) -> Vec<FindingKind> {
    findings.iter().map(|finding| finding.kind).collect()
}

#[track_caller]
fn refused(dir: &Path, case: &str) -> Vec<Finding> {
    match Store::<SyncEvent>::open(dir, Options::default()) {
        Err(Error::Damaged { findings, .. }) => findings,
        Err(error) => panic!("{case}: {error}"),
        Ok(_) => panic!("{case}: opened"),
    }
}

fn names(dir: &Path) -> Vec<Finding> {
    let mut found = Vec::new();
    Reader::<SyncEvent>::verify(dir, false, |finding| found.push(finding)).unwrap();
    found.retain(|finding| finding.kind == FindingKind::TwoHistories);
    found
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Part {
    Log,
    NewestSegment,
    Database,
    Tail,
}

/// The name of the newest segment.
fn newest(dir: &Path) -> std::ffi::OsString {
    fs::read_dir(dir.join("log")).unwrap().map(|entry| entry.unwrap().file_name()).max().unwrap()
}

fn put_in_place(from: &Path, into: &Path, part: Part) {
    match part {
        Part::Log => {
            fs::remove_dir_all(into.join("log")).unwrap();
            copy(&from.join("log"), &into.join("log"));
        }
        Part::NewestSegment => {
            let name = newest(from);
            fs::copy(from.join("log").join(&name), into.join("log").join(name)).unwrap();
        }
        Part::Database => fs::copy(from.join("synclog.db"), into.join("synclog.db")).map(drop).unwrap(),
        Part::Tail => fs::copy(from.join("tail"), into.join("tail")).map(drop).unwrap(),
    }
}

#[test]
fn another_history_put_in_place_is_named_and_neither_is_lost() {
    let (mut forks, mut imported) = (0, 0);
    for (own, other, size) in [
        (30, 30, 9),
        (12, 30, 9),
        (30, 12, 9),
        (1, 1, 9),
        (30, 30, 20_000),
        (12, 30, 20_000),
        (30, 12, 20_000),
    ] {
        let temp = tempfile::tempdir().unwrap();
        let [one, two] = ["one", "two"].map(|name| temp.path().join(name));
        append(&one, "common", COMMON, size);
        copy(&one, &two);
        append(&one, "one", own, size);
        append(&two, "two", other, size);
        for part in [Part::Log, Part::NewestSegment, Part::Database, Part::Tail] {
            for gone in [&[][..], &["synclog.db"], &["tail"], &["synclog.db", "tail"]] {
                let (kept, case) = (temp.path().join("case"), (own, other, size, part, gone));
                drop(fs::remove_dir_all(&kept));
                copy(&one, &kept);
                put_in_place(&two, &kept, part);
                gone.iter().for_each(|name| fs::remove_file(kept.join(name)).unwrap());
                let (has_rows, has_tail) = (kept.join("synclog.db").exists(), kept.join("tail").exists());
                let speaks = match part {
                    Part::Log | Part::NewestSegment => has_rows || has_tail,
                    Part::Database => has_rows,
                    Part::Tail => has_tail,
                };
                let (before, rows_before) = (texts(&kept), rows(&kept));
                if !speaks {
                    // Nothing beside the log tells; with segments of two histories the log itself does.
                    continue;
                }
                if part == Part::NewestSegment && newest(&one) != newest(&two) {
                    // It is not the newest one here: the log itself does not fit together, and says so.
                    let summary = Reader::<SyncEvent>::verify(&kept, false, drop).unwrap();
                    assert!(summary.log_damaged > 0, "{case:?}");
                    continue;
                }
                let found = refused(&kept, &format!("{case:?}"));
                assert_eq!((texts(&kept), rows(&kept)), (before.clone(), rows_before.clone()), "{case:?}");
                let report = Store::<SyncEvent>::repair(&kept, Options::default(), true, false).unwrap();
                assert!(!report.lost.is_empty(), "{case:?}");
                let mended = Store::<SyncEvent>::repair(&kept, Options::default(), false, false).unwrap();
                assert!(rows_before.is_subset(&(&rows(&kept) | &texts(&kept))), "{case:?}");
                let chooses = mended.lost.iter().all(|finding| {
                    matches!(finding.kind, FindingKind::TwoHistories | FindingKind::AppliedBeyondLog)
                });
                if !chooses {
                    // Segments of both do not fit together: they are named as such.
                    assert_eq!(part, Part::NewestSegment, "{case:?}: {found:?}; then {:?}", mended.lost);
                    continue;
                }
                if kinds(&mended.lost).contains(&FindingKind::TwoHistories) {
                    forks += 1;
                    assert!(kinds(&report.lost).contains(&FindingKind::TwoHistories), "{case:?}");
                    assert!(!names(&kept).is_empty(), "{case:?}");
                    assert_eq!(mended.acceptable, None, "{case:?}");
                }
                let of_log = texts(&kept);
                let trusted = Store::<SyncEvent>::repair(&kept, Options::default(), false, true).unwrap();
                assert_eq!(kinds(&trusted.lost), [], "{case:?}");
                assert_eq!((texts(&kept), rows(&kept)), (of_log.clone(), of_log.clone()), "{case:?}");
                let aside: Vec<_> =
                    trusted.findings.iter().filter(|found| found.kind == FindingKind::TwoHistories).collect();
                let log = SyncLog::open(&kept).unwrap();
                for finding in &aside {
                    let file = finding.file.as_ref().unwrap();
                    let report = log.import(file, &ImportOptions::default()).unwrap();
                    assert_eq!((report.imported, report.already_present), (finding.events(), 0), "{case:?}");
                    let again = log.import(file, &ImportOptions::default()).unwrap();
                    assert_eq!((again.imported, again.already_present), (0, finding.events()), "{case:?}");
                    imported += 1;
                }
                log.close().unwrap();
                let all = texts(&kept);
                assert!(rows_before.is_subset(&all) && of_log.is_subset(&all), "{case:?}");
            }
        }
    }
    assert!(forks > 40 && imported > 20, "{forks} {imported}");
}

/// Two copies with these many events behind what they have in common.
fn two(own: u64, other: u64) -> (tempfile::TempDir, PathBuf, PathBuf) {
    let temp = tempfile::tempdir().unwrap();
    let [one, two] = ["one", "two"].map(|name| temp.path().join(name));
    append(&one, "common", COMMON, 9);
    copy(&one, &two);
    append(&one, "one", own, 9);
    append(&two, "two", other, 9);
    (temp, one, two)
}

#[test]
fn both_histories_are_named_with_their_first_differing_seq() {
    let (_temp, one, two) = two(30, 30);
    put_in_place(&two, &one, Part::NewestSegment);
    let found = refused(&one, "");
    let rows = &found[0];
    assert_eq!((rows.kind, rows.seq, rows.last_seq), (FindingKind::TwoHistories, Some(21), Some(50)));
    assert!(rows.detail.contains("the same up to 20"), "{rows}");
    assert!(rows.detail.contains("the log holds others as 21 to 50"), "{rows}");
    assert_eq!((found.len(), names(&one).len()), (1, 1), "the rows speak for `tail` too");
    fs::remove_file(one.join("synclog.db")).unwrap();
    let found = refused(&one, "");
    assert_eq!((found[0].seq, found[0].file.as_deref()), (Some(50), Some(one.join("tail").as_path())));
}

const NO_INDEX: &str = "; DROP INDEX sync_logs_time";
const OTHER_DIGEST: &str = "; UPDATE synclog_meta SET value = 7 WHERE name = 'schema_digest'";

fn edit(database: &Path, sql: &str) {
    Connection::open(database).unwrap().execute_batch(sql).unwrap();
}

/// Ids of the rows that are set aside, with whether they are of the first copy.
fn set_aside(dir: &Path) -> Vec<(i64, bool)> {
    let db = projection::open_for_reading(&projection::database_path(dir), Duration::ZERO).unwrap();
    let sql = "SELECT row_id, row LIKE '%\"one %' FROM synclog_set_aside ORDER BY row_id";
    let mut query = db.prepare(sql).unwrap();
    query.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect()
}

#[test]
fn rows_that_do_not_prove_themselves_are_no_second_history() {
    let damages = [
        // The first one is gone, so that nothing chains on, and the last, so that nothing vouches for the applied seq.
        ("DELETE FROM sync_logs WHERE id IN (21, 25)", 3),
        // A header that is not of its place.
        ("UPDATE sync_logs SET frame = (SELECT frame FROM sync_logs WHERE id = 20) WHERE id > 20", 0),
    ];
    for (sql, kept) in damages {
        for also in ["", NO_INDEX, OTHER_DIGEST] {
            let (_temp, one, two) = two(5, 5);
            put_in_place(&two, &one, Part::Log);
            put_in_place(&two, &one, Part::Tail);
            edit(&one.join("synclog.db"), &format!("{sql}{also}"));
            let store = Store::<SyncEvent>::open(&one, Options::default()).unwrap();
            store.append(event("next", 9)).unwrap();
            store.close().unwrap();
            assert_eq!(rows(&one), texts(&one), "{sql}{also}");
            // They may be all that is left of their events.
            let wanted: Vec<_> = (22..22 + kept).map(|id| (id, true)).collect();
            assert_eq!(set_aside(&one), wanted, "{sql}{also}");
        }
    }
}

#[test]
fn rows_that_vouch_for_another_event_than_the_log_has_are_refused_until_the_log_is_trusted() {
    let damages = [
        ("DELETE FROM sync_logs WHERE id = 21", 4),
        // Payloads that their headers do not know.
        ("UPDATE sync_logs SET log_details = 'edited' WHERE id > 20", 5),
    ];
    for (sql, kept) in damages {
        for also in ["", NO_INDEX, OTHER_DIGEST] {
            let (_temp, one, two) = two(5, 5);
            put_in_place(&two, &one, Part::Log);
            put_in_place(&two, &one, Part::Tail);
            edit(&one.join("synclog.db"), &format!("{sql}{also}"));
            let before = rows(&one);
            let context = format!("{sql}{also}");
            let found = refused(&one, &context);
            assert_eq!(
                (kinds(&found), found[0].seq),
                (vec![FindingKind::TwoHistories], Some(25)),
                "{context}"
            );
            assert_eq!(found[0].file.as_deref(), Some(one.join("synclog.db").as_path()), "{context}");
            assert_eq!(names(&one).len(), 1, "{context}");
            let report = Store::<SyncEvent>::repair(&one, Options::default(), false, false).unwrap();
            assert_eq!((kinds(&report.lost), report.acceptable), (vec![FindingKind::TwoHistories], None));
            assert_eq!(rows(&one), before, "{context}");
            let report = Store::<SyncEvent>::repair(&one, Options::default(), false, true).unwrap();
            assert_eq!(kinds(&report.lost), [], "{context}");
            assert_eq!(rows(&one), texts(&two), "{context}");
            let wanted: Vec<_> = (26 - kept..26).map(|id| (id, true)).collect();
            assert_eq!(set_aside(&one), wanted, "P4, never overwritten: {context}");
            Store::<SyncEvent>::open(&one, Options::default()).unwrap().close().unwrap();
        }
    }
}

#[test]
fn a_tail_that_differs_is_told_also_beside_rows_that_say_the_same_and_prove_nothing() {
    for also in ["", NO_INDEX, OTHER_DIGEST] {
        let (_temp, one, two) = two(5, 5);
        put_in_place(&two, &one, Part::Log);
        let sql = "DELETE FROM sync_logs WHERE id = 21; UPDATE synclog_meta SET value = 3 WHERE name = 'applied_sum'";
        edit(&one.join("synclog.db"), &format!("{sql}{also}"));
        let found = refused(&one, also);
        assert_eq!((found[0].seq, found[0].file.as_deref()), (Some(25), Some(one.join("tail").as_path())));
        assert_eq!(names(&one).len(), 1, "{also}");
    }
}

#[test]
fn a_database_in_quarantine_that_proves_another_history_is_told_until_the_log_is_trusted() {
    for also in ["", NO_INDEX, OTHER_DIGEST] {
        let (_temp, one, two) = two(5, 5);
        put_in_place(&two, &one, Part::Log);
        put_in_place(&two, &one, Part::Tail);
        edit(&one.join("synclog.db"), &format!("SELECT 1{also}"));
        let kept = one.join("quarantine/database-1.db");
        fs::create_dir_all(one.join("quarantine")).unwrap();
        fs::rename(one.join("synclog.db"), &kept).unwrap();
        let bytes = fs::read(&kept).unwrap();
        let found = refused(&one, also);
        assert_eq!(
            (found[0].kind, found[0].seq, found[0].last_seq),
            (FindingKind::TwoHistories, Some(21), Some(25))
        );
        assert_eq!(found[0].file.as_ref(), Some(&kept));
        assert_eq!(names(&one).len(), 1, "{also}");
        let report = Store::<SyncEvent>::repair(&one, Options::default(), false, true).unwrap();
        assert_eq!(kinds(&report.lost), [], "{also}");
        assert_eq!(names(&one), [], "{also}");
        assert_eq!((rows(&one), texts(&one)), (texts(&two), texts(&two)), "{also}");
        assert!(fs::read(one.join("quarantine/overruled-database-1.db")).unwrap() == bytes, "{also}");
    }
}

#[test]
fn rows_of_another_history_prove_it_whatever_became_of_the_tables() {
    for sql in [
        "DROP INDEX sync_logs_time",
        "UPDATE synclog_meta SET value = 7 WHERE name = 'schema_digest'",
        "UPDATE synclog_meta SET value = 99 WHERE name = 'projection_version'",
        "ALTER TABLE sync_logs DROP COLUMN error_code",
        "DELETE FROM synclog_meta WHERE name = 'applied_seq'",
        "UPDATE synclog_meta SET value = 3 WHERE name = 'applied_seq'",
        "UPDATE synclog_meta SET value = 'damaged' WHERE name = 'store_id'",
        "DROP TABLE synclog_meta",
    ] {
        let (_temp, one, two) = two(5, 5);
        put_in_place(&two, &one, Part::Log);
        fs::remove_file(one.join("tail")).unwrap();
        Connection::open(one.join("synclog.db")).unwrap().execute_batch(sql).unwrap();
        assert_eq!(kinds(&refused(&one, sql)), [FindingKind::TwoHistories]);
        // They are the only copy of their events.
        let report = Store::<SyncEvent>::repair(&one, Options::default(), false, true).unwrap();
        let [kept] = &report.quarantined[..] else { panic!("{sql}: {:?}", report.quarantined) };
        let text = fs::read_to_string(kept).unwrap();
        for number in 0..5 {
            assert!(text.contains(&format!("\"one {number}\"")), "{sql}: {text}");
        }
        assert_eq!(rows(&one), texts(&two), "{sql}");
    }
}

#[test]
fn a_line_that_is_put_aside_is_one_of_our_export() {
    let dir = tempfile::tempdir().unwrap();
    let log = SyncLog::open(dir.path()).unwrap();
    let mut odd = event("odd \"\u{2028}\n", 3).with_duration(0.1 + 0.2).with_run("r").with_records(-1);
    odd.legacy_id = Some(7);
    log.store().append_with_key(odd, "key").unwrap();
    log.close().unwrap();
    let reader = Reader::<SyncEvent>::open(dir.path()).unwrap();
    let Some(Item::Event(stored)) = reader.items(1).unwrap().next().transpose().unwrap() else { panic!() };
    let line_of_export =
        ExportLine::new(1, reader.id(), &stored.event, stored.key.as_deref(), stored.appended_at);
    let schema = Schema::of::<SyncEvent>().unwrap();
    let db = projection::open_for_reading(&reader.database(), Duration::ZERO).unwrap();
    let row = OwnRows::of(&db, &schema).unwrap().row(1).unwrap().unwrap();
    let mut text = String::new();
    line(reader.id(), &schema, &row, &mut text);
    assert_eq!(text, serde_json::to_string(&line_of_export).unwrap() + "\n");
}

#[test]
fn a_database_of_another_history_under_a_living_writer_ends_it() {
    let (_temp, one, two) = two(5, 5);
    let before = rows(&two);
    let store = Store::<SyncEvent>::open(&one, Options::default()).unwrap();
    store.append(event("living", 9)).unwrap();
    fs::copy(two.join("synclog.db"), one.join("new")).unwrap();
    fs::rename(one.join("new"), one.join("synclog.db")).unwrap();
    for suffix in ["-wal", "-shm"] {
        drop(fs::remove_file(one.join(format!("synclog.db{suffix}"))));
    }
    // The event that notices it may still be durable; the handle then takes no more.
    let ended = (0..200).find_map(|_| {
        std::thread::sleep(Duration::from_millis(5));
        store.append(event("more", 9)).err()
    });
    assert!(ended.is_some());
    drop(store);
    assert_eq!(rows(&one), before, "nothing was put in their place");
    assert!(kinds(&refused(&one, "")).contains(&FindingKind::TwoHistories));
}

#[test]
fn an_altered_database_that_reaches_behind_the_log_under_a_living_writer_ends_it() {
    for also in [NO_INDEX, OTHER_DIGEST] {
        let temp = tempfile::tempdir().unwrap();
        let [one, two] = ["one", "two"].map(|name| temp.path().join(name));
        append(&one, "common", COMMON, 9);
        copy(&one, &two);
        append(&two, "two", 40, 9);
        edit(&two.join("synclog.db"), &format!("SELECT 1{also}"));
        let before = rows(&two);
        let store = Store::<SyncEvent>::open(&one, Options::default()).unwrap();
        assert!(store.wait_projected(Duration::from_mins(1)));
        fs::rename(two.join("synclog.db"), one.join("synclog.db")).unwrap();
        for suffix in ["-wal", "-shm"] {
            drop(fs::remove_file(one.join(format!("synclog.db{suffix}"))));
        }
        // The event that notices it may still be durable; the handle then takes no more.
        let ended = (0..20).find_map(|_| {
            store.wait_projected(Duration::from_secs(1));
            store.append(event("more", 9)).err()
        });
        assert!(ended.is_some(), "{also}");
        drop(store);
        assert_eq!(rows(&one), before, "nothing was put in their place");
    }
}
