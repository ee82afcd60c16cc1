//! Confirms from the log that an event has a key: a row that somebody edited must not acknowledge anything (P4).
//!
//! Each caller does that for itself, in its own thread, while the appends of others go on: an event that is durable
//! and has a row stays what it is, so that nothing here depends on what is appended meanwhile.

use crate::application::Held;
use crate::codec::{self, Decoded, Unread};
use crate::error::{Error, Result};
use crate::event::Event;
use crate::log::directory::LogDir;
use crate::log::places::{Places, Seen};
use crate::store::keys::Claims;

use super::sync::{Mutex, lock};

/// Finds events in the log by their seqs.
pub(in crate::store) struct Confirm {
    log: LogDir,
    places: Mutex<Places>,
}

impl Confirm {
    pub(in crate::store) fn new(log: LogDir) -> Self {
        Self { log, places: Mutex::default() }
    }

    /// The seqs of the events that have the keys of a batch; an error where the log does not confirm all of them.
    pub(in crate::store) fn settle<E: Event>(&self, claims: &Claims<E>) -> Result<Vec<u64>> {
        claims.settle(|seq, key| {
            let near = lock(&self.places).near(seq);
            let mut seen = Seen::default();
            let found = near.find(&self.log, seq, claims.durable, &mut seen, codec::decode::<E>);
            lock(&self.places).learn(seen);
            match found? {
                Some(Decoded::Event { event, key: Some(own) }) if own == key => Ok(Held::new(event)),
                Some(Decoded::Unread(Unread { key: Some(own), .. })) if own == key => {
                    Err(Error::KeyUnreadable { key: own, seq })
                }
                _ => {
                    let reason = format!(
                        "the row of event {seq} has the key and its event has not; run `synclog replay`"
                    );
                    Err(Error::KeysUnavailable { reason })
                }
            }
        })
    }
}
