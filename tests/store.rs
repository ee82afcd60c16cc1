//! The store through its public surface: batches, keys, threads, damage, reading without writing.

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{
    assert_rows_equal_log, company, copy_dir, database, filled, full_event, messages, open, segments, small,
    snapshot, sql, verify,
};
use synclog::{
    Error, FindingKind, Item, Level, Options, Outcome, Reader, Status, Store, SyncEvent, SyncLog, SyncReader,
    Timestamp,
};

type SyncStore = Store<SyncEvent>;

#[test]
fn former_names_and_runs_record_what_they_say() {
    let dir = tempfile::tempdir().unwrap();
    let log = SyncLog::open(dir.path()).unwrap();
    let acme = company();
    log.log(&acme, Level::Info, "one").unwrap();
    log.info(&acme, "two").unwrap();
    log.warning(&acme, "three").unwrap();
    log.error(&acme, "four", "E4", "text").unwrap();
    log.success(&acme, "five").unwrap();
    log.sync_started(&acme).unwrap();
    log.sync_progress(&acme, 100, "100 vouchers inserted").unwrap();
    log.sync_completed(&acme, 100, 0.75).unwrap();
    // Without a start of its own it would be a further end of the run before.
    log.sync_started(&acme).unwrap();
    log.sync_failed(&acme, "FETCH_ERROR", "timeout").unwrap();
    let run = log.start_run(&acme).unwrap();
    run.progress(5, "five").unwrap();
    run.fail("X", "broken").unwrap();
    log.start_run(&acme).unwrap().complete(7).unwrap();
    log.start_run(&acme).unwrap();

    let reader = log.reader().unwrap();
    let all = reader.list(&synclog::Filter::new().reverse(true)).unwrap();
    let levels: Vec<_> = all.iter().take(10).map(|entry| entry.event.level.as_str()).collect();
    let expected =
        ["INFO", "INFO", "WARNING", "ERROR", "SUCCESS", "INFO", "INFO", "SUCCESS", "INFO", "ERROR"];
    assert_eq!(levels, expected);
    let runs = reader.runs(&synclog::RunFilter::default()).unwrap();
    let states: Vec<_> = runs.iter().map(|run| run.state.as_str()).collect();
    assert_eq!(states, ["ok", "failed", "failed", "ok", "open"]);
    assert_eq!(runs[2].run.as_deref(), Some(run.id()));
    assert_eq!((runs[2].events, runs[2].error_code.as_deref()), (3, Some("X")));
    assert_eq!(reader.count(&synclog::Filter::new().status(Status::Failed)).unwrap(), 2);
    assert_eq!(reader.count(&synclog::Filter::new().text("BROKEN")).unwrap(), 1);
    log.close().unwrap();
}

#[test]
fn bad_events_are_refused_before_a_byte_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.append(full_event(1)).unwrap();
    std::thread::sleep(Duration::from_millis(150));
    let before = std::fs::read(&segments(dir.path())[0]).unwrap();
    let mut cases = Vec::new();
    for (field, change) in [
        ("company_guid", (|event| event.company.guid.clear()) as fn(&mut SyncEvent)),
        ("company_alterid", |event| event.company.alterid = " \t".into()),
        ("company_name", |event| event.company.name.clear()),
        ("log_message", |event| event.message.clear()),
        ("duration_seconds", |event| event.duration_seconds = Some(f64::NAN)),
        ("duration_seconds", |event| event.duration_seconds = Some(f64::INFINITY)),
        ("run", |event| event.run = Some(String::new())),
    ] {
        let mut event = full_event(2);
        change(&mut event);
        cases.push((field, event));
    }
    for (field, event) in cases {
        let error = store.append(event).unwrap_err();
        assert!(matches!(&error, Error::Invalid { field: found, .. } if found == field), "{field}: {error}");
        assert_eq!(error.outcome(), Outcome::NotWritten);
    }
    let mut large = full_event(2);
    large.details = Some("x".repeat(2 << 20));
    let error = store.append(large.clone()).unwrap_err();
    assert!(matches!(error, Error::TooLarge { limit: 1_048_576, .. }));
    let mut half = full_event(2);
    half.details = Some("x".repeat(1 << 19));
    let error = store.append_all((0..70).map(|_| half.clone())).unwrap_err();
    assert!(matches!(error, Error::TooLarge { what: "the batch", .. }));
    assert!(matches!(store.append_with_key(full_event(2), ""), Err(Error::Invalid { .. })));
    assert!(matches!(store.append_with_key(full_event(2), &"k".repeat(256)), Err(Error::TooLarge { .. })));
    assert_eq!(std::fs::read(&segments(dir.path())[0]).unwrap(), before, "not a byte was written");
    assert!(store.append_all([]).unwrap().is_empty());
    assert_eq!(store.append(full_event(2)).unwrap().seq, 2);
    store.close().unwrap();

    // The limit is the caller's to raise, and a large batch gets a segment of its size.
    let store = SyncStore::open(dir.path(), small().max_event_bytes(16 << 20)).unwrap();
    assert_eq!(store.append(large.clone()).unwrap().seq, 3);
    assert_eq!(store.append_all((0..60).map(|_| half.clone())).unwrap().len(), 60);
    store.close().unwrap();
    assert!(verify(dir.path()).1);
    let reader = Reader::<SyncEvent>::open(dir.path()).unwrap();
    let Some(Ok(Item::Event(stored))) = reader.items(3).unwrap().next() else { panic!("event 3") };
    assert_eq!(stored.event.details, large.details);
}

#[test]
fn negative_zero_is_made_canonical_and_odd_text_survives() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut event = full_event(1);
    event.duration_seconds = Some(-0.0);
    event.message = "nul \0 escape \u{1b}[31m emoji \u{1F600} rtl \u{202E}".into();
    event.run = Some("a".repeat(4000));
    assert!(store.append(event.clone()).unwrap().projected);
    store.close().unwrap();
    let rows = SyncReader::open(dir.path()).unwrap().list(&synclog::Filter::new()).unwrap();
    assert_eq!(rows[0].event.message, event.message);
    assert_eq!(rows[0].event.duration_seconds.unwrap().to_bits(), 0);
    assert!(verify(dir.path()).1);
}

#[test]
fn keys_repeat_conflict_and_survive_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let first = store.append_with_key(full_event(1), "k1").unwrap();
    assert_eq!(store.append_with_key(full_event(1), "k1").unwrap().seq, first.seq);
    let error = store.append_with_key(full_event(2), "k1").unwrap_err();
    assert!(matches!(&error, Error::KeyConflict { seq: 1, key } if key == "k1"));
    assert_eq!(error.outcome(), Outcome::NotWritten);
    // A time that the store filled in does not make a repeat another event; a given one does.
    let given = full_event(1).at("2026-01-01".parse::<Timestamp>().unwrap());
    assert!(store.append_with_key(given, "k1").is_err());
    let batch = vec![(full_event(2), Some("k2".into())), (full_event(3), Some("k3".into()))];
    assert_eq!(store.submit_keyed(batch.clone()).unwrap().wait().unwrap().len(), 2);
    assert_eq!(store.submit_keyed(batch).unwrap().wait().unwrap()[1].seq, 3);
    let mixed = vec![(full_event(2), Some("k2".into())), (full_event(9), Some("k9".into()))];
    assert!(matches!(store.submit_keyed(mixed).unwrap().wait(), Err(Error::KeyConflict { .. })));
    assert_eq!(store.last_seq(), 3);
    store.close().unwrap();
    std::fs::remove_file(database(dir.path())).unwrap();
    let store = open(dir.path());
    assert_eq!(store.append_with_key(full_event(3), "k3").unwrap().seq, 3, "keys come back with the rows");
    store.close().unwrap();
    assert!(verify(dir.path()).1);
}

#[test]
fn keys_are_looked_up_while_the_database_is_locked_or_refused() {
    let dir = filled(3);
    let hold = rusqlite::Connection::open(database(dir.path())).unwrap();
    hold.execute_batch("BEGIN IMMEDIATE").unwrap();
    let store = open(dir.path());
    assert_eq!(store.append_with_key(full_event(4), "k4").unwrap().seq, 4);
    assert_eq!(store.append_with_key(full_event(4), "k4").unwrap().seq, 4, "durable, no row yet");
    assert!(matches!(store.append_with_key(full_event(5), "k4"), Err(Error::KeyConflict { seq: 4, .. })));
    drop(hold);
    assert!(store.wait_projected(Duration::from_secs(20)));
    assert_eq!(store.append_with_key(full_event(4), "k4").unwrap().seq, 4);
    store.close().unwrap();

    // Rows that lag behind at the open cannot answer.
    let copy = tempfile::tempdir().unwrap();
    copy_dir(dir.path(), copy.path());
    sql(copy.path(), "UPDATE synclog_meta SET value = 0 WHERE name LIKE 'applied%'; DELETE FROM sync_logs");
    let hold = rusqlite::Connection::open(database(copy.path())).unwrap();
    hold.execute_batch("BEGIN IMMEDIATE").unwrap();
    let store = open(copy.path());
    let error = store.append_with_key(full_event(4), "k4").unwrap_err();
    assert!(
        matches!(error, Error::KeysUnavailable { .. })
            && error.outcome() == Outcome::NotWritten
            && error.is_busy()
    );
    assert_eq!(store.append(full_event(5)).unwrap().seq, 5, "without a key it goes on");
    drop(hold);
    assert!(store.wait_projected(Duration::from_secs(20)));
    assert_eq!(store.append_with_key(full_event(4), "k4").unwrap().seq, 4);
    store.close().unwrap();
}

#[test]
fn threads_get_distinct_seqs_and_batches_stay_together() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut threads = Vec::new();
    for thread in 0..16_u64 {
        let store = store.clone();
        threads.push(std::thread::spawn(move || {
            let mut seqs = Vec::new();
            for number in 0..40 {
                let batch = (0..=number % 3).map(|part| full_event(thread * 1000 + number * 10 + part));
                let got: Vec<u64> =
                    store.append_all(batch).unwrap().iter().map(|receipt| receipt.seq).collect();
                assert!(got.windows(2).all(|pair| pair[1] == pair[0] + 1), "a batch has no gaps");
                seqs.extend(got);
            }
            seqs
        }));
    }
    let mut seqs: Vec<u64> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    seqs.sort_unstable();
    assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>());
    store.close().unwrap();
    assert!(verify(dir.path()).1);
    assert_rows_equal_log(dir.path());
}

#[test]
fn tickets_are_answered_without_anybody_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let tickets: Vec<_> = (1..=50).map(|number| store.submit([full_event(number)]).unwrap()).collect();
    let deadline = Instant::now() + Duration::from_secs(10);
    while !tickets.iter().all(synclog::Ticket::is_ready) {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
    for (index, ticket) in tickets.into_iter().enumerate() {
        assert_eq!(ticket.wait().unwrap()[0].seq, index as u64 + 1);
    }
    // Dropping the last handle finishes what is queued.
    let ticket = store.submit([full_event(51)]).unwrap();
    drop(store);
    drop(ticket);
    assert_eq!(messages(dir.path()).len(), 51);
}

#[test]
fn a_second_writer_waits_and_is_told_who_holds_the_lock() {
    let dir = filled(1);
    let store = open(dir.path());
    let start = Instant::now();
    let error = SyncStore::open(dir.path(), small().lock_wait(Duration::from_millis(300))).unwrap_err();
    assert!(matches!(&error, Error::Locked { pid: Some(pid), .. } if *pid == std::process::id()), "{error}");
    assert!(start.elapsed() >= Duration::from_millis(300));
    let path = dir.path().to_path_buf();
    let waiting = std::thread::spawn(move || SyncStore::open(path, small()).map(|store| store.last_seq()));
    std::thread::sleep(Duration::from_millis(100));
    store.close().unwrap();
    assert_eq!(waiting.join().unwrap().unwrap(), 1);
}

#[test]
fn stores_are_made_only_where_nothing_else_is() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("a/b/store");
    let refused = SyncStore::open(&missing, small().create(false)).unwrap_err();
    assert!(matches!(refused, Error::NoStore { .. }));
    assert!(!missing.exists(), "nothing was made");
    let store = open(&missing);
    assert!(store.open_report().created && store.dir().is_absolute());
    store.close().unwrap();
    let other = dir.path().join("other");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("notes.txt"), "mine").unwrap();
    assert!(matches!(SyncStore::open(&other, small()), Err(Error::NotEmpty { .. })));
    assert_eq!(std::fs::read_dir(&other).unwrap().count(), 1, "not even a lock file was left");
    assert!(matches!(Reader::<SyncEvent>::open(&other), Err(Error::NoStore { .. })));
    // A log that was taken away from its database is no empty store.
    std::fs::remove_dir_all(missing.join("log")).unwrap();
    assert!(matches!(SyncStore::open(&missing, small()), Err(Error::Damaged { .. })));
    assert!(!missing.join("log").exists());
}

#[test]
fn reading_changes_no_byte() {
    let dir = filled(500);
    let before = snapshot(dir.path());
    let reader = SyncReader::open(dir.path()).unwrap();
    assert_eq!(reader.count(&synclog::Filter::new()).unwrap(), 500);
    assert_eq!(reader.reader().items(1).unwrap().count(), 500);
    reader.runs(&synclog::RunFilter::default()).unwrap();
    assert!(verify(dir.path()).1);
    SyncStore::repair(dir.path(), small(), true, false).unwrap();
    assert_eq!(snapshot(dir.path()), before, "P11");
}

#[test]
fn a_damaged_frame_in_a_sealed_segment_is_named_and_repaired_from_its_row() {
    let dir = filled(400);
    let paths = segments(dir.path());
    assert!(paths.len() >= 3);
    let whole = messages(dir.path());
    for (path, at) in [
        (&paths[0], 9000_usize),
        (&paths[1], 8200),
        (&paths[1], 12_000),
        (&paths[0], 100),
        (&paths[2], 20_000),
    ] {
        let bytes = std::fs::read(path).unwrap();
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        std::fs::write(path, &damaged).unwrap();
        let (findings, sound) = verify(dir.path());
        assert!(!sound, "byte {at}: {findings:?}");
        assert!(findings.iter().any(|finding| finding.offset.is_some()
            && finding.file.as_ref().is_some_and(|file| file.ends_with(path.file_name().unwrap()))));
        let dry = SyncStore::repair(dir.path(), small(), true, false).unwrap();
        assert!(dry.lost.is_empty(), "{:?}", dry.lost);
        assert_eq!(std::fs::read(path).unwrap(), damaged, "a dry run changes nothing");
        let report = SyncStore::repair(dir.path(), small(), false, false).unwrap();
        assert!(report.lost.is_empty(), "{:?}", report.lost);
        assert_eq!(std::fs::read(path).unwrap(), bytes, "bit for bit (P9)");
        assert!(!report.quarantined.is_empty(), "the damaged bytes were kept");
        let (findings, sound) = verify(dir.path());
        assert!(sound, "{findings:?}");
    }
    assert_eq!(messages(dir.path()), whole);
}

#[test]
fn what_rows_cannot_prove_is_listed_and_nothing_is_changed() {
    let dir = filled(400);
    let path = &segments(dir.path())[0];
    let mut damaged = std::fs::read(path).unwrap();
    damaged[9000] ^= 1;
    std::fs::write(path, &damaged).unwrap();
    std::fs::remove_file(database(dir.path())).unwrap();
    let report = SyncStore::repair(dir.path(), small(), false, false).unwrap();
    assert_eq!(report.lost.len(), 1);
    assert!(report.lost[0].seq.is_some() && report.lost[0].offset.is_some());
    assert_eq!(std::fs::read(path).unwrap(), damaged);
    let reader = Reader::<SyncEvent>::open(dir.path()).unwrap();
    let (mut events, mut damages) = (0, Vec::new());
    for item in reader.items(1).unwrap() {
        match item.unwrap() {
            Item::Event(_) => events += 1,
            Item::Damage(finding) => damages.push(finding),
            other => panic!("{other:?}"),
        }
    }
    let lost: u64 = damages.iter().map(synclog::Finding::events).sum();
    assert_eq!(events + lost, 400, "each event is there or named (P3): {damages:?}");
    // Rows are never built over a gap.
    assert!(matches!(SyncStore::open(dir.path(), small()), Err(Error::Damaged { .. })));
    let rows = rusqlite::Connection::open(database(dir.path())).unwrap();
    let count = rows.query_row("SELECT count(*) FROM sync_logs", [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(count, 0);
}

#[test]
fn an_applied_seq_beyond_the_log_is_healed_if_proved_and_refused_if_not() {
    let dir = filled(3);
    let older = tempfile::tempdir().unwrap();
    copy_dir(dir.path(), older.path());
    let store = open(dir.path());
    store.append_all((4..=6).map(full_event)).unwrap();
    store.append(full_event(7)).unwrap();
    store.close().unwrap();
    // The log goes back in time, the rows do not: the rows prove what is missing.
    let active = segments(dir.path()).pop().unwrap();
    std::fs::copy(segments(older.path()).pop().unwrap(), &active).unwrap();
    let (findings, sound) = verify(dir.path());
    assert!(
        !sound && findings.iter().any(|finding| finding.kind == FindingKind::AppliedBeyondLog),
        "{findings:?}"
    );
    let copy = tempfile::tempdir().unwrap();
    copy_dir(dir.path(), copy.path());
    let store = open(dir.path());
    assert_eq!((store.last_seq(), store.open_report().healed_events), (7, 4));
    store.close().unwrap();
    assert!(verify(dir.path()).1);
    assert_rows_equal_log(dir.path());

    // Rows that were edited prove nothing.
    sql(copy.path(), "UPDATE sync_logs SET log_message = 'edited' WHERE id = 6");
    let error = SyncStore::open(copy.path(), small()).unwrap_err();
    let Error::Damaged { findings, .. } = &error else { panic!("{error}") };
    assert_eq!((findings[0].seq, findings[0].last_seq), (Some(4), Some(7)));
    let report = SyncStore::repair(copy.path(), small(), false, true).unwrap();
    assert!(report.lost.is_empty());
    let store = open(copy.path());
    assert_eq!(store.last_seq(), 3);
    assert_eq!(store.append(full_event(4)).unwrap().seq, 4);
    store.close().unwrap();
    let (findings, sound) = verify(copy.path());
    assert!(sound, "{findings:?}");
    let db = rusqlite::Connection::open(database(copy.path())).unwrap();
    let kept: i64 = db.query_row("SELECT count(*) FROM synclog_set_aside", [], |row| row.get(0)).unwrap();
    assert_eq!(kept, 4, "the rows that were given up are set aside");
}

#[test]
fn a_reader_beside_a_writer_sees_what_is_proved_and_then_all() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(open(dir.path()));
    let writer = Arc::clone(&store);
    let path = dir.path().to_path_buf();
    let append = std::thread::spawn(move || {
        (1..=600).for_each(|number| assert!(writer.append(full_event(number)).is_ok()));
    });
    let mut last = 0;
    while !append.is_finished() {
        let seen = messages(&path);
        assert!(seen.len() >= last, "a reader never goes back");
        assert!(seen.iter().enumerate().all(|(index, (seq, _))| *seq == index as u64 + 1));
        last = seen.len();
    }
    append.join().unwrap();
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(messages(&path).len(), 600);
    drop(store);
    let _ = Options::default();
}

/// Directories and pipes where files should be: refused or moved aside, and nobody waits (P12).
#[cfg(unix)]
#[test]
fn things_that_are_no_files_are_refused_or_moved_aside() {
    let fifo = |path: &std::path::Path| {
        assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
    };
    for pipe in [false, true] {
        let make = |path: &std::path::Path| {
            let _ = std::fs::remove_file(path);
            if pipe { fifo(path) } else { std::fs::create_dir(path).unwrap() }
        };
        let dir = filled(30);
        make(&database(dir.path()));
        assert!(!verify(dir.path()).1);
        assert!(common::replay(dir.path()).rebuilt);
        assert!(verify(dir.path()).1);

        let dir = filled(30);
        make(&dir.path().join("lock"));
        assert!(matches!(SyncStore::open(dir.path(), small()), Err(Error::Io { .. })));

        let dir = filled(400);
        let path = &segments(dir.path())[0];
        make(path);
        let error = SyncStore::open(dir.path(), small()).unwrap_err();
        assert!(
            matches!(&error, Error::Damaged { findings, .. } if findings.iter().any(|finding| finding.file.as_ref() == Some(path))),
            "{error}"
        );
        let items = Reader::<SyncEvent>::open(dir.path()).unwrap().items(1).unwrap();
        assert!(items.map(Result::unwrap).any(|item| matches!(item, Item::Damage(_))), "the gap is named");
    }
}

/// Small groups share a sector with the marks that prove them: the file `tail` still tells.
#[test]
fn a_zeroed_sector_of_small_groups_is_named_without_the_database_and_healed_with_it() {
    let dir = tempfile::tempdir().unwrap();
    for number in 1..=12 {
        let store = open(dir.path());
        let event = SyncEvent::new(company(), Level::Info, format!("acked {number}"));
        assert_eq!(store.append(event).unwrap().seq, number);
        store.close().unwrap();
    }
    let path = segments(dir.path()).pop().unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    for sector in 16..=end / 512 {
        let copy = tempfile::tempdir().unwrap();
        copy_dir(dir.path(), copy.path());
        let mut damaged = bytes.clone();
        damaged[sector * 512..(sector + 1) * 512].fill(0);
        std::fs::write(segments(copy.path()).pop().unwrap(), damaged).unwrap();
        let healed = tempfile::tempdir().unwrap();
        copy_dir(copy.path(), healed.path());
        std::fs::remove_file(database(copy.path())).unwrap();

        let mut findings = Vec::new();
        let summary =
            Reader::<SyncEvent>::verify(copy.path(), true, |finding| findings.push(finding)).unwrap();
        assert!(summary.log_damaged > 0, "P3: sector {sector}: {findings:?}");
        assert!(findings.iter().any(|finding| finding.seq.is_some()), "P3: which seqs: {findings:?}");
        let refused = SyncStore::open(copy.path(), small()).unwrap_err();
        assert!(
            matches!(refused, Error::Damaged { .. }),
            "no seq is given twice: sector {sector}: {refused}"
        );

        let store = open(healed.path());
        assert_eq!(store.last_seq(), 12, "P9: sector {sector}");
        store.close().unwrap();
        assert!(verify(healed.path()).1);
    }
}

#[test]
fn a_newest_segment_that_is_gone_is_missed() {
    let dir = filled(400);
    let newest = segments(dir.path()).pop().unwrap();
    std::fs::remove_file(newest).unwrap();
    std::fs::remove_file(database(dir.path())).unwrap();
    let (findings, sound) = verify(dir.path());
    let beyond = findings.iter().find(|finding| finding.kind == FindingKind::AppliedBeyondLog).unwrap();
    assert!(!sound && beyond.last_seq == Some(400), "{findings:?}");
    let Error::Damaged { findings, .. } = SyncStore::open(dir.path(), small()).unwrap_err() else { panic!() };
    assert_eq!(findings[0].last_seq, Some(400));
    // Given up on purpose, the log goes on from where it ends.
    SyncStore::repair(dir.path(), small(), false, true).unwrap();
    let store = open(dir.path());
    let last = store.last_seq();
    assert!(last < 400 && store.append(full_event(1)).unwrap().seq == last + 1);
    store.close().unwrap();
    assert!(verify(dir.path()).1);
}

#[test]
fn a_segment_of_another_store_gives_no_event_and_names_the_gap() {
    let (dir, other) = (filled(400), filled(400));
    let whole = messages(dir.path());
    std::fs::copy(&segments(other.path())[1], &segments(dir.path())[1]).unwrap();
    let reader = Reader::<SyncEvent>::open(dir.path()).unwrap();
    let (mut events, mut lost) = (0, 0);
    for item in reader.items(1).unwrap() {
        match item.unwrap() {
            Item::Event(stored) => {
                let own = Reader::<SyncEvent>::open(other.path()).unwrap();
                let Some(Ok(Item::Event(theirs))) = own.items(stored.seq).unwrap().next() else { panic!() };
                assert_ne!(stored.appended_at, theirs.appended_at, "P4: event {}", stored.seq);
                events += 1;
            }
            Item::Damage(finding) => lost += finding.events(),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(events + lost, whole.len() as u64);
    // Without rows the same events are named; with them they come back.
    let (database, kept) = (database(dir.path()), dir.path().join("kept"));
    std::fs::rename(&database, &kept).unwrap();
    let report = SyncStore::repair(dir.path(), small(), true, false).unwrap();
    let named: u64 = report
        .lost
        .iter()
        .filter(|f| f.kind == FindingKind::MissingEvents)
        .map(synclog::Finding::events)
        .sum();
    assert_eq!(named, lost, "repair names the same events: {:?}", report.lost);
    std::fs::rename(&kept, &database).unwrap();
    let report = SyncStore::repair(dir.path(), small(), false, false).unwrap();
    assert_eq!((report.healed_events, report.lost.len()), (lost, 0), "{:?}", report.lost);
    assert_eq!(messages(dir.path()), whole);
}

#[test]
fn an_edited_applied_seq_is_no_witness() {
    for value in ["3500", "9223372036854775807", "0", "5"] {
        let dir = filled(40);
        sql(dir.path(), &format!("UPDATE synclog_meta SET value = {value} WHERE name = 'applied_seq'"));
        assert!(!verify(dir.path()).1, "{value}");
        let store = open(dir.path());
        assert_eq!(store.append(full_event(41)).unwrap().seq, 41, "{value}");
        store.close().unwrap();
        let (findings, sound) = verify(dir.path());
        assert!(sound, "{value}: {findings:?}");
        assert_rows_equal_log(dir.path());
    }
}

/// Rows are a view: an edited or an older one must not make a key lie.
#[test]
fn keys_are_confirmed_by_the_log() {
    let dir = filled(3);
    let store = open(dir.path());
    assert_eq!(store.append_with_key(full_event(4), "k4").unwrap().seq, 4);
    sql(dir.path(), "UPDATE sync_logs SET idempotency_key = 'never' WHERE id = 2");
    let error = store.append_with_key(full_event(2), "never").unwrap_err();
    assert!(matches!(error, Error::KeysUnavailable { .. }), "P4: {error}");
    store.close().unwrap();

    let older = tempfile::tempdir().unwrap();
    copy_dir(dir.path(), older.path());
    let store = open(dir.path());
    store.append_with_key(full_event(5), "k5").unwrap();
    assert!(store.append(full_event(6)).unwrap().projected);
    for suffix in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{suffix}", database(dir.path()).display()));
    }
    std::fs::remove_file(database(dir.path())).unwrap();
    std::fs::copy(database(older.path()), database(dir.path())).unwrap();
    match store.append_with_key(full_event(5), "k5") {
        Ok(receipt) => assert_eq!(receipt.seq, 5),
        Err(error) => assert!(matches!(error, Error::KeysUnavailable { .. }), "{error}"),
    }
    store.append(full_event(7)).unwrap();
    assert!(store.wait_projected(Duration::from_secs(20)));
    assert_eq!(store.append_with_key(full_event(5), "k5").unwrap().seq, 5);
    store.close().unwrap();
    assert!(verify(dir.path()).1);
}

/// A link in the store's directory must not lead a write out of it.
#[cfg(unix)]
#[test]
fn links_lead_no_write_out_of_the_store() {
    let outside = tempfile::tempdir().unwrap();
    let victim = outside.path().join("victim");
    for name in ["lock", "tail", "last-open.json.new", "synclog.db-wal"] {
        std::fs::write(&victim, "precious").unwrap();
        let dir = filled(3);
        let link = dir.path().join(name);
        let _ = std::fs::remove_file(&link);
        if name == "synclog.db-wal" {
            std::fs::remove_file(database(dir.path())).unwrap();
        }
        std::os::unix::fs::symlink(&victim, &link).unwrap();
        if let Ok(store) = SyncStore::open(dir.path(), small()) {
            store.append(full_event(4)).unwrap();
            store.close().unwrap();
        }
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "precious", "P12: {name}");
    }
}

/// Two witnesses: what the nearer one proves comes back, the rest stays named.
#[test]
fn rows_heal_as_far_as_they_prove_and_the_rest_is_named() {
    let dir = filled(3);
    let store = open(dir.path());
    store.append(full_event(4)).unwrap();
    store.append(full_event(5)).unwrap();
    let hold = rusqlite::Connection::open(database(dir.path())).unwrap();
    hold.execute_batch("BEGIN IMMEDIATE").unwrap();
    store.append(full_event(6)).unwrap();
    store.append(full_event(7)).unwrap();
    store.close().unwrap();
    drop(hold);
    let path = segments(dir.path()).pop().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let start = bytes.windows(14).position(|window| window == b"Sync failed: 4").unwrap() / 512 * 512;
    bytes[start..].fill(0);
    std::fs::write(&path, bytes).unwrap();
    let report = SyncStore::repair(dir.path(), small(), false, false).unwrap();
    assert!(report.healed_events >= 2, "{report:?}");
    assert_eq!((report.lost[0].seq, report.lost[0].last_seq), (Some(6), Some(7)), "{:?}", report.lost);
    SyncStore::repair(dir.path(), small(), false, true).unwrap();
    assert_eq!(messages(dir.path()).len(), 5);
    assert!(verify(dir.path()).1);
}
