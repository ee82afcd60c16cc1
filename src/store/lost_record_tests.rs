//! A deletion record that is lost with a part of the log does not bring back what it had deleted (P8). It has no
//! seq and no row: only the database's table of seqs without rows still tells of it.

use std::path::Path;

use crate::finding::{Finding, FindingKind};
use crate::log::frame::FrameKind;
use crate::log::survey::{Chain, frame_at};
use crate::store::RepairReport;
use crate::sync::SyncEvent;

use super::deletion_tests::{GONE, first_rows, log_in, open_and_close, options, put, replay, store};
use super::view_tests::{edit, event};
use super::{Reader, Store};

const LEFT: [i64; 4] = [1, 2, 6, 7];

fn append(dir: &Path, count: u64) {
    let store = Store::open(dir, options()).unwrap();
    let text = |number| {
        let mut event = event(number);
        event.message = format!("later event {number} {}", "y".repeat(500));
        event
    };
    for number in 1..=count {
        store.append(text(number)).unwrap();
    }
    store.close().unwrap();
}

/// 40 events and their deletion record in the newest segment, with so many events behind it.
fn deleted(dir: &Path, behind: u64) {
    store(dir);
    Store::<SyncEvent>::delete(dir, options(), &[GONE]).unwrap();
    if behind > 0 {
        append(dir, behind);
    }
    assert_eq!(first_rows(dir), LEFT);
}

/// Where the first deletion record stands: number of the segment, offset and end.
fn record(dir: &Path) -> (u64, u64, u64) {
    let log = log_in(dir);
    for header in log.list().unwrap().segments {
        let (mut reader, mut chain) = (log.reader(&header).unwrap(), Chain::start_of(&header));
        while let Ok(frame) = frame_at(&mut reader, &chain).unwrap() {
            let after = Chain::after(frame.offset, &frame.header);
            if frame.header.kind == FrameKind::Deletion {
                return (header.number, frame.offset, after.offset);
            }
            chain = after;
        }
    }
    panic!("there is no record");
}

fn repair(dir: &Path, dry_run: bool) -> RepairReport {
    Store::<SyncEvent>::repair(dir, options(), dry_run, false).unwrap()
}

fn recorded(dir: &Path) -> Vec<(u64, u64)> {
    Reader::<SyncEvent>::open(dir).unwrap().deleted().unwrap()
}

/// Whatever becomes of the database, the deleted events stay deleted, and the others are all there.
fn assert_deleted(dir: &Path, last: u64, context: &str) {
    assert_eq!(recorded(dir), [GONE], "P8: {context}");
    open_and_close(dir);
    assert_eq!(first_rows(dir), LEFT, "P8: at the next open, {context}");
    replay(dir, false);
    assert_eq!(first_rows(dir), LEFT, "P8: after a replay, {context}");
    replay(dir, true);
    assert_eq!(first_rows(dir), LEFT, "P8: after a rebuild, {context}");
    std::fs::remove_file(dir.join("synclog.db")).unwrap();
    open_and_close(dir);
    assert_eq!(first_rows(dir), LEFT, "P8: without a database, {context}");
    let mut told = Vec::new();
    Reader::<SyncEvent>::verify(dir, false, |finding| told.push(finding)).unwrap();
    told.retain(|finding| finding.kind != FindingKind::AcceptedLoss);
    assert_eq!(told, [], "{context}");
    assert_eq!(Reader::<SyncEvent>::open(dir).unwrap().last_seq(), last, "{context}");
}

fn tells_of_record(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| (finding.seq, finding.last_seq) == (Some(GONE.0), Some(GONE.1)))
}

#[test]
fn p8_a_newest_segment_made_again_from_rows_forgets_no_deletion() {
    for how in ["removed", "zeros", "noise", "cut before the record", "cut to nothing"] {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        deleted(dir, 0);
        let (segment, start, _) = record(dir);
        let path = log_in(dir).segment_path(segment);
        let bytes = std::fs::read(&path).unwrap();
        match how {
            "removed" => std::fs::remove_file(&path).unwrap(),
            "zeros" => std::fs::write(&path, vec![0; bytes.len()]).unwrap(),
            "noise" => std::fs::write(&path, vec![0xA7; bytes.len()]).unwrap(),
            "cut to nothing" => std::fs::write(&path, []).unwrap(),
            _ => std::fs::write(&path, &bytes[..start as usize]).unwrap(),
        }
        let dry = repair(dir, true);
        assert!(tells_of_record(&dry.findings), "{how}: {:?}", dry.findings);
        let report = repair(dir, false);
        assert_eq!(report.lost, [], "{how}");
        assert!(tells_of_record(&report.findings), "{how}: {:?}", report.findings);
        let cut = report.findings.iter().find(|finding| finding.kind == FindingKind::CutSegment).unwrap();
        assert!(cut.detail.contains("deletion"), "{how}: {cut}");
        assert_deleted(dir, 40, how);
    }
}

/// A lost record in front of an event has moved that event: it is found all the same.
#[test]
fn p8_events_behind_a_lost_record_come_back_and_what_it_deleted_does_not() {
    for (behind, lost) in [(5, 1), (60, 1), (60, 2), (60, 3)] {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        deleted(dir, behind);
        let context = format!("{behind} events behind it, {lost} segments are gone");
        let (segment, ..) = record(dir);
        let segments = log_in(dir).list().unwrap().segments;
        assert_eq!(segments.len() as u64 - segment, if behind > 5 { 2 } else { 0 }, "{context}");
        for header in segments.iter().filter(|header| header.number >= segment).take(lost) {
            std::fs::remove_file(log_in(dir).segment_path(header.number)).unwrap();
        }
        let report = repair(dir, false);
        // The record left a hole that no row fills, and that is told.
        assert!(report.lost.iter().all(|finding| finding.seq.is_none()), "{context}: {:?}", report.lost);
        assert_eq!((report.lost.len(), report.acceptable), (1, Some(0)), "{context}: {:?}", report.lost);
        assert!(report.lost[0].detail.contains("deletion"), "{context}: {}", report.lost[0]);
        assert_eq!(first_rows(dir), LEFT, "P8: before it is accepted, {context}");
        let report = Store::<SyncEvent>::accept_loss(dir, options(), 0).unwrap();
        assert_eq!(report.lost, [], "{context}");
        assert_deleted(dir, 40 + behind, &context);
    }
}

/// Bytes of the record are damaged in their place: nothing is brought back while that is so, nor when it is given
/// up.
#[test]
fn p8_a_damaged_record_does_not_bring_back_what_it_deleted() {
    for (behind, at) in [(0, 0), (0, 60), (5, 0), (5, 60), (60, 0), (60, 60), (1500, 60)] {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        deleted(dir, behind);
        let context = format!("{behind} events behind it, byte {at}");
        let (segment, start, _) = record(dir);
        put(dir, segment, start + at, &[0xEE; 8]);
        let opened = Store::<SyncEvent>::open(dir, options()).map(Store::close);
        assert_eq!(opened.is_ok(), behind > 1000, "what is far back is not read: {context}");
        assert_eq!(first_rows(dir), LEFT, "P8: at the next open, {context}");
        assert!(Store::<SyncEvent>::replay(dir, options(), false).is_err(), "{context}");
        assert_eq!(first_rows(dir), LEFT, "P8: after a replay, {context}");
        assert!(Store::<SyncEvent>::replay(dir, options(), true).is_err(), "{context}");
        assert_eq!(first_rows(dir), LEFT, "P8: after a rebuild, {context}");
        let mut told = Vec::new();
        Reader::<SyncEvent>::verify(dir, false, |finding| told.push(finding.kind)).unwrap();
        assert_eq!(told, [FindingKind::DamagedFrame], "what is deleted lacks no row: {context}");
        let report = repair(dir, false);
        assert_eq!((report.lost.len(), report.acceptable), (1, Some(0)), "{context}: {:?}", report.lost);
        let report = Store::<SyncEvent>::accept_loss(dir, options(), 0).unwrap();
        assert_eq!(report.lost, [], "{context}");
        assert_deleted(dir, 40 + behind, &context);
    }
}

/// A record that was the last frame of its segment: no row of the segment leads to the next one, so all of them are
/// named. A cut that goes through the record itself leaves bytes of which nothing tells what they were.
#[test]
fn p8_what_is_given_up_around_a_record_does_not_bring_back_what_it_deleted() {
    for cut in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        deleted(dir, 0);
        let (segment, start, _) = record(dir);
        let path = log_in(dir).segment_path(segment);
        if cut {
            let bytes = std::fs::read(&path).unwrap();
            std::fs::write(&path, &bytes[..start as usize + 8]).unwrap();
        } else {
            let store = Store::open(dir, options()).unwrap();
            let large = event(41).with_details("x".repeat(30_000));
            assert_eq!(store.append(large).unwrap().seq, 41);
            store.close().unwrap();
            std::fs::remove_file(path).unwrap();
        }
        let report = repair(dir, false);
        assert!(tells_of_record(&report.findings), "cut {cut}: {:?}", report.findings);
        let events = report.acceptable.unwrap();
        assert_eq!(events, if cut { 1 } else { 27 }, "{:?}", report.lost);
        assert_eq!(first_rows(dir), LEFT, "P8: before it is accepted, cut {cut}");
        let report = Store::<SyncEvent>::accept_loss(dir, options(), events).unwrap();
        assert_eq!((report.given_up, report.lost), (events, vec![]), "cut {cut}");
        assert_deleted(dir, 41, &format!("cut {cut}"));
    }
}

/// What the database says without a loss behind it in the log is not believed, also where something else is given up
/// or the log alone is trusted: it is named.
#[test]
fn p7_no_loss_makes_the_database_believed_about_what_lies_behind_it() {
    for trust_log in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        deleted(dir, 5);
        let (segment, start, _) = record(dir);
        if trust_log {
            std::fs::remove_file(log_in(dir).segment_path(segment)).unwrap();
            let report = Store::<SyncEvent>::repair(dir, options(), false, true).unwrap();
            assert_eq!(report.lost, []);
            let unproved = |finding: &&Finding| finding.kind == FindingKind::AbsenceUnproved;
            let told: Vec<_> = report.findings.into_iter().filter(|finding| unproved(&finding)).collect();
            assert!(tells_of_record(&told), "{told:?}");
            assert_eq!(first_rows(dir), [1, 2, 3, 4, 5, 6, 7]);
            continue;
        }
        put(dir, segment, start, &[0xEE; 8]);
        edit(
            dir,
            "DELETE FROM sync_logs WHERE id IN (7, 43); INSERT INTO synclog_absent VALUES (43, 43, 'deleted')",
        );
        let report = Store::<SyncEvent>::accept_loss(dir, options(), 0).unwrap();
        assert_eq!(report.lost, []);
        assert_deleted(dir, 45, "another event was hidden behind the loss");
    }
}

/// An older copy of the database, from before the deletion, does not speak for a newer one.
#[test]
fn p8_a_database_that_knows_of_the_deletion_is_heard_behind_one_that_does_not() {
    use crate::log::heal::Donor;
    use crate::projection::{Connection, schema::Schema};
    use crate::replay::RowDonor;

    let dir = tempfile::tempdir().unwrap();
    store(dir.path());
    let (newer, older) = (dir.path().join("synclog.db"), dir.path().join("older.db"));
    std::fs::copy(&newer, &older).unwrap();
    Store::<SyncEvent>::delete(dir.path(), options(), &[GONE]).unwrap();
    let schema = Schema::of::<SyncEvent>().unwrap();
    let dbs = [older, newer]
        .map(|path| crate::projection::open_for_reading(&path, std::time::Duration::ZERO).unwrap());
    let said = |dbs: [&Connection; 2]| RowDonor::<SyncEvent>::of(dbs, &schema).deleted(40).unwrap();
    assert_eq!(said([&dbs[0], &dbs[1]]), [GONE]);
    assert_eq!(said([&dbs[1], &dbs[0]]), [GONE]);
}

/// Damage that takes the record takes what ties the events behind it to the log. Their rows are there all the same,
/// whatever the database says that it has applied.
#[test]
fn p3_rows_behind_a_lost_record_forbid_appends_without_an_applied_seq() {
    for edit_of_meta in [
        "UPDATE synclog_meta SET value = 40 WHERE name = 'applied_seq'",
        "DELETE FROM synclog_meta WHERE name IN ('applied_seq', 'applied_sum')",
        "UPDATE synclog_meta SET value = 'x' WHERE name = 'applied_seq'",
        "DROP TABLE synclog_meta",
        "DELETE FROM synclog_meta WHERE name = 'store_id'",
        "DELETE FROM sync_logs WHERE id = 43; ALTER TABLE sync_logs ADD COLUMN theirs",
    ] {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        deleted(dir, 3);
        std::fs::remove_file(dir.join("tail")).unwrap();
        let (number, at, _) = record(dir);
        let path = log_in(dir).segment_path(number);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[at as usize..].fill(0);
        std::fs::write(&path, bytes).unwrap();
        edit(dir, edit_of_meta);
        let error = match Store::<SyncEvent>::open(dir, options()) {
            Err(error) => error,
            Ok(store) => panic!("P3: {edit_of_meta}: opened, {:?}", store.open_report()),
        };
        assert!(
            matches!(&error, crate::Error::Damaged { findings, .. } if findings[0].seq == Some(41)),
            "{error}"
        );
    }
}
