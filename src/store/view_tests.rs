//! What verify and replay say of a changed database: exact counts, exact findings.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::disk::RealDisk;
use crate::event::{Column, ColumnType, Event, Table, Value};
use crate::finding::{Finding, FindingKind};
use crate::log::cursor::Entry;
use crate::log::directory::LogDir;
use crate::log::frame::{self, Draft, Gap, Seed, decode_header};
use crate::log::view::LogView;
use crate::replay::{self, ReplayReport};
use crate::store_id::StoreId;
use crate::sync::{Company, Level, SyncEvent};

use super::{Options, Reader, Store, VerifySummary};

/// More than two steps of a replay, and not a multiple of one.
pub(super) const COUNT: u64 = 1200;

pub(super) fn event(number: u64) -> SyncEvent {
    SyncEvent::new(Company::new("g", "a", "n"), Level::Info, format!("event {number}"))
}

pub(super) fn filled(dir: &Path, count: u64) {
    let store = Store::open(dir, Options::default()).unwrap();
    store.append_all((1..=count).map(event)).unwrap();
    assert!(store.wait_projected(Duration::from_secs(30)));
    store.close().unwrap();
}

pub(super) fn edit(dir: &Path, sql: &str) {
    // As others do.
    let db = crate::projection::Connection::open(dir.join("synclog.db")).unwrap();
    db.execute_batch(sql).unwrap();
}

pub(super) fn verify(dir: &Path, log_only: bool) -> (VerifySummary, Vec<Finding>) {
    let mut findings = Vec::new();
    let summary = Reader::<SyncEvent>::verify(dir, log_only, |finding| findings.push(finding)).unwrap();
    (summary, findings)
}

/// Kind, first and last seq, column.
type Told<'a> = (FindingKind, Option<u64>, Option<u64>, Option<&'a str>);

fn told(findings: &[Finding]) -> Vec<Told<'_>> {
    findings.iter().map(|f| (f.kind, f.seq, f.last_seq, f.column.as_deref())).collect()
}

pub(super) fn replay(dir: &Path, rebuild: bool) -> ReplayReport {
    Store::<SyncEvent>::replay(dir, Options::default(), rebuild).unwrap().0
}

fn summary(rows: u64, differences: u64, applied_seq: u64) -> VerifySummary {
    let (events, last_seq) = (COUNT, COUNT);
    VerifySummary { events, rows, log_damaged: 0, differences, lag: 0, unreadable: 0, last_seq, applied_seq }
}

#[test]
fn every_difference_is_told_once_and_mended_once() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    filled(dir, COUNT);
    assert_eq!(verify(dir, false), (summary(COUNT, 0, COUNT), Vec::new()));
    assert_eq!(verify(dir, true), (summary(0, 0, 0), Vec::new()));
    assert!(summary(COUNT, 0, COUNT).is_sound());
    assert!(replay(dir, false).changed_nothing());

    edit(
        dir,
        "DELETE FROM sync_logs WHERE id IN (1, 512, 513);
         UPDATE sync_logs SET log_message = 'other' WHERE id = 700;
         UPDATE sync_logs SET company_name = 'x', log_level = 'DEBUG' WHERE id = 1024;
         CREATE TEMP TABLE strange AS SELECT * FROM sync_logs WHERE id = 2;
         UPDATE strange SET id = 0; INSERT INTO sync_logs SELECT * FROM strange;
         UPDATE strange SET id = -7; INSERT INTO sync_logs SELECT * FROM strange;
         UPDATE strange SET id = 1201; INSERT INTO sync_logs SELECT * FROM strange;
         UPDATE strange SET id = 5000; INSERT INTO sync_logs SELECT * FROM strange;",
    );
    let (found, findings) = verify(dir, false);
    assert_eq!(found, summary(COUNT - 3, 3 + 3 + 4, COUNT));
    assert!(!found.is_sound());
    let (missing, differs) = (FindingKind::RowMissing, FindingKind::RowDiffers);
    let unknown = FindingKind::RowUnknown;
    let expected = [
        (unknown, None, None, None),
        (unknown, None, None, None),
        (missing, Some(1), None, None),
        (missing, Some(512), None, None),
        (missing, Some(513), None, None),
        (differs, Some(700), None, Some("log_message")),
        (differs, Some(1024), None, Some("company_name")),
        (differs, Some(1024), None, Some("log_level")),
        (unknown, Some(1201), None, None),
        (unknown, Some(5000), None, None),
    ];
    assert_eq!(told(&findings), expected);
    let report = replay(dir, false);
    let counts = (report.restored, report.replaced, report.set_aside, report.already_present);
    assert_eq!(counts, (3, 2, 4, COUNT - 5));
    assert_eq!((report.unhealable, report.rebuilt), (0, false));
    assert!(!report.changed_nothing());
    assert_eq!(verify(dir, false), (summary(COUNT, 0, COUNT), Vec::new()));
    let report = replay(dir, false);
    assert!(report.changed_nothing() && report.already_present == COUNT, "{report:?}");
    let report = replay(dir, true);
    assert_eq!((report.restored, report.rebuilt, report.set_aside), (COUNT, true, 0));
    assert_eq!(verify(dir, false), (summary(COUNT, 0, COUNT), Vec::new()));
}

/// A rebuild carries over what no event explains, and counts it.
#[test]
fn a_rebuild_sets_strange_rows_aside() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    filled(dir, 3);
    edit(
        dir,
        "CREATE TEMP TABLE strange AS SELECT * FROM sync_logs WHERE id = 2;
         UPDATE strange SET id = 7; INSERT INTO sync_logs SELECT * FROM strange;
         DROP INDEX sync_logs_run;",
    );
    let report = replay(dir, false);
    assert_eq!((report.restored, report.set_aside, report.rebuilt), (3, 1, true));
}

/// The same where the table had other columns.
#[test]
fn a_rebuild_keeps_strange_rows_of_another_shape() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    filled(dir, 3);
    edit(
        dir,
        "ALTER TABLE sync_logs RENAME COLUMN log_details TO remarks;
         INSERT INTO sync_logs (id, company_guid, company_alterid, company_name, log_level, log_message, \
         created_at, frame, remarks) VALUES (7, 'g', 'a', 'n', 'info', 'm', 't', x'c0ffee', 'theirs')",
    );
    let report = replay(dir, false);
    assert_eq!((report.restored, report.set_aside, report.rebuilt), (3, 1, true));
    let db = crate::projection::open_existing(&dir.join("synclog.db"), Duration::ZERO).unwrap();
    let row: String = db.query_row("SELECT row FROM synclog_set_aside", [], |row| row.get(0)).unwrap();
    assert!(row.contains(r#""remarks":"theirs""#) && row.contains(r#"{"hex":"c0ffee"}"#), "{row}");
    assert!(!row.contains(r#""id""#), "{row}");
}

/// Why a database cannot be compared, and that the log is looked at all the same.
#[test]
fn what_is_wrong_with_a_database_has_its_name() {
    let kinds = |change: &dyn Fn(&Path)| {
        let dir = tempfile::tempdir().unwrap();
        filled(dir.path(), 3);
        change(dir.path());
        let (summary, findings) = verify(dir.path(), false);
        assert_eq!((summary.events, summary.differences), (3, findings.len() as u64));
        let options = Options::default().projection_wait(Duration::from_mins(1));
        assert!(Store::<SyncEvent>::open(dir.path(), options).unwrap().close().is_ok());
        assert_eq!(verify(dir.path(), false).1, Vec::new());
        findings.iter().map(|finding| (finding.kind, finding.seq, finding.last_seq)).collect::<Vec<_>>()
    };
    let alone = |kind| vec![(kind, None, None)];
    let schema = alone(FindingKind::SchemaDiffers);
    assert_eq!(kinds(&|dir| edit(dir, "ALTER TABLE sync_logs ADD COLUMN more")), schema);
    assert_eq!(kinds(&|dir| edit(dir, "DROP INDEX sync_logs_time")), schema);
    let garbage = |dir: &Path| crate::disk::replace_small(&dir.join("synclog.db"), &[7; 9000]).unwrap();
    assert_eq!(kinds(&garbage), alone(FindingKind::DatabaseDamaged));
    let missing = |dir: &Path| crate::disk::remove_if_there(&dir.join("synclog.db")).unwrap();
    assert_eq!(kinds(&missing), alone(FindingKind::DatabaseMissing));
    let foreign = |dir: &Path| {
        let other = tempfile::tempdir().unwrap();
        filled(other.path(), 2);
        let bytes = crate::disk::read_small(&other.path().join("synclog.db"), 1 << 24).unwrap();
        crate::disk::replace_small(&dir.join("synclog.db"), &bytes).unwrap();
    };
    assert_eq!(kinds(&foreign), alone(FindingKind::DatabaseForeign));
    let meta =
        |name: &str, value: i64| format!("UPDATE synclog_meta SET value = {value} WHERE name = '{name}'");
    let differs = FindingKind::AppliedDiffers;
    assert_eq!(kinds(&|dir| edit(dir, &meta("applied_sum", 7))), [(differs, Some(3), None)]);
    assert_eq!(kinds(&|dir| edit(dir, &meta("applied_seq", 9))), alone(differs));
    let behind = |dir: &Path| {
        let sum = "(SELECT value FROM synclog_meta WHERE name = 'applied_sum')";
        edit(dir, &format!("DELETE FROM sync_logs WHERE id > 1; {}", meta("applied_seq", 1)));
        edit(dir, &format!("UPDATE synclog_meta SET value = {sum} WHERE name = 'nothing'"));
    };
    // The checksum kept there is that of event 3 still.
    assert_eq!(kinds(&behind), [(differs, Some(1), None), (FindingKind::RowMissing, Some(2), Some(3))]);
}

/// Beside a writer, rows that are still to come are no difference.
#[test]
fn rows_still_to_come_are_lag() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    filled(dir, 3);
    let options = Options::default().projection_wait(Duration::from_millis(1));
    let store = Store::open(dir, options).unwrap();
    let holder = crate::projection::open_existing(&dir.join("synclog.db"), Duration::ZERO).unwrap();
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    for number in 4..=5 {
        assert!(!store.append(event(number)).unwrap().projected);
    }
    // A reader is shown what is proved: the mark of the idle log proves the last event.
    let (mut found, mut findings) = verify(dir, false);
    while found.last_seq < 5 {
        std::thread::sleep(Duration::from_millis(5));
        (found, findings) = verify(dir, false);
    }
    assert_eq!((found.lag, found.differences, found.rows, found.applied_seq), (2, 0, 3, 3));
    assert_eq!(told(&findings), [(FindingKind::Lag, Some(4), Some(5), None)]);
    assert!(found.is_sound());
    holder.execute_batch("ROLLBACK").unwrap();
    assert!(store.wait_projected(Duration::from_secs(30)));
    assert_eq!(verify(dir, false).1, Vec::new(), "beside a writer that owes nothing");
    store.close().unwrap();
    assert_eq!(verify(dir, false).1, Vec::new());
}

/// Rows that are newer than the log are told once, as what they are.
#[test]
fn rows_beyond_the_log_are_told_once() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    filled(dir, 3);
    let segment = dir.join("log/00000000000000000001.seg");
    let old = std::fs::read(&segment).unwrap();
    let store = Store::open(dir, Options::default()).unwrap();
    assert!(store.append(event(4)).unwrap().projected);
    store.close().unwrap();
    std::fs::write(&segment, old).unwrap();
    std::fs::remove_file(dir.join("tail")).unwrap();
    let (found, findings) = verify(dir, false);
    assert_eq!(told(&findings), [(FindingKind::AppliedBeyondLog, Some(4), None, None)]);
    assert_eq!((found.log_damaged, found.differences, found.applied_seq, found.last_seq), (1, 0, 4, 3));
}

/// A caller who makes the rows of a large batch itself stops when its time is over; the thread goes on.
#[test]
fn a_large_batch_waits_for_its_rows_no_longer_than_a_small_one() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::default().projection_wait(Duration::from_millis(1));
    let store = Store::open(dir.path(), options).unwrap();
    let receipts = store.append_all((1..=20_000).map(event)).unwrap();
    assert!(!receipts.last().unwrap().projected);
    assert!(store.wait_projected(Duration::from_mins(1)));
    store.close().unwrap();
    assert_eq!(verify(dir.path(), false).1, Vec::new());
}

/// The rows that a reader makes for itself where the database cannot be opened.
#[test]
fn a_private_copy_has_every_row() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), COUNT);
    let view = LogView::open(LogDir::new(Arc::new(RealDisk), dir.path()), None, false).unwrap().unwrap();
    let schema = crate::projection::schema::Schema::new(&SyncEvent::TABLE).unwrap();
    let db = crate::projection::Projection::temporary(&schema, view.store).unwrap();
    assert_eq!(replay::fill::<SyncEvent>(&db, &schema, &view).unwrap().seq, COUNT);
    let sql = "SELECT count(*), min(id), max(id) FROM sync_logs";
    let found = db.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
    assert_eq!(found, (COUNT as i64, 1, COUNT as i64));
}

/// Events of another type than the sync history's, as programs of two ages know them.
#[derive(Clone, Debug, PartialEq)]
struct Note<const VERSION: u16>(i64);

impl<const KNOWN: u16> Event for Note<KNOWN> {
    const KIND: u16 = 900;
    const VERSION: u16 = KNOWN;
    const TABLE: Table =
        Table { name: "notes", columns: &[Column::required("number", ColumnType::Integer)], indexes: &[] };

    fn prepare(&mut self, _now: crate::Timestamp) -> crate::Result<()> {
        Ok(())
    }

    fn encode(&self, _version: u16) -> crate::Result<Vec<u8>> {
        Ok(self.0.to_le_bytes().to_vec())
    }

    fn decode(_version: u16, payload: &[u8]) -> crate::Result<Self> {
        let number = payload.try_into().map_err(|_| crate::Error::codec("not eight bytes"))?;
        Ok(Self(i64::from_le_bytes(number)))
    }

    fn to_row(&self) -> Vec<Value> {
        vec![Value::Integer(self.0)]
    }

    fn from_row(row: &[Value]) -> crate::Result<Self> {
        match row {
            [Value::Integer(number)] => Ok(Self(*number)),
            _ => Err(crate::Error::codec("not a note")),
        }
    }
}

/// An event of a type that this program does not know has no row, and a row in its place is a stranger.
#[test]
fn a_row_in_the_place_of_an_unknown_event_is_told_and_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let newer = Store::<Note<2>>::open(dir, Options::default()).unwrap();
    newer.append_all([Note(10), Note(20), Note(30)]).unwrap();
    newer.close().unwrap();
    crate::disk::remove_if_there(&dir.join("synclog.db")).unwrap();
    let store = Store::<Note<1>>::open(dir, Options::default()).unwrap();
    store.append_all([Note(40), Note(50)]).unwrap();
    store.close().unwrap();
    let verify = || {
        let mut findings = Vec::new();
        let summary = Reader::<Note<1>>::verify(dir, false, |finding| findings.push(finding)).unwrap();
        assert_eq!((summary.events, summary.rows), (5, 2));
        findings.retain(|finding| finding.kind != FindingKind::UnknownEvent);
        findings.iter().map(|finding| (finding.kind, finding.seq)).collect::<Vec<_>>()
    };
    assert_eq!(verify(), []);
    edit(
        dir,
        "CREATE TEMP TABLE strange AS SELECT * FROM notes WHERE id = 4;
         UPDATE strange SET id = 2; INSERT INTO notes SELECT * FROM strange;
         UPDATE strange SET id = 3; INSERT INTO notes SELECT * FROM strange;",
    );
    assert_eq!(verify(), [(FindingKind::RowUnknown, Some(2)), (FindingKind::RowUnknown, Some(3))]);
    let report = Store::<Note<1>>::replay(dir, Options::default(), false).unwrap().0;
    assert_eq!((report.set_aside, report.restored, report.already_present), (2, 0, 2));
    assert_eq!(verify(), []);
}

/// The table is the same, so nothing else tells that there is more to read now.
#[test]
fn what_an_older_program_passed_over_gets_its_rows_from_a_newer_one() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let append = |store: Store<Note<2>>, count: i64| {
        store.append_all((0..count).map(Note)).unwrap();
        store.close().unwrap();
    };
    let sound = || {
        let mut findings = Vec::new();
        let summary = Reader::<Note<2>>::verify(dir, false, |finding| findings.push(finding)).unwrap();
        assert!(findings.is_empty(), "{findings:?}");
        summary.rows
    };
    let newer = || Store::<Note<2>>::open(dir, Options::default()).unwrap();
    append(newer(), 100);
    for without_database in [false, true] {
        // Its rows are made by the older program, in part or all of them.
        if without_database {
            crate::disk::remove_if_there(&dir.join("synclog.db")).unwrap();
        } else {
            append(Store::open(dir, Options::default().projection(false)).unwrap(), 100);
        }
        let older = Store::<Note<1>>::open(dir, Options::default()).unwrap();
        older.append(Note(7)).unwrap();
        older.close().unwrap();
        let store = newer();
        assert!(store.wait_projected(std::time::Duration::from_mins(1)));
        let told = store.open_report().findings.clone();
        assert!(told.iter().any(|found| found.kind == FindingKind::TablesUpgraded), "{told:?}");
        store.close().unwrap();
        assert_eq!(sound(), if without_database { 202 } else { 201 });
        // Once.
        let store = newer();
        assert_eq!(store.open_report().findings, []);
        store.close().unwrap();
    }
}

/// Events that were given up have no row, and the database says why.
#[test]
fn rows_of_lost_events_are_absent_and_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    filled(dir, 9);
    crate::disk::remove_if_there(&dir.join("synclog.db")).unwrap();
    let log = LogDir::new(Arc::new(RealDisk), dir);
    let path = log.segment_path(1);
    let mut bytes = crate::disk::read_small(&path, 1 << 24).unwrap();
    let at = bytes.windows(7).position(|window| window == b"event 5").unwrap();
    bytes[at] ^= 1;
    crate::disk::replace_small(&path, &bytes).unwrap();
    assert_eq!(Store::<SyncEvent>::accept_loss(dir, Options::default(), 1).unwrap().acceptable, None);
    Store::<SyncEvent>::open(dir, Options::default()).unwrap().close().unwrap();
    let absent = |dir: &Path| {
        let db = crate::projection::open_existing(&dir.join("synclog.db"), Duration::ZERO).unwrap();
        let sql = "SELECT first || ' ' || last || ' ' || reason FROM synclog_absent ORDER BY first";
        let mut query = db.prepare(sql).unwrap();
        query.query_map([], |row| row.get::<_, String>(0)).unwrap().map(Result::unwrap).collect::<Vec<_>>()
    };
    assert_eq!(absent(dir), ["5 5 lost"]);
    let (summary, findings) = verify(dir, false);
    assert_eq!((summary.events, summary.rows, summary.applied_seq), (8, 8, 9));
    assert_eq!(told(&findings), [(FindingKind::AcceptedLoss, Some(5), None, None)]);
    replay(dir, true);
    assert_eq!(absent(dir), ["5 5 lost"]);
}

/// The sizes of the stretches of a log, and the lengths of its payloads.
fn stretches<E: Event>(dir: &Path) -> (Vec<u64>, Vec<usize>) {
    let view = LogView::open(LogDir::new(Arc::new(RealDisk), dir), None, false).unwrap().unwrap();
    let (mut cursor, _) = view.cursor(1).unwrap();
    let mut sizes = Vec::new();
    while let Some(stretch) = replay::gather::<E>(&mut cursor).unwrap() {
        sizes.push(stretch.events);
    }
    let (mut cursor, _) = view.cursor(1).unwrap();
    let mut lens = Vec::new();
    while let Some(entry) = cursor.next().unwrap() {
        if let Entry::Event { payload, .. } = entry {
            lens.push(payload.len());
        }
    }
    (sizes, lens)
}

/// Entries without rows fill a stretch as well.
#[test]
fn a_stretch_of_unknown_events_ends() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 2100);
    assert_eq!(stretches::<Note<1>>(dir.path()).0, [2048, 52]);
}

/// A stretch that has its bytes exactly is full.
#[test]
fn a_stretch_of_a_mebibyte_is_full() {
    let sizes = |len: usize| {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), Options::default().projection(false)).unwrap();
        for _ in 0..5 {
            store.append(event(7).with_details("d".repeat(len))).unwrap();
        }
        store.close().unwrap();
        stretches::<SyncEvent>(dir.path())
    };
    let quarter = 256 * 1024;
    let (_, lens) = sizes(quarter);
    let beside = lens[0] - quarter;
    let (stretches, lens) = sizes(quarter - beside);
    assert_eq!(lens, [quarter; 5]);
    assert_eq!(stretches, [4, 1]);
}

/// A stretch of the log is at most so many rows, or so many bytes.
#[test]
fn memory_is_one_step() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Options::default()).unwrap();
    store.append_all((1..=700).map(event)).unwrap();
    for number in 1..=9 {
        store.append(event(number).with_details("d".repeat(300 * 1024))).unwrap();
    }
    store.close().unwrap();
    let view = LogView::open(LogDir::new(Arc::new(RealDisk), dir.path()), None, false).unwrap().unwrap();
    let (mut cursor, _) = view.cursor(1).unwrap();
    let mut sizes = Vec::new();
    while let Some(stretch) = replay::gather::<SyncEvent>(&mut cursor).unwrap() {
        assert_eq!(stretch.step.rows.len() as u64, stretch.events);
        sizes.push(stretch.events);
    }
    assert_eq!(sizes, [512, 188 + 4, 4, 1]);
}

#[test]
fn a_report_that_changed_anything_says_so() {
    assert!(ReplayReport { already_present: 9, ..ReplayReport::default() }.changed_nothing());
    let changed = [
        ReplayReport { restored: 1, ..ReplayReport::default() },
        ReplayReport { replaced: 1, ..ReplayReport::default() },
        ReplayReport { set_aside: 1, ..ReplayReport::default() },
        ReplayReport { unhealable: 1, ..ReplayReport::default() },
        ReplayReport { restored: 1, replaced: 1, set_aside: 1, unhealable: 1, ..ReplayReport::default() },
        ReplayReport { rebuilt: true, ..ReplayReport::default() },
    ];
    assert!(changed.iter().all(|report| !report.changed_nothing()));
}

#[test]
fn a_gap_is_told_with_its_events_and_its_time() {
    let seed = Seed::new(StoreId([7; 16]), 1);
    let gap = Gap { events: 4, accepted_at: 1_700_000_000, goes_on: 9 };
    let mut raw = Vec::new();
    frame::encode(&seed, 8192, &Draft::gap(11, gap, 8192, 1, &[]), &mut raw);
    let header = decode_header(&seed, 8192, &raw, 8192, 1 << 20).unwrap();
    let finding = replay::gap_finding(&header);
    assert_eq!(
        (finding.kind, finding.seq, finding.last_seq),
        (FindingKind::AcceptedLoss, Some(11), Some(14))
    );
    assert!(finding.detail.contains("2023-11-14 22:13:20"), "{}", finding.detail);
}
