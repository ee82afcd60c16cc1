//! The file `tail`: the newest event that was durable when the log last fell idle or was closed.
//!
//! A second place for what a mark proves. A mark can lie in the same sector as the group that it
//! proves, and a whole segment can be taken away; this file then still tells that more was there. It is
//! written after the sync of what it speaks of, so that no crash leaves it ahead of the log, and needs
//! no sync of its own: an older one is only a weaker witness.
//!
//! It is text of one line: store id, seq, header checksum of the event's frame in 8 hex digits, and the
//! CRC-32 of all that in 8 hex digits, with blanks between.

use std::io;

use crate::disk::{DiskFile, access};
use crate::error::{Error, Result};
use crate::finding::{Finding, FindingKind};
use crate::store_id::StoreId;

use super::directory::LogDir;
use super::frame::MAX_SEQ;
use super::segment::SegmentHeader;
use super::survey::Witness;

/// Bytes of the file: 32 + 20 + 8 + 8 digits, three blanks and a line feed.
const LEN: usize = 72;

fn encode(store: StoreId, witness: Witness) -> String {
    let fields = format!("{store} {:020} {:08x}", witness.seq, witness.sum);
    let sum = crc32fast::hash(fields.as_bytes());
    format!("{fields} {sum:08x}\n")
}

fn decode(bytes: &[u8]) -> Option<(StoreId, Witness)> {
    // What does not read as what was written here says nothing.
    let mut fields = std::str::from_utf8(bytes).ok()?.split_ascii_whitespace();
    let store = fields.next()?.parse().ok()?;
    let witness =
        // As above.
        Witness { seq: fields.next()?.parse().ok()?, sum: u32::from_str_radix(fields.next()?, 16).ok()? };
    ((1..MAX_SEQ).contains(&witness.seq) && encode(store, witness).as_bytes() == bytes)
        .then_some((store, witness))
}

/// The witness, where it speaks of this store.
pub(crate) fn of_store(found: Option<(StoreId, Witness)>, store: StoreId) -> Option<Witness> {
    found.filter(|(own, _)| *own == store).map(|(_, witness)| witness)
}

/// The finding for a file that speaks of another store than the log's.
pub(crate) fn foreign(
    found: Option<(StoreId, Witness)>,
    store: StoreId,
    path: std::path::PathBuf,
) -> Option<Finding> {
    let (own, witness) = found.filter(|(own, _)| *own != store)?;
    let what = format!(
        "it tells of event {} of the store {own}, and the log is that of {store}: was this log put here from \
         elsewhere?",
        witness.seq
    );
    Some(Finding::new(FindingKind::UnknownFile, what).file(path))
}

/// Reads the file. One that is not there or is damaged says nothing; one that cannot be read is an
/// error, because it might say something.
pub(crate) fn read(log: &LogDir) -> Result<Option<(StoreId, Witness)>> {
    let path = log.tail_path();
    let file = match log.disk.open(&path, false) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidInput) => {
            return Ok(None);
        }
        Err(error) => return Err(Error::io("open", &path, error)),
    };
    let mut bytes = [0; LEN];
    match crate::disk::read_exact_at(file.as_ref(), &mut bytes, 0) {
        Ok(()) => Ok(decode(&bytes)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(Error::io("read", &path, error)),
    }
}

/// Keeps the file up to date.
#[derive(Default)]
pub(crate) struct TailFile {
    file: Option<Box<dyn DiskFile>>,
    written: Option<Witness>,
}

impl TailFile {
    /// Writes the newest event. Where that fails the log is no worse off, so nobody is told.
    pub(crate) fn write(&mut self, log: &LogDir, segment: &SegmentHeader, witness: Witness) {
        if self.written == Some(witness) {
            return;
        }
        if self.file.is_none() {
            let path = log.tail_path();
            let opened = log.disk.open(&path, true);
            self.file = match opened {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let like = log.segment_path(segment.number);
                    // What cannot be made or opened is told below.
                    access::create(log.disk.as_ref(), &path, &[], &[&like]).ok()
                }
                other => other.ok(),
            };
        }
        let bytes = encode(segment.store, witness);
        let written = self.file.as_ref().is_some_and(|file| file.write_all_at(bytes.as_bytes(), 0).is_ok());
        if written {
            self.written = Some(witness);
        } else {
            self.file = None;
            tracing::debug!("the file `tail` could not be written");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_goes_both_ways_and_no_changed_byte_passes() {
        let store = StoreId([9; 16]);
        let witness = Witness { seq: 340, sum: 0xDEAD_BEEF };
        let bytes = encode(store, witness).into_bytes();
        assert_eq!(bytes.len(), LEN);
        assert_eq!(decode(&bytes), Some((store, witness)));
        assert_eq!(of_store(decode(&bytes), StoreId([8; 16])), None);
        for (seq, known) in [(0, false), (MAX_SEQ - 1, true), (MAX_SEQ, false), (u64::MAX, false)] {
            // No event could come behind it.
            let found = decode(encode(store, Witness { seq, sum: 1 }).as_bytes());
            assert_eq!(found.is_some(), known, "{seq}");
        }
        for at in 0..LEN {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert_eq!(decode(&damaged), None, "byte {at}");
        }
    }
}
