//! The commit queue: it holds the only locks. Appends join it, one thread makes groups durable, a
//! second one projects them, and everybody who waits is woken here.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Error, Outcome, Result};
use crate::event::Event;
use crate::log::writer::{LogWriter, NewEvent, Position, batch_len};

use super::keys::{Consulted, KeyIndex};

/// Frames of one group, unless a single batch is larger.
const GROUP_BYTES: u64 = 1024 * 1024;
/// Encoded bytes that may wait in the queue before `submit` blocks.
const QUEUE_BYTES: u64 = 64 * 1024 * 1024;
/// Seqs whose rows still differ after healing, as far as they are remembered.
const UNHEALED_KEPT: usize = 1024;

/// One caller's batch.
pub(super) struct Entry<E> {
    pub(super) events: Vec<NewEvent>,
    /// For each event its key and the event as it was given, where it has a key.
    pub(super) keyed: Vec<Option<(String, E, E)>>,
    pub(super) slot: Promise,
}

impl<E> Entry<E> {
    fn bytes(&self) -> u64 {
        batch_len(&self.events)
    }

    fn has_keys(&self) -> bool {
        self.keyed.iter().any(Option::is_some)
    }
}

/// Where a caller waits for its batch.
#[derive(Default)]
pub(super) struct Slot {
    answer: Mutex<Option<Result<Vec<u64>>>>,
    ready: Condvar,
}

impl Slot {
    fn put(&self, answer: Result<Vec<u64>>) {
        lock(&self.answer).get_or_insert(answer);
        self.ready.notify_all();
    }

    /// Blocks until the batch is durable or failed.
    pub(super) fn wait(&self) -> Result<Vec<u64>> {
        let mut answer = lock(&self.answer);
        loop {
            if let Some(answer) = answer.as_ref() {
                return answer.clone();
            }
            answer = self.ready.wait(answer).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The answer, if it is there.
    pub(super) fn poll(&self) -> Option<Result<Vec<u64>>> {
        lock(&self.answer).clone()
    }
}

/// The committer's side of a [`Slot`]: whatever becomes of it, the caller gets an answer.
pub(super) struct Promise(Arc<Slot>);

impl Promise {
    /// A slot for a caller, and the promise to fill it.
    pub(super) fn new() -> (Arc<Slot>, Self) {
        let slot = Arc::new(Slot::default());
        (Arc::clone(&slot), Self(slot))
    }

    pub(super) fn put(&self, answer: Result<Vec<u64>>) {
        self.0.put(answer);
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        // Only a bug gets here unanswered; nobody may hang because of it.
        self.0.put(Err(Error::Abandoned));
    }
}

/// A lock that a panic elsewhere does not poison for good: what it guards is whole after every call.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Queue<E> {
    entries: VecDeque<Entry<E>>,
    bytes: u64,
    closing: bool,
    dead: Option<Arc<Error>>,
}

/// How far the log and the rows are.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    /// Everything before this place is durable.
    pub(super) durable: Position,
    /// The newest event that the rows reflect.
    pub(super) applied: u64,
    /// An append timed out on the projection; nobody waits until it has caught up.
    pub(super) lagging: bool,
    /// Why the rows do not follow at present.
    pub(super) trouble: Option<String>,
    /// Rows that differ even after they were healed.
    pub(super) unhealed: BTreeSet<u64>,
    pub(super) closing: bool,
}

impl Progress {
    fn caught_up(&self) -> bool {
        self.applied + 1 >= self.durable.seq
    }
}

/// What callers and both threads share.
pub(super) struct Shared<E> {
    queue: Mutex<Queue<E>>,
    work: Condvar,
    space: Condvar,
    progress: Mutex<Progress>,
    moved: Condvar,
    /// The durable end moved; only the projector listens.
    more_durable: Condvar,
    projection_wait: Duration,
}

impl<E: Event> Shared<E> {
    pub(super) fn new(durable: Position, applied: u64, trouble: Option<String>, wait: Duration) -> Self {
        let progress = Progress {
            durable,
            applied,
            lagging: trouble.is_some(),
            trouble,
            unhealed: BTreeSet::new(),
            closing: false,
        };
        Self {
            queue: Mutex::new(Queue { entries: VecDeque::new(), bytes: 0, closing: false, dead: None }),
            work: Condvar::new(),
            space: Condvar::new(),
            progress: Mutex::new(progress),
            moved: Condvar::new(),
            more_durable: Condvar::new(),
            projection_wait: wait,
        }
    }

    /// Puts a batch into the queue; waits while the queue is full.
    pub(super) fn join(&self, entry: Entry<E>) -> Result<()> {
        let mut queue = lock(&self.queue);
        loop {
            if let Some(cause) = &queue.dead {
                return Err(Error::Dead { cause: Arc::clone(cause) });
            }
            if queue.closing {
                return Err(Error::Closed);
            }
            if queue.bytes < QUEUE_BYTES {
                break;
            }
            queue = self.space.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        queue.bytes += entry.bytes();
        queue.entries.push_back(entry);
        drop(queue);
        self.work.notify_one();
        Ok(())
    }

    /// How far everything is.
    pub(super) fn progress(&self) -> Progress {
        lock(&self.progress).clone()
    }

    /// Waits until the rows reflect `seq`, at most for the configured time. True where they do.
    pub(super) fn wait_projected(&self, seq: u64) -> bool {
        let deadline = Instant::now() + self.projection_wait;
        let mut progress = lock(&self.progress);
        loop {
            if progress.applied >= seq {
                return !progress.unhealed.contains(&seq);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if progress.lagging || progress.closing || left.is_zero() {
                progress.lagging = true;
                return false;
            }
            progress = self.moved.wait_timeout(progress, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Blocks until the rows reflect everything durable, or `deadline` passes.
    pub(super) fn wait_caught_up(&self, deadline: Instant) -> bool {
        let mut progress = lock(&self.progress);
        while !progress.caught_up() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            progress = self.moved.wait_timeout(progress, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// For the projector: blocks until there is something to apply, the store closes, or `pause`
    /// has passed.
    pub(super) fn wait_for_durable(&self, pause: Option<Duration>) -> Progress {
        let mut progress = lock(&self.progress);
        let deadline = pause.map(|pause| Instant::now() + pause);
        loop {
            if progress.closing || (pause.is_none() && !progress.caught_up()) {
                return progress.clone();
            }
            progress = match deadline {
                None => self.more_durable.wait(progress).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return progress.clone();
                    }
                    self.more_durable.wait_timeout(progress, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// For the projector: the rows reflect `seq` now.
    pub(super) fn set_applied(&self, seq: u64, unhealed: &[u64]) {
        let mut progress = lock(&self.progress);
        progress.applied = seq;
        progress.unhealed.extend(unhealed);
        while progress.unhealed.len() > UNHEALED_KEPT {
            progress.unhealed.pop_first();
        }
        progress.trouble = None;
        if progress.caught_up() {
            progress.lagging = false;
        }
        drop(progress);
        self.moved.notify_all();
    }

    /// For the projector: why the rows do not follow.
    pub(super) fn set_trouble(&self, trouble: Option<String>) {
        lock(&self.progress).trouble = trouble;
    }

    fn set_durable(&self, durable: Position) {
        lock(&self.progress).durable = durable;
        self.more_durable.notify_one();
    }

    /// Lets the committer finish what is queued and stop.
    pub(super) fn close(&self) {
        lock(&self.queue).closing = true;
        self.work.notify_all();
        self.space.notify_all();
    }

    /// Lets the projector stop.
    pub(super) fn close_projection(&self) {
        lock(&self.progress).closing = true;
        self.more_durable.notify_all();
        self.moved.notify_all();
    }

    /// All waiters get the error, later calls fail at once (P10).
    pub(super) fn die(&self, cause: Error) {
        let cause = Arc::new(cause);
        let mut queue = lock(&self.queue);
        queue.dead = Some(Arc::clone(&cause));
        queue.bytes = 0;
        let waiting: Vec<_> = queue.entries.drain(..).collect();
        drop(queue);
        self.space.notify_all();
        self.work.notify_all();
        for entry in waiting {
            entry.slot.put(Err(Error::Dead { cause: Arc::clone(&cause) }));
        }
    }

    /// Whether a write or sync has failed.
    pub(super) fn dead(&self) -> Option<Arc<Error>> {
        lock(&self.queue).dead.clone()
    }
}

/// The thread that owns the log's writer.
pub(super) struct Committer<E: Event> {
    pub(super) shared: Arc<Shared<E>>,
    pub(super) writer: LogWriter,
    pub(super) keys: KeyIndex<E>,
    pub(super) idle_mark: Duration,
}

impl<E: Event> Committer<E> {
    /// Makes groups durable until the store is closed or a write fails.
    pub(super) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        // A panic here is a bug of ours; it must not leave anybody waiting.
        let served = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || self.serve()));
        if let Err(cause) = served.unwrap_or(Err(Error::Abandoned)) {
            tracing::error!(%cause, "the log took its last write (P10)");
            shared.die(cause);
        }
    }

    fn serve(&mut self) -> Result<()> {
        while let Some(entries) = self.next_entries() {
            if entries.is_empty() {
                self.writer.mark()?;
                self.writer.note_tail();
            } else {
                self.commit(entries)?;
            }
        }
        if self.shared.dead().is_none() {
            self.writer.mark()?;
            self.writer.note_tail();
        }
        Ok(())
    }

    /// Entries for the next group; empty when the log has fallen idle; `None` at the close.
    fn next_entries(&mut self) -> Option<Vec<Entry<E>>> {
        let mut queue = lock(&self.shared.queue);
        while queue.entries.is_empty() {
            if queue.closing || queue.dead.is_some() {
                return None;
            }
            queue = if self.writer.wants_mark() {
                let (queue, timeout) = self
                    .shared
                    .work
                    .wait_timeout(queue, self.idle_mark)
                    .unwrap_or_else(PoisonError::into_inner);
                if timeout.timed_out() && queue.entries.is_empty() && !queue.closing {
                    return Some(Vec::new());
                }
                queue
            } else {
                self.shared.work.wait(queue).unwrap_or_else(PoisonError::into_inner)
            };
        }
        let (mut entries, mut bytes) = (Vec::new(), 0);
        let mut keys = HashSet::new();
        while let Some(entry) = queue.entries.front() {
            // A repeated key must find its first use in the index, so it waits for the next group.
            let repeats = entry.keyed.iter().flatten().any(|(key, ..)| keys.contains(key));
            if !entries.is_empty() && (bytes + entry.bytes() > GROUP_BYTES || repeats) {
                break;
            }
            bytes += entry.bytes();
            keys.extend(entry.keyed.iter().flatten().map(|(key, ..)| key.clone()));
            entries.extend(queue.entries.pop_front());
        }
        queue.bytes = queue.bytes.saturating_sub(bytes);
        drop(queue);
        self.shared.space.notify_all();
        Some(entries)
    }

    fn commit(&mut self, entries: Vec<Entry<E>>) -> Result<()> {
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
            if let Err(error) = self.commit_group(group) {
                // No byte of the rest was written.
                let cause = Arc::new(error.clone());
                rest.iter().for_each(|entry| entry.slot.put(Err(Error::Dead { cause: Arc::clone(&cause) })));
                return Err(error);
            }
        }
        Ok(())
    }

    fn commit_group(&mut self, mut group: Vec<Entry<E>>) -> Result<()> {
        group.retain(|entry| !entry.has_keys() || self.answered_by_key(entry));
        if group.is_empty() {
            return Ok(());
        }
        let batches: Vec<Vec<NewEvent>> =
            group.iter_mut().map(|entry| std::mem::take(&mut entry.events)).collect();
        let now = crate::time::Timestamp::now().as_micros();
        let first = match self.writer.append(&batches, now) {
            Ok(first) => first,
            Err(error) => {
                group.iter().for_each(|entry| entry.slot.put(Err(error.clone())));
                return Err(error);
            }
        };
        let mut seq = first;
        let mut answers = Vec::with_capacity(group.len());
        for (entry, batch) in group.into_iter().zip(&batches) {
            let seqs: Vec<u64> = (seq..seq + batch.len() as u64).collect();
            for (seq, keyed) in seqs.iter().zip(entry.keyed) {
                if let Some((key, _, event)) = keyed {
                    self.keys.remember(key, *seq, event);
                }
            }
            seq += batch.len() as u64;
            answers.push((entry.slot, seqs));
        }
        self.shared.set_durable(self.writer.position());
        for (slot, seqs) in answers {
            slot.put(Ok(seqs));
        }
        Ok(())
    }

    /// Answers a batch that its keys already settle: a repeat, a conflict, or keys that cannot be
    /// looked up. True where the batch is to be appended.
    fn answered_by_key(&mut self, entry: &Entry<E>) -> bool {
        let applied = lock(&self.shared.progress).applied;
        let answer = match self.keys.consult(&entry.keyed, applied, self.writer.position()) {
            Ok(Consulted::New) => return true,
            Ok(Consulted::Repeated(seqs)) => Ok(seqs),
            Err(error) => Err(error),
        };
        entry.slot.put(answer);
        false
    }
}
