//! A damaged log under a real store, with its real database: every frame, in its header, its payload
//! and its last byte. It comes back bit for bit, the damaged bytes are in quarantine (P9), and
//! without the database each missing event is named (P3).
//!
//! `cargo test` takes a sample; `SYNCLOG_DAMAGE=full` takes all places in all frames.

mod common;

use std::path::{Path, PathBuf};

use common::{assert_rows_equal_log, copy_dir, filled, messages, open, scratch, segments, small, verify};
use synclog::{Error, Finding, FindingKind, Severity, Store, SyncEvent};

/// A frame in a segment, read by the format's specification.
struct Frame {
    segment: usize,
    start: usize,
    end: usize,
    /// `None` for a mark.
    seq: Option<u64>,
}

fn u32_at(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]) as usize
}

fn frames(images: &[Vec<u8>]) -> Vec<Frame> {
    let mut frames = Vec::new();
    for (segment, image) in images.iter().enumerate() {
        let mut start = 8192;
        while start + 48 < image.len() && image[start] == 0xF1 {
            let end = start + 48 + (u32_at(image, start + 24) + 8) / 8 * 8;
            let seq = (image[start + 1] == 1).then(|| u32_at(image, start + 8) as u64);
            frames.push(Frame { segment, start, end, seq });
            start = end;
        }
    }
    frames
}

/// Places in a frame: every field of the header, payload, padding and last byte.
fn places(frame: &Frame) -> Vec<usize> {
    let body = frame.start + 48;
    let mut places: Vec<usize> =
        [0, 1, 2, 4, 6, 7, 8, 16, 24, 28, 32, 36, 40, 44, 47].iter().map(|at| frame.start + at).collect();
    places.extend([body, body + (frame.end - body) / 2, frame.end - 2, frame.end - 1]);
    places
}

fn read(paths: &[PathBuf]) -> Vec<Vec<u8>> {
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

fn damage_of(findings: &[Finding]) -> Vec<&Finding> {
    findings.iter().filter(|finding| finding.kind.severity() == Severity::LogDamaged).collect()
}

fn names(findings: &[Finding], frame: &Frame) -> bool {
    damage_of(findings).iter().any(|finding| match frame.seq {
        Some(seq) => {
            finding.seq.is_some_and(|first| (first..=finding.last_seq.unwrap_or(first)).contains(&seq))
        }
        None => finding.file.is_some() && finding.offset.is_some(),
    })
}

/// Whether quarantine holds the damaged byte at its place.
fn is_kept(dir: &Path, segment: usize, at: usize, byte: u8) -> bool {
    let Ok(entries) = std::fs::read_dir(dir.join("quarantine")) else { return false };
    entries.map(|entry| entry.unwrap().path()).any(|path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        let rest = name.strip_prefix(&format!("segment-{}-offset-", segment + 1));
        let offset: Option<usize> = rest.and_then(|rest| rest.split('-').next()?.parse().ok());
        let index = offset.and_then(|offset| at.checked_sub(offset));
        index.is_some_and(|index| std::fs::read(&path).unwrap().get(index) == Some(&byte))
    })
}

fn without_database(dir: &Path) {
    for name in ["synclog.db", "synclog.db-wal", "synclog.db-shm"] {
        let _ = std::fs::remove_file(dir.join(name));
    }
}

#[test]
fn every_frame_comes_back_from_its_row_or_is_named() {
    let full = std::env::var("SYNCLOG_DAMAGE").is_ok_and(|how| how == "full");
    let template = filled(70);
    let images = read(&segments(template.path()));
    let frames = frames(&images);
    let events = frames.iter().filter(|frame| frame.seq.is_some()).count();
    assert!(images.len() >= 2 && events == 70, "{} segments, {events} events", images.len());
    let whole = messages(template.path());
    let scratch = scratch();
    let (mut by_open, mut by_repair, mut named, mut from_nothing) = (0, 0, 0, 0);
    let all = frames.iter().flat_map(|frame| places(frame).into_iter().map(move |at| (frame, at)));
    for (index, (frame, at)) in all.enumerate().step_by(if full { 1 } else { 19 }) {
        let dir = scratch.path().join(format!("{index}"));
        copy_dir(template.path(), &dir);
        let path = &segments(&dir)[frame.segment];
        let mut damaged = images[frame.segment].clone();
        damaged[at] ^= 1 << (index % 8);
        std::fs::write(path, &damaged).unwrap();
        let context =
            format!("byte {} of the frame at {} of {}", at - frame.start, frame.start, path.display());

        let (findings, sound) = verify(&dir);
        assert!(!sound && names(&findings, frame), "P3: {context}: {findings:?}");
        assert_eq!(read(&segments(&dir))[frame.segment], damaged, "P11: {context}");
        let alone = scratch.path().join("alone");
        copy_dir(&dir, &alone);
        without_database(&alone);

        // Opening heals the last segment, and refuses where it meets damage in an older one.
        let healed = match Store::<SyncEvent>::open(&dir, small()) {
            Ok(store) => {
                let healed = !store.open_report().quarantined.is_empty();
                store.close().unwrap();
                healed
            }
            Err(Error::Damaged { findings, .. }) => {
                assert!(names(&findings, frame), "P3: {context}: {findings:?}");
                false
            }
            Err(error) => panic!("{context}: {error}"),
        };
        if healed {
            by_open += 1;
        } else {
            let report = Store::<SyncEvent>::repair(&dir, small(), false, false).unwrap();
            assert!(report.lost.is_empty(), "P9: {context}: {:?}", report.lost);
            by_repair += 1;
        }
        assert!(read(&segments(&dir)) == images, "P9, bit for bit: {context}");
        assert!(is_kept(&dir, frame.segment, at, damaged[at]), "P9: {context}");
        let (findings, sound) = verify(&dir);
        assert!(sound, "{context}: {findings:?}");
        assert_eq!(messages(&dir), whole, "{context}");
        assert_rows_equal_log(&dir);

        // Without rows: healed where the bytes follow from what is left, or named and left alone.
        let before = read(&segments(&alone));
        let lost = Store::<SyncEvent>::repair(&alone, small(), false, false).unwrap().lost;
        if lost.is_empty() {
            assert!(read(&segments(&alone)) == images, "P9: {context}");
            from_nothing += 1;
        } else {
            assert!(names(&lost, frame), "P3: {context}: {lost:?}");
            assert!(read(&segments(&alone)) == before, "P3: {context}");
            let replayed = Store::<SyncEvent>::replay(&alone, small(), false);
            assert!(matches!(replayed, Err(Error::Damaged { .. })), "P7: {context}: {replayed:?}");
            named += 1;
        }
        std::fs::remove_dir_all(&dir).unwrap();
        std::fs::remove_dir_all(&alone).unwrap();
    }
    println!("with rows: {by_open} healed by opening, {by_repair} by repair; ");
    println!("without: {from_nothing} healed from what was left, {named} named");
    assert!(by_open > 0 && by_repair > 0 && named > 0 && from_nothing > 0);
}

/// Only zeros may stand behind the last frame of a sealed segment. No event is missing where they do
/// not: verify tells, reading and appending go on, repair puts the bytes aside.
#[test]
fn stray_bytes_in_a_sealed_segment_are_told_and_put_aside() {
    let template = filled(70);
    let images = read(&segments(template.path()));
    let end = frames(&images).iter().rfind(|frame| frame.segment == 0).unwrap().end;
    for at in [end, end + 20, images[0].len() - 1] {
        let dir = tempfile::tempdir().unwrap();
        copy_dir(template.path(), dir.path());
        let path = segments(dir.path()).remove(0);
        let mut damaged = images[0].clone();
        damaged[at] ^= 0x10;
        std::fs::write(&path, &damaged).unwrap();
        let (findings, sound) = verify(dir.path());
        let told = findings.iter().find(|finding| finding.kind == FindingKind::DamagedFiller);
        assert!(!sound && told.is_some(), "byte {at}: {findings:?}");
        assert_eq!(told.unwrap().offset, Some(at as u64));
        assert_eq!(told.unwrap().file.as_deref(), Some(&*path));
        assert_eq!(messages(dir.path()).len(), 70, "no event is missing");
        without_database(dir.path());
        open(dir.path()).close().unwrap();
        assert_rows_equal_log(dir.path());
        let report = Store::<SyncEvent>::repair(dir.path(), small(), false, false).unwrap();
        assert!(report.lost.is_empty() && report.quarantined.len() == 1, "{report:?}");
        assert!(is_kept(dir.path(), 0, at, damaged[at]));
        assert!(read(&segments(dir.path())) == images);
        assert!(verify(dir.path()).1);
    }
}

/// SQLite deletes the write-ahead log beside an empty database, even when it only reads.
#[test]
fn readers_leave_an_empty_database_and_its_log_alone() {
    let dir = filled(5);
    std::fs::write(dir.path().join("synclog.db"), b"").unwrap();
    std::fs::write(dir.path().join("synclog.db-wal"), [7; 5000]).unwrap();
    let before = common::snapshot(dir.path());
    let (findings, sound) = verify(dir.path());
    assert!(
        !sound && findings.iter().any(|finding| finding.kind == FindingKind::DatabaseDamaged),
        "{findings:?}"
    );
    assert_eq!(synclog::SyncReader::open(dir.path()).unwrap().reader().last_seq(), 5);
    assert!(common::snapshot(dir.path()) == before, "P11");
    open(dir.path()).close().unwrap();
    assert_rows_equal_log(dir.path());
    assert!(verify(dir.path()).1);
}
