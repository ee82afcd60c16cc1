//! The promises, one by one, through the library's public surface and the program. Each test names the
//! promise that it would see broken. P1, P2, P10 and a part of P4 need a disk that fails on demand:
//! they are in `src/store/promise_tests.rs`; P8, until something deletes, in `deletion_tests.rs` there.

mod common;

use std::path::Path;

use common::{
    assert_rows_equal_log, company, copy_dir, database, filled, full_event, messages, open, replay, segments,
    small, sql, verify,
};
use synclog::{
    Company, Error, Finding, FindingKind, Item, Level, Outcome, Reader, Store, SyncEvent, SyncReader,
};

type SyncStore = Store<SyncEvent>;

const SECTOR: usize = 512;
/// Where the frames of a segment start.
const FIRST_FRAME: usize = 8192;
/// The bytes of a mark.
const MARK: usize = 56;

/// Where the bytes of a segment end that are not zero.
fn used(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1
}

/// What a reader of the log gets: events by seq, and the damage that it is told of.
fn read(dir: &Path) -> (Vec<(u64, SyncEvent)>, Vec<Finding>) {
    let (mut events, mut damage) = (Vec::new(), Vec::new());
    match Reader::<SyncEvent>::open(dir) {
        Ok(reader) => {
            damage.extend(reader.findings().iter().cloned());
            for item in reader.items(1).unwrap() {
                match item.unwrap() {
                    Item::Event(stored) => events.push((stored.seq, stored.event)),
                    Item::Damage(finding) => damage.push(finding),
                    other => panic!("{other:?}"),
                }
            }
        }
        Err(Error::Damaged { findings, .. }) => damage.extend(findings),
        Err(error) => panic!("{error}"),
    }
    (events, damage)
}

/// Any damage to a closed log: what is not back is named, by seq, file and offset; nothing else shows up.
#[test]
fn p3_nothing_acknowledged_is_lost_in_silence() {
    let dir = filled(60);
    let (whole, damage) = read(dir.path());
    assert!(whole.len() == 60 && damage.is_empty(), "{damage:?}");
    let paths = segments(dir.path());
    assert!(paths.len() >= 2, "{paths:?}");
    let mut rounds = 0;
    for (number, path) in paths.iter().enumerate() {
        let bytes = std::fs::read(path).unwrap();
        let end = used(&bytes);
        let sealed = number + 1 < paths.len();
        // A bit in every frame, a sector, a page, a piece copied from elsewhere, the last byte.
        let mut changed: Vec<(String, Vec<u8>)> = Vec::new();
        for at in (FIRST_FRAME..end).step_by(101).chain([end - 1]) {
            let mut copy = bytes.clone();
            copy[at] ^= 4;
            changed.push((format!("bit at {at}"), copy));
        }
        for (size, step) in [(SECTOR, 3), (4096, 1)] {
            for at in (FIRST_FRAME..end).step_by(size * step) {
                let mut copy = bytes.clone();
                copy[at..(at + size).min(bytes.len())].fill(0);
                changed.push((format!("{size} zeros at {at}"), copy));
            }
        }
        let mut copy = bytes.clone();
        copy.copy_within(FIRST_FRAME..FIRST_FRAME + 2048, FIRST_FRAME + 2048);
        changed.push(("a piece copied".into(), copy));
        changed.push(("cut short".into(), bytes[..end - 100].to_vec()));
        for (what, damaged) in changed {
            if damaged == bytes {
                continue;
            }
            rounds += 1;
            std::fs::write(path, &damaged).unwrap();
            let context = format!("{what} in segment {}", number + 1);
            let (events, damage) = read(dir.path());
            for (seq, event) in &events {
                assert_eq!(whole.get(*seq as usize - 1), Some(&(*seq, event.clone())), "P4: {context}");
            }
            assert!(events.windows(2).all(|pair| pair[0].0 < pair[1].0), "P4, in order: {context}");
            let named = |seq: u64| {
                damage.iter().any(|finding| {
                    let first = finding.seq.unwrap_or(u64::MAX);
                    (first..=finding.last_seq.unwrap_or(first)).contains(&seq)
                })
            };
            let refused = damage.iter().any(|finding| finding.kind == FindingKind::BadSegment);
            for (seq, _) in &whole {
                let back = events.iter().any(|(found, _)| found == seq);
                assert!(back || named(*seq) || refused, "P3: event {seq} is gone: {context}: {damage:?}");
            }
            if events.len() < whole.len() {
                let told = damage.iter().find(|finding| finding.file.as_deref() == Some(path));
                assert!(told.is_some_and(|finding| finding.offset.is_some()), "P3: {context}: {damage:?}");
                if !sealed {
                    // Without rows hardly anything can be healed, and no seq may be given twice.
                    let copy = tempfile::tempdir().unwrap();
                    copy_dir(dir.path(), copy.path());
                    std::fs::remove_file(database(copy.path())).unwrap();
                    match SyncStore::open(copy.path(), small()) {
                        Ok(store) => {
                            drop(store);
                            assert!(read(copy.path()).0 == whole, "P3: {context}");
                        }
                        Err(Error::Damaged { .. }) => {}
                        Err(error) => panic!("P3: {context}: {error}"),
                    }
                }
            }
        }
        std::fs::write(path, &bytes).unwrap();
    }
    assert!(rounds > 150, "{rounds}");
}

/// The same place in the same segment, but a frame of another store: it is not taken for ours.
#[test]
fn p4_nothing_is_invented() {
    let dir = filled(12);
    let store = open(dir.path());
    let mut bad = full_event(99);
    bad.duration_seconds = Some(f64::NAN);
    bad.message = "refused".into();
    let mut large = full_event(99);
    large.message = "refused".into();
    large.details = Some("x".repeat(2 << 20));
    assert_eq!(store.append_with_key(full_event(13), "key").unwrap().seq, 13);
    let mut other = full_event(14);
    other.message = "refused".into();
    for error in [
        store.append(bad.clone()).unwrap_err(),
        store.append(large).unwrap_err(),
        store.append_all([full_event(14), bad]).unwrap_err(),
        store.append_with_key(other, "key").unwrap_err(),
    ] {
        assert_eq!(error.outcome(), Outcome::NotWritten, "{error}");
    }
    assert_eq!(store.append(full_event(14)).unwrap().seq, 14);
    store.close().unwrap();
    let wanted: Vec<_> = (1..=14).map(|number| (number, format!("Sync failed: {number}"))).collect();
    assert_eq!(messages(dir.path()), wanted, "P4: what was refused never shows up");

    // A frame that is sound elsewhere: earlier in this log, or here in another store.
    let twin = filled(12);
    let path = segments(dir.path()).remove(0);
    let bytes = std::fs::read(&path).unwrap();
    let foreign = std::fs::read(segments(twin.path()).remove(0)).unwrap();
    let end = used(&bytes);
    for (what, piece) in [
        ("its own first frames", bytes[FIRST_FRAME..FIRST_FRAME + 1024].to_vec()),
        ("those of another store", foreign[FIRST_FRAME..FIRST_FRAME + 1024].to_vec()),
    ] {
        for at in [FIRST_FRAME + 1024, end, end.next_multiple_of(SECTOR), end - MARK] {
            let mut changed = bytes.clone();
            changed[at..at + piece.len()].copy_from_slice(&piece);
            std::fs::write(&path, changed).unwrap();
            let (events, _) = read(dir.path());
            for (seq, event) in events {
                assert_eq!((seq, event.message), wanted[seq as usize - 1], "P4: {what} at {at}");
            }
        }
    }
}

/// Where the frame of event `seq` starts.
fn frame_of(bytes: &[u8], seq: u64) -> usize {
    let starts =
        |at: &usize| bytes[*at..*at + 2] == [0xF1, 1] && bytes[*at + 8..*at + 16] == seq.to_le_bytes();
    (FIRST_FRAME..bytes.len() - 16).step_by(8).find(starts).unwrap()
}

/// A store was copied, and both copies went on: same store, segment, place and seq, so that every
/// checksum fits. Only the chain tells that a frame of the one does not follow in the other.
#[test]
fn p4_a_frame_of_another_history_is_not_ours() {
    let dir = filled(5);
    let twin = tempfile::tempdir().unwrap();
    copy_dir(dir.path(), twin.path());
    for (path, word) in [(dir.path(), "failed"), (twin.path(), "passed")] {
        for number in 6..=8 {
            // Each is closed with a mark, so that both logs look alike.
            let store = open(path);
            let mut event = full_event(number);
            event.message = format!("Sync {word}: {number}");
            assert_eq!(store.append(event).unwrap().seq, number);
            store.close().unwrap();
        }
    }
    let path = segments(dir.path()).pop().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let other = std::fs::read(segments(twin.path()).pop().unwrap()).unwrap();
    let (from, end) = (frame_of(&bytes, 7), used(&bytes));
    assert_eq!((frame_of(&other, 7), used(&other)), (from, end), "the same places in both");
    bytes[from..end].copy_from_slice(&other[from..end]);
    std::fs::write(&path, bytes).unwrap();
    let (events, damage) = read(dir.path());
    for (seq, event) in events {
        // Behind the break the foreign frames follow on each other, as ours would behind damage.
        let ours = event.message == format!("Sync failed: {seq}");
        assert!(ours || seq == 8, "P4: event {seq}: {}", event.message);
    }
    assert!(damage.iter().any(|finding| finding.seq == Some(7)), "P3: {damage:?}");
    // The rows are of the own history. What they prove comes back, and nothing else does.
    let report = SyncStore::repair(dir.path(), small(), false, false).unwrap();
    let (events, _) = read(dir.path());
    for (seq, event) in events {
        assert_eq!(event.message, format!("Sync failed: {seq}"), "P4, P9: {report:?}");
    }
    assert_eq!(report.healed_events, 2, "P9: {report:?}");
}

/// Every state that a power cut can leave of a group in flight: any of its sectors, and no others.
#[test]
fn p5_a_crash_never_locks_the_user_out() {
    let before = filled(5);
    let after = tempfile::tempdir().unwrap();
    copy_dir(before.path(), after.path());
    let store = open(after.path());
    store.append_all((6..=9).map(full_event)).unwrap();
    store.close().unwrap();
    let path = segments(before.path()).pop().unwrap();
    let old = std::fs::read(&path).unwrap();
    let mut new = std::fs::read(segments(after.path()).pop().unwrap()).unwrap();
    // The mark was written after the sync; in this crash it never was.
    let end = used(&new);
    assert_eq!(new[end - MARK..end - MARK + 2], [0xF1, 2], "a mark ends the log");
    new[end - MARK..end].fill(0);
    let pieces: Vec<usize> =
        (0..old.len()).step_by(SECTOR).filter(|at| old[*at..at + SECTOR] != new[*at..at + SECTOR]).collect();
    assert!((3..=6).contains(&pieces.len()), "{pieces:?}");
    let (mut torn, mut whole) = (0, 0);
    for arrived in 0..1_u32 << pieces.len() {
        let dir = tempfile::tempdir().unwrap();
        copy_dir(before.path(), dir.path());
        let mut bytes = old.clone();
        for (index, at) in pieces.iter().enumerate() {
            if arrived >> index & 1 == 1 {
                bytes[*at..at + SECTOR].copy_from_slice(&new[*at..at + SECTOR]);
            }
        }
        std::fs::write(segments(dir.path()).pop().unwrap(), bytes).unwrap();
        let store = SyncStore::open(dir.path(), small())
            .unwrap_or_else(|error| panic!("P5: sectors {arrived:b} of {}: {error}", pieces.len()));
        let last = store.last_seq();
        assert!(last == 5 || last == 9, "P4: a batch is whole or absent: {last}, sectors {arrived:b}");
        let report = store.open_report();
        let told = report
            .findings
            .iter()
            .any(|finding| matches!(finding.kind, FindingKind::TornTail | FindingKind::UnfinishedBatch));
        assert_eq!(told, last == 5 && arrived != 0, "P5: it tells what it found: {report:?}");
        torn += u32::from(told);
        whole += u32::from(last == 9);
        assert_eq!(store.append(full_event(last + 1)).unwrap().seq, last + 1);
        store.close().unwrap();
        let (findings, sound) = verify(dir.path());
        assert!(sound, "{findings:?}");
        assert_eq!(messages(dir.path()).len() as u64, last + 1);
    }
    assert_eq!((torn, whole), ((1 << pieces.len()) - 2, 1));
}

/// A row comes from the log. A frame comes from its row if the row proves itself, and not else; and the
/// bytes that were there before are kept.
#[test]
fn p9_healing_goes_both_ways_and_needs_proof() {
    let dir = filled(40);
    sql(dir.path(), "DELETE FROM sync_logs WHERE id IN (7, 40)");
    let report = replay(dir.path());
    assert_eq!(report.restored, 2, "P9: rows from the log");
    assert_rows_equal_log(dir.path());

    for (number, path) in segments(dir.path()).iter().enumerate() {
        let bytes = std::fs::read(path).unwrap();
        // The message of the segment's last event but one.
        let at: Vec<usize> = bytes
            .windows(12)
            .enumerate()
            .filter(|(_, found)| found == b"Sync failed:")
            .map(|(at, _)| at)
            .collect();
        let at = at[at.len() - 2];
        let mut damaged = bytes.clone();
        damaged[at..at + 4].copy_from_slice(b"Sank");
        for edited in [true, false] {
            let copy = tempfile::tempdir().unwrap();
            copy_dir(dir.path(), copy.path());
            let path = &segments(copy.path())[number];
            std::fs::write(path, &damaged).unwrap();
            if edited {
                // A row that says the same as the damaged frame proves nothing.
                sql(copy.path(), "UPDATE sync_logs SET log_message = replace(log_message, 'Sync', 'Sank')");
            }
            let report = SyncStore::repair(copy.path(), small(), false, false).unwrap();
            if edited {
                assert!(report.healed_events == 0 && report.lost.len() == 1, "P9: no proof: {report:?}");
                assert!(report.lost[0].seq.is_some(), "P3: {report:?}");
                assert_eq!(std::fs::read(path).unwrap(), damaged, "P9: nothing is changed");
                continue;
            }
            assert_eq!((report.healed_events, report.lost.len()), (1, 0), "P9: {report:?}");
            assert_eq!(std::fs::read(path).unwrap(), bytes, "P9: bit for bit");
            let kept: Vec<Vec<u8>> =
                report.quarantined.iter().map(|path| std::fs::read(path).unwrap()).collect();
            let was_there = |kept: &Vec<u8>| kept.windows(8).any(|found| found == &damaged[at..at + 8]);
            assert!(kept.iter().any(was_there), "P9: the damaged bytes are kept: {:?}", report.quarantined);
            assert!(verify(copy.path()).1);
        }
    }
}

/// What recovery puts aside after a crash is kept byte for byte as well.
#[test]
fn p9_a_torn_tail_is_kept_in_quarantine() {
    let dir = filled(5);
    let path = segments(dir.path()).pop().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let end = used(&bytes);
    // Half a frame: what a crash leaves of a write whose second sector never arrived.
    let torn: Vec<u8> = [0xF1, 1].into_iter().chain((0..200).map(|byte| byte as u8 | 1)).collect();
    let at = end.next_multiple_of(SECTOR) - 100;
    assert!(at >= end);
    bytes[at..at + 100].copy_from_slice(&torn[..100]);
    std::fs::write(&path, &bytes).unwrap();
    let store = SyncStore::open(dir.path(), small());
    let kept: Vec<_> = match &store {
        Ok(store) => store.open_report().quarantined.clone(),
        // Where it cannot be told from damage it is refused, and nothing was touched.
        Err(error) => panic!("P5: {error}"),
    };
    let found = kept
        .iter()
        .any(|path| std::fs::read(path).unwrap().windows(100).any(|window| window == &torn[..100]));
    assert!(found, "P9: {kept:?}");
}

/// An event with everything in it that a terminal, SQL or a path could take for its own.
fn hostile() -> SyncEvent {
    let nasty = "\u{1b}[31m\u{1b}]0;x\u{7}\r\n'; DROP TABLE sync_logs; --\0 ../../etc \u{202E}\u{9b}2J";
    let mut event = SyncEvent::new(Company::new(nasty, nasty, nasty), Level::Error, nasty)
        .with_details(nasty)
        .with_error(nasty, nasty)
        .with_run(nasty);
    event.records_synced = Some(i64::MIN);
    event.duration_seconds = Some(f64::MAX);
    event
}

#[test]
fn p12_no_event_is_fatal() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut appended = Vec::new();
    for event in [hostile(), full_event(1), hostile().with_records(0)] {
        match store.append(event.clone()) {
            Ok(receipt) => {
                assert!(receipt.projected);
                appended.push(event.message);
            }
            Err(error) => assert_eq!(error.outcome(), Outcome::NotWritten, "{error}"),
        }
    }
    store.close().unwrap();
    assert!(verify(dir.path()).1, "P12: the tables are there and equal");
    let rows = SyncReader::open(dir.path()).unwrap().list(&synclog::Filter::new()).unwrap();
    assert_eq!(rows.len(), appended.len());
    let other = Store::<SyncEvent>::open(dir.path(), small()).unwrap();
    let company = company();
    let event = SyncEvent::new(company, Level::Info, "after it");
    assert!(other.append(event).unwrap().projected);
}

/// Any bytes in any file: every command ends by itself, with an exit code of its own, without a panic
/// and without an escape sequence.
#[cfg(feature = "cli")]
#[test]
fn p12_no_bytes_in_any_file_are_fatal() {
    use std::process::{Command, Stdio};

    let dir = filled(40);
    let store = open(dir.path());
    let _ = store.append(hostile());
    store.close().unwrap();
    let mut files = segments(dir.path());
    files.extend(["synclog.db", "tail", "lock", "last-open.json"].map(|name| dir.path().join(name)));
    let mut random = 7_u64;
    let mut noise = |len: usize| -> Vec<u8> {
        (0..len)
            .map(|_| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                random as u8
            })
            .collect()
    };
    let commands: [&[&str]; 8] = [
        &["status"],
        &["verify"],
        &["list", "--all", "-o", "table"],
        &["runs", "-o", "table"],
        &["export"],
        &["tail", "--after", "0", "-o", "table"],
        &["repair", "--dry-run"],
        &["replay"],
    ];
    let mut runs = 0;
    for (number, file) in files.iter().enumerate() {
        let whole = std::fs::read(file).unwrap();
        let mut versions = vec![noise(300), noise(20_000), Vec::new(), vec![0xFF; whole.len()]];
        for at in [0, 8, 24, whole.len() / 2, FIRST_FRAME + 24] {
            let mut bytes = whole.clone();
            let end = (at + 8).min(bytes.len());
            bytes[at.min(end)..end].copy_from_slice(&noise(end - at.min(end)));
            versions.push(bytes);
        }
        for (version, bytes) in versions.into_iter().enumerate() {
            let temp = tempfile::tempdir().unwrap();
            let copy = temp.path().join("store");
            copy_dir(dir.path(), &copy);
            std::fs::write(copy.join(file.strip_prefix(dir.path()).unwrap()), bytes).unwrap();
            // Two commands for each, so that every file meets every command sooner or later.
            for turn in 0..2 {
                let args = commands[(number + 2 * version + turn) % commands.len()];
                let context = format!("{} version {version}, {args:?}", file.display());
                let (out, err) = (temp.path().join("out"), temp.path().join("err"));
                let into = |path: &Path| Stdio::from(std::fs::File::create(path).unwrap());
                let mut child = Command::new(env!("CARGO_BIN_EXE_synclog"))
                    .arg("--dir")
                    .arg(&copy)
                    .args(args)
                    .stdin(Stdio::null())
                    .stdout(into(&out))
                    .stderr(into(&err))
                    .spawn()
                    .unwrap();
                let start = std::time::Instant::now();
                let status = loop {
                    if let Some(status) = child.try_wait().unwrap() {
                        break status;
                    }
                    if start.elapsed() > std::time::Duration::from_mins(1) {
                        child.kill().unwrap();
                        panic!("P12: it hangs: {context}");
                    }
                    std::thread::sleep(std::time::Duration::from_millis(2));
                };
                let (out, err) = (std::fs::read(out).unwrap(), std::fs::read(err).unwrap());
                let text = String::from_utf8_lossy(&err);
                let code = status.code();
                assert!(matches!(code, Some(0 | 1 | 3 | 4 | 10 | 13)), "P12: {code:?}: {context}: {text}");
                assert!(!text.contains("panicked"), "P12: {context}: {text}");
                let escapes = |bytes: &[u8]| bytes.iter().any(|byte| matches!(byte, 0x1B | 7));
                assert!(!escapes(&out) && !escapes(&err), "P12: an escape sequence: {context}");
                runs += 1;
            }
        }
    }
    assert!(runs > 100, "{runs}");
}
