//! Whole segments that are gone, with rows of what was in them: made again where the rows prove it, named where
//! not, and nothing in between (P3, P4, P9).

use std::collections::BTreeSet;

use crate::disk::Disk as _;
use crate::error::{Error, Result};
use crate::finding::{Finding, FindingKind};
use crate::log::cursor::Entry;
use crate::log::deletion::{self, Deletion};
use crate::log::heal::{Donor, DonorFrame, NoDonor};
use crate::log::open::Recovered;
use crate::log::survey::Witness;
use crate::log::view::LogView;
use crate::store_id::StoreId;

use super::disk::{Fault, Frames, Rng, SimDisk};
use super::{Ledger, closed_log, log_on, one, open_log, open_with, read_all, run_script, segments};

/// Rows that know whose they are, and which events are deleted.
#[derive(Clone)]
struct Rows(Frames, StoreId, Vec<(u64, u64)>);

impl Donor for Rows {
    fn frame(&mut self, seq: u64) -> Result<Option<DonorFrame>> {
        let found = self.0.get(&seq).cloned();
        Ok(found.map(|(header, payload)| DonorFrame { header, payload }))
    }

    fn deleted(&mut self, last: u64) -> Result<Vec<(u64, u64)>> {
        Ok(self.2.iter().filter(|(first, _)| *first <= last).map(|(a, b)| (*a, last.min(*b))).collect())
    }

    fn store(&self) -> Option<StoreId> {
        Some(self.1)
    }
}

/// A log of several segments, its rows, its newest event, and the first seq of each segment.
fn log_of(seed: u64) -> (SimDisk, Ledger, Rows, Witness, Vec<u64>) {
    let (disk, whole, frames, witness) = closed_log(seed, 10 + seed % 9);
    let listing = log_on(&disk).list().unwrap().segments;
    let store = listing[0].store;
    (
        disk,
        whole,
        Rows(frames, store, Vec::new()),
        witness,
        listing.iter().map(|header| header.first_seq).collect(),
    )
}

/// The disk without these segments, by their index.
fn without(disk: &SimDisk, gone: &BTreeSet<usize>) -> SimDisk {
    let (paths, disk) = (segments(disk), disk.after_kill());
    gone.iter().for_each(|index| disk.remove(&paths[*index]).unwrap());
    disk.set_fault(None);
    disk
}

fn repair(disk: &SimDisk, witness: Option<Witness>, rows: &Rows) -> Result<(Recovered, Vec<Finding>)> {
    let mut rows = rows.clone();
    crate::log::open::repair(&log_on(disk), &mut open_with(witness, &mut rows), false)
}

/// Every event is there, unchanged, and appends go on behind all of them.
fn assert_whole(disk: &SimDisk, whole: &Ledger, witness: Witness, context: &str) {
    let events = read_all(disk, Some(witness));
    assert_eq!(events.len(), whole.acknowledged.len(), "P9: {context}");
    for (seq, _, payload) in &events {
        assert_eq!(Some(payload), whole.acknowledged.get(seq), "P4: event {seq}, {context}");
    }
    let mut nobody = NoDonor;
    let (mut writer, _) =
        open_log(disk, Some(witness), &mut nobody).unwrap_or_else(|e| panic!("{context}: {e}"));
    if writer.room() < 200 {
        writer.roll(200).unwrap();
    }
    assert_eq!(writer.append(&one(b"afterwards"), 1).unwrap(), witness.seq + 1, "{context}");
}

/// Every set of segments that is not empty.
fn subsets(count: usize) -> impl Iterator<Item = BTreeSet<usize>> {
    (1..1_usize << count).map(move |bits| (0..count).filter(|index| bits >> index & 1 == 1).collect())
}

#[test]
fn p9_any_segments_come_back_from_rows_byte_for_byte() {
    let mut cases = 0;
    for seed in 0..40 {
        let (disk, whole, rows, witness, first_seqs) = log_of(seed);
        let held_nothing = |pair: &[u64]| pair[0] == pair[1];
        if *first_seqs.last().unwrap() > witness.seq || first_seqs.windows(2).any(held_nothing) {
            continue; // of a segment that held nothing no row tells
        }
        let count = first_seqs.len().min(6);
        for gone in subsets(count) {
            let context = format!("seed {seed}, without {gone:?} of {}", first_seqs.len());
            let lost = without(&disk, &gone);
            // A dry run tells the same, and changes nothing.
            let mut donor = rows.clone();
            let mut with = open_with(Some(witness), &mut donor);
            let (dry, named) = crate::log::open::repair(&log_on(&lost), &mut with, true).unwrap();
            assert!(named.is_empty() && lost.operations() == 0, "P11: {context}: {named:?}");
            let (done, named) = repair(&lost, Some(witness), &rows).unwrap();
            assert!(named.is_empty(), "P9: {context}: {named:?}");
            assert_eq!(done.healed_events, dry.healed_events, "{context}");
            let newest = gone.contains(&(first_seqs.len() - 1));
            let cut = done.findings.iter().any(|finding| finding.kind == FindingKind::CutSegment);
            assert_eq!(cut, newest, "whether there was more is told: {context}");
            for path in segments(&disk) {
                let (was, now) = (disk.bytes(&path), lost.bytes(&path));
                // The mark at the log's end holds nothing, and is written when the log is closed.
                let differs = (8192..was.len()).filter(|at| was.get(*at) != now.get(*at)).count();
                assert!(differs == 0 || (newest && differs <= 56), "{context}: {}", path.display());
            }
            assert_whole(&lost, &whole, witness, &context);
            cases += 1;
        }
    }
    assert!(cases > 100, "{cases} cases");
}

/// Rows may be missing as well. Each event is back or named; and where the rows arrive, only what has no row is
/// named.
#[test]
fn p3_what_has_no_row_is_named_and_the_rest_comes_back() {
    let mut holes = 0;
    for seed in 0..400 {
        let mut rng = Rng::new(seed);
        let (disk, whole, mut rows, witness, first_seqs) = log_of(seed % 20);
        let all: Vec<_> = subsets(first_seqs.len().min(6)).collect();
        let gone = &all[rng.below(all.len() as u64) as usize];
        let missing: BTreeSet<u64> = (0..=rng.below(3)).map(|_| 1 + rng.below(witness.seq)).collect();
        missing.iter().for_each(|seq| drop(rows.0.remove(seq)));
        let context = format!("seed {seed}, without {gone:?} of {}, rows {missing:?}", first_seqs.len());
        let lost = without(&disk, gone);
        let (_, named) = repair(&lost, Some(witness), &rows).unwrap();
        let there = readable(&lost, witness, &whole, &context);
        for seq in whole.acknowledged.keys() {
            assert!(there.contains(seq) != names(&named, *seq), "P3: event {seq}, {context}: {named:?}");
        }
        // Rows arrive unless the last one before a sound segment, or the newest one, is missing.
        let arrives = (0..first_seqs.len()).all(|index| {
            let last = first_seqs.get(index + 1).map_or(witness.seq, |next| next - 1);
            !(gone.contains(&index) && !gone.contains(&(index + 1)) && missing.contains(&last))
        });
        // Behind the log's end a missing row leaves the others without a tie to this log, unless they have its last
        // event.
        let kept = (0..first_seqs.len()).rev().find(|index| !gone.contains(index));
        let tied = kept.filter(|kept| kept + 1 < first_seqs.len()).is_none_or(|kept| {
            let (last, seam) = (first_seqs[kept + 1] - 1, first_seqs[kept + 1]);
            !missing.contains(&seam) || (first_seqs[kept] < seam && !missing.contains(&last))
        });
        let arrives = arrives && tied;
        let in_gone = |seq: &&u64| gone.contains(&(first_seqs.partition_point(|first| first <= *seq) - 1));
        if arrives {
            let not_there = whole.acknowledged.keys().filter(|seq| !there.contains(seq));
            // A frame between two holes, or behind one at the log's end, is named by no frame behind it, so no
            // reader can be sure of it.
            let may_be = |seq: &u64| {
                missing.contains(seq)
                    || missing.contains(&(seq + 1))
                    || (*seq == witness.seq && missing.contains(&(seq - 1)))
            };
            assert!(not_there.clone().all(may_be), "P9: {context}: {named:?}");
            let must_be = missing.iter().filter(in_gone);
            assert!(must_be.clone().all(|seq| !there.contains(seq)), "P4: {context}");
            holes += not_there.count();
        }
    }
    assert!(holes > 100, "{holes} events were named beside others that came back");
}

/// What a reader gets, all of it as it was appended.
fn readable(disk: &SimDisk, witness: Witness, whole: &Ledger, context: &str) -> BTreeSet<u64> {
    let mut seqs = BTreeSet::new();
    entries(disk, Some(witness), |entry| {
        if let Entry::Event { header, payload, .. } = entry {
            let known = whole.acknowledged.get(&header.seq).map(Vec::as_slice);
            assert_eq!(Some(*payload), known, "P4: event {}, {context}", header.seq);
            assert!(seqs.insert(header.seq), "P4: {context}");
        }
    });
    seqs
}

/// Rows of another history that goes on from the same segments are no proof: nothing of them gets into the log.
#[test]
fn p4_rows_of_another_history_are_not_written() {
    for seed in 0..20 {
        let (disk, _, rows, witness, first_seqs) = log_of(seed);
        if first_seqs.len() < 3 {
            continue;
        }
        // The last two segments are gone; another copy of the store went on differently from there.
        let kept = without(&disk, &(first_seqs.len() - 2..first_seqs.len()).collect());
        let other = kept.after_kill();
        let _ = other.remove(&log_on(&other).tail_path());
        let (mut writer, _) = open_log(&other, None, &mut NoDonor).unwrap();
        let mut its = rows.clone();
        its.0.retain(|seq, _| *seq < writer.position().seq);
        while writer.position().seq < witness.seq {
            if writer.room() < 1000 {
                writer.roll(1000).unwrap();
            }
            writer.append(&one(&[7; 800]), 1).unwrap();
        }
        drop(writer);
        for (seq, raw, payload) in read_all(&other, None) {
            its.0.insert(seq, (raw, payload));
        }
        let lost = without(&disk, &std::iter::once(first_seqs.len() - 2).collect());
        let before: Vec<_> = segments(&lost).iter().map(|path| lost.bytes(path)).collect();
        let (_, named) = repair(&lost, None, &its).unwrap();
        assert!(!named.is_empty(), "P3: seed {seed}");
        let after: Vec<_> = segments(&lost).iter().map(|path| lost.bytes(path)).collect();
        assert!(before == after, "P4: seed {seed}");
    }
}

/// Whatever interrupts it: no log that is half made again takes an append, and the next repair makes it whole.
#[test]
fn p5_making_segments_again_can_be_interrupted_anywhere() {
    let mut died = 0;
    for seed in 0..16 {
        let mut rng = Rng::new(seed);
        let (disk, whole, rows, witness, first_seqs) = log_of(seed);
        let all: Vec<_> = subsets(first_seqs.len().min(6)).collect();
        let gone = &all[rng.below(all.len() as u64) as usize];
        for at in 0..400 {
            let torn = without(&disk, gone);
            let partial = rng.below(3000) as usize;
            torn.set_fault(Some(Fault { at, fatal: true, partial, errno: 5 }));
            let first = repair(&torn, Some(witness), &rows);
            died += usize::from(first.is_err());
            let context = format!("seed {seed}, without {gone:?}, died at {at}");
            let after = if rng.chance(50) { torn.after_kill() } else { torn.after_power_cut(&mut rng) };
            after.set_fault(None);
            let held = first_seqs.partition_point(|first| *first <= witness.seq);
            let complete = log_on(&after).list().unwrap().segments.len() >= held;
            let mut nobody = NoDonor;
            if !complete && log_on(&after).list().unwrap().any {
                // Even where the rows cannot be read just then.
                let opened = open_log(&after.after_kill(), None, &mut nobody);
                let tail_alone = gone
                    .iter()
                    .min()
                    .is_some_and(|first| (*first..first_seqs.len()).eq(gone.iter().copied()));
                let untouched = segments(&after).len() + gone.len() == first_seqs.len();
                let refused = matches!(opened, Err(Error::Damaged { .. }));
                assert!(refused || (tail_alone && untouched), "P3: {context}");
            }
            let (_, named) =
                repair(&after, Some(witness), &rows).unwrap_or_else(|e| panic!("{context}: {e}"));
            assert!(named.is_empty(), "P9: {context}: {named:?}");
            assert_whole(&after, &whole, witness, &context);
            if first.is_ok() {
                break;
            }
        }
    }
    assert!(died > 100, "{died} repairs were interrupted");
}

/// A log of several segments with deletion records among its events, and rows that have followed all of them.
fn log_with_deletions(seed: u64) -> (SimDisk, Ledger, Rows, Witness, Vec<u64>) {
    let mut rng = Rng::new(seed);
    let disk = SimDisk::default();
    disk.create_parents();
    let mut whole = Ledger::default();
    let mut deleted = Vec::new();
    for _ in 0..6 + rng.below(6) {
        let groups = 1 + rng.below(3);
        run_script(&disk, &mut rng, &mut whole, groups).unwrap();
        if rng.chance(60) {
            let (mut writer, _) = open_log(&disk, None, &mut NoDonor).unwrap();
            let first = 1 + rng.below(writer.position().seq - 1);
            let last = (first + rng.below(3)).min(writer.position().seq - 1);
            writer.append_deletion(&deletion::records(&[(first, last)])[0], 3).unwrap();
            deleted.push((first, last));
        }
    }
    // A record behind the newest event is in every other log.
    if seed.is_multiple_of(2) {
        run_script(&disk, &mut rng, &mut whole, 1).unwrap();
    }
    drop(open_log(&disk, None, &mut NoDonor).unwrap().0.mark());
    let deleted = deletion::merged(deleted);
    let (mut frames, mut witness) = (Frames::new(), None);
    entries(&disk, None, |entry| {
        if let Entry::Event { header, raw, payload } = entry {
            witness = Some(Witness { seq: header.seq, sum: header.sum });
            if !crate::erasures::covers(&deleted, header.seq) {
                frames.insert(header.seq, (raw.to_vec(), payload.to_vec()));
            }
        }
    });
    let listing = log_on(&disk).list().unwrap().segments;
    let first_seqs = listing.iter().map(|header| header.first_seq).collect();
    (disk, whole, Rows(frames, listing[0].store, deleted), witness.unwrap(), first_seqs)
}

fn entries(disk: &SimDisk, witness: Option<Witness>, mut each: impl FnMut(&Entry<'_>)) {
    let view = LogView::open(log_on(disk), witness, false).unwrap();
    let Some(view) = view else { return };
    let (mut cursor, _) = view.cursor(1).unwrap();
    while let Some(entry) = cursor.next().unwrap() {
        each(&entry);
    }
}

/// What the log's own records say.
fn recorded(disk: &SimDisk, witness: Witness) -> Vec<(u64, u64)> {
    let mut found = Vec::new();
    entries(disk, Some(witness), |entry| {
        if let Entry::Deletion { payload } = entry {
            found.extend(Deletion::decode(payload).unwrap().ranges);
        }
    });
    deletion::merged(found)
}

fn names(findings: &[Finding], seq: u64) -> bool {
    findings.iter().any(|finding| {
        finding.seq.is_some_and(|first| (first..=finding.last_seq.unwrap_or(first)).contains(&seq))
    })
}

/// Deletion records have no rows. Where they are lost with segments, they are written anew behind a newest segment
/// that is made again; anywhere else something is named in their place.
#[test]
fn p8_what_was_deleted_stays_deleted_whatever_segments_are_gone() {
    let (mut cases, mut anew, mut holes) = (0, 0, 0);
    for seed in 0..60 {
        let (disk, whole, rows, witness, first_seqs) = log_with_deletions(seed);
        if first_seqs.len() < 2 || rows.2.is_empty() || *first_seqs.last().unwrap() > witness.seq {
            continue;
        }
        assert_eq!(recorded(&disk, witness), rows.2);
        for gone in subsets(first_seqs.len().min(5)) {
            let context =
                format!("seed {seed}, without {gone:?} of {}, deleted {:?}", first_seqs.len(), rows.2);
            let lost = without(&disk, &gone);
            let left = recorded(&lost, witness);
            let (done, named) = repair(&lost, Some(witness), &rows).unwrap();
            let there = readable(&lost, witness, &whole, &context);
            for seq in whole.acknowledged.keys() {
                assert!(there.contains(seq) != names(&named, *seq), "P3: event {seq}, {context}: {named:?}");
            }
            let now = recorded(&lost, witness);
            let cut = done.findings.iter().any(|finding| finding.kind == FindingKind::CutSegment);
            let whole_again = now == rows.2;
            assert!(whole_again || !(cut || named.is_empty()), "P8: {context}: {now:?}, {named:?}");
            cases += 1;
            anew += u64::from(cut && left != rows.2);
            // Events that a lost record had moved are there.
            holes += u64::from(named.iter().any(|finding| finding.seq.is_none()));
            let again = repair(&lost, Some(witness), &rows).unwrap();
            assert_eq!((recorded(&lost, witness), again.1.len()), (now, named.len()), "once: {context}");
        }
    }
    assert!(cases > 100 && anew > 50 && holes > 50, "{cases} cases, {anew} written anew, {holes} holes");
}

/// Whatever interrupts it: the events are never back without what deletes them.
#[test]
fn p8_no_interruption_comes_between_events_and_their_deletion() {
    let (mut died, mut back) = (0, 0);
    for seed in 0..24 {
        let mut rng = Rng::new(seed);
        let (disk, _, rows, witness, first_seqs) = log_with_deletions(seed);
        let newest = first_seqs.len() - 1;
        if newest == 0 || rows.2.is_empty() || first_seqs[newest] > witness.seq {
            continue;
        }
        let gone = BTreeSet::from([newest]);
        for at in 0..100 {
            let torn = without(&disk, &gone);
            let partial = rng.below(3000) as usize;
            torn.set_fault(Some(Fault { at, fatal: true, partial, errno: 5 }));
            let first = repair(&torn, Some(witness), &rows);
            died += usize::from(first.is_err());
            let after = if rng.chance(50) { torn.after_kill() } else { torn.after_power_cut(&mut rng) };
            after.set_fault(None);
            if segments(&after).len() > newest {
                back += 1;
                let context = format!("seed {seed}, died at {at}");
                assert_eq!(recorded(&after, witness), rows.2, "P8: {context}");
            }
            if first.is_ok() {
                break;
            }
        }
    }
    assert!(died > 50 && back > 10, "{died} repairs were interrupted, {back} times the segment was back");
}

/// A row that would stand behind a hole at the log's end is of this log only if the rows have its last event: a
/// hole may as well be the place where another history begins.
#[test]
fn p4_an_event_behind_a_hole_is_not_taken_from_another_history() {
    let mut met = 0;
    for seed in 0..20 {
        let (disk, _, _, witness, first_seqs) = log_of(seed);
        if first_seqs.len() < 2 || first_seqs[first_seqs.len() - 1] > witness.seq {
            continue;
        }
        let newest = first_seqs.len() - 1;
        let kept = without(&disk, &BTreeSet::from([newest]));
        // Another copy of the store went on from there: with a deletion, and an event in a new segment.
        let other = kept.after_kill();
        let _ = other.remove(&log_on(&other).tail_path());
        let (mut writer, _) = open_log(&other, None, &mut NoDonor).unwrap();
        writer.append_deletion(&deletion::records(&[(1, 1)])[0], 3).unwrap();
        writer.roll(3000).unwrap();
        let seam = writer.position().seq;
        writer.append(&one(&[7; 300]), 1).unwrap();
        drop(writer);
        let (mut frames, mut seen) = (Frames::new(), witness);
        entries(&other, None, |entry| {
            if let Entry::Event { header, raw, payload } = entry
                && header.seq >= seam
            {
                frames.insert(header.seq, (raw.to_vec(), payload.to_vec()));
                seen = Witness { seq: header.seq, sum: header.sum };
            }
        });
        // The rows have nothing of what this log has.
        let rows = Rows(frames, log_on(&kept).list().unwrap().segments[0].store, Vec::new());
        let lost = kept.after_kill();
        lost.set_fault(None);
        let _ = lost.remove(&log_on(&lost).tail_path());
        let before = segments(&lost).len();
        let (_, named) = repair(&lost, Some(seen), &rows).unwrap();
        assert!(!named.is_empty() && segments(&lost).len() == before, "P3, P4: seed {seed}: {named:?}");
        met += 1;
    }
    assert!(met > 5, "{met}");
}
