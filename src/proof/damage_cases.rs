//! What is damaged, and how: a reference log of four segments, and every way to damage it that
//! [`super::damage_table`] counts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::StoreId;
use crate::log::deletion;
use crate::log::heal::NoDonor;
use crate::log::open::{OpenLog, open};
use crate::log::segment::{SegmentHeader, file_name};
use crate::log::survey::Witness;
use crate::log::writer::{Limits, LogWriter, NewEvent, batch_len};

use super::disk::{Frames, Rng, SimDisk};
use super::{log_on, read_all, segments};

pub(super) const SEGMENTS: usize = 4;
pub(super) const SIZE: usize = 16 * 1024;
const SECTOR: usize = 512;
const SECTORS: usize = SIZE / SECTOR;
pub(super) const FIRST_FRAME: usize = 8192;
pub(super) const HEADER: usize = 48;
/// By how many bytes files are made longer.
const LONGER: [usize; 6] = [1, 7, 48, 512, 4096, 8192];
pub(super) const LIMITS: Limits = Limits { first_segment: SIZE as u64, max_segment: SIZE as u64 };

/// A frame of the reference log, read by the format's specification and not by the product.
pub(super) struct FrameAt {
    pub(super) segment: usize,
    pub(super) start: usize,
    pub(super) end: usize,
    /// What its header proves durable in its segment.
    pub(super) durable_end: usize,
    /// The event in it; `None` for a mark.
    pub(super) seq: Option<u64>,
}

/// A sound log, and all that is known of it.
pub(super) struct Reference {
    pub(super) paths: Vec<PathBuf>,
    pub(super) images: Vec<Vec<u8>>,
    pub(super) frames: Vec<FrameAt>,
    /// Headers as they were written, and payloads as they were given to the writer.
    pub(super) events: Frames,
    /// The newest event, and the newest one of the group before the last.
    pub(super) newest: Witness,
    pub(super) before_last_group: Witness,
    /// The file `tail`, where the log was closed.
    pub(super) tail: Option<Vec<u8>>,
    /// The last segment as it was before each of its groups, oldest first.
    older: Vec<Vec<u8>>,
    /// The segments of another store.
    foreign: Vec<Vec<u8>>,
    /// The events that deletion records cover, and the frames of these records by their index.
    pub(super) deleted: Vec<(u64, u64)>,
    pub(super) records: Vec<usize>,
}

pub(super) fn tail_path() -> PathBuf {
    PathBuf::from("/parent/store/tail")
}

/// An empty store with a fixed identity, so that every run sees the same frames.
fn empty_disk(store: u8) -> SimDisk {
    let disk = SimDisk::default();
    disk.create_parents();
    disk.add_dir(Path::new("/parent/store/log"));
    let header = SegmentHeader {
        store: StoreId([store; 16]),
        number: 1,
        first_seq: 1,
        first_retained: 1,
        size: SIZE as u64,
        created_at: 1,
        previous: 0,
    };
    let mut image = header.encode();
    image.extend_from_slice(&header.encode());
    image.resize(SIZE, 0);
    disk.put(&Path::new("/parent/store/log").join(file_name(1)), image);
    disk
}

fn payload(rng: &mut Rng, len: usize) -> Vec<u8> {
    (0..len).map(|_| if rng.chance(20) { 0 } else { rng.next() as u8 }).collect()
}

/// The groups of the reference log, a realistic mix: lone events, batches, two batches that share a
/// sync, an event that is all zeros (which the writer follows by a synced mark), a large one.
fn group(rng: &mut Rng, number: u64) -> Vec<Vec<NewEvent>> {
    let mut event = |len: u64| {
        let len = len / 2 + rng.below(len);
        NewEvent { event_kind: 1, version: 1, keyed: false, payload: payload(rng, len as usize) }
    };
    match number % 8 {
        1 => vec![vec![event(60), event(150), event(30)]],
        3 => vec![vec![event(100), event(20)], vec![event(200)]],
        5 => vec![vec![NewEvent { event_kind: 2, version: 3, keyed: false, payload: vec![0; 1200] }]],
        6 if number == 14 => vec![vec![event(3500)]],
        _ => vec![vec![event(90)]],
    }
}

impl Reference {
    /// A log that was closed: a mark at its end and a file `tail`. Or one whose writer was killed
    /// right after its last append had been acknowledged.
    pub(super) fn new(closed: bool) -> Self {
        let mut found = Self::of_store(7, closed, false);
        found.foreign = Self::of_store(9, closed, false).images;
        found
    }

    /// A closed log with deletion records in each segment, the last one behind its newest event.
    pub(super) fn with_deletions() -> Self {
        let mut found = Self::of_store(7, true, true);
        found.foreign = Self::of_store(9, true, true).images;
        found
    }

    fn of_store(store: u8, closed: bool, deletions: bool) -> Self {
        let mut rng = Rng::new(42);
        let disk = empty_disk(store);
        let with = OpenLog {
            limits: LIMITS,
            witness: None,
            claim: None,
            donor: &mut NoDonor,
            unread: None,
            trust_log: false,
            tail: None,
        };
        let (mut writer, _) = open(&log_on(&disk), with).unwrap();
        let (mut given, mut older) = (BTreeMap::new(), Vec::new());
        let (mut newest, mut before_last_group) = (0, 0);
        let (mut number, mut deleted) = (0, Vec::new());
        // The last segment is filled to two thirds and ends in a batch.
        while writer.position().segment < SEGMENTS as u64
            || (writer.position().offset as usize) < FIRST_FRAME + 5500
            || number % 8 != 2
        {
            let group = group(&mut rng, number);
            let need: u64 = group.iter().map(|batch| batch_len(batch)).sum();
            if need > writer.room() {
                writer.roll(need).unwrap();
                older.clear();
            }
            older.push(disk.bytes(segments(&disk).last().unwrap()));
            before_last_group = newest;
            newest = append(&mut writer, &group, &mut given);
            if number % 7 == 4 {
                writer.mark().unwrap();
            }
            if deletions && number % 5 == 3 && writer.room() > 200 {
                older.push(disk.bytes(segments(&disk).last().unwrap()));
                delete(&mut writer, newest / 2, &mut deleted);
            }
            number += 1;
        }
        if deletions {
            delete(&mut writer, 1, &mut deleted);
        }
        if closed {
            writer.mark().unwrap();
            writer.note_tail();
        }
        drop(writer);
        let paths = segments(&disk);
        assert_eq!(paths.len(), SEGMENTS);
        let images: Vec<_> = paths.iter().map(|path| disk.bytes(path)).collect();
        let frames: Vec<_> =
            images.iter().enumerate().flat_map(|(index, image)| frames_of(index, image)).collect();
        let is_record = |frame: &FrameAt| images[frame.segment][frame.start + 1] == 3;
        let records: Vec<_> = (0..frames.len()).filter(|index| is_record(&frames[*index])).collect();
        assert_eq!(records.len(), deleted.len());
        let deleted = deletion::merged(deleted);
        let events: Frames =
            read_all(&disk, None).into_iter().map(|(seq, raw, payload)| (seq, (raw, payload))).collect();
        assert_eq!(events.len(), given.len());
        for (seq, payload) in &given {
            assert_eq!(&events[seq].1, payload, "the log holds what was given to it");
        }
        let witness = |seq: u64| {
            let raw = &events[&seq].0;
            Witness { seq, sum: u32::from_le_bytes([raw[40], raw[41], raw[42], raw[43]]) }
        };
        Self {
            newest: witness(newest),
            before_last_group: witness(before_last_group),
            tail: closed.then(|| disk.bytes(&tail_path())),
            foreign: Vec::new(),
            paths,
            images,
            frames,
            events,
            older,
            deleted,
            records,
        }
    }

    /// A disk with this log on it, and with the file `tail` where it is wanted.
    pub(super) fn disk(&self, tail: bool) -> SimDisk {
        let disk = SimDisk::default();
        disk.create_parents();
        disk.add_dir(Path::new("/parent/store/log"));
        for (path, image) in self.paths.iter().zip(&self.images) {
            disk.put(path, image.clone());
        }
        if let Some(tail) = self.tail.clone().filter(|_| tail) {
            disk.put(&tail_path(), tail);
        }
        disk
    }
}

fn delete(writer: &mut LogWriter, seq: u64, deleted: &mut Vec<(u64, u64)>) {
    deleted.push((seq, seq));
    writer.append_deletion(&deletion::records(&deleted[deleted.len() - 1..])[0], 7).unwrap();
}

fn append(writer: &mut LogWriter, group: &[Vec<NewEvent>], given: &mut BTreeMap<u64, Vec<u8>>) -> u64 {
    let first = writer.append(group, 7).unwrap();
    given.extend((first..).zip(group.iter().flatten().map(|event| event.payload.clone())));
    first + group.iter().map(Vec::len).sum::<usize>() as u64 - 1
}

fn u32_at(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]) as usize
}

fn frames_of(segment: usize, image: &[u8]) -> Vec<FrameAt> {
    let (mut frames, mut start) = (Vec::new(), FIRST_FRAME);
    while start + HEADER < image.len() && image[start] != 0 {
        let raw = &image[start..start + HEADER];
        let end = start + HEADER + (u32_at(raw, 24) + 8) / 8 * 8;
        let seq = (raw[1] == 1).then(|| u32_at(raw, 8) as u64);
        frames.push(FrameAt { segment, start, end, durable_end: u32_at(raw, 28), seq });
        start = end;
    }
    frames
}

/// Kinds of damage; the rows of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    BitInHeader,
    BitInFrame,
    BitInFiller,
    SectorZeroed,
    PageZeroed,
    SectorsSwapped,
    Truncated,
    Lengthened,
    Emptied,
    Noise,
    Removed,
    SeveralRemoved,
    CopiedOverAnother,
    ExtraNumber,
    NamesSwapped,
    OtherStore,
    OlderCopy,
}

impl Kind {
    pub(super) const ALL: [Self; 17] = [
        Self::BitInHeader,
        Self::BitInFrame,
        Self::BitInFiller,
        Self::SectorZeroed,
        Self::PageZeroed,
        Self::SectorsSwapped,
        Self::Truncated,
        Self::Lengthened,
        Self::Emptied,
        Self::Noise,
        Self::Removed,
        Self::SeveralRemoved,
        Self::CopiedOverAnother,
        Self::ExtraNumber,
        Self::NamesSwapped,
        Self::OtherStore,
        Self::OlderCopy,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::BitInHeader => "a bit, segment header",
            Self::BitInFrame => "a bit, frame",
            Self::BitInFiller => "a bit, filler",
            Self::SectorZeroed => "512 bytes zeroed",
            Self::PageZeroed => "4 KiB zeroed",
            Self::SectorsSwapped => "two sectors swapped",
            Self::Truncated => "segment cut to a length",
            Self::Lengthened => "segment lengthened",
            Self::Emptied => "segment all zeros",
            Self::Noise => "segment all noise",
            Self::Removed => "segment removed",
            Self::SeveralRemoved => "segments removed",
            Self::CopiedOverAnother => "copied over another",
            Self::ExtraNumber => "copied to a new number",
            Self::NamesSwapped => "names swapped",
            Self::OtherStore => "other store's segment",
            Self::OlderCopy => "older copy of the last",
        }
    }

    /// How many cases there are, some of which may change nothing.
    pub(super) fn cases(self, reference: &Reference) -> usize {
        let pairs = |count: usize| count * (count - 1) / 2;
        match self {
            Self::BitInHeader | Self::BitInFrame | Self::BitInFiller => SEGMENTS * SIZE * 8,
            Self::SectorZeroed => SEGMENTS * SECTORS,
            Self::PageZeroed => SEGMENTS * SIZE / 4096,
            Self::SectorsSwapped => pairs(SEGMENTS * SECTORS),
            Self::Truncated => SEGMENTS * SIZE,
            Self::Lengthened => SEGMENTS * LONGER.len() * 2,
            Self::Emptied | Self::Noise | Self::Removed | Self::OtherStore => SEGMENTS,
            Self::SeveralRemoved => 1 << SEGMENTS,
            Self::CopiedOverAnother | Self::ExtraNumber => SEGMENTS * SEGMENTS,
            Self::NamesSwapped => pairs(SEGMENTS),
            Self::OlderCopy => reference.older.len(),
        }
    }

    /// The files that case `index` changes, with their new bytes, `None` for a file that is gone.
    /// `None` where nothing changes, or where another kind has the case.
    pub(super) fn damage(self, reference: &Reference, index: usize) -> Option<Damage> {
        let images = &reference.images;
        let mut changes: Vec<(usize, Option<Vec<u8>>)> = Vec::new();
        match self {
            Self::BitInHeader | Self::BitInFrame | Self::BitInFiller => {
                let (segment, at) = (index / 8 / SIZE, index / 8 % SIZE);
                let end = reference.frames.iter().rfind(|frame| frame.segment == segment)?.end;
                let kind = match at {
                    0..FIRST_FRAME => Self::BitInHeader,
                    at if at < end => Self::BitInFrame,
                    _ => Self::BitInFiller,
                };
                if kind != self {
                    return None;
                }
                let mut image = images[segment].clone();
                image[at] ^= 1 << (index % 8);
                changes.push((segment, Some(image)));
            }
            Self::SectorZeroed | Self::PageZeroed => {
                let len = if self == Self::SectorZeroed { SECTOR } else { 4096 };
                let (segment, at) = (index * len / SIZE, index * len % SIZE);
                let mut image = images[segment].clone();
                image[at..at + len].fill(0);
                changes.push((segment, Some(image)));
            }
            Self::SectorsSwapped => {
                let (one, other) = pair(index);
                let place = |sector: usize| (sector / SECTORS, sector % SECTORS * SECTOR);
                let ((segment, at), (segment_2, at_2)) = (place(one), place(other));
                let (bytes, bytes_2) =
                    (&images[segment][at..at + SECTOR], &images[segment_2][at_2..at_2 + SECTOR]);
                let mut image = images[segment].clone();
                image[at..at + SECTOR].copy_from_slice(bytes_2);
                if segment == segment_2 {
                    image[at_2..at_2 + SECTOR].copy_from_slice(bytes);
                } else {
                    let mut image_2 = images[segment_2].clone();
                    image_2[at_2..at_2 + SECTOR].copy_from_slice(bytes);
                    changes.push((segment_2, Some(image_2)));
                }
                changes.push((segment, Some(image)));
            }
            Self::Truncated => {
                changes.push((index / SIZE, Some(images[index / SIZE][..index % SIZE].to_vec())));
            }
            // By zeros, or by bytes of the file itself.
            Self::Lengthened => {
                let (segment, how) = (index % SEGMENTS, index / SEGMENTS);
                let mut image = images[segment].clone();
                image.resize(SIZE + LONGER[how / 2], 0);
                if how % 2 == 1 {
                    image.copy_within(FIRST_FRAME..FIRST_FRAME + LONGER[how / 2], SIZE);
                }
                changes.push((segment, Some(image)));
            }
            Self::Emptied => changes.push((index, Some(vec![0; SIZE]))),
            Self::Noise => {
                let mut rng = Rng::new(index as u64);
                changes.push((index, Some((0..SIZE).map(|_| rng.next() as u8).collect())));
            }
            // Several of them, and not all: where none is left, readers have nothing to judge by.
            Self::SeveralRemoved => {
                let gone = (0..SEGMENTS).filter(|segment| index >> segment & 1 == 1);
                if !(2..SEGMENTS).contains(&gone.clone().count()) {
                    return None;
                }
                changes.extend(gone.map(|segment| (segment, None)));
            }
            Self::Removed => changes.push((index, None)),
            Self::CopiedOverAnother => {
                changes.push((index % SEGMENTS, Some(images[index / SEGMENTS].clone())));
            }
            // The next number and some behind it.
            Self::ExtraNumber => {
                changes.push((SEGMENTS + index % SEGMENTS, Some(images[index / SEGMENTS].clone())));
            }
            Self::NamesSwapped => {
                let (one, other) = pair(index);
                changes.push((one, Some(images[other].clone())));
                changes.push((other, Some(images[one].clone())));
            }
            Self::OtherStore => changes.push((index, Some(reference.foreign[index].clone()))),
            Self::OlderCopy => changes.push((SEGMENTS - 1, Some(reference.older[index].clone()))),
        }
        changes.retain(|(segment, image)| images.get(*segment) != image.as_ref());
        (!changes.is_empty()).then_some(Damage(changes))
    }
}

/// The `index`-th pair of different numbers.
fn pair(index: usize) -> (usize, usize) {
    let mut larger = ((2.0 * index as f64 + 0.25).sqrt() + 0.5) as usize;
    while larger * (larger - 1) / 2 > index {
        larger -= 1;
    }
    while larger * (larger + 1) / 2 <= index {
        larger += 1;
    }
    (index - larger * (larger - 1) / 2, larger)
}

/// Changed files: the segment's index, from 0, and its new bytes.
pub(super) struct Damage(pub(super) Vec<(usize, Option<Vec<u8>>)>);

impl Damage {
    /// The disk with this damage.
    pub(super) fn on(&self, disk: &SimDisk) -> SimDisk {
        let disk = disk.after_kill();
        for (segment, image) in &self.0 {
            let path = log_on(&disk).segment_path(*segment as u64 + 1);
            match image {
                Some(image) => disk.put(&path, image.clone()),
                None => crate::disk::Disk::remove(&disk, &path).unwrap(),
            }
        }
        disk.set_fault(None);
        disk
    }

    /// Where the bytes of changed files differ, as far as those reach: segment and offset.
    pub(super) fn places(&self, reference: &Reference) -> Vec<(usize, usize)> {
        let mut places = Vec::new();
        for (segment, image) in &self.0 {
            let (Some(image), Some(whole)) = (image, reference.images.get(*segment)) else { continue };
            for (block, (found, whole)) in image.chunks(SECTOR).zip(whole.chunks(SECTOR)).enumerate() {
                if found != whole {
                    let differ = (0..found.len()).filter(|at| found[*at] != whole[*at]);
                    places.extend(differ.map(|at| (*segment, block * SECTOR + at)));
                }
            }
        }
        places
    }

    /// A segment's bytes with this damage; `None` where it is gone.
    pub(super) fn image<'a>(&'a self, reference: &'a Reference, segment: usize) -> Option<&'a [u8]> {
        match self.0.iter().find(|(changed, _)| *changed == segment) {
            Some((_, image)) => image.as_deref(),
            None => reference.images.get(segment).map(Vec::as_slice),
        }
    }
}

#[test]
fn pairs_are_all_pairs() {
    let found: std::collections::BTreeSet<_> = (0..8128).map(pair).collect();
    assert_eq!(found.len(), 8128);
    assert!(found.iter().all(|(one, other)| one < other && *other < 128));
}
