//! seglog: segment files of a fixed size, one writer. A new segment is made where one is full.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use seglog::write::Writer;

use super::lock;
use crate::contestant::{Contestant, Result, Setup, Syncs, Unit};

/// As large as synclog's largest.
const SEGMENT_BYTES: usize = 64 * 1024 * 1024;

/// What a record and a commit marker take beside the payload, and more.
const OVERHEAD: usize = 64;

pub struct Seglog {
    dir: PathBuf,
    state: Mutex<State>,
    sync: bool,
}

struct State {
    writer: Writer<0>,
    segments: u64,
    next: u64,
}

fn create(dir: &Path, number: u64) -> Result<Writer<0>> {
    Ok(Writer::create(dir.join(format!("{number}.log")), SEGMENT_BYTES, 0)?)
}

impl Seglog {
    pub fn open(dir: &Path, setup: &Setup<'_>) -> Result<Self> {
        let state = Mutex::new(State { writer: create(dir, 0)?, segments: 1, next: 0 });
        Ok(Self { dir: dir.into(), state, sync: setup.syncs == Syncs::Each })
    }
}

impl Contestant for Seglog {
    fn append(&self, _worker: usize, unit: Unit) -> Result<()> {
        let mut state = lock(&self.state);
        let records = unit.records()?;
        let bytes: usize = records.iter().map(|record| record.len() + OVERHEAD).sum();
        if state.writer.remaining_bytes() < (bytes + OVERHEAD) as u64 {
            state.writer.sync()?;
            state.writer = create(&self.dir, state.segments)?;
            state.segments += 1;
        }
        for record in &records {
            state.writer.append_data(record)?;
        }
        state.next += records.len() as u64;
        let last = state.next - 1;
        if self.sync {
            state.writer.commit(last)?;
        }
        Ok(())
    }

    fn settle(&self) -> Result<()> {
        let mut state = lock(&self.state);
        let last = state.next.saturating_sub(1);
        if !self.sync {
            state.writer.commit(last)?;
        }
        Ok(())
    }
}
