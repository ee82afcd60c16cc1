//! A log's directory on the simulated disk: names, numbers, sizes, headers, copies, strangers.
//!
//! Two sound logs are the templates. A tape of choices removes, renames, doubles, cuts and changes
//! files of the first one, and puts in some of the second. Whatever comes of it is listed, read from
//! several seqs, opened, repaired and appended to.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crate::disk::Disk as _;
use crate::error::Error;
use crate::finding::FindingKind;
use crate::log::cursor::Entry;
use crate::log::damage::any_damage;
use crate::log::directory::LogDir;
use crate::log::heal::NoDonor;
use crate::log::loss;
use crate::log::open::{self, OpenLog};
use crate::log::segment::{FIRST_FRAME, HEADER_BLOCK, file_name};
use crate::log::view::LogView;
use crate::log::writer::{NewEvent, batch_len};
use crate::proof::disk::{Rng, SimDisk};
use crate::proof::{log_on, one, open_log, open_with, segments};

/// A closed log of several segments.
struct Template {
    disk: SimDisk,
    store: [u8; 16],
    events: Vec<Vec<u8>>,
}

fn templates() -> &'static [Template; 2] {
    static MADE: OnceLock<[Template; 2]> = OnceLock::new();
    MADE.get_or_init(|| [make(5), make(9)])
}

fn make(number: u8) -> Template {
    let disk = SimDisk::default();
    disk.create_parents();
    let (mut writer, _) = open_log(&disk, None, &mut NoDonor).unwrap_or_else(|error| panic!("{error}"));
    let mut events = Vec::new();
    for index in 0..40_u8 {
        let payload = vec![index.wrapping_mul(number) | 1; 200 + usize::from(index) * 40];
        let event = NewEvent { event_kind: 1, version: 1, keyed: false, payload: payload.clone() };
        let batch = vec![vec![event]];
        let need = batch_len(&batch[0]);
        if need > writer.room() {
            writer.roll(need).unwrap_or_else(|error| panic!("{error}"));
        }
        writer.append(&batch, 1).unwrap_or_else(|error| panic!("{error}"));
        events.push(payload);
    }
    writer.mark().unwrap_or_else(|error| panic!("{error}"));
    writer.note_tail();
    let store = writer.store().0;
    drop(writer);
    assert_eq!(segments(&disk).len(), 3, "several segments");
    Template { disk: disk.after_kill(), store, events }
}

/// What was done to the directory, as far as it matters for what may go unnoticed.
#[derive(Default)]
struct Done {
    /// A header with fitting checksums: it can say that events were given up.
    resealed: bool,
    /// The file `tail` is not as it was.
    tail_changed: bool,
    /// A segment is gone under its name.
    removed: bool,
    /// Bytes of the newest segment were zeroed.
    end_zeroed: bool,
    /// Reads of one place fail.
    reads_fail: bool,
}

/// A directory made by a tape of choices; or, where the first byte is 255, of files as they are:
/// number (1 byte), length (2 bytes), bytes, and so on.
pub fn directory(data: &[u8]) {
    match data.split_first() {
        Some((255, files)) => raw(files),
        Some((_, tape)) => changed(&mut Rng::from_tape(tape)),
        None => {}
    }
}

fn raw(mut files: &[u8]) {
    let disk = SimDisk::default();
    disk.create_parents();
    disk.add_dir(&log_on(&disk).log_dir());
    while let Some((head, rest)) = files.split_first_chunk::<3>() {
        let len = usize::from(u16::from_le_bytes([head[1], head[2]])).min(rest.len());
        let mut bytes = rest[..len].to_vec();
        if let Some(size) = bytes.get(56..64) {
            let size = u64::from_le_bytes(size.try_into().unwrap_or_default());
            bytes.resize((len as u64).max(size.min(64 * 1024)) as usize, 0);
        }
        disk.put(&log_on(&disk).segment_path(u64::from(head[0])), bytes);
        files = &rest[len..];
    }
    judge(&disk, &Done { resealed: true, ..Done::default() }, &|_| None);
}

fn changed(rng: &mut Rng) {
    let [own, other] = templates();
    let disk = own.disk.after_kill();
    let mut done = Done::default();
    for _ in 0..=rng.below(6) {
        change(&disk, other, rng, &mut done);
    }
    let find = |store: [u8; 16]| [own, other].into_iter().find(|template| template.store == store);
    judge(&disk, &done, &find);
}

fn name(number: u64) -> PathBuf {
    Path::new("/parent/store/log").join(file_name(number))
}

fn change(disk: &SimDisk, other: &Template, rng: &mut Rng, done: &mut Done) {
    let paths = segments(disk);
    if paths.is_empty() {
        return;
    }
    let path = paths[rng.below(paths.len() as u64) as usize].clone();
    let newest = Some(&path) == paths.last();
    let mut bytes = disk.bytes(&path);
    let numbers = [1, 2, 3, 4, 5, 7, 0, 1 << 40, 1 << 62, u64::MAX];
    match rng.below(14) {
        0 => {
            drop(disk.remove(&path));
            done.removed = true;
        }
        1 => {
            drop(disk.rename(&path, &name(numbers[rng.below(10) as usize])));
            done.removed = true;
        }
        2 => {
            // Over another one or as one more; the old bytes under that name are gone.
            disk.put(&name(numbers[rng.below(10) as usize]), bytes);
            done.removed = true;
        }
        3 => {
            let foreign = segments(&other.disk);
            let bytes = other.disk.bytes(&foreign[rng.below(foreign.len() as u64) as usize]);
            disk.put(&name(numbers[rng.below(6) as usize]), bytes);
            done.removed = true;
        }
        4 => {
            let stray =
                ["x", "00000000000000000009.seg.new", "9.seg", ".seg", "\u{1b}[2J", "tail", "ä.seg.new"];
            disk.put(&log_on(disk).log_dir().join(stray[rng.below(7) as usize]), vec![7; 30]);
        }
        5 => {
            let len = match rng.below(4) {
                0 => 0,
                1 => rng.below(100) as usize,
                2 => rng.below(bytes.len() as u64) as usize,
                _ => bytes.len() + 1 + rng.below(5000) as usize,
            };
            bytes.resize(len, rng.next() as u8);
            disk.put(&path, bytes);
            done.removed = true;
        }
        6 | 7 => {
            // A field of the header, in one copy or both, with a fitting checksum.
            if bytes.len() < FIRST_FRAME as usize {
                return;
            }
            let field = [8, 12, 16, 32, 39, 40, 47, 48, 56, 59, 63, 64, 72, 0][rng.below(14) as usize];
            let value = rng.next() as u8;
            let copies = [&[0][..], &[1], &[0, 1]][rng.below(3) as usize];
            for copy in copies {
                let block = &mut bytes[copy * HEADER_BLOCK as usize..][..HEADER_BLOCK as usize];
                block[field] = value;
                let sum = crc32fast::hash(&block[..76]).to_le_bytes();
                block[76..80].copy_from_slice(&sum);
            }
            disk.put(&path, bytes);
            done.resealed = true;
        }
        8..=10 => {
            if bytes.is_empty() {
                return;
            }
            let at = if rng.chance(50) { rng.below(8300) } else { rng.below(bytes.len() as u64) } as usize;
            let at = at.min(bytes.len() - 1);
            let end = (at + [1, 8, 512, 4096][rng.below(4) as usize]).min(bytes.len());
            let value = rng.next() as u8;
            bytes[at..end].iter_mut().for_each(|byte| *byte = if value == 0 { 0 } else { *byte ^ value });
            disk.put(&path, bytes);
            done.end_zeroed |= newest && value == 0;
        }
        11 => {
            let tail = Path::new("/parent/store/tail");
            let mut bytes =
                if disk.paths().iter().any(|path| path == tail) { disk.bytes(tail) } else { Vec::new() };
            match rng.below(3) {
                0 => bytes = other.disk.bytes(tail),
                1 => bytes.truncate(rng.below(73) as usize),
                _ => {
                    let at = rng.below(72) as usize;
                    bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1);
                }
            }
            disk.put(tail, bytes);
            done.tail_changed = true;
        }
        12 => {
            disk.fail_reads_at(Some((path, rng.below(bytes.len().max(1) as u64))));
            done.reads_fail = true;
        }
        _ => disk.add_dir(&name(numbers[rng.below(10) as usize]).with_extension("d")),
    }
}

type Find<'a> = &'a dyn Fn([u8; 16]) -> Option<&'static Template>;

/// What a view shows: how many events, how far they go without a gap, and whether damage is named.
struct Shown {
    seqs: Vec<u64>,
    named: bool,
}

fn read(view: &LogView, from: u64, find: Find<'_>) -> Result<Shown, Error> {
    let (mut cursor, missing) = view.cursor(from)?;
    let mut shown = Shown { seqs: Vec::new(), named: !missing.is_empty() || any_damage(&view.findings) };
    for turn in 0.. {
        assert!(turn < 100_000, "P12: reading ends");
        match cursor.next()? {
            None => break,
            Some(Entry::Event { header, payload, .. }) => {
                let last = shown.seqs.last().copied().unwrap_or(0);
                assert!(header.seq > last && header.seq >= from, "P4: in order");
                if let Some(template) = find(view.store.0) {
                    let given = template.events.get(header.seq as usize - 1);
                    assert_eq!(given.map(Vec::as_slice), Some(payload), "P4: event {}", header.seq);
                }
                shown.seqs.push(header.seq);
            }
            Some(Entry::Damage(_) | Entry::Erased { .. } | Entry::Gap { .. }) => shown.named = true,
            Some(Entry::Deletion { .. }) => {}
        }
    }
    Ok(shown)
}

/// Nothing is lost in silence but what the README says cannot be known.
fn check_loss(shown: &Shown, view: &LogView, done: &Done, find: Find<'_>) {
    let Some(template) = find(view.store.0) else { return };
    if view.store.0 != templates()[0].store {
        // Somebody put another store's log in this one's place; the file `tail` still tells of the one before.
        let told = view.findings.iter().any(|finding| finding.kind == FindingKind::UnknownFile);
        assert!(told || done.tail_changed, "the log of another store, and no word of it");
        return;
    }
    let whole = shown.seqs.len() == template.events.len();
    if shown.named || whole || done.resealed {
        return;
    }
    let count = shown.seqs.len() as u64;
    let prefix = shown.seqs.iter().zip(1..).all(|(found, wanted)| *found == wanted);
    assert!(prefix, "P3: a gap, and no word of it: {:?}", shown.seqs);
    assert!(done.tail_changed, "P3: {count} events, the file `tail` tells of more, and no word of it");
    assert!(done.removed || done.end_zeroed, "P3: {count} events and no word of it");
}

fn judge(disk: &SimDisk, done: &Done, find: Find<'_>) {
    let log = log_on(disk);
    let before: Vec<(PathBuf, Vec<u8>)> =
        disk.paths().into_iter().map(|path| (path.clone(), disk.bytes(&path))).collect();
    for live in [false, true] {
        let view = match LogView::open(log.clone(), None, live) {
            Ok(Some(view)) => view,
            Ok(None) => continue,
            Err(error) => {
                check_error(&error, done);
                continue;
            }
        };
        for from in [1, 2, 17, view.horizon.seq, u64::MAX] {
            match read(&view, from, find) {
                Ok(shown) if from == 1 && !live => check_loss(&shown, &view, done, find),
                Ok(_) => {}
                Err(error) => check_error(&error, done),
            }
        }
    }
    let mut donor = NoDonor;
    for trust_log in [false, true] {
        let mut with = OpenLog { trust_log, ..open_with(None, &mut donor) };
        if let Err(error) = open::repair(&log, &mut with, true) {
            check_error(&error, done);
        }
    }
    for (path, bytes) in &before {
        assert_eq!(&disk.bytes(path), bytes, "P11: {}", path.display());
    }
    assert_eq!(disk.paths().len(), before.len(), "P11");
    check_repair(disk, done, find);
    check_open(disk, &log, done, find);
}

/// Only what the file system or a newer program does is an error of reading.
fn check_error(error: &Error, done: &Done) {
    match error {
        Error::NewerFormat { .. } => {}
        Error::Damaged { findings, .. } => assert!(any_damage(findings), "P3: {findings:?}"),
        Error::Io { .. } if done.reads_fail => {}
        error => panic!("{error}"),
    }
}

/// Repair never fails for damage, and a second one has nothing left to do.
fn check_repair(disk: &SimDisk, done: &Done, find: Find<'_>) {
    let disk = disk.after_kill();
    let mut first_lost = None;
    for turn in 0..2 {
        let mut donor = NoDonor;
        let mut with = open_with(None, &mut donor);
        match open::repair(&log_on(&disk), &mut with, false) {
            Ok((recovered, lost)) => {
                let count = lost.len();
                if turn == 1 {
                    assert_eq!(recovered.healed_events, 0, "a second repair heals nothing more");
                    assert_eq!(first_lost, Some(count), "and finds the same: {lost:?}");
                }
                first_lost = Some(count);
            }
            Err(error) => {
                check_error(&error, done);
                return;
            }
        }
    }
    if first_lost.is_some_and(|lost| lost > 0) {
        give_up(&disk, done, find);
    }
}

/// What repair could not bring back is given up; then the log opens, and every event is there or among
/// those that were given up (P3).
fn give_up(disk: &SimDisk, done: &Done, find: Find<'_>) {
    let log = log_on(disk);
    let plan = match loss::plan(&log, None, None) {
        Ok(Some(plan)) => plan,
        Ok(None) => return,
        Err(error) => return check_error(&error, done),
    };
    if let Err(error) = loss::give_up(&log, &plan, 1_700_000_000_000_000) {
        return check_error(&error, done);
    }
    let opened = open_log(disk, None, &mut NoDonor);
    if let Err(error) = &opened {
        assert!(done.resealed, "P5: what was lost is given up: {error}");
        return;
    }
    drop(opened);
    let view = LogView::open(log, None, false).unwrap_or_else(|error| panic!("{error}"));
    let Some(view) = view else { panic!("the log is there") };
    assert!(!any_damage(&view.findings), "P3: {:?}", view.findings);
    let shown = read(&view, 1, find).unwrap_or_else(|error| panic!("{error}"));
    check_loss(&shown, &view, done, find);
}

fn check_open(disk: &SimDisk, log: &LogDir, done: &Done, find: Find<'_>) {
    if !log.list().is_ok_and(|listing| listing.any) {
        return;
    }
    let open = disk.after_kill();
    let mut writer = match open_log(&open, None, &mut NoDonor) {
        Ok((writer, _)) => writer,
        Err(error) => {
            check_error(&error, done);
            return;
        }
    };
    let event = one(b"and on");
    if batch_len(&event[0]) > writer.room() {
        writer.roll(batch_len(&event[0])).unwrap_or_else(|error| panic!("{error}"));
    }
    let seq = writer.append(&event, 1).unwrap_or_else(|error| panic!("P1: {error}"));
    drop(writer);
    let view = LogView::open(LogDir::new(Arc::new(open.clone()), &log.store_dir), None, false);
    let view = view.unwrap_or_else(|error| panic!("{error}"));
    let Some(view) = view else { panic!("P1: the log is there") };
    assert_eq!(view.last_seq(), seq, "P1");
    let short = |store: [u8; 16]| find(store).filter(|_| false);
    let mut shown = read(&view, 1, &short).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(shown.seqs.pop(), Some(seq), "P1");
    check_loss(&shown, &view, done, find);
}
