//! The store over a disk that fails: every waiter is told, nothing is retried, nothing acknowledged
//! is lost (P1, P10). Real threads and a real database stand on the simulated disk.
//!
//! `SYNCLOG_STORE_FAULT_SCRIPTS` is how many scripts, each with every call and error;
//! `SYNCLOG_FAULT_ONE=seed.call.errno.forever.partial` runs one case alone.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Outcome};
use crate::proof::crash::{said, setting};
use crate::proof::disk::{Fault, ReadFault, Rng, SimDisk};
use crate::proof::faults::parse;
use crate::proof::watchdog::{LIMIT, Watchdog};
use crate::sync::{Company, Level, SyncEvent};

use super::{Options, Store};

fn event(number: u64) -> SyncEvent {
    SyncEvent::new(Company::new("g", "a", "n"), Level::Info, format!("event {number}"))
}

fn open(disk: &SimDisk, dir: &Path) -> crate::Result<Store<SyncEvent>> {
    let options = Options::default().segment_bytes(16 * 1024, 32 * 1024);
    Store::open_on(Arc::new(disk.clone()), dir, options, false)
}

fn message(dir: &Path, seq: u64) -> Option<String> {
    let db = crate::projection::open_for_reading(&dir.join("synclog.db"), std::time::Duration::ZERO).ok()?;
    let sql = "SELECT log_message FROM sync_logs WHERE id = ?1";
    db.query_row(sql, [seq as i64], |row| row.get(0)).ok()
}

/// Some operation fails while eight threads append. Then the disk loses power, or not.
#[test]
fn a_failing_operation_is_every_waiters_error_and_final() {
    for seed in 0..60 {
        let mut rng = Rng::new(seed);
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        let disk = SimDisk::default();
        disk.add_dir(&dir);
        let store = open(&disk, &dir).unwrap();
        disk.set_fault(Some(Fault {
            at: rng.below(40),
            fatal: true,
            partial: rng.below(2000) as usize,
            errno: 5,
        }));
        let threads: Vec<_> = (0..8_u64)
            .map(|thread| {
                let store = store.clone();
                std::thread::spawn(move || {
                    let (mut acknowledged, mut refused) = (Vec::new(), Vec::new());
                    for number in 0..30 {
                        let number = thread * 100 + number;
                        match store.append(event(number)) {
                            Ok(receipt) => {
                                assert!(refused.is_empty(), "P10: nothing is taken after a failure");
                                acknowledged.push((receipt.seq, number));
                            }
                            Err(error) => refused.push((error, number)),
                        }
                    }
                    (acknowledged, refused)
                })
            })
            .collect();
        let (mut acknowledged, mut not_written) = (BTreeMap::new(), Vec::new());
        for thread in threads {
            let (mut own, refused) = thread.join().unwrap();
            acknowledged.extend(own.drain(..));
            for (index, (error, number)) in refused.into_iter().enumerate() {
                assert!(index == 0 || error.outcome() == Outcome::NotWritten, "P10: {error}");
                if error.outcome() == Outcome::NotWritten {
                    not_written.push(number);
                }
            }
        }
        if acknowledged.len() < 240 {
            assert!(matches!(store.append(event(9)), Err(Error::Dead { .. })), "seed {seed}");
            assert!(matches!(store.close(), Err(Error::Dead { .. })));
        } else {
            drop(store);
        }
        let disk = if rng.chance(50) { disk.after_kill() } else { disk.after_power_cut(&mut rng) };
        let store = open(&disk, &dir).unwrap_or_else(|error| panic!("P5: seed {seed}: {error}"));
        let last = store.last_seq();
        store.close().unwrap();
        for (seq, number) in &acknowledged {
            assert_eq!(message(&dir, *seq).as_deref(), Some(&*format!("event {number}")), "P1: seed {seed}");
        }
        let messages: Vec<_> = (1..=last).map(|seq| message(&dir, seq).unwrap()).collect();
        for number in not_written {
            assert!(!messages.contains(&format!("event {number}")), "P4: seed {seed}: event {number}");
        }
    }
}

/// A caller who is alone prepares the rows of its group before the sync. Where that fails, nobody ever sees
/// them (P2).
#[test]
fn p2_rows_that_were_prepared_for_a_failed_sync_are_taken_back() {
    let mut failed = 0;
    for at in 0..4 {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        let disk = SimDisk::default();
        disk.add_dir(&dir);
        let store = open(&disk, &dir).unwrap();
        assert!(store.append(event(1)).unwrap().projected);
        disk.set_fault(Some(Fault { at, fatal: false, partial: 0, errno: 5 }));
        if store.append(event(2)).is_ok() {
            continue; // the call behind the sync
        }
        failed += 1;
        let rows = || (1..=3).map(|seq| message(&dir, seq)).collect::<Vec<_>>();
        let only_the_first = [Some("event 1".to_owned()), None, None];
        assert_eq!(rows(), only_the_first, "P2: call {at}");
        assert!(store.close().is_err());
        assert_eq!(rows(), only_the_first, "P2: call {at}, after the close");
        let store = open(&disk.after_kill(), &dir).unwrap();
        assert_eq!(store.append(event(3)).unwrap().seq, store.last_seq());
        store.close().unwrap();
    }
    assert!(failed >= 2, "a write and a sync failed");
}

/// A full disk refuses appends; the handle lives on and takes them when there is room again.
#[test]
fn a_full_disk_refuses_appends_and_closing_needs_no_space() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().canonicalize().unwrap();
    let disk = SimDisk::default();
    disk.add_dir(&dir);
    let store = open(&disk, &dir).unwrap();
    let large = |number| {
        let mut event = event(number);
        event.details = Some("x".repeat(6000));
        event
    };
    store.append(large(1)).unwrap();
    disk.set_full(true);
    let error = store.append(large(2)).unwrap_err();
    assert_eq!(error.outcome(), Outcome::NotWritten, "{error}");
    assert_eq!(store.append(event(3)).unwrap().seq, 2, "what fits into the segment still goes in");
    disk.set_full(false);
    assert_eq!(store.append(large(4)).unwrap().seq, 3);
    disk.set_full(true);
    store.close().unwrap();
    disk.set_full(false);
    assert_eq!(open(&disk, &dir).unwrap().last_seq(), 3);
}

/// What the callers of one store were told.
#[derive(Default)]
struct Told {
    acknowledged: BTreeMap<u64, String>,
    /// May be there or not.
    unknown: Vec<String>,
    not_written: Vec<String>,
}

impl Told {
    fn take(&mut self, messages: Vec<String>, answer: crate::Result<Vec<super::Receipt>>) {
        match answer {
            Ok(receipts) => {
                assert!(self.unknown.is_empty(), "P10: nothing is taken after a failed write or sync");
                assert_eq!(receipts.len(), messages.len());
                let seqs = receipts.iter().map(|receipt| receipt.seq);
                self.acknowledged.extend(seqs.zip(messages));
            }
            Err(error) => match error.outcome() {
                Outcome::NotWritten => self.not_written.extend(messages),
                Outcome::Unknown => self.unknown.extend(messages),
                Outcome::Durable => panic!("nothing dies behind the sync here: {error}"),
            },
        }
    }
}

/// A directory for the database, in memory where there is such a place.
fn database_dir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn tiny_open(disk: &SimDisk, dir: &Path, seed: u64) -> crate::Result<Store<SyncEvent>> {
    // Marks of an idle log come at the close, and in some scripts between appends as well.
    let idle = Duration::from_millis(if seed % 5 == 4 { 1 } else { 60_000 });
    let mut options = Options::default().projection_wait(Duration::from_millis(20));
    options.idle_mark = idle;
    options.limits = crate::log::writer::Limits { first_segment: 12 * 1024, max_segment: 16 * 1024 };
    Store::open_on(Arc::new(disk.clone()), dir, options, false)
}

fn numbered(rng: &mut Rng, next: &mut u64) -> (String, SyncEvent) {
    *next += 1;
    let mut made = event(*next);
    let len = [0, 0, 300, 1500, 3000][rng.below(5) as usize];
    made.details = (len > 0).then(|| "x".repeat(len));
    (made.message.clone(), made)
}

/// Appends, batches, groups that several threads make, and closing.
fn live_through(store: &Store<SyncEvent>, rng: &mut Rng, next: &mut u64, told: &mut Told) {
    for _ in 0..3 + rng.below(2) {
        match rng.below(3) {
            0 => {
                let (message, event) = numbered(rng, next);
                told.take(vec![message], store.append(event).map(|receipt| vec![receipt]));
            }
            1 => {
                let (messages, events): (Vec<_>, Vec<_>) = (0..3).map(|_| numbered(rng, next)).unzip();
                told.take(messages, store.append_all(events));
            }
            _ => {
                let batches: Vec<(Vec<String>, Vec<SyncEvent>)> =
                    (0..4).map(|size| (0..=size % 2).map(|_| numbered(rng, next)).unzip()).collect();
                let waiting: Vec<_> = batches
                    .into_iter()
                    .map(|(messages, events)| {
                        let store = store.clone();
                        let thread = std::thread::spawn(move || store.append_all(events));
                        (messages, thread)
                    })
                    .collect();
                let mut answers: Vec<_> = waiting
                    .into_iter()
                    .map(|(messages, thread)| (messages, thread.join().expect("no panic")))
                    .collect();
                // Those that were acknowledged came before those that were not.
                answers.sort_by_key(|(_, answer)| answer.is_err());
                answers.into_iter().for_each(|(messages, answer)| told.take(messages, answer));
            }
        }
    }
}

fn one_case(seed: u64, fault: Fault) -> bool {
    let mut rng = Rng::new(seed + 77);
    let dir = database_dir();
    let dir = dir.path().canonicalize().unwrap();
    let disk = SimDisk::default();
    disk.add_dir(&dir);
    disk.set_fault(Some(fault));
    let (mut told, mut next) = (Told::default(), 0);
    match tiny_open(&disk, &dir, seed) {
        Ok(store) => {
            live_through(&store, &mut rng, &mut next, &mut told);
            if !told.unknown.is_empty() {
                let (calls, error) = (disk.operations(), store.append(event(0)).unwrap_err());
                assert!(matches!(error, Error::Dead { .. }), "P10: {error}");
                assert_eq!(error.outcome(), Outcome::NotWritten, "P10");
                assert!(matches!(store.close(), Err(Error::Dead { .. })), "P10");
                assert_eq!(disk.operations(), calls, "P10: no mark, no other call after a failure");
            } else if let Err(error) = store.close() {
                assert!(matches!(error, Error::Dead { .. }), "{error}");
            }
        }
        Err(error) => assert!(matches!(error, Error::Io { .. }), "{error}"),
    }
    let hit = disk.hit().is_some();
    let left = match (seed + fault.at + fault.partial as u64 + u64::from(fault.fatal)) % 4 {
        0 => disk.after_kill(),
        1 => disk.after_worst_power_cut(),
        2 => disk.after_power_cut(&mut rng),
        // Once more over pages that a failed sync has left clean, and then the power fails.
        _ => {
            let again = disk.after_kill();
            let store = tiny_open(&again, &dir, seed).unwrap_or_else(|error| panic!("P5: {error}"));
            let (message, event) = numbered(&mut rng, &mut next);
            let before = told.acknowledged.len() as u64;
            let receipt = store.append(event).expect("the disk is sound again");
            assert!(store.wait_projected(Duration::from_mins(1)), "P7: {:?}", store.projection_trouble());
            // What was unknown is settled now: all that lies before the new event is history.
            let unknown = std::mem::take(&mut told.unknown);
            for seq in before + 1..receipt.seq {
                let settled = self::message(&dir, seq).expect("a row");
                assert!(unknown.contains(&settled), "P4: {settled}");
                told.acknowledged.insert(seq, settled);
            }
            told.acknowledged.insert(receipt.seq, message);
            store.close().unwrap();
            again.after_worst_power_cut()
        }
    };
    let store = tiny_open(&left, &dir, seed).unwrap_or_else(|error| panic!("P5: {error}"));
    assert!(store.wait_projected(Duration::from_mins(1)), "P7: {:?}", store.projection_trouble());
    let last = store.last_seq();
    store.close().unwrap();
    let rows: Vec<String> = (1..=last).map(|seq| message(&dir, seq).expect("a row")).collect();
    for (seq, message) in &told.acknowledged {
        assert_eq!(rows.get(*seq as usize - 1), Some(message), "P1: event {seq}");
    }
    for row in &rows {
        assert!(!told.not_written.contains(row), "P4: {row} was not written, and is there");
        let known = told.acknowledged.values().any(|known| known == row) || told.unknown.contains(row);
        assert!(known, "P4: {row}");
    }
    hit
}

/// Every call of a script, until none is hit any more.
#[test]
fn every_call_under_a_store_fails_once_and_from_then_on() {
    let watchdog = Watchdog::new(LIMIT);
    if let Ok(text) = std::env::var("SYNCLOG_FAULT_ONE") {
        let (seed, fault) = parse(&text);
        watchdog.enter(&text);
        one_case(seed, fault);
        return;
    }
    let errors = [(5, 700), (28, 1500), (122, 0), (30, 9999)];
    // Without the number each call gets one error of the four.
    let all = setting("SYNCLOG_STORE_FAULT_SCRIPTS");
    let mut cases = 0;
    for seed in 0..all.unwrap_or(20) {
        let mut hit = true;
        let mut at = 0;
        while hit {
            hit = false;
            for (index, (errno, partial)) in errors.into_iter().enumerate() {
                if all.is_none() && index as u64 != (seed + at) % 4 {
                    continue;
                }
                for fatal in [false, true] {
                    if all.is_none() && fatal != ((seed + at / 4) % 2 == 0) {
                        continue;
                    }
                    let name = format!("{seed}.{at}.{errno}.{}.{partial}", u8::from(fatal));
                    watchdog.enter(&name);
                    let fault = Fault { at, fatal, partial, errno };
                    hit |= catch_unwind(AssertUnwindSafe(|| one_case(seed, fault))).unwrap_or_else(|panic| {
                        panic!("{}\nalone: SYNCLOG_FAULT_ONE={name}", said(panic.as_ref()))
                    });
                    cases += 1;
                }
            }
            at += 1;
        }
    }
    println!("{cases} faults under a store");
}

/// Rows are brought up by reading the log. A read that fails there is no append's failure, is never
/// taken for the log's end, and the rows follow by themselves when it works again. One that fails before a
/// write is that append's failure.
#[test]
fn a_failed_read_while_rows_are_brought_up_loses_no_row() {
    let watchdog = Watchdog::new(LIMIT);
    let mut at = 0;
    loop {
        let mut hit = false;
        for forever in [false, true] {
            watchdog.enter(&format!("read {at}, forever {forever}"));
            let dir = database_dir();
            let dir = dir.path().canonicalize().unwrap();
            let disk = SimDisk::default();
            disk.add_dir(&dir);
            let mut store = tiny_open(&disk, &dir, 0).unwrap();
            disk.set_read_fault(Some(ReadFault { at, forever, errno: 5 }));
            for number in 1..=4 {
                let mut event = event(number);
                event.details = Some("x".repeat(1500));
                let receipt = store.append(event.clone()).or_else(|error| {
                    // The writer looks before it writes, and leaves alone what it cannot read.
                    assert_eq!(error.outcome(), Outcome::NotWritten, "P10: read {at}: {error}");
                    hit |= disk.reads() > at;
                    disk.set_read_fault(None);
                    assert!(store.clone().close().is_err(), "P10: that is final");
                    store = tiny_open(&disk, &dir, 0)?;
                    store.append(event)
                });
                assert_eq!(receipt.unwrap().seq, number, "P1: read {at}, forever {forever}");
            }
            hit |= disk.reads() > at;
            disk.set_read_fault(None);
            assert!(store.wait_projected(Duration::from_mins(1)), "{:?}", store.projection_trouble());
            store.close().unwrap();
            for number in 1..=4 {
                let expected = format!("event {number}");
                assert_eq!(message(&dir, number), Some(expected), "P7: read {at}, forever {forever}");
            }
        }
        if !hit {
            break;
        }
        at += 1;
    }
    assert!(at > 1, "reads were counted");
}
