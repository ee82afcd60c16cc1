//! A database that cannot serve as the view is still evidence (P3, P9): whatever became of its tables, a row
//! that proves a frame heals it, and an applied seq that the log does not reach forbids to use a seq twice.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{assert_rows_equal_log, copy_dir, messages, open, segments, small, sql, verify};
use synclog::{Company, Error, Finding, FindingKind, Level, Severity, Store, SyncEvent};

const EVENTS: u64 = 8;

/// An event whose frame holds several whole sectors, none of them zeros.
fn event(number: u64) -> SyncEvent {
    let company = Company::new("8f0c1d52", "4401", "Acme Traders");
    SyncEvent::new(company, Level::Info, format!("event {number}")).with_details("d".repeat(2000))
}

fn append(dir: &Path, numbers: std::ops::RangeInclusive<u64>) {
    let store = open(dir);
    for number in numbers {
        store.append(event(number)).unwrap();
    }
    assert!(store.wait_projected(std::time::Duration::from_mins(1)));
    store.close().unwrap();
}

/// Frames of a segment: start, end, and seq or `None` for a mark.
fn frames(image: &[u8]) -> Vec<(usize, usize, Option<u64>)> {
    let u32_at = |at: usize| u32::from_le_bytes(image[at..at + 4].try_into().unwrap()) as usize;
    let (mut found, mut start) = (Vec::new(), 8192);
    while start + 48 < image.len() && image[start] == 0xF1 {
        let end = start + 48 + (u32_at(start + 24) + 8) / 8 * 8;
        found.push((start, end, (image[start + 1] == 1).then(|| u32_at(start + 8) as u64)));
        start = end;
    }
    found
}

/// The store as a kill leaves it before the mark of its last group is written.
fn killed(dir: &Path) {
    let path = segments(dir).pop().unwrap();
    let mut image = fs::read(&path).unwrap();
    let (start, end, seq) = *frames(&image).last().unwrap();
    assert_eq!(seq, None, "closing writes a mark");
    image[start..end].fill(0);
    fs::write(path, image).unwrap();
    fs::remove_file(dir.join("tail")).unwrap();
}

fn template() -> tempfile::TempDir {
    let dir = scratch();
    append(dir.path(), 1..=EVENTS);
    killed(dir.path());
    dir
}

#[derive(Clone, Copy, Debug)]
enum Sector {
    /// The one in which the last frame's header begins.
    OfHeader,
    OfPayload,
}

/// Zeros one sector of the last frame.
fn tear(dir: &Path, sector: Sector) {
    let path = segments(dir).pop().unwrap();
    let mut image = fs::read(&path).unwrap();
    let (start, end, seq) = *frames(&image).last().unwrap();
    assert!(seq.is_some());
    let at = match sector {
        Sector::OfHeader => start..start + 48,
        Sector::OfPayload => (start + 48).next_multiple_of(512)..(start + 48).next_multiple_of(512) + 512,
    };
    assert!(at.end < end);
    image[at].fill(0);
    if let Sector::OfHeader = sector {
        let rest = start.next_multiple_of(512).min(end);
        image[start..rest.max(start + 48)].fill(0);
    }
    fs::write(path, image).unwrap();
}

/// What makes a database another one than it should be, and takes no row.
const ALTERED: [&str; 14] = [
    "DROP INDEX sync_logs_time",
    "ALTER TABLE sync_logs ADD COLUMN note TEXT",
    "ALTER TABLE sync_logs DROP COLUMN error_code",
    "ALTER TABLE sync_logs RENAME COLUMN run TO run_id",
    "UPDATE synclog_meta SET value = 7 WHERE name = 'schema_digest'",
    "UPDATE synclog_meta SET value = 99 WHERE name = 'projection_version'",
    "DELETE FROM synclog_meta WHERE name = 'projection_version'",
    "DROP TABLE synclog_absent",
    "DROP TABLE synclog_set_aside",
    "UPDATE synclog_meta SET value = 99 WHERE name = 'event_version'",
    // The applied pair, and the store's id.
    "DELETE FROM synclog_meta WHERE name = 'applied_seq'",
    "UPDATE synclog_meta SET value = 3 WHERE name = 'applied_seq'",
    "UPDATE synclog_meta SET value = 'damaged' WHERE name = 'store_id'",
    "DROP TABLE synclog_meta",
];

fn index_of_time(dir: &Path) -> bool {
    let db = rusqlite::Connection::open(dir.join("synclog.db")).unwrap();
    let sql = "SELECT count(*) FROM sqlite_schema WHERE name = 'sync_logs_time'";
    db.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap() == 1
}

fn damage(findings: &[Finding]) -> Vec<&Finding> {
    findings.iter().filter(|finding| finding.kind.severity() == Severity::LogDamaged).collect()
}

fn names(findings: &[Finding], seq: u64) -> bool {
    damage(findings).iter().any(|finding| {
        finding.seq.is_some_and(|first| (first..=finding.last_seq.unwrap_or(first)).contains(&seq))
    })
}

#[track_caller]
fn refused(dir: &Path, context: &str) -> Vec<Finding> {
    match Store::<SyncEvent>::open(dir, small()) {
        Err(Error::Damaged { findings, .. }) => findings,
        Err(error) => panic!("{context}: {error}"),
        Ok(store) => panic!("P3: {context}: opened, {:?}", store.open_report()),
    }
}

/// Every event is there, the next one has the next seq, and rows equal the log.
#[track_caller]
fn assert_whole(dir: &Path, events: u64, context: &str) {
    let store = open(dir);
    let seq = store.append(event(events + 1)).unwrap().seq;
    assert!(store.wait_projected(std::time::Duration::from_mins(1)), "{context}");
    store.close().unwrap();
    assert_eq!(seq, events + 1, "P3: {context}");
    let wanted: Vec<_> = (1..=events + 1).map(|seq| (seq, format!("event {seq}"))).collect();
    assert_eq!(messages(dir), wanted, "P3: {context}");
    assert_rows_equal_log(dir);
    assert!(verify(dir).1, "{context}: {:?}", verify(dir).0);
}

fn scratch() -> tempfile::TempDir {
    let shm = Path::new("/dev/shm");
    if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() }.unwrap()
}

/// A copy of a store that may be spoiled.
fn copy_of(template: &Path) -> (tempfile::TempDir, PathBuf) {
    let temp = scratch();
    let dir = temp.path().join("store");
    copy_dir(template, &dir);
    (temp, dir)
}

#[test]
fn p3_a_row_heals_the_last_group_whatever_became_of_the_tables() {
    let template = template();
    assert!(index_of_time(template.path()));
    for sector in [Sector::OfHeader, Sector::OfPayload] {
        for altered in std::iter::once("SELECT 1").chain(ALTERED) {
            let copy = copy_of(template.path());
            let context = format!("{sector:?}, {altered}");
            if altered != "SELECT 1" {
                sql(&copy.1, altered);
            }
            tear(&copy.1, sector);
            let (told, sound) = verify(&copy.1);
            assert!(!sound && names(&told, EVENTS), "P3: {context}: {told:?}");
            assert_whole(&copy.1, EVENTS, &context);
        }
    }
}

#[test]
fn p3_an_applied_seq_whose_row_is_gone_forbids_to_cut_off_what_it_counts() {
    let template = template();
    for sector in [Sector::OfHeader, Sector::OfPayload] {
        for also in [
            "SELECT 1",
            "DROP INDEX sync_logs_time",
            "UPDATE synclog_meta SET value = 7 WHERE name = 'schema_digest'",
        ] {
            let copy = copy_of(template.path());
            let context = format!("{sector:?}, {also}");
            sql(&copy.1, &format!("DELETE FROM sync_logs WHERE id = {EVENTS}"));
            if also != "SELECT 1" {
                sql(&copy.1, also);
            }
            tear(&copy.1, sector);
            let before: Vec<_> = segments(&copy.1).iter().map(|path| fs::read(path).unwrap()).collect();
            assert!(names(&refused(&copy.1, &context), EVENTS), "P3: {context}");
            assert!(names(&verify(&copy.1).0, EVENTS), "P3: {context}");
            let report = Store::<SyncEvent>::repair(&copy.1, small(), false, false).unwrap();
            assert!(names(&report.lost, EVENTS), "P3: {context}");
            assert_eq!(report.acceptable, Some(1), "{context}");
            let after: Vec<_> = segments(&copy.1).iter().map(|path| fs::read(path).unwrap()).collect();
            assert!(before == after, "P3: {context}");
            let given_up = Store::<SyncEvent>::accept_loss(&copy.1, small(), 1).unwrap();
            assert_eq!((given_up.given_up, given_up.lost.len()), (1, 0), "{context}");
            let store = open(&copy.1);
            assert_eq!(store.append(event(9)).unwrap().seq, EVENTS + 1, "P3: {context}");
            store.close().unwrap();
        }
    }
}

/// A store of several segments with a damaged payload in the first one.
fn damaged_in_a_sealed_segment() -> tempfile::TempDir {
    let dir = scratch();
    append(dir.path(), 1..=30);
    let paths = segments(dir.path());
    assert!(paths.len() >= 3);
    let mut image = fs::read(&paths[0]).unwrap();
    let (start, _, _) = frames(&image)[2];
    image[start + 100] ^= 1;
    fs::write(&paths[0], image).unwrap();
    dir
}

#[test]
fn p9_repair_heals_a_sealed_segment_whatever_became_of_the_tables() {
    let template = damaged_in_a_sealed_segment();
    for altered in ALTERED {
        for opened in [false, true] {
            let copy = copy_of(template.path());
            sql(&copy.1, altered);
            if opened {
                // A rebuild stops where the log is damaged, and has moved nothing aside by then.
                drop(Store::<SyncEvent>::open(&copy.1, small()).map(Store::close));
                assert!(Store::<SyncEvent>::replay(&copy.1, small(), true).is_err(), "{altered}");
                let kept = fs::read_dir(copy.1.join("quarantine")).map_or(0, Iterator::count);
                assert_eq!(kept, 0, "{altered}");
            }
            let dry = Store::<SyncEvent>::repair(&copy.1, small(), true, false).unwrap();
            let done = Store::<SyncEvent>::repair(&copy.1, small(), false, false).unwrap();
            for report in [dry, done] {
                assert!(report.lost.is_empty() && report.healed_events == 1, "P9: {altered}: {report:?}");
            }
            assert_whole(&copy.1, 30, altered);
        }
    }
}

/// Moves the database to where a rebuild keeps what it cannot use.
fn quarantined(dir: &Path) -> PathBuf {
    let kept = dir.join("quarantine/database-20260101000000000000.db");
    fs::create_dir_all(dir.join("quarantine")).unwrap();
    fs::rename(dir.join("synclog.db"), &kept).unwrap();
    for suffix in ["-wal", "-shm"] {
        drop(fs::remove_file(dir.join(format!("synclog.db{suffix}"))));
    }
    kept
}

#[test]
fn p9_a_database_in_quarantine_gives_what_its_rows_prove() {
    let template = damaged_in_a_sealed_segment();
    for altered in [
        "SELECT 1",
        "DROP INDEX sync_logs_time",
        "UPDATE synclog_meta SET value = 'x' WHERE name = 'store_id'",
    ] {
        let copy = copy_of(template.path());
        if altered != "SELECT 1" {
            sql(&copy.1, altered);
        }
        quarantined(&copy.1);
        let report = Store::<SyncEvent>::repair(&copy.1, small(), false, false).unwrap();
        assert!(report.lost.is_empty() && report.healed_events == 1, "P9: {altered}: {report:?}");
        assert_whole(&copy.1, 30, altered);
    }
}

#[test]
fn p3_a_database_in_quarantine_is_a_witness() {
    for row_is_there in [true, false] {
        for sector in [Sector::OfHeader, Sector::OfPayload] {
            let template = template();
            let dir = template.path();
            if !row_is_there {
                // Its header stays, so that the applied seq has its row; the payload is another one.
                sql(dir, &format!("UPDATE sync_logs SET log_message = 'edited' WHERE id = {EVENTS}"));
            }
            let kept = quarantined(dir);
            tear(dir, sector);
            let before = fs::read(&kept).unwrap();
            assert!(names(&verify(dir).0, EVENTS), "P3");
            if row_is_there {
                assert_whole(dir, EVENTS, "from quarantine");
            } else {
                assert!(names(&refused(dir, "from quarantine"), EVENTS), "P3");
                let report = Store::<SyncEvent>::repair(dir, small(), false, true).unwrap();
                assert!(report.lost.is_empty(), "{report:?}");
                // Somebody has chosen: it is not asked again, and is still kept.
                assert_whole(dir, EVENTS - 1, "trusted");
                let names = fs::read_dir(dir.join("quarantine")).unwrap().map(|entry| entry.unwrap().path());
                let mut databases = names.filter(|path| path.extension().is_some_and(|ext| ext == "db"));
                assert_eq!(fs::read(databases.next().unwrap()).unwrap(), before);
            }
            assert!(fs::read_dir(dir.join("quarantine")).unwrap().count() < 5);
        }
    }
}

/// The log of an older copy under rows that go on.
fn older_log(with_tail: bool) -> (tempfile::TempDir, PathBuf) {
    let temp = scratch();
    let dir = temp.path().join("store");
    append(&dir, 1..=20);
    copy_dir(&dir.join("log"), &temp.path().join("older"));
    append(&dir, 21..=25);
    fs::remove_dir_all(dir.join("log")).unwrap();
    copy_dir(&temp.path().join("older"), &dir.join("log"));
    if !with_tail {
        fs::remove_file(dir.join("tail")).unwrap();
    }
    (temp, dir)
}

#[test]
fn p3_rows_behind_the_logs_end_come_back_whatever_became_of_the_tables() {
    for with_tail in [false, true] {
        let (_temp, dir) = older_log(with_tail);
        for altered in ALTERED {
            for by_repair in [false, true] {
                let copy = copy_of(&dir);
                let context = format!("tail {with_tail}, repair {by_repair}, {altered}");
                sql(&copy.1, altered);
                let (told, sound) = verify(&copy.1);
                assert!(!sound && names(&told, 21) && names(&told, 25), "P3: {context}: {told:?}");
                if by_repair {
                    let report = Store::<SyncEvent>::repair(&copy.1, small(), false, false).unwrap();
                    assert!(report.lost.is_empty() && report.healed_events == 5, "{context}: {report:?}");
                }
                assert_whole(&copy.1, 25, &context);
            }
        }
    }
}

#[test]
fn p3_rows_behind_the_logs_end_that_prove_nothing_forbid_appends_until_the_log_is_trusted() {
    let (_temp, dir) = older_log(false);
    for altered in [
        "SELECT 1",
        "DROP INDEX sync_logs_time",
        "UPDATE synclog_meta SET value = 7 WHERE name = 'schema_digest'",
    ] {
        let copy = copy_of(&dir);
        sql(&copy.1, "UPDATE sync_logs SET log_message = 'edited' WHERE id > 20");
        if altered != "SELECT 1" {
            sql(&copy.1, altered);
        }
        let found = refused(&copy.1, altered);
        assert!(names(&found, 21) && names(&found, 25), "P3: {altered}: {found:?}");
        let report = Store::<SyncEvent>::repair(&copy.1, small(), false, false).unwrap();
        assert!(names(&report.lost, 21) && names(&report.lost, 25), "P3: {altered}: {report:?}");
        assert!(report.lost.iter().any(|finding| finding.kind == FindingKind::AppliedBeyondLog));
        let report = Store::<SyncEvent>::repair(&copy.1, small(), false, true).unwrap();
        assert!(report.lost.is_empty(), "{altered}: {report:?}");
        let db = rusqlite::Connection::open(copy.1.join("synclog.db")).unwrap();
        let aside = "SELECT count(*) FROM synclog_set_aside WHERE row LIKE '%edited%'";
        assert_eq!(db.query_row(aside, [], |row| row.get::<_, i64>(0)).unwrap(), 5, "{altered}");
        drop(db);
        assert_whole(&copy.1, 20, altered);
    }
}

/// Nothing proves the events any more; that they were acknowledged is known all the same.
#[test]
fn p3_an_applied_seq_behind_the_logs_end_counts_without_its_row() {
    let (_temp, dir) = older_log(false);
    for gone in [
        "DELETE FROM sync_logs WHERE id > 20",
        "DELETE FROM sync_logs WHERE id = 25",
        "ALTER TABLE sync_logs RENAME TO old_logs",
        "DELETE FROM sync_logs",
    ] {
        for altered in
            ["", "; ALTER TABLE synclog_set_aside ADD COLUMN theirs", "; DROP INDEX IF EXISTS sync_logs_time"]
        {
            let copy = copy_of(&dir);
            let context = format!("{gone}{altered}");
            sql(&copy.1, &context);
            let found = refused(&copy.1, &context);
            assert!(names(&found, 25), "P3: {context}: {found:?}");
            let report = Store::<SyncEvent>::repair(&copy.1, small(), false, true).unwrap();
            assert!(report.lost.is_empty(), "{context}: {report:?}");
            let events = open(&copy.1);
            let last = events.open_report().last_seq;
            events.close().unwrap();
            assert_whole(&copy.1, last, &context);
        }
    }
}

/// A way to damage the log that leaves something of it: the file, and what becomes of it.
type Damage = (String, PathBuf, Option<Vec<u8>>);

/// Damages to the log of a store: a bit in a header and in a payload, each sector of a frame, a file that is gone or
/// cut short, the last frames gone without a trace.
fn damages(dir: &Path) -> Vec<Damage> {
    let mut all: Vec<Damage> = Vec::new();
    let paths = segments(dir);
    for (index, path) in paths.iter().enumerate() {
        let name = PathBuf::from("log").join(path.file_name().unwrap());
        let image = fs::read(path).unwrap();
        let mut add = |what: String, bytes: Option<Vec<u8>>| {
            all.push((format!("{what} of segment {}", index + 1), name.clone(), bytes));
        };
        let last = index + 1 == paths.len();
        let events: Vec<_> = frames(&image).into_iter().filter(|(_, _, seq)| seq.is_some()).collect();
        for (start, end, seq) in events.iter().rev().take(if last { 3 } else { 1 }).copied() {
            for at in [start + 20, start + 1000] {
                let mut bytes = image.clone();
                bytes[at] ^= 4;
                add(format!("a bit in event {seq:?} at {}", at - start), Some(bytes));
            }
            let mut from = start;
            while from < end {
                let to = (from + 1).next_multiple_of(512).min(end);
                let mut bytes = image.clone();
                bytes[from..to].fill(0);
                add(format!("zeros in event {seq:?} at {}", from - start), Some(bytes));
                from = to;
            }
            if last {
                let mut bytes = image.clone();
                bytes[start..].fill(0);
                add(format!("all zeros from event {seq:?} on"), Some(bytes));
                add(format!("cut before event {seq:?}"), Some(image[..start].to_vec()));
            }
        }
        if index > 0 {
            add("all".into(), None);
        }
    }
    all
}

/// Every damage to the log with every alteration of the database: each event is back or named, and none of their seqs
/// is given to another one. Where every row is there, each event is back.
#[test]
fn p3_every_damage_to_the_log_beside_every_database_that_differs() {
    const COUNT: u64 = 20;
    let full = std::env::var("SYNCLOG_DAMAGE").is_ok_and(|how| how == "full");
    let template = scratch();
    append(template.path(), 1..=COUNT);
    killed(template.path());
    let last_row_gone = format!("DELETE FROM sync_logs WHERE id = {COUNT}");
    let other_row_gone = format!("DELETE FROM sync_logs WHERE id = {}", COUNT - 1);
    let gone = [last_row_gone.clone(), other_row_gone.clone()];
    let gone = gone
        .iter()
        .flat_map(|sql| [sql.clone(), format!("{sql}; {}", ALTERED[0]), format!("{sql}; {}", ALTERED[4])]);
    let altered: Vec<String> = ALTERED.iter().map(ToString::to_string).chain(gone).collect();
    let damages = damages(template.path());
    let whole = messages(template.path());
    let (mut back, mut named, mut unseen) = (0, 0, 0);
    let cases = damages.iter().flat_map(|damage| altered.iter().map(move |sql| (damage, sql)));
    // A prime, so that a sample takes all of both in turn.
    for ((what, file, bytes), altered) in cases.step_by(if full { 1 } else { 23 }) {
        let (_temp, dir) = copy_of(template.path());
        let context = format!("{what}, {altered}");
        sql(&dir, altered);
        match bytes {
            Some(bytes) => fs::write(dir.join(file), bytes).unwrap(),
            None => fs::remove_file(dir.join(file)).unwrap(),
        }
        let mut told = verify(&dir).0;
        match Store::<SyncEvent>::open(&dir, small()) {
            Ok(store) => {
                told.extend(store.open_report().findings.clone());
                store.close().unwrap();
            }
            Err(Error::Damaged { findings, .. }) => told.extend(findings),
            Err(error) => panic!("{context}: {error}"),
        }
        let report = Store::<SyncEvent>::repair(&dir, small(), false, false).unwrap();
        told.extend(report.lost.clone());
        let rows_are_there = !altered.contains("DELETE FROM sync_logs");
        if rows_are_there {
            assert!(report.lost.is_empty(), "P9: {context}: {:?}", report.lost);
            assert_whole(&dir, COUNT, &context);
            back += 1;
            continue;
        }
        let there: Vec<_> = synclog::Reader::<SyncEvent>::open(&dir).unwrap().items(1).unwrap().collect();
        let there: Vec<(u64, String)> = there
            .into_iter()
            .filter_map(|item| match item.unwrap() {
                synclog::Item::Event(stored) => Some((stored.seq, stored.event.message)),
                _ => None,
            })
            .collect();
        assert!(there.iter().all(|event| whole.contains(event)), "P4: {context}");
        let lost: Vec<_> = (1..=COUNT).filter(|seq| !there.iter().any(|(own, _)| own == seq)).collect();
        // Where nothing is left of the newest event but an applied seq without its row, that may have been edited.
        let trace = !(what.starts_with("all") || what.starts_with("cut"));
        let unknown = |seq: &u64| !trace && altered.contains(&last_row_gone) && *seq == COUNT;
        let not_named: Vec<_> = lost.iter().filter(|seq| !names(&told, **seq)).collect();
        assert!(not_named.iter().all(|seq| unknown(seq)), "P3: {not_named:?}: {context}: {told:?}");
        if lost.is_empty() {
            assert_whole(&dir, COUNT, &context);
            back += 1;
        } else if not_named.is_empty() {
            assert!(!report.lost.is_empty(), "P3: {context}");
            refused(&dir, &context);
            named += 1;
        } else {
            unseen += 1;
        }
    }
    println!(
        "{back} logs are whole again, of {named} each loss is named, of {unseen} nothing is left to tell"
    );
    assert!(back > 10 && (!full || named > 10), "{back} {named}");
}
