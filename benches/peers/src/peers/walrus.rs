//! walrus-rust: a log of topics in blocks of 10 MiB.

use std::path::Path;

use walrus_rust::{FsyncSchedule, ReadConsistency};

use crate::peer::{self, Found, Log, Peer, Result};

pub struct Walrus;

struct Open(walrus_rust::Walrus);

const TOPIC: &str = "events";

fn open() -> Result<walrus_rust::Walrus> {
    let reads = ReadConsistency::AtLeastOnce { persist_every: 1_000_000 };
    Ok(walrus_rust::Walrus::with_consistency_and_schedule(reads, FsyncSchedule::SyncEach)?)
}

impl Log for Open {
    fn append(&mut self, batch: &[&[u8]]) -> Result<()> {
        match batch {
            [record] => self.0.append_for_topic(TOPIC, record)?,
            batch => self.0.batch_append_for_topic(TOPIC, batch)?,
        }
        Ok(())
    }
}

impl Peer for Walrus {
    fn id(&self) -> &'static str {
        "walrus"
    }

    fn title(&self) -> String {
        format!("walrus-rust {}", peer::version("walrus-rust"))
    }

    fn means(&self) -> &'static str {
        "FsyncSchedule::SyncEach, append_for_topic()"
    }

    fn open(&self, _dir: &Path) -> Result<Box<dyn Log>> {
        Ok(Box::new(Open(open()?)))
    }

    fn read(&self, _dir: &Path, found: &mut Found<'_>) -> Result<()> {
        let log = open()?;
        found.opened = true;
        while let Some(entry) = log.read_next(TOPIC, true)? {
            found.record(&entry.data);
        }
        Ok(())
    }

    fn env(&self) -> Option<&'static str> {
        Some("WALRUS_DATA_DIR")
    }

    /// It has batches, but writes them through io_uring, where no sync can be made to fail from outside.
    fn has_batches(&self) -> bool {
        false
    }

    fn framing_words(&self) -> &'static str {
        "the prefix of 64 bytes: length of the metadata, topic, size, checksum, padding"
    }
}
