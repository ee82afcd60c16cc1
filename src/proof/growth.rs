//! What damage costs that somebody has made on purpose, or that has no end (P12): calls and bytes are counted on the
//! simulated disk, for a log and for one that is several times as large.

use crate::log::cursor::Entry;
use crate::log::frame::{Draft, FrameKind, HEADER_LEN, MARK_LEN, SUMMED, Seed, encode, frame_len};
use crate::log::heal::NoDonor;
use crate::log::loss;
use crate::log::open::{create_as, repair};
use crate::log::segment::FIRST_FRAME;
use crate::log::view::LogView;
use crate::log::writer::{Limits, LogWriter};
use crate::store_id::StoreId;

use super::disk::{Frames, SimDisk};
use super::{KnownFrames, LIMITS, log_on, one, open_with, read_all, segments};

/// The larger log is so many times as large as the smaller one, and may cost a quarter more than that.
const TIMES: u64 = 4;

fn is_linear(what: &str, small: u64, large: u64) {
    assert!(small > 0 && large <= small * TIMES + small * TIMES / 4, "{what}: {small}, then {large}");
}

fn new_log(limits: Limits) -> (SimDisk, LogWriter) {
    let disk = SimDisk::default();
    disk.create_parents();
    let (writer, _) = create_as(&log_on(&disk), limits, 1, StoreId([7; 16])).unwrap();
    (disk, writer)
}

/// Everything that can be read, and how many losses are named on the way.
fn read_through(disk: &SimDisk) -> (u64, Vec<String>) {
    let view = LogView::open(log_on(disk), None, false).unwrap().unwrap();
    let (mut cursor, missing) = view.cursor(1).unwrap();
    let (mut events, mut named) = (0, missing.iter().map(ToString::to_string).collect::<Vec<_>>());
    while let Some(entry) = cursor.next().unwrap() {
        match entry {
            Entry::Event { .. } => events += 1,
            Entry::Damage(finding) => named.push(finding.to_string()),
            _ => {}
        }
    }
    (events, named)
}

#[test]
fn missing_segments_are_listed_once_and_not_once_each() {
    let cost = |count: u64| {
        let (disk, mut writer) = new_log(LIMITS);
        for number in 1..=count {
            writer.append(&one(&[number as u8; 30]), 1).unwrap();
            if number < count {
                writer.roll(100).unwrap();
            }
        }
        writer.mark().unwrap();
        drop(writer);
        for path in segments(&disk).iter().skip(1).step_by(2).take(count as usize / 2 - 1) {
            disk.meddle(|tree| tree.remove(path)).unwrap();
        }
        let counted = |work: &dyn Fn()| {
            disk.set_read_fault(None);
            work();
            disk.reads()
        };
        let missing = count / 2 - 1;
        [
            counted(&|| {
                let (events, named) = read_through(&disk);
                assert_eq!((events, named.len() as u64), (count - missing, missing));
            }),
            counted(&|| {
                let (_, lost) = repair(&log_on(&disk), &mut open_with(None, &mut NoDonor), true).unwrap();
                assert!(lost.len() as u64 >= missing);
            }),
            counted(&|| {
                let losses = loss::plan(&log_on(&disk), None, None).unwrap().unwrap();
                assert_eq!(losses.events(), missing);
            }),
        ]
    };
    let (small, large) = (cost(40), cost(40 * TIMES));
    for (at, what) in ["reading", "a repair", "what would be lost"].into_iter().enumerate() {
        is_linear(what, small[at], large[at]);
    }
}

#[test]
fn a_repair_surveys_a_segment_once_and_not_once_for_each_frame() {
    let cost = |count: u64| {
        let (disk, places) = two_segments(count);
        let all = read_all(&disk, None);
        let frames: Frames =
            all.iter().map(|(seq, raw, payload)| (*seq, (raw.clone(), payload.clone()))).collect();
        let path = segments(&disk).remove(0);
        disk.damage(&path, |bytes| {
            for at in places.iter().step_by(2) {
                bytes[*at..*at + HEADER_LEN].fill(0xEE);
            }
        });
        disk.set_read_fault(None);
        let mut donor = KnownFrames(frames);
        let (done, lost) = repair(&log_on(&disk), &mut open_with(None, &mut donor), false).unwrap();
        assert!(lost.is_empty(), "{lost:?}");
        assert_eq!(done.healed_events, count.div_ceil(2));
        assert!(done.quarantined.len() <= 2, "{:?}", done.quarantined);
        let read = disk.bytes_read();
        assert_eq!(read_all(&disk, None), all);
        read
    };
    // Each heal reads its window anew.
    is_linear("bytes", cost(1000), cost(1000 * TIMES));
}

/// A log of one segment with so many events and one behind it, and where each event stands.
fn two_segments(count: u64) -> (SimDisk, Vec<usize>) {
    let size = (FIRST_FRAME + (count + 2) * frame_len(200)).next_multiple_of(4096);
    let (disk, mut writer) = new_log(Limits { first_segment: size, max_segment: size });
    let mut places = Vec::new();
    for number in 1..=count {
        places.push(writer.position().offset as usize);
        writer.append(&one(&[number as u8 | 1; 200]), 1).unwrap();
    }
    writer.roll(100).unwrap();
    writer.append(&one(b"behind"), 1).unwrap();
    writer.mark().unwrap();
    (disk, places)
}

#[test]
fn giving_up_surveys_a_segment_once_and_not_once_for_each_loss() {
    let cost = |count: u64| {
        let (disk, places) = two_segments(count);
        let path = segments(&disk).remove(0);
        disk.damage(&path, |bytes| {
            for at in places.iter().step_by(4) {
                bytes[*at..*at + HEADER_LEN].fill(0xEE);
            }
        });
        let log = log_on(&disk);
        disk.set_read_fault(None);
        let losses = loss::plan(&log, None, None).unwrap().unwrap();
        assert_eq!(losses.events(), count.div_ceil(4));
        let done = loss::give_up(&log, &losses, 1_000_000).unwrap();
        assert!(done.quarantined.len() <= 2, "{:?}", done.quarantined);
        let read = disk.bytes_read();
        assert_eq!(read_through(&disk), (count + 1 - losses.events(), Vec::new()));
        read
    };
    is_linear("bytes", cost(1000), cost(1000 * TIMES));
}

/// A header at this place for a frame that reaches to `end`, with this checksum: the field that names the frame
/// before it is free, and the checksum is linear in it.
fn forged(seed: &Seed, at: u64, end: u64, sum: Option<u32>) -> (Vec<u8>, u32) {
    let payload = vec![0; (end - at) as usize - HEADER_LEN - 1];
    let make = |previous: u32| {
        let draft = Draft {
            kind: FrameKind::Event,
            event_kind: 1,
            version: 1,
            flags: 0,
            seq: 9,
            appended_at: 1,
            durable_end: FIRST_FRAME as u32,
            previous,
            payload: &payload,
        };
        let mut bytes = Vec::new();
        let sum = encode(seed, at, &draft, &mut bytes);
        bytes.truncate(HEADER_LEN);
        (bytes, sum)
    };
    let (_, plain) = make(0);
    // Gaussian elimination: which bits of `previous` change which bits of the checksum.
    let mut rows: Vec<(u32, u32)> = (0..32).map(|bit| (make(1 << bit).1 ^ plain, 1 << bit)).collect();
    let (mut wanted, mut previous) = (sum.unwrap_or(plain) ^ plain, 0);
    for bit in 0..32 {
        let Some(found) = rows.iter().position(|(effect, _)| effect >> bit & 1 == 1) else { continue };
        let (effect, cause) = rows.swap_remove(found);
        for row in rows.iter_mut().filter(|(other, _)| other >> bit & 1 == 1) {
            *row = (row.0 ^ effect, row.1 ^ cause);
        }
        if wanted >> bit & 1 == 1 {
            (wanted, previous) = (wanted ^ effect, previous ^ cause);
        }
    }
    assert_eq!(wanted, 0);
    make(previous)
}

/// Headers that all claim the rest of the segment as their body, and are all named by one behind it.
#[test]
fn the_search_for_sound_frames_reads_no_body_for_each_header() {
    const SIZE: u64 = 256 * 1024;
    const END: u64 = SIZE - 8192;
    for named in [false, true] {
        let (disk, mut writer) = new_log(Limits { first_segment: SIZE, max_segment: SIZE });
        writer.append(&one(b"one"), 1).unwrap();
        writer.roll(100).unwrap();
        writer.append(&one(b"two"), 1).unwrap();
        writer.mark().unwrap();
        drop(writer);
        let path = segments(&disk).remove(0);
        let seed = Seed::new(StoreId([7; 16]), 1);
        let mut sum = None;
        disk.damage(&path, |bytes| {
            bytes[FIRST_FRAME as usize..FIRST_FRAME as usize + HEADER_LEN].fill(0xEE);
            for at in (FIRST_FRAME + 4096..).step_by(1024).take(60) {
                let (header, own) = forged(&seed, at, END, sum);
                sum = sum.or(named.then_some(own));
                assert!(!named || sum == Some(own));
                bytes[at as usize..at as usize + HEADER_LEN].copy_from_slice(&header);
            }
            if let Some(sum) = sum {
                let mut mark = Vec::new();
                encode(&seed, END, &Draft::mark(END, 10, sum), &mut mark);
                bytes[END as usize..][..MARK_LEN as usize].copy_from_slice(&mark);
            }
        });
        disk.set_read_fault(None);
        SUMMED.set(0);
        let (events, losses) = read_through(&disk);
        assert!(events >= 1 && !losses.is_empty(), "{losses:?}");
        let (read, summed) = (disk.bytes_read(), SUMMED.get());
        assert!(read < 8 * SIZE && summed < 8 * SIZE, "{named}: {read} bytes read, checksums of {summed}");
        assert_eq!(losses.iter().any(|loss| loss.contains("was not searched")), named, "{losses:?}");
    }
}
