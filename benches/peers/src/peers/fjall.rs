//! fjall: an LSM tree with a journal. 1,000 records stay in the journal; keys are numbers.

use std::path::Path;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use crate::peer::{self, Found, Log, Peer, Result};

pub struct Fjall;

struct Open {
    db: Database,
    records: Keyspace,
    next: u64,
}

fn open(dir: &Path) -> Result<(Database, Keyspace)> {
    let db = Database::builder(dir).open()?;
    let records = db.keyspace("records", KeyspaceCreateOptions::default)?;
    Ok((db, records))
}

impl Log for Open {
    fn append(&mut self, batch: &[&[u8]]) -> Result<()> {
        let mut write = self.db.batch().durability(Some(PersistMode::SyncAll));
        for record in batch {
            write.insert(&self.records, self.next.to_be_bytes(), *record);
            self.next += 1;
        }
        Ok(write.commit()?)
    }
}

impl Peer for Fjall {
    fn id(&self) -> &'static str {
        "fjall"
    }

    fn title(&self) -> String {
        format!("fjall {} (journal)", peer::version("fjall"))
    }

    fn means(&self) -> &'static str {
        "batch().durability(SyncAll).commit()"
    }

    fn open(&self, dir: &Path) -> Result<Box<dyn Log>> {
        let (db, records) = open(dir)?;
        let next = records.iter().count() as u64;
        Ok(Box::new(Open { db, records, next }))
    }

    fn read(&self, dir: &Path, found: &mut Found<'_>) -> Result<()> {
        let (_db, records) = open(dir)?;
        found.opened = true;
        for item in records.iter() {
            found.record(&item.value()?);
        }
        Ok(())
    }

    fn data_files(&self) -> &'static str {
        ".jnl"
    }

    fn framing_words(&self) -> &'static str {
        "end marker of the entry before; start marker, item header and key of this one"
    }
}
