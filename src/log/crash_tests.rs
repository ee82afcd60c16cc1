//! The log against kills, power cuts, failing operations and damage, on a simulated disk.
//!
//! Each script appends groups, dies somewhere, and opens again. What must hold is said by the
//! promises: nothing acknowledged is lost (P1, P3), nothing shows up that said `NotWritten`, a batch
//! is whole or absent (P4), and every state that a crash alone leaves opens (P5).

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Outcome, Result};
use crate::finding::FindingKind;
use crate::simdisk::{Fault, Frames, Rng, SimDisk};

use super::cursor::Entry;
use super::directory::LogDir;
use super::heal::{Donor, DonorFrame, NoDonor};
use super::open::{OpenLog, Recovered, create, open};
use super::survey::Witness;
use super::view::LogView;
use super::writer::{Limits, LogWriter, NewEvent, batch_len};

const LIMITS: Limits = Limits { first_segment: 16 * 1024, max_segment: 32 * 1024 };

fn log_on(disk: &SimDisk) -> LogDir {
    LogDir::new(Arc::new(disk.clone()), Path::new("/parent/store"))
}

struct KnownFrames(Frames);

impl Donor for KnownFrames {
    fn frame(&mut self, seq: u64) -> Result<Option<DonorFrame>> {
        let found = self.0.get(&seq).cloned();
        Ok(found.map(|(header, payload)| DonorFrame { header, payload }))
    }
}

fn open_log(
    disk: &SimDisk,
    witness: Option<Witness>,
    donor: &mut dyn Donor,
) -> Result<(LogWriter, Recovered)> {
    let log = log_on(disk);
    if !log.list()?.any {
        return create(&log, LIMITS, 1);
    }
    open(&log, OpenLog { limits: LIMITS, witness, donor, busy: None, trust_log: false, tail: None })
}

/// Every event in the log: seq, header, payload; panics on damage unless `lenient`.
fn read_all(disk: &SimDisk, witness: Option<Witness>) -> Vec<(u64, Vec<u8>, Vec<u8>)> {
    let view = LogView::open(log_on(disk), witness, false).unwrap().unwrap();
    let (mut cursor, missing) = view.cursor(1, false).unwrap();
    assert!(missing.is_empty(), "{missing:?}");
    let mut events = Vec::new();
    while let Some(entry) = cursor.next().unwrap() {
        match entry {
            Entry::Event { header, raw, payload } => {
                events.push((header.seq, raw.to_vec(), payload.to_vec()));
            }
            Entry::Damage(finding) => panic!("{finding}"),
            _ => panic!("neither deletions nor erasures here"),
        }
    }
    events
}

/// Payloads full of zeros on purpose.
fn payload(rng: &mut Rng) -> Vec<u8> {
    let len = [1, 5, 40, 130, 500, 1100, 2500][rng.below(7) as usize];
    let zeros = rng.chance(25);
    (0..len).map(|_| if zeros || rng.chance(60) { 0 } else { rng.next() as u8 }).collect()
}

/// What the script knows of each event it gave to the log.
#[derive(Default)]
struct Ledger {
    acknowledged: BTreeMap<u64, Vec<u8>>,
    /// Batches whose append failed with outcome `Unknown`: their first seq and payloads.
    unknown: Vec<(u64, Vec<Vec<u8>>)>,
}

impl Ledger {
    /// Compares what is in the log with what must, may and must not be there.
    fn check(&mut self, disk: &SimDisk, context: &str) {
        let events = read_all(disk, None);
        for (index, (seq, _, _)) in events.iter().enumerate() {
            assert_eq!(*seq, index as u64 + 1, "P4, gapless: {context}");
        }
        for (seq, payload) in &self.acknowledged {
            let found = events.get(*seq as usize - 1);
            assert_eq!(found.map(|(_, _, found)| found), Some(payload), "P1: event {seq}, {context}");
        }
        let mut next = self.acknowledged.len() as u64 + 1;
        for (first, batch) in std::mem::take(&mut self.unknown) {
            let there = events.len() as u64 >= first && first == next;
            if !there {
                continue;
            }
            for (index, payload) in batch.iter().enumerate() {
                let seq = first + index as u64;
                let found = events.get(seq as usize - 1).map(|(_, _, found)| found);
                assert_eq!(found, Some(payload), "P4, a batch is whole: event {seq}, {context}");
                // From now on it is history like any other.
                self.acknowledged.insert(seq, payload.clone());
            }
            next = first + batch.len() as u64;
        }
        assert_eq!(events.len(), self.acknowledged.len(), "P4, nothing is invented: {context}");
    }
}

/// Appends random groups until something fails or `groups` are done.
fn run_script(disk: &SimDisk, rng: &mut Rng, ledger: &mut Ledger, groups: u64) -> Result<()> {
    let (mut writer, _) = open_log(disk, None, &mut NoDonor)?;
    for _ in 0..groups {
        let batches: Vec<Vec<NewEvent>> = (0..=rng.below(3))
            .map(|_| {
                (0..=rng.below(3))
                    .map(|_| NewEvent { event_kind: 1, version: 1, keyed: false, payload: payload(rng) })
                    .collect()
            })
            .collect();
        let need: u64 = batches.iter().map(|batch| batch_len(batch)).sum();
        if need > writer.room() {
            writer.roll(need)?;
        }
        let first = writer.position().seq;
        match writer.append(&batches, 7) {
            Ok(seq) => {
                assert_eq!(seq, first);
                let payloads = batches.iter().flatten().map(|event| event.payload.clone());
                ledger.acknowledged.extend((first..).zip(payloads));
            }
            Err(error) => {
                assert_eq!(error.outcome(), Outcome::Unknown, "P10");
                assert!(writer.append(&batches, 7).is_err(), "P10: a failed handle takes nothing more");
                assert!(writer.mark().is_err(), "P10: and writes no mark");
                let mut seq = first;
                for batch in batches {
                    let payloads: Vec<_> = batch.into_iter().map(|event| event.payload).collect();
                    let next = seq + payloads.len() as u64;
                    ledger.unknown.push((seq, payloads));
                    seq = next;
                }
                return Err(error);
            }
        }
        if rng.chance(30) {
            writer.mark()?;
            writer.note_tail();
        }
    }
    Ok(())
}

fn scripts() -> u64 {
    std::env::var("SYNCLOG_CRASH_SCRIPTS").ok().and_then(|count| count.parse().ok()).unwrap_or(400)
}

#[test]
fn no_crash_loses_an_acknowledged_event_or_locks_anybody_out() {
    for seed in 0..scripts() {
        let mut rng = Rng::new(seed);
        let mut disk = SimDisk::default();
        disk.create_parents();
        let mut ledger = Ledger::default();
        for life in 0..5 {
            let context = format!("seed {seed}, life {life}");
            let fatal = rng.chance(70);
            let fault = Fault { at: rng.below(25), fatal, partial: rng.below(3000) as usize, errno: 5 };
            disk.set_fault(Some(fault));
            let groups = 1 + rng.below(8);
            // Recovery itself may be what dies.
            let _ = run_script(&disk, &mut rng, &mut ledger, groups);
            disk = if rng.chance(50) { disk.after_kill() } else { disk.after_power_cut(&mut rng) };
            if rng.chance(60) {
                let opened = open_log(&disk, None, &mut NoDonor);
                assert!(opened.is_ok(), "P5: {context}: {:?}", opened.err());
                ledger.check(&disk, &context);
            } else if log_on(&disk).list().unwrap().any {
                // Unknown batches are settled by the first opening that succeeds.
                let mut copy = Ledger {
                    acknowledged: ledger.acknowledged.clone(),
                    unknown: std::mem::take(&mut ledger.unknown),
                };
                let opened = open_log(&disk, None, &mut NoDonor);
                assert!(opened.is_ok(), "P5: {context}: {:?}", opened.err());
                copy.check(&disk, &context);
                ledger = copy;
            }
        }
    }
}

/// A log with several segments and a mark at its end, and its frames.
fn closed_log(seed: u64, groups: u64) -> (SimDisk, Ledger, Frames, Witness) {
    let mut rng = Rng::new(seed);
    let disk = SimDisk::default();
    disk.create_parents();
    let mut ledger = Ledger::default();
    run_script(&disk, &mut rng, &mut ledger, groups).unwrap();
    let (mut writer, _) = open_log(&disk, None, &mut NoDonor).unwrap();
    writer.mark().unwrap();
    let mut frames = Frames::new();
    let mut witness = Witness { seq: 0, sum: 0 };
    for (seq, raw, payload) in read_all(&disk, None) {
        witness = Witness { seq, sum: u32::from_le_bytes([raw[40], raw[41], raw[42], raw[43]]) };
        frames.insert(seq, (raw, payload));
    }
    (disk, ledger, frames, witness)
}

fn segments(disk: &SimDisk) -> Vec<std::path::PathBuf> {
    disk.paths().into_iter().filter(|path| path.extension().is_some_and(|ext| ext == "seg")).collect()
}

/// What reading a damaged log may give: all events, or fewer and a finding that says so.
fn assert_named_or_whole(disk: &SimDisk, whole: &Ledger, witness: Option<Witness>, context: &str) {
    let view = match LogView::open(log_on(disk), witness, false) {
        Ok(Some(view)) => view,
        Ok(None) | Err(Error::NewerFormat { .. }) => return,
        Err(error) => panic!("{context}: {error}"),
    };
    let (mut cursor, missing) = view.cursor(1, false).unwrap();
    let mut named = super::damage::any_damage(&view.findings) || !missing.is_empty();
    let mut count = 0;
    let mut last = 0;
    while let Some(entry) = cursor.next().unwrap() {
        match entry {
            Entry::Event { header, payload, .. } => {
                assert!(header.seq > last, "{context}: order");
                last = header.seq;
                assert_eq!(
                    Some(payload),
                    whole.acknowledged.get(&header.seq).map(Vec::as_slice),
                    "P4: {context}"
                );
                count += 1;
            }
            // An erasure without a record of it is damage as well.
            Entry::Damage(_) | Entry::Erased { .. } => named = true,
            Entry::Deletion { .. } => panic!("{context}"),
        }
    }
    assert!(named || count == whole.acknowledged.len(), "P3: {count} events and no word of it: {context}");
}

#[test]
fn a_flipped_bit_anywhere_is_named_and_healed_from_rows() {
    let (disk, whole, frames, witness) = closed_log(11, 14);
    let paths = segments(&disk);
    assert!(paths.len() > 1, "several segments");
    let mut rng = Rng::new(5);
    for path in &paths {
        let bytes = disk.bytes(path);
        let active = Some(path) == paths.last();
        for at in 0..bytes.len() {
            // The zeros of the filler are all alike; a sample of them will do.
            let near = bytes[at.saturating_sub(64)..(at + 64).min(bytes.len())].iter().any(|byte| *byte != 0);
            if !near && !rng.chance(2) {
                continue;
            }
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << rng.below(8);
            let disk = disk.after_kill();
            disk.put(path, damaged);
            let context = format!("byte {at} of {}", path.display());
            assert_named_or_whole(&disk, &whole, None, &context);
            assert_named_or_whole(&disk, &whole, Some(witness), &context);
            if !active {
                continue;
            }
            // Without rows: refused, or nothing lost. With rows: healed, bit for bit, or stray bits
            // in the filler, which no row can speak for.
            let alone = disk.after_kill();
            match open_log(&alone, None, &mut NoDonor) {
                Ok(_) => assert_eq!(read_all(&alone, None).len(), whole.acknowledged.len(), "P3: {context}"),
                Err(Error::Damaged { findings, .. }) => assert!(!findings.is_empty(), "P3: {context}"),
                Err(error) => panic!("{context}: {error}"),
            }
            let opened = open_log(&disk, Some(witness), &mut KnownFrames(frames.clone()));
            if bytes[at] == 0 && !near_frame(&bytes, at) {
                continue;
            }
            assert!(opened.is_ok(), "P9: {context}: {:?}", opened.err());
            assert_eq!(disk.bytes(path), bytes, "P9, bit for bit: {context}");
        }
    }
}

/// Whether a byte lies before the last byte that is not zero: inside the frames or the header.
fn near_frame(bytes: &[u8], at: usize) -> bool {
    bytes[at..].iter().any(|byte| *byte != 0)
}

#[test]
fn zeroed_sectors_and_pages_are_named_or_healed() {
    for seed in 0..12 {
        let (disk, whole, frames, witness) = closed_log(seed, 9);
        for path in segments(&disk) {
            let bytes = disk.bytes(&path);
            for size in [512, 4096] {
                for at in (0..bytes.len()).step_by(size) {
                    if bytes[at..at + size].iter().all(|byte| *byte == 0) {
                        continue;
                    }
                    let mut damaged = bytes.clone();
                    damaged[at..at + size].fill(0);
                    let disk = disk.after_kill();
                    disk.put(&path, damaged);
                    let context = format!("seed {seed}, {size} bytes at {at} of {}", path.display());
                    assert_named_or_whole(&disk, &whole, Some(witness), &context);
                    if Some(&path) == segments(&disk).last() && at >= 8192 {
                        let opened = open_log(&disk, Some(witness), &mut KnownFrames(frames.clone()));
                        assert!(opened.is_ok(), "P9: {context}: {:?}", opened.err());
                        let events = read_all(&disk, Some(witness));
                        assert_eq!(events.len(), whole.acknowledged.len(), "P9: {context}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_lost_tail_comes_back_from_rows_that_fit_the_chain_and_only_from_those() {
    let (disk, whole, frames, witness) = closed_log(3, 4);
    let path = segments(&disk).pop().unwrap();
    let mut bytes = disk.bytes(&path);
    bytes[8192..].fill(0);
    let first = frames.len() as u64 - 2;

    let lost = disk.after_kill();
    lost.put(&path, bytes.clone());
    let (_, recovered) = open_log(&lost, Some(witness), &mut KnownFrames(frames.clone())).unwrap();
    assert!(recovered.healed_events > 0);
    assert_eq!(read_all(&lost, None).len(), whole.acknowledged.len());

    // A row that was changed proves nothing: refused, and named.
    let lost = disk.after_kill();
    lost.put(&path, bytes);
    let mut changed = frames;
    changed.get_mut(&first).unwrap().1[0] ^= 1;
    match open_log(&lost, Some(witness), &mut KnownFrames(changed)) {
        Err(Error::Damaged { findings, .. }) => {
            let beyond =
                findings.iter().find(|finding| finding.kind == FindingKind::AppliedBeyondLog).unwrap();
            assert_eq!(beyond.last_seq.or(beyond.seq), Some(witness.seq));
        }
        other => panic!("{:?}", other.map(|_| ())),
    }
}

#[test]
fn a_read_error_is_never_the_end_of_the_log() {
    let (disk, _, _, _) = closed_log(4, 5);
    for path in segments(&disk) {
        let len = disk.bytes(&path).len() as u64;
        for at in (0..len).step_by(1024) {
            let disk = disk.after_kill();
            disk.fail_reads_at(Some((path.clone(), at)));
            let before = disk.bytes(&path);
            let view = LogView::open(log_on(&disk), None, false);
            let read = view.and_then(|view| {
                let (mut cursor, _) = view.unwrap().cursor(1, false)?;
                while cursor.next()?.is_some() {}
                Ok(())
            });
            assert!(matches!(read, Err(Error::Io { action: "read", .. })), "byte {at}: {read:?}");
            let opened = open_log(&disk, None, &mut NoDonor);
            if Some(&path) == segments(&disk).last() {
                assert!(matches!(opened, Err(Error::Io { .. })), "byte {at}");
            }
            assert_eq!(disk.bytes(&path), before, "nothing was changed");
        }
    }
}

#[test]
fn missing_doubled_foreign_and_short_segments_are_refused_and_named() {
    let (disk, _, _, _) = closed_log(6, 20);
    let paths = segments(&disk);
    assert!(paths.len() >= 3);
    let refuses = |disk: &SimDisk, kind: FindingKind| match open_log(disk, None, &mut NoDonor) {
        Err(Error::Damaged { findings, .. }) => {
            assert!(findings.iter().any(|finding| finding.kind == kind), "{findings:?}");
        }
        other => panic!("{:?}", other.map(|_| ())),
    };
    let missing = disk.after_kill();
    super::super::disk::Disk::remove(&missing, &paths[1]).unwrap();
    refuses(&missing, FindingKind::MissingSegment);
    let doubled = disk.after_kill();
    doubled.put(&paths[2], disk.bytes(&paths[1]));
    refuses(&doubled, FindingKind::BadSegment);
    let short = disk.after_kill();
    let mut cut = disk.bytes(&paths[1]);
    cut.truncate(cut.len() - 1);
    short.put(&paths[1], cut);
    refuses(&short, FindingKind::BadSegment);
    let (other, _, _, _) = closed_log(6, 20);
    let foreign = disk.after_kill();
    foreign.put(&paths[0], other.bytes(&paths[0]));
    refuses(&foreign, FindingKind::BadSegment);
}

#[test]
fn a_full_disk_refuses_a_roll_and_the_handle_lives_on() {
    let disk = SimDisk::default();
    disk.create_parents();
    let (mut writer, _) = open_log(&disk, None, &mut NoDonor).unwrap();
    let event =
        |len: usize| vec![vec![NewEvent { event_kind: 1, version: 1, keyed: false, payload: vec![9; len] }]];
    writer.append(&event(7000), 1).unwrap();
    // Operation 0 is the sync before the roll, 1 makes the file, 2 writes it: no space there.
    disk.set_fault(Some(Fault { at: 2, fatal: false, partial: 0, errno: 28 }));
    let error = writer.roll(7000).unwrap_err();
    assert_eq!(error.outcome(), Outcome::NotWritten);
    assert!(!writer.is_failed());
    disk.set_fault(None);
    writer.append(&event(10), 1).unwrap();
    writer.roll(7000).unwrap();
    assert_eq!(writer.append(&event(7000), 1).unwrap(), 3);
    assert_eq!(read_all(&disk, None).len(), 3);
}

/// P1: the bytes of an acknowledged event are in the durable part of the disk, always.
#[test]
fn an_acknowledgement_follows_a_sync() {
    let disk = SimDisk::default();
    disk.create_parents();
    let (mut writer, _) = open_log(&disk, None, &mut NoDonor).unwrap();
    for number in 0..20_u8 {
        let before = disk.syncs();
        let zeros = number % 5 == 0;
        let payload = if zeros { vec![0; 3000] } else { vec![number; 30] };
        let batch = vec![vec![NewEvent { event_kind: 1, version: 1, keyed: false, payload }]];
        if batch_len(&batch[0]) > writer.room() {
            writer.roll(batch_len(&batch[0])).unwrap();
        }
        let at = disk.syncs();
        writer.append(&batch, 1).unwrap();
        assert_eq!(
            disk.syncs() - at,
            if zeros { 2 } else { 1 },
            "a frame with a zero piece needs a synced mark"
        );
        assert!(disk.syncs() > before);
        // Of a power cut that keeps nothing but what was synced, every event comes back.
        let events = read_all(&disk.after_worst_power_cut(), None);
        assert_eq!(events.len(), usize::from(number) + 1);
    }
    assert!(disk.operations() > 0);
}

fn one(payload: &[u8]) -> Vec<Vec<NewEvent>> {
    vec![vec![NewEvent { event_kind: 1, version: 1, keyed: false, payload: payload.to_vec() }]]
}

/// A payload may hold the bytes of a frame that would be valid just there. When the frame around it is
/// damaged, what is inside must not be taken for an event.
#[test]
fn a_frame_inside_a_payload_is_never_read_as_an_event() {
    let disk = SimDisk::default();
    disk.create_parents();
    let (mut writer, _) = open_log(&disk, None, &mut NoDonor).unwrap();
    writer.append(&one(b"first"), 1).unwrap();
    let outer = writer.position();
    let seed = super::frame::Seed::new(writer.store(), 1);
    let inside = outer.offset + super::frame::HEADER_LEN as u64;
    let mut forged = Vec::new();
    let draft = super::frame::Draft {
        kind: super::frame::FrameKind::Event,
        event_kind: 1,
        version: 1,
        flags: 0,
        seq: outer.seq,
        appended_at: 1,
        durable_end: 8192,
        previous: 77,
        payload: b"forged",
    };
    super::frame::encode(&seed, inside, &draft, &mut forged);
    writer.append(&one(&forged), 1).unwrap();
    writer.append(&one(b"third"), 1).unwrap();
    writer.mark().unwrap();
    let path = segments(&disk).pop().unwrap();
    let mut bytes = disk.bytes(&path);
    bytes[outer.offset as usize + 20] ^= 1;
    disk.put(&path, bytes);
    let view = LogView::open(log_on(&disk), None, false).unwrap().unwrap();
    let (mut cursor, _) = view.cursor(1, false).unwrap();
    let mut found = Vec::new();
    while let Some(entry) = cursor.next().unwrap() {
        match entry {
            Entry::Event { payload, .. } => found.push(String::from_utf8_lossy(payload).into_owned()),
            Entry::Damage(finding) => found.push(format!("damage {:?}", finding.seq)),
            _ => panic!("nothing else is here"),
        }
    }
    assert_eq!(found, ["first", "damage Some(2)", "third"], "P4");
}

/// Beside a live writer only what is proved counts: by a later header, a mark, or a witness.
#[test]
fn a_reader_beside_a_writer_stops_at_what_is_proved() {
    let disk = SimDisk::default();
    disk.create_parents();
    let (mut writer, _) = open_log(&disk, None, &mut NoDonor).unwrap();
    let seen = |witness, live| LogView::open(log_on(&disk), witness, live).unwrap().unwrap().last_seq();
    writer.append(&one(b"one"), 1).unwrap();
    assert_eq!((seen(None, true), seen(None, false)), (0, 1));
    writer.append(&one(b"two"), 1).unwrap();
    assert_eq!((seen(None, true), seen(None, false)), (1, 2));
    let (_, raw, _) = read_all(&disk, None).pop().unwrap();
    let witness = Witness { seq: 2, sum: u32::from_le_bytes([raw[40], raw[41], raw[42], raw[43]]) };
    assert_eq!(seen(Some(witness), true), 2);
    writer.mark().unwrap();
    assert_eq!(seen(None, true), 2);
    writer.append(&one(b"three"), 1).unwrap();
    assert_eq!(seen(None, true), 2);
    writer.note_tail();
    assert_eq!(seen(None, true), 3, "the file `tail` is a witness as well");
}

/// A witness inside a batch proves the whole batch: it lies in one group.
#[test]
fn a_batch_that_was_durable_is_never_cleared_as_unfinished() {
    let disk = SimDisk::default();
    disk.create_parents();
    let (mut writer, _) = open_log(&disk, None, &mut NoDonor).unwrap();
    writer.append(&one(b"first"), 1).unwrap();
    let event = |number: u8| NewEvent { event_kind: 1, version: 1, keyed: false, payload: vec![number; 300] };
    writer.append(&[(1..=9).map(event).collect()], 1).unwrap();
    let events = read_all(&disk, None);
    let (seq, raw, _) = &events[4];
    let witness = Witness { seq: *seq, sum: u32::from_le_bytes([raw[40], raw[41], raw[42], raw[43]]) };
    let path = segments(&disk).pop().unwrap();
    let mut bytes = disk.bytes(&path);
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() / 512 * 512 - 512;
    bytes[end..].fill(0);
    disk.put(&path, bytes.clone());
    let view = LogView::open(log_on(&disk), Some(witness), false).unwrap().unwrap();
    let mut named = super::damage::any_damage(&view.findings);
    let (mut cursor, _) = view.cursor(1, false).unwrap();
    while let Some(entry) = cursor.next().unwrap() {
        named |= matches!(entry, Entry::Damage(_));
    }
    assert!(named, "P3");
    for _ in 0..2 {
        let Err(Error::Damaged { findings, .. }) = open_log(&disk, Some(witness), &mut NoDonor) else {
            panic!("P3: it must be refused");
        };
        assert!(!findings.is_empty());
        assert_eq!(disk.bytes(&path), bytes, "P3: nothing was taken away");
    }
    let frames = events.into_iter().map(|(seq, raw, payload)| (seq, (raw, payload))).collect();
    let last = Witness { seq: 10, ..witness };
    assert!(open_log(&disk, Some(last), &mut KnownFrames(frames)).is_err(), "no proof, no healing");
}
