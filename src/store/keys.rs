//! Idempotency keys: which event has which key.
//!
//! Keys live in the rows, and those of events that this program cannot read beside them: they count as well, but
//! nobody can say whether an append repeats such an event. What is durable and not yet a row is remembered here, so that a key is
//! never missed between the two.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::application::{self, Held};
use crate::disk::FileIdentity;
use crate::error::{Error, Result};
use crate::event::Event;
use crate::log::writer::Position;
use crate::projection::schema::Schema;
use crate::projection::unread;
use crate::projection::{self, Db, Trouble};
use crate::room::Room;
use crate::store_id::StoreId;

/// Keys that may be remembered while the rows lag behind; beyond that keyed appends are refused.
const REMEMBERED: usize = 16 * 1024;

/// A key, the event as it was given with it, and the event as it is stored.
pub(super) type Keyed<E> = (String, Held<E>, Held<E>);

/// What the keys of a batch say.
pub(super) enum Consulted<E> {
    /// None of them is known.
    New,
    /// All of them are known, with the same content: the seqs of the first time.
    Repeated(Vec<u64>),
    /// Rows have some of them, and the log has to confirm that. Whatever it says, the batch is not appended.
    Claimed(Claims<E>),
}

/// What answers for one key.
enum Holder<E> {
    /// The event itself, which has just been appended.
    Event(u64, Held<E>),
    /// A row; its event in the log must say so as well.
    Row(u64),
}

/// The keys of a batch that are known, and what is known of them.
pub(super) struct Claims<E> {
    /// Key, event as it was given, and what has the key.
    known: Vec<(String, Held<E>, Holder<E>)>,
    /// Events of the batch without a known key.
    unknown: usize,
    /// The first key of the batch.
    first: String,
    /// The log's end when the rows were looked at.
    pub(super) durable: Position,
}

impl<E: Event> Claims<E> {
    /// The greatest seq among the events that have the keys.
    pub(super) fn last_seq(&self) -> u64 {
        let seqs = self.known.iter().map(|(.., holder)| match holder {
            Holder::Event(seq, _) | Holder::Row(seq) => *seq,
        });
        seqs.max().unwrap_or(0)
    }

    /// The seqs of the first time, once `read` has found the events of the rows in the log; an error where not
    /// all keys are known, or one belongs to another event.
    pub(super) fn settle(&self, read: impl Fn(u64, &str) -> Result<Held<E>>) -> Result<Vec<u64>> {
        let mut seqs = Vec::new();
        for (key, given, holder) in &self.known {
            let (seq, repeats) = match holder {
                Holder::Event(seq, event) => (*seq, application::repeats(&**given, &**event)),
                Holder::Row(seq) => (*seq, application::repeats(&**given, &*read(*seq, key)?)),
            };
            if !repeats.map_err(|error| error.of_event(seq))? {
                return Err(Error::KeyConflict { key: key.clone(), seq });
            }
            seqs.push(seq);
        }
        match seqs.first() {
            Some(seq) if self.unknown > 0 => Err(Error::KeyConflict { key: self.first.clone(), seq: *seq }),
            _ => Ok(seqs),
        }
    }
}

/// Looks keys up. Belongs to whoever commits.
pub(super) struct KeyIndex<E> {
    store: StoreId,
    database: PathBuf,
    schema: Schema,
    has_rows: bool,
    room: Arc<Room>,
    /// The database was not as it should be.
    suspicion: bool,
    db: Option<Db>,
    identity: Option<FileIdentity>,
    /// Every event after this seq that has a key is in `recent` or in a row.
    complete_from: u64,
    recent: HashMap<String, (u64, Held<E>)>,
    order: VecDeque<(u64, String)>,
}

impl<E: Event> KeyIndex<E> {
    /// An index for a store whose newest event is `last_seq`. Without rows no key is ever known.
    pub(super) fn new(
        store_dir: &Path,
        store: StoreId,
        schema: Schema,
        last_seq: u64,
        has_rows: bool,
        room: Arc<Room>,
    ) -> Self {
        Self {
            has_rows,
            room,
            suspicion: false,
            database: projection::database_path(store_dir),
            store,
            schema,
            db: None,
            identity: None,
            complete_from: last_seq,
            recent: HashMap::new(),
            order: VecDeque::new(),
        }
    }

    /// Whether a look at the database has found it not as it should be, since this was asked last.
    pub(super) fn take_suspicion(&mut self) -> bool {
        std::mem::take(&mut self.suspicion)
    }

    /// Remembers the key of an event that has just become durable.
    pub(super) fn remember(&mut self, key: String, seq: u64, event: Held<E>) {
        if self.order.len() >= REMEMBERED {
            // Only rows can answer for these from now on.
            self.recent.clear();
            self.order.clear();
            self.complete_from = seq;
            return;
        }
        self.order.push_back((seq, key.clone()));
        self.recent.insert(key, (seq, event));
    }

    /// What the keys of a batch say, given that the rows are right up to `applied`.
    pub(super) fn consult(
        &mut self,
        keyed: &[Option<Keyed<E>>],
        applied: u64,
        durable: Position,
    ) -> Result<Consulted<E>> {
        if !self.has_rows {
            let reason = "this handle makes no rows (Options::projection), and keys live in the rows";
            return Err(Error::KeysUnavailable { reason: reason.into() });
        }
        while self.order.front().is_some_and(|(seq, _)| *seq <= applied) {
            if let Some((seq, key)) = self.order.pop_front() {
                self.recent.remove(&key);
                self.complete_from = self.complete_from.max(seq);
            }
        }
        let (mut known, mut unknown) = (Vec::new(), 0);
        for (index, entry) in keyed.iter().enumerate() {
            let Some((key, given, _)) = entry else {
                unknown += 1;
                continue;
            };
            if keyed[..index].iter().flatten().any(|(earlier, _, _)| earlier == key) {
                return Err(Error::invalid("key", format!("{key:?} stands twice in one batch")));
            }
            let found = match self.recent.get(key) {
                Some((seq, event)) => Some(Holder::Event(*seq, event.clone())),
                None if applied < self.complete_from => {
                    let reason = format!(
                        "the rows do not reflect all events up to {} yet, only up to {applied}",
                        self.complete_from
                    );
                    return Err(Error::KeysUnavailable { reason });
                }
                None => self.find_row(key, applied)?.map(Holder::Row),
            };
            match found {
                None => unknown += 1,
                Some(holder) => known.push((key.clone(), given.clone(), holder)),
            }
        }
        if known.is_empty() {
            return Ok(Consulted::New);
        }
        // There is one: a key was found to be taken.
        let first = keyed.iter().flatten().map(|(key, _, _)| key.clone()).next().unwrap_or_default();
        let claims = Claims { known, unknown, first, durable };
        if claims.known.iter().any(|(.., holder)| matches!(holder, Holder::Row(_))) {
            return Ok(Consulted::Claimed(claims));
        }
        let no_row = |_, _: &str| Err(Error::KeysUnavailable { reason: String::new() });
        claims.settle(no_row).map(Consulted::Repeated)
    }

    /// The seq of the row that has a key, or of the event without a row that has it. Somebody may have edited it, so that it acknowledges nothing (P4).
    fn find_row(&mut self, key: &str, applied: u64) -> Result<Option<u64>> {
        let unavailable = |reason: String| Error::KeysUnavailable { reason };
        if !self.room.is_back() {
            self.db = None;
            return Err(unavailable(Room::REASON.to_owned()));
        }
        // The database may have been replaced since, by a rebuild for example.
        let identity = crate::disk::identity(&self.database).ok().flatten();
        if self.db.is_none() || identity != self.identity {
            self.identity = identity;
            match projection::open_for_reading(&self.database, Duration::from_millis(50)) {
                Ok(db) => self.db = Some(db),
                Err(trouble) => {
                    self.suspicion |= matches!(trouble, Trouble::Unusable(_));
                    return Err(unavailable(trouble.reason().to_owned()));
                }
            }
        }
        let Some(db) = &self.db else { return Ok(None) };
        let found = projection::applied_seq_of(db, self.store).and_then(|seq| {
            let row = projection::id_with_key(db, &self.schema, key)?.map(|id| id.max(0) as u64);
            Ok((seq, row.map_or_else(|| unread::event_with_key(db, key), |seq| Ok(Some(seq)))?))
        });
        let (reflects, holder) = match found {
            Ok(found) => found,
            Err(trouble) => {
                self.db = None;
                self.suspicion |= matches!(trouble, Trouble::Unusable(_));
                return Err(unavailable(trouble.reason().to_owned()));
            }
        };
        if reflects < applied.max(self.complete_from) {
            // An older copy was put in the database's place; the projector has yet to notice.
            self.db = None;
            self.suspicion = true;
            return Err(unavailable(format!("the rows reflect events up to {reflects} only")));
        }
        Ok(holder)
    }
}
