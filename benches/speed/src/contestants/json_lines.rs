//! A text file with one JSON object a line, as `synclog export` writes it, without a checksum.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;

use synclog::{ExportLine, StoreId, Timestamp};

use super::lock;
use crate::contestant::{Contestant, Result, Setup, Syncs, Unit};

pub struct JsonLines {
    state: Mutex<State>,
    store: StoreId,
    sync: bool,
}

struct State {
    file: File,
    lines: Vec<u8>,
    last: u64,
}

impl JsonLines {
    pub fn open(dir: &Path, setup: &Setup<'_>) -> Result<Self> {
        let file = File::options().create(true).append(true).open(dir.join("events.ndjson"))?;
        let state = Mutex::new(State { file, lines: Vec::new(), last: 0 });
        Ok(Self { state, store: "0".repeat(32).parse()?, sync: setup.syncs == Syncs::Each })
    }
}

impl Contestant for JsonLines {
    fn takes_records(&self) -> bool {
        false
    }

    fn append(&self, _worker: usize, unit: Unit) -> Result<()> {
        let mut state = lock(&self.state);
        let State { file, lines, last } = &mut *state;
        lines.clear();
        for event in unit.events()? {
            *last += 1;
            let line = ExportLine::new(*last, self.store, &event, None, Timestamp::now());
            serde_json::to_writer(&mut *lines, &line)?;
            lines.push(b'\n');
        }
        file.write_all(lines)?;
        if self.sync {
            file.sync_data()?;
        }
        Ok(())
    }

    fn settle(&self) -> Result<()> {
        Ok(lock(&self.state).file.sync_data()?)
    }
}
