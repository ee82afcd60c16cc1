//! The queue of batches, and who makes them durable.
//!
//! Whoever holds the *core* commits: it is taken out of the queue and put back. A caller who finds the
//! queue empty but for its own batch takes the core itself, which spares two changes of thread. As soon
//! as several callers meet, the thread takes over and makes large groups.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use crate::error::{Error, Result};

use super::sync::{Arc, Condvar, Mutex, PoisonError, lock};

/// Frames of one group, unless a single batch is larger.
const GROUP_BYTES: u64 = 1024 * 1024;
/// Encoded bytes that may wait in the queue before joining it blocks.
const QUEUE_BYTES: u64 = 64 * 1024 * 1024;

/// What stands in the queue.
pub(in crate::store) trait Batch {
    /// Its length in the log.
    fn bytes(&self) -> u64;
    /// Its idempotency keys. Two batches with the same key are never in one group.
    fn keys(&self) -> impl Iterator<Item = &String>;
    /// Answers whoever waits for it with an error.
    fn refuse(self, error: Error);
}

/// What became of a group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Done {
    /// Batches in it.
    pub(super) batches: usize,
    /// The log ends in a group that no mark proves.
    pub(super) wants_mark: bool,
}

/// What the thread is to do.
pub(super) enum Task<T, C> {
    /// Make these durable.
    Commit(C, Vec<T>),
    /// Nothing came for a while: prove the last group.
    Idle(C),
    /// The store closes, and nothing is left in the queue.
    Close(C),
    /// A write or sync has failed.
    Dead,
}

struct State<T, C> {
    entries: VecDeque<T>,
    bytes: u64,
    closing: bool,
    dead: Option<Arc<Error>>,
    core: Option<C>,
    /// How often the core came back.
    turns: u64,
    /// Several callers met in the last group.
    shared: bool,
    wants_mark: bool,
    /// The thread counts the time until the log is idle.
    timing: bool,
}

/// The queue. `T` is a batch, `C` what is needed to commit one.
pub(in crate::store) struct Queue<T, C> {
    state: Mutex<State<T, C>>,
    /// For the thread.
    work: Condvar,
    space: Condvar,
}

impl<T: Batch, C> State<T, C> {
    fn take_group(&mut self) -> Vec<T> {
        let (mut group, mut bytes) = (Vec::new(), 0);
        let mut keys = HashSet::new();
        while let Some(entry) = self.entries.front() {
            // A repeated key must find its first use in the index, so it waits for the next group.
            let repeats = entry.keys().any(|key| keys.contains(key));
            if !group.is_empty() && (bytes + entry.bytes() > GROUP_BYTES || repeats) {
                break;
            }
            bytes += entry.bytes();
            keys.extend(entry.keys().cloned());
            group.extend(self.entries.pop_front());
        }
        self.bytes = self.bytes.saturating_sub(bytes);
        group
    }

    fn put_back(&mut self, core: C, done: Option<Done>) {
        self.core = Some(core);
        self.turns += 1;
        if let Some(done) = done {
            self.shared = done.batches > 1;
        }
        self.wants_mark = done.is_some_and(|done| done.wants_mark);
    }
}

impl<T: Batch, C> Queue<T, C> {
    pub(in crate::store) fn new(core: C, wants_mark: bool) -> Self {
        let state = State {
            entries: VecDeque::new(),
            bytes: 0,
            closing: false,
            dead: None,
            core: Some(core),
            turns: 0,
            shared: false,
            wants_mark,
            timing: false,
        };
        Self { state: Mutex::new(state), work: Condvar::new(), space: Condvar::new() }
    }

    /// Puts a batch into the queue; waits while the queue is full. A caller who would `lead` gets the core, and
    /// its batch back, where it is alone; whoever else holds the core, or the thread, commits otherwise.
    pub(super) fn join(&self, entry: T, lead: bool) -> Result<Option<(C, Vec<T>)>> {
        let mut state = lock(&self.state);
        loop {
            if let Some(cause) = &state.dead {
                let error = Error::Dead { cause: Arc::clone(cause) };
                drop(state);
                entry.refuse(error.clone());
                return Err(error);
            }
            if state.closing {
                drop(state);
                entry.refuse(Error::Closed);
                return Err(Error::Closed);
            }
            if state.bytes < QUEUE_BYTES {
                break;
            }
            state = self.space.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.bytes += entry.bytes();
        state.entries.push_back(entry);
        let alone = lead && !state.shared && state.entries.len() == 1;
        let Some(core) = state.core.take_if(|_| alone) else {
            // Whoever holds the core looks at the queue when it comes back.
            let at_rest = state.core.is_some();
            drop(state);
            if at_rest {
                self.work.notify_one();
            }
            return Ok(None);
        };
        let group = state.take_group();
        drop(state);
        self.space.notify_all();
        Ok(Some((core, group)))
    }

    /// For a caller: the core again.
    pub(super) fn give_back(&self, core: C, done: Done) {
        let mut state = lock(&self.state);
        state.put_back(core, Some(done));
        let needed = !state.entries.is_empty()
            || state.closing
            || state.dead.is_some()
            || (state.wants_mark && !state.timing);
        drop(state);
        if needed {
            self.work.notify_one();
        }
    }

    /// For the thread: puts the core back, if it comes with one, and waits for the next task.
    pub(super) fn next(&self, core: Option<(C, Option<Done>)>, idle: Duration) -> Task<T, C> {
        let mut state = lock(&self.state);
        if let Some((core, done)) = core {
            state.put_back(core, done);
        }
        loop {
            if state.dead.is_some() {
                state.core = None;
                return Task::Dead;
            }
            if !state.entries.is_empty()
                && let Some(core) = state.core.take()
            {
                let group = state.take_group();
                drop(state);
                self.space.notify_all();
                return Task::Commit(core, group);
            }
            if state.closing
                && state.entries.is_empty()
                && let Some(core) = state.core.take()
            {
                return Task::Close(core);
            }
            if !state.wants_mark || state.core.is_none() {
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let turns = state.turns;
            state.timing = true;
            let (again, timeout) =
                self.work.wait_timeout(state, idle).unwrap_or_else(PoisonError::into_inner);
            state = again;
            state.timing = false;
            let idle = timeout.timed_out() && state.turns == turns && state.entries.is_empty();
            if idle
                && !state.closing
                && state.dead.is_none()
                && let Some(core) = state.core.take()
            {
                return Task::Idle(core);
            }
        }
    }

    /// Lets the thread finish what is queued and stop.
    pub(super) fn close(&self) {
        lock(&self.state).closing = true;
        self.work.notify_all();
        self.space.notify_all();
    }

    /// All waiters get the error, later calls fail at once (P10).
    pub(super) fn die(&self, cause: Error) {
        let cause = Arc::new(cause);
        let mut state = lock(&self.state);
        state.dead.get_or_insert_with(|| Arc::clone(&cause));
        state.bytes = 0;
        let waiting: Vec<T> = state.entries.drain(..).collect();
        drop(state);
        self.space.notify_all();
        self.work.notify_all();
        for entry in waiting {
            entry.refuse(Error::Dead { cause: Arc::clone(&cause) });
        }
    }

    /// Whether a write or sync has failed.
    pub(super) fn dead(&self) -> Option<Arc<Error>> {
        lock(&self.state).dead.clone()
    }
}
