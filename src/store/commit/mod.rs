//! The commit path: it holds the only locks. Appends join the queue, one thread at a time makes groups
//! durable, one at a time makes their rows, and everybody who waits is woken here.
//!
//! A caller who is alone does both itself. Two threads take over where callers meet: one commits while
//! the other one makes the rows of the group before.

mod queue;
mod rows;
mod slot;

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::error::{Error, Outcome, Result};
use crate::event::Event;
use crate::log::writer::{LogWriter, NewEvent, batch_len};

use super::keys::{Consulted, KeyIndex};
use super::project::Projector;

use queue::{Batch, Done, Queue, Task};
pub(super) use rows::{Rows, Turn};
pub(super) use slot::{Promise, Slot, Waited};

/// A lock that a panic elsewhere does not poison for good: what it guards is whole after every call.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One caller's batch.
pub(super) struct Entry<E> {
    pub(super) events: Vec<NewEvent>,
    /// For each event its key and the event as it was given, where it has a key.
    pub(super) keyed: Vec<Option<(String, E, E)>>,
    pub(super) slot: Promise,
}

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

/// What callers and both threads share.
pub(super) struct Shared<E: Event> {
    queue: Queue<Entry<E>, Box<Core<E>>>,
    pub(super) rows: Rows<Box<Projector>>,
}

impl<E: Event> Shared<E> {
    pub(super) fn new(core: Core<E>, rows: Rows<Box<Projector>>) -> Self {
        let wants_mark = core.writer.wants_mark();
        Self { queue: Queue::new(Box::new(core), wants_mark), rows }
    }

    /// Puts a batch into the queue, to be committed by the thread; waits while the queue is full.
    pub(super) fn submit(&self, entry: Entry<E>) -> Result<()> {
        self.queue.join(entry, true)
    }

    /// Puts a batch into the queue, and commits it here where nobody else does.
    pub(super) fn append(&self, entry: Entry<E>) -> Result<()> {
        self.queue.join(entry, false)?;
        let Some((mut core, entries)) = self.queue.take_alone() else { return Ok(()) };
        let batches = entries.len();
        let mut projector = self.rows.take_idle();
        let rows = projector.as_deref_mut();
        if self.guarded(|| core.commit(entries, &self.rows, rows)).is_some() {
            let wants_mark = core.writer.wants_mark();
            self.queue.give_back(core, Done { batches, wants_mark });
        }
        if let Some(projector) = projector {
            self.project(projector);
        }
        Ok(())
    }

    /// Makes the rows of the group that the caller has just made durable. What goes wrong is left to the
    /// thread, which tries again.
    fn project(&self, mut projector: Box<Projector>) {
        let durable = self.rows.durable();
        let done = catch_unwind(AssertUnwindSafe(|| {
            projector.follow::<E>(durable, |seq, unhealed| self.rows.set_applied(seq, unhealed));
        }));
        if done.is_err() {
            self.rows.set_trouble(Error::Abandoned.to_string());
            projector.forget();
        }
        self.rows.give_back(projector);
    }

    /// Runs what writes to the log. An error or a panic is the end of this handle (P10).
    fn guarded<T>(&self, work: impl FnOnce() -> Result<T>) -> Option<T> {
        // A panic here is a bug of ours; it must not leave anybody waiting.
        let done = catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(Error::Abandoned));
        done.map_err(|cause| {
            tracing::error!(%cause, "the log took its last write (P10)");
            self.die(cause);
        })
        .ok()
    }

    /// All waiters get the error, later calls fail at once (P10).
    pub(super) fn die(&self, cause: Error) {
        self.queue.die(cause);
    }

    /// Why nothing can be appended any more.
    pub(super) fn dead(&self) -> Option<Arc<Error>> {
        self.queue.dead()
    }

    /// Lets the committing thread finish what is queued and stop.
    pub(super) fn close(&self) {
        self.queue.close();
    }

    /// Lets the projecting thread stop.
    pub(super) fn close_projection(&self) {
        self.rows.close();
    }

    /// The thread that commits where callers meet, and proves the last group when the log falls idle.
    pub(super) fn run(&self, idle: Duration) {
        let mut back = None;
        loop {
            let (core, done) = match self.queue.next(back.take(), idle) {
                Task::Commit(mut core, entries) => {
                    let batches = entries.len();
                    if self.guarded(|| core.commit(entries, &self.rows, None)).is_none() {
                        return;
                    }
                    let wants_mark = core.writer.wants_mark();
                    (core, Some(Done { batches, wants_mark }))
                }
                Task::Idle(mut core) => {
                    if self.guarded(|| core.prove()).is_none() {
                        return;
                    }
                    (core, None)
                }
                Task::Close(mut core) => {
                    self.guarded(|| core.prove());
                    return;
                }
                Task::Dead => return,
            };
            back = Some((core, done));
        }
    }
}

/// What is needed to commit: the log's writer, and the keys.
pub(super) struct Core<E: Event> {
    pub(super) writer: LogWriter,
    pub(super) keys: KeyIndex<E>,
}

impl<E: Event> Core<E> {
    /// Proves the last group with a mark.
    fn prove(&mut self) -> Result<()> {
        self.writer.mark()?;
        self.writer.note_tail();
        Ok(())
    }

    /// Makes batches durable, in as few groups as the segments allow. A `projector` prepares their
    /// rows while the disk is busy with them.
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
                    rest.iter().for_each(|entry| entry.slot.put(Err(error.clone())));
                    return if self.writer.is_failed() { Err(error) } else { Ok(()) };
                }
                continue;
            }
            if let Err(error) = self.commit_group(group, rows, projector.as_deref_mut()) {
                // No byte of the rest was written.
                let cause = Arc::new(error.clone());
                let dead = || Error::Dead { cause: Arc::clone(&cause) };
                rest.iter().for_each(|entry| entry.slot.put(Err(dead())));
                return Err(error);
            }
        }
        Ok(())
    }

    fn commit_group(
        &mut self,
        mut group: Vec<Entry<E>>,
        rows: &Rows<Box<Projector>>,
        projector: Option<&mut Projector>,
    ) -> Result<()> {
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
        let answer = match self.keys.consult(&entry.keyed, rows.applied(), self.writer.position()) {
            Ok(Consulted::New) => return true,
            Ok(Consulted::Repeated(seqs)) => Ok(seqs),
            Err(error) => {
                if self.keys.take_suspicion() {
                    rows.suspect();
                }
                Err(error)
            }
        };
        let last = answer.as_ref().ok().and_then(|seqs| seqs.iter().max().copied());
        entry.slot.put(answer);
        if let Some(last) = last {
            rows.await_old(last, entry.slot.slot());
        }
        false
    }
}
