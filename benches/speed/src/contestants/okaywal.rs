//! okaywal: a write-ahead log with its default settings. What a checkpoint gives up is not kept elsewhere, so
//! it does less than a log that keeps everything. A commit always syncs.

use std::path::Path;

use okaywal::{Configuration, LogVoid, WriteAheadLog};

use crate::contestant::{Contestant, Result, Unit};

pub struct Okaywal(WriteAheadLog);

impl Okaywal {
    pub fn open(dir: &Path) -> Result<Self> {
        Ok(Self(Configuration::default_for(dir).open(LogVoid)?))
    }
}

impl Contestant for Okaywal {
    fn append(&self, _worker: usize, unit: Unit) -> Result<()> {
        let records = unit.records()?;
        let mut entry = self.0.begin_entry()?;
        for record in &records {
            entry.write_chunk(record)?;
        }
        entry.commit()?;
        Ok(())
    }
}

impl Drop for Okaywal {
    fn drop(&mut self) {
        let _ = self.0.clone().shutdown();
    }
}
