//! synclog, with and without its rows.

use std::path::Path;
use std::time::Duration;

use synclog::{Options, Store, SyncEvent};

use crate::contestant::{Contestant, Result, Setup, Syncs, Unit};

/// Longer than any round.
pub const LONG: Duration = Duration::from_secs(3600);

pub struct SynclogStore {
    store: Store<SyncEvent>,
    projected: bool,
    /// Whether each append waits for its rows.
    waits: bool,
}

/// Options of a store without rows.
fn log_only() -> Options {
    Options::default().projection(false)
}

impl SynclogStore {
    /// Where each append is to be on disk, it also waits until its rows are read back. In bulk, rows follow
    /// while the next batch is written, and the round ends when the last of them is there.
    pub fn open(dir: &Path, setup: &Setup<'_>, projected: bool) -> Result<Self> {
        let waits = projected && setup.syncs == Syncs::Each;
        let options = match (projected, waits) {
            (false, _) => log_only(),
            (true, true) => Options::default().projection_wait(LONG),
            (true, false) => Options::default().projection_wait(Duration::ZERO),
        };
        Ok(Self { store: Store::open(dir, options)?, projected, waits })
    }
}

impl Contestant for SynclogStore {
    fn takes_records(&self) -> bool {
        false
    }

    fn append(&self, _worker: usize, unit: Unit) -> Result<()> {
        let receipts = self.store.append_all(unit.events()?)?;
        if self.waits && !receipts.iter().all(|receipt| receipt.projected) {
            return Err("an append came back without its rows".into());
        }
        Ok(())
    }

    fn settle(&self) -> Result<()> {
        if self.projected && !self.store.wait_projected(LONG) {
            return Err("the rows did not follow".into());
        }
        Ok(())
    }
}
