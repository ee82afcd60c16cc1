//! fjall: an LSM tree with a journal; keys are numbers. `SyncData` is the cheaper of its two durable modes.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use crate::contestant::{Contestant, Result, Setup, Syncs, Unit};

pub struct Fjall {
    db: Database,
    records: Keyspace,
    next: AtomicU64,
    mode: PersistMode,
}

impl Fjall {
    pub fn open(dir: &Path, setup: &Setup<'_>) -> Result<Self> {
        let db = Database::builder(dir).open()?;
        let records = db.keyspace("records", KeyspaceCreateOptions::default)?;
        let mode = if setup.syncs == Syncs::Each { PersistMode::SyncData } else { PersistMode::Buffer };
        Ok(Self { db, records, next: AtomicU64::new(0), mode })
    }
}

impl Contestant for Fjall {
    fn append(&self, _worker: usize, unit: Unit) -> Result<()> {
        let mut batch = self.db.batch().durability(Some(self.mode));
        for record in unit.records()? {
            let key = self.next.fetch_add(1, Ordering::Relaxed).to_be_bytes();
            batch.insert(&self.records, key, record);
        }
        Ok(batch.commit()?)
    }

    fn settle(&self) -> Result<()> {
        Ok(self.db.persist(PersistMode::SyncData)?)
    }
}
