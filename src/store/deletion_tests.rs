//! Deletion is history (P8). Nothing writes deletion records yet, so these put one into the log by
//! hand, and hold every reader of the log to it.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use crate::disk::RealDisk;
use crate::finding::FindingKind;
use crate::log::cursor::Entry;
use crate::log::deletion::{self, Deletion, Reason};
use crate::log::directory::LogDir;
use crate::log::frame::{self, Draft, FrameKind, HEADER_LEN, Seed, body_of};
use crate::log::survey::survey;
use crate::log::view::LogView;
use crate::sync::{Company, ExportLine, ImportOptions, Level, SyncEvent, SyncLog};

use super::view_tests::{edit, event};
use super::{Options, Reader, Store};

/// The events that go: all in the first segment.
pub(super) const GONE: (u64, u64) = (3, 5);

pub(super) fn options() -> Options {
    Options::default().segment_bytes(16 * 1024, 32 * 1024)
}

pub(super) fn log_in(dir: &Path) -> LogDir {
    LogDir::new(Arc::new(RealDisk), dir)
}

/// A closed store of several segments.
pub(super) fn store(dir: &Path) {
    let log = SyncLog::open_with(dir, options()).unwrap();
    for number in 1..=40 {
        let text = format!("event {number} {}", "x".repeat(500));
        let event = SyncEvent::new(Company::new("g", "a", "n"), Level::Info, text);
        assert_eq!(log.append(event).unwrap().seq, number);
    }
    assert!(log.store().wait_projected(std::time::Duration::from_secs(20)));
    log.close().unwrap();
}

/// Writes bytes into a segment behind the library's back.
pub(super) fn put(dir: &Path, segment: u64, offset: u64, bytes: &[u8]) {
    let path = log_in(dir).segment_path(segment);
    std::fs::OpenOptions::new().write(true).open(path).unwrap().write_all_at(bytes, offset).unwrap();
}

/// Adds a record to the end of the log that deletes the events of [`GONE`].
fn record_deletion(dir: &Path) {
    record_deletion_of(dir, vec![GONE]);
}

fn record_deletion_of(dir: &Path, ranges: Vec<(u64, u64)>) {
    let log = log_in(dir);
    let active = *log.list().unwrap().segments.last().unwrap();
    assert!(active.number > 1);
    let end = survey(&mut log.reader(&active).unwrap(), None, None).unwrap().end;
    let record = Deletion { reason: Reason::Erasure, subject: [7; 32], cut_off: i64::MAX, ranges };
    let seed = Seed::new(active.store, active.number);
    let mut bytes = Vec::new();
    let draft = Draft {
        kind: FrameKind::Deletion,
        version: deletion::VERSION,
        appended_at: 1,
        payload: &record.encode(),
        ..Draft::mark(end.offset, end.seq, end.previous)
    };
    let sum = frame::encode(&seed, end.offset, &draft, &mut bytes);
    let behind = end.offset + bytes.len() as u64;
    frame::encode(&seed, behind, &Draft::mark(behind, end.seq, sum), &mut bytes);
    put(dir, active.number, end.offset, &bytes);
}

/// Takes the payloads of the events of [`GONE`] out of the first segment.
fn erase(dir: &Path) {
    let view = LogView::open(log_in(dir), None, false).unwrap().unwrap();
    let header = view.segments.headers[0];
    assert!(view.segments.headers[1].first_seq > GONE.1);
    let mut reader = view.log.reader(&header).unwrap();
    let mut chain = crate::log::survey::Chain::start_of(&header);
    while chain.seq <= GONE.1 {
        let found = crate::log::survey::frame_at(&mut reader, &chain).unwrap().unwrap().header;
        if found.kind == FrameKind::Event && found.seq >= GONE.0 {
            let zeros = body_of(&vec![0; found.payload_len as usize]);
            put(dir, 1, chain.offset + HEADER_LEN as u64, &zeros);
        }
        chain = crate::log::survey::Chain::after(chain.offset, &found);
    }
}

/// The ids of the rows from 1 to 7.
pub(super) fn first_rows(dir: &Path) -> Vec<i64> {
    let db = rusqlite::Connection::open(dir.join("synclog.db")).unwrap();
    let mut query = db.prepare("SELECT id FROM sync_logs WHERE id <= 7 ORDER BY id").unwrap();
    query.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

pub(super) fn open_and_close(dir: &Path) {
    Store::<SyncEvent>::open(dir, options()).unwrap().close().unwrap();
}

pub(super) fn replay(dir: &Path, rebuild: bool) {
    Store::<SyncEvent>::replay(dir, options(), rebuild).unwrap();
}

/// Whatever becomes of the database, the rows of deleted events do not come back.
#[test]
fn p8_replay_and_rebuild_obey_a_deletion() {
    for erased in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        store(dir);
        let older = std::fs::read(dir.join("synclog.db")).unwrap();
        record_deletion(dir);
        if erased {
            erase(dir);
        }
        let left = [1, 2, 6, 7];
        open_and_close(dir);
        assert_eq!(first_rows(dir), left, "P8: at the next open, erased {erased}");
        replay(dir, false);
        assert_eq!(first_rows(dir), left, "P8: after a replay, erased {erased}");
        replay(dir, true);
        assert_eq!(first_rows(dir), left, "P8: after a rebuild, erased {erased}");
        std::fs::remove_file(dir.join("synclog.db")).unwrap();
        open_and_close(dir);
        assert_eq!(first_rows(dir), left, "P8: without a database, erased {erased}");
        std::fs::write(dir.join("synclog.db"), &older).unwrap();
        replay(dir, false);
        assert_eq!(first_rows(dir), left, "P8: with an older copy of it, erased {erased}");
    }
}

/// A place to start from that opening has remembered is never behind a record that the rows have not seen.
#[test]
fn p8_a_record_is_met_however_long_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    store(dir);
    // Events that are far ahead make the record long.
    record_deletion_of(
        dir,
        std::iter::once(GONE).chain((0..80).map(|n| (1000 + 2 * n, 1000 + 2 * n))).collect(),
    );
    open_and_close(dir);
    assert_eq!(first_rows(dir), [1, 2, 6, 7], "P8");
}

/// Rows that could not follow before the log went on in another segment obey the record all the same.
#[test]
fn p8_a_record_that_is_the_last_of_its_segment_is_met() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    store(dir);
    let short = || options().projection_wait(std::time::Duration::from_millis(50));
    let db = rusqlite::Connection::open(dir.join("synclog.db")).unwrap();
    db.execute_batch("BEGIN IMMEDIATE").unwrap();
    Store::<SyncEvent>::delete(dir, short(), &[GONE]).unwrap();
    let before = log_in(dir).list().unwrap().segments.len();
    let log = SyncLog::open_with(dir, short()).unwrap();
    let large = SyncEvent::new(Company::new("g", "a", "n"), Level::Info, "large");
    assert_eq!(log.append(large.with_details("x".repeat(30_000))).unwrap().seq, 41);
    log.close().unwrap();
    let segments = log_in(dir).list().unwrap().segments;
    assert_eq!((segments.len(), segments[before].first_seq), (before + 1, 41), "behind the record");
    db.execute_batch("ROLLBACK").unwrap();
    drop(db);
    open_and_close(dir);
    assert_eq!(first_rows(dir), [1, 2, 6, 7], "P8");
}

/// What opening looks at again are rows of events, not of deleted ones, wherever the record is by then.
#[test]
fn p8_opening_does_not_bring_back_recent_rows() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    store(dir);
    record_deletion(dir);
    replay(dir, false);
    let segments = || log_in(dir).list().unwrap().segments.len();
    let before = segments();
    for seq in 41.. {
        let log = SyncLog::open_with(dir, options()).unwrap();
        let event = SyncEvent::new(Company::new("g", "a", "n"), Level::Info, "x".repeat(500));
        assert_eq!(log.append(event).unwrap().seq, seq);
        log.close().unwrap();
        assert_eq!(first_rows(dir), [1, 2, 6, 7], "P8: opened with {seq} events");
        if segments() > before {
            break;
        }
    }
    open_and_close(dir);
    assert_eq!(first_rows(dir), [1, 2, 6, 7], "P8: the record is in a sealed segment");
    replay(dir, false);
    assert_eq!(first_rows(dir), [1, 2, 6, 7], "P8: after a replay");
}

/// Rows that a step makes and takes away again are not taken for missing when it is read back.
#[test]
fn p8_catching_up_obeys_a_record_of_its_own_step() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    open_and_close(dir);
    let older = std::fs::read(dir.join("synclog.db")).unwrap();
    store(dir);
    record_deletion(dir);
    std::fs::write(dir.join("synclog.db"), &older).unwrap();
    open_and_close(dir);
    assert_eq!(first_rows(dir), [1, 2, 6, 7], "P8");
}

/// Mending a lost row leaves its neighbours alone, though the record that took them is far ahead.
#[test]
fn p8_mending_does_not_bring_back_neighbours() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    store(dir);
    let more = Store::open(dir, options()).unwrap();
    more.append_all((41..=1200).map(event)).unwrap();
    more.close().unwrap();
    record_deletion(dir);
    let more = Store::open(dir, options()).unwrap();
    more.append_all((1201..=1400).map(event)).unwrap();
    more.close().unwrap();
    assert_eq!(first_rows(dir), [1, 2, 6, 7]);
    edit(dir, "DELETE FROM sync_logs WHERE id = 2");
    open_and_close(dir);
    assert_eq!(first_rows(dir), [1, 2, 6, 7], "P7, P8");
}

/// Events whose payload is still there are deleted all the same: rows lack nothing, and what somebody puts back
/// goes again.
#[test]
fn p8_what_is_deleted_and_not_erased_is_no_difference() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    store(dir);
    let older = std::fs::read(dir.join("synclog.db")).unwrap();
    Store::<SyncEvent>::delete(dir, options(), &[GONE, (7, 7)]).unwrap();
    assert_eq!(first_rows(dir), [1, 2, 6], "P8");
    assert_eq!(Reader::<SyncEvent>::open(dir).unwrap().deleted().unwrap(), [GONE, (7, 7)]);
    let verify = || {
        let mut told = Vec::new();
        Reader::<SyncEvent>::verify(dir, false, |finding| told.push((finding.kind, finding.seq))).unwrap();
        told
    };
    assert_eq!(verify(), []);
    for rebuild in [false, true] {
        let report = Store::<SyncEvent>::replay(dir, options(), rebuild).unwrap().0;
        assert!(rebuild || report.changed_nothing(), "{report:?}");
        assert_eq!((first_rows(dir), verify()), (vec![1, 2, 6], vec![]));
    }
    std::fs::write(dir.join("synclog.db"), &older).unwrap();
    let told = [3, 4, 5, 7].map(|seq| (FindingKind::RowUnknown, Some(seq)));
    assert_eq!(verify(), told, "rows of deleted events");
    replay(dir, false);
    assert_eq!((first_rows(dir), verify()), (vec![1, 2, 6], vec![]));
    let store = Store::open(dir, options()).unwrap();
    assert_eq!(store.append(event(41)).unwrap().seq, 41, "a record uses no seq up");
    store.close().unwrap();
    assert_eq!(verify(), []);
}

fn export_to(path: &Path, dir: &Path) {
    let reader = Reader::<SyncEvent>::open(dir).unwrap();
    let mut lines = String::new();
    for item in reader.items(1).unwrap() {
        let super::Item::Event(stored) = item.unwrap() else { panic!("damage") };
        let key = stored.key.as_deref();
        let line = ExportLine::new(stored.seq, reader.id(), &stored.event, key, stored.appended_at);
        lines += &(serde_json::to_string(&line).unwrap() + "\n");
    }
    std::fs::write(path, lines).unwrap();
}

/// Our own export, taken before the deletion, does not bring the events back.
#[test]
fn p8_an_import_obeys_a_deletion() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, export) = (&temp.path().join("store"), temp.path().join("export.ndjson"));
    store(dir);
    export_to(&export, dir);
    record_deletion(dir);
    erase(dir);
    let log = SyncLog::open_with(dir, options()).unwrap();
    for _ in 0..2 {
        let report = log.import(&export, &ImportOptions::default()).unwrap();
        assert_eq!((report.imported, report.deleted, report.already_present), (0, 3, 37), "P8");
    }
    assert_eq!(log.store().last_seq(), 40);
    log.close().unwrap();
}

/// What was deleted follows from the log: an import obeys it whatever became of the database.
#[test]
fn p8_an_import_does_not_take_an_unreadable_database_for_no_deletions() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, export) = (&temp.path().join("store"), temp.path().join("export.ndjson"));
    store(dir);
    export_to(&export, dir);
    record_deletion(dir);
    erase(dir);
    let log = SyncLog::open_with(dir, options()).unwrap();
    assert!(log.store().wait_projected(std::time::Duration::from_secs(20)));
    edit(dir, "DROP TABLE synclog_absent");
    let report = log.import(&export, &ImportOptions::default()).unwrap();
    assert_eq!((report.imported, report.deleted, report.already_present), (0, 3, 37), "P8");
    assert_eq!(log.store().last_seq(), 40);
}

/// A payload of zeros is lawful under a record, and damage without one.
#[test]
fn p8_erased_means_recorded() {
    for recorded in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        store(dir);
        if recorded {
            record_deletion(dir);
        }
        erase(dir);
        let (mut events, mut damage) = (Vec::new(), Vec::new());
        let reader = Reader::<SyncEvent>::open(dir).unwrap();
        for item in reader.items(1).unwrap() {
            match item.unwrap() {
                super::Item::Event(stored) => events.push(stored.seq),
                super::Item::Damage(finding) => damage.push(finding),
                super::Item::Unknown(finding) | super::Item::Lost(finding) => panic!("{finding}"),
            }
        }
        assert_eq!(events.len(), 37);
        let named: Vec<_> =
            damage.iter().map(|finding| (finding.kind, finding.seq, finding.last_seq)).collect();
        let wanted = (FindingKind::DamagedFrame, Some(GONE.0), Some(GONE.1));
        assert_eq!(named, if recorded { vec![] } else { vec![wanted] }, "P3, P8");
        for log_only in [true, false] {
            let mut told = Vec::new();
            let summary =
                Reader::<SyncEvent>::verify(dir, log_only, |finding| told.push(finding.kind)).unwrap();
            assert_eq!(told.contains(&FindingKind::DamagedFrame), !recorded, "P3, P8: {told:?}");
            assert_eq!(summary.events, 40, "erased events are events");
        }
    }
}

/// A row of an erased event that somebody puts back is told, and taken away again: not set aside, for it was
/// erased.
#[test]
fn p8_a_row_of_an_erased_event_is_told_and_goes() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    store(dir);
    record_deletion(dir);
    erase(dir);
    // Behind the record, so that catching up with the log does not meet it again.
    let store = Store::open(dir, options()).unwrap();
    store.append(event(41)).unwrap();
    store.close().unwrap();
    let verify = || {
        let mut told = Vec::new();
        Reader::<SyncEvent>::verify(dir, false, |finding| told.push((finding.kind, finding.seq))).unwrap();
        told
    };
    assert_eq!(verify(), []);
    let db = rusqlite::Connection::open(dir.join("synclog.db")).unwrap();
    db.execute_batch(
        "CREATE TEMP TABLE strange AS SELECT * FROM sync_logs WHERE id = 2;
         UPDATE strange SET id = 4; INSERT INTO sync_logs SELECT * FROM strange",
    )
    .unwrap();
    drop(db);
    assert_eq!(verify(), [(FindingKind::RowUnknown, Some(4))]);
    let report = Store::<SyncEvent>::replay(dir, options(), false).unwrap().0;
    assert_eq!(report.set_aside, 0);
    assert_eq!(first_rows(dir), [1, 2, 6, 7]);
    assert_eq!(verify(), []);
}

/// All that a log says, to see that a test's own writing is in its chain.
#[test]
fn the_record_stands_in_the_chain() {
    let dir = tempfile::tempdir().unwrap();
    store(dir.path());
    record_deletion(dir.path());
    let view = LogView::open(log_in(dir.path()), None, false).unwrap().unwrap();
    assert!(view.findings.is_empty(), "{:?}", view.findings);
    let (mut cursor, _) = view.cursor(1).unwrap();
    let mut records = 0;
    while let Some(entry) = cursor.next().unwrap() {
        match entry {
            Entry::Deletion { payload } => {
                assert_eq!(Deletion::decode(payload).unwrap().ranges, [GONE]);
                records += 1;
            }
            Entry::Damage(finding) => panic!("{finding}"),
            _ => {}
        }
    }
    assert_eq!(records, 1);
}
