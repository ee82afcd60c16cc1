//! okaywal: a write-ahead log with entries of chunks; recovery hands every entry to a callback.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use okaywal::{Configuration, Entry, EntryId, LogManager, SegmentReader, WriteAheadLog};

use crate::peer::{self, Found, Log, Peer, Result};

pub struct Okaywal;

struct Open(WriteAheadLog);

/// What recovery has handed over so far. It is kept outside, for recovery may fail in the middle.
#[derive(Clone, Debug, Default)]
struct Manager(Arc<Mutex<Vec<Vec<u8>>>>);

impl LogManager for Manager {
    fn recover(&mut self, entry: &mut Entry<'_>) -> io::Result<()> {
        // None: the entry was not completely written, and is to be ignored, says the documentation.
        if let Some(chunks) = entry.read_all_chunks()? {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(chunks);
        }
        Ok(())
    }

    fn checkpoint_to(&mut self, _: EntryId, _: &mut SegmentReader, _: &WriteAheadLog) -> io::Result<()> {
        Ok(())
    }
}

fn open(dir: &Path, manager: Manager) -> Result<WriteAheadLog> {
    // All records stay in one segment: a checkpoint would give them up.
    let config = Configuration::default_for(dir).checkpoint_after_bytes(1 << 20);
    Ok(config.open(manager)?)
}

impl Log for Open {
    fn append(&mut self, batch: &[&[u8]]) -> Result<()> {
        let mut entry = self.0.begin_entry()?;
        for record in batch {
            entry.write_chunk(record)?;
        }
        entry.commit()?;
        Ok(())
    }
}

impl Peer for Okaywal {
    fn id(&self) -> &'static str {
        "okaywal"
    }

    fn title(&self) -> String {
        format!("okaywal {}", peer::version("okaywal"))
    }

    fn means(&self) -> &'static str {
        "EntryWriter::commit()"
    }

    fn open(&self, dir: &Path) -> Result<Box<dyn Log>> {
        Ok(Box::new(Open(open(dir, Manager::default())?)))
    }

    fn read(&self, dir: &Path, found: &mut Found<'_>) -> Result<()> {
        let manager = Manager::default();
        let opened = open(dir, manager.clone());
        found.opened = opened.is_ok();
        if found.opened {
            for record in manager.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                found.record(record);
            }
        }
        opened.map(|_| ())
    }

    fn framing_words(&self) -> &'static str {
        "checksum and end marker of the entry before; start marker, id, chunk marker and length of this one"
    }
}
