//! raft-engine: a log of Raft entries for many groups. Each worker has a group of its own, as it is meant to
//! be used; all groups share the files and the syncs.

use std::path::Path;
use std::sync::Mutex;

use protobuf::descriptor::UninterpretedOption;
use raft_engine::{Config, Engine, LogBatch, MessageExt};

use super::lock;
use crate::contestant::{Contestant, Result, Setup, Syncs, Unit};

/// An entry must be a protobuf message with an index. This one, which comes with the protobuf crate, has a
/// number and bytes.
struct Numbered;

impl MessageExt for Numbered {
    type Entry = UninterpretedOption;

    fn index(entry: &Self::Entry) -> u64 {
        entry.get_positive_int_value()
    }
}

pub struct RaftEngine {
    engine: Engine,
    /// The last index of each worker's group.
    last: Vec<Mutex<u64>>,
    sync: bool,
}

impl RaftEngine {
    pub fn open(dir: &Path, setup: &Setup<'_>) -> Result<Self> {
        let engine = Engine::open(Config { dir: dir.to_string_lossy().into_owned(), ..Config::default() })?;
        let last = (0..setup.workers).map(|_| Mutex::new(0)).collect();
        Ok(Self { engine, last, sync: setup.syncs == Syncs::Each })
    }
}

impl Contestant for RaftEngine {
    fn append(&self, worker: usize, unit: Unit) -> Result<()> {
        let mut last = lock(&self.last[worker]);
        let mut entries = Vec::new();
        for record in unit.records()? {
            *last += 1;
            let mut entry = UninterpretedOption::new();
            entry.set_positive_int_value(*last);
            entry.set_string_value(record);
            entries.push(entry);
        }
        let mut batch = LogBatch::with_capacity(1);
        batch.add_entries::<Numbered>(worker as u64 + 1, &entries)?;
        self.engine.write(&mut batch, self.sync)?;
        Ok(())
    }

    fn settle(&self) -> Result<()> {
        Ok(self.engine.sync()?)
    }
}
