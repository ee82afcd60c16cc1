//! What proves a healed frame, one proof at a time.

use crate::proof::disk::{Frames, SimDisk};
use crate::proof::{KnownFrames, log_on, one, open_log, read_all};

use super::*;

/// A first segment with four events, sealed by a second one; what rows know; where each frame starts.
struct Sealed {
    disk: SimDisk,
    rows: Frames,
    places: Vec<u64>,
    first: SegmentHeader,
    later: SegmentHeader,
}

fn sealed(mark: bool) -> Sealed {
    let disk = SimDisk::default();
    disk.create_parents();
    let (mut writer, _) = open_log(&disk, None, &mut NoDonor).unwrap();
    let mut places = Vec::new();
    for number in 1..=4_u8 {
        places.push(writer.position().offset);
        writer.append(&one(&[number; 40]), 7).unwrap();
    }
    if mark {
        places.push(writer.position().offset);
        writer.mark().unwrap();
    }
    writer.roll(0).unwrap();
    drop(writer);
    let rows = read_all(&disk, None).into_iter().map(|(seq, raw, payload)| (seq, (raw, payload))).collect();
    let header = |number| log_on(&disk).header_of(number).unwrap().unwrap();
    let (first, later) = (header(1), header(2));
    Sealed { disk, rows, places, first, later }
}

impl Sealed {
    /// Damages the headers of the frames at these places.
    fn damage(&self, places: &[usize]) {
        let path = log_on(&self.disk).segment_path(1);
        let mut bytes = self.disk.bytes(&path);
        for place in places {
            // Too many bytes for a mark to be known all the same.
            bytes[self.places[*place] as usize..][..40].fill(0x77);
        }
        self.disk.put(&path, bytes);
    }

    /// The plan from the frame at a place on; its patches by the events that come back.
    fn plan(
        &self,
        place: usize,
        witnesses: [Option<Witness>; 2],
        later: Option<&SegmentHeader>,
        rows: bool,
    ) -> Option<Vec<Option<u64>>> {
        let mut chain = Chain::start_of(&self.first);
        let mut reader = log_on(&self.disk).reader(&self.first).unwrap();
        while chain.offset < self.places[place] {
            chain = Chain::after(chain.offset, &frame_at(&mut reader, &chain).unwrap().unwrap().header);
        }
        let mut known = KnownFrames(if rows { self.rows.clone() } else { Frames::new() });
        let patches = plan(&mut reader, chain, &witnesses, later, &mut known).unwrap();
        patches.map(|patches| patches.into_iter().map(|patch| patch.seq).collect())
    }

    fn witness(&self, seq: u64) -> Witness {
        let raw = &self.rows[&seq].0;
        Witness { seq, sum: u32::from_le_bytes(raw[40..44].try_into().unwrap()) }
    }
}

#[test]
fn the_next_segment_proves_the_end_of_a_sealed_one() {
    let log = sealed(false);
    log.damage(&[2, 3]);
    let later = log.later;
    assert_eq!(log.plan(2, [None, None], Some(&later), true), Some(vec![Some(3), Some(4)]));
    assert_eq!(log.plan(2, [None, None], Some(&later), false), None, "nobody knows them");
    assert_eq!(log.plan(2, [None, None], None, true), None, "nothing proves them");
    // Both the seq and the checksum must be those of the last patch.
    let other_sum = SegmentHeader { previous: later.previous ^ 1, ..later };
    assert_eq!(log.plan(2, [None, None], Some(&other_sum), true), None);
    let other_seq = SegmentHeader { first_seq: later.first_seq + 1, ..later };
    assert_eq!(log.plan(2, [None, None], Some(&other_seq), true), None);
}

#[test]
fn the_next_segment_proves_a_mark_at_the_end_of_a_sealed_one() {
    let log = sealed(true);
    log.damage(&[4]);
    let later = log.later;
    assert_eq!(log.plan(4, [None, None], Some(&later), false), Some(vec![None]));
    assert_eq!(log.plan(4, [None, None], None, false), None);
    let other_sum = SegmentHeader { previous: later.previous ^ 1, ..later };
    assert_eq!(log.plan(4, [None, None], Some(&other_sum), false), None);
    let other_seq = SegmentHeader { first_seq: later.first_seq + 1, ..later };
    assert_eq!(log.plan(4, [None, None], Some(&other_seq), false), None);
    log.damage(&[3]);
    assert_eq!(log.plan(3, [None, None], Some(&later), true), Some(vec![Some(4), None]));
}

#[test]
fn a_sound_header_behind_proves_what_it_names() {
    let log = sealed(false);
    log.damage(&[1]);
    assert_eq!(log.plan(1, [None, None], None, true), Some(vec![Some(2)]));
    assert_eq!(log.plan(1, [None, None], None, false), None);
}

#[test]
fn a_witness_proves_up_to_its_event_and_no_further() {
    let log = sealed(false);
    log.damage(&[1, 2, 3]);
    assert_eq!(log.plan(1, [None, Some(log.witness(3))], None, true), Some(vec![Some(2), Some(3)]));
    assert_eq!(
        log.plan(1, [Some(log.witness(2)), Some(log.witness(3))], None, true),
        Some(vec![Some(2), Some(3)])
    );
    assert_eq!(log.plan(1, [Some(log.witness(1)), None], None, true), None, "it lies before");
    let other = Some(Witness { sum: log.witness(3).sum ^ 1, ..log.witness(3) });
    assert_eq!(log.plan(1, [other, None], None, true), None, "it tells of another history");
}

/// The header is sound, so its checksum proves the body; it is told which event came back.
#[test]
fn a_body_comes_back_by_its_own_header() {
    let log = sealed(false);
    let path = log_on(&log.disk).segment_path(1);
    let mut bytes = log.disk.bytes(&path);
    let at = log.places[2] as usize + HEADER_LEN;
    bytes[at + 3] ^= 1;
    log.disk.put(&path, bytes.clone());
    assert_eq!(log.plan(2, [None, None], None, true), Some(vec![Some(3)]));
    assert_eq!(log.plan(2, [None, None], None, false), None);
    // Damaged padding alone needs nobody: the payload is as it was.
    bytes[at + 3] ^= 1;
    bytes[at + 40 + 3] ^= 1;
    log.disk.put(&path, bytes);
    assert_eq!(log.plan(2, [None, None], None, false), Some(vec![Some(3)]));
    assert_eq!(log.plan(1, [None, None], None, true), None, "the frame there is sound");
}

/// A gap holds nothing but zeros, so its body is known.
#[test]
fn the_body_of_a_gap_is_zeros() {
    let log = sealed(false);
    let path = log_on(&log.disk).segment_path(1);
    let (seed, at) = (frame::Seed::new(log.first.store, 1), log.places[3]);
    let previous = log.witness(3).sum;
    let gap = frame::Gap { events: 1, accepted_at: 9, goes_on: log.later.previous };
    let mut made = Vec::new();
    frame::encode(&seed, at, &Draft::gap(4, gap, FIRST_FRAME, previous, &[0; 40]), &mut made);
    made[HEADER_LEN + 5] = 1;
    let mut bytes = log.disk.bytes(&path);
    bytes[at as usize..][..made.len()].copy_from_slice(&made);
    log.disk.put(&path, bytes);
    assert_eq!(log.plan(3, [None, None], None, false), Some(vec![None]), "and no event came back");
}

/// Where no mark has room none is ever built.
#[test]
fn no_mark_is_built_beyond_the_segments_end() {
    let log = sealed(false);
    for left in [0, 8, MARK_LEN - 8] {
        let mut reader = log_on(&log.disk).reader(&log.first).unwrap();
        let chain = Chain { offset: log.first.size - left, seq: 5, previous: 1, in_batch: false };
        assert!(plan(&mut reader, chain, &[None, None], None, &mut NoDonor).unwrap().is_none(), "{left}");
    }
}
