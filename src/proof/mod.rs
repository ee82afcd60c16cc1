//! The machinery that tries to break the promises: a simulated disk, scripts of a log's life, and
//! what must hold after each of them. Built for tests and for fuzzing alone.
//!
//! [`disk`] is the disk, made of [`sectors`] and a [`tree`] of names; [`disk_tests`] say what it does.
//! [`scripts`] draws what a log lives through, [`check`] says what must hold. [`crash`] takes crashes at
//! every call ([`explorer`] goes through them, [`images`] are what each may leave), [`faults`] calls
//! that fail, [`damage`] damaged bytes, [`loss`] what is given up, [`growth`] counts what damage without an end
//! costs, [`reads`] are the rest. [`outside`] is the clock, and
//! threads that run out.

#![cfg_attr(not(test), allow(dead_code))]

#[cfg(test)]
mod check;
#[cfg(test)]
pub(crate) mod crash;
#[cfg(test)]
mod damage;
#[cfg(test)]
mod damage_cases;
#[cfg(test)]
mod damage_table;
pub(crate) mod disk;
#[cfg(test)]
mod disk_tests;
#[cfg(test)]
mod explorer;
#[cfg(test)]
pub(crate) mod faults;
#[cfg(test)]
mod growth;
#[cfg(test)]
mod images;
#[cfg(test)]
mod loss;
#[cfg(test)]
pub(crate) mod outside;
#[cfg(test)]
mod places;
#[cfg(test)]
mod reads;
#[cfg(test)]
mod remake;
mod rng;
#[cfg(test)]
mod scripts;
pub(crate) mod sectors;
pub(crate) mod tree;
#[cfg(test)]
pub(crate) mod watchdog;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::error::{Outcome, Result};
use crate::log::cursor::Entry;
use crate::log::directory::LogDir;
use crate::log::heal::{Donor, DonorFrame, NoDonor};
use crate::log::open::{OpenLog, Recovered, create, open};
use crate::log::survey::Witness;
use crate::log::view::LogView;
use crate::log::writer::{Limits, LogWriter, NewEvent, batch_len};

use disk::{Frames, Rng, SimDisk};

pub(crate) const LIMITS: Limits = Limits { first_segment: 16 * 1024, max_segment: 32 * 1024 };

pub(crate) fn log_on(disk: &SimDisk) -> LogDir {
    LogDir::new(Arc::new(disk.clone()), Path::new("/parent/store"))
}

pub(crate) struct KnownFrames(pub(crate) Frames);

impl Donor for KnownFrames {
    fn frame(&mut self, seq: u64) -> Result<Option<DonorFrame>> {
        let found = self.0.get(&seq).cloned();
        Ok(found.map(|(header, payload)| DonorFrame { header, payload }))
    }
}

pub(crate) fn open_log(
    disk: &SimDisk,
    witness: Option<Witness>,
    donor: &mut dyn Donor,
) -> Result<(LogWriter, Recovered)> {
    let log = log_on(disk);
    if !log.list()?.any {
        return create(&log, LIMITS, 1);
    }
    open(&log, open_with(witness, donor))
}

pub(crate) fn open_with(witness: Option<Witness>, donor: &mut dyn Donor) -> OpenLog<'_> {
    OpenLog { limits: LIMITS, witness, claim: None, donor, unread: None, trust_log: false, tail: None }
}

/// Every event in the log: seq, header, payload; panics on damage unless `lenient`.
pub(crate) fn read_all(disk: &SimDisk, witness: Option<Witness>) -> Vec<(u64, Vec<u8>, Vec<u8>)> {
    let view = LogView::open(log_on(disk), witness, false).unwrap().unwrap();
    let (mut cursor, missing) = view.cursor(1).unwrap();
    assert!(missing.is_empty(), "{missing:?}");
    let mut events = Vec::new();
    while let Some(entry) = cursor.next().unwrap() {
        match entry {
            Entry::Event { header, raw, payload } => {
                events.push((header.seq, raw.to_vec(), payload.to_vec()));
            }
            Entry::Damage(finding) => panic!("{finding}"),
            Entry::Deletion { .. } => {}
            _ => panic!("neither gaps nor erasures here"),
        }
    }
    events
}

/// Payloads full of zeros on purpose.
pub(crate) fn payload(rng: &mut Rng) -> Vec<u8> {
    let len = [1, 5, 40, 130, 500, 1100, 2500][rng.below(7) as usize];
    let zeros = rng.chance(25);
    (0..len).map(|_| if zeros || rng.chance(60) { 0 } else { rng.next() as u8 }).collect()
}

/// What the script knows of each event it gave to the log.
#[derive(Default)]
pub(crate) struct Ledger {
    pub(crate) acknowledged: BTreeMap<u64, Vec<u8>>,
    /// Batches whose append failed with outcome `Unknown`: their first seq and payloads.
    pub(crate) unknown: Vec<(u64, Vec<Vec<u8>>)>,
}

/// Appends random groups until something fails or `groups` are done.
pub(crate) fn run_script(disk: &SimDisk, rng: &mut Rng, ledger: &mut Ledger, groups: u64) -> Result<()> {
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

/// A log with several segments and a mark at its end, and its frames.
pub(crate) fn closed_log(seed: u64, groups: u64) -> (SimDisk, Ledger, Frames, Witness) {
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

pub(crate) fn segments(disk: &SimDisk) -> Vec<std::path::PathBuf> {
    disk.paths().into_iter().filter(|path| path.extension().is_some_and(|ext| ext == "seg")).collect()
}

pub(crate) fn one(payload: &[u8]) -> Vec<Vec<NewEvent>> {
    vec![vec![NewEvent { event_kind: 1, version: 1, keyed: false, payload: payload.to_vec() }]]
}
