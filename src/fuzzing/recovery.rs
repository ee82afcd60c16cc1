//! Recovery's decisions against the oracle: the end of a log, made by a script and changed at will, is
//! judged by both, and they must agree on the verdict, the events and every byte that is left.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::StoreId;
use crate::disk::Disk as _;
use crate::error::Error;
use crate::finding::FindingKind;
use crate::log::cursor::Entry;
use crate::log::damage::any_damage;
use crate::log::frame::{self, Draft, FrameKind, HEADER_LEN, Seed};
use crate::log::heal::NoDonor;
use crate::log::open;
use crate::log::recovery::decide;
use crate::log::segment::{self, FIRST_FRAME, HEADER_BLOCK, SegmentHeader, SegmentReader};
use crate::log::survey::{Witness, survey};
use crate::log::view::LogView;
use crate::log::writer::{LogWriter, NewEvent, batch_len};
use crate::proof::disk::{Fault, Rng, SimDisk};
use crate::proof::{LIMITS, log_on, one, open_log, open_with, segments};

use super::oracle::{self, File, Judgement, Verdict};

const STORE: StoreId = StoreId([0x5C; 16]);
const SECTOR: usize = 512;
/// Files of raw input are filled up with zeros to at most this many bytes.
const LARGEST: u64 = 64 * 1024;

/// What is known of a log beside its bytes.
#[derive(Default)]
struct Story {
    /// Every event that was given to the log, by seq from 1 on.
    events: Vec<Vec<u8>>,
    /// How many of them were acknowledged.
    acknowledged: usize,
    /// Nothing happened to it that a crash could not do.
    lawful: bool,
    /// Checksums were made to fit: events may be invented, but everybody must be fooled alike.
    forged: bool,
}

/// The first byte chooses a script (below 240), or bytes as they are for the last segment's file.
pub fn recovery(data: &[u8]) {
    match data.split_first() {
        Some((240.., file)) => raw(file),
        Some((_, tape)) => scripted(&mut Rng::from_tape(tape)),
        None => {}
    }
}

fn fresh() -> SimDisk {
    let disk = SimDisk::default();
    disk.create_parents();
    disk.add_dir(Path::new("/parent/store/log"));
    disk
}

/// The bytes of a segment's file, of which zeros at the end may be left out.
fn raw(file: &[u8]) {
    let Some((choice, file)) = file.split_first() else { return };
    let mut bytes = file.to_vec();
    if file.len() >= 64 {
        let size = u64::from_le_bytes(std::array::from_fn(|index| file[56 + index]));
        bytes.resize((file.len() as u64).max(size.min(LARGEST)) as usize, 0);
    }
    let number = bytes.get(32).map_or(1, |low| u64::from(*low).max(1));
    let disk = fresh();
    disk.put(&log_on(&disk).segment_path(number), bytes);
    let witness = (choice & 1 == 1).then_some(Witness { seq: u64::from(choice >> 1), sum: 1 });
    compare(&disk, witness, &Story { forged: true, ..Story::default() });
}

/// A payload of two choices: its length, and what it is made of. Many zeros on purpose.
pub(super) fn payload(rng: &mut Rng) -> Vec<u8> {
    let len = [1, 5, 40, 130, 457, 1100, 2500, 0][rng.below(8) as usize];
    let kind = rng.next() as u8;
    match kind & 3 {
        0 => vec![0; len],
        1 => vec![kind; len],
        // Zeros inside, so that sectors of zeros come about.
        2 => (0..len).map(|at| if at < 20 || at + 20 > len { kind } else { 0 }).collect(),
        _ => (0..len).map(|at| (at as u8).wrapping_mul(kind)).collect(),
    }
}

pub(super) fn batches(rng: &mut Rng) -> Vec<Vec<NewEvent>> {
    let event = |rng: &mut Rng| NewEvent { event_kind: 1, version: 1, keyed: false, payload: payload(rng) };
    let shape = rng.below(8);
    let (batches, events) = [(1, 1), (1, 1), (1, 2), (2, 1), (1, 3), (2, 2), (3, 1), (1, 5)][shape as usize];
    (0..batches).map(|_| (0..events).map(|_| event(rng)).collect()).collect()
}

/// Makes the first segment, with an id that is always the same.
fn begin(disk: &SimDisk) -> LogWriter {
    let header = SegmentHeader {
        store: STORE,
        number: 1,
        first_seq: 1,
        first_retained: 1,
        size: LIMITS.first_segment,
        created_at: 0,
        previous: 0,
    };
    let log = log_on(disk);
    segment::create(disk, &log.log_dir(), &header).unwrap_or_else(|error| panic!("{error}"));
    open_log(disk, None, &mut NoDonor).unwrap_or_else(|error| panic!("{error}")).0
}

fn scripted(rng: &mut Rng) {
    let mut disk = fresh();
    let mut writer = begin(&disk);
    let mut story = Story { lawful: true, ..Story::default() };
    for _ in 0..=rng.below(6) {
        append(&mut writer, rng, &mut story);
        if rng.chance(30) {
            writer.mark().unwrap_or_else(|error| panic!("{error}"));
        }
    }
    if rng.chance(25) {
        writer.roll(0).unwrap_or_else(|error| panic!("{error}"));
        if rng.chance(40) {
            append(&mut writer, rng, &mut story);
        }
    }
    if rng.chance(50) {
        // The last group dies on its way.
        let at = rng.below(3);
        disk.set_fault(Some(Fault { at, fatal: true, partial: rng.below(16) as usize * 300, errno: 5 }));
        append(&mut writer, rng, &mut story);
        disk = if rng.chance(20) { disk.after_kill() } else { disk.after_power_cut(rng) };
    }
    drop(writer);
    for _ in 0..rng.below(5) {
        change(&disk, rng, &mut story);
    }
    let witness = choose_witness(&disk, rng, &mut story);
    compare(&disk, witness, &story);
}

/// Appends a group; it counts as acknowledged where that succeeds.
fn append(writer: &mut LogWriter, rng: &mut Rng, story: &mut Story) {
    let group = batches(rng);
    let need: u64 = group.iter().map(|batch| batch_len(batch)).sum();
    if need > writer.room() && writer.roll(need).is_err() {
        return;
    }
    story.events.truncate(story.acknowledged);
    story.events.extend(group.iter().flatten().map(|event| event.payload.clone()));
    if writer.append(&group, 7).is_ok() {
        story.acknowledged = story.events.len();
    }
}

/// Offsets where a frame may start, and the end of what was written.
fn places(bytes: &[u8]) -> Vec<usize> {
    let mut found: Vec<usize> = (FIRST_FRAME as usize..bytes.len().saturating_sub(47))
        .step_by(8)
        .filter(|at| bytes[*at] == 0xF1 && bytes[*at + 47] == 0x1F)
        .collect();
    found.push(oracle::last_byte(bytes));
    found
}

/// Changes the last segment that has frames, or the one behind it, in one of many ways.
fn change(disk: &SimDisk, rng: &mut Rng, story: &mut Story) {
    let mut paths = segments(disk);
    let Some(mut path) = paths.pop() else { return };
    if rng.chance(40)
        && let Some(before) = paths.pop()
        && places(&disk.bytes(&path)).len() == 1
    {
        path = before;
    }
    let number = segment::number_of(&path.file_name().unwrap_or_default().to_string_lossy()).unwrap_or(1);
    let mut bytes = disk.bytes(&path);
    let found = places(&bytes);
    let written = (found[found.len() - 1].max(FIRST_FRAME as usize) + 2 * SECTOR).min(bytes.len());
    let frame = found[rng.below(found.len() as u64) as usize];
    let at = match rng.below(4) {
        0 => frame + rng.below(56) as usize,
        1 => rng.below((written / SECTOR) as u64) as usize * SECTOR,
        2 => FIRST_FRAME as usize + rng.below(((written - FIRST_FRAME as usize) / 8) as u64) as usize * 8,
        _ => rng.below(bytes.len() as u64) as usize,
    }
    .min(bytes.len() - 1);
    let sector = at / SECTOR * SECTOR;
    story.lawful = false;
    match rng.below(12) {
        0 => bytes[at] ^= 1 << rng.below(8),
        1 => bytes[at] = rng.next() as u8,
        2 | 3 => bytes[sector..sector + SECTOR].fill(0),
        4 => {
            let end = (at + rng.below(1200) as usize).min(bytes.len());
            bytes[at..end].fill(0);
        }
        5 => bytes[at..].fill(0),
        6 => {
            let from = rng.below((written / SECTOR) as u64) as usize * SECTOR;
            bytes.copy_within(from..from + SECTOR, sector);
        }
        7 => bytes[frame.min(written)..].fill(0),
        8 => erase(&mut bytes, frame),
        9 => {
            story.forged = true;
            forge(&mut bytes, frame.max(FIRST_FRAME as usize) / 8 * 8, number, rng);
        }
        10 => {
            story.forged = true;
            reseal(&mut bytes, at / 8 * 8, number, rng);
        }
        _ => {
            let end = (at + 1 + rng.below(16) as usize).min(bytes.len());
            bytes[at..end].iter_mut().for_each(|byte| *byte = rng.next() as u8);
        }
    }
    disk.put(&path, bytes);
}

/// What erasure leaves of the frame at `at`, if one is there.
fn erase(bytes: &mut [u8], at: usize) {
    let Some(raw) = bytes.get(at + 24..at + 28) else { return };
    let len = u32::from_le_bytes(raw.try_into().unwrap_or_default()) as usize;
    if let Some(payload) = bytes.get_mut(at + HEADER_LEN..at + HEADER_LEN + len) {
        payload.fill(0);
    }
}

/// A frame with fitting checksums where none was written.
fn forge(bytes: &mut [u8], at: usize, number: u64, rng: &mut Rng) {
    let seed = Seed::new(STORE, number);
    let kind =
        [FrameKind::Event, FrameKind::Mark, FrameKind::Deletion, FrameKind::Gap][rng.below(4) as usize];
    let event = kind == FrameKind::Event;
    let content = if kind == FrameKind::Mark { Vec::new() } else { payload(rng) };
    // The chain goes on from the frame before, or from nowhere.
    let before = places(&bytes[..at]).into_iter().rev().find_map(|place| {
        bytes.get(place + 40..place + 44).map(|sum| u32::from_le_bytes(sum.try_into().unwrap_or_default()))
    });
    let back = rng.below(64) * 8;
    let draft = Draft {
        kind,
        event_kind: u16::from(event),
        version: u16::from(event),
        flags: if event { rng.below(4) as u8 } else { 0 },
        seq: 1 + rng.below(30),
        appended_at: if kind == FrameKind::Gap { rng.below(4) as i64 } else { 0 },
        durable_end: if kind == FrameKind::Mark { at as u64 } else { (at as u64).saturating_sub(back) }
            as u32,
        previous: if rng.chance(70) { before.unwrap_or(0) } else { 5 },
        payload: &content,
    };
    let mut made = Vec::new();
    frame::encode(&seed, at as u64, &draft, &mut made);
    if let Some(place) = bytes.get_mut(at..at + made.len()) {
        place.copy_from_slice(&made);
    }
}

/// One byte of a header changed, and its checksum made to fit again.
fn reseal(bytes: &mut [u8], at: usize, number: u64, rng: &mut Rng) {
    let field = [1, 2, 4, 6, 8, 16, 24, 25, 28, 29, 32, 36][rng.below(12) as usize];
    let Some(raw) = bytes.get_mut(at..at + HEADER_LEN).filter(|_| at >= FIRST_FRAME as usize) else { return };
    raw[field] = rng.next() as u8;
    let parts = [&raw[..40], &raw[44..]].concat();
    let sum = Seed::new(STORE, number).body_sum(at as u64 - HEADER_LEN as u64, &parts);
    raw[40..44].copy_from_slice(&sum.to_le_bytes());
}

/// Nobody, somebody who has seen an event that was acknowledged, or somebody who tells another story.
fn choose_witness(disk: &SimDisk, rng: &mut Rng, story: &mut Story) -> Option<Witness> {
    let seq = 1 + rng.below(story.acknowledged.max(1) as u64);
    match rng.below(4) {
        0 | 1 => None,
        2 => {
            // Its checksum is in the log, unless that was changed: then it is as good as lost.
            let sum = segments(disk).iter().rev().find_map(|path| {
                let bytes = disk.bytes(path);
                places(&bytes).into_iter().find_map(|at| {
                    let raw = bytes.get(at..at + HEADER_LEN)?;
                    let own = u64::from_le_bytes(raw[8..16].try_into().ok()?);
                    (raw[1] == 1 && own == seq)
                        .then(|| u32::from_le_bytes([raw[40], raw[41], raw[42], raw[43]]))
                })
            });
            (story.acknowledged > 0).then_some(Witness { seq, sum: sum.unwrap_or(0) })
        }
        _ => {
            story.lawful = false;
            Some(Witness { seq: 1 + rng.below(20), sum: 77 })
        }
    }
}

fn verdict_of(row: &str) -> Verdict {
    match row {
        "proved beyond" | "anything else" => Verdict::Corruption,
        "clean end" => Verdict::CleanEnd,
        "filler of a sealed segment" => Verdict::FillerOfSealed,
        "torn tail" => Verdict::TornTail,
        "damaged filler" => Verdict::DamagedFiller,
        other => panic!("{other} is not decided from bytes"),
    }
}

/// One segment's bytes, and what both sides say of them.
struct Judged {
    path: PathBuf,
    bytes: Vec<u8>,
    segment: oracle::Segment,
    judgement: Judgement,
}

/// Has one segment judged by both and compares; `None` where both refuse its file.
fn judge(
    disk: &SimDisk,
    path: &Path,
    witness: Option<Witness>,
    later: Option<SegmentHeader>,
) -> Option<Judged> {
    let name = segment::number_of(&path.file_name()?.to_string_lossy())?;
    let bytes = disk.bytes(path);
    let log = log_on(disk);
    let own = log.list();
    let refused = |listing: &crate::log::directory::Listing| {
        listing.segments.iter().all(|header| header.number != name)
    };
    let (segment, damaged) = match (oracle::file(&bytes, name), own) {
        (File::Newer, Err(Error::NewerFormat { .. })) => return None,
        (File::Refused, Ok(listing)) if refused(&listing) => {
            assert!(any_damage(&listing.refusals), "P3: it is named");
            return None;
        }
        (File::Segment(segment, damaged), Ok(listing)) if !refused(&listing) => {
            let copy = listing.damaged_copies.iter().find(|(number, _)| *number == name);
            assert_eq!(copy.map(|(_, at)| *at as usize), damaged, "the copy of the header");
            (segment, listing.segments)
        }
        // Another segment may be refused.
        (_, Ok(_)) if later.is_some() => return None,
        (_, Err(Error::NewerFormat { .. })) if segments(disk).len() > 1 => return None,
        (oracle, product) => panic!("{oracle:?}, but {:?}", product.map(|listing| listing.refusals)),
    };
    let header = *damaged.iter().find(|header| header.number == name)?;
    assert_eq!(
        (
            header.store.0,
            header.number,
            header.first_seq,
            header.first_retained,
            header.size,
            header.previous
        ),
        (
            segment.store,
            segment.number,
            segment.first_seq,
            segment.first_retained,
            segment.size,
            segment.previous
        )
    );
    let file = disk.open(path, false).unwrap_or_else(|error| panic!("{error}"));
    let mut reader = SegmentReader::new(path.into(), header, Arc::from(file));
    let surveyed = survey(&mut reader, witness, later.as_ref()).unwrap_or_else(|error| panic!("{error}"));
    let judgement = oracle::judge(
        &bytes,
        &segment,
        witness.map(|witness| (witness.seq, witness.sum)),
        later.map(|later| (later.first_seq, later.previous)),
    );
    let row = decide(surveyed.evidence);
    assert_eq!(surveyed.end.offset as usize, judgement.end, "X: {:?}", surveyed.fault);
    assert_eq!(verdict_of(row.name), judgement.verdict, "{}: {surveyed:#?}\n{judgement:?}", row.name);
    assert_eq!(surveyed.proved_end as usize, judgement.proved, "what is proved: {surveyed:?}");
    Some(Judged { path: path.into(), bytes, segment, judgement })
}

fn compare(disk: &SimDisk, witness: Option<Witness>, story: &Story) {
    let paths = segments(disk);
    let Some((last, before)) = paths.split_last() else { return };
    let Some(judged) = judge(disk, last, witness, None) else {
        assert!(!story.lawful, "P5");
        return;
    };
    let log = log_on(disk);
    let listing = log.list().unwrap_or_else(|error| panic!("{error}"));
    check_views(disk, witness, &judged, story);
    if !listing.refusals.is_empty() {
        assert!(!story.lawful, "P5: {:?}", listing.refusals);
        return;
    }
    // Where no frame is left in the last segment, the one before it is judged as well.
    let empty =
        judged.judgement.verdict != Verdict::Corruption && judged.judgement.keep_to == FIRST_FRAME as usize;
    let later = listing.segments.last().copied();
    let sealed = before.last().filter(|_| empty).and_then(|path| judge(disk, path, None, later));
    check_open(disk, witness, &[sealed, Some(judged)], story);
}

/// What readers are shown, beside a live writer and without one.
fn check_views(disk: &SimDisk, witness: Option<Witness>, judged: &Judged, story: &Story) {
    let (judgement, segment) = (&judged.judgement, &judged.segment);
    let live = LogView::open(log_on(disk), witness, true).unwrap_or_else(|error| panic!("{error}"));
    let Some(live) = live else { panic!("there is a segment") };
    let expected = judgement.witness_end.map_or(judgement.proved, |end| end.max(judgement.proved));
    assert_eq!(live.horizon.offset as usize, expected, "how far a reader goes beside a writer");
    if let Some(seq) = judgement.proved_seq.filter(|_| expected == judgement.proved && !story.forged) {
        assert_eq!(live.horizon.seq, seq, "the seq there");
    }
    read_through(&live, story, disk);

    let view = LogView::open(log_on(disk), witness, false).unwrap_or_else(|error| panic!("{error}"));
    let Some(view) = view else { panic!("there is a segment") };
    let (mut events, mut named) = read_through(&view, story, disk);
    if judgement.verdict == Verdict::Corruption {
        named |= any_damage(&view.findings);
        assert!(named, "P3: a damaged log is named: {judgement:?}");
        return;
    }
    assert_eq!((view.horizon.offset as usize, view.horizon.seq), (judgement.keep_to, judgement.next_seq));
    events.retain(|(seq, _)| *seq >= segment.first_seq);
    assert_eq!(events, judgement.events, "P4: what a reader is shown");
}

/// Every event that a view shows, and whether damage was named on the way.
fn read_through(view: &LogView, story: &Story, disk: &SimDisk) -> (Vec<(u64, Vec<u8>)>, bool) {
    let (mut cursor, missing) = view.cursor(1).unwrap_or_else(|error| panic!("{error}"));
    let (mut events, mut named) = (Vec::new(), !missing.is_empty());
    let most = disk.paths().len() * (128 << 10);
    for turn in 0.. {
        assert!(turn < most, "P12: reading ends");
        match cursor.next().unwrap_or_else(|error| panic!("{error}")) {
            None => break,
            Some(Entry::Event { header, payload, .. }) => {
                let before = events.last().map_or(0, |(seq, _): &(u64, Vec<u8>)| *seq);
                assert!(header.seq > before, "P4: in order");
                if !story.forged {
                    let given = story.events.get(header.seq as usize - 1);
                    assert_eq!(given.map(Vec::as_slice), Some(payload), "P4: event {}", header.seq);
                }
                events.push((header.seq, payload.to_vec()));
            }
            Some(Entry::Damage(_) | Entry::Erased { .. }) => named = true,
            Some(Entry::Deletion { .. } | Entry::Gap { .. }) => {}
        }
    }
    (events, named)
}

/// Opens for writing on copies of the disk and compares what is left with the oracle's word.
fn check_open(disk: &SimDisk, witness: Option<Witness>, judged: &[Option<Judged>], story: &Story) {
    let dry = disk.after_kill();
    let mut donor = NoDonor;
    let mut with = open_with(witness, &mut donor);
    let (dry_run, lost) =
        open::repair(&log_on(&dry), &mut with, true).unwrap_or_else(|error| panic!("{error}"));
    for path in disk.paths() {
        assert_eq!(dry.bytes(&path), disk.bytes(&path), "a dry run changes nothing: {}", path.display());
    }
    assert_eq!(dry.paths(), disk.paths(), "a dry run makes nothing");

    let judged: Vec<&Judged> = judged.iter().flatten().collect();
    let corrupt = judged.iter().any(|one| one.judgement.verdict == Verdict::Corruption);
    assert!(!(story.lawful && corrupt), "P5: a crash is no corruption: {:?}", judged[0].judgement);
    let open = disk.after_kill();
    let mut writer = match open_log(&open, witness, &mut NoDonor) {
        Ok((writer, _)) => writer,
        Err(Error::Damaged { findings, .. }) => {
            assert!(corrupt, "only corruption is refused: {findings:?}");
            assert!(any_damage(&findings), "P3: {findings:?}");
            // A dry run cannot look behind what it would heal.
            let healed = dry_run.findings.iter().any(|found| found.kind == FindingKind::HealedFrame);
            assert!(healed || !lost.is_empty(), "what is refused is lost in a dry run as well");
            for one in judged {
                check_refused(&open, one);
            }
            return;
        }
        Err(error) => panic!("{error}"),
    };
    for one in &judged {
        check_left(&open, one, &judged);
    }
    let view = LogView::open(log_on(&open), None, false).unwrap_or_else(|error| panic!("{error}"));
    let Some(view) = view else { panic!("the log is there") };
    let (events, _) = read_through(&view, story, &open);
    if story.lawful {
        assert!(events.len() >= story.acknowledged, "P1: {} of {}", events.len(), story.acknowledged);
    }
    // The log goes on, and nothing that was there is gone.
    let event = one(b"and on");
    if batch_len(&event[0]) > writer.room() {
        writer.roll(batch_len(&event[0])).unwrap_or_else(|error| panic!("{error}"));
    }
    let seq = writer.append(&event, 1).unwrap_or_else(|error| panic!("{error}"));
    drop(writer);
    let mut more = Story { forged: true, ..Story::default() };
    more.events.clone_from(&story.events);
    let view = LogView::open(log_on(&open), None, false).unwrap_or_else(|error| panic!("{error}"));
    let Some(view) = view else { panic!("the log is there") };
    let (mut after, _) = read_through(&view, &more, &open);
    assert_eq!(after.pop(), Some((seq, b"and on".to_vec())), "P1");
    assert_eq!(after, events, "P3");
}

/// What is left of a segment of a log that was refused. It may have been healed in part, or mended before
/// another one turned out to be damaged.
fn check_refused(open: &SimDisk, one: &Judged) {
    let left = open.bytes(&one.path);
    let from = FIRST_FRAME as usize;
    if left[from..] == one.bytes[from..] {
        return;
    }
    if one.judgement.verdict == Verdict::Corruption {
        let File::Segment(segment, _) = oracle::file(&left, one.segment.number) else {
            panic!("a segment is left")
        };
        let again = oracle::judge(&left, &segment, None, None);
        assert!(again.end > one.judgement.end, "P3: refused, and nothing was taken away");
    } else {
        check_left(open, one, &[one]);
    }
}

/// What recovery must leave of one segment: what the oracle keeps, then zeros; the rest in quarantine.
fn check_left(open: &SimDisk, one: &Judged, all: &[&Judged]) {
    let left = open.bytes(&one.path);
    let (first, second) = left[..FIRST_FRAME as usize].split_at(HEADER_BLOCK as usize);
    assert_eq!(first, second, "both copies of the header are whole");
    if all.iter().any(|one| one.judgement.verdict == Verdict::Corruption) {
        // Healed without a donor: marks and padding. Then the oracle finds nothing wrong any more.
        let File::Segment(segment, None) = oracle::file(&left, one.segment.number) else {
            panic!("a segment is left")
        };
        let again = oracle::judge(&left, &segment, None, None);
        // A batch that has no end even after its last frame was healed was never acknowledged.
        assert!(again.end >= one.judgement.keep_to, "nothing is taken away by healing");
        return;
    }
    let keep_to = one.judgement.keep_to;
    let from = FIRST_FRAME as usize;
    assert_eq!(left[from..keep_to], one.bytes[from..keep_to], "what is kept stays as it is");
    assert!(oracle::all_zero(&left[keep_to..]), "zeros behind it");
    let end = oracle::last_byte(&one.bytes);
    if end > keep_to {
        let kept = open.paths().into_iter().any(|path| {
            path.starts_with("/parent/store/quarantine") && open.bytes(&path) == one.bytes[keep_to..end]
        });
        assert!(kept, "what was taken away is kept in quarantine");
    }
}
