//! A place in the log that names its content.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::store_id::StoreId;

/// The place behind an event, for whoever goes on reading there later. It names the event by its content, so that
/// another event under the same seq is not taken for it ([`Reader::check`](super::Reader::check)): an older copy of
/// a store that was put in its place, and has grown again, gives its seqs to other events.
///
/// As text it is `SEQ STORE CHECKSUM`, the checksum in hexadecimal digits.
///
/// ```
/// # use synclog::{Company, Level, LogPosition, Options, Store, SyncEvent};
/// # let dir = tempfile::tempdir().unwrap();
/// # let store = Store::<SyncEvent>::open(dir.path(), Options::default())?;
/// # store.append(SyncEvent::new(Company::new("8f0c1d52", "4401", "Acme Traders"), Level::Info, "first"))?;
/// let reader = store.reader()?;
/// let mut items = reader.items(1)?;
/// while let Some(item) = items.next() {
///     let _ = item?;
/// }
/// let kept: String = items.position().expect("an event was read").to_string();
/// // Later:
/// let position: LogPosition = kept.parse()?;
/// assert_eq!(store.reader()?.items_after(&position)?.count(), 0);
/// # Ok::<(), synclog::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LogPosition {
    /// The store.
    pub store: StoreId,
    /// The event's seq.
    pub seq: u64,
    /// The checksum of its frame's header, which covers its payload's checksum and names the header before it.
    pub checksum: u32,
}

impl fmt::Display for LogPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {:08x}", self.seq, self.store, self.checksum)
    }
}

impl FromStr for LogPosition {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = || Error::invalid("position", "is not SEQ STORE CHECKSUM");
        let mut words = text.split_whitespace();
        let mut word = || words.next().ok_or_else(bad);
        let (seq, store, checksum) = (word()?, word()?, word()?);
        if words.next().is_some()
            || checksum.len() != 8
            || !checksum.bytes().all(|byte| byte.is_ascii_hexdigit())
        {
            return Err(bad());
        }
        Ok(Self {
            store: store.parse().map_err(|_| bad())?,
            seq: seq.parse().map_err(|_| bad())?,
            checksum: u32::from_str_radix(checksum, 16).map_err(|_| bad())?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_reads_back_from_its_text() {
        let store = StoreId([7; 16]);
        for position in
            [LogPosition { store, seq: 0, checksum: 0 }, LogPosition { store, seq: u64::MAX, checksum: 0xab }]
        {
            assert_eq!(position.to_string().parse::<LogPosition>().unwrap(), position);
            for bad in ["", "1", "1 2", "x", "+1"] {
                assert!(bad.parse::<LogPosition>().is_err());
                assert!(format!("{position} {bad}x").parse::<LogPosition>().is_err());
            }
        }
    }
}
