//! A group: what one sync makes durable, and the answers to those whose events are in it.

use std::collections::VecDeque;
use std::sync::OnceLock;
use std::time::Instant;

use crate::error::{Error, Outcome, Result};
use crate::event::Event;
use crate::log::writer::{LogWriter, NewEvent, Position, batch_len};
use crate::room::Room;
use crate::store::keys::{Claims, Consulted, KeyIndex, Keyed};
use crate::store::project::Projector;

use super::queue::Batch;
use super::rows::Rows;
use super::shared::Commit;
use super::slot::Promise;
use super::sync::Arc;

/// One caller's batch.
pub(in crate::store) struct Entry<E> {
    pub(in crate::store) events: Vec<NewEvent>,
    /// For each event its key and the event as it was given, where it has a key.
    pub(in crate::store) keyed: Vec<Option<Keyed<E>>>,
    pub(in crate::store) slot: Promise,
    /// Where rows have the keys: what the caller confirms from the log. `None` where no event has a key.
    pub(in crate::store) claimed: Option<Claimed<E>>,
}

/// What a caller with keys gets back beside its slot's answer.
pub(in crate::store) type Claimed<E> = Arc<OnceLock<Claims<E>>>;

impl<E> Batch for Entry<E> {
    fn bytes(&self) -> u64 {
        batch_len(&self.events)
    }

    fn keys(&self) -> impl Iterator<Item = &String> {
        self.keyed.iter().flatten().map(|(key, ..)| key)
    }

    fn refuse(self, error: Error) {
        self.slot.put(Err(error));
    }
}

/// What is needed to commit: the log's writer, and the keys.
pub(in crate::store) struct Core<E: Event> {
    pub(in crate::store) writer: LogWriter,
    pub(in crate::store) keys: KeyIndex<E>,
    pub(in crate::store) room: Arc<Room>,
}

impl<E: Event> Commit<Entry<E>> for Core<E> {
    type Projector = Projector;

    fn prove(&mut self) -> Result<()> {
        self.writer.mark()?;
        self.writer.note_tail();
        Ok(())
    }

    fn wants_mark(&self) -> bool {
        self.writer.wants_mark()
    }

    fn follow(
        projector: &mut Projector,
        durable: Position,
        until: Option<Instant>,
        applied: &mut dyn FnMut(u64, &[u64]),
    ) {
        projector.follow::<E>(durable, until, applied);
    }

    fn forget(projector: &mut Projector) {
        projector.forget();
    }

    /// In as few groups as the segments allow.
    fn commit(
        &mut self,
        entries: Vec<Entry<E>>,
        rows: &Rows<Box<Projector>>,
        mut projector: Option<&mut Projector>,
    ) -> Result<()> {
        let mut rest = VecDeque::from(entries);
        while !rest.is_empty() {
            let mut group = Vec::new();
            let mut room = self.writer.room();
            while let Some(entry) = rest.front() {
                if entry.bytes() > room {
                    break;
                }
                room -= entry.bytes();
                group.extend(rest.pop_front());
            }
            if group.is_empty() {
                let need = rest.front().map_or(0, Entry::bytes);
                if let Err(error) = self.writer.roll(need) {
                    // No byte of these events was written, whatever happened to the segment.
                    let error = error.with_outcome(Outcome::NotWritten);
                    self.note_full(&error, rows);
                    rest.iter().for_each(|entry| entry.slot.put(Err(error.clone())));
                    return if self.writer.is_failed() { Err(error) } else { Ok(()) };
                }
                continue;
            }
            if let Err(error) = self.commit_group(group, rows, projector.as_deref_mut()) {
                self.note_full(&error, rows);
                // No byte of the rest was written.
                let cause = Arc::new(error.clone());
                let dead = || Error::Dead { cause: Arc::clone(&cause) };
                rest.iter().for_each(|entry| entry.slot.put(Err(dead())));
                return Err(error);
            }
        }
        Ok(())
    }
}

impl<E: Event> Core<E> {
    /// Where the disk is full, nobody uses the database before there is room again.
    fn note_full(&self, error: &Error, rows: &Rows<Box<Projector>>) {
        // A segment may be too large for a disk that has room for the rest.
        if self.room.note(error) && !self.room.is_back() {
            rows.suspect();
        }
    }

    fn commit_group(
        &mut self,
        mut group: Vec<Entry<E>>,
        rows: &Rows<Box<Projector>>,
        projector: Option<&mut Projector>,
    ) -> Result<()> {
        // A repeated key is answered without a write, and by a database that is opened by its path.
        if group.iter().any(|entry| entry.keys().next().is_some())
            && let Err(error) = self.writer.check()
        {
            group.iter().for_each(|entry| entry.slot.put(Err(error.clone())));
            return Err(error);
        }
        group.retain(|entry| entry.keys().next().is_none() || self.answered_by_key(entry, rows));
        if group.is_empty() {
            return Ok(());
        }
        let batches: Vec<Vec<NewEvent>> =
            group.iter_mut().map(|entry| std::mem::take(&mut entry.events)).collect();
        let now = crate::time::Timestamp::now().as_micros();
        let inline = projector.is_some();
        let prepare = |end| {
            if let Some(projector) = projector {
                projector.prepare::<E>(end);
            }
        };
        let first = match self.writer.append_and(&batches, now, prepare) {
            Ok(first) => first,
            Err(error) => {
                group.iter().for_each(|entry| entry.slot.put(Err(error.clone())));
                return Err(error);
            }
        };
        let mut seq = first;
        let mut callers = Vec::with_capacity(group.len());
        for (entry, batch) in group.into_iter().zip(&batches) {
            let seqs: Vec<u64> = (seq..seq + batch.len() as u64).collect();
            for (seq, keyed) in seqs.iter().zip(entry.keyed) {
                if let Some((key, _, event)) = keyed {
                    self.keys.remember(key, *seq, event);
                }
            }
            seq += batch.len() as u64;
            entry.slot.put(Ok(seqs));
            callers.push((seq - 1, entry.slot.slot()));
        }
        rows.advance(self.writer.position(), callers.into_iter(), inline);
        Ok(())
    }

    /// Answers a batch that its keys already settle: a repeat, a conflict, or keys that cannot be
    /// looked up. True where the batch is to be appended.
    fn answered_by_key(&mut self, entry: &Entry<E>, rows: &Rows<Box<Projector>>) -> bool {
        let durable = self.writer.position();
        let answer = match self.keys.consult(&entry.keyed, rows.answered(), durable) {
            Ok(Consulted::New) => return true,
            Ok(Consulted::Repeated(seqs)) => Ok(seqs),
            Ok(Consulted::Claimed(claims)) => {
                // The caller reads the log, so that nobody else waits for it.
                let last = claims.last_seq().min(durable.seq - 1);
                if let Some(claimed) = &entry.claimed {
                    let _ = claimed.set(claims);
                }
                entry.slot.put(Ok(Vec::new()));
                rows.await_old(last, entry.slot.slot());
                return false;
            }
            Err(error) => {
                if self.keys.take_suspicion() {
                    rows.suspect();
                }
                Err(error.with_outcome(Outcome::NotWritten))
            }
        };
        // An error is the answer; there is no row to wait for.
        let last = answer.as_ref().ok().and_then(|seqs| seqs.iter().max().copied());
        entry.slot.put(answer);
        if let Some(last) = last {
            rows.await_old(last, entry.slot.slot());
        }
        false
    }
}
