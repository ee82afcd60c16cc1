//! seglog: one segment file of checksummed records with commit markers.

use std::path::{Path, PathBuf};

use seglog::read::{ReadHint, Reader, RecordKind};
use seglog::write::Writer;

use crate::peer::{self, Found, Log, Peer, Result};

pub struct Seglog;

struct Open {
    writer: Writer<0>,
    next: u64,
}

const SEGMENT_BYTES: usize = 4 * 1024 * 1024;

fn path(dir: &Path) -> PathBuf {
    dir.join("segment.log")
}

impl Log for Open {
    fn append(&mut self, batch: &[&[u8]]) -> Result<()> {
        let start = self.writer.write_offset();
        let records: Vec<(&[u8; 0], &[u8])> = batch.iter().map(|record| (&[0; 0], *record)).collect();
        let last = self.next + batch.len() as u64 - 1;
        if let Err(error) = self.writer.append_batch(&records, last) {
            // What the documentation has for this case, and what tephra does.
            self.writer.rewind_to(start)?;
            return Err(error.into());
        }
        self.next = last + 1;
        Ok(())
    }
}

impl Peer for Seglog {
    fn id(&self) -> &'static str {
        "seglog"
    }

    fn title(&self) -> String {
        format!("seglog {}", peer::version("seglog"))
    }

    fn means(&self) -> &'static str {
        "append_batch(), rewind_to() after an error"
    }

    fn open(&self, dir: &Path) -> Result<Box<dyn Log>> {
        let path = path(dir);
        let writer = if path.exists() {
            Writer::open(path, SEGMENT_BYTES, 0)?
        } else {
            Writer::create(path, SEGMENT_BYTES, 0)?
        };
        let next = writer.last_committed_position().map_or(0, |last| last + 1);
        Ok(Box::new(Open { writer, next }))
    }

    fn read(&self, dir: &Path, found: &mut Found<'_>) -> Result<()> {
        let writer = Writer::<0>::open(path(dir), SEGMENT_BYTES, 0)?;
        let mut reader = Reader::<0>::open(path(dir), Some(writer.flushed_offset()))?;
        found.opened = true;
        let mut offset = 0;
        loop {
            let total_len = match reader.peek(offset)? {
                RecordKind::End => return Ok(()),
                RecordKind::Control { total_len } => total_len,
                RecordKind::Data { total_len } => {
                    found.record(&reader.read_record(offset, ReadHint::Sequential)?.data);
                    total_len
                }
            };
            offset += total_len as u64;
        }
    }

    fn framing_words(&self) -> &'static str {
        "commit marker of the batch before; length and checksum of this record"
    }
}
