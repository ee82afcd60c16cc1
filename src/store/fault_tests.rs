//! The store over a disk that fails: every waiter is told, nothing is retried, nothing acknowledged
//! is lost (P1, P10).

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Outcome};
use crate::proof::disk::{Fault, Rng, SimDisk};
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
