//! The log's events, one after the other, and what stands in their place.

use std::collections::VecDeque;
use std::marker::PhantomData;

use crate::codec::{self, Decoded};
use crate::erasures::Erasures;
use crate::error::Result;
use crate::event::Event;
use crate::finding::Finding;
use crate::log::cursor::{Cursor, Entry};
use crate::log::deletion::Deletion;
use crate::log::directory::LogDir;
use crate::log::view::LogView;
use crate::replay::gap_finding;
use crate::store_id::StoreId;
use crate::time::Timestamp;

use super::log_position::LogPosition;

/// An event as it stands in the log.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Stored<E> {
    /// Its seq.
    pub seq: u64,
    /// The event.
    pub event: E,
    /// Its idempotency key.
    pub key: Option<String>,
    /// When it was appended.
    pub appended_at: Timestamp,
}

/// What a reader of the log meets next.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Item<E> {
    /// An event.
    Event(Stored<E>),
    /// An event of a kind or version that this program does not know, or that the event type's own code cannot
    /// read.
    Unknown(Finding),
    /// Events that were lost, and that somebody has given up with [`Store::accept_loss`](super::Store::accept_loss).
    Lost(Finding),
    /// Something that must be there is not, or not whole. Reading goes on behind it.
    Damage(Finding),
}

/// The events of a [`Reader`](super::Reader), one after the other. Memory: one event and a window of the log.
pub struct Items<E> {
    cursor: Cursor,
    queued: VecDeque<Finding>,
    erasures: Erasures,
    log: LogDir,
    ended: bool,
    store: StoreId,
    /// Seq and checksum of the last event that was sound enough to name it.
    place: Option<(u64, u32)>,
    event: PhantomData<E>,
}

impl<E: Event> Items<E> {
    pub(super) fn new(cursor: Cursor, missing: Vec<Finding>, view: &LogView) -> Self {
        Self {
            cursor,
            queued: missing.into(),
            erasures: Erasures::default(),
            log: view.log.clone(),
            ended: false,
            store: view.store,
            place: None,
            event: PhantomData,
        }
    }

    /// The position behind what was read so far: of the last event that the log could name. `None` where nothing
    /// was read yet. What was damaged behind that event is met again from there, and comes if it was healed.
    pub fn position(&self) -> Option<LogPosition> {
        self.place.map(|(seq, checksum)| LogPosition { store: self.store, seq, checksum })
    }
}

impl<E: Event> Iterator for Items<E> {
    type Item = Result<Item<E>>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(finding) = self.queued.pop_front() {
                return Some(Ok(Item::Damage(finding)));
            }
            if self.ended {
                return None;
            }
            let entry = match self.cursor.next() {
                Ok(Some(entry)) => entry,
                Ok(None) => {
                    self.ended = true;
                    self.queued.extend(self.erasures.unexplained());
                    continue;
                }
                Err(error) => {
                    self.ended = true;
                    return Some(Err(error));
                }
            };
            match entry {
                Entry::Event { header, payload, .. } => {
                    self.place = Some((header.seq, header.sum));
                    return Some(Ok(match codec::decode::<E>(&header, payload) {
                        Decoded::Event { event, key } => Item::Event(Stored {
                            seq: header.seq,
                            event,
                            key,
                            appended_at: Timestamp::from_micros(header.appended_at).unwrap_or(Timestamp::MIN),
                        }),
                        Decoded::Unread(unread) => Item::Unknown(unread.finding(header.seq)),
                    }));
                }
                Entry::Deletion { payload } => {
                    if let Some(record) = Deletion::decode(payload) {
                        self.erasures.deleted(&record.ranges);
                    }
                }
                Entry::Erased { seq, sum, segment, offset } => {
                    self.place = Some((seq, sum));
                    self.erasures.erased(seq, self.log.segment_path(segment), offset);
                }
                Entry::Gap { header, segment, offset } => {
                    self.place = Some((header.next_seq() - 1, header.sum));
                    let path = self.log.segment_path(segment);
                    return Some(Ok(Item::Lost(gap_finding(&header).at(path, offset))));
                }
                Entry::Damage(finding) => return Some(Ok(Item::Damage(finding))),
            }
        }
    }
}
