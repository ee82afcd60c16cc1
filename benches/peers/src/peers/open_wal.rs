//! open-wal: a write-ahead log with one writer and group commit.

use std::path::Path;

use open_wal::{Lsn, TailState, Wal, WalConfig};

use crate::peer::{self, Found, Log, Peer, Result};

pub struct OpenWal;

struct Open(Wal);

fn config() -> WalConfig {
    WalConfig { segment_size: 4 * 1024 * 1024, ..WalConfig::default() }
}

impl Log for Open {
    fn append(&mut self, batch: &[&[u8]]) -> Result<()> {
        for record in batch {
            self.0.append(record)?;
        }
        self.0.commit()?;
        Ok(())
    }
}

impl Peer for OpenWal {
    fn id(&self) -> &'static str {
        "open-wal"
    }

    fn title(&self) -> String {
        format!("open-wal {}", peer::version("open-wal"))
    }

    fn means(&self) -> &'static str {
        "append() and commit()"
    }

    fn open(&self, dir: &Path) -> Result<Box<dyn Log>> {
        Ok(Box::new(Open(Wal::open(dir, config())?.0)))
    }

    fn read(&self, dir: &Path, found: &mut Found<'_>) -> Result<()> {
        let (wal, report) = Wal::open(dir, config())?;
        found.opened = true;
        if let TailState::TruncatedAt { segment_base, offset } = report.tail_state {
            found.told.push(format!(
                "report: torn tail truncated at offset {offset} of segment {segment_base}, durable up to {}",
                report.durable_lsn
            ));
        }
        let mut reader = wal.reader_from(Lsn(0))?;
        while let Some(record) = reader.next() {
            found.record(record?.1);
        }
        Ok(())
    }

    fn framing_words(&self) -> &'static str {
        "padding of the record before; checksum, length, LSN, type of this one"
    }
}
