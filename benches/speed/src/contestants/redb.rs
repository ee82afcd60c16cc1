//! redb: a copy-on-write B-tree; keys are numbers. A commit is on disk when it returns.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use redb::{Database, Durability, TableDefinition};

use crate::contestant::{Contestant, Result, Setup, Syncs, Unit};

const RECORDS: TableDefinition<u64, &[u8]> = TableDefinition::new("records");

pub struct Redb {
    db: Database,
    next: AtomicU64,
    durability: fn() -> Durability,
}

impl Redb {
    pub fn open(dir: &Path, setup: &Setup<'_>) -> Result<Self> {
        let durability =
            if setup.syncs == Syncs::Each { || Durability::Immediate } else { || Durability::None };
        Ok(Self { db: Database::create(dir.join("records.redb"))?, next: AtomicU64::new(0), durability })
    }
}

impl Contestant for Redb {
    fn append(&self, _worker: usize, unit: Unit) -> Result<()> {
        let mut transaction = self.db.begin_write()?;
        transaction.set_durability((self.durability)())?;
        {
            let mut table = transaction.open_table(RECORDS)?;
            for record in unit.records()? {
                table.insert(self.next.fetch_add(1, Ordering::Relaxed), record.as_slice())?;
            }
        }
        Ok(transaction.commit()?)
    }

    /// An empty commit with a sync makes those before it durable.
    fn settle(&self) -> Result<()> {
        let mut transaction = self.db.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        Ok(transaction.commit()?)
    }
}
