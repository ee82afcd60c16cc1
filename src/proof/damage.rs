//! Damaged bytes: each piece of damage is named, or healed bit for bit, or has cost nothing (P3, P9).

use crate::disk::Disk as _;
use crate::error::Error;
use crate::finding::FindingKind;
use crate::log::cursor::Entry;
use crate::log::heal::NoDonor;
use crate::log::survey::Witness;
use crate::log::view::LogView;
use crate::log::writer::NewEvent;

use super::disk::{Frames, Rng, SimDisk};
use super::{KnownFrames, Ledger, closed_log, log_on, one, open_log, read_all, segments};

/// What reading a damaged log may give: all events, or fewer and a finding that says so.
fn assert_named_or_whole(disk: &SimDisk, whole: &Ledger, witness: Option<Witness>, context: &str) {
    let view = match LogView::open(log_on(disk), witness, false) {
        Ok(Some(view)) => view,
        Ok(None) | Err(Error::NewerFormat { .. }) => return,
        Err(error) => panic!("{context}: {error}"),
    };
    let (mut cursor, missing) = view.cursor(1).unwrap();
    let mut named = crate::log::damage::any_damage(&view.findings) || !missing.is_empty();
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
            Entry::Deletion { .. } | Entry::Gap { .. } => panic!("{context}"),
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
    missing.remove(&paths[1]).unwrap();
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

/// A payload may hold the bytes of a frame that would be valid just there. When the frame around it is
/// damaged, what is inside must not be taken for an event.
#[test]
fn a_frame_inside_a_payload_is_never_read_as_an_event() {
    let disk = SimDisk::default();
    disk.create_parents();
    let (mut writer, _) = open_log(&disk, None, &mut NoDonor).unwrap();
    writer.append(&one(b"first"), 1).unwrap();
    let outer = writer.position();
    let seed = crate::log::frame::Seed::new(writer.store(), 1);
    let inside = outer.offset + crate::log::frame::HEADER_LEN as u64;
    let mut forged = Vec::new();
    let draft = crate::log::frame::Draft {
        kind: crate::log::frame::FrameKind::Event,
        event_kind: 1,
        version: 1,
        flags: 0,
        seq: outer.seq,
        appended_at: 1,
        durable_end: 8192,
        previous: 77,
        payload: b"forged",
    };
    crate::log::frame::encode(&seed, inside, &draft, &mut forged);
    writer.append(&one(&forged), 1).unwrap();
    writer.append(&one(b"third"), 1).unwrap();
    writer.mark().unwrap();
    let path = segments(&disk).pop().unwrap();
    let mut bytes = disk.bytes(&path);
    bytes[outer.offset as usize + 20] ^= 1;
    disk.put(&path, bytes);
    let view = LogView::open(log_on(&disk), None, false).unwrap().unwrap();
    let (mut cursor, _) = view.cursor(1).unwrap();
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
    let mut named = crate::log::damage::any_damage(&view.findings);
    let (mut cursor, _) = view.cursor(1).unwrap();
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
    let frames: Frames = events.into_iter().map(|(seq, raw, payload)| (seq, (raw, payload))).collect();
    let mut spoiled = frames.clone();
    spoiled.values_mut().for_each(|(_, payload)| payload[0] ^= 1);
    let last = Witness { seq: 10, ..witness };
    assert!(open_log(&disk, Some(last), &mut KnownFrames(spoiled)).is_err(), "no proof, no healing");
    // Rows that sit on the log's end, each on the one before, need no applied seq.
    let (_, recovered) = open_log(&disk, None, &mut KnownFrames(frames)).unwrap();
    assert!(recovered.healed_events > 0, "P9");
}

/// Where nothing proves the last group, and a bit of it is wrong, none of its events can be given out:
/// all of them are named, those before and behind the damaged one as well.
#[test]
fn damage_in_the_last_group_names_the_whole_group() {
    let disk = SimDisk::default();
    disk.create_parents();
    let (mut writer, _) = open_log(&disk, None, &mut NoDonor).unwrap();
    writer.append(&one(b"first"), 1).unwrap();
    let event = |number: u8| NewEvent { event_kind: 1, version: 1, keyed: false, payload: vec![number; 30] };
    writer.append(&[(2..=5).map(event).collect(), (6..=7).map(event).collect()], 1).unwrap();
    let path = segments(&disk).pop().unwrap();
    let bytes = disk.bytes(&path);
    let places: Vec<usize> =
        (2..=7).map(|number| bytes.windows(30).position(|found| found == [number; 30]).unwrap()).collect();
    for (index, place) in places.iter().enumerate() {
        for at in [*place, place - 20] {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            disk.put(&path, damaged);
            let context = format!("event {}, byte {at}", index + 2);
            let named = |findings: &[crate::finding::Finding]| {
                let damage =
                    findings.iter().find(|finding| finding.kind == FindingKind::DamagedFrame).unwrap();
                (damage.seq, damage.last_seq)
            };
            let view = LogView::open(log_on(&disk), None, false).unwrap().unwrap();
            let given = view.last_seq();
            assert_eq!(given, if index < 4 { 1 } else { 5 }, "P4, whole batches: {context}");
            assert_eq!(named(&view.findings), (Some(given + 1), Some(7)), "P3: {context}");
            let Err(Error::Damaged { findings, .. }) = open_log(&disk, None, &mut NoDonor) else {
                panic!("P3: {context}");
            };
            assert_eq!(named(&findings), (Some(given + 1), Some(7)), "P3: {context}");
        }
    }
}

/// Who reads from an event on is told of damage from there on: not of the event right before it, and
/// never that "no event was in it" where one was.
#[test]
fn a_cursor_is_silent_about_damage_before_its_start() {
    let disk = SimDisk::default();
    disk.create_parents();
    let (mut writer, _) = open_log(&disk, None, &mut NoDonor).unwrap();
    let mut places = Vec::new();
    for number in 1..=5_u8 {
        places.push(writer.position().offset as usize);
        writer.append(&one(&[number; 30]), 1).unwrap();
    }
    writer.mark().unwrap();
    let path = segments(&disk).pop().unwrap();
    let whole = disk.bytes(&path);
    for (event, place) in (1_u64..).zip(places) {
        for at in [place, place + 60] {
            let mut bytes = whole.clone();
            bytes[at] ^= 4;
            disk.put(&path, bytes);
            let view = LogView::open(log_on(&disk), None, false).unwrap().unwrap();
            for from in 1..=6 {
                let (mut cursor, _) = view.cursor(from).unwrap();
                let (mut told, mut given) = (Vec::new(), 0);
                while let Some(entry) = cursor.next().unwrap() {
                    match entry {
                        Entry::Event { .. } => given += 1,
                        Entry::Damage(finding) => told.push(finding.seq),
                        _ => panic!("nothing else is here"),
                    }
                }
                let expected = if event >= from { vec![Some(event)] } else { Vec::new() };
                assert_eq!(told, expected, "event {event}, byte {at}, read from {from}");
                assert_eq!(given, 6 - from - told.len() as u64);
            }
        }
    }
}

/// A file that was cut short tells that something may be missing. Where nothing else does, making it as
/// long as it was would turn that into a sound end of the log.
#[test]
fn a_cut_last_segment_is_never_made_whole_over_a_loss() {
    let (disk, whole, frames, witness) = closed_log(11, 14);
    let path = segments(&disk).pop().unwrap();
    let bytes = disk.bytes(&path);
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let repair = |disk: &SimDisk, witness, donor: &mut dyn crate::log::heal::Donor| {
        let mut with = crate::log::open::OpenLog {
            limits: super::LIMITS,
            witness,
            claim: None,
            donor,
            unread: None,
            trust_log: false,
            tail: None,
        };
        crate::log::open::repair(&log_on(disk), &mut with, false).unwrap().1
    };
    for len in (0..bytes.len()).filter(|len| len % 61 == 0 || len.abs_diff(end) < 70) {
        let cut = disk.after_kill();
        cut.put(&path, bytes[..len].to_vec());
        let context = format!("cut to {len} bytes, frames end at {end}");
        let lost = repair(&cut, None, &mut NoDonor);
        if len > end {
            assert!(lost.is_empty(), "nothing is lost, {context}: {lost:?}");
            assert_eq!(cut.bytes(&path), bytes, "{context}");
        } else {
            let bad = lost.iter().find(|finding| finding.kind == FindingKind::BadSegment);
            assert_eq!(bad.and_then(|bad| bad.file.as_ref()), Some(&path), "P3: {context}: {lost:?}");
            assert_eq!(cut.bytes(&path).len(), len, "P3: {context}");
        }
        // With a witness and rows every event comes back. A piece of the mark behind them could be one of
        // another event: then that one is named.
        if len >= 8192 {
            let cut = disk.after_kill();
            cut.put(&path, bytes[..len].to_vec());
            let lost = repair(&cut, Some(witness), &mut KnownFrames(frames.clone()));
            let all_known = lost.iter().all(|finding| finding.seq > Some(witness.seq));
            assert!(all_known && (lost.is_empty() || len.abs_diff(end) < 60), "P9: {context}: {lost:?}");
            assert_eq!(read_all(&cut, Some(witness)).len(), whole.acknowledged.len(), "P9: {context}");
        }
    }
}
