//! Losses that nothing heals: given up event by event, told ever after, and nothing else is lost (P3).

use std::path::PathBuf;

use crate::disk::Disk as _;
use crate::log::cursor::Entry;
use crate::log::heal::NoDonor;
use crate::log::loss;
use crate::log::survey::Witness;
use crate::log::view::LogView;

use super::disk::{Fault, Rng, SimDisk};
use super::{Ledger, closed_log, log_on, open_log, segments};

/// Events with their payloads, and the seqs that the log says were given up.
type History = (Vec<(u64, Vec<u8>)>, Vec<u64>);

fn history(disk: &SimDisk, context: &str) -> History {
    let view = LogView::open(log_on(disk), None, false).unwrap().unwrap();
    assert!(!crate::log::damage::any_damage(&view.findings), "{context}: {:?}", view.findings);
    let (mut cursor, missing) = view.cursor(1).unwrap();
    assert!(missing.is_empty(), "{context}: {missing:?}");
    let (mut events, mut lost) = (Vec::new(), Vec::new());
    while let Some(entry) = cursor.next().unwrap() {
        match entry {
            Entry::Event { header, payload, .. } => events.push((header.seq, payload.to_vec())),
            Entry::Gap { header, .. } => lost.extend(header.seq..header.next_seq()),
            Entry::Damage(finding) => panic!("{context}: {finding}"),
            _ => panic!("{context}"),
        }
    }
    (events, lost)
}

/// Gives up what is lost; true where there was something and it helped.
fn give_up(disk: &SimDisk, witness: Option<Witness>, context: &str) -> crate::Result<bool> {
    let log = log_on(disk);
    let mut nobody = NoDonor;
    let mut with = super::open_with(witness, &mut nobody);
    let (_, lost) = crate::log::open::repair(&log, &mut with, false)?;
    if lost.is_empty() {
        return Ok(false);
    }
    let Some(plan) = loss::plan(&log, witness, None)? else {
        assert!(log.list()?.segments.is_empty(), "{context}: cannot be given up: {lost:?}");
        return Ok(false);
    };
    loss::give_up(&log, &plan, 1_700_000_000_000_000)?;
    Ok(true)
}

/// Every event is there, unchanged, or was given up; and appends go on behind all of them.
fn check(disk: &SimDisk, whole: &Ledger, witness: Option<Witness>, context: &str) {
    let (mut writer, _) = match open_log(disk, witness, &mut NoDonor) {
        Ok(opened) => opened,
        Err(error) => panic!("P5: {context}: {error}"),
    };
    let (events, lost) = history(disk, context);
    for (seq, payload) in &events {
        assert_eq!(Some(payload), whole.acknowledged.get(seq), "P4: event {seq}, {context}");
    }
    for seq in whole.acknowledged.keys() {
        let there = events.iter().any(|(found, _)| found == seq);
        assert!(there != lost.contains(seq), "P3: event {seq} is there or given up: {context}");
    }
    let seqs: std::collections::BTreeSet<u64> =
        events.iter().map(|(seq, _)| *seq).chain(lost.iter().copied()).collect();
    assert_eq!(seqs.len(), events.len() + lost.len(), "{context}");
    assert_eq!(seqs.last().copied().unwrap_or(0), seqs.len() as u64, "gapless: {context}");
    let next = writer.position().seq;
    assert!(next > *whole.acknowledged.keys().last().unwrap(), "seqs are never used again: {context}");
    if writer.room() < 200 {
        writer.roll(200).unwrap();
    }
    assert_eq!(writer.append(&super::one(b"afterwards"), 1).unwrap(), next, "{context}");
    writer.mark().unwrap();
    drop(writer);
    let again = history(disk, context);
    assert_eq!((again.0.len(), again.1), (events.len() + 1, lost), "{context}");
}

/// A log of several segments with something wrong in it: described, damaged.
fn damaged(rng: &mut Rng, disk: &SimDisk) -> (String, SimDisk) {
    let paths = segments(disk);
    let copy = disk.after_kill();
    let path: &PathBuf = &paths[rng.below(paths.len() as u64) as usize];
    let mut bytes = disk.bytes(path);
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) as u64;
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    let what = match rng.below(6) {
        0 => {
            for _ in 0..=rng.below(5) {
                let at = rng.below(used + 1) as usize;
                bytes.get_mut(at).into_iter().for_each(|byte| *byte ^= 1 << rng.below(8));
            }
            "bits flipped in"
        }
        1 => {
            let at = 8192 + rng.below(used.saturating_sub(8192) + 1) as usize / 512 * 512;
            let end = (at + 512 * (1 + rng.below(6) as usize)).min(bytes.len());
            bytes[at.min(end)..end].fill(0);
            "sectors zeroed in"
        }
        2 => {
            let at = 8192 + rng.below(used.saturating_sub(8192) + 1) as usize;
            let end = (at + 1 + rng.below(3000) as usize).min(bytes.len());
            bytes[at.min(end)..end].iter_mut().for_each(|byte| *byte = rng.next() as u8);
            "noise in"
        }
        3 => {
            bytes.iter_mut().take(8192).for_each(|byte| *byte = 0);
            "no header in"
        }
        4 => {
            bytes.truncate(rng.below(bytes.len() as u64) as usize);
            "cut short:"
        }
        _ if paths.len() > 1 => {
            copy.remove(path).unwrap();
            return (format!("removed: {name}"), copy);
        }
        _ => "nothing in",
    };
    copy.put(path, bytes);
    (format!("{what} {name}"), copy)
}

#[test]
fn p3_what_is_lost_is_given_up_and_told_ever_after() {
    let mut given_up = 0;
    for seed in 0..1500 {
        let mut rng = Rng::new(seed);
        let (disk, whole, _, witness) = closed_log(seed % 40, 4 + seed % 13);
        let (mut what, mut broken) = damaged(&mut rng, &disk);
        if rng.chance(30) {
            let more = damaged(&mut rng, &broken);
            (what, broken) = (format!("{what}; {}", more.0), more.1);
        }
        let witness = rng.chance(70).then_some(witness);
        let context = format!("seed {seed}, witness {}: {what}", witness.is_some());
        match give_up(&broken, witness, &context) {
            Ok(acted) => given_up += u64::from(acted),
            Err(error) => panic!("{context}: {error}"),
        }
        if log_on(&broken).list().unwrap().segments.is_empty() {
            continue; // not one segment is left to go on from
        }
        if witness.is_none() && whole_end_is_gone(&broken, &whole, &context) {
            continue; // nothing in the log tells of what stood at its end
        }
        check(&broken, &whole, witness, &context);
    }
    assert!(given_up > 500, "{given_up} cases had something to give up");
}

/// Whether the newest events went with whole segments, and no witness speaks of them.
fn whole_end_is_gone(disk: &SimDisk, whole: &Ledger, context: &str) -> bool {
    let (events, lost) = history(disk, context);
    let last = events.last().map_or(0, |(seq, _)| *seq).max(lost.last().copied().unwrap_or(0));
    last < *whole.acknowledged.keys().last().unwrap()
}

/// Whatever interrupts it: what is left can be given up again, and no other event is lost.
#[test]
fn p5_giving_up_can_be_interrupted_anywhere() {
    for seed in 0..60 {
        let mut rng = Rng::new(1000 + seed);
        let (disk, whole, _, witness) = closed_log(seed % 10, 14);
        let (what, broken) = damaged(&mut rng, &disk);
        if log_on(&broken).list().unwrap().segments.is_empty() {
            continue;
        }
        for at in 0..40 {
            let torn = broken.after_kill();
            let partial = rng.below(3000) as usize;
            torn.set_fault(Some(Fault { at, fatal: true, partial, errno: 5 }));
            let first = give_up(&torn, Some(witness), &what);
            let context = format!("seed {seed}, died at {at}: {what}");
            let after = if rng.chance(50) { torn.after_kill() } else { torn.after_power_cut(&mut rng) };
            give_up(&after, Some(witness), &context).unwrap_or_else(|error| panic!("{context}: {error}"));
            check(&after, &whole, Some(witness), &context);
            if first.is_ok() {
                break;
            }
        }
    }
}
