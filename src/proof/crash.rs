//! The log against kills, power cuts and failing operations, on the simulated disk.
//!
//! Each script appends groups, dies somewhere, and opens again. What must hold is said by the
//! promises: nothing acknowledged is lost (P1, P3), nothing shows up that said `NotWritten`, a batch
//! is whole or absent (P4), and every state that a crash alone leaves opens (P5).

use crate::log::heal::NoDonor;

use super::disk::{Fault, Rng, SimDisk};
use super::{Ledger, log_on, open_log, run_script};

fn scripts() -> u64 {
    std::env::var("SYNCLOG_CRASH_SCRIPTS").ok().and_then(|count| count.parse().ok()).unwrap_or(400)
}

#[test]
fn no_crash_loses_an_acknowledged_event_or_locks_anybody_out() {
    for seed in 0..scripts() {
        let mut rng = Rng::new(seed);
        let mut disk = SimDisk::default();
        disk.create_parents();
        let mut ledger = Ledger::default();
        for life in 0..5 {
            let context = format!("seed {seed}, life {life}");
            let fatal = rng.chance(70);
            let fault = Fault { at: rng.below(25), fatal, partial: rng.below(3000) as usize, errno: 5 };
            disk.set_fault(Some(fault));
            let groups = 1 + rng.below(8);
            // Recovery itself may be what dies.
            let _ = run_script(&disk, &mut rng, &mut ledger, groups);
            disk = if rng.chance(50) { disk.after_kill() } else { disk.after_power_cut(&mut rng) };
            if rng.chance(60) {
                let opened = open_log(&disk, None, &mut NoDonor);
                assert!(opened.is_ok(), "P5: {context}: {:?}", opened.err());
                ledger.check(&disk, &context);
            } else if log_on(&disk).list().unwrap().any {
                // Unknown batches are settled by the first opening that succeeds.
                let mut copy = Ledger {
                    acknowledged: ledger.acknowledged.clone(),
                    unknown: std::mem::take(&mut ledger.unknown),
                };
                let opened = open_log(&disk, None, &mut NoDonor);
                assert!(opened.is_ok(), "P5: {context}: {:?}", opened.err());
                copy.check(&disk, &context);
                ledger = copy;
            }
        }
    }
}
